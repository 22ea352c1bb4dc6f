//! What a value must be beyond its type, key by key.

use std::{fmt, path::Path, time::Duration};

use super::{AuthKey, MediaServer, Settings, SettingsError, origin};
use crate::ids::App;

/// The shortest secret of HS256: as long as its hash (RFC 7518 section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// The smallest buffer that is of use: about a packet, and a record of TLS.
const MIN_SOCKET_SEND_BUFFER: usize = 16 * 1024;

/// The shortest duration: shorter ones would only keep the server busy.
const MIN_DURATION: Duration = Duration::from_millis(10);

/// The shortest time between two lines of figures.
const MIN_STATS_INTERVAL: Duration = Duration::from_millis(100);

/// The most threads that actix-server runs.
const MAX_WORKERS: usize = 512;

type Checked = Result<(), SettingsError>;

/// Finds the first value that is out of its range.
///
/// # Errors
/// [`SettingsError::Invalid`], which names key, value and remedy.
pub(super) fn check(settings: &Settings) -> Checked {
    let Settings {
        server,
        tls,
        session,
        rooms,
        auth,
        media,
        media_servers,
        log,
    } = settings;

    at_most("server.workers", server.workers, MAX_WORKERS)?;
    positive("server.max_connections", server.max_connections)?;
    positive(
        "server.connect_burst_per_ip",
        server.connect_burst_per_ip as usize,
    )?;
    positive("server.max_pending", server.max_pending as usize)?;
    at_most(
        "server.max_pending",
        server.max_pending as usize,
        i32::MAX as usize,
    )?;
    for (at, origin) in server.allowed_origins.iter().enumerate() {
        let key = format!("server.allowed_origins[{at}]");
        origin::check(origin).map_err(|remedy| quoted(&key, origin, remedy))?;
    }
    if let Some(ops) = server.ops_bind
        && ops == server.bind
        && ops.port() != 0
    {
        return Err(invalid(
            "server.ops_bind",
            ops,
            "must not be the address of server.bind",
        ));
    }
    some_time("server.drain_timeout", server.drain_timeout)?;

    match (tls.cert_file.as_str(), tls.key_file.as_str()) {
        ("", "") => {}
        ("", _) => {
            return Err(quoted(
                "tls.cert_file",
                "",
                "is needed where tls.key_file is set",
            ));
        }
        (_, "") => {
            return Err(quoted(
                "tls.key_file",
                "",
                "is needed where tls.cert_file is set",
            ));
        }
        (cert, key) => {
            readable("tls.cert_file", cert)?;
            readable("tls.key_file", key)?;
        }
    }

    some_time("session.join_timeout", session.join_timeout)?;
    some_time("session.ping_interval", session.ping_interval)?;
    some_time("session.idle_timeout", session.idle_timeout)?;
    if session.idle_timeout < session.ping_interval.saturating_mul(2) {
        let ping_interval = humantime::format_duration(session.ping_interval);
        return Err(timed(
            "session.idle_timeout",
            session.idle_timeout,
            format_args!("must be at least twice session.ping_interval, which is {ping_interval}"),
        ));
    }
    positive("session.max_message_bytes", session.max_message_bytes)?;
    at_most(
        "session.max_message_bytes",
        session.max_message_bytes,
        1 << 30,
    )?;
    positive("session.send_queue", session.send_queue)?;
    positive("session.send_queue_bytes", session.send_queue_bytes)?;
    check_socket_send_buffer(session.socket_send_buffer)?;
    some_time("session.send_timeout", session.send_timeout)?;
    positive("session.rate_burst", session.rate_burst as usize)?;

    off_or_some_time("rooms.resume_window", rooms.resume_window)?;
    positive("rooms.resume_events", rooms.resume_events)?;
    if !rooms.resume_window.is_zero() && rooms.resume_events <= session.send_queue {
        return Err(invalid(
            "rooms.resume_events",
            rooms.resume_events,
            "must be above session.send_queue, or a slow consumer cannot resume",
        ));
    }
    positive("rooms.resume_bytes", rooms.resume_bytes)?;

    off_or_some_time("auth.leeway", auth.leeway)?;
    for (at, key) in auth.keys.iter().enumerate() {
        check_key(&Entry("auth.keys", at), key)?;
        let same = |other: &AuthKey| other.app == key.app && other.kid == key.kid;
        if auth.keys[..at].iter().any(same) {
            return Err(quoted(
                &Entry("auth.keys", at).key("kid"),
                &key.kid,
                "stands there twice for one app; each key needs a kid of its own",
            ));
        }
    }

    off_or_some_time("media.health_interval", media.health_interval)?;
    some_time("media.health_timeout", media.health_timeout)?;
    positive("media.unhealthy_after", media.unhealthy_after as usize)?;

    for (at, server) in media_servers.iter().enumerate() {
        check_media_server(&Entry("media_servers", at), server)?;
        let same = |other: &MediaServer| other.name == server.name;
        if media_servers[..at].iter().any(same) {
            return Err(quoted(
                &Entry("media_servers", at).key("name"),
                &server.name,
                "stands there twice; each server needs a name of its own",
            ));
        }
    }

    let stats_interval = log.stats_interval;
    if !stats_interval.is_zero() && stats_interval < MIN_STATS_INTERVAL {
        return Err(timed(
            "log.stats_interval",
            stats_interval,
            "must be 0 or at least 100ms",
        ));
    }
    Ok(())
}

/// One entry of a list of tables.
struct Entry(&'static str, usize);

impl Entry {
    /// The path of a key of it.
    fn key(&self, name: &str) -> String {
        format!("{}[{}].{name}", self.0, self.1)
    }
}

/// The kernel raises a smaller buffer to 4,608 bytes without a word, and reads a signed integer.
fn check_socket_send_buffer(bytes: usize) -> Checked {
    let key = "session.socket_send_buffer";
    if bytes > 0 && bytes < MIN_SOCKET_SEND_BUFFER {
        let remedy = format!("must be 0 or at least {MIN_SOCKET_SEND_BUFFER}");
        return Err(invalid(key, bytes, remedy));
    }
    at_most(key, bytes, 1 << 30)
}

fn check_key(entry: &Entry, key: &AuthKey) -> Checked {
    if let Err(e) = App::new(&key.app) {
        return Err(quoted(&entry.key("app"), &key.app, e));
    }
    match key.alg.as_str() {
        "HS256" => match (key.secret.expose(), key.secret_file.as_str()) {
            ("", "") => Err(quoted(
                &entry.key("secret"),
                "",
                "HS256 needs a secret or a secret_file",
            )),
            ("", file) => {
                let secret = read(&entry.key("secret_file"), file)?;
                secret_is_long(&entry.key("secret_file"), secret.trim_ascii_end().len())
            }
            (secret, "") => secret_is_long(&entry.key("secret"), secret.len()),
            (_, file) => Err(quoted(
                &entry.key("secret_file"),
                file,
                "stands beside a secret; one of them is enough",
            )),
        },
        "RS256" | "ES256" | "EdDSA" => match key.public_key_file.as_str() {
            "" => Err(quoted(
                &entry.key("public_key_file"),
                "",
                format_args!("{} needs the public key", key.alg),
            )),
            file => readable(&entry.key("public_key_file"), file),
        },
        other => Err(quoted(
            &entry.key("alg"),
            other,
            "must be HS256, RS256, ES256 or EdDSA",
        )),
    }
}

fn secret_is_long(key: &str, bytes: usize) -> Checked {
    if bytes < MIN_SECRET_BYTES {
        return Err(invalid(
            key,
            "(hidden)",
            format_args!("must be {MIN_SECRET_BYTES} bytes long at least, not {bytes}"),
        ));
    }
    Ok(())
}

fn check_media_server(entry: &Entry, server: &MediaServer) -> Checked {
    if server.name.is_empty() {
        return Err(quoted(&entry.key("name"), "", "must not be empty"));
    }
    positive(&entry.key("weight"), server.weight as usize)?;
    if server.protocols.is_empty() {
        return Err(invalid(
            &entry.key("protocols"),
            "[]",
            "must name what it speaks, like [\"webrtc\"]",
        ));
    }
    let health = &server.health;
    let url = ["http://", "https://"].iter().any(|scheme| {
        health
            .strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty())
    });
    let tcp = health
        .strip_prefix("tcp://")
        .and_then(|rest| rest.rsplit_once(':'))
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !(health.is_empty() || url || tcp) {
        return Err(quoted(
            &entry.key("health"),
            health,
            "must be \"http(s)://…\", \"tcp://host:port\", or \"\" for none",
        ));
    }
    Ok(())
}

fn positive(key: &str, value: usize) -> Checked {
    if value == 0 {
        return Err(invalid(key, value, "must be 1 or more"));
    }
    Ok(())
}

fn at_most(key: &str, value: usize, most: usize) -> Checked {
    if value > most {
        return Err(invalid(key, value, format_args!("must be at most {most}")));
    }
    Ok(())
}

fn some_time(key: &str, value: Duration) -> Checked {
    if value < MIN_DURATION {
        return Err(timed(key, value, "must be at least 10ms, like \"10s\""));
    }
    Ok(())
}

fn off_or_some_time(key: &str, value: Duration) -> Checked {
    if !value.is_zero() && value < MIN_DURATION {
        return Err(timed(key, value, "must be 0 or at least 10ms"));
    }
    Ok(())
}

fn timed(key: &str, value: Duration, remedy: impl fmt::Display) -> SettingsError {
    quoted(key, &humantime::format_duration(value).to_string(), remedy)
}

fn readable(key: &str, file: &str) -> Checked {
    read(key, file).map(|_| ())
}

fn read(key: &str, file: &str) -> Result<Vec<u8>, SettingsError> {
    std::fs::read(Path::new(file)).map_err(|e| {
        quoted(
            key,
            file,
            format_args!("must be a file that can be read: {e}"),
        )
    })
}

fn quoted(key: &str, value: &str, remedy: impl fmt::Display) -> SettingsError {
    invalid(key, format_args!("{value:?}"), remedy)
}

fn invalid(key: &str, value: impl fmt::Display, remedy: impl fmt::Display) -> SettingsError {
    SettingsError::Invalid {
        key: key.into(),
        value: value.to_string(),
        remedy: remedy.to_string(),
    }
}

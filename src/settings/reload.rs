//! What a reload changes, and when the change takes effect, key by key.

use super::{Settings, SettingsError, check};

/// Keys whose change takes effect at the reload. `tls.*` and `auth.keys` name files, whose content
/// is read again as well.
pub const NOW: &[&str] = &[
    "server.max_connections",
    "server.max_connections_per_ip",
    "server.connect_rate_per_ip",
    "server.connect_burst_per_ip",
    "server.allowed_origins",
    "server.trusted_proxies",
    "tls.cert_file",
    "tls.key_file",
    "rooms.max_rooms",
    "rooms.max_members",
    "auth.leeway",
    "auth.keys",
    "media.health_interval",
    "media.health_timeout",
    "media.unhealthy_after",
    "media_servers",
    "log.level",
];

/// Keys whose change holds for connections that are accepted after the reload.
pub const NEW_CONNECTIONS: &[&str] = &[
    "session.join_timeout",
    "session.max_message_bytes",
    "session.rate_limit",
    "session.rate_burst",
    "session.rate_bytes",
];

/// Keys whose change holds for rooms that are opened after the reload.
pub const NEW_ROOMS: &[&str] = &[
    "rooms.resume_window",
    "rooms.resume_events",
    "rooms.resume_bytes",
];

macro_rules! need_a_restart {
    ($($section:ident.$key:ident),+ $(,)?) => {
        /// Keys whose change takes effect at a restart.
        pub const RESTART: &[&str] =
            &[$(concat!(stringify!($section), ".", stringify!($key))),+];

        /// Gives the keys of [`RESTART`] their present values in `next`. Returns those that differed.
        fn keep_present(present: &Settings, next: &mut Settings) -> Vec<&'static str> {
            let mut differing = Vec::new();
            $(if next.$section.$key != present.$section.$key {
                next.$section.$key.clone_from(&present.$section.$key);
                differing.push(concat!(stringify!($section), ".", stringify!($key)));
            })+
            differing
        }
    };
}

need_a_restart![
    server.bind,
    server.workers,
    server.max_pending,
    server.ops_bind,
    server.drain_timeout,
    server.demo,
    server.client_library,
    session.ping_interval,
    session.idle_timeout,
    session.send_queue,
    session.send_queue_bytes,
    session.socket_send_buffer,
    session.send_timeout,
    log.format,
    log.stats_interval,
];

/// What a running server makes of settings that it has read again.
#[derive(Debug)]
pub struct Reload {
    /// The settings that are in effect from now on.
    pub settings: Settings,
    /// The keys that were changed and need a restart. `settings` has their present values.
    pub need_restart: Vec<&'static str>,
}

impl Reload {
    /// Lays the settings that were `read` over the `present` ones.
    ///
    /// # Errors
    /// [`SettingsError::Invalid`] where authentication or TLS would be turned on or off, or where
    /// a new value does not fit a present one that only a restart changes.
    pub fn new(present: &Settings, read: Settings) -> Result<Self, SettingsError> {
        stays(
            "auth.keys",
            "authentication",
            !present.auth.keys.is_empty(),
            !read.auth.keys.is_empty(),
        )?;
        stays(
            "tls.cert_file",
            "TLS",
            !present.tls.cert_file.is_empty(),
            !read.tls.cert_file.is_empty(),
        )?;
        let mut settings = read;
        let need_restart = keep_present(present, &mut settings);
        if !need_restart.is_empty() {
            check::check(&settings).map_err(|error| error.until_restart(&need_restart))?;
        }
        Ok(Self {
            settings,
            need_restart,
        })
    }
}

/// Checks that `feature`, which `key` turns on, is as it was.
fn stays(key: &str, feature: &str, is_on: bool, is_to_be_on: bool) -> Result<(), SettingsError> {
    if is_on == is_to_be_on {
        return Ok(());
    }
    let (value, change) = match is_to_be_on {
        true => ("(set)", "on"),
        false => ("(not set)", "off"),
    };
    Err(SettingsError::Invalid {
        key: key.into(),
        value: value.into(),
        remedy: format!("{feature} is turned {change} by a restart, not by a reload"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::settings::{AuthKey, DEFAULTS};

    fn defaults() -> Value {
        serde_json::to_value(toml::from_str::<toml::Table>(DEFAULTS).unwrap()).unwrap()
    }

    /// Every key of settings.toml with its section. A list of tables is one key.
    fn every_key() -> Vec<String> {
        let mut keys = Vec::new();
        for (section, value) in defaults().as_object().unwrap() {
            match value.as_object() {
                Some(table) => keys.extend(table.keys().map(|key| format!("{section}.{key}"))),
                None => keys.push(section.clone()),
            }
        }
        keys
    }

    /// Another value of the same type that is allowed on its own.
    fn other_than(key: &str, value: &Value) -> Value {
        match (key, value) {
            ("server.bind" | "server.ops_bind", _) => "127.0.0.9:9".into(),
            ("session.idle_timeout", _) => "25s".into(),
            ("log.format", _) => "json".into(),
            ("log.level", _) => "warn".into(),
            ("server.allowed_origins", _) => vec!["https://a.example"].into(),
            ("server.trusted_proxies", _) => vec!["10.0.0.0/8"].into(),
            (_, Value::String(text)) if text.ends_with('s') => "9s".into(),
            (_, Value::String(_)) => "other".into(),
            (_, Value::Number(number)) => (number.as_u64().unwrap() + 1).into(),
            (_, Value::Bool(is_on)) => (!is_on).into(),
            (_, Value::Array(_)) => Value::Array(Vec::new()),
            _ => panic!("no other value for {key} = {value}"),
        }
    }

    /// The defaults but for one key.
    fn settings_but_for(key: &str) -> Settings {
        let mut tree = defaults();
        let path = format!("/{}", key.replace('.', "/"));
        let value = tree.pointer_mut(&path).unwrap();
        *value = other_than(key, value);
        serde_json::from_value(tree).unwrap()
    }

    #[test]
    fn every_key_has_one_class() {
        let mut classified: Vec<_> = [NOW, NEW_CONNECTIONS, NEW_ROOMS, RESTART].concat();
        classified.sort_unstable();
        let mut known = every_key();
        known.sort_unstable();
        assert_eq!(classified, known);
    }

    #[test]
    fn the_keys_of_the_restart_class_are_kept_and_named_and_no_others() {
        let present = Settings::defaults();
        for key in every_key() {
            // These keys turn something on, which is a test of its own; auth.keys has no other
            // value that needs no files.
            if key.starts_with("tls.") || key == "auth.keys" {
                continue;
            }
            let read = settings_but_for(&key);
            let as_read = format!("{read:?}");
            let Reload {
                settings,
                need_restart,
            } = Reload::new(&present, read).unwrap();
            if RESTART.contains(&&*key) {
                assert_eq!(need_restart, [&*key]);
                assert_eq!(format!("{settings:?}"), format!("{present:?}"), "{key}");
            } else {
                assert_eq!(need_restart, [""; 0], "{key}");
                assert_eq!(format!("{settings:?}"), as_read, "{key}");
                assert_ne!(as_read, format!("{present:?}"), "{key} was not changed");
            }
        }
    }

    #[test]
    fn the_documented_classes_are_these() {
        let page = include_str!("../../docs/deployment.md");
        for (class, keys) in [
            ("now", NOW),
            ("new connections", NEW_CONNECTIONS),
            ("new rooms", NEW_ROOMS),
            ("restart", RESTART),
        ] {
            let row = format!("| {class} |");
            let row = page.lines().find(|line| line.starts_with(&row));
            let row = row.unwrap_or_else(|| panic!("no row for {class}"));
            let documented: BTreeSet<_> = row.split('`').skip(1).step_by(2).collect();
            assert_eq!(documented, keys.iter().copied().collect(), "{class}");
        }
    }

    fn key(app: &str) -> AuthKey {
        AuthKey {
            app: app.into(),
            kid: String::new(),
            alg: "HS256".into(),
            secret: Default::default(),
            secret_file: String::new(),
            public_key_file: String::new(),
        }
    }

    #[test]
    fn authentication_and_tls_stay_on_or_off() {
        let plain = Settings::defaults();
        let mut with_key = plain.clone();
        with_key.auth.keys = vec![key("a"), key("b")];
        let mut with_tls = plain.clone();
        with_tls.tls.cert_file = "cert.pem".into();
        for (present, read, words) in [
            (
                &plain,
                &with_key,
                "auth.keys = (set): authentication is turned on",
            ),
            (
                &with_key,
                &plain,
                "auth.keys = (not set): authentication is turned off",
            ),
            (&plain, &with_tls, "tls.cert_file = (set): TLS is turned on"),
            (
                &with_tls,
                &plain,
                "tls.cert_file = (not set): TLS is turned off",
            ),
        ] {
            let error = Reload::new(present, read.clone()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert!(Reload::new(present, present.clone()).is_ok());
        }
        let mut with_less = with_key.clone();
        with_less.auth.keys.pop();
        assert!(Reload::new(&with_key, with_less).is_ok(), "one app fewer");
    }

    #[test]
    fn a_new_value_that_does_not_fit_a_kept_one_is_refused() {
        let present = Settings::defaults();
        let mut read = present.clone();
        read.session.send_queue = 8;
        read.rooms.resume_events = 9;
        assert!(check::check(&read).is_ok());
        let error = Reload::new(&present, read).unwrap_err().to_string();
        for word in ["rooms.resume_events = 9", "session.send_queue", "restart"] {
            assert!(error.contains(word), "{error}");
        }
    }
}

//! Every setting: its key, its default, what is allowed.
//!
//! Later wins: built-in defaults, the settings file, the environment
//! (`MEETING_SERVER__SERVER__BIND=…`), flags. Only the value that wins is checked. The defaults
//! are `settings.toml` at the top of the repository, which is built in.

mod check;
pub mod environment;
mod error;
mod file;
mod origin;
pub mod reload;
mod source;
mod strict;
pub mod value;

use std::{ffi::OsString, net::SocketAddr, time::Duration};

use config::{Config, ConfigError, File, FileFormat};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::settings::value::Secret;
pub use crate::settings::{
    error::SettingsError,
    source::{FileState, Source},
};

/// The file that is read from the working directory where it is there and no other is named.
pub const DEFAULT_FILE: &str = "settings.toml";

const DEFAULTS: &str = include_str!("../settings.toml");

/// All settings.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The process and its doors.
    pub server: Server,
    /// TLS at the door.
    pub tls: Tls,
    /// One client's connection.
    pub session: Session,
    /// The rooms.
    pub rooms: Rooms,
    /// Who may come in.
    pub auth: Auth,
    /// The health of the media servers.
    pub media: Media,
    /// The media servers, in order.
    pub media_servers: Vec<MediaServer>,
    /// The log.
    pub log: Log,
}

/// `[server]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Where to listen.
    #[serde(with = "value::addr")]
    pub bind: SocketAddr,
    /// Threads that serve; 0: one a core.
    pub workers: usize,
    /// Connections at a time; over it, the upgrade gets HTTP 503.
    pub max_connections: usize,
    /// The same of one address; 0: no limit.
    pub max_connections_per_ip: usize,
    /// New connections a second of one address; 0: no limit.
    pub connect_rate_per_ip: u32,
    /// How many of them may come at once.
    pub connect_burst_per_ip: u32,
    /// The listen backlog.
    pub max_pending: u32,
    /// Origins of pages that may connect; empty: any.
    pub allowed_origins: Vec<String>,
    /// Networks whose X-Forwarded-For is believed.
    #[serde(deserialize_with = "value::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Where /metrics, /livez and /readyz answer instead; `None`: at `bind` with the rest.
    #[serde(with = "value::optional_addr")]
    pub ops_bind: Option<SocketAddr>,
    /// How long to say goodbye before the exit.
    #[serde(with = "value::duration")]
    pub drain_timeout: Duration,
    /// Whether there is a page at `/`.
    pub demo: bool,
    /// Whether the client library is served without the page, too.
    pub client_library: bool,
}

/// `[tls]`: both or neither.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain, PEM; "" = no TLS.
    pub cert_file: String,
    /// Its private key, PEM.
    pub key_file: String,
}

/// `[session]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// A connection that has not joined by then is closed; a half-sent upgrade too.
    #[serde(with = "value::duration")]
    pub join_timeout: Duration,
    /// A client is pinged at least this often.
    #[serde(with = "value::duration")]
    pub ping_interval: Duration,
    /// Nothing heard for so long, pongs included: the connection is lost.
    #[serde(with = "value::duration")]
    pub idle_timeout: Duration,
    /// The longest message a client may send, in bytes.
    pub max_message_bytes: usize,
    /// Messages that may wait for one slow reader.
    pub send_queue: usize,
    /// The same in bytes, whichever comes first.
    pub send_queue_bytes: usize,
    /// SO_SNDBUF of a client's socket, in bytes; 0: the system decides.
    pub socket_send_buffer: usize,
    /// A socket that takes no byte for so long is cut.
    #[serde(with = "value::duration")]
    pub send_timeout: Duration,
    /// Messages a second of one connection; 0: no limit, of bytes either.
    pub rate_limit: u32,
    /// How many may come at once.
    pub rate_burst: u32,
    /// Bytes a second of one connection; 0: no limit.
    pub rate_bytes: u32,
}

/// `[rooms]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rooms {
    /// Rooms at a time; 0: no limit.
    pub max_rooms: usize,
    /// Members of one room; 0: no limit.
    pub max_members: usize,
    /// How long a lost member's place is kept; 0: a loss is a leave.
    #[serde(with = "value::duration")]
    pub resume_window: Duration,
    /// Events kept for each room at most.
    pub resume_events: usize,
    /// Their bytes at most.
    pub resume_bytes: usize,
}

/// `[auth]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// For `exp` and `nbf` of a token; 0: none.
    #[serde(with = "value::duration")]
    pub leeway: Duration,
    /// The keys; none: open to everybody.
    pub keys: Vec<AuthKey>,
}

/// `[[auth.keys]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthKey {
    /// Whose tokens it signs.
    pub app: String,
    /// Its name in a token's header; "" where an app has one key.
    #[serde(default)]
    pub kid: String,
    /// HS256, RS256, ES256 or EdDSA.
    pub alg: String,
    /// The shared secret of HS256.
    #[serde(default)]
    pub secret: Secret,
    /// A file that holds it.
    #[serde(default)]
    pub secret_file: String,
    /// The public key of the others, PEM.
    #[serde(default)]
    pub public_key_file: String,
}

/// `[media]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Media {
    /// How often a media server is asked; 0: every one is believed healthy.
    #[serde(with = "value::duration")]
    pub health_interval: Duration,
    /// How long it may take to answer.
    #[serde(with = "value::duration")]
    pub health_timeout: Duration,
    /// Failed checks in a row that make it unhealthy.
    pub unhealthy_after: u32,
}

/// `[[media_servers]]`
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct MediaServer {
    /// How the log calls it.
    pub name: String,
    /// Its share of the rooms, beside the weights of the others.
    #[serde(default = "one")]
    pub weight: u32,
    /// What it speaks.
    pub protocols: Vec<String>,
    /// How to ask whether it is well: `http(s)://…`, `tcp://host:port`, or "": always.
    #[serde(default)]
    pub health: String,
    /// Its addresses; "" = none.
    #[serde(default)]
    pub wss: String,
    /// See `wss`.
    #[serde(default)]
    pub ws: String,
    /// See `wss`.
    #[serde(default)]
    pub https: String,
    /// See `wss`.
    #[serde(default)]
    pub http: String,
    /// See `wss`.
    #[serde(default)]
    pub rtsp: String,
}

fn one() -> u32 {
    1
}

/// `[log]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// What is logged where `RUST_LOG` does not say otherwise.
    #[serde(with = "value::level")]
    pub level: log::LevelFilter,
    /// How a line looks.
    pub format: LogFormat,
    /// How often a line of figures is logged; 0: never.
    #[serde(with = "value::duration")]
    pub stats_interval: Duration,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl<'de> Deserialize<'de> for LogFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer).as_deref() {
            Ok("text") => Ok(Self::Text),
            Ok("json") => Ok(Self::Json),
            _ => Err(de::Error::custom("must be \"text\" or \"json\"")),
        }
    }
}

impl Serialize for LogFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl Settings {
    /// Lays the layers over the defaults: the text of a settings file, then `environment`
    /// (variables by name; those without the prefix are ignored), then `bind` of the command
    /// line. Checks the result.
    ///
    /// # Errors
    /// [`SettingsError`], in one line.
    fn from_layers(
        file: &str,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        bind: Option<SocketAddr>,
    ) -> Result<Self, SettingsError> {
        let mut builder = Config::builder()
            .add_source(File::from_str(DEFAULTS, FileFormat::Toml))
            .add_source(File::from_str(file, FileFormat::Toml));
        for (path, value) in environment::overrides(environment)? {
            builder = builder.set_override(path, value).map_err(unmerged)?;
        }
        if let Some(addr) = bind {
            let addr = addr.to_string();
            builder = builder
                .set_override("server.bind", addr)
                .map_err(unmerged)?;
        }
        let settings = strict::read(builder.build().map_err(unmerged)?)?;
        check::check(&settings)?;
        Ok(settings)
    }

    /// The built-in defaults.
    pub fn defaults() -> Self {
        Config::builder()
            .add_source(File::from_str(DEFAULTS, FileFormat::Toml))
            .build()
            .map_err(unmerged)
            .and_then(strict::read)
            .expect("the defaults are part of the program and tested with it")
    }

    /// How many worker threads there are to be.
    pub fn worker_count(&self) -> usize {
        match self.server.workers {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            count => count,
        }
    }
}

/// What the layers cannot be laid over each other for. Each of them has been read before, so
/// this is nothing that a setting could do.
fn unmerged(error: ConfigError) -> SettingsError {
    SettingsError::Unreadable(error.to_string())
}

//! Every setting: its key, its default, what is allowed.
//!
//! Later wins: built-in defaults, the settings file, the environment
//! (`MEETING_SERVER__SERVER__BIND=…`), flags. Durations are texts ("10s"), sizes bytes.

use std::{net::SocketAddr, path::Path, time::Duration};

use config::{Config, Environment, File, FileFormat};
use serde::{Deserialize, Deserializer, de};
use thiserror::Error;

/// The file that is read from the working directory where it is there and no other is named.
pub const DEFAULT_FILE: &str = "settings.toml";

/// The built-in defaults are the file that spells them out.
const DEFAULTS: &str = include_str!("../settings.toml");

/// Settings that cannot be used, in one line that says what would be right.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// Not readable, not TOML, an unknown key, or a value of the wrong type.
    #[error("settings: {0}")]
    Unreadable(#[from] config::ConfigError),
    /// A value outside its range.
    #[error("settings: {key} = {value}: {remedy}")]
    Invalid {
        /// The key, with its section.
        key: &'static str,
        /// What it was set to.
        value: String,
        /// What would be right.
        remedy: &'static str,
    },
}

/// All settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The process and its doors.
    pub server: Server,
    /// One client's connection.
    pub session: Session,
    /// The media servers, in order.
    pub media_servers: Vec<MediaServer>,
    /// The log.
    pub log: Log,
}

/// `[server]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Where to listen.
    pub bind: SocketAddr,
    /// Threads that serve; 0: one a core.
    pub workers: usize,
    /// The listen backlog.
    pub max_pending: u32,
    /// How long to say goodbye before the exit.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

/// `[session]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// A connection that has not joined by then is closed; a half-sent upgrade too.
    #[serde(with = "humantime_serde")]
    pub join_timeout: Duration,
    /// How often a client is pinged.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// Nothing heard for so long, pongs included: the connection is lost.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// The longest message a client may send, in bytes.
    pub max_message_bytes: usize,
    /// Messages that may wait for one slow reader.
    pub send_queue: usize,
    /// The same in bytes, whichever comes first.
    pub send_queue_bytes: usize,
    /// A socket that takes no byte for so long is cut.
    #[serde(with = "humantime_serde")]
    pub send_timeout: Duration,
}

/// `[[media_servers]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaServer {
    /// How the log calls it.
    pub name: String,
    /// What it speaks.
    pub protocols: Vec<String>,
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

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// What is logged where `RUST_LOG` does not say otherwise.
    #[serde(deserialize_with = "level")]
    pub level: log::LevelFilter,
}

impl Settings {
    /// Reads the settings: from `file`, which must then be there, or from [`DEFAULT_FILE`] if
    /// that is; then from the environment.
    ///
    /// # Errors
    /// [`SettingsError`], in one line.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingsError> {
        let file = match file {
            Some(path) => File::from(path).format(FileFormat::Toml).required(true),
            None => File::new(DEFAULT_FILE, FileFormat::Toml).required(false),
        };
        let environment = Environment::with_prefix("MEETING_SERVER")
            .prefix_separator("__")
            .separator("__")
            .list_separator(",");
        let settings = Config::builder()
            .add_source(File::from_str(DEFAULTS, FileFormat::Toml))
            .add_source(file)
            .add_source(environment)
            .build()?
            .try_deserialize::<Self>()?;
        settings.validate()?;
        Ok(settings)
    }

    /// The built-in defaults.
    pub fn defaults() -> Self {
        Config::builder()
            .add_source(File::from_str(DEFAULTS, FileFormat::Toml))
            .build()
            .and_then(Config::try_deserialize)
            .expect("the defaults are part of the program and tested with it")
    }

    /// How many worker threads there are to be.
    pub fn worker_count(&self) -> usize {
        match self.server.workers {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            count => count,
        }
    }

    fn validate(&self) -> Result<(), SettingsError> {
        let positive = [
            ("server.drain_timeout", self.server.drain_timeout),
            ("session.join_timeout", self.session.join_timeout),
            ("session.ping_interval", self.session.ping_interval),
            ("session.idle_timeout", self.session.idle_timeout),
            ("session.send_timeout", self.session.send_timeout),
        ];
        for (key, value) in positive {
            if value.is_zero() {
                return Err(SettingsError::Invalid {
                    key,
                    value: "0s".into(),
                    remedy: "must be longer than nothing, like \"10s\"",
                });
            }
        }
        let counts = [
            (
                "server.max_pending",
                self.server.max_pending as usize,
                1,
                i32::MAX as usize,
            ),
            ("server.workers", self.server.workers, 0, 512),
            (
                "session.max_message_bytes",
                self.session.max_message_bytes,
                1,
                1 << 30,
            ),
            ("session.send_queue", self.session.send_queue, 1, usize::MAX),
            (
                "session.send_queue_bytes",
                self.session.send_queue_bytes,
                1,
                usize::MAX,
            ),
        ];
        for (key, value, least, most) in counts {
            if !(least..=most).contains(&value) {
                return Err(SettingsError::Invalid {
                    key,
                    value: value.to_string(),
                    remedy: "is out of range",
                });
            }
        }
        Ok(())
    }
}

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<log::LevelFilter, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(|_| de::Error::custom("log.level must be off, error, warn, info, debug or trace"))
}

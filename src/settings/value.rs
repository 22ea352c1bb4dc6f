//! How single values are written: durations, lists, levels, secrets.

use std::fmt;

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Unexpected, Visitor},
};

/// A secret: read like any text, never shown.
#[derive(Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "\"\""
        } else {
            "(hidden)"
        })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "(hidden)" })
    }
}

/// A text, or else `remedy`: what serde says of a wrong type does not help an operator.
fn text<'de, D: Deserializer<'de>>(deserializer: D, remedy: &str) -> Result<String, D::Error> {
    String::deserialize(deserializer).map_err(|_| de::Error::custom(remedy))
}

/// Networks like 10.0.0.0/8.
///
/// # Errors
/// Where one of them is none.
pub fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let networks: Vec<Network> = Vec::deserialize(deserializer)?;
    Ok(networks.into_iter().map(|Network(net)| net).collect())
}

struct Network(IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let remedy = "must be a network like \"10.0.0.0/8\" or \"fd00::/8\"";
        text(deserializer, remedy)?
            .parse()
            .map(Self)
            .map_err(|_| de::Error::custom(remedy))
    }
}

/// Durations are texts like "500ms", "10s", "2m"; 0 needs neither unit nor quotes.
pub mod duration {
    use std::time::Duration;

    use super::*;

    /// The longest. Clocks that count on from now must not overflow.
    const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

    /// Reads one.
    ///
    /// # Errors
    /// Where the text is no duration, or a longer one than a year.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }

    struct DurationVisitor;

    impl Visitor<'_> for DurationVisitor {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration like \"500ms\", \"10s\" or \"2m\"")
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Duration, E> {
            match number {
                0 => Ok(Duration::ZERO),
                _ => Err(E::invalid_type(Unexpected::Unsigned(number), &self)),
            }
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            if text == "0" {
                return Ok(Duration::ZERO);
            }
            match humantime::parse_duration(text) {
                Ok(duration) if duration <= LONGEST => Ok(duration),
                Ok(_) => Err(E::custom("must not be longer than a year")),
                Err(_) => Err(E::invalid_value(Unexpected::Str(text), &self)),
            }
        }
    }

    /// Writes one.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }
}

/// "off" to "trace".
pub mod level {
    use log::LevelFilter;

    use super::*;

    const REMEDY: &str = "must be off, error, warn, info, debug or trace";

    /// Reads one.
    ///
    /// # Errors
    /// Where the text is no level.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<LevelFilter, D::Error> {
        text(deserializer, REMEDY)?
            .parse()
            .map_err(|_| de::Error::custom(REMEDY))
    }

    /// Writes one.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &LevelFilter, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.as_str().to_ascii_lowercase())
    }
}

/// ADDR:PORT.
pub mod addr {
    use std::net::SocketAddr;

    use super::*;

    /// What would be right.
    pub const REMEDY: &str = "must be an address like \"127.0.0.1:8080\" or \"[::]:8080\"";

    /// Reads one.
    ///
    /// # Errors
    /// Where the text is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
        text(deserializer, REMEDY)?
            .parse()
            .map_err(|_| de::Error::custom(REMEDY))
    }

    /// Writes one.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }
}

/// ADDR:PORT, or "" for none.
pub mod optional_addr {
    use std::net::SocketAddr;

    use super::*;

    const REMEDY: &str = "must be an address like \"127.0.0.1:9090\", or \"\" for none";

    /// Reads one.
    ///
    /// # Errors
    /// Where the text is neither.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let text = text(deserializer, REMEDY)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|_| de::Error::custom(REMEDY))
    }

    /// Writes one.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        value: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(addr) => serializer.collect_str(addr),
            None => serializer.serialize_str(""),
        }
    }
}

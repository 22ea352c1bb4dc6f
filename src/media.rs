//! The media servers: whose addresses a client is told.

use std::sync::Arc;

use serde::Serialize;

use crate::settings::MediaServer;

/// The media servers of the settings, in their order.
#[derive(Debug, Default)]
pub struct MediaServers(Vec<Known>);

#[derive(Debug)]
struct Known {
    protocols: Vec<String>,
    /// The addresses as a JSON object, as every answer has them.
    addresses: Arc<str>,
}

#[derive(Serialize)]
struct Addresses<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    wss: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    ws: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    https: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    http: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    rtsp: &'a str,
}

impl MediaServers {
    /// The configured ones.
    pub fn new(settings: &[MediaServer]) -> Self {
        let known = settings.iter().map(|server| {
            let addresses = Addresses {
                wss: &server.wss,
                ws: &server.ws,
                https: &server.https,
                http: &server.http,
                rtsp: &server.rtsp,
            };
            Known {
                protocols: server.protocols.clone(),
                addresses: serde_json::to_string(&addresses)
                    .expect("strings can be written to memory")
                    .into(),
            }
        });
        Self(known.collect())
    }

    /// The addresses of the first one that speaks `protocol`: a JSON object with the keys that
    /// are configured.
    pub fn addresses(&self, protocol: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|server| server.protocols.iter().any(|p| p == protocol))
            .map(|server| &*server.addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, protocols: &[&str]) -> MediaServer {
        MediaServer {
            name: name.into(),
            weight: 1,
            health: String::new(),
            protocols: protocols.iter().map(|p| p.to_string()).collect(),
            wss: String::new(),
            ws: format!("ws://{name}"),
            https: String::new(),
            http: String::new(),
            rtsp: String::new(),
        }
    }

    #[test]
    fn the_first_that_speaks_the_protocol_with_the_keys_that_it_has() {
        let servers =
            MediaServers::new(&[server("a", &["rtsp"]), server("b", &["webrtc", "rtsp"])]);
        assert_eq!(servers.addresses("webrtc"), Some(r#"{"ws":"ws://b"}"#));
        assert_eq!(servers.addresses("rtsp"), Some(r#"{"ws":"ws://a"}"#));
        assert_eq!(servers.addresses("srt"), None);
        assert_eq!(MediaServers::default().addresses("webrtc"), None);
    }
}

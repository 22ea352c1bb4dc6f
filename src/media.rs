//! The media servers: which of them a room is sent to, and whether they are well.
//!
//! * [`rendezvous`]: which one of several, by weight, for a room (pure)
//! * [`health`]: asking them again and again
//! * [`assignment`]: a room's own, which it keeps while that is healthy
//!
//! Threads share one list; what changes in it is only whether a server is healthy.

pub mod assignment;
pub mod health;
pub mod rendezvous;

use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::{ids::RoomName, settings::MediaServer};

/// The protocol that clients ask for where they do not say: what browsers and apps speak.
pub const WEBRTC: &str = "webrtc";

/// A media server: its place in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerId(usize);

/// The media servers of the settings, in their order.
#[derive(Debug, Default)]
pub struct MediaServers(Vec<Known>);

#[derive(Debug)]
struct Known {
    name: String,
    weight: u32,
    protocols: Vec<String>,
    /// The addresses as a JSON object, as every answer has them.
    addresses: String,
    is_healthy: AtomicBool,
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
    /// The configured ones. Each is believed healthy until it is found not to be.
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
                name: server.name.clone(),
                weight: server.weight,
                protocols: server.protocols.clone(),
                addresses: serde_json::to_string(&addresses)
                    .expect("strings can be written to memory"),
                is_healthy: AtomicBool::new(true),
            }
        });
        Self(known.collect())
    }

    /// The healthy server that speaks `protocol` to which this room is sent.
    pub fn choose(&self, room: &RoomName, protocol: &str) -> Option<ServerId> {
        let able = self.ids().filter(|id| {
            let server = &self.0[id.0];
            self.is_healthy(*id) && server.protocols.iter().any(|p| p == protocol)
        });
        let candidates = able.map(|id| {
            let server = &self.0[id.0];
            (id, server.name.as_str(), server.weight)
        });
        rendezvous::choose(candidates, room)
    }

    /// All of them.
    pub fn ids(&self) -> impl Iterator<Item = ServerId> {
        (0..self.0.len()).map(ServerId)
    }

    /// What the settings call it.
    pub fn name(&self, id: ServerId) -> &str {
        &self.0[id.0].name
    }

    /// Its addresses: a JSON object with the keys that are configured.
    pub fn addresses(&self, id: ServerId) -> &str {
        &self.0[id.0].addresses
    }

    /// Whether it speaks `protocol`.
    pub fn speaks(&self, id: ServerId, protocol: &str) -> bool {
        self.0[id.0].protocols.iter().any(|p| p == protocol)
    }

    /// Whether it was well when it was last asked.
    pub fn is_healthy(&self, id: ServerId) -> bool {
        self.0[id.0].is_healthy.load(Ordering::Relaxed)
    }

    /// It is well, or is not.
    pub fn set_healthy(&self, id: ServerId, is_healthy: bool) {
        self.0[id.0].is_healthy.store(is_healthy, Ordering::Relaxed);
    }
}

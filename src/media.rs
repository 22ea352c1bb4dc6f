//! The media servers: which of them a room is sent to, and whether they are well.
//!
//! * [`rendezvous`]: which one of several, by weight, for a room (pure)
//! * [`health`]: asking them again and again
//! * [`assignment`]: a room's own, which it keeps while that is healthy
//!
//! Threads share one list. A reload replaces it; otherwise only the health of its servers changes.

pub mod assignment;
pub mod health;
pub mod rendezvous;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;
use serde::Serialize;

use crate::{ids::RoomName, settings::MediaServer};

/// The protocol that clients ask for where they do not say: what browsers and apps speak.
pub const WEBRTC: &str = "webrtc";

/// One media server for as long as the settings list it without a change that its rooms would
/// notice. All lists that contain it share this.
#[derive(Debug)]
pub struct Server {
    name: String,
    /// It changes under the lock of `findings` alone.
    is_healthy: AtomicBool,
    findings: Mutex<Findings>,
}

/// What the checks of a server have found.
#[derive(Debug, Default)]
struct Findings {
    /// The watch whose checks count. An earlier one may still be waiting for an answer.
    watch: u64,
    /// Failed checks in a row.
    failures: u32,
}

impl Server {
    /// What the settings call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the last checks found it healthy.
    pub fn is_healthy(&self) -> bool {
        self.is_healthy.load(Ordering::Relaxed)
    }

    fn findings(&self) -> MutexGuard<'_, Findings> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the present watch and numbers the next one.
    fn new_watch(&self) -> u64 {
        let mut findings = self.findings();
        findings.watch += 1;
        findings.watch
    }

    fn set_healthy(&self, is_healthy: bool) {
        let mut findings = self.findings();
        self.is_healthy.store(is_healthy, Ordering::Relaxed);
        if is_healthy {
            findings.failures = 0;
        }
    }
}

/// The media servers of the settings, in their order.
#[derive(Debug, Default)]
pub struct MediaServers(ArcSwap<Vec<Entry>>);

/// A media server as the present settings describe it.
#[derive(Debug)]
struct Entry {
    server: Arc<Server>,
    settings: MediaServer,
    /// The addresses as a JSON object, as every answer has them.
    addresses: Arc<str>,
}

impl Entry {
    fn new(settings: &MediaServer, server: Arc<Server>) -> Self {
        let addresses = Addresses {
            wss: &settings.wss,
            ws: &settings.ws,
            https: &settings.https,
            http: &settings.http,
            rtsp: &settings.rtsp,
        };
        Self {
            server,
            settings: settings.clone(),
            addresses: serde_json::to_string(&addresses)
                .expect("strings can be written to memory")
                .into(),
        }
    }

    fn speaks(&self, protocol: &str) -> bool {
        self.settings.protocols.iter().any(|p| p == protocol)
    }

    /// Whether a room that was sent here can stay if the settings say `other` from now on: the name
    /// is the same, and each protocol and address that it may have been given is still there.
    fn is_kept_by(&self, other: &MediaServer) -> bool {
        let present = &self.settings;
        let addresses = [
            (&present.wss, &other.wss),
            (&present.ws, &other.ws),
            (&present.https, &other.https),
            (&present.http, &other.http),
            (&present.rtsp, &other.rtsp),
        ];
        present.name == other.name
            && present
                .protocols
                .iter()
                .all(|protocol| other.protocols.contains(protocol))
            && addresses
                .iter()
                .all(|(old, new)| old.is_empty() || old == new)
    }
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
    /// The configured ones. Each counts as healthy until it is found not to be.
    pub fn new(settings: &[MediaServer]) -> Self {
        let servers = Self::default();
        servers.replace(settings);
        servers
    }

    /// Replaces the list. A server that is in both lists keeps its health. A room whose server is
    /// not in the new list needs another one: the caller has every room look with
    /// [`Assignment::give_up_unhealthy`](assignment::Assignment::give_up_unhealthy).
    pub fn replace(&self, settings: &[MediaServer]) {
        let present = self.0.load();
        let entries = settings.iter().map(|settings| {
            let kept = present.iter().find(|entry| entry.is_kept_by(settings));
            let server = kept.map_or_else(
                || {
                    Arc::new(Server {
                        name: settings.name.clone(),
                        is_healthy: AtomicBool::new(true),
                        findings: Mutex::default(),
                    })
                },
                |entry| entry.server.clone(),
            );
            Entry::new(settings, server)
        });
        self.0.store(Arc::new(entries.collect()));
    }

    /// The healthy server that speaks `protocol` to which this room is sent.
    pub fn choose(&self, room: &RoomName, protocol: &str) -> Option<Arc<Server>> {
        let entries = self.0.load();
        let candidates = entries
            .iter()
            .filter(|entry| entry.server.is_healthy() && entry.speaks(protocol))
            .map(|entry| (&entry.server, entry.server.name(), entry.settings.weight));
        rendezvous::choose(candidates, room).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Server>> {
        let entries = self.0.load();
        entries.iter().map(|entry| entry.server.clone()).collect()
    }

    /// The addresses of `server`: a JSON object with the keys that are configured. `None` where it
    /// is not listed any more.
    pub fn addresses(&self, server: &Arc<Server>) -> Option<Arc<str>> {
        self.with(server, |entry| entry.addresses.clone())
    }

    /// Whether it is listed and speaks `protocol`.
    pub fn speaks(&self, server: &Arc<Server>, protocol: &str) -> bool {
        self.with(server, |entry| entry.speaks(protocol)) == Some(true)
    }

    /// Whether a room may stay with `server`: it is listed, and healthy.
    pub fn is_usable(&self, server: &Arc<Server>) -> bool {
        server.is_healthy() && self.with(server, |_| ()).is_some()
    }

    fn with<R>(&self, server: &Arc<Server>, f: impl FnOnce(&Entry) -> R) -> Option<R> {
        let entries = self.0.load();
        let mut entries = entries.iter();
        entries
            .find(|entry| Arc::ptr_eq(&entry.server, server))
            .map(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn local() -> MediaServer {
        Settings::defaults().media_servers.remove(0)
    }

    #[test]
    fn a_server_stays_the_same_while_all_that_was_handed_out_holds() {
        type Change = fn(&mut MediaServer);
        let changes: [(Change, bool); 8] = [
            (|_| {}, true),
            (|s| s.weight = 7, true),
            (|s| s.health = "tcp://127.0.0.1:1".into(), true),
            (|s| s.wss = "wss://new.example".into(), true),
            (|s| s.protocols.push("srt".into()), true),
            (|s| s.name = "other".into(), false),
            (|s| s.http = "http://127.0.0.2:8889".into(), false),
            (|s| s.protocols.truncate(1), false),
        ];
        for (n, (change, stays)) in changes.into_iter().enumerate() {
            let servers = MediaServers::new(&[local()]);
            let before = servers.all().remove(0);
            before.set_healthy(false);
            let mut changed = local();
            change(&mut changed);
            servers.replace(&[changed.clone()]);
            let after = servers.all().remove(0);
            assert_eq!(Arc::ptr_eq(&before, &after), stays, "change {n}");
            assert_eq!(after.is_healthy(), !stays, "change {n}");
            assert_eq!(servers.addresses(&before).is_some(), stays, "change {n}");
            let addresses = servers.addresses(&after).unwrap();
            let addresses: serde_json::Value = serde_json::from_str(&addresses).unwrap();
            assert_eq!(addresses["http"], changed.http, "change {n}");
        }
    }
}

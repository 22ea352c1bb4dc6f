//! The media servers that one room has been sent to.

use std::sync::Arc;

use super::{MediaServers, Server, WEBRTC};
use crate::ids::RoomName;

/// See the module's text. A server once given is kept while it is healthy, whatever heals or is
/// added meanwhile: a room's members must meet on one.
#[derive(Debug)]
pub struct Assignment {
    servers: Arc<MediaServers>,
    /// By protocol. All are answered from webrtc's where that speaks them, and have no entry then.
    given: Vec<(Box<str>, Arc<Server>)>,
}

impl Assignment {
    /// Of a room that has not asked yet.
    pub fn new(servers: Arc<MediaServers>) -> Self {
        Self {
            servers,
            given: Vec::new(),
        }
    }

    /// The addresses of the room's server for `protocol`, a JSON object; `None`: no healthy server
    /// speaks it.
    pub fn addresses(&mut self, room: &RoomName, protocol: &str) -> Option<Arc<str>> {
        let home = self.server(room, WEBRTC);
        let server = match home {
            Some(home) if self.servers.speaks(&home, protocol) => home,
            _ => self.server(room, protocol)?,
        };
        self.servers.addresses(&server)
    }

    fn server(&mut self, room: &RoomName, protocol: &str) -> Option<Arc<Server>> {
        let given = self.given.iter().find(|(known, _)| **known == *protocol);
        if let Some((_, server)) = given {
            return Some(server.clone());
        }
        let server = self.servers.choose(room, protocol)?;
        self.given.push((protocol.into(), server.clone()));
        Some(server)
    }

    /// Gives up the servers that are not healthy or not listed any more. Whether there was one.
    pub fn give_up_unhealthy(&mut self) -> bool {
        let before = self.given.len();
        self.given
            .retain(|(_, server)| self.servers.is_usable(server));
        self.given.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{App, Channel},
        settings::MediaServer,
    };

    fn server(name: &str, protocols: &[&str]) -> MediaServer {
        MediaServer {
            name: name.into(),
            weight: 1,
            health: String::new(),
            protocols: protocols.iter().map(|p| p.to_string()).collect(),
            wss: String::new(),
            ws: name.into(),
            https: String::new(),
            http: String::new(),
            rtsp: String::new(),
        }
    }

    struct World {
        servers: Arc<MediaServers>,
        room: RoomName,
        assignment: Assignment,
    }

    impl World {
        fn of(servers: &[MediaServer]) -> Self {
            let servers = Arc::new(MediaServers::new(servers));
            Self {
                assignment: Assignment::new(servers.clone()),
                servers,
                room: RoomName {
                    app: App::new("demo").unwrap(),
                    channel: Channel::new("c").unwrap(),
                },
            }
        }

        /// The name of the server that the room is sent to.
        fn ask(&mut self, protocol: &str) -> Option<String> {
            let addresses = self.assignment.addresses(&self.room, protocol)?;
            let addresses: serde_json::Value = serde_json::from_str(&addresses).unwrap();
            Some(addresses["ws"].as_str().unwrap().to_owned())
        }

        fn set(&self, name: &str, is_healthy: bool) {
            let all = self.servers.all();
            let server = all.iter().find(|server| server.name() == name);
            server.unwrap().set_healthy(is_healthy);
        }
    }

    #[test]
    fn all_protocols_are_answered_from_one_server_where_it_speaks_them() {
        let mut servers: Vec<_> = (0..5)
            .map(|n| server(&n.to_string(), &["webrtc", "rtsp"]))
            .collect();
        servers.push(server("srt", &["srt", "rtsp"]));
        let mut world = World::of(&servers);
        // Whatever is asked first.
        let rtsp = world.ask("rtsp");
        assert_eq!(world.ask("webrtc"), rtsp);
        assert_eq!(world.ask("srt").as_deref(), Some("srt"));
        assert_eq!(world.ask("smoke"), None);
    }

    #[test]
    fn a_room_stays_while_its_server_is_healthy_and_moves_when_it_is_not() {
        let servers: Vec<_> = (0..5)
            .map(|n| server(&n.to_string(), &["webrtc"]))
            .collect();
        let mut world = World::of(&servers);
        let first = world.ask("webrtc").unwrap();
        assert!(!world.assignment.give_up_unhealthy());
        world.set(&first, false);
        assert!(world.assignment.give_up_unhealthy());
        assert!(!world.assignment.give_up_unhealthy(), "once");
        let second = world.ask("webrtc").unwrap();
        assert_ne!(first, second);
        // It heals, and would win again; but the room's members are elsewhere by now.
        world.set(&first, true);
        assert!(!world.assignment.give_up_unhealthy());
        assert_eq!(world.ask("webrtc").unwrap(), second);
    }

    #[test]
    fn a_server_that_is_not_listed_any_more_is_given_up() {
        let [a, b, c] = ["a", "b", "c"].map(|name| server(name, &["webrtc"]));
        let mut world = World::of(&[a.clone(), b.clone()]);
        let first = world.ask("webrtc").unwrap();
        let (left, gone) = if first == "a" { (b, a) } else { (a, b) };
        world.servers.replace(&[gone.clone(), c.clone()]);
        assert!(!world.assignment.give_up_unhealthy(), "it is still listed");
        assert_eq!(world.ask("webrtc"), Some(first));
        world.servers.replace(std::slice::from_ref(&left));
        assert!(world.assignment.give_up_unhealthy());
        assert!(!world.assignment.give_up_unhealthy(), "once");
        assert_eq!(world.ask("webrtc"), Some(left.name.clone()));
        // Listed again, it is another server to the rooms that were sent to it before.
        world.servers.replace(&[gone, left.clone()]);
        assert!(!world.assignment.give_up_unhealthy());
        assert_eq!(world.ask("webrtc"), Some(left.name));
    }

    #[test]
    fn with_no_healthy_server_there_is_none_until_one_heals() {
        let mut world = World::of(&[server("a", &["webrtc"]), server("b", &["rtsp"])]);
        world.set("a", false);
        assert_eq!(world.ask("webrtc"), None);
        // Each other protocol is hashed among those that speak it.
        assert_eq!(world.ask("rtsp").as_deref(), Some("b"));
        world.set("a", true);
        assert_eq!(world.ask("webrtc").as_deref(), Some("a"));
        assert_eq!(world.ask("rtsp").as_deref(), Some("b"), "and is kept");
    }

    #[test]
    fn only_the_keys_that_are_configured_are_told() {
        let mut world = World::of(&[server("a", &["webrtc"])]);
        let addresses = world.assignment.addresses(&world.room, "webrtc");
        assert_eq!(addresses.as_deref(), Some(r#"{"ws":"a"}"#));
        assert_eq!(World::of(&[]).ask("webrtc"), None);
    }
}

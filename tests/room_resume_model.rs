//! Members that are lost and come back, without a socket: whatever happens in a room
//! ([`meeting_server::room::state`]), the log of each of them is in the end what a steady observer
//! has seen, word for word.
//!
//! The property prints its failure as the shortest story that still fails; the seed of it, in
//! `tests/room_resume_model.regressions`, runs before all random cases.

mod common;

use std::collections::BTreeMap;

use common::meeting::*;
use meeting_server::{
    clock::Millis,
    ids::{ConnectionId, MemberId, SessionId},
    protocol::request::Role,
    room::{
        command::{Answer, Command},
        rules::Rules,
    },
};
use proptest::{prelude::*, test_runner::FileFailurePersistence};

/// Who may be there.
const ENDPOINTS: [&str; 4] = ["anna", "ben", "carl", "dora"];

/// What happens, before it is known who is there. `usize`s are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Story {
    /// An ordinary join.
    Join {
        endpoint: usize,
        numbered: bool,
    },
    /// A client takes so many of the events that wait for it.
    Take {
        client: usize,
        events: usize,
    },
    /// A connection is lost.
    Lose {
        client: usize,
    },
    /// A client leaves.
    Leave {
        client: usize,
    },
    /// One comes back with the session that it had last, dead or alive, knowing what it has read.
    Return {
        endpoint: usize,
        numbered: bool,
    },
    /// The same, but that it claims to know of an event this much later.
    Forge {
        endpoint: usize,
        ahead: u64,
    },
    Publish {
        client: usize,
        stream: usize,
    },
    Unpublish {
        client: usize,
    },
    Broadcast {
        client: usize,
        bytes: usize,
    },
    Elapse {
        millis: Millis,
    },
}

fn story() -> impl Strategy<Value = Story> {
    let some = 0..8_usize;
    let endpoint = 0..ENDPOINTS.len();
    prop_oneof![
        2 => (endpoint.clone(), any::<bool>())
            .prop_map(|(endpoint, numbered)| Story::Join { endpoint, numbered }),
        4 => (some.clone(), 0..6_usize).prop_map(|(client, events)| Story::Take { client, events }),
        4 => some.clone().prop_map(|client| Story::Lose { client }),
        1 => some.clone().prop_map(|client| Story::Leave { client }),
        5 => (endpoint.clone(), any::<bool>())
            .prop_map(|(endpoint, numbered)| Story::Return { endpoint, numbered }),
        1 => (endpoint, 1..4_u64).prop_map(|(endpoint, ahead)| Story::Forge { endpoint, ahead }),
        2 => (some.clone(), 0..3_usize)
            .prop_map(|(client, stream)| Story::Publish { client, stream }),
        1 => some.clone().prop_map(|client| Story::Unpublish { client }),
        5 => (some, 0..300_usize).prop_map(|(client, bytes)| Story::Broadcast { client, bytes }),
        2 => prop_oneof![1..WINDOW, WINDOW..AGE + 2].prop_map(|millis| Story::Elapse { millis }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// Whatever is lost, taken, said and given up in between, each member's log is the room's list
    /// of events but for those from before its join and its own.
    #[test]
    fn every_log_is_what_a_steady_observer_has_seen(
        stories in prop::collection::vec(story(), 1..120),
        events in prop_oneof![Just(1_000_usize), 2..12_usize],
        bytes in prop_oneof![Just(1_000_000_usize), 500..4_000_usize],
    ) {
        let mut world = World::new(rules(events, bytes));
        for story in stories {
            world.step(story);
        }
        world.end();
    }
}

// ----- the world: people who come, go, and come back -----

/// One person with a session, over all its connections.
struct Person {
    session: SessionId,
    member: MemberId,
    joined: u64,
    connection: Option<ConnectionId>,
    lost_at: Millis,
    role: Role,
    device: &'static str,
    /// The numbers of the events that it has read on earlier connections.
    log: Vec<u64>,
}

struct World {
    room: Meeting,
    people: BTreeMap<&'static str, Person>,
}

impl World {
    fn new(rules: Rules) -> Self {
        Self {
            room: Meeting::new(rules),
            people: BTreeMap::new(),
        }
    }

    /// Somebody who is connected.
    fn somebody(&self, n: usize) -> Option<(&'static str, ConnectionId)> {
        let connected = self.people.iter();
        let connected: Vec<_> = connected
            .filter_map(|(name, person)| Some((*name, person.connection?)))
            .collect();
        (!connected.is_empty()).then(|| connected[n % connected.len()])
    }

    fn step(&mut self, story: Story) {
        match story {
            Story::Join { endpoint, numbered } => {
                let name = ENDPOINTS[endpoint];
                let last_event = numbered.then_some(0);
                self.join(
                    name,
                    endpoint,
                    Asks {
                        last_event,
                        ..Asks::to_join(name)
                    },
                );
            }
            Story::Return { endpoint, numbered } => self.come_back(endpoint, numbered, 0),
            Story::Forge { endpoint, ahead } => self.come_back(endpoint, true, ahead),
            Story::Elapse { millis } => {
                self.room.elapse(millis);
            }
            Story::Take { client, events } => {
                if let Some((_, connection)) = self.somebody(client) {
                    let client = self.room.clients.get_mut(&connection).unwrap();
                    client.taken = client.pushed.len().min(client.taken + events);
                }
            }
            Story::Lose { client } => {
                if let Some((name, connection)) = self.somebody(client) {
                    self.remember(name);
                    self.room.lose(connection);
                    let person = self.people.get_mut(name).unwrap();
                    person.connection = None;
                    person.lost_at = self.room.now;
                }
            }
            Story::Leave { client } => {
                if let Some((name, connection)) = self.somebody(client) {
                    self.has_read_all(name);
                    let person = self.people.remove(name).unwrap();
                    let leave = Command::Leave(person.member, connection);
                    let answer = self.room.apply(leave, Some(connection));
                    assert!(matches!(answer, Some(Ok(Answer::Left))));
                    self.room.clients.remove(&connection);
                }
            }
            Story::Publish { client, stream } => {
                if let Some((_, connection)) = self.somebody(client) {
                    let answer = self.room.publish(connection, ["s1", "s2", "s3"][stream]);
                    assert!(matches!(answer, Ok(()) | Err(409)));
                }
            }
            Story::Unpublish { client } => {
                if let Some((name, connection)) = self.somebody(client) {
                    let member = self.people[name].member;
                    let stream = self
                        .room
                        .state
                        .member(member)
                        .and_then(|m| m.stream.clone());
                    if let Some(stream) = stream {
                        let command = Command::Unpublish(member, stream.stream_id);
                        self.room.apply(command, Some(connection));
                    }
                }
            }
            Story::Broadcast { client, bytes } => {
                if let Some((_, connection)) = self.somebody(client) {
                    self.room.broadcast(connection, &"x".repeat(bytes));
                }
            }
        }
        self.forget_the_given_up();
        self.is_as_it_should_be();
    }

    /// What a person's present connection has taken goes to its log.
    fn remember(&mut self, name: &str) {
        let person = self.people.get_mut(name).unwrap();
        let client = &self.room.clients[&person.connection.unwrap()];
        let taken = client.pushed[..client.taken].iter();
        person.log.extend(taken.map(|frame| frame.number()));
    }

    fn join(&mut self, name: &'static str, endpoint: usize, ask: Asks<'_>) {
        let role = [Role::Normal, Role::Recorder, Role::Relayer][endpoint % 3];
        let device = ["", "phone"][endpoint % 2];
        let answered = self.room.ask(Asks {
            role,
            device,
            ..ask
        });
        assert_eq!(answered.code, 0);
        assert!(!answered.resumed());
        let person = Person {
            session: self.room.session(answered.connection),
            member: answered.member,
            joined: answered.last_event,
            connection: Some(answered.connection),
            lost_at: 0,
            role,
            device,
            log: Vec::new(),
        };
        self.people.insert(name, person);
    }

    /// Comes back with the last session that it had here, over a new connection.
    fn come_back(&mut self, endpoint: usize, numbered: bool, ahead: u64) {
        let name = ENDPOINTS[endpoint];
        let Some(person) = self.people.get(name) else {
            return;
        };
        if person.connection.is_some() {
            // It gives up a connection that looked alive, and has read what that has taken.
            self.remember(name);
        }
        let person = &self.people[name];
        let member = self.room.state.member(person.member);
        let knows_numbers = numbered || member.is_some_and(|member| member.numbered);
        let last = person.log.last().copied().unwrap_or(0);
        let last_event = knows_numbers.then_some(if ahead > 0 {
            self.room.state.last_event() + ahead
        } else {
            last
        });
        let in_time = match person.connection {
            Some(_) => true,
            None => self.room.now < person.lost_at + WINDOW,
        };
        let has_all =
            !self
                .room
                .observer
                .lacks(person.member, person.joined, last.max(person.joined));
        let expected = in_time && has_all && ahead == 0;
        let (session, member) = (person.session, person.member);
        let ask = Asks {
            last_event,
            device: "another",
            role: Role::Normal,
            ..Asks::to_join(name).with(&session)
        };
        if !expected {
            return self.join(name, endpoint, ask);
        }
        let answered = self.room.ask(ask);
        assert!(answered.resumed(), "nothing that it needs is gone");
        assert_eq!(answered.member, member);
        assert_eq!(answered.last_event, self.room.state.last_event());
        let person = self.people.get_mut(name).unwrap();
        person.connection = Some(answered.connection);
        assert_eq!(self.room.session(answered.connection), session);
    }

    fn forget_the_given_up(&mut self) {
        let state = &self.room.state;
        self.people.retain(|_, person| {
            let there = state.member(person.member).is_some();
            assert!(
                there || person.connection.is_none(),
                "only who is away is given up"
            );
            there
        });
    }

    /// The members are the people, each on its connection or waited for.
    fn is_as_it_should_be(&self) {
        let state = &self.room.state;
        assert_eq!(state.members().len(), self.people.len());
        let away = self.people.values().filter(|p| p.connection.is_none());
        assert_eq!(state.detached(), away.count());
        for (name, person) in &self.people {
            let member = state.member(person.member).expect("it is waited for");
            assert_eq!(member.who.endpoint().as_str(), *name);
            assert_eq!(member.session, person.session);
            assert_eq!(member.role, person.role);
            assert_eq!(member.who.device().as_str(), person.device);
            assert_eq!(member.connection(), person.connection);
        }
    }

    /// One who is connected takes what waits for it, and has then read everything.
    fn has_read_all(&mut self, name: &'static str) {
        self.room.take(self.people[name].connection.unwrap());
        self.remember(name);
        let person = &self.people[name];
        let due = self.room.observer.log(person.member, person.joined);
        assert_eq!(person.log, due, "what {name} has read");
    }

    /// Whoever is away comes back; then all have read everything, in order, once.
    fn end(&mut self) {
        for (endpoint, name) in ENDPOINTS.iter().enumerate() {
            let away = self.people.get(name);
            if away.is_some_and(|person| person.connection.is_none()) {
                self.come_back(endpoint, true, 0);
            }
        }
        let names: Vec<_> = self.people.keys().copied().collect();
        for name in names {
            self.has_read_all(name);
        }
    }
}

//! A session is a secret between the server and its owner: no frame that anybody else is sent holds
//! it. Shown for everything that a room says, without a socket, and for everything that the members
//! of random meetings receive.

mod common;

use std::{collections::BTreeSet, io::Write, net::SocketAddr, thread, time::Instant};

use common::{Received, Server, frame, random::Random, stream};
use meeting_server::{
    clock::Millis,
    ending::Ending,
    grants::Grants,
    ids::{ClaimedSession, ConnectionId, Device, Endpoint, MemberId, SessionId, StreamId},
    protocol::{
        cseq::Cseq,
        event::Payload,
        reply::{self, ReplyTo},
        request::Role,
    },
    room::{
        command::{Answer, Command, Joining, Moment, Output, Resume, Resumption},
        member::Member,
        state::RoomState,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};
use slotmap::SlotMap;

// ------------------------------------------------------------------------- without a socket

/// What happens, before it is known who is there. `usize`s are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Story {
    /// A join; with a session or without one: its own last, or any that there has been.
    Join {
        endpoint: usize,
        session: Option<usize>,
        numbered: bool,
        named: bool,
        has_expired: bool,
    },
    Leave(usize),
    Lose(usize),
    Publish(usize, usize),
    Unpublish(usize, usize),
    Dump(usize),
    Broadcast(usize),
    Elapse(Millis),
}

fn story() -> impl Strategy<Value = Story> {
    let some = || 0..8_usize;
    let session = prop::option::of(0..64_usize);
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.1));
    prop_oneof![
        6 => (some(), session, flags).prop_map(|(endpoint, session, flags)| Story::Join {
            endpoint,
            session,
            numbered: flags.0,
            named: flags.1,
            has_expired: flags.2,
        }),
        1 => some().prop_map(Story::Leave),
        4 => some().prop_map(Story::Lose),
        2 => (some(), some()).prop_map(|(member, stream)| Story::Publish(member, stream)),
        1 => (some(), some()).prop_map(|(member, stream)| Story::Unpublish(member, stream)),
        2 => some().prop_map(Story::Dump),
        4 => some().prop_map(Story::Broadcast),
        1 => (0..2_000_u64).prop_map(Story::Elapse),
    ]
}

/// A room, and every session that there has ever been in it.
struct World {
    state: RoomState,
    now: Millis,
    connections: SlotMap<ConnectionId, ()>,
    sessions: Vec<SessionId>,
}

impl World {
    fn step(&mut self, story: Story) {
        let command = match story {
            Story::Join {
                endpoint,
                session,
                numbered,
                named,
                has_expired,
            } => {
                let fresh = SessionId::generate();
                self.sessions.push(fresh);
                let known = session.map(|n| self.sessions[n % self.sessions.len()]);
                let resume = known.map(|known| Resume {
                    session: ClaimedSession::new(known.as_str()).unwrap(),
                    endpoint_named: named,
                });
                let connection = self.connections.insert(());
                let joining = Joining {
                    connection,
                    session: fresh,
                    endpoint: Endpoint::new(["anna", "ben", "carl"][endpoint % 3]).unwrap(),
                    device: Device::default(),
                    role: Role::Normal,
                    last_event: numbered.then_some(0),
                    cseq: Cseq::default(),
                    grants: Grants::ALL,
                    issued_at: None,
                    has_expired,
                    resume,
                    limit: None,
                    allowance: None,
                };
                // It has shown that it knows the one, and is given the other.
                return self.apply(Command::Join(joining), &[Some(fresh), known]);
            }
            Story::Leave(n) => self.with_member(n, |member| {
                Command::Leave(member.id, member.connection().unwrap_or_default())
            }),
            Story::Lose(n) => self.with_member(n, |member| {
                let connection = member.connection().unwrap_or_default();
                Command::End(member.id, connection, Ending::Lost)
            }),
            Story::Publish(n, id) => self.with_member(n, |member| {
                Command::Publish(member.id, common::meeting::camera(stream_id(id)))
            }),
            Story::Unpublish(n, id) => self.with_member(n, |member| {
                Command::Unpublish(member.id, StreamId::new(stream_id(id)).unwrap())
            }),
            Story::Dump(n) => self.with_member(n, |member| Command::Dump(member.id)),
            Story::Broadcast(n) => self.with_member(n, |member| {
                Command::Broadcast(member.id, Payload(r#"{"text":"hello"}"#.into()))
            }),
            Story::Elapse(millis) => {
                self.now += millis;
                Some((MemberId(0), Command::Elapse))
            }
        };
        let Some((asker, command)) = command else {
            return;
        };
        let asker = self.state.member(asker).map(|member| member.session);
        self.apply(command, &[asker, None]);
    }

    fn with_member(
        &self,
        n: usize,
        command: impl FnOnce(&Member) -> Command,
    ) -> Option<(MemberId, Command)> {
        let members = self.state.members();
        let member = members.iter().nth(n % members.len().max(1))?;
        Some((member.id, command(member)))
    }

    /// Carries it out. Whoever asked may be told of the sessions in `asker`.
    fn apply(&mut self, command: Command, asker: &[Option<SessionId>; 2]) {
        let moment = Moment {
            now: self.now,
            at: Instant::now(),
        };
        let mut outputs = Vec::new();
        if self.state.is_overdue(self.now) {
            self.state.apply(Command::Elapse, moment, &mut outputs);
        }
        self.state.apply(command, moment, &mut outputs);
        for output in &outputs {
            match output {
                Output::Answer(Ok(answer)) => self.holds_only(&text_of(answer), asker),
                Output::Answer(Err(refusal)) => {
                    self.holds_only(&ReplyTo::default().refused(refusal), &[None, None]);
                }
                Output::Event { frame, .. } => self.event_holds_nobodys(frame),
                Output::Replay { events, .. } => {
                    events
                        .iter()
                        .for_each(|frame| self.event_holds_nobodys(frame));
                }
                Output::Unseated { .. } | Output::Departed { .. } => {}
            }
        }
    }

    /// All of an event but the place where each receiver's own session goes.
    fn event_holds_nobodys(&self, event: &meeting_server::protocol::event::EventFrame) {
        let receiver = SessionId::generate();
        for numbered in [false, true] {
            let mut bytes = Vec::new();
            event.pieces(numbered, &receiver, |piece| bytes.extend_from_slice(piece));
            assert!(holds(&bytes, receiver.as_str()));
            self.holds_only(&bytes, &[Some(receiver), None]);
        }
    }

    fn holds_only(&self, bytes: &[u8], allowed: &[Option<SessionId>; 2]) {
        for session in &self.sessions {
            assert!(
                allowed.contains(&Some(*session)) || !holds(bytes, session.as_str()),
                "{session:?} in {}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
}

fn stream_id(n: usize) -> &'static str {
    ["s1", "s2", "s3"][n % 3]
}

/// An answer as it is sent.
fn text_of(answer: &Answer) -> Vec<u8> {
    let reply_to = ReplyTo::default();
    match answer {
        Answer::Joined(joined) => reply_to.joined(&reply::Joined {
            session: joined.session,
            media_server: "{}",
            endpoint: joined.who.endpoint(),
            last_event: joined.last_event,
            resumed: match joined.resumption {
                Resumption::Resumed { last_cseq, .. } => Some(last_cseq),
                Resumption::Unasked | Resumption::Failed => None,
            },
        }),
        Answer::Dump(list) => [&reply_to.dump_head(list.len())[..], list, reply::DUMP_END].concat(),
        Answer::Left | Answer::Done => reply_to.ok(),
    }
}

fn holds(bytes: &[u8], session: &str) -> bool {
    bytes
        .windows(session.len())
        .any(|text| text == session.as_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_room_tells_nobody_of_anothers_session(
        stories in prop::collection::vec(story(), 1..80),
        few_events in any::<bool>(),
    ) {
        let rules = common::meeting::rules(if few_events { 3 } else { 100 }, 1_000_000);
        let mut world = World {
            state: RoomState::new(rules),
            now: 0,
            connections: SlotMap::with_key(),
            sessions: Vec::new(),
        };
        for story in stories {
            world.step(story);
        }
    }
}

// ------------------------------------------------------------------------- over real sockets

const CHANNELS: [&str; 3] = ["one", "two", "three"];
const ENDPOINTS: [&str; 5] = ["anna", "ben", "carl", "dora", "emil"];
const PEOPLE: usize = 8;
const STEPS: usize = 150;

/// Somebody at random: the sessions that were ever its own, and all that it was ever sent.
struct Person {
    addr: SocketAddr,
    client: Option<common::Client>,
    session: String,
    room: (&'static str, &'static str),
    sessions: BTreeSet<String>,
    received: Vec<String>,
    cseq: u64,
}

impl Person {
    fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            client: None,
            session: String::new(),
            room: (CHANNELS[0], ENDPOINTS[0]),
            sessions: BTreeSet::new(),
            received: Vec::new(),
            cseq: 0,
        }
    }

    /// Sends a text. The server may have ended the connection before.
    fn say(&mut self, text: &str) {
        let client = self
            .client
            .get_or_insert_with(|| common::Client::connect(self.addr));
        let _ = client.stream.write_all(&frame(true, 1, text.as_bytes()));
    }

    /// Asks, and keeps what comes until the answer; `None`: the connection ended before it.
    fn ask(&mut self, method: &str, data: &Value) -> Option<Value> {
        self.cseq += 1;
        let session = &self.session;
        let request = json!({
            "version": 0, "cseq": self.cseq, "method": method, "session": session, "data": data,
        });
        self.say(&request.to_string());
        self.read_until(|message| message.get("err").is_some())
    }

    /// Keeps what comes until the message that is looked for.
    fn read_until(&mut self, is_it: impl Fn(&Value) -> bool) -> Option<Value> {
        loop {
            match self.client.as_mut()?.receive() {
                Received::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    self.received.push(text);
                    if is_it(&message) {
                        return Some(message);
                    }
                }
                Received::Close(close) => {
                    self.received.extend(close.map(|(_, reason)| reason));
                }
                Received::Ping(payload) | Received::Pong(payload) => {
                    self.received
                        .push(String::from_utf8_lossy(&payload).into_owned());
                }
                Received::End | Received::Reset => {
                    self.client = None;
                    return None;
                }
            }
        }
    }

    /// Joins the room that it was in last, with its session if it has one.
    fn join(&mut self, numbered: bool) {
        let (channel, endpoint) = self.room;
        let mut data = json!({"app": "test", "channel": channel, "endpoint": endpoint});
        if numbered {
            data["last_event"] = json!(0);
        }
        let answer = self.ask("channel.join", &data);
        if let Some(session) = answer.as_ref().and_then(|a| a["data"]["session"].as_str()) {
            self.session = session.to_owned();
            self.sessions.insert(session.to_owned());
        }
    }

    fn step(&mut self, random: &mut Random) {
        let id = format!("s{}", random.below(3));
        match random.below(16) {
            0..=2 => {
                self.ask("broadcast", &json!({"text": "hello"}));
            }
            3 => {
                self.ask("stream.add", &json!({"stream": stream(&id)}));
            }
            4 => {
                self.ask("stream.delete", &json!({"stream_id": id}));
            }
            5 => {
                self.ask("channel.dump", &json!({}));
            }
            6 => {
                self.ask("media_server.dump", &json!({}));
            }
            // Elsewhere, in somebody's place perhaps.
            7 => {
                self.ask("channel.leave", &json!({}));
                self.session.clear();
                self.room = (random.pick(&CHANNELS), random.pick(&ENDPOINTS));
                self.join(random.below(2) == 0);
            }
            // Lost, and back with its session; or replaced meanwhile.
            8..=10 => {
                if let Some(client) = self.client.take() {
                    client.reset();
                }
                self.join(random.below(2) == 0);
            }
            // Over another connection while the old one is there.
            11 => {
                let _old = self.client.take();
                self.join(random.below(2) == 0);
            }
            // A session that is nobody's, a method that is none, and no request at all.
            12 => {
                let own = std::mem::replace(&mut self.session, "nobody's".into());
                self.ask("stream.delete", &json!({"stream_id": id}));
                self.session = own;
            }
            13 => {
                self.ask("nonsense", &json!({}));
            }
            14 => {
                self.say("nonsense");
                self.read_until(|message| message["data"]["type"] == "bad_message");
            }
            _ => self.join(true),
        }
    }
}

#[test]
fn nobody_is_ever_sent_anothers_session() {
    let seed = Random::seed();
    let server = Server::with(|settings| settings.server.workers = 4);
    let addr = server.addr;
    let people: Vec<Person> = thread::scope(|scope| {
        let lives = (0..PEOPLE).map(|n| {
            scope.spawn(move || {
                let mut random = Random::new(seed ^ n as u64);
                let mut person = Person::new(addr);
                for _ in 0..STEPS {
                    person.step(&mut random);
                }
                person
            })
        });
        let lives: Vec<_> = lives.collect();
        lives.into_iter().map(|life| life.join().unwrap()).collect()
    });
    for (n, person) in people.iter().enumerate() {
        assert!(person.sessions.len() > 5, "{n} has had a few (seed {seed})");
        for (other, owner) in people.iter().enumerate().filter(|(other, _)| *other != n) {
            for session in &owner.sessions {
                let found = person.received.iter().find(|text| text.contains(session));
                assert_eq!(
                    found, None,
                    "{n} was sent the session of {other} (seed {seed})"
                );
            }
        }
    }
    // They did meet: otherwise this shows nothing.
    let met = people.iter().flat_map(|person| &person.received);
    let events = met
        .filter(|text| text.contains("\"event\":\"broadcast\""))
        .count();
    assert!(events > 100, "{events}");
}

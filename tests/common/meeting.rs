//! A room without a socket ([`meeting_server::room::state`]), with a client for each of its
//! connections.
//!
//! A client stands for the connection and what is behind it: it takes what it is sent when the
//! test says so, and what it has taken is its log. Beside the room stands an observer who has seen
//! every event.

use std::{collections::BTreeMap, rc::Rc, time::Instant};

use bytes::Bytes;
use meeting_server::{
    clock::Millis,
    ending::Ending,
    grants::{Grants, IssuedAt},
    ids::{ClaimedSession, Codec, ConnectionId, Device, Endpoint, MemberId, SessionId, StreamId},
    progress::Progress,
    protocol::{
        cseq::Cseq,
        event::{EventFrame, Payload},
        request::{Role, Stream, StreamType},
    },
    room::{
        command::{Answer, Command, Joined, Joining, Moment, Output, Resume, Resumption},
        history::{Bounds, History},
        member::Presence,
        rules::Rules,
        state::RoomState,
    },
};
use serde_json::Value;
use slotmap::SlotMap;

/// How long a lost member is waited for.
pub const WINDOW: Millis = 1_000;

/// How long an event is kept.
pub const AGE: Millis = 3_000;

pub fn rules(events: usize, bytes: usize) -> Rules {
    Rules {
        max_members: 0,
        resume_window: WINDOW,
        history: Bounds {
            events,
            bytes,
            age: AGE,
        },
    }
}

/// More than any example fills.
pub fn roomy() -> Rules {
    rules(100, 1_000_000)
}

pub fn camera(id: &str) -> Stream {
    Stream {
        stream_id: StreamId::new(id).unwrap(),
        kind: StreamType::Camera,
        has_video: true,
        has_audio: true,
        audio_codec: Codec::default(),
        video_codec: Codec::default(),
    }
}

pub fn cseq(number: u64) -> Cseq {
    Cseq::from_json(&number.to_string()).unwrap()
}

/// An event as the log of a client shows it: number and what happened.
pub fn read(frame: &EventFrame, numbered: bool, session: &SessionId) -> Value {
    let mut bytes = Vec::new();
    frame.pieces(numbered, session, |piece| bytes.extend_from_slice(piece));
    let start = bytes.iter().position(|byte| *byte == b'{').unwrap();
    serde_json::from_slice(&bytes[start..]).unwrap()
}

/// In short: "join anna", "publish anna s1", "broadcast anna {…}".
pub fn say(event: &Value) -> String {
    let data = &event["data"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match event["event"].as_str().unwrap() {
        "endpoint" => format!("{} {}", text(&data["stat"]), text(&data["endpoint"])),
        "stream" => format!(
            "{} {} {}",
            text(&data["stat"]),
            text(&data["endpoint"]),
            text(&data["stream"])
        ),
        _ => format!(
            "broadcast {} {}",
            text(&data["source_endpoint"]["endpoint"]),
            data["payload"]
        ),
    }
}

/// One connection, and what stands behind it.
pub struct Client {
    pub member: MemberId,
    pub session: SessionId,
    pub numbered: bool,
    pub progress: Rc<Progress>,
    /// What the connection is to be sent, and how much of that it has been sent.
    pub pushed: Vec<Rc<EventFrame>>,
    pub taken: usize,
    /// The number at its beginning.
    pub begun: u64,
}

impl Client {
    /// The number of the last event that was taken.
    pub fn sent_up_to(&self) -> u64 {
        let last = self.taken.checked_sub(1);
        last.map_or(self.begun, |last| self.pushed[last].number())
    }

    pub fn log(&self) -> Vec<String> {
        let events = self.pushed[..self.taken].iter();
        events
            .map(|frame| say(&read(frame, self.numbered, &self.session)))
            .collect()
    }
}

/// A room with a client for each of its connections.
pub struct Meeting {
    pub state: RoomState,
    pub now: Millis,
    pub connections: SlotMap<ConnectionId, ()>,
    pub clients: BTreeMap<ConnectionId, Client>,
    /// What was said of the member's end, where one was waited for and given up.
    pub departed: Vec<(String, Ending, Millis)>,
    pub unseated: Vec<(ConnectionId, Ending)>,
    pub observer: Observer,
}

/// How somebody joins.
pub struct Asks<'a> {
    pub endpoint: &'a str,
    /// Whether the join names the endpoint.
    pub named: bool,
    pub device: &'a str,
    pub role: Role,
    pub last_event: Option<u64>,
    pub session: Option<ClaimedSession>,
    pub cseq: u64,
    pub grants: Grants,
    /// When its token was issued.
    pub issued_at: Option<IssuedAt>,
    /// Whether its token has expired.
    pub has_expired: bool,
}

impl<'a> Asks<'a> {
    pub fn to_join(endpoint: &'a str) -> Self {
        Self {
            endpoint,
            named: true,
            device: "",
            role: Role::Normal,
            last_event: Some(0),
            session: None,
            cseq: 1,
            grants: Grants::ALL,
            issued_at: None,
            has_expired: false,
        }
    }

    pub fn with(self, session: &SessionId) -> Self {
        Self {
            session: ClaimedSession::new(session.as_str()),
            ..self
        }
    }

    pub fn knowing(self, last_event: u64) -> Self {
        Self {
            last_event: Some(last_event),
            ..self
        }
    }

    pub fn without_numbers(self) -> Self {
        Self {
            last_event: None,
            ..self
        }
    }
}

/// What a join was answered, and over which connection.
pub struct Answered {
    pub connection: ConnectionId,
    pub code: u16,
    pub member: MemberId,
    pub last_event: u64,
    pub resumption: Resumption,
}

impl Answered {
    pub fn resumed(&self) -> bool {
        matches!(self.resumption, Resumption::Resumed { .. })
    }
}

impl Meeting {
    pub fn new(rules: Rules) -> Self {
        Self {
            state: RoomState::new(rules),
            now: 0,
            connections: SlotMap::with_key(),
            clients: BTreeMap::new(),
            departed: Vec::new(),
            unseated: Vec::new(),
            observer: Observer::new(rules),
        }
    }

    /// A room in which these are; their connections.
    pub fn of<const N: usize>(rules: Rules, endpoints: [&str; N]) -> (Self, [ConnectionId; N]) {
        let mut meeting = Self::new(rules);
        let connections = endpoints.map(|endpoint| meeting.join(endpoint).connection);
        (meeting, connections)
    }

    pub fn join(&mut self, endpoint: &str) -> Answered {
        self.ask(Asks::to_join(endpoint))
    }

    pub fn ask(&mut self, asks: Asks<'_>) -> Answered {
        let connection = self.connections.insert(());
        let joining = Joining {
            connection,
            session: SessionId::generate(),
            endpoint: Endpoint::new(asks.endpoint).unwrap(),
            device: Device::new(asks.device).unwrap(),
            role: asks.role,
            last_event: asks.last_event,
            cseq: cseq(asks.cseq),
            grants: asks.grants,
            issued_at: asks.issued_at,
            has_expired: asks.has_expired,
            resume: asks.session.map(|session| Resume {
                session,
                endpoint_named: asks.named,
            }),
            limit: None,
            allowance: None,
        };
        // What the room's actor does before: the old connection says how far it has got.
        let member = asks
            .session
            .and_then(|session| self.state.members().with_session(&session));
        if let Some(old) = member.and_then(|member| self.clients.get(&member.connection()?)) {
            old.progress.set_sent_up_to(old.sent_up_to());
        }
        let mut answered = Answered {
            connection,
            code: 0,
            member: MemberId(0),
            last_event: 0,
            resumption: Resumption::Unasked,
        };
        match self.apply(Command::Join(joining), Some(connection)) {
            Some(Ok(Answer::Joined(joined))) => {
                answered.member = joined.member;
                answered.last_event = joined.last_event;
                answered.resumption = joined.resumption;
            }
            Some(Err(code)) => answered.code = code,
            other => panic!("{other:?} is no answer to a join"),
        }
        answered
    }

    /// Carries out a command as the server does. What is answered, if anything.
    pub fn apply(
        &mut self,
        command: Command,
        asker: Option<ConnectionId>,
    ) -> Option<Result<Answer, u16>> {
        if self.state.is_overdue(self.now) {
            self.carry_out(Command::Elapse, None);
        }
        self.carry_out(command, asker)
    }

    pub fn carry_out(
        &mut self,
        command: Command,
        asker: Option<ConnectionId>,
    ) -> Option<Result<Answer, u16>> {
        let moment = Moment {
            now: self.now,
            at: Instant::now(),
        };
        let mut outputs = Vec::new();
        self.state.apply(command, moment, &mut outputs);
        self.observer.look(&self.state, &outputs, self.now);
        let mut answered = None;
        for output in outputs {
            match output {
                Output::Answer(answer) => {
                    assert!(answered.is_none(), "a request has one answer");
                    if let Ok(Answer::Joined(joined)) = &answer {
                        self.seat(asker.expect("somebody joins"), joined);
                    }
                    answered = Some(answer.map_err(|refusal| refusal.code as u16));
                }
                Output::Event { frame, except, .. } => {
                    for member in self.state.members() {
                        let connection = member.connection().filter(|_| Some(member.id) != except);
                        if let Some(connection) = connection {
                            let client = self.clients.get_mut(&connection);
                            let client = client.expect("no event comes before the answer");
                            client.pushed.push(frame.clone());
                        }
                    }
                }
                Output::Replay { numbered, events } => {
                    let client = self.clients.get_mut(&asker.unwrap()).unwrap();
                    assert_eq!(client.numbered, numbered);
                    client.pushed.extend(events);
                }
                Output::Unseated { connection, why } => {
                    self.clients.remove(&connection);
                    self.unseated.push((connection, why));
                }
                Output::Departed { who, why, away, .. } => {
                    self.departed.push((who.endpoint().to_string(), why, away));
                }
            }
        }
        answered
    }

    pub fn seat(&mut self, connection: ConnectionId, joined: &Joined) {
        let member = self.state.member(joined.member).unwrap();
        assert_eq!(member.presence, Presence::Attached(connection));
        assert_eq!(member.session, joined.session);
        let client = Client {
            member: joined.member,
            session: joined.session,
            numbered: member.numbered,
            progress: joined.progress.clone(),
            pushed: Vec::new(),
            taken: 0,
            begun: joined.progress.sent_up_to(),
        };
        self.clients.insert(connection, client);
    }

    /// The connection takes everything that it is sent.
    pub fn take(&mut self, connection: ConnectionId) {
        let client = self.clients.get_mut(&connection).unwrap();
        client.taken = client.pushed.len();
    }

    /// What it has read so far, all of it taken.
    pub fn log(&mut self, connection: ConnectionId) -> Vec<String> {
        self.take(connection);
        self.clients[&connection].log()
    }

    /// The connection ends.
    pub fn end(&mut self, connection: ConnectionId, why: Ending) {
        let client = self.clients.remove(&connection).unwrap();
        client.progress.set_sent_up_to(client.sent_up_to());
        self.apply(Command::End(client.member, connection, why), None);
    }

    pub fn lose(&mut self, connection: ConnectionId) {
        self.end(connection, Ending::Lost);
    }

    pub fn broadcast(&mut self, connection: ConnectionId, text: &str) {
        let payload = Payload(Bytes::from(format!("\"{text}\"")));
        let member = self.clients[&connection].member;
        self.apply(Command::Broadcast(member, payload), Some(connection));
    }

    pub fn publish(&mut self, connection: ConnectionId, id: &str) -> Result<(), u16> {
        let member = self.clients[&connection].member;
        let answer = self.apply(Command::Publish(member, camera(id)), Some(connection));
        answer.expect("an answer").map(|_| ())
    }

    pub fn session(&self, connection: ConnectionId) -> SessionId {
        self.clients[&connection].session
    }

    /// Time passes, and the room's alarm goes off.
    pub fn elapse(&mut self, millis: Millis) {
        self.now += millis;
        self.apply(Command::Elapse, None);
    }

    /// Who is there, "anna" or, while she is away, "(anna)".
    pub fn names(&self) -> Vec<String> {
        let name = |member: &meeting_server::room::member::Member| match member.presence {
            Presence::Attached(_) => member.who.endpoint().to_string(),
            Presence::Detached { .. } => format!("({})", member.who.endpoint()),
        };
        self.state.members().iter().map(name).collect()
    }
}

// ----- the observer: everything that has happened, as plainly as it can be said -----

/// Every event of the room; whether it is kept, and if not, whether it had to go though somebody
/// needed it.
pub struct Observer {
    pub rules: Rules,
    pub events: Vec<Happened>,
}

pub struct Happened {
    pub frame: Rc<EventFrame>,
    pub cause: Option<MemberId>,
    pub at: Millis,
    pub is_kept: bool,
    pub had_to_go: bool,
}

impl Happened {
    pub fn is_for(&self, member: MemberId, joined: u64) -> bool {
        self.frame.number() > joined && self.cause != Some(member)
    }

    pub fn goes(&mut self) {
        self.is_kept = false;
        self.had_to_go = true;
    }
}

impl Observer {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            events: Vec::new(),
        }
    }

    /// Sees what came of a command, and what the room keeps of it.
    pub fn look(&mut self, state: &RoomState, outputs: &[Output], now: Millis) {
        let bounds = self.rules.history;
        let needed =
            |event: &Happened| state.members().iter().any(|m| event.is_for(m.id, m.joined));
        for event in &mut self.events {
            event.is_kept &= needed(event);
        }
        for output in outputs {
            let Output::Event { frame, except, .. } = output else {
                continue;
            };
            let mut event = Happened {
                frame: frame.clone(),
                cause: *except,
                at: now,
                is_kept: bounds.events > 0,
                had_to_go: false,
            };
            event.is_kept &= needed(&event);
            self.events.push(event);
            assert_eq!(frame.number(), self.events.len() as u64, "1, 2, 3 …");
            while self.kept().count() > bounds.events || self.bytes() > bounds.bytes {
                let first = self.events.iter_mut().find(|event| event.is_kept);
                first.expect("it was over a bound").goes();
            }
        }
        // Too old is too old, whenever it is found out.
        let found_out = |event: &&mut Happened| event.is_kept && now - event.at > bounds.age;
        if self.kept().count() > state.history().len() {
            self.events
                .iter_mut()
                .filter(found_out)
                .for_each(Happened::goes);
        }
        assert_eq!(self.kept().count(), state.history().len());
        assert_eq!(self.bytes(), state.history().bytes());
    }

    pub fn kept(&self) -> impl Iterator<Item = &Happened> {
        self.events.iter().filter(|event| event.is_kept)
    }

    pub fn bytes(&self) -> usize {
        self.kept()
            .map(|event| History::footprint(&event.frame))
            .sum()
    }

    /// Whether something above `after` that this member needs had to go.
    pub fn lacks(&self, member: MemberId, joined: u64, after: u64) -> bool {
        let lost = |e: &&Happened| e.had_to_go && e.frame.number() > after;
        self.events
            .iter()
            .filter(lost)
            .any(|e| e.is_for(member, joined))
    }

    /// What one who came with the event `joined` and is there until now should have read.
    pub fn log(&self, member: MemberId, joined: u64) -> Vec<u64> {
        let events = self.events.iter().filter(|e| e.is_for(member, joined));
        events.map(|e| e.frame.number()).collect()
    }
}

//! Members that are lost and come back, without a socket: the rules of a room
//! ([`meeting_server::room::state`]) first by example, then all at once by property.
//!
//! Here each member has a client of its own, which stands for the connection and what is behind
//! it: it takes what it is sent when the test says so, and writes down every event in a log. In
//! the end all logs must be what the room's own list of events says, word for word.
//!
//! The property prints its failure as the shortest story that still fails; the seed of it, in
//! `tests/room_resume.regressions`, runs before all random cases.

use std::{collections::BTreeMap, rc::Rc, time::Instant};

use bytes::Bytes;
use meeting_server::{
    clock::Millis,
    ending::Ending,
    ids::{ClaimedSession, Codec, ConnectionId, Device, Endpoint, MemberId, SessionId, StreamId},
    progress::Progress,
    protocol::{
        cseq::Cseq,
        event::{EventFrame, Payload},
        request::{Role, Stream, StreamType},
    },
    room::{
        history::Bounds,
        member::Presence,
        state::{
            Answer, Command, Joined, Joining, Moment, Output, Resume, Resumption, RoomState, Rules,
        },
    },
};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use serde_json::Value;
use slotmap::SlotMap;

/// How long a lost member is waited for.
const WINDOW: Millis = 1_000;

/// How long an event is kept.
const AGE: Millis = 3_000;

fn rules(events: usize, bytes: usize) -> Rules {
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
fn roomy() -> Rules {
    rules(100, 1_000_000)
}

fn camera(id: &str) -> Stream {
    Stream {
        stream_id: StreamId::new(id).unwrap(),
        kind: StreamType::Camera,
        has_video: true,
        has_audio: true,
        audio_codec: Codec::default(),
        video_codec: Codec::default(),
    }
}

fn cseq(number: u64) -> Cseq {
    Cseq::from_json(&number.to_string()).unwrap()
}

/// An event as the log of a client shows it: number and what happened.
fn read(frame: &EventFrame, numbered: bool, session: &SessionId) -> Value {
    let mut bytes = Vec::new();
    frame.pieces(numbered, session, |piece| bytes.extend_from_slice(piece));
    let start = bytes.iter().position(|byte| *byte == b'{').unwrap();
    serde_json::from_slice(&bytes[start..]).unwrap()
}

/// In short: "join anna", "publish anna s1", "broadcast anna {…}".
fn say(event: &Value) -> String {
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
struct Client {
    member: MemberId,
    session: SessionId,
    numbered: bool,
    progress: Rc<Progress>,
    /// What the connection is to be sent, and how much of that it has been sent.
    pushed: Vec<Rc<EventFrame>>,
    taken: usize,
    /// The number at its beginning.
    begun: u64,
}

impl Client {
    /// The number of the last event that was taken.
    fn sent_up_to(&self) -> u64 {
        let last = self.taken.checked_sub(1);
        last.map_or(self.begun, |last| self.pushed[last].number())
    }

    fn log(&self) -> Vec<String> {
        let events = self.pushed[..self.taken].iter();
        events
            .map(|frame| say(&read(frame, self.numbered, &self.session)))
            .collect()
    }
}

/// A room with a client for each of its connections.
struct Meeting {
    state: RoomState,
    now: Millis,
    connections: SlotMap<ConnectionId, ()>,
    clients: BTreeMap<ConnectionId, Client>,
    /// What was said of the member's end, where one was waited for and given up.
    departed: Vec<(String, Ending, Millis)>,
    unseated: Vec<(ConnectionId, Ending)>,
    observer: Observer,
}

/// How somebody joins.
struct Asks<'a> {
    endpoint: &'a str,
    /// Whether the join names the endpoint.
    named: bool,
    device: &'a str,
    role: Role,
    last_event: Option<u64>,
    session: Option<ClaimedSession>,
    cseq: u64,
}

impl<'a> Asks<'a> {
    fn to_join(endpoint: &'a str) -> Self {
        Self {
            endpoint,
            named: true,
            device: "",
            role: Role::Normal,
            last_event: Some(0),
            session: None,
            cseq: 1,
        }
    }

    fn with(self, session: &SessionId) -> Self {
        Self {
            session: ClaimedSession::new(session.as_str()),
            ..self
        }
    }

    fn knowing(self, last_event: u64) -> Self {
        Self {
            last_event: Some(last_event),
            ..self
        }
    }

    fn without_numbers(self) -> Self {
        Self {
            last_event: None,
            ..self
        }
    }
}

/// What a join was answered, and over which connection.
struct Answered {
    connection: ConnectionId,
    code: u16,
    member: MemberId,
    last_event: u64,
    resumption: Resumption,
}

impl Answered {
    fn resumed(&self) -> bool {
        matches!(self.resumption, Resumption::Resumed { .. })
    }
}

impl Meeting {
    fn new(rules: Rules) -> Self {
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
    fn of<const N: usize>(rules: Rules, endpoints: [&str; N]) -> (Self, [ConnectionId; N]) {
        let mut meeting = Self::new(rules);
        let connections = endpoints.map(|endpoint| meeting.join(endpoint).connection);
        (meeting, connections)
    }

    fn join(&mut self, endpoint: &str) -> Answered {
        self.ask(Asks::to_join(endpoint))
    }

    fn ask(&mut self, asks: Asks<'_>) -> Answered {
        let connection = self.connections.insert(());
        let joining = Joining {
            connection,
            session: SessionId::generate(),
            endpoint: Endpoint::new(asks.endpoint).unwrap(),
            device: Device::new(asks.device).unwrap(),
            role: asks.role,
            last_event: asks.last_event,
            cseq: cseq(asks.cseq),
            resume: asks.session.map(|session| Resume {
                session,
                endpoint_named: asks.named,
            }),
        };
        // What the room's actor does before: the old connection says how far it has got.
        let member = asks
            .session
            .and_then(|session| self.state.member_of(&session));
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
        for answer in self.apply(Command::Join(joining), Some(connection)) {
            match answer {
                Ok(Answer::Joined(joined)) => {
                    answered.member = joined.member;
                    answered.last_event = joined.last_event;
                    answered.resumption = joined.resumption;
                }
                Ok(other) => panic!("{other:?} is no answer to a join"),
                Err(code) => answered.code = code,
            }
        }
        answered
    }

    /// Carries out a command as the server does. What is answered, if anything.
    fn apply(
        &mut self,
        command: Command,
        asker: Option<ConnectionId>,
    ) -> Option<Result<Answer, u16>> {
        if self.state.is_overdue(self.now) {
            self.carry_out(Command::Elapse, None);
        }
        self.carry_out(command, asker)
    }

    fn carry_out(
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

    fn seat(&mut self, connection: ConnectionId, joined: &Joined) {
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
    fn take(&mut self, connection: ConnectionId) {
        let client = self.clients.get_mut(&connection).unwrap();
        client.taken = client.pushed.len();
    }

    /// What it has read so far, all of it taken.
    fn log(&mut self, connection: ConnectionId) -> Vec<String> {
        self.take(connection);
        self.clients[&connection].log()
    }

    /// The connection ends.
    fn end(&mut self, connection: ConnectionId, why: Ending) {
        let client = self.clients.remove(&connection).unwrap();
        client.progress.set_sent_up_to(client.sent_up_to());
        self.apply(Command::End(client.member, connection, why), None);
    }

    fn lose(&mut self, connection: ConnectionId) {
        self.end(connection, Ending::Lost);
    }

    fn broadcast(&mut self, connection: ConnectionId, text: &str) {
        let payload = Payload(Bytes::from(format!("\"{text}\"")));
        let member = self.clients[&connection].member;
        self.apply(Command::Broadcast(member, payload), Some(connection));
    }

    fn publish(&mut self, connection: ConnectionId, id: &str) -> Result<(), u16> {
        let member = self.clients[&connection].member;
        let answer = self.apply(Command::Publish(member, camera(id)), Some(connection));
        answer.expect("an answer").map(|_| ())
    }

    fn session(&self, connection: ConnectionId) -> SessionId {
        self.clients[&connection].session
    }

    /// Time passes, and the room's alarm goes off.
    fn elapse(&mut self, millis: Millis) {
        self.now += millis;
        self.apply(Command::Elapse, None);
    }

    /// Who is there, "anna" or, while she is away, "(anna)".
    fn names(&self) -> Vec<String> {
        let name = |member: &meeting_server::room::member::Member| match member.presence {
            Presence::Attached(_) => member.who.endpoint().to_string(),
            Presence::Detached { .. } => format!("({})", member.who.endpoint()),
        };
        self.state.members().iter().map(name).collect()
    }
}

const NOTHING: [&str; 0] = [];

// ------------------------------------------------------------------------------ a loss, a return

#[test]
fn a_loss_tells_nobody_and_a_return_brings_what_was_missed() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.publish(anna, "s1").unwrap();
    let session = room.session(anna);
    room.lose(anna);
    assert_eq!(room.names(), ["(anna)", "ben"]);
    assert_eq!(room.log(ben), ["publish anna s1"]);
    room.broadcast(ben, "one");
    let carl = room.join("carl").connection;
    room.broadcast(carl, "two");

    let back = room.ask(Asks::to_join("anna").with(&session).knowing(2));
    assert!(back.resumed());
    assert_eq!(back.member, MemberId(1));
    assert_eq!(back.last_event, 6, "at or above every number of the replay");
    assert_eq!(room.session(back.connection), session);
    assert_eq!(
        room.log(back.connection),
        [
            "broadcast ben \"one\"",
            "join carl",
            "broadcast carl \"two\""
        ]
    );
    room.broadcast(ben, "three");
    assert_eq!(room.log(back.connection)[3..], ["broadcast ben \"three\""]);
    assert_eq!(
        room.log(ben)[1..],
        ["join carl", "broadcast carl \"two\""],
        "nobody has noticed"
    );
    let stream = room.state.members()[0].stream.as_deref();
    assert_eq!(stream, Some(&camera("s1")), "still published");
}

#[test]
fn what_was_not_taken_from_the_lost_connection_is_missed_as_well() {
    for numbered in [true, false] {
        let mut room = Meeting::new(roomy());
        let mut ask = Asks::to_join("anna");
        if !numbered {
            ask = ask.without_numbers();
        }
        let anna = room.ask(ask).connection;
        let session = room.session(anna);
        let ben = room.join("ben").connection;
        room.broadcast(ben, "taken");
        assert_eq!(room.log(anna).len(), 2);
        room.broadcast(ben, "not taken");
        room.lose(anna);
        room.broadcast(ben, "away");
        let mut ask = Asks::to_join("anna").with(&session).knowing(3);
        if !numbered {
            ask = ask.without_numbers();
        }
        let back = room.ask(ask);
        assert!(back.resumed());
        assert_eq!(
            room.log(back.connection),
            ["broadcast ben \"not taken\"", "broadcast ben \"away\""]
        );
    }
}

#[test]
fn a_drop_before_the_first_event_is_resumed() {
    for ask in [
        Asks::to_join("anna").knowing(0),
        Asks::to_join("anna").without_numbers(),
    ] {
        let (mut room, [ben]) = Meeting::of(roomy(), ["ben"]);
        let last_event = ask.last_event;
        let anna = room.ask(ask).connection;
        let session = room.session(anna);
        room.lose(anna);
        room.broadcast(ben, "first");
        let again = Asks {
            last_event,
            ..Asks::to_join("anna").with(&session)
        };
        let back = room.ask(again);
        assert!(back.resumed());
        assert_eq!(room.log(back.connection), ["broadcast ben \"first\""]);
    }
}

#[test]
fn one_that_comes_back_without_numbers_keeps_them_once_it_has_asked_for_them() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    room.take(anna);
    room.lose(anna);
    room.broadcast(ben, "one");
    let back = room.ask(Asks::to_join("anna").with(&session).without_numbers());
    assert!(back.resumed());
    assert!(room.clients[&back.connection].numbered);
    assert_eq!(room.log(back.connection), ["broadcast ben \"one\""]);
}

#[test]
fn one_that_comes_back_with_numbers_has_them_from_then_on() {
    let mut room = Meeting::new(roomy());
    let anna = room.ask(Asks::to_join("anna").without_numbers()).connection;
    let session = room.session(anna);
    let ben = room.join("ben").connection;
    room.broadcast(ben, "one");
    // She has read nothing, and says so.
    room.lose(anna);
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(1));
    assert!(back.resumed());
    assert!(room.clients[&back.connection].numbered);
    assert_eq!(
        room.log(back.connection),
        ["join ben", "broadcast ben \"one\""]
    );
}

#[test]
fn a_resume_wipes_neither_device_nor_role() {
    let mut room = Meeting::new(roomy());
    let ask = Asks {
        device: "phone",
        role: Role::Recorder,
        ..Asks::to_join("anna")
    };
    let anna = room.ask(ask).connection;
    let session = room.session(anna);
    room.lose(anna);
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(1));
    assert!(back.resumed());
    let member = &room.state.members()[0];
    assert_eq!(member.who.device().as_str(), "phone");
    assert_eq!(member.role, Role::Recorder);
}

#[test]
fn a_resume_need_not_name_the_endpoint() {
    let (mut room, [anna]) = Meeting::of(roomy(), ["anna"]);
    let session = room.session(anna);
    room.lose(anna);
    let unnamed = Asks {
        named: false,
        ..Asks::to_join("made by the server")
            .with(&session)
            .knowing(1)
    };
    assert!(room.ask(unnamed).resumed());
    assert_eq!(room.names(), ["anna"]);
}

#[test]
fn an_answer_to_a_resume_says_which_request_was_the_last() {
    let mut room = Meeting::new(roomy());
    let ask = Asks {
        cseq: 41,
        ..Asks::to_join("anna")
    };
    let anna = room.ask(ask).connection;
    let session = room.session(anna);
    let last_cseq = |room: &mut Meeting| {
        let ask = Asks {
            cseq: 99,
            ..Asks::to_join("anna").with(&session).knowing(1)
        };
        let back = room.ask(ask);
        let Resumption::Resumed { last_cseq, .. } = back.resumption else {
            panic!("she is back");
        };
        (back.connection, last_cseq)
    };
    room.lose(anna);
    let (again, last) = last_cseq(&mut room);
    assert_eq!(last, cseq(41), "her join was the first");
    room.clients[&again].progress.set_last_cseq(cseq(57));
    room.lose(again);
    let (again, last) = last_cseq(&mut room);
    assert_eq!(last, cseq(57));
    room.lose(again);
    // A resume is no request of the session: what she had sent before it may be sent again.
    assert_eq!(last_cseq(&mut room).1, cseq(57));
}

// ------------------------------------------------------------------------------------- a takeover

#[test]
fn the_newer_of_two_living_connections_goes_on_with_the_session() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    room.take(anna);
    room.broadcast(ben, "one");
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(2));
    assert!(back.resumed());
    assert_eq!(room.unseated, [(anna, Ending::TakenOver)]);
    assert_eq!(room.log(back.connection), ["broadcast ben \"one\""]);
    assert_eq!(room.log(ben), NOTHING, "nobody else is told");
}

#[test]
fn a_late_end_or_farewell_of_the_old_connection_changes_nothing() {
    let (mut room, [anna]) = Meeting::of(roomy(), ["anna"]);
    let session = room.session(anna);
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(1));
    for why in [Ending::Lost, Ending::Closed] {
        room.apply(Command::End(MemberId(1), anna, why), None);
        assert_eq!(room.names(), ["anna"]);
    }
    let farewell = room.apply(Command::Leave(MemberId(1), anna), Some(anna));
    assert!(matches!(farewell, Some(Err(410))));
    assert_eq!(room.names(), ["anna"]);
    room.elapse(WINDOW * 2);
    assert_eq!(room.names(), ["anna"]);
    assert!(room.clients.contains_key(&back.connection));
}

#[test]
fn a_late_word_of_the_old_connection_does_not_say_how_far_the_new_one_has_got() {
    let mut room = Meeting::new(roomy());
    let anna = room.ask(Asks::to_join("anna").without_numbers()).connection;
    let ben = room.join("ben").connection;
    room.broadcast(ben, "one");
    let (session, old) = (room.session(anna), room.clients[&anna].progress.clone());
    let back = room.ask(Asks::to_join("anna").with(&session).without_numbers());
    assert_eq!(room.log(back.connection).len(), 2);
    old.set_sent_up_to(0);
    old.set_last_cseq(cseq(1_000));
    room.lose(back.connection);
    let again = room.ask(Asks::to_join("anna").with(&session).without_numbers());
    let Resumption::Resumed {
        last_cseq, missed, ..
    } = again.resumption
    else {
        panic!("she is back");
    };
    assert_eq!((last_cseq, missed), (cseq(1), 0));
}

#[test]
fn an_end_that_comes_after_the_return_it_should_have_come_before_changes_nothing() {
    // The old connection has died; the room hears of it only when the member is back.
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    room.broadcast(ben, "one");
    let back = room.ask(Asks::to_join("anna").with(&session).without_numbers());
    assert!(back.resumed());
    room.apply(Command::End(MemberId(1), anna, Ending::Lost), None);
    room.elapse(WINDOW);
    assert_eq!(room.names(), ["anna", "ben"]);
    assert_eq!(
        room.log(back.connection),
        ["join ben", "broadcast ben \"one\""]
    );
}

// ---------------------------------------------------------------------------- the window is over

#[test]
fn who_does_not_come_back_in_time_leaves_stream_first() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.publish(anna, "s1").unwrap();
    let session = room.session(anna);
    room.lose(anna);
    room.elapse(WINDOW - 1);
    assert_eq!(room.names(), ["(anna)", "ben"]);
    assert_eq!(room.state.due(), Some(WINDOW));
    room.elapse(1);
    assert_eq!(room.names(), ["ben"]);
    assert_eq!(
        room.log(ben),
        ["publish anna s1", "unpublish anna s1", "leave anna"]
    );
    assert_eq!(room.departed, [("anna".to_owned(), Ending::Lost, WINDOW)]);
    let late = room.ask(Asks::to_join("anna").with(&session).knowing(3));
    assert!(!late.resumed());
    assert_eq!(late.resumption, Resumption::Failed);
    assert_eq!(late.member, MemberId(3), "an ordinary join");
}

#[test]
fn the_window_is_over_even_where_the_alarm_comes_late() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    room.lose(anna);
    room.now += WINDOW;
    let late = room.ask(Asks::to_join("anna").with(&session).knowing(2));
    assert!(!late.resumed());
    assert_eq!(room.log(ben), ["leave anna", "join anna"]);
}

#[test]
fn each_is_waited_for_as_long_as_any_other() {
    let (mut room, [anna, ben, carl]) = Meeting::of(roomy(), ["anna", "ben", "carl"]);
    let session = room.session(ben);
    room.lose(anna);
    room.elapse(WINDOW / 2);
    room.lose(ben);
    assert_eq!(room.state.due(), Some(WINDOW));
    room.elapse(WINDOW / 2);
    assert_eq!(room.names(), ["(ben)", "carl"]);
    assert_eq!(room.state.due(), Some(WINDOW + WINDOW / 2));
    // Back, and lost again: the time begins anew.
    let back = room
        .ask(Asks::to_join("ben").with(&session).knowing(3))
        .connection;
    room.elapse(WINDOW / 4);
    room.lose(back);
    room.elapse(WINDOW - 1);
    assert_eq!(room.names(), ["(ben)", "carl"]);
    room.elapse(1);
    assert_eq!(room.names(), ["carl"]);
    assert_eq!(room.log(carl), ["leave anna", "leave ben"]);
}

#[test]
fn an_expiry_of_the_old_session_does_not_throw_out_the_new_one() {
    let (mut room, [anna]) = Meeting::of(roomy(), ["anna"]);
    room.lose(anna);
    let again = room.join("anna").connection;
    assert_eq!(room.departed, [("anna".to_owned(), Ending::Replaced, 0)]);
    room.elapse(WINDOW * 2);
    assert_eq!(room.names(), ["anna"]);
    let member = room.clients[&again].member;
    assert_eq!(room.state.members()[0].id, member);
}

#[test]
fn a_room_in_which_all_are_away_is_not_empty_until_the_last_is_given_up() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.lose(anna);
    room.elapse(WINDOW / 2);
    room.lose(ben);
    assert!(room.state.is_deserted());
    assert!(!room.state.is_empty());
    room.elapse(WINDOW / 2);
    assert!(!room.state.is_empty());
    room.elapse(WINDOW / 2);
    assert!(room.state.is_empty());
    assert_eq!(room.state.due(), None);
    assert!(room.state.history().is_empty());
    assert_eq!(room.state.history().bytes(), 0);
}

#[test]
fn only_a_loss_is_waited_for() {
    for why in Ending::ALL {
        let (mut room, [anna, _ben]) = Meeting::of(roomy(), ["anna", "ben"]);
        room.end(anna, why);
        let waited_for = [
            Ending::GivenUp,
            Ending::Lost,
            Ending::Idle,
            Ending::SendTimeout,
            Ending::SlowConsumer,
            Ending::TakenOver,
            Ending::RoomFailed,
            Ending::Shutdown,
        ];
        let expected: &[&str] = if waited_for.contains(&why) {
            &["(anna)", "ben"]
        } else {
            &["ben"]
        };
        assert_eq!(room.names(), expected, "{why:?}");
    }
}

#[test]
fn without_a_window_a_loss_is_a_leave_and_nothing_is_kept() {
    let rules = Rules::default();
    let (mut room, [anna, ben]) = Meeting::of(rules, ["anna", "ben"]);
    room.broadcast(ben, "one");
    let session = room.session(anna);
    room.lose(anna);
    assert_eq!(room.log(ben), ["leave anna"]);
    assert!(room.state.history().is_empty());
    assert!(
        !room
            .ask(Asks::to_join("anna").with(&session).knowing(2))
            .resumed()
    );
}

#[test]
fn at_a_shutdown_nobody_is_waited_for_once_nobody_is_there() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.lose(anna);
    room.end(ben, Ending::Shutdown);
    assert!(room.state.is_deserted());
    room.apply(Command::Abandon, None);
    assert!(room.state.is_empty());
    assert_eq!(room.departed.len(), 2);
}

// --------------------------------------------------------------------------- a member like others

#[test]
fn a_member_that_is_away_is_dumped_and_keeps_its_stream_id() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.publish(anna, "s1").unwrap();
    room.lose(anna);
    assert_eq!(room.publish(ben, "s1"), Err(409));
    let Some(Ok(Answer::Dump(list))) = room.apply(Command::Dump(MemberId(2)), Some(ben)) else {
        panic!("a dump");
    };
    let list: Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(list[0]["endpoint"], "anna");
    assert_eq!(list[0]["stream"]["stream_id"], "s1");
}

#[test]
fn a_member_that_is_away_counts_and_its_return_needs_no_place() {
    let rules = Rules {
        max_members: 2,
        ..roomy()
    };
    let (mut room, [anna, _ben]) = Meeting::of(rules, ["anna", "ben"]);
    let session = room.session(anna);
    room.lose(anna);
    assert_eq!(room.join("carl").code, 503);
    assert!(
        room.ask(Asks::to_join("anna").with(&session).knowing(2))
            .resumed()
    );
}

#[test]
fn who_comes_back_without_its_session_may_publish_the_same_stream_at_once() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.publish(anna, "s1").unwrap();
    room.lose(anna);
    let again = room.join("anna").connection;
    assert_eq!(room.publish(again, "s1"), Ok(()));
    assert_eq!(
        room.log(ben),
        [
            "publish anna s1",
            "unpublish anna s1",
            "leave anna",
            "join anna",
            "publish anna s1"
        ]
    );
}

#[test]
fn who_left_while_one_was_away_is_seen_to_leave() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.publish(ben, "s1").unwrap();
    let session = room.session(anna);
    room.take(anna);
    room.lose(anna);
    room.end(ben, Ending::Closed);
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(3));
    assert!(back.resumed());
    assert_eq!(room.log(back.connection), ["unpublish ben s1", "leave ben"]);
}

// ----------------------------------------------------------------------------- what is not resumed

/// A join with this session is an ordinary one, and its own member goes on waiting untouched.
fn touches_nothing(room: &mut Meeting, ask: Asks<'_>) {
    let before: Vec<_> = room
        .state
        .members()
        .iter()
        .map(|m| (m.id, m.session, m.presence))
        .collect();
    let stranger = room.ask(ask);
    assert_eq!(stranger.code, 0, "never an error");
    assert_eq!(stranger.resumption, Resumption::Failed);
    let after = room
        .state
        .members()
        .iter()
        .map(|m| (m.id, m.session, m.presence));
    assert_eq!(after.take(before.len()).collect::<Vec<_>>(), before);
}

#[test]
fn a_failed_or_forged_attempt_to_resume_touches_nothing_of_the_member_it_names() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    room.take(anna);
    room.lose(anna);
    room.broadcast(ben, "one");
    // Another endpoint's, with a session that is none, and one that knows what has not happened
    // (under another endpoint's name, since a join takes its endpoint's place).
    touches_nothing(&mut room, Asks::to_join("carl").with(&session).knowing(2));
    touches_nothing(
        &mut room,
        Asks::to_join("dora").with(&SessionId::generate()),
    );
    let unnamed = Asks {
        named: false,
        ..Asks::to_join("made by the server")
            .with(&session)
            .knowing(1_000)
    };
    touches_nothing(&mut room, unnamed);
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(2));
    assert!(back.resumed());
    assert_eq!(room.log(back.connection)[0], "broadcast ben \"one\"");
}

#[test]
fn a_join_that_cannot_go_on_takes_its_endpoints_place_as_any_join_does() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    room.lose(anna);
    let ahead = room.ask(Asks::to_join("anna").with(&session).knowing(3));
    assert_eq!(ahead.resumption, Resumption::Failed);
    assert_ne!(room.session(ahead.connection), session);
    assert_eq!(room.log(ben), ["leave anna", "join anna"]);
}

#[test]
fn a_session_of_another_endpoint_does_not_bring_its_member_back() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    let session = room.session(anna);
    let ask = room.ask(Asks::to_join("ben").with(&session).knowing(2));
    assert_eq!(ask.resumption, Resumption::Failed);
    assert_eq!(room.unseated, [(ben, Ending::Replaced)]);
    assert_eq!(room.names(), ["anna", "ben"]);
}

// ------------------------------------------------------------------------------ what is kept

#[test]
fn a_session_that_was_quiet_for_longer_than_the_history_is_long_has_missed_nothing() {
    let (mut room, [anna, _ben]) = Meeting::of(rules(4, 1_000_000), ["anna", "ben"]);
    room.take(anna);
    let session = room.session(anna);
    room.elapse(AGE * 10);
    room.lose(anna);
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(2));
    assert!(back.resumed());
    assert_eq!(room.log(back.connection), NOTHING);
}

#[test]
fn a_session_whose_own_many_broadcasts_filled_the_history_has_missed_nothing() {
    let (mut room, [anna, ben]) = Meeting::of(rules(4, 1_000_000), ["anna", "ben"]);
    let session = room.session(anna);
    room.broadcast(ben, "one");
    room.take(anna);
    for n in 0..100 {
        room.broadcast(anna, &n.to_string());
    }
    room.lose(anna);
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(3));
    assert!(back.resumed());
    assert_eq!(room.log(back.connection), NOTHING);
    // Not so Ben, who has read none of it.
    let session = room.session(ben);
    room.lose(ben);
    let back = room.ask(Asks::to_join("ben").with(&session).knowing(3));
    assert_eq!(back.resumption, Resumption::Failed);
}

#[test]
fn who_needs_more_than_is_kept_joins_anew() {
    for bounds in [rules(3, 1_000_000), rules(100, 1_100)] {
        let (mut room, [anna, ben]) = Meeting::of(bounds, ["anna", "ben"]);
        room.take(anna);
        let session = room.session(anna);
        room.lose(anna);
        for n in 0..10 {
            room.broadcast(ben, &n.to_string());
        }
        let kept = room.state.history().len();
        assert!((2..=4).contains(&kept), "{kept}");
        assert!(room.state.history().bytes() <= 1_000_000);
        let first_kept = 12 - kept as u64;
        let ask = |after| Asks::to_join("anna").with(&session).knowing(after);
        assert_eq!(room.ask(ask(first_kept - 1)).resumption, Resumption::Failed);
    }
}

#[test]
fn who_needs_exactly_what_is_kept_goes_on() {
    let (mut room, [anna, ben]) = Meeting::of(rules(3, 1_000_000), ["anna", "ben"]);
    room.take(anna);
    let session = room.session(anna);
    room.lose(anna);
    for n in 0..10 {
        room.broadcast(ben, &n.to_string());
    }
    // 3 to 12 went out, 10 to 12 are kept.
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(9));
    assert!(back.resumed());
    assert_eq!(room.log(back.connection).len(), 3);
}

#[test]
fn what_is_too_old_goes() {
    let (mut room, [anna, ben]) = Meeting::of(roomy(), ["anna", "ben"]);
    room.broadcast(ben, "one");
    assert_eq!(room.state.history().len(), 2, "Ben's join and his word");
    room.elapse(AGE);
    assert_eq!(room.state.history().len(), 2);
    room.elapse(1);
    assert!(room.state.history().is_empty());
    assert!(room.state.history().bytes() == 0);
    let session = room.session(anna);
    room.lose(anna);
    // She has never read it, so she would have to be told.
    let back = room.ask(Asks::to_join("anna").with(&session).knowing(2));
    assert_eq!(back.resumption, Resumption::Failed);
}

#[test]
fn what_nobody_present_could_need_is_not_kept() {
    let (mut room, [anna]) = Meeting::of(roomy(), ["anna"]);
    for _ in 0..10 {
        room.broadcast(anna, "to myself");
    }
    assert!(room.state.history().is_empty());
    let ben = room.join("ben").connection;
    room.broadcast(ben, "for Anna");
    room.broadcast(anna, "for Ben");
    assert_eq!(room.state.history().len(), 3);
    let carl = room.join("carl").connection;
    room.broadcast(carl, "for both");
    assert_eq!(room.state.history().len(), 5);
    // What only Ben had not said himself.
    room.end(ben, Ending::Closed);
    let kept = room.state.history().len();
    assert_eq!(kept, 5, "his join, his word, Carl's, and that he has left");
    room.end(anna, Ending::Closed);
    assert_eq!(
        room.state.history().len(),
        2,
        "Carl came after all but the two ends"
    );
}

// ------------------------------------------------------------------------------ all, by property

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

// ----- the observer: everything that has happened, as plainly as it can be said -----

/// Every event of the room; whether it is kept, and if not, whether it had to go though somebody
/// needed it.
struct Observer {
    rules: Rules,
    events: Vec<Happened>,
}

struct Happened {
    frame: Rc<EventFrame>,
    cause: Option<MemberId>,
    at: Millis,
    is_kept: bool,
    had_to_go: bool,
}

impl Happened {
    fn is_for(&self, member: MemberId, joined: u64) -> bool {
        self.frame.number() > joined && self.cause != Some(member)
    }

    fn goes(&mut self) {
        self.is_kept = false;
        self.had_to_go = true;
    }
}

impl Observer {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            events: Vec::new(),
        }
    }

    /// Sees what came of a command, and what the room keeps of it.
    fn look(&mut self, state: &RoomState, outputs: &[Output], now: Millis) {
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

    fn kept(&self) -> impl Iterator<Item = &Happened> {
        self.events.iter().filter(|event| event.is_kept)
    }

    fn bytes(&self) -> usize {
        self.kept().map(|event| event.frame.footprint()).sum()
    }

    /// Whether something above `after` that this member needs had to go.
    fn lacks(&self, member: MemberId, joined: u64, after: u64) -> bool {
        let lost = |e: &&Happened| e.had_to_go && e.frame.number() > after;
        self.events
            .iter()
            .filter(lost)
            .any(|e| e.is_for(member, joined))
    }

    /// What one who came with the event `joined` and is there until now should have read.
    fn log(&self, member: MemberId, joined: u64) -> Vec<u64> {
        let events = self.events.iter().filter(|e| e.is_for(member, joined));
        events.map(|e| e.frame.number()).collect()
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
        for endpoint in 0..ENDPOINTS.len() {
            let away = self.people.get(ENDPOINTS[endpoint]);
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

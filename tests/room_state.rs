//! The rules of a room ([`meeting_server::room::state`]) without a socket: first each rule by
//! example, then all of them at once by property.
//!
//! Both parts put commands into a room and deliver what comes out as the server does: an answer
//! to the one who asked, an event to every member that there is after the command, but `except`.
//!
//! The property prints its failure as the shortest list of commands that still fails, and the
//! seed of it beside; the seed, in `tests/room_state.regressions`, runs before all random cases.

use std::{collections::BTreeMap, rc::Rc, time::Instant};

use bytes::Bytes;
use meeting_server::{
    ending::Ending,
    grants::Grants,
    ids::{Codec, ConnectionId, Device, Endpoint, MemberId, SessionId, StreamId},
    protocol::{
        cseq::Cseq,
        error::Refusal,
        event::{Payload, RoomEvent, Who},
        request::{Role, Stream, StreamType},
    },
    room::{
        command::{Answer, Command, Joined, Joining, Moment, Output},
        member::Member,
        state::RoomState,
    },
};
use proptest::{prelude::*, test_runner::FileFailurePersistence};
use serde_json::{Value, json};
use slotmap::SlotMap;

// ------------------------------------------------------------------------------ what is put in

/// A join of `endpoint` over a new connection.
fn joining(connection: ConnectionId, endpoint: &str, device: &str, role: Role) -> Command {
    Command::Join(Joining {
        connection,
        session: SessionId::generate(),
        endpoint: Endpoint::new(endpoint).expect("an endpoint"),
        device: Device::new(device).expect("a device"),
        role,
        last_event: Some(0),
        cseq: Cseq::default(),
        grants: Grants::ALL,
        issued_at: None,
        has_expired: false,
        resume: None,
        limit: None,
        allowance: None,
    })
}

fn stream_id(id: &str) -> StreamId {
    StreamId::new(id).expect("a stream id")
}

/// A camera with sound, in vp8 and opus.
fn camera(id: &str) -> Stream {
    Stream {
        stream_id: stream_id(id),
        kind: StreamType::Camera,
        has_video: true,
        has_audio: true,
        audio_codec: Codec::new("opus").expect("a codec"),
        video_codec: Codec::new("vp8").expect("a codec"),
    }
}

/// A silent screen of unknown codecs.
fn desktop(id: &str) -> Stream {
    Stream {
        kind: StreamType::Desktop,
        has_audio: false,
        audio_codec: Codec::default(),
        video_codec: Codec::default(),
        ..camera(id)
    }
}

// ------------------------------------------------------------------------------- rules, by example

/// The members of the examples, in the order in which they join.
const FIRST: MemberId = MemberId(1);
const SECOND: MemberId = MemberId(2);
const THIRD: MemberId = MemberId(3);

/// What a room says when it says nothing.
const NOTHING: [&str; 0] = [];

/// A room that tells what it does, one line for each thing it sends:
///
/// ```text
/// answer: joined as #2, last_event 2
/// event 2 to #1: join berta
/// ```
#[derive(Default)]
struct Room {
    state: RoomState,
    connections: SlotMap<ConnectionId, ()>,
}

impl Room {
    /// A room in which these are, numbered from [`FIRST`] on.
    fn of(endpoints: &[&str]) -> Self {
        let mut room = Self::default();
        for endpoint in endpoints {
            room.join(endpoint);
        }
        room
    }

    fn outputs(&mut self, command: Command) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.state.apply(command, moment(), &mut outputs);
        outputs
    }

    fn lines(&mut self, command: Command) -> Vec<String> {
        let outputs = self.outputs(command);
        outputs.iter().map(|output| self.line(output)).collect()
    }

    fn line(&self, output: &Output) -> String {
        match output {
            Output::Answer(Err(refusal)) => format!("answer: {}", refusal.code as u16),
            Output::Answer(Ok(Answer::Joined(joined))) => format!(
                "answer: joined as #{}, last_event {}",
                joined.member.0, joined.last_event
            ),
            Output::Answer(Ok(Answer::Left)) => "answer: left".into(),
            Output::Answer(Ok(Answer::Done)) => "answer: done".into(),
            Output::Answer(Ok(Answer::Dump(list))) => format!("answer: {}", text(list)),
            Output::Event {
                event,
                frame,
                except,
                ..
            } => format!(
                "event {} to {}: {}",
                frame.number(),
                self.all_but(*except),
                say(event)
            ),
            Output::Unseated { connection, why } => format!("{}: {connection:?}", why.as_str()),
            Output::Replay { .. } | Output::Departed { .. } => {
                panic!("nobody is waited for here: {output:?}")
            }
        }
    }

    fn all_but(&self, except: Option<MemberId>) -> String {
        let receivers = self.state.members().iter().filter(|m| Some(m.id) != except);
        let names: Vec<String> = receivers.map(|m| format!("#{}", m.id.0)).collect();
        if names.is_empty() {
            return "nobody".into();
        }
        names.join(" ")
    }

    fn join(&mut self, endpoint: &str) -> Vec<String> {
        self.join_as(endpoint, "", Role::Normal)
    }

    fn join_as(&mut self, endpoint: &str, device: &str, role: Role) -> Vec<String> {
        let connection = self.connections.insert(());
        self.lines(joining(connection, endpoint, device, role))
    }

    fn leave(&mut self, member: MemberId) -> Vec<String> {
        self.lines(Command::Leave(member, self.connection(member)))
    }

    fn end(&mut self, member: MemberId) -> Vec<String> {
        self.lines(Command::End(member, self.connection(member), Ending::Lost))
    }

    fn publish(&mut self, member: MemberId, stream: Stream) -> Vec<String> {
        self.lines(Command::Publish(member, stream))
    }

    fn unpublish(&mut self, member: MemberId, id: &str) -> Vec<String> {
        self.lines(Command::Unpublish(member, stream_id(id)))
    }

    fn broadcast(&mut self, member: MemberId, payload: &'static str) -> Vec<String> {
        let payload = Payload(Bytes::from_static(payload.as_bytes()));
        self.lines(Command::Broadcast(member, payload))
    }

    /// The very list that a dump answers with.
    fn list(&mut self, member: MemberId) -> Rc<[u8]> {
        match self.outputs(Command::Dump(member)).as_slice() {
            [Output::Answer(Ok(Answer::Dump(list)))] => list.clone(),
            other => panic!("a dump is one answer, not {other:?}"),
        }
    }

    /// The list as text.
    fn dump(&mut self, member: MemberId) -> String {
        text(&self.list(member)).to_owned()
    }

    /// Who is in the list, in its order, with `+s1` after one who publishes s1.
    fn names(&mut self, member: MemberId) -> Vec<String> {
        let list: Vec<Value> = serde_json::from_str(&self.dump(member)).expect("JSON");
        let name = |row: &Value| match row.get("stream") {
            None => format!("{}", Plain(&row["endpoint"])),
            Some(stream) => format!(
                "{}+{}",
                Plain(&row["endpoint"]),
                Plain(&stream["stream_id"])
            ),
        };
        list.iter().map(name).collect()
    }

    /// Where the member is reached.
    fn connection(&self, member: MemberId) -> ConnectionId {
        connection_of(&self.state, member)
    }
}

/// Where a member is reached; the connection of nobody where it is gone.
fn connection_of(state: &RoomState, member: MemberId) -> ConnectionId {
    let member = state.member(member);
    member.and_then(Member::connection).unwrap_or_default()
}

/// No rule here has to do with time.
fn moment() -> Moment {
    Moment {
        now: 0,
        at: Instant::now(),
    }
}

/// A JSON string without its quotes.
struct Plain<'a>(&'a Value);

impl std::fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str().expect("a string"))
    }
}

fn text(list: &[u8]) -> &str {
    std::str::from_utf8(list).expect("UTF-8")
}

fn say(event: &RoomEvent) -> String {
    match event {
        RoomEvent::Join(who) => format!("join {}", who.endpoint()),
        RoomEvent::Leave(who) => format!("leave {}", who.endpoint()),
        RoomEvent::Publish(who, stream) => format!("publish {} {stream}", who.endpoint()),
        RoomEvent::Unpublish(who, stream) => format!("unpublish {} {stream}", who.endpoint()),
        RoomEvent::Broadcast(who, payload) => {
            format!("broadcast {} {}", who.endpoint(), text(&payload.0))
        }
    }
}

// ----- joins and event numbers -----

#[test]
fn the_first_join_is_event_1_and_its_answer_says_last_event_1() {
    let mut room = Room::default();
    assert_eq!(
        room.join("anna"),
        [
            "answer: joined as #1, last_event 1",
            "event 1 to nobody: join anna"
        ]
    );
}

#[test]
fn a_join_is_announced_to_every_other_member_and_not_to_the_joiner() {
    let mut room = Room::of(&["anna", "berta"]);
    assert_eq!(
        room.join("carl"),
        [
            "answer: joined as #3, last_event 3",
            "event 3 to #1 #2: join carl"
        ]
    );
}

#[test]
fn events_are_numbered_without_gaps_even_when_nobody_sees_them() {
    let mut room = Room::default();
    room.join("anna");
    assert_eq!(
        room.publish(FIRST, camera("s1")),
        ["answer: done", "event 2 to nobody: publish anna s1"]
    );
    room.join("berta");
    assert_eq!(
        room.broadcast(SECOND, "{}"),
        ["answer: done", "event 4 to #1: broadcast berta {}"]
    );
    assert_eq!(
        room.unpublish(FIRST, "s1"),
        ["answer: done", "event 5 to #2: unpublish anna s1"]
    );
    assert_eq!(room.end(SECOND), ["event 6 to #1: leave berta"]);
    assert_eq!(
        room.leave(FIRST),
        ["event 7 to nobody: leave anna", "answer: left"]
    );
    assert_eq!(
        room.join("carl"),
        [
            "answer: joined as #3, last_event 8",
            "event 8 to nobody: join carl"
        ]
    );
}

#[test]
fn the_answer_to_a_join_names_the_session_and_the_member_that_the_room_keeps() {
    let mut room = Room::of(&["anna"]);
    let connection = room.connections.insert(());
    let outputs = room.outputs(joining(connection, "berta", "phone", Role::Recorder));
    let Output::Answer(Ok(Answer::Joined(Joined {
        member,
        session,
        who,
        ..
    }))) = &outputs[0]
    else {
        panic!("an answer was due: {outputs:?}");
    };
    let kept = room.state.member(*member).expect("it is in the room");
    assert_eq!(kept.session, *session);
    assert_eq!(kept.connection(), Some(connection));
    assert_eq!(kept.who, *who);
    assert_eq!(who.endpoint().as_str(), "berta");
    assert_eq!(who.device().as_str(), "phone");
    assert_eq!(kept.role, Role::Recorder);
    assert!(kept.numbered);
}

#[test]
fn who_leaves_and_joins_again_is_a_new_member() {
    let mut room = Room::of(&["anna", "berta"]);
    room.leave(FIRST);
    assert_eq!(
        room.join("anna")[0],
        "answer: joined as #3, last_event 4",
        "no number of a member is used twice"
    );
    assert_eq!(room.leave(FIRST), ["answer: 410"]);
    assert_eq!(room.names(THIRD), ["berta", "anna"]);
}

// ----- a newer connection with the same endpoint -----

#[test]
fn a_newer_connection_of_an_endpoint_takes_its_place() {
    let mut room = Room::of(&["anna", "berta"]);
    room.publish(FIRST, camera("s1"));
    let old = room.connection(FIRST);
    // To #2 alone: the newcomer sees nothing of its predecessor, and its answer comes between
    // the end of the old and the beginning of the new.
    assert_eq!(
        room.join("anna"),
        [
            "event 4 to #2: unpublish anna s1",
            "event 5 to #2: leave anna",
            &format!("replaced: {old:?}"),
            "answer: joined as #3, last_event 6",
            "event 6 to #2: join anna",
        ]
    );
    assert_eq!(room.names(SECOND), ["berta", "anna"]);
}

#[test]
fn a_replaced_member_is_none_any_more() {
    let mut room = Room::of(&["anna", "anna"]);
    assert!(room.state.member(FIRST).is_none());
    assert_eq!(room.broadcast(FIRST, "{}"), ["answer: 410"]);
    assert_eq!(room.end(FIRST), NOTHING, "its late end is nobody's concern");
    assert_eq!(room.names(SECOND), ["anna"]);
}

#[test]
fn endpoints_are_compared_byte_by_byte() {
    // Capitals, white space, full width, and é as one character and as two.
    let alike = ["anna", "Anna", "anna ", "ａnna", "ann\u{e9}", "anne\u{301}"];
    let mut room = Room::of(&alike);
    assert_eq!(room.names(FIRST), alike);
}

#[test]
fn another_device_does_not_make_another_endpoint() {
    let mut room = Room::default();
    room.join_as("anna", "phone", Role::Normal);
    room.join_as("anna", "laptop", Role::Recorder);
    assert_eq!(
        room.dump(SECOND),
        r#"[{"endpoint":"anna","device":"laptop","role":"recorder"}]"#
    );
}

// ----- streams -----

#[test]
fn a_stream_is_announced_to_all_but_its_publisher() {
    let mut room = Room::of(&["anna", "berta", "carl"]);
    assert_eq!(
        room.publish(SECOND, camera("s1")),
        ["answer: done", "event 4 to #1 #3: publish berta s1"]
    );
    assert_eq!(
        room.unpublish(SECOND, "s1"),
        ["answer: done", "event 5 to #1 #3: unpublish berta s1"]
    );
}

#[test]
fn the_same_stream_again_replaces_its_description_and_is_announced_again() {
    let mut room = Room::of(&["anna", "berta"]);
    room.publish(FIRST, camera("s1"));
    assert_eq!(
        room.publish(FIRST, desktop("s1")),
        ["answer: done", "event 4 to #2: publish anna s1"]
    );
    let kept = room.state.member(FIRST).and_then(|m| m.stream.as_deref());
    assert_eq!(kept, Some(&desktop("s1")));
}

#[test]
fn an_endpoint_publishes_one_stream_at_most() {
    let mut room = Room::of(&["anna"]);
    room.publish(FIRST, camera("s1"));
    assert_eq!(room.publish(FIRST, camera("s2")), ["answer: 409"]);
    assert_eq!(room.names(FIRST), ["anna+s1"]);
}

#[test]
fn a_stream_id_that_another_publishes_is_taken() {
    let mut room = Room::of(&["anna", "berta"]);
    room.publish(FIRST, camera("s1"));
    assert_eq!(room.publish(SECOND, camera("s1")), ["answer: 409"]);
    assert_eq!(room.names(FIRST), ["anna+s1", "berta"]);
}

#[test]
fn stream_ids_are_compared_byte_by_byte() {
    let mut room = Room::of(&["anna", "berta"]);
    room.publish(FIRST, camera("s1"));
    assert_eq!(room.publish(SECOND, camera("S1"))[0], "answer: done");
}

/// A room in which #1 publishes s1, #2 looks on, and then `frees` makes s1 free.
fn a_stream_id_is_free_again_after(frees: impl FnOnce(&mut Room)) {
    let mut room = Room::of(&["anna", "berta"]);
    room.publish(FIRST, camera("s1"));
    frees(&mut room);
    assert_eq!(room.publish(SECOND, camera("s1"))[0], "answer: done");
}

#[test]
fn a_stream_id_is_free_again_after_its_stream_was_deleted() {
    a_stream_id_is_free_again_after(|room| {
        room.unpublish(FIRST, "s1");
    });
}

#[test]
fn a_stream_id_is_free_again_after_its_owner_left() {
    a_stream_id_is_free_again_after(|room| {
        room.leave(FIRST);
    });
}

#[test]
fn a_stream_id_is_free_again_after_its_owner_was_lost() {
    a_stream_id_is_free_again_after(|room| {
        room.end(FIRST);
    });
}

#[test]
fn a_stream_id_is_free_again_after_its_owner_was_replaced() {
    a_stream_id_is_free_again_after(|room| {
        room.join("anna");
    });
}

#[test]
fn only_what_one_publishes_oneself_can_be_deleted() {
    let mut room = Room::of(&["anna", "berta"]);
    room.publish(FIRST, camera("s1"));
    assert_eq!(room.unpublish(SECOND, "s1"), ["answer: 404"]);
    room.publish(SECOND, camera("s2"));
    assert_eq!(room.unpublish(SECOND, "s1"), ["answer: 404"]);
    room.unpublish(SECOND, "s2");
    assert_eq!(room.unpublish(SECOND, "s2"), ["answer: 404"]);
    assert_eq!(room.names(FIRST), ["anna+s1", "berta"]);
}

// ----- the end of a member -----

#[test]
fn a_stream_ends_before_its_publisher_leaves() {
    let mut room = Room::of(&["anna", "berta"]);
    room.publish(FIRST, camera("s1"));
    assert_eq!(
        room.leave(FIRST),
        [
            "event 4 to #2: unpublish anna s1",
            "event 5 to #2: leave anna",
            "answer: left",
        ]
    );
}

#[test]
fn a_member_that_is_lost_ends_in_the_same_order_and_without_an_answer() {
    let mut room = Room::of(&["anna", "berta"]);
    room.publish(FIRST, camera("s1"));
    assert_eq!(
        room.end(FIRST),
        [
            "event 4 to #2: unpublish anna s1",
            "event 5 to #2: leave anna",
        ]
    );
}

#[test]
fn the_end_of_one_who_is_gone_says_nothing() {
    let mut room = Room::of(&["anna", "berta"]);
    room.leave(FIRST);
    assert_eq!(room.end(FIRST), NOTHING);
    assert_eq!(room.join("carl")[0], "answer: joined as #3, last_event 4");
}

#[test]
fn a_room_is_empty_once_its_last_member_is_gone() {
    let mut room = Room::default();
    assert!(room.state.is_empty());
    room.join("anna");
    room.join("berta");
    room.end(FIRST);
    assert!(!room.state.is_empty());
    room.leave(SECOND);
    assert!(room.state.is_empty());
}

// ----- dumps -----

#[test]
fn a_dump_lists_all_in_join_order_with_the_caller_and_streams_of_publishers_only() {
    let mut room = Room::default();
    room.join_as("zoe", "phone", Role::Normal);
    room.join_as("anna", "", Role::Recorder);
    room.join_as("m\"x", "", Role::Relayer);
    room.publish(FIRST, camera("s1"));
    room.publish(THIRD, desktop("s2"));
    assert_eq!(
        room.dump(SECOND),
        concat!(
            r#"[{"endpoint":"zoe","device":"phone","role":"normal","#,
            r#""stream":{"stream_id":"s1","type":"camera","has_video":true,"has_audio":true,"#,
            r#""audio_codec":"opus","video_codec":"vp8"}},"#,
            r#"{"endpoint":"anna","device":"","role":"recorder"},"#,
            r#"{"endpoint":"m\"x","device":"","role":"relayer","#,
            r#""stream":{"stream_id":"s2","type":"desktop","has_video":true,"has_audio":false,"#,
            r#""audio_codec":"","video_codec":""}}]"#,
        )
    );
}

#[test]
fn a_dump_is_an_answer_and_no_event() {
    let mut room = Room::of(&["anna"]);
    room.dump(FIRST);
    assert_eq!(room.join("berta")[0], "answer: joined as #2, last_event 2");
}

#[test]
fn a_dump_is_never_stale() {
    let mut room = Room::of(&["zoe", "anna"]);
    // Each is asked right before a change and right after it.
    let mut after = |change: &dyn Fn(&mut Room)| {
        room.list(FIRST);
        change(&mut room);
        room.names(FIRST)
    };
    let publish = |stream: fn(&str) -> Stream| {
        move |room: &mut Room| {
            room.publish(SECOND, stream("s1"));
        }
    };
    assert_eq!(after(&|_| ()), ["zoe", "anna"]);
    assert_eq!(
        after(&|room| drop(room.join("carl"))),
        ["zoe", "anna", "carl"]
    );
    assert_eq!(after(&publish(camera)), ["zoe", "anna+s1", "carl"]);
    assert_eq!(
        after(&|room| drop(room.unpublish(SECOND, "s1"))),
        ["zoe", "anna", "carl"]
    );
    assert_eq!(after(&publish(camera)), ["zoe", "anna+s1", "carl"]);
    assert_eq!(
        after(&|room| drop(room.join("anna"))),
        ["zoe", "carl", "anna"]
    );
    assert_eq!(after(&|room| drop(room.leave(THIRD))), ["zoe", "anna"]);
    assert_eq!(after(&|room| drop(room.end(MemberId(4)))), ["zoe"]);
}

#[test]
fn a_dump_after_the_same_stream_again_shows_its_new_description() {
    let mut room = Room::of(&["anna"]);
    room.publish(FIRST, camera("s1"));
    assert!(room.dump(FIRST).contains(r#""type":"camera""#));
    room.publish(FIRST, desktop("s1"));
    assert!(room.dump(FIRST).contains(r#""type":"desktop""#));
}

#[test]
fn a_dump_is_written_once_for_all_who_ask_until_something_changes() {
    let mut room = Room::of(&["anna", "berta"]);
    let list = room.list(FIRST);
    room.broadcast(SECOND, "{}");
    room.unpublish(SECOND, "s1");
    assert!(Rc::ptr_eq(&list, &room.list(SECOND)));
}

// ----- broadcasts -----

#[test]
fn a_broadcast_reaches_all_but_its_sender_byte_for_byte() {
    let mut room = Room::of(&["anna", "berta", "carl"]);
    assert_eq!(
        room.broadcast(SECOND, r#"{ "z": 1.50, "a":"\ud800" }"#),
        [
            "answer: done",
            r#"event 4 to #1 #3: broadcast berta { "z": 1.50, "a":"\ud800" }"#
        ]
    );
}

#[test]
fn a_broadcast_is_numbered_and_changes_no_dump() {
    let mut room = Room::of(&["anna", "berta"]);
    room.publish(FIRST, camera("s1"));
    let before = room.dump(FIRST);
    room.broadcast(FIRST, "{}");
    assert_eq!(room.dump(FIRST), before);
    assert_eq!(room.join("carl")[0], "answer: joined as #3, last_event 5");
}

// ----- refusals -----

/// Every request but the join, by `member`.
fn requests_of(member: MemberId) -> Vec<Command> {
    vec![
        Command::Leave(member, ConnectionId::default()),
        Command::Publish(member, camera("s9")),
        Command::Unpublish(member, stream_id("s1")),
        Command::Dump(member),
        Command::Broadcast(member, Payload(Bytes::from_static(b"{}"))),
    ]
}

/// `refused` gets `code`, and the room is afterwards as if it had never been asked.
fn is_refused_and_changes_nothing(room: &mut Room, refused: Command, code: u16, witness: MemberId) {
    let before = room.dump(witness);
    let what = format!("{refused:?}");
    assert_eq!(room.lines(refused), [format!("answer: {code}")], "{what}");
    assert_eq!(room.dump(witness), before, "{what}");
}

#[test]
fn requests_of_one_who_is_not_in_the_room_get_410_and_change_nothing() {
    let mut room = Room::of(&["anna", "berta"]);
    room.publish(SECOND, camera("s1"));
    room.leave(FIRST); // Event 4.
    let never = MemberId(99);
    for request in requests_of(FIRST).into_iter().chain(requests_of(never)) {
        is_refused_and_changes_nothing(&mut room, request, 410, SECOND);
    }
    assert_eq!(room.join("carl")[0], "answer: joined as #3, last_event 5");
}

#[test]
fn a_refused_stream_changes_nothing_and_is_no_event() {
    let mut room = Room::of(&["anna", "berta"]);
    room.publish(FIRST, camera("s1"));
    room.publish(SECOND, camera("s2")); // Event 4.
    for (refused, code) in [
        (Command::Publish(FIRST, desktop("s3")), 409),
        (Command::Publish(FIRST, desktop("s2")), 409),
        (Command::Unpublish(FIRST, stream_id("s2")), 404),
        (Command::Unpublish(FIRST, stream_id("s3")), 404),
    ] {
        is_refused_and_changes_nothing(&mut room, refused, code, SECOND);
    }
    assert_eq!(room.join("carl")[0], "answer: joined as #3, last_event 5");
}

// ----------------------------------------------------------------------------- all, by property

/// Few names, so that members replace each other and want the same streams.
const ENDPOINTS: [&str; 5] = ["anna", "Anna", "berta", "carl", "dora"];
const DEVICES: [&str; 3] = ["", "phone", "laptop"];
const ROLES: [Role; 3] = [Role::Normal, Role::Recorder, Role::Relayer];
const STREAMS: [&str; 3] = ["s1", "s2", "s3"];

/// A command as it is drawn, before it is known who is in the room. The numbers are indices into
/// the lists above.
#[derive(Clone, Copy, Debug)]
enum Drawn {
    Join {
        endpoint: usize,
        device: usize,
        role: usize,
    },
    Leave(Asker),
    End(Asker),
    Publish {
        by: Asker,
        stream: usize,
        desktop: bool,
    },
    Unpublish {
        by: Asker,
        stream: usize,
    },
    Dump(Asker),
    Broadcast(Asker),
}

/// Who does it, counted round and round.
#[derive(Clone, Copy, Debug)]
enum Asker {
    /// One of those who are there.
    Present(usize),
    /// One of those who ever were there, or one who never was.
    Anyone(usize),
}

impl Asker {
    fn find(self, state: &RoomState, joins: u64) -> MemberId {
        match self {
            Self::Present(n) if !state.is_empty() => {
                let nth = n % state.members().len();
                state.members().iter().nth(nth).unwrap().id
            }
            Self::Present(n) | Self::Anyone(n) => MemberId(1 + n as u64 % (joins + 1)),
        }
    }
}

fn asker() -> impl Strategy<Value = Asker> {
    prop_oneof![
        5 => (0..ENDPOINTS.len()).prop_map(Asker::Present),
        1 => (0..40_usize).prop_map(Asker::Anyone),
    ]
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let stream = 0..STREAMS.len();
    prop_oneof![
        4 => (0..ENDPOINTS.len(), 0..DEVICES.len(), 0..ROLES.len())
            .prop_map(|(endpoint, device, role)| Drawn::Join { endpoint, device, role }),
        1 => asker().prop_map(Drawn::Leave),
        1 => asker().prop_map(Drawn::End),
        5 => (asker(), stream.clone(), any::<bool>())
            .prop_map(|(by, stream, desktop)| Drawn::Publish { by, stream, desktop }),
        3 => (asker(), stream).prop_map(|(by, stream)| Drawn::Unpublish { by, stream }),
        1 => asker().prop_map(Drawn::Dump),
        1 => asker().prop_map(Drawn::Broadcast),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_all_members_and_the_model_agree_with_the_room(
        commands in prop::collection::vec(drawn(), 1..80)
    ) {
        let mut meeting = Meeting::default();
        for drawn in commands {
            meeting.step(drawn);
        }
    }
}

// ----- the whole: a room, its clients, and a model -----

/// A room with a client for each member, beside the model.
#[derive(Default)]
struct Meeting {
    state: RoomState,
    model: Model,
    clients: BTreeMap<MemberId, Client>,
    connections: SlotMap<ConnectionId, ()>,
    /// The number of the room's last event.
    last_event: u64,
}

impl Meeting {
    /// One command and all that must hold after it.
    fn step(&mut self, drawn: Drawn) {
        let command = self.command(drawn);
        let asked = Asked::of(&command);
        let expected = self.model.apply(&command);
        let answer = self.carry_out(command, &asked);
        assert_eq!(answer, expected, "granted and refused as in the model");
        self.members_are_in_order_and_unique();
        self.all_agree_with_a_dump();
    }

    fn command(&mut self, drawn: Drawn) -> Command {
        let find = |asker: Asker| asker.find(&self.state, self.model.joins);
        match drawn {
            Drawn::Join {
                endpoint,
                device,
                role,
            } => joining(
                self.connections.insert(()),
                ENDPOINTS[endpoint],
                DEVICES[device],
                ROLES[role],
            ),
            Drawn::Leave(by) => {
                let member = find(by);
                Command::Leave(member, connection_of(&self.state, member))
            }
            Drawn::End(by) => {
                let member = find(by);
                Command::End(member, connection_of(&self.state, member), Ending::Lost)
            }
            Drawn::Publish {
                by,
                stream,
                desktop: true,
            } => Command::Publish(find(by), desktop(STREAMS[stream])),
            Drawn::Publish { by, stream, .. } => {
                Command::Publish(find(by), camera(STREAMS[stream]))
            }
            Drawn::Unpublish { by, stream } => {
                Command::Unpublish(find(by), stream_id(STREAMS[stream]))
            }
            Drawn::Dump(by) => Command::Dump(find(by)),
            Drawn::Broadcast(by) => {
                Command::Broadcast(find(by), Payload(Bytes::from_static(b"{}")))
            }
        }
    }

    /// Applies a command and delivers what comes out. `None`: no answer came.
    fn carry_out(&mut self, command: Command, asked: &Asked) -> Option<Result<(), u16>> {
        let mut outputs = Vec::new();
        self.state.apply(command, moment(), &mut outputs);
        let mut given = None;
        for output in outputs {
            match output {
                Output::Answer(answer) => {
                    assert!(given.is_none(), "a request has one answer");
                    given = Some(self.answer(answer, asked));
                }
                Output::Event {
                    event,
                    frame,
                    except,
                    ..
                } => self.tell(frame.number(), &event, except),
                Output::Unseated { connection, why } => {
                    assert_eq!(why, Ending::Replaced);
                    self.replace(connection);
                }
                Output::Replay { .. } | Output::Departed { .. } => {
                    panic!("nobody is waited for here: {output:?}")
                }
            }
        }
        if let Asked::End(member) = asked {
            self.clients.remove(member);
        }
        let present: Vec<MemberId> = self.state.members().iter().map(|m| m.id).collect();
        let served: Vec<MemberId> = self.clients.keys().copied().collect();
        assert_eq!(
            served, present,
            "every member was answered, every other one is gone"
        );
        given
    }

    fn answer(&mut self, answer: Result<Answer, Refusal>, asked: &Asked) -> Result<(), u16> {
        match (answer.map_err(|refusal| refusal.code as u16)?, asked) {
            (
                Answer::Joined(Joined {
                    member,
                    who,
                    last_event,
                    ..
                }),
                Asked::Join(connection),
            ) => {
                assert_eq!(last_event, self.last_event + 1, "its own join is counted");
                let client = Client::new(*connection, &who, last_event, &self.look(member));
                self.clients.insert(member, client);
            }
            (Answer::Left, Asked::Leave(member)) => {
                self.clients.remove(member);
            }
            (Answer::Done, Asked::Publish(member, stream)) => {
                self.client(*member).set_own_stream(Some(stream));
            }
            (Answer::Done, Asked::Unpublish(member)) => {
                self.client(*member).set_own_stream(None);
            }
            (Answer::Done, Asked::Broadcast) => {}
            (Answer::Dump(list), Asked::Dump(member)) => {
                self.client(*member).agrees_with(&rows(&list));
            }
            (answer, asked) => panic!("{answer:?} is no answer to {asked:?}"),
        }
        Ok(())
    }

    fn tell(&mut self, number: u64, event: &RoomEvent, except: Option<MemberId>) {
        assert_eq!(number, self.last_event + 1, "no gap in the room's numbers");
        self.last_event = number;
        for member in self.state.members() {
            if Some(member.id) == except {
                continue;
            }
            let client = self.clients.get_mut(&member.id);
            client
                .expect("no event comes before the answer to the join")
                .hear(number, event);
        }
    }

    fn replace(&mut self, connection: ConnectionId) {
        let before = self.clients.len();
        self.clients
            .retain(|_, client| client.connection != connection);
        assert_eq!(
            self.clients.len(),
            before - 1,
            "one who was there is replaced"
        );
    }

    fn client(&mut self, member: MemberId) -> &mut Client {
        self.clients
            .get_mut(&member)
            .expect("only members are granted anything")
    }

    /// The room as a dump shows it to `member`.
    fn look(&mut self, member: MemberId) -> Vec<Value> {
        let mut outputs = Vec::new();
        self.state
            .apply(Command::Dump(member), moment(), &mut outputs);
        match outputs.as_slice() {
            [Output::Answer(Ok(Answer::Dump(list)))] => rows(list),
            other => panic!("a dump is one answer, not {other:?}"),
        }
    }

    fn all_agree_with_a_dump(&mut self) {
        let Some(anyone) = self.state.members().first().map(|m| m.id) else {
            assert!(self.model.rows.is_empty());
            return;
        };
        // So a list is kept at each step, and the next would show it if it were stale.
        let dump = self.look(anyone);
        assert_eq!(dump, self.model.dump());
        for client in self.clients.values() {
            client.agrees_with(&dump);
        }
    }

    fn members_are_in_order_and_unique(&self) {
        let members = self.state.members();
        assert!(members.iter().is_sorted_by(|a, b| a.id < b.id));
        let id = |member: Option<&Member>| member.map(|member| member.id);
        let mut streams = 0;
        for (at, member) in members.iter().enumerate() {
            // Each index finds it, and nothing else.
            let found = Some(member.id);
            assert_eq!(id(members.get(member.id)), found);
            assert_eq!(id(members.with_endpoint(member.who.endpoint())), found);
            assert_eq!(id(members.with_session(&(&member.session).into())), found);
            if let Some(stream) = &member.stream {
                assert_eq!(id(members.with_stream(&stream.stream_id)), found);
                streams += 1;
            }
            for other in members.iter().take(at) {
                assert_ne!(member.who.endpoint(), other.who.endpoint());
                assert!(
                    member.stream.as_deref().map(|stream| &stream.stream_id)
                        != other.stream.as_deref().map(|stream| &stream.stream_id)
                        || member.stream.is_none(),
                    "two publish {:?}",
                    member.stream
                );
            }
        }
        assert_eq!(members.streams(), streams, "no index has more");
    }
}

/// What a client remembers of its request until the answer comes.
#[derive(Debug)]
enum Asked {
    Join(ConnectionId),
    Leave(MemberId),
    End(MemberId),
    Publish(MemberId, String),
    Unpublish(MemberId),
    Dump(MemberId),
    Broadcast,
}

impl Asked {
    fn of(command: &Command) -> Self {
        match command {
            Command::Join(joining) => Self::Join(joining.connection),
            Command::Leave(member, _) => Self::Leave(*member),
            Command::End(member, ..) => Self::End(*member),
            Command::Publish(member, stream) => {
                Self::Publish(*member, stream.stream_id.to_string())
            }
            Command::Unpublish(member, _) => Self::Unpublish(*member),
            Command::Dump(member) => Self::Dump(*member),
            Command::Broadcast(..) => Self::Broadcast,
            Command::Elapse | Command::Abandon => panic!("nobody is waited for here"),
        }
    }
}

fn rows(list: &[u8]) -> Vec<Value> {
    serde_json::from_slice(list).expect("a dump is a JSON array")
}

// ----- a client -----

/// A member's client. It takes one dump when it joins; from then on it knows the room only by
/// its own answers and by the events it is sent.
struct Client {
    connection: ConnectionId,
    endpoint: String,
    last_number: u64,
    view: Vec<Seen>,
}

/// One member as a client sees it. Events do not carry roles.
#[derive(Debug, PartialEq)]
struct Seen {
    endpoint: String,
    device: String,
    stream: Option<String>,
}

impl Seen {
    fn in_row(row: &Value) -> Self {
        let string = |value: &Value| value.as_str().expect("a string").to_owned();
        Self {
            endpoint: string(&row["endpoint"]),
            device: string(&row["device"]),
            stream: row.get("stream").map(|stream| string(&stream["stream_id"])),
        }
    }
}

impl Client {
    fn new(connection: ConnectionId, who: &Who, last_event: u64, dump: &[Value]) -> Self {
        Self {
            connection,
            endpoint: who.endpoint().to_string(),
            last_number: last_event,
            view: dump.iter().map(Seen::in_row).collect(),
        }
    }

    fn agrees_with(&self, dump: &[Value]) {
        let now: Vec<Seen> = dump.iter().map(Seen::in_row).collect();
        assert_eq!(self.view, now, "what {} sees", self.endpoint);
    }

    fn set_own_stream(&mut self, stream: Option<&str>) {
        let own = self.position(&self.endpoint).expect("it sees itself");
        self.view[own].stream = stream.map(str::to_owned);
    }

    /// Takes an event in, and takes none amiss: of one endpoint a client hears join and leave in
    /// turn, and between them publish and unpublish in turn, but that the same stream may be
    /// published again.
    fn hear(&mut self, number: u64, event: &RoomEvent) {
        assert!(number > self.last_number, "event {number} comes late");
        self.last_number = number;
        let (RoomEvent::Join(who)
        | RoomEvent::Leave(who)
        | RoomEvent::Publish(who, _)
        | RoomEvent::Unpublish(who, _)
        | RoomEvent::Broadcast(who, _)) = event;
        let endpoint = who.endpoint().as_str();
        assert_ne!(endpoint, self.endpoint, "nobody hears of itself");
        let at = self.position(endpoint);
        if let RoomEvent::Join(who) = event {
            assert!(at.is_none(), "{endpoint} joins twice");
            return self.view.push(Seen {
                endpoint: endpoint.to_owned(),
                device: who.device().to_string(),
                stream: None,
            });
        }
        let at = at.expect("whoever does something is there");
        let seen = &mut self.view[at];
        assert_eq!(seen.device, who.device().as_str());
        match event {
            RoomEvent::Join(_) | RoomEvent::Broadcast(..) => {}
            RoomEvent::Leave(_) => {
                assert_eq!(seen.stream, None, "{endpoint} leaves with a stream");
                self.view.remove(at);
            }
            RoomEvent::Publish(_, stream) => {
                let known = seen.stream.replace(stream.to_string());
                assert!(known.is_none_or(|known| known == stream.as_str()));
            }
            RoomEvent::Unpublish(_, stream) => {
                assert_eq!(seen.stream.take().as_deref(), Some(stream.as_str()));
            }
        }
    }

    fn position(&self, endpoint: &str) -> Option<usize> {
        self.view.iter().position(|seen| seen.endpoint == endpoint)
    }
}

// ----- the model -----

/// The rules once more, as plainly as they can be said.
#[derive(Default)]
struct Model {
    rows: Vec<Row>,
    joins: u64,
}

struct Row {
    member: MemberId,
    endpoint: Endpoint,
    device: Device,
    role: Role,
    stream: Option<Stream>,
}

impl Model {
    /// Whether the command is granted, or the code with which it is refused; `None` where there
    /// is nobody to answer to.
    fn apply(&mut self, command: &Command) -> Option<Result<(), u16>> {
        match command {
            Command::Join(joining) => {
                self.rows.retain(|row| row.endpoint != joining.endpoint);
                self.joins += 1;
                self.rows.push(Row {
                    member: MemberId(self.joins),
                    endpoint: joining.endpoint.clone(),
                    device: joining.device.clone(),
                    role: joining.role,
                    stream: None,
                });
                Some(Ok(()))
            }
            Command::End(member, ..) => {
                self.rows.retain(|row| row.member != *member);
                None
            }
            Command::Leave(member, _) => Some(self.own(*member).map(|own| {
                self.rows.remove(own);
            })),
            Command::Publish(member, stream) => Some(self.publish(*member, stream)),
            Command::Unpublish(member, id) => Some(self.unpublish(*member, id)),
            Command::Dump(member) | Command::Broadcast(member, _) => {
                Some(self.own(*member).map(|_| ()))
            }
            Command::Elapse | Command::Abandon => None,
        }
    }

    fn publish(&mut self, member: MemberId, stream: &Stream) -> Result<(), u16> {
        let own = self.own(member)?;
        let publishes_another = match &self.rows[own].stream {
            Some(present) => present.stream_id != stream.stream_id,
            None => false,
        };
        let owner = self
            .rows
            .iter()
            .position(|row| row.publishes(&stream.stream_id));
        let is_anothers = owner.is_some() && owner != Some(own);
        if publishes_another || is_anothers {
            return Err(409);
        }
        self.rows[own].stream = Some(stream.clone());
        Ok(())
    }

    fn unpublish(&mut self, member: MemberId, id: &StreamId) -> Result<(), u16> {
        let own = self.own(member)?;
        if !self.rows[own].publishes(id) {
            return Err(404);
        }
        self.rows[own].stream = None;
        Ok(())
    }

    fn own(&self, member: MemberId) -> Result<usize, u16> {
        let own = self.rows.iter().position(|row| row.member == member);
        own.ok_or(410)
    }

    fn dump(&self) -> Vec<Value> {
        self.rows.iter().map(Row::json).collect()
    }
}

impl Row {
    fn publishes(&self, id: &StreamId) -> bool {
        match &self.stream {
            Some(stream) => stream.stream_id == *id,
            None => false,
        }
    }

    fn json(&self) -> Value {
        let mut row = json!({
            "endpoint": self.endpoint.as_str(),
            "device": self.device.as_str(),
            "role": match self.role {
                Role::Normal => "normal",
                Role::Recorder => "recorder",
                Role::Relayer => "relayer",
            },
        });
        if let Some(stream) = &self.stream {
            row["stream"] = json!({
                "stream_id": stream.stream_id.as_str(),
                "type": match stream.kind {
                    StreamType::Camera => "camera",
                    StreamType::Desktop => "desktop",
                },
                "has_video": stream.has_video,
                "has_audio": stream.has_audio,
                "audio_codec": stream.audio_codec.as_str(),
                "video_codec": stream.video_codec.as_str(),
            });
        }
        row
    }
}

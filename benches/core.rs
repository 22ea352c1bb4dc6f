//! The parts of a message's way that need no socket, one by one: `cargo bench --bench core`.
//!
//! For what the whole comes to see the load bench; this one tells which part has become slower.

use std::{hint::black_box, rc::Rc, time::Instant};

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use meeting_server::{
    ending::Ending,
    grants::Grants,
    ids::{
        App, Channel, ClaimedSession, ConnectionId, Device, Endpoint, MemberId, RoomId, RoomName,
        SessionId,
    },
    outbox::{Cause, Event, Frame, Mark, Outbox},
    protocol::{
        cseq::Cseq,
        event::{EventFrame, Payload, RoomEvent, Who},
        request::{Action, Envelope, Request, Role},
    },
    registry::directory::Directory,
    room::{
        command::{Command, Joining, Moment, Output, Resume},
        history::Bounds,
        rules::Rules,
        state::RoomState,
    },
};
use slotmap::SlotMap;

const SESSION: &str = "1f6c0f4e-3f0b-4f5e-9a63-0c9a3f2f7c11";

/// Members of a room: of most, and of the largest.
const SIZES: [usize; 2] = [10, 400];

/// What a client says: method and `data`.
fn requests() -> [(&'static str, String); 7] {
    let stream = r#"{"stream":{"type":"camera","stream_id":"ben-1","has_video":true,"has_audio":true,"audio_codec":"opus","video_codec":"vp8"}}"#;
    let join = r#"{"app":"demo","channel":"lobby","endpoint":"ben","role":"normal","device":"phone","last_event":0}"#;
    let words = format!(r#"{{"text":"{}"}}"#, "x".repeat(140));
    [
        ("channel.join", join.to_owned()),
        ("channel.leave", "{}".to_owned()),
        ("stream.add", stream.to_owned()),
        ("stream.delete", r#"{"stream_id":"ben-1"}"#.to_owned()),
        ("channel.dump", "{}".to_owned()),
        ("media_server.dump", r#"{"protocol":"rtsp"}"#.to_owned()),
        ("broadcast", words),
    ]
}

/// From a text to a checked request.
fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (method, data) in requests() {
        let text = format!(
            r#"{{"version":0,"cseq":7,"method":"{method}","session":"{SESSION}","data":{data}}}"#
        );
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(method, |b| b.iter(|| request(black_box(&text))));
    }
    group.finish();
}

fn request(text: &str) -> Request {
    let (envelope, _) = Envelope::parse(text).expect("the request is in order");
    envelope.request().expect("its data too")
}

/// A room and its members' connections.
struct Room {
    state: RoomState,
    connections: SlotMap<ConnectionId, ()>,
    begun: Instant,
    out: Vec<Output>,
}

impl Room {
    fn of(members: usize) -> Self {
        let rules = Rules {
            max_members: 0,
            resume_window: 10_000,
            history: Bounds {
                events: 1024,
                bytes: 2 << 20,
                age: 50_000,
            },
        };
        let mut room = Self {
            state: RoomState::new(rules),
            connections: SlotMap::with_key(),
            begun: Instant::now(),
            out: Vec::new(),
        };
        for n in 0..members {
            room.join(&format!("member {n}"), None);
        }
        room
    }

    fn apply(&mut self, command: Command) -> &[Output] {
        let moment = Moment {
            now: 1,
            at: self.begun,
        };
        self.out.clear();
        self.state.apply(command, moment, &mut self.out);
        &self.out
    }

    fn join(&mut self, endpoint: &str, resume: Option<(Resume, u64)>) -> ConnectionId {
        let connection = self.connections.insert(());
        self.apply(Command::Join(Joining {
            connection,
            session: SessionId::generate(),
            endpoint: Endpoint::new(endpoint).expect("a name"),
            device: Device::default(),
            role: Role::Normal,
            last_event: Some(resume.map_or(0, |(_, last_event)| last_event)),
            cseq: Cseq::default(),
            grants: Grants::ALL,
            issued_at: None,
            has_expired: false,
            resume: resume.map(|(resume, _)| resume),
            limit: None,
            allowance: None,
        }));
        connection
    }

    fn first(&self) -> MemberId {
        self.state.members().first().expect("somebody is there").id
    }

    /// The last of its members, and its connection.
    fn last(&self) -> (MemberId, ConnectionId, SessionId) {
        let member = self.state.members().last().expect("somebody is there");
        let connection = member.connection().expect("on a connection");
        (member.id, connection, member.session)
    }
}

fn payload() -> Payload {
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(140));
    Payload(Bytes::from(text))
}

/// What a room makes of a command.
fn room(c: &mut Criterion) {
    let mut group = c.benchmark_group("room");
    for size in SIZES {
        let id = |what| BenchmarkId::new(what, size);
        group.bench_function(id("join and leave"), |b| {
            let mut room = Room::of(size - 1);
            b.iter(|| {
                room.join("newcomer", None);
                let (member, connection, _) = room.last();
                room.apply(Command::Leave(member, connection));
            });
        });
        group.bench_function(id("broadcast"), |b| {
            let mut room = Room::of(size);
            let (member, payload) = (room.first(), payload());
            b.iter(|| {
                room.apply(Command::Broadcast(member, payload.clone()));
            });
        });
        let text = format!(
            r#"{{"cseq":7,"method":"stream.add","session":"{SESSION}","data":{}}}"#,
            requests()[2].1
        );
        let Request::Member(Action::StreamAdd(stream)) = request(&text) else {
            unreachable!("that is what it asks for");
        };
        group.bench_function(id("publish"), |b| {
            let mut room = Room::of(size);
            let member = room.first();
            b.iter(|| {
                room.apply(Command::Publish(member, stream.clone()));
            });
        });
        group.bench_function(id("dump, first"), |b| {
            let mut room = Room::of(size);
            let member = room.first();
            b.iter(|| {
                // It changes what is dumped.
                room.apply(Command::Publish(member, stream.clone()));
                room.apply(Command::Dump(member));
            });
        });
        group.bench_function(id("dump, again"), |b| {
            let mut room = Room::of(size);
            let member = room.first();
            b.iter(|| {
                room.apply(Command::Dump(member));
            });
        });
        group.bench_function(id("loss and resume, 100 missed"), |b| {
            let mut room = Room::of(size);
            let speaker = room.first();
            for _ in 0..100 {
                room.apply(Command::Broadcast(speaker, payload()));
            }
            let knows = room.state.last_event() - 100;
            let (member, _, session) = room.last();
            let resume = Resume {
                session: ClaimedSession::new(session.as_str()).expect("a session"),
                endpoint_named: false,
            };
            b.iter(|| {
                let (_, connection, _) = room.last();
                room.apply(Command::End(member, connection, Ending::Lost));
                room.join("whoever", Some((resume, knows)));
            });
            let resumed = room.out.iter().any(
                |output| matches!(output, Output::Replay { events, .. } if events.len() == 100),
            );
            assert!(resumed, "it is told all that it has missed");
        });
    }
    group.finish();
}

/// An event as it is written, once for the room.
fn encode(c: &mut Criterion) {
    let who = Who::new(Endpoint::new("ben").expect("a name"), Device::default());
    let events = [
        ("join", RoomEvent::Join(who.clone())),
        ("broadcast", RoomEvent::Broadcast(who, payload())),
    ];
    let mut group = c.benchmark_group("encode");
    let now = Instant::now();
    for (name, event) in events {
        group.bench_function(name, |b| b.iter(|| black_box(&event).encode(17, now)));
    }
    group.finish();
}

/// What waits for one client, on its way to the socket.
fn outbox(c: &mut Criterion) {
    let who = Who::new(Endpoint::new("ben").expect("a name"), Device::default());
    let event = |number| -> Rc<EventFrame> {
        let event = RoomEvent::Broadcast(who.clone(), payload());
        Rc::new(event.encode(number, Instant::now()))
    };
    let mut group = c.benchmark_group("outbox");
    for waiting in [1, 100] {
        let frames: Vec<_> = (1..=waiting).map(event).collect();
        let filled = || {
            let mut outbox = Outbox::default();
            outbox.push(Frame::Session(Box::new(Mark {
                session: SessionId::generate(),
                after: 0,
            })));
            outbox
        };
        group.throughput(Throughput::Elements(waiting));
        group.bench_function(BenchmarkId::new("push, gather, advance", waiting), |b| {
            let mut gathered = Vec::new();
            b.iter_batched_ref(
                filled,
                |outbox| {
                    for frame in &frames {
                        outbox.push(Frame::Event(Event {
                            frame: frame.clone(),
                            numbered: true,
                            cause: Cause::Client,
                        }));
                    }
                    while !outbox.is_empty() {
                        outbox.gather(&mut gathered);
                        outbox.advance(gathered.len());
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Which room a request is for.
fn directory(c: &mut Criterion) {
    let name = |n: usize| RoomName {
        app: App::new("demo").expect("a name"),
        channel: Channel::new(&format!("room {n}")).expect("a name"),
    };
    let mut rooms = Directory::default();
    let open = |id: RoomId, _: &RoomName| Some(id);
    for n in 0..10_000 {
        rooms.join(name(n), open);
    }
    let known = *rooms.join(name(5_000), open).expect("it is there");
    let mut group = c.benchmark_group("directory of 10000 rooms");
    group.bench_function("a request's room", |b| {
        b.iter(|| rooms.room(black_box(known)).copied());
    });
    group.bench_function("a join's room", |b| {
        let wanted = name(5_000);
        b.iter(|| rooms.join(black_box(&wanted).clone(), open).copied());
    });
    group.bench_function("a room opens and ends", |b| {
        let new = name(10_001);
        b.iter(|| {
            let id = rooms.join(new.clone(), open).copied();
            assert!(id.is_some_and(|id| rooms.emptied(id, 1)), "it is gone");
        });
    });
    group.finish();
}

criterion_group!(parts, parse, room, encode, outbox, directory);
criterion_main!(parts);

//! A frame that the socket has begun to take is completed, however the session ends: plain and under
//! TLS, on the thread of the first room and after a move to another one. Otherwise the client would
//! find the next frame inside of it.

mod common;

use std::{
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use common::{
    keys::Signer,
    wire::{CERTIFICATE, is_under_tls},
    *,
};
use meeting_server::{ending::Ending, settings::Settings};
use serde_json::json;

/// More than any socket buffers, in messages of 60 KB.
const BROADCASTS: usize = 100;

/// Broadcasts that put an end to a slow consumer.
const SEND_QUEUE: usize = 400;

/// A way for a session to end with a close frame.
struct Way {
    ending: Ending,
    settings: fn(&mut Settings),
    /// Makes it end; anna reads nothing here. `room` is the one that she is in.
    end: fn(server: &mut Server, anna: &mut Client, room: &str),
    code: u16,
}

const fn way(ending: Ending, code: u16, end: fn(&mut Server, &mut Client, &str)) -> Way {
    Way {
        ending,
        settings: |_| {},
        end,
        code,
    }
}

const WAYS: [Way; 12] = [
    way(Ending::Closed, 1000, |_, anna, _| anna.close(1000)),
    way(Ending::GivenUp, 4900, |_, anna, _| anna.close(4900)),
    way(Ending::BadFrame, 1002, |_, anna, _| {
        anna.frame(true, 3, b"no such opcode");
    }),
    way(Ending::Binary, 1003, |_, anna, _| {
        anna.frame(true, 2, b"binary")
    }),
    way(Ending::BadText, 1007, |_, anna, _| {
        anna.frame(true, 1, &[0xff; 500])
    }),
    way(Ending::TooBig, 1009, |_, anna, _| {
        anna.frame(true, 1, &[b' '; 70_000]);
    }),
    way(Ending::Unauthorized, 1008, |_, anna, room| {
        anna.ask(
            "channel.join",
            json!({"app": "test", "channel": room, "token": "bad"}),
        );
    }),
    Way {
        settings: |settings| {
            // Enough for the one who fills her socket.
            settings.session.rate_limit = 10;
            settings.session.rate_burst = 2 * BROADCASTS as u32;
        },
        ..way(Ending::RateLimited, 1008, |_, anna, _| {
            for _ in 0..5 * BROADCASTS {
                anna.frame(true, 10, b"");
            }
        })
    },
    Way {
        settings: |settings| settings.session.join_timeout = Duration::from_secs(1),
        ..way(Ending::NotJoined, 1008, |_, anna, _| {
            anna.ask("channel.leave", json!({}));
        })
    },
    way(Ending::SlowConsumer, 4002, |server, _, room| {
        // More than a socket buffers here too.
        speak(server, room, SEND_QUEUE + 100, 20_000);
    }),
    way(Ending::Replaced, 4001, |server, _, room| {
        join(server.connect(), room, "anna", "");
    }),
    way(Ending::Shutdown, 1001, |server, _, _| server.begin_stop()),
];

fn key() -> Signer {
    Signer::hs256("test", "k")
}

fn server(way: &Way, tls: bool) -> Server {
    let server = Server::with(|settings| {
        settings.server.workers = 8;
        settings.server.drain_timeout = PATIENCE;
        settings.session.send_queue = SEND_QUEUE;
        settings.session.send_queue_bytes = 1 << 30;
        settings.session.send_timeout = PATIENCE;
        settings.rooms.resume_window = Duration::ZERO;
        settings.auth.keys = vec![key().settings];
        if tls {
            settings.tls = CERTIFICATE.settings();
        }
        (way.settings)(settings);
    });
    if tls {
        is_under_tls(server.addr);
    }
    server
}

fn join_data(room: &str, endpoint: &str) -> serde_json::Value {
    json!({
        "app": "test",
        "channel": room,
        "endpoint": endpoint,
        "token": key().token(json!({})),
    })
}

fn join(mut client: Client, room: &str, endpoint: &str, session: &str) -> Client {
    client.session = session.to_owned();
    let data = client.ok("channel.join", join_data(room, endpoint));
    client.session = data["session"].as_str().unwrap().to_owned();
    client
}

/// So many broadcasts of so many bytes by a member that then leaves.
fn speak(server: &Server, room: &str, broadcasts: usize, bytes: usize) {
    let mut speaker = join(server.connect(), room, "speaker", "");
    let pad = "x".repeat(bytes);
    for _ in 0..broadcasts {
        let cseq = speaker.ask("broadcast", json!({"pad": pad}));
        while speaker.next()["cseq"] != cseq {}
    }
    speaker.close(1000);
    assert_eq!(speaker.closed(), 1000);
}

/// Says when anna has joined `room`; stays there until then.
fn watch(server: &Server, room: &str) -> Receiver<()> {
    let mut watcher = join(server.connect(), room, "watcher", "");
    let (seen, sees) = channel();
    thread::spawn(move || {
        while watcher.next()["data"]["endpoint"] != "anna" {}
        // The test may have ended by a failure.
        let _ = seen.send(());
    });
    sees
}

/// Leaves for another room, reading only as much as it takes to get there.
fn move_to(server: &Server, anna: &mut Client, room: &str) {
    let joined = watch(server, room);
    anna.ask("channel.leave", json!({}));
    anna.session.clear();
    anna.ask("channel.join", join_data(room, "anna"));
    let begun = Instant::now();
    while joined.try_recv().is_err() {
        anna.read_some(2_000);
        assert!(begun.elapsed() < PATIENCE, "she never gets there");
    }
}

fn ends_in_a_whole_frame(way: &Way, moved: bool, tls: bool) {
    let mut server = server(way, tls);
    let narrow = Client::connect_narrow(server.addr);
    let mut anna = join(narrow, "room", "anna", "");
    speak(&server, "room", BROADCASTS, 60_000);
    let mut room = "room";
    if moved {
        // Seven of eight channels are on another thread.
        room = "second";
        move_to(&server, &mut anna, room);
    }
    (way.end)(&mut server, &mut anna, room);
    // The client checks each frame.
    let code = loop {
        match anna.receive() {
            Received::Close(Some((code, _))) => break code,
            Received::Text(text) => {
                let parsed: Result<serde_json::Value, _> = serde_json::from_str(&text);
                assert!(parsed.is_ok(), "{:?}: no JSON: {text}", way.ending);
            }
            Received::Ping(_) => {}
            other => panic!("{:?}, moved {moved}, TLS {tls}: {other:?}", way.ending),
        }
    };
    assert_eq!(code, way.code, "{:?}, moved {moved}, TLS {tls}", way.ending);
    assert_eq!(anna.receive(), Received::End);
}

fn all_ways(moved: bool, tls: bool) {
    for ways in WAYS.chunks(4) {
        thread::scope(|scope| {
            // To leave, a client must know its session, and anna reads no answer after a move.
            let possible = ways
                .iter()
                .filter(|way| !moved || way.ending != Ending::NotJoined);
            for way in possible {
                scope.spawn(move || ends_in_a_whole_frame(way, moved, tls));
            }
        });
    }
}

#[test]
fn a_half_sent_frame_is_completed_at_every_end() {
    all_ways(false, false);
}

#[test]
fn a_half_sent_frame_is_completed_at_every_end_under_tls() {
    all_ways(false, true);
}

#[test]
fn a_half_sent_frame_is_completed_after_a_move() {
    all_ways(true, false);
}

#[test]
fn a_half_sent_frame_is_completed_after_a_move_under_tls() {
    all_ways(true, true);
}

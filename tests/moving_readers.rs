//! Clients that read nothing and move from room to room: what waits for each is bounded, whatever
//! rooms it has been in.

#![allow(clippy::print_stdout, reason = "the figures, shown with --nocapture")]

mod common;

use common::{
    neighbour::{ends_well, server},
    openmetrics::Figures,
    procfs::{self, MIB},
    *,
};
use serde_json::json;

const READERS: usize = 100;
const ROOMS: [&str; 4] = ["a", "b", "c", "d"];

/// What each room keeps for its detached members: 1.8 MB, less than `resume_bytes`.
const BROADCASTS: usize = 30;
const PAD: usize = 60_000;

fn request(cseq: usize, method: &str, session: &str, data: &serde_json::Value) -> Vec<u8> {
    let request = json!({"cseq": cseq, "method": method, "session": session, "data": data});
    frame(true, 1, request.to_string().as_bytes())
}

#[test]
fn silent_readers_that_move_cost_bounded_memory() {
    let process = server(&[
        ("SERVER__WORKERS", "4"),
        ("ROOMS__RESUME_WINDOW", "10m"),
        ("SESSION__IDLE_TIMEOUT", "10m"),
        ("SESSION__SEND_TIMEOUT", "10m"),
    ]);
    // Each reader has a session in each room, and is detached there.
    let sessions: Vec<Vec<String>> = (0..READERS)
        .map(|n| {
            let mut reader = Client::connect(process.addr);
            let sessions = ROOMS.map(|room| {
                reader.join(room, &format!("reader {n}"));
                let session = reader.session.clone();
                reader.close(4900);
                assert_eq!(reader.closed(), 4900);
                reader = Client::connect(process.addr);
                session
            });
            sessions.into()
        })
        .collect();
    let mut speakers = ROOMS.map(|room| process.join(room, "speaker"));
    let pad = "x".repeat(PAD);
    for speaker in &mut speakers {
        for _ in 0..BROADCASTS {
            speaker.ok("broadcast", json!({"pad": pad}));
        }
    }
    let quiet = procfs::resident(&process);

    // Resume, leave, resume in the next room, and so on, without reading a byte.
    let readers: Vec<Client> = sessions
        .iter()
        .map(|sessions| {
            let mut reader = Client::connect_narrow(process.addr);
            let mut frames = Vec::new();
            for (n, (room, session)) in ROOMS.iter().zip(sessions).enumerate() {
                let join = json!({"app": "test", "channel": room, "last_event": 0});
                frames.extend(request(2 * n, "channel.join", session, &join));
                frames.extend(request(2 * n + 1, "channel.leave", session, &json!({})));
            }
            reader.write(&frames);
            reader
        })
        .collect();
    let done = |now: &Figures| now["meeting_server_resumes_total"] >= READERS as f64;
    Figures::when(process.ops, done);
    // Whatever else was ready on the threads of these rooms has run before this is answered.
    for speaker in &mut speakers {
        for _ in 0..100 {
            let cseq = speaker.ask("broadcast", json!({}));
            while speaker.next()["cseq"] != cseq {}
        }
    }
    let cost = procfs::peak_resident(&process).saturating_sub(quiet);
    println!("{READERS} silent readers: {} KiB", cost / 1024);
    assert!(cost <= 40 * MIB, "{} KiB", cost / 1024);

    // What was held back goes on once they read: each gets to the last room and leaves it.
    std::thread::scope(|scope| {
        for mut reader in readers {
            scope.spawn(move || {
                let last = 2 * ROOMS.len() - 1;
                while reader.next()["cseq"] != last {}
            });
        }
    });
    drop(speakers);
    ends_well(process);
}

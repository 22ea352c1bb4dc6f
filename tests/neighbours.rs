//! One bad neighbour hurts nobody, seen from outside of the server's process: who floods it, who once
//! sends something large, and tens of thousands who come and go.

#![allow(clippy::print_stdout, reason = "the figures, shown with --nocapture")]

mod common;

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use common::{
    neighbour::{LetGo, ends_well, request, server, until_alive},
    openmetrics::Figures,
    procfs::{self, MIB},
    random::Random,
    wire::{CERTIFICATE, is_under_tls},
    *,
};
use serde_json::json;

// ----------------------------------------------------------------------------------- floods

/// What somebody sends without end.
#[derive(Clone, Copy, Debug)]
struct Flood {
    what: &'static str,
    /// Its frames, for this session.
    frames: fn(&Client) -> Vec<u8>,
    /// Whether it reads what it is told.
    reads: bool,
}

const FLOODS: [Flood; 7] = [
    Flood {
        what: "small broadcasts",
        frames: |client| request(client, "broadcast", json!({"n": 1})).repeat(100),
        reads: true,
    },
    Flood {
        what: "large broadcasts",
        frames: |client| request(client, "broadcast", json!({"pad": "x".repeat(60_000)})),
        reads: true,
    },
    Flood {
        what: "broadcasts whose answers it does not read",
        frames: |client| request(client, "broadcast", json!({"n": 1})).repeat(100),
        reads: false,
    },
    Flood {
        what: "pings whose pongs it does not read",
        frames: |_| frame(true, 9, &[b'x'; 125]).repeat(100),
        reads: false,
    },
    Flood {
        what: "pongs",
        frames: |_| frame(true, 10, b"").repeat(1_000),
        reads: false,
    },
    Flood {
        what: "nonsense",
        frames: |_| frame(true, 1, b"nonsense").repeat(100),
        reads: true,
    },
    Flood {
        what: "messages in fragments of nothing",
        frames: |_| {
            let mut frames = frame(false, 1, b"{");
            frames.extend(frame(false, 0, b"").repeat(1_000));
            frames.extend(frame(true, 0, b"}"));
            frames
        },
        reads: true,
    },
];

impl Flood {
    /// Sends it, and comes back as often as it is put out.
    fn go_on(&self, addr: SocketAddr, sent: &AtomicUsize, goes_on: &AtomicBool) {
        while goes_on.load(Ordering::Relaxed) {
            let mut client = Client::connect(addr);
            client.join("flood", "flooder");
            let frames = (self.frames)(&client);
            let mut reader = client.stream.try_clone().unwrap();
            thread::scope(|scope| {
                if self.reads {
                    scope.spawn(move || {
                        let mut scratch = vec![0; 1 << 16];
                        while matches!(reader.read(&mut scratch), Ok(1..)) {}
                    });
                }
                while goes_on.load(Ordering::Relaxed) && client.stream.write_all(&frames).is_ok() {
                    sent.fetch_add(frames.len(), Ordering::Relaxed);
                }
                // Where it is not cut off already.
                let _ = client.stream.shutdown(std::net::Shutdown::Both);
            });
        }
    }
}

#[test]
fn a_flood_without_a_rate_limit_costs_no_memory_and_the_next_room_is_served() {
    // One thread, so that the flood and the neighbours are on the same one.
    let process = server(&[("SERVER__WORKERS", "1"), ("SESSION__SEND_TIMEOUT", "1s")]);
    let mut anna = process.join("quiet", "anna");
    let mut ben = process.join("quiet", "ben");
    anna.event("endpoint");
    let quiet = procfs::resident(&process);
    for flood in FLOODS {
        let (sent, goes_on) = (AtomicUsize::new(0), AtomicBool::new(true));
        thread::scope(|scope| {
            let _let_go = LetGo(&goes_on);
            scope.spawn(|| flood.go_on(process.addr, &sent, &goes_on));
            let begun = Instant::now();
            // As long as both have something to do.
            let mut n = 0;
            while n < 50 || sent.load(Ordering::Relaxed) < 4 * MIB {
                anna.ok("broadcast", json!({"n": n}));
                assert_eq!(ben.event("broadcast")["payload"]["n"], n);
                n += 1;
                assert!(begun.elapsed() < 2 * PATIENCE, "{}", flood.what);
            }
        });
        let cost = procfs::peak_resident(&process).saturating_sub(quiet);
        println!("after {}: {} KiB at most", flood.what, cost / 1024);
        assert!(cost < 8 * MIB, "{}: {} KiB", flood.what, cost / 1024);
    }
    drop((anna, ben));
    ends_well(process);
}

// ------------------------------------------------------------------------------------ buffers

#[test]
fn what_one_large_message_has_taken_is_given_back() {
    large_messages(&[]);
}

#[test]
fn what_one_large_message_has_taken_is_given_back_under_tls_too() {
    let files = CERTIFICATE.settings();
    large_messages(&[
        ("TLS__CERT_FILE", &files.cert_file),
        ("TLS__KEY_FILE", &files.key_file),
    ]);
}

fn large_messages(tls: &[(&str, &str)]) {
    const MEMBERS: usize = 1_000;
    // While one speaks the others answer no ping.
    let mut settings = vec![
        ("ROOMS__RESUME_WINDOW", "0s"),
        ("SESSION__IDLE_TIMEOUT", "10m"),
    ];
    settings.extend(tls);
    let process = server(&settings);
    if !tls.is_empty() {
        is_under_tls(process.addr);
    }
    // Two by two: each sends a long one, and is sent one.
    let mut members: Vec<Client> = (0..MEMBERS)
        .map(|n| process.join(&format!("{}", n / 2), &format!("{n}")))
        .collect();
    for pair in members.chunks_mut(2) {
        pair[0].event("endpoint");
    }
    let quiet = procfs::resident(&process);
    let pad = "x".repeat(60_000);
    for pair in members.chunks_mut(2) {
        for (from, to) in [(0, 1), (1, 0)] {
            let sender = &mut pair[from];
            let request = format!(
                r#"{{"cseq":9,"method":"broadcast","session":"{}","data":{{"pad":"{pad}"}}}}"#,
                sender.session
            );
            if to == 1 {
                sender.text(&request);
            } else {
                // In two fragments, one of them small.
                let (first, rest) = request.split_at(100);
                sender.frame(false, 1, first.as_bytes());
                sender.frame(true, 0, rest.as_bytes());
            }
            assert_eq!(sender.answer(9)["err"], 0);
            assert!(pair[to].next_text().len() > pad.len());
        }
    }
    let growth = || procfs::resident(&process).saturating_sub(quiet) / MEMBERS;
    let given_back = |growth: &usize| *growth <= 12 * 1024;
    let growth = procfs::when(growth, given_back, "bytes that a member has kept");
    println!("after a large message: {growth} bytes a member");
    drop(members);
    ends_well(process);
}

// -------------------------------------------------------------------------------------- churn

/// Connects, joins, publishes, and goes, most of the time rudely.
fn come_and_go(addr: SocketAddr, random: &mut Random, name: usize) {
    let mut client = Client::connect(addr);
    let channel = random.below(40).to_string();
    let endpoint = format!("{name}");
    let join = json!({"app": "test", "channel": channel, "endpoint": endpoint});
    let cseq = client.ask("channel.join", join);
    if random.below(4) == 0 {
        // Before it can know whether it has joined.
        return client.reset();
    }
    let answer = client.answer(cseq);
    assert_eq!(answer["err"], 0, "{answer}");
    client.session = answer["data"]["session"].as_str().unwrap().to_owned();
    client.ask("stream.add", json!({"stream": stream(&endpoint)}));
    client.ask("broadcast", json!({"text": "hello"}));
    match random.below(6) {
        0 => client.reset(),
        1 => drop(client),
        2 => {
            client.write(&frame(true, 1, &[b' '; 2_000])[..1_000]);
            client.reset();
        }
        3 => client.close(4900),
        4 => client.frame(true, 3, b"no such opcode"),
        _ => client.close(1000),
    }
}

/// Every figure that is to be 0 where nobody is.
const GAUGES: [&str; 6] = [
    "connections",
    "sessions",
    "sessions_detached",
    "rooms",
    "streams",
    "history_bytes",
];

#[test]
fn after_tens_of_thousands_who_come_and_go_all_is_as_it_was() {
    const WARM_UP: usize = 2_000;
    const CHURN: usize = 18_000;
    const HANDS: usize = 4;
    let seed = Random::seed();
    println!("seed {seed}");
    let process = server(&[("ROOMS__RESUME_WINDOW", "500ms")]);
    let churn = |times: usize, seed: u64| {
        thread::scope(|scope| {
            for hand in 0..HANDS {
                let addr = process.addr;
                scope.spawn(move || {
                    let mut random = Random::new(seed ^ hand as u64);
                    for n in 0..times / HANDS {
                        come_and_go(addr, &mut random, n * HANDS + hand);
                    }
                });
            }
        });
        for kind in ["connection", "session", "outbox", "room", "event"] {
            until_alive(&process, kind, 0);
        }
        Figures::when(process.ops, |now| {
            GAUGES
                .iter()
                .all(|gauge| now[&format!("meeting_server_{gauge}")] == 0.0)
        });
        procfs::when(
            || procfs::connections(process.addr),
            |sockets| *sockets == 0,
            "sockets",
        );
    };
    churn(WARM_UP, seed);
    let memory = procfs::resident(&process);
    let files = procfs::open_files(&process);
    churn(CHURN, !seed);
    let open = || procfs::open_files(&process);
    procfs::when(open, |open| *open <= files, "open files");
    let growth = procfs::resident(&process).saturating_sub(memory);
    println!(
        "after {CHURN} connections: {files} files, {} KiB more",
        growth / 1024
    );
    assert!(growth < 4 * MIB, "{} KiB more", growth / 1024);
    ends_well(process);
}

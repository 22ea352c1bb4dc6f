//! One who reads too slowly hurts nobody, seen from outside of the server's process: what it costs in
//! memory, that its socket is really gone, that the others miss nothing, and that it may come back.

#![allow(clippy::print_stdout, reason = "the figures, shown with --nocapture")]

mod common;

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    log_line::Format,
    member::Member,
    neighbour::{LetGo, ended, ends_well, request, server, until_alive},
    process::Process,
    procfs::{self, MIB},
    *,
};
use serde::Deserialize;
use serde_json::json;

/// What matters of a long message.
#[derive(Deserialize)]
struct Head {
    cseq: u64,
    event: Option<String>,
}

fn head(text: &str) -> Head {
    serde_json::from_str(text).unwrap()
}

/// How somebody reads too slowly.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Slow {
    Stops,
    Trickles,
}

/// Reads like that until the connection is cut. Its own end it does not close before.
fn read_slowly(client: &mut Client, how: Slow, goes_on: &AtomicBool) {
    let mut few = [0; 100];
    while goes_on.load(Ordering::Relaxed) {
        let cut = match how {
            // A reset shows without a read.
            Slow::Stops => client.stream.take_error().unwrap().is_some(),
            Slow::Trickles => !matches!(client.stream.read(&mut few), Ok(1..)),
        };
        if cut {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn who_reads_too_slowly_is_put_out_its_socket_goes_and_it_may_come_back() {
    for how in [Slow::Stops, Slow::Trickles] {
        let process = server(&[
            ("SESSION__SEND_TIMEOUT", "1s"),
            ("SESSION__SEND_QUEUE", "64"),
            ("ROOMS__RESUME_WINDOW", "60s"),
            ("ROOMS__RESUME_EVENTS", "100000"),
            ("ROOMS__RESUME_BYTES", "1000000000"),
        ]);
        let mut slow = Member::join(process.addr, "room", "slow");
        let client = slow.take_client();
        drop(client);
        slow.resume_over(Client::connect_narrow(process.addr));
        let mut sender = Member::join(process.addr, "room", "sender");
        let mut client = slow.take_client();
        let goes_on = AtomicBool::new(true);
        thread::scope(|scope| {
            let let_go = LetGo(&goes_on);
            scope.spawn(|| read_slowly(&mut client, how, &goes_on));
            let pad = "x".repeat(30_000);
            let begun = Instant::now();
            let mut said = 0;
            while ended(&process, "4002", "slow_consumer") == 0.0 {
                sender.ok("broadcast", json!({"text": said.to_string(), "pad": pad}));
                said += 1;
                assert!(begun.elapsed() < PATIENCE, "{how:?}: it is never put out");
            }
            // Only the sender's is left, though the slow one has not closed its own.
            let gone = |sockets: &usize| *sockets == 1;
            let sockets = || procfs::connections(process.addr);
            procfs::when(sockets, gone, "sockets");
            until_alive(&process, "connection", 1);
            drop(let_go);
            // Nobody was told, and it has lost nothing.
            assert_eq!(sender.names(), ["slow", "sender"]);
            assert_eq!(sender.story(), [""; 0], "{how:?}");
            slow.resume();
            slow.names();
            let due = (0..said).map(|n| format!("broadcast sender {n}"));
            let due: Vec<String> = ["join sender".to_owned()].into_iter().chain(due).collect();
            assert_eq!(slow.story(), due, "{how:?}");
        });
        drop((slow, sender));
        ends_well(process);
    }
}

#[test]
fn what_waits_for_one_reader_is_bounded_in_messages_and_in_bytes() {
    let mut process = Process::start(
        Format::Text,
        "info",
        &[
            ("SESSION__RATE_LIMIT", "0"),
            ("SESSION__SEND_QUEUE", "50"),
            ("SESSION__SEND_QUEUE_BYTES", "300000"),
            ("ROOMS__RESUME_WINDOW", "0s"),
        ],
    );
    // The first bound is reached with small messages, the second with large ones; there one more
    // waits, of which the socket has taken a part.
    for (size, longest) in [(10, 50..=50), (30_000, 9..=10)] {
        let mut stuck = Client::connect_narrow(process.addr);
        stuck.join("room", "stuck");
        let mut sender = process.join("room", "sender");
        let pad = "x".repeat(size);
        loop {
            sender.ask("broadcast", json!({"pad": pad}));
            if sender.next().get("event").is_some() {
                break;
            }
        }
        let gone = process.line("leave");
        assert_eq!(&gone["why"], "slow_consumer");
        let queue = gone.count("longest_queue");
        assert!(longest.contains(&queue), "{queue} messages of {size} bytes");
        drop(sender);
        process.line("room closed");
    }
    ends_well(process);
}

#[test]
fn who_reads_slowly_and_keeps_up_is_not_put_out() {
    const BROADCASTS: usize = 600;
    let process = server(&[
        ("SESSION__SEND_QUEUE", "20"),
        ("SESSION__SEND_QUEUE_BYTES", "200000"),
    ]);
    let mut slow = Client::connect_narrow(process.addr);
    slow.join("room", "slow");
    let mut sender = process.join("room", "sender");
    slow.event("endpoint");
    let read = AtomicUsize::new(0);
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            for n in 0..BROADCASTS {
                assert_eq!(slow.event("broadcast")["payload"]["n"], n);
                read.store(n + 1, Ordering::Relaxed);
                if n % 10 == 0 {
                    // Long enough for its socket to fill.
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
        // In all many times what may wait; at any time less.
        let pad = "x".repeat(9_000);
        for n in 0..BROADCASTS {
            while n >= read.load(Ordering::Relaxed) + 15 && !slow.is_finished() {
                thread::yield_now();
            }
            sender.ok("broadcast", json!({"n": n, "pad": pad}));
        }
        slow.join().expect("the slow one has had them all");
    });
    assert_eq!(ended(&process, "4002", "slow_consumer"), 0.0);
    drop((slow, sender));
    ends_well(process);
}

/// Is in the room, reads too slowly, and comes back as often as it is put out.
fn be_slow(addr: SocketAddr, endpoint: &str, how: Slow, goes_on: &AtomicBool) {
    let mut session = String::new();
    while goes_on.load(Ordering::Relaxed) {
        let mut client = match how {
            Slow::Stops => Client::connect(addr),
            Slow::Trickles => Client::connect_narrow(addr),
        };
        client.session.clone_from(&session);
        let data = json!({"app": "test", "channel": "room", "endpoint": endpoint});
        let cseq = client.ask("channel.join", data);
        let answer = client.answer(cseq);
        assert_eq!(answer["err"], 0, "{answer}");
        session = answer["data"]["session"].as_str().unwrap().to_owned();
        read_slowly(&mut client, how, goes_on);
    }
}

#[test]
fn two_hundred_megabytes_at_ten_who_read_too_slowly_cost_little_memory_and_nobody_anything() {
    const BROADCASTS: usize = 3_400;
    /// By how much the sender is ahead of one who reads as fast as a test can.
    const AHEAD: usize = 8;
    let process = server(&[("SESSION__SEND_TIMEOUT", "1s")]);
    let mut sender = process.join("room", "sender");
    let mut watcher = process.connect();
    watcher.join_with(json!({
        "app": "test", "channel": "room", "endpoint": "watcher", "last_event": 0,
    }));
    let quiet = procfs::resident(&process);
    let message = request(&sender, "broadcast", json!({"pad": "x".repeat(60_000)}));
    assert!(BROADCASTS * message.len() > 200_000_000);
    let (goes_on, seen) = (AtomicBool::new(true), AtomicUsize::new(0));
    thread::scope(|scope| {
        let let_go = LetGo(&goes_on);
        for n in 0..10 {
            let how = [Slow::Stops, Slow::Trickles][n % 2];
            let (addr, goes_on) = (process.addr, &goes_on);
            scope.spawn(move || be_slow(addr, &format!("slow {n}"), how, goes_on));
        }
        let seen = &seen;
        let watcher = scope.spawn(move || {
            let mut last = 2;
            while seen.load(Ordering::Relaxed) < BROADCASTS {
                let event = head(&watcher.next_text());
                assert_eq!(event.cseq, last + 1, "none is left out");
                last = event.cseq;
                let is_broadcast = event.event.as_deref() == Some("broadcast");
                seen.fetch_add(usize::from(is_broadcast), Ordering::Relaxed);
            }
        });
        for said in 0..BROADCASTS {
            while said >= seen.load(Ordering::Relaxed) + AHEAD && !watcher.is_finished() {
                thread::yield_now();
            }
            sender.write(&message);
            while head(&sender.next_text()).event.is_some() {}
        }
        let watched = watcher.join();
        drop(let_go);
        watched.expect("the watcher has had them all");
    });
    let cost = procfs::peak_resident(&process).saturating_sub(quiet);
    println!("200 MB at ten slow readers: {} KiB at most", cost / 1024);
    assert!(cost < 40 * MIB, "{} KiB", cost / 1024);
    assert!(ended(&process, "4002", "slow_consumer") >= 10.0);
    ends_well(process);
}

#[test]
fn who_asks_for_dumps_of_a_room_of_a_thousand_and_reads_none_is_put_out_and_costs_little() {
    let process = server(&[
        ("SESSION__SEND_TIMEOUT", "1s"),
        ("ROOMS__RESUME_WINDOW", "10m"),
    ]);
    // Lost members are members: each is in the dump, and needs nobody who reads for it.
    for n in 0..997 {
        process
            .join("room", &format!("{n}-{}", "x".repeat(100)))
            .reset();
    }
    let mut sender = process.join("room", "sender");
    until_alive(&process, "connection", 1);
    let quiet = procfs::resident(&process);
    let greedy: Vec<Client> = (0..2)
        .map(|n| {
            let greedy = process.join("room", &format!("greedy {n}"));
            sender.event("endpoint");
            greedy
        })
        .collect();
    assert_eq!(sender.dump().len(), 1_000);
    let are_waited_for = AtomicBool::new(true);
    thread::scope(|scope| {
        let _let_go = LetGo(&are_waited_for);
        for mut greedy in greedy {
            let are_waited_for = &are_waited_for;
            scope.spawn(move || {
                let dump = request(&greedy, "channel.dump", json!({}));
                while greedy.stream.write_all(&dump).is_ok() {}
                // It keeps its own end.
                while are_waited_for.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        // Each dump is another one than the one before.
        let begun = Instant::now();
        while ended(&process, "4002", "slow_consumer") < 2.0 {
            for n in 0..10 {
                let id = n.to_string();
                sender.publish(&id);
                sender.ok("stream.delete", json!({"stream_id": id}));
            }
            assert!(begun.elapsed() < PATIENCE, "they are never put out");
        }
        procfs::when(
            || procfs::connections(process.addr),
            |sockets| *sockets == 1,
            "sockets",
        );
    });
    assert_eq!(sender.dump().len(), 1_000, "and may come back");
    let cost = procfs::peak_resident(&process).saturating_sub(quiet);
    println!("dumps that nobody reads: {} KiB at most", cost / 1024);
    assert!(cost < 16 * MIB, "{} KiB", cost / 1024);
    drop(sender);
    ends_well(process);
}

/// Bytes that the kernel holds unsent or unacknowledged for the one client of `addr`.
fn unsent(addr: SocketAddr) -> usize {
    let port = format!(":{:04X}", addr.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut queues = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (send_queue, _) = fields[4].split_once(':')?;
        (fields[1].ends_with(&port) && fields[3] == "01")
            .then(|| usize::from_str_radix(send_queue, 16).unwrap())
    });
    queues.by_ref().max().unwrap_or(0)
}

#[test]
fn the_kernel_holds_no_more_than_the_send_buffer_for_a_client() {
    for (setting, bounds) in [
        // The kernel doubles the setting, and one write may go beyond that.
        ("131072", 64 * 1024..=352 * 1024),
        ("32768", 16 * 1024..=160 * 1024),
        ("0", 512 * 1024..=usize::MAX),
    ] {
        let process = server(&[
            ("SESSION__SOCKET_SEND_BUFFER", setting),
            ("SESSION__SEND_QUEUE", "1000"),
            ("SESSION__SEND_QUEUE_BYTES", "1000000"),
            ("ROOMS__RESUME_WINDOW", "0"),
        ]);
        let mut stuck = process.connect();
        stuck.join("room", "stuck");
        let mut sender = process.join("room", "sender");
        let pad = "x".repeat(30_000);
        let mut most = 0;
        while ended(&process, "4002", "slow_consumer") == 0.0 {
            sender.ask("broadcast", json!({"pad": pad}));
            sender.next();
            most = most.max(unsent(process.addr));
        }
        println!("socket_send_buffer = {setting}: {most} bytes at most");
        assert!(bounds.contains(&most), "{setting}: {most}");
        drop((stuck, sender));
        ends_well(process);
    }
}

//! One who does not read hurts nobody: what waits for it is bounded, and its socket really goes.

mod common;

use std::{
    io::Read,
    time::{Duration, Instant},
};

use common::{openmetrics::Figures, *};
use serde_json::{Value, json};

/// Limits that are soon reached.
fn server(change: impl FnOnce(&mut meeting_server::settings::Session)) -> Server {
    Server::with(|settings| {
        settings.server.workers = 1;
        // A loss shows at once.
        settings.rooms.resume_window = Duration::ZERO;
        settings.session.send_queue = 64;
        settings.session.send_queue_bytes = 256 * 1024;
        settings.session.send_timeout = Duration::from_millis(500);
        // Nobody is looked at because something else is due.
        settings.session.join_timeout = Duration::from_secs(3600);
        settings.session.ping_interval = Duration::from_secs(3600);
        settings.session.idle_timeout = Duration::from_secs(7200);
        change(&mut settings.session);
    })
}

fn payload() -> Value {
    json!({"pad": "x".repeat(30_000)})
}

/// Broadcasts until `watcher` sees somebody leave; how many it took.
fn broadcast_until_somebody_leaves(sender: &mut Client, watcher: &mut Client) -> usize {
    let begun = Instant::now();
    for sent in 1.. {
        let cseq = sender.ask("broadcast", payload());
        // The sender sees somebody leave too.
        while sender.next()["cseq"] != cseq {}
        let event = watcher.next();
        match event["event"].as_str() {
            Some("broadcast") => {}
            Some("endpoint") if event["data"]["stat"] == "leave" => return sent,
            other => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "nobody is ever put out");
    }
    unreachable!("a test does not count that far");
}

/// Who is in the room, whatever comes before the answer.
fn names(client: &mut Client) -> Vec<String> {
    let cseq = client.ask("channel.dump", json!({}));
    loop {
        let message = client.next();
        if message["cseq"] == cseq {
            let rows = message["data"]["endpoint_list"].as_array().unwrap();
            let name = |row: &Value| row["endpoint"].as_str().unwrap().to_owned();
            return rows.iter().map(name).collect();
        }
    }
}

#[test]
fn a_reader_that_stops_is_put_out_and_its_socket_is_cut() {
    let server = server(|_| {});
    let mut stuck = server.join("c", "stuck");
    let mut watcher = server.join("c", "watcher");
    let mut sender = server.join("c", "sender");
    watcher.event("endpoint");
    let sent = broadcast_until_somebody_leaves(&mut sender, &mut watcher);
    // What the two sockets buffer, and the queue; not without end.
    assert!(
        sent < 1_000,
        "{sent} broadcasts of 30 KB waited for one reader"
    );
    assert_eq!(names(&mut sender), ["watcher", "sender"]);

    // Nobody reads, so the socket is cut: it ends, whatever had got into its buffers.
    let mut rest = Vec::new();
    let ended = stuck.stream.read_to_end(&mut rest);
    assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
}

#[test]
fn a_reader_that_is_put_out_and_then_reads_is_told_why() {
    let server = server(|session| session.send_timeout = PATIENCE);
    let mut slow = server.join("c", "slow");
    let mut watcher = server.join("c", "watcher");
    let mut sender = server.join("c", "sender");
    watcher.event("endpoint");
    broadcast_until_somebody_leaves(&mut sender, &mut watcher);
    loop {
        let message = slow.next();
        match message["event"].as_str() {
            Some("broadcast" | "endpoint") => {}
            _ => {
                assert_eq!(message["data"]["type"], "slow_consumer", "{message}");
                break;
            }
        }
    }
    assert_eq!(slow.closed(), 4002);
}

#[test]
fn a_reader_that_keeps_up_with_bursts_is_not_put_out() {
    let server = server(|session| session.send_queue = 4);
    let mut reader = server.join("c", "reader");
    let mut sender = server.join("c", "sender");
    reader.event("endpoint");
    let asked: Vec<i64> = (0..500)
        .map(|n| sender.ask("broadcast", json!({"n": n})))
        .collect();
    for n in 0..500 {
        assert_eq!(reader.event("broadcast")["payload"]["n"], n);
    }
    for cseq in asked {
        assert_eq!(sender.answer(cseq)["err"], 0);
    }
}

const EXPIRING: usize = 60;

/// A room whose members publish, are all reset at once, and expire while `slow` reads nothing. The
/// events of that have all been sent when this returns.
fn mass_expiry(send_queue_bytes: usize) -> (Server, Client) {
    let server = Server::with(|settings| {
        settings.server.workers = 1;
        // Longer than the whole test takes after the expiry: the evicted reader is not to expire.
        settings.rooms.resume_window = Duration::from_secs(3);
        settings.session.send_queue = 16;
        settings.session.send_queue_bytes = send_queue_bytes;
        settings.session.send_timeout = PATIENCE;
        settings.session.socket_send_buffer = 4608;
    });
    let publishers: Vec<Client> = (0..EXPIRING)
        .map(|n| {
            let mut client = server.connect();
            client.join("c", &format!("{}-{n}", "x".repeat(100)));
            client.publish(&format!("{}-{n}", "s".repeat(100)));
            client
        })
        .collect();
    let mut slow = Client::connect_narrow(server.addr);
    slow.join("c", "slow");
    let mut watcher = server.join("c", "watcher");
    slow.event("endpoint");
    for publisher in publishers {
        publisher.reset();
    }
    for _ in 0..EXPIRING {
        assert_eq!(watcher.event("stream")["stat"], "unpublish");
        assert_eq!(watcher.event("endpoint")["stat"], "leave");
    }
    (server, slow)
}

#[test]
fn a_mass_expiry_does_not_count_towards_the_send_queue() {
    let (server, mut slow) = mass_expiry(1 << 20);
    for _ in 0..EXPIRING {
        assert_eq!(slow.event("stream")["stat"], "unpublish");
        assert_eq!(slow.event("endpoint")["stat"], "leave");
    }
    assert_eq!(slow.names(), ["slow", "watcher"]);
    drop(server);
}

#[test]
fn a_mass_expiry_counts_towards_the_bytes_of_the_send_queue() {
    let (server, mut slow) = mass_expiry(8 * 1024);
    loop {
        let message = slow.next();
        if message["event"] == "error" {
            assert_eq!(message["data"]["type"], "slow_consumer", "{message}");
            break;
        }
    }
    assert_eq!(slow.closed(), 4002);
    drop(server);
}

#[test]
fn a_client_that_asks_for_dumps_and_never_reads_them_is_put_out() {
    let server = server(|_| {});
    let mut members: Vec<Client> = (0..50)
        .map(|n| {
            let mut member = server.connect();
            let endpoint = format!("{n}-{}", "x".repeat(100));
            member.join("c", &endpoint);
            member
        })
        .collect();
    let mut watcher = server.join("c", "watcher");
    let mut greedy = members.remove(0);
    std::thread::spawn(move || {
        // Until it is cut; what it is told it does not read.
        let request = json!({"method": "channel.dump", "session": greedy.session, "cseq": 1});
        let bytes = frame(true, 1, request.to_string().as_bytes());
        while std::io::Write::write_all(&mut greedy.stream, &bytes).is_ok() {}
    });
    assert_eq!(watcher.event("endpoint")["stat"], "leave");
}

#[test]
fn send_timeout_cuts_a_socket_that_takes_nothing_though_its_queue_is_short() {
    let server = server(|session| {
        session.send_queue = 100_000;
        session.send_queue_bytes = 1 << 30;
    });
    let _stuck = server.join("c", "stuck");
    let mut watcher = server.join("c", "watcher");
    let mut sender = server.join("c", "sender");
    watcher.event("endpoint");
    broadcast_until_somebody_leaves(&mut sender, &mut watcher);
    assert_eq!(names(&mut sender), ["watcher", "sender"]);
}

#[test]
fn a_client_that_never_answers_a_close_frame_is_cut() {
    let server = server(|_| {});
    let mut rude = server.join("c", "rude");
    rude.frame(true, 2, b"binary");
    assert_eq!(rude.closed(), 1003);
    // Its side stays open. The server waits a moment for it, and then no longer: what is
    // written now is answered with a reset.
    let begun = Instant::now();
    while std::io::Write::write_all(&mut rude.stream, &frame(true, 9, b"")).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "the socket is never cut");
        std::thread::yield_now();
    }
}

#[test]
fn a_dump_longer_than_all_that_may_wait_reaches_its_reader() {
    let server = server(|session| session.send_queue_bytes = 10_000);
    let members: Vec<Client> = (0..200)
        .map(|n| {
            let mut member = server.connect();
            member.join("c", &format!("{n}-{}", "x".repeat(100)));
            member
        })
        .collect();
    let mut reader = server.join("c", "reader");
    assert_eq!(reader.names().len(), members.len() + 1);
}

#[test]
fn a_client_that_has_just_moved_to_another_thread_is_not_taken_for_a_slow_reader() {
    let server = Server::with(|settings| {
        settings.server.workers = 4;
        settings.session.send_queue = 4;
    });
    // Three of four channels are on another thread than the one that has accepted.
    for channel in 0..24 {
        let mut client = server.connect();
        let join = json!({
            "cseq": 0,
            "method": "channel.join",
            "data": {"app": "test", "channel": channel.to_string(), "endpoint": "a"},
        });
        let mut bytes = frame(true, 1, join.to_string().as_bytes());
        for cseq in 1..=100 {
            let request = json!({"cseq": cseq, "method": "nonsense"});
            bytes.extend(frame(true, 1, request.to_string().as_bytes()));
        }
        client.write(&bytes);
        assert_eq!(client.answer(0)["err"], 0);
        for cseq in 1..=100 {
            assert_eq!(client.answer(cseq)["err"], 404);
        }
    }
}

/// It reads, if only so much at a time, and says a word now and then.
#[test]
fn a_reader_that_is_slow_and_steady_is_never_cut_by_send_timeout() {
    let server = server(|session| {
        session.send_queue = 1_000;
        session.send_queue_bytes = 16 << 20;
        // Much shorter than a system takes to call such a reader's socket writable again.
        session.send_timeout = Duration::from_millis(400);
    });
    let mut slow = server.join("c", "slow");
    let mut sender = server.join("c", "sender");
    slow.event("endpoint");
    // It reads from the first broadcast on.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..150 {
                sender.ok("broadcast", payload());
            }
            sender.ok("broadcast", json!({"last": true}));
        });
        let mut tail = Vec::new();
        let mut chunk = [0; 16 * 1024];
        let is_last = |tail: &[u8]| tail.windows(11).any(|part| part == b"\"last\":true");
        while !is_last(&tail) {
            std::thread::sleep(Duration::from_millis(15));
            slow.frame(true, 10, b"here");
            let read = slow.stream.read(&mut chunk).expect("it is not cut");
            assert_ne!(read, 0, "it is not cut");
            tail.drain(..tail.len().saturating_sub(16));
            tail.extend_from_slice(&chunk[..read]);
        }
    });
    assert_eq!(names(&mut sender), ["slow", "sender"]);
}

/// Told nothing, it would come back as if its connection had been lost, and take the endpoint's
/// place from the one that took its.
#[test]
fn a_reader_whose_network_stands_still_for_seconds_reads_why_it_was_closed() {
    let server = Server::start();
    let mut old = Client::connect_narrow(server.addr);
    old.join("c", "anna");
    let mut sender = server.join("c", "sender");
    old.event("endpoint");
    sender.ok("broadcast", payload());
    sender.ok("broadcast", payload());
    let _new = server.join("c", "anna");
    // What is tested is what this stillness does not do.
    std::thread::sleep(Duration::from_secs(3));
    old.event("broadcast");
    old.event("broadcast");
    assert_eq!(old.error_event(), "endpoint_replaced");
    assert_eq!(old.closed(), 4001);
}

#[test]
fn events_that_wait_for_somebody_are_counted_and_none_is_left() {
    let server = server(|session| session.send_timeout = PATIENCE);
    let events = |f: &Figures| f.get("meeting_server_objects{kind=\"event\"}");
    let mut stuck = Client::connect_narrow(server.addr);
    stuck.join("c", "stuck");
    let mut sender = server.join("c", "sender");
    let begun = Instant::now();
    while events(&Figures::scrape(server.ops)) == Some(0.0) {
        sender.ok("broadcast", payload());
        assert!(begun.elapsed() < PATIENCE, "none ever waits");
    }
    stuck.reset();
    Figures::when(server.ops, |f| events(f) == Some(0.0));
}

//! The end of a server: what its clients are told, in which order, and when it is over.

mod common;

use std::{
    collections::BTreeSet,
    sync::{Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

use common::{http::*, log_line::Format, process::Process, *};
use serde_json::{Value, json};

/// So long that no test waits for it to pass: whoever does fails.
const LONG: Duration = Duration::from_secs(120);

/// A server that takes `drain_timeout` to say goodbye, room by room on one thread.
fn server(drain_timeout: Duration) -> Server {
    Server::with(|settings| {
        settings.server.drain_timeout = drain_timeout;
        settings.server.workers = 1;
    })
}

/// The goodbye, which must come next: the time after which to come back.
fn told(client: &mut Client) -> u64 {
    let message = client.next();
    assert_eq!(message["event"], "error", "{message}");
    assert_eq!(message["session"], client.session.as_str(), "{message}");
    let data = &message["data"];
    assert_eq!(data["type"], "server_shutdown", "{message}");
    assert!(!data["message"].as_str().unwrap().is_empty());
    data["retry_after_ms"].as_u64().expect("a number")
}

/// The goodbye and the close frame, and then the end of the stream.
fn dismissed(client: &mut Client) -> u64 {
    let retry_after = told(client);
    assert_eq!(client.closed(), 1001);
    retry_after
}

#[test]
fn everybody_is_told_when_to_come_back_and_closed_with_1001() {
    let mut server = Server::with(|settings| settings.server.drain_timeout = LONG);
    let mut clients: Vec<Client> = (0..40)
        .map(|n| server.join("c", &format!("e{n}")))
        .collect();
    // No event is on its way any more.
    for (n, client) in clients.iter_mut().enumerate() {
        for _ in n + 1..40 {
            client.event("endpoint");
        }
    }
    // Who has not joined is told as well.
    clients.extend((0..10).map(|_| server.connect()));
    server.begin_stop();
    let times: Vec<u64> = clients.iter_mut().map(dismissed).collect();
    assert!(times.iter().all(|ms| *ms <= 5_000), "{times:?}");
    let different: BTreeSet<&u64> = times.iter().collect();
    assert!(different.len() > 25, "they come back together: {times:?}");
    let (early, late) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(late - early > 2_500, "over the whole time: {times:?}");
    drop(clients);
    server.stop();
}

#[test]
fn members_of_a_room_see_nobody_leave() {
    let mut server = server(LONG);
    let mut clients: Vec<Client> = (0..20)
        .map(|n| server.join("c", &format!("e{n}")))
        .collect();
    for (n, client) in clients.iter_mut().enumerate() {
        for _ in n + 1..20 {
            client.event("endpoint");
        }
    }
    for n in 0..20 {
        clients[n].publish(&format!("s{n}"));
        for (_, other) in clients.iter_mut().enumerate().filter(|(m, _)| *m != n) {
            other.event("stream");
        }
    }
    server.begin_stop();
    for client in &mut clients {
        dismissed(client);
    }
    drop(clients);
    server.stop();
}

#[test]
fn who_comes_just_before_the_end_is_not_seen_to_leave_either() {
    for _ in 0..5 {
        let mut server = server(Duration::from_secs(2));
        let mut first = server.join("first", "a");
        let mut witness = server.join("second", "witness");
        let mut comers: Vec<Client> = (0..400).map(|_| server.connect()).collect();
        for (n, comer) in comers.iter_mut().enumerate() {
            if n == 50 {
                server.begin_stop();
            }
            let endpoint = format!("e{n}");
            let join = json!({"app": "test", "channel": "second", "endpoint": endpoint});
            comer.ask("channel.join", join);
        }
        dismissed(&mut first);
        let stays = loop {
            let message = witness.next();
            match message["event"].as_str() {
                Some("error") => break message,
                _ => assert_eq!(message["data"]["stat"], "join", "{message}"),
            }
        };
        assert_eq!(stays["data"]["type"], "server_shutdown");
        assert_eq!(witness.closed(), 1001);
        drop((first, witness, comers));
        server.stop();
    }
}

#[test]
fn while_it_goes_down_nobody_is_told_who_leaves() {
    let mut server = server(LONG);
    let mut first = server.join("first", "a");
    let mut anna = server.join("second", "anna");
    let mut ben = server.join("second", "ben");
    anna.event("endpoint");
    server.begin_stop();
    // The second room's turn is a long time off, and it goes on until then.
    dismissed(&mut first);
    ben.ok("channel.leave", json!({}));
    assert_eq!(anna.names(), ["anna"], "no event comes before the answer");
    drop(anna);
    drop(ben);
    server.stop();
}

#[test]
fn while_it_goes_down_joins_and_upgrades_get_503_and_healthz_says_so() {
    let mut server = server(LONG);
    for path in ["/healthz", "/readyz"] {
        let page = get(server.addr, path);
        assert_eq!((page.status, page.body.as_str()), (200, "ok"), "{path}");
    }
    let mut first = server.join("first", "a");
    let mut second = server.join("second", "b");
    let mut third = server.join("third", "c");
    let begun = Instant::now();
    server.begin_stop();
    // The second room's turn is a long time off.
    dismissed(&mut first);
    for path in ["/healthz", "/readyz"] {
        let page = get(server.addr, path);
        assert_eq!(
            (page.status, page.body.as_str()),
            (503, "draining"),
            "{path}"
        );
    }
    assert_eq!(upgrade_status(server.addr, ""), 503);
    let join = json!({"app": "test", "channel": "first", "endpoint": "b"});
    assert_eq!(second.call("channel.join", join.clone())["err"], 409);
    second.ok("channel.leave", json!({}));
    second.session.clear();
    let refused = second.call("channel.join", join);
    assert_eq!(refused["err"], 503, "{refused}");
    assert_eq!(refused["data"], json!({}));
    // Meanwhile the others go on.
    assert_eq!(third.names(), ["c"]);
    for client in [&mut second, &mut third] {
        client.close(1000);
        assert_eq!(client.closed(), 1000);
    }
    drop((first, second, third));
    server.stop();
    assert!(begun.elapsed() < LONG / 6, "nobody was there any more");
}

#[test]
fn rooms_say_goodbye_one_after_another_over_the_first_half_and_a_room_together() {
    let mut server = server(Duration::from_secs(8));
    let mut rooms: Vec<Vec<Client>> = (0..4)
        .map(|room| {
            let channel = format!("r{room}");
            let mut members: Vec<Client> = (0..5)
                .map(|n| server.join(&channel, &format!("e{n}")))
                .collect();
            for (n, member) in members.iter_mut().enumerate() {
                for _ in n + 1..5 {
                    member.event("endpoint");
                }
            }
            members
        })
        .collect();
    let begun = Instant::now();
    server.begin_stop();
    for (n, room) in (0..).zip(&mut rooms) {
        for member in room {
            dismissed(member);
            let after = begun.elapsed();
            let (from, to) = (Duration::from_secs(n), Duration::from_secs(n + 1));
            assert!(after >= from, "room {n} {after:?} after the stop");
            assert!(after < to, "room {n} {after:?} after the stop");
        }
    }
    drop(rooms);
    server.stop();
}

#[test]
fn rooms_of_many_threads_take_turns_too() {
    let mut server = Server::with(|settings| {
        settings.server.drain_timeout = Duration::from_secs(8);
        settings.server.workers = 4;
    });
    let clients: Vec<Client> = (0..8).map(|n| server.join(&format!("r{n}"), "a")).collect();
    let begun = Instant::now();
    server.begin_stop();
    let waiting: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                dismissed(&mut client);
                begun.elapsed()
            })
        })
        .collect();
    let mut times: Vec<Duration> = waiting.into_iter().map(|t| t.join().unwrap()).collect();
    times.sort_unstable();
    // Eight rooms in four seconds.
    for (n, time) in (0..).zip(times) {
        assert!(
            time >= Duration::from_millis(500) * n,
            "room {n} after {time:?}"
        );
    }
    server.stop();
}

#[test]
fn who_reads_nothing_holds_the_end_up_for_drain_timeout_at_most() {
    let drain_timeout = Duration::from_secs(1);
    let mut server = Server::with(|settings| {
        settings.server.drain_timeout = drain_timeout;
        settings.session.send_queue = 10_000;
        settings.session.send_queue_bytes = 1 << 30;
        settings.session.send_timeout = LONG;
        settings.session.idle_timeout = LONG;
    });
    let stuck = server.join("c", "stuck");
    let mut sender = server.join("c", "sender");
    let payload = json!({"text": "x".repeat(60_000)});
    for _ in 0..300 {
        sender.ok("broadcast", payload.clone());
    }
    let begun = Instant::now();
    server.begin_stop();
    dismissed(&mut sender);
    drop(sender);
    server.stop();
    let took = begun.elapsed();
    assert!(took >= drain_timeout, "it was given its time: {took:?}");
    assert!(took < LONG / 6, "and no more: {took:?}");
    drop(stuck);
}

#[test]
fn the_server_ends_as_soon_as_nobody_is_there() {
    let mut server = server(LONG);
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < LONG / 6, "nobody was there");

    let mut server = self::server(LONG);
    let mut anna = server.join("c", "anna");
    server.begin_stop();
    dismissed(&mut anna);
    // It keeps its socket all the same: it is not waited for for ever.
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < LONG / 6, "she has been told");
    drop(anna);
}

/// Leaves and joins a fresh room, whose thread may be another, again and again, until it is sent
/// away. The number of the joins that were granted.
fn wander(client: &mut Client, name: &str, begins: impl FnOnce()) -> u32 {
    let mut joined = 0;
    let fresh = |n: u32| json!({"app": "test", "channel": format!("{name}-{n}"), "endpoint": name});
    client.join_with(fresh(0));
    begins();
    let request = |cseq: i64, method: &str, session: &str, data: Value| {
        let text = json!({"cseq": cseq, "method": method, "session": session, "data": data});
        frame(true, 1, text.to_string().as_bytes())
    };
    for cseq in (1000..).step_by(2) {
        // In one write: the join is there before the leave is done.
        let leave = request(cseq, "channel.leave", &client.session, json!({}));
        let join = request(cseq + 1, "channel.join", "", fresh(joined + 1));
        let bytes = [leave, join].concat();
        std::io::Write::write_all(&mut client.stream, &bytes).expect("the server still reads");
        for asked in [cseq, cseq + 1] {
            let message = client.next();
            if message["event"] == "error" {
                assert_eq!(message["data"]["type"], "server_shutdown", "{message}");
                assert_eq!(client.closed(), 1001);
                return joined;
            }
            assert_eq!(message["cseq"], asked, "{message}");
            match message["err"].as_u64() {
                Some(0) if asked > cseq => {
                    joined += 1;
                    client.session = message["data"]["session"].as_str().unwrap().to_owned();
                }
                Some(0) => client.session.clear(),
                Some(503) if asked > cseq => {
                    dismissed(client);
                    return joined;
                }
                _ => panic!("{message}"),
            }
        }
    }
    unreachable!("the numbers do not end")
}

#[test]
fn connections_that_move_while_the_stop_comes_are_met_by_it_too() {
    for round in 0..3 {
        let drain_timeout = Duration::from_secs(6);
        let mut server = Server::with(|settings| settings.server.drain_timeout = drain_timeout);
        let (on_the_way, others) = mpsc::channel();
        let wanderers: Vec<_> = (0..40)
            .map(|n| {
                let (addr, on_the_way) = (server.addr, on_the_way.clone());
                thread::spawn(move || {
                    let mut client = Client::connect(addr);
                    wander(&mut client, &format!("w{n}"), || {
                        on_the_way.send(()).unwrap()
                    })
                })
            })
            .collect();
        for _ in &wanderers {
            others.recv_timeout(PATIENCE).unwrap();
        }
        let begun = Instant::now();
        server.begin_stop();
        let joined: Vec<u32> = wanderers.into_iter().map(|w| w.join().unwrap()).collect();
        server.stop();
        let took = begun.elapsed();
        assert!(took < drain_timeout * 3 / 4, "round {round}: {took:?}");
        assert!(joined.iter().any(|n| *n > 0), "they did move: {joined:?}");
    }
}

#[test]
fn what_was_asked_and_done_is_answered_before_the_goodbye() {
    for _ in 0..10 {
        let mut server = server(LONG);
        let mut ben = server.join("c", "ben");
        let mut anna = server.join("c", "anna");
        ben.event("endpoint");
        let start = Barrier::new(2);
        let (seen, answered) = thread::scope(|scope| {
            let talk = scope.spawn(|| {
                let batch: Vec<u8> = (1..=50)
                    .flat_map(|cseq| {
                        let request = json!({"cseq": cseq, "method": "broadcast",
                            "session": anna.session, "data": {"n": cseq}});
                        frame(true, 1, request.to_string().as_bytes())
                    })
                    .collect();
                start.wait();
                anna.write(&batch);
                let mut answered = Vec::new();
                loop {
                    let message = anna.next();
                    if message["event"] == "error" {
                        assert_eq!(anna.closed(), 1001);
                        return answered;
                    }
                    assert_eq!(message["err"], 0, "{message}");
                    answered.push(message["cseq"].as_u64().unwrap());
                }
            });
            start.wait();
            server.begin_stop();
            let mut seen = Vec::new();
            loop {
                let message = ben.next();
                if message["event"] == "error" {
                    assert_eq!(ben.closed(), 1001);
                    break;
                }
                seen.push(message["data"]["payload"]["n"].as_u64().unwrap());
            }
            (seen, talk.join().unwrap())
        });
        let upto = |n: usize| (1..=n as u64).collect::<Vec<_>>();
        assert_eq!(answered, upto(answered.len()), "in order, none left out");
        assert_eq!(seen, upto(seen.len()), "in order, none left out");
        assert!(seen.len() <= answered.len(), "{seen:?} but {answered:?}");
        drop((anna, ben));
        server.stop();
    }
}

// ------------------------------------------------------------------------------------ the binary

/// The binary, which takes long to say goodbye.
fn process() -> Process {
    let settings = [("SERVER__DRAIN_TIMEOUT", "2m"), ("SERVER__WORKERS", "1")];
    Process::start(Format::Text, "info", &settings)
}

fn assert_no_errors(process: &mut Process) {
    let (status, lines) = process.ended();
    assert_eq!(status.code(), Some(0), "{:#?}", process.log);
    let bad = lines.iter().find(|line| line.level == "error");
    assert_eq!(bad, None);
}

#[test]
fn at_sigterm_and_at_sigint_everybody_is_sent_away_and_the_exit_code_is_0() {
    for signal in ["TERM", "INT"] {
        let mut process = process();
        let mut anna = process.join("c", "anna");
        process.signal(signal);
        dismissed(&mut anna);
        drop(anna);
        assert_no_errors(&mut process);
    }
}

#[test]
fn it_may_be_ended_from_the_moment_it_says_that_it_has_started() {
    for _ in 0..10 {
        let mut process = process();
        process.signal("TERM");
        assert_no_errors(&mut process);
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM")] {
        let mut process = process();
        let mut anna = process.join("first", "anna");
        let mut ben = process.join("second", "ben");
        process.signal(first);
        dismissed(&mut anna);
        process.line("going down");
        let begun = Instant::now();
        process.signal(second);
        // He is told, if there is time for it.
        while !matches!(ben.receive(), Received::End | Received::Reset) {}
        assert_no_errors(&mut process);
        assert!(begun.elapsed() < LONG / 6, "his turn had not come");
    }
}

#[test]
fn two_signals_that_come_at_once_end_it_at_once() {
    for _ in 0..6 {
        let mut process = process();
        let mut ben = process.join("c", "ben");
        process.signal("STOP");
        process.signal("TERM");
        process.signal("INT");
        process.signal("CONT");
        // He may or may not be told.
        while !matches!(ben.receive(), Received::End | Received::Reset) {}
        assert_no_errors(&mut process);
    }
}

//! A network change costs nobody anything, over real sockets: who loses the connection comes back
//! with its session, is told what it has missed, and the others see nothing of it.

mod common;

use std::{
    net::Shutdown,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use common::{
    member::{Member, short},
    openmetrics::Figures,
    *,
};
use serde_json::{Value, json};

/// Four threads, so that most connections are accepted on another one than their room's.
fn server() -> Server {
    server_with(|_| {})
}

fn server_with(change: impl FnOnce(&mut meeting_server::settings::Settings)) -> Server {
    Server::with(|settings| {
        settings.server.workers = 4;
        settings.server.ops_bind = Some("127.0.0.1:0".parse().unwrap());
        // No test that means to come back shall be too late, on whatever machine.
        settings.rooms.resume_window = Duration::from_secs(60);
        change(settings);
    })
}

/// Waits until the server has found out that so many members are lost.
fn until_lost(server: &Server, members: usize) {
    let lost = |f: &Figures| f["meeting_server_sessions_detached"] == members as f64;
    Figures::when(server.ops, lost);
}

fn join(channel: &str, endpoint: &str) -> Value {
    json!({"app": "test", "channel": channel, "endpoint": endpoint})
}

/// Joins with a session; the answer's `data`.
fn join_with_session(client: &mut Client, session: &str, data: Value) -> Value {
    client.session = session.to_owned();
    let data = client.ok("channel.join", data);
    client.session = data["session"].as_str().unwrap().to_owned();
    data
}

/// A room in which these are, in this order, all understanding numbers. Each has read that the
/// later ones came.
fn meeting<const N: usize>(server: &Server, channel: &str, endpoints: [&str; N]) -> [Member; N] {
    let mut members = endpoints.map(|endpoint| Member::join(server.addr, channel, endpoint));
    for (at, member) in members.iter_mut().enumerate() {
        for _ in at + 1..N {
            member.event();
        }
        member.log.clear();
    }
    members
}

// --------------------------------------------------------------------------- losing, coming back

/// All ways in which a connection can be lost.
type Way = (&'static str, fn(&mut Member));

const WAYS: [Way; 5] = [
    ("reset", Member::cut),
    ("end of stream", |member| drop(member.take_client())),
    ("half closed", |member| {
        let client = member.take_client();
        client.stream.shutdown(Shutdown::Write).unwrap();
        // Until the server has closed it.
        let mut client = client;
        while !matches!(client.receive(), Received::End | Received::Reset) {}
    }),
    ("within a frame", |member| {
        let mut client = member.take_client();
        let whole = frame(true, 1, &[b'x'; 100]);
        client.write(&whole[..50]);
        drop(client);
    }),
    ("given up", |member| {
        let mut client = member.take_client();
        client.close(4900);
        // Its close frame is echoed, behind whatever was to come.
        loop {
            match client.receive() {
                Received::Close(close) => break assert_eq!(close.unwrap().0, 4900),
                other => assert!(matches!(other, Received::Text(_)), "{other:?}"),
            }
        }
    }),
];

#[test]
fn however_a_connection_is_lost_the_member_comes_back_and_the_others_see_nothing() {
    let server = server();
    let [mut ben] = meeting(&server, "room", ["ben"]);
    for (what, lose) in WAYS {
        let mut anna = Member::join(server.addr, "room", "anna");
        anna.ok("stream.add", json!({"stream": stream("anna-1")}));
        lose(&mut anna);
        until_lost(&server, 1);
        ben.broadcast("while she is away");
        let data = anna.resume();
        assert_eq!(anna.event()["data"]["payload"]["text"], "while she is away");
        assert_eq!(data["last_event"], anna.last_event, "{what}");
        assert_eq!(anna.names(), ["ben", "anna"], "{what}");
        anna.broadcast("back");
        anna.ok("channel.leave", json!({}));
        ben.names();
        let seen = std::mem::take(&mut ben.log);
        let seen: Vec<String> = seen.iter().map(|(_, event)| short(event)).collect();
        let due = [
            "join anna",
            "publish anna anna-1",
            "broadcast anna back",
            "unpublish anna anna-1",
            "leave anna",
        ];
        assert_eq!(seen, due, "{what}");
    }
}

#[test]
fn a_silent_connection_is_found_out_and_its_member_comes_back() {
    let server = server_with(|settings| {
        settings.session.ping_interval = Duration::from_millis(200);
        settings.session.idle_timeout = Duration::from_secs(2);
    });
    let [mut anna, mut ben] = meeting(&server, "room", ["anna", "ben"]);
    // Anna's network is gone: she answers no ping. Ben goes on reading, and so answers his.
    let begun = Instant::now();
    let lost = |f: &Figures| f["meeting_server_sessions_detached"] == 1.0;
    while !lost(&Figures::scrape(server.ops)) {
        assert!(begun.elapsed() < PATIENCE, "she is never found out");
        // He reads, and so answers his pings.
        assert_eq!(ben.names(), ["anna", "ben"]);
    }
    ben.broadcast("are you there?");
    ben.broadcast("no");
    anna.resume();
    anna.names();
    assert_eq!(
        anna.story(),
        ["broadcast ben are you there?", "broadcast ben no"]
    );
    assert_eq!(ben.story(), [""; 0]);
}

#[test]
fn a_drop_before_the_first_event_loses_nothing() {
    let server = server();
    for numbered in [true, false] {
        let channel = format!("{numbered}");
        let mut ben = server.join(&channel, "ben");
        let mut anna = server.connect();
        let mut ask = join(&channel, "anna");
        if numbered {
            ask["last_event"] = json!(0);
        }
        anna.join_with(ask.clone());
        ben.event("endpoint");
        let session = anna.session.clone();
        anna.reset();
        until_lost(&server, 1);
        ben.ok("broadcast", json!({"n": 1}));
        let mut anna = server.connect();
        let data = join_with_session(&mut anna, &session, ask);
        assert_eq!(data["resumed"], true, "numbered: {numbered}");
        let event = anna.next();
        assert_eq!(event["data"]["payload"]["n"], 1);
        assert_eq!(event["cseq"], if numbered { 3 } else { 0 });
        assert_eq!(anna.names().len(), 2);
        anna.close(1000);
        ben.close(1000);
        until_lost(&server, 0);
    }
}

#[test]
fn without_numbers_a_member_goes_on_where_its_connection_stopped() {
    let server = server();
    let mut ben = server.join("room", "ben");
    let mut anna = server.join("room", "anna");
    ben.event("endpoint");
    let mut next = 0;
    for round in 0..20 {
        let session = anna.session.clone();
        for _ in 0..round % 3 {
            ben.ok("broadcast", json!({"n": next}));
            assert_eq!(anna.event("broadcast")["payload"]["n"], next);
            next += 1;
        }
        anna.reset();
        until_lost(&server, 1);
        let missed = round % 4;
        for n in next..next + missed {
            ben.ok("broadcast", json!({"n": n}));
        }
        anna = server.connect();
        let data = join_with_session(&mut anna, &session, join("room", "anna"));
        assert_eq!(data["resumed"], true);
        for n in next..next + missed {
            let event = anna.next();
            assert_eq!(event["cseq"], 0);
            assert_eq!(event["data"]["payload"]["n"], n);
        }
        next += missed;
        until_lost(&server, 0);
    }
}

#[test]
fn without_numbers_a_living_connection_that_is_taken_over_has_sent_what_it_has_sent() {
    let server = server();
    let mut ben = server.join("room", "ben");
    let mut old = server.join("room", "anna");
    ben.event("endpoint");
    for n in 0..10 {
        ben.ok("broadcast", json!({"n": n}));
        assert_eq!(old.event("broadcast")["payload"]["n"], n);
    }
    let mut new = server.connect();
    let data = join_with_session(&mut new, &old.session, join("room", "anna"));
    assert_eq!(data["resumed"], true);
    ben.ok("broadcast", json!({"n": 10}));
    assert_eq!(new.event("broadcast")["payload"]["n"], 10);
}

#[test]
fn without_numbers_what_comes_before_the_echo_of_a_given_up_connection_is_not_sent_again() {
    let server = server_with(|settings| settings.session.send_queue_bytes = 1 << 30);
    let mut ben = server.join("room", "ben");
    let mut old = Client::connect_narrow(server.addr);
    old.join("room", "anna");
    ben.event("endpoint");
    // More than the sockets hold, less than may wait for her.
    for n in 0..250 {
        ben.ok("broadcast", json!({"n": n, "pad": "x".repeat(30_000)}));
    }
    old.close(4900);
    until_lost(&server, 1);
    ben.ok("broadcast", json!({"n": 250}));
    for n in 0..250 {
        assert_eq!(old.event("broadcast")["payload"]["n"], n);
    }
    assert_eq!(old.closed(), 4900);
    let mut new = server.connect();
    join_with_session(&mut new, &old.session, join("room", "anna"));
    assert_eq!(new.event("broadcast")["payload"]["n"], 250);
}

#[test]
fn a_resume_wipes_neither_device_nor_role_nor_stream() {
    let server = server();
    let mut anna = Client::connect_to(server.addr, "/ws?device=phone");
    anna.join_with(
        json!({"app": "test", "channel": "room", "endpoint": "anna", "role": "recorder"}),
    );
    anna.publish("anna-1");
    let before = anna.dump();
    let session = anna.session.clone();
    anna.reset();
    until_lost(&server, 1);
    // From another device and for another role; both are the session's.
    let mut anna = Client::connect_to(server.addr, "/ws?device=laptop");
    let data = join_with_session(&mut anna, &session, join("room", "anna"));
    assert_eq!(data["resumed"], true);
    assert_eq!(anna.dump(), before);
    assert_eq!(before[0]["device"], "phone");
    assert_eq!(before[0]["role"], "recorder");
    assert_eq!(before[0]["stream"]["stream_id"], "anna-1");
}

#[test]
fn the_answer_to_a_resume_is_a_joins_with_the_last_cseq_besides() {
    let server = server();
    let mut anna = server.connect();
    let ask = |client: &mut Client, cseq: u64, method: &str, data: Value| {
        let session = client.session.clone();
        client.send(&json!({"cseq": cseq, "method": method, "session": session, "data": data}));
        client.next()
    };
    let joined = ask(&mut anna, 10, "channel.join", join("room", "anna"));
    let session = joined["data"]["session"].as_str().unwrap().to_owned();
    assert_eq!(joined["data"]["resumed"], false);
    assert_eq!(joined["data"].get("last_cseq"), None);
    let last_cseq = |cseq: u64| {
        until_lost(&server, 1);
        let mut anna = server.connect();
        anna.session.clone_from(&session);
        let answer = ask(&mut anna, cseq, "channel.join", join("room", "anna"));
        assert_eq!(answer["cseq"], cseq);
        assert_eq!(
            keys(&answer["data"]),
            [
                "endpoint",
                "last_cseq",
                "last_event",
                "media_server",
                "resumed",
                "session"
            ]
        );
        assert_eq!(
            answer["data"]["media_server"],
            joined["data"]["media_server"]
        );
        assert_eq!(answer["data"]["session"], session.as_str());
        (anna, answer["data"]["last_cseq"].clone())
    };
    anna.reset();
    let (mut anna, last) = last_cseq(20);
    assert_eq!(last, 10, "the join was the first");
    // What was granted counts, and what was refused for what it asked; not what was refused for
    // its version, its method, or its session.
    assert_eq!(ask(&mut anna, 21, "broadcast", json!({}))["err"], 0);
    assert_eq!(
        ask(&mut anna, 22, "stream.delete", json!({"stream_id": "x"}))["err"],
        404
    );
    assert_eq!(ask(&mut anna, 23, "stream.add", json!({}))["err"], 400);
    assert_eq!(ask(&mut anna, 24, "channel.fly", json!({}))["err"], 404);
    anna.session = "another".into();
    assert_eq!(ask(&mut anna, 25, "broadcast", json!({}))["err"], 410);
    anna.reset();
    let (mut anna, last) = last_cseq(30);
    assert_eq!(last, 23);
    anna.send(&json!({"version": 1, "cseq": 31, "method": "broadcast", "session": session}));
    assert_eq!(anna.next()["err"], 400);
    anna.reset();
    let (_, last) = last_cseq(40);
    assert_eq!(last, 23, "a resume is no request of the session");
}

// --------------------------------------------------------------------------- while much happens

/// Somebody who speaks in a room until it is dropped.
struct Speaker {
    stop: std::sync::Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Speaker {
    /// Says `{"text": "0"}`, `{"text": "1"}`, …, `at_once` before it waits for the answers, so
    /// that the room is never quiet.
    fn start(mut member: Member, at_once: u64) -> Self {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut n = 0;
            while !stopped.load(Ordering::Relaxed) {
                let asked: Vec<i64> = (n..n + at_once)
                    .map(|n| {
                        member
                            .client()
                            .ask("broadcast", json!({"text": n.to_string()}))
                    })
                    .collect();
                n += at_once;
                for cseq in asked {
                    while member.client().next()["cseq"] != cseq {}
                }
            }
            n
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// How often it has spoken.
    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_event_overtakes_the_answer_of_a_resume_while_a_room_talks_without_pause() {
    let server = server_with(|settings| {
        // A slow machine may take its time between a loss and a return.
        settings.rooms.resume_events = 1_000_000;
        settings.rooms.resume_bytes = 1 << 30;
        settings.session.send_queue = 1_000_000 - 1;
        settings.session.send_queue_bytes = 1 << 30;
    });
    let [mut anna, ben] = meeting(&server, "room", ["anna", "ben"]);
    let speaker = Speaker::start(ben, 50);
    for round in 0..40 {
        for _ in 0..round * 7 % 100 {
            anna.event();
        }
        match round % 3 {
            // Its end is found out first, or the new connection is there first, or both at once.
            0 => {
                anna.cut();
                until_lost(&server, 1);
            }
            1 => anna.cut(),
            _ => {}
        }
        // The first message must be the answer.
        let data = anna.resume();
        assert!(data["last_event"].as_u64().unwrap() >= anna.last_event);
    }
    let said = speaker.stop();
    anna.names();
    let told: Vec<String> = anna.story();
    let due: Vec<String> = (0..said).map(|n| format!("broadcast ben {n}")).collect();
    let spoken = told.iter().filter(|line| line.starts_with("broadcast"));
    assert!(spoken.eq(due.iter()), "each word once, in order");
}

#[test]
fn a_loss_in_the_middle_of_a_replay_loses_nothing() {
    let server = server();
    let [mut anna, mut ben] = meeting(&server, "room", ["anna", "ben"]);
    anna.cut();
    until_lost(&server, 1);
    for n in 0..200 {
        ben.broadcast(&format!("{n} {}", "x".repeat(3_000)));
    }
    for events in [0, 1, 17, 60] {
        anna.resume();
        for _ in 0..events {
            anna.event();
        }
        anna.cut();
        until_lost(&server, 1);
    }
    anna.resume();
    anna.names();
    let numbers: Vec<u64> = anna.log.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (3..203).collect::<Vec<_>>());
}

#[test]
fn a_replay_longer_than_all_that_may_wait_makes_no_slow_consumer() {
    let server = server_with(|settings| {
        settings.session.send_queue = 10;
        settings.session.send_queue_bytes = 20_000;
        settings.rooms.resume_bytes = 1 << 30;
    });
    let [mut anna, mut ben] = meeting(&server, "room", ["anna", "ben"]);
    anna.cut();
    until_lost(&server, 1);
    // More than any socket holds.
    for n in 0..500 {
        ben.broadcast(&format!("{n} {}", "x".repeat(30_000)));
    }
    anna.resume_over(Client::connect_narrow(server.addr));
    ben.broadcast("live");
    assert_eq!(anna.names(), ["anna", "ben"]);
    assert_eq!(anna.log.len(), 501);
}

// ---------------------------------------------------------------------------------- taking over

#[test]
fn a_return_over_another_network_takes_the_old_connections_place() {
    let server = server();
    // On each of the threads some rooms are another one's than the accepting thread's.
    for round in 0..16 {
        let channel = format!("room {round}");
        let [mut anna, mut ben] = meeting(&server, &channel, ["anna", "ben"]);
        let mut old = Member::join(server.addr, &channel, "carl");
        for member in [&mut anna, &mut ben] {
            member.event();
        }
        ben.broadcast("before");
        let mut new = Member::join(server.addr, "elsewhere", "carl");
        new.client().ok("channel.leave", json!({}));
        let mut client = new.take_client();
        let resume = old.resume_request();
        let data = join_with_session(&mut client, &old.session, resume);
        assert_eq!(data["resumed"], true);
        let event = client.next();
        assert_eq!(short(&event), "broadcast ben before");
        assert_eq!(
            old.read_to_the_end(),
            (Some("endpoint_replaced".into()), Some(4001))
        );
        client.ok("broadcast", json!({"text": "after"}));
        for member in [&mut anna, &mut ben] {
            assert_eq!(member.names(), ["anna", "ben", "carl"]);
            let last = member.story().pop().unwrap();
            assert_eq!(last, "broadcast carl after");
            let seen = member.story();
            assert!(
                !seen.iter().any(|line| line.starts_with("leave")),
                "{seen:?}"
            );
        }
    }
}

#[test]
fn a_late_farewell_of_the_old_connection_never_unseats_the_new_one() {
    let server = server();
    let [mut anna, mut ben] = meeting(&server, "room", ["anna", "ben"]);
    for round in 0..30 {
        let mut old = anna.take_client();
        let leave = json!({"cseq": 7, "method": "channel.leave", "session": anna.session});
        match round % 3 {
            // It says so before it can know of the other.
            0 => {
                anna.resume();
                old.send(&leave);
            }
            1 => {
                anna.resume();
                old.close(1000);
            }
            _ => {
                anna.resume();
                old.reset();
            }
        }
        ben.broadcast("still there?");
        assert_eq!(anna.names(), ["anna", "ben"]);
    }
    assert_eq!(ben.names(), ["anna", "ben"]);
    assert_eq!(ben.story(), [""; 0], "nobody has noticed anything");
}

#[test]
fn of_many_returns_at_once_each_is_answered_and_the_last_one_stays() {
    let server = server();
    let [mut anna, mut ben] = meeting(&server, "room", ["anna", "ben"]);
    let session = anna.session.clone();
    anna.cut();
    let outcomes: Vec<(u16, bool)> = std::thread::scope(|scope| {
        let returns: Vec<_> = (0..12)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.connect();
                    let mut ask = join("room", "anna");
                    ask["last_event"] = json!(2);
                    let data = join_with_session(&mut client, &session, ask);
                    assert_eq!(data["resumed"], true);
                    // The last one is told to go by the test's end.
                    loop {
                        match client.receive() {
                            Received::Close(Some((code, _))) => break (code, true),
                            Received::Text(text) if text.contains("to the last") => {
                                client.ok("channel.leave", json!({}));
                                break (0, true);
                            }
                            Received::Text(_) | Received::Ping(_) => {}
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        let all = |f: &Figures| f["meeting_server_resumes_total"] == 12.0;
        Figures::when(server.ops, all);
        ben.broadcast("to the last");
        returns.into_iter().map(|r| r.join().unwrap()).collect()
    });
    let closed = outcomes.iter().filter(|(code, _)| *code == 4001).count();
    assert_eq!(closed, 11, "{outcomes:?}");
    assert_eq!(ben.event()["data"]["stat"], "leave");
    assert_eq!(ben.names(), ["ben"]);
}

// ----------------------------------------------------------------------------------- not in time

#[test]
fn who_is_not_back_in_time_leaves_and_joins_anew() {
    let server = server_with(|s| s.rooms.resume_window = Duration::from_millis(500));
    let [mut anna, mut ben] = meeting(&server, "room", ["anna", "ben"]);
    anna.ok("stream.add", json!({"stream": stream("anna-1")}));
    let session = anna.session.clone();
    anna.cut();
    for due in ["publish anna anna-1", "unpublish anna anna-1", "leave anna"] {
        assert_eq!(short(ben.event()), due);
    }
    let data = anna.try_resume();
    assert_eq!(data["resumed"], false);
    assert_ne!(data["session"], session.as_str());
    assert_eq!(ben.names(), ["ben", "anna"]);
}

#[test]
fn an_old_sessions_expiry_does_not_throw_out_the_new_one() {
    let server = server_with(|s| s.rooms.resume_window = Duration::from_millis(500));
    let [mut anna, mut ben, mut carl] = meeting(&server, "room", ["anna", "ben", "carl"]);
    anna.cut();
    let mut again = server.connect();
    again.join("room", "anna");
    // Carl is lost later than Anna's old session was: when he is given up, that would have been
    // too.
    carl.cut();
    for due in ["leave anna", "join anna", "leave carl"] {
        assert_eq!(short(ben.event()), due);
    }
    again.event("endpoint");
    assert_eq!(again.names(), ["ben", "anna"]);
    assert_eq!(ben.names(), ["ben", "anna"]);
}

#[test]
fn who_comes_back_without_its_session_may_publish_the_same_stream_at_once() {
    let server = server();
    let [mut anna, mut ben] = meeting(&server, "room", ["anna", "ben"]);
    anna.ok("stream.add", json!({"stream": stream("anna-1")}));
    anna.cut();
    let mut again = server.connect();
    // Both in one go: the join, and, with the session not yet known, the stream right behind the
    // answer.
    again.join("room", "anna");
    again.publish("anna-1");
    let mut rest = vec!["publish anna anna-1", "unpublish anna anna-1", "leave anna"];
    rest.extend(["join anna", "publish anna anna-1"]);
    ben.names();
    assert_eq!(ben.story(), rest);
}

#[test]
fn a_return_that_dies_in_the_same_millisecond_costs_nothing() {
    let server = server();
    let [mut anna, mut ben] = meeting(&server, "room", ["anna", "ben"]);
    anna.cut();
    let ask = json!({
        "cseq": 1,
        "method": "channel.join",
        "session": anna.session,
        "data": anna.resume_request(),
    });
    for round in 0..60 {
        let mut client = server.connect();
        client.send(&ask);
        match round % 3 {
            0 => client.reset(),
            1 => drop(client),
            _ => client.close(4900),
        }
    }
    ben.broadcast("and?");
    anna.resume();
    anna.names();
    assert_eq!(anna.story(), ["broadcast ben and?"]);
    assert_eq!(ben.names(), ["anna", "ben"]);
    assert_eq!(ben.story(), [""; 0]);
}

#[test]
fn somebody_who_left_while_one_was_away_does_not_stay_on_the_screen() {
    let server = server();
    let [mut anna, mut ben, mut carl] = meeting(&server, "room", ["anna", "ben", "carl"]);
    ben.ok("stream.add", json!({"stream": stream("ben-1")}));
    anna.names();
    anna.cut();
    until_lost(&server, 1);
    ben.ok("channel.leave", json!({}));
    carl.names();
    anna.resume();
    assert_eq!(anna.names(), ["anna", "carl"]);
    assert_eq!(
        anna.story(),
        ["publish ben ben-1", "unpublish ben ben-1", "leave ben"]
    );
}

// --------------------------------------------------------------------------------- what is kept

#[test]
fn a_session_that_was_quiet_for_longer_than_the_history_is_long_goes_on() {
    let server = server_with(|s| {
        s.rooms.resume_events = 20;
        s.session.send_queue = 10;
    });
    let [mut quiet, mut loud] = meeting(&server, "room", ["quiet", "loud"]);
    // Many events, all of which she reads; and then many of her own.
    for n in 0..50 {
        loud.broadcast(&n.to_string());
        quiet.event();
    }
    for n in 0..50 {
        quiet.broadcast(&n.to_string());
    }
    quiet.cut();
    until_lost(&server, 1);
    loud.broadcast("missed");
    quiet.resume();
    quiet.names();
    assert_eq!(quiet.story().last().unwrap(), "broadcast loud missed");
    assert_eq!(quiet.log.len(), 51);
}

#[test]
fn who_has_missed_more_than_is_kept_joins_anew() {
    let server = server_with(|s| {
        s.rooms.resume_events = 20;
        s.session.send_queue = 10;
    });
    let [mut anna, mut ben] = meeting(&server, "room", ["anna", "ben"]);
    anna.cut();
    until_lost(&server, 1);
    for n in 0..21 {
        ben.broadcast(&n.to_string());
    }
    let session = anna.session.clone();
    let data = anna.try_resume();
    assert_eq!(data["resumed"], false);
    assert_ne!(data["session"], session.as_str());
    assert_eq!(ben.names(), ["ben", "anna"]);
    assert_eq!(ben.story(), ["leave anna", "join anna"]);
}

#[test]
fn what_is_kept_goes_when_nobody_can_need_it_any_more() {
    let server = server_with(|s| {
        s.rooms.resume_window = Duration::from_millis(200);
        s.session.send_timeout = Duration::from_millis(200);
        s.session.ping_interval = Duration::from_millis(200);
        s.session.idle_timeout = Duration::from_secs(1);
    });
    let mut room: Vec<Client> = (0..2)
        .map(|n| server.join("room", &n.to_string()))
        .collect();
    room[0].event("endpoint");
    for n in 0..50 {
        room[0].ok("broadcast", json!({"n": n}));
        room[1].event("broadcast");
    }
    let begun = Instant::now();
    loop {
        let now = Figures::scrape(server.ops);
        if now["meeting_server_history_events"] == 0.0 {
            assert_eq!(now["meeting_server_history_bytes"], 0.0);
            assert_eq!(now["meeting_server_objects{kind=\"event\"}"], 0.0);
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "it is kept for ever");
        // Both are alive and answer their pings.
        for client in &mut room {
            client.names();
        }
    }
}

// --------------------------------------------------------------------------------------- refused

#[test]
fn a_failed_or_forged_attempt_touches_nothing_of_the_member_it_names() {
    let server = server();
    let [mut anna, mut ben] = meeting(&server, "room", ["anna", "ben"]);
    let session = anna.session.clone();
    let other = uuid::Uuid::new_v4().to_string();
    anna.cut();
    until_lost(&server, 1);
    for (what, session, data) in [
        ("another endpoint", &session, join("room", "mallory")),
        ("another room", &session, join("elsewhere", "anna")),
        (
            "no session at all",
            &"x".repeat(36),
            join("room", "mallory"),
        ),
        ("a short one", &"x".into(), join("room", "mallory")),
        ("an unknown one", &other, join("room", "mallory")),
        (
            "in capitals",
            &session.to_uppercase(),
            join("room", "mallory"),
        ),
        (
            "another app",
            &session,
            json!({"app": "other", "channel": "room", "endpoint": "anna"}),
        ),
        (
            "of the future",
            &session,
            json!({"app": "test", "channel": "room", "last_event": 1_000}),
        ),
    ] {
        let mut client = server.connect();
        let data = join_with_session(&mut client, session, data);
        assert_eq!(data["resumed"], false, "{what}");
        assert_ne!(data["session"], session.as_str(), "{what}");
        client.ok("channel.leave", json!({}));
    }
    let mut client = server.connect();
    client.session.clone_from(&session);
    for data in [
        json!({}),
        json!({"app": "test", "channel": "room", "role": "king"}),
    ] {
        assert_eq!(client.call("channel.join", data)["err"], 400);
    }
    anna.resume();
    ben.broadcast("there you are");
    assert_eq!(anna.names(), ["anna", "ben"]);
    assert_eq!(anna.story().last().unwrap(), "broadcast ben there you are");
    assert!(!ben.story().iter().any(|line| line.ends_with("anna")));
}

#[test]
fn a_session_is_its_owners_alone_while_another_connection_has_it() {
    let server = server();
    let [mut anna, mut ben] = meeting(&server, "room", ["anna", "ben"]);
    // Ben's connection is in a room: a join is refused, whatever session it names.
    let mut ask = json!({"cseq": 1, "method": "channel.join", "session": anna.session});
    ask["data"] = join("room", "anna");
    ben.client().send(&ask);
    assert_eq!(ben.client().next()["err"], 409);
    // And her session is worth nothing in any other request of his.
    let dump = json!({"cseq": 2, "method": "channel.dump", "session": anna.session});
    ben.client().send(&dump);
    assert_eq!(ben.client().next()["err"], 410);
    assert_eq!(anna.names(), ["anna", "ben"]);
}

#[test]
fn a_return_is_never_refused_for_want_of_room() {
    let server = server_with(|settings| {
        settings.rooms.max_rooms = 1;
        settings.rooms.max_members = 2;
    });
    let [mut anna, _ben] = meeting(&server, "room", ["anna", "ben"]);
    anna.cut();
    until_lost(&server, 1);
    let mut carl = server.connect();
    assert_eq!(carl.call("channel.join", join("room", "carl"))["err"], 503);
    assert_eq!(carl.call("channel.join", join("other", "carl"))["err"], 503);
    anna.resume();
    // Not even where the room is all her own.
    let mut again = server.connect();
    assert_eq!(again.join("room", "ben")["resumed"], false);
    assert_eq!(anna.names(), ["anna", "ben"]);
}

#[test]
fn while_the_server_drains_nobody_comes_back() {
    let mut server = server_with(|settings| {
        settings.server.drain_timeout = Duration::from_secs(2);
    });
    let [mut anna, mut ben] = meeting(&server, "room", ["anna", "ben"]);
    let mut waiting = server.connect();
    anna.cut();
    until_lost(&server, 1);
    server.begin_stop();
    waiting.session.clone_from(&anna.session);
    // Whether it still asks, or has been sent away: it is not let in.
    let cseq = waiting.ask("channel.join", anna.resume_request());
    loop {
        match waiting.receive() {
            Received::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["cseq"] == cseq && message.get("err").is_some() {
                    assert!(
                        message["err"] == 503 || message["data"]["resumed"] == true,
                        "{message}"
                    );
                }
            }
            Received::Ping(_) => {}
            Received::Close(close) => break assert_eq!(close.unwrap().0, 1001),
            Received::End | Received::Reset => break,
            Received::Pong(_) => {}
        }
    }
    let (error, code) = ben.read_to_the_end();
    assert_eq!(
        (error.as_deref(), code),
        (Some("server_shutdown"), Some(1001))
    );
    assert_eq!(ben.story(), [""; 0], "nobody is told who leaves");
    server.stop();
}

#[test]
fn without_a_window_a_session_is_over_with_its_connection() {
    let server = server_with(|s| s.rooms.resume_window = Duration::ZERO);
    let [mut anna, mut ben] = meeting(&server, "room", ["anna", "ben"]);
    anna.cut();
    assert_eq!(short(ben.event()), "leave anna");
    assert_eq!(anna.try_resume()["resumed"], false);
}

#[test]
fn who_has_left_or_closed_does_not_come_back() {
    let server = server();
    let [mut ben] = meeting(&server, "room", ["ben"]);
    let ends: [fn(&mut Member); 4] = [
        |anna| drop(anna.ok("channel.leave", json!({}))),
        |anna| anna.client().close(1000),
        |anna| anna.client().frame(true, 2, b"binary"),
        |anna| anna.client().frame(true, 3, b"no such opcode"),
    ];
    for end in ends {
        let mut anna = Member::join(server.addr, "room", "anna");
        end(&mut anna);
        assert_eq!(short(ben.event()), "join anna");
        assert_eq!(short(ben.event()), "leave anna");
        assert_eq!(anna.try_resume()["resumed"], false);
        anna.ok("channel.leave", json!({}));
        assert_eq!(short(ben.event()), "join anna");
        assert_eq!(short(ben.event()), "leave anna");
    }
}

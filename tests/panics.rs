//! A defect in one room or one session hurts nobody else: it is made to panic, and everybody looks
//! on.
//!
//! `cargo test --features test-hooks --test panics`

mod common;

use std::time::{Duration, Instant};

use common::{
    log_line::Format,
    member::{Member, short},
    openmetrics::Figures,
    process::Process,
    *,
};
use serde_json::json;

fn server() -> Server {
    ask_for_error("a room failed");
    ask_for_error("a session failed");
    // One thread, so that the other rooms are on the one that panics.
    Server::with(|settings| {
        settings.server.workers = 1;
        settings.server.ops_bind = Some("127.0.0.1:0".parse().unwrap());
        settings.rooms.resume_window = Duration::from_secs(60);
    })
}

/// Waits until there are so many connections; then all that goes with a connection or a room must
/// be there as often as it should, and nothing else.
fn until_left(server: &Server, connections: usize, rooms: usize) {
    let alive = |now: &Figures, kind: &str| {
        now[&format!("meeting_server_objects{{kind=\"{kind}\"}}")] as usize
    };
    let now = Figures::when(server.ops, |now| {
        alive(now, "connection") == connections && alive(now, "room") == rooms
    });
    for kind in ["session", "outbox"] {
        assert_eq!(alive(&now, kind), connections, "{kind}");
    }
    assert_eq!(now["meeting_server_rooms"] as usize, rooms);
    assert_eq!(now["meeting_server_sessions"] as usize, connections);
    if rooms == 0 {
        for gauge in [
            "sessions_detached",
            "streams",
            "history_events",
            "history_bytes",
        ] {
            assert_eq!(now[&format!("meeting_server_{gauge}")], 0.0, "{gauge}");
        }
        assert_eq!(alive(&now, "event"), 0);
    }
}

fn provoke(client: &mut Client) -> i64 {
    client.ask("broadcast", json!({"panic": "room"}))
}

#[test]
fn members_of_a_room_that_fails_are_told_and_come_back_into_a_new_one() {
    let server = server();
    let mut anna = server.join("c", "anna");
    let mut ben = server.join("c", "ben");
    anna.event("endpoint");

    let cseq = provoke(&mut ben);
    assert_eq!(ben.answer(cseq)["err"], 503);
    for client in [&mut anna, &mut ben] {
        assert_eq!(client.error_event(), "room_failed");
        assert_eq!(client.closed(), 4004);
    }

    let mut anna = server.connect();
    assert_eq!(anna.join("c", "anna")["last_event"], 1, "a new room");
    assert_eq!(anna.names(), ["anna"]);
}

#[test]
fn every_request_behind_the_one_that_failed_is_answered_before_the_goodbye() {
    let server = server();
    let mut anna = server.join("c", "anna");
    // In one write, so that all of them are on their way when the room fails.
    let request = |cseq: i64, method: &str, data| {
        let request =
            json!({"cseq": cseq, "method": method, "session": anna.session, "data": data});
        frame(true, 1, request.to_string().as_bytes())
    };
    let mut bytes = request(100, "broadcast", json!({"panic": "room"}));
    for cseq in 101..120 {
        bytes.extend(request(cseq, "broadcast", json!({"n": cseq})));
    }
    bytes.extend(request(120, "channel.leave", json!({})));
    anna.write(&bytes);
    for cseq in 100..=120 {
        assert_eq!(anna.answer(cseq)["err"], 503);
    }
    assert_eq!(anna.error_event(), "room_failed");
    assert_eq!(anna.closed(), 4004);
}

#[test]
fn other_rooms_of_the_same_thread_go_on() {
    let server = server();
    let mut anna = server.join("healthy", "anna");
    let mut ben = server.join("healthy", "ben");
    anna.event("endpoint");
    for round in 0..20 {
        let mut victim = server.join("failing", "victim");
        provoke(&mut victim);
        ben.ok("broadcast", json!({"round": round}));
        assert_eq!(anna.event("broadcast")["payload"]["round"], round);
        assert_eq!(victim.next()["err"], 503);
        assert_eq!(victim.error_event(), "room_failed");
        assert_eq!(victim.closed(), 4004);
    }
    assert_eq!(anna.names(), ["anna", "ben"]);
}

#[test]
fn a_join_behind_a_room_that_fails_is_answered_and_the_next_one_finds_a_new_room() {
    let server = server();
    for _ in 0..50 {
        let mut victim = server.join("c", "victim");
        let mut late = server.connect();
        // Both are under way at once; the join meets the old room, its end, or a new one.
        provoke(&mut victim);
        let data = json!({"app": "test", "channel": "c", "endpoint": "late"});
        let cseq = late.ask("channel.join", data.clone());
        let answer = late.answer(cseq);
        match answer["err"].as_i64() {
            Some(0) => {
                late.session = answer["data"]["session"].as_str().unwrap().to_owned();
            }
            Some(503) => {
                late.join_with(data);
            }
            other => panic!("{other:?}: {answer}"),
        }
        match late.call("channel.dump", json!({}))["err"].as_i64() {
            Some(0) => {}
            // It had joined the old room just before that failed.
            _ => continue,
        }
        late.ok("channel.leave", json!({}));
    }
}

#[test]
fn nothing_of_a_room_that_failed_is_kept() {
    let server = server();
    let mut anna = server.join("c", "anna");
    anna.publish("anna-1");
    let mut ben = server.join("c", "ben");
    // One publishes, one is away, and something is kept for him.
    let carl = Member::join(server.addr, "c", "carl");
    ben.event("endpoint");
    ben.ok("broadcast", json!({"text": "kept"}));
    let session = carl.session.clone();
    drop(carl);
    let detached = |now: &Figures| now["meeting_server_sessions_detached"] == 1.0;
    Figures::when(server.ops, detached);
    provoke(&mut ben);
    drop((anna, ben));
    until_left(&server, 0, 0);

    // His session is one that nobody knows.
    let mut carl = server.connect();
    carl.session = session;
    let data = json!({"app": "test", "channel": "c", "endpoint": "carl", "last_event": 3});
    let data = carl.ok("channel.join", data);
    assert_eq!(
        (&data["resumed"], &data["last_event"]),
        (&json!(false), &json!(1))
    );
    until_left(&server, 1, 1);
}

#[test]
fn of_a_hundred_rooms_that_fail_none_is_forgotten_and_every_other_one_goes_on() {
    let server = server();
    let mut healthy: Vec<Client> = (0..20)
        .map(|n| server.join(&format!("healthy {n}"), "anna"))
        .collect();
    for n in 0..100 {
        let mut victim = server.join(&format!("failing {}", n % 7), "victim");
        provoke(&mut victim);
        assert_eq!(victim.next()["err"], 503);
        assert_eq!(victim.error_event(), "room_failed");
        assert_eq!(victim.closed(), 4004);
    }
    until_left(&server, 20, 20);
    for (n, anna) in healthy.iter_mut().enumerate() {
        // Still the same room, which others find.
        let mut ben = server.join(&format!("healthy {n}"), "ben");
        assert_eq!(anna.event("endpoint")["stat"], "join");
        assert_eq!(ben.names(), ["anna", "ben"]);
        ben.ok("channel.leave", json!({}));
    }
    drop(healthy);
}

#[test]
fn a_session_that_fails_is_taken_out_of_its_room_and_its_member_may_come_back() {
    let server = server();
    let mut anna = Member::join(server.addr, "c", "anna");
    let mut ben = server.join("c", "ben");
    anna.event();
    anna.log.clear();
    for round in 0..10 {
        anna.client().ask("broadcast", json!({"panic": "session"}));
        // Its socket is closed, without a word.
        assert!(matches!(
            anna.client().receive(),
            Received::End | Received::Reset
        ));
        until_one_is_lost(&server);
        ben.ok("broadcast", json!({"text": round.to_string()}));
        anna.resume();
        assert_eq!(short(anna.event()), format!("broadcast ben {round}"));
    }
    assert_eq!(ben.names(), ["anna", "ben"], "and nobody has noticed");
    anna.ok("channel.leave", json!({}));
    drop(anna);
    assert_eq!(ben.event("endpoint")["stat"], "leave");
    ben.close(1000);
    assert_eq!(ben.closed(), 1000);
    drop(ben);
    until_left(&server, 0, 0);
}

/// Waits until one is there and another waited for.
fn until_one_is_lost(server: &Server) {
    Figures::when(server.ops, |now| {
        now["meeting_server_sessions_detached"] == 1.0
            && now["meeting_server_objects{kind=\"connection\"}"] == 1.0
            && now["meeting_server_objects{kind=\"session\"}"] == 1.0
    });
}

#[test]
fn a_panic_is_a_line_of_the_log_whatever_its_level() {
    for (format, level) in [
        (Format::Text, "info"),
        (Format::Json, "meeting_server=info"),
    ] {
        let mut process = Process::start(format, level, &[]);
        let mut anna = process.join("c", "anna");
        let cseq = provoke(&mut anna);
        assert_eq!(anna.answer(cseq)["err"], 503);
        let line = process.line("panic");
        assert_eq!(line.level, "error");
        assert_eq!(line.keys()[..3], ["thread", "at", "reason"]);
        assert!(line["at"].starts_with("src/"), "{line:?}");
        assert!(!line["reason"].is_empty(), "{line:?}");
        process.line("a room failed");
    }
}

#[test]
fn a_panic_does_not_wait_for_a_log_that_is_not_read() {
    let settings = [("SESSION__RATE_LIMIT", "0"), ("SERVER__WORKERS", "1")];
    let mut process = Process::start(Format::Text, "info", &settings);
    let (mut anna, mut ben) = (process.join("c", "anna"), process.join("d", "ben"));
    process.stop_reading();
    // More than the pipe holds: three lines each time.
    let mut carl = process.connect();
    for _ in 0..500 {
        carl.join("e", "carl");
        carl.ok("channel.leave", json!({}));
    }
    let begun = Instant::now();
    let cseq = provoke(&mut anna);
    assert_eq!(anna.answer(cseq)["err"], 503);
    ben.ok("broadcast", json!({}));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    process.go_on_reading();
    process.line("panic");
    process.line("a room failed");
}

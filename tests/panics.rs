//! A defect in one room hurts nobody else: a room is made to panic, and everybody looks on.
//!
//! `cargo test --features test-hooks --test panics`

mod common;

use common::*;
use serde_json::json;

fn server() -> Server {
    ask_for_error("a room failed");
    // One thread, so that the other rooms are on the one that panics.
    Server::with(|settings| settings.server.workers = 1)
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

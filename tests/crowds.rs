//! Many who come and go at once, over real sockets: who may be told a moment later is told all
//! the same, once, in the one order of the room, and never behind what happened after it.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod common;

use std::time::Instant;

use common::{
    Client, PATIENCE, Server, frame,
    member::{Member, short},
    openmetrics::Figures,
    stream,
};
use serde_json::json;

/// Far more than a thread tells of at once in one tick, even where a debug build is slow.
const MANY: usize = 150;

fn one_thread() -> Server {
    Server::with(|settings| settings.server.workers = 1)
}

/// Connections that have not joined yet.
fn crowd(server: &Server) -> Vec<Client> {
    (0..MANY).map(|_| server.connect()).collect()
}

/// All of them ask to join before any of them reads.
fn ask_to_join(crowd: &mut [Client]) -> Vec<i64> {
    let join = |(n, client): (usize, &mut Client)| {
        let endpoint = format!("c{n}");
        let data = json!({"app": "test", "channel": "crowd", "endpoint": endpoint});
        client.ask("channel.join", data)
    };
    crowd.iter_mut().enumerate().map(join).collect()
}

/// It has caused nothing but its join, so it has been told every number since.
fn has_missed_nothing(member: &Member) {
    let numbers: Vec<_> = member.log.iter().map(|(number, _)| *number).collect();
    assert_eq!(
        numbers,
        Vec::from_iter(member.joined + 1..=member.last_event)
    );
}

/// Both are told the same, in the same order: so many events, among them [`MANY`] that begin so.
fn both_see(one: &mut Member, other: &mut Member, beginning: &str, events: usize) {
    let seen = [one, other].map(|member| {
        let before = member.log.len();
        for _ in 0..events {
            member.event();
        }
        member.story().split_off(before)
    });
    assert_eq!(seen[0], seen[1]);
    let of_this_kind = seen[0].iter().filter(|event| event.starts_with(beginning));
    assert_eq!(of_this_kind.count(), MANY);
}

#[test]
fn a_crowd_that_comes_and_goes_is_told_of_whole_and_in_one_order() {
    let server = one_thread();
    let mut anna = Member::join(server.addr, "crowd", "anna");
    let mut ben = Member::join(server.addr, "crowd", "ben");
    anna.event();
    let mut crowd = crowd(&server);
    let joins = ask_to_join(&mut crowd);
    for (client, cseq) in crowd.iter_mut().zip(joins) {
        let answer = client.answer(cseq);
        assert_eq!(answer["err"], 0, "{answer}");
        client.session = answer["data"]["session"].as_str().unwrap().to_owned();
    }
    for _ in 0..MANY {
        anna.event();
        ben.event();
    }
    let order = ben.story();
    assert_eq!(anna.story()[1..], order);
    for (n, client) in crowd.iter_mut().enumerate() {
        let own = format!("join c{n}");
        let at = order.iter().position(|event| *event == own).unwrap();
        for expected in &order[at + 1..] {
            let event = client.next();
            assert_eq!(short(&event), *expected, "{own}");
        }
    }
    for (n, client) in crowd.iter_mut().enumerate() {
        let stream = stream(&format!("s{n}"));
        client.ask("stream.add", json!({"stream": stream}));
    }
    both_see(&mut anna, &mut ben, "publish c", MANY);
    for client in &mut crowd {
        client.ask("channel.leave", json!({}));
    }
    both_see(&mut anna, &mut ben, "unpublish c", 2 * MANY);
    assert_eq!(anna.names(), ["anna", "ben"]);
}

#[test]
fn in_a_crowd_a_dump_is_the_state_between_the_events_around_it() {
    let server = one_thread();
    let mut anna = Member::join(server.addr, "crowd", "anna");
    let mut crowd = crowd(&server);
    ask_to_join(&mut crowd);
    while anna.log.len() < MANY {
        let names = anna.names();
        let seen = anna.story();
        let joined = seen.iter().map(|event| event.trim_start_matches("join "));
        let expected: Vec<_> = ["anna"].into_iter().chain(joined).collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn in_a_crowd_a_broadcast_comes_behind_the_joins_before_it() {
    let server = one_thread();
    let mut anna = Member::join(server.addr, "crowd", "anna");
    let mut crowd = crowd(&server);
    let joins = ask_to_join(&mut crowd);
    // The last one speaks as soon as it is in.
    let last = crowd.last_mut().unwrap();
    let answer = last.answer(joins[MANY - 1]);
    last.session = answer["data"]["session"].as_str().unwrap().to_owned();
    last.ask("broadcast", json!({"text": "hello"}));
    let said = format!("broadcast c{} hello", MANY - 1);
    while anna.story().last() != Some(&said) {
        anna.event();
    }
    has_missed_nothing(&anna);
    let own = format!("join c{}", MANY - 1);
    assert!(anna.story().contains(&own), "{:?}", anna.story());
}

/// Publishes again and again, all in one write: more changes than any tick of any day.
fn publish_many_times(client: &mut Client) {
    let requests: Vec<_> = (0..MANY)
        .flat_map(|n| {
            let request = json!({
                "version": 0,
                "cseq": n,
                "method": "stream.add",
                "session": client.session,
                "data": {"stream": stream("s")},
            });
            frame(true, 1, request.to_string().as_bytes())
        })
        .collect();
    client.write(&requests);
}

/// How many writes carried an event that had waited for more than a tenth of a second, and how many
/// there were.
fn late_writes(server: &Server) -> (f64, f64) {
    let figures = Figures::scrape(server.addr);
    let name = "meeting_server_delivery_delay_seconds";
    let all = figures.get(&format!("{name}_count")).unwrap();
    let in_time = figures
        .get(&format!("{name}_bucket{{le=\"0.1\"}}"))
        .unwrap();
    (all - in_time, all)
}

/// Has `change` made until somebody is told of one late, or in time.
fn told_late(server: &Server, late: bool, mut change: impl FnMut()) {
    let begun = Instant::now();
    loop {
        let (late_before, before) = late_writes(server);
        change();
        let (late_after, after) = late_writes(server);
        if after > before && (late_after > late_before) == late {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "it never is so");
    }
}

#[test]
fn a_change_waits_in_a_crowd_and_not_where_there_is_none() {
    let server = one_thread();
    let mut anna = Member::join(server.addr, "crowd", "anna");
    let mut ben = server.join("crowd", "ben");
    anna.event();
    told_late(&server, false, || {
        ben.publish("s");
        anna.event();
    });
    told_late(&server, true, || {
        publish_many_times(&mut ben);
        for n in 0..MANY {
            anna.event();
            ben.answer(n as i64);
        }
    });
}

#[test]
fn who_is_lost_in_a_crowd_is_told_what_waited_when_it_is_back() {
    let server = one_thread();
    let mut anna = Member::join(server.addr, "crowd", "anna");
    let mut ben = server.join("crowd", "ben");
    anna.event();
    publish_many_times(&mut ben);
    anna.cut();
    for n in 0..MANY {
        ben.answer(n as i64);
    }
    anna.resume();
    for _ in 0..MANY {
        anna.event();
    }
    has_missed_nothing(&anna);
}

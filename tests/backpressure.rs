//! More requests than a room's backlog holds: its members are paused, and nothing is lost.

mod common;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::*;
use meeting_server::room::backlog::MAX_REQUESTS;
use serde_json::json;

const MEMBERS: usize = 40;

/// As many as may be unanswered at a time, and more of them in all than the backlog holds.
const EACH: usize = 64;

fn patient_server() -> Server {
    const { assert!(MEMBERS * EACH > 8 * MAX_REQUESTS) };
    Server::with(|settings| {
        settings.server.workers = 1;
        // The readers of a test may be slow.
        settings.session.send_queue = 100_000;
        settings.session.send_queue_bytes = 1 << 30;
    })
}

fn pipelined(client: &Client) -> Vec<u8> {
    let broadcast = |n: usize| {
        let request = json!({
            "cseq": n, "method": "broadcast", "session": client.session, "data": {"n": n},
        });
        frame(true, 1, request.to_string().as_bytes())
    };
    (0..EACH).flat_map(broadcast).collect()
}

#[test]
fn members_that_send_at_once_are_paused_and_lose_nothing() {
    let server = patient_server();
    let mut members: Vec<Client> = (0..MEMBERS)
        .map(|n| server.join("room", &format!("{n}")))
        .collect();
    for (n, member) in members.iter_mut().enumerate() {
        for _ in n + 1..MEMBERS {
            member.event("endpoint");
        }
    }
    for member in &mut members {
        member.write(&pipelined(member));
    }
    thread::scope(|scope| {
        for (own, mut member) in members.into_iter().enumerate() {
            scope.spawn(move || {
                let mut next = BTreeMap::new();
                let mut answers = 0;
                while answers < EACH || next.values().sum::<usize>() < (MEMBERS - 1) * EACH {
                    let message = member.next();
                    if message["event"] == "broadcast" {
                        let data = &message["data"];
                        let from = data["source_endpoint"]["endpoint"].as_str().unwrap();
                        assert_ne!(from, own.to_string());
                        let expected = next.entry(from.to_owned()).or_default();
                        assert_eq!(data["payload"]["n"], *expected, "of {from}");
                        *expected += 1;
                    } else {
                        assert_eq!(message["err"], 0, "{message}");
                        assert_eq!(message["cseq"], answers, "in the order asked");
                        answers += 1;
                    }
                }
                assert_eq!(next.len(), MEMBERS - 1);
            });
        }
    });
}

/// Reads until this many events and answers have come: the number of each event with who sent what,
/// and for each answer how many events came before it.
fn received(mut member: Client, events: usize, answers: usize) -> Received {
    let mut all = Received::default();
    while all.events.len() < events || all.events_before_answer.len() < answers {
        let message = member.next();
        if message["event"] == "broadcast" {
            let from = &message["data"]["source_endpoint"]["endpoint"];
            let n = &message["data"]["payload"]["n"];
            let number = message["cseq"].as_u64().unwrap();
            let said = (from.as_str().unwrap().to_owned(), n.as_u64().unwrap());
            assert!(all.events.insert(number, said).is_none(), "{message}");
            assert_eq!(all.events.keys().last(), Some(&number), "in order");
        } else if message.get("err").is_some() {
            assert_eq!(message["err"], 0, "{message}");
            all.events_before_answer.push(all.events.len());
        }
    }
    all
}

#[derive(Default)]
struct Received {
    events: BTreeMap<u64, (String, u64)>,
    events_before_answer: Vec<usize>,
}

#[test]
fn a_large_room_keeps_one_order_of_events_and_answers() {
    // Enough for its events to be collected and delivered member by member.
    const LISTENERS: usize = 140;
    const SENDERS: usize = 8;
    let server = patient_server();
    let joined = |name: &str| {
        let mut client = server.connect();
        let data = json!({"app": "test", "channel": "room", "endpoint": name, "last_event": 0});
        client.join_with(data);
        client
    };
    let listeners: Vec<Client> = (0..LISTENERS).map(|n| joined(&format!("l{n}"))).collect();
    let mut senders: Vec<Client> = (0..SENDERS).map(|n| joined(&format!("s{n}"))).collect();
    for sender in &mut senders {
        sender.write(&pipelined(sender));
    }
    let read = |clients: Vec<Client>, events, answers| {
        let threads: Vec<_> = clients
            .into_iter()
            .map(|client| thread::spawn(move || received(client, events, answers)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap())
    };
    let (listeners, senders) = (
        read(listeners, SENDERS * EACH, 0),
        read(senders, (SENDERS - 1) * EACH, EACH),
    );
    let mut heard: Vec<Received> = listeners.collect();
    let order = heard.pop().unwrap().events;
    assert_eq!(order.len(), SENDERS * EACH);
    assert!(heard.iter().all(|listener| listener.events == order));
    for (n, sender) in senders.enumerate() {
        let (own, others): (BTreeMap<_, _>, BTreeMap<_, _>) = order
            .clone()
            .into_iter()
            .partition(|(_, (from, _))| *from == format!("s{n}"));
        assert_eq!(sender.events, others);
        // Each answer stands where the event that it is about stands for the others.
        let before = own.keys().map(|number| others.range(..number).count());
        assert!(before.eq(sender.events_before_answer), "of sender {n}");
    }
}

#[test]
fn members_that_always_send_do_not_starve_another() {
    // Together they fill the backlog again whenever it opens.
    const SENDERS: usize = MAX_REQUESTS / EACH + 1;
    let server = Server::with(|settings| {
        settings.server.workers = 1;
        settings.session.rate_limit = 0;
        settings.session.send_queue = 100_000;
        settings.session.send_queue_bytes = 1 << 30;
    });
    let mut senders: Vec<Client> = (0..SENDERS)
        .map(|n| server.join("room", &format!("{n}")))
        .collect();
    let mut other = server.join("room", "other");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for sender in &mut senders {
            scope.spawn(|| {
                let requests = pipelined(sender);
                while !is_over.load(Ordering::Relaxed) {
                    sender.write(&requests);
                    let mut unanswered = EACH;
                    while unanswered > 0 {
                        unanswered -= usize::from(sender.next().get("err").is_some());
                    }
                }
            });
        }
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let asked = Instant::now();
            other.ask("broadcast", json!({}));
            while asked.elapsed() < PATIENCE && other.next().get("err").is_none() {}
            longest = longest.max(asked.elapsed());
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(longest < PATIENCE, "its request was not handled");
    });
}

#[test]
fn a_paused_member_that_ends_holds_nobody_up() {
    let server = patient_server();
    let mut watcher = server.join("room", "watcher");
    for round in 0..5 {
        let members: Vec<Client> = (0..MEMBERS)
            .map(|n| server.join("room", &format!("{round} {n}")))
            .collect();
        for mut member in members {
            member.write(&pipelined(&member));
            // Some while they are paused, some before they are read from.
            member.reset();
        }
        let last = watcher.ask("broadcast", json!({"round": round}));
        while watcher.next()["cseq"] != last {}
    }
    let leaves = watcher.ask("channel.leave", json!({}));
    while watcher.next()["cseq"] != leaves {}
    // A paused client that goes to another room is read from there.
    watcher.join("elsewhere", "watcher");
    watcher.ok("broadcast", json!({}));
}

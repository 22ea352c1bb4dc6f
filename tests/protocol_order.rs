//! What a room says and in which order, over real sockets and from many threads at once: the
//! numbers of events, joins and replacements, dumps in the midst of change, and that every
//! request is answered exactly once, whatever the others do.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod common;

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::Shutdown,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Client, PATIENCE, Received, Server, frame, random::Random, stream};
use serde_json::{Value, json};

// ------------------------------------------------------------------------------------ helpers

/// Ends the threads of a scope when the test's own thread is done with them, or has failed.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn is_answer(message: &Value) -> bool {
    message.get("err").is_some()
}

/// Reads until the answer to `cseq`, which must be the next answer; the events before it too.
fn settle(client: &mut Client, cseq: i64) -> (Value, Vec<Value>) {
    let mut events = Vec::new();
    loop {
        let message = client.next();
        if is_answer(&message) {
            assert_eq!(message["cseq"], cseq, "{message}");
            return (message, events);
        }
        events.push(message);
    }
}

/// Asks in a room where others speak.
fn call_amid_events(client: &mut Client, method: &str, data: Value) -> (Value, Vec<Value>) {
    let cseq = client.ask(method, data);
    settle(client, cseq)
}

/// Joins with `last_event`, so that events carry their numbers; the answer's `last_event`.
fn join_numbered(client: &mut Client, channel: &str, endpoint: &str) -> u64 {
    let data = client.join_with(json!({
        "app": "test", "channel": channel, "endpoint": endpoint, "last_event": 0,
    }));
    data["last_event"].as_u64().unwrap()
}

fn numbered(server: &Server, channel: &str, endpoint: &str) -> Client {
    let mut client = server.connect();
    join_numbered(&mut client, channel, endpoint);
    client
}

/// What happened, in short: "join anna", "publish anna s1", "broadcast anna".
fn short(event: &Value) -> String {
    let data = &event["data"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match event["event"].as_str() {
        Some("broadcast") => format!("broadcast {}", text(&data["source_endpoint"]["endpoint"])),
        Some("stream") => format!(
            "{} {} {}",
            text(&data["stat"]),
            text(&data["endpoint"]),
            text(&data["stream"])
        ),
        Some("endpoint") => format!("{} {}", text(&data["stat"]), text(&data["endpoint"])),
        _ => panic!("an event of the room was due: {event}"),
    }
}

/// The next events must be these.
fn sees(client: &mut Client, due: &[&str]) {
    for due in due {
        let message = client.next();
        assert_eq!(short(&message), *due, "{message}");
    }
}

/// A request as text, of any session.
fn request(session: &str, cseq: i64, method: &str, data: &Value) -> Vec<u8> {
    let request = json!({
        "version": 0, "cseq": cseq, "method": method, "session": session, "data": data,
    });
    frame(true, 1, request.to_string().as_bytes())
}

/// A member that broadcasts as fast as it is answered until it is told to stop; how often.
fn make_noise(mut client: Client, stop: &AtomicBool) -> u64 {
    let mut said = 0;
    while !stop.load(Ordering::Relaxed) {
        said += 1;
        let (answer, _) = call_amid_events(&mut client, "broadcast", json!({"noise": said}));
        assert_eq!(answer["err"], 0, "{answer}");
    }
    said
}

/// A member that joins, leaves, publishes and broadcasts at random until it is told to stop.
fn make_trouble(server: &Server, channel: &str, endpoint: &str, seed: u64, stop: &AtomicBool) {
    let mut random = Random::new(seed);
    let mut client = server.connect();
    let stream_id = format!("stream of {endpoint}");
    let (mut joined, mut publishes) = (false, false);
    while !stop.load(Ordering::Relaxed) {
        if !joined {
            client.join(channel, endpoint);
            (joined, publishes) = (true, false);
            continue;
        }
        let (method, data) = match random.below(10) {
            0 => ("channel.leave", json!({})),
            1..=3 => ("stream.add", json!({"stream": stream(&stream_id)})),
            4 | 5 => ("stream.delete", json!({"stream_id": stream_id})),
            6 => {
                // Without a leave, and then as a new connection.
                match random.below(3) {
                    0 => client.close(1000),
                    1 => client.stream.shutdown(Shutdown::Both).unwrap(),
                    _ => client.reset(),
                }
                client = server.connect();
                joined = false;
                continue;
            }
            7 => {
                // A new connection takes the old one's place.
                let mut newer = server.connect();
                newer.join(channel, endpoint);
                (client, publishes) = (newer, false);
                continue;
            }
            _ => ("broadcast", json!({"n": random.below(1000)})),
        };
        let (answer, _) = call_amid_events(&mut client, method, data);
        let due = if method == "stream.delete" && !publishes {
            404
        } else {
            0
        };
        assert_eq!(answer["err"], due, "{method}: {answer}");
        match method {
            "channel.leave" => joined = false,
            "stream.add" => publishes = true,
            "stream.delete" => publishes = false,
            _ => {}
        }
    }
}

// -------------------------------------------------------------------------------- numbering

#[test]
fn events_carry_their_number_for_who_sent_last_event_and_0_for_who_did_not() {
    let server = Server::start();
    let mut plain = server.join("room", "plain");
    let mut counts = server.connect();
    assert_eq!(join_numbered(&mut counts, "room", "counts"), 2);
    sees(&mut plain, &["join counts"]);
    let mut other = server.connect();
    assert_eq!(other.join("room", "other")["last_event"], 3);
    other.publish("s");
    other.ok("broadcast", json!({}));
    other.ok("stream.delete", json!({"stream_id": "s"}));
    other.ok("channel.leave", json!({}));
    let due = [
        "join other",
        "publish other s",
        "broadcast other",
        "unpublish other s",
        "leave other",
    ];
    for (n, due) in due.into_iter().enumerate() {
        let (event, numbered) = (plain.next(), counts.next());
        assert_eq!((short(&event), &event["cseq"]), (due.into(), &json!(0)));
        assert_eq!(
            (short(&numbered), &numbered["cseq"]),
            (due.into(), &json!(n + 3))
        );
        assert_eq!(event["session"], plain.session.as_str());
        assert_eq!(numbered["session"], counts.session.as_str());
    }
}

#[test]
fn the_first_members_join_is_event_1() {
    let server = Server::start();
    for channel in ["a", "b"] {
        let mut client = server.connect();
        assert_eq!(join_numbered(&mut client, channel, "member"), 1);
    }
}

#[test]
fn events_are_counted_even_where_nobody_sees_them() {
    let server = Server::start();
    let mut alone = server.join("room", "alone");
    alone.publish("s"); // 2
    alone.ok("broadcast", json!({})); // 3
    alone.ok("stream.delete", json!({"stream_id": "s"})); // 4
    // What is refused or only asks is no event.
    assert_eq!(
        alone.call("stream.delete", json!({"stream_id": "s"}))["err"],
        404
    );
    alone.dump();
    alone.ok("media_server.dump", json!({}));
    let mut second = server.connect();
    assert_eq!(join_numbered(&mut second, "room", "second"), 5);
    sees(&mut alone, &["join second"]);
    alone.ok("broadcast", json!({}));
    assert_eq!(second.next()["cseq"], 6);
}

#[test]
fn only_its_own_deeds_are_missing_from_a_members_numbers() {
    let server = Server::start();
    let mut anna = numbered(&server, "room", "anna");
    let mut ben = numbered(&server, "room", "ben");
    assert_eq!(anna.next()["cseq"], 2);
    let mut random = Random::new(7);
    let mut due = 2;
    for _ in 0..50 {
        due += 1;
        let (actor, other) = match random.below(2) {
            0 => (&mut anna, &mut ben),
            _ => (&mut ben, &mut anna),
        };
        actor.ok("broadcast", json!({}));
        assert_eq!(other.next()["cseq"], due);
    }
}

#[test]
fn a_rooms_numbers_go_on_while_it_is_not_empty_and_a_new_room_begins_anew() {
    let server = Server::start();
    let mut first = server.join("room", "first");
    let mut second = server.connect();
    assert_eq!(second.join("room", "second")["last_event"], 2);
    sees(&mut first, &["join second"]);
    first.ok("channel.leave", json!({})); // event 3
    assert_eq!(first.join("room", "first")["last_event"], 4);
    sees(&mut second, &["leave first", "join first"]);
    second.ok("channel.leave", json!({}));
    sees(&mut first, &["leave second"]);
    // The last one leaves, and with it the room. It comes back in the same write.
    for _ in 0..50 {
        let join = json!({"app": "test", "channel": "room", "endpoint": "first"});
        let bytes = [
            request(&first.session, -1, "channel.leave", &json!({})),
            request("", -2, "channel.join", &join),
        ];
        first.write(&bytes.concat());
        assert_eq!(first.answer(-1)["err"], 0);
        let data = first.answer(-2)["data"].clone();
        assert_eq!(data["last_event"], 1);
        first.session = data["session"].as_str().unwrap().to_owned();
    }
}

#[test]
fn an_error_events_number_is_0() {
    let server = Server::start();
    let mut member = numbered(&server, "room", "member");
    let mut other = server.join("room", "other");
    assert_eq!(member.next()["cseq"], 2);
    member.text("no JSON");
    assert_eq!(member.error_event(), "bad_message");
    // And it took none of the room's numbers.
    other.ok("broadcast", json!({}));
    assert_eq!(member.next()["cseq"], 3);
    // One that ends a membership neither.
    let mut newer = numbered(&server, "room", "member");
    assert_eq!(member.error_event(), "endpoint_replaced");
    sees(&mut other, &["leave member", "join member"]);
    other.ok("broadcast", json!({}));
    assert_eq!(newer.next()["cseq"], 6);
}

// -------------------------------------------------------------------------------------- rooms

#[test]
fn the_same_channel_name_in_two_apps_is_two_rooms() {
    let server = Server::start();
    let join = |app: &str| {
        let mut client = server.connect();
        let data = client.join_with(json!({"app": app, "channel": "room", "endpoint": "x"}));
        assert_eq!(data["last_event"], 1, "{app}");
        client
    };
    let (mut one, mut two) = (join("one"), join("two"));
    one.publish("s");
    two.publish("s");
    one.ok("broadcast", json!({}));
    two.ok("broadcast", json!({}));
    assert_eq!(one.names(), ["x"]);
    assert_eq!(two.names(), ["x"]);
}

#[test]
fn no_event_comes_before_the_joins_answer_and_all_after_it() {
    let server = Server::start();
    let noisy = server.join("room", "noisy");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| make_noise(noisy, &stop));
        let come_and_stay = |worker: usize| {
            for n in 0..15 {
                // The harness takes nothing but the answer for the first message.
                let mut client = server.connect();
                let mut due = join_numbered(&mut client, "room", &format!("{worker} {n}"));
                // None is missing behind it: it caused none itself.
                for _ in 0..5 {
                    due += 1;
                    let event = client.next();
                    assert_eq!(event["cseq"], due, "{event}");
                    assert_eq!(event["session"], client.session.as_str());
                }
            }
        };
        let come_and_go = || {
            // The same where the join is not the connection's first.
            let mut client = server.connect();
            for _ in 0..30 {
                join_numbered(&mut client, "room", "comes and goes");
                let (answer, _) = call_amid_events(&mut client, "channel.leave", json!({}));
                assert_eq!(answer["err"], 0);
            }
        };
        thread::scope(|joiners| {
            for worker in 0..4 {
                joiners.spawn(move || come_and_stay(worker));
            }
            come_and_go();
        });
    });
}

#[test]
fn after_the_answer_to_a_leave_no_event_of_that_room_comes() {
    let server = Server::start();
    let noisy = server.join("noisy room", "noisy");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| make_noise(noisy, &stop));
        let mut client = server.connect();
        for round in 0..40 {
            client.join("noisy room", "member");
            // So that it is in the midst of the noise.
            sees(&mut client, &["broadcast noisy"]);
            let old = client.session.clone();
            let leave = client.ask("channel.leave", json!({}));
            let (answer, _) = settle(&mut client, leave);
            assert_eq!(answer["err"], 0);
            // Whatever comes now is an answer, again and again.
            for _ in 0..5 {
                assert_eq!(client.call("channel.dump", json!({}))["err"], 410);
            }
            // In another room too.
            client.join(&format!("quiet {round}"), "member");
            assert_ne!(client.session, old);
            assert_eq!(client.names(), ["member"]);
            client.ok("channel.leave", json!({}));
        }
    });
}

#[test]
fn unpublish_comes_before_leave_however_a_member_goes() {
    let server = Server::without_resume();
    let mut watcher = server.join("room", "watcher");
    type Way = fn(Client);
    let ways: [(&str, Way); 6] = [
        ("leave", |mut client| {
            drop(client.ok("channel.leave", json!({})))
        }),
        ("close", |mut client| client.close(1000)),
        ("broken frame", |mut client| client.frame(true, 3, b"")),
        ("binary frame", |mut client| client.frame(true, 2, b"")),
        ("end of stream", drop),
        ("reset", Client::reset),
    ];
    for (what, way) in ways {
        for publishes in [true, false] {
            let mut member = server.join("room", what);
            let mut due = vec![format!("join {what}")];
            if publishes {
                member.publish("s");
                due.push(format!("publish {what} s"));
                due.push(format!("unpublish {what} s"));
            }
            due.push(format!("leave {what}"));
            way(member);
            let due: Vec<&str> = due.iter().map(String::as_str).collect();
            sees(&mut watcher, &due);
        }
    }
    assert_eq!(watcher.names(), ["watcher"]);
}

// ------------------------------------------------------------------------------- replacement

#[test]
fn a_newer_connection_takes_its_endpoints_place() {
    let server = Server::with(|settings| settings.server.workers = 4);
    let mut watcher = server.join("room", "watcher");
    let mut old = server.join("room", "member");
    old.publish("s");
    sees(&mut watcher, &["join member", "publish member s"]);
    let mut new = server.connect();
    // The newcomer sees nothing of it but its answer, and the old one nothing but its end.
    assert_eq!(new.join("room", "member")["last_event"], 6);
    assert_ne!(new.session, old.session);
    assert_eq!(old.error_event(), "endpoint_replaced");
    assert_eq!(old.closed(), 4001);
    sees(
        &mut watcher,
        &["unpublish member s", "leave member", "join member"],
    );
    let row = json!({"endpoint": "member", "device": "", "role": "normal"});
    assert_eq!(new.dump()[1], row, "the stream went with its owner");
    // Its stream_id is free at once.
    watcher.publish("s");
    sees(&mut new, &["publish watcher s"]);
    // The end of the old socket touches nobody.
    drop(old);
    assert_eq!(watcher.names(), ["watcher", "member"]);
    assert_eq!(new.names(), ["watcher", "member"]);
}

#[test]
fn the_only_member_of_a_room_is_replaced_within_the_same_room() {
    let server = Server::start();
    let mut old = server.join("room", "member");
    for n in 1..20 {
        let mut new = server.connect();
        assert_eq!(new.join("room", "member")["last_event"], 2 * n + 1);
        assert_eq!(old.error_event(), "endpoint_replaced");
        assert_eq!(old.closed(), 4001);
        old = new;
    }
}

#[test]
fn a_replaced_connections_requests_have_no_effect() {
    let server = Server::start();
    let mut watcher = server.join("room", "watcher");
    let mut old = server.join("room", "member");
    let mut new = server.join("room", "member");
    // Sent while the news is on its way, or later: nothing may come of it.
    let bytes = [
        request(&old.session, 1, "broadcast", &json!({})),
        request(
            &old.session,
            2,
            "stream.add",
            &json!({"stream": stream("s")}),
        ),
        request(&old.session, 3, "channel.leave", &json!({})),
    ];
    let _ = old.stream.write_all(&bytes.concat());
    sees(
        &mut watcher,
        &["join member", "leave member", "join member"],
    );
    assert_eq!(old.error_event(), "endpoint_replaced");
    assert_eq!(old.closed(), 4001);
    assert_eq!(watcher.names(), ["watcher", "member"]);
    assert_eq!(new.names(), ["watcher", "member"]);
}

#[test]
fn of_many_joins_of_one_endpoint_at_once_each_is_answered_and_one_remains() {
    const AT_ONCE: usize = 5;
    let server = Server::with(|settings| settings.server.workers = 4);
    for round in 0..10 {
        let channel = &format!("room {round}");
        let mut watcher = server.join(channel, "watcher");
        let barrier = Barrier::new(AT_ONCE);
        let clients: Vec<Client> = thread::scope(|scope| {
            let join = || {
                let mut client = server.connect();
                barrier.wait();
                // The answer comes first, then whatever becomes of it.
                client.join(channel, "member");
                client
            };
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(join)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        for _ in 1..AT_ONCE {
            sees(&mut watcher, &["join member", "leave member"]);
        }
        sees(&mut watcher, &["join member"]);
        assert_eq!(watcher.names(), ["watcher", "member"]);
        // All are answered by now, so whoever is to be replaced has been.
        let mut remaining = 0;
        for mut client in clients {
            let dump = request(&client.session, 9, "channel.dump", &json!({}));
            let _ = client.stream.write_all(&dump);
            let message = client.next();
            if is_answer(&message) {
                assert_eq!(message["err"], 0, "{message}");
                remaining += 1;
            } else {
                assert_eq!(message["data"]["type"], "endpoint_replaced", "{message}");
                assert_eq!(client.closed(), 4001);
            }
        }
        assert_eq!(remaining, 1);
    }
}

// --------------------------------------------------------------------------------- pipelining

#[test]
fn a_leave_a_join_and_what_follows_may_stand_in_one_write() {
    const CHANNELS: usize = 40;
    let refused = ["channel.dump", "broadcast", "stream.add", "channel.leave"];
    for workers in 2..=4 {
        // Many of the channels live on another thread than the one before.
        let server = Server::with(|settings| settings.server.workers = workers);
        let mut client = server.join("start", "member");
        let mut watchers: Vec<Client> = (0..4)
            .map(|n| server.join(&format!("room {}", n * 10), "watcher"))
            .collect();
        for step in 0..2 * CHANNELS {
            let at = step % CHANNELS;
            let join =
                json!({"app": "test", "channel": format!("room {at}"), "endpoint": "member"});
            let mut bytes = request(&client.session, 1, "channel.leave", &json!({}));
            bytes.extend(request("", 2, "channel.join", &join));
            // The session behind the join cannot be known yet; each answer proves its place.
            for (n, method) in (3..).zip(refused) {
                bytes.extend(request("", n, method, &json!({"stream": stream("s")})));
            }
            bytes.extend(request("", 7, "channel.join", &join));
            bytes.extend(frame(true, 9, &[at as u8]));
            client.write(&bytes);
            assert_eq!(client.answer(1)["err"], 0);
            let answer = client.answer(2);
            assert_eq!(answer["err"], 0, "{answer}");
            let watched = at.is_multiple_of(10);
            if !watched {
                assert_eq!(
                    answer["data"]["last_event"], 1,
                    "rooms end with their last member"
                );
            }
            for n in 3..7 {
                assert_eq!(client.answer(n)["err"], 410);
            }
            assert_eq!(client.answer(7)["err"], 409);
            assert_eq!(client.receive(), Received::Pong(vec![at as u8]));
            client.session = answer["data"]["session"].as_str().unwrap().to_owned();
            if watched {
                assert_eq!(client.names(), ["watcher", "member"]);
            }
        }
        // Each of the four was visited twice.
        for watcher in &mut watchers {
            sees(watcher, &["join member", "leave member"].repeat(2));
            assert_eq!(watcher.names(), ["watcher"]);
        }
    }
}

#[test]
fn pipelined_requests_are_all_answered_once_and_in_order() {
    let server = Server::start();
    let mut client = server.join("room", "member");
    let requests = [
        ("channel.dump", json!({}), 0),
        ("stream.add", json!({"stream": stream("s")}), 0),
        ("broadcast", json!({"n": 1}), 0),
        ("stream.add", json!({"stream": stream("t")}), 409),
        ("stream.delete", json!({"stream_id": "s"}), 0),
        ("stream.delete", json!({"stream_id": "s"}), 404),
        ("media_server.dump", json!({}), 0),
    ];
    // Far more than may be unanswered at a time.
    let all: Vec<_> = (0..500).zip(requests.iter().cycle()).collect();
    let bytes = all
        .iter()
        .map(|(cseq, (method, data, _))| request(&client.session, *cseq, method, data));
    let bytes: Vec<u8> = bytes.flatten().collect();
    client.write(&bytes);
    for (cseq, (method, _, err)) in all {
        assert_eq!(client.answer(cseq)["err"], *err, "{method}");
    }
    assert_eq!(client.names(), ["member"]);
}

#[test]
fn a_leave_behind_pipelined_requests_takes_effect_after_them() {
    let server = Server::start();
    let mut watcher = server.join("room", "watcher");
    let mut client = server.join("room", "member");
    for n in 0..100 {
        client.ask("broadcast", json!({"n": n}));
    }
    let leave = client.ask("channel.leave", json!({}));
    // Of no room any more by then.
    let late = client.ask("broadcast", json!({"late": true}));
    for cseq in leave - 100..=leave {
        assert_eq!(client.answer(cseq)["err"], 0);
    }
    assert_eq!(client.answer(late)["err"], 410);
    sees(&mut watcher, &["join member"]);
    for n in 0..100 {
        assert_eq!(watcher.event("broadcast")["payload"]["n"], n);
    }
    sees(&mut watcher, &["leave member"]);
}

#[test]
fn pipelined_broadcasts_arrive_in_order_at_all() {
    const BROADCASTS: i64 = 300;
    let server = Server::with(|settings| settings.server.workers = 4);
    let mut receivers: Vec<Client> = Vec::new();
    for n in 0..6 {
        let client = numbered(&server, "room", &format!("receiver {n}"));
        for other in &mut receivers {
            other.event("endpoint");
        }
        receivers.push(client);
    }
    let mut sender = server.join("room", "sender");
    let all: Vec<u8> = (0..BROADCASTS)
        .flat_map(|n| request(&sender.session, n, "broadcast", &json!({ "n": n })))
        .collect();
    sender.write(&all);
    for n in 0..BROADCASTS {
        assert_eq!(sender.answer(n)["err"], 0);
    }
    for receiver in &mut receivers {
        sees(receiver, &["join sender"]);
        for n in 0..BROADCASTS {
            let event = receiver.next();
            assert_eq!(event["data"]["payload"]["n"], n, "{event}");
            assert_eq!(event["cseq"], 8 + n, "{event}");
        }
        assert_eq!(receiver.names().len(), 7, "and none came twice");
    }
}

// ------------------------------------------------------------------------------- in the midst

/// A room as a client sees it: endpoint and stream_id, in join order.
#[derive(Debug, PartialEq)]
struct View(Vec<(String, Option<String>)>);

impl View {
    fn of_dump(answer: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let rows = answer["data"]["endpoint_list"].as_array().unwrap();
        let row = |row: &Value| {
            let stream_id = text(&row["stream"]["stream_id"]);
            (text(&row["endpoint"]).unwrap(), stream_id)
        };
        Self(rows.iter().map(row).collect())
    }

    /// What an event changes. It must fit: nobody joins twice, and nothing goes that is not
    /// there.
    fn apply(&mut self, event: &Value) {
        let data = &event["data"];
        let name = data["endpoint"].as_str().unwrap_or_default().to_owned();
        let at = self.0.iter().position(|(endpoint, _)| *endpoint == name);
        let fits = |fits: bool| assert!(fits, "{event} in {self:?}");
        match (event["event"].as_str().unwrap(), data["stat"].as_str()) {
            ("endpoint", Some("join")) => {
                fits(at.is_none());
                self.0.push((name, None));
            }
            ("endpoint", Some("leave")) => {
                fits(at.is_some_and(|at| self.0[at].1.is_none()));
                self.0.remove(at.unwrap());
            }
            ("stream", Some("publish")) => {
                fits(at.is_some());
                self.0[at.unwrap()].1 = Some(data["stream"].as_str().unwrap().to_owned());
            }
            ("stream", Some("unpublish")) => {
                fits(at.is_some_and(|at| self.0[at].1.as_deref() == data["stream"].as_str()));
                self.0[at.unwrap()].1 = None;
            }
            ("broadcast", None) => {}
            _ => panic!("{event}"),
        }
    }
}

#[test]
fn a_dump_is_exactly_the_state_between_the_events_around_it() {
    let server = Server::with(|settings| settings.server.workers = 4);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for n in 0..4 {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || make_trouble(server, "room", &format!("actor {n}"), n, stop));
        }
        let observe = |name: &str| {
            let mut client = server.connect();
            let mut number = join_numbered(&mut client, "room", name);
            let (first, events) = call_amid_events(&mut client, "channel.dump", json!({}));
            number += events.len() as u64;
            let mut view = View::of_dump(&first);
            let mut seen = 0;
            for _ in 0..150 {
                let (dump, events) = call_amid_events(&mut client, "channel.dump", json!({}));
                for event in &events {
                    // It causes none itself, so none may be missing either.
                    number += 1;
                    assert_eq!(event["cseq"], number, "{event}");
                    view.apply(event);
                }
                seen += events.len();
                assert_eq!(view, View::of_dump(&dump), "after {events:#?}");
            }
            // Until there was enough to see, however the threads took turns.
            while seen < 200 {
                view.apply(&client.next());
                seen += 1;
            }
            let (dump, events) = call_amid_events(&mut client, "channel.dump", json!({}));
            events.iter().for_each(|event| view.apply(event));
            assert_eq!(view, View::of_dump(&dump));
        };
        thread::scope(|observers| {
            observers.spawn(|| observe("observer 1"));
            observe("observer 2");
        });
    });
}

#[test]
fn a_join_with_the_end_of_its_connection_right_behind_leaves_nobody_in_the_room() {
    let server = Server::with(|settings| {
        settings.server.workers = 4;
        settings.rooms.resume_window = Duration::ZERO;
    });
    let mut watcher = server.join("room", "watcher");
    let mut view = View(vec![("watcher".into(), None)]);
    for round in 0..200 {
        let mut client = server.connect();
        let data = json!({
            "app": "test", "channel": "room", "endpoint": format!("flees {}", round % 3),
        });
        client.write(&request("", 1, "channel.join", &data));
        match round % 4 {
            0 => drop(client),
            1 => client.reset(),
            2 => client.close(1000),
            // Its answer may still come, or not; the end must.
            _ => read_to_the_end(&mut client),
        }
    }
    // Some may be on their way yet. None stays, and whoever was seen to come is seen to go.
    let begun = Instant::now();
    loop {
        let (dump, events) = call_amid_events(&mut watcher, "channel.dump", json!({}));
        events.iter().for_each(|event| view.apply(event));
        assert_eq!(view, View::of_dump(&dump));
        if view.0.len() == 1 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "still there: {view:?}");
    }
}

#[test]
fn all_members_see_the_same_events_in_the_same_order() {
    const EVENTS: usize = 400;
    let server = Server::with(|settings| settings.server.workers = 4);
    let mut observers = [
        numbered(&server, "room", "observer 1"),
        numbered(&server, "room", "observer 2"),
        numbered(&server, "room", "observer 3"),
    ];
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for n in 0..3 {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || make_trouble(server, "room", &format!("actor {n}"), 50 + n, stop));
        }
        let log = |client: &mut Client| -> Vec<(u64, Value)> {
            let events = std::iter::repeat_with(|| client.next())
                .map(|event| (event["cseq"].as_u64().unwrap(), event["data"].clone()))
                .skip_while(|(number, _)| *number <= 3);
            events.take(EVENTS).collect()
        };
        let [first, rest @ ..] = &mut observers;
        let due = log(first);
        assert!(
            due.iter()
                .map(|(number, _)| *number)
                .eq(4..4 + EVENTS as u64)
        );
        for other in rest {
            assert_eq!(log(other), due);
        }
    });
}

#[test]
fn every_request_gets_exactly_one_answer_in_a_busy_room() {
    let server = Server::with(|settings| settings.server.workers = 4);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for n in 0..2 {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || make_trouble(server, "room", &format!("actor {n}"), 99 + n, stop));
        }
        let ask_much = |name: &str, seed: u64| {
            let mut random = Random::new(seed);
            let mut client = server.join("room", name);
            let stream_id = format!("stream of {name}");
            for _ in 0..10 {
                let mut due: BTreeSet<i64> = BTreeSet::new();
                for _ in 0..40 {
                    let (method, data) = random.pick(&[
                        ("broadcast", "{}"),
                        ("broadcast", "[]"),
                        ("stream.add", "add"),
                        ("stream.delete", "delete"),
                        ("channel.dump", "{}"),
                        ("media_server.dump", r#"{"protocol":"none"}"#),
                        ("nothing", "{}"),
                    ]);
                    let data = match data {
                        "add" => json!({"stream": stream(&stream_id)}),
                        "delete" => json!({"stream_id": stream_id}),
                        text => serde_json::from_str(text).unwrap(),
                    };
                    due.insert(client.ask(method, data));
                }
                // An answer that needs no room may overtake, none may fall behind this one.
                let fence = client.ask("channel.dump", json!({}));
                loop {
                    let message = client.next();
                    if !is_answer(&message) {
                        continue;
                    }
                    let cseq = message["cseq"].as_i64().unwrap();
                    if cseq == fence {
                        break;
                    }
                    assert!(
                        due.remove(&cseq),
                        "answered twice, or never asked: {message}"
                    );
                }
                assert!(due.is_empty(), "unanswered: {due:?}");
            }
        };
        thread::scope(|askers| {
            for n in 0..4 {
                askers.spawn(move || ask_much(&format!("asker {n}"), n));
            }
        });
    });
}

// ----------------------------------------------------------------------------------- nonsense

/// One input of the fuzzing client, of many kinds.
enum Nonsense {
    /// A text frame around something that was JSON once.
    Text(Vec<u8>),
    /// Bytes behind an upgrade that are frames, or were.
    Raw(Vec<u8>),
}

fn mutate(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    const BITS: [&[u8]; 14] = [
        b"\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"-1e999",
        b"\\ud800",
        b"\\",
        b"\0",
        b"\xff",
        b"18446744073709551616",
    ];
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(20)).min(bytes.len());
        match random.below(6) {
            0 => drop(bytes.drain(at..end)),
            1 => drop(bytes.splice(at..end, random.pick(&BITS).iter().copied())),
            2 => bytes.truncate(at),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            4 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            _ => {
                let n = random.below(4);
                let noise = random.bytes(n);
                bytes.splice(at..at, noise);
            }
        }
    }
    bytes
}

fn nonsense(session: &str, random: &mut Random) -> Nonsense {
    let templates = [
        (
            "channel.join",
            json!({"app": "fuzz", "channel": "room", "endpoint": "x", "role": "relayer"}),
        ),
        ("channel.leave", json!({})),
        ("stream.add", json!({"stream": stream("s")})),
        ("stream.delete", json!({"stream_id": "s"})),
        ("channel.dump", json!({})),
        ("media_server.dump", json!({"protocol": "webrtc"})),
        (
            "broadcast",
            json!({"text": "会议", "n": [1.5, null, true, {"a": {}}]}),
        ),
    ];
    let (method, data) = &templates[random.below(templates.len())];
    let text = json!({
        "version": 0, "cseq": random.next(), "method": method, "session": session, "data": data,
    })
    .to_string();
    match random.below(10) {
        // A few unharmed ones, so that there is something to harm.
        0 => Nonsense::Text(text.into()),
        1..=6 => Nonsense::Text(mutate(text.into(), random)),
        7 => {
            let n = random.below(200);
            Nonsense::Text(random.bytes(n))
        }
        8 => {
            let opcode = random.pick(&[0, 1, 1, 1, 2, 8, 9, 10]);
            let frames = [
                frame(random.below(2) == 0, opcode, text.as_bytes()),
                frame(true, 1, text.as_bytes()),
            ];
            Nonsense::Raw(mutate(frames.concat(), random))
        }
        _ => {
            let n = random.below(100);
            let noise = random.bytes(n);
            Nonsense::Raw(noise)
        }
    }
}

/// Ends a connection from this side and reads it to its end; the harness looks at every frame on
/// the way.
fn read_to_the_end(client: &mut Client) {
    let _ = client.stream.shutdown(Shutdown::Write);
    while !matches!(client.receive(), Received::End | Received::Reset) {}
}

/// Whether the connection survived what it was sent: then it answers a ping.
fn survives(client: &mut Client, mark: [u8; 8]) -> bool {
    let _ = client.stream.write_all(&frame(true, 9, &mark));
    loop {
        match client.receive() {
            Received::Pong(payload) if payload == mark => return true,
            Received::Close(_) => {
                read_to_the_end(client);
                return false;
            }
            Received::End | Received::Reset => return false,
            _ => {}
        }
    }
}

fn fuzz(server: &Server, seed: u64, inputs: u64) {
    let mut random = Random::new(seed);
    let endpoint = format!("fuzz {seed}");
    let enter = |client: &mut Client| {
        client.join_with(json!({"app": "fuzz", "channel": "room", "endpoint": endpoint}));
    };
    let mut client = server.connect();
    for n in 0..inputs {
        if n.is_multiple_of(8) {
            // From time to time a member, so that what is sent has something to break.
            client = server.connect();
            enter(&mut client);
        }
        match nonsense(&client.session.clone(), &mut random) {
            Nonsense::Text(text) => {
                let _ = client.stream.write_all(&frame(true, 1, &text));
                if !survives(&mut client, n.to_be_bytes()) {
                    client = server.connect();
                }
            }
            Nonsense::Raw(bytes) => {
                let _ = client.stream.write_all(&bytes);
                read_to_the_end(&mut client);
                client = server.connect();
            }
        }
    }
}

#[test]
fn nonsense_from_one_client_disturbs_nobody_else() {
    let server = Server::start();
    let mut anna = server.join("talk", "anna");
    let mut ben = server.join("talk", "ben");
    sees(&mut anna, &["join ben"]);
    let over = AtomicBool::new(false);
    let said = thread::scope(|scope| {
        let talkers = scope.spawn(|| {
            let mut said = 0;
            while !over.load(Ordering::Relaxed) {
                said += 1;
                anna.ok("broadcast", json!({ "n": said }));
                assert_eq!(ben.event("broadcast")["payload"]["n"], said);
                // The other speaks.
                std::mem::swap(&mut anna, &mut ben);
            }
            said
        });
        let _over = StopOnDrop(&over);
        thread::scope(|fuzzers| {
            fuzzers.spawn(|| fuzz(&server, 1, 1500));
            fuzz(&server, 2, 1500);
        });
        over.store(true, Ordering::Relaxed);
        talkers.join().unwrap()
    });
    assert!(
        said > 100,
        "they said {said} things to each other meanwhile"
    );
    assert_eq!(anna.names().len(), 2);
    assert_eq!(ben.names().len(), 2);
}

#[test]
fn nonsense_before_the_upgrade_is_no_error_of_the_server() {
    let server = Server::start();
    let request = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut random = Random::new(3);
    for _ in 0..500 {
        let noise = random.bytes(20);
        let mut client = Client::tcp(server.addr);
        let bytes = [mutate(request.to_vec(), &mut random), noise].concat();
        let _ = client.stream.write_all(&bytes);
        let _ = client.stream.shutdown(Shutdown::Write);
        let _ = client.stream.read_to_end(&mut Vec::new());
    }
    // The harness fails this test where the server has logged an error.
    assert_eq!(server.join("room", "member").names(), ["member"]);
}

//! Members that drop in every way and come back at random, over real sockets, while others talk,
//! join, leave, publish and replace: in the end each one's log of events is that of an observer
//! who was there all the time.
//!
//! The order in which threads run is chance, so a seed does not repeat a failure here; it does in
//! `room_resume_model.rs`, where the same is shown without sockets.

mod common;

use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Barrier,
    thread,
    time::Duration,
};

use common::{
    Server, frame,
    member::{Member, short},
    random::Random,
    stream,
};
use serde_json::{Value, json};

const ROOMS: usize = 4;
const MEMBERS: usize = 5;
const STEPS: usize = 120;

/// One session of a member from its join to its end: what it was told.
struct Session {
    endpoint: String,
    joined: u64,
    log: Vec<(u64, Value)>,
    /// Whether it was there until the end, and has read everything.
    to_the_end: bool,
}

impl Session {
    fn of(member: Member, to_the_end: bool) -> Self {
        Self {
            endpoint: member.endpoint.clone(),
            joined: member.joined,
            log: member.log,
            to_the_end,
        }
    }

    /// Holds its log against everything that has happened in the room.
    fn is_what_was_seen(&self, observed: &[(u64, Value)]) {
        let last = self.log.last().map_or(0, |(number, _)| *number);
        let due = observed.iter().filter(|(number, event)| {
            let is_over = !self.to_the_end && *number > last;
            *number > self.joined && about(event) != self.endpoint && !is_over
        });
        let due: Vec<_> = due.collect();
        for (at, (read, due)) in self.log.iter().zip(&due).enumerate() {
            assert_eq!(
                read, *due,
                "{} joined as {}: its {at}th",
                self.endpoint, self.joined
            );
        }
        assert_eq!(
            self.log.len(),
            due.len(),
            "{} joined as {}",
            self.endpoint,
            self.joined
        );
    }
}

/// Whose doing it was.
fn about(event: &Value) -> &str {
    let data = &event["data"];
    let endpoint = data
        .get("endpoint")
        .unwrap_or(&data["source_endpoint"]["endpoint"]);
    endpoint.as_str().unwrap()
}

/// Comes back, and is let go on with its session.
fn back(member: &mut Member) {
    let data = member.resume();
    assert!(data["last_event"].as_u64().unwrap() >= member.last_event);
}

/// One member's life, at random: the sessions that have ended, and the one that it has still.
fn live(
    addr: SocketAddr,
    channel: &str,
    endpoint: &str,
    random: &mut Random,
) -> (Vec<Session>, Member) {
    let mut ended = Vec::new();
    let mut graves = Vec::new();
    let mut member = Member::join(addr, channel, endpoint);
    for step in 0..STEPS {
        match random.below(14) {
            0..=3 => member.broadcast(&format!("{endpoint} {step}")),
            4 => {
                let id = format!("stream {}", random.below(3));
                let answer = member.call("stream.add", json!({"stream": stream(&id)}));
                assert!(
                    [0, 409].contains(&answer["err"].as_i64().unwrap()),
                    "{answer}"
                );
            }
            5 => {
                let id = format!("stream {}", random.below(3));
                let answer = member.call("stream.delete", json!({"stream_id": id}));
                assert!(
                    [0, 404].contains(&answer["err"].as_i64().unwrap()),
                    "{answer}"
                );
            }
            6 => {
                member.cut();
                back(&mut member);
            }
            7 => {
                drop(member.take_client());
                back(&mut member);
            }
            8 => {
                // Within a frame, of which the close frame is then a part; or in order.
                let mut client = member.take_client();
                client.write(&frame(true, 1, &[b' '; 1_000])[..random.pick(&[0, 3, 500])]);
                client.close(4900);
                drop(client);
                back(&mut member);
            }
            // Its network is gone, and nobody has noticed yet.
            9 => {
                graves.push(member.take_client());
                back(&mut member);
            }
            // Lost again in the middle of the replay, or before it.
            10 => {
                for _ in 0..random.below(4) {
                    member.cut();
                    back(&mut member);
                }
            }
            // It stops reading, is put out, and comes back.
            11 => {
                for _ in 0..400 {
                    member.client().ask("channel.dump", json!({}));
                }
                // Whether it was or not: what it has not read is not lost.
                member.cut();
                back(&mut member);
            }
            12 => {
                member.ok("channel.leave", json!({}));
                ended.push(Session::of(member, false));
                member = Member::join(addr, channel, endpoint);
            }
            // A newcomer of the same name, who knows of no session.
            _ => {
                let newcomer = Member::join(addr, channel, endpoint);
                let (error, code) = member.read_to_the_end();
                assert_eq!(
                    (error.as_deref(), code),
                    (Some("endpoint_replaced"), Some(4001))
                );
                ended.push(Session::of(member, false));
                member = newcomer;
            }
        }
    }
    (ended, member)
}

#[test]
fn in_the_end_every_log_is_that_of_one_who_was_there_all_the_time() {
    let seed = Random::seed();
    let server = Server::with(|settings| {
        settings.server.workers = 4;
        // Who means to come back is never too late, and finds all that it has missed.
        settings.rooms.resume_window = Duration::from_secs(60);
        settings.rooms.resume_events = 1_000_000;
        settings.rooms.resume_bytes = 1 << 30;
        // Who stops reading is put out soon.
        settings.session.send_queue = 100;
        settings.session.send_queue_bytes = 20_000;
    });
    thread::scope(|scope| {
        for room in 0..ROOMS {
            let addr = server.addr;
            scope.spawn(move || meet(addr, &format!("room {room}"), seed ^ room as u64));
        }
    });
}

/// What the last word in a room is.
const LAST_WORD: &str = "broadcast closer that is all";

fn read_to_the_last_word(member: &mut Member) {
    while short(member.event()) != LAST_WORD {}
}

/// A room's members live side by side; then their logs are compared.
fn meet(addr: SocketAddr, channel: &str, seed: u64) {
    let mut observer = Member::join(addr, channel, "observer");
    let all_have_lived = Barrier::new(MEMBERS + 1);
    let sessions: Vec<Session> = thread::scope(|scope| {
        let members: Vec<_> = (0..MEMBERS)
            .map(|n| {
                let all_have_lived = &all_have_lived;
                scope.spawn(move || {
                    let endpoint = format!("member {n}");
                    let mut random = Random::new(seed.wrapping_add(n as u64));
                    let lived = catch_unwind(AssertUnwindSafe(|| {
                        live(addr, channel, &endpoint, &mut random)
                    }));
                    // Also where it has failed, or the others would wait for ever.
                    all_have_lived.wait();
                    let (mut sessions, mut member) =
                        lived.unwrap_or_else(|failure| resume_unwind(failure));
                    read_to_the_last_word(&mut member);
                    sessions.push(Session::of(member, true));
                    sessions
                })
            })
            .collect();
        scope.spawn(|| read_to_the_last_word(&mut observer));
        all_have_lived.wait();
        Member::join(addr, channel, "closer").broadcast("that is all");
        members
            .into_iter()
            .flat_map(|member| member.join().unwrap())
            .collect()
    });
    for session in &sessions {
        session.is_what_was_seen(&observer.log);
    }
}

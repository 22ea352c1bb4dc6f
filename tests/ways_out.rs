//! However a session ends, one guard takes its connection out of the room: the member is gone or
//! waited for, as the way demands, and nothing of the connection is left.
//!
//! What a panic leaves is in `panics.rs`.

mod common;

use std::{
    net::Shutdown,
    thread,
    time::{Duration, Instant},
};

use common::{keys::Signer, openmetrics::Figures, *};
use meeting_server::{ending::Ending, settings::Settings};
use serde_json::{Value, json};

/// A way out.
struct Way {
    ending: Ending,
    settings: fn(&mut Settings),
    /// What Anna does; what is left of her connection, if it is not to be dropped yet.
    go: fn(&Server, Client) -> Option<Client>,
    /// How many connections there are more than before, once she has gone that way.
    newcomers: usize,
}

/// Without settings or a connection of its own.
const fn way(ending: Ending, go: fn(&Server, Client) -> Option<Client>) -> Way {
    Way {
        ending,
        settings: |_| {},
        go,
        newcomers: 0,
    }
}

/// Every way but [`Ending::Left`], which ends no connection, and [`Ending::RoomFailed`], which is
/// provoked in `panics.rs`.
const WAYS: [Way; 16] = [
    way(Ending::Closed, |_, mut anna| {
        anna.close(1000);
        Some(anna)
    }),
    way(Ending::GivenUp, |_, mut anna| {
        anna.close(4900);
        Some(anna)
    }),
    way(Ending::Lost, |_, anna| {
        anna.reset();
        None
    }),
    way(Ending::BadFrame, |_, mut anna| {
        anna.frame(true, 3, b"no such opcode");
        Some(anna)
    }),
    way(Ending::Binary, |_, mut anna| {
        anna.frame(true, 2, b"binary");
        Some(anna)
    }),
    way(Ending::BadText, |_, mut anna| {
        anna.frame(true, 1, &[0xff; 5_000]);
        Some(anna)
    }),
    way(Ending::TooBig, |_, mut anna| {
        anna.frame(true, 1, &[b' '; 70_000]);
        Some(anna)
    }),
    Way {
        settings: |settings| {
            settings.session.ping_interval = Duration::from_millis(100);
            settings.session.idle_timeout = Duration::from_secs(1);
        },
        ..way(Ending::Idle, |_, anna| Some(anna))
    },
    Way {
        settings: |settings| {
            settings.session.send_timeout = Duration::from_millis(500);
            settings.session.send_queue = 1_000;
            settings.session.send_queue_bytes = 1 << 30;
        },
        ..way(Ending::SendTimeout, |server, anna| {
            speak(server, 100);
            Some(anna)
        })
    },
    Way {
        settings: |settings| {
            settings.session.send_timeout = Duration::from_millis(500);
            settings.session.send_queue = 4;
        },
        ..way(Ending::SlowConsumer, |server, anna| {
            speak(server, 100);
            Some(anna)
        })
    },
    // Before a join: there is a connection, and no member.
    Way {
        settings: |settings| settings.session.join_timeout = Duration::from_millis(300),
        ..way(Ending::NotJoined, |_, mut anna| {
            anna.ok("channel.leave", json!({}));
            Some(anna)
        })
    },
    // A join with a bad token ends the session that the connection has.
    Way {
        settings: |settings| settings.auth.keys = vec![key().settings],
        ..way(Ending::Unauthorized, |_, mut anna| {
            let data = json!({"app": "test", "channel": "room", "token": "bad"});
            assert_eq!(anna.call("channel.join", data)["err"], 401);
            Some(anna)
        })
    },
    Way {
        settings: |settings| {
            settings.session.rate_limit = 10;
            settings.session.rate_burst = 10;
        },
        ..way(Ending::RateLimited, |_, mut anna| {
            for _ in 0..50 {
                anna.frame(true, 10, b"");
            }
            Some(anna)
        })
    },
    Way {
        newcomers: 1,
        ..way(Ending::Replaced, |server, mut anna| {
            let newer = joined(server, "anna", "");
            assert_eq!(anna.error_event(), "endpoint_replaced");
            Some(newer)
        })
    },
    Way {
        newcomers: 1,
        ..way(Ending::TakenOver, |server, mut anna| {
            let newer = joined(server, "anna", &anna.session);
            assert_eq!(newer.session, anna.session);
            assert_eq!(anna.error_event(), "endpoint_replaced");
            Some(newer)
        })
    },
    // Last, since it ends the server.
    way(Ending::Shutdown, |_, anna| Some(anna)),
];

/// The key of the tokens, where they are asked for; the same at each call.
fn key() -> Signer {
    Signer::hs256("test", "k")
}

fn server(way: &Way) -> Server {
    Server::with(|settings| {
        settings.server.ops_bind = Some("127.0.0.1:0".parse().unwrap());
        settings.rooms.resume_window = Duration::from_secs(60);
        (way.settings)(settings);
    })
}

/// Who has joined the room, going on with `session` if that may be.
fn joined(server: &Server, endpoint: &str, session: &str) -> Client {
    let mut client = Client::connect_narrow(server.addr);
    client.session = session.to_owned();
    let data = client.ok(
        "channel.join",
        json!({
            "app": "test",
            "channel": "room",
            "endpoint": endpoint,
            "token": key().token(json!({})),
        }),
    );
    client.session = data["session"].as_str().unwrap().to_owned();
    client
}

/// Says much, by somebody who then leaves.
fn speak(server: &Server, broadcasts: usize) {
    let mut speaker = joined(server, "speaker", "");
    let pad = "x".repeat(60_000);
    for _ in 0..broadcasts {
        let cseq = speaker.ask("broadcast", json!({"pad": pad}));
        while speaker.next()["cseq"] != cseq {}
    }
    let cseq = speaker.ask("channel.leave", json!({}));
    while speaker.next()["cseq"] != cseq {}
    speaker.close(1000);
    assert_eq!(speaker.closed(), 1000);
}

fn figure(figures: &Figures, name: &str) -> f64 {
    figures[&format!("meeting_server_{name}")]
}

fn alive(figures: &Figures, kind: &str) -> f64 {
    figure(figures, &format!("objects{{kind=\"{kind}\"}}"))
}

/// How many connections have ended like that.
fn ended(figures: &Figures, ending: Ending) -> f64 {
    let code = ending
        .close_code()
        .map_or("none".to_owned(), |code| (code as u16).to_string());
    let reason = ending.as_str();
    figure(
        figures,
        &format!("disconnects_total{{code=\"{code}\",reason=\"{reason}\"}}"),
    )
}

/// What the answer to a dump says of the members: each one's name, and whether it publishes.
/// Whatever comes before the answer is passed over.
fn members(client: &mut Client) -> Vec<(String, bool)> {
    let cseq = client.ask("channel.dump", json!({}));
    let answer = loop {
        let message = client.next();
        if message["cseq"] == cseq {
            break message;
        }
    };
    let rows = answer["data"]["endpoint_list"].as_array().unwrap();
    let row = |row: &Value| {
        let endpoint = row["endpoint"].as_str().unwrap().to_owned();
        (endpoint, row.get("stream").is_some())
    };
    rows.iter().map(row).collect()
}

#[test]
fn no_way_out_is_forgotten_here() {
    for ending in Ending::ALL {
        let is_here = WAYS.iter().any(|way| way.ending == ending);
        let is_elsewhere = matches!(ending, Ending::Left | Ending::RoomFailed);
        assert!(is_here || is_elsewhere, "{ending:?}");
    }
}

#[test]
fn however_a_session_ends_its_member_is_gone_or_waited_for_and_nothing_else_is_left() {
    thread::scope(|scope| {
        for way in WAYS.iter().filter(|way| way.ending != Ending::Shutdown) {
            scope.spawn(|| goes_out(way));
        }
    });
}

fn goes_out(way: &Way) {
    let server = server(way);
    let mut anna = joined(&server, "anna", "");
    anna.publish("anna-1");
    let left = (way.go)(&server, anna);
    let connections = way.newcomers as f64;
    let now = Figures::when(server.ops, |now| {
        ended(now, way.ending) == 1.0 && alive(now, "connection") == connections
    });
    for kind in ["session", "outbox"] {
        assert_eq!(alive(&now, kind), connections, "{kind} {:?}", way.ending);
    }
    // What the room says: of one who watches from now on, since it would be a slow reader.
    let mut ben = joined(&server, "ben", "");
    let due: &[(&str, bool)] = match way.ending {
        // The newer one is another member, and publishes nothing.
        Ending::Replaced => &[("anna", false), ("ben", false)],
        ending if ending.is_loss() => &[("anna", true), ("ben", false)],
        _ => &[("ben", false)],
    };
    let due: Vec<(String, bool)> = due.iter().map(|(n, s)| ((*n).to_owned(), *s)).collect();
    assert_eq!(members(&mut ben), due, "{:?}", way.ending);
    let waited_for = way.ending.is_loss() && way.newcomers == 0;
    let now = Figures::scrape(server.ops);
    assert_eq!(figure(&now, "sessions_detached"), f64::from(waited_for));

    // All that is left goes: a member that is waited for by the return of its endpoint.
    drop(left);
    let mut again = joined(&server, "anna", "");
    for client in [&mut again, &mut ben] {
        members(client);
        client.ok("channel.leave", json!({}));
    }
    drop((again, ben));
    let kinds = ["connection", "session", "room", "outbox", "event"];
    Figures::when(server.ops, |now| {
        kinds.iter().all(|kind| alive(now, kind) == 0.0)
            && figure(now, "sessions") == 0.0
            && figure(now, "streams") == 0.0
    });
}

#[test]
fn at_a_shutdown_members_and_rooms_are_gone_before_the_server_is() {
    let mut server = Server::with(|settings| {
        settings.server.ops_bind = Some("127.0.0.1:0".parse().unwrap());
        settings.server.drain_timeout = PATIENCE;
        settings.session.send_timeout = PATIENCE;
        settings.session.send_queue_bytes = 1 << 30;
    });
    // He reads nothing, so that the server is still there when the others have gone.
    let stuck = joined(&server, "stuck", "");
    speak(&server, 100);
    let mut anna = server.join("another room", "anna");
    let mut ben = server.join("another room", "ben");
    anna.event("endpoint");
    anna.publish("anna-1");
    ben.event("stream");
    // Who is waited for is waited for no longer.
    ben.reset();
    server.begin_stop();
    assert_eq!(anna.error_event(), "server_shutdown");
    assert_eq!(anna.closed(), 1001);
    drop(anna);
    let now = Figures::when(server.ops, |now| {
        alive(now, "connection") == 1.0 && alive(now, "room") == 0.0
    });
    for gauge in ["sessions", "sessions_detached", "streams", "history_events"] {
        assert_eq!(figure(&now, gauge), 0.0, "{gauge}");
    }
    assert_eq!(
        alive(&now, "session"),
        0.0,
        "his is over, though his socket is full"
    );
    drop(stuck);
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < PATIENCE, "nobody is left to wait for");
}

#[test]
fn a_join_that_dies_at_once_leaves_nobody_in_the_room() {
    let server = Server::with(|settings| {
        settings.server.workers = 4;
        settings.server.ops_bind = Some("127.0.0.1:0".parse().unwrap());
        settings.rooms.resume_window = Duration::ZERO;
    });
    for round in 0..200 {
        let mut client = server.connect();
        let channel = (round % 10).to_string();
        let data = json!({"app": "test", "channel": channel, "endpoint": round.to_string()});
        client.ask("channel.join", data);
        match round % 4 {
            0 => client.reset(),
            1 => drop(client),
            2 => client.close(1000),
            _ => client.stream.shutdown(Shutdown::Both).unwrap(),
        }
    }
    let kinds = ["connection", "session", "room", "outbox", "event"];
    Figures::when(server.ops, |now| {
        kinds.iter().all(|kind| alive(now, kind) == 0.0) && figure(now, "sessions") == 0.0
    });
}

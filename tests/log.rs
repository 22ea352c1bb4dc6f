//! What an operator who sees only the log can tell, and what nobody can.

mod common;

use std::time::{Duration, Instant};

use common::{
    http::upgrade_status,
    log_line::{Format, Line},
    openmetrics::Figures,
    process::Process,
    *,
};
use serde_json::{Value, json};

/// What each line has, in this order. A "leave" has the figures of a connection or, where that was
/// lost before, how long the member was away; `ping_ms` only where a ping was answered.
fn keys_of(message: &str) -> &'static [&'static str] {
    match message {
        "start" => &[
            "version",
            "commit",
            "bind",
            "page",
            "ops",
            "workers",
            "tls",
            "max_connections",
            "max_connections_per_ip",
            "max_rooms",
            "max_members",
            "rate_limit",
        ],
        "join" => &[
            "app", "channel", "endpoint", "sid", "client", "device", "role", "members", "resumed",
        ],
        "resume" => &[
            "app",
            "channel",
            "endpoint",
            "sid",
            "client",
            "away_seconds",
            "missed_events",
        ],
        "leave" | "lost" => &[
            "app",
            "channel",
            "endpoint",
            "sid",
            "client",
            "why",
            "close_code",
            "away_seconds",
            "seconds",
            "messages_in",
            "messages_out",
            "bytes_in",
            "bytes_out",
            "longest_queue",
            "ping_ms",
        ],
        "publish" | "unpublish" => &["app", "channel", "endpoint", "sid", "stream"],
        "join refused" => &[
            "app",
            "channel",
            "endpoint",
            "client",
            "err",
            "reason",
            "suppressed",
        ],
        "join timeout" => &["client", "suppressed"],
        "upgrade refused" => &["reason", "client", "suppressed"],
        "room closed" => &[
            "app",
            "channel",
            "seconds",
            "most_members",
            "members_in_all",
            "events",
        ],
        "figures" => &[
            "sessions",
            "connections",
            "rooms",
            "streams",
            "joins",
            "messages_in",
            "events_out",
            "bytes_out",
            "refusals",
            "slow_consumers",
            "worst_delivery_ms",
            "worst_turn_ms",
        ],
        "going down" => &["connections"],
        "gone down" => &["connections_left"],
        open if open.starts_with("open to everybody: ") => &[],
        other => panic!("an unknown line: {other}"),
    }
}

/// One person's time in a room, as the log tells it.
#[derive(Debug, PartialEq)]
struct Stay {
    sid: String,
    /// app, channel, endpoint
    place: [String; 3],
    client: String,
    device: String,
    role: String,
    /// "+" and "-" with the stream's name, in order.
    streams: Vec<String>,
    came: u32,
    /// Its connection is lost.
    away: bool,
    went: Option<u32>,
    why: String,
    /// Of the client's close frame, if it has sent one.
    close_code: Option<String>,
    seconds: f64,
    messages_in: u64,
    messages_out: u64,
}

impl Stay {
    /// What one of its connections came to.
    fn add_figures(&mut self, line: &Line) {
        assert_eq!(self.place, place(line));
        assert_eq!(self.client, line["client"]);
        self.why = line["why"].to_owned();
        self.close_code = line.get("close_code").map(str::to_owned);
        self.seconds += line.number("seconds");
        self.messages_in += line.count("messages_in");
        self.messages_out += line.count("messages_out");
    }
}

/// Between the times of two lines, midnight or not.
fn seconds_between(earlier: u32, later: u32) -> f64 {
    let day = 24 * 60 * 60 * 1000;
    f64::from((later + day - earlier) % day) / 1e3
}

fn place(line: &Line) -> [String; 3] {
    ["app", "channel", "endpoint"].map(|key| line[key].to_owned())
}

/// Everybody's stay in the order in which they came.
fn stays(lines: &[Line]) -> Vec<Stay> {
    let mut stays: Vec<Stay> = Vec::new();
    for line in lines {
        let known = line
            .get("sid")
            .and_then(|sid| stays.iter_mut().find(|stay| stay.sid == sid));
        match (line.message.as_str(), known) {
            ("join", None) => stays.push(Stay {
                sid: line["sid"].to_owned(),
                place: place(line),
                client: line["client"].to_owned(),
                device: line["device"].to_owned(),
                role: line["role"].to_owned(),
                streams: Vec::new(),
                came: line.time,
                away: false,
                went: None,
                why: String::new(),
                close_code: None,
                seconds: 0.0,
                messages_in: 0,
                messages_out: 0,
            }),
            ("publish", Some(stay)) => {
                assert_eq!(stay.place, place(line));
                stay.streams.push(format!("+{}", &line["stream"]));
            }
            ("unpublish", Some(stay)) => {
                assert_eq!(stay.place, place(line));
                stay.streams.push(format!("-{}", &line["stream"]));
            }
            ("lost", Some(stay)) => {
                assert_eq!((stay.away, stay.went), (false, None));
                stay.away = true;
                stay.add_figures(line);
            }
            ("resume", Some(stay)) => {
                assert_eq!(stay.place, place(line));
                assert_eq!((stay.away, stay.went), (true, None));
                stay.away = false;
                stay.client = line["client"].to_owned();
                stay.seconds += line.number("away_seconds");
            }
            ("leave", Some(stay)) => {
                assert_eq!(stay.went, None);
                stay.went = Some(line.time);
                if stay.away {
                    assert_eq!(
                        (stay.place.clone(), &stay.why[..]),
                        (place(line), &line["why"])
                    );
                    stay.seconds += line.number("away_seconds");
                } else {
                    stay.add_figures(line);
                }
            }
            ("join" | "publish" | "unpublish" | "lost" | "resume" | "leave", _) => {
                panic!("out of place: {line:?}")
            }
            _ => {}
        }
    }
    stays
}

fn of<'a>(lines: &'a [Line], message: &str) -> Vec<&'a Line> {
    let mut of = Vec::new();
    of.extend(lines.iter().filter(|line| line.message == message));
    of
}

#[test]
fn the_story_of_a_meeting_is_told_by_the_log_alone() {
    for format in Format::BOTH {
        let settings = [("ROOMS__MAX_MEMBERS", "3"), ("ROOMS__RESUME_WINDOW", "3s")];
        let mut process = Process::start(format, "info", &settings);
        let begun = Instant::now();
        let mut anna = Client::connect_to(process.addr, "/ws?device=phone");
        let mut sids = Vec::new();
        let mut came = |client: &Client| sids.push(client.session[..8].to_owned());
        anna.join("lobby", "anna");
        came(&anna);
        let mut ben = process.join("lobby", "ben");
        came(&ben);
        let mut carl = process.connect();
        carl.join_with(
            json!({"app": "test", "channel": "lobby", "endpoint": "carl",
            "role": "recorder"}),
        );
        came(&carl);
        anna.event("endpoint");
        anna.event("endpoint");
        ben.event("endpoint");
        ben.publish("ben-1");
        anna.event("stream");
        anna.publish("anna-1");
        let mut dora = process.connect();
        let join =
            |endpoint: &str| json!({"app": "test", "channel": "lobby", "endpoint": endpoint});
        assert_eq!(dora.call("channel.join", join("dora"))["err"], 503);
        assert_eq!(
            dora.call("channel.join", json!({"app": "test"}))["err"],
            400
        );
        let mut newer = process.join("lobby", "ben");
        came(&newer);
        anna.event("stream");
        anna.event("endpoint");
        anna.event("endpoint");
        assert_eq!(anna.call("channel.join", join("anna"))["err"], 409);
        anna.ok("stream.delete", json!({"stream_id": "anna-1"}));
        // A network change: what is lost is the connection, not the session.
        let session = anna.session.clone();
        anna.reset();
        process.line("lost");
        newer.event("stream");
        newer.ok("broadcast", json!({"text": "missed"}));
        let mut anna = process.connect();
        anna.session = session;
        let resume = anna.ask("channel.join", join("anna"));
        assert_eq!(anna.answer(resume)["data"]["resumed"], true);
        anna.event("broadcast");
        anna.publish("anna-2");
        anna.ok("channel.leave", json!({}));
        carl.reset();
        // The others hear of it, so it has happened.
        while newer.next()["data"]["endpoint"] != "carl" {}
        newer.close(1000);
        newer.closed();
        process.line("room closed");
        // How long somebody was away is reckoned by the ticker's clock, which is coarse.
        let most = begun.elapsed().as_secs_f64() + 1.0;
        process.signal("TERM");
        drop((anna, ben, newer, dora));
        let (status, lines) = process.ended();
        assert!(status.success());

        let page = format!("http://{}/", process.addr);
        assert_eq!(&of(&lines, "start")[0]["page"], page);
        // Where the limit of open files is an ordinary one.
        let warnings = lines.iter().filter(|line| line.level == "warn");
        let warnings: Vec<&str> = warnings.map(|line| &line.message[..]).collect();
        let [openness] = warnings[..] else {
            panic!("{warnings:?}");
        };
        assert!(openness.starts_with("open to everybody"));

        let stays = stays(&lines);
        let told: Vec<_> = stays
            .iter()
            .map(|stay| {
                (
                    stay.place[2].as_str(),
                    stay.streams.join(" "),
                    &stay.why[..],
                )
            })
            .collect();
        let story = [
            ("anna", "+anna-1 -anna-1 +anna-2 -anna-2", "left"),
            ("ben", "+ben-1 -ben-1", "replaced"),
            ("carl", "", "lost"),
            ("ben", "", "closed"),
        ];
        assert_eq!(
            told,
            story.map(|(who, what, why)| (who, what.to_owned(), why))
        );
        let codes = stays.iter().map(|stay| stay.close_code.as_deref());
        let codes: Vec<_> = codes.collect();
        assert_eq!(codes, [None, None, None, Some("1000")]);
        let told: Vec<&str> = stays.iter().map(|stay| stay.sid.as_str()).collect();
        assert_eq!(told, sids);
        let lobby = |stay: &Stay| stay.place[..2] == ["test", "lobby"];
        assert!(
            stays
                .iter()
                .all(|stay| lobby(stay) && stay.client == "127.0.0.1")
        );
        let shown = |what: fn(&Stay) -> &str| stays.iter().map(what).collect::<Vec<_>>();
        assert_eq!(shown(|stay| &stay.device), ["phone", "", "", ""]);
        assert_eq!(
            shown(|stay| &stay.role),
            ["normal", "normal", "recorder", "normal"]
        );
        for stay in &stays {
            let went = stay.went.expect("everybody goes");
            let stayed = seconds_between(stay.came, went);
            // Two stamps in whole seconds, and a moment between each and what it stamps.
            assert!((stayed - stay.seconds).abs() < 2.0, "{stay:?}");
            assert!((0.0..=most).contains(&stay.seconds), "{stay:?}");
        }
        let anna = &stays[0];
        // Five requests: the last is the leave, whose answer comes behind the line.
        assert_eq!(anna.messages_in, 5);
        // The answers to two joins, four others, and seven events.
        assert_eq!(anna.messages_out, 13);

        let refused: Vec<_> = of(&lines, "join refused")
            .iter()
            .map(|line| (line.get("channel"), line.get("endpoint"), &line["err"]))
            .collect();
        let expected = [
            (Some("lobby"), Some("dora"), "503"),
            (None, None, "400"),
            (Some("lobby"), Some("anna"), "409"),
        ];
        assert_eq!(refused, expected);

        let [room] = of(&lines, "room closed")[..] else {
            panic!("one room");
        };
        assert_eq!((&room["app"], &room["channel"]), ("test", "lobby"));
        assert_eq!(
            (room.count("most_members"), room.count("members_in_all")),
            (3, 4)
        );
        // Four joins, four leaves, three streams that came and went, one broadcast.
        assert_eq!(room.count("events"), 15);
        assert!((0.0..=most).contains(&room.number("seconds")));
    }
}

#[test]
fn the_fields_of_a_line_have_always_the_same_order() {
    for format in Format::BOTH {
        let settings = [
            ("LOG__STATS_INTERVAL", "100ms"),
            ("SESSION__PING_INTERVAL", "50ms"),
            ("SERVER__MAX_CONNECTIONS", "2"),
        ];
        let mut process = Process::start(format, "info", &settings);
        let mut anna = process.join("c", "anna");
        anna.publish("s");
        let Received::Ping(payload) = anna.receive() else {
            panic!("a ping was due");
        };
        anna.frame(true, 10, &payload);
        anna.ok("stream.delete", json!({"stream_id": "s"}));
        let mut ben = process.connect();
        ben.call("channel.join", json!({"app": "test", "channel": "\n"}));
        assert_eq!(upgrade_status(process.addr, ""), 503);
        anna.ok("channel.leave", json!({}));
        ben.join("c", "ben");
        process.line("figures");
        process.signal("TERM");
        drop((anna, ben));
        let (_, lines) = process.ended();
        for line in &lines {
            // What is not known is left out.
            let mut known = keys_of(&line.message).iter();
            let in_order = line
                .keys()
                .iter()
                .all(|key| known.any(|known| known == key));
            assert!(in_order, "{line:?}");
            let may_lack =
                ["start", "join", "lost", "leave", "join refused"].contains(&line.message.as_str());
            assert!(
                may_lack || line.fields.len() == keys_of(&line.message).len(),
                "{line:?}"
            );
        }
        let leaves = of(&lines, "leave");
        assert_eq!(leaves.len(), 2);
        assert!(leaves[0].get("ping_ms").is_some(), "Anna has answered one");
    }
}

#[test]
fn the_line_of_figures_comes_each_interval_and_adds_up() {
    let settings = [
        ("LOG__STATS_INTERVAL", "1s"),
        ("SERVER__ALLOWED_ORIGINS", "https://meet.example.org"),
        ("SESSION__SEND_QUEUE", "20"),
        ("SESSION__RATE_LIMIT", "0"),
        // A pong would count as a message, and the first ping comes at any time of the interval.
        ("SESSION__PING_INTERVAL", "24h"),
        ("SESSION__IDLE_TIMEOUT", "48h"),
    ];
    let mut process = Process::start(Format::Text, "info", &settings);
    let mut anna = process.join("c", "anna");
    let mut ben = process.join("c", "ben");
    anna.event("endpoint");
    ben.publish("s");
    anna.event("stream");
    assert_eq!(
        upgrade_status(process.addr, "Origin: https://evil.example\r\n"),
        403
    );
    let mut lines = Vec::new();
    let mut next = |process: &mut Process| {
        let line = process.line("figures");
        lines.push(line.clone());
        line
    };
    loop {
        let line = next(&mut process);
        let now = ["sessions", "connections", "rooms", "streams"].map(|key| line.count(key));
        if now == [2, 2, 1, 1] {
            break;
        }
    }
    // Carl reads nothing.
    let carl = process.join("c", "carl");
    for client in [&mut anna, &mut ben] {
        client.event("endpoint");
    }
    let payload = json!({"text": "x".repeat(60_000)});
    let mut broadcasts = 0;
    // Anna's queue is no longer than his: she reads each before the next one comes.
    let before = Instant::now();
    let left = loop {
        assert!(before.elapsed() < PATIENCE, "Carl is never put out");
        ben.ask("broadcast", payload.clone());
        broadcasts += 1;
        let message = anna.next();
        if message["event"] != "broadcast" {
            break message;
        }
        while ben.next()["event"] == "endpoint" {}
    };
    assert_eq!(left["data"]["endpoint"], "carl");
    // What is still on its way: Ben's answer and event, and the last broadcast for Anna.
    anna.event("broadcast");
    let rest = [ben.next(), ben.next()];
    assert!(rest.iter().any(|message| message["event"] == "endpoint"));
    drop(carl);
    anna.close(1000);
    assert_eq!(anna.closed(), 1000);
    assert_eq!(ben.event("endpoint")["stat"], "leave");
    ben.close(1000);
    assert_eq!(ben.closed(), 1000);
    let received = anna.received + ben.received;
    drop((anna, ben));
    while next(&mut process).count("connections") > 0 {}
    let last = next(&mut process);
    for key in [
        "sessions",
        "rooms",
        "streams",
        "joins",
        "messages_in",
        "events_out",
    ] {
        assert_eq!(last.count(key), 0, "{key} at the end");
    }
    let sum = |key: &str| lines.iter().map(|line| line.count(key)).sum::<u64>();
    assert_eq!(sum("joins"), 3);
    // Joins, Ben's stream and the broadcasts.
    assert_eq!(sum("messages_in"), 3 + 1 + broadcasts);
    assert_eq!(sum("refusals"), 1);
    assert_eq!(sum("slow_consumers"), 1);
    assert!(sum("bytes_out") > received as u64, "Carl's were some too");
    assert!(
        lines
            .iter()
            .any(|line| line.number("worst_delivery_ms") > 0.0)
    );
    assert!(lines.iter().all(|line| line.number("worst_turn_ms") >= 0.0));
    // The page says the same.
    let page = Figures::scrape(process.ops);
    for (key, metric) in [
        ("joins", "joins_total"),
        ("messages_in", "frames_received_total"),
        ("events_out", "deliveries_total"),
        ("bytes_out", "sent_bytes_total"),
    ] {
        let metric = format!("meeting_server_{metric}");
        assert_eq!(sum(key) as f64, page[metric.as_str()], "{key}");
    }
    // Once a second, on average.
    let took = seconds_between(lines[0].time, lines[lines.len() - 1].time);
    assert!(
        (took - (lines.len() - 1) as f64).abs() < 1.0,
        "{took} s for {}",
        lines.len()
    );
}

#[test]
fn names_write_no_lines_and_no_fields_of_their_own() {
    let names = [
        "a b",
        "a=b",
        "x endpoint=evil",
        "x\" endpoint=\"evil",
        "\\",
        "\\\" sid=1",
        "'; --",
        "{\"json\":\"yes\",\"endpoint\":\"evil\"}",
        "\",\"endpoint\":\"evil",
        "\u{202e}live",
        "\u{2066}x\u{2069}\u{200f}\u{61c}",
        "\u{2028}2026-01-01T00:00:00.000Z INFO  join app=evil",
        "\u{2029}x",
        "\u{feff}\u{200b}\u{ad}",
        "\u{e0041}\u{e007f}",
        "e\u{301}\u{301}",
        "\u{301}",
        "\u{a0}\u{3000}",
        "会议 🎥",
        "null",
        "-1",
        "1e3",
    ];
    for format in Format::BOTH {
        let settings = [("SESSION__RATE_LIMIT", "0")];
        let mut process = Process::start(format, "info", &settings);
        let mut client = process.connect();
        for name in names {
            client.join_with(json!({"app": name, "channel": name, "endpoint": name,
                "device": name}));
            client.publish(name);
            client.ok("channel.leave", json!({}));
        }
        // Line breaks and the like are in no name at all, and so in no line.
        let controls = ["a\nb", "\r\n", "\u{85}", "\u{9b}2J", "\x1b[31m", "\0", "\t"];
        client.session.clear();
        for name in controls {
            let join = json!({"app": "a", "channel": "c", "endpoint": name});
            assert_eq!(client.call("channel.join", join)["err"], 400);
        }
        process.signal("TERM");
        drop(client);
        let (_, lines) = process.ended();
        for (message, keys) in [
            ("join", &["app", "channel", "endpoint", "device"][..]),
            ("publish", &["app", "channel", "endpoint", "stream"]),
            ("unpublish", &["app", "channel", "endpoint", "stream"]),
            ("leave", &["app", "channel", "endpoint"]),
            ("room closed", &["app", "channel"]),
        ] {
            let of = of(&lines, message);
            assert_eq!(of.len(), names.len(), "{message}");
            let known = keys_of(message);
            for line in &of {
                assert!(
                    line.keys().iter().all(|key| known.contains(key)),
                    "{line:?}"
                );
            }
            for key in keys {
                let mut told: Vec<&str> = of.iter().map(|line| &line[key]).collect();
                // Rooms of several threads close in any order.
                told.sort_unstable();
                let mut names = names;
                names.sort_unstable();
                assert_eq!(told, names, "{key} of {message}");
            }
        }
        // Of one address and one reason, only the first is logged at once.
        assert_eq!(of(&lines, "join refused").len(), 1);
    }
}

#[test]
fn no_session_token_or_message_is_in_the_log_whatever_its_level() {
    for format in Format::BOTH {
        let settings = [("SESSION__MAX_MESSAGE_BYTES", "2000")];
        let mut process = Process::start(format, "info,meeting_server=trace", &settings);
        let addr = process.addr;
        let mut sessions = Vec::new();
        let mut anna = Client::connect_to(addr, "/ws?token=SECRET-url&device=phone");
        anna.join_with(json!({"app": "test", "channel": "c", "endpoint": "anna",
            "token": "SECRET-join"}));
        sessions.push(anna.session.clone());
        let mut ben = Client::tcp(addr);
        ben.write(
            b"GET /ws?token=SECRET-url HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
              Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer \
              SECRET-header\r\nCookie: SECRET-cookie\r\nSec-WebSocket-Key: \
              dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        assert!(ben.read_http_head().starts_with("HTTP/1.1 101 "));
        ben.join("c", "ben");
        sessions.push(ben.session.clone());
        anna.event("endpoint");
        anna.ok("broadcast", json!({"text": "SECRET-payload"}));
        ben.event("broadcast");
        // Refused in all ways.
        let stolen = ben.session.clone();
        for request in [
            json!({"cseq": 1, "method": "SECRET-method", "session": anna.session}),
            json!({"cseq": 1, "method": "channel.dump", "session": stolen}),
            json!({"cseq": 1, "method": "channel.dump", "session": "SECRET-session"}),
            json!({"cseq": 1, "method": "broadcast", "session": anna.session,
                "data": "SECRET-data"}),
            json!({"cseq": 1, "method": "channel.join", "data": {"app": "test", "channel": "c",
                "role": "SECRET-role", "token": "SECRET-join"}}),
            json!({"cseq": 1, "method": "channel.join", "data": {"app": "test", "channel": "c",
                "token": {"SECRET-object": 1}}}),
            json!({"cseq": "SECRET-cseq", "method": "channel.join"}),
            json!({"cseq": 1, "version": "SECRET-version", "method": "channel.join"}),
            json!({"cseq": 1, "method": "channel.join", "data": {"app": "test",
                "channel": "SECRET-\n"}}),
        ] {
            anna.send(&request);
            let answer: Value = anna.next();
            assert_ne!(answer["err"], 0);
        }
        anna.text("SECRET-no-json");
        assert_eq!(anna.error_event(), "bad_message");
        anna.text(&"SECRET-long".repeat(300));
        assert_eq!(anna.error_event(), "message_too_big");
        assert_eq!(anna.closed(), 1009);
        ben.event("endpoint");
        ben.frame(true, 8, b"\x0f\xa0SECRET-reason");
        assert_eq!(ben.closed(), 4000);
        let mut carl = process.connect();
        carl.frame(true, 2, b"SECRET-binary");
        assert_eq!(carl.closed(), 1003);
        for request in [
            "GET /ws?token=SECRET-url HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /nowhere?token=SECRET-url HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /ws?token=SECRET-url HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 7\r\n\r\n",
            "GET /ws?token=SECRET-url HTTP/1.1\r\nSECRET header\r\n\r\n",
            "SECRET-nonsense\r\n\r\n",
        ] {
            let mut plain = Client::tcp(addr);
            plain.write(request.as_bytes());
            plain.read_http_head();
        }
        process.signal("TERM");
        drop((anna, ben, carl));
        let (_, lines) = process.ended();
        assert_eq!(of(&lines, "leave").len(), 2);
        let log = process.log.join("\n");
        assert!(!log.contains("SECRET"), "{log}");
        for session in sessions {
            assert!(log.contains(&session[..8]), "its sid");
            assert!(!log.contains(&session[..9]), "and no more");
            assert!(!log.contains(&session[9..]), "and no more");
        }
    }
}

#[test]
fn a_warning_that_repeats_is_logged_now_and_then_and_counted() {
    let settings = [("SERVER__MAX_CONNECTIONS", "1"), ("SERVER__WORKERS", "1")];
    let mut process = Process::start(Format::Text, "info", &settings);
    let only = process.join("c", "anna");
    let begun = Instant::now();
    let mut refused = 0;
    let mut warnings: Vec<Line> = Vec::new();
    while warnings.len() < 2 {
        assert!(begun.elapsed() < PATIENCE, "the second never comes");
        assert_eq!(upgrade_status(process.addr, ""), 503);
        refused += 1;
        let line = process.line_within(Duration::from_millis(20));
        warnings.extend(line.filter(|line| line.message == "upgrade refused"));
    }
    for warning in &warnings {
        assert_eq!((&warning.level[..], &warning["reason"]), ("warn", "full"));
        assert_eq!(&warning["client"], "127.0.0.1");
    }
    assert_eq!(warnings[0].count("suppressed"), 0);
    let suppressed = warnings[1].count("suppressed");
    assert!(
        (1..=refused - 2).contains(&suppressed),
        "{suppressed} of {refused}"
    );
    process.signal("TERM");
    drop(only);
    let (_, lines) = process.ended();
    assert_eq!(of(&lines, "upgrade refused").len(), 2);
}

#[test]
fn refused_joins_of_an_address_are_logged_now_and_then() {
    let settings = [
        ("SESSION__RATE_LIMIT", "0"),
        ("SESSION__JOIN_TIMEOUT", "1h"),
    ];
    let mut process = Process::start(Format::Text, "info", &settings);
    let mut anna = process.connect();
    let mut clients: Vec<Client> = (0..10).map(|_| process.connect()).collect();
    let wrong = json!({"app": "test", "channel": "\n", "endpoint": "x"});
    let begun = Instant::now();
    let mut refused = 0;
    let mut lines: Vec<Line> = Vec::new();
    while lines.len() < 2 {
        assert!(begun.elapsed() < PATIENCE, "the second never comes");
        for client in &mut clients {
            for _ in 0..20 {
                assert_eq!(client.call("channel.join", wrong.clone())["err"], 400);
                refused += 1;
            }
        }
        // The lines of members are all there.
        anna.join("c", "anna");
        anna.ok("channel.leave", json!({}));
        process.line("leave");
        while let Some(line) = process.line_within(Duration::from_millis(20)) {
            if line.message == "room closed" {
                break;
            }
        }
        let all = process.log.iter().map(|text| Format::Text.parse(text));
        lines = all.filter(|line| line.message == "join refused").collect();
    }
    assert_eq!(lines[0].count("suppressed"), 0);
    let suppressed = lines[1].count("suppressed");
    assert!(
        (1..=refused - 2).contains(&suppressed),
        "{suppressed} of {refused}"
    );
    process.signal("TERM");
    drop((anna, clients));
    let (_, lines) = process.ended();
    assert_eq!(of(&lines, "join refused").len(), 2);
    assert_eq!(of(&lines, "join").len(), of(&lines, "leave").len());
}

#[test]
fn a_join_timeout_is_logged_now_and_then_for_an_address() {
    let settings = [("SESSION__JOIN_TIMEOUT", "100ms")];
    let mut process = Process::start(Format::Text, "info", &settings);
    for _ in 0..3 {
        let mut client = process.connect();
        assert_eq!(client.error_event(), "join_timeout");
        assert_eq!(client.closed(), 1008);
    }
    process.signal("TERM");
    let (_, lines) = process.ended();
    let lines = of(&lines, "join timeout");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].get("client").unwrap(), "127.0.0.1");
}

#[test]
fn a_log_file_at_its_size_limit_ends_no_process() {
    const LIMIT: u64 = 4096;
    let log = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("size-limit-{}.log", std::process::id()));
    let mut child = std::process::Command::new("sh")
        .arg("-c")
        // In blocks of 512 bytes.
        .arg("ulimit -f 8 && exec \"$0\" --config /dev/null 2>\"$1\"")
        .arg(env!("CARGO_BIN_EXE_meeting-server"))
        .arg(&log)
        .env_clear()
        .env("RUST_LOG", "info")
        .env("MEETING_SERVER__SERVER__BIND", "127.0.0.1:0")
        .env("MEETING_SERVER__LOG__FORMAT", "text")
        .spawn()
        .unwrap();
    let written = || std::fs::read_to_string(&log).unwrap_or_default();
    let started = |text: &String| text.lines().any(|line| line.contains(" start "));
    let text = procfs::when(written, started, "the log");
    let start = text.lines().find(|line| line.contains(" start ")).unwrap();
    let addr = Format::Text.parse(start)["bind"].parse().unwrap();
    let mut anna = Client::connect(addr);
    // Each time a line of a join, a leave and a room: many more than fit.
    for n in 0..100 {
        anna.join("c", &format!("anna {n}"));
        anna.ok("channel.leave", json!({}));
    }
    assert_eq!(std::fs::metadata(&log).unwrap().len(), LIMIT);
    assert_eq!(child.try_wait().unwrap(), None, "it has not ended");
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(&log).unwrap();
}

//! What an operator sees over HTTP: the figures, whether the server is well, and where.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{http::*, openmetrics::Figures, *};
use meeting_server::settings::Settings;
use serde_json::json;

/// A server whose operator's pages are elsewhere, so that asking for them is no connection of the
/// server's.
fn server_with(change: impl FnOnce(&mut Settings)) -> Server {
    Server::with(|settings| {
        settings.server.ops_bind = Some("127.0.0.1:0".parse().unwrap());
        change(settings);
    })
}

fn server() -> Server {
    server_with(|_| {})
}

const PREFIX: &str = "meeting_server_";

/// A family's series that are not 0, as `{label="value"}` and number.
fn of<'a>(figures: &'a Figures, name: &str) -> Vec<(&'a str, f64)> {
    let family = figures.of(&format!("{PREFIX}{name}"));
    family.into_iter().collect()
}

fn one(figures: &Figures, name: &str) -> f64 {
    figures[&format!("{PREFIX}{name}")]
}

/// A meeting in which everything happens that an operator's page may count by.
fn meeting(server: &Server) {
    let mut anna = server.join("secret-room", "anna-endpoint");
    anna.publish("anna-stream");
    anna.close(1000);
    anna.closed();
    assert_eq!(
        upgrade_status(server.addr, "Upgrade-Insecure-Requests: 1\r\n"),
        101
    );
}

#[test]
fn the_page_is_openmetrics_before_anything_has_happened_and_after() {
    let server = server();
    Figures::scrape(server.ops);
    meeting(&server);
    Figures::scrape(server.ops);
}

#[test]
fn it_counts_exactly_what_has_happened() {
    let server = server_with(|settings| {
        settings.server.allowed_origins = vec!["https://meet.example.org".into()];
        settings.rooms.resume_window = std::time::Duration::from_secs(1);
    });
    let mut anna = server.join("c", "anna");
    let mut ben = server.join("c", "ben");
    anna.event("endpoint");
    let mut carl = server.join("d", "carl");
    anna.publish("a1");
    ben.event("stream");
    anna.publish("a1");
    ben.event("stream");
    ben.publish("b1");
    anna.event("stream");
    ben.ok("broadcast", json!({"text": "hello"}));
    anna.event("broadcast");
    ben.ok("stream.delete", json!({"stream_id": "b1"}));
    anna.event("stream");
    anna.dump();
    anna.dump();
    // One of each kind of refusal.
    assert_eq!(
        anna.call("stream.delete", json!({"stream_id": "b1"}))["err"],
        404
    );
    assert_eq!(anna.call("stream.add", json!({"stream": {}}))["err"], 400);
    let again = json!({"app": "test", "channel": "c", "endpoint": "anna"});
    assert_eq!(anna.call("channel.join", again)["err"], 409);
    assert_eq!(anna.call("channel.fly", json!({}))["err"], 404);
    assert_eq!(
        anna.call("media_server.dump", json!({"protocol": "smoke"}))["err"],
        503
    );
    let session = std::mem::take(&mut anna.session);
    assert_eq!(anna.call("channel.dump", json!({}))["err"], 410);
    anna.session = session;
    // Upgrades that are refused.
    assert_eq!(
        upgrade_status(server.addr, "Origin: https://evil.example\r\n"),
        403
    );
    assert_eq!(upgrade_status(server.addr, "Origin: null\r\n"), 403);
    let mut old = Client::tcp(server.addr);
    old.write(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert!(old.read_http_head().starts_with("HTTP/1.1 426 "));
    drop(old);

    let three = |f: &Figures| one(f, "connections") == 3.0;
    let now = Figures::when(server.ops, three);
    assert_eq!(one(&now, "sessions"), 3.0);
    assert_eq!(one(&now, "rooms"), 2.0);
    assert_eq!(one(&now, "streams"), 1.0);
    // Those that Anna and Ben could need; nobody could need what Carl has caused.
    assert_eq!(one(&now, "history_events"), 6.0);
    let objects = [
        ("{kind=\"connection\"}", 3.0),
        ("{kind=\"outbox\"}", 3.0),
        ("{kind=\"room\"}", 2.0),
        ("{kind=\"session\"}", 3.0),
    ];
    assert_eq!(of(&now, "objects"), objects);
    let sizes = [("{members=\"1\"}", 1.0), ("{members=\"2\"}", 1.0)];
    assert_eq!(of(&now, "rooms_by_size"), sizes);
    assert_eq!(one(&now, "joins_total"), 3.0);
    let requests = [
        ("{method=\"broadcast\",result=\"ok\"}", 1.0),
        ("{method=\"channel.dump\",result=\"410\"}", 1.0),
        ("{method=\"channel.dump\",result=\"ok\"}", 2.0),
        ("{method=\"channel.join\",result=\"409\"}", 1.0),
        ("{method=\"channel.join\",result=\"ok\"}", 3.0),
        ("{method=\"media_server.dump\",result=\"503\"}", 1.0),
        ("{method=\"stream.add\",result=\"400\"}", 1.0),
        ("{method=\"stream.add\",result=\"ok\"}", 3.0),
        ("{method=\"stream.delete\",result=\"404\"}", 1.0),
        ("{method=\"stream.delete\",result=\"ok\"}", 1.0),
        ("{method=\"unknown\",result=\"404\"}", 1.0),
    ];
    assert_eq!(of(&now, "requests"), requests);
    let events = [
        ("{event=\"broadcast\"}", 1.0),
        ("{event=\"endpoint\"}", 3.0),
        ("{event=\"stream\"}", 4.0),
    ];
    assert_eq!(of(&now, "events"), events);
    // Ben's join, Anna's stream twice, Ben's stream, hello, and the end of Ben's stream.
    assert_eq!(one(&now, "deliveries_total"), 6.0);
    assert_eq!(of(&now, "disconnects"), []);
    let refusals = [
        ("{reason=\"handshake\"}", 1.0),
        ("{reason=\"origin\"}", 2.0),
    ];
    assert_eq!(of(&now, "refusals"), refusals);
    let delays = &now[&format!("{PREFIX}delivery_delay_seconds_count")];
    assert!((1.0..=6.0).contains(delays), "writes with events: {delays}");

    // All go, each in a way of its own.
    let mut newer = server.join("c", "ben");
    assert_eq!(ben.error_event(), "endpoint_replaced");
    assert_eq!(ben.closed(), 4001);
    drop(ben);
    for stat in ["leave", "join"] {
        assert_eq!(anna.event("endpoint")["stat"], stat);
    }
    newer.frame(true, 2, b"binary");
    assert_eq!(newer.closed(), 1003);
    drop(newer);
    assert_eq!(anna.event("endpoint")["stat"], "leave");
    anna.ok("channel.leave", json!({}));
    anna.close(1000);
    assert_eq!(anna.closed(), 1000);
    drop(anna);
    socket2::SockRef::from(&carl.stream)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    carl.ok("broadcast", json!({}));
    drop(carl);
    let lost = |f: &Figures| one(f, "connections") == 0.0 && one(f, "sessions_detached") == 1.0;
    let lost = Figures::when(server.ops, lost);
    assert_eq!(one(&lost, "sessions"), 1.0);

    let none = |f: &Figures| one(f, "connections") == 0.0 && one(f, "rooms") == 0.0;
    let end = Figures::when(server.ops, none);
    let ends = [
        ("{code=\"1003\",reason=\"binary\"}", 1.0),
        ("{code=\"4001\",reason=\"replaced\"}", 1.0),
        ("{code=\"none\",reason=\"closed\"}", 1.0),
        ("{code=\"none\",reason=\"lost\"}", 1.0),
    ];
    assert_eq!(of(&end, "disconnects"), ends);
    for gauge in [
        "sessions",
        "sessions_detached",
        "streams",
        "history_events",
        "history_bytes",
    ] {
        assert_eq!(one(&end, gauge), 0.0, "{gauge}");
    }
    assert_eq!(of(&end, "rooms_by_size"), []);
    assert_eq!(of(&end, "objects"), []);
    assert_eq!(one(&end, "losses_total"), 1.0);
    assert_eq!(one(&end, "expiries_total"), 1.0);
    assert_eq!(one(&end, "resumes_total"), 0.0);
    let events = [
        ("{event=\"broadcast\"}", 2.0),
        ("{event=\"endpoint\"}", 8.0),
        // Anna has left without a stream.delete.
        ("{event=\"stream\"}", 5.0),
    ];
    assert_eq!(of(&end, "events"), events);
    assert_eq!(one(&end, "joins_total"), 4.0);
    // Besides: leave and join of Ben for Anna, and his leave again.
    assert_eq!(one(&end, "deliveries_total"), 9.0);
}

#[test]
fn it_counts_frames_and_bytes_exactly() {
    let server = server();
    let mut anna = server.connect();
    let join = json!({"cseq": 1, "method": "channel.join",
        "data": {"app": "test", "channel": "c", "endpoint": "anna"}});
    let texts = [&join.to_string(), "no JSON", "{}"];
    for text in texts {
        anna.text(text);
        anna.next_text();
    }
    anna.frame(true, 9, b"ping");
    assert_eq!(anna.receive(), Received::Pong(b"ping".to_vec()));
    let sent: usize = texts.iter().map(|text| text.len()).sum();
    // What was sent is counted when it has been taken.
    let all = |f: &Figures| one(f, "sent_bytes_total") >= anna.received as f64;
    let figures = Figures::when(server.ops, all);
    assert_eq!(one(&figures, "sent_bytes_total"), anna.received as f64);
    assert_eq!(one(&figures, "frames_received_total"), 4.0);
    assert_eq!(one(&figures, "received_bytes_total"), (sent + 4) as f64);
}

#[test]
fn refusals_of_a_full_server_and_ends_by_limits_are_counted() {
    let server = server_with(|settings| {
        settings.server.max_connections_per_ip = 2;
        settings.session.join_timeout = std::time::Duration::from_millis(200);
        settings.session.max_message_bytes = 1000;
    });
    let mut anna = server.join("c", "anna");
    let mut late = server.connect();
    assert_eq!(upgrade_status(server.addr, ""), 503);
    assert_eq!(late.error_event(), "join_timeout");
    assert_eq!(late.closed(), 1008);
    drop(late);
    anna.text(&"x".repeat(2000));
    assert_eq!(anna.error_event(), "message_too_big");
    assert_eq!(anna.closed(), 1009);
    drop(anna);
    let end = Figures::when(server.ops, |f| one(f, "connections") == 0.0);
    assert_eq!(
        of(&end, "refusals"),
        [("{reason=\"full_for_address\"}", 1.0)]
    );
    let ends = [
        ("{code=\"1008\",reason=\"join_timeout\"}", 1.0),
        ("{code=\"1009\",reason=\"message_too_big\"}", 1.0),
    ];
    assert_eq!(of(&end, "disconnects"), ends);
}

#[test]
fn pings_are_timed() {
    let server = server_with(|settings| {
        settings.session.ping_interval = std::time::Duration::from_millis(50);
    });
    let mut anna = server.join("c", "anna");
    let Received::Ping(payload) = anna.receive() else {
        panic!("a ping was due");
    };
    anna.frame(true, 10, &payload);
    Figures::when(server.ops, |f| {
        one(f, "ping_round_trip_seconds_count") > 0.0
    });
}

#[test]
fn no_figure_is_by_room_channel_endpoint_or_stream() {
    let server = server();
    meeting(&server);
    let page = get(server.ops, "/metrics").body;
    for name in ["secret-room", "anna", "\"test\""] {
        assert!(!page.contains(name), "{name}");
    }
    let labels = Figures::scrape(server.ops).labels;
    let labels: BTreeSet<&str> = labels.values().flatten().map(String::as_str).collect();
    let known = [
        "code", "commit", "event", "kind", "le", "members", "method", "name", "reason", "result",
        "version",
    ];
    assert_eq!(labels, BTreeSet::from(known));
}

#[test]
fn the_document_lists_what_there_is_and_nothing_else() {
    // Only there is a certificate.
    let server = server_with(|settings| settings.tls = wire::CERTIFICATE.settings());
    meeting(&server);
    let figures = Figures::scrape(server.ops);
    let row = |name: &String, kind: &String| {
        let of_type = match kind.as_str() {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.clone(),
        };
        let mut labels = figures.labels[name].clone();
        labels.remove("le");
        (of_type, (kind.clone(), labels))
    };
    let there: BTreeMap<_, _> = figures.types.iter().map(|(n, k)| row(n, k)).collect();

    let code = |cell: &str| cell.strip_prefix('`')?.strip_suffix('`').map(str::to_owned);
    let mut listed = BTreeMap::new();
    for line in include_str!("../docs/metrics.md").lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", name, kind, labels, what_for, ""] = cells[..] else {
            continue;
        };
        let Some(name) = code(name) else { continue };
        assert!(what_for.len() > 10, "{name}: what is it for?");
        let labels: BTreeSet<String> = labels.split_terminator(", ").filter_map(code).collect();
        let before = listed.insert(name.clone(), (kind.to_owned(), labels));
        assert_eq!(before, None, "{name} stands twice");
    }
    assert_eq!(listed, there);
}

#[test]
fn the_alerts_of_the_document_ask_for_what_there_is() {
    let server = server_with(|settings| settings.tls = wire::CERTIFICATE.settings());
    meeting(&server);
    let figures = Figures::scrape(server.ops);
    let mut known = BTreeSet::new();
    for (name, kind) in &figures.types {
        let suffixes: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        known.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    let text = include_str!("../docs/metrics.md");
    let blocks: Vec<&str> = text.split("```").skip(1).step_by(2).collect();
    assert!(!blocks.is_empty());
    let mut asked = 0;
    for block in blocks {
        let words = block.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let is_name = |word: &&str| word.starts_with(PREFIX) || word.starts_with("process_");
        for word in words.filter(is_name) {
            assert!(known.contains(word), "{word}");
            asked += 1;
        }
    }
    assert!(asked >= 5);
}

#[test]
fn livez_says_that_every_worker_is_there() {
    let server = server();
    let page = get(server.ops, "/livez");
    assert_eq!((page.status, page.body.as_str()), (200, "ok"));
}

#[test]
fn with_ops_bind_the_operators_pages_are_there_and_nothing_else_is() {
    let server = server();
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(get(server.ops, path).status, 200, "{path}");
        assert_eq!(get(server.addr, path).status, 404, "{path}");
    }
    for path in ["/", "/healthz", "/ws"] {
        assert_eq!(get(server.ops, path).status, 404, "{path}");
    }
    assert_eq!(upgrade_status(server.ops, ""), 404);
    assert_eq!(get(server.addr, "/").status, 200);
    assert_eq!(get(server.addr, "/healthz").status, 200);
    assert_eq!(get(server.addr, "/ws").status, 426);
    assert_eq!(upgrade_status(server.addr, ""), 101);
}

#[test]
fn without_ops_bind_all_pages_are_at_the_one_address() {
    let server = Server::start();
    for path in ["/metrics", "/livez", "/readyz", "/healthz", "/"] {
        assert_eq!(get(server.addr, path).status, 200, "{path}");
    }
    // The asker is a connection too; the one before it may not be gone yet.
    Figures::when(server.addr, |f| one(f, "connections") == 1.0);
}

#[test]
fn head_is_answered_as_get_but_for_the_body() {
    let server = server();
    let at_the_address = [
        "/",
        "/page.css",
        "/client.js",
        "/client.d.ts",
        "/healthz",
        "/ws",
        "/nowhere",
    ];
    let at_the_ops_address = ["/metrics", "/livez", "/readyz", "/nowhere"];
    let all = at_the_address.map(|path| (server.addr, path)).into_iter();
    for (addr, path) in all.chain(at_the_ops_address.map(|path| (server.ops, path))) {
        let (full, head) = (get(addr, path), head(addr, path));
        assert_eq!(head.body, "", "{path}");
        assert_eq!(head.status, full.status, "{path}");
        for name in ["content-type", "etag", "cache-control", "vary", "upgrade"] {
            assert_eq!(head.header(name), full.header(name), "{name} of {path}");
        }
        let length = |response: &Response| response.header("content-length").map(str::to_owned);
        // Figures change.
        if path != "/metrics" {
            assert_eq!(length(&head), length(&full), "{path}");
        }
        assert_eq!(length(&full), Some(full.body.len().to_string()), "{path}");
        assert!(length(&head).is_some(), "{path}");
    }
}

#[test]
fn without_demo_there_is_no_page() {
    let server = Server::with(|settings| settings.server.demo = false);
    assert_eq!(get(server.addr, "/").status, 404);
    assert_eq!(get(server.addr, "/healthz").status, 200);
}

#[test]
fn no_answer_says_what_serves_it() {
    let server = server();
    let version = env!("CARGO_PKG_VERSION");
    let mut heads: Vec<String> = ["/", "/healthz", "/ws", "/nowhere"]
        .map(|path| get(server.addr, path).head)
        .into();
    heads.extend(["/metrics", "/livez", "/nowhere"].map(|path| get(server.ops, path).head));
    let mut client = Client::tcp(server.addr);
    client.write(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    heads.push(client.read_http_head());
    let mut client = Client::tcp(server.addr);
    client.write(b"nonsense\r\n\r\n");
    heads.push(client.read_http_head());
    for head in heads {
        let lower = head.to_ascii_lowercase();
        for word in ["server:", "x-powered-by", "actix", "rust"] {
            assert!(!lower.contains(word), "{head}");
        }
        let values = lower.replace("version=1.0.0", "").replace("http/1.1", "");
        assert!(!values.contains(version), "{head}");
    }
}

//! Where a room's media goes: health checks of media servers that come and go, and what rooms make
//! of it.

mod common;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{log_line::Format, openmetrics::Figures, process::Process, *};
use meeting_server::settings::{MediaServer, Settings};
use serde_json::json;

/// Something that answers health checks as it is told to.
struct Fake {
    name: &'static str,
    addr: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

/// Takes the connection and says nothing.
const SILENT: u16 = 0;

impl Fake {
    fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Self {
            name,
            addr: listener.local_addr().unwrap(),
            status: Arc::new(AtomicU16::new(200)),
            asked: Arc::default(),
        };
        let (status, asked) = (fake.status.clone(), fake.asked.clone());
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for socket in listener.incoming() {
                asked.fetch_add(1, Ordering::Relaxed);
                match status.load(Ordering::Relaxed) {
                    SILENT => silent.push(socket),
                    status => answer(socket.unwrap(), status),
                }
            }
        });
        fake
    }

    fn set(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// Its entry in the settings; all it speaks is webrtc.
    fn entry(&self) -> MediaServer {
        MediaServer {
            name: self.name.into(),
            weight: 1,
            protocols: vec!["webrtc".into()],
            health: format!("http://{}/health?x=1", self.addr),
            wss: String::new(),
            ws: format!("ws://{}", self.name),
            https: String::new(),
            http: String::new(),
            rtsp: String::new(),
        }
    }

    /// Waits until it has been asked once more than now.
    fn until_asked(&self) {
        let before = self.asked.load(Ordering::Relaxed);
        let begun = Instant::now();
        while self.asked.load(Ordering::Relaxed) <= before {
            assert!(
                begun.elapsed() < PATIENCE,
                "{} is not asked any more",
                self.name
            );
            std::thread::yield_now();
        }
    }
}

fn answer(mut socket: TcpStream, status: u16) {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match socket.read(&mut chunk) {
            Ok(n @ 1..) => head.extend_from_slice(&chunk[..n]),
            _ => return,
        }
    }
    assert!(head.starts_with(b"GET /health?x=1 HTTP/1.1\r\n"));
    let redirect = "Location: http://127.0.0.1:1/\r\n";
    let response = format!("HTTP/1.1 {status} As told\r\n{redirect}Content-Length: 2\r\n\r\nok");
    // The asker may have had enough.
    let _ = socket.write_all(response.as_bytes());
    let _ = socket.shutdown(Shutdown::Write);
}

fn server(fakes: &[&Fake]) -> Server {
    server_with(fakes.iter().map(|fake| fake.entry()).collect(), |_| {})
}

fn server_with(entries: Vec<MediaServer>, change: impl FnOnce(&mut Settings)) -> Server {
    Server::with(|settings| {
        settings.server.workers = 4;
        settings.server.ops_bind = Some("127.0.0.1:0".parse().unwrap());
        settings.media_servers = entries;
        settings.media.health_interval = Duration::from_millis(50);
        settings.media.health_timeout = Duration::from_millis(300);
        settings.media.unhealthy_after = 2;
        settings.rooms.resume_window = Duration::from_secs(60);
        change(settings);
    })
}

fn is_up(server: &Server, name: &str, up: bool) {
    let series = format!("meeting_server_media_server_up{{name=\"{name}\"}}");
    let due = f64::from(u8::from(up));
    Figures::when(server.ops, move |f| f[&series] == due);
}

/// The `ws` address that a join's or dump's `data` has; "" where there is none.
fn ws(data: &serde_json::Value) -> String {
    data["media_server"]["ws"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn ask(client: &mut Client) -> String {
    ws(&client.ok("media_server.dump", json!({})))
}

fn find<'a>(fakes: &'a [Fake], ws: &str) -> &'a Fake {
    let name = ws.strip_prefix("ws://").unwrap();
    fakes.iter().find(|fake| fake.name == name).unwrap()
}

#[test]
fn when_a_rooms_server_goes_down_its_members_are_told_once_and_meet_on_another() {
    let fakes = ["a", "b", "c"].map(Fake::start);
    let server = server(&fakes.each_ref());
    let mut rooms: Vec<(Client, Client, String)> = (0..12)
        .map(|n| {
            let channel = format!("room {n}");
            let mut anna = server.connect();
            let first = ws(&anna.join(&channel, "anna"));
            let mut ben = server.connect();
            assert_eq!(ws(&ben.join(&channel, "ben")), first, "they meet");
            anna.event("endpoint");
            assert_eq!(ask(&mut anna), first);
            (anna, ben, first)
        })
        .collect();
    let down = find(&fakes, &rooms[0].2);
    let gone = rooms[0].2.clone();
    down.set(500);
    is_up(&server, down.name, false);
    for (n, (anna, ben, first)) in rooms.iter_mut().enumerate() {
        if *first == gone {
            for member in [&mut *anna, &mut *ben] {
                assert_eq!(member.error_event(), "media_server_down");
            }
        }
        let now = ask(anna);
        assert_ne!(now, gone);
        assert_eq!(ask(ben), now, "they meet again");
        assert!(*first == gone || now == *first, "no other room moves");
        let mut carl = server.connect();
        assert_eq!(ws(&carl.join(&format!("room {n}"), "carl")), now);
        carl.ok("channel.leave", json!({}));
        // Nothing else is said of it.
        for member in [anna, ben] {
            member.event("endpoint");
            member.event("endpoint");
            assert_eq!(member.names(), ["anna", "ben"]);
        }
        *first = now;
    }
    // It heals, and would win its rooms again; but their members are elsewhere by now.
    down.set(204);
    is_up(&server, down.name, true);
    for (anna, _, now) in &mut rooms {
        assert_eq!(ask(anna), *now);
    }
    let somewhere = (0..100).any(|n| {
        let mut dora = server.connect();
        ws(&dora.join(&format!("new {n}"), "dora")) == gone
    });
    assert!(somewhere, "new rooms go there");
}

#[test]
fn with_no_server_left_there_is_503_and_a_join_goes_on_without() {
    let fakes = ["a", "b"].map(Fake::start);
    let server = server(&fakes.each_ref());
    let mut anna = server.join("room", "anna");
    for fake in &fakes {
        fake.set(503);
    }
    for fake in &fakes {
        is_up(&server, fake.name, false);
    }
    // Once or twice: the room may have moved from the one to the other before.
    let answer = loop {
        let cseq = anna.ask("media_server.dump", json!({}));
        let message = anna.next();
        if message["cseq"] == cseq && message.get("err").is_some() {
            break message;
        }
        assert_eq!(message["data"]["type"], "media_server_down", "{message}");
        anna.answer(cseq);
    };
    assert_eq!(answer["err"], 503);
    let mut ben = server.connect();
    assert_eq!(ben.join("room", "ben")["media_server"], json!({}));
    assert_eq!(ben.call("media_server.dump", json!({}))["err"], 503);
    // A server is asked for ever.
    for _ in 0..5 {
        fakes[1].until_asked();
    }
    fakes[1].set(200);
    is_up(&server, "b", true);
    assert_eq!(ask(&mut ben), "ws://b");
    let mut carl = server.connect();
    assert_eq!(ws(&carl.join("room", "carl")), "ws://b");
}

#[test]
fn only_2xx_in_time_is_an_answer_of_one_who_is_well() {
    let fake = Fake::start("a");
    let server = server(&[&fake]);
    for status in [301, 404, 500, 199, SILENT] {
        fake.set(status);
        is_up(&server, "a", false);
        fake.set(if status == 404 { 299 } else { 200 });
        is_up(&server, "a", true);
    }
}

#[test]
fn one_failure_is_none_and_a_success_in_between_begins_anew() {
    let fake = Fake::start("a");
    let server = server_with(vec![fake.entry()], |settings| {
        settings.media.unhealthy_after = 1_000;
    });
    fake.set(500);
    for _ in 0..10 {
        fake.until_asked();
    }
    is_up(&server, "a", true);
    assert_eq!(ws(&server.connect().join("room", "anna")), "ws://a");
}

#[test]
fn a_tcp_check_wants_a_connect() {
    let fake = Fake::start("a");
    fake.set(SILENT);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone_at = gone.local_addr().unwrap();
    let entry = |name: &str, health: String| MediaServer {
        name: name.into(),
        health,
        ..fake.entry()
    };
    let server = server_with(
        vec![
            entry("there", format!("tcp://localhost:{}", fake.addr.port())),
            entry("gone", format!("tcp://{gone_at}")),
            entry("nowhere", "tcp://no.such.host.invalid:80".into()),
        ],
        |_| {},
    );
    is_up(&server, "nowhere", false);
    is_up(&server, "gone", true);
    drop(gone);
    is_up(&server, "gone", false);
    is_up(&server, "there", true);
    let _back = TcpListener::bind(gone_at).unwrap();
    is_up(&server, "gone", true);
}

#[test]
fn without_an_interval_every_server_is_believed_healthy() {
    let fake = Fake::start("a");
    fake.set(500);
    let server = server_with(vec![fake.entry()], |settings| {
        settings.media.health_interval = Duration::ZERO;
    });
    let mut anna = server.connect();
    assert_eq!(ws(&anna.join("room", "anna")), "ws://a");
    anna.names();
    assert_eq!(fake.asked.load(Ordering::Relaxed), 0);
}

#[test]
fn one_who_comes_back_is_told_the_present_server() {
    let fakes = ["a", "b"].map(Fake::start);
    let server = server(&fakes.each_ref());
    let mut ben = server.join("room", "ben");
    let mut anna = server.connect();
    let first = ws(&anna.join("room", "anna"));
    ben.event("endpoint");
    let session = anna.session.clone();
    anna.reset();
    let lost = |f: &Figures| f["meeting_server_sessions_detached"] == 1.0;
    Figures::when(server.ops, lost);
    find(&fakes, &first).set(500);
    assert_eq!(ben.error_event(), "media_server_down");
    let mut anna = server.connect();
    anna.session = session;
    let ask_back = json!({"app": "test", "channel": "room", "endpoint": "anna"});
    let cseq = anna.ask("channel.join", ask_back);
    let answer = anna.answer(cseq);
    assert_eq!(answer["data"]["resumed"], true);
    assert_ne!(ws(&answer["data"]), first);
    assert_eq!(ws(&answer["data"]), ask(&mut ben));
    assert_eq!(
        anna.names(),
        ["ben", "anna"],
        "error events are not replayed"
    );
}

#[test]
fn other_protocols_come_from_the_same_server_where_it_speaks_them() {
    let entry = |name: &str, protocols: &[&str]| MediaServer {
        name: name.into(),
        weight: 1,
        protocols: protocols.iter().map(|p| (*p).to_owned()).collect(),
        health: String::new(),
        wss: String::new(),
        ws: format!("ws://{name}"),
        https: String::new(),
        http: String::new(),
        rtsp: format!("rtsp://{name}"),
    };
    let entries = vec![
        entry("a", &["webrtc", "rtsp"]),
        entry("b", &["webrtc", "rtsp"]),
        entry("c", &["webrtc"]),
        entry("d", &["rtsp", "srt"]),
    ];
    let server = server_with(entries, |_| {});
    for n in 0..30 {
        let mut anna = server.connect();
        let home = anna.join(&n.to_string(), "anna")["media_server"].clone();
        let mut of = |protocol: &str| {
            let data = anna.ok("media_server.dump", json!({"protocol": protocol}));
            data["media_server"].clone()
        };
        let rtsp = of("rtsp");
        if home["ws"] == "ws://c" {
            assert_ne!(rtsp, home);
        } else {
            assert_eq!(rtsp, home);
        }
        assert_eq!(of("rtsp"), rtsp, "kept");
        assert_eq!(of("webrtc"), home);
        assert_eq!(of("srt")["ws"], "ws://d");
        assert_eq!(
            anna.call("media_server.dump", json!({"protocol": "smoke"}))["err"],
            503
        );
    }
}

#[test]
fn the_log_says_when_a_server_goes_down_and_comes_up() {
    let fake = Fake::start("a");
    let health = format!("http://{}/health?x=1", fake.addr);
    let config = common::keys::temporary(&format!(
        "[media]\nhealth_interval = \"50ms\"\nhealth_timeout = \"300ms\"\nunhealthy_after = 2\n\
         [[media_servers]]\nname = \"a\"\nprotocols = [\"webrtc\"]\nhealth = {health:?}\n"
    ));
    let mut process = Process::with_config(Format::Text, &config);
    fake.set(500);
    let line = process.line("media server down");
    assert_eq!((line.level.as_str(), &line["name"]), ("warn", "a"));
    assert_eq!(line["failures"], *"2");
    assert!(line["error"].contains("500"), "{line:?}");
    fake.set(200);
    let line = process.line("media server up");
    assert_eq!((line.level.as_str(), &line["name"]), ("info", "a"));
}

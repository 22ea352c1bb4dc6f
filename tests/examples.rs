//! The example clients, run as a user runs them: what they write and print, and how they come back
//! or do not.
//!
//! `cargo test` builds them; with `--test examples` alone, say `cargo build --examples` before.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Client, PATIENCE, Server, keys::Signer, stream};
use meeting_server::settings::MediaServer;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, protocol::CloseFrame};

// ---------------------------------------------------------------------------------- the process

/// An example that runs until this value goes.
struct Example {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Example {
    fn start(name: &str, server: SocketAddr, channel: &str, flags: &[&str]) -> Self {
        Self::with_token(name, server, channel, flags, "")
    }

    fn with_token(
        name: &str,
        server: SocketAddr,
        channel: &str,
        flags: &[&str],
        token: &str,
    ) -> Self {
        let url = format!("ws://{server}/ws");
        let mut child = Command::new(built(name))
            .args(["--url", &url, "--app", "test", "--channel", channel])
            .args(["--endpoint", name])
            .args(flags)
            .env("MEETING_TOKEN", token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdout: lines(child.stdout.take().unwrap()),
            stderr: lines(child.stderr.take().unwrap()),
            child,
        }
    }

    /// The next line of its output, waited for.
    fn line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).expect("a line is due")
    }

    /// Waits until it has given up; its last words.
    fn gives_up(&mut self) -> String {
        let words = self.stderr.recv_timeout(PATIENCE).expect("it says why");
        assert_eq!(self.child.wait().unwrap().code(), Some(1), "{words}");
        words
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It has ended already, some of the time.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where cargo has put it: beside the directory of the tests.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let example = test.parent().and_then(Path::parent).unwrap();
    let example = example.join("examples").join(name);
    let age = |path: &Path| path.metadata().and_then(|found| found.modified());
    let source = format!("{}/examples/{name}.rs", env!("CARGO_MANIFEST_DIR"));
    let is_built = age(&example).is_ok_and(|built| built >= age(Path::new(&source)).unwrap());
    assert!(is_built, "{name} is not built: cargo build --examples");
    example
}

fn lines(pipe: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            if send.send(line.unwrap()).is_err() {
                break;
            }
        }
    });
    receive
}

/// A recorder, and the file it writes to.
struct Recorder {
    process: Example,
    file: PathBuf,
}

impl Recorder {
    fn start(server: SocketAddr, channel: &str) -> Self {
        let name = format!("{channel}-{}.jsonl", server.port());
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_file(&file);
        let flags = ["--file", file.to_str().unwrap()];
        let process = Example::start("recorder", server, channel, &flags);
        Self { process, file }
    }

    /// Its lines in short, once there are so many.
    fn timeline(&self, len: usize) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(&self.file).unwrap_or_default();
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            if lines.len() >= len && text.ends_with('\n') {
                return lines.into_iter().map(short).collect();
            }
            assert!(begun.elapsed() < PATIENCE, "{len} lines, and not {text}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A line of the timeline: "3 publish ben ben-1", with a "?" where it has no number.
fn short(line: &str) -> String {
    let line: Value = serde_json::from_str(line).unwrap();
    let at = line["at"].as_str().unwrap();
    assert!(humantime::parse_rfc3339(at).is_ok(), "{at}");
    let number = match line["event"].as_u64() {
        Some(number) => number.to_string(),
        None => "?".to_owned(),
    };
    let stream = &line["stream"];
    let stream = stream.as_str().or_else(|| stream["type"].as_str());
    let words = [
        Some(number.as_str()),
        line["what"].as_str(),
        line["endpoint"].as_str(),
        stream,
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

// ---------------------------------------------------------------------------------- the network

/// A network between an example and a server, which can go away.
struct Network {
    addr: SocketAddr,
    is_up: Arc<AtomicBool>,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Network {
    fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let network = Self {
            addr: listener.local_addr().unwrap(),
            is_up: Arc::new(AtomicBool::new(true)),
            sockets: Arc::default(),
        };
        let (is_up, sockets) = (network.is_up.clone(), network.sockets.clone());
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let mut sockets = sockets.lock().unwrap();
                if !is_up.load(Ordering::SeqCst) {
                    continue;
                }
                let far = TcpStream::connect(server).unwrap();
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || {
                        // Its end is a cut of either side.
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
                sockets.extend([near, far]);
            }
        });
        network
    }

    /// Cuts every connection, and takes none until [`Network::comes_back`].
    fn goes(&self) {
        let mut sockets = self.sockets.lock().unwrap();
        self.is_up.store(false, Ordering::SeqCst);
        for socket in sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn comes_back(&self) {
        self.is_up.store(true, Ordering::SeqCst);
    }
}

// ---------------------------------------------------------------------------------- the recorder

#[test]
fn the_recorder_writes_down_who_published_what_when() {
    let server = Server::start();
    let mut anna = server.join("timeline", "anna");
    anna.publish("anna-1");
    let recorder = Recorder::start(server.addr, "timeline");
    let found = [
        "? join anna",
        "? publish anna anna-1",
        "? describe anna camera",
    ];
    assert_eq!(recorder.timeline(4)[..3], found);
    assert_eq!(recorder.timeline(4)[3], "? join recorder");
    assert_eq!(anna.event("endpoint")["endpoint"], "recorder");
    assert_eq!(anna.dump()[1]["role"], "recorder");

    let mut ben = server.join("timeline", "ben");
    let mut desktop = stream("ben-1");
    desktop["type"] = "desktop".into();
    ben.ok("stream.add", json!({"stream": desktop}));
    recorder.timeline(7);
    // The same again: others have to subscribe anew.
    ben.ok("stream.add", json!({"stream": stream("ben-1")}));
    recorder.timeline(9);
    ben.ok("stream.delete", json!({"stream_id": "ben-1"}));
    ben.close(1000);
    assert_eq!(
        recorder.timeline(11)[4..],
        [
            "4 join ben",
            "5 publish ben ben-1",
            "? describe ben desktop",
            "6 publish ben ben-1",
            "? describe ben camera",
            "7 unpublish ben ben-1",
            "8 leave ben",
        ]
    );
}

#[test]
fn the_recorder_misses_nothing_while_the_network_is_away_for_a_while() {
    let server = Server::with(|settings| settings.rooms.resume_window = 3 * PATIENCE);
    let network = Network::before(server.addr);
    let recorder = Recorder::start(network.addr, "away");
    recorder.timeline(1);
    let mut ben = server.join("away", "ben");
    recorder.timeline(2);

    network.goes();
    ben.publish("ben-1");
    ben.ok("stream.delete", json!({"stream_id": "ben-1"}));
    ben.publish("ben-2");
    network.comes_back();
    assert_eq!(
        recorder.timeline(6),
        [
            "? join recorder",
            "2 join ben",
            "3 publish ben ben-1",
            "4 unpublish ben ben-1",
            "5 publish ben ben-2",
            "? describe ben camera",
        ]
    );
    assert_eq!(ben.names(), ["recorder", "ben"], "nobody else has noticed");
}

#[test]
fn the_recorder_comes_back_to_a_server_that_was_restarted_and_says_what_it_cannot_know() {
    let mut server = Server::start();
    let addr = server.addr;
    let mut ben = server.join("restart", "ben");
    ben.publish("ben-1");
    let recorder = Recorder::start(addr, "restart");
    recorder.timeline(4);
    server.stop();
    drop(ben);

    let server = Server::with(|settings| settings.server.bind = addr);
    let mut carl = server.join("restart", "carl");
    carl.publish("carl-1");
    let timeline = recorder.timeline(10);
    assert_eq!(timeline[4], "? gap");
    // Whether it is back before Carl is chance, and with it the order and the numbers.
    let what = |line: &String| line.split_once(' ').unwrap().1.to_owned();
    let mut rest: Vec<String> = timeline[5..].iter().map(what).collect();
    rest.sort_unstable();
    assert_eq!(
        rest,
        [
            "describe carl camera",
            "join carl",
            "leave ben",
            "publish carl carl-1",
            "unpublish ben ben-1",
        ]
    );
}

#[test]
fn an_example_gives_up_where_the_server_does_not_want_it() {
    let key = Signer::hs256("test", "");
    let server = Server::with(|settings| settings.auth.keys = vec![key.settings.clone()]);
    let flags = ["--target", "rtsp://x"];
    let mut relayer = Example::start("relayer", server.addr, "room", &flags);
    let words = relayer.gives_up();
    assert!(words.contains("401 a token is needed"), "{words}");

    let mut anna = server.connect();
    anna.join_with(json!({
        "app": "test", "channel": "room", "endpoint": "anna", "token": key.token(json!({})),
    }));
    anna.publish("anna-1");
    let token = key.token(json!({"endpoint": "relayer", "role": "relayer"}));
    let mut relayer = Example::with_token("relayer", server.addr, "room", &flags, &token);
    // All that it had to ask is answered: it would print a refusal besides.
    assert!(relayer.line().starts_with("ffmpeg"));
    // Somebody else takes its place.
    let mut other = server.connect();
    let data = json!({"app": "test", "channel": "room", "endpoint": "relayer", "token": key.token(json!({}))});
    other.join_with(data);
    let words = relayer.gives_up();
    assert!(
        words.contains("taken this endpoint's place (4001)"),
        "{words}"
    );
}

// ---------------------------------------------------------------------------------- the relayer

/// The words of the command, as a shell understands them.
fn words(command: &str) -> Vec<String> {
    let script = format!("ffmpeg() {{ printf '%s\\n' \"$@\"; }}\n{command}\n");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{command} {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_relayer_prints_a_command_for_each_stream_that_a_shell_takes_as_it_is_meant() {
    let server = Server::start();
    let mut anna = server.join("relay", "anna");
    anna.publish("anna-1");
    let target = "rtsp://out.example.org/it's $(live)/";
    let relayer = Example::start("relayer", server.addr, "relay", &["--target", target]);
    assert_eq!(
        relayer.line(),
        "ffmpeg -rtsp_transport tcp -i 'rtsp://127.0.0.1:8554/anna-1' -c copy -f 'rtsp' \
         'rtsp://out.example.org/it'\\''s $(live)/anna-1'"
    );
    anna.event("endpoint");
    for (id, escaped) in [
        ("x'; touch gone #", "x%27%3B%20touch%20gone%20%23"),
        ("$(id)`id`\\", "%24%28id%29%60id%60%5C"),
        ("a/../b?c", "a%2F..%2Fb%3Fc"),
        ("会议", "%E4%BC%9A%E8%AE%AE"),
    ] {
        let last = anna_stream(&mut anna);
        anna.ok("stream.delete", json!({"stream_id": last}));
        assert!(relayer.line().starts_with("# "), "the last one has ended");
        anna.publish(id);
        let source = format!("rtsp://127.0.0.1:8554/{escaped}");
        let target = format!("{target}{escaped}");
        let due = [
            "-rtsp_transport",
            "tcp",
            "-i",
            &source,
            "-c",
            "copy",
            "-f",
            "rtsp",
            &target,
        ];
        assert_eq!(words(&relayer.line()), due);
    }
    anna.ok("channel.leave", json!({}));
    assert_eq!(relayer.line(), "# 会议 of anna has ended");
    anna.join("relay", "anna");
    anna.publish("..");
    assert_eq!(relayer.line(), "# a URL cannot name the stream \"..\"");
}

/// What she publishes.
fn anna_stream(anna: &mut Client) -> Value {
    anna.dump()[0]["stream"]["stream_id"].clone()
}

#[test]
fn the_relayer_prints_again_what_has_moved_to_another_media_server() {
    let mut health: BTreeMap<String, TcpListener> = ["one", "two"]
        .map(|name| (name.to_owned(), TcpListener::bind("127.0.0.1:0").unwrap()))
        .into();
    let server = Server::with(|settings| {
        let media_server = |(name, health): (&String, &TcpListener)| MediaServer {
            name: name.clone(),
            weight: 1,
            protocols: vec!["rtsp".into()],
            health: format!("tcp://{}", health.local_addr().unwrap()),
            wss: String::new(),
            ws: String::new(),
            https: String::new(),
            http: String::new(),
            rtsp: format!("rtsp://{name}"),
        };
        settings.media_servers = health.iter().map(media_server).collect();
        settings.media.health_interval = Duration::from_millis(100);
        settings.media.unhealthy_after = 1;
    });
    let mut anna = server.join("moves", "anna");
    anna.publish("anna-1");
    let flags = ["--target", "rtsp://out", "--format", "mpegts"];
    let relayer = Example::start("relayer", server.addr, "moves", &flags);
    let on = |line: &str| {
        let words = words(line);
        assert_eq!(words[7], "mpegts");
        let source = words[3].strip_prefix("rtsp://").unwrap();
        source.strip_suffix("/anna-1").unwrap().to_owned()
    };
    let first = on(&relayer.line());
    health.remove(&first).unwrap();
    let second = on(&relayer.line());
    assert_ne!(first, second);

    // With none left it asks until one is there again.
    let gone = health.remove(&second).unwrap();
    let addr = gone.local_addr().unwrap();
    drop(gone);
    let complaint = relayer.stderr.recv_timeout(PATIENCE).unwrap();
    assert!(complaint.contains("503 no media server"), "{complaint}");
    let _back = TcpListener::bind(addr).unwrap();
    assert_eq!(on(&relayer.line()), second);
}

// ---------------------------------------------------------------------------------- close codes

/// A server that lets one join after the other in and then closes with what it is told.
struct Fake(TcpListener);

impl Fake {
    fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// The next join, granted.
    fn join(&self) -> (WebSocket<TcpStream>, Value) {
        let (socket, _) = self.0.accept().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut socket = tungstenite::accept(socket).unwrap();
        let request: Value =
            serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap();
        assert_eq!(request["method"], "channel.join");
        let data = json!({"session": "s", "media_server": {}, "endpoint": "recorder",
            "last_event": 7, "resumed": false});
        let answer = json!({"version": 0, "cseq": request["cseq"], "err": 0, "err_msg": "ok",
            "data": data});
        socket.send(Message::text(answer.to_string())).unwrap();
        (socket, request)
    }
}

fn close(socket: &mut WebSocket<TcpStream>, code: u16) {
    let frame = CloseFrame {
        code: code.into(),
        reason: "".into(),
    };
    socket.close(Some(frame)).unwrap();
    while socket.read().is_ok() {}
}

#[test]
fn an_example_comes_back_with_its_session_after_what_lets_it() {
    let fake = Fake::start();
    let _recorder = Recorder::start(fake.0.local_addr().unwrap(), "codes");
    let (mut socket, first) = fake.join();
    assert_eq!(first["session"], "");
    assert_eq!(first["data"]["last_event"], 0);
    let mut cseq = first["cseq"].as_u64().unwrap();
    for code in [4002, 4004, 1001] {
        let mut least = Duration::ZERO;
        if code == 1001 {
            least = Duration::from_millis(1_500);
            let data = json!({"type": "server_shutdown", "message": "", "retry_after_ms": 1_500});
            let event =
                json!({"version": 0, "cseq": 0, "event": "error", "session": "s", "data": data});
            socket.send(Message::text(event.to_string())).unwrap();
        }
        let closed = Instant::now();
        close(&mut socket, code);
        let (next, again) = fake.join();
        assert!(closed.elapsed() >= least, "{code}: it came too soon");
        assert_eq!(again["session"], "s", "{code}");
        assert_eq!(again["data"]["last_event"], 7, "{code}");
        assert!(again["cseq"].as_u64().unwrap() > cseq, "{code}");
        cseq = again["cseq"].as_u64().unwrap();
        socket = next;
    }
}

#[test]
fn an_example_stops_after_what_forbids_it_to_come_back() {
    for (code, why) in [
        (4001, "(4001)"),
        (4003, "removed by an operator (4003)"),
        (1008, "closed the connection with 1008"),
        (1009, "closed the connection with 1009"),
    ] {
        let fake = Fake::start();
        let mut recorder = Recorder::start(fake.0.local_addr().unwrap(), "stops");
        let (mut socket, _) = fake.join();
        close(&mut socket, code);
        let words = recorder.process.gives_up();
        assert!(words.contains(why), "{words}");
    }
}

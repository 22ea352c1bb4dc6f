//! What every test over a real socket needs: a server of its own on a free port, and a client
//! that can say anything, right or wrong, and shows every byte that comes back.

#![allow(dead_code, unreachable_pub, reason = "no test file needs all of it")]

pub mod http;
pub mod keys;
pub mod log_line;
pub mod meeting;
pub mod member;
pub mod neighbour;
pub mod openmetrics;
pub mod process;
pub mod procfs;
pub mod random;
pub mod wire;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Mutex, Once},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use meeting_server::{limits, log_filter, server, settings::Settings};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use wire::{CERTIFICATE, Wire, everything_under_tls, is_under_tls};

/// How long a test waits for something that must come. Long, since machines are busy; nothing
/// waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(20);

// ---------------------------------------------------------------------------------- the server

/// A server that lives as long as this value.
pub struct Server {
    pub addr: SocketAddr,
    /// Where the operator's pages are.
    pub ops: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// On two worker threads, whatever the machine, and without a rate limit.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// The same, but that a loss is a leave.
    pub fn without_resume() -> Self {
        Self::with(|settings| settings.rooms.resume_window = Duration::ZERO)
    }

    /// With settings of its own.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        watch_for_errors();
        // Both ends of every connection are in this process.
        limits::raise_open_files(0, 0);
        let mut settings = Settings::defaults();
        settings.server.bind = "127.0.0.1:0".parse().unwrap();
        settings.server.workers = 2;
        settings.session.rate_limit = 0;
        if everything_under_tls() {
            settings.tls = CERTIFICATE.settings();
        }
        change(&mut settings);
        let under_tls = !settings.tls.cert_file.is_empty();
        let server = server::Server::bind(settings).unwrap();
        let addr = server.local_addr().unwrap();
        if under_tls {
            is_under_tls(addr);
        }
        let ops = server.ops_addr().unwrap().unwrap_or(addr);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let stop = async {
                let _ = stopped.await;
            };
            // No signal reaches a test's server.
            server.run(stop, std::future::pending(), None).unwrap();
        });
        Self {
            addr,
            ops,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Stops it and waits until it has.
    pub fn stop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends without a panic");
        }
    }

    /// Begins to stop it, without waiting.
    pub fn begin_stop(&mut self) {
        self.stop.take();
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// A client that has joined: (`app` "test", `channel`) as `endpoint`.
    pub fn join(&self, channel: &str, endpoint: &str) -> Client {
        let mut client = self.connect();
        client.join(channel, endpoint);
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        let joined = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            if let Some(Err(_)) = joined {
                panic!("the server panicked");
            }
            let errors = ERRORS.lock().unwrap();
            assert!(errors.is_empty(), "ERROR lines in the log: {errors:#?}");
        }
    }
}

/// Lines of level ERROR: any of them fails every test that ends after it.
static ERRORS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Those that a test has asked for.
static ASKED_FOR: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

/// From now on this ERROR line fails no test of this file.
pub fn ask_for_error(line: &'static str) {
    ASKED_FOR.lock().unwrap().push(line);
}

struct ErrorWatch;

impl log::Log for ErrorWatch {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let ours = !record.target().starts_with(log_filter::NOT_OUR_ERRORS);
        let line = record.args().to_string();
        let asked_for = || ASKED_FOR.lock().unwrap().contains(&line.as_str());
        if ours && record.level() == log::Level::Error && !asked_for() {
            ERRORS.lock().unwrap().push(line);
        }
    }

    fn flush(&self) {}
}

fn watch_for_errors() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&ErrorWatch).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
}

// ---------------------------------------------------------------------------------- the client

/// What came from the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Code and reason; `None` for a close frame without a payload.
    Close(Option<(u16, String)>),
    /// The stream ended in order.
    End,
    /// The stream was reset.
    Reset,
}

/// A client of one connection.
pub struct Client {
    pub stream: Wire,
    /// Its session, once it has joined.
    pub session: String,
    /// Bytes that have come since the upgrade.
    pub received: usize,
    next_cseq: i64,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects and upgrades.
    pub fn connect(addr: SocketAddr) -> Self {
        Self::connect_to(addr, "/ws")
    }

    /// The same with a path and query of one's own.
    pub fn connect_to(addr: SocketAddr, path: &str) -> Self {
        Self::connect_with_head(addr, path, "")
    }

    /// The same with more lines in the request's head.
    pub fn connect_with_head(addr: SocketAddr, path: &str, more: &str) -> Self {
        let mut client = Self::tcp(addr);
        client.upgrade(addr, path, more);
        client
    }

    pub fn upgrade(&mut self, addr: SocketAddr, path: &str, more: &str) {
        self.write(
            format!(
                "GET {path} HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: \
                 Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
                 dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
            )
            .as_bytes(),
        );
        let head = self.read_http_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(
            head.to_ascii_lowercase()
                .contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{head}"
        );
    }

    /// Connects, and no more.
    pub fn tcp(addr: SocketAddr) -> Self {
        Self::on(Wire::new(TcpStream::connect(addr).unwrap(), addr))
    }

    /// Connects and upgrades with a socket that holds but a few kilobytes that are not read: who
    /// does not read is noticed soon.
    pub fn connect_narrow(addr: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        // Before the connect, since it decides the window.
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&addr.into()).unwrap();
        let mut client = Self::on(Wire::new(socket.into(), addr));
        client.upgrade(addr, "/ws", "");
        client
    }

    /// On a connection that is there already.
    pub fn on(stream: Wire) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            session: String::new(),
            received: 0,
            next_cseq: 1,
            buffer: Vec::new(),
        }
    }

    /// An HTTP response's head; what follows it stays in the buffer.
    pub fn read_http_head(&mut self) -> String {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.buffer.drain(..at + 4).collect();
                self.received = self.buffer.len();
                return String::from_utf8(head).unwrap();
            }
            assert_ne!(self.fill().unwrap(), 0, "the stream ended in a head");
        }
    }

    // ----- out -----

    /// Bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// One frame, masked.
    pub fn frame(&mut self, fin: bool, opcode: u8, payload: &[u8]) {
        self.write(&frame(fin, opcode, payload));
    }

    /// One text message.
    pub fn text(&mut self, text: &str) {
        self.frame(true, 1, text.as_bytes());
    }

    /// One JSON message.
    pub fn send(&mut self, message: &Value) {
        self.text(&message.to_string());
    }

    /// Cuts the connection: a reset, as when a network goes away.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    pub fn close(&mut self, code: u16) {
        self.frame(true, 8, &code.to_be_bytes());
    }

    /// A request with the client's own session; the number under which it was sent.
    pub fn ask(&mut self, method: &str, data: Value) -> i64 {
        let cseq = self.next_cseq;
        self.next_cseq += 1;
        let session = self.session.clone();
        self.send(&json!({"version": 0, "cseq": cseq, "method": method, "session": session, "data": data}));
        cseq
    }

    // ----- in -----

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut chunk = [0; 65536];
        let n = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..n]);
        self.received += n;
        Ok(n)
    }

    /// Reads once, whatever comes; 0 bytes at the end of the stream.
    pub fn receive_raw(&mut self) -> std::io::Result<usize> {
        self.fill()
    }

    /// Reads once, at most so many bytes, and keeps them for [`receive`](Self::receive).
    pub fn read_some(&mut self, most: usize) {
        let mut chunk = vec![0; most];
        let n = self.stream.read(&mut chunk).unwrap();
        self.buffer.extend_from_slice(&chunk[..n]);
        self.received += n;
    }

    /// Whatever comes next. Checks that each frame is what RFC 6455 lets a server send here:
    /// unmasked, no reserved bits, whole.
    pub fn receive(&mut self) -> Received {
        loop {
            if let Some((opcode, payload)) = self.take_frame() {
                return match opcode {
                    1 => Received::Text(String::from_utf8(payload).unwrap()),
                    8 if payload.is_empty() => Received::Close(None),
                    8 => Received::Close(Some((
                        u16::from_be_bytes([payload[0], payload[1]]),
                        String::from_utf8(payload[2..].to_vec()).unwrap(),
                    ))),
                    9 => Received::Ping(payload),
                    10 => Received::Pong(payload),
                    other => panic!("opcode {other} from the server"),
                };
            }
            match self.fill() {
                Ok(0) => {
                    assert!(self.buffer.is_empty(), "the stream ended in a frame");
                    return Received::End;
                }
                Ok(_) => {}
                Err(e)
                    if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
                {
                    return Received::Reset;
                }
                Err(e) => panic!("nothing came: {e}"),
            }
        }
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let b = &self.buffer;
        let (&first, &second) = (b.first()?, b.get(1)?);
        assert_eq!(first & 0xf0, 0x80, "a whole frame without reserved bits");
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let (start, len) = match second {
            126 => (4, u16::from_be_bytes(*b.get(2..)?.first_chunk()?) as usize),
            127 => (10, u64::from_be_bytes(*b.get(2..)?.first_chunk()?) as usize),
            len => (2, len as usize),
        };
        if b.len() < start + len {
            return None;
        }
        let payload = b[start..start + len].to_vec();
        self.buffer.drain(..start + len);
        Some((first & 0x0f, payload))
    }

    /// The next message as text; pings are answered on the way.
    pub fn next_text(&mut self) -> String {
        let begun = Instant::now();
        loop {
            match self.receive() {
                Received::Text(text) => return text,
                Received::Ping(payload) => {
                    assert!(begun.elapsed() < PATIENCE, "nothing came but pings");
                    self.frame(true, 10, &payload);
                }
                other => panic!("a message was due, {other:?} came"),
            }
        }
    }

    /// The next message as JSON.
    pub fn next(&mut self) -> Value {
        let text = self.next_text();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
    }

    /// The next message, which must be the event `name`; its `data`.
    pub fn event(&mut self, name: &str) -> Value {
        let message = self.next();
        assert_eq!(message["event"], name, "{message}");
        message["data"].clone()
    }

    /// The next message, which must be the answer to `cseq`.
    pub fn answer(&mut self, cseq: i64) -> Value {
        let message = self.next();
        assert!(message.get("err").is_some(), "an answer was due: {message}");
        assert_eq!(message["cseq"], cseq, "{message}");
        message
    }

    /// Asks, and the next message must be the answer.
    pub fn call(&mut self, method: &str, data: Value) -> Value {
        let cseq = self.ask(method, data);
        self.answer(cseq)
    }

    /// The same, and it must be granted; the answer's `data`.
    pub fn ok(&mut self, method: &str, data: Value) -> Value {
        let answer = self.call(method, data);
        assert_eq!(answer["err"], 0, "{answer}");
        answer["data"].clone()
    }

    /// Joins (`app` "test"); the answer's `data`.
    pub fn join(&mut self, channel: &str, endpoint: &str) -> Value {
        self.join_with(json!({"app": "test", "channel": channel, "endpoint": endpoint}))
    }

    /// Joins with this `data`.
    pub fn join_with(&mut self, data: Value) -> Value {
        self.session.clear();
        let data = self.ok("channel.join", data);
        self.session = data["session"].as_str().unwrap().to_owned();
        data
    }

    /// The room's members as channel.dump lists them. No event may come before it.
    pub fn dump(&mut self) -> Vec<Value> {
        let data = self.ok("channel.dump", json!({}));
        data["endpoint_list"].as_array().unwrap().clone()
    }

    /// The names in a dump. An answer of the room comes after every event that the room sent
    /// before it, so this also proves that none is on its way.
    pub fn names(&mut self) -> Vec<String> {
        let name = |row: &Value| row["endpoint"].as_str().unwrap().to_owned();
        self.dump().iter().map(name).collect()
    }

    /// Publishes a camera stream.
    pub fn publish(&mut self, stream_id: &str) -> Value {
        self.ok("stream.add", json!({"stream": stream(stream_id)}))
    }

    /// The close frame that must come next, then the end of the stream, in order.
    pub fn closed(&mut self) -> u16 {
        let code = loop {
            match self.receive() {
                Received::Close(Some((code, _))) => break code,
                Received::Ping(_) => {}
                other => panic!("a close frame was due, {other:?} came"),
            }
        };
        assert_eq!(self.receive(), Received::End);
        code
    }

    /// The error event that must come next; its `type`.
    pub fn error_event(&mut self) -> String {
        let message = self.next();
        assert_eq!(message["event"], "error", "{message}");
        assert_eq!(message["cseq"], 0, "{message}");
        assert_eq!(message["session"], self.session.as_str(), "{message}");
        message["data"]["type"].as_str().unwrap().to_owned()
    }
}

/// A client's frame: masked.
pub fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![if fin { 0x80 } else { 0 } | opcode];
    match payload.len() {
        len @ ..126 => bytes.push(0x80 | len as u8),
        len @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    let mask = [0x12, 0x34, 0x56, 0x78];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    bytes
}

/// A stream's description as stream.add takes it.
pub fn stream(stream_id: &str) -> Value {
    json!({
        "type": "camera",
        "stream_id": stream_id,
        "has_video": true,
        "has_audio": true,
        "audio_codec": "opus",
        "video_codec": "vp8",
    })
}

/// The keys of an object, sorted.
pub fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

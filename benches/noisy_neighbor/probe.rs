//! The quiet room: two members on a thread of their own with blocking sockets, so that neither the
//! flood nor its readers delay the measurement.

use std::{
    error::Error,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::nice;

use super::wire::{frame, message, times::Times};

/// The probe sends this often, within the default rate limit.
const INTERVAL: Duration = Duration::from_millis(12);

/// The receiver would be idle without a pong now and then.
const PROBES_A_PONG: u64 = 100;

/// An answer that takes longer than this fails the bench.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running probe.
pub(crate) struct Probe {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<Result<Times, String>>,
}

impl Probe {
    /// Joins with two members and starts to measure.
    pub(crate) fn start(server: SocketAddr) -> io::Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let mut from = Member::join(server, "probe-a")?;
        let mut to = Member::join(server, "probe-b")?;
        from.read_until("\"probe-b\"")?;
        let flag = stopped.clone();
        let thread = thread::spawn(move || {
            // Where that is not permitted, the readers of the flood delay the probe a little.
            let _ = nice(-15);
            let times = Times::default();
            let mut n = 0;
            while !flag.load(Ordering::Relaxed) {
                n += 1;
                let begun = Instant::now();
                let text = format!(r#"{{"probe":{n}}}"#);
                from.send("broadcast", &text).map_err(|e| e.to_string())?;
                to.read_until(&text).map_err(|e| e.to_string())?;
                times.add(begun.elapsed());
                if n % PROBES_A_PONG == 0 {
                    to.pong().map_err(|e| e.to_string())?;
                }
                // Its answers must not fill its socket.
                from.discard().map_err(|e| e.to_string())?;
                thread::sleep(INTERVAL.saturating_sub(begun.elapsed()));
            }
            Ok(times)
        });
        Ok(Self { stopped, thread })
    }

    /// Ends it; how long its broadcasts took.
    pub(crate) fn stop(self) -> Result<Times, Box<dyn Error>> {
        self.stopped.store(true, Ordering::Relaxed);
        let times = self.thread.join().map_err(|_| "the probe panicked")?;
        Ok(times?)
    }
}

struct Member {
    stream: TcpStream,
    input: Vec<u8>,
    session: String,
}

impl Member {
    fn join(server: SocketAddr, endpoint: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut member = Self {
            stream,
            input: Vec::new(),
            session: String::new(),
        };
        member.stream.write_all(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )?;
        member.read_until("\r\n\r\n")?;
        let join = format!(r#"{{"app":"bench","channel":"probe","endpoint":"{endpoint}"}}"#);
        member.send("channel.join", &join)?;
        let answer = member.read_until("\"session\":\"")?;
        let rest = answer.split("\"session\":\"").nth(1).unwrap_or_default();
        member.session = rest.chars().take(36).collect();
        Ok(member)
    }

    fn send(&mut self, method: &str, data: &str) -> io::Result<()> {
        let text = message::request(1, method, &self.session, data);
        let mut bytes = Vec::new();
        frame::write(frame::TEXT, text.as_bytes(), &mut bytes);
        self.stream.write_all(&bytes)
    }

    /// Says that it is there, though no ping is answered.
    fn pong(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame::write(frame::PONG, b"", &mut bytes);
        self.stream.write_all(&bytes)
    }

    /// Reads until `text` has come; what has come until then.
    fn read_until(&mut self, text: &str) -> io::Result<String> {
        let mut chunk = [0; 4096];
        loop {
            let so_far = String::from_utf8_lossy(&self.input);
            if so_far.contains(text) && (text != "\"session\":\"" || so_far.len() > 150) {
                let said = so_far.into_owned();
                self.input.clear();
                return Ok(said);
            }
            match self.stream.read(&mut chunk)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => self.input.extend_from_slice(&chunk[..n]),
            }
        }
    }

    fn discard(&mut self) -> io::Result<()> {
        self.stream.set_nonblocking(true)?;
        let mut chunk = [0; 4096];
        let ended = loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        self.stream.set_nonblocking(false)?;
        ended
    }
}

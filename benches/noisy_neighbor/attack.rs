//! The noisy room: its members, and what they do at once.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    fmt,
    io::ErrorKind,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use socket2::SockRef;
use tokio::{net::TcpStream, sync::Semaphore, task::JoinSet};

use super::wire::{
    connection::Route,
    frame,
    message::{Join, request},
    times::Times,
};

/// Connects at a time.
const AT_A_TIME: usize = 100;

/// Broadcasts of each sender in a burst: as many as may be unanswered.
const BURST: usize = 64;

/// Broadcasts a second of each sender of the sustained attack, and for how long.
const SUSTAINED_RATE: u32 = 90;
const SUSTAINED_SECS: u32 = 10;

/// Without a byte for so long, the attack is over.
const QUIET: Duration = Duration::from_millis(1500);

/// The longest that a few pings are.
const PING_BYTES: usize = 100;

/// The server expires a member that was reset after this.
const RESUME_WINDOW: Duration = Duration::from_secs(10);

/// What the members of the noisy room do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The senders pipeline 64 broadcasts each.
    Burst,
    /// The senders send 90 broadcasts a second for ten seconds.
    Sustained,
    /// Members that are connected join all at once.
    Joins,
    /// Members are reset at one moment, so that they expire at one moment.
    Expiry,
}

/// An attack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attack {
    kind: Kind,
    members: usize,
    senders: usize,
}

/// What it came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// From its beginning until the last byte arrived.
    took: Duration,
    bytes: u64,
    /// Connections that the server ended.
    ended: usize,
    /// The server's CPU time.
    pub(crate) cpu: Duration,
    /// How long the quiet room waited.
    pub(crate) probe: Option<Times>,
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:?}, {} of {}", self.kind, self.senders, self.members);
        f.pad(&text)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let probe = self.probe.as_ref().map(Times::text).unwrap_or_default();
        write!(
            f,
            "probe {probe}; took {:.2} s, CPU {:.2} s, {} MB, {} ended",
            self.took.as_secs_f64(),
            self.cpu.as_secs_f64(),
            self.bytes / 1_000_000,
            self.ended,
        )
    }
}

/// What its readers share.
#[derive(Default)]
struct Readers {
    bytes: Cell<u64>,
    last: Cell<Option<Instant>>,
    ended: Cell<usize>,
    scratch: RefCell<Vec<u8>>,
}

/// The noisy room, ready.
pub(crate) struct Room {
    attack: Attack,
    members: Vec<(Rc<TcpStream>, String)>,
    readers: Rc<Readers>,
    tasks: JoinSet<()>,
}

impl Attack {
    pub(crate) const fn new(kind: Kind, members: usize, senders: usize) -> Self {
        Self {
            kind,
            members,
            senders,
        }
    }

    /// Connects, and joins where the attack is not the join itself.
    pub(crate) async fn prepare(self, server: SocketAddr) -> Result<Room, Box<dyn Error>> {
        let gate = Rc::new(Semaphore::new(AT_A_TIME));
        let readers = Rc::new(Readers {
            scratch: RefCell::new(vec![0; 1 << 20]),
            ..Readers::default()
        });
        let mut coming = JoinSet::new();
        for n in 0..self.members {
            let gate = gate.clone();
            let joins = self.kind != Kind::Joins;
            let readers = readers.clone();
            coming.spawn_local(async move {
                let turn = gate.acquire().await;
                let route = Route::new(server, n as u32);
                let member = connect(route, n, joins).await.map_err(|e| e.to_string());
                drop(turn);
                if let Ok((stream, _)) = &member {
                    // What the others do while the rest comes must be read.
                    tokio::task::spawn_local(read(stream.clone(), readers));
                }
                member
            });
        }
        let mut members = Vec::with_capacity(self.members);
        while let Some(member) = coming.join_next().await {
            members.push(member??);
        }
        Ok(Room {
            attack: self,
            members,
            readers,
            tasks: JoinSet::new(),
        })
    }
}

async fn connect(
    route: Route,
    n: usize,
    joins: bool,
) -> Result<(Rc<TcpStream>, String), Box<dyn Error>> {
    let stream = Rc::new(route.connect().await?);
    let upgrade = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    write(&stream, upgrade.as_bytes()).await?;
    wait_for(&stream, "\r\n\r\n", 0).await?;
    let mut session = String::new();
    if joins {
        write(&stream, &join_frame(n)).await?;
        let text = wait_for(&stream, "\"session\":\"", 40).await?;
        let rest = text.split("\"session\":\"").nth(1).unwrap_or_default();
        session = rest.chars().take(36).collect();
    }
    Ok((stream, session))
}

fn join_frame(n: usize) -> Vec<u8> {
    let join = Join {
        channel: "noisy",
        endpoint: &format!("member {n}"),
        session: "",
        last_event: Some(0),
    };
    text_frame(&join.request(1))
}

fn text_frame(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::write(frame::TEXT, text.as_bytes(), &mut bytes);
    bytes
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads until `text` and so many bytes behind it have come.
async fn wait_for(stream: &TcpStream, text: &str, behind: usize) -> std::io::Result<String> {
    let mut input = Vec::new();
    loop {
        let so_far = String::from_utf8_lossy(&input);
        if so_far
            .find(text)
            .is_some_and(|at| so_far.len() >= at + text.len() + behind)
        {
            return Ok(so_far.into_owned());
        }
        stream.readable().await?;
        match stream.try_read_buf(&mut input) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

/// Reads and drops whatever comes.
async fn read(stream: Rc<TcpStream>, readers: Rc<Readers>) {
    loop {
        if stream.readable().await.is_err() {
            break;
        }
        match stream.try_read(&mut readers.scratch.borrow_mut()) {
            Ok(0) => break,
            Ok(n) => {
                readers.bytes.set(readers.bytes.get() + n as u64);
                // A ping is not of the attack.
                if n > PING_BYTES {
                    readers.last.set(Some(Instant::now()));
                }
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    readers.ended.set(readers.ended.get() + 1);
}

impl Room {
    /// Carries the attack out, and waits until its last byte has come.
    pub(crate) async fn run(mut self) -> Result<Outcome, Box<dyn Error>> {
        // The probe has a quiet moment first.
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.readers.bytes.set(0);
        let mut begun = Instant::now();
        let senders = self.attack.senders;
        match self.attack.kind {
            Kind::Burst => {
                for (stream, session) in &self.members[..senders] {
                    let frames = broadcast(session).repeat(BURST);
                    let stream = stream.clone();
                    self.tasks.spawn_local(async move {
                        // Where the connection has ended it counts as such.
                        let _ = write(&stream, &frames).await;
                    });
                }
            }
            Kind::Sustained => {
                for (n, (stream, session)) in self.members[..senders].iter().enumerate() {
                    let (stream, frame) = (stream.clone(), broadcast(session));
                    self.tasks.spawn_local(async move {
                        let interval = Duration::from_secs(1) / SUSTAINED_RATE;
                        tokio::time::sleep(interval.mul_f64(n as f64 / senders as f64)).await;
                        let mut ticks = tokio::time::interval(interval);
                        for _ in 0..SUSTAINED_RATE * SUSTAINED_SECS {
                            ticks.tick().await;
                            let _ = write(&stream, &frame).await;
                        }
                    });
                }
            }
            Kind::Joins => {
                for (n, (stream, _)) in self.members[..senders].iter().enumerate() {
                    let (stream, frame) = (stream.clone(), join_frame(n));
                    self.tasks.spawn_local(async move {
                        let _ = write(&stream, &frame).await;
                    });
                }
            }
            Kind::Expiry => {
                for (stream, _) in self.members.drain(..senders) {
                    SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
                    // What is left of it is its reader's, which ends with it.
                    let _ = SockRef::from(&*stream).shutdown(std::net::Shutdown::Both);
                }
                tokio::time::sleep(RESUME_WINDOW - Duration::from_secs(1)).await;
                begun = Instant::now() + Duration::from_secs(1);
            }
        }
        // At least until the first byte can have come.
        while self.tasks.join_next().await.is_some() {}
        if self.attack.kind == Kind::Expiry {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self
                .readers
                .last
                .get()
                .is_none_or(|last| last.elapsed() > QUIET)
            {
                break;
            }
        }
        let last = self.readers.last.get().unwrap_or(begun);
        let expected_end = match self.attack.kind {
            Kind::Expiry => senders,
            _ => 0,
        };
        Ok(Outcome {
            took: last.saturating_duration_since(begun),
            bytes: self.readers.bytes.get(),
            ended: self.readers.ended.get().saturating_sub(expected_end),
            ..Outcome::default()
        })
    }
}

fn broadcast(session: &str) -> Vec<u8> {
    text_frame(&request(2, "broadcast", session, r#"{"text":"hello"}"#))
}

//! One large room that floods its worker thread, and hundreds of quiet rooms whose latency is
//! judged: no room hurts another.
//!
//! It runs on a thread of its own, so that the flood does not delay what the other members measure.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    rc::Rc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::{JoinSet, LocalSet},
    time::{interval_at, sleep, timeout},
};

use super::wire::{
    connection::{Connection, Received, Route},
    message::{Join, request},
    random::Random,
    times::Times,
};

/// One member of the flooding room in so many sends.
const SENDER: usize = 50;

/// Each of them sends so many broadcasts at once, this often.
const BURST: usize = 20;
const BURST_INTERVAL: Duration = Duration::from_secs(2);

/// Each quiet room sends a broadcast this often.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// A probe that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connections that open at a time, by a pause between them.
const ARRIVAL: Duration = Duration::from_millis(2);

/// The 99th percentile of the probes may be this long, on two cores that the server shares with
/// thousands of members.
const MAX_P99: Duration = Duration::from_millis(100);

/// What the quiet rooms have measured.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    pub(crate) times: Times,
    lost: Cell<u64>,
    ended: Cell<u64>,
}

impl Quiet {
    /// What was wrong with it.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.lost.get() > 0 {
            wrong.push(format!(
                "{} probes of quiet rooms were lost",
                self.lost.get()
            ));
        }
        if self.ended.get() > 0 {
            wrong.push(format!(
                "{} members of quiet rooms were disconnected",
                self.ended.get()
            ));
        }
        let p99 = self.times.quantile(0.99);
        if p99 > MAX_P99 {
            wrong.push(format!("quiet rooms waited {p99:?} beside a flood (p99)"));
        }
        wrong
    }
}

/// A running flood.
pub(crate) struct Flood {
    stop: watch::Sender<bool>,
    thread: JoinHandle<io::Result<Quiet>>,
}

impl Flood {
    /// Starts a flooding room of so many members, and so many quiet rooms of two.
    pub(crate) fn start(server: SocketAddr, members: usize, quiet_rooms: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let all = run(server, members, quiet_rooms, stopped);
            Ok(LocalSet::new().block_on(&runtime, all))
        });
        Self { stop, thread }
    }

    /// Ends it; what the quiet rooms have measured.
    pub(crate) async fn stop(self) -> io::Result<Quiet> {
        // Where the thread has ended by itself, its result says why.
        let _ = self.stop.send(true);
        let thread = self.thread;
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        joined
            .map_err(io::Error::other)?
            .map_err(|_| io::Error::other("the flood panicked"))?
    }
}

async fn run(
    server: SocketAddr,
    members: usize,
    quiet_rooms: usize,
    stopped: watch::Receiver<bool>,
) -> Quiet {
    let quiet = Rc::new(Quiet::default());
    let mut tasks = JoinSet::new();
    for n in 0..quiet_rooms {
        let (quiet, stopped) = (quiet.clone(), stopped.clone());
        tasks.spawn_local(async move {
            sleep(ARRIVAL * n as u32).await;
            if quiet_room(server, n, &quiet, stopped).await.is_err() {
                quiet.ended.set(quiet.ended.get() + 1);
            }
        });
    }
    for n in 0..members {
        let stopped = stopped.clone();
        tasks.spawn_local(async move {
            sleep(ARRIVAL * n as u32).await;
            while !*stopped.borrow() {
                // A member of the flood that the server disconnects, being slow, comes back.
                if member(server, n, stopped.clone()).await.is_err() {
                    sleep(Duration::from_secs(1)).await;
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Rc::try_unwrap(quiet).unwrap_or_default()
}

async fn join(server: SocketAddr, n: usize, channel: &str) -> io::Result<(Connection, String)> {
    let mut connection = Connection::open(Route::new(server, n as u32)).await?;
    let join = Join {
        channel,
        endpoint: &format!("{channel} {n}"),
        session: "",
        last_event: None,
    };
    connection.send(&join.request(1));
    let answer = text_with(&mut connection, "\"session\":\"").await?;
    let session = answer.split("\"session\":\"").nth(1).unwrap_or_default();
    Ok((connection, session.chars().take(36).collect()))
}

/// The next message in which this stands.
async fn text_with(connection: &mut Connection, part: &str) -> io::Result<String> {
    loop {
        match connection.receive().await {
            Received::Text(text) if text.contains(part) => return Ok(text.to_owned()),
            Received::Text(_) | Received::Ping => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A member of the flooding room, until it is stopped or disconnected.
async fn member(
    server: SocketAddr,
    n: usize,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let (mut connection, session) = join(server, n, "flood").await?;
    let broadcast = request(2, "broadcast", &session, r#"{"text":"flood"}"#);
    let mut bursts = tokio::time::interval(BURST_INTERVAL);
    loop {
        tokio::select! {
            _ = stopped.changed() => {
                connection.close(1000);
                while !matches!(connection.receive().await, Received::Close(_) | Received::End) {}
                return Ok(());
            }
            _ = bursts.tick(), if n.is_multiple_of(SENDER) => {
                for _ in 0..BURST {
                    connection.send(&broadcast);
                }
            }
            received = connection.receive() => {
                if !matches!(received, Received::Text(_) | Received::Ping) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

/// Two members, one of whom sends to the other again and again.
async fn quiet_room(
    server: SocketAddr,
    n: usize,
    quiet: &Quiet,
    stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let channel = format!("quiet {n}");
    let (mut from, session) = join(server, 0, &channel).await?;
    let (mut to, _) = join(server, 1, &channel).await?;
    let mut random = Random::new(n as u64);
    let phase = PROBE_INTERVAL.mul_f64(random.between(0.0, 1.0));
    let mut probes = interval_at(tokio::time::Instant::now() + phase, PROBE_INTERVAL);
    let mut number = 0;
    while !*stopped.borrow() {
        probes.tick().await;
        number += 1;
        let data = format!(r#"{{"probe":{number}}}"#);
        let begun = Instant::now();
        from.send(&request(2, "broadcast", &session, &data));
        let arrives = async {
            tokio::try_join!(
                text_with(&mut from, "\"cseq\":2"),
                text_with(&mut to, &data)
            )
        };
        match timeout(PATIENCE, arrives).await {
            Ok(arrived) => {
                arrived?;
                quiet.times.add(begun.elapsed());
            }
            Err(_) => quiet.lost.set(quiet.lost.get() + 1),
        }
    }
    for mut connection in [from, to] {
        connection.close(1000);
        while !matches!(
            connection.receive().await,
            Received::Close(_) | Received::End
        ) {}
    }
    Ok(())
}

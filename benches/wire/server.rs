//! The server itself, as a process of its own: the very program that is released.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::usage::Usage;

/// How long the server may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// So many complaints of its log are kept word for word.
const KEPT: usize = 20;

/// What its log has said.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Lines of any level.
    pub lines: u64,
    /// Lines of level ERROR.
    pub errors: u64,
    /// Lines of level WARN, by what they say without their fields.
    pub warnings: BTreeMap<String, u64>,
    /// The first lines of level ERROR, and whatever is no line of the log: a panic's message.
    pub kept: Vec<String>,
}

impl Log {
    fn note(&mut self, line: &str) {
        self.lines += 1;
        let mut words = line.split_whitespace().skip(1);
        match words.next() {
            Some("INFO" | "DEBUG" | "TRACE") => {}
            Some("WARN") => {
                let said: Vec<_> = words.take_while(|word| !word.contains('=')).collect();
                *self.warnings.entry(said.join(" ")).or_default() += 1;
            }
            // What is no line of the log is worse than an error.
            _ => {
                self.errors += 1;
                if self.kept.len() < KEPT {
                    self.kept.push(line.to_owned());
                }
            }
        }
    }
}

/// A server that ends with this value.
#[derive(Debug)]
pub struct Server {
    /// Where it serves.
    pub addr: SocketAddr,
    /// Where its figures are.
    pub ops: SocketAddr,
    child: Child,
    log: Arc<Mutex<Log>>,
}

impl Server {
    /// Starts it on free ports, with these settings (`SECTION__KEY` and value) beside the
    /// defaults, and `rust_log` as what is to be logged; the line "start" has to be.
    ///
    /// # Errors
    /// What the system says; or it does not start.
    pub fn start(rust_log: &str, settings: &[(&str, String)]) -> io::Result<Self> {
        Self::start_program(None, rust_log, settings)
    }

    /// The same with another build of the server, where one is named.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_program(
        program: Option<&Path>,
        rust_log: &str,
        settings: &[(&str, String)],
    ) -> io::Result<Self> {
        let ours = Path::new(env!("CARGO_BIN_EXE_meeting-server"));
        let mut command = Command::new(program.unwrap_or(ours));
        command
            .args(["--config", "/dev/null", "--bind", "127.0.0.1:0"])
            .env_clear()
            .env("RUST_LOG", rust_log)
            .env("MEETING_SERVER__SERVER__OPS_BIND", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        for (key, value) in settings {
            command.env(format!("MEETING_SERVER__{key}"), value);
        }
        let mut child = command.spawn()?;
        let log = Arc::default();
        let (started, start) = channel();
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&log);
            thread::spawn(move || read_log(stderr, &log, &started));
        }
        match start.recv_timeout(PATIENCE) {
            Ok((addr, ops)) => Ok(Self {
                addr,
                ops,
                child,
                log,
            }),
            Err(_) => {
                child.kill()?;
                let said = child.wait()?;
                let log = log.lock().unwrap_or_else(PoisonError::into_inner);
                let text = format!("the server does not start: {said}; {:?}", log.kept);
                Err(io::Error::other(text))
            }
        }
    }

    /// What it uses.
    pub fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }

    /// What its log has said so far.
    pub fn log(&self) -> Log {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether it is still there.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Ends it in order; how it ended, and all that its log has said.
    ///
    /// # Errors
    /// What the system says; or it does not end.
    pub fn stop(mut self) -> io::Result<(ExitStatus, Log)> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, self.log()));
            }
            if begun.elapsed() > PATIENCE {
                return Err(io::Error::other("the server does not end"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, most of the time.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log to its end, lest the server waits for somebody to do so.
fn read_log(stderr: ChildStderr, log: &Mutex<Log>, started: &Sender<(SocketAddr, SocketAddr)>) {
    for line in BufReader::new(stderr).split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line);
        if let Some(addresses) = start_line(&line) {
            // Only the first is waited for.
            let _ = started.send(addresses);
        }
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(&line);
    }
}

/// The addresses of the line `TIME INFO start version=… bind=… ops=…`.
fn start_line(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut words = line.split_whitespace();
    if words.nth(2) != Some("start") {
        return None;
    }
    let (mut bind, mut ops) = (None, None);
    for word in words {
        match word.split_once('=') {
            Some(("bind", addr)) => bind = addr.parse().ok(),
            Some(("ops", addr)) => ops = addr.parse().ok(),
            _ => {}
        }
    }
    bind.zip(ops)
}

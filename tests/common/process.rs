//! The binary itself, seen as an operator sees it: its log, its signals, its exit code.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use super::{
    Client, PATIENCE,
    log_line::{Format, Line},
};

/// A server process that ends with this value.
pub struct Process {
    pub addr: SocketAddr,
    pub ops: SocketAddr,
    format: Format,
    child: Child,
    stderr: Receiver<String>,
    reading: Arc<Reading>,
    /// All of its standard error so far.
    pub log: Vec<String>,
}

/// Whether the pipe of the standard error is read.
#[derive(Default)]
struct Reading {
    paused: Mutex<bool>,
    changed: Condvar,
}

impl Reading {
    fn set(&self, paused: bool) {
        *self.paused.lock().unwrap() = paused;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let paused = self.paused.lock().unwrap();
        drop(self.changed.wait_while(paused, |paused| *paused).unwrap());
    }
}

impl Process {
    /// On free ports and two worker threads; with these settings, `SECTION__KEY` and value, beside
    /// the defaults.
    pub fn start(format: Format, rust_log: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_with(format, rust_log, Path::new("/dev/null"), settings)
    }

    /// The same with this settings file, and nothing else but the defaults.
    pub fn with_config(format: Format, config: &Path) -> Self {
        Self::start_with(format, "info", config, &[])
    }

    /// The same with the settings.toml of a directory, and without RUST_LOG.
    pub fn in_directory(format: Format, directory: &Path) -> Self {
        let mut command = Self::command(format, &[]);
        command.current_dir(directory);
        Self::spawn(format, command).started()
    }

    /// The same with a settings file besides.
    pub fn start_with(
        format: Format,
        rust_log: &str,
        config: &Path,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut command = Self::command(format, settings);
        command
            .env("RUST_LOG", rust_log)
            .arg("--config")
            .arg(config);
        Self::spawn(format, command).started()
    }

    /// The binary, to be started on free ports.
    pub fn command(format: Format, settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meeting-server"));
        command
            .env_clear()
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let ours = [
            ("SERVER__BIND", "127.0.0.1:0"),
            ("SERVER__OPS_BIND", "127.0.0.1:0"),
            ("SERVER__WORKERS", "2"),
            ("LOG__FORMAT", format.name()),
        ];
        for (key, value) in ours.iter().chain(settings) {
            command.env(format!("MEETING_SERVER__{key}"), value);
        }
        command
    }

    /// Starts the binary. Its addresses are unknown until it has [started](Self::started).
    pub fn spawn(format: Format, mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let pipe = BufReader::new(child.stderr.take().unwrap());
        let (lines, stderr) = channel();
        let reading = Arc::new(Reading::default());
        let gate = reading.clone();
        std::thread::spawn(move || {
            for line in pipe.lines() {
                gate.wait();
                if lines.send(line.unwrap()).is_err() {
                    break;
                }
            }
        });
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            addr: unknown,
            ops: unknown,
            format,
            child,
            stderr,
            reading,
            log: Vec::new(),
        }
    }

    /// Waits until it serves.
    pub fn started(mut self) -> Self {
        let start = self.line("start");
        self.addr = start["bind"].parse().unwrap();
        self.ops = start["ops"].parse().unwrap();
        self
    }

    /// Stops reading its standard error, whose pipe fills up then.
    pub fn stop_reading(&self) {
        self.reading.set(true);
    }

    /// Reads its standard error again.
    pub fn go_on_reading(&self) {
        self.reading.set(false);
    }

    /// Waits until it has ended, whether its standard error is read or not: its exit code.
    pub fn exited(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    pub fn join(&self, channel: &str, endpoint: &str) -> Client {
        let mut client = self.connect();
        client.join(channel, endpoint);
        client
    }

    /// The next line, waited for.
    pub fn next_line(&mut self) -> Line {
        let text = self
            .stderr
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("the log does not go on: {:#?}", self.log));
        let line = self.format.parse(&text);
        self.log.push(text);
        line
    }

    /// The next line with this message, waited for.
    pub fn line(&mut self, message: &str) -> Line {
        loop {
            let line = self.next_line();
            if line.message == message {
                return line;
            }
        }
    }

    /// The next line, if it comes within `wait`.
    pub fn line_within(&mut self, wait: Duration) -> Option<Line> {
        let text = self.stderr.recv_timeout(wait).ok()?;
        let line = self.format.parse(&text);
        self.log.push(text);
        Some(line)
    }

    /// Sends a signal: "TERM", "INT", "STOP", "CONT".
    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(kill.success());
    }

    /// Waits until it has ended: its exit code, and its whole log.
    pub fn ended(&mut self) -> (ExitStatus, Vec<Line>) {
        let status = loop {
            match self.stderr.recv_timeout(PATIENCE) {
                Ok(text) => self.log.push(text),
                Err(RecvTimeoutError::Disconnected) => break self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {:#?}", self.log),
            }
        };
        let lines = self.log.iter().map(|text| self.format.parse(text));
        (status, lines.collect())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, most of the time.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

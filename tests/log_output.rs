//! Where the log goes: a standard error that is not read, that is broken, or that is journald's.

mod common;

use std::{
    cell::RefCell,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, PipeWriter, pipe},
    net::SocketAddr,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{
    http::{get, upgrade_status},
    log_line::{Format, Line},
    openmetrics::Figures,
    process::Process,
    wire::Certificate,
    *,
};
use serde_json::json;

const DROPPED: &str = "meeting_server_log_lines_dropped_total";

/// A member that publishes and unpublishes a stream over and over, each a line of the log.
struct Flood {
    client: Client,
    /// How many lines it has caused, each of which has its number in `stream`.
    lines: u64,
}

impl Flood {
    fn in_room_of(process: &Process) -> Self {
        let client = process.join("flood", "flo");
        Self { client, lines: 0 }
    }

    /// Forty lines.
    fn some(&mut self) {
        let asked: Vec<i64> = (0..20)
            .flat_map(|_| {
                let names = [self.lines, self.lines + 1].map(|n| n.to_string());
                self.lines += 2;
                // The end of a stream is logged under its own name.
                let add = json!({"stream": stream(&names[0])});
                let delete = json!({"stream_id": names[0]});
                [
                    self.client.ask("stream.add", add),
                    self.client.ask("stream.delete", delete),
                ]
            })
            .collect();
        for cseq in asked {
            assert_eq!(self.client.answer(cseq)["err"], 0);
        }
    }

    /// Until lines are dropped. Returns how many.
    fn until_lines_are_dropped(&mut self, process: &Process) -> u64 {
        let begun = Instant::now();
        loop {
            for _ in 0..20 {
                self.some();
            }
            let dropped = Figures::scrape(process.ops)[DROPPED];
            if dropped > 0.0 {
                return dropped as u64;
            }
            assert!(begun.elapsed() < 3 * PATIENCE, "no line is dropped");
        }
    }
}

/// The number of a line of the flood: even for a publish, odd for its unpublish.
fn number(line: &Line) -> Option<u64> {
    let publish = line.get("stream")?.parse::<u64>().ok()?;
    match line.message.as_str() {
        "publish" => Some(publish),
        "unpublish" => Some(publish + 1),
        _ => None,
    }
}

const SETTINGS: [(&str, &str); 4] = [
    ("SESSION__RATE_LIMIT", "0"),
    ("LOG__STATS_INTERVAL", "0"),
    ("ROOMS__RESUME_WINDOW", "0"),
    ("SERVER__ALLOWED_ORIGINS", "https://meet.example.org"),
];

#[test]
fn a_log_that_is_not_read_stops_no_room() {
    for format in Format::BOTH {
        let mut process = Process::start(format, "info", &SETTINGS);
        let (mut anna, mut ben) = (process.join("c", "anna"), process.join("c", "ben"));
        anna.event("endpoint");
        let mut flood = Flood::in_room_of(&process);
        process.stop_reading();
        flood.until_lines_are_dropped(&process);

        assert_eq!(get(process.addr, "/healthz").status, 200);
        assert_eq!(get(process.ops, "/livez").status, 200);
        ben.ok("broadcast", json!({"text": "hello"}));
        anna.event("broadcast");
        // A warning still finds room.
        assert_eq!(
            upgrade_status(process.addr, "Origin: https://evil.example\r\n"),
            403
        );
        flood.some();
        let dropped = Figures::scrape(process.ops)[DROPPED] as u64;

        process.go_on_reading();
        let (mut next, mut warnings) = (0, Vec::new());
        let notice = loop {
            let line = process.next_line();
            if line.message == "log lines dropped" {
                break line;
            }
            if line.message == "upgrade refused" {
                warnings.push(line.clone());
            }
            if let Some(number) = number(&line) {
                assert_eq!(number, next, "in their order");
                next += 1;
            }
        };
        assert_eq!(notice.level, "warn");
        assert_eq!(warnings.len(), 1);
        assert_eq!(notice.count("lines"), dropped);
        assert_eq!(next + dropped, flood.lines, "all others are there");
        // From there on nothing is missing.
        let mut next = flood.lines;
        flood.some();
        while next < flood.lines {
            if let Some(number) = number(&process.next_line()) {
                assert_eq!(number, next);
                next += 1;
            }
        }
        assert_eq!(Figures::scrape(process.ops)[DROPPED] as u64, dropped);
        process.signal("TERM");
        drop((anna, ben, flood));
        let (status, lines) = process.ended();
        assert!(status.success());
        let notices = lines
            .iter()
            .filter(|line| line.message == "log lines dropped");
        assert_eq!(notices.count(), 1);
        assert_eq!(lines.last().unwrap().message, "gone down");
    }
}

#[test]
fn a_log_that_is_not_read_delays_the_exit_for_a_second() {
    let mut process = Process::start(Format::Text, "info", &SETTINGS);
    let mut flood = Flood::in_room_of(&process);
    process.stop_reading();
    flood.until_lines_are_dropped(&process);
    drop(flood);
    Figures::when(process.ops, |figures| {
        figures["meeting_server_connections"] == 0.0
    });
    let begun = Instant::now();
    process.signal("TERM");
    assert!(process.exited().success());
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(1), "it waits: {took:?}");
    assert!(took < Duration::from_secs(5), "not for long: {took:?}");
}

// ------------------------------------------------------------------- a broken standard error

/// A server whose standard error is this one; its address is asked of the system.
struct Mute {
    addr: SocketAddr,
    child: Child,
}

fn command(stderr: impl Into<Stdio>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meeting-server"));
    command
        .env_clear()
        // There is no settings.toml.
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .env("RUST_LOG", "info")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    for (key, value) in SETTINGS.iter().chain(&[("SERVER__BIND", "127.0.0.1:0")]) {
        command.env(format!("MEETING_SERVER__{key}"), value);
    }
    command
}

impl Mute {
    fn start(stderr: impl Into<Stdio>) -> Self {
        Self::spawn(&mut command(stderr))
    }

    fn spawn(command: &mut Command) -> Self {
        let child = command.spawn().unwrap();
        let pid = child.id();
        let found = |addrs: &Vec<SocketAddr>| !addrs.is_empty();
        let listening = procfs::when(|| procfs::listening(pid), found, "where it listens");
        let addr = listening[0];
        Self { addr, child }
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_broken_standard_error_ends_nothing_and_costs_nothing() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    for stderr in [Stdio::from(writer), Stdio::from(full())] {
        let mut server = Mute::start(stderr);
        let mut anna = Client::connect(server.addr);
        for n in 0..50 {
            anna.join("c", &format!("anna {n}"));
            anna.ok("channel.leave", json!({}));
        }
        let lost = |figures: &Figures| figures[DROPPED] >= 100.0;
        let before = Figures::when(server.addr, lost);
        assert_eq!(get(server.addr, "/healthz").status, 200);
        // A thread that spins would take this second's CPU.
        thread::sleep(Duration::from_secs(1));
        let after = Figures::scrape(server.addr);
        let cpu = |figures: &Figures| figures["process_cpu_seconds_total"];
        let used = cpu(&after) - cpu(&before);
        assert!(used < 0.3, "{used} s of CPU in a second");
        assert_eq!(server.child.try_wait().unwrap(), None);
    }
}

/// A pipe's end that takes nothing more.
fn full_pipe(writer: &PipeWriter) -> OwnedFd {
    let end: OwnedFd = writer.try_clone().unwrap().into();
    let flags = rustix::fs::fcntl_getfl(&end).unwrap();
    let nonblocking = flags | rustix::fs::OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(&end, nonblocking).unwrap();
    while rustix::io::write(&end, &[b'x'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&end, flags).unwrap();
    end
}

/// A part of it cannot be read.
const BAD_RUST_LOG: &str = "info,a=b=c";

/// Has a server take a limit of one connection from its settings file, and ends it.
fn reloads_and_ends(mut server: Mute, config: &Path, what: &str) {
    let pid = server.child.id().to_string();
    let signal = |name: &str| {
        let mut kill = Command::new("kill");
        assert!(kill.args(["-s", name, &pid]).status().unwrap().success());
    };
    let _held = Client::connect(server.addr);
    fs::write(config, "[server]\nmax_connections = 1\n").unwrap();
    signal("HUP");
    let status = || upgrade_status(server.addr, "");
    procfs::when(status, |status| *status == 503, what);
    signal("TERM");
    let child = RefCell::new(&mut server.child);
    let ended = || child.borrow_mut().try_wait().unwrap();
    let status = procfs::when(ended, Option::is_some, what).unwrap();
    assert!(status.success(), "{what}: {status}");
}

#[test]
fn a_bad_rust_log_ends_nothing_where_standard_error_is_broken() {
    let server = |stderr: Stdio| {
        let config = keys::temporary("");
        let mut command = command(stderr);
        command
            .env("RUST_LOG", BAD_RUST_LOG)
            .env("MEETING_SERVER__SERVER__DRAIN_TIMEOUT", "100ms")
            .arg("--config")
            .arg(&config);
        (Mute::spawn(&mut command), config)
    };
    let (disk_full, config) = server(full().into());
    reloads_and_ends(disk_full, &config, "a full disk");

    let (reader, writer) = pipe().unwrap();
    let (unheard, config) = server(writer.into());
    drop(reader);
    reloads_and_ends(unheard, &config, "a closed pipe");

    let (reader, writer) = pipe().unwrap();
    let (stuck, config) = server(writer.try_clone().unwrap().into());
    let _full = full_pipe(&writer);
    reloads_and_ends(stuck, &config, "a full pipe");
    drop(reader);
}

#[test]
fn what_cannot_be_read_in_rust_log_is_logged_once() {
    let config = keys::temporary("[log]\nlevel = \"off\"\n");
    for format in Format::BOTH {
        let rust_log = "info,a=b=c,meeting_server=loud";
        let mut process = Process::start_with(format, rust_log, &config, &[]);
        process.signal("HUP");
        process.line("configuration reloaded");
        process.signal("TERM");
        let (status, lines) = process.ended();
        assert!(status.success());
        let warning = "RUST_LOG has parts that cannot be read";
        let warnings: Vec<_> = lines.iter().filter(|l| l.message == warning).collect();
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].level, "warn");
        assert_eq!(&warnings[0]["ignored"], "a=b=c,meeting_server=loud");
        assert_eq!(lines.last().unwrap().message, "gone down", "info holds");
    }
}

#[test]
fn a_failed_start_waits_a_second_for_its_line() {
    let (reader, writer) = pipe().unwrap();
    let begun = Instant::now();
    let status = command(full_pipe(&writer)).arg("--bogus").status().unwrap();
    assert_eq!(status.code(), Some(2));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap().to_string();
    let status = command(full_pipe(&writer))
        .args(["--bind", &bind])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    drop(reader);
}

// ----------------------------------------------------------------------------------- the start

#[test]
fn under_tls_the_start_names_a_page_under_https() {
    let certificate = Certificate::new();
    let config = keys::temporary(&format!(
        "[tls]\ncert_file = {:?}\nkey_file = {:?}\n",
        certificate.cert_file, certificate.key_file
    ));
    for (demo, everywhere) in [(true, true), (true, false), (false, false)] {
        let bind = if everywhere {
            "0.0.0.0:0"
        } else {
            "127.0.0.1:0"
        };
        let settings = [
            ("SERVER__BIND", bind),
            ("SERVER__DEMO", if demo { "true" } else { "false" }),
        ];
        let format = Format::Text;
        let process = Process::start_with(format, "info", &config, &settings);
        let start = format.parse(process.log.last().unwrap());
        let page = format!("https://127.0.0.1:{}/", process.addr.port());
        assert_eq!(start.get("page"), demo.then_some(&page[..]), "{bind}");
    }
}

// ------------------------------------------------------------------------------------ journald

#[test]
fn under_journald_each_line_begins_with_its_priority() {
    for (is_journal, format) in [(true, "text"), (true, "json"), (false, "text")] {
        let (reader, writer) = pipe().unwrap();
        let metadata = File::from(OwnedFd::from(writer.try_clone().unwrap()))
            .metadata()
            .unwrap();
        let inode = metadata.ino() + u64::from(!is_journal);
        let mut command = command(writer);
        command.env("JOURNAL_STREAM", format!("{}:{inode}", metadata.dev()));
        command.env("MEETING_SERVER__LOG__FORMAT", format);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let mut line = |words: &str| {
            let found = lines.find(|line| line.contains(words));
            found.unwrap_or_else(|| panic!("no {words}"))
        };
        let (start, openness) = (line("start"), line("open to everybody"));
        child.kill().unwrap();
        child.wait().unwrap();
        // The start that fails has no log.
        let status = command.arg("--bogus").status().unwrap();
        assert_eq!(status.code(), Some(2));
        let failure = line("bogus");
        let prefix = if is_journal { "<3>" } else { "" };
        let expected = format!("{prefix}meeting-server: ");
        assert!(failure.starts_with(&expected), "{failure}");
        match (is_journal, format) {
            (true, "text") => {
                assert!(start.starts_with("<6>INFO  start version="), "{start}");
                assert!(openness.starts_with("<4>WARN  open to"), "{openness}");
            }
            (true, _) => {
                let start = start.strip_prefix("<6>").unwrap();
                assert_eq!(Format::Json.parse(start).level, "info");
                assert!(start.contains(",\"tls\":false,"), "{start}");
                assert!(openness.starts_with("<4>{\""), "{openness}");
            }
            (false, _) => {
                assert_eq!(Format::Text.parse(&start).message, "start");
            }
        }
    }
}

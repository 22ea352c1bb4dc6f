//! /metrics as Prometheus reads it: the text format, checked by Prometheus' own `promtool`.
//!
//! Where there is no `promtool` (Debian's package `prometheus`) that test is skipped, and says so;
//! with `CI=true` it fails.

mod common;

use std::{
    env,
    io::{self, ErrorKind, Write},
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use common::{
    http::{get, get_with},
    openmetrics::Figures,
    procfs,
    wire::Certificate,
    *,
};
use serde_json::json;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What promtool says of names that are older than its rules, and stay as they are.
const ACCEPTED: [&str; 0] = [];

/// A server in which something has happened, under TLS but for the operator's pages.
fn server() -> Server {
    let server = Server::with(|settings| {
        settings.server.ops_bind = Some("127.0.0.1:0".parse().unwrap());
        settings.tls = wire::CERTIFICATE.settings();
    });
    let mut anna = server.join("c", "anna");
    anna.publish("a1");
    anna.ok("broadcast", json!({}));
    anna.close(1000);
    anna.closed();
    server
}

/// What `promtool check metrics` has to say of a page; `None`: it is not installed.
fn promtool(page: &str) -> Option<(bool, Vec<String>)> {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let missing = "promtool is not installed \
                           (apt-get install --no-install-recommends prometheus)";
            assert_ne!(env::var("CI").as_deref(), Ok("true"), "{missing}");
            // Past the harness, which shows nothing of a test that passes.
            let said = writeln!(io::stderr(), "SKIPPED: {missing}");
            said.expect("standard error takes a line");
            return None;
        }
        child => child.unwrap(),
    };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(page.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    let findings = said.lines().map(str::to_owned).collect();
    Some((output.status.success(), findings))
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    // A page with a mistake, to see that it is found.
    let wrong = "# HELP a A\n# TYPE a counter\na 1\n";
    let Some((is_good, findings)) = promtool(wrong) else {
        return;
    };
    assert!(!is_good && !findings.is_empty(), "{findings:?}");

    let server = server();
    let page = get(server.ops, "/metrics").body;
    assert!(page.contains("\nmeeting_server_joins_total 1\n"), "{page}");
    let (is_good, findings) = promtool(&page).unwrap();
    assert_eq!(findings, ACCEPTED);
    assert_eq!(is_good, ACCEPTED.is_empty());
}

#[test]
fn the_format_is_what_the_scraper_asks_for() {
    let server = server();
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                      application/openmetrics-text;version=0.0.1;q=0.4,\
                      text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for (accept, format) in [
        (None, TEXT),
        (Some("*/*"), TEXT),
        (Some("text/html,application/xhtml+xml,*/*;q=0.8"), TEXT),
        (Some("text/plain"), TEXT),
        (Some("nonsense;;q=x"), TEXT),
        (Some("application/openmetrics-text;q=0, text/plain"), TEXT),
        (
            Some("text/plain;q=0.6, application/openmetrics-text;q=0.5"),
            TEXT,
        ),
        (Some("application/openmetrics-text"), OPEN_METRICS),
        (
            Some("application/openmetrics-text; version=1.0.0"),
            OPEN_METRICS,
        ),
        (Some(prometheus), OPEN_METRICS),
    ] {
        let head = accept.map(|accept| format!("Accept: {accept}\r\n"));
        let page = get_with(server.ops, "/metrics", &head.unwrap_or_default());
        assert_eq!(page.status, 200);
        assert_eq!(page.header("content-type"), Some(format), "{accept:?}");
        assert_eq!(page.header("vary"), Some("accept"));
        assert_eq!(page.body.ends_with("# EOF\n"), format == OPEN_METRICS);
    }
}

/// Samples by name and labels, without those that change between two scrapes.
fn samples(page: &str) -> Vec<&str> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let changes = |line: &&str| line.starts_with("process_") || line.contains("worker_turn");
    lines.filter(|line| !changes(line)).collect()
}

#[test]
fn both_formats_have_the_same_samples() {
    let server = server();
    Figures::when(server.ops, |figures| {
        figures["meeting_server_connections"] == 0.0 && figures["meeting_server_rooms"] == 0.0
    });
    let text = get(server.ops, "/metrics").body;
    let accept = "Accept: application/openmetrics-text\r\n";
    let open = get_with(server.ops, "/metrics", accept).body;
    assert_eq!(samples(&text), samples(&open));
    for line in [
        "# TYPE meeting_server_joins_total counter",
        "# TYPE meeting_server_build_info gauge",
        "# TYPE meeting_server_rooms gauge",
        "# TYPE meeting_server_worker_turn_seconds histogram",
        "# TYPE process_cpu_seconds_total counter",
        "# TYPE process_start_time_seconds gauge",
    ] {
        assert!(text.lines().any(|said| said == line), "no {line}");
    }
}

#[test]
fn the_process_is_seen_as_the_system_sees_it() {
    let process = process::Process::start(log_line::Format::Text, "info", &[]);
    let first = Figures::scrape(process.ops);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let age = now.as_secs_f64() - first["process_start_time_seconds"];
    assert!((-1.0..60.0).contains(&age), "it began {age} s ago");
    let resident = first["process_resident_memory_bytes"];
    let factor = resident / procfs::resident(&process) as f64;
    assert!((0.5..2.0).contains(&factor), "{resident} bytes");

    let clients: Vec<Client> = (0..20).map(|_| process.connect()).collect();
    let more = |figures: &Figures| {
        figures["process_open_fds"] >= first["process_open_fds"] + clients.len() as f64
    };
    let second = Figures::when(process.ops, more);
    let open = procfs::open_files(&process) as f64;
    assert!((second["process_open_fds"] - open).abs() <= 3.0, "{open}");
    assert!(second["process_max_fds"] >= second["process_open_fds"]);
    let start = "process_start_time_seconds";
    assert_eq!(first[start], second[start]);
    let cpu = "process_cpu_seconds_total";
    Figures::when(process.ops, |figures| figures[cpu] > second[cpu]);
}

#[test]
fn the_end_of_the_certificate_is_told_and_follows_a_reload() {
    const END: &str = "meeting_server_certificate_not_after_timestamp_seconds";
    // 2030-01-01 and 2050-06-01, which are written in two ways.
    let first = Certificate::until(2030, 1, 1);
    let second = Certificate::until(2050, 6, 1);
    let config = keys::temporary(&format!(
        "[tls]\ncert_file = {:?}\nkey_file = {:?}\n",
        first.cert_file, first.key_file
    ));
    let mut process = process::Process::with_config(log_line::Format::Json, &config);
    assert_eq!(Figures::scrape(process.ops)[END], 1_893_456_000.0);
    std::fs::copy(&second.cert_file, &first.cert_file).unwrap();
    std::fs::copy(&second.key_file, &first.key_file).unwrap();
    process.signal("HUP");
    process.line("configuration reloaded");
    assert_eq!(Figures::scrape(process.ops)[END], 2_537_654_400.0);

    let plain = process::Process::start(log_line::Format::Json, "info", &[]);
    assert_eq!(Figures::scrape(plain.ops).get(END), None);
    let page = get(plain.ops, "/metrics").body;
    assert!(!page.contains("certificate"), "{page}");
}

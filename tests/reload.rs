//! SIGHUP, asked of the binary itself: what a reload changes and when, and what it must not change.

#![cfg(unix)]

mod common;

use std::{
    cell::RefCell,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use common::{
    keys::{Signer, temporary},
    log_line::{Format, Line},
    openmetrics::Figures,
    process::Process,
    wire::Certificate,
    *,
};
use serde_json::{Value, json};

const RELOADED: &str = "configuration reloaded";
const REFUSED: &str = "configuration not reloaded, the previous one stays in effect";

/// A server with a settings file of its own.
struct Reloading {
    process: Process,
    config: PathBuf,
}

impl Reloading {
    fn start(settings: &str) -> Self {
        let config = temporary(settings);
        let process = Process::with_config(Format::Json, &config);
        Self { process, config }
    }

    /// Writes these settings, and has them read.
    fn reload(&mut self, settings: &str) {
        fs::write(&self.config, settings).unwrap();
        self.process.signal("HUP");
        self.process.line(RELOADED);
    }

    /// The same; it must be refused. The error.
    fn refuse(&mut self, settings: &str) -> String {
        fs::write(&self.config, settings).unwrap();
        refused(&mut self.process)
    }

    /// The code of an answer to a join of the app "test".
    fn join(&self, channel: &str, token: Option<&str>) -> Value {
        join(&self.process, "test", channel, token)
    }

    /// The status of an upgrade with these header lines.
    fn upgrade(&self, headers: &str) -> u16 {
        common::http::upgrade_status(self.process.addr, headers)
    }
}

/// Has the settings read, which must be refused. The error.
fn refused(process: &mut Process) -> String {
    process.signal("HUP");
    let line = process.line(REFUSED);
    assert_eq!(line.level, "warn");
    line["error"].to_owned()
}

fn join(process: &Process, app: &str, channel: &str, token: Option<&str>) -> Value {
    let mut data = json!({"app": app, "channel": channel});
    if let Some(token) = token {
        data["token"] = token.into();
    }
    process.connect().call("channel.join", data)["err"].clone()
}

/// Ends the process. The lines of its log of level WARN and above.
fn warnings(mut process: Process) -> Vec<Line> {
    process.signal("TERM");
    let (status, mut lines) = process.ended();
    assert!(status.success(), "{status}");
    lines.retain(|line| ["warn", "error"].contains(&&*line.level));
    lines
}

// ------------------------------------------------------------------- what a reload must not change

#[test]
fn a_reload_never_turns_authentication_off() {
    let key = Signer::hs256("test", "");
    let with_key = format!("[server]\nmax_connections = 100\n{}", key.entry());
    let token = key.token(json!({}));
    let mut server = Reloading::start(&with_key);
    let open = [
        // As an editor leaves a file for a moment.
        "",
        "# nothing yet\n",
        // The file without its last lines.
        "[server]\nmax_connections = 100\n",
        "[auth]\nleeway = \"1s\"\n",
        "[auth]\nkeys = []\n",
    ];
    for text in open {
        let error = server.refuse(text);
        assert!(error.starts_with("settings: "), "{error}");
        assert_eq!(server.join("room", None), 401, "after {text:?}");
        assert_eq!(server.join("room", Some(&token)), 0, "after {text:?}");
    }
    server.reload(&with_key);
    assert_eq!(server.join("room", None), 401);
    let warnings = warnings(server.process);
    assert_eq!(warnings.len(), open.len(), "one a reload: {warnings:#?}");
}

#[test]
fn a_reload_never_turns_authentication_or_tls_on() {
    let key = Signer::hs256("test", "");
    let certificate = Certificate::new();
    let mut server = Reloading::start("[server]\nworkers = 2\n");
    let error = server.refuse(&key.entry());
    assert!(
        error.contains("authentication is turned on by a restart"),
        "{error}"
    );
    let error = server.refuse(&format!(
        "[tls]\ncert_file = {:?}\nkey_file = {:?}\n",
        certificate.cert_file, certificate.key_file
    ));
    assert!(error.contains("TLS is turned on by a restart"), "{error}");
    assert_eq!(server.join("room", None), 0);
}

#[test]
fn a_settings_file_that_is_gone_or_empty_is_an_error() {
    let directory = temporary("");
    fs::remove_file(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    let file = directory.join("settings.toml");
    let key = Signer::hs256("test", "");
    fs::write(&file, key.entry()).unwrap();
    let mut process = Process::in_directory(Format::Text, &directory);
    fs::remove_file(&file).unwrap();
    let error = refused(&mut process);
    assert!(
        error.contains("settings.toml") && error.contains("does not exist any more"),
        "{error}"
    );
    fs::write(&file, "").unwrap();
    let error = refused(&mut process);
    assert!(
        error.contains("settings.toml") && error.contains("has no keys any more"),
        "{error}"
    );
    assert_eq!(join(&process, "test", "room", None), 401);
    fs::write(&file, key.entry()).unwrap();
    process.signal("HUP");
    process.line(RELOADED);
    drop(process);

    // Where there was none, there may still be none, or a new one.
    fs::remove_file(&file).unwrap();
    let mut process = Process::in_directory(Format::Text, &directory);
    for text in [None, Some("[rooms]\nmax_rooms = 5\n")] {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        process.signal("HUP");
        process.line(RELOADED);
    }
    fs::remove_file(&file).unwrap();
    let error = refused(&mut process);
    assert!(error.contains("does not exist any more"), "{error}");
    drop(process);
    fs::remove_dir_all(directory).unwrap();

    let mut server = Reloading::start(&key.entry());
    fs::remove_file(&server.config).unwrap();
    let error = refused(&mut server.process);
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn a_key_file_that_is_empty_is_an_error() {
    let secret = temporary("a secret in a file, long enough for a hash\n");
    let rsa = Signer::rs256("test", "rsa");
    let public_key = temporary(&fs::read_to_string(&rsa.settings.public_key_file).unwrap());
    let settings = format!(
        "[[auth.keys]]\napp = \"test\"\nkid = \"hash\"\nalg = \"HS256\"\nsecret_file = {secret:?}\n\
         [[auth.keys]]\napp = \"test\"\nkid = \"rsa\"\nalg = \"RS256\"\npublic_key_file = {public_key:?}\n"
    );
    let mut server = Reloading::start(&settings);
    let token = rsa.token(json!({}));
    for (file, key) in [
        (&secret, "auth.keys[0].secret_file"),
        (&public_key, "public_key_file"),
    ] {
        let before = fs::read(file).unwrap();
        for empty in ["", "\n"] {
            fs::write(file, empty).unwrap();
            let error = refused(&mut server.process);
            assert!(error.contains(key), "{error}");
            assert_eq!(server.join("room", None), 401);
            assert_eq!(server.join("room", Some(&token)), 0);
        }
        fs::write(file, before).unwrap();
    }
    server.reload(&settings);
}

#[test]
fn an_app_without_its_last_key_is_closed_and_the_others_are_as_before() {
    let [ours, theirs] = ["test", "other"].map(|app| Signer::hs256(app, ""));
    let tokens = [&ours, &theirs].map(|key| key.token(json!({})));
    let mut server = Reloading::start(&[ours.entry(), theirs.entry()].concat());
    let codes = |server: &Reloading| {
        [
            join(&server.process, "test", "room", Some(&tokens[0])),
            join(&server.process, "test", "room", None),
            join(&server.process, "other", "room", Some(&tokens[1])),
        ]
    };
    assert_eq!(codes(&server), [0, 401, 0]);
    server.reload(&theirs.entry());
    assert_eq!(codes(&server), [401, 401, 0]);
}

#[test]
fn one_wrong_value_keeps_all_the_others_from_taking_effect() {
    let mut server = Reloading::start("[rooms]\nmax_members = 2\n");
    let _members = ["anna", "ben"].map(|name| server.process.join("room", name));
    for wrong in [
        "[auth]\nleeway = \"soon\"\n",
        "[session]\nsend_queue = 8\nidle_timeout = \"15s\"\n",
        "[session]\nsend_queue = 2000\n",
    ] {
        let error = server.refuse(&format!("[rooms]\nmax_members = 3\n{wrong}"));
        assert!(error.starts_with("settings: "), "{error}");
        assert_eq!(server.join("room", None), 503);
    }
    // It is right by itself, and not beside the send_queue that holds until a restart.
    let fits = "[rooms]\nmax_members = 3\nresume_events = 9\n[session]\nsend_queue = 8\n";
    let error = server.refuse(fits);
    for words in [
        "rooms.resume_events = 9",
        "until a restart the old session.send_queue",
    ] {
        assert!(error.contains(words), "{error}");
    }
    server.reload("[rooms]\nmax_members = 3\n");
    assert_eq!(server.join("room", None), 0);
}

#[test]
fn a_refused_reload_leaves_no_trace() {
    let directory = temporary("");
    fs::remove_file(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    let file = directory.join("settings.toml");
    let mut process = Process::in_directory(Format::Json, &directory);
    for wrong in [
        Signer::hs256("test", "").entry(),
        "[auth]\nleeway = \"soon\"\n".to_owned(),
    ] {
        fs::write(&file, wrong).unwrap();
        refused(&mut process);
        // The settings in effect come from no file, so its absence is no error.
        fs::remove_file(&file).unwrap();
        process.signal("HUP");
        process.line(RELOADED);
    }
    // Once a file is in effect, its absence is one.
    fs::write(&file, "[rooms]\nmax_members = 7\n").unwrap();
    process.signal("HUP");
    process.line(RELOADED);
    fs::remove_file(&file).unwrap();
    let error = refused(&mut process);
    assert!(error.contains("does not exist any more"), "{error}");
    fs::remove_dir(directory).unwrap();
}

/// Opens a FIFO once somebody reads from it.
fn open_fifo(fifo: &Path) -> File {
    let (send, receive) = mpsc::channel();
    let fifo = fifo.to_owned();
    thread::spawn(move || send.send(OpenOptions::new().write(true).open(fifo)));
    let opened = receive.recv_timeout(PATIENCE);
    opened.expect("the file is read").unwrap()
}

#[test]
fn a_hangup_during_the_start_is_done_after_it() {
    let fifo = temporary("");
    fs::remove_file(&fifo).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let mut command = Process::command(Format::Text, &[]);
    command.arg("--config").arg(&fifo);
    let process = Process::spawn(Format::Text, command);
    let mut settings = open_fifo(&fifo);
    process.signal("HUP");
    settings.write_all(b"[rooms]\nmax_members = 1\n").unwrap();
    drop(settings);
    let mut process = process.started();
    let _anna = process.join("room", "anna");
    assert_eq!(join(&process, "test", "room", None), 503);
    open_fifo(&fifo)
        .write_all(b"[rooms]\nmax_members = 2\n")
        .unwrap();
    process.line(RELOADED);
    assert_eq!(join(&process, "test", "room", None), 0);
    fs::remove_file(fifo).unwrap();
}

#[test]
fn a_hangup_ends_every_command_that_does_not_serve() {
    const SIGHUP: i32 = 1;
    let hung_up = |child: &mut Child| {
        let mut kill = Command::new("kill");
        kill.args(["-s", "HUP", &child.id().to_string()]);
        assert!(kill.status().unwrap().success());
        let child = RefCell::new(child);
        let ended = || child.borrow_mut().try_wait().unwrap();
        let status = common::procfs::when(ended, Option::is_some, "it ends");
        status.unwrap().signal()
    };
    let fifo = temporary("");
    fs::remove_file(&fifo).unwrap();
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let spawn = |args: &[&str]| {
        let mut command = Process::command(Format::Text, &[]);
        command.arg("--config").arg(&fifo).args(args);
        command.stdin(Stdio::piped()).spawn().unwrap()
    };
    // Each waits for its settings.
    let commands: [&[&str]; 4] = [
        &["--check-config"],
        &["health"],
        &["gen-token", "--app", "test"],
        &["check-token"],
    ];
    for args in commands {
        let mut child = spawn(args);
        let held = open_fifo(&fifo);
        assert_eq!(hung_up(&mut child), Some(SIGHUP), "{args:?}");
        drop(held);
    }
    // This one waits for its token, on standard input.
    let mut child = spawn(&["check-token"]);
    drop(open_fifo(&fifo));
    let stdin = format!("/proc/{}/syscall", child.id());
    let reads_stdin = |call: &String| call.starts_with("0 0x0 ");
    let call = || fs::read_to_string(&stdin).unwrap();
    common::procfs::when(call, reads_stdin, "it reads standard input");
    assert_eq!(hung_up(&mut child), Some(SIGHUP));
    fs::remove_file(fifo).unwrap();
}

// ------------------------------------------------------------------------------------------- now

#[test]
fn limits_on_connections_hold_from_now_on() {
    let mut server = Reloading::start("[rooms]\nmax_rooms = 7\n");
    let mut held = [(); 2].map(|()| server.process.connect());
    assert_eq!(server.upgrade(""), 101);
    for key in ["max_connections", "max_connections_per_ip"] {
        server.reload(&format!("[server]\n{key} = 2\n"));
        assert_eq!(server.upgrade(""), 503, "{key}");
        server.reload(&format!("[server]\n{key} = 1\n"));
        assert_eq!(server.upgrade(""), 503, "{key}");
        server.reload(&format!("[server]\n{key} = 100\n"));
        assert_eq!(server.upgrade(""), 101, "{key}");
    }
    // Those that were over the limit are there still.
    for (client, name) in held.iter_mut().zip(["anna", "ben"]) {
        client.join(name, name);
    }
}

#[test]
fn origins_and_proxies_hold_from_now_on() {
    let mut server = Reloading::start("[rooms]\nmax_rooms = 7\n");
    let [ours, theirs] =
        ["ours", "theirs"].map(|name| format!("Origin: https://{name}.example\r\n"));
    assert_eq!(server.upgrade(&theirs), 101);
    server.reload("[server]\nallowed_origins = [\"https://ours.example\"]\n");
    assert_eq!(
        [&*ours, &theirs, ""].map(|head| server.upgrade(head)),
        [101, 403, 101]
    );
    server.reload("[server]\nallowed_origins = [\"https://theirs.example\"]\n");
    assert_eq!(
        [&*ours, &theirs].map(|head| server.upgrade(head)),
        [403, 101]
    );

    let _held = server.process.connect();
    let forwarded = "X-Forwarded-For: 203.0.113.9\r\n";
    server.reload("[server]\nmax_connections_per_ip = 1\n");
    assert_eq!(server.upgrade(forwarded), 503);
    server.reload("[server]\nmax_connections_per_ip = 1\ntrusted_proxies = [\"127.0.0.0/8\"]\n");
    assert_eq!(server.upgrade(forwarded), 101);
    server.reload("[server]\nmax_connections_per_ip = 1\n");
    assert_eq!(server.upgrade(forwarded), 503);
}

#[test]
fn a_connect_rate_holds_from_now_on() {
    let mut server = Reloading::start("[rooms]\nmax_rooms = 7\n");
    let is_closed = |server: &Reloading| {
        let mut client = Client::tcp(server.process.addr);
        client.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        matches!(client.receive_raw(), Ok(0) | Err(_))
    };
    server.reload("[server]\nconnect_rate_per_ip = 1\nconnect_burst_per_ip = 1\n");
    // More than one a second, however slow the machine is.
    assert!((0..1_000).any(|_| is_closed(&server)));
    server.reload("[server]\nconnect_rate_per_ip = 0\n");
    assert!((0..20).all(|_| !is_closed(&server)));
}

#[test]
fn limits_on_rooms_and_members_hold_from_now_on() {
    let mut server = Reloading::start("[server]\nworkers = 2\n");
    let mut anna = server.process.join("room", "anna");
    let _ben = server.process.join("room", "ben");
    anna.event("endpoint");
    for (limit, tight, wide, channel) in [
        ("max_members", 2, 3, "room"),
        ("max_members", 1, 0, "room"),
        ("max_rooms", 1, 0, "other"),
    ] {
        server.reload(&format!("[rooms]\n{limit} = {tight}\nresume_window = 0\n"));
        assert_eq!(server.join(channel, None), 503, "{limit} = {tight}");
        assert_eq!(anna.names(), ["anna", "ben"], "who is there stays");
        server.reload(&format!("[rooms]\n{limit} = {wide}\n"));
        let mut carl = server.process.join(channel, "carl");
        if channel == "room" {
            anna.event("endpoint");
            carl.ok("channel.leave", json!({}));
            anna.event("endpoint");
        }
    }
}

#[test]
fn the_level_of_the_log_changes_now_where_rust_log_is_not_set() {
    let config = temporary("[log]\nlevel = \"info\"\n");
    let mut command = Process::command(Format::Text, &[]);
    command.arg("--config").arg(&config);
    let mut process = Process::spawn(Format::Text, command).started();
    process.join("room", "anna");
    process.line("join");
    let open = "open to everybody: no auth.keys are set, so anybody can take anybody's place";
    process.line("leave");

    fs::write(&config, "[log]\nlevel = \"warn\"\n").unwrap();
    process.signal("HUP");
    // Of level WARN, and behind the reload.
    process.line(open);
    let mut quiet = process.join("quiet", "ben");
    quiet.ok("channel.leave", json!({}));
    fs::write(&config, "[log]\nlevel = \"info\"\n").unwrap();
    process.signal("HUP");
    assert_eq!(process.next_line().message, RELOADED, "nothing between");
    process.join("loud", "carl");
    assert_eq!(&process.line("join")["channel"], "loud");

    let mut process = Process::start_with(Format::Text, "info", &config, &[]);
    fs::write(&config, "[log]\nlevel = \"off\"\n").unwrap();
    process.signal("HUP");
    process.line(RELOADED);
    process.join("room", "dora");
    process.line("join");
}

/// Media servers that are not checked, by name and port.
fn media(servers: &[(&str, u16)]) -> String {
    let entry = |(name, port): &(&str, u16)| {
        format!(
            "[[media_servers]]\nname = {name:?}\nprotocols = [\"webrtc\"]\n\
             ws = \"ws://127.0.0.1:{port}\"\n"
        )
    };
    servers.iter().map(entry).collect()
}

fn media_server(client: &mut Client) -> String {
    let data = client.ok("media_server.dump", json!({}));
    data["media_server"]["ws"].as_str().unwrap().to_owned()
}

#[test]
fn the_rooms_of_a_media_server_that_is_not_listed_any_more_move() {
    let (a, b) = (("a", 1), ("b", 2));
    let mut server = Reloading::start(&media(&[a, b]));
    // Rooms of both servers, on both threads.
    let mut rooms: Vec<(Client, String)> = (0..24)
        .map(|n| {
            let mut client = server.process.join(&format!("room {n}"), "anna");
            let first = media_server(&mut client);
            (client, first)
        })
        .collect();
    let is_of = |port: u16, ws: &str| ws == format!("ws://127.0.0.1:{port}");
    assert!(
        [1, 2]
            .iter()
            .all(|port| rooms.iter().any(|(_, ws)| is_of(*port, ws)))
    );

    // Another server and another weight move no room.
    let heavy = media(&[a, b, ("c", 3)]).replace("name = \"c\"", "name = \"c\"\nweight = 1000");
    server.reload(&heavy);
    for (anna, first) in &mut rooms {
        assert_eq!(media_server(anna), *first);
    }

    server.reload(&media(&[b]));
    for (n, (anna, first)) in rooms.iter_mut().enumerate() {
        if is_of(1, first) {
            assert_eq!(anna.error_event(), "media_server_down");
        }
        assert!(is_of(2, &media_server(anna)), "room {n}");
        let mut ben = server.process.connect();
        let answer = ben.join(&format!("room {n}"), "ben");
        assert!(is_of(2, answer["media_server"]["ws"].as_str().unwrap()));
        anna.event("endpoint");
        assert_eq!(anna.names(), ["anna", "ben"], "and no other event");
        ben.ok("channel.leave", json!({}));
        anna.event("endpoint");
    }

    // Another address is another server.
    server.reload(&media(&[("b", 4)]));
    for (anna, _) in &mut rooms {
        assert_eq!(anna.error_event(), "media_server_down");
        assert!(is_of(4, &media_server(anna)));
    }
    let figures = Figures::when(server.process.ops, |_| true);
    assert_eq!(figures["meeting_server_media_server_up{name=\"b\"}"], 1.0);
}

#[test]
fn health_checks_begin_and_end_now() {
    // Bound and not listening: a connect is refused, and no other test gets the port.
    let closed = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any_port = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    closed.bind(&any_port.into()).unwrap();
    let addr = closed.local_addr().unwrap().as_socket().unwrap();
    let entry = media(&[("a", 1)]);
    let media = |interval: &str| {
        format!(
            "[media]\nhealth_interval = {interval}\nunhealthy_after = 1\n\
             {entry}health = \"tcp://{addr}\"\n"
        )
    };
    // Waited for: a check may begin before the log says that the settings were read.
    let is_up = |server: &Reloading, up: f64| {
        let series = "meeting_server_media_server_up{name=\"a\"}";
        Figures::when(server.process.ops, move |f| f[series] == up);
    };
    let mut server = Reloading::start(&media("0"));
    let mut anna = server.process.join("room", "anna");
    media_server(&mut anna);
    for without_checks in [&media("0"), &entry] {
        server.reload(&media("\"20ms\""));
        is_up(&server, 0.0);
        assert_eq!(anna.error_event(), "media_server_down");
        // What is not checked is healthy.
        server.reload(without_checks);
        is_up(&server, 1.0);
        media_server(&mut anna);
    }
}

// ------------------------------------------------------------- new connections, new rooms, restart

/// Goes from room to room, so that the connection has been on each thread.
fn wander(client: &mut Client) {
    for n in 0..8 {
        client.session.clear();
        client.join(&format!("room {n}"), "wanderer");
        client.ok("channel.leave", json!({}));
    }
    client.session.clear();
}

#[test]
fn a_rate_limit_holds_for_new_connections() {
    // A refusal may overtake the answers of the room.
    let flood = |client: &mut Client| {
        for _ in 0..12 {
            client.ask("channel.dump", json!({}));
        }
        let answers = (0..12).map(|_| client.next()["err"].clone());
        answers.filter(|err| *err == 429).count()
    };
    let mut server = Reloading::start("[session]\nrate_limit = 0\n");
    let mut free = server.process.join("free", "anna");
    server.reload("[session]\nrate_limit = 1\nrate_burst = 11\n");
    let mut limited = server.process.join("limited", "ben");
    assert!(flood(&mut limited) > 0);
    assert_eq!(flood(&mut free), 0);
    server.reload("[session]\nrate_limit = 0\n");
    assert_eq!(flood(&mut server.process.join("third", "carl")), 0);
}

#[test]
fn the_longest_message_is_that_of_the_connections_begin() {
    let long = json!({"text": "x".repeat(2_000)});
    let mut server = Reloading::start("[session]\nmax_message_bytes = 4000\n");
    let mut old = server.process.connect();
    server.reload("[session]\nmax_message_bytes = 1000\n");
    wander(&mut old);
    old.join("old", "anna");
    old.ok("broadcast", long.clone());
    let mut new = server.process.join("new", "ben");
    new.ask("broadcast", long.clone());
    assert_eq!(new.error_event(), "message_too_big");
    assert_eq!(new.closed(), 1009);
    server.reload("[session]\nmax_message_bytes = 4000\n");
    server.process.join("third", "carl").ok("broadcast", long);
}

#[test]
fn the_join_timeout_is_that_of_the_connections_begin() {
    let mut server = Reloading::start("[session]\njoin_timeout = \"10m\"\n");
    let mut old = server.process.connect();
    server.reload("[session]\njoin_timeout = \"50ms\"\n");
    // Later than the old one, and closed before it.
    let mut new = server.process.connect();
    assert_eq!(new.error_event(), "join_timeout");
    assert_eq!(new.closed(), 1008);
    let mut silent = Client::tcp(server.process.addr);
    assert!(
        matches!(silent.receive_raw(), Ok(0) | Err(_)),
        "it is closed"
    );
    wander(&mut old);
    old.join("room", "anna");
}

#[test]
fn resume_settings_hold_for_new_rooms() {
    let mut server = Reloading::start("[rooms]\nresume_window = \"10m\"\n");
    let mut anna = server.process.join("old", "anna");
    let ben = server.process.join("old", "ben");
    anna.event("endpoint");
    server.reload("[rooms]\nresume_window = 0\n");
    let mut carl = server.process.join("new", "carl");
    let dora = server.process.join("new", "dora");
    carl.event("endpoint");
    // In the new room a loss is a leave, in the old one a member that is waited for.
    dora.reset();
    assert_eq!(carl.event("endpoint")["stat"], "leave");
    ben.reset();
    let detached = |f: &Figures| f["meeting_server_sessions_detached"] == 1.0;
    Figures::when(server.process.ops, detached);
    assert_eq!(anna.names(), ["anna", "ben"]);
    // One who joins the old room now is waited for as the others are.
    server.process.join("old", "emil").reset();
    assert_eq!(anna.event("endpoint")["stat"], "join");
    let detached = |f: &Figures| f["meeting_server_sessions_detached"] == 2.0;
    Figures::when(server.process.ops, detached);
    assert_eq!(anna.names(), ["anna", "ben", "emil"]);
}

#[test]
fn what_needs_a_restart_is_named_in_one_warning() {
    let mut server = Reloading::start("[log]\nstats_interval = 0\n");
    server.reload(
        "[server]\ndemo = false\ndrain_timeout = \"9s\"\n[session]\nsend_timeout = \"9s\"\n\
         [rooms]\nmax_members = 1\n[log]\nstats_interval = \"1h\"\n",
    );
    let warned = "changed settings need a restart, until then the old ones hold";
    let line = server.process.line(warned);
    assert_eq!(line.level, "warn");
    assert_eq!(
        &line["keys"],
        "server.drain_timeout, server.demo, session.send_timeout, log.stats_interval"
    );
    assert_eq!(
        common::http::get(server.process.addr, "/").status,
        200,
        "the page is there"
    );
    // The rest of the same file is in effect.
    let _anna = server.process.join("room", "anna");
    assert_eq!(server.join("room", None), 503);
    server.reload("[log]\nstats_interval = 0\n");
    assert_eq!(server.join("room", None), 0);
    let mut warnings = warnings(server.process);
    warnings.retain(|line| line.message == warned);
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
}

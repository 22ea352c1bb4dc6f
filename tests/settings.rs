//! The settings and the command line, asked of the binary itself: what is read from where, what
//! is refused in which words, and the exit codes.

#![cfg(unix)]

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    os::unix::ffi::OsStringExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use toml::{Table, Value};

/// How long a test waits for what must come. Long, since machines are busy.
const PATIENCE: Duration = Duration::from_secs(20);

const BINARY: &str = env!("CARGO_BIN_EXE_meeting-server");

/// The repository's settings, and a secret that is long enough.
const DEFAULTS: &str = include_str!("../settings.toml");
const SECRET: &str = "00123456789012345678901234567890";

/// A working directory of a test's own.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("settings-{}-{next}", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// With this `settings.toml` in it.
    fn with(settings: &str) -> Self {
        let dir = Self::new();
        dir.write("settings.toml", settings);
        dir
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), content).unwrap();
    }

    /// The binary, to be started here with an empty environment.
    fn binary(&self) -> Command {
        let mut command = Command::new(BINARY);
        command.env_clear().current_dir(&self.0);
        command
    }

    /// What `--check-config` says here, with these variables.
    fn check<V: AsRef<OsStr>>(&self, variables: &[(&str, V)]) -> Answer {
        let mut binary = self.binary();
        for (name, value) in variables {
            binary.env(name, value);
        }
        Answer::of(binary.arg("--check-config"))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How the binary ended.
#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Answer {
    fn of(command: &mut Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = command.stdin(Stdio::null()).output().unwrap();
        Self {
            code: status.code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// The effective settings; it must be content with them.
    fn settings(&self) -> Table {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout.parse().unwrap()
    }

    /// The one line of a refusal with this exit code.
    fn refusal(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "");
        let line = self.stderr.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n'), "more than one line: {line}");
        assert!(!line.contains("panicked"), "{line}");
        line.strip_prefix("meeting-server: ").unwrap()
    }

    /// A refusal of settings that has all of these words in it.
    fn refused(&self, words: &[&str]) {
        let line = self.refusal(2);
        for word in words {
            assert!(line.contains(word), "no {word} in: {line}");
        }
    }
}

const NONE: &[(&str, &str)] = &[];

/// A value by its path.
fn get<'a>(settings: &'a Table, path: &str) -> &'a Value {
    let (section, key) = path.split_once('.').unwrap();
    &settings[section][key]
}

/// Every path to a value; entries of lists of tables by their number.
fn paths(prefix: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Table(table) => table
            .iter()
            .flat_map(|(key, value)| match prefix {
                "" => paths(key, value),
                _ => paths(&format!("{prefix}.{key}"), value),
            })
            .collect(),
        Value::Array(items) if items.iter().any(Value::is_table) => items
            .iter()
            .enumerate()
            .flat_map(|(at, item)| paths(&format!("{prefix}[{at}]"), item))
            .collect(),
        _ => vec![prefix.into()],
    }
}

// ------------------------------------------------------------------------------- the defaults

#[test]
fn the_repositorys_file_spells_out_the_defaults_and_nothing_else() {
    let built_in = Dir::new().check(NONE).settings();
    let file: Table = DEFAULTS.parse().unwrap();
    // Text for text but for how durations are written ("60s", "1m").
    assert_eq!(
        paths("", &Value::Table(built_in.clone())),
        paths("", &Value::Table(file))
    );
    assert_eq!(Dir::with(DEFAULTS).check(NONE).settings(), built_in);
    for (path, text) in [
        ("server.bind", "127.0.0.1:8080"),
        ("session.idle_timeout", "30s"),
        ("log.stats_interval", "1m"),
    ] {
        assert_eq!(get(&built_in, path).as_str(), Some(text));
    }
}

#[test]
fn every_key_in_the_repositorys_file_has_a_comment() {
    for line in DEFAULTS.lines() {
        let is_key = line.contains(" = ") && !line.starts_with('#');
        assert!(!is_key || line.contains("  # "), "no comment: {line}");
    }
}

// ------------------------------------------------------------------------ where they come from

#[test]
fn file_then_environment_then_flag_win() {
    let dir = Dir::new();
    let bind = |answer: Answer| get(&answer.settings(), "server.bind").clone();
    let variable = ("MEETING_SERVER__SERVER__BIND", "127.0.0.3:3");
    assert_eq!(bind(dir.check(NONE)).as_str(), Some("127.0.0.1:8080"));
    dir.write("settings.toml", "[server]\nbind = \"127.0.0.2:2\"");
    assert_eq!(bind(dir.check(NONE)).as_str(), Some("127.0.0.2:2"));
    assert_eq!(bind(dir.check(&[variable])).as_str(), Some("127.0.0.3:3"));
    let mut flag = dir.binary();
    flag.env(variable.0, variable.1)
        .args(["--check-config", "--bind", "[::1]:4"]);
    assert_eq!(bind(Answer::of(&mut flag)).as_str(), Some("[::1]:4"));
}

#[test]
fn a_named_file_is_read_instead_of_the_one_that_is_there() {
    let dir = Dir::with("[server]\nworkers = 3\nmax_pending = 5");
    dir.write("other.toml", "[server]\nworkers = 4");
    let mut binary = dir.binary();
    let settings = Answer::of(binary.args(["--check-config", "--config", "other.toml"])).settings();
    assert_eq!(get(&settings, "server.workers").as_integer(), Some(4));
    assert_eq!(
        get(&settings, "server.max_pending").as_integer(),
        Some(4096)
    );
}

#[test]
fn a_named_file_must_be_there_under_just_that_name() {
    let dir = Dir::new();
    dir.write("found.toml", "");
    for missing in ["missing.toml", "found", ""] {
        let mut binary = dir.binary();
        // Without --check-config: it does not begin to serve either.
        let answer = Answer::of(binary.arg(format!("--config={missing}")));
        if missing.is_empty() {
            answer.refused(&["--config"]);
        } else {
            answer.refused(&[missing, "cannot be read", "No such file"]);
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_said_in_one_line() {
    let dir = Dir::new();
    fs::create_dir(dir.0.join("directory")).unwrap();
    dir.write("latin1.toml", b"# caf\xe9\n");
    dir.write("broken.toml", "[server]\nworkers = 1\nbind = \"geheim\n");
    dir.write("twice.toml", "[server]\nworkers = 1\nworkers = 1\n");
    dir.write(
        "number.toml",
        format!("[auth]\nsecret = {SECRET}9999999999"),
    );
    for (name, words) in [
        ("directory", ["cannot be read", "directory"]),
        ("latin1.toml", ["cannot be read", "UTF-8"]),
        ("broken.toml", ["is no TOML", "line 3"]),
        ("twice.toml", ["is no TOML", "line 3"]),
        ("number.toml", ["is no TOML", "line 2"]),
    ] {
        // By name, and found in the working directory, where it is no less meant.
        let mut binary = dir.binary();
        let named = Answer::of(binary.args(["--check-config", "--config", name]));
        let home = Dir::new();
        fs::rename(dir.0.join(name), home.0.join("settings.toml")).unwrap();
        for answer in [named, home.check(NONE)] {
            answer.refused(&words);
            // No excerpt of the file: a secret may stand there.
            assert!(!answer.stderr.contains("geheim"), "{answer:?}");
            assert!(!answer.stderr.contains("0012345"), "{answer:?}");
        }
    }
}

#[test]
fn a_list_in_a_file_replaces_the_built_in_one() {
    let file = "[[media_servers]]\nname = \"a\"\nprotocols = [\"webrtc\"]\n";
    let settings = Dir::with(file).check(NONE).settings();
    let [server] = &settings["media_servers"].as_array().unwrap()[..] else {
        panic!("one server was set: {settings}");
    };
    assert_eq!(server["name"].as_str(), Some("a"));
    // What is left out is not taken from the built-in entry.
    assert_eq!(server["weight"].as_integer(), Some(1));
    for key in ["health", "wss", "ws", "https", "http", "rtsp"] {
        assert_eq!(server[key].as_str(), Some(""), "{key}");
    }
    let none = Dir::with("media_servers = []").check(NONE).settings();
    assert_eq!(none["media_servers"].as_array().unwrap().len(), 0);
}

#[test]
fn only_the_effective_value_is_checked() {
    let dir = Dir::with("[server]\nbind = 5\nworkers = \"many\"\n[rooms]\nmax_rooms = -1");
    let mut binary = dir.binary();
    binary
        .env("MEETING_SERVER__SERVER__WORKERS", "2")
        .env("MEETING_SERVER__ROOMS__MAX_ROOMS", "3")
        .args(["--check-config", "--bind", "127.0.0.1:1"]);
    let settings = Answer::of(&mut binary).settings();
    assert_eq!(get(&settings, "server.workers").as_integer(), Some(2));
}

// ----------------------------------------------------------------------------- the environment

#[test]
fn a_variable_has_the_type_of_its_key() {
    let dir = Dir::new();
    let tls = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    dir.write("00123", tls.cert.pem());
    dir.write("true", tls.signing_key.serialize_pem());
    let settings = dir.check(&[
        ("MEETING_SERVER__SERVER__MAX_CONNECTIONS_PER_IP", "007"),
        ("MEETING_SERVER__SERVER__DEMO", "false"),
        ("MEETING_SERVER__SERVER__CLIENT_LIBRARY", "false"),
        (
            "MEETING_SERVER__SERVER__ALLOWED_ORIGINS",
            "https://a.example",
        ),
        (
            "MEETING_SERVER__SERVER__TRUSTED_PROXIES",
            "10.0.0.0/8, fd00::/8",
        ),
        ("MEETING_SERVER__SESSION__JOIN_TIMEOUT", "500ms"),
        ("MEETING_SERVER__TLS__CERT_FILE", "00123"),
        ("MEETING_SERVER__TLS__KEY_FILE", "true"),
        ("MEETING_SERVER__LOG__LEVEL", "DEBUG"),
        ("MEETING_SERVER__MEDIA_SERVERS__0__NAME", "1e3"),
        ("MEETING_SERVER__MEDIA_SERVERS__0__WEIGHT", "2"),
        ("MEETING_SERVER__MEDIA_SERVERS__0__PROTOCOLS", "webrtc"),
    ]);
    let settings = settings.settings();
    let expected: Table = "
        [server]
        max_connections_per_ip = 7
        demo = false
        client_library = false
        allowed_origins = [\"https://a.example\"]
        trusted_proxies = [\"10.0.0.0/8\", \"fd00::/8\"]
        [session]
        join_timeout = \"500ms\"
        [tls]
        cert_file = \"00123\"
        key_file = \"true\"
        [log]
        level = \"debug\"
    "
    .parse()
    .unwrap();
    for (section, keys) in &expected {
        for (key, value) in keys.as_table().unwrap() {
            assert_eq!(&settings[section][key], value, "{section}.{key}");
        }
    }
    let server = &settings["media_servers"][0];
    assert_eq!(server["name"].as_str(), Some("1e3"));
    assert_eq!(server["weight"].as_integer(), Some(2));
    assert_eq!(server["protocols"].as_array().unwrap().len(), 1);
    // The rest of the entry is what it was.
    assert_eq!(server["http"].as_str(), Some("http://127.0.0.1:8889"));
}

#[test]
fn an_empty_variable_empties_a_list() {
    let dir = Dir::with("[server]\nallowed_origins = [\"https://a.example\"]");
    let settings = dir.check(&[("MEETING_SERVER__SERVER__ALLOWED_ORIGINS", "")]);
    let settings = settings.settings();
    assert_eq!(
        get(&settings, "server.allowed_origins"),
        &Value::Array(vec![])
    );
}

/// 32 digits are a secret. Taken for a number and written again, they would be 30.
#[test]
fn a_secret_that_looks_like_a_number_stays_as_it_is() {
    let key = [
        ("MEETING_SERVER__AUTH__KEYS__0__APP", "123"),
        ("MEETING_SERVER__AUTH__KEYS__0__KID", "false"),
        ("MEETING_SERVER__AUTH__KEYS__0__ALG", "HS256"),
        ("MEETING_SERVER__AUTH__KEYS__0__SECRET", SECRET),
    ];
    let settings = Dir::new().check(&key).settings();
    let key = &settings["auth"]["keys"][0];
    assert_eq!(key["app"].as_str(), Some("123"));
    assert_eq!(key["kid"].as_str(), Some("false"));
    assert_eq!(key["secret"].as_str(), Some("(hidden)"));
    let file = format!("[[auth.keys]]\napp = \"a\"\nalg = \"HS256\"\nsecret = \"{SECRET}\"");
    Dir::with(&file).check(NONE).settings();
}

#[test]
fn an_unknown_variable_is_refused() {
    for (name, word) in [
        ("MEETING_SERVER__SERVER__BINT", "BIND"),
        ("MEETING_SERVER__SERVER__MAXCONNECTIONS", "MAX_CONNECTIONS"),
        ("MEETING_SERVER__BIND", "SERVER"),
        ("MEETING_SERVER__SERVER", "BIND"),
        ("MEETING_SERVER__", "in capitals"),
        ("MEETING_SERVER__server__bind", "in capitals"),
        ("MEETING_SERVER__SERVER__BIND__X", "below"),
        ("MEETING_SERVER__SERVER__MAX-PENDING", "in capitals"),
        ("MEETING_SERVER__MEDIA_SERVERS__NAME", "number"),
        ("MEETING_SERVER__MEDIA_SERVERS__99999999999__NAME", "number"),
    ] {
        Dir::new()
            .check(&[(name, "1")])
            .refused(&[name, "\"1\"", word]);
    }
}

#[test]
fn an_entry_that_is_missing_between_numbered_variables_is_named() {
    let gap = [("MEETING_SERVER__MEDIA_SERVERS__2__NAME", "far")];
    Dir::new().check(&gap).refused(&[
        "media_servers[1] = (missing)",
        "MEETING_SERVER__MEDIA_SERVERS__1__",
    ]);
    let key = |n: usize| {
        [("APP", "a"), ("ALG", "HS256"), ("SECRET", SECRET)]
            .map(|(key, value)| (format!("MEETING_SERVER__AUTH__KEYS__{n}__{key}"), value))
    };
    let with_keys = |numbers: &[usize]| {
        let mut binary = Dir::new().binary();
        binary.current_dir(env!("CARGO_TARGET_TMPDIR"));
        binary.envs(numbers.iter().flat_map(|n| key(*n)));
        Answer::of(binary.arg("--check-config"))
    };
    for (numbers, missing) in [(&[0, 2][..], 1), (&[1], 0), (&[0, 1, 3], 2)] {
        with_keys(numbers).refused(&[
            &format!("auth.keys[{missing}] = (missing)"),
            &format!("MEETING_SERVER__AUTH__KEYS__{missing}__"),
        ]);
    }
    with_keys(&[0]).settings();
}

#[test]
fn a_list_is_not_set_as_a_whole_and_by_its_entries_too() {
    for (list, entry) in [
        ("AUTH__KEYS", "AUTH__KEYS__0__SECRET"),
        ("MEDIA_SERVERS", "MEDIA_SERVERS__0__NAME"),
        ("SERVER__ALLOWED_ORIGINS", "SERVER__ALLOWED_ORIGINS__0"),
    ] {
        let [list, entry] = [list, entry].map(|name| format!("MEETING_SERVER__{name}"));
        let variables = [(&*list, ""), (&*entry, "geheim")];
        let answer = Dir::new().check(&variables);
        answer.refused(&[&format!("settings: {list} = "), "must not be set beside"]);
        assert!(!answer.stderr.contains("geheim"), "{answer:?}");
    }
}

#[test]
fn what_is_at_a_bound_is_taken() {
    for file in [
        "[session]\nping_interval = \"15s\"\nidle_timeout = \"30s\"\n",
        "[session]\nping_interval = \"10ms\"\nidle_timeout = \"20ms\"\n",
        "[log]\nstats_interval = \"100ms\"\n",
        "[auth]\nleeway = \"10ms\"\n",
    ] {
        Dir::with(file).check(NONE).settings();
    }
}

#[test]
fn origins_of_apps_and_extensions_are_taken() {
    let origins = "null,capacitor://localhost,tauri://localhost,chrome-extension://abcdef,\
                   https://a.example:8443";
    let settings = Dir::new().check(&[("MEETING_SERVER__SERVER__ALLOWED_ORIGINS", origins)]);
    let settings = settings.settings();
    let origins: Vec<_> = origins.split(',').map(Value::from).collect();
    assert_eq!(
        get(&settings, "server.allowed_origins"),
        &Value::Array(origins)
    );
}

#[test]
fn what_is_not_ours_in_the_environment_is_left_alone() {
    let variables = [
        // Kubernetes, for a service called meeting-server.
        ("MEETING_SERVER_PORT", "tcp://10.0.0.1:8080"),
        ("MEETING_SERVER_SERVICE_HOST", "10.0.0.1"),
        ("MEETING_SERVERS__X", "1"),
        ("SERVER__BIND", "nonsense"),
    ];
    Dir::new().check(&variables).settings();
}

#[test]
fn a_variable_that_is_no_utf_8_is_refused() {
    let value = OsString::from_vec(b"caf\xe9".to_vec());
    let answer = Dir::new().check(&[("MEETING_SERVER__TLS__CERT_FILE", value)]);
    answer.refused(&["MEETING_SERVER__TLS__CERT_FILE", "UTF-8"]);
}

// ---------------------------------------------------------------------------------- the checks

/// The keys that are only there in a list of tables, as TOML; `with` stands in for one of them.
fn entry(list: &str, key: &str, with: &str) -> String {
    let fields: &[(&str, &str)] = match list {
        "auth.keys[0]" => &[
            ("app", "\"demo\""),
            ("kid", "\"1\""),
            ("alg", "\"HS256\""),
            ("secret", "\"00123456789012345678901234567890\""),
        ],
        _ => &[("name", "\"local\""), ("protocols", "[\"rtsp\"]")],
    };
    let others = fields.iter().filter(|(name, _)| *name != key);
    let mut text = format!("[[{}]]\n{key} = {with}\n", list.trim_end_matches("[0]"));
    text.extend(others.map(|(name, value)| format!("{name} = {value}\n")));
    text
}

/// Key, a value as TOML that it may not have, and a word of what would be right.
const WRONG: &[(&str, &str, &str)] = &[
    ("server.bind", "\"8080\"", "127.0.0.1:8080"),
    ("server.bind", "\"localhost:8080\"", "127.0.0.1:8080"),
    ("server.bind", "8080", "127.0.0.1:8080"),
    ("server.workers", "513", "at most 512"),
    ("server.workers", "-1", "0 or more"),
    ("server.workers", "1.5", "whole number"),
    ("server.workers", "true", "whole number"),
    ("server.workers", "\"2\"", "whole number"),
    ("server.max_connections", "0", "1 or more"),
    ("server.max_connections_per_ip", "-1", "0 or more"),
    ("server.max_pending", "0", "1 or more"),
    ("server.max_pending", "4000000000", "at most 2147483647"),
    ("server.allowed_origins", "\"https://a.example\"", "a list"),
    ("server.allowed_origins[0]", "\"a.example\"", "https://"),
    (
        "server.allowed_origins[0]",
        "\"https://a.example/\"",
        "must be \"https://a.example\"",
    ),
    (
        "server.allowed_origins[0]",
        "\"https://a.example:443\"",
        "must be \"https://a.example\"",
    ),
    (
        "server.allowed_origins[0]",
        "\"HTTPS://A.example\"",
        "must be \"https://a.example\"",
    ),
    ("server.allowed_origins[0]", "\"*\"", "must be like"),
    ("server.allowed_origins[0]", "5", "text"),
    ("server.trusted_proxies[0]", "\"10.0.0.0/33\"", "10.0.0.0/8"),
    ("server.trusted_proxies[0]", "10", "10.0.0.0/8"),
    ("server.connect_rate_per_ip", "-1", "from 0 to"),
    ("server.connect_burst_per_ip", "0", "1 or more"),
    ("server.ops_bind", "\"9090\"", "127.0.0.1:9090"),
    ("server.ops_bind", "9090", "127.0.0.1:9090"),
    ("server.drain_timeout", "\"0s\"", "at least 10ms"),
    ("server.drain_timeout", "\"10\"", "500ms"),
    ("server.drain_timeout", "10", "500ms"),
    ("server.demo", "1", "true or false"),
    ("server.client_library", "\"no\"", "true or false"),
    ("server.demo", "\"yes\"", "true or false"),
    ("tls.cert_file", "5", "text"),
    ("tls.key_file", "\"key.pem\"", "cert_file"),
    ("tls.key_file", "5", "text"),
    ("session.join_timeout", "\"0\"", "at least 10ms"),
    ("session.join_timeout", "\"9999999years\"", "a year"),
    ("session.ping_interval", "0", "at least 10ms"),
    ("session.ping_interval", "\"9ms 999us\"", "at least 10ms"),
    ("session.idle_timeout", "\"-1s\"", "500ms"),
    (
        "session.idle_timeout",
        "\"19s 999ms\"",
        "at least twice session.ping_interval, which is 10s",
    ),
    ("session.max_message_bytes", "0", "1 or more"),
    ("session.max_message_bytes", "1073741825", "at most"),
    ("session.max_message_bytes", "\"64k\"", "whole number"),
    ("session.send_queue", "0", "1 or more"),
    ("session.send_queue_bytes", "0", "1 or more"),
    ("session.socket_send_buffer", "100", "0 or at least"),
    ("session.socket_send_buffer", "\"256k\"", "whole number"),
    ("session.send_timeout", "\"0ms\"", "at least 10ms"),
    ("session.rate_limit", "-1", "from 0 to"),
    ("session.rate_burst", "0", "1 or more"),
    ("session.rate_bytes", "5000000000", "4294967295"),
    ("rooms.max_rooms", "-1", "0 or more"),
    ("rooms.max_members", "\"none\"", "whole number"),
    ("rooms.resume_window", "\"soon\"", "500ms"),
    ("rooms.resume_window", "\"9ms\"", "0 or at least 10ms"),
    ("rooms.resume_events", "0", "1 or more"),
    ("rooms.resume_events", "256", "session.send_queue"),
    ("rooms.resume_bytes", "0", "1 or more"),
    ("auth.leeway", "true", "500ms"),
    ("auth.leeway", "\"1ms\"", "0 or at least 10ms"),
    ("auth.keys", "\"a,b\"", "a list"),
    ("auth.keys[0].app", "\"\"", "not be empty"),
    ("auth.keys[0].kid", "1", "text"),
    ("auth.keys[0].alg", "\"none\"", "HS256"),
    ("auth.keys[0].alg", "\"RS256\"", "public key"),
    ("auth.keys[0].secret", "\"\"", "secret_file"),
    ("auth.keys[0].secret", "\"short\"", "32 bytes"),
    ("auth.keys[0].secret", "123", "text"),
    ("auth.keys[0].secret_file", "\"missing\"", "one of them"),
    ("auth.keys[0].public_key_file", "5", "text"),
    ("media.health_interval", "\"5\"", "500ms"),
    ("media.health_interval", "\"9ms\"", "0 or at least 10ms"),
    ("media.health_timeout", "\"0s\"", "at least 10ms"),
    ("media.unhealthy_after", "0", "1 or more"),
    ("media_servers", "\"a\"", "a list"),
    ("media_servers[0].name", "\"\"", "not be empty"),
    ("media_servers[0].name", "true", "text"),
    ("media_servers[0].weight", "0", "1 or more"),
    ("media_servers[0].protocols", "[]", "webrtc"),
    ("media_servers[0].protocols", "\"webrtc\"", "a list"),
    (
        "media_servers[0].health",
        "\"localhost\"",
        "tcp://host:port",
    ),
    (
        "media_servers[0].health",
        "\"tcp://localhost\"",
        "tcp://host:port",
    ),
    ("media_servers[0].health", "\"http://\"", "http(s)://"),
    ("media_servers[0].wss", "5", "text"),
    ("media_servers[0].ws", "5", "text"),
    ("media_servers[0].https", "5", "text"),
    ("media_servers[0].http", "5", "text"),
    ("media_servers[0].rtsp", "5", "text"),
    ("log.level", "\"loud\"", "off, error, warn"),
    ("log.level", "3", "off, error, warn"),
    ("log.format", "\"xml\"", "json"),
    ("log.format", "1", "json"),
    ("log.stats_interval", "60", "500ms"),
    ("log.stats_interval", "\"99ms\"", "0 or at least 100ms"),
];

/// The file that sets just this.
fn setting(path: &str, value: &str) -> String {
    if let Some((list, key)) = path.split_once("].") {
        return entry(&format!("{list}]"), key, value);
    }
    match path.split_once('.') {
        None => format!("{path} = {value}"),
        Some((section, key)) => match key.strip_suffix("[0]") {
            Some(key) => format!("[{section}]\n{key} = [{value}]"),
            None => format!("[{section}]\n{key} = {value}"),
        },
    }
}

#[test]
fn a_wrong_value_is_refused_by_key_value_and_remedy() {
    for (path, value, remedy) in WRONG {
        let answer = Dir::with(&setting(path, value)).check(NONE);
        // Of two keys that do not go together the line may name the other.
        let key = match (*path, *value) {
            ("tls.key_file", "\"key.pem\"") => "tls.cert_file",
            ("auth.keys[0].alg", "\"RS256\"") => "auth.keys[0].public_key_file",
            (path, _) => path,
        };
        answer.refused(&[&format!("settings: {key} = "), remedy]);
        if path.ends_with("secret") {
            assert!(!answer.stderr.contains("short"), "{answer:?}");
            assert!(!answer.stderr.contains("123"), "{answer:?}");
        } else if path.starts_with("auth.keys") && *value == "\"a,b\"" {
            answer.refused(&["(hidden)"]);
        } else if key == *path && !value.trim_matches('"').starts_with('0') {
            answer.refused(&[&format!("{key} = {value}")]);
        }
    }
}

#[test]
fn each_key_has_a_wrong_value() {
    let known = paths("", &Value::Table(DEFAULTS.parse().unwrap()));
    let of_keys = [
        "app",
        "kid",
        "alg",
        "secret",
        "secret_file",
        "public_key_file",
    ];
    let of_keys = of_keys.map(|key| format!("auth.keys[0].{key}"));
    for path in known.iter().chain(&of_keys) {
        let mut tried = WRONG.iter().map(|(path, ..)| path.trim_end_matches("[0]"));
        assert!(tried.any(|tried| tried == path), "{path}");
    }
}

#[test]
fn zero_is_taken_where_it_means_something() {
    for (path, zero) in [
        ("server.workers", "0"),
        ("server.max_connections_per_ip", "0"),
        ("session.rate_limit", "0"),
        ("session.rate_bytes", "0"),
        ("rooms.max_rooms", "0"),
        ("rooms.max_members", "0"),
        ("rooms.resume_window", "0"),
        ("rooms.resume_window", "\"0\""),
        ("rooms.resume_window", "\"0s\""),
        ("auth.leeway", "0"),
        ("media.health_interval", "\"0\""),
        ("log.stats_interval", "\"0ms\""),
    ] {
        let settings = Dir::with(&setting(path, zero)).check(NONE).settings();
        let value = get(&settings, path);
        assert!(
            value.as_integer() == Some(0) || value.as_str() == Some("0s"),
            "{path} = {value}"
        );
        let name = path.replace('.', "__").to_ascii_uppercase();
        let variable = format!("MEETING_SERVER__{name}");
        let answer = Dir::new().check(&[(&*variable, zero.trim_matches('"'))]);
        assert_eq!(answer.settings(), settings, "{variable}");
    }
}

#[test]
fn an_unknown_key_in_a_file_is_refused() {
    for (file, key, word) in [
        ("bint = 1", "bint", "server, tls"),
        ("[sever]\nbind = \"x\"", "sever", "server, tls"),
        ("[server]\nbint = 1", "server.bint", "bind"),
        ("[server]\nBind = 1", "server.Bind", "bind"),
        (
            "[[media_servers]]\nname = \"a\"\nprotocols = [\"x\"]\nurl = \"y\"",
            "media_servers[0].url",
            "rtsp",
        ),
        ("[server.bind]\nx = 1", "server.bind", "127.0.0.1:8080"),
        ("server = 1", "server", "a table"),
    ] {
        let key = format!("settings: {key} = ");
        Dir::with(file).check(NONE).refused(&[&key, word]);
    }
}

#[test]
fn what_an_entry_needs_must_be_given() {
    let local = "[[media_servers]]\nname = \"a\"\nprotocols = [\"x\"]\n";
    let key = entry("auth.keys[0]", "kid", "\"1\"");
    for (file, key) in [
        (
            "[[media_servers]]\nprotocols = [\"x\"]",
            "media_servers[0].name",
        ),
        (
            "[[media_servers]]\nname = \"a\"",
            "media_servers[0].protocols",
        ),
        (&format!("{local}{local}"), "media_servers[1].name"),
        ("[[auth.keys]]\nalg = \"HS256\"", "auth.keys[0].app"),
        ("[[auth.keys]]\napp = \"a\"", "auth.keys[0].alg"),
        (&format!("{key}{key}"), "auth.keys[1].kid"),
        ("[tls]\ncert_file = \"x\"", "tls.key_file"),
    ] {
        Dir::with(file).check(NONE).refused(&[key]);
    }
}

#[test]
fn files_that_settings_name_must_be_readable() {
    for file in [
        "[tls]\ncert_file = \"none.pem\"\nkey_file = \"settings.toml\"",
        "[tls]\ncert_file = \"settings.toml\"\nkey_file = \"none.pem\"",
        "[[auth.keys]]\napp = \"a\"\nalg = \"HS256\"\nsecret_file = \"none.pem\"",
        "[[auth.keys]]\napp = \"a\"\nalg = \"EdDSA\"\npublic_key_file = \"none.pem\"",
    ] {
        let answer = Dir::with(file).check(NONE);
        answer.refused(&["_file = \"none.pem\"", "can be read"]);
    }
    let dir = Dir::with("[[auth.keys]]\napp = \"a\"\nalg = \"HS256\"\nsecret_file = \"s\"");
    dir.write("s", "too short\n");
    dir.check(NONE)
        .refused(&["auth.keys[0].secret_file", "32 bytes"]);
    dir.write("s", SECRET);
    dir.check(NONE).settings();
}

#[test]
fn a_certificate_and_its_key_must_be_such_and_fit() {
    let dir = Dir::with("[tls]\ncert_file = \"cert\"\nkey_file = \"key\"");
    let ours = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let others = rcgen::KeyPair::generate().unwrap();
    let (cert, key) = (ours.cert.pem(), ours.signing_key.serialize_pem());
    for (cert, key, words) in [
        (
            "",
            &*key,
            ["tls.cert_file = \"cert\"", "there is none in it"],
        ),
        (
            "nonsense",
            &key,
            ["tls.cert_file = \"cert\"", "there is none"],
        ),
        (
            &key,
            &key,
            ["tls.cert_file = \"cert\"", "there is none in it"],
        ),
        (&cert, "", ["tls.key_file = \"key\"", "there is none in it"]),
        (
            &cert,
            &cert,
            ["tls.key_file = \"key\"", "a private key in PEM"],
        ),
        (
            &cert,
            &others.serialize_pem(),
            ["tls.key_file = \"key\"", "the key of the certificate"],
        ),
        (
            &cert,
            "-----BEGIN PRIVATE KEY-----\nAAAA",
            ["tls.key_file = \"key\"", "no PEM"],
        ),
    ] {
        dir.write("cert", cert);
        dir.write("key", key);
        dir.check(NONE).refused(&words);
        // Nor does a server start with it.
        let answer = Answer::of(dir.binary().args(["--bind", "127.0.0.1:0"]));
        answer.refused(&words);
    }
    dir.write("cert", cert);
    dir.write("key", key);
    dir.check(NONE).settings();
}

#[test]
fn no_secret_is_shown() {
    let secret = "ganz-geheim-und-lang-genug-fuer-alles";
    let table = format!("app = \"a\"\nalg = \"HS256\"\nsecret = \"{secret}\"\n");
    for file in [
        format!("[[auth.keys]]\n{table}"),
        format!("[[auth.keys]]\n{table}secret_file = \"x\""),
        format!("[[auth.keys]]\napp = \"a\"\nalg = \"HS256\"\nsecrt = \"{secret}\""),
        format!("[[auth.keys]]\napp = \"a\"\nalg = \"HS256\"\nsecret = [\"{secret}\"]"),
        format!("[auth]\nsecret = \"{secret}\""),
        format!("[auth]\nkey = \"{secret}\""),
        format!("[auth]\nkeys = [\"{secret}\"]"),
        format!("[auth]\nkeys = \"{secret}\""),
        format!("[[keys]]\n{table}"),
        format!("[auth\nsecret = \"{secret}\""),
        format!("[auth]\nsecret = {secret}"),
    ] {
        let answer = Dir::with(&file).check(NONE);
        let said = format!("{answer:?}");
        assert!(!said.contains("geheim"), "{file}: {said}");
    }
    for name in [
        "AUTH__KEYS__0__SECRET",
        "AUTH__SECRET",
        "AUTH__KEYS",
        "SECRET",
    ] {
        let name = format!("MEETING_SERVER__{name}");
        let answer = Dir::new().check(&[(&*name, secret)]);
        answer.refused(&[]);
        assert!(!answer.stderr.contains("geheim"), "{answer:?}");
    }
}

// ------------------------------------------------------------------------------- --check-config

#[test]
fn what_check_config_prints_can_be_fed_back() {
    let dir = Dir::with(
        "[server]\nallowed_origins = [\"https://a.example\"]\nops_bind = \"[::1]:9090\"\n\
         [rooms]\nresume_window = 0\n[session]\njoin_timeout = \"1h 5ms\"\n\
         [log]\nformat = \"json\"\nlevel = \"off\"\n\
         [[auth.keys]]\napp = \"a'b\"\nalg = \"HS256\"\nsecret_file = \"s\"\n\
         [[media_servers]]\nname = \"ü\\\"\"\nprotocols = [\"webrtc\"]\n",
    );
    dir.write("s", SECRET);
    let printed = dir.check(NONE);
    printed.settings();
    dir.write("printed.toml", &printed.stdout);
    let mut binary = dir.binary();
    let again = Answer::of(binary.args(["--check-config", "--config", "printed.toml"]));
    assert_eq!(again.stdout, printed.stdout);
    assert_eq!(again.code, Some(0));
}

#[test]
fn the_word_that_hides_a_secret_is_no_secret() {
    let dir = Dir::with(&entry("auth.keys[0]", "kid", "\"1\""));
    let printed = dir.check(NONE);
    printed.settings();
    dir.write("settings.toml", &printed.stdout);
    dir.check(NONE)
        .refused(&["auth.keys[0].secret", "32 bytes"]);
}

// --------------------------------------------------------------------------------- the command line

#[test]
fn bad_flags_are_one_line_and_exit_code_2() {
    for (flags, word) in [
        (&["--bind", "nonsense"][..], "127.0.0.1:8080"),
        (&["--bind", "localhost:80"], "127.0.0.1:8080"),
        (&["--bind"], "--bind"),
        (&["--config"], "--config"),
        (&["--port", "80"], "--port"),
        (&["--check-config=yes"], "--check-config"),
        (&["serve"], "serve"),
        (&["health", "--bind", "nonsense"], "127.0.0.1:8080"),
    ] {
        let dir = Dir::new();
        Answer::of(dir.binary().args(flags)).refused(&[word]);
    }
}

#[test]
fn help_and_version_are_no_failures() {
    let dir = Dir::with("this is never read");
    let version = Answer::of(dir.binary().arg("--version"));
    assert_eq!(version.code, Some(0));
    // The commit stands behind it where the build knows it.
    let commit = env!("MEETING_SERVER_COMMIT");
    let commit = if commit.is_empty() {
        String::new()
    } else {
        format!(" ({commit})")
    };
    let expected = format!("meeting-server {}{commit}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(version.stdout, expected);
    let help = Answer::of(dir.binary().arg("--help"));
    assert_eq!(help.code, Some(0));
    for word in [
        "--config",
        "--bind",
        "--check-config",
        "--version",
        "health",
    ] {
        assert!(help.stdout.contains(word), "{}", help.stdout);
    }
}

#[test]
fn wrong_settings_end_it_before_it_listens() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap().to_string();
    let dir = Dir::with("[rooms]\nresume_bytes = 0");
    let answer = Answer::of(dir.binary().args(["--bind", &bind]));
    answer.refused(&["rooms.resume_bytes"]);
}

#[test]
fn a_port_in_use_is_one_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap().to_string();
    let dir = Dir::new();
    let mut binary = dir.binary();
    binary.env("RUST_BACKTRACE", "1").args(["--bind", &bind]);
    let answer = Answer::of(&mut binary);
    let line = answer.refusal(1);
    assert!(line.contains(&bind) && line.contains("in use"), "{line}");
}

// --------------------------------------------------------------------------- a running server

/// The binary while it serves.
struct Running {
    child: Child,
    /// Its log up to where it begins to serve.
    log: Vec<String>,
}

impl Running {
    /// Starts `command` and waits until it says that it serves.
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (line, lines) = mpsc::channel();
        // Reads on behind the last line that is looked at, or the pipe would fill up.
        thread::spawn(move || {
            for text in stderr.lines().map_while(Result::ok) {
                let _ = line.send(text);
            }
        });
        let log = Vec::new();
        let mut running = Self { child, log };
        loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(" start version=") => return running,
                Ok(line) => running.log.push(line),
                Err(_) => panic!("it does not serve: {:#?}", running.log),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address at which nobody listens just now.
fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn health_is_0_with_a_server_and_1_without() {
    let (addr, ops) = (free_addr(), free_addr());
    for ops_bind in [String::new(), ops.to_string()] {
        // The same settings serve and ask. Everywhere is asked at home.
        let bind = format!("0.0.0.0:{}", addr.port());
        let dir = Dir::with(&format!(
            "[server]\nbind = \"{bind}\"\nops_bind = \"{ops_bind}\"\nworkers = 1"
        ));
        let asked = if ops_bind.is_empty() { addr } else { ops };
        let ask = || Answer::of(dir.binary().args(["health", "--config", "settings.toml"]));

        let answer = ask();
        let line = answer.refusal(1);
        assert!(line.contains(&asked.to_string()), "{line}");

        let server = Running::start(dir.binary());
        let answer = ask();
        assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));
        drop(server);
        ask().refusal(1);
    }
}

#[test]
fn health_asks_where_its_flag_says() {
    let addr = free_addr();
    let dir = Dir::new();
    let mut server = dir.binary();
    server.args(["--bind", &addr.to_string()]);
    let _server = Running::start(server);
    for flags in [["health", "--bind"], ["--bind", "health"]] {
        let mut binary = dir.binary();
        let at = flags.iter().position(|flag| *flag == "--bind").unwrap();
        let mut flags = flags.map(str::to_owned).to_vec();
        flags.insert(at + 1, addr.to_string());
        assert_eq!(Answer::of(binary.args(flags)).code, Some(0));
    }
}

#[test]
fn health_with_wrong_settings_is_2() {
    let dir = Dir::with("[server]\nbind = \"nonsense\"");
    Answer::of(dir.binary().arg("health")).refused(&["server.bind"]);
}

/// The server under limits of open files; the limits are what the shell sets before it becomes
/// the server.
#[cfg(target_os = "linux")]
fn under_limits(soft: u32, hard: u32, max_connections: u32) -> Running {
    let dir = Dir::with(&format!(
        "[server]\nbind = \"127.0.0.1:0\"\nworkers = 1\nmax_connections = {max_connections}"
    ));
    let mut shell = Command::new("/bin/sh");
    let script = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\"");
    shell.args(["-c", &script, BINARY]);
    shell.env_clear().current_dir(&dir.0);
    Running::start(shell)
}

#[test]
#[cfg(target_os = "linux")]
fn the_limit_of_open_files_is_raised_to_the_hard_one() {
    let server = under_limits(64, 400, 300);
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let limit = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let numbers: Vec<&str> = limit.unwrap().split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["400", "400"]);
    assert!(server.log.is_empty(), "{:#?}", server.log);
}

#[test]
#[cfg(target_os = "linux")]
fn a_limit_of_open_files_that_is_too_low_is_warned_of() {
    let server = under_limits(64, 400, 400);
    let [line] = &server.log[..] else {
        panic!("one line was due: {:#?}", server.log);
    };
    for word in ["WARN", "LimitNOFILE", "limit=400", "max_connections=400"] {
        assert!(line.contains(word), "{line}");
    }
}

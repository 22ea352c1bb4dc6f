//! Rooms and a real media server: Janus (Debian's package `janus`), with its own HTTP interface as
//! the health check and its WebSocket as the address that clients are given.
//!
//! Where there is no `janus` the tests are skipped, and say so; with `CI=true` they fail.

mod common;

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::{DirBuilderExt, symlink},
        process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{openmetrics::Figures, random::Random, *};
use meeting_server::settings::MediaServer;
use serde_json::{Value, json};

/// Where Debian has Janus' transports; another system may say so in `JANUS_TRANSPORTS`.
const LIBRARIES: &str = "/usr/lib";

/// A user without rights, for a test that is run by root.
const NOBODY: u32 = 65_534;

/// A Janus that listens on loopback alone, with no plugins, and ends with this value.
struct Janus {
    name: &'static str,
    folder: PathBuf,
    http: u16,
    ws: u16,
    /// `None` while it is stopped.
    process: Option<Child>,
}

impl Janus {
    /// Starts one and waits until it answers. `None`: there is no Janus here.
    fn start(name: &'static str) -> Option<Self> {
        let Some(transports) = transports() else {
            let missing = "janus is not installed (apt-get install --no-install-recommends janus)";
            assert_ne!(env::var("CI").as_deref(), Ok("true"), "{missing}");
            // Past the harness, which shows nothing of a test that passes.
            let said = writeln!(io::stderr(), "SKIPPED: {missing}");
            said.expect("standard error takes a line");
            return None;
        };
        let mut janus = Self {
            name,
            folder: folder(),
            http: free_port(),
            ws: free_port(),
            process: None,
        };
        let folder = &janus.folder;
        for part in ["none", "transports"] {
            fs::create_dir(folder.join(part)).unwrap();
        }
        for transport in ["libjanus_http.so", "libjanus_websockets.so"] {
            let (from, to) = (transports.join(transport), folder.join("transports"));
            symlink(from, to.join(transport)).unwrap();
        }
        janus.configure();
        janus.run();
        Some(janus)
    }

    fn configure(&self) {
        let folder = self.folder.to_str().unwrap();
        let write = |file: &str, text: String| fs::write(self.folder.join(file), text).unwrap();
        write(
            "janus.jcfg",
            format!(
                "general: {{ server_name = \"{}\", interface = \"127.0.0.1\", debug_level = 3,\n\
                 configs_folder = \"{folder}\", transports_folder = \"{folder}/transports\",\n\
                 plugins_folder = \"{folder}/none\", events_folder = \"{folder}/none\",\n\
                 loggers_folder = \"{folder}/none\" }}\n",
                self.name
            ),
        );
        write(
            "janus.transport.http.jcfg",
            format!(
                "general: {{ http = true, https = false, ip = \"127.0.0.1\", port = {} }}\n\
                 admin: {{ admin_http = false }}\n",
                self.http
            ),
        );
        write(
            "janus.transport.websockets.jcfg",
            format!(
                "general: {{ ws = true, wss = false, ws_ip = \"127.0.0.1\", ws_port = {} }}\n\
                 admin: {{ admin_ws = false }}\n",
                self.ws
            ),
        );
    }

    /// Runs it, not for the first time perhaps, and waits until it answers.
    fn run(&mut self) {
        let said = self.folder.join("said");
        let log = OpenOptions::new().create(true).append(true).open(&said);
        let log: File = log.unwrap();
        let mut command = Command::new("janus");
        command
            .arg("--config")
            .arg(self.folder.join("janus.jcfg"))
            .arg("--configs-folder")
            .arg(&self.folder)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        self.process = Some(command.spawn().unwrap());
        let begun = Instant::now();
        while !self.answers() {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            let said = || fs::read_to_string(&said).unwrap();
            assert!(ended.is_none(), "{}: {ended:?}: {}", self.name, said());
            assert!(begun.elapsed() < PATIENCE, "{}: {}", self.name, said());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the health check would find it well. One that begins may take a connection and
    /// drop it.
    fn answers(&self) -> bool {
        let ask = || -> io::Result<String> {
            let mut socket = TcpStream::connect(("127.0.0.1", self.http))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket
                .write_all(b"GET /janus/info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut response = String::new();
            socket.read_to_string(&mut response)?;
            Ok(response)
        };
        ask().is_ok_and(|response| response.starts_with("HTTP/1.1 200 "))
    }

    fn signal(&self, name: &str) {
        let pid = self.process.as_ref().expect("it runs").id().to_string();
        let kill = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(kill.unwrap().success());
    }

    /// Stops it as its operator would, and waits until it is gone.
    fn stop(&mut self) {
        self.signal("TERM");
        let status = self.process.take().unwrap().wait().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Its entry in the settings.
    fn entry(&self) -> MediaServer {
        MediaServer {
            name: self.name.into(),
            weight: 1,
            protocols: vec!["webrtc".into()],
            health: format!("http://127.0.0.1:{}/janus/info", self.http),
            wss: String::new(),
            ws: format!("ws://127.0.0.1:{}", self.ws),
            https: String::new(),
            http: format!("http://127.0.0.1:{}/janus", self.http),
            rtsp: String::new(),
        }
    }
}

impl Drop for Janus {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // One that is stopped by SIGSTOP ends by this too.
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where the libraries of Janus' transports are.
fn transports() -> Option<PathBuf> {
    let is_there = |folder: &PathBuf| folder.join("libjanus_http.so").exists();
    if let Some(folder) = env::var_os("JANUS_TRANSPORTS").map(PathBuf::from) {
        return Some(folder).filter(is_there);
    }
    let below = fs::read_dir(LIBRARIES).ok()?.flatten();
    let mut folders = below.map(|entry| entry.path().join("janus/transports"));
    folders.find(is_there)
}

/// A folder that another user can read.
fn folder() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("meeting-server-janus-{}-{next}", std::process::id());
    let folder = env::temp_dir().join(name);
    // Left over from a process of the same number, if at all.
    let _ = fs::remove_dir_all(&folder);
    DirBuilder::new().mode(0o755).create(&folder).unwrap();
    folder
}

/// A port that nobody has. Not one of those that the system hands out: while a server is stopped
/// somebody else might get it.
fn free_port() -> u16 {
    let mut random = Random::new(Random::seed());
    loop {
        let port = 20_000 + random.below(12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn server(all: &[&Janus], health_timeout: Duration) -> Server {
    Server::with(|settings| {
        settings.server.workers = 2;
        settings.server.ops_bind = Some("127.0.0.1:0".parse().unwrap());
        settings.media_servers = all.iter().map(|janus| janus.entry()).collect();
        settings.media.health_interval = Duration::from_millis(100);
        settings.media.health_timeout = health_timeout;
        settings.media.unhealthy_after = 2;
    })
}

fn is_up(server: &Server, janus: &Janus, up: bool) {
    let series = format!("meeting_server_media_server_up{{name=\"{}\"}}", janus.name);
    let due = f64::from(u8::from(up));
    Figures::when(server.ops, move |f| f[&series] == due);
}

/// The addresses of a join's or dump's `data`.
fn addresses(data: &Value) -> &Value {
    &data["media_server"]
}

/// The name of the Janus that answers at the address which a client was given.
fn who_answers(addresses: &Value) -> String {
    use tungstenite::{Message, client::IntoClientRequest};
    let url = addresses["ws"].as_str().unwrap();
    let mut request = url.into_client_request().unwrap();
    let protocol = "janus-protocol".parse().unwrap();
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", protocol);
    let stream = TcpStream::connect(url.strip_prefix("ws://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut socket, _) = tungstenite::client(request, stream).unwrap();
    let ask = json!({"janus": "info", "transaction": "1"});
    socket.send(Message::text(ask.to_string())).unwrap();
    let answer = socket.read().unwrap().into_text().unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    answer["server-name"].as_str().unwrap().to_owned()
}

/// Two members who meet in a room, and the addresses that both were given.
struct Room {
    channel: String,
    members: [Client; 2],
    addresses: Value,
}

impl Room {
    fn open(server: &Server, channel: String) -> Self {
        let mut anna = server.connect();
        let addresses = addresses(&anna.join(&channel, "anna")).clone();
        let mut ben = server.connect();
        assert_eq!(ben.join(&channel, "ben")["media_server"], addresses);
        anna.event("endpoint");
        Self {
            channel,
            members: [anna, ben],
            addresses,
        }
    }

    /// The first of many rooms whose media goes to this Janus.
    fn at(server: &Server, janus: &Janus, prefix: &str) -> Self {
        let mut rooms = (0..100).map(|n| Self::open(server, format!("{prefix} {n}")));
        let ws = janus.entry().ws;
        let found = rooms.find(|room| room.addresses["ws"] == ws);
        found.unwrap_or_else(|| panic!("no room of 100 is sent to {}", janus.name))
    }

    /// Its members have been told nothing more, and both are sent to this Janus.
    fn is_at(&mut self, janus: &Janus) {
        let ws = janus.entry().ws;
        for member in &mut self.members {
            let data = member.ok("media_server.dump", json!({}));
            assert_eq!(addresses(&data)["ws"], ws, "{}", self.channel);
            self.addresses = addresses(&data).clone();
        }
    }

    fn is_told_that_its_server_is_down(&mut self) {
        for member in &mut self.members {
            assert_eq!(member.error_event(), "media_server_down");
        }
    }
}

#[test]
fn when_a_janus_stops_its_rooms_move_and_do_not_move_back() {
    let (Some(mut a), Some(b)) = (Janus::start("janus-a"), Janus::start("janus-b")) else {
        return;
    };
    let server = server(&[&a, &b], Duration::from_secs(5));
    let mut moving = Room::at(&server, &a, "moving");
    let mut staying = Room::at(&server, &b, "staying");
    assert_eq!(who_answers(&moving.addresses), "janus-a");
    assert_eq!(who_answers(&staying.addresses), "janus-b");

    a.stop();
    is_up(&server, &a, false);
    moving.is_told_that_its_server_is_down();
    moving.is_at(&b);
    assert_eq!(who_answers(&moving.addresses), "janus-b");
    staying.is_at(&b);

    a.run();
    is_up(&server, &a, true);
    moving.is_at(&b);
    staying.is_at(&b);
    let new = Room::at(&server, &a, "new");
    assert_eq!(who_answers(&new.addresses), "janus-a");
}

#[test]
fn a_janus_that_hangs_is_down_and_one_that_goes_on_is_up() {
    let (Some(a), Some(b)) = (Janus::start("janus-a"), Janus::start("janus-b")) else {
        return;
    };
    let server = server(&[&a, &b], Duration::from_secs(1));
    let mut room = Room::at(&server, &a, "room");
    // The kernel goes on taking connections for it; nothing answers them.
    a.signal("STOP");
    is_up(&server, &a, false);
    room.is_told_that_its_server_is_down();
    room.is_at(&b);
    a.signal("CONT");
    is_up(&server, &a, true);
    room.is_at(&b);
    drop(Room::at(&server, &a, "new"));
}

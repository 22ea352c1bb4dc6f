//! A conversation of the page, held with a server.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    ops::Range,
    time::{Duration, Instant},
};

use meeting_server::settings::{AuthKey, MediaServer, Settings};
use serde_json::{Value, json};

use crate::{
    common::{Client, PATIENCE, Server, ask_for_error, openmetrics::Figures},
    page::{Scene, Step},
};

/// One client of the conversation.
struct Participant {
    client: Client,
    /// What has come and is to be heard yet.
    heard: Option<String>,
    /// All that it is sent is shown.
    is_shown: bool,
}

/// A conversation that is being held.
struct Replay {
    participants: BTreeMap<String, Participant>,
    names: Names,
    /// Where the page and the server differ.
    differences: Vec<String>,
    /// The health check of the first media server.
    media: Option<TcpListener>,
    /// Behind the participants: it would wait for their goodbyes.
    server: Server,
}

/// Holds the conversation; where the server does not say what the page shows.
pub(crate) fn differences(scene: &Scene) -> Vec<String> {
    if scene.server == "failing" && !cfg!(feature = "test-hooks") {
        return Vec::new();
    }
    let (server, media) = server(&scene.server);
    let mut replay = Replay {
        participants: BTreeMap::new(),
        names: Names::default(),
        differences: Vec::new(),
        media,
        server,
    };
    for step in &scene.steps {
        replay.step(step);
    }
    replay.expect_no_more();
    replay.differences
}

/// The server that this conversation is held with.
fn server(name: &str) -> (Server, Option<TcpListener>) {
    let health = (name == "media").then(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let server = Server::with(|settings| {
        settings.server.ops_bind = Some("127.0.0.1:0".parse().unwrap());
        // Longer than any machine takes; what does not come back is to be waited for.
        settings.rooms.resume_window = 3 * PATIENCE;
        configure(name, settings, health.as_ref());
    });
    (server, health)
}

fn configure(name: &str, settings: &mut Settings, health: Option<&TcpListener>) {
    match name {
        "meeting" => {
            let media = &mut settings.media_servers[0];
            media.wss = "wss://media.example.org:8443/rtc".into();
            media.ws = "ws://media.example.org:8080/rtc".into();
            media.https = "https://media.example.org:8443".into();
            media.http = "http://media.example.org:8080".into();
            media.rtsp = "rtsp://media.example.org:8554".into();
        }
        "media" => {
            let media_server = |n: u8, health: String| MediaServer {
                name: n.to_string(),
                weight: 1,
                protocols: vec!["webrtc".into()],
                health,
                wss: format!("wss://media-{n}.example.org/rtc"),
                ws: String::new(),
                https: String::new(),
                http: String::new(),
                rtsp: String::new(),
            };
            let addr = health.unwrap().local_addr().unwrap();
            settings.media_servers = vec![
                media_server(1, format!("tcp://{addr}")),
                media_server(2, String::new()),
            ];
            settings.media.health_interval = Duration::from_millis(100);
            settings.media.unhealthy_after = 1;
        }
        "slow" => {
            settings.session.send_queue = 64;
            settings.session.send_timeout = PATIENCE;
        }
        "failing" => ask_for_error("a room failed"),
        "errors" => {
            settings.media_servers.clear();
            settings.rooms.max_members = 1;
        }
        "rate" => {
            settings.session.rate_limit = 100;
            settings.session.rate_burst = 2;
            // The join empties the bucket but for a few bytes, and nothing fills it.
            settings.session.max_message_bytes = 150;
            settings.session.rate_bytes = 1;
        }
        "tokens" => {
            settings.auth.keys = vec![AuthKey {
                app: "demo".into(),
                kid: String::new(),
                alg: "HS256".into(),
                secret: serde_json::from_value(json!(
                    "a secret for these examples alone, never for a server"
                ))
                .unwrap(),
                secret_file: String::new(),
                public_key_file: String::new(),
            }];
        }
        "late" => settings.session.join_timeout = Duration::from_millis(300),
        "too-big" | "shutdown" | "resume" => {}
        other => panic!("there is no server {other}"),
    }
}

impl Replay {
    fn participant(&mut self, who: &str) -> &mut Participant {
        self.connect(who, "/ws")
    }

    /// The participant of this name, who connects if it is not connected.
    fn connect(&mut self, who: &str, path: &str) -> &mut Participant {
        let addr = self.server.addr;
        let participants = &mut self.participants;
        participants
            .entry(who.to_owned())
            .or_insert_with(|| Participant {
                client: Client::connect_to(addr, path),
                heard: None,
                is_shown: false,
            })
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Connects(who, path) => {
                self.connect(who, path);
            }
            Step::Says {
                who,
                text,
                is_answer_shown,
            } => {
                let session = self.participant(who).client.session.clone();
                let text = self.names.real(text, &session);
                let participant = self.participant(who);
                participant.client.text(&text);
                if !is_answer_shown {
                    participant.skip_answer(&text);
                }
            }
            Step::Hears(who, shown) => {
                let participant = self.participant(who);
                participant.is_shown = true;
                let real = participant.next();
                let session = joined(&real);
                if let Some(session) = session {
                    participant.client.session = session;
                }
                if let Err(difference) = self.names.compare(shown, &real) {
                    self.differences.push(format!("{who}: {difference}"));
                }
            }
            Step::Closes(who, code) => self.participant(who).client.close(*code),
            Step::IsClosed(who, code) => {
                let mut participant = self.participants.remove(who).expect("it is connected");
                let real = participant.client.closed();
                if real != *code {
                    let difference = format!("{who}: closed with {real}, not {code}");
                    self.differences.push(difference);
                }
            }
            Step::Happens(what) => self.happens(what),
        }
    }

    /// What is no message.
    fn happens(&mut self, what: &str) {
        match what.split_once(' ').expect("who, and what") {
            (who, "→ a message of 65537 bytes") => {
                self.participant(who).client.text(&"x".repeat(65_537));
            }
            (who, "is cut off") => {
                let gone = self.participants.remove(who).expect("it is connected");
                gone.client.reset();
                self.wait_until_lost();
            }
            (who, "does not read while much is said") => {
                let mut noise = self.noise();
                let begun = Instant::now();
                while self.lost() == 0.0 {
                    for _ in 0..20 {
                        noise.ok("broadcast", json!({"pad": "x".repeat(30_000)}));
                    }
                    assert!(begun.elapsed() < PATIENCE, "it is never too much");
                }
                self.participant(who).skip_to_error();
            }
            ("the", "media server fails") => self.media = None,
            ("the", "room fails") => {
                let mut noise = self.noise();
                noise.ask("broadcast", json!({"panic": "room"}));
                self.participant("anna").skip_to_error();
            }
            ("the", "server shuts down") => self.server.begin_stop(),
            _ => panic!("the test does not know how to bring about: {what}"),
        }
    }

    /// One more member, of which the page does not speak.
    fn noise(&self) -> Client {
        let mut noise = self.server.connect();
        noise.join_with(json!({"app": "demo", "channel": "standup", "endpoint": "noise"}));
        noise
    }

    fn lost(&self) -> f64 {
        Figures::scrape(self.server.ops)["meeting_server_sessions_detached"]
    }

    fn wait_until_lost(&self) {
        Figures::when(self.server.ops, |f| {
            f["meeting_server_sessions_detached"] > 0.0
        });
    }

    /// Whoever is shown to hear anything has heard all that it is shown to.
    fn expect_no_more(&mut self) {
        for (who, participant) in &mut self.participants {
            if participant.is_shown && !participant.client.session.is_empty() {
                let cseq = participant.client.ask("channel.dump", json!({}));
                let next: Value = serde_json::from_str(&participant.next()).unwrap();
                if next.get("err").is_none() || next["cseq"] != cseq {
                    self.differences.push(format!("{who}: is also sent {next}"));
                }
            }
        }
    }
}

impl Participant {
    fn next(&mut self) -> String {
        let heard = self.heard.take();
        heard.unwrap_or_else(|| self.client.next_text())
    }

    /// Everything up to the answer to this request, which must be granted.
    fn skip_answer(&mut self, request: &str) {
        let request: Value = serde_json::from_str(request).unwrap();
        loop {
            let text = self.client.next_text();
            let message: Value = serde_json::from_str(&text).unwrap();
            if message.get("err").is_some() && message["cseq"] == request["cseq"] {
                assert_eq!(message["err"], 0, "{message}");
                if let Some(session) = joined(&text) {
                    self.client.session = session;
                }
                return;
            }
        }
    }

    /// Everything up to an error event.
    fn skip_to_error(&mut self) {
        let text = loop {
            let text = self.client.next_text();
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["event"] == "error" {
                break text;
            }
        };
        self.heard = Some(text);
    }
}

/// The session of an answer to a join.
fn joined(text: &str) -> Option<String> {
    let answer: Value = serde_json::from_str(text).ok()?;
    answer["data"]["session"].as_str().map(str::to_owned)
}

/// What the server has chosen for each UUID that the page shows.
#[derive(Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    /// The text with the server's UUIDs. One that is shown for the first time is the session of
    /// whoever says it, if there is one: it got it from an answer that is left out.
    fn real(&mut self, shown: &str, session: &str) -> String {
        for range in uuids(shown) {
            let shown = &shown[range];
            let is_known =
                self.0.contains_key(shown) || self.0.values().any(|real| real == session);
            if !is_known && !session.is_empty() {
                self.0.insert(shown.to_owned(), session.to_owned());
            }
        }
        replaced(shown, |uuid| self.0.get(uuid).cloned())
    }

    /// Whether the server says what the page shows, UUIDs and retry_after_ms apart.
    fn compare(&mut self, shown: &str, real: &str) -> Result<(), String> {
        for (shown, real) in uuids(shown)
            .into_iter()
            .map(|r| &shown[r])
            .zip(uuids(real).into_iter().map(|r| &real[r]))
        {
            // A UUID that is known for another one stays as it is, and is a difference.
            if !self.0.contains_key(shown) && !self.0.values().any(|known| known == real) {
                self.0.insert(shown.to_owned(), real.to_owned());
            }
        }
        let shown_name = |uuid: &str| {
            let found = self.0.iter().find(|(_, real)| *real == uuid);
            found.map(|(shown, _)| shown.clone())
        };
        let real = replaced(real, shown_name);
        let (a, b) = (without_delay(shown)?, without_delay(&real)?);
        (a == b)
            .then_some(())
            .ok_or_else(|| format!("\n  page   {shown}\n  server {real}"))
    }
}

/// Where UUIDs stand in a text.
fn uuids(text: &str) -> Vec<Range<usize>> {
    let is_uuid = |range: &Range<usize>| {
        let piece = text.get(range.clone());
        piece.is_some_and(|piece| uuid::Uuid::parse_str(piece).is_ok())
    };
    (0..text.len().saturating_sub(35))
        .map(|at| at..at + 36)
        .filter(is_uuid)
        .collect()
}

fn replaced(text: &str, name: impl Fn(&str) -> Option<String>) -> String {
    let mut out = text.to_owned();
    for range in uuids(text) {
        if let Some(name) = name(&text[range.clone()]) {
            out.replace_range(range, &name);
        }
    }
    out
}

/// The text with a retry_after_ms of 0, which may have been anything up to five seconds.
fn without_delay(text: &str) -> Result<String, String> {
    const KEY: &str = "\"retry_after_ms\":";
    let Some(start) = text.find(KEY).map(|at| at + KEY.len()) else {
        return Ok(text.to_owned());
    };
    let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
    let end = start + digits;
    match text[start..end].parse::<u64>() {
        Ok(..=5_000) => Ok(format!("{}0{}", &text[..start], &text[end..])),
        _ => Err(format!("retry_after_ms: {text}")),
    }
}

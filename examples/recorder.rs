//! A recorder that records no media, but writes down who published what when: one JSON object a
//! line, at the end of a file.
//!
//! ```sh
//! cargo run --example recorder -- --app demo --channel lobby --endpoint recorder-1 --file timeline.jsonl
//! ```
//!
//! ```json
//! {"at":"2026-11-27T18:00:00.000Z","what":"join","endpoint":"ben","device":"","event":2}
//! {"at":"2026-11-27T18:00:03.117Z","what":"publish","endpoint":"ben","device":"","stream":"ben-1","event":3}
//! {"at":"2026-11-27T18:00:03.118Z","what":"describe","endpoint":"ben","device":"","stream":{"stream_id":"ben-1","type":"camera"}}
//! {"at":"2026-11-27T18:20:41.920Z","what":"unpublish","endpoint":"ben","device":"","stream":"ben-1","event":9}
//! ```
//!
//! `event` is the event's number in the room. A line without it was found out from a dump: it is so
//! since that time at the latest. Where the connection was lost and the session went on nothing is
//! missing; where it could not, a line `gap` says that what came and went meanwhile is not known.

mod client;

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::SystemTime,
};

use clap::Parser;
use client::{Client, Happening, Place, text};
use serde_json::{Value, json};

/// Writes down who published what when.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    place: Place,
    /// Where to write it, behind what is there.
    #[arg(long)]
    file: PathBuf,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let said = match OpenOptions::new()
        .create(true)
        .append(true)
        .open(&flags.file)
    {
        Ok(file) => Recorder::new(file).record(Client::new(flags.place, "recorder")),
        Err(error) => error.to_string(),
    };
    // It records until it must not any more.
    let _ = writeln!(io::stderr(), "recorder: {said}");
    ExitCode::FAILURE
}

/// What is known of one member.
#[derive(Default)]
struct Member {
    device: String,
    /// What it publishes: the `stream_id`, and the description once that is known.
    stream: Option<(String, Value)>,
}

struct Recorder {
    file: File,
    /// By endpoint.
    members: BTreeMap<String, Member>,
    /// It has been in the room before.
    has_joined: bool,
}

impl Recorder {
    fn new(file: File) -> Self {
        Self {
            file,
            members: BTreeMap::new(),
            has_joined: false,
        }
    }

    /// Records for as long as it can; why it cannot any more.
    fn record(mut self, mut client: Client) -> String {
        loop {
            let happening = match client.next() {
                Ok(happening) => happening,
                Err(stop) => return stop.to_string(),
            };
            if let Err(error) = self.note(happening, &mut client) {
                return error.to_string();
            }
        }
    }

    fn note(&mut self, happening: Happening, client: &mut Client) -> io::Result<()> {
        match happening {
            Happening::Joined { resumed: true } | Happening::Nothing => {}
            Happening::Joined { resumed: false } => {
                if self.has_joined {
                    self.write(json!({"what": "gap"}))?;
                }
                self.has_joined = true;
                client.ask("channel.dump", json!({}));
            }
            Happening::Event { number, name, data } => match name.as_str() {
                "endpoint" => self.presence(number, &data)?,
                "stream" => {
                    self.publication(number, &data)?;
                    // The event does not say what kind of a stream it is.
                    if data["stat"] == "publish" {
                        client.ask("channel.dump", json!({}));
                    }
                }
                _ => {}
            },
            Happening::Answer { data, .. } => self.compare(&data["endpoint_list"])?,
            Happening::Refused { method, refusal } => {
                let (err, message) = (refusal.err, refusal.message);
                writeln!(io::stderr(), "recorder: {method}: {err} {message}")?;
            }
        }
        Ok(())
    }

    /// Somebody came or went.
    fn presence(&mut self, number: u64, data: &Value) -> io::Result<()> {
        let endpoint = text(&data["endpoint"]);
        if data["stat"] == "join" {
            let device = text(&data["device"]);
            let stream = None;
            self.members.insert(endpoint, Member { device, stream });
        } else {
            self.members.remove(&endpoint);
        }
        self.write(json!({
            "what": data["stat"], "endpoint": data["endpoint"], "device": data["device"],
            "event": number,
        }))
    }

    /// Somebody publishes, or does not any more.
    fn publication(&mut self, number: u64, data: &Value) -> io::Result<()> {
        let member = self.members.entry(text(&data["endpoint"])).or_default();
        member.device = text(&data["device"]);
        let is_there = data["stat"] == "publish";
        member.stream = is_there.then(|| (text(&data["stream"]), Value::Null));
        self.write(json!({
            "what": data["stat"], "endpoint": data["endpoint"], "device": data["device"],
            "stream": data["stream"], "event": number,
        }))
    }

    /// A dump says how the room is at this point of its events: what differs from what is known
    /// happened while nobody told.
    fn compare(&mut self, list: &Value) -> io::Result<()> {
        let rows = list.as_array().map(Vec::as_slice).unwrap_or_default();
        let found: BTreeMap<String, Member> = rows.iter().map(member).collect();
        let known = std::mem::replace(&mut self.members, found);
        let mut lines = Vec::new();
        for (endpoint, was) in &known {
            let is = self.members.get(endpoint);
            if let Some((id, _)) = &was.stream
                && is.and_then(Member::stream_id) != Some(id)
            {
                lines.push(was.line("unpublish", endpoint, Some(json!(id))));
            }
            if is.is_none() {
                lines.push(was.line("leave", endpoint, None));
            }
        }
        for (endpoint, is) in &self.members {
            let was = known.get(endpoint);
            if was.is_none() {
                lines.push(is.line("join", endpoint, None));
            }
            let Some((id, description)) = &is.stream else {
                continue;
            };
            let before = was.and_then(|was| was.stream.as_ref());
            if before.is_none_or(|(was, _)| was != id) {
                lines.push(is.line("publish", endpoint, Some(json!(id))));
            }
            if before.is_none_or(|(was, known)| was != id || known != description) {
                lines.push(is.line("describe", endpoint, Some(description.clone())));
            }
        }
        lines.into_iter().try_for_each(|line| self.write(line))
    }

    /// Writes a line, at once and whole.
    fn write(&mut self, mut line: Value) -> io::Result<()> {
        line["at"] = humantime::format_rfc3339_millis(SystemTime::now())
            .to_string()
            .into();
        self.file.write_all(format!("{line}\n").as_bytes())
    }
}

/// A row of a dump: who it is, and what is known of it.
fn member(row: &Value) -> (String, Member) {
    let stream = row.get("stream");
    let stream = stream.map(|stream| (text(&stream["stream_id"]), stream.clone()));
    let device = text(&row["device"]);
    (text(&row["endpoint"]), Member { device, stream })
}

impl Member {
    fn stream_id(&self) -> Option<&String> {
        self.stream.as_ref().map(|(id, _)| id)
    }

    /// A line that was found out from a dump.
    fn line(&self, what: &str, endpoint: &str, stream: Option<Value>) -> Value {
        let mut line = json!({"what": what, "endpoint": endpoint, "device": self.device});
        if let Some(stream) = stream {
            line["stream"] = stream;
        }
        line
    }
}

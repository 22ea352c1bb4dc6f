//! A relayer that relays nothing by itself, but prints for each stream of a room the command line
//! that would: a shell may run them, a line at a time.
//!
//! ```sh
//! cargo run --example relayer -- --app demo --channel lobby --endpoint relayer-1 \
//!     --target rtsp://relay.example.org/live
//! ```
//!
//! ```text
//! ffmpeg -rtsp_transport tcp -i 'rtsp://127.0.0.1:8554/ben-1' -c copy -f rtsp 'rtsp://relay.example.org/live/ben-1'
//! # ben-1 of ben has ended
//! ```
//!
//! A stream that is published again, or that has moved with its room to another media server, is
//! printed again: whatever relayed it before has lost its source.

mod client;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use client::{Client, Happening, Place, text};
use serde_json::{Value, json};

/// How long to wait before asking again for a media server where there is none.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Prints a command for each stream of a room.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    place: Place,
    /// Where the streams go: each behind this address and a slash.
    #[arg(long)]
    target: String,
    /// The target's format, as ffmpeg calls it.
    #[arg(long, default_value = "rtsp")]
    format: String,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let mut client = Client::new(flags.place, "relayer");
    let mut relayer = Relayer {
        target: flags.target,
        format: flags.format,
        source: None,
        streams: BTreeMap::new(),
        ask_at: None,
    };
    let said = loop {
        match client.next() {
            Ok(happening) => match relayer.note(happening, &mut client) {
                Ok(()) => {}
                Err(error) => break error.to_string(),
            },
            Err(stop) => break stop.to_string(),
        }
    };
    let _ = writeln!(io::stderr(), "relayer: {said}");
    ExitCode::FAILURE
}

struct Relayer {
    target: String,
    format: String,
    /// The rtsp address of the room's media server, once it is known.
    source: Option<String>,
    /// What each endpoint publishes.
    streams: BTreeMap<String, String>,
    /// When to ask again for a media server.
    ask_at: Option<Instant>,
}

impl Relayer {
    fn note(&mut self, happening: Happening, client: &mut Client) -> io::Result<()> {
        match happening {
            Happening::Joined { resumed } => {
                // The address first: without it nothing can be printed.
                ask_for_source(client);
                if !resumed {
                    client.ask("channel.dump", json!({}));
                }
            }
            Happening::Answer { method, data } => match method {
                "media_server.dump" => self.comes_from(&data["media_server"]["rtsp"])?,
                _ => self.compare(&data["endpoint_list"])?,
            },
            Happening::Refused { refusal, .. } => {
                let (err, message) = (refusal.err, refusal.message);
                writeln!(io::stderr(), "relayer: {err} {message}")?;
                self.ask_at = Some(Instant::now() + ASK_AGAIN);
            }
            Happening::Event { name, data, .. } => match name.as_str() {
                "stream" => self.publication(&data)?,
                "error" if data["type"] == "media_server_down" => {
                    // Even if it is the same again: whoever relayed from it has lost it.
                    self.source = None;
                    ask_for_source(client);
                }
                _ => {}
            },
            Happening::Nothing => {
                if self.ask_at.is_some_and(|at| at <= Instant::now()) {
                    self.ask_at = None;
                    ask_for_source(client);
                }
            }
        }
        Ok(())
    }

    /// The room's media server is this one: where it is another, everything is printed again.
    fn comes_from(&mut self, rtsp: &Value) -> io::Result<()> {
        let Some(rtsp) = rtsp.as_str() else {
            return writeln!(
                io::stderr(),
                "relayer: the media server has no rtsp address"
            );
        };
        if self.source.as_deref() == Some(rtsp) {
            return Ok(());
        }
        self.source = Some(rtsp.to_owned());
        self.streams.values().try_for_each(|id| self.print(id))
    }

    fn publication(&mut self, data: &Value) -> io::Result<()> {
        let (endpoint, id) = (text(&data["endpoint"]), text(&data["stream"]));
        if data["stat"] == "publish" {
            self.print(&id)?;
            self.streams.insert(endpoint, id);
        } else if let Some(id) = self.streams.remove(&endpoint) {
            ended(&endpoint, &id)?;
        }
        Ok(())
    }

    /// What a dump shows and is not known yet is printed; what it does not show has ended.
    fn compare(&mut self, list: &Value) -> io::Result<()> {
        let rows = list.as_array().map(Vec::as_slice).unwrap_or_default();
        let is = rows.iter().filter_map(|row| {
            let stream = row.get("stream")?;
            Some((text(&row["endpoint"]), text(&stream["stream_id"])))
        });
        let was = std::mem::replace(&mut self.streams, is.collect());
        for (endpoint, id) in &was {
            if self.streams.get(endpoint) != Some(id) {
                ended(endpoint, id)?;
            }
        }
        for (endpoint, id) in &self.streams {
            if was.get(endpoint) != Some(id) {
                self.print(id)?;
            }
        }
        Ok(())
    }

    /// Prints a stream's command, if it is known where the stream comes from.
    fn print(&self, id: &str) -> io::Result<()> {
        let Some(source) = &self.source else {
            return Ok(());
        };
        let Some(segment) = path_segment(id) else {
            return writeln!(io::stdout(), "# a URL cannot name the stream {id:?}");
        };
        let at = |base: &str| quoted(&format!("{}/{segment}", base.trim_end_matches('/')));
        let format = quoted(&self.format);
        writeln!(
            io::stdout(),
            "ffmpeg -rtsp_transport tcp -i {} -c copy -f {format} {}",
            at(source),
            at(&self.target)
        )
    }
}

fn ask_for_source(client: &mut Client) {
    client.ask("media_server.dump", json!({"protocol": "rtsp"}));
}

/// A comment of one line, since names have no control characters.
fn ended(endpoint: &str, id: &str) -> io::Result<()> {
    writeln!(io::stdout(), "# {id} of {endpoint} has ended")
}

/// The name as one segment of a URL's path (RFC 3986 section 3.3); `None` where that has another
/// meaning there.
fn path_segment(name: &str) -> Option<String> {
    if matches!(name, "." | "..") {
        return None;
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escaped = name.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    Some(escaped.collect())
}

/// The text as one word of a POSIX shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

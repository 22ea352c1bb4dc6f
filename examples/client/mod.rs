//! A member of one room, over as many connections as it takes: it comes back by itself after
//! everything after which the protocol lets a client come back, and goes on with its session where
//! it can. What it is asked to ask must change nothing (channel.dump, media_server.dump), because
//! whatever is unanswered when a connection ends is asked again over the next one.
//!
//! Everything happens in [`Client::next`], on the caller's thread. It speaks `ws://` alone.

mod backoff;
mod connection;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use thiserror::Error;

use backoff::Backoff;
use connection::{Connection, Heard};

/// The server pings every ten seconds; three times that without a word is a lost connection.
const SILENCE: Duration = Duration::from_secs(30);

/// How long a join may take to be answered.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Where to be, and as whom.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Place {
    /// The server's WebSocket.
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws")]
    url: String,
    /// The app.
    #[arg(long)]
    app: String,
    /// The room's channel.
    #[arg(long)]
    channel: String,
    /// Who to be there.
    #[arg(long)]
    endpoint: String,
    /// A token, where the server wants one. From the environment: everybody sees a command line.
    #[arg(skip = std::env::var("MEETING_TOKEN").ok())]
    token: Option<String>,
}

/// What can happen to a member.
#[derive(Debug)]
#[allow(dead_code, reason = "not every example looks at all of it")]
pub(crate) enum Happening {
    /// It is in the room. Where it went on with its session it will be told all that it missed;
    /// where not, it knows nothing of what happened meanwhile.
    Joined {
        /// Whether it went on.
        resumed: bool,
    },
    /// Its question was answered.
    Answer {
        /// The question.
        method: &'static str,
        /// The answer.
        data: Value,
    },
    /// Its question was refused.
    Refused {
        /// The question.
        method: &'static str,
        /// Why: one of the protocol's codes, and a sentence.
        refusal: Refusal,
    },
    /// An event of the room, or an error event.
    Event {
        /// Its number in the room; 0 for an error event.
        number: u64,
        /// Its name.
        name: String,
        /// What it says.
        data: Value,
    },
    /// Nothing, for about a second.
    Nothing,
}

/// An `err` and its sentence.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) err: u64,
    pub(crate) message: String,
}

/// Why there is no coming back.
#[derive(Debug, Error)]
pub(crate) enum Stop {
    /// Another client has this endpoint now.
    #[error("another connection has taken this endpoint's place (4001)")]
    Replaced,
    /// An operator does not want it here.
    #[error("removed by an operator (4003)")]
    Removed,
    /// The join was refused, and would be again.
    #[error("the join was refused: {err} {message}", err = .0.err, message = .0.message)]
    Refused(Refusal),
    /// The server closed for a reason that lies in this client.
    #[error("the server closed the connection with {0}")]
    Closed(u16),
    /// The upgrade was refused, and would be again.
    #[error("the upgrade was refused with HTTP status {0}")]
    Http(u16),
    /// The URL is none.
    #[error("{0} is no ws:// URL of a WebSocket")]
    Url(String),
}

/// How a connection ended.
enum Ended {
    /// Come back, after so long at least where the server has said so.
    Again(Option<Duration>),
    /// Do not.
    For(Stop),
}

/// See the module's text.
pub(crate) struct Client {
    place: Place,
    role: &'static str,
    connection: Option<Connection>,
    backoff: Backoff,
    /// "" until the first join.
    session: String,
    /// The number of the last event that was heard.
    last_event: u64,
    /// Rises over all connections of a session.
    next_cseq: u64,
    /// Questions without an answer, by their `cseq`.
    unanswered: BTreeMap<u64, (&'static str, Value)>,
    /// When the server, going down, wants this client back.
    retry_after: Option<Duration>,
}

impl Client {
    /// One that is not connected yet.
    pub(crate) fn new(place: Place, role: &'static str) -> Self {
        Self {
            place,
            role,
            connection: None,
            backoff: Backoff::default(),
            session: String::new(),
            last_event: 0,
            next_cseq: 1,
            unanswered: BTreeMap::new(),
            retry_after: None,
        }
    }

    /// Asks something; [`Client::next`] brings the answer.
    pub(crate) fn ask(&mut self, method: &'static str, data: Value) {
        let cseq = self.send(method, &data);
        self.unanswered.insert(cseq, (method, data));
    }

    /// Waits for what happens next, and connects and joins before it where need be.
    ///
    /// # Errors
    /// [`Stop`]: this client must not come back by itself.
    pub(crate) fn next(&mut self) -> Result<Happening, Stop> {
        loop {
            let happened = match self.connection {
                None => self.join(),
                Some(_) => self.listen(),
            };
            match happened {
                Ok(happening) => return Ok(happening),
                Err(Ended::For(stop)) => return Err(stop),
                // Dropped without a close frame: the member stays in the room for a while.
                Err(Ended::Again(after)) => {
                    self.connection = None;
                    self.backoff.wait(after);
                }
            }
        }
    }

    /// Connects and joins; with the session, where there is one.
    fn join(&mut self) -> Result<Happening, Ended> {
        self.retry_after = None;
        self.connection = Some(Connection::open(&self.place.url, &self.place.channel)?);
        let data = json!({
            "app": self.place.app,
            "channel": self.place.channel,
            "endpoint": self.place.endpoint,
            "role": self.role,
            "token": self.place.token,
            "last_event": self.last_event,
        });
        let cseq = self.send("channel.join", &data);
        let begun = Instant::now();
        let answer = loop {
            match self.hear()? {
                // No event comes before the answer, but an error event may.
                Some(message) if message.get("err").is_some() && message["cseq"] == cseq => {
                    break message;
                }
                _ if begun.elapsed() > JOIN_TIMEOUT => return Err(Ended::Again(None)),
                _ => {}
            }
        };
        if let Some(refusal) = refusal(&answer) {
            return Err(match refusal.err {
                // Full, or going down: later, perhaps.
                429 | 503 => Ended::Again(None),
                _ => Ended::For(Stop::Refused(refusal)),
            });
        }
        let data = &answer["data"];
        let resumed = data["resumed"] == true;
        if !resumed {
            self.session = text(&data["session"]);
            self.last_event = data["last_event"].as_u64().unwrap_or_default();
        }
        self.backoff.joined();
        for (method, data) in std::mem::take(&mut self.unanswered).into_values() {
            self.ask(method, data);
        }
        Ok(Happening::Joined { resumed })
    }

    fn listen(&mut self) -> Result<Happening, Ended> {
        let Some(message) = self.hear()? else {
            return Ok(Happening::Nothing);
        };
        if let Some(event) = message["event"].as_str() {
            let number = message["cseq"].as_u64().unwrap_or_default();
            self.last_event = self.last_event.max(number);
            return Ok(Happening::Event {
                number,
                name: event.to_owned(),
                data: message["data"].clone(),
            });
        }
        let asked = message["cseq"].as_u64();
        match asked.and_then(|cseq| self.unanswered.remove(&cseq)) {
            None => Ok(Happening::Nothing),
            Some((method, _)) => Ok(match refusal(&message) {
                Some(refusal) => Happening::Refused { method, refusal },
                None => Happening::Answer {
                    method,
                    data: message["data"].clone(),
                },
            }),
        }
    }

    /// The next message; `None` where none comes for a second.
    fn hear(&mut self) -> Result<Option<Value>, Ended> {
        let Some(connection) = &mut self.connection else {
            return Err(Ended::Again(None));
        };
        match connection.hear()? {
            Heard::Message(message) => {
                let data = &message["data"];
                if message["event"] == "error" && data["type"] == "server_shutdown" {
                    let millis = data["retry_after_ms"].as_u64();
                    self.retry_after = millis.map(Duration::from_millis);
                }
                Ok(Some(message))
            }
            Heard::Close(code) => Err(self.closed(code)),
            Heard::Nothing if connection.silence() > SILENCE => Err(Ended::Again(None)),
            Heard::Nothing => Ok(None),
        }
    }

    /// What a close frame of the server asks for.
    fn closed(&self, code: u16) -> Ended {
        match code {
            1001 => Ended::Again(Some(self.retry_after.unwrap_or_else(backoff::spread))),
            4002 | 4004 => Ended::Again(None),
            4001 => Ended::For(Stop::Replaced),
            4003 => Ended::For(Stop::Removed),
            1002 | 1003 | 1007..=1009 => Ended::For(Stop::Closed(code)),
            // A proxy's, or none that is known: as if the connection had been lost.
            _ => Ended::Again(None),
        }
    }

    /// Sends a request, if there is a connection; the `cseq` that it has. Where it does not go
    /// through, the connection ends, which [`Client::next`] finds out.
    fn send(&mut self, method: &str, data: &Value) -> u64 {
        let cseq = self.next_cseq;
        self.next_cseq += 1;
        if let Some(connection) = &mut self.connection {
            connection.say(&json!({
                "version": 0, "cseq": cseq, "method": method, "session": self.session, "data": data,
            }));
        }
        cseq
    }
}

fn refusal(answer: &Value) -> Option<Refusal> {
    let err = answer["err"].as_u64().filter(|err| *err != 0)?;
    let message = text(&answer["err_msg"]);
    Some(Refusal { err, message })
}

/// A string of a message; "" where there is none.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

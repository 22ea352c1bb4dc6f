//! What the server says, read no further than the benches need.

use serde::Deserialize;
use serde_json::{json, value::RawValue};

/// An answer or an event.
#[derive(Debug, Deserialize)]
pub struct Message<'a> {
    /// The request's number, or the event's.
    pub cseq: u64,
    /// Of an event.
    pub event: Option<&'a str>,
    /// Of an answer: 0, or why not.
    pub err: Option<u16>,
    /// Of an event: whom it is for.
    pub session: Option<&'a str>,
    /// The rest.
    #[serde(borrow)]
    pub data: &'a RawValue,
}

/// The answer to a join.
#[derive(Debug, Deserialize)]
pub struct Joined {
    /// Who one is.
    pub session: String,
    /// The number of the room's last event.
    pub last_event: u64,
    /// Whether the session goes on.
    pub resumed: bool,
    /// Then: the number of its last request.
    pub last_cseq: Option<u64>,
}

/// A join.
#[derive(Clone, Copy, Debug)]
pub struct Join<'a> {
    /// The room, among those of an app of the benches' own.
    pub channel: &'a str,
    /// Who one wants to be.
    pub endpoint: &'a str,
    /// The session to go on with, or "".
    pub session: &'a str,
    /// The last event that is known, where event numbers are understood.
    pub last_event: Option<u64>,
}

impl Join<'_> {
    /// As a request.
    pub fn request(&self, cseq: u64) -> String {
        let mut data = json!({
            "app": "bench", "channel": self.channel, "endpoint": self.endpoint, "role": "normal",
        });
        if let Some(number) = self.last_event {
            data["last_event"] = number.into();
        }
        request(cseq, "channel.join", self.session, &data.to_string())
    }
}

/// A request with this `data`, which is JSON.
pub fn request(cseq: u64, method: &str, session: &str, data: &str) -> String {
    format!(
        r#"{{"version":0,"cseq":{cseq},"method":"{method}","session":"{session}","data":{data}}}"#
    )
}

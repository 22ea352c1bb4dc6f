//! What the server says unasked.
//!
//! A room's event is written once for all who receive it: everything but the receiver's own
//! `session` is the same for all, and that has the same length for all, so even the frame header
//! is. Receivers that understand event numbers get the number as `cseq`, the others 0: two texts
//! at most.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    error::ErrorType,
    frame::TextFrame,
    json::{write_number, write_string},
};
use crate::ids::{Device, Endpoint, SessionId, StreamId};

/// Who an event is about, with its JSON ready-made, since every broadcast repeats it.
#[derive(Debug, PartialEq, Eq)]
pub struct Who {
    endpoint: Endpoint,
    device: Device,
    /// `"device":"…","endpoint":"…"`, without braces.
    json: Box<[u8]>,
}

impl Who {
    /// A member's names.
    pub fn new(endpoint: Endpoint, device: Device) -> Arc<Self> {
        let mut json = Vec::with_capacity(32 + endpoint.as_str().len() + device.as_str().len());
        json.extend_from_slice(b"\"device\":");
        write_string(device.as_str(), &mut json);
        json.extend_from_slice(b",\"endpoint\":");
        write_string(endpoint.as_str(), &mut json);
        Arc::new(Self {
            endpoint,
            device,
            json: json.into_boxed_slice(),
        })
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The device it runs on.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

/// The payload of a broadcast: a JSON object, byte for byte as it was sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl std::fmt::Debug for Payload {
    // What people say to each other stays out of every print.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

/// Something that happened in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomEvent {
    /// `{"device":"","endpoint":"anna","stat":"join"}`
    Join(Arc<Who>),
    /// `{"device":"","endpoint":"anna","stat":"leave"}`
    Leave(Arc<Who>),
    /// `{"device":"","endpoint":"anna","stream":"s1","stat":"publish"}`
    Publish(Arc<Who>, StreamId),
    /// `{"device":"","endpoint":"anna","stream":"s1","stat":"unpublish"}`
    Unpublish(Arc<Who>, StreamId),
    /// `{"source_endpoint":{"device":"","endpoint":"anna"},"payload":{…}}`
    Broadcast(Arc<Who>, Payload),
}

impl RoomEvent {
    /// The event's name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Join(_) | Self::Leave(_) => "endpoint",
            Self::Publish(..) | Self::Unpublish(..) => "stream",
            Self::Broadcast(..) => "broadcast",
        }
    }

    /// Writes the event, which happened at `at`, under `cseq`: the room's event number, or 0.
    pub fn encode(&self, cseq: u64, at: Instant) -> EventFrame {
        let (Self::Join(who)
        | Self::Leave(who)
        | Self::Publish(who, _)
        | Self::Unpublish(who, _)
        | Self::Broadcast(who, _)) = self;
        let extra = match self {
            Self::Broadcast(_, payload) => payload.0.len(),
            _ => 0,
        };
        let mut frame = TextFrame::with_capacity(160 + who.json.len() + extra);
        let out = frame.payload();
        out.extend_from_slice(b"{\"version\":0,\"cseq\":");
        write_number(cseq, out);
        out.extend_from_slice(b",\"event\":\"");
        out.extend_from_slice(self.name().as_bytes());
        out.extend_from_slice(b"\",\"session\":\"");
        let session_from_payload = frame.payload_len();
        let out = frame.payload();
        out.extend_from_slice(b"\",\"data\":{");
        match self {
            Self::Join(_) => stat(who, "join", out),
            Self::Leave(_) => stat(who, "leave", out),
            Self::Publish(_, stream) => stream_stat(who, stream, "publish", out),
            Self::Unpublish(_, stream) => stream_stat(who, stream, "unpublish", out),
            Self::Broadcast(_, payload) => {
                out.extend_from_slice(b"\"source_endpoint\":{");
                out.extend_from_slice(&who.json);
                out.extend_from_slice(b"},\"payload\":");
                out.extend_from_slice(&payload.0);
            }
        }
        out.extend_from_slice(b"}}");
        let payload = frame.payload_len();
        let bytes = frame.finish(SessionId::LEN);
        let header = bytes.len() - payload;
        EventFrame {
            at,
            split: header + session_from_payload,
            bytes,
        }
    }
}

fn stat(who: &Who, stat: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&who.json);
    out.extend_from_slice(b",\"stat\":\"");
    out.extend_from_slice(stat.as_bytes());
    out.push(b'"');
}

fn stream_stat(who: &Who, stream: &StreamId, stat: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&who.json);
    out.extend_from_slice(b",\"stream\":");
    write_string(stream.as_str(), out);
    out.extend_from_slice(b",\"stat\":\"");
    out.extend_from_slice(stat.as_bytes());
    out.push(b'"');
}

/// A room's event as one WebSocket frame with a gap for the receiver's session.
#[derive(Debug)]
pub struct EventFrame {
    bytes: Vec<u8>,
    /// Where the session goes.
    split: usize,
    at: Instant,
}

impl EventFrame {
    /// The frame's header and text up to the receiver's session.
    pub fn before_session(&self) -> &[u8] {
        &self.bytes[..self.split]
    }

    /// The rest of the text.
    pub fn after_session(&self) -> &[u8] {
        &self.bytes[self.split..]
    }

    /// When it happened.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// How many bytes a receiver gets.
    pub fn size(&self) -> usize {
        self.bytes.len() + SessionId::LEN
    }
}

/// An error event: it belongs to one connection, so its `cseq` is always 0. `session` is the
/// connection's, "" before a join.
///
/// ```json
/// {"version":0,"cseq":0,"event":"error","session":"…","data":{"type":"bad_message",
///  "message":"…"}}
/// ```
pub fn error(session: Option<SessionId>, kind: ErrorType, message: &str) -> Vec<u8> {
    let mut frame = begin_error(session, kind, message);
    frame.payload().extend_from_slice(b"}}");
    frame.finish(0)
}

/// The error event `server_shutdown`, which also says when to come back, in milliseconds.
pub fn server_shutdown(session: Option<SessionId>, retry_after_ms: u64) -> Vec<u8> {
    let mut frame = begin_error(
        session,
        ErrorType::ServerShutdown,
        "the server shuts down; connect again after retry_after_ms",
    );
    let out = frame.payload();
    out.extend_from_slice(b",\"retry_after_ms\":");
    write_number(retry_after_ms, out);
    out.extend_from_slice(b"}}");
    frame.finish(0)
}

fn begin_error(session: Option<SessionId>, kind: ErrorType, message: &str) -> TextFrame {
    let mut frame = TextFrame::with_capacity(160 + message.len());
    let out = frame.payload();
    out.extend_from_slice(b"{\"version\":0,\"cseq\":0,\"event\":\"error\",\"session\":\"");
    if let Some(session) = session {
        out.extend_from_slice(session.as_bytes());
    }
    out.extend_from_slice(b"\",\"data\":{\"type\":\"");
    out.extend_from_slice(kind.as_str().as_bytes());
    out.extend_from_slice(b"\",\"message\":");
    write_string(message, out);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(event: &RoomEvent, cseq: u64, session: SessionId) -> String {
        let frame = event.encode(cseq, Instant::now());
        let mut bytes = frame.before_session().to_vec();
        bytes.extend_from_slice(session.as_bytes());
        bytes.extend_from_slice(frame.after_session());
        assert_eq!(bytes.len(), frame.size());
        let (header, len) = match bytes[1] {
            126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            len => (2, usize::from(len)),
        };
        assert_eq!(bytes.len(), header + len, "the header counts the session");
        String::from_utf8(bytes[header..].to_vec()).unwrap()
    }

    #[test]
    fn the_exact_text_of_each_event() {
        let who = Who::new(Endpoint::new("a\"b").unwrap(), Device::new("d").unwrap());
        let stream = StreamId::new("s1").unwrap();
        let session = SessionId::generate();
        let expect = |name: &str, cseq: u64, data: &str| {
            format!(
                r#"{{"version":0,"cseq":{cseq},"event":"{name}","session":"{}","data":{data}}}"#,
                session.as_str()
            )
        };
        assert_eq!(
            text(&RoomEvent::Join(who.clone()), 0, session),
            expect(
                "endpoint",
                0,
                r#"{"device":"d","endpoint":"a\"b","stat":"join"}"#
            )
        );
        assert_eq!(
            text(&RoomEvent::Leave(who.clone()), 12, session),
            expect(
                "endpoint",
                12,
                r#"{"device":"d","endpoint":"a\"b","stat":"leave"}"#
            )
        );
        assert_eq!(
            text(&RoomEvent::Publish(who.clone(), stream.clone()), 1, session),
            expect(
                "stream",
                1,
                r#"{"device":"d","endpoint":"a\"b","stream":"s1","stat":"publish"}"#
            )
        );
        assert_eq!(
            text(
                &RoomEvent::Unpublish(who.clone(), stream),
                u64::MAX,
                session
            ),
            expect(
                "stream",
                u64::MAX,
                r#"{"device":"d","endpoint":"a\"b","stream":"s1","stat":"unpublish"}"#
            )
        );
        let payload = r#"{ "z": 1.50, "a":"\ud800" }"#;
        assert_eq!(
            text(
                &RoomEvent::Broadcast(who, Payload(Bytes::from_static(payload.as_bytes()))),
                3,
                session
            ),
            expect(
                "broadcast",
                3,
                &format!(
                    r#"{{"source_endpoint":{{"device":"d","endpoint":"a\"b"}},"payload":{payload}}}"#
                )
            )
        );
    }

    #[test]
    fn an_error_event_before_a_join_has_no_session() {
        let frame = error(None, ErrorType::BadMessage, "no");
        assert_eq!(
            std::str::from_utf8(&frame[2..]).unwrap(),
            r#"{"version":0,"cseq":0,"event":"error","session":"","data":{"type":"bad_message","message":"no"}}"#
        );
    }
}

//! What the server says unasked.
//!
//! A room's event is written once for all who are sent it, now or when they come back: see
//! [`EventFrame`].

use std::{rc::Rc, time::Instant};

use bytes::{Buf, BufMut, Bytes};
use smallvec::SmallVec;

use super::{
    error::ErrorType,
    frame::{self, TextFrame},
    json::{write_number, write_string},
};
use crate::{
    census::{Counted, Object},
    ids::{Device, Endpoint, SessionId, StreamId},
};

/// Who an event is about, with its JSON ready-made, since every broadcast repeats it.
#[derive(Debug, PartialEq, Eq)]
pub struct Who {
    endpoint: Endpoint,
    device: Device,
    /// `"device":"…","endpoint":"…"`, without braces; a usual one needs no memory elsewhere.
    json: SmallVec<[u8; 64]>,
}

impl Who {
    /// A member's names.
    pub fn new(endpoint: Endpoint, device: Device) -> Rc<Self> {
        let mut json = Vec::with_capacity(32 + endpoint.as_str().len() + device.as_str().len());
        json.extend_from_slice(b"\"device\":");
        write_string(device.as_str(), &mut json);
        json.extend_from_slice(b",\"endpoint\":");
        write_string(endpoint.as_str(), &mut json);
        Rc::new(Self {
            endpoint,
            device,
            json: SmallVec::from_slice(&json),
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
    Join(Rc<Who>),
    /// `{"device":"","endpoint":"anna","stat":"leave"}`
    Leave(Rc<Who>),
    /// `{"device":"","endpoint":"anna","stream":"s1","stat":"publish"}`
    Publish(Rc<Who>, StreamId),
    /// `{"device":"","endpoint":"anna","stream":"s1","stat":"unpublish"}`
    Unpublish(Rc<Who>, StreamId),
    /// `{"source_endpoint":{"device":"","endpoint":"anna"},"payload":{…}}`
    Broadcast(Rc<Who>, Payload),
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

    /// Writes the event, the room's `number`th, which happened at `at`.
    pub fn encode(&self, number: u64, at: Instant) -> EventFrame {
        let (Self::Join(who)
        | Self::Leave(who)
        | Self::Publish(who, _)
        | Self::Unpublish(who, _)
        | Self::Broadcast(who, _)) = self;
        let extra = match self {
            Self::Broadcast(_, payload) => payload.0.len(),
            Self::Publish(_, stream) | Self::Unpublish(_, stream) => stream.as_str().len(),
            Self::Join(_) | Self::Leave(_) => 0,
        };
        let mut out = Vec::with_capacity(HEADS + 80 + who.json.len() + extra);
        out.resize(HEADS, 0);
        out.extend_from_slice(b",\"event\":\"");
        out.extend_from_slice(self.name().as_bytes());
        out.extend_from_slice(b"\",\"session\":\"");
        let split = out.len();
        out.extend_from_slice(b"\",\"data\":{");
        match self {
            Self::Join(_) => stat(who, "join", &mut out),
            Self::Leave(_) => stat(who, "leave", &mut out),
            Self::Publish(_, stream) => stream_stat(who, stream, "publish", &mut out),
            Self::Unpublish(_, stream) => stream_stat(who, stream, "unpublish", &mut out),
            Self::Broadcast(_, payload) => {
                out.extend_from_slice(b"\"source_endpoint\":{");
                out.extend_from_slice(&who.json);
                out.extend_from_slice(b"},\"payload\":");
                out.extend_from_slice(&payload.0);
            }
        }
        out.extend_from_slice(b"}}");
        EventFrame::with_heads(out, split, number, at)
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

/// Room for both heads of an event, see [`EventFrame`].
const HEADS: usize = 2 * (frame::MAX_HEADER + CSEQ.len() + MAX_DIGITS);

/// How every event begins.
const CSEQ: &[u8] = b"{\"version\":0,\"cseq\":";

/// The digits of the largest number.
const MAX_DIGITS: usize = 20;

/// A room's event as one WebSocket frame, written once for all who are sent it, now or in a
/// replay.
///
/// Two things differ from receiver to receiver. `session` has the same length for all, so it is a
/// gap in the text. The number does not, and with it the frame's header; so there are two heads,
/// of which each receiver is sent one:
///
/// ```text
/// … │ header {"version":0,"cseq":17 │ header {"version":0,"cseq":0 │ ,"event":…,"session":" ┆ ",…
///   numbered                        plain                          tail                     split
/// ```
#[derive(Debug)]
pub struct EventFrame {
    number: u64,
    at: Instant,
    bytes: Vec<u8>,
    /// Where each part begins; the heads stand at the end of the [`HEADS`] bytes kept for them.
    numbered: u8,
    plain: u8,
    /// Where the session goes.
    split: u32,
    _counted: Counted,
}

impl EventFrame {
    /// Puts the heads in front of a text whose first [`HEADS`] bytes are kept for them.
    fn with_heads(mut bytes: Vec<u8>, split: usize, number: u64, at: Instant) -> Self {
        let tail = bytes.len() - HEADS + SessionId::LEN;
        let plain = prepend_head(&mut bytes[..HEADS], 0, tail);
        let numbered = prepend_head(&mut bytes[..plain], number, tail);
        Self {
            number,
            at,
            bytes,
            numbered: numbered as u8,
            plain: plain as u8,
            split: u32::try_from(split).expect("names are short"),
            _counted: Counted::new(Object::Event),
        }
    }

    /// The room's event number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// When it happened.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Hands its bytes to `to`, piece by piece: with its number as `cseq` for a receiver that
    /// understands event numbers, with 0 for another.
    pub fn pieces(&self, numbered: bool, session: &SessionId, mut to: impl FnMut(&[u8])) {
        let split = self.split as usize;
        if numbered {
            to(&self.bytes[usize::from(self.numbered)..usize::from(self.plain)]);
            to(&self.bytes[HEADS..split]);
        } else {
            to(&self.bytes[usize::from(self.plain)..split]);
        }
        to(session.as_bytes());
        to(&self.bytes[split..]);
    }

    /// How many bytes a receiver gets.
    pub fn size(&self, numbered: bool) -> usize {
        let head = if numbered {
            self.plain - self.numbered
        } else {
            HEADS as u8 - self.plain
        };
        usize::from(head) + self.bytes.len() - HEADS + SessionId::LEN
    }

    /// The text that is the same for all receivers, without the gap, and where the gap is in it.
    /// With the number this is all there is to an event: see [`EventFrame::revive`].
    pub fn tail(&self) -> (&[u8], u32) {
        (&self.bytes[HEADS..], self.split - HEADS as u32)
    }

    /// The frame with this [tail](Self::tail) once more.
    pub fn revive(number: u64, at: Instant, tail: impl Buf, gap: u32) -> Self {
        let mut bytes = Vec::with_capacity(HEADS + tail.remaining());
        bytes.resize(HEADS, 0);
        bytes.put(tail);
        Self::with_heads(bytes, HEADS + gap as usize, number, at)
    }
}

/// Writes a frame's header and text up to its `cseq` to the end of `before`; `tail` bytes follow.
/// Where it begins.
fn prepend_head(before: &mut [u8], cseq: u64, tail: usize) -> usize {
    let mut text = [0; CSEQ.len() + MAX_DIGITS];
    text[..CSEQ.len()].copy_from_slice(CSEQ);
    let mut room = &mut text[CSEQ.len()..];
    write_number(cseq, &mut room);
    let len = CSEQ.len() + MAX_DIGITS - room.len();
    let mut header = [0; frame::MAX_HEADER];
    let header_len = frame::text_header(len + tail, &mut header);
    let start = before.len() - len - header_len;
    before[start..start + header_len].copy_from_slice(&header[..header_len]);
    before[start + header_len..].copy_from_slice(&text[..len]);
    start
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

    /// What a receiver that understands numbers is sent, or, for the number 0, another one.
    fn text(event: &RoomEvent, cseq: u64, session: SessionId) -> String {
        let numbered = cseq > 0;
        let number = if numbered { cseq } else { u64::MAX };
        let frame = event.encode(number, Instant::now());
        let mut bytes = Vec::new();
        frame.pieces(numbered, &session, |piece| bytes.extend_from_slice(piece));
        assert_eq!(bytes.len(), frame.size(numbered));
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
    fn a_frame_of_any_length_has_the_header_that_fits_for_both_heads() {
        let who = Who::new(Endpoint::new("a").unwrap(), Device::default());
        let session = SessionId::generate();
        // Around the lengths at which the header grows, which the two heads reach at different
        // payloads.
        for len in (0..200).chain(65_300..65_500) {
            let payload = format!("{{\"x\":\"{}\"}}", "x".repeat(len));
            let event = RoomEvent::Broadcast(who.clone(), Payload(payload.clone().into()));
            let frame = event.encode(u64::MAX, Instant::now());
            for numbered in [false, true] {
                let mut bytes = Vec::new();
                frame.pieces(numbered, &session, |piece| bytes.extend_from_slice(piece));
                let start = match bytes[1] {
                    126 => 4,
                    127 => 10,
                    _ => 2,
                };
                let mut header = [0; frame::MAX_HEADER];
                let header_len = frame::text_header(bytes.len() - start, &mut header);
                assert_eq!(bytes[..start], header[..header_len]);
                assert!(bytes.ends_with(format!("{payload}}}}}").as_bytes()));
            }
        }
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

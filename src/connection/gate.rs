//! Which frames of a client are let in, decided from each frame's header alone (RFC 6455
//! section 5), pure.
//!
//! actix-http's own codec looks at a length only when the whole frame is there, reports a bad
//! header again and again without getting past it, and does not tell a bad bit from the end of
//! the stream. So nothing reaches it that has not passed here, and it finds nothing wrong.

use std::borrow::Cow;

use actix_http::ws::Codec;
use bytes::Bytes;

use crate::{ending::Ending, protocol::frame::MAX_CONTROL_PAYLOAD};

/// The most fragments of one message. Empty ones cost the sender nothing, and would go on for
/// ever.
pub const MAX_FRAGMENTS: u32 = 1024;

/// Why a client is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule that is broken.
    pub ending: Ending,
    /// What the close frame says of it.
    pub reason: Cow<'static, str>,
}

impl Violation {
    fn new(ending: Ending, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            ending,
            reason: reason.into(),
        }
    }

    fn protocol(reason: &'static str) -> Self {
        Self::new(Ending::BadFrame, reason)
    }
}

/// The gate of one connection.
#[derive(Debug)]
pub struct Gate {
    max_message_bytes: usize,
    /// Bytes and fragments so far of the message whose last fragment has not come.
    unfinished: Option<(usize, u32)>,
}

/// The codec behind a gate. The only payloads that it sees are those of control frames.
pub fn codec() -> Codec {
    Codec::new().max_size(MAX_CONTROL_PAYLOAD)
}

/// A text frame that is a whole message, without its payload: its first byte, the bit that says it is
/// masked, and a mask.
const WHOLE_TEXT: [u8; 6] = [0x80 | TEXT, 0x80, 0, 0, 0, 0];

/// A frame that was let in: where it stands in what has come.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its length, header and all.
    pub len: usize,
    /// Whether it is no part of a message (RFC 6455 section 5.5).
    pub is_control: bool,
    start: usize,
    mask: [u8; 4],
}

impl Admitted {
    /// What it says; `input` is what it was let in from.
    pub fn payload(&self, input: &[u8]) -> Vec<u8> {
        unmasked(&input[self.start..self.len], self.mask)
    }

    /// What the codec is to see of it: of a part of a message no more than what kind of frame it is.
    pub fn shown(&self, input: &[u8]) -> Bytes {
        if self.is_control {
            return Bytes::copy_from_slice(&input[..self.len]);
        }
        let mut shown = WHOLE_TEXT;
        shown[0] = input[0];
        if shown == WHOLE_TEXT {
            Bytes::from_static(&WHOLE_TEXT)
        } else {
            Bytes::copy_from_slice(&shown)
        }
    }
}

struct Header {
    fin: bool,
    opcode: u8,
    /// Where the payload begins.
    start: usize,
    payload: u64,
    mask: [u8; 4],
}

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

impl Gate {
    /// A gate that lets no message over this size in.
    pub fn new(max_message_bytes: usize) -> Self {
        Self {
            max_message_bytes,
            unfinished: None,
        }
    }

    /// The frame with which `input` begins, once all of it is there; `None` until then. It has been
    /// let in: it counts.
    ///
    /// # Errors
    /// A [`Violation`], as early as the header shows it.
    pub fn admit(&mut self, input: &[u8]) -> Result<Option<Admitted>, Violation> {
        let Some(header) = self.header(input)? else {
            return Ok(None);
        };
        let unfinished = self.check(&header)?;
        let Some(end) = usize::try_from(header.payload)
            .ok()
            .and_then(|payload| header.start.checked_add(payload))
            .filter(|end| *end <= input.len())
        else {
            return Ok(None);
        };
        if header.opcode == CLOSE {
            check_close(&input[header.start..end], header.mask)?;
        }
        self.unfinished = unfinished;
        Ok(Some(Admitted {
            len: end,
            is_control: header.opcode >= CLOSE,
            start: header.start,
            mask: header.mask,
        }))
    }

    /// The first frame's header, as soon as it is there. What its first two bytes show to be
    /// wrong is refused without waiting for the rest.
    fn header(&self, input: &[u8]) -> Result<Option<Header>, Violation> {
        let [first, second, rest @ ..] = input else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(Violation::protocol(
                "a reserved bit is set and no extension was agreed on",
            ));
        }
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        match opcode {
            CONTINUATION | TEXT | CLOSE | PING | PONG => {}
            BINARY => {
                return Err(Violation::new(
                    Ending::Binary,
                    "messages are text, not binary",
                ));
            }
            _ => return Err(Violation::protocol("unknown opcode")),
        }
        if second & 0x80 == 0 {
            return Err(Violation::protocol("a client must mask its frames"));
        }
        let short = usize::from(second & 0x7f);
        if opcode >= CLOSE && (!fin || short > MAX_CONTROL_PAYLOAD) {
            return Err(Violation::protocol(
                "a control frame is one frame of at most 125 bytes",
            ));
        }
        let (extended, payload) = match short {
            126 => match rest.first_chunk() {
                Some(len) => (2, u64::from(u16::from_be_bytes(*len))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(len) => (8, u64::from_be_bytes(*len)),
                None => return Ok(None),
            },
            short => (0, short as u64),
        };
        if payload > i64::MAX as u64 {
            return Err(Violation::protocol("a length has 63 bits at most"));
        }
        let minimal = match extended {
            2 => payload > MAX_CONTROL_PAYLOAD as u64,
            8 => payload > u64::from(u16::MAX),
            _ => true,
        };
        if !minimal {
            return Err(Violation::protocol("a length takes as few bytes as it can"));
        }
        // The mask is not needed to judge the length.
        let header = Header {
            fin,
            opcode,
            start: 2 + extended + 4,
            payload,
            mask: rest[extended..].first_chunk().copied().unwrap_or_default(),
        };
        Ok(Some(header))
    }

    /// What is unfinished after this frame.
    fn check(&self, header: &Header) -> Result<Option<(usize, u32)>, Violation> {
        let (bytes, fragments) = match (header.opcode, self.unfinished) {
            (CLOSE | PING | PONG, unfinished) => return Ok(unfinished),
            (CONTINUATION, Some(unfinished)) => unfinished,
            (CONTINUATION, None) => {
                return Err(Violation::protocol("a continuation of nothing"));
            }
            (_, Some(_)) => {
                return Err(Violation::protocol(
                    "a new message before the last fragment of the one before",
                ));
            }
            (_, None) => (0, 0),
        };
        let too_big = |what: String| Err(Violation::new(Ending::TooBig, what));
        let room = (self.max_message_bytes - bytes) as u64;
        if header.payload > room {
            return too_big(format!(
                "a message has at most {} bytes here",
                self.max_message_bytes
            ));
        }
        if fragments >= MAX_FRAGMENTS {
            return too_big(format!("a message has at most {MAX_FRAGMENTS} fragments"));
        }
        if header.fin {
            return Ok(None);
        }
        let bytes = bytes + header.payload as usize;
        Ok(Some((bytes, fragments + 1)))
    }
}

/// A payload without its mask (RFC 6455 section 5.3).
fn unmasked(masked: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut payload = masked.to_vec();
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
    payload
}

/// The payload of a close frame (RFC 6455 section 5.5.1).
fn check_close(masked: &[u8], mask: [u8; 4]) -> Result<(), Violation> {
    match unmasked(masked, mask)[..] {
        [] => Ok(()),
        [_] => Err(Violation::protocol("a close code has two bytes")),
        [high, low, ref reason @ ..] => {
            let code = u16::from_be_bytes([high, low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(Violation::protocol("a close code that must not be sent"));
            }
            if std::str::from_utf8(reason).is_err() {
                return Err(Violation::new(
                    Ending::BadText,
                    "the reason of a close frame must be UTF-8",
                ));
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_http::ws::{Frame, Item};
    use bytes::BytesMut;
    use proptest::prelude::*;
    use tokio_util::codec::Decoder as _;

    use super::*;

    const LIMIT: usize = 1000;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            len @ ..126 => bytes.push(0x80 | len as u8),
            len @ 126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(0x80 | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        bytes
    }

    fn admit(input: &[u8]) -> Result<Option<usize>, Ending> {
        let admitted = Gate::new(LIMIT).admit(input).map_err(|v| v.ending)?;
        Ok(admitted.map(|frame| frame.len))
    }

    #[test]
    fn a_whole_frame_is_let_in_and_a_part_is_waited_for() {
        let whole = frame(0x81, &[b'x'; 300]);
        for len in 0..whole.len() {
            assert_eq!(admit(&whole[..len]), Ok(None), "{len} bytes");
        }
        assert_eq!(admit(&whole), Ok(Some(whole.len())));
        let two = [whole.clone(), whole.clone()].concat();
        assert_eq!(admit(&two), Ok(Some(whole.len())));
    }

    #[test]
    fn a_bad_header_is_refused_at_once() {
        assert_eq!(admit(&[0xc1, 0x80]), Err(Ending::BadFrame), "RSV1");
        assert_eq!(admit(&[0xa1, 0x80]), Err(Ending::BadFrame), "RSV2");
        assert_eq!(admit(&[0x91, 0x80]), Err(Ending::BadFrame), "RSV3");
        assert_eq!(admit(&[0x83, 0x80]), Err(Ending::BadFrame), "opcode");
        assert_eq!(admit(&[0x8b, 0x80]), Err(Ending::BadFrame), "opcode");
        assert_eq!(admit(&[0x81, 0x01]), Err(Ending::BadFrame), "mask");
        assert_eq!(admit(&[0x09, 0x80]), Err(Ending::BadFrame), "half a ping");
        assert_eq!(admit(&[0x89, 0xfe]), Err(Ending::BadFrame), "long ping");
        assert_eq!(admit(&[0x80, 0x80]), Err(Ending::BadFrame), "of nothing");
        assert_eq!(admit(&[0x82, 0x80]), Err(Ending::Binary), "binary");
        assert_eq!(admit(&[0x02, 0x80]), Err(Ending::Binary), "binary");
    }

    #[test]
    fn a_length_is_refused_from_the_header() {
        let announce = |len: u64| {
            let mut header = vec![0x81, 0xff];
            header.extend(len.to_be_bytes());
            header
        };
        assert_eq!(admit(&announce(1 << 16)), Err(Ending::TooBig));
        assert_eq!(admit(&announce(1 << 30)), Err(Ending::TooBig));
        assert_eq!(admit(&announce(1 << 63)), Err(Ending::BadFrame));
        assert_eq!(admit(&announce(u64::MAX)), Err(Ending::BadFrame));
    }

    #[test]
    fn a_length_that_could_be_shorter_is_refused() {
        assert_eq!(admit(&[0x81, 0xfe, 0, 125]), Err(Ending::BadFrame));
        assert_eq!(admit(&[0x81, 0xfe, 0, 126]), Ok(None));
        let mut header = vec![0x81, 0xff];
        header.extend(65_535u64.to_be_bytes());
        assert_eq!(admit(&header), Err(Ending::BadFrame));
    }

    #[test]
    fn the_limit_is_of_the_message_not_of_the_fragment() {
        let mut gate = Gate::new(LIMIT);
        assert!(gate.admit(&frame(0x01, &[0; 600])).is_ok());
        assert!(gate.admit(&frame(0x89, b"ping in between")).is_ok());
        assert!(gate.admit(&frame(0x00, &[0; 400])).is_ok());
        assert_eq!(
            gate.admit(&frame(0x80, &[0])).map_err(|v| v.ending),
            Err(Ending::TooBig)
        );
        assert!(gate.admit(&frame(0x80, &[])).unwrap().is_some());
        assert!(gate.admit(&frame(0x81, &[0; LIMIT])).unwrap().is_some());
    }

    #[test]
    fn an_endless_run_of_empty_fragments_ends() {
        let mut gate = Gate::new(LIMIT);
        let mut first = 0x01;
        let refused = (0..10_000).find_map(|n| {
            let verdict = gate.admit(&frame(first, &[]));
            first = 0x00;
            verdict.err().map(|violation| (n, violation.ending))
        });
        assert_eq!(refused, Some((MAX_FRAGMENTS, Ending::TooBig)));
    }

    #[test]
    fn fragments_follow_each_other() {
        let mut gate = Gate::new(LIMIT);
        assert!(gate.admit(&frame(0x01, b"a")).is_ok());
        assert_eq!(
            gate.admit(&frame(0x81, b"b")).map_err(|v| v.ending),
            Err(Ending::BadFrame)
        );
    }

    #[test]
    fn close_frames_are_looked_into() {
        let close = |payload: &[u8]| admit(&frame(0x88, payload)).map(|len| len.is_some());
        assert_eq!(close(&[]), Ok(true));
        assert_eq!(close(&1000u16.to_be_bytes()), Ok(true));
        assert_eq!(close(&4900u16.to_be_bytes()), Ok(true));
        assert_eq!(close(&[3]), Err(Ending::BadFrame));
        for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
            assert_eq!(close(&code.to_be_bytes()), Err(Ending::BadFrame), "{code}");
        }
        assert_eq!(close(&[3, 232, 0xff]), Err(Ending::BadText));
    }

    proptest! {
        /// Whatever is let in, the codec behind makes of it one message of its kind without a
        /// complaint, and what it says is what was sent.
        #[test]
        fn the_codec_has_nothing_left_to_complain_of(
            input in prop::collection::vec(
                (
                    prop::sample::select(vec![0x81u8, 0x01, 0x80, 0x00, 0x88, 0x89, 0x8a, 0x82, 0xc1]),
                    prop::collection::vec(any::<u8>(), 0..140),
                ),
                0..12,
            ),
            garbage in prop::collection::vec(any::<u8>(), 0..20),
            limit in 1..LIMIT,
        ) {
            let mut gate = Gate::new(limit);
            let mut codec = codec();
            let frames: Vec<_> = input.iter().map(|(first, says)| frame(*first, says)).collect();
            let stream = [frames.concat(), garbage].concat();
            let mut rest = &stream[..];
            let mut sent = input.iter();
            while let Ok(Some(admitted)) = gate.admit(rest) {
                if let Some((_, says)) = sent.next() {
                    prop_assert_eq!(&admitted.payload(rest), says);
                }
                let mut buffer = BytesMut::from(&admitted.shown(rest)[..]);
                let message = codec.decode(&mut buffer);
                let is_its_kind = match (rest[0], &message) {
                    (0x81, Ok(Some(Frame::Text(_))))
                    | (0x01, Ok(Some(Frame::Continuation(Item::FirstText(_)))))
                    | (0x00, Ok(Some(Frame::Continuation(Item::Continue(_)))))
                    | (0x80, Ok(Some(Frame::Continuation(Item::Last(_)))))
                    | (0x88, Ok(Some(Frame::Close(_)))) => true,
                    (0x89, Ok(Some(Frame::Ping(says)))) | (0x8a, Ok(Some(Frame::Pong(says)))) => {
                        *says == admitted.payload(rest)
                    }
                    _ => false,
                };
                prop_assert!(is_its_kind, "{:x} became {:?}", rest[0], message);
                prop_assert_eq!(admitted.is_control, rest[0] & 0x08 != 0);
                prop_assert!(buffer.is_empty());
                rest = &rest[admitted.len..];
            }
        }
    }
}

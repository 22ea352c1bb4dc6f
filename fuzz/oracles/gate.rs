//! The frame gate: what is let in follows RFC 6455, what is refused breaks a rule, and neither
//! depends on how the bytes arrive.

use std::ops::Range;

use actix_http::ws::{Codec, Frame, Item};
use bytes::BytesMut;
use meeting_server::{
    connection::gate::{Admitted, Gate, MAX_FRAGMENTS, Violation, codec},
    ending::Ending,
};
use tokio_util::codec::Decoder;

/// Two bytes of a limit, one that says how the rest is cut, and the bytes of a client.
pub fn check(input: &[u8]) {
    let [high, low, cuts, stream @ ..] = input else {
        return;
    };
    let limit = usize::from(u16::from_be_bytes([*high, *low])) + 1;
    let whole = Passage::of(stream, limit, |_| usize::MAX);
    let mut state = u32::from(*cuts) | 1 << 8;
    let cut = Passage::of(stream, limit, |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state % (u32::from(*cuts) + 2)) as usize + 1
    });
    assert_eq!(cut, whole, "however it is cut");
    if stream.len() <= 2_048 {
        let bytes = Passage::of(stream, limit, |_| 1);
        assert_eq!(bytes, whole, "byte by byte");
    }
    follows_the_rules(stream, limit, &whole);
    leaves_the_codec_nothing_to_complain_of(stream, &whole);
}

/// What became of a stream of bytes.
#[derive(Debug, PartialEq)]
struct Passage {
    /// The frames that were let in, and where they stand.
    frames: Vec<(Range<usize>, Admitted)>,
    /// Why the next one was not; `None` where it has not come whole.
    refused: Option<Violation>,
}

impl Passage {
    /// Hands the bytes to the gate as a connection does: behind each frame that is let in the rest
    /// is offered again, and what is not yet a frame is offered again with more.
    fn of(stream: &[u8], limit: usize, mut next: impl FnMut(usize) -> usize) -> Self {
        let mut gate = Gate::new(limit);
        let mut frames = Vec::new();
        let (mut start, mut arrived) = (0, 0);
        loop {
            match gate.admit(&stream[start..arrived]) {
                Ok(Some(admitted)) => {
                    let range = start..start + admitted.len;
                    assert!(range.len() >= 6, "a header and a mask");
                    start = range.end;
                    frames.push((range, admitted));
                }
                Ok(None) => {
                    let waiting = arrived - start;
                    assert!(
                        waiting < 14 + limit.max(125),
                        "so much need not be waited for"
                    );
                    assert_eq!(
                        gate.admit(&stream[start..arrived]),
                        Ok(None),
                        "asking is free"
                    );
                    if arrived == stream.len() {
                        return Self {
                            frames,
                            refused: None,
                        };
                    }
                    arrived = stream.len().min(arrived.saturating_add(next(arrived)));
                }
                Err(violation) => {
                    let again = gate.admit(&stream[start..arrived]);
                    assert_eq!(again.as_ref(), Err(&violation), "asking is free");
                    assert!(violation.reason.len() <= 123, "it fits into a close frame");
                    return Self {
                        frames,
                        refused: Some(violation),
                    };
                }
            }
        }
    }
}

// ----- the model: RFC 6455, section 5 -----

/// A client's frame, taken apart without a question whether it may be so.
struct Parts {
    fin: bool,
    reserved: u8,
    opcode: u8,
    masked: bool,
    len: u64,
    is_shortest: bool,
    payload: Option<Vec<u8>>,
}

impl Parts {
    /// `None`: the header's length is not there.
    fn of(bytes: &[u8]) -> Option<Self> {
        let (first, second) = (*bytes.first()?, *bytes.get(1)?);
        let (start, len) = match second & 0x7f {
            126 => (
                4,
                u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            ),
            127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
            len => (2, u64::from(len)),
        };
        let least = match start {
            4 => 126,
            10 => 65_536,
            _ => 0,
        };
        let payload = || {
            let mask = bytes.get(start..start + 4)?;
            let end = usize::try_from(len).ok()?.checked_add(start + 4)?;
            let masked = bytes.get(start + 4..end)?.iter().enumerate();
            Some(masked.map(|(at, byte)| byte ^ mask[at % 4]).collect())
        };
        Some(Self {
            fin: first & 0x80 != 0,
            reserved: first >> 4 & 7,
            opcode: first & 15,
            masked: second & 0x80 != 0,
            len,
            is_shortest: len >= least,
            payload: payload(),
        })
    }

    /// How a client that sends this may be sent away. `open`: bytes and fragments of the message
    /// whose end has not come.
    fn broken(&self, limit: usize, open: Option<(u64, u32)>) -> Vec<Ending> {
        let control = self.opcode >= 8;
        let mut broken = Vec::new();
        let mut rule = |holds: bool, ending: Ending| {
            if !holds {
                broken.push(ending);
            }
        };
        rule(self.reserved == 0, Ending::BadFrame);
        rule([0, 1, 2, 8, 9, 10].contains(&self.opcode), Ending::BadFrame);
        rule(self.opcode != 2, Ending::Binary);
        rule(self.masked, Ending::BadFrame);
        rule(self.len >> 63 == 0 && self.is_shortest, Ending::BadFrame);
        rule(!control || (self.fin && self.len <= 125), Ending::BadFrame);
        rule(
            control || (self.opcode == 0) == open.is_some(),
            Ending::BadFrame,
        );
        let (bytes, fragments) = open.unwrap_or_default();
        let fits = self.len.saturating_add(bytes) <= limit as u64;
        rule(
            control || (fits && fragments < MAX_FRAGMENTS),
            Ending::TooBig,
        );
        if let (8, Some(payload)) = (self.opcode, &self.payload) {
            match payload[..] {
                [] => {}
                [_] => rule(false, Ending::BadFrame),
                [high, low, ref reason @ ..] => {
                    let code = u16::from_be_bytes([high, low]);
                    let may_be_sent = match code {
                        1004..=1006 | 1015 => false,
                        1000..=1014 | 3000..=4999 => true,
                        _ => false,
                    };
                    rule(may_be_sent, Ending::BadFrame);
                    rule(std::str::from_utf8(reason).is_ok(), Ending::BadText);
                }
            }
        }
        broken
    }
}

fn follows_the_rules(stream: &[u8], limit: usize, passage: &Passage) {
    let mut open = None;
    let mut end = 0;
    for (range, admitted) in &passage.frames {
        let parts = Parts::of(&stream[range.clone()]).expect("it was let in whole");
        assert_eq!(parts.broken(limit, open), [], "{range:?} was let in");
        assert_eq!(
            Some(admitted.payload(&stream[range.clone()])),
            parts.payload
        );
        assert_eq!(admitted.is_control, parts.opcode >= 8);
        if parts.opcode < 8 {
            let (bytes, fragments) = open.unwrap_or_default();
            open = (!parts.fin).then_some((bytes + parts.len, fragments + 1));
        }
        end = range.end;
    }
    let next = Parts::of(&stream[end..]);
    match (&passage.refused, next) {
        (Some(violation), Some(parts)) => {
            let broken = parts.broken(limit, open);
            assert!(
                broken.contains(&violation.ending),
                "{violation:?}, not {broken:?}"
            );
        }
        // Two bytes can be enough to be refused.
        (Some(violation), None) => {
            assert!(!violation.ending.is_loss());
            assert!(stream.len() >= end + 2, "{violation:?}");
        }
        (None, Some(parts)) => {
            assert_eq!(parts.broken(limit, open), [], "the next is waited for");
            assert!(parts.payload.is_none(), "it is there, and is not let in");
        }
        (None, None) => {}
    }
}

// ----- the codec behind the gate -----

fn leaves_the_codec_nothing_to_complain_of(stream: &[u8], passage: &Passage) {
    let mut codec: Codec = codec();
    for (range, admitted) in &passage.frames {
        let bytes = &stream[range.clone()];
        let parts = Parts::of(bytes).expect("it was let in whole");
        let mut buffer = BytesMut::from(&admitted.shown(bytes)[..]);
        let frame = codec.decode(&mut buffer);
        assert!(buffer.is_empty(), "one frame, and nothing of the next");
        let payload = parts.payload.expect("it was let in whole");
        match (parts.opcode, parts.fin, frame) {
            (1, true, Ok(Some(Frame::Text(_))))
            | (1, false, Ok(Some(Frame::Continuation(Item::FirstText(_)))))
            | (0, false, Ok(Some(Frame::Continuation(Item::Continue(_)))))
            | (0, true, Ok(Some(Frame::Continuation(Item::Last(_)))))
            | (8, true, Ok(Some(Frame::Close(_)))) => {}
            (9, true, Ok(Some(Frame::Ping(said)))) => assert_eq!(said, payload),
            (10, true, Ok(Some(Frame::Pong(said)))) => assert_eq!(said, payload),
            (opcode, _, frame) => panic!("opcode {opcode} became {frame:?}"),
        }
    }
}

//! WebSocket frames (RFC 6455 section 5) as a client needs them, pure.

use std::ops::Range;

/// A text message.
pub const TEXT: u8 = 1;
/// A binary one.
pub const BINARY: u8 = 2;
/// The end.
pub const CLOSE: u8 = 8;
/// Are you there?
pub const PING: u8 = 9;
/// I am.
pub const PONG: u8 = 10;

/// Any will do: what it is for, proxies that take payload for HTTP, is not between us.
const MASK: [u8; 4] = [0x5a, 0x3c, 0x96, 0x0f];

/// Appends a client's frame: whole and masked.
pub fn write(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        len @ ..126 => out.push(0x80 | len as u8),
        len @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
}

/// A server's frame at the beginning of what was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub opcode: u8,
    /// Where its payload stands.
    pub payload: Range<usize>,
}

/// Reads the header of a frame; `None` while not all of the frame is there.
///
/// # Errors
/// A frame that this server never sends: masked, fragmented, or with reserved bits.
pub fn read(input: &[u8]) -> Result<Option<Header>, String> {
    let [first, second, rest @ ..] = input else {
        return Ok(None);
    };
    if first & 0xf0 != 0x80 || second & 0x80 != 0 {
        return Err(format!("a frame that begins with {first:#x} {second:#x}"));
    }
    let (start, len) = match second {
        126 => match rest.first_chunk() {
            Some(len) => (4, u64::from(u16::from_be_bytes(*len))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(len) => (10, u64::from_be_bytes(*len)),
            None => return Ok(None),
        },
        len => (2, u64::from(*len)),
    };
    let len = usize::try_from(len).map_err(|_| format!("a frame of {len} bytes"))?;
    let payload = start..start + len;
    Ok((payload.end <= input.len()).then_some(Header {
        opcode: first & 0xf,
        payload,
    }))
}

//! The WebSocket frames that the server sends (RFC 6455 section 5.2): never masked, never
//! fragmented.

use super::error::CloseCode;

/// Opcodes of RFC 6455 section 5.2 that the server sends.
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FIN: u8 = 0x80;

/// The longest payload of a control frame (RFC 6455 section 5.5).
pub const MAX_CONTROL_PAYLOAD: usize = 125;

/// The longest header of a frame that the server sends.
pub const MAX_HEADER: usize = 10;

/// A text frame under construction: write the payload behind the room kept for the header, then
/// [`finish`](Self::finish).
pub struct TextFrame(Vec<u8>);

impl TextFrame {
    /// Most messages are shorter than 64 KiB; their header fits here.
    const ROOM: usize = 4;

    /// An empty frame with room for about `payload` bytes.
    pub fn with_capacity(payload: usize) -> Self {
        let mut bytes = Vec::with_capacity(Self::ROOM + payload);
        bytes.extend_from_slice(&[0; Self::ROOM]);
        Self(bytes)
    }

    /// Where the payload is written.
    pub fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// How many bytes of payload there are so far.
    pub fn payload_len(&self) -> usize {
        self.0.len() - Self::ROOM
    }

    /// The frame, header and all. `elsewhere` more bytes of payload are counted in the header,
    /// though they are not here: the receiver's session, the shared list of a dump.
    pub fn finish(self, elsewhere: usize) -> Vec<u8> {
        let mut bytes = self.0;
        let mut header = [0; MAX_HEADER];
        let len = text_header(bytes.len() - Self::ROOM + elsewhere, &mut header);
        let header = &header[..len];
        if len <= Self::ROOM {
            let start = Self::ROOM - len;
            bytes[start..Self::ROOM].copy_from_slice(header);
            bytes.drain(..start);
        } else {
            bytes.splice(..Self::ROOM, header.iter().copied());
        }
        bytes
    }
}

/// Writes a text frame's header and says how long it is.
pub fn text_header(payload: usize, out: &mut [u8; MAX_HEADER]) -> usize {
    out[0] = FIN | TEXT;
    if payload <= MAX_CONTROL_PAYLOAD {
        out[1] = payload as u8;
        2
    } else if let Ok(payload) = u16::try_from(payload) {
        out[1] = 126;
        out[2..4].copy_from_slice(&payload.to_be_bytes());
        4
    } else {
        out[1] = 127;
        out[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
        10
    }
}

fn control(opcode: u8, payload: &[u8]) -> Vec<u8> {
    debug_assert!(payload.len() <= MAX_CONTROL_PAYLOAD);
    let payload = &payload[..payload.len().min(MAX_CONTROL_PAYLOAD)];
    let mut frame = Vec::with_capacity(2 + payload.len());
    frame.extend_from_slice(&[FIN | opcode, payload.len() as u8]);
    frame.extend_from_slice(payload);
    frame
}

/// A close frame. A reason over 123 bytes is cut at a character.
pub fn close(code: CloseCode, reason: &str) -> Vec<u8> {
    close_raw(code as u16, reason)
}

/// A close frame with a code that the client chose: the echo of its own.
pub fn close_raw(code: u16, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL_PAYLOAD - 2)];
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    control(CLOSE, &payload)
}

/// A close frame without a code: the echo of one without.
pub fn close_empty() -> Vec<u8> {
    control(CLOSE, &[])
}

/// The answer to a ping.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    control(PONG, payload)
}

/// A heartbeat.
pub fn ping() -> Vec<u8> {
    control(PING, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(payload: usize, elsewhere: usize) -> Vec<u8> {
        let mut frame = TextFrame::with_capacity(payload);
        frame.payload().resize(TextFrame::ROOM + payload, b'x');
        assert_eq!(frame.payload_len(), payload);
        frame.finish(elsewhere)
    }

    #[test]
    fn the_header_is_the_shortest_that_fits() {
        assert_eq!(text(0, 0)[..], [0x81, 0]);
        assert_eq!(text(125, 0)[..2], [0x81, 125]);
        assert_eq!(text(126, 0)[..4], [0x81, 126, 0, 126]);
        assert_eq!(text(65_535, 0)[..4], [0x81, 126, 0xff, 0xff]);
        assert_eq!(text(65_536, 0)[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        for len in [0, 125, 126, 65_535, 65_536] {
            let header = if len < 126 {
                2
            } else if len < 65_536 {
                4
            } else {
                10
            };
            let frame = text(len, 0);
            assert_eq!(frame.len(), header + len);
            assert!(frame[header..].iter().all(|b| *b == b'x'));
        }
    }

    #[test]
    fn bytes_that_follow_from_elsewhere_are_counted() {
        assert_eq!(text(90, 36)[..4], [0x81, 126, 0, 126]);
        assert_eq!(text(65_530, 6)[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let frame = close(CloseCode::TooBig, &"会".repeat(60));
        assert_eq!(frame[1] as usize, 2 + 41 * 3);
        assert_eq!(frame[2..4], 1009u16.to_be_bytes());
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}

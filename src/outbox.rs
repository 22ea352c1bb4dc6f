//! What waits to be sent to one client: a queue of frames, pure.
//!
//! Everything that a client is told, answers and events alike, goes through its outbox, so it
//! has one order. A frame that many receive is shared, and is only copied out when the socket is
//! about to take it: a reader that stops reading holds references, not copies.

use std::{collections::VecDeque, rc::Rc, time::Instant};

use crate::{
    ids::SessionId,
    protocol::{event::EventFrame, reply::DUMP_END},
};

/// The most bytes that are offered to a socket at a time.
pub const GATHER_BYTES: usize = 64 * 1024;

/// A queue longer than this was a burst, and its memory is given back once it is empty.
const KEPT_CAPACITY: usize = 16;

/// One thing that waits.
#[derive(Debug)]
pub enum Frame {
    /// One or more whole WebSocket frames for this client alone.
    Own(Vec<u8>),
    /// A room's event, shared by all who receive it.
    Event(Rc<EventFrame>),
    /// The answer to channel.dump: its own beginning, and the shared list.
    Dump(Vec<u8>, Rc<[u8]>),
    /// Not a frame: events from here on are for this session.
    Session(SessionId),
}

impl Frame {
    /// How many bytes the client gets.
    pub fn size(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Event(event) => event.size(),
            Self::Dump(head, list) => head.len() + list.len() + DUMP_END.len(),
            Self::Session(_) => 0,
        }
    }

    /// Hands its bytes to `to`, piece by piece; the session of later events may change.
    fn pieces(&self, session: &mut Option<SessionId>, mut to: impl FnMut(&[u8])) {
        match self {
            Self::Own(bytes) => to(bytes),
            Self::Event(event) => {
                to(event.before_session());
                let session = session.as_ref().expect("only members are sent events");
                to(session.as_bytes());
                to(event.after_session());
            }
            Self::Dump(head, list) => {
                to(head);
                to(list);
                to(DUMP_END);
            }
            Self::Session(next) => *session = Some(*next),
        }
    }
}

/// The queue.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<Frame>,
    /// Bytes of all `frames`, those already taken from the first one included.
    bytes: usize,
    /// How many bytes of the first frame the socket has taken.
    taken: usize,
    /// Whose events the first frames are.
    session: Option<SessionId>,
    /// How many of `frames` are none: [`Frame::Session`].
    marks: usize,
}

impl Outbox {
    /// Adds a frame at the end.
    pub fn push(&mut self, frame: Frame) {
        self.bytes += frame.size();
        self.marks += usize::from(matches!(frame, Frame::Session(_)));
        self.frames.push_back(frame);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// When the first frame's event happened, if it is an event's.
    pub fn first_event(&self) -> Option<Instant> {
        match self.frames.front() {
            Some(Frame::Event(event)) => Some(event.at()),
            _ => None,
        }
    }

    /// How many frames wait.
    pub fn len(&self) -> usize {
        self.frames.len() - self.marks
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.bytes - self.taken
    }

    /// How many bytes wait, without a frame that the socket has begun to take: it may be longer
    /// than all that may wait, and its reader not slow at all.
    pub fn bytes_not_begun(&self) -> usize {
        let begun = self.frames.front().filter(|_| self.taken > 0);
        self.bytes - begun.map_or(0, Frame::size)
    }

    /// Copies what the socket is to be offered next into `out`: at most [`GATHER_BYTES`].
    pub fn gather(&self, out: &mut Vec<u8>) {
        out.clear();
        self.copy(out, GATHER_BYTES);
    }

    /// Appends what waits to `out`, at most so many bytes.
    fn copy(&self, out: &mut Vec<u8>, most: usize) {
        let mut session = self.session;
        let mut skip = self.taken;
        let end = out.len().saturating_add(most);
        for frame in &self.frames {
            if out.len() >= end {
                break;
            }
            frame.pieces(&mut session, |piece| {
                let skipped = skip.min(piece.len());
                skip -= skipped;
                let rest = &piece[skipped..];
                let fits = rest.len().min(end - out.len());
                out.extend_from_slice(&rest[..fits]);
            });
        }
    }

    /// The socket has taken `written` bytes of what was gathered.
    pub fn advance(&mut self, written: usize) {
        self.taken += written;
        while let Some(frame) = self.frames.front() {
            let len = frame.size();
            if len > self.taken {
                break;
            }
            self.taken -= len;
            self.bytes -= len;
            if let Some(Frame::Session(next)) = self.frames.pop_front() {
                self.session = Some(next);
                self.marks -= 1;
            }
        }
        if self.frames.is_empty() && self.frames.capacity() > KEPT_CAPACITY {
            self.frames = VecDeque::new();
        }
    }

    /// Drops all that waits, but for the rest of a frame that the socket has begun to take.
    pub fn drop_waiting(&mut self) {
        let begun = self.frames.pop_front().filter(|_| self.taken > 0);
        self.bytes = begun.as_ref().map_or(0, Frame::size);
        self.frames = begun.into_iter().collect();
        self.marks = 0;
    }

    /// All that waits as plain bytes, for a connection that moves to another thread.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes());
        self.copy(&mut out, usize::MAX);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ids::{Device, Endpoint},
        protocol::event::{RoomEvent, Who},
    };

    fn own(bytes: &[u8]) -> Frame {
        Frame::Own(bytes.into())
    }

    fn drain(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let (mut all, mut gathered) = (Vec::new(), Vec::new());
        while !outbox.is_empty() {
            outbox.gather(&mut gathered);
            let n = step.min(gathered.len());
            all.extend_from_slice(&gathered[..n]);
            outbox.advance(n);
        }
        all
    }

    #[test]
    fn an_event_carries_the_session_of_its_time() {
        let who = Who::new(Endpoint::new("a").unwrap(), Device::default());
        let event = Rc::new(RoomEvent::Join(who).encode(0, Instant::now()));
        let (first, second) = (SessionId::generate(), SessionId::generate());
        let mut outbox = Outbox::default();
        for session in [first, second] {
            outbox.push(Frame::Session(session));
            outbox.push(Frame::Event(event.clone()));
        }
        let expected: Vec<u8> = [first, second]
            .iter()
            .flat_map(|s| [event.before_session(), s.as_bytes(), event.after_session()].concat())
            .collect();
        assert_eq!(drain(&mut outbox, 7), expected);
    }

    #[test]
    fn a_frame_that_was_begun_is_finished_after_the_rest_is_dropped() {
        let mut outbox = Outbox::default();
        outbox.push(own(b"first"));
        outbox.push(own(b"second"));
        outbox.advance(2);
        outbox.drop_waiting();
        outbox.push(own(b"close"));
        assert_eq!(drain(&mut outbox, 64), b"rstclose");

        outbox.push(own(b"first"));
        outbox.push(own(b"second"));
        outbox.drop_waiting();
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn a_long_frame_is_offered_in_parts() {
        let long: Vec<u8> = (0..3 * GATHER_BYTES).map(|n| n as u8).collect();
        let mut outbox = Outbox::default();
        outbox.push(own(&long));
        outbox.push(own(b"next"));
        let mut gathered = Vec::new();
        outbox.gather(&mut gathered);
        assert_eq!(gathered.len(), GATHER_BYTES);
        outbox.advance(10);
        assert_eq!(outbox.bytes_not_begun(), 4);
        outbox.gather(&mut gathered);
        assert_eq!(gathered[..], long[10..10 + GATHER_BYTES]);
        assert_eq!(drain(&mut outbox, 1 << 20), [&long[10..], b"next"].concat());
    }

    #[test]
    fn a_burst_leaves_no_memory_behind() {
        let mut outbox = Outbox::default();
        for _ in 0..1000 {
            outbox.push(own(b"x"));
        }
        drain(&mut outbox, 1 << 20);
        assert_eq!(outbox.frames.capacity(), 0);
    }

    proptest! {
        #[test]
        fn whatever_the_socket_takes_at_a_time_the_bytes_are_the_same(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 0..20),
            step in 1usize..300,
            moves_after in 0usize..2000,
        ) {
            let mut outbox = Outbox::default();
            for frame in &frames {
                outbox.push(own(frame));
            }
            let expected = frames.concat();
            prop_assert_eq!(outbox.bytes(), expected.len());
            let (mut all, mut gathered) = (Vec::new(), Vec::new());
            while !outbox.is_empty() && all.len() < moves_after {
                outbox.gather(&mut gathered);
                let n = step.min(gathered.len());
                all.extend_from_slice(&gathered[..n]);
                outbox.advance(n);
                prop_assert_eq!(outbox.bytes(), expected.len() - all.len());
            }
            all.extend_from_slice(&outbox.into_bytes());
            prop_assert_eq!(all, expected);
        }
    }
}

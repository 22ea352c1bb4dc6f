//! What waits to be sent to one client: a queue of frames, pure.
//!
//! Everything that a client is told, answers and events alike, goes through its outbox, so it
//! has one order. A frame that many receive is shared, and is only copied out when the socket is
//! about to take it: a reader that stops reading holds references, not copies.

use std::{collections::VecDeque, rc::Rc, time::Instant};

use crate::{
    census::{Counted, Object},
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
    /// A room's event.
    Event(Event),
    /// The answer to channel.dump.
    Dump(Box<Dump>),
    /// Not a frame: events from here on are another session's.
    Session(Box<Mark>),
}

/// A room's event for one of those who receive it.
#[derive(Clone, Debug)]
pub struct Event {
    /// Shared by all of them.
    pub frame: Rc<EventFrame>,
    /// Whether this one understands event numbers.
    pub numbered: bool,
    /// Why it is sent.
    pub cause: Cause,
}

/// Why an event is sent, which decides what it counts towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A client has done something. It counts towards `send_queue` and `send_queue_bytes`.
    Client,
    /// The server has done something by itself: it has expired a member. It counts towards
    /// `send_queue_bytes` alone: thousands may come at one moment, and are no sign of a slow reader.
    Server,
    /// The receiver has missed it, see [`Progress`](crate::progress::Progress). It counts towards
    /// neither.
    Replay,
}

/// The answer to channel.dump: its own beginning, and the shared list.
#[derive(Debug)]
pub struct Dump {
    /// Frame and text up to the list.
    pub head: Vec<u8>,
    /// The list.
    pub list: Rc<[u8]>,
}

/// Where a session begins or goes on.
#[derive(Debug)]
pub struct Mark {
    /// The session.
    pub session: SessionId,
    /// The number of the event behind which its events begin.
    pub after: u64,
}

/// What is still to be written to a connection that moves to another thread.
#[derive(Debug, Default)]
pub struct Unsent {
    /// The rest of a frame that the socket has begun to take. It must follow whatever else happens,
    /// or the client would find another frame inside of this one.
    pub rest_of_frame: Vec<u8>,
    /// Whole frames.
    pub frames: Vec<u8>,
}

impl Frame {
    /// How many bytes the client gets.
    pub fn size(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Event(event) => event.frame.size(event.numbered),
            Self::Dump(dump) => dump.head.len() + dump.list.len() + DUMP_END.len(),
            Self::Session(_) => 0,
        }
    }

    /// Whether it counts towards `send_queue`.
    pub fn counts(&self) -> bool {
        match self {
            Self::Own(_) | Self::Dump(_) => true,
            Self::Event(event) => event.cause == Cause::Client,
            Self::Session(_) => false,
        }
    }

    /// Whether its bytes count towards `send_queue_bytes`.
    pub fn bytes_count(&self) -> bool {
        match self {
            Self::Own(_) | Self::Dump(_) => true,
            Self::Event(event) => event.cause != Cause::Replay,
            Self::Session(_) => false,
        }
    }

    /// Hands its bytes to `to`, piece by piece; the session of later events may change.
    fn pieces<'a>(&'a self, session: &mut Option<&'a SessionId>, mut to: impl FnMut(&[u8])) {
        match self {
            Self::Own(bytes) => to(bytes),
            Self::Event(event) => {
                let session = session.expect("only members are sent events");
                event.frame.pieces(event.numbered, session, to);
            }
            Self::Dump(dump) => {
                to(&dump.head);
                to(&dump.list);
                to(DUMP_END);
            }
            Self::Session(mark) => *session = Some(&mark.session),
        }
    }
}

/// The queue.
#[derive(Debug)]
pub struct Outbox {
    frames: VecDeque<Frame>,
    /// Bytes of all `frames`, those already taken from the first one included.
    bytes: usize,
    /// How many bytes of the first frame the socket has taken.
    taken: usize,
    /// The first frame is the rest of one that the socket began to take on another thread.
    resumes_frame: bool,
    /// Whose events the first frames are.
    session: Option<SessionId>,
    /// The number of the session's last event that the socket has taken.
    sent_up_to: u64,
    /// How many of `frames` are [`Frame::Session`].
    marks: usize,
    /// How many of `frames` [do not count](Frame::counts).
    exempt: usize,
    /// How many of those do not even [with their bytes](Frame::bytes_count), and their bytes.
    weightless: usize,
    exempt_bytes: usize,
    _counted: Counted,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            taken: 0,
            resumes_frame: false,
            session: None,
            sent_up_to: 0,
            marks: 0,
            exempt: 0,
            weightless: 0,
            exempt_bytes: 0,
            _counted: Counted::new(Object::Outbox),
        }
    }
}

impl Outbox {
    /// The outbox of a connection that has moved here.
    pub fn resuming(unsent: Unsent) -> Self {
        let mut outbox = Self {
            resumes_frame: !unsent.rest_of_frame.is_empty(),
            ..Self::default()
        };
        for bytes in [unsent.rest_of_frame, unsent.frames] {
            if !bytes.is_empty() {
                outbox.push(Frame::Own(bytes));
            }
        }
        outbox
    }

    /// Adds a frame at the end.
    pub fn push(&mut self, frame: Frame) {
        let size = frame.size();
        self.bytes += size;
        if !frame.counts() {
            self.exempt += 1;
            if !frame.bytes_count() {
                self.weightless += 1;
                self.exempt_bytes += size;
                self.marks += usize::from(matches!(frame, Frame::Session(_)));
            }
        }
        self.frames.push_back(frame);
    }

    /// Whether nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// When the first frame's event happened, if it is an event's and was not missed at first.
    pub fn first_event(&self) -> Option<Instant> {
        match self.frames.front() {
            Some(Frame::Event(event)) if event.cause != Cause::Replay => Some(event.frame.at()),
            _ => None,
        }
    }

    /// How many frames wait that count towards `send_queue`.
    pub fn waiting(&self) -> usize {
        self.frames.len() - self.exempt
    }

    /// Whether none waits whose bytes count.
    pub fn has_no_weight(&self) -> bool {
        self.frames.len() == self.weightless
    }

    /// How many bytes are still to be sent.
    pub fn bytes(&self) -> usize {
        self.bytes - self.taken
    }

    /// How many bytes wait that count as waiting, without a frame that the socket has begun to
    /// take: it may be longer than all that may wait, and its reader not slow at all.
    pub fn bytes_not_begun(&self) -> usize {
        let begun = self
            .frames
            .front()
            .filter(|front| self.has_begun() && front.bytes_count());
        self.bytes - self.exempt_bytes - begun.map_or(0, Frame::size)
    }

    /// Whether the socket has taken a part of the first frame.
    fn has_begun(&self) -> bool {
        self.taken > 0 || self.resumes_frame
    }

    /// The number of the session's last event that the socket has taken whole.
    pub fn sent_up_to(&self) -> u64 {
        if self.marks == 0 {
            return self.sent_up_to;
        }
        let last_mark = self.frames.iter().rev().find_map(|frame| match frame {
            Frame::Session(mark) => Some(mark.after),
            _ => None,
        });
        last_mark.unwrap_or(self.sent_up_to)
    }

    /// The number of the session's last event, whether it waits or has been taken.
    pub fn queued_up_to(&self) -> u64 {
        let last = self.frames.iter().rev().find_map(|frame| match frame {
            Frame::Session(mark) => Some(mark.after),
            Frame::Event(event) => Some(event.frame.number()),
            _ => None,
        });
        last.unwrap_or(self.sent_up_to)
    }

    /// Copies what the socket is to be offered next into `out`: at most [`GATHER_BYTES`].
    pub fn gather(&self, out: &mut Vec<u8>) {
        out.clear();
        self.copy(out, GATHER_BYTES);
    }

    /// Appends what waits to `out`, at most so many bytes.
    fn copy(&self, out: &mut Vec<u8>, most: usize) {
        let mut session = self.session.as_ref();
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
            self.resumes_frame = false;
            if let Some(frame) = self.frames.pop_front() {
                self.sent(frame, len);
            }
        }
        if self.frames.is_empty() {
            if self.frames.capacity() > KEPT_CAPACITY {
                self.frames = VecDeque::new();
            } else {
                // So that the next ones lie where these did, in memory that is warm.
                self.frames.clear();
            }
        }
    }

    /// The socket has taken this frame.
    fn sent(&mut self, frame: Frame, size: usize) {
        if !frame.counts() {
            self.exempt -= 1;
            if !frame.bytes_count() {
                self.weightless -= 1;
                self.exempt_bytes -= size;
            }
        }
        match frame {
            Frame::Event(event) => self.sent_up_to = event.frame.number(),
            Frame::Session(mark) => {
                self.session = Some(mark.session);
                self.sent_up_to = mark.after;
                self.marks -= 1;
            }
            Frame::Own(_) | Frame::Dump(_) => {}
        }
    }

    /// Drops all that waits, but for the rest of a frame that the socket has begun to take, which
    /// counts as sent. Nothing but the client's own frames may follow.
    pub fn drop_waiting(&mut self) {
        let sent_up_to = self.sent_up_to();
        let begun = self.frames.pop_front().filter(|_| self.has_begun());
        self.sent_up_to = match &begun {
            Some(Frame::Event(event)) if self.marks == 0 => event.frame.number(),
            _ => sent_up_to,
        };
        self.bytes = begun.as_ref().map_or(0, Frame::size);
        self.exempt = usize::from(begun.as_ref().is_some_and(|begun| !begun.counts()));
        let weightless = begun.as_ref().filter(|begun| !begun.bytes_count());
        self.weightless = usize::from(weightless.is_some());
        self.exempt_bytes = weightless.map_or(0, Frame::size);
        self.marks = 0;
        self.frames = begun.into_iter().collect();
    }

    /// All that waits as plain bytes, for a connection that moves to another thread.
    pub fn into_unsent(self) -> Unsent {
        let mut bytes = Vec::with_capacity(self.bytes());
        self.copy(&mut bytes, usize::MAX);
        let first = self.frames.front().filter(|_| self.has_begun());
        let rest = first.map_or(0, |first| first.size() - self.taken);
        let frames = bytes.split_off(rest);
        Unsent {
            rest_of_frame: bytes,
            frames,
        }
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

    fn event(number: u64) -> Event {
        let who = Who::new(Endpoint::new("a").unwrap(), Device::default());
        Event {
            frame: Rc::new(RoomEvent::Join(who).encode(number, Instant::now())),
            numbered: false,
            cause: Cause::Client,
        }
    }

    fn mark(session: SessionId, after: u64) -> Frame {
        Frame::Session(Box::new(Mark { session, after }))
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
        let event = event(1);
        let (first, second) = (SessionId::generate(), SessionId::generate());
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for session in [first, second] {
            outbox.push(mark(session, 0));
            outbox.push(Frame::Event(event.clone()));
            let to = |piece: &[u8]| expected.extend_from_slice(piece);
            event.frame.pieces(false, &session, to);
        }
        assert_eq!(drain(&mut outbox, 7), expected);
    }

    #[test]
    fn it_knows_what_the_socket_has_taken_of_each_session() {
        let mut outbox = Outbox::default();
        outbox.push(mark(SessionId::generate(), 4));
        assert_eq!((outbox.sent_up_to(), outbox.queued_up_to()), (4, 4));
        outbox.push(own(b"answer"));
        for number in [6, 7] {
            outbox.push(Frame::Event(event(number)));
        }
        assert_eq!((outbox.sent_up_to(), outbox.queued_up_to()), (4, 7));
        let size = Frame::Event(event(6)).size();
        outbox.advance(6 + size - 1);
        assert_eq!(outbox.sent_up_to(), 4, "a part of an event is none");
        outbox.advance(1);
        assert_eq!((outbox.sent_up_to(), outbox.queued_up_to()), (6, 7));
        // The next room, while something of this one still waits.
        outbox.push(mark(SessionId::generate(), 2));
        assert_eq!((outbox.sent_up_to(), outbox.queued_up_to()), (2, 2));
        outbox.advance(size);
        assert_eq!((outbox.sent_up_to(), outbox.queued_up_to()), (2, 2));
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_is_dropped_was_not_sent_but_for_what_was_begun() {
        for (taken, sent) in [(0, 1), (5, 2)] {
            let mut outbox = Outbox::default();
            outbox.push(mark(SessionId::generate(), 1));
            outbox.advance(0);
            outbox.push(Frame::Event(event(2)));
            outbox.push(Frame::Event(event(3)));
            outbox.advance(taken);
            outbox.drop_waiting();
            assert_eq!(outbox.sent_up_to(), sent);
        }
        // A mark that was not reached holds whatever was begun before it.
        let mut outbox = Outbox::default();
        outbox.push(mark(SessionId::generate(), 1));
        outbox.push(Frame::Event(event(2)));
        outbox.advance(5);
        outbox.push(mark(SessionId::generate(), 9));
        outbox.push(Frame::Event(event(10)));
        outbox.drop_waiting();
        assert_eq!(outbox.sent_up_to(), 9);
        assert_eq!(
            drain(&mut outbox, 64).len(),
            Frame::Event(event(2)).size() - 5
        );
    }

    #[test]
    fn a_replay_does_not_count_as_waiting() {
        let mut outbox = Outbox::default();
        outbox.push(mark(SessionId::generate(), 0));
        for number in 1..100 {
            let missed = Event {
                cause: Cause::Replay,
                ..event(number)
            };
            outbox.push(Frame::Event(missed));
        }
        assert_eq!((outbox.waiting(), outbox.bytes_not_begun()), (0, 0));
        outbox.push(own(b"live"));
        assert_eq!((outbox.waiting(), outbox.bytes_not_begun()), (1, 4));
        outbox.advance(10);
        assert_eq!((outbox.waiting(), outbox.bytes_not_begun()), (1, 4));
        drain(&mut outbox, 1000);
        assert_eq!((outbox.waiting(), outbox.bytes_not_begun()), (0, 0));
    }

    #[test]
    fn what_the_server_causes_counts_with_its_bytes_alone() {
        let mut outbox = Outbox::default();
        outbox.push(mark(SessionId::generate(), 0));
        assert!(outbox.has_no_weight());
        let caused = |number| Event {
            cause: Cause::Server,
            ..event(number)
        };
        let size = Frame::Event(caused(1)).size();
        for number in 1..=10 {
            outbox.push(Frame::Event(caused(number)));
        }
        assert_eq!((outbox.waiting(), outbox.bytes_not_begun()), (0, 10 * size));
        assert!(!outbox.has_no_weight());
        outbox.advance(size + 1);
        assert_eq!(outbox.bytes_not_begun(), 8 * size, "one has begun");
        outbox.drop_waiting();
        assert_eq!((outbox.waiting(), outbox.bytes_not_begun()), (0, 0));
        drain(&mut outbox, 1000);
        assert_eq!((outbox.exempt, outbox.weightless), (0, 0));
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
            let unsent = outbox.into_unsent();
            // The rest of the frame that has begun ends where that frame ends.
            let ends = frames.iter().scan(0, |end, frame| {
                *end += frame.len();
                Some(*end)
            });
            let rest = unsent.rest_of_frame.clone();
            let end = all.len() + rest.len();
            prop_assert!(rest.is_empty() || ends.into_iter().any(|at| at == end));
            prop_assert!(rest.len() < frames.iter().map(Vec::len).max().unwrap_or(1));
            all.extend_from_slice(&rest);
            all.extend_from_slice(&unsent.frames);
            prop_assert_eq!(all, expected);

            // It is sent even where everything else that waits is dropped.
            let mut moved = Outbox::resuming(unsent);
            moved.drop_waiting();
            moved.gather(&mut gathered);
            prop_assert_eq!(gathered, rest);
        }
    }
}

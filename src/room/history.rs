//! What a room keeps of its events for members that are lost and come back, pure.
//!
//! Bounded in events, bytes and age, and by need: a member needs the events that came after its
//! join and that it has not caused itself, so what no present member needs is not kept, and that
//! an event is gone counts only for those who needed it. A member whose own many broadcasts have
//! pushed everything else out has missed nothing.
//!
//! Every event of every room passes through here, and hardly one is ever asked for. So the frame
//! itself is let go as soon as it is sent, while its memory is still warm, and only its text is
//! kept, in one ring of bytes: written on in order, dropped in order, nothing allocated.

use std::{
    collections::VecDeque,
    rc::{Rc, Weak},
    time::Instant,
};

use crate::{clock::Millis, ids::MemberId, protocol::event::EventFrame};

/// A ring with more unused places than this is made smaller once a burst is over.
const SPARE: usize = 64;

/// The same for the ring of bytes.
const SPARE_BYTES: usize = 16 * 1024;

/// How much is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// Events at most; 0: nothing is kept.
    pub events: usize,
    /// Bytes at most.
    pub bytes: usize,
    /// How long: then whoever was sent the event and did not get it is no member any more.
    pub age: Millis,
}

#[derive(Debug)]
struct Kept {
    number: u64,
    /// Who caused it, and needs it therefore not.
    cause: Option<MemberId>,
    at: Millis,
    /// Its part of the ring of bytes, and where the gap is in it.
    len: u32,
    gap: u32,
    /// The frame, while it is on its way to somebody who is back: many may come back at once.
    revived: Weak<EventFrame>,
}

/// The events that are kept, oldest first.
#[derive(Debug, Default)]
pub struct History {
    bounds: Bounds,
    kept: VecDeque<Kept>,
    /// Their texts, one behind another.
    texts: VecDeque<u8>,
    gone: Gone,
}

/// The last events that were needed when they had to go: of all, and of those that another member
/// has caused than that one. So for every member the last one that it has not caused is known.
#[derive(Debug, Default)]
struct Gone {
    last: u64,
    cause: Option<MemberId>,
    last_of_others: u64,
}

impl Gone {
    /// Later ones go later.
    fn add(&mut self, number: u64, cause: Option<MemberId>) {
        if cause.is_none() || cause != self.cause {
            self.last_of_others = self.last;
        }
        self.last = number;
        self.cause = cause;
    }

    fn last_not_by(&self, member: MemberId) -> u64 {
        if self.cause == Some(member) {
            self.last_of_others
        } else {
            self.last
        }
    }
}

impl History {
    /// An empty history.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            ..Self::default()
        }
    }

    /// Whether anything is kept at all.
    pub fn is_kept(&self) -> bool {
        self.bounds.events > 0
    }

    /// Adds an event that some member needs, caused by `cause`, at `now`; what is over a bound goes.
    pub fn push(&mut self, frame: &EventFrame, cause: Option<MemberId>, now: Millis) {
        let (text, gap) = frame.tail();
        let more = Self::footprint(frame);
        let is_full = |history: &Self| {
            history.kept.len() >= history.bounds.events
                || history.bytes() + more > history.bounds.bytes
        };
        while !self.kept.is_empty() && is_full(self) {
            self.drop_first();
        }
        self.make_room(text.len());
        self.texts.extend(text);
        self.kept.push_back(Kept {
            number: frame.number(),
            cause,
            at: now,
            // No message is that long.
            len: u32::try_from(text.len()).unwrap_or(u32::MAX),
            gap,
            revived: Weak::new(),
        });
        if self.bytes() > self.bounds.bytes {
            // It alone is too long.
            self.drop_first();
        }
        self.expire(now);
    }

    /// Sees to it that so many bytes fit into the ring, which uses all of its memory in time: so it
    /// has no more than the bound.
    fn make_room(&mut self, more: usize) {
        let needed = self.texts.len() + more;
        if needed > self.texts.capacity() {
            let doubled = 2 * self.texts.capacity();
            let capacity = doubled.min(self.bounds.bytes).max(needed);
            self.texts.reserve_exact(capacity - self.texts.len());
        }
    }

    /// Drops what is too old.
    pub fn expire(&mut self, now: Millis) {
        while self
            .kept
            .front()
            .is_some_and(|first| now.saturating_sub(first.at) > self.bounds.age)
        {
            self.drop_first();
        }
        self.shrink();
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.kept.pop_front() {
            self.texts.drain(..first.len as usize);
            self.gone.add(first.number, first.cause);
        }
    }

    /// Forgets the events that nobody needs any more; `needed` is told an event's number and who
    /// caused it.
    pub fn retain(&mut self, needed: impl Fn(u64, Option<MemberId>) -> bool) {
        if self.kept.iter().all(|kept| needed(kept.number, kept.cause)) {
            return;
        }
        let before = self.texts.make_contiguous();
        let mut texts = VecDeque::new();
        let mut start = 0;
        self.kept.retain(|kept| {
            let end = start + kept.len as usize;
            let needed = needed(kept.number, kept.cause);
            if needed {
                texts.extend(&before[start..end]);
            }
            start = end;
            needed
        });
        self.texts = texts;
        self.shrink();
    }

    /// Gives back memory that a burst has taken.
    fn shrink(&mut self) {
        if self.kept.is_empty() {
            // A quiet room holds nothing.
            (self.kept, self.texts) = Default::default();
        }
        if self.kept.capacity() > 2 * self.kept.len() + SPARE {
            self.kept.shrink_to_fit();
        }
        if self.texts.capacity() > 2 * self.texts.len() + SPARE_BYTES {
            self.texts.shrink_to_fit();
        }
    }

    /// Whether an event above `number` that `member` needed is gone.
    pub fn lacks(&self, member: MemberId, number: u64) -> bool {
        self.gone.last_not_by(member) > number
    }

    /// The events above `number` that `member` needs, in order; `at`: now.
    pub fn after(&mut self, number: u64, member: MemberId, at: Instant) -> Vec<Rc<EventFrame>> {
        let first = self.kept.partition_point(|kept| kept.number <= number);
        let mut start: usize = self.kept.range(..first).map(|kept| kept.len as usize).sum();
        let mut events = Vec::new();
        for kept in self.kept.range_mut(first..) {
            let len = kept.len as usize;
            if kept.cause != Some(member) {
                events.push(kept.revived.upgrade().unwrap_or_else(|| {
                    let text = self.texts.range(start..start + len);
                    let frame = EventFrame::revive(kept.number, at, len, text, kept.gap);
                    let frame = Rc::new(frame);
                    kept.revived = Rc::downgrade(&frame);
                    frame
                }));
            }
            start += len;
        }
        events
    }

    /// When the first one will be too old.
    pub fn expires(&self) -> Option<Millis> {
        self.kept
            .front()
            .map(|first| first.at.saturating_add(self.bounds.age).saturating_add(1))
    }

    /// How many events are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// How many bytes they take.
    pub fn bytes(&self) -> usize {
        self.texts.len() + self.kept.len() * size_of::<Kept>()
    }

    /// How many bytes this one takes while it is kept.
    pub fn footprint(frame: &EventFrame) -> usize {
        frame.tail().0.len() + size_of::<Kept>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{Device, Endpoint},
        protocol::event::{Payload, RoomEvent, Who},
    };

    fn event(number: u64, len: usize) -> EventFrame {
        let who = Who::new(Endpoint::new("a").unwrap(), Device::default());
        let payload = Payload(format!("{{\"x\":\"{}\"}}", "y".repeat(len)).into());
        RoomEvent::Broadcast(who, payload).encode(number, Instant::now())
    }

    fn history(bytes: usize) -> History {
        History::new(Bounds {
            events: 1_000,
            bytes,
            age: 100,
        })
    }

    #[test]
    fn its_memory_is_bounded_and_not_only_what_is_in_it() {
        let mut history = history(100_000);
        for number in 1..2_000 {
            history.push(&event(number, (number % 97) as usize * 10), None, 0);
            assert!(history.bytes() <= 100_000);
            assert!(history.texts.capacity() <= 100_000);
        }
        assert!(history.bytes() > 95_000, "{}", history.bytes());
    }

    #[test]
    fn an_event_longer_than_all_that_is_kept_leaves_nothing_kept() {
        let mut history = history(1_000);
        history.push(&event(1, 10), None, 0);
        history.push(&event(2, 2_000), None, 0);
        assert!(history.is_empty());
        assert!(history.lacks(MemberId(1), 1));
        assert!(!history.lacks(MemberId(1), 2));
    }

    #[test]
    fn a_room_that_is_quiet_again_holds_no_memory() {
        let mut history = history(100_000);
        for number in 1..20 {
            history.push(&event(number, 500), None, 0);
        }
        history.expire(101);
        assert_eq!((history.texts.capacity(), history.kept.capacity()), (0, 0));
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was_also_from_around_the_ring() {
        let mut history = history(5_000);
        let me = MemberId(1);
        let texts: Vec<_> = (1..300)
            .map(|number| {
                let frame = event(number, (number * 37 % 400) as usize);
                let cause = (number % 5 == 0).then_some(me);
                history.push(&frame, cause, 0);
                if number == 250 {
                    history.retain(|number, _| number % 3 > 0);
                }
                frame.tail().0.to_vec()
            })
            .collect();
        let back = history.after(200, me, Instant::now());
        assert!(back.len() > 5, "{}", back.len());
        let again = history.after(200, me, Instant::now());
        for (frame, again) in back.iter().zip(&again) {
            assert!(Rc::ptr_eq(frame, again), "made once for all who are back");
            assert!(frame.number() % 5 > 0);
            assert_eq!(frame.tail().0, texts[frame.number() as usize - 1]);
        }
        let numbers: Vec<u64> = back.iter().map(|frame| frame.number()).collect();
        assert!(numbers.is_sorted());
    }
}

//! What a room keeps of its events for members that are lost and come back, pure.
//!
//! Bounded in events, bytes and age, and by need: a member needs the events that came after its
//! join and that it has not caused itself, so what no present member needs is not kept, and that
//! an event is gone counts only for those who needed it. A member whose own many broadcasts have
//! pushed everything else out has missed nothing.
//!
//! Every event of every room passes through here, and hardly one is ever asked for. So the frame
//! itself is let go as soon as it is sent, while its memory is still warm, and only its text is
//! kept (`records.rs`): written on in order, dropped in order.

mod records;

use std::{
    collections::BTreeMap,
    rc::{Rc, Weak},
    time::Instant,
};

use self::records::{Head, Records};
use crate::{clock::Millis, ids::MemberId, protocol::event::EventFrame};

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

/// The events that are kept, oldest first.
#[derive(Debug, Default)]
pub struct History {
    bounds: Bounds,
    kept: Records,
    gone: Gone,
    /// The frames of kept events, by number, while they are on their way to somebody who is back:
    /// many may come back at once.
    revived: BTreeMap<u64, Weak<EventFrame>>,
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

    /// An event is about to be added.
    pub fn prefetch(&mut self) {
        self.kept.prefetch();
    }

    /// Adds an event that some member needs, caused by `cause`, at `now`; what is over a bound goes.
    pub fn push(&mut self, frame: &EventFrame, cause: Option<MemberId>, now: Millis) {
        let (text, gap) = frame.tail();
        let more = Self::footprint(frame);
        let is_over = |history: &Self| {
            history.kept.len() >= history.bounds.events
                || history.bytes() + more > history.bounds.bytes
        };
        while is_over(self) && self.drop_first() {}
        if more <= self.bounds.bytes {
            let head = Head {
                number: frame.number(),
                cause,
                at: now,
                // No message is that long.
                len: u32::try_from(text.len()).unwrap_or(u32::MAX),
                gap,
            };
            self.kept.push(head, text);
        } else {
            // It alone is too long.
            self.gone.add(frame.number(), cause);
        }
        self.expire(now);
    }

    /// Drops what is too old.
    pub fn expire(&mut self, now: Millis) {
        while let Some(first) = self.kept.first()
            && now.saturating_sub(first.at) > self.bounds.age
        {
            self.drop_first();
        }
    }

    /// Whether there was one.
    fn drop_first(&mut self) -> bool {
        let first = self.kept.pop_first();
        if let Some(first) = &first {
            self.gone.add(first.number, first.cause);
            self.revived.remove(&first.number);
        }
        first.is_some()
    }

    /// Forgets the events that nobody needs any more; `needed` is told an event's number and who
    /// caused it.
    pub fn retain(&mut self, needed: impl Fn(u64, Option<MemberId>) -> bool) {
        let is_needed = |head: &Head| needed(head.number, head.cause);
        if self.kept.iter().all(|(head, _)| is_needed(&head)) {
            return;
        }
        let mut kept = Records::default();
        for (head, text) in self.kept.iter() {
            if is_needed(&head) {
                kept.push(head, text);
            } else {
                self.revived.remove(&head.number);
            }
        }
        self.kept = kept;
    }

    /// Whether an event above `number` that `member` needed is gone.
    pub fn lacks(&self, member: MemberId, number: u64) -> bool {
        self.gone.last_not_by(member) > number
    }

    /// The events above `number` that `member` needs, in order; `at`: now.
    pub fn after(&mut self, number: u64, member: MemberId, at: Instant) -> Vec<Rc<EventFrame>> {
        self.revived.retain(|_, frame| frame.strong_count() > 0);
        let mut events = Vec::new();
        for (head, text) in self.kept.iter() {
            if head.number <= number || head.cause == Some(member) {
                continue;
            }
            let revived = self.revived.entry(head.number).or_default();
            let frame = revived.upgrade().unwrap_or_else(|| {
                let frame = Rc::new(EventFrame::revive(head.number, at, text, head.gap));
                *revived = Rc::downgrade(&frame);
                frame
            });
            events.push(frame);
        }
        events
    }

    /// When the first one will be too old.
    pub fn expires(&self) -> Option<Millis> {
        self.kept
            .first()
            .map(|first| first.at.saturating_add(self.bounds.age).saturating_add(1))
    }

    /// How many events are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.kept.len() == 0
    }

    /// How many bytes they take.
    pub fn bytes(&self) -> usize {
        self.kept.bytes()
    }

    /// How many bytes this one takes while it is kept.
    pub fn footprint(frame: &EventFrame) -> usize {
        Head::SIZE + frame.tail().0.len()
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
            // And less than two chunks: one that is nearly gone, and one that has just been begun.
            assert!(history.kept.capacity() < history.bytes() + 2 * 8 * 1024);
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
        drop(history.after(5, MemberId(1), Instant::now()));
        history.expire(101);
        assert_eq!((history.kept.capacity(), history.revived.len()), (0, 0));
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
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

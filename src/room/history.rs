//! What a room keeps of its events for members that are lost and come back, pure.
//!
//! Kept is the very frame that the others were sent. Bounded in events, bytes and age, and by
//! need: a member needs the events that came after its join and that it has not caused itself,
//! so what no present member needs is not kept, and that an event is gone counts only for those
//! who needed it. A member whose own many broadcasts have pushed everything else out has missed
//! nothing.

use std::{collections::VecDeque, rc::Rc};

use crate::{clock::Millis, ids::MemberId, protocol::event::EventFrame};

/// A ring with more unused places than this is made smaller once a burst is over.
const SPARE: usize = 64;

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
    frame: Rc<EventFrame>,
    number: u64,
    /// Who caused it, and needs it therefore not.
    cause: Option<MemberId>,
    at: Millis,
}

/// The events that are kept, oldest first.
#[derive(Debug, Default)]
pub struct History {
    bounds: Bounds,
    kept: VecDeque<Kept>,
    bytes: usize,
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
    pub fn push(&mut self, frame: Rc<EventFrame>, cause: Option<MemberId>, now: Millis) {
        self.bytes += frame.footprint();
        self.kept.push_back(Kept {
            number: frame.number(),
            frame,
            cause,
            at: now,
        });
        while self.kept.len() > self.bounds.events || self.bytes > self.bounds.bytes {
            self.drop_first();
        }
        self.expire(now);
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
            self.bytes -= first.frame.footprint();
            self.gone.add(first.number, first.cause);
        }
    }

    /// Forgets the events that nobody needs any more; `needed` is told an event's number and who
    /// caused it.
    pub fn retain(&mut self, needed: impl Fn(u64, Option<MemberId>) -> bool) {
        let bytes = &mut self.bytes;
        self.kept.retain(|kept| {
            let needed = needed(kept.number, kept.cause);
            if !needed {
                *bytes -= kept.frame.footprint();
            }
            needed
        });
        self.shrink();
    }

    /// Gives back memory that a burst has taken.
    fn shrink(&mut self) {
        if self.kept.capacity() > 2 * self.kept.len() + SPARE {
            self.kept.shrink_to_fit();
        }
    }

    /// Whether an event above `number` that `member` needed is gone.
    pub fn lacks(&self, member: MemberId, number: u64) -> bool {
        self.gone.last_not_by(member) > number
    }

    /// The events above `number` that `member` needs, in order.
    pub fn after(&self, number: u64, member: MemberId) -> impl Iterator<Item = &Rc<EventFrame>> {
        let start = self.kept.partition_point(|kept| kept.number <= number);
        self.kept
            .range(start..)
            .filter(move |kept| kept.cause != Some(member))
            .map(|kept| &kept.frame)
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

    /// How many bytes they take, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

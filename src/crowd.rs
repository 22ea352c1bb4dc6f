//! When many come and go at once, their rooms are told of several together.
//!
//! After a network failure or a new start of the server everybody comes back within seconds, and
//! publishes again. That somebody has is then most of what there is to send, each time in a write of its
//! own, and writes are what a join costs. So on a thread on which more changes within a tick than
//! anybody does on an ordinary day, rooms are told of it a moment later, in one write with whatever else
//! has changed meanwhile, or at once with what may not wait: an answer, a broadcast. This goes on until
//! a tick brings less.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use crate::{clock::Millis, ids::ConnectionId};

/// More changes than this in a tick are a crowd.
const AT_ONCE: u32 = 16;

/// How long a change may wait to be told. Nobody who looks at a list of people sees that, and media
/// takes longer to begin.
pub const PATIENCE: Millis = 200;

/// More unused places than this are given back.
const SPARE: usize = 1024;

/// How much changes in the rooms of one thread, and who is to be told of it.
#[derive(Debug, Default)]
pub struct Crowd {
    /// How much has changed since the last tick.
    changes: Cell<u32>,
    /// Whether there was a crowd in the tick before.
    goes_on: Cell<bool>,
    /// Who is to be told, and by when.
    waiting: RefCell<VecDeque<(Millis, ConnectionId)>>,
}

impl Crowd {
    /// Somebody comes or goes, publishes or stops. Whether so many do that it may be told a moment
    /// later.
    pub fn grows(&self) -> bool {
        let changes = self.changes.get().saturating_add(1);
        self.changes.set(changes);
        self.goes_on.get() || changes > AT_ONCE
    }

    /// Something waits for this client that may wait.
    pub fn wait(&self, client: ConnectionId, now: Millis) {
        self.waiting
            .borrow_mut()
            .push_back((now + PATIENCE, client));
    }

    /// A new tick begins.
    pub fn tick(&self) {
        let changes = self.changes.replace(0);
        self.goes_on.set(changes > AT_ONCE);
    }

    /// Takes out the first client that has waited long enough.
    pub fn take_due(&self, now: Millis) -> Option<ConnectionId> {
        let mut waiting = self.waiting.borrow_mut();
        let (_, client) = waiting.pop_front_if(|(at, _)| *at <= now)?;
        if waiting.capacity() > 4 * waiting.len() + SPARE {
            waiting.shrink_to_fit();
        }
        Some(client)
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn a_crowd_is_one_until_a_tick_brings_less() {
        let crowd = Crowd::default();
        // As many as are none, tick for tick.
        for _ in 0..3 {
            assert!((0..AT_ONCE).all(|_| !crowd.grows()));
            crowd.tick();
        }
        assert!((0..AT_ONCE).all(|_| !crowd.grows()));
        assert!(crowd.grows());
        crowd.tick();
        assert!((0..=AT_ONCE).all(|_| crowd.grows()));
        crowd.tick();
        assert!(crowd.grows());
        crowd.tick();
        assert!(!crowd.grows());
    }

    #[test]
    fn who_waits_is_told_after_its_time_in_order() {
        let mut ids = SlotMap::<ConnectionId, ()>::default();
        let [a, b] = std::array::from_fn(|_| ids.insert(()));
        let crowd = Crowd::default();
        crowd.wait(a, 7);
        crowd.wait(b, 8);
        assert_eq!(crowd.take_due(6 + PATIENCE), None);
        assert_eq!(crowd.take_due(7 + PATIENCE), Some(a));
        assert_eq!(crowd.take_due(7 + PATIENCE), None);
        assert_eq!(crowd.take_due(8 + PATIENCE), Some(b));
        assert_eq!(crowd.take_due(Millis::MAX), None);
    }

    #[test]
    fn a_crowd_that_was_told_leaves_no_memory_behind() {
        let crowd = Crowd::default();
        for now in 0..100_000 {
            crowd.wait(ConnectionId::default(), now);
        }
        while crowd.take_due(Millis::MAX).is_some() {}
        assert!(crowd.waiting.borrow().capacity() <= SPARE);
    }
}

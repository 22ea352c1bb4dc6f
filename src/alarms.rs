//! When each client of a thread is to be looked at: a queue by time.
//!
//! A client in a call has nothing due for most of its time, and memory that was not touched for a
//! while is slow to come by: a look at each of some thousands of clients, several times a second,
//! held everything else up for milliseconds. So each is looked at when its next deadline may have
//! come. What makes a deadline later (something was heard) does nothing here: the look finds out.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use crate::{clock::Millis, ids::ConnectionId};

/// More unused places than this are given back.
const SPARE: usize = 1024;

/// The queue. It may hold more than one alarm of a client, and those of clients that have gone.
#[derive(Debug, Default)]
pub struct Alarms(RefCell<BinaryHeap<Reverse<(Millis, ConnectionId)>>>);

impl Alarms {
    /// Has `client` come up at this time.
    pub fn set(&self, at: Millis, client: ConnectionId) {
        self.0.borrow_mut().push(Reverse((at, client)));
    }

    /// Takes out the first alarm that is due.
    pub fn take_due(&self, now: Millis) -> Option<(Millis, ConnectionId)> {
        let mut queue = self.0.borrow_mut();
        let first = queue.peek_mut().filter(|first| first.0.0 <= now)?;
        let Reverse(alarm) = PeekMut::pop(first);
        if queue.capacity() > 4 * queue.len() + SPARE {
            queue.shrink_to_fit();
        }
        Some(alarm)
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn what_is_due_comes_in_its_order_and_nothing_else() {
        let mut ids = SlotMap::<ConnectionId, ()>::default();
        let [a, b, c] = std::array::from_fn(|_| ids.insert(()));
        let alarms = Alarms::default();
        for (at, id) in [(30, a), (10, b), (20, c), (40, b)] {
            alarms.set(at, id);
        }
        assert_eq!(alarms.take_due(9), None);
        assert_eq!(alarms.take_due(30), Some((10, b)));
        assert_eq!(alarms.take_due(30), Some((20, c)));
        assert_eq!(alarms.take_due(30), Some((30, a)));
        assert_eq!(alarms.take_due(30), None);
        assert_eq!(alarms.take_due(40), Some((40, b)));
    }

    #[test]
    fn a_crowd_that_has_gone_leaves_no_memory_behind() {
        let alarms = Alarms::default();
        for at in 0..100_000 {
            alarms.set(at, ConnectionId::default());
        }
        while alarms.take_due(Millis::MAX).is_some() {}
        assert!(alarms.0.borrow().capacity() <= SPARE);
    }
}

//! Which clients of a thread are to be flushed, and in which order.
//!
//! An event for thousands of members puts thousands of clients here at once, and flushing them takes
//! tens of milliseconds. The members of smaller rooms must not wait for that: there are two queues,
//! and each batch takes from both.

use std::collections::VecDeque;

use crate::ids::ConnectionId;

/// Of each [`PATTERN`] clients that are flushed, so many come from the prompt queue at least, where it
/// has them.
const PROMPT_SHARE: usize = 3;
const PATTERN: usize = 4;

/// When a client that something was pushed to is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// At the end of this turn.
    Prompt,
    /// Behind the prompt ones: it is one of very many receivers.
    Bulk,
    /// With whatever else is pushed to it, or when the [coalescer](crate::crowd) says so.
    Coalesced,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct FlushQueue {
    prompt: VecDeque<ConnectionId>,
    bulk: VecDeque<ConnectionId>,
    popped_bulk: usize,
}

impl FlushQueue {
    /// Adds a client. `true`: the queue was empty.
    pub fn push(&mut self, client: ConnectionId, urgency: Urgency) -> bool {
        let was_empty = self.is_empty();
        match urgency {
            Urgency::Prompt => self.prompt.push_back(client),
            Urgency::Bulk | Urgency::Coalesced => self.bulk.push_back(client),
        }
        was_empty
    }

    /// Takes out the client that is flushed as the `nth` of a batch.
    pub fn pop(&mut self, nth: usize) -> Option<ConnectionId> {
        let is_bulks_turn = nth % PATTERN >= PROMPT_SHARE;
        if (is_bulks_turn || self.prompt.is_empty())
            && let Some(client) = self.bulk.pop_front()
        {
            self.popped_bulk += 1;
            return Some(client);
        }
        self.prompt.pop_front()
    }

    /// How many clients of the bulk queue have been taken out so far.
    pub fn popped_bulk(&self) -> usize {
        self.popped_bulk
    }

    /// Whether the bulk queue is empty.
    pub fn is_bulk_empty(&self) -> bool {
        self.bulk.is_empty()
    }

    /// Whether none is here.
    pub fn is_empty(&self) -> bool {
        self.prompt.is_empty() && self.bulk.is_empty()
    }

    /// The clients that are flushed next, about `count` of them.
    pub fn next(&self, count: usize) -> impl Iterator<Item = ConnectionId> {
        let bulk = self
            .bulk
            .iter()
            .take(count.saturating_sub(self.prompt.len()));
        self.prompt.iter().take(count).chain(bulk).copied()
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn a_prompt_client_overtakes_a_bulk_of_them_which_goes_on() {
        let mut ids = SlotMap::<ConnectionId, ()>::default();
        let mut queue = FlushQueue::default();
        let bulk: [_; 5_000] = std::array::from_fn(|_| ids.insert(()));
        for (n, id) in bulk.iter().enumerate() {
            assert_eq!(queue.push(*id, Urgency::Bulk), n == 0);
        }
        let prompt: [_; 9] = std::array::from_fn(|_| ids.insert(()));
        for id in prompt {
            assert!(!queue.push(id, Urgency::Prompt));
        }
        let order: Vec<_> = (0..).map_while(|nth| queue.pop(nth)).collect();
        assert_eq!(queue.popped_bulk(), bulk.len());
        let place = |id: &ConnectionId| order.iter().position(|other| other == id).unwrap();
        assert!(prompt.iter().all(|id| place(id) < 12));
        assert_eq!(place(&bulk[0]), 3, "one in four");
        assert_eq!(order.len(), bulk.len() + prompt.len());
        assert!(bulk.iter().is_sorted_by_key(place));
        assert!(queue.is_empty());
    }
}

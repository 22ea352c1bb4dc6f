//! The requests that are on their way to one room, bounded.
//!
//! A room handles its requests one by one, and one broadcast in a room of thousands is thousands of
//! deliveries. So where many members send at once, only so many requests are read from their
//! sockets; the other members are paused and TCP slows them down. Without that bound a room's
//! mailbox would hold thousands of messages, and reading them would delay the other rooms of the
//! thread.
//!
//! The session adds, the room removes; both are on one thread.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use crate::ids::ConnectionId;

/// Requests on their way to one room at most.
pub const MAX_REQUESTS: usize = 256;

/// Once full, it is open again with this many left. Without the gap the few members that are woken
/// by their answers would fill it up again each time, and the paused ones would never be resumed.
const LOW_WATER: usize = MAX_REQUESTS / 2;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Backlog {
    requests: Cell<usize>,
    /// It has been full and is not yet down to the low-water mark.
    closed: Cell<bool>,
    /// Clients that have paused, in this order. None is here while there are no requests, so that a
    /// paused client is always resumed.
    paused: RefCell<VecDeque<ConnectionId>>,
}

impl Backlog {
    /// A request is sent to the room.
    pub fn add(&self) {
        let requests = self.requests.get() + 1;
        self.requests.set(requests);
        if requests >= MAX_REQUESTS {
            self.closed.set(true);
        }
    }

    /// Whether a client has to pause before its next request.
    pub fn is_full(&self) -> bool {
        self.closed.get()
    }

    /// Whether there are requests on their way.
    pub fn has_requests(&self) -> bool {
        self.requests.get() > 0
    }

    /// This client has paused. It is to call this once for each pause, and only while the backlog
    /// [is full](Self::is_full).
    pub fn pause(&self, client: ConnectionId) {
        self.paused.borrow_mut().push_back(client);
    }

    /// The room has received a request; the clients that are to be resumed now.
    pub fn remove(&self) -> Vec<ConnectionId> {
        let left = self.requests.get().saturating_sub(1);
        self.requests.set(left);
        if left > LOW_WATER {
            return Vec::new();
        }
        self.closed.set(false);
        let mut paused = self.paused.borrow_mut();
        let count = match left {
            // Nothing else would resume those that are left.
            0 => paused.len(),
            left => paused.len().min(MAX_REQUESTS - left),
        };
        let resumed = paused.drain(..count).collect();
        if paused.is_empty() {
            *paused = VecDeque::new();
        }
        resumed
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    fn ids<const N: usize>() -> [ConnectionId; N] {
        let mut ids = SlotMap::<ConnectionId, ()>::default();
        std::array::from_fn(|_| ids.insert(()))
    }

    #[test]
    fn paused_clients_are_resumed_in_order_at_the_low_water_mark() {
        let backlog = Backlog::default();
        let clients = ids::<300>();
        for _ in 0..MAX_REQUESTS {
            assert!(!backlog.is_full());
            backlog.add();
        }
        assert!(backlog.is_full());
        for client in clients {
            backlog.pause(client);
        }
        for _ in LOW_WATER + 1..MAX_REQUESTS {
            assert_eq!(backlog.remove(), []);
        }
        let (first, rest) = clients.split_at(MAX_REQUESTS - LOW_WATER);
        assert_eq!(backlog.remove(), first);
        assert!(!backlog.is_full());
        assert_eq!(backlog.remove()[0], rest[0]);
    }

    #[test]
    fn a_full_backlog_stays_closed_to_those_who_would_fill_it_again() {
        let backlog = Backlog::default();
        for _ in 0..MAX_REQUESTS {
            backlog.add();
        }
        let [paused] = ids();
        backlog.pause(paused);
        // A client that is woken by an answer finds it full until the paused ones had their turn.
        for _ in LOW_WATER + 1..MAX_REQUESTS {
            assert_eq!(backlog.remove(), []);
            assert!(backlog.is_full());
        }
        assert_eq!(backlog.remove(), [paused]);
        assert!(!backlog.is_full());
    }

    #[test]
    fn nobody_is_paused_while_the_room_has_no_requests() {
        let backlog = Backlog::default();
        let clients = ids::<2_000>();
        for _ in 0..MAX_REQUESTS {
            backlog.add();
        }
        for client in clients {
            backlog.pause(client);
        }
        let resumed: Vec<_> = (0..MAX_REQUESTS).flat_map(|_| backlog.remove()).collect();
        assert_eq!(resumed, clients);
        assert_eq!(backlog.remove(), [], "a request too many changes nothing");
    }
}

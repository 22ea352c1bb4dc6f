//! The ends of connections, some in each turn.
//!
//! Thousands of connections may end at one moment, and each end takes tens of microseconds, most of
//! them in the kernel. So a thread ends a batch of them, looks for news from the network, and then
//! wakes the next batch, in the order in which the connections came.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use crate::{clients, ids::ConnectionId};

/// Connections that end in one turn.
const ENDS_A_TURN: usize = 32;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// How many may have ended in this turn.
    taken: Cell<usize>,
    /// Those that wait for a later turn.
    waiting: RefCell<VecDeque<ConnectionId>>,
}

impl Ends {
    /// Whether a connection may end in this turn. `false`: a later turn
    /// [allows](crate::client::Client::allow_end) it. To be called once for each connection.
    #[must_use]
    pub(super) fn enter(self: &Rc<Self>, client: ConnectionId) -> bool {
        let taken = self.taken.get();
        if taken >= ENDS_A_TURN || !self.waiting.borrow().is_empty() {
            self.waiting.borrow_mut().push_back(client);
            return false;
        }
        if taken == 0 {
            actix_rt::spawn(run_turns(self.clone()));
        }
        self.taken.set(taken + 1);
        true
    }

    /// Begins a turn: the connections that may end in it.
    fn next_turn(&self) -> Vec<ConnectionId> {
        let mut waiting = self.waiting.borrow_mut();
        let count = waiting.len().min(ENDS_A_TURN);
        let batch: Vec<_> = waiting.drain(..count).collect();
        if waiting.is_empty() {
            *waiting = VecDeque::new();
        }
        self.taken.set(batch.len());
        batch
    }
}

/// Runs until a turn has begun in which no connection ends.
async fn run_turns(ends: Rc<Ends>) {
    loop {
        tokio::task::yield_now().await;
        let batch = ends.next_turn();
        if batch.is_empty() {
            return;
        }
        clients::with(|clients| {
            for client in batch.into_iter().filter_map(|id| clients.get(id)) {
                client.allow_end();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn connections_end_in_batches_and_in_their_order() {
        actix_rt::System::new().block_on(async {
            let ends = Rc::new(Ends::default());
            let mut ids = SlotMap::<ConnectionId, ()>::default();
            let ids: Vec<_> = (0..100).map(|_| ids.insert(())).collect();
            let at_once: Vec<_> = ids.iter().filter(|id| ends.enter(**id)).collect();
            assert_eq!(at_once, ids[..ENDS_A_TURN].iter().collect::<Vec<_>>());

            assert_eq!(ends.next_turn(), ids[ENDS_A_TURN..2 * ENDS_A_TURN]);
            assert_eq!(ends.next_turn(), ids[2 * ENDS_A_TURN..3 * ENDS_A_TURN]);
            // A later one does not overtake those that wait.
            let mut later = SlotMap::<ConnectionId, ()>::default();
            let later = later.insert(());
            assert!(!ends.enter(later));
            assert_eq!(
                ends.next_turn(),
                [&ids[3 * ENDS_A_TURN..], &[later]].concat()
            );
            assert_eq!(ends.next_turn(), []);
            assert!(ends.enter(later), "a turn without ends is over");
        });
    }
}

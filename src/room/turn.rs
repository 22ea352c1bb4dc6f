//! How much a room does before it yields.

use actix::{AsyncContext, Context, fut::wrap_future};

use super::RoomActor;

/// Deliveries after which a room yields: well under a millisecond of work.
const BUDGET: usize = 2048;

/// What each command costs beside its deliveries, in deliveries.
const COMMAND_COST: usize = 4;

/// The work that a room has done since it last yielded.
///
/// actix empties a mailbox in one go, and one message may be thousands of deliveries. So a room whose
/// budget is spent makes its mailbox wait for a yield to the I/O driver, in which the other tasks of
/// the thread run: connections, other rooms, the flusher.
#[derive(Debug, Default)]
pub(super) struct Turn {
    spent: usize,
}

impl Turn {
    /// Adds what something has cost, in deliveries.
    pub(super) fn spend(&mut self, deliveries: usize) {
        self.spent = self.spent.saturating_add(deliveries);
    }

    /// Called after each command; yields where the budget is spent.
    pub(super) fn end_if_spent(&mut self, ctx: &mut Context<RoomActor>) {
        self.spend(COMMAND_COST);
        if self.spent >= BUDGET {
            self.spent = 0;
            ctx.wait(wrap_future(tokio::task::yield_now()));
        }
    }
}

//! How much a room does before it yields.

use actix::{AsyncContext, Context, fut::wrap_future};

use super::RoomActor;
use crate::clients::{self, Clients};

/// What a room may spend before it yields: some milliseconds of work. The unit is the delivery of one
/// [collected](super::fan_out) event to one member.
const BUDGET: usize = 100_000;

/// What each member costs to which collected events are delivered, however many they are.
const VISIT_COST: usize = 4;

/// What a delivery costs that stands alone.
const DELIVERY_COST: usize = 8;

/// What each command costs beside its deliveries.
const COMMAND_COST: usize = 32;

/// While a room has more to do, its clients are flushed with about this many events each. Longer
/// writes cost less, but so many events have to fit into `send_queue`.
const EVENTS_A_WRITE: usize = 192;

/// The work that a room has done since it last yielded.
///
/// actix empties a mailbox in one go, and one message may be thousands of deliveries. So a room whose
/// budget is spent makes its mailbox wait for a yield to the I/O driver, in which the other tasks of
/// the thread run: connections, other rooms, the flusher.
#[derive(Debug, Default)]
pub(super) struct Turn {
    spent: usize,
    deliveries: usize,
}

impl Turn {
    /// Adds deliveries, or work of that size.
    pub(super) fn spend(&mut self, deliveries: usize) {
        self.deliveries = self.deliveries.saturating_add(deliveries);
        self.add(deliveries, DELIVERY_COST);
    }

    /// Adds deliveries of a collected event.
    pub(super) fn spend_collected(&mut self, deliveries: usize) {
        self.deliveries = self.deliveries.saturating_add(deliveries);
        self.add(deliveries, 1);
    }

    /// Adds members to which collected events are delivered.
    pub(super) fn spend_visits(&mut self, members: usize) {
        self.add(members, VISIT_COST);
    }

    /// Called after each command. Where the budget is spent the room has to yield, and a new turn
    /// begins: the deliveries of the turn that is over.
    #[must_use]
    pub(super) fn end_command(&mut self) -> Option<usize> {
        self.add(1, COMMAND_COST);
        (self.spent >= BUDGET).then(|| std::mem::take(self).deliveries)
    }

    fn add(&mut self, count: usize, cost: usize) {
        self.spent = self.spent.saturating_add(count.saturating_mul(cost));
    }
}

/// Makes the mailbox of a room wait for a yield to the I/O driver, and then until the flusher has
/// kept pace with the deliveries of the turn.
pub(super) fn yield_turn(deliveries: usize, ctx: &mut Context<RoomActor>) {
    ctx.wait(wrap_future(async move {
        let target = clients::with(Clients::flushed_in_bulk) + deliveries / EVENTS_A_WRITE;
        let keeps_pace =
            |clients: &Clients| clients.is_bulk_flushed() || clients.flushed_in_bulk() >= target;
        loop {
            tokio::task::yield_now().await;
            if clients::with(keeps_pace) {
                return;
            }
        }
    }));
}

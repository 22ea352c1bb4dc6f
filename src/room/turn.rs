//! How much a room does before it yields.

use std::{cell::Cell, rc::Rc};

use actix::{AsyncContext, Context, fut::wrap_future};

use super::RoomActor;

/// Deliveries after which a room yields: about a millisecond of work.
const BUDGET: usize = 8192;

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

    /// Called after each command. `true`: the budget is spent, the room has to yield, and a new turn
    /// begins.
    #[must_use]
    pub(super) fn end_command(&mut self) -> bool {
        self.spend(COMMAND_COST);
        let is_over = self.spent >= BUDGET;
        if is_over {
            self.spent = 0;
        }
        is_over
    }
}

/// Makes the mailbox of a room wait for a yield to the I/O driver.
pub(super) fn yield_turn(ctx: &mut Context<RoomActor>, yielding: &YieldingRooms) {
    let guard = yielding.enter();
    ctx.wait(wrap_future(async move {
        tokio::task::yield_now().await;
        drop(guard);
    }));
}

/// How many rooms of a thread have yielded with more to do, as far as is known.
#[derive(Clone, Debug, Default)]
pub struct YieldingRooms(Rc<Cell<usize>>);

impl YieldingRooms {
    /// Whether there are any.
    pub fn any(&self) -> bool {
        self.0.get() > 0
    }

    fn enter(&self) -> YieldingRoom {
        self.0.set(self.0.get() + 1);
        YieldingRoom(self.0.clone())
    }
}

/// A room that has yielded, counted until this is dropped.
struct YieldingRoom(Rc<Cell<usize>>);

impl Drop for YieldingRoom {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

//! One room: what its observer has seen, and those whose story has yet to be held against that.

use std::cell::{Cell, RefCell};

use super::{
    figures::Figures,
    ledger::{Ending, Ledger, Life},
};

/// The endpoint that watches.
pub(crate) const OBSERVER: &str = "observer";
/// The endpoint that has the last word.
pub(crate) const CLOSER: &str = "closer";
/// What it says.
pub(crate) const LAST_WORD: &str = "that is all";

/// See the module's text.
pub(crate) struct Room {
    pub(crate) channel: String,
    /// While its observer is there.
    pub(crate) ledger: RefCell<Option<Ledger>>,
    /// Sessions that are over.
    over: RefCell<Vec<Over>>,
    /// The number of the last word.
    pub(crate) last_word: Cell<Option<u64>>,
}

/// A session that is over.
struct Over {
    endpoint: String,
    life: Life,
    how: How,
}

/// What a session that is over was owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// All up to its leave.
    Left,
    /// Nobody knows how much.
    Cut,
    /// All up to the last word.
    ToTheEnd,
}

impl Room {
    pub(crate) fn new(n: usize) -> Self {
        Self {
            channel: format!("room {n}"),
            ledger: RefCell::default(),
            over: RefCell::default(),
            last_word: Cell::default(),
        }
    }

    /// Before the next round.
    pub(crate) fn clear(&self) {
        self.ledger.take();
        self.over.take();
        self.last_word.take();
    }

    /// Nobody watches any more until the next round.
    pub(crate) fn abandon(&self) {
        self.ledger.take();
        self.over.take();
    }

    /// A session is over; it is judged as soon as all is known.
    pub(crate) fn is_over(&self, endpoint: &str, life: Life, how: How) {
        self.over.borrow_mut().push(Over {
            endpoint: endpoint.to_owned(),
            life,
            how,
        });
    }

    /// Judges those of whom all is known, and forgets what nobody needs any more.
    pub(crate) fn settle(&self, figures: &Figures) {
        let mut ledger = self.ledger.borrow_mut();
        let Some(ledger) = &mut *ledger else {
            // What they were told cannot be held against anything.
            return self.over.borrow_mut().clear();
        };
        self.over.borrow_mut().retain_mut(|over| {
            let ending = match (over.how, self.last_word.get()) {
                (How::Left, _) => Ending::Told,
                (How::Cut, _) => Ending::Cut,
                (How::ToTheEnd, Some(number)) => Ending::At(number),
                (How::ToTheEnd, None) => return true,
            };
            match over.life.settle(ending, ledger) {
                Ok(settled) => !settled,
                Err(fault) => {
                    figures.fault(&fault, &self.channel, &over.endpoint);
                    false
                }
            }
        });
        ledger.forget();
    }

    /// How many are still to be judged.
    pub(crate) fn unsettled(&self) -> usize {
        self.over.borrow().len()
    }
}

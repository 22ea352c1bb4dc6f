//! How far a session has got on its connection: what a member that is lost and comes back needs
//! to go on from there.
//!
//! The connection writes it down, the room reads it when the member is re-attached. Both stand
//! on one thread.

use std::cell::Cell;

use crate::protocol::cseq::Cseq;

/// See the module's text. Each connection of a session has one of its own, so that a late word of
/// the old one changes nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress {
    sent_up_to: Cell<u64>,
    last_cseq: Cell<Cseq>,
}

impl Progress {
    /// On a new connection: the events up to this number are none of its concern, and this was
    /// the session's last request.
    pub fn new(sent_up_to: u64, last_cseq: Cseq) -> Self {
        Self {
            sent_up_to: Cell::new(sent_up_to),
            last_cseq: Cell::new(last_cseq),
        }
    }

    /// The number of the last event that the connection was sent. Up to date once the connection
    /// has ended or was asked to say.
    pub fn sent_up_to(&self) -> u64 {
        self.sent_up_to.get()
    }

    /// The connection was sent every event of its up to this number.
    pub fn set_sent_up_to(&self, number: u64) {
        self.sent_up_to.set(number);
    }

    /// The number of the last request that was one of this session, its join being the first and
    /// a resume being none: a client may send again what it had sent before that.
    pub fn last_cseq(&self) -> Cseq {
        self.last_cseq.get()
    }

    /// A request of this session was taken in.
    pub fn set_last_cseq(&self, cseq: Cseq) {
        self.last_cseq.set(cseq);
    }
}

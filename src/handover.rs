//! What goes along when a connection moves to the thread of the room that it joins.

use std::sync::Arc;

use crate::{
    auth::Authorized, clock::Millis, handshake::Handshake, outbox::Unsent,
    protocol::reply::ReplyTo, rate::RateLimit,
};

/// A connection moves, and a join on the same thread begins, only once no more than this waits to be
/// written to it. A move makes a copy of what waits, and each stay in a room may add a replay, which
/// does not count as waiting: a client that reads nothing and moves from room to room would cost
/// more memory with each.
pub const MAX_MOVED_BYTES: usize = 64 * 1024;

/// What a client brings along beside its socket: from its upgrade, or from another thread.
#[derive(Debug)]
pub struct Baggage {
    /// What its upgrade said.
    pub handshake: Arc<Handshake>,
    /// What is still to be written to it.
    pub unsent: Unsent,
    /// How much it may say.
    pub rate: Option<Arc<RateLimit>>,
    /// For how long it has been in no room.
    pub outside_for: Millis,
    /// For how long its socket has taken nothing of what is to be written, if it is full.
    pub blocked_for: Option<Millis>,
}

/// A join on its way.
#[derive(Debug)]
pub struct PendingJoin {
    /// The join.
    pub join: Authorized,
    /// Where its answer goes.
    pub reply_to: ReplyTo,
}

/// A join that is to be done on another thread, the one of its room.
#[derive(Debug)]
pub struct Handover {
    /// The thread.
    pub worker: usize,
    /// The join.
    pub pending: PendingJoin,
}

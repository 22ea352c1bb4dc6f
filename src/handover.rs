//! What goes along when a connection moves to the thread of the room that it joins.

use std::sync::Arc;

use crate::{
    auth::Authorized, clock::Millis, handshake::Handshake, protocol::reply::ReplyTo,
    rate::RateLimit,
};

/// What a client brings along beside its socket: from its upgrade, or from another thread.
#[derive(Debug)]
pub struct Baggage {
    /// What its upgrade said.
    pub handshake: Arc<Handshake>,
    /// What is still to be written to it.
    pub unsent: Vec<u8>,
    /// How much it may say.
    pub rate: Option<Box<RateLimit>>,
    /// For how long it has been in no room.
    pub outside_for: Millis,
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

//! One who is in a room.

use std::sync::Arc;

use crate::{
    ids::{ConnectionId, MemberId, SessionId},
    protocol::{
        event::Who,
        request::{Role, Stream},
    },
};

/// One who is in the room.
#[derive(Debug)]
pub struct Member {
    /// Its place in the order of joins.
    pub id: MemberId,
    /// Where it is reached.
    pub connection: ConnectionId,
    /// Whether its join carried `last_event`: its events then carry their number.
    pub numbered: bool,
    /// What it is in the room for.
    pub role: Role,
    /// Its secret.
    pub session: SessionId,
    /// Its names.
    pub who: Arc<Who>,
    /// What it publishes. One stream at most.
    pub stream: Option<Box<Stream>>,
}

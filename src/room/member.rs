//! One who is in a room.

use std::{rc::Rc, sync::Arc};

use crate::{
    clock::Millis,
    ending::Ending,
    grants::{Grants, IssuedAt},
    ids::{ConnectionId, MemberId, SessionId},
    progress::Progress,
    protocol::{
        event::Who,
        request::{Role, Stream},
    },
    rate::RateLimit,
};

/// One who is in the room, on a connection or waited for.
#[derive(Debug)]
pub struct Member {
    /// Its place in the order of joins.
    pub id: MemberId,
    /// Whether it can be reached.
    pub presence: Presence,
    /// The number of its own join: what came before was never meant for it.
    pub joined: u64,
    /// Whether it understands event numbers: its events then carry their number.
    pub numbered: bool,
    /// What it is in the room for.
    pub role: Role,
    /// What it may do.
    pub grants: Grants,
    /// When the token was issued that has set them.
    pub granted_by: Option<IssuedAt>,
    /// Its secret.
    pub session: SessionId,
    /// Its names.
    pub who: Rc<Who>,
    /// What it publishes. One stream at most.
    pub stream: Option<Box<Stream>>,
    /// How far it has got on its present connection, or had on its last.
    pub progress: Rc<Progress>,
    /// Its rate limit, which a resume hands to the new connection. `None`: it has none.
    pub allowance: Option<Arc<RateLimit>>,
}

/// Whether a member can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Over this connection.
    Attached(ConnectionId),
    /// Its connection was lost. For a while it is a member like any other, and may come back.
    Detached {
        /// When it was lost.
        since: Millis,
        /// Of what.
        why: Ending,
    },
}

impl Member {
    /// The connection over which it is reached.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self.presence {
            Presence::Attached(connection) => Some(connection),
            Presence::Detached { .. } => None,
        }
    }
}

//! The guard that takes a session's connection out of its room.
//!
//! Every way out of a session (a close, an error, a timeout, a cut socket, a panic) drops the
//! connection's [`Membership`], and that is the one place from which the room hears of it, and
//! decides whether the member leaves or is waited for.

use std::{rc::Rc, sync::Arc};

use actix::prelude::*;

use crate::{
    ending::Ending,
    ids::{ConnectionId, Endpoint, MemberId, RoomId, RoomName, SessionId},
    progress::Progress,
    protocol::{event::Who, request::JoinRequest},
};

/// To the registry: the connection of a member has ended without having asked.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SessionEnded {
    /// The room it was in.
    pub room: RoomId,
    /// Who it was there.
    pub member: MemberId,
    /// Over which connection.
    pub connection: ConnectionId,
    /// Why.
    pub ending: Ending,
}

/// A place in a room that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The room.
    pub room: RoomName,
    /// The endpoint; `None`: whatever the server makes.
    pub endpoint: Option<Endpoint>,
}

impl From<&JoinRequest> for Wanted {
    fn from(join: &JoinRequest) -> Self {
        Self {
            room: join.room.clone(),
            endpoint: join.endpoint.clone(),
        }
    }
}

/// A member's place in a room.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The room.
    pub room: RoomId,
    /// Who it is there.
    pub member: MemberId,
    /// Its session.
    pub session: SessionId,
    /// The room's name, for the log.
    pub name: Rc<RoomName>,
    /// Its own names, for the log.
    pub who: Arc<Who>,
    /// Where its connection writes down how far it has got.
    pub progress: Rc<Progress>,
    /// Whether the room waits for it when its connection is lost.
    pub is_waited_for: bool,
}

impl Seat {
    /// Whether the room waits for its member when its connection has ended like that.
    pub fn is_waited_for_after(&self, ending: Ending) -> bool {
        // At the end of the room or the server there is nothing to wait for.
        let for_good = matches!(ending, Ending::RoomFailed | Ending::Shutdown);
        self.is_waited_for && ending.is_loss() && !for_good
    }
}

/// That a connection is in a room, from the moment the room grants it.
pub struct Membership {
    /// Where it is.
    pub seat: Seat,
    connection: ConnectionId,
    registry: Option<Rc<Recipient<SessionEnded>>>,
    /// Why it ends; what a panic leaves behind is a loss.
    ending: Ending,
}

impl Membership {
    /// Has `registry` hear of it when it is dropped.
    pub fn guarded_by(
        seat: Seat,
        connection: ConnectionId,
        registry: Rc<Recipient<SessionEnded>>,
    ) -> Self {
        Self {
            seat,
            connection,
            registry: Some(registry),
            ending: Ending::Lost,
        }
    }

    /// Ends it, and says why.
    pub fn end(mut self, ending: Ending) {
        self.ending = ending;
    }

    /// Ends it without a word to the room, which knows.
    pub fn dissolve(mut self, ending: Ending) {
        self.ending = ending;
        self.registry = None;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.take() {
            registry.do_send(SessionEnded {
                room: self.seat.room,
                member: self.seat.member,
                connection: self.connection,
                ending: self.ending,
            });
        }
    }
}

//! The guard that takes a session out of its room.
//!
//! Every way out of a session (a close, an error, a timeout, a cut socket, a panic) drops the
//! connection's [`Membership`], and that is the one place from which the room hears of it.

use std::{rc::Rc, sync::Arc};

use actix::prelude::*;

use crate::{
    ending::Ending,
    ids::{Endpoint, MemberId, RoomId, RoomName, SessionId},
    protocol::{event::Who, request::JoinRequest},
};

/// To the registry: a session is over without having asked.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SessionEnded {
    /// The room it was in.
    pub room: RoomId,
    /// Who it was there.
    pub member: MemberId,
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
}

/// That a connection is in a room, from the moment the room grants it.
pub struct Membership {
    /// Where it is.
    pub seat: Seat,
    registry: Option<Rc<Recipient<SessionEnded>>>,
    /// Why it ends; what a panic leaves behind is a loss.
    ending: Ending,
}

impl Membership {
    /// Has `registry` hear of it when it is dropped.
    pub fn guarded_by(seat: Seat, registry: Rc<Recipient<SessionEnded>>) -> Self {
        Self {
            seat,
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
                ending: self.ending,
            });
        }
    }
}

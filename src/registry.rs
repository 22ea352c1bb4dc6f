//! The RegistryActor: one on each worker thread. It opens the thread's rooms, ends them, and
//! routes every join, leave, stream and broadcast to the room it is for.

pub mod directory;

use std::sync::Arc;

use actix::prelude::*;

use crate::{
    clients,
    crew::{AreYouThere, Crew, MediaServerDown},
    ids::RoomId,
    membership::SessionEnded,
    protocol::error::{ErrorCode, Refusal},
    registry::directory::Directory,
    room::{ConnectionEnded, GoDown, Join, MemberRequest, RoomActor, RoomReport, rules::Rules},
    ticket::Ticket,
    vital::Vital,
};

/// The rooms of a thread.
pub struct RegistryActor {
    directory: Directory<Addr<RoomActor>>,
    crew: Arc<Crew>,
    _vital: Vital,
}

/// A request of a member for its room.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ToRoom {
    /// The room.
    pub room: RoomId,
    /// The request.
    pub request: MemberRequest,
}

impl RegistryActor {
    /// A registry without rooms.
    pub fn new(crew: Arc<Crew>) -> Self {
        Self {
            directory: Directory::default(),
            crew,
            _vital: Vital("the registry"),
        }
    }
}

impl RegistryActor {
    /// Why no member may begin on the connection of this join, where that is so.
    fn limit(&self, ticket: &Ticket) -> Option<Refusal> {
        let client = clients::with(|clients| clients.get(ticket.client()))?;
        let checked = self
            .crew
            .admission()
            .check_new_member(client.handshake().client);
        checked
            .err()
            .map(|limit| Refusal::new(ErrorCode::Unavailable, limit.to_string()))
    }
}

impl Actor for RegistryActor {
    type Context = Context<Self>;
}

impl Handler<Join> for RegistryActor {
    type Result = ();

    fn handle(&mut self, mut join: Join, ctx: &mut Self::Context) {
        // An expired token opens no room: it can only resume a session, and the token is checked
        // before the limit of rooms.
        if join.join.has_expired && !self.directory.is_open(&join.join.request.room) {
            return join.ticket.refuse(&Refusal::no_session_to_resume());
        }
        join.limit = self.limit(&join.ticket);
        let settings = self.crew.settings();
        join.max_members = settings.rooms.max_members;
        let opened = self
            .directory
            .join(join.join.request.room.clone(), |id, name| {
                let counted = self.crew.admission().open_room()?;
                let registry = ctx.address();
                let room = RoomActor::new(
                    id,
                    name.clone(),
                    Rules::of(&settings),
                    self.crew.media().clone(),
                    counted,
                    registry.clone().recipient(),
                    registry.recipient(),
                );
                Some(room.start())
            });
        match opened {
            Some(room) => room.do_send(join),
            None => join.ticket.refuse(&Refusal::new(
                ErrorCode::Unavailable,
                "the server has as many rooms as it may have",
            )),
        }
    }
}

impl Handler<ToRoom> for RegistryActor {
    type Result = ();

    fn handle(&mut self, message: ToRoom, _: &mut Self::Context) {
        // Without the room the request is dropped, and with it its ticket, which answers.
        if let Some(room) = self.directory.room(message.room) {
            room.do_send(message.request);
        }
    }
}

impl Handler<SessionEnded> for RegistryActor {
    type Result = ();

    fn handle(&mut self, ended: SessionEnded, _: &mut Self::Context) {
        if let Some(room) = self.directory.room(ended.room) {
            let admission = self.crew.admission();
            let detached = ended
                .ending
                .is_loss()
                .then(|| admission.detach(ended.client));
            room.do_send(ConnectionEnded { ended, detached });
        }
    }
}

impl Handler<RoomReport> for RegistryActor {
    type Result = ();

    fn handle(&mut self, report: RoomReport, _: &mut Self::Context) {
        // The room's address goes with its entry, and an actor without an address ends.
        match report {
            RoomReport::Emptied { room, joins } => {
                self.directory.emptied(room, joins);
            }
            RoomReport::Failed { room } => self.directory.remove(room),
        }
    }
}

impl Handler<GoDown> for RegistryActor {
    type Result = ();

    fn handle(&mut self, _: GoDown, _: &mut Self::Context) {
        for room in self.directory.rooms() {
            room.do_send(GoDown);
        }
    }
}

impl Handler<MediaServerDown> for RegistryActor {
    type Result = ();

    fn handle(&mut self, down: MediaServerDown, _: &mut Self::Context) {
        for room in self.directory.rooms() {
            room.do_send(down);
        }
    }
}

impl Handler<AreYouThere> for RegistryActor {
    type Result = ();

    fn handle(&mut self, _: AreYouThere, _: &mut Self::Context) {}
}

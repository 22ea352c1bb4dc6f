//! The guard that takes a session's connection out of its room.
//!
//! Every way out of a session (a close, an error, a timeout, a cut socket, a panic) drops the
//! connection's [`Membership`], and that is the one place from which the room hears of it, and
//! decides whether the member leaves or is waited for.

use std::{net::IpAddr, rc::Rc};

use actix::prelude::*;

use crate::{
    ending::Ending,
    handshake::Handshake,
    ids::{ConnectionId, Endpoint, MemberId, RoomId, RoomName, SessionId},
    progress::Progress,
    protocol::{event::Who, request::JoinRequest},
    room::backlog::Backlog,
    tally::Tally,
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
    /// Where the client came from.
    pub client: Option<IpAddr>,
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
    pub who: Rc<Who>,
    /// Where its connection writes down how far it has got.
    pub progress: Rc<Progress>,
    /// Whether the room waits for it when its connection is lost.
    pub is_waited_for: bool,
    /// The requests on their way to the room.
    pub backlog: Rc<Backlog>,
}

impl Seat {
    /// Whether the room waits for its member when its connection has ended like that.
    fn is_waited_for_after(&self, ending: Ending) -> bool {
        // At the end of the room or the server there is nothing to wait for.
        let for_good = matches!(ending, Ending::RoomFailed | Ending::Shutdown);
        self.is_waited_for && ending.is_loss() && !for_good
    }

    /// Logs what one person's time in a room came to, on one connection. Where the room waits for
    /// it, it is only the connection that is lost.
    pub fn log_end(&self, ending: Ending, handshake: &Handshake, tally: &Tally) {
        if !log::log_enabled!(log::Level::Info) {
            return;
        }
        let figures = tally.figures();
        log::info!(
            app = self.name.app.as_str(),
            channel = self.name.channel.as_str(),
            endpoint = self.who.endpoint().as_str(),
            sid = self.session.sid(),
            client:% = handshake.shown_address(),
            why = ending.as_str(),
            close_code = figures.close_code,
            seconds = figures.duration.as_secs_f64(),
            messages_in = figures.messages_in,
            messages_out = figures.messages_out,
            bytes_in = figures.bytes_in,
            bytes_out = figures.bytes_out,
            longest_queue = figures.longest_queue,
            ping_ms = figures.round_trip.map(|ping| ping.as_secs_f64() * 1e3);
            "{}", if self.is_waited_for_after(ending) { "lost" } else { "leave" }
        );
    }
}

/// That a connection is in a room, from the moment the room grants it.
pub struct Membership {
    /// Where it is.
    pub seat: Seat,
    connection: ConnectionId,
    client: Option<IpAddr>,
    registry: Option<Rc<Recipient<SessionEnded>>>,
    /// Why it ends; what a panic leaves behind is a loss.
    ending: Ending,
}

impl Membership {
    /// Has `registry` hear of it when it is dropped.
    pub fn guarded_by(
        seat: Seat,
        connection: ConnectionId,
        client: Option<IpAddr>,
        registry: Rc<Recipient<SessionEnded>>,
    ) -> Self {
        Self {
            seat,
            connection,
            client,
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
                client: self.client,
            });
        }
    }
}

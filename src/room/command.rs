//! What goes into a room and what comes out of it: the words that its actor and its
//! [state](super::state) have in common.

use std::{rc::Rc, sync::Arc, time::Instant};

use crate::{
    clock::Millis,
    ending::Ending,
    grants::{Grants, IssuedAt},
    ids::{ClaimedSession, ConnectionId, Device, Endpoint, MemberId, SessionId, StreamId},
    progress::Progress,
    protocol::{
        cseq::Cseq,
        error::Refusal,
        event::{EventFrame, Payload, RoomEvent, Who},
        request::{Role, Stream},
    },
    rate::RateLimit,
};

/// When a command is carried out.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the thread's clock, which decides what is over.
    pub now: Millis,
    /// By the system's, from which delays are reckoned.
    pub at: Instant,
}

/// What a join brings along.
#[derive(Debug)]
pub struct Joining {
    /// Where the new member is reached.
    pub connection: ConnectionId,
    /// Its new session.
    pub session: SessionId,
    /// Its endpoint; one that the server has made where the join names none.
    pub endpoint: Endpoint,
    /// Its device.
    pub device: Device,
    /// Its role.
    pub role: Role,
    /// The number of the last event that it knows, where it understands event numbers.
    pub last_event: Option<u64>,
    /// The number of the request.
    pub cseq: Cseq,
    /// What it may do.
    pub grants: Grants,
    /// When the token was issued that says so.
    pub issued_at: Option<IssuedAt>,
    /// Its token has expired, which is good enough to go on with a session and not to begin one.
    pub has_expired: bool,
    /// The session with which it would go on.
    pub resume: Option<Resume>,
    /// Why no member may begin on this connection, where a limit is reached. A resume or a
    /// replacement needs no further place and is granted all the same.
    pub limit: Option<Refusal>,
    /// The rate limit of its connection.
    pub allowance: Option<Arc<RateLimit>>,
}

/// What a join says of an earlier session.
#[derive(Clone, Copy, Debug)]
pub struct Resume {
    /// The session.
    pub session: ClaimedSession,
    /// Whether the join names an endpoint; the session's must then be the same.
    pub endpoint_named: bool,
}

/// Everything that can happen to a room.
#[derive(Debug)]
pub enum Command {
    /// channel.join
    Join(Joining),
    /// channel.leave, over this connection
    Leave(MemberId, ConnectionId),
    /// The member's connection has ended, for this reason.
    End(MemberId, ConnectionId, Ending),
    /// stream.add
    Publish(MemberId, Stream),
    /// stream.delete
    Unpublish(MemberId, StreamId),
    /// channel.dump
    Dump(MemberId),
    /// broadcast
    Broadcast(MemberId, Payload),
    /// Nothing, but that time has passed.
    Elapse,
    /// Nobody is waited for any more.
    Abandon,
}

/// What is to be sent, and to whom.
#[derive(Debug)]
pub enum Output {
    /// To the one who asked.
    Answer(Result<Answer, Refusal>),
    /// To all attached members that there are after the command, but one.
    Event {
        /// What happened.
        event: RoomEvent,
        /// The same as it is sent.
        frame: Rc<EventFrame>,
        /// Who caused it, where that member is in the room.
        except: Option<MemberId>,
        /// The session of the member that it is about.
        session: SessionId,
        /// No client has caused it: a member has expired.
        by_server: bool,
    },
    /// To the one who asked, behind the answer: what it has missed, in order.
    Replay {
        /// Whether it understands event numbers.
        numbered: bool,
        /// The events.
        events: Vec<Rc<EventFrame>>,
    },
    /// This connection is its member's no more.
    Unseated {
        /// The connection.
        connection: ConnectionId,
        /// [`Ending::Replaced`] or [`Ending::TakenOver`].
        why: Ending,
    },
    /// A member that was waited for is one no more.
    Departed {
        /// Who it was.
        member: MemberId,
        /// Its session.
        session: SessionId,
        /// Its names.
        who: Rc<Who>,
        /// Why its connection was lost; [`Ending::Replaced`] where its endpoint has joined anew.
        why: Ending,
        /// For how long it was waited for.
        away: Millis,
    },
}

/// A request that was granted.
#[derive(Debug)]
pub enum Answer {
    /// channel.join
    Joined(Joined),
    /// channel.leave
    Left,
    /// stream.add, stream.delete, broadcast
    Done,
    /// channel.dump: the list as JSON, shared by all who ask until something changes.
    Dump(Rc<[u8]>),
}

/// Who one is from now on.
#[derive(Debug)]
pub struct Joined {
    /// The member.
    pub member: MemberId,
    /// Its session.
    pub session: SessionId,
    /// Its names.
    pub who: Rc<Who>,
    /// The room's event number now, an own join event included.
    pub last_event: u64,
    /// Where its connection writes down how far it has got.
    pub progress: Rc<Progress>,
    /// The rate limit of the member from now on: an older one than the connection's own where it
    /// resumes or replaces a member.
    pub allowance: Option<Arc<RateLimit>>,
    /// What came of the session that it named.
    pub resumption: Resumption,
}

/// What came of the session with which a join would go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// It named none.
    Unasked,
    /// It is an ordinary join: the session is not known here, belongs to another endpoint, or has
    /// missed more than is kept.
    Failed,
    /// The member has come back.
    Resumed {
        /// Its last request before.
        last_cseq: Cseq,
        /// How long it was without a connection; `None`: it had one until now.
        away: Option<Millis>,
        /// How many events it has missed.
        missed: usize,
    },
}

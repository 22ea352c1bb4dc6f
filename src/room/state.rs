//! The rules of a room, pure: no actor, no clock, no socket.
//!
//! A [`Command`] goes in, [`Output`]s come out in the order in which they are to be sent. What
//! the room says has one order for all members, and an event's number is its place in it: a
//! channel.dump answer is exactly the state between the outputs before and after it.

use std::{rc::Rc, sync::Arc};

use crate::{
    ids::{ConnectionId, Device, Endpoint, MemberId, SessionId, StreamId},
    protocol::{
        error::{ErrorCode, Refusal},
        event::{Payload, RoomEvent, Who},
        request::{Role, Stream},
    },
    room::{member::Member, roster},
};

/// What a join brings along.
#[derive(Debug)]
pub struct Joining {
    /// Where the new member is reached.
    pub connection: ConnectionId,
    /// Its new session.
    pub session: SessionId,
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// Its device.
    pub device: Device,
    /// Its role.
    pub role: Role,
    /// Whether it understands event numbers.
    pub numbered: bool,
}

/// Everything that can happen to a room.
#[derive(Debug)]
pub enum Command {
    /// channel.join
    Join(Joining),
    /// channel.leave
    Leave(MemberId),
    /// The member's session ended without a request: closed, lost, whatever.
    End(MemberId),
    /// stream.add
    Publish(MemberId, Stream),
    /// stream.delete
    Unpublish(MemberId, StreamId),
    /// channel.dump
    Dump(MemberId),
    /// broadcast
    Broadcast(MemberId, Payload),
}

/// What is to be sent, and to whom.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// To the one who asked.
    Answer(Result<Answer, Refusal>),
    /// To all members that there are after the command, but one.
    Event {
        /// The room's event number.
        number: u64,
        /// What happened.
        event: RoomEvent,
        /// Who caused it, where that member is in the room.
        except: Option<MemberId>,
    },
    /// The connection whose member was put out by a newer connection of its endpoint.
    Replaced(ConnectionId),
}

/// A request that was granted.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// channel.join: the new member, and the room's event number with this join counted.
    Joined {
        /// Who it is from now on.
        member: MemberId,
        /// Its session.
        session: SessionId,
        /// Its names.
        who: Arc<Who>,
        /// The number of its own join event.
        last_event: u64,
    },
    /// channel.leave
    Left,
    /// stream.add, stream.delete, broadcast
    Done,
    /// channel.dump: the list as JSON, shared by all who ask until something changes.
    Dump(Rc<[u8]>),
}

/// A room: its members and their streams.
#[derive(Debug, Default)]
pub struct RoomState {
    /// How many members there may be; 0: any number.
    max_members: usize,
    /// In join order, which is the order of their ids: found by binary search. Endpoints and
    /// streams are looked for one by one: both happen only where every member is about to be
    /// sent an event anyway.
    members: Vec<Member>,
    /// How many members there have been.
    joins: u64,
    /// The number of the last event.
    last_event: u64,
    /// How many members publish.
    streams: usize,
    /// The answer to channel.dump while it is true.
    roster: Option<Rc<[u8]>>,
}

impl RoomState {
    /// A room in which there may be so many members; 0: any number.
    pub fn with_max_members(max_members: usize) -> Self {
        Self {
            max_members,
            ..Self::default()
        }
    }

    /// Does what `command` asks and appends to `out` what is to be sent.
    pub fn apply(&mut self, command: Command, out: &mut Vec<Output>) {
        match command {
            Command::Join(joining) => self.join(joining, out),
            Command::Leave(member) => self.leave(member, out),
            Command::End(member) => self.end(member, out),
            Command::Publish(member, stream) => self.publish(member, stream, out),
            Command::Unpublish(member, stream_id) => self.unpublish(member, &stream_id, out),
            Command::Dump(member) => self.dump(member, out),
            Command::Broadcast(member, payload) => self.broadcast(member, payload, out),
        }
    }

    /// The members in join order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member with this id, while it is in the room.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.position(id).map(|at| &self.members[at])
    }

    /// How many members there have been in all.
    pub fn joins(&self) -> u64 {
        self.joins
    }

    /// How many members publish.
    pub fn streams(&self) -> usize {
        self.streams
    }

    /// The number of the last event.
    pub fn last_event(&self) -> u64 {
        self.last_event
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn join(&mut self, joining: Joining, out: &mut Vec<Output>) {
        let older = self
            .members
            .iter()
            .position(|m| *m.who.endpoint() == joining.endpoint);
        // Who takes a place that is taken already needs no further one.
        let full = self.max_members > 0 && self.members.len() >= self.max_members;
        if full && older.is_none() {
            return refuse(
                Refusal::new(ErrorCode::Unavailable, "the room is full"),
                out,
            );
        }
        self.joins += 1;
        let member = MemberId(self.joins);
        if let Some(at) = older {
            // After a network change the newest connection is the live one. The newcomer sees
            // nothing of this: no event comes before the answer to its join.
            let older = self.remove(at, Some(member), out);
            out.push(Output::Replaced(older.connection));
        }
        let session = joining.session;
        let who = Who::new(joining.endpoint, joining.device);
        self.members.push(Member {
            id: member,
            connection: joining.connection,
            numbered: joining.numbered,
            role: joining.role,
            session,
            who: who.clone(),
            stream: None,
        });
        let last_event = self.last_event + 1;
        out.push(Output::Answer(Ok(Answer::Joined {
            member,
            session,
            who: who.clone(),
            last_event,
        })));
        self.changed(RoomEvent::Join(who), Some(member), out);
    }

    fn leave(&mut self, member: MemberId, out: &mut Vec<Output>) {
        let Some(at) = self.position(member) else {
            return refuse(Refusal::no_such_session(), out);
        };
        self.remove(at, None, out);
        out.push(Output::Answer(Ok(Answer::Left)));
    }

    fn end(&mut self, member: MemberId, out: &mut Vec<Output>) {
        if let Some(at) = self.position(member) {
            self.remove(at, None, out);
        }
    }

    fn publish(&mut self, member: MemberId, stream: Stream, out: &mut Vec<Output>) {
        let Some(at) = self.position(member) else {
            return refuse(Refusal::no_such_session(), out);
        };
        if let Some(present) = &self.members[at].stream
            && present.stream_id != stream.stream_id
        {
            return refuse(
                Refusal::new(
                    ErrorCode::Conflict,
                    "this endpoint publishes another stream; stream.delete it first",
                ),
                out,
            );
        }
        let taken = self.members.iter().any(|m| {
            m.id != member
                && m.stream
                    .as_ref()
                    .is_some_and(|s| s.stream_id == stream.stream_id)
        });
        if taken {
            return refuse(
                Refusal::new(
                    ErrorCode::Conflict,
                    "another endpoint of this room publishes this stream_id; choose another",
                ),
                out,
            );
        }
        let stream_id = stream.stream_id.clone();
        let before = self.members[at].stream.replace(Box::new(stream));
        self.streams += usize::from(before.is_none());
        let who = self.members[at].who.clone();
        out.push(Output::Answer(Ok(Answer::Done)));
        // The same stream again is announced again: the media was pushed anew, so everybody has
        // to subscribe anew.
        self.changed(RoomEvent::Publish(who, stream_id), Some(member), out);
    }

    fn unpublish(&mut self, member: MemberId, stream_id: &StreamId, out: &mut Vec<Output>) {
        let Some(at) = self.position(member) else {
            return refuse(Refusal::no_such_session(), out);
        };
        let publisher = &mut self.members[at];
        if publisher
            .stream
            .take_if(|s| s.stream_id == *stream_id)
            .is_none()
        {
            return refuse(
                Refusal::new(
                    ErrorCode::NotFound,
                    "this endpoint does not publish this stream_id",
                ),
                out,
            );
        }
        let who = publisher.who.clone();
        self.streams -= 1;
        out.push(Output::Answer(Ok(Answer::Done)));
        self.changed(
            RoomEvent::Unpublish(who, stream_id.clone()),
            Some(member),
            out,
        );
    }

    fn dump(&mut self, member: MemberId, out: &mut Vec<Output>) {
        if self.position(member).is_none() {
            return refuse(Refusal::no_such_session(), out);
        }
        let list = self
            .roster
            .get_or_insert_with(|| roster::encode(&self.members).into());
        out.push(Output::Answer(Ok(Answer::Dump(list.clone()))));
    }

    fn broadcast(&mut self, member: MemberId, payload: Payload, out: &mut Vec<Output>) {
        let Some(at) = self.position(member) else {
            return refuse(Refusal::no_such_session(), out);
        };
        let who = self.members[at].who.clone();
        out.push(Output::Answer(Ok(Answer::Done)));
        self.announce(RoomEvent::Broadcast(who, payload), Some(member), out);
    }

    /// Takes a member out: unpublish before leave, both for all who stay.
    fn remove(&mut self, at: usize, except: Option<MemberId>, out: &mut Vec<Output>) -> Member {
        let mut member = self.members.remove(at);
        if let Some(stream) = member.stream.take() {
            self.streams -= 1;
            let event = RoomEvent::Unpublish(member.who.clone(), stream.stream_id);
            self.changed(event, except, out);
        }
        self.changed(RoomEvent::Leave(member.who.clone()), except, out);
        member
    }

    /// Announces something that a dump shows.
    fn changed(&mut self, event: RoomEvent, except: Option<MemberId>, out: &mut Vec<Output>) {
        self.roster = None;
        self.announce(event, except, out);
    }

    /// An event is counted even where nobody is there to see it.
    fn announce(&mut self, event: RoomEvent, except: Option<MemberId>, out: &mut Vec<Output>) {
        self.last_event += 1;
        out.push(Output::Event {
            number: self.last_event,
            event,
            except,
        });
    }

    fn position(&self, id: MemberId) -> Option<usize> {
        self.members.binary_search_by_key(&id, |m| m.id).ok()
    }
}

fn refuse(refusal: Refusal, out: &mut Vec<Output>) {
    out.push(Output::Answer(Err(refusal)));
}

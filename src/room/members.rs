//! The members of a room in join order, with an index for each name by which one is looked up.
//!
//! Joins, resumes and leaves cost O(log n), so a room of thousands, attached or detached, does not
//! slow its thread down. The list of the receivers is the exception: a change moves its tail, which
//! takes microseconds in a room of thousands.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map};

use crate::{
    clock::Millis,
    ending::Ending,
    ids::{ClaimedSession, ConnectionId, Endpoint, MemberId, StreamId},
    protocol::request::Stream,
    room::member::{Member, Presence},
};

/// See the module's text. Every change of an indexed field goes through a method here.
#[derive(Debug, Default)]
pub struct Members {
    /// Ids rise with each join, so this is the order of joins.
    by_id: BTreeMap<MemberId, Member>,
    by_endpoint: HashMap<Endpoint, MemberId>,
    by_session: HashMap<ClaimedSession, MemberId>,
    by_stream: HashMap<StreamId, MemberId>,
    /// Detached members by the time at which each was lost.
    detached: BTreeSet<(Millis, MemberId)>,
    /// The attached members, in join order. A broadcast reads all of it and nothing else.
    receivers: Vec<Receiver>,
}

/// What an event needs to know of an attached member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// The member.
    pub member: MemberId,
    /// The connection over which it is reached.
    pub connection: ConnectionId,
    /// Whether it understands event numbers.
    pub numbered: bool,
}

impl Members {
    /// How many there are, detached ones included.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// All of them in join order.
    pub fn iter(&self) -> btree_map::Values<'_, MemberId, Member> {
        self.by_id.values()
    }

    /// The one that joined first.
    pub fn first(&self) -> Option<&Member> {
        self.by_id.first_key_value().map(|(_, member)| member)
    }

    /// The one that joined last.
    pub fn last(&self) -> Option<&Member> {
        self.by_id.last_key_value().map(|(_, member)| member)
    }

    /// The member with this id.
    pub fn get(&self, id: MemberId) -> Option<&Member> {
        self.by_id.get(&id)
    }

    /// The member with this endpoint.
    pub fn with_endpoint(&self, endpoint: &Endpoint) -> Option<&Member> {
        self.get(*self.by_endpoint.get(endpoint)?)
    }

    /// The member whose session this is.
    pub fn with_session(&self, session: &ClaimedSession) -> Option<&Member> {
        self.get(*self.by_session.get(session)?)
    }

    /// The member that publishes this stream.
    pub fn with_stream(&self, stream: &StreamId) -> Option<&Member> {
        self.get(*self.by_stream.get(stream)?)
    }

    /// How many publish.
    pub fn streams(&self) -> usize {
        self.by_stream.len()
    }

    /// The attached ones in join order.
    pub fn receivers(&self) -> &[Receiver] {
        &self.receivers
    }

    /// How a member is reached, if it is attached.
    pub fn receiver(&self, id: MemberId) -> Option<&Receiver> {
        self.receiver_at(id).ok().map(|at| &self.receivers[at])
    }

    /// How many are detached.
    pub fn detached(&self) -> usize {
        self.detached.len()
    }

    /// The member that has been detached for the longest time, and since when.
    pub fn first_detached(&self) -> Option<(Millis, MemberId)> {
        self.detached.first().copied()
    }

    /// Adds a member, which is attached. Its id must be above all others; its endpoint, session
    /// and stream must be free.
    pub(super) fn insert(&mut self, member: Member) {
        let id = member.id;
        debug_assert!(self.last().is_none_or(|last| last.id < id));
        let connection = member.connection();
        debug_assert!(connection.is_some());
        self.receivers.extend(connection.map(|connection| Receiver {
            member: id,
            connection,
            numbered: member.numbered,
        }));
        self.by_endpoint.insert(member.who.endpoint().clone(), id);
        self.by_session.insert((&member.session).into(), id);
        if let Some(stream) = &member.stream {
            self.by_stream.insert(stream.stream_id.clone(), id);
        }
        self.by_id.insert(id, member);
    }

    /// Removes a member.
    pub(super) fn remove(&mut self, id: MemberId) -> Option<Member> {
        let member = self.by_id.remove(&id)?;
        self.by_endpoint.remove(member.who.endpoint());
        self.by_session.remove(&(&member.session).into());
        if let Some(stream) = &member.stream {
            self.by_stream.remove(&stream.stream_id);
        }
        match member.presence {
            Presence::Detached { since, .. } => {
                self.detached.remove(&(since, id));
            }
            Presence::Attached(_) => self.remove_receiver(id),
        }
        shrink(&mut self.by_endpoint);
        shrink(&mut self.by_session);
        shrink(&mut self.by_stream);
        Some(member)
    }

    /// Attaches a member to this connection; how it was present before. Where `numbered`, it
    /// understands event numbers from now on.
    pub(super) fn attach(
        &mut self,
        id: MemberId,
        connection: ConnectionId,
        numbered: bool,
    ) -> Option<Presence> {
        let member = self.by_id.get_mut(&id)?;
        member.numbered |= numbered;
        let before = std::mem::replace(&mut member.presence, Presence::Attached(connection));
        if let Presence::Detached { since, .. } = before {
            self.detached.remove(&(since, id));
        }
        let receiver = Receiver {
            member: id,
            connection,
            numbered: member.numbered,
        };
        match self.receiver_at(id) {
            Ok(at) => self.receivers[at] = receiver,
            Err(at) => self.receivers.insert(at, receiver),
        }
        Some(before)
    }

    /// Detaches a member, which was attached.
    pub(super) fn detach(&mut self, id: MemberId, since: Millis, why: Ending) {
        if let Some(member) = self.by_id.get_mut(&id) {
            member.presence = Presence::Detached { since, why };
            self.detached.insert((since, id));
            self.remove_receiver(id);
        }
    }

    fn remove_receiver(&mut self, id: MemberId) {
        if let Ok(at) = self.receiver_at(id) {
            self.receivers.remove(at);
        }
        if self.receivers.capacity() > 4 * self.receivers.len() + SPARE_PLACES {
            self.receivers.shrink_to_fit();
        }
    }

    /// Where a receiver is, or where it would be.
    fn receiver_at(&self, id: MemberId) -> Result<usize, usize> {
        self.receivers
            .binary_search_by_key(&id, |receiver| receiver.member)
    }

    /// Sets what a member publishes, which nobody else may publish; what it published before.
    pub(super) fn set_stream(
        &mut self,
        id: MemberId,
        stream: Option<Stream>,
    ) -> Option<Box<Stream>> {
        let member = self.by_id.get_mut(&id)?;
        let after = stream.map(Box::new);
        let before = std::mem::replace(&mut member.stream, after);
        if let Some(before) = &before {
            self.by_stream.remove(&before.stream_id);
        }
        if let Some(after) = &member.stream {
            self.by_stream.insert(after.stream_id.clone(), id);
        }
        before
    }

    /// A member, for a change of what no index knows.
    pub(super) fn get_mut(&mut self, id: MemberId) -> Option<&mut Member> {
        self.by_id.get_mut(&id)
    }
}

impl<'a> IntoIterator for &'a Members {
    type Item = &'a Member;
    type IntoIter = btree_map::Values<'a, MemberId, Member>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// More unused places than this are given back once they are most of an index.
const SPARE_PLACES: usize = 1024;

fn shrink<K: Eq + std::hash::Hash>(index: &mut HashMap<K, MemberId>) {
    if index.capacity() > 4 * index.len() + SPARE_PLACES {
        index.shrink_to_fit();
    }
}

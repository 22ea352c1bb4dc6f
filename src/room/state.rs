//! The rules of a room, pure: no actor, no clock, no socket.
//!
//! A [`Command`] goes in, [`Output`]s come out in the order in which they are to be sent. What
//! the room says has one order for all members, and an event's number is its place in it: a
//! channel.dump answer is exactly the state between the outputs before and after it.
//!
//! A member whose connection is lost stays, detached, for `resume_window`: nobody is told, and
//! what it needs of the room's events is kept ([`history`](super::history)) until it comes back
//! with its session, or the time is over.

use std::rc::Rc;

use crate::{
    clock::Millis,
    ending::Ending,
    ids::{ConnectionId, MemberId, SessionId, StreamId},
    progress::Progress,
    protocol::{
        error::{ErrorCode, Refusal},
        event::{Payload, RoomEvent, Who},
        request::Stream,
    },
    room::{
        command::{Answer, Command, Joined, Joining, Moment, Output, Resumption},
        history::History,
        member::{Member, Presence},
        members::Members,
        roster,
        rules::Rules,
    },
};

/// Members that expire in one command at most.
const EXPIRY_BATCH: usize = 64;

/// Events that the expiries of one command may cause, all receivers counted, where there are more
/// expiries than one.
const EXPIRY_DELIVERIES: usize = 32_768;

/// A room: its members and their streams.
#[derive(Debug, Default)]
pub struct RoomState {
    rules: Rules,
    members: Members,
    /// How many members there have been.
    joins: u64,
    /// The number of the last event.
    last_event: u64,
    /// How many times a member was detached.
    losses: u64,
    history: History,
    /// One of those has left who decide what is needed, see [`is_needed`].
    needs_changed: bool,
    /// The answer to channel.dump while it is true.
    roster: Option<Rc<[u8]>>,
}

impl RoomState {
    /// An empty room with these rules.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            history: History::new(rules.history),
            ..Self::default()
        }
    }

    /// Changes how many members there may be; 0: any number. Those who are there stay.
    pub fn set_max_members(&mut self, max_members: usize) {
        self.rules.max_members = max_members;
    }

    /// Does what `command` asks and appends to `out` what is to be sent. Where a member
    /// [is overdue](Self::is_overdue), [`Command::Elapse`] comes first.
    pub fn apply(&mut self, command: Command, moment: Moment, out: &mut Vec<Output>) {
        let before = out.len();
        let by_server = matches!(command, Command::Elapse | Command::Abandon);
        let mut doing = Doing {
            moment,
            out,
            by_server,
        };
        match command {
            Command::Join(joining) => self.join(joining, &mut doing),
            Command::Leave(member, over) => self.leave(member, over, &mut doing),
            Command::End(member, over, why) => self.end(member, over, why, &mut doing),
            Command::Publish(member, stream) => self.publish(member, stream, &mut doing),
            Command::Unpublish(member, stream_id) => self.unpublish(member, &stream_id, &mut doing),
            Command::Dump(member) => self.dump(member, &mut doing),
            Command::Broadcast(member, payload) => self.broadcast(member, payload, &mut doing),
            Command::Elapse => {
                self.expire(moment.now, &mut doing);
                self.history.expire(moment.now);
            }
            Command::Abandon => self.expire(Millis::MAX, &mut doing),
        }
        self.keep(&out[before..], moment.now);
    }

    /// The members in join order.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The member with this id, while it is in the room.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(id)
    }

    /// How many members there have been in all.
    pub fn joins(&self) -> u64 {
        self.joins
    }

    /// How many members publish.
    pub fn streams(&self) -> usize {
        self.members.streams()
    }

    /// Whether nobody who is there can be reached.
    pub fn is_deserted(&self) -> bool {
        self.detached() == self.members.len()
    }

    /// How many members are waited for.
    pub fn detached(&self) -> usize {
        self.members.detached()
    }

    /// How many times a member's connection was lost and the member waited for.
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// The number of the last event.
    pub fn last_event(&self) -> u64 {
        self.last_event
    }

    /// What is kept for those who come back.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Whether nobody is there, nor waited for.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a member has been waited for long enough.
    pub fn is_overdue(&self, now: Millis) -> bool {
        self.first_expiry().is_some_and(|due| due <= now)
    }

    /// When [`Command::Elapse`] has something to do: a member to expire, events to forget.
    pub fn due(&self) -> Option<Millis> {
        // Events may be a little too old: they go in one sweep, not one by one.
        let slack = self.rules.history.age / 8;
        let forgets = self.history.expires().map(|at| at.saturating_add(slack));
        self.first_expiry().into_iter().chain(forgets).min()
    }

    fn first_expiry(&self) -> Option<Millis> {
        let (since, _) = self.members.first_detached()?;
        Some(since.saturating_add(self.rules.resume_window))
    }

    fn join(&mut self, joining: Joining, doing: &mut Doing<'_>) {
        if let Some((member, after)) = self.resumable(&joining, doing.moment.now) {
            return self.resume(member, after, &joining, doing);
        }
        if joining.has_expired {
            return doing.refuse(Refusal::no_session_to_resume());
        }
        let older = self.members.with_endpoint(&joining.endpoint).map(|m| m.id);
        // Who takes a place that is taken already needs no further one.
        let max_members = self.rules.max_members;
        let full = max_members > 0 && self.members.len() >= max_members;
        if older.is_none() {
            if full {
                let full = Refusal::new(ErrorCode::Unavailable, "the room is full");
                return doing.refuse(full);
            }
            if let Some(limit) = joining.limit {
                return doing.refuse(limit);
            }
        }
        self.joins += 1;
        let member = MemberId(self.joins);
        let mut allowance = joining.allowance;
        if let Some(older) = older.and_then(|older| self.remove(older, Some(member), doing)) {
            // After a network change the newest connection is the live one. The newcomer sees
            // nothing of this: no event comes before the answer to its join.
            match older.presence {
                Presence::Attached(connection) => doing.unseated(connection, Ending::Replaced),
                Presence::Detached { since, .. } => {
                    doing.departed(&older, Ending::Replaced, since);
                }
            }
            // A new connection must not be a way to a new allowance.
            allowance = older.allowance.or(allowance);
        }
        let resumption = match joining.resume {
            Some(_) => Resumption::Failed,
            None => Resumption::Unasked,
        };
        let session = joining.session;
        let who = Who::new(joining.endpoint, joining.device);
        let last_event = self.last_event + 1;
        let progress = Rc::new(Progress::new(last_event, joining.cseq));
        self.members.insert(Member {
            id: member,
            presence: Presence::Attached(joining.connection),
            joined: last_event,
            numbered: joining.last_event.is_some(),
            role: joining.role,
            grants: joining.grants,
            granted_by: joining.issued_at,
            session,
            who: who.clone(),
            stream: None,
            progress: progress.clone(),
            allowance: allowance.clone(),
        });
        doing.answer(Answer::Joined(Joined {
            member,
            session,
            who: who.clone(),
            last_event,
            progress,
            allowance,
            resumption,
        }));
        self.changed(RoomEvent::Join(who), session, Some(member), doing);
    }

    /// The member that this join resumes, and the number behind which its replay begins. `None`:
    /// it is an ordinary join.
    fn resumable(&self, joining: &Joining, now: Millis) -> Option<(MemberId, u64)> {
        let resume = joining.resume.as_ref()?;
        let member = self.members.with_session(&resume.session)?;
        if resume.endpoint_named && joining.endpoint != *member.who.endpoint() {
            return None;
        }
        if let Presence::Detached { since, .. } = member.presence
            && since.saturating_add(self.rules.resume_window) <= now
        {
            // Many expire at once, and this one's batch is still to come.
            return None;
        }
        let known = joining.last_event;
        let after = known.unwrap_or_else(|| member.progress.sent_up_to());
        let after = after.max(member.joined);
        let has_all = after <= self.last_event && !self.history.lacks(member.id, after);
        has_all.then_some((member.id, after))
    }

    fn resume(&mut self, id: MemberId, after: u64, joining: &Joining, doing: &mut Doing<'_>) {
        let numbered = joining.last_event.is_some();
        let before = self.members.attach(id, joining.connection, numbered);
        let (Some(before), Some(member)) = (before, self.members.get_mut(id)) else {
            return doing.refuse(Refusal::no_such_session());
        };
        let away = match before {
            Presence::Attached(old) => {
                // It only looked alive. Nobody else is told.
                doing.unseated(old, Ending::TakenOver);
                None
            }
            Presence::Detached { since, .. } => Some(doing.moment.now.saturating_sub(since)),
        };
        // A newer token may grant more or less. One that has expired proves the session and no more.
        if !joining.has_expired && joining.issued_at > member.granted_by {
            member.grants = joining.grants;
            member.granted_by = joining.issued_at;
        }
        let events = self.history.after(after, member.id, doing.moment.at);
        let last_cseq = member.progress.last_cseq();
        member.progress = Rc::new(Progress::new(after, last_cseq));
        doing.answer(Answer::Joined(Joined {
            member: member.id,
            session: member.session,
            who: member.who.clone(),
            last_event: self.last_event,
            progress: member.progress.clone(),
            allowance: member.allowance.clone(),
            resumption: Resumption::Resumed {
                last_cseq,
                away,
                missed: events.len(),
            },
        }));
        doing.out.push(Output::Replay {
            numbered: member.numbered,
            events,
        });
        self.unpublish_if_not_granted(id, doing);
    }

    /// A late farewell of an old connection does not unseat the member that goes on over another.
    fn leave(&mut self, member: MemberId, over: ConnectionId, doing: &mut Doing<'_>) {
        if !self.is_seated(member, over) {
            return doing.refuse(Refusal::no_such_session());
        }
        self.remove(member, None, doing);
        doing.answer(Answer::Left);
    }

    fn end(&mut self, member: MemberId, over: ConnectionId, why: Ending, doing: &mut Doing<'_>) {
        if !self.is_seated(member, over) {
            return;
        }
        if why.is_loss() && self.rules.resume_window > 0 {
            self.members.detach(member, doing.moment.now, why);
            self.losses += 1;
        } else {
            // Without a resume window a lost member expires at once.
            doing.by_server = why.is_loss();
            self.remove(member, None, doing);
        }
    }

    /// Expires members that have been detached until `until` for the whole of `resume_window`, the
    /// longest first. At most a batch of them: each costs an event for every attached member, and
    /// thousands may be lost at one moment. Where more are due, [`RoomState::due`] is in the past.
    fn expire(&mut self, until: Millis, doing: &mut Doing<'_>) {
        let attached = self.members.len() - self.members.detached();
        let batch = (EXPIRY_DELIVERIES / attached.max(1)).clamp(1, EXPIRY_BATCH);
        for _ in 0..batch {
            let Some((since, id)) = self.members.first_detached() else {
                return;
            };
            if since.saturating_add(self.rules.resume_window) > until {
                return;
            }
            if let Some(member) = self.remove(id, None, doing)
                && let Presence::Detached { why, .. } = member.presence
            {
                doing.departed(&member, why, since);
            }
        }
    }

    fn publish(&mut self, member: MemberId, stream: Stream, doing: &mut Doing<'_>) {
        let Some(publisher) = self.members.get(member) else {
            return doing.refuse(Refusal::no_such_session());
        };
        if !publisher.grants.publish {
            return doing.refuse(not_granted(
                "the token of this session does not grant publish",
            ));
        }
        if let Some(present) = &publisher.stream
            && present.stream_id != stream.stream_id
        {
            return doing.refuse(Refusal::new(
                ErrorCode::Conflict,
                "this endpoint publishes another stream; stream.delete it first",
            ));
        }
        let holder = self.members.with_stream(&stream.stream_id);
        if holder.is_some_and(|holder| holder.id != member) {
            return doing.refuse(Refusal::new(
                ErrorCode::Conflict,
                "another endpoint of this room publishes this stream_id; choose another",
            ));
        }
        let stream_id = stream.stream_id.clone();
        let (who, session) = (publisher.who.clone(), publisher.session);
        self.members.set_stream(member, Some(stream));
        doing.answer(Answer::Done);
        // The same stream again is announced again: the media was pushed anew, so everybody has
        // to subscribe anew.
        let event = RoomEvent::Publish(who, stream_id);
        self.changed(event, session, Some(member), doing);
    }

    fn unpublish(&mut self, member: MemberId, stream_id: &StreamId, doing: &mut Doing<'_>) {
        let Some(publisher) = self.members.get(member) else {
            return doing.refuse(Refusal::no_such_session());
        };
        let present = publisher.stream.as_ref();
        if present.is_none_or(|present| present.stream_id != *stream_id) {
            return doing.refuse(Refusal::new(
                ErrorCode::NotFound,
                "this endpoint does not publish this stream_id",
            ));
        }
        let event = RoomEvent::Unpublish(publisher.who.clone(), stream_id.clone());
        let session = publisher.session;
        self.members.set_stream(member, None);
        doing.answer(Answer::Done);
        self.changed(event, session, Some(member), doing);
    }

    /// Ends the stream of a member that may no longer publish. The member itself gets the event too:
    /// it has not asked for this.
    fn unpublish_if_not_granted(&mut self, id: MemberId, doing: &mut Doing<'_>) {
        let Some(member) = self.members.get(id).filter(|m| !m.grants.publish) else {
            return;
        };
        let (who, session) = (member.who.clone(), member.session);
        if let Some(stream) = self.members.set_stream(id, None) {
            let event = RoomEvent::Unpublish(who, stream.stream_id);
            self.changed(event, session, None, doing);
        }
    }

    fn dump(&mut self, member: MemberId, doing: &mut Doing<'_>) {
        if self.members.get(member).is_none() {
            return doing.refuse(Refusal::no_such_session());
        }
        let list = self
            .roster
            .get_or_insert_with(|| roster::encode(&self.members).into());
        let list = list.clone();
        doing.answer(Answer::Dump(list));
    }

    fn broadcast(&mut self, member: MemberId, payload: Payload, doing: &mut Doing<'_>) {
        self.history.prefetch();
        let Some(sender) = self.members.get(member) else {
            return doing.refuse(Refusal::no_such_session());
        };
        if !sender.grants.broadcast {
            let why = "the token of this session does not grant broadcast";
            return doing.refuse(not_granted(why));
        }
        let (who, session) = (sender.who.clone(), sender.session);
        doing.answer(Answer::Done);
        let event = RoomEvent::Broadcast(who, payload);
        self.announce(event, session, Some(member), doing);
    }

    /// Removes a member: unpublish before leave, both for all who stay.
    fn remove(
        &mut self,
        id: MemberId,
        except: Option<MemberId>,
        doing: &mut Doing<'_>,
    ) -> Option<Member> {
        // The first two decide which events are needed, see `is_needed`.
        self.needs_changed |= self.members.iter().take(2).any(|member| member.id == id);
        let mut member = self.members.remove(id)?;
        if let Some(stream) = member.stream.take() {
            let event = RoomEvent::Unpublish(member.who.clone(), stream.stream_id);
            self.changed(event, member.session, except, doing);
        }
        let event = RoomEvent::Leave(member.who.clone());
        self.changed(event, member.session, except, doing);
        Some(member)
    }

    /// Announces something that a dump shows.
    fn changed(
        &mut self,
        event: RoomEvent,
        session: SessionId,
        except: Option<MemberId>,
        doing: &mut Doing<'_>,
    ) {
        self.roster = None;
        self.announce(event, session, except, doing);
    }

    /// An event is counted even where nobody is there to see it.
    fn announce(
        &mut self,
        event: RoomEvent,
        session: SessionId,
        except: Option<MemberId>,
        doing: &mut Doing<'_>,
    ) {
        self.last_event += 1;
        let frame = Rc::new(event.encode(self.last_event, doing.moment.at));
        doing.out.push(Output::Event {
            event,
            frame,
            except,
            session,
            by_server: doing.by_server,
        });
    }

    /// Keeps what somebody who is there after a command may need of it, and forgets what nobody
    /// does any more.
    fn keep(&mut self, outputs: &[Output], now: Millis) {
        let members = &self.members;
        if std::mem::take(&mut self.needs_changed) {
            self.history
                .retain(|number, cause| is_needed(members, number, cause));
        }
        if !self.history.is_kept() {
            return;
        }
        for output in outputs {
            if let Output::Event { frame, except, .. } = output
                && is_needed(members, frame.number(), *except)
            {
                self.history.push(frame, *except, now);
            }
        }
    }

    /// Whether the member is there and reached over this connection.
    fn is_seated(&self, id: MemberId, connection: ConnectionId) -> bool {
        let member = self.members.get(id);
        member.is_some_and(|member| member.presence == Presence::Attached(connection))
    }
}

/// Whether a member needs the event with this number, caused by `cause`: it came after its join and
/// is not its own doing. If anybody does, one of the two that came first does.
fn is_needed(members: &Members, number: u64, cause: Option<MemberId>) -> bool {
    members
        .iter()
        .take(2)
        .any(|member| member.joined < number && Some(member.id) != cause)
}

fn not_granted(why: &'static str) -> Refusal {
    Refusal::new(ErrorCode::Forbidden, why)
}

/// A command that is being carried out.
struct Doing<'a> {
    moment: Moment,
    out: &'a mut Vec<Output>,
    by_server: bool,
}

impl Doing<'_> {
    fn answer(&mut self, answer: Answer) {
        self.out.push(Output::Answer(Ok(answer)));
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.out.push(Output::Answer(Err(refusal)));
    }

    fn unseated(&mut self, connection: ConnectionId, why: Ending) {
        self.out.push(Output::Unseated { connection, why });
    }

    /// `member`, which was waited for `since` then, is one no more.
    fn departed(&mut self, member: &Member, why: Ending, since: Millis) {
        self.out.push(Output::Departed {
            member: member.id,
            session: member.session,
            who: member.who.clone(),
            why,
            away: self.moment.now.saturating_sub(since),
        });
    }
}

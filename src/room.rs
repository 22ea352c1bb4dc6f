//! The RoomActor: what the rules of [`state`] make of each message, carried out. It turns
//! messages into commands and outputs into frames, and decides nothing itself.

pub mod backlog;
pub mod command;
mod fan_out;
pub mod history;
mod journal;
pub mod member;
pub mod members;
mod roster;
pub mod rules;
mod size;
pub mod state;
pub mod turn;

use std::{
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::prelude::*;
use actix_rt::task::JoinHandle;

use crate::{
    admission::{CountedRoom, DetachedPermit},
    auth::Authorized,
    census::{Counted, Object},
    client::Phase,
    clients::{self, Clients},
    clock::Millis,
    crew::MediaServerDown,
    ending::Ending,
    flush_queue::Urgency,
    ids::{Endpoint, MemberId, RoomId, RoomName, SessionId},
    media::{MediaServers, WEBRTC, assignment::Assignment},
    membership::{Membership, Seat, SessionEnded},
    outbox::{Cause, Dump, Event, Frame},
    protocol::{
        error::{ErrorCode, ErrorType, Refusal},
        event::{self, EventFrame, RoomEvent},
        reply,
        request::Action,
    },
    room::{
        backlog::Backlog,
        command::{Answer, Command, Joined, Joining, Moment, Output, Resume, Resumption},
        fan_out::{FanOut, Outgoing},
        journal::Journal,
        member::Member,
        rules::Rules,
        size::Size,
        state::RoomState,
        turn::Turn,
    },
    stats::EVENTS,
    ticket::Ticket,
};

/// How much longer than needed it waits at least: clocks differ a little.
const ALARM_MARGIN: Duration = Duration::from_millis(5);

/// The members of a larger room are flushed behind those of smaller ones.
const BULK_MEMBERS: usize = 128;

/// A join, on its way to its room.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Join {
    /// Who asks.
    pub ticket: Ticket,
    /// What for.
    pub join: Authorized,
    /// Why no member may begin on this connection, once the registry has found a limit reached.
    pub limit: Option<Refusal>,
    /// How many members the room may have, set by the registry; 0: any number.
    pub max_members: usize,
}

/// To a room: a connection of one of its members has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ConnectionEnded {
    /// Whose, and why.
    pub ended: SessionEnded,
    /// That the member counts further on, for as long as it is detached.
    pub detached: Option<DetachedPermit>,
}

/// A request of a member.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct MemberRequest {
    /// Who asks, as a client.
    pub ticket: Ticket,
    /// Who asks, as a member.
    pub member: MemberId,
    /// What for.
    pub action: Action,
}

/// To the registry: how a room is.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum RoomReport {
    /// Nobody is in it.
    Emptied {
        /// Which room.
        room: RoomId,
        /// How many joins it has seen.
        joins: u64,
    },
    /// It died of a defect.
    Failed {
        /// Which room.
        room: RoomId,
    },
}

/// To itself: there is something to do that only time has brought.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Due;

/// The server goes down: nobody is let in any more, and nobody is told who leaves.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct GoDown;

/// A room.
pub struct RoomActor {
    id: RoomId,
    journal: Journal,
    opened: Instant,
    most_members: usize,
    rules: Rules,
    state: RoomState,
    media: Assignment,
    _room: CountedRoom,
    _counted: Counted,
    /// Joins seen.
    joins: u64,
    reports: Recipient<RoomReport>,
    /// Where its members' guards report to.
    session_ends: Rc<Recipient<SessionEnded>>,
    /// When it will wake itself, and the task that does it; `None`: its own message is on its way.
    alarm: Option<(Millis, Option<JoinHandle<()>>)>,
    /// That its detached members count among those of their addresses.
    detached: HashMap<MemberId, DetachedPermit>,
    /// The requests on their way to it.
    backlog: Rc<Backlog>,
    /// Events that are still to be delivered. There are some only while requests are on their way to
    /// the room.
    fan_out: FanOut,
    /// What it has done since the other tasks of its thread had their turn.
    turn: Turn,
    /// Kept for its memory.
    outputs: Vec<Output>,
}

impl RoomActor {
    /// An empty room.
    pub fn new(
        id: RoomId,
        name: RoomName,
        rules: Rules,
        media: Arc<MediaServers>,
        room: CountedRoom,
        reports: Recipient<RoomReport>,
        session_ends: Recipient<SessionEnded>,
    ) -> Self {
        Self {
            id,
            journal: Journal {
                name: Rc::new(name),
            },
            opened: Instant::now(),
            most_members: 0,
            rules,
            state: RoomState::new(rules),
            media: Assignment::new(media),
            _room: room,
            _counted: Counted::new(Object::Room),
            joins: 0,
            reports,
            session_ends: Rc::new(session_ends),
            alarm: None,
            detached: HashMap::new(),
            backlog: Rc::default(),
            fan_out: FanOut::default(),
            turn: Turn::default(),
            outputs: Vec::new(),
        }
    }

    /// Carries out a command; the answer, if there is one, goes to `asker`.
    fn apply(&mut self, command: Command, asker: Option<Ticket>, ctx: &mut Context<Self>) {
        if !matches!(command, Command::Elapse) && self.state.is_overdue(clients::with(Clients::now))
        {
            // The alarm is about to go off.
            self.carry_out(Command::Elapse, None, ctx);
        }
        self.carry_out(command, asker, ctx);
        self.end_turn_if_spent(ctx);
    }

    fn end_turn_if_spent(&mut self, ctx: &mut Context<Self>) {
        let spent = self.turn.end_command();
        if spent.is_some() || !self.backlog.has_requests() {
            self.deliver();
        }
        if let Some(deliveries) = spent {
            turn::yield_turn(deliveries, ctx);
        }
    }

    /// Delivers the events that have been collected. Every command but a broadcast begins and ends
    /// with it.
    fn deliver(&mut self) {
        if self.fan_out.is_empty() {
            return;
        }
        let receivers = self.state.members().receivers();
        self.turn.spend_visits(receivers.len());
        clients::with(|clients| self.fan_out.deliver(receivers, clients));
    }

    /// Applies a command and sends what comes of it.
    fn carry_out(&mut self, command: Command, asker: Option<Ticket>, ctx: &Context<Self>) {
        let broadcaster = match &command {
            Command::Broadcast(member, _) => Some(*member),
            _ => None,
        };
        match broadcaster.and_then(|member| self.state.members().receiver(member)) {
            Some(receiver) => clients::with(|clients| self.fan_out.catch_up(receiver, clients)),
            None => self.deliver(),
        }
        if matches!(command, Command::Dump(_)) {
            // The list may have to be encoded, and each receiver gets all of it.
            self.turn.spend(self.state.members().len());
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        clients::with(|clients| {
            let shared = clients.shared();
            let at = Instant::now();
            let now = clients.time_at(at);
            let moment = Moment { now, at };
            let before = Size::of(&self.state);
            self.state.apply(command, moment, &mut outputs);
            Size::of(&self.state).count_since(&before, &shared.stats);
            let connection = asker.as_ref().map(Ticket::client);
            let mut asker = asker;
            for output in outputs.drain(..) {
                match output {
                    Output::Answer(answer) => {
                        if let Some(asker) = asker.take() {
                            self.answer(answer, asker, clients);
                        }
                    }
                    Output::Event {
                        event,
                        frame,
                        except,
                        session,
                        by_server,
                    } => {
                        self.journal.stream(&event, session);
                        let cause = if by_server {
                            Cause::Server
                        } else {
                            Cause::Client
                        };
                        self.tell(&event, &frame, cause, except, clients);
                    }
                    Output::Replay { numbered, events } => {
                        self.turn.spend(events.len());
                        shared.stats.replayed.add(events.len() as u64);
                        for frame in events {
                            let missed = Event {
                                frame,
                                numbered,
                                cause: Cause::Replay,
                            };
                            if let Some(connection) = connection {
                                clients.push_to(connection, Frame::Event(missed));
                            }
                        }
                    }
                    Output::Unseated { connection, why } => {
                        if let Some(client) = clients.get(connection) {
                            let reason = match why {
                                Ending::TakenOver => "a newer connection goes on with this session",
                                _ => "a newer connection has joined with this endpoint",
                            };
                            client.unseat(why, reason, shared);
                        }
                    }
                    Output::Departed {
                        member,
                        session,
                        who,
                        why,
                        away,
                    } => {
                        if !matches!(why, Ending::Replaced | Ending::Shutdown) {
                            shared.stats.expiries.add(1);
                        }
                        self.detached.remove(&member);
                        self.journal.departed(session, &who, why, away);
                    }
                }
            }
            self.set_alarm(moment.now, ctx);
        });
        self.outputs = outputs;
        if broadcaster.is_none() {
            self.deliver();
        }
        self.most_members = self.most_members.max(self.state.members().len());
    }

    /// Sees to it that the state is asked again when only time has passed.
    fn set_alarm(&mut self, now: Millis, ctx: &Context<Self>) {
        let Some(due) = self.state.due() else {
            return;
        };
        if self.alarm.as_ref().is_some_and(|(set, _)| *set <= due) {
            return;
        }
        let task = if due <= now {
            // A batch of expiries has left more of them.
            ctx.address().do_send(Due);
            None
        } else {
            let wait = Duration::from_millis(due - now).max(ALARM_MARGIN);
            // A strong address would keep the room alive.
            let room = ctx.address().downgrade();
            Some(actix_rt::spawn(async move {
                tokio::time::sleep(wait).await;
                if let Some(room) = room.upgrade() {
                    room.do_send(Due);
                }
            }))
        };
        if let Some((_, Some(later))) = self.alarm.replace((due, task)) {
            later.abort();
        }
    }

    fn answer(&mut self, answer: Result<Answer, Refusal>, ticket: Ticket, clients: &Clients) {
        let frame = match answer {
            Err(refusal) => return ticket.refuse(&refusal),
            Ok(Answer::Joined(joined)) => self.joined(joined, &ticket, clients),
            Ok(Answer::Left) => {
                if let Some(client) = clients.get(ticket.client()) {
                    client.leave(Ending::Left, clients.shared());
                }
                Frame::Own(ticket.reply_to().ok())
            }
            Ok(Answer::Done) => Frame::Own(ticket.reply_to().ok()),
            Ok(Answer::Dump(list)) => Frame::Dump(Box::new(Dump {
                head: ticket.reply_to().dump_head(list.len()),
                list,
            })),
        };
        ticket.answer(frame);
    }

    /// Gives a connection its seat; the answer that says so.
    fn joined(&mut self, joined: Joined, ticket: &Ticket, clients: &Clients) -> Frame {
        let stats = &clients.shared().stats;
        let resumed = match joined.resumption {
            Resumption::Unasked => None,
            Resumption::Failed => {
                stats.resumes_missed.add(1);
                None
            }
            Resumption::Resumed { last_cseq, .. } => {
                stats.resumes.add(1);
                self.detached.remove(&joined.member);
                Some(last_cseq)
            }
        };
        let media_server = self.media.addresses(&self.journal.name, WEBRTC);
        let answer = ticket.reply_to().joined(&reply::Joined {
            session: joined.session,
            media_server: media_server.as_deref().unwrap_or("{}"),
            endpoint: joined.who.endpoint(),
            last_event: joined.last_event,
            resumed,
        });
        if let Some(client) = clients.get(ticket.client()) {
            let role = self.state.member(joined.member).map(|member| member.role);
            self.journal.joined(
                &joined,
                role.unwrap_or_default(),
                self.state.members().len(),
                client.handshake().shown_address(),
            );
            let seat = Seat {
                room: self.id,
                member: joined.member,
                session: joined.session,
                name: self.journal.name.clone(),
                who: joined.who,
                progress: joined.progress,
                is_waited_for: self.rules.resume_window > 0,
                backlog: self.backlog.clone(),
            };
            let registry = self.session_ends.clone();
            let from = client.handshake().client;
            let membership = Membership::guarded_by(seat, client.id(), from, registry);
            client.enter(membership, joined.allowance);
        }
        Frame::Own(answer)
    }

    /// Sends an event to all who can be reached, but one. In a large room it is collected.
    fn tell(
        &mut self,
        event: &RoomEvent,
        frame: &Rc<EventFrame>,
        cause: Cause,
        except: Option<MemberId>,
        clients: &Clients,
    ) {
        let stats = &clients.shared().stats;
        if let Some(kind) = EVENTS.iter().position(|name| *name == event.name()) {
            stats.events[kind].add(1);
        }
        if let RoomEvent::Join(_) = event {
            stats.joins.add(1);
        }
        if matches!(event, RoomEvent::Leave(_)) && clients.shared().draining.get() {
            // It is about to be true of everybody.
            return;
        }
        let is_said = matches!(event, RoomEvent::Broadcast(..));
        let urgency = if !is_said && clients.crowd().grows() {
            Urgency::Coalesced
        } else if self.state.members().len() > BULK_MEMBERS {
            Urgency::Bulk
        } else {
            Urgency::Prompt
        };
        let receivers = self.state.members().receivers();
        let is_receiver = |member| self.state.members().receiver(member).is_some();
        let deliveries = receivers.len() - usize::from(except.is_some_and(is_receiver));
        stats.deliveries.add(deliveries as u64);
        self.fan_out.push(Outgoing {
            frame: frame.clone(),
            cause,
            urgency,
            except,
        });
        if receivers.len() > BULK_MEMBERS {
            self.turn.spend_collected(deliveries);
        } else {
            self.turn.spend(deliveries);
            self.fan_out.deliver(receivers, clients);
        }
    }

    /// Where a media server of the room has gone down or is not listed any more, its members are told
    /// to ask for another.
    fn check_media(&mut self) {
        self.deliver();
        if !self.media.give_up_unhealthy() {
            return;
        }
        self.turn.spend(self.state.members().len());
        clients::with(|clients| {
            for member in self.state.members() {
                if let Some(connection) = member.connection() {
                    let event = event::error(
                        Some(member.session),
                        ErrorType::MediaServerDown,
                        "the room's media server is down; media_server.dump names another",
                    );
                    clients.push_to(connection, Frame::Own(event));
                }
            }
        });
    }

    /// Nobody can come back any more: once nobody is connected, there is nobody to wait for.
    fn abandon_if_deserted(&mut self, ctx: &mut Context<Self>) {
        if self.state.is_deserted() {
            self.apply(Command::Abandon, None, ctx);
            if !self.state.is_empty() {
                // That was a batch of them.
                ctx.address().do_send(GoDown);
            }
        }
    }

    /// Has the connection of the session that is about to be resumed say how far it has got. It may
    /// look alive still.
    fn note_progress(&self, resume: Option<&Resume>) {
        let member = resume.and_then(|resume| self.state.members().with_session(&resume.session));
        if let Some(connection) = member.and_then(Member::connection) {
            clients::with(|clients| {
                if let Some(client) = clients.get(connection) {
                    client.note_progress(clients.shared());
                }
            });
        }
    }

    fn report_if_empty(&self) {
        if self.state.is_empty() {
            self.reports.do_send(RoomReport::Emptied {
                room: self.id,
                joins: self.joins,
            });
        }
    }
}

impl Actor for RoomActor {
    type Context = Context<Self>;
}

impl Handler<Join> for RoomActor {
    type Result = ();

    fn handle(&mut self, join: Join, ctx: &mut Self::Context) {
        self.joins += 1;
        let connection = join.ticket.client();
        // A connection that died meanwhile has no guard yet that would take it out again.
        let client = clients::with(|clients| clients.get(connection))
            .filter(|client| client.phase() == Phase::Open);
        if client.as_ref().is_some_and(|client| client.is_parting()) {
            // It would leave at once, and the others would see it come and go.
            join.ticket.refuse(&Refusal::draining());
        } else if client.is_some() {
            let Authorized {
                request,
                grants,
                issued_at,
                has_expired,
            } = join.join;
            let resume = request.session.map(|session| Resume {
                session,
                endpoint_named: request.endpoint.is_some(),
            });
            self.check_media();
            self.state.set_max_members(join.max_members);
            self.note_progress(resume.as_ref());
            let command = Command::Join(Joining {
                connection,
                session: SessionId::generate(),
                endpoint: request.endpoint.unwrap_or_else(Endpoint::generate),
                device: request.device.unwrap_or_default(),
                role: request.role.unwrap_or_default(),
                last_event: request.last_event,
                cseq: join.ticket.reply_to().cseq,
                grants,
                issued_at,
                has_expired,
                resume,
                limit: join.limit,
                allowance: client.and_then(|client| client.rate_limit()),
            });
            self.apply(command, Some(join.ticket), ctx);
        }
        self.report_if_empty();
    }
}

impl Handler<MemberRequest> for RoomActor {
    type Result = ();

    fn handle(&mut self, request: MemberRequest, ctx: &mut Self::Context) {
        let MemberRequest {
            ticket,
            member,
            action,
        } = request;
        let resumed = self.backlog.remove();
        if !resumed.is_empty() {
            clients::with(|clients| clients.resume(&resumed));
        }
        #[cfg(feature = "test-hooks")]
        provoke(&action, r#"{"panic":"room"}"#);
        let command = match action {
            Action::Leave => Command::Leave(member, ticket.client()),
            Action::StreamAdd(stream) => Command::Publish(member, stream),
            Action::StreamDelete(stream_id) => Command::Unpublish(member, stream_id),
            Action::ChannelDump => Command::Dump(member),
            Action::Broadcast(payload) => Command::Broadcast(member, payload),
            Action::MediaServerDump(protocol) => {
                self.check_media();
                return match self.media.addresses(&self.journal.name, &protocol) {
                    Some(addresses) => {
                        let frame = ticket.reply_to().media_server(&addresses);
                        ticket.answer(Frame::Own(frame));
                    }
                    None => ticket.refuse(&Refusal::new(
                        ErrorCode::Unavailable,
                        "no media server for this protocol is there at present; try again later",
                    )),
                };
            }
        };
        self.apply(command, Some(ticket), ctx);
        self.report_if_empty();
    }
}

/// Panics where a test wants to see what becomes of the others: at a broadcast of exactly this.
#[cfg(feature = "test-hooks")]
pub fn provoke(action: &Action, word: &str) {
    if let Action::Broadcast(payload) = action {
        assert!(payload.0 != word, "provoked by a test");
    }
}

impl Handler<ConnectionEnded> for RoomActor {
    type Result = ();

    fn handle(&mut self, ended: ConnectionEnded, ctx: &mut Self::Context) {
        let ConnectionEnded {
            ended:
                SessionEnded {
                    member,
                    connection,
                    ending,
                    ..
                },
            detached,
        } = ended;
        self.apply(Command::End(member, connection, ending), None, ctx);
        let is_detached = |member: &Member| member.connection().is_none();
        if let Some(permit) = detached
            && self.state.member(member).is_some_and(is_detached)
        {
            self.detached.insert(member, permit);
        }
        if clients::with(|clients| clients.shared().draining.get()) {
            self.abandon_if_deserted(ctx);
        }
        self.report_if_empty();
    }
}

impl Handler<GoDown> for RoomActor {
    type Result = ();

    fn handle(&mut self, _: GoDown, ctx: &mut Self::Context) {
        self.abandon_if_deserted(ctx);
        self.report_if_empty();
    }
}

impl Handler<MediaServerDown> for RoomActor {
    type Result = ();

    fn handle(&mut self, _: MediaServerDown, ctx: &mut Self::Context) {
        self.check_media();
        self.end_turn_if_spent(ctx);
    }
}

impl Handler<Due> for RoomActor {
    type Result = ();

    fn handle(&mut self, _: Due, ctx: &mut Self::Context) {
        if let Some((_, Some(other))) = self.alarm.take() {
            other.abort();
        }
        self.apply(Command::Elapse, None, ctx);
        self.report_if_empty();
    }
}

impl Drop for RoomActor {
    /// A room that dies of a defect tells its members and the registry. At an orderly end nobody
    /// is in it, and at the end of its thread nobody is left to be told.
    fn drop(&mut self) {
        if let Some((_, Some(alarm))) = self.alarm.take() {
            alarm.abort();
        }
        self.journal
            .closed(self.opened.elapsed(), self.most_members, &self.state);
        if !std::thread::panicking() {
            return;
        }
        self.journal.failed(self.state.members().len());
        clients::try_with(|clients| {
            let nothing = Size::of(&RoomState::default());
            nothing.count_since(&Size::of(&self.state), &clients.shared().stats);
        });
        // By their guards, not by the state: a panic may have left that anyhow.
        clients::try_with(|clients| {
            for client in clients.all() {
                if client.room() == Some(self.id) {
                    client.unseat(
                        Ending::RoomFailed,
                        "the room failed; join again for a new one",
                        clients.shared(),
                    );
                }
            }
        });
        self.reports.do_send(RoomReport::Failed { room: self.id });
    }
}

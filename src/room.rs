//! The RoomActor: what the rules of [`state`] make of each message, carried out. It turns
//! messages into commands and outputs into frames, and decides nothing itself.

pub mod member;
mod roster;
pub mod state;

use std::{rc::Rc, sync::Arc, time::Instant};

use actix::prelude::*;

use crate::{
    admission::CountedRoom,
    client::{Client, Phase},
    clients::{self, Clients},
    ending::Ending,
    ids::{Endpoint, MemberId, RoomId, RoomName, SessionId},
    media::MediaServers,
    membership::{Membership, Seat, SessionEnded},
    outbox::Frame,
    protocol::{
        error::{ErrorCode, Refusal},
        event::{EventFrame, RoomEvent},
        reply::Joined,
        request::{Action, JoinRequest},
    },
    room::state::{Answer, Command, Joining, Output, RoomState},
    stats::EVENTS,
    ticket::Ticket,
};

/// A join, on its way to its room.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Join {
    /// Who asks.
    pub ticket: Ticket,
    /// What for.
    pub request: JoinRequest,
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

/// A room.
pub struct RoomActor {
    id: RoomId,
    name: Rc<RoomName>,
    opened: Instant,
    most_members: usize,
    state: RoomState,
    media: Arc<MediaServers>,
    _counted: CountedRoom,
    /// Joins seen.
    joins: u64,
    reports: Recipient<RoomReport>,
    /// Where its members' guards report to.
    session_ends: Rc<Recipient<SessionEnded>>,
    /// Kept for its memory.
    outputs: Vec<Output>,
}

impl RoomActor {
    /// An empty room.
    pub fn new(
        id: RoomId,
        name: RoomName,
        max_members: usize,
        media: Arc<MediaServers>,
        counted: CountedRoom,
        reports: Recipient<RoomReport>,
        session_ends: Recipient<SessionEnded>,
    ) -> Self {
        Self {
            id,
            name: Rc::new(name),
            opened: Instant::now(),
            most_members: 0,
            state: RoomState::with_max_members(max_members),
            media,
            _counted: counted,
            joins: 0,
            reports,
            session_ends: Rc::new(session_ends),
            outputs: Vec::new(),
        }
    }

    /// Applies a command and sends what comes of it; the answer, if there is one, to `asker`.
    fn apply(&mut self, command: Command, asker: Option<Ticket>) {
        let mut outputs = std::mem::take(&mut self.outputs);
        let publisher = self.publisher(&command);
        let (members, streams) = (self.state.members().len(), self.state.streams());
        self.state.apply(command, &mut outputs);
        clients::with(|clients| {
            let stats = &clients.shared().stats;
            stats.room_resized(members, self.state.members().len());
            stats
                .streams
                .add(self.state.streams() as i64 - streams as i64);
            let mut asker = asker;
            for output in outputs.drain(..) {
                match output {
                    Output::Answer(answer) => {
                        if let Some(asker) = asker.take() {
                            self.answer(answer, asker, clients);
                        }
                    }
                    Output::Event {
                        number,
                        event,
                        except,
                    } => {
                        self.log(&event, publisher);
                        self.tell(number, &event, except, clients);
                    }
                    Output::Replaced(connection) => {
                        if let Some(client) = clients.get(connection) {
                            client.unseat(
                                Ending::Replaced,
                                "a newer connection has joined with this endpoint",
                                clients.shared(),
                            );
                        }
                    }
                }
            }
        });
        self.outputs = outputs;
        self.most_members = self.most_members.max(self.state.members().len());
    }

    fn answer(&self, answer: Result<Answer, Refusal>, ticket: Ticket, clients: &Clients) {
        let frame = match answer {
            Err(refusal) => return ticket.refuse(&refusal),
            Ok(Answer::Joined {
                member,
                session,
                who,
                last_event,
            }) => {
                let seat = Seat {
                    room: self.id,
                    member,
                    session,
                    name: self.name.clone(),
                    who: who.clone(),
                };
                if let Some(client) = clients.get(ticket.client()) {
                    self.log_join(&seat, &client);
                    client.enter(Membership::guarded_by(seat, self.session_ends.clone()));
                }
                Frame::Own(ticket.reply_to().joined(&Joined {
                    session,
                    media_server: self.media.addresses("webrtc").unwrap_or("{}"),
                    endpoint: who.endpoint(),
                    last_event,
                }))
            }
            Ok(Answer::Left) => {
                if let Some(client) = clients.get(ticket.client()) {
                    client.leave(Ending::Left, clients.shared());
                }
                Frame::Own(ticket.reply_to().ok())
            }
            Ok(Answer::Done) => Frame::Own(ticket.reply_to().ok()),
            Ok(Answer::Dump(list)) => Frame::Dump(ticket.reply_to().dump_head(list.len()), list),
        };
        ticket.answer(frame);
    }

    /// Sends an event to all but one. It is written once, or twice where some understand event
    /// numbers and some do not.
    fn tell(&self, number: u64, event: &RoomEvent, except: Option<MemberId>, clients: &Clients) {
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
        let now = Instant::now();
        let mut deliveries = 0;
        let mut numbered: Option<Rc<EventFrame>> = None;
        let mut plain: Option<Rc<EventFrame>> = None;
        for member in self.state.members() {
            if Some(member.id) == except {
                continue;
            }
            let frame = if member.numbered {
                numbered.get_or_insert_with(|| Rc::new(event.encode(number, now)))
            } else {
                plain.get_or_insert_with(|| Rc::new(event.encode(0, now)))
            };
            clients.push_to(member.connection, Frame::Event(frame.clone()));
            deliveries += 1;
        }
        stats.deliveries.add(deliveries);
    }

    /// The session whose stream this command may begin or end; after it, nobody may know.
    fn publisher(&self, command: &Command) -> Option<SessionId> {
        if !log::log_enabled!(log::Level::Info) {
            return None;
        }
        let member = match command {
            Command::Join(joining) => {
                let mut members = self.state.members().iter();
                members.find(|member| *member.who.endpoint() == joining.endpoint)
            }
            Command::Leave(id)
            | Command::End(id)
            | Command::Publish(id, _)
            | Command::Unpublish(id, _) => self.state.member(*id),
            Command::Dump(_) | Command::Broadcast(..) => None,
        };
        member.map(|member| member.session)
    }

    /// Who published what. Who comes and goes is logged where it is known as whom and why; what
    /// people say to each other is nobody's.
    fn log(&self, event: &RoomEvent, publisher: Option<SessionId>) {
        let (what, who, stream) = match event {
            RoomEvent::Publish(who, stream) => ("publish", who, stream),
            RoomEvent::Unpublish(who, stream) => ("unpublish", who, stream),
            RoomEvent::Join(_) | RoomEvent::Leave(_) | RoomEvent::Broadcast(..) => return,
        };
        log::info!(
            app = self.name.app.as_str(),
            channel = self.name.channel.as_str(),
            endpoint = who.endpoint().as_str(),
            sid = publisher.as_ref().map(SessionId::sid),
            stream = stream.as_str();
            "{what}"
        );
    }

    fn log_join(&self, seat: &Seat, client: &Client) {
        log::info!(
            app = self.name.app.as_str(),
            channel = self.name.channel.as_str(),
            endpoint = seat.who.endpoint().as_str(),
            sid = seat.session.sid(),
            client:% = client.handshake().shown_address(),
            device = seat.who.device().as_str(),
            role = self.state.member(seat.member).map_or("", |member| member.role.as_str()),
            members = self.state.members().len();
            "join"
        );
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

    fn handle(&mut self, join: Join, _: &mut Self::Context) {
        self.joins += 1;
        let connection = join.ticket.client();
        // A connection that died meanwhile has no guard yet that would take it out again.
        let client = clients::with(|clients| clients.get(connection))
            .filter(|client| client.phase() == Phase::Open);
        if client.as_ref().is_some_and(|client| client.is_parting()) {
            // It would leave at once, and the others would see it come and go.
            join.ticket.refuse(&Refusal::draining());
        } else if client.is_some() {
            let command = Command::Join(Joining {
                connection,
                session: SessionId::generate(),
                endpoint: join.request.endpoint.unwrap_or_else(Endpoint::generate),
                device: join.request.device.unwrap_or_default(),
                role: join.request.role,
                numbered: join.request.last_event.is_some(),
            });
            self.apply(command, Some(join.ticket));
        }
        self.report_if_empty();
    }
}

impl Handler<MemberRequest> for RoomActor {
    type Result = ();

    fn handle(&mut self, request: MemberRequest, _: &mut Self::Context) {
        let MemberRequest {
            ticket,
            member,
            action,
        } = request;
        #[cfg(feature = "test-hooks")]
        provoke(&action);
        let command = match action {
            Action::Leave => Command::Leave(member),
            Action::StreamAdd(stream) => Command::Publish(member, stream),
            Action::StreamDelete(stream_id) => Command::Unpublish(member, stream_id),
            Action::ChannelDump => Command::Dump(member),
            Action::Broadcast(payload) => Command::Broadcast(member, payload),
            Action::MediaServerDump(protocol) => {
                return match self.media.addresses(&protocol) {
                    Some(addresses) => {
                        let frame = ticket.reply_to().media_server(addresses);
                        ticket.answer(Frame::Own(frame));
                    }
                    None => ticket.refuse(&Refusal::new(
                        ErrorCode::Unavailable,
                        "no media server for this protocol is there at present; try again later",
                    )),
                };
            }
        };
        self.apply(command, Some(ticket));
        self.report_if_empty();
    }
}

/// Panics where a test wants to see what becomes of the others.
#[cfg(feature = "test-hooks")]
fn provoke(action: &Action) {
    if let Action::Broadcast(payload) = action {
        assert!(payload.0 != r#"{"panic":"room"}"#, "provoked by a test");
    }
}

impl Handler<SessionEnded> for RoomActor {
    type Result = ();

    fn handle(&mut self, ended: SessionEnded, _: &mut Self::Context) {
        self.apply(Command::End(ended.member), None);
        self.report_if_empty();
    }
}

impl Drop for RoomActor {
    /// A room that dies of a defect tells its members and the registry. At an orderly end nobody
    /// is in it, and at the end of its thread nobody is left to be told.
    fn drop(&mut self) {
        log::info!(
            app = self.name.app.as_str(),
            channel = self.name.channel.as_str(),
            seconds = self.opened.elapsed().as_secs_f64(),
            most_members = self.most_members,
            members_in_all = self.state.joins(),
            events = self.state.last_event();
            "room closed"
        );
        if !std::thread::panicking() {
            return;
        }
        log::error!(
            app = self.name.app.as_str(),
            channel = self.name.channel.as_str(),
            members = self.state.members().len();
            "a room failed"
        );
        clients::try_with(|clients| {
            let stats = &clients.shared().stats;
            stats.room_resized(self.state.members().len(), 0);
            stats.streams.add(-(self.state.streams() as i64));
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

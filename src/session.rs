//! The SessionActor: one client's requests, decoded, checked, and sent on their way.
//!
//! What it says itself (a 400, a pong, a close) goes through the client's outbox like all that
//! the room says. It never waits: a request's answer is the business of its ticket.

use std::rc::Rc;

use actix::prelude::*;
use actix_http::ws::Item;
use actix_web_actors::ws::{CloseReason, Message, ProtocolError, WebsocketContext};

use crate::{
    auth::Authorized,
    census::{Counted, Object},
    client::{Client, Phase},
    clients,
    ending::Ending,
    handover::{Handover, PendingJoin},
    ids::Device,
    membership::Wanted,
    outbox::Frame,
    protocol::{
        error::{CONNECTION_GIVEN_UP, ErrorCode, ErrorType, Refusal},
        event, frame,
        method::Method,
        reply::ReplyTo,
        request::{Action, Envelope, EnvelopeError, JoinRequest, Request},
    },
    rate::Verdict,
    registry::ToRoom,
    room::{Join, MemberRequest},
    ticket::{Kind, Ticket},
    worker::Worker,
};

/// The session of one connection.
pub struct SessionActor {
    client: Rc<Client>,
    worker: Rc<Worker>,
    pending_join: Option<PendingJoin>,
    /// The message so far whose last fragment has not come.
    unfinished: Vec<u8>,
    /// One of its fragments was over the rate limit.
    unfinished_refused: bool,
    /// It goes on over the rate limit.
    goes_on: bool,
    _counted: Counted,
}

impl SessionActor {
    /// The session of `client`; `pending_join` is done first.
    pub fn new(client: Rc<Client>, worker: Rc<Worker>, pending_join: Option<PendingJoin>) -> Self {
        if pending_join.is_some() {
            client.hold();
        }
        Self {
            client,
            worker,
            pending_join,
            unfinished: Vec::new(),
            unfinished_refused: false,
            goes_on: false,
            _counted: Counted::new(Object::Session),
        }
    }

    /// Counts a frame against the rate limit; whether it is let in.
    fn admits(&mut self, bytes: usize) -> bool {
        let verdict = clients::with(|clients| self.client.count(bytes, clients.shared()));
        self.goes_on |= verdict == Verdict::Last;
        verdict == Verdict::Admitted
    }

    /// The end of a client that goes on over the rate limit, after its last answer.
    fn put_out(&self) {
        self.close(
            Ending::RateLimited,
            "too many messages or bytes a second, and they go on",
        );
    }

    /// A whole message that is over the rate limit: answered, if it is a request.
    fn refuse_message(&self, text: &str) {
        let reply_to = match Envelope::parse(text) {
            Ok((_, reply_to)) | Err(EnvelopeError::Refused(reply_to, _)) => reply_to,
            Err(EnvelopeError::NotAnObject(_)) => return,
        };
        let refusal = Refusal::new(
            ErrorCode::TooManyRequests,
            "too many messages or bytes a second; slow down",
        );
        if reply_to.method == Some(Method::Join) {
            self.client.log_refused_join(None, &refusal);
        }
        self.refuse(&reply_to, &refusal);
    }

    /// One whole message.
    fn message(&mut self, text: &str) {
        let (envelope, reply_to) = match Envelope::parse(text) {
            Ok(parsed) => parsed,
            Err(EnvelopeError::Refused(reply_to, refusal)) => {
                if reply_to.method == Some(Method::Join) {
                    // Not the refusal itself: it quotes what the client wrote.
                    let envelope = "version, cseq, session or a key that stands twice";
                    let logged = Refusal::new(refusal.code, envelope);
                    self.client.log_refused_join(None, &logged);
                }
                return self.refuse(&reply_to, &refusal);
            }
            Err(EnvelopeError::NotAnObject(error)) => {
                let session = self.client.session();
                return self.say(event::error(
                    session,
                    ErrorType::BadMessage,
                    &error.to_string(),
                ));
            }
        };
        if let Err(refusal) = self.request(&envelope, &reply_to) {
            self.refuse(&reply_to, &refusal);
        }
    }

    /// The checks that need no room, in the protocol's order, then off to the room.
    fn request(&mut self, envelope: &Envelope<'_>, reply_to: &ReplyTo) -> Result<(), Refusal> {
        let seat = if envelope.is_join() {
            None
        } else {
            let seat = self.client.take_request(&envelope.session, reply_to.cseq);
            Some(seat.ok_or_else(Refusal::no_such_session)?)
        };
        let request = envelope.request().inspect_err(|refusal| {
            if envelope.is_join() {
                self.client.log_refused_join(None, refusal);
            }
        })?;
        match request {
            Request::Join(join) => {
                let wanted = Wanted::from(&join);
                let join = self.check_join(join).inspect_err(|refusal| {
                    self.client.log_refused_join(Some(&wanted), refusal);
                })?;
                self.join(join, reply_to.clone());
                Ok(())
            }
            Request::Member(action) => {
                #[cfg(feature = "test-hooks")]
                crate::room::provoke(&action, r#"{"panic":"session"}"#);
                let (room, member) = seat.ok_or_else(Refusal::no_such_session)?;
                let kind = match action {
                    Action::Leave => Kind::Leave,
                    _ => Kind::Stay,
                };
                let ticket = Ticket::new(&self.client, reply_to.clone(), kind);
                self.client.add_to_backlog();
                self.worker.registry.do_send(ToRoom {
                    room,
                    request: MemberRequest {
                        ticket,
                        member,
                        action,
                    },
                });
                Ok(())
            }
        }
    }

    /// The checks of a join that need no room. A channel of the URL must be the join's: a proxy
    /// that shares rooms among servers went by it. A device that the join leaves out is the URL's.
    fn check_join(&self, mut join: JoinRequest) -> Result<Authorized, Refusal> {
        let channel = join.room.channel.as_str();
        let channels = &self.client.handshake().channels;
        if channels.iter().flatten().any(|of_url| **of_url != *channel) {
            return Err(Refusal::bad_request(
                "data.channel must be the channel of the URL, where that names one",
            ));
        }
        if join.device.is_none()
            && let Some(device) = &self.client.handshake().device
        {
            let device = Device::new(device)
                .map_err(|e| Refusal::bad_request(format!("device of the URL {e}")))?;
            join.device = Some(device);
        }
        let keyring = self.worker.crew.keyring();
        let join = self.client.handshake().token.authorize(join, &keyring)?;
        if self.client.room().is_some() {
            return Err(Refusal::new(
                ErrorCode::Conflict,
                "this connection is in a room; channel.leave it first",
            ));
        }
        self.not_draining()?;
        Ok(join)
    }

    fn join(&self, join: Authorized, reply_to: ReplyTo) {
        let home = self.worker.crew.home(&join.request.room);
        let has_little_unsent =
            clients::with(|clients| self.client.has_little_unsent(clients.shared()));
        if home == self.worker.index && has_little_unsent {
            self.enter(join, reply_to);
        } else {
            self.client.hand_over(Handover {
                worker: home,
                pending: PendingJoin { join, reply_to },
            });
        }
    }

    fn not_draining(&self) -> Result<(), Refusal> {
        if self.worker.crew.is_draining() {
            return Err(Refusal::draining());
        }
        Ok(())
    }

    /// Joins a room of this thread.
    fn enter(&self, join: Authorized, reply_to: ReplyTo) {
        let ticket = self.join_ticket(&join, reply_to);
        self.worker.registry.do_send(Join {
            ticket,
            join,
            limit: None,
            max_members: 0,
        });
    }

    fn join_ticket(&self, join: &Authorized, reply_to: ReplyTo) -> Ticket {
        let wanted = Wanted::from(&join.request);
        Ticket::new(&self.client, reply_to, Kind::Join(Box::new(wanted)))
    }

    /// A whole message of one frame.
    fn text(&mut self, payload: Vec<u8>) {
        let admitted = self.admits(payload.len());
        match String::from_utf8(payload) {
            Ok(text) => self.whole(&text, admitted),
            Err(_) => self.invalid_text(),
        }
    }

    /// A part of a message. A part that is refused refuses the whole, which is answered at its
    /// end: before that there is no `cseq` to answer to.
    fn fragment(&mut self, item: &Item, payload: &[u8]) {
        match item {
            Item::FirstText(_) => self.unfinished_refused = false,
            Item::Continue(_) | Item::Last(_) => {}
            Item::FirstBinary(_) => {
                return self.close(Ending::Binary, "messages are text");
            }
        }
        self.unfinished_refused |= !self.admits(payload.len());
        self.unfinished.extend_from_slice(payload);
        if let Item::Last(_) = item {
            let whole = std::mem::take(&mut self.unfinished);
            match String::from_utf8(whole) {
                Ok(text) => self.whole(&text, !self.unfinished_refused),
                Err(_) => self.invalid_text(),
            }
        }
    }

    fn whole(&mut self, text: &str, admitted: bool) {
        if admitted {
            self.message(text);
        } else {
            self.refuse_message(text);
        }
    }

    /// Answers with an error, without asking the room.
    fn refuse(&self, reply_to: &ReplyTo, refusal: &Refusal) {
        let frame = Frame::Own(reply_to.refused(refusal));
        let (method, err) = (reply_to.method, Some(refusal.code));
        clients::with(|clients| {
            clients.answer(&self.client, method, err, frame);
            if method == Some(Method::Join) {
                self.client.turn_away_for(refusal, clients.shared());
            }
        });
    }

    fn say(&self, bytes: Vec<u8>) {
        clients::with(|clients| clients.push(&self.client, Frame::Own(bytes)));
    }

    fn close(&self, ending: Ending, reason: &str) {
        clients::with(|clients| self.client.close(ending, reason, clients.shared()));
    }

    fn invalid_text(&self) {
        self.close(Ending::BadText, "a text message must be UTF-8");
    }

    /// The client says goodbye: its close frame is echoed.
    fn farewell(&self, reason: Option<CloseReason>) {
        let code = reason.map(|reason| u16::from(reason.code));
        self.client.tally().closed(code);
        let ending = match code {
            Some(CONNECTION_GIVEN_UP) => Ending::GivenUp,
            _ => Ending::Closed,
        };
        let echo = match code {
            Some(code) => frame::close_raw(code, ""),
            None => frame::close_empty(),
        };
        clients::with(|clients| self.client.echo_close(ending, echo, clients.shared()));
    }
}

impl Actor for SessionActor {
    type Context = WebsocketContext<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        if let Some(PendingJoin { join, reply_to }) = self.pending_join.take() {
            match self.not_draining() {
                Ok(()) => self.enter(join, reply_to),
                Err(refusal) => self.join_ticket(&join, reply_to).refuse(&refusal),
            }
        }
    }
}

impl StreamHandler<Result<Message, ProtocolError>> for SessionActor {
    fn handle(&mut self, message: Result<Message, ProtocolError>, _: &mut Self::Context) {
        if self.client.phase() != Phase::Open {
            return;
        }
        // What the codec could find wrong does not get past the gate.
        let Ok(message) = message else {
            return self.close(Ending::BadFrame, "a frame that cannot be read");
        };
        let said = self.client.take_beside();
        match message {
            Message::Text(_) => self.text(said),
            Message::Continuation(item) => self.fragment(&item, &said),
            Message::Ping(payload) => {
                if self.admits(payload.len()) {
                    self.say(frame::pong(&payload));
                }
            }
            Message::Pong(payload) => {
                self.admits(payload.len());
                if let Some(round_trip) = self.client.tally().ponged() {
                    clients::with(|clients| {
                        let stats = &clients.shared().stats;
                        stats.ping_round_trip.observe(round_trip);
                    });
                }
            }
            Message::Nop => {}
            Message::Close(reason) => self.farewell(reason),
            Message::Binary(_) => self.close(Ending::Binary, "messages are text"),
        }
        if self.goes_on {
            self.put_out();
        }
    }
}

//! One client of this thread: its socket, what waits to be sent to it, and where it stands.
//!
//! Three speak to it, all on its own thread, so nothing here is locked: the connection's task
//! ([`crate::connection`]), its session, and its room. The room reaches it directly, not through
//! the session's mailbox: what a client is told has one order, that of its outbox.

mod due;
mod join_log;
mod sending;

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    task::Waker,
};

use crate::{
    alarms::Alarms,
    census::{Counted, Object},
    clock::Millis,
    deadlines::Deadlines,
    ending::Ending,
    handover::{Baggage, Handover, MAX_MOVED_BYTES},
    handshake::Handshake,
    ids::{ConnectionId, MemberId, RoomId, SessionId},
    membership::Membership,
    outbox::{Frame, Mark, Outbox},
    protocol::{
        cseq::Cseq,
        error::{CloseCode, ErrorCode, Refusal},
        event, frame,
    },
    rate::{RateLimit, Verdict},
    socket::Socket,
    stats::Stats,
    tally::Tally,
};

/// Requests of one client that may be unanswered at a time; then its frames wait in its socket.
const MAX_UNANSWERED: u32 = 64;

/// What all clients of a thread share.
#[derive(Debug)]
pub struct Shared {
    /// The ticker's clock: coarse, and read without a call into the system.
    pub now: Cell<Millis>,
    /// Messages that may wait for one client.
    pub send_queue: usize,
    /// Bytes that may wait for one client.
    pub send_queue_bytes: usize,
    /// How long a client may do without something.
    pub deadlines: Deadlines,
    /// Lent to whoever reads from a socket or writes to one.
    pub scratch: RefCell<Vec<u8>>,
    /// When each client is to be looked at.
    pub alarms: Alarms,
    /// Whether the server goes down: nobody is told any more who leaves.
    pub draining: Cell<bool>,
    /// The thread's counters.
    pub stats: Arc<Stats>,
}

/// Whether the connection still serves its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It does.
    Open,
    /// Its close frame waits in the outbox or is on its way; nothing more is said or heard.
    Closing,
    /// The client is gone, or taken for it: there is nobody to say anything to.
    Lost,
}

/// The last frames that a client is sent.
struct Parting {
    ending: Ending,
    frames: Vec<Vec<u8>>,
}

/// See the module's text.
///
/// In this order, so that what every delivery touches lies together: there are many clients, and
/// each is in memory that has gone cold when its turn comes.
#[repr(C)]
pub struct Client {
    phase: Cell<Phase>,
    /// Whether it is on the list of those to be flushed at the end of this turn.
    dirty: Cell<bool>,
    /// Whether a ping may go with the next write, see [`Client::take_ping`].
    ping_may_go: Cell<bool>,
    /// Whether it is on the list of those for whom something waits that may, see [`crate::crowd`].
    in_crowd: Cell<bool>,
    /// It stands in the bulk queue because the coalescer's time was up: what is prompt overtakes.
    coalesced: Cell<bool>,
    /// A join or leave is under way.
    moving: Cell<bool>,
    /// A frame waits for `unanswered` or `moving`.
    held_back: Cell<bool>,
    /// A frame waits for the room's [backlog](crate::room::backlog) to shrink.
    paused: Cell<bool>,
    unanswered: Cell<u32>,
    /// Since when the socket has taken no byte of what waits; `None` while it takes all.
    stuck_since: Cell<Option<Millis>>,
    id: Cell<ConnectionId>,
    outbox: RefCell<Outbox>,
    tally: Tally,
    socket: Socket,
    heard: Cell<Millis>,
    /// Wakes the connection's task.
    task: RefCell<Option<Waker>>,
    /// How much it may say; `None` where that is not limited.
    rate: RefCell<Option<Arc<RateLimit>>>,
    /// What the frame says that its session is about to see, unless that is a control frame.
    beside: Cell<Vec<u8>>,
    membership: RefCell<Option<Membership>>,
    /// Why it is no longer open.
    ending: Cell<Ending>,
    /// Whether the turn has come in which its connection ends.
    may_end: Cell<bool>,
    handover: RefCell<Option<Box<Handover>>>,
    /// How it is closed once all its requests are answered.
    parting: RefCell<Option<Parting>>,
    /// When it was last outside of every room: at its connect or its leave.
    outside_since: Cell<Millis>,
    ping_due: Cell<Millis>,
    /// When the connection's task is to be done with closing.
    close_by: Cell<Millis>,
    /// When the ticker will look at it, and when once more.
    alarm: Cell<Millis>,
    later_alarm: Cell<Millis>,
    handshake: Arc<Handshake>,
    _counted: Counted,
}

impl Client {
    /// A client on `socket`, with what it has brought along.
    pub fn new(socket: Socket, baggage: Baggage, now: Millis, first_ping: Millis) -> Self {
        let Baggage {
            handshake,
            unsent,
            rate,
            outside_for,
            blocked_for,
        } = baggage;
        let blocked_since = blocked_for.map(|blocked| now.saturating_sub(blocked));
        Self {
            id: Cell::default(),
            socket,
            outbox: RefCell::new(Outbox::resuming(unsent)),
            dirty: Cell::new(false),
            ping_may_go: Cell::new(false),
            in_crowd: Cell::new(false),
            coalesced: Cell::new(false),
            stuck_since: Cell::new(blocked_since),
            phase: Cell::new(Phase::Open),
            ending: Cell::default(),
            may_end: Cell::new(false),
            membership: RefCell::new(None),
            handover: RefCell::new(None),
            rate: RefCell::new(rate),
            unanswered: Cell::new(0),
            parting: RefCell::new(None),
            moving: Cell::new(false),
            held_back: Cell::new(false),
            paused: Cell::new(false),
            beside: Cell::default(),
            task: RefCell::new(None),
            heard: Cell::new(now),
            outside_since: Cell::new(now.saturating_sub(outside_for)),
            ping_due: Cell::new(now + first_ping),
            close_by: Cell::new(Millis::MAX),
            alarm: Cell::new(Millis::MAX),
            later_alarm: Cell::new(Millis::MAX),
            tally: Tally::default(),
            handshake,
            _counted: Counted::new(Object::Connection),
        }
    }

    /// Its key in the thread's table.
    pub fn id(&self) -> ConnectionId {
        self.id.get()
    }

    /// Called once, by the thread's table.
    pub fn set_id(&self, id: ConnectionId) {
        self.id.set(id);
    }

    /// Its socket.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Itself and what goes with it to another thread.
    pub fn into_baggage(self, now: Millis) -> (Socket, Baggage) {
        let baggage = Baggage {
            handshake: self.handshake,
            unsent: self.outbox.into_inner().into_unsent(),
            rate: self.rate.into_inner(),
            outside_for: now.saturating_sub(self.outside_since.get()),
            blocked_for: self
                .stuck_since
                .get()
                .map(|since| now.saturating_sub(since)),
        };
        (self.socket, baggage)
    }

    /// What its upgrade said.
    pub fn handshake(&self) -> &Arc<Handshake> {
        &self.handshake
    }

    /// What its session comes to.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether the connection still serves it.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// The present session.
    pub fn session(&self) -> Option<SessionId> {
        self.membership.borrow().as_ref().map(|m| m.seat.session)
    }

    /// The room it is in.
    pub fn room(&self) -> Option<RoomId> {
        self.membership.borrow().as_ref().map(|m| m.seat.room)
    }

    /// Takes in a request of `session`: the room it is in and who it is there. `None`: that is
    /// not its present session.
    pub fn take_request(&self, session: &str, cseq: Cseq) -> Option<(RoomId, MemberId)> {
        let membership = self.membership.borrow();
        let seat = &membership.as_ref()?.seat;
        if seat.session.as_bytes() != session.as_bytes() {
            return None;
        }
        seat.progress.set_last_cseq(cseq);
        Some((seat.room, seat.member))
    }

    /// It is in a room, where this is its rate limit.
    pub fn enter(&self, membership: Membership, rate: Option<Arc<RateLimit>>) {
        *self.rate.borrow_mut() = rate;
        // It may have paused for a room that it has left.
        self.paused.set(false);
        let seat = &membership.seat;
        let mark = Mark {
            session: seat.session,
            after: seat.progress.sent_up_to(),
        };
        self.outbox
            .borrow_mut()
            .push(Frame::Session(Box::new(mark)));
        self.tally.restart();
        self.handshake.token.release_long();
        *self.membership.borrow_mut() = Some(membership);
    }

    /// Writes down how far its session has got: another connection is about to go on with it.
    pub fn note_progress(&self, shared: &Shared) {
        // Of what this turn has brought, its socket may still take all.
        self.flush(shared);
        if let Some(membership) = &*self.membership.borrow() {
            let sent_up_to = self.outbox.borrow().sent_up_to();
            membership.seat.progress.set_sent_up_to(sent_up_to);
        }
    }

    /// It is in no room any more, and the room knows.
    pub fn leave(&self, ending: Ending, shared: &Shared) {
        if let Some(membership) = self.membership.borrow_mut().take() {
            membership
                .seat
                .log_end(ending, &self.handshake, &self.tally);
            membership.dissolve(ending);
        }
        self.outside_since.set(shared.now.get());
        self.look_soon(shared);
    }

    // ----- what is let in -----

    /// A request goes to the room.
    pub fn request_begins(&self, moves: bool) {
        self.unanswered.set(self.unanswered.get() + 1);
        if moves {
            self.moving.set(true);
        }
    }

    /// A request is sent to its room.
    pub fn add_to_backlog(&self) {
        if let Some(membership) = &*self.membership.borrow() {
            membership.seat.backlog.add();
        }
    }

    /// Lets nothing in until the next answer to a join or leave.
    pub fn hold(&self) {
        self.moving.set(true);
    }

    /// A request has been answered.
    pub fn request_ends(&self, moves: bool, shared: &Shared) {
        self.unanswered.set(self.unanswered.get().saturating_sub(1));
        if moves {
            self.moving.set(false);
        }
        if self.unanswered.get() == 0
            && let Some(Parting { ending, frames }) = self.parting.take()
        {
            self.close_at_once(ending, frames, shared);
        }
        if self.held_back.replace(false) {
            self.wake();
        }
    }

    /// Whether the next frame has to wait. While a join or leave is under way it must, since
    /// what it means depends on the outcome; and a client that asks faster than it is answered
    /// is slowed by its own socket.
    pub fn holds_back(&self) -> bool {
        let holds = self.phase.get() != Phase::Open
            || self.is_parting()
            || self.moving.get()
            || self.unanswered.get() >= MAX_UNANSWERED;
        self.held_back.set(holds);
        holds || self.pauses()
    }

    /// Whether its room has so much to do that the next frame has to wait.
    fn pauses(&self) -> bool {
        let membership = self.membership.borrow();
        let backlog = membership
            .as_ref()
            .map(|membership| &membership.seat.backlog);
        let Some(backlog) = backlog.filter(|backlog| backlog.is_full()) else {
            return false;
        };
        if !self.paused.replace(true) {
            backlog.pause(self.id());
        }
        true
    }

    /// Its room has less to do.
    pub fn resume(&self) {
        if self.paused.replace(false) {
            self.wake();
        }
    }

    /// The rate limit, to go with its member.
    pub fn rate_limit(&self) -> Option<Arc<RateLimit>> {
        self.rate.borrow().clone()
    }

    /// Counts a frame of `bytes` payload against its rate limit.
    pub fn count(&self, bytes: usize, shared: &Shared) -> Verdict {
        self.tally.received(bytes);
        shared.stats.frames_in.add(1);
        shared.stats.bytes_in.add(bytes as u64);
        match &*self.rate.borrow() {
            Some(rate) => rate.count(bytes),
            None => Verdict::Admitted,
        }
    }

    /// Hands its session what the next frame says beside the context.
    pub fn hand_beside(&self, payload: Vec<u8>) {
        let before = self.beside.replace(payload);
        debug_assert!(before.is_empty(), "frames are handed out one at a time");
    }

    /// What this frame says, and did not bring along.
    pub fn take_beside(&self) -> Vec<u8> {
        self.beside.take()
    }

    /// Something came from the client.
    pub fn hear(&self, now: Millis) {
        self.heard.set(now);
    }

    // ----- handover -----

    /// Asks the connection's task to move to another thread.
    pub fn hand_over(&self, handover: Handover) {
        self.moving.set(true);
        *self.handover.borrow_mut() = Some(Box::new(handover));
        self.wake();
    }

    /// Whether the connection's task is asked to move it.
    pub fn is_to_move(&self) -> bool {
        self.handover.borrow().is_some()
    }

    /// Whether so little waits to be written that it may move or join. What moves along counts as
    /// waiting there, so it leaves room for what the next room sends.
    pub fn has_little_unsent(&self, shared: &Shared) -> bool {
        let most = MAX_MOVED_BYTES.min(shared.send_queue_bytes / 2);
        self.outbox.borrow().bytes() <= most
    }

    /// What the connection's task is asked to do.
    pub fn take_handover(&self) -> Option<Box<Handover>> {
        self.handover.borrow_mut().take()
    }

    // ----- the end -----

    /// Says goodbye: an error event if there is one, then a close frame. What the client has asked
    /// is answered before; nothing more is let in.
    pub fn close(&self, ending: Ending, reason: &str, shared: &Shared) {
        let frames = self.goodbye(ending, reason);
        self.close_after_answers(ending, frames, shared);
    }

    /// Its join was refused: where its token was not good enough, it has to go.
    pub fn turn_away_for(&self, refusal: &Refusal, shared: &Shared) {
        if matches!(refusal.code, ErrorCode::Unauthorized | ErrorCode::Forbidden) {
            self.close(Ending::Unauthorized, &refusal.message, shared);
        }
    }

    /// The client has closed: its close frame is echoed.
    pub fn echo_close(&self, ending: Ending, echo: Vec<u8>, shared: &Shared) {
        self.close_after_answers(ending, vec![echo], shared);
    }

    /// The client's stream has ended without a close frame. It may still be reading.
    pub fn end_of_stream(&self, shared: &Shared) {
        self.close_after_answers(Ending::Lost, Vec::new(), shared);
    }

    /// Says goodbye on the room's behalf, which knows that the member is none any more.
    pub fn unseat(&self, ending: Ending, reason: &str, shared: &Shared) {
        let frames = self.goodbye(ending, reason);
        self.leave(ending, shared);
        self.close_after_answers(ending, frames, shared);
    }

    /// Says goodbye because the server goes down; it may come back after so long.
    pub fn dismiss(&self, retry_after: Millis, shared: &Shared) {
        let event = event::server_shutdown(self.session(), retry_after);
        let close = frame::close(CloseCode::GoingAway, "the server shuts down");
        self.close_after_answers(Ending::Shutdown, vec![event, close], shared);
    }

    /// Whether it is only kept until its requests are answered.
    pub fn is_parting(&self) -> bool {
        self.parting.borrow().is_some()
    }

    fn close_after_answers(&self, ending: Ending, frames: Vec<Vec<u8>>, shared: &Shared) {
        if self.is_parting() {
            return;
        }
        if self.unanswered.get() == 0 && !self.moving.get() {
            self.close_at_once(ending, frames, shared);
        } else {
            self.parting.replace(Some(Parting { ending, frames }));
        }
    }

    /// The frames that say why.
    fn goodbye(&self, ending: Ending, reason: &str) -> Vec<Vec<u8>> {
        let event = ending
            .error_type()
            .map(|kind| event::error(self.session(), kind, reason));
        let close = ending.close_code().map(|code| frame::close(code, reason));
        event.into_iter().chain(close).collect()
    }

    /// The session is over with these last frames; the socket follows when they have gone.
    fn close_at_once(&self, ending: Ending, frames: Vec<Vec<u8>>, shared: &Shared) {
        if self.phase.get() != Phase::Open {
            return;
        }
        let mut outbox = self.outbox.borrow_mut();
        for bytes in frames {
            outbox.push(Frame::Own(bytes));
        }
        drop(outbox);
        self.end(Phase::Closing, ending);
        // Even if it trickles: a reader of a few bytes a second must not live for ever.
        self.close_by
            .set(shared.now.get() + shared.deadlines.send_timeout);
        self.look_soon(shared);
    }

    /// Ends the socket without a word, and with it what the system holds for it: nobody reads there.
    pub fn cut(&self, ending: Ending) {
        if let Err(e) = self.socket.reset_at_its_end() {
            log::debug!("a socket that is cut will linger: {e}");
        }
        self.lose(ending);
    }

    /// The client is gone.
    pub fn lose(&self, ending: Ending) {
        self.end(Phase::Lost, ending);
    }

    fn end(&self, phase: Phase, ending: Ending) {
        if self.phase.replace(phase) == Phase::Open {
            self.ending.set(ending);
        }
        if let Some(membership) = self.membership.borrow_mut().take() {
            let outbox = self.outbox.borrow();
            let sent_up_to = match ending {
                // What waits comes before the echo of its close frame.
                Ending::GivenUp => outbox.queued_up_to(),
                _ => outbox.sent_up_to(),
            };
            membership.seat.progress.set_sent_up_to(sent_up_to);
            membership
                .seat
                .log_end(ending, &self.handshake, &self.tally);
            membership.end(ending);
        }
        self.wake();
    }

    /// Lets its connection end now, see [`Clients::request_end`](crate::clients::Clients::request_end).
    pub fn allow_end(&self) {
        self.may_end.set(true);
        self.wake();
    }

    /// Whether its connection may end now.
    pub fn may_end(&self) -> bool {
        self.may_end.get()
    }

    /// Why it ended, once it has.
    pub fn ending(&self) -> Ending {
        self.ending.get()
    }

    // ----- the task -----

    /// The task that is woken.
    pub fn set_task(&self, waker: &Waker) {
        let mut task = self.task.borrow_mut();
        if task.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }

    /// Wakes the connection's task.
    pub fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }
}

//! The task of one connection, from the upgrade to the end of its socket.
//!
//! Its way in feeds the session's context ([`inbound`], [`gate`]); its way out is the client's
//! outbox, which the thread's flusher empties: the task itself writes only where the socket was
//! full. It moves the connection to another thread when a join asks for it, and at the end it
//! sees to it that the close frame really arrives.

pub mod gate;
pub mod inbound;

use std::{
    cell::RefCell,
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web_actors::ws::WebsocketContext;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;

use crate::{
    client::{Client, Phase, Shared},
    clients,
    clock::Millis,
    connection::inbound::Inbound,
    ending::Ending,
    flush_queue::Urgency,
    handover::{Baggage, Handover, PendingJoin},
    handshake::Handshake,
    outbox::Unsent,
    rate::RateLimit,
    session::SessionActor,
    socket::Socket,
    worker::Worker,
};

/// Reads of a closing client's last words in one go; then the others have their turn.
const DISCARDS_A_TURN: usize = 16;

/// A connection begins on this thread, a worker's, which has accepted it.
///
/// It has been in no room for all the time `since_accept`, and join_timeout counts from there.
pub fn begin(
    socket: Socket,
    since_accept: Duration,
    handshake: Arc<Handshake>,
    unread: BytesMut,
    worker: Rc<Worker>,
) {
    let baggage = Baggage {
        rate: RateLimit::new(&handshake.settings.session).map(Arc::new),
        handshake,
        unsent: Unsent::default(),
        outside_for: Millis::try_from(since_accept.as_millis()).unwrap_or(Millis::MAX),
        blocked_for: None,
    };
    serve(socket, baggage, unread, None, worker);
}

/// Serves a connection on this thread, a worker's, until it ends or moves.
fn serve(
    socket: Socket,
    baggage: Baggage,
    unread: BytesMut,
    pending: Option<PendingJoin>,
    worker: Rc<Worker>,
) {
    let unread = Rc::new(RefCell::new(unread));
    let max_message_bytes = baggage.handshake.settings.session.max_message_bytes;
    clients::with(|clients| {
        let now = clients.shared().now.get();
        let first_ping = clients.first_ping();
        let client = clients.insert(Client::new(socket, baggage, now, first_ping));
        clients.mark(&client, Urgency::Prompt);
        let inbound = Inbound::new(client.clone(), unread.clone(), max_message_bytes);
        let session = SessionActor::new(client.clone(), worker.clone(), pending);
        if worker.crew.is_draining() {
            // It was on its way while the others here were sent away.
            clients.dismiss(&client);
        }
        let context = WebsocketContext::with_codec(session, inbound, gate::codec());
        actix_rt::spawn(Connection(Some(Live {
            client,
            worker,
            unread,
            context: Some(Box::pin(context)),
            shut_down: false,
            is_ending: false,
        })));
    });
}

/// The task. It is empty once it has ended or moved.
struct Connection<S>(Option<Live<S>>);

/// A connection on this thread.
struct Live<S> {
    client: Rc<Client>,
    worker: Rc<Worker>,
    unread: Rc<RefCell<BytesMut>>,
    /// The session with its context; dropped when it is over, however it ended.
    context: Option<Pin<Box<S>>>,
    /// Whether our side of the socket is closed.
    shut_down: bool,
    /// Whether it has asked for a turn in which it ends.
    is_ending: bool,
}

/// How a connection stops being this thread's.
enum End {
    Over,
    Moves(Box<Handover>),
}

impl<S> Future for Connection<S>
where
    S: Stream<Item = Result<Bytes, actix_web::Error>>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(live) = &mut this.0 else {
            return Poll::Ready(());
        };
        if let End::Moves(handover) = ready!(live.poll(cx))
            && let Some(live) = this.0.take()
        {
            live.hand_over(*handover);
        }
        // Otherwise the destructor takes it out.
        Poll::Ready(())
    }
}

impl<S> Drop for Connection<S> {
    /// Every way out of a session ends here: the client, and with it its membership, is gone.
    fn drop(&mut self) {
        if let Some(live) = self.0.take() {
            if std::thread::panicking() {
                log::error!(
                    client:% = live.client.handshake().shown_address();
                    "a session failed"
                );
            }
            // Still open it is only where its session panicked, or where the thread ends.
            live.client.lose(if live.worker.crew.is_draining() {
                Ending::Shutdown
            } else {
                Ending::Lost
            });
            clients::try_with(|clients| {
                clients.shared().stats.ended(live.client.ending());
                clients.remove(live.client.id());
            });
        }
    }
}

impl<S> Live<S>
where
    S: Stream<Item = Result<Bytes, actix_web::Error>>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.client.set_task(cx.waker());
        if self.client.phase() == Phase::Open {
            self.serve(cx);
        }
        clients::with(|clients| {
            self.poll_unstick(cx, clients.shared());
            if let Some(handover) = self.poll_handover(cx, clients.shared()) {
                return Poll::Ready(End::Moves(handover));
            }
            match self.client.phase() {
                Phase::Open => Poll::Pending,
                phase => {
                    if !std::mem::replace(&mut self.is_ending, true) {
                        clients.request_end(&self.client);
                    }
                    if !self.client.may_end() {
                        return Poll::Pending;
                    }
                    match phase {
                        Phase::Lost => Poll::Ready(End::Over),
                        _ => self.poll_close(cx, clients.shared()),
                    }
                }
            }
        })
    }

    /// Lets the session do what it can.
    fn serve(&mut self, cx: &mut Context<'_>) {
        let Some(context) = &mut self.context else {
            return;
        };
        loop {
            match context.as_mut().poll_next(cx) {
                Poll::Pending => return,
                // The session speaks through its outbox, so that all it says has one order.
                Poll::Ready(Some(Ok(_))) => debug_assert!(false, "said past the outbox"),
                Poll::Ready(Some(Err(_)) | None) => {
                    if self.client.phase() == Phase::Open {
                        self.client.lose(Ending::Lost);
                    }
                    return;
                }
            }
        }
    }

    /// The move that is due, once little enough waits to be written.
    fn poll_handover(&self, cx: &mut Context<'_>, shared: &Shared) -> Option<Box<Handover>> {
        if self.client.phase() != Phase::Open || !self.client.is_to_move() {
            return None;
        }
        if !self.client.is_stuck() && !self.client.has_little_unsent(shared) {
            // The flusher would do this later, and does not wake this task. A full socket does.
            self.client.flush_part(clients::PART_BYTES, shared);
            if !self.client.is_stuck() && !self.client.has_little_unsent(shared) {
                wake_behind_the_network(cx);
            }
        }
        if self.client.phase() != Phase::Open || !self.client.has_little_unsent(shared) {
            return None;
        }
        self.client.take_handover()
    }

    /// Goes on writing where the socket was full.
    fn poll_unstick(&self, cx: &mut Context<'_>, shared: &Shared) {
        while self.client.is_stuck() && self.client.phase() != Phase::Lost {
            match self.client.socket().poll_write_ready(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => {
                    if self.client.flush_part(clients::PART_BYTES, shared) >= clients::PART_BYTES {
                        // The others have their turn first.
                        return wake_behind_the_network(cx);
                    }
                }
                Poll::Ready(Err(_)) => return self.client.lose(Ending::Lost),
            }
        }
    }

    /// Sees the close frame off: all that waits is written, then our side is closed, then
    /// whatever the client still says is read and dropped until it closes its own. A socket that
    /// is dropped with unread input sends a reset, and that destroys the close frame on its way. All
    /// of it has `send_timeout`: a client whose network stands still for a few seconds is to read
    /// why it was closed, or it would come back as if its connection had been lost.
    fn poll_close(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<End> {
        self.context = None;
        if !self.shut_down && !self.client.is_flushed() {
            if !self.client.is_stuck() {
                self.client.flush(shared);
            }
            self.poll_unstick(cx, shared);
            if self.client.phase() == Phase::Lost {
                return Poll::Ready(End::Over);
            }
            if !self.client.is_flushed() {
                return Poll::Pending;
            }
        }
        if !self.shut_down {
            self.shut_down = true;
            if self.client.socket().shut_down().is_err() {
                return Poll::Ready(End::Over);
            }
        }
        let mut scratch = shared.scratch.borrow_mut();
        for _ in 0..DISCARDS_A_TURN {
            match ready!(self.client.socket().poll_read(cx, &mut scratch)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(End::Over),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves to the thread of the room that is to be joined: socket, unread input, unsent output
    /// and the join itself.
    fn hand_over(self, handover: Handover) {
        let Self {
            client,
            worker,
            unread,
            context,
            ..
        } = self;
        // The session and its way in hold the client too.
        drop(context);
        clients::with(|clients| clients.remove(client.id()));
        let Ok(client) = Rc::try_unwrap(client) else {
            return log::error!("a connection that was to move is still held here; it is closed");
        };
        let now = clients::with(|clients| clients.shared().now.get());
        let (socket, baggage) = client.into_baggage(now);
        let socket = match socket.detach() {
            Ok(socket) => socket,
            Err(e) => return log::error!("a connection cannot move: {e}"),
        };
        let Handover {
            worker: to,
            pending,
        } = handover;
        let unread = unread.take();
        worker.send_to(to, move |worker| match socket.attach() {
            Ok(socket) => serve(socket, baggage, unread, Some(pending), worker),
            Err(e) => log::error!("a connection that moved cannot be served: {e}"),
        });
    }
}

/// Has the task go on once the thread has looked what the network has brought to the others.
fn wake_behind_the_network(cx: &mut Context<'_>) {
    let wakes = pin!(tokio::task::yield_now()).poll(cx);
    debug_assert!(wakes.is_pending(), "it wakes the task later");
}

//! The way in: from the client's socket, through the gate, one whole frame at a time to the
//! session's context.
//!
//! One at a time, because what a frame means may depend on the frame before it: while a join or
//! leave is under way, or too many requests are unanswered, the next one waits here, and with it
//! everything behind it in the socket. So TCP slows the client, nothing piles up unseen in the
//! context's own buffers, and a connection that moves to another thread takes all of it along.
//!
//! And not too many in one go: a client that sends without a pause would keep its thread from looking
//! at the network for as long as its own socket holds something.
//!
//! What a message says does not go through the context: the buffer in which that looks for frames would
//! keep the size of the longest one for as long as the connection lives, and has long gone cold when the
//! next one comes. The session is handed it beside the context, which sees the frame without it.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_http::error::PayloadError;
use bytes::{Buf, Bytes, BytesMut};
use futures_core::Stream;

use super::{
    gate::{Admitted, Gate, Violation},
    wake_behind_the_network,
};
use crate::{
    client::{Client, Phase, Shared},
    clients,
    ending::Ending,
};

/// How much of one client's input is let in before the network has its turn: bytes, and for each
/// frame this much more, since the shortest one costs something too.
const TURN_BYTES: usize = 64 * 1024;
const FRAME_COST: usize = 1024;

/// The stream of a client's frames, as `WebsocketContext` wants it.
pub struct Inbound {
    client: Rc<Client>,
    gate: Gate,
    /// What was read and not yet let in. The connection's task takes it along in a handover.
    unread: Rc<RefCell<BytesMut>>,
    /// A frame was handed out and the context has not yet been told to stop asking: it asks for
    /// bytes until there are none before it looks at the first of them.
    handed_out: bool,
    /// How much has been let in since the network had its turn.
    spent: usize,
}

impl Inbound {
    /// The frames of `client`, beginning with what is `unread`.
    pub fn new(
        client: Rc<Client>,
        unread: Rc<RefCell<BytesMut>>,
        max_message_bytes: usize,
    ) -> Self {
        Self {
            client,
            gate: Gate::new(max_message_bytes),
            unread,
            handed_out: false,
            spent: 0,
        }
    }

    /// The frame with which `input` begins, if it is there and let in.
    fn admit(&mut self, input: &[u8], shared: &Shared) -> Option<Admitted> {
        match self.gate.admit(input) {
            Ok(admitted) => admitted,
            Err(violation) => {
                let Violation { ending, reason } = violation;
                self.client.close(ending, &reason, shared);
                None
            }
        }
    }

    /// The next frame of what was read before, if it is there and let in.
    fn next_unread(&mut self, shared: &Shared) -> Option<Bytes> {
        let mut unread = self.unread.take();
        let frame = self.admit(&unread, shared);
        let shown = frame.as_ref().map(|frame| self.hand_out(frame, &unread));
        unread.advance(frame.map_or(0, |frame| frame.len));
        if !unread.is_empty() {
            // Otherwise it is given back: a quiet connection holds no memory.
            self.unread.replace(unread);
        }
        shown
    }

    /// Reads once. A frame that came whole is handed on at once; whatever else came is kept.
    fn poll_read(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<Option<Bytes>> {
        let mut scratch = shared.scratch.borrow_mut();
        match ready!(self.client.socket().poll_read(cx, &mut scratch)) {
            Ok(1..) => {
                self.client.hear(shared.now.get());
                return Poll::Ready(self.take_in(&scratch, shared));
            }
            Ok(0) => self.client.end_of_stream(shared),
            Err(_) => self.client.lose(Ending::Lost),
        }
        Poll::Pending
    }

    fn take_in(&mut self, input: &[u8], shared: &Shared) -> Option<Bytes> {
        let whole = if self.unread.borrow().is_empty() {
            self.admit(input, shared)
        } else {
            None
        };
        let rest = &input[whole.as_ref().map_or(0, |frame| frame.len)..];
        if !rest.is_empty() {
            self.unread.borrow_mut().extend_from_slice(rest);
        }
        whole.map(|frame| self.hand_out(&frame, input))
    }

    /// What the context is to see of a frame that was let in.
    fn hand_out(&mut self, frame: &Admitted, input: &[u8]) -> Bytes {
        self.spent += frame.len + FRAME_COST;
        if !frame.is_control {
            self.client.hand_beside(frame.payload(input));
        }
        frame.shown(input)
    }
}

impl Stream for Inbound {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.handed_out) {
            return Poll::Pending;
        }
        if this.spent >= TURN_BYTES {
            this.spent = 0;
            wake_behind_the_network(cx);
            return Poll::Pending;
        }
        clients::with(|clients| {
            let shared = clients.shared();
            let mut frame = None;
            // Whoever lets the next frame in again wakes the connection's task.
            while frame.is_none() && !this.client.holds_back() {
                frame = this.next_unread(shared);
                if frame.is_none() && this.client.phase() == Phase::Open {
                    frame = ready!(this.poll_read(cx, shared));
                }
            }
            if frame.is_none() {
                return Poll::Pending;
            }
            this.handed_out = true;
            Poll::Ready(frame.map(Ok))
        })
    }
}

//! The way in: from the client's socket, through the gate, one whole frame at a time to the
//! session's context.
//!
//! One at a time, because what a frame means may depend on the frame before it: while a join or
//! leave is under way, or too many requests are unanswered, the next one waits here, and with it
//! everything behind it in the socket. So TCP slows the client, nothing piles up unseen in the
//! context's own buffers, and a connection that moves to another thread takes all of it along.

use std::{
    io::ErrorKind,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_http::error::PayloadError;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;

use super::gate::{Gate, Violation};
use crate::{
    client::{Client, Shared},
    clients,
    protocol::error::{CloseCode, ErrorType},
};

/// The stream of a client's frames, as `WebsocketContext` wants it.
pub struct Inbound {
    client: Rc<Client>,
    gate: Gate,
    /// What was read and not yet let in. The connection's task takes it along in a handover.
    unread: Rc<std::cell::RefCell<BytesMut>>,
    /// A frame was handed out and the context has not yet been told to stop asking: it asks for
    /// bytes until there are none before it looks at the first of them.
    handed_out: bool,
}

impl Inbound {
    /// The frames of `client`, beginning with what is `unread`.
    pub fn new(
        client: Rc<Client>,
        unread: Rc<std::cell::RefCell<BytesMut>>,
        max_message_bytes: usize,
    ) -> Self {
        Self {
            client,
            gate: Gate::new(max_message_bytes),
            unread,
            handed_out: false,
        }
    }

    /// The next frame, if it is there and let in.
    fn take_frame(&mut self, shared: &Shared) -> Option<Bytes> {
        let mut unread = self.unread.borrow_mut();
        match self.gate.admit(&unread) {
            Ok(None) => None,
            Ok(Some(len)) => {
                let frame = unread.split_to(len).freeze();
                if unread.is_empty() {
                    // Or a quiet connection would hold on to its last frame's memory.
                    *unread = BytesMut::new();
                }
                Some(frame)
            }
            Err(violation) => {
                refuse(&self.client, &violation, shared);
                None
            }
        }
    }

    /// Reads once. `Ready(true)`: something came.
    fn poll_read(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<bool> {
        let socket = self.client.socket();
        let mut scratch = shared.scratch.borrow_mut();
        loop {
            match socket.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => break,
                Poll::Ready(Ok(())) => {}
            }
            scratch.clear();
            match socket.try_read_buf(&mut *scratch) {
                Ok(0) => break,
                Ok(_) => {
                    self.client.hear(shared.now.get());
                    self.unread.borrow_mut().extend_from_slice(&scratch);
                    return Poll::Ready(true);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        // The end of the stream without a close frame, or a reset.
        self.client.lose();
        Poll::Ready(false)
    }
}

fn refuse(client: &Client, violation: &Violation, shared: &Shared) {
    let event = (violation.code == CloseCode::TooBig)
        .then_some((ErrorType::MessageTooBig, &*violation.reason));
    client.close(event, violation.code, &violation.reason, shared);
}

impl Stream for Inbound {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.handed_out) {
            return Poll::Pending;
        }
        clients::with(|clients| {
            loop {
                // Whoever lets the next frame in again wakes the connection's task.
                if this.client.holds_back() {
                    return Poll::Pending;
                }
                if let Some(frame) = this.take_frame(clients.shared()) {
                    this.handed_out = true;
                    return Poll::Ready(Some(Ok(frame)));
                }
                if this.client.holds_back() {
                    return Poll::Pending;
                }
                match this.poll_read(cx, clients.shared()) {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) | Poll::Pending => return Poll::Pending,
                }
            }
        })
    }
}

//! The promise that a request is answered.

use crate::{
    client::Client,
    clients,
    ids::ConnectionId,
    membership::Wanted,
    outbox::Frame,
    protocol::{
        error::{ErrorCode, Refusal},
        reply::ReplyTo,
    },
};

/// What a request does to where its client stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// channel.join, for this place.
    Join(Box<Wanted>),
    /// channel.leave
    Leave,
    /// Any other.
    Stay,
}

impl Kind {
    /// Whether no further frame is let in until it is answered.
    fn moves(&self) -> bool {
        *self != Self::Stay
    }
}

/// Travels with a request from the session to the room. Whoever drops it unanswered (a dead
/// mailbox, a room that panicked) has thereby answered 503: a client that waits for an answer
/// gets exactly one, whatever happens to its request.
#[derive(Debug)]
pub struct Ticket {
    client: ConnectionId,
    reply_to: ReplyTo,
    kind: Kind,
    answered: bool,
}

impl Ticket {
    /// For a request of `client`, which must be one of this thread's.
    pub fn new(client: &Client, reply_to: ReplyTo, kind: Kind) -> Self {
        client.request_begins(kind.moves());
        Self {
            client: client.id(),
            reply_to,
            kind,
            answered: false,
        }
    }

    /// Who asked.
    pub fn client(&self) -> ConnectionId {
        self.client
    }

    /// What an answer repeats of the request.
    pub fn reply_to(&self) -> &ReplyTo {
        &self.reply_to
    }

    /// Answers.
    pub fn answer(mut self, frame: Frame) {
        self.give(frame, None);
    }

    /// Answers with an error.
    pub fn refuse(mut self, refusal: &Refusal) {
        self.give_refusal(refusal);
    }

    fn give_refusal(&mut self, refusal: &Refusal) {
        let frame = Frame::Own(self.reply_to.refused(refusal));
        self.give(frame, Some(refusal));
    }

    fn give(&mut self, frame: Frame, refusal: Option<&Refusal>) {
        self.answered = true;
        clients::try_with(|clients| {
            if let Some(client) = clients.get(self.client) {
                if let (Kind::Join(wanted), Some(refusal)) = (&self.kind, refusal) {
                    client.log_refused_join(Some(wanted), refusal);
                }
                let err = refusal.map(|refusal| refusal.code);
                clients.answer(&client, self.reply_to.method, err, frame);
                if let (Kind::Join(_), Some(refusal)) = (&self.kind, refusal) {
                    client.turn_away_for(refusal, clients.shared());
                }
                client.request_ends(self.kind.moves(), clients.shared());
            }
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            let refusal = Refusal::new(
                ErrorCode::Unavailable,
                "the request was lost in a failure of the server; try it again",
            );
            self.give_refusal(&refusal);
        }
    }
}

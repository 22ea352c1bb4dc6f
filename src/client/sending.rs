//! What is sent to a client: how it comes into the outbox, on which list the client stands meanwhile,
//! and how it gets from there into the socket.

use std::{io::ErrorKind, time::Instant};

use super::{Client, Phase, Shared};
use crate::{ending::Ending, flush_queue::Urgency, outbox::Frame};

impl Client {
    /// Adds to what waits. `true`: its socket takes more, so that somebody has to see to a flush.
    pub fn push(&self, frame: Frame, shared: &Shared) -> bool {
        if self.phase.get() != Phase::Open {
            return false;
        }
        if frame.bytes_count() && self.is_full(&frame, shared) {
            // In a burst the queue may be long only because this turn is.
            self.flush(shared);
            if self.phase.get() == Phase::Open && self.is_full(&frame, shared) {
                self.put_out(shared);
            }
            if self.phase.get() != Phase::Open {
                return false;
            }
        }
        let mut outbox = self.outbox.borrow_mut();
        outbox.push(frame);
        self.tally.queued(outbox.waiting());
        !self.is_stuck()
    }

    /// Reads too slowly for what it is sent: what waits is dropped.
    fn put_out(&self, shared: &Shared) {
        self.outbox.borrow_mut().drop_waiting();
        let why = "this client reads more slowly than its room speaks";
        let frames = self.goodbye(Ending::SlowConsumer, why);
        // Not after its answers: what it does not read needs no more of them.
        self.close_at_once(Ending::SlowConsumer, frames, shared);
    }

    /// Whether there is no place for another frame. A single one may be longer than all that may
    /// wait.
    fn is_full(&self, another: &Frame, shared: &Shared) -> bool {
        let outbox = self.outbox.borrow();
        let has_too_many = another.counts() && outbox.waiting() >= shared.send_queue;
        let has_too_much = outbox.bytes_not_begun() + another.size() > shared.send_queue_bytes;
        !outbox.has_no_weight() && (has_too_many || has_too_much)
    }

    /// Schedules a flush. `true`: it is to be put into the queue, where it may stand already, further
    /// back.
    #[must_use]
    pub fn schedule_flush(&self, urgency: Urgency) -> bool {
        let was_scheduled = self.dirty.replace(true);
        if urgency == Urgency::Prompt {
            return self.coalesced.replace(false) || !was_scheduled;
        }
        if !was_scheduled {
            self.coalesced.set(urgency == Urgency::Coalesced);
        }
        !was_scheduled
    }

    /// Its turn to be flushed has come. `false`: it has been flushed from a place further ahead.
    #[must_use]
    pub fn take_flush(&self) -> bool {
        self.coalesced.set(false);
        self.dirty.replace(false)
    }

    /// Whether so much waits for it that it should not wait for more.
    pub fn is_half_full(&self, shared: &Shared) -> bool {
        let outbox = self.outbox.borrow();
        outbox.waiting() >= shared.send_queue / 2 || outbox.bytes() >= shared.send_queue_bytes / 2
    }

    /// Something waits for it that may wait. `true`: it is to be put on the crowd's list. `false`: it
    /// is there already, or is to be flushed at the end of this turn.
    pub fn enter_crowd(&self) -> bool {
        !self.dirty.get() && !self.in_crowd.replace(true)
    }

    /// It is no longer on the crowd's list. Whether it is to be flushed: what it waited with may have
    /// gone with something else.
    pub fn leave_crowd(&self) -> bool {
        self.in_crowd.set(false);
        !self.is_flushed()
    }

    /// Offers the socket what waits, until it takes no more.
    pub fn flush(&self, shared: &Shared) {
        self.flush_part(usize::MAX, shared);
    }

    /// The same, but that so many bytes are enough for now, or a little more. How many the socket
    /// has taken.
    pub fn flush_part(&self, enough: usize, shared: &Shared) -> usize {
        let mut scratch = shared.scratch.borrow_mut();
        let mut taken = 0;
        while !self.is_flushed() {
            if taken >= enough {
                return taken;
            }
            let oldest = self.first_event();
            self.outbox.borrow().gather(&mut scratch);
            match self.socket.send(&scratch) {
                Ok(written) => {
                    taken += written;
                    self.outbox.borrow_mut().advance(written);
                    self.tally.written(written);
                    shared.stats.bytes_out.add(written as u64);
                    if let Some(oldest) = oldest
                        && written > 0
                    {
                        shared.stats.delivery_delay.observe(oldest.elapsed());
                    }
                    if self.stuck_since.get().is_some() {
                        self.stuck_since.set(Some(shared.now.get()));
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if self.stuck_since.get().is_none() {
                        self.stuck_since.set(Some(shared.now.get()));
                        self.look_soon(shared);
                        // From now on it is the task that waits for the socket and goes on.
                        self.wake();
                    }
                    return taken;
                }
                Err(_) => {
                    self.lose(Ending::Lost);
                    return taken;
                }
            }
        }
        self.stuck_since.set(None);
        taken
    }

    /// When the event that waits first happened, see
    /// [`Outbox::first_event`](crate::outbox::Outbox::first_event).
    pub fn first_event(&self) -> Option<Instant> {
        self.outbox.borrow().first_event()
    }

    /// Whether the socket is full, so that the connection's task has to wait for it.
    pub fn is_stuck(&self) -> bool {
        self.stuck_since.get().is_some()
    }

    /// Whether nothing waits.
    pub fn is_flushed(&self) -> bool {
        self.outbox.borrow().is_empty() && !self.socket.has_unsent()
    }
}

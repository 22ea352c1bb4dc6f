//! What one member's session comes to: the figures of the line that the log has for its end.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// Counted from the join on.
#[derive(Debug)]
pub struct Tally {
    since: Cell<Instant>,
    messages_in: Cell<u64>,
    messages_out: Cell<u64>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    longest_queue: Cell<usize>,
    ping_sent: Cell<Option<Instant>>,
    round_trip: Cell<Option<Duration>>,
    close_code: Cell<Option<u16>>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            since: Cell::new(Instant::now()),
            messages_in: Cell::default(),
            messages_out: Cell::default(),
            bytes_in: Cell::default(),
            bytes_out: Cell::default(),
            longest_queue: Cell::default(),
            ping_sent: Cell::default(),
            round_trip: Cell::default(),
            close_code: Cell::default(),
        }
    }
}

impl Tally {
    /// Begins anew: a join.
    pub fn restart(&self) {
        self.since.set(Instant::now());
        let counters = [
            &self.messages_in,
            &self.messages_out,
            &self.bytes_in,
            &self.bytes_out,
        ];
        for counter in counters {
            counter.set(0);
        }
        self.longest_queue.set(0);
        self.round_trip.set(None);
    }

    /// A frame came, with so much payload.
    pub fn received(&self, bytes: usize) {
        self.messages_in.set(self.messages_in.get() + 1);
        self.bytes_in.set(self.bytes_in.get() + bytes as u64);
    }

    /// A frame was queued, and so many wait now.
    pub fn queued(&self, waiting: usize) {
        self.messages_out.set(self.messages_out.get() + 1);
        if waiting > self.longest_queue.get() {
            self.longest_queue.set(waiting);
        }
    }

    /// The socket took so many bytes.
    pub fn written(&self, bytes: usize) {
        self.bytes_out.set(self.bytes_out.get() + bytes as u64);
    }

    /// A ping was queued.
    pub fn pinged(&self) {
        self.ping_sent.set(Some(Instant::now()));
    }

    /// A pong came. The time since the ping, where there was one.
    pub fn ponged(&self) -> Option<Duration> {
        let round_trip = self.ping_sent.take()?.elapsed();
        self.round_trip.set(Some(round_trip));
        Some(round_trip)
    }

    /// The client's close frame came, with this code.
    pub fn closed(&self, code: Option<u16>) {
        self.close_code.set(code);
    }

    /// The figures, as they stand.
    pub fn figures(&self) -> Figures {
        Figures {
            duration: self.since.get().elapsed(),
            messages_in: self.messages_in.get(),
            messages_out: self.messages_out.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            longest_queue: self.longest_queue.get(),
            round_trip: self.round_trip.get(),
            close_code: self.close_code.get(),
        }
    }
}

/// See [`Tally`].
#[derive(Debug)]
pub struct Figures {
    /// Since the join.
    pub duration: Duration,
    /// Frames from the client.
    pub messages_in: u64,
    /// Frames to it.
    pub messages_out: u64,
    /// Their payload.
    pub bytes_in: u64,
    /// What its socket took.
    pub bytes_out: u64,
    /// The most frames that waited for it.
    pub longest_queue: usize,
    /// Of the last ping that was answered.
    pub round_trip: Option<Duration>,
    /// The code of the client's close frame, where it sent one that has a code.
    pub close_code: Option<u16>,
}

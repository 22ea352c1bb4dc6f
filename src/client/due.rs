//! When a client is to be looked at, and what is due then: its deadlines and its pings. The ticker
//! of the thread asks ([`crate::clients`]); what it does with the answer is its own business.

use super::{Client, Phase, Shared};
use crate::{
    clock::{Millis, millis},
    deadlines::{Deadlines, Due},
    ending::Ending,
};

impl Client {
    /// Has the ticker look at it at its next tick: a deadline has come nearer.
    pub fn look_soon(&self, shared: &Shared) {
        self.look_at(shared.now.get(), shared);
    }

    fn look_at(&self, at: Millis, shared: &Shared) {
        if at < self.alarm.get() {
            self.later_alarm.set(self.alarm.replace(at));
            shared.alarms.set(at, self.id());
        }
    }

    /// Whether it is to be looked at for this alarm, and not for one that came to nothing.
    pub fn take_alarm(&self, at: Millis) -> bool {
        let is_next = self.alarm.get() == at;
        if is_next {
            // The one behind it is still set: without a word of it, each look would set another.
            self.alarm.set(self.later_alarm.replace(Millis::MAX));
        }
        is_next
    }

    /// Has the ticker look at it again when the next of its deadlines may have come.
    pub fn look_again(&self, shared: &Shared) {
        let (deadlines, now) = (&shared.deadlines, shared.now.get());
        if self.phase.get() != Phase::Open {
            return self.look_at(self.close_by.get().max(now + 1), shared);
        }
        let others = [self.stuck_until(deadlines), self.outside_until()];
        let first = self.silent_until(deadlines).min(self.ping_look(deadlines));
        let next = others.into_iter().flatten().fold(first, Millis::min);
        self.look_at(next.max(now + 1), shared);
    }

    /// When it has said nothing for too long.
    fn silent_until(&self, deadlines: &Deadlines) -> Millis {
        self.heard.get().saturating_add(deadlines.idle_timeout)
    }

    /// Whether the server does not read from it at present: its room has too much to do, or its move
    /// waits until it has read more itself.
    fn is_not_read(&self) -> bool {
        self.paused.get() || self.is_to_move()
    }

    /// When its socket, if it is full, has taken nothing for too long.
    fn stuck_until(&self, deadlines: &Deadlines) -> Option<Millis> {
        let since = self.stuck_since.get()?;
        Some(since.saturating_add(deadlines.send_timeout))
    }

    /// When it has been in no room for too long, if it is in none.
    fn outside_until(&self) -> Option<Millis> {
        let since = self.outside_since.get();
        // A join that waits for its move was sent in time.
        let is_outside = self.membership.borrow().is_none() && !self.is_to_move();
        let join_timeout = || millis(self.handshake.settings.session.join_timeout);
        is_outside.then(|| since.saturating_add(join_timeout()))
    }

    /// What is due now, asked by the thread's ticker.
    pub fn due(&self, shared: &Shared) -> Option<Due> {
        let (deadlines, now) = (&shared.deadlines, shared.now.get());
        if self.phase.get() != Phase::Open {
            return (now >= self.close_by.get()).then_some(Due::Cut(Ending::SendTimeout));
        }
        let is_over = |until: Option<Millis>| until.is_some_and(|until| until <= now);
        if is_over(self.stuck_until(deadlines)) {
            let since = self.stuck_since.get();
            // A system calls a socket writable only when a good part of its buffer is free, which
            // a steady reader may not have brought about in that time. Whether it has taken
            // anything shows when it is offered more.
            self.flush(shared);
            if self.stuck_since.get() == since {
                return Some(Due::Cut(Ending::SendTimeout));
            }
        }
        if self.silent_until(deadlines) <= now {
            if !self.is_not_read() {
                return Some(Due::Cut(Ending::Idle));
            }
            // What it says waits in its socket. That is the server's doing, and no silence.
            self.hear(now);
        }
        if !self.moving.get() && is_over(self.outside_until()) {
            return Some(Due::NotJoined);
        }
        if now >= self.ping_look(deadlines) {
            self.ping_may_go.set(true);
        }
        (now >= self.ping_due.get()).then_some(Due::Ping)
    }

    /// When something is to be done about the next ping. For the last tenth of the interval before it
    /// is due it may go with whatever else is written, which saves a write of its own.
    fn ping_look(&self, deadlines: &Deadlines) -> Millis {
        let due = self.ping_due.get();
        if self.ping_may_go.get() {
            due
        } else {
            due.saturating_sub(deadlines.ping_early())
        }
    }

    /// Whether a ping is to go now that something is written. If so, it counts as gone, and the next
    /// is due in step with when this one was, whenever it goes: pings that are spread over the
    /// interval stay so. A step is a tenth shorter than the interval, so that the next one is not
    /// later than that after one that goes early.
    pub fn take_ping(&self, shared: &Shared) -> bool {
        let goes = self.ping_may_go.take() && self.phase.get() == Phase::Open;
        if goes {
            let deadlines = &shared.deadlines;
            let step = deadlines.ping_interval - deadlines.ping_early();
            let due = self.ping_due.get();
            let missed = shared.now.get().saturating_sub(due) / step;
            self.ping_due.set(due + (missed + 1) * step);
            self.tally.pinged();
        }
        goes
    }
}

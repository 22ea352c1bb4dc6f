//! What the members have seen, counted.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt::Display,
};

use super::{ledger::Fault, say, wire::times::Times};

/// So many faults are told in full.
const TOLD: u64 = 40;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(Cell<u64>);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.set(self.0.get() + n);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.get()
    }
}

/// How often what came.
#[derive(Debug)]
pub(crate) struct Tally<K>(RefCell<BTreeMap<K, u64>>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<K: Ord + Display> Tally<K> {
    pub(crate) fn add(&self, what: K) {
        *self.0.borrow_mut().entry(what).or_default() += 1;
    }

    pub(crate) fn get(&self, what: &K) -> u64 {
        self.0.borrow().get(what).copied().unwrap_or(0)
    }

    pub(crate) fn text(&self) -> String {
        let all = self.0.borrow();
        let each: Vec<_> = all.iter().map(|(what, n)| format!("{what} {n}")).collect();
        each.join(", ")
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) connections: Counter,
    /// Upgrades that did not come about.
    pub(crate) refused_connections: Counter,
    /// Sessions that began.
    pub(crate) joins: Counter,
    /// Joins that named a session to go on with, and what became of them.
    pub(crate) resumes_asked: Counter,
    pub(crate) resumed: Counter,
    /// Its window was over; more was missed than is kept.
    pub(crate) too_late: Counter,
    pub(crate) overrun: Counter,
    pub(crate) delivered: Counter,
    /// Of those: missed at first.
    pub(crate) replayed: Counter,
    /// What members did.
    pub(crate) acts: Tally<&'static str>,
    /// Answers, by their `err`.
    pub(crate) answers: Tally<u16>,
    /// Error events, by their type.
    pub(crate) errors: Tally<String>,
    /// Close frames of the server, by their code.
    pub(crate) closes: Tally<u16>,
    /// Connections that ended without one, or with one of 4002.
    pub(crate) cut: Counter,
    /// What can happen, but only where somebody was late by seconds.
    doubtful: Counter,
    /// What became of those who never joined.
    pub(crate) strays: Tally<&'static str>,
    /// From a broadcast to its receipt by somebody who reads all the time.
    pub(crate) delay: Times,
    /// How much later than an interval after the last one a ping came, and how much earlier.
    pub(crate) late_pings: Times,
    pub(crate) early_pings: Times,
    /// How late this process is itself: what is between two of its turns.
    pub(crate) stalls: Times,
    pub(crate) losses: Counter,
    pub(crate) disorder: Counter,
    /// Events that were wrong in some other way.
    pub(crate) wrong_events: Counter,
    /// All else that must not happen.
    pub(crate) misbehaved: Counter,
}

impl Figures {
    /// Something is wrong with the events of a room.
    pub(crate) fn fault(&self, fault: &Fault, channel: &str, endpoint: &str) {
        match fault {
            Fault::Lost(_) => &self.losses,
            Fault::Disorder(_) => &self.disorder,
            Fault::Foreign(_) | Fault::Senseless(..) | Fault::NoEnd => &self.wrong_events,
        }
        .add(1);
        self.tell(&format!("FAULT {endpoint} in {channel}: {fault:?}"));
    }

    /// Something else has happened that must not.
    pub(crate) fn misbehaved(&self, who: &str, what: &str) {
        self.misbehaved.add(1);
        self.tell(&format!("FAULT {who}: {what}"));
    }

    /// Something has happened that a server does to clients that are late, and this one meant to be
    /// in time: it is closed, or not waited for any more. Where the machine is so busy that one of
    /// us does not come to its turn for seconds, that is as it should be; elsewhere it is not.
    pub(crate) fn doubtful(&self, who: &str, what: &str) {
        self.doubtful.add(1);
        if self.doubtful.get() <= TOLD {
            say(&format!("DOUBT {who}: {what}"));
        }
    }

    /// How often that was.
    pub(crate) fn doubts(&self) -> u64 {
        self.doubtful.get()
    }

    /// How late anybody was on this side, at worst, in seconds: a turn of this process, or a
    /// broadcast on its way to one who reads all the time.
    pub(crate) fn lateness(&self) -> f64 {
        self.stalls.worst().max(self.delay.worst()).as_secs_f64()
    }

    fn tell(&self, text: &str) {
        match self.faults() {
            ..=TOLD => say(text),
            n if n == TOLD + 1 => say("… and more faults"),
            _ => {}
        }
    }

    /// How much was wrong.
    pub(crate) fn faults(&self) -> u64 {
        self.losses.get() + self.disorder.get() + self.wrong_events.get() + self.misbehaved.get()
    }
}

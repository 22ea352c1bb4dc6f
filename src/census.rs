//! How many objects of each kind are alive on each thread.
//!
//! What is made and never let go shows here first: with nobody connected, every count is zero.
//! Each object holds a [`Counted`]; its thread alone writes the counts, anybody may read them.

use std::sync::Arc;

use crate::instrument::Gauge;

/// What comes and goes with clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A connection that has upgraded.
    Connection,
    /// A SessionActor.
    Session,
    /// A RoomActor.
    Room,
    /// What waits for one client.
    Outbox,
    /// A room's event, on its way to somebody.
    Event,
}

impl Object {
    /// All of them, in the order of their definition.
    pub const ALL: [Self; 5] = [
        Self::Connection,
        Self::Session,
        Self::Room,
        Self::Outbox,
        Self::Event,
    ];

    /// The word in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Session => "session",
            Self::Room => "room",
            Self::Outbox => "outbox",
            Self::Event => "event",
        }
    }
}

/// The counts of one thread.
#[derive(Debug, Default)]
pub struct Census([Gauge; Object::ALL.len()]);

thread_local! {
    static HERE: Arc<Census> = Arc::default();
}

impl Census {
    /// The counts of this thread.
    pub fn of_this_thread() -> Arc<Self> {
        HERE.with(Arc::clone)
    }

    /// How many there are of this kind.
    pub fn count(&self, kind: Object) -> i64 {
        self.0[kind as usize].get()
    }
}

/// Counts its owner for as long as it lives. It must stay on its thread.
#[derive(Debug)]
pub struct Counted {
    kind: Object,
    /// The count is its thread's own.
    _stays: std::marker::PhantomData<*const ()>,
}

impl Counted {
    /// One more of this kind.
    pub fn new(kind: Object) -> Self {
        add(kind, 1);
        Self {
            kind,
            _stays: std::marker::PhantomData,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        add(self.kind, -1);
    }
}

fn add(kind: Object, n: i64) {
    // At the end of a thread nobody reads its counts any more.
    let _ = HERE.try_with(|here| here.0[kind as usize].add(n));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_counted_out() {
        let here = Census::of_this_thread();
        let before = here.count(Object::Room);
        let rooms = [Counted::new(Object::Room), Counted::new(Object::Room)];
        assert_eq!(here.count(Object::Room), before + 2);
        drop(rooms);
        assert_eq!(here.count(Object::Room), before);
    }

    #[test]
    fn every_kind_has_its_own_count() {
        for (at, kind) in Object::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }
}

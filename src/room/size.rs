//! What the counters know of a room.

use crate::{room::state::RoomState, stats::Stats};

/// A room at one moment.
pub(super) struct Size {
    members: usize,
    detached: usize,
    losses: u64,
    streams: usize,
    events: usize,
    bytes: usize,
}

impl Size {
    pub(super) fn of(state: &RoomState) -> Self {
        Self {
            members: state.members().len(),
            detached: state.detached(),
            losses: state.losses(),
            streams: state.streams(),
            events: state.history().len(),
            bytes: state.history().bytes(),
        }
    }

    pub(super) fn count_since(&self, before: &Self, stats: &Stats) {
        let change = |now: usize, before: usize| now as i64 - before as i64;
        stats.room_resized(before.members, self.members);
        stats.detached.add(change(self.detached, before.detached));
        stats.losses.add(self.losses.saturating_sub(before.losses));
        stats.streams.add(change(self.streams, before.streams));
        stats.history_events.add(change(self.events, before.events));
        stats.history_bytes.add(change(self.bytes, before.bytes));
    }
}

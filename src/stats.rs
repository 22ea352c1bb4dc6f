//! What is counted: one set of counters a thread, summed at each scrape.

use std::sync::Arc;

use crate::{
    census::Census,
    ending::Ending,
    instrument::{Counter, Gauge, Histogram},
    protocol::{error::ErrorCode, method::Method},
};

/// How members are counted by the size of their room: the upper bounds of the buckets.
pub const ROOM_SIZES: [usize; 9] = [1, 2, 5, 10, 25, 50, 100, 500, 1_000];

/// The results of a request, in the order of their counters.
pub const RESULTS: [Option<ErrorCode>; 9] = [
    None,
    Some(ErrorCode::BadRequest),
    Some(ErrorCode::Unauthorized),
    Some(ErrorCode::Forbidden),
    Some(ErrorCode::NotFound),
    Some(ErrorCode::Conflict),
    Some(ErrorCode::Gone),
    Some(ErrorCode::TooManyRequests),
    Some(ErrorCode::Unavailable),
];

/// The events of a room, in the order of their counters.
pub const EVENTS: [&str; 3] = ["endpoint", "stream", "broadcast"];

/// Why a connection or an upgrade is refused, in the order of their counters.
pub const REFUSALS: [&str; 6] = [
    "handshake",
    "draining",
    "full",
    "full_for_address",
    "connect_rate",
    "origin",
];

/// The counters of one thread.
#[derive(Debug, Default)]
pub struct Stats {
    /// Members of rooms, those that are waited for included.
    pub sessions: Gauge,
    /// Members that are waited for.
    pub detached: Gauge,
    /// Streams that are published.
    pub streams: Gauge,
    /// Rooms by size, see [`ROOM_SIZES`].
    pub rooms: [Gauge; ROOM_SIZES.len() + 1],
    /// Joins that were granted, but for those that went on with a session.
    pub joins: Counter,
    /// Members whose connection was lost.
    pub losses: Counter,
    /// Members that have come back and gone on with their session.
    pub resumes: Counter,
    /// Joins that named a session and could not go on with it.
    pub resumes_missed: Counter,
    /// Members that were waited for and did not come back.
    pub expiries: Counter,
    /// Events that were sent to members who had missed them.
    pub replayed: Counter,
    /// Events that rooms keep for members who may come back,
    pub history_events: Gauge,
    /// and their bytes.
    pub history_bytes: Gauge,
    /// Frames from clients, pings and pongs included, close frames not.
    pub frames_in: Counter,
    /// Their payload in bytes.
    pub bytes_in: Counter,
    /// Bytes that sockets took.
    pub bytes_out: Counter,
    /// Answers, by method (the last row: no method that is known) and result.
    pub requests: [[Counter; RESULTS.len()]; Method::ALL.len() + 1],
    /// Events of rooms, by kind.
    pub events: [Counter; EVENTS.len()],
    /// Events sent to members.
    pub deliveries: Counter,
    /// Connections that ended, by [`Ending::ALL`].
    pub endings: [Counter; Ending::ALL.len()],
    /// Connections and upgrades that were refused, by [`REFUSALS`].
    pub refusals: [Counter; REFUSALS.len()],
    /// From an event to the write that carried it, of the oldest in each write.
    pub delivery_delay: Histogram,
    /// From a ping to its pong.
    pub ping_round_trip: Histogram,
    /// How late the thread's ticker came: how long a turn of the event loop kept it waiting.
    pub worker_turn: Histogram,
    /// What is alive on the thread.
    pub census: Arc<Census>,
}

impl Stats {
    /// New counters for this thread.
    pub fn of_this_thread() -> Self {
        Self {
            census: Census::of_this_thread(),
            ..Self::default()
        }
    }

    /// A request was answered.
    pub fn answered(&self, method: Option<Method>, err: Option<ErrorCode>) {
        let row = method.map_or(Method::ALL.len(), Method::index);
        let column = RESULTS.iter().position(|result| *result == err);
        if let Some(column) = column {
            self.requests[row][column].add(1);
        }
    }

    /// A room has grown or shrunk; 0 is no room.
    pub fn room_resized(&self, before: usize, after: usize) {
        let bucket = |members: usize| ROOM_SIZES.partition_point(|bound| *bound < members);
        if before > 0 {
            self.rooms[bucket(before)].add(-1);
        }
        if after > 0 {
            self.rooms[bucket(after)].add(1);
        }
        self.sessions.add(after as i64 - before as i64);
    }

    /// A connection has ended.
    pub fn ended(&self, ending: Ending) {
        self.endings[ending as usize].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_move_between_the_buckets_of_their_sizes() {
        let stats = Stats::default();
        for (before, after) in [(0, 1), (1, 2), (2, 3), (3, 2)] {
            stats.room_resized(before, after);
        }
        let rooms: Vec<i64> = stats.rooms.iter().map(Gauge::get).collect();
        assert_eq!(rooms, [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(stats.sessions.get(), 2);
        stats.room_resized(2, 0);
        assert!(stats.rooms.iter().all(|gauge| gauge.get() == 0));
    }

    #[test]
    fn every_ending_has_its_own_counter() {
        for (at, ending) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(ending as usize, at);
        }
    }
}

//! The time of a thread.

/// Milliseconds since the thread began, as coarse as its ticker.
pub type Millis = u64;

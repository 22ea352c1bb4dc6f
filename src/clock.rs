//! The time of a thread.

/// Milliseconds since the thread began in which it was awake, as coarse as its ticker.
pub type Millis = u64;

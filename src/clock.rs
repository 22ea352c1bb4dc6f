//! The time of a thread.

use std::time::Duration;

/// Milliseconds since the thread began in which it was awake, as coarse as its ticker.
pub type Millis = u64;

/// A setting in milliseconds.
pub fn millis(duration: Duration) -> Millis {
    // Half, so that adding it to a time does not overflow.
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX / 2)
}

//! How long to wait before coming back: longer each time, and never as long as all the others.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The bound of the first wait that is one; it doubles each time,
const FIRST: Duration = Duration::from_millis(500);

/// up to this.
const LONGEST: Duration = Duration::from_secs(30);

/// A connection that has held for so long was a success.
const STEADY: Duration = Duration::from_secs(30);

/// Over what time clients come back to a server that has not said when.
const SPREAD: Duration = Duration::from_secs(5);

/// See the module's text.
#[derive(Default)]
pub(super) struct Backoff {
    /// The bound of the next wait: none at first.
    bound: Duration,
    joined: Option<Instant>,
}

impl Backoff {
    /// It has joined. That alone is no success: a connection may be taken and die at once.
    pub(super) fn joined(&mut self) {
        self.joined = Some(Instant::now());
    }

    /// Waits, for `least` at any rate.
    pub(super) fn wait(&mut self, least: Option<Duration>) {
        if self.joined.take().is_some_and(|at| at.elapsed() > STEADY) {
            self.bound = Duration::ZERO;
        }
        thread::sleep(least.unwrap_or_default() + random(self.bound));
        self.bound = (self.bound * 2).clamp(FIRST, LONGEST);
    }
}

/// A time at which to come back to a server that has gone down.
pub(super) fn spread() -> Duration {
    random(SPREAD)
}

/// A time up to `bound`, by chance.
fn random(bound: Duration) -> Duration {
    // Without randomness, which no system of today lacks, the middle has to do.
    let fraction = getrandom::u32().unwrap_or(u32::MAX / 2);
    bound.mul_f64(f64::from(fraction) / f64::from(u32::MAX))
}

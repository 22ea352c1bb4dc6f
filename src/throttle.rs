//! A warning that repeats: it is logged once in a while, and how often it was not is counted.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a warning is silent after it was logged.
const SILENCE: Duration = Duration::from_secs(10);

/// One warning.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    /// A warning that has not been logged yet.
    pub const fn new() -> Self {
        Self(Mutex::new(State {
            last: None,
            suppressed: 0,
        }))
    }

    /// Whether to log it this time; if so, how often it was not since the last time.
    pub fn permit(&self) -> Option<u64> {
        self.permit_at(Instant::now())
    }

    fn permit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = state
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= SILENCE);
        if !due {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_and_later_ones_are_counted() {
        let warning = Throttle::new();
        let begun = Instant::now();
        assert_eq!(warning.permit_at(begun), Some(0));
        assert_eq!(warning.permit_at(begun), None);
        assert_eq!(warning.permit_at(begun + SILENCE / 2), None);
        assert_eq!(warning.permit_at(begun + SILENCE), Some(2));
        assert_eq!(warning.permit_at(begun + SILENCE * 3), Some(0));
    }
}

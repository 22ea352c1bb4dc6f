//! A warning that repeats: it is logged once in a while, and how often it was not is counted.

use std::{
    collections::HashMap,
    hash::Hash,
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

impl State {
    fn is_silent(&self, now: Instant) -> bool {
        self.last
            .is_some_and(|last| now.saturating_duration_since(last) < SILENCE)
    }

    fn permit(&mut self, now: Instant) -> Option<u64> {
        if self.is_silent(now) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
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
        state.permit(now)
    }
}

/// The most keys that a [`KeyedThrottle`] tells apart at a time.
const MAX_KEYS: usize = 256;

/// A line that is throttled for each key by itself, such as a client's address. Keys come from
/// clients, so only 256 are remembered; all further ones share one throttle.
#[derive(Debug)]
pub struct KeyedThrottle<K>(Mutex<Keyed<K>>);

#[derive(Debug)]
struct Keyed<K> {
    states: HashMap<K, State>,
    /// For the keys that find no room in `states`.
    others: State,
    /// When `states` was last searched for keys to forget.
    swept: Option<Instant>,
}

impl<K: Eq + Hash> Default for KeyedThrottle<K> {
    fn default() -> Self {
        Self(Mutex::new(Keyed {
            states: HashMap::new(),
            others: State::default(),
            swept: None,
        }))
    }
}

impl<K: Eq + Hash> KeyedThrottle<K> {
    /// Whether to log the line of `key` this time; if so, how often it was not since the last time.
    pub fn permit(&self, key: K) -> Option<u64> {
        self.permit_at(key, Instant::now())
    }

    fn permit_at(&self, key: K, now: Instant) -> Option<u64> {
        let mut keyed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = keyed.states.get_mut(&key) {
            return state.permit(now);
        }
        if keyed.states.len() >= MAX_KEYS {
            keyed.sweep(now);
        }
        if keyed.states.len() >= MAX_KEYS {
            return keyed.others.permit(now);
        }
        keyed.states.entry(key).or_default().permit(now)
    }
}

impl<K: Eq + Hash> Keyed<K> {
    /// Forgets the keys that would be logged again anyway. Once a second at most, since it looks at
    /// all of them.
    fn sweep(&mut self, now: Instant) {
        let recent = |swept| now.saturating_duration_since(swept) < Duration::from_secs(1);
        if self.swept.is_some_and(recent) {
            return;
        }
        self.swept = Some(now);
        self.states.retain(|_, state| state.is_silent(now));
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

    #[test]
    fn each_key_is_throttled_by_itself() {
        let lines = KeyedThrottle::default();
        let begun = Instant::now();
        for key in ["a", "b"] {
            assert_eq!(lines.permit_at(key, begun), Some(0));
            assert_eq!(lines.permit_at(key, begun), None);
        }
        assert_eq!(lines.permit_at("a", begun + SILENCE), Some(1));
        assert_eq!(lines.permit_at("b", begun + SILENCE * 2), Some(1));
    }

    #[test]
    fn keys_are_bounded_and_further_ones_share_a_throttle() {
        let lines = KeyedThrottle::default();
        let begun = Instant::now();
        let logged = |now| {
            let permitted = (0..10_000).filter_map(|key| lines.permit_at(key, now));
            permitted.collect::<Vec<u64>>()
        };
        // Each remembered key once, and one line for all the others.
        assert_eq!(logged(begun), [0; MAX_KEYS + 1]);
        assert_eq!(logged(begun), [] as [u64; 0]);
        let later = logged(begun + SILENCE);
        assert_eq!(later.len(), MAX_KEYS + 1);
        assert_eq!(later[..MAX_KEYS], [1; MAX_KEYS]);
        assert_eq!(lines.0.lock().unwrap().states.len(), MAX_KEYS);
        // A new key finds room once others have been quiet.
        let quiet = begun + SILENCE * 3;
        assert_eq!(lines.permit_at(20_000, quiet), Some(0));
        assert_eq!(lines.0.lock().unwrap().states.len(), 1);
    }
}

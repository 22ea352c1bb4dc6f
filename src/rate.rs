//! How much one client may say: messages and bytes a second, by token buckets.

use std::{
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::settings;

/// How long a client must be without a refusal to be forgiven the earlier ones.
const QUIET: Duration = Duration::from_secs(1);

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is let in.
    Admitted,
    /// It is refused.
    Refused,
    /// It is refused, and that was once too often: the client is closed.
    Last,
}

/// The limit of one connection, and of the member that it joins as. The member keeps it while it is
/// detached and hands it to the connection that resumes it, so a new connection brings no new
/// allowance.
#[derive(Debug)]
pub struct RateLimit {
    messages: DefaultDirectRateLimiter,
    bytes: Option<DefaultDirectRateLimiter>,
    /// Refusals in a row that are put up with.
    patience: u32,
    /// Locked at a refusal alone.
    refusals: Mutex<Refusals>,
}

#[derive(Debug, Default)]
struct Refusals {
    /// Without a quiet second between them.
    in_a_row: u32,
    last: Option<Instant>,
}

impl RateLimit {
    /// The limit of the settings; `None` where it is off.
    pub fn new(settings: &settings::Session) -> Option<Self> {
        let rate = NonZeroU32::new(settings.rate_limit)?;
        let burst = NonZeroU32::new(settings.rate_burst).unwrap_or(NonZeroU32::MIN);
        // The longest message that is allowed must fit through at once.
        let longest = u32::try_from(settings.max_message_bytes).unwrap_or(u32::MAX);
        let bytes = NonZeroU32::new(settings.rate_bytes).map(|rate| {
            let burst = NonZeroU32::new(longest).map_or(rate, |longest| longest.max(rate));
            RateLimiter::direct(Quota::per_second(rate).allow_burst(burst))
        });
        Some(Self {
            messages: RateLimiter::direct(Quota::per_second(rate).allow_burst(burst)),
            bytes,
            patience: burst.get(),
            refusals: Mutex::default(),
        })
    }

    /// Counts a frame of `bytes` payload.
    pub fn count(&self, bytes: usize) -> Verdict {
        if self.admits(bytes) {
            return Verdict::Admitted;
        }
        let now = Instant::now();
        // Both fields are written together, so they are whole after a panic too.
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = |last| now.duration_since(last) >= QUIET;
        let in_a_row = match refusals.last {
            Some(last) if !quiet(last) => refusals.in_a_row.saturating_add(1),
            _ => 1,
        };
        *refusals = Refusals {
            in_a_row,
            last: Some(now),
        };
        if in_a_row >= self.patience {
            Verdict::Last
        } else {
            Verdict::Refused
        }
    }

    fn admits(&self, bytes: usize) -> bool {
        if self.messages.check().is_err() {
            return false;
        }
        let size = NonZeroU32::new(u32::try_from(bytes).unwrap_or(u32::MAX));
        match (&self.bytes, size) {
            (Some(bucket), Some(size)) => bucket.check_n(size).is_ok_and(|fits| fits.is_ok()),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn limit(change: impl FnOnce(&mut settings::Session)) -> RateLimit {
        let mut session = Settings::defaults().session;
        session.rate_limit = 1;
        session.rate_burst = 3;
        session.rate_bytes = 0;
        change(&mut session);
        RateLimit::new(&session).unwrap()
    }

    impl RateLimit {
        /// As if a quiet second had passed.
        fn age_refusals(&self) {
            let mut refusals = self.refusals.lock().unwrap();
            refusals.last = refusals.last.and_then(|last| last.checked_sub(QUIET));
        }
    }

    #[test]
    fn a_burst_is_let_in_then_refused_then_too_much() {
        let limit = limit(|_| {});
        let verdicts: Vec<_> = (0..6).map(|_| limit.count(10)).collect();
        use Verdict::*;
        assert_eq!(
            verdicts,
            [Admitted, Admitted, Admitted, Refused, Refused, Last]
        );
    }

    #[test]
    fn a_quiet_second_forgives() {
        let mut limit = limit(|_| {});
        for _ in 0..5 {
            limit.count(10);
        }
        limit.age_refusals();
        for _ in 0..3 {
            limit.messages = RateLimiter::direct(Quota::per_hour(NonZeroU32::MIN));
            assert_eq!(limit.count(10), Verdict::Admitted);
            assert_eq!(limit.count(10), Verdict::Refused);
            limit.age_refusals();
        }
    }

    #[test]
    fn bytes_count_and_the_longest_message_fits() {
        let limit = limit(|session| {
            session.rate_burst = 100;
            session.rate_bytes = 10;
            session.max_message_bytes = 1000;
        });
        assert_eq!(limit.count(1000), Verdict::Admitted);
        assert_eq!(limit.count(1000), Verdict::Refused);
        assert_eq!(limit.count(0), Verdict::Admitted, "no bytes at all");
    }

    #[test]
    fn off_is_off() {
        let mut session = Settings::defaults().session;
        session.rate_limit = 0;
        assert!(RateLimit::new(&session).is_none());
    }
}

//! The time of a thread.

use std::time::Duration;

/// Milliseconds since the thread began in which it was awake, as coarse as its ticker.
pub type Millis = u64;

/// A setting or a time in milliseconds. What is shorter than one is one, since a setting of 0 often
/// means never.
pub fn millis(duration: Duration) -> Millis {
    // Half, so that adding it to a time does not overflow.
    let millis = Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX / 2);
    millis.max(Millis::from(!duration.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_never_nothing_and_nothing_overflows() {
        for (duration, expected) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_micros(1_999), 1),
            (Duration::from_millis(7), 7),
        ] {
            assert_eq!(millis(duration), expected, "{duration:?}");
        }
        assert!(millis(Duration::MAX).checked_add(Millis::MAX / 2).is_some());
    }
}

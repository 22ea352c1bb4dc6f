//! How long things took: quantiles, and the worst.

use std::{cell::RefCell, time::Duration};

use hdrhistogram::Histogram;

/// See the module's text. Kept in microseconds, to three digits.
#[derive(Clone, Debug)]
pub struct Times(RefCell<Histogram<u64>>);

impl Default for Times {
    fn default() -> Self {
        // Up to an hour; longer ones count as an hour.
        let histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3);
        Self(RefCell::new(histogram.expect("these bounds are in order")))
    }
}

impl Times {
    /// One more.
    pub fn add(&self, time: Duration) {
        let micros = time.as_micros() as u64;
        self.0.borrow_mut().saturating_record(micros);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.borrow().len()
    }

    /// So much of them took no longer.
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.borrow().value_at_quantile(quantile))
    }

    /// The longest.
    pub fn worst(&self) -> Duration {
        Duration::from_micros(self.0.borrow().max())
    }

    /// In one line.
    pub fn text(&self) -> String {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        format!(
            "p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms of {}",
            millis(self.quantile(0.5)),
            millis(self.quantile(0.99)),
            millis(self.worst()),
            self.count()
        )
    }
}

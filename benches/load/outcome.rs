//! What a measurement has come to.

use std::fmt;

use super::wire::times::Times;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) deliveries_a_second: f64,
    /// The server's processor time for each, in microseconds.
    pub(crate) cpu_micros: f64,
    /// The part of one core that the server had, and that this process had.
    pub(crate) server_cpu: f64,
    pub(crate) load_cpu: f64,
    /// From when a broadcast was due to its receipt.
    pub(crate) latency: Times,
    /// Deliveries that were owed and did not come.
    pub(crate) lost: i64,
    /// Answers other than 0, and connections that ended.
    pub(crate) errors: u64,
}

impl Outcome {
    /// In milliseconds.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        self.latency.quantile(quantile).as_secs_f64() * 1e3
    }

    /// Whether all that was owed was delivered.
    pub(crate) fn is_whole(&self) -> bool {
        self.lost == 0 && self.errors == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<28} {:>8.0} deliveries/s  {:>5.2} us CPU each  latency p50 {:>8.3} ms, p99 {:>8.3}, \
             p99.9 {:>8.3}  (server {:>3.0} % of a core, load {:>3.0} %)",
            self.name,
            self.deliveries_a_second,
            self.cpu_micros,
            self.quantile(0.5),
            self.quantile(0.99),
            self.quantile(0.999),
            self.server_cpu * 100.0,
            self.load_cpu * 100.0,
        )?;
        if !self.is_whole() {
            write!(f, "  LOST {}, ERRORS {}", self.lost, self.errors)?;
        }
        Ok(())
    }
}

//! Counters, gauges and histograms of one thread: written by that thread alone, read by any. So
//! counting costs the hot path a plain addition.

use std::{
    array,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

/// A number that only grows. One thread writes it, any may read it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it; on its own thread alone, since it is no atomic addition.
    pub fn add(&self, n: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(n);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down. One thread writes it, any may read it.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds to it; on its own thread alone.
    pub fn add(&self, n: i64) {
        let sum = self.0.load(Ordering::Relaxed) + n;
        self.0.store(sum, Ordering::Relaxed);
    }

    /// What it stands at.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations by size.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each of [`Histogram::BOUNDS_US`], and one for what is longer.
    buckets: [Counter; Histogram::BOUNDS_US.len() + 1],
    sum_us: Counter,
    worst_us: AtomicU64,
}

impl Histogram {
    /// The upper bounds of the buckets in microseconds.
    pub const BOUNDS_US: [u64; 14] = [
        50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
        1_000_000, 5_000_000,
    ];

    /// Takes a duration in.
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = Self::BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
        if us > self.worst_us.load(Ordering::Relaxed) {
            self.worst_us.store(us, Ordering::Relaxed);
        }
    }

    /// The worst since the last time it was asked.
    pub fn take_worst(&self) -> Duration {
        Duration::from_micros(self.worst_us.swap(0, Ordering::Relaxed))
    }
}

/// A histogram's figures, of all threads together.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramSum {
    /// In seconds.
    pub sum: f64,
    /// How many there were.
    pub count: u64,
    /// Upper bound in seconds, and how many were in this bucket.
    pub buckets: Vec<(f64, u64)>,
}

/// Adds up one histogram of many threads.
pub fn sum_of<'a>(parts: impl Iterator<Item = &'a Histogram>) -> HistogramSum {
    let mut counts: [u64; Histogram::BOUNDS_US.len() + 1] = array::from_fn(|_| 0);
    let mut sum_us = 0;
    for part in parts {
        for (count, bucket) in counts.iter_mut().zip(&part.buckets) {
            *count += bucket.get();
        }
        sum_us += part.sum_us.get();
    }
    let bounds = Histogram::BOUNDS_US.iter().map(|us| *us as f64 / 1e6);
    HistogramSum {
        sum: sum_us as f64 / 1e6,
        count: counts.iter().sum(),
        buckets: bounds.chain([f64::INFINITY]).zip(counts).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_they_do_not_pass() {
        let one = Histogram::default();
        let other = Histogram::default();
        one.observe(Duration::from_micros(50));
        one.observe(Duration::from_micros(51));
        other.observe(Duration::from_secs(60));
        let sum = sum_of([&one, &other].into_iter());
        assert_eq!(sum.count, 3);
        assert_eq!(sum.buckets[0], (50e-6, 1));
        assert_eq!(sum.buckets[1], (100e-6, 1));
        assert_eq!(sum.buckets.last(), Some(&(f64::INFINITY, 1)));
        assert_eq!(other.take_worst(), Duration::from_secs(60));
        assert_eq!(other.take_worst(), Duration::ZERO);
    }
}

//! The line of figures that the log has once in a while, for an operator who sees only the log.

use std::{sync::Arc, time::Duration};

use crate::{
    crew::Crew,
    ending::Ending,
    instrument::{Counter, Histogram},
    stats::Stats,
};

/// Logs a line each `interval`, for ever; 0: never.
pub async fn report_for_ever(crew: Arc<Crew>, interval: Duration) {
    if interval.is_zero() {
        return std::future::pending().await;
    }
    let mut before = Totals::default();
    let mut ticks = tokio::time::interval(interval);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let now = Totals::of(&crew.stats());
        report(&crew, &before, &now);
        before = now;
    }
}

fn report(crew: &Crew, before: &Totals, now: &Totals) {
    let stats = crew.stats();
    let worst = |of: fn(&Stats) -> &Histogram| {
        let worst = stats.iter().map(|stats| of(stats).take_worst()).max();
        worst.unwrap_or_default().as_secs_f64() * 1e3
    };
    log::info!(
        sessions = stats.iter().map(|stats| stats.sessions.get()).sum::<i64>(),
        connections = crew.admission().connections(),
        rooms = crew.admission().rooms(),
        streams = stats.iter().map(|stats| stats.streams.get()).sum::<i64>(),
        joins = now.joins - before.joins,
        messages_in = now.frames_in - before.frames_in,
        events_out = now.deliveries - before.deliveries,
        bytes_out = now.bytes_out - before.bytes_out,
        refusals = now.refusals - before.refusals,
        slow_consumers = now.slow_consumers - before.slow_consumers,
        worst_delivery_ms = worst(|stats| &stats.delivery_delay),
        worst_turn_ms = worst(|stats| &stats.worker_turn);
        "figures"
    );
}

/// Counters of all threads at one moment.
#[derive(Default)]
struct Totals {
    joins: u64,
    frames_in: u64,
    deliveries: u64,
    bytes_out: u64,
    refusals: u64,
    slow_consumers: u64,
}

impl Totals {
    fn of(stats: &[Arc<Stats>]) -> Self {
        let sum = |of: fn(&Stats) -> &Counter| stats.iter().map(|s| of(s).get()).sum();
        let refusals = |stats: &Arc<Stats>| stats.refusals.iter().map(Counter::get).sum::<u64>();
        Self {
            joins: sum(|stats| &stats.joins),
            frames_in: sum(|stats| &stats.frames_in),
            deliveries: sum(|stats| &stats.deliveries),
            bytes_out: sum(|stats| &stats.bytes_out),
            refusals: stats.iter().map(refusals).sum(),
            slow_consumers: sum(|stats| &stats.endings[Ending::SlowConsumer as usize]),
        }
    }
}

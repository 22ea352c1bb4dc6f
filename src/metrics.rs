//! The figures at /metrics, as Prometheus and OpenMetrics read them. docs/metrics.md lists them.
//!
//! The page is OpenMetrics where the scraper asks for it, and the Prometheus text format 0.0.4 for
//! all others (`text_format`).
//!
//! Never a label by room, channel or endpoint: there are as many of those as clients like.

mod process;
mod text_format;

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, NoLabelSet, text,
    },
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::{
    census::Object,
    crew::Crew,
    ending::Ending,
    instrument::{Counter, Gauge, Histogram, sum_of},
    logging,
    media::MediaServers,
    protocol::method::Method,
    stats::{EVENTS, REFUSALS, RESULTS, ROOM_SIZES, Stats},
    tls::Identity,
};

pub use process::ProcessFigures;

/// How the page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The value of the header Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All figures as text, with those of the process where they are known.
///
/// # Errors
/// None that is known: the text is written to memory.
pub fn encode(
    crew: &Arc<Crew>,
    process: Option<ProcessFigures>,
    format: Format,
) -> Result<String, fmt::Error> {
    let mut ours = Registry::with_prefix("meeting_server");
    ours.register_collector(Box::new(Figures(crew.clone())));
    let mut out = String::new();
    text::encode_registry(&mut out, &ours)?;
    if let Some(figures) = process {
        let mut system = Registry::default();
        system.register_collector(Box::new(figures));
        text::encode_registry(&mut out, &system)?;
    }
    text::encode_eof(&mut out)?;
    Ok(match format {
        Format::Text => text_format::from_openmetrics(&out),
        Format::OpenMetrics => out,
    })
}

impl Collector for ProcessFigures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        counter(
            encoder,
            "process_cpu_seconds",
            "CPU time of the process in seconds, user and system together",
            self.cpu_seconds,
        )?;
        gauge(
            encoder,
            "process_resident_memory_bytes",
            "Resident memory of the process in bytes",
            i64::try_from(self.resident_bytes).unwrap_or(i64::MAX),
        )?;
        gauge(
            encoder,
            "process_open_fds",
            "Open file descriptors",
            i64::try_from(self.open_fds).unwrap_or(i64::MAX),
        )?;
        if let Some(max_fds) = self.max_fds {
            gauge(
                encoder,
                "process_max_fds",
                "The limit of open file descriptors",
                i64::try_from(max_fds).unwrap_or(i64::MAX),
            )?;
        }
        gauge(
            encoder,
            "process_start_time_seconds",
            "When the process began, in seconds since 1970",
            self.start_seconds,
        )
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue,
) -> fmt::Result {
    encoder
        .encode_descriptor(name, help, None, MetricType::Gauge)?
        .encode_gauge(&value)
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeCounterValue,
) -> fmt::Result {
    encoder
        .encode_descriptor(name, help, None, MetricType::Counter)?
        .encode_counter::<NoLabelSet, _, u64>(&value, None)
}

#[derive(Debug)]
struct Figures(Arc<Crew>);

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.stats();
        let mut page = Page {
            encoder,
            stats: &stats,
        };
        let sum = |of: fn(&Stats) -> &Gauge| stats.iter().map(|s| of(s).get()).sum::<i64>();
        let admission = self.0.admission();

        page.info(
            "build",
            "What is running",
            &[
                ("version", env!("CARGO_PKG_VERSION")),
                ("commit", crate::COMMIT),
            ],
        )?;
        page.gauge(
            "connections",
            "Connections, silent ones and plain HTTP included",
            admission.connections() as i64,
        )?;
        page.gauge(
            "sessions",
            "Members of rooms, those that are waited for included",
            sum(|s| &s.sessions),
        )?;
        page.gauge(
            "sessions_detached",
            "Members without a connection, that are waited for",
            sum(|s| &s.detached),
        )?;
        page.gauge("rooms", "Rooms", admission.rooms() as i64)?;
        page.gauge("streams", "Streams that are published", sum(|s| &s.streams))?;
        page.rooms_by_size()?;
        page.counter(
            "joins",
            "Joins that were granted, but for those that went on with a session",
            |s| &s.joins,
        )?;
        page.counter("losses", "Members whose connection was lost", |s| &s.losses)?;
        page.counter(
            "resumes",
            "Members that came back and went on with their session",
            |s| &s.resumes,
        )?;
        page.counter(
            "resumes_missed",
            "Joins that named a session and could not go on with it",
            |s| &s.resumes_missed,
        )?;
        page.counter(
            "expiries",
            "Members that were waited for and did not come back",
            |s| &s.expiries,
        )?;
        page.counter(
            "replayed_events",
            "Events that were sent to members who had missed them",
            |s| &s.replayed,
        )?;
        page.gauge(
            "history_events",
            "Events that rooms keep for members who may come back",
            sum(|s| &s.history_events),
        )?;
        page.gauge(
            "history_bytes",
            "Their memory in bytes",
            sum(|s| &s.history_bytes),
        )?;
        page.objects()?;
        page.media_servers(self.0.media())?;
        if let Some(end) = self.0.identity().and_then(Identity::not_after) {
            page.gauge(
                "certificate_not_after_timestamp_seconds",
                "When the certificate of the listener expires, in seconds since 1970",
                i64::try_from(end).unwrap_or(i64::MAX),
            )?;
        }
        counter(
            &mut page.encoder,
            "log_lines_dropped",
            "Lines of the log that were dropped, since standard error did not take them",
            logging::dropped_lines(),
        )?;
        page.counter("frames_received", "Frames from clients", |s| &s.frames_in)?;
        page.counter("received_bytes", "Their payload in bytes", |s| &s.bytes_in)?;
        page.counter("sent_bytes", "Bytes that sockets took", |s| &s.bytes_out)?;
        page.requests()?;
        page.labelled(
            "events",
            "Events of rooms",
            "event",
            EVENTS.into_iter().enumerate(),
            |s, at| &s.events[at],
        )?;
        page.counter("deliveries", "Events sent to members", |s| &s.deliveries)?;
        page.disconnects()?;
        page.labelled(
            "refusals",
            "Connections and upgrades that were refused",
            "reason",
            REFUSALS.into_iter().enumerate(),
            |s, at| &s.refusals[at],
        )?;
        page.histogram(
            "delivery_delay_seconds",
            "From an event to the write that carried it, of the oldest in each write",
            |s| &s.delivery_delay,
        )?;
        page.histogram("ping_round_trip_seconds", "From a ping to its pong", |s| {
            &s.ping_round_trip
        })?;
        page.histogram(
            "worker_turn_seconds",
            "How long a turn of a worker's event loop kept its ticker waiting",
            |s| &s.worker_turn,
        )
    }
}

struct Page<'e, 's> {
    encoder: DescriptorEncoder<'e>,
    stats: &'s [Arc<Stats>],
}

impl Page<'_, '_> {
    fn sum(&self, of: impl Fn(&Stats) -> &Counter) -> u64 {
        self.stats.iter().map(|stats| of(stats).get()).sum()
    }

    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> fmt::Result {
        self.encoder
            .encode_descriptor(name, help, None, MetricType::Info)?
            .encode_info(&labels)
    }

    fn gauge(&mut self, name: &str, help: &str, value: i64) -> fmt::Result {
        gauge(&mut self.encoder, name, help, value)
    }

    fn counter(&mut self, name: &str, help: &str, of: impl Fn(&Stats) -> &Counter) -> fmt::Result {
        let sum = self.sum(of);
        counter(&mut self.encoder, name, help, sum)
    }

    fn labelled(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (usize, &'static str)>,
        of: impl Fn(&Stats, usize) -> &Counter,
    ) -> fmt::Result {
        let stats = self.stats;
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (at, value) in values {
            let sum: u64 = stats.iter().map(|stats| of(stats, at).get()).sum();
            let labels = [(label, value)];
            ConstCounter::new(sum).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn rooms_by_size(&mut self) -> fmt::Result {
        let stats = self.stats;
        let mut family = self.encoder.encode_descriptor(
            "rooms_by_size",
            "Rooms of at most so many members, and of more than the bound before",
            None,
            MetricType::Gauge,
        )?;
        let bounds = ROOM_SIZES.iter().map(usize::to_string);
        for (at, bound) in bounds.chain(["more".to_owned()]).enumerate() {
            let sum: i64 = stats.iter().map(|stats| stats.rooms[at].get()).sum();
            let labels = [("members", bound)];
            ConstGauge::new(sum).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn media_servers(&mut self, servers: &MediaServers) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(
            "media_server_up",
            "Whether a media server counts as healthy",
            None,
            MetricType::Gauge,
        )?;
        for server in servers.all() {
            let labels = [("name", server.name())];
            ConstGauge::new(i64::from(server.is_healthy()))
                .encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn objects(&mut self) -> fmt::Result {
        let stats = self.stats;
        let mut family = self.encoder.encode_descriptor(
            "objects",
            "What is alive of what comes and goes with clients",
            None,
            MetricType::Gauge,
        )?;
        for object in Object::ALL {
            let sum: i64 = stats.iter().map(|s| s.census.count(object)).sum();
            let labels = [("kind", object.as_str())];
            ConstGauge::new(sum).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Only the pairs that have occurred: most methods cannot have most results.
    fn requests(&mut self) -> fmt::Result {
        let stats = self.stats;
        let mut family = self.encoder.encode_descriptor(
            "requests",
            "Answers to requests, by method and result",
            None,
            MetricType::Counter,
        )?;
        let methods = Method::ALL.iter().map(|method| method.as_str());
        for (row, method) in methods.chain(["unknown"]).enumerate() {
            for (column, result) in RESULTS.iter().enumerate() {
                let sum: u64 = stats.iter().map(|s| s.requests[row][column].get()).sum();
                if sum == 0 {
                    continue;
                }
                let result = result.map_or("ok".to_owned(), |err| (err as u16).to_string());
                let labels = [("method", method), ("result", &result)];
                ConstCounter::new(sum).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn disconnects(&mut self) -> fmt::Result {
        let stats = self.stats;
        let mut family = self.encoder.encode_descriptor(
            "disconnects",
            "Connections that ended, by the server's close code (none: it sent none of its own)",
            None,
            MetricType::Counter,
        )?;
        for (at, ending) in Ending::ALL.into_iter().enumerate() {
            let sum: u64 = stats.iter().map(|stats| stats.endings[at].get()).sum();
            let code = ending
                .close_code()
                .map_or("none".to_owned(), |code| (code as u16).to_string());
            let labels = [("code", code.as_str()), ("reason", ending.as_str())];
            ConstCounter::new(sum).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        of: impl Fn(&Stats) -> &Histogram,
    ) -> fmt::Result {
        let sum = sum_of(self.stats.iter().map(|stats| of(stats)));
        self.encoder
            .encode_descriptor(name, help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum.sum, sum.count, &sum.buckets, None)
    }
}

//! What is left in the end, and whether all was as it should be.

use std::{
    fmt, io,
    process::ExitStatus,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    figures::Figures,
    flood::Quiet,
    say,
    wire::{
        scrape,
        server::{Log, Server as Process},
        usage::load_average,
    },
};

/// How long what is left may take to go: the longest of the server's waits, and the machine's.
const PATIENCE: Duration = Duration::from_secs(40);

/// How much more memory than after the first round there may be after the last: a part, and some
/// bytes. What an allocator keeps varies; what leaks grows with every round.
const MORE_MEMORY: f64 = 1.25;
const MORE_BYTES: f64 = 8.0 * 1024.0 * 1024.0;

/// Where somebody was late by so many seconds, doubtful ends are no wonder.
const LATE: f64 = 1.0;

/// What a server holds when nobody is there.
#[derive(Clone, Debug)]
pub(crate) struct Remains {
    memory: u64,
    files: usize,
    /// What lives still, by kind; only what is not 0.
    alive: Vec<(String, f64)>,
}

impl Remains {
    pub(crate) async fn of(server: &Process) -> io::Result<Self> {
        let figures = scrape::Figures::scrape(server.ops).await?;
        let mut alive: Vec<(String, f64)> = Vec::new();
        let objects = figures.of("objects");
        if objects.is_empty() {
            return Err(io::Error::other("no census in the server's figures"));
        }
        let kind = |label: &str| label.trim_start_matches("kind=").replace('"', "");
        alive.extend(objects.into_iter().map(|(label, n)| (kind(label), n)));
        for gauge in [
            "sessions",
            "sessions_detached",
            "rooms",
            "streams",
            "history_events",
        ] {
            let n = figures.get(gauge);
            let n = n.ok_or_else(|| io::Error::other(format!("no {gauge} in its figures")))?;
            alive.push((gauge.to_owned(), n));
        }
        // One of them is that over which we ask.
        let connections = figures.get("connections").unwrap_or(0.0) - 1.0;
        alive.push(("connections".to_owned(), connections.max(0.0)));
        alive.retain(|(_, n)| *n != 0.0);
        Ok(Self {
            memory: server.usage().memory()?,
            files: server.usage().open_files()?,
            alive,
        })
    }

    /// The same as soon as all are gone, as they must be after a while: then the server has no more
    /// than `before` open.
    pub(crate) async fn when_all_are_gone(server: &Process, before: &Self) -> io::Result<Self> {
        let begun = Instant::now();
        loop {
            let remains = Self::of(server).await?;
            let gone = remains.alive.is_empty() && remains.files <= before.files;
            if gone || begun.elapsed() > PATIENCE {
                return Ok(remains);
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            memory,
            files,
            alive,
        } = self;
        write!(f, "{:.1} MiB, {files} files", mib(*memory))?;
        if alive.is_empty() {
            write!(f, ", no object")?;
        }
        for (kind, n) in alive {
            write!(f, ", {kind} {n}")?;
        }
        Ok(())
    }
}

/// What the server says of the soak.
#[derive(Debug, Default)]
pub(crate) struct Server {
    peak: u64,
    counters: Vec<(&'static str, f64)>,
    disconnects: Vec<(String, f64)>,
    /// From an event to its write: the bucket in which the 99th percentile is.
    delay: f64,
    /// The longest turn of a worker: the end of its bucket.
    longest_turn: f64,
}

impl Server {
    pub(crate) async fn of(server: &Process) -> io::Result<Self> {
        let figures = scrape::Figures::scrape(server.ops).await?;
        let counters = [
            "joins_total",
            "losses_total",
            "resumes_total",
            "resumes_missed_total",
            "expiries_total",
            "replayed_events_total",
            "deliveries_total",
        ];
        let disconnects = figures.of("disconnects_total");
        let name = |labels: &str| {
            let reason = labels.split("reason=").nth(1).unwrap_or(labels);
            reason.trim_matches('"').to_owned()
        };
        Ok(Self {
            peak: server.usage().peak_memory()?,
            counters: counters
                .map(|name| (name, figures.get(name).unwrap_or(0.0)))
                .into(),
            disconnects: disconnects
                .into_iter()
                .filter(|(_, n)| *n > 0.0)
                .map(|(labels, n)| (name(labels), n))
                .collect(),
            delay: figures.quantile("delivery_delay_seconds", 0.99),
            longest_turn: figures.quantile("worker_turn_seconds", 1.0),
        })
    }
}

/// All that there is to say.
#[derive(Debug)]
pub(crate) struct Verdict {
    at_first: Remains,
    /// After each round.
    pub(crate) rounds: Vec<Remains>,
    /// What the quiet rooms beside the flood have measured in each.
    pub(crate) quiet: Vec<Quiet>,
    pub(crate) server: Server,
    pub(crate) log: Log,
    pub(crate) exit: Option<ExitStatus>,
}

impl Verdict {
    pub(crate) fn new(at_first: Remains) -> Self {
        Self {
            at_first,
            rounds: Vec::new(),
            quiet: Vec::new(),
            server: Server::default(),
            log: Log::default(),
            exit: None,
        }
    }

    /// Says it; whether all was as it should be.
    pub(crate) fn pronounce(&self, figures: &Figures, took: Duration) -> bool {
        self.say_figures(figures, took);
        self.say_server();
        let wrong = self.wrong(figures);
        if figures.doubts() > 0 && wrong.is_empty() {
            say(&format!(
                "what is in doubt is excused: this process or its members were late by {:.1} s, the \
                 server by {:.1} s at most",
                figures.lateness(),
                self.server.longest_turn
            ));
        }
        for what in &wrong {
            say(&format!("WRONG: {what}"));
        }
        say(if wrong.is_empty() {
            "ALL WELL"
        } else {
            "NOT WELL"
        });
        wrong.is_empty()
    }

    fn say_figures(&self, f: &Figures, took: Duration) {
        let row = |name: &str, text: String| say(&format!("{name:<22} {text}"));
        say("");
        row(
            "took",
            format!(
                "{:.0} s; load average {:.1}",
                took.as_secs_f64(),
                load_average()
            ),
        );
        row(
            "connections",
            format!(
                "{} ({} failed)",
                f.connections.get(),
                f.refused_connections.get()
            ),
        );
        row("joins", f.joins.get().to_string());
        row(
            "resumes",
            format!(
                "{} asked, {} resumed, {} too late, {} had missed more than is kept",
                f.resumes_asked.get(),
                f.resumed.get(),
                f.too_late.get(),
                f.overrun.get(),
            ),
        );
        row(
            "events delivered",
            format!(
                "{}, {} of them replayed",
                f.delivered.get(),
                f.replayed.get()
            ),
        );
        row("losses", f.losses.get().to_string());
        row("order violations", f.disorder.get().to_string());
        row("other wrong events", f.wrong_events.get().to_string());
        row("misbehaviour", f.misbehaved.get().to_string());
        row("slow consumers put out", f.closes.get(&4002).to_string());
        row(
            "rate limited",
            format!(
                "{} answers of 429, {} closed for it",
                f.answers.get(&429),
                f.errors.get(&"rate_limited".to_owned()),
            ),
        );
        row(
            "closed, by code",
            format!("{}; {} without a word", f.closes.text(), f.cut.get()),
        );
        let doubts = f.doubts().to_string();
        row("in doubt", doubts);
        row("answers, by err", f.answers.text());
        row("error events", f.errors.text());
        row("strays", f.strays.text());
        row("acts", f.acts.text());
        row("delivery delay", f.delay.text());
        row("pings late by", f.late_pings.text());
        row("pings early by", f.early_pings.text());
        row("this process late by", f.stalls.text());
        for (n, quiet) in (1..).zip(&self.quiet) {
            row(&format!("quiet rooms, round {n}"), quiet.times.text());
        }
    }

    fn say_server(&self) {
        let row = |name: &str, text: String| say(&format!("{name:<22} {text}"));
        let each = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>().join(", ");
        let server = &self.server;
        row(
            "server: counters",
            each(
                &mut server
                    .counters
                    .iter()
                    .map(|(name, n)| format!("{name} {n}")),
            ),
        );
        row(
            "server: disconnects",
            each(
                &mut server
                    .disconnects
                    .iter()
                    .map(|(name, n)| format!("{name} {n}")),
            ),
        );
        row(
            "server: event to write",
            format!("p99 at most {:.1} ms", server.delay * 1e3),
        );
        row(
            "server: longest turn",
            format!("at most {:.1} ms", server.longest_turn * 1e3),
        );
        row(
            "server: peak memory",
            format!("{:.1} MiB", mib(server.peak)),
        );
        row("server: at first", self.at_first.to_string());
        for (n, remains) in (1..).zip(&self.rounds) {
            row(&format!("server: after round {n}"), remains.to_string());
        }
        row(
            "server: log",
            format!("{} lines, {} errors", self.log.lines, self.log.errors),
        );
        for (warning, n) in &self.log.warnings {
            row("", format!("{n} × WARN {warning}"));
        }
    }

    /// What was not as it should be.
    fn wrong(&self, figures: &Figures) -> Vec<String> {
        let mut wrong = Vec::new();
        if figures.faults() > 0 {
            wrong.push(format!("{} faults, see above", figures.faults()));
        }
        let late = figures.lateness().max(self.server.longest_turn);
        let doubts = figures.doubts();
        if doubts > 0 && late < LATE {
            wrong.push(format!(
                "{doubts} times one was closed or given up for which nobody was late enough"
            ));
        }
        if figures.delivered.get() == 0 || figures.resumed.get() == 0 {
            wrong.push("nothing has happened".to_owned());
        }
        wrong.extend(self.quiet.iter().flat_map(Quiet::wrong));
        for line in &self.log.kept {
            wrong.push(format!("in the log: {line}"));
        }
        if !self.exit.is_some_and(|exit| exit.success()) {
            wrong.push(format!("the server ended with {:?}", self.exit));
        }
        for (n, remains) in (1..).zip(&self.rounds) {
            for (kind, count) in &remains.alive {
                wrong.push(format!("after round {n} there is still {kind} {count}"));
            }
            if remains.files > self.at_first.files {
                wrong.push(format!(
                    "after round {n} there are {} open files, at first {}",
                    remains.files, self.at_first.files
                ));
            }
        }
        if let [first, .., last] = &self.rounds[..]
            && last.memory as f64 > first.memory as f64 * MORE_MEMORY + MORE_BYTES
        {
            wrong.push(format!(
                "memory did not come back: {:.1} MiB after the first round, {:.1} after the last",
                mib(first.memory),
                mib(last.memory)
            ));
        }
        wrong
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

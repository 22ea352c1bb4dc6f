//! What can be chosen.

use std::thread::available_parallelism;

use clap::Parser;

/// Thousands of members of the real server, for minutes: nothing may be lost, and nothing left.
#[derive(Debug, Parser)]
pub(crate) struct Flags {
    /// How long members come and go; settling at the end of each round comes on top
    #[arg(long, default_value_t = 2.0)]
    pub(crate) minutes: f64,

    /// How many members there are at a time
    #[arg(long, default_value_t = 2000)]
    pub(crate) members: usize,

    /// Members of one more room, which floods its thread; 0 for none
    #[arg(long, default_value_t = 1000)]
    pub(crate) flood: usize,

    /// Quiet rooms of two beside the flood, whose latency is judged
    #[arg(long, default_value_t = 200)]
    pub(crate) quiet_rooms: usize,

    /// How many times everybody leaves; left out, once in one to two minutes
    #[arg(long)]
    rounds: Option<u32>,

    /// Seconds between what one member does and what it does next, on average
    #[arg(long, default_value_t = 4.0)]
    pub(crate) pace: f64,

    /// Threads of the server; left out, one a core and two at least
    #[arg(long)]
    workers: Option<usize>,

    /// What an earlier soak has printed: everybody means to do the same again. How threads and
    /// sockets take turns is chance all the same
    #[arg(long)]
    seed: Option<u64>,

    /// What cargo says to each of its benches
    #[arg(long, hide = true)]
    bench: bool,
}

impl Flags {
    pub(crate) fn rounds(&self) -> u32 {
        let few = (self.minutes / 2.0).ceil() as u32;
        self.rounds.unwrap_or(few.clamp(2, 10)).max(1)
    }

    /// Two at least, or nobody ever moves to another thread.
    pub(crate) fn workers(&self) -> usize {
        let cores = available_parallelism().map_or(2, usize::from);
        self.workers.unwrap_or(cores.max(2))
    }

    pub(crate) fn seed(&self) -> u64 {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        self.seed.unwrap_or(now.as_millis() as u64)
    }
}

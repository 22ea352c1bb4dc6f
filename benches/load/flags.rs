//! What can be chosen.

use clap::{Parser, ValueEnum};

/// How fast the real server is, over real sockets. Without a workload: all of them, and a chart
/// of latency against load
#[derive(Debug, Parser)]
pub(crate) struct Flags {
    /// Only this one
    #[arg(long)]
    pub(crate) workload: Option<Workload>,

    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 4)]
    pub(crate) secs: u64,

    /// Offered deliveries a second; left out, the server is kept as busy as it can be
    #[arg(long)]
    pub(crate) rate: Option<u64>,

    /// Unanswered broadcasts of each sender, where there is no rate
    #[arg(long, default_value_t = 4)]
    pub(crate) window: usize,

    /// Bytes of a broadcast's data
    #[arg(long, default_value_t = 150)]
    pub(crate) size: usize,

    /// Rooms, members of each, and how many of those speak: for the workload custom
    #[arg(long, default_value_t = 100)]
    pub(crate) rooms: usize,
    #[arg(long, default_value_t = 10)]
    pub(crate) members: usize,
    #[arg(long, default_value_t = 1)]
    pub(crate) senders: usize,

    /// Members that are quiet, in rooms of ten
    #[arg(long, default_value_t = 8000)]
    pub(crate) idle_members: usize,

    /// Members that come all at once, to rooms of ten
    #[arg(long, default_value_t = 5000)]
    pub(crate) storm_members: usize,

    /// Let the system choose the cores
    #[arg(long)]
    pub(crate) unpinned: bool,

    /// What cargo says to each of its benches
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the members do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// 200 rooms of 10 members, one of whom speaks
    FanoutSmall,
    /// 5 rooms of 400 members, one of whom speaks
    FanoutLarge,
    /// 500 rooms of 4 members, all of whom speak
    Meeting,
    /// As --rooms, --members and --senders say
    Custom,
    /// Members that are there and nothing else
    Idle,
    /// Members that all come at once
    Storm,
}

/// How many there are of what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) rooms: usize,
    /// In each.
    pub(crate) members: usize,
    /// Of those.
    pub(crate) senders: usize,
}

impl Workload {
    /// Those in which somebody speaks.
    pub(crate) const TALKING: [Self; 3] = [Self::FanoutSmall, Self::FanoutLarge, Self::Meeting];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FanoutSmall => "fanout-small",
            Self::FanoutLarge => "fanout-large",
            Self::Meeting => "meeting",
            Self::Custom => "custom",
            Self::Idle => "idle",
            Self::Storm => "storm",
        }
    }

    pub(crate) fn shape(self, flags: &Flags) -> Shape {
        let (rooms, members, senders) = match self {
            Self::FanoutSmall => (200, 10, 1),
            Self::FanoutLarge => (5, 400, 1),
            Self::Meeting => (500, 4, 4),
            _ => (flags.rooms, flags.members, flags.senders),
        };
        Shape {
            rooms: rooms.max(1),
            members: members.max(2),
            senders: senders.clamp(1, members.max(2)),
        }
    }
}

impl Shape {
    pub(crate) fn all(self) -> usize {
        self.rooms * self.members
    }

    /// Deliveries of one broadcast.
    pub(crate) fn receivers(self) -> u64 {
        self.members as u64 - 1
    }
}

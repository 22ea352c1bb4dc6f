//! The noisy-neighbor bench: how long a quiet room waits while another room of the same worker
//! thread is flooded.
//!
//! ```sh
//! cargo bench --bench noisy_neighbor                              # every attack
//! cargo bench --bench noisy_neighbor -- --attack burst --members 1000 --senders 1000
//! ```
//!
//! The server runs with one worker and its default rate limits. A probe of two members sends one
//! broadcast after another and measures each until it arrives. The figures of one sitting can be
//! compared, and no others.

mod attack;
#[path = "../load/machine.rs"]
mod machine;
mod probe;
#[path = "../wire/mod.rs"]
mod wire;

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use tokio::task::LocalSet;

use self::{
    attack::{Attack, Kind, Outcome},
    machine::Machine,
    probe::Probe,
    wire::open_files,
};

/// How long the room of the attack settles before the attack begins.
const SETTLING: Duration = Duration::from_secs(1);

/// How long a quiet room waits while another room of its thread is flooded. Without an attack:
/// all of them
#[derive(Debug, Parser)]
struct Flags {
    /// Only this one
    #[arg(long)]
    attack: Option<Kind>,

    /// Members of the attacking room
    #[arg(long, default_value_t = 500)]
    members: usize,

    /// How many of them send, or join, or are reset
    #[arg(long, default_value_t = 500)]
    senders: usize,

    /// The server to attack instead of the one of this build
    #[arg(long)]
    server: Option<std::path::PathBuf>,

    /// Let the system choose the cores
    #[arg(long)]
    unpinned: bool,

    /// What cargo passes to each of its benches
    #[arg(long, hide = true)]
    bench: bool,
}

/// The attacks that run where none is named: those of the table in docs/scaling.md.
const ATTACKS: [Attack; 6] = [
    Attack::new(Kind::Burst, 500, 500),
    Attack::new(Kind::Burst, 1_000, 1_000),
    Attack::new(Kind::Burst, 5_000, 500),
    Attack::new(Kind::Sustained, 1_000, 100),
    Attack::new(Kind::Joins, 5_000, 5_000),
    Attack::new(Kind::Expiry, 5_000, 2_500),
];

fn say(text: &str) {
    // A reader that has gone away is no reason to stop.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("the attack cannot go on: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), Box<dyn Error>> {
    open_files::raise_limit()?;
    let machine = Machine::divide(flags.unpinned);
    say(&machine.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let attacks = match flags.attack {
        Some(kind) => vec![Attack::new(kind, flags.members, flags.senders)],
        None => ATTACKS.to_vec(),
    };
    for attack in attacks {
        let outcome = LocalSet::new().block_on(&runtime, measure(flags, &machine, attack))?;
        say(&format!("{attack:<36} {outcome}"));
    }
    Ok(())
}

async fn measure(
    flags: &Flags,
    machine: &Machine,
    attack: Attack,
) -> Result<Outcome, Box<dyn Error>> {
    // The readers of the flood answer no pings.
    let settings = [
        ("SERVER__WORKERS", "1".to_owned()),
        ("SESSION__PING_INTERVAL", "60s".to_owned()),
        ("SESSION__IDLE_TIMEOUT", "10m".to_owned()),
    ];
    let server = machine.start_server(flags.server.as_deref(), &settings)?;
    let room = attack.prepare(server.addr).await?;
    tokio::time::sleep(SETTLING).await;
    let before = server.usage().cpu()?;
    let probe = Probe::start(server.addr)?;
    let mut outcome = room.run().await?;
    outcome.probe = Some(probe.stop()?);
    outcome.cpu = server.usage().cpu()? - before;
    Ok(outcome)
}

//! The load bench: how fast the real server is, over real sockets, and what it needs for that.
//!
//! ```sh
//! cargo bench --bench load                                  # all of it: some minutes, and a chart
//! cargo bench --bench load -- --workload meeting --secs 10  # one workload
//! ```
//!
//! Deliveries are events that members receive. The server runs on one core and this process on
//! another where there are two to be had, so that its figures are its own; how much of its core
//! this process took is told too, since a load generator that is busy itself measures itself. The
//! figures of one machine and one sitting can be compared, and no others.

mod chart;
mod crowd;
mod flags;
mod idle;
mod machine;
mod messages;
mod outcome;
mod storm;
#[path = "../wire/mod.rs"]
mod wire;

use std::{
    error::Error,
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use tokio::task::LocalSet;

use self::{
    chart::Curve,
    flags::{Flags, Workload},
    machine::Machine,
    messages::Offer,
    outcome::Outcome,
    wire::open_files,
};

/// Offered deliveries a second, for the chart: until the server is full.
const RATES: [u64; 10] = [
    2_000, 5_000, 10_000, 20_000, 40_000, 60_000, 80_000, 120_000, 160_000, 240_000,
];

/// Open files that are no connection of a member.
const RESERVED_FILES: usize = 100;

/// Less than this part of what was offered was delivered: the server is full.
const FULL: f64 = 0.95;

/// Who had more than this part of a core was busy.
const BUSY: f64 = 0.7;

/// Measurements at one rate at most.
const TRIES: u32 = 3;

/// Says something to whoever watches.
fn say(text: &str) {
    // A reader that goes away is no reason to stop.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(&flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("the load cannot go on: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<bool, Box<dyn Error>> {
    let files = open_files::raise_limit()?;
    let machine = Machine::divide(flags.unpinned);
    say(&machine.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let most = usize::try_from(files)
        .unwrap_or(usize::MAX)
        .saturating_sub(RESERVED_FILES);
    LocalSet::new().block_on(&runtime, load(flags, &machine, most))
}

/// Whether all that was owed was delivered; `most`: connections that the system allows.
async fn load(flags: &Flags, machine: &Machine, most: usize) -> Result<bool, Box<dyn Error>> {
    let mut well = true;
    let idle = async || idle::measure(machine, flags.idle_members.min(most)).await;
    let storm = async || storm::measure(machine, flags.storm_members.min(most)).await;
    if let Some(workload) = flags.workload {
        match workload {
            Workload::Idle => idle().await?,
            Workload::Storm => storm().await?,
            _ => {
                let offer = flags.rate.map_or(Offer::Window(flags.window), Offer::Rate);
                let outcome = messages::measure(machine, flags, workload, offer).await?;
                say(&outcome.to_string());
                well = outcome.is_whole();
            }
        }
        return Ok(well);
    }
    say("\nAs fast as it can:");
    for workload in Workload::TALKING {
        let offer = Offer::Window(flags.window);
        let outcome = messages::measure(machine, flags, workload, offer).await?;
        say(&outcome.to_string());
        well &= outcome.is_whole();
    }
    say("");
    idle().await?;
    storm().await?;
    say("\nLatency against load:");
    let mut curves = Vec::new();
    for workload in Workload::TALKING {
        let mut curve = Curve::new(workload);
        for rate in RATES {
            let outcome = at_rate(machine, flags, workload, rate).await?;
            say(&outcome.to_string());
            let full = is_short(&outcome, rate);
            // Who offers more than a server can take must not wonder.
            well &= full || outcome.is_whole();
            curve.add(rate as f64, &outcome);
            if full {
                break;
            }
        }
        curves.push(curve);
    }
    draw(&curves, machine)?;
    Ok(well)
}

/// Measures at a rate; again, where it was neither the server nor the load that was too slow, but
/// others who had their cores.
async fn at_rate(
    machine: &Machine,
    flags: &Flags,
    workload: Workload,
    rate: u64,
) -> Result<Outcome, Box<dyn Error>> {
    let mut tries = 0;
    loop {
        let outcome = messages::measure(machine, flags, workload, Offer::Rate(rate)).await?;
        tries += 1;
        let busy = outcome.server_cpu.max(outcome.load_cpu) > BUSY;
        if busy || tries == TRIES || !is_short(&outcome, rate) {
            return Ok(outcome);
        }
        say(&format!("{outcome}  (others had the cores; again)"));
    }
}

/// Whether less was delivered than offered.
fn is_short(outcome: &Outcome, rate: u64) -> bool {
    outcome.deliveries_a_second < rate as f64 * FULL
}

fn draw(curves: &[Curve], machine: &Machine) -> io::Result<()> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("load");
    fs::create_dir_all(&target)?;
    let file = target.join("latency.svg");
    fs::write(&file, chart::draw(curves, &machine.to_string()))?;
    say(&format!("\nthe chart is in {}", file.display()));
    Ok(())
}

/// How long something settles before it is measured.
const SETTLING: Duration = Duration::from_millis(1000);

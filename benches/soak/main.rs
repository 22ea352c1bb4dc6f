//! The soak: thousands of members that do to the real server all that members do to servers, at
//! once and for minutes, while an observer in every room sees to it that nobody is told anything
//! wrong. See [`ledger`] for what "wrong" is, [`acts`] for what members do.
//!
//! ```sh
//! cargo bench --bench soak -- --minutes 10
//! ```
//!
//! It comes in rounds. At the end of each everybody leaves, and nothing may be left of them: no
//! object, no open file, no more memory than after the first round. The exit code says whether all
//! was as it should be.

mod acts;
mod ears;
mod figures;
mod flags;
mod flood;
mod ledger;
mod member;
mod observer;
mod room;
mod round;
mod strays;
mod verdict;
mod watch;
#[path = "../wire/mod.rs"]
mod wire;
mod world;

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

use clap::Parser;
use tokio::task::LocalSet;

use self::{
    flags::Flags,
    flood::Flood,
    verdict::{Remains, Verdict},
    wire::{open_files, server::Server},
    world::World,
};

/// Says something to whoever watches.
fn say(text: &str) {
    // A reader that goes away is no reason to stop.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let soaked = runtime
        .map_err(Into::into)
        .and_then(|runtime| LocalSet::new().block_on(&runtime, soak(&flags)));
    match soaked {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("the soak cannot go on: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether all was as it should be.
async fn soak(flags: &Flags) -> Result<bool, Box<dyn Error>> {
    let files = open_files::raise_limit()?;
    if files < (flags.members * 2 + flags.flood + flags.quiet_rooms * 2) as u64 {
        return Err(format!("{files} open files are too few for so many members").into());
    }
    let mut server = Server::start("info", &world::settings(flags))?;
    let seed = flags.seed();
    say(&format!(
        "seed {seed}: {} members, {} rounds in {} minutes, {} workers",
        flags.members,
        flags.rounds(),
        flags.minutes,
        flags.workers(),
    ));
    let at_first = Remains::of(&server).await?;
    say(&format!("at first: {at_first}"));
    let world = Rc::new(World::new(&server, flags, seed));
    let mut verdict = Verdict::new(at_first.clone());
    let (begun, rounds) = (Instant::now(), flags.rounds());
    let each = Duration::from_secs_f64(flags.minutes * 60.0 / f64::from(rounds));
    for n in 1..=rounds {
        let flood = Flood::start(server.addr, flags.flood, flags.quiet_rooms);
        round::live(&world, &mut server, n, begun + each * n).await?;
        verdict.quiet.push(flood.stop().await?);
        let remains = Remains::when_all_are_gone(&server, &at_first).await?;
        say(&format!("after round {n}: {remains}"));
        verdict.rounds.push(remains);
    }
    verdict.server = verdict::Server::of(&server).await?;
    let (status, log) = server.stop()?;
    verdict.exit = Some(status);
    verdict.log = log;
    Ok(verdict.pronounce(&world.figures, begun.elapsed()))
}

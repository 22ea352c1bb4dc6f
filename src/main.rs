//! The command line.

#![warn(clippy::unwrap_used)]

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use meeting_server::{
    server::{self, Server},
    settings::Settings,
};

/// Exit code for settings and flags that cannot be used.
const BAD_SETTINGS: u8 = 2;

/// The room server of a video-meeting system.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// The settings file [default: settings.toml, where it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen; wins over the settings
    #[arg(long, value_name = "ADDR:PORT")]
    bind: Option<SocketAddr>,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let mut settings = match Settings::load(flags.config.as_deref()) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, BAD_SETTINGS),
    };
    if let Some(bind) = flags.bind {
        settings.server.bind = bind;
    }
    env_logger::Builder::new()
        .filter_level(settings.log.level)
        .parse_default_env()
        .init();
    let server = match Server::bind(settings) {
        Ok(server) => server,
        Err(error) => return fail(&error, 1),
    };
    let stop = async {
        if let Err(error) = server::signalled().await {
            log::error!("signals cannot be caught: {error}");
        }
    };
    match server.run(stop) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

/// One line on standard error, whether there is a log or not.
#[expect(clippy::print_stderr, reason = "the command line's own answer")]
fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("meeting-server: {error}");
    ExitCode::from(code)
}

//! The command line.

#![warn(clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use meeting_server::{
    logging,
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
    /// Read and check the settings, print what is in effect (without secrets), and exit
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let settings = load(flags.config.as_deref(), flags.bind)?;
    if flags.check_config {
        return print(&settings);
    }
    logging::start(&settings.log);
    let signalled = async |times| {
        if let Err(error) = server::signalled(times).await {
            log::error!("signals cannot be caught: {error}");
        }
    };
    Server::bind(settings)
        .and_then(|server| server.run(signalled(1), signalled(2)))
        .map_err(|error| Failure::new(error, 1))
}

fn load(file: Option<&Path>, bind: Option<SocketAddr>) -> Result<Settings, Failure> {
    Settings::load(file, std::env::vars_os(), bind)
        .map_err(|error| Failure::new(error, BAD_SETTINGS))
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn print(settings: &Settings) -> Result<(), Failure> {
    let text = toml::to_string(settings).map_err(|error| Failure::new(error, BAD_SETTINGS))?;
    print!("{text}");
    Ok(())
}

/// Why the process ends before its time.
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    fn new(error: impl std::error::Error, code: u8) -> Self {
        Self {
            message: error.to_string(),
            code,
        }
    }

    /// One line on standard error, whether there is a log or not.
    #[expect(clippy::print_stderr, reason = "the command line's own answer")]
    fn report(self) -> ExitCode {
        eprintln!("meeting-server: {}", self.message);
        ExitCode::from(self.code)
    }
}

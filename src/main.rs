//! The command line.

#![warn(clippy::unwrap_used)]

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use meeting_server::{
    health, limits, logging,
    server::{self, Server, ServerError},
    settings::{Settings, value},
};

/// Exit code for settings and flags that cannot be used.
const BAD_SETTINGS: u8 = 2;

/// Exit code for what goes wrong later.
const FAILED: u8 = 1;

/// The room server of a video-meeting system. Serves, unless a command says otherwise.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// The settings file [default: settings.toml, where it is there]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where to listen; wins over the settings
    #[arg(long, value_name = "ADDR:PORT", value_parser = address, global = true)]
    bind: Option<SocketAddr>,
    /// Read and check the settings, print what is in effect (without secrets), and exit
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Ask the running server that has these settings whether it is ready; exit code 0 or 1
    Health,
}

fn main() -> ExitCode {
    match flags().and_then(|flags| run(&flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// The command line. Ends the process where it asks for help or the version.
fn flags() -> Result<Flags, Failure> {
    Flags::try_parse().map_err(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        // What comes after the first paragraph are tips and the usage.
        let text = error.to_string();
        let said: Vec<&str> = text
            .lines()
            .take_while(|line| !line.is_empty())
            .flat_map(str::split_whitespace)
            .skip_while(|word| *word == "error:")
            .collect();
        let message = format!("{}; see --help", said.join(" ").trim_end_matches('.'));
        Failure {
            message,
            code: BAD_SETTINGS,
        }
    })
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| value::addr::REMEDY)
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let settings = load(flags.config.as_deref(), flags.bind)?;
    if flags.check_config {
        return print(&settings);
    }
    match flags.command {
        None => serve(settings),
        Some(Command::Health) => health::ask(health::address(&settings.server), health::TIMEOUT)
            .map_err(|error| Failure::new(error, FAILED)),
    }
}

fn serve(settings: Settings) -> Result<(), Failure> {
    logging::start(&settings.log);
    let signalled = async |times| {
        if let Err(error) = server::signalled(times).await {
            log::error!("signals cannot be caught: {error}");
        }
    };
    let (max_connections, workers) = (settings.server.max_connections, settings.worker_count());
    let server = Server::bind(settings)?;
    limits::raise_open_files(max_connections, workers);
    Ok(server.run(signalled(1), signalled(2))?)
}

fn load(file: Option<&Path>, bind: Option<SocketAddr>) -> Result<Settings, Failure> {
    Settings::load(file, std::env::vars_os(), bind)
        .map_err(|error| Failure::new(error, BAD_SETTINGS))
}

fn print(settings: &Settings) -> Result<(), Failure> {
    let text = toml::to_string(settings).map_err(|error| Failure::new(error, BAD_SETTINGS))?;
    // A reader that goes away is no reason to panic.
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::new(error, FAILED))
}

/// Why the process ends before its time.
struct Failure {
    message: String,
    code: u8,
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let code = match error {
            // It is read before anything is listened on, as any other setting.
            ServerError::NotYet(_) => BAD_SETTINGS,
            _ => FAILED,
        };
        Self::new(error, code)
    }
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

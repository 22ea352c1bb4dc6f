//! The command line.

#![warn(clippy::unwrap_used)]

mod flags;

use std::{
    env,
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use meeting_server::{
    auth::{AuthError, explain, keyring::Keyring, mint},
    health, limits, logging,
    protocol::token::Token,
    reload::Hangups,
    server::{self, Server, ServerError},
    settings::{Settings, Source},
    tls::Identity,
};
use tikv_jemallocator::Jemalloc;

use crate::flags::{Command, Flags};

/// A room keeps what its members say for a while, so memory that was used last is seldom what is
/// free first; this allocator is the quicker one at that, and gives back what a burst has taken.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What the allocator reads when it starts. The memory of a member is used for a moment and not again
/// for seconds; in pages of 4 KiB, with thousands of members, each use begins with walks through
/// page tables that have gone cold too. So what has been full for a second is to be in large
/// pages (`hpa`), and parted again before a part of it goes back to the system (`lazy`): a large page of
/// which a little is left is filled up again by the kernel, and a quiet server would grow.
// SAFETY: jemalloc declares this symbol as a `const char *` that programs may define, and reads a
// string that ends with a zero there, once, when it starts; a reference to an array is a pointer to
// its first byte, and this one lives for ever.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8; 56] = b"hpa:true,hpa_hugify_style:lazy,hpa_hugify_delay_ms:1000\0";

/// Exit code for settings and flags that cannot be used.
const BAD_SETTINGS: u8 = 2;

/// Exit code for what goes wrong later.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    // First of all for a server: until it is caught, a SIGHUP ends the process. It ends every other
    // command, which may wait for standard input or a file.
    let hangups = flags::may_serve(env::args_os()).then(Hangups::catch);
    match flags().and_then(|flags| flags.map_or(Ok(()), |flags| run(&flags, hangups))) {
        Ok(()) => {
            log::logger().flush();
            ExitCode::SUCCESS
        }
        Err(failure) => failure.report(),
    }
}

/// The command line. `None` where it has asked for help or the version, which are printed.
fn flags() -> Result<Option<Flags>, Failure> {
    let error = match Flags::try_parse() {
        Ok(flags) => return Ok(Some(flags)),
        Err(error) => error,
    };
    if error.use_stderr() {
        // What comes after the first paragraph are tips and the usage.
        let text = error.to_string();
        let said: Vec<&str> = text
            .lines()
            .take_while(|line| !line.is_empty())
            .flat_map(str::split_whitespace)
            .skip_while(|word| *word == "error:")
            .collect();
        let message = format!("{}; see --help", said.join(" ").trim_end_matches('.'));
        return Err(Failure::new(message, BAD_SETTINGS));
    }
    print(&error.to_string())?;
    Ok(None)
}

fn run(flags: &Flags, hangups: Option<io::Result<Hangups>>) -> Result<(), Failure> {
    let bad = |error| Failure::new(error, BAD_SETTINGS);
    let source = Source::new(flags.config.clone(), flags.bind);
    let (settings, file) = source.read().map_err(bad)?;
    let failed = |error: &dyn Error| Failure::new(error, FAILED);
    if flags.check_config {
        Keyring::load(&settings.auth).map_err(bad)?;
        Identity::load(&settings.tls).map_err(bad)?;
        let text = toml::to_string(&settings).map_err(|e| Failure::new(e, BAD_SETTINGS))?;
        return print(&text);
    }
    match &flags.command {
        None => {
            source.took_effect(file);
            serve(settings, source, hangups.unwrap_or_else(Hangups::catch))
        }
        Some(Command::Health) => {
            health::ask(health::door(&settings), health::TIMEOUT).map_err(|error| failed(&error))
        }
        Some(Command::GenKey(key)) => {
            let entry = mint::key(&key.app, &key.kid).map_err(|error| failed(&error))?;
            print(&entry)
        }
        Some(Command::GenToken(request)) => {
            let request = request.try_into();
            let request = request.map_err(|error: &str| Failure::new(error, BAD_SETTINGS))?;
            let token = mint::token(&settings.auth, &request);
            print(&format!("{}\n", token.map_err(|error| failed(&error))?))
        }
        Some(Command::CheckToken(check)) => {
            let keyring = Keyring::load(&settings.auth).map_err(bad)?;
            let token = given(check.token.as_deref()).map_err(|error| failed(&error))?;
            let token = Token::new(token.trim());
            let token = token.ok_or_else(|| failed(&AuthError::Missing))?;
            let said = explain::explain(&keyring, &token, &check.into());
            print(&said.map_err(|error| failed(&error))?)
        }
    }
}

/// What was given as an argument, or else on standard input.
fn given(argument: Option<&str>) -> io::Result<String> {
    match argument {
        Some(text) if text != "-" => Ok(text.to_owned()),
        _ => io::read_to_string(io::stdin()),
    }
}

fn serve(settings: Settings, source: Source, hangups: io::Result<Hangups>) -> Result<(), Failure> {
    let file_size_limit = server::survive_file_size_limit();
    logging::start(&settings.log)
        .map_err(|error| Failure::new(format!("the log cannot be started: {error}"), FAILED))?;
    if let Err(error) = file_size_limit {
        log::warn!("SIGXFSZ cannot be caught: {error}");
    }
    let hangups = hangups
        .inspect_err(|error| log::error!("SIGHUP cannot be caught, settings stay: {error}"))
        .ok();
    let signalled = async |times| {
        if let Err(error) = server::signalled(times).await {
            log::error!("signals cannot be caught: {error}");
        }
    };
    let (max_connections, workers) = (settings.server.max_connections, settings.worker_count());
    let server = Server::bind(settings)?;
    limits::raise_open_files(max_connections, workers);
    let hangups = hangups.map(|hangups| (hangups, source));
    Ok(server.run(signalled(1), signalled(2), hangups)?)
}

fn print(text: &str) -> Result<(), Failure> {
    // A reader that goes away or a full disk is no reason to panic.
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| {
            let message = format!("standard output cannot be written: {error}");
            Failure::new(message, FAILED)
        })
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
            ServerError::Settings(_) => BAD_SETTINGS,
            _ => FAILED,
        };
        Self::new(error, code)
    }
}

impl Failure {
    fn new(error: impl std::fmt::Display, code: u8) -> Self {
        Self {
            message: error.to_string(),
            code,
        }
    }

    /// One line on standard error, whether there is a log or not.
    fn report(self) -> ExitCode {
        logging::write_failure(&format!("meeting-server: {}", self.message));
        ExitCode::from(self.code)
    }
}

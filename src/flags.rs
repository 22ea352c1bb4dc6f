//! What the command line can say.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use meeting_server::{
    auth::{explain::JoinSketch, mint::TokenRequest},
    grants::Grants,
    ids::{Endpoint, IdentifierError},
    settings::value,
};

/// The room server of a video-meeting system. Serves, unless a command says otherwise.
#[derive(Parser)]
#[command(version = meeting_server::VERSION)]
pub(crate) struct Flags {
    /// The settings file [default: settings.toml, where it is there]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Where to listen; wins over the settings
    #[arg(long, value_name = "ADDR:PORT", value_parser = address, global = true)]
    pub(crate) bind: Option<SocketAddr>,
    /// Read and check the settings, print what is in effect (without secrets), and exit
    #[arg(long)]
    pub(crate) check_config: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The words that make the process do something else than serve.
const NOT_SERVING: [&str; 5] = [
    "health",
    "gen-key",
    "gen-token",
    "check-token",
    "--check-config",
];

/// Whether a command line may be that of a server, judged before it is parsed. A settings file that
/// is named like a command makes this `false` for a server too.
pub(crate) fn may_serve(args: impl Iterator<Item = OsString>) -> bool {
    let is_other = |arg: OsString| NOT_SERVING.iter().any(|word| arg == *word);
    !args.skip(1).any(is_other)
}

/// What to do instead of serving.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Ask the running server that has these settings whether it is ready; exit code 0 or 1
    Health,
    /// Print a new key for an app, to paste into the settings
    GenKey(GenKey),
    /// Print a token, signed with a key of the settings
    GenToken(GenToken),
    /// Say whether a token would be let in, and if not, why; exit code 0 or 1
    CheckToken(CheckToken),
}

#[derive(Args)]
pub(crate) struct GenKey {
    /// Whose tokens it signs
    #[arg(long, default_value = "demo", value_parser = identifier)]
    pub(crate) app: String,
    /// Its name
    #[arg(long, default_value = "1")]
    pub(crate) kid: String,
}

/// Stands for an empty list of grants.
const NO_GRANT: &str = "none";

/// The values of `--grant`.
const GRANTS: [&str; Grants::NAMES.len() + 1] = {
    let [publish, broadcast] = Grants::NAMES;
    [publish, broadcast, NO_GRANT]
};

#[derive(Args)]
pub(crate) struct GenToken {
    /// For which app; it must have a key in the settings
    #[arg(long, value_parser = identifier)]
    app: String,
    /// With which of the app's keys, where it has several
    #[arg(long)]
    kid: Option<String>,
    /// For which channel [default: any]
    #[arg(long, value_parser = identifier)]
    channel: Option<String>,
    /// For which endpoint [default: any]
    #[arg(long, value_parser = identifier)]
    endpoint: Option<String>,
    /// For which role [default: any]
    #[arg(long, value_parser = ["normal", "recorder", "relayer"])]
    role: Option<String>,
    /// For which device [default: any]
    #[arg(long)]
    device: Option<String>,
    /// What it may do; may be given several times; "none" alone: nothing [default: everything]
    #[arg(long, value_name = "GRANT", value_parser = GRANTS)]
    grant: Vec<String>,
    /// How long it holds
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// The private key, PEM, of an app that has a public key in the settings
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<String>,
}

impl TryFrom<&GenToken> for TokenRequest {
    type Error = &'static str;

    fn try_from(flags: &GenToken) -> Result<Self, Self::Error> {
        let grants = match &flags.grant[..] {
            [] => None,
            [none] if none == NO_GRANT => Some(Vec::new()),
            grants if grants.iter().any(|grant| grant == NO_GRANT) => {
                return Err("--grant none goes with no other --grant; see --help");
            }
            grants => Some(grants.to_vec()),
        };
        Ok(Self {
            app: flags.app.clone(),
            kid: flags.kid.clone(),
            channel: flags.channel.clone(),
            endpoint: flags.endpoint.clone(),
            role: flags.role.clone(),
            device: flags.device.clone(),
            grants,
            ttl: flags.ttl,
            private_key_file: flags.private_key_file.clone(),
        })
    }
}

#[derive(Args)]
pub(crate) struct CheckToken {
    /// The token; left out or "-": it is read from standard input, where no list of processes
    /// shows it
    pub(crate) token: Option<String>,
    /// The join's app [default: the token's]
    #[arg(long)]
    app: Option<String>,
    /// The join's channel [default: the token's]
    #[arg(long)]
    channel: Option<String>,
    /// The join's endpoint [default: the token's]
    #[arg(long)]
    endpoint: Option<String>,
    /// The join's role [default: the token's]
    #[arg(long)]
    role: Option<String>,
    /// The join's device [default: the token's]
    #[arg(long)]
    device: Option<String>,
}

impl From<&CheckToken> for JoinSketch {
    fn from(flags: &CheckToken) -> Self {
        Self {
            app: flags.app.clone(),
            channel: flags.channel.clone(),
            endpoint: flags.endpoint.clone(),
            role: flags.role.clone(),
            device: flags.device.clone(),
        }
    }
}

/// A name as a join may say it: others would make a key or token that is good for nothing.
fn identifier(text: &str) -> Result<String, IdentifierError> {
    Endpoint::new(text).map(|name| name.as_str().to_owned())
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| value::addr::REMEDY)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_is_known_before_the_command_line_is_parsed() {
        let is_server = |words: &[&str]| {
            let words = [&["meeting-server"], words].concat();
            may_serve(words.into_iter().map(OsString::from))
        };
        for command in Flags::command().get_subcommands() {
            assert!(!is_server(&["--config", "a", command.get_name()]));
        }
        assert!(!is_server(&["--check-config"]));
        assert!(is_server(&[]));
        assert!(is_server(&[
            "--config",
            "settings.toml",
            "--bind",
            "127.0.0.1:0"
        ]));
    }
}

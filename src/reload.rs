//! SIGHUP: the settings, and the files that they name, are read again. A reload takes effect as a
//! whole or not at all; what is wrong is logged, and the present settings stay.

use std::{io, mem, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use crate::{
    auth::keyring::Keyring,
    crew::Crew,
    limits, logging,
    media::health::{self, Checks},
    settings::{FileState, Settings, SettingsError, Source, reload::Reload},
    tls::Identity,
};

/// How long the settings and the files that they name may take to be read at a SIGHUP.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How many threads may be reading at a time. A thread that waits for a file cannot be stopped.
const MAX_RELOADS: usize = 4;

/// The SIGHUPs of this process. From the moment that it exists, none of them ends the process, and
/// one that comes before a server waits for it here.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Installs the handler. To be called outside of any event loop.
    ///
    /// # Errors
    /// Where the system refuses it.
    pub fn catch() -> io::Result<Self> {
        // Only an event loop installs a handler. The handler outlives it, and so does the receiver,
        // which the event loop of the server wakes later.
        let event_loop = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let _entered = event_loop.enter();
        Ok(Self(signal(SignalKind::hangup())?))
    }
}

/// Begins to check the health of the media servers.
pub(crate) fn begin_checks(crew: &Arc<Crew>, settings: &Settings) -> Checks {
    let rooms = crew.clone();
    health::begin(settings, crew.media(), move || {
        rooms.media_server_went_down();
    })
}

/// Reads the settings of `source` again at each SIGHUP. `checks` are those of the media servers.
pub(crate) async fn reload_for_ever(
    crew: &Arc<Crew>,
    mut checks: Checks,
    mut hangups: Hangups,
    source: Source,
) {
    let source = Arc::new(source);
    while hangups.0.recv().await.is_some() {
        match read(crew.settings(), &source).await {
            Ok(renewal) => {
                source.took_effect(renewal.file);
                let need_restart = renewal.apply(crew, &mut checks);
                log::info!("configuration reloaded");
                log_openness(&crew.keyring());
                if !need_restart.is_empty() {
                    log::warn!(
                        keys = &*need_restart.join(", ");
                        "changed settings need a restart, until then the old ones hold"
                    );
                }
            }
            Err(error) => {
                log::warn!(
                    error:% = error;
                    "configuration not reloaded, the previous one stays in effect"
                );
            }
        }
    }
}

/// Logs whether a token is needed, which no operator should overlook.
pub(crate) fn log_openness(keyring: &Keyring) {
    if keyring.is_open() {
        log::warn!("open to everybody: no auth.keys are set, so anybody can take anybody's place");
    } else {
        log::info!(keys = keyring.len(); "tokens are needed");
    }
}

/// Why a SIGHUP changes nothing.
#[derive(Debug, Error)]
enum ReloadError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("reading them took longer than {} s", RELOAD_TIMEOUT.as_secs())]
    TimedOut,
    #[error("earlier SIGHUPs still wait for a file")]
    Busy,
    #[error("no thread to read them: {0}")]
    Thread(#[from] io::Error),
}

/// Reads everything on a thread of its own, with a time limit: a file on a network mount that does
/// not answer, or a FIFO, would otherwise stop this loop, and SIGTERM with it. The thread is not
/// waited for, at the exit neither; what it reads too late is dropped.
async fn read(present: Arc<Settings>, source: &Arc<Source>) -> Result<Renewal, ReloadError> {
    // Each thread holds `source` until it is done.
    if Arc::strong_count(source) > MAX_RELOADS {
        return Err(ReloadError::Busy);
    }
    let (send, receive) = oneshot::channel();
    let source = source.clone();
    std::thread::Builder::new()
        .name("reload".into())
        .spawn(move || {
            let read = source
                .read()
                .and_then(|(read, file)| Renewal::load(&present, read, file));
            // After the time limit there is no receiver.
            let _ = send.send(read);
        })?;
    match tokio::time::timeout(RELOAD_TIMEOUT, receive).await {
        Ok(Ok(renewal)) => Ok(renewal?),
        Ok(Err(_)) => Err(io::Error::other("it ended without a result").into()),
        Err(_) => Err(ReloadError::TimedOut),
    }
}

/// What a reload replaces. Once it has been read, nothing can go wrong any more.
struct Renewal {
    settings: Settings,
    need_restart: Vec<&'static str>,
    keyring: Keyring,
    identity: Option<Identity>,
    file: FileState,
}

impl Renewal {
    /// Lays the settings that were `read` from `file` over the `present` ones, and reads the keys
    /// and the certificate that they name.
    ///
    /// # Errors
    /// [`SettingsError`] for what is wrong.
    fn load(present: &Settings, read: Settings, file: FileState) -> Result<Self, SettingsError> {
        let Reload {
            settings,
            need_restart,
        } = Reload::new(present, read)?;
        Ok(Self {
            keyring: Keyring::load(&settings.auth)?,
            identity: Identity::load(&settings.tls)?,
            settings,
            need_restart,
            file,
        })
    }

    /// Puts it into effect. Returns the keys that were changed and need a restart.
    fn apply(self, crew: &Arc<Crew>, checks: &mut Checks) -> Vec<&'static str> {
        let (present, settings) = (crew.settings(), Arc::new(self.settings));
        // TLS is as it was, on or off: Reload::new sees to it.
        if let (Some(present), Some(renewed)) = (crew.identity(), self.identity) {
            present.replace(renewed);
        }
        crew.set_keyring(self.keyring);
        crew.set_settings(settings.clone());
        crew.admission().set_limits(&settings);
        let max_connections = settings.server.max_connections;
        if max_connections != present.server.max_connections {
            limits::raise_open_files(max_connections, crew.size());
        }
        if settings.log.level != present.log.level {
            logging::set_level(settings.log.level);
        }
        if settings.media_servers != present.media_servers || settings.media != present.media {
            crew.media().replace(&settings.media_servers);
            // A late outcome of an old check must not undo what the new ones begin with.
            drop(mem::take(checks));
            *checks = begin_checks(crew, &settings);
            // Rooms look whether their server is still listed.
            crew.media_server_went_down();
        }
        self.need_restart
    }
}

//! The worker threads of one server, as far as they know of each other: which thread a room is
//! on, how to reach it, and the door they share. Nothing of this is touched on the way of a
//! message; a join looks here.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix::{Message, Recipient};
use actix_rt::ArbiterHandle;
use arc_swap::ArcSwap;

use crate::{
    admission::Admission, auth::keyring::Keyring, ids::RoomName, media::MediaServers,
    settings::Settings, stats::Stats, tls::Identity,
};

/// To a registry: it is there if it answers.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct AreYouThere;

/// To a registry, and from there to its rooms: a media server has gone down, or is not listed any
/// more.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct MediaServerDown;

/// How a worker's registry is reached from elsewhere.
#[derive(Clone, Debug)]
pub struct Registry {
    /// To see whether it is there.
    pub life: Recipient<AreYouThere>,
    /// To tell it that a media server has gone down.
    pub media: Recipient<MediaServerDown>,
}

/// All workers of a server.
#[derive(Debug)]
pub struct Crew {
    size: usize,
    /// Read at each upgrade and each new room, replaced as a whole by a reload.
    settings: ArcSwap<Settings>,
    arbiters: Mutex<Vec<ArbiterHandle>>,
    /// Keyed at random, so that nobody can choose channel names that all meet on one thread.
    hasher: RandomState,
    admission: Admission,
    /// Read at each join, replaced as a whole.
    keyring: RwLock<Arc<Keyring>>,
    /// Asked at each connect; `None` where there is no TLS.
    identity: Option<Identity>,
    draining: AtomicBool,
    registries: Mutex<Vec<Registry>>,
    media: Arc<MediaServers>,
    stats: Mutex<Vec<Arc<Stats>>>,
}

impl Crew {
    /// A crew with these settings, and with the keys and the certificate that they name.
    pub fn new(settings: Arc<Settings>, keyring: Keyring, identity: Option<Identity>) -> Self {
        Self {
            size: settings.worker_count(),
            arbiters: Mutex::default(),
            hasher: RandomState::new(),
            admission: Admission::new(&settings),
            media: Arc::new(MediaServers::new(&settings.media_servers)),
            settings: ArcSwap::new(settings),
            keyring: RwLock::new(Arc::new(keyring)),
            identity,
            draining: AtomicBool::new(false),
            registries: Mutex::default(),
            stats: Mutex::default(),
        }
    }

    /// The settings that are in effect.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Puts other settings into effect: new connections and new rooms take theirs from them. Limits
    /// and media servers have lists of their own, see [`Admission::set_limits`] and
    /// [`MediaServers::replace`].
    pub fn set_settings(&self, settings: Arc<Settings>) {
        self.settings.store(settings);
    }

    /// How many workers there are to be.
    pub fn size(&self) -> usize {
        self.size
    }

    /// A worker joins and is told its number. All do so before the first connection is accepted.
    pub fn enlist(&self, arbiter: ArbiterHandle) -> usize {
        let mut arbiters = self.lock();
        arbiters.push(arbiter);
        arbiters.len() - 1
    }

    /// The thread on which a room is, whether it is open or not.
    pub fn home(&self, room: &RoomName) -> usize {
        // Below `size`, so it fits.
        (self.hasher.hash_one(room) % self.size as u64) as usize
    }

    /// How to run something on a worker's thread.
    pub fn arbiter(&self, worker: usize) -> Option<ArbiterHandle> {
        self.lock().get(worker).cloned()
    }

    /// All workers' threads.
    pub fn arbiters(&self) -> Vec<ArbiterHandle> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<ArbiterHandle>> {
        // A list that is only pushed to is whole at every moment.
        self.arbiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's registry, to be asked whether it is there, and told what all have to know.
    pub fn enlist_registry(&self, registry: Registry) {
        self.lock_registries().push(registry);
    }

    /// Tells all registries that a media server has gone down.
    pub fn media_server_went_down(&self) {
        for registry in &*self.lock_registries() {
            registry.media.do_send(MediaServerDown);
        }
    }

    /// The media servers.
    pub fn media(&self) -> &Arc<MediaServers> {
        &self.media
    }

    /// Whether every worker's registry answers within `timeout`.
    pub async fn is_alive(&self, timeout: Duration) -> bool {
        let registries = self.lock_registries().clone();
        for registry in registries {
            let answer = tokio::time::timeout(timeout, registry.life.send(AreYouThere)).await;
            if !matches!(answer, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }

    fn lock_registries(&self) -> std::sync::MutexGuard<'_, Vec<Registry>> {
        self.registries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// New counters for this thread, a worker's.
    pub fn count_for_thread(&self) -> Arc<Stats> {
        let stats = Arc::new(Stats::of_this_thread());
        self.lock_stats().push(stats.clone());
        stats
    }

    /// The counters of all threads.
    pub fn stats(&self) -> Vec<Arc<Stats>> {
        self.lock_stats().clone()
    }

    fn lock_stats(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Stats>>> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server's door.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// The keys that tokens are checked with at present.
    pub fn keyring(&self) -> Arc<Keyring> {
        let keyring = self.keyring.read();
        keyring.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on tokens are checked with these keys. Nobody who is in is touched.
    pub fn set_keyring(&self, keyring: Keyring) {
        let mut present = self.keyring.write().unwrap_or_else(PoisonError::into_inner);
        *present = Arc::new(keyring);
    }

    /// Who we are under TLS, where there is TLS.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// From now on nobody is let in.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the server is going down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

//! What all members have in common: the server, the rooms, the time, the figures.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    figures::Figures,
    flags::Flags,
    room::Room,
    wire::{
        connection::{Connection, Route},
        random::Random,
        server::Server,
    },
};

/// How often the server pings.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(5);
/// How long it hears nothing before it takes a client for lost.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it waits for one to come back.
pub(crate) const RESUME_WINDOW: Duration = Duration::from_secs(8);
/// How long for one that takes no byte, or that does not join.
pub(crate) const SEND_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How much shorter that may be: where a turn of a worker is longer, the server's clock counts no more
/// than this of it.
pub(crate) const CLOCK: Duration = Duration::from_millis(3 * 250);
/// How many events a room keeps for those who come back.
pub(crate) const RESUME_EVENTS: u64 = 1024;

/// How much may wait for one that does not read.
const SEND_QUEUE: usize = 128;
const SEND_QUEUE_BYTES: usize = 128 * 1024;

/// Members of a room, about.
const ROOM: usize = 20;
/// One member in so many is in the one large room.
const LARGE: usize = 10;
/// Rooms without an observer, to which members go for a moment: they come and go.
pub(crate) const CAFES: usize = 8;

/// The server's settings: shorter waits than the defaults, so that in a few minutes all of them
/// are over many times.
pub(crate) fn settings(flags: &Flags) -> Vec<(&'static str, String)> {
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    vec![
        ("SERVER__WORKERS", flags.workers().to_string()),
        ("SESSION__PING_INTERVAL", seconds(PING_INTERVAL)),
        ("SESSION__IDLE_TIMEOUT", seconds(IDLE_TIMEOUT)),
        ("SESSION__SEND_TIMEOUT", seconds(SEND_TIMEOUT)),
        ("SESSION__JOIN_TIMEOUT", seconds(JOIN_TIMEOUT)),
        ("SESSION__SEND_QUEUE", SEND_QUEUE.to_string()),
        ("SESSION__SEND_QUEUE_BYTES", SEND_QUEUE_BYTES.to_string()),
        ("ROOMS__RESUME_WINDOW", seconds(RESUME_WINDOW)),
        ("ROOMS__RESUME_EVENTS", RESUME_EVENTS.to_string()),
        ("LOG__STATS_INTERVAL", "10s".to_owned()),
    ]
}

/// See the module's text.
pub(crate) struct World {
    addr: SocketAddr,
    pub(crate) members: usize,
    pub(crate) pace: f64,
    pub(crate) seed: u64,
    /// Delays are reckoned from here.
    begun: Instant,
    /// When the round is over.
    until: Cell<Instant>,
    pub(crate) rooms: Vec<Rc<Room>>,
    pub(crate) figures: Figures,
    /// Connections whose network is gone: nobody reads or writes there any more.
    graves: RefCell<Vec<Connection>>,
    connects: Cell<u32>,
    /// Members that have done all that they wanted and wait for the last word.
    pub(crate) ready: Cell<usize>,
    /// Everybody is on the way out.
    pub(crate) emptying: Cell<bool>,
}

impl World {
    pub(crate) fn new(server: &Server, flags: &Flags, seed: u64) -> Self {
        let rooms = (flags.members / ROOM).max(2);
        let now = Instant::now();
        Self {
            addr: server.addr,
            members: flags.members,
            pace: flags.pace,
            seed,
            begun: now,
            until: Cell::new(now),
            rooms: (0..rooms).map(|n| Rc::new(Room::new(n))).collect(),
            figures: Figures::default(),
            graves: RefCell::default(),
            connects: Cell::new(0),
            ready: Cell::new(0),
            emptying: Cell::new(false),
        }
    }

    /// The next round lasts until then.
    pub(crate) fn begin_round(&self, until: Instant) {
        self.until.set(until);
        self.ready.set(0);
        self.emptying.set(false);
        for room in &self.rooms {
            room.clear();
        }
    }

    /// Whether nobody is to begin anything new.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.until.get()
    }

    /// When a pause of this length ends, the round's end being the latest.
    pub(crate) fn after(&self, pause: Duration) -> Instant {
        (Instant::now() + pause).min(self.until.get())
    }

    /// Time since the beginning, in nanoseconds: what a broadcast says of its birth.
    pub(crate) fn nanos(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    /// The same of a moment.
    pub(crate) fn nanos_at(&self, at: Instant) -> u64 {
        at.duration_since(self.begun).as_nanos() as u64
    }

    /// Some room.
    pub(crate) fn any_room(&self, random: &mut Random) -> Rc<Room> {
        let at = match random.below(LARGE) {
            0 => 0,
            _ => random.below(self.rooms.len()),
        };
        self.rooms[at].clone()
    }

    /// How to connect next.
    pub(crate) fn route(&self) -> Route {
        let nth = self.connects.get();
        self.connects.set(nth.wrapping_add(1));
        self.figures.connections.add(1);
        Route::new(self.addr, nth)
    }

    /// Keeps a connection that nobody will ever look after.
    pub(crate) fn bury(&self, connection: Connection) {
        self.graves.borrow_mut().push(connection);
    }

    pub(crate) fn has_graves(&self) -> bool {
        !self.graves.borrow().is_empty()
    }

    /// Forgets the older half of those.
    pub(crate) fn decay(&self) {
        let mut graves = self.graves.borrow_mut();
        let half = graves.len().div_ceil(2);
        graves.drain(..half);
    }
}

//! All clients of this thread, and the two tasks that serve them together: the flusher and the
//! ticker.
//!
//! **Flush once a turn.** A push puts the client on a list; the first one on it wakes the
//! flusher, which runs after everything else that was ready in this turn of the event loop, and
//! offers each socket all that has gathered, in one write. So a quiet server writes at once, a
//! busy one gathers by itself, and nobody's task is woken to be sent an event.
//!
//! What may wait a moment, changes in a [`Crowd`], marks nobody: it goes with the next push that
//! does, or when the ticker says that it has waited long enough.
//!
//! **One ticker.** Deadlines and heartbeats are looked up some forty times a second, of those clients for
//! whom something may be due ([`Alarms`]), instead of one timer a connection.

mod ends;

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    hint::black_box,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use slotmap::SlotMap;
use tokio::time::MissedTickBehavior;

use crate::{
    alarms::Alarms,
    client::{Client, Phase, Shared},
    clients::ends::Ends,
    clock::{Millis, millis},
    crowd::Crowd,
    deadlines::{Deadlines, Due},
    ending::Ending,
    flush_queue::{FlushQueue, Urgency},
    ids::{ConnectionId, RoomId},
    outbox::{Frame, GATHER_BYTES},
    protocol::{error::ErrorCode, frame, method::Method},
    settings::Settings,
    stats::Stats,
    vital::Vital,
};

/// Sockets that are flushed before the thread looks for news. A room of thousands must not hold
/// up the small rooms beside it.
const FLUSH_BUDGET: usize = 128;

/// Bytes that are flushed before it does: who is back after a while is sent much at once.
const FLUSH_BYTES: usize = 1024 * 1024;

/// Bytes that one of them is sent at a time where there are others.
pub const PART_BYTES: usize = 256 * 1024;

/// Members of a room that are dismissed before the thread looks for news.
const DISMISSED_TOGETHER: usize = 64;

/// How many of them are touched together before they are flushed one by one.
const TOUCHED_TOGETHER: usize = 8;

/// Over how long those who are sent away at a shutdown are asked to spread their return.
const RETURN_SPREAD: Millis = 5_000;

thread_local! {
    static CLIENTS: OnceCell<Rc<Clients>> = const { OnceCell::new() };
}

/// The thread's clients.
pub struct Clients {
    table: RefCell<SlotMap<ConnectionId, Rc<Client>>>,
    dirty: RefCell<FlushQueue>,
    flusher: RefCell<Option<Waker>>,
    crowd: Crowd,
    ends: Rc<Ends>,
    shared: Shared,
    /// See [`exactness`].
    exactness: Millis,
    last_tick: Cell<Instant>,
    awake: Cell<Duration>,
    /// See [`Clients::next_fraction_of`].
    spread: Cell<u64>,
}

/// Starts the flusher and the ticker of this thread. To be called once on each worker thread.
pub fn start(settings: &Settings, stats: Arc<Stats>) {
    CLIENTS.with(|cell| {
        let clients = cell.get_or_init(|| Rc::new(Clients::new(settings, stats)));
        actix_rt::spawn(flush_for_ever(clients.clone()));
        actix_rt::spawn(tick_for_ever(clients.clone()));
    });
}

/// The server goes down: from now on nobody on this thread is told who leaves. How many rooms there
/// are to say goodbye to.
pub fn begin_drain() -> usize {
    with(|clients| {
        clients.shared.draining.set(true);
        clients.by_room().len()
    })
}

/// Says goodbye to everybody on this thread: to those in no room at once, then to one room after
/// another. `first` is the number of its first room among the `all` of the server, all of which
/// are to have had their turn `within` this time.
pub fn dismiss_all(within: Duration, first: usize, all: usize) {
    let rooms = with(Clients::by_room);
    actix_rt::spawn(async move {
        let begun = tokio::time::Instant::now();
        with(|clients| clients.dismiss_outsiders());
        for (n, members) in (first..).zip(rooms.into_values()) {
            let turn = (n as f64 / all.max(1) as f64).min(1.0);
            tokio::time::sleep_until(begun + within.mul_f64(turn)).await;
            for batch in members.chunks(DISMISSED_TOGETHER) {
                with(|clients| clients.dismiss_these(batch));
                tokio::task::yield_now().await;
            }
        }
        // Who has left its room meanwhile.
        with(|clients| clients.dismiss_outsiders());
    });
}

/// Does something with the clients of this thread.
///
/// # Panics
/// On a thread on which [`start`] was not called.
pub fn with<R>(f: impl FnOnce(&Clients) -> R) -> R {
    CLIENTS.with(|cell| f(cell.get().expect("clients live on worker threads alone")))
}

/// Like [`with`], for destructors: where there are no clients, nothing is done.
pub fn try_with<R>(f: impl FnOnce(&Clients) -> R) -> Option<R> {
    CLIENTS
        .try_with(|cell| cell.get().map(|clients| f(clients)))
        .ok()
        .flatten()
}

impl Clients {
    fn new(settings: &Settings, stats: Arc<Stats>) -> Self {
        let session = &settings.session;
        let deadlines = Deadlines {
            ping_interval: millis(session.ping_interval),
            idle_timeout: millis(session.idle_timeout),
            send_timeout: millis(session.send_timeout),
        };
        Self {
            table: RefCell::default(),
            dirty: RefCell::default(),
            flusher: RefCell::default(),
            crowd: Crowd::default(),
            ends: Rc::default(),
            shared: Shared {
                now: Cell::new(0),
                send_queue: session.send_queue,
                send_queue_bytes: session.send_queue_bytes,
                deadlines,
                scratch: RefCell::new(Vec::with_capacity(GATHER_BYTES)),
                alarms: Alarms::default(),
                draining: Cell::new(false),
                stats,
            },
            exactness: exactness(settings),
            last_tick: Cell::new(Instant::now()),
            awake: Cell::default(),
            spread: Cell::new(0),
        }
    }

    /// What all clients of the thread share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// How much changes in the rooms of this thread.
    pub fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    /// The thread's time.
    pub fn now(&self) -> Millis {
        self.shared.now.get()
    }

    /// The thread's time at this moment, which is now, to the millisecond. Who is waited for is not
    /// given up a tick too early.
    pub fn time_at(&self, at: Instant) -> Millis {
        let since = at.saturating_duration_since(self.last_tick.get());
        millis(self.awake.get() + self.counted(since))
    }

    /// Takes a client in.
    pub fn insert(&self, client: Client) -> Rc<Client> {
        let client = Rc::new(client);
        let id = self.table.borrow_mut().insert(client.clone());
        client.set_id(id);
        client.look_soon(&self.shared);
        client
    }

    /// When to ping a new client for the first time, in milliseconds from now.
    pub fn first_ping(&self) -> Millis {
        self.next_fraction_of(self.shared.deadlines.ping_interval)
    }

    /// A moment within `interval`, another at each call: steps of the golden ratio fill it
    /// evenly, however many there are.
    fn next_fraction_of(&self, interval: Millis) -> Millis {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let at = self.spread.get().wrapping_add(STEP);
        self.spread.set(at);
        ((u128::from(at) * u128::from(interval)) >> 64) as Millis
    }

    /// The client with this key, while it is there.
    pub fn get(&self, id: ConnectionId) -> Option<Rc<Client>> {
        self.table.borrow().get(id).cloned()
    }

    /// Takes a client out.
    pub fn remove(&self, id: ConnectionId) -> Option<Rc<Client>> {
        self.table.borrow_mut().remove(id)
    }

    /// Every client that there is now.
    pub fn all(&self) -> Vec<Rc<Client>> {
        self.table.borrow().values().cloned().collect()
    }

    /// Sends something to one client.
    pub fn push(&self, client: &Client, frame: Frame) {
        if client.push(frame, &self.shared) {
            self.mark(client, Urgency::Prompt);
        }
    }

    /// Sends something to the client with this key, if it is still there.
    pub fn push_to(&self, id: ConnectionId, frame: Frame) {
        if let Some(client) = self.table.borrow().get(id) {
            self.push(client, frame);
        }
    }

    /// Sends these to the client with this key, if it is still there, each with its urgency.
    pub fn push_all(&self, id: ConnectionId, frames: impl Iterator<Item = (Frame, Urgency)>) {
        if let Some(client) = self.table.borrow().get(id) {
            for (frame, urgency) in frames {
                self.push_with(client, frame, urgency);
            }
        }
    }

    fn push_with(&self, client: &Client, frame: Frame, urgency: Urgency) {
        if !client.push(frame, &self.shared) {
            return;
        }
        if urgency != Urgency::Coalesced || client.is_half_full(&self.shared) {
            // A full one is flushed where it is pushed to, and many may be at once.
            self.mark(client, urgency);
        } else if client.enter_crowd() {
            self.crowd.wait(client.id(), self.now());
        }
    }

    /// Has a client's connection end: now, or in a later turn where very many end.
    pub fn request_end(&self, client: &Client) {
        if self.ends.enter(client.id()) {
            client.allow_end();
        }
    }

    /// Resumes clients that had paused for their room.
    pub fn resume(&self, paused: &[ConnectionId]) {
        let table = self.table.borrow();
        for client in paused.iter().filter_map(|id| table.get(*id)) {
            client.resume();
        }
    }

    /// Answers one client's request; `err` is the answer's, where it is not 0.
    pub fn answer(
        &self,
        client: &Client,
        method: Option<Method>,
        err: Option<ErrorCode>,
        frame: Frame,
    ) {
        self.shared.stats.answered(method, err);
        self.push(client, frame);
    }

    /// Pings a client, if that is nearly due. One whose socket is full is pinged when it is no longer:
    /// pings would only fill its queue.
    fn ping(&self, client: &Client) {
        if !client.is_stuck() && client.take_ping(&self.shared) {
            self.push(client, Frame::Own(frame::ping()));
        }
    }

    /// How many clients of the bulk queue have been flushed so far.
    pub fn flushed_in_bulk(&self) -> usize {
        self.dirty.borrow().popped_bulk()
    }

    /// Whether no client of the bulk queue is to be flushed.
    pub fn is_bulk_flushed(&self) -> bool {
        self.dirty.borrow().is_bulk_empty()
    }

    /// Has a client flushed.
    pub fn mark(&self, client: &Client, urgency: Urgency) {
        if client.schedule_flush(urgency)
            && self.dirty.borrow_mut().push(client.id(), urgency)
            && let Some(flusher) = &*self.flusher.borrow()
        {
            flusher.wake_by_ref();
        }
    }

    /// Flushes the clients on the list, up to the budget. `true`: there are more.
    fn flush_some(&self) -> bool {
        let mut bytes = 0;
        for n in 0..FLUSH_BUDGET {
            if bytes >= FLUSH_BYTES {
                break;
            }
            if n % TOUCHED_TOGETHER == 0 {
                self.touch_next();
            }
            let Some(id) = self.dirty.borrow_mut().pop(n) else {
                break;
            };
            if let Some(client) = self.table.borrow().get(id) {
                // While it is on the list, or it would be put there again.
                self.ping(client);
                if client.take_flush() && !client.is_stuck() && client.phase() != Phase::Lost {
                    bytes += client.flush_part(PART_BYTES, &self.shared);
                    let has_more = !client.is_flushed() && !client.is_stuck();
                    if has_more
                        && client.phase() != Phase::Lost
                        && client.schedule_flush(Urgency::Bulk)
                    {
                        self.dirty.borrow_mut().push(id, Urgency::Bulk);
                    }
                }
            }
        }
        !self.dirty.borrow().is_empty()
    }

    /// Touches what the next few flushes begin with. It lies in memory that has gone cold, and a
    /// processor waits for several such places at once where nothing else stands between them.
    fn touch_next(&self) {
        let table = self.table.borrow();
        let dirty = self.dirty.borrow();
        for client in dirty.next(TOUCHED_TOGETHER) {
            black_box(table.get(client).and_then(|client| client.first_event()));
        }
    }

    /// Who is in which room.
    fn by_room(&self) -> BTreeMap<RoomId, Vec<ConnectionId>> {
        let mut rooms: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, client) in &*self.table.borrow() {
            if let Some(room) = client.room() {
                rooms.entry(room).or_default().push(id);
            }
        }
        rooms
    }

    /// Says goodbye to the members of a room.
    fn dismiss_these(&self, members: &[ConnectionId]) {
        for client in members.iter().filter_map(|id| self.get(*id)) {
            self.dismiss(&client);
        }
    }

    /// Says goodbye to those who are in no room.
    fn dismiss_outsiders(&self) {
        for client in self.all() {
            if client.room().is_none() {
                self.dismiss(&client);
            }
        }
    }

    /// Says goodbye to one client: the server goes down.
    pub fn dismiss(&self, client: &Client) {
        client.dismiss(self.next_fraction_of(RETURN_SPREAD), &self.shared);
    }

    fn tick(&self, late: Duration) {
        self.shared.stats.worker_turn.observe(late);
        let now = self.time_awake();
        self.shared.now.set(now);
        self.crowd.tick();
        while let Some(id) = self.crowd.take_due(now) {
            if let Some(client) = self.table.borrow().get(id)
                && client.leave_crowd()
            {
                self.mark(client, Urgency::Coalesced);
            }
        }
        while let Some((at, id)) = self.shared.alarms.take_due(now) {
            let Some(client) = self.get(id).filter(|client| client.take_alarm(at)) else {
                continue;
            };
            match client.due(&self.shared) {
                None => {}
                Some(Due::Ping) => {
                    self.ping(&client);
                }
                Some(Due::NotJoined) => {
                    client.log_join_timeout();
                    let reason = "no channel.join within join_timeout";
                    client.close(Ending::NotJoined, reason, &self.shared);
                }
                Some(Due::Cut(ending)) => client.cut(ending),
            }
            client.look_again(&self.shared);
        }
    }

    /// The time in which this thread was awake. While the process stood still (a frozen machine, a
    /// migration, a debugger) nobody was heard, and it was nobody's fault: what the clients said
    /// waits in their sockets.
    fn time_awake(&self) -> Millis {
        let now = Instant::now();
        let since = now.duration_since(self.last_tick.replace(now));
        let awake = self.awake.get() + self.counted(since);
        self.awake.set(awake);
        millis(awake)
    }

    /// So much of the time since the last tick counts.
    fn counted(&self, since: Duration) -> Duration {
        since.min(Duration::from_millis(self.exactness * 3))
    }

    /// How often deadlines are looked up. More often than exactness asks for: all who are pinged at
    /// one tick are written to in one turn, and others wait for that.
    fn tick_interval(&self) -> Duration {
        Duration::from_millis(self.exactness.min(25))
    }
}

/// How late a deadline may be found out, in milliseconds: some ten per cent of the shortest of those
/// that are set at the start.
fn exactness(settings: &Settings) -> Millis {
    let session = &settings.session;
    let deadlines = [
        session.join_timeout,
        session.ping_interval,
        session.idle_timeout,
        session.send_timeout,
        settings.rooms.resume_window,
    ];
    let set = deadlines.into_iter().filter(|deadline| !deadline.is_zero());
    let shortest = set.min().map_or(Millis::MAX, millis);
    (shortest / 10).clamp(5, 250)
}

async fn flush_for_ever(clients: Rc<Clients>) {
    let _vital = Vital("the flusher");
    loop {
        poll_fn(|cx| {
            let mut flusher = clients.flusher.borrow_mut();
            if flusher.as_ref().is_none_or(|w| !w.will_wake(cx.waker())) {
                *flusher = Some(cx.waker().clone());
            }
            if clients.dirty.borrow().is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        while clients.flush_some() {
            // Not merely to the back of the queue: behind whatever the network has brought.
            tokio::task::yield_now().await;
        }
    }
}

async fn tick_for_ever(clients: Rc<Clients>) {
    let _vital = Vital("the ticker");
    let mut ticks = tokio::time::interval(clients.tick_interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = ticks.tick().await;
        clients.tick(due.elapsed());
    }
}

#[cfg(test)]
mod tests;

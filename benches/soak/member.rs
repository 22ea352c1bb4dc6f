//! A member over all the connections and sessions that it has in turn: how it joins, asks, reads,
//! is lost, and comes back.

use std::{
    future::pending,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, sleep_until, timeout};

use super::{
    ears::{Answer, Ears, Heard},
    room::{How, Room},
    wire::{
        connection::{Connection, Received, Route},
        message::{Join, Joined, request},
        random::Random,
    },
    world::{CLOCK, RESUME_EVENTS, RESUME_WINDOW, World},
};

/// How long an answer may take. Long, since machines are busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The server closed it with this code.
    Closed(u16),
    /// It has ended without a word.
    Cut,
}

/// See the module's text.
pub(crate) struct Member {
    pub(crate) world: Rc<World>,
    pub(crate) random: Random,
    pub(crate) ears: Ears,
    /// Whether it understands event numbers.
    pub(crate) numbered: bool,
    /// Where it is, or wants to be.
    pub(crate) channel: String,
    connection: Option<Connection>,
    /// The number of its last request.
    cseq: u64,
    /// The number of its last request in this session that was answered otherwise than 429.
    answered: u64,
    /// When it last heard something.
    heard_at: Instant,
    /// When it stopped to be what the server expects of one who is there.
    lost_since: Option<Instant>,
    /// Whether it is its own doing if the connection ends.
    pub(crate) provokes: bool,
}

impl Member {
    pub(crate) fn new(world: Rc<World>, endpoint: String, random: Random, numbered: bool) -> Self {
        Self {
            world,
            random,
            ears: Ears::new(endpoint),
            numbered,
            channel: String::new(),
            connection: None,
            cseq: 0,
            answered: 0,
            heard_at: Instant::now(),
            lost_since: None,
            provokes: false,
        }
    }

    fn name(&self) -> String {
        format!("{} in {}", self.ears.endpoint, self.channel)
    }

    /// What must not happen has happened.
    pub(crate) fn misbehaved(&self, what: &str) {
        self.world.figures.misbehaved(&self.name(), what);
    }

    /// What only lateness excuses has happened.
    pub(crate) fn doubtful(&self, what: &str) {
        self.world.figures.doubtful(&self.name(), what);
    }

    // ----- its connection -----

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// A new connection. It is tried again where there is none to be had: the machine may be busy.
    pub(crate) async fn connect(&self, route: Route) -> Connection {
        loop {
            match timeout(PATIENCE, Connection::open(route)).await {
                Ok(Ok(connection)) => return connection,
                Ok(Err(error)) => self.no_connection(&error),
                Err(_) => self.no_connection(&io::ErrorKind::TimedOut.into()),
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    fn no_connection(&self, error: &io::Error) {
        self.world.figures.refused_connections.add(1);
        self.doubtful(&format!("no connection: {error}"));
    }

    /// Its connection, which is its no more: to end it in some way. From now on it is lost.
    pub(crate) fn take_connection(&mut self) -> Option<Connection> {
        self.ears.deafen();
        self.lost_since.get_or_insert_with(Instant::now);
        self.connection.take()
    }

    /// Its connection, which it will not look after as the server expects.
    pub(crate) fn neglect(&mut self) -> Option<&mut Connection> {
        self.lost_since.get_or_insert_with(Instant::now);
        self.provokes = true;
        self.ears.deafen();
        self.connection.as_mut()
    }

    /// It looks after its connection again.
    pub(crate) fn look_after(&mut self) {
        self.ears.listen();
        if self.connection.is_some() {
            self.lost_since = None;
            self.provokes = false;
        }
    }

    /// Its connection has ended: what that means for its session.
    pub(crate) fn lost(&mut self, lost: Lost) {
        let provoked = std::mem::take(&mut self.provokes);
        self.connection = None;
        // It may have been lost, and not noticed that, since then.
        self.lost_since.get_or_insert(self.heard_at);
        let figures = &self.world.figures;
        match lost {
            Lost::Cut => figures.cut.add(1),
            Lost::Closed(code) => figures.closes.add(code),
        }
        if !provoked {
            self.doubtful(&format!(
                "it is lost for no reason: {lost:?}, {:?} after it last heard something",
                self.heard_at.elapsed()
            ));
        }
        match lost {
            // It is waited for.
            Lost::Cut | Lost::Closed(4002) => {}
            Lost::Closed(4001) => self.session_is_over(How::Left),
            Lost::Closed(1000 | 1002 | 1003 | 1007 | 1008 | 1009) => {
                self.session_is_over(How::Cut);
            }
            Lost::Closed(code) => {
                self.misbehaved(&format!("it is closed with {code}"));
                self.session_is_over(How::Cut);
            }
        }
    }

    /// Its session is over.
    pub(crate) fn session_is_over(&mut self, how: How) {
        self.ears.session.clear();
        self.lost_since = None;
        if let Some((room, life)) = self.ears.room.as_ref().zip(self.ears.life.take()) {
            room.is_over(&self.ears.endpoint, life, how);
        }
    }

    // ----- joining -----

    /// Goes on with its session where it has one that can be gone on with, or else joins anew.
    pub(crate) async fn come_back(&mut self) {
        // Meanwhile it does not read from the one that it may have.
        self.neglect();
        let connection = self.connect(self.world.route()).await;
        self.come_back_over(connection).await;
    }

    /// The same over this connection. Its old one, if it has one still, is nobody's any more.
    pub(crate) async fn come_back_over(&mut self, connection: Connection) {
        self.ears.deafen();
        let old = self.connection.replace(connection);
        if let Some(old) = old {
            self.world.bury(old);
        }
        self.provokes = false;
        self.heard_at = Instant::now();
        let session = if self.numbered {
            self.ears.session.clone()
        } else {
            String::new()
        };
        if let Err(lost) = self.join_naming(&session).await {
            self.lost(lost);
        }
    }

    /// Joins a room on its present connection, anew.
    pub(crate) async fn enter(&mut self, room: Option<Rc<Room>>, name: &str) -> Result<(), Lost> {
        self.ears.room = room;
        name.clone_into(&mut self.channel);
        self.join_naming("").await
    }

    /// Says where it will join next.
    pub(crate) fn wants(&mut self, room: &Rc<Room>) {
        self.channel.clone_from(&room.channel);
        self.ears.room = Some(room.clone());
    }

    fn known(&self) -> u64 {
        let life = self.ears.life.as_ref().map(|life| life.read());
        let observed = || {
            let room = self.ears.room.as_ref()?;
            room.ledger.borrow().as_ref().map(|ledger| ledger.last())
        };
        life.or_else(observed).unwrap_or(0)
    }

    async fn join_naming(&mut self, session: &str) -> Result<(), Lost> {
        let asked = self.join_request(session);
        self.ears.session = session.to_owned();
        if !session.is_empty() {
            self.world.figures.resumes_asked.add(1);
        }
        let cseq = self.cseq;
        self.send(&asked);
        self.joined(session, cseq).await
    }

    /// A join, as it would be asked now.
    pub(crate) fn join_request(&mut self, session: &str) -> String {
        let known = if session.is_empty() { 0 } else { self.known() };
        self.cseq += 1;
        let join = Join {
            channel: &self.channel,
            endpoint: &self.ears.endpoint,
            session,
            last_event: self.numbered.then_some(known),
        };
        join.request(self.cseq)
    }

    /// Waits for the answer to a join.
    pub(crate) async fn joined(&mut self, session: &str, cseq: u64) -> Result<(), Lost> {
        self.ears.joining = true;
        let answer = self.answer(cseq, "channel.join").await;
        self.ears.joining = false;
        let answer = answer?;
        let joined: Joined = match serde_json::from_str(&answer.data) {
            Ok(joined) if answer.err == 0 => joined,
            _ => {
                self.misbehaved(&format!("its join is answered {answer:?}"));
                return Err(Lost::Cut);
            }
        };
        if joined.resumed {
            self.resumed(session, &joined);
        } else {
            if !session.is_empty() {
                self.not_resumed(&joined);
            }
            self.begins(cseq, joined);
        }
        self.look_after();
        Ok(())
    }

    fn resumed(&mut self, session: &str, joined: &Joined) {
        self.world.figures.resumed.add(1);
        self.ears.replayed_up_to = joined.last_event;
        let last_cseq = joined.last_cseq.unwrap_or(0);
        if session.is_empty() || joined.session != session {
            self.misbehaved(&format!(
                "it goes on with a session not its own: {joined:?}"
            ));
        }
        if !(self.answered..=self.cseq).contains(&last_cseq) {
            let (answered, asked) = (self.answered, self.cseq);
            self.misbehaved(&format!(
                "its last request is said to be {last_cseq}; {answered} was answered, {asked} asked"
            ));
        }
    }

    /// It named a session and could not go on with it. There must be a reason.
    fn not_resumed(&mut self, joined: &Joined) {
        let figures = &self.world.figures;
        let away = self.lost_since.map(|since| since.elapsed());
        // The numbers that it may have missed, if it still is the same room.
        let missed = joined.last_event.saturating_sub(self.known());
        if away.is_some_and(|away| away + CLOCK >= RESUME_WINDOW) {
            figures.too_late.add(1);
        } else if missed > RESUME_EVENTS {
            figures.overrun.add(1);
        } else {
            self.doubtful(&format!(
                "it may not go on, after {away:?} and {missed} events"
            ));
        }
        self.session_is_over(How::Cut);
    }

    fn begins(&mut self, cseq: u64, joined: Joined) {
        self.world.figures.joins.add(1);
        // A session that it had before has ended by this join.
        if let Some((room, life)) = self.ears.room.as_ref().zip(self.ears.life.take()) {
            room.is_over(&self.ears.endpoint, life, How::Cut);
        }
        self.ears.session = joined.session;
        self.ears.replayed_up_to = 0;
        self.answered = cseq;
        if let Some(room) = &self.ears.room
            && let Some(ledger) = &mut *room.ledger.borrow_mut()
        {
            let life = ledger.begin(&self.ears.endpoint, joined.last_event, self.numbered);
            self.ears.life = Some(life);
        }
    }

    /// The first to join a room, that will see all that happens there.
    pub(crate) async fn observe(&mut self, room: &Rc<Room>) -> Result<(), Lost> {
        self.wants(room);
        self.connection = Some(self.connect(self.world.route()).await);
        self.join_naming("").await?;
        // It is the first: its own join is the room's first event.
        let ledger = super::ledger::Ledger::new(1);
        *room.ledger.borrow_mut() = Some(ledger);
        Ok(())
    }

    // ----- asking -----

    pub(crate) fn send(&mut self, text: &str) {
        if let Some(connection) = &mut self.connection {
            connection.send(text);
        }
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        if let Some(connection) = &mut self.connection {
            connection.send_bytes(bytes);
        }
    }

    /// The next request.
    pub(crate) fn request(&mut self, method: &str, data: &str) -> String {
        self.cseq += 1;
        request(self.cseq, method, &self.ears.session, data)
    }

    /// The number of its last request.
    pub(crate) fn last_cseq(&self) -> u64 {
        self.cseq
    }

    /// Sends a request; its number.
    pub(crate) fn ask(&mut self, method: &str, data: &str) -> u64 {
        let text = self.request(method, data);
        self.send(&text);
        self.cseq
    }

    /// Asks and waits for the answer, which must be one of these.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        data: &str,
        allowed: &[u16],
    ) -> Result<Answer, Lost> {
        let cseq = self.ask(method, data);
        let answer = self.answer(cseq, method).await?;
        if !allowed.contains(&answer.err) {
            self.misbehaved(&format!("{method} is answered {answer:?}"));
        }
        Ok(answer)
    }

    /// Waits for the answer to its request `cseq`.
    pub(crate) async fn answer(&mut self, cseq: u64, method: &str) -> Result<Answer, Lost> {
        let answered = async {
            loop {
                if let Heard::Answer(answer) = self.hear().await?
                    && answer.cseq == cseq
                {
                    return Ok(answer);
                }
            }
        };
        match timeout(PATIENCE, answered).await {
            Ok(answer) => answer,
            Err(_) => {
                self.doubtful(&format!("{method} is not answered in {PATIENCE:?}"));
                Err(Lost::Cut)
            }
        }
    }

    // ----- reading -----

    /// The next thing that it is told.
    pub(crate) async fn hear(&mut self) -> Result<Heard, Lost> {
        loop {
            let Some(connection) = &mut self.connection else {
                return pending().await;
            };
            let received = connection.receive().await;
            if matches!(received, Received::Text(_) | Received::Ping) {
                self.heard_at = Instant::now();
            }
            let heard = match received {
                Received::Text(text) => self.ears.message(text, &self.world),
                Received::Ping => {
                    self.ears.ping(&self.world);
                    continue;
                }
                Received::Close(code) => return Err(Lost::Closed(code)),
                Received::End => return Err(Lost::Cut),
                Received::Nonsense(what) => Err(what),
            };
            match heard {
                Ok(Heard::Answer(answer)) => {
                    // A resume is no request of the session, and these may not have got so far.
                    if !self.ears.joining && !matches!(answer.err, 400 | 404 | 410 | 429) {
                        self.answered = self.answered.max(answer.cseq);
                    }
                    return Ok(Heard::Answer(answer));
                }
                Ok(heard) => return Ok(heard),
                Err(what) => self.misbehaved(&what),
            }
        }
    }

    /// Reads for so long, at most until the round's end.
    pub(crate) async fn listen_for(&mut self, time: Duration) -> Result<(), Lost> {
        let until = sleep_until(self.world.after(time).into());
        tokio::pin!(until);
        loop {
            tokio::select! {
                heard = self.hear() => { heard?; }
                () = &mut until => return Ok(()),
            }
        }
    }

    /// Reads until the connection ends.
    pub(crate) async fn hear_the_end(&mut self) -> Lost {
        let ended = async {
            loop {
                if let Err(lost) = self.hear().await {
                    return lost;
                }
            }
        };
        match timeout(PATIENCE, ended).await {
            Ok(lost) => lost,
            Err(_) => {
                self.doubtful(&format!("its connection does not end in {PATIENCE:?}"));
                Lost::Cut
            }
        }
    }
}

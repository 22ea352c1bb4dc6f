//! When a room begins and ends.
//!
//! A room is made by its first join and gone with its last member. The registry that opens it and
//! the room itself speak by messages, so a join may be on its way while the room says that it is
//! empty. [`meeting_server::registry::directory`] has the rule for that. Here it is held against
//!
//! - a model of the actors, in *every* order in which their messages can arrive, and
//! - a real server, hammered over real sockets.

mod common;

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::LazyLock,
    thread,
    time::Instant,
};

use common::{Client, PATIENCE, Server};
use meeting_server::{
    ids::{App, Channel, RoomId, RoomName},
    registry::directory::Directory,
};
use serde_json::{Value, json};

// ---------------------------------------------------------------- every order of the messages

/// Nothing is lost, left over or doubled with the rules of the product, in a world of this size.
fn holds_in_every_order(size: Size) {
    if let Err(found) = explore(size, Rules::Real) {
        panic!("{found}");
    }
}

#[test]
fn three_clients_that_come_leave_and_come_back_share_one_room() {
    holds_in_every_order(Size {
        clients: 3,
        rounds: 2,
        ..SMALL
    });
}

#[test]
fn connections_may_be_lost_at_any_time() {
    holds_in_every_order(Size {
        rounds: 2,
        losses: 2,
        ..SMALL
    });
    holds_in_every_order(Size {
        clients: 3,
        losses: 3,
        ..SMALL
    });
}

#[test]
fn rooms_of_two_names_do_not_mix() {
    holds_in_every_order(Size {
        rounds: 2,
        names: 2,
        ..SMALL
    });
    holds_in_every_order(Size {
        clients: 3,
        names: 2,
        losses: 1,
        ..SMALL
    });
}

#[test]
fn rooms_may_fail_at_any_message() {
    holds_in_every_order(Size {
        rounds: 2,
        losses: 1,
        failures: 2,
        ..SMALL
    });
    holds_in_every_order(Size {
        names: 2,
        rounds: 2,
        failures: 1,
        ..SMALL
    });
}

/// The search does find what is wrong where a rule is.
fn is_found_out(rules: Rules, wrong: Wrong) {
    let size = Size {
        rounds: 2,
        losses: 1,
        failures: 1,
        ..SMALL
    };
    let found = explore(size, rules).expect_err("a wrong rule shows");
    assert_eq!(found.wrong, wrong, "{found}");
}

#[test]
fn a_registry_that_ends_a_room_without_counting_joins_is_found_out() {
    is_found_out(Rules::EndOnAnyReport, Wrong::JoinInAnOldRoom);
}

#[test]
fn a_room_that_does_not_report_after_the_join_of_a_lost_connection_is_found_out() {
    is_found_out(Rules::ReportOnlyAtAnEnd, Wrong::EmptyRoomStays);
}

#[test]
fn a_room_that_fails_in_silence_is_found_out() {
    is_found_out(Rules::FailInSilence, Wrong::EmptyRoomStays);
}

/// How large the world is that is explored.
#[derive(Clone, Copy)]
struct Size {
    clients: usize,
    /// How often each client joins.
    rounds: usize,
    /// How many room names there are to choose from at each join.
    names: usize,
    /// How many connections may be lost.
    losses: usize,
    /// How many rooms may fail.
    failures: usize,
}

const SMALL: Size = Size {
    clients: 2,
    rounds: 1,
    names: 1,
    losses: 0,
    failures: 0,
};

/// By which rules the actors go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// The product's.
    Real,
    /// Wrong: the registry ends a room on its word, whatever is on its way to it.
    EndOnAnyReport,
    /// Wrong: a room reports only when a member goes.
    ReportOnlyAtAnEnd,
    /// Wrong: nobody tells the registry of a room that died.
    FailInSilence,
}

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// A join arrived in a room that is not the one of its name any more.
    JoinInAnOldRoom,
    /// Somebody is in a room that nobody can find by its name.
    MemberNobodyCanFind,
    /// Two rooms of one name have members.
    SplitRoom,
    /// A member's request found no room.
    RequestLost,
    /// Nothing is under way, and somebody waits for an answer.
    NeverAnswered,
    /// Nothing is under way, and a room is there without members.
    EmptyRoomStays,
}

// ----- the search -----

/// What was found wrong, and how it came about.
struct Found {
    wrong: Wrong,
    /// The last one first.
    moves: Vec<Move>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} after", self.wrong)?;
        let mut moves = self.moves.iter().rev();
        moves.try_for_each(|step| writeln!(f, "  {step:?}"))
    }
}

impl From<Wrong> for Found {
    fn from(wrong: Wrong) -> Self {
        Self {
            wrong,
            moves: Vec::new(),
        }
    }
}

/// Goes through every state to which any order of moves leads, depth first.
fn explore(size: Size, rules: Rules) -> Result<(), Found> {
    explore_from(&World::new(size, rules), &mut HashSet::new())
}

fn explore_from(world: &World, seen: &mut HashSet<State>) -> Result<(), Found> {
    if seen.contains(&world.state) {
        return Ok(());
    }
    seen.insert(world.state.clone());
    world.check()?;
    for step in world.moves() {
        let mut after = world.clone();
        let found = after
            .make(step)
            .map_err(Found::from)
            .and_then(|()| explore_from(&after, seen));
        if let Err(mut found) = found {
            found.moves.push(step);
            return Err(found);
        }
    }
    Ok(())
}

// ----- the real directory -----

/// The real directory. It can be copied because all that was ever written into it is known.
#[derive(Default)]
struct Book {
    directory: Directory<usize>,
    /// Under which key it keeps each room that was ever opened, in the order of their opening.
    ids: Vec<RoomId>,
    log: Vec<Entry>,
}

#[derive(Clone, Copy)]
enum Entry {
    /// A join for a name.
    Join(usize),
    /// A room's report after so many joins.
    Emptied(usize, u64),
    /// The end of a room, whatever is on its way to it.
    Removed(usize),
}

impl Clone for Book {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        for entry in &self.log {
            copy.write(*entry);
        }
        copy
    }
}

impl Book {
    /// For a join: the room to which it goes.
    fn write(&mut self, entry: Entry) -> Option<usize> {
        self.log.push(entry);
        match entry {
            Entry::Join(name) => {
                let ids = &mut self.ids;
                let room = self.directory.join(room_name(name), |id, _| {
                    ids.push(id);
                    Some(ids.len() - 1)
                });
                return room.copied();
            }
            Entry::Emptied(room, joins) => {
                self.directory.emptied(self.ids[room], joins);
            }
            Entry::Removed(room) => self.directory.remove(self.ids[room]),
        }
        None
    }

    fn has(&self, room: usize) -> bool {
        self.directory.room(self.ids[room]) == Some(&room)
    }

    /// The room that the next join for this name would find. Only a join can tell, so a copy is
    /// asked.
    fn find(&self, name: usize) -> Option<usize> {
        let room = self.clone().write(Entry::Join(name));
        room.filter(|room| *room < self.ids.len())
    }
}

fn room_name(name: usize) -> RoomName {
    static NAMES: LazyLock<[RoomName; 2]> = LazyLock::new(|| {
        ["hall", "attic"].map(|channel| RoomName {
            app: App::new("test").expect("an app"),
            channel: Channel::new(channel).expect("a channel"),
        })
    });
    NAMES[name].clone()
}

// ----- the world -----
//
// Who speaks to whom; each box on the right of an arrow has one mailbox, first in, first out:
//
//     clients, rooms ──> registry ──> each room
//
// A room gives a client its answer directly, without a mailbox, as the real one does.

/// The clients, the registry and all rooms that ever were, between two moves.
#[derive(Clone)]
struct World {
    rules: Rules,
    size: Size,
    book: Rc<Book>,
    state: State,
}

/// All on which the future depends: of the directory, the rooms that it has and finds, and how
/// many joins it sent to each.
#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    clients: Vec<(Guest, Stand)>,
    registry: VecDeque<ToRegistry>,
    rooms: Vec<Room>,
    /// The room that the directory finds for each name.
    found: Vec<Option<usize>>,
    losses: usize,
    failures: usize,
}

/// A client in one of its rounds: a round is one join, then a leave or a loss. So this names a
/// member, too.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Guest {
    client: usize,
    round: usize,
}

/// Where a client stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Stand {
    /// In no room, with no request under way.
    Outside,
    /// Its join has no answer yet.
    Joining,
    /// In a room.
    In(usize),
    /// In a room, and its leave has no answer yet.
    Leaving(usize),
}

/// A room: counts the joins it has seen, and reports whenever it is empty after a message.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Room {
    name: usize,
    mailbox: VecDeque<ToRoom>,
    members: Vec<Guest>,
    /// Joins seen.
    joins: u64,
    /// Joins sent to it.
    sent: u64,
    failed: bool,
    /// Whether the directory has it.
    listed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum ToRegistry {
    /// A join for a name.
    Join(Guest, usize),
    Leave(Guest, usize),
    SessionEnded(Guest, usize),
    /// A room's report after so many joins.
    Emptied(usize, u64),
    Failed(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum ToRoom {
    Join(Guest),
    Leave(Guest),
    SessionEnded(Guest),
}

/// One thing that happens. Clients, names and rooms are numbers.
#[derive(Clone, Copy, Debug)]
enum Move {
    AskToJoin {
        client: usize,
        name: usize,
    },
    AskToLeave {
        client: usize,
    },
    /// A client's connection is lost; it comes back with another.
    Lose {
        client: usize,
    },
    /// The registry takes its next message.
    RegistryActs,
    /// A room takes its next message.
    RoomActs {
        room: usize,
    },
    /// A room takes its next message and dies of it.
    RoomFails {
        room: usize,
    },
}

impl World {
    fn new(size: Size, rules: Rules) -> Self {
        let newcomer = |client| (Guest { client, round: 0 }, Stand::Outside);
        Self {
            rules,
            size,
            book: Rc::default(),
            state: State {
                clients: (0..size.clients).map(newcomer).collect(),
                registry: VecDeque::new(),
                rooms: Vec::new(),
                found: vec![None; size.names],
                losses: 0,
                failures: 0,
            },
        }
    }

    /// All that can happen next.
    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for &(Guest { client, round }, stand) in &self.state.clients {
            match stand {
                Stand::Outside if round < self.size.rounds => {
                    let names = 0..self.size.names;
                    moves.extend(names.map(|name| Move::AskToJoin { client, name }));
                }
                Stand::In(_) => moves.push(Move::AskToLeave { client }),
                _ => {}
            }
            if stand != Stand::Outside && self.state.losses < self.size.losses {
                moves.push(Move::Lose { client });
            }
            // Clients are all alike, so it is enough to let them come for the first time in the
            // order of their numbers.
            if stand == Stand::Outside && round == 0 {
                break;
            }
        }
        if !self.state.registry.is_empty() {
            moves.push(Move::RegistryActs);
        }
        for (room, state) in self.state.rooms.iter().enumerate() {
            if !state.mailbox.is_empty() {
                moves.push(Move::RoomActs { room });
                if self.state.failures < self.size.failures {
                    moves.push(Move::RoomFails { room });
                }
            }
        }
        moves
    }

    fn make(&mut self, step: Move) -> Result<(), Wrong> {
        match step {
            Move::AskToJoin { client, name } => self.ask_to_join(client, name),
            Move::AskToLeave { client } => self.ask_to_leave(client),
            Move::Lose { client } => self.lose(client),
            Move::RegistryActs => return self.registry_acts(),
            Move::RoomActs { room } => return self.room_acts(room),
            Move::RoomFails { room } => self.room_fails(room),
        }
        Ok(())
    }

    // ----- clients -----

    fn ask_to_join(&mut self, client: usize, name: usize) {
        let (guest, stand) = &mut self.state.clients[client];
        *stand = Stand::Joining;
        let join = ToRegistry::Join(*guest, name);
        self.state.registry.push_back(join);
    }

    fn ask_to_leave(&mut self, client: usize) {
        let (guest, stand) = &mut self.state.clients[client];
        if let Stand::In(room) = *stand {
            *stand = Stand::Leaving(room);
            let leave = ToRegistry::Leave(*guest, room);
            self.state.registry.push_back(leave);
        }
    }

    /// The guard of one who is in a room tells the registry; before the join is answered there
    /// is no guard.
    fn lose(&mut self, client: usize) {
        self.state.losses += 1;
        let (guest, stand) = self.state.clients[client];
        if let Stand::In(room) | Stand::Leaving(room) = stand {
            let ended = ToRegistry::SessionEnded(guest, room);
            self.state.registry.push_back(ended);
        }
        self.go_out(guest);
    }

    /// The guest's round is over, if it is not over already.
    fn go_out(&mut self, guest: Guest) {
        if self.is_current(guest) {
            let (present, stand) = &mut self.state.clients[guest.client];
            present.round += 1;
            *stand = Stand::Outside;
        }
    }

    /// Whether the connection that asked is still there and still in that round.
    fn is_current(&self, guest: Guest) -> bool {
        self.state.clients[guest.client].0 == guest
    }

    // ----- the registry -----

    fn registry_acts(&mut self) -> Result<(), Wrong> {
        match self.state.registry.pop_front() {
            Some(ToRegistry::Join(guest, name)) => self.route_join(guest, name),
            Some(ToRegistry::Leave(guest, room)) => {
                if self.book.has(room) {
                    self.send(room, ToRoom::Leave(guest));
                } else if self.is_current(guest) {
                    return Err(Wrong::RequestLost);
                }
            }
            Some(ToRegistry::SessionEnded(guest, room)) if self.book.has(room) => {
                self.send(room, ToRoom::SessionEnded(guest));
            }
            Some(ToRegistry::SessionEnded(..)) | None => {}
            Some(ToRegistry::Emptied(room, joins)) => {
                self.write(match self.rules {
                    Rules::EndOnAnyReport => Entry::Removed(room),
                    _ => Entry::Emptied(room, joins),
                });
            }
            Some(ToRegistry::Failed(room)) => {
                self.write(Entry::Removed(room));
            }
        }
        Ok(())
    }

    fn route_join(&mut self, guest: Guest, name: usize) {
        if let Some(room) = self.write(Entry::Join(name)) {
            self.state.rooms[room].sent += 1;
            self.send(room, ToRoom::Join(guest));
        }
    }

    /// Writes into the directory and notes what it has and finds from then on.
    fn write(&mut self, entry: Entry) -> Option<usize> {
        let mut book = Book::clone(&self.book);
        let room = book.write(entry);
        if let Entry::Join(name) = entry
            && book.ids.len() > self.state.rooms.len()
        {
            self.state.rooms.push(Room::new(name));
        }
        for (room, state) in self.state.rooms.iter_mut().enumerate() {
            state.listed = book.has(room);
        }
        for (name, found) in self.state.found.iter_mut().enumerate() {
            *found = book.find(name);
        }
        self.book = Rc::new(book);
        room
    }

    fn send(&mut self, room: usize, message: ToRoom) {
        if self.state.rooms[room].failed {
            return self.drop_message(message);
        }
        self.state.rooms[room].mailbox.push_back(message);
    }

    /// What a dead room does not take any more. A request is thereby answered: refused.
    fn drop_message(&mut self, message: ToRoom) {
        if let ToRoom::Join(guest) | ToRoom::Leave(guest) = message {
            self.go_out(guest);
        }
    }

    // ----- a room -----

    fn room_acts(&mut self, room: usize) -> Result<(), Wrong> {
        let Some(message) = self.state.rooms[room].mailbox.pop_front() else {
            return Ok(());
        };
        match message {
            ToRoom::Join(guest) => self.take_in(room, guest)?,
            ToRoom::Leave(guest) => {
                self.take_out(room, guest);
                self.go_out(guest);
            }
            ToRoom::SessionEnded(guest) => self.take_out(room, guest),
        }
        let is_join = matches!(message, ToRoom::Join(_));
        if !(is_join && self.rules == Rules::ReportOnlyAtAnEnd) {
            self.report_if_empty(room);
        }
        Ok(())
    }

    fn take_in(&mut self, room: usize, guest: Guest) -> Result<(), Wrong> {
        let alive = self.is_current(guest);
        let state = &mut self.state.rooms[room];
        if self.state.found[state.name] != Some(room) {
            return Err(Wrong::JoinInAnOldRoom);
        }
        state.joins += 1;
        if alive {
            state.members.push(guest);
            self.state.clients[guest.client].1 = Stand::In(room);
        }
        Ok(())
    }

    fn take_out(&mut self, room: usize, guest: Guest) {
        self.state.rooms[room].members.retain(|m| *m != guest);
    }

    fn report_if_empty(&mut self, room: usize) {
        let state = &self.state.rooms[room];
        if state.members.is_empty() {
            let report = ToRegistry::Emptied(room, state.joins);
            self.state.registry.push_back(report);
        }
    }

    /// All who are in it are put out, all that waits for it is dropped, the registry is told.
    fn room_fails(&mut self, room: usize) {
        self.state.failures += 1;
        let state = &mut self.state.rooms[room];
        state.failed = true;
        let members = std::mem::take(&mut state.members);
        let mailbox = std::mem::take(&mut state.mailbox);
        for member in members {
            self.go_out(member);
        }
        for message in mailbox {
            self.drop_message(message);
        }
        if self.rules != Rules::FailInSilence {
            self.state.registry.push_back(ToRegistry::Failed(room));
        }
    }

    // ----- what must hold in every state -----

    fn check(&self) -> Result<(), Wrong> {
        for name in 0..self.size.names {
            self.members_are_in_the_room_that_is_found(name)?;
        }
        if self.is_quiet() {
            self.all_are_answered()?;
            self.only_rooms_with_members_are_there()?;
        }
        Ok(())
    }

    fn members_are_in_the_room_that_is_found(&self, name: usize) -> Result<(), Wrong> {
        let rooms = self.state.rooms.iter().enumerate();
        let mut inhabited = rooms.filter(|(_, r)| r.name == name && !r.members.is_empty());
        let Some((room, state)) = inhabited.next() else {
            return Ok(());
        };
        if inhabited.next().is_some() {
            return Err(Wrong::SplitRoom);
        }
        if !state.listed || self.state.found[name] != Some(room) {
            return Err(Wrong::MemberNobodyCanFind);
        }
        Ok(())
    }

    /// No message is on its way.
    fn is_quiet(&self) -> bool {
        let mut rooms = self.state.rooms.iter();
        self.state.registry.is_empty() && rooms.all(|room| room.mailbox.is_empty())
    }

    fn all_are_answered(&self) -> Result<(), Wrong> {
        let waits = |stand| matches!(stand, Stand::Joining | Stand::Leaving(_));
        if self.state.clients.iter().any(|(_, stand)| waits(*stand)) {
            return Err(Wrong::NeverAnswered);
        }
        Ok(())
    }

    fn only_rooms_with_members_are_there(&self) -> Result<(), Wrong> {
        let rooms = self.state.rooms.iter();
        let inhabited = rooms.filter(|room| !room.members.is_empty()).count();
        if self.book.directory.count() != inhabited {
            return Err(Wrong::EmptyRoomStays);
        }
        Ok(())
    }
}

impl Room {
    fn new(name: usize) -> Self {
        Self {
            name,
            mailbox: VecDeque::new(),
            members: Vec::new(),
            joins: 0,
            sent: 0,
            failed: false,
            listed: true,
        }
    }
}

// --------------------------------------------------------------------------- over real sockets

const CHANNELS: [&str; 3] = ["hall", "attic", "cellar"];

/// Asks, and takes the answer from among the room's events.
fn call(client: &mut Client, method: &str, data: Value) -> Value {
    let cseq = client.ask(method, data);
    answer_to(client, cseq)
}

/// The `data` of the answer to `cseq`, which must be granted.
fn answer_to(client: &mut Client, cseq: i64) -> Value {
    let answer = loop {
        let message = client.next();
        if message.get("err").is_some() {
            break message;
        }
    };
    assert_eq!(answer["cseq"], cseq, "{answer}");
    assert_eq!(answer["err"], 0, "{answer}");
    answer["data"].clone()
}

fn leave(client: &mut Client) {
    call(client, "channel.leave", json!({}));
}

/// Leaves and joins in one go, without waiting for the first answer.
fn leave_and_join(client: &mut Client, channel: &str, endpoint: &str) -> Value {
    let left = client.ask("channel.leave", json!({}));
    let joined = client.ask("channel.join", join_of(channel, endpoint));
    answer_to(client, left);
    let data = client.answer(joined);
    assert_eq!(data["err"], 0, "{data}");
    let data = data["data"].clone();
    client.session = data["session"].as_str().expect("a session").to_owned();
    data
}

fn join_of(channel: &str, endpoint: &str) -> Value {
    json!({"app": "test", "channel": channel, "endpoint": endpoint})
}

#[test]
fn who_leaves_alone_and_comes_back_finds_a_new_room() {
    let server = Server::without_resume();
    let mut anna = server.join("hall", "anna");
    for _ in 0..10 {
        leave(&mut anna);
        assert_eq!(anna.join("hall", "anna")["last_event"], 1);
        let joined = leave_and_join(&mut anna, "hall", "anna");
        assert_eq!(joined["last_event"], 1);
    }
}

#[test]
fn who_comes_back_while_another_has_stayed_finds_the_old_room() {
    let server = Server::without_resume();
    let mut anna = server.join("hall", "anna");
    let _berta = server.join("hall", "berta");
    leave(&mut anna);
    assert_eq!(anna.join("hall", "anna")["last_event"], 4);
}

#[test]
fn the_same_channel_in_another_app_is_another_room() {
    let server = Server::without_resume();
    let _anna = server.join("hall", "anna");
    let mut berta = server.connect();
    let joined = berta.join_with(json!({"app": "other", "channel": "hall", "endpoint": "berta"}));
    assert_eq!(joined["last_event"], 1);
    assert_eq!(berta.names(), ["berta"]);
}

#[test]
fn every_join_is_answered_and_every_room_ends_under_many_hands() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 150;
    let server = Server::without_resume();
    thread::scope(|scope| {
        for hand in 0..THREADS {
            let addr = server.addr;
            scope.spawn(move || (0..ROUNDS).for_each(|round| come_and_go(addr, hand, round)));
        }
    });
    for channel in CHANNELS {
        is_new_again(&server, channel);
    }
}

/// One connection from its beginning to its end: in one of six ways, in one of three rooms. Each
/// hand goes through them in an order of its own, so that they meet in ever other ways.
fn come_and_go(addr: SocketAddr, hand: usize, round: usize) {
    let channel = |shift: usize| CHANNELS[(round * (hand + 1) + round / 6 + shift) % 3];
    let endpoint = format!("hand-{hand}");
    let mut client = Client::connect(addr);
    match (round + hand) % 6 {
        0 => {
            client.join(channel(0), &endpoint);
        }
        1 => {
            client.join(channel(0), &endpoint);
            leave(&mut client);
            client.join(channel(0), &endpoint);
        }
        2 => {
            client.join(channel(0), &endpoint);
            leave_and_join(&mut client, channel(0), &endpoint);
            leave(&mut client);
        }
        3 => {
            client.join(channel(0), &endpoint);
            leave_and_join(&mut client, channel(1), &endpoint);
            client.close(1000);
        }
        4 => {
            client.join(channel(0), &endpoint);
            client.ask("channel.leave", json!({}));
        }
        _ => {
            // Nobody waits for this one, so it may come after the hand's next join. Of the same
            // endpoint it would then put that out.
            client.ask(
                "channel.join",
                join_of(channel(0), &format!("ghost-{hand}")),
            );
        }
    }
}

/// Sooner or later, for the ends of connections may still be on their way, a newcomer is alone
/// in the room and its join is the first event of it.
fn is_new_again(server: &Server, channel: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut client = server.connect();
    loop {
        let first = client.join(channel, "last")["last_event"] == 1;
        let list = call(&mut client, "channel.dump", json!({}))["endpoint_list"].clone();
        let alone = list.as_array().is_some_and(|list| list.len() == 1);
        if first && alone {
            return;
        }
        assert!(Instant::now() < deadline, "{channel} never ends: {list}");
        leave(&mut client);
    }
}

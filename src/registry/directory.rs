//! Which rooms there are, pure; above all, when one ends.
//!
//! A room and the registry speak by messages, so while a room says "I am empty" a join for it
//! may already be on its way. Neither side alone can tell. Hence the registry counts the joins
//! that it has sent to each room, the room's report carries how many it has seen, and only equal
//! counts end the room: then nothing is under way, and nothing can be, since whoever sends the
//! next join is the one who has just decided.

use std::collections::HashMap;

use slotmap::SlotMap;

use crate::ids::{RoomId, RoomName};

/// The rooms of one worker thread; `R` is how a room is reached.
pub struct Directory<R> {
    names: HashMap<RoomName, RoomId>,
    rooms: SlotMap<RoomId, Entry<R>>,
}

struct Entry<R> {
    name: RoomName,
    room: R,
    /// Joins sent to it.
    joins: u64,
}

/// `open` made no room.
struct Refused;

impl<R> Default for Directory<R> {
    fn default() -> Self {
        Self {
            names: HashMap::new(),
            rooms: SlotMap::with_key(),
        }
    }
}

impl<R> Directory<R> {
    /// The room to which a join for `name` goes. `open` makes it if it is not there; where it
    /// refuses to, there is none.
    pub fn join(
        &mut self,
        name: RoomName,
        open: impl FnOnce(RoomId, &RoomName) -> Option<R>,
    ) -> Option<&R> {
        let id = match self.names.get(&name) {
            Some(id) => *id,
            None => self.open(name, open)?,
        };
        let entry = &mut self.rooms[id];
        entry.joins += 1;
        Some(&entry.room)
    }

    fn open(
        &mut self,
        name: RoomName,
        open: impl FnOnce(RoomId, &RoomName) -> Option<R>,
    ) -> Option<RoomId> {
        let entry = |id| {
            Ok::<_, Refused>(Entry {
                room: open(id, &name).ok_or(Refused)?,
                name: name.clone(),
                joins: 0,
            })
        };
        let id = self.rooms.try_insert_with_key(entry).ok()?;
        self.names.insert(name, id);
        Some(id)
    }

    /// Whether a room of this name is open.
    pub fn is_open(&self, name: &RoomName) -> bool {
        self.names.contains_key(name)
    }

    /// The room with this id, while it is there.
    pub fn room(&self, id: RoomId) -> Option<&R> {
        self.rooms.get(id).map(|entry| &entry.room)
    }

    /// All rooms.
    pub fn rooms(&self) -> impl Iterator<Item = &R> {
        self.rooms.values().map(|entry| &entry.room)
    }

    /// The room reports that it is empty after `joins` joins. `true`: it is gone. `false`: more
    /// are on their way to it.
    pub fn emptied(&mut self, id: RoomId, joins: u64) -> bool {
        if self.rooms.get(id).is_none_or(|entry| entry.joins != joins) {
            return false;
        }
        self.remove(id);
        true
    }

    /// The room is dead, whatever is on its way to it; the next join opens another.
    pub fn remove(&mut self, id: RoomId) {
        if let Some(entry) = self.rooms.remove(id) {
            self.names.remove(&entry.name);
        }
    }

    /// How many rooms there are.
    pub fn count(&self) -> usize {
        debug_assert_eq!(self.names.len(), self.rooms.len());
        self.rooms.len()
    }
}

//! What happened in a room, as its observer saw it, and whether what a member was told is
//! consistent with it. Pure, and tested in `tests/soak_ledger.rs`.
//!
//! The observer joins first, leaves last and causes nothing, so it is sent every event of the
//! room: its numbers have no gap. A member may miss numbers only for what it caused itself and
//! what came before its join. All else that it misses is lost.

use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hasher},
    rc::{Rc, Weak},
};

use serde::Deserialize;
use serde_json::value::RawValue;

/// What is wrong with the order of events, or with one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It was owed this event, and is told a later one.
    Lost(u64),
    /// This number came after one that is as high or higher.
    Disorder(u64),
    /// It is told something else than the observer under this number, or something that it caused
    /// itself.
    Foreign(u64),
    /// What happened cannot have happened then.
    Senseless(u64, String),
    /// Its end was never announced.
    NoEnd,
}

/// What an event says, but for its number and its receiver's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Story {
    /// The same for all who are told the same.
    pub(crate) digest: u64,
    /// The endpoint that it is about, which is that which caused it.
    pub(crate) cause: String,
    /// What it did.
    pub(crate) deed: Deed,
}

/// What somebody did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Join,
    Leave,
    Publish,
    Unpublish,
    Broadcast,
}

/// The same for all receivers of an event.
pub(crate) fn digest(event: &str, data: &RawValue) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(event.as_bytes());
    hasher.write_u8(b' ');
    hasher.write(data.get().as_bytes());
    hasher.finish()
}

impl Story {
    /// Reads an event. `None`: it is none of a room's.
    pub(crate) fn read(event: &str, data: &RawValue) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields {
            endpoint: Option<String>,
            source_endpoint: Option<Source>,
            stat: Option<String>,
        }
        #[derive(Deserialize)]
        struct Source {
            endpoint: String,
        }
        let fields: Fields = serde_json::from_str(data.get()).ok()?;
        let deed = match (event, fields.stat.as_deref()) {
            ("endpoint", Some("join")) => Deed::Join,
            ("endpoint", Some("leave")) => Deed::Leave,
            ("stream", Some("publish")) => Deed::Publish,
            ("stream", Some("unpublish")) => Deed::Unpublish,
            ("broadcast", None) => Deed::Broadcast,
            _ => return None,
        };
        Some(Self {
            digest: digest(event, data),
            cause: fields
                .source_endpoint
                .map(|source| source.endpoint)
                .or(fields.endpoint)?,
            deed,
        })
    }
}

#[derive(Debug)]
struct Entry {
    /// `None`: even the observer does not know.
    digest: Option<u64>,
    /// An index into `names`.
    cause: u32,
    deed: Deed,
}

/// The cause of what even the observer does not know.
const NOBODY: u32 = u32::MAX;

/// All that has happened, from the observer's join on.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The number of the event before the first entry.
    before: u64,
    entries: VecDeque<Entry>,
    names: HashMap<String, u32>,
    /// Who is in the room, and whether it publishes.
    present: HashMap<u32, bool>,
    /// How far the members are with their checks: what is behind all of them may be forgotten.
    marks: Vec<Weak<Cell<u64>>>,
}

impl Ledger {
    /// The observer's join was event `joined`, and nobody else was there.
    pub(crate) fn new(joined: u64) -> Self {
        Self {
            before: joined,
            entries: VecDeque::new(),
            names: HashMap::new(),
            present: HashMap::new(),
            marks: Vec::new(),
        }
    }

    /// The number of the last event that is known.
    pub(crate) fn last(&self) -> u64 {
        self.before + self.entries.len() as u64
    }

    /// How many members there are, the observer not counted.
    pub(crate) fn present(&self) -> usize {
        self.present.len()
    }

    /// The observer is told this.
    pub(crate) fn push(&mut self, number: u64, story: Story) -> Result<(), Fault> {
        if number <= self.last() {
            return Err(Fault::Disorder(number));
        }
        let missing = self.last() + 1;
        let gap = number > missing;
        while self.last() + 1 < number {
            self.entries.push_back(Entry {
                digest: None,
                cause: NOBODY,
                deed: Deed::Broadcast,
            });
        }
        let cause = self.index(story.cause);
        self.entries.push_back(Entry {
            digest: Some(story.digest),
            cause,
            deed: story.deed,
        });
        if gap {
            return Err(Fault::Lost(missing));
        }
        self.makes_sense(cause, story.deed)
            .map_err(|why| Fault::Senseless(number, why.to_owned()))
    }

    fn index(&mut self, name: String) -> u32 {
        let next = self.names.len() as u32;
        *self.names.entry(name).or_insert(next)
    }

    /// Who is there does not join, who is not does nothing, and nobody leaves a stream behind.
    fn makes_sense(&mut self, cause: u32, deed: Deed) -> Result<(), &'static str> {
        let publishes = self.present.get(&cause).copied();
        match (deed, publishes) {
            (Deed::Join, None) => self.present.insert(cause, false),
            (Deed::Join, Some(_)) => return Err("a join of one who is there"),
            (_, None) => return Err("a deed of one who is not there"),
            (Deed::Leave, Some(true)) => return Err("a leave that leaves a stream behind"),
            (Deed::Leave, Some(false)) => self.present.remove(&cause),
            (Deed::Publish, Some(_)) => self.present.insert(cause, true),
            (Deed::Unpublish, Some(true)) => self.present.insert(cause, false),
            (Deed::Unpublish, Some(false)) => return Err("an unpublish of nothing"),
            (Deed::Broadcast, Some(_)) => None,
        };
        Ok(())
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        let at = number.checked_sub(self.before + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// A member's session begins with event `joined`.
    pub(crate) fn begin(&mut self, endpoint: &str, joined: u64, numbered: bool) -> Life {
        let checked = Rc::new(Cell::new(joined));
        self.marks.push(Rc::downgrade(&checked));
        Life {
            cause: self.index(endpoint.to_owned()),
            joined,
            numbered,
            read: joined,
            checked,
            told: VecDeque::new(),
        }
    }

    /// Forgets what nobody has to be held against any more.
    pub(crate) fn forget(&mut self) {
        self.marks.retain(|mark| mark.strong_count() > 0);
        let marks = self.marks.iter().filter_map(Weak::upgrade);
        let needed = marks.map(|mark| mark.get()).min();
        // The last one stays: whoever joins with it has not begun its life yet.
        let needed = needed
            .unwrap_or(u64::MAX)
            .min(self.last().saturating_sub(1));
        while self.before + 1 < needed && self.entries.pop_front().is_some() {
            self.before += 1;
        }
    }
}

/// What one member was told in one session, over however many connections.
#[derive(Debug)]
pub(crate) struct Life {
    cause: u32,
    joined: u64,
    numbered: bool,
    read: u64,
    /// Up to here all is as it should be.
    checked: Rc<Cell<u64>>,
    /// What it was told and the observer was not yet: number (0 where it has none) and digest.
    told: VecDeque<(u64, u64)>,
}

/// How a session ends, and with that, what it was owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With its leave, and it was told all that came before that.
    Told,
    /// Some time or other: only what it was told is known.
    Cut,
    /// It was there up to this event, and has read all.
    At(u64),
}

impl Life {
    /// The number of its own join.
    pub(crate) fn joined(&self) -> u64 {
        self.joined
    }

    /// The number of the last event that it was told.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// It is told this; `number` is 0 where it does not understand event numbers.
    pub(crate) fn take(&mut self, number: u64, digest: u64) -> Result<(), Fault> {
        if self.numbered {
            if number <= self.read {
                return Err(Fault::Disorder(number));
            }
            self.read = number;
        } else if number != 0 {
            return Err(Fault::Foreign(number));
        }
        self.told.push_back((number, digest));
        Ok(())
    }

    /// Holds what it was told against what is known.
    pub(crate) fn check(&mut self, ledger: &Ledger) -> Result<(), Fault> {
        while let Some((number, digest)) = self.told.front().copied() {
            let due = self.checked.get() + 1;
            let Some(entry) = ledger.entry(due) else {
                return Ok(());
            };
            self.checked.set(due);
            let known = entry.digest;
            if number == due || number == 0 && entry.cause != self.cause {
                self.told.pop_front();
                if entry.cause == self.cause || known.is_some_and(|known| known != digest) {
                    return Err(Fault::Foreign(due));
                }
            } else if entry.cause != self.cause && known.is_some() {
                return Err(Fault::Lost(due));
            }
        }
        Ok(())
    }

    /// Whether all is known that it has to be held against, and if so, how it stands. To be asked
    /// until it says so.
    pub(crate) fn settle(&mut self, ending: Ending, ledger: &Ledger) -> Result<bool, Fault> {
        self.check(ledger)?;
        if !self.told.is_empty() {
            return Ok(false);
        }
        let end = match ending {
            Ending::Cut => return Ok(true),
            Ending::Told => u64::MAX,
            Ending::At(end) => end,
        };
        while self.checked.get() < end {
            let due = self.checked.get() + 1;
            let Some(entry) = ledger.entry(due) else {
                return Ok(false);
            };
            self.checked.set(due);
            if entry.cause == self.cause {
                if entry.deed == Deed::Leave {
                    return Ok(true);
                }
            } else if entry.digest.is_some() {
                return Err(Fault::Lost(due));
            }
        }
        Ok(true)
    }
}

//! What a member makes of what it is told.

use std::{rc::Rc, time::Instant};

use memchr::memmem;
use serde::Deserialize;

use super::{
    ledger::{Deed, Fault, Life, Story, digest},
    room::{CLOSER, LAST_WORD, Room},
    wire::message::Message,
    world::{PING_INTERVAL, World},
};

/// In front of the time at which a broadcast was sent: [`World::nanos`].
pub(crate) const SENT_AT: &str = r#""sent_at":"#;

/// What a member was told.
#[derive(Debug)]
pub(crate) enum Heard {
    Answer(Answer),
    Event,
    /// An error event; counted already.
    Error,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) cseq: u64,
    pub(crate) err: u16,
    pub(crate) data: String,
}

/// A member's ears. See the module's text.
pub(crate) struct Ears {
    pub(crate) endpoint: String,
    pub(crate) session: String,
    /// The room it is in, where that has an observer; or where it observes.
    pub(crate) room: Option<Rc<Room>>,
    /// Its session, where it is in such a room and no observer.
    pub(crate) life: Option<Life>,
    /// Whether its answer to a join is due: before that there are no events.
    pub(crate) joining: bool,
    /// Since when it hears all that comes at once; `None` while it does not.
    listening_since: Option<Instant>,
    pinged: Option<Instant>,
    /// What it missed at first has these numbers.
    pub(crate) replayed_up_to: u64,
    /// Whether all has been said in its room.
    pub(crate) heard_the_last_word: bool,
}

impl Ears {
    pub(crate) fn new(endpoint: String) -> Self {
        Self {
            endpoint,
            session: String::new(),
            room: None,
            life: None,
            joining: false,
            listening_since: None,
            pinged: None,
            replayed_up_to: 0,
            heard_the_last_word: false,
        }
    }

    /// From now on it hears all that comes at once; before it did not.
    pub(crate) fn listen(&mut self) {
        self.listening_since = Some(Instant::now());
        self.pinged = None;
    }

    /// From now on it does not hear what comes when it comes: how long that was on its way is not
    /// the server's affair.
    pub(crate) fn deafen(&mut self) {
        self.listening_since = None;
    }

    /// A ping.
    pub(crate) fn ping(&mut self, world: &World) {
        let now = Instant::now();
        if self.listening_since.is_some()
            && let Some(before) = self.pinged.replace(now)
        {
            let gap = now.duration_since(before);
            let figures = &world.figures;
            figures.late_pings.add(gap.saturating_sub(PING_INTERVAL));
            figures.early_pings.add(PING_INTERVAL.saturating_sub(gap));
        }
    }

    /// A message. `Err`: it is none that this server may say.
    pub(crate) fn message(&mut self, text: &str, world: &World) -> Result<Heard, String> {
        let message: Message<'_> =
            serde_json::from_str(text).map_err(|error| format!("{error} in {text}"))?;
        let data = message.data.get();
        let event = match (message.event, message.err) {
            (Some(event), None) => event,
            (None, Some(err)) => {
                world.figures.answers.add(err);
                return Ok(Heard::Answer(Answer {
                    cseq: message.cseq,
                    err,
                    data: data.to_owned(),
                }));
            }
            _ => return Err(format!("neither an answer nor an event: {text}")),
        };
        if message.session != Some(&self.session) {
            return Err(format!("an event that is not for {}: {text}", self.session));
        }
        if event == "error" {
            #[derive(Deserialize)]
            struct Error {
                r#type: String,
            }
            let error: Error = serde_json::from_str(data).map_err(|e| format!("{e} in {text}"))?;
            world.figures.errors.add(error.r#type);
            return Ok(Heard::Error);
        }
        if self.joining {
            return Err(format!("an event before the answer to a join: {text}"));
        }
        world.figures.delivered.add(1);
        self.heard_the_last_word |= data.contains(LAST_WORD);
        if let Some(room) = self.room.clone()
            && let Err(fault) = self.event(&message, event, &room)
        {
            world.figures.fault(&fault, &room.channel, &self.endpoint);
        }
        if message.cseq != 0 && message.cseq <= self.replayed_up_to {
            world.figures.replayed.add(1);
        } else {
            self.delay(data, world);
        }
        Ok(Heard::Event)
    }

    /// An event of a room that has an observer.
    fn event(&mut self, message: &Message<'_>, event: &str, room: &Room) -> Result<(), Fault> {
        let mut ledger = room.ledger.borrow_mut();
        let Some(ledger) = &mut *ledger else {
            return Ok(());
        };
        let number = message.cseq;
        match &mut self.life {
            Some(life) => {
                life.take(number, digest(event, message.data))?;
                life.check(ledger)
            }
            None => {
                let story = Story::read(event, message.data)
                    .ok_or_else(|| Fault::Senseless(number, message.data.to_string()))?;
                if story.cause == CLOSER && story.deed == Deed::Broadcast {
                    room.last_word.set(Some(number));
                }
                ledger.push(number, story)
            }
        }
    }

    /// How long a broadcast was on its way, if it says so and was awaited.
    fn delay(&self, data: &str, world: &World) {
        let Some(since) = self.listening_since else {
            return;
        };
        let Some(at) = memmem::find(data.as_bytes(), SENT_AT.as_bytes()) else {
            return;
        };
        let digits = data[at + SENT_AT.len()..].split(|c: char| !c.is_ascii_digit());
        let sent_at = digits.take(1).find_map(|digits| digits.parse::<u64>().ok());
        if let Some(sent_at) = sent_at
            && sent_at >= world.nanos_at(since)
        {
            let delay = world.nanos().saturating_sub(sent_at);
            world
                .figures
                .delay
                .add(std::time::Duration::from_nanos(delay));
        }
    }
}

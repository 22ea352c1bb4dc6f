//! What an operator has decided about rooms.

use crate::{
    clock::{Millis, millis},
    room::history::Bounds,
    settings::Settings,
};

/// What an operator has decided about rooms.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// How many members there may be; 0: any number.
    pub max_members: usize,
    /// How long a lost member is waited for; 0: not at all.
    pub resume_window: Millis,
    /// How much is kept for those who come back.
    pub history: Bounds,
}

impl Rules {
    /// What the settings ask for.
    pub fn of(settings: &Settings) -> Self {
        let (rooms, session) = (&settings.rooms, &settings.session);
        let resume_window = millis(rooms.resume_window);
        // The longest that a connection can be dead before it is found out, and then be waited for.
        let age = millis(session.send_timeout) + millis(session.idle_timeout) + resume_window;
        let events = if resume_window > 0 {
            rooms.resume_events
        } else {
            0
        };
        Self {
            max_members: rooms.max_members,
            resume_window,
            history: Bounds {
                events,
                bytes: rooms.resume_bytes,
                age,
            },
        }
    }
}

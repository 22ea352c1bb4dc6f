//! How long a client may do without something, and what follows.

use crate::{clock::Millis, ending::Ending};

/// How long a client may do without something.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Without joining.
    pub join_timeout: Millis,
    /// Without being pinged, not much less and never more.
    pub ping_interval: Millis,
    /// Without saying anything.
    pub idle_timeout: Millis,
    /// Without reading anything.
    pub send_timeout: Millis,
    /// Without a connection, as a member; 0: not at all.
    pub resume_window: Millis,
}

impl Deadlines {
    /// How much earlier than it is due a ping may go.
    pub fn ping_early(&self) -> Millis {
        self.ping_interval / 10
    }

    /// The shortest of them.
    pub fn shortest(&self) -> Millis {
        let always = [
            self.join_timeout,
            self.ping_interval,
            self.idle_timeout,
            self.send_timeout,
        ];
        let resume_window = Some(self.resume_window).filter(|window| *window > 0);
        always
            .into_iter()
            .chain(resume_window)
            .min()
            .unwrap_or(Millis::MAX)
    }
}

/// What a deadline demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A ping.
    Ping,
    /// A close frame: it did not join in time.
    NotJoined,
    /// The socket's end, without a word: nobody is there to hear one.
    Cut(Ending),
}

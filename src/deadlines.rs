//! How long a client may do without something, and what follows.

use crate::{clock::Millis, ending::Ending};

/// How long a client may do without something. `join_timeout` is not among them: a reload changes
/// it for new connections.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Without being pinged, not much less and never more.
    pub ping_interval: Millis,
    /// Without saying anything.
    pub idle_timeout: Millis,
    /// Without reading anything.
    pub send_timeout: Millis,
}

impl Deadlines {
    /// How much earlier than it is due a ping may go.
    pub fn ping_early(&self) -> Millis {
        self.ping_interval / 10
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

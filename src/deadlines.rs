//! How long a client may do without something, and what follows.

use crate::{clock::Millis, ending::Ending};

/// How long a client may do without something.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Without joining.
    pub join_timeout: Millis,
    /// Without being pinged.
    pub ping_interval: Millis,
    /// Without saying anything.
    pub idle_timeout: Millis,
    /// Without reading anything.
    pub send_timeout: Millis,
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

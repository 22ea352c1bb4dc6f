//! The names of things, each a type of its own, so that an endpoint is never taken for a stream.
//!
//! What clients choose (`app`, `channel`, `endpoint`, `stream_id`, `device`, codecs) follows one
//! rule, checked here and nowhere else; what the server chooses (sessions, connections, rooms,
//! members) cannot be built from a client's bytes.

use std::{fmt, sync::Arc};

use thiserror::Error;

/// The longest identifier, in bytes of UTF-8.
pub const MAX_IDENTIFIER_BYTES: usize = 128;

/// Why a string is no identifier.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum IdentifierError {
    /// It has no bytes where one is wanted at least.
    #[error("must not be empty")]
    Empty,
    /// It has more than [`MAX_IDENTIFIER_BYTES`].
    #[error("is {0} bytes of UTF-8 long, at most {MAX_IDENTIFIER_BYTES} are allowed")]
    TooLong(usize),
    /// It has a character of Unicode's category Cc.
    #[error("must not contain control characters")]
    ControlCharacter,
}

fn check(text: &str) -> Result<(), IdentifierError> {
    if text.len() > MAX_IDENTIFIER_BYTES {
        return Err(IdentifierError::TooLong(text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(IdentifierError::ControlCharacter);
    }
    Ok(())
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, empty: $may_be_empty:literal) => {
        $(#[$doc])*
        ///
        /// Compared byte by byte: nothing is trimmed, folded or normalised. A clone is cheap.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the rule of identifiers.
            ///
            /// # Errors
            /// An [`IdentifierError`] that says which part of the rule is broken.
            pub fn new(text: &str) -> Result<Self, IdentifierError> {
                if !$may_be_empty && text.is_empty() {
                    return Err(IdentifierError::Empty);
                }
                check(text)?;
                Ok(Self(text.into()))
            }

            /// The identifier as it was sent.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

identifier! {
    /// One application of many that share a server; a channel name means nothing without it.
    App, empty: false
}
identifier! {
    /// The name of a room within its [`App`].
    Channel, empty: false
}
identifier! {
    /// One instance of a client SDK; like a user id, but a user may run several.
    Endpoint, empty: false
}
identifier! {
    /// The machine a client runs on; "" while unknown.
    Device, empty: true
}
identifier! {
    /// A stream at the media server, unique within its room.
    StreamId, empty: false
}
identifier! {
    /// The name of an audio or video codec; "" while unknown.
    Codec, empty: true
}

impl Endpoint {
    /// A name for a client that brought none.
    pub fn generate() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }
}

impl Default for Device {
    fn default() -> Self {
        Self("".into())
    }
}

impl Default for Codec {
    fn default() -> Self {
        Self("".into())
    }
}

/// What a room is known by: the same channel in two apps is two rooms.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoomName {
    /// The app.
    pub app: App,
    /// The channel within it.
    pub channel: Channel,
}

/// A member's session: a UUID v4, known to its owner alone and therefore its proof.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionId([u8; Self::LEN]);

impl SessionId {
    /// How long the text of every session is, in bytes. That it never varies is what lets one
    /// frame header serve all receivers of an event.
    pub const LEN: usize = uuid::fmt::Hyphenated::LENGTH;

    /// A new session from the operating system's random numbers.
    pub fn generate() -> Self {
        let mut text = [0; Self::LEN];
        uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
        Self(text)
    }

    /// The session as clients write it.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The session as clients write it.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a hyphenated UUID is ASCII")
    }

    /// The part of a session that a log may show.
    pub fn sid(&self) -> &str {
        &self.as_str()[..8]
    }
}

impl fmt::Debug for SessionId {
    // A session is a bearer secret: not even a debug print may give it away.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}…)", self.sid())
    }
}

/// A session that a client says it had. It is worth nothing until a room has found it to be a
/// member's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimedSession([u8; SessionId::LEN]);

impl From<&SessionId> for ClaimedSession {
    /// The claim that is true of this session, to look it up by.
    fn from(session: &SessionId) -> Self {
        Self(session.0)
    }
}

impl ClaimedSession {
    /// `None`: no session looks like that.
    pub fn new(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().map(Self)
    }

    /// Whether it is this one.
    pub fn is(&self, session: &SessionId) -> bool {
        self.0 == session.0
    }
}

impl fmt::Debug for ClaimedSession {
    // It may be a real one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClaimedSession(…)")
    }
}

slotmap::new_key_type! {
    /// A connection of this worker thread. It means nothing on another thread, and a key whose
    /// connection is gone finds nothing.
    pub struct ConnectionId;

    /// A room of this worker thread.
    pub struct RoomId;
}

/// A member of a room: its place in the order of joins. Never used twice in one room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_measured_in_bytes() {
        assert!(Channel::new(&"é".repeat(64)).is_ok());
        assert_eq!(
            Channel::new(&"é".repeat(65)),
            Err(IdentifierError::TooLong(130))
        );
        assert!(Endpoint::new(&"x".repeat(128)).is_ok());
        assert_eq!(
            Endpoint::new(&"x".repeat(129)),
            Err(IdentifierError::TooLong(129))
        );
    }

    #[test]
    fn control_characters_are_refused_and_nothing_else() {
        for bad in ["\n", "a\0", "\u{7f}", "\u{85}", "\u{9f}"] {
            assert_eq!(App::new(bad), Err(IdentifierError::ControlCharacter));
        }
        for good in [" ", "a b", "\u{202e}", "\u{a0}", "会议", "🎥"] {
            assert_eq!(App::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn only_device_and_codecs_may_be_empty() {
        assert_eq!(App::new(""), Err(IdentifierError::Empty));
        assert_eq!(Channel::new(""), Err(IdentifierError::Empty));
        assert_eq!(Endpoint::new(""), Err(IdentifierError::Empty));
        assert_eq!(StreamId::new(""), Err(IdentifierError::Empty));
        assert_eq!(Device::new("").unwrap(), Device::default());
        assert_eq!(Codec::new("").unwrap(), Codec::default());
    }

    #[test]
    fn sessions_are_36_bytes_and_hidden_from_debug_prints() {
        let session = SessionId::generate();
        assert_eq!(session.as_str().len(), SessionId::LEN);
        assert!(!format!("{session:?}").contains(&session.as_str()[8..]));
        let claimed = ClaimedSession::new(session.as_str()).unwrap();
        assert!(claimed.is(&session));
        assert!(!format!("{claimed:?}").contains(&session.as_str()[8..]));
        assert_eq!(ClaimedSession::new(""), None);
        assert_ne!(session, SessionId::generate());
    }
}

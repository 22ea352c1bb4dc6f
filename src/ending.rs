//! Why a session or a connection ends: one list, from which the error event, the close code and
//! the word in the log follow.

use crate::protocol::error::{CloseCode, ErrorType};

/// See the module's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// channel.leave.
    Left,
    /// The client closed, with a close frame.
    Closed,
    /// The client closed with the code that says it will resume.
    GivenUp,
    /// The stream ended without a close frame, or was reset.
    #[default]
    Lost,
    /// Nothing was heard for `idle_timeout`.
    Idle,
    /// The socket took nothing for `send_timeout`.
    SendTimeout,
    /// No channel.join within `join_timeout`.
    NotJoined,
    /// Its token was not good enough for the join that it asked for.
    Unauthorized,
    /// A newer connection took the endpoint's place.
    Replaced,
    /// A newer connection goes on with the session.
    TakenOver,
    /// More was waiting than `send_queue` or `send_queue_bytes` allows.
    SlowConsumer,
    /// Went on over the rate limit.
    RateLimited,
    /// A message over `max_message_bytes`, or of too many fragments.
    TooBig,
    /// A frame that breaks RFC 6455.
    BadFrame,
    /// A binary message.
    Binary,
    /// Text that is not UTF-8.
    BadText,
    /// The room died of a defect.
    RoomFailed,
    /// The server goes down.
    Shutdown,
}

impl Ending {
    /// All of them, in the order of their definition.
    pub const ALL: [Self; 18] = [
        Self::Left,
        Self::Closed,
        Self::GivenUp,
        Self::Lost,
        Self::Idle,
        Self::SendTimeout,
        Self::NotJoined,
        Self::Unauthorized,
        Self::Replaced,
        Self::TakenOver,
        Self::SlowConsumer,
        Self::RateLimited,
        Self::TooBig,
        Self::BadFrame,
        Self::Binary,
        Self::BadText,
        Self::RoomFailed,
        Self::Shutdown,
    ];

    /// The word in the log and the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Closed => "closed",
            Self::GivenUp => "given_up",
            Self::Lost => "lost",
            Self::Idle => "idle_timeout",
            Self::SendTimeout => "send_timeout",
            Self::NotJoined => "join_timeout",
            Self::Unauthorized => "unauthorized",
            Self::Replaced => "replaced",
            Self::TakenOver => "taken_over",
            Self::SlowConsumer => "slow_consumer",
            Self::RateLimited => "rate_limited",
            Self::TooBig => "message_too_big",
            Self::BadFrame => "protocol_error",
            Self::Binary => "binary",
            Self::BadText => "invalid_text",
            Self::RoomFailed => "room_failed",
            Self::Shutdown => "shutdown",
        }
    }

    /// Whether the connection is lost and not the session: its member is waited for. Everything
    /// else is a clean end, and the member leaves at once.
    pub fn is_loss(self) -> bool {
        match self {
            Self::GivenUp
            | Self::Lost
            | Self::Idle
            | Self::SendTimeout
            | Self::TakenOver
            | Self::SlowConsumer
            | Self::RoomFailed
            | Self::Shutdown => true,
            Self::Left
            | Self::Closed
            | Self::NotJoined
            | Self::Unauthorized
            | Self::Replaced
            | Self::RateLimited
            | Self::TooBig
            | Self::BadFrame
            | Self::Binary
            | Self::BadText => false,
        }
    }

    /// The code of the close frame with which the server ends the connection; `None` where it
    /// sends none of its own.
    pub fn close_code(self) -> Option<CloseCode> {
        Some(match self {
            Self::Left
            | Self::Closed
            | Self::GivenUp
            | Self::Lost
            | Self::Idle
            | Self::SendTimeout => return None,
            Self::NotJoined | Self::Unauthorized | Self::RateLimited => CloseCode::PolicyViolation,
            Self::Replaced | Self::TakenOver => CloseCode::EndpointReplaced,
            Self::SlowConsumer => CloseCode::SlowConsumer,
            Self::TooBig => CloseCode::TooBig,
            Self::BadFrame => CloseCode::ProtocolError,
            Self::Binary => CloseCode::Unsupported,
            Self::BadText => CloseCode::InvalidText,
            Self::RoomFailed => CloseCode::RoomFailed,
            Self::Shutdown => CloseCode::GoingAway,
        })
    }

    /// The error event that comes before the close frame, if there is one.
    pub fn error_type(self) -> Option<ErrorType> {
        Some(match self {
            Self::NotJoined => ErrorType::JoinTimeout,
            Self::Replaced | Self::TakenOver => ErrorType::EndpointReplaced,
            Self::SlowConsumer => ErrorType::SlowConsumer,
            Self::RateLimited => ErrorType::RateLimited,
            Self::TooBig => ErrorType::MessageTooBig,
            Self::RoomFailed => ErrorType::RoomFailed,
            Self::Shutdown => ErrorType::ServerShutdown,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first, third and last cell of each row of the table of endings, without its head.
    fn documented() -> Vec<(String, String)> {
        let page = include_str!("../docs/deployment.md");
        let rows = page
            .lines()
            .skip_while(|line| !line.starts_with("| `why` |"));
        let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
        rows.map(|row| {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [why, _, code] = cells[..] else {
                panic!("three cells: {row}")
            };
            (why.trim_matches('`').to_owned(), code.to_owned())
        })
        .collect()
    }

    #[test]
    fn the_documented_endings_are_these() {
        let documented = documented();
        let words: Vec<_> = documented.iter().map(|(why, _)| &**why).collect();
        assert_eq!(words, Ending::ALL.map(Ending::as_str));
        for (ending, (why, code)) in Ending::ALL.into_iter().zip(&documented) {
            // A code that the client has sent and the server echoes is none of the server's own.
            let echoed = code == "none" || code.ends_with("echoed");
            match ending.close_code() {
                Some(sent) => assert_eq!(*code, (sent as u16).to_string(), "{why}"),
                None => assert!(echoed, "{why}: {code}"),
            }
        }
    }
}

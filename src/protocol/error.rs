//! What can go wrong, as clients see it: `err` of an answer, `type` of an error event, and the
//! code of a close frame.

use std::borrow::Cow;

use thiserror::Error;

/// The `err` of an answer. The numbers are HTTP's, since everybody knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum ErrorCode {
    /// The JSON is fine, the request is not.
    BadRequest = 400,
    /// No token that is good enough; the connection is closed.
    Unauthorized = 401,
    /// The token is for something else (a join: the connection is closed), or does not grant this.
    Forbidden = 403,
    /// No such method; no such stream.
    NotFound = 404,
    /// In conflict with the state of the room: joined already, stream taken, …
    Conflict = 409,
    /// The request's session is not this connection's present one.
    Gone = 410,
    /// Over the rate limit.
    TooManyRequests = 429,
    /// Full, or nobody there to serve it.
    Unavailable = 503,
}

/// A request that is refused: the `err` and `err_msg` of its answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{} {message}", *code as u16)]
pub struct Refusal {
    /// The answer's `err`.
    pub code: ErrorCode,
    /// One English sentence: what was wrong, and what would be right.
    pub message: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with `code`, explained by `message`.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A 400.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// The 503 for every join while the server goes down.
    pub fn draining() -> Self {
        Self::new(
            ErrorCode::Unavailable,
            "the server shuts down; connect again after a while",
        )
    }

    /// The 401 for a join with a token that has expired, which may resume a session and no more.
    pub fn no_session_to_resume() -> Self {
        Self::new(
            ErrorCode::Unauthorized,
            "the token has expired, and there is no session to go on with",
        )
    }

    /// The 410 for every request whose session is not the present one.
    pub fn no_such_session() -> Self {
        Self::new(
            ErrorCode::Gone,
            "session is not the present session of this connection; channel.join gives one",
        )
    }
}

/// The `data.type` of an error event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// The connection has not joined a room in time.
    JoinTimeout,
    /// A frame that holds no JSON object.
    BadMessage,
    /// A message over `max_message_bytes`.
    MessageTooBig,
    /// A newer connection took the endpoint's place.
    EndpointReplaced,
    /// The client reads too slowly for what it is sent.
    SlowConsumer,
    /// Went on over the rate limit.
    RateLimited,
    /// The room's media server is not well: ask for another.
    MediaServerDown,
    /// The room died of a defect; a new join makes a new one.
    RoomFailed,
    /// The server is going down.
    ServerShutdown,
}

impl ErrorType {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JoinTimeout => "join_timeout",
            Self::BadMessage => "bad_message",
            Self::MessageTooBig => "message_too_big",
            Self::EndpointReplaced => "endpoint_replaced",
            Self::SlowConsumer => "slow_consumer",
            Self::RateLimited => "rate_limited",
            Self::MediaServerDown => "media_server_down",
            Self::RoomFailed => "room_failed",
            Self::ServerShutdown => "server_shutdown",
        }
    }
}

/// The code of a client's close frame that gives the connection up and not the session. A browser
/// cannot drop a socket without a close frame.
pub const CONNECTION_GIVEN_UP: u16 = 4900;

/// The code of a close frame that the server sends (RFC 6455 section 7.4, and the protocol's own
/// from 4000 on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// The client closed, and this is the echo.
    Normal = 1000,
    /// The server shuts down: come back.
    GoingAway = 1001,
    /// A frame that breaks RFC 6455.
    ProtocolError = 1002,
    /// A binary message.
    Unsupported = 1003,
    /// Text that is not UTF-8.
    InvalidText = 1007,
    /// Did not join in time, or went on over the rate limit.
    PolicyViolation = 1008,
    /// A message over the limit.
    TooBig = 1009,
    /// A newer connection took the endpoint's place: do not come back by yourself.
    EndpointReplaced = 4001,
    /// Read too slowly: come back.
    SlowConsumer = 4002,
    /// The room died of a defect: come back.
    RoomFailed = 4004,
}

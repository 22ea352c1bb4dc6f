//! The wire: what a message looks like in bytes, and nothing of what it does.
//!
//! * [`request`]: from a client's text to a checked request
//! * [`method`]: what a client can ask for
//! * [`reply`]: answers to requests
//! * [`event`]: what the server says unasked
//! * [`error`]: error codes, error events, close codes
//! * [`frame`]: the WebSocket frames (RFC 6455) that carry all of them to a client
//! * [`token`]: what lets a client in
//! * [`json`], [`cseq`]: the two corners of JSON that no derive covers
//!
//! Nothing here knows of actors, rooms or sockets.

pub mod cseq;
pub mod error;
pub mod event;
pub mod frame;
pub mod json;
pub mod method;
pub mod reply;
pub mod request;
pub mod token;

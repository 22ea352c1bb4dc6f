//! What a client's upgrade request said, kept for as long as the connection lives.

use std::net::SocketAddr;

use crate::crew::Counted;

/// See the module's text.
#[derive(Debug)]
pub struct Handshake {
    /// Where it comes from.
    pub peer: Option<SocketAddr>,
    /// `?device=` of the URL, unchecked: a join that needs it checks it.
    pub device: Option<Box<str>>,
    /// That this connection is counted.
    pub counted: Counted,
}

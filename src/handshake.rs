//! What a client's upgrade request said, kept for as long as the connection lives.

use std::{fmt, net::IpAddr};

use crate::{admission::Admitted, protocol::token::Token};

/// See the module's text.
#[derive(Debug)]
pub struct Handshake {
    /// Where it comes from, behind all trusted proxies.
    pub client: Option<IpAddr>,
    /// `?channel=` of the URL, and another that differs from it, mostly neither. A proxy before several
    /// servers chooses by it, and nobody here knows by which of two: a join's channel must equal all.
    pub channels: [Option<Box<str>>; 2],
    /// `?device=` of the URL, unchecked: a join that needs it checks it.
    pub device: Option<Box<str>>,
    /// `?token=` of the URL, or else the bearer token of the request's head.
    pub token: Option<Token>,
    /// Its place among the connections.
    pub admitted: Admitted,
}

impl Handshake {
    /// The client's address for the log.
    pub fn shown_address(&self) -> ShownAddress {
        ShownAddress(self.client)
    }
}

/// A client's address as the log shows it.
#[derive(Clone, Copy, Debug)]
pub struct ShownAddress(pub Option<IpAddr>);

impl fmt::Display for ShownAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // An IPv4 address is written as one, on an IPv6 socket too.
            Some(address) => write!(f, "{}", address.to_canonical()),
            None => f.write_str("unknown"),
        }
    }
}

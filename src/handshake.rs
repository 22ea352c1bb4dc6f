//! What a client's upgrade request said, kept for as long as the connection lives.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    admission::Admitted,
    auth::{AuthError, Authorized, keyring::Keyring},
    protocol::{request::JoinRequest, token::Token},
    settings::Settings,
};

/// The longest token of an upgrade request, in bytes, that is kept for a second join of the same
/// connection. A token of this length holds some dozen claims and the longest signature.
pub const MAX_KEPT_TOKEN_BYTES: usize = 4096;

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
    pub token: UpgradeToken,
    /// The settings that were in effect at the upgrade. What they say of one connection holds for as
    /// long as this one lives.
    pub settings: Arc<Settings>,
    /// Its place among the connections.
    pub admitted: Admitted,
}

impl Handshake {
    /// The client's address for the log.
    pub fn shown_address(&self) -> ShownAddress {
        ShownAddress(self.client)
    }
}

/// The token of an upgrade request. It serves each join of its connection that brings none, but a
/// long one only the first: the connection would otherwise hold up to 64 KB for its whole life.
#[derive(Debug)]
pub struct UpgradeToken(Mutex<TokenState>);

#[derive(Debug)]
enum TokenState {
    Missing,
    Held(Token),
    Released,
}

impl UpgradeToken {
    /// For the token that the request has, if it has one.
    pub fn new(token: Option<Token>) -> Self {
        let state = token.map_or(TokenState::Missing, TokenState::Held);
        Self(Mutex::new(state))
    }

    /// Checks a join against the keys, with this token where the join brings none.
    ///
    /// # Errors
    /// [`AuthError`], for a 401 or 403.
    pub fn authorize(&self, join: JoinRequest, keyring: &Keyring) -> Result<Authorized, AuthError> {
        let state = self.lock();
        match &*state {
            TokenState::Held(token) => keyring.authorize(join, Some(token)),
            TokenState::Missing => keyring.authorize(join, None),
            TokenState::Released => keyring.authorize(join, None).map_err(|error| match error {
                AuthError::Missing => AuthError::NotKept,
                other => other,
            }),
        }
    }

    /// Frees a token over [`MAX_KEPT_TOKEN_BYTES`]; called once a join has been granted.
    pub fn release_long(&self) {
        let mut state = self.lock();
        if let TokenState::Held(token) = &*state
            && token.expose().len() > MAX_KEPT_TOKEN_BYTES
        {
            *state = TokenState::Released;
        }
    }

    fn lock(&self) -> MutexGuard<'_, TokenState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

//! Who may come in: a join's token (a JWT, RFC 7519) is checked against the keys of its app.
//!
//! * [`key`]: one key, read from the settings
//! * [`keyring`]: the keys of all apps; which of them a token must be signed with
//! * [`claims`]: what a token says, held against the join
//! * [`mint`], [`explain`]: the commands that make a key, make a token, and tell why one is refused
//!
//! With no keys at all everybody may come in. What is refused is a 401 where the token is not
//! good, a 403 where it is good for something else; no message repeats any part of a token.

pub mod claims;
pub mod explain;
pub mod key;
pub mod keyring;
pub mod mint;

use thiserror::Error;

use crate::{
    grants::{Grants, IssuedAt},
    protocol::{
        error::{ErrorCode, Refusal},
        request::{JoinRequest, Role},
    },
};

/// A join that may go on, with what its token says filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorized {
    /// The join.
    pub request: JoinRequest,
    /// What the member may do.
    pub grants: Grants,
    /// When its token was issued, where the token says so.
    pub issued_at: Option<IssuedAt>,
    /// Its token has expired: good enough to go on with a session, not to begin one.
    pub has_expired: bool,
}

/// Why a token is not good enough.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AuthError {
    /// There is none.
    #[error("a token is needed: in data.token, in ?token= of the URL, or as Authorization: Bearer")]
    Missing,
    /// There is none any more: the one of the upgrade request was long, and has served a join.
    #[error(
        "a token is needed in data.token: that of the URL or header is over 4096 bytes long, and \
         is kept for the first join only"
    )]
    NotKept,
    /// The app has no key.
    #[error("there is no key for this app, so nobody is let in")]
    NoKey,
    /// It is not three parts in base64url, or the first two are no JSON objects.
    #[error("the token is not a JWT")]
    Malformed,
    /// Its `kid` is none of the app's.
    #[error("the token's kid is not that of a key of this app")]
    UnknownKid,
    /// It has no `kid`, and the app more than one key.
    #[error("the token has no kid, and this app has several keys")]
    NoKid,
    /// Its `alg` is not its key's.
    #[error("the token's alg is not that of its key")]
    Algorithm,
    /// It has a `crit` header (RFC 7515 section 4.1.11): nothing of that is understood.
    #[error("the token has a crit header, of which nothing is understood")]
    Critical,
    /// The signature is not by its key.
    #[error("the token's signature is not by its key")]
    Signature,
    /// No `exp`.
    #[error("the token has no exp")]
    NoExpiry,
    /// A claim of a wrong type, or out of range.
    #[error("the token's {claim} {wrong}")]
    Claim {
        /// Which.
        claim: &'static str,
        /// What is wrong with it.
        wrong: String,
    },
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is yet to come.
    #[error("the token is not valid yet")]
    NotYet,
    /// It is good, but for something else.
    #[error("the token is for another {0}")]
    Other(&'static str),
    /// The role is one that a token has to name, and it names none.
    #[error("the token has no role; to join as {} it must name it", .0.as_str())]
    RoleNotGranted(Role),
}

impl AuthError {
    /// The error code of the answer.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Other(_) | Self::RoleNotGranted(_) => ErrorCode::Forbidden,
            _ => ErrorCode::Unauthorized,
        }
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

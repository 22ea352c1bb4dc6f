//! What a token says, and what becomes of the join that it comes with.
//!
//! ```json
//! {"exp":1800000000,"nbf":1700000000,"app":"demo","channel":"c","endpoint":"anna",
//!  "role":"normal","device":"phone","iat":1700000000,"grants":["publish","broadcast"]}
//! ```
//!
//! Only `exp` must be there. What is there of the others must match the join; `endpoint`, `role`
//! and `device` fill in what the join leaves out. The roles `recorder` and `relayer` are for tokens
//! that name them. `iat` decides which of two tokens of one session is newer. All other claims are
//! ignored, and so are unknown words in `grants`.

use std::{fmt, time::Duration};

use serde_json::{Map, Value};

use super::{AuthError, Authorized};
use crate::{
    grants::{Grants, IssuedAt},
    ids::{Device, Endpoint, IdentifierError},
    protocol::request::{JoinRequest, Role},
};

/// The largest time that a token may name, in seconds since 1970: up to there every whole second
/// has a double of its own.
const LATEST: f64 = (1_u64 << 53) as f64;

/// The claims of a token whose signature is right.
#[derive(Clone, Debug)]
pub struct Claims(Map<String, Value>);

impl fmt::Display for Claims {
    /// As JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Value::Object(self.0.clone()).to_string())
    }
}

impl Claims {
    /// Those of this JSON object.
    pub fn new(claims: Map<String, Value>) -> Self {
        Self(claims)
    }

    /// Whether the token holds at the time `now`, since 1970, give or take `leeway`; then, whether
    /// it has expired.
    ///
    /// # Errors
    /// [`AuthError::NoExpiry`], [`AuthError::NotYet`], and [`AuthError::Claim`] where a time is none.
    pub fn has_expired(&self, now: Duration, leeway: Duration) -> Result<bool, AuthError> {
        let (now, leeway) = (now.as_secs_f64(), leeway.as_secs_f64());
        let exp = self.time("exp")?.ok_or(AuthError::NoExpiry)?;
        if self.time("nbf")?.is_some_and(|nbf| now < nbf - leeway) {
            return Err(AuthError::NotYet);
        }
        Ok(now >= exp + leeway)
    }

    /// Holds the claims against the join, and fills in what that leaves out.
    ///
    /// # Errors
    /// [`AuthError::Other`] where they do not match, [`AuthError::Claim`] where one is wrong.
    pub fn apply(&self, mut join: JoinRequest, has_expired: bool) -> Result<Authorized, AuthError> {
        self.matches("app", join.room.app.as_str())?;
        self.matches("channel", join.room.channel.as_str())?;
        let endpoint = self.identifier("endpoint", Endpoint::new)?;
        let device = self.identifier("device", Device::new)?;
        fill_in("endpoint", &mut join.endpoint, endpoint)?;
        let role = self.role()?;
        fill_in("role", &mut join.role, role)?;
        if let (None, Some(asked @ (Role::Recorder | Role::Relayer))) = (role, join.role) {
            return Err(AuthError::RoleNotGranted(asked));
        }
        fill_in("device", &mut join.device, device)?;
        Ok(Authorized {
            request: join,
            grants: self.grants()?,
            issued_at: self.issued_at(),
            has_expired,
        })
    }

    fn matches(&self, claim: &'static str, asked: &str) -> Result<(), AuthError> {
        match self.string(claim)? {
            Some(granted) if granted != asked => Err(AuthError::Other(claim)),
            _ => Ok(()),
        }
    }

    fn role(&self) -> Result<Option<Role>, AuthError> {
        let Some(name) = self.string("role")? else {
            return Ok(None);
        };
        let role = Role::from_name(name);
        let wrong = || wrong("role", "must be normal, recorder or relayer");
        role.ok_or_else(wrong).map(Some)
    }

    fn grants(&self) -> Result<Grants, AuthError> {
        let wrong = || wrong("grants", "must be a list of strings");
        let Some(value) = self.0.get("grants") else {
            return Ok(Grants::ALL);
        };
        let mut grants = Grants::NONE;
        for name in value.as_array().ok_or_else(wrong)? {
            // A later server may know a word that is unknown here.
            grants.add(name.as_str().ok_or_else(wrong)?);
        }
        Ok(grants)
    }

    /// An `iat` that is no number is ignored, as other claims are that this server does not need.
    fn issued_at(&self) -> Option<IssuedAt> {
        let seconds = self.0.get("iat")?.as_f64()?;
        // Out of range it becomes the largest or smallest number, which keeps the order.
        Some(IssuedAt((seconds * 1e3) as i64))
    }

    fn identifier<T>(
        &self,
        claim: &'static str,
        new: impl FnOnce(&str) -> Result<T, IdentifierError>,
    ) -> Result<Option<T>, AuthError> {
        self.string(claim)?
            .map(|text| new(text).map_err(|e| wrong(claim, e)))
            .transpose()
    }

    fn string(&self, claim: &'static str) -> Result<Option<&str>, AuthError> {
        match self.0.get(claim) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(claim, "must be a string")),
        }
    }

    fn time(&self, claim: &'static str) -> Result<Option<f64>, AuthError> {
        let Some(value) = self.0.get(claim) else {
            return Ok(None);
        };
        let seconds = value.as_f64().filter(|_| value.is_number());
        let seconds = seconds.ok_or_else(|| wrong(claim, "must be a number"))?;
        if seconds.abs() > LATEST {
            return Err(wrong(claim, "is out of range"));
        }
        Ok(Some(seconds))
    }
}

/// What a join says must be what the token says; what it does not say is what the token says.
fn fill_in<T: PartialEq>(
    claim: &'static str,
    asked: &mut Option<T>,
    granted: Option<T>,
) -> Result<(), AuthError> {
    if granted.is_some() && asked.is_some() && *asked != granted {
        return Err(AuthError::Other(claim));
    }
    if granted.is_some() {
        *asked = granted;
    }
    Ok(())
}

fn wrong(claim: &'static str, wrong: impl fmt::Display) -> AuthError {
    AuthError::Claim {
        claim,
        wrong: wrong.to_string(),
    }
}

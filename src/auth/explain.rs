//! Why a token is taken or refused, for the command `check-token`: by the very checks of a join.

use std::fmt::Write;

use jsonwebtoken::dangerous::insecure_decode_claims;
use serde_json::{Map, Value};
use thiserror::Error;

use super::{AuthError, Authorized, keyring::Keyring};
use crate::{
    ids::{App, Channel, Device, Endpoint, IdentifierError, RoomName},
    protocol::{
        request::{JoinRequest, Role},
        token::Token,
    },
};

/// The join that a token would come with. What is not said is taken from the token itself.
#[derive(Clone, Debug, Default)]
pub struct JoinSketch {
    /// Of which app.
    pub app: Option<String>,
    /// Which channel.
    pub channel: Option<String>,
    /// As whom.
    pub endpoint: Option<String>,
    /// As what.
    pub role: Option<String>,
    /// On which device.
    pub device: Option<String>,
}

/// Why there is no verdict.
#[derive(Debug, Error)]
pub enum ExplainError {
    /// It is not known which keys to try.
    #[error("the token does not say for which app it is; name it with --app")]
    NoApp,
    /// A name that no join could have.
    #[error("{what} {error}")]
    Identifier {
        /// Which.
        what: &'static str,
        /// Why not.
        error: IdentifierError,
    },
    /// A role that no join could have.
    #[error("role must be normal, recorder or relayer")]
    Role,
    /// The token is refused.
    #[error("refused ({}): {error}", error.code() as u16)]
    Refused {
        /// Why.
        error: AuthError,
    },
}

/// What a join with this token comes to, in a few lines.
///
/// # Errors
/// [`ExplainError::Refused`] where the join would be refused.
pub fn explain(
    keyring: &Keyring,
    token: &Token,
    sketch: &JoinSketch,
) -> Result<String, ExplainError> {
    if keyring.is_open() {
        return Ok("there are no keys: everybody is let in, whatever the token\n".into());
    }
    let request = request(token, sketch)?;
    let claims = keyring
        .verify(request.room.app.as_str(), token)
        .map_err(|error| ExplainError::Refused { error })?;
    let authorized = keyring
        .authorize(request, Some(token))
        .map_err(|error| ExplainError::Refused { error })?;
    Ok(describe(&authorized, &claims.to_string()))
}

/// The join, with what the token says where the sketch does not.
fn request(token: &Token, sketch: &JoinSketch) -> Result<JoinRequest, ExplainError> {
    // Unverified: it only says which keys are asked.
    let claims: Map<String, Value> = insecure_decode_claims(token.expose()).unwrap_or_default();
    let said = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
    let app = sketch.app.clone().or_else(|| said("app"));
    let app = app.ok_or(ExplainError::NoApp)?;
    let channel = sketch.channel.clone().or_else(|| said("channel"));
    let channel = channel.unwrap_or_else(|| "any".into());
    let role = sketch.role.as_deref();
    let role = role.map(|name| Role::from_name(name).ok_or(ExplainError::Role));
    Ok(JoinRequest {
        room: RoomName {
            app: named("app", &app, App::new)?,
            channel: named("channel", &channel, Channel::new)?,
        },
        endpoint: optional("endpoint", sketch.endpoint.as_deref(), Endpoint::new)?,
        role: role.transpose()?,
        device: optional("device", sketch.device.as_deref(), Device::new)?,
        token: None,
        last_event: None,
        session: None,
    })
}

fn named<T>(
    what: &'static str,
    text: &str,
    new: impl FnOnce(&str) -> Result<T, IdentifierError>,
) -> Result<T, ExplainError> {
    new(text).map_err(|error| ExplainError::Identifier { what, error })
}

fn optional<T>(
    what: &'static str,
    text: Option<&str>,
    new: impl FnOnce(&str) -> Result<T, IdentifierError>,
) -> Result<Option<T>, ExplainError> {
    text.map(|text| named(what, text, new)).transpose()
}

fn describe(authorized: &Authorized, claims: &str) -> String {
    let request = &authorized.request;
    let mut text = format!("good: it says {claims}\n");
    let mut line = |what: &str, value: &str| {
        // Writing to memory does not fail.
        let _ = writeln!(text, "{what}: {value}");
    };
    line("app", request.room.app.as_str());
    line("channel", request.room.channel.as_str());
    let endpoint = request.endpoint.as_ref().map(Endpoint::as_str);
    line("endpoint", endpoint.unwrap_or("(whatever the join says)"));
    line("role", request.role.unwrap_or_default().as_str());
    let device = request.device.as_ref().map(Device::as_str);
    line("device", device.unwrap_or("(whatever the join says)"));
    let may = |granted| if granted { "yes" } else { "no" };
    line("may publish", may(authorized.grants.publish));
    line("may broadcast", may(authorized.grants.broadcast));
    text
}

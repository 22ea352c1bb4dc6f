//! Making keys and tokens, for the commands `gen-key` and `gen-token`: so that somebody can try
//! what a backend does in production.

use std::{fs, io, time::Duration};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    key::{Key, secret},
    keyring::since_1970,
};
use crate::settings::{Auth, AuthKey, SettingsError};

/// What a token is to say. `None`: the claim is left out.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    /// For which app; it must have a key.
    pub app: String,
    /// With which of the app's keys, where it has several.
    pub kid: Option<String>,
    /// For which channel.
    pub channel: Option<String>,
    /// For whom.
    pub endpoint: Option<String>,
    /// As what.
    pub role: Option<String>,
    /// On which device.
    pub device: Option<String>,
    /// What it may do; an empty list: nothing but be there.
    pub grants: Option<Vec<String>>,
    /// How long it holds from now on.
    pub ttl: Duration,
    /// The file of the private key, PEM, where the settings have only the public one.
    pub private_key_file: Option<String>,
}

/// Why there is no token.
#[derive(Debug, Error)]
pub enum MintError {
    /// The settings have no such key.
    #[error("auth.keys has no key for the app {app:?}{}; gen-key makes one", of_kid(.kid))]
    NoKey {
        /// The app.
        app: String,
        /// The kid that was asked for.
        kid: Option<String>,
    },
    /// They have several.
    #[error("auth.keys has several keys for the app {0:?}; choose one with --kid")]
    WhichKey(String),
    /// The settings have only the public key.
    #[error(
        "{0} signs with a private key, which the settings do not have; name it with --private-key-file"
    )]
    NoPrivateKey(String),
    /// It cannot be read.
    #[error("the private key {file:?} cannot be read: {source}")]
    Unreadable {
        /// Which file.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// It is of another kind.
    #[error("{file:?} is no private key for {alg}, or not in PEM")]
    NotAPrivateKey {
        /// Which file.
        file: String,
        /// The key's algorithm.
        alg: String,
    },
    /// The token could not be signed.
    #[error("the token cannot be signed with this key")]
    Unsigned,
    /// A key of the settings cannot be had.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

fn of_kid(kid: &Option<String>) -> String {
    kid.as_ref()
        .map(|kid| format!(" with the kid {kid:?}"))
        .unwrap_or_default()
}

/// A token signed with a key of the settings.
///
/// # Errors
/// [`MintError`]
pub fn token(settings: &Auth, request: &TokenRequest) -> Result<String, MintError> {
    let (at, key) = the_key(settings, request)?;
    let mut header = Header::new(Key::load(&at, key)?.algorithm);
    header.kid = Some(key.kid.clone()).filter(|kid| !kid.is_empty());
    let encoding = encoding_key(&at, key, request)?;
    encode(&header, &claims(request), &encoding).map_err(|_| MintError::Unsigned)
}

fn the_key<'a>(
    settings: &'a Auth,
    request: &TokenRequest,
) -> Result<(String, &'a AuthKey), MintError> {
    let mut fitting = settings.keys.iter().enumerate().filter(|(_, key)| {
        key.app == request.app && request.kid.as_ref().is_none_or(|kid| *kid == key.kid)
    });
    match (fitting.next(), fitting.next()) {
        (Some((at, key)), None) => Ok((format!("auth.keys[{at}]"), key)),
        (Some(_), Some(_)) => Err(MintError::WhichKey(request.app.clone())),
        (None, _) => Err(MintError::NoKey {
            app: request.app.clone(),
            kid: request.kid.clone(),
        }),
    }
}

fn encoding_key(at: &str, key: &AuthKey, request: &TokenRequest) -> Result<EncodingKey, MintError> {
    if key.alg == "HS256" {
        return Ok(EncodingKey::from_secret(&secret(at, key)?));
    }
    let file = request.private_key_file.as_ref();
    let file = file.ok_or_else(|| MintError::NoPrivateKey(key.alg.clone()))?;
    let pem = fs::read(file).map_err(|source| MintError::Unreadable {
        file: file.clone(),
        source,
    })?;
    let encoding = match key.alg.as_str() {
        "RS256" => EncodingKey::from_rsa_pem(&pem),
        "ES256" => EncodingKey::from_ec_pem(&pem),
        _ => EncodingKey::from_ed_pem(&pem),
    };
    encoding.map_err(|_| MintError::NotAPrivateKey {
        file: file.clone(),
        alg: key.alg.clone(),
    })
}

fn claims(request: &TokenRequest) -> Map<String, Value> {
    let now = since_1970();
    let exp = now.saturating_add(request.ttl).as_secs();
    let mut claims = Map::new();
    claims.insert("iat".into(), now.as_secs().into());
    claims.insert("exp".into(), exp.into());
    claims.insert("app".into(), request.app.clone().into());
    let named = [
        ("channel", &request.channel),
        ("endpoint", &request.endpoint),
        ("role", &request.role),
        ("device", &request.device),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            claims.insert(name.into(), value.clone().into());
        }
    }
    if let Some(grants) = &request.grants {
        claims.insert("grants".into(), grants.clone().into());
    }
    claims
}

/// A new key for `app`, as an entry to paste into the settings.
///
/// # Errors
/// What keeps the system from giving random numbers.
pub fn key(app: &str, kid: &str) -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let quoted = |text: &str| toml::Value::from(text).to_string();
    Ok(format!(
        "# in the settings, in place of the line keys = []\n[[auth.keys]]\napp = {}\nkid = {}\nalg = \"HS256\"\nsecret = \"{secret}\"\n",
        quoted(app),
        quoted(kid),
    ))
}

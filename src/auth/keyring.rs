//! The keys of all apps.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{crypto::verify, dangerous::insecure_decode_claims, decode_header};

use super::{AuthError, Authorized, claims::Claims, key::Key};
use crate::{
    grants::Grants,
    protocol::{request::JoinRequest, token::Token},
    settings::{Auth, SettingsError},
};

/// See the module's text.
#[derive(Clone, Default)]
pub struct Keyring {
    apps: HashMap<String, Vec<Key>>,
    leeway: Duration,
}

impl fmt::Debug for Keyring {
    // Keys have no place in any print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} apps)", self.apps.len())
    }
}

impl Keyring {
    /// The keys of the settings, files included.
    ///
    /// # Errors
    /// [`SettingsError`] where one cannot be had.
    pub fn load(settings: &Auth) -> Result<Self, SettingsError> {
        let mut apps: HashMap<String, Vec<Key>> = HashMap::new();
        for (at, key) in settings.keys.iter().enumerate() {
            let loaded = Key::load(&format!("auth.keys[{at}]"), key)?;
            apps.entry(key.app.clone()).or_default().push(loaded);
        }
        Ok(Self {
            apps,
            leeway: settings.leeway,
        })
    }

    /// Whether there are no keys at all: then everybody may come in.
    pub fn is_open(&self) -> bool {
        self.apps.is_empty()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.apps.values().map(Vec::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.is_open()
    }

    /// Whether this join may go on; `token` is what came with the upgrade. The join's own wins.
    ///
    /// # Errors
    /// [`AuthError`], for a 401 or 403.
    pub fn authorize(
        &self,
        mut join: JoinRequest,
        token: Option<&Token>,
    ) -> Result<Authorized, AuthError> {
        let own = join.token.take();
        if self.is_open() {
            return Ok(Authorized {
                request: join,
                grants: Grants::ALL,
                issued_at: None,
                has_expired: false,
            });
        }
        let token = own.as_ref().or(token).ok_or(AuthError::Missing)?;
        let claims = self.verify(join.room.app.as_str(), token)?;
        let has_expired = claims.has_expired(since_1970(), self.leeway)?;
        if has_expired && join.session.is_none() {
            return Err(AuthError::Expired);
        }
        claims.apply(join, has_expired)
    }

    /// What a token says, if it is signed with a key of `app`. Times are not looked at.
    ///
    /// # Errors
    /// [`AuthError`]
    pub fn verify(&self, app: &str, token: &Token) -> Result<Claims, AuthError> {
        let keys = self.apps.get(app).ok_or(AuthError::NoKey)?;
        let header = decode_header(token.expose()).map_err(|_| AuthError::Malformed)?;
        if header.crit.is_some() {
            return Err(AuthError::Critical);
        }
        let key = match (&header.kid, keys.as_slice()) {
            (None, [key]) => key,
            (None, _) => return Err(AuthError::NoKid),
            (Some(kid), keys) => {
                let named = keys.iter().find(|key| key.kid == *kid);
                named.ok_or(AuthError::UnknownKid)?
            }
        };
        if header.alg != key.algorithm {
            return Err(AuthError::Algorithm);
        }
        // Not by the crate's own validation: that stumbles over an `aud` or `sub` of a type that
        // it does not expect, and they are nothing to us.
        let token = token.expose();
        let (message, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
        let verified = verify(signature, message.as_bytes(), &key.decoding, key.algorithm);
        match verified {
            Ok(true) => {}
            Ok(false) => return Err(AuthError::Signature),
            Err(_) => return Err(AuthError::Malformed),
        }
        let claims = insecure_decode_claims(token).map_err(|_| AuthError::Malformed)?;
        Ok(Claims::new(claims))
    }
}

/// The time of day. A clock before 1970 lets no token expire; it is the operator's to set it.
pub fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

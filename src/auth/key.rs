//! One key that tokens are checked with.

use std::fs;

use jsonwebtoken::{Algorithm, DecodingKey};

use crate::settings::{AuthKey, SettingsError};

/// The shortest modulus of RS256 (RFC 7518 section 3.3), in bytes.
const MIN_RSA_BYTES: usize = 2048 / 8;

/// An uncompressed point of P-256, which is what ES256 signs with (RFC 7518 section 3.4), in bytes.
const P256_BYTES: usize = 65;

/// A key. Its algorithm is its own: what a token says of that is only compared.
#[derive(Clone)]
pub struct Key {
    /// Its name; "" where it has none.
    pub kid: String,
    /// How it signs.
    pub algorithm: Algorithm,
    /// What tokens are checked with.
    pub decoding: DecodingKey,
}

impl Key {
    /// The key of `settings`, which stand at `at`, like `auth.keys[0]`.
    ///
    /// # Errors
    /// [`SettingsError`] where a file cannot be read or holds no such key.
    pub fn load(at: &str, settings: &AuthKey) -> Result<Self, SettingsError> {
        let public = |new: fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>, what, fits| {
            public_key(at, settings, new, what, fits)
        };
        let (algorithm, decoding) = match settings.alg.as_str() {
            "HS256" => {
                let secret = secret(at, settings)?;
                (Algorithm::HS256, DecodingKey::from_secret(&secret))
            }
            "RS256" => {
                let fits = |bytes| bytes > MIN_RSA_BYTES;
                let what = "an RSA public key of 2048 bits at least";
                let key = public(DecodingKey::from_rsa_pem, what, fits)?;
                (Algorithm::RS256, key)
            }
            "ES256" => {
                let fits = |bytes| bytes == P256_BYTES;
                let what = "an EC public key on the curve P-256";
                let key = public(DecodingKey::from_ec_pem, what, fits)?;
                (Algorithm::ES256, key)
            }
            "EdDSA" => {
                let what = "an Ed25519 public key";
                let key = public(DecodingKey::from_ed_pem, what, |bytes| bytes == 32)?;
                (Algorithm::EdDSA, key)
            }
            other => {
                return Err(SettingsError::Invalid {
                    key: format!("{at}.alg"),
                    value: format!("{other:?}"),
                    remedy: "must be HS256, RS256, ES256 or EdDSA".into(),
                });
            }
        };
        Ok(Self {
            kid: settings.kid.clone(),
            algorithm,
            decoding,
        })
    }
}

/// The secret of HS256, from the settings or the file that they name. White space at the file's
/// end is not part of it: editors put it there.
///
/// # Errors
/// [`SettingsError`] where the file cannot be read.
pub fn secret(at: &str, settings: &AuthKey) -> Result<Vec<u8>, SettingsError> {
    if settings.secret_file.is_empty() {
        return Ok(settings.secret.expose().as_bytes().to_vec());
    }
    let secret = read(&format!("{at}.secret_file"), &settings.secret_file)?;
    Ok(secret.trim_ascii_end().to_vec())
}

fn public_key(
    at: &str,
    settings: &AuthKey,
    new: fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>,
    what: &str,
    fits: fn(usize) -> bool,
) -> Result<DecodingKey, SettingsError> {
    let at = format!("{at}.public_key_file");
    let file = &settings.public_key_file;
    let pem = read(&at, file)?;
    // A private key would be taken for a public one, and fit no signature.
    let is_private = pem
        .windows(b"PRIVATE KEY".len())
        .any(|words| words == b"PRIVATE KEY");
    let key = Some(pem).filter(|_| !is_private);
    let key = key.and_then(|pem| new(&pem).ok());
    let fits = |key: &DecodingKey| key.try_get_as_bytes().is_ok_and(|bytes| fits(bytes.len()));
    key.filter(fits).ok_or_else(|| SettingsError::Invalid {
        key: at,
        value: format!("{file:?}"),
        remedy: format!("must be {what} in PEM, as {} needs it", settings.alg),
    })
}

fn read(key: &str, file: &str) -> Result<Vec<u8>, SettingsError> {
    fs::read(file).map_err(|e| SettingsError::Invalid {
        key: key.to_owned(),
        value: format!("{file:?}"),
        remedy: format!("must be a file that can be read: {e}"),
    })
}

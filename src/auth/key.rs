//! One key that tokens are checked with.

use std::{fs, ops::RangeInclusive};

use jsonwebtoken::{Algorithm, DecodingKey};

use crate::settings::{AuthKey, SettingsError};

/// The moduli of RS256, in bits: the shortest of RFC 7518 section 3.3, and the longest with which
/// aws-lc checks a signature.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

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
                let fits = |key: &[u8]| rsa_bits(key).is_some_and(|bits| RSA_BITS.contains(&bits));
                let what = "an RSA public key of 2048 to 8192 bits";
                let key = public(DecodingKey::from_rsa_pem, what, fits)?;
                (Algorithm::RS256, key)
            }
            "ES256" => {
                let fits = |key: &[u8]| key.len() == P256_BYTES;
                let what = "an EC public key on the curve P-256";
                let key = public(DecodingKey::from_ec_pem, what, fits)?;
                (Algorithm::ES256, key)
            }
            "EdDSA" => {
                let what = "an Ed25519 public key";
                let key = public(DecodingKey::from_ed_pem, what, |key| key.len() == 32)?;
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
    fits: fn(&[u8]) -> bool,
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
    let fits = |key: &DecodingKey| key.try_get_as_bytes().is_ok_and(fits);
    key.filter(fits).ok_or_else(|| SettingsError::Invalid {
        key: at,
        value: format!("{file:?}"),
        remedy: format!("must be {what} in PEM, as {} needs it", settings.alg),
    })
}

/// How many bits the modulus of an RSA public key has: the first integer of the sequence that is an
/// RSAPublicKey (RFC 8017 appendix A.1.1) in DER.
fn rsa_bits(key: &[u8]) -> Option<usize> {
    let (sequence, _) = der(0x30, key)?;
    let (modulus, _) = der(0x02, sequence)?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = modulus.get(zeros)?;
    Some((modulus.len() - zeros) * 8 - first.leading_zeros() as usize)
}

/// The content of an element with this tag, and what stands behind it (X.690 section 8.1).
fn der(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    if head[0] != tag {
        return None;
    }
    let (length, rest) = match usize::from(head[1]) {
        short @ ..=0x7f => (short, rest),
        // So many bytes of length follow; a file of more than 64 KiB is no key.
        long @ 0x81..=0x82 => {
            let (length, rest) = rest.split_at_checked(long - 0x80)?;
            let length = length
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn read(key: &str, file: &str) -> Result<Vec<u8>, SettingsError> {
    fs::read(file).map_err(|e| SettingsError::Invalid {
        key: key.to_owned(),
        value: format!("{file:?}"),
        remedy: format!("must be a file that can be read: {e}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An RSAPublicKey whose modulus has so many bits.
    fn rsa(bits: usize) -> Vec<u8> {
        let element = |tag: u8, content: &[u8]| {
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[tag, 0x82], &length[..], content].concat()
        };
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] = 0xff >> (bits.div_ceil(8) * 8 - bits);
        if modulus[0] & 0x80 != 0 {
            modulus.insert(0, 0);
        }
        let exponent = element(0x02, &[1, 0, 1]);
        element(0x30, &[element(0x02, &modulus), exponent].concat())
    }

    #[test]
    fn the_bits_of_a_modulus_are_counted() {
        for bits in [1, 512, 1024, 2040, 2047, 2048, 2049, 3072, 8192, 16384] {
            assert_eq!(rsa_bits(&rsa(bits)), Some(bits));
        }
    }

    #[test]
    fn what_is_no_rsa_key_has_no_bits() {
        let key = rsa(2048);
        for end in 0..key.len() - 5 {
            assert_eq!(rsa_bits(&key[..end]), None, "cut at {end}");
        }
        assert_eq!(rsa_bits(&[0x30, 3, 2, 1, 0]), None, "no modulus but 0");
        assert_eq!(rsa_bits(&[0x30, 0x84, 0, 0, 0, 3, 2, 1, 1]), None);
        assert_eq!(rsa_bits(&[0x31, 3, 2, 1, 1]), None);
    }
}

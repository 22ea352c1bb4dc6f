//! Keys for tests: pairs whose public half the server is told, and tokens signed with the other.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use meeting_server::settings::AuthKey;
use serde_json::{Value, json};

/// A key that tokens are signed with, and what the settings say of it.
#[derive(Clone)]
pub struct Signer {
    pub settings: AuthKey,
    pub algorithm: Algorithm,
    encoding: EncodingKey,
    /// The public key, where there is one: PEM.
    pub public_pem: String,
    /// The private one.
    pub private_pem: String,
}

impl Signer {
    /// Its entry in a settings file.
    pub fn entry(&self) -> String {
        let settings = &self.settings;
        format!(
            "[[auth.keys]]\napp = {:?}\nkid = {:?}\nalg = {:?}\nsecret = {:?}\n\
             public_key_file = {:?}\n",
            settings.app,
            settings.kid,
            settings.alg,
            settings.secret.expose(),
            settings.public_key_file,
        )
    }

    /// A shared secret.
    pub fn hs256(app: &str, kid: &str) -> Self {
        Self::with_secret(
            app,
            kid,
            &format!("the secret of {app} {kid}, long enough for a hash"),
        )
    }

    pub fn with_secret(app: &str, kid: &str, secret: &str) -> Self {
        Self {
            settings: AuthKey {
                secret: serde_json::from_value(json!(secret)).unwrap(),
                ..settings(app, kid, "HS256")
            },
            algorithm: Algorithm::HS256,
            encoding: EncodingKey::from_secret(secret.as_bytes()),
            public_pem: String::new(),
            private_pem: String::new(),
        }
    }

    pub fn rs256(app: &str, kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let encoding = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self::of_pair(app, kid, Algorithm::RS256, &pair, encoding)
    }

    pub fn es256(app: &str, kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let encoding = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self::of_pair(app, kid, Algorithm::ES256, &pair, encoding)
    }

    pub fn eddsa(app: &str, kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let encoding = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self::of_pair(app, kid, Algorithm::EdDSA, &pair, encoding)
    }

    fn of_pair(
        app: &str,
        kid: &str,
        algorithm: Algorithm,
        pair: &rcgen::KeyPair,
        encoding: EncodingKey,
    ) -> Self {
        let public_pem = pair.public_key_pem();
        let file = temporary(&public_pem);
        Self {
            settings: AuthKey {
                public_key_file: file.to_str().unwrap().to_owned(),
                ..settings(app, kid, &format!("{algorithm:?}"))
            },
            algorithm,
            encoding,
            public_pem,
            private_pem: pair.serialize_pem(),
        }
    }

    /// A token with these claims, and an `exp` in an hour where they have none.
    pub fn token(&self, claims: Value) -> String {
        let mut claims = claims;
        let exp = now() + 3600;
        claims
            .as_object_mut()
            .unwrap()
            .entry("exp")
            .or_insert(json!(exp));
        self.sign(&claims)
    }

    /// A token with exactly these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.settings.kid.clone()).filter(|kid| !kid.is_empty());
        self.sign_with(&header, claims)
    }

    /// A token with this header.
    pub fn sign_with(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.encoding).unwrap()
    }
}

fn settings(app: &str, kid: &str, alg: &str) -> AuthKey {
    AuthKey {
        app: app.into(),
        kid: kid.into(),
        alg: alg.into(),
        secret: Default::default(),
        secret_file: String::new(),
        public_key_file: String::new(),
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A file of this test run with this text in it.
pub fn temporary(text: &str) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!(
        "{}-{}.pem",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path
}

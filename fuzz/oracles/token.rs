//! The check of a token: nothing is let in that was not signed with a key of the app, whatever its
//! header says, and of what was signed only what its claims allow.

use std::{collections::BTreeSet, path::Path, time::Duration};

use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use meeting_server::{
    auth::{
        AuthError, Authorized,
        keyring::{Keyring, since_1970},
    },
    grants::Grants,
    ids::{App, Channel, ClaimedSession, Device, Endpoint, RoomName},
    protocol::{
        request::{JoinRequest, Role},
        token::Token,
    },
    settings::{Auth, AuthKey},
};
use serde_json::{Map, Value, json};

/// The secrets of the apps that have one.
const SECRET: &str = "the secret of the app hs, which everybody may know";
const OTHER_SECRET: &str = "the secret of another key, which everybody may know";

/// The apps: one key each, but for "two", which has two that their `kid` tells apart.
const APPS: [&str; 6] = ["hs", "rs256", "es256", "eddsa", "two", "none"];

/// Some session; whether it is anybody's is not for this check to say.
const SESSION: &str = "1f6c0f4e-3f0b-4f5e-9a63-0c9a3f2f7c11";

const LEEWAY: f64 = 10.0;

/// The keys of a server, and what forgers have of them.
pub struct Forge {
    keyring: Keyring,
    /// Tokens that are good for ever, by app; nobody has the private keys any more.
    good: Vec<(&'static str, String)>,
    /// What a forger tries as a secret, the two real ones first.
    secrets: Vec<String>,
}

impl Forge {
    /// With the public keys, and the tokens signed with the private ones, of this directory.
    pub fn new(keys: &Path) -> Self {
        let file = |name: String| {
            let path = keys.join(name);
            let text = std::fs::read_to_string(&path);
            let text = text.unwrap_or_else(|error| panic!("{path:?}: {error}"));
            (path, text)
        };
        let secret = |app: &str, kid: &str, secret: &str| AuthKey {
            secret: serde_json::from_value(json!(secret)).unwrap(),
            ..key(app, kid, "HS256")
        };
        let mut settings = vec![secret("hs", "", SECRET), secret("two", "a", OTHER_SECRET)];
        let mut good = Vec::new();
        let mut secrets = vec![SECRET.to_owned(), OTHER_SECRET.to_owned(), String::new()];
        for (app, alg) in [("rs256", "RS256"), ("es256", "ES256"), ("eddsa", "EdDSA")] {
            let (path, pem) = file(format!("{app}.pem"));
            let public = |app: &str, kid: &str| AuthKey {
                public_key_file: path.to_str().unwrap().to_owned(),
                ..key(app, kid, alg)
            };
            settings.push(public(app, ""));
            if app == "rs256" {
                settings.push(public("two", "b"));
            }
            // What everybody may know, as the secret of an HMAC.
            let der = pem.lines().filter(|line| !line.starts_with('-')).collect();
            secrets.extend([pem.trim_end().to_owned(), der, pem]);
            good.push((app, file(format!("{app}.token")).1.trim().to_owned()));
        }
        let leeway = Duration::from_secs_f64(LEEWAY);
        let keyring = Keyring::load(&Auth {
            leeway,
            keys: settings,
        })
        .unwrap();
        let claims = json!({
            "exp": 9_007_199_254_740_992_u64, "app": "hs", "channel": "c", "endpoint": "anna",
        });
        let parts = [r#"{"alg":"HS256"}"#.into(), claims.to_string()];
        good.push(("hs", signed(parts.each_ref().map(String::as_bytes), SECRET)));
        Self {
            keyring,
            good,
            secrets,
        }
    }

    /// One byte that says what is tried, one that says where, and what is tried.
    pub fn check(&self, input: &[u8]) {
        let [what, place, rest @ ..] = input else {
            return;
        };
        let join = Join {
            app: APPS[usize::from(place & 0x3f) % APPS.len()],
            with_session: place & 0x80 != 0,
            endpoint: ["", "anna"][usize::from(place >> 6 & 1)],
        };
        match what % 3 {
            0 => self.any_text(&join, rest),
            1 => self.signed_claims(&join, rest),
            _ => self.a_changed_token(&join, rest),
        }
    }

    /// What somebody makes up, or has copied.
    fn any_text(&self, join: &Join, text: &[u8]) {
        let Some(token) = std::str::from_utf8(text).ok().and_then(Token::new) else {
            return;
        };
        if self.authorize(join, &token).is_ok() {
            let is_known = self.good.iter().any(|(_, good)| good == token.expose());
            assert!(
                is_known || is_signed_by(&token, self.secrets_of(join.app)),
                "{token:?}"
            );
        }
    }

    /// A header and claims, signed with something: one byte says with what, one how long the
    /// header is.
    fn signed_claims(&self, join: &Join, input: &[u8]) {
        let [secret, len, rest @ ..] = input else {
            return;
        };
        let (header, claims) = rest.split_at(rest.len().min(usize::from(*len)));
        let secret = &self.secrets[usize::from(*secret) % self.secrets.len()];
        let Some(token) = Token::new(&signed([header, claims], secret)) else {
            return;
        };
        let before = since_1970().as_secs_f64();
        let authorized = self.authorize(join, &token);
        let after = since_1970().as_secs_f64();
        let header: Value = serde_json::from_slice(header).unwrap_or_default();
        let claims: Value = serde_json::from_slice(claims).unwrap_or_default();
        let is_plain = [
            json!({"alg": "HS256"}),
            json!({"alg": "HS256", "typ": "JWT"}),
        ];
        let is_plain = is_plain.contains(&header) && rest.iter().all(|byte| *byte != b'\\');
        let verdict = Model {
            join,
            claims: claims.as_object(),
            before,
            after,
        }
        .verdict();
        match authorized {
            Ok(authorized) => {
                assert!(
                    self.secrets_of(join.app).contains(&secret.as_str()),
                    "{header}"
                );
                assert_eq!(header["alg"], "HS256");
                assert!(header["crit"].is_null());
                match join.app {
                    "two" => assert_eq!(header["kid"], "a"),
                    _ => assert!([json!(null), json!("")].contains(&header["kid"])),
                }
                let claims = claims.as_object().expect("it was let in");
                verdict.expect("it was let in");
                says_what_was_granted(join, claims, &authorized);
                assert!(!authorized.has_expired || join.with_session);
            }
            Err(error) => {
                // Why not, where nothing but the claims can be the reason.
                if join.app == "hs" && secret == SECRET && is_plain {
                    match verdict {
                        Ok(()) => panic!("{error}: {claims}"),
                        Err(None) => {}
                        Err(Some(code)) => assert_eq!(error.code() as u16, code, "{claims}"),
                    }
                }
            }
        }
    }

    /// A good token with some of its bytes changed: three bytes a change.
    fn a_changed_token(&self, join: &Join, input: &[u8]) {
        let [which, edits @ ..] = input else {
            return;
        };
        let (app, good) = &self.good[usize::from(*which) % self.good.len()];
        let join = Join {
            app,
            endpoint: "anna",
            ..*join
        };
        let mut text = good.clone().into_bytes();
        for edit in edits.chunks_exact(3).take(8) {
            let at = usize::from(u16::from_be_bytes([edit[0] & 3, edit[1]])) % text.len();
            match edit[0] >> 2 & 3 {
                0 => text[at] = edit[2] & 0x7f,
                1 => text.insert(at, edit[2] & 0x7f),
                2 if text.len() > 1 => drop(text.remove(at)),
                _ => text[at] ^= 1 << (edit[2] % 7),
            }
        }
        let token = Token::new(std::str::from_utf8(&text).expect("it is ASCII")).unwrap();
        let is_let_in = self.authorize(&join, &token).is_ok();
        assert_eq!(is_let_in, text == good.as_bytes(), "{app}");
    }

    fn authorize(&self, join: &Join, token: &Token) -> Result<Authorized, AuthError> {
        let inside = JoinRequest {
            token: Some(token.clone()),
            ..join.request()
        };
        let authorized = self.keyring.authorize(join.request(), Some(token));
        let with_it = self.keyring.authorize(inside, None);
        match (&authorized, &with_it) {
            // Only time may have passed between them.
            (Ok(a), Ok(b)) => assert_eq!(a.request, b.request),
            (Err(a), Err(b)) => assert_eq!(a.code() as u16, b.code() as u16),
            _ => {}
        }
        if let Err(error) = &authorized {
            let said = format!("{error} {error:?}");
            let is_long = |part: &&str| part.len() > 24 && !part.contains(' ');
            for part in token.expose().split('.').filter(is_long) {
                assert!(!said.contains(part), "{said}");
            }
        }
        authorized
    }

    /// What an app's tokens may be signed with that is a secret.
    fn secrets_of(&self, app: &str) -> &'static [&'static str] {
        match app {
            "hs" => &[SECRET],
            "two" => &[OTHER_SECRET],
            _ => &[],
        }
    }
}

fn key(app: &str, kid: &str, alg: &str) -> AuthKey {
    AuthKey {
        app: app.into(),
        kid: kid.into(),
        alg: alg.into(),
        secret: Default::default(),
        secret_file: String::new(),
        public_key_file: String::new(),
    }
}

/// A header and claims with their HMAC-SHA256.
fn signed(parts: [&[u8]; 2], secret: &str) -> String {
    let message = parts.map(base64url).join(".");
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn is_signed_by(token: &Token, secrets: &[&str]) -> bool {
    let Some((message, signature)) = token.expose().rsplit_once('.') else {
        return false;
    };
    secrets.iter().any(|secret| {
        let key = EncodingKey::from_secret(secret.as_bytes());
        sign(message.as_bytes(), &key, Algorithm::HS256).unwrap() == signature
    })
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = [0; 3];
        bits[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
        for digit in 0..=chunk.len() {
            text.push(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize] as char);
        }
    }
    text
}

/// The join that a token comes with.
struct Join {
    app: &'static str,
    endpoint: &'static str,
    with_session: bool,
}

impl Join {
    fn request(&self) -> JoinRequest {
        JoinRequest {
            room: RoomName {
                app: App::new(self.app).unwrap(),
                channel: Channel::new("c").unwrap(),
            },
            endpoint: Endpoint::new(self.endpoint).ok(),
            role: None,
            device: None,
            token: None,
            last_event: None,
            session: ClaimedSession::new(SESSION).filter(|_| self.with_session),
        }
    }
}

// ----- the model: which claims are good for a join -----

struct Model<'a> {
    join: &'a Join,
    claims: Option<&'a Map<String, Value>>,
    /// The time before it was asked, and after.
    before: f64,
    after: f64,
}

impl Model<'_> {
    /// `Err`: it is refused, with this code where only one thing is wrong with it.
    fn verdict(&self) -> Result<(), Option<u16>> {
        let Some(claims) = self.claims else {
            return Err(Some(401));
        };
        let mut codes = BTreeSet::new();
        match time(claims, "exp") {
            Err(()) | Ok(None) => drop(codes.insert(401)),
            Ok(Some(exp)) if self.join.with_session => {
                let _whenever = exp;
            }
            Ok(Some(exp)) if exp + LEEWAY <= self.before => drop(codes.insert(401)),
            // It may have expired in between.
            Ok(Some(exp)) if exp + LEEWAY <= self.after => return Err(None),
            Ok(Some(_)) => {}
        }
        match time(claims, "nbf") {
            Err(()) => drop(codes.insert(401)),
            Ok(Some(nbf)) if nbf - LEEWAY > self.after => drop(codes.insert(401)),
            Ok(Some(nbf)) if nbf - LEEWAY > self.before => return Err(None),
            Ok(_) => {}
        }
        for (claim, asked) in [("app", self.join.app), ("channel", "c")] {
            match claims.get(claim) {
                None => {}
                Some(Value::String(said)) if said == asked => {}
                Some(Value::String(_)) => drop(codes.insert(403)),
                Some(_) => drop(codes.insert(401)),
            }
        }
        let is_name = |text: &str| text.len() <= 128 && !text.chars().any(char::is_control);
        match claims.get("endpoint") {
            None => {}
            Some(Value::String(said)) if !said.is_empty() && is_name(said) => {
                let asked = self.join.endpoint;
                if !asked.is_empty() && asked != said {
                    codes.insert(403);
                }
            }
            Some(_) => drop(codes.insert(401)),
        }
        match claims.get("device") {
            None => {}
            Some(Value::String(said)) if is_name(said) => {}
            Some(_) => drop(codes.insert(401)),
        }
        match claims.get("role").map(Value::as_str) {
            None | Some(Some("normal" | "recorder" | "relayer")) => {}
            Some(_) => drop(codes.insert(401)),
        }
        match claims.get("grants") {
            None => {}
            // Unknown words are ignored.
            Some(Value::Array(grants)) if grants.iter().all(Value::is_string) => {}
            Some(_) => drop(codes.insert(401)),
        }
        match codes.len() {
            0 => Ok(()),
            1 => Err(codes.first().copied()),
            _ => Err(None),
        }
    }
}

fn time(claims: &Map<String, Value>, claim: &str) -> Result<Option<f64>, ()> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let seconds = number.as_f64().ok_or(())?;
            let in_range = (-9_007_199_254_740_992.0..=9_007_199_254_740_992.0).contains(&seconds);
            if in_range { Ok(Some(seconds)) } else { Err(()) }
        }
        Some(_) => Err(()),
    }
}

fn says_what_was_granted(join: &Join, claims: &Map<String, Value>, authorized: &Authorized) {
    let request = &authorized.request;
    assert_eq!(request.token, None, "it has served");
    let said = |claim: &str| claims.get(claim).and_then(Value::as_str).map(str::to_owned);
    let asked = Some(join.endpoint.to_owned()).filter(|endpoint| !endpoint.is_empty());
    let endpoint = request.endpoint.as_ref().map(|e| e.as_str().to_owned());
    assert_eq!(endpoint, said("endpoint").or(asked));
    let device = request.device.as_ref().map(Device::as_str);
    assert_eq!(device, said("device").as_deref());
    assert_eq!(request.role.map(Role::as_str), said("role").as_deref());
    let grants = match claims.get("grants").and_then(Value::as_array) {
        None => Grants::ALL,
        Some(list) => Grants {
            publish: list.contains(&json!("publish")),
            broadcast: list.contains(&json!("broadcast")),
        },
    };
    assert_eq!(authorized.grants, grants);
}

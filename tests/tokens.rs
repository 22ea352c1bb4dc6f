//! Who may come in: tokens in all three places, of all four algorithms, forged in all ways known,
//! expired and not yet valid, and what they grant.

mod common;

use std::time::Duration;

use common::{
    keys::{Signer, now},
    openmetrics::Figures,
    *,
};
use jsonwebtoken::{Algorithm, Header};
use meeting_server::{
    auth::keyring::Keyring,
    ids::SessionId,
    protocol::{
        request::{Envelope, JoinRequest, Request},
        token::Token,
    },
    settings::Settings,
};
use serde_json::{Value, json};

const APP: &str = "test";

fn server(signers: &[&Signer]) -> Server {
    server_with(signers, |_| {})
}

fn server_with(signers: &[&Signer], change: impl FnOnce(&mut Settings)) -> Server {
    Server::with(|settings| {
        settings.server.workers = 4;
        settings.server.ops_bind = Some("127.0.0.1:0".parse().unwrap());
        settings.auth.keys = signers
            .iter()
            .map(|signer| signer.settings.clone())
            .collect();
        change(settings);
    })
}

fn join(token: &str) -> Value {
    json!({"app": APP, "channel": "room", "endpoint": "anna", "token": token})
}

/// Joins and is let in; its `data`.
fn let_in(server: &Server, data: Value) -> (Client, Value) {
    let mut client = server.connect();
    let data = client.join_with(data);
    (client, data)
}

/// Joins and is answered with this code, and then closed with 1008; the answer's sentence.
fn turned_away(mut client: Client, data: Value, code: u16) -> String {
    let answer = client.call("channel.join", data.clone());
    assert_eq!(answer["err"], code, "{data} {answer}");
    assert_eq!(answer["data"], json!({}));
    assert_eq!(client.closed(), 1008);
    let message = answer["err_msg"].as_str().unwrap().to_owned();
    if let Some(token) = data["token"].as_str() {
        for part in token.split('.').filter(|part| part.len() > 3) {
            assert!(!message.contains(part), "{message}");
        }
    }
    message
}

fn refused(server: &Server, data: Value, code: u16) -> String {
    turned_away(server.connect(), data, code)
}

// ------------------------------------------------------------------------------------- the place

#[test]
fn a_token_is_taken_from_the_join_the_url_or_the_head_in_this_order() {
    let key = Signer::hs256(APP, "");
    let server = server(&[&key]);
    let good = key.token(json!({}));
    let bad = key.token(json!({"channel": "elsewhere"}));
    let plain = json!({"app": APP, "channel": "room"});
    let with = |token: &str| json!({"app": APP, "channel": "room", "token": token});
    let connect = |url: Option<&str>, head: Option<&str>| {
        let path = match url {
            Some(token) => format!("/ws?x=1&token={token}"),
            None => "/ws".to_owned(),
        };
        let head = head.map(|head| format!("Authorization: {head}\r\n"));
        Client::connect_with_head(server.addr, &path, &head.unwrap_or_default())
    };
    let bearer = |token: &str| format!("Bearer {token}");
    for (url, head, data) in [
        (None, None, with(&good)),
        (Some(&good), None, plain.clone()),
        (None, Some(bearer(&good)), plain.clone()),
        (None, Some(format!("bEARER   {good}")), plain.clone()),
        // The first that is there wins, and an empty one is none.
        (Some(&bad), Some(bearer(&bad)), with(&good)),
        (Some(&good), Some(bearer(&bad)), plain.clone()),
        (Some(&good), None, with("")),
        (Some(&String::new()), Some(bearer(&good)), with("")),
        (
            Some(&good),
            None,
            json!({"app": APP, "channel": "room", "token": null}),
        ),
    ] {
        let mut client = connect(url.map(String::as_str), head.as_deref());
        client.join_with(data);
    }
    for (url, head, data) in [
        (Some(&good), Some(bearer(&good)), with(&bad)),
        (Some(&bad), Some(bearer(&good)), plain.clone()),
        (None, Some(bearer(&bad)), plain.clone()),
    ] {
        let client = connect(url.map(String::as_str), head.as_deref());
        turned_away(client, data, 403);
    }
    for head in ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", &good] {
        turned_away(connect(None, Some(head)), plain.clone(), 401);
    }
    let message = turned_away(connect(None, None), plain, 401);
    assert!(message.contains("token is needed"), "{message}");
}

#[test]
fn a_token_in_the_url_may_be_escaped() {
    let key = Signer::hs256(APP, "");
    let server = server(&[&key]);
    let escaped: String = key
        .token(json!({}))
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    let mut client = Client::connect_to(server.addr, &format!("/ws?token={escaped}"));
    client.join("room", "anna");
}

#[test]
fn a_token_of_a_wrong_type_is_a_bad_request() {
    let key = Signer::hs256(APP, "");
    let server = server(&[&key]);
    let mut client = server.connect();
    let data = json!({"app": APP, "channel": "room", "token": 7});
    assert_eq!(client.call("channel.join", data)["err"], 400);
    client.join_with(join(&key.token(json!({}))));
}

#[test]
fn without_keys_everybody_comes_in_whatever_the_token() {
    let server = Server::start();
    for token in ["", "nonsense", "a.b.c"] {
        let_in(&server, join(token));
    }
}

// ---------------------------------------------------------------------------------- the signature

#[test]
fn all_four_algorithms_are_taken_each_with_its_own_key() {
    let signers = [
        Signer::hs256("hs", ""),
        Signer::rs256("rs", ""),
        Signer::es256("es", ""),
        Signer::eddsa("ed", ""),
    ];
    let server = server(&signers.each_ref());
    for signer in &signers {
        for other in &signers {
            let data = json!({
                "app": signer.settings.app, "channel": "room", "token": other.token(json!({})),
            });
            if signer.settings.app == other.settings.app {
                let_in(&server, data);
            } else {
                refused(&server, data, 401);
            }
        }
    }
}

#[test]
fn an_app_without_a_key_lets_nobody_in() {
    let key = Signer::hs256("other", "");
    let server = server(&[&key]);
    refused(&server, join(&key.token(json!({}))), 401);
    refused(&server, join(&key.token(json!({"app": APP}))), 401);
}

#[test]
fn a_key_of_another_app_does_not_open_this_one() {
    let (ours, theirs) = (Signer::hs256(APP, "1"), Signer::hs256("other", "1"));
    let server = server(&[&ours, &theirs]);
    let message = refused(&server, join(&theirs.token(json!({}))), 401);
    assert!(message.contains("signature"), "{message}");
    let_in(&server, join(&ours.token(json!({}))));
}

#[test]
fn a_kid_chooses_among_several_keys_and_none_is_guessed() {
    let (old, new) = (Signer::hs256(APP, "old"), Signer::rs256(APP, "new"));
    let server = server(&[&old, &new]);
    for key in [&old, &new] {
        let_in(&server, join(&key.token(json!({}))));
    }
    let nameless = old.sign_with(&Header::new(Algorithm::HS256), &json!({"exp": now() + 60}));
    assert!(refused(&server, join(&nameless), 401).contains("no kid"));
    let mut header = Header::new(Algorithm::HS256);
    for kid in ["older", "", "OLD", "old ", "../old", "old\0"] {
        header.kid = Some(kid.into());
        let unknown = old.sign_with(&header, &json!({"exp": now() + 60}));
        assert!(
            refused(&server, join(&unknown), 401).contains("kid"),
            "{kid:?}"
        );
    }
    // One key's name over the other's signature.
    header.kid = Some("new".into());
    let crossed = old.sign_with(&header, &json!({"exp": now() + 60}));
    assert!(refused(&server, join(&crossed), 401).contains("alg"));
}

#[test]
fn one_key_needs_no_kid_but_a_kid_must_be_its_own() {
    let named = Signer::hs256(APP, "one");
    let server = server(&[&named]);
    let claims = json!({"exp": now() + 60});
    let mut header = Header::new(Algorithm::HS256);
    let_in(&server, join(&named.sign_with(&header, &claims)));
    header.kid = Some("one".into());
    let_in(&server, join(&named.sign_with(&header, &claims)));
    header.kid = Some("two".into());
    refused(&server, join(&named.sign_with(&header, &claims)), 401);
}

#[test]
fn the_algorithm_is_the_keys_never_the_headers() {
    let (rsa, ec, ed) = (
        Signer::rs256("rs", ""),
        Signer::es256("es", ""),
        Signer::eddsa("ed", ""),
    );
    let server = server(&[&rsa, &ec, &ed]);
    // The public key, which everybody may know, as the secret of HS256: in all forms it has.
    for signer in [&rsa, &ec, &ed] {
        let pem = &signer.public_pem;
        let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        for secret in [
            pem.as_str(),
            pem.trim_end(),
            &der,
            &pem.replace('\n', "\r\n"),
        ] {
            let forger = Signer::with_secret("", "", secret);
            let data = json!({
                "app": signer.settings.app, "channel": "room", "token": forger.token(json!({})),
            });
            assert!(refused(&server, data, 401).contains("alg"));
        }
    }
    // Another algorithm of the same family.
    let key = Signer::hs256(APP, "");
    let server = server_with(&[&key], |_| {});
    for alg in [Algorithm::HS384, Algorithm::HS512] {
        let token = key.sign_with(&Header::new(alg), &json!({"exp": now() + 60}));
        assert!(refused(&server, join(&token), 401).contains("alg"));
    }
}

/// base64url without padding (RFC 7515 section 2).
fn encode(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let mut bits = [0; 3];
        bits[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
        for digit in 0..=chunk.len() {
            encoded.push(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize] as char);
        }
    }
    encoded
}

#[test]
fn what_is_unsigned_or_no_token_is_refused() {
    let key = Signer::hs256(APP, "");
    let server = server(&[&key]);
    let good = key.token(json!({}));
    let [header, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts");
    };
    let forged = |head: &str| format!("{}.{claims}.", encode(head));
    let other = key.token(json!({"endpoint": "ben"}));
    let other_signature = other.rsplit('.').next().unwrap();
    let mut flipped = signature.to_owned();
    let first = if flipped.starts_with('A') { "B" } else { "A" };
    flipped.replace_range(..1, first);
    for token in [
        &forged(r#"{"alg":"none","typ":"JWT"}"#),
        &forged(r#"{"alg":"None"}"#),
        &forged(r#"{"alg":"NONE"}"#),
        &forged(r#"{"alg":"nOnE"}"#),
        &forged(r#"{"alg":""}"#),
        &forged(r#"{"alg":null}"#),
        &forged("{}"),
        &forged(r#"{"alg":"HS256"}"#),
        &forged(r#"{"alg":"HS256","alg":"none"}"#),
        &format!("{header}.{claims}."),
        &format!("{header}.{claims}"),
        &format!("{header}.{claims}.{flipped}"),
        &format!("{header}.{claims}.{}", &signature[..signature.len() - 1]),
        &format!("{header}.{claims}.{signature}="),
        &format!("{header}.{claims}.{signature}.{signature}"),
        &format!("{header}.{claims}.{other_signature}"),
        &format!("{header}.{}.{signature}", encode(r#"{"exp":9000000000}"#)),
        &format!(".{claims}.{signature}"),
        &format!(" {good}"),
        &format!("{good}\n"),
        &"..".to_owned(),
        &"x".to_owned(),
        &"会议".to_owned(),
        &"x".repeat(60_000),
        &".".repeat(60_000),
    ] {
        refused(&server, join(token), 401);
    }
    let_in(&server, join(&good));
}

#[test]
fn a_critical_header_that_nobody_understands_is_refused() {
    let key = Signer::hs256(APP, "");
    let server = server(&[&key]);
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["exp".into()]);
    let token = key.sign_with(&header, &json!({"exp": now() + 60}));
    assert!(refused(&server, join(&token), 401).contains("crit"));
}

// -------------------------------------------------------------------------------------- the time

#[test]
fn exp_and_nbf_hold_with_the_leeway_whole_and_in_fractions() {
    let key = Signer::hs256(APP, "");
    let leeway = 100;
    let server = server_with(&[&key], |settings| {
        settings.auth.leeway = Duration::from_secs(leeway);
    });
    let now = now();
    let sign = |claims: Value| join(&key.sign(&claims));
    // Far enough from the edge that a slow test is on the same side of it.
    for exp in [
        json!(now + 60),
        json!(now - leeway + 50),
        json!(now as f64 + 0.5),
        json!(now as f64 - leeway as f64 + 50.25),
        json!(9_007_199_254_740_992_u64),
        json!(9.007e15),
    ] {
        let_in(&server, sign(json!({"exp": exp})));
    }
    for (exp, why) in [
        (json!(now - leeway - 1), "expired"),
        (json!(now as f64 - leeway as f64 - 0.5), "expired"),
        (json!(0), "expired"),
        (json!(-1), "expired"),
        (json!(-0.5), "expired"),
        (json!(9_007_199_254_740_994_u64), "out of range"),
        (json!(u64::MAX), "out of range"),
        (json!(i64::MIN), "out of range"),
        (json!(1e300), "out of range"),
        (json!((now + 60).to_string()), "number"),
        (json!(null), "number"),
        (json!([now + 60]), "number"),
        (json!(true), "number"),
    ] {
        let message = refused(&server, sign(json!({"exp": exp})), 401);
        assert!(message.contains(why), "{exp}: {message}");
    }
    let message = refused(&server, sign(json!({"iat": now})), 401);
    assert!(message.contains("no exp"), "{message}");

    let exp = now + 3600;
    for nbf in [
        json!(now + leeway - 50),
        json!(0),
        json!(-7),
        json!(now as f64 - 0.5),
    ] {
        let_in(&server, sign(json!({"exp": exp, "nbf": nbf})));
    }
    for (nbf, why) in [
        (json!(now + leeway + 60), "not valid yet"),
        (json!(now as f64 + leeway as f64 + 60.5), "not valid yet"),
        (json!(now.to_string()), "number"),
        (json!(1e300), "out of range"),
        (json!(null), "number"),
    ] {
        let message = refused(&server, sign(json!({"exp": exp, "nbf": nbf})), 401);
        assert!(message.contains(why), "{nbf}: {message}");
    }
}

#[test]
fn a_number_that_no_double_holds_is_refused() {
    let key = Signer::hs256(APP, "");
    let server = server(&[&key]);
    // Signed as it is spelled.
    let text = format!(
        "{}.{}",
        encode(r#"{"alg":"HS256"}"#),
        encode(r#"{"exp":1e400}"#)
    );
    let secret = jsonwebtoken::EncodingKey::from_secret(
        format!("the secret of {APP} , long enough for a hash").as_bytes(),
    );
    let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &secret, Algorithm::HS256);
    refused(
        &server,
        join(&format!("{text}.{}", signature.unwrap())),
        401,
    );
}

#[test]
fn a_session_outlives_its_token_and_is_resumed_with_it() {
    let key = Signer::hs256(APP, "");
    let server = server_with(&[&key], |settings| {
        settings.auth.leeway = Duration::ZERO;
        settings.rooms.resume_window = Duration::from_secs(60);
    });
    let mut anna = server.connect();
    let exp = now() + 3;
    let token = key.token(json!({"exp": exp}));
    anna.join_with(join(&token));
    let session = anna.session.clone();
    // It expires, and she is still there.
    while now() < exp {
        anna.names();
    }
    refused(&server, join(&token), 401);
    anna.ok("broadcast", json!({}));
    anna.reset();
    // The session is the proof; a token that was never good is none.
    let resume = |client: &mut Client, data: Value| {
        client.session.clone_from(&session);
        let cseq = client.ask("channel.join", data);
        client.answer(cseq)
    };
    let mut forged = server.connect();
    let bad = key.token(json!({"channel": "elsewhere"}));
    assert_eq!(resume(&mut forged, join(&bad))["err"], 403);
    let mut without = server.connect();
    let plain = json!({"app": APP, "channel": "room", "endpoint": "anna"});
    assert_eq!(resume(&mut without, plain)["err"], 401);
    let mut stranger = server.connect();
    let mut ahead = join(&token);
    ahead["last_event"] = json!(1_000);
    let answer = resume(&mut stranger, ahead);
    assert_eq!(
        answer["err"], 401,
        "no resume, so an ordinary join: {answer}"
    );
    assert_eq!(stranger.closed(), 1008);
    let mut anna = server.connect();
    let answer = resume(&mut anna, join(&token));
    assert_eq!(answer["data"]["resumed"], true, "{answer}");
}

// ------------------------------------------------------------------------------------- the claims

#[test]
fn claims_that_are_there_must_match() {
    let key = Signer::hs256(APP, "");
    let server = server(&[&key]);
    let ask = json!({
        "app": APP, "channel": "room", "endpoint": "anna", "role": "normal", "device": "phone",
    });
    let with = |claims: Value| {
        let mut ask = ask.clone();
        ask["token"] = json!(key.token(claims));
        ask
    };
    for claims in [
        json!({}),
        json!({"app": APP}),
        json!({"channel": "room"}),
        json!({"endpoint": "anna"}),
        json!({"role": "normal"}),
        json!({"device": "phone"}),
        json!({"app": APP, "channel": "room", "endpoint": "anna", "role": "normal",
               "device": "phone", "aud": "somebody", "iss": 7, "sub": {}, "jti": null}),
    ] {
        let_in(&server, with(claims));
    }
    for (claim, other) in [
        ("app", "other"),
        ("app", ""),
        ("app", "Test"),
        ("channel", "room "),
        ("channel", "ROOM"),
        ("endpoint", "ann"),
        ("role", "recorder"),
        ("device", ""),
        ("device", "phones"),
    ] {
        let message = refused(&server, with(json!({claim: other})), 403);
        assert!(message.contains(claim), "{message}");
    }
    for (claim, wrong) in [
        ("app", json!(7)),
        ("app", json!(null)),
        ("channel", json!(["room"])),
        ("endpoint", json!({})),
        ("endpoint", json!("")),
        ("endpoint", json!("a\nb")),
        ("endpoint", json!("x".repeat(129))),
        ("role", json!("king")),
        ("role", json!(1)),
        ("device", json!(false)),
        ("device", json!("\u{7f}")),
        ("grants", json!("publish")),
        ("grants", json!(["publish", null])),
        ("grants", json!([["publish"]])),
        ("grants", json!({"publish": true})),
        ("grants", json!(null)),
    ] {
        let message = refused(&server, with(json!({claim: wrong})), 401);
        assert!(message.contains(claim), "{wrong}: {message}");
    }
}

#[test]
fn claims_fill_in_what_the_join_leaves_out() {
    let key = Signer::hs256(APP, "");
    let server = server(&[&key]);
    let token = key.token(json!({"endpoint": "anna", "role": "recorder", "device": "studio"}));
    let bare = json!({"app": APP, "channel": "room", "token": token});
    let (mut anna, data) = let_in(&server, bare.clone());
    assert_eq!(data["endpoint"], "anna");
    let row = json!({"endpoint": "anna", "device": "studio", "role": "recorder"});
    assert_eq!(anna.dump(), [row]);
    anna.ok("channel.leave", json!({}));
    let mut unnamed = bare;
    unnamed["endpoint"] = json!("");
    assert_eq!(let_in(&server, unnamed).1["endpoint"], "anna");
    // The URL's device is the client's word, and has to match too.
    let path = format!("/ws?device=laptop&token={token}");
    let client = Client::connect_to(server.addr, &path);
    turned_away(client, json!({"app": APP, "channel": "room"}), 403);
}

#[test]
fn a_token_with_an_endpoint_keeps_strangers_from_its_place() {
    let key = Signer::hs256(APP, "");
    let server = server(&[&key]);
    let (mut anna, _) = let_in(&server, join(&key.token(json!({"endpoint": "anna"}))));
    let mallory = key.token(json!({"endpoint": "mallory"}));
    refused(&server, join(&mallory), 403);
    assert_eq!(anna.names(), ["anna"]);
}

#[test]
fn grants_are_what_a_session_may_do_and_it_keeps_them() {
    let key = Signer::hs256(APP, "");
    let server = server_with(&[&key], |settings| {
        settings.rooms.resume_window = Duration::from_secs(60);
    });
    let cases = [
        (json!({}), true, true),
        (json!({"grants": ["publish", "broadcast"]}), true, true),
        (json!({"grants": ["publish"]}), true, false),
        (json!({"grants": ["broadcast", "broadcast"]}), false, true),
        (json!({"grants": []}), false, false),
        // A later server may know these words.
        (
            json!({"grants": ["fly", "publish", "Broadcast", ""]}),
            true,
            false,
        ),
        (json!({"grants": ["fly"]}), false, false),
    ];
    for (claims, publish, broadcast) in cases {
        let (mut anna, _) = let_in(&server, join(&key.token(claims.clone())));
        for resumed in [false, true] {
            if resumed {
                // With a token that would grant everything: the grants are the session's.
                let session = anna.session.clone();
                anna.reset();
                anna = server.connect();
                anna.session = session;
                let cseq = anna.ask("channel.join", join(&key.token(json!({}))));
                assert_eq!(anna.answer(cseq)["data"]["resumed"], true);
            }
            let code = |granted| if granted { 0 } else { 403 };
            let add = json!({"stream": stream("s1")});
            assert_eq!(
                anna.call("stream.add", add)["err"],
                code(publish),
                "{claims}"
            );
            let deleted = if publish { 0 } else { 404 };
            let delete = json!({"stream_id": "s1"});
            assert_eq!(anna.call("stream.delete", delete)["err"], deleted);
            assert_eq!(anna.call("broadcast", json!({}))["err"], code(broadcast));
            // The connection stays, and the rest is everybody's.
            assert_eq!(anna.names(), ["anna"]);
        }
        anna.ok("channel.leave", json!({}));
    }
}

/// Loses its connection and resumes with this token; the new connection.
fn resumed(server: &Server, client: Client, token: &str) -> Client {
    let session = client.session.clone();
    client.reset();
    let mut client = server.connect();
    client.session = session;
    let cseq = client.ask("channel.join", join(token));
    let answer = client.answer(cseq);
    assert_eq!(answer["data"]["resumed"], true, "{answer}");
    client
}

#[test]
fn a_resume_takes_the_grants_of_a_newer_token() {
    let key = Signer::hs256(APP, "");
    let server = server_with(&[&key], |settings| {
        settings.rooms.resume_window = Duration::from_secs(60);
    });
    let token = |iat: Value, grants: &[&str]| key.token(json!({"iat": iat, "grants": grants}));
    let first = token(json!(1_000.5), &["publish"]);
    let (mut anna, _) = let_in(&server, join(&first));
    // Each with whether it may broadcast and publish after it.
    let tokens = [
        (token(json!(1_000.5), &[]), false, true),
        (token(json!(1_000.25), &[]), false, true),
        (key.token(json!({"grants": []})), false, true),
        (token(json!("1001"), &[]), false, true),
        (token(json!(1_001), &["broadcast"]), true, false),
        (first, true, false),
        (token(json!(1e300), &["broadcast", "publish"]), true, true),
    ];
    for (n, (token, broadcast, publish)) in tokens.into_iter().enumerate() {
        anna = resumed(&server, anna, &token);
        let code = |granted| if granted { 0 } else { 403 };
        assert_eq!(
            anna.call("broadcast", json!({}))["err"],
            code(broadcast),
            "{n}"
        );
        let add = json!({"stream": stream("s1")});
        assert_eq!(anna.call("stream.add", add)["err"], code(publish), "{n}");
        if publish {
            anna.ok("stream.delete", json!({"stream_id": "s1"}));
        }
    }
}

#[test]
fn an_expired_token_changes_no_grants_at_a_resume() {
    let key = Signer::hs256(APP, "");
    let server = server_with(&[&key], |settings| {
        settings.auth.leeway = Duration::ZERO;
        settings.rooms.resume_window = Duration::from_secs(60);
    });
    let first = key.token(json!({"iat": 1, "grants": ["publish"]}));
    let (anna, _) = let_in(&server, join(&first));
    let expired = key.token(json!({"iat": 2, "exp": now() - 1}));
    let mut anna = resumed(&server, anna, &expired);
    assert_eq!(anna.call("broadcast", json!({}))["err"], 403);
}

#[test]
fn a_resume_whose_token_takes_publish_away_ends_the_stream() {
    let key = Signer::hs256(APP, "");
    let server = server_with(&[&key], |settings| {
        settings.rooms.resume_window = Duration::from_secs(60);
    });
    let (mut anna, _) = let_in(&server, join(&key.token(json!({"iat": 1}))));
    let ben = json!({"app": APP, "channel": "room", "endpoint": "ben",
        "token": key.token(json!({"iat": 1}))});
    let (mut ben, _) = let_in(&server, ben);
    anna.event("endpoint");
    anna.publish("s1");
    assert_eq!(ben.event("stream")["stat"], "publish");
    let mut anna = resumed(&server, anna, &key.token(json!({"iat": 2, "grants": []})));
    let ended = json!({"device": "", "endpoint": "anna", "stream": "s1", "stat": "unpublish"});
    assert_eq!(ben.event("stream"), ended);
    // She has not asked for it, so she gets the event too.
    assert_eq!(anna.event("stream"), ended);
    let dump = ben.ok("channel.dump", json!({}));
    assert_eq!(dump["endpoint_list"][0]["stream"], Value::Null);
}

#[test]
fn recorder_and_relayer_need_the_role_claim() {
    let key = Signer::hs256(APP, "");
    let server = server(&[&key]);
    for role in ["recorder", "relayer"] {
        let asking = |claims: Value| {
            let mut data = join(&key.token(claims));
            data["role"] = json!(role);
            data
        };
        let message = refused(&server, asking(json!({})), 403);
        assert!(message.contains(role), "{message}");
        refused(&server, asking(json!({"role": "normal"})), 403);
        for data in [
            asking(json!({"role": role})),
            join(&key.token(json!({"role": role}))),
        ] {
            let (mut anna, _) = let_in(&server, data);
            let dump = anna.ok("channel.dump", json!({}));
            assert_eq!(dump["endpoint_list"][0]["role"], role);
            anna.ok("channel.leave", json!({}));
        }
    }
    // "normal" needs none.
    let mut data = join(&key.token(json!({})));
    data["role"] = json!("normal");
    let_in(&server, data);
}

#[test]
fn a_refused_request_is_checked_for_its_shape_before_its_grant() {
    let key = Signer::hs256(APP, "");
    let server = server(&[&key]);
    let (mut anna, _) = let_in(&server, join(&key.token(json!({"grants": []}))));
    assert_eq!(anna.call("stream.add", json!({}))["err"], 400);
    assert_eq!(anna.call("broadcast", json!([]))["err"], 400);
    assert_eq!(
        anna.call("stream.add", json!({"stream": stream("s1")}))["err"],
        403
    );
}

// ----------------------------------------------------------------------------------- the way out

#[test]
fn a_bad_token_ends_the_session_that_the_connection_had() {
    let key = Signer::hs256(APP, "");
    let server = server(&[&key]);
    let (mut ben, _) = let_in(
        &server,
        json!({"app": APP, "channel": "room", "endpoint": "ben", "token": key.token(json!({}))}),
    );
    let (mut anna, _) = let_in(&server, join(&key.token(json!({}))));
    assert_eq!(ben.event("endpoint")["stat"], "join");
    // A good one, and she is in a room already: nothing happens.
    assert_eq!(
        anna.call("channel.join", join(&key.token(json!({}))))["err"],
        409
    );
    assert_eq!(anna.call("channel.join", join("forged"))["err"], 401);
    assert_eq!(anna.closed(), 1008);
    assert_eq!(ben.event("endpoint")["stat"], "leave");
}

#[test]
fn what_was_asked_before_is_answered_before_the_close() {
    let key = Signer::hs256(APP, "");
    let server = server(&[&key]);
    for _ in 0..20 {
        let (mut anna, _) = let_in(&server, join(&key.token(json!({}))));
        let mut asked: Vec<i64> = (0..20)
            .map(|n| anna.ask("broadcast", json!({"n": n})))
            .collect();
        asked.push(anna.ask("channel.join", join("forged")));
        let mut answered: Vec<i64> = (0..asked.len())
            .map(|_| anna.next()["cseq"].as_i64().unwrap())
            .collect();
        answered.sort_unstable();
        assert_eq!(answered, asked);
        assert_eq!(anna.closed(), 1008);
    }
}

#[test]
fn the_answer_of_a_bad_token_comes_before_the_close_even_where_the_socket_is_full() {
    const DUMPS: usize = 400;
    let key = Signer::hs256(APP, "");
    let server = server_with(&[&key], |settings| {
        settings.session.send_queue = 2 * DUMPS;
        settings.session.send_queue_bytes = 1 << 30;
        settings.session.send_timeout = Duration::from_secs(60);
        settings.rooms.resume_events = 4 * DUMPS;
    });
    let token = key.token(json!({}));
    // A dump of some 15 KB: so many of them fill every buffer between here and there.
    let _others: Vec<Client> = (0..20)
        .map(|n| {
            let name = format!("{n:x<128}");
            let join = json!({
                "app": APP, "channel": "room", "endpoint": name, "device": name, "token": token,
            });
            let mut client = let_in(&server, join).0;
            client.ok("stream.add", json!({"stream": stream(&name)}));
            client
        })
        .collect();
    let mut anna = Client::connect_narrow(server.addr);
    anna.join_with(join(&token));
    let asked: Vec<i64> = (0..DUMPS)
        .map(|_| anna.ask("channel.dump", json!({})))
        .collect();
    let last = anna.ask("channel.join", join("forged"));
    let refused = "meeting_server_requests_total{method=\"channel.join\",result=\"401\"}";
    Figures::when(server.ops, |f| f.get(refused) == Some(1.0));
    // An answer that needs no room may overtake others, but nothing the close.
    let mut answers: Vec<(i64, i64)> = (0..=DUMPS)
        .map(|_| anna.next())
        .map(|answer| {
            (
                answer["cseq"].as_i64().unwrap(),
                answer["err"].as_i64().unwrap(),
            )
        })
        .collect();
    answers.sort_unstable();
    let due = asked.iter().map(|cseq| (*cseq, 0)).chain([(last, 401)]);
    assert_eq!(answers, due.collect::<Vec<_>>());
    assert_eq!(anna.closed(), 1008);
}

#[test]
fn a_refused_join_touches_neither_the_session_it_names_nor_its_window() {
    let key = Signer::hs256(APP, "");
    let server = server_with(&[&key], |settings| {
        settings.rooms.resume_window = Duration::from_secs(60);
    });
    let (anna, _) = let_in(&server, join(&key.token(json!({}))));
    let session = anna.session.clone();
    anna.reset();
    let lost = |f: &Figures| f["meeting_server_sessions_detached"] == 1.0;
    Figures::when(server.ops, lost);
    for token in ["forged".to_owned(), key.token(json!({"channel": "x"}))] {
        let mut client = server.connect();
        client.session.clone_from(&session);
        let cseq = client.ask("channel.join", join(&token));
        assert_ne!(client.answer(cseq)["err"], 0);
        assert_eq!(client.closed(), 1008);
    }
    Figures::when(server.ops, lost);
    let mut anna = server.connect();
    anna.session = session;
    let cseq = anna.ask("channel.join", join(&key.token(json!({}))));
    assert_eq!(anna.answer(cseq)["data"]["resumed"], true);
}

// ------------------------------------------------------------------------------------ the prints

#[test]
fn no_debug_print_shows_a_token_a_key_or_a_session() {
    let key = Signer::with_secret(APP, "", "ganz-geheim-und-lang-genug-fuer-alles");
    let mut settings = Settings::defaults();
    settings.auth.keys = vec![key.settings.clone()];
    let keyring = Keyring::load(&settings.auth).unwrap();
    let (good, bad) = (key.token(json!({})), format!("{}x", key.token(json!({}))));
    let session = SessionId::generate();
    let text = json!({
        "method": "channel.join", "session": session.as_str(), "data": join(&good),
    });
    let text = text.to_string();
    let (envelope, reply_to) = Envelope::parse(&text).unwrap();
    let Request::Join(request) = envelope.request().unwrap() else {
        panic!("it is a join");
    };
    let token = request.token.clone().unwrap();
    let forged = Token::new(&bad);
    let error = keyring.authorize(
        JoinRequest {
            token: None,
            ..request.clone()
        },
        forged.as_ref(),
    );
    let prints = [
        format!("{settings:?} {settings:#?}"),
        format!("{keyring:?} {token:?} {forged:?}"),
        format!("{request:?} {reply_to:?} {:?}", envelope.request()),
        format!("{:?}", keyring.verify(APP, &token)),
        format!("{:?}", keyring.authorize(request, None)),
        format!("{error:?} {}", error.as_ref().unwrap_err()),
    ];
    for print in prints {
        assert!(!print.contains("geheim"), "{print}");
        assert!(!print.contains(&session.as_str()[8..]), "{print}");
        for part in good.split('.') {
            assert!(!print.contains(part), "{print}");
        }
    }
}

/// A token of about this length: the server ignores claims that it does not know.
fn long_token(signer: &Signer, bytes: usize) -> String {
    let claims = json!({"exp": now() + 60, "pad": "x".repeat(bytes * 3 / 4)});
    signer.sign(&claims)
}

#[test]
fn a_token_of_the_url_serves_a_second_join_unless_it_is_long() {
    let signer = Signer::hs256(APP, "");
    let server = server(&[&signer]);
    let short = long_token(&signer, 3_000);
    let long = long_token(&signer, 50_000);
    assert!(short.len() < 4_096 && long.len() > 50_000);
    let own = json!({"app": APP, "channel": "room", "endpoint": "anna"});
    let by_url = |token: &str| Client::connect_to(server.addr, &format!("/ws?token={token}"));
    let by_header = |token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        Client::connect_with_head(server.addr, "/ws", &header)
    };
    for mut client in [by_url(&short), by_header(&short)] {
        for _ in 0..3 {
            client.join_with(own.clone());
            client.ok("channel.leave", json!({}));
        }
    }
    for mut client in [by_url(&long), by_header(&long)] {
        // A join that is not granted does not use it up.
        let mut wrong = own.clone();
        wrong["endpoint"] = json!(7);
        assert_eq!(client.call("channel.join", wrong)["err"], 400);
        client.join_with(own.clone());
        client.ok("channel.leave", json!({}));
        client.join_with(join(&long));
        client.ok("channel.leave", json!({}));
        client.session.clear();
        let message = turned_away(client, own.clone(), 401);
        assert!(
            message.starts_with("a token is needed in data.token: "),
            "{message}"
        );
    }
}

#[test]
fn an_expired_token_in_a_full_house_gets_401() {
    let key = Signer::hs256(APP, "");
    let server = server_with(&[&key], |settings| {
        settings.rooms.max_rooms = 1;
        settings.rooms.max_members = 1;
        settings.auth.leeway = Duration::ZERO;
    });
    let good = key.token(json!({}));
    let expired = key.token(json!({"exp": now() - 60}));
    let (_anna, _) = let_in(&server, join(&good));
    for channel in ["room", "another"] {
        let mut data = json!({"app": APP, "channel": channel, "endpoint": "ben", "token": good});
        let mut ben = server.connect();
        assert_eq!(ben.call("channel.join", data.clone())["err"], 503);
        data["token"] = json!(expired);
        let made_up = json!({
            "cseq": 1, "method": "channel.join", "data": data,
            "session": "3ff72ca1-c9aa-42f1-96d3-d5834b2320ea",
        });
        let mut carl = server.connect();
        carl.send(&made_up);
        assert_eq!(carl.answer(1)["err"], 401, "{channel}");
        assert_eq!(carl.closed(), 1008);
    }
}

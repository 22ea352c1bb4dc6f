//! The commands that make keys and tokens and tell why one is refused, as a user tries them; keys
//! in files; and new keys by SIGHUP, without dropping anybody.

mod common;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use common::{
    keys::{Signer, temporary},
    log_line::Format,
    process::Process,
    wire::Certificate,
    *,
};
use serde_json::{Value, json};

/// What a command came to.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn binary(settings: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meeting-server"));
    command
        .env_clear()
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .arg("--config")
        .arg(settings)
        .args(args);
    command
}

fn run(settings: &Path, args: &[&str], stdin: &str) -> Said {
    let mut child = binary(settings, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(stdin.as_bytes())
        .unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    Said {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

fn ok(settings: &Path, args: &[&str]) -> String {
    let said = run(settings, args, "");
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    said.out
}

/// The one line of a failure.
fn fails(settings: &Path, args: &[&str], code: i32) -> String {
    let said = run(settings, args, "");
    assert_eq!((said.code, said.out.as_str()), (code, ""), "{said:?}");
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    said.err
}

/// A settings file with these entries of `auth.keys`.
fn settings_with(keys: &[&Signer]) -> PathBuf {
    let entries = keys.iter().map(|key| key.entry());
    temporary(&entries.collect::<String>())
}

fn empty() -> PathBuf {
    temporary("")
}

#[test]
fn a_key_and_a_token_are_two_commands_away() {
    let entry = ok(&empty(), &["gen-key", "--app", "de\"mo"]);
    assert_ne!(
        entry,
        ok(&empty(), &["gen-key", "--app", "de\"mo"]),
        "no key twice"
    );
    let settings = temporary(&entry);
    let token = ok(
        &settings,
        &[
            "gen-token",
            "--app",
            "de\"mo",
            "--channel",
            "c",
            "--endpoint",
            "e",
            "--role",
            "recorder",
            "--device",
            "d",
            "--ttl",
            "1h",
            "--grant",
            "publish",
            "--grant",
            "broadcast",
        ],
    );
    let said = ok(&settings, &["check-token", token.trim()]);
    for line in [
        "app: de\"mo",
        "channel: c",
        "endpoint: e",
        "role: recorder",
        "device: d",
        "may publish: yes",
        "may broadcast: yes",
    ] {
        assert!(
            said.lines().any(|said| said == line),
            "no {line:?} in {said}"
        );
    }
    let plain = ok(
        &settings,
        &["gen-token", "--app", "de\"mo", "--grant", "publish"],
    );
    let said = ok(
        &settings,
        &["check-token", "--channel", "any", plain.trim()],
    );
    assert!(said.contains("may broadcast: no"), "{said}");
    // On standard input, where no list of processes shows it.
    for args in [&["check-token"][..], &["check-token", "-"]] {
        let said = run(&settings, args, &token);
        assert_eq!(said.code, 0, "{said:?}");
    }
}

/// What a token says, unverified.
fn claims(token: &str) -> Value {
    let claims = jsonwebtoken::dangerous::insecure_decode_claims(token.trim());
    claims.unwrap()
}

#[test]
fn a_token_says_when_it_was_made_and_may_grant_nothing() {
    let settings = settings_with(&[&Signer::hs256("demo", "")]);
    let token = |more: &[&str]| {
        let said = ok(
            &settings,
            &[&["gen-token", "--app", "demo"][..], more].concat(),
        );
        claims(&said)
    };
    let now = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.unwrap().as_secs()
    };
    let before = now();
    let plain = token(&["--ttl", "90s"]);
    let iat = plain["iat"].as_u64().unwrap();
    assert!((before..=now()).contains(&iat), "{plain}");
    assert_eq!(plain["exp"], iat + 90);
    assert_eq!(plain.get("grants"), None);
    assert_eq!(token(&["--grant", "none"])["grants"], json!([]));
    assert_eq!(
        token(&["--grant", "broadcast"])["grants"],
        json!(["broadcast"])
    );
    let args = [
        "gen-token",
        "--app",
        "demo",
        "--grant",
        "none",
        "--grant",
        "publish",
    ];
    assert!(fails(&settings, &args, 2).contains("none"));

    let nothing = ok(
        &settings,
        &["gen-token", "--app", "demo", "--grant", "none"],
    );
    let said = ok(&settings, &["check-token", nothing.trim()]);
    for line in ["may publish: no", "may broadcast: no"] {
        assert!(said.lines().any(|said| said == line), "{said}");
    }
}

#[test]
fn a_token_of_each_algorithm_is_made_and_found_good() {
    let keys = [
        Signer::hs256("hs", "1"),
        Signer::rs256("rs", "1"),
        Signer::es256("es", "1"),
        Signer::eddsa("ed", "1"),
    ];
    let settings = settings_with(&keys.each_ref());
    for key in &keys {
        let app = key.settings.app.as_str();
        let mut args = vec!["gen-token", "--app", app];
        let private = temporary(&key.private_pem);
        if key.settings.alg != "HS256" {
            assert!(fails(&settings, &args, 1).contains("--private-key-file"));
            args.extend(["--private-key-file", private.to_str().unwrap()]);
        }
        let token = ok(&settings, &args);
        ok(&settings, &["check-token", token.trim()]);
    }
    let wrong = temporary(&keys[1].private_pem);
    let args = [
        "gen-token",
        "--app",
        "es",
        "--private-key-file",
        wrong.to_str().unwrap(),
    ];
    assert!(fails(&settings, &args, 1).contains("ES256"));
}

#[test]
fn check_token_says_why_one_is_refused_and_never_shows_it() {
    let (key, other) = (Signer::hs256("demo", "1"), Signer::hs256("demo", "2"));
    let settings = settings_with(&[&key]);
    let old = key.sign(&json!({"app": "demo", "exp": 1}));
    let good = key.token(json!({"app": "demo", "channel": "c"}));
    let strange = other.token(json!({"app": "demo"}));
    let nameless = key.token(json!({}));
    for (args, why) in [
        (vec![old.as_str()], "401"),
        (vec![old.as_str()], "expired"),
        (vec![strange.as_str()], "kid"),
        (vec![good.as_str(), "--channel", "d"], "403"),
        (vec![good.as_str(), "--app", "other"], "no key"),
        (vec![nameless.as_str()], "--app"),
        (vec!["nonsense", "--app", "demo"], "not a JWT"),
        (vec![good.as_str(), "--role", "king"], "role"),
    ] {
        let line = fails(&settings, &[&["check-token"], &args[..]].concat(), 1);
        assert!(line.contains(why), "no {why} in {line}");
        assert!(!line.contains(args[0]), "{line}");
    }
    let open = ok(&empty(), &["check-token", "whatever"]);
    assert!(open.contains("everybody is let in"), "{open}");
}

#[test]
fn gen_token_says_what_it_lacks() {
    let keys = [Signer::hs256("demo", "1"), Signer::hs256("demo", "2")];
    let settings = settings_with(&keys.each_ref());
    assert!(fails(&settings, &["gen-token", "--app", "demo"], 1).contains("--kid"));
    ok(&settings, &["gen-token", "--app", "demo", "--kid", "2"]);
    assert!(fails(&settings, &["gen-token", "--app", "demo", "--kid", "3"], 1).contains("gen-key"));
    assert!(fails(&settings, &["gen-token", "--app", "nope"], 1).contains("gen-key"));
    for bad in [["--ttl", "soon"], ["--role", "king"], ["--grant", "fly"]] {
        fails(
            &settings,
            &[&["gen-token", "--app", "demo"][..], &bad].concat(),
            2,
        );
    }
}

#[test]
fn a_file_that_holds_no_such_key_is_refused_before_anything_is_served() {
    let ec = Signer::es256("es", "");
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let ed = Signer::eddsa("ed", "");
    for (alg, text) in [
        ("RS256", "nothing"),
        ("RS256", &ec.public_pem),
        ("RS256", &Signer::rs256("rs", "").private_pem),
        // 1,024 bits, and 2,047, whose DER is as long as that of 2,048.
        ("RS256", SHORT_RSA),
        ("RS256", NEARLY_LONG_RSA),
        ("ES256", &ed.public_pem),
        ("ES256", &ec.private_pem),
        ("ES256", &p384.public_key_pem()),
        ("EdDSA", &ec.public_pem),
        ("EdDSA", &ed.private_pem),
        ("EdDSA", ""),
    ] {
        let file = temporary(text);
        let settings = temporary(&format!(
            "[[auth.keys]]\napp = \"a\"\nalg = {alg:?}\npublic_key_file = {file:?}\n"
        ));
        for args in [&["--check-config"][..], &["--bind", "127.0.0.1:0"]] {
            let line = fails(&settings, args, 2);
            assert!(line.contains("auth.keys[0].public_key_file"), "{line}");
            assert!(line.contains(alg), "{line}");
            assert_eq!(line.contains("2048 to 8192 bits"), alg == "RS256", "{line}");
        }
    }
}

const NEARLY_LONG_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIIBITANBgkqhkiG9w0BAQEFAAOCAQ4AMIIBCQKCAQBonFUzfsmuvmU0pdhL4CX3
yL+gJahhFjDSJ/ojX3MkZvt/3YSeI683wOVEv9QRaUgafkb6FN0gKiECOn6G4yno
+7glX4yvctGRoqLg539QzU+wlyLMoMA3fOITpWTDRyefN7L/o29RAYTQtlnrLhry
2poCMFDqnUj3DlvqTmHSxxzLAamkS8d0kXDPPOdmfQ/TcHJKpfMCz6SAkSklg2/b
SUqTSkS+l5HMMI7P9FjQimvu2EQNzjt+NTdQVjPQbmRuU9Jkef0N5LJ9gY/kJ41w
dpv9XFmr280CY1gfZYDDeQK+AwkgdsfNp1GfyIprwHWLDdryVtTRR56vpz8h9/ez
AgMBAAE=
-----END PUBLIC KEY-----
";

const SHORT_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDdlatRjRjogo3WojgGHFHYLugd
UWAY9iR3fy4arWNA1KoS8kVw33cJibXr8bvwUAUparCwlvdbH6dvEOfou0/gCFQs
HUfQrSDv+MuSUMAe8jzKE4qW+jK+xQU9a03GUnKHkkle+Q0pX/g6jXZ7r1/xAK5D
o2kQ+X5xK9cipRgEKwIDAQAB
-----END PUBLIC KEY-----
";

// ---------------------------------------------------------------------------- while it serves

fn join(token: &str, endpoint: &str) -> Value {
    json!({"app": "test", "channel": "room", "endpoint": endpoint, "token": token})
}

fn answer(process: &Process, token: &str) -> Value {
    let mut client = process.connect();
    client.call("channel.join", join(token, "stranger"))["err"].clone()
}

#[test]
fn no_key_and_no_token_is_made_that_is_good_for_nothing() {
    let long = "x".repeat(129);
    let settings = settings_with(&[&Signer::hs256("demo", "")]);
    for wrong in ["", "a\nb", &long] {
        fails(&settings, &["gen-key", "--app", wrong], 2);
        for claim in ["--channel", "--endpoint"] {
            let args = ["gen-token", "--app", "demo", claim, wrong];
            let line = fails(&settings, &args, 2);
            assert!(line.contains(claim), "{line}");
        }
    }
}

#[test]
fn a_hangup_brings_new_keys_and_drops_nobody() {
    let (old, new) = (Signer::hs256("test", "old"), Signer::rs256("test", "new"));
    let config = settings_with(&[&old]);
    let mut process = Process::with_config(Format::Text, &config);
    let (by_old, by_new) = (old.token(json!({})), new.token(json!({})));
    let mut anna = process.connect();
    anna.join_with(join(&by_old, "anna"));
    assert_eq!(answer(&process, &by_new), 401);

    // Both for a while, so that tokens that are under way still hold.
    fs::copy(settings_with(&[&old, &new]), &config).unwrap();
    process.signal("HUP");
    process.line("configuration reloaded");
    assert_eq!(answer(&process, &by_old), 0);
    assert_eq!(answer(&process, &by_new), 0);

    // What is wrong is said, and the keys stay.
    for wrong in [
        "[[auth.keys]]\napp = \"test\"\nalg = \"none\"\n",
        "[[auth.keys]\n",
        "[nonsense]\nx = 1\n",
        "[[auth.keys]]\napp = \"test\"\nalg = \"RS256\"\npublic_key_file = \"gone.pem\"\n",
    ] {
        fs::write(&config, wrong).unwrap();
        process.signal("HUP");
        let line = process.line("configuration not reloaded, the previous one stays in effect");
        assert!(line["error"].starts_with("settings: "), "{line:?}");
        assert_eq!(answer(&process, &by_old), 0);
        assert_eq!(answer(&process, &by_new), 0);
    }

    fs::copy(settings_with(&[&new]), &config).unwrap();
    process.signal("HUP");
    process.line("configuration reloaded");
    assert_eq!(answer(&process, &by_old), 401);
    assert_eq!(answer(&process, &by_new), 0);
    // Anna's session is older than the keys, and hers.
    let cseq = anna.ask("channel.dump", json!({}));
    let mut message = anna.next();
    while message["cseq"] != cseq {
        message = anna.next();
    }
    assert_eq!(message["err"], 0);
}

#[test]
fn a_hangup_over_a_broken_file_shows_nothing_of_it() {
    let secret = "ganz-geheim-und-lang-genug-fuer-alles";
    let config = temporary("");
    let mut process = Process::with_config(Format::Text, &config);
    for wrong in [
        format!("[[auth.keys]]\napp = \"a\"\nalg = \"HS256\"\nsecret = \"{secret}"),
        format!("[[auth.keys]]\napp = \"a\"\nalg = \"HS256\"\nsecrt = \"{secret}\""),
        format!("[[auth.keys]]\napp = \"a\"\nalg = \"RS256\"\nsecret = \"{secret}\""),
    ] {
        fs::write(&config, wrong).unwrap();
        process.signal("HUP");
        process.line("configuration not reloaded, the previous one stays in effect");
    }
    process.signal("TERM");
    process.ended();
    for line in &process.log {
        assert!(!line.contains("geheim"), "{line}");
    }
}

/// Replaces a file by a FIFO, which no process writes to: opening it waits for ever.
fn hang(file: &Path) {
    fs::remove_file(file).unwrap();
    let made = std::process::Command::new("mkfifo").arg(file).status();
    assert!(made.unwrap().success());
}

#[test]
fn a_hangup_over_a_file_that_hangs_delays_nothing() {
    let (key, certificate) = (Signer::rs256("test", ""), Certificate::new());
    let public_key = temporary("");
    fs::copy(&key.settings.public_key_file, &public_key).unwrap();
    let config = temporary(&format!(
        "[[auth.keys]]\napp = \"test\"\nalg = \"RS256\"\npublic_key_file = {public_key:?}\n\
         [tls]\ncert_file = {:?}\nkey_file = {:?}\n",
        certificate.cert_file, certificate.key_file
    ));
    for file in [&public_key, &certificate.cert_file, &config] {
        let mut process = Process::with_config(Format::Text, &config);
        let before = fs::read(file).unwrap();
        hang(file);
        process.signal("HUP");
        // While it waits for the file, requests and further signals are served.
        for _ in 0..2 {
            process.signal("HUP");
            assert_eq!(common::http::get(process.ops, "/livez").status, 200);
        }
        if file == &config {
            let line = process.line("configuration not reloaded, the previous one stays in effect");
            assert_eq!(&line["error"], "reading them took longer than 5 s");
        }
        process.signal("TERM");
        let begun = Instant::now();
        let (status, _) = process.ended();
        assert!(status.success(), "{status}");
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "it waits for the file"
        );
        fs::remove_file(file).unwrap();
        fs::write(file, before).unwrap();
    }
    // The file is read once it is there again.
    let mut process = Process::with_config(Format::Text, &config);
    process.signal("HUP");
    process.line("configuration reloaded");
}

#[test]
fn a_secret_in_a_file_is_read_again_at_a_hangup() {
    let secret = temporary("the first secret, which is long enough for a hash\n");
    let config = temporary(&format!(
        "[[auth.keys]]\napp = \"test\"\nalg = \"HS256\"\nsecret_file = {secret:?}\n"
    ));
    let mut process = Process::with_config(Format::Json, &config);
    let first = Signer::with_secret(
        "test",
        "",
        "the first secret, which is long enough for a hash",
    );
    let second = Signer::with_secret(
        "test",
        "",
        "the second secret, long enough for a hash too..",
    );
    let (first, second) = (first.token(json!({})), second.token(json!({})));
    assert_eq!(answer(&process, &first), 0);
    assert_eq!(answer(&process, &second), 401);
    fs::write(&secret, "the second secret, long enough for a hash too..").unwrap();
    process.signal("HUP");
    process.line("configuration reloaded");
    assert_eq!(answer(&process, &first), 401);
    assert_eq!(answer(&process, &second), 0);
}

#[test]
fn no_token_and_no_secret_stands_in_the_log() {
    let key = Signer::hs256("test", "");
    let config = settings_with(&[&key]);
    let mut process = Process::start_with(Format::Json, "trace", &config, &[]);
    let good = key.token(json!({"channel": "room"}));
    let bad = key.token(json!({"channel": "elsewhere"}));
    let mut tokens = vec![good.clone(), bad.clone()];
    assert_eq!(answer(&process, &good), 0);
    assert_eq!(answer(&process, &bad), 403);
    let query = key.token(json!({"jti": "query"}));
    let head = key.token(json!({"jti": "head"}));
    let path = format!("/ws?token={query}");
    let authorization = format!("Authorization: Bearer {head}\r\n");
    let mut client = Client::connect_with_head(process.addr, &path, &authorization);
    client.join("room", "anna");
    // Where nobody expects one.
    let mut lost = Client::tcp(process.addr);
    lost.write(format!("GET /nowhere?token={query} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    lost.read_http_head();
    tokens.extend([query, head]);
    process.signal("TERM");
    let (_, lines) = process.ended();
    assert!(lines.len() > 5);
    for line in &process.log {
        assert!(!line.contains(key.settings.secret.expose()), "{line}");
        for part in tokens.iter().flat_map(|token| token.split('.').skip(1)) {
            assert!(!line.contains(part), "{line}");
        }
    }
}

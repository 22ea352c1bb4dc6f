//! What the command line comes to where its output cannot be written.

mod common;

use std::{
    fs::OpenOptions,
    process::{Command, Output, Stdio},
};

use common::keys::{Signer, temporary};

fn full() -> Stdio {
    OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

fn binary(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meeting-server"));
    command
        .env_clear()
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .args(args)
        .stdin(Stdio::null());
    command
}

#[test]
fn a_failure_keeps_its_exit_code_where_its_line_cannot_be_written() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap().to_string();
    for (args, code) in [
        (&["--bogus"][..], 2),
        (&["--config", "/nowhere"], 2),
        (&["gen-token", "--app", "nope"], 1),
        (&["--bind", &bind], 1),
    ] {
        let status = binary(args)
            .stdout(Stdio::null())
            .stderr(full())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn output_that_is_lost_is_exit_code_1_and_one_line() {
    let key = Signer::hs256("demo", "");
    let settings = temporary(&format!(
        "[[auth.keys]]\napp = \"demo\"\nalg = \"HS256\"\nsecret = {:?}\n",
        key.settings.secret.expose()
    ));
    let settings = settings.to_str().unwrap();
    for args in [
        &["--version"][..],
        &["--help"],
        &["gen-token", "--help"],
        &["gen-key"],
        &["--check-config", "--config", settings],
        &["gen-token", "--app", "demo", "--config", settings],
    ] {
        let Output { status, stderr, .. } = binary(args)
            .stdout(full())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{args:?}: {stderr}");
        let line = stderr.strip_suffix('\n').unwrap();
        let words = "meeting-server: standard output cannot be written: ";
        assert!(line.starts_with(words) && !line.contains('\n'), "{stderr}");
        // Nor with both of them.
        let status = binary(args).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{args:?}");
    }
}

//! The client library in `client/`: how the server hands it out, and what the two make of each
//! other. The library's tests are its own, in `client/test`, and run in Node; those that need a
//! server start the binary that this test names.

mod common;

use std::{
    io::Write,
    path::Path,
    process::{Command, Output},
};

use common::{
    http::{get, get_with},
    *,
};

/// What a browser is told about a file: its tag.
fn tag(head: &str) -> &str {
    let line = head.lines().find_map(|line| line.strip_prefix("etag: "));
    line.unwrap_or_else(|| panic!("no tag: {head}"))
}

#[test]
fn the_module_and_its_types_are_served_as_they_are() {
    let server = Server::start();
    let files = [
        (
            "/client.js",
            "text/javascript; charset=utf-8",
            include_str!("../client/client.js"),
        ),
        (
            "/client.d.ts",
            "application/typescript; charset=utf-8",
            include_str!("../client/client.d.ts"),
        ),
    ];
    for (path, content_type, text) in files {
        let response = get(server.addr, path);
        assert_eq!(response.status, 200);
        let head = response.head.to_ascii_lowercase();
        for line in [
            format!("content-type: {content_type}"),
            "x-content-type-options: nosniff".to_owned(),
            "cache-control: no-cache".to_owned(),
            "access-control-allow-origin: *".to_owned(),
        ] {
            assert!(head.contains(&format!("\r\n{line}")), "{line} in {head}");
        }
        assert!(
            response.body == text,
            "{path} is the file in the repository"
        );
    }
}

#[test]
fn a_browser_that_has_the_file_is_not_sent_it_again() {
    let server = Server::start();
    let head = get(server.addr, "/client.js").head.to_ascii_lowercase();
    let known = format!("If-None-Match: {}\r\n", tag(&head));
    let response = get_with(server.addr, "/client.js", &known);
    assert_eq!(response.status, 304);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(tag(&response.head.to_ascii_lowercase()), tag(&head));
    assert_eq!(response.body, "");
    // One that no program should send is none.
    let response = get_with(server.addr, "/client.js", "If-None-Match: \u{e9}\r\n");
    assert_eq!(response.status, 200);
    let response = get_with(server.addr, "/client.js", "If-None-Match: \"other\"\r\n");
    assert_eq!(response.status, 200);
    let response = get_with(server.addr, "/client.d.ts", &known);
    assert_eq!(response.status, 200, "each file has a tag of its own");
}

#[test]
fn the_library_has_a_key_of_its_own() {
    // The page imports the library, so it is there wherever the page is.
    for (demo, library, there) in [
        (true, true, true),
        (true, false, true),
        (false, true, true),
        (false, false, false),
    ] {
        let server = Server::with(|settings| {
            settings.server.demo = demo;
            settings.server.client_library = library;
        });
        for path in ["/client.js", "/client.d.ts"] {
            let response = get(server.addr, path);
            let status = if there { 200 } else { 404 };
            assert_eq!(response.status, status, "{demo} {library} {path}");
            let any = response.header("access-control-allow-origin");
            assert_eq!(any, there.then_some("*"), "{demo} {library} {path}");
        }
        assert_eq!(get(server.addr, "/").status == 200, demo);
    }
}

#[test]
fn a_page_of_another_origin_reads_no_file_but_the_library() {
    let server = Server::start();
    for path in ["/", "/page.js", "/words.js", "/healthz", "/metrics"] {
        let response = get_with(server.addr, path, "Origin: https://other.example\r\n");
        assert_eq!(
            response.header("access-control-allow-origin"),
            None,
            "{path}"
        );
    }
}

/// Runs a program that is not ours; `None` if it is not there.
fn run(command: &mut Command) -> Option<Output> {
    command.output().ok()
}

/// What is missing to run the library's tests.
fn missing(client: &Path) -> Option<&'static str> {
    match run(Command::new("node").arg("--version")) {
        None => Some("node is not installed"),
        Some(_) if !client.join("node_modules/ws").exists() => {
            Some("client/node_modules is not there: run `npm ci` in client/")
        }
        Some(_) => None,
    }
}

#[test]
fn the_library_and_the_server_understand_each_other() {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("client");
    if let Some(missing) = missing(&client) {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "{missing}");
        // Past the test runner, which keeps what is printed to itself.
        let skipped = "SKIPPED: the client library is not tested against the server";
        writeln!(std::io::stderr(), "{skipped}: {missing}").unwrap();
        return;
    }
    let output = run(Command::new("node")
        .args(["--test", "--test-reporter=tap", "test/server.test.mjs"])
        .current_dir(&client)
        .env("MEETING_SERVER_BIN", env!("CARGO_BIN_EXE_meeting-server")))
    .expect("node is there");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let count = |what: &str| -> usize {
        let line = text.lines().find_map(|line| line.strip_prefix(what));
        line.and_then(|number| number.trim().parse().ok())
            .unwrap_or_else(|| panic!("no `{what}` in {text}"))
    };
    assert!(count("# pass ") > 10, "{text}");
    assert_eq!(count("# skipped "), 0, "{text}");
}

//! The page's files over plain HTTP: what each is, what it may do, and that none is missing.

mod common;

use std::collections::BTreeSet;

use common::{http::*, *};

/// What may stand behind the page, and its type.
const FILES: [(&str, &str); 15] = [
    ("/", "text/html; charset=utf-8"),
    ("/page.css", "text/css; charset=utf-8"),
    ("/icon.svg", "image/svg+xml; charset=utf-8"),
    ("/page.js", "text/javascript; charset=utf-8"),
    ("/words.js", "text/javascript; charset=utf-8"),
    ("/dom.js", "text/javascript; charset=utf-8"),
    ("/chat.js", "text/javascript; charset=utf-8"),
    ("/tail.js", "text/javascript; charset=utf-8"),
    ("/members.js", "text/javascript; charset=utf-8"),
    ("/publishing.js", "text/javascript; charset=utf-8"),
    ("/camera.js", "text/javascript; charset=utf-8"),
    ("/inspector.js", "text/javascript; charset=utf-8"),
    ("/wire-text.js", "text/javascript; charset=utf-8"),
    ("/client.js", "text/javascript; charset=utf-8"),
    ("/client.d.ts", "application/typescript; charset=utf-8"),
];

#[test]
fn each_file_says_what_it_is_and_what_it_may_do() {
    let server = Server::start();
    for (path, content_type) in FILES {
        let response = get(server.addr, path);
        assert_eq!(response.status, 200, "{path}");
        assert!(!response.body.is_empty(), "{path}");
        assert_eq!(
            response.header("content-type"),
            Some(content_type),
            "{path}"
        );
        assert_eq!(response.header("cache-control"), Some("no-cache"), "{path}");
        assert_eq!(
            response.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        assert_eq!(
            response.header("referrer-policy"),
            Some("no-referrer"),
            "{path}"
        );
        let policy = response.header("content-security-policy").expect(path);
        let rules: BTreeSet<&str> = policy.split("; ").collect();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(rules.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
    }
}

/// The files that a text names: `src="x"`, `href="x"`, `from "./x"`.
fn named(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for mark in [
        "src=\"",
        "href=\"",
        "from \"",
        "import(\"",
        "@import \"",
        "url(",
    ] {
        for (at, _) in text.match_indices(mark) {
            let rest = &text[at + mark.len()..];
            let end = rest.find(['"', ')']).expect("an end");
            names.insert(rest[..end].to_owned());
        }
    }
    names
}

#[test]
fn every_file_that_is_named_is_there_and_beside_the_page() {
    let server = Server::start();
    let mut seen = BTreeSet::from(["/".to_owned()]);
    let mut due = vec!["/".to_owned()];
    while let Some(path) = due.pop() {
        let response = get(server.addr, &path);
        assert_eq!(response.status, 200, "{path}");
        // What the library's own documentation says is nothing that a browser follows.
        if path.starts_with("/client.") {
            continue;
        }
        for name in named(&response.body) {
            // No outside address, and none that a proxy's path would spoil.
            assert!(
                !name.contains("//") && !name.starts_with('/'),
                "{path} names {name}"
            );
            let next = format!("/{}", name.trim_start_matches("./"));
            if seen.insert(next.clone()) {
                due.push(next);
            }
        }
    }
    assert_eq!(seen, FILES.map(|(path, _)| path.to_owned()).into());
}

#[test]
fn without_demo_none_is_there() {
    let server = Server::with(|settings| settings.server.demo = false);
    for (path, _) in FILES {
        let library = path.starts_with("/client.");
        let status = if library { 200 } else { 404 };
        assert_eq!(get(server.addr, path).status, status, "{path}");
    }
    assert_eq!(get(server.addr, "/healthz").status, 200);
}

#[test]
fn they_are_not_the_operators() {
    let server = Server::with(|settings| {
        settings.server.ops_bind = Some("127.0.0.1:0".parse().unwrap());
    });
    for (path, _) in FILES {
        assert_eq!(get(server.ops, path).status, 404, "{path}");
    }
}

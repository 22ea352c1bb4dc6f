//! A connection before its upgrade: it ends as soon as its client has gone or has its answer,
//! whatever the client has sent, and nothing that follows an upgrade request is lost.

mod common;

use std::{
    io::{Read, Write},
    net::Shutdown,
    time::Duration,
};

use common::{log_line::Format, openmetrics::Figures, process::Process, wire::*, *};
use serde_json::json;

/// Much longer than any test: a connection that ends here was not ended by its deadline.
const NO_DEADLINE: Duration = Duration::from_secs(3600);

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What a client may have sent when it goes away.
fn beginnings() -> Vec<(&'static str, Vec<u8>)> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let long = |head: &str, pad: usize| [head.as_bytes(), &vec![b'x'; pad]].concat();
    vec![
        ("nothing", Vec::new()),
        ("half a head", bytes("GET /ws HTTP/1.1\r\nHost: x\r\nUpgr")),
        (
            "a chunked request without its body",
            bytes("POST /ws HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ),
        (
            "a chunked request with half its body",
            bytes("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
        ),
        (
            "a request without its body",
            bytes("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"),
        ),
        (
            "a request that waits for 100 Continue",
            bytes(
                "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\
                 Transfer-Encoding: chunked\r\n\r\n",
            ),
        ),
        (
            "an upgrade with a body",
            bytes(&UPGRADE.replace("Host: x", "Host: x\r\nTransfer-Encoding: chunked")),
        ),
        (
            "a head over 64 KiB",
            long("GET /ws HTTP/1.1\r\nHost: x\r\nX-Pad: ", 70_000),
        ),
        (
            "a request line over 64 KiB",
            long("GET /ws?token=", 300_000),
        ),
        (
            "a request with 200 KB behind it",
            long(
                "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
                200_000,
            ),
        ),
        (
            "two requests",
            bytes("GET / HTTP/1.1\r\nHost: x\r\n\r\n").repeat(2),
        ),
    ]
}

#[test]
fn clients_that_have_gone_hold_no_descriptor() {
    for under_tls in [false, true] {
        let mut settings = vec![("SESSION__JOIN_TIMEOUT", "1h")];
        let tls = CERTIFICATE.settings();
        if under_tls {
            settings.push(("TLS__CERT_FILE", &tls.cert_file));
            settings.push(("TLS__KEY_FILE", &tls.key_file));
        }
        let process = Process::start(Format::Text, "info", &settings);
        if under_tls {
            is_under_tls(process.addr);
        }
        // Its threads open some of their own first.
        assert_eq!(http::get(process.ops, "/livez").status, 200);
        let before = procfs::open_files(&process);
        for (what, bytes) in beginnings() {
            let clients: Vec<Client> = (0..20)
                .map(|_| {
                    let mut client = Client::tcp(process.addr);
                    // A server that has answered already may have closed its end.
                    let _ = client.stream.write_all(&bytes);
                    client
                })
                .collect();
            if under_tls && bytes.is_empty() {
                // In the middle of the TLS handshake.
                for client in &clients {
                    let mut tcp: &std::net::TcpStream = &client.stream;
                    tcp.write_all(&[22, 3, 1]).unwrap();
                }
            }
            drop(clients);
            procfs::when(
                || procfs::open_files(&process),
                |files| *files <= before,
                &format!("descriptors after {what}, TLS: {under_tls}"),
            );
        }
        Figures::when(process.ops, |f| {
            f.get("meeting_server_connections") == Some(0.0)
        });
    }
}

#[test]
fn a_head_over_64_kib_gets_431_at_once() {
    for under_tls in [false, true] {
        let server = Server::with(|settings| {
            settings.session.join_timeout = NO_DEADLINE;
            if under_tls {
                settings.tls = CERTIFICATE.settings();
            }
        });
        for size in [66_000, 300_000] {
            let mut client = Client::tcp(server.addr);
            client.write(b"GET /ws HTTP/1.1\r\nHost: x\r\nX-Pad: ");
            client.write(&vec![b'x'; size]);
            let mut answer = String::new();
            client.stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
            assert!(answer.ends_with("are longer than 64 KB\n"), "{answer}");
        }
        // A head that is as long as that and no longer is read.
        let mut client = Client::tcp(server.addr);
        let pad = format!("X-Pad: {}\r\n", "x".repeat(60_000));
        client.upgrade(server.addr, "/ws", &pad);
        client.join("c", "anna");
    }
}

#[test]
fn a_request_body_that_never_comes_delays_no_close() {
    let server = Server::with(|settings| settings.session.join_timeout = NO_DEADLINE);
    for (what, bytes) in beginnings() {
        if !what.contains("body") && !what.contains("behind") && !what.contains("Continue") {
            continue;
        }
        let mut client = Client::tcp(server.addr);
        client.write(&bytes);
        let mut answer = String::new();
        client.stream.read_to_string(&mut answer).expect(what);
        assert!(answer.starts_with("HTTP/1.1 "), "{what}: {answer}");
    }
}

#[test]
fn a_client_that_has_closed_its_own_half_is_answered() {
    let server = Server::start();
    for path in ["/livez", "/healthz", "/metrics", "/"] {
        let mut client = Client::tcp(server.addr);
        client.write(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        client.stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
}

#[test]
fn frames_that_follow_an_upgrade_request_are_kept() {
    let server = Server::start();
    let mut client = Client::tcp(server.addr);
    let join = json!({"method": "channel.join", "data": {"app": "test", "channel": "c"}});
    let mut bytes = UPGRADE.as_bytes().to_vec();
    bytes.extend(frame(true, 1, join.to_string().as_bytes()));
    let pad = "x".repeat(1000);
    for cseq in 1..=300 {
        let request = json!({"cseq": cseq, "method": "nonsense", "pad": pad});
        bytes.extend(frame(true, 1, request.to_string().as_bytes()));
    }
    client.write(&bytes);
    assert!(client.read_http_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.answer(0)["err"], 0);
    for cseq in 1..=300 {
        assert_eq!(client.answer(cseq)["err"], 404);
    }
}

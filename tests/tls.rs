//! TLS at the door: the same server, the same promises. With `MEETING_SERVER_TESTS_TLS=1` the other
//! tests over a socket are under TLS too; those that look at the bytes of HTTP or TCP fail then.

mod common;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    http::get,
    keys::temporary,
    log_line::Format,
    member::Member,
    openmetrics::Figures,
    process::Process,
    wire::{CERTIFICATE, Certificate, Wire, is_under_tls},
    *,
};
use meeting_server::{
    health::{self, Door},
    settings::Settings,
};
use rustls::{ClientConfig, ClientConnection, StreamOwned, version::TLS12};
use serde_json::{Value, json};

fn server() -> Server {
    server_with(|_| {})
}

fn server_with(change: impl FnOnce(&mut Settings)) -> Server {
    Server::with(|settings| {
        settings.tls = CERTIFICATE.settings();
        change(settings);
    })
}

// ------------------------------------------------------------------------------ clients that fit

/// Sends a request and reads to its answer, whatever comes before.
fn call<S: Read + Write>(socket: &mut tungstenite::WebSocket<S>, request: &Value) -> Value {
    socket.send(request.to_string().into()).unwrap();
    loop {
        let text = socket.read().unwrap().into_text().unwrap();
        let message: Value = serde_json::from_str(&text).unwrap();
        if message["cseq"] == request["cseq"] && message.get("err").is_some() {
            return message;
        }
    }
}

/// What an app does: a WebSocket library on a TLS library, and the certificate is looked at.
fn converse(addr: SocketAddr, config: Arc<ClientConfig>) {
    let tls = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let tcp = TcpStream::connect(addr).unwrap();
    let url = format!("wss://localhost:{}/ws", addr.port());
    let (mut socket, _) = tungstenite::client(url, StreamOwned::new(tls, tcp)).unwrap();
    let data = json!({"app": "test", "channel": "room", "endpoint": "real"});
    let join = json!({"cseq": 1, "method": "channel.join", "data": data});
    let joined = call(&mut socket, &join);
    assert_eq!(joined["err"], 0, "{joined}");
    let session = &joined["data"]["session"];
    let publish = json!({
        "cseq": 2, "method": "stream.add", "session": session, "data": {"stream": stream("s")},
    });
    assert_eq!(call(&mut socket, &publish)["err"], 0);
    let dump = json!({"cseq": 3, "method": "channel.dump", "session": session});
    let list = call(&mut socket, &dump)["data"]["endpoint_list"].clone();
    assert_eq!(list[0]["stream"]["stream_id"], "s", "{list}");
    socket.close(None).unwrap();
    // The server's half of the goodbye, and then TLS's own.
    let ended = loop {
        match socket.read() {
            Ok(message) => assert!(message.is_close(), "{message}"),
            Err(error) => break error,
        }
    };
    let closed = tungstenite::Error::ConnectionClosed;
    assert_eq!(ended.to_string(), closed.to_string());
}

#[test]
fn a_real_client_holds_a_conversation_over_wss() {
    let server = server();
    converse(server.addr, CERTIFICATE.trusted());
}

#[test]
fn a_client_that_knows_tls_1_2_alone_is_let_in() {
    let server = server();
    converse(server.addr, CERTIFICATE.trusted_under(&[&TLS12]));
}

#[test]
fn the_pages_are_under_tls_and_the_operators_are_not() {
    let server =
        server_with(|settings| settings.server.ops_bind = Some(([127, 0, 0, 1], 0).into()));
    assert_eq!(get(server.addr, "/healthz").status, 200);
    assert_eq!(get(server.addr, "/").status, 200);
    // The addresses differ, and so does how they are spoken to.
    assert_ne!(server.ops, server.addr);
    assert_eq!(get(server.ops, "/readyz").status, 200);
}

#[test]
fn no_header_names_the_server_or_its_version() {
    let server = server();
    let mut client = Client::tcp(server.addr);
    client.write(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let mut heads: Vec<String> = ["/", "/healthz", "/ws", "/nowhere", "/metrics"]
        .map(|path| get(server.addr, path).head)
        .into();
    heads.push(client.read_http_head());
    for head in heads {
        let head = head.to_ascii_lowercase();
        assert!(!head.contains("\nserver:"), "{head}");
        assert!(!head.contains(env!("CARGO_PKG_VERSION")), "{head}");
    }
}

#[test]
fn a_server_under_tls_says_whether_it_is_ready() {
    let mut server = server();
    let door = Door {
        addr: server.addr,
        tls: true,
    };
    health::ask(door, PATIENCE).unwrap();
    server.stop();
    health::ask(door, PATIENCE).unwrap_err();
}

// ------------------------------------------------------------------------- the promises, once more

#[test]
fn a_connection_that_moves_to_another_thread_loses_nothing_under_tls() {
    let server = server_with(|settings| settings.server.workers = 4);
    for channel in 0..24 {
        let mut client = server.connect();
        let join = json!({
            "cseq": 0,
            "method": "channel.join",
            "data": {"app": "test", "channel": channel.to_string(), "endpoint": "a"},
        });
        // All in a few records: what is decrypted and not yet let in moves too.
        let mut bytes = frame(true, 1, join.to_string().as_bytes());
        for cseq in 1..=200 {
            let request = json!({"cseq": cseq, "method": "nonsense", "pad": "x".repeat(300)});
            bytes.extend(frame(true, 1, request.to_string().as_bytes()));
        }
        client.write(&bytes);
        for cseq in 0..=200 {
            let answer = client.answer(cseq);
            assert_eq!(answer["err"], if cseq == 0 { 0 } else { 404 });
        }
    }
}

#[test]
fn long_messages_arrive_whole_under_tls() {
    let server = server();
    let mut ben = server.join("room", "ben");
    let mut anna = server.join("room", "anna");
    ben.event("endpoint");
    for len in [1, 16_000, 16_384, 16_385, 40_000, 60_000] {
        let text = "y".repeat(len);
        anna.ok("broadcast", json!({"text": text}));
        assert_eq!(ben.event("broadcast")["payload"]["text"], text);
    }
}

#[test]
fn a_lost_member_comes_back_under_tls() {
    let server = server_with(|settings| settings.session.idle_timeout = Duration::from_secs(60));
    let mut ben = Member::join(server.addr, "room", "ben");
    let ways: [fn(Client); 4] = [
        Client::reset,
        drop,
        // A cut within a record, as TLS sees it.
        |client| {
            let mut tcp: &TcpStream = &client.stream;
            tcp.write_all(&[23, 3, 3, 1, 0, 1, 2, 3]).unwrap();
        },
        // Not a record at all.
        |client| {
            let mut tcp: &TcpStream = &client.stream;
            tcp.write_all(&[b'x'; 100]).unwrap();
        },
    ];
    for lose in ways {
        let mut anna = Member::join(server.addr, "room", "anna");
        ben.event();
        lose(anna.take_client());
        let lost = |f: &Figures| f["meeting_server_sessions_detached"] == 1.0;
        Figures::when(server.ops, lost);
        ben.broadcast("while she is away");
        anna.resume();
        anna.event();
        assert_eq!(anna.story(), ["broadcast ben while she is away"]);
        anna.ok("channel.leave", json!({}));
        ben.event();
    }
    let seen = ben.story();
    assert_eq!(seen, ["join anna", "leave anna"].repeat(ways.len()));
}

/// A record that is no good, behind others that are, in one segment with them.
#[test]
fn what_stands_before_a_bad_record_is_served() {
    let server = server_with(|settings| settings.rooms.resume_window = 3 * PATIENCE);
    let mut ben = server.join("room", "ben");
    let mut anna = server.join("room", "anna");
    ben.event("endpoint");
    let Wire::Tls(tls) = &mut anna.stream else {
        unreachable!("the server is under TLS");
    };
    let close = frame(true, 8, &1000_u16.to_be_bytes());
    tls.conn.writer().write_all(&close).unwrap();
    let mut segment = Vec::new();
    tls.conn.write_tls(&mut segment).unwrap();
    segment.extend([23, 3, 3, 0, 20]);
    segment.extend([7; 20]);
    tls.sock.write_all(&segment).unwrap();
    // She has closed, and is not waited for.
    assert_eq!(ben.event("endpoint")["stat"], "leave");
}

#[test]
fn a_living_connection_is_taken_over_from_another_thread_under_tls() {
    let server = server_with(|settings| settings.server.workers = 4);
    let mut ben = server.join("room", "ben");
    for _ in 0..8 {
        let mut anna = Member::join(server.addr, "room", "anna");
        ben.event("endpoint");
        let mut old = anna.take_client();
        anna.resume();
        assert_eq!(old.error_event(), "endpoint_replaced");
        assert_eq!(old.closed(), 4001);
        anna.ok("channel.leave", json!({}));
        ben.event("endpoint");
    }
    assert_eq!(ben.names(), ["ben"]);
}

#[test]
fn a_server_that_says_nothing_under_tls_is_not_waited_for() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let door = Door {
        addr: silent.local_addr().unwrap(),
        tls: true,
    };
    let error = health::ask(door, Duration::from_millis(50)).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("does not answer: timed out"), "{error}");
}

#[test]
fn a_second_connection_takes_the_place_of_the_first_under_tls() {
    let server = server();
    let mut old = server.join("room", "anna");
    let mut new = server.join("room", "anna");
    assert_eq!(old.error_event(), "endpoint_replaced");
    assert_eq!(old.closed(), 4001);
    assert_eq!(new.names(), ["anna"]);
}

#[test]
fn a_reader_that_stops_is_put_out_and_its_socket_is_cut_under_tls() {
    let server = server_with(|settings| {
        settings.server.workers = 1;
        settings.rooms.resume_window = Duration::ZERO;
        settings.session.send_queue = 64;
        settings.session.send_queue_bytes = 256 * 1024;
        settings.session.send_timeout = Duration::from_millis(500);
    });
    let stuck = {
        let mut client = Client::connect_narrow(server.addr);
        client.join("room", "stuck");
        client
    };
    let mut watcher = server.join("room", "watcher");
    let mut sender = server.join("room", "sender");
    watcher.event("endpoint");
    let begun = Instant::now();
    let text = "x".repeat(30_000);
    let left = loop {
        let cseq = sender.ask("broadcast", json!({"text": text}));
        while sender.next()["cseq"] != cseq {}
        let message = watcher.next();
        if message["event"] == "endpoint" {
            break message;
        }
        assert!(begun.elapsed() < PATIENCE, "nobody is ever put out");
    };
    assert_eq!(left["data"]["endpoint"], "stuck");
    assert_eq!(left["data"]["stat"], "leave");
    // Its socket is really gone, not only its seat.
    Figures::when(server.ops, |f| {
        f["meeting_server_objects{kind=\"connection\"}"] == 2.0
    });
    // So its peer reads to an end, whatever had got into its buffers.
    let mut tcp: &TcpStream = &stuck.stream;
    let ended = tcp.read_to_end(&mut Vec::new());
    assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
}

#[test]
fn a_slow_reader_that_keeps_reading_is_told_all_under_tls() {
    let server = server();
    let mut slow = Client::connect_narrow(server.addr);
    slow.join("room", "slow");
    let mut sender = server.join("room", "sender");
    slow.event("endpoint");
    let text = "x".repeat(20_000);
    for n in 0..40 {
        sender.ok("broadcast", json!({"n": n, "text": text}));
    }
    for n in 0..40 {
        assert_eq!(slow.event("broadcast")["payload"]["n"], n);
    }
    assert_eq!(slow.names(), ["slow", "sender"]);
}

// ------------------------------------------------------------------------------ who does not fit

#[test]
fn half_done_handshakes_keep_nobody_out_and_are_cut_at_join_timeout() {
    let server = server_with(|settings| settings.session.join_timeout = Duration::from_secs(3));
    // The beginning of a ClientHello, and then nothing.
    let begun: Vec<TcpStream> = (0..600)
        .map(|_| {
            let mut tcp = TcpStream::connect(server.addr).unwrap();
            tcp.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])
                .unwrap();
            tcp
        })
        .collect();
    let mut anna = server.join("room", "anna");
    assert_eq!(anna.names(), ["anna"]);
    for mut tcp in begun {
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        // The end, however it is told.
        let _ = tcp.read_to_end(&mut Vec::new());
    }
    assert_eq!(anna.names(), ["anna"]);
}

#[test]
fn a_half_done_handshake_counts_as_a_connection() {
    let server = server_with(|settings| settings.server.max_connections = 1);
    let silent = TcpStream::connect(server.addr).unwrap();
    // It may be accepted after the next one; then it is the next one that has the place.
    let begun = Instant::now();
    while http::upgrade_status(server.addr, "") != 503 {
        assert!(begun.elapsed() < PATIENCE, "it never counts");
    }
    drop(silent);
    while http::upgrade_status(server.addr, "") != 101 {
        assert!(begun.elapsed() < PATIENCE, "its place is never free again");
    }
}

#[test]
fn who_speaks_no_tls_is_cut_and_hurts_nobody() {
    let server = server();
    let mut anna = server.join("room", "anna");
    for said in [
        &b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\xff\xff",
        &[0xff; 4096],
    ] {
        let mut tcp = TcpStream::connect(server.addr).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.write_all(said).unwrap();
        tcp.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer);
        // An alert at most.
        assert!(answer.len() <= 7, "{answer:?}");
    }
    assert_eq!(anna.names(), ["anna"]);
}

// ---------------------------------------------------------------------------------- renewed

/// A client that trusts `certificate` alone.
fn connect(addr: SocketAddr, certificate: &Certificate) -> Result<Client, std::io::Error> {
    let mut wire = Wire::tls(TcpStream::connect(addr)?, certificate.trusted());
    // The handshake, which is done at the first write otherwise.
    if let Wire::Tls(tls) = &mut wire {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    let mut client = Client::on(wire);
    client.upgrade(addr, "/ws", "");
    Ok(client)
}

#[test]
fn a_renewed_certificate_is_taken_at_a_hangup_and_nobody_is_dropped() {
    let (old, new) = (Certificate::new(), Certificate::new());
    let (cert, key) = (temporary(&old.pem), temporary(&old.key_pem));
    let config = temporary(&format!(
        "[tls]\ncert_file = {cert:?}\nkey_file = {key:?}\n"
    ));
    let mut process = Process::with_config(Format::Text, &config);
    let mut anna = connect(process.addr, &old).unwrap();
    anna.join("room", "anna");

    // What is wrong is said, and the old one stays: half of the new pair, and no certificate.
    let hangup = |process: &mut Process, cert_pem: &str, key_pem: &str| {
        fs::write(&cert, cert_pem).unwrap();
        fs::write(&key, key_pem).unwrap();
        process.signal("HUP");
    };
    for (cert_pem, key_pem, at) in [
        (&*new.pem, &*old.key_pem, "tls.key_file"),
        ("", &*new.key_pem, "tls.cert_file"),
        (&*new.pem, "", "tls.key_file"),
    ] {
        hangup(&mut process, cert_pem, key_pem);
        let line = process.line("configuration not reloaded, the previous one stays in effect");
        assert!(line["error"].contains(at), "{line:?}");
        assert!(!line["error"].contains("PRIVATE"), "{line:?}");
        connect(process.addr, &old).unwrap();
    }

    hangup(&mut process, &new.pem, &new.key_pem);
    process.line("configuration reloaded");
    assert!(connect(process.addr, &old).is_err());
    let mut ben = connect(process.addr, &new).unwrap();
    ben.join("room", "ben");
    assert_eq!(anna.event("endpoint")["endpoint"], "ben");

    // TLS is for the start to decide.
    fs::write(&config, "[server]\ndemo = false\n").unwrap();
    process.signal("HUP");
    let line = process.line("configuration not reloaded, the previous one stays in effect");
    assert!(line["error"].contains("turned off"), "{line:?}");
    connect(process.addr, &new).unwrap();
}

#[test]
fn the_log_says_whether_there_is_tls_and_never_what_the_key_is() {
    let settings = CERTIFICATE.settings();
    let mut process = Process::start_with(
        Format::Json,
        "trace",
        Path::new("/dev/null"),
        &[
            ("TLS__CERT_FILE", &settings.cert_file),
            ("TLS__KEY_FILE", &settings.key_file),
        ],
    );
    is_under_tls(process.addr);
    let mut anna = process.join("room", "anna");
    anna.ok("channel.leave", json!({}));
    process.signal("TERM");
    let (status, lines) = process.ended();
    assert!(status.success());
    let start = lines.iter().find(|line| line.message == "start").unwrap();
    assert_eq!(&start["tls"], "true");
    let key: String = CERTIFICATE.key_pem.lines().nth(1).unwrap().into();
    assert!(process.log.iter().all(|line| !line.contains(&key)));
}

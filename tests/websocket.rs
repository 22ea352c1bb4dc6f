//! RFC 6455 over real sockets: what the server takes for a message, what it refuses and under
//! which close code, that its close frame really arrives, and when a connection is over.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod common;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use common::{Client, PATIENCE, Received, Server, frame, keys};
use serde_json::{Value, json};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const LIMIT: usize = 1000;

// ------------------------------------------------------------------------------------ helpers

/// A header line by its name, and what stands there instead; `None` takes it out.
type Change<'a> = (&'a str, Option<&'a str>);

/// An upgrade request.
fn upgrade(first_line: &str, changes: &[Change<'_>]) -> String {
    let headers = [
        ("Host", "meeting.test"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let mut request = format!("{first_line} HTTP/1.1\r\n");
    for (name, value) in headers {
        let change = changes.iter().find(|(changed, _)| *changed == name);
        if let Some(value) = change.map_or(Some(value), |(_, value)| *value) {
            request += &format!("{name}: {value}\r\n");
        }
    }
    request + "\r\n"
}

/// A whole HTTP response: its head in lower case, and its body.
fn http(server: &Server, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&response).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).map_or(0, |rest| {
                rest.lines().next().unwrap().trim().parse().unwrap()
            });
            if body.len() >= length {
                return (head, body.to_owned());
            }
        }
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).unwrap();
        assert_ne!(n, 0, "the stream ended in a response: {text}");
        response.extend_from_slice(&chunk[..n]);
    }
}

fn get(server: &Server, path: &str) -> (String, String) {
    http(
        server,
        &format!("GET {path} HTTP/1.1\r\nHost: meeting.test\r\n\r\n"),
    )
}

/// Writes what a server that closes meanwhile need not take.
fn write_regardless(client: &mut Client, bytes: &[u8]) {
    let _ = client.stream.write_all(bytes);
}

/// The next frame must be a close frame such as a server may send, then the stream ends in order. On
/// a busy machine a ping may be due before.
fn closed(client: &mut Client, what: &str) -> u16 {
    let (code, reason) = loop {
        match client.receive() {
            Received::Close(Some(close)) => break close,
            Received::Ping(_) => {}
            other => panic!("{what}: a close frame was due, {other:?} came"),
        }
    };
    assert!(reason.len() <= 123, "{what}: {} bytes", reason.len());
    assert_eq!(client.receive(), Received::End, "{what}");
    code
}

/// Frames that break a rule, and the code that says which.
fn violations() -> Vec<(&'static str, Vec<u8>, u16)> {
    let after_a_first_fragment = |bytes: &[u8]| [frame(false, TEXT, b"{"), bytes.to_vec()].concat();
    let close =
        |code: u16, reason: &[u8]| frame(true, CLOSE, &[&code.to_be_bytes(), reason].concat());
    let flagged = |bits: u8| {
        let mut bytes = frame(true, TEXT, b"{}");
        bytes[0] |= bits;
        bytes
    };
    vec![
        ("RSV1", flagged(0x40), 1002),
        ("RSV2", flagged(0x20), 1002),
        ("RSV3", flagged(0x10), 1002),
        ("data opcode 3", frame(true, 3, b"{}"), 1002),
        ("data opcode 7", frame(true, 7, b"{}"), 1002),
        ("control opcode 11", frame(true, 11, b""), 1002),
        ("control opcode 15", frame(true, 15, b""), 1002),
        ("unmasked text", b"\x81\x02{}".to_vec(), 1002),
        ("unmasked ping", b"\x89\x00".to_vec(), 1002),
        ("unmasked close", b"\x88\x02\x03\xe8".to_vec(), 1002),
        ("fragmented ping", frame(false, PING, b"half"), 1002),
        ("fragmented pong", frame(false, PONG, b"half"), 1002),
        ("fragmented close", frame(false, CLOSE, b""), 1002),
        ("ping of 126 bytes", frame(true, PING, &[b'x'; 126]), 1002),
        ("pong of 126 bytes", frame(true, PONG, &[b'x'; 126]), 1002),
        ("close of 126 bytes", close(1000, &[b'x'; 124]), 1002),
        (
            "continuation of nothing",
            frame(true, CONTINUATION, b"{}"),
            1002,
        ),
        (
            "first continuation of nothing",
            frame(false, CONTINUATION, b"{"),
            1002,
        ),
        (
            "new text inside a fragmented message",
            after_a_first_fragment(&frame(true, TEXT, b"{}")),
            1002,
        ),
        ("close payload of one byte", frame(true, CLOSE, &[3]), 1002),
        ("close code 0", close(0, b""), 1002),
        ("close code 999", close(999, b""), 1002),
        ("close code 1004", close(1004, b""), 1002),
        ("close code 1005", close(1005, b""), 1002),
        ("close code 1006", close(1006, b""), 1002),
        ("close code 1015", close(1015, b""), 1002),
        ("close code 2999", close(2999, b""), 1002),
        ("close code 5000", close(5000, b""), 1002),
        ("binary", frame(true, BINARY, b"{}"), 1003),
        ("empty binary", frame(true, BINARY, b""), 1003),
        (
            "first fragment of a binary",
            frame(false, BINARY, b"{"),
            1003,
        ),
        ("not UTF-8", frame(true, TEXT, b"{\"a\":\"\xff\"}"), 1007),
        ("overlong UTF-8", frame(true, TEXT, b"\"\xc0\x80\""), 1007),
        (
            "a surrogate in UTF-8",
            frame(true, TEXT, b"\xed\xa0\x80"),
            1007,
        ),
        ("half a character", frame(true, TEXT, b"\xe4\xbc"), 1007),
        (
            "half a character, then another fragment",
            [
                frame(false, TEXT, b"\xe4\xbc"),
                frame(true, CONTINUATION, b"x"),
            ]
            .concat(),
            1007,
        ),
        (
            "half a character at the end of the last fragment",
            [
                frame(false, TEXT, b"{"),
                frame(false, CONTINUATION, b"\xe4\xbc"),
                frame(true, CONTINUATION, b""),
            ]
            .concat(),
            1007,
        ),
        ("a reason that is not UTF-8", close(1000, b"bye \xff"), 1007),
    ]
}

/// Each violation of this code gets a close frame with it, and then the stream's end.
fn each_is_closed_with(code: u16) {
    let server = Server::start();
    for (what, bytes, _) in violations().iter().filter(|(_, _, c)| *c == code) {
        let mut client = server.connect();
        client.write(bytes);
        assert_eq!(closed(&mut client, what), code, "{what}");
    }
}

/// The header of a text frame of `len` bytes in the shortest form, with a mask and nothing
/// behind it.
fn header(fin: bool, opcode: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![if fin { 0x80 } else { 0 } | opcode];
    match u16::try_from(len) {
        Ok(len) if len < 126 => bytes.push(0x80 | len as u8),
        Ok(len) => {
            bytes.push(0x80 | 126);
            bytes.extend(len.to_be_bytes());
        }
        Err(_) => {
            bytes.push(0x80 | 127);
            bytes.extend(len.to_be_bytes());
        }
    }
    bytes.extend([1, 2, 3, 4]);
    bytes
}

fn limited() -> Server {
    Server::with(|settings| settings.session.max_message_bytes = LIMIT)
}

/// The event, then the close frame, then the end.
fn refused_as_too_big(client: &mut Client, what: &str) {
    assert_eq!(client.error_event(), "message_too_big", "{what}");
    assert_eq!(closed(client, what), 1009, "{what}");
}

/// A broadcast of exactly `len` bytes.
fn broadcast_of(client: &Client, cseq: i64, len: usize) -> String {
    let text = |padding: &str| {
        json!({
            "version": 0, "cseq": cseq, "method": "broadcast", "session": client.session,
            "data": {"padding": padding},
        })
        .to_string()
    };
    let text = text(&"x".repeat(len - text("").len()));
    assert_eq!(text.len(), len);
    text
}

/// Two members of a room; the first has seen the second come.
fn pair(server: &Server) -> (Client, Client) {
    let mut watcher = server.join("room", "watcher");
    let member = server.join("room", "member");
    assert_eq!(watcher.event("endpoint")["stat"], "join");
    (watcher, member)
}

fn sees_leave(watcher: &mut Client, what: &str) {
    let data = watcher.event("endpoint");
    assert_eq!(
        data,
        json!({"device": "", "endpoint": "member", "stat": "leave"}),
        "{what}"
    );
}

/// Answers pings until `time` has passed; nothing else may come meanwhile.
fn answer_pings_for(client: &mut Client, time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        match client.receive() {
            Received::Ping(payload) => client.frame(true, PONG, &payload),
            other => panic!("only pings were due, {other:?} came"),
        }
    }
}

// ---------------------------------------------------------------------------------- fragments

#[test]
fn a_fragmented_message_is_one_message_and_a_ping_between_is_answered() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    let payload = r#"{"greeting":"会议 \u00e9","n":1.50e+3}"#;
    let text = format!(
        r#"{{"version":0,"cseq":77,"method":"broadcast","session":"{}","data":{payload}}}"#,
        member.session
    );
    let (first, rest) = text.as_bytes().split_at(10);
    let (middle, last) = rest.split_at(rest.len() - 20);
    member.frame(false, TEXT, first);
    member.frame(true, PING, b"between");
    // Answered while the message is unfinished.
    assert_eq!(member.receive(), Received::Pong(b"between".to_vec()));
    member.frame(false, CONTINUATION, middle);
    member.frame(true, PONG, b"unasked");
    member.frame(true, CONTINUATION, last);
    assert_eq!(member.answer(77)["err"], 0);
    let event = watcher.next_text();
    assert!(event.contains(&format!("\"payload\":{payload}")), "{event}");
}

#[test]
fn a_message_of_long_fragments_is_one_message_and_short_ones_between_keep_their_order() {
    let server = Server::start();
    let (mut sender, mut reader) = pair(&server);
    let said: String = ('\u{4e00}'..).take(15_000).collect();
    for cseq in 1..=3 {
        let broadcast = json!({"cseq": cseq, "method": "broadcast", "session": sender.session,
            "data": {"said": said}});
        // None of them ends with a character.
        let bytes = broadcast.to_string().into_bytes();
        let mut parts = bytes.chunks(10_001).peekable();
        let mut opcode = 1;
        while let Some(part) = parts.next() {
            sender.frame(parts.peek().is_none(), opcode, part);
            sender.frame(true, 9, b"between");
            opcode = 0;
        }
        let parts = bytes.len().div_ceil(10_001);
        for _ in 1..parts {
            assert_eq!(sender.receive(), Received::Pong(b"between".into()));
        }
        let rest = [sender.receive(), sender.receive()];
        assert!(
            rest.contains(&Received::Pong(b"between".into())),
            "{rest:?}"
        );
        assert_eq!(reader.event("broadcast")["payload"]["said"], said);
    }
}

#[test]
fn a_join_may_come_in_many_fragments_and_one_byte_at_a_time() {
    let server = Server::start();
    let join = json!({
        "version": 0, "cseq": 5, "method": "channel.join", "session": "",
        "data": {"app": "test", "channel": "room", "endpoint": "会议"},
    })
    .to_string();
    // Every character of more than one byte is cut in its middle.
    let last = join.len() - 1;
    let fragments: Vec<u8> = (0..join.len())
        .flat_map(|at| {
            let opcode = if at == 0 { TEXT } else { CONTINUATION };
            frame(at == last, opcode, &join.as_bytes()[at..=at])
        })
        .collect();
    let mut one_write = server.connect();
    one_write.write(&fragments);
    assert_eq!(one_write.answer(5)["data"]["endpoint"], "会议");
    drop(one_write);

    let mut many_writes = server.connect();
    for byte in frame(true, TEXT, join.as_bytes()) {
        many_writes.write(&[byte]);
    }
    assert_eq!(many_writes.answer(5)["data"]["endpoint"], "会议");
}

#[test]
fn empty_fragments_are_part_of_a_message() {
    let server = Server::start();
    let mut client = server.connect();
    let request = br#"{"cseq":3,"method":"nothing"}"#;
    client.frame(false, TEXT, b"");
    client.frame(false, CONTINUATION, request);
    client.frame(false, CONTINUATION, b"");
    client.frame(true, CONTINUATION, b"");
    assert_eq!(client.answer(3)["err"], 404);
}

#[test]
fn an_endless_run_of_empty_fragments_ends() {
    let server = Server::start();
    let mut client = server.connect();
    let over = AtomicBool::new(false);
    let mut writer = client.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let run = frame(false, CONTINUATION, b"").repeat(100);
            let mut next = frame(false, TEXT, b"");
            while !over.load(Ordering::Relaxed) && writer.write_all(&next).is_ok() {
                next.clone_from(&run);
            }
        });
        assert_eq!(client.error_event(), "message_too_big");
        assert_eq!(client.closed(), 1009);
        over.store(true, Ordering::Relaxed);
    });
}

// ------------------------------------------------------------------------------------- limits

#[test]
fn a_length_over_the_limit_is_refused_from_the_header_alone() {
    let server = limited();
    for len in [LIMIT as u64 + 1, 65_535, 65_536, 1 << 30, i64::MAX as u64] {
        let mut client = server.connect();
        client.write(&header(true, TEXT, len));
        refused_as_too_big(&mut client, &format!("{len} bytes"));
    }
}

#[test]
fn a_length_over_the_default_limit_is_refused_from_the_header_alone() {
    let server = Server::start();
    for len in [65_537, 1 << 30] {
        let mut client = server.join("room", "member");
        client.write(&header(true, TEXT, len));
        refused_as_too_big(&mut client, &format!("{len} bytes"));
    }
}

#[test]
fn a_message_of_exactly_the_limit_works() {
    let server = limited();
    let (mut watcher, mut member) = pair(&server);
    let text = broadcast_of(&member, 1, LIMIT);
    member.text(&text);
    assert_eq!(member.answer(1)["err"], 0);
    // What the server sends is not bound by the limit.
    assert!(watcher.next_text().len() > LIMIT);

    // In fragments too.
    let text = broadcast_of(&member, 2, LIMIT);
    let (first, rest) = text.as_bytes().split_at(LIMIT / 2);
    member.frame(false, TEXT, first);
    member.frame(true, CONTINUATION, rest);
    assert_eq!(member.answer(2)["err"], 0);
    watcher.event("broadcast");

    let text = broadcast_of(&member, 3, LIMIT + 1);
    write_regardless(&mut member, &frame(true, TEXT, text.as_bytes()));
    refused_as_too_big(&mut member, "one byte more");
    sees_leave(&mut watcher, "one byte more");
}

#[test]
fn a_message_of_exactly_the_default_limit_works() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    let text = broadcast_of(&member, 1, 65_536);
    member.text(&text);
    assert_eq!(member.answer(1)["err"], 0);
    let data = watcher.event("broadcast");
    let padding = data["payload"]["padding"].as_str().unwrap();
    assert!(padding.len() > 65_000 && padding.bytes().all(|b| b == b'x'));
}

#[test]
fn the_sum_of_the_fragments_is_limited() {
    let server = limited();
    let mut client = server.connect();
    client.frame(false, TEXT, &[b'x'; LIMIT - 1]);
    client.frame(true, PING, &[b'x'; 100]);
    assert!(matches!(client.receive(), Received::Pong(_)));
    client.frame(false, CONTINUATION, b"x");
    // The header that goes over it is enough.
    client.write(&header(true, CONTINUATION, 1));
    refused_as_too_big(&mut client, "the last fragment");

    let mut client = server.connect();
    client.frame(false, TEXT, &[b'x'; LIMIT / 2]);
    client.write(&header(false, CONTINUATION, i64::MAX as u64));
    refused_as_too_big(&mut client, "an overflow of the sum");
}

#[test]
fn the_limit_counts_anew_for_each_message() {
    let server = limited();
    let (mut watcher, mut member) = pair(&server);
    for cseq in 0..5 {
        let text = broadcast_of(&member, cseq, LIMIT);
        let (first, rest) = text.as_bytes().split_at(7);
        member.frame(false, TEXT, first);
        member.frame(true, CONTINUATION, rest);
        assert_eq!(member.answer(cseq)["err"], 0);
        watcher.event("broadcast");
    }
}

// -------------------------------------------------------------------------------- close codes

#[test]
fn a_broken_frame_closes_with_1002() {
    each_is_closed_with(1002);
}

#[test]
fn a_binary_frame_closes_with_1003() {
    each_is_closed_with(1003);
}

#[test]
fn text_that_is_not_utf_8_closes_with_1007() {
    each_is_closed_with(1007);
}

#[test]
fn the_close_frame_arrives_with_much_unread_input_behind_the_bad_frame() {
    let server = limited();
    let mut watcher = server.join("room", "watcher");
    let too_big = [
        ("a header over the limit", header(true, TEXT, 1 << 30), 1009),
        (
            "a message over the limit",
            frame(true, TEXT, &[b'x'; LIMIT + 1]),
            1009,
        ),
    ];
    for (what, bytes, code) in violations().into_iter().chain(too_big) {
        let mut member = server.join("room", "member");
        assert_eq!(watcher.event("endpoint")["stat"], "join");
        let behind = frame(true, TEXT, &[b'x'; 500]).repeat(400);
        write_regardless(&mut member, &[bytes, behind].concat());
        if code == 1009 {
            assert_eq!(member.error_event(), "message_too_big", "{what}");
        }
        assert_eq!(closed(&mut member, what), code, "{what}");
        // None of them is a loss: the room hears of it at once.
        sees_leave(&mut watcher, what);
    }
}

#[test]
fn what_stands_before_a_bad_frame_is_served_and_what_stands_behind_it_is_not() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    let say = |n: i64| {
        json!({"cseq": n, "method": "broadcast", "session": member.session, "data": {"n": n}})
            .to_string()
    };
    let bytes = [
        frame(true, TEXT, say(1).as_bytes()),
        frame(true, 3, b""),
        frame(true, TEXT, say(2).as_bytes()),
    ]
    .concat();
    member.write(&bytes);
    assert_eq!(watcher.event("broadcast")["payload"]["n"], 1);
    sees_leave(&mut watcher, "after the bad frame");
    assert_eq!(watcher.names(), ["watcher"]);
}

#[test]
fn a_clients_close_frame_is_echoed_with_its_code() {
    let server = Server::without_resume();
    let mut watcher = server.join("room", "watcher");
    for code in [
        1000, 1001, 1002, 1003, 1007, 1011, 3000, 3999, 4000, 4900, 4999,
    ] {
        for reason in ["", "bye 会议", &"x".repeat(123)] {
            let what = format!("{code} {reason}");
            let mut member = server.join("room", "member");
            assert_eq!(watcher.event("endpoint")["stat"], "join");
            let payload = [&u16::to_be_bytes(code), reason.as_bytes()].concat();
            member.frame(true, CLOSE, &payload);
            assert_eq!(closed(&mut member, &what), code);
            sees_leave(&mut watcher, &what);
        }
    }
}

#[test]
fn an_empty_close_frame_is_echoed_with_an_empty_one() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    member.frame(true, CLOSE, b"");
    assert_eq!(member.receive(), Received::Close(None));
    assert_eq!(member.receive(), Received::End);
    sees_leave(&mut watcher, "an empty close frame");
}

#[test]
fn a_close_frame_inside_a_fragmented_message_closes() {
    let server = Server::start();
    let mut client = server.connect();
    client.frame(false, TEXT, b"{");
    client.close(1000);
    assert_eq!(client.closed(), 1000);
}

#[test]
fn nothing_behind_a_close_frame_counts() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    let late = json!({"method": "broadcast", "session": member.session}).to_string();
    let bytes = [
        frame(true, CLOSE, &1000u16.to_be_bytes()),
        frame(true, TEXT, late.as_bytes()),
        frame(true, PING, b"late"),
        frame(true, CLOSE, &1001u16.to_be_bytes()),
    ]
    .concat();
    member.write(&bytes);
    assert_eq!(member.closed(), 1000);
    sees_leave(&mut watcher, "closed");
    assert_eq!(watcher.names(), ["watcher"]);
}

// ---------------------------------------------------------------------------- pings and pongs

#[test]
fn a_pings_payload_is_echoed_byte_for_byte() {
    let server = Server::start();
    let mut outside = server.connect();
    let mut member = server.join("room", "member");
    let bytes: Vec<u8> = (0..=255).collect();
    let payloads = [&[], &b"x"[..], &bytes[..125], &bytes[131..], &[0xff; 125]];
    for payload in payloads {
        for client in [&mut outside, &mut member] {
            client.frame(true, PING, payload);
            assert_eq!(client.receive(), Received::Pong(payload.to_vec()));
        }
    }
    // Several at once are answered one by one, in order.
    let pings: Vec<u8> = (0..200).flat_map(|n| frame(true, PING, &[n])).collect();
    member.write(&pings);
    for n in 0..200 {
        assert_eq!(member.receive(), Received::Pong(vec![n]));
    }
}

#[test]
fn a_pong_that_nobody_asked_for_is_ignored() {
    let server = Server::start();
    let mut member = server.join("room", "member");
    member.frame(true, PONG, b"");
    member.frame(true, PONG, &[0xff; 125]);
    assert_eq!(member.names(), ["member"]);
}

#[test]
fn the_server_pings_within_ping_interval() {
    let interval = Duration::from_secs(1);
    let server = Server::with(|settings| settings.session.ping_interval = interval);
    let mut outside = server.connect();
    let mut member = server.join("room", "member");
    for client in [&mut outside, &mut member] {
        for n in 0..2 {
            let begun = Instant::now();
            assert!(matches!(client.receive(), Received::Ping(_)));
            // Room for a busy machine, and far from the default of ten seconds.
            assert!(begun.elapsed() < 4 * interval, "ping {n}");
        }
    }
}

// ------------------------------------------------------------------------------ ends of a socket

#[test]
fn a_half_closed_socket_frees_the_member() {
    let server = Server::without_resume();
    let (mut watcher, member) = pair(&server);
    member.stream.shutdown(Shutdown::Write).unwrap();
    sees_leave(&mut watcher, "half-closed");
    assert_eq!(watcher.names(), ["watcher"]);
}

#[test]
fn a_socket_that_ends_within_a_frame_frees_the_member() {
    let server = Server::without_resume();
    let (mut watcher, mut member) = pair(&server);
    member.write(&header(true, TEXT, 100));
    member.stream.shutdown(Shutdown::Write).unwrap();
    sees_leave(&mut watcher, "within a frame");
}

#[test]
fn a_reset_socket_frees_the_member() {
    let server = Server::without_resume();
    let (mut watcher, member) = pair(&server);
    socket2::SockRef::from(&member.stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(member);
    sees_leave(&mut watcher, "reset");
    assert_eq!(watcher.names(), ["watcher"]);
}

#[test]
fn requests_before_the_end_of_the_stream_take_effect() {
    let server = Server::without_resume();
    let (mut watcher, mut member) = pair(&server);
    for n in 0..10 {
        member.ask("broadcast", json!({"n": n}));
    }
    member.stream.shutdown(Shutdown::Write).unwrap();
    for n in 0..10 {
        assert_eq!(watcher.event("broadcast")["payload"]["n"], n);
    }
    sees_leave(&mut watcher, "after its last words");
}

// ------------------------------------------------------------------------------------ upgrade

#[test]
fn no_extension_is_negotiated() {
    let server = Server::start();
    let mut client = Client::tcp(server.addr);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    let request = upgrade("GET /ws", &[]);
    client.write(format!("{}\r\n{offer}", request.trim_end()).as_bytes());
    let head = client.read_http_head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
    client.join("room", "member");
    assert_eq!(client.names(), ["member"]);
}

#[test]
fn an_upgrade_that_is_none_is_refused() {
    let server = Server::start();
    let cases: [(&str, &str, &[Change<'_>], &str); 8] = [
        ("wrong path", "GET /elsewhere", &[], "404"),
        ("a path below", "GET /ws/room", &[], "404"),
        (
            "version 8",
            "GET /ws",
            &[("Sec-WebSocket-Version", Some("8"))],
            "426",
        ),
        (
            "no version",
            "GET /ws",
            &[("Sec-WebSocket-Version", None)],
            "400",
        ),
        (
            "a key that is too short",
            "GET /ws",
            &[("Sec-WebSocket-Key", Some("c2hvcnQ="))],
            "400",
        ),
        (
            "a key that is no base64",
            "GET /ws",
            &[("Sec-WebSocket-Key", Some("!!!!!!!!!!!!!!!!!!!!!!=="))],
            "400",
        ),
        ("no key", "GET /ws", &[("Sec-WebSocket-Key", None)], "400"),
        ("POST", "POST /ws", &[], "405"),
    ];
    for (what, first_line, changes, status) in cases {
        let (head, _) = http(&server, &upgrade(first_line, changes));
        assert!(
            head.starts_with(&format!("http/1.1 {status} ")),
            "{what}: {head}"
        );
        assert_eq!(
            head.contains("\nsec-websocket-version: 13"),
            status == "426",
            "{what}: {head}"
        );
    }
}

#[test]
fn a_plain_get_of_the_websocket_asks_for_an_upgrade() {
    let server = Server::start();
    let (head, _) = get(&server, "/ws");
    assert!(head.starts_with("http/1.1 426 "), "{head}");
    assert!(head.contains("\nsec-websocket-version: 13"), "{head}");
    assert!(head.contains("\nupgrade: websocket"), "{head}");
}

#[test]
fn an_upgrade_request_may_be_spelled_in_any_way_that_http_allows() {
    let server = Server::start();
    let spellings = [
        upgrade("GET /ws", &[("Connection", Some("keep-alive, Upgrade"))]),
        upgrade(
            "GET /ws?device=phone&x=%00",
            &[("Upgrade", Some("WebSocket"))],
        ),
        upgrade("GET /ws", &[("Connection", Some("upgrade"))])
            .replace("Sec-WebSocket-", "sec-websocket-"),
    ];
    for request in spellings {
        let mut client = Client::tcp(server.addr);
        client.write(request.as_bytes());
        let head = client.read_http_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{request}\n{head}");
        client.join("room", "member");
        client.close(1000);
        assert_eq!(client.closed(), 1000);
    }
}

#[test]
fn frames_in_the_segment_of_the_upgrade_request_are_served() {
    // Some channels live on the other thread: what was read must move along.
    let server = Server::start();
    for n in 0..20 {
        let mut client = Client::tcp(server.addr);
        let join = json!({
            "cseq": 1, "method": "channel.join",
            "data": {"app": "test", "channel": format!("room {n}"), "endpoint": "member"},
        });
        let refused = json!({"cseq": 2, "method": "channel.dump"});
        let bytes = [
            upgrade("GET /ws", &[]).into_bytes(),
            frame(true, TEXT, join.to_string().as_bytes()),
            frame(true, PING, b"early"),
            frame(true, TEXT, refused.to_string().as_bytes()),
        ]
        .concat();
        client.write(&bytes);
        assert!(client.read_http_head().starts_with("HTTP/1.1 101 "));
        assert_eq!(client.answer(1)["data"]["last_event"], 1);
        assert_eq!(client.receive(), Received::Pong(b"early".to_vec()));
        assert_eq!(client.answer(2)["err"], 410);
    }
}

#[test]
fn the_page_and_the_health_check_answer_over_plain_http() {
    let server = Server::start();
    let (head, body) = get(&server, "/healthz");
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_eq!(body, "ok");
    let (head, body) = get(&server, "/");
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(head.contains("\ncontent-type: text/html"), "{head}");
    assert!(body.to_ascii_lowercase().contains("<html"), "{body}");
    let (head, _) = get(&server, "/nowhere");
    assert!(head.starts_with("http/1.1 404 "), "{head}");
}

// ----------------------------------------------------------------------------------- timeouts

fn with_join_timeout(join_timeout: Duration) -> Server {
    Server::with(|settings| settings.session.join_timeout = join_timeout)
}

#[test]
fn a_client_that_does_not_join_gets_an_error_event_and_is_closed_with_1008() {
    let server = with_join_timeout(Duration::from_millis(200));
    let begun = Instant::now();
    let mut client = server.connect();
    assert_eq!(client.error_event(), "join_timeout");
    assert_eq!(client.closed(), 1008);
    assert!(begun.elapsed() >= Duration::from_millis(100), "too early");
}

/// A connection that says this and no more, which is too little for an upgrade.
fn half_upgraded(server: &Server, said: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(said.as_bytes()).unwrap();
    stream
}

/// It ends by itself. It may be told why before that.
fn is_cut_off(mut stream: TcpStream, what: &str) {
    let end = stream.read_to_end(&mut Vec::new());
    assert!(end.is_ok(), "{what}: {end:?}");
}

#[test]
fn a_client_that_does_not_even_upgrade_is_cut_off_too() {
    let server = with_join_timeout(Duration::from_secs(2));
    let half = &upgrade("GET /ws", &[])[..60];
    let streams = ["", half].map(|said| (said, half_upgraded(&server, said)));
    for (said, stream) in streams {
        is_cut_off(stream, said);
    }
}

#[test]
fn a_client_that_does_not_even_upgrade_is_cut_off_after_a_short_join_timeout_too() {
    let server = Server::with(|settings| {
        settings.session.join_timeout = Duration::from_millis(200);
        settings.session.ping_interval = Duration::from_millis(50);
    });
    // The pings of a member spread the connections over more than a second.
    let mut clock = server.join("room", "clock");
    let streams: Vec<TcpStream> = (0..24)
        .map(|_| {
            assert!(matches!(clock.receive(), Received::Ping(_)));
            half_upgraded(&server, "")
        })
        .collect();
    for (n, stream) in streams.into_iter().enumerate() {
        is_cut_off(stream, &format!("connection {n}"));
    }
}

#[test]
fn pings_and_refused_requests_do_not_put_the_join_timeout_off() {
    let server = with_join_timeout(Duration::from_millis(200));
    let begun = Instant::now();
    let mut client = server.connect();
    let mut refused = 0;
    let code = loop {
        assert!(begun.elapsed() < PATIENCE, "it is put off");
        let requests = [
            frame(true, PING, b""),
            frame(true, TEXT, br#"{"method":"channel.dump"}"#),
            frame(true, TEXT, br#"{"method":"channel.join"}"#),
            frame(true, TEXT, b"no JSON"),
        ];
        write_regardless(&mut client, &requests.concat());
        match client.receive() {
            Received::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                assert_ne!(message["err"], 0);
                refused += usize::from(message["data"]["type"] != "join_timeout");
            }
            Received::Pong(_) => {}
            Received::Close(Some((code, _))) => break code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 1008);
    assert_eq!(client.receive(), Received::End);
    assert!(refused > 0, "no request was refused before that");
}

#[test]
fn after_a_leave_the_join_timeout_starts_anew() {
    let join_timeout = Duration::from_millis(400);
    let server = Server::with(|settings| {
        settings.session.join_timeout = join_timeout;
        settings.session.ping_interval = Duration::from_millis(50);
    });
    let mut client = server.connect();
    for _ in 0..2 {
        client.join("room", "member");
        // It does not run while the client is in a room.
        answer_pings_for(&mut client, 2 * join_timeout);
        client.ok("channel.leave", json!({}));
    }
    let left = Instant::now();
    client.session.clear();
    assert_eq!(client.error_event(), "join_timeout");
    assert_eq!(client.closed(), 1008);
    assert!(left.elapsed() >= join_timeout / 2, "too early");
}

#[test]
fn the_join_timeout_after_a_leave_waits_for_no_ping() {
    let server = Server::with(|settings| {
        settings.session.join_timeout = Duration::from_millis(400);
        settings.session.ping_interval = Duration::from_secs(3600);
        settings.session.idle_timeout = Duration::from_secs(7200);
    });
    let mut client = server.connect();
    client.join("room", "member");
    // Its first join_timeout is over when this one's is, which began later.
    let mut other = server.connect();
    assert_eq!(other.error_event(), "join_timeout");
    assert_eq!(other.closed(), 1008);
    client.ok("channel.leave", json!({}));
    client.session.clear();
    assert_eq!(client.error_event(), "join_timeout");
    assert_eq!(client.closed(), 1008);
}

#[test]
fn idle_timeout_is_for_the_silent_not_for_those_who_answer_pings() {
    let idle_timeout = Duration::from_millis(1500);
    let server = Server::with(|settings| {
        settings.rooms.resume_window = Duration::ZERO;
        settings.session.idle_timeout = idle_timeout;
        settings.session.ping_interval = Duration::from_millis(100);
    });
    let (mut watcher, mut member) = pair(&server);
    sees_leave(&mut watcher, "silent");
    // It is cut without a close frame: nobody reads there.
    loop {
        match member.receive() {
            Received::Ping(_) => {}
            Received::End | Received::Reset => break,
            other => panic!("{other:?}"),
        }
    }
    answer_pings_for(&mut watcher, idle_timeout * 2);
    assert_eq!(watcher.names(), ["watcher"]);
}

#[test]
fn who_answers_no_ping_but_says_something_now_and_then_stays() {
    let server = Server::with(|settings| {
        settings.session.idle_timeout = Duration::from_millis(1000);
        settings.session.ping_interval = Duration::from_millis(200);
    });
    let mut member = server.join("room", "member");
    // Three times as long as idle_timeout, one request a ping.
    for _ in 0..15 {
        while !matches!(member.receive(), Received::Ping(_)) {}
        member.ask("channel.dump", json!({}));
    }
    while !matches!(member.receive(), Received::Text(_)) {}
}

#[test]
fn an_error_event_before_a_close_frame_has_the_sessions_shape() {
    let server = limited();
    let mut member = server.join("room", "member");
    member.write(&header(true, TEXT, LIMIT as u64 + 1));
    let event = member.next();
    assert_eq!(
        keys(&event),
        ["cseq", "data", "event", "session", "version"]
    );
    assert_eq!(keys(&event["data"]), ["message", "type"]);
    assert_eq!(event["session"], member.session.as_str());
    assert_eq!(event["data"]["type"], "message_too_big");
    assert_eq!(member.closed(), 1009);
}

//! Requests, answers and events to the letter: which keys each message has, what is taken for a
//! request, what is refused and with which number, and in which order the checks are made.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod common;

use common::{Client, Server, frame, keys, stream};
use meeting_server::settings::MediaServer;
use serde_json::{Value, json};

const METHODS: [&str; 7] = [
    "channel.join",
    "channel.leave",
    "stream.add",
    "stream.delete",
    "channel.dump",
    "media_server.dump",
    "broadcast",
];

const ANSWER: [&str; 5] = ["cseq", "data", "err", "err_msg", "version"];
const ANSWER_WITH_SESSION: [&str; 6] = ["cseq", "data", "err", "err_msg", "session", "version"];
const EVENT: [&str; 5] = ["cseq", "data", "event", "session", "version"];

// ------------------------------------------------------------------------------------ helpers

/// Sends a text; the next message must be an answer.
fn say(client: &mut Client, text: &str) -> Value {
    client.text(text);
    let answer = client.next();
    assert!(
        answer.get("err").is_some(),
        "to {text} an answer was due: {answer}"
    );
    answer
}

/// Sends a text, which must be refused with `err` under `cseq`, and the connection stays.
fn refused(client: &mut Client, text: &str, err: u16, cseq: i64) -> Value {
    let answer = say(client, text);
    assert_eq!(answer["err"], err, "{text} -> {answer}");
    assert_eq!(answer["cseq"], cseq, "{text} -> {answer}");
    assert_eq!(answer["version"], 0, "{text} -> {answer}");
    assert_eq!(answer["data"], json!({}), "{text} -> {answer}");
    assert_ne!(answer["err_msg"], "", "{text} -> {answer}");
    assert_ne!(answer["err_msg"], "ok", "{text} -> {answer}");
    stays(client);
    answer
}

/// The connection is alive, and nothing else was on its way.
fn stays(client: &mut Client) {
    let answer = say(client, r#"{"cseq":4242,"method":"still.there"}"#);
    assert_eq!(answer["err"], 404);
    assert_eq!(answer["cseq"], 4242);
}

/// A request of the client's own session as text; `data` as it stands.
fn request(client: &Client, cseq: i64, method: &str, data: &str) -> String {
    request_of(&client.session, cseq, method, data)
}

fn request_of(session: &str, cseq: i64, method: &str, data: &str) -> String {
    let (method, session) = (json!(method), json!(session));
    format!(r#"{{"version":0,"cseq":{cseq},"method":{method},"session":{session},"data":{data}}}"#)
}

/// A member and one who watches it and has seen it come.
fn pair(server: &Server) -> (Client, Client) {
    let mut watcher = server.join("room", "watcher");
    let member = server.join("room", "member");
    assert_eq!(watcher.event("endpoint")["stat"], "join");
    (watcher, member)
}

/// `data` that the method grants to the only member of a room that publishes nothing.
fn good_data(method: &str) -> Value {
    match method {
        "channel.join" => json!({"app": "test", "channel": "room", "endpoint": "member"}),
        "stream.add" => json!({"stream": stream("s")}),
        "stream.delete" => json!({"stream_id": "s"}),
        _ => json!({}),
    }
}

/// Whether the method's answers repeat the request's session at the top.
fn repeats_session(method: &str) -> bool {
    matches!(method, "channel.leave" | "stream.add" | "stream.delete")
}

/// Checks the keys of an answer, and the session that it repeats or does not.
fn assert_answer_keys(answer: &Value, method: &str, session: &str) {
    if repeats_session(method) {
        assert_eq!(keys(answer), ANSWER_WITH_SESSION, "{method}: {answer}");
        assert_eq!(answer["session"], session, "{method}: {answer}");
    } else {
        assert_eq!(keys(answer), ANSWER, "{method}: {answer}");
    }
    assert_eq!(answer["version"], 0, "{answer}");
}

fn media_server(protocols: &[&str], wss: &str, rtsp: &str) -> MediaServer {
    MediaServer {
        weight: 1,
        health: String::new(),
        name: "one".into(),
        protocols: protocols.iter().map(|p| (*p).into()).collect(),
        wss: wss.into(),
        ws: String::new(),
        https: String::new(),
        http: String::new(),
        rtsp: rtsp.into(),
    }
}

// ------------------------------------------------------------------------------ shapes of all

#[test]
fn an_answer_has_these_keys_and_no_others() {
    let server = Server::start();
    let mut client = server.connect();
    let data_keys: [(&str, &[&str]); 7] = [
        (
            "channel.join",
            &[
                "endpoint",
                "last_event",
                "media_server",
                "resumed",
                "session",
            ],
        ),
        ("stream.add", &[]),
        ("channel.dump", &["endpoint_list"]),
        ("media_server.dump", &["media_server"]),
        ("broadcast", &[]),
        ("stream.delete", &[]),
        ("channel.leave", &[]),
    ];
    for (method, expected) in data_keys {
        let answer = client.call(method, good_data(method));
        assert_eq!(answer["err"], 0, "{answer}");
        assert_eq!(answer["err_msg"], "ok", "{answer}");
        assert_answer_keys(&answer, method, &client.session);
        assert_eq!(keys(&answer["data"]), expected, "{answer}");
        if method == "channel.join" {
            client.session = answer["data"]["session"].as_str().unwrap().to_owned();
        }
    }
}

#[test]
fn a_joins_answer_tells_session_media_server_endpoint_last_event_and_resumed() {
    let server = Server::start();
    let mut client = server.connect();
    let data = client.join_with(json!({
        "app": "test", "channel": "room", "endpoint": "anna", "session": "ignored",
    }));
    let session = uuid::Uuid::parse_str(&client.session).unwrap();
    assert_eq!(session.get_version_num(), 4);
    assert_eq!(session.to_string(), client.session, "in its usual spelling");
    assert_eq!(data["endpoint"], "anna");
    assert_eq!(data["last_event"], 1);
    assert_eq!(data["resumed"], false);
    let mut second = server.connect();
    assert_eq!(second.join("room", "ben")["last_event"], 2);
    assert_ne!(second.session, client.session);
}

#[test]
fn an_error_answer_has_the_same_keys_and_empty_data() {
    let server = Server::start();
    let mut member = server.join("room", "member");
    for method in METHODS {
        let wrong_session = method != "channel.join";
        let bad = match method {
            "channel.join" => json!({}),
            _ => json!([]),
        };
        let session = member.session.clone();
        let mut cases = vec![
            (
                "bad data",
                request_of(&session, 7, method, &bad.to_string()),
                400,
            ),
            (
                "version 1",
                request_of(&session, 7, method, "{}").replace(r#""version":0"#, r#""version":1"#),
                400,
            ),
        ];
        if wrong_session {
            let data = good_data(method).to_string();
            cases.push((
                "wrong session",
                request_of("not mine", 7, method, &data),
                410,
            ));
            cases.push(("no session", request_of("", 7, method, &data), 410));
        }
        for (what, text, err) in cases {
            let answer = refused(&mut member, &text, err, 7);
            let sent: Value = serde_json::from_str(&text).unwrap();
            assert_answer_keys(&answer, method, sent["session"].as_str().unwrap());
            assert!(answer["err_msg"].is_string(), "{what}: {answer}");
        }
    }
    // A bad cseq too is an error of the method that was asked.
    let text = r#"{"cseq":7.0,"method":"channel.leave","session":"mine"}"#;
    let answer = refused(&mut member, text, 400, 0);
    assert_answer_keys(&answer, "channel.leave", "mine");
    // What the room refuses has the same shape.
    let text = request(&member, 8, "stream.delete", r#"{"stream_id":"none"}"#);
    let answer = refused(&mut member, &text, 404, 8);
    assert_answer_keys(&answer, "stream.delete", &member.session);
    member.publish("s1");
    let data = json!({"stream": stream("s2")}).to_string();
    let text = request(&member, 9, "stream.add", &data);
    let answer = refused(&mut member, &text, 409, 9);
    assert_answer_keys(&answer, "stream.add", &member.session);
    // An unknown method is none of the three that repeat the session.
    let text = request(&member, 10, "stream.replace", "{}");
    let answer = refused(&mut member, &text, 404, 10);
    assert_eq!(keys(&answer), ANSWER, "{answer}");
}

#[test]
fn a_missing_session_is_repeated_as_the_empty_one() {
    let server = Server::start();
    let mut client = server.connect();
    for text in [
        r#"{"cseq":1,"method":"channel.leave"}"#,
        r#"{"cseq":1,"method":"channel.leave","session":null}"#,
    ] {
        let answer = refused(&mut client, text, 410, 1);
        assert_answer_keys(&answer, "channel.leave", "");
    }
}

#[test]
fn an_event_has_these_keys_and_the_receivers_session() {
    let server = Server::start();
    let mut watcher = server.join("room", "watcher");
    let who = json!({"device": "phone 1", "endpoint": "member"});
    let mut member = server.connect();
    member.join_with(json!({
        "app": "test", "channel": "room", "endpoint": "member", "device": "phone 1",
    }));
    member.publish("s1");
    member.ok("broadcast", json!({"n": 1}));
    member.ok("stream.delete", json!({"stream_id": "s1"}));
    member.ok("channel.leave", json!({}));
    let endpoint = |stat: &str| json!({"device": "phone 1", "endpoint": "member", "stat": stat});
    let stream = |stat: &str| json!({"device": "phone 1", "endpoint": "member", "stream": "s1", "stat": stat});
    let due = [
        ("endpoint", endpoint("join")),
        ("stream", stream("publish")),
        (
            "broadcast",
            json!({"source_endpoint": who, "payload": {"n": 1}}),
        ),
        ("stream", stream("unpublish")),
        ("endpoint", endpoint("leave")),
    ];
    for (name, data) in due {
        let event = watcher.next();
        assert_eq!(keys(&event), EVENT, "{event}");
        assert_eq!(event["version"], 0, "{event}");
        assert_eq!(event["cseq"], 0, "{event}");
        assert_eq!(event["event"], name, "{event}");
        assert_eq!(event["session"], watcher.session.as_str(), "{event}");
        assert_eq!(event["data"], data, "{event}");
    }
}

#[test]
fn an_error_event_has_these_keys_and_the_session_only_after_a_join() {
    let server = Server::start();
    let mut client = server.connect();
    for joined in [false, true, false] {
        match (joined, client.session.is_empty()) {
            (true, true) => drop(client.join("room", "member")),
            (false, false) => {
                client.ok("channel.leave", json!({}));
                client.session.clear();
            }
            _ => {}
        }
        client.text("no JSON");
        let event = client.next();
        assert_eq!(keys(&event), EVENT, "{event}");
        assert_eq!(event["version"], 0, "{event}");
        assert_eq!(event["cseq"], 0, "{event}");
        assert_eq!(event["event"], "error", "{event}");
        assert_eq!(event["session"], client.session.as_str(), "{event}");
        assert_eq!(keys(&event["data"]), ["message", "type"], "{event}");
        assert_eq!(event["data"]["type"], "bad_message", "{event}");
        let message = event["data"]["message"].as_str().unwrap();
        assert!(message.len() > 10, "{event}");
    }
}

#[test]
fn a_dump_lists_every_member_in_join_order_with_these_keys() {
    let server = Server::start();
    let mut first = server.connect();
    first.join_with(json!({
        "app": "test", "channel": "room", "endpoint": "z", "device": "phone", "role": "recorder",
    }));
    let mut second = server.connect();
    second.join_with(json!({
        "app": "test", "channel": "room", "endpoint": "a", "role": "relayer",
    }));
    let bare = json!({"type": "desktop", "stream_id": "s2", "has_video": false, "has_audio": true});
    second.ok("stream.add", json!({ "stream": bare }));
    let mut third = server.join("room", "m");
    third.publish("s3");
    let bare = json!({
        "type": "desktop", "stream_id": "s2", "has_video": false, "has_audio": true,
        "audio_codec": "", "video_codec": "",
    });
    let due = json!([
        {"endpoint": "z", "device": "phone", "role": "recorder"},
        {"endpoint": "a", "device": "", "role": "relayer", "stream": bare},
        {"endpoint": "m", "device": "", "role": "normal", "stream": stream("s3")},
    ]);
    assert_eq!(json!(third.dump()), due);
    third.ok("stream.delete", json!({"stream_id": "s3"}));
    assert_eq!(
        third.dump()[2],
        json!({"endpoint": "m", "device": "", "role": "normal"})
    );
}

// ----------------------------------------------------------------------------------- envelope

#[test]
fn cseq_is_echoed_exactly() {
    let server = Server::start();
    let mut client = server.connect();
    let numbers = [
        "0",
        "1",
        "-1",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "-9223372036854775808",
    ];
    for number in numbers {
        client.text(&format!(r#"{{"cseq":{number},"method":"channel.dump"}}"#));
        let answer = client.next_text();
        assert!(answer.contains(&format!(r#""cseq":{number},"#)), "{answer}");
        assert!(answer.contains(r#""err":410"#), "{answer}");
    }
    // A granted request too.
    let join = json!({
        "cseq": u64::MAX, "method": "channel.join", "data": {"app": "a", "channel": "c"},
    });
    client.send(&join);
    let answer = client.next();
    assert_eq!(answer["err"], 0, "{answer}");
    assert_eq!(answer["cseq"], u64::MAX, "{answer}");
}

#[test]
fn a_missing_or_null_cseq_is_0() {
    let server = Server::start();
    let mut client = server.connect();
    refused(&mut client, r#"{"method":"nothing"}"#, 404, 0);
    refused(&mut client, r#"{"cseq":null,"method":"nothing"}"#, 404, 0);
}

#[test]
fn a_cseq_that_is_no_integer_of_64_bits_is_refused_under_0() {
    let server = Server::start();
    let mut member = server.join("room", "member");
    let wrong = [
        "7.0",
        "1e3",
        "1E0",
        "0.5",
        "-0.0",
        "\"7\"",
        "\"\"",
        "true",
        "[7]",
        "{}",
        "18446744073709551616",
        "-9223372036854775809",
        "123456789012345678901234567890",
        r#""\ud800""#,
    ];
    for cseq in wrong {
        let session = member.session.clone();
        let text = format!(r#"{{"cseq":{cseq},"method":"channel.leave","session":"{session}"}}"#);
        refused(&mut member, &text, 400, 0);
    }
    assert_eq!(member.names(), ["member"], "none of them took effect");
}

#[test]
fn missing_or_null_members_of_the_envelope_have_defaults() {
    let server = Server::start();
    let mut client = server.connect();
    let join_data = good_data("channel.join");
    for text in [
        json!({"method": "channel.join", "data": join_data}),
        json!({
            "version": null, "cseq": null, "method": "channel.join", "session": null,
            "data": join_data,
        }),
    ] {
        let answer = say(&mut client, &text.to_string());
        assert_eq!(
            (&answer["err"], &answer["cseq"]),
            (&json!(0), &json!(0)),
            "{answer}"
        );
        client.session = answer["data"]["session"].as_str().unwrap().to_owned();
        // Methods that want nothing in data take it missing or null.
        let session = client.session.clone();
        for method in ["channel.dump", "media_server.dump", "channel.leave"] {
            let text = match method {
                "channel.dump" => json!({"method": method, "session": session}),
                _ => json!({"method": method, "session": session, "data": null}),
            };
            let answer = say(&mut client, &text.to_string());
            assert_eq!(answer["err"], 0, "{method}: {answer}");
        }
    }
}

#[test]
fn null_in_data_counts_as_missing() {
    let server = Server::start();
    let mut client = server.connect();
    let data = client.join_with(json!({
        "app": "test", "channel": "room", "endpoint": null, "role": null, "device": null,
        "token": null, "last_event": null,
    }));
    uuid::Uuid::parse_str(data["endpoint"].as_str().unwrap()).unwrap();
    let row = json!({"endpoint": data["endpoint"], "device": "", "role": "normal"});
    assert_eq!(client.dump(), [row]);
    // last_event null was none: events carry no number.
    let mut second = server.join("room", "second");
    assert_eq!(client.next()["cseq"], 0);
    second.close(1000);
    client.event("endpoint");

    let mut described = stream("s");
    described["audio_codec"] = Value::Null;
    described["video_codec"] = Value::Null;
    client.ok("stream.add", json!({ "stream": described }));
    assert_eq!(client.dump()[0]["stream"]["audio_codec"], "");
    client.ok("media_server.dump", json!({"protocol": null}));
    // A required member that is null is missing.
    for (method, data) in [
        ("stream.add", json!({"stream": null})),
        ("stream.delete", json!({"stream_id": null})),
    ] {
        let text = request(&client, 3, method, &data.to_string());
        refused(&mut client, &text, 400, 3);
    }
}

#[test]
fn the_method_is_the_one_member_that_must_be_there() {
    let server = Server::start();
    let mut client = server.connect();
    refused(&mut client, "{}", 400, 0);
    refused(&mut client, r#"{"cseq":5}"#, 400, 5);
    refused(&mut client, r#"{"cseq":5,"method":null}"#, 400, 5);
}

#[test]
fn a_method_of_a_wrong_type_is_refused_with_its_own_cseq() {
    let server = Server::start();
    let mut client = server.connect();
    for method in [
        "7",
        "true",
        "[]",
        "{}",
        r#"["channel.join"]"#,
        r#""\ud800""#,
    ] {
        refused(
            &mut client,
            &format!(r#"{{"method":{method},"cseq":5}}"#),
            400,
            5,
        );
    }
}

#[test]
fn an_unknown_method_gets_404() {
    let server = Server::start();
    let mut member = server.join("room", "member");
    for method in [
        "",
        "channel",
        "Channel.Join",
        " channel.join",
        "channel.join\u{0}",
        "会议",
    ] {
        let text = request(&member, 6, method, "{}");
        refused(&mut member, &text, 404, 6);
    }
}

#[test]
fn another_version_is_refused_by_its_name() {
    let server = Server::start();
    let mut client = server.connect();
    for version in ["1", "-1", "4294967296", "0.0", "\"0\"", "[0]", "true"] {
        let text = format!(
            r#"{{"version":{version},"cseq":5,"method":"channel.join","data":{{"app":"a","channel":"c"}}}}"#
        );
        let answer = refused(&mut client, &text, 400, 5);
        let message = answer["err_msg"].as_str().unwrap();
        assert!(message.contains("version"), "{message}");
        assert!(
            message.contains(version),
            "{message} does not name {version}"
        );
    }
}

#[test]
fn unknown_keys_are_ignored_anywhere() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let extras = [
        r#""x":1"#.to_owned(),
        r#""\ud800":"\udfff""#.to_owned(),
        r#""Cseq":9,"METHOD":"x","cseq ":1,"":null"#.to_owned(),
        r#""x":1,"x":2,"x":{"cseq":1,"cseq":2}"#.to_owned(),
        r#""x":1e999,"y":-0.0,"z":123456789012345678901234567890"#.to_owned(),
        format!(r#""x":{deep}"#),
    ];
    for extra in extras {
        let what = &extra[..extra.len().min(60)];
        let session = member.session.clone();
        let text = format!(
            r#"{{{extra},"cseq":5,"method":"stream.add","session":"{session}",
                "data":{{{extra},"stream":{{{extra},"type":"camera","stream_id":"s",
                    "has_video":true,"has_audio":true}}}}}}"#
        );
        if text.len() > 60_000 {
            // Too long a message if it stands in all three places.
            let text =
                format!(r#"{{"cseq":5,"method":"channel.dump","session":"{session}",{extra}}}"#);
            assert_eq!(say(&mut member, &text)["err"], 0, "{what}");
            continue;
        }
        let answer = say(&mut member, &text);
        assert_eq!(
            (&answer["err"], &answer["cseq"]),
            (&json!(0), &json!(5)),
            "{what}"
        );
        assert_eq!(watcher.event("stream")["stat"], "publish");
    }
    let mut newcomer = server.connect();
    let text = r#"{"x\udc00":[],"cseq":1,"method":"channel.join",
        "data":{"\ud800":1,"app":"test","channel":"elsewhere"}}"#;
    assert_eq!(say(&mut newcomer, text)["err"], 0);
}

#[test]
fn white_space_and_escapes_are_json_like_any_other() {
    let server = Server::start();
    let mut client = server.connect();
    let text = "\r\n\t { \"\\u006dethod\" : \"channel\\u002ejoin\" , \"cseq\"\t:\n5 , \"data\" : \
                { \"app\" : \"t\\u0065st\" , \"channel\":\"a\\/b\\\"\\\\\" } } \n";
    let answer = say(&mut client, text);
    assert_eq!(
        (&answer["err"], &answer["cseq"]),
        (&json!(0), &json!(5)),
        "{answer}"
    );
    let mut second = server.connect();
    second.join_with(json!({"app": "test", "channel": "a/b\"\\"}));
    assert_eq!(second.dump().len(), 2, "it is the same room");
}

#[test]
fn a_key_that_stands_twice_is_refused_with_its_own_cseq() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    let session = member.session.clone();
    let envelope = [
        (
            r#""version":0,"version":0,"cseq":5,"method":"channel.dump""#,
            5,
        ),
        (
            r#""version":null,"version":null,"cseq":5,"method":"channel.dump""#,
            5,
        ),
        (r#""cseq":5,"cseq":5,"method":"channel.dump""#, 0),
        (r#""cseq":5,"\u0063seq":6,"method":"channel.dump""#, 0),
        (
            r#""cseq":5,"method":"channel.dump","method":"channel.dump""#,
            5,
        ),
        (
            r#""cseq":5,"method":"channel.dump","m\u0065thod":"channel.leave""#,
            5,
        ),
        (r#""cseq":5,"method":"channel.dump","data":{},"data":{}"#, 5),
        (r#""cseq":5,"method":"broadcast","data":{},"data":{}"#, 5),
    ];
    for (members, cseq) in envelope {
        let text = format!(r#"{{{members},"session":"{session}"}}"#);
        refused(&mut member, &text, 400, cseq);
    }
    let text = format!(
        r#"{{"cseq":5,"method":"channel.dump","session":"{session}","session":"{session}"}}"#
    );
    refused(&mut member, &text, 400, 5);

    let described = r#""type":"camera","stream_id":"s","has_video":true,"has_audio":true"#;
    let inside = [
        (
            "media_server.dump",
            r#"{"protocol":"webrtc","protocol":"webrtc"}"#.to_owned(),
        ),
        (
            "stream.delete",
            r#"{"stream_id":"s","stream_id":"s"}"#.to_owned(),
        ),
        (
            "stream.add",
            format!(r#"{{"stream":{{{described}}},"stream":{{{described}}}}}"#),
        ),
        (
            "stream.add",
            format!(r#"{{"stream":{{{described},"type":"camera"}}}}"#),
        ),
        (
            "stream.add",
            format!(r#"{{"stream":{{{described},"has_video":true}}}}"#),
        ),
        (
            "stream.add",
            format!(r#"{{"stream":{{{described},"audio_codec":"","audio_codec":""}}}}"#),
        ),
    ];
    for (method, data) in inside {
        let text = request(&member, 6, method, &data);
        refused(&mut member, &text, 400, 6);
    }
    for key in ["app", "channel", "endpoint", "role", "device", "last_event"] {
        let mut newcomer = server.connect();
        let value = match key {
            "role" => json!("normal"),
            "last_event" => json!(0),
            _ => json!("room"),
        };
        let data = format!(r#"{{"app":"room","channel":"room","{key}":{value},"{key}":{value}}}"#);
        refused(
            &mut newcomer,
            &request_of("", 7, "channel.join", &data),
            400,
            7,
        );
    }
    // None of them took effect.
    assert_eq!(watcher.names(), ["watcher", "member"]);
}

#[test]
fn a_broadcasts_data_is_not_looked_into() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    let data = r#"{"cseq":1,"cseq":2,"stream_id":"s","stream_id":"\ud800","data":{"a":1,"a":2}}"#;
    let text = request(&member, 5, "broadcast", data);
    assert_eq!(say(&mut member, &text)["err"], 0);
    let event = watcher.next_text();
    assert!(event.contains(&format!("\"payload\":{data}")), "{event}");
}

#[test]
fn what_is_no_json_object_gets_a_bad_message_event_and_the_connection_stays() {
    let server = Server::start();
    let deep = "[".repeat(30_000);
    let texts = [
        "",
        " ",
        "nonsense",
        "{",
        "{}{}",
        "{},",
        r#"{"cseq":1,}"#,
        r#"{"cseq" 1}"#,
        r#"{cseq:1}"#,
        r#"{'cseq':1}"#,
        r#"{"cseq":01}"#,
        r#"{"cseq":NaN}"#,
        "{\"cseq\":1,\"method\":\"a\nb\"}",
        r#"{"cseq":1,"method":"\x"}"#,
        "[]",
        r#"[{"cseq":1,"method":"channel.dump"}]"#,
        "7",
        "\"text\"",
        "null",
        "true",
        "\u{feff}{\"cseq\":1}",
        "\0",
        &deep,
    ];
    let mut client = server.connect();
    for joined in [false, true] {
        if joined {
            client.join("room", "member");
        }
        for text in texts {
            client.text(text);
            assert_eq!(client.error_event(), "bad_message", "{text:.60}");
            stays(&mut client);
        }
    }
    assert_eq!(client.names(), ["member"]);
}

#[test]
fn a_lone_surrogate_where_a_string_is_wanted_is_refused_with_its_own_cseq() {
    let server = Server::start();
    let mut member = server.join("room", "member");
    let cases = [
        ("stream.delete", r#"{"stream_id":"\ud800"}"#),
        ("stream.delete", r#"{"stream_id":"s\udc00\ud800"}"#),
        ("media_server.dump", r#"{"protocol":"\udfff"}"#),
        (
            "stream.add",
            r#"{"stream":{"type":"\ud800","stream_id":"s","has_video":true,"has_audio":true}}"#,
        ),
        (
            "stream.add",
            r#"{"stream":{"type":"camera","stream_id":"s","has_video":true,"has_audio":true,"audio_codec":"\ud800x"}}"#,
        ),
    ];
    for (method, data) in cases {
        let text = request(&member, 5, method, data);
        refused(&mut member, &text, 400, 5);
    }
    let text = r#"{"cseq":5,"method":"channel.dump","session":"\ud800"}"#;
    refused(&mut member, text, 400, 5);
    let mut newcomer = server.connect();
    for key in ["app", "channel", "endpoint", "role", "device"] {
        let mut data = json!({"app": "a", "channel": "c"});
        data[key] = "LONE".into();
        let data = data.to_string().replace("LONE", r"\ud83d");
        refused(
            &mut newcomer,
            &request_of("", 6, "channel.join", &data),
            400,
            6,
        );
    }
    // A pair of them is a character like any other.
    let data = r#"{"app":"a","channel":"c","endpoint":"\ud83d\ude00"}"#;
    let answer = say(&mut newcomer, &request_of("", 7, "channel.join", data));
    assert_eq!(answer["data"]["endpoint"], "\u{1f600}", "{answer}");
}

// ---------------------------------------------------------------------------- order of checks

#[test]
fn the_first_check_that_fails_gives_the_answer() {
    let server = Server::start();
    let (_watcher, mut member) = pair(&server);
    member.publish("s1");
    let session = member.session.clone();
    let all = |version: i64, method: &str, session: &str, data: Value| {
        json!({
            "version": version, "cseq": 5, "method": method, "session": session, "data": data,
        })
        .to_string()
    };
    let other_stream = json!({"stream": stream("s2")});
    let cases = [
        (
            "version before method",
            all(1, "nothing", &session, json!({})),
            400,
        ),
        (
            "version before session",
            all(1, "channel.dump", "", json!({})),
            400,
        ),
        (
            "method before session",
            all(0, "nothing", "", json!({})),
            404,
        ),
        (
            "method before shape",
            all(0, "nothing", &session, json!([])),
            404,
        ),
        (
            "session before shape",
            all(0, "stream.add", "", json!({"stream": 7})),
            410,
        ),
        (
            "session before shape",
            all(0, "broadcast", "", json!([])),
            410,
        ),
        (
            "session before room",
            all(0, "stream.add", "", other_stream.clone()),
            410,
        ),
        (
            "session before room",
            all(0, "stream.delete", "", json!({"stream_id": "none"})),
            410,
        ),
        (
            "session before media servers",
            all(0, "media_server.dump", "", json!({"protocol": "none"})),
            410,
        ),
        (
            "shape before room",
            all(
                0,
                "stream.add",
                &session,
                json!({"stream": {"type": "camera", "stream_id": "s2"}}),
            ),
            400,
        ),
        (
            "shape before room",
            all(0, "stream.delete", &session, json!({"stream_id": ""})),
            400,
        ),
        ("room", all(0, "stream.add", &session, other_stream), 409),
        (
            "version before shape of a join",
            all(1, "channel.join", "", json!([])),
            400,
        ),
        (
            "shape of a join before already joined",
            all(0, "channel.join", "", json!({"app": "test"})),
            400,
        ),
        (
            "already joined",
            all(0, "channel.join", "", good_data("channel.join")),
            409,
        ),
    ];
    for (what, text, err) in cases {
        let answer = say(&mut member, &text);
        assert_eq!(answer["err"], err, "{what}: {text} -> {answer}");
        assert_eq!(answer["cseq"], 5, "{what}: {text} -> {answer}");
        let names_version = answer["err_msg"].as_str().unwrap().contains("version");
        assert_eq!(
            names_version,
            what.starts_with("version"),
            "{what}: {answer}"
        );
    }
    assert_eq!(member.names(), ["watcher", "member"], "nothing took effect");
}

// -------------------------------------------------------------------------------- identifiers

/// What a string is in the place of an identifier: the answer's `err`. The place is left as it
/// was.
fn try_identifier(server: &Server, member: &mut Client, field: &str, text: &str) -> u64 {
    let answer = match field {
        "app" | "channel" | "endpoint" | "device" => {
            let mut data = json!({"app": "idents", "channel": "room", "endpoint": "x"});
            data[field] = text.into();
            server.connect().call("channel.join", data)
        }
        _ => {
            let mut data = json!({"stream": stream("s")});
            data["stream"][field] = text.into();
            let answer = member.call("stream.add", data);
            let stream_id = if field == "stream_id" { text } else { "s" };
            let deleted = member.call("stream.delete", json!({ "stream_id": stream_id }));
            assert_eq!(
                answer["err"] == 0,
                deleted["err"] == 0,
                "{answer} {deleted}"
            );
            answer
        }
    };
    answer["err"].as_u64().unwrap()
}

const IDENTIFIERS: [&str; 7] = [
    "app",
    "channel",
    "endpoint",
    "stream_id",
    "device",
    "audio_codec",
    "video_codec",
];

#[test]
fn an_identifier_has_at_most_128_bytes() {
    let server = Server::start();
    let mut member = server.join("room", "member");
    let cases = [
        ("x".repeat(128), 0),
        ("x".repeat(129), 400),
        ("x".repeat(10_000), 400),
        // Bytes count, not characters.
        ("é".repeat(64), 0),
        ("é".repeat(65), 400),
        (format!("{}x", "é".repeat(64)), 400),
        ("\u{1f600}".repeat(32), 0),
        ("\u{1f600}".repeat(33), 400),
        // What is escaped in JSON counts as what it means.
        ("\"".repeat(128), 0),
    ];
    for field in IDENTIFIERS {
        for (text, err) in &cases {
            let got = try_identifier(&server, &mut member, field, text);
            assert_eq!(got, *err, "{field} = {text:.20} of {} bytes", text.len());
        }
    }
}

#[test]
fn an_identifier_has_no_control_characters() {
    let server = Server::start();
    let mut member = server.join("room", "member");
    let refused = [
        '\0', '\t', '\n', '\u{1f}', '\u{7f}', '\u{80}', '\u{85}', '\u{9f}',
    ];
    let allowed = [
        ' ',
        '~',
        '\u{a0}',
        '\u{ad}',
        '\u{200b}',
        '\u{202e}',
        '\u{feff}',
        '\u{10ffff}',
    ];
    for field in IDENTIFIERS {
        let cases = refused
            .map(|c| (c, 400))
            .into_iter()
            .chain(allowed.map(|c| (c, 0)));
        for (c, err) in cases {
            for text in [
                format!("a{c}b"),
                format!("{c}"),
                format!("a{c}"),
                format!("{c}b"),
            ] {
                let got = try_identifier(&server, &mut member, field, &text);
                assert_eq!(got, err, "{field} = {text:?}");
            }
        }
    }
}

#[test]
fn device_and_codecs_may_be_empty_and_the_others_may_not() {
    let server = Server::start();
    let mut member = server.join("room", "member");
    for field in IDENTIFIERS {
        let err = match field {
            "app" | "channel" | "stream_id" => 400,
            // An empty endpoint asks the server for one.
            _ => 0,
        };
        assert_eq!(
            try_identifier(&server, &mut member, field, ""),
            err,
            "{field}"
        );
    }
}

#[test]
fn identifiers_are_compared_byte_by_byte() {
    let server = Server::start();
    // Composed and decomposed, upper and lower case, with and without space: all different.
    let names = [
        "\u{e9}",
        "e\u{301}",
        "anna",
        "Anna",
        " anna",
        "anna ",
        "a\u{200b}nna",
        "\u{212b}",
        "\u{c5}",
    ];
    let mut clients: Vec<Client> = names.iter().map(|name| server.join("room", name)).collect();
    // The last one has seen no event yet.
    let last = clients.last_mut().unwrap();
    assert_eq!(last.names(), names, "nobody took anybody's place");
    for name in names {
        let mut client = server.connect();
        assert_eq!(
            client.join(name, "member")["last_event"],
            1,
            "channel {name:?}"
        );
        let mut client = server.connect();
        let data = client.join_with(json!({"app": name, "channel": "room"}));
        assert_eq!(data["last_event"], 1, "app {name:?}");
    }
    for (n, client) in clients.iter_mut().enumerate() {
        for _ in n + 1..names.len() {
            assert_eq!(client.event("endpoint")["stat"], "join");
        }
    }
    for n in 0..names.len() {
        clients[n].publish(names[n]);
        for (_, other) in clients.iter_mut().enumerate().filter(|(m, _)| *m != n) {
            assert_eq!(other.event("stream")["stream"], names[n]);
        }
    }
}

#[test]
fn names_are_repeated_as_they_were_sent() {
    let server = Server::start();
    let mut watcher = server.join("room", "watcher");
    let odd = "\"\\/<>&'\u{2028}\u{1f600}\u{202e} {}";
    let mut member = server.connect();
    let data = member.join_with(json!({
        "app": "test", "channel": "room", "endpoint": odd, "device": odd,
    }));
    assert_eq!(data["endpoint"], odd);
    member.publish(odd);
    member.ok("broadcast", json!({}));
    let data = watcher.event("endpoint");
    assert_eq!(
        (&data["endpoint"], &data["device"]),
        (&json!(odd), &json!(odd))
    );
    assert_eq!(watcher.event("stream")["stream"], odd);
    assert_eq!(
        watcher.event("broadcast")["source_endpoint"]["endpoint"],
        odd
    );
    let row = watcher.dump().remove(1);
    assert_eq!(row["endpoint"], odd);
    assert_eq!(row["stream"]["stream_id"], odd);
}

// ----------------------------------------------------------------------------- shapes of data

#[test]
fn data_of_a_wrong_shape_is_refused() {
    let server = Server::start();
    let mut client = server.connect();
    let join = |key: &str, value: Value| {
        let mut data = json!({"app": "test", "channel": "room", "endpoint": "member"});
        data[key] = value;
        ("channel.join", data)
    };
    let mut joins = vec![
        ("channel.join", json!({"app": "test"})),
        ("channel.join", json!({"channel": "room"})),
        ("channel.join", json!({})),
        ("channel.join", json!([])),
        ("channel.join", json!("room")),
    ];
    for key in ["app", "channel", "endpoint", "role", "device"] {
        joins.extend([json!(7), json!(true), json!([]), json!({})].map(|value| join(key, value)));
    }
    joins.extend(["", "Normal", "admin", " normal"].map(|role| join("role", role.into())));
    let numbers = [json!(-1), json!(1.5), json!("1"), json!(true), json!([])];
    joins.extend(numbers.map(|value| join("last_event", value)));
    for (method, data) in &joins {
        let text = request(&client, 5, method, &data.to_string());
        refused(&mut client, &text, 400, 5);
    }

    client.join("room", "member");
    let add = |key: &str, value: Value| {
        let mut data = json!({"stream": stream("s")});
        data["stream"][key] = value;
        ("stream.add", data)
    };
    let without = |key: &str| {
        let mut data = json!({"stream": stream("s")});
        data["stream"].as_object_mut().unwrap().remove(key);
        ("stream.add", data)
    };
    let mut others = vec![
        ("stream.add", json!({})),
        ("stream.add", json!({"stream": "s"})),
        ("stream.add", json!({"stream": [stream("s")]})),
        ("stream.add", stream("s")),
        ("stream.delete", json!({})),
        ("stream.delete", json!({"stream_id": 7})),
        ("stream.delete", json!({"stream": {"stream_id": "s"}})),
        ("media_server.dump", json!({"protocol": 7})),
        ("media_server.dump", json!({"protocol": ["webrtc"]})),
    ];
    others.extend(["type", "stream_id", "has_video", "has_audio"].map(without));
    others.extend(["", "Camera", "screen"].map(|kind| add("type", kind.into())));
    for key in ["has_video", "has_audio"] {
        others.extend([json!(1), json!("true"), json!([])].map(|value| add(key, value)));
    }
    for key in ["type", "stream_id", "audio_codec", "video_codec"] {
        others.extend([json!(7), json!(true), json!({})].map(|value| add(key, value)));
    }
    for method in METHODS {
        let wrong = [json!([]), json!("x"), json!(7), json!(true), json!([{}])];
        others.extend(wrong.map(|data| (method, data)));
    }
    for (method, data) in &others {
        let text = request(&client, 6, method, &data.to_string());
        refused(&mut client, &text, 400, 6);
    }
    // None of them took effect.
    let row = json!({"endpoint": "member", "device": "", "role": "normal"});
    assert_eq!(client.dump(), [row]);
}

// --------------------------------------------------------------------------------------- join

#[test]
fn a_client_without_an_endpoint_is_given_a_uuid() {
    let server = Server::start();
    let mut given: Vec<String> = Vec::new();
    let mut clients = Vec::new();
    for data in [
        json!({"app": "test", "channel": "room"}),
        json!({"app": "test", "channel": "room", "endpoint": ""}),
        json!({"app": "test", "channel": "room", "endpoint": null}),
    ] {
        let mut client = server.connect();
        let endpoint = client.join_with(data)["endpoint"]
            .as_str()
            .unwrap()
            .to_owned();
        uuid::Uuid::parse_str(&endpoint).unwrap();
        assert_ne!(endpoint, client.session, "a session is a secret");
        given.push(endpoint);
        assert_eq!(client.names(), given, "each has one of its own");
        clients.push(client);
    }
}

#[test]
fn the_device_comes_from_the_join_or_else_from_the_url() {
    let server = Server::start();
    let cases = [
        ("/ws", None, ""),
        ("/ws?device=", None, ""),
        ("/ws?device=phone", None, "phone"),
        ("/ws?device=phone", Some(Value::Null), "phone"),
        ("/ws?device=phone", Some(json!("tablet")), "tablet"),
        ("/ws", Some(json!("tablet")), "tablet"),
        ("/ws?x=1&device=a%20b%26c%3d%E4%BC%9A&y=2", None, "a b&c=会"),
        ("/ws?Device=phone", None, ""),
    ];
    for (n, (path, device, due)) in cases.into_iter().enumerate() {
        let mut client = Client::connect_to(server.addr, path);
        let mut data = json!({"app": "test", "channel": format!("room {n}"), "endpoint": "x"});
        if let Some(device) = device {
            data["device"] = device;
        }
        client.join_with(data);
        assert_eq!(client.dump()[0]["device"], due, "{path}");
        // It stays the connection's for the next room.
        if path.contains("=phone") && due == "phone" {
            client.ok("channel.leave", json!({}));
            client.join("next", "x");
            assert_eq!(client.dump()[0]["device"], "phone", "{path}");
        }
    }
}

#[test]
fn a_device_in_the_url_follows_the_rule_of_identifiers() {
    let server = Server::start();
    for device in ["a%00b", "%C2%9F", &"x".repeat(129)] {
        let mut client = Client::connect_to(server.addr, &format!("/ws?device={device}"));
        let data = good_data("channel.join").to_string();
        refused(
            &mut client,
            &request_of("", 5, "channel.join", &data),
            400,
            5,
        );
        // A device in the join is one that the server need not take from there.
        client.join_with(json!({"app": "test", "channel": "room", "device": "phone"}));
    }
}

#[test]
fn joining_twice_is_refused_and_the_first_membership_is_untouched() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    member.publish("s");
    watcher.event("stream");
    let session = member.session.clone();
    for data in [
        good_data("channel.join"),
        json!({"app": "test", "channel": "elsewhere", "endpoint": "member"}),
        json!({"app": "test", "channel": "room", "endpoint": "watcher"}),
    ] {
        for claimed in ["", &session] {
            let text = request_of(claimed, 5, "channel.join", &data.to_string());
            let answer = refused(&mut member, &text, 409, 5);
            assert_eq!(keys(&answer), ANSWER, "{answer}");
        }
    }
    let rows = member.dump();
    assert_eq!(rows[1]["stream"], stream("s"));
    assert_eq!(
        watcher.names(),
        ["watcher", "member"],
        "and nobody was told of anything"
    );
}

#[test]
fn a_session_that_is_not_the_connections_present_one_gets_410() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    let old = member.session.clone();
    member.ok("channel.leave", json!({}));
    assert_eq!(watcher.event("endpoint")["stat"], "leave");
    let mut outside = server.connect();
    let sessions = [
        String::new(),
        old.clone(),
        watcher.session.clone(),
        watcher.session.to_uppercase(),
        "x".repeat(1000),
    ];
    let check = |client: &mut Client, sessions: &[String]| {
        for method in METHODS.into_iter().filter(|m| *m != "channel.join") {
            let data = match method {
                // What would be refused for another reason too.
                "stream.delete" => json!({"stream_id": "none"}),
                _ => good_data(method),
            };
            for session in sessions {
                let text = request_of(session, 5, method, &data.to_string());
                let answer = refused(client, &text, 410, 5);
                assert_answer_keys(&answer, method, session);
            }
        }
    };
    check(&mut outside, &sessions);
    check(&mut member, &sessions);
    member.join("room", "member");
    assert_eq!(watcher.event("endpoint")["stat"], "join");
    let mut sessions = sessions.to_vec();
    sessions.push(format!("{} ", member.session));
    sessions.push(member.session[1..].to_owned());
    check(&mut member, &sessions);
    // Nobody was touched.
    assert_eq!(watcher.names(), ["watcher", "member"]);
    assert_eq!(member.names(), ["watcher", "member"]);
}

#[test]
fn a_join_may_carry_any_session() {
    let server = Server::start();
    let mut watcher = server.join("room", "watcher");
    let sessions = ["", "unknown", &watcher.session.clone()];
    let mut clients = sessions.map(|_| server.connect());
    for (n, session) in sessions.into_iter().enumerate() {
        let data = json!({"app": "test", "channel": "room", "endpoint": n.to_string()}).to_string();
        let answer = say(
            &mut clients[n],
            &request_of(session, 1, "channel.join", &data),
        );
        assert_eq!(answer["err"], 0, "{answer}");
        assert_eq!(answer["data"]["resumed"], false, "{answer}");
        assert_ne!(answer["data"]["session"], session, "{answer}");
        assert_eq!(watcher.event("endpoint")["stat"], "join");
    }
    assert_eq!(watcher.names(), ["watcher", "0", "1", "2"]);
}

// ------------------------------------------------------------------------------------ streams

#[test]
fn stream_add_and_delete_are_refused_where_they_conflict() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    let add = |id: &str| json!({"stream": stream(id)});
    let delete = |id: &str| json!({"stream_id": id});
    assert_eq!(
        member.call("stream.delete", delete("s"))["err"],
        404,
        "nothing published"
    );
    member.ok("stream.add", add("s"));
    assert_eq!(watcher.event("stream")["stat"], "publish");
    assert_eq!(
        member.call("stream.add", add("t"))["err"],
        409,
        "one stream at most"
    );
    assert_eq!(
        member.call("stream.delete", delete("t"))["err"],
        404,
        "another stream"
    );
    assert_eq!(
        watcher.call("stream.add", add("s"))["err"],
        409,
        "another's stream_id"
    );
    assert_eq!(
        watcher.call("stream.delete", delete("s"))["err"],
        404,
        "another's stream"
    );
    member.ok("stream.delete", delete("s"));
    assert_eq!(watcher.event("stream")["stat"], "unpublish");
    assert_eq!(
        member.call("stream.delete", delete("s"))["err"],
        404,
        "deleted already"
    );
    // Free again for anybody.
    watcher.ok("stream.add", add("s"));
    assert_eq!(member.event("stream")["endpoint"], "watcher");
    member.ok("stream.add", add("t"));
    assert_eq!(watcher.event("stream")["stream"], "t");
    // The same stream_id in another room is another stream.
    server.join("elsewhere", "x").publish("s");
}

#[test]
fn adding_the_same_stream_again_replaces_its_description_and_is_announced_again() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    member.publish("s");
    let data = watcher.event("stream");
    let again =
        json!({"type": "desktop", "stream_id": "s", "has_video": false, "has_audio": false});
    member.ok("stream.add", json!({ "stream": again }));
    assert_eq!(watcher.event("stream"), data);
    let due = json!({
        "type": "desktop", "stream_id": "s", "has_video": false, "has_audio": false,
        "audio_codec": "", "video_codec": "",
    });
    assert_eq!(watcher.dump()[1]["stream"], due);
}

#[test]
fn a_stream_id_is_free_once_its_owner_has_left() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    member.publish("s");
    watcher.event("stream");
    member.ok("channel.leave", json!({}));
    assert_eq!(watcher.event("stream")["stat"], "unpublish");
    assert_eq!(watcher.event("endpoint")["stat"], "leave");
    watcher.publish("s");
}

// ------------------------------------------------------------------------------ media servers

#[test]
fn a_media_servers_answer_has_only_the_keys_that_are_configured() {
    let server = Server::with(|settings| {
        settings.media_servers = vec![media_server(
            &["webrtc", "rtsp"],
            "wss://media.test/rtc",
            "rtsp://media.test/live",
        )];
    });
    let due = json!({"wss": "wss://media.test/rtc", "rtsp": "rtsp://media.test/live"});
    let mut client = server.connect();
    assert_eq!(client.join("room", "member")["media_server"], due);
    for data in [
        json!({}),
        json!({"protocol": "webrtc"}),
        json!({"protocol": "rtsp"}),
    ] {
        let answer = client.ok("media_server.dump", data);
        assert_eq!(answer, json!({ "media_server": due }));
    }
}

#[test]
fn a_protocol_that_no_media_server_speaks_gets_503() {
    let server = Server::start();
    let mut client = server.join("room", "member");
    for protocol in ["srt", "", "WebRTC", "webrtc "] {
        let data = json!({ "protocol": protocol }).to_string();
        let text = request(&client, 5, "media_server.dump", &data);
        refused(&mut client, &text, 503, 5);
    }
}

#[test]
fn without_any_media_server_a_join_has_none_and_a_dump_gets_503() {
    let server = Server::with(|settings| settings.media_servers.clear());
    let mut client = server.connect();
    assert_eq!(client.join("room", "member")["media_server"], json!({}));
    for data in ["{}", r#"{"protocol":"webrtc"}"#, r#"{"protocol":"rtsp"}"#] {
        let text = request(&client, 5, "media_server.dump", data);
        refused(&mut client, &text, 503, 5);
    }
}

#[test]
fn where_none_speaks_webrtc_a_join_has_none_and_the_others_are_still_dumped() {
    let server = Server::with(|settings| {
        settings.media_servers = vec![media_server(&["rtsp"], "", "rtsp://media.test/live")];
    });
    let mut client = server.connect();
    assert_eq!(client.join("room", "member")["media_server"], json!({}));
    assert_eq!(client.call("media_server.dump", json!({}))["err"], 503);
    let data = client.ok("media_server.dump", json!({"protocol": "rtsp"}));
    assert_eq!(
        data,
        json!({"media_server": {"rtsp": "rtsp://media.test/live"}})
    );
}

// ---------------------------------------------------------------------------------- broadcast

#[test]
fn a_broadcasts_payload_arrives_byte_for_byte() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    let deep = nested(100);
    let wide = format!(
        r#"{{"wide":[{}0],"text":"{}"}}"#,
        "[[]],".repeat(500),
        "[".repeat(500)
    );
    let payloads = [
        "{}",
        "{ }",
        "{ \t\r\n \"b\" :\n 1 ,\t\"a\" : [ 1 , 2 ]\r\n}",
        r#"{"z":1,"a":2,"m":3}"#,
        r#"{"n":[1.50e+3,1E0,-0,-0.0,1e400,0.10,123456789012345678901234567890]}"#,
        r#"{"lone":"\ud800","pair":"\ud83d\ude00","key\udc00":"\u0000"}"#,
        r#"{"a":1,"a":2,"a":{"b":1,"b":2}}"#,
        r#"{"s":"\/ \" \\ \b\f\n\r\t é 会议 \u00e9"}"#,
        r#"{"version":7,"cseq":"x","method":null,"session":[],"payload":{}}"#,
        "{\"del\":\"\u{7f}\u{80}\u{2028}\u{feff}\u{10ffff}\"}",
        &deep,
        &wide,
    ];
    for payload in payloads {
        let text = request(&member, 5, "broadcast", payload);
        assert_eq!(say(&mut member, &text)["err"], 0, "{payload:.80}");
        let event = watcher.next_text();
        assert!(
            event.starts_with('{') && event.ends_with('}'),
            "{event:.80}"
        );
        let (_, behind) = event.split_once("\"payload\":").unwrap();
        let rest = behind.strip_prefix(payload);
        assert!(
            rest.is_some_and(|rest| rest.starts_with(['}', ','])),
            "sent {payload:.200}, came {behind:.200}"
        );
    }
}

/// An object of so many levels.
fn nested(levels: usize) -> String {
    let arrays = levels - 1;
    format!(r#"{{"deep":{}{}}}"#, "[".repeat(arrays), "]".repeat(arrays))
}

#[test]
fn a_broadcast_that_nests_more_than_100_levels_is_refused_and_reaches_nobody() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    for levels in [101, 30_000] {
        let text = request(&member, 5, "broadcast", &nested(levels));
        refused(&mut member, &text, 400, 5);
    }
    let text = request(&member, 6, "broadcast", &nested(100));
    assert_eq!(say(&mut member, &text)["err"], 0);
    let event = watcher.next_text();
    assert!(event.contains(&nested(100)), "{event:.200}");
}

#[test]
fn a_broadcast_of_another_type_than_an_object_is_refused() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    for data in ["[]", "[{}]", "\"text\"", "null", "7", "true", " \n null "] {
        let text = request(&member, 5, "broadcast", data);
        refused(&mut member, &text, 400, 5);
    }
    assert_eq!(watcher.names(), ["watcher", "member"], "nobody was told");
}

#[test]
fn a_broadcast_without_data_has_an_empty_payload() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    let text = json!({"cseq": 5, "method": "broadcast", "session": member.session});
    assert_eq!(say(&mut member, &text.to_string())["err"], 0);
    let due = json!({"source_endpoint": {"device": "", "endpoint": "member"}, "payload": {}});
    assert_eq!(watcher.event("broadcast"), due);
}

#[test]
fn a_broadcast_reaches_every_other_member_of_any_role() {
    let server = Server::start();
    let roles = ["normal", "recorder", "relayer"];
    let mut clients: Vec<Client> = Vec::new();
    for role in roles {
        let mut client = server.connect();
        client.join_with(json!({
            "app": "test", "channel": "room", "endpoint": role, "role": role,
        }));
        for other in &mut clients {
            other.event("endpoint");
        }
        clients.push(client);
    }
    for sender in 0..roles.len() {
        clients[sender].ok("broadcast", json!({"from": roles[sender]}));
        for (n, client) in clients.iter_mut().enumerate() {
            if n != sender {
                let data = client.event("broadcast");
                assert_eq!(data["payload"]["from"], roles[sender]);
                assert_eq!(data["source_endpoint"]["endpoint"], roles[sender]);
            }
        }
    }
    // The senders were not sent their own.
    for client in &mut clients {
        assert_eq!(client.names(), roles);
    }
}

#[test]
fn answers_and_events_are_unfragmented_text_frames_however_long() {
    let server = Server::start();
    let (mut watcher, mut member) = pair(&server);
    // Around the lengths at which a frame's header grows, and far beyond; the harness takes
    // whole frames alone.
    for len in [1, 60, 100, 125, 126, 65_000] {
        let text = request(
            &member,
            5,
            "broadcast",
            &json!({"x": "y".repeat(len)}).to_string(),
        );
        member.write(&frame(true, 1, text.as_bytes()));
        assert_eq!(member.answer(5)["err"], 0);
        assert_eq!(watcher.event("broadcast")["payload"]["x"], "y".repeat(len));
    }
}

//! Meetings held by a client that was written from the protocol document alone.
//!
//! [`DocumentClient`] is what an SDK author would write with nothing but that document at hand: it
//! sends every request in exactly the document's shape, and takes an answer or an event only if it
//! has exactly the keys that the document shows. The one freedom it grants the server is the one
//! a client can always grant: keys it does not know inside the `data` of an answer.

mod common;

use std::{
    collections::{BTreeSet, VecDeque},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use common::Server;
use serde_json::{Value, json};
use tungstenite::{Error, Message, WebSocket};

/// How long a client waits for a message that must come; a test never waits for it to pass.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

const PROTOCOL_VERSION: u64 = 0;

/// The keys of every answer, save for `session`: see [`answers_with_session`].
const ANSWER_KEYS: [&str; 5] = ["version", "cseq", "err", "err_msg", "data"];

const EVENT_KEYS: [&str; 5] = ["version", "cseq", "event", "session", "data"];

/// The addresses of a media server; each key is the scheme of its address as well.
const MEDIA_SERVER_KEYS: [&str; 5] = ["wss", "ws", "https", "http", "rtsp"];

const STREAM_KEYS: [&str; 6] = [
    "stream_id",
    "type",
    "has_video",
    "has_audio",
    "audio_codec",
    "video_codec",
];

// ---------------------------------------------------------------------------------- the client

/// One SDK instance: one connection, in one room at most.
struct DocumentClient {
    socket: WebSocket<TcpStream>,
    /// Counts from 0, the `cseq` of the document's own examples.
    next_cseq: u64,
    /// Empty while in no room.
    session: String,
    /// Events that came while an answer was awaited, in their order.
    events: VecDeque<Value>,
}

/// An answer whose top level has been checked.
struct Answer {
    err: i64,
    err_msg: String,
    session: Option<String>,
    data: Value,
}

impl DocumentClient {
    fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        let (socket, _) = tungstenite::client(format!("ws://{addr}/ws"), stream).unwrap();
        Self {
            socket,
            next_cseq: 0,
            session: String::new(),
            events: VecDeque::new(),
        }
    }

    /// A client that has joined the room in which all these tests meet.
    fn joined(addr: SocketAddr, endpoint: &str, role: &str) -> Self {
        let mut client = Self::connect(addr);
        client.join(endpoint, role);
        client
    }

    // The requests of the document, one function each.

    /// Joins, and returns the addresses of the media server.
    fn join(&mut self, endpoint: &str, role: &str) -> Value {
        assert_eq!(self.session, "", "a client joins when it is in no room");
        let data = self.succeed(
            "channel.join",
            json!({ "app": "meet", "channel": "standup", "endpoint": endpoint, "role": role }),
        );
        self.session = non_empty_string(&data["session"]);
        media_server_of(&data)
    }

    fn leave(&mut self) {
        self.succeed("channel.leave", json!({}));
        self.session.clear();
    }

    fn add_stream(&mut self, stream: &Value) {
        assert_keys(stream, &STREAM_KEYS);
        self.succeed("stream.add", json!({ "stream": stream }));
    }

    fn delete_stream(&mut self, stream_id: &str) {
        self.succeed("stream.delete", json!({ "stream_id": stream_id }));
    }

    /// Everyone in the room, each with exactly the keys of the document.
    fn dump(&mut self) -> Vec<Value> {
        let data = self.succeed("channel.dump", json!({}));
        let members = data["endpoint_list"].as_array().unwrap().clone();
        members.iter().for_each(check_member);
        members
    }

    fn dump_media_server(&mut self) -> Value {
        let data = self.succeed("media_server.dump", json!({ "protocol": "webrtc" }));
        media_server_of(&data)
    }

    fn broadcast(&mut self, payload: &Value) {
        self.succeed("broadcast", payload.clone());
    }

    // The events of the document.

    /// Takes the next event, which must be about `endpoint`, and returns the device it names.
    fn expect_endpoint(&mut self, endpoint: &str, stat: &str) -> String {
        let data = self.next_event("endpoint");
        assert_keys(&data, &["device", "endpoint", "stat"]);
        assert_eq!(data["endpoint"], endpoint, "{data}");
        assert_eq!(data["stat"], stat, "{data}");
        string(&data["device"])
    }

    /// As [`Self::expect_endpoint`], for an endpoint whose name only the server knows yet.
    fn expect_unknown_endpoint_to_join(&mut self) -> String {
        let data = self.next_event("endpoint");
        assert_keys(&data, &["device", "endpoint", "stat"]);
        assert_eq!(data["stat"], "join", "{data}");
        non_empty_string(&data["endpoint"])
    }

    /// Takes the next event, which must be about this stream, and returns the device it names.
    fn expect_stream(&mut self, endpoint: &str, stream_id: &str, stat: &str) -> String {
        let data = self.next_event("stream");
        assert_keys(&data, &["device", "endpoint", "stream", "stat"]);
        assert_eq!(data["endpoint"], endpoint, "{data}");
        assert_eq!(data["stream"], stream_id, "{data}");
        assert_eq!(data["stat"], stat, "{data}");
        string(&data["device"])
    }

    /// Takes the next event, which must be this broadcast, and returns the device it names.
    fn expect_broadcast(&mut self, endpoint: &str, payload: &Value) -> String {
        let data = self.next_event("broadcast");
        assert_keys(&data, &["source_endpoint", "payload"]);
        let source = &data["source_endpoint"];
        assert_keys(source, &["device", "endpoint"]);
        assert_eq!(source["endpoint"], endpoint, "{data}");
        assert_eq!(&data["payload"], payload);
        string(&source["device"])
    }

    /// Nothing came but what the test took. What the server had sent before it answers comes
    /// before the answer, so there is no need to wait for nothing.
    fn expect_no_more_events(&mut self) {
        self.dump();
        assert_eq!(self.events, VecDeque::<Value>::new());
    }

    /// The `data` of the next event, whose top level is checked here.
    fn next_event(&mut self, name: &str) -> Value {
        let event = match self.events.pop_front() {
            Some(event) => event,
            None => self.read(),
        };
        assert_keys(&event, &EVENT_KEYS);
        assert_eq!(event["event"], name, "{event}");
        assert_eq!(event["version"], PROTOCOL_VERSION, "{event}");
        assert_eq!(event["cseq"], 0, "{event}");
        assert_eq!(event["session"], self.session, "the receiver's own session");
        event["data"].clone()
    }

    // What the requests are made of.

    /// Asks, in the current session, for what must succeed; returns the `data` of the answer.
    fn succeed(&mut self, method: &str, data: Value) -> Value {
        let session = self.session.clone();
        let answer = self.ask(method, &session, data);
        assert_eq!(answer.err, 0, "{method}: {}", answer.err_msg);
        if let Some(answered) = answer.session {
            assert_eq!(answered, session, "{method} answers with the session asked");
        }
        answer.data
    }

    /// Asks for what must fail, in a session that may be wrong.
    fn fail(&mut self, method: &str, session: &str, data: Value) {
        let answer = self.ask(method, session, data);
        assert_failed(&answer, method);
    }

    /// Sends a request of the document's shape, and checks the top level of its answer. Errors
    /// have the same keys as success: the document knows no other answer.
    fn ask(&mut self, method: &str, session: &str, data: Value) -> Answer {
        let answer = self.exchange(json!({
            "version": PROTOCOL_VERSION,
            "method": method,
            "session": session,
            "data": data,
        }));
        let mut keys = ANSWER_KEYS.to_vec();
        if answers_with_session(method) {
            keys.push("session");
        }
        assert_keys(&answer, &keys);
        checked(&answer)
    }

    /// Sends any JSON object, with a `cseq` of its own, and returns the answer to that `cseq`.
    fn exchange(&mut self, mut request: Value) -> Value {
        let cseq = self.next_cseq;
        self.next_cseq += 1;
        request["cseq"] = json!(cseq);
        self.socket
            .send(Message::text(request.to_string()))
            .unwrap();
        loop {
            let message = self.read();
            if message.get("event").is_some() {
                self.events.push_back(message);
            } else {
                // One request at a time: an answer to another `cseq` answers nothing.
                assert_eq!(message["cseq"], cseq, "{message}");
                return message;
            }
        }
    }

    /// The next text frame. Control frames are no part of the protocol.
    fn read(&mut self) -> Value {
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not a text frame: {other:?}"),
            }
        }
    }

    /// Closes the WebSocket as a client does that ends in good order.
    fn close(mut self) {
        self.socket.close(None).unwrap();
        loop {
            match self.socket.read() {
                Ok(_) => {}
                Err(Error::ConnectionClosed) => return,
                Err(error) => panic!("no end in good order: {error}"),
            }
        }
    }

    /// Ends the connection without a word, as a client does that crashes.
    fn vanish(self) {
        drop(self);
    }
}

// ---------------------------------------------------------------------------------- the shapes

/// Whether the document shows a top-level `session` in the answer to this method.
fn answers_with_session(method: &str) -> bool {
    matches!(method, "channel.leave" | "stream.add" | "stream.delete")
}

fn checked(answer: &Value) -> Answer {
    assert_eq!(answer["version"], PROTOCOL_VERSION, "{answer}");
    assert!(answer["data"].is_object(), "{answer}");
    Answer {
        err: answer["err"].as_i64().expect("`err` is a whole number"),
        err_msg: string(&answer["err_msg"]),
        session: answer.get("session").map(string),
        data: answer["data"].clone(),
    }
}

fn assert_failed(answer: &Answer, what: &str) {
    assert_ne!(answer.err, 0, "{what} is an error");
    assert_ne!(answer.err_msg, "", "{what}: an error says what is wrong");
}

/// Checks one entry of `endpoint_list`; `stream` is there only for who publishes.
fn check_member(member: &Value) {
    let mut keys = vec!["endpoint", "device", "role"];
    if let Some(stream) = member.get("stream") {
        keys.push("stream");
        assert_keys(stream, &STREAM_KEYS);
    }
    assert_keys(member, &keys);
}

fn media_server_of(data: &Value) -> Value {
    let media_server = &data["media_server"];
    assert_keys(media_server, &MEDIA_SERVER_KEYS);
    for scheme in MEDIA_SERVER_KEYS {
        let address = string(&media_server[scheme]);
        assert!(
            address.starts_with(&format!("{scheme}://")),
            "{scheme}: {address:?}"
        );
    }
    media_server.clone()
}

#[track_caller]
fn assert_keys(value: &Value, expected: &[&str]) {
    let object = value
        .as_object()
        .unwrap_or_else(|| panic!("not an object: {value}"));
    let found: BTreeSet<&str> = object.keys().map(String::as_str).collect();
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    assert_eq!(found, expected, "the keys of {value}");
}

#[track_caller]
fn string(value: &Value) -> String {
    match value {
        Value::String(string) => string.clone(),
        other => panic!("not a string: {other}"),
    }
}

#[track_caller]
fn non_empty_string(value: &Value) -> String {
    let string = string(value);
    assert_ne!(string, "");
    string
}

// ------------------------------------------------------------------------- what the tests share

/// A server whose operator runs a media server that can be reached in every way of the document.
fn start_server() -> Server {
    Server::with(|settings| {
        // The document knows of no waiting for those who are lost; it does no harm to it.
        settings.rooms.resume_window = Duration::from_millis(200);
        let media_server = &mut settings.media_servers[0];
        media_server.wss = "wss://media.example:8443/rtc".into();
        media_server.ws = "ws://media.example:8000/rtc".into();
        media_server.https = "https://media.example:443/whip".into();
        media_server.http = "http://media.example:8889/whip".into();
        media_server.rtsp = "rtsp://media.example:8554/live".into();
    })
}

fn camera(stream_id: &str) -> Value {
    json!({
        "type": "camera",
        "stream_id": stream_id,
        "has_video": true,
        "has_audio": true,
        "audio_codec": "opus",
        "video_codec": "vp8",
    })
}

/// A shared screen: no sound comes with it.
fn desktop(stream_id: &str) -> Value {
    json!({
        "type": "desktop",
        "stream_id": stream_id,
        "has_video": true,
        "has_audio": false,
        "audio_codec": "",
        "video_codec": "h264",
    })
}

/// The only entry of a dump that is about `endpoint`.
#[track_caller]
fn member<'a>(members: &'a [Value], endpoint: &str) -> &'a Value {
    let found: Vec<&Value> = members
        .iter()
        .filter(|member| member["endpoint"] == endpoint)
        .collect();
    assert_eq!(found.len(), 1, "{endpoint} in {members:?}");
    found[0]
}

/// Who is in a dump, in the order of their names: the document promises no other.
fn endpoints(members: &[Value]) -> Vec<String> {
    let mut endpoints: Vec<String> = members
        .iter()
        .map(|member| string(&member["endpoint"]))
        .collect();
    endpoints.sort();
    endpoints
}

/// An Android client, a web client and a recorder in one room, who have taken each other's join
/// events.
struct Meeting {
    android: DocumentClient,
    web: DocumentClient,
    recorder: DocumentClient,
    /// The device of the Android client, as the others may have learned it.
    android_device: String,
    _server: Server,
}

impl Meeting {
    /// The web client is there first, so it is the one to see everybody join.
    fn start() -> Self {
        let server = start_server();
        let mut web = DocumentClient::joined(server.addr, "web", "normal");
        let mut android = DocumentClient::joined(server.addr, "android", "normal");
        let android_device = web.expect_endpoint("android", "join");
        let recorder = DocumentClient::joined(server.addr, "recorder", "recorder");
        web.expect_endpoint("recorder", "join");
        android.expect_endpoint("recorder", "join");
        Self {
            android,
            web,
            recorder,
            android_device,
            _server: server,
        }
    }

    /// The Android client publishes its camera, and the others have taken the event.
    fn with_camera(stream_id: &str) -> Self {
        let mut meeting = Self::start();
        meeting.android.add_stream(&camera(stream_id));
        meeting.expect_stream(stream_id, "publish");
        meeting
    }

    /// Everyone but the Android client, who all see the same of it.
    fn others(&mut self) -> [&mut DocumentClient; 2] {
        [&mut self.web, &mut self.recorder]
    }

    /// The others' next event is about the Android client's stream.
    fn expect_stream(&mut self, stream_id: &str, stat: &str) {
        let device = self.android_device.clone();
        for other in self.others() {
            assert_eq!(other.expect_stream("android", stream_id, stat), device);
        }
    }

    /// The others' next event is about the Android client itself.
    fn expect_endpoint(&mut self, stat: &str) {
        let device = self.android_device.clone();
        for other in self.others() {
            assert_eq!(other.expect_endpoint("android", stat), device);
        }
    }
}

// ----------------------------------------------------------------------------------- the tests

#[test]
fn a_meeting_of_three_from_the_first_join_to_the_next() {
    let mut meeting = Meeting::start();

    meeting.android.add_stream(&camera("android-camera"));
    meeting.expect_stream("android-camera", "publish");

    let greeting = json!({ "text": "hello" });
    meeting.android.broadcast(&greeting);
    for other in meeting.others() {
        other.expect_broadcast("android", &greeting);
    }

    meeting.android.delete_stream("android-camera");
    meeting.expect_stream("android-camera", "unpublish");

    meeting.android.leave();
    meeting.expect_endpoint("leave");

    // The connection outlives the room: the same client comes back on it.
    meeting.android.join("android", "normal");
    for other in meeting.others() {
        other.expect_endpoint("android", "join");
    }

    let Meeting {
        mut android,
        mut web,
        mut recorder,
        ..
    } = meeting;
    for client in [&mut android, &mut web, &mut recorder] {
        assert_eq!(endpoints(&client.dump()), ["android", "recorder", "web"]);
        client.expect_no_more_events();
    }
}

#[test]
fn a_dump_shows_everyone_and_the_stream_of_who_publishes() {
    let mut meeting = Meeting::with_camera("android-camera");
    let device = meeting.android_device.clone();

    for client in [
        &mut meeting.android,
        &mut meeting.web,
        &mut meeting.recorder,
    ] {
        let members = client.dump();
        assert_eq!(endpoints(&members), ["android", "recorder", "web"]);

        let android = member(&members, "android");
        assert_eq!(android["role"], "normal");
        assert_eq!(android["device"], device, "the device of the events");
        assert_eq!(android["stream"], camera("android-camera"));

        let web = member(&members, "web");
        assert_eq!(web["role"], "normal");
        assert_eq!(web.get("stream"), None);

        let recorder = member(&members, "recorder");
        assert_eq!(recorder["role"], "recorder");
        assert_eq!(recorder.get("stream"), None);
    }
}

#[test]
fn a_deleted_stream_is_gone_and_another_can_follow() {
    let mut meeting = Meeting::with_camera("first");

    meeting.android.delete_stream("first");
    meeting.expect_stream("first", "unpublish");
    let members = meeting.web.dump();
    assert_eq!(member(&members, "android").get("stream"), None);

    meeting.android.add_stream(&camera("second"));
    meeting.expect_stream("second", "publish");
    let members = meeting.web.dump();
    assert_eq!(member(&members, "android")["stream"], camera("second"));
}

#[test]
fn the_media_server_is_told_at_the_join_and_whenever_asked() {
    let server = start_server();
    let mut client = DocumentClient::connect(server.addr);
    let expected = json!({
        "wss": "wss://media.example:8443/rtc",
        "ws": "ws://media.example:8000/rtc",
        "https": "https://media.example:443/whip",
        "http": "http://media.example:8889/whip",
        "rtsp": "rtsp://media.example:8554/live",
    });

    assert_eq!(client.join("web", "normal"), expected);
    assert_eq!(client.dump_media_server(), expected);
}

#[test]
fn a_broadcast_reaches_all_the_others_as_it_was_sent() {
    let mut meeting = Meeting::start();
    let device = meeting.android_device.clone();
    let payloads = [
        json!({}),
        json!({
            "text": "大家好 👋 \"quoted\"\n\u{0000}",
            "numbers": [0, -1, 2.5, 1e300, u64::MAX, i64::MIN],
            "nothing": null,
            "deep": { "er": [{ "and": [[], {}, [true, false]] }] },
            "": "an empty key",
        }),
        // The names of the protocol mean nothing inside a payload.
        json!({
            "version": 7,
            "cseq": 7,
            "event": "endpoint",
            "method": "channel.leave",
            "session": "mine",
            "data": { "payload": {} },
        }),
    ];

    for payload in &payloads {
        meeting.android.broadcast(payload);
        for other in meeting.others() {
            assert_eq!(other.expect_broadcast("android", payload), device);
        }
    }

    // The next that the sender hears is another's broadcast: none of its own came before.
    let reply = json!({ "reply": true });
    meeting.web.broadcast(&reply);
    meeting.android.expect_broadcast("web", &reply);
    meeting.recorder.expect_broadcast("web", &reply);
    meeting.android.expect_no_more_events();
    meeting.web.expect_no_more_events();
}

#[test]
fn leaving_ends_the_stream_too() {
    let mut meeting = Meeting::with_camera("android-camera");

    meeting.android.leave();

    meeting.expect_stream("android-camera", "unpublish");
    meeting.expect_endpoint("leave");
    for other in meeting.others() {
        assert_eq!(endpoints(&other.dump()), ["recorder", "web"]);
    }

    // Who comes back is a new member, who publishes nothing yet.
    meeting.android.join("android", "normal");
    let members = meeting.android.dump();
    assert_eq!(member(&members, "android").get("stream"), None);
}

#[test]
fn closing_the_socket_ends_the_stream_and_leaves() {
    closed_like(DocumentClient::close);
}

#[test]
fn a_socket_that_breaks_ends_the_stream_and_leaves() {
    closed_like(DocumentClient::vanish);
}

/// A member that publishes, and one that does not, end their connections with `end`.
fn closed_like(end: fn(DocumentClient)) {
    let Meeting {
        android,
        mut web,
        recorder,
        android_device,
        _server,
    } = Meeting::with_camera("android-camera");

    end(recorder);
    web.expect_endpoint("recorder", "leave");

    end(android);
    let device = web.expect_stream("android", "android-camera", "unpublish");
    assert_eq!(device, android_device);
    assert_eq!(web.expect_endpoint("android", "leave"), android_device);

    assert_eq!(endpoints(&web.dump()), ["web"]);
    web.expect_no_more_events();
}

#[test]
fn an_empty_endpoint_gets_a_name_of_its_own() {
    let server = start_server();
    let mut web = DocumentClient::joined(server.addr, "web", "normal");

    let mut first = DocumentClient::joined(server.addr, "", "normal");
    let first_name = web.expect_unknown_endpoint_to_join();
    let _second = DocumentClient::joined(server.addr, "", "normal");
    let second_name = web.expect_unknown_endpoint_to_join();
    assert_ne!(first_name, second_name);

    let mut expected = vec![first_name.clone(), second_name.clone(), "web".to_owned()];
    expected.sort();
    assert_eq!(endpoints(&web.dump()), expected);

    // The others know the nameless client by that name from then on.
    first.expect_endpoint(&second_name, "join");
    first.add_stream(&camera("nameless"));
    web.expect_stream(&first_name, "nameless", "publish");
    first.broadcast(&json!({ "who": "me" }));
    web.expect_broadcast(&first_name, &json!({ "who": "me" }));
    first.delete_stream("nameless");
    web.expect_stream(&first_name, "nameless", "unpublish");
    first.leave();
    web.expect_endpoint(&first_name, "leave");
}

#[test]
fn a_desktop_is_published_like_a_camera() {
    let server = start_server();
    let mut relayer = DocumentClient::joined(server.addr, "relayer", "relayer");
    let mut screen = DocumentClient::joined(server.addr, "screen", "normal");
    relayer.expect_endpoint("screen", "join");

    // An endpoint publishes one stream only, so the stream may have the endpoint's name.
    screen.add_stream(&desktop("screen"));
    relayer.expect_stream("screen", "screen", "publish");

    let members = relayer.dump();
    assert_eq!(member(&members, "screen")["stream"], desktop("screen"));
    assert_eq!(member(&members, "relayer")["role"], "relayer");

    screen.delete_stream("screen");
    relayer.expect_stream("screen", "screen", "unpublish");
}

#[test]
fn a_wrong_session_is_an_error_and_the_connection_goes_on() {
    let requests = [
        ("channel.leave", json!({})),
        ("stream.add", json!({ "stream": camera("camera") })),
        ("stream.delete", json!({ "stream_id": "camera" })),
        ("channel.dump", json!({})),
        ("media_server.dump", json!({ "protocol": "webrtc" })),
        ("broadcast", json!({ "text": "hello" })),
    ];
    let server = start_server();
    let mut web = DocumentClient::joined(server.addr, "web", "normal");
    let mut client = DocumentClient::connect(server.addr);

    for (method, data) in &requests {
        client.fail(method, "", data.clone());
    }
    client.join("android", "normal");
    web.expect_endpoint("android", "join");
    for (method, data) in &requests {
        client.fail(method, "no such session", data.clone());
        // A session is its owner's alone.
        client.fail(method, &web.session, data.clone());
    }

    assert_goes_on(&mut client, &mut web);
}

#[test]
fn an_unknown_method_is_an_error_and_the_connection_goes_on() {
    let server = start_server();
    let mut web = DocumentClient::joined(server.addr, "web", "normal");
    let mut client = DocumentClient::joined(server.addr, "android", "normal");
    web.expect_endpoint("android", "join");

    for method in ["channel.destroy", "channel", "Channel.Dump", ""] {
        let session = client.session.clone();
        client.fail(method, &session, json!({}));
    }

    assert_goes_on(&mut client, &mut web);
}

#[test]
fn missing_data_is_an_error_and_the_connection_goes_on() {
    let server = start_server();
    let mut web = DocumentClient::joined(server.addr, "web", "normal");
    let mut client = DocumentClient::connect(server.addr);

    let join = json!({
        "app": "meet", "channel": "standup", "endpoint": "android", "role": "normal"
    });
    for key in ["app", "channel"] {
        client.fail("channel.join", "", without(&join, key));
    }
    client.join("android", "normal");
    web.expect_endpoint("android", "join");

    let session = client.session.clone();
    client.fail("stream.add", &session, json!({}));
    for key in ["stream_id", "type"] {
        let stream = without(&camera("camera"), key);
        client.fail("stream.add", &session, json!({ "stream": stream }));
    }
    client.fail("stream.delete", &session, json!({}));

    assert_goes_on(&mut client, &mut web);
}

#[test]
fn a_request_without_its_top_level_keys_is_an_error_and_the_connection_goes_on() {
    let server = start_server();
    let mut web = DocumentClient::joined(server.addr, "web", "normal");
    let mut client = DocumentClient::joined(server.addr, "android", "normal");
    web.expect_endpoint("android", "join");

    let request = json!({
        "version": PROTOCOL_VERSION,
        "method": "stream.delete",
        "session": client.session,
        "data": { "stream_id": "camera" },
    });
    for key in ["method", "session", "data"] {
        // The document shows no answer to what is not a request of its own, so all this one must
        // have is what every answer has.
        let answer = client.exchange(without(&request, key));
        for expected in ANSWER_KEYS {
            assert!(answer.get(expected).is_some(), "{expected} in {answer}");
        }
        assert_failed(&checked(&answer), key);
    }

    assert_goes_on(&mut client, &mut web);
}

/// `client`, an Android client after its errors, can still do what a member can, and nothing of
/// what went wrong reached `other`.
fn assert_goes_on(client: &mut DocumentClient, other: &mut DocumentClient) {
    other.expect_no_more_events();
    client.add_stream(&camera("after-the-errors"));
    other.expect_stream("android", "after-the-errors", "publish");
    assert_eq!(endpoints(&client.dump()), ["android", "web"]);
    client.leave();
    other.expect_stream("android", "after-the-errors", "unpublish");
    other.expect_endpoint("android", "leave");
}

fn without(object: &Value, key: &str) -> Value {
    let mut object = object.clone();
    let removed = object.as_object_mut().unwrap().remove(key);
    assert!(removed.is_some(), "{key} was there");
    object
}

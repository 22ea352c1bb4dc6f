//! The request parser: what is an object, which error it gets and under which `cseq`, what of it
//! is taken, and that a broadcast's `data` stays the bytes that came.

use std::{collections::BTreeMap, time::Instant};

use meeting_server::{
    ids::{Device, Endpoint, SessionId},
    protocol::{
        error::Refusal,
        event::{RoomEvent, Who},
        reply::ReplyTo,
        request::{Action, Envelope, EnvelopeError, JoinRequest, Request, Role, Stream},
    },
};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Value, json, value::RawValue};

/// Any bytes, as the text of one message.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let members = Members::of(text);
    let (envelope, reply_to) = match (Envelope::parse(text), &members) {
        (Err(EnvelopeError::NotAnObject(_)), None) => return,
        (Err(EnvelopeError::NotAnObject(error)), Some(_)) => panic!("{error}: {text}"),
        (_, None) => panic!("no object: {text}"),
        (Err(EnvelopeError::Refused(reply_to, refusal)), Some(members)) => {
            assert_eq!(Some(refusal.code as u16), members.refused(), "{text}");
            return members.is_answered_as_it_asked(&reply_to, Some(&refusal));
        }
        (Ok(parsed), Some(_)) => parsed,
    };
    let members = members.unwrap();
    assert_eq!(members.refused(), None, "{text}");
    members.is_answered_as_it_asked(&reply_to, None);
    assert_eq!(envelope.session, members.session());
    let method = members.string("method").unwrap();
    assert_eq!(envelope.is_join(), method == "channel.join");
    let data = members.raw("data");
    match envelope.request() {
        Ok(request) => {
            assert!(wanted(&method, data), "{text}");
            is_what_was_said(&request, data);
            is_the_same_when_it_is_said_plainly(&request, &method, &members.session());
        }
        Err(refusal) => {
            assert_eq!(refusal.code as u16, 400);
            assert!(!wanted(&method, data), "{refusal}: {text}");
            members.is_answered_as_it_asked(&reply_to, Some(&refusal));
        }
    }
}

// ----- the model: an object is a list of keys and raw values -----

/// The members of an object by their keys: how many times each stands there, and the last.
struct Members<'a>(BTreeMap<Vec<u8>, (usize, &'a RawValue)>);

impl<'a> Members<'a> {
    /// `None`: it is no JSON object.
    fn of(text: &'a str) -> Option<Self> {
        let is_object = text
            .trim_start_matches([' ', '\t', '\r', '\n'])
            .starts_with('{');
        let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
        (is_object && is_json).then(|| {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            Self(deserializer.deserialize_map(MembersVisitor).unwrap())
        })
    }

    fn twice(&self, name: &str) -> bool {
        self.0.get(name.as_bytes()).is_some_and(|(n, _)| *n > 1)
    }

    /// Null counts as missing, but for a broadcast's `data`.
    fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.get(name.as_bytes()).map(|(_, raw)| raw.get())
    }

    fn present(&self, name: &str) -> Option<&'a str> {
        self.raw(name).filter(|raw| *raw != "null")
    }

    fn string(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.present(name)?).ok()
    }

    fn session(&self) -> String {
        self.string("session").unwrap_or_default()
    }

    /// The number of the answer, and whether it is the request's.
    fn cseq(&self) -> (&'a str, bool) {
        match self.present("cseq") {
            _ if self.twice("cseq") => ("0", false),
            None => ("0", true),
            Some(raw) if is_integer(raw) => (raw, true),
            Some(_) => ("0", false),
        }
    }

    /// The code of an envelope that is refused.
    fn refused(&self) -> Option<u16> {
        let names = ["version", "cseq", "method", "session", "data"];
        let version = self.present("version").unwrap_or("0");
        if !self.cseq().1
            || names.iter().any(|name| self.twice(name))
            || !["0", "-0"].contains(&version)
        {
            return Some(400);
        }
        match self.string("method") {
            None => return Some(400),
            Some(method) if !METHODS.contains(&method.as_str()) => return Some(404),
            Some(_) => {}
        }
        let no_string = self.present("session").is_some() && self.string("session").is_none();
        no_string.then_some(400)
    }

    /// The answer repeats `cseq` as it was spelled, and `session` where the method has it.
    fn is_answered_as_it_asked(&self, reply_to: &ReplyTo, refusal: Option<&Refusal>) {
        let with_session = ["channel.leave", "stream.add", "stream.delete"];
        let session = match self.string("method") {
            Some(method) if with_session.contains(&method.as_str()) => {
                format!(",\"session\":{}", Value::from(self.session()))
            }
            _ => String::new(),
        };
        let (frame, err, err_msg) = match refusal {
            None => (reply_to.ok(), 0, "ok"),
            Some(refusal) => (
                reply_to.refused(refusal),
                refusal.code as u16,
                &*refusal.message,
            ),
        };
        let (cseq, err_msg) = (self.cseq().0, Value::from(err_msg));
        let expected = format!(
            r#"{{"version":0,"cseq":{cseq},"err":{err},"err_msg":{err_msg}{session},"data":{{}}}}"#
        );
        assert_eq!(payload(&frame), expected);
        serde_json::from_str::<IgnoredAny>(&expected).unwrap();
    }
}

const METHODS: [&str; 7] = [
    "channel.join",
    "channel.leave",
    "stream.add",
    "stream.delete",
    "channel.dump",
    "media_server.dump",
    "broadcast",
];

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = BTreeMap<Vec<u8>, (usize, &'de RawValue)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(key) = map.next_key_seed(AnyKey)? {
            let raw = map.next_value()?;
            let member = members.entry(key).or_insert((0, raw));
            *member = (member.0 + 1, raw);
        }
        Ok(members)
    }
}

/// A key as bytes: it may hold a lone surrogate.
struct AnyKey;

impl<'de> DeserializeSeed<'de> for AnyKey {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for AnyKey {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E: Error>(self, key: &[u8]) -> Result<Vec<u8>, E> {
        Ok(key.to_vec())
    }
}

/// A JSON integer that an unsigned or a signed number of 64 bits holds.
fn is_integer(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    let most = if raw.starts_with('-') {
        1 << 63
    } else {
        u128::from(u64::MAX)
    };
    digits.bytes().all(|byte| byte.is_ascii_digit())
        && digits.len() <= 20
        && digits.parse::<u128>().is_ok_and(|number| number <= most)
}

// ----- the model: which `data` a method wants -----

fn wanted(method: &str, data: Option<&str>) -> bool {
    if method == "broadcast" {
        return data.is_none_or(|raw| raw.starts_with('{') && levels(raw) <= 100);
    }
    let Some(data) = Members::of(data.filter(|raw| *raw != "null").unwrap_or("{}")) else {
        return false;
    };
    match method {
        "channel.join" => {
            let names = [
                "app",
                "channel",
                "endpoint",
                "role",
                "device",
                "token",
                "last_event",
            ];
            data.once(&names)
                && data.required("app", 1)
                && data.required("channel", 1)
                && (data.optional("endpoint", 1) || data.string("endpoint").as_deref() == Some(""))
                && data.among("role", &["normal", "recorder", "relayer"])
                && data.optional("device", 0)
                && (data.present("token").is_none() || data.string("token").is_some())
                && data
                    .present("last_event")
                    .is_none_or(|raw| is_integer(raw) && !raw.starts_with('-'))
        }
        "stream.add" => {
            let Some(stream) = data.present("stream").and_then(Members::of) else {
                return false;
            };
            let names = [
                "type",
                "stream_id",
                "has_video",
                "has_audio",
                "audio_codec",
                "video_codec",
            ];
            let flag = |name| ["true", "false"].contains(&stream.raw(name).unwrap_or_default());
            data.once(&["stream"])
                && stream.once(&names)
                && stream.present("type").is_some()
                && stream.among("type", &["camera", "desktop"])
                && stream.required("stream_id", 1)
                && flag("has_video")
                && flag("has_audio")
                && stream.optional("audio_codec", 0)
                && stream.optional("video_codec", 0)
        }
        "stream.delete" => data.once(&["stream_id"]) && data.required("stream_id", 1),
        "media_server.dump" => {
            let no_string = data.present("protocol").is_some() && data.string("protocol").is_none();
            data.once(&["protocol"]) && !no_string
        }
        _ => true,
    }
}

/// How many levels of brackets a JSON text has: its own outermost one is the first, and brackets
/// inside of strings are none.
fn levels(json: &str) -> usize {
    let (mut open, mut most) = (0_usize, 0);
    let mut rest = json.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => skip_string(&mut rest),
            '{' | '[' => {
                open += 1;
                most = most.max(open);
            }
            '}' | ']' => open -= 1,
            _ => {}
        }
    }
    most
}

/// Takes the rest of a string, up to the quotation mark that ends it.
fn skip_string(rest: &mut std::str::Chars<'_>) {
    while let Some(c) = rest.next() {
        match c {
            '"' => return,
            '\\' => _ = rest.next(),
            _ => {}
        }
    }
}

impl Members<'_> {
    fn once(&self, names: &[&str]) -> bool {
        !names.iter().any(|name| self.twice(name))
    }

    fn required(&self, name: &str, least: usize) -> bool {
        self.string(name).is_some_and(|text| {
            let is_control = |c: char| matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}');
            (least..=128).contains(&text.len()) && !text.chars().any(is_control)
        })
    }

    fn optional(&self, name: &str, least: usize) -> bool {
        self.present(name).is_none() || self.required(name, least)
    }

    fn among(&self, name: &str, words: &[&str]) -> bool {
        self.present(name).is_none()
            || self
                .string(name)
                .is_some_and(|text| words.contains(&text.as_str()))
    }
}

// ----- what was taken -----

fn is_what_was_said(request: &Request, data: Option<&str>) {
    let empty = "{}";
    let raw = data.filter(|raw| *raw != "null").unwrap_or(empty);
    let data = Members::of(raw).unwrap();
    match request {
        Request::Join(join) => {
            assert_eq!(join.room.app.as_str(), data.string("app").unwrap());
            assert_eq!(join.room.channel.as_str(), data.string("channel").unwrap());
            let some = |text: &String| !text.is_empty();
            let endpoint = join.endpoint.as_ref().map(|e| e.as_str().to_owned());
            assert_eq!(endpoint, data.string("endpoint").filter(some));
            let device = join.device.as_ref().map(|d| d.as_str().to_owned());
            assert_eq!(device, data.string("device"));
            let role = join.role.map(|role| role.as_str().to_owned());
            assert_eq!(role, data.string("role"));
            let token = join.token.as_ref().map(|token| token.expose().to_owned());
            assert_eq!(token, data.string("token").filter(some));
            let last_event = join.last_event.map(|number| number.to_string());
            assert_eq!(last_event.as_deref(), data.present("last_event"));
            let shown = format!("{join:?}");
            if let Some(token) = &token {
                // One that is long enough not to stand there by chance.
                assert!(token.len() < 300 || !shown.contains(token), "{shown}");
            }
        }
        Request::Member(Action::StreamAdd(stream)) => {
            let said = Members::of(data.raw("stream").unwrap()).unwrap();
            assert_eq!(stream.stream_id.as_str(), said.string("stream_id").unwrap());
            assert_eq!(stream.kind.as_str(), said.string("type").unwrap());
            assert_eq!(stream.has_video.to_string(), said.raw("has_video").unwrap());
            assert_eq!(stream.has_audio.to_string(), said.raw("has_audio").unwrap());
            let codec = |name| said.string(name).unwrap_or_default();
            assert_eq!(stream.audio_codec.as_str(), codec("audio_codec"));
            assert_eq!(stream.video_codec.as_str(), codec("video_codec"));
        }
        Request::Member(Action::StreamDelete(id)) => {
            assert_eq!(id.as_str(), data.string("stream_id").unwrap());
        }
        Request::Member(Action::MediaServerDump(protocol)) => {
            let said = data.string("protocol").unwrap_or("webrtc".into());
            assert_eq!(**protocol, *said);
        }
        Request::Member(Action::Broadcast(payload)) => {
            assert_eq!(payload.0, raw.as_bytes());
            arrives_as_it_was_sent(request, raw);
        }
        Request::Member(Action::Leave | Action::ChannelDump) => {}
    }
}

/// A broadcast's `data` inside the event that carries it to others.
fn arrives_as_it_was_sent(request: &Request, raw: &str) {
    let Request::Member(Action::Broadcast(sent)) = request else {
        unreachable!()
    };
    let who = Who::new(Endpoint::new("a\"b").unwrap(), Device::default());
    let session = SessionId::generate();
    let event = RoomEvent::Broadcast(who, sent.clone()).encode(u64::MAX, Instant::now());
    for (numbered, cseq) in [(true, u64::MAX), (false, 0)] {
        let mut frame = Vec::new();
        event.pieces(numbered, &session, |piece| frame.extend_from_slice(piece));
        assert_eq!(frame.len(), event.size(numbered));
        let session = session.as_str();
        assert_eq!(
            payload(&frame),
            format!(
                r#"{{"version":0,"cseq":{cseq},"event":"broadcast","session":"{session}","data":{{"source_endpoint":{{"device":"","endpoint":"a\"b"}},"payload":{raw}}}}}"#
            )
        );
    }
}

/// What was taken, written down anew in plain JSON, is taken for the same.
fn is_the_same_when_it_is_said_plainly(request: &Request, method: &str, session: &str) {
    let data = match request {
        Request::Join(join) => plain_join(join),
        Request::Member(Action::StreamAdd(stream)) => json!({"stream": plain_stream(stream)}),
        Request::Member(Action::StreamDelete(id)) => json!({"stream_id": id.as_str()}),
        Request::Member(Action::MediaServerDump(protocol)) => json!({"protocol": protocol}),
        Request::Member(Action::Broadcast(_)) => return,
        Request::Member(Action::Leave | Action::ChannelDump) => json!({}),
    };
    let plain = json!({
        "version": 0, "cseq": 1, "method": method, "session": session, "data": data,
    });
    let text = plain.to_string();
    let (envelope, _) = Envelope::parse(&text).expect("it is plain");
    assert_eq!(&envelope.request().expect("it is plain"), request);
}

fn plain_join(join: &JoinRequest) -> Value {
    json!({
        "app": join.room.app.as_str(),
        "channel": join.room.channel.as_str(),
        "endpoint": join.endpoint.as_ref().map(Endpoint::as_str),
        "role": join.role.map(Role::as_str),
        "device": join.device.as_ref().map(Device::as_str),
        "token": join.token.as_ref().map(|token| token.expose()),
        "last_event": join.last_event,
    })
}

fn plain_stream(stream: &Stream) -> Value {
    json!({
        "stream_id": stream.stream_id.as_str(),
        "type": stream.kind.as_str(),
        "has_video": stream.has_video,
        "has_audio": stream.has_audio,
        "audio_codec": stream.audio_codec.as_str(),
        "video_codec": stream.video_codec.as_str(),
    })
}

/// The text of a server's frame: whole, unmasked, with the shortest header that fits.
fn payload(frame: &[u8]) -> &str {
    assert_eq!(frame[0], 0x81);
    let (start, len) = match frame[1] {
        len @ ..126 => (2, usize::from(len)),
        126 => (4, usize::from(u16::from_be_bytes([frame[2], frame[3]]))),
        _ => {
            let len: [u8; 8] = frame[2..10].try_into().unwrap();
            (10, u64::from_be_bytes(len) as usize)
        }
    };
    let shortest = match len {
        ..126 => 2,
        126..65_536 => 4,
        _ => 10,
    };
    assert_eq!((start, frame.len()), (shortest, start + len));
    std::str::from_utf8(&frame[start..]).unwrap()
}

//! From a client's text to a checked request, in two steps, because the checks have an order:
//! the [`Envelope`] first (version, method), then, once the session has been found to be the
//! connection's own, its `data` ([`Envelope::request`]).

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    cseq::Cseq,
    error::{ErrorCode, Refusal},
    event::Payload,
    json::{self, NotAnObject, Object},
    method::Method,
    reply::ReplyTo,
    token::Token,
};
use crate::ids::{
    App, Channel, ClaimedSession, Codec, Device, Endpoint, IdentifierError, RoomName, StreamId,
};

/// The most levels of a payload, counted from its own outermost bracket. Many receivers' parsers fail
/// on more, or overflow their stack.
const MAX_NESTING: usize = 100;

/// What every request has, whatever its method.
///
/// ```json
/// {"version":0,"cseq":7,"method":"channel.dump","session":"…","data":{}}
/// ```
///
/// Missing or null: `version` 0, `cseq` 0, `session` "", `data` {}.
pub struct Envelope<'a> {
    method: Method,
    /// The session it claims.
    pub session: Cow<'a, str>,
    data: Option<&'a RawValue>,
}

/// A text that gets no further than its envelope.
#[derive(Debug)]
pub enum EnvelopeError {
    /// No JSON object: nothing to answer to, so an error event says so.
    NotAnObject(NotAnObject),
    /// A request that is answered with an error.
    Refused(ReplyTo, Refusal),
}

impl<'a> Envelope<'a> {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// [`EnvelopeError`], which says how to answer.
    pub fn parse(text: &'a str) -> Result<(Self, ReplyTo), EnvelopeError> {
        const NAMES: [&str; 5] = ["version", "cseq", "method", "session", "data"];
        let members = json::members(text, &NAMES).map_err(EnvelopeError::NotAnObject)?;
        let [version, cseq, method, session, data] = members.values;

        let name = json::present(method).map(json::string);
        let known = name.as_ref().and_then(|name| {
            let name = name.as_deref()?;
            Method::from_name(name)
        });
        let claimed = match json::present(session) {
            None => Some(Cow::Borrowed("")),
            Some(raw) => json::string(raw),
        };
        let mut reply_to = ReplyTo {
            method: known,
            cseq: Cseq::default(),
            session: known
                .filter(|method| method.reply_has_session())
                .map(|_| claimed.as_deref().unwrap_or_default().into()),
        };

        // cseq first: whatever else is wrong is answered under it.
        let cseq = match (json::present(cseq), members.duplicate[1]) {
            (_, true) => None,
            (None, false) => Some(Cseq::default()),
            (Some(raw), false) => Cseq::from_json(raw.get()),
        };
        let Some(cseq) = cseq else {
            return Err(EnvelopeError::Refused(
                reply_to,
                Refusal::bad_request("cseq must be one integer of at most 64 bits"),
            ));
        };
        reply_to.cseq = cseq;

        match Self::check(&members.duplicate, &NAMES, version, &name, known, claimed) {
            Ok((method, session)) => Ok((
                Self {
                    method,
                    session,
                    data,
                },
                reply_to,
            )),
            Err(refusal) => Err(EnvelopeError::Refused(reply_to, refusal)),
        }
    }

    /// Whether it is the one request that needs no session.
    pub fn is_join(&self) -> bool {
        self.method == Method::Join
    }

    /// The checks of an envelope in the protocol's order.
    fn check(
        duplicate: &[bool; 5],
        names: &[&str; 5],
        version: Option<&RawValue>,
        name: &Option<Option<Cow<'_, str>>>,
        known: Option<Method>,
        claimed: Option<Cow<'a, str>>,
    ) -> Result<(Method, Cow<'a, str>), Refusal> {
        if let Some(at) = duplicate.iter().position(|twice| *twice) {
            return Err(Refusal::bad_request(format!(
                "{} stands there twice; once is enough",
                names[at]
            )));
        }
        if let Some(version) = json::present(version)
            && Cseq::from_json(version.get()).map(|v| v.is_zero()) != Some(true)
        {
            return Err(Refusal::bad_request(format!(
                "version {} is not spoken here; version 0 is",
                excerpt(version.get())
            )));
        }
        let method = match (name, known) {
            (_, Some(method)) => method,
            (None, None) => return Err(Refusal::bad_request("method is required")),
            (Some(None), None) => return Err(Refusal::bad_request("method must be a string")),
            (Some(Some(name)), None) => {
                return Err(Refusal::new(
                    ErrorCode::NotFound,
                    format!("there is no method {:?}", excerpt(name)),
                ));
            }
        };
        let session = claimed.ok_or_else(|| Refusal::bad_request("session must be a string"))?;
        Ok((method, session))
    }

    /// The request that the envelope holds.
    ///
    /// # Errors
    /// A 400 where `data` has not the shape that the method wants.
    pub fn request(&self) -> Result<Request, Refusal> {
        let action = match self.method {
            Method::Join => {
                return JoinRequest::read(self.data, &self.session).map(Request::Join);
            }
            Method::Leave => {
                self.nothing()?;
                Action::Leave
            }
            Method::StreamAdd => Action::StreamAdd(Stream::read(self.data)?),
            Method::StreamDelete => {
                let data = Object::read("data", self.data, &["stream_id"])?;
                Action::StreamDelete(required(&data, "stream_id", StreamId::new)?)
            }
            Method::ChannelDump => {
                self.nothing()?;
                Action::ChannelDump
            }
            Method::MediaServerDump => {
                let data = Object::read("data", self.data, &["protocol"])?;
                let protocol = data.string("protocol")?.unwrap_or(Cow::Borrowed("webrtc"));
                Action::MediaServerDump(protocol.into())
            }
            Method::Broadcast => Action::Broadcast(self.payload()?),
        };
        Ok(Request::Member(action))
    }

    /// `data` of a method that wants none: still an object.
    fn nothing(&self) -> Result<(), Refusal> {
        Object::read("data", self.data, &[]).map(|_| ())
    }

    /// A broadcast's `data` is the client's own affair: it must be an object, which null is not, and
    /// nest at most [`MAX_NESTING`] levels.
    fn payload(&self) -> Result<Payload, Refusal> {
        let Some(data) = self.data else {
            return Ok(Payload(Bytes::from_static(b"{}")));
        };
        if !data.get().starts_with('{') {
            return Err(Refusal::bad_request("data must be an object"));
        }
        if !json::nests_at_most(data.get(), MAX_NESTING) {
            return Err(Refusal::bad_request(format!(
                "data must nest at most {MAX_NESTING} levels"
            )));
        }
        // A copy of its own: parts of one buffer are counted, across threads, which costs more.
        Ok(Payload(Bytes::copy_from_slice(data.get().as_bytes())))
    }
}

/// So much of what a client sent as fits into a sentence.
fn excerpt(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}

/// A request whose shape is right. What it does to a room is the room's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// channel.join: from a client that is in no room.
    Join(JoinRequest),
    /// Any other: from a member.
    Member(Action),
}

/// What a member asks of its room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// channel.leave
    Leave,
    /// stream.add
    StreamAdd(Stream),
    /// stream.delete
    StreamDelete(StreamId),
    /// channel.dump
    ChannelDump,
    /// media_server.dump for a protocol
    MediaServerDump(Box<str>),
    /// broadcast
    Broadcast(Payload),
}

/// What a member is in the room for. It decides nothing here: clients look at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// An app: Android, iOS, the web.
    #[default]
    Normal,
    /// Records every stream.
    Recorder,
    /// Forwards every stream elsewhere.
    Relayer,
}

impl Role {
    /// The role with this word on the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        let roles = [Self::Normal, Self::Recorder, Self::Relayer];
        roles.into_iter().find(|role| role.as_str() == name)
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Recorder => "recorder",
            Self::Relayer => "relayer",
        }
    }
}

/// ```json
/// {"app":"demo","channel":"c","endpoint":"anna","role":"normal","device":"phone","last_event":0}
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The room.
    pub room: RoomName,
    /// `None`: the server makes one.
    pub endpoint: Option<Endpoint>,
    /// `None`: a token may say it; else it is normal.
    pub role: Option<Role>,
    /// `None`: the URL or a token may say it.
    pub device: Option<Device>,
    /// What lets it in; the upgrade may have brought it instead.
    pub token: Option<Token>,
    /// Present where the client understands event numbers: the last one it knows.
    pub last_event: Option<u64>,
    /// The session with which it would go on: the `session` of the envelope.
    pub session: Option<ClaimedSession>,
}

impl JoinRequest {
    fn read(data: Option<&RawValue>, session: &str) -> Result<Self, Refusal> {
        const NAMES: [&str; 7] = [
            "app",
            "channel",
            "endpoint",
            "role",
            "device",
            "token",
            "last_event",
        ];
        let data = Object::read("data", data, &NAMES)?;
        let app = required(&data, "app", App::new)?;
        let channel = required(&data, "channel", Channel::new)?;
        let endpoint = match data.string("endpoint")? {
            Some(text) if !text.is_empty() => {
                Some(Endpoint::new(&text).map_err(|e| data.wrong("endpoint", e))?)
            }
            _ => None,
        };
        let role = match data.string("role")? {
            None => None,
            Some(name) => {
                let role = Role::from_name(&name);
                let wrong = || data.wrong("role", "must be normal, recorder or relayer");
                Some(role.ok_or_else(wrong)?)
            }
        };
        let device = optional(&data, "device", Device::new)?;
        let token = data.string("token")?.and_then(|token| Token::new(&token));
        let last_event = data.unsigned("last_event")?;
        Ok(Self {
            room: RoomName { app, channel },
            endpoint,
            role,
            device,
            token,
            last_event,
            session: ClaimedSession::new(session),
        })
    }
}

/// What a stream shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamType {
    /// A camera.
    Camera,
    /// A screen.
    Desktop,
}

impl StreamType {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Camera => "camera",
            Self::Desktop => "desktop",
        }
    }
}

/// ```json
/// {"stream_id":"s1","type":"camera","has_video":true,"has_audio":true,"audio_codec":"opus",
///  "video_codec":"vp8"}
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Its name at the media server.
    pub stream_id: StreamId,
    /// What it shows.
    pub kind: StreamType,
    /// Whether there is a picture.
    pub has_video: bool,
    /// Whether there is sound.
    pub has_audio: bool,
    /// "" while unknown.
    pub audio_codec: Codec,
    /// "" while unknown.
    pub video_codec: Codec,
}

impl Stream {
    fn read(data: Option<&RawValue>) -> Result<Self, Refusal> {
        const NAMES: [&str; 6] = [
            "type",
            "stream_id",
            "has_video",
            "has_audio",
            "audio_codec",
            "video_codec",
        ];
        let data = Object::read("data", data, &["stream"])?;
        let stream = data.raw("stream").ok_or_else(|| data.missing("stream"))?;
        let stream = Object::read("data.stream", Some(stream), &NAMES)?;
        let kind = match stream.string("type")?.as_deref() {
            Some("camera") => StreamType::Camera,
            Some("desktop") => StreamType::Desktop,
            Some(_) => return Err(stream.wrong("type", "must be camera or desktop")),
            None => return Err(stream.missing("type")),
        };
        let flag = |name| stream.boolean(name)?.ok_or_else(|| stream.missing(name));
        Ok(Self {
            kind,
            stream_id: required(&stream, "stream_id", StreamId::new)?,
            has_video: flag("has_video")?,
            has_audio: flag("has_audio")?,
            audio_codec: optional(&stream, "audio_codec", Codec::new)?.unwrap_or_default(),
            video_codec: optional(&stream, "video_codec", Codec::new)?.unwrap_or_default(),
        })
    }
}

fn optional<T, const N: usize>(
    object: &Object<'_, N>,
    name: &'static str,
    new: impl FnOnce(&str) -> Result<T, IdentifierError>,
) -> Result<Option<T>, Refusal> {
    object
        .string(name)?
        .map(|text| new(&text).map_err(|e| object.wrong(name, e)))
        .transpose()
}

fn required<T, const N: usize>(
    object: &Object<'_, N>,
    name: &'static str,
    new: impl FnOnce(&str) -> Result<T, IdentifierError>,
) -> Result<T, Refusal> {
    optional(object, name, new)?.ok_or_else(|| object.missing(name))
}

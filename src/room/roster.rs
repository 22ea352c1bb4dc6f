//! The list that channel.dump answers with.
//!
//! ```json
//! [{"endpoint":"anna","device":"","role":"normal","stream":{"stream_id":"s1","type":"camera",
//!   "has_video":true,"has_audio":true,"audio_codec":"opus","video_codec":"vp8"}}]
//! ```
//!
//! `stream` is there only for a member that publishes.

use serde::Serialize;

use crate::{protocol::request::Stream, room::members::Members};

#[derive(Serialize)]
struct Row<'a> {
    endpoint: &'a str,
    device: &'a str,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<StreamRow<'a>>,
}

#[derive(Serialize)]
struct StreamRow<'a> {
    stream_id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    has_video: bool,
    has_audio: bool,
    audio_codec: &'a str,
    video_codec: &'a str,
}

impl<'a> From<&'a Stream> for StreamRow<'a> {
    fn from(stream: &'a Stream) -> Self {
        Self {
            stream_id: stream.stream_id.as_str(),
            kind: stream.kind.as_str(),
            has_video: stream.has_video,
            has_audio: stream.has_audio,
            audio_codec: stream.audio_codec.as_str(),
            video_codec: stream.video_codec.as_str(),
        }
    }
}

/// All members as a JSON array, in the order given.
pub(super) fn encode(members: &Members) -> Vec<u8> {
    let rows: Vec<Row<'_>> = members
        .iter()
        .map(|member| Row {
            endpoint: member.who.endpoint().as_str(),
            device: member.who.device().as_str(),
            role: member.role.as_str(),
            stream: member.stream.as_deref().map(Into::into),
        })
        .collect();
    serde_json::to_vec(&rows).expect("strings and flags can be written to memory")
}

//! Answers to requests.
//!
//! ```json
//! {"version":0,"cseq":7,"err":0,"err_msg":"ok","data":{}}
//! ```
//!
//! Answers to channel.leave, stream.add and stream.delete, errors included, also carry the
//! request's `session` at the top, and no others do.

use std::fmt;

use super::{
    cseq::Cseq,
    error::Refusal,
    frame::TextFrame,
    json::{write_number, write_string},
    method::Method,
};
use crate::ids::{Endpoint, SessionId};

/// Where an answer goes back to: what it repeats of its request.
#[derive(Clone, Default)]
pub struct ReplyTo {
    /// The request's method, where it is one of ours.
    pub method: Option<Method>,
    /// The request's number.
    pub cseq: Cseq,
    /// The request's session, for the three methods whose answers repeat it.
    pub session: Option<Box<str>>,
}

impl fmt::Debug for ReplyTo {
    // Without the session: it is a bearer secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyTo")
            .field("method", &self.method)
            .field("cseq", &self.cseq)
            .finish_non_exhaustive()
    }
}

impl ReplyTo {
    /// `err` 0 with an empty `data`.
    pub fn ok(&self) -> Vec<u8> {
        let mut frame = self.begin(0, "ok");
        frame.payload().extend_from_slice(b"{}}");
        frame.finish(0)
    }

    /// An error.
    pub fn refused(&self, refusal: &Refusal) -> Vec<u8> {
        let mut frame = self.begin(refusal.code as u16, &refusal.message);
        frame.payload().extend_from_slice(b"{}}");
        frame.finish(0)
    }

    /// The answer to channel.join.
    ///
    /// ```json
    /// {"version":0,"cseq":1,"err":0,"err_msg":"ok","data":{"session":"…","media_server":{},
    ///  "endpoint":"anna","last_event":3,"resumed":false}}
    /// ```
    ///
    /// One that goes on with an earlier session has `"resumed":true,"last_cseq":7` at its end.
    pub fn joined(&self, joined: &Joined<'_>) -> Vec<u8> {
        let mut frame = self.begin(0, "ok");
        let out = frame.payload();
        out.extend_from_slice(b"{\"session\":\"");
        out.extend_from_slice(joined.session.as_bytes());
        out.extend_from_slice(b"\",\"media_server\":");
        out.extend_from_slice(joined.media_server.as_bytes());
        out.extend_from_slice(b",\"endpoint\":");
        write_string(joined.endpoint.as_str(), out);
        out.extend_from_slice(b",\"last_event\":");
        write_number(joined.last_event, out);
        match joined.resumed {
            Some(last_cseq) => {
                out.extend_from_slice(b",\"resumed\":true,\"last_cseq\":");
                last_cseq.write(out);
                out.extend_from_slice(b"}}");
            }
            None => out.extend_from_slice(b",\"resumed\":false}}"),
        }
        frame.finish(0)
    }

    /// The answer to media_server.dump; `addresses` is a JSON object.
    ///
    /// ```json
    /// {"version":0,"cseq":4,"err":0,"err_msg":"ok","data":{"media_server":{"ws":"ws://…"}}}
    /// ```
    pub fn media_server(&self, addresses: &str) -> Vec<u8> {
        let mut frame = self.begin(0, "ok");
        let out = frame.payload();
        out.extend_from_slice(b"{\"media_server\":");
        out.extend_from_slice(addresses.as_bytes());
        out.extend_from_slice(b"}}");
        frame.finish(0)
    }

    /// The beginning of the answer to channel.dump. The list itself, `list` bytes long, is
    /// shared by all who ask and follows it, and after that [`DUMP_END`].
    ///
    /// ```json
    /// {"version":0,"cseq":5,"err":0,"err_msg":"ok","data":{"endpoint_list":[]}}
    /// ```
    pub fn dump_head(&self, list: usize) -> Vec<u8> {
        let mut frame = self.begin(0, "ok");
        frame.payload().extend_from_slice(b"{\"endpoint_list\":");
        frame.finish(list + DUMP_END.len())
    }

    /// Everything up to and including `"data":`.
    fn begin(&self, err: u16, err_msg: &str) -> TextFrame {
        let mut frame = TextFrame::with_capacity(96);
        let out = frame.payload();
        out.extend_from_slice(b"{\"version\":0,\"cseq\":");
        self.cseq.write(out);
        out.extend_from_slice(b",\"err\":");
        write_number(err.into(), out);
        out.extend_from_slice(b",\"err_msg\":");
        write_string(err_msg, out);
        if let Some(session) = &self.session {
            out.extend_from_slice(b",\"session\":");
            write_string(session, out);
        }
        out.extend_from_slice(b",\"data\":");
        frame
    }
}

/// What follows the list in the answer to channel.dump.
pub const DUMP_END: &[u8] = b"}}";

/// What the answer to channel.join says.
pub struct Joined<'a> {
    /// The session.
    pub session: SessionId,
    /// The addresses for webrtc, a JSON object.
    pub media_server: &'a str,
    /// The endpoint, which the server may have chosen.
    pub endpoint: &'a Endpoint,
    /// The room's event number, this join's own event included.
    pub last_event: u64,
    /// For one that goes on with an earlier session: the last request of that which got past the
    /// check of its session.
    pub resumed: Option<Cseq>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::error::ErrorCode;

    fn to(cseq: &str, session: Option<&str>) -> ReplyTo {
        ReplyTo {
            method: None,
            cseq: Cseq::from_json(cseq).unwrap(),
            session: session.map(Into::into),
        }
    }

    fn text(frame: &[u8]) -> &str {
        let header = if frame[1] < 126 { 2 } else { 4 };
        std::str::from_utf8(&frame[header..]).unwrap()
    }

    #[test]
    fn the_exact_text_of_each_answer() {
        assert_eq!(
            text(&to("-3", None).ok()),
            r#"{"version":0,"cseq":-3,"err":0,"err_msg":"ok","data":{}}"#
        );
        assert_eq!(
            text(&to("1", Some("a\"b")).ok()),
            r#"{"version":0,"cseq":1,"err":0,"err_msg":"ok","session":"a\"b","data":{}}"#
        );
        assert_eq!(
            text(&to("1", Some("")).refused(&Refusal::new(ErrorCode::Gone, "no"))),
            r#"{"version":0,"cseq":1,"err":410,"err_msg":"no","session":"","data":{}}"#
        );
        assert_eq!(
            text(&to("1", None).media_server(r#"{"ws":"x"}"#)),
            r#"{"version":0,"cseq":1,"err":0,"err_msg":"ok","data":{"media_server":{"ws":"x"}}}"#
        );
        let mut dump = to("1", None).dump_head(2);
        assert_eq!(usize::from(dump[1]), dump.len() - 2 + 2 + DUMP_END.len());
        dump.extend_from_slice(b"[]");
        dump.extend_from_slice(DUMP_END);
        assert_eq!(
            text(&dump),
            r#"{"version":0,"cseq":1,"err":0,"err_msg":"ok","data":{"endpoint_list":[]}}"#
        );
        let session = SessionId::generate();
        for (resumed, end) in [
            (None, r#""resumed":false"#),
            (Cseq::from_json("-7"), r#""resumed":true,"last_cseq":-7"#),
        ] {
            assert_eq!(
                text(&to("1", None).joined(&Joined {
                    session,
                    media_server: "{}",
                    endpoint: &Endpoint::new("a").unwrap(),
                    last_event: 1,
                    resumed,
                })),
                format!(
                    r#"{{"version":0,"cseq":1,"err":0,"err_msg":"ok","data":{{"session":"{}","media_server":{{}},"endpoint":"a","last_event":1,{end}}}}}"#,
                    session.as_str()
                )
            );
        }
    }
}

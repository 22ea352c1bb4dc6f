//! The log: what a line looks like.
//!
//! A line is a word or sentence and fields, `join app=demo channel=lobby endpoint=anna`, or the
//! same as one JSON object. What clients chose stands in fields alone, and cannot break out of
//! them. Message bodies, tokens and whole sessions are never logged.

use std::{
    fmt,
    io::{self, Write},
};

use env_logger::fmt::Formatter;
use log::{
    LevelFilter, Record,
    kv::{self, Key, Value, VisitSource, VisitValue},
};
use serde_json::Value as Json;

use crate::{
    settings::{self, LogFormat},
    throttle::Throttle,
};

/// actix-http logs each request that it cannot read as an error. It is the client's, and anybody
/// can make as many as he likes.
pub const NOT_OUR_ERRORS: &str = "actix_http";

/// Starts the process's log. `RUST_LOG` wins over the settings' level.
pub fn start(settings: &settings::Log) {
    let line = match settings.format {
        LogFormat::Text => text_line,
        LogFormat::Json => json_line,
    };
    env_logger::Builder::new()
        .filter_level(settings.level)
        .filter_module(NOT_OUR_ERRORS, LevelFilter::Off)
        // Whoever looks for open ports makes it warn, once a connection; and it quotes what they say.
        .filter_module("rustls", LevelFilter::Error.min(settings.level))
        // How they say that they start and stop is their own affair; we say it too.
        .filter_module("actix_server", LevelFilter::Warn.min(settings.level))
        .parse_default_env()
        .format(line)
        .init();
}

/// actix-server complains of every accept that fails, twice a second for as long as descriptors
/// are short; once in a while is enough.
const THROTTLED: &str = "actix_server";

/// Whether a line is written; if so, how many like it were not.
fn permit(record: &Record<'_>) -> Option<u64> {
    static FOREIGN: Throttle = Throttle::new();
    if record.target().starts_with(THROTTLED) {
        FOREIGN.permit()
    } else {
        Some(0)
    }
}

fn text_line(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let Some(suppressed) = permit(record) else {
        return Ok(());
    };
    let time = out.timestamp_millis();
    write!(out, "{time} {:<5} {}", record.level(), Plain(record.args()))?;
    for (key, value) in fields(record, suppressed)? {
        match value {
            Json::String(text) => write!(out, " {key}={}", Quoted(&text))?,
            number => write!(out, " {key}={number}")?,
        }
    }
    writeln!(out)
}

fn json_line(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let Some(suppressed) = permit(record) else {
        return Ok(());
    };
    let time = out.timestamp_millis().to_string();
    let level = record.level().as_str().to_ascii_lowercase();
    let message = record.args().to_string();
    let first = [("time", time), ("level", level), ("message", message)];
    let first = first.map(|(key, text)| (key.to_owned(), Json::String(text)));
    let mut before = '{';
    for (key, value) in first.into_iter().chain(fields(record, suppressed)?) {
        let key = Json::String(key).to_string();
        write!(out, "{before}{}:{}", Ascii(&key), Ascii(&value.to_string()))?;
        before = ',';
    }
    writeln!(out, "}}")
}

/// A line's fields, numbers as numbers, without those that are not there.
fn fields(record: &Record<'_>, suppressed: u64) -> io::Result<Vec<(String, Json)>> {
    let mut fields = Fields(Vec::new());
    record
        .key_values()
        .visit(&mut fields)
        .map_err(io::Error::other)?;
    if suppressed > 0 {
        fields.0.push(("suppressed".to_owned(), suppressed.into()));
    }
    Ok(fields.0)
}

struct Fields(Vec<(String, Json)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let mut field = Field(Json::Null);
        value.visit(&mut field)?;
        if field.0 != Json::Null {
            self.0.push((key.as_str().to_owned(), field.0));
        }
        Ok(())
    }
}

struct Field(Json);

impl<'v> VisitValue<'v> for Field {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.0 = value.to_string().into();
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.0 = Json::Null;
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        // Nobody reads more than three places.
        self.0 = ((value * 1e3).round() / 1e3).into();
        Ok(())
    }
}

/// JSON of which nothing can reorder or break what a terminal shows: whatever is not printable is
/// written as `\uXXXX`.
struct Ascii<'a>(&'a str);

impl fmt::Display for Ascii<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_ascii() || c.escape_debug().len() == 1 {
                write!(f, "{c}")?;
                continue;
            }
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(f, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

/// A field's value: quoted and escaped, line breaks and bidi controls too, unless it is plain
/// `[A-Za-z0-9._:-]`.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if !self.0.is_empty() && self.0.bytes().all(plain) {
            f.write_str(self.0)
        } else {
            fmt::Debug::fmt(self.0, f)
        }
    }
}

/// A message of ours, which may quote others: whatever is not printable is escaped.
struct Plain<'a>(&'a fmt::Arguments<'a>);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = self.0.as_str() {
            return f.write_str(text);
        }
        let text = self.0.to_string();
        for c in text.chars() {
            if matches!(c, '"' | '\'' | '\\') {
                write!(f, "{c}")?;
            } else {
                write!(f, "{}", c.escape_debug())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_writes_lines_or_fields_of_their_own() {
        for (value, logged) in [
            ("anna-1.2:x_y", "anna-1.2:x_y"),
            ("", "\"\""),
            ("a b=c", "\"a b=c\""),
            ("a\nb", "\"a\\nb\""),
            ("\"", "\"\\\"\""),
            ("\u{202e}x", "\"\\u{202e}x\""),
            ("\u{2066}x", "\"\\u{2066}x\""),
            ("\u{2028}", "\"\\u{2028}\""),
            ("会议", "\"会议\""),
        ] {
            assert_eq!(Quoted(value).to_string(), logged);
        }
    }

    #[test]
    fn json_shows_nothing_that_is_not_printable() {
        let text = Json::String("a\u{202e}会\u{e0001}\n".into()).to_string();
        let shown = Ascii(&text).to_string();
        assert_eq!(shown, "\"a\\u202e会\\udb40\\udc01\\n\"");
        assert_eq!(
            serde_json::from_str::<String>(&shown).unwrap(),
            "a\u{202e}会\u{e0001}\n"
        );
    }

    #[test]
    fn a_message_is_one_line() {
        let quoted = "it's\n\"so\"\u{202e}";
        assert_eq!(
            Plain(&format_args!("{quoted}")).to_string(),
            "it's\\n\"so\"\\u{202e}"
        );
    }
}

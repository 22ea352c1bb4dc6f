//! The log: how a line looks, and how it writes what clients chose.

use std::fmt;

use crate::settings;

/// actix-http logs each request that it cannot read as an error. It is the client's, and anybody
/// can make as many as he likes.
pub const NOT_OUR_ERRORS: &str = "actix_http";

/// Starts the process's log. `RUST_LOG` wins over the settings' level.
pub fn start(settings: &settings::Log) {
    env_logger::Builder::new()
        .filter_level(settings.level)
        .filter_module(NOT_OUR_ERRORS, log::LevelFilter::Off)
        .parse_default_env()
        .init();
}

/// A value of a client's, so that it cannot break out of its field: quoted and escaped, line
/// breaks and bidi controls too, unless it is plain `[A-Za-z0-9._:-]`.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if self.0.bytes().all(plain) {
            f.write_str(self.0)
        } else {
            fmt::Debug::fmt(self.0, f)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_writes_lines_or_fields_of_their_own() {
        for (value, logged) in [
            ("anna-1.2:x_y", "anna-1.2:x_y"),
            ("a b=c", "\"a b=c\""),
            ("a\nb", "\"a\\nb\""),
            ("\"", "\"\\\"\""),
            ("\u{202e}x", "\"\\u{202e}x\""),
            ("\u{2028}", "\"\\u{2028}\""),
            ("会议", "\"会议\""),
        ] {
            assert_eq!(Quoted(value).to_string(), logged);
        }
    }
}

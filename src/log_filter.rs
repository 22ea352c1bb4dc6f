//! Which lines of the log are written: the settings' level, or what `RUST_LOG` says.

use std::ffi::OsStr;

use env_filter::{Builder, Filter};
use log::LevelFilter;

/// actix-http logs each request that it cannot read as an error. The error is the client's, and a
/// client can cause any number of them.
pub const NOT_OUR_ERRORS: &str = "actix_http";

/// What `RUST_LOG` says, without the parts that cannot be read. Nothing is printed about those: a
/// write to standard error could fail or block.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RustLog {
    /// The directives, as `RUST_LOG` has them; empty where it sets nothing.
    directives: String,
    /// The parts that are ignored.
    pub ignored: Vec<String>,
}

impl RustLog {
    /// Reads the value of the variable.
    pub fn parse(value: &OsStr) -> Self {
        let Some(text) = value.to_str() else {
            return Self::ignoring(value.to_string_lossy().into_owned());
        };
        let (list, pattern) = match text.split_once('/') {
            Some((_, pattern)) if pattern.contains('/') => return Self::ignoring(text.to_owned()),
            Some((list, pattern)) => (list, Some(pattern)),
            None => (text, None),
        };
        let parts = list
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let (good, bad): (Vec<_>, Vec<_>) =
            parts.partition(|part| Builder::new().try_parse(part).is_ok());
        let mut directives = good.join(",");
        if let Some(pattern) = pattern {
            directives.push('/');
            directives.push_str(pattern);
        }
        Self {
            directives,
            ignored: bad.into_iter().map(str::to_owned).collect(),
        }
    }

    fn ignoring(text: String) -> Self {
        Self {
            directives: String::new(),
            ignored: vec![text],
        }
    }

    /// Whether it sets anything. Where it does, the settings' level holds at the start for what it
    /// does not name, and a reload changes nothing.
    pub fn is_set(&self) -> bool {
        !self.directives.is_empty()
    }

    /// The filter of a log whose settings have this level.
    pub fn filter(&self, level: LevelFilter) -> Filter {
        let mut builder = Builder::new();
        builder
            .filter_level(level)
            .filter_module(NOT_OUR_ERRORS, LevelFilter::Off)
            // A port scan causes a warning for each connection, and the warning quotes its bytes.
            .filter_module("rustls", LevelFilter::Error.min(level))
            // It logs its own start and stop; the server logs both too.
            .filter_module("actix_server", LevelFilter::Warn.min(level));
        // Each directive has been parsed before.
        let _ = builder.try_parse(&self.directives);
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, Vec<String>) {
        let rust_log = RustLog::parse(OsStr::new(text));
        (rust_log.directives, rust_log.ignored)
    }

    #[test]
    fn what_cannot_be_read_is_left_out_and_named() {
        for (text, directives, ignored) in [
            ("", "", &[][..]),
            (" , ", "", &[]),
            ("debug", "debug", &[]),
            ("info,a=b=c", "info", &["a=b=c"]),
            ("a=loud, b=warn ,c==d", "b=warn", &["a=loud", "c==d"]),
            ("info,a=b=c/word", "info/word", &["a=b=c"]),
            ("/word", "/word", &[]),
            ("info/a/b", "", &["info/a/b"]),
        ] {
            let ignored = ignored.iter().map(|part| (*part).to_owned()).collect();
            assert_eq!(parsed(text), (directives.to_owned(), ignored), "{text}");
            let rust_log = RustLog::parse(OsStr::new(text));
            assert_eq!(rust_log.is_set(), !directives.is_empty(), "{text}");
            assert!(
                Builder::new().try_parse(&rust_log.directives).is_ok(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_directive_wins_over_the_level_of_the_settings() {
        let level = |text: &str| RustLog::parse(OsStr::new(text)).filter(LevelFilter::Warn);
        assert_eq!(level("").filter(), LevelFilter::Warn);
        assert_eq!(level("debug,a=b=c").filter(), LevelFilter::Debug);
        assert_eq!(level("a=trace").filter(), LevelFilter::Trace);
    }
}

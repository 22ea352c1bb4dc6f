//! The log: what a line looks like. How it gets to standard error is in [`crate::log_writer`].
//!
//! A line is a word or sentence and fields, `join app=demo channel=lobby endpoint=anna`, or the
//! same as one JSON object. What clients chose stands in fields alone, and cannot break out of
//! them. Message bodies, tokens and whole sessions are never logged.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::RefCell,
    env, fmt,
    io::{self, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
    panic::PanicHookInfo,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use env_filter::Filter;
use log::{
    Level, LevelFilter, Log, Metadata, Record,
    kv::{self, Key, ToValue, Value, VisitSource, VisitValue},
};
use serde_json::Value as Json;

use crate::{
    log_filter::RustLog,
    log_writer::{LogWriter, write_directly},
    settings::{self, LogFormat},
    throttle::Throttle,
};

/// How long the process waits at its end for the log to be written, in all.
const FLUSH_AT_EXIT: Duration = Duration::from_secs(1);

/// How long a thread that panics waits for the log to be written.
const FLUSH_AT_PANIC: Duration = Duration::from_millis(250);

/// The queue of the process's log.
static WRITER: LogWriter = LogWriter::new(notice);

/// The process's log, once it has been started.
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// How a line is written down.
#[derive(Clone, Copy)]
struct Style {
    format: LogFormat,
    /// journald reads standard error: each line begins with its priority, as in sd-daemon(3). A
    /// text line has no time, since journald has its own.
    for_journal: bool,
}

struct Logger {
    filter: ArcSwap<Filter>,
    /// As it was at the start.
    rust_log: RustLog,
    style: Style,
}

/// Starts the process's log, and has panics reported in it. `RUST_LOG` wins over the settings'
/// level. To be called once.
///
/// # Errors
/// Where the system gives no thread that writes.
pub fn start(settings: &settings::Log) -> io::Result<()> {
    let rust_log = env::var_os("RUST_LOG").unwrap_or_default();
    let rust_log = RustLog::parse(&rust_log);
    let filter = rust_log.filter(settings.level);
    let style = Style {
        format: settings.format,
        for_journal: is_under_journald(),
    };
    // Not the handle of the standard library, whose lock would be held while a write hangs.
    let stderr = io::stderr().as_fd().try_clone_to_owned()?;
    thread::Builder::new()
        .name("log".into())
        .spawn(move || WRITER.run(stderr.as_fd()))?;
    log::set_max_level(filter.filter());
    let logger = LOGGER.get_or_init(|| Logger {
        filter: ArcSwap::from_pointee(filter),
        rust_log,
        style,
    });
    log::set_logger(logger).map_err(io::Error::other)?;
    std::panic::set_hook(Box::new(report_panic));
    if !logger.rust_log.ignored.is_empty() {
        let ignored = logger.rust_log.ignored.join(",");
        log::warn!(ignored = &*ignored; "RUST_LOG has parts that cannot be read");
    }
    Ok(())
}

/// Changes the level of the process's log, where [`start`] has started one and `RUST_LOG` sets
/// nothing.
pub fn set_level(level: LevelFilter) {
    let logger = LOGGER.get().filter(|logger| !logger.rust_log.is_set());
    if let Some(logger) = logger {
        let filter = logger.rust_log.filter(level);
        let level = filter.filter();
        logger.filter.store(Arc::new(filter));
        log::set_max_level(level);
    }
}

/// Whether journald reads standard error.
fn is_under_journald() -> bool {
    is_journal(env::var("JOURNAL_STREAM").ok().as_deref(), io::stderr())
}

/// Whether `stream` is the one that journald has connected, as systemd.exec(5) has it checked:
/// `JOURNAL_STREAM` holds the device and inode numbers of that one.
fn is_journal(journal_stream: Option<&str>, stream: impl AsFd) -> bool {
    let numbers = || {
        let (device, inode) = journal_stream?.split_once(':')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    };
    let Some(journal) = numbers() else {
        return false;
    };
    let file = stream.as_fd().try_clone_to_owned().map(std::fs::File::from);
    let metadata = file.and_then(|file| file.metadata());
    metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == journal)
}

/// How many lines of the log were dropped since the start.
pub fn dropped_lines() -> u64 {
    WRITER.dropped()
}

/// One line of text on standard error that says why the process ends, whether there is a log or
/// not. Waits a second at most.
pub fn write_failure(text: &str) {
    let prefix = if is_under_journald() { "<3>" } else { "" };
    let line = format!("{prefix}{text}\n");
    if LOGGER.get().is_some() {
        WRITER.push(line.as_bytes(), true);
        WRITER.flush(FLUSH_AT_EXIT);
    } else {
        write_directly(io::stderr().as_fd(), line.as_bytes(), FLUSH_AT_EXIT);
    }
}

/// A panic is a line like any other, whatever the log's level. It waits until the line is written,
/// since the process may end next.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let Some(logger) = LOGGER.get() else { return };
    let thread = thread::current();
    let name = thread.name().unwrap_or("unnamed");
    let at = panic.location().map(ToString::to_string);
    let message = panic.payload_as_str().unwrap_or("not a text");
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let fields = [
        ("thread", Value::from(name)),
        ("at", at.to_value()),
        ("reason", Value::from(message)),
        ("backtrace", backtrace.to_value()),
    ];
    logger.write(
        &Record::builder()
            .level(Level::Error)
            .args(format_args!("panic"))
            .key_values(&&fields[..])
            .build(),
    );
    WRITER.flush(FLUSH_AT_PANIC);
}

/// The line that says how many lines are missing where it stands.
fn notice(count: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let fields = &[("lines", Value::from(count))][..];
    let record = Record::builder()
        .level(Level::Warn)
        .args(format_args!("log lines dropped"))
        .key_values(&fields)
        .build();
    if let Some(logger) = LOGGER.get() {
        logger.style.write(&mut out, &record, 0);
    }
    out
}

thread_local! {
    /// The line that the thread is writing down.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A thread keeps no more memory than this for its next line, in bytes.
const SPARE: usize = 4 << 10;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.load().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.filter.load().matches(record) {
            self.write(record);
        }
    }

    /// Waits until all lines are written, for a second at most.
    fn flush(&self) {
        WRITER.flush(FLUSH_AT_EXIT);
    }
}

impl Logger {
    fn write(&self, record: &Record<'_>) {
        let Some(suppressed) = permit(record) else {
            return;
        };
        let is_important = record.level() <= Level::Warn;
        let push = |line: &mut Vec<u8>| {
            line.clear();
            self.style.write(line, record, suppressed);
            WRITER.push(line, is_important);
            line.shrink_to(SPARE);
        };
        let pushed = LINE.try_with(|line| line.try_borrow_mut().map(|mut line| push(&mut line)));
        if !matches!(pushed, Ok(Ok(()))) {
            // Within another line's fields, or at the end of the thread.
            push(&mut Vec::new());
        }
    }
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

impl Style {
    /// Appends one line. Memory takes all that is written, so there is no error; what fails to
    /// print itself is cut short.
    fn write(self, out: &mut Vec<u8>, record: &Record<'_>, suppressed: u64) {
        if self.for_journal {
            let _ = write!(out, "<{}>", priority(record.level()));
        }
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        let level = record.level();
        match self.format {
            LogFormat::Text => {
                if !self.for_journal {
                    let _ = write!(out, "{time} ");
                }
                let _ = write!(out, "{level:<5} {}", Plain(record.args()));
            }
            LogFormat::Json => {
                let level = match level {
                    Level::Error => "error",
                    Level::Warn => "warn",
                    Level::Info => "info",
                    Level::Debug => "debug",
                    Level::Trace => "trace",
                };
                let _ = write!(
                    out,
                    "{{\"time\":\"{time}\",\"level\":\"{level}\",\"message\":"
                );
                match record.args().as_str() {
                    Some(text) => write_json_string(out, text),
                    None => write_json_string(out, &record.args().to_string()),
                }
            }
        }
        let mut fields = Fields {
            out,
            format: self.format,
        };
        let _ = record.key_values().visit(&mut fields);
        if suppressed > 0 {
            let _ = fields.visit_pair(Key::from_str("suppressed"), suppressed.to_value());
        }
        if self.format == LogFormat::Json {
            out.push(b'}');
        }
        out.push(b'\n');
    }
}

/// The priority of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Writes a line's fields, numbers as numbers and booleans as booleans, without those that are not
/// there.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    format: LogFormat,
}

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let before = self.out.len();
        match self.format {
            LogFormat::Text => write!(self.out, " {key}=")?,
            LogFormat::Json => {
                self.out.push(b',');
                write_json_string(self.out, key.as_str());
                self.out.push(b':');
            }
        }
        let without_value = self.out.len();
        value.visit(&mut *self)?;
        if self.out.len() == without_value {
            self.out.truncate(before);
        }
        Ok(())
    }
}

impl<'v> VisitValue<'v> for &mut Fields<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.visit_str(&value.to_string())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        Ok(())
    }

    fn visit_str(&mut self, text: &str) -> Result<(), kv::Error> {
        match self.format {
            LogFormat::Text => write!(self.out, "{}", Quoted(text))?,
            LogFormat::Json => write_json_string(self.out, text),
        }
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        Ok(write!(self.out, "{value}")?)
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        Ok(write!(self.out, "{value}")?)
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        Ok(write!(self.out, "{value}")?)
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        // Three places are enough. What is no number is left out.
        match Json::from((value * 1e3).round() / 1e3) {
            Json::Null => Ok(()),
            number => Ok(write!(self.out, "{number}")?),
        }
    }
}

fn write_json_string(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        let quoted = Json::from(text).to_string();
        let _ = write!(out, "{}", Ascii(&quoted));
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

    fn line(format: LogFormat, for_journal: bool, fields: &[(&str, Value<'_>)]) -> String {
        let mut out = Vec::new();
        let style = Style {
            format,
            for_journal,
        };
        let record = Record::builder()
            .level(Level::Warn)
            .args(format_args!("a \"word\""))
            .key_values(&fields)
            .build();
        style.write(&mut out, &record, 7);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_values_keep_their_types() {
        let (number, missing): (f64, Option<&str>) = (0.123456, None);
        let fields = [
            ("yes", true.to_value()),
            ("no", Some(false).to_value()),
            ("count", 17_usize.to_value()),
            ("below", (-3_i32).to_value()),
            ("share", number.to_value()),
            ("whole", 2.0_f64.to_value()),
            ("none", f64::NAN.to_value()),
            ("missing", missing.to_value()),
            ("text", "true".to_value()),
            ("strange", "\n会\u{202e}".to_value()),
        ];
        let json: Json = serde_json::from_str(&line(LogFormat::Json, false, &fields)).unwrap();
        let mut json = json.as_object().unwrap().clone();
        assert!(json.remove("time").is_some_and(|time| time.is_string()));
        let expected = serde_json::json!({
            "level": "warn", "message": "a \"word\"", "yes": true, "no": false, "count": 17,
            "below": -3, "share": 0.123, "whole": 2.0, "text": "true",
            "strange": "\n会\u{202e}", "suppressed": 7
        });
        assert_eq!(Json::Object(json), expected);
        let text = line(LogFormat::Text, false, &fields);
        let (_, said) = text.split_once(' ').unwrap();
        assert_eq!(
            said,
            "WARN  a \"word\" yes=true no=false count=17 below=-3 share=0.123 whole=2.0 text=true \
             strange=\"\\n会\\u{202e}\" suppressed=7\n"
        );
    }

    #[test]
    fn journald_reads_a_priority_and_no_time() {
        let fields = [("n", 1.to_value())];
        assert_eq!(
            line(LogFormat::Text, true, &fields),
            "<4>WARN  a \"word\" n=1 suppressed=7\n"
        );
        let json = line(LogFormat::Json, true, &fields);
        assert!(json.starts_with("<4>{\"time\":\""), "{json}");
        let all = [
            (Level::Error, 3),
            (Level::Warn, 4),
            (Level::Info, 6),
            (Level::Debug, 7),
            (Level::Trace, 7),
        ];
        for (level, number) in all {
            assert_eq!(priority(level), number);
        }
    }

    #[test]
    fn journal_stream_has_to_name_this_stream() {
        let (_reader, writer) = io::pipe().unwrap();
        let file = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
        let metadata = file.metadata().unwrap();
        let (device, inode) = (metadata.dev(), metadata.ino());
        assert!(is_journal(Some(&format!("{device}:{inode}")), &file));
        for other in [
            format!("{device}:{}", inode + 1),
            format!("{}:{inode}", device + 1),
            format!("{device}"),
            "x:y".to_owned(),
            String::new(),
        ] {
            assert!(!is_journal(Some(&other), &file), "{other}");
        }
        assert!(!is_journal(None, &file));
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

//! What a test of bad neighbours needs: a server process that is looked at from outside, and an end
//! for those who go on and on.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{Client, frame, log_line::Format, openmetrics::Figures, process::Process};

/// Without a rate limit, and without a word in the log but what is wrong.
pub fn server(settings: &[(&str, &str)]) -> Process {
    let mut all = vec![("SESSION__RATE_LIMIT", "0")];
    all.extend(settings);
    Process::start(Format::Text, "warn,meeting_server::server=info", &all)
}

/// Stops it; it must have had nothing to complain of.
pub fn ends_well(mut process: Process) {
    process.signal("TERM");
    let (status, lines) = process.ended();
    assert_eq!(status.code(), Some(0), "{:#?}", process.log);
    let bad = lines.iter().find(|line| line.level == "error");
    assert_eq!(bad, None);
}

/// Waits until the server has so many of a kind alive.
pub fn until_alive(process: &Process, kind: &str, count: usize) {
    let series = format!("meeting_server_objects{{kind=\"{kind}\"}}");
    Figures::when(process.ops, |figures| figures[&series] == count as f64);
}

/// How many connections have ended like that.
pub fn ended(process: &Process, code: &str, reason: &str) -> f64 {
    let series = format!("meeting_server_disconnects_total{{code=\"{code}\",reason=\"{reason}\"}}");
    Figures::scrape(process.ops)[&series]
}

/// A request of a member as a frame, to be sent again and again.
pub fn request(client: &Client, method: &str, data: Value) -> Vec<u8> {
    let request = json!({"cseq": 1, "method": method, "session": client.session, "data": data});
    frame(true, 1, request.to_string().as_bytes())
}

/// Lets the neighbours go at its end, also where that is a failure: they would be waited for.
pub struct LetGo<'a>(pub &'a AtomicBool);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

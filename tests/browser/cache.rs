//! A page that is left: closed, loaded anew, or kept in the browser's back/forward cache.

use std::time::Duration;

use crate::{
    common::{openmetrics::Figures, *},
    window::{Driver, Page},
};

/// A server whose members stay for long after a loss, so that a leave within a test is a leave.
fn server() -> Server {
    Server::with(|settings| settings.rooms.resume_window = Duration::from_secs(600))
}

/// Ben, and the page with which Anna has joined his room.
fn ben_and_page(driver: &Driver, server: &Server) -> (Client, Page) {
    let mut ben = server.join("c", "ben");
    let page = driver.browser();
    page.join(server.addr, "c", "anna");
    assert_eq!(ben.event("endpoint")["stat"], "join");
    (ben, page)
}

/// Counts the restorations of this page from the cache.
const COUNT: &str = "(window.restored = 0, window.addEventListener('pageshow', (event) => { \
                     if (event.persisted) window.restored += 1; }), true)";

/// Another document of the same server. The browser keeps the page before it in its cache.
fn go_elsewhere(page: &Page, server: &Server) {
    page.go(&format!("http://{}/?app=elsewhere", server.addr));
}

#[test]
fn a_page_in_the_cache_is_a_loss_and_resumes_when_restored() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = server();
    let (mut ben, page) = ben_and_page(&driver, &server);
    page.js(COUNT);
    go_elsewhere(&page, &server);
    // The connection is gone, the member is not, and what is said meanwhile follows.
    Figures::when(server.ops, |figures| {
        figures["meeting_server_sessions_detached"] == 1.0
    });
    assert_eq!(ben.names(), ["ben", "anna"]);
    ben.ok("broadcast", serde_json::json!({"text": "meanwhile"}));
    page.back();
    page.until("window.restored === 1");
    page.until("document.getElementById('state-detail').dataset.t === 'state.resumed.at'");
    page.until_joined();
    page.until_said(&["meanwhile"]);
    page.say("I am back");
    // Nothing was seen of it by the others.
    assert_eq!(ben.event("broadcast")["payload"]["text"], "I am back");
}

#[test]
fn a_page_in_the_cache_for_too_long_rejoins_when_restored() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::with(|settings| settings.rooms.resume_window = Duration::from_millis(100));
    let (mut ben, page) = ben_and_page(&driver, &server);
    page.js(COUNT);
    go_elsewhere(&page, &server);
    // The browser answers no pings for it.
    assert_eq!(ben.event("endpoint")["stat"], "leave");
    page.back();
    page.until("window.restored === 1");
    page.until("document.getElementById('state-detail').dataset.t === 'state.rejoined.at'");
    page.until_joined();
    assert_eq!(ben.event("endpoint")["stat"], "join");
}

#[test]
fn a_page_that_is_loaded_anew_leaves_at_once() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = server();
    let (mut ben, page) = ben_and_page(&driver, &server);
    page.js("location.reload()");
    assert_eq!(ben.event("endpoint")["stat"], "leave");
    page.until_state("idle");
}

#[test]
fn a_tab_that_is_closed_leaves_at_once() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = server();
    let (mut ben, page) = ben_and_page(&driver, &server);
    page.close_tab();
    assert_eq!(ben.event("endpoint")["stat"], "leave");
}

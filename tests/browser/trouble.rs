//! What a user is told when something fails: the server is away, a token does not allow it, there is
//! no camera, a name is too long.

use serde_json::json;

use crate::{
    common::{keys::Signer, *},
    proxy::Proxy,
    window::Driver,
};

#[test]
fn a_server_that_is_away_is_no_riddle() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let proxy = Proxy::to(server.addr);
    let mut page = driver.browser();
    page.expect_losses();
    page.go(&format!("http://{}/?app=test", proxy.addr));
    proxy.sever();
    page.click("#enter");
    // It tries for a while, and does not leave its user without a word.
    let says = |words: &str| {
        page.until(&format!(
            "document.getElementById('join-notice').textContent.includes('{words}')"
        ));
    };
    says("No connection yet");
    says("Is it running");
    proxy.mend();
    page.click("#enter");
    page.until_joined();
    assert_eq!(
        page.js("document.getElementById('join-notice').hidden"),
        true
    );
}

#[test]
fn what_a_token_does_not_allow_is_said_where_it_was_tried() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let signer = Signer::hs256("test", "1");
    let settings = signer.settings.clone();
    let server = Server::with(|all| all.auth.keys = vec![settings]);
    let page = driver.browser();
    page.go(&format!(
        "http://{}/?app=test&channel=c&endpoint=anna",
        server.addr
    ));
    page.write(
        "#token",
        &signer.token(json!({"app": "test", "grants": []})),
    );
    page.click("#enter");
    page.until_joined();
    page.say("may I?");
    page.until("document.querySelector('#chat .mine.failed')");
    assert!(page.text("#chat .mine.failed").contains("not sent"));
    page.click("#air");
    page.until("document.getElementById('stream-notice').textContent.includes('403')");
    assert_eq!(page.js("document.getElementById('on-air').hidden"), true);
    // One is still in the room.
    assert_eq!(page.js("document.body.dataset.state"), "joined");
}

#[test]
fn without_a_camera_a_stream_can_still_be_announced() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let mut ben = server.join("c", "ben");
    let page = driver.browser_without_camera();
    page.join(server.addr, "c", "anna");
    ben.event("endpoint");
    page.click("#air");
    page.until("!document.getElementById('stream-notice').hidden");
    assert!(
        page.text("#stream-notice").contains("NotAllowedError"),
        "{}",
        page.text("#stream-notice")
    );
    assert_eq!(page.js("document.getElementById('on-air').hidden"), true);
    page.choose("#source", "none");
    page.click("#audio");
    page.click("#air");
    page.until("!document.getElementById('on-air').hidden");
    assert_eq!(ben.event("stream")["stat"], "publish");
    let stream = &ben.dump()[1]["stream"];
    assert_eq!(
        (&stream["has_video"], &stream["has_audio"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        (&stream["video_codec"], &stream["audio_codec"]),
        (&json!("vp8"), &json!(""))
    );
}

#[test]
fn a_source_that_ends_takes_its_stream_along() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let mut ben = server.join("c", "ben");
    let page = driver.browser();
    page.join(server.addr, "c", "anna");
    ben.event("endpoint");
    page.click("#air");
    page.until("!document.getElementById('on-air').hidden");
    assert_eq!(ben.event("stream")["stat"], "publish");
    // A camera that is pulled out.
    page.js("document.getElementById('preview').srcObject.getVideoTracks()[0].dispatchEvent(new Event('ended'))");
    assert_eq!(ben.event("stream")["stat"], "unpublish");
    page.until(
        "document.getElementById('on-air').hidden && document.getElementById('preview').hidden",
    );
    page.until("document.getElementById('stream-notice').textContent.includes('has ended')");
}

#[test]
fn names_are_bounded_in_bytes() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let page = driver.browser();
    page.go(&format!("http://{}/?app=test", server.addr));
    // 43 characters, 129 bytes.
    page.fill("#channel", &"房".repeat(43));
    page.click("#enter");
    assert_eq!(
        page.js("document.getElementById('join').checkValidity()"),
        false
    );
    assert_eq!(page.js("document.body.dataset.state"), "idle");
    page.fill("#channel", &"房".repeat(42));
    page.click("#enter");
    page.until_joined();
}

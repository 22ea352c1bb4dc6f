//! Two pages meet, publish, talk, and are not parted by a server that restarts or a network that
//! goes away.

use std::time::{Duration, Instant};

use fantoccini::key::Key;

use crate::{
    common::{log_line::Format, process::Process, *},
    proxy::Proxy,
    window::{Driver, Page},
};

/// The list's row of a member.
fn row(endpoint: &str) -> String {
    format!("document.querySelector('#members li[data-endpoint=\"{endpoint}\"]')")
}

/// Whether a member's row has a stream in it.
fn publishes(endpoint: &str) -> String {
    format!("{}?.classList.contains('publishes')", row(endpoint))
}

/// Publishes the camera, and waits until it is on the air.
fn publish(page: &Page) {
    page.click("#air");
    page.until("!document.getElementById('on-air').hidden");
}

/// How often the chat tells of something: "chat.leave".
fn notes(page: &Page, key: &str) -> u64 {
    let notes = format!("document.querySelectorAll('#chat .note [data-t=\"{key}\"]').length");
    page.js(&notes).as_u64().unwrap()
}

#[test]
fn two_pages_meet_publish_and_talk() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let (anna, ben) = (driver.browser(), driver.browser());
    anna.join(server.addr, "c", "anna");
    anna.until_members(&["anna"]);
    assert!(anna.text("#members-empty").contains("Nobody else"));
    ben.go(&format!(
        "http://{}/?app=test&channel=c&endpoint=ben&role=recorder",
        server.addr
    ));
    ben.click("#enter");
    ben.until_joined();
    for page in [&anna, &ben] {
        page.until_members(&["anna", "ben"]);
        page.until(&format!("{}.textContent.includes('recorder')", row("ben")));
        assert_eq!(page.text("#members-count"), "2");
    }
    // The addresses of the default settings' media server.
    assert!(anna.text("#media").contains("http://127.0.0.1:8889"));

    publish(&anna);
    anna.until("document.getElementById('preview').videoWidth > 0");
    ben.until(&format!(
        "{} && {}.textContent.includes('vp8 opus')",
        publishes("anna"),
        row("anna")
    ));
    let stream = ben.js(&format!(
        "{}.querySelector('code').textContent",
        row("anna")
    ));
    let mut carl = server.join("c", "carl");
    let dump = carl.dump();
    assert_eq!(dump[0]["stream"]["stream_id"], stream);
    assert_eq!(dump[0]["stream"]["type"], "camera");
    assert_eq!(dump[0]["stream"]["has_video"], true);
    assert_eq!(dump[0]["stream"]["has_audio"], true);
    assert_eq!(dump[1]["role"], "recorder");

    ben.say("good morning");
    anna.until_said(&["good morning"]);
    anna.say("你好 <b>ben</b>");
    ben.until_said(&["good morning", "你好 <b>ben</b>"]);
    anna.until_said(&["good morning", "你好 <b>ben</b>"]);
    let heard = [carl.event("broadcast"), carl.event("broadcast")];
    assert_eq!(
        heard[1]["payload"],
        serde_json::json!({"text": "你好 <b>ben</b>"})
    );

    anna.click("#air");
    ben.until(&format!("!{}", publishes("anna")));
    anna.until(
        "document.getElementById('on-air').hidden && document.getElementById('preview').hidden",
    );
    let event = carl.event("stream");
    assert_eq!(
        (&event["stat"], &event["stream"]),
        (&"unpublish".into(), &stream)
    );

    ben.click("#leave");
    ben.until_state("idle");
    assert!(ben.text("#outside").contains("Join"));
    anna.until_members(&["anna", "carl"]);
    assert_eq!(notes(&anna, "chat.leave"), 1);
    assert_eq!(carl.event("endpoint")["stat"], "leave");
}

/// Two members, one of them on the air, through a proxy: their server goes, another comes in its
/// place.
fn survive(driver: &Driver, proxy: &Proxy, restart: impl FnOnce()) {
    let (mut anna, mut ben) = (driver.browser(), driver.browser());
    for (page, name) in [(&mut anna, "anna"), (&mut ben, "ben")] {
        page.expect_losses();
        page.join(proxy.addr, "c", name);
    }
    publish(&anna);
    ben.until(&publishes("anna"));
    restart();
    for page in [&anna, &ben] {
        page.until("document.getElementById('state-detail').dataset.t === 'state.rejoined.at'");
        page.until_joined();
        page.until("document.querySelectorAll('#members li').length === 2");
        page.until(&publishes("anna"));
        assert_eq!(notes(page, "chat.rejoined"), 1);
    }
    ben.say("still there?");
    anna.until_said(&["still there?"]);
    anna.say("yes");
    ben.until_said(&["still there?", "yes"]);
}

#[test]
fn they_come_back_to_a_server_that_was_restarted_in_order() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let mut server = Server::start();
    let proxy = Proxy::to(server.addr);
    let mut next = None;
    survive(&driver, &proxy, || {
        server.stop();
        let server = next.insert(Server::start());
        proxy.lead_to(server.addr);
    });
}

#[test]
fn they_come_back_to_a_server_that_was_killed() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let start = || Process::start(Format::Text, "info", &[]);
    let mut server = start();
    let proxy = Proxy::to(server.addr);
    let mut next = None;
    survive(&driver, &proxy, || {
        server.signal("KILL");
        server.ended();
        let server = next.insert(start());
        proxy.lead_to(server.addr);
    });
}

/// Five seconds without a network, while both sides speak; `cut` and `mend` do it.
fn nothing_is_lost(
    driver: &Driver,
    server: &Server,
    cut: impl Fn(&Proxy, &Page),
    mend: impl Fn(&Proxy, &Page),
) {
    const CUT: Duration = Duration::from_secs(5);
    let proxy = Proxy::to(server.addr);
    let (mut anna, ben) = (driver.browser(), driver.browser());
    anna.expect_losses();
    anna.join(proxy.addr, "c", "anna");
    ben.join(server.addr, "c", "ben");
    publish(&anna);
    ben.until(&publishes("anna"));
    anna.say("before");
    ben.until_said(&["before"]);

    cut(&proxy, &anna);
    let begun = Instant::now();
    // What is written at once may be on the old connection and answered by nobody.
    anna.say("into the dark 1");
    ben.say("unheard 1");
    anna.until_state("reconnecting");
    anna.say("into the dark 2");
    ben.say("unheard 2");
    ben.until_said(&["before", "unheard 1", "unheard 2"]);
    anna.until("document.querySelectorAll('#chat .pending').length === 2");
    // That is the test: the network is away for so long.
    std::thread::sleep(CUT.saturating_sub(begun.elapsed()));
    mend(&proxy, &anna);

    anna.until_joined();
    anna.until("document.getElementById('state-detail').dataset.t === 'state.resumed.at'");
    // Each word once, in the order of its speaker.
    let order = "const said = [...document.querySelectorAll('#chat .said:not(.pending) .text')].map((t) => t.textContent); \
                 const of = (word) => said.filter((text) => text.startsWith(word)).join(); \
                 return [of('before'), of('into'), of('unheard'), said.length].join('|');";
    for page in [&anna, &ben] {
        let order = format!("(() => {{ {order} }})()");
        page.until(&format!(
            "{order} === 'before|into the dark 1,into the dark 2|unheard 1,unheard 2|5'"
        ));
        // Nobody was told that anybody was away.
        assert_eq!(notes(page, "chat.leave") + notes(page, "chat.unpublish"), 0);
    }
    assert_eq!(notes(&anna, "chat.resumed"), 1);
    assert_eq!(anna.js(&publishes("anna")), true);
    assert_eq!(ben.js(&publishes("anna")), true);
    assert_eq!(notes(&ben, "chat.join"), 0);
}

/// DevTools' "offline" as such: the browser says that it is offline and refuses new connections, but
/// leaves a WebSocket that is open alone. So the wire falls silent as well.
#[test]
fn a_network_that_is_offline_for_five_seconds_loses_nothing() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    nothing_is_lost(
        &driver,
        &server,
        |proxy, page| {
            proxy.silence();
            page.offline(true);
        },
        |proxy, page| {
            page.offline(false);
            proxy.mend();
        },
    );
}

/// The browser notices nothing but that its connection is gone and that no other comes about.
#[test]
fn a_wire_that_is_cut_for_five_seconds_loses_nothing() {
    let Some(driver) = Driver::start() else {
        return;
    };
    // Nobody tells the page when the wire is mended, so it may try again late.
    let server = Server::with(|settings| settings.rooms.resume_window = Duration::from_secs(60));
    nothing_is_lost(
        &driver,
        &server,
        |proxy, _| proxy.sever(),
        |proxy, _| proxy.mend(),
    );
}

#[test]
fn a_page_whose_place_is_taken_says_so_and_stays_away() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let anna = driver.browser();
    anna.join(server.addr, "c", "anna");
    let mut other = server.join("c", "anna");
    anna.until_state("idle");
    anna.until("!document.getElementById('join-notice').hidden");
    assert!(anna.text("#join-notice").contains("anna"));
    assert_eq!(other.names(), ["anna"]);
    // The name is still there, and so is the way back.
    assert_eq!(anna.value("#endpoint"), "anna");
    anna.press(Key::Enter);
    anna.until_joined();
    assert_eq!(other.error_event(), "endpoint_replaced");
}

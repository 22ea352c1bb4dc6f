//! The page whoever else is there: its form and its link, its two languages, the keyboard, a screen
//! reader, small windows.

use std::collections::BTreeSet;

use fantoccini::key::Key;
use serde_json::json;

use crate::{
    common::*,
    proxy::Proxy,
    window::{Driver, Page},
};

/// A name of 128 bytes without a place to break it.
fn long_name(letter: char) -> String {
    letter.to_string().repeat(128 / letter.len_utf8())
}

#[test]
fn the_link_of_a_channel_brings_others_there() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let (anna, ben) = (driver.browser(), driver.browser());
    anna.go(&format!("http://{}/", server.addr));
    // What a newcomer finds.
    assert_eq!(
        (anna.value("#app"), anna.value("#channel")),
        ("demo".into(), "lobby".into())
    );
    assert!(anna.value("#endpoint").starts_with("guest-"));
    anna.fill("#channel", "会议 & 1/2");
    anna.fill("#endpoint", "anna");
    anna.click("#enter");
    anna.until_joined();
    let link = anna.value("#link");
    assert!(!link.contains("anna"), "{link}");
    assert_eq!(anna.js("location.href"), link);
    assert_eq!(anna.js("document.getElementById('second').href"), link);

    // What is copied is the link.
    anna.click("#copy-link");
    anna.until("document.getElementById('toast').textContent === 'Copied'");
    anna.write("#text", &format!("{}v", char::from(Key::Control)));
    anna.until(&format!(
        "document.getElementById('text').value === {}",
        json!(link)
    ));

    ben.go(&link);
    assert_eq!(
        (ben.value("#app"), ben.value("#channel")),
        ("demo".into(), "会议 & 1/2".into())
    );
    assert_ne!(ben.value("#endpoint"), "anna");
    ben.fill("#endpoint", "ben");
    ben.click("#enter");
    ben.until_joined();
    anna.until_members(&["anna", "ben"]);

    // Loaded anew, the page still knows its name, and has left in order.
    anna.go(&link);
    ben.until_members(&["ben"]);
}

#[test]
fn a_page_that_is_loaded_anew_keeps_its_name_to_itself() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let page = driver.browser();
    page.join(server.addr, "c", "anna");
    page.js("location.reload()");
    page.until_state("idle");
    page.until("document.getElementById('endpoint').value === 'anna'");
    assert_eq!(page.value("#channel"), "c");
}

#[test]
fn the_keyboard_is_enough() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let mut ben = server.join("c", "ben");
    let page = driver.browser();
    page.go(&format!("http://{}/?app=test&channel=c", server.addr));
    /// Goes on by Tab until an element has the focus, which must be visible then.
    fn tab_to(page: &Page, id: &str) {
        for _ in 0..40 {
            page.press(Key::Tab);
            if page.js("document.activeElement.id") == id {
                let outline = "getComputedStyle(document.activeElement).outlineStyle";
                assert_ne!(page.js(outline), "none", "{id} does not show its focus");
                return;
            }
        }
        panic!("no way to {id}");
    }
    tab_to(&page, "endpoint");
    // Its old value is selected, as browsers do.
    page.type_keys("anna");
    page.press(Key::Enter);
    page.until_joined();
    assert_eq!(ben.event("endpoint")["endpoint"], "anna");
    // One may write at once.
    assert_eq!(page.js("document.activeElement.id"), "text");
    page.type_keys("by hand");
    page.press(Key::Enter);
    assert_eq!(
        ben.event("broadcast")["payload"],
        json!({"text": "by hand"})
    );
    tab_to(&page, "air");
    page.press(Key::Enter);
    assert_eq!(ben.event("stream")["stat"], "publish");
    page.until("!document.getElementById('on-air').hidden");
    assert_eq!(page.js("document.activeElement.id"), "air");
    page.press(Key::Enter);
    assert_eq!(ben.event("stream")["stat"], "unpublish");
    // A message is opened, and the secrets are shown.
    tab_to(&page, "reveal");
    page.press(Key::Enter);
    assert_eq!(
        page.js("document.getElementById('reveal').getAttribute('aria-pressed')"),
        "true"
    );
    tab_to(&page, "wire");
    page.press(Key::Tab);
    page.press(Key::Enter);
    page.until("document.querySelector('#wire details[open] pre')");
    page.js("document.getElementById('language').focus()");
    tab_to(&page, "leave");
    page.press(Key::Enter);
    page.until_state("idle");
    assert_eq!(ben.event("endpoint")["stat"], "leave");
    assert_eq!(page.js("document.activeElement.id"), "enter");
}

#[test]
fn it_speaks_english_and_chinese() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let page = driver.browser();
    page.go(&format!("http://{}/", server.addr));
    let keys = page.js_async("const { keysOf } = await import('./words.js'); return keysOf();");
    let of = |language: &str| -> BTreeSet<String> {
        let list = keys[language].as_array().unwrap().iter();
        list.map(|key| key.as_str().unwrap().to_owned()).collect()
    };
    assert!(of("en").len() > 100);
    assert_eq!(of("en"), of("zh"));
    // Each word that the page names is there, and the page's own English is the list's.
    let html = page.js_async(
        "const text = await (await fetch('./')).text(); \
         const { words } = await import('./words.js'); \
         const page = new DOMParser().parseFromString(text, 'text/html'); \
         const wrong = []; \
         for (const e of page.querySelectorAll('[data-t]')) \
           if (e.textContent !== words(e.dataset.t)) wrong.push(e.dataset.t); \
         for (const e of page.querySelectorAll('[data-t-placeholder]')) \
           if (e.placeholder !== words(e.dataset.tPlaceholder)) wrong.push(e.dataset.tPlaceholder); \
         for (const e of page.querySelectorAll('[data-t-label]')) \
           if (e.ariaLabel !== words(e.dataset.tLabel)) wrong.push(e.dataset.tLabel); \
         return wrong;",
    );
    assert_eq!(html, json!([]));

    assert_eq!(page.js("document.documentElement.lang"), "en");
    page.click("#language");
    assert_eq!(page.js("document.documentElement.lang"), "zh-Hans");
    assert_eq!(page.text("#join-title"), "加入频道");
    assert_eq!(page.text("#language"), "English");
    page.click("#enter");
    page.until_joined();
    assert_eq!(page.text("#state"), "已连接");
    // What is there already changes as well: the chat's lines, the list, the messages.
    page.click("#language");
    assert_eq!(page.text("#state"), "Connected");
    let chinese = "(document.body.innerText.match(/[\\u4e00-\\u9fff]+/g) ?? []).join()";
    assert_eq!(page.js(chinese), "中文");
    // The choice is kept; the link may ask for a language.
    page.click("#language");
    page.go(&format!("http://{}/", server.addr));
    assert_eq!(page.js("document.documentElement.lang"), "zh-Hans");
    page.go(&format!("http://{}/?lang=en", server.addr));
    assert_eq!(page.text("#join-title"), "Join a channel");
}

#[test]
fn a_language_that_is_none_breaks_nothing() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let page = driver.browser();
    // Names that every JavaScript object inherits.
    for tag in [
        "__proto__",
        "constructor",
        "toString",
        "__PROTO__-x",
        "",
        "-",
    ] {
        page.go(&format!("http://{}/?lang={tag}", server.addr));
        page.until_state("idle");
        assert_eq!(page.js("document.documentElement.lang"), "en", "{tag}");
        assert_eq!(page.text("#join-title"), "Join a channel", "{tag}");
        page.js("localStorage.setItem('meeting-server.language', 'hasOwnProperty')");
    }
    page.click("#language");
    assert_eq!(page.text("#join-title"), "加入频道");
}

/// The texts of the page, its title and its tooltips in which a character that changes the
/// direction of text stands outside an isolation, or inside one that it could close.
const UNISOLATED: &str = "(() => {
    const texts = [document.title];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) texts.push(walker.currentNode.data);
    for (const element of document.querySelectorAll('*')) {
        for (const name of ['title', 'aria-label', 'placeholder']) {
            texts.push(element.getAttribute(name) ?? '');
        }
    }
    const control = /[\\u202a-\\u202e\\u2066-\\u2069\\u2028\\u2029]/;
    const isolated = /\\u2068[^\\u202a-\\u202e\\u2066-\\u2069\\u2028\\u2029]*\\u2069/g;
    return texts.filter((text) => control.test(text.replace(isolated, ''))).map(escape);
})()";

#[test]
fn names_do_not_change_the_direction_of_the_text_around_them() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    // PDI ends an isolation and RLO reverses what follows; PS ends the paragraph.
    let evil = |name: &str| format!("{name}\u{2069}\u{202e}x\u{2029}\u{2066}");
    let (channel, anna) = (evil("room"), evil("anna"));
    let page = driver.browser();
    page.go(&format!(
        "http://{}/?app=test&channel={channel}&endpoint={anna}",
        server.addr
    ));
    page.click("#enter");
    page.until_joined();
    let mut ben = server.connect();
    ben.join_with(json!({
        "app": "test", "channel": channel, "endpoint": evil("ben"), "device": evil("phone"),
    }));
    ben.publish(&evil("stream"));
    ben.ok("broadcast", json!({"text": "hello"}));
    ben.ok("broadcast", json!({evil("key"): evil("value")}));
    page.until("document.querySelectorAll('#chat .said').length === 2");
    page.until("document.querySelector('#members .publishes .about').textContent !== ''");
    page.js("document.querySelectorAll('#wire details').forEach((row) => { row.open = true; })");
    page.until("!document.querySelector('#wire details:not(:has(pre))')");
    assert_eq!(page.js(UNISOLATED), json!([]));
    // Each has a direction of its own, and its characters are marked.
    for css in [
        "#members .name b",
        "#chat .said b",
        "#members code",
        "#members .device",
        "#room-name bdi",
    ] {
        let place = format!("document.querySelector({})", json!(css));
        let direction = page.js(&format!("getComputedStyle({place}).unicodeBidi"));
        assert!(
            direction.as_str().unwrap().contains("isolate"),
            "{css}: {direction}"
        );
        assert!(
            page.text(css).contains('\u{fffd}'),
            "{css}: {}",
            page.text(css)
        );
    }
    drop(ben);
    page.until("document.querySelectorAll('#members li').length === 1");
    assert_eq!(page.js(UNISOLATED), json!([]));
    page.click("#language");
    assert_eq!(page.js(UNISOLATED), json!([]));
}

#[test]
fn a_chinese_browser_is_spoken_to_in_chinese() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let page = driver.browser_with(&[], json!({"intl.accept_languages": "zh-CN,zh"}));
    page.go(&format!("http://{}/", server.addr));
    assert_eq!(page.text("#join-title"), "加入频道");
}

#[test]
fn a_screen_reader_finds_a_name_for_everything() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let mut ben = server.join("c", "ben");
    ben.publish("ben-1");
    let page = driver.browser();
    page.go(&format!(
        "http://{}/?app=test&channel=c&endpoint=anna",
        server.addr
    ));
    let check = |page: &Page| {
        let controls =
            page.spoken("input, select, textarea, button, a, summary, video, [tabindex='0']");
        assert!(controls.len() > 10);
        for control in &controls {
            assert!(!control.label.trim().is_empty(), "{}", control.html);
        }
        let regions: Vec<String> = page
            .spoken("header, main, section")
            .into_iter()
            .map(|region| region.role)
            .collect();
        assert_eq!(regions.iter().filter(|role| *role == "main").count(), 1);
        assert_eq!(regions.iter().filter(|role| *role == "banner").count(), 1);
        // Sections with a name are landmarks.
        assert!(
            regions
                .iter()
                .all(|role| ["main", "banner", "region"].contains(&role.as_str())),
            "{regions:?}"
        );
        let levels: Vec<u64> = page
            .js("[...document.querySelectorAll('h1, h2, h3, h4')].filter((h) => h.checkVisibility()).map((h) => Number(h.tagName[1]))")
            .as_array().unwrap().iter().map(|level| level.as_u64().unwrap()).collect();
        assert_eq!(levels[0], 1);
        assert!(
            levels.windows(2).all(|pair| pair[1] <= pair[0] + 1),
            "{levels:?}"
        );
        let ids = "[...document.querySelectorAll('[id]')].map((e) => e.id)";
        assert_eq!(
            page.js(&format!("new Set({ids}).size === {ids}.length")),
            true
        );
    };
    check(&page);
    page.click("#enter");
    page.until_joined();
    check(&page);
    for (id, role) in [("#chat", "log"), ("#state", "status"), ("#members", "list")] {
        assert_eq!(page.spoken(id)[0].role, role, "{id}");
    }
}

#[test]
fn nothing_sticks_out_of_a_small_window() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let (anna, channel) = (long_name('a'), long_name('房'));
    let mut ben = server.join(&channel, &long_name('b'));
    ben.publish(&long_name('s'));
    for size in ["390,844", "768,1024", "1280,800"] {
        let page = driver.browser_with(
            &[&format!("--window-size={size}")],
            json!({"intl.accept_languages": "zh-CN,zh"}),
        );
        // A headless window may be no narrower than 500 pixels; the page in it may.
        let width = size.split(',').next().unwrap();
        page.narrow(width.parse().unwrap());
        let fits = |place: &str| {
            let wide = "[...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && \
                        !e.closest('.unseen, #wire, pre, select') && e.getBoundingClientRect().right > innerWidth + 1)\
                        .map((e) => e.outerHTML.slice(0, 120))";
            assert_eq!(
                page.js("document.documentElement.scrollWidth <= innerWidth"),
                true,
                "{size} {place}: {}",
                page.js(wide)
            );
            // Nor does anything below it.
            let end = "document.querySelector('main').getBoundingClientRect().bottom + scrollY";
            assert_eq!(
                page.js(&format!(
                    "document.documentElement.scrollHeight <= Math.max(innerHeight, {end} + 1)"
                )),
                true,
                "{size} {place}"
            );
            assert_eq!(page.js("innerWidth"), width.parse::<u64>().unwrap());
        };
        page.go(&format!(
            "http://{}/?app=test&channel={channel}&endpoint={anna}",
            server.addr
        ));
        fits("outside");
        page.click("#enter");
        page.until_joined();
        ben.event("endpoint");
        ben.ok("broadcast", json!({"text": long_name('x')}));
        page.until("document.querySelector('#chat .said')");
        page.until("document.querySelector('#members .publishes')");
        // More messages than there is room for.
        for _ in 0..40 {
            ben.ok("broadcast", json!({"text": "x"}));
        }
        page.until("document.querySelectorAll('#chat .said').length === 41");
        fits("inside");
        page.click("#leave");
        page.until_state("idle");
        ben.event("endpoint");
    }
}

#[test]
fn it_works_below_a_path_that_a_proxy_takes_away() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let proxy = Proxy::below("/rooms/one", server.addr);
    let page = driver.browser();
    page.go(&format!(
        "http://{}/rooms/one/?app=test&channel=c&endpoint=anna",
        proxy.addr
    ));
    page.click("#enter");
    page.until_joined();
    assert_eq!(page.text("#address"), "");
    assert_eq!(
        page.js("document.getElementById('address').textContent"),
        format!("ws://{}/rooms/one/ws", proxy.addr)
    );
    assert!(page.value("#link").contains("/rooms/one/?"));
    let mut ben = server.join("c", "ben");
    assert_eq!(ben.names(), ["anna", "ben"]);
}

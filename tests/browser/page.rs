//! What the page itself does, whoever else is there: its form and its link, its two languages, the
//! keyboard, a screen reader, small windows, the messages, and what a user is told when it fails.

use std::collections::BTreeSet;

use fantoccini::key::Key;
use serde_json::{Value, json};

use crate::{
    common::{keys::Signer, *},
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

/// The messages in the list that are to be seen.
fn wire(page: &Page) -> Vec<String> {
    let rows = page.js("[...document.querySelectorAll('#wire > li:not([hidden])')].map((row) => row.innerText.replace(/\\s+/g, ' '))");
    rows.as_array()
        .unwrap()
        .iter()
        .map(|row| row.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_messages_can_be_read_and_filtered() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let mut ben = server.join("c", "ben");
    let page = driver.browser();
    page.join(server.addr, "c", "anna");
    ben.text(r#"{"version":0,"cseq":9,"method":"broadcast","session":"SESSION","data":{"n":1.50e2,"big":12345678901234567890,"a":[]}}"#.replace("SESSION", &ben.session).as_str());
    page.until("document.getElementById('wire').innerText.includes('1.50e2')");
    let all = wire(&page);
    assert_eq!(page.text("#wire-count"), all.len().to_string());
    let place = |what: &[&str]| {
        all.iter()
            .position(|row| what.iter().all(|word| row.contains(word)))
    };
    let order = [
        place(&["connecting to", "ws://"]),
        place(&["sent request channel.join #1", "\"channel\":\"c\""]),
        place(&["received answer channel.join0 #1"]),
        place(&["received event broadcast"]),
    ];
    assert!(
        order.iter().all(Option::is_some) && order.is_sorted(),
        "{order:?} {all:#?}"
    );

    // Opened, it is what was sent, number by number.
    page.click("#wire > li.event:last-of-type summary");
    page.until("document.querySelector('#wire details[open] pre')");
    let whole = page.js("document.querySelector('#wire details[open] pre').textContent");
    let whole = whole.as_str().unwrap();
    for line in [
        "\n      \"n\": 1.50e2,\n",
        "\"big\": 12345678901234567890,",
        "\"a\": []\n",
    ] {
        assert!(whole.contains(line), "{line} {whole}");
    }
    serde_json::from_str::<Value>(&whole.replace("••••", "")).expect("still JSON");

    page.write("#filter", "broadcast -request");
    page.until("document.querySelectorAll('#wire > li:not([hidden])').length === 1");
    assert!(
        page.text("#wire-count")
            .ends_with(&format!("/ {}", all.len()))
    );
    page.say("more");
    page.until_said(&[
        "{\n \"n\": 150,\n \"big\": 12345678901234567000,\n \"a\": []\n}",
        "more",
    ]);
    // The answer passes the filter, the request does not.
    page.until("document.querySelectorAll('#wire > li:not([hidden])').length === 2");
    page.fill("#filter", "");
    for kind in ["request", "answer", "connection"] {
        page.js(&format!(
            "document.querySelector('input[name=kind][value={kind}]').click()"
        ));
    }
    assert!(wire(&page).iter().all(|row| row.contains("received event")));
    page.write("#filter", "nothing has this word");
    page.until("!document.getElementById('wire-empty').hidden");
    page.click("#clear");
    assert_eq!(page.text("#wire-count"), "0");

    // What fails says so.
    page.fill("#filter", "");
    page.js("document.querySelector('input[name=kind][value=answer]').click()");
    page.fill("#protocol", "telepathy");
    page.click("#ask button");
    page.until("document.querySelector('#wire .answer.failed')");
    assert!(
        wire(&page)
            .iter()
            .any(|row| row.contains("media_server.dump503")),
        "{:?}",
        wire(&page)
    );
    assert!(page.text("#media-notice").contains("503"));
}

#[test]
fn tokens_and_sessions_are_shown_to_those_only_who_ask() {
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
    page.click("#enter");
    page.until("!document.getElementById('join-notice').hidden");
    assert!(page.text("#join-notice").contains("401"));
    assert_eq!(page.js("document.activeElement.id"), "token");
    let token = signer.token(json!({"app": "test", "role": "recorder"}));
    page.write("#token", &token);
    page.press(Key::Enter);
    page.until("document.getElementById('join-notice').textContent.includes('403')");
    page.choose("#role", "recorder");
    page.click("#enter");
    page.until_joined();
    page.until("document.getElementById('room-who').textContent.includes('recorder')");
    page.click("#wire > li.answer:last-of-type summary");
    page.js("document.querySelectorAll('#wire details').forEach((row) => { row.open = true; })");
    page.until("document.querySelectorAll('#wire pre').length === document.querySelectorAll('#wire details').length");
    let session = page.js_async(
        "const seen = document.getElementById('wire').textContent; \
         return seen.match(/\"([0-9a-f]{8})-••••\"/)?.[1];",
    );
    let session = session
        .as_str()
        .expect("the beginning of a session")
        .to_owned();
    let everything = "document.documentElement.outerHTML";
    let full = format!("/{session}-[0-9a-f]{{4}}/.test({everything})");
    let whole_token = format!("{everything}.includes({})", json!(token));
    assert_eq!(page.js(&full), false);
    assert_eq!(page.js(&whole_token), false);
    assert_eq!(
        page.js(&format!("location.href.includes({})", json!(token))),
        false
    );
    page.click("#reveal");
    assert_eq!(page.js(&full), true);
    assert_eq!(page.js(&whole_token), true);
    page.click("#reveal");
    assert_eq!(page.js(&full), false);
    assert_eq!(page.js(&whole_token), false);
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
fn its_lists_stay_as_long_as_somebody_reads_them() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let page = driver.browser();
    let crowd: Vec<Client> = (0..205)
        .map(|n| server.join("c", &format!("m{n}")))
        .collect();
    page.join(server.addr, "c", "anna");
    page.until("document.getElementById('members-count').textContent === '206'");
    assert_eq!(
        page.js("document.querySelectorAll('#members li').length"),
        201
    );
    assert!(page.text("#members li:last-child").contains("and 6 more"));
    drop(crowd);

    let mut ben = server.join("d", "ben");
    page.click("#leave");
    page.until_state("idle");
    page.join(server.addr, "d", "anna");
    ben.event("endpoint");
    for n in 0..1_100 {
        ben.ok("broadcast", json!({"text": n.to_string()}));
    }
    page.until("document.querySelector('#chat > :last-child .text')?.textContent === '1099'");
    assert_eq!(
        page.js("document.querySelectorAll('#chat > *').length"),
        500
    );
    assert_eq!(
        page.js("document.querySelectorAll('#wire > li').length"),
        1_000
    );
    // Who has read on is at the end still.
    let below = "document.getElementById('chat').scrollHeight - document.getElementById('chat').scrollTop - document.getElementById('chat').clientHeight";
    page.until(&format!("({below}) < 2"));
}

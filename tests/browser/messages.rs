//! The list of messages: what can be read in it, what is masked, and how long it gets.

use fantoccini::key::Key;
use serde_json::{Value, json};

use crate::{
    common::{keys::Signer, *},
    window::{Driver, Page},
};

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
fn a_message_of_any_shape_is_shown() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let server = Server::start();
    let page = driver.browser();
    page.go(&format!("http://{}/", server.addr));
    let shown = page.js_async(
        "const { Inspector } = await import('./inspector.js'); \
         const make = (tag) => document.createElement(tag); \
         const list = make('ol'); \
         const kinds = ['request', 'answer', 'event', 'connection'] \
             .map((value) => Object.assign(make('input'), { value, checked: true })); \
         const inspector = new Inspector({ list, kinds, empty: make('p'), count: make('span'), \
             filter: make('input'), reveal: make('button'), copy: make('button'), \
             clear: make('button') }); \
         const values = ['null', '5', '[]', '{}', '\"x\"', '{\"toString\":1}', '1e999', 'true']; \
         const texts = ['{', '', ...values]; \
         for (const key of ['event', 'err', 'err_msg', 'cseq', 'method', 'data']) \
             for (const value of values) \
                 texts.push(`{\"${key}\":${value}}`, `{\"err\":1,\"${key}\":${value}}`); \
         for (const text of texts) \
             for (const direction of ['in', 'out']) \
                 inspector.message({ direction, text, time: 0 }); \
         return list.childElementCount === 2 * texts.length;",
    );
    assert_eq!(shown, true);
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

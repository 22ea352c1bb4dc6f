//! The README's first conversation, held with a real server: what it shows as sent is sent, and
//! what it shows as received is what comes.

mod common;

use common::{Client, Server};
use serde_json::Value;

const ENGLISH: &str = include_str!("../README.md");
const CHINESE: &str = include_str!("../README.zh-CN.md");

/// The JSON lines of a README's conversation in their order.
fn lines(readme: &str) -> Vec<Value> {
    readme
        .lines()
        .filter(|line| line.starts_with("{\"version\""))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// `shown` with the session that the reader of the README gets.
fn with_session(mut shown: Value, session: &str) -> Value {
    if let Some(own) = shown.pointer_mut("/session") {
        *own = session.into();
    }
    if let Some(given) = shown.pointer_mut("/data/session") {
        *given = session.into();
    }
    shown
}

fn join(client: &mut Client, request: &Value) -> Value {
    client.send(request);
    let answer = client.next();
    client.session = answer["data"]["session"].as_str().unwrap().to_owned();
    answer
}

#[test]
fn the_first_conversation_goes_as_the_readme_shows() {
    let [join_anna, joined, ben_joins, add, dump, say, publish, hello] = lines(ENGLISH)
        .try_into()
        .expect("the README shows eight lines");
    let server = Server::start();

    let mut anna = server.connect();
    let answer = join(&mut anna, &join_anna);
    assert_eq!(answer, with_session(joined, &anna.session));

    let mut ben = server.connect();
    let mut join_ben = join_anna;
    join_ben["data"]["endpoint"] = "ben".into();
    join(&mut ben, &join_ben);
    assert_eq!(anna.next(), with_session(ben_joins, &anna.session));

    for request in [add, dump, say] {
        ben.send(&with_session(request, &ben.session.clone()));
        assert_eq!(ben.next()["err"], 0);
    }
    assert_eq!(anna.next(), with_session(publish, &anna.session));
    assert_eq!(anna.next(), with_session(hello, &anna.session));

    ben.close(1000);
    assert_eq!(anna.event("stream")["stat"], "unpublish");
    assert_eq!(anna.event("endpoint")["stat"], "leave");
}

#[test]
fn the_chinese_readme_shows_the_same_conversation() {
    assert_eq!(lines(CHINESE), lines(ENGLISH));
}

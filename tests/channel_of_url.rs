//! `?channel=` of the URL: a proxy before several servers chooses by it, so a join that names
//! another channel would tear a room in two, and is refused.

mod common;

use common::{Client, Server, keys::Signer, stream};
use serde_json::{Value, json};

fn join(channel: &str) -> Value {
    json!({"app": "test", "channel": channel, "endpoint": "anna"})
}

/// Asks to join and is refused with a 400 that names the URL.
fn contradicts(client: &mut Client, data: Value) {
    let answer = client.call("channel.join", data.clone());
    assert_eq!(answer["err"], 400, "{data} {answer}");
    assert_eq!(answer["data"], json!({}));
    let message = answer["err_msg"].as_str().unwrap();
    assert!(message.contains("channel of the URL"), "{message}");
}

#[test]
fn a_join_names_the_channel_of_the_url_if_that_names_one() {
    let server = Server::start();
    for (path, channel) in [
        ("/ws?channel=room", "room"),
        ("/ws?x=1&channel=a%20b%26c%3d%E4%BC%9A&device=y", "a b&c=会"),
        ("/ws?channel=a+b", "a b"),
        ("/ws?channel=room&channel=room", "room"),
        // An empty one is none, and another key is another key.
        ("/ws?channel=", "room"),
        ("/ws?channel=&channel=room", "room"),
        ("/ws?Channel=elsewhere&xchannel=elsewhere", "room"),
    ] {
        let mut client = Client::connect_to(server.addr, path);
        client.join_with(join(channel));
        // It is not one join's alone.
        client.ok("channel.leave", json!({}));
        client.join_with(join(channel));
    }
    for (path, channel) in [
        ("/ws?channel=room", "elsewhere"),
        ("/ws?channel=room", "Room"),
        ("/ws?channel=room", "room "),
        ("/ws?channel=%00", "room"),
        // Nobody knows by which of two a proxy went.
        ("/ws?channel=room&channel=elsewhere", "room"),
        ("/ws?channel=elsewhere&channel=room", "room"),
        ("/ws?channel=room&%63hannel=elsewhere", "room"),
    ] {
        let mut client = Client::connect_to(server.addr, path);
        contradicts(&mut client, join(channel));
        // The connection stays, and is as it was.
        contradicts(&mut client, join(channel));
    }
}

#[test]
fn the_channel_of_the_url_is_checked_with_the_shape_and_before_all_else() {
    let key = Signer::hs256("test", "");
    let server = Server::with(|settings| settings.auth.keys = vec![key.settings.clone()]);
    let mut client = Client::connect_to(server.addr, "/ws?channel=room");
    // Before the token: a 401 would close the connection.
    contradicts(&mut client, join("elsewhere"));
    let mut data = join("elsewhere");
    data["token"] = "no token".into();
    contradicts(&mut client, data);
    // Before the membership: 409 otherwise.
    let mut data = join("room");
    data["token"] = key.token(json!({})).into();
    client.join_with(data);
    contradicts(&mut client, join("elsewhere"));
    assert_eq!(client.names(), ["anna"]);
}

#[test]
fn a_resume_names_the_channel_of_the_url_too_and_a_refused_one_touches_nothing() {
    let server = Server::start();
    let mut ben = server.join("room", "ben");
    let mut anna = Client::connect_to(server.addr, "/ws?channel=room");
    anna.join_with(join("room"));
    ben.event("endpoint");
    anna.ok("stream.add", json!({"stream": stream("anna-1")}));
    ben.event("stream");
    let session = anna.session.clone();
    anna.close(4900);
    assert_eq!(anna.closed(), 4900);

    let mut elsewhere = Client::connect_to(server.addr, "/ws?channel=elsewhere");
    elsewhere.session.clone_from(&session);
    contradicts(&mut elsewhere, join("room"));
    assert_eq!(ben.names(), ["ben", "anna"], "she is waited for");

    let mut back = Client::connect_to(server.addr, "/ws?channel=room");
    back.session.clone_from(&session);
    let data = back.ok("channel.join", join("room"));
    assert_eq!(data["resumed"], true);
    assert_eq!(ben.names(), ["ben", "anna"]);
}

//! Several servers behind a stock HAProxy with the file of `deploy/`, which goes by the channel in
//! the URL: every room is whole, and on one of them.
//!
//! Needs `haproxy` (2.6 or later) in the PATH. Without it nothing is tested, which is an error
//! where `CI` is "true" and said aloud elsewhere.

mod common;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
};

use common::{Client, Server, http};
use serde_json::json;

/// The file as it is handed out.
const CONFIG: &str = include_str!("../deploy/haproxy-shards.cfg");

/// HAProxy before these servers, for as long as this value lives.
struct Proxy {
    addr: SocketAddr,
    child: Child,
}

impl Proxy {
    fn before(servers: &[SocketAddr]) -> Self {
        // It inherits its socket: no port is free by chance, and it accepts from the start on.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let config = CONFIG
            .lines()
            .filter_map(|line| configured(line, servers))
            .collect::<Vec<_>>()
            .join("\n");
        let file = format!(
            "{}/haproxy-{}.cfg",
            env!("CARGO_TARGET_TMPDIR"),
            addr.port()
        );
        fs::write(&file, config + "\n").unwrap();
        let child = Command::new("haproxy")
            .args(["-db", "-f", &file])
            .stdin(OwnedFd::from(listener))
            // What it has to say is beside its configuration.
            .stderr(File::create(format!("{file}.log")).unwrap())
            .spawn()
            .unwrap();
        Self { addr, child }
    }
}

/// A line of the file as a test can use it: other addresses, no TLS, nobody's rights but ours.
fn configured(line: &str, servers: &[SocketAddr]) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["user" | "group" | "log" | "ssl-default-bind-options", ..] => None,
        ["maxconn", _] => Some("    maxconn 1000".to_owned()),
        ["bind", ..] => Some("    bind fd@0".to_owned()),
        ["server", "one", _, "id", "1"] => {
            let server = |(n, addr)| format!("    server s{n} {addr} id {}", n + 1);
            let servers: Vec<String> = servers.iter().enumerate().map(server).collect();
            Some(servers.join("\n"))
        }
        ["server", ..] => None,
        _ => Some(line.to_owned()),
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether there is a HAProxy to test with.
fn has_haproxy() -> bool {
    let found = Command::new("haproxy")
        .arg("-v")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(found || !must, "haproxy is not in the PATH");
    if !found {
        // Not eprintln!, which a test that passes keeps for itself.
        use std::io::Write;
        let _ = writeln!(
            std::io::stderr(),
            "NOT TESTED: haproxy is not in the PATH, so nothing of tests/shards.rs was tried"
        );
    }
    found
}

/// A server that can be told from the others: by the address of its media server.
fn shard(name: &str) -> Server {
    shard_at(name, "127.0.0.1:0".parse().unwrap())
}

fn shard_at(name: &str, addr: SocketAddr) -> Server {
    Server::with(|settings| {
        settings.server.bind = addr;
        settings.server.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        settings.media_servers[0].rtsp = format!("rtsp://{name}");
    })
}

/// Joins through the proxy; also which server it was.
fn join(proxy: SocketAddr, spelled: &str, channel: &str, endpoint: &str) -> (Client, String) {
    let path = format!("/ws?device=phone&channel={spelled}");
    let mut client = Client::connect_to(proxy, &path);
    let data = client.join_with(json!({"app": "test", "channel": channel, "endpoint": endpoint}));
    let server = data["media_server"]["rtsp"].as_str().unwrap().to_owned();
    (client, server)
}

fn channels() -> impl Iterator<Item = String> {
    (0..48).map(|n| format!("room-{n}"))
}

/// Which server each of [`channels`] is on.
fn placement(proxy: SocketAddr) -> BTreeMap<String, String> {
    channels()
        .map(|channel| {
            let (_, server) = join(proxy, &channel, &channel, "anna");
            (channel, server)
        })
        .collect()
}

/// The HTTP status of an upgrade with this URL.
fn status(proxy: SocketAddr, path: &str) -> u16 {
    let mut client = Client::tcp(proxy);
    client.write(
        format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .as_bytes(),
    );
    let head = client.read_http_head();
    head[9..12].parse().unwrap()
}

#[test]
fn every_room_is_whole_and_on_one_server_of_several() {
    if !has_haproxy() {
        return;
    }
    let (one, two) = (shard("one"), shard("two"));
    let proxy = Proxy::before(&[one.addr, two.addr]);
    let mut used = BTreeMap::new();
    for channel in channels() {
        let (mut anna, server) = join(proxy.addr, &channel, &channel, "anna");
        let (mut ben, same) = join(proxy.addr, &channel, &channel, "ben");
        assert_eq!(server, same);
        assert_eq!(anna.event("endpoint")["endpoint"], "ben");
        ben.ok("broadcast", json!({"text": "hello"}));
        assert_eq!(anna.event("broadcast")["payload"]["text"], "hello");
        *used.entry(server).or_insert(0) += 1;
    }
    // Each has its share; a third of an even one, at the least.
    assert_eq!(used.len(), 2, "{used:?}");
    assert!(used.values().all(|rooms| *rooms >= 8), "{used:?}");

    // However a client escapes it, it is the same channel, and a member of the same room.
    for (channel, spellings) in [
        ("a b", vec!["a%20b", "a+b"]),
        ("会议", vec!["%E4%BC%9A%E8%AE%AE", "%e4%bc%9a%e8%ae%ae"]),
        ("a;b&c=d", vec!["a%3Bb%26c%3Dd", "a%3bb%26c=d"]),
        ("room", vec!["room", "%72oom"]),
    ] {
        let mut first = join(proxy.addr, spellings[0], channel, "anna");
        for (n, spelled) in spellings.iter().enumerate().skip(1) {
            let (_other, server) = join(proxy.addr, spelled, channel, &format!("ben {n}"));
            assert_eq!(server, first.1, "{channel}");
            assert_eq!(first.0.event("endpoint")["stat"], "join", "{channel}");
        }
    }
}

#[test]
fn nobody_comes_to_the_wrong_server() {
    if !has_haproxy() {
        return;
    }
    let (one, two) = (shard("one"), shard("two"));
    let proxy = Proxy::before(&[one.addr, two.addr]);
    // Without a channel there is no right server, and a raw semicolon ends it for HAProxy alone.
    for path in [
        "/ws",
        "/ws?channel=",
        "/ws?x=1",
        "/ws?channel=&channel=a",
        "/ws?channel=a;b",
    ] {
        assert_eq!(status(proxy.addr, path), 400, "{path}");
    }
    assert_eq!(status(proxy.addr, "/metrics?channel=a"), 404);
    assert_eq!(http::get(proxy.addr, "/").status, 404);
    // Who says one thing to the proxy and another to the server gets no further.
    let mut client = Client::connect_to(proxy.addr, "/ws?channel=a");
    let data = json!({"app": "test", "channel": "b", "endpoint": "anna"});
    assert_eq!(client.call("channel.join", data)["err"], 400);
}

#[test]
fn a_room_waits_for_its_server_and_does_not_move_to_another() {
    if !has_haproxy() {
        return;
    }
    let (one, mut two) = (shard("one"), shard("two"));
    let proxy = Proxy::before(&[one.addr, two.addr]);
    let before = placement(proxy.addr);
    let on = |server: &str| before.iter().find(|(_, s)| *s == server).unwrap().0.clone();
    let (here, there) = (on("rtsp://one"), on("rtsp://two"));

    let (mut anna, _) = join(proxy.addr, &here, &here, "anna");
    two.stop();
    assert_eq!(status(proxy.addr, &format!("/ws?channel={there}")), 503);
    // The rooms of the other server notice nothing.
    let (_ben, _) = join(proxy.addr, &here, &here, "ben");
    assert_eq!(anna.event("endpoint")["endpoint"], "ben");

    let _two = shard_at("two", two.addr);
    assert_eq!(placement(proxy.addr), before);
}

#[test]
fn one_server_more_takes_rooms_and_moves_no_other() {
    if !has_haproxy() {
        return;
    }
    let (one, two, three) = (shard("one"), shard("two"), shard("three"));
    let both = Proxy::before(&[one.addr, two.addr]);
    let all = Proxy::before(&[one.addr, two.addr, three.addr]);
    let (before, after) = (placement(both.addr), placement(all.addr));
    let moved: Vec<&String> = channels_of(&after, "rtsp://three");
    assert!(
        !moved.is_empty() && moved.len() < before.len() / 2,
        "{moved:?}"
    );
    for (channel, server) in &after {
        assert!(
            moved.contains(&channel) || *server == before[channel],
            "{channel}"
        );
    }
}

fn channels_of<'a>(placement: &'a BTreeMap<String, String>, server: &str) -> Vec<&'a String> {
    let on = placement.iter().filter(|(_, s)| *s == server);
    on.map(|(channel, _)| channel).collect()
}

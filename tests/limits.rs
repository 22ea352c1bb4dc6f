//! What an operator may limit: connections in all and from one address, origins, rooms, members,
//! and how much one client may say.

mod common;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use common::{http::*, openmetrics::Figures, *};
use serde_json::json;

/// Tries again until the upgrade is granted: the end of another connection may be on its way.
fn upgrade_granted_at_last(addr: SocketAddr) {
    let begun = std::time::Instant::now();
    while upgrade_status(addr, "") != 101 {
        assert!(begun.elapsed() < PATIENCE, "the place is never free again");
    }
}

#[test]
fn over_max_connections_an_upgrade_gets_503_and_a_place_is_free_again_afterwards() {
    // One worker accepts in the order of the connects.
    let server = Server::with(|s| {
        s.server.max_connections = 2;
        s.server.workers = 1;
    });
    let first = server.join("c", "a");
    let silent = Client::tcp(server.addr);
    // The silent one is counted from its accept on, which the next one comes after.
    assert_eq!(upgrade_status(server.addr, ""), 503);
    drop(silent);
    upgrade_granted_at_last(server.addr);
    drop(first);
}

/// Whether the connection is still open; nothing has been sent on it.
fn is_open(client: &Client) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let peeked = client.stream.peek(&mut [0]);
    peeked.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn refused_connections_occupy_no_place() {
    // Each is closed after a second, which the test may need on a slow machine: it tries again.
    let taken_while_they_wait = |per_address: bool| {
        let server = Server::with(|s| {
            s.server.workers = 1;
            s.session.join_timeout = 3 * PATIENCE;
            match per_address {
                true => s.server.max_connections_per_ip = 2,
                false => s.server.max_connections = 2,
            }
        });
        let _anna = server.join("c", "anna");
        let ben = server.join("c", "ben");
        let refused: Vec<Client> = (0..50).map(|_| Client::tcp(server.addr)).collect();
        assert_eq!(upgrade_status(server.addr, ""), 503);
        drop(ben);
        upgrade_granted_at_last(server.addr);
        refused.iter().all(is_open)
    };
    for per_address in [false, true] {
        assert!(
            (0..5).any(|_| taken_while_they_wait(per_address)),
            "the place is free only after the refused connections have gone"
        );
    }
}

#[test]
fn over_max_connections_per_ip_an_upgrade_gets_503() {
    let server = Server::with(|s| s.server.max_connections_per_ip = 1);
    let only = server.connect();
    assert_eq!(upgrade_status(server.addr, ""), 503);
    drop(only);
    upgrade_granted_at_last(server.addr);
}

#[test]
fn behind_a_trusted_proxy_the_forwarded_address_is_counted() {
    let server = Server::with(|s| {
        s.server.max_connections_per_ip = 1;
        s.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let via = |lines: &str| {
        let mut client = Client::tcp(server.addr);
        (upgrade(&mut client, lines) == 101, client)
    };
    let (granted, _one) = via("X-Forwarded-For: 203.0.113.1\r\n");
    assert!(granted);
    let (granted, _other) = via("X-Forwarded-For: 203.0.113.2\r\n");
    assert!(granted, "another client behind the same proxy");
    let (granted, _) = via("X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 203.0.113.1\r\n");
    assert!(
        !granted,
        "the rightmost hop counts, whatever stands before it"
    );
}

#[test]
fn an_ipv6_customer_is_counted_by_its_64_and_junk_ends_the_walk() {
    let server = Server::with(|s| {
        s.server.max_connections_per_ip = 1;
        s.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let via = |hops: &str| {
        let mut client = Client::tcp(server.addr);
        (
            upgrade(&mut client, &format!("X-Forwarded-For: {hops}\r\n")) == 101,
            client,
        )
    };
    let _held: Vec<Client> = [
        ("2001:db8:1:2::1", true),
        ("2001:db8:1:2:ffff::1", false),
        ("2001:db8:1:3::1", true),
        ("192.0.2.1", true),
        ("::ffff:192.0.2.1", false),
        // Junk: the proxy's own address is what is left.
        ("203.0.113.1, junk", true),
        ("203.0.113.2, junk", false),
    ]
    .into_iter()
    .map(|(hops, expected)| {
        let (granted, client) = via(hops);
        assert_eq!(granted, expected, "{hops}");
        client
    })
    .collect();
}

#[test]
fn a_thousand_connections_that_say_nothing_keep_nobody_out_and_are_closed() {
    let server = Server::with(|s| s.session.join_timeout = std::time::Duration::from_secs(2));
    let mut silent: Vec<Client> = (0..1000).map(|_| Client::tcp(server.addr)).collect();
    let mut anna = server.join("c", "anna");
    assert_eq!(anna.names(), ["anna"]);
    for client in &mut silent {
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut client.stream, &mut rest).unwrap();
    }
    assert_eq!(anna.names(), ["anna"]);
}

#[test]
fn who_is_too_many_from_one_address_does_not_use_up_the_others_places() {
    let server = Server::with(|s| {
        s.server.workers = 1;
        s.server.max_connections = 10;
        s.server.max_connections_per_ip = 5;
        s.server.trusted_proxies = vec!["127.0.0.2/32".parse().unwrap()];
    });
    let _silent: Vec<Client> = (0..30).map(|_| Client::tcp(server.addr)).collect();
    assert_eq!(upgrade_status(server.addr, ""), 503);
    let status = {
        // Another address: this machine's second one, which stands for a proxy.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let own: SocketAddr = "127.0.0.2:0".parse().unwrap();
        socket.bind(&own.into()).unwrap();
        socket.connect(&server.addr.into()).unwrap();
        let mut other = Client::tcp(server.addr);
        other.stream = socket.into();
        other.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        upgrade(&mut other, "X-Forwarded-For: 203.0.113.9\r\n")
    };
    assert_eq!(status, 101);
}

#[test]
fn a_page_of_another_origin_gets_403_and_an_app_without_one_is_let_in() {
    let server =
        Server::with(|s| s.server.allowed_origins = vec!["https://meet.example.org".into()]);
    let status = |headers| upgrade_status(server.addr, headers);
    assert_eq!(status(""), 101);
    assert_eq!(status("Origin: https://meet.example.org\r\n"), 101);
    assert_eq!(status("Origin: https://evil.example\r\n"), 403);
    assert_eq!(status("Origin: null\r\n"), 403);
}

#[test]
fn a_half_sent_upgrade_is_closed_at_join_timeout() {
    let server = Server::with(|s| s.session.join_timeout = std::time::Duration::from_millis(300));
    let mut client = Client::tcp(server.addr);
    client.write(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgr");
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut client.stream, &mut rest).unwrap();
}

#[test]
fn a_client_that_sends_requests_and_reads_no_response_is_cut_at_join_timeout() {
    let server = Server::with(|s| s.session.join_timeout = std::time::Duration::from_millis(300));
    let mut client = Client::tcp(server.addr);
    let begun = std::time::Instant::now();
    let requests = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    while std::io::Write::write_all(&mut client.stream, &requests).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "it is never cut");
    }
}

#[test]
fn over_max_rooms_a_join_that_would_open_one_gets_503() {
    let server = Server::with(|s| {
        s.rooms.max_rooms = 1;
        s.rooms.resume_window = Duration::ZERO;
    });
    let mut anna = server.join("c", "anna");
    let mut ben = server.connect();
    let join = |channel: &str| json!({"app": "test", "channel": channel, "endpoint": "ben"});
    assert_eq!(ben.call("channel.join", join("d"))["err"], 503);
    ben.join_with(join("c"));
    anna.event("endpoint");
    ben.ok("channel.leave", json!({}));
    drop(anna);
    // Its end may be on its way.
    let begun = std::time::Instant::now();
    ben.session.clear();
    while ben.call("channel.join", join("d"))["err"] == 503 {
        assert!(begun.elapsed() < PATIENCE, "the room is never gone");
    }
}

#[test]
fn over_max_members_a_join_gets_503_but_a_replacement_never_does() {
    let server = Server::with(|s| s.rooms.max_members = 2);
    let mut anna = server.join("c", "anna");
    let mut ben = server.join("c", "ben");
    anna.event("endpoint");
    let mut carl = server.connect();
    let join = |endpoint: &str| json!({"app": "test", "channel": "c", "endpoint": endpoint});
    assert_eq!(carl.call("channel.join", join("carl"))["err"], 503);
    assert_eq!(anna.names(), ["anna", "ben"], "nothing has changed");
    carl.join_with(join("ben"));
    assert_eq!(ben.error_event(), "endpoint_replaced");
    assert_eq!(ben.closed(), 4001);
}

#[test]
fn over_the_rate_limit_every_request_is_answered_429_and_in_the_end_1008() {
    let server = Server::with(|s| {
        s.session.rate_limit = 1;
        s.session.rate_burst = 5;
    });
    let mut client = server.join("c", "a");
    let asked: Vec<i64> = (0..20)
        .map(|_| client.ask("channel.dump", json!({})))
        .collect();
    let mut answers = Vec::new();
    let closing = loop {
        let message = client.next();
        match message.get("err") {
            Some(err) => answers.push((message["cseq"].as_i64().unwrap(), err.as_i64().unwrap())),
            None => break message,
        }
    };
    assert_eq!(closing["data"]["type"], "rate_limited");
    assert_eq!(client.closed(), 1008);
    let granted = answers.iter().filter(|(_, err)| *err == 0).count();
    let refused = answers.iter().filter(|(_, err)| *err == 429).count();
    assert!((4..=5).contains(&granted), "{answers:?}");
    assert_eq!(refused, 5, "{answers:?}");
    answers.sort_unstable();
    let numbers: Vec<i64> = answers.iter().map(|(cseq, _)| *cseq).collect();
    assert_eq!(numbers, asked[..numbers.len()], "one answer each");
}

/// Joins and gives the connection up, again and again, in a room of its own each time, until a join
/// is refused; the sessions that were granted, and the answer.
fn lose_members(server: &Server) -> (Vec<String>, serde_json::Value) {
    let mut sessions = Vec::new();
    for n in 0..100 {
        let mut client = server.connect();
        let name = n.to_string();
        let data = json!({"app": "test", "channel": name, "endpoint": name});
        let answer = client.call("channel.join", data);
        if answer["err"] != 0 {
            return (sessions, answer);
        }
        sessions.push(answer["data"]["session"].as_str().unwrap().to_owned());
        client.close(4900);
        assert_eq!(client.closed(), 4900);
    }
    panic!("a hundred members were granted");
}

#[test]
fn detached_members_count_for_max_connections_per_ip() {
    let server = Server::with(|s| s.server.max_connections_per_ip = 5);
    let (sessions, refused) = lose_members(&server);
    assert_eq!((sessions.len(), &refused["err"]), (5, &json!(503)));

    // A resume and a replacement need no further place.
    let mut back = server.connect();
    back.session.clone_from(&sessions[0]);
    let again = |n: &str| json!({"app": "test", "channel": n, "endpoint": n});
    assert_eq!(back.ok("channel.join", again("0"))["resumed"], true);
    let mut instead = server.connect();
    assert_eq!(instead.ok("channel.join", again("1"))["resumed"], false);
    // Members that leave give their places back.
    back.session.clone_from(&sessions[0]);
    back.ok("channel.leave", json!({}));
    drop(back);
    let mut newcomer = server.connect();
    newcomer.session.clone_from(&sessions[2]);
    newcomer.join_with(again("2"));
}

#[test]
fn detached_members_count_for_max_connections() {
    let server = Server::with(|s| s.server.max_connections = 7);
    let (sessions, refused) = lose_members(&server);
    assert_eq!((sessions.len(), &refused["err"]), (7, &json!(503)));
}

#[test]
fn expired_members_count_no_longer() {
    let server = Server::with(|s| {
        s.server.max_connections_per_ip = 3;
        s.rooms.resume_window = Duration::from_millis(500);
    });
    assert_eq!(lose_members(&server).0.len(), 3);
    let begun = Instant::now();
    loop {
        let mut client = server.connect();
        let data = json!({"app": "test", "channel": "room", "endpoint": "anna"});
        if client.call("channel.join", data)["err"] == 0 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "they count on");
    }
}

/// Joins as anna over a new connection; `session` is "" where nothing is to be resumed.
fn rejoin(server: &Server, session: &str) -> Client {
    let mut client = server.connect();
    client.session = session.to_owned();
    let data = json!({"app": "test", "channel": "room", "endpoint": "anna"});
    client.session = client.ok("channel.join", data)["session"]
        .as_str()
        .unwrap()
        .to_owned();
    client
}

/// How many of so many broadcasts are granted.
fn granted(client: &mut Client, broadcasts: usize) -> usize {
    let answer = |_| client.call("broadcast", json!({}))["err"] == 0;
    (0..broadcasts)
        .map(answer)
        .filter(|granted| *granted)
        .count()
}

#[test]
fn a_new_connection_of_a_member_brings_no_new_allowance() {
    const BURST: u32 = 60;
    type ComeBack = fn(&Server, Client) -> Client;
    let ways: [(&str, ComeBack); 5] = [
        ("a resume after a loss", |server, anna| {
            let session = anna.session.clone();
            anna.reset();
            rejoin(server, &session)
        }),
        ("a resume after 4900", |server, mut anna| {
            anna.close(4900);
            assert_eq!(anna.closed(), 4900);
            rejoin(server, &anna.session)
        }),
        ("a takeover", |server, mut anna| {
            let newer = rejoin(server, &anna.session);
            assert_eq!(anna.error_event(), "endpoint_replaced");
            newer
        }),
        ("a replacement", |server, mut anna| {
            let newer = rejoin(server, "");
            assert_eq!(anna.error_event(), "endpoint_replaced");
            newer
        }),
        ("other rooms", |_, mut anna| {
            // Some of them on the other thread.
            for room in ["1", "2", "3", "4", "5"] {
                anna.ok("channel.leave", json!({}));
                anna.join(room, "anna");
            }
            anna
        }),
    ];
    for (way, come_back) in ways {
        let server = Server::with(|settings| {
            // Next to nothing comes back while the test runs.
            settings.session.rate_limit = 1;
            settings.session.rate_burst = BURST;
        });
        let mut anna = server.join("room", "anna");
        let mut count = granted(&mut anna, 40);
        assert_eq!(count, 40, "{way}");
        anna = come_back(&server, anna);
        count += granted(&mut anna, 40);
        assert!(count <= BURST as usize + 5, "{way}: {count} were granted");
        assert!(count > 40, "{way}: what was left of the allowance is gone");
    }
}

#[test]
fn the_rate_limit_comes_before_every_other_check() {
    let server = Server::with(|s| {
        s.session.rate_limit = 1;
        s.session.rate_burst = 2;
    });
    let mut client = server.connect();
    client.text("{\"cseq\":1}");
    client.text("{\"cseq\":2}");
    client.text("{\"cseq\":3,\"version\":7,\"method\":\"nonsense\"}");
    assert_eq!(client.next()["err"], 400);
    assert_eq!(client.next()["err"], 400);
    let answer = client.next();
    assert_eq!((&answer["cseq"], &answer["err"]), (&json!(3), &json!(429)));
}

#[test]
fn a_refused_fragment_refuses_its_message_and_a_refused_ping_gets_no_pong() {
    let server = Server::with(|s| {
        s.session.rate_limit = 1;
        s.session.rate_burst = 3;
    });
    let mut client = server.connect();
    client.frame(false, 1, b"{\"cseq\"");
    client.frame(false, 0, b":9,");
    client.frame(false, 0, b"\"method\":");
    client.frame(true, 0, b"\"channel.dump\"}");
    client.frame(true, 9, b"ping");
    let answer = client.next();
    assert_eq!((&answer["cseq"], &answer["err"]), (&json!(9), &json!(429)));
    // The last fragment and the ping are two of the three refusals that end it.
    client.frame(true, 9, b"ping");
    assert_eq!(client.error_event(), "rate_limited");
    assert_eq!(client.closed(), 1008);
}

#[test]
fn bytes_are_limited_too_and_the_longest_message_fits() {
    let server = Server::with(|s| {
        s.session.rate_limit = 1000;
        s.session.rate_burst = 1000;
        s.session.rate_bytes = 1000;
        s.session.max_message_bytes = 5000;
    });
    let mut client = server.connect();
    let message = |cseq: u64| format!("{{\"cseq\":{cseq},\"pad\":\"{}\"}}", "x".repeat(4000));
    client.text(&message(1));
    client.text(&message(2));
    assert_eq!(client.next()["err"], 400);
    assert_eq!(client.next()["err"], 429);
}

#[test]
fn a_limit_of_messages_is_none_of_control_frames() {
    let server = Server::with(|s| s.session.max_message_bytes = 10);
    let mut client = server.connect();
    let longest = vec![b'x'; 125];
    client.frame(true, 9, &longest);
    assert_eq!(client.receive(), Received::Pong(longest.clone()));
    client.frame(true, 10, &longest);
    client.text("nonsense");
    assert_eq!(client.error_event(), "bad_message");
    let farewell = [&1000_u16.to_be_bytes()[..], &[b'x'; 123]].concat();
    client.frame(true, 8, &farewell);
    assert_eq!(client.closed(), 1000);
}

#[test]
fn of_requests_in_a_row_the_first_is_answered_and_no_other() {
    let server = Server::start();
    let upgrade = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for next in ["GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", upgrade] {
        let mut client = Client::tcp(server.addr);
        client.write(
            format!(
                "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n{}",
                next.repeat(50)
            )
            .as_bytes(),
        );
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut client.stream, &mut answer).unwrap();
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    // Frames behind an upgrade are no requests.
    let mut client = Client::tcp(server.addr);
    let join = json!({"method": "channel.join", "data": {"app": "a", "channel": "c"}});
    let mut bytes = upgrade.as_bytes().to_vec();
    bytes.extend(frame(true, 1, join.to_string().as_bytes()));
    client.write(&bytes);
    assert!(client.read_http_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.next()["err"], 0);
}

#[test]
fn who_finds_no_place_and_says_nothing_is_soon_gone() {
    let server = Server::with(|settings| {
        settings.server.max_connections_per_ip = 1;
        settings.session.join_timeout = 3 * PATIENCE;
    });
    let mut anna = server.join("room", "anna");
    let silent: Vec<Client> = (0..100).map(|_| Client::tcp(server.addr)).collect();
    for mut silent in silent {
        std::io::Read::read_to_end(&mut silent.stream, &mut Vec::new()).unwrap();
    }
    assert_eq!(anna.names(), ["anna"]);
}

#[test]
fn new_connections_of_an_address_are_limited_by_a_bucket() {
    let server = Server::with(|s| {
        s.server.connect_rate_per_ip = 1;
        s.server.connect_burst_per_ip = 10;
        s.server.ops_bind = Some("127.0.0.1:0".parse().unwrap());
    });
    let begun = std::time::Instant::now();
    let mut anna = server.join("c", "anna");
    let is_answered = || {
        let mut client = Client::tcp(server.addr);
        // A refused one may have been closed by now.
        let _ = std::io::Write::write_all(
            &mut client.stream,
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        );
        let mut answer = Vec::new();
        let _ = std::io::Read::read_to_end(&mut client.stream, &mut answer);
        answer.starts_with(b"HTTP/1.1 200 ")
    };
    let answered = (0..50).filter(|_| is_answered()).count();
    let gained = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    assert!((9..=9 + gained).contains(&answered), "{answered}");
    let refused = (50 - answered) as f64;
    Figures::when(server.ops, |f| {
        f.get("meeting_server_refusals_total{reason=\"connect_rate\"}") == Some(refused)
    });
    assert_eq!(anna.names(), ["anna"]);
}

#[test]
fn behind_a_trusted_proxy_the_client_has_the_bucket() {
    let server = Server::with(|s| {
        s.server.connect_rate_per_ip = 1;
        s.server.connect_burst_per_ip = 3;
        s.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let via = |client: &str| {
        let line = format!("X-Forwarded-For: {client}\r\n");
        upgrade_status(server.addr, &line)
    };
    let statuses: Vec<u16> = (0..20).map(|_| via("203.0.113.1")).collect();
    assert_eq!(statuses[..3], [101; 3]);
    assert!(statuses.iter().filter(|status| **status == 429).count() >= 10);
    // A /64 is one client, and each client has a bucket of its own.
    for host in 0..3 {
        assert_eq!(via(&format!("2001:db8:1:2::{host}")), 101);
    }
    assert_eq!(via("2001:db8:1:2:ffff::1"), 429);
    assert_eq!(via("203.0.113.2"), 101);
}

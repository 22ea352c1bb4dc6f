//! The flusher and the ticker, turned by hand.

use std::io::Read;

use super::*;
use crate::{
    admission::Admission,
    auth::Authorized,
    crowd::PATIENCE,
    grants::Grants,
    handover::{Baggage, Handover, PendingJoin},
    handshake::{Handshake, UpgradeToken},
    ids::{App, Channel, RoomName},
    outbox::Unsent,
    protocol::{cseq::Cseq, reply::ReplyTo, request::JoinRequest},
    socket::Socket,
};

/// A client among `clients`, and the other end of its socket.
async fn connected(clients: &Clients, first_ping: Millis) -> (Rc<Client>, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let near = listener.accept().unwrap().0;
    near.set_nonblocking(true).unwrap();
    let near = tokio::net::TcpStream::from_std(near).unwrap();
    let door = Admission::new(&Settings::defaults());
    let counted = door.accept(None);
    let handshake = Handshake {
        client: None,
        channels: [None, None],
        device: None,
        token: UpgradeToken::new(None),
        settings: Arc::new(Settings::defaults()),
        admitted: door.upgrade(&counted, None, None).unwrap(),
    };
    let baggage = Baggage {
        handshake: Arc::new(handshake),
        unsent: Unsent::default(),
        rate: None,
        outside_for: 0,
        blocked_for: None,
    };
    let client = Client::new(Socket::Plain(near), baggage, clients.now(), first_ping);
    (clients.insert(client), far)
}

fn word(text: &str) -> Frame {
    Frame::Own(text.into())
}

#[tokio::test]
async fn what_may_wait_goes_when_its_time_is_over_and_not_before() {
    let clients = Clients::new(&Settings::defaults(), Arc::default());
    let (client, mut far) = connected(&clients, 3_600_000).await;
    // The second time is as the first.
    for text in ["a", "b"] {
        let begun = clients.now();
        clients.push_with(&client, word(text), Urgency::Coalesced);
        clients.push_with(&client, word(text), Urgency::Coalesced);
        assert!(!clients.flush_some());
        while !client.is_flushed() {
            assert!(clients.now() <= begun + PATIENCE, "its time is over");
            clients.tick(Duration::ZERO);
            clients.flush_some();
        }
        assert!(clients.now() >= begun + PATIENCE);
    }
    let mut read = [0; 4];
    far.read_exact(&mut read).unwrap();
    assert_eq!(read, *b"aabb");
}

#[tokio::test]
async fn what_may_wait_goes_at_the_end_of_the_turn_where_much_waits_already() {
    let mut settings = Settings::defaults();
    settings.session.send_queue = 8;
    let clients = Clients::new(&settings, Arc::default());
    let (client, mut far) = connected(&clients, 3_600_000).await;
    for text in ["a", "b", "c"] {
        clients.push_with(&client, word(text), Urgency::Coalesced);
        clients.flush_some();
        assert!(!client.is_flushed());
    }
    clients.push_with(&client, word("d"), Urgency::Coalesced);
    clients.flush_some();
    assert!(client.is_flushed());
    let mut read = [0; 4];
    far.read_exact(&mut read).unwrap();
    assert_eq!(read, *b"abcd");
}

#[test]
fn a_crowd_ends_with_the_ticks() {
    let clients = Clients::new(&Settings::defaults(), Arc::default());
    while !clients.crowd().grows() {}
    clients.tick(Duration::ZERO);
    assert!(clients.crowd().grows());
    clients.tick(Duration::ZERO);
    assert!(!clients.crowd().grows());
}

#[tokio::test]
async fn what_may_wait_goes_with_what_may_not_and_in_its_order() {
    let clients = Clients::new(&Settings::defaults(), Arc::default());
    let (client, mut far) = connected(&clients, 3_600_000).await;
    clients.push_with(&client, word("a"), Urgency::Coalesced);
    clients.push_to(client.id(), word("b"));
    clients.push_with(&client, word("c"), Urgency::Coalesced);
    assert!(!clients.flush_some());
    assert!(client.is_flushed());
    let mut read = [0; 3];
    far.read_exact(&mut read).unwrap();
    assert_eq!(read, *b"abc");
}

const PING: [u8; 2] = [0x89, 0];

/// Clients that are pinged each hour.
fn rarely_pinged() -> Clients {
    let mut settings = Settings::defaults();
    settings.session.ping_interval = Duration::from_secs(3600);
    Clients::new(&settings, Arc::default())
}

/// What a client is sent whose first ping is due then, with two words that are not sent in one turn.
async fn sent_with_first_ping(first_ping: Millis) -> Vec<u8> {
    let clients = rarely_pinged();
    let (client, mut far) = connected(&clients, first_ping).await;
    clients.tick(Duration::ZERO);
    clients.flush_some();
    for text in ["a", "b"] {
        clients.push_to(client.id(), word(text));
        clients.flush_some();
    }
    drop((client, clients));
    let mut read = Vec::new();
    far.read_to_end(&mut read).unwrap();
    read
}

#[tokio::test]
async fn a_ping_that_is_nearly_due_goes_with_what_is_written_and_only_once() {
    assert_eq!(sent_with_first_ping(300_000).await, b"a\x89\x00b");
}

#[tokio::test]
async fn a_ping_that_is_far_from_due_goes_with_nothing() {
    assert_eq!(sent_with_first_ping(600_000).await, b"ab");
}

#[tokio::test]
async fn a_ping_that_is_due_goes_alone() {
    let clients = rarely_pinged();
    let (client, mut far) = connected(&clients, 0).await;
    clients.tick(Duration::ZERO);
    clients.flush_some();
    assert!(client.is_flushed());
    let mut read = [0; 2];
    far.read_exact(&mut read).unwrap();
    assert_eq!(read, PING);
}

#[tokio::test]
async fn a_client_whose_socket_is_full_is_pinged_when_it_is_no_longer() {
    let clients = rarely_pinged();
    let (client, mut far) = connected(&clients, 0).await;
    let queued = || client.tally().figures().messages_out;
    let long = "a".repeat(16 * 1024 * 1024);
    clients.push_to(client.id(), word(&long));
    client.flush(clients.shared());
    assert!(client.is_stuck());
    for _ in 0..2 {
        clients.tick(Duration::ZERO);
        clients.flush_some();
        assert_eq!(queued(), 1);
    }
    let reader = std::thread::spawn(move || {
        let mut read = vec![0; long.len()];
        far.read_exact(&mut read).unwrap();
        far
    });
    while client.is_stuck() {
        client.flush(clients.shared());
    }
    let mut far = reader.join().unwrap();
    clients.tick(Duration::ZERO);
    clients.flush_some();
    assert_eq!(queued(), 2);
    let mut read = [0; 2];
    far.read_exact(&mut read).unwrap();
    assert_eq!(read, PING);
}

#[tokio::test]
async fn no_ping_follows_a_close_frame() {
    let clients = rarely_pinged();
    let (client, mut far) = connected(&clients, 300_000).await;
    clients.tick(Duration::ZERO);
    client.echo_close(Ending::Closed, frame::close_empty(), clients.shared());
    clients.mark(&client, Urgency::Prompt);
    clients.flush_some();
    drop((client, clients));
    let mut read = Vec::new();
    far.read_to_end(&mut read).unwrap();
    assert_eq!(read, frame::close_empty());
}

#[test]
fn first_pings_are_spread_evenly_over_the_interval() {
    let clients = Clients::new(&Settings::defaults(), Arc::default());
    let interval = clients.shared.deadlines.ping_interval;
    let mut tenths = [0; 10];
    for _ in 0..1000 {
        let first = clients.first_ping();
        assert!(first < interval);
        tenths[(first * 10 / interval) as usize] += 1;
    }
    assert!(tenths.iter().all(|n| (95..=105).contains(n)), "{tenths:?}");
}

#[tokio::test]
async fn a_client_that_the_server_does_not_read_is_not_idle() {
    let mut settings = Settings::defaults();
    settings.session.ping_interval = Duration::from_millis(20);
    settings.session.idle_timeout = Duration::from_millis(40);
    settings.session.join_timeout = Duration::from_secs(60);
    let clients = Clients::new(&settings, Arc::default());
    let (client, _far) = connected(&clients, 3_600_000).await;
    client.hand_over(Handover {
        worker: 0,
        pending: PendingJoin {
            join: Authorized {
                request: JoinRequest {
                    room: RoomName {
                        app: App::new("a").unwrap(),
                        channel: Channel::new("c").unwrap(),
                    },
                    endpoint: None,
                    role: None,
                    device: None,
                    token: None,
                    last_event: None,
                    session: None,
                },
                grants: Grants::ALL,
                issued_at: None,
                has_expired: false,
            },
            reply_to: ReplyTo {
                method: None,
                cseq: Cseq::default(),
                session: None,
            },
        },
    });
    let tick_until = |end: Millis| {
        while clients.now() < end && client.phase() == Phase::Open {
            clients.tick(Duration::ZERO);
            std::thread::yield_now();
        }
    };
    let begun = clients.now();
    tick_until(begun + 200);
    assert_eq!(client.phase(), Phase::Open, "its move waits");
    // From now on it is read, and says nothing.
    assert!(client.take_handover().is_some());
    tick_until(begun + 2_000);
    assert_eq!(client.ending(), Ending::Idle);
}

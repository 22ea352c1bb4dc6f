//! Who may come in: how many connections there are, in all and from one address, which origins may
//! connect, and how many rooms there may be.
//!
//! A connection is counted from the moment it is accepted, or those who connect and say nothing
//! would escape the limits.

mod connect_rate;
mod limits;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use thiserror::Error;

use self::limits::Limits;
use crate::settings::Settings;

/// Why an upgrade is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// Over `max_connections`.
    #[error("the server is full; try again later")]
    Full,
    /// Over `max_connections_per_ip`.
    #[error("too many connections from this address")]
    FullForAddress,
    /// Over `connect_rate_per_ip`.
    #[error("too many new connections from this address; slow down")]
    ConnectRate,
    /// An `Origin` that is not among `allowed_origins`.
    #[error("pages of this origin may not connect")]
    Origin,
}

/// The door of a server, shared by its threads. It is asked at a connect, an upgrade and an end,
/// never on the way of a message.
#[derive(Debug)]
pub struct Admission {
    limits: ArcSwap<Limits>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    upgraded: AtomicUsize,
    rooms: AtomicUsize,
    /// Detached members. They have no connection, and a place all the same.
    detached: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, AddressCount>>,
}

/// What one address has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct AddressCount {
    connections: usize,
    detached: usize,
}

impl Counts {
    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, AddressCount>> {
        // Each change is one step, so the map is whole at every moment.
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// One of what `of` names, of this address, is no more.
    fn give_back(&self, address: IpAddr, of: impl Fn(&mut AddressCount) -> &mut usize) {
        let mut by_address = self.by_address();
        if let Some(count) = by_address.get_mut(&address) {
            *of(count) -= 1;
            if *count == AddressCount::default() {
                by_address.remove(&address);
            }
        }
    }
}

impl Admission {
    /// The door that the settings describe.
    pub fn new(settings: &Settings) -> Self {
        Self {
            limits: ArcSwap::from_pointee(Limits::new(settings)),
            counts: Arc::default(),
        }
    }

    /// Replaces the limits. A connection, member or room over a new limit stays; a further one is
    /// refused. To be called by one thread at a time.
    pub fn set_limits(&self, settings: &Settings) {
        let limits = Limits::after(&self.limits.load(), settings);
        self.limits.store(Arc::new(limits));
    }

    /// Whether `peer` may open one more connection now, by `connect_rate_per_ip`. A trusted proxy
    /// always may: its clients' addresses are known only at the upgrade, and checked there.
    pub fn admits_connect(&self, peer: Option<IpAddr>) -> bool {
        let limits = self.limits.load();
        peer.is_none_or(|peer| limits.is_trusted(peer) || limits.is_within_rate(peer))
    }

    /// Takes a place for a connection from `peer` that has been accepted, if there is one. Behind a
    /// trusted proxy the client's own address is known only at the upgrade.
    pub fn accept(&self, peer: Option<IpAddr>) -> Counted {
        let limits = self.limits.load();
        let address = peer.filter(|peer| !limits.is_trusted(*peer));
        Counted {
            place: Mutex::new(self.take_place(address, &limits).ok()),
            address,
        }
    }

    /// An accepted connection asks for an upgrade, for `client`. A connection that found no place
    /// when it was accepted gets one here if one has become free.
    ///
    /// # Errors
    /// [`Refused`]; over a limit, the connection has no place any more.
    pub fn upgrade(
        &self,
        counted: &Counted,
        client: Option<IpAddr>,
        origin: Option<&[u8]>,
    ) -> Result<Admitted, Refused> {
        let limits = self.limits.load();
        limits.check_origin(origin)?;
        let place = counted.lock().take();
        let late = client.filter(|_| counted.address.is_none());
        if late.is_some_and(|client| !limits.is_within_rate(client)) {
            return Err(Refused::ConnectRate);
        }
        let mut place = match place {
            Some(place) => place,
            None => self.take_place(counted.address, &limits)?,
        };
        if let Some(client) = late {
            place.address = Some(self.take_address(client, &limits)?);
        }
        self.counts.upgraded.fetch_add(1, Ordering::Relaxed);
        Ok(Admitted {
            counts: self.counts.clone(),
            _place: place,
        })
    }

    /// Takes one place of `address`, where that is known, and one of the server's. A refused
    /// connection takes none: clients that retry would otherwise keep the places occupied that
    /// others have left.
    fn take_place(&self, address: Option<IpAddr>, limits: &Limits) -> Result<Place, Refused> {
        // The address comes first: a client over its own limit must not use up the server's.
        let address = address
            .map(|address| self.take_address(address, limits))
            .transpose()?;
        let below = |count| (count < limits.max_connections).then_some(count + 1);
        self.counts
            .connections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, below)
            .map_err(|_| Refused::Full)?;
        Ok(Place {
            address,
            _connection: ConnectionPermit(self.counts.clone()),
        })
    }

    fn take_address(&self, address: IpAddr, limits: &Limits) -> Result<CountedAddress, Refused> {
        let address = household(address);
        let mut by_address = self.counts.by_address();
        let count = by_address.entry(address).or_default();
        // A count of 0 stands for a new entry, and a limit is 1 at least: none is left behind.
        if limits.max_per_address > 0 && count.connections >= limits.max_per_address {
            return Err(Refused::FullForAddress);
        }
        count.connections += 1;
        drop(by_address);
        Ok(CountedAddress {
            address,
            counts: self.counts.clone(),
        })
    }

    /// Whether a member may begin on a connection of `client`, which has a place: detached members
    /// count as well. Otherwise one connection at a time, lost again and again, would fill the rooms
    /// with members that count towards no limit. The limit is not applied to the upgrade, since a
    /// client that comes back to its session must get that far.
    ///
    /// # Errors
    /// [`Refused::Full`] and [`Refused::FullForAddress`].
    pub fn check_new_member(&self, client: Option<IpAddr>) -> Result<(), Refused> {
        let detached = self.counts.detached.load(Ordering::Relaxed);
        if detached == 0 {
            return Ok(());
        }
        let limits = self.limits.load();
        if self.connections() + detached > limits.max_connections {
            return Err(Refused::Full);
        }
        let Some(address) = client.map(household).filter(|_| limits.max_per_address > 0) else {
            return Ok(());
        };
        let by_address = self.counts.by_address();
        let count = by_address.get(&address).copied().unwrap_or_default();
        if count.connections + count.detached > limits.max_per_address {
            return Err(Refused::FullForAddress);
        }
        Ok(())
    }

    /// Counts a member of `client` that has lost its connection.
    pub fn detach(&self, client: Option<IpAddr>) -> DetachedPermit {
        self.counts.detached.fetch_add(1, Ordering::Relaxed);
        let address = client.map(household);
        if let Some(address) = address {
            let mut by_address = self.counts.by_address();
            by_address.entry(address).or_default().detached += 1;
        }
        DetachedPermit {
            address,
            counts: self.counts.clone(),
        }
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Counts a room that is to be opened; `None` where there are `max_rooms` already.
    pub fn open_room(&self) -> Option<CountedRoom> {
        let max_rooms = self.limits.load().max_rooms;
        let within = |rooms| (max_rooms == 0 || rooms < max_rooms).then_some(rooms + 1);
        self.counts
            .rooms
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
            .ok()
            .map(|_| CountedRoom(self.counts.clone()))
    }

    /// How many of them have upgraded.
    pub fn upgraded(&self) -> usize {
        self.counts.upgraded.load(Ordering::Relaxed)
    }

    /// How many rooms there are.
    pub fn rooms(&self) -> usize {
        self.counts.rooms.load(Ordering::Relaxed)
    }

    /// The client's address: the peer's own, or, where that is a trusted proxy, the rightmost hop
    /// of its `X-Forwarded-For` lines that is none. What is no address ends the walk at the hop
    /// before it: nobody vouches for what stands further left.
    pub fn client_address<'a>(
        &self,
        peer: IpAddr,
        forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
    ) -> IpAddr {
        let limits = self.limits.load();
        let mut client = peer;
        let hops = forwarded_for
            .rev()
            .flat_map(|line| line.rsplit(|byte| *byte == b','));
        for hop in hops {
            if !limits.is_trusted(client) {
                break;
            }
            match std::str::from_utf8(hop).ok().and_then(parse_hop) {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }
}

/// A hop as proxies write it: an address, some with a port behind it.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(with_port) = text.parse::<std::net::SocketAddr>() {
        return Some(with_port.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// What is counted as one address: an IPv6 customer has a /64, and an IPv4 address that arrives
/// on an IPv6 socket is still one.
pub fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 => v4,
    }
}

/// A connection that has upgraded, counted as such for as long as this lives.
#[derive(Debug)]
pub struct Admitted {
    counts: Arc<Counts>,
    _place: Place,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.counts.upgraded.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A room that is counted for as long as this lives.
#[derive(Debug)]
pub struct CountedRoom(Arc<Counts>);

impl Drop for CountedRoom {
    fn drop(&mut self) {
        self.0.rooms.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An accepted connection. Its place is given back when this is dropped, or moves to [`Admitted`]
/// at the upgrade.
#[derive(Debug)]
pub struct Counted {
    place: Mutex<Option<Place>>,
    /// Its client's address; `None` where only the upgrade request names it.
    address: Option<IpAddr>,
}

impl Counted {
    /// Whether it holds a place.
    pub fn has_place(&self) -> bool {
        self.lock().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection takes of the limits, given back when this is dropped.
#[derive(Debug)]
struct Place {
    address: Option<CountedAddress>,
    _connection: ConnectionPermit,
}

/// One of `max_connections`, given back when this is dropped.
#[derive(Debug)]
struct ConnectionPermit(Arc<Counts>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An address that is counted once more for as long as this lives.
#[derive(Debug)]
struct CountedAddress {
    address: IpAddr,
    counts: Arc<Counts>,
}

impl Drop for CountedAddress {
    fn drop(&mut self) {
        self.counts
            .give_back(self.address, |count| &mut count.connections);
    }
}

/// A detached member that is counted for as long as this lives.
#[derive(Debug)]
pub struct DetachedPermit {
    address: Option<IpAddr>,
    counts: Arc<Counts>,
}

impl Drop for DetachedPermit {
    fn drop(&mut self) {
        self.counts.detached.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address {
            self.counts.give_back(address, |count| &mut count.detached);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{self, Settings};

    fn admission(change: impl FnOnce(&mut settings::Server)) -> Admission {
        let mut settings = Settings::defaults();
        change(&mut settings.server);
        Admission::new(&settings)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(admission: &Admission, peer: &str, lines: &[&str]) -> String {
        admission
            .client_address(ip(peer), lines.iter().map(|line| line.as_bytes()))
            .to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_hop_that_is_no_proxy() {
        let behind = admission(|s| {
            s.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        });
        for (peer, lines, expected) in [
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.7, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.7", "203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, 10.2.3.4"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9", "10.2.3.4"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, junk, 10.2.3.4"], "10.2.3.4"),
            ("10.0.0.1", &["203.0.113.9,"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("::ffff:10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("fd00::1", &["10.9.9.9"], "10.9.9.9"),
        ] {
            assert_eq!(client(&behind, peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn addresses_are_counted_by_household() {
        assert_eq!(household(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
        assert_eq!(household(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
        assert_ne!(household(ip("2001:db8:1:3::1")), ip("2001:db8:1:2::"));
    }

    #[test]
    fn counts_go_back_to_zero() {
        let admission = admission(|s| s.max_connections_per_ip = 1);
        let home = Some(ip("192.0.2.1"));
        let first = admission.accept(home);
        let upgraded = admission.upgrade(&first, home, None);
        assert!(upgraded.is_ok());
        let second = admission.accept(home);
        assert_eq!(
            admission.upgrade(&second, home, None).unwrap_err(),
            Refused::FullForAddress
        );
        assert_eq!(admission.connections(), 1, "a refused one is not counted");
        drop((upgraded, second));
        let third = admission.accept(home);
        assert!(admission.upgrade(&third, home, None).is_ok());
        drop(third);
        assert_eq!(admission.connections(), 0);
        assert!(admission.counts.by_address().is_empty());
    }

    #[test]
    fn new_limits_count_what_is_there() {
        let mut settings = Settings::defaults();
        settings.server.max_connections = 1;
        let admission = Admission::new(&settings);
        let home = Some(ip("192.0.2.1"));
        let first = admission.accept(home);
        assert!(!admission.accept(home).has_place());
        settings.server.max_connections = 3;
        admission.set_limits(&settings);
        let second = admission.accept(home);
        assert!(second.has_place());
        settings.server.max_connections_per_ip = 2;
        admission.set_limits(&settings);
        assert!(!admission.accept(home).has_place(), "two are there");
        settings.server.max_connections = 1;
        admission.set_limits(&settings);
        assert!(first.has_place() && second.has_place(), "both stay");
        drop(second);
        assert!(!admission.accept(None).has_place());
        drop(first);
        assert!(admission.accept(None).has_place());
    }

    #[test]
    fn a_connect_rate_that_is_not_changed_keeps_its_count() {
        let mut settings = Settings::defaults();
        settings.server.connect_rate_per_ip = 1;
        settings.server.connect_burst_per_ip = 1;
        let admission = Admission::new(&settings);
        let home = Some(ip("192.0.2.1"));
        assert!(admission.admits_connect(home));
        settings.server.max_connections = 3;
        admission.set_limits(&settings);
        assert!(!admission.admits_connect(home));
        settings.server.connect_burst_per_ip = 2;
        admission.set_limits(&settings);
        assert!(admission.admits_connect(home), "a new rate begins at 0");
        settings.server.connect_rate_per_ip = 0;
        admission.set_limits(&settings);
        assert!((0..100).all(|_| admission.admits_connect(home)));
    }

    #[test]
    fn detached_members_count_for_new_members_alone() {
        let admission = admission(|s| {
            s.max_connections = 3;
            s.max_connections_per_ip = 2;
        });
        let [home, elsewhere] = ["192.0.2.1", "192.0.2.2"].map(|text| Some(ip(text)));
        let first = admission.accept(home);
        assert_eq!(admission.check_new_member(home), Ok(()));
        let detached = [admission.detach(home), admission.detach(home)];
        assert!(admission.accept(home).has_place(), "it may come to resume");
        let over = Err(Refused::FullForAddress);
        assert_eq!(admission.check_new_member(home), over);
        assert_eq!(admission.check_new_member(elsewhere), Ok(()));
        let more = admission.detach(elsewhere);
        assert_eq!(admission.check_new_member(elsewhere), Err(Refused::Full));
        drop((detached, more));
        assert_eq!(admission.check_new_member(home), Ok(()));
        drop(first);
        assert!(admission.counts.by_address().is_empty());
    }

    #[test]
    fn silent_connections_count() {
        let admission = admission(|s| s.max_connections = 1);
        let _silent = admission.accept(None);
        let second = admission.accept(None);
        assert_eq!(
            admission.upgrade(&second, None, None).unwrap_err(),
            Refused::Full
        );
    }

    #[test]
    fn refused_connections_occupy_no_place() {
        let proxy = Some(ip("10.0.0.1"));
        let home = Some(ip("192.0.2.1"));
        for (peer, client) in [(home, home), (proxy, home), (None, None)] {
            let admission = admission(|s| {
                s.max_connections = 2;
                s.max_connections_per_ip = 1;
                s.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
            });
            let connect = || {
                let counted = admission.accept(peer);
                let admitted = admission.upgrade(&counted, client, None);
                (counted, admitted)
            };
            let places = if client.is_some() { 1 } else { 2 };
            let mut held: Vec<_> = (0..places).map(|_| connect()).collect();
            assert!(held.iter().all(|(_, admitted)| admitted.is_ok()));
            let refused: Vec<_> = (0..50).map(|_| connect()).collect();
            assert!(refused.iter().all(|(_, admitted)| admitted.is_err()));
            held.pop();
            let (_held, admitted) = connect();
            assert!(admitted.is_ok(), "{peer:?}");
            assert!(connect().1.is_err(), "{peer:?}");
            drop(admitted);
            let (counted, _) = &refused[0];
            let late = admission.upgrade(counted, client, None);
            assert!(late.is_ok(), "a place that is free at the upgrade is taken");
        }
    }

    #[test]
    fn origins_are_compared_exactly_and_apps_have_none() {
        let door = admission(|s| s.allowed_origins = vec!["https://meet.example.org".into()]);
        let counted = door.accept(None);
        let ask = |origin: Option<&str>| door.upgrade(&counted, None, origin.map(str::as_bytes));
        assert!(ask(None).is_ok());
        assert!(ask(Some("https://meet.example.org")).is_ok());
        for other in [
            "http://meet.example.org",
            "https://meet.example.org:443",
            "https://MEET.example.org",
            "https://meet.example.org.evil.example",
            "null",
            "",
        ] {
            assert_eq!(ask(Some(other)).unwrap_err(), Refused::Origin, "{other}");
        }
    }
}

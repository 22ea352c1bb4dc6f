//! A limit on new connections by client address: one token bucket for each address.
//!
//! It stands in front of TLS and HTTP, whose handshakes cost more than anything else that a client
//! without a token can cause. Addresses are chosen by clients, so the table of buckets is bounded.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The most addresses whose buckets are kept. All of them together take some 4 MiB.
const MAX_ADDRESSES: usize = 65_536;

/// How often a full table is searched for buckets that are full again.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The limit, shared by all threads; it is asked once for each connection.
#[derive(Debug)]
pub(super) struct ConnectRate {
    /// The time in which a bucket gains one token.
    interval: Duration,
    /// The time in which an empty bucket becomes full.
    capacity: Duration,
    buckets: Mutex<Buckets>,
}

impl PartialEq for ConnectRate {
    /// Whether the configured rate is the same. The counts are not compared.
    fn eq(&self, other: &Self) -> bool {
        (self.interval, self.capacity) == (other.interval, other.capacity)
    }
}

#[derive(Debug, Default)]
struct Buckets {
    /// When each bucket will be full again: the state of a token bucket in one value.
    full_at: HashMap<IpAddr, Instant>,
    swept: Option<Instant>,
}

impl ConnectRate {
    /// So many connections a second, and `burst` at once; `None` where `rate` is 0, for no limit.
    pub(super) fn new(rate: u32, burst: u32) -> Option<Self> {
        let interval = Duration::from_secs(1).checked_div(rate)?;
        Some(Self {
            interval,
            capacity: interval * burst.max(1),
            buckets: Mutex::default(),
        })
    }

    /// Takes a token for a connection of `address`; whether there was one.
    pub(super) fn admits(&self, address: IpAddr) -> bool {
        self.admits_at(address, Instant::now())
    }

    fn admits_at(&self, address: IpAddr, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let known = buckets.full_at.get(&address).copied();
        let full_at = known.map_or(now, |full_at| now.max(full_at)) + self.interval;
        if full_at > now + self.capacity {
            return false;
        }
        if known.is_none() && !buckets.has_room(now) {
            // More addresses than that are a distributed attack, which no limit by address stops.
            return true;
        }
        buckets.full_at.insert(address, full_at);
        true
    }
}

impl Buckets {
    /// Whether one more address fits, once buckets that are full again have been removed.
    fn has_room(&mut self, now: Instant) -> bool {
        let is_due = |swept| now.saturating_duration_since(swept) >= SWEEP_INTERVAL;
        if self.full_at.len() >= MAX_ADDRESSES && self.swept.is_none_or(is_due) {
            self.swept = Some(now);
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        self.full_at.len() < MAX_ADDRESSES
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: usize) -> IpAddr {
        Ipv4Addr::from_bits(u32::try_from(number).unwrap()).into()
    }

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let limit = ConnectRate::new(10, 5).unwrap();
        let begun = Instant::now();
        let admitted = |now| (0..20).filter(|_| limit.admits_at(address(1), now)).count();
        assert_eq!(admitted(begun), 5);
        assert_eq!(admitted(begun + Duration::from_millis(99)), 0);
        assert_eq!(admitted(begun + Duration::from_millis(300)), 3);
        assert_eq!(admitted(begun + Duration::from_secs(60)), 5);
        assert!(limit.admits_at(address(2), begun), "another address");
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert!(ConnectRate::new(0, 5).is_none());
    }

    #[test]
    fn the_table_of_addresses_is_bounded() {
        let limit = ConnectRate::new(1, 1).unwrap();
        let begun = Instant::now();
        for number in 0..2 * MAX_ADDRESSES {
            assert!(limit.admits_at(address(number), begun));
        }
        let count = || limit.buckets.lock().unwrap().full_at.len();
        assert_eq!(count(), MAX_ADDRESSES);
        assert!(
            !limit.admits_at(address(1), begun),
            "known ones are limited"
        );
        let later = begun + Duration::from_secs(2);
        assert!(limit.admits_at(address(3 * MAX_ADDRESSES), later));
        assert_eq!(count(), 1);
    }
}

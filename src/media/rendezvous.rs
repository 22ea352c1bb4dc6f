//! Which of several media servers a room is sent to: weighted rendezvous hashing (highest random
//! weight, Thaler and Ravishankar 1998; by weight after Schindelhauer and Schomaker 2005), pure.
//!
//! Each server gets a score for the room, and the highest wins. So a server that comes or goes
//! moves only the rooms that it wins or had won, never one between two others; and whoever computes
//! it comes to the same end, whatever the version and wherever it runs: the hash is SipHash-2-4
//! with the key 0 over server name, app and channel, each as its length (64 bits, little endian)
//! and its bytes.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::ids::RoomName;

/// The candidate with the highest score for this room; each with its name and weight.
pub fn choose<'a, T>(
    candidates: impl Iterator<Item = (T, &'a str, u32)>,
    room: &RoomName,
) -> Option<T> {
    let scored = candidates.map(|(candidate, name, weight)| (candidate, score(name, weight, room)));
    scored
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(candidate, _)| candidate)
}

/// The score of a server: `weight / -ln(u)` for a `u` between 0 and 1 that only this pair of room
/// and server has.
fn score(name: &str, weight: u32, room: &RoomName) -> f64 {
    let mut hasher = SipHasher24::new_with_keys(0, 0);
    for part in [name, room.app.as_str(), room.channel.as_str()] {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part.as_bytes());
    }
    // The upper 53 bits, which a double holds; the half keeps it from 0 and 1.
    let u = ((hasher.finish() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(weight) / -u.ln()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::ids::{App, Channel};

    fn room(n: usize) -> RoomName {
        RoomName {
            app: App::new("demo").unwrap(),
            channel: Channel::new(&format!("room {n}")).unwrap(),
        }
    }

    fn choice(servers: &[(String, u32)], n: usize) -> Option<&str> {
        let candidates = servers
            .iter()
            .map(|(name, weight)| (name.as_str(), name.as_str(), *weight));
        choose(candidates, &room(n))
    }

    #[test]
    fn two_versions_agree() {
        let servers: Vec<(String, u32)> = ["one", "two", "three", "four"]
            .map(|name| (name.to_owned(), 1))
            .into();
        let choices: Vec<_> = (0..12).map(|n| choice(&servers, n).unwrap()).collect();
        // As another implementation of the same words has it.
        assert_eq!(
            choices,
            [
                "two", "one", "four", "three", "three", "three", "four", "three", "four", "four",
                "one", "three"
            ]
        );
        let weighted: Vec<(String, u32)> = [("one", 1), ("two", 2), ("three", 5), ("four", 10)]
            .map(|(name, weight)| (name.to_owned(), weight))
            .into();
        let choices: Vec<_> = (0..12).map(|n| choice(&weighted, n).unwrap()).collect();
        assert_eq!(
            choices,
            [
                "four", "four", "four", "four", "three", "three", "four", "three", "four", "four",
                "three", "four"
            ]
        );
        assert_eq!(choice(&[], 0), None);
    }

    #[test]
    fn names_and_channels_do_not_run_together() {
        let score = |name: &str, app: &str, channel: &str| {
            let room = RoomName {
                app: App::new(app).unwrap(),
                channel: Channel::new(channel).unwrap(),
            };
            score(name, 1, &room)
        };
        assert_ne!(score("ab", "c", "d"), score("a", "bc", "d"));
        assert_ne!(score("a", "bc", "d"), score("a", "b", "cd"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn rooms_are_spread_by_weight(weights in prop::collection::vec(1_u32..5, 2..6)) {
            let servers: Vec<_> = weights
                .iter()
                .enumerate()
                .map(|(n, weight)| (format!("server {n}"), *weight))
                .collect();
            let rooms = 10_000;
            let mut counts: HashMap<&str, u32> = HashMap::new();
            for n in 0..rooms {
                *counts.entry(choice(&servers, n).unwrap()).or_default() += 1;
            }
            let all: u32 = weights.iter().sum();
            for (name, weight) in &servers {
                let due = f64::from(*weight) / f64::from(all) * rooms as f64;
                let got = f64::from(counts.get(name.as_str()).copied().unwrap_or(0));
                // Five standard deviations of so many throws.
                let slack = 5.0 * (due * (1.0 - due / rooms as f64)).sqrt();
                prop_assert!((got - due).abs() < slack, "{name}: {got} of {due}");
            }
        }

        #[test]
        fn only_the_rooms_of_a_server_that_comes_or_goes_move(
            weights in prop::collection::vec(1_u32..5, 2..6),
            other in 0_usize..6,
        ) {
            let all: Vec<_> = weights
                .iter()
                .enumerate()
                .map(|(n, weight)| (format!("server {n}"), *weight))
                .collect();
            let other = other % all.len();
            let mut without = all.clone();
            let (gone, _) = without.remove(other);
            for n in 0..2_000 {
                let (before, after) = (choice(&all, n), choice(&without, n));
                prop_assert!(before == after || before == Some(gone.as_str()));
            }
        }

        #[test]
        fn a_server_that_gains_weight_only_draws_rooms_to_itself(
            weights in prop::collection::vec(1_u32..5, 2..6),
            more in 1_u32..5,
        ) {
            let before: Vec<_> = weights
                .iter()
                .enumerate()
                .map(|(n, weight)| (format!("server {n}"), *weight))
                .collect();
            let mut after = before.clone();
            after[0].1 += more;
            for n in 0..2_000 {
                let (old, new) = (choice(&before, n), choice(&after, n));
                prop_assert!(old == new || new == Some("server 0"));
            }
        }
    }
}

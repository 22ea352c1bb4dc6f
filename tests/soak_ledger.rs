//! The judge of the soak (`benches/soak/ledger.rs`) is not blind: whatever goes wrong with the
//! events of a room, it sees.

#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "it is part of a bench"
)]
#[path = "../benches/soak/ledger.rs"]
mod ledger;

use ledger::{Deed, Ending, Fault, Ledger, Life, Story};
use serde_json::value::RawValue;

fn story(cause: &str, deed: Deed, what: u64) -> Story {
    Story {
        digest: what,
        cause: cause.to_owned(),
        deed,
    }
}

/// Ben joins as 2, then anna as 3; ben says 4 and 5, anna 6, ben 7.
fn room() -> Ledger {
    let mut ledger = Ledger::new(1);
    for (number, cause, deed) in [
        (2, "ben", Deed::Join),
        (3, "anna", Deed::Join),
        (4, "ben", Deed::Broadcast),
        (5, "ben", Deed::Publish),
        (6, "anna", Deed::Broadcast),
        (7, "ben", Deed::Broadcast),
    ] {
        ledger
            .push(number, story(cause, deed, number * 10))
            .unwrap();
    }
    ledger
}

fn told(life: &mut Life, numbers: &[u64]) {
    for number in numbers {
        life.take(*number, number * 10).unwrap();
    }
}

#[test]
fn who_is_told_all_but_its_own_has_lost_nothing() {
    let mut ledger = room();
    let mut anna = ledger.begin("anna", 3, true);
    told(&mut anna, &[4, 5, 7]);
    assert_eq!(anna.check(&ledger), Ok(()));
    assert_eq!(anna.settle(Ending::At(7), &ledger), Ok(true));
}

#[test]
fn a_gap_is_a_loss_at_once_or_at_the_end() {
    let mut ledger = room();
    let mut anna = ledger.begin("anna", 3, true);
    told(&mut anna, &[4, 7]);
    assert_eq!(anna.check(&ledger), Err(Fault::Lost(5)));

    let mut anna = ledger.begin("anna", 3, true);
    told(&mut anna, &[4, 5]);
    assert_eq!(anna.check(&ledger), Ok(()));
    assert_eq!(anna.settle(Ending::At(7), &ledger), Err(Fault::Lost(7)));
}

#[test]
fn the_same_twice_or_an_earlier_one_is_disorder() {
    let mut ledger = room();
    let mut anna = ledger.begin("anna", 3, true);
    told(&mut anna, &[4]);
    assert_eq!(anna.take(4, 40), Err(Fault::Disorder(4)));
    told(&mut anna, &[7]);
    assert_eq!(anna.take(5, 50), Err(Fault::Disorder(5)));
    assert_eq!(anna.take(3, 30), Err(Fault::Disorder(3)), "its own join");
}

#[test]
fn another_story_or_its_own_is_foreign() {
    let mut ledger = room();
    let mut anna = ledger.begin("anna", 3, true);
    anna.take(4, 41).unwrap();
    assert_eq!(anna.check(&ledger), Err(Fault::Foreign(4)));

    let mut anna = ledger.begin("anna", 3, true);
    told(&mut anna, &[4, 5, 6]);
    assert_eq!(anna.check(&ledger), Err(Fault::Foreign(6)));
}

#[test]
fn a_member_that_is_ahead_of_the_observer_is_judged_later() {
    let mut ledger = room();
    let mut anna = ledger.begin("anna", 3, true);
    told(&mut anna, &[4, 5, 7, 9]);
    assert_eq!(anna.settle(Ending::Cut, &ledger), Ok(false));
    ledger.push(8, story("ben", Deed::Unpublish, 80)).unwrap();
    assert_eq!(anna.settle(Ending::Cut, &ledger), Err(Fault::Lost(8)));
}

#[test]
fn without_numbers_the_next_story_must_be_the_next_that_is_owed() {
    let mut ledger = room();
    let mut anna = ledger.begin("anna", 3, false);
    for digest in [40, 50, 70] {
        anna.take(0, digest).unwrap();
    }
    assert_eq!(anna.settle(Ending::At(7), &ledger), Ok(true));

    for (wrong, number) in [([40, 70], 5), ([50, 40], 4), ([40, 40], 5)] {
        let mut anna = ledger.begin("anna", 3, false);
        for digest in wrong {
            anna.take(0, digest).unwrap();
        }
        assert_eq!(
            anna.check(&ledger),
            Err(Fault::Foreign(number)),
            "{wrong:?}"
        );
    }
    let mut anna = ledger.begin("anna", 3, false);
    assert_eq!(anna.take(4, 40), Err(Fault::Foreign(4)));
}

#[test]
fn who_leaves_is_owed_all_that_came_before_its_leave() {
    let mut ledger = room();
    let (mut whole, mut short) = (ledger.begin("anna", 3, true), ledger.begin("anna", 3, true));
    told(&mut whole, &[4, 5, 7]);
    told(&mut short, &[4, 5]);
    assert_eq!(
        whole.settle(Ending::Told, &ledger),
        Ok(false),
        "no leave yet"
    );
    ledger.push(8, story("anna", Deed::Leave, 80)).unwrap();
    ledger.push(9, story("ben", Deed::Broadcast, 90)).unwrap();
    assert_eq!(whole.settle(Ending::Told, &ledger), Ok(true));
    assert_eq!(short.settle(Ending::Told, &ledger), Err(Fault::Lost(7)));
}

#[test]
fn the_observer_itself_must_miss_nothing() {
    let mut ledger = room();
    let late = story("ben", Deed::Broadcast, 0);
    assert_eq!(ledger.push(7, late.clone()), Err(Fault::Disorder(7)));
    assert_eq!(ledger.push(9, late), Err(Fault::Lost(8)));
    assert_eq!(ledger.last(), 9);
    // What nobody saw is held against nobody.
    let mut anna = ledger.begin("anna", 3, true);
    told(&mut anna, &[4, 5, 7]);
    anna.take(8, 1234).unwrap();
    anna.take(9, 0).unwrap();
    assert_eq!(anna.check(&ledger), Ok(()));
}

#[test]
fn what_cannot_happen_is_seen() {
    let senseless = |cause: &str, deed| {
        let pushed = room().push(8, story(cause, deed, 80));
        matches!(pushed, Err(Fault::Senseless(8, _)))
    };
    assert!(senseless("anna", Deed::Join), "she is there");
    assert!(senseless("carl", Deed::Leave), "he is not");
    assert!(senseless("carl", Deed::Broadcast));
    assert!(senseless("ben", Deed::Leave), "his stream");
    assert!(senseless("anna", Deed::Unpublish), "she has none");
    assert!(!senseless("ben", Deed::Publish), "again");
    assert!(!senseless("carl", Deed::Join));
}

#[test]
fn what_all_are_through_with_is_forgotten_and_nothing_else() {
    let mut ledger = room();
    let mut anna = ledger.begin("anna", 3, true);
    let mut ben = ledger.begin("ben", 2, true);
    ledger.forget();
    told(&mut anna, &[4, 5, 7]);
    assert_eq!(anna.check(&ledger), Ok(()));
    ledger.forget();
    told(&mut ben, &[3]);
    assert_eq!(ben.check(&ledger), Ok(()), "he still needs it");
    drop(ben);
    ledger.forget();
    let mut late = ledger.begin("carl", 2, true);
    told(&mut late, &[3]);
    assert_eq!(
        late.settle(Ending::Cut, &ledger),
        Ok(false),
        "not known any more"
    );
    assert_eq!(ledger.last(), 7);
}

#[test]
fn a_story_is_the_same_for_all_who_are_told_it() {
    let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    let data = raw(r#"{"device":"","endpoint":"anna","stat":"join"}"#);
    let read = Story::read("endpoint", &data).unwrap();
    assert_eq!((read.cause.as_str(), read.deed), ("anna", Deed::Join));
    assert_eq!(read.digest, ledger::digest("endpoint", &data));
    assert_ne!(read.digest, ledger::digest("stream", &data));
    let said = raw(r#"{"source_endpoint":{"device":"","endpoint":"ben"},"payload":{"stat":1}}"#);
    let read = Story::read("broadcast", &said).unwrap();
    assert_eq!((read.cause.as_str(), read.deed), ("ben", Deed::Broadcast));
    assert_eq!(
        Story::read("error", &raw(r#"{"type":"bad_message"}"#)),
        None
    );
}

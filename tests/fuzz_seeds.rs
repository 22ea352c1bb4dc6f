//! The seeds of the fuzz targets (`fuzz/README.md`), each through the check of its target: what
//! fuzzing has found, and the inputs that reach everything it has seen.

#![allow(
    unreachable_pub,
    reason = "the fuzz targets see the checks from outside"
)]

#[path = "../fuzz/oracles/gate.rs"]
mod gate;
#[path = "../fuzz/oracles/request.rs"]
mod request;
#[path = "../fuzz/oracles/token.rs"]
mod token;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

const FUZZ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz");

/// Checks every seed of a target. The name of one that fails is shown.
fn each_seed_of(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(FUZZ).join("seeds").join(target);
    let mut checked = 0;
    for seed in fs::read_dir(&folder).unwrap() {
        let path = seed.unwrap().path();
        let input = fs::read(&path).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&input)));
        assert!(outcome.is_ok(), "{}", path.display());
        checked += 1;
    }
    assert!(checked > 50, "{checked} seeds in {}", folder.display());
}

#[test]
fn requests_are_what_the_protocol_says() {
    each_seed_of("request", request::check);
}

#[test]
fn frames_are_let_in_by_the_rules_however_they_arrive() {
    each_seed_of("gate", gate::check);
}

#[test]
fn only_what_was_signed_is_let_in_and_only_where_its_claims_allow() {
    let forge = token::Forge::new(&Path::new(FUZZ).join("keys"));
    each_seed_of("token", |input| forge.check(input));
}

//! What the fuzz targets hold the server's code against: a plain model of each rule, written from
//! the protocol's words and not from the code.
//!
//! Each `check` takes any bytes and panics where code and model disagree. `cargo test` at the top
//! runs the committed seeds through the same checks (`tests/fuzz_seeds.rs`).

pub mod gate;
pub mod request;
pub mod token;

/// Where the keys of [`token`] are.
pub const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/keys");

//! What the soak and the load bench have in common: the server as a process of its own, and a
//! client that is fast enough for thousands of connections on one thread.
//!
//! The tests have a client too (`tests/common`); that one can say anything wrong and shows every
//! byte, and each of its connections needs a thread.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "neither bench needs all of it, and each is a program of its own"
)]

pub mod connection;
pub mod frame;
pub mod message;
pub mod open_files;
pub mod random;
pub mod scrape;
pub mod server;
pub mod times;
pub mod usage;

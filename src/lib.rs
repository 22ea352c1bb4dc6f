//! The room server of a video-meeting system: who is in a room, what each publishes to the media
//! server, and broadcasts among them. Clients speak JSON over WebSocket; media goes elsewhere.
//!
//! # The map
//!
//! The process is a few worker threads, each a server of its own; a room, its members' sessions
//! and their sockets always stand on one of them. The way of a message, in the order of the files:
//!
//! 1. [`upgrade`]: an HTTP request becomes a WebSocket
//! 2. [`connection`]: the socket's task; [`connection::gate`] lets whole frames in, one at a time
//! 3. [`session`]: the SessionActor decodes and checks a request
//! 4. [`registry`]: the RegistryActor knows which room it is for
//! 5. [`room`]: the RoomActor carries out what the rules in [`room::state`] make of it;
//!    [`room::history`] keeps what lost members will need
//! 6. [`outbox`]: what waits for each client, which [`clients`] flushes once a turn, or in a
//!    [`crowd`] a moment later
//!
//! Around it:
//!
//! * one client, as its thread knows it: [`client`]; [`ticket`], the promise that a request is
//!   answered; [`membership`], the guard that takes a session out of its room; [`ending`], why;
//!   [`progress`], how far it got; [`handover`], what goes along to another thread; [`deadlines`],
//!   [`alarms`], [`flush_queue`], [`rate`], [`tally`]
//! * the door: [`admission`], [`tls`], [`http_socket`], [`handshake`]; behind it, [`socket`]
//! * the process: [`server`], [`worker`], [`crew`], [`vital`], [`clock`], [`settings`], [`reload`],
//!   [`media`], [`pages`], [`web`], [`health`], [`limits`]
//! * what an operator sees: [`logging`], [`log_filter`], [`log_writer`], [`throttle`], [`stats`], [`instrument`],
//!   [`census`], [`report`], [`metrics`]
//! * the wire: [`protocol`], and the names of things: [`ids`]

#![warn(clippy::unwrap_used)]

/// The version, and the commit in brackets where it is known.
pub const VERSION: &str = env!("MEETING_SERVER_VERSION");

/// The commit that was built, or "" where the build did not know it.
pub const COMMIT: &str = env!("MEETING_SERVER_COMMIT");

pub mod admission;
pub mod alarms;
pub mod auth;
pub mod census;
pub mod client;
pub mod clients;
pub mod clock;
pub mod connection;
pub mod crew;
pub mod crowd;
pub mod deadlines;
pub mod ending;
pub mod flush_queue;
pub mod grants;
pub mod handover;
pub mod handshake;
pub mod health;
pub mod http_socket;
pub mod ids;
pub mod instrument;
pub mod limits;
pub mod log_filter;
pub mod log_writer;
pub mod logging;
pub mod media;
pub mod membership;
pub mod metrics;
pub mod outbox;
pub mod pages;
pub mod prefetch;
pub mod progress;
pub mod protocol;
pub mod rate;
pub mod registry;
pub mod reload;
pub mod report;
pub mod room;
pub mod server;
pub mod session;
pub mod settings;
pub mod socket;
pub mod stats;
pub mod tally;
pub mod throttle;
pub mod ticket;
pub mod tls;
pub mod upgrade;
pub mod vital;
pub mod web;
pub mod worker;

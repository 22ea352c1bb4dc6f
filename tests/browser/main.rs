//! The page in a real browser.
//!
//! Needs Debian's packages chromium and chromium-driver. Without them a test says that it is
//! skipped, and fails where `CI=true`.

#![allow(unreachable_pub, reason = "a test is no library")]

#[path = "../common/mod.rs"]
mod common;

mod cache;
mod library;
mod meeting;
mod messages;
mod page;
mod proxy;
mod trouble;
mod window;

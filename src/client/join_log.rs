//! The log lines of connections that join no room. Any stranger can cause such lines, as fast as the
//! rate limit allows, so they are throttled for each network and reason.

use std::{net::IpAddr, sync::LazyLock};

use super::Client;
use crate::{admission, membership::Wanted, protocol::error::Refusal, throttle::KeyedThrottle};

impl Client {
    /// A join that was refused; `join` where it could be read.
    pub fn log_refused_join(&self, join: Option<&Wanted>, refusal: &Refusal) {
        static LINES: LazyLock<KeyedThrottle<(Option<IpAddr>, u16)>> =
            LazyLock::new(KeyedThrottle::default);
        if !log::log_enabled!(log::Level::Info) {
            return;
        }
        let Some(suppressed) = LINES.permit((self.network(), refusal.code as u16)) else {
            return;
        };
        log::info!(
            app = join.map(|join| join.room.app.as_str()),
            channel = join.map(|join| join.room.channel.as_str()),
            endpoint = join.and_then(|join| Some(join.endpoint.as_ref()?.as_str())),
            client:% = self.handshake.shown_address(),
            err = refusal.code as u16,
            reason:% = refusal.message,
            suppressed = suppressed;
            "join refused"
        );
    }

    /// It is closed since it has joined no room in time.
    pub fn log_join_timeout(&self) {
        static LINES: LazyLock<KeyedThrottle<Option<IpAddr>>> =
            LazyLock::new(KeyedThrottle::default);
        if !log::log_enabled!(log::Level::Info) {
            return;
        }
        if let Some(suppressed) = LINES.permit(self.network()) {
            log::info!(
                client:% = self.handshake.shown_address(),
                suppressed = suppressed;
                "join timeout"
            );
        }
    }

    fn network(&self) -> Option<IpAddr> {
        self.handshake.client.map(admission::household)
    }
}

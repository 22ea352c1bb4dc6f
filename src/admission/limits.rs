//! The limits of the settings that decide about a connection, a join or a room.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{Refused, connect_rate::ConnectRate, household};
use crate::settings::Settings;

/// Replaced as a whole by a reload.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) max_connections: usize,
    /// 0: no limit.
    pub(super) max_per_address: usize,
    /// 0: no limit.
    pub(super) max_rooms: usize,
    /// `None`: no limit.
    connect_rate: Option<Arc<ConnectRate>>,
    /// Empty: any origin.
    allowed_origins: Vec<String>,
    trusted_proxies: Vec<IpNet>,
}

impl Limits {
    /// The limits that the settings ask for.
    pub(super) fn new(settings: &Settings) -> Self {
        let server = &settings.server;
        let rate = ConnectRate::new(server.connect_rate_per_ip, server.connect_burst_per_ip);
        Self {
            max_connections: server.max_connections,
            max_per_address: server.max_connections_per_ip,
            max_rooms: settings.rooms.max_rooms,
            connect_rate: rate.map(Arc::new),
            allowed_origins: server.allowed_origins.clone(),
            trusted_proxies: server.trusted_proxies.clone(),
        }
    }

    /// The same behind `present` limits: a rate that is not changed keeps its count.
    pub(super) fn after(present: &Self, settings: &Settings) -> Self {
        let mut limits = Self::new(settings);
        if limits.connect_rate == present.connect_rate {
            limits.connect_rate.clone_from(&present.connect_rate);
        }
        limits
    }

    /// Whether `connect_rate_per_ip` admits one more connection of `address`.
    pub(super) fn is_within_rate(&self, address: IpAddr) -> bool {
        let limit = self.connect_rate.as_ref();
        limit.is_none_or(|limit| limit.admits(household(address)))
    }

    /// Whether a page of `origin` may connect; apps have none.
    ///
    /// # Errors
    /// [`Refused::Origin`]
    pub(super) fn check_origin(&self, origin: Option<&[u8]>) -> Result<(), Refused> {
        let allowed = &self.allowed_origins;
        match origin {
            Some(origin)
                if !allowed.is_empty() && !allowed.iter().any(|o| o.as_bytes() == origin) =>
            {
                Err(Refused::Origin)
            }
            _ => Ok(()),
        }
    }

    /// Whether `address` is a trusted proxy's.
    pub(super) fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let mut networks = self.trusted_proxies.iter();
        networks.any(|network| network.contains(&address))
    }
}

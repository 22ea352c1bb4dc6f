//! Asking each media server, for ever, whether it is well: one thread each, which does nothing
//! else. A server is down after `unhealthy_after` failed checks in a row, and up again after one
//! that does not fail.

use std::{
    net::{TcpStream, ToSocketAddrs},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustls::crypto::aws_lc_rs;
use thiserror::Error;
use ureq::{
    Agent,
    tls::{RootCerts, TlsConfig},
};

use super::{MediaServers, Server};
use crate::{settings::Settings, vital::Vital};

/// Why a check has failed.
#[derive(Debug, Error)]
pub enum Ailment {
    /// No connection, or no answer in time.
    #[error("{0}")]
    Unreachable(String),
    /// An answer that is none of 2xx.
    #[error("it answers {0}")]
    Status(u16),
}

/// How a server is asked.
#[derive(Clone, Debug)]
enum Check {
    /// GET this URL.
    Http(String),
    /// Connect to this host and port.
    Tcp(String),
}

impl Check {
    /// What the settings say; `None`: it is not asked at all.
    fn new(health: &str) -> Option<Self> {
        match health.strip_prefix("tcp://") {
            _ if health.is_empty() => None,
            Some(host) => Some(Self::Tcp(host.to_owned())),
            None => Some(Self::Http(health.to_owned())),
        }
    }

    fn run(&self, agent: &Agent, timeout: Duration) -> Result<(), Ailment> {
        match self {
            Self::Http(url) => {
                let answer = agent.get(url).call();
                let status = answer
                    .map_err(|e| Ailment::Unreachable(e.to_string()))?
                    .status();
                if !status.is_success() {
                    return Err(Ailment::Status(status.as_u16()));
                }
                Ok(())
            }
            Self::Tcp(host) => connect(host, timeout),
        }
    }
}

/// Connects to any of the host's addresses within `timeout` in all.
fn connect(host: &str, timeout: Duration) -> Result<(), Ailment> {
    let begun = Instant::now();
    let unreachable = |e: std::io::Error| Ailment::Unreachable(e.to_string());
    let mut last = Ailment::Unreachable("its name has no address".into());
    for address in host.to_socket_addrs().map_err(unreachable)? {
        let left = timeout.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(Ailment::Unreachable("timed out".into()));
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(_) => return Ok(()),
            Err(error) => last = unreachable(error),
        }
    }
    Err(last)
}

/// The checks of all servers, until this is dropped. A check that is still waiting for its answer
/// then has no effect any more.
#[derive(Debug, Default)]
pub struct Checks {
    /// The servers, and what ends their threads when it is dropped.
    running: Vec<(Arc<Server>, Sender<()>)>,
}

impl Drop for Checks {
    fn drop(&mut self) {
        for (server, _) in &self.running {
            server.new_watch();
        }
    }
}

/// Begins to check all servers of the settings that are to be checked; `servers` is their list. The
/// others count as healthy. Earlier [`Checks`] of the same servers must have been dropped: to drop
/// them later would end these. `went_down` is called on the checking thread when a server is found
/// not to be healthy any more.
pub fn begin(
    settings: &Settings,
    servers: &MediaServers,
    went_down: impl Fn() + Clone + Send + 'static,
) -> Checks {
    let media = &settings.media;
    let mut checks = Checks::default();
    for (known, server) in servers.all().into_iter().zip(&settings.media_servers) {
        let check = Check::new(&server.health).filter(|_| !media.health_interval.is_zero());
        let Some(check) = check else {
            // A check of before a reload may have found it down.
            known.set_healthy(true);
            continue;
        };
        let (stop, stopped) = channel();
        let watch = Watch {
            number: known.new_watch(),
            server: known.clone(),
            check,
            interval: media.health_interval,
            timeout: media.health_timeout,
            unhealthy_after: media.unhealthy_after,
        };
        checks.running.push((known, stop));
        let went_down = went_down.clone();
        let spawned = thread::Builder::new()
            .name(format!("health of {}", server.name))
            .spawn(move || {
                let _vital = Vital("the health check of a media server");
                watch.for_ever(&stopped, went_down);
            });
        if let Err(error) = spawned {
            log::error!("a media server's health cannot be checked, it counts as well: {error}");
        }
    }
    checks
}

/// One server under watch.
struct Watch {
    /// Which of the server's watches it is. Only the last one counts.
    number: u64,
    server: Arc<Server>,
    check: Check,
    interval: Duration,
    timeout: Duration,
    unhealthy_after: u32,
}

impl Watch {
    fn for_ever(self, stopped: &Receiver<()>, went_down: impl Fn()) {
        let agent = agent(self.timeout);
        loop {
            let begun = Instant::now();
            let outcome = self.check.run(&agent, self.timeout);
            if stopped.try_recv() == Err(TryRecvError::Disconnected) {
                // A reload has begun other checks, whose findings count.
                return;
            }
            if self.note(outcome) {
                went_down();
            }
            let rest = self.interval.saturating_sub(begun.elapsed());
            if stopped.recv_timeout(rest) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// Takes the outcome of a check in. Whether the server went down by it.
    fn note(&self, outcome: Result<(), Ailment>) -> bool {
        let name = self.server.name();
        let mut findings = self.server.findings();
        if findings.watch != self.number {
            return false;
        }
        let was_healthy = self.server.is_healthy();
        match outcome {
            Ok(()) => {
                findings.failures = 0;
                self.server.is_healthy.store(true, Ordering::Relaxed);
                if !was_healthy {
                    log::info!(name = name; "media server up");
                }
                false
            }
            Err(ailment) => {
                findings.failures = findings.failures.saturating_add(1);
                let failures = findings.failures;
                let went_down = was_healthy && failures >= self.unhealthy_after;
                if went_down {
                    self.server.is_healthy.store(false, Ordering::Relaxed);
                    log::warn!(
                        name = name,
                        failures = failures,
                        error:% = ailment;
                        "media server down"
                    );
                }
                went_down
            }
        }
    }
}

/// An HTTP client that follows nothing and keeps nothing: each check is a connection of its own.
fn agent(timeout: Duration) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()));
    Agent::config_builder()
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .max_idle_connections(0)
        .user_agent("meeting-server")
        .tls_config(tls.build())
        .build()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(unhealthy_after: u32) -> Watch {
        let settings = Settings::defaults();
        let servers = MediaServers::new(&settings.media_servers);
        let server = servers.all().remove(0);
        Watch {
            number: server.new_watch(),
            server,
            check: Check::Tcp(String::new()),
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            unhealthy_after,
        }
    }

    #[test]
    fn so_many_failures_in_a_row_and_one_success_heals() {
        let watch = watch(3);
        let mut seen = Vec::new();
        for good in [false, false, true, false, false, false, false, true, false] {
            let outcome = if good {
                Ok(())
            } else {
                Err(Ailment::Status(500))
            };
            let went_down = watch.note(outcome);
            seen.push((went_down, watch.server.is_healthy()));
        }
        let up = (false, true);
        let down = (false, false);
        assert_eq!(seen, [up, up, up, up, up, (true, false), down, up, up]);
    }

    #[test]
    fn a_late_outcome_of_an_ended_watch_changes_nothing() {
        let failed = || Err(Ailment::Status(500));
        let old = watch(1);
        let (stop, _stopped) = channel();
        let checks = Checks {
            running: vec![(old.server.clone(), stop)],
        };
        assert!(old.note(failed()), "while it runs it counts");
        // What a reload does that turns the check of this server off.
        drop(checks);
        old.server.set_healthy(true);
        assert!(!old.note(failed()));
        assert!(old.server.is_healthy());
        // The same where another watch has begun, which has found it down.
        let next = Watch {
            number: old.server.new_watch(),
            server: old.server.clone(),
            check: Check::Tcp(String::new()),
            ..old
        };
        assert!(next.note(failed()));
        let old = Watch {
            number: next.number - 1,
            server: next.server.clone(),
            check: Check::Tcp(String::new()),
            ..next
        };
        assert!(!old.note(Ok(())));
        assert!(!old.server.is_healthy());
    }

    #[test]
    fn what_is_not_asked_is_well() {
        assert!(Check::new("").is_none());
        assert!(matches!(Check::new("tcp://a:1"), Some(Check::Tcp(host)) if host == "a:1"));
        assert!(matches!(Check::new("https://a/b"), Some(Check::Http(_))));
    }
}

//! How many files the system lets the process have open.
//!
//! Each connection is one. Distributions start processes with a soft limit of 1024, for the sake
//! of programs that use `select(2)`, which knows no higher numbers, and let those that do not
//! raise it to the hard limit, which is far above. A server that leaves that out stops accepting
//! at its thousandth client, long before `server.max_connections`.

use log::Level;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are no client's: standard streams, the log, listeners, and connections that are
/// accepted only to be refused.
const RESERVE: u64 = 64;

/// What each worker's event loop has open.
const RESERVE_PER_WORKER: u64 = 4;

/// A limit below this is too low for any server, and worth a warning.
const LOW: u64 = 4096;

/// Raises the soft limit of open files to the hard one, and logs where `max_connections` does not
/// fit under it all the same. The default of `max_connections` is above what many machines allow,
/// so that is a warning only where the limit is below 4,096.
pub fn raise_open_files(max_connections: usize, workers: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            log::warn!(error:% = error; "the limit of open files cannot be raised");
            current
        }
    };
    let needed = needed(max_connections, workers);
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        let level = if limit < LOW {
            Level::Warn
        } else {
            Level::Info
        };
        log::log!(
            level,
            limit = limit,
            needed = needed,
            max_connections = max_connections;
            "server.max_connections does not fit under the limit of open files; \
             raise that (LimitNOFILE= of systemd, ulimit -n), or lower the setting"
        );
    }
}

/// How many files may be open at a time with so many connections.
fn needed(max_connections: usize, workers: usize) -> u64 {
    let workers = (workers as u64).saturating_mul(RESERVE_PER_WORKER);
    (max_connections as u64)
        .saturating_add(workers)
        .saturating_add(RESERVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_stands_beside_the_connections() {
        assert_eq!(needed(1000, 2), 1072);
        assert_eq!(needed(usize::MAX, 512), u64::MAX);
    }
}

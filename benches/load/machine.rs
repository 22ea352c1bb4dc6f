//! Which cores the server and the load have.

use std::{fmt, path::Path};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::wire::server::Server;

/// Which cores there are for whom; `None` where the system chooses.
#[derive(Clone, Debug)]
pub(crate) struct Machine(Option<(usize, usize)>);

impl Machine {
    /// One core for the server and another for this process, where it has two.
    pub(crate) fn divide(unpinned: bool) -> Self {
        let ours = sched_getaffinity(None).ok();
        let ours: Vec<usize> = ours.map_or(Vec::new(), |set| {
            (0..CpuSet::MAX_CPU)
                .filter(|core| set.is_set(*core))
                .collect()
        });
        match ours[..] {
            [first, second, ..] if !unpinned => {
                let machine = Self(Some((first, second)));
                // Where it may not, neither is pinned.
                if pin(second).is_ok() {
                    machine
                } else {
                    Self(None)
                }
            }
            _ => Self(None),
        }
    }

    /// Starts a server on its core: of this build, or of another one to compare with. A child begins
    /// where its parent is, so this thread goes there for a moment.
    pub(crate) fn start_server(
        &self,
        program: Option<&Path>,
        settings: &[(&str, String)],
    ) -> std::io::Result<Server> {
        let quiet = "warn,meeting_server::server=info";
        let start = || Server::start_program(program, quiet, settings);
        let Some((its, ours)) = self.0 else {
            return start();
        };
        pin(its)?;
        let server = start();
        pin(ours)?;
        server
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((its, ours)) => write!(f, "server on core {its}, load on core {ours}"),
            None => write!(f, "server and load on whatever cores the system chooses"),
        }
    }
}

/// Keeps this thread, and what it starts from now on, on one core.
fn pin(core: usize) -> rustix::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set)
}

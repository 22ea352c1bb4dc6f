//! What the system knows of the process, under the names that all programs use for it.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use procfs::{ProcError, process::Process};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// The figures of one moment.
#[derive(Clone, Copy, Debug)]
pub struct ProcessFigures {
    /// Seconds of CPU, the kernel's work for the process included.
    pub cpu_seconds: f64,
    /// Memory that is resident, in bytes.
    pub resident_bytes: u64,
    /// File descriptors that are open.
    pub open_fds: u64,
    /// How many may be open; `None`: no limit.
    pub max_fds: Option<u64>,
    /// When the process began, in seconds since 1970.
    pub start_seconds: f64,
}

impl ProcessFigures {
    /// Reads them. The kernel may take milliseconds, so not on a worker thread.
    ///
    /// # Errors
    /// Where /proc cannot be read.
    pub fn read() -> Result<Self, ProcError> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = procfs::ticks_per_second() as f64;
        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            resident_bytes: stat.rss * procfs::page_size(),
            open_fds: process.fd_count()? as u64,
            max_fds: getrlimit(Resource::Nofile).current,
            start_seconds: start(stat.starttime as f64 / ticks),
        })
    }
}

/// When the process began; `since_boot` is in seconds. Always the same, though the clock may be
/// set. The time of the boot in /proc/stat is not asked: systemd's `ProcSubset=pid` hides that
/// file.
fn start(since_boot: f64) -> f64 {
    static START: OnceLock<f64> = OnceLock::new();
    *START.get_or_init(|| {
        let up = clock_gettime(ClockId::Boottime);
        let up = Duration::try_from(up).unwrap_or_default().as_secs_f64();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        // The kernel counts the start in hundredths.
        ((now.as_secs_f64() - up + since_boot) * 100.0).round() / 100.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_this_process() {
        let figures = ProcessFigures::read().unwrap();
        assert!(figures.cpu_seconds >= 0.0);
        assert!(figures.resident_bytes > 1 << 20, "{figures:?}");
        assert!((3..1 << 20).contains(&figures.open_fds), "{figures:?}");
        assert!(figures.max_fds.is_none_or(|most| most >= figures.open_fds));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - figures.start_seconds;
        // A clock that was set since the boot or a coarse one may be a little off.
        assert!((-1.0..3600.0).contains(&age), "{figures:?}");
    }
}

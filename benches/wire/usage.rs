//! What a process uses, as Linux tells it (proc(5)).

use std::{fs, io, time::Duration};

/// What a process uses.
#[derive(Clone, Copy, Debug)]
pub struct Usage(u32);

impl Usage {
    /// Of the process with this id.
    pub fn of(pid: u32) -> Self {
        Self(pid)
    }

    /// Bytes of memory at present.
    pub fn memory(self) -> io::Result<u64> {
        self.status("VmRSS:")
    }

    /// The most that it ever was.
    pub fn peak_memory(self) -> io::Result<u64> {
        self.status("VmHWM:")
    }

    /// How many files it has open.
    pub fn open_files(self) -> io::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.0))?.count())
    }

    /// Processor time of all its threads so far, user and system.
    pub fn cpu(self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The second field is the program's name in parentheses, whatever that contains.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let ticks: u64 = fields
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum();
        Ok(Duration::from_millis(
            ticks * 1000 / rustix::param::clock_ticks_per_second(),
        ))
    }

    fn status(self, key: &str) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .and_then(|kib| kib.parse::<u64>().ok());
        let missing = || io::Error::other(format!("no {key} in the status of {}", self.0));
        Ok(kib.ok_or_else(missing)? * 1024)
    }
}

/// How busy the machine is: the first of its load averages.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|load| load.parse().ok());
    first.unwrap_or(f64::NAN)
}

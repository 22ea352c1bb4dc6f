//! What the system knows of a server process: its memory, its open files, its sockets. The server
//! is not asked, since it cannot know what it has forgotten.

use std::{fs, net::SocketAddr, time::Instant};

use super::{PATIENCE, process::Process};

/// A mebibyte.
pub const MIB: usize = 1 << 20;

/// States of sockets in /proc/net/tcp that are no connections: over, or not yet one.
const TIME_WAIT: &str = "06";
const LISTEN: &str = "0A";

/// A line of /proc/PID/status, in bytes.
fn status(process: &Process, key: &str) -> usize {
    let text = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kibibytes = line.and_then(|line| line.strip_prefix(':')?.strip_suffix(" kB"));
    let kibibytes = kibibytes.expect(&text).trim();
    kibibytes.parse::<usize>().unwrap() * 1024
}

/// Its memory at present (VmRSS), in bytes.
pub fn resident(process: &Process) -> usize {
    status(process, "VmRSS")
}

/// The most that its memory ever was (VmHWM), in bytes.
pub fn peak_resident(process: &Process) -> usize {
    status(process, "VmHWM")
}

/// How many files it has open, sockets included.
pub fn open_files(process: &Process) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap();
    files.count()
}

/// How many connections the system has at this address of a server, those included that the server
/// has closed and whose last bytes the system goes on offering.
pub fn connections(addr: SocketAddr) -> usize {
    let port = format!(":{:04X}", addr.port());
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let ours = table.lines().skip(1).filter(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next().unwrap(), fields.nth(1).unwrap());
        local.ends_with(&port) && ![TIME_WAIT, LISTEN].contains(&state)
    });
    ours.count()
}

/// Where a process listens, by IPv4.
pub fn listening(pid: u32) -> Vec<SocketAddr> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    // A file may be closed meanwhile.
    let links = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
    let sockets: Vec<String> = links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let listens = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields[1], fields[3], fields[9]);
        let (ip, port) = local.split_once(':')?;
        let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
        let port = u16::from_str_radix(port, 16).ok()?;
        let is_its = state == LISTEN && sockets.iter().any(|socket| socket == inode);
        is_its.then(|| (ip, port).into())
    };
    table.lines().skip(1).filter_map(listens).collect()
}

/// Asks until `found`: what is asked for may be on its way.
pub fn when<T: std::fmt::Debug>(ask: impl Fn() -> T, found: impl Fn(&T) -> bool, what: &str) -> T {
    let begun = Instant::now();
    loop {
        let answer = ask();
        if found(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: it is {answer:?}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

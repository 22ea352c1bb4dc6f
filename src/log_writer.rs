//! The way of a log line to standard error: a bounded queue, and a thread of its own that empties
//! it.
//!
//! Standard error may stop taking bytes: the reader of a pipe sleeps, a terminal is paused, a disk
//! hangs. A worker thread that waited for it would stop all of its rooms. So no thread but the
//! writer ever waits: a line for which the queue has no room is dropped and counted. Once half of
//! the queue is free again, one line says how many were dropped. Lines of importance may use a part of
//! the queue that is closed to the others, so those that were accepted since the first dropped line
//! may stand before that notice.

use std::{
    collections::VecDeque,
    io,
    os::fd::BorrowedFd,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, write},
};

/// What may wait to be written: lines and bytes, whichever is reached first.
#[derive(Clone, Copy)]
struct Bound {
    lines: usize,
    bytes: usize,
}

/// For lines of importance.
const WHOLE: Bound = Bound {
    lines: 8_192,
    bytes: 4 << 20,
};

/// For all other lines: seven eighths.
const ORDINARY: Bound = Bound {
    lines: WHOLE.lines / 8 * 7,
    bytes: WHOLE.bytes / 8 * 7,
};

/// Refused lines are accepted again once at most this is left in the queue.
const HALF: Bound = Bound {
    lines: WHOLE.lines / 2,
    bytes: WHOLE.bytes / 2,
};

/// The writer offers standard error so many bytes at a time, and a line's rest where it is longer.
const CHUNK: usize = 16 << 10;

/// An empty queue keeps no more memory than this, in bytes.
const SPARE: usize = 256 << 10;

/// The queue. Threads push lines; one thread runs [`LogWriter::run`].
pub struct LogWriter {
    queue: Mutex<Queue>,
    /// The writer waits here for lines.
    filled: Condvar,
    /// Flushes wait here for the writer.
    written: Condvar,
    /// Lines that were dropped since the start.
    dropped: AtomicU64,
    /// Makes the line that says how many were dropped.
    notice: fn(u64) -> Vec<u8>,
}

#[derive(Default)]
struct Queue {
    /// Whole lines, each with its line feed. What is being written stays until it has been.
    bytes: VecDeque<u8>,
    lines: usize,
    /// Bytes that were ever let in, and those of them that are no longer in the queue.
    pushed: u64,
    gone: u64,
    /// Lines that were dropped and that no notice has reported.
    unreported: u64,
    /// Those of them that the notice in front of the present chunk reports.
    reporting: u64,
    /// Lines were dropped for want of room: ordinary lines are not let in until half of it is free.
    is_refusing: bool,
    /// The last write failed.
    is_broken: bool,
    /// The last write failed within a line.
    is_torn: bool,
    writer_waits: bool,
    flushes: usize,
}

impl Queue {
    fn fits(&self, line: &[u8], bound: Bound) -> bool {
        self.lines < bound.lines && self.bytes.len() + line.len() <= bound.bytes
    }

    fn append(&mut self, lines: &[u8]) {
        self.bytes.extend(lines);
        self.lines += count_lines(lines);
        self.pushed += lines.len() as u64;
    }

    /// Lets lines in again once half of the queue is free. All of the lines that were dropped
    /// belong behind those that wait, and so does the notice of them.
    fn reopen(&mut self, notice: fn(u64) -> Vec<u8>) {
        if self.is_refusing && self.fits(&[], HALF) {
            self.is_refusing = false;
            if !self.is_broken {
                let count = std::mem::take(&mut self.unreported);
                self.append(&notice(count));
            }
        }
    }
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

impl LogWriter {
    /// An empty queue; `notice` makes the line that says how many lines were dropped.
    pub const fn new(notice: fn(u64) -> Vec<u8>) -> Self {
        Self {
            queue: Mutex::new(Queue {
                bytes: VecDeque::new(),
                lines: 0,
                pushed: 0,
                gone: 0,
                unreported: 0,
                reporting: 0,
                is_refusing: false,
                is_broken: false,
                is_torn: false,
                writer_waits: false,
                flushes: 0,
            }),
            filled: Condvar::new(),
            written: Condvar::new(),
            dropped: AtomicU64::new(0),
            notice,
        }
    }

    /// Puts a line into the queue, or drops it where there is no room. Never waits for the writer.
    pub fn push(&self, line: &[u8], is_important: bool) {
        let mut queue = self.lock();
        let bound = if is_important { WHOLE } else { ORDINARY };
        if queue.fits(line, bound) && (is_important || !queue.is_refusing) {
            queue.append(line);
        } else {
            queue.is_refusing = true;
            queue.unreported += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if std::mem::take(&mut queue.writer_waits) {
            drop(queue);
            self.filled.notify_one();
        }
    }

    /// Waits until all that was pushed before has been written or given up, but no longer than
    /// `timeout`. Returns whether it has.
    pub fn flush(&self, timeout: Duration) -> bool {
        let mut queue = self.lock();
        let pushed = queue.pushed;
        queue.flushes += 1;
        let waited = self
            .written
            .wait_timeout_while(queue, timeout, |queue| queue.gone < pushed);
        let (mut queue, result) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.flushes -= 1;
        !result.timed_out()
    }

    /// How many lines were dropped since the start, those included that could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes the lines as they come, for ever; to be run by one thread. A write that fails costs
    /// its lines and nothing else: the next lines are tried again.
    pub fn run(&self, to: BorrowedFd<'_>) -> ! {
        let mut chunk = Vec::new();
        loop {
            let extra = self.next_chunk(&mut chunk);
            let written = match write_all(to, &chunk) {
                Ok(()) => chunk.len(),
                Err(written) => written,
            };
            self.settle(&chunk, extra, written);
        }
    }

    /// Waits for lines and copies the first ones. In front of them there may be bytes that are not
    /// in the queue: after a write that failed, the notice of what was lost. Returns their number.
    fn next_chunk(&self, chunk: &mut Vec<u8>) -> usize {
        let mut queue = self.lock();
        queue.reopen(self.notice);
        while queue.bytes.is_empty() {
            queue.writer_waits = true;
            queue = self
                .filled
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.reopen(self.notice);
        }
        chunk.clear();
        if queue.is_torn {
            chunk.push(b'\n');
        }
        queue.reporting = if queue.is_broken { queue.unreported } else { 0 };
        if queue.reporting > 0 {
            chunk.extend((self.notice)(queue.reporting));
        }
        let extra = chunk.len();
        let (first, second) = queue.bytes.as_slices();
        chunk.extend(&first[..first.len().min(CHUNK)]);
        let room = CHUNK - (chunk.len() - extra);
        chunk.extend(&second[..second.len().min(room)]);
        // Whole lines: up to the last line feed, or on to the first.
        match chunk[extra..].iter().rposition(|byte| *byte == b'\n') {
            Some(end) => chunk.truncate(extra + end + 1),
            None => {
                let rest = queue.bytes.iter().skip(chunk.len() - extra);
                for byte in rest {
                    chunk.push(*byte);
                    if *byte == b'\n' {
                        break;
                    }
                }
            }
        }
        extra
    }

    /// Takes the lines of a chunk out of the queue. All but the first `written` bytes of the chunk
    /// are lost.
    fn settle(&self, chunk: &[u8], extra: usize, written: usize) {
        let lines = count_lines(&chunk[extra..]);
        let lost = count_lines(&chunk[written.max(extra)..]);
        let mut queue = self.lock();
        queue.bytes.drain(..chunk.len() - extra);
        if queue.bytes.is_empty() {
            queue.bytes.shrink_to(SPARE);
        }
        queue.gone += (chunk.len() - extra) as u64;
        queue.lines -= lines;
        if written >= extra {
            queue.unreported -= std::mem::take(&mut queue.reporting);
        }
        queue.is_broken = lost > 0;
        queue.is_torn = match written {
            0 => queue.is_torn,
            _ => chunk[written - 1] != b'\n',
        };
        queue.unreported += lost as u64;
        self.dropped.fetch_add(lost as u64, Ordering::Relaxed);
        let flushes = queue.flushes;
        drop(queue);
        if flushes > 0 {
            self.written.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all bytes, however long that takes.
///
/// # Errors
/// How many bytes were written, where the rest cannot be.
fn write_all(to: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), usize> {
    let mut written = 0;
    while written < bytes.len() {
        match write(to, &bytes[written..]) {
            Ok(0) => return Err(written),
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            // Another process that shares the file description has made it nonblocking.
            Err(Errno::AGAIN) => {
                if wait_writable(to, None).is_err() {
                    return Err(written);
                }
            }
            Err(_) => return Err(written),
        }
    }
    Ok(())
}

/// The most bytes that fit into a pipe which poll(2) calls writable.
const PIPE_PAGE: usize = 4096;

/// Writes past the queue, for errors before the writer runs. Gives up at the first error, which
/// cannot be reported, and after `timeout`.
pub fn write_directly(to: BorrowedFd<'_>, mut bytes: &[u8], timeout: Duration) {
    let end = Instant::now() + timeout;
    while !bytes.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if !matches!(wait_writable(to, Some(left)), Ok(true)) {
            return;
        }
        match write(to, &bytes[..bytes.len().min(PIPE_PAGE)]) {
            Ok(count @ 1..) => bytes = &bytes[count..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// Waits until bytes would be taken or refused. `false`: not within `timeout`.
///
/// # Errors
/// Where the system refuses to wait.
fn wait_writable(to: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    let end = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(&to, PollFlags::OUT)], left.as_ref()) {
            Err(Errno::INTR) => {}
            result => return Ok(result? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, PipeReader, PipeWriter, Read, pipe},
        os::fd::AsFd,
        thread,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn notice(count: u64) -> Vec<u8> {
        format!("dropped {count}\n").into_bytes()
    }

    fn queue() -> &'static LogWriter {
        Box::leak(Box::new(LogWriter::new(notice)))
    }

    /// A queue whose writer writes into a pipe.
    fn running() -> (&'static LogWriter, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        let queue = queue();
        write_to(queue, writer);
        (queue, reader)
    }

    fn write_to(queue: &'static LogWriter, to: PipeWriter) {
        thread::spawn(move || queue.run(to.as_fd()));
    }

    #[test]
    fn lines_are_written_in_their_order() {
        let (queue, reader) = running();
        for n in 0..1_000 {
            queue.push(format!("line {n}\n").as_bytes(), n % 7 == 0);
        }
        let lines: Vec<String> = BufReader::new(reader)
            .lines()
            .take(1_000)
            .map(Result::unwrap)
            .collect();
        let expected: Vec<String> = (0..1_000).map(|n| format!("line {n}")).collect();
        assert_eq!(lines, expected);
        assert!(queue.flush(PATIENCE));
        assert_eq!(queue.dropped(), 0);
    }

    /// Pushes lines and counts those that the queue refuses.
    fn refused(queue: &LogWriter, lines: usize, line: &[u8], is_important: bool) -> u64 {
        let before = queue.dropped();
        for _ in 0..lines {
            queue.push(line, is_important);
        }
        queue.dropped() - before
    }

    #[test]
    fn a_full_queue_refuses_ordinary_lines_first() {
        let by_lines = queue();
        let most = ORDINARY.lines;
        assert_eq!(refused(by_lines, most, b"info\n", false), 0);
        assert_eq!(refused(by_lines, 100, b"info\n", false), 100);
        let reserve = WHOLE.lines - ORDINARY.lines;
        assert_eq!(refused(by_lines, reserve, b"warn\n", true), 0);
        assert_eq!(refused(by_lines, 10, b"warn\n", true), 10);

        let by_bytes = queue();
        let mut long = vec![b'x'; 64 << 10];
        long[(64 << 10) - 1] = b'\n';
        assert_eq!(refused(by_bytes, 56, &long, false), 0);
        assert_eq!(refused(by_bytes, 1, &long, false), 1);
        assert_eq!(refused(by_bytes, 8, &long, true), 0);
        assert_eq!(refused(by_bytes, 1, &long, true), 1);
    }

    #[test]
    fn one_notice_stands_where_lines_are_missing() {
        let queue = queue();
        refused(queue, ORDINARY.lines, b"before\n", false);
        assert_eq!(refused(queue, 321, b"lost\n", false), 321);
        let (reader, writer) = pipe().unwrap();
        write_to(queue, writer);
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let mut before = 0;
        let notice = loop {
            match lines.next().unwrap().as_str() {
                "before" => before += 1,
                other => break other.to_owned(),
            }
        };
        assert_eq!((before, notice.as_str()), (ORDINARY.lines, "dropped 321"));
        queue.push(b"after\n", false);
        assert_eq!(lines.next().unwrap(), "after");
    }

    #[test]
    fn a_line_that_never_fits_is_reported_at_once() {
        let (queue, reader) = running();
        queue.push(&vec![b'x'; WHOLE.bytes + 1], true);
        let mut lines = BufReader::new(reader).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "dropped 1");
        // A long one that fits is one line.
        let mut long = vec![b'y'; 3 * CHUNK];
        long.push(b'\n');
        queue.push(&long, false);
        assert_eq!(lines.next().unwrap().unwrap().len(), 3 * CHUNK);
    }

    #[test]
    fn a_flush_that_cannot_end_is_bounded() {
        let (queue, _reader) = running();
        let begun = Instant::now();
        refused(queue, 2_000, &[&[b'x'; 99][..], b"\n"].concat(), false);
        assert!(!queue.flush(Duration::from_millis(50)));
        assert!(begun.elapsed() < PATIENCE);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let queue = queue();
        write_to(queue, writer);
        for n in 1..=3 {
            queue.push(b"lost\n", true);
            assert!(queue.flush(PATIENCE));
            assert_eq!(queue.dropped(), n);
        }
    }

    #[test]
    fn after_failed_writes_a_notice_comes_first() {
        let queue = queue();
        let chunk_of = |queue: &LogWriter| {
            let mut chunk = Vec::new();
            let extra = queue.next_chunk(&mut chunk);
            (String::from_utf8(chunk).unwrap(), extra)
        };
        queue.push(b"one\n", false);
        queue.push(b"two\n", false);
        let (chunk, extra) = chunk_of(queue);
        assert_eq!((chunk.as_str(), extra), ("one\ntwo\n", 0));
        // The system has taken a line and a half.
        queue.settle(chunk.as_bytes(), extra, 6);
        assert_eq!(queue.dropped(), 1);
        queue.push(b"three\n", false);
        let (chunk, extra) = chunk_of(queue);
        assert_eq!(chunk, "\ndropped 1\nthree\n");
        // Nothing is taken: the notice is due again, and counts one more.
        queue.settle(chunk.as_bytes(), extra, 0);
        queue.push(b"four\n", false);
        let (chunk, extra) = chunk_of(queue);
        assert_eq!(chunk, "\ndropped 2\nfour\n");
        queue.settle(chunk.as_bytes(), extra, chunk.len());
        queue.push(b"five\n", false);
        assert_eq!(chunk_of(queue).0, "five\n");
        assert_eq!(queue.dropped(), 2);
    }

    #[test]
    fn a_nonblocking_description_is_waited_for() {
        let (mut reader, writer) = pipe().unwrap();
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        let nonblocking = flags | rustix::fs::OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(&writer, nonblocking).unwrap();
        let queue = queue();
        write_to(queue, writer);
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        refused(queue, 200, &line, false);
        let mut all = vec![0; 200 * 1024];
        reader.read_exact(&mut all).unwrap();
        assert!(queue.flush(PATIENCE));
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_direct_write_waits_no_longer_than_it_may() {
        let (reader, writer) = pipe().unwrap();
        let text = vec![b'x'; 1 << 20];
        let begun = Instant::now();
        write_directly(writer.as_fd(), &text, Duration::from_millis(50));
        assert!(begun.elapsed() < PATIENCE);
        drop(reader);
        write_directly(writer.as_fd(), b"nobody reads this", PATIENCE);
    }
}

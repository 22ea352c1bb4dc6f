//! Chunks that are ready to be written.
//!
//! New memory is dear where it is touched first: the system has to clear it, a large page in one go,
//! and that took six milliseconds on the machine it was measured on. A thread whose rooms
//! fill up would stand still for that, again and again. So a thread of its own touches chunks ahead;
//! and those that are let go are kept for a while, since some room will want them.

use std::{
    cell::RefCell,
    sync::{
        OnceLock,
        mpsc::{self, Receiver, Sender, TryRecvError},
    },
    thread,
};

/// The size of a chunk.
pub(super) const CHUNK: usize = 8 * 1024;

/// So many chunks are made ready at a time: a large page of them.
const BATCH: usize = 256;

/// With fewer than these, the next ones are asked for.
const LOW: usize = BATCH / 2;

/// More than these go back to the allocator. With a batch on its way it is 4 MiB a thread at most.
const MOST: usize = BATCH;

/// How much less than the others the thread that touches them counts.
const NICE: i32 = 10;

type Chunk = Vec<u8>;

thread_local! {
    static HERE: RefCell<Reserve> = RefCell::default();
}

/// An empty chunk, the next time [`CHUNK`] bytes are wanted on this thread.
pub(super) fn take() -> Chunk {
    HERE.with_borrow_mut(Reserve::take)
}

/// A chunk that is not wanted any more, of whatever size.
pub(super) fn give_back(chunk: Chunk) {
    if chunk.capacity() == CHUNK {
        // At the end of a thread it goes to the allocator.
        let _ = HERE.try_with(|here| here.borrow_mut().give_back(chunk));
    }
}

/// What is ready on one thread.
#[derive(Default)]
struct Reserve {
    ready: Vec<Chunk>,
    /// On their way.
    asked: Option<Receiver<Vec<Chunk>>>,
}

impl Reserve {
    fn take(&mut self) -> Chunk {
        if self.ready.len() < LOW {
            self.refill();
        }
        // Faster than they are made ready: then this thread has to touch it.
        let chunk = self.ready.pop();
        chunk.unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    fn give_back(&mut self, mut chunk: Chunk) {
        if self.ready.len() < MOST {
            chunk.clear();
            self.ready.push(chunk);
        }
    }

    fn refill(&mut self) {
        let Some(asked) = &self.asked else {
            self.asked = ask();
            return;
        };
        match asked.try_recv() {
            Ok(chunks) => {
                self.ready.extend(chunks);
                self.asked = None;
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => self.asked = None,
        }
    }
}

/// Has a batch made ready. `None`: there is nobody to do it.
fn ask() -> Option<Receiver<Vec<Chunk>>> {
    static SUPPLIER: OnceLock<Option<Sender<Sender<Vec<Chunk>>>>> = OnceLock::new();
    let supplier = SUPPLIER.get_or_init(start_supplier).as_ref()?;
    let (reply, asked) = mpsc::channel();
    supplier.send(reply).ok()?;
    Some(asked)
}

fn start_supplier() -> Option<Sender<Sender<Vec<Chunk>>>> {
    let (supplier, wishes) = mpsc::channel::<Sender<Vec<Chunk>>>();
    thread::Builder::new()
        .name("memory".into())
        .spawn(move || {
            if let Err(error) = rustix::process::nice(NICE) {
                log::debug!(error:% = error; "the thread that touches memory counts like the others");
            }
            for wish in wishes {
                // A thread that has ended meanwhile needs none.
                let _ = wish.send((0..BATCH).map(|_| touched()).collect());
            }
        })
        .inspect_err(|error| log::warn!(error:% = error; "memory is not made ready ahead"))
        .ok()?;
    Some(supplier)
}

/// An empty chunk whose memory has been written to.
fn touched() -> Chunk {
    // Not with zeros: new memory is known to hold those, and would not be written to.
    let mut chunk = vec![1; CHUNK];
    chunk.clear();
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_takes_chunks_is_sent_more() {
        let mut reserve = Reserve::default();
        assert_eq!(reserve.take().capacity(), CHUNK, "without waiting");
        let asked = reserve.asked.take().expect("it has asked for more");
        let chunks = asked.recv().expect("they come");
        assert_eq!(chunks.len(), BATCH);
        assert!(chunks.iter().all(|c| c.is_empty() && c.capacity() == CHUNK));
    }

    #[test]
    fn what_comes_back_is_used_again_but_not_hoarded() {
        let mut reserve = Reserve::default();
        for _ in 0..MOST + 10 {
            reserve.give_back(vec![7; CHUNK]);
        }
        assert_eq!(reserve.ready.len(), MOST);
        assert!(reserve.take().is_empty());
        assert_eq!(reserve.ready.len(), MOST - 1);
    }
}

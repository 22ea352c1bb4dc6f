//! A hint to the processor: memory that is about to be written is fetched meanwhile.
//!
//! Memory that was not touched for some milliseconds takes some hundred cycles to come, and a processor
//! that writes in order soon waits for it. Whoever knows early where it is going to write says so here.

use std::mem::MaybeUninit;

/// The size of what is fetched at a time.
const LINE: usize = 64;

/// Has this memory fetched, but perhaps for the end of it. It is left as it is.
#[inline]
pub fn prefetch(memory: &[MaybeUninit<u8>]) {
    for line in memory.chunks(LINE) {
        fetch(line.as_ptr());
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the instruction has no safe name")]
fn fetch(at: *const MaybeUninit<u8>) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    // SAFETY: the instruction is in every x86-64 processor. It reads nothing into the program, changes
    // nothing and never faults, wherever `at` points (Intel's manual, volume 2, PREFETCHh).
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

/// Others do without.
#[cfg(not(target_arch = "x86_64"))]
fn fetch(_: *const MaybeUninit<u8>) {}

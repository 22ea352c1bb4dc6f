//! The memory of a history: records of bytes, added at the end and dropped from the front.
//!
//! A busy server keeps tens of megabytes of them and touches each byte twice, when it is written and
//! when it is overwritten, so what they cost is cold memory. Hence one run of bytes, in which a
//! record's head stands before its text; and chunks of a fixed size, which are let go one by one and are
//! the next to be written: a room that fills up copies nothing.

use std::{
    collections::{VecDeque, vec_deque},
    iter::{Chain, Once, once},
    mem,
};

use bytes::{Buf, BufMut, buf::Take};

use crate::{clock::Millis, ids::MemberId, prefetch::prefetch};

/// The size of a chunk.
const CHUNK: usize = 8 * 1024;

/// The first chunks of a room are smaller, since most rooms say little; this is the smallest.
const FIRST_CHUNK: usize = 512;

/// How much is fetched ahead: an ordinary message. Of a longer one the processor sees itself where it goes.
const AHEAD: usize = 320;

/// What stands before each text. Events without a cause say 0, which is nobody's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) number: u64,
    /// Who caused it.
    pub(super) cause: Option<MemberId>,
    pub(super) at: Millis,
    /// The length of its text, and where the gap is in it.
    pub(super) len: u32,
    pub(super) gap: u32,
}

impl Head {
    /// How many bytes it takes.
    pub(super) const SIZE: usize = 32;

    fn write(self, out: &mut Vec<u8>) {
        out.put_u64_ne(self.number);
        out.put_u64_ne(self.cause.map_or(0, |cause| cause.0));
        out.put_u64_ne(self.at);
        out.put_u32_ne(self.len);
        out.put_u32_ne(self.gap);
    }

    /// The head with which `bytes` begin, which are then those of its text.
    fn read(bytes: &mut impl Buf) -> Self {
        Self {
            number: bytes.get_u64_ne(),
            cause: Some(MemberId(bytes.get_u64_ne())).filter(|cause| cause.0 > 0),
            at: bytes.get_u64_ne(),
            len: bytes.get_u32_ne(),
            gap: bytes.get_u32_ne(),
        }
    }

    /// How many bytes it takes with its text.
    fn size(&self) -> usize {
        Self::SIZE + self.len as usize
    }
}

/// The records, oldest first.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The chunks that are written: full, or without room for a further head. A text may go on in the
    /// next one.
    full: VecDeque<Vec<u8>>,
    /// The one that is being written.
    last: Vec<u8>,
    /// Where the first record begins in the first chunk.
    start: usize,
    /// The head of the first record, so that looking at it does not touch its memory.
    first: Option<Head>,
    len: usize,
    bytes: usize,
}

impl Records {
    /// Has the memory fetched that the next record will be written to.
    pub(super) fn prefetch(&mut self) {
        let spare = self.last.spare_capacity_mut();
        prefetch(&spare[..spare.len().min(AHEAD)]);
    }

    /// Adds one at the end; `head.len` is the length of `text`.
    pub(super) fn push(&mut self, head: Head, mut text: impl Buf) {
        debug_assert_eq!(head.len as usize, text.remaining());
        // The counts first: they are soon read together, which waits until both are written, and what is
        // written leaves the processor in order, behind cold memory if that comes before.
        self.bytes += head.size();
        self.len += 1;
        self.first.get_or_insert(head);
        self.make_room(Head::SIZE);
        head.write(&mut self.last);
        while text.has_remaining() {
            self.make_room(1);
            let piece = text.chunk();
            let fits = piece.len().min(self.last.capacity() - self.last.len());
            self.last.extend_from_slice(&piece[..fits]);
            text.advance(fits);
        }
    }

    /// Begins a chunk if the last one has no room for so many bytes.
    fn make_room(&mut self, bytes: usize) {
        if self.last.capacity() - self.last.len() < bytes {
            let capacity = (2 * self.bytes).clamp(FIRST_CHUNK, CHUNK);
            let full = mem::replace(&mut self.last, Vec::with_capacity(capacity));
            if !full.is_empty() {
                self.full.push_back(full);
            }
        }
    }

    /// Drops the first one; what stood before its text.
    pub(super) fn pop_first(&mut self) -> Option<Head> {
        let first = self.first.take()?;
        self.len -= 1;
        self.bytes -= first.size();
        self.start += first.size();
        while let Some(chunk) = self.full.front()
            && chunk.len() <= self.start
        {
            self.start -= chunk.len();
            self.full.pop_front();
        }
        if self.len > 0 {
            self.first = Some(Head::read(&mut self.cursor()));
        } else {
            // A quiet room holds no memory.
            *self = Self::default();
        }
        Some(first)
    }

    /// What stands before the first text.
    pub(super) fn first(&self) -> Option<&Head> {
        self.first.as_ref()
    }

    /// All of them, oldest first, with their texts, of which there are `len` bytes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Head, Take<Cursor<'_>>)> {
        let mut rest = self.cursor();
        (0..self.len).map(move |_| {
            let head = Head::read(&mut rest);
            let text = rest.clone().take(head.len as usize);
            rest.advance(head.len as usize);
            (head, text)
        })
    }

    fn cursor(&self) -> Cursor<'_> {
        let mut chunks = self.full.iter().chain(once(&self.last));
        let chunk = chunks.next().map_or(&[][..], |first| &first[self.start..]);
        Cursor {
            chunk,
            chunks,
            remaining: self.bytes,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many bytes they take, their heads included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The memory that is held for them.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let full: usize = self.full.iter().map(Vec::capacity).sum();
        full + self.last.capacity()
    }
}

/// Bytes of records, from one of them on.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    /// What is left of this chunk; empty only at the end.
    chunk: &'a [u8],
    /// The chunks behind it.
    chunks: Chain<vec_deque::Iter<'a, Vec<u8>>, Once<&'a Vec<u8>>>,
    remaining: usize,
}

impl Buf for Cursor<'_> {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.chunk
    }

    fn advance(&mut self, mut by: usize) {
        self.remaining -= by;
        while by >= self.chunk.len()
            && let Some(next) = self.chunks.next()
        {
            by -= self.chunk.len();
            self.chunk = next;
        }
        self.chunk = &self.chunk[by..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(number: u64, text: &[u8]) -> Head {
        Head {
            number,
            cause: (!number.is_multiple_of(3)).then_some(MemberId(number)),
            at: number * 10,
            len: text.len() as u32,
            gap: 7,
        }
    }

    proptest! {
        #[test]
        fn it_is_a_queue(
            steps in prop::collection::vec(
                prop_oneof![
                    4 => (0usize..600).prop_map(Some),
                    1 => (0usize..40_000).prop_map(Some),
                    4 => Just(None),
                ],
                0..300,
            ),
        ) {
            let mut records = Records::default();
            let mut model: VecDeque<(Head, Vec<u8>)> = VecDeque::new();
            for (number, step) in (0..).zip(steps) {
                match step {
                    Some(len) => {
                        let text: Vec<u8> = (0..len).map(|n| (n as u64 + number) as u8).collect();
                        records.push(head(number, &text), &text[..]);
                        model.push_back((head(number, &text), text));
                    }
                    None => prop_assert_eq!(
                        records.pop_first(),
                        model.pop_front().map(|(head, _)| head)
                    ),
                }
                prop_assert_eq!(records.first(), model.front().map(|(head, _)| head));
                prop_assert_eq!(records.len(), model.len());
                let bytes = model.iter().map(|(_, text)| Head::SIZE + text.len()).sum::<usize>();
                prop_assert_eq!(records.bytes(), bytes);
                // One that has just been begun, one that is nearly gone, and what is too short for a head.
                let unused = records.full.len() * (Head::SIZE - 1);
                prop_assert!(records.capacity() < bytes + 2 * CHUNK + unused);
            }
            let all: Vec<_> = records
                .iter()
                .map(|(head, mut text)| (head, text.copy_to_bytes(text.remaining()).to_vec()))
                .collect();
            prop_assert_eq!(all, Vec::from(model));
        }
    }

    #[test]
    fn a_quiet_room_holds_little_and_an_empty_one_nothing() {
        let mut records = Records::default();
        for number in 1..4 {
            records.push(head(number, &[1; 100]), &[1; 100][..]);
        }
        assert!(records.capacity() <= FIRST_CHUNK);
        while records.pop_first().is_some() {}
        assert_eq!((records.capacity(), records.full.capacity()), (0, 0));
    }
}

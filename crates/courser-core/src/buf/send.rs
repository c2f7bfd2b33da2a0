//! Bytes for sending, by offset.
//!
//! Bytes wait here from the write until they are acknowledged. A piece is either a chunk of the pool that small writes were
//! copied into, or bytes that the application handed over and that are never copied. Packets are sealed straight from the
//! pieces, so a slice is contiguous to the end of its piece.
//!
//! Finding an offset is a binary search over the pieces; a hint makes sequential access constant. Which bytes are pending,
//! sent or lost is not known here: that is the send state's business.
//!
//! Invariants: the pieces cover `pieces[0].offset..end` without a gap; `base` lies in the first piece, or equals `end`.

use std::collections::VecDeque;

use bytes::Bytes;

use super::pool::{Chunk, ChunkPool};

/// Handed-over bytes up to this length are copied: a copy is cheaper than holding a small piece of its own.
pub const COPIED_MAX: usize = 1024;

#[derive(Debug)]
enum Piece {
    /// Copied bytes: the first `end` bytes of the chunk.
    Chunk { chunk: Chunk, end: usize },
    /// Handed-over bytes.
    Owned(Bytes),
}

#[derive(Debug)]
struct Entry {
    /// Offset of the piece's first byte.
    offset: u64,
    piece: Piece,
}

impl Entry {
    fn bytes(&self) -> &[u8] {
        match &self.piece {
            Piece::Chunk { chunk, end } => &chunk.as_slice()[..*end],
            Piece::Owned(bytes) => bytes,
        }
    }

    fn end(&self) -> u64 {
        self.offset + self.bytes().len() as u64
    }
}

/// Bytes of one stream on their way out.
#[derive(Debug, Default)]
pub struct SendBuffer {
    pieces: VecDeque<Entry>,
    base: u64,
    end: u64,
    /// Index of the piece that was looked at last.
    hint: usize,
}

impl SendBuffer {
    /// An empty buffer whose next byte has this offset.
    #[must_use]
    pub fn new(base: u64) -> Self {
        Self { base, end: base, ..Self::default() }
    }

    /// Makes an emptied buffer serve from another offset on; keeps the memory of its list.
    pub fn restart(&mut self, base: u64) {
        debug_assert!(self.pieces.is_empty(), "only an emptied buffer changes its owner");
        (self.base, self.end, self.hint) = (base, base, 0);
    }

    /// Offset of the first byte that is held.
    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Offset behind the last byte.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Bytes held.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end - self.base
    }

    /// Whether no byte is held.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.base == self.end
    }

    /// Copies bytes to the end; says how many, which is fewer only when the pool is at its limit.
    pub fn push(&mut self, data: &[u8], pool: &mut ChunkPool) -> usize {
        let mut taken = 0;
        if let Some(Entry { piece: Piece::Chunk { chunk, end }, .. }) = self.pieces.back_mut() {
            taken = data.len().min(chunk.len() - *end);
            chunk.as_mut_slice()[*end..*end + taken].copy_from_slice(&data[..taken]);
            *end += taken;
            self.end += taken as u64;
        }
        while taken < data.len() {
            let rest = &data[taken..];
            // A stream that holds much already is likely to go on so: fewer, larger pieces.
            let wanted = rest.len().max(usize::try_from(self.len() / 4).unwrap_or(usize::MAX));
            let Some(mut chunk) = pool.take_up_to(wanted) else { break };
            let n = rest.len().min(chunk.len());
            chunk.as_mut_slice()[..n].copy_from_slice(&rest[..n]);
            self.append(Piece::Chunk { chunk, end: n }, n);
            taken += n;
        }
        taken
    }

    /// Appends bytes without copying them; short ones are copied all the same, as long as the pool has room.
    pub fn push_owned(&mut self, mut data: Bytes, pool: &mut ChunkPool) {
        if data.len() <= COPIED_MAX {
            let copied = self.push(&data, pool);
            data = data.split_off(copied);
        }
        if !data.is_empty() {
            let n = data.len();
            self.append(Piece::Owned(data), n);
        }
    }

    /// So many pieces will be pushed, and most likely no more.
    pub fn expect_pieces(&mut self, count: usize) {
        self.pieces.reserve_exact(count);
    }

    /// The bytes from `offset` to the end of their piece; empty when the offset is not held.
    #[must_use]
    pub fn slice(&self, offset: u64) -> &[u8] {
        self.find(offset).map_or(&[], |i| self.from(i, offset))
    }

    /// Like [`Self::slice`], and remembers the place, so that the bytes behind it are found at once.
    pub fn seek(&mut self, offset: u64) -> &[u8] {
        match self.find(offset) {
            Some(i) => {
                self.hint = i;
                self.from(i, offset)
            }
            None => &[],
        }
    }

    /// Forgets the bytes before `offset`.
    pub fn release_to(&mut self, offset: u64, pool: &mut ChunkPool) {
        debug_assert!(offset <= self.end, "bytes that were never written cannot be acknowledged");
        self.base = self.base.max(offset.min(self.end));
        while self.pieces.front().is_some_and(|first| first.end() <= self.base) {
            self.hint = self.hint.saturating_sub(1);
            if let Some(Piece::Chunk { chunk, .. }) = self.pieces.pop_front().map(|first| first.piece) {
                pool.give(chunk);
            }
        }
    }

    /// Forgets the bytes from `offset` on; no byte may follow then.
    pub fn truncate(&mut self, offset: u64, pool: &mut ChunkPool) {
        let to = offset.max(self.base);
        while self.pieces.back().is_some_and(|last| last.offset >= to) {
            if let Some(Piece::Chunk { chunk, .. }) = self.pieces.pop_back().map(|last| last.piece) {
                pool.give(chunk);
            }
        }
        if let Some(last) = self.pieces.back_mut() {
            let kept = usize::try_from(to - last.offset).unwrap_or(usize::MAX);
            match &mut last.piece {
                Piece::Chunk { end, .. } => *end = kept.min(*end),
                Piece::Owned(bytes) => bytes.truncate(kept),
            }
        }
        self.end = self.end.min(to);
        self.hint = self.hint.min(self.pieces.len());
    }

    /// Forgets everything; the next byte's offset stays.
    pub fn clear(&mut self, pool: &mut ChunkPool) {
        self.release_to(self.end, pool);
    }

    fn append(&mut self, piece: Piece, len: usize) {
        self.pieces.push_back(Entry { offset: self.end, piece });
        self.end += len as u64;
    }

    fn find(&self, offset: u64) -> Option<usize> {
        if offset < self.base || offset >= self.end {
            return None;
        }
        // Sequential access stays in the piece of the hint or enters the next one.
        for i in [self.hint, self.hint + 1] {
            if self.pieces.get(i).is_some_and(|e| e.offset <= offset && offset < e.end()) {
                return Some(i);
            }
        }
        self.pieces.partition_point(|e| e.offset <= offset).checked_sub(1)
    }

    fn from(&self, index: usize, offset: u64) -> &[u8] {
        self.pieces.get(index).map_or(&[], |e| {
            let skip = usize::try_from(offset - e.offset).unwrap_or(usize::MAX);
            e.bytes().get(skip..).unwrap_or(&[])
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(from: u64, len: usize) -> Vec<u8> {
        (from..from + len as u64).map(|i| (i * 31 % 251) as u8).collect()
    }

    fn collect(b: &SendBuffer, mut from: u64) -> Vec<u8> {
        let mut all = Vec::new();
        while from < b.end() {
            let s = b.slice(from);
            assert!(!s.is_empty());
            all.extend_from_slice(s);
            from += s.len() as u64;
        }
        all
    }

    proptest! {
        #[test]
        fn behaves_like_a_vector(ops in prop::collection::vec((0u8..5, 0usize..9000), 1..80)) {
            let mut pool = ChunkPool::new(16 << 20);
            let (mut b, mut model, mut base) = (SendBuffer::new(0), Vec::new(), 0u64);
            for (op, n) in ops {
                let data = pattern(model.len() as u64, n);
                match op {
                    0 => { prop_assert_eq!(b.push(&data, &mut pool), n); model.extend(&data); }
                    1 => { b.push_owned(Bytes::from(data.clone()), &mut pool); model.extend(&data); }
                    2 => { prop_assert_eq!(b.push(&data[..n.min(20)], &mut pool), n.min(20)); model.extend(&data[..n.min(20)]); }
                    3 => { base = (base + n as u64).min(model.len() as u64); b.release_to(base, &mut pool); }
                    _ => {
                        let at = (n as u64 * 7) % (model.len() as u64 + 1);
                        let s = b.seek(at).to_vec();
                        prop_assert_eq!(s.is_empty(), at < base || at == model.len() as u64);
                        prop_assert_eq!(&s[..], &model[at as usize..at as usize + s.len()]);
                    }
                }
                prop_assert_eq!((b.base(), b.end()), (base, model.len() as u64));
            }
            prop_assert_eq!(collect(&b, base), &model[base as usize..]);
            b.clear(&mut pool);
            prop_assert_eq!((pool.in_use(), b.len()), (0, 0));
        }
    }

    #[test]
    fn a_truncated_buffer_keeps_the_front_and_gives_the_rest_back() {
        for cut in [0, 1, 511, 4_000, 5_000, 9_999, 10_000, 12_000] {
            let mut pool = ChunkPool::new(1 << 20);
            let mut b = SendBuffer::new(0);
            b.push(&pattern(0, 5_000), &mut pool);
            b.push_owned(Bytes::from(pattern(5_000, 5_000)), &mut pool);
            b.seek(9_000);
            b.release_to(300, &mut pool);
            b.truncate(cut, &mut pool);
            let kept = cut.clamp(300, 10_000);
            assert_eq!((b.end(), b.len()), (kept, kept - 300), "{cut}");
            assert_eq!(collect(&b, 300), pattern(300, (kept - 300) as usize), "{cut}");
            assert!(b.seek(kept).is_empty());
            b.clear(&mut pool);
            assert_eq!(pool.in_use(), 0, "{cut}");
        }
    }

    #[test]
    fn copies_have_every_length_around_the_class_sizes() {
        for n in [0, 1, 511, 512, 513, 4095, 4096, 4097, 65_535, 65_536, 65_537, 200_000] {
            let mut pool = ChunkPool::new(1 << 20);
            let mut b = SendBuffer::new(0);
            assert_eq!(b.push(&pattern(0, n), &mut pool), n);
            assert_eq!(collect(&b, 0), pattern(0, n));
        }
    }

    #[test]
    fn small_writes_share_a_chunk_and_large_ones_take_the_fitting_class() {
        let mut pool = ChunkPool::new(1 << 20);
        let mut b = SendBuffer::new(0);
        for _ in 0..50 {
            b.push(b"ten bytes.", &mut pool);
        }
        assert_eq!((pool.in_use(), pool.stats().in_use_bytes), (1, 512));
        b.clear(&mut pool);
        b.push(&[0; 65_536], &mut pool);
        assert_eq!((pool.in_use(), pool.stats().in_use_bytes), (1, 65_536));
    }

    #[test]
    fn handed_over_bytes_are_not_copied_unless_short() {
        let mut pool = ChunkPool::new(1 << 20);
        let mut b = SendBuffer::new(0);
        let big = Bytes::from(pattern(0, 5000));
        let at = big.as_ptr();
        b.push_owned(big, &mut pool);
        assert_eq!((pool.in_use(), b.slice(0).as_ptr()), (0, at));
        b.push_owned(Bytes::from_static(b"short"), &mut pool);
        assert_eq!((pool.in_use(), b.slice(5000)), (1, &b"short"[..]));
    }

    #[test]
    fn the_pool_at_its_limit_takes_fewer_bytes_and_loses_none() {
        let mut pool = ChunkPool::new(5000);
        let mut b = SendBuffer::new(0);
        let taken = b.push(&pattern(0, 9000), &mut pool);
        assert_eq!(taken, 4096 + 512, "smaller classes fill what is left");
        assert_eq!(collect(&b, 0), pattern(0, taken));
        b.push_owned(Bytes::from(pattern(taken as u64, 100)), &mut pool);
        assert_eq!(collect(&b, 0), pattern(0, taken + 100), "without room the short piece is held as it is");
        for n in 1..4 {
            let mut pool = ChunkPool::new(1 << 20);
            pool.fail_nth(n);
            let mut b = SendBuffer::new(0);
            let taken = b.push(&pattern(0, 150_000), &mut pool);
            assert_eq!(collect(&b, 0), pattern(0, taken));
            b.clear(&mut pool);
            assert_eq!(pool.in_use(), 0);
        }
    }

    #[test]
    fn an_acknowledged_prefix_is_freed_and_an_idle_buffer_holds_nothing() {
        let mut pool = ChunkPool::new(1 << 20);
        let mut b = SendBuffer::new(0);
        (0..256).for_each(|_| assert_eq!(b.push(&[1; 4096], &mut pool), 4096));
        let before = pool.stats().in_use_bytes;
        b.release_to(512 << 10, &mut pool);
        assert!(pool.stats().in_use_bytes <= before / 2 + 65_536);
        b.release_to(1 << 20, &mut pool);
        assert_eq!(pool.in_use(), 0);
        // NGX-BUF-05: the free list has them all.
        assert_eq!(pool.stats().free_bytes, before);
    }
}

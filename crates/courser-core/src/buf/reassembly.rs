//! Received bytes, put in order.
//!
//! Bytes are copied once, into chunks that lie at fixed offsets: it does not matter how the peer cuts and reorders its
//! frames, the memory is at most the window rounded up to chunks. Those of the first 64 KiB of a stream are of 4 KiB, for
//! thousands of short requests may wait to be read; later ones of bulk streams are of 64 KiB. A chunk is taken from the pool
//! when its first byte comes and given back when its last byte was read, or when nothing is buffered at all.
//!
//! `base..ready` can be read; `beyond` holds the ranges behind the first gap. In-order data touches neither the set nor
//! more than one chunk.
//!
//! Invariants: `base <= ready`; every range of `beyond` starts behind `ready`; slots are sorted and cover their span
//! without a gap; there is no slot while nothing is buffered.

use std::collections::VecDeque;

use super::pool::{Chunk, ChunkPool, Class};
use super::ranges::RangeSet;

/// Ranges that any stream may have, however small its window.
const RANGES_MIN: u64 = 1024;
/// One more range is allowed for so many bytes of window.
///
/// An honest peer makes at most one range for two packets: 1,200-byte packets of which every other one is lost leave a
/// range in about 2,300 bytes. Shorter packets come from applications with little to send, whom `RANGES_MIN` covers.
const WINDOW_PER_RANGE: u64 = 1024;
/// Ranges that all streams of a connection may have together, however small its window: thousands of short streams whose
/// first packets are lost have one each.
const RANGES_OF_ALL_MIN: u64 = 4096;

const SMALL: u64 = Class::Medium.bytes() as u64;
const LARGE: u64 = Class::Large.bytes() as u64;

/// Why received bytes could not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// The peer left more gaps than honest networks make.
    TooFragmented,
    /// The pool is at its limit.
    NoMemory,
}

/// A chunk's place in the stream.
#[derive(Debug)]
struct Slot {
    start: u64,
    size: u64,
    /// Absent until a byte of it came.
    chunk: Option<Chunk>,
}

impl Slot {
    const fn end(&self) -> u64 {
        self.start + self.size
    }
}

/// Bytes of one stream on their way in.
#[derive(Debug, Default)]
pub struct Reassembly {
    base: u64,
    ready: u64,
    beyond: RangeSet,
    slots: VecDeque<Slot>,
    /// Whether new slots are 64 KiB large.
    bulk: bool,
}

/// How many ranges a stream may have whose receive window is so large.
#[must_use]
pub fn range_cap(window: u64) -> usize {
    usize::try_from(RANGES_MIN.saturating_add(window / WINDOW_PER_RANGE)).unwrap_or(usize::MAX)
}

/// How many ranges all streams of a connection may have together whose receive window is so large. Without this limit each
/// of many streams could hold [`range_cap`] of them over a few kilobytes of credit.
#[must_use]
pub(crate) fn range_cap_of_all(window: u64) -> usize {
    usize::try_from(RANGES_OF_ALL_MIN.saturating_add(window / WINDOW_PER_RANGE)).unwrap_or(usize::MAX)
}

impl Reassembly {
    /// Nothing received yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets later chunks be 64 KiB large; for streams that showed that they move bulk.
    pub const fn set_bulk(&mut self, bulk: bool) {
        self.bulk = bulk;
    }

    /// Offset of the next byte to read.
    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Bytes that can be read now.
    #[must_use]
    pub const fn readable(&self) -> u64 {
        self.ready - self.base
    }

    /// Offset of the first byte that has not come.
    #[must_use]
    pub const fn ready(&self) -> u64 {
        self.ready
    }

    /// Ranges behind the first gap.
    #[must_use]
    pub fn gaps(&self) -> usize {
        self.beyond.len()
    }

    /// Whether no byte is buffered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.base == self.ready && self.beyond.is_empty()
    }

    /// What is before that offset was read elsewhere. Only before anything was received.
    pub fn begin_at(&mut self, offset: u64) {
        debug_assert!(self.is_empty() && self.slots.is_empty() && self.base == 0);
        (self.base, self.ready) = (offset, offset);
    }

    /// Keeps received bytes; says how many were new. `cap` is the most ranges that may lie behind the first gap.
    ///
    /// # Errors
    /// [`InsertError`]; what was readable stays readable.
    pub fn insert(&mut self, offset: u64, data: &[u8], cap: usize, pool: &mut ChunkPool) -> Result<u64, InsertError> {
        let end = offset.saturating_add(data.len() as u64);
        let start = offset.max(self.ready);
        if start >= end {
            return Ok(0);
        }
        let fresh = usize::try_from(start - offset).ok().and_then(|skip| data.get(skip..)).unwrap_or(&[]);
        if start == self.ready && self.beyond.is_empty() {
            self.store(start, fresh, pool)?;
            self.ready = end;
            return Ok(end - start);
        }
        self.store(start, fresh, pool)?;
        let new = self.beyond.insert_capped(start..end, cap).map_err(|_| InsertError::TooFragmented)?;
        if let Some(first) = self.beyond.first().filter(|r| r.start == self.ready) {
            self.ready = first.end;
            self.beyond.pop_first();
        }
        Ok(new)
    }

    /// The readable bytes that lie together; empty when there are none.
    #[must_use]
    pub fn peek(&self) -> &[u8] {
        let Some(slot) = self.slots.front() else { return &[] };
        let Some(chunk) = &slot.chunk else { return &[] };
        let within = |offset: u64| usize::try_from(offset - slot.start).unwrap_or(usize::MAX);
        chunk.as_slice().get(within(self.base)..within(self.ready.min(slot.end()))).unwrap_or(&[])
    }

    /// Takes up to `n` readable bytes away; says how many.
    pub fn consume(&mut self, n: u64, pool: &mut ChunkPool) -> u64 {
        let n = n.min(self.readable());
        self.base += n;
        if self.is_empty() {
            self.free_slots(pool);
        }
        while self.slots.front().is_some_and(|s| s.end() <= self.base) {
            if let Some(chunk) = self.slots.pop_front().and_then(|s| s.chunk) {
                pool.give(chunk);
            }
        }
        n
    }

    /// Copies readable bytes out; says how many.
    pub fn read(&mut self, out: &mut [u8], pool: &mut ChunkPool) -> usize {
        let mut done = 0;
        while done < out.len() {
            let piece = self.peek();
            let n = piece.len().min(out.len() - done);
            if n == 0 {
                break;
            }
            out[done..done + n].copy_from_slice(&piece[..n]);
            done += n;
            self.consume(n as u64, pool);
        }
        done
    }

    /// Forgets what was received from `limit` on, which is not before the next byte to read; says how many bytes that were.
    pub fn truncate(&mut self, limit: u64, pool: &mut ChunkPool) -> u64 {
        debug_assert!(self.base <= limit, "bytes that were read cannot be forgotten");
        let mut gone = self.ready.saturating_sub(limit);
        self.ready = self.ready.min(limit);
        gone += self.beyond.remove(limit..u64::MAX);
        if self.is_empty() {
            self.free_slots(pool);
        }
        while self.slots.back().is_some_and(|s| s.start >= limit) {
            if let Some(chunk) = self.slots.pop_back().and_then(|s| s.chunk) {
                pool.give(chunk);
            }
        }
        gone
    }

    /// Forgets everything buffered; reading goes on nowhere.
    pub fn clear(&mut self, pool: &mut ChunkPool) {
        self.base = self.ready;
        self.beyond.clear();
        self.free_slots(pool);
    }

    /// Forgets everything, so that another stream can use it from offset zero on.
    pub fn restart(&mut self, pool: &mut ChunkPool) {
        self.clear(pool);
        (self.base, self.ready, self.bulk) = (0, 0, false);
    }

    /// Bytes buffered, readable or behind a gap.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.readable() + self.beyond.iter().map(|r| r.end - r.start).sum::<u64>()
    }

    fn free_slots(&mut self, pool: &mut ChunkPool) {
        while let Some(slot) = self.slots.pop_front() {
            if let Some(chunk) = slot.chunk {
                pool.give(chunk);
            }
        }
    }

    /// Copies bytes to their places.
    fn store(&mut self, mut offset: u64, mut data: &[u8], pool: &mut ChunkPool) -> Result<(), InsertError> {
        self.cover(offset + data.len() as u64);
        let mut index = match self.slots.back() {
            Some(last) if last.start <= offset => self.slots.len() - 1,
            _ => self.slots.partition_point(|s| s.end() <= offset),
        };
        while !data.is_empty() {
            let slot = self.slots.get_mut(index).ok_or(InsertError::NoMemory)?;
            if slot.chunk.is_none() {
                let size = usize::try_from(slot.size).unwrap_or(usize::MAX);
                slot.chunk = Some(pool.take(size).ok_or(InsertError::NoMemory)?);
            }
            let at = usize::try_from(offset - slot.start).unwrap_or(usize::MAX);
            let room = slot.chunk.as_mut().and_then(|c| c.as_mut_slice().get_mut(at..)).unwrap_or(&mut []);
            let n = room.len().min(data.len());
            debug_assert!(n > 0, "a slot was found that does not hold the offset");
            room[..n].copy_from_slice(&data[..n]);
            (offset, data, index) = (offset + n as u64, &data[n..], index + 1);
        }
        Ok(())
    }

    /// Size of the chunks at an offset: only a stream that has moved a large one gets large ones.
    const fn chunk_at(&self, offset: u64) -> u64 {
        if self.bulk && offset >= LARGE { LARGE } else { SMALL }
    }

    /// Adds slots until they reach `end`.
    fn cover(&mut self, end: u64) {
        loop {
            // The first slot holds the next byte to read, wherever it lies in its chunk.
            let start = self.slots.back().map_or(self.base - self.base % self.chunk_at(self.base), Slot::end);
            if start >= end && !self.slots.is_empty() {
                return;
            }
            let size = if start.is_multiple_of(LARGE) { self.chunk_at(start) } else { SMALL };
            self.slots.push_back(Slot { start, size, chunk: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(from: u64, len: usize) -> Vec<u8> {
        (from..from + len as u64).map(|i| (i * 31 % 251) as u8).collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_vector_with_holes(
            bulk: bool,
            ops in prop::collection::vec((0u8..8, 0u64..200_000, 1usize..6000), 1..120),
        ) {
            let mut pool = ChunkPool::new(4 << 20);
            let mut r = Reassembly::new();
            r.set_bulk(bulk);
            let (mut have, mut read) = (vec![false; 220_000], 0u64);
            for (op, at, n) in ops {
                let prefix = have.iter().position(|h| !h).unwrap_or(have.len()) as u64;
                match op {
                    0..=4 => {
                        let at = if op < 2 { prefix.saturating_sub(at % 100) } else { at };
                        let new = have[at as usize..at as usize + n].iter().filter(|h| !**h).count() as u64;
                        have[at as usize..at as usize + n].fill(true);
                        prop_assert_eq!(r.insert(at, &pattern(at, n), usize::MAX, &mut pool), Ok(new));
                    }
                    5 => {
                        let mut out = vec![0; n];
                        let got = r.read(&mut out, &mut pool);
                        prop_assert_eq!(got as u64, (prefix - read).min(n as u64));
                        prop_assert_eq!(&out[..got], &pattern(read, got)[..]);
                        read += got as u64;
                    }
                    _ => {
                        let piece = r.peek();
                        prop_assert_eq!(piece, &pattern(read, piece.len())[..]);
                        prop_assert_eq!(piece.is_empty(), prefix == read);
                        read += r.consume(piece.len().min(n) as u64, &mut pool);
                    }
                }
                let prefix = have.iter().position(|h| !h).unwrap_or(have.len()) as u64;
                prop_assert_eq!((r.base(), r.readable()), (read, prefix - read));
            }
            r.clear(&mut pool);
            prop_assert_eq!(pool.in_use(), 0);
        }

        #[test]
        fn overlaps_duplicates_and_reordering_rebuild_the_bytes(seed in prop::collection::vec((0usize..300, 1usize..40), 0..60)) {
            let mut pool = ChunkPool::new(1 << 20);
            let mut r = Reassembly::new();
            let whole = pattern(0, 300);
            for (at, n) in seed {
                let end = (at + n).min(300);
                r.insert(at as u64, &whole[at..end], 1000, &mut pool).unwrap();
            }
            for at in (0..300).rev() {
                r.insert(at as u64, &whole[at..=at], 1000, &mut pool).unwrap();
            }
            let mut out = vec![0; 400];
            prop_assert_eq!(r.read(&mut out, &mut pool), 300);
            prop_assert_eq!(&out[..300], &whole[..]);
            prop_assert_eq!(pool.in_use(), 0);
        }
    }

    #[test]
    fn early_bytes_survive_what_becomes_of_the_buffer_that_they_came_in() {
        // NGX-BUF-10
        let (mut pool, mut r) = (ChunkPool::new(1 << 20), Reassembly::new());
        let mut buffer = pattern(5000, 3000);
        r.insert(5000, &buffer, 10, &mut pool).unwrap();
        buffer.fill(0xee);
        buffer.copy_from_slice(&pattern(2000, 3000));
        r.insert(2000, &buffer, 10, &mut pool).unwrap();
        buffer.fill(0xee);
        assert_eq!(r.readable(), 0);
        r.insert(0, &pattern(0, 2000), 10, &mut pool).unwrap();
        let mut out = vec![0; 9000];
        assert_eq!(r.read(&mut out, &mut pool), 8000);
        assert_eq!(out[..8000], pattern(0, 8000));
    }

    #[test]
    fn one_byte_frames_hold_no_more_than_the_window_and_two_chunks() {
        let window = 256 << 10;
        for bulk in [false, true] {
            let mut pool = ChunkPool::new(16 << 20);
            let mut r = Reassembly::new();
            r.set_bulk(bulk);
            let chunk = if bulk { 65_536 } else { 4096 };
            r.insert(0, &pattern(0, 1000), 10, &mut pool).unwrap();
            r.consume(1000, &mut pool);
            for at in (1001..1000 + window).rev().step_by(2) {
                r.insert(at, &[1], usize::MAX, &mut pool).unwrap();
            }
            let held = pool.stats().in_use_bytes as u64;
            assert!(held <= window + 2 * chunk, "{held}");
        }
    }

    /// Gives a million one-byte frames, each byte once, in the order that `at` says; returns the most ranges there were.
    fn million(bulk: bool, at: impl Fn(u64) -> u64) -> usize {
        const BYTES: u64 = 1_000_000;
        let mut pool = ChunkPool::new(16 << 20);
        let mut r = Reassembly::new();
        r.set_bulk(bulk);
        let chunk = if bulk { 65_536 } else { 4096 };
        let mut ranges = 0;
        for n in 0..BYTES {
            let offset = at(n);
            let byte = [(offset * 31 % 251) as u8];
            assert_eq!(r.insert(offset, &byte, range_cap(1 << 20), &mut pool), Ok(1));
            ranges = ranges.max(r.gaps());
            if n % 65_536 == 0 {
                let held = pool.stats().in_use_bytes as u64;
                assert!(held <= BYTES + 2 * chunk, "{held} bytes");
            }
        }
        let held = pool.stats().in_use_bytes as u64;
        assert!(held <= BYTES + 2 * chunk, "{held} bytes");
        let mut out = vec![0; BYTES as usize];
        assert_eq!(r.read(&mut out, &mut pool), out.len());
        assert!(out == pattern(0, out.len()));
        assert_eq!(pool.in_use(), 0);
        ranges
    }

    #[test]
    fn a_million_one_byte_frames_out_of_order_hold_the_window_and_take_linear_time() {
        // LS-STRM-29: a frame costs the logarithm of the number of ranges to find its place and at most that number to
        // make room there. That number has a limit, so that frames cost the same however many come.
        for bulk in [false, true] {
            assert_eq!(million(bulk, |n| 999_999 - n), 1, "from the end to the front");
            let (odd, evens) = (|n: u64| n % 1000 * 2 + 1, |n: u64| n % 1000 * 2);
            let by_pairs = move |n: u64| n / 2000 * 2000 + if n % 2000 < 1000 { odd(n) } else { evens(n) };
            assert_eq!(million(bulk, by_pairs), 1000, "odd bytes first, then even ones, in blocks");
            let scattered = |n: u64| n / 2000 * 2000 + n % 2000 * 1213 % 2000;
            let ranges = million(bulk, scattered);
            assert!((200..1000).contains(&ranges), "blocks in disorder: {ranges} ranges");
        }
    }

    #[test]
    fn a_peer_that_leaves_gaps_everywhere_is_found_out() {
        let window = 1 << 20;
        let mut pool = ChunkPool::new(16 << 20);
        let mut r = Reassembly::new();
        let failed =
            (0..window).rev().step_by(2).position(|at| r.insert(at, &[1], range_cap(window), &mut pool).is_err());
        assert_eq!(failed, Some(range_cap(window)));
        assert_eq!(r.readable(), 0);
    }

    #[test]
    fn the_worst_honest_path_is_not_taken_for_an_attack() {
        let (window, mut sent, mut n) = (16u64 << 20, 0, 0);
        let mut pool = ChunkPool::new(64 << 20);
        let mut r = Reassembly::new();
        let data = [7; 1160];
        // Every other packet of the smallest datagram size is lost, a whole window long.
        while sent + 1160 <= window {
            n += 1;
            if n % 2 == 0 {
                r.insert(sent, &data, range_cap(window), &mut pool).unwrap();
            }
            sent += 1160;
        }
        assert!(r.gaps() > 7000);
        // An application of 100-byte messages on a path that loses a tenth, within the smallest window.
        let mut r = Reassembly::new();
        for i in (0..2600).filter(|i| i % 10 != 0) {
            r.insert(i * 100, &data[..100], range_cap(256 << 10), &mut pool).unwrap();
        }
    }

    #[test]
    fn a_stream_with_nothing_buffered_holds_no_chunk() {
        let mut pool = ChunkPool::new(1 << 20);
        let mut r = Reassembly::new();
        for i in 0..100 {
            r.insert(i * 10, b"0123456789", 10, &mut pool).unwrap();
            assert_eq!(pool.in_use(), 1);
            assert_eq!(r.read(&mut [0; 64], &mut pool), 10);
            assert_eq!(pool.in_use(), 0);
        }
        assert_eq!(pool.stats().allocated, 1);
    }

    #[test]
    fn the_pool_at_its_limit_is_an_error_and_what_was_readable_stays() {
        let mut pool = ChunkPool::new(8192);
        let mut r = Reassembly::new();
        r.insert(0, &pattern(0, 5000), 10, &mut pool).unwrap();
        assert_eq!(r.insert(5000, &pattern(5000, 5000), 10, &mut pool), Err(InsertError::NoMemory));
        assert_eq!(r.readable(), 5000);
        let mut out = vec![0; 5000];
        assert_eq!(r.read(&mut out, &mut pool), 5000);
        assert_eq!(out, pattern(0, 5000));
        assert_eq!(r.insert(5000, &pattern(5000, 5000), 10, &mut pool), Ok(5000));
        r.clear(&mut pool);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn bulk_streams_lie_in_large_chunks() {
        let mut pool = ChunkPool::new(1 << 20);
        let mut r = Reassembly::new();
        r.set_bulk(true);
        r.insert(0, &pattern(0, 8), 10, &mut pool).unwrap();
        assert_eq!(pool.stats().in_use_bytes, 4096, "a short request does not hold as much as bulk");
        r.insert(8, &pattern(8, 199_992), 10, &mut pool).unwrap();
        assert_eq!((r.peek().len(), pool.stats().in_use), (4096, 16 + 3));
        r.consume(65_536, &mut pool);
        assert_eq!(r.peek().len(), 65_536);
    }
}

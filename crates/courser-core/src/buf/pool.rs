//! Chunks of fixed size, reused and counted.
//!
//! Three classes serve everything: 512 bytes for short messages, 4 KiB for the usual, 64 KiB for bulk. A chunk that comes
//! back goes on the free list of its class, so that a steady transfer allocates nothing after warm-up. All memory, in use
//! and free, stays below one limit; at the limit [`ChunkPool::take`] says `None` and nothing is lost.
//!
//! Invariants: `in_use_bytes + free_bytes <= limit_bytes`; a chunk of another pool never enters the free lists.

/// Sizes of the classes in bytes, smallest first.
const SIZES: [usize; 3] = [512, 4 << 10, 64 << 10];

/// The size class of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// 512 bytes.
    Small,
    /// 4 KiB.
    Medium,
    /// 64 KiB.
    Large,
}

impl Class {
    /// All classes, smallest first.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// Bytes of a chunk of this class.
    #[must_use]
    pub const fn bytes(self) -> usize {
        SIZES[self as usize]
    }

    /// The smallest class that holds `size` bytes; the largest when none does.
    #[must_use]
    pub const fn fitting(size: usize) -> Self {
        if size <= SIZES[0] {
            Self::Small
        } else if size <= SIZES[1] {
            Self::Medium
        } else {
            Self::Large
        }
    }
}

/// A piece of memory that belongs to whoever holds it, until it is given back to its pool.
#[derive(Debug)]
pub struct Chunk {
    bytes: Box<[u8]>,
    class: Class,
    /// The pool it came from, so that a chunk given to the wrong pool is noticed.
    origin: u32,
}

impl Chunk {
    /// The class.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Bytes of room, written or not.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: every chunk has room.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All bytes; those not written since the chunk was taken are left over from its former use.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// All bytes, for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// What a pool did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Chunks that somebody holds.
    pub in_use: usize,
    /// Bytes of the chunks that somebody holds.
    pub in_use_bytes: usize,
    /// Bytes on the free lists.
    pub free_bytes: usize,
    /// Chunks made since the beginning.
    pub allocated: u64,
    /// Chunks handed out from a free list since the beginning.
    pub reused: u64,
    /// Takes that were refused.
    pub refused: u64,
    /// Chunks of other pools that were given and dropped.
    pub foreign: u64,
}

/// A bounded store of chunks.
#[derive(Debug)]
pub struct ChunkPool {
    free: [Vec<Chunk>; 3],
    limit_bytes: usize,
    origin: u32,
    stats: PoolStats,
    /// Takes until one fails on purpose; zero: off.
    fail_in: u64,
}

impl ChunkPool {
    /// A pool that never holds or hands out more than `limit_bytes` in total.
    #[must_use]
    pub const fn new(limit_bytes: usize) -> Self {
        Self::with_origin(limit_bytes, 0)
    }

    /// The same with a mark of its own: chunks of pools with other marks are dropped instead of reused.
    #[must_use]
    pub const fn with_origin(limit_bytes: usize, origin: u32) -> Self {
        Self {
            free: [const { Vec::new() }; 3],
            limit_bytes,
            origin,
            stats: PoolStats {
                in_use: 0,
                in_use_bytes: 0,
                free_bytes: 0,
                allocated: 0,
                reused: 0,
                refused: 0,
                foreign: 0,
            },
            fail_in: 0,
        }
    }

    /// A chunk of the smallest class that holds `size` bytes, or of the largest class; `None` at the limit.
    pub fn take(&mut self, size: usize) -> Option<Chunk> {
        let class = Class::fitting(size);
        if self.fail_in > 0 {
            self.fail_in -= 1;
            if self.fail_in == 0 {
                self.stats.refused += 1;
                return None;
            }
        }
        if let Some(chunk) = self.free[class as usize].pop() {
            self.stats.free_bytes -= class.bytes();
            self.stats.reused += 1;
            self.note_taken(class);
            return Some(chunk);
        }
        if !self.make_room(class.bytes()) {
            self.stats.refused += 1;
            return None;
        }
        self.stats.allocated += 1;
        self.note_taken(class);
        Some(Chunk { bytes: vec![0; class.bytes()].into_boxed_slice(), class, origin: self.origin })
    }

    /// Like [`Self::take`], but content with a smaller class when the fitting one is at the limit.
    pub fn take_up_to(&mut self, size: usize) -> Option<Chunk> {
        let fitting = Class::fitting(size);
        Class::ALL.into_iter().rev().filter(|&c| c <= fitting).find_map(|c| self.take(c.bytes()))
    }

    /// Takes a chunk back.
    pub fn give(&mut self, chunk: Chunk) {
        if chunk.origin != self.origin {
            self.stats.foreign += 1;
            return;
        }
        debug_assert!(self.stats.in_use > 0, "more chunks came back than were taken");
        self.stats.in_use = self.stats.in_use.saturating_sub(1);
        self.stats.in_use_bytes = self.stats.in_use_bytes.saturating_sub(chunk.len());
        self.stats.free_bytes += chunk.len();
        self.free[chunk.class as usize].push(chunk);
    }

    /// Frees unused chunks, largest first, until at most `keep_bytes` of unused memory are left.
    pub fn trim(&mut self, keep_bytes: usize) {
        for class in Class::ALL.into_iter().rev() {
            let list = &mut self.free[class as usize];
            while self.stats.free_bytes > keep_bytes && list.pop().is_some() {
                self.stats.free_bytes -= class.bytes();
            }
            if list.is_empty() {
                *list = Vec::new();
            }
        }
    }

    /// What it did so far.
    #[must_use]
    pub const fn stats(&self) -> PoolStats {
        self.stats
    }

    /// Chunks that somebody holds.
    #[must_use]
    pub const fn in_use(&self) -> usize {
        self.stats.in_use
    }

    /// Bytes that can still be taken.
    #[must_use]
    pub const fn room_bytes(&self) -> usize {
        self.limit_bytes.saturating_sub(self.stats.in_use_bytes)
    }

    /// Changes the limit; what is in use beyond a smaller limit stays until it comes back.
    pub fn set_limit(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
        self.trim(limit_bytes.saturating_sub(self.stats.in_use_bytes));
    }

    /// Lets the `n`-th take from now fail; for tests that ask what happens then. Zero switches it off.
    pub const fn fail_nth(&mut self, n: u64) {
        self.fail_in = n;
    }

    /// Whether `bytes` more fit below the limit, after freeing unused chunks of other classes where that helps.
    fn make_room(&mut self, bytes: usize) -> bool {
        let Some(allowed) = self.limit_bytes.checked_sub(self.stats.in_use_bytes + bytes.min(self.limit_bytes)) else {
            return false;
        };
        if bytes > self.limit_bytes {
            return false;
        }
        if self.stats.free_bytes > allowed {
            self.trim(allowed);
        }
        true
    }

    fn note_taken(&mut self, class: Class) {
        self.stats.in_use += 1;
        self.stats.in_use_bytes += class.bytes();
        debug_assert!(
            self.stats.in_use_bytes + self.stats.free_bytes <= self.limit_bytes,
            "the pool outgrew its limit"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_fit_the_size() {
        for (size, class) in [
            (0, Class::Small),
            (512, Class::Small),
            (513, Class::Medium),
            (4096, Class::Medium),
            (4097, Class::Large),
            (1 << 20, Class::Large),
        ] {
            assert_eq!(Class::fitting(size), class, "{size}");
        }
    }

    #[test]
    fn chunks_are_reused_and_the_allocation_counter_stays_flat() {
        let mut pool = ChunkPool::new(1 << 20);
        for round in 0..100 {
            let chunks: Vec<_> = (0..10).map(|_| pool.take(4096).unwrap()).collect();
            assert_eq!(pool.in_use(), 10);
            chunks.into_iter().for_each(|c| pool.give(c));
            assert_eq!(pool.stats().allocated, 10);
            assert_eq!(pool.stats().reused, round * 10);
        }
        assert_eq!((pool.in_use(), pool.stats().in_use_bytes, pool.stats().free_bytes), (0, 0, 40_960));
    }

    #[test]
    fn each_take_and_each_return_moves_one_counter_by_one() {
        // NGX-BUF-25: the counters are a running number of what a log would have one line each for.
        let freed = |s: PoolStats| s.allocated + s.reused - s.in_use as u64;
        let mut pool = ChunkPool::new(9000);
        let mut held = Vec::new();
        for step in 0..200u32 {
            let before = pool.stats();
            if step.wrapping_mul(2_654_435_761) >> 30 == 0 && !held.is_empty() {
                pool.give(held.remove(step as usize % held.len()));
                let after = pool.stats();
                assert_eq!((after.allocated, after.reused), (before.allocated, before.reused));
                assert_eq!((freed(after), after.in_use), (freed(before) + 1, before.in_use - 1));
                continue;
            }
            let free = before.free_bytes;
            let got = pool.take(300);
            let after = pool.stats();
            let moved =
                (after.allocated - before.allocated, after.reused - before.reused, after.refused - before.refused);
            let expected = match (&got, free) {
                (None, _) => (0, 0, 1),
                (Some(_), 0) => (1, 0, 0),
                (Some(_), _) => (0, 1, 0),
            };
            assert_eq!(moved, expected, "step {step}");
            assert_eq!(freed(after), freed(before));
            held.extend(got);
        }
        let s = pool.stats();
        assert!(s.allocated > 5 && s.reused > 20 && s.refused > 5, "{s:?}");
    }

    #[test]
    fn the_limit_holds_and_nothing_is_lost_there() {
        let mut pool = ChunkPool::new(8192);
        let a = pool.take(4096).unwrap();
        let b = pool.take(4096).unwrap();
        assert!(pool.take(1).is_none());
        pool.give(a);
        let c = pool.take(1).unwrap();
        assert_eq!(c.class(), Class::Small, "the free medium chunk made room for a small one");
        pool.give(b);
        pool.give(c);
        assert!(pool.take(65_536).is_none(), "a class beyond the limit is never made");
        assert_eq!(pool.in_use(), 0);
        assert_eq!(pool.take_up_to(65_536).map(|c| c.class()), Some(Class::Medium));
    }

    #[test]
    fn a_foreign_chunk_is_noticed_and_dropped() {
        let mut ours = ChunkPool::with_origin(8192, 1);
        let mut theirs = ChunkPool::with_origin(8192, 2);
        let chunk = theirs.take(10).unwrap();
        ours.give(chunk);
        assert_eq!((ours.stats().foreign, ours.stats().free_bytes), (1, 0));
    }

    #[test]
    fn every_nth_take_can_fail() {
        for n in 1..6 {
            let mut pool = ChunkPool::new(1 << 20);
            pool.fail_nth(n);
            let got: Vec<_> = (1..=6).map(|_| pool.take(1)).collect();
            for (i, chunk) in (1..).zip(&got) {
                assert_eq!(chunk.is_none(), i == n);
            }
            got.into_iter().flatten().for_each(|c| pool.give(c));
            assert_eq!((pool.in_use(), pool.stats().refused), (0, 1));
        }
    }

    #[test]
    fn trimming_keeps_what_was_asked_for() {
        let mut pool = ChunkPool::new(1 << 20);
        let chunks: Vec<_> = [512, 512, 4096, 65_536].map(|n| pool.take(n).unwrap()).into();
        chunks.into_iter().for_each(|c| pool.give(c));
        pool.trim(1024);
        assert_eq!(pool.stats().free_bytes, 1024);
        pool.trim(0);
        assert_eq!(pool.stats().free_bytes, 0);
    }

    #[test]
    fn chunks_can_move_between_threads() {
        fn is_send<T: Send>() {}
        is_send::<Chunk>();
        is_send::<ChunkPool>();
    }
}

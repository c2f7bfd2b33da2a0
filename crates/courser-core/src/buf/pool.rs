//! Chunks of fixed size, reused and counted.
//!
//! Three classes serve everything: 512 bytes for short messages, 4 KiB for the usual, 64 KiB for bulk. A chunk that comes
//! back goes on the free list of its class, so that a steady transfer allocates nothing after warm-up. All memory, in use
//! and free, stays below one limit; at the limit [`ChunkPool::take`] says `None` and nothing is lost.
//!
//! Shares: what is taken counts for an account, one for each connection ([`ChunkPool::charge`]), and an account may grow
//! while it holds less than a part of what is still free (dynamic thresholds). Bytes that wait to be sent
//! ([`ChunkPool::take_up_to`]) may hold 1/512 of what is free, and as much as the account is worth, its congestion window
//! twice, up to a quarter of what is free: a thousand connections whose peers do not read leave an eighth of the pool, and one
//! that moves data gets it. Received bytes, which the peer was promised room for, may hold eight times what is free. Each is
//! held against its own share only: who has to write before it reads on would wait for itself otherwise.
//!
//! After a peak unused chunks go back to the allocator: [`ChunkPool::age`] keeps what the last second needed.
//!
//! Invariants: `in_use_bytes + free_bytes <= limit_bytes`; a chunk of another pool never enters the free lists; the sum of
//! all accounts is at most `in_use_bytes`.

use core::time::Duration;

use crate::time::Instant;

/// Sizes of the classes in bytes, smallest first.
const SIZES: [usize; 3] = [512, 4 << 10, 64 << 10];

/// Bytes for sending may hold what is free divided by this,
const IDLE_DIVISOR: usize = 512;
/// and, where data moves, divided by this.
const BUSY_DIVISOR: usize = 4;
/// Received bytes may hold what is free times this.
const RECEIVE_FACTOR: usize = 8;
/// Nobody is refused by shares who holds no more than this.
const SHARE_MIN: usize = 4 << 10;
/// How long unused memory is kept in case it is needed again.
const AGE: Duration = Duration::from_secs(1);
/// Unused memory that is never given back.
const KEPT_MIN: usize = 1 << 20;
/// The account of takes that count for nobody.
const NOBODY: u32 = u32::MAX;

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
    origin: u16,
    /// Who took it,
    account: u32,
    /// and what for.
    purpose: Purpose,
}

/// What a chunk was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Received bytes.
    Receive,
    /// Bytes that wait to be sent.
    Send,
}

/// What an account holds, by purpose, in units of the smallest class.
#[derive(Clone, Copy, Debug, Default)]
struct Held([u32; 2]);

impl Held {
    const UNIT: usize = SIZES[0];

    const fn bytes(self, purpose: Purpose) -> usize {
        self.0[purpose as usize] as usize * Self::UNIT
    }

    const fn units(class: Class) -> u32 {
        (class.bytes() / Self::UNIT) as u32
    }

    const fn add(&mut self, class: Class, purpose: Purpose) {
        let held = &mut self.0[purpose as usize];
        *held = held.saturating_add(Self::units(class));
    }

    const fn subtract(&mut self, class: Class, purpose: Purpose) {
        let held = &mut self.0[purpose as usize];
        *held = held.saturating_sub(Self::units(class));
    }
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
    /// Takes that were refused because the pool was at its limit.
    pub refused: u64,
    /// Takes that were refused because an account held its share.
    pub over_share: u64,
    /// Chunks that were given back to the allocator.
    pub returned: u64,
    /// Chunks of other pools that were given and dropped.
    pub foreign: u64,
}

/// A bounded store of chunks.
#[derive(Debug)]
pub struct ChunkPool {
    free: [Vec<Chunk>; 3],
    limit_bytes: usize,
    origin: u16,
    stats: PoolStats,
    /// What is held, by account.
    accounts: Vec<Held>,
    /// The account that takes count for.
    account: u32,
    /// Bytes that it moves in a while.
    worth: usize,
    /// Most bytes in use since memory was last given back.
    peak: usize,
    /// When that is done again.
    age_at: Instant,
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
    pub const fn with_origin(limit_bytes: usize, origin: u16) -> Self {
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
                over_share: 0,
                returned: 0,
                foreign: 0,
            },
            accounts: Vec::new(),
            account: NOBODY,
            worth: 0,
            peak: 0,
            age_at: Instant::ZERO,
            fail_in: 0,
        }
    }

    /// What is taken from now on counts for this account, which moves `worth` bytes in a while. What is given back counts for
    /// whoever took it.
    #[inline]
    pub fn charge(&mut self, account: u32, worth: u64) {
        self.worth = usize::try_from(worth).unwrap_or(usize::MAX);
        // Calls for one connection follow each other.
        if account != self.account {
            self.change_account(account);
        }
    }

    /// Whether what is taken counts for this account.
    #[inline]
    #[must_use]
    pub const fn charges(&self, account: u32) -> bool {
        self.account == account
    }

    fn change_account(&mut self, account: u32) {
        self.account = account;
        if account as usize >= self.accounts.len() {
            self.accounts.resize(account as usize + 1, Held::default());
        }
    }

    /// What is taken from now on counts for nobody.
    pub fn charge_nobody(&mut self) {
        self.account = NOBODY;
    }

    /// Bytes that an account holds.
    #[must_use]
    pub fn held(&self, account: u32) -> usize {
        self.held_for(account, Purpose::Receive) + self.held_for(account, Purpose::Send)
    }

    fn held_for(&self, account: u32, purpose: Purpose) -> usize {
        self.accounts.get(account as usize).map_or(0, |held| held.bytes(purpose))
    }

    /// Whether the present account may take a chunk of 4 KiB for sending.
    #[must_use]
    pub fn has_share(&self) -> bool {
        let bytes = Class::Medium.bytes();
        self.room_bytes() >= bytes && self.may_grow(bytes, Purpose::Send)
    }

    fn share(&self, purpose: Purpose) -> usize {
        let free = self.room_bytes();
        match purpose {
            Purpose::Receive => free.saturating_mul(RECEIVE_FACTOR),
            Purpose::Send => (free / IDLE_DIVISOR).max(self.worth.min(free / BUSY_DIVISOR)),
        }
    }

    fn may_grow(&self, bytes: usize, purpose: Purpose) -> bool {
        let share = self.share(purpose).max(SHARE_MIN);
        self.account == NOBODY || self.held_for(self.account, purpose) + bytes <= share
    }

    /// A chunk of the smallest class that holds `size` bytes, or of the largest class, for received bytes; `None` at the
    /// limit, and when the account holds its share.
    pub fn take(&mut self, size: usize) -> Option<Chunk> {
        self.take_for(Class::fitting(size), Purpose::Receive)
    }

    fn take_for(&mut self, class: Class, purpose: Purpose) -> Option<Chunk> {
        if !self.may_grow(class.bytes(), purpose) {
            self.stats.over_share += 1;
            return None;
        }
        if self.fail_in > 0 {
            self.fail_in -= 1;
            if self.fail_in == 0 {
                self.stats.refused += 1;
                return None;
            }
        }
        if let Some(mut chunk) = self.free[class as usize].pop() {
            (chunk.account, chunk.purpose) = (self.account, purpose);
            self.stats.free_bytes -= class.bytes();
            self.stats.reused += 1;
            self.note_taken(class, purpose);
            return Some(chunk);
        }
        if !self.make_room(class.bytes()) {
            self.stats.refused += 1;
            return None;
        }
        self.stats.allocated += 1;
        self.note_taken(class, purpose);
        let bytes = vec![0; class.bytes()].into_boxed_slice();
        Some(Chunk { bytes, class, origin: self.origin, account: self.account, purpose })
    }

    /// Like [`Self::take`] for bytes to be sent, and content with a smaller class when the fitting one is at the limit.
    pub fn take_up_to(&mut self, size: usize) -> Option<Chunk> {
        let fitting = Class::fitting(size);
        Class::ALL.into_iter().rev().filter(|&c| c <= fitting).find_map(|c| self.take_for(c, Purpose::Send))
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
        if let Some(held) = self.accounts.get_mut(chunk.account as usize) {
            held.subtract(chunk.class, chunk.purpose);
        }
        self.free[chunk.class as usize].push(chunk);
    }

    /// Frees unused chunks, largest first, until at most `keep_bytes` of unused memory are left.
    pub fn trim(&mut self, keep_bytes: usize) {
        for class in Class::ALL.into_iter().rev() {
            let list = &mut self.free[class as usize];
            while self.stats.free_bytes > keep_bytes && list.pop().is_some() {
                self.stats.free_bytes -= class.bytes();
                self.stats.returned += 1;
            }
            if list.is_empty() {
                *list = Vec::new();
            }
        }
    }

    /// Once a second: gives back what was not needed since the last time; at once when nobody is left who could need it.
    pub fn age(&mut self, now: Instant, over: bool) {
        if over {
            self.trim(KEPT_MIN);
        }
        if now < self.age_at {
            return;
        }
        let needed = self.peak.saturating_sub(self.stats.in_use_bytes);
        if self.stats.free_bytes > needed.saturating_add(KEPT_MIN) {
            self.trim(needed.max(KEPT_MIN));
        }
        (self.peak, self.age_at) = (self.stats.in_use_bytes, now + AGE);
    }

    /// When [`age`](Self::age) has something to give back, if nothing is taken until then.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        (self.stats.free_bytes > KEPT_MIN).then_some(self.age_at)
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

    fn note_taken(&mut self, class: Class, purpose: Purpose) {
        self.stats.in_use += 1;
        self.stats.in_use_bytes += class.bytes();
        self.peak = self.peak.max(self.stats.in_use_bytes);
        if let Some(held) = self.accounts.get_mut(self.account as usize) {
            held.add(class, purpose);
        }
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

    /// Takes for sending until there is no more.
    fn fill(pool: &mut ChunkPool, account: u32, worth: u64) -> Vec<Chunk> {
        pool.charge(account, worth);
        core::iter::from_fn(|| pool.take_up_to(4096)).collect()
    }

    #[test]
    fn a_thousand_that_hold_on_leave_room_and_who_moves_data_gets_it() {
        const LIMIT: usize = 64 << 20;
        let mut pool = ChunkPool::new(LIMIT);
        let mut chunks: Vec<_> = (0..1_000).flat_map(|account| fill(&mut pool, account, 0)).collect();
        let (first, last) = (pool.held(0), pool.held(999));
        assert!(first <= LIMIT / 512 && first <= 9 * last, "{first} and {last} bytes");
        assert!(pool.room_bytes() > LIMIT / 9, "{} bytes are free", pool.room_bytes());
        chunks.extend(fill(&mut pool, 1_000, 1 << 20));
        assert_eq!(pool.held(1_000), 1 << 20, "as much as it is worth");
        chunks.extend(fill(&mut pool, 1_001, u64::MAX));
        assert!((LIMIT / 60..LIMIT / 30).contains(&pool.held(1_001)), "a fifth of what was free");
        assert!(pool.stats().over_share > 0 && pool.stats().refused == 0);
        chunks.into_iter().for_each(|c| pool.give(c));
        assert!((0..1_002).all(|account| pool.held(account) == 0));
    }

    #[test]
    fn received_bytes_have_room_when_those_to_be_sent_have_none() {
        let mut pool = ChunkPool::new(1 << 20);
        let mut chunks = fill(&mut pool, 0, u64::MAX);
        assert!(!pool.has_share());
        chunks.extend(core::iter::from_fn(|| pool.take(4096)));
        assert!(pool.held(0) > (1 << 20) * 7 / 8 && pool.held(0) < 1 << 20, "{} bytes", pool.held(0));
        pool.charge(1, 0);
        assert!(pool.take(4096).is_some(), "somebody else's first bytes always have room");
        pool.charge_nobody();
        chunks.extend(core::iter::from_fn(|| pool.take(4096)));
        assert_eq!((pool.room_bytes() < 4096, pool.stats().refused), (true, 1), "what counts for nobody has no share");
    }

    #[test]
    fn a_peak_is_given_back_after_two_seconds() {
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let mut pool = ChunkPool::new(1 << 30);
        pool.age(at(1_000), false);
        let chunks: Vec<_> = (0..100).map(|_| pool.take(65_536).unwrap()).collect();
        chunks.into_iter().for_each(|c| pool.give(c));
        assert_eq!((pool.stats().free_bytes, pool.deadline()), (100 << 16, Some(at(2_000))));
        pool.age(at(1_999), false);
        pool.age(at(2_000), false);
        assert_eq!(pool.stats().free_bytes, 100 << 16, "the last second needed it");
        pool.age(at(3_000), false);
        assert_eq!((pool.stats().free_bytes, pool.stats().returned, pool.deadline()), (KEPT_MIN, 84, None));
        let chunks: Vec<_> = (0..100).map(|_| pool.take(65_536).unwrap()).collect();
        chunks.into_iter().for_each(|c| pool.give(c));
        pool.age(at(3_001), true);
        assert_eq!((pool.stats().free_bytes, pool.deadline()), (KEPT_MIN, None), "at once when nobody is left");
    }

    #[test]
    fn a_steady_use_is_never_given_back() {
        let mut pool = ChunkPool::new(1 << 30);
        for ms in (0..10_000).step_by(7) {
            pool.age(Instant::from_micros(ms * 1000), false);
            let chunks: Vec<_> = (0..40).map(|_| pool.take(65_536).unwrap()).collect();
            chunks.into_iter().for_each(|c| pool.give(c));
        }
        assert_eq!((pool.stats().allocated, pool.stats().returned), (40, 0));
    }

    #[test]
    fn chunks_can_move_between_threads() {
        fn is_send<T: Send>() {}
        is_send::<Chunk>();
        is_send::<ChunkPool>();
    }
}

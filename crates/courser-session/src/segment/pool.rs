//! Who has which chunk: the worker's private account.
//!
//! Chunks are given out in runs inside a group of 64, found in a bitmap. The application gives a run back by setting the bit
//! of its first chunk on the shared board, from any thread and in any order; the worker sweeps the board when it finds no
//! run. Nothing in shared memory decides what is free: a bit of a chunk that was not given out is a lie.
//!
//! **Progress.** The last quarter of the chunks is a reserve, used when the others are all given out. An application copies
//! what lies in the reserve, and gives it back, as soon as it polls. However many bytes it keeps elsewhere, unread, what is
//! next to be told gets through.

use super::ring::Lie;
use super::setup::GROUP;
use crate::{
    num::widen,
    sync::{AtomicU64, Ordering},
};

/// Consecutive chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u32,
    pub(super) count: u32,
}

/// What is free, and the lengths of the runs that are not.
pub(super) struct Pool {
    /// A bit for each free chunk, in groups.
    free: Box<[u64]>,
    /// By its first chunk the length of each run that was given out; 0 for all others.
    runs: Box<[u8]>,
    /// The first group of the reserve.
    reserve: usize,
    /// The group in which the last run was found.
    group: usize,
}

/// The bits at which `count` ones begin.
fn beginnings(mut bits: u64, count: u32) -> u64 {
    let mut have = 1;
    while have < count {
        let step = have.min(count - have);
        bits &= bits >> step;
        have += step;
    }
    bits
}

fn ones(count: u32) -> u64 {
    u64::MAX >> (u64::BITS - count.clamp(1, u64::BITS))
}

impl Pool {
    /// All chunks are free. `reserve` is the first one of the reserve.
    pub(super) fn new(chunks: u32, reserve: u32) -> Self {
        let groups = (0..chunks.div_ceil(GROUP)).map(|group| ones((chunks - group * GROUP).min(GROUP)));
        Self { free: groups.collect(), runs: vec![0; widen(chunks)].into(), reserve: widen(reserve / GROUP), group: 0 }
    }

    /// A run of so many chunks, at most 64; or, unless `exactly`, a shorter one when there is none so long.
    pub(super) fn find(&mut self, count: u32, exactly: bool) -> Option<Run> {
        for part in [0..self.reserve, self.reserve..self.free.len()] {
            let mut count = count;
            loop {
                // First where the last one was found: runs come back in the order in which they were given out.
                let start = self.group.clamp(part.start, part.end.max(1) - 1);
                let found = (start..part.end).chain(part.start..start).find_map(|group| {
                    let bits = beginnings(*self.free.get(group)?, count);
                    (bits != 0).then(|| (group, bits.trailing_zeros()))
                });
                if let Some((group, bit)) = found {
                    self.group = group;
                    let first = u32::try_from(group).unwrap_or(u32::MAX) * GROUP + bit;
                    return Some(Run { first, count });
                }
                if exactly || count <= 1 {
                    break;
                }
                count /= 2;
            }
        }
        None
    }

    /// Gives a run out that was found.
    pub(super) fn take(&mut self, run: Run) {
        let bits = ones(run.count) << (run.first % GROUP);
        let group = &mut self.free[widen(run.first / GROUP)];
        debug_assert_eq!(*group & bits, bits, "the run was found free");
        *group &= !bits;
        self.runs[widen(run.first)] = u8::try_from(run.count).expect("a run has at most 64 chunks");
    }

    /// Takes back what the application gave back. Whether there was anything.
    pub(super) fn sweep(&mut self, board: &[AtomicU64]) -> Result<bool, Lie> {
        let mut any = false;
        for (group, word) in board.iter().enumerate().take(self.free.len()) {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            // Acquire: what the application read there happened before somebody writes there again.
            let mut bits = word.swap(0, Ordering::Acquire);
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                let length = self.runs.get_mut(group * widen(GROUP) + widen(bit)).ok_or(Lie)?;
                let count = core::mem::take(length);
                if count == 0 {
                    return Err(Lie);
                }
                self.free[group] |= ones(count.into()) << bit;
                any = true;
            }
        }
        Ok(any)
    }

    /// Chunks that the application has.
    #[cfg(all(test, not(loom)))]
    pub(super) fn given_out(&self) -> u32 {
        self.runs.iter().map(|count| u32::from(*count)).sum()
    }
}

/// The application gives the run back that begins with this chunk.
pub(super) fn give_back(board: &[AtomicU64], chunk: u32) {
    // Release: pairs with the sweep.
    board[widen(chunk / GROUP)].fetch_or(1 << (chunk % GROUP), Ordering::Release);
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn board(chunks: u32) -> Vec<AtomicU64> {
        (0..chunks.div_ceil(GROUP)).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn the_reserve_is_used_last_and_a_lie_on_the_board_is_seen() {
        let (mut pool, board) = (Pool::new(256, 192), board(256));
        let mut got = Vec::new();
        while let Some(run) = pool.find(64, false) {
            pool.take(run);
            got.push(run.first);
        }
        assert_eq!(got, [0, 64, 128, 192]);
        assert_eq!(pool.sweep(&board), Ok(false));
        give_back(&board, 128);
        assert_eq!(pool.find(1, true), None, "nobody swept");
        assert_eq!(pool.sweep(&board), Ok(true));
        let run = Run { first: 128, count: 16 };
        assert_eq!(pool.find(16, true), Some(run));
        pool.take(run);
        for not_the_first_of_a_run in [129, 144, 255] {
            give_back(&board, not_the_first_of_a_run);
            assert_eq!(pool.sweep(&board), Err(Lie));
        }
        assert_eq!(pool.given_out(), 64 * 3 + 16);
    }

    #[test]
    fn a_shorter_run_is_better_than_the_reserve() {
        let mut pool = Pool::new(128, 64);
        for first in (0..64).step_by(2) {
            pool.take(Run { first, count: 1 });
        }
        assert_eq!(pool.find(16, false), Some(Run { first: 1, count: 1 }));
        assert_eq!(pool.find(16, true), Some(Run { first: 64, count: 16 }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_chunk_is_given_out_twice_and_each_comes_back(
            steps in prop::collection::vec((1u32..=64, any::<bool>(), any::<prop::sample::Index>()), 1..200),
        ) {
            let (mut pool, board) = (Pool::new(320, 256), board(320));
            let (mut out, mut owned): (Vec<Run>, Vec<bool>) = (Vec::new(), vec![false; 320]);
            for (count, gives, which) in steps {
                if gives && !out.is_empty() {
                    let run = out.swap_remove(which.index(out.len()));
                    give_back(&board, run.first);
                    prop_assert_eq!(pool.sweep(&board), Ok(true));
                    (run.first..run.first + run.count).for_each(|n| owned[widen(n)] = false);
                } else if let Some(run) = pool.find(count, false) {
                    prop_assert!(run.count <= count && run.first / GROUP == (run.first + run.count - 1) / GROUP);
                    pool.take(run);
                    for n in run.first..run.first + run.count {
                        prop_assert!(!std::mem::replace(&mut owned[widen(n)], true), "chunk {} has an owner", n);
                    }
                    out.push(run);
                }
                prop_assert_eq!(widen(pool.given_out()), owned.iter().filter(|owned| **owned).count());
            }
        }
    }
}

//! A sorted set of `u64` ranges.
//!
//! Most sets have no, one or two ranges: those live inside the value. More spill into blocks of at most 128 ranges, so that
//! one insertion moves a few kilobytes at worst, however many ranges a peer manages to make. Ranges are half-open, never
//! empty, never touch each other.

use core::ops::Range;

/// Most ranges of a block.
const BLOCK_MAX: usize = 128;
/// An empty spilled set with a larger block than this gives its memory back.
const KEPT_CAPACITY: usize = 32;

/// The set would have had more ranges than its owner allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRanges;

#[derive(Clone, Debug)]
enum Repr {
    Inline {
        len: u8,
        ranges: [(u64, u64); 2],
    },
    /// `blocks` are sorted and not empty, but for one block of an empty set.
    Spilled {
        blocks: Vec<Vec<(u64, u64)>>,
        count: usize,
    },
}

/// A set of integers, kept as sorted ranges.
#[derive(Clone, Debug)]
pub struct RangeSet {
    repr: Repr,
}

impl Default for RangeSet {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for RangeSet {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for RangeSet {}

/// Where a range is: block and position in it.
#[derive(Clone, Copy)]
struct At {
    block: usize,
    pos: usize,
}

impl RangeSet {
    /// The empty set; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { repr: Repr::Inline { len: 0, ranges: [(0, 0); 2] } }
    }

    /// Number of ranges.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.repr {
            Repr::Inline { len, .. } => usize::from(*len),
            Repr::Spilled { count, .. } => *count,
        }
    }

    /// Whether there is no range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// The ranges from the lowest up.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + '_ {
        let (inline, blocks) = match &self.repr {
            Repr::Inline { len, ranges } => (&ranges[..usize::from(*len)], [].as_slice()),
            Repr::Spilled { blocks, .. } => ([].as_slice(), blocks.as_slice()),
        };
        inline.iter().chain(blocks.iter().flatten()).map(|&(s, e)| s..e)
    }

    /// The lowest range.
    #[must_use]
    pub fn first(&self) -> Option<Range<u64>> {
        let (s, e) = match &self.repr {
            Repr::Inline { len, ranges } => *ranges[..usize::from(*len)].first()?,
            Repr::Spilled { blocks, .. } => *blocks.first()?.first()?,
        };
        Some(s..e)
    }

    /// The highest range.
    #[must_use]
    pub fn last(&self) -> Option<Range<u64>> {
        let (s, e) = match &self.repr {
            Repr::Inline { len, ranges } => *ranges[..usize::from(*len)].last()?,
            Repr::Spilled { blocks, .. } => *blocks.last()?.last()?,
        };
        Some(s..e)
    }

    /// Takes the lowest range out.
    pub fn pop_first(&mut self) -> Option<Range<u64>> {
        let first = self.first()?;
        self.take_at(At { block: 0, pos: 0 });
        Some(first)
    }

    /// Whether `value` is in the set.
    #[must_use]
    pub fn contains(&self, value: u64) -> bool {
        self.get(self.first_ending_at_or_after(value.saturating_add(1))).is_some_and(|(s, e)| s <= value && value < e)
    }

    /// Whether the set and the range have a value in common.
    #[must_use]
    pub fn intersects(&self, range: Range<u64>) -> bool {
        !range.is_empty()
            && self
                .get(self.first_ending_at_or_after(range.start.saturating_add(1)))
                .is_some_and(|(s, _)| s < range.end)
    }

    /// Puts a range in; says how many values were new.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        self.insert_capped(range, usize::MAX).unwrap_or_default()
    }

    /// Puts a range in unless the set would then have more than `cap` ranges; says how many values were new.
    ///
    /// # Errors
    /// [`TooManyRanges`]; the set is as before.
    pub fn insert_capped(&mut self, range: Range<u64>, cap: usize) -> Result<u64, TooManyRanges> {
        if range.is_empty() {
            return Ok(0);
        }
        let at = self.first_ending_at_or_after(range.start);
        let touching = self.get(at).filter(|&(s, _)| s <= range.end);
        let Some((s, e)) = touching else {
            if self.len() >= cap {
                return Err(TooManyRanges);
            }
            self.insert_at(at, (range.start, range.end));
            return Ok(range.end - range.start);
        };
        let mut known = e.min(range.end).saturating_sub(s.max(range.start));
        let (start, mut end) = (s.min(range.start), e.max(range.end));
        if end > e {
            // It may reach further ranges: those behind `at` melt into it one by one.
            let mut next = self.after(at);
            while let Some((s, e)) = self.get(next).filter(|&(s, _)| s <= end) {
                known += e.min(range.end).saturating_sub(s.max(range.start));
                end = end.max(e);
                self.take_at(next);
                next = self.after(at);
            }
        }
        self.set(at, (start, end));
        Ok(range.end - range.start - known)
    }

    /// Takes a range out; says how many of its values were there.
    pub fn remove(&mut self, range: Range<u64>) -> u64 {
        let mut removed = 0;
        while !range.is_empty() {
            let at = self.first_ending_at_or_after(range.start.saturating_add(1));
            let Some((s, e)) = self.get(at).filter(|&(s, _)| s < range.end) else { break };
            removed += e.min(range.end) - s.max(range.start);
            match (s < range.start, e > range.end) {
                (true, true) => {
                    self.set(at, (s, range.start));
                    self.insert_at(self.after(at), (range.end, e));
                }
                (true, false) => self.set(at, (s, range.start)),
                (false, true) => self.set(at, (range.end, e)),
                (false, false) => self.take_at(at),
            }
        }
        removed
    }

    /// Position of the first range whose end is `value` or more; behind the last range when there is none.
    fn first_ending_at_or_after(&self, value: u64) -> At {
        match &self.repr {
            Repr::Inline { len, ranges } => {
                At { block: 0, pos: ranges[..usize::from(*len)].partition_point(|&(_, e)| e < value) }
            }
            Repr::Spilled { blocks, .. } => {
                let found = blocks.partition_point(|b| b.last().is_none_or(|&(_, e)| e < value));
                let block = found.min(blocks.len().saturating_sub(1));
                At { block, pos: blocks.get(block).map_or(0, |b| b.partition_point(|&(_, e)| e < value)) }
            }
        }
    }

    fn after(&self, at: At) -> At {
        match &self.repr {
            Repr::Spilled { blocks, .. } if at.pos + 1 >= blocks[at.block].len() && at.block + 1 < blocks.len() => {
                At { block: at.block + 1, pos: 0 }
            }
            _ => At { block: at.block, pos: at.pos + 1 },
        }
    }

    fn get(&self, at: At) -> Option<(u64, u64)> {
        match &self.repr {
            Repr::Inline { len, ranges } => ranges[..usize::from(*len)].get(at.pos).copied(),
            Repr::Spilled { blocks, .. } => blocks.get(at.block)?.get(at.pos).copied(),
        }
    }

    fn set(&mut self, at: At, range: (u64, u64)) {
        debug_assert!(range.0 < range.1, "an empty range");
        match &mut self.repr {
            Repr::Inline { ranges, .. } => ranges[at.pos] = range,
            Repr::Spilled { blocks, .. } => blocks[at.block][at.pos] = range,
        }
    }

    fn insert_at(&mut self, at: At, range: (u64, u64)) {
        debug_assert!(range.0 < range.1, "an empty range");
        match &mut self.repr {
            Repr::Inline { len, ranges } => {
                let n = usize::from(*len);
                if n < ranges.len() {
                    ranges.copy_within(at.pos..n, at.pos + 1);
                    ranges[at.pos] = range;
                    *len += 1;
                } else {
                    let mut block = Vec::with_capacity(8);
                    block.extend_from_slice(ranges);
                    block.insert(at.pos, range);
                    self.repr = Repr::Spilled { blocks: vec![block], count: n + 1 };
                }
            }
            Repr::Spilled { blocks, count } => {
                *count += 1;
                let block = &mut blocks[at.block];
                block.insert(at.pos, range);
                if block.len() > BLOCK_MAX {
                    let upper = block.split_off(BLOCK_MAX / 2);
                    blocks.insert(at.block + 1, upper);
                }
            }
        }
    }

    fn take_at(&mut self, at: At) {
        match &mut self.repr {
            Repr::Inline { len, ranges } => {
                ranges.copy_within(at.pos + 1.., at.pos);
                *len -= 1;
            }
            Repr::Spilled { blocks, count } => {
                *count -= 1;
                blocks[at.block].remove(at.pos);
                if *count == 0 && blocks[0].capacity() > KEPT_CAPACITY {
                    self.clear();
                } else if blocks[at.block].is_empty() && blocks.len() > 1 {
                    blocks.remove(at.block);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn check(set: &RangeSet, model: &BTreeSet<u64>) {
        let values: Vec<u64> = set.iter().flatten().collect();
        assert_eq!(values, model.iter().copied().collect::<Vec<_>>());
        let ranges: Vec<_> = set.iter().collect();
        assert_eq!(ranges.len(), set.len());
        assert!(ranges.windows(2).all(|w| w[0].end < w[1].start), "ranges are apart and sorted");
        assert_eq!(set.first(), ranges.first().cloned());
        assert_eq!(set.last(), ranges.last().cloned());
        assert_eq!(set.iter().rev().collect::<Vec<_>>(), ranges.into_iter().rev().collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_integers(ops in prop::collection::vec((0u8..6, 0u64..1500, 0u64..40), 1..300)) {
            let (mut set, mut model) = (RangeSet::new(), BTreeSet::new());
            for (op, start, len) in ops {
                let range = start..start + len;
                match op {
                    // Mostly single values far apart, so that the set spills and its blocks split.
                    0..=3 => {
                        let range = if op == 0 { range } else { start * 2..start * 2 + 1 };
                        let new = range.clone().filter(|&v| model.insert(v)).count() as u64;
                        prop_assert_eq!(set.insert(range), new);
                    }
                    4 => {
                        let gone = range.clone().filter(|v| model.remove(v)).count() as u64;
                        prop_assert_eq!(set.remove(range), gone);
                    }
                    _ => {
                        prop_assert_eq!(set.intersects(range.clone()), range.clone().any(|v| model.contains(&v)));
                        prop_assert_eq!(set.contains(start), model.contains(&start));
                        if let Some(r) = set.pop_first() {
                            r.for_each(|v| { model.remove(&v); });
                        }
                    }
                }
            }
            check(&set, &model);
        }
    }

    #[test]
    fn blocks_split_and_melt_together_again() {
        let (mut set, mut model) = (RangeSet::new(), BTreeSet::new());
        for i in (0..2000u64).rev() {
            let v = (i * 7919) % 2000 * 2;
            set.insert(v..v + 1);
            model.insert(v);
        }
        check(&set, &model);
        assert_eq!(set.len(), 2000);
        assert_eq!(set.insert(1..3001), 1500);
        model.extend(1..3001);
        check(&set, &model);
        assert_eq!(set.remove(0..4000), 3001 + 499);
        assert!(set.is_empty());
        set.insert(5..6);
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn the_cap_counts_ranges_and_leaves_the_set_alone() {
        let mut set = RangeSet::new();
        for i in 0..3 {
            assert_eq!(set.insert_capped(i * 10..i * 10 + 5, 3), Ok(5));
        }
        let before = set.clone();
        assert_eq!(set.insert_capped(100..101, 3), Err(TooManyRanges));
        assert_eq!(set, before);
        assert_eq!(set.insert_capped(5..10, 3), Ok(5), "filling a gap takes no new range");
    }

    #[test]
    fn the_ends_of_the_number_line_are_safe() {
        let mut set = RangeSet::new();
        set.insert(u64::MAX - 1..u64::MAX);
        assert!(set.contains(u64::MAX - 1) && !set.contains(u64::MAX));
        assert!(!set.intersects(u64::MAX..u64::MAX));
        assert_eq!(set.remove(0..u64::MAX), 1);
        assert_eq!(set.insert(7..7), 0);
    }

    #[test]
    fn small_sets_need_no_memory_of_their_own() {
        assert!(size_of::<RangeSet>() <= 40, "{}", size_of::<RangeSet>());
    }
}

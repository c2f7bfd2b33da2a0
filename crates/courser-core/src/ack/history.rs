//! Received packet numbers of one space.
//!
//! The numbers are kept as disjoint, non-adjacent inclusive ranges in one contiguous array of 16 bytes per range, the
//! largest range last, because nearly every packet extends the largest range or opens a new one above it. The first two
//! ranges live inside the struct: a connection without loss never allocates.
//!
//! Invariants: ranges ascend and leave at least one number between them; there are at most [`RANGES_MAX`]; every number
//! below `floor` counts as received, so that nothing is processed twice after its range was forgotten.

use crate::ids::PacketNumber;

/// Most ranges that are remembered; what a peer with alternating losses can make us store is 4 KiB.
pub const RANGES_MAX: usize = 256;

/// Ranges inside the struct.
const INLINE: usize = 1;

/// Ranges that there is room for when one is not enough: what an honest path makes between two acknowledged ACKs. Senders
/// leave out numbers on purpose, so a connection that receives in bulk comes here early, and only once.
const SPILL: usize = 32;

/// An inclusive range of packet numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PnRange {
    start: PacketNumber,
    end: PacketNumber,
}

const _: () = assert!(size_of::<PnRange>() == 16);

/// What [`RecvHistory::insert`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The number was not received before.
    New {
        /// A larger number had been received before.
        reordered: bool,
        /// Numbers right below are missing.
        gap: bool,
    },
    /// Received before, or too old to know.
    Duplicate,
}

/// Which packet numbers were received.
#[derive(Clone, Debug)]
pub struct RecvHistory {
    /// The ranges while there are few of them and `spilled` was never used.
    inline: [PnRange; INLINE],
    /// How many of `inline` are in use.
    inline_len: u8,
    /// The limit, at most [`RANGES_MAX`].
    cap: u16,
    /// All ranges once there were more than fit inline; goes back only when the connection rests, so that it allocates once.
    spilled: Vec<PnRange>,
    /// Everything below counts as received.
    floor: PacketNumber,
}

impl Default for RecvHistory {
    fn default() -> Self {
        Self::new()
    }
}

impl RecvHistory {
    /// An empty history that remembers [`RANGES_MAX`] ranges.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_cap(RANGES_MAX as u16)
    }

    /// An empty history that remembers at most `cap` ranges (at least one).
    #[must_use]
    pub const fn with_cap(cap: u16) -> Self {
        let cap = if cap == 0 { 1 } else { cap };
        Self { inline: [PnRange { start: 0, end: 0 }; INLINE], inline_len: 0, cap, spilled: Vec::new(), floor: 0 }
    }

    /// Gives the room back that the ranges do not need.
    pub fn shrink(&mut self) {
        if (1..=INLINE).contains(&self.spilled.len()) {
            let ranges = core::mem::take(&mut self.spilled);
            self.inline[..ranges.len()].copy_from_slice(&ranges);
            self.inline_len = ranges.len() as u8;
        } else {
            self.spilled.shrink_to_fit();
        }
    }

    fn slice(&self) -> &[PnRange] {
        if self.spilled.is_empty() { &self.inline[..usize::from(self.inline_len)] } else { &self.spilled }
    }

    fn slice_mut(&mut self) -> &mut [PnRange] {
        if self.spilled.is_empty() { &mut self.inline[..usize::from(self.inline_len)] } else { &mut self.spilled }
    }

    fn insert_at(&mut self, at: usize, range: PnRange) {
        if self.spilled.is_empty() {
            let len = usize::from(self.inline_len);
            if len < INLINE {
                self.inline.copy_within(at..len, at + 1);
                self.inline[at] = range;
                self.inline_len += 1;
                return;
            }
            self.spilled.reserve_exact(SPILL.min(usize::from(self.cap)));
            self.spilled.extend_from_slice(&self.inline);
            self.inline_len = 0;
        }
        self.spilled.insert(at, range);
    }

    /// Removes the ranges at `..n`.
    fn remove_lowest(&mut self, n: usize) {
        debug_assert!(n <= self.slice().len());
        if self.spilled.is_empty() {
            self.inline.copy_within(n.., 0);
            self.inline_len -= n as u8;
        } else {
            self.spilled.drain(..n);
        }
    }

    fn remove_one(&mut self, at: usize) {
        if self.spilled.is_empty() {
            self.inline.copy_within(at + 1.., at);
            self.inline_len -= 1;
        } else {
            self.spilled.remove(at);
        }
    }

    /// Remembers a number.
    //= rfc9000#12.3-4
    pub fn insert(&mut self, pn: PacketNumber) -> Inserted {
        if pn < self.floor {
            return Inserted::Duplicate;
        }
        let Some(last) = self.slice_mut().last_mut() else {
            self.insert_at(0, PnRange { start: pn, end: pn });
            return Inserted::New { reordered: false, gap: pn > self.floor };
        };
        if pn > last.end {
            let gap = pn - last.end > 1;
            if gap {
                self.make_room();
                let at = self.slice().len();
                self.insert_at(at, PnRange { start: pn, end: pn });
            } else {
                last.end = pn;
            }
            return Inserted::New { reordered: false, gap };
        }
        self.insert_below(pn)
    }

    /// Inserts a number that is not above the largest.
    fn insert_below(&mut self, pn: PacketNumber) -> Inserted {
        let ranges = self.slice_mut();
        let at = ranges.partition_point(|r| r.end < pn);
        // `at` exists: the last range ends at or above `pn`.
        let above = ranges[at];
        if above.start <= pn {
            return Inserted::Duplicate;
        }
        let joins_above = above.start == pn + 1;
        let joins_below = at > 0 && ranges[at - 1].end + 1 == pn;
        match (joins_below, joins_above) {
            (true, true) => {
                ranges[at].start = ranges[at - 1].start;
                self.remove_one(at - 1);
            }
            (true, false) => ranges[at - 1].end = pn,
            (false, true) => ranges[at].start = pn,
            (false, false) => {
                if at == 0 && ranges.len() >= usize::from(self.cap) {
                    // It would be the lowest range and be dropped at once. The packet is new and is processed, but it
                    // will never be reported; the floor makes sure that it is not processed again.
                    self.floor = pn + 1;
                    return Inserted::New { reordered: true, gap: true };
                }
                let at = at - self.make_room();
                self.insert_at(at, PnRange { start: pn, end: pn });
            }
        }
        Inserted::New { reordered: true, gap: !joins_below }
    }

    /// Drops the lowest range when there is no room for one more, and remembers its end as the floor. Comes before the new
    /// range, so that the array never outgrows the limit. Tells how many ranges went.
    fn make_room(&mut self) -> usize {
        if self.slice().len() < usize::from(self.cap) {
            return 0;
        }
        //= rfc9000#13.2.3-3
        self.floor = self.slice()[0].end + 1;
        self.remove_lowest(1);
        1
    }

    /// Whether the number was received, or is too old to know.
    #[must_use]
    pub fn is_duplicate(&self, pn: PacketNumber) -> bool {
        if pn < self.floor {
            return true;
        }
        let ranges = self.slice();
        match ranges.last() {
            None => false,
            Some(last) if pn > last.end => false,
            Some(last) if pn >= last.start => true,
            Some(_) => ranges.get(ranges.partition_point(|r| r.end < pn)).is_some_and(|r| r.start <= pn),
        }
    }

    /// The largest number received.
    #[must_use]
    pub fn largest(&self) -> Option<PacketNumber> {
        self.slice().last().map(|r| r.end)
    }

    /// The ranges to report as (first, last), both inclusive, largest first.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (PacketNumber, PacketNumber)> + Clone + '_ {
        self.slice().iter().rev().map(|r| (r.start, r.end))
    }

    /// Whether nothing was received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slice().is_empty()
    }

    /// The smallest number at or above `from` and below `below` that was not received.
    #[must_use]
    pub fn first_missing(&self, from: PacketNumber, below: PacketNumber) -> Option<PacketNumber> {
        let ranges = self.slice();
        let from = from.max(self.floor);
        let missing = match ranges.get(ranges.partition_point(|r| r.end < from)) {
            Some(r) if r.start <= from => r.end + 1,
            _ => from,
        };
        (missing < below).then_some(missing)
    }

    /// Stops reporting numbers below `pn`, and counts them all as received. The largest number stays, because every ACK
    /// frame reports it.
    pub fn forget_below(&mut self, pn: PacketNumber) {
        let Some(largest) = self.largest() else { return };
        //= rfc9000#13.2.3-4
        let floor = pn.min(largest);
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        let gone = self.slice().partition_point(|r| r.end < floor);
        self.remove_lowest(gone);
        let first = &mut self.slice_mut()[0];
        first.start = first.start.max(floor);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn listed(h: &RecvHistory) -> Vec<(u64, u64)> {
        h.ranges().collect()
    }

    fn model_ranges(set: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        let mut out: Vec<(u64, u64)> = Vec::new();
        for &n in set {
            match out.last_mut() {
                Some(r) if r.1 + 1 == n => r.1 = n,
                _ => out.push((n, n)),
            }
        }
        out.reverse();
        out
    }

    #[test]
    fn the_four_ways_to_insert() {
        let mut h = RecvHistory::new();
        assert_eq!(h.insert(5), Inserted::New { reordered: false, gap: true });
        assert_eq!(h.insert(6), Inserted::New { reordered: false, gap: false });
        assert_eq!(h.insert(9), Inserted::New { reordered: false, gap: true });
        assert_eq!(h.insert(7), Inserted::New { reordered: true, gap: false });
        assert_eq!(listed(&h), [(9, 9), (5, 7)]);
        assert_eq!(h.insert(8), Inserted::New { reordered: true, gap: false });
        assert_eq!(listed(&h), [(5, 9)]);
        assert_eq!(h.insert(2), Inserted::New { reordered: true, gap: true });
        assert_eq!(h.insert(4), Inserted::New { reordered: true, gap: true });
        assert_eq!(listed(&h), [(4, 9), (2, 2)]);
    }

    #[test]
    fn a_number_is_never_new_twice() {
        //= rfc9000#12.3-4 type=test
        let mut h = RecvHistory::with_cap(2);
        for pn in [0, 10, 20, 30] {
            assert!(matches!(h.insert(pn), Inserted::New { .. }));
        }
        // 0 and 10 were dropped; they and all that lies below count as received.
        for pn in [0, 5, 10, 20, 30] {
            assert_eq!(h.insert(pn), Inserted::Duplicate, "{pn}");
            assert!(h.is_duplicate(pn));
        }
        assert!(matches!(h.insert(11), Inserted::New { .. }));
        assert_eq!(h.insert(11), Inserted::Duplicate);
        assert_eq!(listed(&h), [(30, 30), (20, 20)]);
    }

    #[test]
    fn overflow_drops_the_lowest_and_keeps_the_newest() {
        // LS-DS-18: a peer that leaves out every other number.
        //= rfc9000#13.2.3-3 type=test
        let mut h = RecvHistory::new();
        for i in 0..100_000u64 {
            h.insert(2 * i);
            assert!(h.spilled.capacity() * size_of::<PnRange>() <= 4 << 10);
        }
        let newest: Vec<_> = (0..RANGES_MAX as u64).map(|i| (199_998 - 2 * i, 199_998 - 2 * i)).collect();
        assert_eq!(listed(&h), newest);
        assert!(h.is_duplicate(1) && !h.is_duplicate(199_997));
        // The same from above, where each new range is the second lowest.
        let mut h = RecvHistory::new();
        h.insert(0);
        for i in (1..10_000u64).rev() {
            h.insert(2 * i);
            assert!(h.spilled.capacity() * size_of::<PnRange>() <= 4 << 10);
        }
        assert_eq!((h.ranges().len(), h.largest()), (RANGES_MAX, Some(19_998)));
    }

    #[test]
    fn a_thousand_ranges_fit_in_17_kilobytes() {
        // LS-DS-17: 16 bytes each and the struct itself. Ours end at 256 ranges, whose 4 KiB are checked above.
        let mut h = RecvHistory::with_cap(1000);
        (0..5000).for_each(|i| _ = h.insert(2 * i));
        assert_eq!(h.ranges().len(), 1000);
        let bytes = h.spilled.capacity() * size_of::<PnRange>() + size_of::<RecvHistory>();
        assert!(bytes <= 17_000, "{bytes} bytes");
    }

    #[test]
    fn forgetting_keeps_the_largest() {
        //= rfc9000#13.2.3-4 type=test
        let mut h = RecvHistory::new();
        for pn in [0, 1, 2, 5, 6] {
            h.insert(pn);
        }
        h.forget_below(6);
        assert_eq!(listed(&h), [(6, 6)]);
        h.forget_below(100);
        assert_eq!(h.largest(), Some(6));
        assert_eq!(h.insert(4), Inserted::Duplicate);
        assert_eq!(h.insert(7), Inserted::New { reordered: false, gap: false });
        h.forget_below(3);
        assert_eq!(listed(&h), [(6, 7)]);
    }

    #[test]
    fn missing_numbers_are_found() {
        let mut h = RecvHistory::new();
        for pn in [1, 2, 5, 6, 9] {
            h.insert(pn);
        }
        assert_eq!(h.first_missing(0, 9), Some(0));
        assert_eq!(h.first_missing(1, 9), Some(3));
        assert_eq!(h.first_missing(4, 9), Some(4));
        assert_eq!(h.first_missing(5, 9), Some(7));
        assert_eq!(h.first_missing(5, 7), None);
        assert_eq!(h.first_missing(9, 9), None);
    }

    #[test]
    fn one_range_needs_no_allocation_and_the_next_thirty_one_need_one() {
        let mut h = RecvHistory::new();
        (0..1000).for_each(|pn| _ = h.insert(pn));
        assert_eq!((h.spilled.capacity(), h.ranges().len()), (0, 1));
        (1..32).for_each(|n| _ = h.insert(1000 + 10 * n));
        assert_eq!((h.spilled.capacity(), h.ranges().len()), (SPILL, 32));
        assert!(size_of::<RecvHistory>() <= 72, "{}", size_of::<RecvHistory>());
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(
            cap in 1u16..12,
            ops in prop::collection::vec((0u64..80, 0u8..10), 1..200),
        ) {
            let mut h = RecvHistory::with_cap(cap);
            let mut set = BTreeSet::new();
            let mut floor = 0;
            for (pn, op) in ops {
                if op == 0 {
                    h.forget_below(pn);
                    if let Some(&largest) = set.last() {
                        floor = floor.max(pn.min(largest));
                        set.retain(|&n| n >= floor);
                    }
                } else {
                    let largest = set.last().copied();
                    let dup = pn < floor || set.contains(&pn);
                    prop_assert_eq!(h.is_duplicate(pn), dup);
                    let got = h.insert(pn);
                    if dup {
                        prop_assert_eq!(got, Inserted::Duplicate);
                    } else {
                        let reordered = largest.is_some_and(|l| l > pn);
                        let gap = pn > floor && !set.contains(&(pn - 1)) || pn == floor && largest.is_some();
                        set.insert(pn);
                        while model_ranges(&set).len() > usize::from(cap) {
                            let low = *model_ranges(&set).last().unwrap();
                            floor = low.1 + 1;
                            set.retain(|&n| n >= floor);
                        }
                        prop_assert_eq!(got, Inserted::New { reordered, gap });
                    }
                }
                prop_assert_eq!(listed(&h), model_ranges(&set));
                prop_assert_eq!(h.largest(), set.last().copied());
                for from in [0, 7, 40] {
                    let expected = (from.max(floor)..60).find(|n| !set.contains(n));
                    prop_assert_eq!(h.first_missing(from, 60), expected);
                }
            }
        }
    }
}

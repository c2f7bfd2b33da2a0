//! Consecutive ACK frames of one space, merged before they are processed.
//!
//! A receive batch often brings several ACK frames of one connection. Walking the sent packets and running loss detection
//! once for all of them is many times cheaper than once for each, and no packet is declared lost that a later frame of the
//! same batch acknowledges. The set belongs to the engine, not to a connection: 32 KiB once, not for each.
//!
//! Invariants: ranges descend and leave at least one number between them; at most [`MERGED_MAX`]. The receive time, the
//! delay and the ECN counts are those of the frame that brought the largest number, so the RTT sample is exact.

use core::time::Duration;

use super::EcnCounts;
use crate::ids::{PacketNumber, Space};
use crate::time::Instant;

/// Most ranges in a merged set. A single frame with more keeps its largest ones; the rest stays unacknowledged, which is
/// always allowed.
pub const MERGED_MAX: usize = 1024;

/// The fields of an ACK frame apart from its ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckInfo {
    /// Space of the packet that carried the frame.
    pub space: Space,
    /// The ACK Delay field, decoded with the peer's exponent.
    pub delay: Duration,
    /// ECN counts; `None` for the frame type without them.
    pub ecn: Option<EcnCounts>,
    /// When the datagram arrived.
    pub received: Instant,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Merge {
    /// It is part of the set now.
    Merged,
    /// The set has to be processed and cleared first; the frame was not taken.
    MustFlush,
}

/// Acknowledged numbers of one space, from one or more ACK frames.
#[derive(Clone, Debug)]
pub struct AckRanges {
    /// Inclusive (start, end), largest first.
    ranges: Vec<(PacketNumber, PacketNumber)>,
    /// Where the union is built; swapped with `ranges`.
    scratch: Vec<(PacketNumber, PacketNumber)>,
    /// Fields of the frame with the largest number.
    info: AckInfo,
    /// Frames in the set.
    frames: u32,
}

impl Default for AckRanges {
    fn default() -> Self {
        Self::new()
    }
}

impl AckRanges {
    /// An empty set. Allocates when it is first used.
    #[must_use]
    pub const fn new() -> Self {
        let info = AckInfo { space: Space::Data, delay: Duration::ZERO, ecn: None, received: Instant::ZERO };
        Self { ranges: Vec::new(), scratch: Vec::new(), info, frames: 0 }
    }

    /// An empty set that never allocates again.
    #[must_use]
    pub fn with_room() -> Self {
        Self { ranges: Vec::with_capacity(MERGED_MAX), scratch: Vec::with_capacity(MERGED_MAX), ..Self::new() }
    }

    /// A set with the ranges of one frame.
    #[must_use]
    pub fn from_frame(info: AckInfo, ranges: impl Iterator<Item = (PacketNumber, PacketNumber)>) -> Self {
        let mut set = Self::new();
        set.restart(info, ranges);
        set
    }

    /// Forgets everything and takes the ranges of one frame.
    pub fn restart(&mut self, info: AckInfo, ranges: impl Iterator<Item = (PacketNumber, PacketNumber)>) {
        self.start(info, ranges);
    }

    /// Adds a frame. Its ranges are (first, last), both inclusive, and come largest first, as in the frame.
    pub fn merge(&mut self, info: AckInfo, ranges: impl Iterator<Item = (PacketNumber, PacketNumber)>) -> Merge {
        if self.is_empty() {
            self.start(info, ranges);
            return Merge::Merged;
        }
        // Frames with and without counts are judged apart, or a good frame would fail for what another one lacks.
        if info.space != self.info.space || info.ecn.is_some() != self.info.ecn.is_some() {
            return Merge::MustFlush;
        }
        let largest = self.largest();
        if !self.unite(ranges) {
            return Merge::MustFlush;
        }
        core::mem::swap(&mut self.ranges, &mut self.scratch);
        self.frames += 1;
        if self.largest() > largest {
            self.info = info;
        }
        Merge::Merged
    }

    fn start(&mut self, info: AckInfo, ranges: impl Iterator<Item = (PacketNumber, PacketNumber)>) {
        self.clear();
        self.info = info;
        for range in ranges {
            if !push_joined(&mut self.ranges, range.0, range.1) {
                break;
            }
        }
        self.frames = u32::from(!self.ranges.is_empty());
    }

    /// Builds the union of the set and `new` in `scratch`; false when it does not fit.
    fn unite(&mut self, new: impl Iterator<Item = (PacketNumber, PacketNumber)>) -> bool {
        self.scratch.clear();
        let mut mine = self.ranges.iter().copied().peekable();
        let mut theirs = new.peekable();
        loop {
            // The one that ends higher is next, so that what is pushed descends by its end.
            let next = match (mine.peek(), theirs.peek()) {
                (Some(a), Some(b)) if a.1 >= b.1 => mine.next(),
                (_, Some(_)) => theirs.next(),
                (Some(_), None) => mine.next(),
                (None, None) => return true,
            };
            let Some((start, end)) = next else { return true };
            if !push_joined(&mut self.scratch, start, end) {
                return false;
            }
        }
    }

    /// Whether the set holds no frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Forgets everything; memory stays.
    pub fn clear(&mut self) {
        self.ranges.clear();
        self.frames = 0;
    }

    /// The largest acknowledged number.
    #[must_use]
    pub fn largest(&self) -> Option<PacketNumber> {
        self.ranges.first().map(|r| r.1)
    }

    /// The acknowledged ranges as (first, last), both inclusive, largest first.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (PacketNumber, PacketNumber)> + Clone + '_ {
        self.ranges.iter().copied()
    }

    /// Whether the number is acknowledged.
    #[must_use]
    pub fn contains(&self, pn: PacketNumber) -> bool {
        self.ranges.get(self.ranges.partition_point(|r| r.0 > pn)).is_some_and(|r| pn <= r.1)
    }

    /// The space.
    #[must_use]
    pub const fn space(&self) -> Space {
        self.info.space
    }

    /// The ACK Delay of the frame with the largest number.
    #[must_use]
    pub const fn delay(&self) -> Duration {
        self.info.delay
    }

    /// When the frame with the largest number arrived.
    #[must_use]
    pub const fn received(&self) -> Instant {
        self.info.received
    }

    /// ECN counts of the frame with the largest number.
    #[must_use]
    pub const fn ecn(&self) -> Option<EcnCounts> {
        self.info.ecn
    }

    /// How many frames were merged.
    #[must_use]
    pub const fn frames(&self) -> u32 {
        self.frames
    }
}

/// Appends a range that ends no higher than the last one, joining them where they touch; false when the set is full.
fn push_joined(out: &mut Vec<(PacketNumber, PacketNumber)>, start: PacketNumber, end: PacketNumber) -> bool {
    debug_assert!(start <= end);
    let full = out.len() >= MERGED_MAX;
    match out.last_mut() {
        Some(last) if end.saturating_add(1) >= last.0 => last.0 = last.0.min(start),
        _ if full => return false,
        _ => out.push((start, end)),
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn info(ms: u64) -> AckInfo {
        AckInfo {
            space: Space::Data,
            delay: Duration::from_millis(ms),
            ecn: None,
            received: Instant::from_micros(ms * 1000),
        }
    }

    #[test]
    fn frames_in_order_become_one_range() {
        let mut set = AckRanges::new();
        assert_eq!(set.merge(info(1), [(0, 43)].into_iter()), Merge::Merged);
        assert_eq!(set.merge(info(2), [(0, 87)].into_iter()), Merge::Merged);
        assert_eq!(set.merge(info(3), [(88, 100)].into_iter()), Merge::Merged);
        assert_eq!(set.ranges().collect::<Vec<_>>(), [(0, 100)]);
        assert_eq!((set.frames(), set.received().as_micros()), (3, 3000));
    }

    #[test]
    fn an_older_frame_keeps_the_time_of_the_newest() {
        let mut set = AckRanges::new();
        assert_eq!(set.merge(info(5), [(10, 20)].into_iter()), Merge::Merged);
        assert_eq!(set.merge(info(6), [(10, 20), (0, 3)].into_iter()), Merge::Merged);
        assert_eq!((set.delay(), set.received().as_micros()), (Duration::from_millis(5), 5000));
        assert!(set.contains(3) && set.contains(10) && !set.contains(4));
    }

    #[test]
    fn another_space_or_frame_type_has_to_wait() {
        let mut set = AckRanges::from_frame(info(1), [(5, 5)].into_iter());
        assert_eq!(set.merge(AckInfo { space: Space::Initial, ..info(1) }, [(6, 6)].into_iter()), Merge::MustFlush);
        let marked = AckInfo { ecn: Some(EcnCounts::default()), ..info(1) };
        assert_eq!(set.merge(marked, [(6, 6)].into_iter()), Merge::MustFlush);
        assert_eq!(set.ranges().collect::<Vec<_>>(), [(5, 5)]);
    }

    #[test]
    fn a_set_that_would_be_too_large_is_left_alone() {
        let even = || (0..1000u64).rev().map(|i| (4 * i, 4 * i));
        let odd = || (0..1000u64).rev().map(|i| (4 * i + 2, 4 * i + 2));
        let mut set = AckRanges::from_frame(info(1), even());
        assert_eq!(set.merge(info(2), odd()), Merge::MustFlush);
        assert!(set.ranges().eq(even()));
        set.clear();
        assert_eq!(set.merge(info(2), odd()), Merge::Merged);
        assert_eq!(set.ranges().len(), 1000);
    }

    #[test]
    fn a_single_huge_frame_keeps_its_largest_ranges() {
        let set = AckRanges::from_frame(info(1), (0..5000u64).rev().map(|i| (2 * i, 2 * i)));
        assert_eq!(set.ranges().len(), MERGED_MAX);
        assert_eq!(set.largest(), Some(9998));
        assert!(set.contains(9998 - 2 * 1023) && !set.contains(9998 - 2 * 1024));
    }

    fn descending(set: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        let mut out: Vec<(u64, u64)> = Vec::new();
        for &n in set.iter().rev() {
            match out.last_mut() {
                Some(r) if r.0 == n + 1 => r.0 = n,
                _ => out.push((n, n)),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn merged_is_the_union(frames in prop::collection::vec(prop::collection::btree_set(0u64..120, 1..40), 1..8)) {
            let mut set = AckRanges::new();
            let mut union = BTreeSet::new();
            let mut newest: Option<(u64, u64)> = None;
            for (i, frame) in (1u64..).zip(&frames) {
                prop_assert_eq!(set.merge(info(i), descending(frame).into_iter()), Merge::Merged);
                union.extend(frame.iter().copied());
                let largest = *frame.last().unwrap();
                if newest.is_none_or(|(l, _)| largest > l) {
                    newest = Some((largest, i));
                }
                prop_assert!(set.ranges().eq(descending(&union)));
                let (largest, when) = newest.unwrap();
                prop_assert_eq!(set.largest(), Some(largest));
                prop_assert_eq!(set.received().as_micros(), when * 1000);
                for pn in 0..120 {
                    prop_assert_eq!(set.contains(pn), union.contains(&pn));
                }
            }
        }
    }
}

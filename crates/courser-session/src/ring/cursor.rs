//! The arithmetic of ring indices.
//!
//! Both indices run freely through 32 bits and wrap; the difference is what counts. The other side's index is a claim:
//! it is copied out of shared memory once and believed only when the difference fits the capacity. Inside one process a
//! wrong claim is impossible; over a segment that another process can write to, it is the first thing to try.

use crate::num::widen;

/// The number of slots: a power of two of at most 2^30, so that the wrapping difference of two indices is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots(u32);

impl Slots {
    const MAX: u32 = 1 << 30;

    /// That many slots; `None` when it is no power of two or too large.
    pub(crate) const fn new(count: u32) -> Option<Self> {
        if count.is_power_of_two() && count <= Self::MAX { Some(Self(count)) } else { None }
    }

    pub(crate) const fn count(self) -> u32 {
        self.0
    }

    /// Where the item of that index lies.
    pub(crate) const fn position(self, index: u32) -> usize {
        widen(index & (self.0 - 1))
    }

    /// Items between the two indices; `None` when there cannot be that many, which means that one of them is a lie.
    pub(crate) const fn filled(self, head: u32, tail: u32) -> Option<u32> {
        let filled = tail.wrapping_sub(head);
        if filled <= self.0 { Some(filled) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn capacities_are_powers_of_two() {
        for (count, valid) in [(0, false), (1, true), (2, true), (3, false), (1 << 30, true), (1 << 31, false)] {
            assert_eq!(Slots::new(count).is_some(), valid, "{count}");
        }
    }

    proptest! {
        #[test]
        fn a_claimed_index_is_believed_exactly_when_it_is_at_most_the_capacity_ahead(
            exponent in 0u32..=30, head: u32, ahead: u32,
        ) {
            let slots = Slots::new(1 << exponent).unwrap();
            let expected = (ahead <= slots.count()).then_some(ahead);
            prop_assert_eq!(slots.filled(head, head.wrapping_add(ahead)), expected);
        }

        #[test]
        fn any_index_lies_inside_and_neighbours_do_not_collide(exponent in 1u32..=30, index: u32) {
            let slots = Slots::new(1 << exponent).unwrap();
            prop_assert!(slots.position(index) < widen(slots.count()));
            prop_assert_ne!(slots.position(index), slots.position(index.wrapping_add(1)));
        }
    }
}

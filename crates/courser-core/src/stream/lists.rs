//! Circular lists over slot numbers.
//!
//! `N` lists share one array of links, so that a slot is in at most one of them and joins, leaves and moves in constant
//! time without memory of its own. A slot that is in no list costs nothing to anybody.

use crate::buf::lazy::{Lazy, Part};

/// No slot, and no list.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    prev: u32,
    next: u32,
    list: u32,
}

/// `N` lists of slots; they take memory while a slot is in one of them, and until they are asked to forget it.
#[derive(Debug)]
pub(super) struct Lists<const N: usize>(Lazy<Rings<N>>);

#[derive(Debug)]
struct Rings<const N: usize> {
    links: Vec<Link>,
    heads: [u32; N],
    len: usize,
}

impl<const N: usize> Rings<N> {
    const EMPTY: Self = Self { links: Vec::new(), heads: [NONE; N], len: 0 };
}

impl<const N: usize> Part for Rings<N> {
    const UNUSED: &'static Self = &Self::EMPTY;

    fn begin() -> Self {
        Self::EMPTY
    }

    fn is_unused(&self) -> bool {
        self.len == 0
    }
}

impl<const N: usize> Lists<N> {
    pub(super) const fn new() -> Self {
        Self(Lazy::new())
    }

    /// Slots in all lists.
    pub(super) fn len(&self) -> usize {
        self.0.len
    }

    /// The list that the slot is in.
    pub(super) fn list_of(&self, slot: u32) -> Option<usize> {
        self.0.links.get(slot as usize).filter(|l| l.list != NONE).map(|l| l.list as usize)
    }

    pub(super) fn front(&self, list: usize) -> Option<u32> {
        match self.0.heads[list] {
            NONE => None,
            slot => Some(slot),
        }
    }

    /// Puts a slot at the end of a list; it must be in none.
    pub(super) fn push_back(&mut self, list: usize, slot: u32) {
        debug_assert!(self.list_of(slot).is_none(), "a slot is in one list at a time");
        let (rings, at) = (&mut *self.0, slot as usize);
        if rings.links.len() <= at {
            rings.links.resize(at + 1, Link { prev: NONE, next: NONE, list: NONE });
        }
        let head = rings.heads[list];
        let (prev, next) = if head == NONE { (slot, slot) } else { (rings.links[head as usize].prev, head) };
        rings.links[at] = Link { prev, next, list: list as u32 };
        rings.links[prev as usize].next = slot;
        rings.links[next as usize].prev = slot;
        if head == NONE {
            rings.heads[list] = slot;
        }
        rings.len += 1;
    }

    /// Takes a slot out of whatever list it is in.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(list) = self.list_of(slot) else { return };
        let rings = &mut *self.0;
        let Link { prev, next, .. } = rings.links[slot as usize];
        rings.links[prev as usize].next = next;
        rings.links[next as usize].prev = prev;
        if rings.heads[list] == slot {
            rings.heads[list] = if next == slot { NONE } else { next };
        }
        rings.links[slot as usize].list = NONE;
        rings.len -= 1;
    }

    /// Makes the second the first and the first the last.
    pub(super) fn rotate(&mut self, list: usize) {
        if let Some(head) = self.front(list) {
            let next = self.0.links[head as usize].next;
            self.0.heads[list] = next;
        }
    }

    /// Forgets the memory of links while every list is empty.
    pub(super) fn shrink(&mut self) {
        self.0.rest();
    }

    /// Slots that memory is kept for.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.0.links.capacity()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_memory_of_links_is_forgotten_only_while_every_list_is_empty() {
        let mut lists = Lists::<2>::new();
        lists.push_back(1, 9);
        lists.shrink();
        assert!(lists.kept() > 9 && lists.front(1) == Some(9));
        lists.remove(9);
        lists.shrink();
        assert_eq!((lists.kept(), lists.list_of(9)), (0, None));
        lists.push_back(0, 0);
        assert_eq!((lists.front(0), lists.len()), (Some(0), 1));
    }

    proptest! {
        #[test]
        fn behave_like_queues(ops in prop::collection::vec((0u8..5, 0u32..12, 0usize..3), 1..200)) {
            let mut lists = Lists::<3>::new();
            let mut model: [VecDeque<u32>; 3] = Default::default();
            for (op, slot, list) in ops {
                match op {
                    0..=1 if !model.iter().any(|q| q.contains(&slot)) => {
                        lists.push_back(list, slot);
                        model[list].push_back(slot);
                    }
                    2 => {
                        lists.remove(slot);
                        model.iter_mut().for_each(|q| q.retain(|s| *s != slot));
                    }
                    3 => {
                        lists.rotate(list);
                        if !model[list].is_empty() {
                            model[list].rotate_left(1);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(lists.list_of(slot), model.iter().position(|q| q.contains(&slot)));
                prop_assert_eq!(lists.front(list), model[list].front().copied());
                prop_assert_eq!(lists.len(), model.iter().map(VecDeque::len).sum::<usize>());
            }
            for (list, queue) in model.iter().enumerate() {
                for slot in queue {
                    prop_assert_eq!(lists.front(list), Some(*slot));
                    lists.remove(*slot);
                }
            }
        }
    }
}

//! The table that gives handles out.
//!
//! Slots live in pages of 64 that never move, so that growing costs one page and not a copy of the table. A free list
//! through the slots reuses the one freed last, which is still in the cache. Each use raises the slot's generation; a
//! slot whose generation is used up is retired: it stays empty for good. At a million sessions a second through one
//! slot that happens every four and a half minutes, and the table has 16 million slots.
//!
//! Invariants: a slot's tag equals the handle's kind and generation exactly while the session lives; a free slot's tag
//! has no kind, hence equals no handle's. `len + free + retired = fresh`.

use core::fmt;

use super::{GENERATION_BITS, GENERATION_MAX, Handle, HandleError, INDEX_LIMIT, Kind};
use crate::num::{clamp, widen};

/// Slots of a page.
const PAGE: usize = 64;
/// End of the free list; no index is that large.
const NONE: u32 = u32::MAX;

struct Slot<T> {
    /// Kind and generation of the session; without the kind while the slot is free.
    tag: u32,
    /// The next free slot; has no meaning while the slot is used.
    next: u32,
    entry: Option<T>,
}

// The table's own share of an entry: far below the 64 bytes that a session may cost beside the worker's key.
const _: () = assert!(size_of::<Slot<[u64; 4]>>() <= size_of::<[u64; 4]>() + 16);

/// Every slot is used or retired.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TableFull<T>(pub T);

impl<T> fmt::Debug for TableFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TableFull(..)")
    }
}

impl<T> fmt::Display for TableFull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the table of sessions is full")
    }
}

impl<T> core::error::Error for TableFull<T> {}

/// Sessions of one worker by handle.
pub struct HandleTable<T> {
    worker: u8,
    pages: Vec<Box<[Slot<T>]>>,
    /// First slot of the free list.
    free: u32,
    /// The first slot that was never used.
    fresh: u32,
    /// How many slots there may be at most.
    slots_max: u32,
    len: u32,
    retired: u32,
    /// Below the handle's limit only in tests: nobody can use a slot 2^28 times there.
    generation_max: u32,
    /// The generation that stands in slots that were never used.
    base: u32,
    /// The highest generation given out.
    highest: u32,
}

impl<T> HandleTable<T> {
    /// An empty table of a worker for at most `slots_max` sessions at a time (and at most 2^24).
    #[must_use]
    pub const fn new(worker: u8, slots_max: u32) -> Self {
        let slots_max = if slots_max < INDEX_LIMIT { slots_max } else { INDEX_LIMIT };
        Self {
            worker,
            pages: Vec::new(),
            free: NONE,
            fresh: 0,
            slots_max,
            len: 0,
            retired: 0,
            generation_max: GENERATION_MAX,
            base: 0,
            highest: 0,
        }
    }

    /// The same for a worker whose number another one had before: all handles have generations above `generation`, so that
    /// none of them was given out by a table whose [highest](Self::highest_generation) that is. With 2^28 - 1 it is full at once.
    #[must_use]
    pub const fn continuing(mut self, generation: u32) -> Self {
        self.base = if generation < GENERATION_MAX { generation } else { GENERATION_MAX };
        self.highest = self.base;
        if self.base == GENERATION_MAX {
            self.slots_max = 0;
        }
        self
    }

    /// No handle has a higher generation.
    #[must_use]
    pub const fn highest_generation(&self) -> u32 {
        self.highest
    }

    /// The worker that all handles of this table name.
    #[must_use]
    pub const fn worker(&self) -> u8 {
        self.worker
    }

    /// How many sessions there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        widen(self.len)
    }

    /// Whether there is no session.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many slots used up their generations.
    #[must_use]
    pub const fn retired(&self) -> usize {
        widen(self.retired)
    }

    /// Memory of the table in bytes, without what the entries own elsewhere. It follows the largest number of sessions
    /// that there were at a time.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.pages.len() * PAGE * size_of::<Slot<T>>() + self.pages.capacity() * size_of::<Box<[Slot<T>]>>()
    }

    /// Takes a session in and names it. When there is no slot left the value comes back.
    pub fn insert(&mut self, kind: Kind, value: T) -> Result<Handle, TableFull<T>> {
        let Some(index) = self.vacate() else { return Err(TableFull(value)) };
        let worker = self.worker;
        let next_free = self.slot(index).next;
        let slot = self.slot_mut(index);
        debug_assert!(slot.entry.is_none(), "a free slot is empty");
        slot.tag = kind.bits() << GENERATION_BITS | (slot.tag + 1);
        slot.entry = Some(value);
        let handle = Handle::from_tag(worker, slot.tag, index).expect("a used slot has a kind and a generation");
        self.highest = self.highest.max(handle.generation());
        if index == self.fresh {
            self.fresh += 1;
        } else {
            self.free = next_free;
        }
        self.len += 1;
        Ok(handle)
    }

    /// The slot for the next session: the one freed last, or a fresh one. Nothing but memory changes yet.
    fn vacate(&mut self) -> Option<u32> {
        if self.free != NONE {
            return Some(self.free);
        }
        if self.fresh >= self.slots_max {
            return None;
        }
        if widen(self.fresh) == self.pages.len() * PAGE {
            let tag = self.base;
            self.pages.push((0..PAGE).map(|_| Slot { tag, next: NONE, entry: None }).collect());
        }
        Some(self.fresh)
    }

    /// The session of that name.
    pub fn get(&self, handle: Handle) -> Result<&T, HandleError> {
        let index = self.find(handle)?;
        self.slot(index).entry.as_ref().ok_or(HandleError::Late)
    }

    /// The session of that name, to be changed.
    pub fn get_mut(&mut self, handle: Handle) -> Result<&mut T, HandleError> {
        let index = self.find(handle)?;
        self.slot_mut(index).entry.as_mut().ok_or(HandleError::Late)
    }

    /// Whether the session exists.
    #[must_use]
    pub fn contains(&self, handle: Handle) -> bool {
        self.find(handle).is_ok()
    }

    /// Ends a session: its handle is late from now on and for ever.
    pub fn remove(&mut self, handle: Handle) -> Result<T, HandleError> {
        let index = self.find(handle)?;
        let (free, generation_max) = (self.free, self.generation_max);
        let slot = self.slot_mut(index);
        let value = slot.entry.take().ok_or(HandleError::Late)?;
        slot.tag &= GENERATION_MAX;
        if slot.tag < generation_max {
            slot.next = free;
            self.free = index;
        } else {
            self.retired += 1;
        }
        self.len -= 1;
        Ok(value)
    }

    /// All sessions, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        let worker = self.worker;
        (0u32..)
            .zip(self.pages.iter().flatten())
            .filter_map(move |(index, slot)| Some((Handle::from_tag(worker, slot.tag, index)?, slot.entry.as_ref()?)))
    }

    /// All sessions, by slot, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Handle, &mut T)> {
        let worker = self.worker;
        (0u32..)
            .zip(self.pages.iter_mut().flatten())
            .filter_map(move |(index, slot)| Some((Handle::from_tag(worker, slot.tag, index)?, slot.entry.as_mut()?)))
    }

    /// The slot that holds the session, or why there is none.
    fn find(&self, handle: Handle) -> Result<u32, HandleError> {
        let index = handle.index();
        if handle.worker() != self.worker {
            return Err(HandleError::Foreign);
        }
        if index >= self.fresh {
            return Err(HandleError::Unknown);
        }
        let tag = self.slot(index).tag;
        if tag == handle.tag() {
            return Ok(index);
        }
        let is_free = tag & GENERATION_MAX == tag;
        let last = tag & GENERATION_MAX;
        let was_used = handle.generation() < last || (is_free && handle.generation() == last);
        Err(if was_used { HandleError::Late } else { HandleError::Unknown })
    }

    /// A slot below `fresh`, or the next one when its page exists.
    fn slot(&self, index: u32) -> &Slot<T> {
        &self.pages[widen(index) / PAGE][widen(index) % PAGE]
    }

    fn slot_mut(&mut self, index: u32) -> &mut Slot<T> {
        &mut self.pages[widen(index) / PAGE][widen(index) % PAGE]
    }
}

impl<T> fmt::Debug for HandleTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandleTable")
            .field("worker", &self.worker)
            .field("len", &self.len)
            .field("fresh", &self.fresh)
            .field("retired", &self.retired)
            .field("pages", &clamp(self.pages.len()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn short_lived<T>(slots_max: u32, generation_max: u32) -> HandleTable<T> {
        HandleTable { generation_max, ..HandleTable::new(0, slots_max) }
    }

    #[test]
    fn a_table_that_continues_another_one_gives_out_none_of_its_handles() {
        let mut first = HandleTable::new(1, 8);
        let mut given = Vec::new();
        for _ in 0..5 {
            let (a, b) = (first.insert(Kind::Stream, ()).unwrap(), first.insert(Kind::Stream, ()).unwrap());
            first.remove(a).unwrap();
            first.remove(b).unwrap();
            given.extend([a, b]);
        }
        let mut second = HandleTable::new(1, 8).continuing(first.highest_generation());
        for handle in &given {
            assert_eq!(second.get(*handle), Err(HandleError::Unknown));
        }
        let next = second.insert(Kind::Stream, ()).unwrap();
        assert!(!given.contains(&next));
        assert!(
            given
                .iter()
                .filter(|old| old.index() == next.index())
                .all(|old| second.get(*old) == Err(HandleError::Late))
        );
        let mut last = HandleTable::new(1, 8).continuing(u32::MAX);
        assert!(last.insert(Kind::Stream, ()).is_err());
    }

    #[test]
    fn a_connection_holds_a_million_streams_and_gives_every_one_back() {
        const STREAMS: u64 = 1 << 20;
        let mut table = HandleTable::new(3, INDEX_LIMIT);
        let connection = table.insert(Kind::Connection, u64::MAX).unwrap();
        let handles: Vec<_> = (0..STREAMS).map(|n| table.insert(Kind::Stream, n).unwrap()).collect();
        assert_eq!(table.len(), handles.len() + 1);
        assert!(table.memory_bytes() <= table.len() * (64 + size_of::<u64>()) + PAGE * 64, "{}", table.memory_bytes());
        for (n, handle) in (0..).zip(&handles) {
            assert_eq!(table.get(*handle), Ok(&n));
        }
        for handle in &handles {
            table.remove(*handle).unwrap();
        }
        assert!(handles.iter().all(|h| table.get(*h) == Err(HandleError::Late)));
        assert_eq!((table.len(), table.get(connection)), (1, Ok(&u64::MAX)));
        let full = table.memory_bytes();
        let again = table.insert(Kind::Stream, 1).unwrap();
        assert_eq!((again.generation(), table.memory_bytes()), (2, full), "freed slots are used before new ones");
    }

    #[test]
    fn a_slot_is_retired_before_its_generation_wraps() {
        let mut table = short_lived(2, 3);
        let mut seen = Vec::new();
        for _ in 0..6 {
            let handle = table.insert(Kind::Stream, ()).unwrap();
            assert!(!seen.contains(&handle));
            seen.push(handle);
            table.remove(handle).unwrap();
        }
        assert_eq!((table.retired(), table.len()), (2, 0));
        assert!(table.insert(Kind::Stream, ()).is_err(), "both slots are used up");
        assert!(seen.iter().all(|h| table.get(*h) == Err(HandleError::Late)));
    }

    #[test]
    fn the_last_generation_of_a_real_slot_is_the_largest_that_fits() {
        let mut table = HandleTable::new(0, 1);
        let first = table.insert(Kind::Listener, ()).unwrap();
        table.remove(first).unwrap();
        table.slot_mut(0).tag = GENERATION_MAX - 1;
        let last = table.insert(Kind::Stream, ()).unwrap();
        assert_eq!((last.generation(), last.kind()), (GENERATION_MAX, Kind::Stream));
        table.remove(last).unwrap();
        assert_eq!(table.retired(), 1);
        assert!(table.insert(Kind::Stream, ()).is_err());
    }

    #[test]
    fn a_full_table_gives_the_value_back_and_keeps_working() {
        let mut table = HandleTable::new(0, 1);
        let only = table.insert(Kind::Stream, "a").unwrap();
        assert_eq!(table.insert(Kind::Stream, "b").unwrap_err().0, "b");
        assert_eq!(table.remove(only), Ok("a"));
        assert_eq!(table.insert(Kind::Stream, "b").unwrap().generation(), 2);
    }

    #[test]
    fn every_wrong_handle_is_told_apart() {
        let mut table = HandleTable::new(1, 8);
        let old = table.insert(Kind::Stream, 1).unwrap();
        assert_eq!(table.remove(old), Ok(1));
        assert_eq!(table.get(old), Err(HandleError::Late), "before the slot is used again");
        let new = table.insert(Kind::Connection, 2).unwrap();
        assert_eq!((table.get(old), table.get(new)), (Err(HandleError::Late), Ok(&2)));
        assert_eq!(table.remove(old), Err(HandleError::Late));
        for (text, error) in [
            ("w2/connection/0#2", HandleError::Foreign),
            ("w1/connection/1#1", HandleError::Unknown),
            ("w1/connection/0#3", HandleError::Unknown),
            ("w1/stream/0#2", HandleError::Unknown),
            ("w1/connection/16777215#1", HandleError::Unknown),
        ] {
            assert_eq!(table.get(text.parse().unwrap()), Err(error), "{text}");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize),
        Remove(usize),
        Change(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0usize..3).prop_map(Step::Insert),
            2 => any::<usize>().prop_map(Step::Remove),
            1 => any::<usize>().prop_map(Step::Change),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn the_table_does_what_a_map_from_unique_names_does(steps in steps(), slots in 1u32..80, generations in 1u32..5) {
            let mut table = short_lived(slots, generations);
            let (mut model, mut given) = (HashMap::new(), Vec::new());
            for (n, step) in (0u64..).zip(steps) {
                match step {
                    Step::Insert(kind) => match table.insert(Kind::ALL[kind], n) {
                        Ok(handle) => {
                            prop_assert!(!given.contains(&handle), "{} was given out before", handle);
                            prop_assert_eq!(handle.kind(), Kind::ALL[kind]);
                            given.push(handle);
                            model.insert(handle, n);
                        }
                        Err(TableFull(value)) => {
                            prop_assert_eq!(value, n);
                            prop_assert_eq!(table.len() + table.retired(), widen(slots));
                        }
                    },
                    Step::Remove(at) if !given.is_empty() => {
                        let handle = given[at % given.len()];
                        prop_assert_eq!(table.remove(handle), model.remove(&handle).ok_or(HandleError::Late));
                    }
                    Step::Change(at) if !given.is_empty() => {
                        let handle = given[at % given.len()];
                        if let Ok(value) = table.get_mut(handle) {
                            *value = n;
                        }
                        model.entry(handle).and_modify(|value| *value = n);
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for handle in given {
                prop_assert_eq!(table.get(handle), model.get(&handle).ok_or(HandleError::Late));
            }
            let all: HashMap<_, _> = table.iter().map(|(h, v)| (h, *v)).collect();
            prop_assert_eq!(all.len(), table.len());
            prop_assert_eq!(&all, &model);
            table.iter_mut().for_each(|(_, v)| *v += 1);
            prop_assert!(table.iter().all(|(h, v)| *v == model[&h] + 1));
        }
    }

    #[test]
    fn a_million_sessions_through_one_slot_have_a_million_handles() {
        let mut table = HandleTable::new(7, 1);
        let mut last: Option<Handle> = None;
        for n in 1..=1u32 << 20 {
            let handle = table.insert(Kind::Stream, n).unwrap();
            assert_eq!((handle.index(), handle.generation()), (0, n));
            if let Some(last) = last {
                assert_eq!(table.get(last), Err(HandleError::Late));
            }
            assert_eq!(table.remove(handle), Ok(n));
            last = Some(handle);
        }
    }

    #[test]
    fn a_slot_is_retired_before_its_generation_of_28_bits_wraps() {
        let mut table = HandleTable::new(0, 2);
        let first = table.insert(Kind::Stream, 0).unwrap();
        table.remove(first).unwrap();
        // As after 2^28 - 3 more sessions.
        table.slot_mut(0).tag = GENERATION_MAX - 2;
        for generation in [GENERATION_MAX - 1, GENERATION_MAX] {
            let handle = table.insert(Kind::Stream, 1).unwrap();
            assert_eq!((handle.index(), handle.generation()), (0, generation));
            table.remove(handle).unwrap();
            assert_eq!(table.get(handle), Err(HandleError::Late));
        }
        let next = table.insert(Kind::Stream, 2).unwrap();
        assert_eq!((table.retired(), next.index(), next.generation()), (1, 1, 1), "another slot");
        assert_eq!(table.get(first), Err(HandleError::Late));
        assert!(table.insert(Kind::Stream, 3).is_err(), "the retired slot is never used again");
    }
}

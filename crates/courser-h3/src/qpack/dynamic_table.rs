//! The dynamic table (RFC 9204 section 3.2): field lines in the order of their insertion, the oldest ones leave first.
//!
//! Names and values of all entries lie one behind the other in one buffer; what was evicted is a hole at its front, which
//! is closed when the buffer is full and half of it is hole. So an insertion copies its own bytes and, on the average, at
//! most as many others, and nothing is allocated once the buffer has its size. The buffer stays below twice the capacity
//! and the entry on top.
//!
//! Invariants: `size` is the sum of the sizes of `entries` and at most `capacity`; entry `dropped + i` is `entries[i]`.

use std::collections::VecDeque;

use super::text::length;

/// What an entry costs beyond its bytes (RFC 9204 section 3.2.1).
pub(super) const OVERHEAD: usize = 32;

/// The largest capacity that this implementation takes: positions of bytes fit into 32 bits.
pub(super) const CAPACITY_MAX: usize = 1 << 28;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where its bytes begin, counted over all bytes that ever were inserted.
    at: u64,
    name: u32,
    value: u32,
}

impl Entry {
    fn bytes(self) -> usize {
        index(self.name) + index(self.value)
    }
}

fn index(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// The size of an entry.
pub(super) fn entry_size(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + OVERHEAD
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct DynamicTable {
    bytes: Vec<u8>,
    /// What `bytes` begins with, counted as in [`Entry::at`].
    origin: u64,
    entries: VecDeque<Entry>,
    /// How many entries were evicted: the absolute index of the oldest one.
    dropped: u64,
    size: usize,
    capacity: usize,
}

impl DynamicTable {
    /// How many entries were ever inserted: the absolute index of the next one.
    pub(super) fn inserted(&self) -> u64 {
        self.dropped + length(self.entries.len())
    }

    /// The absolute index of the oldest entry, or of the next one when there is none.
    pub(super) const fn oldest(&self) -> u64 {
        self.dropped
    }

    /// The sum of the sizes of all entries.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// The upper limit of the size.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that are allocated.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    fn entry(&self, index: u64) -> Option<Entry> {
        self.entries.get(usize::try_from(index.checked_sub(self.dropped)?).ok()?).copied()
    }

    fn start(&self, entry: Entry) -> usize {
        usize::try_from(entry.at - self.origin).expect("the bytes of an entry lie in the buffer")
    }

    /// Name and value of the entry with that absolute index; `None` when it was evicted or is not there yet.
    pub(super) fn get(&self, index: u64) -> Option<(&[u8], &[u8])> {
        let entry = self.entry(index)?;
        let start = self.start(entry);
        Some(self.bytes[start..start + entry.bytes()].split_at(self::index(entry.name)))
    }

    /// The size of the entry with that absolute index.
    pub(super) fn size_of(&self, index: u64) -> Option<usize> {
        Some(self.entry(index)?.bytes() + OVERHEAD)
    }

    /// Changes the capacity; entries that have no room any more leave.
    pub(super) fn set_capacity(&mut self, capacity: usize) {
        debug_assert!(capacity <= CAPACITY_MAX);
        self.capacity = capacity;
        self.evict_down_to(capacity);
        if self.entries.is_empty() && capacity == 0 {
            self.bytes = Vec::new();
            self.entries = VecDeque::new();
            self.origin = 0;
        }
    }

    /// How many of the oldest entries leave when one of `size` comes; `None` when it never fits.
    pub(super) fn evicted_by(&self, size: usize) -> Option<usize> {
        let room = self.capacity.checked_sub(size)?;
        let mut left = self.size;
        let mut leave = 0;
        while left > room {
            left -= self.entries[leave].bytes() + OVERHEAD;
            leave += 1;
        }
        Some(leave)
    }

    fn evict_down_to(&mut self, size: usize) {
        while self.size > size
            && let Some(entry) = self.entries.pop_front()
        {
            self.size -= entry.bytes() + OVERHEAD;
            self.dropped += 1;
        }
    }

    /// Inserts an entry, for which the oldest ones leave as far as needed; `false`, and nothing happens, when it is larger
    /// than the capacity.
    #[must_use]
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) -> bool {
        let size = entry_size(name, value);
        let Some(room) = self.capacity.checked_sub(size) else { return false };
        self.evict_down_to(room);
        self.make_room(name.len() + value.len());
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.push(name.len(), value.len());
        true
    }

    /// Inserts a copy of an entry that is there, which may leave for it.
    #[must_use]
    pub(super) fn duplicate(&mut self, index: u64) -> bool {
        let Some(entry) = self.entry(index) else { return false };
        // The bytes are copied before the entry can leave.
        self.make_room(entry.bytes());
        let start = self.start(entry);
        self.bytes.extend_from_within(start..start + entry.bytes());
        let size = entry.bytes() + OVERHEAD;
        self.evict_down_to(self.capacity - size);
        self.push(self::index(entry.name), self::index(entry.value));
        true
    }

    /// Notes the entry whose bytes end the buffer.
    fn push(&mut self, name: usize, value: usize) {
        let narrow = |n: usize| u32::try_from(n).expect("an entry is smaller than the capacity");
        let at = self.origin + length(self.bytes.len() - name - value);
        self.entries.push_back(Entry { at, name: narrow(name), value: narrow(value) });
        self.size += name + value + OVERHEAD;
        debug_assert!(self.size <= self.capacity);
    }

    /// Room for `need` bytes behind the others, by closing the hole where that pays, else by growing.
    fn make_room(&mut self, need: usize) {
        if self.bytes.len() + need <= self.bytes.capacity() {
            return;
        }
        let hole = self.entries.front().map_or(self.bytes.len(), |entry| self.start(*entry));
        if hole * 2 >= self.bytes.len() {
            self.bytes.drain(..hole);
            self.origin += length(hole);
        }
        let wanted = self.bytes.len() + need;
        if wanted > self.bytes.capacity() {
            let doubled = (self.bytes.capacity() * 2).min(self.capacity * 2).max(wanted);
            self.bytes.reserve_exact(doubled - self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the RFC says, without any thought for cost.
    #[derive(Default)]
    struct Model {
        lines: Vec<(u64, Vec<u8>, Vec<u8>)>,
        inserted: u64,
        capacity: usize,
    }

    impl Model {
        fn size(&self) -> usize {
            self.lines.iter().map(|line| entry_size(&line.1, &line.2)).sum()
        }

        fn shrink(&mut self, size: usize) {
            while self.size() > size {
                self.lines.remove(0);
            }
        }

        fn insert(&mut self, name: &[u8], value: &[u8]) -> bool {
            let Some(room) = self.capacity.checked_sub(entry_size(name, value)) else { return false };
            self.shrink(room);
            self.lines.push((self.inserted, name.to_vec(), value.to_vec()));
            self.inserted += 1;
            true
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize, usize, u8),
        Duplicate(u64),
        Capacity(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (0..40_usize, 0..90_usize, any::<u8>()).prop_map(|(name, value, fill)| Step::Insert(name, value, fill)),
            3 => (0..12_u64).prop_map(Step::Duplicate),
            1 => prop_oneof![Just(0), 0..700_usize].prop_map(Step::Capacity),
        ];
        prop::collection::vec(step, 0..120)
    }

    proptest! {
        #[test]
        fn it_behaves_as_the_model_and_stays_small(steps in steps()) {
            let (mut table, mut model, mut largest) = (DynamicTable::default(), Model::default(), 300);
            table.set_capacity(300);
            model.capacity = 300;
            for step in steps {
                match step {
                    Step::Insert(name, value, fill) => {
                        let (name, value) = (vec![fill; name], vec![!fill; value]);
                        let leave = table.evicted_by(entry_size(&name, &value));
                        let before = table.oldest();
                        prop_assert_eq!(table.insert(&name, &value), model.insert(&name, &value));
                        prop_assert_eq!(leave.map_or(0, length), table.oldest() - before);
                    }
                    Step::Duplicate(back) => {
                        let index = model.inserted.wrapping_sub(back + 1);
                        let line = model.lines.iter().find(|line| line.0 == index).cloned();
                        let expected = line.is_some_and(|line| model.insert(&line.1, &line.2));
                        prop_assert_eq!(table.duplicate(index), expected);
                    }
                    Step::Capacity(capacity) => {
                        largest = largest.max(capacity);
                        table.set_capacity(capacity);
                        model.capacity = capacity;
                        model.shrink(capacity);
                    }
                }
                prop_assert_eq!((table.size(), table.inserted()), (model.size(), model.inserted));
                prop_assert!(table.size() <= table.capacity());
                prop_assert_eq!(table.oldest() + length(model.lines.len()), table.inserted());
                for (index, name, value) in &model.lines {
                    prop_assert_eq!(table.get(*index), Some((&name[..], &value[..])));
                    prop_assert_eq!(table.size_of(*index), Some(entry_size(name, value)));
                }
                prop_assert_eq!(table.get(table.inserted()), None);
                prop_assert_eq!(table.oldest().checked_sub(1).and_then(|index| table.get(index)), None);
                prop_assert!(table.memory() <= largest * 3 + 16 * 64, "{} bytes", table.memory());
            }
        }
    }

    #[test]
    fn a_full_table_takes_no_more_memory_however_much_passes_through() {
        let mut table = DynamicTable::default();
        table.set_capacity(4096);
        let mut memory = 0;
        for round in 0..20_000_usize {
            assert!(table.insert(b"name", &vec![b'v'; round % 100]));
            if round == 1_000 {
                memory = table.memory();
            }
        }
        assert_eq!(table.memory(), memory);
        assert!(memory <= 3 * 4096, "{memory}");
    }
}

//! The encoder's side of the dynamic table: finding lines and names in it, and knowing what may leave.
//!
//! Entries are chained by the hash of their line and by the hash of their name, the newest first. A chain holds what is
//! left of absolute indices after 32 bits; it ends where an entry was evicted, so that nothing is taken out when entries
//! leave. Hashes choose candidates only: what is found was compared byte by byte.

use std::collections::VecDeque;
use std::hash::Hasher;

use rustc_hash::FxHasher;

use super::dynamic_table::{DynamicTable, OVERHEAD, entry_size};
use super::text::length;

/// How many entries of a chain are looked at. Whoever makes hashes collide has lines that are not found: they are larger
/// on the wire, and nothing else happens.
const STEPS_MAX: usize = 32;

/// The hashes of a line, and the static entry that has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hashes {
    entry: Option<u8>,
    /// Of the name.
    pub(super) name: u32,
    /// Of both.
    pub(super) line: u32,
}

impl Hashes {
    /// Of a line whose name is that of the static entry `entry`, the first one with it, or of none.
    #[inline]
    pub(super) fn of(entry: Option<u8>, name: &[u8], value: &[u8]) -> Self {
        let mut hasher = FxHasher::default();
        match entry {
            Some(entry) => hasher.write_u8(entry),
            None => hasher.write(name),
        }
        let name = fold(hasher.finish());
        hasher.write(value);
        Self { entry, name, line: fold(hasher.finish()) }
    }
}

fn fold(hash: u64) -> u32 {
    low(hash ^ hash >> 32)
}

/// The low half.
fn low(n: u64) -> u32 {
    u32::try_from(n & u64::from(u32::MAX)).unwrap_or_default()
}

/// What belongs to an entry beside its bytes.
#[derive(Clone, Copy, Debug)]
struct Note {
    hashes: Hashes,
    older_line: u32,
    older_name: u32,
    /// Outstanding sections whose oldest reference this entry is.
    pins: u32,
}

/// The newest entries that have a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Of those that may be referred to.
    pub(super) usable: Option<u64>,
    /// Of all.
    pub(super) newest: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct IndexedTable {
    table: DynamicTable,
    notes: VecDeque<Note>,
    lines: Vec<u32>,
    names: Vec<u32>,
    mask: usize,
    /// Entries below this are draining.
    lasting: u64,
}

impl IndexedTable {
    /// Gives the table its capacity, once.
    pub(super) fn set_capacity(&mut self, capacity: usize) {
        debug_assert_eq!(self.table.inserted(), 0, "the chains are made for one capacity");
        self.table.set_capacity(capacity);
        // About one bucket for each entry of a usual size.
        let buckets = (capacity / 64).next_power_of_two().clamp(16, 4096);
        self.mask = buckets - 1;
        self.lines = vec![0; buckets];
        self.names = vec![0; buckets];
    }

    /// The table itself.
    pub(super) const fn table(&self) -> &DynamicTable {
        &self.table
    }

    fn bucket(&self, hash: u32) -> usize {
        usize::try_from(hash).unwrap_or_default() & self.mask
    }

    fn note(&self, index: u64) -> Option<&Note> {
        self.notes.get(usize::try_from(index.checked_sub(self.table.oldest())?).ok()?)
    }

    /// The absolute index that a chain means: one below `before`, or `None` where the chain ends.
    fn follow(&self, link: u32, before: u64) -> Option<u64> {
        let newest = self.table.inserted();
        let age = u64::from(low(newest).wrapping_sub(link));
        let index = newest.checked_sub(age)?;
        (index < before && index >= self.table.oldest()).then_some(index)
    }

    /// Finds a line; entries from `reach` on cannot be referred to.
    pub(super) fn find_line(&self, hashes: Hashes, name: &[u8], value: &[u8], reach: u64) -> Found {
        let mut found = Found::default();
        let (mut link, mut before) = (self.lines[self.bucket(hashes.line)], self.table.inserted());
        for _ in 0..STEPS_MAX {
            let Some(index) = self.follow(link, before) else { break };
            let Some(note) = self.note(index) else { break };
            // One static entry has one name: the bytes need no comparison then.
            let same = |entry: (&[u8], &[u8])| (hashes.entry.is_some() || entry.0 == name) && entry.1 == value;
            if note.hashes == hashes && self.table.get(index).is_some_and(same) {
                found.newest = found.newest.or(Some(index));
                if index < reach {
                    found.usable = Some(index);
                    break;
                }
            }
            (link, before) = (note.older_line, index);
        }
        found
    }

    /// The newest entry below `reach` with that name.
    pub(super) fn find_name(&self, hashes: Hashes, name: &[u8], reach: u64) -> Option<u64> {
        let (mut link, mut before) = (self.names[self.bucket(hashes.name)], self.table.inserted());
        for _ in 0..STEPS_MAX {
            let index = self.follow(link, before)?;
            let note = self.note(index)?;
            if index < reach
                && note.hashes.name == hashes.name
                && self.table.get(index).is_some_and(|entry| entry.0 == name)
            {
                return Some(index);
            }
            (link, before) = (note.older_name, index);
        }
        None
    }

    /// Whether there is room for an entry of `size`, or it can be made by evicting entries below `evictable` that no
    /// outstanding section refers to.
    //= rfc9204#2.1.1-1, rfc9204#3.2.2-1
    pub(super) fn has_room(&self, size: usize, evictable: u64) -> bool {
        let Some(leave) = self.table.evicted_by(size) else { return false };
        self.table.oldest() + length(leave) <= evictable && self.notes.iter().take(leave).all(|note| note.pins == 0)
    }

    /// Whether the entry is among the oldest quarter of a table that is nearly full: what refers to it soon keeps new
    /// entries out (RFC 9204 section 2.1.1.1).
    pub(super) const fn is_draining(&self, index: u64) -> bool {
        index < self.lasting
    }

    /// The first entry that has, with what is free, a quarter of the capacity before it.
    fn find_lasting(&self) -> u64 {
        let mut before = self.table.capacity() - self.table.size();
        let mut index = self.table.oldest();
        while before < self.table.capacity() / 4 {
            before += self.table.size_of(index).unwrap_or(OVERHEAD);
            index += 1;
        }
        index
    }

    /// Inserts a line; there is room.
    pub(super) fn insert(&mut self, hashes: Hashes, name: &[u8], value: &[u8]) -> u64 {
        debug_assert!(self.table.evicted_by(entry_size(name, value)).is_some());
        let index = self.table.inserted();
        let inserted = self.table.insert(name, value);
        debug_assert!(inserted, "the caller asked for room");
        self.link(index, hashes);
        index
    }

    /// Inserts a copy of an entry; there is room.
    pub(super) fn duplicate(&mut self, of: u64) -> Option<u64> {
        let hashes = self.note(of)?.hashes;
        let index = self.table.inserted();
        if !self.table.duplicate(of) {
            return None;
        }
        self.link(index, hashes);
        Some(index)
    }

    fn link(&mut self, index: u64, hashes: Hashes) {
        let evicted = self.notes.len() + 1 - usize::try_from(self.table.inserted() - self.table.oldest()).unwrap_or(1);
        self.notes.drain(..evicted);
        let (line, name) = (self.bucket(hashes.line), self.bucket(hashes.name));
        self.notes.push_back(Note { hashes, older_line: self.lines[line], older_name: self.names[name], pins: 0 });
        self.lines[line] = low(index);
        self.names[name] = low(index);
        self.lasting = self.find_lasting();
    }

    fn note_mut(&mut self, index: u64) -> Option<&mut Note> {
        self.notes.get_mut(usize::try_from(index.checked_sub(self.table.oldest())?).ok()?)
    }

    /// A section is outstanding whose oldest reference is that entry.
    pub(super) fn pin(&mut self, index: u64) {
        let note = self.note_mut(index);
        debug_assert!(note.is_some(), "what is referred to is there");
        if let Some(note) = note {
            note.pins += 1;
        }
    }

    /// That section is outstanding no more.
    pub(super) fn unpin(&mut self, index: u64) {
        let note = self.note_mut(index);
        debug_assert!(note.as_ref().is_some_and(|note| note.pins > 0), "what is pinned stays");
        if let Some(note) = note {
            note.pins -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(name: &str, value: &str) -> Hashes {
        Hashes::of(None, name.as_bytes(), value.as_bytes())
    }

    fn insert(table: &mut IndexedTable, name: &str, value: &str) -> u64 {
        table.insert(hashes(name, value), name.as_bytes(), value.as_bytes())
    }

    fn find(table: &IndexedTable, name: &str, value: &str, reach: u64) -> Found {
        table.find_line(hashes(name, value), name.as_bytes(), value.as_bytes(), reach)
    }

    #[test]
    fn what_is_in_the_table_is_found_and_nothing_else() {
        let mut table = IndexedTable::default();
        table.set_capacity(2048);
        // Far more lines than buckets and than fit.
        for n in 0..3_000_u64 {
            assert_eq!(insert(&mut table, &format!("name{}", n % 7), &n.to_string()), n);
            let oldest = table.table().oldest();
            for line in n.saturating_sub(80)..=n {
                let expected = (line >= oldest).then_some(line);
                let found = find(&table, &format!("name{}", line % 7), &line.to_string(), u64::MAX);
                assert_eq!(found, Found { usable: expected, newest: expected }, "line {line} after {n}");
            }
            let name = format!("name{}", n % 7);
            assert_eq!(table.find_name(hashes(&name, ""), name.as_bytes(), u64::MAX), Some(n));
            assert_eq!(
                table.find_name(hashes(&name, ""), name.as_bytes(), n),
                n.checked_sub(7).filter(|n| *n >= oldest)
            );
            assert_eq!(find(&table, "name0", "none", u64::MAX), Found::default());
        }
    }

    #[test]
    fn lines_whose_hashes_collide_are_searched_for_a_limited_time() {
        let mut table = IndexedTable::default();
        table.set_capacity(1 << 16);
        // One hash for all of them, as if somebody had chosen the values for that.
        let same = hashes("a", "b");
        for n in 0..STEPS_MAX + 10 {
            table.insert(same, b"a", n.to_string().as_bytes());
        }
        let find = |n: usize| table.find_line(same, b"a", n.to_string().as_bytes(), u64::MAX).newest;
        assert_eq!(find(10), Some(10));
        assert_eq!(find(9), None);
    }

    #[test]
    fn an_older_copy_is_usable_while_the_newer_one_is_not() {
        let mut table = IndexedTable::default();
        table.set_capacity(1024);
        insert(&mut table, "a", "b");
        insert(&mut table, "c", "d");
        assert_eq!(table.duplicate(0), Some(2));
        assert_eq!(find(&table, "a", "b", 3), Found { usable: Some(2), newest: Some(2) });
        assert_eq!(find(&table, "a", "b", 2), Found { usable: Some(0), newest: Some(2) });
        assert_eq!(find(&table, "a", "b", 0), Found { usable: None, newest: Some(2) });
    }

    #[test]
    fn pins_and_missing_acknowledgments_keep_room_from_being_made() {
        let mut table = IndexedTable::default();
        table.set_capacity(3 * 34);
        for name in ["a", "b", "c"] {
            insert(&mut table, name, "1");
        }
        assert!(!table.has_room(34, 0), "nothing was acknowledged");
        assert!(table.has_room(34, 1) && !table.has_room(35, 1) && table.has_room(35, 2));
        table.pin(1);
        table.pin(1);
        assert!(table.has_room(34, 3) && !table.has_room(35, 3));
        table.unpin(1);
        assert!(!table.has_room(35, 3));
        table.unpin(1);
        assert!(table.has_room(35, 3) && !table.has_room(3 * 34 + 1, 3));
    }

    #[test]
    fn the_oldest_quarter_of_a_full_table_drains() {
        let mut table = IndexedTable::default();
        table.set_capacity(8 * 34);
        for name in ["a", "b", "c", "d", "e", "f"] {
            insert(&mut table, name, "1");
        }
        assert!(!table.is_draining(0), "a quarter is free");
        insert(&mut table, "g", "1");
        assert!(table.is_draining(0) && !table.is_draining(1));
        insert(&mut table, "h", "1");
        assert!(table.is_draining(1) && !table.is_draining(2));
    }
}

//! Where the streams live: a slab, and an index from stream ID to slot.
//!
//! The index hashes with one multiplication. Peers choose stream IDs, but flooding buckets does not pay: an ID below the
//! advertised limit is one of a dense range, at most `max_streams` of them are open at once, and a closed one never comes
//! back; the longest probe is bounded by the number of open streams, which is bounded by our own limit.

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::HashMap;

use super::entry::Stream;
use crate::buf::lazy::{Lazy, Part};
use crate::ids::StreamId;

/// Marks a free slot.
const VACANT: StreamId = StreamId(u64::MAX);
/// A table that got empty keeps no more slots than this.
const KEPT_SLOTS: usize = 64;

/// Hashes one integer by a multiplication whose high bits come first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only integers are hashed here; this keeps the trait honest.
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, v: u64) {
        self.0 = (self.0 ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

/// Where streams are, and where there is room.
#[derive(Debug)]
struct Directory {
    free: Vec<u32>,
    index: HashMap<u64, u32, BuildHasherDefault<IdHasher>>,
}

impl Directory {
    const EMPTY: Self = Self { free: Vec::new(), index: HashMap::with_hasher(BuildHasherDefault::new()) };
}

impl Part for Directory {
    const UNUSED: &'static Self = &Self::EMPTY;

    fn begin() -> Self {
        Self::EMPTY
    }

    fn is_unused(&self) -> bool {
        self.index.is_empty() && self.free.is_empty()
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Stream>,
    directory: Lazy<Directory>,
    /// The last stream that was found: frames of one stream come in rows.
    last: Option<(StreamId, u32)>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.directory.index.len()
    }

    /// Reads a word of each line of the streams that are looked at first, and of the way to them.
    pub(super) fn touch(&self) -> u64 {
        let first = |stream: &Stream| stream.id.0 ^ stream.send.credit.used() ^ stream.recv.credit.limit();
        self.slots.first().map_or(0, first)
            ^ self.directory.index.len() as u64
            ^ self.directory.free.last().map_or(0, |f| u64::from(*f))
    }

    pub(super) fn find(&mut self, id: StreamId) -> Option<u32> {
        match self.last {
            Some((last, slot)) if last == id => Some(slot),
            _ => {
                let slot = *self.directory.index.get(&id.0)?;
                self.last = Some((id, slot));
                Some(slot)
            }
        }
    }

    /// Like [`Self::find`], without remembering.
    pub(super) fn lookup(&self, id: StreamId) -> Option<&Stream> {
        let slot = match self.last {
            Some((last, slot)) if last == id => slot,
            _ => *self.directory.index.get(&id.0)?,
        };
        self.slots.get(slot as usize)
    }

    pub(super) fn insert(&mut self, stream: Stream) -> u32 {
        let id = stream.id;
        let slot = if let Some(slot) = self.directory.free.pop() {
            self.slots[slot as usize] = stream;
            slot
        } else {
            if self.slots.is_empty() {
                // Many connections have one stream at a time.
                self.slots.reserve_exact(1);
            }
            self.slots.push(stream);
            // Limits on streams are far below 2^32 open ones: each takes a quarter of a kilobyte.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        };
        let before = self.directory.index.insert(id.0, slot);
        debug_assert!(before.is_none(), "a stream ID is never used twice");
        self.last = Some((id, slot));
        slot
    }

    /// Frees a slot; whoever calls took the stream's boxes out before.
    pub(super) fn remove(&mut self, slot: u32) {
        let stream = &mut self.slots[slot as usize];
        self.directory.index.remove(&stream.id.0);
        stream.id = VACANT;
        self.directory.free.push(slot);
        self.last = None;
        if self.directory.index.is_empty() && self.slots.len() > KEPT_SLOTS {
            *self = Self::default();
        }
    }

    /// Gives the room of free slots back, as far as slots keep their numbers.
    pub(super) fn shrink(&mut self) {
        if self.directory.index.is_empty() {
            *self = Self::default();
            return;
        }
        let used = self.slots.iter().rposition(|stream| stream.id != VACANT).map_or(0, |last| last + 1);
        self.slots.truncate(used);
        self.directory.free.retain(|slot| (*slot as usize) < used);
        self.slots.shrink_to_fit();
        self.directory.free.shrink_to_fit();
        self.directory.index.shrink_to_fit();
    }

    pub(super) fn is_vacant(&self) -> bool {
        self.slots.is_empty()
    }

    /// All slots in use.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> + use<> {
        let used: Vec<u32> =
            (0u32..).zip(&self.slots).filter(|(_, stream)| stream.id != VACANT).map(|(slot, _)| slot).collect();
        used.into_iter()
    }
}

impl core::ops::Index<u32> for Table {
    type Output = Stream;
    fn index(&self, slot: u32) -> &Stream {
        &self.slots[slot as usize]
    }
}

impl core::ops::IndexMut<u32> for Table {
    fn index_mut(&mut self, slot: u32) -> &mut Stream {
        &mut self.slots[slot as usize]
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    thread_local! {
        static COMPARISONS: Cell<u64> = const { Cell::new(0) };
    }

    /// A key that counts how often it is compared.
    struct Compared(u64);

    impl core::hash::Hash for Compared {
        fn hash<H: Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    impl PartialEq for Compared {
        fn eq(&self, other: &Self) -> bool {
            COMPARISONS.set(COMPARISONS.get() + 1);
            self.0 == other.0
        }
    }

    impl Eq for Compared {}

    #[test]
    fn a_look_up_costs_the_same_among_ten_streams_and_among_ten_thousand() {
        // LS-STRM-08: what a look-up costs is how many entries it compares; each finds its own with the first, nearly.
        for open in [10u64, 100, 1000, 10_000, 100_000] {
            // Four kinds of streams, each dense, and old ones that are gone.
            let ids = (0..open).map(|i| (i / 4 + open) * 4 + i % 4);
            let index: HashMap<Compared, u64, BuildHasherDefault<IdHasher>> =
                ids.clone().map(|id| (Compared(id), id)).collect();
            COMPARISONS.set(0);
            assert!(ids.clone().all(|id| index.get(&Compared(id)) == Some(&id)));
            let found = COMPARISONS.replace(0);
            assert!(ids.clone().all(|id| !index.contains_key(&Compared(id + 4 * open))));
            let missed = COMPARISONS.get();
            assert!(found * 10 <= open * 11 && missed * 4 <= open, "{open} streams: {found} and {missed} comparisons");
        }
    }

    #[test]
    fn the_hash_spreads_dense_identifiers() {
        let hash = |v: u64| {
            let mut h = IdHasher::default();
            h.write_u64(v);
            h.finish()
        };
        // A thousand streams of one kind, over the buckets and over the tags of a table of 2,048.
        for select in [|h: u64| h & 2047, |h: u64| h >> 57] {
            let mut seen = std::collections::HashMap::new();
            (0..1000u64).for_each(|i| *seen.entry(select(hash(i * 4))).or_insert(0usize) += 1);
            let crowd = seen.values().max().copied().unwrap();
            assert!(crowd <= 1000 / seen.len().min(1000) * 3 + 3, "{crowd} in one of {}", seen.len());
        }
    }
}

//! Sections that the encoder sent and the decoder has not acknowledged: what they hold in the dynamic table.
//!
//! Entries leave the table in order, so of all entries that a section refers to only the oldest one matters: while it
//! stays, the others do. A section is a place in one array, linked to the next one of its stream; places are used again.

use rustc_hash::FxHashMap;

use courser_core::ids::StreamId;

/// How many sections may be outstanding. Further ones are encoded without the dynamic table: a decoder that never
/// acknowledges takes no more memory than that.
pub(super) const SECTIONS_MAX: usize = 1024;

const NONE: u32 = u32::MAX;

/// What a section refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct References {
    /// The oldest entry.
    pub(super) oldest: u64,
    /// One more than the newest entry: the Required Insert Count.
    pub(super) required: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    references: References,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    first: u32,
    last: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Sections {
    places: Vec<Place>,
    free: u32,
    count: usize,
    streams: FxHashMap<u64, Queue>,
}

impl Default for Sections {
    fn default() -> Self {
        Self { places: Vec::new(), free: NONE, count: 0, streams: FxHashMap::default() }
    }
}

fn index(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

impl Sections {
    /// How many sections are outstanding.
    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Whether no further section is taken.
    pub(super) const fn is_full(&self) -> bool {
        self.count >= SECTIONS_MAX
    }

    /// A section was sent.
    pub(super) fn push(&mut self, stream: StreamId, references: References) {
        debug_assert!(!self.is_full());
        let place = self.place(references);
        self.count += 1;
        match self.streams.get_mut(&stream.0) {
            Some(queue) => {
                self.places[index(queue.last)].next = place;
                queue.last = place;
            }
            None => {
                self.streams.insert(stream.0, Queue { first: place, last: place });
            }
        }
    }

    fn place(&mut self, references: References) -> u32 {
        let filled = Place { references, next: NONE };
        if let Some(free) = self.places.get_mut(index(self.free)) {
            let place = self.free;
            self.free = free.next;
            *free = filled;
            return place;
        }
        self.places.push(filled);
        u32::try_from(self.places.len() - 1).expect("there are fewer places than sections are permitted")
    }

    /// Takes the oldest section of the stream; `None` when none is outstanding.
    pub(super) fn pop(&mut self, stream: StreamId) -> Option<References> {
        let queue = self.streams.get_mut(&stream.0)?;
        let at = queue.first;
        let place = &mut self.places[index(at)];
        let references = place.references;
        if place.next == NONE {
            self.streams.remove(&stream.0);
        } else {
            queue.first = place.next;
        }
        self.places[index(at)].next = self.free;
        self.free = at;
        self.count -= 1;
        Some(references)
    }

    /// Bytes that are allocated.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.places.capacity() * size_of::<Place>() + self.streams.capacity() * (size_of::<(u64, Queue)>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, VecDeque};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sections_come_back_by_stream_in_order(steps in prop::collection::vec((0..5_u64, any::<bool>()), 0..200)) {
            let (mut sections, mut model) = (Sections::default(), HashMap::<u64, VecDeque<References>>::new());
            let mut outstanding = 0;
            for (n, (stream, push)) in steps.into_iter().enumerate() {
                if push {
                    let references = References { oldest: n as u64, required: n as u64 + 1 };
                    sections.push(StreamId(stream), references);
                    model.entry(stream).or_default().push_back(references);
                    outstanding += 1;
                } else {
                    let expected = model.get_mut(&stream).and_then(VecDeque::pop_front);
                    outstanding -= usize::from(expected.is_some());
                    prop_assert_eq!(sections.pop(StreamId(stream)), expected);
                }
                prop_assert_eq!(sections.len(), outstanding);
            }
        }
    }

    #[test]
    fn memory_is_used_again() {
        let mut sections = Sections::default();
        let mut memory = 0;
        for round in 0..10_000_u64 {
            sections.push(StreamId(round * 4), References { oldest: 0, required: 1 });
            if round >= 100 {
                assert!(sections.pop(StreamId((round - 100) * 4)).is_some());
            }
            if round == 2_000 {
                memory = sections.memory();
            }
        }
        assert_eq!(sections.memory(), memory);
    }
}

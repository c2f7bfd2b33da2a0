//! Rings of messages in memory that the other side may write as it likes.
//!
//! As in [`crate::ring`], but the items are messages of four words, and what the other side says about its index is checked:
//! it may only go forward, and no further than there are slots or messages. A lie is told to the caller, once and for all.

use super::raw::Memory;
use crate::{
    msg::Raw,
    ring::cursor::Slots,
    sync::{AtomicU64, Ordering},
};

/// Words of a message.
const WORDS: usize = Raw::SIZE / 8;

/// The other side's index cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lie;

/// Where a ring lies, in words.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) tail: usize,
    pub(super) head: usize,
    pub(super) slots: Slots,
    pub(super) at: usize,
}

impl Place {
    fn slot<'m>(&self, memory: &'m Memory, index: u32) -> &'m [AtomicU64] {
        &memory.words()[self.at + self.slots.position(index) * WORDS..][..WORDS]
    }
}

fn index(memory: &Memory, at: usize) -> Result<u32, Lie> {
    u32::try_from(memory.words()[at].load(Ordering::Acquire)).map_err(|_| Lie)
}

fn publish(memory: &Memory, at: usize, index: u32) {
    memory.words()[at].store(u64::from(index), Ordering::Release);
}

/// The side that puts messages in.
pub(super) struct Writer {
    place: Place,
    tail: u32,
    /// The reader's index when it was last looked at.
    pub(super) seen_head: u32,
}

impl Writer {
    pub(super) const fn new(place: Place) -> Self {
        Self { place, tail: 0, seen_head: 0 }
    }

    /// Messages that are on their way.
    fn filled(&self) -> u32 {
        self.tail.wrapping_sub(self.seen_head)
    }

    /// Slots that are free for sure, after a look at the other side if there were none.
    pub(super) fn room(&mut self, memory: &Memory) -> Result<u32, Lie> {
        if self.filled() == self.place.slots.count() {
            self.look(memory)?;
        }
        Ok(self.place.slots.count() - self.filled())
    }

    /// Looks how far the reader is.
    pub(super) fn look(&mut self, memory: &Memory) -> Result<(), Lie> {
        let head = index(memory, self.place.head)?;
        if self.tail.wrapping_sub(head) > self.filled() {
            return Err(Lie);
        }
        self.seen_head = head;
        Ok(())
    }

    /// The number of the next message's slot.
    pub(super) fn position(&self) -> usize {
        self.place.slots.position(self.tail)
    }

    /// Puts a message in, to be published. There must be room.
    pub(super) fn stage(&mut self, memory: &Memory, raw: Raw) {
        debug_assert!(self.filled() < self.place.slots.count(), "the caller asked for room");
        for (word, value) in self.place.slot(memory, self.tail).iter().zip(raw.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the reader what was put in.
    pub(super) fn publish(&self, memory: &Memory) {
        publish(memory, self.place.tail, self.tail);
    }
}

/// The side that takes messages out.
pub(super) struct Reader {
    place: Place,
    head: u32,
    /// The writer's index when it was last looked at.
    seen_tail: u32,
}

impl Reader {
    pub(super) const fn new(place: Place) -> Self {
        Self { place, head: 0, seen_tail: 0 }
    }

    pub(super) const fn capacity(&self) -> u32 {
        self.place.slots.count()
    }

    /// Messages that are there, after a look at the other side if there were none.
    pub(super) fn len(&mut self, memory: &Memory) -> Result<u32, Lie> {
        if self.seen_tail == self.head {
            let tail = index(memory, self.place.tail)?;
            self.place.slots.filled(self.head, tail).ok_or(Lie)?;
            self.seen_tail = tail;
        }
        Ok(self.seen_tail.wrapping_sub(self.head))
    }

    /// Copies the oldest message; its slot stays the reader's until it is released.
    pub(super) fn take(&mut self, memory: &Memory) -> Result<Option<Raw>, Lie> {
        if self.len(memory)? == 0 {
            return Ok(None);
        }
        let slot = self.place.slot(memory, self.head);
        let raw = Raw::from_words(core::array::from_fn(|n| slot[n].load(Ordering::Relaxed)));
        self.head = self.head.wrapping_add(1);
        Ok(Some(raw))
    }

    /// Gives the slots of what was taken back, and what their messages carried.
    pub(super) fn release(&self, memory: &Memory) {
        publish(memory, self.place.head, self.head);
    }
}

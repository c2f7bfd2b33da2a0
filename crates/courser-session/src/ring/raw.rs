//! The ring's memory and the only unsafe code of the crate.
//!
//! Three padded words (the producer's index, the consumer's index, who is gone) and a power of two of slots. The words
//! have a fixed layout that could start a shared segment; only the slots would come from elsewhere.
//!
//! **Why this is sound.** [`pair`] makes exactly one [`RawProducer`] and one [`RawConsumer`] for a ring; neither can be
//! cloned and all their changing methods take `&mut self`, so that at any time at most one thread acts as each. Call
//! the slots whose index lies in `head..tail` full (with the two *published* indices) and all others empty.
//!
//! 1. Only the producer changes the published tail, and only after it wrote the slots that become full by it.
//! 2. Only the consumer changes the published head, and only after it read the slots that become empty by it.
//! 3. The producer writes only slots in `tail..seen_head + capacity`; a head seen is at most the true one, so that these
//!    slots are empty. The consumer reads only slots in `head..seen_tail`, which are full by the same argument.
//! 4. Publishing is a release store and looking is an acquire load, so that an access of one side to a slot happens
//!    before the other side's next access to it.
//!
//! Hence no slot is accessed by both at once, no slot is read before it was written, and each item is read exactly once
//! or, when both sides are gone, dropped exactly once by the last one to go.

#![allow(unsafe_code)]

use core::mem::MaybeUninit;

use super::cursor::Slots;
use crate::sync::{Arc, AtomicU32, Ordering, UnsafeCell};

/// A value on cache lines of its own. Processors fetch lines in pairs, hence twice the usual 64 bytes.
#[repr(C, align(128))]
struct Padded<T>(T);

/// The words that both sides look at, each written by one side (`gone` at most once by each).
#[repr(C)]
struct Words {
    /// The index that the next item gets; written by the producer.
    tail: Padded<AtomicU32>,
    /// The index of the oldest item; written by the consumer.
    head: Padded<AtomicU32>,
    /// [`PRODUCER`] and [`CONSUMER`] bits. Apart from the indices: both sides look here often and find it in their
    /// cache, since it changes only at the end.
    gone: Padded<AtomicU32>,
}

#[cfg(not(all(loom, test)))]
const _: () = assert!(size_of::<Words>() == 3 * 128);

const PRODUCER: u32 = 1;
const CONSUMER: u32 = 2;

struct Shared<T> {
    words: Words,
    slots: Slots,
    cells: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: the cells are the only part that is not `Sync` by itself. By the module's argument no two threads access a
// cell at once, and an item moves from one thread to the other, which `T: Send` allows.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the last owner drops what is left, on whichever thread it is.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Both sides are gone, and with their drops their last publications happened before this.
        let mut head = self.words.head.0.load(Ordering::Acquire);
        let tail = self.words.tail.0.load(Ordering::Acquire);
        debug_assert!(self.slots.filled(head, tail).is_some(), "the sides kept the indices apart by the capacity");
        while head != tail {
            let cell = &self.cells[self.slots.position(head)];
            // SAFETY: the slot lies in `head..tail`, hence was written and not read (points 1 and 2), and `&mut self`
            // keeps everybody else away.
            cell.with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// A ring's two sides.
pub(super) fn pair<T>(slots: Slots) -> (RawProducer<T>, RawConsumer<T>) {
    let word = || Padded(AtomicU32::new(0));
    let words = Words { tail: word(), head: word(), gone: word() };
    let cells = (0..slots.count()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared { words, slots, cells });
    let producer = RawProducer { shared: Arc::clone(&shared), tail: 0, published: 0, seen_head: 0 };
    (producer, RawConsumer { shared, head: 0, published: 0, seen_tail: 0 })
}

/// The writing side. Items are staged, then published together.
pub(super) struct RawProducer<T> {
    shared: Arc<Shared<T>>,
    /// The index of the next item to stage; `published..tail` are staged.
    tail: u32,
    published: u32,
    /// The consumer's index when it was last looked at: at most the true one.
    seen_head: u32,
}

impl<T> RawProducer<T> {
    pub(super) fn capacity(&self) -> u32 {
        self.shared.slots.count()
    }

    /// Slots free for sure, without looking at the other side.
    fn known_room(&self) -> u32 {
        let slots = self.shared.slots;
        slots.filled(self.seen_head, self.tail).map_or(0, |filled| slots.count() - filled)
    }

    /// Looks where the consumer is and says how many slots are free.
    pub(super) fn look(&mut self) -> u32 {
        let head = self.shared.words.head.0.load(Ordering::Acquire);
        // A claim that does not fit changes nothing: the ring then stays as full as it was.
        if self.shared.slots.filled(head, self.tail).is_some() {
            self.seen_head = head;
        }
        self.known_room()
    }

    /// Puts an item into the next free slot, to be published later. When there is none the item comes back.
    pub(super) fn stage(&mut self, item: T) -> Result<(), T> {
        if self.known_room() == 0 && self.look() == 0 {
            return Err(item);
        }
        let cell = &self.shared.cells[self.shared.slots.position(self.tail)];
        // SAFETY: there is room, so that `tail < seen_head + capacity`: the slot is empty and ours (point 3). Writing
        // over it forgets nothing, since an empty slot holds no item.
        cell.with_mut(|slot| unsafe { (*slot).write(item) });
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Whether a further item could be staged.
    pub(super) fn has_room(&mut self) -> bool {
        self.known_room() > 0 || self.look() > 0
    }

    /// Shows the staged items to the consumer; whether there were any.
    pub(super) fn publish(&mut self) -> bool {
        let any = self.published != self.tail;
        if any {
            self.shared.words.tail.0.store(self.tail, Ordering::Release);
            self.published = self.tail;
        }
        any
    }

    /// Tells the consumer that nothing will follow.
    pub(super) fn close(&mut self) {
        self.publish();
        self.shared.words.gone.0.fetch_or(PRODUCER, Ordering::Release);
    }

    /// Whether this side said that nothing will follow.
    pub(super) fn has_closed(&self) -> bool {
        self.shared.words.gone.0.load(Ordering::Acquire) & PRODUCER != 0
    }

    /// Whether the consumer is gone.
    pub(super) fn is_peer_gone(&self) -> bool {
        self.shared.words.gone.0.load(Ordering::Acquire) & CONSUMER != 0
    }
}

impl<T> Drop for RawProducer<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// The reading side. Items are taken, then their slots released together.
pub(super) struct RawConsumer<T> {
    shared: Arc<Shared<T>>,
    /// The index of the next item to take; the slots of `published..head` are not released yet.
    head: u32,
    published: u32,
    /// The producer's index when it was last looked at: at most the true one.
    seen_tail: u32,
}

impl<T> RawConsumer<T> {
    pub(super) fn capacity(&self) -> u32 {
        self.shared.slots.count()
    }

    /// Items there for sure, without looking at the other side.
    pub(super) fn known_items(&self) -> u32 {
        self.shared.slots.filled(self.head, self.seen_tail).unwrap_or(0)
    }

    /// Looks where the producer is and says how many items are there.
    pub(super) fn look(&mut self) -> u32 {
        let tail = self.shared.words.tail.0.load(Ordering::Acquire);
        // A claim that does not fit changes nothing: the ring then stays as empty as it was.
        if self.shared.slots.filled(self.head, tail).is_some() {
            self.seen_tail = tail;
        }
        self.known_items()
    }

    /// Moves the oldest item out.
    pub(super) fn take(&mut self) -> Option<T> {
        if self.known_items() == 0 && self.look() == 0 {
            return None;
        }
        let cell = &self.shared.cells[self.shared.slots.position(self.head)];
        // SAFETY: there is an item, so that `head < seen_tail`: the slot is full and ours (point 3). The head moves on
        // before anything else can happen, so that nobody reads the slot a second time.
        let item = cell.with(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        Some(item)
    }

    /// Gives the slots of the items taken back to the producer.
    pub(super) fn release(&mut self) {
        if self.published != self.head {
            self.shared.words.head.0.store(self.head, Ordering::Release);
            self.published = self.head;
        }
    }

    /// Whether the producer said that nothing will follow what is in the ring now.
    pub(super) fn is_peer_gone(&self) -> bool {
        self.shared.words.gone.0.load(Ordering::Acquire) & PRODUCER != 0
    }
}

impl<T> Drop for RawConsumer<T> {
    fn drop(&mut self) {
        self.release();
        self.shared.words.gone.0.fetch_or(CONSUMER, Ordering::Release);
    }
}

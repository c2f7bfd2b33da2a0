//! Bounded rings with one producer and one consumer.
//!
//! A ring is an array of a power of two of slots and two free-running indices, each on its own cache line and written by
//! one side only. Each side remembers the other's index and looks again only when it runs out of room or items, so that
//! in a busy ring a line moves between the processors once per lap of the slower side and not once per item. A batch is
//! published with one store. There is no lock, no compare-and-swap loop, and no waiting: full and empty are answers.
//! Whoever wants to sleep uses a [`crate::doorbell`].
//!
//! Items that nobody took are dropped with the last side. Each side sees when the other is gone.

pub(crate) mod cursor;
mod raw;

#[cfg(test)]
mod tests;

use core::fmt;

use cursor::Slots;

use crate::num::{clamp, widen};

/// A ring of at least `capacity` slots: rounded up to a power of two, between 1 and 2^30.
#[must_use]
pub fn channel<T: Send>(capacity: u32) -> (Producer<T>, Consumer<T>) {
    let count = capacity.clamp(1, 1 << 30).next_power_of_two();
    let (producer, consumer) =
        raw::pair(Slots::new(count).expect("the count was made a power of two within the bounds"));
    (Producer { raw: producer }, Consumer { raw: consumer })
}

/// Why an item was not taken; it comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PushError<T> {
    /// All slots are full. The normal answer to somebody who is faster than the other side.
    Full(T),
    /// The consumer is gone, or this side closed the ring.
    Closed(T),
}

impl<T> PushError<T> {
    /// The item.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) => item,
        }
    }
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the ring is full",
            Self::Closed(_) => "the other side of the ring is gone",
        })
    }
}

impl<T> core::error::Error for PushError<T> {}

/// The side that puts items in.
pub struct Producer<T> {
    raw: raw::RawProducer<T>,
}

impl<T> Producer<T> {
    /// Puts one item in and shows it to the consumer.
    pub fn push(&mut self, item: T) -> Result<(), PushError<T>> {
        if self.is_closed() {
            return Err(PushError::Closed(item));
        }
        self.raw.stage(item).map_err(PushError::Full)?;
        self.raw.publish();
        Ok(())
    }

    /// Puts in as many items as there is room for and shows them together. Takes an item from the iterator only when
    /// there is a slot for it; none when the ring is closed.
    pub fn push_batch(&mut self, items: &mut impl Iterator<Item = T>) -> usize {
        let mut pushed = 0;
        if self.is_closed() {
            return pushed;
        }
        while self.raw.has_room() {
            let Some(item) = items.next() else { break };
            if self.raw.stage(item).is_err() {
                debug_assert!(false, "only this side takes room away");
                break;
            }
            pushed += 1;
        }
        self.raw.publish();
        pushed
    }

    /// How many items could be put in now.
    pub fn room(&mut self) -> usize {
        widen(self.raw.look())
    }

    /// Whether at least one item could be put in now. Cheaper than [`Self::room`].
    pub fn has_room(&mut self) -> bool {
        self.raw.has_room()
    }

    /// The number of slots.
    #[must_use]
    pub fn capacity(&self) -> usize {
        widen(self.raw.capacity())
    }

    /// Whether items can no longer arrive.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.raw.is_peer_gone() || self.raw.has_closed()
    }

    /// Says that nothing will follow. The consumer still gets what is in the ring.
    pub fn close(&mut self) {
        self.raw.close();
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("capacity", &self.capacity()).field("closed", &self.is_closed()).finish()
    }
}

/// The side that takes items out.
pub struct Consumer<T> {
    raw: raw::RawConsumer<T>,
}

impl<T> Consumer<T> {
    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        let item = self.raw.take();
        self.raw.release();
        item
    }

    /// Moves at most `max` items to the end of `into` and frees their slots together; how many there were.
    pub fn pop_into(&mut self, into: &mut Vec<T>, max: usize) -> usize {
        let count = self.raw.look().min(clamp(max));
        into.reserve(widen(count));
        for _ in 0..count {
            into.extend(self.raw.take());
        }
        self.raw.release();
        widen(count)
    }

    /// How many items there are now.
    pub fn len(&mut self) -> usize {
        widen(self.raw.look())
    }

    /// Whether there is no item now.
    pub fn is_empty(&mut self) -> bool {
        self.raw.known_items() == 0 && self.raw.look() == 0
    }

    /// The number of slots.
    #[must_use]
    pub fn capacity(&self) -> usize {
        widen(self.raw.capacity())
    }

    /// Whether the ring is empty and will stay so.
    pub fn is_finished(&mut self) -> bool {
        // In this order: what was published before the producer went is seen by the look that follows.
        self.raw.is_peer_gone() && self.is_empty()
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("capacity", &self.capacity()).finish()
    }
}

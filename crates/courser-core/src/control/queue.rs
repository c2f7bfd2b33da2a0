//! The control frame queue (seed: CFQ): encoded frames that are repeated byte for byte until the peer has them.
//!
//! Items wait in state New, ordered by priority (higher first) and then by age. A packet that carries one moves it to Tx;
//! loss moves it back to New; acknowledgement or discard of its space frees it. The queue is bounded: when it is full,
//! [`ControlQueue::add`] says so and the owner of the fact asks again later.

use crate::ids::Space;
use crate::spans::FrameKind;

/// Room for one encoded frame without an allocation: the largest NEW_CONNECTION_ID is 54 bytes.
const INLINE: usize = 56;

/// Most items at once; more than eight connection IDs each way and a token ever need.
const ITEMS_MAX: usize = 64;
/// The slot's part of an item's name; the rest is its serial number.
const SLOT_BITS: u32 = ITEMS_MAX.trailing_zeros();

/// Whether an item waits or travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemState {
    /// Waits for a packet.
    New,
    /// Is in a packet whose fate is open.
    Tx,
}

/// The queue holds as many items as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

enum Encoded {
    Inline(u8, [u8; INLINE]),
    Boxed(Box<[u8]>),
}

struct Item {
    /// Higher leaves earlier.
    priority: u8,
    kind: FrameKind,
    space: Space,
    state: ItemState,
    /// Orders items of one priority by age; also tells a reused slot from its former content.
    serial: u32,
    bytes: Encoded,
}

/// Control frames on their way to the peer; one object for all packet number spaces of a connection.
#[derive(Default)]
pub struct ControlQueue {
    slots: Vec<Option<Item>>,
    /// Items in state New, so that an idle queue costs one comparison per packet.
    waiting: u16,
    serial: u32,
}

impl ControlQueue {
    /// Queues an encoded frame in state New; returns its name, which no other item has as long as packets that carried it are
    /// remembered.
    ///
    /// # Errors
    /// [`QueueFull`] when 64 items are queued; nothing changes then.
    pub fn add(&mut self, priority: u8, space: Space, kind: FrameKind, frame: &[u8]) -> Result<u32, QueueFull> {
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.slots.len() < ITEMS_MAX => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return Err(QueueFull),
        };
        let mut inline = [0; INLINE];
        let bytes = match (inline.get_mut(..frame.len()), u8::try_from(frame.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(frame);
                Encoded::Inline(len, inline)
            }
            _ => Encoded::Boxed(frame.into()),
        };
        self.serial = self.serial.wrapping_add(1);
        let item = Item { priority, kind, space, state: ItemState::New, serial: self.serial, bytes };
        let name = item.name(slot);
        self.slots[slot] = Some(item);
        self.waiting += 1;
        Ok(name)
    }

    /// Whether a frame waits for a packet of that space.
    #[must_use]
    pub fn has_waiting(&self, space: Space) -> bool {
        self.waiting > 0 && self.items().any(|(_, i)| i.state == ItemState::New && i.space == space)
    }

    /// The waiting item of that space with the highest priority (oldest first among equals) that has at most `room` bytes
    /// and a priority within the given range. A large item that does not fit does not hold back a smaller one.
    #[must_use]
    pub fn next(&self, space: Space, priorities: core::ops::RangeInclusive<u8>, room: usize) -> Option<u32> {
        if self.waiting == 0 {
            return None;
        }
        self.items()
            .filter(|(_, i)| i.state == ItemState::New && i.space == space)
            .filter(|(_, i)| priorities.contains(&i.priority) && i.frame().len() <= room)
            .max_by_key(|(_, i)| (i.priority, core::cmp::Reverse(i.serial)))
            .map(|(id, _)| id)
    }

    /// Encoded bytes and kind of an item.
    #[must_use]
    pub fn frame(&self, id: u32) -> Option<(FrameKind, &[u8])> {
        self.item(id).map(|i| (i.kind, i.frame()))
    }

    /// State of an item; `None` when it is gone.
    #[must_use]
    pub fn state(&self, id: u32) -> Option<ItemState> {
        self.item(id).map(|i| i.state)
    }

    /// The item was put in a packet.
    pub fn mark_tx(&mut self, id: u32) {
        self.transition(id, ItemState::New, ItemState::Tx);
    }

    /// A packet with the item was lost: it waits again, with another priority if one is given.
    pub fn mark_lost(&mut self, id: u32, priority: Option<u8>) {
        self.transition(id, ItemState::Tx, ItemState::New);
        if let (Some(p), Some(Some(item))) = (priority, self.slot_of(id)) {
            item.priority = p;
        }
    }

    /// What was sent of that kind waits again, although nobody knows yet that it is lost.
    pub fn repeat(&mut self, kind: FrameKind) {
        for item in self.slots.iter_mut().flatten().filter(|i| i.kind == kind && i.state == ItemState::Tx) {
            item.state = ItemState::New;
            self.waiting += 1;
        }
    }

    /// The peer has it, or nobody wants it any more.
    pub fn release(&mut self, id: u32) {
        let item = self.slot_of(id).and_then(Option::take);
        self.waiting -= u16::from(item.is_some_and(|i| i.state == ItemState::New));
    }

    /// Frees everything of a space whose keys are gone.
    pub fn discard(&mut self, space: Space) {
        for slot in &mut self.slots {
            let gone = slot.take_if(|i| i.space == space);
            self.waiting -= u16::from(gone.is_some_and(|i| i.state == ItemState::New));
        }
    }

    /// Whether another item finds room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.len() < ITEMS_MAX
    }

    /// Items queued or in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Whether nothing is queued or in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives the room back that no item needs.
    pub fn shrink(&mut self) {
        let used = self.slots.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        self.slots.truncate(used);
        self.slots.shrink_to_fit();
    }

    fn items(&self) -> impl Iterator<Item = (u32, &Item)> {
        self.slots.iter().enumerate().filter_map(|(slot, item)| item.as_ref().map(|i| (i.name(slot), i)))
    }

    fn item(&self, id: u32) -> Option<&Item> {
        let slot = id as usize % ITEMS_MAX;
        self.slots.get(slot)?.as_ref().filter(|i| i.name(slot) == id)
    }

    /// The slot of an item, unless another one has it now.
    fn slot_of(&mut self, id: u32) -> Option<&mut Option<Item>> {
        let slot = id as usize % ITEMS_MAX;
        self.slots.get_mut(slot).filter(|place| place.as_ref().is_some_and(|i| i.name(slot) == id))
    }

    fn transition(&mut self, id: u32, from: ItemState, to: ItemState) {
        let Some(Some(item)) = self.slot_of(id) else { return };
        if item.state == from {
            item.state = to;
            match to {
                ItemState::New => self.waiting += 1,
                ItemState::Tx => self.waiting -= 1,
            }
        }
    }
}

impl Item {
    fn name(&self, slot: usize) -> u32 {
        debug_assert!(slot < ITEMS_MAX);
        self.serial << SLOT_BITS | slot as u32
    }

    fn frame(&self) -> &[u8] {
        match &self.bytes {
            Encoded::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Encoded::Boxed(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: core::ops::RangeInclusive<u8> = 0..=255;

    fn queue() -> ControlQueue {
        ControlQueue::default()
    }

    #[test]
    fn items_leave_by_priority_and_then_by_age() {
        let mut q = queue();
        let low = q.add(1, Space::Data, FrameKind::NewToken, &[7; 80]).unwrap();
        let old = q.add(5, Space::Data, FrameKind::NewConnectionId, &[1]).unwrap();
        let young = q.add(5, Space::Data, FrameKind::RetireConnectionId, &[2]).unwrap();
        let mut order = vec![];
        while let Some(id) = q.next(Space::Data, ALL, 100) {
            order.push(id);
            q.mark_tx(id);
        }
        assert_eq!(order, [old, young, low]);
        assert!(!q.has_waiting(Space::Data));
        assert_eq!(q.len(), 3);
    }

    #[test]
    fn a_big_item_does_not_block_a_small_one() {
        let mut q = queue();
        q.add(9, Space::Data, FrameKind::NewToken, &[7; 80]).unwrap();
        let small = q.add(1, Space::Data, FrameKind::RetireConnectionId, &[2, 3]).unwrap();
        assert_eq!(q.next(Space::Data, ALL, 79), Some(small));
        assert_eq!(q.next(Space::Data, ALL, 1), None);
    }

    #[test]
    fn spaces_are_apart() {
        let mut q = queue();
        let id = q.add(1, Space::Handshake, FrameKind::Ping, &[1]).unwrap();
        assert_eq!(q.next(Space::Data, ALL, 10), None);
        assert_eq!(q.next(Space::Handshake, ALL, 10), Some(id));
        q.discard(Space::Handshake);
        assert!(q.is_empty());
        assert_eq!(q.state(id), None);
    }

    #[test]
    fn state_table_of_the_queue() {
        let mut q = queue();
        let id = q.add(1, Space::Data, FrameKind::RetireConnectionId, &[9, 9]).unwrap();
        // An item starts in New, whatever else a text may say of it.
        assert_eq!(q.state(id), Some(ItemState::New));
        q.mark_lost(id, None);
        assert_eq!(q.state(id), Some(ItemState::New));
        q.mark_tx(id);
        q.mark_tx(id);
        assert_eq!(q.state(id), Some(ItemState::Tx));
        q.mark_lost(id, Some(200));
        assert_eq!(q.next(Space::Data, 200..=200, 10), Some(id));
        assert_eq!(q.frame(id), Some((FrameKind::RetireConnectionId, &[9u8, 9][..])));
        q.release(id);
        q.release(id);
        assert_eq!((q.state(id), q.len(), q.has_waiting(Space::Data)), (None, 0, false));
        // Release from Tx as well.
        let id = q.add(1, Space::Data, FrameKind::RetireConnectionId, &[9]).unwrap();
        q.mark_tx(id);
        q.release(id);
        assert!(q.is_empty());
    }

    #[test]
    fn the_second_acknowledgement_of_a_repeated_item_does_not_free_the_one_that_came_after_it() {
        let mut q = queue();
        let first = q.add(1, Space::Data, FrameKind::NewConnectionId, &[1]).unwrap();
        q.mark_tx(first);
        // A probe carries it again; then both packets are acknowledged, and between the two its place is taken.
        q.repeat(FrameKind::NewConnectionId);
        assert_eq!(q.next(Space::Data, ALL, 10), Some(first));
        q.mark_tx(first);
        q.release(first);
        let second = q.add(1, Space::Data, FrameKind::RetireConnectionId, &[2]).unwrap();
        q.mark_tx(second);
        q.release(first);
        q.mark_lost(first, Some(9));
        assert_eq!((q.state(first), q.state(second), q.len()), (None, Some(ItemState::Tx), 1));
        q.mark_lost(second, None);
        assert_eq!(q.next(Space::Data, 1..=1, 10), Some(second), "its packet was lost");
    }

    #[test]
    fn a_full_queue_says_so_and_keeps_what_it_has() {
        let mut q = queue();
        for i in 0..ITEMS_MAX {
            q.add(1, Space::Data, FrameKind::RetireConnectionId, &[i as u8]).unwrap();
        }
        assert!(!q.has_room());
        assert_eq!(q.add(255, Space::Data, FrameKind::RetireConnectionId, &[1]), Err(QueueFull));
        assert_eq!(q.len(), ITEMS_MAX);
        let third = q.items().nth(3).unwrap().0;
        q.release(third);
        assert!(q.add(1, Space::Data, FrameKind::RetireConnectionId, &[1]).is_ok());
    }
}

//! Where the application's outbound bytes lie: its private account of the arena.
//!
//! Regions are given out in the order in which messages are submitted and come free in the same order, with the slots of their
//! messages: the ring's head is all that the worker has to say. A region never wraps; what is left before the end is skipped.

use super::setup::LINE;
use crate::num::{clamp, widen};

/// The arena, in lines of 64 bytes.
pub(super) struct Arena {
    lines: u32,
    /// Lines given out and given back since the beginning, the skipped ones included.
    tail: u64,
    head: u64,
    /// By the slot of each message: the tail behind its region.
    ends: Box<[u64]>,
    /// The ring's head that was heard of last.
    seen: u32,
}

fn lines_of(bytes: usize) -> u32 {
    clamp(bytes.div_ceil(widen(LINE)))
}

impl Arena {
    pub(super) fn new(bytes: u32, slots: u32) -> Self {
        Self { lines: bytes / LINE, tail: 0, head: 0, ends: vec![0; widen(slots)].into(), seen: 0 }
    }

    /// The worker has taken all messages before this index.
    pub(super) fn release(&mut self, head: u32) {
        if head != self.seen {
            self.seen = head;
            let last = widen(head.wrapping_sub(1)) & (self.ends.len() - 1);
            self.head = self.head.max(self.ends[last]);
        }
    }

    /// A region for up to `wanted` bytes, at least `least`: its first line and its bytes. Nothing changes before it is
    /// [committed](Self::commit).
    pub(super) fn find(&self, wanted: usize, least: usize) -> Option<(u32, usize)> {
        let (lines, used) = (u64::from(self.lines), self.tail - self.head);
        let (wanted, least) = (u64::from(lines_of(wanted)), u64::from(lines_of(least)));
        let at = self.tail % lines;
        let free = lines - used;
        // Where nothing is in use the next region may lie anywhere: at the beginning there is most room.
        let behind = if used == 0 { 0 } else { free.min(lines - at) };
        let (at, room) = match behind {
            room if room >= wanted.min(least.max(1)) && room > 0 => (at, room),
            _ if used == 0 => (0, lines),
            _ => (0, free.saturating_sub(lines - at)),
        };
        let granted = room.min(wanted);
        (granted >= least && (granted > 0 || wanted == 0))
            .then(|| (u32::try_from(at).unwrap_or(0), usize::try_from(granted).unwrap_or(0) * widen(LINE)))
    }

    /// The region that begins at this line and has so many bytes belongs to the message in this slot; without bytes the slot
    /// only marks where the arena is.
    pub(super) fn commit(&mut self, slot: usize, at: u32, bytes: usize) {
        if bytes > 0 {
            let lines = u64::from(self.lines);
            let skipped = (u64::from(at) + lines - self.tail % lines) % lines;
            if self.tail == self.head {
                self.head += skipped;
            }
            self.tail += skipped + u64::from(lines_of(bytes));
        }
        self.ends[slot] = self.tail;
        debug_assert!(self.tail - self.head <= u64::from(self.lines), "regions do not overlap");
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_arena_has_room_for_all_of_it_wherever_the_last_region_ended() {
        let mut arena = Arena::new(640, 4);
        assert_eq!(arena.find(1000, 1), Some((0, 640)));
        assert_eq!(arena.find(641, 641), None);
        arena.commit(0, 0, 300);
        assert_eq!(arena.find(640, 1), Some((5, 320)));
        assert_eq!(arena.find(640, 640), None);
        arena.release(1);
        assert_eq!(arena.find(640, 640), Some((0, 640)));
        arena.commit(1, 0, 640);
        assert_eq!(arena.find(1, 1), None);
        arena.release(2);
        assert_eq!(arena.find(640, 640), Some((0, 640)));
    }

    proptest! {
        #[test]
        fn regions_of_messages_on_their_way_never_overlap(
            steps in prop::collection::vec((0usize..2000, 1usize..64, any::<bool>()), 1..300),
        ) {
            let mut arena = Arena::new(64 * 64, 8);
            let mut out: VecDeque<(usize, usize)> = VecDeque::new();
            let (mut head, mut tail) = (0u32, 0u32);
            for (wanted, least, releases) in steps {
                if (releases || out.len() == 8) && !out.is_empty() {
                    out.pop_front();
                    head += 1;
                    arena.release(head);
                    continue;
                }
                let Some((at, granted)) = arena.find(wanted, least.min(wanted)) else {
                    prop_assert!(!out.is_empty(), "an empty arena has room for {}", wanted);
                    continue;
                };
                let bytes = granted.min(wanted);
                prop_assert!(bytes >= least.min(wanted));
                let region = (widen(at) * 64, widen(at) * 64 + bytes.next_multiple_of(64));
                prop_assert!(region.1 <= 64 * 64);
                for other in &out {
                    prop_assert!(region.1 <= other.0 || other.1 <= region.0 || bytes == 0, "{:?} {:?}", region, other);
                }
                arena.commit(widen(tail) & 7, at, bytes);
                tail += 1;
                out.push_back(if bytes == 0 { (0, 0) } else { region });
            }
        }
    }
}

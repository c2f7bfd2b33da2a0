//! Who sends next.
//!
//! Streams with something to send wait by urgency. Incremental ones of an urgency take turns in a ring, each for a run of
//! packets; the others go one after the other, lowest ID first. Where an urgency has both, they alternate run by run, so
//! that neither starves. Streams that only lack credit of the connection wait in a list of their own.
//!
//! A stream stays at its turn until the packet is full or the stream has nothing more, so a packet mixes streams only
//! where one alone does not fill it.
//!
//! Lost bytes leave before new bytes of whatever stream of the same urgency: the peer's application waits for them, and
//! they were paid for. Such a repair is not part of anybody's run, and the run that it interrupts goes on behind it.
//!
//! Invariant: a stream with a repair is among those that wait by urgency.

use std::collections::VecDeque;

use super::entry::Priority;
use super::lists::Lists;
use crate::config::StreamSchedule;
use crate::ids::StreamId;

const URGENCIES: usize = 8;
/// The list of streams that wait for credit of the connection.
const BLOCKED: usize = URGENCIES;

/// The streams with something to send.
#[derive(Debug)]
pub(super) struct Active {
    rings: Lists<{ URGENCIES + 1 }>,
    /// Urgency, ID, slot of the streams that go one after the other; sorted.
    queue: VecDeque<(u8, StreamId, u32)>,
    schedule: StreamSchedule,
    /// Packets of the present run.
    run: u16,
    /// Whose run it is.
    holder: Option<u32>,
    /// Whether the ring comes first where an urgency has both.
    ring_first: bool,
    blocked: usize,
    /// Streams with lost bytes, by urgency.
    repairs: Lists<URGENCIES>,
    /// Whether the stream that was picked last repeats lost bytes, outside of its run.
    repairing: bool,
}

impl Active {
    pub(super) const fn new(schedule: StreamSchedule) -> Self {
        Self {
            rings: Lists::new(),
            queue: VecDeque::new(),
            schedule,
            run: 0,
            holder: None,
            ring_first: false,
            blocked: 0,
            repairs: Lists::new(),
            repairing: false,
        }
    }

    /// Streams that could send now.
    pub(super) fn len(&self) -> usize {
        self.rings.len() - self.blocked + self.queue.len()
    }

    /// Streams that wait for credit of the connection.
    pub(super) const fn blocked(&self) -> usize {
        self.blocked
    }

    pub(super) const fn set_schedule(&mut self, schedule: StreamSchedule) {
        self.schedule = schedule;
    }

    /// Lets a stream take part; nothing changes when it does already.
    pub(super) fn insert(&mut self, slot: u32, id: StreamId, priority: Priority) {
        let urgency = priority.urgency.min(7);
        let list = self.rings.list_of(slot);
        if list == Some(usize::from(urgency)) {
            return;
        }
        if list == Some(BLOCKED) {
            self.rings.remove(slot);
            self.blocked -= 1;
        }
        if priority.incremental && self.schedule != StreamSchedule::Sequential {
            self.rings.push_back(usize::from(urgency), slot);
        } else if let Err(at) = self.queue.binary_search_by_key(&(urgency, id), |e| (e.0, e.1)) {
            self.queue.insert(at, (urgency, id, slot));
        }
    }

    /// Says whether a stream that takes part has lost bytes to repeat.
    pub(super) fn set_repair(&mut self, slot: u32, priority: Priority, wanted: bool) {
        match (wanted, self.repairs.list_of(slot).is_some()) {
            (true, false) => self.repairs.push_back(usize::from(priority.urgency.min(7)), slot),
            (false, true) => self.repairs.remove(slot),
            _ => {}
        }
    }

    /// Lets a stream wait for credit of the connection.
    pub(super) fn block(&mut self, slot: u32, id: StreamId, priority: Priority) {
        if self.rings.list_of(slot) != Some(BLOCKED) {
            self.remove(slot, id, priority);
            self.rings.push_back(BLOCKED, slot);
            self.blocked += 1;
        }
    }

    /// Takes a stream out; `priority` is the one it was put in with.
    pub(super) fn remove(&mut self, slot: u32, id: StreamId, priority: Priority) {
        self.repairs.remove(slot);
        match self.rings.list_of(slot) {
            Some(list) => {
                self.rings.remove(slot);
                self.blocked -= usize::from(list == BLOCKED);
            }
            None => {
                if let Ok(at) = self.queue.binary_search_by_key(&(priority.urgency.min(7), id), |e| (e.0, e.1)) {
                    self.queue.remove(at);
                }
            }
        }
        if self.holder == Some(slot) {
            (self.holder, self.run) = (None, 0);
        }
    }

    /// Takes the next stream out that waits for credit of the connection.
    pub(super) fn pop_blocked(&mut self) -> Option<u32> {
        let slot = self.rings.front(BLOCKED)?;
        self.rings.remove(slot);
        self.blocked -= 1;
        Some(slot)
    }

    /// The stream whose turn it is.
    pub(super) fn pick(&mut self) -> Option<u32> {
        let ring = (0..URGENCIES).find_map(|u| Some((u, self.rings.front(u)?)));
        let queued = self.queue.front().map(|&(u, _, slot)| (usize::from(u), slot));
        let urgent = ring.map(|r| r.0).into_iter().chain(queued.map(|q| q.0)).min()?;
        let repair = self.repairs.front(urgent);
        self.repairing = repair.is_some();
        if repair.is_some() {
            return repair;
        }
        let slot = match (ring, queued) {
            (Some((a, slot)), Some((b, _))) if a < b || (a == b && self.ring_first) => slot,
            (Some((_, slot)), None) | (_, Some((_, slot))) => slot,
            (None, None) => return None,
        };
        if self.holder != Some(slot) {
            (self.holder, self.run) = (Some(slot), 0);
        }
        Some(slot)
    }

    /// A packet is full; the stream whose turn it is has more. Ends its run after the scheduled number of packets.
    pub(super) fn end_packet(&mut self) {
        let Some(slot) = self.holder.filter(|_| !self.repairing) else { return };
        self.run += 1;
        let over = match self.schedule {
            StreamSchedule::RoundRobin(n) => self.run >= n.max(1),
            StreamSchedule::Sequential => false,
        };
        if over {
            if let Some(list) = self.rings.list_of(slot) {
                self.rings.rotate(list);
                self.ring_first = false;
            } else {
                self.ring_first = true;
            }
            (self.holder, self.run) = (None, 0);
        }
    }

    /// Takes all streams out that could send, in the order of their turns.
    pub(super) fn drain_into(&mut self, out: &mut Vec<u32>) {
        for urgency in 0..URGENCIES {
            while let Some(slot) = self.repairs.front(urgency) {
                self.repairs.remove(slot);
            }
            while let Some(slot) = self.rings.front(urgency) {
                self.rings.remove(slot);
                out.push(slot);
            }
        }
        out.extend(self.queue.drain(..).map(|e| e.2));
    }

    pub(super) fn shrink(&mut self) {
        self.rings.shrink();
        self.repairs.shrink();
        self.queue.shrink_to_fit();
    }

    /// Slots that memory is kept for, in turns and in repairs.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.rings.kept(), self.repairs.kept())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURNS: Priority = Priority { urgency: 3, incremental: true };

    #[test]
    fn a_stream_that_leaves_takes_its_run_along_and_others_keep_theirs() {
        let mut active = Active::new(StreamSchedule::RoundRobin(3));
        let id = |slot: u32| StreamId(u64::from(slot) * 4);
        (0..3).for_each(|slot| active.insert(slot, id(slot), TURNS));
        assert_eq!(active.pick(), Some(0));
        active.end_packet();
        // Another one goes: the run goes on where it was.
        active.remove(1, id(1), TURNS);
        let mut turns = Vec::new();
        for _ in 0..5 {
            turns.extend(active.pick());
            active.end_packet();
        }
        assert_eq!(turns, [0, 0, 2, 2, 2]);
        // The holder goes in mid-run and comes back: its run begins anew.
        assert_eq!(active.pick(), Some(0));
        active.end_packet();
        active.remove(0, id(0), TURNS);
        active.insert(0, id(0), TURNS);
        active.remove(2, id(2), TURNS);
        active.insert(2, id(2), TURNS);
        let mut turns = Vec::new();
        for _ in 0..4 {
            turns.extend(active.pick());
            active.end_packet();
        }
        assert_eq!(turns, [0, 0, 0, 2]);
    }
    #[test]
    fn the_memory_of_turns_and_repairs_is_forgotten_when_nobody_waits() {
        let mut active = Active::new(StreamSchedule::RoundRobin(1));
        active.insert(7, StreamId(28), TURNS);
        active.set_repair(7, TURNS, true);
        active.shrink();
        assert!(active.kept().0 > 7 && active.kept().1 > 7 && active.pick() == Some(7));
        active.remove(7, StreamId(28), TURNS);
        active.shrink();
        assert_eq!(active.kept(), (0, 0));
    }
}

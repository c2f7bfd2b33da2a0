//! The engine's queues. They hold indices of the connection table and never touch a connection.
//!
//! [`Fifo`] serves the tickable connections (who waited longest is ticked first) and those with events; whose turn at
//! sending it is says `turns`. [`DeadlineHeap`] is the advisory tick-time queue: an entry moves when its deadline gets
//! *earlier*; when it gets later, the entry stays and is put right when it comes up, so that a busy connection, whose
//! timers move with every packet, costs nothing here.

use std::collections::VecDeque;

use crate::time::Instant;

/// A queue of indices in which each index is at most once.
#[derive(Default)]
pub(crate) struct Fifo {
    queue: VecDeque<u32>,
    queued: Vec<bool>,
}

impl Fifo {
    /// Adds an index at the end unless it waits already.
    pub(crate) fn push(&mut self, index: u32) {
        let i = index as usize;
        if i >= self.queued.len() {
            self.queued.resize(i + 1, false);
        }
        if !core::mem::replace(&mut self.queued[i], true) {
            self.queue.push_back(index);
        }
    }

    /// Takes the index that waited longest.
    pub(crate) fn pop(&mut self) -> Option<u32> {
        let index = self.queue.pop_front()?;
        self.queued[index as usize] = false;
        Some(index)
    }

    /// Puts an index back to the front: its turn was not used.
    pub(crate) fn push_front(&mut self, index: u32) {
        if !core::mem::replace(&mut self.queued[index as usize], true) {
            self.queue.push_front(index);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Those that are taken next.
    pub(crate) fn front(&self) -> impl Iterator<Item = u32> + '_ {
        self.queue.iter().copied()
    }
}

/// Entries below each one of the heap: four lie in one or two lines of the cache, and the heap is half as deep as with two.
const CHILDREN: usize = 4;

const ABSENT: u32 = u32::MAX;

/// Deadlines of connections, earliest first.
#[derive(Default)]
pub(crate) struct DeadlineHeap {
    heap: Vec<(Instant, u32)>,
    /// Position in the heap by index; `ABSENT` when not queued.
    positions: Vec<u32>,
}

impl DeadlineHeap {
    /// The connection wants to be ticked at `at`. A later time than the queued one is not entered: the entry comes up
    /// early and the caller sets it anew then.
    pub(crate) fn set(&mut self, index: u32, at: Instant) {
        let i = index as usize;
        if i >= self.positions.len() {
            self.positions.resize(i + 1, ABSENT);
        }
        match self.positions[i] {
            ABSENT => {
                self.heap.push((at, index));
                self.positions[i] = (self.heap.len() - 1) as u32;
                self.sift_up(self.heap.len() - 1);
            }
            position => {
                let position = position as usize;
                if at < self.heap[position].0 {
                    self.heap[position].0 = at;
                    self.sift_up(position);
                }
            }
        }
    }

    /// The connection is not to be ticked before `at`, whatever was entered.
    pub(crate) fn put_off(&mut self, index: u32, at: Instant) {
        self.remove(index);
        self.set(index, at);
    }

    /// Takes an index out, wherever it is.
    pub(crate) fn remove(&mut self, index: u32) {
        let Some(position) = self.positions.get(index as usize).copied().filter(|p| *p != ABSENT) else { return };
        self.take(position as usize);
    }

    /// The earliest entry. Its connection's true deadline may be later, never earlier.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// Takes the earliest entry that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let (at, index) = *self.heap.first()?;
        if at > now {
            return None;
        }
        self.take(0);
        Some(index)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.heap.len()
    }

    fn take(&mut self, position: usize) {
        let (_, index) = self.heap.swap_remove(position);
        self.positions[index as usize] = ABSENT;
        if position < self.heap.len() {
            self.positions[self.heap[position].1 as usize] = position as u32;
            self.sift_down(position);
            self.sift_up(position);
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.positions[self.heap[a].1 as usize] = a as u32;
        self.positions[self.heap[b].1 as usize] = b as u32;
    }

    fn sift_up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / CHILDREN;
            if self.heap[at].0 >= self.heap[parent].0 {
                break;
            }
            self.swap(at, parent);
            at = parent;
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let first = CHILDREN * at + 1;
            let children = self.heap.get(first..).unwrap_or_default().iter().take(CHILDREN);
            let Some((child, &(earliest, _))) = (first..).zip(children).min_by_key(|(_, (due, _))| *due) else { break };
            if self.heap[at].0 <= earliest {
                break;
            }
            self.swap(at, child);
            at = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn t(us: u64) -> Instant {
        Instant::from_micros(us)
    }

    #[test]
    fn an_index_waits_once_and_the_longest_wait_ends_first() {
        let mut q = Fifo::default();
        for i in [3, 1, 3, 2, 1] {
            q.push(i);
        }
        assert_eq!(q.len(), 3);
        assert_eq!(q.pop(), Some(3));
        q.push_front(3);
        q.push(3);
        assert_eq!([q.pop(), q.pop(), q.pop(), q.pop()], [Some(3), Some(1), Some(2), None]);
    }

    #[test]
    fn entries_move_only_to_earlier_times() {
        let mut h = DeadlineHeap::default();
        h.set(7, t(100));
        h.set(7, t(200));
        assert_eq!(h.first(), Some(t(100)));
        h.set(7, t(50));
        assert_eq!(h.first(), Some(t(50)));
        assert_eq!((h.pop_due(t(49)), h.pop_due(t(50)), h.first()), (None, Some(7), None));
    }

    #[test]
    fn ten_thousand_connections_cost_few_reallocations_and_busy_ones_none() {
        // LS-LIFE-17: room grows by doubling, and is never given back while deadlines come and go.
        let (mut heap, mut fifo) = (DeadlineHeap::default(), Fifo::default());
        let room = |h: &DeadlineHeap, f: &Fifo| {
            [h.heap.capacity(), h.positions.capacity(), f.queue.capacity(), f.queued.capacity()]
        };
        let mut changes = 0;
        for index in 0..10_000 {
            let before = room(&heap, &fifo);
            heap.set(index, t(u64::from(index) * 7919 % 10_007));
            fifo.push(index);
            changes += before.iter().zip(room(&heap, &fifo)).filter(|(b, a)| **b != *a).count();
        }
        assert!(changes <= 4 * 14, "{changes} reallocations");
        let grown = room(&heap, &fifo);
        for round in 0..3 {
            while let Some(index) = fifo.pop() {
                heap.remove(index);
                assert_eq!(room(&heap, &fifo), grown);
            }
            (0..10_000).for_each(|index| {
                heap.set(index, t(round * 1000 + u64::from(index)));
                fifo.push(index);
            });
            assert_eq!(room(&heap, &fifo), grown, "queueing again takes no memory");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn the_heap_agrees_with_a_plain_map(ops in prop::collection::vec((0u32..40, 0u64..1000, 0u8..8), 1..300)) {
            let mut heap = DeadlineHeap::default();
            let mut model = std::collections::BTreeMap::<u32, u64>::new();
            for (index, at, op) in ops {
                match op {
                    0 => {
                        heap.remove(index);
                        model.remove(&index);
                    }
                    1 => {
                        let due = heap.pop_due(t(at));
                        let expected = model.values().min().copied().filter(|m| *m <= at);
                        prop_assert_eq!(due.map(|i| model[&i]), expected);
                        if let Some(i) = due {
                            model.remove(&i);
                        }
                    }
                    _ => {
                        heap.set(index, t(at));
                        let entry = model.entry(index).or_insert(at);
                        *entry = (*entry).min(at);
                    }
                }
                prop_assert_eq!(heap.len(), model.len());
                prop_assert_eq!(heap.first(), model.values().min().map(|m| t(*m)));
            }
        }
    }
}

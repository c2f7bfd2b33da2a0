//! What is due when: the list that drives the clock.
//!
//! Everybody has at most one time at which something is due. When that time moves away, the entry in the heap stays and is
//! corrected when its turn comes; only an earlier time makes a new entry. So a deadline that moves with each datagram does not
//! fill the heap. Entries of equal times come out in the order links before nodes, then by number.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Whose time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// The link of this number.
    Link(u32),
    /// The node of this number.
    Node(u32),
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    /// `u64::MAX` for never.
    due_us: u64,
    /// The entry that counts, never later than `due_us`; `u64::MAX` for none. Other entries of this owner are void.
    entry_us: u64,
}

const NEVER: Timer = Timer { due_us: u64::MAX, entry_us: u64::MAX };

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<(u64, Who)>>,
    links: Vec<Timer>,
    nodes: Vec<Timer>,
}

impl Agenda {
    fn timer(&mut self, who: Who) -> &mut Timer {
        let (list, at) = match who {
            Who::Link(n) => (&mut self.links, n as usize),
            Who::Node(n) => (&mut self.nodes, n as usize),
        };
        if at >= list.len() {
            list.resize(at + 1, NEVER);
        }
        &mut list[at]
    }

    /// Sets the time of somebody; `u64::MAX` for never.
    pub(crate) fn schedule(&mut self, who: Who, due_us: u64) {
        let timer = self.timer(who);
        timer.due_us = due_us;
        if due_us < timer.entry_us {
            timer.entry_us = due_us;
            self.heap.push(Reverse((due_us, who)));
        }
    }

    /// The earliest time at which something is due.
    pub(crate) fn next_us(&mut self) -> Option<u64> {
        loop {
            let &Reverse((at_us, who)) = self.heap.peek()?;
            let timer = *self.timer(who);
            if timer.entry_us == at_us && timer.due_us == at_us {
                return Some(at_us);
            }
            self.heap.pop();
            if timer.entry_us == at_us {
                *self.timer(who) = NEVER;
                self.schedule(who, timer.due_us);
            }
        }
    }

    /// Takes out somebody whose time has come.
    pub(crate) fn pop(&mut self, now_us: u64) -> Option<Who> {
        self.next_us().filter(|&t| t <= now_us)?;
        let Reverse((_, who)) = self.heap.pop()?;
        *self.timer(who) = NEVER;
        Some(who)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_deadline_that_moves_away_does_not_fill_the_heap() {
        let mut a = Agenda::default();
        (0..10_000).for_each(|t| a.schedule(Who::Node(0), 1_000_000 + t));
        assert_eq!(a.heap.len(), 1);
        assert_eq!(a.next_us(), Some(1_009_999));
        a.schedule(Who::Node(0), u64::MAX);
        assert_eq!(a.next_us(), None);
        assert!(a.heap.is_empty());
    }

    proptest! {
        #[test]
        fn the_agenda_is_a_table_of_times(steps in prop::collection::vec((0u32..6, 0u64..30, any::<bool>()), 0..200)) {
            let mut a = Agenda::default();
            let mut table = [u64::MAX; 6];
            let who = |n: u32| if n < 3 { Who::Link(n) } else { Who::Node(n - 3) };
            for (n, at, pop) in steps {
                if pop {
                    let want = (0..6).filter(|&i| table[i] <= at).min_by_key(|&i| (table[i], i));
                    prop_assert_eq!(a.pop(at), want.map(|i| who(i as u32)));
                    want.into_iter().for_each(|i| table[i] = u64::MAX);
                } else {
                    let due = if at == 29 { u64::MAX } else { at };
                    a.schedule(who(n), due);
                    table[n as usize] = due;
                }
                let next = table.iter().copied().min().filter(|&t| t != u64::MAX);
                prop_assert_eq!(a.next_us(), next);
            }
        }
    }
}

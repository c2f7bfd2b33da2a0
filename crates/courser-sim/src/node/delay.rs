//! The delay line: datagrams that travel, in the order of their arrival.
//!
//! Nearly all arrive in the order in which they left and sit in a plain queue; those that may be overtaken or overtake sit
//! in a heap. Equal times are ordered by number, so the order never depends on the container.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

#[derive(Debug)]
struct Entry<T> {
    at_us: u64,
    number: u64,
    item: T,
}

impl<T> Entry<T> {
    const fn key(&self) -> (u64, u64) {
        (self.at_us, self.number)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// Datagrams (or what else travels) with their times of arrival.
#[derive(Debug)]
pub struct DelayLine<T> {
    /// Sorted by key; takes an entry only if it is not earlier than the last one.
    in_order: VecDeque<Entry<T>>,
    /// All others.
    stray: BinaryHeap<Reverse<Entry<T>>>,
    /// Number of the next entry.
    number: u64,
}

impl<T> Default for DelayLine<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> DelayLine<T> {
    /// An empty line.
    #[must_use]
    pub const fn new() -> Self {
        Self { in_order: VecDeque::new(), stray: BinaryHeap::new(), number: 0 }
    }

    /// Puts a datagram on its way. `stray` says that its time has nothing to do with that of its neighbours; it is a hint
    /// for speed, not for order.
    pub fn push(&mut self, at_us: u64, stray: bool, item: T) {
        let entry = Entry { at_us, number: self.number, item };
        self.number += 1;
        if stray || self.in_order.back().is_some_and(|last| last.at_us > at_us) {
            self.stray.push(Reverse(entry));
        } else {
            self.in_order.push_back(entry);
        }
    }

    /// When the next datagram arrives.
    #[must_use]
    pub fn next_us(&self) -> Option<u64> {
        let a = self.in_order.front().map(|e| e.at_us);
        let b = self.stray.peek().map(|Reverse(e)| e.at_us);
        match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The next datagram that has arrived by `now_us`, with its time.
    pub fn pop(&mut self, now_us: u64) -> Option<(u64, T)> {
        let stray_first = match (self.in_order.front(), self.stray.peek()) {
            (Some(a), Some(Reverse(b))) => b.key() < a.key(),
            (None, Some(_)) => true,
            _ => false,
        };
        let due = |at_us: u64| at_us <= now_us;
        let entry = if stray_first {
            self.stray.peek().filter(|Reverse(e)| due(e.at_us))?;
            self.stray.pop().map(|Reverse(e)| e)?
        } else {
            self.in_order.front().filter(|e| due(e.at_us))?;
            self.in_order.pop_front()?
        };
        Some((entry.at_us, entry.item))
    }

    /// Datagrams on their way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_order.len() + self.stray.len()
    }

    /// True if nothing travels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::datagram::Datagram;

    fn datagram(n: u8) -> Datagram {
        let a = "127.0.0.1:1".parse().unwrap();
        Datagram::new(a, a, vec![n])
    }

    #[test]
    fn nothing_arrives_before_its_time() {
        let mut line = DelayLine::new();
        line.push(10, false, datagram(1));
        line.push(5, true, datagram(2));
        assert_eq!(line.next_us(), Some(5));
        assert!(line.pop(4).is_none());
        assert_eq!(line.pop(9).unwrap(), (5, datagram(2)));
        assert!(line.pop(9).is_none());
        assert_eq!(line.pop(11).unwrap(), (10, datagram(1)));
        assert!(line.is_empty() && line.next_us().is_none());
    }

    proptest! {
        #[test]
        fn the_line_is_a_stable_sort_by_time(items in prop::collection::vec((0u64..50, any::<bool>()), 0..60)) {
            let mut line = DelayLine::new();
            for (i, &(at, stray)) in items.iter().enumerate() {
                line.push(at, stray, datagram(i as u8));
            }
            prop_assert_eq!(line.len(), items.len());
            let mut want: Vec<(u64, u8)> = items.iter().enumerate().map(|(i, &(at, _))| (at, i as u8)).collect();
            want.sort();
            let mut got = Vec::new();
            for now in 0..50 {
                while let Some((at, d)) = line.pop(now) {
                    prop_assert_eq!(at, now);
                    got.push((at, d.bytes[0]));
                }
            }
            prop_assert_eq!(got, want);
        }
    }
}

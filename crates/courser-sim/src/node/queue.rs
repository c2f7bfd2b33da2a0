//! The queue in front of the serialiser: drop-tail by bytes or by datagrams, optionally CoDel, optionally CE marks when the
//! wait passes a threshold.
//!
//! Only waiting datagrams count; the one on the serialiser has left. Sizes are those on the wire (payload plus overhead).
//! An ECN-capable datagram whose wait exceeded the threshold is marked when it leaves.

use std::collections::VecDeque;

use super::codel::{Codel, CodelNode};
use crate::datagram::{CE, Datagram};

/// Parameters; the default has no limit and no marking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Most bytes on the wire that may wait.
    pub bytes_max: Option<u64>,
    /// Most datagrams that may wait.
    pub datagrams_max: Option<usize>,
    /// Drop or mark from the head by CoDel.
    pub codel: Option<Codel>,
    /// Mark ECN-capable datagrams that waited longer than this, in microseconds.
    pub ce_above_us: Option<u64>,
}

#[derive(Debug)]
struct Waiting {
    since_ns: u64,
    wire_bytes: u64,
    d: Datagram,
}

/// What left the queue for the serialiser.
#[derive(Debug)]
pub struct Left {
    /// The datagram, perhaps marked.
    pub d: Datagram,
    /// Its size on the wire.
    pub wire_bytes: u64,
    /// How long it waited.
    pub wait_ns: u64,
    /// True if this queue marked it.
    pub marked: bool,
}

/// A queue at work.
#[derive(Debug)]
pub struct QueueNode {
    config: Queue,
    codel: Option<CodelNode>,
    waiting: VecDeque<Waiting>,
    bytes: u64,
}

impl QueueNode {
    /// An empty queue.
    #[must_use]
    pub fn new(config: Queue) -> Self {
        Self { config, codel: config.codel.map(CodelNode::new), waiting: VecDeque::new(), bytes: 0 }
    }

    /// Other limits and marks from now on; what waits stays, even if it is more than there is room for now.
    pub fn set_config(&mut self, config: Queue) {
        if config.codel != self.config.codel {
            self.codel = config.codel.map(CodelNode::new);
        }
        self.config = config;
    }

    /// Appends a datagram, or gives it back when there is no room.
    pub fn push(&mut self, now_ns: u64, wire_bytes: u64, d: Datagram) -> Result<(), Datagram> {
        let too_big = self.config.bytes_max.is_some_and(|max| self.bytes.saturating_add(wire_bytes) > max);
        let too_many = self.config.datagrams_max.is_some_and(|max| self.waiting.len() >= max);
        if too_big || too_many {
            return Err(d);
        }
        self.bytes += wire_bytes;
        self.waiting.push_back(Waiting { since_ns: now_ns, wire_bytes, d });
        Ok(())
    }

    /// The next datagram for the serialiser at `now_ns`. Those that CoDel drops before it go to `dropped`.
    pub fn pop(&mut self, now_ns: u64, mut dropped: impl FnMut(Datagram)) -> Option<Left> {
        loop {
            let Waiting { since_ns, wire_bytes, mut d } = self.waiting.pop_front()?;
            debug_assert!(self.bytes >= wire_bytes);
            self.bytes -= wire_bytes;
            let wait_ns = now_ns.saturating_sub(since_ns);
            let hit = self.codel.as_mut().is_some_and(|c| c.hits(now_ns, wait_ns, self.bytes));
            let may_mark = d.is_ect();
            let mark_hit = hit && may_mark && self.config.codel.is_some_and(|c| c.mark);
            if hit && !mark_hit {
                dropped(d);
                continue;
            }
            let long = self.config.ce_above_us.is_some_and(|us| wait_ns > us.saturating_mul(1_000));
            let marked = may_mark && (mark_hit || long);
            if marked {
                d.ecn = CE;
            }
            return Some(Left { d, wire_bytes, wait_ns, marked });
        }
    }

    /// Size on the wire of the datagram at the head.
    #[must_use]
    pub fn head_bytes(&self) -> Option<u64> {
        self.waiting.front().map(|w| w.wire_bytes)
    }

    /// When the datagram at the head arrived.
    #[must_use]
    pub fn head_since_ns(&self) -> Option<u64> {
        self.waiting.front().map(|w| w.since_ns)
    }

    /// Bytes on the wire that wait.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Datagrams that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True if nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::{ECT0, NOT_ECT};

    fn datagram(ecn: u8, tag: u8) -> Datagram {
        let a = "127.0.0.1:1".parse().unwrap();
        Datagram { ecn, ..Datagram::new(a, a, vec![tag]) }
    }

    fn never(_: Datagram) {
        panic!("nothing may be dropped here");
    }

    #[test]
    fn the_byte_limit_holds_to_the_byte() {
        let mut q = QueueNode::new(Queue { bytes_max: Some(3_000), ..Queue::default() });
        assert!(q.push(0, 1_500, datagram(0, 1)).is_ok());
        assert!(q.push(0, 1_501, datagram(0, 2)).is_err());
        assert!(q.push(0, 1_500, datagram(0, 3)).is_ok());
        assert!(q.push(0, 1, datagram(0, 4)).is_err());
        assert_eq!((q.len(), q.bytes()), (2, 3_000));
        assert_eq!(q.pop(0, never).unwrap().d.bytes, [1]);
        assert_eq!(q.pop(0, never).unwrap().d.bytes, [3]);
        assert!(q.pop(0, never).is_none() && q.bytes() == 0 && q.is_empty());
    }

    #[test]
    fn the_datagram_limit_holds() {
        let mut q = QueueNode::new(Queue { datagrams_max: Some(2), ..Queue::default() });
        let taken = (0..5).filter(|&i| q.push(0, 1, datagram(0, i)).is_ok()).count();
        assert_eq!(taken, 2);
    }

    #[test]
    fn only_capable_datagrams_that_waited_too_long_are_marked() {
        let mut q = QueueNode::new(Queue { ce_above_us: Some(5_000), ..Queue::default() });
        for ecn in [ECT0, ECT0, NOT_ECT, CE] {
            q.push(0, 100, datagram(ecn, 0)).unwrap();
        }
        let out: Vec<(u8, bool)> = [5_000_000, 5_000_001, 9_000_000, 9_000_000]
            .map(|t| q.pop(t, never).unwrap())
            .iter()
            .map(|l| (l.d.ecn, l.marked))
            .collect();
        assert_eq!(out, [(ECT0, false), (CE, true), (NOT_ECT, false), (CE, false)]);
    }

    #[test]
    fn codel_drops_from_the_head_or_marks() {
        for mark in [false, true] {
            let mut q = QueueNode::new(Queue { codel: Some(Codel { mark, ..Codel::default() }), ..Queue::default() });
            for i in 0..200 {
                q.push(0, 1_500, datagram(ECT0, i)).unwrap();
            }
            let (mut dropped, mut marked, mut left) = (0, 0, 0);
            for ms in 0..200u64 {
                if let Some(l) = q.pop((ms + 10) * 1_000_000, |_| dropped += 1) {
                    left += 1;
                    marked += u32::from(l.marked);
                }
            }
            assert_eq!(left + dropped, 200);
            assert!(if mark { dropped == 0 && marked > 0 } else { dropped > 0 && marked == 0 }, "{dropped} {marked}");
        }
    }
}

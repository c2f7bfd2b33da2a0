//! What applications decided over new connections, remembered for a while.
//!
//! A ClientHello may span two datagrams, and clients repeat their first flight until they hear something. All of it
//! carries the same destination connection ID, and the application is asked once.

use core::time::Duration;
use std::collections::{HashMap, VecDeque};

use super::replies::Reply;
use super::routes::CidHasher;
use crate::ids::Cid;
use crate::time::Instant;

/// How long a decision holds: a client that was refused, or that follows a Retry, is quiet by then.
const HOLDS: Duration = Duration::from_secs(5);
/// Decisions that are remembered, at most; the oldest go first.
const DECISIONS_MAX: usize = 4096;

/// Decisions by the destination connection ID that the client chose.
pub(super) struct Decided {
    /// By age, oldest first.
    order: VecDeque<(Instant, Cid)>,
    decisions: HashMap<Cid, Option<Reply>, CidHasher>,
}

impl Decided {
    pub(super) fn new(hasher: CidHasher) -> Self {
        Self { order: VecDeque::new(), decisions: HashMap::with_hasher(hasher) }
    }

    /// Remembers a decision: what to reply, or `None` to stay silent.
    pub(super) fn insert(&mut self, now: Instant, dcid: Cid, decision: Option<Reply>) {
        if self.decisions.insert(dcid, decision).is_none() {
            self.order.push_back((now, dcid));
        }
        if self.order.len() > DECISIONS_MAX {
            self.pop();
        }
    }

    /// The decision over a connection ID; `None` when there is none.
    pub(super) fn find(&mut self, now: Instant, dcid: &Cid) -> Option<Option<Reply>> {
        while self.order.front().is_some_and(|(at, _)| now.since(*at) > HOLDS) {
            self.pop();
        }
        self.decisions.get(dcid).copied()
    }

    fn pop(&mut self) {
        if let Some((_, oldest)) = self.order.pop_front() {
            self.decisions.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(n: u64) -> Cid {
        Cid::new(&n.to_be_bytes()).unwrap()
    }

    #[test]
    fn a_decision_holds_for_five_seconds() {
        let mut d = Decided::new(CidHasher::new([1; 16]));
        d.insert(Instant::ZERO, cid(1), None);
        assert_eq!(d.find(Instant::ZERO + HOLDS, &cid(1)), Some(None));
        assert_eq!(d.find(Instant::ZERO, &cid(2)), None);
        assert_eq!(d.find(Instant::ZERO + HOLDS + Duration::from_micros(1), &cid(1)), None);
        assert!(d.order.is_empty() && d.decisions.is_empty());
    }

    #[test]
    fn a_flood_of_decisions_is_bounded() {
        let mut d = Decided::new(CidHasher::new([1; 16]));
        for n in 0..DECISIONS_MAX as u64 + 10 {
            d.insert(Instant::ZERO, cid(n), None);
            d.insert(Instant::ZERO, cid(n), None);
        }
        assert_eq!((d.order.len(), d.decisions.len()), (DECISIONS_MAX, DECISIONS_MAX));
    }
}

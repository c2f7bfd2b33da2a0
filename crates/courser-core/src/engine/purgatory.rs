//! Connection IDs of connections that are gone.
//!
//! For thirty seconds a late packet to one of them creates no new connection and gets no stateless reset. Those of
//! connections that ended because their keys were used up are not among them: their peers get resets at once.

use core::time::Duration;
use std::collections::{HashSet, VecDeque};

use crate::ids::Cid;
use crate::time::Instant;

use super::routes::CidHasher;

/// How long a dead connection ID is remembered.
const STAY: Duration = Duration::from_secs(30);
/// Dead connection IDs that are remembered, at most; the oldest go first.
const DEAD_MAX: usize = 65_536;

/// The dead connection IDs.
pub(crate) struct Purgatory {
    /// By age, oldest first.
    order: VecDeque<(Instant, Cid)>,
    dead: HashSet<Cid, CidHasher>,
}

impl Purgatory {
    pub(crate) fn new(hasher: CidHasher) -> Self {
        Self { order: VecDeque::new(), dead: HashSet::with_hasher(hasher) }
    }

    /// Remembers a connection ID.
    pub(crate) fn insert(&mut self, now: Instant, cid: Cid) {
        self.expire(now);
        if cid.is_empty() || !self.dead.insert(cid) {
            return;
        }
        if self.order.len() == DEAD_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.dead.remove(&oldest);
        }
        self.order.push_back((now, cid));
    }

    /// Whether the connection ID died in the last thirty seconds.
    pub(crate) fn contains(&mut self, now: Instant, cid: &[u8]) -> bool {
        self.expire(now);
        Cid::new(cid).is_some_and(|cid| self.dead.contains(&cid))
    }

    fn expire(&mut self, now: Instant) {
        while let Some((died, cid)) = self.order.front()
            && now.since(*died) > STAY
        {
            self.dead.remove(cid);
            self.order.pop_front();
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
    fn the_dead_are_remembered_for_thirty_seconds() {
        let mut p = Purgatory::new(CidHasher::new([1; 16]));
        p.insert(Instant::ZERO, cid(1));
        p.insert(Instant::ZERO, cid(1));
        assert!(p.contains(Instant::ZERO + STAY, cid(1).as_slice()));
        assert!(!p.contains(Instant::ZERO + STAY + Duration::from_micros(1), cid(1).as_slice()));
        assert!(p.order.is_empty() && p.dead.is_empty());
    }

    #[test]
    fn a_flood_of_deaths_is_bounded() {
        let mut p = Purgatory::new(CidHasher::new([1; 16]));
        for n in 0..DEAD_MAX as u64 + 10 {
            p.insert(Instant::ZERO, cid(n));
        }
        assert_eq!((p.order.len(), p.dead.len()), (DEAD_MAX, DEAD_MAX));
        assert!(!p.contains(Instant::ZERO, cid(9).as_slice()) && p.contains(Instant::ZERO, cid(10).as_slice()));
    }
}

//! CoDel (RFC 8289): drop from the head when the wait stays above a target for an interval, ever faster while it does.
//!
//! The node only decides; the queue takes the datagrams out and tells each one's wait. Times are in nanoseconds.

/// Parameters. The RFC recommends 5 ms and 100 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codel {
    /// Wait that is acceptable for ever, in microseconds.
    pub target_us: u64,
    /// How long the wait may stay above it, in microseconds; about the longest round trip.
    pub interval_us: u64,
    /// Mark ECN-capable datagrams CE instead of dropping them.
    pub mark: bool,
}

impl Default for Codel {
    fn default() -> Self {
        Self { target_us: 5_000, interval_us: 100_000, mark: false }
    }
}

/// A queue that holds at most this much is never bad, however slow its link (one full datagram).
const ONE_DATAGRAM: u64 = 1_500;

/// The control law at work.
#[derive(Clone, Debug)]
pub struct CodelNode {
    target_ns: u64,
    interval_ns: u64,
    /// When the wait will have been above the target for a whole interval; `None` while it is below.
    patience_ends_ns: Option<u64>,
    /// True between the first drop of an episode and the moment the wait is good again.
    dropping: bool,
    /// When the next drop of the episode is due.
    drop_next_ns: u64,
    /// Drops in this episode; the pace grows with its square root.
    count: u64,
    /// `count` when the last episode began, so that one that follows soon resumes near the pace that was needed.
    count_before: u64,
}

impl CodelNode {
    /// A law that has seen nothing yet.
    #[must_use]
    pub const fn new(config: Codel) -> Self {
        Self {
            target_ns: config.target_us.saturating_mul(1_000),
            interval_ns: config.interval_us.saturating_mul(1_000),
            patience_ends_ns: None,
            dropping: false,
            drop_next_ns: 0,
            count: 0,
            count_before: 0,
        }
    }

    fn after(&self, from_ns: u64) -> u64 {
        from_ns.saturating_add((self.interval_ns as f64 / (self.count.max(1) as f64).sqrt()) as u64)
    }

    /// True if the wait has been bad for a whole interval.
    fn is_bad(&mut self, now_ns: u64, wait_ns: u64, left_bytes: u64) -> bool {
        if wait_ns < self.target_ns || left_bytes <= ONE_DATAGRAM {
            self.patience_ends_ns = None;
            return false;
        }
        match self.patience_ends_ns {
            Some(end) => now_ns >= end,
            None => {
                self.patience_ends_ns = Some(now_ns.saturating_add(self.interval_ns));
                false
            }
        }
    }

    /// True if the datagram at the head, which waited `wait_ns` and leaves `left_bytes` behind it, is to be hit. To be
    /// asked for each datagram that leaves the queue, also for the one after a hit.
    pub fn hits(&mut self, now_ns: u64, wait_ns: u64, left_bytes: u64) -> bool {
        let bad = self.is_bad(now_ns, wait_ns, left_bytes);
        if !bad {
            self.dropping = false;
            return false;
        }
        if self.dropping {
            if now_ns < self.drop_next_ns {
                return false;
            }
            self.count += 1;
            self.drop_next_ns = self.after(self.drop_next_ns);
            return true;
        }
        self.dropping = true;
        let recent = now_ns.saturating_sub(self.drop_next_ns) < self.interval_ns.saturating_mul(16);
        let delta = self.count.saturating_sub(self.count_before);
        self.count = if recent && delta > 1 { delta } else { 1 };
        self.count_before = self.count;
        self.drop_next_ns = self.after(now_ns);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_short_burst_is_forgiven() {
        let mut c = CodelNode::new(Codel::default());
        assert!((0..99).all(|t| !c.hits(t * MS, 20 * MS, 50_000)), "bad for less than an interval");
        assert!(!c.hits(99 * MS, 4 * MS, 50_000), "good again");
        assert!((100..199).all(|t| !c.hits(t * MS, 20 * MS, 50_000)), "patience starts anew");
    }

    #[test]
    fn a_nearly_empty_queue_is_never_hit() {
        let mut c = CodelNode::new(Codel::default());
        assert!((0..1_000).all(|t| !c.hits(t * MS, 500 * MS, 1_500)));
    }

    #[test]
    fn drops_come_faster_by_the_square_root() {
        let mut c = CodelNode::new(Codel::default());
        let hits: Vec<u64> = (0..10_000).map(|t| t * MS / 10).filter(|&t| c.hits(t, 50 * MS, 90_000)).collect();
        assert_eq!(hits[0], 100 * MS);
        let mut due = hits[0];
        for (n, &hit) in hits.iter().enumerate().skip(1) {
            due += (100.0 * MS as f64 / (n as f64).sqrt()) as u64;
            assert!(hit >= due && hit - due < MS / 5, "drop {n} at {hit}, due {due}");
        }
        assert!(hits.len() > 12);
    }

    #[test]
    fn an_episode_that_follows_soon_starts_near_the_old_pace() {
        let mut c = CodelNode::new(Codel::default());
        let first = (0..1_000).filter(|&t| c.hits(t * MS, 50 * MS, 90_000)).count();
        assert!(!c.hits(1_000 * MS, 0, 90_000));
        let again: Vec<u64> = (1_001..1_400).filter(|&t| c.hits(t * MS, 50 * MS, 90_000)).collect();
        assert_eq!(again[0], 1_101);
        assert!(again[1] - again[0] < 50, "{first} drops before, then {again:?}");
    }
}

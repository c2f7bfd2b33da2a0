//! Bunched release, as on Wi-Fi: what was serialised waits for the next transmit opportunity and leaves together.
//!
//! Opportunities come after random pauses between `min_us` and `max_us`, whether or not something waits.

use crate::rng::Rng;

/// Pauses between two releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bunch {
    /// Shortest pause in microseconds; taken as at least 1.
    pub min_us: u64,
    /// Longest pause in microseconds.
    pub max_us: u64,
}

/// The clock of releases.
#[derive(Clone, Debug)]
pub struct BunchNode {
    config: Bunch,
    rng: Rng,
    release_us: u64,
}

impl BunchNode {
    /// The first opportunity is one random pause after time zero.
    #[must_use]
    pub fn new(config: Bunch, rng: Rng) -> Self {
        Self { config, rng, release_us: 0 }
    }

    /// The first release at or after `ready_us`. Times must not go back.
    pub fn release_us(&mut self, ready_us: u64) -> u64 {
        while self.release_us < ready_us || self.release_us == 0 {
            let pause = self.rng.range(self.config.min_us.max(1)..=self.config.max_us);
            self.release_us = self.release_us.saturating_add(pause.max(1));
        }
        self.release_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ready_between_two_releases_leaves_together() {
        let mut b = BunchNode::new(Bunch { min_us: 4_000, max_us: 12_000 }, Rng::new(1));
        let out: Vec<u64> = (0..100_000).map(|t| b.release_us(t)).collect();
        assert!(out.iter().zip(0..).all(|(&r, t)| r >= t && r - t <= 12_000));
        let mut releases = out.clone();
        releases.dedup();
        assert!(releases.windows(2).all(|w| (4_000..=12_000).contains(&(w[1] - w[0]))));
        assert!((9..=25).contains(&releases.len()), "{}", releases.len());
    }

    #[test]
    fn a_pause_of_zero_does_not_hang() {
        let mut b = BunchNode::new(Bunch { min_us: 0, max_us: 0 }, Rng::new(1));
        assert_eq!(b.release_us(50), 50);
    }
}

//! A policer: a token bucket that drops what does not conform, and never delays.
//!
//! Tokens are bits. The bucket starts full and gains `bits_per_s` tokens each second up to its size; a datagram that finds
//! enough tokens takes them and passes, any other is dropped and takes none.

/// Parameters of the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policer {
    /// Rate at which tokens come back, in bits per second.
    pub bits_per_s: u64,
    /// Size of the bucket: what may pass at once after a pause, in bytes.
    pub burst_bytes: u64,
}

/// Tokens are kept in millionths of a bit, so that one microsecond at one bit per second is one unit.
const UNITS_PER_BIT: u128 = 1_000_000;

/// A policer at work.
#[derive(Clone, Debug)]
pub struct PolicerNode {
    config: Policer,
    /// Tokens at `at_us`, in millionths of a bit.
    tokens: u128,
    at_us: u64,
}

impl PolicerNode {
    /// A policer with a full bucket at time zero.
    #[must_use]
    pub fn new(config: Policer) -> Self {
        Self { config, tokens: Self::size(config), at_us: 0 }
    }

    fn size(config: Policer) -> u128 {
        u128::from(config.burst_bytes) * 8 * UNITS_PER_BIT
    }

    /// True if a datagram that takes `wire_bytes` on the wire conforms now.
    pub fn passes(&mut self, now_us: u64, wire_bytes: u64) -> bool {
        let gained = u128::from(now_us.saturating_sub(self.at_us)) * u128::from(self.config.bits_per_s);
        self.tokens = (self.tokens + gained).min(Self::size(self.config));
        self.at_us = self.at_us.max(now_us);
        match self.tokens.checked_sub(u128::from(wire_bytes) * 8 * UNITS_PER_BIT) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_lets_one_burst_pass() {
        let mut p = PolicerNode::new(Policer { bits_per_s: 8_000, burst_bytes: 3_000 });
        let passed = (0..10).filter(|_| p.passes(0, 1_000)).count();
        assert_eq!(passed, 3);
        assert!(!p.passes(999_999, 1_000), "one microsecond short of the next thousand bytes");
        assert!(p.passes(1_000_000, 1_000));
    }

    #[test]
    fn the_long_run_rate_is_exact_and_the_bucket_never_overflows() {
        let mut p = PolicerNode::new(Policer { bits_per_s: 10_000_000, burst_bytes: 50_000 });
        let passed = (0..1_000_000u64).filter(|i| p.passes(i * 100, 1_250)).count() as u64;
        // 100 s at 10 Mbit/s are 125 MB, plus the first bucket.
        assert_eq!(passed, (125_000_000 + 50_000) / 1_250 - 1);
        let mut idle = PolicerNode::new(Policer { bits_per_s: u64::MAX, burst_bytes: 2_000 });
        assert!(idle.passes(u64::MAX, 2_000) && !idle.passes(u64::MAX, 1));
        assert!(!idle.passes(0, 1), "a clock that goes back gives no tokens");
    }
}

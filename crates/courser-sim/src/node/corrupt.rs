//! Damage: bits turned over, or the end cut off.
//!
//! A real host would discard most of it by the UDP checksum; what arrives here is what the checksum missed, or what
//! somebody on the path wrote with a right checksum.

use crate::rng::Rng;

/// What damage looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// So many bits, at random places, are turned over (a bit chosen twice is turned back).
    FlipBits(u32),
    /// One byte among the first `span` gets another value. Small spans hit the headers.
    ChangeByte {
        /// Only bytes before this offset are hit.
        span: usize,
    },
    /// The payload ends early, at a random place.
    Truncate,
    /// The payload is cut to at most this length.
    TruncateTo(usize),
}

/// Damage that meets datagrams at random, or chosen ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Corrupt {
    /// Probability that a datagram is hit.
    pub p: f64,
    /// Numbers (from 0) of datagrams that are hit in any case.
    pub list: Vec<u64>,
    /// What happens to it.
    pub damage: Damage,
}

impl Corrupt {
    /// Damage with a probability.
    #[must_use]
    pub const fn random(p: f64, damage: Damage) -> Self {
        Self { p, list: Vec::new(), damage }
    }

    /// Damage to the datagrams with these numbers.
    #[must_use]
    pub fn listed(list: impl IntoIterator<Item = u64>, damage: Damage) -> Self {
        Self { p: 0.0, list: list.into_iter().collect(), damage }
    }

    /// Damages the datagram with this number, if it has one, when it is its turn; true if so.
    pub fn apply(&self, number: Option<u64>, bytes: &mut Vec<u8>, rng: &mut Rng) -> bool {
        let hit = rng.chance(self.p) || number.is_some_and(|n| self.list.contains(&n));
        hit && self.damage.apply(bytes, rng)
    }
}

impl Damage {
    /// Damages a payload; false if there was nothing to damage.
    pub fn apply(self, bytes: &mut Vec<u8>, rng: &mut Rng) -> bool {
        let len = bytes.len();
        match self {
            Self::FlipBits(n) => {
                for _ in 0..if len == 0 { 0 } else { n } {
                    let bit = rng.below(len as u64 * 8);
                    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                }
                len > 0 && n > 0
            }
            Self::ChangeByte { span } => {
                let at = rng.below(len.min(span) as u64) as usize;
                let change = rng.range(1..=255) as u8;
                let reach = len.min(span);
                if reach > 0 {
                    bytes[at] ^= change;
                }
                reach > 0
            }
            Self::Truncate => {
                bytes.truncate(rng.below(len as u64) as usize);
                len > 0
            }
            Self::TruncateTo(n) => {
                bytes.truncate(n);
                len > n
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differing_bits(a: &[u8], b: &[u8]) -> u32 {
        a.iter().zip(b).map(|(x, y)| (x ^ y).count_ones()).sum()
    }

    #[test]
    fn one_flip_changes_one_bit() {
        let mut rng = Rng::new(1);
        for _ in 0..100 {
            let mut v = vec![0u8; 20];
            assert!(Damage::FlipBits(1).apply(&mut v, &mut rng));
            assert_eq!(differing_bits(&v, &[0; 20]), 1);
        }
    }

    #[test]
    fn a_changed_byte_is_inside_the_span_and_really_other() {
        let mut rng = Rng::new(2);
        for _ in 0..300 {
            let mut v = vec![7u8; 60];
            assert!(Damage::ChangeByte { span: 10 }.apply(&mut v, &mut rng));
            let at: Vec<usize> = (0..60).filter(|&i| v[i] != 7).collect();
            assert!(at.len() == 1 && at[0] < 10);
        }
    }

    #[test]
    fn truncation_shortens_and_empty_payloads_survive_everything() {
        let mut rng = Rng::new(3);
        let mut v = vec![1u8; 50];
        assert!(Damage::Truncate.apply(&mut v, &mut rng) && v.len() < 50);
        let mut v = vec![1u8; 50];
        assert!(Damage::TruncateTo(20).apply(&mut v, &mut rng));
        assert!(!Damage::TruncateTo(20).apply(&mut v, &mut rng));
        assert_eq!(v.len(), 20);
        for d in [Damage::FlipBits(9), Damage::ChangeByte { span: 4 }, Damage::Truncate, Damage::TruncateTo(0)] {
            let mut empty = Vec::new();
            assert!(!d.apply(&mut empty, &mut rng));
        }
    }

    #[test]
    fn listed_numbers_are_hit_and_no_others() {
        let c = Corrupt::listed([2, 4], Damage::FlipBits(1));
        let mut rng = Rng::new(4);
        let hit: Vec<u64> = (0..8).filter(|&n| c.apply(Some(n), &mut vec![0; 8], &mut rng)).collect();
        assert_eq!(hit, [2, 4]);
        let all = Corrupt::random(1.0, Damage::Truncate);
        assert!((0..8).all(|n| all.apply(Some(n), &mut vec![0; 8], &mut rng)));
    }
}

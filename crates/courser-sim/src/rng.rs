//! Seeded random numbers: the only source of chance in a simulation.
//!
//! xoshiro256++ seeded through splitmix64. It is small, fast and the same on every machine. It is **not** secret: whoever
//! sees some outputs can compute the others, so it must never make keys, tokens or connection IDs of a real endpoint.
//!
//! Every consumer draws from a stream of its own ([`Rng::stream`]), so that switching jitter on does not change which
//! datagrams are lost.

use std::ops::RangeInclusive;

/// A deterministic generator.
///
/// ```
/// use courser_sim::Rng;
/// let (mut a, mut b) = (Rng::new(7), Rng::new(7));
/// assert_eq!(a.next_u64(), b.next_u64());
/// assert!(a.below(6) < 6);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: [u64; 4],
}

/// One round of splitmix64: a bijection that spreads neighbouring inputs over all 64 bits.
pub(crate) const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Rng {
    /// The generator of this seed. Any seed is fine, zero too.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let a = mix(seed);
        let b = mix(a);
        let c = mix(b);
        // The all-zero state would stay zero for ever; four rounds of a bijection cannot all give zero, but the constant
        // makes that plain to see.
        Self { state: [a, b, c, mix(c) | 1] }
    }

    /// The generator of the independent stream `tag` of a seed.
    #[must_use]
    pub const fn stream(seed: u64, tag: u64) -> Self {
        Self::new(mix(seed) ^ mix(tag ^ 0xa5a5_a5a5_a5a5_a5a5))
    }

    /// The next 64 random bits.
    pub const fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// A number in `0..n`, all equally likely; zero when `n` is zero.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // Multiply and shift; values of the short last interval are drawn again, so there is no bias.
        let reject_under = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if wide as u64 >= reject_under {
                return (wide >> 64) as u64;
            }
        }
    }

    /// A number of an inclusive range; the start when the range is empty.
    pub fn range(&mut self, r: RangeInclusive<u64>) -> u64 {
        let (from, to) = r.into_inner();
        match to.checked_sub(from) {
            None => from,
            Some(u64::MAX) => self.next_u64(),
            Some(span) => from + self.below(span + 1),
        }
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// True with probability `p`. Always draws one number, so a larger `p` hits a superset of what a smaller one hits.
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Fills a slice with random bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            let bytes = self.next_u64().to_le_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_numbers_and_others_do_not() {
        let take = |mut r: Rng| (0..8).map(|_| r.next_u64()).collect::<Vec<_>>();
        assert_eq!(take(Rng::new(1)), take(Rng::new(1)));
        assert_ne!(take(Rng::new(1)), take(Rng::new(2)));
        assert_ne!(take(Rng::stream(1, 0)), take(Rng::stream(1, 1)));
        assert_ne!(take(Rng::stream(1, 0)), take(Rng::new(1)));
    }

    #[test]
    fn the_sequence_of_a_seed_never_changes_between_versions() {
        let mut r = Rng::new(0);
        let first = [r.next_u64(), r.next_u64(), r.next_u64()];
        assert_eq!(first, [0x4433_9b21_871f_763d, 0x95cf_0253_ee96_7d12, 0xb7a3_58be_04e1_b41f]);
    }

    #[test]
    fn bounded_numbers_are_even_and_inside() {
        let mut r = Rng::new(3);
        let mut hits = [0u32; 6];
        for _ in 0..60_000 {
            hits[r.below(6) as usize] += 1;
        }
        assert!(hits.iter().all(|&h| (9_500..10_500).contains(&h)), "{hits:?}");
        assert_eq!(r.below(0), 0);
        assert_eq!(r.below(1), 0);
        assert_eq!(r.range(5..=5), 5);
        #[expect(clippy::reversed_empty_ranges, reason = "the point of the test")]
        let empty = r.range(5..=4);
        assert_eq!(empty, 5);
        assert!((10..=12).contains(&r.range(10..=12)));
        r.range(0..=u64::MAX);
    }

    #[test]
    fn chance_follows_its_probability_and_its_edges_are_exact() {
        let mut r = Rng::new(4);
        let hits = (0..100_000).filter(|_| r.chance(0.1)).count();
        assert!((9_600..10_400).contains(&hits), "{hits}");
        assert!((0..1_000).all(|_| !r.chance(0.0)));
        assert!((0..1_000).all(|_| r.chance(1.0)));
        assert!(!r.chance(f64::NAN));
    }

    #[test]
    fn a_larger_chance_hits_a_superset() {
        let (mut a, mut b) = (Rng::new(9), Rng::new(9));
        for _ in 0..1_000 {
            let (small, large) = (a.chance(0.2), b.chance(0.5));
            assert!(!small || large);
        }
    }

    #[test]
    fn fill_covers_every_length() {
        let mut r = Rng::new(5);
        for n in 0..40 {
            let mut v = vec![0u8; n];
            r.fill(&mut v);
            assert!(n < 8 || v.iter().any(|&b| b != 0));
        }
    }
}

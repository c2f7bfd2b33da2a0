//! Duplication: a datagram enters the queue more than once.

use crate::rng::Rng;

/// How often, and how many copies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Duplicate {
    /// Probability that a datagram is duplicated.
    pub p: f64,
    /// Copies made besides the original.
    pub copies: u32,
}

impl Duplicate {
    /// Copies to make of the next datagram.
    pub fn copies(self, rng: &mut Rng) -> u32 {
        if rng.chance(self.p) { self.copies } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_duplicates_follows_the_probability() {
        let mut rng = Rng::new(1);
        let d = Duplicate { p: 0.02, copies: 1 };
        let n: u32 = (0..100_000).map(|_| d.copies(&mut rng)).sum();
        assert!((1_800..2_200).contains(&n), "{n}");
        let three = Duplicate { p: 1.0, copies: 3 };
        assert_eq!(three.copies(&mut rng), 3);
    }
}

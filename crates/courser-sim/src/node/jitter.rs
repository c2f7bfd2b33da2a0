//! Jitter: each datagram travels a random time longer, evenly spread between nothing and a maximum.

use crate::rng::Rng;

/// Jitter of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jitter {
    /// Longest extra time in microseconds.
    pub max_us: u64,
    /// True: a datagram never overtakes an earlier one (it waits for it). False: it may.
    pub in_order: bool,
}

impl Jitter {
    /// Extra time of the next datagram in microseconds.
    pub fn draw(self, rng: &mut Rng) -> u64 {
        rng.range(0..=self.max_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_spreads_evenly_up_to_its_maximum() {
        let mut rng = Rng::new(1);
        let j = Jitter { max_us: 10_000, in_order: true };
        let all: Vec<u64> = (0..20_000).map(|_| j.draw(&mut rng)).collect();
        assert!(all.iter().all(|&x| x <= 10_000));
        let mean = all.iter().sum::<u64>() / 20_000;
        assert!((4_900..5_100).contains(&mean), "{mean}");
    }
}

//! Connection IDs of three bytes, for engines that only begin connections.
//!
//! Three random bytes would repeat: among some 5,000 of them two are alike more often than not. So they are not drawn but are
//! the values of a secret permutation of all numbers of 24 bits, in its order: the n-th connection ID is what a Feistel
//! network with a key of its own makes of n. None is issued twice before all have been, and without the key they look drawn,
//! so that a stranger cannot tell which of them belong together, nor which comes next. When all 16,777,216 were used they
//! come again; the engine passes over those that still lead to a connection.

use core::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::{CidGenerator, SHORT_CID_LEN};
use crate::crypto::{KeyFactory, Random};
use crate::ids::Cid;

/// Rounds of the network. Four make a permutation that few look at as good as a random one; who sees thousands of
/// connection IDs needs more.
const ROUNDS: u8 = 10;

/// Connection IDs of [`SHORT_CID_LEN`] bytes, none twice before 2<sup>24</sup> others.
///
/// Each datagram to their owner is five bytes shorter than with eight. They are for engines that only begin connections
/// (RFC 9000 section 5.1): such an engine never sends stateless resets, of which strangers could collect those of so few
/// connection IDs. Each value has a key of its own, drawn with the first connection ID.
#[derive(Default)]
pub struct ShortCids {
    key: Option<[u64; 2]>,
    /// The number of the next one.
    next: u32,
}

impl CidGenerator for ShortCids {
    fn cid_len(&self) -> usize {
        SHORT_CID_LEN
    }

    fn generate(&mut self, _: &dyn KeyFactory, random: &mut dyn Random) -> Cid {
        let key = *self.key.get_or_insert_with(|| {
            let mut bytes = [[0; 8]; 2];
            bytes.iter_mut().for_each(|half| random.fill(half));
            bytes.map(u64::from_be_bytes)
        });
        let number = self.next;
        self.next = number.wrapping_add(1);
        //= rfc9000#5.1-1
        //= rfc9000#10.3.2-3
        let [_, bytes @ ..] = permuted(key, number).to_be_bytes();
        Cid::new(&bytes).unwrap_or(Cid::EMPTY)
    }
}

/// Where the permutation of that key takes a number of 24 bits.
fn permuted(key: [u64; 2], number: u32) -> u32 {
    let (mut left, mut right) = (number >> 12 & 0xfff, number & 0xfff);
    for round in 0..ROUNDS {
        let [low, high, ..] = right.to_le_bytes();
        let mut hasher = SipHasher13::new_with_keys(key[0], key[1]);
        hasher.write(&[round, low, high]);
        let [.., y, z] = hasher.finish().to_be_bytes();
        (left, right) = (right, left ^ (u32::from(y) << 8 | u32::from(z)) & 0xfff);
    }
    left << 12 | right
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::protect::null::{NullKeys, NullRandom};

    fn numbers(seed: u64, count: usize) -> Vec<u32> {
        let (mut cids, mut random) = (ShortCids::default(), NullRandom::new(seed));
        let next = || {
            let cid = cids.generate(&NullKeys, &mut random);
            cid.as_slice().iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
        };
        core::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn no_connection_id_of_three_bytes_is_issued_twice() {
        //= rfc9000#5.1-1 type=test
        //= rfc9000#10.3.2-3 type=test
        // Of so many that are drawn some 1,200 would be issued again.
        let all = numbers(1, 200_000);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert!(all.iter().all(|number| *number < 1 << 24));
    }

    #[test]
    fn they_look_drawn_and_depend_on_a_secret() {
        let (one, other) = (numbers(1, 20_000), numbers(2, 20_000));
        assert_ne!(one[..4], other[..4]);
        for all in [&one, &other] {
            // Half of the bits differ from one to the next, and each bit is set half of the time.
            let flips: u32 = all.windows(2).map(|pair| (pair[0] ^ pair[1]).count_ones()).sum();
            let mean = f64::from(flips) / (all.len() - 1) as f64;
            assert!((11.9..12.1).contains(&mean), "{mean}");
            for bit in 0..24 {
                let set = all.iter().filter(|n| *n >> bit & 1 == 1).count();
                assert!((9_600..10_400).contains(&set), "bit {bit}: {set}");
            }
        }
        // Differences between neighbours are as various as those of drawn numbers.
        let steps: HashSet<u32> = one.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        assert!(steps.len() > 19_950, "{}", steps.len());
    }

    #[test]
    fn the_order_begins_again_only_when_all_are_used() {
        let (mut cids, mut random) = (ShortCids::default(), NullRandom::new(3));
        let first = cids.generate(&NullKeys, &mut random);
        cids.next = (1 << 24) - 1;
        let last = cids.generate(&NullKeys, &mut random);
        assert_ne!(last, first);
        assert_eq!(cids.generate(&NullKeys, &mut random), first);
    }
}

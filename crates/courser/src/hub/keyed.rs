//! Tables keyed by numbers that nobody else chooses: keys of the engine, and numbers of streams, of which a peer can only
//! use those next to the last ones. A multiplication spreads them; the standard hash would cost as much as the rest of an
//! event.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table with such keys.
pub(super) type Keyed<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// Spreads numbers.
#[derive(Default)]
pub(super) struct Spread(u64);

impl Spread {
    const fn mix(&mut self, word: u64) {
        // 2^64 divided by the golden ratio: neighbours land far from each other in the upper bits.
        let product = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.mix(u64::from(*b)));
    }

    fn write_u32(&mut self, word: u32) {
        self.mix(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use courser_core::ids::{ConnKey, StreamId};

    use super::*;

    #[test]
    fn neighbours_get_different_places_and_tags() {
        let build = BuildHasherDefault::<Spread>::default();
        let streams: Vec<u64> = (0..1024).map(|n| build.hash_one(StreamId(n * 4))).collect();
        let conns: Vec<u64> = (0..1024).map(|index| build.hash_one(ConnKey { index, generation: 3 })).collect();
        for hashes in [streams, conns] {
            // The table takes its place from the lower bits and a tag from the upper seven.
            let places: HashSet<u64> = hashes.iter().map(|h| h % 2048).collect();
            let tags: HashSet<u64> = hashes.iter().map(|h| h >> 57).collect();
            assert!(places.len() > 600, "{} places", places.len());
            assert!(tags.len() > 120, "{} tags", tags.len());
        }
    }
}

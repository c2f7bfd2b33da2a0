//! Bytes that can be checked without being kept: every byte is a function of a key and its offset.
//!
//! The stream is cut into 64-bit words; word `i` is `mix(key + i × ODD)`, little-endian. Neighbouring words share
//! nothing, so that a byte that is changed, moved, repeated or taken from another stream does not go unnoticed, and any
//! position can be made or checked alone. One multiplication per eight bytes keeps both directions near memory speed.
//!
//! Invariant: [`Pattern::fill`] and [`Pattern::check`] agree for every split of the stream into pieces.

use bytes::{Bytes, BytesMut};

/// Bytes per word.
const WORD: usize = 8;
/// Words that are compared between two looks at the outcome.
const BLOCK_WORDS: usize = 64;
/// Odd increment between the inputs of neighbouring words (2^64 divided by the golden ratio).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// Multiplier of the finishing step; odd, with well-spread bits.
const SPREAD: u64 = 0xbf58_476d_1ce4_e5b9;

/// Which way a stream's bytes travel; the two directions of a stream carry different patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// An endless sequence of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Input of word 0; well mixed, so that the patterns of two streams never overlap for long.
    key: u64,
}

/// The first byte that is not what it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Position in the stream.
    pub offset: u64,
    /// What the pattern has there.
    pub expected: u8,
    /// What came.
    pub found: u8,
}

impl Pattern {
    /// The pattern of one direction of the `stream`-th stream.
    #[must_use]
    pub fn of(stream: u64, way: Way) -> Self {
        let seed = stream.wrapping_mul(2).wrapping_add(matches!(way, Way::Down) as u64);
        let once = mix(seed.wrapping_add(0x636f_7572_7365_7221));
        Self { key: mix(once ^ STEP) }
    }

    /// Writes the bytes from `offset` on into `out`.
    pub fn fill(&self, offset: u64, out: &mut [u8]) {
        let lead = self.lead(offset, out.len());
        let (head, body) = out.split_at_mut(lead);
        for (at, byte) in (offset..).zip(head) {
            *byte = self.byte(at);
        }
        let mut input = self.input((offset + lead as u64) / WORD as u64);
        let (words, tail) = body.as_chunks_mut::<WORD>();
        for word in words {
            *word = mix(input).to_le_bytes();
            input = input.wrapping_add(STEP);
        }
        let last = mix(input).to_le_bytes();
        tail.copy_from_slice(&last[..tail.len()]);
    }

    /// The bytes from `offset` on, `len` of them, in a buffer of their own.
    #[must_use]
    pub fn bytes(&self, offset: u64, len: usize) -> Bytes {
        let mut buf = BytesMut::zeroed(len);
        self.fill(offset, &mut buf);
        buf.freeze()
    }

    /// Compares `data`, which stands at `offset`.
    ///
    /// # Errors
    /// The first byte that differs.
    pub fn check(&self, offset: u64, data: &[u8]) -> Result<(), Mismatch> {
        let lead = self.lead(offset, data.len());
        let (head, body) = data.split_at(lead);
        self.check_bytes(offset, head)?;
        let mut at = offset + lead as u64;
        for block in body.chunks(BLOCK_WORDS * WORD) {
            let (words, tail) = block.as_chunks::<WORD>();
            let mut input = self.input(at / WORD as u64);
            let mut wrong = 0;
            for word in words {
                wrong |= mix(input) ^ u64::from_le_bytes(*word);
                input = input.wrapping_add(STEP);
            }
            let rest = mix(input).to_le_bytes();
            if wrong != 0 || tail != &rest[..tail.len()] {
                self.check_bytes(at, block)?;
            }
            at += block.len() as u64;
        }
        Ok(())
    }

    /// The slow form: finds the very byte.
    fn check_bytes(&self, offset: u64, data: &[u8]) -> Result<(), Mismatch> {
        for (at, found) in (offset..).zip(data) {
            let expected = self.byte(at);
            if expected != *found {
                return Err(Mismatch { offset: at, expected, found: *found });
            }
        }
        Ok(())
    }

    /// Bytes before the next word boundary, at most `len`.
    fn lead(&self, offset: u64, len: usize) -> usize {
        let into = (offset % WORD as u64) as usize;
        if into == 0 { 0 } else { (WORD - into).min(len) }
    }

    /// What word `index` is made from.
    fn input(&self, index: u64) -> u64 {
        self.key.wrapping_add(index.wrapping_mul(STEP))
    }

    /// One byte.
    fn byte(&self, at: u64) -> u8 {
        let word = mix(self.input(at / WORD as u64)).to_le_bytes();
        word[(at % WORD as u64) as usize]
    }
}

/// Spreads every input bit over the word.
const fn mix(mut x: u64) -> u64 {
    x ^= x >> 31;
    x = x.wrapping_mul(SPREAD);
    x ^ (x >> 29)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_flipped_bit_is_found_with_its_offset() {
        let p = Pattern::of(3, Way::Up);
        for len in [1usize, 7, 8, 9, 511, 512, 513, 1500] {
            for start in [0u64, 1, 5, 4096, (1 << 40) + 3] {
                let mut data = vec![0; len];
                p.fill(start, &mut data);
                assert_eq!(p.check(start, &data), Ok(()));
                for at in [0, len / 2, len - 1] {
                    data[at] ^= 0x10;
                    let e = p.check(start, &data).unwrap_err();
                    assert_eq!(e.offset, start + at as u64);
                    assert_eq!(e.expected ^ e.found, 0x10);
                    data[at] ^= 0x10;
                }
            }
        }
    }

    #[test]
    fn two_wrong_words_that_cancel_are_still_found() {
        let p = Pattern::of(0, Way::Down);
        let mut data = vec![0; 64];
        p.fill(0, &mut data);
        data[0] ^= 0xff;
        data[8] ^= 0xff;
        assert_eq!(p.check(0, &data).unwrap_err().offset, 0);
    }

    #[test]
    fn streams_and_directions_have_patterns_of_their_own() {
        let mut seen = std::collections::HashSet::new();
        for stream in 0..1000 {
            for way in [Way::Up, Way::Down] {
                assert!(seen.insert(Pattern::of(stream, way).bytes(0, 16)));
            }
        }
    }

    #[test]
    fn a_shift_by_any_small_distance_is_found() {
        let p = Pattern::of(1, Way::Up);
        let data = p.bytes(0, 4096);
        for shift in (1..600).chain([1024, 2048]) {
            assert!(p.check(0, &data[shift..shift + 512]).is_err(), "shift {shift}");
        }
    }

    #[test]
    fn the_bytes_never_change_between_versions() {
        // Two releases of the command have to understand each other's `--verify`.
        assert_eq!(Pattern::of(0, Way::Up).bytes(0, 8).as_ref(), EXPECTED_UP_0);
        assert_eq!(Pattern::of(4, Way::Down).bytes(8, 8).as_ref(), EXPECTED_DOWN_4);
    }

    const EXPECTED_UP_0: &[u8] = &[97, 101, 60, 52, 5, 11, 188, 22];
    const EXPECTED_DOWN_4: &[u8] = &[164, 219, 116, 121, 120, 224, 161, 185];

    proptest! {
        #[test]
        fn pieces_join_to_the_same_stream(start in 0u64..1 << 50, cuts in prop::collection::vec(0usize..300, 1..8)) {
            let p = Pattern::of(start, Way::Up);
            let total: usize = cuts.iter().sum();
            let whole = p.bytes(start, total);
            let mut at = 0;
            for n in cuts {
                let piece = p.bytes(start + at as u64, n);
                prop_assert_eq!(&whole[at..at + n], piece.as_ref());
                prop_assert_eq!(p.check(start + at as u64, &whole[at..at + n]), Ok(()));
                at += n;
            }
        }
    }
}

//! Packet numbers on the wire (RFC 9000 section 17.1 and appendices A.2 and A.3).
//!
//! Only the low bytes travel; the receiver takes the full number that is nearest to the one it expects.

use crate::ids::{PacketNumber, VARINT_MAX};
use crate::wire::codec::Writer;

/// The longest packet number on the wire, in bytes.
pub const LEN_MAX: usize = 4;

/// Bytes that packet number `pn` needs when `largest_acked` is the largest number of its space that the peer has
/// acknowledged; 1 to 4.
#[must_use]
pub fn length(pn: PacketNumber, largest_acked: Option<PacketNumber>) -> usize {
    //= rfc9000#17.1-1, rfc9000#17.1-2
    let range = match largest_acked {
        Some(acked) => pn.saturating_sub(acked),
        None => pn.saturating_add(1),
    };
    // More than twice the range has to be representable.
    match range {
        0..=0x7f => 1,
        0x80..=0x7fff => 2,
        0x8000..=0x7f_ffff => 3,
        _ => 4,
    }
}

/// The low `len` bytes of a packet number.
#[must_use]
pub fn truncate(pn: PacketNumber, len: usize) -> u32 {
    debug_assert!((1..=LEN_MAX).contains(&len), "a packet number has 1 to 4 bytes");
    let bits = 8 * len.clamp(1, LEN_MAX);
    u32::try_from(pn & ((1 << bits) - 1)).unwrap_or(u32::MAX)
}

/// Writes the low `len` bytes of a packet number; `None`, and nothing written, when there is no room or `len` is not 1
/// to 4.
pub fn encode(w: &mut Writer<'_>, pn: PacketNumber, len: usize) -> Option<()> {
    if len == 0 {
        return None;
    }
    w.bytes(pn.to_be_bytes().last_chunk::<LEN_MAX>()?.get(LEN_MAX.checked_sub(len)?..)?)
}

/// The full packet number of the `len` bytes that came, given that `expected` is the largest number received so far in
/// that space plus one.
#[must_use]
pub fn expand(truncated: u32, len: usize, expected: PacketNumber) -> PacketNumber {
    debug_assert!((1..=LEN_MAX).contains(&len), "a packet number has 1 to 4 bytes");
    let window: u64 = 1 << (8 * len.clamp(1, LEN_MAX));
    let half = window / 2;
    let expected = expected.min(VARINT_MAX);
    let candidate = (expected & !(window - 1)) | (u64::from(truncated) & (window - 1));
    if candidate.saturating_add(half) <= expected && candidate < (1 << 62) - window {
        candidate + window
    } else if candidate > expected.saturating_add(half) && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::testing::rows;

    const VECTORS: &str = include_str!("../../testdata/vectors/rfc9000-a2-a3-packet-number.tsv");

    #[test]
    fn the_vectors_of_the_rfc_hold() {
        let number = |s: &str| u64::from_str_radix(s, 16).unwrap();
        let mut seen = 0;
        for row in rows(VECTORS).skip_while(|r| r[0] == "op") {
            let (a, b) = (number(row[1]), number(row[2]));
            let size: usize = row[3].parse().unwrap();
            let result = number(row[4]);
            if row[0] == "encode" {
                assert_eq!(length(a, Some(b)), size, "{row:?}");
                assert_eq!(u64::from(truncate(a, size)), result & ((1 << (8 * size)) - 1), "{row:?}");
            } else {
                assert_eq!(expand(u32::try_from(b).unwrap(), size / 8, a + 1), result, "{row:?}");
            }
            seen += 1;
        }
        assert_eq!(seen, 3);
    }

    #[test]
    fn the_whole_number_travels_before_the_first_acknowledgement() {
        //= rfc9000#17.1-1 type=test
        for pn in [0, 1, 126, 127, 128, 255, 256, 0x7ffe, 0x7fff, 0xffff, 0x7f_ffff, 0xff_ffff, 0x7fff_ffff] {
            let len = length(pn, None);
            assert_eq!(u64::from(truncate(pn, len)), pn, "{pn:#x}");
        }
    }

    #[test]
    fn more_than_twice_the_range_is_representable() {
        //= rfc9000#17.1-2 type=test
        for range in [1u64, 127, 128, 32_767, 32_768, 0x7f_ffff, 0x80_0000, 0x7fff_ffff] {
            let len = length(1 << 40 | range, Some(1 << 40));
            assert!(1u64 << (8 * len) > 2 * range, "{range} in {len}");
        }
    }

    #[test]
    fn wrong_lengths_write_nothing() {
        let mut buf = [9; 8];
        let mut w = Writer::new(&mut buf);
        assert_eq!((encode(&mut w, 1, 0), encode(&mut w, 1, 5), w.len()), (None, None, 0));
        assert_eq!(encode(&mut w, 0x0102_0304_0506, 3), Some(()));
        assert_eq!(w.written(), [4, 5, 6]);
        let mut none = Writer::new(&mut buf[..2]);
        assert_eq!((encode(&mut none, 1, 3), none.len()), (None, 0));
    }

    #[test]
    fn numbers_at_both_ends_of_the_space_expand() {
        assert_eq!(expand(0xff, 1, 0), 0xff);
        assert_eq!(expand(0, 1, 0), 0);
        assert_eq!(expand(0xffff_ffff, 4, VARINT_MAX), VARINT_MAX);
        assert_eq!(expand(0, 1, VARINT_MAX), VARINT_MAX - 0xff);
        assert_eq!(expand(0, 4, u64::MAX), (1 << 62) - (1 << 32));
    }

    proptest! {
        #[test]
        fn the_receiver_finds_the_sent_number(
            acked in 0..VARINT_MAX - (1 << 31), ahead in 1u64..1 << 31, shift in 0..31u32, seen in any::<u64>()
        ) {
            let ahead = (ahead >> shift).max(1);
            let pn = acked + ahead;
            let len = length(pn, Some(acked));
            // Anything from the acknowledged number to just before the sent one may be the largest received.
            let largest = acked + seen % ahead;
            prop_assert_eq!(expand(truncate(pn, len), len, largest + 1), pn);
        }

        #[test]
        fn the_expanded_number_is_the_nearest(expected in 0..=VARINT_MAX, truncated: u32, len in 1usize..=4) {
            let window = 1u64 << (8 * len);
            let low = u64::from(truncated) & (window - 1);
            let found = expand(truncated, len, expected);
            prop_assert!(found <= VARINT_MAX);
            prop_assert_eq!(found & (window - 1), low);
            let above = found.checked_add(window).filter(|n| *n <= VARINT_MAX);
            for other in found.checked_sub(window).into_iter().chain(above) {
                prop_assert!(other.abs_diff(expected) >= found.abs_diff(expected));
            }
        }
    }
}

//! Variable-length integers (RFC 9000 section 16).
//!
//! The two highest bits of the first byte tell the length: 1, 2, 4 or 8 bytes. The encoder always takes the shortest
//! form; the decoder takes every form, because only frame types have to be short.

use crate::ids::VARINT_MAX;
use crate::wire::codec::{Reader, Writer, wide};

/// The longest encoding in bytes.
pub const SIZE_MAX: usize = 8;

/// Bytes of the shortest encoding. A value beyond 2^62 - 1 has none; the answer is 8 then and encoding it fails.
#[must_use]
#[inline]
pub const fn size(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Writes the shortest encoding to the front of `out` and returns its length; `None`, and nothing written, when there
/// is no room or no encoding.
pub fn encode(value: u64, out: &mut [u8]) -> Option<usize> {
    let mut w = Writer::new(out);
    w.varint(value)?;
    Some(w.len())
}

/// The value at the front of `bytes` and the length of its encoding; `None` when bytes are missing.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut r = Reader::new(bytes);
    let value = r.varint()?;
    Some((value, r.position()))
}

/// The largest number of bytes that fits into `room` behind a length field of its own; `None` when not even the length
/// field of nothing fits.
///
/// At a boundary between two sizes of the length field a byte can stay free: no number of bytes fills it.
#[must_use]
pub fn fit_behind_length(room: usize) -> Option<usize> {
    let whole = room.checked_sub(1)?;
    let prefix = size(wide(whole));
    let fits = room.saturating_sub(prefix);
    // With the longer prefix the rest can fall below the boundary, where the shorter prefix, of half the size, holds more.
    let boundary = match prefix {
        4 => 0x3fff,
        8 => 0x3fff_ffff,
        _ => 0,
    };
    let below = boundary.min(room.saturating_sub(prefix / 2));
    Some(fits.max(below).min(usize::try_from(VARINT_MAX).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::testing::{hex, rows};

    const VECTORS: &str = include_str!("../../testdata/vectors/rfc9000-a1-varint.tsv");

    #[test]
    fn the_vectors_of_the_rfc_hold() {
        let mut seen = 0;
        for row in rows(VECTORS) {
            let (bytes, value): (Vec<u8>, u64) = (hex(row[0]), row[1].parse().unwrap());
            assert_eq!(decode(&bytes), Some((value, bytes.len())), "{row:?}");
            if row[2] == "1" {
                let mut out = [0; 8];
                assert_eq!(encode(value, &mut out), Some(bytes.len()));
                assert_eq!(&out[..bytes.len()], &bytes[..]);
                assert_eq!(size(value), bytes.len());
            }
            seen += 1;
        }
        assert!(seen >= 13);
    }

    #[test]
    fn a_truncated_integer_is_none() {
        for bytes in [&[][..], &[0x40], &[0x80, 0, 0], &[0xc0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_value_beyond_62_bits_is_not_encoded() {
        let mut out = [7; 8];
        assert_eq!(encode(VARINT_MAX + 1, &mut out), None);
        assert_eq!(out, [7; 8]);
        assert_eq!(encode(VARINT_MAX, &mut out), Some(8));
    }

    #[test]
    fn the_fit_is_the_largest_that_fits() {
        let naive = |room: usize| (0..=room).rev().find(|n| n + size(wide(*n)) <= room);
        for room in (0..200).chain(16_300..16_500) {
            assert_eq!(fit_behind_length(room), naive(room), "room {room}");
        }
    }

    #[test]
    fn a_byte_more_than_the_fit_does_not_fit_at_any_size_of_the_length_field() {
        for boundary in [1 << 6, 1 << 14, 1 << 30] {
            for room in boundary - 9..boundary + 20 {
                let n = fit_behind_length(room).unwrap();
                let whole = |n: usize| n + size(wide(n));
                assert!(whole(n) <= room && whole(n + 1) > room, "{n} in {room}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(value in 0..=VARINT_MAX, shift in 0..62u32) {
            let value = value >> shift;
            let mut out = [0; 8];
            let n = encode(value, &mut out).unwrap();
            prop_assert_eq!(n, size(value));
            prop_assert_eq!(decode(&out), Some((value, n)));
            prop_assert_eq!(decode(&out[..n - 1]), None);
            prop_assert_eq!(encode(value, &mut out[..n - 1]), None);
        }
    }
}

//! Integers that begin in the middle of a byte (RFC 7541 section 5.1, RFC 9204 section 4.1.1), and the cursor that reads
//! whatever is made of them.
//!
//! What does not fit into the prefix follows in groups of seven bits, lowest first. A value is at most 2^62 - 1, and its
//! encoding at most nine groups long: longer ones would be zeros that nobody has a reason to send.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use courser_core::ids::VARINT_MAX;

use super::text::Text;

/// The longest encoding in bytes.
#[cfg(test)]
pub(super) const SIZE_MAX: usize = 10;

/// Why something cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The bytes end before it does.
    Short,
    /// It is nothing that an encoder makes, or larger than the limit; says what.
    Broken(&'static str),
}

/// Appends `value` behind the high bits of `pattern`, with a prefix of `bits` bits.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, pattern: u8, bits: u32, value: u64) {
    debug_assert!((1..=8).contains(&bits) && value <= VARINT_MAX);
    let mask = u8::MAX >> (8 - bits);
    debug_assert_eq!(pattern & mask, 0, "the prefix is free for the value");
    match u8::try_from(value) {
        Ok(small) if small < mask => out.push(pattern | small),
        _ => {
            out.push(pattern | mask);
            put_groups(out, value - u64::from(mask));
        }
    }
}

fn put_groups(out: &mut Vec<u8>, mut rest: u64) {
    while rest >= 0x80 {
        let [low, ..] = rest.to_le_bytes();
        out.push(low | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

/// Reads from the front of a slice. After a fault nothing more is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Reads `bytes` from their beginning.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The byte in which the next integer or string begins; `None` at the end.
    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// An integer with a prefix of `bits` bits.
    //= rfc9204#4.1.1-1, rfc9204#7.4-2
    #[inline(always)]
    pub(super) fn int(&mut self, bits: u32) -> Result<u64, Fault> {
        let (&first, rest) = self.rest.split_first().ok_or(Fault::Short)?;
        let mask = u8::MAX >> (8 - bits);
        self.rest = rest;
        let prefix = first & mask;
        if prefix < mask { Ok(u64::from(prefix)) } else { self.groups(u64::from(mask)) }
    }

    fn groups(&mut self, mut value: u64) -> Result<u64, Fault> {
        // Nine groups hold 63 bits; with the prefix the sum stays below 2^64.
        for shift in (0..63).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(Fault::Short)?;
            self.rest = rest;
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if value <= VARINT_MAX {
                    Ok(value)
                } else {
                    Err(Fault::Broken("an integer of more than 62 bits"))
                };
            }
        }
        Err(Fault::Broken("an integer without an end"))
    }

    /// A string whose length has a prefix of `bits` bits, below the bit that tells whether it is Huffman coded.
    /// Refuses one that has more than `limit` bytes when decoded as soon as that is certain.
    #[inline]
    pub(super) fn text(&mut self, bits: u32, limit: usize) -> Result<Text<'a>, Fault> {
        let huffman = self.peek().ok_or(Fault::Short)? & (1 << bits) != 0;
        let length = usize::try_from(self.int(bits)?).map_err(|_| Fault::Broken("a string that no memory holds"))?;
        // No symbol is longer than thirty bits, so that fifteen bytes hold at least four.
        let least = if huffman { length / 15 * 4 } else { length };
        if least > limit {
            return Err(Fault::Broken("a string that is longer than the limit"));
        }
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Fault::Short)?;
        self.rest = rest;
        Ok(Text { huffman, bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_rfc_7541_hold() {
        for (value, bits, expected) in [(10, 5, &[0x0a][..]), (1337, 5, &[0x1f, 0x9a, 0x0a]), (42, 8, &[0x2a])] {
            let mut out = Vec::new();
            put(&mut out, 0, bits, value);
            assert_eq!(out, expected);
            assert_eq!(Cursor::new(&out).int(bits), Ok(value));
        }
    }

    #[test]
    //= rfc9204#4.1.1-1 type=test
    fn the_largest_value_of_62_bits_is_read_at_every_prefix() {
        for bits in 1..=8 {
            let mut out = Vec::new();
            put(&mut out, 0, bits, VARINT_MAX);
            assert!(out.len() <= SIZE_MAX);
            assert_eq!(Cursor::new(&out).int(bits), Ok(VARINT_MAX));
        }
    }

    #[test]
    fn larger_values_and_endless_encodings_are_refused() {
        // 2^62 in a five-bit prefix, then 63 and more bits, then zeros without an end.
        let mut over = Vec::new();
        over.push(0x1f);
        put_groups(&mut over, VARINT_MAX + 1 - 31);
        for bytes in [&over[..], &[0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0x1f; 1], &[0xff; 64]]
        {
            let fault = Cursor::new(bytes).int(5).unwrap_err();
            assert_eq!(fault == Fault::Short, bytes.len() == 1, "{bytes:?}");
        }
        let endless = [[0x1f].as_slice(), &[0x80; 20]].concat();
        assert_eq!(Cursor::new(&endless).int(5), Err(Fault::Broken("an integer without an end")));
    }

    #[test]
    fn zeros_that_a_peer_appends_do_no_harm() {
        assert_eq!(Cursor::new(&[0x1f, 0x81, 0x80, 0x00]).int(5), Ok(32));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_every_part_of_it_is_short(
            value in (0..=62_u32).prop_flat_map(|bits| 0..=(1_u64 << bits) - 1), bits in 1..=8_u32,
        ) {
            let pattern = if bits == 8 { 0 } else { 0xff << bits };
            let mut out = Vec::new();
            put(&mut out, pattern, bits, value);
            out.push(0xaa);
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.int(bits), Ok(value));
            prop_assert_eq!(cursor.rest(), &[0xaa]);
            for end in 0..out.len() - 1 {
                prop_assert_eq!(Cursor::new(&out[..end]).int(bits), Err(Fault::Short));
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..24), bits in 1..=7_u32) {
            let _ = Cursor::new(&bytes).int(bits);
            let _ = Cursor::new(&bytes).text(bits, 100);
        }
    }
}

//! String literals (RFC 7541 section 5.2, RFC 9204 section 4.1.2): a bit that tells whether the string is Huffman coded, its
//! length, its bytes.

use super::huffman;
use super::prefix_int::{Fault, put};

/// A string as it lies in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text<'a> {
    /// Whether `bytes` are Huffman coded.
    pub(super) huffman: bool,
    /// The encoded bytes.
    pub(super) bytes: &'a [u8],
}

impl Text<'_> {
    /// Appends what the string says.
    pub(super) fn append(self, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.huffman {
            huffman::decode(self.bytes, out)
        } else {
            out.extend_from_slice(self.bytes);
            Ok(())
        }
    }
}

/// Appends `bytes` behind the high bits of `pattern`, in the shorter of both forms; the length has a prefix of `bits` bits.
pub(super) fn put_text(out: &mut Vec<u8>, pattern: u8, bits: u32, bytes: &[u8]) {
    let coded = huffman::size(bytes);
    if coded < bytes.len() {
        put(out, pattern | 1 << bits, bits, length(coded));
        huffman::encode(bytes, out);
    } else {
        put(out, pattern, bits, length(bytes.len()));
        out.extend_from_slice(bytes);
    }
}

/// A length as an integer of the wire.
pub(super) fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::prefix_int::Cursor;
    use super::*;

    #[test]
    fn the_shorter_form_is_taken() {
        let mut out = Vec::new();
        put_text(&mut out, 0x40, 5, b"custom-key");
        assert_eq!(out[0], 0x40 | 1 << 5 | 8, "eight bytes instead of ten");
        out.clear();
        put_text(&mut out, 0, 7, b"\x01\x02");
        assert_eq!(out, [2, 1, 2], "codes of 23 and 28 bits would be longer");
    }

    #[test]
    fn a_string_over_the_limit_is_refused_before_its_bytes_came() {
        assert!(matches!(Cursor::new(&[0x7f, 0x80, 0x08]).text(7, 1000), Err(Fault::Broken(_))));
        assert_eq!(Cursor::new(&[0x7f, 0x80, 0x07]).text(7, 1100), Err(Fault::Short));
        // Huffman coded: 1151 bytes may be 306 symbols of thirty bits, not fewer.
        assert!(matches!(Cursor::new(&[0xff, 0x80, 0x08]).text(7, 300), Err(Fault::Broken(_))));
        assert_eq!(Cursor::new(&[0xff, 0x80, 0x08]).text(7, 307), Err(Fault::Short));
    }

    proptest! {
        #[test]
        fn strings_come_back(bytes in prop::collection::vec(any::<u8>(), 0..300), bits in 3..=7_u32) {
            let mut out = Vec::new();
            put_text(&mut out, 0, bits, &bytes);
            let mut cursor = Cursor::new(&out);
            let text = cursor.text(bits, bytes.len()).unwrap();
            prop_assert!(cursor.rest().is_empty());
            let mut back = Vec::new();
            text.append(&mut back).unwrap();
            prop_assert_eq!(back, bytes);
        }
    }
}

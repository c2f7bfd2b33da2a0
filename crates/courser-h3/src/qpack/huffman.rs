//! The Huffman code of RFC 7541 appendix B.
//!
//! The code is canonical: within a length, codes count up with the symbols, and each length goes on where the one before
//! ended. So the lengths say everything, and all tables are made of them at compile time. Decoding takes eleven bits a
//! step, which are one or two symbols of a usual field; of the longer codes the length is searched first.

use super::prefix_int::Fault;

/// Bits of each symbol's code; the last one is the end of the string, which never occurs in one.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28,
    28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6,
    12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15,
    5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20,
    22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22,
    23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26,
    27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// Bits that one step of the decoder looks at: enough for most pairs of usual symbols.
const STEP: u32 = 11;
const LONGEST: usize = 30;
const END_OF_STRING: u16 = 256;

/// All symbols by length of their code, then by value: in the order of their codes.
const SYMBOLS: [u16; 257] = symbols();
/// Where in [`SYMBOLS`] each length begins.
const STARTS: [u32; LONGEST + 2] = starts();
/// The first code of each length.
const FIRST: [u32; LONGEST + 2] = first_codes();
/// Code and length of each symbol.
static CODES: [(u32, u8); 256] = codes();
/// What the next [`STEP`] bits say.
static STEPS: [Step; 1 << STEP] = steps();

/// One or two symbols at the front of some bits.
#[derive(Clone, Copy)]
struct Step {
    symbols: [u8; 2],
    /// How many there are; none where the code is longer than a step.
    count: u8,
    /// The bits of all of them.
    bits: u8,
}

const fn symbols() -> [u16; 257] {
    let mut out = [0; 257];
    let mut filled = 0;
    let mut length = 1;
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == length {
                out[filled] = symbol as u16;
                filled += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    assert!(filled == 257);
    out
}

const fn starts() -> [u32; LONGEST + 2] {
    let mut out = [0; LONGEST + 2];
    let mut symbol = 0;
    while symbol < 257 {
        let mut longer = LENGTHS[symbol] as usize + 1;
        while longer < out.len() {
            out[longer] += 1;
            longer += 1;
        }
        symbol += 1;
    }
    out
}

const fn first_codes() -> [u32; LONGEST + 2] {
    let mut out = [0; LONGEST + 2];
    let mut length = 1;
    while length <= LONGEST {
        out[length + 1] = (out[length] + (STARTS[length + 1] - STARTS[length])) << 1;
        length += 1;
    }
    // The code is complete: the longest one ends with all ones.
    assert!(out[LONGEST + 1] == 1 << (LONGEST + 1));
    out
}

const fn codes() -> [(u32, u8); 256] {
    let mut out = [(0, 0); 256];
    let mut at = 0;
    while at < 257 {
        let symbol = SYMBOLS[at];
        if symbol != END_OF_STRING {
            let length = LENGTHS[symbol as usize];
            let code = FIRST[length as usize] + (at as u32 - STARTS[length as usize]);
            out[symbol as usize] = (code, length);
        }
        at += 1;
    }
    out
}

/// The symbol at the front of a step's bits and the length of its code; length zero where it is longer than `room`.
const fn front(bits: u32, room: u32) -> (u8, u32) {
    let mut length = 5;
    while length <= room {
        let code = bits >> (STEP - length);
        let (first, start, next) = (FIRST[length as usize], STARTS[length as usize], STARTS[length as usize + 1]);
        if code >= first && code - first < next - start {
            return (SYMBOLS[(start + code - first) as usize] as u8, length);
        }
        length += 1;
    }
    (0, 0)
}

const fn steps() -> [Step; 1 << STEP] {
    let mut out = [Step { symbols: [0; 2], count: 0, bits: 0 }; 1 << STEP];
    let mut bits = 0;
    while bits < 1 << STEP {
        let (first, length) = front(bits, STEP);
        if length > 0 {
            let (second, more) = front(bits << length & ((1 << STEP) - 1), STEP - length);
            let count = if more > 0 { 2 } else { 1 };
            out[bits as usize] = Step { symbols: [first, second], count, bits: (length + more) as u8 };
        }
        bits += 1;
    }
    out
}

/// Bytes of the encoded string.
pub(super) fn size(bytes: &[u8]) -> usize {
    let bits: usize = bytes.iter().map(|&byte| usize::from(CODES[usize::from(byte)].1)).sum();
    bits.div_ceil(8)
}

/// Appends the encoded string, filled up with ones.
pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    // The low `held` bits are not written yet; fewer than 32 after each round.
    let (mut bits, mut held) = (0_u64, 0_u32);
    for &byte in bytes {
        let (code, length) = CODES[usize::from(byte)];
        bits = bits << length | u64::from(code);
        held += u32::from(length);
        if held >= 32 {
            out.extend_from_slice(&(bits << (64 - held)).to_be_bytes()[..4]);
            held -= 32;
        }
    }
    if held > 0 {
        let filled = bits << (64 - held) | u64::MAX >> held;
        let whole = if held > 24 {
            4
        } else if held > 16 {
            3
        } else if held > 8 {
            2
        } else {
            1
        };
        out.extend_from_slice(&filled.to_be_bytes()[..whole]);
    }
}

/// Bits that were read and not yet used, from the highest one down.
struct Bits<'a> {
    window: u64,
    count: u32,
    rest: &'a [u8],
}

impl Bits<'_> {
    /// Fills the window up to at least 56 bits, or with all that is left.
    fn refill(&mut self) {
        if let Some(eight) = self.rest.first_chunk::<8>() {
            self.window |= u64::from_be_bytes(*eight) >> self.count;
            let taken = (63 - self.count) / 8;
            self.rest = &self.rest[index(taken)..];
            self.count += taken * 8;
            return;
        }
        while self.count <= 56
            && let Some((&byte, rest)) = self.rest.split_first()
        {
            self.window |= u64::from(byte) << (56 - self.count);
            self.count += 8;
            self.rest = rest;
        }
    }

    fn step(&self) -> Step {
        STEPS[index(u32::try_from(self.window >> (64 - STEP)).unwrap_or(0))]
    }

    fn take(&mut self, length: u32) {
        self.window <<= length;
        self.count -= length;
    }

    /// Whether what is left is the beginning of the end of the string and shorter than a byte. No symbol looks like that.
    fn is_padding(&self) -> bool {
        self.count < 8 && self.window >> 56 == (0xff00 >> self.count) & 0xff
    }

    /// The next symbol and the length of its code, one length after the other.
    fn single(&self) -> (u16, u32) {
        let bits = u32::try_from(self.window >> 32).unwrap_or(u32::MAX);
        for length in 5..=30 {
            let code = bits >> (32 - length);
            let (first, start, next) = (FIRST[index(length)], STARTS[index(length)], STARTS[index(length) + 1]);
            if code.checked_sub(first).is_some_and(|past| past < next - start) {
                return (SYMBOLS[index(start + code - first)], length);
            }
        }
        (END_OF_STRING, 30)
    }
}

fn index(bits: u32) -> usize {
    usize::try_from(bits).unwrap_or(usize::MAX)
}

/// Appends the decoded string, which has at most 8/5 of the bytes of `input`.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let start = out.len();
    // A step writes two symbols and may mean one.
    out.resize(start + input.len() * 8 / 5 + 2, 0);
    let (whole, filled) = decode_into(input, &mut out[start..]);
    out.truncate(start + filled);
    whole
}

/// Says how many symbols were written.
fn decode_into(input: &[u8], out: &mut [u8]) -> (Result<(), Fault>, usize) {
    let mut bits = Bits { window: 0, count: 0, rest: input };
    let mut filled = 0;
    loop {
        bits.refill();
        while bits.count >= STEP {
            let step = bits.step();
            let Some(pair) = out.get_mut(filled..filled + 2).filter(|_| step.count > 0) else { break };
            pair.copy_from_slice(&step.symbols);
            filled += usize::from(step.count);
            bits.take(u32::from(step.bits));
        }
        if bits.count < STEP && bits.rest.is_empty() && bits.is_padding() {
            return (Ok(()), filled);
        }
        // A long code, or one near the end, where it is looked at for being whole.
        bits.refill();
        let (symbol, length) = bits.single();
        if length > bits.count {
            return (Err(Fault::Broken("a Huffman string that is filled up wrongly")), filled);
        }
        let (Ok(symbol), Some(place)) = (u8::try_from(symbol), out.get_mut(filled)) else {
            return (Err(Fault::Broken("a Huffman string with its end inside")), filled);
        };
        *place = symbol;
        filled += 1;
        bits.take(length);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::rows;
    use super::*;

    const VECTORS: &str = include_str!("../../testdata/vectors/rfc7541-huffman.tsv");

    fn decoded(input: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        decode(input, &mut out).map(|()| out)
    }

    fn encoded(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(bytes, &mut out);
        out
    }

    /// One bit after the other, against the printed codes.
    fn naive(input: &[u8]) -> Option<Vec<u8>> {
        let table: Vec<(usize, u32, u8)> = rows(VECTORS)
            .map(|row| (row[0].parse().unwrap(), u32::from_str_radix(row[1], 16).unwrap(), row[2].parse().unwrap()))
            .collect();
        let (mut out, mut code, mut length) = (Vec::new(), 0_u32, 0);
        for bit in input.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1)) {
            (code, length) = (code << 1 | u32::from(bit), length + 1);
            if let Some(found) = table.iter().find(|row| row.1 == code && row.2 == length) {
                out.push(u8::try_from(found.0).ok()?);
                (code, length) = (0, 0);
            }
        }
        (length < 8 && code == (1 << length) - 1).then_some(out)
    }

    #[test]
    fn the_code_is_that_of_the_rfc() {
        let mut seen = 0;
        for row in rows(VECTORS) {
            let symbol: usize = row[0].parse().unwrap();
            let expected = (u32::from_str_radix(row[1], 16).unwrap(), row[2].parse::<u8>().unwrap());
            assert_eq!(LENGTHS[symbol], expected.1);
            if symbol < 256 {
                assert_eq!(CODES[symbol], expected, "symbol {symbol}");
            }
            seen += 1;
        }
        assert_eq!(seen, 257);
    }

    #[test]
    fn the_examples_of_the_rfc_hold() {
        assert_eq!(
            encoded(b"www.example.com"),
            [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]
        );
        assert_eq!(encoded(b"no-cache"), [0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]);
        assert!(encoded(b"").is_empty());
        assert_eq!(decoded(&[]), Ok(vec![]));
    }

    #[test]
    fn the_end_of_the_string_inside_of_it_is_refused() {
        for bytes in [&[0xff, 0xff, 0xff, 0xff][..], &[0xff, 0xff, 0xff, 0xfc], &[0x1f, 0xff, 0xff, 0xff, 0xff]] {
            assert!(decoded(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn padding_is_shorter_than_a_byte_and_all_ones() {
        assert_eq!(decoded(&[0b0001_1111]), Ok(b"a".to_vec()));
        for bytes in [&[0b0001_1110][..], &[0b0001_1000], &[0b0001_1111, 0xff], &[0xff], &[0xff, 0xff]] {
            assert!(decoded(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn every_symbol_comes_back_between_any_two_others() {
        for byte in 0..=255 {
            for around in [b'a', b'X', 0, 0xff] {
                let text = [around, byte, around, byte, byte];
                assert_eq!(decoded(&encoded(&text)).as_deref(), Ok(&text[..]));
                assert_eq!(size(&text), encoded(&text).len());
            }
        }
    }

    proptest! {
        #[test]
        fn strings_come_back(text in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(encoded(&text).len(), size(&text));
            prop_assert_eq!(decoded(&encoded(&text)), Ok(text));
        }

        #[test]
        fn whatever_bytes_come_the_answer_is_that_of_the_naive_decoder(
            mut input in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff), 0xf8..=0xff_u8], 0..24), end in any::<bool>(),
        ) {
            if end { input.push(0xff) }
            prop_assert_eq!(decoded(&input).ok(), naive(&input));
        }
    }
}

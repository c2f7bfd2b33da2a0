//! Encoder and decoder instructions (RFC 9204 sections 4.3 and 4.4): how they are written and read, and the bytes of one
//! that has come in part.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use super::prefix_int::{Cursor, Fault, put};
use super::static_table;
use super::text::{Text, put_text};

/// A name that an instruction of the encoder takes from a table, or brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name<'a> {
    /// Of an entry of the static table.
    Static(&'static [u8]),
    /// Of the entry of the dynamic table that is so many before the newest one.
    Relative(u64),
    /// Literally.
    Text(Text<'a>),
}

/// What the encoder's stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EncoderInstruction<'a> {
    /// The table may be so large from now on.
    SetCapacity(u64),
    /// A new entry.
    Insert(Name<'a>, Text<'a>),
    /// A new entry like the one that is so many before the newest one.
    Duplicate(u64),
}

impl<'a> EncoderInstruction<'a> {
    /// Reads one. Strings of more than `limit` bytes fit into no entry, and the dynamic table has `entries` entries: what
    /// cannot be meant is refused before the rest has come.
    pub(super) fn read(cursor: &mut Cursor<'a>, limit: usize, entries: u64) -> Result<Self, Fault> {
        let first = cursor.peek().ok_or(Fault::Short)?;
        Ok(match first {
            0x80.. => {
                let index = cursor.int(6)?;
                let name = if first & 0x40 != 0 {
                    //= rfc9204#3.1-2
                    let entry = static_table::get(index).ok_or(Fault::Broken("no such entry in the static table"))?;
                    Name::Static(entry.0)
                } else {
                    Name::Relative(there(index, entries)?)
                };
                Self::Insert(name, cursor.text(7, limit)?)
            }
            0x40.. => Self::Insert(Name::Text(cursor.text(5, limit)?), cursor.text(7, limit)?),
            0x20.. => Self::SetCapacity(cursor.int(5)?),
            _ => Self::Duplicate(there(cursor.int(5)?, entries)?),
        })
    }
}

/// A reference that many entries back has to end within the table.
//= rfc9204#2.2.3-2
fn there(relative: u64, entries: u64) -> Result<u64, Fault> {
    if relative < entries { Ok(relative) } else { Err(Fault::Broken("a reference to no entry")) }
}

/// Writes Set Dynamic Table Capacity.
pub(super) fn put_capacity(out: &mut Vec<u8>, capacity: u64) {
    put(out, 0x20, 5, capacity);
}

/// Writes Insert with Name Reference to the static table.
pub(super) fn put_insert_static(out: &mut Vec<u8>, name: u8, value: &[u8]) {
    put(out, 0xc0, 6, u64::from(name));
    put_text(out, 0, 7, value);
}

/// Writes Insert with Name Reference to the dynamic table.
pub(super) fn put_insert_relative(out: &mut Vec<u8>, name: u64, value: &[u8]) {
    put(out, 0x80, 6, name);
    put_text(out, 0, 7, value);
}

/// Writes Insert with Literal Name.
pub(super) fn put_insert_literal(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    put_text(out, 0x40, 5, name);
    put_text(out, 0, 7, value);
}

/// Writes Duplicate.
pub(super) fn put_duplicate(out: &mut Vec<u8>, relative: u64) {
    put(out, 0, 5, relative);
}

/// What the decoder's stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecoderInstruction {
    /// The oldest section of that stream that refers to the dynamic table was decoded.
    Acknowledge(u64),
    /// Nothing of that stream will be decoded any more.
    Cancel(u64),
    /// So many more insertions have come.
    Increment(u64),
}

impl DecoderInstruction {
    /// Reads one.
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, Fault> {
        Ok(match cursor.peek().ok_or(Fault::Short)? {
            0x80.. => Self::Acknowledge(cursor.int(7)?),
            0x40.. => Self::Cancel(cursor.int(6)?),
            _ => Self::Increment(cursor.int(6)?),
        })
    }

    /// Writes it.
    pub(super) fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Acknowledge(stream) => put(out, 0x80, 7, stream),
            Self::Cancel(stream) => put(out, 0x40, 6, stream),
            Self::Increment(inserts) => put(out, 0, 6, inserts),
        }
    }
}

/// How much of what came is put behind a part at once.
const CHUNK: usize = 128;

/// The beginning of an instruction whose end has not come. It never grows beyond one instruction and a chunk, because
/// instructions have a limit.
#[derive(Debug, Default)]
pub(super) struct Part {
    bytes: Vec<u8>,
}

impl Part {
    /// Hands what came, behind what waits, to `read`, which says how many bytes it used: whole instructions. Keeps the rest.
    pub(super) fn feed<E>(
        &mut self,
        mut input: &[u8],
        mut read: impl FnMut(&[u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        while !self.bytes.is_empty() && !input.is_empty() {
            let (chunk, after) = input.split_at(input.len().min(CHUNK));
            self.bytes.extend_from_slice(chunk);
            let used = read(&self.bytes)?;
            let rest = self.bytes.len() - used;
            if rest <= chunk.len() {
                // Everything that waited is used: what follows is read where it lies.
                self.bytes.clear();
                input = input.get(chunk.len() - rest..).unwrap_or_default();
                break;
            }
            self.bytes.drain(..used);
            input = after;
        }
        if self.bytes.is_empty() && !input.is_empty() {
            let used = read(input)?;
            self.bytes.extend_from_slice(input.get(used..).unwrap_or_default());
        }
        Ok(())
    }

    /// Bytes that wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<EncoderInstruction<'_>, Fault> {
        EncoderInstruction::read(&mut Cursor::new(bytes), 1000, 80)
    }

    #[test]
    fn encoder_instructions_are_read_as_they_are_written() {
        let text = |bytes| Text { huffman: false, bytes };
        let mut out = Vec::new();
        put_capacity(&mut out, 4096);
        assert_eq!(read(&out), Ok(EncoderInstruction::SetCapacity(4096)));
        out.clear();
        put_insert_static(&mut out, 98, b"\x00");
        assert_eq!(read(&out), Ok(EncoderInstruction::Insert(Name::Static(b"x-frame-options"), text(b"\x00"))));
        out.clear();
        put_insert_relative(&mut out, 70, b"\x01");
        assert_eq!(read(&out), Ok(EncoderInstruction::Insert(Name::Relative(70), text(b"\x01"))));
        out.clear();
        put_insert_literal(&mut out, b"\x02", b"");
        assert_eq!(read(&out), Ok(EncoderInstruction::Insert(Name::Text(text(b"\x02")), text(b""))));
        out.clear();
        put_duplicate(&mut out, 31);
        assert_eq!(read(&out), Ok(EncoderInstruction::Duplicate(31)));
    }

    #[test]
    fn decoder_instructions_come_back() {
        for n in [0, 62, 63, 126, 127, 1 << 40] {
            let all =
                [DecoderInstruction::Acknowledge(n), DecoderInstruction::Cancel(n), DecoderInstruction::Increment(n)];
            for instruction in all {
                let mut out = Vec::new();
                instruction.put(&mut out);
                assert_eq!(DecoderInstruction::read(&mut Cursor::new(&out)), Ok(instruction));
            }
        }
    }

    #[test]
    fn a_part_waits_for_its_end_in_pieces_of_any_size() {
        // Records of a length byte and as many bytes.
        let records: Vec<Vec<u8>> =
            (0..40_u8).map(|n| vec![n.wrapping_mul(7) % 200; usize::from(n) * 7 % 200]).collect();
        let stream: Vec<u8> =
            records.iter().flat_map(|r| [&[u8::try_from(r.len()).unwrap()], &r[..]].concat()).collect();
        for size in [1, 2, 3, 127, 128, 129, 300, stream.len()] {
            let (mut part, mut seen) = (Part::default(), Vec::new());
            for piece in stream.chunks(size) {
                part.feed(piece, |mut bytes| {
                    let whole = bytes.len();
                    while let Some((&n, rest)) = bytes.split_first()
                        && rest.len() >= usize::from(n)
                    {
                        seen.push(rest[..usize::from(n)].to_vec());
                        bytes = &rest[usize::from(n)..];
                    }
                    Ok::<_, ()>(whole - bytes.len())
                })
                .unwrap();
                assert!(part.len() <= 200 + CHUNK);
            }
            assert_eq!(seen, records, "pieces of {size}");
            assert_eq!(part.len(), 0);
        }
    }
}

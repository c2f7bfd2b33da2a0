//! Bounded reading and writing.
//!
//! A [`Reader`] walks over borrowed bytes and never past their end; a [`Writer`] fills borrowed room and never past its
//! end. Both answer `None` when something does not fit, and are unchanged then: a caller can ask, fail, and go on.

use crate::ids::VARINT_MAX;
use crate::wire::varint;

/// A length as the 64-bit number that the wire format calculates with.
#[must_use]
#[inline]
pub(crate) const fn wide(n: usize) -> u64 {
    // No platform of the standard library has addresses of more than 64 bits.
    const { assert!(size_of::<usize>() <= size_of::<u64>()) };
    n as u64
}

/// Reads from the front of borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// What is still to be read.
    rest: &'a [u8],
    /// How long the whole was, so that the position needs no counting.
    whole: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the front of `bytes`.
    #[must_use]
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, whole: bytes.len() }
    }

    /// Number of bytes still to be read.
    #[must_use]
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Number of bytes read so far.
    #[must_use]
    #[inline]
    pub const fn position(&self) -> usize {
        self.whole - self.rest.len()
    }

    /// Whether everything was read.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte, which stays unread.
    #[must_use]
    #[inline]
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    /// Two bytes, most significant first.
    #[inline]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, most significant first.
    #[inline]
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, most significant first.
    #[inline]
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A variable-length integer in any of its forms.
    #[inline]
    pub fn varint(&mut self) -> Option<u64> {
        match self.peek()? >> 6 {
            0 => self.u8().map(u64::from),
            1 => self.u16().map(|v| u64::from(v & 0x3fff)),
            2 => self.u32().map(|v| u64::from(v & 0x3fff_ffff)),
            _ => self.u64().map(|v| v & VARINT_MAX),
        }
    }

    /// The next `n` bytes, borrowed.
    #[inline]
    pub fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(head)
    }

    /// As many bytes as the variable-length integer in front of them says.
    #[inline]
    pub fn prefixed(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let len = usize::try_from(ahead.varint()?).ok()?;
        let bytes = ahead.bytes(len)?;
        *self = ahead;
        Some(bytes)
    }

    /// Everything that is left.
    #[inline]
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// Skips the run of `byte`s in front and returns its length.
    #[inline]
    pub fn skip_run(&mut self, byte: u8) -> usize {
        // Padding is most of many a handshake's bytes: whole words first.
        let (words, _) = self.rest.as_chunks::<16>();
        let whole = 16 * words.iter().position(|word| *word != [byte; 16]).unwrap_or(words.len());
        let rest = self.rest.get(whole..).unwrap_or_default();
        let run = whole + rest.iter().position(|b| *b != byte).unwrap_or(rest.len());
        self.rest = self.rest.get(run..).unwrap_or_default();
        run
    }
}

/// Writes to the front of borrowed room.
#[derive(Debug)]
pub struct Writer<'a> {
    /// The whole room.
    buf: &'a mut [u8],
    /// How much of it is written; never more than its length.
    at: usize,
}

impl<'a> Writer<'a> {
    /// A writer at the front of `buf`.
    #[must_use]
    #[inline]
    pub const fn new(buf: &'a mut [u8]) -> Self {
        Self { buf, at: 0 }
    }

    /// Number of bytes that can still be written.
    #[must_use]
    #[inline]
    pub const fn room(&self) -> usize {
        self.buf.len() - self.at
    }

    /// Number of bytes written.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.at
    }

    /// Whether nothing was written.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// `None` when there is room for less than `n` bytes. Asked first, it lets a frame be written whole or not at all.
    #[inline]
    pub const fn need(&self, n: usize) -> Option<()> {
        if self.room() >= n { Some(()) } else { None }
    }

    /// Writes an array.
    #[inline]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) -> Option<()> {
        *self.buf.get_mut(self.at..)?.first_chunk_mut::<N>()? = bytes;
        self.at += N;
        Some(())
    }

    /// Writes one byte.
    #[inline]
    pub fn u8(&mut self, v: u8) -> Option<()> {
        self.array(v.to_be_bytes())
    }

    /// Writes two bytes, most significant first.
    #[inline]
    pub fn u16(&mut self, v: u16) -> Option<()> {
        self.array(v.to_be_bytes())
    }

    /// Writes four bytes, most significant first.
    #[inline]
    pub fn u32(&mut self, v: u32) -> Option<()> {
        self.array(v.to_be_bytes())
    }

    /// Writes eight bytes, most significant first.
    #[inline]
    pub fn u64(&mut self, v: u64) -> Option<()> {
        self.array(v.to_be_bytes())
    }

    /// Writes a variable-length integer in its shortest form; `None` also for a value beyond 2^62 - 1.
    #[inline]
    pub fn varint(&mut self, v: u64) -> Option<()> {
        self.varint_sized(v, varint::size(v))
    }

    /// Writes a variable-length integer in exactly `size` bytes; `None` also when the value or the size cannot be.
    #[inline]
    pub fn varint_sized(&mut self, v: u64, size: usize) -> Option<()> {
        if v > VARINT_MAX || varint::size(v) > size {
            return None;
        }
        match size {
            1 => self.u8(u8::try_from(v).ok()?),
            2 => self.u16(0x4000 | u16::try_from(v).ok()?),
            4 => self.u32(0x8000_0000 | u32::try_from(v).ok()?),
            8 => self.u64(0xc000_0000_0000_0000 | v),
            _ => None,
        }
    }

    /// Copies bytes.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.at.checked_add(bytes.len())?;
        self.buf.get_mut(self.at..end)?.copy_from_slice(bytes);
        self.at = end;
        Some(())
    }

    /// Copies bytes behind a variable-length integer with their number.
    #[inline]
    pub fn prefixed(&mut self, bytes: &[u8]) -> Option<()> {
        self.need(varint::size(wide(bytes.len())).checked_add(bytes.len())?)?;
        self.varint(wide(bytes.len()))?;
        self.bytes(bytes)
    }

    /// Writes `n` zero bytes.
    #[inline]
    pub fn zeros(&mut self, n: usize) -> Option<()> {
        let end = self.at.checked_add(n)?;
        self.buf.get_mut(self.at..end)?.fill(0);
        self.at = end;
        Some(())
    }

    /// Passes over `n` bytes, which somebody else fills.
    #[inline]
    pub fn skip(&mut self, n: usize) -> Option<()> {
        self.need(n)?;
        self.at += n;
        Some(())
    }

    /// Gives up what was written behind the first `len` bytes; nothing happens when there is less.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.at = self.at.min(len);
    }

    /// What was written.
    #[must_use]
    #[inline]
    pub fn written(&self) -> &[u8] {
        // `at` never exceeds the room, so the default is never taken.
        self.buf.get(..self.at).unwrap_or_default()
    }

    /// What was written, to be changed.
    #[must_use]
    #[inline]
    pub fn written_mut(&mut self) -> &mut [u8] {
        self.buf.get_mut(..self.at).unwrap_or_default()
    }

    /// The room that is left, without writing to it.
    #[must_use]
    #[inline]
    pub fn spare(&mut self) -> &mut [u8] {
        self.buf.get_mut(self.at..).unwrap_or_default()
    }

    /// Puts a two-byte variable-length integer over what was written at offset `at`; `None`, and nothing changed, when
    /// the value has more than 14 bits or these bytes were not written yet.
    #[inline]
    pub fn patch_varint2(&mut self, at: usize, v: usize) -> Option<()> {
        patch_varint2(self.written_mut(), at, v)
    }
}

/// Puts a two-byte variable-length integer into `bytes` at offset `at`; see [`Writer::patch_varint2`].
pub(crate) fn patch_varint2(bytes: &mut [u8], at: usize, v: usize) -> Option<()> {
    let v = u16::try_from(v).ok().filter(|v| *v < 0x4000)?;
    *bytes.get_mut(at..)?.first_chunk_mut::<2>()? = (0x4000 | v).to_be_bytes();
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reader_that_fails_is_unchanged() {
        let mut r = Reader::new(&[0xc0, 1, 2]);
        assert_eq!((r.varint(), r.u32(), r.u64(), r.bytes(4), r.array::<4>()), (None, None, None, None, None));
        assert_eq!((r.position(), r.remaining()), (0, 3));
        assert_eq!(r.u16(), Some(0xc001));
        assert_eq!((r.prefixed(), r.position()), (None, 2));
        assert_eq!((r.rest(), r.is_empty(), r.position()), (&[2][..], true, 3));
        assert_eq!((r.u8(), r.peek()), (None, None));
    }

    #[test]
    fn runs_are_skipped_to_their_end() {
        let mut r = Reader::new(&[0, 0, 0, 1, 0]);
        assert_eq!((r.skip_run(0), r.skip_run(0), r.u8(), r.skip_run(0), r.is_empty()), (3, 0, Some(1), 1, true));
    }

    #[test]
    fn runs_of_every_length_end_where_they_end() {
        for byte in [0, 7] {
            for len in 0..70 {
                let mut bytes = vec![byte; len];
                bytes.extend([9, byte, byte]);
                let mut r = Reader::new(&bytes);
                assert_eq!((r.skip_run(byte), r.u8(), r.skip_run(byte), r.skip_run(byte)), (len, Some(9), 2, 0));
            }
        }
    }

    #[test]
    fn a_writer_without_room_writes_nothing() {
        let mut buf = [0xee; 3];
        let mut w = Writer::new(&mut buf);
        assert_eq!((w.u32(1), w.u64(1), w.varint(0x4000), w.bytes(&[0; 4])), (None, None, None, None));
        assert_eq!((w.zeros(4), w.skip(4), w.prefixed(&[1, 2, 3])), (None, None, None));
        assert!(w.is_empty());
        assert_eq!(w.u16(0x0102), Some(()));
        assert_eq!((w.u16(5), w.room(), w.len()), (None, 1, 2));
        assert_eq!(buf, [1, 2, 0xee]);
    }

    #[test]
    fn sized_integers_fill_their_size_or_nothing() {
        let mut buf = [0; 16];
        let mut w = Writer::new(&mut buf);
        assert_eq!(w.varint_sized(37, 2), Some(()));
        assert_eq!((w.varint_sized(64, 1), w.varint_sized(1, 3), w.varint_sized(1, 0)), (None, None, None));
        assert_eq!(w.varint_sized(1, 8), Some(()));
        assert_eq!(w.written(), [0x40, 37, 0xc0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn a_length_can_be_patched_only_where_bytes_were_written() {
        let mut buf = [0; 4];
        let mut w = Writer::new(&mut buf);
        assert_eq!(w.u16(0), Some(()));
        assert_eq!((w.patch_varint2(1, 1), w.patch_varint2(0, 0x4000)), (None, None));
        assert_eq!(w.patch_varint2(0, 0x3fff), Some(()));
        assert_eq!(w.written(), [0x7f, 0xff]);
        w.truncate(9);
        assert_eq!(w.len(), 2);
        w.truncate(1);
        assert_eq!((w.len(), w.spare().len(), w.room()), (1, 3, 3));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(a: u8, b: u16, c: u32, d: u64, tail in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut buf = [0; 256];
            let mut w = Writer::new(&mut buf);
            w.u8(a).and(w.u16(b)).and(w.u32(c)).and(w.u64(d)).and(w.prefixed(&tail)).unwrap();
            let mut r = Reader::new(w.written());
            prop_assert_eq!((r.u8(), r.u16(), r.u32(), r.u64()), (Some(a), Some(b), Some(c), Some(d)));
            prop_assert_eq!(r.prefixed(), Some(&tail[..]));
            prop_assert!(r.is_empty());
        }
    }
}

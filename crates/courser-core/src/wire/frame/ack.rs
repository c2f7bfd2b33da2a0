//! ACK frames (RFC 9000 section 19.3).
//!
//! Ranges are read where they lie: the whole list is walked once when the frame is parsed, so that iterating later
//! cannot fail. Writing takes ranges newest first and cuts them to the room, with the size known before.

use crate::ids::PacketNumber;
use crate::wire::codec::{Reader, Writer, wide};
use crate::wire::varint;

/// Counts of ECN marks (RFC 9000 section 19.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EcnCounts {
    /// Packets received with ECT(0).
    pub ect0: u64,
    /// Packets received with ECT(1).
    pub ect1: u64,
    /// Packets received with the mark Congestion Experienced.
    pub ce: u64,
}

/// An ACK frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The largest acknowledged packet number.
    pub largest: PacketNumber,
    /// The ACK Delay field, not scaled yet.
    pub delay: u64,
    /// What is acknowledged.
    pub ranges: AckRangesIter<'a>,
    /// ECN counts, when the frame has them.
    pub ecn: Option<EcnCounts>,
}

/// Acknowledged ranges as (first, last), both inclusive, newest first. Ranges never touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct AckRangesIter<'a> {
    /// The range to be given out next.
    next: Option<(PacketNumber, PacketNumber)>,
    /// Encoded pairs of gap and length behind it.
    pairs: &'a [u8],
    /// Number of these pairs.
    count: u64,
}

impl AckRangesIter<'_> {
    /// The next pair of gap and length, as a range below `above`; `None` when there is none or the numbers would become
    /// negative.
    fn below(r: &mut Reader<'_>, above: PacketNumber) -> Option<(PacketNumber, PacketNumber)> {
        let (gap, len) = (r.varint()?, r.varint()?);
        let last = above.checked_sub(gap)?.checked_sub(2)?;
        Some((last.checked_sub(len)?, last))
    }

    /// Number of ranges still to come.
    #[must_use]
    pub const fn ranges_left(&self) -> u64 {
        match self.next {
            Some(_) => self.count + 1,
            None => 0,
        }
    }

    /// Bytes of First ACK Range, Range Count and all pairs, and of the largest number.
    pub(super) fn size(&self) -> usize {
        let (first, last) = self.next.unwrap_or_default();
        varint::size(last) + varint::size(self.count) + varint::size(last - first) + self.pairs.len()
    }
}

impl Iterator for AckRangesIter<'_> {
    type Item = (PacketNumber, PacketNumber);

    fn next(&mut self) -> Option<Self::Item> {
        let range = self.next.take()?;
        if let Some(count) = self.count.checked_sub(1) {
            let mut r = Reader::new(self.pairs);
            self.next = Self::below(&mut r, range.0);
            self.pairs = r.rest();
            self.count = count;
        }
        Some(range)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.ranges_left()).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

impl core::iter::FusedIterator for AckRangesIter<'_> {}

/// What can be wrong with an ACK frame.
pub(super) enum AckError {
    /// It ends too early.
    Truncated,
    /// A computed packet number is negative.
    Negative,
}

/// Reads what is behind the type of an ACK frame.
pub(super) fn parse<'a>(r: &mut Reader<'a>, with_ecn: bool) -> Result<Ack<'a>, AckError> {
    let mut field = || r.varint().ok_or(AckError::Truncated);
    let (largest, delay, count, len) = (field()?, field()?, field()?, field()?);
    let first = largest.checked_sub(len).ok_or(AckError::Negative)?;
    // A pair has at least two bytes. Asking before walking keeps a huge count from costing anything.
    if count > wide(r.remaining() / 2) {
        return Err(AckError::Truncated);
    }
    let start = *r;
    let mut above = first;
    for _ in 0..count {
        let (gap, len) = r.varint().zip(r.varint()).ok_or(AckError::Truncated)?;
        let last = above.checked_sub(gap).and_then(|n| n.checked_sub(2)).ok_or(AckError::Negative)?;
        above = last.checked_sub(len).ok_or(AckError::Negative)?;
    }
    let pairs = { start }.bytes(start.remaining() - r.remaining()).ok_or(AckError::Truncated)?;
    let ecn = if with_ecn {
        let mut field = || r.varint().ok_or(AckError::Truncated);
        Some(EcnCounts { ect0: field()?, ect1: field()?, ce: field()? })
    } else {
        None
    };
    Ok(Ack { largest, delay, ranges: AckRangesIter { next: Some((first, largest)), pairs, count }, ecn })
}

/// Bytes of the ECN counts of an ACK frame.
fn ecn_size(ecn: Option<EcnCounts>) -> usize {
    ecn.map_or(0, |e| varint::size(e.ect0) + varint::size(e.ect1) + varint::size(e.ce))
}

/// Writes the ECN counts of an ACK frame.
fn write_ecn(w: &mut Writer<'_>, ecn: Option<EcnCounts>) -> Option<()> {
    let Some(e) = ecn else { return Some(()) };
    w.varint(e.ect0)?;
    w.varint(e.ect1)?;
    w.varint(e.ce)
}

impl Ack<'_> {
    /// Bytes of the whole frame.
    #[must_use]
    pub fn size(&self) -> usize {
        1 + varint::size(self.delay) + self.ranges.size() + ecn_size(self.ecn)
    }

    /// Type of the frame.
    #[must_use]
    pub const fn type_id(&self) -> u64 {
        if self.ecn.is_some() { 0x03 } else { 0x02 }
    }

    /// Writes the frame again, with what its ranges have not given out yet.
    pub(super) fn put(&self, w: &mut Writer<'_>) -> Option<()> {
        let (first, last) = self.ranges.next?;
        w.varint(self.type_id())?;
        w.varint(last)?;
        w.varint(self.delay)?;
        w.varint(self.ranges.count)?;
        w.varint(last - first)?;
        w.bytes(self.ranges.pairs)?;
        write_ecn(w, self.ecn)
    }
}

/// How many of the ranges fit and what the frame takes then.
struct Cut {
    ranges: usize,
    size: usize,
}

/// Cuts ranges to `room`; `None` when not even the newest fits. Ranges that do not go down are a mistake of the caller;
/// they end the list.
fn cut(
    mut ranges: impl Iterator<Item = (PacketNumber, PacketNumber)>,
    delay: u64,
    ecn: Option<EcnCounts>,
    room: usize,
) -> Option<Cut> {
    let (first, last) = ranges.next()?;
    // Everything but Range Count, which grows with the number of ranges.
    let mut bytes = 1 + varint::size(last) + varint::size(delay) + varint::size(last.checked_sub(first)?);
    bytes = bytes.checked_add(ecn_size(ecn))?;
    let mut fits = Cut { ranges: 1, size: bytes + 1 };
    if fits.size > room {
        return None;
    }
    let mut above = first;
    for (first, last) in ranges {
        let pair = above.checked_sub(last).and_then(|n| n.checked_sub(2)).zip(last.checked_sub(first));
        debug_assert!(pair.is_some(), "ranges go down and do not touch");
        let Some((gap, len)) = pair else { break };
        bytes += varint::size(gap) + varint::size(len);
        let size = bytes + varint::size(wide(fits.ranges));
        if size > room {
            break;
        }
        fits = Cut { ranges: fits.ranges + 1, size };
        above = first;
    }
    Some(fits)
}

/// Bytes of an ACK frame with all these ranges; 0 when there are none.
#[must_use]
pub fn ack_size(
    ranges: impl IntoIterator<Item = (PacketNumber, PacketNumber)>,
    delay: u64,
    ecn: Option<EcnCounts>,
) -> usize {
    cut(ranges.into_iter(), delay, ecn, usize::MAX).map_or(0, |cut| cut.size)
}

/// Writes an ACK frame of at most `max_room` bytes with as many of the newest ranges as fit, and tells how many these
/// are. `ranges` are (first, last), both inclusive, newest first, at least one number apart. `None`, and nothing
/// written, when not even the newest range fits or there is none.
pub fn write_ack<I>(w: &mut Writer<'_>, ranges: I, delay: u64, ecn: Option<EcnCounts>, max_room: usize) -> Option<usize>
where
    I: IntoIterator<Item = (PacketNumber, PacketNumber)>,
    I::IntoIter: Clone,
{
    let ranges = ranges.into_iter();
    let fits = cut(ranges.clone(), delay, ecn, max_room.min(w.room()))?;
    let start = w.len();
    let done = put_ranges(w, ranges.take(fits.ranges), fits.ranges, delay, ecn);
    if done.is_none() {
        // Only numbers beyond 62 bits get here.
        w.truncate(start);
        return None;
    }
    debug_assert_eq!(w.len() - start, fits.size, "the size of a frame is known before");
    Some(fits.ranges)
}

/// Writes a frame with exactly these ranges.
fn put_ranges(
    w: &mut Writer<'_>,
    mut ranges: impl Iterator<Item = (PacketNumber, PacketNumber)>,
    count: usize,
    delay: u64,
    ecn: Option<EcnCounts>,
) -> Option<()> {
    let (first, last) = ranges.next()?;
    w.u8(if ecn.is_some() { 0x03 } else { 0x02 })?;
    w.varint(last)?;
    w.varint(delay)?;
    w.varint(wide(count.checked_sub(1)?))?;
    w.varint(last.checked_sub(first)?)?;
    let mut above = first;
    for (first, last) in ranges {
        w.varint(above.checked_sub(last)?.checked_sub(2)?)?;
        w.varint(last.checked_sub(first)?)?;
        above = first;
    }
    write_ecn(w, ecn)
}

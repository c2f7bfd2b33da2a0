//! What stands in front of data that lies elsewhere: the packetiser writes these heads and leaves the data where it is.

use crate::ids::StreamId;
use crate::wire::codec::Writer;
use crate::wire::frame::types;
use crate::wire::varint;

/// The type of a STREAM frame; an offset of 0 is left out.
pub(super) const fn stream_type(offset: u64, fin: bool, length_present: bool) -> u64 {
    let mut t = types::STREAM;
    if offset > 0 {
        t |= types::OFF_BIT;
    }
    if length_present {
        t |= types::LEN_BIT;
    }
    if fin {
        t |= types::FIN_BIT;
    }
    t
}

/// Bytes of a STREAM frame in front of its data; with `len` there is a Length field, without the frame reaches to the
/// end of the packet.
#[must_use]
#[inline]
pub const fn stream_header_size(id: StreamId, offset: u64, len: Option<u64>) -> usize {
    let offset = if offset > 0 { varint::size(offset) } else { 0 };
    1 + varint::size(id.0) + offset + optional_size(len)
}

/// Bytes of a Length field that may be missing.
const fn optional_size(len: Option<u64>) -> usize {
    match len {
        Some(len) => varint::size(len),
        None => 0,
    }
}

/// Writes a STREAM frame up to its data. `None`, and nothing written, when there is no room for the head.
#[inline]
pub fn write_stream_header(w: &mut Writer<'_>, id: StreamId, offset: u64, fin: bool, len: Option<u64>) -> Option<()> {
    w.need(stream_header_size(id, offset, len))?;
    whole(w, |w| {
        w.varint(stream_type(offset, fin, len.is_some()))?;
        w.varint(id.0)?;
        if offset > 0 {
            w.varint(offset)?;
        }
        len.map_or(Some(()), |len| w.varint(len))
    })
}

/// Bytes of a CRYPTO frame in front of its data.
#[must_use]
pub const fn crypto_header_size(offset: u64, len: u64) -> usize {
    1 + varint::size(offset) + varint::size(len)
}

/// Writes a CRYPTO frame up to its data. `None`, and nothing written, when there is no room for the head.
pub fn write_crypto_header(w: &mut Writer<'_>, offset: u64, len: u64) -> Option<()> {
    w.need(crypto_header_size(offset, len))?;
    whole(w, |w| {
        w.varint(types::CRYPTO)?;
        w.varint(offset)?;
        w.varint(len)
    })
}

/// Bytes of a DATAGRAM frame in front of its data; with `len` there is a Length field, without the frame reaches to the
/// end of the packet.
#[must_use]
pub const fn datagram_header_size(len: Option<u64>) -> usize {
    1 + optional_size(len)
}

/// Writes a DATAGRAM frame up to its data. `None`, and nothing written, when there is no room for the head.
pub fn write_datagram_header(w: &mut Writer<'_>, len: Option<u64>) -> Option<()> {
    w.need(datagram_header_size(len))?;
    whole(w, |w| match len {
        Some(len) => w.varint(types::DATAGRAM_WITH_LENGTH).and_then(|()| w.varint(len)),
        None => w.varint(types::DATAGRAM),
    })
}

/// Runs `put` and takes back what it wrote when it fails half way, which only a number beyond 62 bits can cause.
#[inline]
pub(super) fn whole<'w>(w: &mut Writer<'w>, put: impl FnOnce(&mut Writer<'w>) -> Option<()>) -> Option<()> {
    let start = w.len();
    let done = put(w);
    if done.is_none() {
        w.truncate(start);
    }
    done
}

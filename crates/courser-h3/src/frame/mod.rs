//! Frames (RFC 9114 section 7): their types, their headers, and a reader that takes them apart as they come.
//!
//! A frame is a type, a length and a payload; the first two are variable-length integers. [`FrameReader`] remembers a header
//! that came in part, and how much of a payload is still to come, and nothing else: payloads are slices of what the transport
//! gave. Whether a frame may stand where it stands is judged by who reads it ([`Kind::of`] names those that have rules).

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use bytes::Bytes;
use courser_core::wire::{Reader, Writer, varint};

use crate::wide;

#[cfg(test)]
mod tests;

/// The frame types that have rules.
pub mod kind {
    /// Content of a message.
    pub const DATA: u64 = 0x00;
    /// An encoded field section.
    pub const HEADERS: u64 = 0x01;
    /// A push that is not wanted, or will not come.
    pub const CANCEL_PUSH: u64 = 0x03;
    /// What the sender permits; first on the control stream.
    pub const SETTINGS: u64 = 0x04;
    /// The announcement of a push.
    pub const PUSH_PROMISE: u64 = 0x05;
    /// The sender is about to leave.
    pub const GOAWAY: u64 = 0x07;
    /// How many pushes a client permits.
    pub const MAX_PUSH_ID: u64 = 0x0d;
    /// Not a frame: the rest of the stream belongs to a WebTransport session, whose ID stands in place of the length.
    pub const WT_STREAM: u64 = 0x41;
    /// Another priority for the answer to a request (RFC 9218).
    pub const PRIORITY_UPDATE: u64 = 0xf_0700;
    /// Another priority for a push (RFC 9218).
    pub const PRIORITY_UPDATE_PUSH: u64 = 0xf_0701;
}

/// Types of one-way streams (RFC 9114 section 6.2, RFC 9204 section 4.2).
pub mod stream_type {
    /// The control stream.
    pub const CONTROL: u64 = 0x00;
    /// A pushed response.
    pub const PUSH: u64 = 0x01;
    /// Instructions of the QPACK encoder.
    pub const QPACK_ENCODER: u64 = 0x02;
    /// Instructions of the QPACK decoder.
    pub const QPACK_DECODER: u64 = 0x03;
    /// A stream of a WebTransport session.
    pub const WEBTRANSPORT: u64 = 0x54;
}

/// What rules a frame of some type falls under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// DATA.
    Data,
    /// HEADERS.
    Headers,
    /// PUSH_PROMISE.
    PushPromise,
    /// Known, and only permitted on a control stream.
    Control,
    /// A type of HTTP/2 that must not be used.
    Forbidden,
    /// The signal of WebTransport.
    WebTransport,
    /// Reserved for greasing, or of an extension that is not known: has no meaning.
    Unknown,
}

impl Kind {
    /// The rules for a frame type.
    #[must_use]
    pub const fn of(kind: u64) -> Self {
        match kind {
            kind::DATA => Self::Data,
            kind::HEADERS => Self::Headers,
            kind::PUSH_PROMISE => Self::PushPromise,
            kind::CANCEL_PUSH
            | kind::SETTINGS
            | kind::GOAWAY
            | kind::MAX_PUSH_ID
            | kind::PRIORITY_UPDATE
            | kind::PRIORITY_UPDATE_PUSH => Self::Control,
            //= rfc9114#7.2.8-2
            0x02 | 0x06 | 0x08 | 0x09 => Self::Forbidden,
            kind::WT_STREAM => Self::WebTransport,
            //= rfc9114#7.2.8-1, rfc9114#9-1
            _ => Self::Unknown,
        }
    }
}

/// Whether an identifier of a frame, stream, setting or error is one of those that are reserved to exercise that unknown ones
/// are ignored (0x1f * N + 0x21).
#[must_use]
pub const fn is_reserved(id: u64) -> bool {
    id >= 0x21 && (id - 0x21).is_multiple_of(0x1f)
}

/// A reserved identifier, chosen by `seed`; its encoding has at most four bytes.
#[must_use]
pub const fn reserved(seed: u64) -> u64 {
    0x1f * (seed % 0x10_0000) + 0x21
}

/// The longest header: two integers of eight bytes.
pub const HEADER_MAX: usize = 16;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The frame type.
    pub kind: u64,
    /// Bytes of payload.
    pub len: u64,
}

impl Header {
    /// Bytes of the encoding.
    #[must_use]
    pub const fn size(self) -> usize {
        varint::size(self.kind) + varint::size(self.len)
    }

    /// The encoding, in its shortest form, and its length.
    #[must_use]
    pub fn encode(self) -> ([u8; HEADER_MAX], usize) {
        let mut out = [0; HEADER_MAX];
        let mut w = Writer::new(&mut out);
        // Both fit into 62 bits: types are constants of ours, and no payload in memory is longer.
        let whole = w.varint(self.kind).and_then(|()| w.varint(self.len)).map_or(0, |()| w.len());
        (out, whole)
    }
}

/// Appends a whole small frame.
pub(crate) fn push_frame(out: &mut Vec<u8>, kind: u64, payload: &[u8]) {
    let (head, n) = Header { kind, len: wide(payload.len()) }.encode();
    out.extend_from_slice(head.get(..n).unwrap_or_default());
    out.extend_from_slice(payload);
}

/// Appends a variable-length integer.
pub(crate) fn push_varint(out: &mut Vec<u8>, value: u64) {
    let mut room = [0; varint::SIZE_MAX];
    let n = varint::encode(value, &mut room).unwrap_or(0);
    debug_assert!(n > 0, "{value} has no encoding");
    out.extend_from_slice(room.get(..n).unwrap_or_default());
}

/// Collects variable-length integers that come in pieces: at most two, as a frame header, or a stream type with an ID.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Partial {
    bytes: [u8; HEADER_MAX],
    len: u8,
}

impl Partial {
    /// Whether nothing came yet.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tries `parse` on what came before and what is in front of `piece`; takes what it used off `piece`. When it needs more,
    /// all of `piece` is kept.
    pub(crate) fn parse<T>(&mut self, piece: &mut Bytes, parse: impl Fn(&mut Reader<'_>) -> Option<T>) -> Option<T> {
        if self.len == 0 {
            let mut r = Reader::new(piece);
            if let Some(value) = parse(&mut r) {
                let used = r.position();
                bytes::Buf::advance(piece, used);
                return Some(value);
            }
        }
        // At most a byte more than needed is looked at per turn, so that nothing that follows is swallowed.
        while let Some((&first, _)) = piece.split_first() {
            let at = usize::from(self.len);
            let Some(slot) = self.bytes.get_mut(at) else { break };
            *slot = first;
            self.len += 1;
            bytes::Buf::advance(piece, 1);
            let mut r = Reader::new(self.bytes.get(..=at).unwrap_or_default());
            if let Some(value) = parse(&mut r) {
                self.len = 0;
                return Some(value);
            }
        }
        None
    }
}

/// Takes a stream apart into frames.
#[derive(Clone, Debug, Default)]
pub struct FrameReader {
    partial: Partial,
    /// The frame whose payload is being read; `None` between frames.
    open: Option<Header>,
}

impl FrameReader {
    /// A reader at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the stream may end here: neither a header nor a payload is incomplete.
    #[must_use]
    pub const fn is_between_frames(&self) -> bool {
        self.open.is_none() && self.partial.is_empty()
    }

    /// The frame that is open: its type, and how much of its payload is still to come (at least one byte, or the frame has
    /// only just begun).
    #[must_use]
    pub const fn open(&self) -> Option<Header> {
        self.open
    }

    /// Between frames, reads the next header as far as `piece` goes, and opens the frame when it is complete. A frame without
    /// payload is closed by [`Self::payload`] like any other.
    pub fn header(&mut self, piece: &mut Bytes) -> Option<Header> {
        debug_assert!(self.open.is_none(), "a frame is open");
        let header = self.partial.parse(piece, |r| Some(Header { kind: r.varint()?, len: r.varint()? }))?;
        self.open = Some(header);
        Some(header)
    }

    /// The next part of the open frame's payload: as much as `piece` has of it. The frame is closed with its last byte.
    pub fn payload(&mut self, piece: &mut Bytes) -> Bytes {
        let Some(open) = &mut self.open else { return Bytes::new() };
        let n = usize::try_from(open.len).unwrap_or(usize::MAX).min(piece.len());
        let part = if n == piece.len() { std::mem::take(piece) } else { piece.split_to(n) };
        open.len -= wide(n);
        if open.len == 0 {
            self.open = None;
        }
        part
    }

    /// Whether the open frame's whole remaining payload lies in `piece`.
    #[must_use]
    pub fn is_whole_in(&self, piece: &Bytes) -> bool {
        self.open.is_some_and(|open| open.len <= wide(piece.len()))
    }
}

//! Packet headers, before header protection is removed and before it is applied (RFC 9000 section 17, RFC 8999).
//!
//! Reading has two steps, because packet numbers need the connection: [`decode`] finds the first packet of a
//! datagram, its connection IDs and where its packet number lies; the rest of the first byte and the number itself
//! are looked at after unmasking, with [`reserved_bits`], [`key_phase`] and [`spin`]. Writing happens when a packet
//! is sealed, so that the newest connection ID and number are on the wire.
//!
//! The fixed bit is reported by [`fixed_bit`] and not judged here: whether it may be 0 depends on what was negotiated
//! (RFC 9287).

use crate::crypto::{Head, TAG_LEN};
use crate::ids::{Cid, Level, PacketNumber, Version};
use crate::wire::codec::{Reader, Writer, patch_varint2, wide};
use crate::wire::{pn, varint};

/// Bit of a long header.
const LONG: u8 = 0x80;
/// The fixed bit, also called QUIC bit.
const FIXED: u8 = 0x40;

/// The largest packet with a long header that [`patch_length`] can describe, counted from its packet number.
pub const LONG_LENGTH_MAX: usize = 0x3fff;

/// A packet cannot be understood and is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// It ends too early.
    Truncated,
    /// A connection ID is longer than the version allows.
    CidTooLong,
    /// A Version Negotiation packet that lists nothing, or half a version at its end.
    BadVersionList,
    /// A Retry packet without a token.
    EmptyRetryToken,
}

/// An Initial, 0-RTT or Handshake packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Long<'a> {
    /// Which of the three.
    pub level: Level,
    /// Version; one that we speak.
    pub version: Version,
    /// Destination connection ID.
    pub dcid: Cid,
    /// Source connection ID.
    pub scid: Cid,
    /// The token; empty unless this is an Initial.
    pub token: &'a [u8],
    /// Offset of the packet number in the datagram.
    pub pn_at: usize,
    /// Length of this packet; the next one starts here.
    pub end: usize,
}

/// The first packet of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header<'a> {
    /// Initial.
    Initial(Long<'a>),
    /// 0-RTT.
    ZeroRtt(Long<'a>),
    /// Handshake.
    Handshake(Long<'a>),
    /// Retry; takes the whole rest of the datagram.
    Retry {
        /// Version; one that we speak.
        version: Version,
        /// Destination connection ID.
        dcid: Cid,
        /// Source connection ID.
        scid: Cid,
        /// The token to be sent back; never empty.
        token: &'a [u8],
        /// Integrity tag.
        tag: [u8; TAG_LEN],
        /// What the tag is computed over, apart from the original connection ID.
        without_tag: &'a [u8],
    },
    /// Version Negotiation; takes the whole rest of the datagram.
    VersionNegotiation {
        /// Destination connection ID, up to 255 bytes.
        dcid: &'a [u8],
        /// Source connection ID, up to 255 bytes.
        scid: &'a [u8],
        /// What the server speaks; at least one.
        versions: Versions<'a>,
    },
    /// 1-RTT; takes the whole rest of the datagram.
    Short {
        /// Destination connection ID.
        dcid: Cid,
        /// Offset of the packet number in the datagram.
        pn_at: usize,
    },
    /// A long header of a version that we do not speak; only what is the same in all versions.
    UnknownVersion {
        /// Its version.
        version: Version,
        /// Destination connection ID, up to 255 bytes.
        dcid: &'a [u8],
        /// Source connection ID, up to 255 bytes.
        scid: &'a [u8],
    },
}

impl<'a> Header<'a> {
    /// The header of an Initial, 0-RTT or Handshake packet.
    #[must_use]
    pub const fn long(&self) -> Option<&Long<'a>> {
        match self {
            Self::Initial(long) | Self::ZeroRtt(long) | Self::Handshake(long) => Some(long),
            _ => None,
        }
    }
}

/// The versions that a Version Negotiation packet lists, read from its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions<'a>(&'a [u8]);

impl Iterator for Versions<'_> {
    type Item = Version;

    fn next(&mut self) -> Option<Version> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(Version(u32::from_be_bytes(*head)))
    }
}

/// Whether a packet with this first byte has a long header.
#[must_use]
pub const fn is_long(first: u8) -> bool {
    first & LONG != 0
}

/// Whether the fixed bit of the packet is 1; `false` for an empty packet.
#[must_use]
pub fn fixed_bit(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first & FIXED != 0)
}

/// Sets the fixed bit of a packet that was written and not sealed yet to 0 (RFC 9287).
pub fn clear_fixed_bit(packet: &mut [u8]) {
    if let Some(first) = packet.first_mut() {
        *first &= !FIXED;
    }
}

/// The reserved bits of an unmasked first byte; anything but 0 is a PROTOCOL_VIOLATION once the packet is authentic.
#[must_use]
pub const fn reserved_bits(first: u8) -> u8 {
    if is_long(first) { first & 0x0c } else { first & 0x18 }
}

/// Length of the packet number in bytes, from an unmasked first byte.
#[must_use]
pub const fn pn_len(first: u8) -> usize {
    (first & 0x03) as usize + 1
}

/// The key phase bit of an unmasked short header.
#[must_use]
pub const fn key_phase(first: u8) -> bool {
    first & 0x04 != 0
}

/// The spin bit of a short header.
#[must_use]
pub const fn spin(first: u8) -> bool {
    first & 0x20 != 0
}

/// The destination connection ID of the first packet, for routing; `None` when the datagram is too short to have one.
#[must_use]
pub fn destination(datagram: &[u8], short_dcid_len: usize) -> Option<&[u8]> {
    let mut r = Reader::new(datagram);
    if is_long(r.u8()?) {
        r.u32()?;
        let len = r.u8()?;
        r.bytes(usize::from(len))
    } else {
        r.bytes(short_dcid_len)
    }
}

/// Like [`destination`] for datagrams that begin with a short header; `None` for others.
pub fn short_destination(datagram: &[u8], short_dcid_len: usize) -> Option<&[u8]> {
    if is_long(*datagram.first()?) { None } else { destination(datagram, short_dcid_len) }
}

/// Reads the header of the first packet of a datagram. `short_dcid_len` is the length of the connection IDs that we
/// issued, which short headers do not tell.
///
/// # Errors
/// Why the packet, and the rest of the datagram with it, is to be dropped.
pub fn decode(datagram: &[u8], short_dcid_len: usize) -> Result<Header<'_>, HeaderError> {
    let mut r = Reader::new(datagram);
    let first = r.u8().ok_or(HeaderError::Truncated)?;
    if !is_long(first) {
        let dcid = r.bytes(short_dcid_len).ok_or(HeaderError::Truncated)?;
        let dcid = Cid::new(dcid).ok_or(HeaderError::CidTooLong)?;
        return Ok(Header::Short { dcid, pn_at: r.position() });
    }
    let invariant = |r: &mut Reader<'_>| r.u8().map(usize::from);
    let version = Version(r.u32().ok_or(HeaderError::Truncated)?);
    let dcid = invariant(&mut r).and_then(|n| r.bytes(n)).ok_or(HeaderError::Truncated)?;
    let scid = invariant(&mut r).and_then(|n| r.bytes(n)).ok_or(HeaderError::Truncated)?;
    if version == Version::NEGOTIATION {
        //= rfc8999#6-2
        let list = r.rest();
        if list.is_empty() || !list.len().is_multiple_of(4) {
            return Err(HeaderError::BadVersionList);
        }
        return Ok(Header::VersionNegotiation { dcid, scid, versions: Versions(list) });
    }
    if !version.is_supported() {
        //= rfc9000#17.2-4, rfc9000#17.2-7
        return Ok(Header::UnknownVersion { version, dcid, scid });
    }
    //= rfc9000#17.2-3, rfc9000#17.2-6
    let dcid = Cid::new(dcid).ok_or(HeaderError::CidTooLong)?;
    let scid = Cid::new(scid).ok_or(HeaderError::CidTooLong)?;
    match level_of(first, version) {
        Some(level) => {
            decode_long(r, datagram.len(), Long { level, version, dcid, scid, token: &[], pn_at: 0, end: 0 })
        }
        None => decode_retry(r, datagram, version, dcid, scid),
    }
}

/// The part of an Initial, 0-RTT or Handshake header behind the connection IDs.
fn decode_long<'a>(mut r: Reader<'a>, whole: usize, mut long: Long<'a>) -> Result<Header<'a>, HeaderError> {
    if long.level == Level::Initial {
        long.token = r.prefixed().ok_or(HeaderError::Truncated)?;
    }
    let length = r.varint().and_then(|n| usize::try_from(n).ok()).ok_or(HeaderError::Truncated)?;
    long.pn_at = r.position();
    long.end = long.pn_at.checked_add(length).filter(|end| *end <= whole).ok_or(HeaderError::Truncated)?;
    Ok(match long.level {
        Level::Initial => Header::Initial(long),
        Level::ZeroRtt => Header::ZeroRtt(long),
        Level::Handshake | Level::OneRtt => Header::Handshake(long),
    })
}

/// The part of a Retry packet behind the connection IDs.
fn decode_retry<'a>(
    mut r: Reader<'a>,
    datagram: &'a [u8],
    version: Version,
    dcid: Cid,
    scid: Cid,
) -> Result<Header<'a>, HeaderError> {
    let (token, tag) = r.rest().split_last_chunk::<TAG_LEN>().ok_or(HeaderError::Truncated)?;
    if token.is_empty() {
        //= rfc9000#17.2.5.2-4
        return Err(HeaderError::EmptyRetryToken);
    }
    let (without_tag, _) = datagram.split_last_chunk::<TAG_LEN>().ok_or(HeaderError::Truncated)?;
    Ok(Header::Retry { version, dcid, scid, token, tag: *tag, without_tag })
}

/// The level of a long header's first byte; `None` for Retry. Version 2 numbers the types differently.
const fn level_of(first: u8, version: Version) -> Option<Level> {
    let rotated = if version.0 == Version::V2.0 { 3 } else { 0 };
    match ((first >> 4) + rotated) & 3 {
        0 => Some(Level::Initial),
        1 => Some(Level::ZeroRtt),
        2 => Some(Level::Handshake),
        _ => None,
    }
}

/// First byte of a long header of that type (0 to 3 in the order of version 1), without its low four bits.
const fn first_byte(version: Version, kind: u8) -> u8 {
    let rotated = if version.0 == Version::V2.0 { 1 } else { 0 };
    LONG | FIXED | ((kind + rotated) & 3) << 4
}

/// What a long header is to say.
#[derive(Clone, Copy, Debug)]
pub struct LongSpec<'a> {
    /// Initial, 0-RTT or Handshake.
    pub level: Level,
    /// Version 1 or 2.
    pub version: Version,
    /// Destination connection ID.
    pub dcid: &'a Cid,
    /// Source connection ID.
    pub scid: &'a Cid,
    /// Token; only of Initials.
    pub token: &'a [u8],
    /// The full packet number.
    pub pn: PacketNumber,
    /// Bytes of it to be sent; 1 to 4.
    pub pn_len: usize,
}

/// Where things lie in a packet with a long header, from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLayout {
    /// Offset of the two bytes of the Length field.
    pub length_at: usize,
    /// Offset of the packet number.
    pub pn_at: usize,
    /// Offset of the payload.
    pub payload_at: usize,
}

impl LongLayout {
    /// What a sealer wants to know.
    #[must_use]
    pub const fn head(self) -> Head {
        Head { pn_at: self.pn_at, payload_at: self.payload_at }
    }
}

/// Bytes of a long header with its packet number.
#[must_use]
pub const fn long_size(spec: &LongSpec<'_>) -> usize {
    let token = match spec.level {
        Level::Initial => varint::size(wide(spec.token.len())) + spec.token.len(),
        _ => 0,
    };
    1 + 4 + 1 + spec.dcid.len() + 1 + spec.scid.len() + token + 2 + spec.pn_len
}

/// Writes a long header whose Length field is filled in later by [`patch_length`]. `None`, and nothing written, when
/// there is no room, or when the level is 1-RTT.
pub fn write_long(w: &mut Writer<'_>, spec: &LongSpec<'_>) -> Option<LongLayout> {
    let kind = match spec.level {
        Level::Initial => 0,
        Level::ZeroRtt => 1,
        Level::Handshake => 2,
        Level::OneRtt => return None,
    };
    let low = u8::try_from(spec.pn_len.checked_sub(1)?).ok().filter(|low| *low < 4)?;
    w.need(long_size(spec))?;
    let start = w.len();
    write_invariant(w, first_byte(spec.version, kind) | low, spec.version, spec.dcid.as_slice(), spec.scid.as_slice())?;
    if spec.level == Level::Initial {
        w.prefixed(spec.token)?;
    }
    let length_at = w.len() - start;
    w.varint_sized(0, 2)?;
    let pn_at = w.len() - start;
    pn::encode(w, spec.pn, spec.pn_len)?;
    let payload_at = w.len() - start;
    debug_assert_eq!(payload_at, long_size(spec), "the size of a header is known before");
    Some(LongLayout { length_at, pn_at, payload_at })
}

/// First byte, version and connection IDs, which are laid out alike in all versions.
fn write_invariant(w: &mut Writer<'_>, first: u8, version: Version, dcid: &[u8], scid: &[u8]) -> Option<()> {
    w.u8(first)?;
    w.u32(version.0)?;
    w.u8(u8::try_from(dcid.len()).ok()?)?;
    w.bytes(dcid)?;
    w.u8(u8::try_from(scid.len()).ok()?)?;
    w.bytes(scid)
}

/// Fills in the Length field of the packet at the front of `packet`, which will have `packet_len` bytes with its tag.
/// `None`, and nothing changed, when that is more than a Length field of two bytes can say.
pub fn patch_length(packet: &mut [u8], layout: LongLayout, packet_len: usize) -> Option<()> {
    patch_varint2(packet, layout.length_at, packet_len.checked_sub(layout.pn_at)?)
}

/// What a short header is to say.
#[derive(Clone, Copy, Debug)]
pub struct ShortSpec<'a> {
    /// Destination connection ID.
    pub dcid: &'a Cid,
    /// The spin bit.
    pub spin: bool,
    /// The key phase bit.
    pub key_phase: bool,
    /// The full packet number.
    pub pn: PacketNumber,
    /// Bytes of it to be sent; 1 to 4.
    pub pn_len: usize,
}

/// Bytes of a short header with its packet number.
#[must_use]
pub const fn short_size(spec: &ShortSpec<'_>) -> usize {
    1 + spec.dcid.len() + spec.pn_len
}

/// Writes a short header. `None`, and nothing written, when there is no room. Offsets count from the packet's first
/// byte.
pub fn write_short(w: &mut Writer<'_>, spec: &ShortSpec<'_>) -> Option<Head> {
    let low = u8::try_from(spec.pn_len.checked_sub(1)?).ok().filter(|low| *low < 4)?;
    w.need(short_size(spec))?;
    let start = w.len();
    w.u8(FIXED | u8::from(spec.spin) << 5 | u8::from(spec.key_phase) << 2 | low)?;
    w.bytes(spec.dcid.as_slice())?;
    let pn_at = w.len() - start;
    pn::encode(w, spec.pn, spec.pn_len)?;
    Some(Head { pn_at, payload_at: w.len() - start })
}

/// Bytes of a Retry packet without its tag.
#[must_use]
pub const fn retry_size(dcid: &Cid, scid: &Cid, token: &[u8]) -> usize {
    1 + 4 + 1 + dcid.len() + 1 + scid.len() + token.len()
}

/// Writes a Retry packet without its tag. The low four bits of `random` fill the unused bits. `None`, and nothing
/// written, when there is no room or no token.
pub fn write_retry(
    w: &mut Writer<'_>,
    version: Version,
    dcid: &Cid,
    scid: &Cid,
    token: &[u8],
    random: u8,
) -> Option<()> {
    if token.is_empty() {
        return None;
    }
    w.need(retry_size(dcid, scid, token))?;
    let first = first_byte(version, 3) | random & 0x0f;
    write_invariant(w, first, version, dcid.as_slice(), scid.as_slice())?;
    w.bytes(token)
}

/// Bytes of a Version Negotiation packet.
#[must_use]
pub const fn version_negotiation_size(dcid: &[u8], scid: &[u8], versions: &[Version]) -> usize {
    1 + 4 + 1 + dcid.len() + 1 + scid.len() + 4 * versions.len()
}

/// Writes a Version Negotiation packet; `dcid` and `scid` are those of this packet, that is the received ones swapped.
/// `None`, and nothing written, when there is no room, no version, or a connection ID of more than 255 bytes.
pub fn write_version_negotiation(
    w: &mut Writer<'_>,
    dcid: &[u8],
    scid: &[u8],
    versions: &[Version],
    random: u8,
) -> Option<()> {
    if versions.is_empty() || dcid.len() > 255 || scid.len() > 255 {
        return None;
    }
    w.need(version_negotiation_size(dcid, scid, versions))?;
    //= rfc9000#17.2.1-2, rfc9000#17.2.1-3
    write_invariant(w, LONG | FIXED | random & 0x3f, Version::NEGOTIATION, dcid, scid)?;
    versions.iter().try_for_each(|v| w.u32(v.0))
}

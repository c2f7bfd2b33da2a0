//! Transport parameters (RFC 9000 section 18, RFC 9221, RFC 9287, RFC 9368, drafts on ACK frequency and on resets).
//!
//! Parameters with their default value are left out. One reserved parameter with random content is sent along, so that
//! peers keep ignoring what they do not know (section 18.1).

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use crate::config::{MIN_DATAGRAM, PreferredAddress, TransportParams, VersionInformation};
use crate::error::{PeerViolation, TransportCode};
use crate::ids::{Cid, ResetToken, Side, VARINT_MAX, Version};
use crate::wire::codec::{Reader, Writer, wide};
use crate::wire::frame::STREAMS_MAX;
use crate::wire::varint;

/// Versions of a peer's list that are kept; the best ones come first.
pub const AVAILABLE_VERSIONS_MAX: usize = 16;

/// Unknown parameters whose identifiers are remembered to find one that comes twice; later ones are only skipped.
const UNKNOWN_MAX: usize = 16;

/// Identifiers, in an order that leaves each a bit position.
mod id {
    pub(super) const ORIGINAL_DCID: u64 = 0x00;
    pub(super) const MAX_IDLE_TIMEOUT: u64 = 0x01;
    pub(super) const RESET_TOKEN: u64 = 0x02;
    pub(super) const MAX_UDP_PAYLOAD: u64 = 0x03;
    pub(super) const MAX_DATA: u64 = 0x04;
    pub(super) const MAX_STREAM_DATA_BIDI_LOCAL: u64 = 0x05;
    pub(super) const MAX_STREAM_DATA_BIDI_REMOTE: u64 = 0x06;
    pub(super) const MAX_STREAM_DATA_UNI: u64 = 0x07;
    pub(super) const MAX_STREAMS_BIDI: u64 = 0x08;
    pub(super) const MAX_STREAMS_UNI: u64 = 0x09;
    pub(super) const ACK_DELAY_EXPONENT: u64 = 0x0a;
    pub(super) const MAX_ACK_DELAY: u64 = 0x0b;
    pub(super) const DISABLE_ACTIVE_MIGRATION: u64 = 0x0c;
    pub(super) const PREFERRED_ADDRESS: u64 = 0x0d;
    pub(super) const ACTIVE_CID_LIMIT: u64 = 0x0e;
    pub(super) const INITIAL_SCID: u64 = 0x0f;
    pub(super) const RETRY_SCID: u64 = 0x10;
    pub(super) const VERSION_INFORMATION: u64 = 0x11;
    pub(super) const RESET_STREAM_AT: u64 = 0x1d;
    pub(super) const MAX_DATAGRAM_FRAME: u64 = 0x20;
    pub(super) const GREASE_QUIC_BIT: u64 = 0x2ab2;
    pub(super) const MIN_ACK_DELAY: u64 = 0xff04_de1b;
}

/// Appends the encoded parameters that `side` sends. Server-only parameters are left out for a client. `random` chooses
/// identifier, length and content of the reserved parameter.
//= rfc9000#7.4-2
pub fn encode(params: &TransportParams, side: Side, random: u64, out: &mut Vec<u8>) {
    let default = TransportParams::default();
    let mut number = |id, value: u64, default: u64| {
        if value != default {
            put(out, id, &[Part::Number(value)]);
        }
    };
    number(id::MAX_IDLE_TIMEOUT, params.max_idle_timeout_ms, default.max_idle_timeout_ms);
    number(id::MAX_UDP_PAYLOAD, params.max_udp_payload, default.max_udp_payload);
    number(id::MAX_DATA, params.max_data, 0);
    number(id::MAX_STREAM_DATA_BIDI_LOCAL, params.max_stream_data_bidi_local, 0);
    number(id::MAX_STREAM_DATA_BIDI_REMOTE, params.max_stream_data_bidi_remote, 0);
    number(id::MAX_STREAM_DATA_UNI, params.max_stream_data_uni, 0);
    number(id::MAX_STREAMS_BIDI, params.max_streams_bidi, 0);
    number(id::MAX_STREAMS_UNI, params.max_streams_uni, 0);
    number(id::ACK_DELAY_EXPONENT, params.ack_delay_exponent.into(), default.ack_delay_exponent.into());
    number(id::MAX_ACK_DELAY, params.max_ack_delay_ms, default.max_ack_delay_ms);
    number(id::ACTIVE_CID_LIMIT, params.active_cid_limit, default.active_cid_limit);
    number(id::MAX_DATAGRAM_FRAME, params.max_datagram_frame, 0);
    if let Some(us) = params.min_ack_delay_us {
        put(out, id::MIN_ACK_DELAY, &[Part::Number(us)]);
    }
    if params.disable_active_migration {
        put(out, id::DISABLE_ACTIVE_MIGRATION, &[]);
    }
    if params.reset_stream_at {
        put(out, id::RESET_STREAM_AT, &[]);
    }
    if params.grease_quic_bit {
        put(out, id::GREASE_QUIC_BIT, &[]);
    }
    if let Some(cid) = &params.initial_scid {
        put(out, id::INITIAL_SCID, &[Part::Bytes(cid.as_slice())]);
    }
    if let Some(info) = &params.version_information {
        let mut list = info.chosen.0.to_be_bytes().to_vec();
        list.extend(info.available.iter().flat_map(|v| v.0.to_be_bytes()));
        put(out, id::VERSION_INFORMATION, &[Part::Bytes(&list)]);
    }
    if side.is_server() {
        encode_server_only(params, out);
    }
    encode_reserved(random, out);
}

/// Parameters that only a server sends.
fn encode_server_only(params: &TransportParams, out: &mut Vec<u8>) {
    //= rfc9000#18.2-9
    if let Some(cid) = &params.original_dcid {
        put(out, id::ORIGINAL_DCID, &[Part::Bytes(cid.as_slice())]);
    }
    if let Some(cid) = &params.retry_scid {
        put(out, id::RETRY_SCID, &[Part::Bytes(cid.as_slice())]);
    }
    if let Some(token) = &params.reset_token {
        put(out, id::RESET_TOKEN, &[Part::Bytes(&token.0)]);
    }
    if let Some(at) = &params.preferred_address {
        let v4 = at.v4.unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        let v6 = at.v6.unwrap_or(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0));
        let cid = at.cid.as_slice();
        let parts = [
            Part::Bytes(&v4.ip().octets()),
            Part::Bytes(&v4.port().to_be_bytes()),
            Part::Bytes(&v6.ip().octets()),
            Part::Bytes(&v6.port().to_be_bytes()),
            Part::Byte(u8::try_from(cid.len()).unwrap_or(0)),
            Part::Bytes(cid),
            Part::Bytes(&at.token.0),
        ];
        put(out, id::PREFERRED_ADDRESS, &parts);
    }
}

/// A parameter of the form 31 * N + 27 with up to seven random bytes.
fn encode_reserved(random: u64, out: &mut Vec<u8>) {
    let bytes = random.to_be_bytes();
    let len = usize::from(bytes[7] & 7);
    put(out, 31 * (random >> 16 & 0xffff) + 27, &[Part::Bytes(bytes.get(..len).unwrap_or_default())]);
}

/// A piece of a parameter's value.
enum Part<'a> {
    Number(u64),
    Byte(u8),
    Bytes(&'a [u8]),
}

/// Appends one parameter.
fn put(out: &mut Vec<u8>, id: u64, parts: &[Part<'_>]) {
    let size = parts.iter().map(|p| match p {
        Part::Number(v) => varint::size(*v),
        Part::Byte(_) => 1,
        Part::Bytes(b) => b.len(),
    });
    put_varint(out, id);
    put_varint(out, wide(size.sum()));
    for part in parts {
        match part {
            Part::Number(v) => put_varint(out, *v),
            Part::Byte(b) => out.push(*b),
            Part::Bytes(b) => out.extend_from_slice(b),
        }
    }
}

/// Appends a variable-length integer. Our own limits are checked when they are set; a larger one is cut to the largest.
fn put_varint(out: &mut Vec<u8>, value: u64) {
    debug_assert!(value <= VARINT_MAX, "limits have at most 62 bits");
    let mut buf = [0; varint::SIZE_MAX];
    let mut w = Writer::new(&mut buf);
    if w.varint(value.min(VARINT_MAX)).is_some() {
        out.extend_from_slice(w.written());
    }
}

const fn bad(reason: &'static str, section: &'static str) -> PeerViolation {
    PeerViolation::new(TransportCode::TRANSPORT_PARAMETER_ERROR, reason, section)
}

const MALFORMED: PeerViolation = bad("a transport parameter is malformed", "rfc9000#18");

/// Reads the transport parameters that `sender` sent.
///
/// Whether the connection IDs in them are the right ones is for [`verify_cids`] to say.
///
/// # Errors
/// TRANSPORT_PARAMETER_ERROR.
//= rfc9000#7.4-1
pub fn decode(bytes: &[u8], sender: Side) -> Result<TransportParams, PeerViolation> {
    let mut params = TransportParams::default();
    let mut r = Reader::new(bytes);
    let mut seen = Seen::default();
    while !r.is_empty() {
        let id = r.varint().ok_or(MALFORMED)?;
        let mut value = Reader::new(r.prefixed().ok_or(MALFORMED)?);
        seen.note(id)?;
        if sender.is_client() && is_server_only(id) {
            //= rfc9000#18.2-10
            return Err(bad("a client sent a parameter of servers", "rfc9000#18.2"));
        }
        decode_one(&mut params, id, &mut value, sender)?;
        if !value.is_empty() {
            //= reset-stream-at#3-1
            return Err(MALFORMED);
        }
    }
    check_together(&params)?;
    Ok(params)
}

const fn is_server_only(parameter: u64) -> bool {
    matches!(parameter, id::ORIGINAL_DCID | id::RESET_TOKEN | id::PREFERRED_ADDRESS | id::RETRY_SCID)
}

/// Which parameters came already.
#[derive(Default)]
struct Seen {
    /// Parameters with small identifiers, by bit.
    small: u64,
    /// Others, as far as there is room.
    large: [u64; UNKNOWN_MAX],
    /// How many of these are in use.
    used: usize,
}

impl Seen {
    fn note(&mut self, id: u64) -> Result<(), PeerViolation> {
        //= rfc9000#7.4-3
        const TWICE: PeerViolation = bad("a transport parameter came twice", "rfc9000#7.4");
        if id < 64 {
            let bit = 1 << id;
            if self.small & bit != 0 {
                return Err(TWICE);
            }
            self.small |= bit;
            return Ok(());
        }
        if self.large.iter().take(self.used).any(|seen| *seen == id) {
            return Err(TWICE);
        }
        // Parameters that we understand always have a place, so that an earlier crowd of others cannot hide them.
        let known = match id {
            self::id::GREASE_QUIC_BIT => Some(UNKNOWN_MAX - 1),
            self::id::MIN_ACK_DELAY => Some(UNKNOWN_MAX - 2),
            _ => None,
        };
        if let Some(place) = known.and_then(|place| self.large.get_mut(place)) {
            return match core::mem::replace(place, id) {
                0 => Ok(()),
                _ => Err(TWICE),
            };
        }
        if let Some(place) = self.large[..UNKNOWN_MAX - 2].get_mut(self.used) {
            *place = id;
            self.used += 1;
        }
        Ok(())
    }
}

/// A number that has to be in a range.
fn number(r: &mut Reader<'_>, range: core::ops::RangeInclusive<u64>, why: PeerViolation) -> Result<u64, PeerViolation> {
    let value = r.varint().ok_or(MALFORMED)?;
    if range.contains(&value) { Ok(value) } else { Err(why) }
}

fn limit(r: &mut Reader<'_>) -> Result<u64, PeerViolation> {
    number(r, 0..=VARINT_MAX, MALFORMED)
}

fn streams(r: &mut Reader<'_>) -> Result<u64, PeerViolation> {
    //= rfc9000#4.6-1
    number(r, 0..=STREAMS_MAX, bad("a limit of streams is more than 2^60", "rfc9000#4.6"))
}

fn cid(r: &mut Reader<'_>) -> Result<Option<Cid>, PeerViolation> {
    Cid::new(r.rest()).map(Some).ok_or(bad("a connection ID has more than 20 bytes", "rfc9000#18.2"))
}

/// Reads one parameter's value; unknown ones are passed over.
fn decode_one(p: &mut TransportParams, parameter: u64, r: &mut Reader<'_>, sender: Side) -> Result<(), PeerViolation> {
    match parameter {
        id::ORIGINAL_DCID => p.original_dcid = cid(r)?,
        id::MAX_IDLE_TIMEOUT => p.max_idle_timeout_ms = limit(r)?,
        id::RESET_TOKEN => p.reset_token = Some(ResetToken(r.array().ok_or(MALFORMED)?)),
        id::MAX_UDP_PAYLOAD => {
            let why = bad("max_udp_payload_size is below 1200", "rfc9000#18.2");
            p.max_udp_payload = number(r, u64::from(MIN_DATAGRAM)..=VARINT_MAX, why)?;
        }
        id::MAX_DATA => p.max_data = limit(r)?,
        id::MAX_STREAM_DATA_BIDI_LOCAL => p.max_stream_data_bidi_local = limit(r)?,
        id::MAX_STREAM_DATA_BIDI_REMOTE => p.max_stream_data_bidi_remote = limit(r)?,
        id::MAX_STREAM_DATA_UNI => p.max_stream_data_uni = limit(r)?,
        id::MAX_STREAMS_BIDI => p.max_streams_bidi = streams(r)?,
        id::MAX_STREAMS_UNI => p.max_streams_uni = streams(r)?,
        id::ACK_DELAY_EXPONENT => {
            let value = number(r, 0..=20, bad("ack_delay_exponent is above 20", "rfc9000#18.2"))?;
            p.ack_delay_exponent = u8::try_from(value).map_err(|_| MALFORMED)?;
        }
        id::MAX_ACK_DELAY => {
            let why = bad("max_ack_delay is 2^14 or more", "rfc9000#18.2");
            p.max_ack_delay_ms = number(r, 0..=(1 << 14) - 1, why)?;
        }
        id::DISABLE_ACTIVE_MIGRATION => p.disable_active_migration = true,
        id::PREFERRED_ADDRESS => p.preferred_address = Some(preferred_address(r)?),
        id::ACTIVE_CID_LIMIT => {
            //= rfc9000#18.2-8
            let why = bad("active_connection_id_limit is below 2", "rfc9000#18.2");
            p.active_cid_limit = number(r, 2..=VARINT_MAX, why)?;
        }
        id::INITIAL_SCID => p.initial_scid = cid(r)?,
        id::RETRY_SCID => p.retry_scid = cid(r)?,
        id::VERSION_INFORMATION => p.version_information = Some(version_information(r.rest(), sender)?),
        id::MAX_DATAGRAM_FRAME => p.max_datagram_frame = limit(r)?,
        id::RESET_STREAM_AT => p.reset_stream_at = true,
        //= rfc9287#3-1
        id::GREASE_QUIC_BIT => p.grease_quic_bit = true,
        id::MIN_ACK_DELAY => p.min_ack_delay_us = Some(limit(r)?),
        _ => {
            //= rfc9000#7.4.2-1
            r.rest();
        }
    }
    Ok(())
}

fn preferred_address(r: &mut Reader<'_>) -> Result<PreferredAddress, PeerViolation> {
    let v4 = SocketAddrV4::new(Ipv4Addr::from(r.array::<4>().ok_or(MALFORMED)?), r.u16().ok_or(MALFORMED)?);
    let v6 = SocketAddrV6::new(Ipv6Addr::from(r.array::<16>().ok_or(MALFORMED)?), r.u16().ok_or(MALFORMED)?, 0, 0);
    let len = r.u8().ok_or(MALFORMED)?;
    let cid = r.bytes(usize::from(len)).ok_or(MALFORMED).map(Cid::new)?;
    //= rfc9000#18.2-6
    let cid = cid
        .filter(|cid| !cid.is_empty())
        .ok_or(bad("the preferred address has no connection ID of 1 to 20 bytes", "rfc9000#18.2"))?;
    Ok(PreferredAddress {
        v4: Some(v4).filter(|a| !(a.ip().is_unspecified() && a.port() == 0)),
        v6: Some(v6).filter(|a| !(a.ip().is_unspecified() && a.port() == 0)),
        cid,
        token: ResetToken(r.array().ok_or(MALFORMED)?),
    })
}

fn version_information(bytes: &[u8], sender: Side) -> Result<VersionInformation, PeerViolation> {
    //= rfc9368#4-4
    let bad_list = bad("version_information is malformed", "rfc9368#4");
    let (words, []) = bytes.as_chunks::<4>() else { return Err(bad_list) };
    let mut versions = words.iter().map(|w| Version(u32::from_be_bytes(*w)));
    let chosen = versions.next().ok_or(bad_list)?;
    //= rfc9368#4-5
    if chosen == Version::NEGOTIATION || versions.clone().any(|v| v == Version::NEGOTIATION) {
        return Err(bad_list);
    }
    //= rfc9368#4-6
    if sender.is_client() && !versions.clone().any(|v| v == chosen) {
        return Err(bad_list);
    }
    Ok(VersionInformation { chosen, available: versions.take(AVAILABLE_VERSIONS_MAX).collect() })
}

/// Rules between parameters.
fn check_together(p: &TransportParams) -> Result<(), PeerViolation> {
    if p.preferred_address.is_some() && p.initial_scid.is_some_and(|cid| cid.is_empty()) {
        //= rfc9000#18.2-6
        return Err(bad("a server without connection IDs has a preferred address", "rfc9000#18.2"));
    }
    if p.min_ack_delay_us.is_some_and(|min| min > p.max_ack_delay_ms.saturating_mul(1000)) {
        //= ack-frequency#3-2
        return Err(bad("min_ack_delay is more than max_ack_delay", "ack-frequency#3"));
    }
    Ok(())
}

/// Checks the connection IDs in a peer's parameters against those of its packets (RFC 9000 section 7.3).
/// `original_dcid` is what a client sent its first Initial to; `retry_scid` is that of the Retry, if there was one.
///
/// # Errors
/// TRANSPORT_PARAMETER_ERROR when one is missing, differs, or should not be there.
pub fn verify_cids(
    params: &TransportParams,
    sender: Side,
    initial_scid: &Cid,
    original_dcid: &Cid,
    retry_scid: Option<&Cid>,
) -> Result<(), PeerViolation> {
    //= rfc9000#7.3-1, rfc9000#7.3-2, rfc9000#7.3-3, rfc9000#7.3-4
    let initial = params.initial_scid.as_ref() == Some(initial_scid);
    let original = params.original_dcid.as_ref() == Some(original_dcid) && params.retry_scid.as_ref() == retry_scid;
    if initial && (original || sender.is_client()) {
        Ok(())
    } else {
        Err(bad("the connection IDs of the handshake do not match", "rfc9000#7.3"))
    }
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;

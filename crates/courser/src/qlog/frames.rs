//! Headers and frames of a packet in plaintext, as the drafts have them.
//!
//! Contents of streams, CRYPTO data, tokens and reset tokens are never written: lengths only.

use courser_core::error::TransportCode;
use courser_core::ids::{Dir, Level};
use courser_core::wire::Reader;
use courser_core::wire::frame::{self, Ack, Extensions, Frame};

use super::json::{List, Object};

/// Acknowledged ranges of one frame that are written; a longer list says nothing that anybody reads.
const RANGES_MAX: usize = 256;
/// The spin bit of a short header's first byte.
const SPIN: u8 = 0x20;
/// The key phase bit of a short header's first byte.
const KEY_PHASE: u8 = 0x04;

/// The draft's name of a packet type.
pub(super) const fn packet_type(level: Level) -> &'static str {
    match level {
        Level::Initial => "initial",
        Level::ZeroRtt => "0RTT",
        Level::Handshake => "handshake",
        Level::OneRtt => "1RTT",
    }
}

/// The spin bit of a packet that has one.
pub(super) fn spin_bit(level: Level, header: &[u8]) -> Option<bool> {
    let first = header.first().filter(|_| level == Level::OneRtt)?;
    Some(first & SPIN != 0)
}

/// The header of a packet; `header` ends behind the packet number, `packet_len` is the whole packet.
pub(super) fn header(o: &mut Object<'_>, level: Level, pn: u64, header: &[u8], packet_len: usize) {
    let first = header.first().copied().unwrap_or_default();
    o.text("packet_type", packet_type(level));
    let pn_len = usize::from(first & 3) + 1;
    if level == Level::OneRtt {
        o.flag("spin_bit", first & SPIN != 0).flag("key_phase_bit", first & KEY_PHASE != 0);
    }
    o.number("packet_number_length", pn_len as u64).number("packet_number", pn);
    if level != Level::OneRtt {
        // What cannot be read is left out: the packet was authentic, so this does not happen.
        let _ = long_header(o, level, header, (packet_len + pn_len).saturating_sub(header.len()));
    }
}

fn long_header(o: &mut Object<'_>, level: Level, header: &[u8], length: usize) -> Option<()> {
    let mut r = Reader::new(header.get(1..)?);
    let version = r.u32()?;
    let len = r.u8()?;
    let dcid = r.bytes(len.into())?;
    let len = r.u8()?;
    let scid = r.bytes(len.into())?;
    if level == Level::Initial {
        let token = r.prefixed()?;
        if !token.is_empty() {
            o.object("token", |o| raw(o, token.len(), None));
        }
    }
    o.number("length", length as u64).hex("version", &version.to_be_bytes());
    o.number("scil", scid.len() as u64).number("dcil", dcid.len() as u64).hex("scid", scid).hex("dcid", dcid);
    Some(())
}

/// Frames of a payload, as a list. A payload that cannot be read ends with an unknown frame.
pub(super) fn frames(list: &mut List<'_>, payload: &[u8], exponent: u32) {
    let mut r = Reader::new(payload);
    while !r.is_empty() {
        let start = r.position();
        let Ok(frame) = frame::parse(&mut r, Extensions::ALL) else {
            let kind = payload.get(start).copied().unwrap_or_default();
            list.object(|o| {
                o.text("frame_type", "unknown").number("frame_type_bytes", kind.into());
            });
            return;
        };
        let len = r.position() - start;
        list.object(|o| one(o, &frame, len, exponent));
    }
}

/// The frame's length, and the length of the data in it.
fn raw(o: &mut Object<'_>, len: usize, payload: Option<usize>) {
    o.object("raw", |o| {
        o.number("length", len as u64);
        if let Some(n) = payload {
            o.number("payload_length", n as u64);
        }
    });
}

fn one(o: &mut Object<'_>, frame: &Frame<'_>, len: usize, exponent: u32) {
    match frame {
        Frame::Stream { id, offset, data, fin, .. } => {
            o.text("frame_type", "stream").number("stream_id", id.0).number("offset", *offset);
            if *fin {
                o.flag("fin", true);
            }
            raw(o, len, Some(data.len()));
        }
        Frame::Ack(ack) => acknowledgement(o, ack, exponent),
        Frame::Padding(_) => {
            o.text("frame_type", "padding");
            raw(o, len, None);
        }
        Frame::Ping => _ = o.text("frame_type", "ping"),
        Frame::Crypto { offset, data } => {
            o.text("frame_type", "crypto").number("offset", *offset);
            raw(o, len, Some(data.len()));
        }
        Frame::Datagram { data, .. } => {
            o.text("frame_type", "datagram");
            raw(o, len, Some(data.len()));
        }
        Frame::HandshakeDone => _ = o.text("frame_type", "handshake_done"),
        Frame::NewToken { token } => {
            o.text("frame_type", "new_token").object("token", |o| {
                o.text("type", "resumption");
                raw(o, token.len(), None);
            });
        }
        Frame::ConnectionClose { .. } | Frame::ApplicationClose { .. } => close(o, frame),
        Frame::AckFrequency { .. } => {
            o.text("frame_type", "unknown").number("frame_type_bytes", frame.type_id());
            raw(o, len, None);
        }
        Frame::ImmediateAck => _ = o.text("frame_type", "unknown").number("frame_type_bytes", frame.type_id()),
        limits => of_limits(o, limits),
    }
}

fn acknowledgement(o: &mut Object<'_>, ack: &Ack<'_>, exponent: u32) {
    let delay = ack.delay.checked_shl(exponent).unwrap_or(u64::MAX);
    o.text("frame_type", "ack").ms("ack_delay", std::time::Duration::from_micros(delay));
    o.list("acked_ranges", |l| ack.ranges.take(RANGES_MAX).for_each(|(first, last)| l.range(first, last)));
    if let Some(ecn) = ack.ecn {
        o.number("ect1", ecn.ect1).number("ect0", ecn.ect0).number("ce", ecn.ce);
    }
}

fn close(o: &mut Object<'_>, frame: &Frame<'_>) {
    o.text("frame_type", "connection_close");
    match frame {
        Frame::ConnectionClose { code, frame_type, reason } => {
            o.text("error_space", "transport");
            transport_error(o, "error", *code);
            o.text("reason", &String::from_utf8_lossy(reason)).number("trigger_frame_type", *frame_type);
        }
        Frame::ApplicationClose { code, reason } => {
            o.text("error_space", "application").text("error", "unknown").number("error_code", *code);
            o.text("reason", &String::from_utf8_lossy(reason));
        }
        _ => {}
    }
}

/// A transport error by its name; one without a name by its number.
pub(super) fn transport_error(o: &mut Object<'_>, key: &str, code: TransportCode) {
    match (code.0, code.name()) {
        (0x100..=0x1ff, _) => _ = o.text(key, &format!("crypto_error_{:#x}", code.0)),
        (_, Some(name)) if KNOWN_ERRORS.contains(&name) => _ = o.text(key, &name.to_ascii_lowercase()),
        _ => _ = o.text(key, "unknown").number("error_code", code.0),
    }
}

/// Names of transport errors that the drafts know.
const KNOWN_ERRORS: [&str; 17] = [
    "NO_ERROR",
    "INTERNAL_ERROR",
    "CONNECTION_REFUSED",
    "FLOW_CONTROL_ERROR",
    "STREAM_LIMIT_ERROR",
    "STREAM_STATE_ERROR",
    "FINAL_SIZE_ERROR",
    "FRAME_ENCODING_ERROR",
    "TRANSPORT_PARAMETER_ERROR",
    "CONNECTION_ID_LIMIT_ERROR",
    "PROTOCOL_VIOLATION",
    "INVALID_TOKEN",
    "APPLICATION_ERROR",
    "CRYPTO_BUFFER_EXCEEDED",
    "KEY_UPDATE_ERROR",
    "AEAD_LIMIT_REACHED",
    "NO_VIABLE_PATH",
];

const fn stream_type(dir: Dir) -> &'static str {
    match dir {
        Dir::Bi => "bidirectional",
        Dir::Uni => "unidirectional",
    }
}

fn of_limits(o: &mut Object<'_>, frame: &Frame<'_>) {
    let mut say = |name: &str, numbers: &[(&str, u64)]| {
        o.text("frame_type", name);
        numbers.iter().for_each(|(key, v)| _ = o.number(key, *v));
    };
    match frame {
        Frame::MaxData { max } => say("max_data", &[("maximum", *max)]),
        Frame::MaxStreamData { id, max } => say("max_stream_data", &[("stream_id", id.0), ("maximum", *max)]),
        Frame::DataBlocked { limit } => say("data_blocked", &[("limit", *limit)]),
        Frame::StreamDataBlocked { id, limit } => {
            say("stream_data_blocked", &[("stream_id", id.0), ("limit", *limit)]);
        }
        Frame::RetireConnectionId { sequence } => say("retire_connection_id", &[("sequence_number", *sequence)]),
        Frame::ResetStream { id, code, final_size } => {
            say("reset_stream", &[("stream_id", id.0), ("error_code", *code), ("final_size", *final_size)]);
            o.text("error", "unknown");
        }
        Frame::ResetStreamAt { id, code, final_size, reliable_size } => {
            say("reset_stream_at", &[("stream_id", id.0), ("error_code", *code), ("final_size", *final_size)]);
            o.number("reliable_size", *reliable_size).text("error", "unknown");
        }
        Frame::StopSending { id, code } => {
            say("stop_sending", &[("stream_id", id.0), ("error_code", *code)]);
            o.text("error", "unknown");
        }
        Frame::MaxStreams { dir, max } => {
            say("max_streams", &[("maximum", *max)]);
            o.text("stream_type", stream_type(*dir));
        }
        Frame::StreamsBlocked { dir, limit } => {
            say("streams_blocked", &[("limit", *limit)]);
            o.text("stream_type", stream_type(*dir));
        }
        Frame::NewConnectionId { sequence, retire_prior_to, cid, .. } => {
            say("new_connection_id", &[("sequence_number", *sequence), ("retire_prior_to", *retire_prior_to)]);
            o.number("connection_id_length", cid.len() as u64).hex("connection_id", cid.as_slice());
        }
        Frame::PathChallenge(data) => _ = o.text("frame_type", "path_challenge").hex("data", data),
        Frame::PathResponse(data) => _ = o.text("frame_type", "path_response").hex("data", data),
        _ => _ = o.text("frame_type", "unknown").number("frame_type_bytes", frame.type_id()),
    }
}

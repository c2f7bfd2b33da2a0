//! Every kind of frame there is, as bytes that a peer with keys can send: the n-th of a kind for tables (`n` is 0) and for
//! floods (each other than the one before, where a frame has something that can differ).
//!
//! A frame is well formed and, as far as a peer may say it at all, allowed: what a receiver does about it follows from the
//! packet that it stands in and from its state alone. The few kinds that nobody may send at all are at the end of the list.

use courser_core::error::TransportCode;
use courser_core::ids::{Cid, Dir, ResetToken, Side, StreamId};
use courser_core::wire::Writer;
use courser_core::wire::frame::Frame;

use crate::rig::encode;

/// Who speaks, and what it may refer to.
#[derive(Clone, Copy, Debug)]
pub struct Speaker {
    /// The end that sends the frames.
    pub side: Side,
    /// A number of a packet that the other end has sent.
    pub acked: u64,
}

/// A kind of frame.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Its name in the RFCs, with the bits of its type where one frame has several.
    pub name: &'static str,
    /// Its type; of those that nobody may send the one that stands in the bytes.
    pub frame_type: u64,
    /// The frame reaches to the end of its packet: nothing can stand behind it.
    pub open_ended: bool,
    /// Bytes of the n-th frame.
    pub make: fn(Speaker, u64) -> Vec<u8>,
}

/// A frame type that no document defines.
pub const UNKNOWN: u64 = 0x21;
/// A frame type of the form that is reserved for exercising receivers that ignore HTTP/3 frames; QUIC has no such form.
pub const UNKNOWN_LONG: u64 = 0x1f * 7 + 0x21;

/// The stream of that number among those that the speaker opens.
fn own(speaker: Speaker, dir: Dir, n: u64) -> StreamId {
    StreamId::new(speaker.side, dir, n)
}

fn one(frame: &Frame<'_>) -> Vec<u8> {
    encode(core::slice::from_ref(frame))
}

fn raw(values: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0; 8 * values.len()];
    let mut w = Writer::new(&mut bytes);
    for value in values {
        w.varint(*value).expect("there is room");
    }
    let len = w.len();
    bytes.truncate(len);
    bytes
}

/// STREAM with each combination of bits: one byte of one of 32 streams, every second one, within 64 KiB.
fn stream(speaker: Speaker, n: u64, bits: u64) -> Vec<u8> {
    let id = own(speaker, Dir::Bi, n % 32).0;
    let offset = if bits & 4 == 0 { 0 } else { n / 32 * 2 % 65_536 };
    let mut bytes = raw(&[0x08 | bits, id]);
    if bits & 4 != 0 {
        bytes.extend(raw(&[offset]));
    }
    if bits & 2 != 0 {
        bytes.push(1);
    }
    bytes.push(b'x');
    bytes
}

fn new_connection_id(n: u64) -> Vec<u8> {
    let sequence = 50 + n;
    let name = sequence.to_be_bytes();
    let token = ResetToken(core::array::from_fn(|i| name[i % 8] ^ 0x33));
    let cid = Cid::new(&name).expect("the length is allowed");
    one(&Frame::NewConnectionId { sequence, retire_prior_to: sequence, cid, token })
}

const fn kind(name: &'static str, frame_type: u64, make: fn(Speaker, u64) -> Vec<u8>) -> Kind {
    Kind { name, frame_type, open_ended: false, make }
}

const fn open(name: &'static str, frame_type: u64, make: fn(Speaker, u64) -> Vec<u8>) -> Kind {
    Kind { name, frame_type, open_ended: true, make }
}

/// All kinds: those of RFC 9000 by type, those of extensions, and what is no frame.
pub const KINDS: &[Kind] = &[
    kind("PADDING", 0x00, |_, _| vec![0; 20]),
    kind("PING", 0x01, |_, _| vec![1]),
    kind("ACK", 0x02, |s, _| raw(&[0x02, s.acked, 0, 0, 0])),
    kind("ACK with ECN counts", 0x03, |s, _| raw(&[0x03, s.acked, 0, 0, 0, 0, 0, 0])),
    kind("RESET_STREAM", 0x04, |s, n| {
        one(&Frame::ResetStream { id: own(s, Dir::Uni, n % 64), code: n, final_size: 0 })
    }),
    kind("STOP_SENDING", 0x05, |s, n| one(&Frame::StopSending { id: own(s, Dir::Bi, n % 64), code: n })),
    kind("CRYPTO", 0x06, |_, n| one(&Frame::Crypto { offset: n * 2, data: b"x" })),
    kind("NEW_TOKEN", 0x07, |_, n| one(&Frame::NewToken { token: &n.to_be_bytes() })),
    open("STREAM", 0x08, |s, n| stream(s, n, 0)),
    open("STREAM, FIN", 0x09, |s, n| stream(s, n, 1)),
    kind("STREAM, LEN", 0x0a, |s, n| stream(s, n, 2)),
    kind("STREAM, LEN and FIN", 0x0b, |s, n| stream(s, n, 3)),
    open("STREAM, OFF", 0x0c, |s, n| stream(s, n, 4)),
    open("STREAM, OFF and FIN", 0x0d, |s, n| stream(s, n, 5)),
    kind("STREAM, OFF and LEN", 0x0e, |s, n| stream(s, n, 6)),
    kind("STREAM, OFF, LEN and FIN", 0x0f, |s, n| stream(s, n, 7)),
    kind("MAX_DATA", 0x10, |_, n| one(&Frame::MaxData { max: n << 20 })),
    kind("MAX_STREAM_DATA", 0x11, |s, n| one(&Frame::MaxStreamData { id: own(s, Dir::Bi, n % 64), max: n << 20 })),
    kind("MAX_STREAMS, two-way", 0x12, |_, n| one(&Frame::MaxStreams { dir: Dir::Bi, max: n << 8 })),
    kind("MAX_STREAMS, one-way", 0x13, |_, n| one(&Frame::MaxStreams { dir: Dir::Uni, max: n << 8 })),
    kind("DATA_BLOCKED", 0x14, |_, n| one(&Frame::DataBlocked { limit: n })),
    kind("STREAM_DATA_BLOCKED", 0x15, |s, n| one(&Frame::StreamDataBlocked { id: own(s, Dir::Uni, n % 64), limit: n })),
    kind("STREAMS_BLOCKED, two-way", 0x16, |_, n| one(&Frame::StreamsBlocked { dir: Dir::Bi, limit: n })),
    kind("STREAMS_BLOCKED, one-way", 0x17, |_, n| one(&Frame::StreamsBlocked { dir: Dir::Uni, limit: n })),
    kind("NEW_CONNECTION_ID", 0x18, |_, n| new_connection_id(n)),
    kind("RETIRE_CONNECTION_ID", 0x19, |_, n| one(&Frame::RetireConnectionId { sequence: 1 + n })),
    kind("PATH_CHALLENGE", 0x1a, |_, n| one(&Frame::PathChallenge(n.to_be_bytes()))),
    kind("PATH_RESPONSE", 0x1b, |_, n| one(&Frame::PathResponse(n.to_be_bytes()))),
    kind("CONNECTION_CLOSE", 0x1c, |_, _| {
        one(&Frame::ConnectionClose { code: TransportCode::NO_ERROR, frame_type: 0, reason: b"" })
    }),
    kind("CONNECTION_CLOSE of the application", 0x1d, |_, _| one(&Frame::ApplicationClose { code: 9, reason: b"" })),
    kind("HANDSHAKE_DONE", 0x1e, |_, _| vec![0x1e]),
    kind("IMMEDIATE_ACK", 0x1f, |_, _| vec![0x1f]),
    kind("RESET_STREAM_AT", 0x24, |s, n| {
        one(&Frame::ResetStreamAt {
            id: own(s, Dir::Uni, n % 64),
            code: 7,
            final_size: 100,
            reliable_size: 90 - n % 64,
        })
    }),
    open("DATAGRAM", 0x30, |_, n| [&[0x30][..], &n.to_be_bytes(), &[7; 92]].concat()),
    kind("DATAGRAM, LEN", 0x31, |_, n| [&[0x31, 0x40, 100][..], &n.to_be_bytes(), &[7; 92]].concat()),
    kind("ACK_FREQUENCY", 0xaf, |_, n| raw(&[0xaf, n, 1 + n % 9, 25_000, n % 5])),
    kind("a frame type of no document", UNKNOWN, |_, _| raw(&[UNKNOWN, 0, 0])),
    kind("a frame type of the form that HTTP/3 reserves", UNKNOWN_LONG, |_, _| raw(&[UNKNOWN_LONG, 0])),
    kind("the frame type 2^62 - 1", (1 << 62) - 1, |_, _| vec![0xff; 8]),
    kind("PING with a type of two bytes", 0x01, |_, _| vec![0x40, 0x01]),
    kind("STREAM with a type of eight bytes", 0x0a, |s, _| {
        [&[0xc0, 0, 0, 0, 0, 0, 0, 0x0a][..], &raw(&[own(s, Dir::Bi, 0).0, 0])].concat()
    }),
    kind("nothing", 0x00, |_, _| vec![]),
];

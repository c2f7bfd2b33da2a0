//! Targets for fuzzing: each takes any bytes and returns when nothing bad happened, or panics.
//!
//! Decoders are held to: no panic; what was understood can be written again and means the same. The engine is held to: no
//! panic, every call returns, memory stays within a bound, what it closes with is a code of the RFCs, and nothing is left
//! of a connection once its time has passed.
//!
//! For the engine the bytes are a script. Its packets are sealed with the right keys, so that a fuzzer gets behind the
//! packet protection and plays with frames.

use core::time::Duration;

use courser_core::ids::{Cid, Dir, Level, Side, Version};
use courser_core::path::{Checked, Showing, TokenKeys, Tokens};
use courser_core::protect::client_hello::parse_client_hello;
use courser_core::protect::null::NullKeys;
use courser_core::stream::Read;
use courser_core::time::Instant;
use courser_core::wire::frame::{self, Extensions};
use courser_core::wire::{Reader, Writer, header, params, pn, varint};

use crate::rig::{Rig, Stage};

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 7] = [
    ("varint", varint_and_number),
    ("header", packet_header),
    ("frame", frames),
    ("params", transport_params),
    ("client_hello", client_hello),
    ("token", token),
    ("engine", engine),
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, run)| *run)
}

/// Variable-length integers, and packet numbers cut and expanded.
///
/// # Panics
/// When a value does not survive.
pub fn varint_and_number(data: &[u8]) {
    let mut r = Reader::new(data);
    while let Some(value) = r.varint() {
        let mut out = [0; 8];
        let mut w = Writer::new(&mut out);
        w.varint(value).expect("eight bytes are enough");
        let len = w.len();
        assert_eq!(len, varint::size(value));
        assert_eq!(Reader::new(&out[..len]).varint(), Some(value));
        let acked = r.varint().map(|a| a % (value + 1));
        let len = pn::length(value, acked);
        assert!((1..=4).contains(&len));
    }
}

/// Packet headers.
///
/// # Panics
/// When a header says what its datagram cannot hold.
pub fn packet_header(data: &[u8]) {
    let mut rest = data;
    while let Ok(found) = header::decode(rest, 8) {
        assert!(header::destination(rest, 8).is_some(), "what has a header has a destination");
        match found.long() {
            Some(long) => {
                assert!(long.pn_at <= long.end && long.end <= rest.len());
                rest = &rest[long.end..];
            }
            None => return,
        }
        if rest.is_empty() {
            return;
        }
    }
}

/// Frames of a payload.
///
/// # Panics
/// When a frame is not the same after it was written and read again.
pub fn frames(data: &[u8]) {
    let extensions = Extensions { max_datagram_frame: 65_535, min_ack_delay_us: Some(1000), reset_stream_at: true };
    let mut r = Reader::new(data);
    while !r.is_empty() {
        let Ok(parsed) = frame::parse(&mut r, extensions) else { return };
        let mut out = vec![0; data.len() + 64];
        let mut w = Writer::new(&mut out);
        if parsed.encode(&mut w).is_none() {
            continue;
        }
        let len = w.len();
        let again = frame::parse(&mut Reader::new(&out[..len]), extensions);
        assert_eq!(again.as_ref(), Ok(&parsed));
    }
}

/// Transport parameters of both sides.
///
/// # Panics
/// When they are not the same after they were written and read again.
pub fn transport_params(data: &[u8]) {
    for side in [Side::Client, Side::Server] {
        if let Ok(parsed) = params::decode(data, side) {
            let mut out = Vec::new();
            params::encode(&parsed, side, 7, &mut out);
            assert_eq!(params::decode(&out, side).as_ref(), Ok(&parsed));
        }
    }
}

/// The reader of the ClientHello.
pub fn client_hello(data: &[u8]) {
    let _ = parse_client_hello(data);
}

/// Address tokens: bytes that were not made with the key prove nothing.
///
/// # Panics
/// When they do.
pub fn token(data: &[u8]) {
    let tokens = Tokens::new(&NullKeys, &TokenKeys::new([3; 32]), Duration::ZERO);
    let (now, dcid) = (Instant::from_micros(5_000_000), Cid::EMPTY);
    let at = Showing { version: Version::V1, now, peer: crate::rig::FORGER, dcid };
    let checked = tokens.check(&NullKeys, &at, data);
    assert!(!matches!(checked, Checked::Good(_)), "nobody guesses a checksum");
}

/// A script for the engine: the first byte says which end is under test and how far the handshake is; then follow
/// actions, each a byte of kind, a byte of length, and that many bytes.
///
/// # Panics
/// When the engine breaks a promise.
pub fn engine(data: &[u8]) {
    let Some((first, script)) = data.split_first() else { return };
    let victim = if first & 1 == 0 { Side::Server } else { Side::Client };
    let stage = [Stage::Initial, Stage::Handshake, Stage::Confirmed, Stage::Confirmed][usize::from(first >> 1 & 3)];
    let mut rig = Rig::at(victim, stage);
    let mut r = Reader::new(script);
    let mut closed = None;
    for _ in 0..64 {
        let (Some(kind), Some(len)) = (r.u8(), r.u8()) else { break };
        let bytes = r.bytes(usize::from(len)).unwrap_or_else(|| r.rest());
        act(&mut rig, kind, bytes);
        let seen = rig.collect();
        closed = closed.or(seen.code());
        // A window of receive credit, some handshake data, and room for both to lie in chunks badly.
        assert!(rig.victim.pool_stats().in_use_bytes <= 2 << 20, "{:?}", rig.victim.pool_stats());
        assert!(seen.datagrams.len() <= 200, "an answer of {} datagrams", seen.datagrams.len());
    }
    if let Some(code) = closed {
        assert!(code <= 0x11 || (0x100..0x200).contains(&code) || code == APPLICATION, "close with {code:#x}");
        assert!(code != 0x1, "an error of our own");
    }
    end(&mut rig);
}

/// The code that the script's application closes with.
const APPLICATION: u64 = 0x1234;

fn act(rig: &mut Rig, kind: u8, bytes: &[u8]) {
    let levels = match rig.stage() {
        Stage::Confirmed => [Level::OneRtt; 2],
        Stage::Initial => [Level::Initial; 2],
        Stage::Handshake => [Level::Initial, Level::Handshake],
    };
    let level = levels[usize::from(kind >> 3 & 1)];
    match kind & 7 {
        0..=2 => rig.give(level, bytes),
        3 => {
            // A gap in the numbers, or a number that was there before.
            let (skip, payload) = bytes.split_first().map_or((0, bytes), |(n, rest)| (*n, rest));
            let next = rig.next_pn[level.space().index()];
            let pn = if skip & 1 == 0 { next + u64::from(skip) } else { next.saturating_sub(u64::from(skip)) };
            let packet = rig.forge_numbered(level, pn, payload, |_| {});
            rig.next_pn[level.space().index()] = next.max(pn + 1);
            rig.give_packet(level, packet);
        }
        4 => {
            let mut datagram = bytes.to_vec();
            // Most bytes behind a header that leads to the connection get further than noise.
            if kind & 16 != 0 {
                let mut packet = rig.forge(level, &[1; 40]);
                let at = usize::from(bytes.first().copied().unwrap_or(0)) % packet.len();
                packet.splice(at.., bytes.iter().copied());
                datagram = packet;
            }
            rig.deliver(&mut datagram);
        }
        5 => rig.pass(Duration::from_millis(1 << (bytes.len() % 14))),
        6 => rig.acknowledge_if_confirmed(),
        _ => application(rig, bytes),
    }
}

/// What an application might do meanwhile.
fn application(rig: &mut Rig, bytes: &[u8]) {
    let (key, now) = (rig.key, rig.now);
    for byte in bytes {
        let dir = if byte & 8 == 0 { Dir::Bi } else { Dir::Uni };
        match byte & 7 {
            0 => {
                if let Ok(Some(id)) = rig.victim.open_stream(key, dir) {
                    let _ = rig.victim.write(key, id, &[*byte; 3000]);
                    if byte & 0x30 == 0x30 {
                        let _ = rig.victim.reset_at(key, id, 9, u64::from(*byte) * 10);
                    }
                    let _ = rig.victim.finish(key, id);
                }
            }
            1 => {
                if let Ok(Some(id)) = rig.victim.accept_stream(key, dir) {
                    let mut out = [0; 1000];
                    while let Ok(Read::Bytes(_)) = rig.victim.read(key, id, &mut out) {}
                }
            }
            2 => {
                if let Ok(Some(id)) = rig.victim.accept_stream(key, dir) {
                    let _ = rig.victim.stop_sending(key, id, 9);
                    let _ = rig.victim.reset(key, id, 9);
                }
            }
            3 => drop(rig.victim.ping(key)),
            4 => drop(rig.victim.update_keys(now, key)),
            5 => drop(rig.victim.read_datagram(key)),
            6 => drop(rig.victim.take_token(key)),
            _ if *byte == 0xff => drop(rig.victim.close(now, key, APPLICATION, b"script")),
            _ => {
                let data = bytes::Bytes::from_static(&[7; 300]);
                let _ = rig.victim.send_datagram(key, data, Some(u64::from(*byte)));
                let _ = rig.victim.poll_datagram_fate(key);
            }
        }
    }
}

/// Whatever happened: after enough silence nothing is left.
fn end(rig: &mut Rig) {
    for _ in 0..6 {
        rig.pass(Duration::from_secs(60));
    }
    assert_eq!((rig.victim.connections(), rig.victim.route_count()), (0, 0), "a connection outlives all timeouts");
    assert_eq!(rig.victim.pool_stats().in_use, 0, "chunks are lost");
}

/// Pseudo-random mutation of an input, for tests without a fuzzer. The same seed gives the same bytes.
#[must_use]
pub fn mutate(input: &[u8], other: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 11).unwrap_or(0) % below.max(1)
    };
    let mut out = input.to_vec();
    for _ in 0..=next(4) {
        let at = next(out.len());
        match next(8) {
            0 if !out.is_empty() => out[at] ^= 1 << next(8),
            1 if !out.is_empty() => out[at] = [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff][next(8)],
            2 => out.insert(at, u8::try_from(next(256)).unwrap_or(0)),
            3 if !out.is_empty() => drop(out.remove(at)),
            4 => out.truncate(at),
            5 => {
                let from = next(other.len());
                let piece: Vec<u8> = other[from..].iter().copied().take(1 + next(40)).collect();
                out.splice(at..at, piece);
            }
            6 => {
                let piece: Vec<u8> = out[at.min(out.len())..].iter().copied().take(1 + next(30)).collect();
                out.extend(piece);
            }
            _ if !out.is_empty() => out[at] = u8::try_from(next(256)).unwrap_or(0),
            _ => out.push(u8::try_from(next(256)).unwrap_or(0)),
        }
    }
    out.truncate(4096);
    out
}

//! Looks into datagrams of the null provider, whose packets are readable on the wire. For taps.

use core::ops::Range;

use courser_core::ids::Level;
use courser_core::spans::{FrameKind, FrameSet};
use courser_core::wire::Reader;
use courser_core::wire::frame::{self, Extensions, Frame};
use courser_core::wire::header::{self, Header};

/// Length of the connection IDs that our engines issue.
const OWN_CID_LEN: usize = 8;
const TAG_LEN: usize = 16;

/// A packet on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Level.
    pub level: Level,
    /// The low bits of its number, as they are sent.
    pub pn: u32,
    /// Key phase; false for long headers.
    pub phase: bool,
    /// Frames.
    pub frames: FrameSet,
    /// Where the whole packet lies in the datagram.
    pub at: Range<usize>,
}

/// The packets of a datagram, as far as they are packets of the null provider.
#[must_use]
pub fn packets(datagram: &[u8]) -> Vec<Packet> {
    let mut all = Vec::new();
    let mut from = 0;
    while let Some(bytes) = datagram.get(from..).filter(|b| !b.is_empty()) {
        let Some((level, pn_at, end)) = bounds(bytes) else { break };
        let pn_len = usize::from(bytes[0] & 3) + 1;
        let Some(payload) = end.checked_sub(TAG_LEN).and_then(|to| bytes.get(pn_at + pn_len..to)) else { break };
        let pn = bytes[pn_at..pn_at + pn_len].iter().fold(0, |n, b| n << 8 | u32::from(*b));
        let phase = level == Level::OneRtt && bytes[0] & 4 != 0;
        all.push(Packet { level, pn, phase, frames: frames(payload), at: from..from + end });
        from += end;
    }
    all
}

/// Whether some packet of the datagram has a frame of that kind.
#[must_use]
pub fn has(datagram: &[u8], kind: FrameKind) -> bool {
    packets(datagram).iter().any(|p| p.frames.contains(kind))
}

/// The frames of a datagram, packet by packet.
#[must_use]
pub fn frames_of(datagram: &[u8]) -> Vec<(Level, Vec<Frame<'_>>)> {
    let all = packets(datagram).into_iter();
    all.filter_map(|p| {
        let bytes = &datagram[p.at.clone()];
        let (level, pn_at, end) = bounds(bytes)?;
        let payload = bytes.get(pn_at + usize::from(bytes[0] & 3) + 1..end.checked_sub(TAG_LEN)?)?;
        let mut r = Reader::new(payload);
        let next = || (!r.is_empty()).then(|| frame::parse(&mut r, Extensions::ALL).ok()).flatten();
        Some((level, core::iter::from_fn(next).collect()))
    })
    .collect()
}

fn bounds(bytes: &[u8]) -> Option<(Level, usize, usize)> {
    match header::decode(bytes, OWN_CID_LEN).ok()? {
        Header::Initial(l) | Header::ZeroRtt(l) | Header::Handshake(l) => Some((l.level, l.pn_at, l.end)),
        Header::Short { pn_at, .. } => Some((Level::OneRtt, pn_at, bytes.len())),
        _ => None,
    }
}

fn frames(payload: &[u8]) -> FrameSet {
    let mut set = FrameSet::EMPTY;
    let mut r = Reader::new(payload);
    while !r.is_empty() {
        let Ok(frame) = frame::parse(&mut r, Extensions::ALL) else { break };
        set.insert(frame.kind());
    }
    set
}

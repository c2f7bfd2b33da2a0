//! Reading what was sent under null keys, which hide nothing.

use courser_core::crypto::TAG_LEN;
use courser_core::ids::Level;
use courser_core::wire::frame::{self, Extensions, Frame};
use courser_core::wire::header::{self, Header};
use courser_core::wire::{Reader, Writer};

use super::CID_LEN;

/// A CONNECTION_CLOSE frame that was seen on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenClose {
    /// Level of its packet.
    pub level: Level,
    /// Error code.
    pub code: u64,
    /// The blamed frame type; `None` in an application's close.
    pub frame_type: Option<u64>,
    /// The reason phrase.
    pub reason: Vec<u8>,
}

/// What the engine under test sent.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Datagrams to the forger.
    pub datagrams: Vec<Vec<u8>>,
    /// The first close in them.
    pub close: Option<SeenClose>,
}

impl Seen {
    /// Error code of the first close.
    #[must_use]
    pub fn code(&self) -> Option<u64> {
        self.close.as_ref().map(|c| c.code)
    }

    /// Bytes of all datagrams.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.datagrams.iter().map(Vec::len).sum()
    }
}

/// Bytes of frames.
///
/// # Panics
/// When they do not fit a datagram.
#[must_use]
pub fn encode(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = vec![0; 65_536];
    let mut w = Writer::new(&mut bytes);
    for frame in frames {
        frame.encode(&mut w).expect("there is room");
    }
    let len = w.len();
    bytes.truncate(len);
    bytes
}

/// The packets of a datagram that null keys sealed, with their payloads.
#[must_use]
pub fn packets(datagram: &[u8]) -> Vec<(Level, Vec<u8>)> {
    numbered(datagram).into_iter().map(|(level, _, payload)| (level, payload)).collect()
}

/// The packets of a datagram that null keys sealed, with their numbers as far as they are sent, and their payloads.
#[must_use]
pub fn numbered(datagram: &[u8]) -> Vec<(Level, u64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let (level, pn_at, end) = match header::decode(rest, CID_LEN) {
            Ok(Header::Short { pn_at, .. }) => (Level::OneRtt, pn_at, rest.len()),
            Ok(other) => match other.long() {
                Some(l) => (l.level, l.pn_at, l.end),
                None => break,
            },
            Err(_) => break,
        };
        let from = pn_at + header::pn_len(rest[0]);
        if let Some(payload) = end.checked_sub(TAG_LEN).and_then(|to| rest.get(from..to)) {
            let pn = rest[pn_at..from].iter().fold(0, |n, b| n << 8 | u64::from(*b));
            found.push((level, pn, payload.to_vec()));
        }
        rest = &rest[end..];
    }
    found
}

/// The first close in a payload.
pub(super) fn close_in(level: Level, payload: &[u8]) -> Option<SeenClose> {
    let mut reader = Reader::new(payload);
    let extensions = Extensions { min_ack_delay_us: None, ..Extensions::ALL };
    while !reader.is_empty() {
        match frame::parse(&mut reader, extensions).ok()? {
            Frame::ConnectionClose { code, frame_type, reason } => {
                return Some(SeenClose { level, code: code.0, frame_type: Some(frame_type), reason: reason.to_vec() });
            }
            Frame::ApplicationClose { code, reason } => {
                return Some(SeenClose { level, code, frame_type: None, reason: reason.to_vec() });
            }
            _ => {}
        }
    }
    None
}

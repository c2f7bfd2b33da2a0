//! Which frame may be in which packet (RFC 9000 sections 12.4 and 12.5, RFC 9221 section 5).

use crate::error::{PeerViolation, TransportCode};
use crate::ids::Level;
use crate::spans::{FrameKind, FrameSet};

/// Frames of Initial and Handshake packets.
const HANDSHAKE: FrameSet =
    FrameSet::of(&[FrameKind::Padding, FrameKind::Ping, FrameKind::Ack, FrameKind::Crypto, FrameKind::ConnectionClose]);

/// Frames that 0-RTT packets cannot carry; everything else of the application data space can be in them.
const NOT_EARLY: FrameSet = FrameSet::of(&[
    FrameKind::Ack,
    FrameKind::Crypto,
    FrameKind::HandshakeDone,
    FrameKind::NewToken,
    FrameKind::PathResponse,
    FrameKind::RetireConnectionId,
    FrameKind::AckFrequency,
    FrameKind::ImmediateAck,
]);

/// Whether a frame of that kind may be in a packet of that level.
#[must_use]
#[inline]
pub const fn permitted(kind: FrameKind, level: Level) -> bool {
    match level {
        Level::Initial | Level::Handshake => HANDSHAKE.contains(kind),
        Level::ZeroRtt => !NOT_EARLY.contains(kind),
        Level::OneRtt => true,
    }
}

/// The same as an answer to the peer.
///
/// # Errors
/// PROTOCOL_VIOLATION when the frame may not be there.
#[inline]
pub const fn check_permitted(kind: FrameKind, level: Level) -> Result<(), PeerViolation> {
    if permitted(kind, level) {
        return Ok(());
    }
    //= rfc9000#12.4-3, rfc9000#12.5-1, rfc9000#12.5-2, rfc9000#17.2.4-1
    Err(PeerViolation::new(
        TransportCode::PROTOCOL_VIOLATION,
        "a frame is not permitted in this type of packet",
        "rfc9000#12.4",
    ))
}

//! How the ends of the engine's connections are told to applications.

use bytes::Bytes;
use courser_core::error::CloseReason;
pub use courser_session::reason::{Ended, Reason};

/// What a session of a connection that ended so is told.
pub(super) fn ended(reason: &CloseReason) -> Ended {
    let ended = |reason, code, text: &[u8]| Ended { reason, code, text: Bytes::copy_from_slice(text) };
    match reason {
        CloseReason::LocalApplication { code, reason } => ended(Reason::ClosedHere, *code, reason),
        CloseReason::PeerApplication { code, reason } => ended(Reason::ClosedByPeer, *code, reason),
        CloseReason::Violation(v) => ended(Reason::PeerBroke, v.code.0, v.to_string().as_bytes()),
        CloseReason::PeerTransport { code, reason, .. } => ended(Reason::PeerTransport, code.0, reason),
        CloseReason::Tls { alert, reason } => ended(Reason::Tls, u64::from(*alert), reason.as_bytes()),
        CloseReason::IdleTimeout => Ended::plain(Reason::Idle),
        CloseReason::HandshakeTimeout => Ended::plain(Reason::HandshakeTimeout),
        CloseReason::StatelessReset => Ended::plain(Reason::PeerReset),
        CloseReason::VersionNegotiation { .. } => ended(Reason::Version, 0, reason.to_string().as_bytes()),
        CloseReason::Refused => Ended::plain(Reason::Refused),
        CloseReason::Internal(what) => ended(Reason::Internal, 0, what.as_bytes()),
        other => ended(Reason::Internal, 0, other.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_peer_said_is_told() {
        let reason = CloseReason::PeerApplication { code: 7, reason: b"bye\n".to_vec() };
        assert_eq!(ended(&reason).to_string(), "closed by the peer with code 7: bye\\n");
        assert_eq!(ended(&CloseReason::IdleTimeout).reason, Reason::Idle);
    }
}

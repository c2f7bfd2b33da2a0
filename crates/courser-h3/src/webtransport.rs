//! WebTransport over HTTP/3: what begins a stream of a session, and how its error codes stand among those of HTTP/3.
//!
//! A session is an extended CONNECT request; its ID is that of the request's stream. Streams of the session begin with a
//! signal and the session's ID; what follows belongs to the application. Written after the draft of July 2026; the signals and
//! codes are the same since draft 2, which browsers speak.

use bytes::Bytes;
use courser_core::ids::{Dir, Side, StreamId};

use crate::frame::{kind, push_varint, stream_type};

/// Values of `:protocol` that ask for a session: those of the newest draft and of the ones before.
pub const PROTOCOLS: [&str; 2] = ["webtransport-h3", "webtransport"];
/// Streams of a session that is not known, and for which there is no room to wait.
pub const WT_BUFFERED_STREAM_REJECTED: u64 = 0x3994_bd84;
/// The session of the stream is over.
pub const WT_SESSION_GONE: u64 = 0x170d_7b68;
/// The error code 0 of an application.
const FIRST: u64 = 0x52e4_a40f_a8db;
/// The largest error code of an application.
const LAST: u64 = 0x52e5_ac98_3162;

/// What a new stream of `session` has to begin with.
#[must_use]
pub fn stream_head(dir: Dir, session: StreamId) -> Bytes {
    let mut out = Vec::with_capacity(10);
    push_varint(&mut out, if dir == Dir::Bi { kind::WT_STREAM } else { stream_type::WEBTRANSPORT });
    push_varint(&mut out, session.0);
    Bytes::from(out)
}

/// Whether a session may have that ID: it is that of a request stream.
#[must_use]
pub const fn is_session_id(id: u64) -> bool {
    let id = StreamId(id);
    matches!((id.initiator(), id.dir()), (Side::Client, Dir::Bi))
}

/// An application's error code for a stream, as it stands in QUIC frames.
#[must_use]
pub const fn to_wire(code: u32) -> u64 {
    // Widening: 32 bits fit.
    let code = code as u64;
    FIRST + code + code / 0x1e
}

/// The application's error code of a stream; `None` for codes that are none.
#[must_use]
pub fn from_wire(code: u64) -> Option<u32> {
    if !(FIRST..=LAST).contains(&code) || crate::frame::is_reserved(code) {
        return None;
    }
    let shifted = code - FIRST;
    u32::try_from(shifted - shifted / 0x1f).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn error_codes_survive_the_wire_and_are_never_reserved(code: u32) {
            prop_assert!(!crate::frame::is_reserved(to_wire(code)));
            prop_assert_eq!(from_wire(to_wire(code)), Some(code));
        }
    }

    #[test]
    fn the_ends_of_the_range_are_those_of_the_draft() {
        assert_eq!((to_wire(0), to_wire(u32::MAX)), (FIRST, LAST));
        assert_eq!((from_wire(FIRST - 1), from_wire(LAST + 1)), (None, None));
        let reserved = (FIRST..FIRST + 31).find(|c| crate::frame::is_reserved(*c)).unwrap();
        assert_eq!(from_wire(reserved), None);
    }

    #[test]
    fn streams_begin_with_their_signal_and_session() {
        assert_eq!(&stream_head(Dir::Bi, StreamId(4))[..], [0x40, 0x41, 4]);
        assert_eq!(&stream_head(Dir::Uni, StreamId(400))[..], [0x40, 0x54, 0x41, 0x90]);
        assert!(is_session_id(0) && is_session_id(4) && !is_session_id(1) && !is_session_id(2) && !is_session_id(3));
    }
}

//! WebTransport over HTTP/3: what begins a stream of a session, and how its error codes stand among those of HTTP/3.
//!
//! A session is an extended CONNECT request; its ID is that of the request's stream. Streams of the session begin with a
//! signal and the session's ID; what follows belongs to the application. Written after the draft of July 2026; the signals and
//! codes are the same since draft 2, which browsers speak.

pub mod flow;

use bytes::{Buf, Bytes};
use courser_core::ids::{Dir, Side, StreamId};
use courser_core::wire::Reader;

use crate::capsule;
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

/// Whether a request asks for a session: an extended CONNECT with one of the [`PROTOCOLS`].
#[must_use]
pub fn is_asked_for_by(head: &http::request::Parts) -> bool {
    head.method == http::Method::CONNECT
        && head.extensions.get::<crate::Protocol>().is_some_and(|p| PROTOCOLS.contains(&p.as_str()))
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

/// The longest reason with which a session is closed, in bytes.
pub const REASON_MAX: usize = 1024;

/// The value of a WT_CLOSE_SESSION capsule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseSession {
    /// The application's code.
    pub code: u32,
    /// The application's reason, UTF-8.
    pub reason: Bytes,
}

impl CloseSession {
    /// Reads the value of a capsule; `None` when it is malformed, and with it the message.
    //= rfc9297#3.3-2, rfc9297#3.3-3, rfc9297#3.3-4
    #[must_use]
    pub fn decode(mut value: Bytes) -> Option<Self> {
        let code = Reader::new(&value).u32()?;
        value.advance(4);
        let good = value.len() <= REASON_MAX && std::str::from_utf8(&value).is_ok();
        good.then_some(Self { code, reason: value })
    }

    /// Appends the capsule.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut value = Vec::with_capacity(4 + self.reason.len());
        value.extend_from_slice(&self.code.to_be_bytes());
        value.extend_from_slice(&self.reason);
        capsule::encode(capsule::WT_CLOSE_SESSION, &value, out);
    }
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

    #[test]
    fn a_session_is_closed_with_a_code_and_a_reason_and_nothing_else() {
        //= rfc9297#3.3-2 type=test
        //= rfc9297#3.3-3 type=test
        //= rfc9297#3.3-4 type=test
        for (value, code) in
            [(&b"\0\0\0\x07bye"[..], Some(7)), (b"\0\0\0\x07", Some(7)), (b"\0\0\0", None), (b"\0\0\0\0\xff", None)]
        {
            let read = CloseSession::decode(Bytes::from_static(value));
            assert_eq!(read.as_ref().map(|c| c.code), code);
            let mut out = Vec::new();
            if let Some(close) = read {
                close.encode(&mut out);
                assert_eq!(&out[..3], [0x68, 0x43, value.len() as u8]);
                assert_eq!(&out[3..], value);
            }
        }
        assert_eq!(CloseSession::decode(Bytes::from(vec![b'a'; REASON_MAX + 5])), None);
        assert!(CloseSession::decode(Bytes::from(vec![0; REASON_MAX + 4])).is_some());
    }
}

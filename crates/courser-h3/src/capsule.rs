//! Capsules (RFC 9297 section 3.2): type, length and value, in the DATA frames of a request that switched to them.
//!
//! [`CapsuleReader`] takes the content of a message as it comes. Capsules whose type the caller does not want, and those whose
//! value is longer than it stores, are skipped without being kept; values are bounded by the caller's limit.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use bytes::{Bytes, BytesMut};

use crate::frame::{FrameReader, push_varint};
use crate::priority::{Item, Parser};
use crate::wide;

/// An HTTP datagram that travels on the stream.
pub const DATAGRAM: u64 = 0x00;
/// A WebTransport session ends, with a code and a reason.
pub const WT_CLOSE_SESSION: u64 = 0x2843;
/// A WebTransport session is about to end.
pub const WT_DRAIN_SESSION: u64 = 0x78ae;
/// How many bytes may be sent on the streams of a WebTransport session.
pub const WT_MAX_DATA: u64 = 0x190b_4d3d;
/// Forbidden over HTTP/3, where streams have limits of their own.
pub const WT_MAX_STREAM_DATA: u64 = 0x190b_4d3e;
/// How many two-way streams may be opened in a WebTransport session.
pub const WT_MAX_STREAMS_BIDI: u64 = 0x190b_4d3f;
/// How many one-way streams may be opened in a WebTransport session.
pub const WT_MAX_STREAMS_UNI: u64 = 0x190b_4d40;
/// Bytes wait for a larger limit.
pub const WT_DATA_BLOCKED: u64 = 0x190b_4d41;
/// Forbidden over HTTP/3, where streams have limits of their own.
pub const WT_STREAM_DATA_BLOCKED: u64 = 0x190b_4d42;
/// A two-way stream waits for a larger limit.
pub const WT_STREAMS_BLOCKED_BIDI: u64 = 0x190b_4d43;
/// A one-way stream waits for a larger limit.
pub const WT_STREAMS_BLOCKED_UNI: u64 = 0x190b_4d44;

/// Whether capsules of that type are about the limits of a WebTransport session.
#[must_use]
pub const fn is_about_limits(kind: u64) -> bool {
    matches!(kind, WT_MAX_DATA..=WT_STREAMS_BLOCKED_UNI)
}

/// What a [`CapsuleReader`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capsule {
    /// A whole capsule.
    Whole {
        /// Its type.
        kind: u64,
        /// Its value.
        value: Bytes,
    },
    /// A capsule of that type was too long to be stored, and is skipped.
    TooLong {
        /// Its type.
        kind: u64,
        /// The length of its value.
        len: u64,
    },
}

/// Takes content apart into capsules.
#[derive(Debug)]
pub struct CapsuleReader {
    frames: FrameReader,
    /// The open capsule's type, and its value as far as it came; `None` while it is skipped.
    value: Option<(u64, BytesMut)>,
    /// The longest value that is stored, in bytes.
    value_max: usize,
    /// Which types somebody wants.
    wanted: fn(u64) -> bool,
}

impl CapsuleReader {
    /// A reader that stores values of at most `value_max` bytes of types that are `wanted`.
    #[must_use]
    pub fn new(value_max: usize, wanted: fn(u64) -> bool) -> Self {
        Self { frames: FrameReader::new(), value: None, value_max, wanted }
    }

    /// The next capsule in `content`, which is taken from as far as needed; `None` when more content is needed.
    //= rfc9297#3.2-3
    pub fn next(&mut self, content: &mut Bytes) -> Option<Capsule> {
        loop {
            if self.frames.open().is_none() {
                let head = self.frames.header(content)?;
                self.value = None;
                if (self.wanted)(head.kind) {
                    if self.frames.is_whole_in(content) && head.len <= wide(self.value_max) {
                        return Some(Capsule::Whole { kind: head.kind, value: self.frames.payload(content) });
                    }
                    //= rfc9297#3.5-5
                    if head.len > wide(self.value_max) {
                        return Some(Capsule::TooLong { kind: head.kind, len: head.len });
                    }
                    self.value = Some((head.kind, BytesMut::new()));
                }
            }
            let part = self.frames.payload(content);
            if let Some((_, value)) = &mut self.value {
                value.extend_from_slice(&part);
            }
            if self.frames.open().is_some() {
                return None;
            }
            if let Some((kind, value)) = self.value.take() {
                return Some(Capsule::Whole { kind, value: value.freeze() });
            }
        }
    }

    /// Whether the content may end here. When it may not, the message is malformed (RFC 9297 section 3.3).
    //= rfc9297#3.3-5
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.frames.is_between_frames()
    }
}

/// Appends a capsule.
pub fn encode(kind: u64, value: &[u8], out: &mut Vec<u8>) {
    push_varint(out, kind);
    push_varint(out, wide(value.len()));
    out.extend_from_slice(value);
}

/// Whether the value of a Capsule-Protocol field says that capsules are used; anything but a true Boolean does not.
//= rfc9297#3.4-1, rfc9297#3.4-2
#[must_use]
pub fn is_announced_by(value: &[u8]) -> bool {
    Parser { rest: value }.single_item() == Some(Item::Boolean(true))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(reader: &mut CapsuleReader, pieces: impl IntoIterator<Item = Bytes>) -> Vec<Capsule> {
        let mut found = Vec::new();
        for mut piece in pieces {
            while let Some(capsule) = reader.next(&mut piece) {
                found.push(capsule);
            }
            assert!(piece.is_empty());
        }
        found
    }

    proptest! {
        #[test]
        fn capsules_read_the_same_whole_or_byte_by_byte(
            capsules in proptest::collection::vec((0..6u64, proptest::collection::vec(any::<u8>(), 0..40)), 0..8)
        ) {
            //= rfc9297#3.2-3 type=test
            let mut wire = Vec::new();
            for (kind, value) in &capsules {
                encode(*kind, value, &mut wire);
            }
            let mut expected = Vec::new();
            for (kind, value) in capsules {
                if kind < 4 && value.len() <= 20 {
                    expected.push(Capsule::Whole { kind, value: value.into() });
                } else if kind < 4 {
                    expected.push(Capsule::TooLong { kind, len: wide(value.len()) });
                }
            }
            let reader = || CapsuleReader::new(20, |kind| kind < 4);
            let single: Vec<Bytes> = wire.iter().map(|b| Bytes::copy_from_slice(&[*b])).collect();
            prop_assert_eq!(&read(&mut reader(), [Bytes::from(wire)]), &expected);
            prop_assert_eq!(&read(&mut reader(), single), &expected);
        }
    }

    #[test]
    fn a_capsule_that_is_cut_is_known_to_be_cut() {
        //= rfc9297#3.3-5 type=test
        let mut wire = Vec::new();
        encode(DATAGRAM, b"abc", &mut wire);
        for cut in 0..=wire.len() {
            let mut reader = CapsuleReader::new(100, |_| true);
            read(&mut reader, [Bytes::copy_from_slice(&wire[..cut])]);
            assert_eq!(reader.is_complete(), cut == 0 || cut == wire.len(), "{cut}");
        }
    }

    #[test]
    fn a_capsule_of_a_thousand_gigabytes_is_skipped_without_being_kept() {
        //= rfc9297#3.5-5 type=test
        let mut wire = vec![DATAGRAM as u8];
        push_varint(&mut wire, 1 << 40);
        let mut reader = CapsuleReader::new(100, |_| true);
        assert_eq!(read(&mut reader, [wire.into()]), [Capsule::TooLong { kind: DATAGRAM, len: 1 << 40 }]);
        assert!(read(&mut reader, (0..100).map(|_| Bytes::from_static(&[0; 1000]))).is_empty());
        assert!(reader.value.is_none());
    }

    #[test]
    fn only_a_true_boolean_announces_capsules() {
        //= rfc9297#3.4-1 type=test
        //= rfc9297#3.4-2 type=test
        for yes in ["?1", "?1;a=b", " ?1;x "] {
            assert!(is_announced_by(yes.as_bytes()), "{yes}");
        }
        for no in ["?0", "1", "true", "?1, ?1", "", "(?1)", "\"?1\""] {
            assert!(!is_announced_by(no.as_bytes()), "{no}");
        }
    }
}

//! HTTP datagrams (RFC 9297 section 2.1): a quarter of the request stream's ID, then the payload.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use bytes::{Buf, BufMut, Bytes, BytesMut};
use courser_core::ids::{Dir, Side, StreamId, VARINT_MAX};
use courser_core::wire::varint;

use crate::error::{Code, ConnectionError};

/// The largest quarter stream ID.
pub const QUARTER_MAX: u64 = VARINT_MAX >> 2;

/// Bytes in front of a payload of that stream.
#[must_use]
pub const fn overhead(stream: StreamId) -> usize {
    varint::size(stream.index())
}

/// A datagram for the request on `stream`, which a client opened.
#[must_use]
pub fn encode(stream: StreamId, payload: &[u8]) -> Bytes {
    debug_assert!(stream.initiator() == Side::Client && stream.dir() == Dir::Bi, "requests have datagrams");
    let mut head = [0; varint::SIZE_MAX];
    let n = varint::encode(stream.index(), &mut head).unwrap_or(0);
    let mut out = BytesMut::with_capacity(n + payload.len());
    out.put_slice(head.get(..n).unwrap_or_default());
    out.put_slice(payload);
    out.freeze()
}

/// The request stream and the payload of a datagram.
///
/// # Errors
/// H3_DATAGRAM_ERROR when it is too short for a stream ID, or the ID too large.
//= rfc9297#2.1-1, rfc9297#2.1-2
pub fn decode(mut data: Bytes) -> Result<(StreamId, Bytes), ConnectionError> {
    let wrong = |reason| ConnectionError::new(Code::DATAGRAM_ERROR, reason);
    let (quarter, n) = varint::decode(&data).ok_or_else(|| wrong("a datagram too short for a stream ID"))?;
    if quarter > QUARTER_MAX {
        return Err(wrong("a datagram for a stream that cannot be"));
    }
    data.advance(n);
    Ok((StreamId::new(Side::Client, Dir::Bi, quarter), data))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn datagrams_survive_the_wire(index in 0..=QUARTER_MAX, payload in proptest::collection::vec(any::<u8>(), 0..50)) {
            let stream = StreamId::new(Side::Client, Dir::Bi, index);
            let data = encode(stream, &payload);
            prop_assert_eq!(data.len(), overhead(stream) + payload.len());
            prop_assert_eq!(decode(data), Ok((stream, Bytes::from(payload))));
        }
    }

    #[test]
    fn a_datagram_that_is_too_short_or_names_no_stream_is_an_error() {
        //= rfc9297#2.1-2 type=test
        for short in [&[][..], &[0x40], &[0xc0, 0, 0]] {
            assert_eq!(decode(Bytes::copy_from_slice(short)).unwrap_err().code, Code::DATAGRAM_ERROR);
        }
        //= rfc9297#2.1-1 type=test
        let beyond = (QUARTER_MAX + 1) | 0xc000_0000_0000_0000;
        assert_eq!(decode(Bytes::copy_from_slice(&beyond.to_be_bytes())).unwrap_err().code, Code::DATAGRAM_ERROR);
        let last = QUARTER_MAX | 0xc000_0000_0000_0000;
        assert!(decode(Bytes::copy_from_slice(&last.to_be_bytes())).is_ok());
    }
}

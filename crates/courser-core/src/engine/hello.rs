//! The ClientHello as far as it came, before anything else exists.
//!
//! CRYPTO data of a client's Initials, in any order, with duplicates and overlaps. Only bytes that came take memory: the
//! pieces lie one behind the other in one buffer, and a list says which offsets they have. The first bytes to come for an
//! offset count. No more is taken than the longest ClientHello that we wait for, in no more pieces than [`PIECES_MAX`].

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use crate::error::{PeerViolation, TransportCode};
use crate::protect::client_hello::{CLIENT_HELLO_MAX, parse_client_hello};

/// Pieces with gaps between them, at most. Clients that cut and shuffle their ClientHello on purpose make a dozen.
const PIECES_MAX: usize = 64;

/// Why CRYPTO data is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// The peer broke a rule.
    Violation(PeerViolation),
    /// There are too many gaps: the packet is as good as lost, and the client sends it again.
    Pieces,
}

/// A ClientHello that is being collected.
#[derive(Debug, Default)]
pub(super) struct Hello {
    /// The pieces, without the gaps between them.
    bytes: Vec<u8>,
    /// Their offsets as first and end, in order; they do not touch.
    pieces: Vec<(u16, u16)>,
}

impl Hello {
    /// Takes the data of a CRYPTO frame.
    pub(super) fn insert(&mut self, offset: u64, data: &[u8]) -> Result<(), NotTaken> {
        let end = offset.saturating_add(data.len() as u64);
        if end > CLIENT_HELLO_MAX as u64 {
            //= rfc9000#7.5-2
            let reason = "handshake data behind the longest ClientHello";
            let violation = PeerViolation::new(TransportCode::CRYPTO_BUFFER_EXCEEDED, reason, "rfc9000#7.5");
            return Err(NotTaken::Violation(violation));
        }
        if data.is_empty() {
            return Ok(());
        }
        // Both are at most 16 KiB, see above.
        let (start, end) = (offset as u16, end as u16);
        let from = self.pieces.partition_point(|piece| piece.1 < start);
        let to = self.pieces.partition_point(|piece| piece.0 <= end);
        let old = self.pieces.get(from..to).unwrap_or_default();
        if old.iter().any(|piece| piece.0 <= start && end <= piece.1) {
            return Ok(());
        }
        if from == to && self.pieces.len() >= PIECES_MAX {
            return Err(NotTaken::Pieces);
        }
        let at: usize = self.pieces.iter().take(from).map(len_of).sum();
        let merged = old.iter().fold((start, end), |m, piece| (m.0.min(piece.0), m.1.max(piece.1)));
        self.merge(at, old.iter().map(len_of).sum(), from, merged, (start, data));
        self.pieces.splice(from..to, [merged]);
        Ok(())
    }

    /// Makes one piece of those that lie in the buffer from `at` on with `old_len` bytes, of which the first is the `from`th,
    /// and of new data.
    fn merge(&mut self, at: usize, old_len: usize, from: usize, merged: (u16, u16), (start, data): (u16, &[u8])) {
        let more = len_of(&merged) - old_len;
        self.bytes.reserve_exact(more);
        if at + old_len == self.bytes.len() && old_len == usize::from(start - merged.0) {
            // What follows the last piece: the usual case.
            return self.bytes.extend_from_slice(data);
        }
        let mut whole = vec![0; len_of(&merged)];
        let place = |offset: u16| usize::from(offset - merged.0);
        let mut put = |from: usize, bytes: &[u8]| {
            let room = whole.get_mut(from..from + bytes.len());
            debug_assert!(room.is_some(), "the whole has room for its parts");
            if let Some(room) = room {
                room.copy_from_slice(bytes);
            }
        };
        put(place(start), data);
        let mut old = at;
        for piece in self.pieces.iter().skip(from).take_while(|piece| piece.0 < merged.1) {
            let bytes = self.bytes.get(old..old + len_of(piece)).unwrap_or_default();
            put(place(piece.0), bytes);
            old += bytes.len();
        }
        self.bytes.splice(at..at + old_len, whole);
    }

    /// What came in order.
    pub(super) fn prefix(&self) -> &[u8] {
        match self.pieces.first() {
            Some(&(0, end)) => self.bytes.get(..usize::from(end)).unwrap_or_default(),
            _ => &[],
        }
    }

    /// The same, taken out.
    pub(super) fn into_prefix(mut self) -> Vec<u8> {
        self.bytes.truncate(self.prefix().len());
        self.bytes
    }

    /// What came behind the first gap, with its offsets. TLS will have something to say about it: nothing of a client follows
    /// its ClientHello at this level.
    pub(super) fn beyond(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut at = 0;
        self.pieces.iter().filter_map(move |piece| {
            let bytes = self.bytes.get(at..at + len_of(piece)).unwrap_or_default();
            at += bytes.len();
            (piece.0 > 0).then_some((piece.0.into(), bytes))
        })
    }

    /// Whether the message is complete.
    ///
    /// # Errors
    /// When it cannot become a ClientHello that we read.
    pub(super) fn check(&self) -> Result<bool, PeerViolation> {
        parse_client_hello(self.prefix()).map(|info| info.is_some())
    }

    /// Bytes that came.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

fn len_of(piece: &(u16, u16)) -> usize {
    usize::from(piece.1 - piece.0)
}

const _: () = assert!(CLIENT_HELLO_MAX <= u16::MAX as usize, "offsets fit");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A message that begins like a ClientHello of that length.
    fn message(len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len).map(|i| (i * 7 + i / 256) as u8).collect();
        let body = (len - 4).to_be_bytes();
        bytes[..4].copy_from_slice(&[1, body[5], body[6], body[7]]);
        bytes
    }

    #[test]
    fn a_message_of_1800_bytes_is_complete_exactly_at_its_last_byte() {
        // LS-MINI-22. The body makes no sense, which is noticed once all of it is there.
        let whole = message(1800);
        let mut hello = Hello::default();
        for (at, byte) in whole.iter().enumerate() {
            assert_eq!(hello.check(), Ok(false), "{at} bytes");
            hello.insert(at as u64, &[*byte]).unwrap();
        }
        assert!(hello.check().is_err());
        assert_eq!(hello.prefix(), whole);
    }

    #[test]
    fn what_is_too_long_or_no_hello_is_refused_at_once() {
        let mut hello = Hello::default();
        let code = |r: Result<(), NotTaken>| match r {
            Err(NotTaken::Violation(v)) => Some(v.code),
            _ => None,
        };
        hello.insert(CLIENT_HELLO_MAX as u64 - 1, &[1]).unwrap();
        for (offset, data) in
            [(CLIENT_HELLO_MAX as u64, &[1][..]), (u64::MAX, &[1]), (CLIENT_HELLO_MAX as u64 - 1, &[1, 2])]
        {
            assert_eq!(code(hello.insert(offset, data)), Some(TransportCode::CRYPTO_BUFFER_EXCEEDED));
        }
        hello.insert(0, &[2]).unwrap();
        assert_eq!(hello.check().unwrap_err().code.alert(), Some(10), "no ClientHello");
    }

    #[test]
    fn pieces_are_bounded_and_a_gap_that_closes_makes_room() {
        let mut hello = Hello::default();
        for n in 0..PIECES_MAX as u64 {
            hello.insert(10 * n, &[1; 3]).unwrap();
        }
        assert_eq!(hello.insert(5000, &[1]), Err(NotTaken::Pieces));
        hello.insert(0, &[2; 12]).unwrap();
        hello.insert(5000, &[1]).unwrap();
        assert_eq!(hello.prefix(), [&[1; 3][..], &[2; 7], &[1; 3]].concat());
    }

    #[test]
    fn memory_is_that_of_the_bytes_that_came() {
        let mut hello = Hello::default();
        hello.insert(16_000, &[1; 100]).unwrap();
        hello.insert(9_000, &[1; 100]).unwrap();
        assert!(hello.bytes.capacity() <= 200, "{}", hello.bytes.capacity());
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_map_of_bytes(
            inserts in prop::collection::vec((0_u64..300, prop::collection::vec(any::<u8>(), 0..80)), 1..40),
        ) {
            let (mut hello, mut model) = (Hello::default(), BTreeMap::new());
            for (offset, data) in inserts {
                prop_assert_eq!(hello.insert(offset, &data), Ok(()));
                for (at, byte) in (offset..).zip(data) {
                    model.entry(at).or_insert(byte);
                }
                let ready = (0_u64..).take_while(|at| model.contains_key(at)).count();
                let expected: Vec<u8> = model.values().copied().collect();
                prop_assert_eq!(&hello.bytes, &expected);
                prop_assert_eq!(hello.prefix(), &expected[..ready]);
                let mut beyond = Vec::new();
                for (offset, bytes) in hello.beyond() {
                    prop_assert!(offset > ready as u64);
                    beyond.extend((offset..).zip(bytes.iter().copied()));
                }
                prop_assert!(beyond.into_iter().eq(model.iter().skip(ready).map(|(at, b)| (*at, *b))));
                prop_assert!(hello.pieces.windows(2).all(|w| w[0].1 < w[1].0));
            }
        }
    }
}

//! How far parsers read and how much writers write: for every type of frame.

use proptest::prelude::*;

use super::tests::{TABLE, encoded, samples};
use super::*;
use crate::ids::Level;
use crate::spans::FrameSet;
use crate::wire::legality::{self, Illegal};
use crate::wire::{Reader, Writer};

/// Every frame type that a parser exists for, as it stands on the wire.
fn types() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..=0x1f).chain([0x24, 0x30, 0x31]).map(|t| vec![t]).collect();
    all.push(vec![0x40, 0xaf]);
    all
}

/// An ACK of that many ranges, each of which takes two bytes at least.
fn long_ack(ranges: u64) -> (Vec<u8>, Vec<(u64, u64)>) {
    let all: Vec<(u64, u64)> = (0..ranges).rev().map(|i| (i * 200, i * 200 + i % 70)).collect();
    let mut bytes = vec![0; ack_size(all.iter().copied(), 1, None)];
    let mut w = Writer::new(&mut bytes);
    assert_eq!(write_ack(&mut w, all.iter().copied(), 1, None, usize::MAX), Some(all.len()));
    assert_eq!(w.room(), 0);
    (bytes, all)
}

#[test]
fn an_ack_as_large_as_a_datagram_is_read_to_its_last_range() {
    // NGX-BUF-28: far more ranges than 4,096 bytes hold.
    let (bytes, all) = long_ack(19_000);
    assert!((57_000..65_000).contains(&bytes.len()), "{} bytes", bytes.len());
    let mut r = Reader::new(&bytes);
    let Ok(Frame::Ack(ack)) = parse(&mut r, Extensions::NONE) else { panic!("not an ACK") };
    assert!(r.is_empty() && ack.ranges.eq(all));
}

#[test]
fn the_samples_are_one_of_each_kind() {
    // NGX-BUF-15, OSSL-TXP-28: what the tests of sizes and levels go through is complete. ACK has tests of its own.
    let mut kinds = FrameSet::of(&[FrameKind::Ack]);
    samples().iter().for_each(|(frame, _)| kinds.insert(frame.kind()));
    for (kind, _) in TABLE {
        assert!(kinds.contains(*kind), "{kind:?}");
    }
    assert_eq!(TABLE.len(), FrameKind::ResetStreamAt as usize + 1);
    for (bytes, frame) in [long_ack(1), long_ack(77)].map(|(bytes, _)| bytes).iter().map(|b| (b, parse_all(b))) {
        assert_eq!(frame.size(), bytes.len());
    }
}

fn parse_all(bytes: &[u8]) -> Frame<'_> {
    let mut r = Reader::new(bytes);
    let frame = parse(&mut r, Extensions::ALL).unwrap();
    assert!(r.is_empty());
    frame
}

#[test]
fn every_frame_is_legal_to_send_where_the_table_says() {
    // OSSL-TXP-28, OSSL-TXP-04: the sending half; the receiving half is with the parsers.
    for (frame, _) in samples() {
        for level in Level::ALL {
            let verdict = legality::check_packet(level, &encoded(&frame));
            let refused =
                matches!(verdict, Err(Illegal::NotPermitted(kind, at)) if (kind, at) == (frame.kind(), level));
            assert_eq!(refused, !permitted(frame.kind(), level), "{frame:?} at {level:?}: {verdict:?}");
        }
    }
}

proptest! {
    #[test]
    fn no_parser_takes_more_than_it_is_given(body in prop::collection::vec(any::<u8>(), 0..120), small in any::<bool>()) {
        // LS-PARS-05, NGX-BUF-16: each parser by itself, on noise. Small numbers get it further than random ones.
        for kind in types() {
            let mut bytes = kind.clone();
            bytes.extend(body.iter().map(|b| if small { b % 40 } else { *b }));
            let mut r = Reader::new(&bytes);
            let Ok(frame) = parse(&mut r, Extensions::ALL) else { continue };
            let taken = r.position();
            prop_assert!(taken >= kind.len() && taken <= bytes.len(), "{:?}", frame);
            // What was taken is all that counts, and each byte of it does.
            let mut exact = Reader::new(&bytes[..taken]);
            prop_assert_eq!(parse(&mut exact, Extensions::ALL), Ok(frame.clone()));
            prop_assert!(exact.is_empty());
            let shorter = parse(&mut Reader::new(&bytes[..taken - 1]), Extensions::ALL);
            prop_assert!(shorter.as_ref() != Ok(&frame), "{:?}", frame);
            if !frame.is_open_ended() && frame.kind() != FrameKind::Padding {
                prop_assert!(shorter.is_err(), "{:?}", frame);
            }
        }
    }
}

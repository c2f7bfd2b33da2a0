//! Rules that a sender keeps whatever happens: bytes never change, nothing leaves behind the end or from a terminal state,
//! credit flows without being asked for.

use std::collections::BTreeMap;

use super::*;
use crate::error::ApiMisuse;
use crate::ids::Dir;
use crate::stream::{StreamEvent, WriteError};

/// What the STREAM frames of a packet carry: stream, offset, bytes.
fn carried(p: &Packet) -> Vec<(StreamId, u64, Vec<u8>)> {
    let all = frames(&p.payload, Level::OneRtt, Extensions::of(&TransportParams::default()));
    all.filter_map(|frame| match frame.unwrap() {
        Frame::Stream { id, offset, data, .. } => Some((id, offset, data.to_vec())),
        _ => None,
    })
    .collect()
}

#[test]
fn bytes_at_an_offset_never_change_however_often_and_in_whatever_pieces_they_are_sent() {
    //= rfc9000#2.2-2 type=test
    let (mut a, _) = pair(&Settings::default());
    let ids = [a.s.open(Dir::Uni).unwrap(), a.s.open(Dir::Bi).unwrap()];
    let mut written = [0; 2];
    let mut seen: BTreeMap<(StreamId, u64), u8> = BTreeMap::new();
    let (mut flight, mut again): (Vec<Packet>, usize) = (Vec::new(), 0);
    for round in 0..600_usize {
        for (id, from) in ids.iter().zip(&mut written) {
            if *from < 60_000 {
                let data = pattern(*id, *from, 1 + round * 37 % 900);
                *from += a.write(*id, &data);
            }
        }
        // Sizes change, so that what is sent again is cut elsewhere.
        flight.extend(a.packet(70 + round * 131 % 1_300, round % 2 == 0));
        for (id, offset, data) in flight.last().map(carried).unwrap_or_default() {
            for (at, byte) in (offset..).zip(data) {
                again += usize::from(seen.contains_key(&(id, at)));
                assert_eq!(*seen.entry((id, at)).or_insert(byte), byte, "{id} at {at}");
                assert_eq!(byte, pattern(id, usize::try_from(at).unwrap(), 1)[0], "what the application wrote");
            }
        }
        // Two of three packets are lost; the prefix that arrived is freed below what is sent again.
        if flight.len() > 5 {
            let p = flight.remove(round % 3);
            a.fate(&p, if round % 3 == 0 { Fate::Acked } else { Fate::Lost });
        }
    }
    assert!(again > 50_000 && seen.len() > 20_000, "{again} of {}", seen.len());
}

#[test]
fn nothing_leaves_from_a_terminal_state() {
    //= rfc9000#3.3-1 type=test
    for ends_by_reset in [false, true] {
        let (mut a, mut b) = pair(&Settings::default());
        let id = a.s.open(Dir::Bi).unwrap();
        a.write(id, &[7; 3_000]);
        let early: Vec<Packet> = core::iter::from_fn(|| a.packet(1_200, true)).collect();
        if ends_by_reset {
            a.s.reset(id, 5, &mut a.pool).unwrap();
        } else {
            a.s.finish(id).unwrap();
        }
        let last = a.packet(1_200, true).unwrap();
        early.iter().chain([&last]).for_each(|p| b.deliver(p).unwrap());
        if ends_by_reset {
            // Only the reset counts; the data before it was lost.
            a.fate(&last, Fate::Acked);
            early.iter().for_each(|p| a.fate(p, Fate::Lost));
        } else {
            early.iter().chain([&last]).for_each(|p| a.fate(p, Fate::Acked));
        }
        assert_eq!(a.s.stats().open, 1, "the other direction is still there");
        // Whatever comes now: losses that were declared late, wishes of the peer and of the application.
        early.iter().chain([&last]).for_each(|p| a.fate(p, Fate::Lost));
        a.frame(&Frame::StopSending { id, code: 9 }).unwrap();
        a.frame(&Frame::MaxStreamData { id, max: 1 << 40 }).unwrap();
        a.s.reset(id, 6, &mut a.pool).unwrap();
        assert!(a.s.write(id, b"more", &mut a.pool).is_err());
        a.s.repeat_blocked();
        assert_eq!(a.packet(1_200, true).map(|p| p.frames), None, "by reset {ends_by_reset}");
    }
}

#[test]
fn no_byte_leaves_at_or_behind_the_end() {
    //= rfc9000#4.5-2 type=test
    for ends_by_reset in [false, true] {
        let (mut a, mut b) = pair(&Settings::default());
        let id = a.s.open(Dir::Uni).unwrap();
        a.write(id, &[7; 9_000]);
        let mut sent = vec![a.packet(1_200, true).unwrap(), a.packet(700, true).unwrap()];
        let highest = carried(&sent[1]).last().map(|(_, offset, data)| offset + data.len() as u64).unwrap();
        let size = if ends_by_reset {
            a.s.reset(id, 5, &mut a.pool).unwrap();
            highest
        } else {
            a.s.finish(id).unwrap();
            9_000
        };
        let misuse = Err(WriteError::Misuse(ApiMisuse::WriteAfterFinish));
        let refused = a.s.write(id, b"more", &mut a.pool);
        assert!(refused.is_err() && (ends_by_reset || refused == misuse), "{refused:?}");
        for round in 0..8 {
            sent.iter().for_each(|p| a.fate(p, Fate::Lost));
            sent = core::iter::from_fn(|| a.packet(900 + 50 * round, true)).collect();
            for p in &sent {
                assert!(carried(p).iter().all(|(_, offset, data)| offset + data.len() as u64 <= size));
                assert!(!ends_by_reset || carried(p).is_empty(), "nothing but the reset");
                b.deliver(p).unwrap();
            }
            let told = sent.iter().flat_map(|p| {
                frames(&p.payload, Level::OneRtt, Extensions::of(&TransportParams::default())).map(Result::unwrap)
            });
            for frame in told {
                match frame {
                    Frame::ResetStream { final_size, .. } => assert_eq!(final_size, size, "it never changes"),
                    Frame::Stream { offset, data, fin: true, .. } => assert_eq!(offset + data.len() as u64, size),
                    _ => {}
                }
            }
        }
        assert!(!sent.is_empty());
    }
}

#[test]
fn the_other_direction_keeps_its_credit_when_one_was_reset() {
    //= rfc9000#4.4-1 type=test
    let settings = Settings { stream_window: 1_000, stream_window_max: 1_000, ..Settings::default() };
    // Either end ends its own direction; the other direction is limited, and credit is renewed, as before.
    for opener_resets in [true, false] {
        let (mut a, mut b) = pair(&settings);
        let id = a.s.open(Dir::Bi).unwrap();
        a.write(id, b"hello");
        settle(&mut a, &mut b);
        b.s.accept(Dir::Bi).unwrap();
        let (ended, other) = if opener_resets { (&mut a, &mut b) } else { (&mut b, &mut a) };
        ended.s.reset(id, 5, &mut ended.pool).unwrap();
        settle(ended, other);
        while other.s.poll_event().is_some() {}
        assert!(other.s.read(id, &mut [0; 9], &mut other.pool).is_ok() || other.s.stats().open == 1);
        assert_eq!(other.write(id, &[3; 5_000]), 5_000);
        settle(other, ended);
        let before = if opener_resets { 0 } else { 5 };
        let mut got = Vec::new();
        ended.read_all(id, &mut got);
        assert_eq!(got.len() as u64, 1_000, "the window and no more");
        while got.len() < 5_000 + before {
            settle(other, ended);
            let had = got.len();
            ended.read_all(id, &mut got);
            assert!(got.len() > had && got.len() - had <= 1_000, "{had} and then {}", got.len());
        }
        // What goes beyond the credit is still a violation.
        let beyond = Frame::Stream { id, offset: 6_500, data: b"x", fin: false, length_present: true };
        assert!(ended.frame(&beyond).is_err());
    }
}

#[test]
fn credit_for_streams_is_told_without_being_asked_for() {
    //= rfc9000#4.6-6 type=test
    let settings = Settings { max_streams_bidi: 8, max_streams_uni: 8, ..Settings::default() };
    for dir in [Dir::Bi, Dir::Uni] {
        let (mut a, mut b) = pair(&settings);
        // Exactly as many as are allowed: nobody was refused, and nobody says to be blocked.
        for _ in 0..8 {
            let id = a.s.open(dir).unwrap();
            a.s.finish(id).unwrap();
            while let Some(p) = a.packet(1_200, true) {
                let blocked = [FrameKind::StreamsBlockedBidi, FrameKind::StreamsBlockedUni];
                assert!(blocked.iter().all(|kind| !p.frames.contains(*kind)));
                b.deliver(&p).unwrap();
            }
            let there = b.s.accept(dir).unwrap();
            assert!(b.read_all(there, &mut Vec::new()));
            if dir == Dir::Bi {
                b.s.finish(there).unwrap();
            }
        }
        let mut told = 0;
        while let Some(p) = b.packet(1_200, true) {
            for frame in frames(&p.payload, Level::OneRtt, Extensions::of(&TransportParams::default())) {
                if let Frame::MaxStreams { dir: which, max } = frame.unwrap() {
                    assert_eq!(which, dir);
                    told = told.max(max);
                }
            }
            a.deliver(&p).unwrap();
            b.fate(&p, Fate::Acked);
        }
        assert!(told > 8, "{dir:?}: {told}");
        assert!(core::iter::from_fn(|| a.s.poll_event()).all(|e| e != StreamEvent::Available { dir }), "never refused");
        assert!(a.s.open(dir).is_some());
    }
}

//! Tests of frames: golden bytes, round trips, rooms too small, violations, and where frames are permitted.

use proptest::prelude::*;

use super::*;
use crate::error::PeerViolation;
use crate::ids::{Level, VARINT_MAX};
use crate::spans::FrameSet;
use crate::wire::testing::hex;
use crate::wire::{Reader, Writer, varint};

const ACK_RANGES: &[(u64, u64)] = &[(90, 100), (50, 70), (3, 3)];

/// One of each frame with the bytes that it has on the wire.
pub(super) fn samples() -> Vec<(Frame<'static>, &'static str)> {
    let id = StreamId(4);
    let cid = Cid::new(&[1, 2, 3, 4]).unwrap();
    let token = ResetToken([7; 16]);
    vec![
        (Frame::Padding(3), "000000"),
        (Frame::Ping, "01"),
        (Frame::ResetStream { id, code: 5, final_size: 300 }, "040405412c"),
        (Frame::StopSending { id, code: 64 }, "05044040"),
        (Frame::Crypto { offset: 0, data: b"hello" }, "06000568656c6c6f"),
        (Frame::NewToken { token: b"tok" }, "0703746f6b"),
        (Frame::Stream { id, offset: 0, data: b"ab", fin: false, length_present: true }, "0a04026162"),
        (Frame::Stream { id, offset: 0, data: b"ab", fin: true, length_present: true }, "0b04026162"),
        (Frame::Stream { id, offset: 70, data: b"ab", fin: false, length_present: true }, "0e044046026162"),
        (Frame::Stream { id, offset: 70, data: b"ab", fin: true, length_present: true }, "0f044046026162"),
        (Frame::Stream { id, offset: 0, data: b"ab", fin: false, length_present: false }, "08046162"),
        (Frame::Stream { id, offset: 0, data: b"", fin: true, length_present: false }, "0904"),
        (Frame::Stream { id, offset: 1, data: b"ab", fin: false, length_present: false }, "0c04016162"),
        (Frame::Stream { id, offset: 1, data: b"ab", fin: true, length_present: false }, "0d04016162"),
        (Frame::MaxData { max: 1 << 20 }, "1080100000"),
        (Frame::MaxStreamData { id, max: 63 }, "11043f"),
        (Frame::MaxStreams { dir: Dir::Bi, max: STREAMS_MAX }, "12d000000000000000"),
        (Frame::MaxStreams { dir: Dir::Uni, max: 3 }, "1303"),
        (Frame::DataBlocked { limit: 9 }, "1409"),
        (Frame::StreamDataBlocked { id, limit: 9 }, "150409"),
        (Frame::StreamsBlocked { dir: Dir::Bi, limit: 9 }, "1609"),
        (Frame::StreamsBlocked { dir: Dir::Uni, limit: STREAMS_MAX }, "17d000000000000000"),
        (
            Frame::NewConnectionId { sequence: 2, retire_prior_to: 2, cid, token },
            "18020204010203040707070707070707 0707070707070707",
        ),
        (Frame::RetireConnectionId { sequence: 1 }, "1901"),
        (Frame::PathChallenge(*b"01234567"), "1a3031323334353637"),
        (Frame::PathResponse(*b"01234567"), "1b3031323334353637"),
        (
            Frame::ConnectionClose { code: TransportCode::PROTOCOL_VIOLATION, frame_type: 6, reason: b"no" },
            "1c0a06026e6f",
        ),
        (Frame::ApplicationClose { code: 256, reason: b"" }, "1d410000"),
        (Frame::HandshakeDone, "1e"),
        (Frame::ImmediateAck, "1f"),
        (Frame::ResetStreamAt { id, code: 5, final_size: 300, reliable_size: 64 }, "240405412c4040"),
        (Frame::Datagram { data: b"ab", length_present: false }, "306162"),
        (Frame::Datagram { data: b"ab", length_present: true }, "31026162"),
        (
            Frame::AckFrequency {
                sequence: 1,
                eliciting_threshold: 10,
                max_ack_delay_us: 25_000,
                reordering_threshold: 3,
            },
            "40af010a800061a803",
        ),
    ]
}

pub(super) fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut buf = vec![0xee; frame.size() + 1];
    let mut w = Writer::new(&mut buf);
    frame.encode(&mut w).unwrap();
    assert_eq!(w.len(), frame.size(), "{frame:?}");
    assert_eq!(w.spare(), [0xee], "{frame:?}");
    w.written().to_vec()
}

fn violation(bytes: &[u8], ext: Extensions) -> PeerViolation {
    parse(&mut Reader::new(bytes), ext).unwrap_err()
}

fn code(hexed: &str) -> (TransportCode, u64) {
    let v = violation(&hex(hexed), Extensions::ALL);
    (v.code, v.frame_type)
}

#[test]
fn every_frame_has_its_golden_bytes() {
    for (frame, golden) in samples() {
        let golden = hex(golden);
        assert_eq!(encoded(&frame), golden, "{frame:?}");
        let mut r = Reader::new(&golden);
        assert_eq!(parse(&mut r, Extensions::ALL), Ok(frame.clone()));
        assert!(r.is_empty());
        let first = Reader::new(&golden).varint();
        assert_eq!(first, Some(frame.type_id()), "{frame:?}");
    }
}

#[test]
fn a_frame_without_room_writes_nothing() {
    let mut buf = [0; 64];
    let mut w = Writer::new(&mut buf);
    write_ack(&mut w, ACK_RANGES.iter().copied(), 7, None, 64).unwrap();
    let bytes = w.written().to_vec();
    let ack = parse(&mut Reader::new(&bytes), Extensions::NONE).unwrap();
    for frame in samples().into_iter().map(|s| s.0).chain([ack]) {
        for room in 0..frame.size() {
            let mut buf = vec![0xee; room];
            let mut w = Writer::new(&mut buf);
            assert_eq!((frame.encode(&mut w), w.len()), (None, 0), "{frame:?} in {room}");
            assert!(buf.iter().all(|b| *b == 0xee), "{frame:?} in {room}");
        }
    }
}

#[test]
fn a_frame_with_a_number_beyond_62_bits_is_not_written() {
    let big = VARINT_MAX + 1;
    for frame in [
        Frame::MaxData { max: big },
        Frame::Crypto { offset: big, data: b"x" },
        Frame::Stream { id: StreamId(0), offset: big, data: b"x", fin: false, length_present: true },
        Frame::ResetStream { id: StreamId(0), code: 0, final_size: big },
        Frame::ResetStreamAt { id: StreamId(0), code: big, final_size: 1, reliable_size: 1 },
    ] {
        let mut buf = [0; 64];
        let mut w = Writer::new(&mut buf);
        assert_eq!((frame.encode(&mut w), w.len()), (None, 0), "{frame:?}");
    }
}

#[test]
fn every_prefix_of_a_frame_is_malformed_or_open_ended() {
    for (frame, golden) in samples() {
        let golden = hex(golden);
        for cut in 1..golden.len() {
            let result = parse(&mut Reader::new(&golden[..cut]), Extensions::ALL);
            match result {
                Err(v) => assert_eq!(v.code, TransportCode::FRAME_ENCODING_ERROR, "{frame:?} cut to {cut}"),
                Ok(f) => assert!(f.is_open_ended() || f.kind() == FrameKind::Padding, "{frame:?} cut to {cut}"),
            }
        }
    }
}

#[test]
fn a_frame_type_longer_than_necessary_is_a_protocol_violation() {
    //= rfc9000#12.4-5 type=test
    let violation = TransportCode::PROTOCOL_VIOLATION;
    assert_eq!(code("4001"), (violation, 1));
    assert_eq!(code("80000001"), (violation, 1));
    assert_eq!(code("c000000000000006"), (violation, 6));
    assert_eq!(code("800000af"), (violation, 0xaf));
}

#[test]
fn a_frame_of_unknown_type_is_an_encoding_error() {
    //= rfc9000#12.4-4 type=test
    let error = TransportCode::FRAME_ENCODING_ERROR;
    for (hexed, kind) in
        [("20", 0x20), ("2f", 0x2f), ("32", 0x32), ("4040", 0x40), ("40ae", 0xae), ("80004000", 0x4000)]
    {
        assert_eq!(code(hexed), (error, kind));
    }
    for hexed in ["1f", "40af010a800061a803"] {
        assert_eq!(violation(&hex(hexed), Extensions::NONE).code, error, "{hexed}");
    }
}

#[test]
fn values_that_cannot_be_are_encoding_errors() {
    let error = TransportCode::FRAME_ENCODING_ERROR;
    //= rfc9000#19.7-2 type=test
    assert_eq!(code("0700"), (error, 7));
    //= rfc9000#4.6-1, rfc9000#19.11-1 type=test
    assert_eq!(code("12d000000000000001"), (error, 0x12));
    assert_eq!(code("13d000000000000001"), (error, 0x13));
    //= rfc9000#19.14-2 type=test
    assert_eq!(code("16d000000000000001"), (error, 0x16));
    assert_eq!(code("17ffffffffffffffff"), (error, 0x17));
    //= rfc9000#19.15-1 type=test
    assert_eq!(code(&format!("18020100{}", "07".repeat(40))), (error, 0x18));
    assert_eq!(code(&format!("18020115{}", "07".repeat(40))), (error, 0x18));
    //= rfc9000#19.15-6 type=test
    assert_eq!(code(&format!("18020301{}", "07".repeat(17))), (error, 0x18));
    //= rfc9000#19.8-2 type=test
    assert_eq!(code("0c04ffffffffffffffff61"), (error, 0x0c));
    assert_eq!(code("0e04ffffffffffffffff0161"), (error, 0x0e));
    //= rfc9000#19.6-1 type=test
    assert_eq!(code("06ffffffffffffffff0161"), (error, 6));
    // Data may reach just to the end.
    assert!(parse(&mut Reader::new(&hex("0c04fffffffffffffffe61")), Extensions::NONE).is_ok());
    assert!(parse(&mut Reader::new(&hex("0d04ffffffffffffffff")), Extensions::NONE).is_ok());
}

#[test]
fn a_datagram_has_to_be_agreed_on_and_not_too_large() {
    let small = Extensions { max_datagram_frame: 4, ..Extensions::NONE };
    let violation_of = |hexed: &str, ext| violation(&hex(hexed), ext).code;
    //= rfc9221#3-3 type=test
    assert_eq!(violation_of("3061", Extensions::NONE), TransportCode::PROTOCOL_VIOLATION);
    assert_eq!(violation_of("310161", Extensions::NONE), TransportCode::PROTOCOL_VIOLATION);
    //= rfc9221#3-4 type=test
    assert!(parse(&mut Reader::new(&hex("31026162")), small).is_ok());
    assert!(parse(&mut Reader::new(&hex("30616263")), small).is_ok());
    assert_eq!(violation_of("3103616263", small), TransportCode::PROTOCOL_VIOLATION);
    assert_eq!(violation_of("3061626364", small), TransportCode::PROTOCOL_VIOLATION);
}

#[test]
fn an_ack_frequency_frame_asks_for_a_possible_delay() {
    //= ack-frequency#4-4 type=test
    let ext = Extensions { min_ack_delay_us: Some(1000), ..Extensions::NONE };
    let ask = |us| {
        let f =
            Frame::AckFrequency { sequence: 0, eliciting_threshold: 1, max_ack_delay_us: us, reordering_threshold: 1 };
        parse(&mut Reader::new(&encoded(&f)), ext).map(|_| ()).map_err(|v| (v.code, v.frame_type))
    };
    let refused = Err((TransportCode::PROTOCOL_VIOLATION, 0xaf));
    assert_eq!((ask(1000), ask(16_383_999)), (Ok(()), Ok(())));
    assert_eq!((ask(999), ask(16_384_000)), (refused, refused));
}

#[test]
fn extensions_are_what_our_own_parameters_say() {
    let ours =
        crate::config::TransportParams { max_datagram_frame: 100, min_ack_delay_us: Some(5), ..Default::default() };
    assert_eq!(
        Extensions::of(&ours),
        Extensions { max_datagram_frame: 100, min_ack_delay_us: Some(5), reset_stream_at: false }
    );
}

#[test]
fn negative_packet_numbers_are_encoding_errors() {
    //= rfc9000#19.3.1-1 type=test
    let error = TransportCode::FRAME_ENCODING_ERROR;
    for (hexed, why) in [
        ("02 05 00 00 06", "first range below 0"),
        ("02 05 00 01 02 02 00", "gap below 0"),
        ("02 05 00 01 04 00 00", "even the smallest gap below 0"),
        ("02 05 00 01 01 02 01", "length below 0"),
        ("03 09 00 02 02 01 01 02 00 00 00 00", "second pair below 0"),
        ("02 05 00 01 00 00 ffffffffffffffff", "huge length"),
        ("02 05 00 01 00 ffffffffffffffff 00", "huge gap"),
    ] {
        let v = violation(&hex(hexed), Extensions::NONE);
        assert_eq!((v.code, v.section), (error, "rfc9000#19.3.1"), "{why}");
        assert!(matches!(v.frame_type, 2 | 3), "{why}");
    }
    // One less, and each of them would be fine.
    for hexed in ["02 05 00 00 05", "02 05 00 01 02 01 00", "02 05 00 01 03 00 00", "02 05 00 01 01 02 00"] {
        assert!(parse(&mut Reader::new(&hex(hexed)), Extensions::NONE).is_ok(), "{hexed}");
    }
    // A count that nothing stands behind costs nothing.
    let v = violation(&hex("020500ffffffffffffffff01"), Extensions::NONE);
    assert_eq!((v.code, v.frame_type), (error, 2));
}

#[test]
fn the_ranges_of_an_ack_are_read_in_place() {
    let mut buf = [0; 64];
    let mut w = Writer::new(&mut buf);
    let ecn = Some(EcnCounts { ect0: 1, ect1: 70, ce: 3 });
    assert_eq!(write_ack(&mut w, ACK_RANGES.iter().copied(), 7, ecn, 64), Some(3));
    assert_eq!(w.written(), hex("03 4064 07 02 0a 12 14 2d 00 01 4046 03"));
    assert_eq!(w.len(), ack_size(ACK_RANGES.iter().copied(), 7, ecn));
    let Ok(Frame::Ack(ack)) = parse(&mut Reader::new(w.written()), Extensions::NONE) else { panic!() };
    assert_eq!((ack.largest, ack.delay, ack.ecn), (100, 7, ecn));
    assert_eq!(ack.ranges.ranges_left(), 3);
    assert_eq!(ack.ranges.collect::<Vec<_>>(), ACK_RANGES);
}

#[test]
fn both_types_of_ack_are_understood() {
    //= rfc9000#19.3-1 type=test
    for (ecn, kind) in [(None, 2), (Some(EcnCounts { ect0: 5, ect1: 0, ce: 1 }), 3)] {
        let mut buf = [0; 32];
        let mut w = Writer::new(&mut buf);
        write_ack(&mut w, [(0, 9)], 0, ecn, 32).unwrap();
        let frame = parse(&mut Reader::new(w.written()), Extensions::NONE).unwrap();
        assert_eq!(frame.type_id(), kind);
        assert!(matches!(frame, Frame::Ack(ack) if ack.ecn == ecn));
    }
}

#[test]
fn a_thousand_ranges_survive_and_are_cut_to_any_room() {
    let ranges: Vec<(u64, u64)> = (0..1000u64).rev().map(|i| (i * 300, i * 300 + i % 70)).collect();
    let full = ack_size(ranges.iter().copied(), 9, None);
    let mut buf = vec![0; full];
    let mut last = 0;
    for room in 0..=full {
        let mut w = Writer::new(&mut buf);
        let written = write_ack(&mut w, ranges.iter().copied(), 9, None, room).unwrap_or(0);
        assert!(w.len() <= room && written >= last);
        // The next range would not have fit.
        if written > 0 && written < ranges.len() {
            assert!(ack_size(ranges[..=written].iter().copied(), 9, None) > room);
        }
        if written > 0 {
            let Ok(Frame::Ack(ack)) = parse(&mut Reader::new(w.written()), Extensions::NONE) else { panic!() };
            assert!(ack.ranges.eq(ranges[..written].iter().copied()));
        } else {
            assert!(w.is_empty());
        }
        last = written;
    }
    assert_eq!(last, 1000);
}

#[test]
fn an_ack_that_was_partly_read_is_written_with_the_rest() {
    let mut buf = [0; 64];
    let mut w = Writer::new(&mut buf);
    write_ack(&mut w, ACK_RANGES.iter().copied(), 7, None, 64).unwrap();
    let Ok(Frame::Ack(mut ack)) = parse(&mut Reader::new(w.written()), Extensions::NONE) else { panic!() };
    assert_eq!(ack.ranges.next(), Some((90, 100)));
    let again = encoded(&Frame::Ack(ack.clone()));
    let Ok(Frame::Ack(rest)) = parse(&mut Reader::new(&again), Extensions::NONE) else { panic!() };
    assert_eq!((rest.largest, rest.ranges.collect::<Vec<_>>()), (70, ACK_RANGES[1..].to_vec()));
    ack.ranges.by_ref().for_each(drop);
    let mut none = [0; 64];
    assert_eq!(Frame::Ack(ack).encode(&mut Writer::new(&mut none)), None);
}

#[test]
fn heads_and_whole_frames_are_the_same_bytes() {
    let (id, data) = (StreamId(77), [5u8; 100]);
    for (offset, fin, len) in [(0, false, Some(100)), (9, true, Some(100)), (0, true, None), (1 << 40, false, None)] {
        let mut buf = [0; 200];
        let mut w = Writer::new(&mut buf);
        write_stream_header(&mut w, id, offset, fin, len).unwrap();
        assert_eq!(w.len(), stream_header_size(id, offset, len));
        w.bytes(&data).unwrap();
        let frame = Frame::Stream { id, offset, data: &data, fin, length_present: len.is_some() };
        assert_eq!(w.written(), encoded(&frame));
    }
    let mut buf = [0; 200];
    let mut w = Writer::new(&mut buf);
    write_crypto_header(&mut w, 70_000, 100).unwrap();
    assert_eq!(w.len(), crypto_header_size(70_000, 100));
    w.bytes(&data).unwrap();
    assert_eq!(w.written(), encoded(&Frame::Crypto { offset: 70_000, data: &data }));
    for len in [None, Some(100)] {
        let mut w = Writer::new(&mut buf);
        write_datagram_header(&mut w, len).unwrap();
        assert_eq!(w.len(), datagram_header_size(len));
        w.bytes(&data).unwrap();
        assert_eq!(w.written(), encoded(&Frame::Datagram { data: &data, length_present: len.is_some() }));
    }
}

#[test]
fn a_head_without_room_or_with_a_number_too_large_writes_nothing() {
    let mut buf = [0xee; 32];
    type Head = fn(&mut Writer<'_>) -> Option<()>;
    let heads: [(usize, Head); 3] = [
        (12, |w| write_stream_header(w, StreamId(100), 70, true, Some(1 << 20)).and_then(|()| w.zeros(3))),
        (11, |w| write_crypto_header(w, 1 << 20, 1 << 15).and_then(|()| w.zeros(2))),
        (6, |w| write_datagram_header(w, Some(100)).and_then(|()| w.zeros(3))),
    ];
    for (size, head) in heads {
        for room in 0..3 {
            let mut w = Writer::new(&mut buf[..room]);
            assert_eq!((head(&mut w), w.len()), (None, 0));
        }
        let mut w = Writer::new(&mut buf[..size]);
        assert_eq!((head(&mut w), w.room()), (Some(()), 0), "{size}");
    }
    let mut buf = [0xee; 64];
    let mut w = Writer::new(&mut buf);
    let big = VARINT_MAX + 1;
    assert_eq!(write_stream_header(&mut w, StreamId(1), big, false, Some(1)), None);
    assert_eq!(write_stream_header(&mut w, StreamId(1), 1, false, Some(big)), None);
    assert_eq!(write_crypto_header(&mut w, big, 1), None);
    assert_eq!(write_datagram_header(&mut w, Some(big)), None);
    assert_eq!(write_ack(&mut w, [(big, big)], 0, None, 64), None);
    assert!(w.is_empty());
}

/// The table of RFC 9000 section 12.4, typed in once more, with the extensions' frames.
pub(super) const TABLE: &[(FrameKind, &str)] = &[
    (FrameKind::Padding, "IH01"),
    (FrameKind::Ping, "IH01"),
    (FrameKind::Ack, "IH_1"),
    (FrameKind::ResetStream, "__01"),
    (FrameKind::StopSending, "__01"),
    (FrameKind::Crypto, "IH_1"),
    (FrameKind::NewToken, "___1"),
    (FrameKind::Stream, "__01"),
    (FrameKind::MaxData, "__01"),
    (FrameKind::MaxStreamData, "__01"),
    (FrameKind::MaxStreamsBidi, "__01"),
    (FrameKind::MaxStreamsUni, "__01"),
    (FrameKind::DataBlocked, "__01"),
    (FrameKind::StreamDataBlocked, "__01"),
    (FrameKind::StreamsBlockedBidi, "__01"),
    (FrameKind::StreamsBlockedUni, "__01"),
    (FrameKind::NewConnectionId, "__01"),
    // The table says 01; the note below it in section 12.5 says that 0-RTT is not possible.
    (FrameKind::RetireConnectionId, "___1"),
    (FrameKind::PathChallenge, "__01"),
    (FrameKind::PathResponse, "___1"),
    (FrameKind::ConnectionClose, "IH01"),
    (FrameKind::ApplicationClose, "__01"),
    (FrameKind::HandshakeDone, "___1"),
    (FrameKind::Datagram, "__01"),
    (FrameKind::AckFrequency, "___1"),
    (FrameKind::ImmediateAck, "___1"),
    //= reset-stream-at#4-4 type=test
    (FrameKind::ResetStreamAt, "__01"),
];

#[test]
fn every_frame_is_permitted_where_the_table_says() {
    //= rfc9221#6-1 type=test
    //= rfc9000#12.4-3, rfc9000#12.5-1, rfc9000#12.5-2, rfc9000#17.2.4-1, rfc9221#5-3 type=test
    let mut kinds = FrameSet::EMPTY;
    let columns = [('I', Level::Initial), ('H', Level::Handshake), ('0', Level::ZeroRtt), ('1', Level::OneRtt)];
    for (kind, row) in TABLE {
        kinds.insert(*kind);
        for (column, level) in columns {
            assert_eq!(permitted(*kind, level), row.contains(column), "{kind:?} at {level:?}");
            let code = check_permitted(*kind, level).err().map(|v| v.code);
            assert_eq!(code, (!row.contains(column)).then_some(TransportCode::PROTOCOL_VIOLATION));
        }
    }
    for (frame, _) in samples() {
        assert!(kinds.contains(frame.kind()), "{frame:?} is not in the table");
        for (_, level) in columns {
            let payload = encoded(&frame);
            let first = frames(&payload, level, Extensions::ALL).next().unwrap();
            assert_eq!(first.is_ok(), permitted(frame.kind(), level), "{frame:?} at {level:?}");
            if let Err(v) = first {
                assert_eq!((v.code, v.frame_type), (TransportCode::PROTOCOL_VIOLATION, frame.type_id()));
            }
        }
    }
}

#[test]
fn a_reset_that_promises_more_than_the_stream_has_is_malformed() {
    //= reset-stream-at#4-1 type=test
    let at = |reliable: &str| parse(&mut Reader::new(&hex(&format!("24040509{reliable}"))), Extensions::ALL).err();
    assert_eq!((at("00"), at("08"), at("09")), (None, None, None));
    let v = at("0a").unwrap();
    assert_eq!((v.code, v.frame_type), (TransportCode::FRAME_ENCODING_ERROR, 0x24));
}

#[test]
fn a_reset_at_an_offset_is_unknown_unless_it_was_agreed_on() {
    let bytes = hex("240405412c4040");
    assert!(parse(&mut Reader::new(&bytes), Extensions { reset_stream_at: true, ..Extensions::NONE }).is_ok());
    let v = violation(&bytes, Extensions { reset_stream_at: false, ..Extensions::ALL });
    assert_eq!((v.code, v.frame_type), (TransportCode::FRAME_ENCODING_ERROR, 0x24));
}

#[test]
fn a_packet_without_frames_is_a_protocol_violation() {
    //= rfc9000#12.4-2 type=test
    let mut walk = frames(&[], Level::OneRtt, Extensions::ALL);
    assert_eq!(walk.next().unwrap().unwrap_err().code, TransportCode::PROTOCOL_VIOLATION);
    assert!(walk.next().is_none());
}

#[test]
fn walking_over_frames_ends_with_the_first_violation() {
    let payload = hex("01 000000 01 0000 20 01");
    let mut walk = frames(&payload, Level::OneRtt, Extensions::ALL);
    assert_eq!(walk.next(), Some(Ok(Frame::Ping)));
    assert_eq!((walk.next(), walk.position()), (Some(Ok(Frame::Padding(3))), 4));
    assert_eq!((walk.next(), walk.next()), (Some(Ok(Frame::Ping)), Some(Ok(Frame::Padding(2)))));
    assert_eq!(walk.next().unwrap().unwrap_err().frame_type, 0x20);
    assert_eq!(walk.next(), None);
}

fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 2..64u32).prop_map(|(v, shift)| v >> shift)
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

proptest! {
    #[test]
    fn frames_of_numbers_are_read_as_written(a in number(), b in number(), c in number(), d in number(), uni: bool) {
        let id = StreamId(a);
        let dir = if uni { Dir::Uni } else { Dir::Bi };
        let streams = b.min(STREAMS_MAX);
        for frame in [
            Frame::ResetStream { id, code: b, final_size: c },
            Frame::ResetStreamAt { id, code: b, final_size: c.max(d), reliable_size: c.min(d) },
            Frame::StopSending { id, code: b },
            Frame::MaxData { max: b },
            Frame::MaxStreamData { id, max: b },
            Frame::MaxStreams { dir, max: streams },
            Frame::DataBlocked { limit: b },
            Frame::StreamDataBlocked { id, limit: b },
            Frame::StreamsBlocked { dir, limit: streams },
            Frame::RetireConnectionId { sequence: b },
            Frame::AckFrequency {
                sequence: a, eliciting_threshold: b, max_ack_delay_us: c % 16_384_000, reordering_threshold: d
            },
        ] {
            let wire = encoded(&frame);
            let mut r = Reader::new(&wire);
            prop_assert_eq!(parse(&mut r, Extensions::ALL), Ok(frame));
            prop_assert!(r.is_empty());
        }
    }

    #[test]
    fn frames_with_bytes_are_read_as_written(
        a in number(), offset in number(), data in bytes(300), fin: bool, length_present: bool,
        cid in prop::collection::vec(any::<u8>(), 1..=20), eight: [u8; 8], sixteen: [u8; 16]
    ) {
        let offset = offset.min(VARINT_MAX - 300);
        let data = &data[..];
        let mut all = vec![
            Frame::Crypto { offset, data },
            Frame::Stream { id: StreamId(a), offset, data, fin, length_present },
            Frame::Datagram { data, length_present },
            Frame::ConnectionClose { code: TransportCode(a), frame_type: offset, reason: data },
            Frame::ApplicationClose { code: a, reason: data },
            Frame::PathChallenge(eight),
            Frame::PathResponse(eight),
            Frame::NewConnectionId {
                sequence: a, retire_prior_to: a.min(offset), cid: Cid::new(&cid).unwrap(), token: ResetToken(sixteen)
            },
            Frame::Padding(data.len() + 1),
        ];
        if !data.is_empty() {
            all.push(Frame::NewToken { token: data });
        }
        for frame in all {
            let wire = encoded(&frame);
            let mut r = Reader::new(&wire);
            prop_assert_eq!(parse(&mut r, Extensions::ALL), Ok(frame));
            prop_assert!(r.is_empty());
        }
    }

    #[test]
    fn acks_are_read_as_written(
        start in number(), steps in prop::collection::vec((0..2000u64, 0..2000u64), 1..60), delay in number(),
        ecn in prop::option::of((number(), number(), number()))
    ) {
        let ecn = ecn.map(|(ect0, ect1, ce)| EcnCounts { ect0, ect1, ce });
        let mut at = start.min(VARINT_MAX - 60 * 4002);
        let mut ranges: Vec<(u64, u64)> = steps.iter().map(|(gap, len)| {
            let range = (at, at + len);
            at += len + gap + 2;
            range
        }).collect();
        ranges.reverse();
        let size = ack_size(ranges.iter().copied(), delay, ecn);
        let mut buf = vec![0; size];
        let mut w = Writer::new(&mut buf);
        prop_assert_eq!(write_ack(&mut w, ranges.iter().copied(), delay, ecn, usize::MAX), Some(ranges.len()));
        prop_assert_eq!(w.room(), 0);
        let frame = parse(&mut Reader::new(&buf), Extensions::NONE).unwrap();
        prop_assert_eq!(&encoded(&frame), &buf);
        let Frame::Ack(ack) = frame else { panic!("not an ACK") };
        prop_assert_eq!((ack.largest, ack.delay, ack.ecn), (ranges[0].1, delay, ecn));
        prop_assert_eq!(ack.ranges.size_hint(), (ranges.len(), Some(ranges.len())));
        prop_assert_eq!(ack.ranges.collect::<Vec<_>>(), ranges);
    }

    #[test]
    fn any_bytes_are_frames_or_a_violation(data in bytes(200), first in 0..0x34u8, which in 0..4usize) {
        let mut data = data;
        data.insert(0, first);
        for start in 0..data.len().min(20) {
            check_walk(&data[start..], Level::ALL[which]);
        }
    }
}

/// Walks over noise: nothing panics, ranges are sane, and what was read can be written in no more bytes.
fn check_walk(payload: &[u8], level: Level) {
    for frame in frames(payload, level, Extensions::ALL) {
        let Ok(frame) = frame else { break };
        if let Frame::Ack(ack) = &frame {
            let mut below = ack.largest.saturating_add(2);
            for (first, last) in ack.ranges {
                assert!(first <= last && last + 2 <= below);
                below = first;
            }
        }
        let wire = encoded(&frame);
        assert!(wire.len() <= payload.len());
        assert_eq!(parse(&mut Reader::new(&wire), Extensions::ALL), Ok(frame));
    }
}

#[test]
fn the_size_of_a_length_field_is_that_of_its_number() {
    for len in [0, 63, 64, 16_383, 16_384] {
        assert_eq!(datagram_header_size(Some(len)), 1 + varint::size(len));
        assert_eq!(crypto_header_size(0, len), 2 + varint::size(len));
        assert_eq!(stream_header_size(StreamId(0), 0, Some(len)), 2 + varint::size(len));
    }
}

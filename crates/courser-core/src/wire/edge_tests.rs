//! The edges of numbers, and packets and frames that do not stand at the front of their room.

use super::header::*;
use super::testing::hex;
use super::{Reader, Writer, codec, params, pn, varint, version_neg};
use crate::config::{TransportParams, VersionInformation};
use crate::crypto::Head;
use crate::error::TransportCode;
use crate::ids::{Cid, Level, ResetToken, Side, VARINT_MAX, Version};
use crate::wire::frame::{EcnCounts, Extensions, Frame, ack_size, frames, parse, write_ack};

#[test]
fn a_packet_number_has_exactly_the_bytes_that_it_needs() {
    //= rfc9000#17.1-2 type=test
    for (range, len) in
        [(0, 1), (1, 1), (0x7f, 1), (0x80, 2), (0x7fff, 2), (0x8000, 3), (0x7f_ffff, 3), (0x80_0000, 4), (1 << 40, 4)]
    {
        for acked in [0, 1, 0xff, 1 << 50] {
            assert_eq!(pn::length(acked + range, Some(acked)), len, "{range:#x} beyond {acked:#x}");
        }
        // Before the first acknowledgement number 0 counts, too.
        if let Some(number) = range.checked_sub(1_u64) {
            assert_eq!(pn::length(number, None), len, "{number:#x}");
        }
    }
    assert_eq!(pn::length(5, Some(9)), 1, "what was acknowledged already is no reason for more");
}

#[test]
fn of_two_numbers_equally_near_the_larger_one_is_meant() {
    // Appendix A.3 of RFC 9000: a half window below the expected number moves up, a half window above it stays.
    for (truncated, len, expected, number) in [
        (0x00, 1, 0x17f, 0x100),
        (0x00, 1, 0x180, 0x200),
        (0x00, 1, 0x181, 0x200),
        (0x80, 1, 0x0ff, 0x080),
        (0x80, 1, 0x100, 0x180),
        (0x81, 1, 0x100, 0x081),
        (0x0000, 2, 0x1_7fff, 0x1_0000),
        (0x0000, 2, 0x1_8000, 0x2_0000),
        (0x8001, 2, 0x1_0000, 0x8001),
        (0x00_0000, 3, 0x180_0000, 0x200_0000),
        (0x80_0001, 3, 0x100_0000, 0x80_0001),
        (0x0000_0000, 4, 0x1_8000_0000, 0x2_0000_0000),
        (0x8000_0001, 4, 0x1_0000_0000, 0x8000_0001),
        // There is nothing below the first window and nothing above the last.
        (0x81, 1, 0, 0x81),
        (0xff, 1, 0x7e, 0xff),
        (0x00, 1, VARINT_MAX - 0x7f, VARINT_MAX - 0xff),
        (0x00, 1, VARINT_MAX - 0x180, VARINT_MAX - 0x1ff),
        (0x00, 1, VARINT_MAX - 0x17f, VARINT_MAX - 0xff),
        (0x00, 1, VARINT_MAX - 0x100, VARINT_MAX - 0xff),
    ] {
        assert_eq!(pn::expand(truncated, len, expected), number, "{truncated:#x} with {expected:#x} expected");
    }
}

#[test]
fn every_form_of_an_integer_has_its_edges() {
    for (value, size) in
        [(0, 1), (0x3f, 1), (0x40, 2), (0x3fff, 2), (0x4000, 4), (0x3fff_ffff, 4), (0x4000_0000, 8), (VARINT_MAX, 8)]
    {
        assert_eq!(varint::size(value), size, "{value:#x}");
        for form in [1, 2, 4, 8] {
            let mut buf = [0xee; 9];
            let mut w = Writer::new(&mut buf);
            assert_eq!(w.varint_sized(value, form), (form >= size).then_some(()), "{value:#x} in {form}");
            assert_eq!(w.len(), if form >= size { form } else { 0 });
            if form >= size {
                assert_eq!(varint::decode(w.written()), Some((value, form)));
                assert_eq!(varint::decode(&w.written()[..form - 1]), None);
            }
        }
    }
    assert_eq!(Writer::new(&mut [0; 8]).varint_sized(VARINT_MAX + 1, 8), None);
}

#[test]
fn room_is_counted_to_the_byte() {
    let mut buf = [0xee; 8];
    let mut w = Writer::new(&mut buf);
    assert_eq!((w.need(8), w.need(9), w.need(0)), (Some(()), None, Some(())));
    assert_eq!((w.skip(3), w.len(), w.room()), (Some(()), 3, 5));
    assert_eq!((w.need(5), w.need(6), w.skip(6), w.len()), (Some(()), None, None, 3));
    assert_eq!((w.prefixed(&[1; 5]), w.prefixed(&[1; 4]), w.room()), (None, Some(()), 0));
    assert_eq!(
        (w.need(0), w.need(1), w.skip(0), w.bytes(&[]), w.zeros(0)),
        (Some(()), None, Some(()), Some(()), Some(()))
    );
    assert_eq!((w.written().len(), w.spare().len()), (8, 0));
    assert_eq!(buf, [0xee, 0xee, 0xee, 4, 1, 1, 1, 1]);
    let mut two = [0; 3];
    assert_eq!((codec::patch_varint2(&mut two, 2, 1), codec::patch_varint2(&mut two, 3, 1)), (None, None));
    assert_eq!((codec::patch_varint2(&mut two, 4, 1), codec::patch_varint2(&mut two, 1, 1)), (None, Some(())));
    assert_eq!(two, [0, 0x40, 1]);
    let mut r = Reader::new(&[2, 7, 8]);
    assert_eq!((r.bytes(4), r.bytes(0), r.prefixed(), r.position()), (None, Some(&[][..]), Some(&[7, 8][..]), 3));
    assert_eq!((r.bytes(0), r.bytes(1), r.skip_run(0)), (Some(&[][..]), None, 0));
}

#[test]
fn headers_behind_other_packets_are_laid_out_from_their_own_first_byte() {
    let (dcid, scid) = (Cid::new(&[1; 8]).unwrap(), Cid::new(&[2; 3]).unwrap());
    let long = LongSpec {
        level: Level::Initial,
        version: Version::V1,
        dcid: &dcid,
        scid: &scid,
        token: &[9; 70],
        pn: 0x1234,
        pn_len: 2,
    };
    let short = ShortSpec { dcid: &dcid, spin: true, key_phase: false, pn: 0x01_0203, pn_len: 3 };
    let mut alone = [0; 128];
    let (length_at, pn_at) = (1 + 4 + 9 + 4 + 2 + 70, 1 + 4 + 9 + 4 + 2 + 70 + 2);
    for before in [0, 1, 40] {
        let mut buf = [0; 300];
        let mut w = Writer::new(&mut buf);
        w.zeros(before).unwrap();
        let layout = LongLayout { length_at, pn_at, payload_at: pn_at + 2 };
        assert_eq!(write_long(&mut w, &long), Some(layout));
        let end = w.len();
        assert_eq!(end, before + long_size(&long));
        assert_eq!(write_short(&mut w, &short), Some(Head { pn_at: 9, payload_at: 12 }));
        assert_eq!(w.len(), end + short_size(&short));
        let mut first = Writer::new(&mut alone);
        write_long(&mut first, &long).unwrap();
        write_short(&mut first, &short).unwrap();
        assert_eq!(&w.written()[before..], first.written());
    }
}

#[test]
fn a_short_header_has_a_number_of_one_to_four_bytes() {
    for (pn_len, ok) in [(0, false), (1, true), (4, true), (5, false), (256, false), (257, false)] {
        let mut buf = [0; 300];
        let mut w = Writer::new(&mut buf);
        let spec = ShortSpec { dcid: &Cid::EMPTY, spin: false, key_phase: true, pn: 7, pn_len };
        assert_eq!(write_short(&mut w, &spec), ok.then_some(Head { pn_at: 1, payload_at: 1 + pn_len }));
        assert_eq!(w.len(), if ok { short_size(&spec) } else { 0 });
    }
}

#[test]
fn chance_fills_the_unused_bits_and_no_others() {
    for random in 0..=255u8 {
        for (version, first) in [(Version::V1, 0xf0), (Version::V2, 0xc0)] {
            let mut buf = [0; 16];
            let mut w = Writer::new(&mut buf);
            write_retry(&mut w, version, &Cid::EMPTY, &Cid::EMPTY, &[1], random).unwrap();
            assert_eq!(w.written()[0], first | random & 0x0f, "{version:?} {random:#x}");
        }
        let mut buf = [0; 16];
        let mut w = Writer::new(&mut buf);
        write_version_negotiation(&mut w, &[], &[], &[Version::V1], random).unwrap();
        assert_eq!(w.written()[0], 0xc0 | random & 0x3f);
    }
}

#[test]
fn a_version_negotiation_packet_has_connection_ids_of_up_to_255_bytes() {
    for (dcid, scid, ok) in [(255, 255, true), (256, 0, false), (0, 256, false), (255, 256, false), (0, 255, true)] {
        let (dcid, scid, mut buf) = (vec![1; dcid], vec![2; scid], [0; 600]);
        let mut w = Writer::new(&mut buf);
        let written = write_version_negotiation(&mut w, &dcid, &scid, &[Version::V1], 0);
        assert_eq!(written.is_some(), ok, "{} {}", dcid.len(), scid.len());
        if ok {
            let Ok(Header::VersionNegotiation { dcid: d, scid: s, .. }) = decode(w.written(), 0) else { panic!() };
            assert_eq!((d, s), (&dcid[..], &scid[..]));
        }
    }
}

#[test]
fn a_connection_id_of_20_bytes_is_taken_and_one_of_21_is_not() {
    let long = |dcid: usize, scid: usize| {
        let mut bytes = hex("e0 00000001");
        bytes.push(dcid.try_into().unwrap());
        bytes.extend(vec![1; dcid]);
        bytes.push(scid.try_into().unwrap());
        bytes.extend(vec![2; scid]);
        bytes.extend([1, 0]);
        decode(&bytes, 0).map(|h| h.long().map(|l| (l.dcid.len(), l.scid.len(), l.end - l.pn_at)))
    };
    assert_eq!(long(20, 20), Ok(Some((20, 20, 1))));
    assert_eq!((long(21, 20), long(20, 21)), (Err(HeaderError::CidTooLong), Err(HeaderError::CidTooLong)));
    assert!(matches!(decode(&[0x40; 21], 20), Ok(Header::Short { pn_at: 21, .. })));
    assert_eq!(decode(&[0x40; 20], 20), Err(HeaderError::Truncated));
    assert_eq!(decode(&[0x40; 22], 21), Err(HeaderError::CidTooLong));
}

#[test]
fn an_ack_behind_other_frames_is_cut_to_its_own_room() {
    let ranges = [(90, 100), (50, 70), (3, 3)];
    let ecn = Some(EcnCounts { ect0: 1, ect1: 70, ce: 3 });
    let full = ack_size(ranges, 7, ecn);
    for before in [0, 1, 30] {
        let mut buf = [1; 64];
        let mut w = Writer::new(&mut buf);
        w.skip(before).unwrap();
        assert_eq!(write_ack(&mut w, ranges, 7, ecn, full), Some(3));
        assert_eq!(w.len(), before + full);
        let mut all = frames(w.written(), Level::OneRtt, Extensions::NONE).skip(before);
        let Some(Ok(Frame::Ack(ack))) = all.next() else { panic!("no ACK behind {before}") };
        assert!(ack.ranges.eq(ranges) && all.next().is_none());
        // A byte less, whether it is the frame's room or the packet's, costs the last range and no more.
        let mut w = Writer::new(&mut buf[..before + full - 1]);
        w.skip(before).unwrap();
        assert_eq!(write_ack(&mut w, ranges, 7, ecn, full), Some(2));
        let mut w = Writer::new(&mut buf);
        w.skip(before).unwrap();
        assert_eq!(write_ack(&mut w, ranges, 7, ecn, full - 1), Some(2));
    }
}

#[test]
fn an_ack_that_counts_more_ranges_than_fit_is_cut_off_whatever_they_say() {
    // The gap of 9 leads below zero, which is not looked at unless every range can be there.
    for (hexed, section) in [
        ("02 05 00 01 00 09 00", "rfc9000#19.3.1"),
        ("02 05 00 01 00 09", "rfc9000#12.4"),
        ("02 05 00 02 00 09 00 00 00", "rfc9000#19.3.1"),
        ("02 05 00 02 00 09 00 00", "rfc9000#12.4"),
        ("02 05 00 ffffffffffffffff 00 09 00 00", "rfc9000#12.4"),
    ] {
        let v = parse(&mut Reader::new(&hex(hexed)), Extensions::NONE).unwrap_err();
        assert_eq!((v.code, v.section), (TransportCode::FRAME_ENCODING_ERROR, section), "{hexed}");
    }
}

#[test]
fn the_size_of_a_datagram_counts_from_its_type_to_its_end() {
    //= rfc9221#3-4 type=test
    let ext = Extensions { max_datagram_frame: 4, ..Extensions::NONE };
    for (hexed, legal) in [
        ("0101 31026162 01010101", true),
        ("01010101 01 30616263", true),
        ("01 3103616263 01", false),
        ("01 3061626364", false),
    ] {
        let all: Vec<_> = frames(&hex(hexed), Level::OneRtt, ext).map(|f| f.is_ok()).collect();
        assert_eq!(all.iter().all(|ok| *ok), legal, "{hexed}");
    }
    // With the largest number that can be said every frame is small enough.
    let all = Extensions { max_datagram_frame: VARINT_MAX, ..Extensions::NONE };
    assert!(parse(&mut Reader::new(&[0x30; 1500]), all).is_ok());
}

#[test]
fn a_new_connection_id_has_one_to_twenty_bytes() {
    //= rfc9000#19.15-1 type=test
    for (len, ok) in [(0, false), (1, true), (20, true), (21, false), (255, false)] {
        let mut bytes = hex("18 02 02");
        bytes.push(u8::try_from(len).unwrap());
        bytes.extend(vec![5; len + 16]);
        let result = parse(&mut Reader::new(&bytes), Extensions::NONE);
        assert_eq!(result.is_ok(), ok, "{len}");
        let code = result.err().map(|v| v.code);
        assert_eq!(code, (!ok).then_some(TransportCode::FRAME_ENCODING_ERROR), "{len}");
        if ok {
            assert!(parse(&mut Reader::new(&bytes[..bytes.len() - 1]), Extensions::NONE).is_err());
        }
    }
}

#[test]
fn data_may_end_just_where_offsets_end() {
    //= rfc9000#19.8-2, rfc9000#19.6-1 type=test
    for (hexed, ok) in [
        ("0e 00 fffffffffffffffe 01 61", true),
        ("0e 00 ffffffffffffffff 00", true),
        ("0e 00 ffffffffffffffff 01 61", false),
        ("0c 00 fffffffffffffffd 6161", true),
        ("0c 00 fffffffffffffffd 616161", false),
        ("06 fffffffffffffffe 01 61", true),
        ("06 ffffffffffffffff 00", true),
        ("06 ffffffffffffffff 01 61", false),
    ] {
        assert_eq!(parse(&mut Reader::new(&hex(hexed)), Extensions::NONE).is_ok(), ok, "{hexed}");
    }
}

#[test]
fn parameters_around_the_identifiers_that_have_a_bit_are_remembered() {
    //= rfc9000#7.4-3 type=test
    let ok = |hexed: &str| params::decode(&hex(hexed), Side::Client).is_ok();
    // 62, 63, 64 and 65.
    let all = ["3e00", "3f00", "404000", "404100"];
    assert!(ok(&all.concat()));
    for (i, one) in all.iter().enumerate() {
        assert!(ok(one) && !ok(&[&all[i..], &all[..=i]].concat().concat()), "{one}");
    }
}

#[test]
fn unknown_parameters_are_remembered_as_far_as_there_is_room() {
    let crowd = |n: u32| -> String { (0..n).map(|i| format!("80{:06x}00", 0x10_0000 + i)).collect() };
    let again = |n: u32| params::decode(&hex(&format!("{}80{:06x}00", crowd(n), 0x10_0000 + n - 1)), Side::Client);
    // Two places of sixteen are kept for what we understand.
    assert!(again(14).is_err() && again(15).is_ok());
}

#[test]
fn the_largest_numbers_can_be_parameters() {
    let largest = TransportParams {
        max_idle_timeout_ms: VARINT_MAX,
        max_udp_payload: VARINT_MAX,
        max_data: VARINT_MAX,
        max_stream_data_uni: VARINT_MAX,
        active_cid_limit: VARINT_MAX,
        max_datagram_frame: VARINT_MAX,
        ..TransportParams::default()
    };
    let mut bytes = Vec::new();
    params::encode(&largest, Side::Client, 0, &mut bytes);
    assert_eq!(params::decode(&bytes, Side::Client), Ok(largest));
}

#[test]
fn the_golden_reserved_parameters() {
    for (random, golden) in [
        (0x1234_5678_9abc_def5_u64, "8012bcdf 05 123456789a"),
        (0xffff_0000_ffff_0007, "801efffc 07 ffff0000ffff00"),
        (0x0101_0101_0000_0101, "1b 01 01"),
        (0x0101_0101_0001_0100, "3a 00"),
    ] {
        let mut bytes = Vec::new();
        params::encode(&TransportParams::default(), Side::Client, random, &mut bytes);
        assert_eq!(bytes, hex(golden), "{random:#x}");
    }
}

#[test]
fn every_parameter_has_its_identifier_and_may_be_zero_where_zero_means_something() {
    let none = TransportParams::default;
    let cid = Cid::new(&[7]);
    let token = Some(ResetToken([9; 16]));
    let info = VersionInformation { chosen: Version::V2, available: vec![Version::V1] };
    for (hexed, params) in [
        ("00 01 07", TransportParams { original_dcid: cid, ..none() }),
        ("01 01 01", TransportParams { max_idle_timeout_ms: 1, ..none() }),
        ("02 10 09090909 09090909 09090909 09090909", TransportParams { reset_token: token, ..none() }),
        ("03 02 44b0", TransportParams { max_udp_payload: 1200, ..none() }),
        ("04 01 01", TransportParams { max_data: 1, ..none() }),
        ("05 01 01", TransportParams { max_stream_data_bidi_local: 1, ..none() }),
        ("06 01 01", TransportParams { max_stream_data_bidi_remote: 1, ..none() }),
        ("07 01 01", TransportParams { max_stream_data_uni: 1, ..none() }),
        ("08 01 01", TransportParams { max_streams_bidi: 1, ..none() }),
        ("09 01 01", TransportParams { max_streams_uni: 1, ..none() }),
        ("0a 01 00", TransportParams { ack_delay_exponent: 0, ..none() }),
        ("0b 01 00", TransportParams { max_ack_delay_ms: 0, ..none() }),
        ("0c 00", TransportParams { disable_active_migration: true, ..none() }),
        ("0e 01 03", TransportParams { active_cid_limit: 3, ..none() }),
        ("0f 01 07", TransportParams { initial_scid: cid, ..none() }),
        ("10 01 07", TransportParams { retry_scid: cid, ..none() }),
        ("11 08 6b3343cf 00000001", TransportParams { version_information: Some(info), ..none() }),
        ("1d 00", TransportParams { reset_stream_at: true, ..none() }),
        ("20 01 01", TransportParams { max_datagram_frame: 1, ..none() }),
        ("6ab2 00", TransportParams { grease_quic_bit: true, ..none() }),
        ("c0000000ff04de1b 01 00", TransportParams { min_ack_delay_us: Some(0), ..none() }),
    ] {
        let mut bytes = Vec::new();
        params::encode(&params, Side::Server, 0, &mut bytes);
        assert_eq!(bytes, hex(&format!("{hexed} 1b00")), "{params:?}");
        assert_eq!(params::decode(&hex(hexed), Side::Server), Ok(params), "{hexed}");
    }
    // What is said although it is the default is taken all the same.
    for hexed in ["010100", "040100", "050100", "060100", "070100", "080100", "090100", "200100", "0a0103", "0e0102"] {
        assert_eq!(params::decode(&hex(hexed), Side::Server), Ok(none()), "{hexed}");
    }
}

#[test]
fn only_a_version_of_the_reserved_form_is_never_spoken() {
    for version in [0x0a0a_0a0a, 0xfafa_fafa, 0x1a2a_3a4a] {
        assert!(version_neg::is_greased(Version(version)));
        for bit in (0..32).filter(|bit| bit % 8 < 4) {
            assert!(!version_neg::is_greased(Version(version ^ 1 << bit)), "{version:#x} without bit {bit}");
        }
    }
    assert_eq!(version_neg::greased(0x1f2f_3f4f), Version(0x1a2a_3a4a));
}

#[test]
fn no_ranges_are_no_ack() {
    assert_eq!(ack_size([], 0, None), 0);
    assert_eq!(write_ack(&mut Writer::new(&mut [0; 64]), [], 0, None, 64), None);
    assert_eq!(ack_size([(0, 0)], 0, None), 5);
}

#[test]
fn an_empty_datagram_needs_one_byte_of_what_was_agreed_on() {
    //= rfc9221#3-3, rfc9221#3-4 type=test
    assert_eq!(Extensions::NONE, Extensions::default());
    for (max_datagram_frame, hexed, ok) in
        [(0, "30", false), (1, "30", true), (1, "3000", false), (1, "3100", false), (2, "3100", true)]
    {
        let ext = Extensions { max_datagram_frame, ..Extensions::NONE };
        let bytes = hex(hexed);
        let result = parse(&mut Reader::new(&bytes), ext);
        assert_eq!(result.err().map(|v| v.code), (!ok).then_some(TransportCode::PROTOCOL_VIOLATION), "{hexed}");
    }
}

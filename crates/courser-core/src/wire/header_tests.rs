//! Tests of packet headers.

use proptest::prelude::*;

use super::header::*;
use super::testing::{field, hex};
use super::{Reader, Writer, pn};
use crate::crypto::Head;
use crate::ids::{Cid, Level, Version};

const V1_CLIENT: &str = include_str!("../../testdata/vectors/rfc9001-a2-client-initial.txt");
const V1_SERVER: &str = include_str!("../../testdata/vectors/rfc9001-a3-server-initial.txt");
const V1_RETRY: &str = include_str!("../../testdata/vectors/rfc9001-a4-retry.txt");
const V1_SHORT: &str = include_str!("../../testdata/vectors/rfc9001-a5-chacha20-short.txt");
const V2_CLIENT: &str = include_str!("../../testdata/vectors/rfc9369-a2-client-initial.txt");
const V2_SERVER: &str = include_str!("../../testdata/vectors/rfc9369-a3-server-initial.txt");
const V2_RETRY: &str = include_str!("../../testdata/vectors/rfc9369-a4-retry.txt");
const V2_SHORT: &str = include_str!("../../testdata/vectors/rfc9369-a5-chacha20-short.txt");

fn cid(s: &str) -> Cid {
    Cid::new(&hex(s)).unwrap()
}

/// Writes a header, gives the packet `payload` bytes and fills in its length.
fn packet(spec: &LongSpec<'_>, payload: usize) -> Vec<u8> {
    let mut buf = vec![0; long_size(spec) + payload];
    let mut w = Writer::new(&mut buf);
    let layout = write_long(&mut w, spec).unwrap();
    assert_eq!(w.len(), long_size(spec));
    assert_eq!(layout.head(), Head { pn_at: layout.pn_at, payload_at: layout.payload_at });
    let len = buf.len();
    patch_length(&mut buf, layout, len).unwrap();
    buf
}

#[test]
fn the_initials_of_the_rfcs_are_written_and_read() {
    for (text, version, dcid, scid, pn_len) in [
        (V1_CLIENT, Version::V1, "8394c8f03e515708", "", 4),
        (V1_SERVER, Version::V1, "", "f067a5502a4262b5", 2),
        (V2_CLIENT, Version::V2, "8394c8f03e515708", "", 4),
        (V2_SERVER, Version::V2, "", "f067a5502a4262b5", 2),
    ] {
        let whole = field(text, "packet");
        let plain = field(text, "unprotected_header");
        let number = field(text, "pn").iter().fold(0, |n, b| n << 8 | u64::from(*b));
        let (dcid, scid) = (cid(dcid), cid(scid));
        let spec =
            LongSpec { level: Level::Initial, version, dcid: &dcid, scid: &scid, token: &[], pn: number, pn_len };
        assert_eq!(packet(&spec, whole.len() - plain.len())[..plain.len()], plain[..]);

        let header = decode(&whole, 0).unwrap();
        let long = *header.long().unwrap();
        let pn_at = plain.len() - pn_len;
        assert!(matches!(header, Header::Initial(_)));
        assert_eq!(long, Long { level: Level::Initial, version, dcid, scid, token: &[], pn_at, end: whole.len() });
        assert_eq!((super::header::pn_len(plain[0]), reserved_bits(plain[0])), (pn_len, 0));
    }
}

#[test]
fn the_retries_of_the_rfcs_are_written_and_read() {
    for (text, v) in [(V1_RETRY, Version::V1), (V2_RETRY, Version::V2)] {
        let whole = field(text, "packet");
        let header = decode(&whole, 0).unwrap();
        let Header::Retry { version, dcid, scid, token, tag, without_tag } = header else {
            panic!("{header:?}");
        };
        assert_eq!((version, dcid, scid, token), (v, Cid::EMPTY, cid("f067a5502a4262b5"), &b"token"[..]));
        assert_eq!(tag[..], field(text, "tag"));
        let mut buf = [0; 64];
        let mut w = Writer::new(&mut buf);
        write_retry(&mut w, v, &dcid, &scid, token, whole[0]).unwrap();
        assert_eq!(w.written(), without_tag);
        assert_eq!((w.len(), &whole[..w.len()]), (retry_size(&dcid, &scid, token), w.written()));
    }
}

#[test]
fn the_short_headers_of_the_rfcs_are_written_and_read() {
    for text in [V1_SHORT, V2_SHORT] {
        let plain = field(text, "unprotected_header");
        let mut buf = [0; 8];
        let mut w = Writer::new(&mut buf);
        let spec = ShortSpec { dcid: &Cid::EMPTY, spin: false, key_phase: false, pn: 654_360_564, pn_len: 3 };
        assert_eq!(write_short(&mut w, &spec), Some(Head { pn_at: 1, payload_at: 4 }));
        assert_eq!(w.written(), plain);
        assert_eq!(decode(&plain, 0), Ok(Header::Short { dcid: Cid::EMPTY, pn_at: 1 }));
    }
}

#[test]
fn every_type_of_both_versions_has_its_golden_packet() {
    let (dcid, scid) = (cid("0102030405060708"), cid("a1a2"));
    for (version, level, golden) in [
        (Version::V1, Level::Initial, "c1 00000001 080102030405060708 02a1a2 03aabbcc 4007 1234 0000000000"),
        (Version::V1, Level::ZeroRtt, "d1 00000001 080102030405060708 02a1a2 4007 1234 0000000000"),
        (Version::V1, Level::Handshake, "e1 00000001 080102030405060708 02a1a2 4007 1234 0000000000"),
        (Version::V2, Level::Initial, "d1 6b3343cf 080102030405060708 02a1a2 03aabbcc 4007 1234 0000000000"),
        (Version::V2, Level::ZeroRtt, "e1 6b3343cf 080102030405060708 02a1a2 4007 1234 0000000000"),
        (Version::V2, Level::Handshake, "f1 6b3343cf 080102030405060708 02a1a2 4007 1234 0000000000"),
    ] {
        let token: &[u8] = if level == Level::Initial { &[0xaa, 0xbb, 0xcc] } else { &[] };
        let spec = LongSpec { level, version, dcid: &dcid, scid: &scid, token, pn: 0x1234, pn_len: 2 };
        let built = packet(&spec, 5);
        assert_eq!(built, hex(golden), "{version:?} {level:?}");
        let header = decode(&built, 8).unwrap();
        let right = match level {
            Level::Initial => matches!(header, Header::Initial(_)),
            Level::ZeroRtt => matches!(header, Header::ZeroRtt(_)),
            _ => matches!(header, Header::Handshake(_)),
        };
        assert!(right, "{header:?}");
        let long = header.long().unwrap();
        assert_eq!((long.level, long.version, long.token, long.end), (level, version, token, built.len()));
    }
}

#[test]
fn the_golden_version_negotiation_packet() {
    let golden = hex("ca 00000000 020102 03a1a2a3 00000001 6b3343cf 0a1a2a3a");
    let versions = [Version::V1, Version::V2, Version(0x0a1a_2a3a)];
    let mut buf = [0; 64];
    let mut w = Writer::new(&mut buf);
    write_version_negotiation(&mut w, &[1, 2], &[0xa1, 0xa2, 0xa3], &versions, 0x0a).unwrap();
    assert_eq!(w.written(), golden);
    assert_eq!(w.len(), version_negotiation_size(&[1, 2], &[0xa1, 0xa2, 0xa3], &versions));
    let Ok(Header::VersionNegotiation { dcid, scid, versions: read }) = decode(&golden, 0) else {
        panic!("not a Version Negotiation packet")
    };
    assert_eq!((dcid, scid, read.collect::<Vec<_>>()), (&[1, 2][..], &[0xa1, 0xa2, 0xa3][..], versions.to_vec()));
}

#[test]
fn a_version_negotiation_packet_shows_the_fixed_bit() {
    //= rfc9000#17.2.1-2, rfc9000#17.2.1-3 type=test
    for random in 0..=255 {
        let mut buf = [0; 16];
        let mut w = Writer::new(&mut buf);
        write_version_negotiation(&mut w, &[], &[], &[Version::V1], random).unwrap();
        assert!(fixed_bit(w.written()) && is_long(w.written()[0]));
        assert_eq!(w.written()[1..5], [0; 4]);
    }
}

#[test]
fn a_version_list_that_is_empty_or_cut_is_ignored() {
    //= rfc8999#6-2 type=test
    for list in ["", "00", "000000", "0000000100"] {
        assert_eq!(decode(&hex(&format!("80000000000000{list}")), 0), Err(HeaderError::BadVersionList), "{list}");
    }
    assert!(decode(&hex("8000000000000000000001"), 0).is_ok());
}

#[test]
fn unused_bits_of_a_version_negotiation_packet_are_ignored() {
    //= rfc8999#6-1, rfc9000#17.2.1-1 type=test
    for first in 0x80..=0xffu8 {
        let mut bytes = hex("8000000000000000000001");
        bytes[0] = first;
        assert!(matches!(decode(&bytes, 0), Ok(Header::VersionNegotiation { .. })), "{first:#x}");
    }
}

#[test]
fn unused_bits_of_a_retry_are_ignored() {
    //= rfc9000#17.2.5-1 type=test
    let mut bytes = field(V1_RETRY, "packet");
    for low in 0..16 {
        bytes[0] = bytes[0] & 0xf0 | low;
        assert!(matches!(decode(&bytes, 0), Ok(Header::Retry { .. })));
    }
}

#[test]
fn a_retry_without_token_is_dropped() {
    //= rfc9000#17.2.5.2-4 type=test
    let retry = format!("f0000000010000{}", "00".repeat(16));
    assert_eq!(decode(&hex(&retry), 0), Err(HeaderError::EmptyRetryToken));
    assert_eq!(decode(&hex(&retry[..retry.len() - 2]), 0), Err(HeaderError::Truncated));
    let mut buf = [0; 64];
    assert_eq!(write_retry(&mut Writer::new(&mut buf), Version::V1, &Cid::EMPTY, &Cid::EMPTY, &[], 0), None);
}

#[test]
fn long_connection_ids_are_dropped_in_our_versions_and_read_in_others() {
    //= rfc9000#17.2-3, rfc9000#17.2-6, rfc9000#17.2-4, rfc9000#17.2-7 type=test
    for (dcid, scid) in [(21, 0), (0, 21), (255, 255)] {
        let build = |version: u32| {
            let mut bytes = vec![0xc0];
            bytes.extend(version.to_be_bytes());
            bytes.push(u8::try_from(dcid).unwrap());
            bytes.extend(vec![7; dcid]);
            bytes.push(u8::try_from(scid).unwrap());
            bytes.extend(vec![8; scid]);
            bytes.extend([0; 64]);
            bytes
        };
        for version in [Version::V1, Version::V2] {
            assert_eq!(decode(&build(version.0), 0), Err(HeaderError::CidTooLong));
        }
        let unknown = build(0x0a0a_0a0a);
        let Ok(Header::UnknownVersion { version, dcid: d, scid: s }) = decode(&unknown, 0) else {
            panic!("{dcid} {scid}")
        };
        assert_eq!((version, d.len(), s.len()), (Version(0x0a0a_0a0a), dcid, scid));
        assert_eq!(destination(&unknown, 0), Some(d));
        assert!(matches!(decode(&build(0), 0), Ok(Header::VersionNegotiation { .. })));
    }
}

#[test]
fn coalesced_packets_are_found_one_after_the_other() {
    //= rfc9000#12.2-1 type=test
    let (dcid, scid) = (cid("0102"), cid("03"));
    let spec = |level| LongSpec { level, version: Version::V1, dcid: &dcid, scid: &scid, token: &[], pn: 0, pn_len: 1 };
    let mut datagram = packet(&spec(Level::Initial), 30);
    let first = datagram.len();
    datagram.extend(packet(&spec(Level::Handshake), 20));
    let second = datagram.len();
    datagram.extend([0x40, 1, 2, 0, 0, 0]);
    assert_eq!(decode(&datagram, 2).unwrap().long().map(|l| l.end), Some(first));
    let rest = &datagram[first..];
    assert_eq!(decode(rest, 2).unwrap().long().map(|l| (l.level, l.end)), Some((Level::Handshake, second - first)));
    assert_eq!(decode(&datagram[second..], 2), Ok(Header::Short { dcid, pn_at: 3 }));
}

#[test]
fn a_packet_that_says_more_than_there_is_is_dropped() {
    let (dcid, scid) = (cid("0102"), cid("03"));
    let spec = LongSpec {
        level: Level::Initial,
        version: Version::V1,
        dcid: &dcid,
        scid: &scid,
        token: &[9; 70],
        pn: 1,
        pn_len: 4,
    };
    let whole = packet(&spec, 25);
    for cut in 0..whole.len() {
        assert_eq!(decode(&whole[..cut], 2), Err(HeaderError::Truncated), "{cut}");
    }
    assert!(decode(&whole, 2).is_ok());
}

#[test]
fn a_greased_fixed_bit_is_reported_and_not_refused() {
    //= rfc9287#3-2 type=test
    let (dcid, scid) = (cid("0102"), cid("03"));
    let spec = LongSpec {
        level: Level::Handshake,
        version: Version::V2,
        dcid: &dcid,
        scid: &scid,
        token: &[],
        pn: 1,
        pn_len: 1,
    };
    let mut bytes = packet(&spec, 30);
    assert!(fixed_bit(&bytes));
    let before = decode(&bytes, 2).unwrap().long().copied();
    let mut greased = bytes.clone();
    clear_fixed_bit(&mut greased);
    assert!(!fixed_bit(&greased) && !fixed_bit(&[]));
    assert_eq!(decode(&greased, 2).unwrap().long().copied(), before);
    bytes[0] = 0x00;
    assert!(matches!(decode(&bytes, 2), Ok(Header::Short { .. })));
}

#[test]
fn bits_behind_the_mask_are_told_apart() {
    assert_eq!((reserved_bits(0xcf), reserved_bits(0xc3), reserved_bits(0xf0)), (0x0c, 0, 0));
    assert_eq!((reserved_bits(0x58), reserved_bits(0x67), reserved_bits(0x50)), (0x18, 0, 0x10));
    assert!(key_phase(0x44) && !key_phase(0x78));
    assert!(spin(0x60) && !spin(0x5f));
    assert_eq!((pn_len(0x40), pn_len(0xc3)), (1, 4));
}

#[test]
fn reserved_bits_are_written_as_zero() {
    //= rfc9000#17.2-8, rfc9000#17.3.1-2 type=test
    let dcid = cid("01");
    for pn_len in 1..=4 {
        for version in [Version::V1, Version::V2] {
            for level in [Level::Initial, Level::ZeroRtt, Level::Handshake] {
                let spec = LongSpec { level, version, dcid: &dcid, scid: &dcid, token: &[], pn: u64::MAX >> 2, pn_len };
                assert_eq!(reserved_bits(packet(&spec, 20)[0]), 0);
            }
        }
        for (spin_bit, phase) in [(false, false), (true, true)] {
            let mut buf = [0; 8];
            let mut w = Writer::new(&mut buf);
            let spec = ShortSpec { dcid: &dcid, spin: spin_bit, key_phase: phase, pn: 7, pn_len };
            write_short(&mut w, &spec).unwrap();
            let first = w.written()[0];
            assert_eq!((reserved_bits(first), spin(first), key_phase(first)), (0, spin_bit, phase));
            assert_eq!((super::header::pn_len(first), w.len()), (pn_len, short_size(&spec)));
        }
    }
}

#[test]
fn a_header_without_room_writes_nothing() {
    let (dcid, scid) = (cid("0102030405"), cid("0607"));
    let long = LongSpec {
        level: Level::Initial,
        version: Version::V1,
        dcid: &dcid,
        scid: &scid,
        token: &[5; 9],
        pn: 70_000,
        pn_len: 3,
    };
    let short = ShortSpec { dcid: &dcid, spin: true, key_phase: true, pn: 1, pn_len: 2 };
    let versions = [Version::V1, Version::V2];
    type Write<'a> = Box<dyn Fn(&mut Writer<'_>) -> Option<()> + 'a>;
    let writers: [(usize, Write<'_>); 4] = [
        (long_size(&long), Box::new(|w| write_long(w, &long).map(|_| ()))),
        (short_size(&short), Box::new(|w| write_short(w, &short).map(|_| ()))),
        (retry_size(&dcid, &scid, &[1; 5]), Box::new(|w| write_retry(w, Version::V2, &dcid, &scid, &[1; 5], 3))),
        (
            version_negotiation_size(&[1; 30], &[2; 255], &versions),
            Box::new(|w| write_version_negotiation(w, &[1; 30], &[2; 255], &versions, 0)),
        ),
    ];
    for (size, write) in writers {
        for room in 0..size {
            let mut buf = vec![0xee; room];
            let mut w = Writer::new(&mut buf);
            assert_eq!((write(&mut w), w.len()), (None, 0), "room {room} of {size}");
            assert!(buf.iter().all(|b| *b == 0xee));
        }
        let mut buf = vec![0; size];
        let mut w = Writer::new(&mut buf);
        assert_eq!((write(&mut w), w.room()), (Some(()), 0));
    }
}

#[test]
fn impossible_headers_are_not_written() {
    let mut buf = [0; 600];
    let mut w = Writer::new(&mut buf);
    let mut spec = LongSpec {
        level: Level::OneRtt,
        version: Version::V1,
        dcid: &Cid::EMPTY,
        scid: &Cid::EMPTY,
        token: &[],
        pn: 0,
        pn_len: 1,
    };
    assert_eq!(write_long(&mut w, &spec), None);
    spec.level = Level::Handshake;
    for pn_len in [0, 5] {
        spec.pn_len = pn_len;
        assert_eq!(write_long(&mut w, &spec), None);
    }
    assert_eq!(write_version_negotiation(&mut w, &[0; 256], &[], &[Version::V1], 0), None);
    assert_eq!(write_version_negotiation(&mut w, &[], &[], &[], 0), None);
    assert!(w.is_empty());
}

#[test]
fn a_length_of_more_than_14_bits_is_refused() {
    let layout = LongLayout { length_at: 0, pn_at: 2, payload_at: 3 };
    let mut bytes = [0; 4];
    assert_eq!(patch_length(&mut bytes, layout, 2 + LONG_LENGTH_MAX + 1), None);
    assert_eq!(patch_length(&mut bytes, layout, 1), None);
    assert_eq!(bytes, [0; 4]);
    assert_eq!(patch_length(&mut bytes, layout, 2 + LONG_LENGTH_MAX), Some(()));
    assert_eq!(bytes, [0x7f, 0xff, 0, 0]);
}

#[test]
fn a_datagram_is_routed_before_its_number_is_known() {
    assert_eq!(destination(&hex("400102030499"), 4), Some(&[1, 2, 3, 4][..]));
    assert_eq!(destination(&hex("40010203"), 4), None);
    assert_eq!(destination(&hex("c00000000103aabbcc"), 4), Some(&[0xaa, 0xbb, 0xcc][..]));
    assert_eq!(destination(&hex("c00000000103aabb"), 4), None);
    assert_eq!(destination(&[], 0), None);
    assert_eq!(decode(&[], 0), Err(HeaderError::Truncated));
    assert_eq!(decode(&[0x40; 64], 21), Err(HeaderError::CidTooLong));
}

#[test]
fn each_first_byte_of_each_length_is_a_header_or_an_error() {
    // LS-PARS-02: lengths that lie, too: the byte behind both connection IDs is a length of token or packet.
    for first in 0..=255 {
        for version in [0, 1, Version::V2.0, 0x0a0a_0a0a] {
            for filler in [0x00, 0x03, 0x14, 0x3f, 0xff] {
                let mut bytes = [filler; 70];
                bytes[0] = first;
                bytes[1..5].copy_from_slice(&version.to_be_bytes());
                for cut in 0..=bytes.len() {
                    let Ok(header) = decode(&bytes[..cut], 8) else { continue };
                    let end = header.long().map_or(cut, |l| l.end.max(l.pn_at));
                    assert!(end <= cut, "{first:#x} {version:#x} {filler:#x} {cut}: {header:?}");
                }
            }
        }
    }
}

fn any_cid() -> impl Strategy<Value = Cid> {
    prop::collection::vec(any::<u8>(), 0..=20).prop_map(|b| Cid::new(&b).unwrap())
}

proptest! {
    #[test]
    fn long_headers_are_read_as_written(
        v2: bool, which in 0..3usize, dcid in any_cid(), scid in any_cid(),
        token in prop::collection::vec(any::<u8>(), 0..200),
        number in 0..1u64 << 62, number_len in 1..=4usize, payload in 0..1500usize
    ) {
        let level = [Level::Initial, Level::ZeroRtt, Level::Handshake][which];
        let version = if v2 { Version::V2 } else { Version::V1 };
        let token = if level == Level::Initial { &token[..] } else { &[] };
        let spec = LongSpec { level, version, dcid: &dcid, scid: &scid, token, pn: number, pn_len: number_len };
        let bytes = packet(&spec, payload);
        let long = *decode(&bytes, 0).unwrap().long().unwrap();
        let pn_at = bytes.len() - payload - number_len;
        prop_assert_eq!(long, Long { level, version, dcid, scid, token, pn_at, end: bytes.len() });
        prop_assert_eq!(destination(&bytes, 0), Some(dcid.as_slice()));
        let mut r = Reader::new(&bytes[long.pn_at..]);
        let read = (0..number_len).fold(0u32, |n, _| n << 8 | u32::from(r.u8().unwrap()));
        prop_assert_eq!(read, pn::truncate(number, number_len));
        prop_assert_eq!(super::header::pn_len(bytes[0]), number_len);
    }

    #[test]
    fn short_headers_are_read_as_written(
        dcid in any_cid(), number in 0..1u64 << 62, number_len in 1..=4usize, spin_bit: bool, phase: bool
    ) {
        let mut buf = [0; 64];
        let mut w = Writer::new(&mut buf);
        let spec = ShortSpec { dcid: &dcid, spin: spin_bit, key_phase: phase, pn: number, pn_len: number_len };
        let head = write_short(&mut w, &spec).unwrap();
        prop_assert_eq!(head, Head { pn_at: 1 + dcid.len(), payload_at: w.len() });
        prop_assert_eq!(decode(w.written(), dcid.len()), Ok(Header::Short { dcid, pn_at: head.pn_at }));
        prop_assert_eq!(destination(w.written(), dcid.len()), Some(dcid.as_slice()));
    }

    #[test]
    fn any_bytes_are_a_header_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..120), version in 0..4usize, short in 0..=20usize
    ) {
        let mut bytes = bytes;
        if let Some(b) = bytes.get_mut(1..5) {
            b.copy_from_slice(&[0, 1, Version::V2.0, 0x0a0a_0a0a][version].to_be_bytes());
        }
        if let Ok(header) = decode(&bytes, short) {
            if let Some(long) = header.long() {
                prop_assert!(long.pn_at <= long.end && long.end <= bytes.len());
            }
            prop_assert!(destination(&bytes, short).is_some());
        }
    }
}

//! Replays inputs that other implementations' fuzzers found through every parser of the wire format.
//!
//! Nothing may panic; whatever is understood has to survive being written and read again.

use courser_core::ids::{Level, Side, Version};
use courser_core::wire::frame::{self, Extensions, Frame};
use courser_core::wire::header::{self, Header};
use courser_core::wire::{Reader, Writer, params};

macro_rules! corpus {
    ($name:literal) => {
        inputs(include_bytes!(concat!("../testdata/fuzz/", $name, ".bin")))
    };
}

/// The inputs of a file, each behind its length in two bytes.
fn inputs(file: &'static [u8]) -> Vec<&'static [u8]> {
    let mut r = Reader::new(file);
    let mut all = Vec::new();
    while !r.is_empty() {
        let len = r.u16().expect("a whole length");
        all.push(r.bytes(usize::from(len)).expect("a whole input"));
    }
    all
}

fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut buf = vec![0; frame.size()];
    let mut w = Writer::new(&mut buf);
    frame.encode(&mut w).expect("the size is known before");
    assert_eq!(w.room(), 0, "{frame:?}");
    buf
}

/// Walks over frames; gives how many were understood and whether all of them were.
fn walk(payload: &[u8], level: Level, ext: Extensions) -> (usize, bool) {
    let mut count = 0;
    for frame in frame::frames(payload, level, ext) {
        let Ok(frame) = frame else { return (count, false) };
        if let Frame::Ack(ack) = &frame {
            let mut below = ack.largest + 2;
            for (first, last) in ack.ranges {
                assert!(first <= last && last + 2 <= below);
                below = first;
            }
        }
        let again = encode(&frame);
        assert_eq!(frame::parse(&mut Reader::new(&again), Extensions::ALL), Ok(frame));
        count += 1;
    }
    (count, true)
}

/// Takes a datagram apart; gives the number of packets.
fn take_apart(datagram: &[u8], short_len: usize) -> usize {
    let mut rest = datagram;
    let mut packets = 0;
    while let Ok(found) = header::decode(rest, short_len) {
        packets += 1;
        assert!(header::destination(rest, short_len).is_some());
        match found {
            Header::Initial(long) | Header::ZeroRtt(long) | Header::Handshake(long) => {
                assert!(long.pn_at <= long.end && long.end <= rest.len());
                walk(&rest[long.pn_at..long.end], long.level, Extensions::ALL);
                rest = &rest[long.end..];
            }
            Header::Short { pn_at, .. } => {
                walk(&rest[pn_at..], Level::OneRtt, Extensions::ALL);
                return packets;
            }
            Header::VersionNegotiation { versions, .. } => {
                assert!(versions.count() > 0);
                return packets;
            }
            Header::Retry { token, without_tag, .. } => {
                assert!(!token.is_empty() && without_tag.len() + 16 == rest.len());
                return packets;
            }
            Header::UnknownVersion { .. } => return packets,
        }
    }
    packets
}

#[test]
fn datagrams_are_taken_apart() {
    let all = [
        corpus!("datagram-neqo-client-initial"),
        corpus!("datagram-neqo-packet"),
        corpus!("datagram-neqo-server-initial"),
        corpus!("datagram-ngtcp2-handshake"),
        corpus!("datagram-ngtcp2-pkt"),
        corpus!("datagram-quiche-client"),
        corpus!("datagram-quiche-server"),
        corpus!("datagram-quicly-packet"),
    ]
    .concat();
    assert_eq!(all.len(), 563);
    let mut packets = 0;
    for input in &all {
        for short_len in [0, 8, 20] {
            packets += take_apart(input, short_len);
        }
        // The same noise as something we speak, as frames, and as parameters.
        for version in [Version::V1, Version::V2] {
            let mut known = input.to_vec();
            if let Some(v) = known.get_mut(1..5) {
                v.copy_from_slice(&version.0.to_be_bytes());
            }
            packets += take_apart(&known, 8);
        }
        for level in Level::ALL {
            walk(input, level, Extensions::ALL);
        }
        for side in [Side::Client, Side::Server] {
            let _ = params::decode(input, side);
        }
    }
    assert!(packets > 500, "most inputs begin with something like a header: {packets}");
}

#[test]
fn headers_of_unknown_versions_show_their_connection_ids() {
    let all = corpus!("packet-header-s2n");
    assert_eq!(all.len(), 6);
    let cid: Vec<u8> = (1..=20).collect();
    let mut kinds = [0; 3];
    for input in &all {
        match header::decode(input, 20) {
            Ok(Header::UnknownVersion { dcid, scid, .. }) => {
                assert_eq!((dcid, scid), (&cid[..], &cid[..]));
                kinds[0] += 1;
            }
            Ok(Header::VersionNegotiation { dcid, scid, versions }) => {
                assert_eq!((dcid, scid), (&cid[..], &cid[..]));
                assert_eq!(versions.collect::<Vec<_>>(), [Version(1), Version(2), Version(3)]);
                kinds[1] += 1;
            }
            Ok(Header::Short { dcid, pn_at }) => {
                assert_eq!((dcid.as_slice(), pn_at), (&cid[..], 21));
                kinds[2] += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(kinds, [4, 1, 1]);
}

#[test]
fn headers_of_known_versions_have_the_type_that_their_bits_say() {
    let mut kinds = Vec::new();
    for input in corpus!("packet-header-s2n") {
        let mut known = input.to_vec();
        if !header::is_long(known[0]) || known[1..5] == [0; 4] {
            continue;
        }
        known[1..5].copy_from_slice(&Version::V1.0.to_be_bytes());
        kinds.push(match header::decode(&known, 20) {
            Ok(Header::Initial(long)) => {
                assert_eq!((long.token, long.end), (&[1, 2, 3, 4][..], known.len()));
                'i'
            }
            Ok(Header::ZeroRtt(long)) => {
                assert_eq!(long.end, known.len());
                '0'
            }
            Ok(Header::Handshake(long)) => {
                assert_eq!(long.end, known.len());
                'h'
            }
            Ok(Header::Retry { token, .. }) => {
                assert_eq!(token.len(), 20);
                'r'
            }
            other => panic!("{other:?}"),
        });
    }
    kinds.sort_unstable();
    assert_eq!(kinds, ['0', 'h', 'i', 'r']);
}

#[test]
fn well_formed_frames_are_read_and_written_again() {
    let all = [corpus!("frame-ngtcp2"), corpus!("frame-s2n")].concat();
    assert_eq!(all.len(), 42);
    let mut refused = Vec::new();
    for input in all {
        let walked: Result<Vec<_>, _> = frame::frames(input, Level::OneRtt, Extensions::ALL).collect();
        match walked {
            Ok(frames) => assert_eq!(frames.iter().flat_map(encode).collect::<Vec<_>>(), input),
            Err(violation) => refused.push((violation.frame_type, violation.section)),
        }
    }
    // Two ACK frames of ngtcp2 only show the layout: their ranges go below zero.
    assert_eq!(refused, [(2, "rfc9000#19.3.1"), (3, "rfc9000#19.3.1")]);
}

#[test]
fn frames_that_fuzzing_found_are_understood_or_refused() {
    let all = corpus!("frame-neqo");
    assert_eq!(all.len(), 42);
    let mut whole = 0;
    for input in all {
        for level in Level::ALL {
            walk(input, level, Extensions::NONE);
            whole += usize::from(walk(input, level, Extensions::ALL).1);
        }
    }
    assert!(whole > 20, "{whole}");
}

#[test]
fn transport_parameters_are_read_and_written_again() {
    let all = corpus!("transport-params-neqo");
    assert_eq!(all.len(), 10);
    let mut understood = 0;
    for input in all {
        for side in [Side::Client, Side::Server] {
            let Ok(read) = params::decode(input, side) else { continue };
            understood += 1;
            let mut again = Vec::new();
            params::encode(&read, side, 77, &mut again);
            assert_eq!(params::decode(&again, side), Ok(read));
        }
    }
    assert!(understood >= 8, "{understood}");
}

//! Tests of the frame reader.

use proptest::prelude::*;

use super::*;

/// What a reader saw: for each frame, its type, length and payload.
fn read(reader: &mut FrameReader, pieces: &[Bytes]) -> Vec<(u64, u64, Vec<u8>)> {
    let mut seen: Vec<(u64, u64, Vec<u8>)> = Vec::new();
    for piece in pieces {
        let mut piece = piece.clone();
        loop {
            if reader.open().is_none() {
                match reader.header(&mut piece) {
                    Some(header) => seen.push((header.kind, header.len, Vec::new())),
                    None => break,
                }
            }
            let part = reader.payload(&mut piece);
            if let Some(last) = seen.last_mut() {
                last.2.extend_from_slice(&part);
            }
            if reader.open().is_some() {
                break;
            }
        }
        assert!(piece.is_empty(), "everything is taken");
    }
    seen
}

fn frames() -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    let kind = prop_oneof![0..0x45u64, 0xf_0700..0xf_0702u64, 0..=courser_core::ids::VARINT_MAX];
    proptest::collection::vec((kind, proptest::collection::vec(any::<u8>(), 0..100)), 0..8)
}

proptest! {
    #[test]
    fn frames_read_the_same_whole_or_in_any_pieces(frames in frames(), cuts in proptest::collection::vec(1..9usize, 1..40)) {
        let mut wire = Vec::new();
        for (kind, payload) in &frames {
            push_frame(&mut wire, *kind, payload);
        }
        let wire = Bytes::from(wire);
        let expected: Vec<_> = frames.iter().map(|(k, p)| (*k, wide(p.len()), p.clone())).collect();
        let mut whole = FrameReader::new();
        prop_assert_eq!(&read(&mut whole, std::slice::from_ref(&wire)), &expected);
        prop_assert!(whole.is_between_frames());
        let single: Vec<Bytes> = (0..wire.len()).map(|at| wire.slice(at..=at)).collect();
        prop_assert_eq!(&read(&mut FrameReader::new(), &single), &expected);
        let (mut rest, mut pieces) = (wire, Vec::new());
        for cut in cuts {
            pieces.push(rest.split_to(cut.min(rest.len())));
        }
        pieces.push(rest);
        prop_assert_eq!(&read(&mut FrameReader::new(), &pieces), &expected);
    }

    #[test]
    fn a_stream_that_is_cut_anywhere_but_between_frames_is_known_to_be_cut(payload in 0..70usize, cut in 0..80usize) {
        let mut wire = Vec::new();
        push_frame(&mut wire, kind::DATA, &vec![7; payload]);
        let cut = cut.min(wire.len());
        let mut reader = FrameReader::new();
        read(&mut reader, &[Bytes::copy_from_slice(&wire[..cut])]);
        prop_assert_eq!(reader.is_between_frames(), cut == 0 || cut == wire.len());
    }
}

#[test]
fn a_payload_is_a_slice_of_what_came() {
    let mut wire = Vec::new();
    push_frame(&mut wire, kind::DATA, &[9; 5000]);
    push_frame(&mut wire, kind::DATA, &[8; 10]);
    let mut piece = Bytes::from(wire);
    let from = piece.as_ptr();
    let mut reader = FrameReader::new();
    assert_eq!(reader.header(&mut piece), Some(Header { kind: kind::DATA, len: 5000 }));
    assert!(reader.is_whole_in(&piece));
    let payload = reader.payload(&mut piece);
    assert_eq!(payload.as_ptr(), from.wrapping_add(3));
    assert_eq!((payload.len(), piece.len()), (5000, 12));
}

#[test]
fn every_type_has_its_rules() {
    for forbidden in [2, 6, 8, 9] {
        assert_eq!(Kind::of(forbidden), Kind::Forbidden);
    }
    for control in [3, 4, 7, 0xd, 0xf_0700, 0xf_0701] {
        assert_eq!(Kind::of(control), Kind::Control);
    }
    for seed in 0..1000 {
        let id = reserved(seed * 7919);
        assert!(is_reserved(id) && Kind::of(id) == Kind::Unknown && varint::size(id) <= 4);
    }
    assert!(!is_reserved(0x20) && !is_reserved(0x22) && !is_reserved(0));
}

#[test]
fn long_forms_of_integers_are_understood_and_short_ones_are_written() {
    let mut piece = Bytes::from_static(&[0xc0, 0, 0, 0, 0, 0, 0, 1, 0x80, 0, 0, 2, 0xaa, 0xbb]);
    let mut reader = FrameReader::new();
    assert_eq!(reader.header(&mut piece), Some(Header { kind: 1, len: 2 }));
    assert_eq!(&reader.payload(&mut piece)[..], &[0xaa, 0xbb]);
    let header = Header { kind: kind::PRIORITY_UPDATE, len: 64 };
    let (bytes, n) = header.encode();
    assert_eq!((&bytes[..n], n), (&[0x80, 0x0f, 0x07, 0x00, 0x40, 0x40][..], header.size()));
}

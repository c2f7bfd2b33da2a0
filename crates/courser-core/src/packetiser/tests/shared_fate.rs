//! Several pieces of one owner in one packet share its fate, and pieces of buffers become whole frames.

use super::*;
use crate::control::ItemState;

/// Offsets and lengths of the CRYPTO frames of a payload, whose bytes are compared with what was written.
fn crypto_ranges(level: Level, payload: &[u8], written: &[u8]) -> Vec<(u64, usize)> {
    if payload.is_empty() {
        return Vec::new();
    }
    let range = |f| match f {
        Frame::Crypto { offset, data } => {
            assert_eq!(data, &written[offset as usize..][..data.len()]);
            (offset, data.len())
        }
        other => panic!("{other:?}"),
    };
    frames(payload, level, Extensions::NONE).map(|f| range(f.unwrap())).collect()
}

#[test]
fn two_ranges_of_crypto_data_in_one_packet_share_its_fate_at_each_level() {
    // OSSL-FIFM-12
    for level in [Level::Initial, Level::Handshake, Level::OneRtt] {
        for fate in [Fate::Acked, Fate::Lost] {
            let mut h = House::new();
            let written: Vec<u8> = (0..290).map(|i| i as u8).collect();
            h.crypto.write(&written, &mut h.pool);
            let plan = Plan { level, last: false, ..House::plan() };
            let parts: Vec<_> = (0..3).map(|_| crypto_ranges(level, &h.build(&plan, 103).0, &written)).collect();
            assert_eq!(parts, [[(0, 99)], [(99, 98)], [(197, 93)]]);
            h.crypto.settle(Fate::Acked, 99, 98, &mut h.pool);
            h.crypto.settle(Fate::Lost, 0, 99, &mut h.pool);
            h.crypto.settle(Fate::Lost, 197, 93, &mut h.pool);
            let (payload, _) = h.build(&plan, 1000);
            assert_eq!(crypto_ranges(level, &payload, &written), [(0, 99), (197, 93)], "what arrived is left out");
            let records = h.records.clone();
            let record = |offset, len| Record::Crypto { level, offset, len };
            assert_eq!(records, [record(0, 99), record(197, 93)]);
            for record in records {
                let Record::Crypto { offset, len, .. } = record else { panic!("{record:?}") };
                h.crypto.settle(fate, offset, len, &mut h.pool);
            }
            let again = crypto_ranges(level, &h.build(&plan, 1000).0, &written);
            let (expected, held) = if fate == Fate::Lost { (vec![(0, 99), (197, 93)], 1) } else { (vec![], 0) };
            assert_eq!((again, h.pool.in_use()), (expected, held), "{level:?} {fate:?}");
        }
    }
}

#[test]
fn several_control_items_of_one_packet_share_its_fate() {
    // OSSL-FIFM-14, OSSL-FIFM-16, OSSL-FIFD-05, OSSL-TXPIM-03
    let mut h = House::new();
    for sequence in 1..5 {
        h.control.add(PRIORITY_CID, Space::Data, FrameKind::NewConnectionId, &new_connection_id(sequence)).unwrap();
    }
    for lost in [true, false] {
        let (payload, _) = h.build(&House::plan(), 1200);
        let sequences = frames(&payload, Level::OneRtt, Extensions::NONE).map(|f| match f {
            Ok(Frame::NewConnectionId { sequence, .. }) => sequence,
            other => panic!("{other:?}"),
        });
        assert!(sequences.eq(1..5), "in the order of their age");
        let items: Vec<u32> =
            h.records.iter().map(|r| if let Record::Item(id) = r { *id } else { panic!("{r:?}") }).collect();
        assert_eq!(items.len(), 4);
        assert!(items.iter().all(|id| h.control.state(*id) == Some(ItemState::Tx)), "committed");
        for id in &items {
            if lost { h.control.mark_lost(*id, None) } else { h.control.release(*id) }
        }
        let state = lost.then_some(ItemState::New);
        assert!(items.iter().all(|id| h.control.state(*id) == state));
    }
    assert!(h.control.is_empty());
}

#[test]
fn an_item_of_the_handshake_never_leaves_in_another_level() {
    // OSSL-FIFM-17
    let mut h = House::new();
    let item = h.control.add(PRIORITY_CID, Space::Handshake, FrameKind::Ping, &[1]).unwrap();
    assert_eq!(h.build(&House::plan(), 1200).0, []);
    h.control.add(PRIORITY_CID, Space::Data, FrameKind::RetireConnectionId, &[0x19, 5]).unwrap();
    assert_eq!(h.kinds(&House::plan(), 1200), [FrameKind::RetireConnectionId]);
    assert_eq!(h.control.state(item), Some(ItemState::New));
}

#[test]
fn frames_from_several_pieces_have_their_golden_bytes() {
    // NGX-BUF-17: 700 bytes lie in chunks of 512 bytes and more; the frame is one.
    let data: Vec<u8> = (0..700).map(|i| (i * 7) as u8).collect();
    let mut h = House::new();
    for part in [&data[..500], &[], &data[500..530], &data[530..]] {
        h.crypto.write(part, &mut h.pool);
    }
    assert!(h.pool.in_use() > 1, "several pieces");
    let plan = Plan { level: Level::Handshake, last: false, ..House::plan() };
    let golden = [&[0x06, 0x00, 0x42, 0xbc][..], &data].concat();
    assert_eq!(h.build(&plan, 1200).0, golden);
    for (last, head) in [(false, &[0x0a, 0x02, 0x42, 0xbc][..]), (true, &[0x08, 0x02][..])] {
        let mut h = House::new();
        let id = h.streams.open(Dir::Uni).unwrap();
        for part in [&data[..500], &[], &data[500..530], &data[530..]] {
            h.streams.write(id, part, &mut h.pool).unwrap();
        }
        assert!(h.pool.in_use() > 1, "several pieces");
        let room = head.len() + data.len();
        assert_eq!(h.build(&Plan { last, ..House::plan() }, room).0, [head, &data].concat());
    }
}

//! When credit is renewed, and by how much.

use super::*;
use crate::ids::Dir;

fn settings() -> Settings {
    Settings {
        stream_window: 1000,
        stream_window_max: 1000,
        conn_window: 1500,
        conn_window_max: 1500,
        ..Settings::default()
    }
}

/// Reads that many bytes.
fn read(end: &mut End, id: StreamId, len: usize) {
    let got = end.s.read(id, &mut vec![0; len], &mut end.pool);
    assert_eq!(got, Ok(crate::stream::Read::Bytes(len)));
}

/// Frames of the next packet, if there is one.
fn said(end: &mut End) -> Vec<Frame<'static>> {
    let Some(p) = end.packet(1200, true) else { return Vec::new() };
    frames(&p.payload, Level::OneRtt, Extensions::NONE)
        .map(|f| match f.unwrap() {
            Frame::MaxData { max } => Frame::MaxData { max },
            Frame::MaxStreamData { id, max } => Frame::MaxStreamData { id, max },
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn max_data_leaves_with_the_byte_that_uses_half_of_the_window() {
    // NGX-BUF-23, OSSL-TXP-16: half of 1,500 bytes of the connection, half of 1,000 of each stream.
    let (mut a, mut b) = pair(&settings());
    let ids = [a.s.open(Dir::Uni).unwrap(), a.s.open(Dir::Uni).unwrap()];
    ids.iter().for_each(|id| assert_eq!(a.write(*id, &[1; 2000]), 2000));
    while let Some(p) = a.packet(1200, true) {
        b.deliver(&p).unwrap();
    }
    ids.iter().for_each(|id| assert_eq!(b.s.accept(Dir::Uni), Some(*id)));
    // DATA_BLOCKED came: there is nothing new to say before something was read.
    assert_eq!(said(&mut b), []);
    read(&mut b, ids[0], 499);
    let news = said(&mut b);
    assert!(news.is_empty(), "{news:?}");
    read(&mut b, ids[0], 1);
    assert_eq!(said(&mut b), [Frame::MaxStreamData { id: ids[0], max: 1500 }]);
    read(&mut b, ids[1], 249);
    assert_eq!(said(&mut b), [], "749 bytes of the connection are not half");
    read(&mut b, ids[1], 1);
    assert_eq!(said(&mut b), [Frame::MaxData { max: 750 + 1500 }]);
    assert_eq!(said(&mut b), []);
}

#[test]
fn who_says_that_it_is_blocked_hears_what_the_buffer_has_room_for() {
    // NGX-BUF-22: less than half of the window was read, so nothing is due by itself.
    for (consumed, answer) in [(0, None), (1, Some(1001)), (300, Some(1300)), (499, Some(1499))] {
        let (mut a, mut b) = pair(&settings());
        let id = a.s.open(Dir::Uni).unwrap();
        a.write(id, &[1; 1000]);
        let p = a.packet(1200, true).unwrap();
        b.deliver(&p).unwrap();
        assert_eq!(b.s.accept(Dir::Uni), Some(id));
        if consumed > 0 {
            read(&mut b, id, consumed);
        }
        assert_eq!(said(&mut b), []);
        a.fate(&p, Fate::Acked);
        a.write(id, &[2; 500]);
        let blocked = a.packet(1200, true).unwrap();
        assert_eq!(blocked.records, [Record::StreamDataBlocked(id)]);
        b.deliver(&blocked).unwrap();
        let free = 1000 - (1000 - consumed as u64);
        let expected: Vec<_> = answer.map(|max| Frame::MaxStreamData { id, max }).into_iter().collect();
        assert_eq!(said(&mut b), expected, "{consumed} of 1,000 bytes were read");
        assert!(answer.is_none_or(|max| max >= consumed as u64 + free), "what was read, and what is free");
        // An old complaint says nothing: the answer is on its way.
        b.deliver(&blocked).unwrap();
        assert_eq!(said(&mut b), []);
    }
}

#[test]
fn a_connection_that_is_blocked_hears_what_the_buffers_have_room_for() {
    let (mut a, mut b) = pair(&settings());
    let ids = [a.s.open(Dir::Uni).unwrap(), a.s.open(Dir::Uni).unwrap()];
    ids.iter().for_each(|id| assert_eq!(a.write(*id, &[1; 800]), 800));
    let mut blocked = None;
    while let Some(p) = a.packet(1200, true) {
        match p.conn.contains(&FrameKind::DataBlocked) {
            true => blocked = Some(p),
            false => b.deliver(&p).unwrap(),
        }
    }
    assert_eq!(b.s.accept(Dir::Uni), Some(ids[0]));
    read(&mut b, ids[0], 400);
    assert_eq!(said(&mut b), []);
    b.deliver(&blocked.unwrap()).unwrap();
    assert_eq!(said(&mut b), [Frame::MaxData { max: 1900 }]);
}

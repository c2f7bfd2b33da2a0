//! What messages look like on the wire.

use proptest::prelude::*;

use super::*;
use crate::frame::{FrameReader, kind};

/// The frames of a stream: types and payloads. The last one may be cut.
fn frames(wire: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let (mut reader, mut piece, mut frames) = (FrameReader::new(), Bytes::copy_from_slice(wire), Vec::new());
    while !piece.is_empty() {
        let Some(header) = reader.header(&mut piece) else { panic!("a header is cut") };
        let whole = reader.is_whole_in(&piece);
        frames.push((header.kind, reader.payload(&mut piece).to_vec()));
        assert!(whole, "a frame of {} bytes is cut", header.len);
    }
    frames
}

fn large() -> request::Parts {
    let mut head = post("https://a.example/", None);
    for n in 0..60_u8 {
        let name = http::HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap();
        head.headers.insert(name, HeaderValue::from_bytes(&[b'a' + n % 26; 1000]).unwrap());
    }
    head
}

#[test]
fn a_head_of_sixty_kilobytes_arrives_through_a_window_of_one_packet_before_any_content() {
    let limits = Config { max_field_section_size: 1 << 20, ..Config::default() };
    let mut pair = Pair::with(Config::default(), limits);
    (pair.c.room, pair.s.piece) = (1200, 1200);
    let head = large();
    let id = pair.client.send_request(&mut pair.c, &head, false).unwrap().unwrap();
    let (mut waits, mut content) = (0, Bytes::from_static(b"content"));
    let got = loop {
        // What waits of the head comes first: content is not taken.
        if pair.client.send_body(&mut pair.c, id, &mut content, true).unwrap() == 0 && !content.is_empty() {
            assert!(!pair.client.flush(&mut pair.c, id).unwrap());
        }
        pair.turn();
        match pair.server.poll_request(&mut pair.s, id).unwrap() {
            Head::Ready(parts) => break parts,
            Head::Blocked => waits += 1,
            other => panic!("{other:?}"),
        }
    };
    assert!(waits >= 20, "the head came in {waits} pieces");
    assert_eq!(got.headers, head.headers);
    while !content.is_empty() {
        pair.client.send_body(&mut pair.c, id, &mut content, true).unwrap();
        pair.turn();
    }
    assert_eq!(pair.content(Side::Server, id).0, b"content");
}

proptest! {
    #[test]
    fn every_data_frame_is_as_long_as_it_says_whatever_is_written_and_whatever_room_there_is(
        writes in proptest::collection::vec(0..3000_usize, 0..12),
        rooms in proptest::collection::vec(1..2000_usize, 1..8),
        declared: bool,
        trailers: bool,
    ) {
        let whole: usize = writes.iter().sum();
        let mut pair = Pair::new();
        let id = pair.ask(&get("https://a.example/"), true);
        pair.request(id);
        let mut head = ok();
        if declared {
            head.headers.insert("content-length", whole.into());
        }
        let (mut wire, mut sent, mut step) = (Vec::new(), Vec::new(), 0);
        let mut drain = |pair: &mut Pair| {
            wire.append(&mut pair.s.stream(id).outgoing);
            step += 1;
            pair.s.room = rooms[step % rooms.len()];
        };
        pair.s.room = 3;
        pair.server.send_response(&mut pair.s, id, &head, false).unwrap();
        for (n, len) in writes.iter().enumerate() {
            let mut data = Bytes::from(vec![u8::try_from(n).unwrap(); *len]);
            sent.extend_from_slice(&data);
            while !data.is_empty() {
                drain(&mut pair);
                pair.server.send_body(&mut pair.s, id, &mut data, false).unwrap();
            }
        }
        let mut map = HeaderMap::new();
        map.insert("x-sum", HeaderValue::from_static("1"));
        if trailers {
            pair.server.send_trailers(&mut pair.s, id, &map).unwrap();
        } else {
            pair.server.send_body(&mut pair.s, id, &mut Bytes::new(), true).unwrap();
        }
        while !pair.server.flush(&mut pair.s, id).unwrap() {
            drain(&mut pair);
        }
        drain(&mut pair);
        prop_assert!(pair.s.streams[&id].finished);
        let frames = frames(&wire);
        let kinds: Vec<u64> = frames.iter().map(|(kind, _)| *kind).collect();
        let data: Vec<u8> = frames.iter().filter(|(k, _)| *k == kind::DATA).flat_map(|(_, p)| p.clone()).collect();
        prop_assert_eq!(data, sent);
        prop_assert_eq!((kinds[0], kinds.last() == Some(&kind::HEADERS) && kinds.len() > 1), (kind::HEADERS, trailers));
        let count = kinds.iter().filter(|k| **k == kind::DATA).count();
        let most = if declared { usize::from(whole > 0) } else { writes.len() };
        prop_assert!(count <= most, "{} frames", count);
    }
}

//! Requests and responses as they should be.

use super::*;

#[test]
fn a_request_and_its_answer_arrive_with_content_and_trailers() {
    let mut pair = Pair::new();
    let mut head = post("https://example.org/form?a=b", None);
    head.headers.insert("x-thing", HeaderValue::from_static("1"));
    let id = pair.ask(&head, false);
    let got = pair.request(id);
    assert_eq!((&got.method, &got.uri, got.version), (&Method::POST, &head.uri, http::Version::HTTP_3));
    assert_eq!(got.headers["x-thing"], "1");
    assert!(matches!(pair.server.poll_body(&mut pair.s, id), Ok(Body::Blocked)));
    let mut data = Bytes::from(vec![7; 10_000]);
    assert_eq!(pair.client.send_body(&mut pair.c, id, &mut data, false), Ok(10_000));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    pair.client.send_trailers(&mut pair.c, id, &trailers).unwrap();
    pair.turn();
    assert_eq!(pair.content(Side::Server, id), (vec![7; 10_000], Some(trailers)));
    let mut response = ok();
    response.status = StatusCode::CREATED;
    pair.server.send_response_with(&mut pair.s, id, &response, &mut Bytes::from_static(b"done"), true).unwrap();
    pair.turn();
    assert_eq!(pair.response(id).status, StatusCode::CREATED);
    assert_eq!(pair.content(Side::Client, id), (b"done".to_vec(), None));
    for (end, t) in [(&mut pair.client, &mut pair.c), (&mut pair.server, &mut pair.s)] {
        assert!(end.is_read(t, id));
        end.forget(t, id);
        assert_eq!(end.active_requests(), 0);
        let stream = &t.streams[&id];
        assert_eq!((stream.finished, stream.reset, stream.stopped), (true, None, None));
    }
}

#[test]
fn settings_come_first_on_one_control_stream_and_there_is_one_stream_of_each_kind() {
    //= rfc9114#6.2.1-1 type=test
    //= rfc9114#7.2.4-1 type=test
    //= rfc9114#3.2-3 type=test
    //= rfc9114#7.2.4.2-3 type=test
    //= rfc9114#7.2.4-3 type=test
    //= rfc9114#6.2-3 type=test
    //= rfc9114#6.2-8 type=test
    let mut pair = Pair::silent(Config::default(), Config::default());
    pair.client.start(&mut pair.c).unwrap();
    pair.client.pump(&mut pair.c).unwrap();
    let first = |index| StreamId::new(Side::Client, Dir::Uni, index);
    let kinds: Vec<_> = pair.c.streams.iter().map(|(id, s)| (*id, s.outgoing[0])).collect();
    assert_eq!(kinds, [(first(0), 0), (first(1), 2), (first(2), 3)], "nothing came from the peer yet");
    assert_eq!(pair.c.streams[&first(0)].outgoing[1], 4);
    let order: Vec<_> = pair.client.own_streams().collect();
    assert_eq!(order, [first(0), first(1), first(2)]);
}

#[test]
fn each_request_has_a_stream_of_its_own_that_is_closed_behind_it() {
    //= rfc9114#4.1-1 type=test
    //= rfc9114#4.1-6 type=test
    //= rfc9114#4.1-7 type=test
    let mut pair = Pair::new();
    let ids =
        [(); 3].map(|()| pair.client.send_request(&mut pair.c, &get("https://a.example/"), true).unwrap().unwrap());
    assert_eq!(ids, [StreamId(0), StreamId(4), StreamId(8)]);
    assert!(ids.iter().all(|id| pair.c.streams[id].finished), "before any response");
    let id = pair.ask(&post("https://a.example/", None), false);
    assert!(!pair.c.streams[&id].finished);
    pair.client.send_body(&mut pair.c, id, &mut Bytes::from_static(b"x"), true).unwrap();
    assert!(pair.c.streams[&id].finished);
    pair.turn();
    //= rfc9114#4.1-8 type=test
    pair.request(id);
    pair.answer(id, &ok(), true);
    assert!(pair.s.streams[&id].finished);
}

#[test]
fn a_client_that_was_told_no_settings_goes_by_the_default_values() {
    //= rfc9114#7.2.4.2-6 type=test
    //= rfc9114#7.2.4.2-2 type=test
    let mut pair = Pair::silent(Config { grease: false, ..Config::default() }, Config::default());
    pair.client.start(&mut pair.c).unwrap();
    let mut head = get("https://a.example/");
    head.headers.insert("user-agent", HeaderValue::from_static("worth an entry of a table, were there one"));
    let sizes: Vec<_> = (0..5)
        .map(|_| {
            let id = pair.client.send_request(&mut pair.c, &head, true).unwrap().unwrap();
            pair.c.streams[&id].outgoing.len()
        })
        .collect();
    assert!(sizes.iter().all(|size| *size == sizes[0] && *size > 40), "{sizes:?}");
    assert_eq!(pair.c.streams[&StreamId::new(Side::Client, Dir::Uni, 1)].outgoing, [2], "no instruction");
}

#[test]
fn streams_that_are_permitted_later_are_opened_later() {
    let mut pair = Pair::silent(Config::default(), Config::default());
    pair.c.may_open[1] = 0;
    pair.client.start(&mut pair.c).unwrap();
    assert!(pair.c.streams.is_empty());
    for permitted in 1..=4 {
        pair.c.may_open[1] = permitted;
        pair.client.pump(&mut pair.c).unwrap();
        assert_eq!(pair.c.streams.len() as u64, permitted.min(3));
    }
}

#[test]
fn everything_arrives_byte_by_byte_and_with_room_for_one_byte() {
    for (room, piece) in [(1, 1), (3, 2), (7, 100)] {
        everything_arrives(room, piece);
    }
}

fn everything_arrives(room: usize, piece: usize) {
    let mut pair = Pair::silent(Config::default(), Config::default());
    for t in [&mut pair.c, &mut pair.s] {
        (t.room, t.piece) = (room, piece);
    }
    pair.client.start(&mut pair.c).unwrap();
    pair.server.start(&mut pair.s).unwrap();
    for _ in 0..100 {
        pair.turn();
    }
    assert!(pair.server.peer_settings().is_some_and(|s| s.max_field_section_size == 64 * 1024));
    let id = pair.ask(&post("https://example.org/", Some(300)), false);
    let mut data = Bytes::from(vec![9; 300]);
    let mut head = None;
    for _ in 0..2000 {
        if !data.is_empty() {
            pair.client.send_body(&mut pair.c, id, &mut data, true).unwrap();
        }
        pair.client.flush(&mut pair.c, id).unwrap();
        pair.turn();
        if head.is_none() {
            match pair.server.poll_request(&mut pair.s, id).unwrap() {
                Head::Ready(parts) => head = Some(parts),
                Head::Blocked | Head::WaitsForTable => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(head.unwrap().method, Method::POST);
    assert_eq!(pair.content(Side::Server, id).0, vec![9; 300]);
}

#[test]
fn informational_responses_come_before_the_final_one() {
    let mut pair = Pair::new();
    let id = pair.ask(&get("https://example.org/"), true);
    pair.request(id);
    for status in [100, 103] {
        let mut head = ok();
        head.status = StatusCode::from_u16(status).unwrap();
        pair.answer(id, &head, false);
    }
    pair.answer(id, &ok(), true);
    let statuses: Vec<u16> = (0..3).map(|_| pair.response(id).status.as_u16()).collect();
    assert_eq!(statuses, [100, 103, 200]);
    assert_eq!(pair.content(Side::Client, id), (vec![], None));
}

#[test]
fn a_small_answer_is_one_write() {
    let mut pair = Pair::new();
    let id = pair.ask(&get("https://example.org/"), true);
    assert_eq!(pair.c.streams[&id].writes, 1);
    pair.request(id);
    pair.server.send_response_with(&mut pair.s, id, &ok(), &mut Bytes::from_static(&[1; 1000]), true).unwrap();
    assert_eq!((pair.s.streams[&id].writes, pair.s.streams[&id].finished), (1, true));
}

#[test]
fn content_of_a_declared_length_is_one_frame_and_large_content_costs_next_to_nothing() {
    const WHOLE: usize = 100_000_000;
    let mut pair = Pair::new();
    let id = pair.ask(&get("https://example.org/"), true);
    pair.request(id);
    for declared in [true, false] {
        let mut x = Exchange::default();
        x.recv.phase = recv::Phase::Body;
        pair.server.exchanges.insert(id, x);
        pair.s.streams.remove(&id);
        let mut head = ok();
        if declared {
            head.headers.insert("content-length", WHOLE.into());
        }
        pair.server.send_response(&mut pair.s, id, &head, false).unwrap();
        let headers = std::mem::take(&mut pair.s.stream(id).outgoing).len();
        assert!(headers < 30);
        let (piece, mut on_wire) = (Bytes::from(vec![5; 16 * 1024]), 0);
        let mut left = WHOLE;
        while left > 0 {
            let mut data = piece.slice(..left.min(piece.len()));
            left -= data.len();
            pair.server.send_body(&mut pair.s, id, &mut data, left == 0).unwrap();
            let out = &mut pair.s.stream(id).outgoing;
            on_wire += out.len();
            out.clear();
        }
        let overhead = on_wire - WHOLE;
        assert!(overhead * 10_000 < WHOLE * 5, "{overhead} bytes of DATA headers: less than 0.05 %");
        assert!(!declared || overhead == 5, "{overhead}");
        assert!(pair.s.streams[&id].finished);
    }
}

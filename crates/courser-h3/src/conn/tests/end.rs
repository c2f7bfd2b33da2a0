//! How messages and connections end before they are complete, and what a peer may do in one go.

use super::*;
use crate::frame::Header;
use crate::{Code, Read};

/// Requests 0, 4, 8 that the server has seen.
fn three(pair: &mut Pair) -> [StreamId; 3] {
    [(); 3].map(|()| {
        let id = pair.ask(&get("https://a.example/"), true);
        pair.request(id);
        id
    })
}

#[test]
fn a_graceful_end_lets_what_was_begun_finish_and_rejects_what_comes_later() {
    let mut pair = Pair::new();
    let ids = three(&mut pair);
    //= rfc9114#5.2-5 type=test
    pair.server.goaway(&mut pair.s, false);
    pair.turn();
    assert_eq!(pair.client.poll_event(), Some(Event::GoAway { first_rejected: StreamId((1 << 62) - 4) }));
    //= rfc9114#5.2-3 type=test
    assert_eq!(pair.client.send_request(&mut pair.c, &get("https://a.example/"), true), Err(Error::Rejected));
    assert!(pair.client.is_draining() && pair.server.is_draining());
    // The server does not know yet that the client has heard it: a request that was under way is still taken.
    pair.s.receive(StreamId(12), &[1, 2, 0, 0], false);
    assert!(pair.server.poll_request(&mut pair.s, StreamId(12)).is_err(), "malformed, but read");
    pair.server.goaway(&mut pair.s, true);
    pair.server.goaway(&mut pair.s, false);
    pair.server.goaway(&mut pair.s, true);
    pair.turn();
    assert_eq!(pair.client.poll_event(), Some(Event::GoAway { first_rejected: StreamId(16) }));
    assert_eq!(pair.client.poll_event(), None, "the same is not said again");
    //= rfc9114#5.2-1 type=test
    //= rfc9114#5.2-2 type=test
    //= rfc9114#4.1.1-3 type=test
    assert!(matches!(pair.server.poll_request(&mut pair.s, StreamId(16)), Ok(Head::Gone)));
    let refused = &pair.s.streams[&StreamId(16)];
    assert_eq!((refused.reset, refused.stopped), (Some(0x10b), Some(0x10b)));
    pair.server.cancel(&mut pair.s, StreamId(12), Code::REQUEST_CANCELLED);
    for id in ids {
        pair.answer(id, &ok(), true);
        assert_eq!(pair.response(id).status, 200);
        pair.server.forget(&mut pair.s, id);
    }
    assert_eq!(pair.server.active_requests(), 0);
    //= rfc9114#6.2.1-4 type=test
    for t in [&pair.c, &pair.s] {
        let mut own = t.streams.iter().filter(|(id, _)| id.dir() == Dir::Uni).map(|(_, s)| s);
        assert!(own.all(|s| !s.finished && s.reset.is_none() && s.stopped.is_none()), "what has to stay stays");
    }
}

#[test]
fn requests_beyond_the_goaway_may_be_made_again() {
    let mut pair = Pair::new();
    let ids = three(&mut pair);
    let late = pair.client.send_request(&mut pair.c, &get("https://a.example/"), true).unwrap().unwrap();
    pair.server.goaway(&mut pair.s, true);
    pair.turn();
    assert_eq!(pair.client.poll_event(), Some(Event::GoAway { first_rejected: late }));
    assert!(matches!(pair.client.poll_response(&mut pair.c, late), Err(Error::Rejected)));
    //= rfc9114#4.1.1-7 type=test
    assert_eq!(pair.c.streams[&late].stopped, Some(Code::REQUEST_CANCELLED.0));
    assert!(matches!(pair.client.poll_response(&mut pair.c, ids[0]), Ok(Head::Blocked)));
    pair.s.reset(ids[1], Code::REQUEST_REJECTED.0);
    pair.turn();
    assert!(matches!(pair.client.poll_response(&mut pair.c, ids[1]), Err(Error::Rejected)));
    assert_eq!(pair.c.closed, None);
}

#[test]
fn a_client_that_leaves_says_so() {
    let mut pair = Pair::new();
    let [id, ..] = three(&mut pair);
    pair.client.goaway(&mut pair.c, true);
    pair.turn();
    assert!(matches!(pair.server.poll_event(), Some(Event::GoAway { .. })));
    assert!(pair.server.is_draining());
    pair.answer(id, &ok(), true);
    assert_eq!(pair.response(id).status, 200);
}

#[test]
fn a_response_is_used_although_the_server_wants_no_more_of_the_request() {
    //= rfc9114#4.1-12 type=test
    //= rfc9114#4.1-11 type=test
    let mut pair = Pair::new();
    let id = pair.ask(&post("https://a.example/", Some(1 << 20)), false);
    pair.request(id);
    pair.answer(id, &ok(), true);
    pair.server.forget(&mut pair.s, id);
    pair.turn();
    assert_eq!(pair.s.streams[&id].stopped, Some(Code::NO_ERROR.0));
    assert_eq!(pair.s.streams[&id].reset, None);
    let mut data = Bytes::from_static(b"more");
    assert_eq!(pair.client.send_body(&mut pair.c, id, &mut data, false), Err(Error::Stopped(0x100)));
    assert_eq!(pair.response(id).status, 200);
    assert_eq!(pair.content(Side::Client, id), (vec![], None));
}

#[test]
fn what_is_dropped_is_reset_and_refused() {
    //= rfc9114#4.1.1-2 type=test
    //= rfc9114#4.1.1-4 type=test
    //= rfc9114#4.1.1-5 type=test
    //= rfc9114#4.1.1-6 type=test
    let mut pair = Pair::new();
    let [a, b, c] = three(&mut pair);
    pair.server.send_response(&mut pair.s, a, &ok(), false).unwrap();
    pair.server.forget(&mut pair.s, a);
    assert_eq!(pair.s.streams[&a].reset, Some(Code::REQUEST_CANCELLED.0));
    pair.client.forget(&mut pair.c, b);
    assert_eq!((pair.c.streams[&b].reset, pair.c.streams[&b].stopped), (None, Some(0x10c)), "the request was complete");
    pair.client.cancel(&mut pair.c, c, Code::REQUEST_CANCELLED);
    assert_eq!(pair.c.streams[&c].stopped, Some(0x10c));
    assert_eq!((pair.server.active_requests(), pair.client.active_requests()), (2, 1));
}

#[test]
fn a_complete_answer_is_delivered_although_nobody_holds_it() {
    let mut pair = Pair::new();
    let [id, ..] = three(&mut pair);
    pair.s.room = 3;
    pair.server.send_response_with(&mut pair.s, id, &ok(), &mut Bytes::from_static(b"hello"), true).unwrap();
    pair.server.forget(&mut pair.s, id);
    for _ in 0..20 {
        pair.turn();
    }
    assert_eq!(pair.response(id).status, 200);
    assert_eq!(pair.content(Side::Client, id).0, b"hello");
    assert_eq!(pair.server.active_requests(), 2);
}

#[test]
fn what_nobody_holds_may_be_given_up_and_forgotten_again() {
    let mut pair = Pair::new();
    let [id, ..] = three(&mut pair);
    pair.s.room = 3;
    pair.server.send_response_with(&mut pair.s, id, &ok(), &mut Bytes::from_static(b"hello"), true).unwrap();
    pair.server.forget(&mut pair.s, id);
    pair.server.forget(&mut pair.s, id);
    assert_eq!(pair.server.orphans, [id]);
    pair.server.cancel(&mut pair.s, id, Code::REQUEST_CANCELLED);
    // Whoever polls the number again begins anew, and is held.
    assert!(pair.server.poll_request(&mut pair.s, id).is_err());
    pair.server.pump(&mut pair.s).unwrap();
    assert_eq!((pair.server.orphans.len(), pair.server.active_requests()), (0, 3));
}

#[test]
fn a_peer_that_cancels_too_much_loses_the_connection_and_one_that_is_answered_does_not() {
    //= rfc9114#10.5-2 type=test
    let config = Config { cancel_budget: 10, cancel_refill: 10, ..Config::default() };
    let mut pair = Pair::with(Config::default(), config);
    let cancelled = |pair: &mut Pair| {
        let id = pair.ask(&get("https://a.example/"), true);
        pair.request(id);
        pair.c.stop(id, 0x10c);
        pair.turn();
        let done = pair.server.send_response(&mut pair.s, id, &ok(), true);
        pair.server.forget(&mut pair.s, id);
        pair.client.forget(&mut pair.c, id);
        done
    };
    for _ in 0..10 {
        assert_eq!(cancelled(&mut pair), Err(Error::Stopped(0x10c)));
    }
    for _ in 0..10 {
        let id = pair.ask(&get("https://a.example/"), true);
        pair.request(id);
        pair.answer(id, &ok(), true);
        pair.server.forget(&mut pair.s, id);
        assert_eq!(cancelled(&mut pair), Err(Error::Stopped(0x10c)), "each answer is worth one");
    }
    pair.server.set_now(Instant::from_micros(500_000));
    for _ in 0..5 {
        assert_eq!(cancelled(&mut pair), Err(Error::Stopped(0x10c)), "half a second is worth five");
    }
    let Err(Error::Connection(error)) = cancelled(&mut pair) else { panic!("too many") };
    assert_eq!(error.code, Code::EXCESSIVE_LOAD);
    assert_eq!(pair.s.closed.as_ref().unwrap().0, Code::EXCESSIVE_LOAD.0);
    assert_eq!(pair.server.pump(&mut pair.s), Err(error));
}

#[test]
fn a_peer_that_makes_this_end_reset_its_requests_loses_the_connection_too() {
    let mut pair = Pair::with(Config::default(), Config { cancel_budget: 5, ..Config::default() });
    for n in 0..6 {
        let id = pair.ask(&post("https://a.example/", Some(1)), false);
        pair.request(id);
        // Two bytes where one was promised.
        pair.s.receive(id, &[0, 2, 1, 1], false);
        let done = pair.server.poll_body(&mut pair.s, id);
        assert_eq!(matches!(done, Err(Error::Connection(ref e)) if e.code == Code::EXCESSIVE_LOAD), n == 5, "{done:?}");
        pair.server.forget(&mut pair.s, id);
    }
}

#[test]
fn requests_that_are_reset_before_they_are_read_count_too() {
    let config = Config { cancel_budget: 3, ..Config::default() };
    let mut pair = Pair::with(Config::default(), config);
    for n in 0..4 {
        let id = StreamId(4 * n);
        pair.s.stream(id).incoming_reset = Some(0x10c);
        let done = pair.server.poll_request(&mut pair.s, id);
        assert_eq!(matches!(done, Err(Error::Connection(_))), n == 3);
        pair.server.forget(&mut pair.s, id);
    }
}

#[test]
fn more_requests_than_permitted_are_rejected() {
    let config = Config { max_requests: 2, ..Config::default() };
    let mut pair = Pair::with(Config::default(), config);
    for n in 0..3 {
        let id = pair.ask(&get("https://a.example/"), true);
        let done = pair.server.poll_request(&mut pair.s, id).unwrap();
        assert_eq!(matches!(done, Head::Gone), n == 2);
    }
    pair.turn();
    assert!(matches!(pair.client.poll_response(&mut pair.c, StreamId(8)), Err(Error::Rejected)));
}

#[test]
fn a_head_that_the_peer_does_not_take_is_not_sent() {
    //= rfc9114#4.2.2-1 type=test
    //= rfc9114#7.2.4.2-7 type=test
    let mut pair = Pair::with(Config::default(), Config { max_field_section_size: 400, ..Config::default() });
    let mut head = get("https://a.example/");
    head.headers.insert("x", HeaderValue::from_bytes(&[b'a'; 300]).unwrap());
    assert_eq!(pair.client.send_request(&mut pair.c, &head, true), Err(Error::TooLarge));
    assert!(!pair.c.streams.contains_key(&StreamId(0)), "no stream was spent");
    assert!(pair.client.send_request(&mut pair.c, &get("https://a.example/"), true).unwrap().is_some());
}

#[test]
fn a_request_that_is_too_large_is_answered() {
    let mut pair = Pair::with(Config::default(), Config { max_field_section_size: 400, ..Config::default() });
    pair.client.peer.settings.as_mut().unwrap().max_field_section_size = 1 << 20;
    let mut head = post("https://a.example/", None);
    head.headers.insert("x", HeaderValue::from_bytes(&[b'a'; 3000]).unwrap());
    let id = pair.ask(&head, false);
    assert!(matches!(pair.server.poll_request(&mut pair.s, id), Err(Error::TooLarge)));
    pair.server.forget(&mut pair.s, id);
    pair.turn();
    assert_eq!(pair.response(id).status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(pair.content(Side::Client, id).0, b"");
}

#[test]
fn a_stream_that_the_peer_closes_must_not_be_ours_to_keep() {
    //= rfc9114#6.2.1-5 type=test
    for index in 0..3 {
        let mut pair = Pair::new();
        pair.s.stop(StreamId::new(Side::Client, Dir::Uni, index), 0x100);
        pair.turn();
        let n = usize::try_from(index).unwrap();
        [&mut pair.client.control, &mut pair.client.encoder_stream, &mut pair.client.decoder_stream][n].unsent.push(0);
        let error = pair.client.pump(&mut pair.c).unwrap_err();
        assert_eq!(error.code, Code::CLOSED_CRITICAL_STREAM);
        assert_eq!(pair.c.closed.as_ref().unwrap().0, Code::CLOSED_CRITICAL_STREAM.0);
    }
}

#[test]
fn an_end_of_the_transport_is_told_by_every_call() {
    let mut pair = Pair::new();
    let [id, ..] = three(&mut pair);
    pair.s.close(0x100, "done");
    assert!(matches!(pair.server.poll_body(&mut pair.s, id), Err(Error::Closed)));
    assert!(matches!(pair.server.send_response(&mut pair.s, id, &ok(), true), Err(Error::Closed)));
    assert_eq!(pair.server.pump(&mut pair.s), Ok(()));
    assert_eq!(pair.s.read(id), Read::Closed);
    //= rfc9114#5.4-1 type=test
    pair.c.close(0x100, "done");
    let done = pair.client.poll_response(&mut pair.c, id);
    assert!(matches!(done, Err(Error::Closed)), "nobody says that it was not processed");
}

#[test]
fn calls_out_of_order_are_refused_and_harm_nothing() {
    let mut pair = Pair::new();
    let misuse = |done: Result<(), Error>| assert!(matches!(done, Err(Error::Misuse(_))), "{done:?}");
    let mut no_host = get("/");
    misuse(pair.client.send_request(&mut pair.c, &no_host, true).map(|_| ()));
    no_host.method = Method::CONNECT;
    misuse(pair.client.send_request(&mut pair.c, &no_host, true).map(|_| ()));
    misuse(pair.client.send_request(&mut pair.c, &post("https://a.example/", Some(5)), true).map(|_| ()));
    misuse(pair.server.send_request(&mut pair.s, &get("https://a.example/"), true).map(|_| ()));
    let id = pair.ask(&post("https://a.example/", Some(5)), false);
    misuse(pair.client.poll_body(&mut pair.c, id).map(|_| ()));
    misuse(pair.client.send_body(&mut pair.c, id, &mut Bytes::from_static(b"123456"), true).map(|_| ()));
    misuse(pair.client.send_body(&mut pair.c, id, &mut Bytes::from_static(b""), true).map(|_| ()));
    misuse(pair.client.send_trailers(&mut pair.c, id, &HeaderMap::new()));
    assert_eq!(pair.client.send_body(&mut pair.c, id, &mut Bytes::from_static(b"12345"), true), Ok(5));
    misuse(pair.client.send_body(&mut pair.c, id, &mut Bytes::from_static(b"1"), true).map(|_| ()));
    pair.turn();
    pair.request(id);
    misuse(pair.server.poll_request(&mut pair.s, id).map(|_| ()));
    misuse(pair.server.send_body(&mut pair.s, id, &mut Bytes::from_static(b"1"), true).map(|_| ()));
    let mut head = ok();
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    misuse(pair.server.send_response(&mut pair.s, id, &head, false));
    head.status = StatusCode::EARLY_HINTS;
    misuse(pair.server.send_response(&mut pair.s, id, &head, true));
    assert_eq!(pair.content(Side::Server, id).0, b"12345");
    pair.answer(id, &ok(), true);
    misuse(pair.server.send_response(&mut pair.s, id, &ok(), true));
    assert_eq!(pair.response(id).status, 200);
    misuse(pair.client.poll_response(&mut pair.c, id).map(|_| ()));
    assert_eq!((pair.c.closed, pair.s.closed), (None, None));
}

#[test]
fn a_frame_that_was_announced_is_filled_by_later_content() {
    let mut pair = Pair::new();
    let [id, ..] = three(&mut pair);
    pair.server.send_response(&mut pair.s, id, &ok(), false).unwrap();
    pair.turn();
    pair.s.room = 10;
    let mut data = Bytes::from(vec![1; 25]);
    assert_eq!(pair.server.send_body(&mut pair.s, id, &mut data, true), Ok(8));
    assert_eq!(pair.server.send_body(&mut pair.s, id, &mut data, true), Ok(0));
    // Somebody else goes on with longer content: the frame is filled, and another begun.
    let mut data = Bytes::from(vec![2; 40]);
    for _ in 0..20 {
        pair.turn();
        if !data.is_empty() {
            pair.server.send_body(&mut pair.s, id, &mut data, true).unwrap();
        }
    }
    assert_eq!(pair.response(id).status, 200);
    assert_eq!(pair.content(Side::Client, id).0, [vec![1; 8], vec![2; 40]].concat());
}

#[test]
fn reserved_identifiers_are_sent_to_grease_and_mean_nothing() {
    let mut pair = Pair::silent(Config::default(), Config { grease: false, ..Config::default() });
    pair.client.start(&mut pair.c).unwrap();
    let wire = Bytes::from(pair.c.streams[&StreamId(2)].outgoing[1..].to_vec());
    let (mut reader, mut piece) = (crate::frame::FrameReader::new(), wire);
    let settings = reader.header(&mut piece).unwrap();
    reader.payload(&mut piece);
    let Header { kind, .. } = reader.header(&mut piece).unwrap();
    assert!(settings.kind == 4 && crate::frame::is_reserved(kind));
    pair.server.start(&mut pair.s).unwrap();
    pair.turn();
    assert_eq!((pair.server.poll_event(), pair.s.closed), (Some(Event::Settings), None));
}

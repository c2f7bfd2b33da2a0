//! Priorities, datagrams, tunnels, WebTransport, and heads that wait for the table.

use courser_core::stream::Priority;

use super::*;
use crate::webtransport::stream_head;
use crate::{Code, Protocol};

fn priority(urgency: u8, incremental: bool) -> Option<Priority> {
    Some(Priority { urgency, incremental })
}

fn with_priority(value: &'static str) -> request::Parts {
    let mut head = get("https://a.example/");
    head.headers.insert("priority", HeaderValue::from_static(value));
    head
}

fn extended(protocol: &str) -> request::Parts {
    let mut head = Request::connect("https://a.example/chat").body(()).unwrap().into_parts().0;
    head.extensions.insert(Protocol::new(protocol).unwrap());
    head
}

#[test]
fn the_priority_of_a_request_reaches_the_transport() {
    //= rfc9218#4-1 type=test
    //= rfc9218#10-1 type=test
    //= rfc9218#10-2 type=test
    let mut pair = Pair::new();
    for (head, expected) in [
        (get("https://a.example/"), priority(3, false)),
        (with_priority("u=1"), priority(1, false)),
        (with_priority("u=7, i"), priority(7, true)),
        (with_priority("u=7, i=x y"), priority(3, false)),
    ] {
        let id = pair.ask(&head, true);
        pair.request(id);
        assert_eq!(pair.s.streams[&id].priority, expected);
    }
}

#[test]
fn a_priority_changes_while_the_answer_is_sent_and_before_the_request_came() {
    //= rfc9218#7-1 type=test
    //= rfc9218#7.2-1 type=test
    //= rfc9218#7.2-3 type=test
    let mut pair = Pair::new();
    let id = pair.ask(&with_priority("u=2"), true);
    pair.request(id);
    pair.client.update_priority(&mut pair.c, id, Priority { urgency: 6, incremental: true });
    pair.turn();
    assert_eq!(pair.s.streams[&id].priority, priority(6, true));
    // Twice before its request: the last one counts, and more than the field of the head.
    let next = StreamId(4);
    pair.client.update_priority(&mut pair.c, next, Priority { urgency: 5, incremental: false });
    pair.client.update_priority(&mut pair.c, next, Priority { urgency: 0, incremental: false });
    pair.turn();
    assert_eq!(pair.ask(&with_priority("u=2"), true), next);
    pair.request(next);
    assert_eq!(pair.s.streams[&next].priority, priority(0, false));
    assert!(pair.server.early.is_empty());
    // A server overrides for itself, and says nothing.
    //= rfc9218#7.2-9 type=test
    pair.server.update_priority(&mut pair.s, next, Priority { urgency: 4, incremental: false });
    pair.turn();
    assert_eq!((pair.s.streams[&next].priority, pair.c.closed), (priority(4, false), None));
}

#[test]
fn changes_of_priority_for_requests_that_never_come_are_bounded() {
    let mut pair = Pair::with(Config::default(), Config { early_priorities: 8, ..Config::default() });
    for n in 0..1000 {
        pair.client.update_priority(&mut pair.c, StreamId(4 * n), Priority { urgency: 1, incremental: false });
        pair.turn();
        assert!(pair.server.early.len() <= 8);
    }
    assert_eq!(pair.server.early.last().unwrap().0, StreamId(3996), "the oldest gave way");
}

#[test]
fn a_tunnel_carries_bytes_both_ways_and_has_no_trailers() {
    let mut pair = Pair::new();
    let id = pair.ask(&Request::connect("a.example:443").body(()).unwrap().into_parts().0, false);
    let got = pair.request(id);
    assert_eq!((got.method, got.uri.authority().unwrap().as_str()), (Method::CONNECT, "a.example:443"));
    pair.answer(id, &ok(), false);
    pair.response(id);
    pair.client.send_body(&mut pair.c, id, &mut Bytes::from_static(b"ping"), false).unwrap();
    pair.server.send_body(&mut pair.s, id, &mut Bytes::from_static(b"pong"), true).unwrap();
    assert!(matches!(pair.client.send_trailers(&mut pair.c, id, &HeaderMap::new()), Err(Error::Misuse(_))));
    pair.client.send_body(&mut pair.c, id, &mut Bytes::new(), true).unwrap();
    pair.turn();
    assert_eq!(pair.content(Side::Server, id).0, b"ping");
    assert_eq!(pair.content(Side::Client, id).0, b"pong");
}

#[test]
fn extended_connect_waits_for_the_servers_word() {
    //= rfc9114#7.2.4.2-1 type=test
    //= rfc9114#9-4 type=test
    let mut pair = Pair::silent(Config::default(), Config::default());
    let head = extended("websocket");
    assert!(matches!(pair.client.send_request(&mut pair.c, &head, false), Err(Error::Misuse(_))));
    let mut pair = Pair::with(Config::default(), Config { connect_protocol: false, ..Config::default() });
    assert!(matches!(pair.client.send_request(&mut pair.c, &head, false), Err(Error::Misuse(_))));
    let mut pair = Pair::new();
    let id = pair.ask(&head, false);
    let got = pair.request(id);
    assert_eq!(got.extensions.get::<Protocol>().unwrap().as_str(), "websocket");
    assert_eq!((got.method, got.uri.path()), (Method::CONNECT, "/chat"));
}

/// A pair that speaks datagrams and WebTransport, with a session.
fn session() -> (Pair, StreamId) {
    let config = Config { datagrams: true, webtransport_sessions: 4, ..Config::default() };
    let mut pair = Pair::with(config.clone(), config);
    let id = pair.ask(&extended("webtransport"), false);
    pair.request(id);
    pair.answer(id, &ok(), false);
    pair.response(id);
    (pair, id)
}

#[test]
fn datagrams_travel_with_their_request_and_only_with_one_that_has_them() {
    //= rfc9297#2-1 type=test
    let (mut pair, id) = session();
    let plain = pair.ask(&get("https://a.example/"), false);
    pair.request(plain);
    assert!(pair.client.send_datagram(&mut pair.c, id, b"hello"));
    assert!(!pair.client.send_datagram(&mut pair.c, plain, b"hello"), "a GET has no datagrams");
    assert!(!pair.client.send_datagram(&mut pair.c, StreamId(400), b"hello"));
    let data = pair.c.datagrams.pop().unwrap();
    let got = pair.server.on_datagram(&mut pair.s, data).unwrap();
    assert_eq!(got, Some((id, Bytes::from_static(b"hello"))));
    //= rfc9297#2.1-5 type=test
    assert_eq!(pair.server.on_datagram(&mut pair.s, Bytes::from_static(&[60, 1])), Ok(None), "no such request yet");
    //= rfc9297#2-2 type=test
    //= rfc9297#2-3 type=test
    assert_eq!(pair.server.on_datagram(&mut pair.s, crate::datagram::encode(plain, b"x")), Ok(None));
    assert_eq!((pair.s.streams[&plain].reset, pair.s.closed.as_ref()), (Some(Code::DATAGRAM_ERROR.0), None));
    //= rfc9297#2.1-4 type=test
    pair.client.send_body(&mut pair.c, id, &mut Bytes::new(), true).unwrap();
    pair.turn();
    assert_eq!(pair.content(Side::Server, id), (vec![], None));
    assert_eq!(pair.server.on_datagram(&mut pair.s, crate::datagram::encode(id, b"late")), Ok(None));
    //= rfc9297#2.1-3 type=test
    assert!(!pair.client.send_datagram(&mut pair.c, id, b"late"), "its sending half is closed");
    assert!(pair.server.send_datagram(&mut pair.s, id, b"still"));
    pair.s.takes_datagrams = false;
    assert!(!pair.server.send_datagram(&mut pair.s, id, b"full"));
    let error = pair.server.on_datagram(&mut pair.s, Bytes::new()).unwrap_err();
    assert_eq!(error.code, Code::DATAGRAM_ERROR);
}

#[test]
fn datagrams_are_not_sent_before_both_ends_said_so() {
    //= rfc9297#2.1.1-3 type=test
    let on = Config { datagrams: true, ..Config::default() };
    for (client, server) in [(on.clone(), Config::default()), (Config::default(), on)] {
        let mut pair = Pair::with(client, server);
        let id = pair.ask(&extended("connect-udp"), false);
        pair.request(id);
        assert!(!pair.client.send_datagram(&mut pair.c, id, b"x"));
        assert!(!pair.server.send_datagram(&mut pair.s, id, b"x"));
    }
}

#[test]
fn streams_of_a_session_are_handed_over_with_what_was_read_of_them() {
    let (mut pair, session) = session();
    let (bi, uni) = (StreamId(4), StreamId::new(Side::Client, Dir::Uni, 7));
    pair.s.receive(bi, &[&stream_head(Dir::Bi, session)[..], b"two-way"].concat(), false);
    let head = pair.server.poll_request(&mut pair.s, bi).unwrap();
    assert!(matches!(head, Head::WebTransportStream { session: of } if of == session));
    assert_eq!(pair.server.take_rest(bi), "two-way");
    assert_eq!(pair.server.take_rest(bi), "");
    for byte in &stream_head(Dir::Uni, session)[..] {
        assert_eq!(pair.server.on_uni(&mut pair.s, uni), Ok(Uni::Kept));
        pair.s.receive(uni, &[*byte], false);
    }
    assert_eq!(pair.server.on_uni(&mut pair.s, uni), Ok(Uni::WebTransport { session }));
    // A server opens streams too.
    let of_server = StreamId(1);
    pair.c.receive(of_server, &stream_head(Dir::Bi, session), false);
    let head = pair.client.poll_request(&mut pair.c, of_server).unwrap();
    assert!(matches!(head, Head::WebTransportStream { session: of } if of == session));
    assert_eq!((pair.c.closed, pair.s.closed), (None, None));
}

#[test]
fn sessions_open_streams_behind_a_goaway_and_requests_are_still_rejected() {
    let (mut pair, session) = session();
    pair.server.goaway(&mut pair.s, true);
    pair.s.receive(StreamId(4), &stream_head(Dir::Bi, session), false);
    let head = pair.server.poll_request(&mut pair.s, StreamId(4)).unwrap();
    assert!(matches!(head, Head::WebTransportStream { session: of } if of == session));
    pair.s.receive(StreamId(8), &[1, 5, 0, 0, 0xd1, 0xd7, 0xc1], true);
    assert!(matches!(pair.server.poll_request(&mut pair.s, StreamId(8)), Ok(Head::Gone)));
    assert_eq!(pair.s.streams[&StreamId(8)].reset, Some(Code::REQUEST_REJECTED.0));
    assert_eq!(pair.server.active_requests(), 1);
}

#[test]
fn sessions_beyond_the_number_are_rejected_until_one_is_over() {
    let server = Config { datagrams: true, webtransport_sessions: 2, ..Config::default() };
    let mut pair = Pair::with(server.clone(), server);
    let begin = |pair: &mut Pair| {
        let id = pair.ask(&extended("webtransport-h3"), false);
        pair.request(id);
        id
    };
    let first = begin(&mut pair);
    begin(&mut pair);
    assert_eq!(pair.client.send_request(&mut pair.c, &extended("webtransport"), false), Err(Error::Rejected));
    // A client that does not count is told by the server, and other requests are not its concern.
    pair.client.peer.settings.as_mut().unwrap().webtransport_sessions = 100;
    let third = pair.ask(&extended("webtransport"), false);
    assert!(matches!(pair.server.poll_request(&mut pair.s, third), Ok(Head::Gone)));
    let refused = &pair.s.streams[&third];
    assert_eq!((refused.reset, refused.stopped), (Some(0x10b), Some(0x10b)));
    let other = pair.ask(&extended("websocket"), false);
    pair.request(other);
    pair.turn();
    assert_eq!(pair.client.poll_response(&mut pair.c, third).err(), Some(Error::Rejected));
    pair.client.peer.settings.as_mut().unwrap().webtransport_sessions = 2;
    pair.client.cancel(&mut pair.c, first, Code::REQUEST_CANCELLED);
    pair.turn();
    // The server learns of it by reading.
    assert!(pair.server.poll_body(&mut pair.s, first).is_err());
    let again = begin(&mut pair);
    assert!(again > third && pair.server.error().is_none());
}

#[test]
fn a_server_that_names_no_number_permits_one_session() {
    let config = Config { datagrams: true, webtransport_sessions: 5, ..Config::default() };
    let mut pair = Pair::silent(config, Config::default());
    pair.client.start(&mut pair.c).unwrap();
    // SETTINGS with extended CONNECT, datagrams and the newest draft's flag alone.
    pair.c.receive(StreamId(3), &[0, 4, 9, 8, 1, 0x33, 1, 0xac, 0x7c, 0xf0, 0, 1], false);
    pair.client.on_uni(&mut pair.c, StreamId(3)).unwrap();
    assert_eq!(pair.client.peer_settings().map(|s| s.webtransport_sessions), Some(1));
    assert!(pair.client.send_request(&mut pair.c, &extended("webtransport-h3"), false).unwrap().is_some());
    assert_eq!(pair.client.send_request(&mut pair.c, &extended("webtransport-h3"), false), Err(Error::Rejected));
}

#[test]
fn browsers_are_told_of_webtransport_in_the_words_of_their_drafts() {
    let config = Config { datagrams: true, webtransport_sessions: 9, ..Config::default() };
    let (mut out, settings) = (Vec::new(), config.settings(true));
    settings.encode(None, &mut out);
    for words in [&[0xab, 0x60, 0x37, 0x42, 1][..], &[0xc0, 0, 0, 0, 0xc6, 0x71, 0x70, 0x6a, 9], &[0x33, 1], &[8, 1]] {
        assert!(out.windows(words.len()).any(|w| w == words), "{words:x?} in {out:x?}");
    }
    assert!(!config.settings(false).connect_protocol, "that is a server's to offer");
}

/// A request whose head refers to the table, held back from the server's encoder stream.
fn waiting(end: bool) -> (Pair, StreamId, Vec<Bytes>) {
    let mut pair = Pair::new();
    let mut head = get("https://a.example/");
    head.headers.insert("user-agent", HeaderValue::from_static("something long enough to be worth an entry"));
    head.headers.insert("x-repeated", HeaderValue::from_static("something else that comes again and again"));
    let encoder = StreamId::new(Side::Client, Dir::Uni, 1);
    for _ in 0..20 {
        let id = pair.client.send_request(&mut pair.c, &head, end).unwrap().unwrap();
        let (_, to_s) = Memory::exchange(&mut pair.c, &mut pair.s);
        let held: Vec<Bytes> = pair.s.stream(encoder).incoming.drain(..).collect();
        match pair.server.poll_request(&mut pair.s, id).unwrap() {
            Head::WaitsForTable => return (pair, id, held),
            Head::Ready(_) => {}
            other => panic!("{other:?}"),
        }
        pair.s.stream(encoder).incoming.extend(held);
        for id in to_s.into_iter().filter(|id| id.dir() == Dir::Uni) {
            pair.server.on_uni(&mut pair.s, id).unwrap();
        }
        pair.turn();
    }
    panic!("the encoder never made a request wait");
}

#[test]
fn a_head_that_waits_for_the_table_is_told_of_when_it_can_be_read() {
    let (mut pair, id, held) = waiting(true);
    assert!(matches!(pair.server.poll_request(&mut pair.s, id), Ok(Head::WaitsForTable)));
    assert_eq!(pair.server.poll_event(), None, "nothing yet");
    let encoder = StreamId::new(Side::Client, Dir::Uni, 1);
    pair.s.stream(encoder).incoming.extend(held);
    pair.server.on_uni(&mut pair.s, encoder).unwrap();
    assert_eq!(pair.server.poll_event(), Some(Event::Unblocked(id)));
    let got = pair.request(id);
    assert_eq!(got.headers["x-repeated"], "something else that comes again and again");
    assert_eq!(pair.content(Side::Server, id), (vec![], None));
}

#[test]
fn a_reset_is_noticed_while_the_head_waits_for_the_table() {
    let (mut pair, id, held) = waiting(false);
    pair.s.stream(id).incoming_reset = Some(0x10c);
    let done = pair.server.poll_request(&mut pair.s, id);
    assert!(matches!(done, Err(Error::Reset(0x10c))), "{done:?}");
    let encoder = StreamId::new(Side::Client, Dir::Uni, 1);
    pair.s.stream(encoder).incoming.extend(held);
    pair.server.on_uni(&mut pair.s, encoder).unwrap();
    assert_eq!(pair.server.poll_event(), None, "nobody waits any more");
    pair.turn();
    // Both ends agree about the table afterwards.
    let id = pair.ask(&get("https://a.example/"), true);
    pair.request(id);
    assert_eq!((pair.c.closed, pair.s.closed), (None, None));
}

#[test]
fn similar_requests_become_short() {
    let mut pair = Pair::new();
    let mut head = get("https://www.example.org/index.html");
    head.headers
        .insert("user-agent", HeaderValue::from_static("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101"));
    head.headers.insert("accept-language", HeaderValue::from_static("en-GB,en;q=0.7,de;q=0.3"));
    let mut sizes = Vec::new();
    for _ in 0..10 {
        let id = pair.client.send_request(&mut pair.c, &head, true).unwrap().unwrap();
        let encoder = StreamId::new(Side::Client, Dir::Uni, 1);
        sizes.push(pair.c.streams[&id].outgoing.len() + pair.c.streams[&encoder].outgoing.len());
        pair.turn();
        pair.request(id);
        pair.answer(id, &ok(), true);
        pair.response(id);
    }
    assert!(sizes[9] * 4 < sizes[0], "{sizes:?}");
}

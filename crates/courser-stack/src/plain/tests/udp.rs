//! UDP: datagrams each way, crowds of addresses, silence.

use std::net::UdpSocket;

use courser_session::msg::{Op, Rejection};

use super::*;

fn raw() -> UdpSocket {
    let socket = UdpSocket::bind(here()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 1 << 16];
    let (count, from) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(count);
    (buffer, from)
}

#[test]
fn datagrams_of_every_size_go_each_way_whole() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let (mut server, mut client) = (App::new(&plain), App::new(&plain));
    let (listener, address) = server.listen(Protocol::Udp);
    let session = client.connect(Protocol::Udp, address);
    client.hear(|m| matches!(m, Completion::Established { connection } if *connection == session).then_some(()));
    client.send(session, b"first");
    let (served, number) = server.accepted();
    assert_eq!(server.datagram(served), "first");
    assert_eq!(number >> 16, 0x7f00_0001);
    assert!(!served.kind().name().is_empty() && served.kind() == session.kind());
    for len in [0, 1, 1200, 9000, 65_507] {
        client.send(session, &pattern(len));
        let heard = server.datagram(served);
        assert!(heard == pattern(len), "{len} bytes arrive as they were");
        server.send(served, &heard);
        assert!(client.datagram(session) == pattern(len));
    }
    for (app, handle) in [(&mut client, session), (&mut server, served)] {
        app.send(handle, &vec![0; 65_508]);
        let why = app.hear(|message| match message {
            Completion::Rejected { op: Op::Datagram, why, .. } => Some(*why),
            _ => None,
        });
        assert_eq!(why, Rejection::Argument);
    }
    let stats = server.stats(served);
    assert_eq!((stats.datagrams_received, stats.datagrams_sent), (6, 5));
    assert_eq!(server.stats(listener).children, 1);
    assert_eq!(client.stats(session).datagrams_sent, 6);
}

#[test]
fn addresses_are_told_apart_and_answers_go_to_the_right_one() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    let (listener, address) = app.listen(Protocol::Udp);
    let raws: Vec<UdpSocket> = (0..10).map(|_| raw()).collect();
    for (n, raw) in (0u8..).zip(&raws) {
        raw.send_to(&[n], address).unwrap();
    }
    for _ in 0..10 {
        let (session, number) = app.accepted();
        let data = app.datagram(session);
        assert_eq!(number, peer_number(raws[usize::from(data[0])].local_addr().unwrap()));
        assert_eq!(row_of(&plain, session).unwrap().parent, Some(listener));
        app.send(session, &data);
    }
    for (n, raw) in (0u8..).zip(&raws) {
        assert_eq!(receive(raw), (vec![n], address));
    }
}

#[test]
fn a_flood_of_addresses_does_not_drive_out_whom_the_application_talks_to() {
    const PEERS: u32 = 8;
    let plain = Plain::start(PlainSetup { udp_peers_max: PEERS, ..PlainSetup::default() }).unwrap();
    let mut app = App::new(&plain);
    let (listener, address) = app.listen(Protocol::Udp);
    let honest = raw();
    honest.send_to(b"hello", address).unwrap();
    let (session, _) = app.accepted();
    app.datagram(session);
    app.send(session, b"welcome");
    assert_eq!(receive(&honest).0, b"welcome");
    // All stay open, so that no address comes twice.
    let mut crowd = Vec::new();
    for round in 0..20 {
        for _ in 0..10 {
            let one = raw();
            one.send_to(b"noise", address).unwrap();
            crowd.push(one);
        }
        honest.send_to(&[round], address).unwrap();
        assert_eq!(app.datagram(session), [round].as_slice());
        app.send(session, &[round]);
        assert_eq!(receive(&honest).0, [round]);
        assert!(app.stats(listener).children <= u64::from(PEERS));
    }
    // 201 addresses came. All but those that are still there were told as over, each as accepted before.
    let inside = app.stats(listener).children;
    assert_eq!(inside, u64::from(PEERS));
    for _ in inside..201 {
        let ended = app.hear(|message| match message {
            Completion::Closed { .. } => Ended::of(message),
            _ => None,
        });
        assert_eq!(ended.reason, Reason::Idle);
        assert!(ended.to_string().contains("made room"), "{ended}");
    }
}

#[test]
fn an_application_that_does_not_listen_costs_a_bounded_amount_and_keeps_nobody_out() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::with(&plain, PortSetup { completions: 2, ..PortSetup::default() });
    let (listener, address) = app.listen(Protocol::Udp);
    let loud = raw();
    // Until the queue was seen to overflow; the system may drop some before.
    while row_of(&plain, listener).unwrap().dropped == 0 {
        for _ in 0..100 {
            loud.send_to(&[1; 100], address).unwrap();
        }
    }
    let quiet = raw();
    // The system's own buffer may be full just then.
    while row_of(&plain, listener).unwrap().children < 2 {
        quiet.send_to(b"me too", address).unwrap();
    }
    let rows = plain.rows(usize::MAX);
    assert!(rows.iter().all(|row| row.read <= 2 + peers::QUEUE_MAX as u64), "what waits is bounded: {rows:?}");
    let (first, second) = (app.accepted().0, app.accepted().0);
    assert_eq!(app.datagram(first), [1; 100].as_slice());
    assert_eq!(app.datagram(second), "me too");
}

#[test]
fn silence_ends_sessions_of_both_kinds() {
    let setup = PlainSetup { udp_idle: Duration::from_millis(40), ..PlainSetup::default() };
    let plain = Plain::start(setup).unwrap();
    let mut app = App::new(&plain);
    let (listener, address) = app.listen(Protocol::Udp);
    let session = app.connect(Protocol::Udp, address);
    assert_eq!(app.closed(session).reason, Reason::Idle);
    let peer = raw();
    peer.send_to(b"one", address).unwrap();
    let (served, number) = app.accepted();
    assert_eq!(app.closed(served).reason, Reason::Idle);
    assert_eq!(app.stats(listener).children, 0);
    // The same address is somebody new.
    peer.send_to(b"two", address).unwrap();
    let (later, same) = app.accepted();
    assert!(later != served && same == number);
}

#[test]
fn an_address_where_nobody_listens_is_told() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    // A socket that takes datagrams of one other address only: nobody else has the port.
    let bound = raw();
    bound.connect("127.0.0.1:1").unwrap();
    let gone = bound.local_addr().unwrap();
    let session = app.connect(Protocol::Udp, gone);
    app.send(session, b"anybody?");
    let ended = app.closed(session);
    assert_eq!(ended.reason, Reason::Refused);
    assert!(ended.to_string().contains(&format!("udp://{gone}")), "{ended}");
}

#[test]
fn a_listener_that_is_closed_serves_its_sessions_until_the_last_is_over() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    let (listener, address) = app.listen(Protocol::Udp);
    let known = raw();
    known.send_to(b"one", address).unwrap();
    let (session, _) = app.accepted();
    app.say(Submission::Close { handle: listener, code: 0, reason: Bytes::new() });
    assert_eq!(app.closed(listener).reason, Reason::ClosedHere);
    raw().send_to(b"too late", address).unwrap();
    known.send_to(b"two", address).unwrap();
    assert_eq!((app.datagram(session), app.datagram(session)), (Bytes::from("one"), Bytes::from("two")));
    assert!(!app.heard.iter().any(|message| matches!(message, Completion::Accepted { .. })));
    app.say(Submission::Close { handle: session, code: 0, reason: Bytes::new() });
    assert_eq!(app.closed(session).reason, Reason::ClosedHere);
    assert_eq!(plain.rows(usize::MAX), []);
}

#[test]
fn nobody_tells_what_became_of_a_datagram_over_udp() {
    let plain = Plain::start(PlainSetup::default()).unwrap();
    let mut app = App::new(&plain);
    let (_, address) = app.listen(Protocol::Udp);
    let session = app.connect(Protocol::Udp, address);
    app.say(Submission::Datagram { connection: session, data: Bytes::new(), tag: Some(1) });
    app.hear(|m| matches!(m, Completion::Rejected { why: Rejection::Argument, .. }).then_some(()));
}

#[test]
fn what_an_application_said_last_is_sent_when_the_worker_ends() {
    let raw = raw();
    for n in 0..50_u8 {
        let plain = Plain::start(PlainSetup::default()).unwrap();
        let mut app = App::new(&plain);
        let session = app.connect(Protocol::Udp, raw.local_addr().unwrap());
        app.send(session, &[n]);
        drop((app, plain));
        assert_eq!(receive(&raw).0, [n]);
    }
}

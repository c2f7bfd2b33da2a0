//! The blocking face over loopback.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use common::{Identity, PATIENCE, Pair, endpoints, loopback, pair, pattern};
use courser::{
    CloseReason, ConnectError, ConnectionError, DatagramError, Endpoint, ReadError, Request, RetryPolicy, Settings,
    WriteError,
};

/// Reads a stream to its end, and fails the test when it does not come.
fn read_all(receive: &mut courser::RecvStream) -> Vec<u8> {
    receive.set_timeout(Some(PATIENCE));
    let mut all = Vec::new();
    receive.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn what_is_written_comes_back_from_an_echo() {
    let Pair { client, server, client_end: _client_end, server_end: _server_end } = pair(Settings::default());
    let echo = thread::spawn(move || {
        let (mut send, mut receive) = server.accept_bi().unwrap();
        while let Some(chunk) = receive.read_chunk().unwrap() {
            send.write_chunk(chunk).unwrap();
        }
        send.finish().unwrap();
        server.closed()
    });
    let (mut send, mut receive) = client.open_bi().unwrap();
    let sent = pattern(1, 3 << 20);
    let writer = thread::spawn({
        let sent = sent.clone();
        move || {
            send.write_all(&sent).unwrap();
            send.finish().unwrap();
            send.wait_acked().unwrap();
            send
        }
    });
    assert!(read_all(&mut receive) == sent);
    writer.join().unwrap();
    client.close(7, b"all done");
    let closed = echo.join().unwrap();
    assert_eq!(closed, ConnectionError::Closed(CloseReason::PeerApplication { code: 7, reason: b"all done".to_vec() }));
    assert_eq!(client.closed().application(), Some((7, &b"all done"[..])));
}

#[test]
fn both_ends_know_each_other() {
    let Pair { client, server, server_end, client_end: _client_end } = pair(Settings::default());
    assert_eq!(client.remote_address(), server_end.local_addr());
    assert_eq!(client.alpn(), Some(common::ALPN.as_bytes()));
    assert_eq!(server.alpn(), Some(common::ALPN.as_bytes()));
    assert_eq!(server.server_name(), Some("localhost"));
    assert_eq!(client.peer_certificates().len(), 1);
    assert!(server.peer_certificates().is_empty());
    let (mut ours, mut theirs) = ([0; 48], [0; 48]);
    client.export_keying_material(&mut ours, b"label", b"context").unwrap();
    server.export_keying_material(&mut theirs, b"label", b"context").unwrap();
    assert_eq!(ours, theirs);
    assert_ne!(ours, [0; 48]);
    client.export_keying_material(&mut theirs, b"label", b"other").unwrap();
    assert_ne!(ours, theirs);
    assert!(client.export_keying_material(&mut vec![0; 1 << 20], b"label", b"").is_err());
    let stats = client.stats();
    assert!(stats.sent.packets > 0 && stats.received.packets > 0 && stats.mtu >= 1200, "{stats:?}");
    assert!(client.handle().is_some());
    assert!(client.close_reason().is_none());
}

#[test]
fn one_direction_can_end_before_the_other() {
    let Pair { client, server, client_end: _client_end, server_end: _server_end } = pair(Settings::default());
    let (mut send, mut receive) = client.open_bi().unwrap();
    send.write_all(b"question").unwrap();
    send.finish().unwrap();
    assert_eq!(send.write(b"more").unwrap_err().kind(), std::io::ErrorKind::NotConnected);
    let (mut their_send, mut their_receive) = server.accept_bi().unwrap();
    assert_eq!(read_all(&mut their_receive), b"question");
    send.wait_acked().unwrap();
    their_send.write_all(b"answer").unwrap();
    assert_eq!(their_send.wait_acked(), Err(WriteError::NotFinished));
    their_send.finish().unwrap();
    assert_eq!(read_all(&mut receive), b"answer");
}

#[test]
fn codes_of_reset_and_stop_reach_the_peer() {
    let Pair { client, server, client_end: _client_end, server_end: _server_end } = pair(Settings::default());
    let mut send = client.open_uni().unwrap();
    send.write_all(b"begin").unwrap();
    let mut receive = server.accept_uni().unwrap();
    send.reset(42);
    assert_eq!(send.write(b"x").unwrap_err().kind(), std::io::ErrorKind::NotConnected);
    receive.set_timeout(Some(PATIENCE));
    let end = loop {
        match receive.read_chunk() {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(end, Err(ReadError::Reset(42)));

    let mut send = server.open_uni().unwrap();
    send.write_all(b"begin").unwrap();
    let mut receive = client.accept_uni().unwrap();
    receive.stop(43);
    assert_eq!(receive.read_chunk(), Err(ReadError::Stopped));
    send.set_timeout(Some(PATIENCE));
    assert_eq!(send.stopped(), Ok(Some(43)));
    assert_eq!(send.write_chunk("more"), Err(WriteError::Stopped(43)));
}

#[test]
fn dropped_streams_tell_the_peer_with_code_zero() {
    let Pair { client, server, client_end: _client_end, server_end: _server_end } = pair(Settings::default());
    let mut send = client.open_uni().unwrap();
    send.write_all(b"unfinished").unwrap();
    let mut receive = server.accept_uni().unwrap();
    drop(send);
    receive.set_timeout(Some(PATIENCE));
    let end = loop {
        match receive.read_chunk() {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(end, Err(ReadError::Reset(0)));

    let mut send = client.open_uni().unwrap();
    send.write_all(b"unread").unwrap();
    drop(server.accept_uni().unwrap());
    send.set_timeout(Some(PATIENCE));
    assert_eq!(send.stopped(), Ok(Some(0)));
}

#[test]
fn a_finished_stream_arrives_though_every_handle_is_dropped() {
    let Pair { client, server, client_end, server_end: _server_end } = pair(Settings::default());
    let sent = pattern(3, 2 << 20);
    let mut send = client.open_uni().unwrap();
    let reader = thread::spawn(move || {
        let mut receive = server.accept_uni().unwrap();
        thread::sleep(Duration::from_millis(50));
        let all = read_all(&mut receive);
        (all, server.closed())
    });
    send.write_all(&sent).unwrap();
    send.finish().unwrap();
    drop(send);
    drop(client);
    client_end.wait_idle().unwrap();
    let (all, closed) = reader.join().unwrap();
    assert!(all == sent);
    assert_eq!(closed.application(), Some((0, &b""[..])));
}

#[test]
fn the_last_endpoint_closes_everything() {
    let Pair { client, server, client_end, server_end: _server_end } = pair(Settings::default());
    let again = client_end.clone();
    drop(client_end);
    assert!(client.close_reason().is_none(), "a clone is left");
    drop(again);
    assert_eq!(server.closed().application(), Some((0, &b""[..])));
    assert!(client.close_reason().is_some());
    assert!(client.open_bi().is_err());
}

#[test]
fn incoming_connections_are_decided_over_by_address() {
    let (server, client) = endpoints(Settings::default());
    let addr = server.local_addr();
    let connect = |client: &Endpoint| {
        let client = client.clone();
        thread::spawn(move || client.connect_to(addr, "localhost"))
    };
    let refused = connect(&client);
    let incoming = server.accept().unwrap();
    assert!(incoming.remote_address().ip().is_loopback() && !incoming.is_validated());
    incoming.refuse();
    let e = refused.join().unwrap().unwrap_err();
    assert_eq!(std::io::Error::from(e.clone()).kind(), std::io::ErrorKind::ConnectionRefused, "{e}");

    let dropped = connect(&client);
    drop(server.accept().unwrap());
    assert!(dropped.join().unwrap().is_err());

    let retried = connect(&client);
    server.accept().unwrap().retry();
    let again = server.accept().unwrap();
    assert!(again.is_validated());
    let accepted = again.accept().unwrap();
    let retried = retried.join().unwrap().unwrap();
    assert_eq!(retried.stats().retries, 1);
    drop(accepted);

    let mut impatient = client.clone();
    impatient.set_timeout(Some(Duration::from_millis(300)));
    let ignored = connect(&impatient);
    server.accept().unwrap().ignore();
    assert_eq!(ignored.join().unwrap().unwrap_err(), ConnectError::Failed(ConnectionError::TimedOut));
}

#[test]
fn a_policy_can_ask_everybody_for_a_proof() {
    let identity = Identity::new();
    let server = Endpoint::server(loopback(), identity.server().retry(RetryPolicy::Always)).unwrap();
    let client = Endpoint::client(identity.client()).unwrap();
    let addr = server.local_addr();
    let connecting = thread::spawn(move || client.connect_to(addr, "localhost").map(|c| (c, client)));
    let incoming = server.accept().unwrap();
    assert!(incoming.is_validated());
    let _connection = incoming.accept().unwrap();
    assert_eq!(connecting.join().unwrap().unwrap().0.stats().retries, 1);
}

#[test]
fn an_idle_connection_ends_and_keep_alive_prevents_it() {
    let mut settings = Settings::default();
    settings.idle_timeout = Duration::from_millis(300);
    let Pair { client, server, client_end: _client_end, server_end: _server_end } = pair(settings.clone());
    assert_eq!(client.closed(), ConnectionError::Closed(CloseReason::IdleTimeout));
    assert_eq!(server.closed(), ConnectionError::Closed(CloseReason::IdleTimeout));
    // Whoever runs this may be held up for a while.
    (settings.idle_timeout, settings.keep_alive) = (Duration::from_secs(1), Some(Duration::from_millis(100)));
    let Pair { client, server, client_end: _client_end, server_end: _server_end } = pair(settings);
    thread::sleep(Duration::from_millis(1_500));
    assert!(client.close_reason().is_none() && server.close_reason().is_none());
}

#[test]
fn datagrams_go_both_ways() {
    let Pair { client, server, client_end: _client_end, server_end: _server_end } = pair(Settings::default());
    assert!(client.max_datagram_size().unwrap() >= 1000);
    client.send_datagram("there").unwrap();
    assert_eq!(server.recv_datagram().unwrap(), "there");
    server.send_datagram("and back").unwrap();
    assert_eq!(client.recv_datagram().unwrap(), "and back");
    assert!(client.send_datagram(vec![0; 60_000]).is_err());
    let mut none = Settings::default();
    none.max_datagram_frame = 0;
    let Pair { client, server: _server, client_end: _client_end, server_end: _server_end } = pair(none);
    assert_eq!(client.send_datagram("there"), Err(DatagramError::Unsupported));
}

#[test]
fn a_slow_reader_holds_the_writer_back() {
    let mut settings = Settings::default();
    settings.stream_window = 64 << 10;
    settings.stream_window_max = 64 << 10;
    settings.conn_window = 128 << 10;
    settings.conn_window_max = 128 << 10;
    settings.send_window = 64 << 10;
    let Pair { client, server, client_end: _client_end, server_end: _server_end } = pair(settings);
    let mut send = client.open_uni().unwrap();
    send.set_timeout(Some(Duration::from_millis(500)));
    let piece = pattern(5, 64 << 10);
    let mut taken = 0;
    let blocked = loop {
        match send.write(&piece[taken % piece.len()..]) {
            Ok(n) => taken += n,
            Err(e) => break e,
        }
        assert!(taken < 64 << 20, "nothing holds the writer back");
    };
    assert_eq!(blocked.kind(), std::io::ErrorKind::TimedOut);
    // What is under way lies in queues of handles and engines: four windows and a bit.
    assert!(taken < 3 << 20, "{taken} bytes are under way");
    send.set_timeout(Some(PATIENCE));
    let mut receive = server.accept_uni().unwrap();
    let finisher = thread::spawn(move || {
        send.finish().unwrap();
        send.wait_acked().unwrap();
    });
    let all = read_all(&mut receive);
    finisher.join().unwrap();
    assert_eq!(all.len(), taken);
    assert!(all.chunks(piece.len()).all(|c| *c == piece[..c.len()]));
}

#[test]
fn every_stream_of_a_burst_is_told_of_although_nothing_follows() {
    let pair = pair(Settings::default());
    let mut streams: Vec<_> = (0..100).map(|_| pair.client.open_uni().unwrap()).collect();
    // The last one opens all, so that they arrive together.
    streams[99].write_all(b"all").unwrap();
    // Kept, because what is done with a stream calls the worker.
    let mut told: Vec<_> = (0..100).map(|n| pair.server.accept_uni().unwrap_or_else(|e| panic!("{n}: {e}"))).collect();
    let mut got = [0; 3];
    told[99].read_exact(&mut got).unwrap();
    assert_eq!(&got, b"all");
}

#[test]
fn a_thousand_streams_share_a_connection() {
    let mut settings = Settings::default();
    settings.max_streams_bidi = 300;
    let Pair { client, server, client_end: _client_end, server_end: _server_end } = pair(settings);
    let echo = thread::spawn(move || {
        for _ in 0..1000 {
            let (mut send, mut receive) = server.accept_bi().unwrap();
            let all = read_all(&mut receive);
            send.write_all(&all).unwrap();
            send.finish().unwrap();
        }
        let _ = server.closed();
    });
    let mut open = std::collections::VecDeque::new();
    for next in 0..1000 {
        let (mut send, receive) = client.open_bi().unwrap();
        send.write_all(&pattern(next, 1500)).unwrap();
        send.finish().unwrap();
        open.push_back((next, send, receive));
        if open.len() == 200 {
            let (n, _send, mut receive) = open.pop_front().unwrap();
            assert!(read_all(&mut receive) == pattern(n, 1500));
        }
    }
    for (n, _send, mut receive) in open {
        assert!(read_all(&mut receive) == pattern(n, 1500));
    }
    client.close(0, b"");
    echo.join().unwrap();
}

#[test]
fn nobody_answering_is_told_in_time() {
    let silent = std::net::UdpSocket::bind(loopback()).unwrap();
    let mut settings = Settings::default();
    settings.handshake_timeout = Duration::from_millis(400);
    let client = Endpoint::client(Identity::new().client().settings(settings)).unwrap();
    let began = Instant::now();
    let e = client.connect_to(silent.local_addr().unwrap(), "localhost").unwrap_err();
    assert_eq!(e, ConnectError::Failed(ConnectionError::Closed(CloseReason::HandshakeTimeout)));
    assert!(e.to_string().contains("check that the server runs"));
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn the_second_address_wins_when_the_first_is_silent() {
    let (server, client) = endpoints(Settings::default());
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = server.local_addr();
    let acceptor = thread::spawn(move || server.accept_connection().map(|c| (c, server)));
    let request = Request::parse("localhost:1").unwrap().addresses(&[silent.local_addr().unwrap(), target]);
    let began = Instant::now();
    let connection = client.connect_with(request).unwrap();
    assert_eq!(connection.remote_address(), target);
    assert!(began.elapsed() >= Duration::from_millis(240), "the first address has its time alone");
    assert!(acceptor.join().unwrap().is_ok());
}

#[test]
fn a_certificate_of_somebody_else_is_not_accepted() {
    let (server, _) = endpoints(Settings::default());
    let client = Endpoint::client(Identity::new().client()).unwrap();
    let addr = server.local_addr();
    let acceptor = thread::spawn(move || server.accept().map(|i| i.accept().is_err()));
    let e = client.connect_to(addr, "localhost").unwrap_err();
    assert!(matches!(&e, ConnectError::Failed(ConnectionError::Closed(CloseReason::Tls { .. }))), "{e:?}");
    assert_eq!(acceptor.join().unwrap(), Ok(true));
}

#[test]
fn misuse_is_told() {
    let client = Endpoint::client(Identity::new().client()).unwrap();
    assert!(matches!(client.connect("http://x"), Err(ConnectError::Target(_))));
    let (server, _other) = endpoints(Settings::default());
    assert_eq!(server.connect("localhost:1").unwrap_err(), ConnectError::NoClient);
    let taken = Endpoint::server(server.local_addr(), Identity::new().server()).unwrap_err();
    assert!(taken.to_string().contains("choose another port"), "{taken}");
    let mut bad = Settings::default();
    bad.max_udp_payload = 1;
    assert!(Endpoint::client(Identity::new().client().settings(bad.clone())).is_err());
    let request = Request::from(server.local_addr()).settings(bad);
    assert!(matches!(client.connect_with(request), Err(ConnectError::Settings(_))));
    let mut impatient = server.clone();
    impatient.set_timeout(Some(Duration::from_millis(20)));
    assert_eq!(impatient.accept().unwrap_err(), ConnectionError::TimedOut);
}

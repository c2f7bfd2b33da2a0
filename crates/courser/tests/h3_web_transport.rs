//! WebTransport over loopback: sessions, streams both ways, datagrams, ends.
#![cfg(feature = "h3")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::pattern;
use common::sessions::{Rig, run, speaks};
use courser::ReadError;
use courser::aio::RecvStream;
use courser::h3::{Config, Error, Full, Server, Session, SessionEnd};
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn all_of(mut stream: RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

#[test]
fn streams_of_both_kinds_go_both_ways() {
    run(|| async {
        let mut rig = Rig::new(speaks()).await;
        let (client, server) = rig.session().await;
        assert_eq!(client.id(), server.id());
        for (opener, accepter) in [(&client, &server), (&server, &client)] {
            let sent = Arc::new(pattern(9, 300_000));
            let (mut send, recv) = opener.open_bi().await.unwrap();
            let echo = async {
                let (mut back, mut there) = accepter.accept_bi().await.unwrap();
                tokio::io::copy(&mut there, &mut back).await.unwrap();
                back.finish().unwrap();
            };
            let copy = Arc::clone(&sent);
            let ask = async {
                send.write_all(&copy).await.unwrap();
                send.finish().unwrap();
            };
            let ((), (), got) = tokio::join!(echo, ask, all_of(recv));
            assert!(got == *sent);
            let mut send = opener.open_uni().await.unwrap();
            send.write_all(b"one way").await.unwrap();
            send.finish().unwrap();
            assert_eq!(all_of(accepter.accept_uni().await.unwrap()).await, b"one way");
        }
    });
}

#[test]
fn datagrams_go_both_ways() {
    run(|| async {
        let mut rig = Rig::new(speaks()).await;
        let (client, server) = rig.session().await;
        for (from, to) in [(&client, &server), (&server, &client)] {
            assert!(from.send_datagram(b"quick"));
            assert_eq!(to.recv_datagram().await, Some(Bytes::from_static(b"quick")));
        }
        assert!(!client.send_datagram(&vec![0; 100_000]), "no datagram is that large");
    });
}

#[test]
fn sessions_of_one_connection_are_apart() {
    run(|| async {
        let mut rig = Rig::new(speaks()).await;
        let (one, one_there) = rig.session().await;
        let (two, two_there) = rig.session().await;
        two.send_datagram(b"two");
        one.send_datagram(b"one");
        assert_eq!(one_there.recv_datagram().await, Some(Bytes::from_static(b"one")));
        assert_eq!(two_there.recv_datagram().await, Some(Bytes::from_static(b"two")));
        one.close(0, "");
        assert_eq!(one_there.closed().await, SessionEnd::default());
        two.send_datagram(b"still there");
        assert_eq!(two_there.recv_datagram().await, Some(Bytes::from_static(b"still there")));
    });
}

#[test]
fn the_end_of_a_session_is_told_with_its_reason_and_ends_its_streams() {
    run(|| async {
        let mut rig = Rig::new(speaks()).await;
        let (client, server) = rig.session().await;
        let (mut send, _recv) = client.open_bi().await.unwrap();
        send.write_all(b"begun").await.unwrap();
        let (_back, mut there) = server.accept_bi().await.unwrap();
        assert_eq!(there.read_chunk().await.unwrap().unwrap(), "begun");
        client.close(77, "that was all");
        assert_eq!(server.closed().await, SessionEnd { code: 77, reason: "that was all".into() });
        assert!(matches!(there.read_chunk().await, Err(ReadError::Reset(0x170d_7b68) | ReadError::Stopped)));
        assert!(server.accept_uni().await.is_none() && server.accept_bi().await.is_none());
        assert!(server.recv_datagram().await.is_none());
        assert!(client.open_uni().await.is_err());
        // The connection goes on.
        rig.session().await;
    });
}

#[test]
fn a_session_that_is_dropped_ends() {
    run(|| async {
        let mut rig = Rig::new(speaks()).await;
        let (client, server) = rig.session().await;
        drop(server);
        assert_eq!(client.closed().await, SessionEnd::default());
    });
}

#[test]
fn codes_of_streams_are_the_applications() {
    run(|| async {
        let mut rig = Rig::new(speaks()).await;
        let (client, server) = rig.session().await;
        let (mut send, _recv) = client.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        let (_back, mut there) = server.accept_bi().await.unwrap();
        there.read_chunk().await.unwrap();
        send.reset(Session::code_to_wire(4242));
        let Err(ReadError::Reset(code)) = there.read_chunk().await else { panic!("no reset") };
        assert_eq!(Session::code_from_wire(code), Some(4242));
    });
}

#[test]
fn a_server_that_does_not_offer_it_is_not_asked() {
    run(|| async {
        let mut rig = Rig::new(Config::default()).await;
        let request = Request::get("https://localhost/chat").body(Full::default()).unwrap();
        let e = rig.requests.web_transport(request).await.unwrap_err();
        assert!(matches!(e, Error::Misuse(_)), "{e}");
    });
}

#[test]
fn sessions_beyond_the_number_are_refused_and_room_comes_back() {
    run(|| async {
        let mut rig = Rig::new(Config { webtransport_sessions: 2, ..speaks() }).await;
        let one = rig.session().await;
        let two = rig.session().await;
        let request = || Request::get("https://localhost/chat").body(Full::default()).unwrap();
        assert!(matches!(rig.requests.web_transport(request()).await, Err(Error::Rejected)));
        one.0.close(0, "");
        one.1.closed().await;
        drop(one);
        // The server hears of the end in its own time, and may have to reject until then.
        let three = loop {
            match rig.requests.web_transport(request()).await {
                Ok((session, _)) => break session,
                Err(e) => assert!(e.is_safe_to_retry(), "{e}"),
            }
            tokio::task::yield_now().await;
        };
        let three_there = rig.sessions.recv().await.unwrap();
        assert!(three.send_datagram(b"three") && two.0.send_datagram(b"two"));
        assert_eq!(three_there.recv_datagram().await.unwrap(), "three");
        assert_eq!(two.1.recv_datagram().await.unwrap(), "two");
    });
}

#[test]
fn a_session_that_says_nothing_on_its_own_stream_lives_on() {
    run(|| async {
        let patience = Duration::from_millis(30);
        let options = Server::default().config(speaks()).stall_timeout(patience);
        let mut rig = Rig::of(speaks(), options, |addr| addr).await;
        let (client, server) = rig.session().await;
        tokio::time::sleep(5 * patience).await;
        assert!(client.send_datagram(b"still there"));
        assert_eq!(server.recv_datagram().await.unwrap(), "still there");
    });
}

#[test]
fn the_end_of_a_session_is_announced_and_both_go_on_until_then() {
    run(|| async {
        let mut rig = Rig::new(speaks()).await;
        let (client, server) = rig.session().await;
        server.drain();
        server.drain();
        client.draining().await;
        let mut send = client.open_uni().await.unwrap();
        send.write_all(b"last words").await.unwrap();
        send.finish().unwrap();
        assert_eq!(all_of(server.accept_uni().await.unwrap()).await, b"last words");
        client.close(0, "done");
        assert_eq!(server.closed().await.reason, "done");
        server.draining().await;
    });
}

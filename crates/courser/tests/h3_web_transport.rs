//! WebTransport over loopback: sessions, streams both ways, datagrams, ends.
#![cfg(feature = "h3")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{Identity, PATIENCE, loopback, pattern};
use courser::aio::{Endpoint, RecvStream};
use courser::h3::{
    ALPN, BoxError, Client, Config, Error, Full, RecvBody, SendRequest, Server, Session, SessionBody, SessionEnd,
    service_fn,
};
use courser::{ClientOptions, ReadError, ServerOptions, tls};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A client's connection to a server whose sessions come over the channel.
struct Rig {
    requests: SendRequest,
    sessions: mpsc::UnboundedReceiver<Session>,
    _ends: (Endpoint, Endpoint),
}

async fn rig(config: Config) -> Rig {
    let identity = Identity::new();
    let (cert, key) = (identity.0.certificate_pem(), identity.0.key_pem());
    let credentials = tls::Credentials::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
    let tls = tls::ServerConfig::builder().certificate(credentials).alpn([ALPN]).build().unwrap();
    let server = Endpoint::server(loopback(), ServerOptions::new(tls)).unwrap();
    let (tell, sessions) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<RecvBody>| {
        let tell = tell.clone();
        async move {
            let (session, response) = Session::accept(request)?;
            tell.send(session)?;
            Ok::<Response<SessionBody>, BoxError>(response)
        }
    });
    let (endpoint, options) = (server.clone(), Server::default().config(config.clone()));
    tokio::spawn(async move { options.serve(&endpoint, service, std::future::pending()).await });
    let roots = tls::Roots::empty().add_der(identity.0.certificate_der()).unwrap();
    let tls = tls::ClientConfig::builder().roots(roots).alpn([ALPN]).build().unwrap();
    let client = Endpoint::client(ClientOptions::new(tls)).unwrap();
    let connection = client.connect_to(server.local_addr(), "localhost").unwrap().await.unwrap();
    let (requests, driving) = Client::default().config(config).start(connection);
    tokio::spawn(driving);
    Rig { requests, sessions, _ends: (server, client) }
}

fn speaks() -> Config {
    Config { webtransport_sessions: 8, datagrams: true, ..Config::default() }
}

async fn session(rig: &mut Rig) -> (Session, Session) {
    let request = Request::get("https://localhost/chat").body(Full::default()).unwrap();
    let (client, response) = rig.requests.web_transport(request).await.unwrap();
    assert!(response.status().is_success());
    (client, rig.sessions.recv().await.unwrap())
}

fn run<F: Future<Output = ()>>(test: impl Fn() -> F) {
    let single = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    single.block_on(async { timeout(PATIENCE, test()).await.unwrap() });
    let several = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    several.block_on(async { timeout(PATIENCE, test()).await.unwrap() });
}

async fn all_of(mut stream: RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

#[test]
fn streams_of_both_kinds_go_both_ways() {
    run(|| async {
        let mut rig = rig(speaks()).await;
        let (client, server) = session(&mut rig).await;
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
        let mut rig = rig(speaks()).await;
        let (client, server) = session(&mut rig).await;
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
        let mut rig = rig(speaks()).await;
        let (one, one_there) = session(&mut rig).await;
        let (two, two_there) = session(&mut rig).await;
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
        let mut rig = rig(speaks()).await;
        let (client, server) = session(&mut rig).await;
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
        session(&mut rig).await;
    });
}

#[test]
fn a_session_that_is_dropped_ends() {
    run(|| async {
        let mut rig = rig(speaks()).await;
        let (client, server) = session(&mut rig).await;
        drop(server);
        assert_eq!(client.closed().await, SessionEnd::default());
    });
}

#[test]
fn codes_of_streams_are_the_applications() {
    run(|| async {
        let mut rig = rig(speaks()).await;
        let (client, server) = session(&mut rig).await;
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
        let mut rig = rig(Config::default()).await;
        let request = Request::get("https://localhost/chat").body(Full::default()).unwrap();
        let e = rig.requests.web_transport(request).await.unwrap_err();
        assert!(matches!(e, Error::Misuse(_)), "{e}");
    });
}

#[test]
fn sessions_beyond_the_number_are_refused_and_room_comes_back() {
    run(|| async {
        let mut rig = rig(Config { webtransport_sessions: 2, ..speaks() }).await;
        let one = session(&mut rig).await;
        let two = session(&mut rig).await;
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

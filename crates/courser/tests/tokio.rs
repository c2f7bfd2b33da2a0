//! The Tokio face over loopback.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::time::Duration;

use common::{Identity, PATIENCE, loopback, pattern};
use courser::aio::{Connection, Endpoint};
use courser::{CloseReason, ConnectError, ConnectionError, DatagramError, ReadError, Request, Settings, WriteError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

struct Pair {
    client: Connection,
    server: Connection,
    client_end: Endpoint,
    server_end: Endpoint,
}

fn endpoints(settings: Settings) -> (Endpoint, Endpoint) {
    let identity = Identity::new();
    let server = Endpoint::server(loopback(), identity.server().settings(settings.clone())).unwrap();
    (server, Endpoint::client(identity.client().settings(settings)).unwrap())
}

async fn pair(settings: Settings) -> Pair {
    let (server_end, client_end) = endpoints(settings);
    let connecting = client_end.connect_to(server_end.local_addr(), "localhost").unwrap();
    let accepting = async { server_end.accept().await.unwrap().accept().unwrap().await };
    let (client, server) = tokio::join!(connecting, accepting);
    Pair { client: client.unwrap(), server: server.unwrap(), client_end, server_end }
}

/// Runs a test's future, which fails rather than hangs, in a runtime with one thread and in one with two.
fn run<F: Future<Output = ()>>(test: impl Fn() -> F) {
    let single = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    single.block_on(async { timeout(PATIENCE, test()).await.unwrap() });
    let several = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    several.block_on(async { timeout(PATIENCE, test()).await.unwrap() });
}

#[test]
fn what_is_written_comes_back_from_an_echo() {
    run(|| async {
        let Pair { client, server, client_end: _c, server_end: _s } = pair(Settings::default()).await;
        let echo = tokio::spawn(async move {
            let (mut send, mut receive) = server.accept_bi().await.unwrap();
            tokio::io::copy(&mut receive, &mut send).await.unwrap();
            send.shutdown().await.unwrap();
            send.shutdown().await.unwrap();
            server.closed().await
        });
        let (mut send, mut receive) = client.open_bi().await.unwrap();
        let sent = pattern(1, 3 << 20);
        let copy = sent.clone();
        let writer = tokio::spawn(async move {
            send.write_all(&copy).await.unwrap();
            send.finish().unwrap();
            send.wait_acked().await.unwrap();
        });
        let mut all = Vec::new();
        receive.read_to_end(&mut all).await.unwrap();
        assert!(all == sent);
        writer.await.unwrap();
        assert!(client.stats().await.sent.bytes > 3 << 20);
        client.close(7, b"all done");
        let closed = echo.await.unwrap();
        assert_eq!(closed.application(), Some((7, &b"all done"[..])));
        assert_eq!(client.closed().await.application(), Some((7, &b"all done"[..])));
        assert!(matches!(client.open_bi().await, Err(ConnectionError::Closed(CloseReason::LocalApplication { .. }))));
    });
}

#[test]
fn a_call_that_is_given_up_loses_nothing() {
    run(|| async {
        let mut settings = Settings::default();
        settings.max_streams_uni = 1;
        let Pair { client, server, client_end: _c, server_end: _s } = pair(settings).await;
        let short = Duration::from_millis(20);
        assert!(timeout(short, server.accept_uni()).await.is_err());
        let mut first = client.open_uni().await.unwrap();
        assert!(timeout(short, client.open_uni()).await.is_err(), "the peer lets one be open");
        first.write_all(b"a").await.unwrap();
        let mut receive = server.accept_uni().await.unwrap();
        assert_eq!(receive.read_chunk().await.unwrap().unwrap(), "a");
        assert!(timeout(short, receive.read_chunk()).await.is_err());
        first.write_all(b"b").await.unwrap();
        assert_eq!(receive.read_chunk().await.unwrap().unwrap(), "b");
        first.finish().unwrap();
        assert_eq!(receive.read_chunk().await, Ok(None));
        first.wait_acked().await.unwrap();
        let mut second = client.open_uni().await.unwrap();
        assert_eq!(second.id().index(), 1, "no stream was lost with the call that was given up");
        second.write_chunk("c").await.unwrap();
        assert!(timeout(short, client.closed()).await.is_err());
        assert_eq!(server.accept_uni().await.unwrap().read_chunk().await.unwrap().unwrap(), "c");
    });
}

#[test]
fn codes_reach_the_peer_and_dropping_means_zero() {
    run(|| async {
        let Pair { client, server, client_end: _c, server_end: _s } = pair(Settings::default()).await;
        for code in [None, Some(5)] {
            let mut send = client.open_uni().await.unwrap();
            send.write_all(b"x").await.unwrap();
            let mut receive = server.accept_uni().await.unwrap();
            match code {
                Some(code) => send.reset(code),
                None => drop(send),
            }
            let end = loop {
                match receive.read_chunk().await {
                    Ok(Some(_)) => {}
                    other => break other,
                }
            };
            assert_eq!(end, Err(ReadError::Reset(code.unwrap_or(0))));

            let mut send = server.open_uni().await.unwrap();
            send.write_all(b"x").await.unwrap();
            let mut receive = client.accept_uni().await.unwrap();
            match code {
                Some(code) => receive.stop(code),
                None => drop(receive),
            }
            assert_eq!(send.stopped().await, Ok(Some(code.unwrap_or(0))));
            assert_eq!(send.write_chunk("y").await, Err(WriteError::Stopped(code.unwrap_or(0))));
        }
    });
}

#[test]
fn incoming_connections_are_decided_over() {
    run(|| async {
        let (server, client) = endpoints(Settings::default());
        let addr = server.local_addr();
        let connect = || client.connect_to(addr, "localhost").unwrap();
        let (refused, ()) = tokio::join!(connect(), async { server.accept().await.unwrap().refuse() });
        assert_eq!(std::io::Error::from(refused.unwrap_err()).kind(), std::io::ErrorKind::ConnectionRefused);
        let (retried, accepted) = tokio::join!(connect(), async {
            server.accept().await.unwrap().retry();
            let again = server.accept().await.unwrap();
            assert!(again.is_validated());
            again.accept().unwrap().await
        });
        assert_eq!(retried.unwrap().stats().await.retries, 1);
        drop(accepted.unwrap());
        let (ignored, ()) = tokio::join!(timeout(Duration::from_millis(200), connect()), async {
            server.accept().await.unwrap().ignore();
        });
        assert!(ignored.is_err());
    });
}

#[test]
fn datagrams_go_both_ways() {
    run(|| async {
        let Pair { client, server, client_end: _c, server_end: _s } = pair(Settings::default()).await;
        client.send_datagram("there").await.unwrap();
        assert_eq!(server.recv_datagram().await.unwrap(), "there");
        server.send_datagram("and back").await.unwrap();
        assert_eq!(client.recv_datagram().await.unwrap(), "and back");
        let max = client.max_datagram_size().unwrap();
        let too_large = client.send_datagram(vec![0; 65_000]).await.unwrap_err();
        assert!(matches!(too_large, DatagramError::TooLarge(now) if now >= max));
    });
}

#[test]
fn a_name_is_resolved_without_blocking_the_runtime() {
    run(|| async {
        let identity = Identity::new();
        let server = Endpoint::server(loopback(), identity.server()).unwrap();
        let client = Endpoint::client(identity.client()).unwrap();
        let target = format!("quic://localhost:{}", server.local_addr().port());
        let accepting = async { server.accept().await.unwrap().accept().unwrap().await };
        let (connected, accepted) = tokio::join!(client.connect(&target).unwrap(), accepting);
        assert!(connected.unwrap().remote_address().ip().is_loopback());
        accepted.unwrap();
        let unknown = client.connect("name.invalid:1").unwrap().await.unwrap_err();
        assert!(matches!(unknown, ConnectError::Resolve(..)), "{unknown:?}");
    });
}

#[test]
fn an_attempt_that_is_dropped_is_given_up() {
    run(|| async {
        let silent = std::net::UdpSocket::bind(loopback()).unwrap();
        let client = Endpoint::client(Identity::new().client()).unwrap();
        let request = Request::from(silent.local_addr().unwrap()).server_name("localhost");
        assert!(timeout(Duration::from_millis(50), client.connect_with(request).unwrap()).await.is_err());
        client.wait_idle().await;
        assert_eq!(client.stats().connected, 1);
    });
}

#[test]
fn finished_streams_arrive_and_the_last_endpoint_closes_the_rest() {
    run(|| async {
        let Pair { client, server, client_end, server_end: _s } = pair(Settings::default()).await;
        let sent = pattern(9, 1 << 20);
        let mut send = client.open_uni().await.unwrap();
        send.write_all(&sent).await.unwrap();
        send.finish().unwrap();
        drop((send, client));
        let mut all = Vec::new();
        server.accept_uni().await.unwrap().read_to_end(&mut all).await.unwrap();
        assert!(all == sent);
        assert_eq!(server.closed().await.application(), Some((0, &b""[..])));
        drop(client_end);

        let Pair { client, server, client_end, server_end: _s } = pair(Settings::default()).await;
        drop(client_end);
        assert_eq!(server.closed().await.application(), Some((0, &b""[..])));
        assert!(client.open_uni().await.is_err());
    });
}

#[test]
fn an_endpoint_needs_a_runtime_and_tells_when_it_is_gone() {
    let identity = Identity::new();
    let e = Endpoint::client(identity.client()).unwrap_err();
    assert!(e.to_string().contains("runtime"), "{e}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pair = runtime.block_on(pair(Settings::default()));
    drop(runtime);
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let end = other.block_on(async { timeout(PATIENCE, pair.client.closed()).await.unwrap() });
    assert_eq!(end, ConnectionError::EndpointGone);
    let end = other.block_on(async { timeout(PATIENCE, pair.server_end.accept()).await.unwrap() });
    assert_eq!(end.unwrap_err(), ConnectionError::EndpointGone);
    assert!(matches!(pair.client_end.connect("127.0.0.1:1"), Err(ConnectError::Failed(_))));
}

/// Polls once.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut cx) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn streams_up_to_the_peers_limit_are_there_at_once_and_the_next_waits_for_its_turn() {
    run(|| async {
        let mut settings = Settings::default();
        settings.max_streams_bidi = 3;
        let Pair { client, server, client_end: _c, server_end: _s } = pair(settings).await;
        let mut open: Vec<_> = (0..3).map(|_| now(client.open_bi()).expect("no need to wait").unwrap()).collect();
        assert!(open.iter().map(|(send, _)| send.id().index()).eq(0..3), "numbers go up");
        assert!(open[2].0.handle().is_none(), "nothing happened on it");
        assert!(now(client.open_bi()).is_none(), "the peer lets three be open");
        // The stream opened last is used first; those before it come to the peer as well, in order.
        open[2].0.write_all(b"third").await.unwrap();
        let mut theirs = Vec::new();
        for index in 0..3 {
            let stream = server.accept_bi().await.unwrap();
            assert_eq!(stream.0.id().index(), index);
            theirs.push(stream);
        }
        assert_eq!(theirs[2].1.read_chunk().await.unwrap().unwrap(), "third");
        assert!(open[2].0.handle().is_some());
        // Three wait; the streams before end one after the other, and each time one of them goes on.
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.open_bi().await.unwrap().0.id().index() })
            })
            .collect();
        tokio::task::yield_now().await;
        for ((mut send, mut receive), (mut their_send, mut their_receive)) in open.drain(..).zip(theirs.drain(..)) {
            send.finish().unwrap();
            their_send.finish().unwrap();
            assert_eq!(receive.read_chunk().await, Ok(None));
            assert_eq!(their_receive.read_chunk().await, Ok(None));
        }
        let mut opened = Vec::new();
        for task in waiting {
            opened.push(task.await.unwrap());
        }
        opened.sort_unstable();
        assert_eq!(opened, [3, 4, 5]);
    });
}

#[test]
fn streams_on_which_nothing_happened_end_with_their_connection() {
    run(|| async {
        let Pair { client, server, client_end: _c, server_end: _s } = pair(Settings::default()).await;
        let (_send, mut receive) = client.open_bi().await.unwrap();
        let reader = tokio::spawn(async move { receive.read_chunk().await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(now(server.accept_bi()).is_none(), "the peer has not heard of it");
        server.close(3, b"");
        let failed = reader.await.unwrap();
        assert!(matches!(&failed, Err(ReadError::Closed(e)) if e.application() == Some((3, &b""[..]))), "{failed:?}");
    });
}

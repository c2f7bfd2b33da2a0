//! Requests that a server does not serve over HTTP/3, which are made again over TCP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use courser::aio::Endpoint;
use courser::{ServerOptions, h3, tls};
use courser_fetch::body::Payload;
use courser_fetch::via::Protocol;
use courser_fetch::{Error, Http, Options, Sink};
use http::Method;

use crate::support::*;

/// A server of HTTP/3 that resets each request with this code; the number of those that came. None, when the port is
/// somebody else's.
fn refusing(code: u64, addr: SocketAddr) -> Option<Arc<AtomicUsize>> {
    let (certificate, key) = identity(&["localhost"]);
    let credentials = tls::Credentials::from_der(vec![certificate], key).unwrap();
    let config = tls::ServerConfig::builder().certificate(credentials).alpn([h3::ALPN]).build().unwrap();
    let endpoint = Endpoint::server(addr, ServerOptions::new(config)).ok()?;
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    tokio::spawn(async move {
        while let Ok(connection) = endpoint.accept_connection().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                // The control stream, with empty SETTINGS; it stays open.
                let mut control = connection.open_uni().await.unwrap();
                control.write_chunk(&[0, 4, 0][..]).await.unwrap();
                while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                    seen.fetch_add(1, Ordering::SeqCst);
                    send.reset(code);
                    recv.stop(code);
                }
            });
        }
    });
    Some(count)
}

/// A server of HTTP/1.1 and HTTP/2 on the TCP port, and one of HTTP/3 that refuses on the UDP port of the same number.
async fn both(kind: Kind, code: u64) -> (Server, Arc<AtomicUsize>) {
    loop {
        let tcp = Server::start(kind, at_once(|r| answer(200, &[], r.into_body()))).await;
        // The UDP port of that number may be taken.
        if let Some(seen) = refusing(code, tcp.addr) {
            return (tcp, seen);
        }
    }
}

fn prefers(o: &mut Options) {
    // QUIC has all the time it wants: nothing here is about who is faster.
    (o.http, o.head_start) = (Http::Prefer3, std::time::Duration::from_secs(60));
}

#[tokio::test]
async fn what_is_not_given_over_http_3_is_asked_for_over_http_1() {
    // H3_VERSION_FALLBACK; the server would speak HTTP/2 too.
    let (tcp, seen) = both(Kind::Either, 0x110).await;
    let c = client_of(Kind::H1, prefers);
    let mut post = job(&tcp.url("/"), Sink::Nothing);
    (post.method, post.payload) = (Method::POST, Payload::Bytes("form".into()));
    for n in 1..=2 {
        let done = fetch(&c, &post).await;
        assert_eq!((code(&done), done.size, done.tries), (0, 4, 1), "{:?}", done.failed);
        let head = done.head.unwrap();
        assert_eq!((head.protocol, head.told), (Protocol::Http11, None));
        assert_eq!((tcp.requests().len(), seen.load(Ordering::SeqCst)), (n, n));
    }
    assert_eq!(tcp.connections.load(Ordering::SeqCst), 1, "connections for it are kept as well");
    c.close().await.unwrap();
}

#[tokio::test]
async fn what_is_rejected_over_a_new_connection_is_asked_for_over_tcp() {
    // H3_REQUEST_REJECTED: nothing was done, so that any method may be sent again.
    let (tcp, seen) = both(Kind::Either, 0x10b).await;
    let c = client_of(Kind::H1, prefers);
    let mut post = job(&tcp.url("/"), Sink::Nothing);
    (post.method, post.payload) = (Method::POST, Payload::Bytes("form".into()));
    let done = fetch(&c, &post).await;
    assert_eq!((code(&done), done.size, done.tries), (0, 4, 1), "{:?}", done.failed);
    assert_eq!(done.head.unwrap().protocol, Protocol::Http2);
    assert_eq!((tcp.requests().len(), seen.load(Ordering::SeqCst)), (1, 1));
    c.close().await.unwrap();
}

#[tokio::test]
async fn what_may_have_been_done_is_not_asked_for_again() {
    // H3_INTERNAL_ERROR, and any code that means nothing to a client.
    for reason in [0x102, 0x21] {
        let (tcp, seen) = both(Kind::H1, reason).await;
        let c = client_of(Kind::H1, prefers);
        let mut post = job(&tcp.url("/"), Sink::Nothing);
        post.method = Method::POST;
        let done = fetch(&c, &post).await;
        assert_eq!((code(&done), tcp.requests().len(), seen.load(Ordering::SeqCst)), (6, 0, 1), "{:?}", done.failed);
        c.close().await.unwrap();
    }
}

#[tokio::test]
async fn who_wants_http_3_only_hears_why_there_is_no_answer() {
    let (tcp, seen) = both(Kind::H1, 0x110).await;
    let c = client_of(Kind::H3, |_| {});
    let done = fetch(&c, &job(&tcp.url("/"), Sink::Nothing)).await;
    assert!(matches!(done.failed, Some(Error::Fallback { .. })), "{:?}", done.failed);
    assert_eq!((code(&done), tcp.requests().len(), seen.load(Ordering::SeqCst)), (6, 0, 1));
    assert!(done.failed.unwrap().to_string().contains("--http3-only"));
    c.close().await.unwrap();
}

#[tokio::test]
async fn a_server_that_always_rejects_is_not_asked_for_ever() {
    let (tcp, seen) = both(Kind::H1, 0x10b).await;
    let c = client_of(Kind::H3, |_| {});
    let done = fetch(&c, &job(&tcp.url("/"), Sink::Nothing)).await;
    assert_eq!((code(&done), tcp.requests().len(), seen.load(Ordering::SeqCst)), (6, 0, 3), "{:?}", done.failed);
    c.close().await.unwrap();
}

//! Requests that go with the first packet of a connection (0-RTT).
//!
//! TLS remembers tickets by the name of a server, connections belong to an origin: a further port of the same name gets a
//! connection of its own, with a ticket of the first.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use courser::aio::Endpoint;
use courser::{ServerOptions, h3, tls};
use courser_fetch::body::Payload;
use courser_fetch::via::{Early, Protocol};
use courser_fetch::{Client, Done, Http, Sink};
use http::{Method, Request, Response, StatusCode};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::relay::Relay;
use crate::support::*;

/// Path and whether the request may have been a replay.
type Seen = Arc<Mutex<Vec<(String, bool)>>>;

fn server_tls(early: bool) -> tls::ServerConfig {
    let (certificate, key) = identity(&["localhost"]);
    let credentials = tls::Credentials::from_der(vec![certificate], key).unwrap();
    tls::ServerConfig::builder().certificate(credentials).alpn([h3::ALPN]).early_data(early).build().unwrap()
}

/// A server that answers with the path, and `/early` with 425 as long as that may be a replay. `served` is true from its
/// first request on.
fn serve(config: tls::ServerConfig, served: &watch::Sender<bool>) -> (SocketAddr, Seen) {
    let endpoint = Endpoint::server("127.0.0.1:0".parse().unwrap(), ServerOptions::new(config)).unwrap();
    let (address, seen, served) = (endpoint.local_addr(), Seen::default(), served.clone());
    let note = seen.clone();
    tokio::spawn(async move {
        let service = h3::service_fn(move |request: Request<h3::RecvBody>| {
            let early = request.extensions().get::<h3::Exchange>().unwrap().is_early();
            let path = request.uri().path().to_owned();
            note.lock().unwrap().push((path.clone(), early));
            served.send_replace(true);
            let status = if early && path == "/early" { StatusCode::TOO_EARLY } else { StatusCode::OK };
            async move { Response::builder().status(status).body(h3::Full::from(path)) }
        });
        h3::Server::default().early_data(true).serve(&endpoint, service, std::future::pending()).await;
    });
    (address, seen)
}

async fn get(client: &Client, port: u16, path: &str) -> Done {
    fetch(client, &job(&format!("https://localhost:{port}{path}"), Sink::Nothing)).await
}

/// A client that has a ticket of a server with this configuration.
async fn visitor(config: tls::ServerConfig, early_data: bool) -> Client {
    let (open, client) = (watch::Sender::new(true), client_of(Kind::H3, |o| o.early_data = early_data));
    let (server, seen) = serve(config, &open);
    let relay = Relay::start(server, open.subscribe()).await;
    let done = get(&client, relay.port, "/first").await;
    assert_eq!((code(&done), done.head.unwrap().early), (0, None), "{:?}", done.failed);
    assert_eq!((&*seen.lock().unwrap(), *relay.early.borrow()), (&vec![("/first".to_owned(), false)], false));
    client
}

fn early(done: &Done) -> Option<Early> {
    assert_eq!(code(done), 0, "{:?}", done.failed);
    done.head.as_ref().unwrap().early
}

#[tokio::test]
async fn what_changes_nothing_goes_before_anything_was_heard() {
    let (config, served) = (server_tls(true), watch::Sender::new(false));
    let client = visitor(config.clone(), true).await;
    let (server, seen) = serve(config.clone(), &served);
    let port = Relay::start(server, served.subscribe()).await.port;
    let done = get(&client, port, "/second").await;
    assert_eq!((early(&done), done.timing.handshake, done.size), (Some(Early::Accepted), None, 7));
    assert_eq!(early(&get(&client, port, "/third").await), None, "behind the handshake");
    assert_eq!(*seen.lock().unwrap(), [("/second".to_owned(), true), ("/third".to_owned(), false)]);
    client.close().await.unwrap();
}

#[tokio::test]
async fn what_changes_something_waits_for_the_handshake() {
    let (config, open) = (server_tls(true), watch::Sender::new(true));
    let client = visitor(config.clone(), true).await;
    let (server, seen) = serve(config, &open);
    let port = Relay::start(server, open.subscribe()).await.port;
    let mut post = job(&format!("https://localhost:{port}/post"), Sink::Nothing);
    (post.method, post.payload) = (Method::POST, Payload::Bytes(Bytes::from_static(b"form")));
    assert_eq!(early(&fetch(&client, &post).await), None);
    assert_eq!(*seen.lock().unwrap(), [("/post".to_owned(), false)]);
    client.close().await.unwrap();
}

#[tokio::test]
async fn too_early_is_asked_again_behind_the_handshake() {
    let (config, served) = (server_tls(true), watch::Sender::new(false));
    let client = visitor(config.clone(), true).await;
    let (server, seen) = serve(config, &served);
    let port = Relay::start(server, served.subscribe()).await.port;
    let done = get(&client, port, "/early").await;
    assert_eq!((early(&done), done.tries), (Some(Early::Accepted), 1));
    assert_eq!(*seen.lock().unwrap(), [("/early".to_owned(), true), ("/early".to_owned(), false)]);
    client.close().await.unwrap();
}

#[tokio::test]
async fn a_server_that_rejects_it_answers_behind_the_handshake() {
    // One whose keys are others, and one that knows the ticket and wants no 0-RTT any more.
    let first = server_tls(true);
    for other in [server_tls(true), server_tls(false)] {
        let client = visitor(first.clone(), true).await;
        let (server, seen) = serve(other, &watch::Sender::new(true));
        // The answer waits until the request was sent.
        let open = watch::Sender::new(false);
        let relay = Relay::start(server, open.subscribe()).await;
        let opened = async {
            relay.came_early().await;
            open.send_replace(true);
        };
        let (done, ()) = tokio::join!(get(&client, relay.port, "/x"), opened);
        assert_eq!((early(&done), done.tries, done.size), (Some(Early::Rejected), 1, 2));
        assert_eq!(*seen.lock().unwrap(), [("/x".to_owned(), false)]);
        client.close().await.unwrap();
    }
}

#[tokio::test]
async fn nothing_goes_early_when_it_is_not_wanted() {
    let (config, open) = (server_tls(true), watch::Sender::new(true));
    let client = visitor(config.clone(), false).await;
    let (server, seen) = serve(config, &open);
    let relay = Relay::start(server, open.subscribe()).await;
    let done = get(&client, relay.port, "/second").await;
    assert!(!relay.flight.lock().unwrap().is_empty(), "it came by here");
    assert!(early(&done).is_none() && done.timing.handshake.is_some() && !*relay.early.borrow());
    assert_eq!(*seen.lock().unwrap(), [("/second".to_owned(), false)]);
    client.close().await.unwrap();
}

#[tokio::test]
async fn a_place_that_does_not_answer_any_more_is_left_for_tcp() {
    // A client that may use TCP, with time enough for QUIC to win while it answers.
    let prefers = |o: &mut courser_fetch::Options| (o.http, o.head_start) = (Http::Prefer3, Duration::from_secs(60));
    let (client, open) = (client_of(Kind::H3, prefers), watch::Sender::new(true));
    let (first, _) = serve(server_tls(true), &open);
    assert_eq!(get(&client, first.port(), "/first").await.head.unwrap().protocol, Protocol::Http3);
    let (tcp, _silent) = loop {
        let tcp = Server::start(Kind::Either, at_once(|_| answer(200, &[], "over TCP"))).await;
        // The UDP port of that number may be taken. Nobody reads there.
        if let Ok(silent) = UdpSocket::bind(tcp.addr).await {
            break (tcp, silent);
        }
    };
    let done = get(&client, tcp.addr.port(), "/second").await;
    assert_eq!((early(&done), done.head.unwrap().protocol, done.tries), (None, Protocol::Http2, 1));
    assert_eq!(tcp.requests().len(), 1);
    client.close().await.unwrap();
}

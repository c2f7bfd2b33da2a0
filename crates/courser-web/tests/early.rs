//! Requests that come before the handshake (0-RTT, RFC 8470): servers of files, proxies and their origins, replays.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;
#[path = "../../courser-fetch/tests/cases/relay.rs"]
mod relay;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use common::{PATIENCE, Running};
use courser::aio::{Connection, Endpoint};
use courser::h3::{self, Full, SendRequest};
use courser::{ClientOptions, EarlyData, tls};
use http::Request;
use relay::Relay;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

/// A client that remembers tickets.
struct Client {
    endpoint: Endpoint,
    http: h3::Client,
}

impl Client {
    fn new() -> Self {
        let tls = tls::ClientConfig::builder().danger_accept_any_certificate().alpn([h3::ALPN]).early_data(true);
        let endpoint = Endpoint::client(ClientOptions::new(tls.build().unwrap())).unwrap();
        Self { endpoint, http: h3::Client::default() }
    }

    async fn connect(&self, at: SocketAddr) -> (SendRequest, Connection) {
        let to = courser::Request::from(at).server_name("localhost").early_data();
        let connection = timeout(PATIENCE, self.endpoint.connect_with(to).unwrap()).await.unwrap().unwrap();
        let (requests, driving) = self.http.start(connection.clone());
        tokio::spawn(driving);
        (requests, connection)
    }

    /// Leaves with a ticket.
    async fn visit(&self, server: &Running) {
        let (mut requests, connection) = self.connect(server.addr).await;
        assert_eq!(connection.early_data(), EarlyData::None);
        assert_eq!(get(&mut requests, "/first", None).await.0, 200);
        requests.settled().await.unwrap();
    }

    /// A further connection, on which nothing of the server is heard until `open`.
    async fn again(&self, server: &Running, open: &watch::Sender<bool>) -> (SendRequest, Connection, Relay) {
        let relay = Relay::start(server.addr, open.subscribe()).await;
        let (requests, connection) = self.connect(([127, 0, 0, 1], relay.port).into()).await;
        (requests, connection, relay)
    }
}

/// Status and text of an answer.
async fn get(requests: &mut SendRequest, path: &str, field: Option<&str>) -> (u16, String) {
    let mut request = Request::get(format!("https://localhost{path}"));
    if let Some((name, value)) = field.and_then(|field| field.split_once(": ")) {
        request = request.header(name, value);
    }
    let answered = async {
        let response = requests.send(request.body(Full::default()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        (status, response.into_body().read_to_end(10_000).await.unwrap())
    };
    let (status, body) = timeout(PATIENCE, answered).await.expect("an answer");
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// The heads of requests that came to an origin; true from the first `/second` on.
#[derive(Clone)]
struct Origin {
    heads: Arc<Mutex<Vec<String>>>,
    second: watch::Sender<bool>,
}

impl Origin {
    /// One that says 425 to `Early-Data` where the path is `/late`, `/second-late` and so on.
    async fn start() -> (String, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        let origin = Self { heads: Arc::default(), second: watch::Sender::new(false) };
        let this = origin.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let this = this.clone();
                tokio::spawn(async move { this.behave(tcp).await });
            }
        });
        (at, origin)
    }

    async fn behave(&self, mut tcp: TcpStream) {
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                let Ok(byte) = tcp.read_u8().await else { return };
                head.push(char::from(byte));
            }
            let late = head.contains("late") && head.contains("\r\nearly-data: 1\r\n");
            let status = if late { "425 Too Early" } else { "200 OK" };
            let second = head.starts_with("GET /second");
            self.heads.lock().unwrap().push(head);
            if second {
                self.second.send_replace(true);
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nhi");
            if tcp.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    /// Of each request for this path, what `Early-Data` said.
    fn early(&self, path: &str) -> Vec<Vec<String>> {
        let start = format!("GET {path} ");
        let fields = |head: &String| {
            head.lines().filter_map(|line| Some(line.strip_prefix("early-data: ")?.to_owned())).collect()
        };
        self.heads.lock().unwrap().iter().filter(|head| head.starts_with(&start)).map(fields).collect()
    }
}

fn proxy(at: &str, server: bool, origin: bool) -> Running {
    Running::start(&format!(
        "[server]\nearly-data = {server}\n[[site]]\n[site.proxy]\norigin = \"{at}\"\nearly-data = {origin}"
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_takes_nothing_early_unless_it_is_told_to() {
    let (at, origin) = Origin::start().await;
    let (server, client) = (proxy(&at, false, true), Client::new());
    client.visit(&server).await;
    let (mut requests, connection, relay) = client.again(&server, &watch::Sender::new(true)).await;
    assert_eq!((get(&mut requests, "/second", None).await.0, connection.early_data()), (200, EarlyData::None));
    assert!(!*relay.early.borrow() && origin.early("/second") == [Vec::<String>::new()]);
    assert!(server.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_served_early() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["first", "second"] {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    let root = folder.path();
    let server = Running::start(&format!("[server]\nearly-data = true\n[[site]]\n[site.files]\nroot = {root:?}"));
    let (client, open) = (Client::new(), watch::Sender::new(false));
    client.visit(&server).await;
    let (mut requests, connection, relay) = client.again(&server, &open).await;
    let opened = async {
        relay.came_early().await;
        open.send_replace(true);
    };
    let (got, ()) = tokio::join!(get(&mut requests, "/second", None), opened);
    assert_eq!((got, connection.early_data()), ((200, "second".into()), EarlyData::Accepted));
    assert!(server.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_wants_them_is_told_and_what_it_finds_too_early_is_asked_again() {
    let (at, origin) = Origin::start().await;
    let (server, client) = (proxy(&at, true, true), Client::new());
    client.visit(&server).await;
    // The client hears nothing before the origin has the request; what `Connection` says changes nothing.
    let (mut requests, connection, _relay) = client.again(&server, &origin.second).await;
    let got = get(&mut requests, "/second-late", None).await;
    assert_eq!((got, connection.early_data()), ((200, "hi".into()), EarlyData::Accepted));
    assert_eq!(origin.early("/second-late"), [vec!["1".to_owned()], vec![]], "early, and behind the handshake");
    assert_eq!(origin.early("/first"), [Vec::<String>::new()]);
    // What came so to somebody before this proxy is passed on, and so is what the origin says to it.
    assert_eq!(get(&mut requests, "/late", Some("early-data: 1")).await.0, 425);
    assert_eq!(origin.early("/late"), [["1".to_owned()]]);
    assert!(server.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_origins_get_them_when_the_handshake_is_complete() {
    let (at, origin) = Origin::start().await;
    let (server, client, open) = (proxy(&at, true, false), Client::new(), watch::Sender::new(false));
    client.visit(&server).await;
    let (mut requests, connection, relay) = client.again(&server, &open).await;
    let opened = async {
        relay.came_early().await;
        assert_eq!(origin.early("/second"), [[""; 0]; 0], "it waits");
        open.send_replace(true);
    };
    let (got, ()) = tokio::join!(get(&mut requests, "/second", None), opened);
    assert_eq!((got.0, connection.early_data()), (200, EarlyData::Accepted));
    assert_eq!(origin.early("/second"), [[""; 0]]);
    assert!(server.end().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_first_flight_asks_the_origin_nothing() {
    let (at, origin) = Origin::start().await;
    let (server, client) = (proxy(&at, true, true), Client::new());
    client.visit(&server).await;
    let (mut requests, connection, relay) = client.again(&server, &origin.second).await;
    assert_eq!(get(&mut requests, "/second", None).await.0, 200);
    connection.close(h3::Code::NO_ERROR.0, b"");
    drop(requests);
    // From another address: to the server, which remembers the connection, and to another instance, which answers it.
    let other = proxy(&at, true, true);
    let attacker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let flight = relay.flight.lock().unwrap().clone();
    for to in [server.addr, other.addr] {
        for sent in &flight {
            attacker.send_to(sent, to).await.unwrap();
        }
    }
    let (mut datagram, answered) = ([0; 2000], attacker.connect(other.addr));
    answered.await.unwrap();
    let got = timeout(PATIENCE, attacker.recv(&mut datagram)).await.expect("an instance that answers");
    assert!(got.unwrap() > 0);
    // A request behind it is answered: what the replay would have asked for was asked before.
    for at in [server.addr, other.addr] {
        let (mut requests, _) = client.connect(at).await;
        assert_eq!(get(&mut requests, "/third", None).await.0, 200);
    }
    assert_eq!(origin.early("/second"), [["1"]], "once");
    assert!(server.end().await && other.end().await);
}

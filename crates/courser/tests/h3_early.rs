//! HTTP/3 requests in 0-RTT, over loopback.
#![cfg(feature = "h3")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use common::{Identity, PATIENCE, loopback};
use courser::aio::{Connection, Endpoint};
use courser::h3::{
    ALPN, BoxError, Client, Code, Config, Error, Exchange, Full, RecvBody, Replayable, SendRequest, Server, service_fn,
};
use courser::{ClientOptions, EarlyData, ServerOptions, tls};
use http::{Method, Request, Response, StatusCode};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::timeout;

/// What a server saw: method and path of each request, and whether it may have been a replay.
type Seen = Arc<Mutex<Vec<(Method, String, bool)>>>;

/// Between clients and a server: what the server sends waits while the gate is closed, so that no handshake completes. The
/// first request that is served opens it.
struct Gate {
    open: watch::Sender<bool>,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self { open: watch::Sender::new(true) })
    }

    fn close(&self) {
        self.open.send_replace(false);
    }

    /// Carries datagrams for one client. The address that stands for the server's.
    async fn before(self: &Arc<Self>, server: SocketAddr) -> SocketAddr {
        let near = Arc::new(UdpSocket::bind(loopback()).await.unwrap());
        let far = Arc::new(UdpSocket::bind(loopback()).await.unwrap());
        far.connect(server).await.unwrap();
        let address = near.local_addr().unwrap();
        let client = Arc::new(Mutex::new(None));
        let (from, to, seen) = (Arc::clone(&near), Arc::clone(&far), Arc::clone(&client));
        tokio::spawn(async move {
            let mut datagram = vec![0; 65536];
            while let Ok((n, client)) = from.recv_from(&mut datagram).await {
                *seen.lock().unwrap() = Some(client);
                let _ = to.send(&datagram[..n]).await;
            }
        });
        let gate = Arc::clone(self);
        tokio::spawn(async move {
            let (mut datagram, mut open) = (vec![0; 65536], gate.open.subscribe());
            while let Ok(n) = far.recv(&mut datagram).await {
                open.wait_for(|open| *open).await.unwrap();
                let client = client.lock().unwrap().unwrap();
                let _ = near.send_to(&datagram[..n], client).await;
            }
        });
        address
    }
}

struct Site {
    identity: Identity,
    /// Holds the sessions of tickets: servers that share it resume each other's.
    tls: tls::ServerConfig,
    client: Client,
    endpoint: Endpoint,
    gate: Arc<Gate>,
}

impl Site {
    fn new() -> Self {
        let identity = Identity::new();
        let tls = server_tls(&identity);
        let roots = tls::Roots::empty().add_der(identity.0.certificate_der()).unwrap();
        let config = tls::ClientConfig::builder().roots(roots).alpn([ALPN]).early_data(true).build().unwrap();
        let endpoint = Endpoint::client(ClientOptions::new(config)).unwrap();
        Self { identity, tls, client: Client::default(), endpoint, gate: Gate::new() }
    }

    /// A server of its own address. `/early` refuses replays; all others answer with their path.
    fn serve(&self, tls: &tls::ServerConfig, config: Config) -> (Endpoint, Seen) {
        let endpoint = Endpoint::server(loopback(), ServerOptions::new(tls.clone())).unwrap();
        let seen = Seen::default();
        let (serving, note, gate) = (endpoint.clone(), Arc::clone(&seen), Arc::clone(&self.gate));
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<RecvBody>| {
                let (note, gate) = (Arc::clone(&note), Arc::clone(&gate));
                async move {
                    let early = request.extensions().get::<Exchange>().unwrap().is_early();
                    let path = request.uri().path().to_owned();
                    note.lock().unwrap().push((request.method().clone(), path.clone(), early));
                    gate.open.send_replace(true);
                    let status = if early && path == "/early" { StatusCode::TOO_EARLY } else { StatusCode::OK };
                    let body = request.into_body().read_to_end(1000).await?;
                    let answer = format!("{path} {}", String::from_utf8_lossy(&body));
                    Ok::<_, BoxError>(Response::builder().status(status).body(Full::from(answer))?)
                }
            });
            Server::default().config(config).early_data(true).serve(&serving, service, std::future::pending()).await;
        });
        (endpoint, seen)
    }

    async fn connect(&self, server: &Endpoint) -> (SendRequest, Connection) {
        let to = self.gate.before(server.local_addr()).await;
        let to = courser::Request::from(to).server_name("localhost").early_data();
        let connection = self.endpoint.connect_with(to).unwrap().await.unwrap();
        let (requests, driving) = self.client.start(connection.clone());
        tokio::spawn(driving);
        (requests, connection)
    }

    /// A connection that leaves a ticket and settings behind.
    async fn visit(&self, server: &Endpoint) {
        let (mut requests, connection) = self.connect(server).await;
        assert_eq!(connection.early_data(), EarlyData::None);
        assert_eq!(fetch(&mut requests, request(Method::GET, "/first")).await.unwrap(), "/first ");
        requests.settled().await.unwrap();
    }
}

fn server_tls(identity: &Identity) -> tls::ServerConfig {
    let pem = (identity.0.certificate_pem(), identity.0.key_pem());
    let credentials = tls::Credentials::from_pem(pem.0.as_bytes(), pem.1.as_bytes()).unwrap();
    tls::ServerConfig::builder().certificate(credentials).alpn([ALPN]).early_data(true).build().unwrap()
}

fn request(method: Method, path: &str) -> Request<Full> {
    Request::builder().method(method).uri(format!("https://localhost{path}")).body(Full::default()).unwrap()
}

async fn fetch(requests: &mut SendRequest, request: Request<Full>) -> Result<String, Error> {
    let response = requests.send(request).await?;
    assert_eq!(response.status(), StatusCode::OK);
    Ok(String::from_utf8(response.into_body().read_to_end(1000).await?.to_vec()).unwrap())
}

fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, test).await.unwrap() });
}

#[test]
fn requests_that_change_nothing_go_before_anything_was_heard() {
    run(async {
        let site = Site::new();
        let (server, seen) = site.serve(&site.tls, Config::default());
        site.visit(&server).await;
        site.gate.close();
        let (mut requests, connection) = site.connect(&server).await;
        assert_ne!(connection.early_data(), EarlyData::None);
        assert_eq!(fetch(&mut requests, request(Method::GET, "/second")).await.unwrap(), "/second ");
        connection.established().await.unwrap();
        assert_eq!(connection.early_data(), EarlyData::Accepted);
        assert_eq!(fetch(&mut requests, request(Method::POST, "/third")).await.unwrap(), "/third ");
        let expected =
            [(Method::GET, "/first", false), (Method::GET, "/second", true), (Method::POST, "/third", false)];
        assert_eq!(*seen.lock().unwrap(), expected.map(|(method, path, early)| (method, path.to_owned(), early)));
    });
}

#[test]
fn what_changes_something_is_not_served_before_the_handshake() {
    run(async {
        let site = Site::new();
        let (server, seen) = site.serve(&site.tls, Config::default());
        site.visit(&server).await;
        site.gate.close();
        let (mut requests, connection) = site.connect(&server).await;
        // The first and the last wait here, the second at the server, although it has content; the third goes.
        let waits = request(Method::POST, "/waits");
        let mut goes = request(Method::POST, "/goes").map(|_| Full::from("content"));
        goes.extensions_mut().insert(Replayable(true));
        let mut held = request(Method::GET, "/held");
        held.extensions_mut().insert(Replayable(false));
        let mut others = (requests.clone(), requests.clone(), requests.clone());
        let all = tokio::join!(
            fetch(&mut requests, waits),
            fetch(&mut others.0, goes),
            fetch(&mut others.1, request(Method::GET, "/now")),
            fetch(&mut others.2, held),
        );
        let all = [all.0.unwrap(), all.1.unwrap(), all.2.unwrap(), all.3.unwrap()];
        assert_eq!(all, ["/waits ", "/goes content", "/now ", "/held "]);
        assert_eq!(connection.early_data(), EarlyData::Accepted);
        let seen = seen.lock().unwrap();
        assert_eq!(seen[1], (Method::GET, "/now".to_owned(), true), "the first is that of the visit");
        assert!(seen.len() == 5 && seen[2..].iter().all(|(.., early)| !early), "{seen:?}");
    });
}

#[test]
fn too_early_is_asked_again_once() {
    run(async {
        let site = Site::new();
        let (server, seen) = site.serve(&site.tls, Config::default());
        site.visit(&server).await;
        site.gate.close();
        let (mut requests, _) = site.connect(&server).await;
        assert_eq!(fetch(&mut requests, request(Method::GET, "/early")).await.unwrap(), "/early ");
        let seen: Vec<bool> = seen.lock().unwrap().iter().filter(|s| s.1 == "/early").map(|s| s.2).collect();
        assert_eq!(seen, [true, false]);
    });
}

#[test]
fn a_server_that_rejects_answers_every_request_all_the_same() {
    run(async {
        let site = Site::new();
        let (server, _) = site.serve(&site.tls, Config::default());
        site.visit(&server).await;
        // It has other limits and no table, and knows nothing of the ticket.
        let strict = Config { qpack_table_capacity: 0, max_field_section_size: 500, ..Config::default() };
        let (restarted, seen) = site.serve(&server_tls(&site.identity), strict);
        let (requests, connection) = site.connect(&restarted).await;
        let tasks: Vec<_> = (0..40)
            .map(|n| {
                let mut requests = requests.clone();
                let path = format!("/{n}");
                tokio::spawn(async move { (fetch(&mut requests, request(Method::GET, &path)).await.unwrap(), path) })
            })
            .collect();
        for task in tasks {
            let (got, path) = task.await.unwrap();
            assert_eq!(got, format!("{path} "));
        }
        assert_eq!((connection.early_data(), connection.close_reason()), (EarlyData::Rejected, None));
        assert!(seen.lock().unwrap().len() == 40 && seen.lock().unwrap().iter().all(|s| !s.2));
    });
}

#[test]
fn a_server_that_takes_early_data_and_permits_less_is_left() {
    run(async {
        let site = Site::new();
        let (server, _) = site.serve(&site.tls, Config::default());
        site.visit(&server).await;
        let less = Config { max_field_section_size: 500, ..Config::default() };
        let (other, _) = site.serve(&site.tls, less);
        let (mut requests, connection) = site.connect(&other).await;
        // Its answer may come before its settings.
        let _ = fetch(&mut requests, request(Method::GET, "/")).await;
        let end = connection.closed().await;
        assert_eq!(end.application().map(|(code, _)| code), Some(Code::SETTINGS_ERROR.0), "{end}");
    });
}

#[test]
fn a_server_that_permits_more_is_used_at_once() {
    run(async {
        let site = Site::new();
        let small = Config { max_field_section_size: 500, ..Config::default() };
        let (server, _) = site.serve(&site.tls, small);
        site.visit(&server).await;
        let (larger, seen) = site.serve(&site.tls, Config::default());
        site.gate.close();
        let (mut requests, connection) = site.connect(&larger).await;
        let mut long = request(Method::GET, "/long");
        long.headers_mut().insert("x-long", "l".repeat(1000).parse().unwrap());
        //= rfc9114#7.2.4.2-6 type=test
        assert!(matches!(requests.send(long.clone()).await, Err(Error::TooLarge)), "more than it permitted then");
        assert_eq!(fetch(&mut requests, request(Method::GET, "/short")).await.unwrap(), "/short ");
        requests.settled().await.unwrap();
        //= rfc9114#7.2.4.2-7 type=test
        assert_eq!(fetch(&mut requests, long).await.unwrap(), "/long ");
        assert_eq!(connection.early_data(), EarlyData::Accepted);
        assert!(seen.lock().unwrap()[0].2);
    });
}

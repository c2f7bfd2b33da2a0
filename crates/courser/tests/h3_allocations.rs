//! What a warm HTTP/3 request costs in allocations over loopback: client, server, QUIC and runtime together, on one thread.
#![cfg(feature = "h3")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{Identity, PATIENCE, loopback};
use courser::aio::Endpoint;
use courser::h3::{ALPN, BoxError, Client, Full, RecvBody, SendRequest, Server, service_fn};
use courser::{ClientOptions, ServerOptions, tls};
use courser_testing::alloc::{Counting, now};
use http::{Request, Response};
use tokio::time::timeout;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

async fn start() -> (SendRequest, [Endpoint; 2]) {
    let identity = Identity::new();
    let pem = (identity.0.certificate_pem(), identity.0.key_pem());
    let credentials = tls::Credentials::from_pem(pem.0.as_bytes(), pem.1.as_bytes()).unwrap();
    let config = tls::ServerConfig::builder().certificate(credentials).alpn([ALPN]).build().unwrap();
    let server = Endpoint::server(loopback(), ServerOptions::new(config)).unwrap();
    let serving = server.clone();
    tokio::spawn(async move {
        let service = service_fn(|_: Request<RecvBody>| async {
            Ok::<_, BoxError>(Response::builder().header("content-type", "text/plain").body(Full::from("hello\n"))?)
        });
        Server::default().serve(&serving, service, std::future::pending()).await;
    });
    let roots = tls::Roots::empty().add_der(identity.0.certificate_der()).unwrap();
    let config = tls::ClientConfig::builder().roots(roots).alpn([ALPN]).build().unwrap();
    let client = Endpoint::client(ClientOptions::new(config)).unwrap();
    let connection = client.connect_to(server.local_addr(), "localhost").unwrap().await.unwrap();
    let (requests, driving) = Client::default().start(connection);
    tokio::spawn(driving);
    (requests, [server, client])
}

async fn exchange(requests: &mut SendRequest) {
    let request = Request::get("https://localhost/hello").header("user-agent", "a test").body(Full::default()).unwrap();
    let response = requests.send(request).await.unwrap();
    assert_eq!(response.into_body().read_to_end(100).await.unwrap(), "hello\n");
}

#[test]
fn a_warm_request_allocates_no_more_than_it_did() {
    const BUDGET: u64 = 42;
    const REQUESTS: u64 = 500;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        let (mut requests, _ends) = start().await;
        for _ in 0..1000 {
            exchange(&mut requests).await;
        }
        // It is 40. Timers and acknowledgments fall where they do: the best of several series is what requests cost.
        let mut best = u64::MAX;
        for _ in 0..5 {
            let before = now().calls;
            for _ in 0..REQUESTS {
                exchange(&mut requests).await;
            }
            best = best.min(now().calls - before);
        }
        let each = best / REQUESTS;
        assert!(each <= BUDGET, "{best} allocations of {REQUESTS} requests, {each} each");
    };
    runtime.block_on(async { timeout(PATIENCE, test).await.unwrap() });
}

//! An unchanged router of axum answers alike over HTTP/1.1 (hyper) and over HTTP/3 (Courser).
#![cfg(feature = "h3")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Form, Path, Query, Request as AxumRequest};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use common::{Identity, PATIENCE, loopback};
use courser::aio::Endpoint;
use courser::h3::{ALPN, Client, SendRequest, Server};
use courser::{ClientOptions, ServerOptions, tls};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::time::timeout;

/// What a service is made of: paths, queries, forms, states, streams, middleware, fallbacks.
fn router() -> Router {
    Router::new()
        .route("/", get("root"))
        .route("/hello/{name}", get(|Path(name): Path<String>| async move { format!("hello, {name}") }))
        .route("/sum", get(sum))
        .route("/form", post(|Form(fields): Form<Vec<(String, String)>>| async move { format!("{fields:?}") }))
        .route(
            "/echo",
            any(|method: Method, uri: Uri, body: Bytes| async move {
                (([("x-method", method.to_string()), ("x-path", uri.path().to_owned())]), body)
            }),
        )
        .route("/headers", get(headers))
        .route("/status/{code}", get(status))
        .route("/old", get(|| async { Redirect::permanent("/new") }))
        .route("/stream", get(stream))
        .route(
            "/two",
            get(|| async {
                let mut both = HeaderMap::new();
                both.append(header::SET_COOKIE, "a=1".parse().unwrap());
                both.append(header::SET_COOKIE, "b=2; Path=/".parse().unwrap());
                (both, "two cookies")
            }),
        )
        .route("/large", get(|| async { vec![b'l'; 300_000] }))
        .nest("/api", Router::new().route("/item/{id}", get(item).delete(item).patch(item)))
        .fallback(|uri: Uri| async move { (StatusCode::NOT_FOUND, format!("nothing at {}", uri.path())) })
        .layer(DefaultBodyLimit::max(100_000))
        .layer(middleware::from_fn(stamp))
}

async fn sum(Query(numbers): Query<std::collections::BTreeMap<String, i64>>) -> impl IntoResponse {
    numbers.values().sum::<i64>().to_string()
}

async fn headers(headers: HeaderMap) -> String {
    let of = |name: &str| headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect::<Vec<_>>();
    format!("{:?} {:?} {:?}", of("x-one"), of("cookie"), of("accept"))
}

async fn status(Path(code): Path<u16>) -> Response {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::IM_A_TEAPOT);
    (status, if code == 204 || code == 304 { "" } else { "a body" }).into_response()
}

async fn stream() -> Body {
    let pieces = (0..20).map(|i| Ok::<_, std::io::Error>(Bytes::from(vec![b'a' + i; 1000])));
    Body::from_stream(futures_util::stream::iter(pieces))
}

async fn item(method: Method, Path(id): Path<u32>) -> Result<String, (StatusCode, &'static str)> {
    if id > 100 { Err((StatusCode::GONE, "no longer there")) } else { Ok(format!("{method} {id}")) }
}

async fn stamp(request: AxumRequest, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert("x-stamp", "seen".parse().unwrap());
    response
}

/// Method, path, fields, body.
type Asked = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

const TABLE: [Asked; 54] = [
    ("GET", "/", &[], ""),
    ("HEAD", "/", &[], ""),
    ("POST", "/", &[], "x"),
    ("OPTIONS", "/", &[], ""),
    ("GET", "/hello/world", &[], ""),
    ("GET", "/hello/%C3%BC", &[], ""),
    ("GET", "/hello/a%2Fb", &[], ""),
    ("GET", "/hello/", &[], ""),
    ("HEAD", "/hello/head", &[], ""),
    ("GET", "/sum?a=1&b=2", &[], ""),
    ("GET", "/sum?a=x", &[], ""),
    ("GET", "/sum", &[], ""),
    ("GET", "/sum?", &[], ""),
    ("POST", "/sum?a=1", &[], ""),
    ("POST", "/form", &[FORM], "name=value&other=%26"),
    ("POST", "/form", &[FORM], ""),
    ("POST", "/form", &[("content-type", "text/plain")], "name=value"),
    ("POST", "/form", &[], "name=value"),
    ("GET", "/form", &[], ""),
    ("GET", "/echo", &[], ""),
    ("POST", "/echo", &[], "some text"),
    ("PUT", "/echo?q", &[], "put"),
    ("PATCH", "/echo", &[("content-type", "x/y")], "patched"),
    ("DELETE", "/echo", &[], ""),
    ("DELETE", "/echo", &[], "with a body"),
    ("OPTIONS", "/echo", &[], ""),
    ("HEAD", "/echo", &[], ""),
    ("PURGE", "/echo", &[], "own method"),
    ("GET", "/headers", &[], ""),
    ("GET", "/headers", &[("x-one", "1")], ""),
    ("GET", "/headers", &[("x-one", "1"), ("x-one", "2")], ""),
    ("GET", "/headers", &[("cookie", "a=1; b=2")], ""),
    ("GET", "/headers", &[("accept", "text/html, */*;q=0.1")], ""),
    ("GET", "/headers", &[("x-one", "")], ""),
    ("GET", "/status/200", &[], ""),
    ("GET", "/status/201", &[], ""),
    ("GET", "/status/204", &[], ""),
    ("GET", "/status/304", &[], ""),
    ("GET", "/status/404", &[], ""),
    ("GET", "/status/500", &[], ""),
    ("GET", "/status/799", &[], ""),
    ("GET", "/status/70000", &[], ""),
    ("GET", "/old", &[], ""),
    ("GET", "/stream", &[], ""),
    ("HEAD", "/stream", &[], ""),
    ("GET", "/two", &[], ""),
    ("GET", "/large", &[], ""),
    ("HEAD", "/large", &[], ""),
    ("GET", "/api/item/7", &[], ""),
    ("DELETE", "/api/item/7", &[], ""),
    ("PATCH", "/api/item/101", &[], "x"),
    ("GET", "/api/item/x", &[], ""),
    ("GET", "/nowhere?at=all", &[], ""),
    ("POST", "/api", &[], "y"),
];

/// What is compared: status, fields but for those of the connection and the clock, body.
type Answer = (u16, Vec<(String, String)>, Bytes);

fn answer(head: &http::response::Parts, body: Bytes) -> Answer {
    let of_the_hop = ["date", "connection", "transfer-encoding", "keep-alive"];
    let mut fields: Vec<_> = head
        .headers
        .iter()
        .filter(|(name, _)| !of_the_hop.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    fields.sort();
    (head.status.as_u16(), fields, body)
}

async fn over_http1(addr: std::net::SocketAddr, asked: Asked) -> Answer {
    let client: hyper_util::client::legacy::Client<_, Full<Bytes>> =
        hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    let (head, body) = client.request(request(&format!("http://{addr}"), asked)).await.unwrap().into_parts();
    answer(&head, body.collect().await.unwrap().to_bytes())
}

async fn over_http3(requests: &mut SendRequest, origin: &str, asked: Asked) -> Answer {
    let (head, body) = requests.send(request(origin, asked)).await.unwrap().into_parts();
    answer(&head, body.read_to_end(1 << 20).await.unwrap())
}

fn request(origin: &str, (method, path, fields, body): Asked) -> http::Request<Full<Bytes>> {
    let mut request = http::Request::builder().method(method).uri(format!("{origin}{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body)).unwrap()
}

/// Serves the router over HTTP/1.1; where it listens.
async fn hyper() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind(loopback()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(router());
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    addr
}

/// Serves the router over HTTP/3; a client's handle, and what keeps both ends alive.
async fn courser() -> (SendRequest, Endpoint, Endpoint) {
    let identity = Identity::new();
    let (cert, key) = (identity.0.certificate_pem(), identity.0.key_pem());
    let credentials = tls::Credentials::from_pem(cert.as_bytes(), key.as_bytes()).unwrap();
    let tls = tls::ServerConfig::builder().certificate(credentials).alpn([ALPN]).build().unwrap();
    let server = Endpoint::server(loopback(), ServerOptions::new(tls)).unwrap();
    let endpoint = server.clone();
    tokio::spawn(async move { Server::default().serve(&endpoint, router(), std::future::pending()).await });
    let roots = tls::Roots::empty().add_der(identity.0.certificate_der()).unwrap();
    let tls = tls::ClientConfig::builder().roots(roots).alpn([ALPN]).build().unwrap();
    let client = Endpoint::client(ClientOptions::new(tls)).unwrap();
    let connection = client.connect_to(server.local_addr(), "localhost").unwrap().await.unwrap();
    let (requests, driving) = Client::default().start(connection);
    tokio::spawn(driving);
    (requests, server, client)
}

#[tokio::test]
async fn the_same_router_gives_the_same_answers() {
    timeout(PATIENCE, async {
        let addr = hyper().await;
        let (mut requests, _server, _client) = courser().await;
        let mut differences = Vec::new();
        for asked in TABLE {
            let one = over_http1(addr, asked).await;
            let three = over_http3(&mut requests, &format!("https://{addr}"), asked).await;
            if one != three {
                differences.push(format!("{} {}:\n  {one:?}\n  {three:?}", asked.0, asked.1));
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_client_is_a_service_of_tower() {
    timeout(PATIENCE, async {
        use tower::{Service as _, ServiceExt as _};
        let (requests, _server, _client) = courser().await;
        let mut client = tower::ServiceBuilder::new()
            .concurrency_limit(2)
            .map_request(|path: &'static str| request("https://localhost", ("GET", path, &[], "")))
            .service(requests);
        let response = client.ready().await.unwrap().call("/hello/tower").await.unwrap();
        assert_eq!(response.into_body().read_to_end(100).await.unwrap(), "hello, tower");
    })
    .await
    .unwrap();
}

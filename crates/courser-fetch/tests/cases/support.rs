//! Servers on loopback that do what a test tells them, over each version of HTTP, and clients that trust them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use courser::aio::Endpoint;
use courser::{ServerOptions, h3, tls};
use courser_fetch::body::{Meter, Payload};
use courser_fetch::{Client, Done, Http, Job, Options, Sink, Trust, download};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    H1,
    H2,
    H3,
    /// HTTP/2 or HTTP/1.1, whatever the client likes better.
    Either,
}

/// The issuer of all certificates here.
fn issuer() -> &'static CertifiedIssuer<'static, KeyPair> {
    static ISSUER: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
    ISSUER.get_or_init(|| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "issuer of tests");
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    })
}

/// The issuer's certificate.
pub fn issuer_pem() -> Vec<u8> {
    issuer().pem().into_bytes()
}

/// A chain and its key for names.
pub fn identity(names: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, issuer()).unwrap();
    (certificate.der().to_vec(), key.serialize_der())
}

fn acceptor(names: &[&str], alpn: &[&[u8]]) -> TlsAcceptor {
    let (certificate, key) = identity(names);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(certificate)], PrivateKeyDer::try_from(key).unwrap())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// A body that a handler gives: pieces as they come; an error breaks it off.
pub struct Pieces(mpsc::Receiver<Result<Frame<Bytes>, Broken>>, Option<u64>);

/// Breaks a body off.
#[derive(Debug)]
pub struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the origin dies")
    }
}

impl std::error::Error for Broken {}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.0.poll_recv(cx)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.1.map_or_else(http_body::SizeHint::default, http_body::SizeHint::with_exact)
    }
}

/// Gives pieces to a body.
pub type Pen = mpsc::Sender<Result<Frame<Bytes>, Broken>>;

/// A body whose pieces come later.
pub fn written() -> (Pen, Pieces) {
    let (pen, paper) = mpsc::channel(4);
    (pen, Pieces(paper, None))
}

/// A body that is there.
pub fn whole(bytes: impl Into<Bytes>) -> Pieces {
    let (bytes, (pen, paper)) = (bytes.into(), mpsc::channel(1));
    let size = bytes.len() as u64;
    if size > 0 {
        pen.try_send(Ok(Frame::data(bytes))).unwrap();
    }
    Pieces(paper, Some(size))
}

/// An answer with a body that is there.
pub fn answer(status: u16, fields: &[(&str, &str)], bytes: impl Into<Bytes>) -> Response<Pieces> {
    with_body(status, fields, whole(bytes))
}

/// An answer with any body.
pub fn with_body(status: u16, fields: &[(&str, &str)], body: Pieces) -> Response<Pieces> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in fields {
        response.headers_mut().append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    response
}

/// What servers do with requests, whose bodies were read.
pub type Handler = Arc<dyn Fn(Request<Bytes>) -> Pin<Box<dyn Future<Output = Response<Pieces>> + Send>> + Send + Sync>;

/// A handler that answers at once.
pub fn at_once(f: impl Fn(Request<Bytes>) -> Response<Pieces> + Send + Sync + 'static) -> Handler {
    Arc::new(move |request| {
        let response = f(request);
        Box::pin(async move { response })
    })
}

/// A server that runs as long as the test does.
pub struct Server {
    pub addr: SocketAddr,
    /// Requests that came.
    pub seen: Arc<Mutex<Vec<Seen>>>,
    /// Connections that came.
    pub connections: Arc<AtomicUsize>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Server {
    /// For `localhost` and a few names.
    pub async fn start(kind: Kind, handler: Handler) -> Self {
        Self::named(kind, &["localhost", "127.0.0.1", "other.test"], handler).await
    }

    pub async fn named(kind: Kind, names: &[&str], handler: Handler) -> Self {
        if kind == Kind::H3 {
            return Self::quic(names, handler);
        }
        let alpn: &[&[u8]] = match kind {
            Kind::H1 => &[b"http/1.1"],
            Kind::Either => &[b"h2", b"http/1.1"],
            _ => &[b"h2"],
        };
        let acceptor = acceptor(names, alpn);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (seen, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let server = Self { addr, seen: Arc::clone(&seen), connections: connections.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, handler, seen) = (acceptor.clone(), handler.clone(), Arc::clone(&seen));
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| serve(request, handler.clone(), Arc::clone(&seen)));
                    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    let io = TokioIo::new(stream);
                    match h2 {
                        false => drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await),
                        true => drop(
                            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                                .serve_connection(io, service)
                                .await,
                        ),
                    }
                });
            }
        });
        server
    }

    fn quic(names: &[&str], handler: Handler) -> Self {
        let (certificate, key) = identity(names);
        let credentials = tls::Credentials::from_der(vec![certificate], key).unwrap();
        let config = tls::ServerConfig::builder().certificate(credentials).alpn([h3::ALPN]).build().unwrap();
        let endpoint = Endpoint::server("127.0.0.1:0".parse().unwrap(), ServerOptions::new(config)).unwrap();
        let (seen, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let server = Self { addr: endpoint.local_addr(), seen: Arc::clone(&seen), connections: connections.clone() };
        tokio::spawn(async move {
            while let Ok(connection) = endpoint.accept_connection().await {
                let (handler, seen) = (handler.clone(), Arc::clone(&seen));
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let service = h3::service_fn(move |request| serve(request, handler.clone(), Arc::clone(&seen)));
                    let _ = h3::Server::default().serve_connection(connection, service, std::future::pending()).await;
                });
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.addr.port())
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve<B: Body<Data = Bytes>>(
    request: Request<B>,
    handler: Handler,
    seen: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Pieces>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_or_else(|_| Bytes::new(), |c| c.to_bytes());
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let one = Seen { method: head.method.clone(), path, headers: head.headers.clone(), body: body.clone() };
    seen.lock().unwrap().push(one);
    Ok(handler(Request::from_parts(head, body)).await)
}

/// A server whose every byte the test writes: each connection goes to `script`, with its number.
pub async fn raw<F>(script: impl Fn(TlsStream<TcpStream>, usize) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let acceptor = acceptor(&["localhost"], &[b"http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut n = 0;
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(script(stream, n));
                n += 1;
            }
        }
    });
    addr
}

/// Choices for these servers.
pub fn options() -> Options {
    let mut options = Options {
        trust: Trust::Pem(issuer_pem()),
        retry_delay: Duration::from_millis(10),
        connect_timeout: Duration::from_secs(5),
        ..Options::default()
    };
    options.redirects = None;
    options
}

/// A client with the choices changed, for servers of that kind.
pub fn client_of(kind: Kind, change: impl FnOnce(&mut Options)) -> Client {
    let mut options = options();
    options.http = if kind == Kind::H3 { Http::Only3 } else { Http::Never3 };
    change(&mut options);
    Client::new(options).unwrap()
}

/// A client of TCP servers.
pub fn client(change: impl FnOnce(&mut Options)) -> Client {
    client_of(Kind::H1, change)
}

/// A job that gets a URL.
pub fn job(url: &str, sink: Sink) -> Job {
    Job { url: url.parse().unwrap(), method: Method::GET, headers: HeaderMap::new(), payload: Payload::Empty, sink }
}

/// Does a job, in reasonable time.
pub async fn fetch(client: &Client, job: &Job) -> Done {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, download::run(client, job, &Meter::default())).await.expect("a job that ends")
}

/// The code with which a program would end.
pub fn code(done: &Done) -> u8 {
    done.failed.as_ref().map_or(0, courser_fetch::Error::code)
}

/// Bytes that differ from place to place.
pub fn pattern(len: usize) -> Bytes {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// Names in a folder.
pub fn names(folder: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

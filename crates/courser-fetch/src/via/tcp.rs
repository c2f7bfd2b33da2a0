//! HTTP/2 and HTTP/1.1 over TLS over TCP.
//!
//! Addresses are tried one after the other, each with a short head start before the next (RFC 8305); the first
//! connection that stands is used. Each connection has a task that drives it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Boxed, Dial, Dialled, Protocol, Steps, Target, Via, tls};
use crate::body::{Incoming, Outgoing};
use crate::dns::Names;
use crate::error::{Error, Outcome, chain};
use crate::informational::Ear;
use crate::options::Options;

/// How long an address has before the next one is tried beside it.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// Credit for a stream and for a connection of HTTP/2, in bytes.
const WINDOWS: (u32, u32) = (4 << 20, 16 << 20);
/// Most bytes of an answer's header section.
const HEADERS_MAX: u32 = 64 << 10;

/// Dials over TCP.
#[derive(Clone, Debug)]
pub struct Tcp {
    options: Arc<Options>,
    names: Arc<Names>,
    tls: Arc<ClientConfig>,
    /// Without HTTP/2.
    tls_http1: Arc<ClientConfig>,
}

impl Tcp {
    /// A dialler with these choices.
    ///
    /// # Errors
    /// There are no issuers to trust.
    pub fn new(options: &Arc<Options>, names: &Arc<Names>) -> Outcome<Self> {
        let tls = tls::client(&options.trust)?;
        let mut http1 = ClientConfig::clone(&tls);
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { options: options.clone(), names: names.clone(), tls, tls_http1: Arc::new(http1) })
    }

    async fn dial_within(self, target: Target) -> Outcome<Dialled> {
        let (start, peer) = (target.since, target.origin.to_string());
        let addresses = self.names.of(&target).await?;
        let dns = target.named.unwrap_or_else(|| start.elapsed());
        let stream = connect(addresses).await.map_err(|why| Error::NoAnswer { peer: peer.clone(), why })?;
        let connect = start.elapsed();
        let gone = |e: std::io::Error| Error::NoAnswer { peer: peer.clone(), why: e.to_string() };
        stream.set_nodelay(true).map_err(gone)?;
        let remote = stream.peer_addr().map_err(gone)?;
        let bare = target.origin.host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|e| Error::BadUrl { url: target.origin.to_string(), why: e.to_string() })?;
        let tls = if target.http1 { self.tls_http1 } else { self.tls };
        let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|e| tls::failure(&peer, &e))?;
        let sender = speak(stream, &peer).await?;
        let steps = Steps { dns, connect: Some(connect), handshake: Some(start.elapsed()) };
        Ok(Dialled { via: Arc::new(Connection { sender, remote, peer }), steps, route: None })
    }
}

impl Dial for Tcp {
    fn dial(&self, target: Target) -> Boxed<'static, Outcome<Dialled>> {
        let (me, limit) = (self.clone(), self.options.connect_timeout);
        Box::pin(async move {
            let peer = target.origin.to_string();
            match tokio::time::timeout(limit, me.dial_within(target)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Error::NoAnswer { peer, why: format!("nothing stood after {limit:?}") }),
            }
        })
    }
}

/// The first connection to any of the addresses, or what became of the last attempt.
async fn connect(addresses: Vec<SocketAddr>) -> Result<TcpStream, String> {
    let mut attempts = JoinSet::new();
    let mut last = "no address".to_owned();
    let mut addresses = addresses.into_iter();
    let mut more = true;
    loop {
        if more {
            match addresses.next() {
                Some(a) => {
                    drop(attempts.spawn(async move { TcpStream::connect(a).await.map_err(|e| format!("{a}: {e}")) }))
                }
                None => more = false,
            }
        }
        let next = async { if more { tokio::time::sleep(NEXT_ADDRESS).await } else { std::future::pending().await } };
        tokio::select! {
            done = attempts.join_next() => match done {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(why))) => last = why,
                Some(Err(e)) => last = e.to_string(),
                None if more => {}
                None => return Err(last),
            },
            () = next => {}
        }
    }
}

/// What ALPN decided on, with the task that drives it.
async fn speak(stream: TlsStream<TcpStream>, peer: &str) -> Outcome<Sender> {
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let failed = |e: hyper::Error| Error::Protocol { peer: peer.to_owned(), why: chain(&e) };
    let io = TokioIo::new(stream);
    if h2 {
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_header_list_size(HEADERS_MAX)
            .handshake(io)
            .await
            .map_err(failed)?;
        // What ends the connection is told to each request on it.
        tokio::spawn(async move { drop(driver.await) });
        Ok(Sender::H2(sender))
    } else {
        let (sender, driver) = http1::Builder::new().handshake(io).await.map_err(failed)?;
        tokio::spawn(async move { drop(driver.await) });
        Ok(Sender::H1(Mutex::new(sender)))
    }
}

#[derive(Debug)]
enum Sender {
    H1(Mutex<http1::SendRequest<Outgoing>>),
    H2(http2::SendRequest<Outgoing>),
}

#[derive(Debug)]
struct Connection {
    sender: Sender,
    remote: SocketAddr,
    peer: String,
}

impl Connection {
    async fn request(&self, mut request: Request<Outgoing>) -> Outcome<Response<Incoming>> {
        let answer = match &self.sender {
            Sender::H1(sender) => {
                to_origin_form(&mut request);
                // Over HTTP/2 the library below keeps them to itself.
                if let Some(ear) = request.extensions_mut().remove::<Ear>() {
                    hyper::ext::on_informational(&mut request, move |r| ear.hear(r.status(), r.headers()));
                }
                let mut sender = sender.lock().await;
                if sender.ready().await.is_err() {
                    return Err(self.over());
                }
                let answer = sender.try_send_request(request);
                drop(sender);
                answer.await
            }
            Sender::H2(sender) => {
                let mut sender = sender.clone();
                if sender.ready().await.is_err() {
                    return Err(self.over());
                }
                sender.try_send_request(request).await
            }
        };
        let answer = answer.map_err(|e| self.failure(e))?;
        Ok(answer.map(|body| body.map_err(|e| cut(&e)).boxed_unsync()))
    }

    fn over(&self) -> Error {
        Error::Closed { peer: self.peer.clone(), why: "the connection is over".into(), sent: false }
    }

    fn failure(&self, mut e: TrySendError<Request<Outgoing>>) -> Error {
        let sent = e.take_message().is_none();
        let (peer, e) = (self.peer.clone(), e.into_error());
        // Reading the file of the body failed: that is ours, not the server's.
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&e);
        while let Some(c) = cause {
            if let Some(ours) = c.downcast_ref::<Error>() {
                return ours.clone();
            }
            cause = c.source();
        }
        let why = chain(&e);
        let closed = e.is_closed() || e.is_canceled() || e.is_incomplete_message() || is_broken(&e);
        if closed { Error::Closed { peer, why, sent } } else { Error::Protocol { peer, why } }
    }
}

/// Whether the network, and not the server's words, ended it.
fn is_broken(e: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(e);
    while let Some(c) = cause {
        if c.is::<std::io::Error>() {
            return true;
        }
        cause = c.source();
    }
    // HTTP/2 tells streams and connections that were ended by their codes.
    chain(e).contains("http2 error")
}

fn cut(e: &hyper::Error) -> Error {
    Error::Cut { got: 0, expected: None, why: chain(e) }
}

/// HTTP/1.1 wants the path in the request line and the authority in a field.
fn to_origin_form(request: &mut Request<Outgoing>) {
    if let Some(authority) = request.uri().authority().map(|a| a.as_str().to_owned()) {
        if let (false, Ok(value)) = (request.headers().contains_key(http::header::HOST), authority.parse()) {
            request.headers_mut().insert(http::header::HOST, value);
        }
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        if let Ok(uri) = path.parse() {
            *request.uri_mut() = uri;
        }
    }
    *request.version_mut() = http::Version::HTTP_11;
}

impl Via for Connection {
    fn protocol(&self) -> Protocol {
        if matches!(self.sender, Sender::H2(_)) { Protocol::Http2 } else { Protocol::Http11 }
    }

    fn remote(&self) -> SocketAddr {
        self.remote
    }

    fn is_open(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => sender.try_lock().is_ok_and(|s| !s.is_closed()),
            Sender::H2(sender) => !sender.is_closed(),
        }
    }

    fn send(&self, request: Request<Outgoing>) -> Boxed<'_, Outcome<Response<Incoming>>> {
        Box::pin(self.request(request))
    }

    fn ready(&self) -> Boxed<'_, bool> {
        Box::pin(async {
            match &self.sender {
                Sender::H1(sender) => sender.lock().await.ready().await.is_ok(),
                Sender::H2(sender) => sender.clone().ready().await.is_ok(),
            }
        })
    }
}

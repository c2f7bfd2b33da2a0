//! HTTP/3 over QUIC.
//!
//! One endpoint, and with it one UDP socket, serves all connections of a client; it is made with the first one. All
//! addresses of a server are raced below.
//!
//! A server that was reached before is asked at once when it gave a ticket for that (0-RTT): requests that change nothing leave with
//! the first packet. Tickets last as long as the client: TLS does not give them out. Since such a connection is
//! there before anything was heard, it wins each race; where TCP could stand in for it, it has less time to prove itself.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use courser::aio::Endpoint;
use courser::h3::{self, Code, SendRequest};
use courser::{
    ClientOptions, CloseReason, ConnectError, ConnectionError, EarlyData, Request as Connect, Settings, tls,
};
use http::{Request, Response};
use http_body_util::BodyExt;

use super::{Boxed, Dial, Dialled, Early, Protocol, Steps, Target, Via};
use crate::body::{Incoming, Outgoing};
use crate::dns::Names;
use crate::error::{Error, Outcome, chain, harmless};
use crate::informational::Ear;
use crate::options::{Http, Options, Trust};

/// How long the last words on a connection may take.
const GOODBYE: Duration = Duration::from_millis(200);
/// How long the handshake of a connection may take that was used before it, when TCP can stand in for it.
const PROOF: Duration = Duration::from_secs(3);
/// Servers that are known to have been reached. TLS remembers tickets of as many.
const REACHED_MAX: usize = 256;
/// Alerts that speak of the certificate (RFC 8446 section 6.2), from `bad_certificate` to `certificate_unknown`, and
/// `unknown_ca`.
const OF_CERTIFICATES: [u8; 6] = [42, 43, 44, 45, 46, 48];

/// Names of servers.
type Reached = Arc<Mutex<HashSet<String>>>;

/// Dials over QUIC.
#[derive(Debug)]
pub struct Quic {
    options: Arc<Options>,
    names: Arc<Names>,
    tls: tls::ClientConfig,
    /// Remembers what servers permitted, for 0-RTT.
    http: h3::Client,
    /// Names of servers that were reached: others can have given no ticket.
    reached: Reached,
    /// Made with the first connection: it needs the runtime.
    endpoint: Mutex<Option<Arc<Endpoint>>>,
}

impl Quic {
    /// A dialler with these choices.
    ///
    /// # Errors
    /// There are no issuers to trust.
    pub fn new(options: &Arc<Options>, names: &Arc<Names>) -> Outcome<Self> {
        let failed = |e: tls::ConfigError| Error::Tls { peer: "any server".into(), why: e.to_string() };
        let roots = match &options.trust {
            Trust::Platform => tls::Roots::platform(),
            Trust::Pem(text) => tls::Roots::empty().add_pem(text),
        };
        let tls = tls::ClientConfig::builder().roots(roots.map_err(failed)?).alpn([h3::ALPN]);
        let tls = tls.early_data(options.early_data).build().map_err(failed)?;
        let (options, names) = (options.clone(), names.clone());
        let (http, reached) = (h3::Client::default(), Reached::default());
        Ok(Self { options, names, tls, http, reached, endpoint: Mutex::new(None) })
    }

    fn endpoint(&self) -> Outcome<Arc<Endpoint>> {
        let mut made = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = &*made {
            return Ok(endpoint.clone());
        }
        let options = ClientOptions::new(self.tls.clone()).settings(patient(self.options.connect_timeout));
        let endpoint = Endpoint::client(options)
            .map_err(|e| Error::Local { what: "opening a UDP socket".into(), why: e.to_string() })?;
        let endpoint = Arc::new(endpoint);
        *made = Some(endpoint.clone());
        Ok(endpoint)
    }
}

impl Dial for Quic {
    fn dial(&self, target: Target) -> Boxed<'static, Outcome<Dialled>> {
        let (options, names, reached) = (self.options.clone(), self.names.clone(), self.reached.clone());
        let (endpoint, http) = (self.endpoint(), self.http.clone());
        Box::pin(async move {
            let (peer, limit) = (target.origin.to_string(), options.connect_timeout);
            let dialling = Dialling { options, names, reached, endpoint: endpoint?, http };
            match tokio::time::timeout(limit, dialling.dial(target)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Error::NoAnswer { peer, why: format!("nobody answered over UDP within {limit:?}") }),
            }
        })
    }
}

/// What a connection in the making needs of its client.
struct Dialling {
    options: Arc<Options>,
    names: Arc<Names>,
    reached: Reached,
    endpoint: Arc<Endpoint>,
    http: h3::Client,
}

impl Dialling {
    async fn dial(self, target: Target) -> Outcome<Dialled> {
        let (start, peer) = (target.since, target.origin.to_string());
        let addresses = self.names.of(&target).await?;
        let dns = target.named.unwrap_or_else(|| start.elapsed());
        // The certificate has to be the origin's, wherever the connection goes (RFC 7838 section 2.1).
        let name = target.origin.host.trim_start_matches('[').trim_end_matches(']');
        let failed = |e: ConnectError| failure(&peer, &e);
        let to = Connect::parse(&format!("{}:{}", target.host, target.port)).map_err(failed)?;
        let to = self.maybe_early(to.addresses(&addresses).server_name(name), name);
        let connection = self.endpoint.connect_with(to).map_err(failed)?.await.map_err(failed)?;
        let waited = connection.early_data() == EarlyData::None;
        if waited {
            let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
            if reached.len() < REACHED_MAX {
                reached.insert(name.to_owned());
            }
        }
        let steps = Steps { dns, connect: None, handshake: waited.then(|| start.elapsed()) };
        let remote = connection.remote_address();
        let (requests, driving) = self.http.start(connection);
        // What ends the connection is told to each request on it.
        tokio::spawn(async move { drop(driving.await) });
        let via = Connection { requests, remote, peer, _endpoint: self.endpoint };
        Ok(Dialled { via: Arc::new(via), steps, route: None })
    }

    fn maybe_early(&self, to: Connect, name: &str) -> Connect {
        if !self.options.early_data {
            return to;
        }
        let known = self.reached.lock().unwrap_or_else(PoisonError::into_inner).contains(name);
        if known && self.options.http != Http::Only3 {
            return to.early_data().settings(patient(PROOF.min(self.options.connect_timeout)));
        }
        to.early_data()
    }
}

/// Settings of a connection whose handshake may take so long.
fn patient(limit: Duration) -> Settings {
    let mut settings = Settings::default();
    settings.handshake_timeout = limit;
    settings
}

/// Why there is no connection.
fn failure(peer: &str, e: &ConnectError) -> Error {
    let peer = peer.to_owned();
    let told = |alert: u8, why: &str| {
        let (peer, why) = (peer.clone(), verdict(alert, why));
        if OF_CERTIFICATES.contains(&alert) { Error::Untrusted { peer, why } } else { Error::Tls { peer, why } }
    };
    match e {
        ConnectError::Failed(ConnectionError::Closed(reason)) => match reason {
            CloseReason::Tls { alert, reason } => told(*alert, reason),
            CloseReason::Violation(v) => match v.code.alert() {
                Some(alert) => told(alert, v.reason),
                None => Error::Protocol { peer, why: chain(e) },
            },
            CloseReason::PeerTransport { code, reason, .. } if code.alert().is_some() => {
                Error::Tls { peer, why: harmless(&format!("{code} {}", String::from_utf8_lossy(reason))) }
            }
            _ => Error::NoAnswer { peer, why: chain(e) },
        },
        ConnectError::Tls(why) => Error::Tls { peer, why: harmless(why) },
        _ => Error::NoAnswer { peer, why: chain(e) },
    }
}

/// What an alert of ours says about the server, in the words that TCP has for the same.
fn verdict(alert: u8, why: &str) -> String {
    let names = ["NotValidForName", "not valid for name", "certificate is not for"].iter().any(|w| why.contains(w));
    match alert {
        42 if names => "it is for another name".into(),
        45 => "it has expired or is not valid yet".into(),
        48 => "nobody who is trusted here signed it".into(),
        _ => harmless(why),
    }
}

struct Connection {
    requests: SendRequest,
    remote: SocketAddr,
    peer: String,
    /// The socket stays as long as its connections.
    _endpoint: Arc<Endpoint>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HTTP/3 with {} at {}", self.peer, self.remote)
    }
}

impl Connection {
    fn failure(&self, e: &h3::Error) -> Error {
        let (peer, why) = (self.peer.clone(), chain(e));
        match e {
            // Reading the file of the body failed: that is ours, not the server's.
            h3::Error::Application(inner) => match inner.downcast_ref::<Error>() {
                Some(ours) => ours.clone(),
                None => Error::Local { what: "the request's body".into(), why },
            },
            h3::Error::Misuse(what) => Error::Usage(what.to_string()),
            h3::Error::Reset(Code::VERSION_FALLBACK) | h3::Error::Stopped(Code::VERSION_FALLBACK) => {
                Error::Fallback { peer }
            }
            e if e.is_safe_to_retry() => Error::Closed { peer, why, sent: false },
            h3::Error::Closed(_) | h3::Error::Reset(_) | h3::Error::Stopped(_) | h3::Error::TimedOut(_) => {
                Error::Closed { peer, why, sent: true }
            }
            _ => Error::Protocol { peer, why },
        }
    }
}

/// Why a body ended early.
fn cut(e: &h3::Error) -> Error {
    Error::Cut { got: 0, expected: None, why: chain(e) }
}

impl Via for Connection {
    fn protocol(&self) -> Protocol {
        Protocol::Http3
    }

    fn remote(&self) -> SocketAddr {
        self.remote
    }

    fn is_open(&self) -> bool {
        self.requests.is_open()
    }

    fn is_early(&self) -> bool {
        self.requests.connection().early_data() == EarlyData::Offered
    }

    fn early(&self) -> Option<Early> {
        match self.requests.connection().early_data() {
            EarlyData::Accepted => Some(Early::Accepted),
            EarlyData::Rejected => Some(Early::Rejected),
            EarlyData::None | EarlyData::Offered => None,
        }
    }

    fn send(&self, mut request: Request<Outgoing>) -> Boxed<'_, Outcome<Response<Incoming>>> {
        if let Some(ear) = request.extensions_mut().remove::<Ear>() {
            request.extensions_mut().insert(h3::Informational::new(move |r| ear.hear(r.status(), r.headers())));
        }
        let answer = self.requests.clone().send(request);
        Box::pin(async move {
            let answer = answer.await.map_err(|e| self.failure(&e))?;
            Ok(answer.map(|body| body.map_err(|e| cut(&e)).boxed_unsync()))
        })
    }

    fn ready(&self) -> Boxed<'_, bool> {
        Box::pin(async { self.is_open() })
    }

    fn close(&self) -> Boxed<'_, ()> {
        Box::pin(async {
            let connection = self.requests.connection();
            connection.close(Code::NO_ERROR.0, b"");
            // The server hears of it; who waits longer gains nothing.
            let _ = tokio::time::timeout(GOODBYE, connection.closed()).await;
        })
    }
}

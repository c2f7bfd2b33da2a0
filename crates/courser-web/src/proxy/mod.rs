//! A reverse proxy: requests go to an origin over HTTP/1.1 or HTTP/2, and its answers come back, both as they come.
//!
//! Nothing is collected: a body is read from one side as fast as the other takes it. What goes wrong before the answer has
//! begun becomes an answer with a sentence (502, 503, 504); what goes wrong later breaks the answer off, so that nobody takes
//! half a file for a whole one. Requests at the origin are limited; who finds no place waits as long as for a connection.

pub mod connect;
pub mod fields;
pub mod forward;
pub mod interim;
pub mod timed;
pub mod tunnel;
pub mod upgrade;

use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use courser::h3::Exchange;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::app::Peer;
use crate::body::{Body, RequestBody, sentence};
use crate::config;
use crate::error::WebError;

use connect::{Connector, TooSlow};
use fields::{Outward, strip};
use interim::Interims;
use timed::{Paused, Timed};
use upgrade::{Asked, asked};

/// How long an idle connection is kept. Less than most servers keep theirs, so that requests rarely meet one that closes.
const IDLE: Duration = Duration::from_secs(30);

/// What is read ahead of an answer over HTTP/1.1, in bytes, which is also the largest head, and what waits to be sent over
/// HTTP/2. For a client that reads nothing about three of these wait.
const BUFFER: usize = 64 << 10;

/// An origin and the connections to it.
pub struct Origin {
    config: config::Proxy,
    uri: Uri,
    client: Client<Connector, Timed<RequestBody>>,
    /// Requests that may be at the origin.
    places: Arc<Semaphore>,
    /// WebSockets that may be there, beside them.
    tunnels: Arc<Semaphore>,
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// The origin gives no answer; this is said in its place.
#[derive(Clone, Copy, Debug)]
pub struct Unanswered(StatusCode, &'static str);

impl Unanswered {
    /// Whether it is another server that fails.
    pub(crate) fn is_of_origin(self) -> bool {
        matches!(self.0, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)
    }
}

impl From<Unanswered> for Response<Body> {
    fn from(Unanswered(status, text): Unanswered) -> Self {
        let mut response = sentence(status, text);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Whether an idle connection closed while the request was on its way: no part of an answer came.
fn closed_meanwhile(e: &legacy::Error) -> bool {
    let mut causes = std::iter::successors(std::error::Error::source(e), |e| e.source());
    !e.is_connect()
        && causes.any(|e| {
            let gone = |e: &std::io::Error| matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
            e.downcast_ref::<hyper::Error>().is_some_and(|e| e.is_incomplete_message() || e.is_canceled())
                || e.downcast_ref().is_some_and(gone)
        })
}

/// What this process calls itself in `Via`.
fn own_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("courser-{:08x}", RandomState::new().hash_one(0) & 0xffff_ffff))
}

impl Origin {
    /// The origin of a configuration. Nothing is connected yet.
    ///
    /// # Errors
    /// It is no address, or its certificates cannot be read.
    pub fn new(config: &config::Proxy) -> Result<Self, WebError> {
        let uri = config.uri()?;
        let connector = Connector::new(config, &uri)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(config.idle_connections)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .http2_only(config.http2)
            .http1_max_buf_size(BUFFER)
            .http2_max_send_buf_size(BUFFER)
            .build(connector);
        let places = Arc::new(Semaphore::new(config.connections.min(Semaphore::MAX_PERMITS)));
        let tunnels = Arc::new(Semaphore::new(config.tunnels.min(Semaphore::MAX_PERMITS)));
        Ok(Self { config: config.clone(), uri, client, places, tunnels })
    }

    /// Asks the origin.
    ///
    /// # Errors
    /// The answer to give when the origin gives none.
    pub async fn answer(&self, mut parts: Parts, body: RequestBody, peer: Peer) -> Result<Response<Body>, Unanswered> {
        if let Some(refused) = self.refused(&parts) {
            return Err(Unanswered(StatusCode::NOT_IMPLEMENTED, refused));
        }
        if self.config.upgrades && matches!(asked(&parts), Asked::Field | Asked::Extended) {
            return self.upgrade(parts, body, peer).await;
        }
        if let Some(exchange) = parts.extensions.get::<Exchange>().filter(|exchange| exchange.is_early()).cloned() {
            self.early(&mut parts, &exchange).await?;
        }
        // What asks only, and says no more, may be asked twice.
        let repeatable = (parts.method.is_safe() && body.is_end_stream()).then(|| parts.clone());
        let interims = Interims::new(&parts);
        let request = self.outward(parts, body, peer)?;
        let place = self.place().await?;
        let ask = |request| tokio::time::timeout(self.config.response_timeout, self.within(&interims, request));
        let mut asked = ask(request).await;
        if let (Ok(Err(e)), Some(parts)) = (&asked, repeatable)
            && e.as_ref().is_some_and(closed_meanwhile)
        {
            let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
            asked = ask(self.outward(parts, empty, peer)?).await;
        }
        match asked {
            Ok(Ok(response)) => self.inward(response, place),
            Ok(Err(Some(e))) => Err(self.failed(&e)),
            Ok(Err(None)) => Err(self.endless()),
            Err(_) => Err(self.late()),
        }
    }

    /// Asks, unless there are too many interim answers: then there is no error of the connection either. Who stops to wait
    /// for the answer ends the connection.
    async fn within(
        &self,
        interims: &Arc<Interims>,
        mut request: Request<Timed<RequestBody>>,
    ) -> Result<Response<hyper::body::Incoming>, Option<legacy::Error>> {
        interims.follow(&mut request);
        tokio::select! {
            answer = self.client.request(request) => answer.map_err(Some),
            () = interims.too_many() => Err(None),
        }
    }

    /// Why a request is not passed on, whatever the origin would say.
    fn refused(&self, parts: &Parts) -> Option<&'static str> {
        match (&parts.method, asked(parts)) {
            (&Method::TRACE, _) => Some("This method is not passed on."),
            (&Method::CONNECT, Asked::Other | Asked::Tunnel) => Some("CONNECT is passed on for WebSockets alone."),
            (&Method::CONNECT, _) if !self.config.upgrades => Some("There are no WebSockets here."),
            (_, Asked::Other) if self.config.upgrades => Some("The only protocol that can be changed to is WebSocket."),
            _ => None,
        }
    }

    /// A request that an attacker may have repeated (RFC 8470): the origin is told, or it waits until that is out of the question.
    async fn early(&self, parts: &mut Parts, exchange: &Exchange) -> Result<(), Unanswered> {
        if self.config.early_data {
            parts.headers.insert(fields::EARLY_DATA, HeaderValue::from_static("1"));
            return Ok(());
        }
        let gone = |_| Unanswered(StatusCode::TOO_EARLY, "The handshake came to nothing.");
        exchange.connection().established().await.map_err(gone)
    }

    fn late(&self) -> Unanswered {
        tracing::warn!(origin = %self.uri, "no answer in time");
        Unanswered(StatusCode::GATEWAY_TIMEOUT, "The server behind this one did not answer in time.")
    }

    fn endless(&self) -> Unanswered {
        tracing::warn!(origin = %self.uri, "interim answers without end");
        Unanswered(StatusCode::BAD_GATEWAY, "The server behind this one never comes to its answer.")
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Unanswered> {
        let place = Arc::clone(&self.places).acquire_owned();
        if let Ok(Ok(place)) = tokio::time::timeout(self.config.connect_timeout, place).await {
            return Ok(place);
        }
        tracing::warn!(origin = %self.uri, "all {} places are taken", self.config.connections);
        Err(Unanswered(StatusCode::SERVICE_UNAVAILABLE, "The server behind this one has too much to do."))
    }

    /// The request as the origin gets it.
    fn outward(&self, parts: Parts, body: RequestBody, peer: Peer) -> Result<Request<Timed<RequestBody>>, Unanswered> {
        let mut headers = parts.headers;
        let field = || headers.get(header::HOST)?.to_str().ok()?.parse::<Authority>().ok();
        let host = parts.uri.authority().cloned().or_else(field);
        let outward = Outward { config: &self.config, peer, name: own_name() };
        if outward.loops(&headers) {
            tracing::warn!(origin = %self.uri, "a request came back: the origin is this proxy");
            return Err(Unanswered(StatusCode::LOOP_DETECTED, "The request came by here before."));
        }
        outward.apply(&mut headers, host.as_ref(), parts.version);
        let mut uri = self.uri.clone().into_parts();
        uri.path_and_query = Some(parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
        let uri = Uri::from_parts(uri)
            .map_err(|_| Unanswered(StatusCode::BAD_REQUEST, "The address cannot be passed on."))?;
        let mut request = Request::new(Timed::new(body, self.config.idle_timeout, None));
        *request.method_mut() = parts.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        *request.version_mut() = if self.config.http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        Ok(request)
    }

    /// The answer as the client gets it.
    fn inward(
        &self,
        response: Response<hyper::body::Incoming>,
        place: OwnedSemaphorePermit,
    ) -> Result<Response<Body>, Unanswered> {
        let (mut parts, body) = response.into_parts();
        if parts.status.is_informational() {
            tracing::warn!(origin = %self.uri, "the origin switches protocols unasked");
            return Err(Unanswered(StatusCode::BAD_GATEWAY, "The server behind this one answered something else."));
        }
        strip(&mut parts.headers);
        // Where the origin offers other versions is not where we do.
        parts.headers.remove(header::ALT_SVC);
        let mut answer =
            Response::new(Body::Stream(Timed::new(body, self.config.idle_timeout, Some(place)).boxed_unsync()));
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = parts.headers;
        Ok(answer)
    }

    /// The answer when there is none.
    fn failed(&self, e: &legacy::Error) -> Unanswered {
        let mut causes = std::iter::successors(std::error::Error::source(e), |e| e.source());
        if causes.any(|e| e.is::<Paused>()) {
            return Unanswered(StatusCode::REQUEST_TIMEOUT, "The request's body did not come in time.");
        }
        let mut causes = std::iter::successors(std::error::Error::source(e), |e| e.source());
        let slow = causes.any(|e| e.is::<TooSlow>());
        let why = std::iter::successors(Some(e as &dyn std::error::Error), |e| e.source()).last();
        tracing::warn!(origin = %self.uri, "the origin fails: {}", why.map_or_else(String::new, ToString::to_string));
        if slow {
            Unanswered(StatusCode::GATEWAY_TIMEOUT, "The server behind this one cannot be reached in time.")
        } else if e.is_connect() {
            Unanswered(StatusCode::BAD_GATEWAY, "The server behind this one cannot be reached.")
        } else {
            Unanswered(StatusCode::BAD_GATEWAY, "The server behind this one broke off.")
        }
    }
}

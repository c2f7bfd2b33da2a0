//! A request finds its site and is answered, counted and logged, whatever carried it.
//!
//! The sites are behind one pointer: a request takes the table of its moment, so that a configuration that is read again
//! counts from the next request on, and one that is refused changes nothing.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::task::JoinSet;

use crate::body::{Body, BoxError, RequestBody, sentence};
use crate::config::Config;
use crate::error::WebError;
use crate::files::Folder;
use crate::log::{AccessLog, Record};
use crate::metrics::{self, Metrics};
use crate::proxy::Origin;
use crate::proxy::forward::Forward;
use crate::proxy::tunnel::Tunnel;
use crate::proxy::upgrade::{Asked, asked};

/// Status in the log of a request whose client did not wait for an answer.
const GONE: u16 = 499;
/// Bytes of a text of the client in the log.
const LOGGED_MAX: usize = 1024;

/// Who asks, and how.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The client's address.
    pub remote: SocketAddr,
    /// The port that it asked at.
    pub port: u16,
    /// Whether TLS protects what is said.
    pub is_secure: bool,
}

/// Sends an informational answer (1xx) before the final one; an extension of a request that came over a protocol that can.
#[derive(Clone)]
pub struct Informational(pub Arc<Tell>);

/// Takes the status and fields of an informational answer.
pub type Tell = dyn Fn(StatusCode, &HeaderMap) + Send + Sync;

impl fmt::Debug for Informational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Informational")
    }
}

/// What answers for a site.
#[derive(Clone, Debug)]
enum Kind {
    Files(Arc<Folder>),
    Proxy(Arc<Origin>),
}

/// A site that is served.
#[derive(Debug)]
struct Site {
    kind: Kind,
    /// Fields that each answer gets, or loses.
    headers: Vec<(HeaderName, Option<HeaderValue>)>,
}

/// The sites of a moment.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    exact: HashMap<String, Arc<Site>>,
    /// By what follows the asterisk and the dot.
    wildcard: HashMap<String, Arc<Site>>,
    other: Option<Arc<Site>>,
    /// What CONNECT gets.
    forward: Forward,
    /// What TCP clients are told of HTTP/3.
    alt_svc_seconds: u64,
}

impl Sites {
    /// Opens what a configuration names.
    pub(crate) fn open(config: &Config) -> Result<Self, WebError> {
        let forward = Forward::new(&config.connect)?;
        let mut sites = Self { forward, alt_svc_seconds: config.server.alt_svc.as_secs(), ..Self::default() };
        for site in &config.sites {
            let kind = match (&site.files, &site.proxy) {
                (Some(files), _) => Kind::Files(Arc::new(Folder::open(files)?)),
                (None, Some(proxy)) => Kind::Proxy(Arc::new(Origin::new(proxy)?)),
                (None, None) => continue,
            };
            let opened = Arc::new(Site { kind, headers: site.fields()? });
            for host in &site.hosts {
                let host = host.to_ascii_lowercase();
                match host.strip_prefix("*.") {
                    Some(suffix) => sites.wildcard.insert(suffix.to_owned(), Arc::clone(&opened)),
                    None => sites.exact.insert(host, Arc::clone(&opened)),
                };
            }
            if site.hosts.is_empty() {
                sites.other = Some(opened);
            }
        }
        Ok(sites)
    }

    fn find(&self, host: &str) -> Option<Arc<Site>> {
        let wildcard = || self.wildcard.get(host.split_once('.')?.1);
        self.exact.get(host).or_else(wildcard).or(self.other.as_ref()).cloned()
    }
}

/// Everything but sockets.
#[derive(Debug)]
pub struct App {
    sites: RwLock<Arc<Sites>>,
    /// What is counted.
    pub metrics: Metrics,
    log: AccessLog,
    /// The ports at which HTTP/3 is there to be told of.
    quic_ports: OnceLock<Box<[u16]>>,
}

impl App {
    /// Opens the sites and the access log of a configuration.
    ///
    /// # Errors
    /// What cannot be opened.
    pub fn open(config: &Config) -> Result<Arc<Self>, WebError> {
        config.check()?;
        let sites = RwLock::new(Arc::new(Sites::open(config)?));
        let log = AccessLog::open(&config.log)?;
        Ok(Arc::new(Self { sites, metrics: Metrics::default(), log, quic_ports: OnceLock::new() }))
    }

    /// Takes these sites from the next request on.
    pub(crate) fn replace(&self, sites: Sites) {
        *self.sites.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(sites);
    }

    /// The access log.
    #[must_use]
    pub fn log(&self) -> &AccessLog {
        &self.log
    }

    /// Clients over TCP who come to one of these ports are told from now on that there is HTTP/3 at it. Counts once.
    pub fn offer_quic(&self, ports: impl IntoIterator<Item = u16>) {
        let _ = self.quic_ports.set(ports.into_iter().collect());
    }

    fn has_quic(&self, port: u16) -> bool {
        self.quic_ports.get().is_some_and(|ports| ports.contains(&port))
    }

    /// Answers a request.
    pub async fn answer(self: Arc<Self>, request: Request<RequestBody>, peer: Peer) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let mut tally = Tally::begin(&self, &parts, peer);
        let sites = Arc::clone(&*self.sites.read().unwrap_or_else(PoisonError::into_inner));
        let (version, is_tunnel) = (parts.version, asked(&parts) == Asked::Tunnel);
        let (mut response, site) = match authority(&parts) {
            Err(why) => (sentence(StatusCode::BAD_REQUEST, why), None),
            Ok(host) => {
                tally.record.host.push_str(&host);
                let found = if is_tunnel { None } else { sites.find(&host) };
                match found {
                    None if is_tunnel => (self.forward(&sites.forward, parts, body).await, None),
                    Some(site) => (self.dispatch(&site, parts, body, peer).await, Some(site)),
                    None => {
                        let text = "No site of this server has that name.";
                        (sentence(StatusCode::MISDIRECTED_REQUEST, text), None)
                    }
                }
            }
        };
        let headers = response.headers_mut();
        headers.entry(header::DATE).or_insert_with(|| {
            HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now())).unwrap_or(HeaderValue::from_static(""))
        });
        if !is_tunnel && version != Version::HTTP_3 && self.has_quic(peer.port) && sites.alt_svc_seconds > 0 {
            let offer = format!("h3=\":{}\"; ma={}", peer.port, sites.alt_svc_seconds);
            if let Ok(offer) = offer.parse() {
                headers.insert(header::ALT_SVC, offer);
            }
        }
        for (name, value) in site.iter().flat_map(|site| &site.headers) {
            match value {
                Some(value) => drop(headers.insert(name, value.clone())),
                None => drop(headers.remove(name)),
            }
        }
        tally.record.status = response.status();
        response.map(|inner| Answer { expected: inner.size_hint().exact(), inner, tally: Some(tally), in_use: None })
    }

    /// What is asked for is no site, but a way to another server.
    async fn forward(&self, forward: &Forward, parts: Parts, body: RequestBody) -> Response<Body> {
        let opened = forward.open(parts, body).await;
        opened.unwrap_or_else(|unanswered| {
            if unanswered.is_of_origin() {
                metrics::add(&self.metrics.origin_failed);
            }
            unanswered.into()
        })
    }

    async fn dispatch(&self, site: &Site, parts: Parts, body: RequestBody, peer: Peer) -> Response<Body> {
        match &site.kind {
            Kind::Files(folder) if folder.takes_long(&parts) => {
                let folder = Arc::clone(folder);
                tokio::task::spawn_blocking(move || folder.answer(&parts))
                    .await
                    .unwrap_or_else(|_| sentence(StatusCode::INTERNAL_SERVER_ERROR, "The folder could not be read."))
            }
            Kind::Files(folder) => folder.answer(&parts),
            Kind::Proxy(origin) => {
                let answered = origin.answer(parts, body, peer).await;
                answered.unwrap_or_else(|unanswered| {
                    metrics::add(&self.metrics.origin_failed);
                    unanswered.into()
                })
            }
        }
    }
}

/// The name that is asked, in lower case and without a port.
fn authority(parts: &Parts) -> Result<String, &'static str> {
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let field = fields.next().map(|host| host.to_str().map_err(|_| "The Host field is none.")).transpose()?;
    if fields.next().is_some() {
        return Err("There is more than one Host field.");
    }
    let authority = match (parts.uri.authority(), field) {
        (Some(uri), None) => uri.clone(),
        // HTTP/1.1 has the address of a request before the field; later versions want both to be the same.
        (Some(uri), Some(field)) if parts.version <= Version::HTTP_11 || uri.as_str().eq_ignore_ascii_case(field) => {
            uri.clone()
        }
        (Some(_), Some(_)) => return Err("The Host field names another host than the request."),
        (None, Some(field)) => field.parse().map_err(|_| "The Host field is none.")?,
        (None, None) if parts.version == Version::HTTP_10 => return Ok(String::new()),
        (None, None) => return Err("The request names no host."),
    };
    if authority.as_str().contains('@') {
        return Err("A user is named beside the host.");
    }
    let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
    if host.is_empty() { Err("The request names no host.") } else { Ok(host) }
}

/// Counts and logs one request, whatever becomes of it.
#[derive(Debug)]
struct Tally {
    app: Arc<App>,
    record: Box<Record>,
    began: Instant,
}

impl Tally {
    fn begin(app: &Arc<App>, parts: &Parts, peer: Peer) -> Self {
        app.metrics.begin();
        let text = |name: HeaderName| {
            let value = parts.headers.get(name)?.as_bytes();
            Some(String::from_utf8_lossy(value.get(..LOGGED_MAX).unwrap_or(value)).into_owned())
        };
        let authority = parts.uri.authority().map_or("", |authority| authority.as_str());
        let target = parts.uri.path_and_query().map_or(authority, |target| target.as_str());
        let record = Record {
            at: SystemTime::now(),
            remote: peer.remote.ip().to_canonical(),
            method: parts.method.clone(),
            host: String::new(),
            target: target.chars().take(2 * LOGGED_MAX).collect(),
            version: parts.version,
            referrer: text(header::REFERER),
            agent: text(header::USER_AGENT),
            status: StatusCode::from_u16(GONE).unwrap_or(StatusCode::BAD_REQUEST),
            bytes: 0,
            took: std::time::Duration::ZERO,
            complete: false,
        };
        Self { app: Arc::clone(app), record: Box::new(record), began: Instant::now() }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.record.took = self.began.elapsed();
        let Record { version, status, bytes, took, complete, .. } = *self.record;
        self.app.metrics.end(version, status, bytes, took, complete);
        if !self.app.log.write((*self.record).clone()) {
            metrics::add(&self.app.metrics.log_dropped);
        }
    }
}

/// The body of an answer, which counts what is taken of it.
#[derive(Debug)]
pub struct Answer {
    inner: Body,
    /// Bytes that were announced.
    expected: Option<u64>,
    /// A tunnel takes it over.
    tally: Option<Tally>,
    /// Goes with the answer.
    in_use: Option<InUse>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let Some(Tally { record, .. }) = &mut self.tally else { return polled };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let n = frame.data_ref().map_or(0, |data| data.len() as u64);
                record.bytes = record.bytes.saturating_add(n);
            }
            Poll::Ready(None) => record.complete = true,
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // Nobody asks for the end of what has ended visibly.
        let Some(Tally { record, .. }) = &mut self.tally else { return };
        let all = self.expected.is_some_and(|expected| expected == record.bytes);
        record.complete |= all || self.inner.is_end_stream();
    }
}

/// Whether a connection is in use.
#[derive(Debug, Default)]
pub struct Activity {
    /// Requests that are being answered.
    now: AtomicUsize,
    /// Requests that there were.
    total: AtomicU64,
    /// The next answer is to be the last.
    is_last: AtomicBool,
    /// Tunnels over HTTP/1.1 and HTTP/2: the first outlive what hyper calls a connection.
    tunnels: Mutex<JoinSet<()>>,
}

impl Activity {
    /// Answers over HTTP/1.1 say from now on that their connection closes behind them.
    pub fn set_last(&self) {
        self.is_last.store(true, Ordering::Relaxed);
    }

    /// The tunnels that there are; dropped they end.
    #[must_use]
    pub fn take_tunnels(&self) -> JoinSet<()> {
        std::mem::take(&mut *self.tunnels.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins a tunnel in place of an answer's body.
    fn begin_tunnel(&self, tunnel: Tunnel, mut tally: Option<Tally>, in_use: InUse) {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        while tunnels.try_join_next().is_some() {}
        tunnels.spawn(async move {
            let mut bytes = 0_u64;
            let carried = tunnel.carry(|n| bytes = bytes.saturating_add(n as u64)).await;
            if let Some(Tally { record, .. }) = &mut tally {
                record.bytes = bytes;
                record.complete = carried.is_ok();
            }
            if let Err(e) = carried {
                tracing::debug!("a tunnel ended: {e}");
            }
            drop(in_use);
        });
    }

    /// How many requests there were, when none is being answered: two equal answers mean that nothing happened between.
    #[must_use]
    pub fn idle_since(&self) -> Option<u64> {
        (self.now.load(Ordering::Relaxed) == 0).then(|| self.total.load(Ordering::Relaxed))
    }
}

/// Makes a connection one in use, as long as it lives.
#[derive(Debug)]
struct InUse(Arc<Activity>);

impl InUse {
    fn of(activity: &Arc<Activity>) -> Self {
        activity.now.fetch_add(1, Ordering::Relaxed);
        activity.total.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The application as a service for one connection.
#[derive(Clone, Debug)]
pub struct Service {
    app: Arc<App>,
    peer: Peer,
    activity: Arc<Activity>,
}

/// An answer to come.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

impl Service {
    /// For a connection of this peer.
    #[must_use]
    pub fn new(app: Arc<App>, peer: Peer) -> Self {
        Self { app, peer, activity: Arc::default() }
    }

    /// Tells whether the connection is in use.
    #[must_use]
    pub fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    fn start<B>(&self, request: Request<B>) -> Answering
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let (app, peer, in_use) = (Arc::clone(&self.app), self.peer, InUse::of(&self.activity));
        let has_fields_of_connections = request.version() <= Version::HTTP_11;
        Box::pin(async move {
            let mut response = app.answer(request, peer).await;
            let goes_on = !matches!(response.body().inner, Body::Tunnel(_));
            if has_fields_of_connections && goes_on && in_use.0.is_last.load(Ordering::Relaxed) {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let answer = response.body_mut();
            match std::mem::take(&mut answer.inner) {
                Body::Tunnel(tunnel) => {
                    let activity = Arc::clone(&in_use.0);
                    activity.begin_tunnel(*tunnel, answer.tally.take(), in_use);
                }
                inner => (answer.inner, answer.in_use) = (inner, Some(in_use)),
            }
            Ok(response)
        })
    }
}

impl<B> tower_service::Service<Request<B>> for Service
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        self.start(request)
    }
}

impl hyper::service::Service<Request<hyper::body::Incoming>> for Service {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<hyper::body::Incoming>) -> Answering {
        self.start(request)
    }
}

#[cfg(test)]
mod tests;

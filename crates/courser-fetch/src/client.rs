//! From one request to its answer: the connection is found or made, redirects are followed, what the server says about
//! alternatives is remembered.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use http::header::{ACCEPT, ACCEPT_ENCODING, AGE, CONTENT_LENGTH, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use url::Url;

use crate::alt_svc::cache::Cache;
use crate::alt_svc::{Origin, parse};
use crate::body::{Counted, Incoming, Meter, Outgoing, Payload, Pulse};
use crate::coding;
use crate::dns::Names;
use crate::error::{Error, Outcome};
use crate::informational::{Ear, Informational};
use crate::options::{Http, Options};
use crate::pool::{Key, Lease, Pool};
use crate::race::{Racer, Way, lock};
use crate::redirect;
use crate::retry::is_idempotent;
use crate::timing::Timing;
use crate::via::quic::Quic;
use crate::via::tcp::Tcp;
use crate::via::{Dial, Early, Protocol, Route, Told};

/// The name of this client.
const AGENT: &str = concat!("courser/", env!("CARGO_PKG_VERSION"));
/// Bytes of a body nobody wants that are read so that its connection stays good.
const DRAIN_MAX: u64 = 64 << 10;
/// Connections that one request may use up.
const CONNECTIONS_MAX: u32 = 3;
/// Which alternative carries the request (RFC 7838 section 5).
const ALT_USED: HeaderName = HeaderName::from_static("alt-used");
/// What servers know about other places.
const ALT_SVC: HeaderName = HeaderName::from_static("alt-svc");

/// A request.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What to ask for.
    pub url: Url,
    /// How.
    pub method: Method,
    /// Fields beside those that this client sets.
    pub headers: HeaderMap,
    /// What goes along.
    pub payload: Payload,
}

/// An answer whose header section is there.
#[derive(Debug)]
pub struct Answer {
    /// Where it came from, after redirects.
    pub url: Url,
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// What carried it.
    pub protocol: Protocol,
    /// From where.
    pub remote: SocketAddr,
    /// Redirects on the way.
    pub redirects: u32,
    /// Whether the connection was there already.
    pub reused: bool,
    /// Who told of HTTP/3, where that carried it.
    pub told: Option<Told>,
    /// What became of the request's first sending, when that was before the handshake.
    pub early: Option<Early>,
    /// What the server said before it answered.
    pub informational: Vec<Informational>,
    /// How long it took so far.
    pub timing: Timing,
    /// Its body.
    pub body: Counted,
    /// What to give back when the body is read.
    pub hold: Hold,
}

/// A connection in use, and whose it is.
#[derive(Clone, Debug)]
pub struct Hold {
    key: Key,
    lease: Lease,
}

/// Makes requests.
#[derive(Debug)]
pub struct Client {
    options: Arc<Options>,
    racer: Racer,
    pool: Pool,
}

impl Client {
    /// A client with these choices.
    ///
    /// # Errors
    /// There are no issuers to trust.
    pub fn new(options: Options) -> Outcome<Self> {
        let options = Arc::new(options);
        let names = Arc::new(Names::new(options.clone()));
        let tcp = Arc::new(Tcp::new(&options, &names)?);
        let quic = match options.http {
            Http::Never3 => None,
            _ => Some(Arc::new(Quic::new(&options, &names)?) as Arc<dyn Dial>),
        };
        Ok(Self::over(options, tcp, quic, names))
    }

    /// A client with other ways to get connections.
    #[must_use]
    pub fn with(options: Arc<Options>, tcp: Arc<dyn Dial>, quic: Option<Arc<dyn Dial>>) -> Self {
        let names = Arc::new(Names::new(options.clone()));
        Self::over(options, tcp, quic, names)
    }

    fn over(options: Arc<Options>, tcp: Arc<dyn Dial>, quic: Option<Arc<dyn Dial>>, names: Arc<Names>) -> Self {
        let cache = Arc::new(Mutex::new(Cache::open(options.alt_svc.clone())));
        let racer = Racer::new(options.clone(), (tcp, quic), cache, names);
        Self { options, racer, pool: Pool::default() }
    }

    /// The choices.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Makes a request, and those that its redirects ask for.
    ///
    /// # Errors
    /// There is no answer, or redirects lead nowhere. Any status is an answer.
    pub async fn send(&self, mut ask: Ask, pulse: &Pulse, meter: &Meter) -> Outcome<Answer> {
        let start = Instant::now();
        let mut redirects = 0;
        loop {
            let mut answer = self.exchange(&ask, pulse, meter, start).await?;
            answer.redirects = redirects;
            let Some(limit) = self.options.redirects else { return Ok(answer) };
            let hop = redirect::next(answer.status, &answer.headers, &answer.url, &ask.method)?;
            let Some(hop) = hop else { return Ok(answer) };
            if redirects == limit {
                return Err(Error::Redirects { limit });
            }
            redirects += 1;
            self.drain(answer).await;
            hop.strip(&mut ask.headers);
            if !hop.keeps_body {
                ask.payload = Payload::Empty;
            }
            (ask.url, ask.method) = (hop.url, hop.method);
        }
    }

    /// One request and its answer, on whichever connection carries it.
    async fn exchange(&self, ask: &Ask, pulse: &Pulse, meter: &Meter, start: Instant) -> Outcome<Answer> {
        let mut key = Key { origin: checked(&ask.url)?, way: Way::Any };
        let mut used = 0;
        loop {
            let lease = self.pool.lease(&key, &self.racer).await?;
            used += 1;
            let ear = Ear::new(pulse);
            let mut request = self.request(ask, &lease, pulse).await?;
            request.extensions_mut().insert(ear.clone());
            pulse.beat();
            // What may change something waits for the handshake below.
            let early = lease.via.is_early() && ask.method.is_safe() && matches!(ask.payload, Payload::Empty);
            let error = match pulse.watch(self.options.stall_timeout, lease.via.send(request)).await? {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    self.learn(&key.origin, &head.headers);
                    if head.status == StatusCode::MISDIRECTED_REQUEST
                        && used < CONNECTIONS_MAX
                        && self.misled(&key, &lease)
                    {
                        continue;
                    }
                    let became = early.then(|| lease.via.early()).flatten();
                    let mut answer = answer((ask, key, lease), head, body, (pulse, meter, start));
                    answer.early = became;
                    answer.informational = ear.heard();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            match self.instead(&key, &lease, &error, is_idempotent(&ask.method)) {
                Some(way) if used < CONNECTIONS_MAX => key.way = way,
                _ => return Err(error),
            }
        }
    }

    /// Whether an alternative does not know the origin (RFC 9110 section 15.5.20): the origin itself does.
    fn misled(&self, key: &Key, lease: &Lease) -> bool {
        let elsewhere = lease.route.as_ref().filter(|r| r.is_elsewhere(&key.origin));
        if let Some(route) = elsewhere {
            self.racer.broke(&key.origin, route);
            self.pool.discard(key, lease);
        }
        elsewhere.is_some()
    }

    /// Over what a request is made again that got no answer; none: it is not.
    fn instead(&self, key: &Key, lease: &Lease, error: &Error, harmless: bool) -> Option<Way> {
        let over_http3 = lease.route.is_some();
        let tcp_permitted = self.options.http != Http::Only3;
        if matches!(error, Error::Fallback { .. }) {
            // It is of this request alone: the connection carries others on.
            return tcp_permitted.then_some(Way::Http1);
        }
        self.pool.discard(key, lease);
        if !matches!(error, Error::Closed { .. }) {
            return None;
        }
        let fresh = lease.steps.is_some();
        if let (true, Some(route), true) = (harmless && lease.via.is_early(), &lease.route, tcp_permitted) {
            // It was believed in because of earlier ones: nothing was heard from there.
            self.racer.broke(&key.origin, route);
            return Some(Way::Tcp);
        }
        match error.is_before_request() {
            // Who turns requests away that come over new connections may be less busy at its other door.
            true if over_http3 && fresh && tcp_permitted => Some(Way::Tcp),
            true => Some(key.way),
            // A server may close a connection that waits at the very moment at which a request goes out.
            false => (!fresh && harmless).then_some(key.way),
        }
    }

    async fn request(&self, ask: &Ask, lease: &Lease, pulse: &Pulse) -> Outcome<Request<Outgoing>> {
        let wrong = |why: String| Error::BadUrl { url: ask.url.to_string(), why };
        let mut url = ask.url.clone();
        url.set_fragment(None);
        let uri: Uri = url.as_str().parse().map_err(|e: http::uri::InvalidUri| wrong(e.to_string()))?;
        let mut request = Request::new(ask.payload.open(pulse).await?);
        *request.uri_mut() = uri;
        *request.method_mut() = ask.method.clone();
        let headers = request.headers_mut();
        headers.clone_from(&ask.headers);
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        if self.options.compressed {
            headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static(coding::ACCEPTED));
        }
        // A field with an empty value is one that the user does not want.
        for name in [USER_AGENT, ACCEPT, ACCEPT_ENCODING] {
            if headers.get(&name).is_some_and(HeaderValue::is_empty) {
                headers.remove(name);
            }
        }
        // It belongs to Alt-Svc (RFC 7838 section 5); records are nothing that the server's answers spoke of.
        let origin = checked(&ask.url)?;
        let elsewhere = |r: &&Route| r.told == Told::AltSvc && r.is_elsewhere(&origin);
        if let Some(route) = lease.route.as_ref().filter(elsewhere) {
            let host = route.host.as_ref().unwrap_or(&origin.host);
            if let Ok(value) = HeaderValue::try_from(format!("{host}:{}", route.port)) {
                headers.insert(ALT_USED, value);
            }
        }
        Ok(request)
    }

    /// Remembers what the server says about alternatives.
    fn learn(&self, origin: &Origin, headers: &HeaderMap) {
        let lines = headers.get_all(ALT_SVC).iter().filter_map(|v| v.to_str().ok());
        let age = headers.get(AGE).and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0);
        if let Some(advice) = parse::advice(lines, age) {
            lock(self.racer.cache()).learn(origin, advice, self.racer.network(), SystemTime::now());
        }
    }

    /// Reads a body that nobody wants, as long as it is short, so that its connection can be used again.
    pub async fn drain(&self, mut answer: Answer) {
        let whole = async {
            while let Some(frame) = answer.body.frame().await {
                if frame.is_err() || answer.body.got() > DRAIN_MAX {
                    return false;
                }
            }
            true
        };
        if matches!(tokio::time::timeout(self.options.stall_timeout, whole).await, Ok(true)) {
            self.give_back(answer.hold).await;
        }
    }

    /// The body was read to its end: the connection is good for another request.
    pub async fn give_back(&self, hold: Hold) {
        self.pool.give_back(&hold.key, hold.lease).await;
    }

    /// Ends connections in good order and writes what was learned about alternatives.
    ///
    /// # Errors
    /// The file of alternatives cannot be written; nothing else suffers from that.
    pub async fn close(&self) -> std::io::Result<()> {
        self.racer.close();
        self.pool.close().await;
        lock(self.racer.cache()).save(SystemTime::now())
    }
}

/// The origin of a URL that this client goes to.
///
/// # Errors
/// It is none.
pub fn checked(url: &Url) -> Outcome<Origin> {
    let wrong = |why: &str| Error::BadUrl { url: url.to_string(), why: why.into() };
    if url.scheme() != "https" {
        return Err(wrong("only https is fetched: an answer counts when it comes over a verified certificate"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("names and passwords do not belong into URLs: send a field with -H"));
    }
    Origin::of(url).ok_or_else(|| wrong("the host is missing"))
}

fn answer(
    (ask, key, lease): (&Ask, Key, Lease),
    head: http::response::Parts,
    body: Incoming,
    (pulse, meter, start): (&Pulse, &Meter, Instant),
) -> Answer {
    let bodiless = ask.method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
    let told = head.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let expected = if bodiless { None } else { told };
    let steps = lease.steps;
    let timing = Timing {
        dns: steps.map(|s| s.dns),
        connect: steps.and_then(|s| s.connect),
        handshake: steps.and_then(|s| s.handshake),
        first_byte: Some(start.elapsed()),
        total: None,
    };
    Answer {
        url: ask.url.clone(),
        status: head.status,
        headers: head.headers,
        protocol: lease.via.protocol(),
        remote: lease.via.remote(),
        redirects: 0,
        reused: steps.is_none(),
        told: lease.route.as_ref().map(|r| r.told),
        early: None,
        informational: Vec::new(),
        timing,
        body: Counted::new(body, expected, pulse.clone(), meter.clone()),
        hold: Hold { key, lease },
    }
}

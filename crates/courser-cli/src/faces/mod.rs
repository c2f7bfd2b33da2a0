//! The perf protocol as a user of the blocking face or of the Tokio face writes it: a thread, or a task, for everything
//! that waits.
//!
//! ```text
//! mod       what both have in common: options, failures, one transaction seen from either end, the result
//! blocking  threads around `courser::Endpoint`
//! session   one event loop over a port of `courser::session`
//! tokio     tasks around `courser::aio::Endpoint`, on a runtime of one thread
//! ```
//!
//! Only two-way streams are served: the settings of these servers let clients open no others.

pub mod blocking;
pub mod session;
pub mod tokio;

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use courser::net::socket::SocketConfig;
use courser::{
    ClientOptions, ConnectError, ConnectionError, EndpointError, Handover, HandoverError, ReadError, Request,
    ServerOptions, SocketOptions, WriteError,
};
use courser_core::ids::StreamId;
use courser_tls::ServerConfig as TlsServer;

use crate::apps::body::{Counter, Feed, Sink};
use crate::apps::perf_server::Content;
use crate::args::common::Api;
use crate::failure::{Failure, Outcome};
use crate::job::{Job, Mode};
use crate::link::Peer;
use crate::link::drive::Dial;
use crate::link::setup::Service;
use crate::measure::{self, Latencies, Meter};
use crate::operate::Operator;
use crate::operate::upgrade::Inheritance;
use crate::pattern::Way;
use crate::perf_proto::{self, HeadReader};
use crate::report::perf::{Growth, PerfResult};
use crate::tuning::Tuning;

/// A request of at most that many bytes leaves in one write with its head.
const SHORT: u64 = 56;
/// Room for the head and a short request.
const HEAD_AND_SHORT: usize = 64;
/// How often a server that waits for clients looks whether it is to end, and a client whether connections it holds ended.
const LOOK: Duration = Duration::from_millis(100);
/// Failures of connections that wait to be told; more at once are left out.
const UNTOLD: usize = 64;

/// A server to be.
pub struct Host<'a> {
    /// Which connections it takes, and how.
    pub service: Service<'a>,
    /// What the streams carry.
    pub content: Content,
    /// Called with the bound address once clients can come.
    pub ready: &'a dyn Fn(SocketAddr),
    /// Called with failures of connections.
    pub warn: &'a dyn Fn(&Failure),
    /// Who ends it.
    pub operator: &'a Operator<'a>,
    /// A port that another process gives to this one, instead of a new one.
    pub inherited: Cell<Option<Inheritance>>,
}

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("service", &self.service).finish_non_exhaustive()
    }
}

/// Serves until the process is asked to end.
///
/// # Errors
/// The port cannot be had, or something else of the machine is missing.
pub fn serve(api: Api, host: &Host<'_>) -> Outcome {
    match api {
        Api::Tokio => tokio::serve(host),
        Api::Blocking => blocking::serve(host),
        Api::Session | Api::Direct => session::serve(host),
    }
}

/// Does a client's job.
///
/// # Errors
/// Why it was not done.
pub fn call(api: Api, dial: &Dial<'_>, tuning: &Tuning, job: &Job, content: &Content) -> Outcome<PerfResult> {
    let options = client_options(dial, tuning);
    let mut result = match api {
        Api::Tokio => tokio::call(options, dial, job, content),
        Api::Blocking => blocking::call(options, dial, job, content),
        Api::Session | Api::Direct => session::call(dial, tuning, job, content),
    }?;
    result.max_udp_payload = dial.settings.max_udp_payload;
    result.verified = matches!(content, Content::Pattern);
    Ok(result)
}

fn socket_options(tuning: &Tuning) -> SocketOptions {
    let bytes = tuning.socket_buffer;
    SocketOptions::default()
        .receive_buffer(bytes)
        .send_buffer(bytes)
        .offload(tuning.offload)
        .busy_poll(tuning.busy_poll)
}

fn server_options(service: &Service<'_>, tls: TlsServer) -> ServerOptions {
    let mut settings = service.tuning.settings.clone();
    settings.max_streams_uni = 0;
    let options = ServerOptions::new(tls)
        .settings(settings)
        .retry(service.retry)
        .sources(service.sources())
        .workers(service.workers.into())
        .steering(service.steering)
        .socket(socket_options(service.tuning));
    match &service.tuning.qlog {
        Some(qlog) => options.qlog(qlog.clone()),
        None => options,
    }
}

/// Tells the process that had the port before, if there is one, that clients can come.
type Serves = Option<Box<dyn FnOnce()>>;

/// An endpoint of a face at a port of its own, or at the one that was given to this process.
fn open<E>(
    host: &Host<'_>,
    bind: impl FnOnce(ServerOptions) -> Result<E, EndpointError>,
    take_over: impl FnOnce(Handover, ServerOptions) -> Result<E, EndpointError>,
) -> Outcome<(E, Serves)> {
    let options = server_options(&host.service, host.service.tls.clone());
    let made = match host.inherited.take() {
        None => bind(options).map(|endpoint| (endpoint, None)),
        Some(inherited) => {
            let (port, serves) = inherited.split();
            take_over(port, options).map(|endpoint| (endpoint, Some(serves)))
        }
    };
    made.map_err(|e| endpoint_failure(&e))
}

/// Says that clients can come: to the user, and to the process that had the port before.
fn announce(host: &Host<'_>, addr: SocketAddr, serves: Serves) {
    (host.ready)(addr);
    if let Some(serves) = serves {
        serves();
    }
}

/// Has an endpoint take new connections with another TLS configuration.
fn reload(
    service: &Service<'_>,
    tls: TlsServer,
    reload: impl FnOnce(&ServerOptions) -> Result<(), EndpointError>,
) -> Outcome {
    reload(&server_options(service, tls)).map_err(|e| endpoint_failure(&e))
}

fn handed(handover: Result<Handover, HandoverError>) -> Outcome<Handover> {
    handover.map_err(|e| Failure::Local { what: "giving the port away".into(), why: e.to_string() })
}

fn client_options(dial: &Dial<'_>, tuning: &Tuning) -> ClientOptions {
    let options = ClientOptions::new(dial.tls.clone()).settings(dial.settings.clone()).socket(socket_options(tuning));
    let options = match &tuning.qlog {
        Some(qlog) => options.qlog(qlog.clone()),
        None => options,
    };
    match dial.addrs {
        [only] => options.bind(SocketConfig::towards(*only).local),
        _ => options,
    }
}

/// Asks for a connection to whichever of the addresses answers first.
fn request(dial: &Dial<'_>) -> Outcome<Request> {
    let first = dial.addrs.first().copied();
    let nowhere = || Failure::NoAnswer { peer: dial.peer.name.clone(), waited: Duration::ZERO };
    Ok(Request::from(first.ok_or_else(nowhere)?).addresses(dial.addrs).server_name(dial.name))
}

fn endpoint_failure(e: &EndpointError) -> Failure {
    match e {
        EndpointError::Bind(addr, e) => Failure::from_bind(*addr, e),
        e => Failure::Local { what: "making an endpoint".into(), why: e.to_string() },
    }
}

/// Turns errors of a face into failures of the job.
#[derive(Clone, Debug)]
struct Blame {
    peer: Peer,
    /// The time that the job has.
    timeout: Duration,
}

impl Blame {
    fn of(dial: &Dial<'_>, job: &Job) -> Self {
        Self { peer: dial.peer.clone(), timeout: job.timeout }
    }

    fn late(&self) -> Failure {
        Failure::TimeOut { after: self.timeout }
    }

    /// The time was over before there was a connection.
    fn nobody(&self) -> Failure {
        Failure::NoAnswer { peer: self.peer.name.clone(), waited: self.timeout }
    }

    fn connection(&self, e: &ConnectionError) -> Failure {
        match e {
            ConnectionError::Closed(reason) => self.peer.failure(reason),
            ConnectionError::TimedOut => self.late(),
            e => Failure::Local { what: "using the connection".into(), why: e.to_string() },
        }
    }

    fn connect(&self, e: &ConnectError) -> Failure {
        match e {
            ConnectError::Failed(ConnectionError::TimedOut) => self.nobody(),
            ConnectError::Failed(e) => self.connection(e),
            ConnectError::Tls(why) => Failure::Tls { peer: self.peer.name.clone(), why: why.clone() },
            e => Failure::Local { what: "connecting".into(), why: e.to_string() },
        }
    }

    fn read(&self, id: StreamId, e: &ReadError) -> Failure {
        match e {
            ReadError::Reset(code) => Failure::PeerReset { stream: id.0, code: *code },
            ReadError::Closed(e) => self.connection(e),
            e => Failure::Local { what: "reading a stream".into(), why: e.to_string() },
        }
    }

    fn write(&self, id: StreamId, e: &WriteError) -> Failure {
        match e {
            WriteError::Stopped(code) => Failure::PeerReset { stream: id.0, code: *code },
            WriteError::Closed(e) => self.connection(e),
            e => Failure::Local { what: "writing to a stream".into(), why: e.to_string() },
        }
    }
}

/// What a client does on a stream: the head and everything after it up, then so many bytes down.
struct Ask {
    up: Feed,
    down: Sink,
    /// Goes first.
    head: Option<Bytes>,
}

impl Ask {
    fn new(content: &Content, id: StreamId, up: u64, down: u64) -> Outcome<Self> {
        let mut feed = Feed::new(&content.body(id, Way::Up), 0, up)?;
        let mut head = Vec::with_capacity(HEAD_AND_SHORT);
        head.extend_from_slice(&perf_proto::head(down));
        while up <= SHORT
            && let Some(piece) = feed.piece()?
        {
            head.extend_from_slice(&piece);
        }
        let sink = Sink::new(&content.body(id, Way::Down), Some(down), Counter::default())?;
        Ok(Self { up: feed, down: sink, head: Some(head.into()) })
    }

    /// What is written next; `None`: the end.
    fn piece(&mut self) -> Outcome<Option<Bytes>> {
        match self.head.take() {
            Some(head) => Ok(Some(head)),
            None => self.up.piece(),
        }
    }
}

/// What a server does on a stream: reads head and load to their end, then sends what the head asked for.
struct Answer {
    head: HeadReader,
    load: Sink,
}

impl Answer {
    fn new(content: &Content, id: StreamId) -> Outcome<Self> {
        let load = Sink::new(&content.body(id, Way::Up), None, Counter::default())?;
        Ok(Self { head: HeadReader::default(), load })
    }

    fn take(&mut self, id: StreamId, data: &[u8]) -> Outcome {
        let skip = self.head.take(data);
        self.load.take(id, &data[skip..])
    }

    /// The end was read. A stream that ended before its head was complete gets nothing but an end.
    fn feed(&self, content: &Content, id: StreamId) -> Outcome<Feed> {
        Feed::new(&content.body(id, Way::Down), 0, self.head.count().unwrap_or(0))
    }
}

/// How the threads or tasks of a server tell whoever waits for clients what failed.
fn failures() -> (SyncSender<Failure>, Receiver<Failure>) {
    sync_channel(UNTOLD)
}

/// What one thread or task of a client has done.
#[derive(Default)]
struct Share {
    ended: u64,
    times: Latencies,
}

impl Share {
    fn add(&mut self, mut other: Self) {
        self.ended += other.ended;
        self.times.append(&mut other.times);
    }

    fn done(&mut self, took: Duration, timed: bool) {
        self.ended += 1;
        if timed {
            self.times.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

/// Memory of both ends before connections are opened.
struct Scales {
    server_pid: Option<u32>,
    before: (Option<u64>, Option<u64>),
}

impl Scales {
    fn new(job: &Job) -> Self {
        let server_pid = job.server_pid;
        Self { server_pid, before: Self::weigh(server_pid) }
    }

    fn weigh(server_pid: Option<u32>) -> (Option<u64>, Option<u64>) {
        (server_pid.and_then(measure::rss_kb), measure::rss_kb(std::process::id()))
    }

    fn note(&self, result: &mut PerfResult) {
        let growth = |before: Option<u64>, after: Option<u64>| Some(Growth { before: before?, after: after? });
        let after = Self::weigh(self.server_pid);
        result.server = growth(self.before.0, after.0);
        result.client = growth(self.before.1, after.1);
    }
}

/// The result of a measurement that ends now.
fn result(job: &Job, meter: Meter, mut share: Share) -> PerfResult {
    let (seconds, usage) = meter.stop();
    PerfResult::new(job, share.ended, seconds, usage, &mut share.times)
}

/// How long connections are held open when all are there.
fn hold(job: &Job) -> Duration {
    if job.mode == Mode::Idle { job.hold } else { Duration::ZERO }
}

/// How long to wait before connections that are held are looked at again; `None` when `until` is there. A time too far
/// away to be counted never comes.
fn next_look(until: Option<Instant>) -> Option<Duration> {
    let left = until.map_or(LOOK, |t| t.saturating_duration_since(Instant::now()));
    (!left.is_zero()).then(|| left.min(LOOK))
}

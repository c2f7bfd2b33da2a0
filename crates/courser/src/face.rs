//! What both faces have in common: making endpoints, the handles' bookkeeping, requests for connections.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use courser_core::cid::{CidGenerator, RandomCids, ShortCids};
use courser_core::config::Settings;
use courser_core::engine::{Engine, EngineConfig, RetryPolicy, ServerConfig};
use courser_core::ids::{ConnKey, VARINT_MAX, Version};
use courser_session::handle::Handle;
use courser_tls::{self as tls, AwsLc, SystemRandom};

use crate::clock::Clock;
use crate::error::{ConnectError, ConnectionError, EndpointError};
use crate::estate::Estate;
use crate::handover::Handover;
use crate::hub::Hub;
use crate::hub::conn::{ConnSlot, Facts};
use crate::hub::crew::Crew;
use crate::hub::shared::{Command, Decision, Dial, IncomingInfo, Lobby, Shared};
use crate::net::resolve;
use crate::net::socket::Socket;
use crate::net::target::Target;
use crate::options::{ClientOptions, ServerOptions, SocketFacts, SocketOptions};
use crate::qlog::Qlog;
use crate::staff::Staff;
use crate::worker::{Crossing, TurnLimits, Worker};

/// Workers that nobody drives yet, and what their handles share with them.
pub(crate) struct Made {
    pub(crate) workers: Vec<Worker<Hub>>,
    pub(crate) crew: Arc<Crew>,
}

/// Binds a client's socket and makes its worker.
pub(crate) fn client(options: &ClientOptions) -> Result<Made, EndpointError> {
    options.settings.validate().map_err(EndpointError::Settings)?;
    let (socket, clock) = (bind(&options.bind_candidates(), &options.socket)?, Clock::start());
    let mut config = engine_config(options.qlog.as_ref(), clock);
    config.cids = client_cids(options.connection_ids);
    let engine = Engine::new(config);
    make(vec![(engine, socket, None)], clock, options.linger, None)
}

/// What connection IDs an endpoint has that takes no connections: short ones, or none.
pub(crate) fn client_cids(some: bool) -> Box<dyn CidGenerator> {
    if some { Box::new(ShortCids::default()) } else { Box::new(RandomCids::new(0)) }
}

/// A socket at the first of the addresses that can be had.
pub(crate) fn bind(candidates: &[SocketAddr], options: &SocketOptions) -> Result<Socket, EndpointError> {
    let mut last = None;
    for local in candidates {
        match Socket::bind(&options.at(*local)) {
            Ok(socket) => return Ok(socket),
            Err(e) => last = Some((*local, e)),
        }
    }
    let (local, e) = last.unwrap_or_else(|| {
        ((std::net::Ipv4Addr::UNSPECIFIED, 0).into(), std::io::Error::other("there is no address to bind"))
    });
    Err(EndpointError::Bind(local, e))
}

/// Binds a server's sockets and makes its workers.
pub(crate) fn server(local: SocketAddr, options: &ServerOptions) -> Result<Made, EndpointError> {
    employ(Staff::bind(local, options)?, options)
}

/// Makes a server's workers around a socket that is bound.
pub(crate) fn server_on(socket: UdpSocket, options: &ServerOptions) -> Result<Made, EndpointError> {
    employ(Staff::on(socket, options)?, options)
}

/// Takes a server's sockets over from another process and makes the workers.
pub(crate) fn successor(handover: Handover, options: &ServerOptions) -> Result<Made, EndpointError> {
    employ(Staff::adopt(handover, options)?, options)
}

fn employ(mut staff: Staff, options: &ServerOptions) -> Result<Made, EndpointError> {
    let estate = staff.estate().map_err(EndpointError::Worker)?;
    let (clock, engines) = (staff.clock, staff.engines(options));
    make(engines, clock, options.linger, Some(estate))
}

/// Binds another socket for a client's worker, whose connections go on from there.
pub(crate) fn rebind(shared: &Shared, options: Option<&ClientOptions>, local: SocketAddr) -> Result<(), EndpointError> {
    let Some(options) = options else {
        let why = "an endpoint that takes connections stays where its clients find it";
        return Err(EndpointError::Bind(local, std::io::Error::new(std::io::ErrorKind::Unsupported, why)));
    };
    shared.command(Command::Rebind(Box::new(bind(&[local], &options.socket)?)));
    Ok(())
}

/// A server's part of one of `workers` engines; its applications decide over each connection. Limits are shared out.
pub(crate) fn server_config(options: &ServerOptions, workers: usize) -> ServerConfig {
    let mut server = ServerConfig::new(Box::new(options.tls.clone()), options.settings.clone());
    server.retry = match options.retry {
        RetryPolicy::Above(handshakes) => RetryPolicy::Above(handshakes / workers.max(1)),
        other => other,
    };
    server.handshakes_max = options.handshakes_max.div_ceil(workers.max(1));
    server.minis_max = options.minis_max.div_ceil(workers.max(1));
    server.sources = options.sources;
    server.ask = options.ask;
    server
}

/// An engine whose connections are traced when there is a place for that; `clock` is the one that drives it.
pub(crate) fn engine_config(qlog: Option<&Qlog>, clock: Clock) -> EngineConfig {
    let mut config = EngineConfig::new(Box::new(AwsLc), Box::new(SystemRandom::new()));
    config.unix_time_at_zero = clock.unix_time_at_zero();
    config.observer = qlog.map(|q| q.observer(clock));
    config
}

/// What runs a worker: its engine, its socket, and its place among others if there are any.
type Post = (Engine, Socket, Option<Crossing>);

fn make(posts: Vec<Post>, clock: Clock, linger: Duration, estate: Option<Estate>) -> Result<Made, EndpointError> {
    let lobby = Arc::new(Lobby::new(posts.len()));
    let (mut workers, mut shareds) = (Vec::new(), Vec::new());
    for (number, (engine, socket, place)) in (0..).zip(posts) {
        let at = (number, &lobby);
        let shared = Arc::new(Shared::new(socket.local_addr(), SocketFacts::of(&socket), linger, at));
        let hub = Hub::new(engine, Arc::clone(&shared));
        let worker = Worker::new(hub, socket, clock, TurnLimits::default()).map_err(EndpointError::Worker)?;
        shared.set_waker(worker.waker());
        workers.push(match place {
            Some(place) => worker.at(place),
            None => worker,
        });
        shareds.push(shared);
    }
    Ok(Made { workers, crew: Arc::new(Crew::new(shareds, lobby, estate)) })
}

/// A connection to be made: whom to, under which name, with what differs from the endpoint's options.
#[derive(Clone, Debug)]
pub struct Request {
    target: Target,
    addrs: Option<Vec<SocketAddr>>,
    server_name: Option<String>,
    tls: Option<tls::ClientConfig>,
    settings: Option<Settings>,
    early: bool,
}

impl Request {
    /// To this host, which also is the name that its certificate must have.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self { target, addrs: None, server_name: None, tls: None, settings: None, early: false }
    }

    /// To the host of an address in text form: `HOST:PORT` or `quic://HOST:PORT`.
    ///
    /// # Errors
    /// [`ConnectError::Target`].
    pub fn parse(target: &str) -> Result<Self, ConnectError> {
        Ok(Self::new(target.parse()?))
    }

    /// The name that the certificate must have.
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        self.server_name = Some(name.to_owned());
        self
    }

    /// Another TLS configuration than the endpoint's.
    #[must_use]
    pub fn tls(mut self, tls: tls::ClientConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Other settings than the endpoint's.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = Some(settings);
        self
    }

    /// Gives the connection at once when a ticket allows 0-RTT (the TLS configuration has to allow it too), so that what is
    /// written leaves with the first packet; without such a ticket nothing changes. Such data may be replayed by an attacker
    /// (RFC 9001 section 9.2): write only what does no harm when it is done twice, and wait for
    /// `Connection::established` before the rest. What the server does not take is sent again by itself.
    #[must_use]
    pub const fn early_data(mut self) -> Self {
        self.early = true;
        self
    }

    /// These addresses instead of the resolver's answer, in the order in which to try them.
    #[must_use]
    pub fn addresses(mut self, addrs: &[SocketAddr]) -> Self {
        self.addrs = Some(resolve::race_order(addrs));
        self
    }

    /// The addresses; may block on the resolver.
    pub(crate) fn resolve(&self, patience: Duration) -> Result<Vec<SocketAddr>, ConnectError> {
        match &self.addrs {
            Some(addrs) => Ok(addrs.clone()),
            None => resolve::resolve(&self.target, patience)
                .map_err(|e| ConnectError::Resolve(e.kind(), format!("{}: {e}", self.target))),
        }
    }

    /// Whether [`resolve`](Self::resolve) may block.
    #[cfg(feature = "tokio")]
    pub(crate) fn needs_resolver(&self) -> bool {
        self.addrs.is_none() && self.target.address().is_none()
    }

    /// Begins the race.
    pub(crate) fn dial(
        self,
        shared: &Arc<Shared>,
        options: &ClientOptions,
        addrs: Vec<SocketAddr>,
    ) -> Result<ConnRef, ConnectError> {
        let settings = self.settings.unwrap_or_else(|| options.settings.clone());
        settings.validate().map_err(ConnectError::Settings)?;
        if shared.is_gone() {
            return Err(ConnectionError::EndpointGone.into());
        }
        let server_name = self.server_name.unwrap_or_else(|| self.target.host.server_name());
        let conn = ConnRef(ConnSlot::new(shared, self.early.then(|| server_name.as_str().into())));
        let dial = Dial {
            slot: Arc::clone(&conn.0),
            addrs: VecDeque::from(addrs),
            tokens: options.tokens.of(&server_name, self.target.port),
            server_name,
            span: tracing::Span::current(),
            tls: self.tls.unwrap_or_else(|| options.tls.clone()),
            settings,
            attempt_delay: options.attempt_delay,
        };
        if !shared.command(Command::Dial(Box::new(dial))) {
            let gone = shared.is_gone();
            return Err(if gone { ConnectionError::EndpointGone.into() } else { ConnectError::TooMany });
        }
        Ok(conn)
    }
}

impl From<SocketAddr> for Request {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr.into())
    }
}

/// A counted handle of a connection.
pub(crate) struct ConnRef(pub(crate) Arc<ConnSlot>);

impl ConnRef {
    /// What is known since the handshake; handles are given out only behind it.
    pub(crate) fn facts(&self) -> Option<&Facts> {
        self.0.facts()
    }

    pub(crate) fn version(&self) -> Version {
        self.facts().map_or(Version::V1, |f| f.version)
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.0.remote().unwrap_or((std::net::Ipv4Addr::UNSPECIFIED, 0).into())
    }

    pub(crate) fn certificates(&self) -> &[Vec<u8>] {
        self.facts().map_or(&[], |f| &f.identity.certificates)
    }

    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        self.facts().and_then(|f| f.identity.alpn.as_deref())
    }

    pub(crate) fn server_name(&self) -> Option<&str> {
        self.facts().and_then(|f| f.identity.server_name.as_deref())
    }

    pub(crate) fn handle(&self) -> Option<Handle> {
        self.0.handle()
    }

    pub(crate) fn close(&self, code: u64, reason: &[u8]) {
        self.0.close(code.min(VARINT_MAX), reason);
    }
}

impl Clone for ConnRef {
    fn clone(&self) -> Self {
        self.0.add_handle();
        Self(Arc::clone(&self.0))
    }
}

impl Drop for ConnRef {
    fn drop(&mut self) {
        self.0.drop_handle();
    }
}

/// A connection that waits for a decision; refused when dropped.
pub(crate) struct Waiting {
    shared: Arc<Shared>,
    key: Option<ConnKey>,
    pub(crate) info: IncomingInfo,
}

impl Waiting {
    pub(crate) fn new(shared: &Arc<Shared>, key: ConnKey, info: IncomingInfo) -> Self {
        Self { shared: Arc::clone(shared), key: Some(key), info }
    }

    pub(crate) fn accept(mut self, settings: Option<Settings>, early: bool) -> Result<ConnRef, ConnectError> {
        if let Some(settings) = &settings {
            settings.validate().map_err(ConnectError::Settings)?;
        }
        if self.shared.is_gone() {
            return Err(ConnectionError::EndpointGone.into());
        }
        let conn = ConnRef(ConnSlot::new(&self.shared, early.then(Box::default)));
        if let Some(key) = self.key.take() {
            let (slot, settings) = (Arc::clone(&conn.0), settings.map(Box::new));
            if !self.shared.command(Command::Accept { key, slot, settings }) {
                return Err(ConnectionError::EndpointGone.into());
            }
        }
        Ok(conn)
    }

    pub(crate) fn decide(mut self, decision: Decision) {
        self.send(decision);
    }

    fn send(&mut self, decision: Decision) {
        if let Some(key) = self.key.take() {
            self.shared.command(Command::Decide { key, decision });
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.send(Decision::Refuse);
    }
}

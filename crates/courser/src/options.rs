//! What endpoints are made with; both faces share these.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use courser_core::config::Settings;
use courser_core::engine::{RetryPolicy, SourceLimits, TokenKeys, UNPROVEN_MAX};
use courser_tls as tls;

use crate::address_tokens::TokenStore;
use crate::net::adapter::Offload;
use crate::net::socket::{BufferSize, Socket, SocketConfig};
use crate::qlog::Qlog;
use crate::worker::group::Steering;

/// How an endpoint's socket is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Wanted receive buffer in bytes: what may arrive while the worker does something else. The system may give less;
    /// `Endpoint::socket` of both faces tells.
    pub receive_buffer: usize,
    /// Wanted send buffer in bytes: what may wait for the network. The system may give less.
    pub send_buffer: usize,
    /// Whether datagrams may leave in trains that the system cuts apart (segmentation offload), where it can. Off, each
    /// costs a system call; some virtual networks want that. What comes in is taken as the system gives it either way.
    pub offload: bool,
    /// How long a worker looks for the next datagram before it sleeps, while they come that close together (50 µs by
    /// default; an idle worker sleeps at once). Zero sleeps always: less processor time where datagrams come tens of
    /// microseconds apart, for round trips that are several times as long.
    pub busy_poll: Duration,
    /// Whether a socket at `[::]` takes IPv4 too, where the system has such sockets. Off, `0.0.0.0` of the same port can be
    /// had beside it. A socket that the caller gives stays as it is.
    pub dual_stack: bool,
}

impl Default for SocketOptions {
    /// Buffers of 4 MiB, with offload, 50 µs of looking before sleep, and both address families.
    fn default() -> Self {
        let usual = SocketConfig::new((Ipv4Addr::UNSPECIFIED, 0).into());
        Self {
            receive_buffer: usual.receive_buffer,
            send_buffer: usual.send_buffer,
            offload: usual.offload,
            busy_poll: usual.busy_poll,
            dual_stack: usual.dual_stack,
        }
    }
}

impl SocketOptions {
    /// The same with this receive buffer.
    #[must_use]
    pub const fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = bytes;
        self
    }

    /// The same with this send buffer.
    #[must_use]
    pub const fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = bytes;
        self
    }

    /// The same with or without segmentation offload.
    #[must_use]
    pub const fn offload(mut self, offload: bool) -> Self {
        self.offload = offload;
        self
    }

    /// The same with so much looking before sleep; zero for none.
    #[must_use]
    pub const fn busy_poll(mut self, look: Duration) -> Self {
        self.busy_poll = look;
        self
    }

    /// The same with or without IPv4 at `[::]`.
    #[must_use]
    pub const fn dual_stack(mut self, both: bool) -> Self {
        self.dual_stack = both;
        self
    }

    /// A socket at `local`.
    pub(crate) const fn at(&self, local: SocketAddr) -> SocketConfig {
        let mut config = SocketConfig::new(local);
        config.receive_buffer = self.receive_buffer;
        config.send_buffer = self.send_buffer;
        config.offload = self.offload;
        config.busy_poll = self.busy_poll;
        config.dual_stack = self.dual_stack;
        config
    }
}

/// What an endpoint's socket got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketFacts {
    /// Wanted and achieved receive buffer.
    pub receive_buffer: BufferSize,
    /// Wanted and achieved send buffer.
    pub send_buffer: BufferSize,
    /// What one system call carried when the endpoint was made.
    pub offload: Offload,
}

impl SocketFacts {
    pub(crate) fn of(socket: &Socket) -> Self {
        Self { receive_buffer: socket.receive_buffer(), send_buffer: socket.send_buffer(), offload: socket.offload() }
    }
}

/// For endpoints that make connections, and for single connections that differ from the endpoint's others.
///
/// Trust is part of the TLS configuration: [`tls::ClientBuilder::platform_roots`], [`tls::ClientBuilder::roots`], or the
/// explicitly named [`tls::ClientBuilder::danger_accept_any_certificate`]; [`tls::ClientConfig::from_rustls`] takes one's
/// own rustls configuration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Trust, application protocols, certificates.
    pub tls: tls::ClientConfig,
    /// Transport settings.
    pub settings: Settings,
    /// Where to bind the socket; `None`: any port, both address families where the system can.
    pub local: Option<SocketAddr>,
    /// Buffers and offload of the socket.
    pub socket: SocketOptions,
    /// How long a name may take to resolve.
    pub resolve_timeout: Duration,
    /// After this time without an answer the next address is tried too (RFC 8305 section 5).
    pub attempt_delay: Duration,
    /// How long a connection whose handles are all dropped goes on for the sake of finished streams that the peer does not
    /// have yet.
    pub linger: Duration,
    /// Where traces of connections go; `None`: there are none, and they cost nothing.
    pub qlog: Option<Qlog>,
    /// Tokens by which servers know an address again, so that they need no Retry; kept and used by itself.
    pub tokens: TokenStore,
    /// Whether connections have IDs of their own, by which what servers send finds them. Without them each datagram that
    /// comes back is 3 bytes shorter; see [`without_connection_ids`](Self::without_connection_ids). Only endpoints that take
    /// no connections look at it.
    pub connection_ids: bool,
}

impl ClientOptions {
    /// Defaults with this TLS configuration.
    #[must_use]
    pub fn new(tls: tls::ClientConfig) -> Self {
        Self {
            tls,
            settings: Settings::default(),
            local: None,
            socket: SocketOptions::default(),
            resolve_timeout: Duration::from_secs(10),
            attempt_delay: crate::net::resolve::ATTEMPT_DELAY,
            linger: LINGER,
            qlog: None,
            tokens: TokenStore::new(),
            connection_ids: true,
        }
    }

    /// The same for connections without IDs of their own, which an endpoint tells apart by the address of the server (RFC 9000
    /// section 5.1). A download has 3 bytes more of each datagram, 0.2 %.
    ///
    /// There is one connection to each address of a server at a time then, and for a moment (three probe timeouts) after it was
    /// closed: another one ends before it begins, with an error that says so. Servers follow to another socket or address as
    /// before; who watches the network sees that it is the same connection by less than before, for it has no ID that changes.
    #[must_use]
    pub const fn without_connection_ids(mut self) -> Self {
        self.connection_ids = false;
        self
    }

    /// The same with this store of address tokens.
    #[must_use]
    pub fn tokens(mut self, tokens: TokenStore) -> Self {
        self.tokens = tokens;
        self
    }

    /// The same with these settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The same with traces.
    #[must_use]
    pub fn qlog(mut self, qlog: Qlog) -> Self {
        self.qlog = Some(qlog);
        self
    }

    /// The same, bound to this address.
    #[must_use]
    pub const fn bind(mut self, local: SocketAddr) -> Self {
        self.local = Some(local);
        self
    }

    /// The same with this kind of socket.
    #[must_use]
    pub const fn socket(mut self, socket: SocketOptions) -> Self {
        self.socket = socket;
        self
    }

    /// Where to try to bind, best first.
    pub(crate) fn bind_candidates(&self) -> Vec<SocketAddr> {
        match self.local {
            Some(local) => vec![local],
            None => vec![(Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::UNSPECIFIED, 0).into()],
        }
    }
}

/// How long connections without handles go on by default.
const LINGER: Duration = Duration::from_secs(10);

/// For endpoints that take connections.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Certificates and application protocols.
    pub tls: tls::ServerConfig,
    /// Transport settings, unless a connection is accepted with others.
    pub settings: Settings,
    /// Buffers and offload of the socket.
    pub socket: SocketOptions,
    /// When clients have to prove their address before the application hears of them.
    pub retry: RetryPolicy,
    /// Keys of address tokens. Servers of one service that share them take each other's tokens, also over restarts;
    /// `None`: one drawn at random.
    pub token_keys: Option<TokenKeys>,
    /// Handshakes under way at once, waiting for a decision included; further ones are dropped.
    pub handshakes_max: usize,
    /// Clients at once that have not sent all of what they begin with; when there are more, the oldest goes.
    pub minis_max: usize,
    /// What each address, or network of IPv6, may leave unfinished before its clients have to prove their address, and before
    /// they are not heard; `None`: as much as it likes.
    pub sources: Option<SourceLimits>,
    /// As in [`ClientOptions::linger`].
    pub linger: Duration,
    /// For connections that this endpoint makes itself; `None`: it makes none.
    pub client: Option<ClientOptions>,
    /// As in [`ClientOptions::qlog`]; for all connections of the endpoint.
    pub qlog: Option<Qlog>,
    /// How many workers take connections, each with an engine in a thread or task of its own; 0: as many as can run at once.
    /// Limits of the endpoint are shared out among them.
    pub workers: usize,
    /// How datagrams find their worker, as far as the system has that.
    pub steering: Steering,
    /// Key of stateless reset tokens: with the same one after a restart peers notice at once that their connections are
    /// gone. `None`: one drawn at random.
    pub reset_key: Option<[u8; 32]>,
    /// Whether the application decides about each connection before its handshake goes on; otherwise every one is taken at once,
    /// and can be closed. True unless said.
    pub ask: bool,
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tls, settings, socket, retry, token_keys, handshakes_max, minis_max, .. } = self;
        let Self { sources, linger, client, qlog, workers, steering, reset_key, ask, .. } = self;
        let mut f = f.debug_struct("ServerOptions");
        f.field("tls", tls).field("settings", settings).field("socket", socket).field("retry", retry);
        f.field("token_keys", token_keys).field("handshakes_max", handshakes_max).field("minis_max", minis_max);
        f.field("sources", sources).field("linger", linger).field("client", client).field("qlog", qlog);
        f.field("workers", workers).field("steering", steering).field("ask", ask);
        // With it anybody could end the connections of this server.
        f.field("reset_key", &reset_key.map(|_| "..")).finish()
    }
}

impl ServerOptions {
    /// Defaults with this TLS configuration.
    #[must_use]
    pub fn new(tls: tls::ServerConfig) -> Self {
        Self {
            tls,
            settings: Settings::default(),
            socket: SocketOptions::default(),
            retry: RetryPolicy::Above(UNPROVEN_MAX),
            token_keys: None,
            handshakes_max: 10_000,
            minis_max: 4_096,
            sources: Some(SourceLimits::default()),
            linger: LINGER,
            client: None,
            qlog: None,
            workers: 1,
            steering: Steering::default(),
            reset_key: None,
            ask: true,
        }
    }

    /// Whether the application decides about each connection before its handshake goes on.
    #[must_use]
    pub const fn ask(mut self, ask: bool) -> Self {
        self.ask = ask;
        self
    }

    /// The same with so many workers; 0: as many as can run at once.
    #[must_use]
    pub const fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// The same with this way of steering.
    #[must_use]
    pub const fn steering(mut self, steering: Steering) -> Self {
        self.steering = steering;
        self
    }

    /// The same with this key of stateless reset tokens.
    #[must_use]
    pub const fn reset_key(mut self, key: [u8; 32]) -> Self {
        self.reset_key = Some(key);
        self
    }

    /// The same with these settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The same with this kind of socket.
    #[must_use]
    pub const fn socket(mut self, socket: SocketOptions) -> Self {
        self.socket = socket;
        self
    }

    /// The same with traces.
    #[must_use]
    pub fn qlog(mut self, qlog: Qlog) -> Self {
        self.qlog = Some(qlog);
        self
    }

    /// The same with this policy of asking for a proof of address.
    #[must_use]
    pub const fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// The same with these limits for each source.
    #[must_use]
    pub const fn sources(mut self, limits: Option<SourceLimits>) -> Self {
        self.sources = limits;
        self
    }

    /// The same with these keys of address tokens.
    #[must_use]
    pub fn token_keys(mut self, keys: TokenKeys) -> Self {
        self.token_keys = Some(keys);
        self
    }
}

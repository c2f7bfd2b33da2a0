//! Endpoints: a port and its workers.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use courser_core::config::Settings;
use courser_core::engine::EngineStats;
use tokio::runtime::Handle as Runtime;

use super::{Connecting, Connection};
use crate::error::{ConnectError, ConnectionError, EndpointError, HandoverError};
use crate::face::{self, Made, Request, Waiting};
use crate::handover::Handover;
use crate::hub::crew::{Crew, WorkerFigures};
use crate::hub::shared::Decision;
use crate::options::{ClientOptions, ServerOptions, SocketFacts};

/// A port with workers in tasks, one unless [`ServerOptions::workers`] says otherwise. Clones share them; when the last is
/// dropped all connections are closed.
pub struct Endpoint {
    crew: Arc<Crew>,
    /// How connections are made.
    client: Option<Arc<ClientOptions>>,
    /// Whether connections are taken too.
    takes: bool,
}

impl Endpoint {
    /// An endpoint that makes connections. Its worker runs in the runtime of the caller.
    ///
    /// # Errors
    /// See [`EndpointError`]; [`EndpointError::Worker`] outside a runtime.
    pub fn client(options: ClientOptions) -> Result<Self, EndpointError> {
        Self::start(face::client(&options)?, Some(options), false)
    }

    /// An endpoint that takes connections at `local`; port 0 lets the system choose. Its worker runs in the runtime of the
    /// caller.
    ///
    /// # Errors
    /// See [`EndpointError`]; [`EndpointError::Worker`] outside a runtime.
    pub fn server(local: SocketAddr, options: ServerOptions) -> Result<Self, EndpointError> {
        Self::start(face::server(local, &options)?, options.client, true)
    }

    /// An endpoint that takes connections at a UDP socket that is bound already: by a service manager, say, or with options
    /// of the caller's. Further workers bind sockets of their own beside it where they may (the same user, a system that
    /// shares ports); where not, the first worker reads for all. The socket must not be read by anybody else meanwhile.
    /// Its workers run in the runtime of the caller.
    ///
    /// # Errors
    /// See [`EndpointError`]; [`EndpointError::Bind`] for a socket that is not bound, or connected, or not of UDP.
    pub fn server_on(socket: UdpSocket, options: ServerOptions) -> Result<Self, EndpointError> {
        Self::start(face::server_on(socket, &options)?, options.client, true)
    }

    /// An endpoint that goes on where another one hands its port over; see [`Handover`]. There are as many workers as there
    /// were, in the runtime of the caller, and [`ServerOptions::reset_key`] is the other one's.
    ///
    /// # Errors
    /// See [`EndpointError`]; the other endpoint has the port again then.
    pub fn take_over(handover: Handover, options: ServerOptions) -> Result<Self, EndpointError> {
        Self::start(face::successor(handover, &options)?, options.client, true)
    }

    fn start(made: Made, client: Option<ClientOptions>, takes: bool) -> Result<Self, EndpointError> {
        let runtime = Runtime::try_current().map_err(|e| EndpointError::Worker(std::io::Error::other(e)))?;
        let Made { workers, crew } = made;
        for mut worker in workers {
            runtime.spawn(async move {
                // When the socket fails, or the runtime ends, the hub goes with the worker and tells everybody who waits.
                let _ = worker
                    .drive(&mut |hub, _| {
                        if hub.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    })
                    .await;
            });
        }
        Ok(Self { crew, client: client.map(Arc::new), takes })
    }

    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.crew.local()
    }

    /// The buffers that the socket got, and what it carries with one system call.
    #[must_use]
    pub fn socket(&self) -> SocketFacts {
        self.crew.first().socket
    }

    /// Moves to a socket of its own at another address: all connections go on from there, with connection IDs that were not
    /// used before, as soon as the worker takes its next turn. Port 0 lets the system choose. For when the network changed,
    /// or a connection should no longer be linked to the old address. What is on its way to the old address is lost and sent
    /// again. Connections whose server does not allow migration end.
    ///
    /// # Errors
    /// [`EndpointError::Bind`] when the address cannot be had, or the endpoint takes connections; nothing changes then.
    pub fn rebind(&self, local: SocketAddr) -> Result<(), EndpointError> {
        face::rebind(self.crew.first(), self.client.as_deref().filter(|_| !self.takes), local)
    }

    /// Connects to `HOST:PORT` or `quic://HOST:PORT`; the host is the name that the certificate must have. All addresses of
    /// a name are raced.
    ///
    /// # Errors
    /// [`ConnectError::Target`], [`ConnectError::NoClient`]; what comes later, the future tells.
    pub fn connect(&self, target: &str) -> Result<Connecting, ConnectError> {
        self.connect_with(Request::parse(target)?)
    }

    /// Connects to an address; the certificate must be for `server_name`.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub fn connect_to(&self, addr: SocketAddr, server_name: &str) -> Result<Connecting, ConnectError> {
        self.connect_with(Request::from(addr).server_name(server_name))
    }

    /// Connects with options of its own.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect), and for settings that cannot be.
    pub fn connect_with(&self, request: Request) -> Result<Connecting, ConnectError> {
        let options = self.client.as_ref().ok_or(ConnectError::NoClient)?;
        if !request.needs_resolver() {
            let addrs = request.resolve(options.resolve_timeout)?;
            return Ok(Connecting::dialled(request.dial(self.crew.dialler(), options, addrs)?));
        }
        let (shared, options) = (Arc::clone(self.crew.dialler()), Arc::clone(options));
        Ok(Connecting::resolving(async move {
            let asked = request.clone();
            let patience = options.resolve_timeout;
            // The system's resolver blocks; it gets a thread that may.
            let addrs = tokio::task::spawn_blocking(move || asked.resolve(patience))
                .await
                .map_err(|e| ConnectError::Resolve(std::io::ErrorKind::Other, e.to_string()))??;
            request.dial(&shared, &options, addrs)
        }))
    }

    /// The next connection that somebody wants to make here, to be decided over. Cancel-safe.
    ///
    /// # Errors
    /// [`ConnectionError::EndpointGone`].
    pub async fn accept(&self) -> Result<Incoming, ConnectionError> {
        let (worker, key, info) = poll_fn(|cx| self.crew.poll_incoming(cx)).await?;
        Ok(Incoming { waiting: Waiting::new(&worker, key, info) })
    }

    /// The next connection; every client is let in. Connections whose handshake fails are left out. A server calls
    /// [`accept`](Self::accept) and goes on in a task per connection; this is for few connections.
    ///
    /// # Errors
    /// [`ConnectionError::EndpointGone`].
    pub async fn accept_connection(&self) -> Result<Connection, ConnectionError> {
        loop {
            let Ok(connecting) = self.accept().await?.accept() else { return Err(ConnectionError::EndpointGone) };
            if let Ok(connection) = connecting.await {
                return Ok(connection);
            }
        }
    }

    /// Waits until no connection is left. Cancel-safe.
    pub async fn wait_idle(&self) {
        poll_fn(|cx| self.crew.poll_idle(cx)).await;
    }

    /// Takes no new connections any more and waits until those that there are have ended, at most for that long; then all
    /// are closed with code 0. Calls that wait in [`accept`](Self::accept) come back with
    /// [`ConnectionError::EndpointGone`] when nobody is left to be let in. Dropped, it has only stopped new ones.
    ///
    /// # Errors
    /// [`ConnectionError::TimedOut`] when some had to be closed.
    pub async fn drain(&self, limit: Duration) -> Result<(), ConnectionError> {
        self.crew.drain();
        if tokio::time::timeout(limit, self.wait_idle()).await.is_ok() {
            return Ok(());
        }
        self.crew.close_all();
        Err(ConnectionError::TimedOut)
    }

    /// From now on connections are taken by these options: certificates, application protocols, settings, retry, keys of
    /// tokens, the number of handshakes. Connections that there are go on as they began; what belongs to sockets and workers
    /// stays.
    ///
    /// # Errors
    /// [`EndpointError::Settings`]; nothing changes then. An endpoint that takes no connections does not begin to.
    pub fn reload(&self, options: &ServerOptions) -> Result<(), EndpointError> {
        self.crew.reload(options)
    }

    /// Gives the port to another endpoint, here or in another process; see [`Handover`]. This one keeps its connections, and
    /// takes no new ones unless the handover is dropped or the other one ends. The same is true when this future is dropped.
    ///
    /// # Errors
    /// See [`HandoverError`].
    pub async fn hand_over(&self) -> Result<Handover, HandoverError> {
        let mut handing = self.crew.begin_handing()?;
        poll_fn(|cx| handing.poll(cx)).await
    }

    /// Counters of the engines of all workers together, as of their last turns.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        self.crew.stats()
    }

    /// Figures of each worker, as of its last turn.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerFigures> {
        self.crew.figures()
    }
}

impl Clone for Endpoint {
    fn clone(&self) -> Self {
        self.crew.add_endpoint();
        Self { crew: Arc::clone(&self.crew), client: self.client.clone(), takes: self.takes }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.crew.drop_endpoint();
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("local", &self.local_addr()).finish_non_exhaustive()
    }
}

/// A connection that a client wants to make. Dropped, it is refused.
pub struct Incoming {
    waiting: Waiting,
}

impl Incoming {
    /// The client's address.
    #[must_use]
    pub const fn remote_address(&self) -> SocketAddr {
        self.waiting.info.remote
    }

    /// The address of ours that it talks to, when the system tells.
    #[must_use]
    pub const fn local_ip(&self) -> Option<IpAddr> {
        self.waiting.info.local
    }

    /// Whether the client proved that it receives at its address; otherwise [`retry`](Self::retry) asks it to.
    #[must_use]
    pub const fn is_validated(&self) -> bool {
        self.waiting.info.validated
    }

    /// Lets the client in; the future waits for its handshake.
    ///
    /// # Errors
    /// [`ConnectionError::EndpointGone`]; what comes later, the future tells.
    pub fn accept(self) -> Result<Connecting, ConnectError> {
        Ok(Connecting::dialled(self.waiting.accept(None, false)?))
    }

    /// The same with settings of its own.
    ///
    /// # Errors
    /// As for [`accept`](Self::accept), and for settings that cannot be.
    pub fn accept_with(self, settings: Settings) -> Result<Connecting, ConnectError> {
        Ok(Connecting::dialled(self.waiting.accept(Some(settings), false)?))
    }

    /// The same, given as soon as the client's 0-RTT can be read, when it sent any: what comes on streams whose
    /// `RecvStream::is_early` says so may be a replay (RFC 9001 section 9.2), and the client's certificates are not known
    /// yet. The TLS configuration has to allow 0-RTT.
    ///
    /// # Errors
    /// As for [`accept`](Self::accept).
    pub fn accept_early(self) -> Result<Connecting, ConnectError> {
        Ok(Connecting::dialled(self.waiting.accept(None, true)?))
    }

    /// Tells the client that it is not wanted.
    pub fn refuse(self) {
        self.waiting.decide(Decision::Refuse);
    }

    /// Asks the client to prove its address; it comes again then. A client that has proven it is refused.
    pub fn retry(self) {
        self.waiting.decide(Decision::Retry);
    }

    /// Says nothing at all.
    pub fn ignore(self) {
        self.waiting.decide(Decision::Ignore);
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("remote", &self.remote_address()).finish_non_exhaustive()
    }
}

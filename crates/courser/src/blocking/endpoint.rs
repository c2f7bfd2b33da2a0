//! Endpoints: a port and its workers.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::Mutex;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use courser_core::config::Settings;
use courser_core::engine::EngineStats;

use super::Connection;
use crate::error::{ConnectError, ConnectionError, EndpointError, HandoverError};
use crate::face::{self, ConnRef, Made, Request, Waiting};
use crate::handover::Handover;
use crate::hub::crew::{Crew, WorkerFigures};
use crate::hub::shared::Decision;
use crate::options::{ClientOptions, ServerOptions, SocketFacts};
use crate::session::look_time;
use crate::wait::{block, lock};
use std::ops::ControlFlow;

/// A port with workers in threads of their own, one unless [`ServerOptions::workers`] says otherwise. Clones share them; when
/// the last is dropped all connections are closed.
pub struct Endpoint {
    inner: Arc<Inner>,
    timeout: Option<Duration>,
}

struct Inner {
    crew: Arc<Crew>,
    /// How connections are made.
    client: Option<ClientOptions>,
    /// Whether connections are taken too.
    takes: bool,
    /// Joined when the last handle goes, so that the socket is free then.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Endpoint {
    /// An endpoint that makes connections.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn client(options: ClientOptions) -> Result<Self, EndpointError> {
        Self::start(face::client(&options)?, Some(options), false)
    }

    /// An endpoint that takes connections at `local`; port 0 lets the system choose.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn server(local: SocketAddr, options: ServerOptions) -> Result<Self, EndpointError> {
        Self::start(face::server(local, &options)?, options.client, true)
    }

    /// An endpoint that takes connections at a UDP socket that is bound already: by a service manager, say, or with options
    /// of the caller's. Further workers bind sockets of their own beside it where they may (the same user, a system that
    /// shares ports); where not, the first worker reads for all. The socket must not be read by anybody else meanwhile.
    ///
    /// # Errors
    /// See [`EndpointError`]; [`EndpointError::Bind`] for a socket that is not bound, or connected, or not of UDP.
    pub fn server_on(socket: UdpSocket, options: ServerOptions) -> Result<Self, EndpointError> {
        Self::start(face::server_on(socket, &options)?, options.client, true)
    }

    /// An endpoint that goes on where another one hands its port over; see [`Handover`]. There are as many workers as there
    /// were, and [`ServerOptions::reset_key`] is the other one's.
    ///
    /// # Errors
    /// See [`EndpointError`]; the other endpoint has the port again then.
    pub fn take_over(handover: Handover, options: ServerOptions) -> Result<Self, EndpointError> {
        Self::start(face::successor(handover, &options)?, options.client, true)
    }

    fn start(made: Made, client: Option<ClientOptions>, takes: bool) -> Result<Self, EndpointError> {
        let Made { workers, crew } = made;
        // From here on an early return stops the threads that there are.
        let endpoint =
            Self { inner: Arc::new(Inner { crew, client, takes, threads: Mutex::default() }), timeout: None };
        let many = workers.len() > 1;
        for (number, mut worker) in workers.into_iter().enumerate() {
            let name = if many { format!("courser-worker-{number}") } else { "courser-worker".into() };
            let thread = thread::Builder::new()
                .name(name)
                .spawn(move || {
                    let shares_processor = look_time().is_zero();
                    // When the socket fails the hub goes with the worker, and tells everybody who waits.
                    let _ = worker.run(&mut |hub, _| {
                        if hub.take_rang() && shares_processor {
                            // Those who were woken have their say before anything is sent: their answers leave together
                            // with the acknowledgements, and they need not wake the worker.
                            thread::yield_now();
                        }
                        if hub.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    });
                })
                .map_err(EndpointError::Worker)?;
            lock(&endpoint.inner.threads).push(thread);
        }
        Ok(endpoint)
    }

    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.crew.local()
    }

    /// The buffers that the socket got, and what it carries with one system call.
    #[must_use]
    pub fn socket(&self) -> SocketFacts {
        self.inner.crew.first().socket
    }

    /// How long each call of this handle waits at most.
    pub const fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Moves to a socket of its own at another address: all connections go on from there, with connection IDs that were not
    /// used before, as soon as the worker takes its next turn. Port 0 lets the system choose. For when the network changed,
    /// or a connection should no longer be linked to the old address. What is on its way to the old address is lost and sent
    /// again. Connections whose server does not allow migration end.
    ///
    /// # Errors
    /// [`EndpointError::Bind`] when the address cannot be had, or the endpoint takes connections; nothing changes then.
    pub fn rebind(&self, local: SocketAddr) -> Result<(), EndpointError> {
        let options = self.inner.client.as_ref().filter(|_| !self.inner.takes);
        face::rebind(self.inner.crew.first(), options, local)
    }

    /// Connects to `HOST:PORT` or `quic://HOST:PORT`; the host is the name that the certificate must have. All addresses of
    /// a name are raced.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect(&self, target: &str) -> Result<Connection, ConnectError> {
        self.connect_with(Request::parse(target)?)
    }

    /// Connects to an address; the certificate must be for `server_name`.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect_to(&self, addr: SocketAddr, server_name: &str) -> Result<Connection, ConnectError> {
        self.connect_with(Request::from(addr).server_name(server_name))
    }

    /// Connects with options of its own.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub fn connect_with(&self, request: Request) -> Result<Connection, ConnectError> {
        let options = self.inner.client.as_ref().ok_or(ConnectError::NoClient)?;
        let addrs = request.resolve(options.resolve_timeout)?;
        establish(request.dial(self.inner.crew.dialler(), options, addrs)?, self.timeout)
    }

    /// The next connection that somebody wants to make here, to be decided over.
    ///
    /// # Errors
    /// [`ConnectionError::EndpointGone`], [`ConnectionError::TimedOut`].
    pub fn accept(&self) -> Result<Incoming, ConnectionError> {
        let (worker, key, info) =
            block(self.timeout, |cx| self.inner.crew.poll_incoming(cx)).unwrap_or(Err(ConnectionError::TimedOut))?;
        Ok(Incoming { waiting: Waiting::new(&worker, key, info), timeout: self.timeout })
    }

    /// The next connection; every client is let in. Connections whose handshake fails are left out.
    ///
    /// The handshake of one client is waited for before the next client is looked at: servers call [`accept`](Self::accept)
    /// and go on in a thread per connection.
    ///
    /// # Errors
    /// [`ConnectionError::EndpointGone`], [`ConnectionError::TimedOut`].
    pub fn accept_connection(&self) -> Result<Connection, ConnectionError> {
        loop {
            match self.accept()?.accept() {
                Ok(connection) => return Ok(connection),
                Err(ConnectError::Failed(e @ (ConnectionError::EndpointGone | ConnectionError::TimedOut))) => {
                    return Err(e);
                }
                Err(_) => {}
            }
        }
    }

    /// Waits until no connection is left.
    ///
    /// # Errors
    /// [`ConnectionError::TimedOut`].
    pub fn wait_idle(&self) -> Result<(), ConnectionError> {
        block(self.timeout, |cx| self.inner.crew.poll_idle(cx)).ok_or(ConnectionError::TimedOut)
    }

    /// Takes no new connections any more and waits until those that there are have ended, at most for that long; then all
    /// are closed with code 0. Calls that wait in [`accept`](Self::accept) come back with
    /// [`ConnectionError::EndpointGone`] when nobody is left to be let in.
    ///
    /// # Errors
    /// [`ConnectionError::TimedOut`] when some had to be closed.
    pub fn drain(&self, limit: Duration) -> Result<(), ConnectionError> {
        self.inner.crew.drain();
        if block(Some(limit), |cx| self.inner.crew.poll_idle(cx)).is_some() {
            return Ok(());
        }
        self.inner.crew.close_all();
        Err(ConnectionError::TimedOut)
    }

    /// From now on connections are taken by these options: certificates, application protocols, settings, retry, keys of
    /// tokens, the number of handshakes. Connections that there are go on as they began; what belongs to sockets and workers
    /// stays.
    ///
    /// # Errors
    /// [`EndpointError::Settings`]; nothing changes then. An endpoint that takes no connections does not begin to.
    pub fn reload(&self, options: &ServerOptions) -> Result<(), EndpointError> {
        self.inner.crew.reload(options)
    }

    /// Gives the port to another endpoint, here or in another process; see [`Handover`]. This one keeps its connections, and
    /// takes no new ones unless the handover is dropped or the other one ends.
    ///
    /// # Errors
    /// See [`HandoverError`].
    pub fn hand_over(&self) -> Result<Handover, HandoverError> {
        let mut handing = self.inner.crew.begin_handing()?;
        block(self.timeout, |cx| handing.poll(cx)).ok_or(HandoverError::TimedOut)?
    }

    /// Counters of the engines of all workers together, as of their last turns.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        self.inner.crew.stats()
    }

    /// Figures of each worker, as of its last turn.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerFigures> {
        self.inner.crew.figures()
    }
}

impl Clone for Endpoint {
    fn clone(&self) -> Self {
        self.inner.crew.add_endpoint();
        Self { inner: Arc::clone(&self.inner), timeout: self.timeout }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if self.inner.crew.drop_endpoint() {
            for thread in lock(&self.inner.threads).drain(..) {
                // A worker that panicked has told its own story.
                let _ = thread.join();
            }
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("local", &self.local_addr()).finish_non_exhaustive()
    }
}

/// Waits for a handshake.
fn establish(conn: ConnRef, timeout: Option<Duration>) -> Result<Connection, ConnectError> {
    block(timeout, |cx| conn.0.poll_given(cx)).unwrap_or(Err(ConnectError::Failed(ConnectionError::TimedOut)))?;
    Ok(Connection::new(conn))
}

/// A connection that a client wants to make. Dropped, it is refused.
pub struct Incoming {
    waiting: Waiting,
    timeout: Option<Duration>,
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

    /// Lets the client in and waits for its handshake.
    ///
    /// # Errors
    /// When the handshake fails; [`ConnectError::Failed`] with [`ConnectionError::TimedOut`] when the time is over.
    pub fn accept(self) -> Result<Connection, ConnectError> {
        let timeout = self.timeout;
        establish(self.waiting.accept(None, false)?, timeout)
    }

    /// The same with settings of its own.
    ///
    /// # Errors
    /// As for [`accept`](Self::accept), and for settings that cannot be.
    pub fn accept_with(self, settings: Settings) -> Result<Connection, ConnectError> {
        let timeout = self.timeout;
        establish(self.waiting.accept(Some(settings), false)?, timeout)
    }

    /// The same, given as soon as the client's 0-RTT can be read, when it sent any: what comes on streams whose
    /// `RecvStream::is_early` says so may be a replay (RFC 9001 section 9.2), and the client's certificates are not known
    /// yet. The TLS configuration has to allow 0-RTT.
    ///
    /// # Errors
    /// As for [`accept`](Self::accept).
    pub fn accept_early(self) -> Result<Connection, ConnectError> {
        let timeout = self.timeout;
        establish(self.waiting.accept(None, true)?, timeout)
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

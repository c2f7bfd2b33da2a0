//! Workers that serve ports: in a thread of their own, or driven by the application's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use courser_core::engine::Engine;
use courser_session::doorbell::{Bell, Interest, Ringer, Sleeper, doorbell, look_around};
use courser_session::port::{Inline, PortSetup, ThreadPort, pair};

use super::books::Books;
use super::service::{Door, Service, ServiceSetup};
use crate::clock::Clock;
use crate::error::EndpointError;
use crate::face;
use crate::net::socket::Socket;
use crate::options::{ClientOptions, ServerOptions, SocketOptions};
use crate::worker::{TurnLimits, Waker, Worker};

/// Turns that an inline endpoint takes at most when it is dropped.
const LAST_TURNS: usize = 16;

/// How an endpoint of ports is made.
#[derive(Clone, Debug)]
pub struct Options {
    bind: Vec<SocketAddr>,
    /// Buffers and offload of the socket.
    socket: SocketOptions,
    server: Option<ServerOptions>,
    profiles: Vec<ClientOptions>,
    look: Option<Duration>,
}

impl Options {
    /// Makes connections, with profile 0; its address and settings are those of `profile`.
    #[must_use]
    pub fn client(profile: ClientOptions) -> Self {
        Self {
            bind: profile.bind_candidates(),
            socket: profile.socket,
            server: None,
            profiles: vec![profile],
            look: None,
        }
    }

    /// Takes connections at `local`; port 0 lets the system choose. What [`ServerOptions::client`] has is profile 0.
    #[must_use]
    pub fn server(local: SocketAddr, options: ServerOptions) -> Self {
        Self {
            bind: vec![local],
            socket: options.socket,
            profiles: options.client.iter().cloned().collect(),
            server: Some(options),
            look: None,
        }
    }

    /// Another profile for connections to be made; they are numbered from 0 in the order in which they came.
    #[must_use]
    pub fn profile(mut self, profile: ClientOptions) -> Self {
        self.profiles.push(profile);
        self
    }

    /// How long the worker keeps looking for submissions before it sleeps. The default is [`look_time`].
    #[must_use]
    pub const fn look(mut self, look: Duration) -> Self {
        self.look = Some(look);
        self
    }

    fn validate(&self) -> Result<(), EndpointError> {
        let servers = self.server.iter().map(|server| &server.settings);
        let clients = self.profiles.iter().map(|profile| &profile.settings);
        servers.chain(clients).try_for_each(|settings| settings.validate()).map_err(EndpointError::Settings)
    }

    /// Binds the socket and makes the worker.
    fn worker(self) -> Result<Worker<Service>, EndpointError> {
        self.validate()?;
        let socket = face::bind(&self.bind, &self.socket)?;
        let server = self.server.as_ref().map(|server| face::server_config(server, 1));
        let qlog = self.server.as_ref().map_or_else(|| self.profiles.first()?.qlog.clone(), |s| s.qlog.clone());
        let token_keys = self.server.as_ref().and_then(|s| s.token_keys.clone());
        let clock = Clock::start();
        let mut setup = ServiceSetup::client(self.profiles);
        setup.is_server = server.is_some();
        let mut config = face::engine_config(qlog.as_ref(), clock);
        config.server = server;
        config.token_keys = token_keys;
        worker(Engine::new(config), socket, clock, setup).map_err(EndpointError::Worker)
    }
}

/// A worker of one's own making that serves ports.
///
/// # Errors
/// When the system gives no descriptor to wake the worker with.
pub fn worker(
    engine: courser_core::engine::Engine,
    socket: Socket,
    clock: Clock,
    setup: ServiceSetup,
) -> io::Result<Worker<Service>> {
    let service = Service::new(engine, socket.local_addr(), setup);
    Worker::new(service, socket, clock, TurnLimits::default())
}

/// How long a side that expects an answer soon should look for it before it sleeps: a few wake-ups' worth where two threads
/// can run at once, no time at all where the one would keep the other from running.
#[must_use]
pub fn look_time() -> Duration {
    let alone = thread::available_parallelism().is_ok_and(|n| n.get() == 1);
    if alone { Duration::ZERO } else { Duration::from_micros(50) }
}

/// Rings by waking a worker.
struct Rouse(Waker);

impl Bell for Rouse {
    fn ring(&self) {
        self.0.wake();
    }
}

fn door_of(worker: &mut Worker<Service>) -> (Arc<Door>, Ringer, Sleeper) {
    let (ringer, sleeper) = doorbell(Arc::new(Rouse(worker.waker())));
    (worker.machine().door(), ringer, sleeper)
}

/// A worker in a thread of its own that serves any number of ports. Dropped, it closes all connections and waits for the
/// thread; ports that are left learn that their worker is gone.
pub struct Endpoint {
    local: SocketAddr,
    door: Arc<Door>,
    ringer: Ringer,
    waker: Waker,
    /// `None` once joined.
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Binds a socket and starts its worker.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn start(options: Options) -> Result<Self, EndpointError> {
        let look = options.look.unwrap_or_else(look_time);
        Self::run(options.worker()?, look).map_err(EndpointError::Worker)
    }

    /// Starts a worker of one's own making.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn run(mut worker: Worker<Service>, look: Duration) -> io::Result<Self> {
        let (door, ringer, mut sleeper) = door_of(&mut worker);
        let (local, waker) = (worker.socket().local_addr(), worker.waker());
        let thread = thread::Builder::new().name("courser-ports".into()).spawn(move || {
            // When the socket fails the service goes with the worker, and its ports tell their applications.
            let _ = drive(&mut worker, &mut sleeper, look);
        })?;
        Ok(Self { local, door, ringer, waker, thread: Some(thread) })
    }

    /// The bound address.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// A port of this worker. Every application thread has its own; when it is dropped its sessions end.
    #[must_use]
    pub fn attach(&self, setup: PortSetup) -> ThreadPort {
        let (application, worker) = pair(setup, self.ringer.clone(), None);
        self.door.attach(worker);
        self.waker.wake();
        application
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.door.stop();
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A worker that panicked has told its own story.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("local", &self.local).finish_non_exhaustive()
    }
}

/// While turns read so much, data comes rather than questions: it is delivered without a change of threads in each turn.
const BULK: u64 = 64 << 10;

/// Takes turns until the service has stopped.
fn drive(worker: &mut Worker<Service>, sleeper: &mut Sleeper, look: Duration) -> io::Result<()> {
    // Bytes of the last turn.
    let mut read = 0;
    loop {
        let mut busy = false;
        let before = worker.stats().bytes_received;
        let turn = worker.turn_with(&mut |service, now| {
            busy = service.serve(now);
            if busy && look.is_zero() && read < BULK {
                // Application and worker share a processor: it has its say before anything is sent, so that its answers
                // leave together with the acknowledgements, and it need not ring.
                thread::yield_now();
                busy |= service.serve(now);
            }
        })?;
        read = worker.stats().bytes_received - before;
        if worker.machine().is_stopped() {
            return Ok(());
        }
        if busy || turn.progressed || look_around(look, || worker.machine().has_work()) {
            continue;
        }
        sleeper.arm(Interest::ANY);
        let waited = if worker.machine().has_work() { Ok(()) } else { worker.wait(&turn) };
        sleeper.disarm();
        waited?;
    }
}

/// A worker that the application's own thread drives, and its port.
///
/// A submission is carried out at once, a completion is made when it is asked for; datagrams come and go only in
/// [`turn`](Self::turn).
pub struct InlineEndpoint {
    worker: Worker<Service>,
    sleeper: Sleeper,
    port: u32,
    /// What the last turn said.
    turn: crate::worker::Turn,
}

impl InlineEndpoint {
    /// Binds a socket.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn new(options: Options, setup: PortSetup) -> Result<Self, EndpointError> {
        Ok(Self::drive(options.worker()?, setup))
    }

    /// A worker of one's own making.
    #[must_use]
    pub fn drive(mut worker: Worker<Service>, setup: PortSetup) -> Self {
        let (_, _, sleeper) = door_of(&mut worker);
        let port = worker.machine().place_inline(setup);
        let turn = crate::worker::Turn { deadline: None, progressed: true, blocked: false };
        Self { worker, sleeper, port, turn }
    }

    /// The bound address.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.worker.socket().local_addr()
    }

    /// The port, for a few calls.
    pub fn port(&mut self) -> Inline<'_, Books> {
        let now = self.worker.clock().now();
        self.worker.machine().inline(self.port, now).expect("the port was placed when the endpoint was made")
    }

    /// Reads what came, works, sends what is to be sent. Whether anything happened: then another turn is worthwhile before
    /// waiting.
    ///
    /// # Errors
    /// Only when the socket itself has failed.
    pub fn turn(&mut self) -> io::Result<bool> {
        let mut busy = false;
        self.turn = self.worker.turn_with(&mut |service, now| busy = service.serve(now))?;
        Ok(busy || self.turn.progressed)
    }

    /// Waits until another turn is due, or for that long; not at all while something is to be polled. To be called after a
    /// turn in which nothing happened.
    ///
    /// # Errors
    /// When the system cannot wait.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut turn = self.turn;
        if let Some(timeout) = timeout {
            let until = self.worker.clock().now() + timeout;
            turn.deadline = Some(turn.deadline.map_or(until, |at| at.min(until)));
        }
        self.sleeper.arm(Interest::ANY);
        let waited = if self.worker.machine().has_work() { Ok(()) } else { self.worker.wait(&turn) };
        self.sleeper.disarm();
        waited
    }
}

/// All connections are closed, and the peers are told as far as the socket takes it without waiting.
impl Drop for InlineEndpoint {
    fn drop(&mut self) {
        self.worker.machine().door().stop();
        for _ in 0..LAST_TURNS {
            if self.turn().is_err() || self.worker.machine().is_stopped() {
                return;
            }
        }
    }
}

impl std::fmt::Debug for InlineEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InlineEndpoint").field("local", &self.local_addr()).finish_non_exhaustive()
    }
}

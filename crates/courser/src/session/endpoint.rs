//! Workers that serve ports: in a thread of their own, or driven by the application's.
//!
//! An operator drains, reloads and hands over on the endpoint; what applications notice of it comes through their ports.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker as TaskWaker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use courser_session::doorbell::{Bell, Interest, Ringer, Sleeper, doorbell};
#[cfg(target_os = "linux")]
use courser_session::port::{EventBell, Offer, SharedSetup, shared};
use courser_session::port::{Fault, Inline, PortSetup, ThreadPort, WorkerPort, pair};

use super::books::{Books, SessionRow};
use super::door::Door;
use super::options::Options;
use super::ports::Ports;
use super::service::{Service, ServiceSetup};
use crate::clock::Clock;
use crate::error::{ConnectionError, EndpointError, HandoverError};
use crate::estate::{self, Estate, Order};
use crate::handover::Handover;
use crate::hub::crew::WorkerFigures;
use crate::net::socket::Socket;
use crate::options::ServerOptions;
use crate::wait::block;
use crate::worker::{Look, TurnLimits, Waker, Worker};

/// Turns that an inline endpoint takes at most when it is dropped.
const LAST_TURNS: usize = 16;

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

/// A worker in a thread of its own.
struct Attended {
    door: Arc<Door>,
    ringer: Ringer,
    waker: Waker,
    /// `None` once joined.
    thread: Option<JoinHandle<()>>,
}

/// Workers in threads of their own that serve any number of ports: one, unless [`ServerOptions::workers`] says otherwise.
/// Dropped, it closes all connections and waits for the threads; ports that are left learn that their worker is gone.
pub struct Endpoint {
    local: SocketAddr,
    /// At least one.
    staff: Vec<Attended>,
    /// The number of the first one in its handles.
    first_worker: u8,
    /// Of endpoints that take connections.
    estate: Option<Box<Estate>>,
}

impl Endpoint {
    /// Binds the port and starts its workers.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn start(options: Options) -> Result<Self, EndpointError> {
        Self::make(options, None)
    }

    /// An endpoint that goes on where another one hands its port over; see [`Handover`]. The options are those of a server;
    /// there are as many workers as there were, at the address that there was. Connections that come before somebody listens
    /// wait for him.
    ///
    /// # Errors
    /// See [`EndpointError`]; the other endpoint has the port again then.
    pub fn take_over(handover: Handover, options: Options) -> Result<Self, EndpointError> {
        if options.server.is_none() {
            return Err(EndpointError::Worker(io::ErrorKind::InvalidInput.into()));
        }
        Self::make(options, Some(handover))
    }

    fn make(options: Options, handover: Option<Handover>) -> Result<Self, EndpointError> {
        let look = options.look.unwrap_or_else(look_time);
        let first_worker = options.first_worker;
        let (workers, estate) = options.workers(handover)?;
        let mut endpoint = Self::run_all(workers, look).map_err(EndpointError::Worker)?;
        endpoint.first_worker = first_worker;
        endpoint.estate = estate.map(Box::new);
        Ok(endpoint)
    }

    /// Starts a worker of one's own making.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn run(worker: Worker<Service>, look: Duration) -> io::Result<Self> {
        Self::run_all(vec![worker], look)
    }

    /// Starts workers of one's own making that share a port; each has its number in its [`ServiceSetup::worker`].
    ///
    /// # Errors
    /// When the system gives no thread, or there is no worker.
    pub fn run_all(workers: Vec<Worker<Service>>, look: Duration) -> io::Result<Self> {
        let local = workers.first().ok_or(io::ErrorKind::InvalidInput)?.socket().local_addr();
        // From here on an early return stops the threads that there are.
        let mut endpoint = Self { local, staff: Vec::with_capacity(workers.len()), first_worker: 0, estate: None };
        for mut worker in workers {
            let (door, ringer, mut sleeper) = door_of(&mut worker);
            let waker = worker.waker();
            let thread = thread::Builder::new().name("courser-ports".into()).spawn({
                let door = Arc::clone(&door);
                move || {
                    // When the socket fails the service goes with the worker, and its ports tell their applications.
                    let _ = drive(&mut worker, &mut sleeper, (look, &door));
                }
            })?;
            endpoint.staff.push(Attended { door, ringer, waker, thread: Some(thread) });
        }
        Ok(endpoint)
    }

    /// The bound address.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// A port of the first worker. Every application thread has its own; when it is dropped its sessions end.
    #[must_use]
    pub fn attach(&self, setup: PortSetup) -> ThreadPort {
        self.staff[0].attach(setup)
    }

    /// A port of that worker; `None` when there are not so many. An application with a thread for each worker shares
    /// nothing among them.
    #[must_use]
    pub fn attach_at(&self, worker: usize, setup: PortSetup) -> Option<ThreadPort> {
        self.staff.get(worker).map(|attended| attended.attach(setup))
    }

    /// A port of that worker that rings `also` with its own alarm, for an application that waits for several ports, or for
    /// other things, at once; see [`AppPort`](courser_session::port::AppPort).
    #[must_use]
    pub fn attach_with(&self, worker: usize, setup: PortSetup, also: Option<Arc<dyn Bell>>) -> Option<ThreadPort> {
        self.staff.get(worker).map(|attended| attended.attach_with(setup, also))
    }

    /// A port of that worker for an application in another process, which is given the offer; `application` is the bell that
    /// the worker rings while the application sleeps.
    ///
    /// # Errors
    /// `InvalidInput` for sizes that make no segment, `NotFound` for a worker that there is not, `Unsupported` where workers
    /// cannot wait for bells; otherwise when the system has no memory or no descriptors left.
    #[cfg(target_os = "linux")]
    pub fn attach_shared(&self, worker: usize, setup: SharedSetup, application: EventBell) -> io::Result<Offer> {
        if cfg!(feature = "portable") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let attended = self.staff.get(worker).ok_or(io::ErrorKind::NotFound)?;
        let (offer, port) = shared(setup, application)?;
        attended.place(port);
        Ok(offer)
    }

    /// What an application of that worker did last that no honest one does, for which its port was closed.
    #[must_use]
    pub fn fault(&self, worker: usize) -> Option<Fault> {
        self.staff.get(worker)?.door.fault()
    }

    /// A port of each worker, used like one: a listener listens at all of them.
    #[must_use]
    pub fn attach_all(&self, setup: PortSetup) -> Ports {
        Ports::new(self.staff.iter().map(|attended| attended.attach(setup)).collect(), self.first_worker)
    }

    /// Takes no new connections any more and waits until those that there are have ended, at most for that long; then all
    /// are closed with code 0. Listeners are over at once ([`Reason::Draining`](super::Reason::Draining)); applications go
    /// on with the connections that they have.
    ///
    /// # Errors
    /// [`ConnectionError::TimedOut`] when some had to be closed.
    pub fn drain(&self, limit: Duration) -> Result<(), ConnectionError> {
        for attended in &self.staff {
            attended.door.drain();
            attended.waker.wake();
        }
        if block(Some(limit), |cx| self.poll_drained(cx)).is_some() {
            return Ok(());
        }
        (0..self.staff.len()).for_each(|worker| self.order(worker, Order::CloseAll));
        Err(ConnectionError::TimedOut)
    }

    fn poll_drained(&self, cx: &Context<'_>) -> Poll<()> {
        for attended in &self.staff {
            std::task::ready!(attended.door.poll_drained(cx));
        }
        Poll::Ready(())
    }

    fn order(&self, worker: usize, order: Order) {
        if let Some(attended) = self.staff.get(worker) {
            attended.door.order(order);
            attended.waker.wake();
        }
    }

    /// From now on connections are taken by these options: certificates, application protocols, settings, retry, keys of
    /// tokens, the number of handshakes. Connections that there are go on as they began; profiles, and what belongs to
    /// sockets and workers, stay.
    ///
    /// # Errors
    /// [`EndpointError::Settings`]; nothing changes then. An endpoint that takes no connections does not begin to.
    pub fn reload(&self, options: &ServerOptions) -> Result<(), EndpointError> {
        estate::reload(self.estate.as_deref(), options, self.staff.len(), |worker, order| self.order(worker, order))
    }

    /// Gives the port to another endpoint, here or in another process; see [`Handover`]. This one keeps its connections, and
    /// takes no new ones unless the handover is dropped or the other one ends. Listeners stay: [`drain`](Self::drain) ends
    /// them once the other one is known to work.
    ///
    /// # Errors
    /// See [`HandoverError`]. Workers of one's own making have no port that could be given away.
    pub fn hand_over(&self) -> Result<Handover, HandoverError> {
        let estate = self.estate.as_ref().ok_or(HandoverError::NoServer)?;
        if self.staff.iter().any(|attended| attended.door.is_gone()) {
            return Err(HandoverError::WorkerGone);
        }
        let mut handing = estate.begin(|worker, order| self.order(worker, order))?;
        block(None, |cx| handing.poll(cx)).unwrap_or(Err(HandoverError::TimedOut))
    }

    /// The sessions of each worker, at most `most` of each, for operators. Workers that do not answer within a second are left
    /// out.
    #[must_use]
    pub fn sessions(&self, most: usize) -> Vec<SessionRow> {
        let ask = |attended: &Attended| {
            let answer = attended.door.ask(most);
            attended.waker.wake();
            answer
        };
        let answers: Vec<_> = self.staff.iter().map(ask).collect();
        answers.iter().filter_map(|answer| answer.recv_timeout(Duration::from_secs(1)).ok()).flatten().collect()
    }

    /// How many workers there are.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        self.staff.len()
    }

    /// Figures of each worker, as of when it last had nothing to do.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerFigures> {
        self.staff.iter().map(|attended| attended.door.figures()).collect()
    }
}

impl Attended {
    fn attach(&self, setup: PortSetup) -> ThreadPort {
        self.attach_with(setup, None)
    }

    fn attach_with(&self, setup: PortSetup, also: Option<Arc<dyn Bell>>) -> ThreadPort {
        let (application, worker) = pair(setup, self.ringer.clone(), also);
        self.place(worker);
        application
    }

    fn place(&self, port: WorkerPort) {
        self.door.attach(port);
        self.waker.wake();
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        for attended in &self.staff {
            attended.door.stop();
            attended.waker.wake();
        }
        for attended in &mut self.staff {
            if let Some(thread) = attended.thread.take() {
                // A worker that panicked has told its own story.
                let _ = thread.join();
            }
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
fn drive(worker: &mut Worker<Service>, sleeper: &mut Sleeper, (look, door): (Duration, &Door)) -> io::Result<()> {
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
        // Applications that are waited for may be waiting for this processor.
        let look = Look { least: look, has_news: &mut Service::has_work, pause: thread::yield_now };
        if busy || turn.progressed || worker.look(&turn, look)? {
            continue;
        }
        let (stats, engine) = (worker.stats(), worker.machine().engine());
        let (engine, connections) = (engine.stats(), engine.connections());
        door.publish(WorkerFigures { engine, worker: stats, connections, is_gone: false });
        sleeper.arm(Interest::ANY);
        worker.machine().arm();
        let waited = if worker.machine().has_work() { Ok(()) } else { worker.sleep(&turn) };
        sleeper.disarm();
        worker.machine().disarm();
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
    /// Of an endpoint that takes connections.
    estate: Option<Box<Estate>>,
}

impl InlineEndpoint {
    /// Binds a socket. There is one worker, whatever the options say.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn new(options: Options, setup: PortSetup) -> Result<Self, EndpointError> {
        Self::make(options, None, setup)
    }

    /// An endpoint that goes on where another one, which has one worker, hands its port over; see [`Handover`]. The options
    /// are those of a server.
    ///
    /// # Errors
    /// See [`EndpointError`]; the other endpoint has the port again then.
    pub fn take_over(handover: Handover, options: Options, setup: PortSetup) -> Result<Self, EndpointError> {
        if options.server.is_none() || handover.workers() != 1 {
            return Err(EndpointError::Worker(io::ErrorKind::InvalidInput.into()));
        }
        Self::make(options, Some(handover), setup)
    }

    fn make(options: Options, handover: Option<Handover>, setup: PortSetup) -> Result<Self, EndpointError> {
        let mut options = options;
        if let Some(server) = &mut options.server {
            server.workers = 1;
        }
        let (mut workers, estate) = options.workers(handover)?;
        let none = || EndpointError::Worker(io::ErrorKind::NotFound.into());
        let mut endpoint = Self::drive(workers.pop().ok_or_else(none)?, setup);
        endpoint.estate = estate.map(Box::new);
        Ok(endpoint)
    }

    /// A worker of one's own making.
    #[must_use]
    pub fn drive(mut worker: Worker<Service>, setup: PortSetup) -> Self {
        let (_, _, sleeper) = door_of(&mut worker);
        let port = worker.machine().place_inline(setup);
        let turn = crate::worker::Turn { deadline: None, progressed: true, blocked: false };
        Self { worker, sleeper, port, turn, estate: None }
    }

    /// Takes no new connections from the next turn on; listeners are over then. The application takes turns until
    /// [`is_drained`](Self::is_drained), or as long as it has patience, and then drops the endpoint, which closes what is left.
    pub fn drain(&mut self) {
        self.worker.machine().door().drain();
    }

    /// Whether [`drain`](Self::drain) was called and no connection is left.
    #[must_use]
    pub fn is_drained(&mut self) -> bool {
        let task = Context::from_waker(TaskWaker::noop());
        self.worker.machine().door().poll_drained(&task).is_ready()
    }

    /// From the next turn on connections are taken by these options, as with [`Endpoint::reload`].
    ///
    /// # Errors
    /// [`EndpointError::Settings`]; nothing changes then.
    pub fn reload(&mut self, options: &ServerOptions) -> Result<(), EndpointError> {
        let door = self.worker.machine().door();
        estate::reload(self.estate.as_deref(), options, 1, |_, order| door.order(order))
    }

    /// Gives the port to another endpoint, as [`Endpoint::hand_over`] does; takes a turn for it.
    ///
    /// # Errors
    /// See [`HandoverError`].
    pub fn hand_over(&mut self) -> Result<Handover, HandoverError> {
        let door = self.worker.machine().door();
        let estate = self.estate.as_ref().ok_or(HandoverError::NoServer)?;
        let mut handing = estate.begin(|_, order| door.order(order))?;
        let turn = self.worker.turn_with(&mut |service, now| _ = service.serve(now));
        self.turn = turn.map_err(HandoverError::System)?;
        match handing.poll(&Context::from_waker(TaskWaker::noop())) {
            Poll::Ready(handover) => handover,
            Poll::Pending => Err(HandoverError::WorkerGone),
        }
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

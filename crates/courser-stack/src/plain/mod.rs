//! Sessions over TCP and UDP, by the same messages as those over QUIC.
//!
//! One thread with an event loop serves any number of ports. Sockets do not block; a turn carries out what applications
//! asked, moves bytes, and tells what happened, each of it bounded so that nobody keeps the others waiting.
//!
//! **Nothing here is encrypted and no peer is authenticated**: a session over TCP or UDP has no TLS. It is there so that
//! one program can run over each protocol. [`Row::encrypted`] says so to operators.
//!
//! # What the messages mean
//!
//! `Listen` and `Connect` name the protocol in [`Endpoint::server_name`]: "tcp" or "udp".
//!
//! * **TCP**: a listener yields *streams*; `Connect` opens a stream once the connection is made, or is answered with a
//!   reason. `Finish` ends this direction and keeps the other. `Reset` and an unfinished `Close` reset the connection, both
//!   ways, since TCP cannot give up one direction. `Stop` throws away what still comes. `Closed` with [`Reason::Done`] says
//!   that the peer's end was read and that the system has all bytes and the end: TCP does not tell when the peer has them.
//! * **UDP**: `Connect` opens a *connection* that is established at once; a listener yields one for each address that
//!   sends something. A connection carries datagrams and has no streams. It is over when nothing was heard or sent for
//!   [`PlainSetup::udp_idle`], and, when opened by `Connect`, when the peer's system says that nobody listens there. The
//!   connections of a listener share its socket, which stays bound until the last one is over.
//! * The `number` of `Opened` is the local port, that of `Accepted` names the peer ([`peer_number`]). `Addresses` tells both
//!   ends of each session, of IPv6 as well.
//!
//! # Bounds
//!
//! | What | At most | When full |
//! |---|---|---|
//! | sessions | [`PlainSetup::sessions_max`] | `Failed`; an eighth is kept from sessions that come in, which wait in the listener's backlog (TCP) or are not taken in (UDP) |
//! | connections being made | [`CONNECTS_MAX`], for [`PlainSetup::connect_timeout`] | `Failed` |
//! | bytes to be sent | the port's share, the stream's credit | the application waits for credit |
//! | bytes read ahead | the port's delivery window | the sender is held back by TCP's own window |
//! | addresses of a UDP listener | [`PlainSetup::udp_peers_max`] | those that were never answered go first, then idle ones ([`peers`]) |
//! | datagrams that wait for the application | 64 and 256 KiB of one address, 4 MiB of a listener | the newest is dropped and counted |
//! | closed sockets that still wait for the peer's end | 1,024, for 5 s | they are closed at once |
//! | descriptors | the system's limit | a listener pauses for 100 ms, and does not spin |
//!
//! [`Endpoint::server_name`]: courser_session::msg::Endpoint::server_name
//! [`Reason::Done`]: courser_session::reason::Reason::Done

mod books;
mod door;
mod objects;
pub mod peers;
mod rows;
mod tcp;
mod udp;
mod worker;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use courser::session::SessionRow;
use courser_session::control::Protocol;
use courser_session::doorbell::{Bell, Ringer, doorbell};
use courser_session::handle::GENERATION_MAX;
#[cfg(target_os = "linux")]
use courser_session::port::EventBell;
use courser_session::port::{PortSetup, ThreadPort, pair};
#[cfg(target_os = "linux")]
use courser_session::segment::{Offer, SharedSetup, shared};

pub use books::CONNECTS_MAX;
pub use rows::Row;
pub use udp::peer_number;

use self::door::Door;
use self::worker::{Rouse, Worker};

/// Decides about addresses to listen on.
pub type Allowed = Arc<dyn Fn(Protocol, SocketAddr) -> bool + Send + Sync>;

/// Finds the socket that listens for TCP at an address that is in use: what the application had somewhere else.
pub type Inherits = Arc<dyn Fn(SocketAddr) -> Option<TcpListener> + Send + Sync>;

/// How a worker of plain sessions is made.
#[derive(Clone)]
pub struct PlainSetup {
    /// The worker's number in its handles.
    pub worker: u8,
    /// All handles have generations above this one: what [`Plain::stop`] said of an earlier worker of the same number.
    pub first_generation: u32,
    /// Sessions of all ports at once; at most 2^24.
    pub sessions_max: u32,
    /// After so much silence the system asks whether the peer of a TCP connection is still there; `None` for never.
    pub keep_alive: Option<Duration>,
    /// How long the making of a TCP connection may take.
    pub connect_timeout: Duration,
    /// A UDP session is over after so much silence.
    pub udp_idle: Duration,
    /// Addresses that one UDP listener tells apart at a time.
    pub udp_peers_max: u32,
    /// Whether somebody may listen there; `None` for everybody everywhere.
    pub allowed: Option<Allowed>,
    /// Asked when an address is in use.
    pub inherits: Option<Inherits>,
}

impl Default for PlainSetup {
    fn default() -> Self {
        Self {
            worker: 0,
            first_generation: 0,
            sessions_max: 1 << 16,
            keep_alive: Some(Duration::from_secs(120)),
            connect_timeout: Duration::from_secs(30),
            udp_idle: Duration::from_secs(60),
            udp_peers_max: 4096,
            allowed: None,
            inherits: None,
        }
    }
}

impl fmt::Debug for PlainSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainSetup")
            .field("worker", &self.worker)
            .field("sessions_max", &self.sessions_max)
            .finish_non_exhaustive()
    }
}

/// A worker of TCP and UDP sessions in a thread of its own. Dropped, it closes everything and waits for the thread;
/// ports that are left learn that their worker is gone.
pub struct Plain {
    door: Arc<Door>,
    ringer: Ringer,
    rouse: Arc<Rouse>,
    /// `None` once joined.
    thread: Option<JoinHandle<u32>>,
}

impl Plain {
    /// Starts the worker.
    ///
    /// # Errors
    /// When the system gives no descriptors or no thread.
    pub fn start(setup: PlainSetup) -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let rouse = Arc::new(Rouse::new(poll.registry())?);
        let (ringer, sleeper) = doorbell(Arc::clone(&rouse) as Arc<dyn Bell>);
        let door = Arc::new(Door::default());
        let mut worker = Worker::new(poll, sleeper, Arc::clone(&door), setup)?;
        let thread = thread::Builder::new().name("courser-plain".into()).spawn(move || {
            // Without an event loop the worker goes, and its ports tell their applications.
            let _ = worker.run();
            worker.highest_generation()
        })?;
        Ok(Self { door, ringer, rouse, thread: Some(thread) })
    }

    /// A port. When it is dropped its sessions end.
    #[must_use]
    pub fn attach(&self, setup: PortSetup) -> ThreadPort {
        self.attach_with(setup, None)
    }

    /// A port whose application is also woken by a bell of its own.
    #[must_use]
    pub fn attach_with(&self, setup: PortSetup, also: Option<Arc<dyn Bell>>) -> ThreadPort {
        let (application, worker) = pair(setup, self.ringer.clone(), also);
        self.door.attach(worker);
        self.rouse.ring();
        application
    }

    /// A port for an application in another process, which gets what is in the offer; `application` is the bell that wakes it.
    ///
    /// # Errors
    /// See [`shared`].
    #[cfg(target_os = "linux")]
    pub fn attach_shared(&self, setup: SharedSetup, application: EventBell) -> io::Result<Offer> {
        let (offer, worker) = shared(setup, application)?;
        self.door.attach(worker);
        self.rouse.ring();
        Ok(offer)
    }

    /// The socket that listens for TCP there, for whoever is to listen beside this worker, or in its place.
    #[must_use]
    pub fn listener(&self, at: SocketAddr) -> Option<Arc<OwnedFd>> {
        self.door.listener(at)
    }

    /// The sessions that there are, at most `most`, for operators; none when the worker does not answer within a second.
    #[must_use]
    pub fn sessions(&self, most: usize) -> Vec<SessionRow> {
        self.rows(most).iter().map(SessionRow::from).collect()
    }

    /// The same with what only plain sessions have.
    #[must_use]
    pub fn rows(&self, most: usize) -> Vec<Row> {
        let answer = self.door.ask(most);
        self.rouse.ring();
        answer.recv_timeout(Duration::from_secs(1)).unwrap_or_default()
    }

    /// Ends the worker as dropping does, and tells the highest generation that it used, for the next one of its number.
    #[must_use]
    pub fn stop(mut self) -> u32 {
        self.end()
    }

    fn end(&mut self) -> u32 {
        self.door.stop();
        self.rouse.ring();
        // Of a worker that panicked nobody knows which handles it gave out.
        self.thread.take().map_or(GENERATION_MAX, |thread| thread.join().unwrap_or(GENERATION_MAX))
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").finish_non_exhaustive()
    }
}

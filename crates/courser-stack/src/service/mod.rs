//! A host for applications in other processes: they come through a Unix socket.
//!
//! Who may open the socket is what its mode and owner say; whom it is then is what the system says of the process at the other
//! end. One packet is one message (`courser_session::control`), and the first one decides: an application attaches, an operator
//! gives a command. Each connection has a thread, which mostly sleeps; data never comes here, it goes through the ports.
//!
//! A process that ends, however it ends, closes its socket, and with that its application is over: endpoints, sessions,
//! segments.

mod attended;
mod socket;

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use courser_session::control::Notice;
use courser_session::doorbell::Bell as _;
use courser_session::port::EventBell;
use rustix::event::{PollFd, PollFlags, poll};

use crate::host::Host;
use socket::Listening;

/// Connections at the socket beside those of attached applications: operators, and whoever has not said what it wants.
const OTHERS_MAX: usize = 64;

/// Where and for whom a service is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The socket's path. A socket that is there and that nobody serves is replaced.
    pub path: PathBuf,
    /// The socket's mode: who may open it.
    pub mode: u32,
    /// Users who may attach; empty: whoever may open the socket.
    pub users: Vec<u32>,
}

impl Options {
    /// At that path, for the user and the group of the service.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), mode: 0o660, users: Vec::new() }
    }
}

/// Why there is no service.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Somebody serves at that path.
    InUse(PathBuf),
    /// The socket could not be made.
    Socket(PathBuf, io::Error),
    /// The system gave no descriptor or no thread.
    System(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => {
                write!(f, "a service runs at {} already; end it, or choose another path", path.display())
            }
            Self::Socket(path, e) => {
                write!(f, "no socket at {}: {e}; choose a path in a folder that you may write to", path.display())
            }
            Self::System(e) => write!(f, "{e}; see the limits of descriptors and threads"),
        }
    }
}

impl std::error::Error for Error {}

/// A service that runs. Dropped, it ends every application that came through its socket.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    path: PathBuf,
    /// `None` once joined.
    thread: Option<JoinHandle<()>>,
}

/// What the threads of a service share.
#[derive(Debug)]
struct Shared {
    host: Host,
    options: Options,
    /// Rung once, and never silenced: all threads end.
    stop: EventBell,
    connections: AtomicUsize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Service {
    /// Lets applications in.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn start(host: Host, options: Options) -> Result<Self, Error> {
        let listening = Listening::at(&options.path, options.mode)?;
        let path = options.path.clone();
        let stop = EventBell::new().map_err(Error::System)?;
        let shared =
            Arc::new(Shared { host, options, stop, connections: AtomicUsize::new(0), threads: Mutex::default() });
        let thread = thread::Builder::new().name("courser-attach".into()).spawn({
            let shared = Arc::clone(&shared);
            move || let_in(&shared, &listening)
        });
        Ok(Self { shared, path, thread: Some(thread.map_err(Error::System)?) })
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it serves.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.shared.host
    }

    /// Takes no new applications and endpoints from now on, and tells the applications that there are.
    pub fn begin_drain(&self) {
        let host = &self.shared.host;
        host.begin_drain();
        host.tell_all(&Notice::Draining);
    }

    /// The same, and waits until all applications are gone, at most for that long. Whether they are.
    #[must_use]
    pub fn drain(&self, limit: Duration) -> bool {
        let host = &self.shared.host;
        self.begin_drain();
        let until = Instant::now() + limit;
        while host.applications() > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        host.applications() == 0
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.stop.ring();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has told its own story.
            let _ = thread.join();
        }
        let threads = std::mem::take(&mut *self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

/// Takes connections until the service stops.
fn let_in(shared: &Arc<Shared>, listening: &Listening) {
    loop {
        let mut waits =
            [PollFd::new(listening, PollFlags::IN), PollFd::from_borrowed_fd(shared.stop.as_fd(), PollFlags::IN)];
        match poll(&mut waits, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        if !waits[1].revents().is_empty() {
            return;
        }
        match listening.accept() {
            Ok(socket) => take(shared, socket),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => {
                // No descriptor is left: whoever waits goes on waiting until another one is gone.
                shared.host.note(format!("nobody could be let in: {e}"));
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// Gives a connection its thread.
fn take(shared: &Arc<Shared>, socket: OwnedFd) {
    let mut threads = shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
    threads.retain(|thread| !thread.is_finished());
    let most = shared.host.config().applications_max + OTHERS_MAX;
    if shared.connections.fetch_add(1, Ordering::AcqRel) >= most {
        shared.connections.fetch_sub(1, Ordering::AcqRel);
        shared.host.note("a connection was closed: too many at once".to_owned());
        return;
    }
    let served = Arc::clone(shared);
    let thread = thread::Builder::new().name("courser-control".into()).stack_size(256 << 10).spawn(move || {
        attended::serve(&served, &socket);
        served.connections.fetch_sub(1, Ordering::AcqRel);
    });
    match thread {
        Ok(thread) => threads.push(thread),
        Err(e) => {
            shared.connections.fetch_sub(1, Ordering::AcqRel);
            shared.host.note(format!("no thread for a connection: {e}"));
        }
    }
}

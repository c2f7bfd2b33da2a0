//! A host for applications in other processes: they come through a Unix socket.
//!
//! Who may open the socket is what its mode and owner say; whom it is then is what the system says of the process at the other
//! end. One packet is one message (`courser_session::control`), and the first one decides: an application attaches, an operator
//! gives a command. Each connection has a thread, which mostly sleeps; data never comes here, it goes through the ports.
//!
//! A service makes way for a new one by giving it the socket ([`Service::succeed`]): nobody who attaches is turned away, and
//! programs that are attached hear of it, attach there for what is new, and have their addresses there. Here they go on
//! with what they have.
//!
//! A process that ends, however it ends, closes its socket, and with that its application is over: endpoints, sessions,
//! segments.

mod attended;
mod socket;
mod succession;

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use courser_session::control::Notice;
use courser_session::doorbell::Bell as _;
use courser_session::port::EventBell;
use rustix::event::{PollFd, PollFlags, poll};

use crate::host::{Heritage, Host};
use socket::Listening;
pub use succession::Succession;

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
    /// `None` once the service takes nobody any more.
    entrance: Mutex<Option<Entrance>>,
    /// Those that ask for addresses of programs that are here, each with the thread that answers.
    heirs: Mutex<Vec<(UnixStream, JoinHandle<()>)>>,
}

/// Where connections come in.
#[derive(Debug)]
struct Entrance {
    listening: Arc<Listening>,
    /// Rung once: nobody is let in any more.
    shut: EventBell,
    thread: JoinHandle<()>,
}

impl Entrance {
    fn open(shared: &Arc<Shared>, listening: Listening) -> io::Result<Self> {
        let (listening, shut) = (Arc::new(listening), EventBell::new()?);
        let thread = thread::Builder::new().name("courser-attach".into()).spawn({
            let (shared, listening, shut) = (Arc::clone(shared), Arc::clone(&listening), shut.clone());
            move || let_in(&shared, &listening, &shut)
        })?;
        Ok(Self { listening, shut, thread })
    }

    fn close(self) {
        self.shut.ring();
        // A thread that panicked has told its own story.
        let _ = self.thread.join();
    }
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
        Self::serve(host, options, listening)
    }

    /// Goes on where another service was: at its socket, whatever path the options name. Its programs find their addresses
    /// here.
    ///
    /// # Errors
    /// See [`Error`]; the other service goes on then.
    pub fn take_over(host: Host, options: Options, from: Succession) -> Result<Self, Error> {
        let (listening, elders) = Listening::taken_over(from);
        host.heritage().set(elders);
        Self::serve(host, options, listening)
    }

    fn serve(host: Host, options: Options, listening: Listening) -> Result<Self, Error> {
        let path = listening.path().to_owned();
        let stop = EventBell::new().map_err(Error::System)?;
        let shared =
            Arc::new(Shared { host, options, stop, connections: AtomicUsize::new(0), threads: Mutex::default() });
        let entrance = Entrance::open(&shared, listening).map_err(Error::System)?;
        Ok(Self { shared, path, entrance: Mutex::new(Some(entrance)), heirs: Mutex::default() })
    }

    /// Gives the socket to a successor. `give` is called with what that one needs, and returns once it serves; from then on it
    /// alone lets applications in. Those that are here are told, and go on with what they have; nothing new begins here.
    ///
    /// # Errors
    /// Why there is no successor; everything is as before then.
    pub fn succeed<T>(&self, give: impl FnOnce(&Succession) -> io::Result<T>) -> io::Result<T> {
        let mut entrance = self.entrance.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = entrance.as_ref() else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the socket was given away already"));
        };
        let host = &self.shared.host;
        // Older services answer one question at a time: none is asked here meanwhile.
        let mut elders = host.heritage().lock();
        let (ours, theirs) = UnixStream::pair()?;
        let succession = open.listening.share(Heritage::with(&mut elders, theirs)?)?;
        let thread = thread::Builder::new().name("courser-heir".into()).spawn({
            let (host, heir) = (host.clone(), ours.try_clone()?);
            // It ends when the successor does, or this service.
            move || drop(host.answer_heir(&heir))
        })?;
        let given = give(&succession);
        drop(succession);
        if given.is_err() {
            let _ = ours.shutdown(Shutdown::Both);
            let _ = thread.join();
            return given;
        }
        elders.clear();
        drop(elders);
        self.heirs.lock().unwrap_or_else(PoisonError::into_inner).push((ours, thread));
        if let Some(open) = entrance.take() {
            open.listening.give_away();
            open.close();
        }
        host.begin_succession();
        given
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
        if let Some(entrance) = self.entrance.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // One that ends before it was told of as the successor: the place is the predecessor's still.
            if self.shared.host.heritage().is_place_kept() {
                entrance.listening.give_away();
            }
            entrance.close();
        }
        for (heir, thread) in std::mem::take(self.heirs.get_mut().unwrap_or_else(PoisonError::into_inner)) {
            let _ = heir.shutdown(Shutdown::Both);
            let _ = thread.join();
        }
        let threads = std::mem::take(&mut *self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
    }
}

/// Takes connections until the service stops.
fn let_in(shared: &Arc<Shared>, listening: &Listening, shut: &EventBell) {
    loop {
        let mut waits = [PollFd::new(listening, PollFlags::IN), PollFd::from_borrowed_fd(shut.as_fd(), PollFlags::IN)];
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

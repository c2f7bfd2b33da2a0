//! The Tokio face: the calls of the [stack](super) as futures.
//!
//! ```no_run
//! use courser_session::control::Protocol;
//! use courser_session::stack::Dir;
//! use courser_session::stack::aio::Stack;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let stack = Stack::from_environment().await?;
//! let connection = stack.create(Protocol::Quic)?;
//! connection.connect("quic://example.org:4433").await?;
//! let mut stream = connection.open(Dir::Bi).await?;
//! stream.write_all(b"hello").await?;
//! stream.finish()?;
//! let mut answer = Vec::new();
//! stream.read_to_end(&mut answer).await?;
//! # Ok(()) }
//! ```
//!
//! A [`Session`] is what it is in the stack: a listener, a connection, a stream, over QUIC, TCP or UDP, by the same calls. It
//! implements Tokio's `AsyncRead` and `AsyncWrite`; clones are handles of the same session, for several tasks.
//!
//! One task of the runtime in which the stack was made waits for the stack's descriptor, and wakes the tasks whose sessions
//! something happened to. Handles may be used from any task. What the host has to be asked (attaching, certificates, binding,
//! listening, the first connection with new settings, giving back what was used) is done where blocking is allowed.
//!
//! # What dropping means
//!
//! | Dropped | Effect |
//! |---|---|
//! | the last handle of a stream | reset with code 0, unless it was finished: then everything still arrives; the peer is asked to stop with code 0, unless the end was read |
//! | the last handle of a QUIC connection, its streams' included | closed with code 0 as soon as the peer has every finished stream, or after five seconds |
//! | the last handle of a TCP or UDP session | as of a stream; a UDP session is closed |
//! | the last handle of a listener | nobody is taken in any more; what was accepted lives on |
//! | the last [`Stack`] and [`Session`] | everything is closed at once |
//!
//! # Cancelling
//!
//! Every future of this module may be dropped at any time. *Cancel-safe*, so that nothing is lost and the call can be
//! repeated, are all but these: [`Session::write_all`] may have written a part, [`Session::bind`], [`Session::listen`] and
//! [`Session::add_certificate`] go on (drop the session to undo them), and a stream that [`Session::open`] was opening is
//! given up. [`Session::connect`] goes on too; called again, it waits for the same connection.
//!
//! # When the service goes
//!
//! Every future that waits, and every later call, fails with [`Error::ServiceGone`]; what had arrived can be read.
//! [`Stack::reattach`] brings listeners and settings back. A successor to which a service makes way is followed as the stack
//! with calls that block does it, in a thread that may wait.

mod known;
mod session;

use std::{
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Waker,
};

use rustc_hash::FxHashMap;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Handle,
    sync::Notify,
    task::{AbortHandle, spawn_blocking, yield_now},
};

pub use session::Session;

use super::{Attachment, Config, Error, Session as Number};
use crate::control::{Attached, Protocol};

/// Tasks that may wait for one session's bytes by `poll_read` and `poll_write` at a time. When there are more, the one that
/// has waited longest looks again.
const POLLERS_MAX: usize = 16;

/// Who waits for a session.
#[derive(Debug, Default)]
struct Signal {
    calls: Notify,
    polls: Mutex<Vec<Waker>>,
}

impl Signal {
    fn polls(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.polls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.calls.notify_waiters();
        let waiting = std::mem::take(&mut *self.polls());
        waiting.into_iter().for_each(Waker::wake);
    }

    fn add(&self, waker: &Waker) {
        let mut polls = self.polls();
        if polls.iter().any(|known| known.will_wake(waker)) {
            return;
        }
        let oldest = (polls.len() >= POLLERS_MAX).then(|| polls.remove(0));
        polls.push(waker.clone());
        drop(polls);
        oldest.into_iter().for_each(Waker::wake);
    }
}

/// The sessions that anybody holds.
#[derive(Debug, Default)]
struct Board(Mutex<FxHashMap<u64, Weak<Signal>>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, FxHashMap<u64, Weak<Signal>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, sessions: &mut Vec<u64>) {
        for session in sessions.drain(..) {
            let signal = self.lock().get(&session).and_then(Weak::upgrade);
            signal.into_iter().for_each(|signal| signal.wake());
        }
    }

    fn wake_all(&self) {
        let all: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        all.into_iter().for_each(|signal| signal.wake());
    }
}

/// What all handles share. The last one takes the driver with it.
#[derive(Debug)]
struct Shared {
    stack: super::Stack,
    board: Arc<Board>,
    runtime: Handle,
    driver: AbortHandle,
    /// The service may be there again.
    again: Arc<Notify>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The stack's descriptor, as the runtime wants it.
fn watch(stack: &super::Stack) -> io::Result<AsyncFd<OwnedFd>> {
    let descriptor = stack.descriptor().try_clone_to_owned()?;
    // The newer constructor is unsafe for the sake of types that do not keep their descriptor open; this one does.
    #[allow(deprecated, reason = "the descriptor is owned by what is handed over")]
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

/// An application's place at a host. Clones are the same.
#[derive(Clone, Debug)]
pub struct Stack {
    shared: Arc<Shared>,
}

impl Stack {
    /// Attaches to the service at that socket.
    ///
    /// # Errors
    /// As [`super::Stack::attach`], and [`Error::System`] when the runtime cannot watch the stack.
    ///
    /// # Panics
    /// Like all that makes a stack: outside of a Tokio runtime, or in one without I/O.
    pub async fn attach(socket: impl Into<PathBuf>) -> Result<Self, Error> {
        Self::from_config(Config { socket: socket.into(), ..Config::default() }).await
    }

    /// Attaches as a configuration says.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub async fn from_config(config: Config) -> Result<Self, Error> {
        Self::new(elsewhere(move || super::Stack::from_config(&config)).await?)
    }

    /// Attaches as the environment says; see [`Config`].
    ///
    /// # Errors
    /// As [`Self::attach`], and [`Error::Config`].
    pub async fn from_environment() -> Result<Self, Error> {
        Self::new(elsewhere(super::Stack::from_environment).await?)
    }

    /// A stack over an attachment, for example to a host in the same process.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn over(attachment: Attachment) -> Result<Self, Error> {
        Self::new(super::Stack::over(attachment)?)
    }

    /// The asynchronous face of a stack. Its calls that block work on, in threads; [`super::Stack::poll`] is not to be used
    /// any more, since this face takes the news.
    ///
    /// # Errors
    /// [`Error::Unfit`] when the stack has such a face already; as [`Self::attach`].
    pub fn new(stack: super::Stack) -> Result<Self, Error> {
        let runtime = Handle::current();
        let blocking = runtime.clone();
        let sweeper = Box::new(move |job: Box<dyn FnOnce() + Send>| drop(blocking.spawn_blocking(job)));
        if stack.0.sweeper.set(sweeper).is_err() {
            return Err(Error::Unfit("a stack has one asynchronous face; clone that one"));
        }
        let watch = watch(&stack).map_err(|error| Error::system("the runtime cannot watch the stack", &error))?;
        stack.0.lock().has_tasks = true;
        let board = Arc::new(Board::default());
        let again = Arc::new(Notify::new());
        let driver = drive(stack.clone(), watch, Arc::clone(&board), Arc::clone(&again));
        let driver = runtime.spawn(driver).abort_handle();
        Ok(Self { shared: Arc::new(Shared { stack, board, runtime, driver, again }) })
    }

    /// The same stack with calls that block.
    #[must_use]
    pub fn blocking(&self) -> &super::Stack {
        &self.shared.stack
    }

    /// What the application may have.
    #[must_use]
    pub fn limits(&self) -> Attached {
        self.shared.stack.limits()
    }

    /// Attaches anew when the service is gone; see [`super::Stack::reattach`], which is not to be called on
    /// [`Self::blocking`] instead: this one has the tasks go on, too.
    ///
    /// # Errors
    /// As [`super::Stack::reattach`].
    pub async fn reattach(&self) -> Result<(), Error> {
        let stack = self.shared.stack.clone();
        elsewhere(move || stack.reattach()).await?;
        self.shared.again.notify_one();
        Ok(())
    }

    /// A session of that protocol.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::ServiceGone`].
    pub fn create(&self, protocol: Protocol) -> Result<Session, Error> {
        let number = self.shared.stack.create(protocol)?;
        self.shared.stack.set_nonblocking(number, true)?;
        Ok(Session::new(Arc::clone(&self.shared), number, None))
    }
}

/// Does what may block where that is allowed.
async fn elsewhere<T: Send + 'static>(call: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match spawn_blocking(call).await {
        Ok(done) => done,
        Err(error) => Err(Error::system("the runtime ends", &error)),
    }
}

/// Takes what comes in, and wakes those whom it concerns, until the last handle is gone.
async fn drive(stack: super::Stack, watch: AsyncFd<OwnedFd>, board: Arc<Board>, again: Arc<Notify>) -> io::Result<()> {
    let mut sessions = Vec::new();
    loop {
        match stack.touched(&mut sessions) {
            Ok(0) => watch.readable().await?.clear_ready(),
            Ok(_) => {
                board.wake(&mut sessions);
                // Those that were woken come first.
                yield_now().await;
            }
            Err(_) => {
                board.wake_all();
                // The service is gone, until somebody attaches anew.
                again.notified().await;
            }
        }
    }
}

impl Shared {
    /// The session has a handle.
    fn enter(&self, number: Number) -> Arc<Signal> {
        let signal = Arc::default();
        self.board.lock().insert(number.0, Arc::downgrade(&signal));
        signal
    }
}

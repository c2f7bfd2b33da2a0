//! Where other threads leave ports and questions for the worker.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use courser_session::port::WorkerPort;

use super::rows::Row;

/// Somebody wants to know which sessions there are.
pub(super) struct Question {
    /// At most so many.
    pub(super) most: usize,
    reply: SyncSender<Vec<Row>>,
}

impl Question {
    pub(super) fn answer(&self, rows: Vec<Row>) {
        // Whoever asked may have given up.
        let _ = self.reply.try_send(rows);
    }
}

/// What waits for the worker.
#[derive(Default)]
pub(super) struct Arrivals {
    pub(super) ports: Vec<WorkerPort>,
    pub(super) questions: Vec<Question>,
    /// The worker is to end.
    pub(super) stop: bool,
    /// The worker is gone and looks no more.
    closed: bool,
}

/// What a worker shares with the threads that attach ports to it.
#[derive(Default)]
pub(super) struct Door {
    arrivals: Mutex<Arrivals>,
    /// Whether `arrivals` has news; spares the worker the lock.
    news: AtomicBool,
    /// Sockets that listen for TCP, by their addresses, as long as the worker has them.
    listeners: Mutex<Vec<(SocketAddr, Weak<OwnedFd>)>>,
}

impl Door {
    fn listeners(&self) -> MutexGuard<'_, Vec<(SocketAddr, Weak<OwnedFd>)>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Others may have that socket while whoever shows it keeps it.
    pub(super) fn show(&self, at: SocketAddr, socket: &Arc<OwnedFd>) {
        let mut listeners = self.listeners();
        listeners.retain(|(_, socket)| socket.strong_count() > 0);
        listeners.push((at, Arc::downgrade(socket)));
    }

    pub(super) fn listener(&self, at: SocketAddr) -> Option<Arc<OwnedFd>> {
        self.listeners().iter().find_map(|(known, socket)| (*known == at).then(|| socket.upgrade()).flatten())
    }

    fn lock(&self) -> MutexGuard<'_, Arrivals> {
        // Lists and flags: a panic elsewhere cannot leave them half changed.
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what waits for the worker, which has to be woken then. What comes to a worker that is gone is dropped.
    fn leave(&self, change: impl FnOnce(&mut Arrivals)) {
        let mut arrivals = self.lock();
        if !arrivals.closed {
            change(&mut arrivals);
        }
        drop(arrivals);
        self.news.store(true, Ordering::Release);
    }

    pub(super) fn attach(&self, port: WorkerPort) {
        self.leave(|arrivals| arrivals.ports.push(port));
    }

    pub(super) fn ask(&self, most: usize) -> Receiver<Vec<Row>> {
        let (reply, answer) = sync_channel(1);
        self.leave(|arrivals| arrivals.questions.push(Question { most, reply }));
        answer
    }

    pub(super) fn stop(&self) {
        self.leave(|arrivals| arrivals.stop = true);
    }

    /// What is new for the worker, if anything is.
    pub(super) fn look(&self) -> Option<Arrivals> {
        if !self.news.swap(false, Ordering::AcqRel) {
            return None;
        }
        Some(std::mem::take(&mut *self.lock()))
    }

    /// Whether there is something new for the worker.
    pub(super) fn has_news(&self) -> bool {
        self.news.load(Ordering::Acquire)
    }

    /// The worker is gone: whoever comes from now on, or waits, is told at once.
    pub(super) fn shut(&self) {
        let closed = Arrivals { closed: true, ..Arrivals::default() };
        // What is dropped tells those who wait.
        let left = std::mem::replace(&mut *self.lock(), closed);
        drop(left);
    }
}

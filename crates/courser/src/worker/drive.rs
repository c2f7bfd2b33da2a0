//! Drivers for threads: the calling one, or one of the worker's own.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use courser_core::time::Instant;

use super::machine::Machine;
use super::{Waker, Worker};

impl<M: Machine> Worker<M> {
    /// Takes turns in the calling thread until `app` breaks; `app` is called once per turn, between receiving and
    /// sending, and once more has its say before the worker waits only if something happened.
    ///
    /// # Errors
    /// When the socket has failed or the system cannot wait.
    pub fn run(&mut self, app: &mut dyn FnMut(&mut M, Instant) -> ControlFlow<()>) -> io::Result<()> {
        loop {
            let mut flow = ControlFlow::Continue(());
            let turn = self.turn_with(&mut |machine, now| flow = app(machine, now))?;
            if flow.is_break() {
                return Ok(());
            }
            if !turn.progressed {
                self.wait(&turn)?;
            }
        }
    }
}

impl<M: Machine + Send + 'static> Worker<M> {
    /// Takes turns in a thread of its own until `app` breaks or [`Running::stop`] is called.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(
        mut self,
        name: &str,
        mut app: impl FnMut(&mut M, Instant) -> ControlFlow<()> + Send + 'static,
    ) -> io::Result<Running<M>> {
        let stop = Arc::new(AtomicBool::new(false));
        let waker = self.waker();
        let asked = Arc::clone(&stop);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            let result = self.run(&mut |machine, now| {
                let flow = app(machine, now);
                if asked.load(Ordering::Acquire) { ControlFlow::Break(()) } else { flow }
            });
            (self, result)
        })?;
        Ok(Running { stop, waker, thread: Some(thread) })
    }
}

/// A worker in a thread of its own. Dropped, it stops the thread and waits for its end.
pub struct Running<M> {
    stop: Arc<AtomicBool>,
    waker: Waker,
    /// `None` once joined.
    thread: Option<JoinHandle<(Worker<M>, io::Result<()>)>>,
}

impl<M> Running<M> {
    /// What makes the worker take a turn.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Asks the worker to stop after one more turn and waits for that.
    ///
    /// # Errors
    /// What ended the worker early: the socket failed, or the application panicked.
    pub fn stop(mut self) -> io::Result<Worker<M>> {
        self.end().unwrap_or_else(|| Err(io::Error::other("the worker was stopped before")))
    }

    fn end(&mut self) -> Option<io::Result<Worker<M>>> {
        let thread = self.thread.take()?;
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        Some(match thread.join() {
            Ok((worker, Ok(()))) => Ok(worker),
            Ok((_, Err(e))) => Err(e),
            Err(_) => Err(io::Error::other("the worker's thread panicked")),
        })
    }
}

impl<M> Drop for Running<M> {
    fn drop(&mut self) {
        // The outcome is for those who ask with `stop`.
        let _ = self.end();
    }
}

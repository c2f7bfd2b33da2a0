//! A server: a program for every connection that comes in, until the process is asked to end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use courser::worker::{Waker, Worker, WorkerStats};
use courser_core::engine::{ConnStats, Engine, Event as EngineEvent};
use courser_core::time::Instant;

use super::drive::{self, DONE, Events, Said, WAIT};
use super::table::Table;
use super::{Link, Peer, tell};
use crate::failure::{Failure, Moved, Outcome};
use crate::output::Ui;
use crate::transport::App;

/// Application error code of a connection whose program failed.
const CODE_FAILED: u64 = 2;

/// What a server's owner may want to know.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A program failed; its connection is closed.
    Failed(&'a Failure),
    /// A connection ended; what it counted.
    Ended(&'a ConnStats),
    /// A worker among several has ended; its number, the connections that it took, what it counted.
    Left(usize, u64, &'a WorkerStats),
}

/// Tells workers to end.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
}

impl Stop {
    /// Whether they are to end.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Asks them; `wakers` are theirs.
    pub fn ask(&self, wakers: &[Waker]) {
        self.asked.store(true, Ordering::Release);
        wakers.iter().for_each(Waker::wake);
    }

    /// Fails once they are to end.
    ///
    /// # Errors
    /// They are; what was moved until then is for the caller to say.
    pub fn check(&self) -> Outcome {
        if self.is_asked() { Err(Failure::Interrupted(Moved::default())) } else { Ok(()) }
    }

    /// One that the signals of [`Stop::listen`] ask.
    ///
    /// # Errors
    /// The system gives no thread, or no signals.
    pub fn on_signals(wakers: Vec<Waker>) -> Outcome<Self> {
        let stop = Self::default();
        stop.listen(wakers)?;
        Ok(stop)
    }

    /// From the return on it is asked when the process gets SIGTERM or is interrupted.
    ///
    /// # Errors
    /// The system gives no thread, or no signals.
    pub fn listen(&self, wakers: Vec<Waker>) -> Outcome {
        let (ready, wait) = mpsc::sync_channel(1);
        let asked = self.clone();
        let failed = |e: io::Error| Failure::local("waiting for signals", &e);
        thread::Builder::new()
            .name("courser-signals".into())
            .spawn(move || {
                // Nobody may wait for the answer any more.
                if let Err(e) = watch(|| drop(ready.send(Ok(())))) {
                    let _ = ready.send(Err(e));
                }
                asked.ask(&wakers);
            })
            .map_err(failed)?;
        wait.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended"))).map_err(failed)
    }
}

/// Returns after a signal that asks to end; `ready` is called when none can be missed any more.
fn watch(ready: impl FnOnce()) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let mut term = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            ready();
            std::future::poll_fn(|cx| {
                if term.poll_recv(cx).is_ready() { std::task::Poll::Ready(Some(())) } else { interrupt.poll_recv(cx) }
            })
            .await;
            Ok(())
        }
        #[cfg(not(unix))]
        {
            ready();
            tokio::signal::ctrl_c().await
        }
    })
}

/// One worker's connections and their programs.
struct Server<'a, A, M> {
    apps: Table<A>,
    make: M,
    watch: &'a dyn Fn(Seen<'_>),
    peer: Peer,
    stop: &'a Stop,
}

impl<A: App, M: FnMut() -> A> Server<'_, A, M> {
    fn step(&mut self, engine: &mut Engine, now: Instant) -> Said {
        let mut events = Events::of_step();
        while let Some((key, event)) = events.next(engine) {
            let mut link = Link { engine, key, now };
            match event {
                EngineEvent::Accepted => self.apps.insert(key, (self.make)()),
                EngineEvent::Closed(_) => {
                    if let Ok(stats) = link.engine.conn_stats(key) {
                        (self.watch)(Seen::Ended(&stats));
                    }
                    if let Some(mut app) = self.apps.remove(key) {
                        // The end of a client's connection is the client's business.
                        let _ = tell(&mut link, event, &mut app, &self.peer);
                    }
                }
                event => {
                    let Some(app) = self.apps.get_mut(key) else { continue };
                    if let Err(e) = tell(&mut link, event, app, &self.peer) {
                        (self.watch)(Seen::Failed(&e));
                        let _ = engine.close(now, key, CODE_FAILED, b"");
                    }
                }
            }
        }
        if !self.stop.is_asked() {
            return Ok(events.then(now, WAIT));
        }
        let keys: Vec<_> = engine.keys().collect();
        for key in keys {
            let _ = engine.close(now, key, 0, b"the server ends");
        }
        Ok(DONE)
    }
}

/// Serves until `stop` is asked; then closes every connection.
///
/// # Errors
/// The socket failed.
pub fn serve<A: App>(
    worker: &mut Worker<Engine>,
    stop: &Stop,
    make: impl FnMut() -> A,
    watch: &dyn Fn(Seen<'_>),
) -> Outcome {
    let peer = Peer { name: "the client".into(), patience: std::time::Duration::ZERO };
    let mut server = Server { apps: Table::default(), make, watch, peer, stop };
    drive::drive(worker, &mut |engine, now| server.step(engine, now))?;
    drive::flush(worker);
    Ok(())
}

/// Serves with all of the workers, each in a thread of its own but the last, which has this one.
///
/// # Errors
/// A socket failed, or the system gives no thread.
pub fn serve_all<A: App>(
    mut workers: Vec<Worker<Engine>>,
    stop: &Stop,
    make: impl FnMut() -> A + Clone + Send,
    watch: &(dyn Fn(Seen<'_>) + Sync),
) -> Outcome {
    let wakers: Vec<_> = workers.iter().map(Worker::waker).collect();
    let Some(mut own) = workers.pop() else { return Ok(()) };
    thread::scope(|scope| {
        let mut others = Vec::new();
        let last = workers.len();
        for (n, mut worker) in workers.into_iter().enumerate() {
            let make = make.clone();
            let thread = thread::Builder::new().name(format!("courser-{n}")).spawn_scoped(scope, move || {
                let outcome = serve(&mut worker, stop, make, &|seen| watch(seen));
                watch(Seen::Left(n, worker.machine().stats().accepted, &worker.stats()));
                outcome
            });
            match thread {
                Ok(t) => others.push(t),
                Err(e) => {
                    stop.ask(&wakers);
                    return Err(Failure::local("starting a thread", &e));
                }
            }
        }
        let mut outcome = serve(&mut own, stop, make, &|seen| watch(seen));
        if last > 0 {
            watch(Seen::Left(last, own.machine().stats().accepted, &own.stats()));
        }
        if outcome.is_err() {
            stop.ask(&wakers);
        }
        for t in others {
            let ended = t
                .join()
                .unwrap_or_else(|_| Err(Failure::Local { what: "a serving thread".into(), why: "it panicked".into() }));
            outcome = outcome.and(ended);
        }
        outcome
    })
}

/// What one of several workers did, as a sentence.
#[must_use]
pub fn left_line(number: usize, accepted: u64, stats: &WorkerStats) -> String {
    format!(
        "worker {number} took {accepted} connections; of {} trains {} datagrams were for others ({} found no room), others had {} for it",
        stats.trains_received, stats.misrouted, stats.forward_dropped, stats.received_from_mates
    )
}

/// Failures of connections as warnings, and at the end what each of several workers did.
pub fn warner(ui: &Ui) -> impl Fn(Seen<'_>) + Sync {
    |seen| match seen {
        Seen::Failed(failure) => ui.warn(failure),
        Seen::Left(number, accepted, stats) => ui.note(left_line(number, accepted, stats)),
        Seen::Ended(_) => {}
    }
}

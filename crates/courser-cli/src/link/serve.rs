//! A server: a program for every connection that comes in, until the process is asked to end.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use courser::Handover;
use courser::worker::{Waker, Worker, WorkerStats};
use courser_core::engine::{ConnStats, Engine, Event as EngineEvent};
use courser_core::time::Instant;
use courser_tls::ServerConfig as TlsServer;

use super::drive::{self, DONE, Events, Said, WAIT};
use super::table::Table;
use super::{Link, Peer, tell};
use crate::failure::{Failure, Moved, Outcome};
use crate::operate::{Operated, Operator, Wish, signals};
use crate::output::Ui;
use crate::transport::App;

/// Application error code of a connection whose program failed.
const CODE_FAILED: u64 = 2;
/// How often a worker that takes no more connections looks whether one is left.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

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
    orders: Arc<Orders>,
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
        let asked = self.clone();
        signals::first(move || asked.ask(&wakers))
    }
}

/// What an operator wants of workers that go on serving.
#[derive(Debug, Default)]
struct Orders {
    /// Changes with each order.
    number: AtomicU64,
    wanted: Mutex<Wanted>,
    /// Called when a worker has no connection left.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Wanted {
    /// New connections are taken with this.
    tls: Option<TlsServer>,
    /// No new connections are taken.
    draining: bool,
    /// Workers that take none and have none left.
    empty: usize,
}

impl Orders {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, wakers: &[Waker], change: impl FnOnce(&mut Wanted)) {
        change(&mut self.wanted());
        self.number.fetch_add(1, Ordering::Release);
        wakers.iter().for_each(Waker::wake);
    }
}

/// Workers that call straight into their engines, for an operator.
pub struct Directed<'a> {
    stop: &'a Stop,
    wakers: &'a [Waker],
}

impl Operated for Directed<'_> {
    fn drain(&self, limit: Duration) -> bool {
        let orders = &self.stop.orders;
        orders.give(self.wakers, |wanted| wanted.draining = true);
        let all = self.wakers.len();
        // Without a limit it is the end of the last connection that ends it.
        let limit = limit.min(Duration::from_secs(u32::MAX.into()));
        let waited = orders.changed.wait_timeout_while(orders.wanted(), limit, |wanted| wanted.empty < all);
        waited.unwrap_or_else(PoisonError::into_inner).0.empty >= all
    }

    fn reload(&self, tls: TlsServer) -> Outcome {
        self.stop.orders.give(self.wakers, |wanted| wanted.tls = Some(tls));
        Ok(())
    }

    fn hand_over(&self) -> Outcome<Handover> {
        let why = "with --api direct this program owns its engines; start it with --api tokio, blocking or session";
        Err(Failure::Local { what: "giving the port away".into(), why: why.into() })
    }
}

/// One worker's connections and their programs.
struct Server<'a, A, M> {
    apps: Table<A>,
    make: M,
    watch: &'a dyn Fn(Seen<'_>),
    peer: Peer,
    stop: &'a Stop,
    /// The last order that was carried out.
    order: u64,
    drain: Drain,
}

/// Whether a worker still takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    /// It has some left.
    Waiting,
    /// It has none left, and that was told.
    Told,
}

impl<A: App, M: FnMut() -> A> Server<'_, A, M> {
    /// Does what the operator wants since the last look.
    fn obey(&mut self, engine: &mut Engine, number: u64) {
        self.order = number;
        let wanted = self.stop.orders.wanted();
        if let Some(tls) = &wanted.tls {
            engine.replace_tls(Box::new(tls.clone()));
        }
        if wanted.draining && self.drain == Drain::No {
            self.drain = Drain::Waiting;
            engine.set_cooldown(true);
        }
    }

    /// Tells, once, that no connection is left.
    fn tell_empty(&mut self) {
        if std::mem::replace(&mut self.drain, Drain::Told) != Drain::Told {
            self.stop.orders.wanted().empty += 1;
            self.stop.orders.changed.notify_all();
        }
    }

    fn step(&mut self, engine: &mut Engine, now: Instant) -> Said {
        let number = self.stop.orders.number.load(Ordering::Acquire);
        if number != self.order {
            self.obey(engine, number);
        }
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
            if self.drain != Drain::Waiting {
                return Ok(events.then(now, WAIT));
            }
            if engine.connections() == 0 {
                self.tell_empty();
            }
            return Ok(events.then(now, ControlFlow::Continue(Some(now + DRAIN_LOOK))));
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
    let mut server = Server { apps: Table::default(), make, watch, peer, stop, order: 0, drain: Drain::No };
    let outcome = drive::drive(worker, &mut |engine, now| server.step(engine, now));
    // Nobody waits for a worker that is over.
    server.tell_empty();
    outcome?;
    drive::flush(worker);
    Ok(())
}

/// The same as [`serve_all`], until an operator ends it.
///
/// # Errors
/// As [`serve_all`], and when the system gives no signals.
pub fn serve_operated<A: App>(
    workers: Vec<Worker<Engine>>,
    operator: &Operator<'_>,
    ready: impl FnOnce(),
    make: impl FnMut() -> A + Clone + Send,
    watch: &(dyn Fn(Seen<'_>) + Sync),
) -> Outcome {
    let wakers: Vec<_> = workers.iter().map(Worker::waker).collect();
    let (stop, wishes) = (Stop::default(), operator.listen()?);
    ready();
    thread::scope(|scope| {
        let (stop, wakers) = (&stop, &wakers[..]);
        scope.spawn(move || operator.attend(wishes.told, &Directed { stop, wakers }, &|| stop.ask(wakers)));
        let outcome = serve_all(workers, stop, make, watch);
        let _ = wishes.tell.send(Wish::Over);
        outcome
    })
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

//! An echo client's job: connections among threads, which step from phase to phase together.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant as Wall};

use courser::worker::{Waker, Worker};
use courser_core::engine::{Engine, Event as EngineEvent};
use courser_core::ids::ConnKey;
use courser_core::time::Instant;

use super::drive::{self, DONE, Dial, Said};
use super::table::Table;
use super::{Link, tell};
use crate::apps::body::Counter;
use crate::apps::echo::EchoClient;
use crate::failure::{Failure, Moved, Outcome};
use crate::report::echo::EchoReport;
use crate::transport::App;

/// Phases, by number; the last one is over when all connections are gone.
const CONNECT: u8 = 0;
const OPEN: u8 = 1;
const TRANSFER: u8 = 2;
const CLOSE: u8 = 3;
const OVER: u8 = 4;

/// A server that lets no further stream be open for so long lets none be open at all: none is closed meanwhile.
const STREAM_PATIENCE: Duration = Duration::from_secs(2);

/// What is to be done.
#[derive(Clone, Debug)]
pub struct EchoJob {
    /// Connections.
    pub connections: u64,
    /// Streams on each.
    pub streams: u64,
    /// Bytes on each stream.
    pub bytes: u64,
    /// How long a phase may take.
    pub timeout: Duration,
}

impl EchoJob {
    /// What it came to: bytes that came back, and when each phase began and the last one ended.
    #[must_use]
    pub fn report(&self, bytes: u64, began: &[std::time::Instant]) -> EchoReport {
        let took = |phase: u8| {
            let at = |n: u8| began.get(usize::from(n)).copied();
            at(phase).zip(at(phase + 1)).map_or(0.0, |(from, to)| to.duration_since(from).as_secs_f64())
        };
        let report = EchoReport {
            connections: self.connections,
            streams: self.streams,
            bytes,
            verified: bytes == self.connections * self.streams * self.bytes,
            connect_s: took(CONNECT),
            open_s: took(OPEN),
            transfer_s: took(TRANSFER),
            close_s: took(CLOSE),
            ..EchoReport::default()
        };
        report.with_rates()
    }
}

/// What the threads share.
struct Shared {
    /// The phase that everybody is in.
    phase: AtomicU8,
    /// Threads that are through with it.
    arrived: AtomicUsize,
    threads: usize,
    /// Somebody failed: all stop.
    failed: AtomicBool,
    /// When each phase began.
    began: Mutex<Vec<Wall>>,
    wakers: Vec<Waker>,
}

impl Shared {
    /// A thread is through with the phase; the last one begins the next.
    fn arrive(&self, phase: u8) {
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Release);
            self.began.lock().unwrap_or_else(PoisonError::into_inner).push(Wall::now());
            self.phase.store(phase + 1, Ordering::Release);
            self.wake();
        }
    }

    fn wake(&self) {
        self.wakers.iter().for_each(Waker::wake);
    }
}

/// Does the job with as many threads as workers.
///
/// # Errors
/// The first failure of any thread.
pub fn run(mut workers: Vec<Worker<Engine>>, dial: &Dial<'_>, job: &EchoJob) -> Outcome<EchoReport> {
    let start = Wall::now();
    let Some(first) = workers.first_mut() else { return Ok(EchoReport::default()) };
    let seconds = || start.elapsed().as_secs_f64();
    let reached =
        drive::reach(first, dial).map_err(|e| e.having_moved(|| Moved { seconds: seconds(), ..Moved::default() }));
    if reached.is_err() {
        drive::close_all(first, &reached);
    }
    let (key, addr) = reached?;
    let shared = Shared {
        phase: AtomicU8::new(CONNECT),
        arrived: AtomicUsize::new(0),
        threads: workers.len(),
        failed: AtomicBool::new(false),
        began: Mutex::new(vec![start]),
        wakers: workers.iter().map(Worker::waker).collect(),
    };
    let (received, streams) = (Counter::default(), Counter::default());
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let (shared, received, streams, threads) = (&shared, &received, &streams, workers.len() as u64);
        let mut running = Vec::new();
        for (n, mut worker) in (0..).zip(workers) {
            let own = (n..job.connections).step_by(usize::try_from(threads).unwrap_or(1));
            let up = (n == 0).then_some(key);
            running.push(scope.spawn(move || {
                let mut part = Part::new(dial, job, shared, worker.clock().now());
                let outcome = part.begin(&mut worker, addr, own, up, received).and_then(|()| part.run(&mut worker));
                if outcome.is_err() {
                    shared.failed.store(true, Ordering::Release);
                    shared.wake();
                }
                part.apps.iter_mut().for_each(|(_, app)| streams.add(app.ended()));
                outcome
            }));
        }
        let panicked = || Failure::Local { what: "a client's thread".into(), why: "it panicked".into() };
        running.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(panicked()))).collect()
    });
    let moved = || Moved { bytes: received.get(), streams: streams.get(), seconds: seconds() };
    outcomes.into_iter().collect::<Outcome>().map_err(|e| e.having_moved(moved))?;
    let began = shared.began.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(job.report(received.get(), &began))
}

/// One thread's part.
struct Part<'a> {
    dial: &'a Dial<'a>,
    job: &'a EchoJob,
    shared: &'a Shared,
    apps: Table<EchoClient>,
    /// Connections that are up.
    up: usize,
    phase: u8,
    /// Whether this thread is through with the phase.
    arrived: bool,
    phase_began: Instant,
}

impl<'a> Part<'a> {
    fn new(dial: &'a Dial<'a>, job: &'a EchoJob, shared: &'a Shared, now: Instant) -> Self {
        Self { dial, job, shared, apps: Table::default(), up: 0, phase: CONNECT, arrived: false, phase_began: now }
    }

    /// Begins connections to `addr` with the numbers `own`; `up` is the first of them when it is there already.
    fn begin(
        &mut self,
        worker: &mut Worker<Engine>,
        addr: SocketAddr,
        own: impl Iterator<Item = u64>,
        mut up: Option<ConnKey>,
        received: &Counter,
    ) -> Outcome {
        self.up = usize::from(up.is_some());
        for index in own {
            let key = match up.take() {
                Some(key) => key,
                None => self.dial.connect(worker.machine(), self.phase_began, addr)?,
            };
            self.apps.insert(key, EchoClient::new(index, self.job.streams, self.job.bytes, received.clone()));
        }
        Ok(())
    }

    fn run(&mut self, worker: &mut Worker<Engine>) -> Outcome {
        let outcome = drive::drive(worker, &mut |engine, now| self.step(engine, now));
        drive::close_all(worker, &outcome);
        outcome
    }

    fn close(&mut self, engine: &mut Engine, now: Instant) {
        for (key, _) in self.apps.iter_mut() {
            // One that closes already goes on doing so.
            let _ = engine.close(now, key, 0, b"");
        }
    }

    fn step(&mut self, engine: &mut Engine, now: Instant) -> Said {
        while let Some((key, event)) = engine.poll_event() {
            let Some(app) = self.apps.get_mut(key) else { continue };
            self.up += usize::from(event == EngineEvent::Connected);
            tell(&mut Link { engine, key, now }, event, app, self.dial.peer)?;
        }
        if self.shared.failed.load(Ordering::Acquire) {
            return Ok(DONE);
        }
        self.dial.stop.check()?;
        // A thread alone goes through several phases in one step.
        loop {
            if !self.arrived && self.is_through(engine) {
                self.arrived = true;
                self.shared.arrive(self.phase);
            }
            let phase = self.shared.phase.load(Ordering::Acquire);
            if phase == self.phase {
                break;
            }
            (self.phase, self.arrived, self.phase_began) = (phase, false, now);
            match phase {
                OVER => return Ok(DONE),
                CLOSE => self.close(engine, now),
                _ => self.enter(engine, now)?,
            }
        }
        self.check_time(now)
    }

    fn enter(&mut self, engine: &mut Engine, now: Instant) -> Outcome {
        for (key, app) in self.apps.iter_mut() {
            let mut link = Link { engine, key, now };
            if self.phase == OPEN { app.open(&mut link)? } else { app.transfer(&mut link)? }
        }
        Ok(())
    }

    fn is_through(&mut self, engine: &Engine) -> bool {
        match self.phase {
            CONNECT => self.up >= self.apps.len(),
            OPEN => self.apps.iter_mut().all(|(_, app)| app.is_open()),
            TRANSFER => self.apps.iter_mut().all(|(_, app)| app.done()),
            _ => engine.connections() == 0,
        }
    }

    fn check_time(&mut self, now: Instant) -> Said {
        let late = self.phase_began + self.job.timeout;
        let short = self.phase_began + STREAM_PATIENCE;
        if self.phase == OPEN && now >= short.min(late) {
            let wanted = self.job.streams;
            if let Some(allowed) = self.apps.iter_mut().map(|(_, a)| a.opened()).find(|n| *n < wanted) {
                return Err(Failure::StreamLimit { allowed, wanted });
            }
        }
        if now >= late {
            return Err(Failure::TimeOut { after: self.job.timeout });
        }
        Ok(ControlFlow::Continue(Some(if self.phase == OPEN && now < short { short.min(late) } else { late })))
    }
}

//! A perf client's job, by calls straight into the engine: the connections, the measured window, the result.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant as Wall};

use courser::worker::Worker;
use courser_core::engine::{Engine, Event as EngineEvent};
use courser_core::ids::ConnKey;
use courser_core::time::Instant;

use super::drive::{self, DONE, Dial, Said};
use super::table::Table;
use super::{Link, tell};
use crate::apps::body::Counter;
use crate::apps::perf_client::PerfClient;
use crate::apps::perf_server::Content;
use crate::failure::{Failure, Outcome};
use crate::job::{Job, Mode};
use crate::measure::{self, Latencies, Meter, Usage};
use crate::report::perf::{Growth, PerfResult};
use crate::transport::App;

/// Does the job.
///
/// # Errors
/// Why it was not done.
pub fn run(worker: &mut Worker<Engine>, dial: &Dial<'_>, job: &Job, content: &Content) -> Outcome<PerfResult> {
    let deadline = worker.clock().now() + job.timeout;
    let outcome = if job.mode.connects() {
        Many::new(dial, job, content, deadline).run(worker)
    } else {
        Few::new(dial, job, content, deadline).run(worker)
    };
    close_all(worker);
    let mut result = outcome?;
    result.max_udp_payload = dial.settings.max_udp_payload;
    result.verified = matches!(content, Content::Pattern);
    Ok(result)
}

fn close_all(worker: &mut Worker<Engine>) {
    let now = worker.clock().now();
    let engine = worker.machine();
    let keys: Vec<_> = engine.keys().collect();
    for key in keys {
        // One that closes already goes on doing so.
        let _ = engine.close(now, key, 0, b"");
    }
    drive::flush(worker);
}

/// Fails when the time is over.
fn check_time(now: Instant, deadline: Instant, job: &Job) -> Outcome {
    if now < deadline { Ok(()) } else { Err(Failure::TimeOut { after: job.timeout }) }
}

/// The modes that have all their connections first and are measured then.
struct Few<'a> {
    dial: &'a Dial<'a>,
    job: &'a Job,
    content: &'a Content,
    deadline: Instant,
    apps: Table<PerfClient>,
    /// Connections that are up.
    up: u64,
    /// Connections that have done their part.
    done: u64,
    /// Runs once all connections are up.
    meter: Option<Meter>,
    measured: Option<(f64, Usage)>,
}

impl<'a> Few<'a> {
    fn new(dial: &'a Dial<'a>, job: &'a Job, content: &'a Content, deadline: Instant) -> Self {
        Self { dial, job, content, deadline, apps: Table::default(), up: 0, done: 0, meter: None, measured: None }
    }

    fn app(&self) -> PerfClient {
        PerfClient::new(self.job.plan(self.content.clone()), Counter::default())
    }

    fn run(mut self, worker: &mut Worker<Engine>) -> Outcome<PerfResult> {
        let (first, addr) = drive::reach(worker, self.dial)?;
        self.apps.insert(first, self.app());
        self.up = 1;
        let now = worker.clock().now();
        for _ in 1..self.job.total_conns() {
            let key = self.dial.connect(worker.machine(), now, addr)?;
            self.apps.insert(key, self.app());
        }
        drive::drive(worker, &mut |engine, now| self.step(engine, now))?;
        let (seconds, usage) = self.measured.unwrap_or_default();
        let (mut ended, mut times) = (0, Latencies::default());
        for (_, app) in self.apps.iter_mut() {
            ended += app.ended();
            times.append(app.times());
        }
        Ok(PerfResult::new(self.job, ended, seconds, usage, &mut times))
    }

    fn step(&mut self, engine: &mut Engine, now: Instant) -> Said {
        while let Some((key, event)) = engine.poll_event() {
            let Some(app) = self.apps.get_mut(key) else { continue };
            self.up += u64::from(event == EngineEvent::Connected);
            let was_done = app.done();
            tell(&mut Link { engine, key, now }, event, app, self.dial.peer)?;
            self.done += u64::from(app.done() && !was_done);
        }
        if self.meter.is_none() && self.up == self.job.total_conns() {
            self.meter = Some(Meter::start());
            for (key, app) in self.apps.iter_mut() {
                app.start(&mut Link { engine, key, now })?;
                // There may be nothing to do.
                self.done += u64::from(app.done());
            }
        }
        if self.done == self.job.total_conns() {
            self.measured = self.meter.map(|m| m.stop());
            return Ok(DONE);
        }
        check_time(now, self.deadline, self.job)?;
        Ok(ControlFlow::Continue(Some(self.deadline)))
    }
}

/// A connection of the modes that measure connections.
struct Visit {
    app: PerfClient,
    started: Wall,
    done: bool,
}

/// The modes in which every transaction has a connection of its own.
struct Many<'a> {
    dial: &'a Dial<'a>,
    job: &'a Job,
    content: &'a Content,
    deadline: Instant,
    /// The address that answered.
    addr: Option<SocketAddr>,
    visits: Table<Visit>,
    begun: u64,
    ended: u64,
    times: Latencies,
    meter: Meter,
    measured: Option<(f64, Usage)>,
    /// When the connections have been idle for long enough.
    hold: Option<Instant>,
}

impl<'a> Many<'a> {
    fn new(dial: &'a Dial<'a>, job: &'a Job, content: &'a Content, deadline: Instant) -> Self {
        Self {
            dial,
            job,
            content,
            deadline,
            addr: None,
            visits: Table::default(),
            begun: 0,
            ended: 0,
            times: Latencies::with_capacity(usize::try_from(job.count).unwrap_or(0)),
            meter: Meter::start(),
            measured: None,
            hold: None,
        }
    }

    fn run(mut self, worker: &mut Worker<Engine>) -> Outcome<PerfResult> {
        self.addr = Some(match self.dial.addrs {
            [only] => *only,
            _ => {
                // Which address answers is found out before anything is measured.
                let (key, addr) = drive::reach(worker, self.dial)?;
                let now = worker.clock().now();
                let _ = worker.machine().close(now, key, 0, b"");
                addr
            }
        });
        let server = || self.job.server_pid.and_then(measure::rss_kb);
        let client = || measure::rss_kb(std::process::id());
        let before = (server(), client());
        self.meter = Meter::start();
        drive::drive(worker, &mut |engine, now| self.step(engine, now))?;
        let server = || self.job.server_pid.and_then(measure::rss_kb);
        let growth = |before: Option<u64>, after: Option<u64>| Some(Growth { before: before?, after: after? });
        let (seconds, usage) = self.measured.unwrap_or_default();
        let mut result = PerfResult::new(self.job, self.ended, seconds, usage, &mut self.times);
        result.server = growth(before.0, server());
        result.client = growth(before.1, client());
        Ok(result)
    }

    fn step(&mut self, engine: &mut Engine, now: Instant) -> Said {
        while let Some((key, event)) = engine.poll_event() {
            self.on_event(engine, now, key, event)?;
        }
        self.begin(engine, now)?;
        if self.ended < self.job.count {
            check_time(now, self.deadline, self.job)?;
            return Ok(ControlFlow::Continue(Some(self.deadline)));
        }
        let meter = self.meter;
        self.measured.get_or_insert_with(|| meter.stop());
        let hold = if self.job.mode == Mode::Idle { self.job.hold } else { Duration::ZERO };
        let until = *self.hold.get_or_insert(now + hold);
        Ok(if now < until { ControlFlow::Continue(Some(until)) } else { DONE })
    }

    fn on_event(&mut self, engine: &mut Engine, now: Instant, key: ConnKey, event: EngineEvent) -> Outcome {
        let Some(visit) = self.visits.get_mut(key) else { return Ok(()) };
        if let (Mode::Idle, EngineEvent::Closed(reason)) = (self.job.mode, &event) {
            // Its transaction is done, but it was to stay open.
            return Err(self.dial.peer.failure(reason));
        }
        let mut link = Link { engine, key, now };
        if event == EngineEvent::Connected {
            visit.app.start(&mut link)?;
        }
        tell(&mut link, event, &mut visit.app, self.dial.peer)?;
        if visit.app.done() && !visit.done {
            visit.done = true;
            self.ended += 1;
            self.times.push(u64::try_from(visit.started.elapsed().as_nanos()).unwrap_or(u64::MAX));
            if self.job.mode == Mode::Handshakes {
                self.visits.remove(key);
                let _ = engine.close(now, key, 0, b"");
            }
        }
        Ok(())
    }

    /// Begins connections, as many as may be under way at once.
    fn begin(&mut self, engine: &mut Engine, now: Instant) -> Outcome {
        let Some(addr) = self.addr else { return Ok(()) };
        while self.begun < self.job.count && self.begun - self.ended < self.job.concurrency.max(1) {
            let started = Wall::now();
            let key = self.dial.connect(engine, now, addr)?;
            let app = PerfClient::new(self.job.plan(self.content.clone()), Counter::default());
            self.visits.insert(key, Visit { app, started, done: false });
            self.begun += 1;
        }
        Ok(())
    }
}

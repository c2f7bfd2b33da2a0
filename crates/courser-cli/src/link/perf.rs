//! A perf client's job, by calls straight into the engine: the connections, the measured window, the result.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant as Wall};

use courser::worker::Worker;
use courser_core::engine::{Engine, Event as EngineEvent};
use courser_core::ids::ConnKey;
use courser_core::time::Instant;

use super::drive::{self, DONE, Dial, Events, Said};
use super::scout::Scouts;
use super::table::Table;
use super::{Link, tell};
use crate::apps::body::Counter;
use crate::apps::perf_client::PerfClient;
use crate::apps::perf_server::Content;
use crate::failure::{Failure, Moved, Outcome};
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
    let (begun, mut moved) = (Wall::now(), Moved::default());
    let outcome = if job.mode.connects() {
        Many::new(dial, job, content, deadline).run(worker, &mut moved)
    } else {
        Few::new(dial, job, content, deadline).run(worker, &mut moved)
    };
    drive::close_all(worker, &outcome);
    let mut result =
        outcome.map_err(|e| e.having_moved(|| Moved { seconds: begun.elapsed().as_secs_f64(), ..moved }))?;
    result.max_udp_payload = dial.settings.max_udp_payload;
    result.verified = matches!(content, Content::Pattern);
    Ok(result)
}

/// Fails when the time is over or the job is to end.
fn check(dial: &Dial<'_>, now: Instant, deadline: Instant, job: &Job) -> Outcome {
    dial.stop.check()?;
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

    fn run(mut self, worker: &mut Worker<Engine>, moved: &mut Moved) -> Outcome<PerfResult> {
        let (first, addr) = drive::reach(worker, self.dial)?;
        self.apps.insert(first, self.app());
        self.up = 1;
        let now = worker.clock().now();
        for _ in 1..self.job.total_conns() {
            let key = self.dial.connect(worker.machine(), now, addr)?;
            self.apps.insert(key, self.app());
        }
        let outcome = drive::drive(worker, &mut |engine, now| self.step(engine, now));
        for (_, app) in self.apps.iter_mut() {
            moved.bytes += app.moved();
            moved.streams += app.ended();
        }
        outcome?;
        let (seconds, usage) = self.measured.unwrap_or_default();
        let (mut ended, mut times) = (0, Latencies::default());
        for (_, app) in self.apps.iter_mut() {
            ended += app.ended();
            times.append(app.times());
        }
        let mut result = PerfResult::new(self.job, ended, seconds, usage, &mut times);
        let keys: Vec<ConnKey> = worker.machine().keys().collect();
        for key in keys {
            if let Ok(stats) = worker.machine().conn_stats(key) {
                result.add_limits(&stats.limits);
            }
        }
        Ok(result)
    }

    fn step(&mut self, engine: &mut Engine, now: Instant) -> Said {
        let mut events = Events::of_step();
        while let Some((key, event)) = events.next(engine) {
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
        check(self.dial, now, self.deadline, self.job)?;
        Ok(events.then(now, ControlFlow::Continue(Some(self.deadline))))
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
    /// Looks whether anybody has the port, where that is not known before.
    scouts: Scouts,
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
            scouts: Scouts::default(),
            visits: Table::default(),
            begun: 0,
            ended: 0,
            times: Latencies::with_capacity(usize::try_from(job.count).unwrap_or(0)),
            meter: Meter::start(),
            measured: None,
            hold: None,
        }
    }

    fn run(mut self, worker: &mut Worker<Engine>, moved: &mut Moved) -> Outcome<PerfResult> {
        self.addr = Some(match self.dial.addrs {
            [only] => {
                self.scouts.follow(*only, worker.clock().now());
                *only
            }
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
        let outcome = drive::drive(worker, &mut |engine, now| self.step(engine, now));
        *moved = Moved { bytes: self.job.counted(self.ended), streams: self.ended, ..Moved::default() };
        outcome?;
        let server = || self.job.server_pid.and_then(measure::rss_kb);
        let growth = |before: Option<u64>, after: Option<u64>| Some(Growth { before: before?, after: after? });
        let (seconds, usage) = self.measured.unwrap_or_default();
        let mut result = PerfResult::new(self.job, self.ended, seconds, usage, &mut self.times);
        result.server = growth(before.0, server());
        result.client = growth(before.1, client());
        Ok(result)
    }

    fn step(&mut self, engine: &mut Engine, now: Instant) -> Said {
        let mut events = Events::of_step();
        while let Some((key, event)) = events.next(engine) {
            self.on_event(engine, now, key, event)?;
        }
        if self.scouts.refused(now).is_some() {
            return Err(Failure::NothingListens { peer: self.dial.peer.name.clone() });
        }
        let begins = self.begin(engine, now)?;
        if self.ended < self.job.count {
            check(self.dial, now, self.deadline, self.job)?;
            let look = self.scouts.next().unwrap_or(self.deadline);
            let wake = if begins { now } else { self.deadline.min(look) };
            return Ok(events.then(now, ControlFlow::Continue(Some(wake))));
        }
        self.dial.stop.check()?;
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
            self.scouts.call_back();
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

    /// Begins a connection if another one may be under way; whether there is one more to begin. Each costs some key
    /// exchange: its first flight leaves before the next one begins.
    fn begin(&mut self, engine: &mut Engine, now: Instant) -> Outcome<bool> {
        let Some(addr) = self.addr.filter(|_| self.may_begin()) else { return Ok(false) };
        let started = Wall::now();
        let key = self.dial.connect(engine, now, addr)?;
        let app = PerfClient::new(self.job.plan(self.content.clone()), Counter::default());
        self.visits.insert(key, Visit { app, started, done: false });
        self.begun += 1;
        Ok(self.may_begin())
    }

    fn may_begin(&self) -> bool {
        self.begun < self.job.count && self.begun - self.ended < self.job.concurrency.max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::super::Peer;
    use super::super::serve::{self, Seen, Stop};
    use super::super::setup::{self, Service, TlsChoice, Trust};
    use super::*;
    use crate::apps::perf_server::PerfServer;
    use crate::identity::Identity;
    use crate::tuning::Tuning;

    #[test]
    fn an_interrupted_client_closes_its_connection() {
        let (id, tuning) = (Identity::throwaway().unwrap(), Tuning::default());
        let choice = TlsChoice { alpn: vec![b"perf".to_vec()], ..TlsChoice::default() };
        let tls = setup::tls_server(&id, &choice, &tuning).unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let service = Service::new(listen, &tls, &tuning);
        let mut server = setup::servers(&service).unwrap().remove(0);
        let (addrs, waker) = ([server.socket().local_addr()], server.waker());
        let tls = setup::tls_client(&Trust::Anybody, &choice, &tuning).unwrap();
        let peer = Peer { name: "the server".into(), patience: Duration::from_secs(10) };
        let (stop, end) = (Stop::default(), Stop::default());
        let settings = &tuning.settings;
        let dial = Dial { addrs: &addrs, name: "localhost", tls: &tls, settings, peer: &peer, stop: &stop };
        let mut client = setup::client(&addrs, &tuning).unwrap();
        let (received, ended) = (Counter::default(), Mutex::new(None));
        thread::scope(|scope| {
            let (received, ended, end) = (&received, &ended, &end);
            scope.spawn(move || {
                let begun = Wall::now();
                let watch = |seen: Seen<'_>| {
                    if let Seen::Ended(_) = seen {
                        ended.lock().unwrap().replace(begun.elapsed());
                        end.ask(&[]);
                    }
                };
                serve::serve(&mut server, end, || PerfServer::new(Content::Fill, received.clone()), &watch).unwrap();
            });
            let wakers = [client.waker()];
            scope.spawn({
                let stop = stop.clone();
                move || {
                    while received.get() < 1 << 20 {
                        thread::sleep(Duration::from_millis(1));
                    }
                    stop.ask(&wakers);
                }
            });
            let job = Job { mode: Mode::Upload, bytes: 1 << 40, ..Job::default() };
            let e = run(&mut client, &dial, &job, &Content::Fill).unwrap_err();
            let Failure::Interrupted(moved) = e else { panic!("{e}") };
            assert!(moved.bytes >= 1 << 20 && moved.streams == 0 && moved.seconds > 0.0, "{moved:?}");
            // The close is on its way; a lost one would only be told after the idle timeout.
            let late = Wall::now() + Duration::from_secs(5);
            while ended.lock().unwrap().is_none() && Wall::now() < late {
                thread::sleep(Duration::from_millis(1));
            }
            end.ask(&[waker]);
        });
        assert!(ended.into_inner().unwrap().is_some(), "the server was told");
    }
}

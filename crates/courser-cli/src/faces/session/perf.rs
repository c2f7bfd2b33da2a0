//! A perf client's job over a port: the connections, the measured window, the result.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use courser::session::Handle;

use super::desk::{Desk, What};
use super::{LOOK, begin, client, farewell, reach};
use crate::apps::body::Counter;
use crate::apps::perf_client::PerfClient;
use crate::apps::perf_server::Content;
use crate::faces::{Scales, Share, hold, result};
use crate::failure::{Failure, Outcome};
use crate::job::{Job, Mode};
use crate::link::drive::Dial;
use crate::measure::Meter;
use crate::report::perf::PerfResult;
use crate::transport::App;
use crate::tuning::Tuning;

/// Does the job.
///
/// # Errors
/// Why it was not done.
pub fn call(dial: &Dial<'_>, tuning: &Tuning, job: &Job, content: &Content) -> Outcome<PerfResult> {
    let (_endpoint, mut desk) = client(dial, tuning)?;
    let mut caller = Caller { dial, job, content, until: Instant::now() + job.timeout };
    let outcome = if job.mode.connects() { caller.many(&mut desk) } else { caller.few(&mut desk) };
    let connections = desk.connections();
    farewell(&mut desk, connections);
    outcome
}

struct Caller<'a> {
    dial: &'a Dial<'a>,
    job: &'a Job,
    content: &'a Content,
    until: Instant,
}

impl Caller<'_> {
    fn app(&self) -> PerfClient {
        PerfClient::new(self.job.plan(self.content.clone()), Counter::default())
    }

    /// Waits for news; fails when the time is over or the job is to end.
    fn wait(&self, desk: &mut Desk<PerfClient>) -> Outcome {
        self.dial.stop.check()?;
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::TimeOut { after: self.job.timeout });
        }
        if desk.wait(left.min(LOOK)) {
            return Ok(());
        }
        Err(Failure::Local { what: "the worker's thread".into(), why: "it ended".into() })
    }

    /// The modes that have all their connections first and are measured then.
    fn few(&mut self, desk: &mut Desk<PerfClient>) -> Outcome<PerfResult> {
        let (first, addr) = reach(desk, self.dial, self.until)?;
        desk.insert(first, self.app());
        let (all, mut up) = (self.job.total_conns(), 1);
        (1..all).for_each(|n| begin(desk, self.dial, addr, n));
        while up < all {
            while let Some(message) = desk.hear() {
                let told = desk.on(message);
                match (told.what, told.session) {
                    (What::Opened(_), Some(handle)) => desk.insert(handle, self.app()),
                    (What::Established, _) => up += 1,
                    (What::Failed(why) | What::Closed(why), _) => return Err(why),
                    _ => {}
                }
                told.outcome?;
            }
            self.wait(desk)?;
        }
        let connections = desk.connections();
        let meter = Meter::start();
        for handle in &connections {
            desk.with(*handle, |app, link| app.start(link))?;
        }
        while !connections.iter().all(|handle| desk.app(*handle).is_some_and(|app| app.done())) {
            self.wait(desk)?;
            while let Some(message) = desk.hear() {
                desk.on(message).outcome?;
            }
        }
        let mut share = Share::default();
        for handle in connections {
            if let Some(app) = desk.app(handle) {
                share.ended += app.ended();
                share.times.append(app.times());
            }
        }
        Ok(result(self.job, meter, share))
    }

    /// The modes in which every transaction has a connection of its own.
    fn many(&mut self, desk: &mut Desk<PerfClient>) -> Outcome<PerfResult> {
        let addr = match self.dial.addrs {
            [only] => *only,
            _ => {
                let (first, addr) = reach(desk, self.dial, self.until)?;
                desk.close(first, 0);
                addr
            }
        };
        let scales = Scales::new(self.job);
        let meter = Meter::start();
        let mut visits = Visits { addr, ..Visits::default() };
        while visits.share.ended < self.job.count {
            while visits.begun < self.job.count && visits.begun - visits.share.ended < self.job.concurrency.max(1) {
                begin(desk, self.dial, visits.addr, visits.begun);
                visits.started.insert(visits.begun, Instant::now());
                visits.begun += 1;
            }
            self.wait(desk)?;
            self.take(desk, &mut visits)?;
        }
        let mut done = result(self.job, meter, visits.share);
        let until = Instant::now().checked_add(hold(self.job));
        while until.is_none_or(|until| Instant::now() < until) {
            let left = until.map_or(LOOK, |until| until.saturating_duration_since(Instant::now()));
            desk.wait(left.min(LOOK));
            while let Some(message) = desk.hear() {
                if let What::Closed(why) = desk.on(message).what {
                    return Err(why);
                }
            }
        }
        scales.note(&mut done);
        Ok(done)
    }

    /// Takes in what happened to the connections.
    fn take(&mut self, desk: &mut Desk<PerfClient>, visits: &mut Visits) -> Outcome {
        while let Some(message) = desk.hear() {
            let told = desk.on(message);
            told.outcome?;
            match (told.what, told.session) {
                (What::Opened(token), Some(handle)) => {
                    desk.insert(handle, self.app());
                    let started = visits.started.remove(&token).unwrap_or_else(Instant::now);
                    visits.under_way.insert(handle, started);
                }
                (What::Established, Some(handle)) => desk.with(handle, |app, link| app.start(link))?,
                (What::Failed(why), _) => return Err(why),
                (What::Closed(why), Some(handle)) if visits.under_way.contains_key(&handle) => return Err(why),
                (What::Closed(why), Some(_)) if self.job.mode == Mode::Idle => return Err(why),
                (What::Event, Some(handle)) if desk.app(handle).is_some_and(|app| app.done()) => {
                    if let Some(started) = visits.under_way.remove(&handle) {
                        visits.share.done(started.elapsed(), true);
                        if self.job.mode == Mode::Handshakes {
                            desk.remove(handle);
                            desk.close(handle, 0);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Transactions that have connections of their own.
struct Visits {
    addr: SocketAddr,
    begun: u64,
    /// Begun, and not yet opened, by token.
    started: HashMap<u64, Instant>,
    under_way: HashMap<Handle, Instant>,
    share: Share,
}

impl Default for Visits {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([0, 0, 0, 0], 0)),
            begun: 0,
            started: HashMap::new(),
            under_way: HashMap::new(),
            share: Share::default(),
        }
    }
}

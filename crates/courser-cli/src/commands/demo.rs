//! `courser demo`: a server and a client in two threads, with a worker each, over real UDP on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant as Wall;

use courser::worker::Worker;
use courser_core::engine::{ConnStats, Engine};
use courser_core::ids::ConnKey;
use courser_core::time::Instant;

use crate::apps::body::Counter;
use crate::apps::flip::Flipping;
use crate::apps::perf_client::{PerfClient, Plan};
use crate::apps::perf_server::{Content, PerfServer};
use crate::args::demo::DemoArgs;
use crate::failure::{Failure, Moved, Outcome};
use crate::identity::Identity;
use crate::link::drive::{self, DONE, Dial, Said};
use crate::link::serve::{self, Seen, Stop};
use crate::link::setup::{self, Service, TlsChoice, Trust};
use crate::link::{Link, Peer, tell};
use crate::measure::{self, Meter, Usage};
use crate::output::Ui;
use crate::perf_proto;
use crate::progress::{INTERVAL, Progress};
use crate::report::demo::{DemoReport, Leg};
use crate::text;
use crate::transport::App;
use crate::tuning::Tuning;

/// Files that are open at once; each takes three descriptors.
const FILES_AT_ONCE: u64 = 64;

/// Runs it.
///
/// # Errors
/// Why not every byte arrived.
pub fn run(args: &DemoArgs, ui: &Ui) -> Outcome {
    let tuning = super::tuning(&args.transport, ui)?;
    let load = Load::of(args)?;
    let identity = Identity::throwaway()?;
    let trust = Trust::only(identity.chain.first().map_or(&[][..], |c| c))?;
    let choice = TlsChoice::of(perf_proto::ALPN)?;
    let tls = setup::tls_server(&identity, &choice, &tuning)?;
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut workers = setup::servers(&Service::new(listen, &tls, &tuning))?;
    let Some(mut server) = workers.pop() else { return Ok(()) };
    let (addr, waker) = (server.socket().local_addr(), server.waker());
    let (stop, received, trouble) = (Stop::default(), Counter::default(), Trouble::default());
    let content = load.plan.content.clone();
    let make = || PerfServer::new(content.clone(), received.clone());
    let report = thread::scope(|scope| {
        let serving = scope.spawn(|| serve::serve(&mut server, &stop, make, &|seen| trouble.note(&seen, ui)));
        let client = Client::new(args, ui, &load, &received);
        let done = client.run(addr, &trust, &choice, &tuning);
        stop.ask(&[waker]);
        let panicked = || Failure::Local { what: "the server's thread".into(), why: "it panicked".into() };
        let served = serving.join().unwrap_or_else(|_| Err(panicked()));
        done.and_then(|report| served.map(|()| report))
    })?;
    let report = DemoReport {
        lost: report.lost + trouble.lost.load(Ordering::Relaxed),
        retransmitted: report.retransmitted + trouble.retransmitted.load(Ordering::Relaxed),
        ..report
    };
    ui.say(report.summary(ui.out));
    ui.object(&report);
    Ok(())
}

/// What the server's end counted.
#[derive(Debug, Default)]
struct Trouble {
    lost: AtomicU64,
    retransmitted: AtomicU64,
}

impl Trouble {
    fn note(&self, seen: &Seen<'_>, ui: &Ui) {
        match seen {
            Seen::Failed(failure) => ui.warn(format_args!("server: {failure}")),
            Seen::Left(..) => {}
            Seen::Ended(stats) => {
                self.lost.fetch_add(stats.lost_packets, Ordering::Relaxed);
                self.retransmitted.fetch_add(stats.retransmitted_bytes, Ordering::Relaxed);
            }
        }
    }
}

/// What is moved, the same each way.
struct Load {
    plan: Plan,
    /// Bytes each way.
    bytes: u64,
}

impl Load {
    fn of(args: &DemoArgs) -> Outcome<Self> {
        let (shares, at_once, content) = if args.files.is_empty() {
            (args.shares(), args.streams, Content::Pattern)
        } else {
            let size = |p: &std::path::PathBuf| {
                let meta = std::fs::metadata(p).map_err(|e| Failure::reading(p, &e))?;
                let why = || "it is no file".into();
                if meta.is_file() { Ok(meta.len()) } else { Err(Failure::Unreadable { path: p.clone(), why: why() }) }
            };
            let sizes = args.files.iter().map(size).collect::<Outcome<Vec<_>>>()?;
            (sizes, FILES_AT_ONCE, Content::Files(Arc::from(args.files.as_slice())))
        };
        let bytes = shares.iter().sum();
        let plan =
            Plan { count: shares.len() as u64, at_once, up: shares.clone(), down: shares, content, timed: false };
        Ok(Self { plan, bytes })
    }
}

/// The client's end, and what is measured on the way.
struct Client<'a> {
    args: &'a DemoArgs,
    load: &'a Load,
    app: Flipping<PerfClient>,
    /// Checked bytes at the client and at the server.
    down: Counter,
    up: Counter,
    progress: Progress,
    ui: &'a Ui,
    /// When the bars move next.
    next: Wall,
    began: Wall,
    /// When the server had everything.
    up_ended: Option<Wall>,
    /// When the first byte came back.
    down_began: Option<Wall>,
}

impl<'a> Client<'a> {
    fn new(args: &'a DemoArgs, ui: &'a Ui, load: &'a Load, up: &Counter) -> Self {
        let down = Counter::default();
        let app = Flipping::new(PerfClient::new(load.plan.clone(), down.clone()), args.flip_byte);
        let parts = [("client → server", load.bytes), ("server → client", load.bytes)];
        let (progress, began) = (Progress::new(ui, &parts), Wall::now());
        Self {
            args,
            load,
            app,
            down,
            up: up.clone(),
            progress,
            ui,
            next: began,
            began,
            up_ended: None,
            down_began: None,
        }
    }

    fn run(mut self, addr: SocketAddr, trust: &Trust, tls: &TlsChoice, tuning: &Tuning) -> Outcome<DemoReport> {
        let tls = setup::tls_client(trust, tls, tuning)?;
        let peer = Peer { name: addr.to_string(), patience: tuning.settings.handshake_timeout };
        let addrs = [addr];
        let stop = Stop::default();
        let dial =
            Dial { addrs: &addrs, name: "localhost", tls: &tls, settings: &tuning.settings, peer: &peer, stop: &stop };
        let mut worker = setup::client(&addrs, tuning)?;
        stop.listen(vec![worker.waker()])?;
        let deadline = worker.clock().now() + self.args.timeout;
        let report = drive::reach(&mut worker, &dial).and_then(|(key, _)| {
            let meter = Meter::start();
            self.began = Wall::now();
            let mut begun = false;
            let outcome = drive::drive(&mut worker, &mut |engine, now| {
                if !std::mem::replace(&mut begun, true) {
                    self.app.with(&mut Link { engine, key, now }, |app, link| app.start(link))?;
                }
                self.step(engine, now, key, &dial, deadline)
            });
            let (seconds, usage) = meter.stop();
            outcome.map(|()| self.report(&mut worker, key, seconds, &usage))
        });
        self.progress.clear();
        drive::close_all(&mut worker, &report);
        let bytes = self.up.get() + self.down.get();
        let seconds = self.began.elapsed().as_secs_f64();
        report.map_err(|e| e.having_moved(|| Moved { bytes, streams: self.app.app.ended(), seconds }))
    }

    fn step(&mut self, engine: &mut Engine, now: Instant, key: ConnKey, dial: &Dial<'_>, deadline: Instant) -> Said {
        while let Some((of, event)) = engine.poll_event() {
            if of == key {
                tell(&mut Link { engine, key, now }, event, &mut self.app, dial.peer)?;
            }
        }
        let wall = Wall::now();
        if self.up_ended.is_none() && self.up.get() == self.load.bytes {
            self.up_ended = Some(wall);
        }
        if self.down_began.is_none() && self.down.get() > 0 {
            self.down_began = Some(wall);
        }
        if wall >= self.next {
            self.next = wall + INTERVAL;
            self.progress.set(0, self.up.get());
            self.progress.set(1, self.down.get());
        }
        if self.app.done() {
            return Ok(DONE);
        }
        dial.stop.check()?;
        if now >= deadline {
            return Err(Failure::TimeOut { after: self.args.timeout });
        }
        let wake = if self.ui.shows_progress() { deadline.min(now + INTERVAL) } else { deadline };
        Ok(ControlFlow::Continue(Some(wake)))
    }

    fn report(&self, worker: &mut Worker<Engine>, key: ConnKey, seconds: f64, usage: &Usage) -> DemoReport {
        let engine = worker.machine();
        let stats = engine.conn_stats(key).unwrap_or_default();
        let (up, down) = (self.up.get(), self.down.get());
        let up_s = self.up_ended.map_or(seconds, |t| t.duration_since(self.began).as_secs_f64());
        let down_s = self.down_began.map_or(0.0, |t| t.elapsed().as_secs_f64());
        let leg = |bytes, seconds| Leg { bytes, seconds, goodput_gbps: measure::gbps(bytes, seconds) };
        let suite = engine.identity(key).ok().flatten().and_then(|i| i.suite);
        DemoReport {
            bytes: up + down,
            verified: up == self.load.bytes && down == self.load.bytes,
            goodput_gbps: measure::gbps(up + down, seconds),
            lost: stats.lost_packets,
            retransmitted: stats.retransmitted_bytes,
            cpu_s_per_gb: measure::cpu_s_per_gb(usage, up + down),
            peak_rss_kb: usage.peak_rss_kb,
            streams: self.load.plan.count,
            up: leg(up, up_s),
            down: leg(down, down_s),
            version: engine.version(key).map(|v| format!("{v:?}")).unwrap_or_default(),
            cipher: suite.map(text::suite).unwrap_or_default().to_owned(),
            ..timed(&stats)
        }
    }
}

fn timed(stats: &ConnStats) -> DemoReport {
    DemoReport {
        handshake_ms: stats.handshake.as_secs_f64() * 1e3,
        rtt_us: stats.rtt.as_secs_f64() * 1e6,
        ..DemoReport::default()
    }
}

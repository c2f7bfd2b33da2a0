//! What a port costs: small round trips inline and between two threads.
//!
//! `cargo run --release -p courser-session --example port_bench -- --help`
//!
//! A round trip is one submission and the completion that answers it: [`Submission::Finish`] answered by
//! [`Completion::AllAcked`] (`small`), or a datagram of 64 bytes that comes back (`64 B`), which both sides read.
//! The worker spins for a while per message in place of an engine. Six ways to drive it:
//!
//! | Way | Worker | Application |
//! |---|---|---|
//! | `inline` | on the caller's thread | a batch, then its answers |
//! | `loaded` | own thread, looks around before it sleeps | keeps several batches on their way, looks before it sleeps |
//! | `lockstep` | the same | one batch on its way |
//! | `asleep` | own thread, sleeps as soon as it has nothing to do | one batch on its way, sleeps at once as well |
//! | `shared` | as `loaded`, over a segment as between processes (Linux) | the same |
//! | `shared-lockstep` | as `lockstep`, over a segment | the same |
//!
//! The ways take turns within a run, so that a noisy machine hurts all of them; figures are medians over the runs, and
//! the ratio is the median of each run's ratio. On Linux the worker has the second processor and the application the
//! first, and a run during which one of them had to leave its processor to a stranger is repeated: a thread that does
//! not run says nothing about a port. The last column counts the runs that stayed disturbed.

use std::{
    collections::VecDeque,
    hint::black_box,
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use courser_session::{
    doorbell::{Alarm, Bell, Interest, RingCounts, Sleeper, doorbell, look_around},
    handle::{Handle, HandleTable, Kind},
    msg::{Completion, Submission},
    port::{
        Event, InlinePort, Origin, Outbox, Port, PortSetup, Read, Serve, Session, Source, ThreadPort, WorkerPort, pair,
    },
};

const HELP: &str = "\
Measures round trips through ports.

  --runs N        runs per figure, of which the median is shown (default 15)
  --messages N    round trips per run; the sleeping way makes 32 batches (default 3000)
  --tries N       how often a disturbed run is tried (default 40)
  --no-pin        leave the choice of processors to the system
  --work NS,...   nanoseconds of engine-like work per message (default 1000,0)
  --batch N,...   submissions handed over together (default 1,8,32)
  --depth N       batches on their way in the loaded way (default 4)
  --spin US       how long a side looks around before it sleeps, microseconds (default 50)
  --turn N        submissions the worker takes before it answers (default 16)
  --only WAY      inline, loaded, lockstep, asleep, shared or shared-lockstep: only that way beside inline
  --payload P     small or 64: only that kind
  --json          one JSON object per line
";

/// Length of the payload where there is one.
const PAYLOAD: usize = 64;

/// How the two sides are driven.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Inline,
    Loaded,
    Lockstep,
    Asleep,
    Shared,
    SharedLockstep,
}

impl Way {
    const ALL: &[Self] = if cfg!(target_os = "linux") {
        &[Self::Inline, Self::Loaded, Self::Lockstep, Self::Asleep, Self::Shared, Self::SharedLockstep]
    } else {
        &[Self::Inline, Self::Loaded, Self::Lockstep, Self::Asleep]
    };

    const fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Loaded => "loaded",
            Self::Lockstep => "lockstep",
            Self::Asleep => "asleep",
            Self::Shared => "shared",
            Self::SharedLockstep => "shared-lockstep",
        }
    }
}

/// What was asked on the command line.
struct Options {
    runs: usize,
    messages: usize,
    tries: usize,
    pins: bool,
    work_ns: Vec<usize>,
    batches: Vec<usize>,
    depth: usize,
    spin: Duration,
    turn: usize,
    ways: Vec<Way>,
    payloads: Vec<bool>,
    json: bool,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            runs: 15,
            messages: 3000,
            tries: 40,
            pins: true,
            work_ns: vec![1000, 0],
            batches: vec![1, 8, 32],
            depth: 4,
            spin: Duration::from_micros(50),
            turn: 16,
            ways: Way::ALL.to_vec(),
            payloads: vec![false, true],
            json: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--runs" => options.runs = number(&value()?)?.max(1),
                "--messages" => options.messages = number(&value()?)?.max(1000),
                "--tries" => options.tries = number(&value()?)?.max(1),
                "--no-pin" => options.pins = false,
                "--work" => options.work_ns = numbers(&value()?)?,
                "--batch" => options.batches = numbers(&value()?)?,
                "--depth" => options.depth = number(&value()?)?.clamp(1, 64),
                "--spin" => options.spin = Duration::from_micros(wide(number(&value()?)?)),
                "--turn" => options.turn = number(&value()?)?.max(1),
                "--only" => {
                    let name = value()?;
                    let way = Way::ALL.iter().copied().find(|way| way.name() == name);
                    options.ways = vec![Way::Inline, way.ok_or_else(|| format!("no way is called {name}"))?];
                    options.ways.dedup();
                }
                "--payload" => options.payloads = vec![value()? == "64"],
                "--json" => options.json = true,
                _ => return Err(HELP.to_owned()),
            }
        }
        if options.batches.iter().any(|batch| !(1..=256).contains(batch)) {
            return Err("batches are between 1 and 256".to_owned());
        }
        Ok(options)
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn numbers(text: &str) -> Result<Vec<usize>, String> {
    text.split(',').map(number).collect()
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// For figures only: the nearest fraction.
fn real(n: u64) -> f64 {
    u32::try_from(n).map_or_else(|_| n as f64, f64::from)
}

/// Work that stands for the engine: a chain of multiplications, which nothing can shorten or overlap.
fn spin(steps: u64) {
    let mut word = black_box(1u64);
    for _ in 0..steps {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    }
    black_box(word);
}

/// Steps of [`spin`] per nanosecond: the best of several, since others can only slow it down.
fn calibrate() -> f64 {
    const STEPS: u64 = 4_000_000;
    let nanoseconds = (0..7).map(|_| {
        let start = Instant::now();
        spin(STEPS);
        u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    });
    real(STEPS) / real(nanoseconds.min().unwrap_or(STEPS).max(1))
}

/// A worker that answers each message after a while.
struct Echo {
    steps: u64,
    datagrams: VecDeque<Bytes>,
}

impl Source<()> for Echo {
    fn read(&mut self, (): &mut (), _: u32) -> Read {
        Read::Nothing
    }

    fn datagram(&mut self, (): &()) -> Option<Bytes> {
        self.datagrams.pop_front()
    }
}

impl Serve for Echo {
    type Key = ();

    fn serve(&mut self, outbox: &mut Outbox, sessions: &mut HandleTable<Session<()>>, submission: Submission) {
        spin(self.steps);
        let told = match submission {
            Submission::Finish { stream } => outbox.event(sessions, stream, Event::AllAcked),
            Submission::Datagram { connection, data, .. } => {
                black_box(data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
                self.datagrams.push_back(data);
                outbox.event(sessions, connection, Event::Datagram)
            }
            other => unreachable!("nobody asks for {other:?}"),
        };
        told.expect("the session was checked and lives");
    }
}

/// One thing to measure.
#[derive(Clone, Copy)]
struct Load {
    has_payload: bool,
    batch: usize,
    /// Batches on their way.
    depth: usize,
    messages: usize,
    steps: u64,
    /// How long each side looks around before it sleeps.
    look: Duration,
    turn: usize,
    pins: bool,
}

impl Load {
    /// Round trips before the clock starts: about a tenth, whole batches.
    const fn warm(self) -> usize {
        (self.messages / 10).next_multiple_of(self.batch)
    }
}

/// One measurement.
#[derive(Clone, Copy, Default)]
struct Sample {
    nanoseconds: f64,
    given: f64,
    saved: f64,
    /// How often a thread had to leave its processor.
    disturbed: u64,
}

/// Keeps the thread on that processor, where the system can do that and has so many.
fn pin(processor: usize) {
    #[cfg(target_os = "linux")]
    {
        let mut only = rustix::thread::CpuSet::new();
        only.set(processor);
        // Without the second processor the figures are worth little anyway, and the disturbances show it.
        let _ = rustix::thread::sched_setaffinity(None, &only);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = processor;
}

/// How often this thread had to leave its processor though it wanted to go on; 0 where the system does not tell.
fn disturbances() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let count = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// The worker's state with the sessions that the application uses: a connection and a stream per message on its way.
fn worker(outbox: &mut Outbox, load: Load) -> (HandleTable<Session<()>>, Echo) {
    let mut sessions = HandleTable::new(0, 1 << 16);
    for n in 0..=load.batch * load.depth {
        let kind = if n == 0 { Kind::Connection } else { Kind::Stream };
        outbox.open(&mut sessions, kind, (), Origin::Token(wide(n))).expect("table and share are large enough");
    }
    (sessions, Echo { steps: load.steps, datagrams: VecDeque::new() })
}

/// The application: sends batches and checks the answers. Returns the time of all but the first tenth.
fn application<P: Port>(port: &mut P, load: Load, mut idle: impl FnMut(&mut P)) -> Duration {
    let (mut connection, mut streams, mut heard) = (None, Vec::<Handle>::new(), Vec::with_capacity(1024));
    while streams.len() < load.batch * load.depth {
        match port.poll() {
            Some(Completion::Opened { handle, .. }) if handle.kind() == Kind::Connection => connection = Some(handle),
            Some(Completion::Opened { handle, .. }) => streams.push(handle),
            Some(other) => unreachable!("nobody asked for {other:?}"),
            None => idle(port),
        }
    }
    let connection = connection.expect("sessions are told in the order in which they were opened");
    let (warm, all) = (load.warm(), load.warm() + load.messages);
    let (mut sent, mut got, mut start) = (0, 0, Instant::now());
    while got < all {
        while sent < all && sent - got + load.batch <= streams.len() {
            let until = sent + load.batch;
            let mut batch = (sent..until).map(|n| {
                if load.has_payload {
                    Submission::Datagram {
                        connection,
                        data: Bytes::copy_from_slice(&[n.to_le_bytes()[0]; PAYLOAD]),
                        tag: None,
                    }
                } else {
                    Submission::Finish { stream: streams[n % streams.len()] }
                }
            });
            while sent < until {
                sent += port.submit_batch(&mut batch);
            }
        }
        if port.poll_into(&mut heard, usize::MAX) == 0 {
            idle(port);
        }
        for message in heard.drain(..) {
            let is_right = match message {
                Completion::AllAcked { stream } => stream == streams[got % streams.len()],
                Completion::Datagram { data, .. } => data == [got.to_le_bytes()[0]; PAYLOAD][..],
                _ => false,
            };
            assert!(is_right, "answer {got} is another one");
            got += 1;
            if got == warm {
                start = Instant::now();
            }
        }
    }
    start.elapsed()
}

/// The worker's thread, until the application is gone. `sleep` ends when there is work.
fn work(mut port: WorkerPort, load: Load, mut sleep: impl FnMut(&mut WorkerPort)) -> (RingCounts, u64) {
    if load.pins {
        pin(1);
    }
    let before = disturbances();
    let (mut sessions, mut echo) = worker(port.outbox(), load);
    while !port.is_gone() {
        let served = port.serve(&mut sessions, &mut echo, load.turn);
        let told = port.flush(&mut sessions, &mut echo);
        if served + told == 0 && !look_around(load.look, || port.has_work()) {
            sleep(&mut port);
        }
    }
    (port.ring_counts(), disturbances() - before)
}

fn inline(load: Load) -> Sample {
    let before = disturbances();
    let mut port = InlinePort::new(PortSetup::default());
    let (mut sessions, mut echo) = worker(port.outbox(), load);
    let time = application(&mut port.with(&mut sessions, &mut echo), load, |_| unreachable!("all answers are there"));
    Sample { nanoseconds: nanoseconds(time, load), disturbed: disturbances() - before, ..Sample::default() }
}

fn between_threads(load: Load) -> Sample {
    let before = disturbances();
    let bell = Arc::new(Alarm::new());
    let (ringer, sleeper) = doorbell(Arc::clone(&bell) as Arc<dyn Bell>);
    let (mut port, worker_port) = pair(PortSetup::default(), ringer, None);
    let mut sleeper: Sleeper = sleeper;
    let sleep = move |port: &mut WorkerPort| {
        sleeper.sleep(
            Interest::ANY,
            || port.has_work(),
            || {
                bell.block(None);
            },
        );
    };
    let worker = thread::spawn(move || work(worker_port, load, sleep));
    let idle = move |port: &mut ThreadPort| {
        port.look_then_wait(load.look, None);
    };
    let time = application(&mut port, load, idle);
    let mine = (port.ring_counts(), disturbances() - before);
    drop(port);
    sample(time, load, mine, worker.join().expect("the worker does not panic"))
}

/// Both sides over one segment, each with a mapping of its own, as two processes have it.
#[cfg(target_os = "linux")]
fn over_a_segment(load: Load) -> Sample {
    use courser_session::port::{AppPort, EventBell, SharedPort, SharedSetup, shared};
    use std::os::fd::AsFd;
    let before = disturbances();
    let bell = EventBell::new().expect("descriptors");
    let (offer, worker_port) = shared(SharedSetup::default(), bell.clone()).expect("memory");
    let mut port = SharedPort::map(offer).expect("the offer is good");
    let rung = worker_port.bell().expect("a shared port has a bell").as_fd().try_clone_to_owned();
    let rung = EventBell::from_fd(rung.expect("descriptors"));
    let sleep = move |port: &mut WorkerPort| {
        port.arm();
        if !port.has_work() {
            rung.wait(None);
        }
        port.disarm();
    };
    let worker = thread::spawn(move || work(worker_port, load, sleep));
    let idle = move |port: &mut SharedPort| {
        if look_around(load.look, || port.has_news()) {
            return;
        }
        port.arm(Interest::MESSAGES);
        if !port.has_news() {
            bell.wait(None);
        }
        port.disarm();
    };
    let time = application(&mut port, load, idle);
    let mine = (port.ring_counts(), disturbances() - before);
    drop(port);
    sample(time, load, mine, worker.join().expect("the worker does not panic"))
}

#[cfg(not(target_os = "linux"))]
fn over_a_segment(_: Load) -> Sample {
    unreachable!("there are no segments here")
}

fn sample(time: Duration, load: Load, mine: (RingCounts, u64), theirs: (RingCounts, u64)) -> Sample {
    let ((mine, disturbed), (theirs, disturbed_too)) = (mine, theirs);
    let all = real(wide(load.messages + load.warm()));
    Sample {
        nanoseconds: nanoseconds(time, load),
        given: real(mine.given + theirs.given) / all,
        saved: real(mine.saved + theirs.saved) / all,
        disturbed: disturbed + disturbed_too,
    }
}

fn nanoseconds(time: Duration, load: Load) -> f64 {
    time.as_secs_f64() * 1e9 / real(wide(load.messages))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The first sample without disturbance, or the fastest one when there is none.
fn undisturbed(tries: impl Iterator<Item = Sample>) -> Option<Sample> {
    let mut best: Option<Sample> = None;
    for sample in tries {
        if sample.disturbed == 0 {
            return Some(sample);
        }
        best = best.filter(|best| best.nanoseconds < sample.nanoseconds).or(Some(sample));
    }
    best
}

/// Measures all ways with one kind of message and prints a line for each.
fn measure(options: &Options, work_ns: usize, has_payload: bool, batch: usize, steps_per_ns: f64) {
    let steps = (real(wide(work_ns)) * steps_per_ns).round() as u64;
    let load = |way| Load {
        has_payload,
        batch,
        depth: if matches!(way, Way::Loaded | Way::Shared) { options.depth } else { 1 },
        messages: (if way == Way::Asleep { 32 * batch } else { options.messages }).next_multiple_of(batch),
        steps,
        look: if way == Way::Asleep { Duration::ZERO } else { options.spin },
        turn: options.turn,
        pins: options.pins,
    };
    let mut samples = vec![Vec::new(); options.ways.len()];
    for _ in 0..options.runs {
        for (way, samples) in options.ways.iter().zip(&mut samples) {
            let run = || match way {
                Way::Inline => inline(load(*way)),
                Way::Loaded | Way::Lockstep | Way::Asleep => between_threads(load(*way)),
                Way::Shared | Way::SharedLockstep => over_a_segment(load(*way)),
            };
            let tries = (0..options.tries).map(|_| run());
            samples.push(undisturbed(tries).expect("at least one try"));
        }
    }
    for (way, own) in options.ways.iter().zip(&samples) {
        let of = |part: fn(&Sample) -> f64| median(own.iter().map(part));
        let (ns, given, saved) = (of(|s| s.nanoseconds), of(|s| s.given) * 1e3, of(|s| s.saved) * 1e3);
        let ratio = median(own.iter().zip(&samples[0]).map(|(own, inline)| inline.nanoseconds / own.nanoseconds));
        let trip = ns * real(wide(batch * load(*way).depth));
        let disturbed = own.iter().filter(|sample| sample.disturbed > 0).count();
        let (kind, way) = (if has_payload { "64 B" } else { "small" }, way.name());
        if options.json {
            println!(
                "{{\"work_ns\":{work_ns},\"kind\":\"{kind}\",\"batch\":{batch},\"way\":\"{way}\",\
                 \"ns_per_message\":{ns:.1},\"ns_per_round_trip\":{trip:.0},\"messages_per_s\":{:.0},\
                 \"rings_given_per_1000\":{given:.2},\"rings_saved_per_1000\":{saved:.2},\"ratio\":{ratio:.3},\
                 \"disturbed_runs\":{disturbed}}}",
                1e9 / ns
            );
        } else {
            println!(
                "{work_ns:>7}  {kind:<5} {batch:>5}  {way:<15} {ns:>10.1} {trip:>13.0} {:>10.0} {given:>11.1} \
                 {saved:>11.1} {:>6.1} % {disturbed:>9}",
                1e9 / ns,
                ratio * 100.0
            );
        }
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::FAILURE;
        }
    };
    if options.pins {
        pin(0);
    }
    let steps_per_ns = calibrate();
    if !options.json {
        println!(
            "work ns  kind  batch  way             ns/message ns/round trip messages/s given/1000  saved/1000    ratio disturbed"
        );
    }
    for work_ns in &options.work_ns {
        for has_payload in &options.payloads {
            for batch in &options.batches {
                measure(&options, *work_ns, *has_payload, *batch, steps_per_ns);
            }
        }
    }
    ExitCode::SUCCESS
}

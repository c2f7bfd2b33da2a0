//! Two workers on real sockets whose system calls fail: the n-th one for all n of a reference run, and one in ten. What was
//! written arrives all the same, in a number of turns that is bounded. Time is moved to the next deadline when both ends wait.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use courser::Settings;
use courser::clock::Clock;
use courser::core::engine::{Engine, EngineConfig, Event};
use courser::core::ids::{ConnKey, Dir, StreamId};
use courser::core::protect::null::{NullTlsClient, NullTlsServer};
use courser::core::stream::Read;
use courser::core::time::Instant;
use courser::net::adapter::{Adapter, Arrival, Offload, Outgoing};
use courser::net::socket::{Socket, SocketConfig, system_adapter};
use courser::worker::machine::{Machine, Meta, SendOutcome, Train, TrainMeta};
use courser::worker::{TurnLimits, Worker};
use courser_testing::Chance;
use courser_testing::duo::{null_client, null_server};

/// EPERM, EINTR, EAGAIN, ENOMEM, EACCES, EMSGSIZE, ENETUNREACH, ENOBUFS, ECONNREFUSED, EHOSTUNREACH.
const ERRORS: [i32; 10] = [1, 4, 11, 12, 13, 90, 101, 105, 111, 113];
/// EMSGSIZE. Of a datagram that every path has to carry it says that this is none for QUIC, and the connection ends: so it
/// is told of larger ones only.
const TOO_BIG: i32 = 90;
/// Bytes of a datagram that every path has to carry.
const SMALLEST: usize = 1_200;
/// Bytes each way.
const BYTES: usize = 24 << 10;
/// Turns of either end that a run may take, whatever fails.
const ROUNDS_MAX: u64 = 5_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Send,
    Receive,
}

#[derive(Clone, Copy, Debug)]
enum When {
    Never,
    Nth(u64),
    /// One in ten, by chance from this seed.
    Often(u64),
    Always,
}

/// What fails, and what was called by both ends together.
struct Plan {
    call: Call,
    error: i32,
    when: When,
    chance: Chance,
    sends: u64,
    receives: u64,
    failed: u64,
}

impl Plan {
    fn new(call: Call, error: i32, when: When) -> Self {
        let seed = if let When::Often(seed) = when { seed } else { 1 };
        Self { call, error, when, chance: Chance(seed), sends: 0, receives: 0, failed: 0 }
    }

    /// A call with datagrams of so many bytes.
    fn on(&mut self, call: Call, size: usize) -> io::Result<()> {
        let count = if call == Call::Send { &mut self.sends } else { &mut self.receives };
        *count += 1;
        let fails = call == self.call
            && (call == Call::Receive || self.error != TOO_BIG || size > SMALLEST)
            && match self.when {
                When::Never => false,
                When::Nth(n) => *count == n,
                When::Often(_) => self.chance.below(10) == 0,
                When::Always => true,
            };
        self.failed += u64::from(fails);
        if fails { Err(io::Error::from_raw_os_error(self.error)) } else { Ok(()) }
    }
}

/// A system whose calls fail by plan; with `short`, one that takes and gives single datagrams.
struct Faulty {
    inner: Box<dyn Adapter>,
    plan: Arc<Mutex<Plan>>,
    short: bool,
}

impl Adapter for Faulty {
    fn send(&mut self, udp: &UdpSocket, out: &Outgoing<'_>) -> io::Result<()> {
        self.plan.lock().unwrap().on(Call::Send, out.segment.unwrap_or(out.bytes.len()))?;
        self.inner.send(udp, out)
    }
    fn receive(&mut self, udp: &UdpSocket, slots: &mut [u8], arrivals: &mut [Arrival]) -> io::Result<usize> {
        // Calls that would find nothing depend on how often somebody looks; they do not count.
        if udp.peek_from(&mut [0; 1]).is_ok() {
            self.plan.lock().unwrap().on(Call::Receive, 0)?;
        }
        let room = if self.short { 1 } else { arrivals.len() };
        self.inner.receive(udp, slots, &mut arrivals[..room])
    }
    fn offload(&self) -> Offload {
        let inner = self.inner.offload();
        if self.short { Offload { send_segments: 1, ..inner } } else { inner }
    }
    fn forgive(&mut self, udp: &UdpSocket) {
        self.inner.forgive(udp);
    }
}

/// An engine whose clock is ahead of its worker's.
struct Ahead {
    engine: Engine,
    by: Duration,
}

impl Machine for Ahead {
    fn expect(&self, trains: &mut dyn Iterator<Item = &[u8]>) {
        self.engine.expect(trains);
    }
    fn receive(&mut self, now: Instant, meta: &Meta, train: &mut [u8]) {
        self.engine.receive(now + self.by, meta, train);
    }
    fn is_pressing(&self) -> bool {
        self.engine.is_pressing()
    }
    fn process(&mut self, now: Instant) {
        self.engine.process(now + self.by);
    }
    fn fill(&mut self, now: Instant, out: &mut Train) -> Option<TrainMeta> {
        self.engine.fill(now + self.by, out)
    }
    fn sent(&mut self, now: Instant, train: &TrainMeta, outcome: SendOutcome) {
        self.engine.sent(now + self.by, train, outcome);
    }
    fn deadline(&self) -> Option<Instant> {
        self.engine.deadline().map(|at| at - self.by)
    }
}

fn worker(config: EngineConfig, plan: &Arc<Mutex<Plan>>, short: bool) -> Worker<Ahead> {
    let config_of_socket = SocketConfig::new(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0));
    let plan = Arc::clone(plan);
    let socket = Socket::with_adapter(&config_of_socket, |udp| {
        Ok(Box::new(Faulty { inner: system_adapter(udp)?, plan, short }))
    });
    let machine = Ahead { engine: Engine::new(config), by: Duration::ZERO };
    Worker::new(machine, socket.unwrap(), Clock::start(), TurnLimits::default()).unwrap()
}

fn pattern() -> Vec<u8> {
    (0..BYTES).map(|i| u8::try_from((i * 31 + i / 251) % 256).unwrap()).collect()
}

/// One stream's data at one end: what is to be written, what came.
#[derive(Default)]
struct Half {
    stream: Option<(ConnKey, StreamId)>,
    out: Vec<u8>,
    written: usize,
    finished: bool,
    came: Vec<u8>,
    ended: bool,
}

impl Half {
    /// Reads and writes as far as it goes.
    fn pump(&mut self, engine: &mut Engine) {
        let Some((key, id)) = self.stream else { return };
        let mut into = [0; 4096];
        while !self.ended {
            match engine.read(key, id, &mut into).unwrap() {
                Read::Bytes(n) => self.came.extend_from_slice(&into[..n]),
                Read::Blocked => break,
                Read::Finished => self.ended = true,
            }
        }
        if !self.finished {
            self.written += engine.write(key, id, &self.out[self.written..]).unwrap();
            if self.written == self.out.len() {
                engine.finish(key, id).unwrap();
                self.finished = true;
            }
        }
    }
}

/// What a run took.
#[derive(Clone, Copy, Debug, Default)]
struct Ran {
    rounds: u64,
    sends: u64,
    receives: u64,
    failed: u64,
}

/// Connects and moves [`BYTES`] each way; `step` says at which round the clock of which end jumps by ten seconds.
fn run(plan: Plan, short: bool, step: Option<(u64, usize)>) -> Ran {
    let told = format!("{:?} fails with {}, {:?}, short {short}, step {step:?}", plan.call, plan.error, plan.when);
    let plan = Arc::new(Mutex::new(plan));
    let mut settings = Settings::default();
    // Longer than the jump of a clock.
    settings.handshake_timeout = Duration::from_secs(30);
    let mut ends = [
        worker(null_client(3), &plan, short),
        worker(null_server(4, NullTlsServer::default(), &settings), &plan, short),
    ];
    let to = ends[1].socket().local_addr();
    let now = ends[0].clock().now();
    ends[0].machine().engine.connect(now, to, "localhost", &NullTlsClient::default(), &settings).unwrap();
    let mut halves = [Half { out: pattern(), ..Half::default() }, Half { out: pattern(), ..Half::default() }];
    let (mut rounds, mut idle) = (0, 0);
    while !halves.iter().all(|half| half.ended && half.finished) {
        rounds += 1;
        assert!(rounds <= ROUNDS_MAX, "{told}: no end");
        let mut progressed = false;
        for (i, (end, half)) in ends.iter_mut().zip(&mut halves).enumerate() {
            if step == Some((rounds, i)) {
                end.machine().by += Duration::from_secs(10);
            }
            let turn = end.turn_with(&mut |machine, _| {
                while let Some((key, event)) = machine.engine.poll_event() {
                    assert!(!matches!(event, Event::Closed(_)), "{told}: {event:?}");
                    if event == Event::Connected && i == 0 {
                        half.stream = machine.engine.open_stream(key, Dir::Bi).unwrap().map(|id| (key, id));
                    }
                    if half.stream.is_none() && i == 1 {
                        half.stream = machine.engine.accept_stream(key, Dir::Bi).unwrap().map(|id| (key, id));
                    }
                }
                half.pump(&mut machine.engine);
            });
            progressed |= turn.unwrap_or_else(|e| panic!("{told}: the worker ended: {e}")).progressed;
        }
        idle = if progressed { 0 } else { idle + 1 };
        if idle >= 3 {
            idle = 0;
            rest(&mut ends);
        }
    }
    for (end, half) in ends.iter().zip(&halves) {
        assert!(half.came == pattern(), "{told}: other bytes");
        let s = end.stats();
        assert!(s.handed - s.sent - s.refused - s.too_big <= 1, "{told}: {s:?}");
    }
    let plan = plan.lock().unwrap();
    Ran { rounds, sends: plan.sends, receives: plan.receives, failed: plan.failed }
}

/// Both ends wait: time moves to the first deadline, or a moment passes for a train that waits for room below the socket.
fn rest(ends: &mut [Worker<Ahead>; 2]) {
    let keeps = |s: courser::worker::WorkerStats| s.handed > s.sent + s.refused + s.too_big;
    if ends.iter().any(|end| keeps(end.stats())) {
        std::thread::sleep(Duration::from_millis(1));
        return;
    }
    let wait = ends.iter_mut().filter_map(|end| {
        let now = end.clock().now();
        end.machine().deadline().map(|at| at.since(now))
    });
    let wait = wait.min().expect("somebody has a deadline");
    for end in ends {
        end.machine().by += wait;
    }
}

fn reference(short: bool) -> Ran {
    run(Plan::new(Call::Send, 0, When::Never), short, None)
}

#[test]
fn whichever_system_call_fails_and_however_everything_arrives() {
    let (mut runs, mut failed, mut most, mut sure) = (0, 0, 0, 0);
    for short in [false, true] {
        let plain = reference(short);
        assert!(plain.sends > 4 && plain.receives > 4, "{plain:?}");
        for (call, calls) in [(Call::Send, plain.sends), (Call::Receive, plain.receives)] {
            for error in ERRORS {
                for n in 1..=calls {
                    let ran = run(Plan::new(call, error, When::Nth(n)), short, None);
                    sure += u64::from(call == Call::Receive || error != TOO_BIG);
                    (runs, failed, most) = (runs + 1, failed + ran.failed, most.max(ran.rounds));
                }
            }
        }
    }
    println!("{runs} runs, {failed} calls failed, at most {most} turns of each end");
    // Timers differ a little from run to run; a run may end before its last call.
    assert!(failed * 10 >= sure * 9, "{failed} of {runs}");
}

#[test]
fn when_one_system_call_in_ten_fails_everything_arrives() {
    let (mut runs, mut failed, mut most) = (0, 0, 0);
    for short in [false, true] {
        for call in [Call::Send, Call::Receive] {
            for error in ERRORS {
                for seed in 1..=5 {
                    let ran = run(Plan::new(call, error, When::Often(seed * 7_919)), short, None);
                    (runs, failed, most) = (runs + 1, failed + ran.failed, most.max(ran.rounds));
                }
            }
        }
    }
    println!("{runs} runs, {failed} calls failed, at most {most} turns of each end");
    assert!(failed >= runs, "{failed} in {runs} runs");
}

#[test]
fn a_clock_that_jumps_ten_seconds_ahead_at_any_turn_ends_nothing() {
    let plain = reference(true);
    let mut most = 0;
    for round in 1..=plain.rounds {
        for end in [0, 1] {
            let ran = run(Plan::new(Call::Send, 0, When::Never), true, Some((round, end)));
            most = most.max(ran.rounds);
        }
    }
    println!("{} jumps, at most {most} turns of each end", 2 * plain.rounds);
    assert!(plain.rounds > 4, "{plain:?}");
}

/// Runs a worker to which a datagram came that it cannot read for a while, then can; `drive` takes its turns until told to end.
fn deaf_for_a_while(told: &str, drive: fn(&mut Worker<Ahead>, &AtomicBool)) {
    /// Calls that a socket makes at once before it says that they fail.
    const AT_ONCE: u64 = 16;
    let plan = Arc::new(Mutex::new(Plan::new(Call::Receive, 1, When::Always)));
    let mut server = worker(null_server(4, NullTlsServer::default(), &Settings::default()), &plan, false);
    let (to, waker, end) = (server.socket().local_addr(), server.waker(), Arc::new(AtomicBool::new(false)));
    let its_end = Arc::clone(&end);
    let began = std::time::Instant::now();
    let thread = std::thread::spawn(move || {
        drive(&mut server, &its_end);
        server.stats().trains_received
    });
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[0x40; 100], to).unwrap();
    let calls = || plan.lock().unwrap().receives;
    while calls() < 12 * AT_ONCE {
        assert!(began.elapsed() < Duration::from_secs(60), "{told}: only {} calls", calls());
        std::thread::sleep(Duration::from_millis(5));
    }
    // Pauses of 1, 2, 4 ms and so on, of 64 ms from the seventh on.
    let (made, ms) = (calls(), u64::try_from(began.elapsed().as_millis()).unwrap());
    assert!(made <= AT_ONCE * (9 + ms / 64), "{told}: {made} calls in {ms} ms");
    plan.lock().unwrap().when = When::Never;
    std::thread::sleep(Duration::from_millis(300));
    end.store(true, Ordering::Release);
    waker.wake();
    assert_eq!(thread.join().unwrap(), 1, "{told}: trains that came");
}

fn flow(end: &AtomicBool) -> ControlFlow<()> {
    if end.load(Ordering::Acquire) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

#[test]
fn a_worker_whose_receive_calls_fail_while_something_is_there_sleeps_and_hears_it_later() {
    deaf_for_a_while("thread", |worker, end| worker.run(&mut |_, _| flow(end)).unwrap());
    #[cfg(feature = "tokio")]
    deaf_for_a_while("tokio", |worker, end| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(worker.drive(&mut |_, _| flow(end))).unwrap();
    });
}

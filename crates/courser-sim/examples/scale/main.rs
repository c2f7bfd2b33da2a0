//! What a packet costs in one engine with 10, 1,000, 10,000 and 100,000 connections:
//! `cargo run --release -p courser-sim --example scale -- [crypto=null|real] [connections=10,1000] [active=N] [answer=BYTES]
//! [rounds=N] [settle=MS] [dormant=MS] [pipe=BYTES] [slots=N] [time=off]`.
//!
//! Two engines in one process, one with the clients' ends of all connections and one with the servers', and a pipe each way in
//! place of the socket. Every active connection asks for `answer` bytes on a new stream, and again when it has
//! them, so that data moves on all of them; `active=10` leaves the others idle. Each end takes the turns that a worker takes.
//! Time is virtual and follows from the datagrams that passed; only nanoseconds and microseconds are
//! processor time.
//!
//! Instructions: `valgrind --tool=callgrind --collect-atstart=no --toggle-collect='scale::measured_*' target/release/examples/scale
//! connections=1000 time=off`; the inclusive counts of `measured_server` and `measured_client` over the packets that are printed.

mod ends;
mod pipe;
mod provider;

use std::time::Duration;

use courser_core::config::Settings;
use courser_core::time::Instant;

use ends::{Client, Server, Turns};
use pipe::Pipe;
use provider::Provider;

/// What is measured.
pub struct Options {
    real: bool,
    connections: Vec<usize>,
    active: Option<usize>,
    /// Bytes of an answer.
    pub answer: usize,
    rounds: u64,
    /// How long nobody asks after the handshakes: connections go to rest in that time.
    settle: Duration,
    /// What the settings say of when connections go to rest.
    dormant: Option<Duration>,
    /// Whether processor time is looked at, which valgrind does not survive.
    timed: bool,
    /// Bytes in a pipe.
    pipe: usize,
    /// Trains that are received at once, as a worker's calls do; zero: none is known beforehand.
    pub slots: usize,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self {
            real: false,
            connections: vec![10, 1_000, 10_000, 100_000],
            active: None,
            answer: 16 << 10,
            rounds: 2,
            settle: Duration::from_millis(200),
            dormant: Settings::default().dormant_after,
            timed: true,
            pipe: 512 << 10,
            slots: 4,
        };
        for argument in std::env::args().skip(1) {
            let (name, value) = argument.split_once('=').unwrap_or((&argument, ""));
            let number = || value.parse().unwrap_or_else(|_| panic!("{name} is a number"));
            match name {
                "crypto" => options.real = value == "real",
                "connections" => {
                    options.connections = value.split(',').map(|n| n.parse().expect("a list of numbers")).collect();
                }
                "active" => options.active = Some(number()),
                "time" => options.timed = value != "off",
                "slots" => options.slots = number(),
                "pipe" => options.pipe = number(),
                "answer" => options.answer = number(),
                "settle" => options.settle = Duration::from_millis(number() as u64),
                "dormant" => options.dormant = Some(Duration::from_millis(number() as u64)),
                "rounds" => options.rounds = number() as u64,
                _ => panic!("there is no option {name}"),
            }
        }
        options
    }
}

/// Settings of both ends: full datagrams from the start, nothing that ends a quiet connection.
fn settings(options: &Options) -> Settings {
    let mut settings = Settings::default();
    settings.initial_udp_payload = 1472;
    settings.mtu_discovery = false;
    settings.idle_timeout = Duration::ZERO;
    settings.dormant_after = options.dormant;
    settings
}

/// Both ends with the pipes between them.
struct Bench {
    client: Client,
    server: Server,
    up: Pipe,
    down: Pipe,
    /// Datagrams that passed since the beginning; they make the time.
    passed: u64,
    timed: bool,
}

/// What the measured turns took.
#[derive(Default)]
struct Spent {
    server: Duration,
    client: Duration,
}

impl Bench {
    fn new(options: &Options, connections: usize) -> Self {
        let provider = Provider::new(options.real);
        let active = options.active.unwrap_or(connections).min(connections);
        Self {
            client: Client::new(&provider, settings(options), options, active),
            server: Server::new(&provider, &settings(options), options),
            up: Pipe::new(options.pipe),
            down: Pipe::new(options.pipe),
            passed: 0,
            timed: options.timed,
        }
    }

    /// A datagram every quarter of a microsecond.
    fn now(&self) -> Instant {
        Instant::from_micros(1_000_000 + self.passed / 4)
    }

    fn note(&mut self, sent: [u64; 2]) {
        // A round in which nothing passes takes time too, so that timers come.
        self.passed += (sent[0] + sent[1]).max(40);
    }

    fn connect(&mut self, connections: usize) {
        /// Handshakes under way at once.
        const TOGETHER: usize = 200;
        let mut begun = 0;
        while self.client.confirmed < connections {
            while begun < connections && begun - self.client.confirmed < TOGETHER {
                self.client.connect(self.now());
                begun += 1;
            }
            let now = self.now();
            let sent = [
                self.client.turn(now, &mut self.down, &mut self.up),
                self.server.turn(now, &mut self.up, &mut self.down),
            ];
            self.note(sent);
        }
    }

    /// Turns in which nobody asks, so that what follows a handshake is over.
    fn settle(&mut self, time: Duration) {
        let until = self.now() + time;
        while self.now() < until {
            let now = self.now();
            let sent = [
                self.client.turn(now, &mut self.down, &mut self.up),
                self.server.turn(now, &mut self.up, &mut self.down),
            ];
            self.note(sent);
        }
    }

    /// Turns until `answers` more have come.
    fn warm(&mut self, answers: u64) {
        let until = self.client.answers + answers;
        while self.client.answers < until {
            let now = self.now();
            let sent = [
                self.client.turn(now, &mut self.down, &mut self.up),
                self.server.turn(now, &mut self.up, &mut self.down),
            ];
            self.note(sent);
        }
    }

    /// The same, counted.
    fn measure(&mut self, answers: u64) -> Spent {
        let until = self.client.answers + answers;
        let mut spent = Spent::default();
        while self.client.answers < until {
            let now = self.now();
            let start = cpu_time(self.timed);
            let up = measured_client(&mut self.client, now, &mut self.down, &mut self.up);
            let middle = cpu_time(self.timed);
            let down = measured_server(&mut self.server, now, &mut self.up, &mut self.down);
            spent.client += middle - start;
            spent.server += cpu_time(self.timed) - middle;
            self.note([up, down]);
        }
        spent
    }
}

/// Processor time of this process, which other processes do not lengthen by taking the processor away.
fn cpu_time(timed: bool) -> Duration {
    if !timed {
        return Duration::ZERO;
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A function of its own, so that a profiler can tell it from the turns before.
#[inline(never)]
fn measured_client(client: &mut Client, now: Instant, from: &mut Pipe, to: &mut Pipe) -> u64 {
    client.turn(std::hint::black_box(now), from, to)
}

/// The same at the other end.
#[inline(never)]
fn measured_server(server: &mut Server, now: Instant, from: &mut Pipe, to: &mut Pipe) -> u64 {
    server.turn(std::hint::black_box(now), from, to)
}

/// Resident memory of this process in bytes, where the system tells.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).map_or(0, |pages| pages * 4096)
}

fn row(options: &Options, connections: usize) {
    let before = resident();
    let mut bench = Bench::new(options, connections);
    let begin = cpu_time(options.timed);
    bench.connect(connections);
    let handshake = (cpu_time(options.timed) - begin).as_secs_f64() * 1e6 / connections as f64;
    let memory = resident().saturating_sub(before);
    bench.settle(options.settle);
    bench.client.start(bench.now());
    let active = options.active.unwrap_or(connections).min(connections) as u64;
    // Few connections ask more often, so that each row has enough packets.
    let rounds = |least: u64| (active * options.rounds).max(least);
    bench.warm(rounds(2_000));
    let busy = resident().saturating_sub(before);
    let turns = [bench.server.turns, bench.client.turns];
    let spent = bench.measure(rounds(4_000));
    let [server, client] = [bench.server.turns.since(&turns[0]), bench.client.turns.since(&turns[1])];
    println!(
        "{connections:>11} {active:>7} {:>8} {:>9.0} {:>9.0} {:>9.2} {:>9.2} {:>8.1} {:>8.1} {:>9.1} {:>9.1} {:>9.1}",
        server.packets(),
        spent.server.as_nanos() as f64 / server.packets() as f64,
        spent.client.as_nanos() as f64 / client.packets() as f64,
        server.sent as f64 / server.trains as f64,
        server.ticks as f64 / server.packets() as f64,
        server.sent as f64 / server.turns as f64,
        server.trains as f64 / server.turns as f64,
        memory as f64 / 1024.0 / connections as f64,
        busy as f64 / 1024.0 / connections as f64,
        handshake,
    );
}

fn main() {
    let options = Options::parse();
    println!("{} crypto, answers of {} bytes", if options.real { "real" } else { "null" }, options.answer);
    println!(
        "{:>11} {:>7} {:>8} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9}",
        "connections",
        "active",
        "packets",
        "server",
        "client",
        "datagrams",
        "ticks",
        "per turn",
        "trains",
        "KiB both",
        "KiB both",
        "handshake"
    );
    println!(
        "{:>11} {:>7} {:>8} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9}",
        "",
        "",
        "(server)",
        "ns/packet",
        "ns/packet",
        "per train",
        "/ packet",
        "sent",
        "per turn",
        "ends idle",
        "ends busy",
        "µs both"
    );
    let connections = options.connections.clone();
    connections.into_iter().for_each(|n| row(&options, n));
}

impl Turns {
    /// Datagrams received and sent.
    fn packets(&self) -> u64 {
        (self.received + self.sent).max(1)
    }
}

//! What ten thousand connections cost in resident memory, C libraries included. Each case is a process of its own, because
//! all of a process is measured; `cargo run -p courser-tls --example memory` says where the bytes are.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::time::Duration;
use std::process::Command;

use courser_core::config::Settings;
use courser_core::engine::{Engine, EngineConfig, Meta, RetryPolicy, SendOutcome, ServerConfig as ServerPart, Train};
use courser_core::ids::Ecn;
use courser_testing::alloc::{Counting, now};
use courser_testing::duo::{CLIENT, Duo, SERVER};
use courser_tls::{AwsLc, ClientConfig, Credentials, Group, ServerConfig, SystemRandom};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Connections of each case.
const COUNT: usize = 10_000;
/// Clients that live at the same time: as few as possible, because only the server is to be measured.
const AT_ONCE: usize = 20;
/// Connections before the measurement, for what every process needs once.
const WARM_UP: usize = 400;
/// Says which case a process is for.
const CASE: &str = "COURSER_MEMORY_CASE";

fn engine() -> EngineConfig {
    EngineConfig::new(Box::new(AwsLc), Box::new(SystemRandom::new()))
}

/// Resident bytes of this process.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() << 10
}

struct World {
    tls: ClientConfig,
    duo: Duo,
    settings: Settings,
}

impl World {
    fn new(dormant_after: Option<Duration>) -> Self {
        let mut settings = Settings::default();
        settings.idle_timeout = Duration::from_secs(3600);
        settings.handshake_timeout = Duration::from_secs(3600);
        settings.dormant_after = dormant_after;
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let credentials = Credentials::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let tls = ServerConfig::builder().certificate(credentials).alpn(["test"]).build().unwrap();
        let mut server = engine();
        let mut part = ServerPart::new(Box::new(tls), settings.clone());
        // All that come are let in: what they cost is the question here, not who may come.
        (part.handshakes_max, part.sources, part.retry) = (1 << 20, None, RetryPolicy::Never);
        server.server = Some(part);
        let client = ClientConfig::builder()
            .danger_accept_any_certificate()
            .groups(&[Group::X25519])
            .alpn(["test"])
            .build()
            .unwrap();
        Self { tls: client, duo: Duo::of(engine(), server), settings }
    }

    /// Makes connections at the server whose clients go without a word once nothing is under way.
    fn connect(&mut self, count: usize) {
        for _ in 0..count.div_ceil(AT_ONCE) {
            for _ in 0..AT_ONCE {
                self.duo.connect_with(&self.tls, &self.settings);
            }
            // Acknowledgements, searches for larger datagrams and tickets are over after that.
            for _ in 0..30 {
                self.duo.now += Duration::from_millis(30);
                self.duo.round();
            }
            while self.duo.server.poll_event().is_some() {}
            self.duo.client = Engine::new(engine());
        }
    }

    /// Has the server answer clients that say nothing after their first flight.
    fn begin(&mut self, count: usize) {
        let mut train = Train::new();
        for n in 0..count {
            let duo = &mut self.duo;
            let mut client = Engine::new(engine());
            client.connect(duo.now, SERVER, "localhost", &self.tls, &self.settings).unwrap();
            client.process(duo.now);
            let mut from = CLIENT;
            from.set_port(u16::try_from(1024 + n).unwrap());
            while let Some(sent) = client.fill(duo.now, &mut train) {
                client.sent(duo.now, &sent, SendOutcome::Sent);
                let meta = Meta { local: None, remote: from, ecn: Ecn::NotEct, stride: sent.segment };
                duo.server.receive(duo.now, &meta, &mut train.bytes().to_vec());
            }
            if n % AT_ONCE == 0 {
                duo.now += Duration::from_millis(300);
            }
            duo.server.process(duo.now);
            while let Some(sent) = duo.server.fill(duo.now, &mut train) {
                duo.server.sent(duo.now, &sent, SendOutcome::Sent);
            }
            while duo.server.poll_event().is_some() {}
        }
    }

    /// All connections end without a word.
    fn end_all(&mut self) {
        self.duo.now += Duration::from_secs(3700);
        for _ in 0..10 {
            self.duo.now += Duration::from_secs(60);
            self.duo.round();
            while self.duo.server.poll_event().is_some() {}
        }
        assert_eq!((self.duo.server.connections(), self.duo.server.route_count()), (0, 0));
        assert_eq!(self.duo.server.pool_stats().in_use, 0);
    }
}

/// Bytes per connection of a case.
fn measure(case: &str) -> i64 {
    let dormant_after = (case != "awake").then_some(Duration::from_millis(100));
    let mut world = World::new(dormant_after);
    let make = |world: &mut World, count| if case == "half-open" { world.begin(count) } else { world.connect(count) };
    make(&mut world, WARM_UP);
    let (before, live) = (resident(), now().live);
    make(&mut world, COUNT);
    assert_eq!(world.duo.server.connections(), COUNT + WARM_UP);
    let peak = resident();
    match case {
        "again" => {
            world.end_all();
            // What is left is the room of tables and maps, and the connection IDs that died.
            let held = (now().live - live) / COUNT as i64;
            assert!(held <= 1 << 10, "{held} bytes for each connection that ended");
            world.connect(COUNT);
            (resident() - peak) / COUNT as i64
        }
        _ => (peak - before) / COUNT as i64,
    }
}

/// Runs a case in a process of its own.
fn bytes_of(case: &str) -> i64 {
    if let Ok(wanted) = std::env::var(CASE) {
        if wanted == case {
            println!("\n{case}: {}", measure(case));
        }
        std::process::exit(0);
    }
    let test = std::thread::current().name().unwrap().to_owned();
    let program = std::env::current_exe().unwrap();
    let out = Command::new(program).args(["--exact", &test, "--nocapture"]).env(CASE, case).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let figure = text.lines().find_map(|line| line.strip_prefix(case)?.strip_prefix(": ")?.parse().ok());
    let figure = figure.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&out.stderr)));
    println!("{case}: {figure} bytes per connection");
    figure
}

#[test]
fn an_idle_connection_takes_little() {
    let bytes = bytes_of("dormant");
    assert!(bytes <= 4200, "{bytes}");
}

#[test]
fn an_idle_connection_that_keeps_its_keys_takes_a_bit_more() {
    let bytes = bytes_of("awake");
    assert!(bytes <= 7500, "{bytes}");
}

#[test]
fn a_half_open_connection_with_tls_and_keys_takes_little() {
    let bytes = bytes_of("half-open");
    assert!(bytes <= 11_640, "{bytes}");
}

#[test]
fn nothing_is_held_for_connections_that_ended_and_others_find_room_there() {
    // Pages that the allocator keeps are used again: fragments do not add up.
    let bytes = bytes_of("again");
    assert!(bytes <= 256, "{bytes}");
}

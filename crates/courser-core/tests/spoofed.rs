//! A flood of Initials from addresses that nobody has, and honest clients in the midst of it.
//!
//! Virtual time: what is held is how much memory the flood takes, that it comes back, and how long honest handshakes take in
//! round trips. The program `flood` in `crates/courser/examples` does the same over sockets with real cryptography.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use courser_core::config::Settings;
use courser_core::engine::{Engine, Event, Meta, SendOutcome, ServerConfig, Train};
use courser_core::ids::{Cid, Ecn};
use courser_core::protect::null::{NullTlsClient, NullTlsServer};
use courser_core::time::Instant;
use courser_core::wire::frame::Frame;
use courser_testing::alloc::{Counting, count};
use courser_testing::duo::{null_client, null_server};
use courser_testing::initial::Forged;
use courser_testing::rig::{encode, packets};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 443);
/// One way.
const DELAY: Duration = Duration::from_millis(10);
const MS: Duration = Duration::from_millis(1);
/// Spoofed Initials per millisecond.
const RATE: u64 = 20;
const FLOOD: u64 = 100_000;

struct Honest {
    engine: Engine,
    started: Instant,
    done: Option<Duration>,
}

/// A server, honest clients with a round trip of 20 ms, and a flood.
struct Siege {
    server: Engine,
    now: Instant,
    clients: BTreeMap<SocketAddr, Honest>,
    /// On their way: when they arrive, from where, to where.
    wire: VecDeque<(Instant, SocketAddr, SocketAddr, Vec<u8>)>,
    train: Train,
    /// Frames of the spoofed packets: a whole ClientHello, and the beginning of one.
    payloads: [Vec<u8>; 2],
    spoofed: u64,
    /// One of so many datagrams is lost, and one comes late; zero: none.
    trouble: u64,
    moved: u64,
    seed: u64,
    took: Vec<Duration>,
}

/// The frames of a client's first datagram.
fn hello() -> (Vec<u8>, Cid) {
    let mut engine = Engine::new(null_client(5));
    let now = Instant::from_micros(1);
    engine.connect(now, SERVER, "localhost", &NullTlsClient::default(), &Settings::default()).unwrap();
    let mut train = Train::new();
    engine.process(now);
    engine.fill(now, &mut train).unwrap();
    let header = courser_core::wire::header::decode(train.bytes(), 8).unwrap();
    let scid = header.long().unwrap().scid;
    (packets(train.bytes()).remove(0).1, scid)
}

impl Siege {
    fn new(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = null_server(3, NullTlsServer::default(), &Settings::default());
        change(config.server.as_mut().unwrap());
        let part = encode(&[Frame::Crypto { offset: 0, data: &[&[1, 0, 0x0f, 0x9c][..], &[7; 900]].concat() }]);
        Self {
            server: Engine::new(config),
            now: Instant::from_micros(1_000_000),
            clients: BTreeMap::new(),
            wire: VecDeque::new(),
            train: Train::new(),
            payloads: [hello().0, part],
            spoofed: 0,
            trouble: 0,
            moved: 0,
            seed: 100,
            took: Vec::new(),
        }
    }

    fn connect(&mut self, at: SocketAddr) {
        self.seed += 1;
        let mut engine = Engine::new(null_client(self.seed));
        engine.connect(self.now, SERVER, "localhost", &NullTlsClient::default(), &Settings::default()).unwrap();
        self.clients.insert(at, Honest { engine, started: self.now, done: None });
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8], segment: usize) {
        for datagram in bytes.chunks(segment) {
            self.moved += 1;
            let mut at = self.now + DELAY;
            if self.trouble > 0 {
                // Spread evenly, and differently in each run of datagrams.
                let dice = self.moved.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                if dice.is_multiple_of(self.trouble) {
                    continue;
                }
                at += MS * u32::try_from(dice / 1000 % 8).unwrap();
            }
            self.wire.push_back((at, from, to, datagram.to_vec()));
        }
    }

    fn spoof(&mut self, count: u64) {
        let scid = hello_scid();
        for _ in 0..count {
            let n = self.spoofed;
            self.spoofed += 1;
            let dcid = Cid::new(&(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).to_be_bytes()).unwrap();
            let payload = &self.payloads[usize::from(n % 2 == 1)];
            let mut datagram = Forged::new(dcid, scid, payload).datagram();
            let remote = SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x1000_0000 + n as u32)), 4000);
            let meta = Meta { local: None, remote, ecn: Ecn::NotEct, stride: datagram.len() };
            self.server.receive(self.now, &meta, &mut datagram);
        }
    }

    /// A millisecond.
    fn step(&mut self) {
        for _ in 0..self.wire.len() {
            let Some((at, from, to, mut bytes)) = self.wire.pop_front() else { break };
            if at > self.now {
                self.wire.push_back((at, from, to, bytes));
                continue;
            }
            let meta = Meta { local: None, remote: from, ecn: Ecn::NotEct, stride: bytes.len() };
            if to == SERVER {
                self.server.receive(self.now, &meta, &mut bytes);
            } else if let Some(client) = self.clients.get_mut(&to) {
                client.engine.receive(self.now, &meta, &mut bytes);
            }
        }
        self.server.process(self.now);
        while self.server.poll_event().is_some() {}
        let mut train = core::mem::take(&mut self.train);
        while let Some(meta) = self.server.fill(self.now, &mut train) {
            self.server.sent(self.now, &meta, SendOutcome::Sent);
            if self.clients.contains_key(&meta.to) {
                self.send(SERVER, meta.to, train.bytes(), meta.segment);
            }
        }
        let mut clients = core::mem::take(&mut self.clients);
        for (address, client) in &mut clients {
            client.engine.process(self.now);
            while let Some((_, event)) = client.engine.poll_event() {
                if event == Event::Confirmed {
                    client.done = Some(self.now - client.started);
                }
            }
            while let Some(meta) = client.engine.fill(self.now, &mut train) {
                client.engine.sent(self.now, &meta, SendOutcome::Sent);
                self.send(*address, SERVER, train.bytes(), meta.segment);
            }
        }
        // Who is connected goes its way.
        clients.retain(|_, client| match client.done {
            Some(took) => {
                self.took.push(took);
                false
            }
            None => true,
        });
        self.clients = clients;
        self.train = train;
        self.now += MS;
    }
}

fn hello_scid() -> Cid {
    thread_local!(static SCID: Cid = hello().1);
    SCID.with(|scid| *scid)
}

fn client_at(n: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0a01_0000 + n)), 6000)
}

/// 200 honest clients in five seconds; how long the slowest but one of a hundred took, and how many came through.
fn five_seconds(siege: &mut Siege, flood: bool) -> (Duration, usize) {
    let mut most = 0;
    siege.took.clear();
    for ms in 0..5_000_u32 {
        if ms % 25 == 12 {
            siege.connect(client_at(ms));
        }
        if flood {
            siege.spoof(RATE);
        }
        siege.step();
        most = most.max(siege.server.handshakes());
    }
    for _ in 0..9_000 {
        if siege.clients.is_empty() {
            break;
        }
        siege.step();
    }
    siege.took.sort();
    let count = siege.took.len();
    println!("{count} of 200, median {:?}, at most {most} handshakes at once", siege.took[count / 2]);
    (siege.took[(count * 99).div_ceil(100) - 1], count)
}

#[test]
fn a_hundred_thousand_spoofed_initials_cost_little_memory_and_honest_clients_little_time() {
    let mut quiet = Siege::new(|_| {});
    let (quiet_p99, connected) = five_seconds(&mut quiet, false);
    assert_eq!(connected, 200);
    let mut siege = Siege::new(|part| part.settings.idle_timeout = Duration::from_secs(8));
    let ((p99, connected), during) = count(|| five_seconds(&mut siege, true));
    let stats = siege.server.stats();
    println!("p99 {p99:?}, quiet {quiet_p99:?}; {} KiB more; {stats:?}", during.live >> 10);
    assert_eq!(siege.spoofed, FLOOD);
    assert!(connected >= 198, "{connected} of 200");
    assert!(p99 <= 3 * quiet_p99, "{p99:?}, quiet {quiet_p99:?}");
    assert!(during.live <= 64 << 20, "{} KiB", during.live >> 10);
    assert!(stats.retries > FLOOD * 9 / 10, "nearly all are asked for their address: {stats:?}");
    let ((), after) = count(|| (0..36_000).for_each(|_| siege.step()));
    let left = during.live + after.live;
    println!("{} KiB left", left >> 10);
    assert!(left <= during.live / 10 || left <= 1 << 20, "{left} of {}", during.live);
    assert_eq!((siege.server.handshakes(), siege.server.connections()), (0, 0));
}

#[test]
fn without_a_retry_the_limit_of_handshakes_bounds_the_memory() {
    let mut siege = Siege::new(|part| part.retry = courser_core::engine::RetryPolicy::Never);
    let ((), during) = count(|| {
        for _ in 0..1_000 {
            siege.spoof(RATE);
            siege.step();
        }
    });
    let stats = siege.server.stats();
    println!("{} KiB more; {stats:?}", during.live >> 10);
    assert!(stats.gate_handshakes > 0 && siege.server.handshakes() <= 10_000);
    assert!(during.live <= 96 << 20, "{} KiB", during.live >> 10);
}

#[test]
fn three_hundred_clients_behind_one_address_do_not_trip_its_limits_over_a_bad_path() {
    for trouble in [0, 20, 7] {
        let mut siege = Siege::new(|_| {});
        siege.trouble = trouble;
        for n in 0..300 {
            siege.connect(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 10_000 + n));
            siege.step();
        }
        for _ in 0..9_500 {
            siege.step();
        }
        let stats = siege.server.stats();
        println!("1 of {trouble} lost: {} of 300, {} asked for a proof", siege.took.len(), stats.gate_retry);
        assert_eq!((stats.gate_source, stats.retry_source), (0, 0), "{stats:?}");
        assert!(siege.took.len() >= 297, "{} of 300", siege.took.len());
    }
}

#[test]
fn one_address_that_finishes_nothing_is_asked_and_then_not_heard_and_others_are() {
    let mut siege = Siege::new(|part| part.retry = courser_core::engine::RetryPolicy::Never);
    let bad = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 4000);
    let scid = hello_scid();
    for n in 0..2_000_u64 {
        let mut datagram = Forged::new(Cid::new(&n.to_be_bytes()).unwrap(), scid, &siege.payloads[0]).datagram();
        let meta = Meta { local: None, remote: bad, ecn: Ecn::NotEct, stride: datagram.len() };
        siege.server.receive(siege.now, &meta, &mut datagram);
        siege.step();
    }
    let stats = siege.server.stats();
    assert!((256..=400).contains(&stats.accepted), "{stats:?}");
    assert_eq!((stats.accepted + stats.retry_source, stats.gate_retry), (2_000, stats.retry_source), "{stats:?}");
    siege.connect(client_at(1));
    (0..100).for_each(|_| siege.step());
    assert_eq!((siege.took.len(), siege.server.stats().gate_retry), (1, stats.gate_retry), "others are let in as ever");
}

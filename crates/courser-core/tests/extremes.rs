//! Promises about numbers, over many runs by chance: amplification, acknowledgements ahead of time, names that weak hashes
//! take for one.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use courser_core::config::Settings;
use courser_core::engine::{Engine, Meta, SendOutcome, Train};
use courser_core::ids::{Cid, Dir, Ecn, Level, Side, Version};
use courser_core::protect::null::{NullRandom, NullTlsServer};
use courser_core::time::Instant;
use courser_core::wire::varint;
use courser_testing::Chance;
use courser_testing::duo::null_server;
use courser_testing::initial::Forged;
use courser_testing::rig::{Plan, Rig, Stage, packets};

const PROTOCOL: u64 = 0xa;

/// A server whose answers are counted by where they go.
struct Counted {
    engine: Engine,
    now: Instant,
    train: Train,
    /// Bytes that came from an address, and that went there.
    bytes: HashMap<SocketAddr, (u64, u64)>,
}

impl Counted {
    fn receive(&mut self, from: SocketAddr, datagram: &mut [u8]) {
        self.bytes.entry(from).or_default().0 += datagram.len() as u64;
        let meta = Meta { local: None, remote: from, ecn: Ecn::NotEct, stride: datagram.len() };
        self.engine.receive(self.now, &meta, datagram);
    }

    /// Sends what there is, and holds the limit after each datagram.
    fn send(&mut self) {
        self.engine.process(self.now);
        while let Some(meta) = self.engine.fill(self.now, &mut self.train) {
            let count = self.bytes.entry(meta.to).or_default();
            count.1 += self.train.len() as u64;
            assert!(count.1 <= 3 * count.0, "{} bytes went to who sent {}", count.1, count.0);
            self.engine.sent(self.now, &meta, SendOutcome::Sent);
        }
        while self.engine.poll_event().is_some() {}
    }
}

#[test]
fn ten_thousand_exchanges_of_initials_by_chance_get_three_times_what_they_sent_at_most() {
    //= rfc9000#8.1-2 type=test
    let tls = || NullTlsServer { certificate_len: 20_000, ..NullTlsServer::default() };
    let rig = Rig::new(Plan { tls: tls(), ..Plan::new(Side::Server, Stage::Initial) });
    let mut hello = packets(&rig.hello).remove(0).1;
    hello.truncate(hello.iter().rposition(|b| *b != 0).unwrap() + 1);
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut server = Counted {
        engine: Engine::new(null_server(3, tls(), &Settings::default())),
        now: Instant::from_micros(1_000_000),
        train: Train::new(),
        bytes: HashMap::new(),
    };
    let mut most = 0;
    for n in 0..10_000_u32 {
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + n)), 5000);
        let name = Cid::new(&(u64::from(n) << 20 | 0xabcde).to_be_bytes()).unwrap();
        for pn in 0..1 + chance.below(3) {
            let len = 1200 + chance.below(300) as usize;
            let token = vec![7; chance.below(2) as usize * chance.below(90) as usize];
            let cut = 1 + chance.below(hello.len() as u64) as usize;
            let payload = match chance.below(8) {
                0..=3 => hello.clone(),
                4 => hello[..cut].to_vec(),
                5 => vec![1; 30],
                6 => vec![0x06, 0, 6, 1, 0, 4, 0, 3, 3],
                _ => vec![0x21; 9],
            };
            let version = if chance.below(10) == 0 { Version(0x1a2a_3a4a) } else { Version::V1 };
            let forged =
                Forged { version: Version::V1, token: &token, pn, len, ..Forged::new(name, rig.from, &payload) };
            let mut datagram = forged.datagram();
            datagram[1..5].copy_from_slice(&version.0.to_be_bytes());
            if chance.below(12) == 0 {
                let at = chance.below(datagram.len() as u64) as usize;
                datagram[at] ^= 1 << chance.below(8);
            }
            server.receive(from, &mut datagram);
            server.send();
        }
        if n % 4 == 0 {
            server.now += Duration::from_millis(chance.below(400));
            server.send();
        }
        most = most.max(server.bytes[&from].1 * 1000 / server.bytes[&from].0);
    }
    for _ in 0..100 {
        server.now += Duration::from_millis(300);
        server.send();
    }
    let ratio = server.bytes.values().map(|b| b.1 * 1000 / b.0).max().unwrap();
    println!("{} addresses, at most {ratio} thousandths of what came, {most} at once", server.bytes.len());
    assert!((2900..=3000).contains(&ratio), "a limit that nobody reaches shows nothing: {ratio}");
}

/// Where randomness begins in the next rig.
static SEED: AtomicU64 = AtomicU64::new(0);

fn int(value: u64) -> Vec<u8> {
    let mut out = [0; 8];
    let len = varint::encode(value, &mut out).unwrap();
    out[..len].to_vec()
}

#[test]
fn a_hundred_of_a_hundred_who_acknowledge_what_they_did_not_get_are_found_out_within_two_windows() {
    let mut worst = 0;
    for seed in 1..=100 {
        SEED.store(seed, Ordering::Relaxed);
        let engine = |config: &mut courser_core::engine::EngineConfig| {
            config.random = Box::new(NullRandom::new(SEED.load(Ordering::Relaxed)));
        };
        let mut forger = Settings::default();
        (forger.stream_window, forger.stream_window_max) = (1 << 30, 1 << 30);
        (forger.conn_window, forger.conn_window_max) = (1 << 30, 1 << 30);
        let mut rig = Rig::new(Plan { engine, forger, ..Plan::new(Side::Client, Stage::Confirmed) });
        let id = rig.victim.open_stream(rig.key, Dir::Bi).unwrap().unwrap();
        let first = rig.sent.first().unwrap().0;
        let (mut bytes, mut window) = (0, 0);
        let code = loop {
            while rig.victim.write(rig.key, id, &[7; 60_000]).is_ok_and(|n| n == 60_000) {}
            let seen = rig.collect();
            bytes += seen.bytes() as u64;
            if let Some(code) = seen.code() {
                break code;
            }
            window = rig.victim.conn_stats(rig.key).unwrap().congestion_window.max(window);
            assert!(bytes <= 64 << 20, "seed {seed}: {bytes} bytes, nobody noticed");
            // All that may have left, whether it came or not: without a gap.
            let largest = rig.sent.last().unwrap().1;
            let payload = [vec![0x02], int(largest), vec![0, 0], int(largest - first)].concat();
            rig.give(Level::OneRtt, &payload);
            rig.now += Duration::from_millis(20);
        };
        assert_eq!(code, PROTOCOL, "seed {seed}");
        worst = worst.max(bytes * 100 / window);
        assert!(bytes <= 2 * window, "seed {seed}: {bytes} bytes were sent, the window was {window}");
    }
    println!("at most {worst} % of the window was sent");
}

#[test]
fn names_that_weak_hashes_take_for_one_cost_what_names_by_chance_cost() {
    /// Half-open clients, and packets to each.
    const NAMES: u64 = 2000;
    // Sums, exclusive ors and multiples of words are equal among these.
    let chosen = |n: u64| n << 32 | (0xffff_ffff - n);
    let by_chance = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995;
    let time = |name: &dyn Fn(u64) -> u64| {
        let mut config = null_server(3, NullTlsServer::default(), &Settings::default());
        let part = config.server.as_mut().unwrap();
        part.handshakes_max = NAMES as usize + 1;
        part.retry = courser_core::engine::RetryPolicy::Never;
        let mut engine = Engine::new(config);
        let now = Instant::from_micros(1_000_000);
        let begun = std::time::Instant::now();
        for round in 0..4 {
            for n in 0..NAMES {
                let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0b00_0000 + n as u32)), 5000);
                let cid = Cid::new(&name(n).to_be_bytes()).unwrap();
                let payload = [0x06, 0, 6, 1, 0, 4, 0, 3, 3];
                let mut datagram = Forged { pn: round, ..Forged::new(cid, cid, &payload) }.datagram();
                let meta = Meta { local: None, remote: from, ecn: Ecn::NotEct, stride: datagram.len() };
                engine.receive(now, &meta, &mut datagram);
            }
        }
        assert_eq!(engine.connections() as u64, NAMES, "every name has its own");
        begun.elapsed()
    };
    // The quickest of some runs, because other programs share the machine.
    let quickest = |name: &dyn Fn(u64) -> u64| (0..5).map(|_| time(name)).min().unwrap();
    let (bad, good) = (quickest(&chosen), quickest(&by_chance));
    println!("{NAMES} chosen names took {bad:?}, {NAMES} by chance {good:?}");
    // Two thousand in one chain would take hundreds of times as long.
    assert!(bad <= 4 * good, "{bad:?} against {good:?}");
}

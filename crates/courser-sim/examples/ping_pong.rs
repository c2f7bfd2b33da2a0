//! A protocol of one's own over a lossy link: numbered pings that are repeated until the pong comes.
//!
//! Run it with `cargo run -p courser-sim --example ping_pong`, and once more with another seed as its argument. The same
//! seed always prints the same lines.

use courser_sim::{Datagram, Duplex, Host, LinkConfig, Outbox, Rng, addr, point_to_point};

/// A ping is repeated when its pong has not come for so long.
const PATIENCE_US: u64 = 100_000;

/// Sends ping after ping, each until it is answered.
struct Pinger {
    number: u8,
    last: u8,
    first_sent_us: u64,
    repeat_us: Option<u64>,
    answered: bool,
    sent: u32,
    times_us: Vec<u64>,
}

impl Pinger {
    fn new(last: u8) -> Self {
        Self { number: 0, last, first_sent_us: 0, repeat_us: None, answered: true, sent: 0, times_us: Vec::new() }
    }

    fn is_done(&self) -> bool {
        self.answered && self.number == self.last
    }
}

impl Host for Pinger {
    fn receive(&mut self, now_us: u64, d: &mut Datagram) {
        // A late pong of an earlier ping, or a damaged one, does not count.
        if !self.answered && d.bytes == [b'o', self.number] {
            self.answered = true;
            self.times_us.push(now_us - self.first_sent_us);
        }
    }

    fn poll(&mut self, now_us: u64, out: &mut Outbox) {
        if self.is_done() {
            self.repeat_us = None;
            return;
        }
        if self.answered {
            self.answered = false;
            self.number += 1;
            self.first_sent_us = now_us;
        } else if self.repeat_us.is_some_and(|t| t > now_us) {
            return;
        }
        out.send(addr::client(0), addr::server(0), &[b'i', self.number]);
        self.sent += 1;
        self.repeat_us = Some(now_us + PATIENCE_US);
    }

    fn deadline(&self) -> Option<u64> {
        self.repeat_us
    }
}

/// Answers each ping.
#[derive(Default)]
struct Ponger {
    to_answer: Vec<u8>,
}

impl Host for Ponger {
    fn receive(&mut self, _now_us: u64, d: &mut Datagram) {
        if let [b'i', number] = d.bytes[..] {
            self.to_answer.push(number);
        }
    }

    fn poll(&mut self, _now_us: u64, out: &mut Outbox) {
        for number in self.to_answer.drain(..) {
            out.send(addr::server(0), addr::client(0), &[b'o', number]);
        }
    }

    fn deadline(&self) -> Option<u64> {
        None
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seed = std::env::args().nth(1).map_or(Ok(1), |s| s.parse())?;
    let delay_us = Rng::new(seed).range(10_000..=30_000);
    let bad = LinkConfig::new().delay_us(delay_us).loss(0.2).jitter(5_000, false).duplicate(0.05);
    let mut p = point_to_point(seed, Pinger::new(100), Ponger::default(), &Duplex::symmetric(bad));

    let a = p.a;
    let stop = p.world.run_until_true(60_000_000, |w| w.host(a).is_done())?;

    let pinger = p.world.host(p.a);
    let mut times = pinger.times_us.clone();
    times.sort_unstable();
    println!("{stop:?} after {:.3} s of virtual time", p.world.now_us() as f64 / 1e6);
    println!("one way {delay_us} us; {} pings sent for {} pongs", pinger.sent, times.len());
    println!("median {} us, slowest {} us", times[times.len() / 2], times[times.len() - 1]);
    for (name, link) in [("up", p.up), ("down", p.down)] {
        let s = p.world.link(link).stats();
        println!("{name}: sent {}, dropped {}, duplicated {}", s.sent, s.dropped(), s.duplicated);
    }
    println!("trace {:016x}", p.world.trace_hash());
    Ok(())
}

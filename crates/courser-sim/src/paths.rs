//! Forty paths on which congestion control and recovery are judged.
//!
//! In each, clients fetch data from servers through one bottleneck. Rates are what the bottleneck carries down (server to
//! client), times are round trips, split evenly between the directions, queues are multiples of the bandwidth-delay product
//! ("BDP"). A datagram costs its payload plus 28 bytes. Unless a row says otherwise, the way back carries only delay.

use crate::config::{Duplex, LinkConfig};
use crate::late::Lateness;
use crate::node::ecn::Ecn;
use crate::topology::Dumbbell;

/// Who sends on a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The sender that is judged.
    Subject,
    /// A rival with CUBIC.
    RivalCubic,
    /// A rival with BBR.
    RivalBbr,
}

/// One client and its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who sends.
    pub sender: Sender,
    /// When the client starts, in microseconds.
    pub start_us: u64,
    /// One-way delay of the client's own link, on top of the bottleneck's.
    pub access_delay_us: u64,
    /// What the client fetches; `None` for as much as the time allows.
    pub bytes: Option<u64>,
}

impl Flow {
    const fn new(sender: Sender) -> Self {
        Self { sender, start_us: 0, access_delay_us: 0, bytes: None }
    }

    /// Link between the client and the bottleneck.
    #[must_use]
    pub fn access(&self) -> Duplex {
        Duplex::delay_us(self.access_delay_us)
    }
}

/// One of the forty.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// Its name.
    pub name: &'static str,
    /// The shared link: "up" from clients to servers.
    pub bottleneck: Duplex,
    /// Who uses it.
    pub flows: Vec<Flow>,
    /// How long a run lasts at most.
    pub duration_us: u64,
    /// Figures are taken from here on.
    pub judge_from_us: u64,
    /// How late its hosts are; the forty have hosts that are always there.
    pub lateness: Lateness,
}

const MS: u64 = 1_000;
const S: u64 = 1_000_000;
const KBIT: u64 = 1_000;
const MBIT: u64 = 1_000_000;

impl Path {
    fn new(name: &'static str, up: LinkConfig, down: LinkConfig) -> Self {
        let flows = vec![Flow::new(Sender::Subject)];
        Self {
            name,
            bottleneck: Duplex::new(up, down),
            flows,
            duration_us: 10 * S,
            judge_from_us: 0,
            lateness: Lateness::NONE,
        }
    }

    /// A rate, a round trip, a queue of `bdp_tenths` tenths of a BDP.
    fn plain(name: &'static str, bits_per_s: u64, rtt_us: u64, bdp_tenths: u64) -> Self {
        let queue = bits_per_s / 8 * rtt_us / S * bdp_tenths / 10;
        let down = LinkConfig::new().rate(bits_per_s).queue_bytes(queue).delay_us(rtt_us / 2);
        Self::new(name, LinkConfig::new().delay_us(rtt_us / 2), down)
    }

    /// The path most rows vary: 20 Mbit/s, 40 ms, 1 BDP.
    fn usual(name: &'static str) -> Self {
        Self::plain(name, 20 * MBIT, 40 * MS, 10)
    }

    fn down(mut self, change: impl FnOnce(LinkConfig) -> LinkConfig) -> Self {
        self.bottleneck.down = change(self.bottleneck.down);
        self
    }

    fn up(mut self, change: impl FnOnce(LinkConfig) -> LinkConfig) -> Self {
        self.bottleneck.up = change(self.bottleneck.up);
        self
    }

    fn rival(mut self, sender: Sender) -> Self {
        self.flows.push(Flow::new(sender));
        self
    }

    fn fetch(mut self, bytes: u64) -> Self {
        self.flows[0].bytes = Some(bytes);
        self.duration_us = 60 * S;
        self
    }

    /// The bottleneck as a world, with no hosts yet; add one pair for each flow, with [`Flow::access`].
    #[must_use]
    pub fn dumbbell(&self, seed: u64) -> Dumbbell {
        Dumbbell::new(seed, &self.bottleneck)
    }

    /// The same path with hosts that are woken late.
    #[must_use]
    pub const fn with(mut self, lateness: Lateness) -> Self {
        self.lateness = lateness;
        self
    }

    /// Shortest round trip of a flow, without serialisation.
    #[must_use]
    pub fn rtt_us(&self, flow: &Flow) -> u64 {
        self.bottleneck.up.delay_us + self.bottleneck.down.delay_us + 2 * flow.access_delay_us
    }

    /// Payload bytes that the way down can carry between two times, in datagrams of `payload` bytes.
    #[must_use]
    pub fn capacity_bytes(&self, from_us: u64, to_us: u64, payload: u64) -> u64 {
        self.bottleneck.down.capacity_bytes(from_us, to_us, payload).unwrap_or(u64::MAX)
    }
}

/// The path of a name.
#[must_use]
pub fn by_name(name: &str) -> Option<Path> {
    all().into_iter().find(|p| p.name == name)
}

/// All forty, in their usual order.
#[must_use]
pub fn all() -> Vec<Path> {
    let mut list = rates_and_losses();
    list.extend(disturbances());
    list.extend(changes());
    list.extend(sharing());
    list.extend(short_fetches());
    list
}

fn rates_and_losses() -> Vec<Path> {
    let fast = |name| Path::plain(name, 100 * MBIT, 10 * MS, 10);
    let sat = |name| Path::plain(name, 50 * MBIT, 600 * MS, 10);
    let lte = [20, 5, 30, 2, 15].map(|mbit| (1_500 * MS, mbit * MBIT));
    let lte_down = LinkConfig::new().rate_steps(&lte, true).queue_bytes(200_000).delay_us(25 * MS);
    vec![
        Path::plain("base-10m-30ms", 10 * MBIT, 30 * MS, 10),
        fast("fast-100m-10ms"),
        fast("loss01-100m-10ms").down(|c| c.loss(0.001)),
        fast("loss1-100m-10ms").down(|c| c.loss(0.01)),
        fast("loss3-100m-10ms").down(|c| c.loss(0.03)),
        Path::plain("long-20m-300ms", 20 * MBIT, 300 * MS, 10),
        sat("sat-50m-600ms"),
        sat("sat-50m-600ms-loss1").down(|c| c.loss(0.01)),
        Path::new("lte-steps", LinkConfig::new().delay_us(25 * MS), lte_down),
        Path::plain("bloat-10m-40ms-10bdp", 10 * MBIT, 40 * MS, 100),
        Path::plain("shallow-20m-40ms-01bdp", 20 * MBIT, 40 * MS, 1),
    ]
}

fn disturbances() -> Vec<Path> {
    vec![
        Path::usual("burst-20m-40ms").down(|c| c.loss_bursts(0.01, 5.0)),
        Path::usual("reorder3-20m-40ms").down(|c| c.reorder(0.03, 5 * MS)),
        Path::usual("reorder-deep-20m-40ms").down(|c| c.reorder(0.01, 25 * MS)),
        Path::usual("dup2-20m-40ms").down(|c| c.duplicate(0.02)),
        Path::usual("jitter-20m-40ms").down(|c| c.jitter(10 * MS, true)),
        Path::usual("ackloss20-20m-40ms").up(|c| c.loss(0.2)),
        Path::usual("thin-ack-20m-40ms").up(|c| c.rate(200 * KBIT).queue_bytes(16_000)),
        Path::plain("policer-10m-40ms", 100 * MBIT, 40 * MS, 10).down(|c| c.policer(10 * MBIT, 50_000)),
        Path::plain("wifi-40m-20ms", 40 * MBIT, 20 * MS, 10)
            .down(|c| c.bunch(4 * MS, 12 * MS))
            .up(|c| c.bunch(2 * MS, 8 * MS)),
        Path::plain("ecn-20m-40ms", 20 * MBIT, 40 * MS, 40).down(|c| c.ce_above_us(5 * MS)),
        Path::usual("ecn-bleach-20m-40ms").down(|c| c.ecn(Ecn::Bleach)).up(|c| c.ecn(Ecn::Bleach)),
    ]
}

fn changes() -> Vec<Path> {
    let steps = |name, first: u64, then: u64| {
        let down = LinkConfig::new().rate_steps(&[(2 * S, first * MBIT), (S, then * MBIT)], false);
        Path::new(name, LinkConfig::new().delay_us(20 * MS), down.queue_bytes(250_000).delay_us(20 * MS))
    };
    let outage = [(2 * S, 20 * MBIT), (S, 0), (S, 20 * MBIT)];
    vec![
        Path::usual("outage-20m-40ms").down(|c| c.rate_steps(&outage, false)),
        steps("up-5-50m-40ms", 5, 50),
        steps("down-50-5m-40ms", 50, 5),
        Path::plain("slow-05m-100ms", 500 * KBIT, 100 * MS, 40),
        Path::usual("mtu-1280-20m-40ms").down(|c| c.mtu(1_280)).up(|c| c.mtu(1_280)),
    ]
}

fn sharing() -> Vec<Path> {
    let fair_rtt = {
        // The bottleneck itself has no delay; each flow brings its own. The queue is one BDP of the mean round trip, 50 ms.
        let mut p = Path::plain("fair-rtt-20-80", 20 * MBIT, 50 * MS, 10).rival(Sender::Subject);
        p.bottleneck.up.delay_us = 0;
        p.bottleneck.down.delay_us = 0;
        p.flows[0].access_delay_us = 10 * MS;
        p.flows[1].access_delay_us = 40 * MS;
        p
    };
    let late_comer = {
        let mut p = Path::usual("late-comer").rival(Sender::Subject);
        p.flows[1].start_us = 4 * S;
        p.judge_from_us = 7 * S;
        p
    };
    vec![
        Path::usual("fair-same").rival(Sender::Subject),
        fair_rtt,
        late_comer,
        Path::usual("vs-cubic").rival(Sender::RivalCubic),
        Path::usual("vs-bbr").rival(Sender::RivalBbr),
        Path::plain("vs-cubic-deep", 20 * MBIT, 40 * MS, 50).rival(Sender::RivalCubic),
    ]
}

fn short_fetches() -> Vec<Path> {
    vec![
        Path::usual("fct-10k").fetch(10_000),
        Path::usual("fct-100k").fetch(100_000),
        Path::usual("fct-1m").fetch(1_000_000),
        Path::usual("fct-20m").fetch(20_000_000),
        Path::plain("fct-100k-300ms", 20 * MBIT, 300 * MS, 10).fetch(100_000),
        Path::usual("fct-10k-loss5").fetch(10_000).down(|c| c.loss(0.05)).up(|c| c.loss(0.05)),
        Path::usual("fct-100k-loss2").fetch(100_000).down(|c| c.loss(0.02)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_forty_with_distinct_names() {
        let mut names: Vec<_> = all().iter().map(|p| p.name).collect();
        assert_eq!(names.len(), 40);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 40);
        assert!(by_name("wifi-40m-20ms").is_some() && by_name("wifi").is_none());
    }

    #[test]
    fn queues_are_multiples_of_the_bandwidth_delay_product() {
        for (name, bytes) in [
            ("base-10m-30ms", 37_500),
            ("fast-100m-10ms", 125_000),
            ("sat-50m-600ms", 3_750_000),
            ("bloat-10m-40ms-10bdp", 500_000),
            ("shallow-20m-40ms-01bdp", 10_000),
            ("ecn-20m-40ms", 400_000),
            ("slow-05m-100ms", 25_000),
            ("vs-cubic-deep", 500_000),
            ("lte-steps", 200_000),
        ] {
            let p = by_name(name).unwrap();
            assert_eq!(p.bottleneck.down.queue.bytes_max, Some(bytes), "{name}");
        }
    }

    #[test]
    fn round_trips_are_those_of_the_names() {
        for p in all() {
            let rtts: Vec<u64> = p.flows.iter().map(|f| p.rtt_us(f) / 1_000).collect();
            let from_name = p.name.split('-').find_map(|part| part.strip_suffix("ms")?.parse::<u64>().ok());
            match (p.name, from_name) {
                (_, Some(ms)) => assert!(rtts.iter().all(|&r| r == ms), "{}", p.name),
                ("fair-rtt-20-80", _) => assert_eq!(rtts, [20, 80]),
                ("lte-steps", _) => assert_eq!(rtts, [50]),
                _ => assert!(rtts.iter().all(|&r| r == 40), "{}", p.name),
            }
        }
    }
}

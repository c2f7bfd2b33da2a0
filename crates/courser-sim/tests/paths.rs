//! Each of the forty paths, measured with a sender of a fixed window: does the link do what its row says?

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use courser_sim::node::rate::Rate;
use courser_sim::paths::{Path, all, by_name};
use courser_sim::{Cause, Dumbbell, HostId, LinkStats, addr};
use support::{Acker, PAYLOAD, Windowed};

const S: u64 = 1_000_000;
const WIRE: u64 = PAYLOAD as u64 + 28;
/// Long enough for one round of the LTE steps.
const RUN_US: u64 = 15 * S / 2;

struct Run {
    net: Dumbbell,
    servers: Vec<HostId<Windowed>>,
    clients: Vec<HostId<Acker>>,
}

impl Run {
    /// Every flow of the path from time zero, with this window each.
    fn new(path: &Path, window: usize, patience_us: u64) -> Self {
        let mut net = path.dumbbell(7);
        let (mut servers, mut clients) = (Vec::new(), Vec::new());
        for (i, flow) in (0u16..).zip(&path.flows) {
            let server = Windowed::new(addr::server(i), addr::client(i), window, patience_us);
            let (client, server) = net.add_pair(Acker::default(), server, &flow.access());
            servers.push(server);
            clients.push(client);
        }
        Self { net, servers, clients }
    }

    fn bytes_between(&self, from_us: u64, to_us: u64) -> u64 {
        self.clients.iter().map(|&c| self.net.world.host(c).bytes_between(from_us, to_us)).sum()
    }

    fn down(&self) -> &LinkStats {
        self.net.world.link(self.net.down).stats()
    }

    fn up(&self) -> &LinkStats {
        self.net.world.link(self.net.up).stats()
    }
}

/// Fastest and slowest rate of the way down that is not an outage.
fn rates(path: &Path) -> (u64, u64) {
    match &path.bottleneck.down.rate {
        Rate::Constant(r) => (*r, *r),
        Rate::Steps { steps, .. } => {
            let some = || steps.iter().map(|s| s.bits_per_s).filter(|&r| r > 0);
            (some().max().unwrap(), some().min().unwrap())
        }
        Rate::Unlimited => panic!("{} has no bottleneck", path.name),
    }
}

/// Runs the path with more in flight than pipe and queue hold, so that the bottleneck never idles.
fn overdriven(path: &Path) -> Run {
    let (fast, slow) = rates(path);
    let rtt = path.flows.iter().map(|f| path.rtt_us(f)).max().unwrap();
    let queue = path.bottleneck.down.queue.bytes_max.unwrap();
    let window = (fast / 8 * rtt / S + queue) * 3 / 2 / WIRE / path.flows.len() as u64 + 2;
    let patience = (rtt + queue * 8 * S / slow) * 3 / 2 + 20_000;
    let mut run = Run::new(path, window as usize, patience);
    run.net.world.run_until(RUN_US).unwrap();
    run
}

#[test]
fn the_idle_round_trip_of_each_path_is_that_of_its_name() {
    for path in all() {
        let mut run = Run::new(&path, 1, 5 * S);
        run.net.world.run_until(RUN_US).unwrap();
        // The shortest round trip is that of the fastest step.
        let rate = rates(&path).0;
        for (flow, &server) in path.flows.iter().zip(&run.servers) {
            let least = path.rtt_us(flow) + WIRE * 8 * S / rate;
            let (shortest, _) = run.net.world.host(server).rtt_us;
            // Two datagrams may meet at the bottleneck, the thin way back serialises answers, and bunches make wait.
            let slack = match path.name {
                "thin-ack-20m-40ms" => 1_300,
                "wifi-40m-20ms" => 6_000,
                "jitter-20m-40ms" => 2_000,
                _ => 2,
            };
            assert!((least..=least + slack).contains(&shortest), "{}: {shortest} us, not {least}", path.name);
        }
    }
}

#[test]
fn each_overdriven_path_carries_its_rate_and_no_more_and_fills_its_queue() {
    for path in all() {
        let run = overdriven(&path);
        // What arrives left the serialiser one way earlier.
        let one_way = path.bottleneck.down.delay_us;
        let (from, to) = (S, RUN_US);
        let got = run.bytes_between(from, to);
        let capacity = path.capacity_bytes(from - one_way, to - one_way, PAYLOAD as u64);
        let share = got as f64 / capacity as f64;
        let least = match path.name {
            // Answers are lost on the way back, and with them the clock of this simple sender.
            "thin-ack-20m-40ms" => 0.3,
            // The first window fills the pipe and the queue only after more than a second.
            "sat-50m-600ms" | "sat-50m-600ms-loss1" => 0.8,
            "policer-10m-40ms" => 0.95,
            _ => 0.99,
        };
        let most = match path.name {
            // Jitter, bunches and held datagrams move arrivals over the edges of the time that is measured.
            "jitter-20m-40ms" | "wifi-40m-20ms" | "reorder-deep-20m-40ms" | "reorder3-20m-40ms" => 1.003,
            // The bucket's content comes on top of its rate.
            "policer-10m-40ms" => 1.006,
            _ => 1.0,
        };
        // One datagram may end at the very edge of the time that is measured.
        let edge = PAYLOAD as f64 / capacity as f64;
        assert!((least..=most + edge).contains(&share), "{}: {share}", path.name);
        if path.bottleneck.down.policer.is_none() && least >= 0.8 {
            let (max, used) = (path.bottleneck.down.queue.bytes_max.unwrap(), run.down().queue_bytes_max);
            assert!(used <= max && used + WIRE > max, "{}: {used} of {max}", path.name);
            assert!(run.down().dropped_for(Cause::QueueFull) > 0, "{}", path.name);
        }
    }
}

#[test]
fn the_losses_are_those_of_the_names() {
    let share = |s: &LinkStats| s.dropped_for(Cause::Loss) as f64 / s.sent as f64;
    for (name, down, up) in [
        ("base-10m-30ms", 0.0, 0.0),
        ("loss01-100m-10ms", 0.001, 0.0),
        ("loss1-100m-10ms", 0.01, 0.0),
        ("loss3-100m-10ms", 0.03, 0.0),
        ("sat-50m-600ms-loss1", 0.01, 0.0),
        ("burst-20m-40ms", 0.01, 0.0),
        ("ackloss20-20m-40ms", 0.0, 0.2),
        ("fct-10k-loss5", 0.05, 0.05),
        ("fct-100k-loss2", 0.02, 0.0),
    ] {
        let run = overdriven(&by_name(name).unwrap());
        for (link, want) in [(run.down(), down), (run.up(), up)] {
            let got = share(link);
            assert!((got - want).abs() <= want * 0.3, "{name}: {got}, not {want}");
        }
    }
}

#[test]
fn the_other_disturbances_are_those_of_the_names() {
    let run = |name: &str| overdriven(&by_name(name).unwrap());
    let near = |part: u64, all: u64, want: f64| (part as f64 / all as f64 / want - 1.0).abs() < 0.2;
    let r = run("reorder3-20m-40ms");
    assert!(near(r.down().held_back, r.down().delivered, 0.03));
    let r = run("reorder-deep-20m-40ms");
    assert!(near(r.down().held_back, r.down().delivered, 0.01));
    let r = run("dup2-20m-40ms");
    assert!(near(r.down().duplicated, r.down().sent, 0.02));
    let r = run("ecn-20m-40ms");
    // The full queue makes everything wait for longer than 5 ms.
    assert!(r.net.world.host(r.clients[0]).marked * 100 > r.down().delivered * 95);
    let r = run("ecn-bleach-20m-40ms");
    assert_eq!((r.down().marked, r.down().bleached), (0, r.down().sent));
    assert_eq!(r.up().bleached, r.up().sent);
    let r = run("policer-10m-40ms");
    assert!(r.down().dropped_for(Cause::Policer) > 0 && r.down().waits_us.max() < 5_000);
    let r = run("thin-ack-20m-40ms");
    // 4 + 28 bytes at 200 kbit/s: 781 answers each second.
    assert!((5_780..=5_860).contains(&r.up().delivered), "{}", r.up().delivered);
    assert!(r.up().queue_bytes_max <= 16_000);
}

#[test]
fn steps_and_the_outage_come_at_their_times() {
    let mbit = |run: &Run, from: u64, to: u64| {
        run.bytes_between(from, to) as f64 * 8.0 * WIRE as f64 / PAYLOAD as f64 / (to - from) as f64
    };
    let about = |got: f64, want: f64| (got - want).abs() < 0.05 * want.max(1.0);
    // Arrivals are one way behind the serialiser; the figures leave the edges out.
    let outage = overdriven(&by_name("outage-20m-40ms").unwrap());
    assert!(about(mbit(&outage, S, 2 * S), 20.0));
    assert!(mbit(&outage, 2_030_000, 3 * S) < 0.1);
    assert!(about(mbit(&outage, 3_100_000, 5 * S), 20.0));
    let up = overdriven(&by_name("up-5-50m-40ms").unwrap());
    assert!(about(mbit(&up, S, 2 * S), 5.0) && about(mbit(&up, 2_100_000, 4 * S), 50.0));
    let down = overdriven(&by_name("down-50-5m-40ms").unwrap());
    assert!(about(mbit(&down, S, 2 * S), 50.0) && about(mbit(&down, 2_100_000, 4 * S), 5.0));
    let lte = overdriven(&by_name("lte-steps").unwrap());
    for (i, want) in (0u64..).zip([20.0, 5.0, 30.0, 2.0, 15.0]) {
        let from = i * 1_500_000 + 300_000;
        let got = mbit(&lte, from, from + 1_100_000);
        assert!(about(got, want), "step {i}: {got}");
    }
}

#[test]
fn flows_of_a_path_share_it_and_start_when_they_should() {
    let late = by_name("late-comer").unwrap();
    assert_eq!((late.flows[1].start_us, late.judge_from_us), (4 * S, 7 * S));
    let fair = overdriven(&by_name("fair-same").unwrap());
    assert_eq!(fair.clients.len(), 2);
    assert!(fair.clients.iter().all(|&c| fair.net.world.host(c).bytes > 2_000_000));
}

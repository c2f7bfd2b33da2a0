//! The world: bursts, topologies, translation, adversaries, determinism, and what happens when nothing gets on.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::cell::RefCell;
use std::rc::Rc;

use courser_sim::script::{Script, Verdict};
use courser_sim::{
    Datagram, Dumbbell, Duplex, Event, Host, Limits, LinkConfig, NatConfig, Outbox, Stop, World, addr, home,
    point_to_point,
};
use proptest::prelude::*;
use support::{Acker, PAYLOAD, Windowed};

fn client(i: u16, window: usize) -> Windowed {
    Windowed::new(addr::client(i), addr::server(i), window, 1_000_000)
}

#[test]
fn a_window_per_round_trip_is_what_a_fixed_window_carries() {
    let mut p = point_to_point(1, client(0, 10), Acker::default(), &Duplex::delay_us(25_000));
    assert_eq!(p.world.run_until(10_000_000), Ok(Stop::Time));
    assert_eq!(p.world.now_us(), 10_000_000);
    // 10 datagrams each 50 ms; the answers to the last window arrive at the very end.
    assert_eq!(p.world.host(p.a).acked, 2_000);
    assert_eq!(p.world.host(p.a).rtt_us, (50_000, 50_000));
    assert_eq!(p.world.host(p.b).largest_burst, 10, "a host takes the whole burst before it is polled");
}

#[test]
fn a_run_ends_when_the_predicate_is_true_or_nothing_is_left() {
    let mut p = point_to_point(1, client(0, 1), Acker::default(), &Duplex::delay_us(10_000));
    let (a, b) = (p.a, p.b);
    assert_eq!(p.world.run_until_true(u64::MAX, |w| w.host(a).acked == 3), Ok(Stop::Reached));
    assert_eq!((p.world.now_us(), p.world.host(b).datagrams), (60_000, 3));
    let mut idle = point_to_point(1, Acker::default(), Acker::default(), &Duplex::default());
    assert_eq!(idle.world.run_until(5), Ok(Stop::Idle));
    assert_eq!(idle.world.steps(), 1, "each host is polled once at the start");
}

#[test]
fn a_host_changed_from_outside_is_polled() {
    let mut p = point_to_point(1, Acker::default(), Acker::default(), &Duplex::default());
    p.world.run_until(10).unwrap();
    let before = p.world.host(p.a).progress.len();
    p.world.host_mut(p.a);
    p.world.run_until(20).unwrap();
    assert_eq!(p.world.host(p.a).progress.len(), before + 1);
}

#[test]
fn pairs_share_a_bottleneck_fairly_enough_and_fill_it() {
    // All windows together fit into the queue, so nobody is locked out.
    let down = LinkConfig::new().rate(10_000_000).queue_bytes(600_000).delay_us(10_000);
    let mut net = Dumbbell::new(3, &Duplex::new(down, LinkConfig::new().delay_us(10_000)));
    let pairs: Vec<_> = (0..100).map(|i| net.add_pair(client(i, 4), Acker::default(), &Duplex::default())).collect();
    net.world.run_until(10_000_000).unwrap();
    let bytes: Vec<u64> = pairs.iter().map(|p| net.world.host(p.1).bytes).collect();
    let total: u64 = bytes.iter().sum();
    let capacity = net.world.link(net.up).config().capacity_bytes(0, 10_000_000, PAYLOAD as u64).unwrap();
    assert!(total <= capacity && total * 100 > capacity * 99, "{total} of {capacity}");
    let (least, most) = (bytes.iter().min().unwrap(), bytes.iter().max().unwrap());
    assert!(most - least <= 4 * PAYLOAD as u64, "a window at most: {least} to {most}");
}

#[test]
fn a_thousand_pairs_run_in_one_world() {
    let mut net = Dumbbell::new(3, &Duplex::symmetric(LinkConfig::new().rate(100_000_000).delay_us(5_000)));
    let pairs: Vec<_> = (0..1_000).map(|i| net.add_pair(client(i, 1), Acker::default(), &Duplex::default())).collect();
    net.world.run_until(1_000_000).unwrap();
    assert!(pairs.iter().all(|p| net.world.host(p.0).acked >= 5));
    assert_eq!(net.world.no_route(), 0);
}

#[test]
fn rebinding_shows_the_server_new_sources_and_the_client_keeps_its_own() {
    let nat = NatConfig::new(addr::public(1)).next_address(addr::public(2)).rebind_at(500_000).rebind_at(1_000_000);
    let sender = Windowed::new(addr::private(0), addr::server(0), 2, 100_000);
    let mut h = home(1, sender, Acker::default(), nat, &Duplex::delay_us(10_000));
    h.world.run_until(2_000_000).unwrap();
    let sources = &h.world.host(h.server).sources;
    let ips: Vec<_> = sources.iter().map(|s| s.ip()).collect();
    assert_eq!(ips, [addr::public(1), addr::public(2), addr::public(1)]);
    assert_ne!(sources[0], sources[2]);
    let client = h.world.host(h.client);
    assert!(client.acked > 150 && client.lost > 0, "answers to the old address were lost: {}", client.lost);
    assert_eq!(h.world.nat(h.nat).unwrap().rebound(), 2);
    h.world.rebind(h.nat);
    h.world.run_for(300_000).unwrap();
    assert_eq!(h.world.host(h.server).sources.len(), 4);
}

#[test]
fn nobody_outside_reaches_a_private_address() {
    let nat = NatConfig::new(addr::public(1));
    let mut h = home(1, Acker::default(), Acker::default(), nat, &Duplex::default());
    h.world.inject(h.server, Datagram::new(addr::server(0), addr::private(0), vec![1; 8]));
    h.world.inject(h.server, Datagram::new(addr::server(0), addr::client(9), vec![1; 8]));
    h.world.run_until(1_000).unwrap();
    assert_eq!((h.world.host(h.client).datagrams, h.world.no_route()), (0, 2));
}

#[test]
fn a_script_hits_the_chosen_datagrams_of_each_direction() {
    let duplex = Script::new().drop_up([0]).drop_down([1]).apply(Duplex::delay_us(10_000));
    let mut p = point_to_point(1, client(0, 1), Acker::default(), &duplex);
    p.world.run_until(5_000_000).unwrap();
    // The first is lost going, the third datagram's answer is lost coming back.
    assert_eq!((p.world.host(p.a).lost, p.world.link(p.up).stats().dropped()), (2, 1));
}

#[test]
fn an_adversary_answers_from_the_middle() {
    let mut p = point_to_point(1, client(0, 1), Acker::default(), &Duplex::delay_us(50_000));
    p.world.with_link(p.up, |link, _| {
        link.set_tap(Some(Box::new(|view, d| {
            // A forged answer reaches the client long before the true one.
            view.back.push(Datagram::new(d.dst, d.src, d.bytes[..4].to_vec()));
            if view.number >= 5 { Verdict::Drop } else { Verdict::Delay(1_000_000) }
        })));
    });
    let (a, b) = (p.a, p.b);
    let done = p.world.run_until_true(10, |_| false);
    assert!(
        done.is_err() && p.world.host(a).acked > 1_000,
        "an answer that takes no time makes a sender spin, and the world says so"
    );
    assert_eq!(p.world.host(b).datagrams, 0);
}

#[test]
fn a_link_can_be_changed_in_mid_run() {
    let mut p = point_to_point(1, client(0, 10), Acker::default(), &Duplex::delay_us(10_000));
    p.world.run_until(1_000_000).unwrap();
    p.world.with_link(p.up, |link, _| link.set_dead(true));
    p.world.run_until(1_500_000).unwrap();
    let stopped = p.world.host(p.b).datagrams;
    p.world.with_link(p.up, |link, now| {
        link.set_dead(false);
        link.set_delay_us(now, 100_000);
    });
    p.world.run_until(5_000_000).unwrap();
    assert!((490..=510).contains(&stopped), "{stopped}");
    assert_eq!(p.world.host(p.a).rtt_us.1, 110_000);
}

/// Asks to be polled at once, for ever.
struct Spinner;
impl Host for Spinner {
    fn receive(&mut self, _now_us: u64, _d: &mut Datagram) {}
    fn poll(&mut self, _now_us: u64, _out: &mut Outbox) {}
    fn deadline(&self) -> Option<u64> {
        Some(0)
    }
}

#[test]
fn a_livelock_is_reported_and_names_the_culprit() {
    let limits = Limits { steps_at_one_time_max: 50, ..Limits::default() };
    let mut w = World::with_limits(1, limits);
    w.add_host([addr::client(0).ip()], Acker::default());
    let bad = w.add_host([addr::client(1).ip()], Spinner);
    let stuck = w.run_until(10).unwrap_err();
    assert_eq!((stuck.now_us, stuck.steps_at_this_time, &stuck.polled), (0, 51, &vec![bad.node().number()]));
    assert!(stuck.to_string().contains("stuck at 0 us"), "{stuck}");
    let mut w = World::with_limits(1, Limits { steps_max: 3, ..Limits::default() });
    let (a, b) =
        (w.add_host([addr::client(0).ip()], client(0, 1)), w.add_host([addr::server(0).ip()], Acker::default()));
    w.connect(a, b, &Duplex::delay_us(1_000));
    assert_eq!(w.run_until(1_000_000).unwrap_err().steps, 4);
}

#[test]
#[should_panic(expected = "belongs to another node")]
fn an_address_cannot_have_two_owners() {
    let mut w = World::new(1);
    w.add_host([addr::client(0).ip()], Acker::default());
    w.add_host([addr::client(0).ip()], Acker::default());
}

#[test]
fn a_watcher_sees_every_event_and_does_not_change_the_run() {
    let duplex = Duplex::symmetric(LinkConfig::new().delay_us(5_000).loss(0.2));
    let run = |watch: bool| {
        let mut p = point_to_point(9, client(0, 5), Acker::default(), &duplex);
        let seen = Rc::new(RefCell::new([0u64; 4]));
        if watch {
            let seen = Rc::clone(&seen);
            p.world.watch(move |_, e| {
                let kind = match e {
                    Event::Sent { .. } => 0,
                    Event::Received { .. } => 1,
                    Event::Dropped { .. } => 2,
                    Event::Polled { .. } | Event::NoRoute { .. } => 3,
                };
                seen.borrow_mut()[kind] += 1;
            });
        }
        p.world.run_until(10_000_000).unwrap();
        let stats = [p.up, p.down].map(|l| p.world.link(l).stats().clone());
        let counts = *seen.borrow();
        (p.world.trace_hash(), counts, stats)
    };
    let (quiet, none, _) = run(false);
    let (watched, [sent, received, dropped, polled], stats) = run(true);
    assert_eq!((quiet, none), (watched, [0; 4]));
    assert_eq!(sent, stats[0].sent + stats[1].sent);
    assert_eq!(received, stats[0].delivered + stats[1].delivered);
    assert_eq!(dropped, stats[0].dropped() + stats[1].dropped());
    assert!(dropped > 0 && polled > 0);
}

fn messy(seed: u64) -> World {
    let bad = LinkConfig::new()
        .rate(5_000_000)
        .queue_bytes(20_000)
        .delay_us(10_000)
        .loss_bursts(0.05, 3.0)
        .duplicate(0.05)
        .reorder(0.05, 3_000)
        .jitter(2_000, false)
        .corrupt(0.05, courser_sim::node::corrupt::Damage::FlipBits(3));
    let mut net = Dumbbell::new(seed, &Duplex::symmetric(bad));
    for i in 0..20 {
        let access = Duplex::delay_us(u64::from(i) * 500);
        net.add_pair(client(i, 8).starting_at(u64::from(i) * 10_000), Acker::default(), &access);
    }
    net.world.run_until(2_000_000).unwrap();
    net.world
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_does_not() {
    let (a, b, c) = (messy(1), messy(1), messy(2));
    assert_eq!((a.trace_hash(), a.events(), a.steps()), (b.trace_hash(), b.events(), b.steps()));
    assert_ne!(a.trace_hash(), c.trace_hash());
    assert!(a.events() > 3_000, "{}", a.events());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cutting_a_run_in_pieces_changes_nothing(seed: u64, cuts in prop::collection::vec(1u64..300_000, 1..6)) {
        let build = || {
            let duplex = Duplex::symmetric(LinkConfig::new().rate(2_000_000).delay_us(7_000).loss(0.1).jitter(900, false));
            point_to_point(seed, client(0, 6), Acker::default(), &duplex)
        };
        let (mut whole, mut pieces) = (build(), build());
        whole.world.run_until(400_000).unwrap();
        let mut cuts = cuts;
        cuts.sort_unstable();
        for cut in cuts {
            pieces.world.run_until(cut).unwrap();
        }
        pieces.world.run_until(400_000).unwrap();
        prop_assert_eq!(whole.world.trace_hash(), pieces.world.trace_hash());
    }
}

#[test]
fn a_host_with_two_networks_uses_the_link_of_each_address() {
    #[derive(Default)]
    struct Two(Vec<(u64, std::net::SocketAddr)>, Vec<std::net::SocketAddr>);
    impl Host for Two {
        fn receive(&mut self, now_us: u64, d: &mut Datagram) {
            self.0.push((now_us, d.dst));
        }
        fn poll(&mut self, _now_us: u64, out: &mut Outbox) {
            self.1.drain(..).for_each(|from| _ = out.send(from, addr::server(0), b"x"));
        }
        fn deadline(&self) -> Option<u64> {
            None
        }
    }
    /// Answers.
    #[derive(Default)]
    struct Back(Vec<std::net::SocketAddr>);
    impl Host for Back {
        fn receive(&mut self, _now_us: u64, d: &mut Datagram) {
            self.0.push(d.src);
        }
        fn poll(&mut self, _now_us: u64, out: &mut Outbox) {
            self.0.drain(..).for_each(|to| _ = out.send(addr::server(0), to, b"y"));
        }
        fn deadline(&self) -> Option<u64> {
            None
        }
    }
    let mut world = World::new(1);
    let (quick, slow) = (addr::client(0), addr::client(1));
    let a = world.add_host([quick.ip(), slow.ip()], Two(Vec::new(), vec![slow, quick]));
    let b = world.add_host([addr::server(0).ip()], Back::default());
    let (up, _) = world.connect(a, b, &Duplex::delay_us(1_000));
    let (up2, down2) = world.connect(a, b, &Duplex::delay_us(50_000));
    world.choose_link(slow.ip(), up2);
    world.choose_link(slow.ip(), down2);
    world.run_until(1_000_000).unwrap();
    assert_eq!(world.host(a).0, [(2_000, quick), (100_000, slow)]);
    assert_eq!((world.link(up).stats().sent, world.link(up2).stats().sent), (1, 1));
}

//! A link as its user sees it: conservation, order, rate, and each node at its place.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::net::SocketAddr;

use courser_sim::node::codel::Codel;
use courser_sim::node::corrupt::Damage;
use courser_sim::node::ecn::Ecn;
use courser_sim::node::loss::Loss;
use courser_sim::script::{Act, Pick, Rule, Verdict};
use courser_sim::{CE, Cause, Datagram, ECT0, Link, LinkConfig};
use proptest::prelude::*;

fn ends() -> (SocketAddr, SocketAddr) {
    ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap())
}

/// A datagram that carries its number.
fn datagram(n: u32, len: usize) -> Datagram {
    let (a, b) = ends();
    let mut bytes = n.to_be_bytes().to_vec();
    bytes.resize(len.max(4), 0);
    Datagram { ecn: ECT0, ..Datagram::new(a, b, bytes) }
}

fn number(d: &Datagram) -> u32 {
    u32::from_be_bytes([d.bytes[0], d.bytes[1], d.bytes[2], d.bytes[3]])
}

/// Sends `(time, length)` in order and takes everything out; gives `(time, number)` of each arrival.
fn run(link: &mut Link, sends: &[(u64, usize)]) -> Vec<(u64, u32)> {
    let mut out = Vec::new();
    let mut take = |link: &mut Link, until: u64| {
        while let Some(t) = link.next().filter(|&t| t <= until) {
            while let Some(d) = link.poll(t) {
                out.push((t, number(&d)));
            }
        }
    };
    for (i, &(at, len)) in sends.iter().enumerate() {
        take(link, at);
        link.send(at, datagram(i as u32, len));
    }
    take(link, u64::MAX - 1);
    out
}

fn numbers(link: &mut Link, n: u64) -> Vec<u32> {
    let sends: Vec<_> = (0..n).map(|i| (i * 1_000, 100)).collect();
    run(link, &sends).into_iter().map(|(_, n)| n).collect()
}

fn without(n: u32, missing: &[u32]) -> Vec<u32> {
    (0..n).filter(|i| !missing.contains(i)).collect()
}

#[test]
fn a_perfect_link_delivers_at_once_and_in_order() {
    let mut link = Link::new(&LinkConfig::new(), 1);
    let got = run(&mut link, &[(0, 10), (0, 20), (7, 30)]);
    assert_eq!(got, [(0, 0), (0, 1), (7, 2)]);
    assert_eq!(link.next(), None);
}

#[test]
fn the_rate_is_exact_over_ten_seconds() {
    for rate in [200_000u64, 10_000_000, 33_333_333, 1_000_000_000] {
        let mut link = Link::new(&LinkConfig::new().rate(rate).queue_datagrams(10), 1);
        let every = 972 * 8 * 1_000_000 / rate / 2;
        let n = (10_000_000 / every.max(1)).min(400_000);
        let sends: Vec<_> = (0..n).map(|i| (i * every, 972)).collect();
        let got = run(&mut link, &sends);
        let (first, last) = (got[0].0, got[got.len() - 1].0);
        let bits = (got.len() as u64 - 1) * 8_000;
        let measured = bits as f64 * 1e6 / (last - first) as f64;
        let off = (measured / rate as f64 - 1.0).abs();
        assert!(off < 0.001 && link.stats().dropped_for(Cause::QueueFull) > 0, "{rate}: {measured}");
    }
}

#[test]
fn delay_and_serialisation_add_up() {
    let mut link = Link::new(&LinkConfig::new().rate(8_000_000).delay_us(20_000), 1);
    let got = run(&mut link, &[(0, 972), (0, 972), (100_000, 972)]);
    assert_eq!(got, [(21_000, 0), (22_000, 1), (121_000, 2)]);
}

#[test]
fn a_full_queue_drops_the_tail_and_the_statistics_show_it() {
    let mut link = Link::new(&LinkConfig::new().rate(8_000_000).queue_bytes(3_000), 1);
    let got = run(&mut link, &[(0, 972); 6]);
    assert_eq!(got.iter().map(|g| g.1).collect::<Vec<_>>(), [0, 1, 2, 3], "one on the wire, three waiting");
    let s = link.stats();
    assert_eq!((s.dropped_for(Cause::QueueFull), s.queue_bytes_max, s.queue_datagrams_max), (2, 3_000, 3));
    assert_eq!((s.waits_us.count(), s.waits_us.max()), (4, 3_000));
}

#[test]
fn an_outage_makes_datagrams_wait_and_a_blackhole_swallows_them() {
    let outage = LinkConfig::new().rate_steps(&[(1_000_000, 8_000_000), (1_000_000, 0), (1, 8_000_000)], false);
    let mut link = Link::new(&outage, 1);
    let got = run(&mut link, &[(0, 972), (1_500_000, 972), (1_600_000, 972)]);
    assert_eq!(got, [(1_000, 0), (2_001_000, 1), (2_002_000, 2)]);
    let mut link = Link::new(&LinkConfig::new().dead(1_000_000, 2_000_000), 1);
    assert_eq!(run(&mut link, &[(0, 9), (1_000_000, 9), (1_999_999, 9), (2_000_000, 9)]), [(0, 0), (2_000_000, 3)]);
    assert_eq!(link.stats().dropped_for(Cause::Blackhole), 2);
}

#[test]
fn a_link_of_rate_zero_holds_what_it_has_until_the_rate_comes_back() {
    let mut link = Link::new(&LinkConfig::new().rate(0), 1);
    link.send(0, datagram(0, 972));
    link.send(0, datagram(1, 972));
    assert_eq!(link.next(), None);
    assert!(link.poll(1_000_000).is_none());
    link.set_rate(2_000_000, courser_sim::node::rate::Rate::Constant(8_000_000));
    assert_eq!(run(&mut link, &[]), [(2_001_000, 0), (2_002_000, 1)]);
}

#[test]
fn set_dead_swallows_until_it_is_taken_back() {
    let mut link = Link::new(&LinkConfig::new(), 1);
    link.set_dead(true);
    link.send(0, datagram(0, 9));
    link.set_dead(false);
    link.send(1, datagram(1, 9));
    assert_eq!(number(&link.poll(1).unwrap()), 1);
    assert!(link.poll(1).is_none());
}

#[test]
fn mtu_policer_and_loss_lists_stop_exactly_whom_they_should() {
    let mut link = Link::new(&LinkConfig::new().mtu(1_280), 1);
    assert_eq!(run(&mut link, &[(0, 1_280), (0, 1_281), (0, 500)]), [(0, 0), (0, 2)]);
    let mut link = Link::new(&LinkConfig::new().policer(8_000, 2_000), 1);
    assert_eq!(run(&mut link, &[(0, 972), (0, 972), (0, 972), (1_000_000, 972)]).len(), 3);
    assert_eq!(link.stats().dropped_for(Cause::Policer), 1);
    let mut link = Link::new(&LinkConfig::new().lose([0, 3]), 1);
    assert_eq!(numbers(&mut link, 6), without(6, &[0, 3]));
    let mut link = Link::new(&LinkConfig::new().loss_model(Loss::Every { n: 3, first: 1 }), 1);
    assert_eq!(numbers(&mut link, 8), without(8, &[1, 4, 7]));
}

#[test]
fn loss_statistics_hold_through_the_whole_link() {
    let mut link = Link::new(&LinkConfig::new().loss(0.02), 5);
    let got = numbers(&mut link, 100_000).len() as f64;
    assert!((got / 100_000.0 - 0.98).abs() < 0.002);
    let mut link = Link::new(&LinkConfig::new().loss_bursts(0.02, 4.0), 5);
    let got = numbers(&mut link, 400_000);
    let lost = 400_000 - got.len();
    let bursts = got.windows(2).filter(|w| w[1] != w[0] + 1).count();
    assert!((7_400..8_600).contains(&lost), "{lost}");
    assert!((3.7..4.3).contains(&(lost as f64 / bursts as f64)), "{lost} in {bursts}");
}

#[test]
fn reordering_lets_about_eight_overtake() {
    // 20 Mbit/s, 1,472 + 28 bytes: 600 us each; 5 ms are 8.3 of them.
    let mut link = Link::new(&LinkConfig::new().rate(20_000_000).delay_us(20_000).reorder(0.03, 5_000), 3);
    let sends: Vec<_> = (0..20_000).map(|i| (i * 600, 1_472)).collect();
    let got = run(&mut link, &sends);
    assert_eq!(got.len(), 20_000);
    let mut overtaken = Vec::new();
    for (at, &(_, n)) in got.iter().enumerate() {
        let later = got[at.saturating_sub(20)..at].iter().filter(|g| g.1 > n).count();
        if later > 0 {
            overtaken.push(later);
        }
    }
    let mean = overtaken.iter().sum::<usize>() as f64 / overtaken.len() as f64;
    assert!((7.0..9.0).contains(&mean), "{mean}");
    assert!((500..700).contains(&overtaken.len()), "{}", overtaken.len());
    assert_eq!(link.stats().held_back as usize, overtaken.len());
}

#[test]
fn a_script_treats_chosen_datagrams() {
    let config = LinkConfig::new()
        .rule(Rule::new(Pick::Numbers(vec![1]), Act::Drop))
        .rule(Rule::new(Pick::Numbers(vec![2]), Act::Delay(2_500)))
        .rule(Rule::new(Pick::Span { from: 4, to: 5 }, Act::Copies(2)))
        .rule(Rule::new(Pick::Numbers(vec![5]), Act::Damage(Damage::TruncateTo(4))))
        .rule(Rule::new(Pick::Numbers(vec![6]), Act::SetEcn(CE)));
    let mut link = Link::new(&config, 1);
    assert_eq!(numbers(&mut link, 7), [0, 3, 4, 4, 4, 2, 5, 6]);
    let s = link.stats();
    assert_eq!((s.dropped_for(Cause::Tap), s.injected, s.corrupted, s.in_flight()), (1, 2, 1, 0));
}

#[test]
fn a_delayed_datagram_keeps_its_number_for_loss_lists() {
    let config = LinkConfig::new().rule(Rule::new(Pick::Numbers(vec![1]), Act::Delay(9_999))).lose([1]);
    assert_eq!(numbers(&mut Link::new(&config, 1), 4), [0, 2, 3]);
}

#[test]
fn a_tap_reads_changes_drops_delays_and_injects() {
    let mut link = Link::new(&LinkConfig::new(), 1);
    link.set_tap(Some(Box::new(|view, d| {
        match view.number {
            0 => return Verdict::Drop,
            1 => d.bytes[3] = 77,
            2 => return Verdict::Delay(5_000),
            3 => view.inject.push((500, datagram(99, 50))),
            _ => view.back.push(Datagram::new(d.dst, d.src, vec![9])),
        }
        Verdict::Pass
    })));
    assert_eq!(numbers(&mut link, 5), [77, 3, 99, 4, 2]);
    assert_eq!(link.take_back().len(), 1);
    assert_eq!(link.stats().in_flight(), 0);
}

#[test]
fn ecn_is_marked_by_a_long_wait_and_bleached_before_the_queue() {
    let base = LinkConfig::new().rate(8_000_000).ce_above_us(5_000);
    let marks = |config: LinkConfig| {
        let mut link = Link::new(&config, 1);
        (0..20).for_each(|i| link.send(0, datagram(i, 972)));
        let mut seen = Vec::new();
        while let Some(t) = link.next() {
            while let Some(d) = link.poll(t) {
                seen.push(d.ecn);
            }
        }
        (seen, link.stats().marked, link.stats().bleached)
    };
    let (seen, marked, _) = marks(base.clone());
    // Datagram n waits n milliseconds; number 5 waits exactly the threshold.
    assert!(seen.iter().enumerate().all(|(n, &ecn)| ecn == if n > 5 { CE } else { ECT0 }), "{seen:?}");
    assert_eq!(marked, 14);
    let (seen, marked, bleached) = marks(base.ecn(Ecn::Bleach));
    assert!(seen.iter().all(|&ecn| ecn == 0) && marked == 0 && bleached == 20);
}

#[test]
fn codel_keeps_the_wait_of_an_overdriven_link_near_its_target() {
    let run_with = |config: LinkConfig| {
        let mut link = Link::new(&config, 1);
        // 25 % more than the link carries, for 20 s.
        let sends: Vec<_> = (0..25_000).map(|i| (i * 800, 972)).collect();
        run(&mut link, &sends);
        link.stats().clone()
    };
    let base = LinkConfig::new().rate(8_000_000).queue_bytes(500_000);
    let plain = run_with(base.clone());
    assert!(plain.waits_us.quantile(0.9) > 400_000 && plain.dropped_for(Cause::QueueFull) > 0);
    let codel = run_with(base.clone().codel(Codel::default()));
    assert!(codel.waits_us.quantile(0.5) < plain.waits_us.quantile(0.5));
    assert!(codel.dropped_for(Cause::Codel) > 1_000, "{:?}", codel.dropped_by);
    let marking = run_with(base.codel(Codel { mark: true, ..Codel::default() }));
    assert_eq!(marking.dropped_for(Cause::Codel), 0);
    assert!(marking.marked > 100);
}

#[test]
fn bunches_keep_the_rate_but_arrive_together() {
    let mut link = Link::new(&LinkConfig::new().rate(40_000_000).bunch(4_000, 12_000).delay_us(10_000), 7);
    let sends: Vec<_> = (0..30_000).map(|i| (i * 300, 1_472)).collect();
    let got = run(&mut link, &sends);
    let mut times: Vec<u64> = got.iter().map(|g| g.0).collect();
    let span = times[times.len() - 1] - times[0];
    assert!((8_950_000..9_050_000).contains(&span), "{span}");
    times.dedup();
    let mean = span / (times.len() as u64 - 1);
    assert!((7_500..8_500).contains(&mean), "{mean}");
}

#[test]
fn the_delay_may_change_and_nobody_overtakes_by_that() {
    let mut link = Link::new(&LinkConfig::new().delay_us(50_000), 1);
    link.send(0, datagram(0, 9));
    link.set_delay_us(1, 1_000);
    link.send(2, datagram(1, 9));
    assert_eq!(run(&mut link, &[]), [(50_000, 0), (50_000, 1)]);
}

#[test]
fn a_link_never_holds_more_than_its_limit() {
    let mut config = LinkConfig::new().delay_us(1_000_000);
    config.in_flight_max = 10;
    let mut link = Link::new(&config, 1);
    (0..100).for_each(|i| link.send(0, datagram(i, 9)));
    assert_eq!((link.in_flight(), link.stats().dropped_for(Cause::Limit)), (10, 90));
    link.inject(0, 5, datagram(0, 9));
    assert_eq!(link.in_flight(), 10);
}

#[test]
fn drop_records_tell_when_and_why() {
    let mut link = Link::new(&LinkConfig::new().mtu(50), 1);
    link.record_drops(true);
    link.send(5, datagram(0, 60));
    let records = link.take_records();
    assert_eq!((records.len(), records[0].at_us, records[0].cause, records[0].bytes), (1, 5, Cause::Mtu, 60));
    assert!(link.take_records().is_empty());
}

#[test]
fn one_node_more_does_not_change_what_another_one_draws() {
    let plain = LinkConfig::new().loss(0.3);
    let more = plain.clone().jitter(10, true).reorder(0.0, 0).duplicate(0.0).corrupt(0.5, Damage::FlipBits(0));
    let a: Vec<u32> = numbers(&mut Link::new(&plain, 42), 1_000);
    let b: Vec<u32> = numbers(&mut Link::new(&more, 42), 1_000);
    assert_eq!(a, b);
}

fn any_config() -> impl Strategy<Value = LinkConfig> {
    let faults = (0.0..0.3f64, 0.0..0.3f64, 0.0..0.3f64, prop::option::of(0u64..9_000), any::<bool>());
    let path = (prop::option::of(1u64..50_000_000), prop::option::of(0u64..20_000), 0u64..50_000, 0u8..6);
    (faults, path, prop::option::of(200usize..1_500)).prop_map(|(faults, path, mtu)| {
        let (loss, dup, reorder, jitter, in_order) = faults;
        let (rate, queue, delay, extra) = path;
        let mut c = LinkConfig::new().loss(loss).duplicate(dup).reorder(reorder, 7_000).delay_us(delay);
        if let Some(us) = jitter {
            c = c.jitter(us, in_order);
        }
        if let Some(rate) = rate {
            c = c.rate(rate);
        }
        c.queue.bytes_max = queue;
        c.mtu = mtu.map(|payload_max| courser_sim::node::mtu::Mtu { payload_max });
        match extra {
            0 => c.codel(Codel { target_us: 500, interval_us: 5_000, mark: false }),
            1 => c.bunch(500, 3_000),
            2 => c.policer(1_000_000, 10_000).dead(5_000, 9_000),
            3 => c.rule(Rule::new(Pick::Numbers(vec![3, 5]), Act::Delay(4_000))),
            4 => c.rate_steps(&[(3_000, 5_000_000), (2_000, 0), (4_000, 100_000)], true),
            _ => c,
        }
    })
}

fn any_sends() -> impl Strategy<Value = Vec<(u64, usize)>> {
    prop::collection::vec((0u64..2_000, 4usize..1_500), 1..120).prop_map(|steps| {
        let mut at = 0;
        steps
            .into_iter()
            .map(|(gap, len)| {
                at += gap;
                (at, len)
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_appears_or_vanishes(config in any_config(), sends in any_sends(), seed: u64) {
        let mut link = Link::new(&config, seed);
        for (i, &(at, len)) in sends.iter().enumerate() {
            link.send(at, datagram(i as u32, len));
            prop_assert_eq!(link.stats().in_flight(), link.in_flight() as u64);
        }
        let got = run(&mut link, &[]);
        let s = link.stats();
        prop_assert_eq!(s.sent, sends.len() as u64);
        prop_assert_eq!(s.delivered, got.len() as u64);
        prop_assert_eq!(s.sent + s.duplicated + s.injected, s.delivered + s.dropped());
        prop_assert_eq!(link.in_flight(), 0);
    }

    #[test]
    fn equal_seeds_give_equal_arrivals(config in any_config(), sends in any_sends(), seed: u64) {
        let a = run(&mut Link::new(&config, seed), &sends);
        let b = run(&mut Link::new(&config, seed), &sends);
        prop_assert_eq!(a, b);
    }

    #[test]
    fn when_one_looks_does_not_change_what_one_sees(config in any_config(), sends in any_sends(), seed: u64) {
        let want = run(&mut Link::new(&config, seed), &sends);
        let mut link = Link::new(&config, seed);
        let mut got = Vec::new();
        let mut sends = sends.iter().enumerate().peekable();
        // Looking each 50 us, at no particular times.
        for now in (0..400_000_000).step_by(50) {
            while let Some((i, &(at, len))) = sends.next_if(|(_, (at, _))| *at <= now) {
                link.send(at, datagram(i as u32, len));
            }
            while let Some(d) = link.poll(now) {
                got.push(number(&d));
            }
            if sends.peek().is_none() && link.next().is_none() {
                break;
            }
        }
        prop_assert_eq!(got, want.into_iter().map(|(_, n)| n).collect::<Vec<_>>());
    }

    #[test]
    fn without_reordering_nodes_the_order_is_kept(config in any_config(), sends in any_sends(), seed: u64) {
        let mut config = config;
        config.reorder = None;
        config.script.clear();
        if let Some(j) = &mut config.jitter {
            j.in_order = true;
        }
        let got = run(&mut Link::new(&config, seed), &sends);
        prop_assert!(got.windows(2).all(|w| w[0].1 <= w[1].1 && w[0].0 <= w[1].0));
    }

    #[test]
    fn nothing_is_faster_than_delay_and_rate(rate in 10_000u64..50_000_000, delay in 0u64..30_000, sends in any_sends()) {
        let mut link = Link::new(&LinkConfig::new().rate(rate).delay_us(delay), 1);
        let got = run(&mut link, &sends);
        let mut wire = 0;
        for &(at, n) in &got {
            let (sent, len) = sends[n as usize];
            let bits = (len as u64 + 28) * 8;
            prop_assert!(at >= sent + delay + bits * 1_000_000 / rate);
            wire += bits;
        }
        let busy = wire * 1_000_000 / rate;
        let last = got.last().unwrap().0;
        prop_assert!(last + 1 >= delay + busy, "never above the rate");
        prop_assert!(last <= sends.last().unwrap().0 + delay + busy + got.len() as u64, "never idle with work to do");
    }
}

#[test]
fn a_link_that_is_replaced_keeps_what_it_has_and_treats_what_comes_in_the_new_way() {
    let mut link = Link::new(&LinkConfig::new().rate(8_000_000).queue_bytes(10_000).delay_us(10_000), 1);
    (0..10).for_each(|n| link.send(0, datagram(n, 972)));
    // Five are on their way by now, five wait: they go on at a tenth of the rate and a shorter delay.
    link.replace(5_000, &LinkConfig::new().rate(800_000).queue_bytes(3_000).delay_us(1_000).mtu(1_000));
    link.send(5_000, datagram(10, 972));
    link.send(5_000, datagram(11, 1_001));
    let mut arrivals = Vec::new();
    while let Some(t) = link.next() {
        while let Some(d) = link.poll(t) {
            arrivals.push((t, number(&d)));
        }
    }
    assert_eq!(arrivals.iter().map(|a| a.1).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert_eq!((arrivals[0].0, arrivals[4].0), (11_000, 15_000), "what travelled does so as before");
    assert_eq!((arrivals[7].0 - arrivals[6].0, arrivals[9].0 - arrivals[8].0), (10_000, 10_000));
    let dropped = |cause: Cause| link.stats().dropped_by[cause as usize];
    assert_eq!((dropped(Cause::QueueFull), dropped(Cause::Mtu)), (1, 1), "the queue is over its new limit");
    assert_eq!(link.stats().sent, 12);
}

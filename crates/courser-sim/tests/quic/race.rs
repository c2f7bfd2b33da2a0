//! The goals of the forty paths that are met, on those that are cheap to run; and the curves against their closed forms. The
//! example `paths` runs all forty, `curves` draws what is here held by numbers.

use courser_core::config::Congestion::{self, Bbr, Cubic, NewReno};
use courser_sim::late::Lateness;
use courser_sim::paths::{self, Flow, Path, Sender, by_name};
use courser_sim::quic::goals::{self, Figure, Goal, Runs};
use courser_sim::quic::race::{self, Figures, run};
use courser_sim::{Duplex, LinkConfig};

/// Goals that are missed; `docs/congestion.md` has by how much. Taken off the list when they are met.
const MISSED: &[(&str, Figure, bool, bool)] = &[
    // Path, figure, missed by CUBIC, missed by BBR.
    // Over forty seeds 4.1 to 4.2 %: see the test below.
    ("policer-10m-40ms", Figure::Loss, false, true),
    ("fct-1m", Figure::P50, true, true),
];

/// Cheap paths: ten seconds of few packets.
const PATHS: [&str; 14] = [
    "base-10m-30ms",
    "bloat-10m-40ms-10bdp",
    "shallow-20m-40ms-01bdp",
    "reorder3-20m-40ms",
    "reorder-deep-20m-40ms",
    "jitter-20m-40ms",
    "thin-ack-20m-40ms",
    "policer-10m-40ms",
    "outage-20m-40ms",
    "mtu-1280-20m-40ms",
    "fct-10k",
    "fct-100k",
    "fct-1m",
    "fct-100k-300ms",
];

fn is_missed(goal: &Goal, bbr: bool) -> bool {
    MISSED.iter().any(|m| m.0 == goal.path && m.1 == goal.figure && if bbr { m.3 } else { m.2 })
}

fn hold(names: &[&str], kind: Congestion) {
    let bbr = kind == Bbr;
    for name in names {
        let all: Vec<Figures> = (1..=3).map(|seed| run(&by_name(name).unwrap(), kind, seed)).collect();
        for figures in &all {
            assert!(figures.wrong.is_empty(), "{name}: {:?}", figures.wrong);
        }
        let runs = Runs { all };
        for goal in goals::all().iter().filter(|g| g.path == *name && !is_missed(g, bbr)) {
            let Some(bound) = (if bbr { goal.bbr } else { goal.cubic }) else { continue };
            let value = runs.value(goal.figure);
            assert!(bound.holds(value), "{} {name}, {}: {value} instead of {bound}", goal.id, goal.figure.name());
        }
    }
}

#[test]
fn cubic_keeps_its_goals_on_the_cheap_paths() {
    hold(&PATHS, Cubic);
}

#[test]
fn bbr_keeps_its_goals_on_the_cheap_paths() {
    hold(&PATHS, Bbr);
}

#[test]
fn bbr_loses_little_more_than_its_goal_behind_a_policer() {
    let path = by_name("policer-10m-40ms").unwrap();
    let runs = Runs { all: (1..=8).map(|seed| run(&path, Bbr, seed)).collect() };
    let lost = runs.value(Figure::Loss);
    assert!(lost <= 4.5, "{lost} %");
}

#[test]
fn bbr_hastens_its_first_flights_and_no_later_ones() {
    // By samples alone it takes 193 ms. Pacing by the window until 60 or 100 datagrams are delivered brings no more, and costs
    // two points behind a queue of four milliseconds.
    const WITHOUT: Congestion = Congestion::BbrWithout(1 << 10);
    let ms = |kind| run(&by_name("fct-100k").unwrap(), kind, 1).done_ms.unwrap();
    assert!(ms(Bbr) <= ms(WITHOUT) - 3.0, "{} and {} ms", ms(Bbr), ms(WITHOUT));
    let goodput = figures("shallow-20m-40ms-01bdp", Bbr).goodput;
    assert!(goodput >= 96.3, "{goodput} %");
}

#[test]
fn cubic_leaves_slow_start_before_it_loses_much_on_a_long_path() {
    hold(&["long-20m-300ms"], Cubic);
}

#[test]
fn bbr_leaves_startup_before_it_loses_much_on_a_long_path() {
    hold(&["long-20m-300ms"], Bbr);
}

#[test]
fn one_fetch_in_twenty_may_wait_for_two_losses_and_the_others_do_not_wait_for_a_second() {
    // Other seeds than those of the table: twice twenty, of which two may be slower.
    let path = by_name("fct-10k-loss5").unwrap();
    for kind in [Cubic, Bbr] {
        let mut all: Vec<f64> = (100..140).map(|seed| run(&path, kind, seed).done_ms.unwrap()).collect();
        all.sort_by(f64::total_cmp);
        assert!(all[37] <= 290.0, "{kind:?}: {:?}", &all[30..]);
    }
}

#[test]
fn marks_slow_senders_before_their_queue_overflows() {
    for kind in [Cubic, Bbr] {
        let f = figures("ecn-20m-40ms", kind);
        assert!(f.loss == 0.0 && f.queue_p95_ms <= 10.0 && f.goodput >= 90.0, "{kind:?}: {f:?}");
    }
}

#[test]
fn hosts_that_are_woken_late_do_not_burst_into_short_queues() {
    // With bursts of an initial window and two reductions for one queue it was 26 and 58 %, with a pace of 5/4 where there
    // is no queue 74 and 84.
    for (name, least) in [("shallow-20m-40ms-01bdp", 77.0), ("ecn-20m-40ms", 86.0)] {
        let f = run(&by_name(name).unwrap().with(Lateness::BUSY), Cubic, 1);
        assert!(f.wrong.is_empty() && f.goodput >= least, "{name}: {f:?}");
    }
}

#[test]
fn hosts_that_are_woken_late_keep_their_rate() {
    // When the bucket forgot what lateness cost, BBR had 86 to 90 % of these; after an outage it waited for three seconds.
    for name in ["ackloss20-20m-40ms", "jitter-20m-40ms", "base-10m-30ms", "outage-20m-40ms"] {
        for kind in [Bbr, Cubic] {
            let late = by_name(name).unwrap().with(Lateness::BUSY);
            let all: Vec<Figures> = (1..=3).map(|seed| run(&late, kind, seed)).collect();
            assert!(all.iter().all(|f| f.wrong.is_empty()), "{name}: {all:?}");
            let value = Runs { all }.value(Figure::Goodput);
            assert!(value >= 93.0, "{name}, {kind:?}: {value}");
        }
    }
}

fn figures(name: &str, kind: Congestion) -> Figures {
    let f = run(&by_name(name).unwrap(), kind, 1);
    assert!(f.wrong.is_empty(), "{name}: {:?}", f.wrong);
    f
}

#[test]
fn controllers_share_a_link_with_each_other() {
    for (name, kind) in [("fair-same", Cubic), ("fair-same", Bbr), ("vs-cubic", Bbr)] {
        // As the goal has it: who gets how much in one run of ten seconds is chance as well.
        let runs = Runs { all: (1..=5).map(|seed| run(&by_name(name).unwrap(), kind, seed)).collect() };
        assert!(runs.all.iter().all(|f| f.wrong.is_empty()), "{name}: {:?}", runs.all);
        let jain = runs.value(Figure::Jain);
        assert!(jain >= 0.95, "{name} {kind:?}: {jain}");
    }
}

#[test]
fn the_adaptive_mode_takes_bbr_on_a_long_path_and_cubic_on_a_short_one() {
    let adaptive = figures("bloat-10m-40ms-10bdp", Congestion::ADAPTIVE);
    assert!(adaptive.queue_p95_ms <= 45.0, "BBR's queue: {}", adaptive.queue_p95_ms);
    let short = path(10, 500, 100_000, 0.0);
    let (adaptive, cubic) = (run(&short, Congestion::ADAPTIVE, 1), run(&short, Cubic, 1));
    assert_eq!(adaptive.progress, cubic.progress, "the same packets at the same times as CUBIC");
}

fn path(mbit: u64, rtt_us: u64, queue: u64, loss: f64) -> Path {
    let down = LinkConfig::new().rate(mbit * 1_000_000).queue_bytes(queue).delay_us(rtt_us / 2).loss(loss);
    Path {
        name: "curve",
        bottleneck: Duplex::new(LinkConfig::new().delay_us(rtt_us / 2), down),
        flows: vec![Flow { sender: Sender::Subject, start_us: 0, access_delay_us: 0, bytes: None }],
        duration_us: 5_000_000,
        judge_from_us: 0,
        lateness: Lateness::NONE,
    }
}

#[test]
fn random_loss_costs_what_the_closed_forms_say() {
    // 100 Mbit/s, 20 ms: the link holds 170 datagrams, losses are what limits. RFC 9438 section 5.1: with so short a round trip
    // CUBIC is as fast as Reno.
    // The formulas know neither whole datagrams nor the round trip of a repair, which a small window of NewReno feels.
    for (loss, reno_band, cubic_band) in [(0.005, 0.15, 0.15), (0.02, 0.25, 0.15)] {
        let mut p = path(100, 20_000, 250_000, loss);
        p.duration_us = 20_000_000;
        for (kind, window, band) in
            [(NewReno, race::reno_window(loss), reno_band), (Cubic, race::cubic_window(0.02, loss), cubic_band)]
        {
            let expected = 100.0 * race::response_share(window, 100_000_000, 0.02);
            let mean = (1..=6).map(|seed| run(&p, kind, seed).goodput).sum::<f64>() / 6.0;
            assert!((mean / expected - 1.0).abs() <= band, "{kind:?} at {loss}: {mean} % instead of {expected} %");
        }
    }
}

#[test]
fn a_larger_rate_is_found_and_a_smaller_one_kept() {
    let mut p = path(10, 40_000, 200_000, 0.0);
    let steps = [(3_000_000, 10_000_000), (3_000_000, 40_000_000), (3_000_000, 10_000_000)];
    p.bottleneck.down = LinkConfig::new().rate_steps(&steps, false).queue_bytes(200_000).delay_us(20_000);
    p.duration_us = 9_000_000;
    for kind in [Cubic, Bbr] {
        let f = run(&p, kind, 1);
        let at = |us: u64| f.progress[0].iter().find(|s| s.0 >= us).unwrap().1;
        let share = |from: u64, to: u64, mbit: u64| 100 * 8 * (at(to) - at(from)) / ((to - from) * mbit);
        assert!(share(1_000_000, 3_000_000, 10) >= 94, "{kind:?}");
        assert!(share(4_500_000, 6_000_000, 40) >= 85, "{kind:?}: within a second and a half");
        // BBR measures the round trip anew within these 1.5 s, with half of the pipe for a fifth of a second.
        assert!(share(7_500_000, 9_000_000, 10) >= 85, "{kind:?}");
    }
}

#[test]
fn every_path_has_a_name_of_its_own_in_the_goals() {
    let missed =
        MISSED.iter().all(|m| PATHS.contains(&m.0) && goals::all().iter().any(|g| g.path == m.0 && g.figure == m.1));
    assert!(missed, "what is listed as missed is a goal on a path that runs here");
    assert_eq!(paths::all().len(), 40);
}

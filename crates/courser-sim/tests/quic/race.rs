//! A few of the forty paths, against the goals that they have. The example `paths` runs them all.

use courser_core::config::Congestion::{Cubic, NewReno};
use courser_sim::paths::by_name;
use courser_sim::quic::race::{Figures, run};

fn figures(name: &str, kind: courser_core::config::Congestion) -> Figures {
    let f = run(&by_name(name).unwrap(), kind, 1);
    assert!(f.wrong.is_empty(), "{name}: {:?}", f.wrong);
    f
}

#[test]
fn clean_paths_are_filled() {
    for (name, least) in [("base-10m-30ms", 94.0), ("jitter-20m-40ms", 93.0), ("mtu-1280-20m-40ms", 91.0)] {
        for kind in [Cubic, NewReno] {
            let f = figures(name, kind);
            assert!(f.goodput >= least && f.needless <= 0.3, "{name} {kind:?}: {f:?}");
        }
    }
}

#[test]
fn reordering_is_not_mistaken_for_loss() {
    for name in ["reorder3-20m-40ms", "reorder-deep-20m-40ms"] {
        let f = figures(name, Cubic);
        assert!(f.goodput >= 93.0 && f.needless <= 0.5, "{name}: {f:?}");
    }
}

#[test]
fn shallow_queues_policers_and_outages_cost_little() {
    for (name, least, loss) in
        [("shallow-20m-40ms-01bdp", 70.0, 2.0), ("policer-10m-40ms", 91.0, 3.0), ("outage-20m-40ms", 92.0, 4.0)]
    {
        let f = figures(name, Cubic);
        assert!(f.goodput >= least && f.loss <= loss, "{name}: {f:?}");
    }
}

#[test]
fn marks_slow_a_sender_before_its_queue_overflows() {
    let f = figures("ecn-20m-40ms", Cubic);
    assert!(f.loss == 0.0 && f.queue_p95_ms <= 10.0 && f.goodput >= 88.0, "{f:?}");
}

#[test]
fn short_fetches_are_quick() {
    for (name, ms) in [("fct-10k", 88.0), ("fct-100k", 220.0), ("fct-1m", 640.0)] {
        let f = figures(name, Cubic);
        assert!(f.done_ms.is_some_and(|took| took <= ms), "{name}: {f:?}");
    }
}

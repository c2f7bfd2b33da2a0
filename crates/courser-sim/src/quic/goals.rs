//! What a sender should reach on the forty paths: the figures that the project is held to, as data.
//!
//! Goals that are not met are listed here as well; which they are is in `docs/congestion.md`, which the example `curves`
//! writes, and in the tests, which hold those that are met.

use super::race::Figures;

/// A figure of a run, or of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Goodput in percent of the link.
    Goodput,
    /// The same of the second half.
    Steady,
    /// Datagrams dropped on the way down, in percent.
    Loss,
    /// Wait in the queue that 95 % do not exceed, in milliseconds.
    QueueP95,
    /// Packets sent again that had arrived, in percent.
    Needless,
    /// Datagrams back per 100.
    Back,
    /// Time of a fetch that half of the seeds do not exceed, in milliseconds.
    P50,
    /// The same of 95 %.
    P95,
    /// Jain's index.
    Jain,
    /// Share of the first flow in percent.
    Share,
    /// Share of the second flow in percent.
    RivalShare,
}

impl Figure {
    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Goodput => "goodput %",
            Self::Steady => "steady %",
            Self::Loss => "loss %",
            Self::QueueP95 => "queue p95 ms",
            Self::Needless => "needless %",
            Self::Back => "back per 100",
            Self::P50 => "p50 ms",
            Self::P95 => "p95 ms",
            Self::Jain => "Jain",
            Self::Share => "share %",
            Self::RivalShare => "rival's share %",
        }
    }
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Bound {
    /// Whether a figure is as it should be.
    #[must_use]
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl core::fmt::Display for Bound {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
        }
    }
}

/// One goal on one path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// Its number, C1 to C20.
    pub id: &'static str,
    /// The path.
    pub path: &'static str,
    /// Which figure.
    pub figure: Figure,
    /// For CUBIC.
    pub cubic: Option<Bound>,
    /// For BBR.
    pub bbr: Option<Bound>,
}

/// Runs of one path by several seeds, put together.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// One for each seed.
    pub all: Vec<Figures>,
}

impl Runs {
    /// The median of a figure over the seeds; of times the quantile that the figure names.
    #[must_use]
    pub fn value(&self, figure: Figure) -> f64 {
        let mut values: Vec<f64> = self.all.iter().map(|f| one(f, figure)).collect();
        values.sort_by(f64::total_cmp);
        // The nearest rank: the nineteenth of twenty.
        let at =
            if figure == Figure::P95 { (values.len() * 95).div_ceil(100).saturating_sub(1) } else { values.len() / 2 };
        values.get(at).copied().unwrap_or(f64::NAN)
    }
}

fn one(f: &Figures, figure: Figure) -> f64 {
    match figure {
        Figure::Goodput => f.goodput,
        Figure::Steady => f.steady,
        Figure::Loss => f.loss,
        Figure::QueueP95 => f.queue_p95_ms,
        Figure::Needless => f.needless,
        Figure::Back => f.back,
        Figure::P50 | Figure::P95 => f.done_ms.unwrap_or(f64::INFINITY),
        Figure::Jain => f.jain,
        Figure::Share => f.share,
        Figure::RivalShare => 100.0 - f.share,
    }
}

const CLEAN: [&str; 8] = [
    "base-10m-30ms",
    "fast-100m-10ms",
    "bloat-10m-40ms-10bdp",
    "jitter-20m-40ms",
    "ecn-bleach-20m-40ms",
    "mtu-1280-20m-40ms",
    "wifi-40m-20ms",
    "ackloss20-20m-40ms",
];

/// All goals, in the order of their numbers.
#[must_use]
pub fn all() -> Vec<Goal> {
    use Bound::{AtLeast, AtMost};
    use Figure::{Back, Goodput, Jain, Loss, Needless, P50, P95, QueueP95, RivalShare, Share, Steady};
    let mut list = Vec::new();
    let mut goal = |id, path, figure, cubic: Option<Bound>, bbr: Option<Bound>| {
        list.push(Goal { id, path, figure, cubic, bbr });
    };
    let (least, most) = (|v: f64| Some(AtLeast(v)), |v: f64| Some(AtMost(v)));
    for path in CLEAN {
        goal("C1", path, Steady, least(97.5), least(97.5));
    }
    goal("C2", "long-20m-300ms", Goodput, least(70.0), least(72.0));
    goal("C2", "long-20m-300ms", Loss, most(2.0), most(2.0));
    goal("C2", "sat-50m-600ms", Goodput, least(45.0), least(50.0));
    goal("C2", "sat-50m-600ms", Loss, most(2.0), most(2.0));
    for (path, cubic, bbr) in
        [("loss01-100m-10ms", 42.0, 94.0), ("loss1-100m-10ms", 13.0, 93.0), ("loss3-100m-10ms", 7.0, 90.0)]
    {
        goal("C3", path, Goodput, least(cubic), least(bbr));
    }
    for (path, lost) in [("loss01-100m-10ms", 0.1), ("loss1-100m-10ms", 1.0), ("loss3-100m-10ms", 3.0)] {
        goal("C3", path, Loss, None, most(lost + 0.5));
    }
    goal("C4", "sat-50m-600ms-loss1", Goodput, None, least(40.0));
    for path in ["reorder3-20m-40ms", "reorder-deep-20m-40ms"] {
        goal("C5", path, Goodput, least(93.0), least(93.0));
        goal("C5", path, Needless, most(0.5), most(0.5));
    }
    goal("C6", "burst-20m-40ms", Goodput, least(55.0), least(92.0));
    goal("C7", "shallow-20m-40ms-01bdp", Goodput, least(70.0), least(90.0));
    goal("C7", "shallow-20m-40ms-01bdp", Loss, None, most(2.0));
    goal("C8", "thin-ack-20m-40ms", Goodput, least(90.0), least(90.0));
    goal("C8", "thin-ack-20m-40ms", Back, most(15.0), most(15.0));
    goal("C9", "policer-10m-40ms", Goodput, least(91.0), least(94.0));
    goal("C9", "policer-10m-40ms", Loss, most(3.0), most(4.0));
    for (path, cubic, bbr) in [
        ("outage-20m-40ms", 92.0, 93.0),
        ("lte-steps", 92.0, 92.0),
        ("up-5-50m-40ms", 94.0, 94.0),
        ("down-50-5m-40ms", 88.0, 88.0),
    ] {
        goal("C10", path, Goodput, least(cubic), least(bbr));
    }
    goal("C10", "lte-steps", QueueP95, None, most(250.0));
    goal("C11", "bloat-10m-40ms-10bdp", QueueP95, most(320.0), most(45.0));
    goal("C11", "bloat-10m-40ms-10bdp", Loss, most(0.0), None);
    goal("C12", "ecn-20m-40ms", Goodput, least(92.0), least(92.0));
    goal("C12", "ecn-20m-40ms", QueueP95, most(10.0), most(10.0));
    goal("C12", "ecn-20m-40ms", Loss, most(0.0), most(0.0));
    goal("C13", "fair-same", Jain, least(0.98), least(0.98));
    goal("C13", "late-comer", Jain, least(0.95), least(0.90));
    goal("C14", "fair-rtt-20-80", Jain, least(0.85), least(0.90));
    goal("C15", "vs-cubic", Share, least(40.0), None);
    goal("C15", "vs-cubic", RivalShare, least(40.0), least(35.0));
    goal("C15", "vs-cubic-deep", Share, least(40.0), least(30.0));
    goal("C15", "vs-cubic-deep", RivalShare, least(40.0), None);
    goal("C16", "vs-bbr", Share, least(35.0), least(40.0));
    goal("C16", "vs-bbr", RivalShare, None, least(40.0));
    for (path, ms) in [("fct-10k", 88.0), ("fct-100k", 190.0), ("fct-1m", 575.0), ("fct-20m", 8450.0)] {
        goal("C17", path, P50, most(ms), most(ms));
    }
    goal("C18", "fct-100k-300ms", P50, most(1380.0), most(1380.0));
    goal("C19", "fct-10k-loss5", P95, most(290.0), most(290.0));
    goal("C19", "fct-100k-loss2", P95, most(417.0), most(275.0));
    let doubled = ["dup2-20m-40ms", "reorder3-20m-40ms", "reorder-deep-20m-40ms"];
    for path in crate::paths::all().iter().map(|p| p.name).filter(|name| !doubled.contains(name)) {
        goal("C20", path, Needless, most(0.3), most(0.3));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_goal_is_for_a_path_and_every_number_has_goals() {
        let goals = all();
        assert!(
            goals.iter().all(|g| crate::paths::by_name(g.path).is_some() && (g.cubic.is_some() || g.bbr.is_some()))
        );
        for n in 1..=20 {
            assert!(goals.iter().any(|g| g.id == format!("C{n}")), "C{n}");
        }
    }

    #[test]
    fn a_value_is_the_median_of_the_seeds() {
        let f = |goodput, done_ms| Figures { goodput, done_ms, ..Figures::default() };
        let runs = Runs { all: vec![f(1.0, Some(9.0)), f(3.0, None), f(2.0, Some(7.0))] };
        assert_eq!((runs.value(Figure::Goodput), runs.value(Figure::P50)), (2.0, 9.0));
        assert!(runs.value(Figure::P95).is_infinite());
        assert!(Bound::AtMost(2.0).holds(2.0) && !Bound::AtLeast(2.0).holds(1.9));
    }
}

//! Loss that has nothing to do with queues.
//!
//! Datagrams are counted from 0 in the order in which they enter the link; models that pick by number use that count.

use crate::rng::Rng;

/// A loss model. Several may stand in one link; a datagram is lost if any of them says so.
#[derive(Clone, Debug, PartialEq)]
pub enum Loss {
    /// Each datagram is lost with this probability, whatever happened to the others.
    Independent(f64),
    /// Loss in bursts that are counted in datagrams.
    GilbertElliott(GilbertElliott),
    /// Loss in bursts that last: a link that is bad for a share of the time, whoever sends or is silent meanwhile, and loses all
    /// that enters it then. Good and bad times are drawn from exponential distributions.
    Times {
        /// The share of the time in which the link is bad, below 1.
        share: f64,
        /// The mean length of a bad time, in microseconds.
        bad_us: u64,
    },
    /// Each datagram is lost with probability `p`, but never more than `in_a_row_max` one after the other.
    Limited {
        /// Probability of loss while the limit is not reached.
        p: f64,
        /// After so many losses in a row one datagram passes for certain.
        in_a_row_max: u32,
    },
    /// Datagram `first`, and then each `n`-th after it. With `n` zero, only `first`.
    Every {
        /// The period.
        n: u64,
        /// Number of the first datagram that is lost.
        first: u64,
    },
    /// Exactly the datagrams with these numbers.
    List(Vec<u64>),
}

/// The Gilbert-Elliott model: a chain with a good and a bad state that may change with each datagram.
///
/// The mean loss is `(leave · loss_good + enter · loss_bad) / (enter + leave)`; a stay in the bad state lasts
/// `1 / leave` datagrams on average.
///
/// ```
/// use courser_sim::node::loss::GilbertElliott;
/// let g = GilbertElliott::bursts(0.01, 5.0);
/// assert!((g.mean() - 0.01).abs() < 1e-9);
/// assert_eq!(g.leave, 0.2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GilbertElliott {
    /// Probability, per datagram, of going from good to bad.
    pub enter: f64,
    /// Probability, per datagram, of going from bad to good.
    pub leave: f64,
    /// Probability of loss in the good state.
    pub loss_good: f64,
    /// Probability of loss in the bad state.
    pub loss_bad: f64,
}

impl GilbertElliott {
    /// Bursts in which everything is lost: `mean` is the share of all datagrams that is lost (below 1), `burst` the mean
    /// length of a burst in datagrams (at least 1).
    #[must_use]
    pub fn bursts(mean: f64, burst: f64) -> Self {
        let mean = mean.clamp(0.0, 0.999);
        let leave = 1.0 / burst.max(1.0);
        Self { enter: (leave * mean / (1.0 - mean)).min(1.0), leave, loss_good: 0.0, loss_bad: 1.0 }
    }

    /// The share of datagrams that is lost in the long run.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let sum = self.enter + self.leave;
        if sum > 0.0 { (self.leave * self.loss_good + self.enter * self.loss_bad) / sum } else { self.loss_good }
    }
}

/// A loss model at work.
#[derive(Clone, Debug)]
pub struct LossNode {
    model: Loss,
    rng: Rng,
    /// Gilbert-Elliott: whether the chain is in its bad state. It starts in the good one.
    bad: bool,
    /// When a link with bad times becomes good or bad next.
    turns_us: f64,
    /// Losses since the last datagram that passed; only [`Loss::Limited`] asks.
    in_a_row: u32,
}

impl LossNode {
    /// The node of a model with its own random stream.
    #[must_use]
    pub fn new(mut model: Loss, mut rng: Rng) -> Self {
        let turns_us =
            if let Loss::Times { share, bad_us } = model { stay(&mut rng, share, bad_us, false) } else { 0.0 };
        if let Loss::List(list) = &mut model {
            list.sort_unstable();
        }
        Self { model, rng, bad: false, turns_us, in_a_row: 0 }
    }

    /// True if the datagram with this number is lost; one without a number escapes the models that count. To be asked once
    /// for each datagram, at times that do not go back.
    pub fn loses(&mut self, now_us: u64, number: Option<u64>) -> bool {
        match &self.model {
            Loss::Independent(p) => self.rng.chance(*p),
            Loss::GilbertElliott(g) => {
                let turn = self.rng.chance(if self.bad { g.leave } else { g.enter });
                self.bad ^= turn;
                self.rng.chance(if self.bad { g.loss_bad } else { g.loss_good })
            }
            Loss::Times { share, bad_us } => {
                while self.turns_us <= now_us as f64 {
                    self.bad = !self.bad;
                    self.turns_us += stay(&mut self.rng, *share, *bad_us, self.bad);
                }
                self.bad
            }
            Loss::Limited { p, in_a_row_max } => {
                let lost = self.rng.chance(*p) && self.in_a_row < *in_a_row_max;
                self.in_a_row = if lost { self.in_a_row + 1 } else { 0 };
                lost
            }
            Loss::Every { n, first } => match number.and_then(|x| x.checked_sub(*first)) {
                None => false,
                Some(after) => after.checked_rem(*n).unwrap_or(after) == 0,
            },
            Loss::List(list) => number.is_some_and(|x| list.binary_search(&x).is_ok()),
        }
    }
}

/// How long a link stays good, or bad.
fn stay(rng: &mut Rng, share: f64, bad_us: u64, bad: bool) -> f64 {
    let (share, bad_us) = (share.clamp(0.0, 0.999), bad_us.max(1) as f64);
    let mean = if bad { bad_us } else { bad_us * (1.0 - share) / share };
    // The smallest step keeps time going on; without a share the first one is without end.
    (-(1.0 - rng.unit()).ln() * mean).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(model: Loss, n: u64) -> Vec<bool> {
        let mut node = LossNode::new(model, Rng::new(11));
        (0..n).map(|i| node.loses(i, Some(i))).collect()
    }

    fn numbers(model: Loss, n: u64) -> Vec<u64> {
        pattern(model, n).iter().zip(0..).filter_map(|(&l, i)| l.then_some(i)).collect()
    }

    #[test]
    fn independent_loss_has_its_mean_and_no_memory() {
        let p = pattern(Loss::Independent(0.1), 200_000);
        let lost = p.iter().filter(|&&l| l).count() as f64;
        assert!((lost / 200_000.0 - 0.1).abs() < 0.003);
        let pairs = p.windows(2).filter(|w| w[0] && w[1]).count() as f64;
        assert!((pairs / lost - 0.1).abs() < 0.01, "a loss does not make the next one likelier");
    }

    #[test]
    fn gilbert_elliott_has_its_mean_and_its_burst_length() {
        let n = 4e6;
        for (mean, burst) in [(0.01, 5.0), (0.05, 3.0), (0.2, 10.0)] {
            let p = pattern(Loss::GilbertElliott(GilbertElliott::bursts(mean, burst)), n as u64);
            let lost = p.iter().filter(|&&l| l).count() as f64;
            let bursts = p.windows(2).filter(|w| !w[0] && w[1]).count() as f64;
            // Losses come in n·mean/burst bursts of geometric length; that makes the spread of their sum. Four of it.
            let spread = ((2.0 * burst - 1.0) / (n * mean)).sqrt();
            assert!(spread < 0.016);
            assert!((lost / n / mean - 1.0).abs() < 4.0 * spread, "mean {mean}: {}", lost / n);
            assert!((lost / bursts / burst - 1.0).abs() < 4.0 * spread, "burst {burst}: {}", lost / bursts);
        }
    }

    #[test]
    fn gilbert_elliott_accepts_degenerate_parameters() {
        assert!(GilbertElliott::bursts(1.0, 0.0).mean() > 0.4);
        let still = GilbertElliott { enter: 0.0, leave: 0.0, loss_good: 0.25, loss_bad: 1.0 };
        assert_eq!(still.mean(), 0.25);
    }

    #[test]
    fn bad_times_have_their_share_and_their_length_however_often_somebody_sends() {
        for every_us in [100, 10_000] {
            let mut node = LossNode::new(Loss::Times { share: 0.2, bad_us: 50_000 }, Rng::new(5));
            let lost: Vec<bool> = (0..2_000_000_000 / every_us).map(|i| node.loses(i * every_us, None)).collect();
            let share = lost.iter().filter(|&&l| l).count() as f64 / lost.len() as f64;
            assert!((share - 0.2).abs() < 0.01, "{share}");
            let times = lost.windows(2).filter(|w| !w[0] && w[1]).count() as f64;
            let length = share * 2e9 / times;
            // Who seldom looks sees no bad times that are shorter than his pauses, and two as one.
            assert!((length / 50_000.0 - 1.0).abs() < 0.03 || every_us == 10_000, "{length}");
        }
        let mut never = LossNode::new(Loss::Times { share: 0.0, bad_us: 50_000 }, Rng::new(5));
        assert!((0..1_000).all(|i| !never.loses(i * 1_000_000, None)));
    }

    #[test]
    fn limited_loss_never_exceeds_its_row() {
        let p = pattern(Loss::Limited { p: 0.9, in_a_row_max: 3 }, 10_000);
        let longest = p.split(|&l| !l).map(<[bool]>::len).max();
        assert_eq!(longest, Some(3));
        assert!(pattern(Loss::Limited { p: 1.0, in_a_row_max: 0 }, 100).iter().all(|&l| !l));
    }

    #[test]
    fn counted_loss_hits_exactly_its_numbers() {
        assert_eq!(numbers(Loss::Every { n: 4, first: 2 }, 12), [2, 6, 10]);
        assert_eq!(numbers(Loss::Every { n: 0, first: 5 }, 12), [5]);
        assert_eq!(numbers(Loss::Every { n: 1, first: 9 }, 12), [9, 10, 11]);
        assert_eq!(numbers(Loss::List(vec![7, 0, 3, 3]), 12), [0, 3, 7]);
    }
}

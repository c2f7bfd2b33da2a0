//! HyStart++ (RFC 9406): leaves slow start when the round trip grows, before the queue overflows.
//!
//! When eight RTT samples in a row exceed the smallest of the round before by a threshold, Conservative Slow Start (CSS)
//! begins: the window grows a quarter as fast. The RFC looks at the first samples of a round only, where the queue that a
//! round's end builds has gone again; a sender that doubles cannot wait for that, for what it learns is a round trip old.
//!
//! In CSS the sender is paced by its window, so that its own bursts make no queue, and two whole rounds show which queue
//! stands: if even the smallest sample of a round is above the threshold, slow start ends; if after two rounds it is not,
//! slow start goes on. It ends after five rounds in any case. Decision D77 has the figures.

use core::time::Duration;

use super::Growth;

const MIN_RTT_THRESH: Duration = Duration::from_millis(4);
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
const MIN_RTT_DIVISOR: u32 = 8;
const RTT_SAMPLES: u32 = 8;
//= rfc9406#4.3-3
const CSS_GROWTH_DIVISOR: u64 = 4;
const CSS_ROUNDS: u8 = 5;
/// Rounds without a queue after which slow start goes on.
const GONE_ROUNDS: u8 = 2;

/// A receiver that acknowledges once per batch gives few samples. Together with this many acknowledged bytes a few are
/// representative.
const LARGE_ROUND: u64 = 96 << 10;
/// How few.
const LARGE_ROUND_SAMPLES: u32 = 3;

const NEVER: Duration = Duration::MAX;

/// What slow start should do with acknowledged bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Open the window by that many bytes.
    Grow(u64),
    /// Open the window by that many bytes, then leave slow start.
    Leave(u64),
}

/// State of the algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HyStart {
    last_round_min: Duration,
    round_min: Duration,
    /// Smallest of the latest samples, eight at most.
    block_min: Duration,
    /// The RTT that means a queue; `NEVER` in standard slow start.
    css_baseline: Duration,
    /// Bytes acknowledged since the latest samples began.
    block_bytes: u64,
    /// How many samples they are.
    block_samples: u32,
    /// Rounds in CSS, the first one counted.
    css_rounds: u8,
    /// Rounds after slow start, in a row, without the queue that ended it.
    gone_rounds: u8,
    /// The path's queue is shorter than a burst: it is never doubled, only CSS for as long as no queue stands.
    is_gentle: bool,
}

impl Default for HyStart {
    fn default() -> Self {
        Self {
            last_round_min: NEVER,
            round_min: NEVER,
            block_min: NEVER,
            css_baseline: NEVER,
            block_bytes: 0,
            block_samples: 0,
            css_rounds: 0,
            gone_rounds: 0,
            is_gentle: false,
        }
    }
}

impl HyStart {
    /// For slow start that goes on after congestion.
    pub fn gentle() -> Self {
        Self { is_gentle: true, ..Self::default() }
    }

    /// An acknowledgement after slow start had ended because of a queue, before any loss; returns whether slow start goes on:
    /// the queue has gone for a whole round, so the path has more room than it had.
    pub fn on_acked_later(&mut self, g: &Growth) -> bool {
        if g.rtt.fresh {
            self.round_min = self.round_min.min(g.rtt.latest);
            self.block_samples += 1;
        }
        if !g.round_ended {
            return false;
        }
        let (min, samples) = (self.round_min, self.block_samples);
        let baseline = queued(g.rtt.min).min(self.css_baseline);
        (self.round_min, self.block_samples) = (NEVER, 0);
        let may_go_on = self.in_css() || self.is_gentle;
        if samples < LARGE_ROUND_SAMPLES || !may_go_on || min >= baseline {
            self.gone_rounds = 0;
            return false;
        }
        self.gone_rounds += 1;
        if self.gone_rounds < GONE_ROUNDS {
            return false;
        }
        *self = Self { last_round_min: min, css_baseline: baseline, is_gentle: self.is_gentle, ..Self::default() };
        true
    }

    pub fn in_css(&self) -> bool {
        self.css_baseline != NEVER
    }

    /// An acknowledgement in the first slow start. The caller is paced, so the growth per acknowledgement has no limit.
    //= rfc9406#4.3-4
    pub fn on_acked(&mut self, g: &Growth) -> Step {
        if g.rtt.fresh {
            self.round_min = self.round_min.min(g.rtt.latest);
            self.block_min = self.block_min.min(g.rtt.latest);
            self.block_samples += 1;
        }
        self.block_bytes += g.bytes;
        let large = self.block_samples >= LARGE_ROUND_SAMPLES && self.block_bytes >= LARGE_ROUND;
        if self.block_samples >= RTT_SAMPLES || large {
            self.judge();
            (self.block_min, self.block_samples, self.block_bytes) = (NEVER, 0, 0);
        }
        let grown = if self.in_css() { g.bytes / CSS_GROWTH_DIVISOR } else { g.bytes };
        if g.round_ended {
            self.last_round_min = core::mem::replace(&mut self.round_min, NEVER);
            if self.in_css() && self.ends_css() {
                return Step::Leave(grown);
            }
        }
        Step::Grow(grown)
    }

    /// Enters CSS when the latest samples say so.
    fn judge(&mut self) {
        if !self.in_css() && self.last_round_min != NEVER {
            let queued = queued(self.last_round_min);
            if self.block_min >= queued {
                self.css_baseline = queued;
            }
        }
    }

    /// A round of CSS ended; returns whether slow start ends with it. What was acknowledged in the first round left before
    /// CSS, in the second round some of it.
    fn ends_css(&mut self) -> bool {
        self.css_rounds = self.css_rounds.saturating_add(1);
        let stands = self.last_round_min >= self.css_baseline;
        if self.is_gentle {
            return self.css_rounds >= 2 && stands;
        }
        if self.css_rounds >= CSS_ROUNDS || self.css_rounds >= 2 && stands {
            return true;
        }
        if self.css_rounds >= 3 {
            (self.css_baseline, self.css_rounds) = (NEVER, 0);
        }
        false
    }
}

/// The round trip that means a queue.
//= rfc9406#4.3-1
fn queued(base: Duration) -> Duration {
    base.saturating_add((base / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH))
}

#[cfg(test)]
mod tests {
    use super::super::RttSnapshot;
    use super::*;
    use crate::time::Instant;

    fn growth(rtt_ms: u64, round_ended: bool) -> Growth {
        let rtt = Duration::from_millis(rtt_ms);
        Growth {
            now: Instant::ZERO,
            bytes: 1000,
            sent: Instant::ZERO,
            in_flight: 0,
            round_ended,
            may_grow: true,
            rtt: RttSnapshot { latest: rtt, fresh: true, smoothed: rtt, min: rtt },
        }
    }

    /// Feeds a round of `samples` acknowledgements of 1,000 bytes with this RTT; returns the bytes that the window grew
    /// by, and whether slow start ended.
    fn round(h: &mut HyStart, samples: u32, rtt_ms: u64) -> (u64, bool) {
        let mut grown = 0;
        for i in 0..samples {
            match h.on_acked(&growth(rtt_ms, i + 1 == samples)) {
                Step::Grow(n) => grown += n,
                Step::Leave(n) => return (grown + n, true),
            }
        }
        (grown, false)
    }

    #[test]
    fn a_steady_round_trip_keeps_slow_start() {
        let mut h = HyStart::default();
        for _ in 0..50 {
            assert_eq!(round(&mut h, 20, 40), (20_000, false));
        }
    }

    #[test]
    fn css_grows_at_most_half_as_fast() {
        //= rfc9406#4.3-3 type=test
        let mut h = HyStart::default();
        round(&mut h, 20, 40);
        round(&mut h, 20, 60);
        let (grown, _) = round(&mut h, 20, 60);
        assert!(grown <= 20_000 / 2, "{grown}");
    }

    #[test]
    fn a_standing_queue_leads_through_css_out_of_slow_start() {
        let mut h = HyStart::default();
        round(&mut h, 24, 40);
        // An eighth of 40 ms is 5 ms; 44 ms is not enough.
        assert_eq!(round(&mut h, 24, 44), (24_000, false));
        // An eighth of 44 ms is 5.5 ms. The first seven samples still count fully.
        assert_eq!(round(&mut h, 20, 50), (7 * 1000 + 13 * 250, false));
        assert_eq!(round(&mut h, 20, 52), (5000, true));
    }

    #[test]
    fn a_queue_at_the_end_of_a_round_is_noticed_within_it() {
        let mut h = HyStart::default();
        round(&mut h, 20, 40);
        for _ in 0..2 {
            for i in 0..24u64 {
                h.on_acked(&growth(40 + i, false));
            }
        }
        assert!(h.in_css());
    }

    #[test]
    fn a_queue_that_goes_again_does_not_end_slow_start() {
        let mut h = HyStart::default();
        round(&mut h, 20, 40);
        round(&mut h, 20, 60);
        assert!(h.in_css());
        // What left before CSS, then what left in CSS.
        assert_eq!(round(&mut h, 20, 41), (5000, false));
        assert_eq!(round(&mut h, 20, 41), (5000, false));
        assert!(!h.in_css());
        assert_eq!(round(&mut h, 20, 41), (20_000, false));
    }

    #[test]
    fn the_threshold_lies_between_4_and_16_ms() {
        //= rfc9406#4.3-1 type=test
        for (base, quiet, css) in [(1, 4, 5), (400, 415, 416)] {
            let mut h = HyStart::default();
            round(&mut h, 16, base);
            let mut other = h;
            round(&mut h, 16, quiet);
            round(&mut other, 16, css);
            assert!(!h.in_css() && other.in_css(), "{base} ms");
        }
    }

    #[test]
    fn few_samples_prove_nothing_unless_they_stand_for_much() {
        //= rfc9406#4.3-2 type=test
        let mut h = HyStart::default();
        round(&mut h, 8, 40);
        round(&mut h, 7, 80);
        assert!(!h.in_css());
        h.block_bytes = LARGE_ROUND;
        h.block_samples = 0;
        h.block_min = NEVER;
        h.last_round_min = Duration::from_millis(40);
        round(&mut h, 3, 100);
        assert!(h.in_css());
    }
}

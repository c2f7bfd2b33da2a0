//! HyStart++ (RFC 9406): leaves slow start when the round trip grows, before the queue overflows.
//!
//! A round in which the smallest RTT exceeds that of the round before by a threshold starts Conservative Slow Start (CSS):
//! the window grows a quarter as fast. When the RTT falls again, slow start goes on; after five rounds slow start ends.

use core::time::Duration;

use super::Growth;

const MIN_RTT_THRESH: Duration = Duration::from_millis(4);
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
const MIN_RTT_DIVISOR: u32 = 8;
const RTT_SAMPLES: u32 = 8;
//= rfc9406#4.3-3
const CSS_GROWTH_DIVISOR: u64 = 4;
const CSS_ROUNDS: u8 = 5;

/// A receiver that acknowledges once per batch gives few samples. In a round that acknowledged this many bytes, a few
/// samples are representative.
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
    /// The RTT that started CSS; `NEVER` in standard slow start.
    css_baseline: Duration,
    /// Bytes acknowledged in this round.
    round_bytes: u64,
    /// RTT samples in this round.
    samples: u32,
    /// Rounds in CSS, the first one counted.
    css_rounds: u8,
}

impl Default for HyStart {
    fn default() -> Self {
        Self { last_round_min: NEVER, round_min: NEVER, css_baseline: NEVER, round_bytes: 0, samples: 0, css_rounds: 0 }
    }
}

impl HyStart {
    pub fn in_css(&self) -> bool {
        self.css_baseline != NEVER
    }

    /// An acknowledgement in the first slow start. The caller is paced, so the growth per acknowledgement has no limit.
    //= rfc9406#4.3-4
    pub fn on_acked(&mut self, g: &Growth) -> Step {
        if g.rtt.fresh {
            self.round_min = self.round_min.min(g.rtt.latest);
            self.samples += 1;
        }
        self.round_bytes += g.bytes;
        if self.samples >= RTT_SAMPLES || self.samples >= LARGE_ROUND_SAMPLES && self.round_bytes >= LARGE_ROUND {
            self.judge();
        }
        let grown = if self.in_css() { g.bytes / CSS_GROWTH_DIVISOR } else { g.bytes };
        if g.round_ended {
            self.last_round_min = core::mem::replace(&mut self.round_min, NEVER);
            (self.samples, self.round_bytes) = (0, 0);
            if self.in_css() {
                self.css_rounds += 1;
                if self.css_rounds >= CSS_ROUNDS {
                    return Step::Leave(grown);
                }
            }
        }
        Step::Grow(grown)
    }

    /// Enters or leaves CSS when the round's samples say so.
    fn judge(&mut self) {
        if self.in_css() {
            if self.round_min < self.css_baseline {
                self.css_baseline = NEVER;
                self.css_rounds = 0;
            }
        } else if self.last_round_min != NEVER {
            let threshold = (self.last_round_min / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH);
            if self.round_min >= self.last_round_min.saturating_add(threshold) {
                self.css_baseline = self.round_min;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RttSnapshot;
    use super::*;
    use crate::time::Instant;

    /// Feeds a round of `samples` acknowledgements of 1,000 bytes with this RTT; returns the bytes that the window grew
    /// by, and whether slow start ended.
    fn round(h: &mut HyStart, samples: u32, rtt_ms: u64) -> (u64, bool) {
        let mut grown = 0;
        for i in 0..samples {
            let rtt = Duration::from_millis(rtt_ms);
            let g = Growth {
                now: Instant::ZERO,
                bytes: 1000,
                round_ended: i + 1 == samples,
                may_grow: true,
                rtt: RttSnapshot { latest: rtt, fresh: true, smoothed: rtt, min: rtt },
            };
            match h.on_acked(&g) {
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
    fn a_growing_round_trip_leads_through_css_out_of_slow_start() {
        let mut h = HyStart::default();
        round(&mut h, 20, 40);
        // An eighth of 40 ms is 5 ms; 44 ms is not enough.
        assert_eq!(round(&mut h, 20, 44), (20_000, false));
        // An eighth of 44 ms is 5.5 ms. The first seven samples of the round still count fully.
        assert_eq!(round(&mut h, 20, 50), (7 * 1000 + 13 * 250, false));
        for _ in 0..3 {
            assert_eq!(round(&mut h, 20, 52), (5000, false));
        }
        assert_eq!(round(&mut h, 20, 52), (5000, true));
    }

    #[test]
    fn a_spike_does_not_end_slow_start() {
        let mut h = HyStart::default();
        round(&mut h, 20, 40);
        round(&mut h, 20, 60);
        assert!(h.in_css());
        round(&mut h, 20, 41);
        assert!(!h.in_css());
        assert_eq!(round(&mut h, 20, 41), (20_000, false));
    }

    #[test]
    fn the_threshold_lies_between_4_and_16_ms() {
        //= rfc9406#4.3-1 type=test
        for (base, quiet, css) in [(1, 4, 5), (400, 415, 416)] {
            let mut h = HyStart::default();
            round(&mut h, 10, base);
            let mut other = h;
            round(&mut h, 10, quiet);
            round(&mut other, 10, css);
            assert!(!h.in_css() && other.in_css(), "{base} ms");
        }
    }

    #[test]
    fn few_samples_prove_nothing_unless_the_round_is_large() {
        //= rfc9406#4.3-2 type=test
        let mut h = HyStart::default();
        round(&mut h, 7, 40);
        round(&mut h, 7, 80);
        assert!(!h.in_css());
        h.round_bytes = LARGE_ROUND;
        round(&mut h, 3, 100);
        assert!(h.in_css());
    }
}

//! Round-trip time of a path (RFC 9002 section 5).

use core::time::Duration;

use crate::ack::merge::AckRanges;
use crate::ids::Space;
use crate::time::{Instant, micros};

/// Assumed before there is a sample (RFC 9002 section 6.2.2).
pub const INITIAL_RTT: Duration = Duration::from_millis(333);

/// Timers are not more exact than this (RFC 9002 section 6.1.2).
pub const GRANULARITY: Duration = Duration::from_millis(1);

const GRANULARITY_US: u64 = 1000;

/// Estimates, in microseconds inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtt {
    latest_us: u64,
    smoothed_us: u64,
    var_us: u64,
    min_us: u64,
    /// When the first sample was taken; `FAR_FUTURE` before. Persistent congestion counts only packets sent later.
    first_sample: Instant,
    /// Set by persistent congestion: the next sample replaces the minimum, for the path may have changed.
    renew_min: bool,
}

impl Default for Rtt {
    fn default() -> Self {
        Self::new(INITIAL_RTT)
    }
}

impl Rtt {
    /// No sample yet; `initial` is assumed.
    #[must_use]
    pub const fn new(initial: Duration) -> Self {
        let us = micros(initial);
        Self {
            latest_us: us,
            smoothed_us: us,
            var_us: us / 2,
            min_us: us,
            first_sample: Instant::FAR_FUTURE,
            renew_min: false,
        }
    }

    /// Takes a sample. `ack_delay` is what the peer reported; `max_ack_delay` limits it and is given only after the
    /// handshake was confirmed.
    pub fn sample(&mut self, now: Instant, latest: Duration, ack_delay: Duration, max_ack_delay: Option<Duration>) {
        let latest = micros(latest);
        self.latest_us = latest;
        if !self.has_sample() {
            //= rfc9002#5.2-1
            (self.min_us, self.smoothed_us, self.var_us) = (latest, latest, latest / 2);
            self.first_sample = now;
            return;
        }
        //= rfc9002#5.2-2, rfc9002#5.2-3
        self.min_us = if self.renew_min { latest } else { self.min_us.min(latest) };
        self.renew_min = false;
        //= rfc9002#5.3-2, rfc9002#5.3-3
        let delay = max_ack_delay.map_or(micros(ack_delay), |max| micros(ack_delay.min(max)));
        //= rfc9002#5.3-4
        let adjusted = match latest.checked_sub(delay) {
            Some(without) if without >= self.min_us => without,
            _ => latest,
        };
        self.var_us = (3 * self.var_us + self.smoothed_us.abs_diff(adjusted)) / 4;
        self.smoothed_us = (7 * self.smoothed_us + adjusted) / 8;
    }

    /// Takes the sample that the newest packet of an acknowledgement gives.
    pub fn sample_of(&mut self, now: Instant, sent: Instant, ack: &AckRanges, max_ack_delay: Option<Duration>) {
        // Initial packets are acknowledged at once; what the peer says of its delay there is unauthenticated.
        let delay = if ack.space() == Space::Initial { Duration::ZERO } else { ack.delay() };
        self.sample(now, ack.received().since(sent), delay, max_ack_delay);
    }

    /// Persistent congestion was found: the next sample is the new minimum.
    pub const fn on_persistent_congestion(&mut self) {
        self.renew_min = true;
    }

    /// Whether there was a sample.
    #[must_use]
    pub fn has_sample(&self) -> bool {
        self.first_sample != Instant::FAR_FUTURE
    }

    /// When the first sample was taken; `FAR_FUTURE` before.
    #[must_use]
    pub const fn first_sample(&self) -> Instant {
        self.first_sample
    }

    /// The newest sample.
    #[must_use]
    pub const fn latest(&self) -> Duration {
        Duration::from_micros(self.latest_us)
    }

    /// The smoothed time.
    #[must_use]
    pub const fn smoothed(&self) -> Duration {
        Duration::from_micros(self.smoothed_us)
    }

    /// The mean deviation.
    #[must_use]
    pub const fn var(&self) -> Duration {
        Duration::from_micros(self.var_us)
    }

    /// The smallest sample.
    #[must_use]
    pub const fn min(&self) -> Duration {
        Duration::from_micros(self.min_us)
    }

    /// The probe timeout without the peer's delay and without backoff.
    //= rfc9002#6.2.1-1
    #[must_use]
    pub fn pto_base(&self) -> Duration {
        Duration::from_micros(self.smoothed_us.saturating_add(self.var_us.saturating_mul(4).max(GRANULARITY_US)))
    }

    /// How long after its sending a packet is lost when a later one was acknowledged: `eighths` / 8 of the round trip.
    //= rfc9002#6.1.2-2, rfc9002#6.1.2-4
    #[must_use]
    pub fn loss_delay(&self, eighths: u32) -> Duration {
        let base = self.latest_us.max(self.smoothed_us);
        Duration::from_micros((base.saturating_mul(u64::from(eighths)) / 8).max(GRANULARITY_US))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn after(samples: &[(u64, u64)], max: Option<Duration>) -> Rtt {
        let mut rtt = Rtt::default();
        for &(latest, delay) in samples {
            rtt.sample(Instant::ZERO, ms(latest), ms(delay), max);
        }
        rtt
    }

    #[test]
    fn before_a_sample_the_initial_value_counts() {
        //= rfc9002#6.2.2-1 type=test
        let rtt = Rtt::default();
        assert!(!rtt.has_sample());
        assert_eq!(rtt.pto_base(), ms(333) + 4 * Duration::from_micros(166_500));
        assert_eq!(Rtt::new(ms(100)).smoothed(), ms(100));
    }

    #[test]
    fn the_first_sample_sets_everything() {
        //= rfc9002#5.2-1 type=test
        let rtt = after(&[(100, 40)], None);
        assert_eq!((rtt.latest(), rtt.smoothed(), rtt.var(), rtt.min()), (ms(100), ms(100), ms(50), ms(100)));
    }

    #[test]
    fn later_samples_are_smoothed() {
        let rtt = after(&[(100, 0), (180, 0)], None);
        assert_eq!(rtt.smoothed(), ms(110));
        assert_eq!(rtt.var(), Duration::from_micros(57_500));
        assert_eq!(rtt.min(), ms(100));
    }

    #[test]
    fn the_minimum_ignores_the_delay() {
        //= rfc9002#5.2-2 type=test
        let rtt = after(&[(100, 0), (80, 50)], None);
        assert_eq!(rtt.min(), ms(80));
    }

    #[test]
    fn the_delay_is_limited_once_confirmed() {
        //= rfc9002#5.3-2, rfc9002#5.3-3 type=test
        assert_eq!(after(&[(100, 0), (200, 80)], None).smoothed(), Duration::from_micros(102_500));
        assert_eq!(after(&[(100, 0), (200, 80)], Some(ms(20))).smoothed(), Duration::from_micros(110_000));
    }

    #[test]
    fn an_implausible_delay_is_not_subtracted() {
        //= rfc9002#5.3-4 type=test
        assert_eq!(after(&[(100, 0), (108, 9)], None).smoothed(), ms(101));
        assert_eq!(after(&[(100, 0), (108, 8)], None).smoothed(), ms(100));
        assert_eq!(after(&[(100, 0), (108, 5000)], None).smoothed(), ms(101));
    }

    #[test]
    fn persistent_congestion_renews_the_minimum() {
        //= rfc9002#5.2-3 type=test
        let mut rtt = after(&[(100, 0)], None);
        rtt.on_persistent_congestion();
        rtt.sample(Instant::ZERO, ms(300), ms(0), None);
        assert_eq!(rtt.min(), ms(300));
        rtt.sample(Instant::ZERO, ms(400), ms(0), None);
        assert_eq!(rtt.min(), ms(300));
    }

    #[test]
    fn timeouts_are_at_least_the_granularity() {
        //= rfc9002#6.2.1-1, rfc9002#6.1.2-2 type=test
        let rtt = after(&[(0, 0), (0, 0)], None);
        assert_eq!((rtt.pto_base(), rtt.loss_delay(9)), (GRANULARITY, GRANULARITY));
        assert_eq!(after(&[(80, 0)], None).loss_delay(9), ms(90));
    }
}

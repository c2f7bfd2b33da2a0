//! How much reordering loss detection puts up with.
//!
//! It starts with the RFC's thresholds: 3 packets and 9/8 of the round trip. When a packet that was declared lost is
//! acknowledged after all, both thresholds grow to where it would not have been declared lost: the packet threshold to
//! the distance by which it was overtaken, the time threshold to the time that it took. Both are bounded, and both go back
//! by half after sixteen periods with true losses and none that was false. So a path that reorders costs a false loss or
//! two, not one per round trip, and a path that stops reordering becomes quick again.

use core::time::Duration;

use crate::time::micros;

/// Initial packet threshold (RFC 9002 section 6.1.1).
pub const PACKET_THRESHOLD: u64 = 3;
/// Initial time threshold in eighths of the round trip (RFC 9002 section 6.1.2).
pub const TIME_EIGHTHS: u32 = 9;

/// Largest packet threshold; beyond it time decides anyway.
const PACKET_THRESHOLD_MAX: u64 = 4096;
/// Largest time threshold: two round trips.
const TIME_EIGHTHS_MAX: u32 = 16;
/// Periods with true losses only, after which the thresholds go back.
const CALM_PERIODS: u8 = 16;

/// Thresholds of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reordering {
    /// A packet is lost when that many later ones were acknowledged.
    packets: u64,
    /// A packet is lost that many eighths of the round trip after its sending.
    eighths: u32,
    /// Periods with true losses since the last false one.
    calm: u8,
    /// Whether the thresholds move at all.
    adaptive: bool,
}

impl Default for Reordering {
    fn default() -> Self {
        Self { packets: PACKET_THRESHOLD, eighths: TIME_EIGHTHS, calm: 0, adaptive: true }
    }
}

impl Reordering {
    /// The RFC's constants, for good.
    #[must_use]
    pub fn fixed() -> Self {
        Self { adaptive: false, ..Self::default() }
    }

    /// The packet threshold.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// The time threshold in eighths of the round trip.
    #[must_use]
    pub const fn eighths(&self) -> u32 {
        self.eighths
    }

    /// Back to the start, on a new path.
    pub fn reset(&mut self) {
        *self = Self { adaptive: self.adaptive, ..Self::default() };
    }

    /// A lost packet was acknowledged `took` after its sending; it had been overtaken by `distance` numbers. `rtt` is the
    /// round trip that the time threshold multiplies.
    pub fn on_spurious(&mut self, distance: u64, took: Duration, rtt: Duration) {
        if !self.adaptive {
            return;
        }
        self.calm = 0;
        self.packets = self.packets.max(distance.saturating_add(1)).min(PACKET_THRESHOLD_MAX);
        // Rounded up, and one more: the packet would else be declared lost in the very moment it is acknowledged.
        let eighths = micros(took).saturating_mul(8) / micros(rtt).max(1) + 1;
        let eighths = u32::try_from(eighths).unwrap_or(TIME_EIGHTHS_MAX).min(TIME_EIGHTHS_MAX);
        self.eighths = self.eighths.max(eighths);
    }

    /// Lost packets were remembered long enough: they were truly lost.
    pub fn on_true_loss(&mut self) {
        self.calm += 1;
        if self.calm >= CALM_PERIODS {
            self.calm = 0;
            self.packets = (self.packets / 2).max(PACKET_THRESHOLD);
            self.eighths = (self.eighths + TIME_EIGHTHS) / 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn thresholds_start_as_recommended_and_never_fall_below() {
        //= rfc9002#6.1.1-1, rfc9002#6.1.1-2, rfc9002#6.1.2-4 type=test
        let mut r = Reordering::default();
        assert_eq!((r.packets(), r.eighths()), (3, 9));
        (0..100).for_each(|_| r.on_true_loss());
        assert_eq!((r.packets(), r.eighths()), (3, 9));
    }

    #[test]
    fn a_false_loss_raises_both_as_far_as_needed() {
        let mut r = Reordering::default();
        r.on_spurious(8, ms(45), ms(40));
        assert_eq!((r.packets(), r.eighths()), (9, 10));
        r.on_spurious(2, ms(30), ms(40));
        assert_eq!((r.packets(), r.eighths()), (9, 10));
        r.on_spurious(1 << 40, ms(4000), ms(40));
        assert_eq!((r.packets(), r.eighths()), (4096, 16));
    }

    #[test]
    fn calm_brings_them_back() {
        let mut r = Reordering::default();
        r.on_spurious(63, ms(65), ms(40));
        let seen: Vec<_> = (0..80)
            .map(|_| {
                r.on_true_loss();
                (r.packets(), r.eighths())
            })
            .collect();
        assert_eq!([seen[14], seen[15], seen[31], seen[79]], [(64, 14), (32, 11), (16, 10), (3, 9)]);
    }

    #[test]
    fn fixed_thresholds_stay() {
        let mut r = Reordering::fixed();
        r.on_spurious(50, ms(100), ms(40));
        assert_eq!((r.packets(), r.eighths()), (3, 9));
    }
}

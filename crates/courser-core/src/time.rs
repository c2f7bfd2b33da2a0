//! Time as the caller measures it.
//!
//! The core never reads a clock. Whoever drives it makes an [`Instant`] once per batch and passes it down.

use core::num::NonZeroU64;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// A point in time: microseconds since an origin that the caller chose. It should not go backwards; an engine whose caller's
/// clock was set back goes on from where it was.
///
/// One more than the microseconds is kept, so that an `Option` takes no more room: a connection has many times that are not
/// set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZeroU64);

const _: () = assert!(size_of::<Option<Instant>>() == 8);

impl Instant {
    /// The caller's origin.
    pub const ZERO: Self = Self(NonZeroU64::MIN);
    /// Later than every real point in time; used for "never" where that saves a question.
    pub const FAR_FUTURE: Self = Self(NonZeroU64::MAX);

    /// The point `us` microseconds after the origin.
    #[must_use]
    pub const fn from_micros(us: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(us))
    }

    /// Microseconds since the origin.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0.get() - 1
    }

    /// The point that many microseconds later.
    #[must_use]
    pub const fn after_micros(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }

    /// Time since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Instant {
    fn default() -> Self {
        Self::ZERO
    }
}

/// Whole microseconds of a duration, saturating at `u64::MAX`.
#[must_use]
pub const fn micros(d: Duration) -> u64 {
    d.as_secs().saturating_mul(1_000_000).saturating_add(d.subsec_micros() as u64)
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        self.after_micros(micros(d))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(NonZeroU64::new(self.0.get().saturating_sub(micros(d))).unwrap_or(NonZeroU64::MIN))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let t = Instant::from_micros(5);
        assert_eq!(t - Duration::from_secs(1), Instant::ZERO);
        assert_eq!(Instant::FAR_FUTURE + Duration::from_secs(1), Instant::FAR_FUTURE);
        assert_eq!(Instant::ZERO - t, Duration::ZERO);
        assert_eq!(t + Duration::MAX, Instant::FAR_FUTURE);
        assert_eq!(micros(Duration::MAX), u64::MAX);
    }

    #[test]
    fn both_ends_of_time_are_told_apart_from_none() {
        assert_eq!((Instant::ZERO.as_micros(), Instant::default()), (0, Instant::ZERO));
        assert_eq!(Instant::from_micros(1) - Duration::from_micros(1), Instant::ZERO);
        assert!(Instant::from_micros(u64::MAX) == Instant::FAR_FUTURE && Some(Instant::ZERO) > None);
        for us in [0, 1, 7, u64::MAX - 2, u64::MAX - 1] {
            assert_eq!(Instant::from_micros(us).as_micros(), us);
        }
    }

    #[test]
    fn differences_are_exact() {
        let a = Instant::from_micros(1_500_000);
        assert_eq!(a - Instant::from_micros(500_000), Duration::from_secs(1));
        assert_eq!((a + Duration::from_millis(2)).as_micros(), 1_502_000);
    }
}

//! The clock that engines are driven with.
//!
//! The core measures time as microseconds since an origin; here the origin is a moment of the system's monotonic clock.
//! Workers that exchange points in time share one [`Clock`], which is a plain copyable value.

use std::time;

use courser_core::time::{Instant, micros};

/// How far before its creation a clock's origin lies: "now minus a short time" must not be cut off at the origin.
const HEAD_START_US: u64 = 3_600_000_000;

/// Reads the system's monotonic clock in the core's unit.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The system's time at which this clock read [`HEAD_START_US`].
    started: time::Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { started: time::Instant::now() }
    }

    /// How long after the beginning of 1970 the clock's origin lies, by the system's calendar. The calendar may be set while
    /// the clock runs; the clock does not follow it.
    #[must_use]
    pub fn unix_time_at_zero(&self) -> time::Duration {
        let since_1970 = time::SystemTime::now().duration_since(time::UNIX_EPOCH).unwrap_or_default();
        since_1970.saturating_sub(time::Duration::from_micros(self.now().as_micros()))
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_micros(micros(self.started.elapsed()).saturating_add(HEAD_START_US))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::start()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_does_not_go_backwards_and_leaves_room_before_the_start() {
        let clock = Clock::start();
        let first = clock.now();
        let second = clock.now();
        assert!(second >= first);
        assert!(first - Duration::from_secs(60) > Instant::ZERO);
    }

    #[test]
    fn clocks_that_were_started_at_different_times_agree_on_the_calendar() {
        let first = Clock::start();
        std::thread::sleep(Duration::from_millis(20));
        let second = Clock::start();
        let calendar = |clock: &Clock| clock.unix_time_at_zero() + Duration::from_micros(clock.now().as_micros());
        let (a, b) = (calendar(&first), calendar(&second));
        assert!(b.abs_diff(a) < Duration::from_secs(1), "{a:?} {b:?}");
        assert!(second.unix_time_at_zero() > first.unix_time_at_zero());
        assert!(a > Duration::from_secs(1_700_000_000), "after 2023");
    }
}

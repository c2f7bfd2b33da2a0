//! The engine's time, which never goes back although its caller's may.
//!
//! Timers, pacing and round-trip times need time that only grows. A clock that is a little behind the last reading (two
//! threads that read it, an imprecise timer) stands still until it has caught up. One that stepped back by more was set: the
//! engine's time goes on from where it was, ahead of the caller's by the step from then on.

use core::time::Duration;

use crate::time::Instant;

/// What is taken for a step.
const STEP: Duration = Duration::from_millis(100);

/// Turns the caller's time into the engine's and back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    latest: Instant,
    /// How far the engine is ahead.
    ahead: Duration,
}

impl Clock {
    /// The engine's time when the caller's clock shows `now`.
    pub(super) fn read(&mut self, now: Instant) -> Instant {
        let time = now + self.ahead;
        let back = self.latest.since(time);
        if back > STEP {
            self.ahead += back;
        }
        self.latest = self.latest.max(time);
        self.latest
    }

    /// What the caller's clock shows at `time` of the engine.
    pub(super) fn for_caller(&self, time: Instant) -> Instant {
        time - self.ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_for_moments_and_goes_on_after_steps() {
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let mut clock = Clock::default();
        for (caller, engine) in [
            (1000, 1000),
            (1020, 1020),
            (1010, 1020),
            (1030, 1030),
            (500, 1030),
            (510, 1040),
            (4000, 4530),
            (0, 4530),
            (7, 4537),
        ] {
            assert_eq!(clock.read(at(caller)), at(engine), "the caller's clock shows {caller} ms");
        }
        assert_eq!(clock.for_caller(at(4600)), at(70));
        assert_eq!(clock.for_caller(Instant::ZERO), Instant::ZERO);
    }
}

//! Receive calls that fail though there is something to read.
//!
//! Such a failure tells of an earlier datagram, or of a shortage, and the next call is made at once; but when one failed
//! after the other the system goes on saying that there is something to read, and a worker that believed it would never
//! sleep. It does not listen for a while then, twice as long each time.

use std::time::Duration;

use courser_core::time::Instant;

/// The first pause.
const PAUSE: Duration = Duration::from_millis(1);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_millis(64);

/// Until when a worker does not listen to its socket.
#[derive(Debug, Default)]
pub(super) struct Deaf {
    until: Option<Instant>,
    /// The last pause.
    pause: Duration,
}

impl Deaf {
    /// When to listen again, if the worker does not listen.
    pub(super) const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the time to listen again has come, or is there anyway. `now` is asked only when that matters.
    pub(super) fn is_over(&self, now: impl FnOnce() -> Instant) -> bool {
        self.until.is_none_or(|at| at <= now())
    }

    /// A receive call gave something, or the socket was empty.
    pub(super) const fn hears(&mut self) {
        (self.until, self.pause) = (None, Duration::ZERO);
    }

    /// Receive calls failed one after the other.
    pub(super) fn fails(&mut self, now: Instant) {
        self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
        self.until = Some(now + self.pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_end_with_the_first_call_that_works() {
        let (mut deaf, mut now) = (Deaf::default(), Instant::from_micros(5));
        assert!(deaf.is_over(|| now));
        for ms in [1, 2, 4, 8, 16, 32, 64, 64] {
            deaf.fails(now);
            assert_eq!(deaf.until(), Some(now + Duration::from_millis(ms)));
            assert!(!deaf.is_over(|| now));
            now += Duration::from_millis(ms);
            assert!(deaf.is_over(|| now));
        }
        deaf.hears();
        assert_eq!(deaf.until(), None);
        deaf.fails(now);
        assert_eq!(deaf.until(), Some(now + PAUSE));
    }
}

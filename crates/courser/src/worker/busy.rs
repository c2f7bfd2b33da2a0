//! Looking at the socket for a moment before falling asleep.
//!
//! To fall asleep and to be woken costs a processor more than ten microseconds, much of it in the thread that wakes, and
//! whoever waits for the answer waits for that as well. A worker whose datagrams come closer together than
//! [`SocketConfig::busy_poll`](crate::net::socket::SocketConfig) looks for the next one that long instead. It does so only while that pays:
//!
//! * after a wait that was no longer than twice the limit; so an idle worker sleeps, and one with pauses between its
//!   datagrams looks once at most for each pause. Twice, because two ends that sleep make each other wait for the
//!   waking, and would never find out that looking ends that;
//! * not when looking was in vain too often of late: where the thread that is waited for needs this processor, looking
//!   keeps it from answering. Each look in vain weighs as much as one that was not, and doubles the waits until the next
//!   try once it has [`MISSES_FREE`] more.
//!
//! So the time spent in vain is at most the limit for every wait whose predecessor was short, and next to nothing when
//! looking never helps.

use std::time::Duration;

/// A wait that slept is called short up to so many times the limit.
const SHORT_WAIT: u32 = 2;
/// Looks in vain, beyond those that were not, before waits are left out.
const MISSES_FREE: u8 = 2;
/// Where the count of looks in vain ends: every 256th wait tries again.
const MISSES_MAX: u8 = MISSES_FREE + 8;

/// Decides whether a wait begins with looking.
#[derive(Debug)]
pub(super) struct BusyPoll {
    /// Longest look; zero: never.
    limit: Duration,
    /// The wait before was short.
    short: bool,
    /// Looks in vain less those that were not.
    misses: u8,
    /// Waits that go without.
    skip: u16,
}

impl BusyPoll {
    pub(super) const fn new(limit: Duration) -> Self {
        Self { limit, short: false, misses: 0, skip: 0 }
    }

    /// How long the wait that begins is to look; zero: not at all.
    pub(super) fn begin(&mut self) -> Duration {
        if !self.short || self.limit.is_zero() {
            return Duration::ZERO;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Duration::ZERO;
        }
        self.limit
    }

    /// Something came while looking.
    pub(super) const fn hit(&mut self) {
        self.misses = self.misses.saturating_sub(1);
    }

    /// Nothing came while looking.
    pub(super) fn missed(&mut self) {
        self.misses = (self.misses + 1).min(MISSES_MAX);
        self.skip = match self.misses.saturating_sub(MISSES_FREE) {
            0 => 0,
            over => 1 << over,
        };
    }

    /// A wait that went to sleep is over; so long it took in all.
    pub(super) fn slept(&mut self, took: Duration) {
        self.short = took <= self.limit.saturating_mul(SHORT_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);
    const SHORT: Duration = Duration::from_micros(40);
    const LONG: Duration = Duration::from_millis(3);

    /// Waits `count` times for `wait`; how many looks there were and how many of them were in vain. `alone`: what is
    /// waited for comes only while the worker sleeps.
    fn waits(busy: &mut BusyPoll, count: usize, wait: Duration, alone: bool) -> (usize, usize) {
        let (mut looks, mut vain) = (0, 0);
        for _ in 0..count {
            let look = busy.begin();
            if !look.is_zero() {
                looks += 1;
                if !alone && wait <= look {
                    busy.hit();
                    continue;
                }
                vain += 1;
                busy.missed();
            }
            busy.slept(wait);
        }
        (looks, vain)
    }

    #[test]
    fn a_worker_with_long_pauses_never_looks() {
        let mut busy = BusyPoll::new(LIMIT);
        assert_eq!(waits(&mut busy, 1000, LONG, false), (0, 0));
    }

    #[test]
    fn a_short_wait_is_followed_by_looks_until_one_is_in_vain() {
        let mut busy = BusyPoll::new(LIMIT);
        assert_eq!(waits(&mut busy, 100, SHORT, false), (99, 0));
        assert_eq!(waits(&mut busy, 100, LONG, false), (1, 1));
        assert_eq!(waits(&mut busy, 100, SHORT, false), (99, 0));
    }

    #[test]
    fn where_looking_never_helps_it_is_hardly_tried() {
        let mut busy = BusyPoll::new(LIMIT);
        let (looks, vain) = waits(&mut busy, 100_000, SHORT, true);
        assert_eq!(looks, vain);
        assert!((380..420).contains(&looks), "{looks}");
        // It is found out when that changes.
        let (looks, vain) = waits(&mut busy, 1000, SHORT, false);
        assert!(looks > 700 && vain == 0, "{looks} {vain}");
    }

    #[test]
    fn short_and_long_waits_by_turns_cost_less_and_less() {
        let mut busy = BusyPoll::new(LIMIT);
        let mut vain = 0;
        for _ in 0..10_000 {
            vain += waits(&mut busy, 1, SHORT, true).1 + waits(&mut busy, 1, LONG, false).1;
        }
        assert!(vain < 120, "{vain}");
    }

    #[test]
    fn a_limit_of_zero_never_looks() {
        let mut busy = BusyPoll::new(Duration::ZERO);
        assert_eq!(waits(&mut busy, 100, Duration::ZERO, false), (0, 0));
    }
}

//! Credit: how many bytes or streams may go.
//!
//! [`SendCredit`] is what the peer grants us; it only grows. [`RecvCredit`] is what we grant: renewed when half of the
//! window is used, and the window doubles while halves are used up within two round trips, so that it ends near the
//! bandwidth-delay product and never above its maximum. Frames are never remembered, only the wish to send one: a lost one
//! is asked for again and then carries the newest value.

use core::time::Duration;

use crate::time::Instant;

/// What the peer grants.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendCredit {
    limit: u64,
    used: u64,
    blocked: Blocked,
}

impl SendCredit {
    /// Credit up to `limit`, nothing used.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    /// The limit.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// How much of it is used.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.used
    }

    /// What is left.
    #[must_use]
    pub const fn room(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    /// Uses some.
    pub const fn spend(&mut self, n: u64) {
        debug_assert!(n <= self.room(), "more was sent than the peer grants");
        self.used += n;
    }

    /// Uses some, also beyond the limit: a rejection of 0-RTT may have lowered it.
    pub const fn count_beyond(&mut self, n: u64) {
        self.used += n;
    }

    /// The peer's new limit; says whether it is larger. Smaller ones are old news.
    pub fn raise(&mut self, limit: u64) -> bool {
        //= rfc9000#4.1-3
        let grows = limit > self.limit;
        if grows {
            self.limit = limit;
            self.blocked = Blocked::default();
        }
        grows
    }

    /// Somebody would have used more: the peer should know.
    pub fn block(&mut self) {
        self.blocked.at(self.limit);
    }

    /// The frame that tells the peer.
    #[must_use]
    pub const fn blocked(&self) -> &Blocked {
        &self.blocked
    }

    /// The frame that tells the peer, to be sent or lost.
    pub const fn blocked_mut(&mut self) -> &mut Blocked {
        &mut self.blocked
    }

    /// The limit is this one, even a smaller one, and so much counts as used, even more than that (rejected 0-RTT).
    pub fn restart(&mut self, limit: u64, used: u64) {
        *self = Self { limit, used, blocked: Blocked::default() };
    }
}

/// A DATA_BLOCKED, STREAM_DATA_BLOCKED or STREAMS_BLOCKED frame: once for each limit, again when it was lost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blocked {
    /// The limit plus one, so that zero means not blocked.
    at: u64,
    due: bool,
}

impl Blocked {
    /// Blocked at this limit.
    pub const fn at(&mut self, limit: u64) {
        if self.at != limit + 1 {
            *self = Self { at: limit + 1, due: true };
        }
    }

    /// Not blocked any more.
    pub const fn clear(&mut self) {
        *self = Self { at: 0, due: false };
    }

    /// The limit to tell, when a frame is due.
    #[must_use]
    pub const fn due(&self) -> Option<u64> {
        if self.due { self.at.checked_sub(1) } else { None }
    }

    /// The frame left.
    pub const fn on_sent(&mut self) {
        self.due = false;
    }

    /// A frame was lost, or should be repeated: due again while still blocked.
    pub const fn again(&mut self) {
        self.due = self.at != 0;
    }
}

/// What we grant.
#[derive(Clone, Copy, Debug)]
pub struct RecvCredit {
    /// The largest value told to the peer.
    limit: u64,
    window: u64,
    /// What the application took away.
    consumed: u64,
    /// When the limit was moved last.
    since: Instant,
    /// Whether the newest frame was lost.
    lost: bool,
}

impl RecvCredit {
    /// Credit of `window` bytes, told to the peer in the transport parameters.
    #[must_use]
    pub const fn new(window: u64, now: Instant) -> Self {
        Self { limit: window, window, consumed: 0, since: now, lost: false }
    }

    /// The largest value told to the peer.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// The present window.
    #[must_use]
    pub const fn window(&self) -> u64 {
        self.window
    }

    /// What was taken away so far.
    #[must_use]
    pub const fn consumed(&self) -> u64 {
        self.consumed
    }

    /// The application took `n` bytes away.
    pub const fn consume(&mut self, n: u64) {
        self.consumed += n;
    }

    /// Whether the peer should be told a larger limit: half of the window is used.
    #[must_use]
    pub const fn is_due(&self) -> bool {
        let used = self.window.saturating_sub(self.limit.saturating_sub(self.consumed));
        //= rfc9000#4.2-1
        self.lost || (used >= self.window.div_ceil(2) && self.consumed > 0)
    }

    /// The limit that a frame would carry now.
    #[must_use]
    pub fn next_limit(&self, now: Instant, rtt: Duration, window_max: u64) -> u64 {
        self.limit.max(self.consumed.saturating_add(self.next_window(now, rtt, window_max)))
    }

    /// A frame with [`Self::next_limit`] leaves; gives that value.
    pub fn advance(&mut self, now: Instant, rtt: Duration, window_max: u64) -> u64 {
        let limit = self.next_limit(now, rtt, window_max);
        if limit > self.limit {
            self.window = self.next_window(now, rtt, window_max);
            self.since = now;
        }
        (self.limit, self.lost) = (limit, false);
        limit
    }

    /// The frame was lost.
    pub const fn again(&mut self) {
        self.lost = true;
    }

    fn next_window(&self, now: Instant, rtt: Duration, window_max: u64) -> u64 {
        let half_used = self.consumed.saturating_add(self.window / 2) >= self.limit;
        let fast = self.since != Instant::ZERO && now.since(self.since) < rtt * 2;
        if half_used && fast { self.window.saturating_mul(2).min(window_max.max(self.window)) } else { self.window }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(50);

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    #[test]
    fn a_smaller_limit_is_old_news() {
        //= rfc9000#4.1-3 type=test
        let mut c = SendCredit::new(100);
        assert!(!c.raise(100) && !c.raise(50) && c.raise(101));
        assert_eq!(c.limit(), 101);
    }

    #[test]
    fn a_limit_is_reported_once_and_again_when_the_report_was_lost() {
        let mut c = SendCredit::new(10);
        c.spend(10);
        c.block();
        assert_eq!(c.blocked().due(), Some(10));
        c.blocked_mut().on_sent();
        c.block();
        assert_eq!(c.blocked().due(), None, "once for each limit");
        c.blocked_mut().again();
        assert_eq!(c.blocked().due(), Some(10));
        c.raise(20);
        c.blocked_mut().again();
        assert_eq!(c.blocked().due(), None, "what is lost is told only while it is still true");
    }

    #[test]
    fn credit_is_renewed_at_half_of_the_window() {
        //= rfc9000#4.2-1 type=test
        let mut c = RecvCredit::new(1000, at(1));
        c.consume(499);
        assert!(!c.is_due());
        c.consume(1);
        assert!(c.is_due());
        assert_eq!(c.advance(at(5000), RTT, 8000), 1500);
        assert!(!c.is_due());
        c.again();
        assert!(c.is_due());
        c.consume(1);
        assert_eq!(c.advance(at(5001), RTT, 8000), 1501, "the newest value, and no growth: nothing was used up");
    }

    #[test]
    fn the_window_grows_towards_the_product_and_not_beyond_its_maximum() {
        let mut c = RecvCredit::new(1000, at(1));
        let mut windows = Vec::new();
        for i in 0..6 {
            c.consume(c.limit() - c.consumed());
            c.advance(at(2 + i * 60), RTT, 8000);
            windows.push(c.window());
        }
        assert_eq!(windows, [2000, 4000, 8000, 8000, 8000, 8000]);
        let mut slow = RecvCredit::new(1000, at(1));
        for i in 0..6 {
            slow.consume(500);
            slow.advance(at(500 + i * 200), RTT, 8000);
        }
        assert_eq!(slow.window(), 1000);
    }

    #[test]
    fn a_window_grows_only_when_half_of_it_was_used_within_two_round_trips() {
        let after = |consumed: u64, took: Duration| {
            let mut c = RecvCredit::new(1000, at(1));
            c.consume(consumed);
            c.advance(at(1) + took, RTT, 8000);
            c.window()
        };
        let soon = RTT * 2 - Duration::from_micros(1);
        assert_eq!([499, 500, 1000].map(|n| after(n, soon)), [1000, 2000, 2000]);
        assert_eq!([500, 1000].map(|n| after(n, RTT * 2)), [1000, 1000], "two round trips are slow");
    }

    #[test]
    fn a_window_of_nothing_is_never_told_anew() {
        let mut c = RecvCredit::new(0, at(1));
        assert!(!c.is_due());
        c.again();
        assert!(c.is_due(), "unless the frame was lost");
    }

    #[test]
    fn a_window_of_one_byte_still_moves() {
        let mut c = RecvCredit::new(1, at(1));
        assert!(!c.is_due());
        c.consume(1);
        assert!(c.is_due());
        assert_eq!(c.advance(at(9999), RTT, 1), 2);
    }
}

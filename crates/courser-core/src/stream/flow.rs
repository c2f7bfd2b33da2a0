//! Credit: how many bytes or streams may go.
//!
//! [`SendCredit`] is what the peer grants us; it only grows. [`RecvCredit`] is what we grant: renewed when half of the
//! window is used, or when the window should be half as large again: it grows to what the connection receives within sixteen
//! round trips ([`Demand`]), never above its maximum, and never shrinks. A sender that doubles per round trip hears of it a
//! round trip late, and a hole in a stream holds its bytes back for another one: it takes that much for such a sender not to
//! wait for credit. Frames are never remembered, only the wish to send one: a lost one is asked for again and then carries
//! the newest value.

use core::time::Duration;

use crate::time::{Instant, micros};

/// Round trips of the present rate that a window holds once it grows.
const WINDOW_ROUND_TRIPS: u64 = 16;
/// Shorter round trips say more about timers than about a path.
const ROUND_MIN: Duration = Duration::from_millis(1);

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

/// How many bytes a connection receives per round trip, in whatever order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    /// When the present round began, and what had been received by then.
    since: Instant,
    from: u64,
    /// Bytes of the round before.
    before: u64,
}

impl Demand {
    /// Begins another round when the present one is as long as a round trip.
    pub fn on_tick(&mut self, now: Instant, rtt: Duration, received: u64) {
        let (took, rtt) = (micros(now.since(self.since)), micros(rtt.max(ROUND_MIN)));
        if took >= rtt {
            // A longer round, or a silence, counts by its rate.
            let bytes = u128::from(received - self.from) * u128::from(rtt) / u128::from(took);
            self.before = u64::try_from(bytes).unwrap_or(u64::MAX);
            (self.since, self.from) = (now, received);
        }
    }

    /// Bytes per round trip; those of the present round when they are more already.
    #[must_use]
    pub fn bytes(&self, received: u64) -> u64 {
        self.before.max(received - self.from)
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
    /// A frame is due because the newest one was lost, or because the window is far too small.
    repeat: bool,
}

impl RecvCredit {
    /// Credit of `window` bytes, told to the peer in the transport parameters.
    #[must_use]
    pub const fn new(window: u64) -> Self {
        Self { limit: window, window, consumed: 0, repeat: false }
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

    /// Has the peer told at once when the window is less than two thirds of what it should be.
    pub fn follow(&mut self, demand: u64, window_max: u64) {
        self.repeat |= is_far_beyond(wanted(demand, window_max), self.window);
    }

    /// Whether the peer should be told a larger limit: half of the window is used.
    #[must_use]
    pub const fn is_due(&self) -> bool {
        let used = self.window.saturating_sub(self.limit.saturating_sub(self.consumed));
        //= rfc9000#4.2-1
        self.repeat || (used >= self.window.div_ceil(2) && self.consumed > 0)
    }

    /// The limit that a frame would carry now. `demand` is what the connection receives per round trip.
    #[must_use]
    pub fn next_limit(&self, demand: u64, window_max: u64) -> u64 {
        self.limit.max(self.consumed.saturating_add(self.next_window(demand, window_max)))
    }

    /// A frame with [`Self::next_limit`] leaves; gives that value.
    pub fn advance(&mut self, demand: u64, window_max: u64) -> u64 {
        let limit = self.next_limit(demand, window_max);
        if limit > self.limit {
            self.window = self.next_window(demand, window_max);
        }
        (self.limit, self.repeat) = (limit, false);
        limit
    }

    /// The frame was lost.
    pub const fn again(&mut self) {
        self.repeat = true;
    }

    fn next_window(&self, demand: u64, window_max: u64) -> u64 {
        let half_used = self.consumed.saturating_add(self.window / 2) >= self.limit;
        let wanted = wanted(demand, window_max);
        if half_used || is_far_beyond(wanted, self.window) { wanted.max(self.window) } else { self.window }
    }
}

/// Whether a window should be told at once, without waiting until half of it is used: a sender that doubles per round trip
/// has used it up before it hears of one that grows no sooner.
const fn is_far_beyond(wanted: u64, window: u64) -> bool {
    wanted / 3 >= window / 2
}

/// The window that a demand asks for.
fn wanted(demand: u64, window_max: u64) -> u64 {
    demand.saturating_mul(WINDOW_ROUND_TRIPS).min(window_max)
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
        let mut c = RecvCredit::new(1000);
        c.consume(499);
        assert!(!c.is_due());
        c.consume(1);
        assert!(c.is_due());
        assert_eq!(c.advance(0, 8000), 1500);
        assert!(!c.is_due());
        c.again();
        assert!(c.is_due());
        c.consume(1);
        assert_eq!(c.advance(93, 8000), 1501, "the newest value, and no growth: nothing was used up");
    }

    #[test]
    fn the_window_grows_to_sixteen_round_trips_and_not_beyond_its_maximum() {
        let after = |consumed: u64, demand: u64| {
            let mut c = RecvCredit::new(1000);
            c.consume(consumed);
            c.advance(demand, 8000);
            c.window()
        };
        assert_eq!([0, 62, 63, 250, 500, 5000].map(|d| after(500, d)), [1000, 1000, 1008, 4000, 8000, 8000]);
        assert_eq!([93, 94, 5000].map(|d| after(499, d)), [1000, 1504, 8000], "before half of it is used only by half");
        let mut large = RecvCredit::new(9000);
        large.consume(9000);
        large.advance(9000, 8000);
        assert_eq!(large.window(), 9000, "it never shrinks");
    }

    #[test]
    fn a_sender_that_doubles_per_round_trip_never_waits_for_credit() {
        let (mut credit, mut demand) = (RecvCredit::new(20_000), Demand::default());
        let (mut received, mut flight, mut known) = (0, 1000, credit.limit());
        demand.on_tick(at(0), RTT, 0);
        for round in 0..12u64 {
            // The flight arrives in ten parts over the round; what is granted counts at the sender half a round later.
            for part in 0..10 {
                assert!(received + flight / 10 <= known, "round {round}");
                received += flight / 10;
                credit.consume(flight / 10);
                credit.follow(demand.bytes(received), 1 << 30);
                demand.on_tick(at(round * 50 + part * 5), RTT, received);
                if part == 5 {
                    known = credit.limit();
                }
                if credit.is_due() {
                    credit.advance(demand.bytes(received), 1 << 30);
                }
            }
            flight *= 2;
        }
        assert!(credit.window() <= 8 * flight, "and it ends at a few products of rate and round trip");
    }

    #[test]
    fn demand_is_what_a_round_trip_brings() {
        let mut d = Demand::default();
        d.on_tick(at(1000), RTT, 0);
        d.on_tick(at(1020), RTT, 400);
        assert_eq!(d.bytes(400), 400, "the present round");
        d.on_tick(at(1050), RTT, 1000);
        assert_eq!(d.bytes(1000), 1000);
        d.on_tick(at(1150), RTT, 1600);
        assert_eq!(d.bytes(1600), 300, "a round of twice the time counts half");
        d.on_tick(at(9150), RTT, 1600);
        assert_eq!(d.bytes(1600), 0);
    }

    #[test]
    fn a_window_of_nothing_is_never_told_anew() {
        let mut c = RecvCredit::new(0);
        assert!(!c.is_due());
        c.again();
        assert!(c.is_due(), "unless the frame was lost");
    }

    #[test]
    fn a_window_of_one_byte_still_moves() {
        let mut c = RecvCredit::new(1);
        assert!(!c.is_due());
        c.consume(1);
        assert!(c.is_due());
        assert_eq!(c.advance(0, 1), 2);
    }
}

//! Spreads packets over time: a token bucket.
//!
//! It fills with 5/4 of a window per round trip (twice a window in slow start, 21/20 where no queue is seen) and holds a
//! burst: ten datagrams, an initial window, or what two milliseconds bring. That is for who begins to speak: after slow
//! start, while as much is in flight anyway, it is three datagrams or what two milliseconds bring, for queues may be as short
//! as that (decision D97). Bytes are given out in quanta of about a millisecond, at most a whole train, so that a slow path
//! gets single packets at even distances and a fast one full trains. Timers are a millisecond coarse; because the bucket
//! holds two milliseconds, a sender that is woken a millisecond late has lost nothing, and with a round trip below a
//! millisecond the bucket holds more than the window and pacing has no effect.
//!
//! Hosts are woken later than that. Who is paced by a rate and not by a window has no other way to make up for it, so the
//! bucket remembers when it was to be asked again and holds what the time since then would have brought as well, five
//! milliseconds and a train at most (decision D147). Time in which nobody waited for the bucket brings nothing.

use core::time::Duration;

use crate::time::{Instant, micros};

/// Datagrams that may always leave at once (RFC 9002 section 7.7).
const BURST_DATAGRAMS: u64 = 10;
/// Datagrams that may leave at once while an initial window is in flight.
const BUSY_DATAGRAMS: u64 = 3;
/// The bucket holds what this time brings, in microseconds.
const BURST_US: u64 = 2000;
/// A quantum is what this time brings, in microseconds; also the shortest wait.
const QUANTUM_US: u64 = 1000;
/// A smoothed round trip that exceeds the shortest one by less than one part of so many shows no queue.
const CALM_PART: u32 = 12;
/// So much lateness is made up for, in microseconds: more than a scheduler usually takes, less than most queues hold.
const LATE_US: u64 = 5000;
/// Largest quantum: a train.
const TRAIN: u64 = 64 << 10;

/// What may always leave at once: ten datagrams, or the initial window while those are small (RFC 9002 section 7.7).
fn least_burst(mtu: u16) -> u64 {
    (BURST_DATAGRAMS * u64::from(mtu)).max(super::initial_window(mtu))
}

/// How much faster than a window per round trip who is paced by a window sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The window doubles per round trip.
    Doubling,
    /// There is a queue, or it is not known that there is none.
    Growing,
    /// Round trips are as short as they get: the window is below what the path holds, or its queue is short. Faster than
    /// the path would be a burst, which such a queue drops or marks.
    Calm,
}

impl Pace {
    /// What suits a round trip, of which `min` is the shortest.
    #[must_use]
    pub fn of(doubles: bool, smoothed: Duration, min: Duration) -> Self {
        if doubles {
            Self::Doubling
        } else if smoothed <= min + min / CALM_PART {
            Self::Calm
        } else {
            Self::Growing
        }
    }

    /// In percent.
    const fn gain(self) -> u64 {
        match self {
            Self::Doubling => 200,
            Self::Growing => 125,
            Self::Calm => 105,
        }
    }
}

/// Token bucket of one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacer {
    /// Tokens at `filled_at`, in bytes; below zero when a train was larger than the bucket.
    tokens: i64,
    /// When `tokens` was true.
    filled_at: Instant,
    /// Bytes per second.
    rate: u64,
    /// What the bucket holds.
    burst: u64,
    /// What is worth sending.
    quantum: u64,
    /// In a crowd: what is worth a turn, and then also what the bucket holds; else zero.
    bunch: u64,
    /// After slow start, paced by a window: what may leave at once counts what is in flight.
    settled: bool,
    /// When it was to be asked again: what leaves later leaves late. Zero: nobody waits for it.
    opens_at: Instant,
    /// Off: everything may leave at once.
    enabled: bool,
}

impl Pacer {
    /// A full bucket, with no rate known: [`update`](Self::update) has to follow.
    #[must_use]
    pub fn new(enabled: bool, mtu: u16, now: Instant) -> Self {
        let burst = least_burst(mtu);
        Self {
            tokens: burst as i64,
            filled_at: now,
            rate: burst,
            burst,
            quantum: u64::from(mtu),
            bunch: 0,
            settled: false,
            opens_at: Instant::ZERO,
            enabled,
        }
    }

    /// Follows the window and the round trip; called when either changed.
    //= rfc9002#7.7-1
    pub fn update(&mut self, now: Instant, window: u64, smoothed: Duration, pace: Pace, mtu: u16) {
        let per_round = window.saturating_mul(pace.gain()) / 100;
        let rate = per_round.saturating_mul(1_000_000) / micros(smoothed).max(1);
        self.set_rate(now, rate, mtu, BURST_DATAGRAMS);
        self.settled = pace != Pace::Doubling;
    }

    /// Follows a rate in bytes per second; `datagrams` may leave at once however low it is.
    pub fn set_rate(&mut self, now: Instant, rate: u64, mtu: u16, datagrams: u64) {
        self.fill(now);
        let least_burst = least_burst(mtu);
        let mtu = u64::from(mtu);
        self.rate = rate.max(mtu);
        self.settled = false;
        //= rfc9002#7.7-2, rfc9002#7.7-3
        let before = self.burst;
        let least = if datagrams < BURST_DATAGRAMS { datagrams * mtu } else { least_burst };
        self.burst = self.brings(BURST_US).max(least);
        self.quantum = self.brings(QUANTUM_US).clamp(mtu, TRAIN.max(mtu));
        // What a larger bucket holds more is in it at once: a sender whose first round trip turns out to be short was not
        // too fast until then, and is not to wait for a quantum that would have been there.
        let more = i64::try_from(self.burst.saturating_sub(before)).unwrap_or(i64::MAX);
        self.tokens = self.tokens.saturating_add(more).min(self.holds_at(now));
    }

    /// From now on it takes so many bytes to be worth a turn, and so many may leave at once; zero: as many as suit the rate.
    pub fn set_bunch(&mut self, now: Instant, bytes: u64) {
        if bytes != self.bunch {
            self.fill(now);
            self.bunch = bytes;
            self.tokens = self.tokens.min(self.holds());
        }
    }

    /// A turn begins with so much in flight. After slow start, what may leave at once is an initial window together with
    /// that: who has been sending for a while has no use for more than his rate, and acknowledgements that come late and
    /// together are no reason to fill a short queue.
    pub fn on_turn(&mut self, now: Instant, in_flight: u64, mtu: u16) {
        self.fill(now);
        self.opens_at = Instant::ZERO;
        if !self.settled {
            return;
        }
        let least = least_burst(mtu).saturating_sub(in_flight).max(BUSY_DATAGRAMS * u64::from(mtu));
        let most = least.max(self.brings(BURST_US)).max(self.bunch);
        self.tokens = self.tokens.min(i64::try_from(most).unwrap_or(i64::MAX));
    }

    /// Nobody has anything to send: from here on time is no lateness.
    pub const fn stop_waiting(&mut self) {
        self.opens_at = Instant::ZERO;
    }

    /// What the bucket holds when everybody is in time.
    fn holds(&self) -> i64 {
        i64::try_from(self.burst.max(self.bunch)).unwrap_or(i64::MAX)
    }

    /// What it holds now. A window is made up for by the acknowledgements that came meanwhile, and its sender would only
    /// send bursts; a rate is not.
    fn holds_at(&self, now: Instant) -> i64 {
        if self.settled || self.opens_at == Instant::ZERO || now <= self.opens_at {
            return self.holds();
        }
        let late = self.brings(micros(now.since(self.opens_at)).min(LATE_US)).min(TRAIN);
        self.holds().saturating_add(i64::try_from(late).unwrap_or(i64::MAX))
    }

    /// Bytes that `us` microseconds bring.
    fn brings(&self, us: u64) -> u64 {
        match self.rate.checked_mul(us) {
            Some(product) => product / 1_000_000,
            None => u64::try_from(u128::from(self.rate) * u128::from(us) / 1_000_000).unwrap_or(u64::MAX),
        }
    }

    fn tokens_at(&self, now: Instant) -> i64 {
        if now <= self.filled_at {
            // The packets of a train leave at one time.
            return self.tokens;
        }
        let brought = i64::try_from(self.brings(micros(now.since(self.filled_at)))).unwrap_or(i64::MAX);
        self.tokens.saturating_add(brought).min(self.holds_at(now))
    }

    fn fill(&mut self, now: Instant) {
        let tokens = self.tokens_at(now);
        // Time that brought less than a byte is kept for the next call, but what a full bucket cannot hold is lost.
        if tokens != self.tokens || tokens >= self.holds_at(now) {
            self.tokens = tokens;
            self.filled_at = self.filled_at.max(now);
        }
    }

    /// Bytes that may leave now: nothing, or at least a quantum.
    #[must_use]
    pub fn budget(&self, now: Instant) -> usize {
        if !self.enabled {
            return usize::MAX;
        }
        match u64::try_from(self.tokens_at(now)) {
            Ok(tokens) if tokens >= self.quantum.max(self.bunch) => usize::try_from(tokens).unwrap_or(usize::MAX),
            _ => 0,
        }
    }

    /// Bytes in flight were sent; packets that carry only ACK frames are not counted.
    //= rfc9002#7.7-4
    pub fn on_sent(&mut self, now: Instant, bytes: u64) {
        if self.enabled {
            self.fill(now);
            self.tokens = self.tokens.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX)).max(-self.holds());
        }
    }

    /// When [`budget`](Self::budget) is worth asking again: `now` when it is not empty, else at least a millisecond later.
    #[must_use]
    pub fn next(&self, now: Instant) -> Instant {
        if !self.enabled || self.budget(now) > 0 {
            return now;
        }
        let missing = i128::from(self.quantum.max(self.bunch)) - i128::from(self.tokens_at(now));
        let us = u128::try_from(missing).unwrap_or(0) * 1_000_000 / u128::from(self.rate) + 1;
        now + Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX).max(QUANTUM_US))
    }

    /// The same, for who waits until then because he has something to send.
    pub fn wait(&mut self, now: Instant) -> Instant {
        self.opens_at = self.next(now);
        self.opens_at
    }

    /// Bytes per second.
    #[must_use]
    pub const fn rate(&self) -> u64 {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MTU: u16 = 1200;

    fn pacer(window: u64, rtt_us: u64) -> Pacer {
        let mut p = Pacer::new(true, MTU, Instant::ZERO);
        p.update(Instant::ZERO, window, Duration::from_micros(rtt_us), Pace::Growing, MTU);
        p
    }

    #[test]
    fn who_has_sent_a_packet_need_not_wait_because_the_first_round_trip_was_short() {
        let mut p = Pacer::new(true, MTU, Instant::ZERO);
        p.on_sent(Instant::ZERO, u64::from(MTU));
        let now = Instant::ZERO + Duration::from_micros(300);
        p.update(now, 10 * u64::from(MTU), Duration::from_micros(300), Pace::Doubling, MTU);
        assert!(p.budget(now) >= 9 * usize::from(MTU), "{}", p.budget(now));
        assert_eq!(p.next(now), now);
        // A path that is no faster than the first guess gets no more than it had.
        let mut p = Pacer::new(true, MTU, Instant::ZERO);
        p.on_sent(Instant::ZERO, 5 * u64::from(MTU));
        p.update(Instant::ZERO, 10 * u64::from(MTU), Duration::from_millis(100), Pace::Doubling, MTU);
        assert_eq!(p.budget(Instant::ZERO), 14_720 - 5 * usize::from(MTU));
    }

    #[test]
    fn bunches_are_as_much_in_a_while_and_a_tenth_of_the_wakes() {
        // A packet a millisecond, alone or ten at once.
        let sent_and_woken = |least: u64| {
            let mut p = pacer(20 * u64::from(MTU), 25_000);
            p.set_bunch(Instant::ZERO, least);
            let (mut now, mut sent, mut wakes) = (Instant::ZERO, 0, 0);
            while now.as_micros() < 1_000_000 {
                let n = p.budget(now) as u64 / u64::from(MTU) * u64::from(MTU);
                assert!(n == 0 || n >= least, "{n} bytes are no bunch");
                p.on_sent(now, n);
                (sent, wakes) = (sent + n, wakes + 1);
                now = p.next(now);
            }
            (sent, wakes)
        };
        let ((one, often), (ten, seldom)) = (sent_and_woken(0), sent_and_woken(10 * u64::from(MTU)));
        assert!(one.abs_diff(ten) * 50 < one, "{one} and {ten} bytes");
        assert!(often > 900 && seldom < 120, "{often} and {seldom} wakes");
        // The bucket holds a bunch, however large.
        let (forty, rarely) = sent_and_woken(40 * u64::from(MTU));
        assert!(one.abs_diff(forty) * 20 < one && rarely < 30, "{forty} bytes, {rarely} wakes");
    }

    #[test]
    fn who_has_been_sending_for_a_while_sends_no_burst_and_who_begins_does() {
        //= rfc9002#7.7-3 type=test
        let window = 60_000;
        let mut p = pacer(window, 40_000);
        let later = Instant::from_micros(1_000_000);
        p.on_turn(later, 0, MTU);
        assert_eq!(p.budget(later), 14_720, "nothing is in flight");
        p.on_turn(later, 9_000, MTU);
        assert_eq!(p.budget(later), 5_720, "an initial window together with what is in flight");
        p.on_turn(later, window, MTU);
        assert_eq!(p.budget(later), 3_750, "what two milliseconds bring");
        p.on_sent(later, 3_750);
        assert_eq!(p.budget(p.next(later)), 1_876, "and no more than the rate from then on");
        // A round trip later everything has arrived, and whoever begins again finds a full bucket.
        let again = later + Duration::from_millis(40);
        p.on_turn(again, 0, MTU);
        assert_eq!(p.budget(again), 14_720);
    }

    #[test]
    fn slow_start_and_rates_of_a_model_keep_their_bursts() {
        let mut p = Pacer::new(true, MTU, Instant::ZERO);
        p.update(Instant::ZERO, 30_000, Duration::from_millis(40), Pace::Doubling, MTU);
        p.on_turn(Instant::ZERO, 30_000, MTU);
        assert_eq!(p.budget(Instant::ZERO), 14_720);
        p.update(Instant::ZERO, 30_000, Duration::from_millis(40), Pace::Growing, MTU);
        p.set_rate(Instant::ZERO, 1_000_000, MTU, 10);
        p.on_turn(Instant::ZERO, 30_000, MTU);
        assert_eq!(p.budget(Instant::ZERO), 14_720);
    }

    #[test]
    fn what_a_bunch_saved_up_is_gone_with_it() {
        let mut p = pacer(40 * u64::from(MTU), 100_000);
        p.set_bunch(Instant::ZERO, 40 * u64::from(MTU));
        let later = Instant::from_micros(1_000_000);
        assert_eq!(p.budget(later), 40 * usize::from(MTU));
        p.set_bunch(later, 0);
        assert_eq!(p.budget(later), 14_720, "who is not in a crowd any more sends what may always leave");
    }

    /// Sends whenever the pacer lets it, in packets of one MTU, woken `late` microseconds after the time it asked for.
    /// Returns the bytes of `us` microseconds and the number of wake-ups.
    fn run(p: &mut Pacer, us: u64, late: u64) -> (u64, u64) {
        let (mut now, mut sent, mut wakes) = (Instant::ZERO, 0, 0);
        while now.as_micros() < us {
            wakes += 1;
            let n = p.budget(now) as u64 / u64::from(MTU) * u64::from(MTU);
            p.on_sent(now, n);
            sent += n;
            let next = p.next(now);
            assert!(next > now, "the bucket is empty now");
            now = next + Duration::from_micros(late);
        }
        (sent, wakes)
    }

    #[test]
    fn the_rate_is_five_quarters_of_the_window_per_round_trip() {
        //= rfc9002#7.7-1 type=test
        let mut p = pacer(100_000, 50_000);
        assert_eq!(p.rate(), 2_500_000);
        let (sent, _) = run(&mut p, 10_000_000, 0);
        assert!(sent.abs_diff(25_000_000) < 25_000_000 / 20, "{sent}");
        p.update(Instant::ZERO, 100_000, Duration::from_millis(50), Pace::Doubling, MTU);
        assert_eq!(p.rate(), 4_000_000);
    }

    #[test]
    fn a_burst_is_an_initial_window_on_a_slow_path() {
        //= rfc9002#7.7-3 type=test
        let p = pacer(12_000, 100_000);
        assert_eq!(p.budget(Instant::ZERO), 14_720);
        assert_eq!(p.budget(Instant::from_micros(60_000_000)), 14_720);
    }

    #[test]
    fn a_full_bucket_gives_one_burst_and_not_what_waiting_would_have_brought_besides() {
        //= rfc9002#7.7-3 type=test
        let mut p = pacer(100_000, 50_000);
        let now = Instant::from_micros(60_000_000);
        assert_eq!(p.budget(now), 14_720);
        p.on_sent(now, 14_720);
        assert_eq!(p.budget(now), 0);
        assert!(p.next(now) > now);
    }

    /// A sender with a rate who is woken `late` microseconds after the time he asked for. Returns what he sent in a second,
    /// and the most at once.
    fn run_by_rate(rate: u64, late: u64) -> (u64, u64) {
        let mut p = Pacer::new(true, MTU, Instant::ZERO);
        p.set_rate(Instant::ZERO, rate, MTU, 3);
        let (mut now, mut sent, mut most) = (Instant::ZERO, 0, 0);
        while now.as_micros() < 1_000_000 {
            // As a connection does: acknowledgements come first.
            p.set_rate(now, rate, MTU, 3);
            p.on_turn(now, 1_000_000, MTU);
            let n = p.budget(now) as u64 / u64::from(MTU) * u64::from(MTU);
            p.on_sent(now, n);
            (sent, most) = (sent + n, most.max(n));
            now = p.wait(now) + Duration::from_micros(late);
        }
        (sent, most)
    }

    #[test]
    fn who_is_paced_by_a_rate_loses_none_of_it_when_he_is_woken_some_milliseconds_late() {
        for rate in [250_000, 2_500_000, 12_500_000] {
            for late in [0, 500, 2000, 4000, 5000] {
                let (sent, most) = run_by_rate(rate, late);
                assert!(sent.abs_diff(rate) <= rate / 50 + 14_720, "{sent} of {rate}, {late} us late");
                let allowed = rate * (2000 + late) / 1_000_000;
                assert!(most <= allowed.max(3 * 1200 + rate * late / 1_000_000).max(14_720), "{most} at once");
            }
        }
    }

    #[test]
    fn what_lateness_beyond_some_milliseconds_costs_is_lost_and_a_train_is_the_most_at_once() {
        //= rfc9002#7.7-3 type=test
        let (sent, most) = run_by_rate(2_500_000, 100_000);
        assert!(most <= 2_500_000 / 1000 * 7 && sent < 300_000, "{most} at once, {sent} in all");
        let (_, most) = run_by_rate(1 << 30, 5000);
        assert!(most <= (1 << 30) / 500 + TRAIN, "{most} at once");
    }

    #[test]
    fn time_in_which_nobody_waits_is_no_lateness() {
        let begin = |waits: bool| {
            let mut p = Pacer::new(true, MTU, Instant::ZERO);
            p.set_rate(Instant::ZERO, 2_500_000, MTU, 3);
            p.on_turn(Instant::ZERO, 0, MTU);
            p.on_sent(Instant::ZERO, p.budget(Instant::ZERO) as u64);
            let at = p.wait(Instant::ZERO);
            if !waits {
                p.stop_waiting();
            }
            let later = at + Duration::from_secs(1);
            p.on_turn(later, 0, MTU);
            p.budget(later)
        };
        assert_eq!((begin(true), begin(false)), (17_500, 5000), "seven milliseconds, and two");
    }

    #[test]
    fn who_is_paced_by_a_window_sends_no_burst_however_late_he_is() {
        let mut p = pacer(100_000, 50_000);
        p.on_turn(Instant::ZERO, 100_000, MTU);
        p.on_sent(Instant::ZERO, 5000);
        let later = p.wait(Instant::ZERO) + Duration::from_millis(5);
        p.update(later, 100_000, Duration::from_millis(50), Pace::Growing, MTU);
        p.on_turn(later, 100_000, MTU);
        assert_eq!(p.budget(later), 5000, "what two milliseconds bring");
    }

    #[test]
    fn where_no_queue_is_seen_a_window_is_paced_hardly_faster_than_itself() {
        let ms = Duration::from_millis;
        assert_eq!(Pace::of(false, ms(43), ms(40)), Pace::Calm);
        assert_eq!(Pace::of(false, ms(44), ms(40)), Pace::Growing);
        assert_eq!(Pace::of(true, ms(40), ms(40)), Pace::Doubling);
        let mut p = pacer(100_000, 50_000);
        p.update(Instant::ZERO, 100_000, ms(50), Pace::Calm, MTU);
        assert_eq!(p.rate(), 2_100_000);
    }

    #[test]
    fn late_timers_cost_no_rate() {
        for (window, rtt) in [(12_000, 30_000), (100_000, 10_000), (1_000_000, 10_000), (10_000_000, 5000)] {
            let mut p = pacer(window, rtt);
            let expected = window * 5 / 4 * 1_000_000 / rtt;
            let (sent, wakes) = run(&mut p, 1_000_000, 500);
            assert!(sent >= expected / 100 * 95, "{sent} of {expected}");
            assert!(wakes <= 1000, "{wakes} wake-ups a second");
        }
    }

    #[test]
    fn a_tiny_round_trip_is_never_held_back() {
        for rtt in [20, 100, 500, 999] {
            let window = 300_000;
            let mut p = pacer(window, rtt);
            // The bucket of a new path fills while the handshake runs.
            let mut now = Instant::from_micros(BURST_US);
            for _ in 0..1000 {
                // A whole window each round trip.
                assert!(p.budget(now) as u64 >= window, "round trip of {rtt} us");
                p.on_sent(now, window);
                now += Duration::from_micros(rtt);
            }
        }
    }

    #[test]
    fn off_means_off() {
        let mut p = Pacer::new(false, MTU, Instant::ZERO);
        p.on_sent(Instant::ZERO, 1 << 40);
        assert_eq!((p.budget(Instant::ZERO), p.next(Instant::ZERO)), (usize::MAX, Instant::ZERO));
    }

    #[test]
    fn a_slow_path_gets_even_distances() {
        // 20 Mbit/s: two packets per millisecond.
        let mut p = pacer(100_000, 50_000);
        p.on_sent(Instant::ZERO, 14_720);
        let first = p.next(Instant::ZERO);
        assert_eq!(first.as_micros(), 1001);
        assert!((2500..2600).contains(&p.budget(first)));
    }

    proptest! {
        /// Whatever comes when, lateness brings no more than the rate did.
        #[test]
        fn never_more_than_burst_and_rate_and_what_lateness_cost(
            rate in 1200u64..1_000_000_000,
            steps in prop::collection::vec((0u64..20_000, 0u64..200_000, any::<bool>()), 1..60),
        ) {
            let mut p = Pacer::new(true, MTU, Instant::ZERO);
            p.set_rate(Instant::ZERO, rate, MTU, 3);
            let (mut now, mut sent) = (Instant::ZERO, 0u64);
            for (us, wanted, waits) in steps {
                now += Duration::from_micros(us);
                p.on_turn(now, sent, MTU);
                let budget = p.budget(now) as u64;
                prop_assert!(budget <= p.burst + TRAIN.min(rate / 200));
                let n = wanted.min(budget);
                p.on_sent(now, n);
                sent += n;
                let allowed = 14_720 + u128::from(p.burst) + u128::from(rate) * u128::from(now.as_micros()) / 1_000_000;
                prop_assert!(u128::from(sent) <= allowed);
                if waits {
                    p.wait(now);
                } else {
                    p.stop_waiting();
                }
            }
        }

        #[test]
        fn never_more_than_burst_and_rate(
            window in 2400u64..100_000_000, rtt in 1u64..2_000_000,
            steps in prop::collection::vec((0u64..20_000, 0u64..200_000), 1..60),
        ) {
            let mut p = pacer(window, rtt);
            let (mut now, mut sent) = (Instant::ZERO, 0u64);
            for (us, wanted) in steps {
                now += Duration::from_micros(us);
                let n = wanted.min(p.budget(now) as u64);
                p.on_sent(now, n);
                sent += n;
                let allowed = p.burst as u128 + u128::from(p.rate) * u128::from(now.as_micros()) / 1_000_000;
                prop_assert!(u128::from(sent) <= allowed);
                let next = p.next(now);
                prop_assert!(p.budget(next) > 0 || next.as_micros() > now.as_micros());
                prop_assert!(p.budget(next) > 0);
            }
        }
    }
}

//! Curves against their closed forms, reductions, undo, and the bookkeeping that all controllers share.

use core::time::Duration;

use super::*;

const MTU: u16 = 1200;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn at(n: u64) -> Instant {
    Instant::from_micros(n * 1000)
}

fn rtt(latest: Duration) -> RttSnapshot {
    RttSnapshot { latest, fresh: true, smoothed: latest, min: latest }
}

fn loss(bytes: u64, sent: Instant, persistent: bool) -> LossSample {
    LossSample { bytes, sent, ranges: 1, persistent }
}

/// A sender with endless data over a path that carries everything: each round trip sends a window and has it acknowledged
/// in `acks` equal parts.
struct Path {
    cc: Congestion,
    now: Instant,
    rtt: Duration,
}

impl Path {
    fn new(choice: Choice, rtt: Duration) -> Self {
        Self { cc: Congestion::new(choice, MTU, Instant::ZERO), now: at(1), rtt }
    }

    fn round(&mut self) {
        self.round_after(self.rtt);
    }

    /// The shortest round trip was `min`.
    fn round_after(&mut self, min: Duration) {
        let acks = 20;
        let sent = self.now;
        let window = self.cc.room();
        self.cc.on_sent(sent, window);
        for i in 1..=acks {
            let bytes = window * i / acks - window * (i - 1) / acks;
            let now = sent + self.rtt + self.rtt * u32::try_from(i).unwrap() / 40;
            self.cc.on_acked(now, &AckSample { bytes, sent, rtt: RttSnapshot { min, ..rtt(self.rtt) } });
            self.now = now;
        }
        self.now = sent + self.rtt + self.rtt / 2;
    }

    fn lose_one(&mut self) {
        self.cc.on_sent(self.now, u64::from(MTU));
        let sent = self.now;
        self.now += self.rtt;
        self.cc.on_lost(self.now, &loss(u64::from(MTU), sent, false));
        self.now += ms(1);
    }
}

#[test]
fn the_initial_window_follows_the_table() {
    //= rfc9002#7.2-4 type=test
    for (mtu, initial, min) in
        [(1200, 14_720, 2400), (1472, 14_720, 2944), (1500, 14_720, 3000), (9000, 18_000, 18_000)]
    {
        assert_eq!((initial_window(mtu), min_window(mtu)), (initial, min));
        for choice in [Choice::Cubic, Choice::NewReno] {
            assert_eq!(Congestion::new(choice, mtu, at(0)).window(), initial);
        }
    }
}

#[test]
fn slow_start_doubles_per_round() {
    for choice in [Choice::Cubic, Choice::NewReno] {
        let mut p = Path::new(choice, ms(50));
        for n in 1..8 {
            p.round();
            assert_eq!(p.cc.window(), INITIAL_WINDOW << n);
        }
        assert!(p.cc.in_slow_start() && p.cc.ssthresh().is_none());
    }
}

#[test]
fn reno_halves_and_then_grows_one_datagram_per_round() {
    //= rfc9002#7.3.2-1, rfc9002#7.3.2-2, rfc9002#7.3.3-1 type=test
    let mut p = Path::new(Choice::NewReno, ms(50));
    (0..5).for_each(|_| p.round());
    let before = p.cc.window();
    p.lose_one();
    assert_eq!((p.cc.window(), p.cc.ssthresh()), (before / 2, Some(before / 2)));
    for _ in 0..100 {
        let window = p.cc.window();
        p.round();
        assert!(p.cc.window() - window <= u64::from(MTU));
    }
    let expected = before / 2 + 100 * u64::from(MTU);
    assert!(p.cc.window().abs_diff(expected) <= expected / 20, "{} of {expected}", p.cc.window());
}

#[test]
fn cubic_follows_its_closed_form() {
    //= rfc9002#7-1 type=test
    //= rfc9438#4.4-1, rfc9438#4.5-1, rfc9438#4.6-1, rfc9438#4.6-2 type=test
    let mut p = Path::new(Choice::Cubic, ms(100));
    (0..7).for_each(|_| p.round());
    let w_max = p.cc.window() as f64 / f64::from(MTU);
    p.lose_one();
    assert!((p.cc.window() as f64 / f64::from(MTU) - 0.7 * w_max).abs() < 0.01);
    let k = (w_max * 0.3 / 0.4).cbrt();
    // The epoch starts with the first acknowledgement after the reduction.
    let start = p.now + p.rtt;
    let mut both_sides = (false, false);
    for _ in 0..120 {
        p.round();
        let t = (p.now - start).as_secs_f64();
        let expected = 0.4 * (t - k).powi(3) + w_max;
        let window = p.cc.window() as f64 / f64::from(MTU);
        assert!((window - expected).abs() <= 0.05 * expected, "after {t} s: {window} instead of {expected}");
        both_sides = (both_sides.0 || t < k, both_sides.1 || t > 1.5 * k);
    }
    assert_eq!(both_sides, (true, true));
}

#[test]
fn cubic_is_no_slower_than_reno_on_short_round_trips() {
    //= rfc9438#4.3-1, rfc9438#4.3-2 type=test
    let mut p = Path::new(Choice::Cubic, ms(2));
    (0..3).for_each(|_| p.round());
    let prior = p.cc.window() as f64;
    p.lose_one();
    // The Reno estimate grows by 0.53 datagrams per round until it is back, then by one.
    let alpha = 3.0 * 0.3 / 1.7;
    let rounds = (0.3 * prior / f64::from(MTU) / alpha).ceil();
    (0..rounds as u32).for_each(|_| p.round());
    assert!((p.cc.window() as f64 - prior).abs() < 0.05 * prior, "{} of {prior}", p.cc.window());
    let window = p.cc.window() as f64;
    (0..40).for_each(|_| p.round());
    let grown = (p.cc.window() as f64 - window) / f64::from(MTU);
    assert!((38.0..=42.0).contains(&grown), "{grown} datagrams in 40 rounds");
}

#[test]
fn cubic_converges_faster_when_the_window_was_not_regained() {
    //= rfc9438#4.7-1 type=test
    let mut p = Path::new(Choice::Cubic, ms(100));
    (0..6).for_each(|_| p.round());
    p.lose_one();
    p.round();
    let before = p.cc.window() as f64;
    p.lose_one();
    // The plateau is now at 0.85 of the window before, not at the window itself.
    let plateau = before * 0.85;
    let k = ((plateau - 0.7 * before) / (0.4 * f64::from(MTU))).cbrt();
    let start = p.now + p.rtt;
    while (p.now - start).as_secs_f64() < k {
        p.round();
    }
    assert!((p.cc.window() as f64 - plateau).abs() < 0.03 * plateau);
}

#[test]
fn one_reduction_per_round_trip() {
    //= rfc9002#7.3.1-1 type=test
    for choice in [Choice::Cubic, Choice::NewReno] {
        let mut cc = Congestion::new(choice, MTU, at(0));
        cc.on_sent(at(10), 12_000);
        cc.on_lost(at(60), &loss(1200, at(10), false));
        let once = cc.window();
        assert!(once < INITIAL_WINDOW && !cc.in_slow_start());
        cc.on_lost(at(61), &loss(1200, at(10), false));
        cc.on_ecn_ce(at(62), at(10), at(10));
        assert_eq!(cc.window(), once);
        // Nothing that was sent before the event opens the window.
        cc.on_acked(at(63), &AckSample { bytes: 2400, sent: at(10), rtt: rtt(ms(50)) });
        assert_eq!(cc.window(), once);
        cc.on_sent(at(64), 1200);
        cc.on_ecn_ce(at(120), at(64), at(64));
        assert!(cc.window() < once);
    }
}

#[test]
fn an_acknowledgement_of_packets_from_both_sides_of_a_reduction_reduces_no_more() {
    //= rfc9002#7.3.1-1 type=test
    for choice in [Choice::Cubic, Choice::NewReno] {
        let mut cc = Congestion::new(choice, MTU, at(0));
        cc.on_sent(at(10), 9_600);
        cc.on_ecn_ce(at(60), at(10), at(10));
        let once = cc.window();
        cc.on_sent(at(65), 1200);
        // The marks may all be those of the old packets.
        cc.on_ecn_ce(at(115), at(65), at(10));
        assert_eq!(cc.window(), once);
        cc.on_ecn_ce(at(116), at(65), at(65));
        assert!(cc.window() < once);
    }
}

#[test]
fn congestion_of_the_opening_ends_slow_start_until_quiet_rounds_show_room() {
    //= rfc9002#7.3.1-1 type=test
    let opened = |marked: bool| {
        let mut p = Path::new(Choice::Cubic, ms(50));
        p.cc.on_sent(p.now, INITIAL_WINDOW);
        let sent = p.now;
        p.now += p.rtt;
        if marked {
            p.cc.on_ecn_ce(p.now, sent, sent);
        } else {
            p.cc.on_lost(p.now, &loss(2 * u64::from(MTU), sent, false));
        }
        p.cc.on_acked(p.now, &AckSample { bytes: INITIAL_WINDOW - 2 * u64::from(MTU), sent, rtt: rtt(p.rtt) });
        p.cc.on_discarded(p.cc.in_flight());
        p.now += ms(1);
        p
    };
    for (marked, left) in [(true, 0.85), (false, 0.7)] {
        let mut p = opened(marked);
        let reduced = (INITIAL_WINDOW as f64 * left) as u64;
        assert_eq!((p.cc.window(), p.cc.in_slow_start()), (reduced, false));
        p.round();
        assert!(!p.cc.in_slow_start() && p.cc.window() < reduced + 2 * u64::from(MTU));
        (0..2).for_each(|_| p.round());
        assert!(p.cc.in_slow_start() && !p.cc.doubles());
        for _ in 0..8 {
            let before = p.cc.window();
            p.round();
            let growth = p.cc.window() as f64 / before as f64;
            assert!((1.2..=1.26).contains(&growth), "{growth} per round");
        }
        // The next congestion is not the opening's: slow start is over for good.
        p.lose_one();
        (0..6).for_each(|_| p.round());
        assert!(!p.cc.in_slow_start());
    }
    // A queue that stands ends it as well, without a loss.
    let mut p = opened(false);
    (0..4).for_each(|_| p.round());
    assert!(p.cc.in_slow_start());
    let empty = p.rtt;
    for _ in 0..3 {
        p.rtt = empty + ms(10);
        p.round_after(empty);
    }
    assert!(!p.cc.in_slow_start());
}

#[test]
fn congestion_after_the_opening_ends_slow_start_for_good() {
    let mut p = Path::new(Choice::Cubic, ms(50));
    (0..2).for_each(|_| p.round());
    p.lose_one();
    (0..6).for_each(|_| p.round());
    assert!(!p.cc.in_slow_start());
}

#[test]
fn the_window_never_falls_below_two_datagrams() {
    //= rfc9002#7.2-4 type=test
    for choice in [Choice::Cubic, Choice::NewReno] {
        let mut p = Path::new(choice, ms(10));
        (0..30).for_each(|_| p.lose_one());
        assert_eq!(p.cc.window(), 2400);
    }
}

#[test]
fn persistent_congestion_leads_to_the_smallest_window() {
    //= rfc9002#7.6.2-4, rfc9438#4.8-1 type=test
    for choice in [Choice::Cubic, Choice::NewReno] {
        let mut p = Path::new(choice, ms(50));
        (0..4).for_each(|_| p.round());
        let before = p.cc.window();
        p.cc.on_sent(p.now, 12_000);
        p.cc.on_lost(p.now + ms(500), &loss(12_000, p.now, true));
        assert_eq!(p.cc.window(), 2400);
        assert!(p.cc.in_slow_start(), "back to the threshold by slow start");
        let threshold = p.cc.ssthresh().unwrap();
        assert!(threshold < before);
        p.now += ms(600);
        (0..20).for_each(|_| p.round());
        assert!(p.cc.window() >= threshold);
    }
}

#[test]
fn a_false_loss_is_undone() {
    //= rfc9438#4.9.2-1 type=test
    for choice in [Choice::Cubic, Choice::NewReno] {
        let mut p = Path::new(choice, ms(50));
        (0..4).for_each(|_| p.round());
        let before = (p.cc.window(), p.cc.ssthresh());
        let sent = p.now;
        p.cc.on_sent(sent, 12_000);
        p.cc.on_lost(sent + ms(50), &loss(2400, sent, false));
        p.cc.on_lost(sent + ms(51), &loss(1200, sent, false));
        assert!(p.cc.window() < before.0);
        p.cc.on_spurious(2400, sent);
        assert!(p.cc.window() < before.0, "one loss may still be true");
        p.cc.on_spurious(1200, sent);
        assert_eq!((p.cc.window(), p.cc.ssthresh()), before);
        // Once only, and packets of that flight may open the window again.
        p.cc.on_spurious(1200, sent);
        assert_eq!(p.cc.window(), before.0);
        p.cc.on_acked(sent + ms(60), &AckSample { bytes: 8400, sent, rtt: rtt(ms(50)) });
        assert!(p.cc.window() > before.0);
    }
}

#[test]
fn what_is_not_false_is_not_undone() {
    for choice in [Choice::Cubic, Choice::NewReno] {
        let mut p = Path::new(choice, ms(50));
        (0..4).for_each(|_| p.round());
        let sent = p.now;
        p.cc.on_sent(sent, 12_000);
        p.cc.on_lost(sent + ms(50), &loss(1200, sent, false));
        let reduced = p.cc.window();
        // A mark in the same period is no error of ours.
        p.cc.on_ecn_ce(sent + ms(51), sent, sent);
        p.cc.on_spurious(1200, sent);
        assert_eq!(p.cc.window(), reduced);
        // A packet of an earlier period says nothing about this one.
        let later = sent + ms(100);
        p.cc.on_sent(later, 1200);
        p.cc.on_lost(later + ms(50), &loss(1200, later, false));
        let reduced = p.cc.window();
        p.cc.on_spurious(1200, sent);
        assert_eq!(p.cc.window(), reduced);
    }
}

#[test]
fn an_unused_window_does_not_grow() {
    //= rfc9002#7.8-1, rfc9438#4.6-3, rfc9438#4.6-4 type=test
    for choice in [Choice::Cubic, Choice::NewReno] {
        let mut p = Path::new(choice, ms(50));
        (0..3).for_each(|_| p.round());
        // The next rounds send a tenth of the window each.
        let send = p.cc.window() / 10;
        let mut windows = Vec::new();
        for _ in 0..50 {
            p.cc.on_sent(p.now, send);
            let sent = p.now;
            p.now += ms(50);
            p.cc.on_acked(p.now, &AckSample { bytes: send, sent, rtt: rtt(ms(50)) });
            p.now += ms(1);
            windows.push(p.cc.window());
        }
        assert!(windows[2..].iter().all(|w| *w == windows[2]));
    }
}

#[test]
fn pacing_does_not_look_like_an_idle_application() {
    //= rfc9002#7.8-2 type=test
    // The window is filled only towards the end of each round; the first acknowledgements of the next round come while
    // less than half of it is in flight.
    let mut cc = Congestion::new(Choice::NewReno, MTU, at(0));
    cc.on_sent(at(1), INITIAL_WINDOW / 2);
    cc.on_sent(at(25), INITIAL_WINDOW / 2);
    let ack = |sent| AckSample { bytes: INITIAL_WINDOW / 2, sent, rtt: rtt(ms(50)) };
    cc.on_acked(at(51), &ack(at(1)));
    cc.on_acked(at(75), &ack(at(25)));
    assert_eq!(cc.window(), 2 * INITIAL_WINDOW);
}

#[test]
fn time_without_use_does_not_move_the_curve() {
    //= rfc9438#4.2-1 type=test
    let mut p = Path::new(Choice::Cubic, ms(100));
    (0..6).for_each(|_| p.round());
    p.lose_one();
    (0..5).for_each(|_| p.round());
    let mut other = Path { cc: p.cc.clone(), ..p };
    other.now += ms(900);
    p.round();
    other.round();
    let (a, b) = (p.cc.window(), other.cc.window());
    assert!(a.abs_diff(b) <= a / 100, "{a} and {b}");
    // An application that trickles for ten seconds is the same.
    let before = other.cc.window();
    for _ in 0..100 {
        other.cc.on_sent(other.now, 1200);
        let sent = other.now;
        other.now += ms(100);
        other.cc.on_acked(other.now, &AckSample { bytes: 1200, sent, rtt: rtt(ms(100)) });
    }
    let trickled = other.cc.window();
    other.round();
    other.round();
    assert!(trickled - before <= before / 10, "{before} {trickled}");
    assert!(other.cc.window() < before + before / 4, "{before} {}", other.cc.window());
}

#[test]
fn a_long_idle_path_starts_again_gently() {
    for choice in [Choice::Cubic, Choice::NewReno] {
        let mut p = Path::new(choice, ms(50));
        (0..6).for_each(|_| p.round());
        p.lose_one();
        let before = p.cc.window();
        let mut short = p.cc.clone();
        short.on_sent(p.now + ms(900), 1200);
        assert_eq!(short.window(), before);
        p.cc.on_sent(p.now + ms(2100), 1200);
        assert_eq!(p.cc.window(), before / 4);
        assert!(p.cc.in_slow_start() && p.cc.ssthresh().unwrap() >= before / 4 * 3);
        let mut long = short.clone();
        long.on_discarded(1200);
        long.on_sent(p.now + ms(3_600_000), 1200);
        assert_eq!(long.window(), INITIAL_WINDOW);
    }
}

#[test]
fn bytes_in_flight_are_counted() {
    //= rfc9002#7-2, rfc9002#7.5-2 type=test
    let mut cc = Congestion::new(Choice::Cubic, MTU, at(0));
    cc.on_sent(at(1), 11_000);
    assert_eq!((cc.in_flight(), cc.room()), (11_000, INITIAL_WINDOW - 11_000));
    // A probe is sent beyond the window and counted.
    cc.on_sent(at(2), 4000);
    assert_eq!((cc.in_flight(), cc.room()), (15_000, 0));
    cc.on_discarded(5000);
    assert_eq!((cc.in_flight(), cc.room()), (10_000, INITIAL_WINDOW - 10_000));
}

#[test]
fn what_is_acknowledged_of_a_handshake_opens_the_window_and_little_data_does_not() {
    //= rfc9002#7.8-1 type=test
    for choice in [Choice::Cubic, Choice::NewReno] {
        let mut cc = Congestion::new(choice, MTU, at(0));
        let sample = |sent| AckSample { bytes: 2400, sent, rtt: rtt(ms(50)) };
        cc.on_sent(at(0), 2400);
        cc.on_handshake_acked(at(50), &sample(at(0)));
        assert_eq!(cc.window(), INITIAL_WINDOW + 2400);
        cc.on_sent(at(60), 2400);
        cc.on_acked(at(110), &sample(at(60)));
        assert_eq!(cc.window(), INITIAL_WINDOW + 2400, "the application is what limits");
        // After a loss a handshake is congestion avoidance as well.
        cc.on_sent(at(120), 3600);
        cc.on_lost(at(170), &loss(1200, at(120), false));
        let reduced = cc.window();
        cc.on_handshake_acked(at(171), &sample(at(120)));
        assert_eq!(cc.window(), reduced);
    }
}

#[test]
fn a_smaller_datagram_size_changes_a_window_that_nobody_touched() {
    //= rfc9002#7.2-2, rfc9002#7.2-3 type=test
    for choice in [Choice::Cubic, Choice::NewReno] {
        let mut cc = Congestion::new(choice, 9000, at(0));
        assert_eq!(cc.window(), 18_000);
        cc.set_mtu(1200);
        assert_eq!(cc.window(), INITIAL_WINDOW);
        let mut p = Path::new(choice, ms(50));
        p.round();
        p.cc.set_mtu(1200);
        assert_eq!(p.cc.window(), 2 * INITIAL_WINDOW);
    }
}

#[test]
fn a_larger_datagram_size_opens_no_window() {
    //= rfc8899#3-14 type=test
    for choice in [Choice::Cubic, Choice::NewReno] {
        let mut cc = Congestion::new(choice, 1200, at(0));
        cc.set_mtu(9000);
        assert_eq!(cc.window(), INITIAL_WINDOW, "not one that nobody touched");
        let mut p = Path::new(choice, ms(50));
        p.round();
        p.cc.set_mtu(1452);
        assert_eq!(p.cc.window(), 2 * INITIAL_WINDOW, "not one that grew");
        (0..20).for_each(|_| p.lose_one());
        assert_eq!(p.cc.window(), 2904);
        p.cc.set_mtu(9000);
        assert_eq!(p.cc.window(), 2904, "not the smallest one");
        (0..20).for_each(|_| p.lose_one());
        assert_eq!(p.cc.window(), 18_000, "two datagrams are the floor of later reductions");
    }
}

#[test]
fn cubic_leaves_slow_start_when_the_queue_grows() {
    //= rfc9438#4.10-2 type=test
    let mut p = Path::new(Choice::Cubic, ms(100));
    (0..5).for_each(|_| p.round());
    let mut rounds = 0;
    while p.cc.in_slow_start() {
        // The queue adds 15 ms each round.
        p.rtt += ms(15);
        p.round();
        rounds += 1;
        assert!(rounds < 10);
    }
    // The round that detects is the first in CSS; the second shows that the queue stands, and ends with the first
    // acknowledgement after it.
    assert_eq!(rounds, 3);
    assert!(p.cc.window() < (INITIAL_WINDOW << 5) * 4);
    // The acknowledgements after the one that ended slow start grew the window a little.
    let window = p.cc.window();
    let threshold = p.cc.ssthresh().unwrap();
    assert!(threshold <= window && window - threshold < window / 50);
    // Without a loss the curve starts flat: no drop, no jump.
    p.round();
    assert!(p.cc.window() >= window && p.cc.window() < window + window / 20);
}

#[test]
fn a_queue_that_is_deep_and_never_overflows_is_not_filled() {
    // Round trips of 40 ms and what waits in the queue of 10 Mbit/s, which holds everything.
    let mut p = Path::new(Choice::Cubic, ms(40));
    let queue = |window: u64| Duration::from_micros(window * 8 / 10).max(ms(40));
    while p.now < at(60_000) {
        p.rtt = queue(p.cc.window());
        let window = p.cc.room();
        let sent = p.now;
        p.cc.on_sent(sent, window);
        let snapshot = RttSnapshot { latest: p.rtt, fresh: true, smoothed: p.rtt, min: ms(40) };
        for i in 0..20 {
            let bytes = window * (i + 1) / 20 - window * i / 20;
            p.now = sent + p.rtt;
            p.cc.on_acked(p.now, &AckSample { bytes, sent, rtt: snapshot });
        }
    }
    let rests = p.cc.window();
    assert!((7 * 50_000..7 * 55_000).contains(&rests), "seven times what the link holds: {rests}");
    // A loss ends that: somebody else may be filling the queue.
    p.lose_one();
    let reduced = p.cc.window();
    let end = p.now + ms(30_000);
    while p.now < end {
        let window = p.cc.room();
        let sent = p.now;
        p.cc.on_sent(sent, window);
        p.now = sent + queue(p.cc.window());
        let rtt = p.now - sent;
        let snapshot = RttSnapshot { latest: rtt, fresh: true, smoothed: rtt, min: ms(40) };
        p.cc.on_acked(p.now, &AckSample { bytes: window, sent, rtt: snapshot });
    }
    assert!(reduced < rests && p.cc.window() > rests, "{rests}, {reduced}, then {}", p.cc.window());
}

#[test]
fn later_slow_starts_do_without_hystart() {
    //= rfc9406#4.3-5 type=test
    let mut p = Path::new(Choice::Cubic, ms(50));
    (0..6).for_each(|_| p.round());
    p.cc.on_sent(p.now, 12_000);
    p.cc.on_lost(p.now + ms(500), &loss(12_000, p.now, true));
    p.now += ms(600);
    let mut window = p.cc.window();
    while window * 2 < p.cc.ssthresh().unwrap() {
        p.rtt += ms(30);
        p.round();
        assert_eq!(p.cc.window(), 2 * window);
        window = p.cc.window();
    }
}

#[test]
fn sizes() {
    assert!(size_of::<Congestion>() <= 352, "{}", size_of::<Congestion>());
}

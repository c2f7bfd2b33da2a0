//! BBR over a bottleneck of its own: one packet at a time, a rate, a queue, losses. The cases follow appendix A of the draft.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::sampler::rate;
use super::*;
use crate::cc::RttSnapshot;

const MSS: u64 = 1200;
const MBIT: u64 = 125_000;

fn us(n: u64) -> Instant {
    Instant::from_micros(n)
}

struct Packet {
    sent: Instant,
    /// When its acknowledgement arrives, or when the loss is noticed.
    told: Instant,
    lost: bool,
    marked: bool,
}

/// A sender and its bottleneck.
struct Net {
    bbr: Bbr,
    now: Instant,
    rate: u64,
    rtt: Duration,
    queue_max: u64,
    /// Bytes that others keep in the queue.
    others: u64,
    /// One of so many packets is lost on the way; 0: none.
    lose_each: u64,
    /// Marks packets that wait longer than this.
    mark_above: Option<Duration>,
    /// The application writes that many bytes per second; `None`: always has something.
    app_rate: Option<u64>,
    flight: VecDeque<Packet>,
    free_at: Instant,
    next_send: Instant,
    min_rtt: Duration,
    sent: u64,
    delivered: u64,
    dropped: u64,
    /// Losses of what left until then belong to one episode.
    episode: Instant,
}

impl Net {
    fn new(rate: u64, rtt_ms: u64, queue_max: u64) -> Self {
        let now = us(1);
        Self {
            bbr: Bbr::new(1200, now, 0),
            now,
            rate,
            rtt: Duration::from_millis(rtt_ms),
            queue_max,
            others: 0,
            lose_each: 0,
            mark_above: None,
            app_rate: None,
            flight: VecDeque::new(),
            free_at: now,
            next_send: now,
            min_rtt: Duration::MAX,
            sent: 0,
            delivered: 0,
            dropped: 0,
            episode: now,
        }
    }

    fn bdp(&self) -> u64 {
        brings(self.rate, micros(self.rtt))
    }

    fn in_flight(&self) -> u64 {
        self.flight.len() as u64 * MSS
    }

    fn send(&mut self) {
        if self.flight.is_empty() {
            self.bbr.on_idle_end(self.now);
        }
        self.sent += 1;
        let wait = self.free_at.since(self.now) + Duration::from_micros(self.others * 1_000_000 / self.rate);
        let backlog = brings(self.rate, micros(wait));
        let lost = backlog + MSS > self.queue_max || self.lose_each > 0 && self.sent.is_multiple_of(self.lose_each);
        let transmit = Duration::from_micros(MSS * 1_000_000 / self.rate);
        if !lost {
            self.free_at = self.free_at.max(self.now) + transmit;
        }
        // A loss is noticed when what left after it is acknowledged.
        let told = self.now + wait + transmit + self.rtt;
        let marked = self.mark_above.is_some_and(|above| wait > above);
        self.flight.push_back(Packet { sent: self.now, told, lost, marked });
        self.bbr.on_sent(self.now, MSS, self.in_flight());
        let gap = MSS * 1_000_000 / self.bbr.pacing_rate().max(1);
        let app = self.app_rate.map_or(0, |app| MSS * 1_000_000 / app);
        if app > gap {
            self.bbr.on_app_limited(self.in_flight());
        }
        self.next_send = self.now + Duration::from_micros(gap.max(app).max(1));
    }

    fn hear(&mut self) {
        let Some(p) = self.flight.pop_front() else { return };
        if self.app_rate.is_some() {
            self.bbr.on_app_limited(self.in_flight() + MSS);
        }
        let in_flight = self.in_flight();
        if p.lost {
            self.dropped += 1;
            if p.sent > self.episode {
                self.episode = self.now;
                self.bbr.on_congestion(self.now);
            }
            self.bbr.on_lost(self.now, MSS, p.sent, 1, in_flight);
            return;
        }
        self.delivered += MSS;
        let latest = self.now.since(p.sent);
        self.min_rtt = self.min_rtt.min(latest);
        self.bbr.on_acked(&growth(self.now, MSS, p.sent, in_flight, latest, self.min_rtt));
        if p.marked {
            self.bbr.on_ce(self.now, p.sent);
        }
    }

    /// Until the condition holds; panics after `limit_ms`.
    fn until(&mut self, limit_ms: u64, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_millis(limit_ms);
        while !done(self) {
            assert!(self.now < end, "{what}: {:?} at {:?}", self.bbr.state, self.now);
            let told = self.flight.front().map(|p| p.told);
            let may_send = self.in_flight() + MSS <= self.bbr.window();
            let send = may_send.then_some(self.next_send.max(self.now));
            match (told, send) {
                (Some(told), Some(send)) if told <= send => (self.now = self.now.max(told), self.hear()).1,
                (Some(told), None) => (self.now = self.now.max(told), self.hear()).1,
                (_, Some(send)) => (self.now = send, self.send()).1,
                (None, None) => panic!("nothing in flight and no window"),
            }
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        self.until(ms + 60_000, "time", |n| n.now >= end);
    }

    /// Share of the rate that was used in so much time, in percent.
    fn used(&mut self, ms: u64) -> u64 {
        let (before, start) = (self.delivered, self.now);
        self.run(ms);
        100 * (self.delivered - before) / brings(self.rate, micros(self.now.since(start)))
    }

    fn settle(&mut self) {
        self.until(20_000, "settles", |n| n.bbr.state == State::Cruise);
    }
}

fn growth(now: Instant, bytes: u64, sent: Instant, in_flight: u64, latest: Duration, min: Duration) -> Growth {
    let rtt = RttSnapshot { latest, fresh: true, smoothed: latest, min };
    Growth { now, bytes, sent, in_flight, round_ended: false, may_grow: true, rtt }
}

fn near(value: u64, wanted: u64, percent: u64) -> bool {
    value.abs_diff(wanted) * 100 <= wanted * percent
}

#[test]
fn startup_finds_the_rate_and_drains_its_queue() {
    for (mbit, rtt) in [(1, 100), (10, 40), (100, 10), (50, 300)] {
        let mut n = Net::new(mbit * MBIT, rtt, 100_000_000);
        assert_eq!(n.bbr.state, State::Startup);
        n.until(60_000, "leaves Startup", |n| n.bbr.state != State::Startup);
        assert!(near(n.bbr.max_bw(), n.rate, 6), "{} of {} at {mbit} Mbit/s", n.bbr.max_bw(), n.rate);
        assert!(near(n.bbr.min_rtt_us, rtt * 1000 + MSS * 1_000_000 / n.rate, 2));
        assert!(n.in_flight() <= 3 * n.bdp().max(4 * MSS), "{} in flight of {}", n.in_flight(), n.bdp());
        n.until(20_000, "leaves Drain", |n| n.bbr.state.is_probe_bw());
        assert!(n.in_flight() <= n.bdp() + 3 * MSS || n.bbr.round_count > n.bbr.drain_start_round + 3);
    }
}

#[test]
fn the_first_flights_are_paced_by_the_window_because_their_samples_are_small() {
    let at = |delivered: u64, without: u16| {
        let mut n = Net::new(1000 * MBIT, 40, 100_000_000);
        n.bbr = Bbr::new(1200, n.now, without);
        n.until(1000, "delivers", |n| n.delivered >= delivered);
        let by_window = rate(n.bbr.window(), 40_000) * STARTUP_PACING_GAIN / 200;
        (n.bbr.pacing_rate() * 100 / by_window, n.in_flight() <= n.bbr.window())
    };
    let initial = initial_window(1200);
    let (paced, fits) = at(2 * initial, 0);
    assert!((90..=101).contains(&paced) && fits, "{paced} %");
    let (sampled, _) = at(2 * initial, Departure::FirstFlights as u16);
    assert!(sampled < 80, "{sampled} %");
    // Later the samples decide.
    let (late, _) = at((FIRST_FLIGHTS + 2) * initial, 0);
    assert!(late < 90, "{late} %");
}

#[test]
fn startup_takes_as_many_rounds_as_doublings() {
    let mut n = Net::new(100 * MBIT, 50, 100_000_000);
    n.until(60_000, "leaves Startup", |n| n.bbr.state != State::Startup);
    // 625,000 bytes are 5.7 doublings of 12,000; three more rounds notice it.
    assert!(n.bbr.round_count <= 10, "{} rounds", n.bbr.round_count);
}

#[test]
fn a_cycle_goes_down_cruises_refills_and_goes_up() {
    let mut n = Net::new(20 * MBIT, 40, 1_000_000);
    n.settle();
    for _ in 0..3 {
        let start = n.bbr.cycle_stamp;
        n.until(4000, "refills", |n| n.bbr.state == State::Refill);
        let rounds = n.now.since(start).as_millis() / 40;
        assert!((50..=77).contains(&rounds), "sixty-three rounds, or two to three seconds: {rounds}");
        assert!(n.bbr.bw_shortterm == INFINITY && n.bbr.inflight_shortterm == INFINITY);
        n.until(200, "goes up", |n| n.bbr.state == State::Up);
        n.until(1000, "goes down", |n| n.bbr.state == State::Down);
        n.until(1000, "cruises", |n| n.bbr.state == State::Cruise);
        assert!(n.in_flight() <= n.bdp() + n.bdp() / 8);
    }
    assert!(n.used(5000) >= 98);
}

#[test]
fn losses_of_a_shallow_queue_bound_what_is_in_flight() {
    let mut n = Net::new(20 * MBIT, 40, 20_000);
    n.settle();
    n.until(20_000, "goes up", |n| n.bbr.state == State::Up);
    n.until(2000, "goes down", |n| n.bbr.state == State::Down);
    let bound = n.bbr.inflight_longterm;
    assert!(bound >= n.bdp() * 7 / 10 && bound <= n.bdp() + 40_000, "{bound} for {} and a queue of 20,000", n.bdp());
    let before = n.dropped;
    let sent = n.sent;
    assert!(n.used(10_000) >= 88);
    assert!((n.dropped - before) * 50 <= n.sent - sent, "at most 2 % lost: {}", n.dropped - before);
}

#[test]
fn too_many_losses_end_startup_and_an_undo_brings_it_back() {
    let mut n = Net::new(100 * MBIT, 40, 100_000_000);
    n.until(3000, "some rounds", |n| n.bbr.round_count >= 4);
    n.lose_each = 10;
    n.until(3000, "leaves Startup", |n| n.bbr.state != State::Startup);
    assert!(n.bbr.full_bw_reached && n.bbr.inflight_longterm < n.bdp());
    n.bbr.undo();
    assert!(n.bbr.state == State::Startup && !n.bbr.full_bw_reached);
    assert_eq!(n.bbr.inflight_longterm, INFINITY);
}

#[test]
fn an_undo_while_probing_probes_again() {
    let mut n = Net::new(20 * MBIT, 40, 60_000);
    n.settle();
    n.until(20_000, "too high", |n| n.bbr.undo.state == Some(State::Up));
    let bound = n.bbr.inflight_longterm;
    n.bbr.undo();
    assert!(n.bbr.state == State::Refill && n.bbr.inflight_longterm >= bound);
}

#[test]
fn cruising_follows_losses_down_and_forgets_them_at_the_next_probe() {
    let mut n = Net::new(20 * MBIT, 40, 1_000_000);
    n.settle();
    n.rate = 10 * MBIT;
    n.queue_max = 20_000;
    n.until(1000, "a short-term bound", |n| n.bbr.bw_shortterm != INFINITY);
    n.until(3000, "near the new rate", |n| near(n.bbr.bw, 10 * MBIT, 15));
    n.until(4000, "refills", |n| n.bbr.state == State::Refill);
    assert_eq!(n.bbr.bw_shortterm, INFINITY);
}

#[test]
fn a_path_that_always_loses_three_of_a_hundred_is_still_filled() {
    let mut n = Net::new(100 * MBIT, 10, 125_000);
    n.lose_each = 33;
    n.run(4000);
    let used = n.used(6000);
    assert!(used >= 75, "{used} %");
}

#[test]
fn losses_that_slowing_down_does_not_cure_are_put_up_with_until_they_go() {
    let mut f = LossFloor::default();
    let cruise = |f: &mut LossFloor, datagrams: u64, lost: u64, slower: bool| {
        f.on_lost(lost * MSS, slower);
        f.on_acked((datagrams - lost) * MSS, slower, MSS)
    };
    f.on_round(1_000_000);
    assert!(f.is_slower(930_000) && !f.is_slower(931_000));
    assert!(!cruise(&mut f, 300, 9, false), "nothing is shown at the full rate");
    assert!(!cruise(&mut f, 200, 1, true), "slowing down cured most of it");
    assert!(cruise(&mut f, 200, 6, true) && f.get() == 30);
    assert!(f.expects(1000 * MSS, MSS) > 30 * MSS);
    cruise(&mut f, 600, 3, false);
    assert_eq!(f.get(), 10, "twice what is left of them");
    for _ in 0..8 {
        f.on_cycle();
    }
    assert_eq!(f.get(), 0, "a floor has to be shown anew");
}

#[test]
fn ten_times_the_rate_is_found_within_seconds_and_a_tenth_too() {
    let mut n = Net::new(5 * MBIT, 40, 250_000);
    n.settle();
    n.rate = 50 * MBIT;
    n.until(3500, "the larger rate", |n| near(n.bbr.bw, 50 * MBIT, 5));
    n.run(2000);
    n.rate = 5 * MBIT;
    n.until(8000, "the smaller rate", |n| near(n.bbr.bw, 5 * MBIT, 15));
}

#[test]
fn the_round_trip_is_measured_anew_when_a_queue_hid_it() {
    let mut n = Net::new(20 * MBIT, 40, 1_000_000);
    n.settle();
    n.run(1000);
    n.others = 50_000;
    let from = n.now;
    n.until(6000, "ProbeRTT", |n| n.bbr.state == State::ProbeRtt);
    // Cruising leans on the path, so the path was last seen empty a few rounds before.
    assert!(n.now.since(from) > Duration::from_millis(4000), "{:?}", n.now.since(from));
    n.until(500, "little in flight", |n| n.in_flight() <= n.bdp() / 2 + MSS);
    let from = n.now;
    n.until(1000, "done", |n| n.bbr.state != State::ProbeRtt);
    assert!(n.now.since(from) >= Duration::from_millis(190), "{:?}", n.now.since(from));
    assert_eq!(n.bbr.state, State::Cruise);
    n.run(100);
    assert!(n.bbr.window() > n.bdp(), "the window of before is back");
}

#[test]
fn a_round_trip_that_is_seen_anyway_needs_no_measuring() {
    let mut n = Net::new(20 * MBIT, 40, 1_000_000);
    n.settle();
    let end = n.now + Duration::from_secs(20);
    n.until(60_000, "time", |n| {
        assert_ne!(n.bbr.state, State::ProbeRtt);
        n.now >= end
    });
}

#[test]
fn an_application_that_says_little_teaches_little() {
    let mut n = Net::new(100 * MBIT, 40, 1_000_000);
    n.app_rate = Some(2 * MBIT);
    n.run(10_000);
    assert_eq!(n.bbr.state, State::Startup, "nothing showed that the pipe is full");
    n.app_rate = None;
    n.settle();
    let known = n.bbr.max_bw();
    n.app_rate = Some(2 * MBIT);
    n.run(8000);
    assert_eq!(n.bbr.max_bw(), known, "and nothing that it is smaller");
}

#[test]
fn after_a_silence_data_leaves_at_the_known_rate() {
    let mut n = Net::new(20 * MBIT, 40, 1_000_000);
    n.settle();
    n.until(20_000, "goes up", |n| n.bbr.state == State::Up);
    while !n.flight.is_empty() {
        n.now = n.now.max(n.flight[0].told);
        n.bbr.on_app_limited(n.in_flight());
        n.hear();
    }
    n.now += Duration::from_secs(3);
    n.send();
    assert!(n.bbr.idle_restart && n.bbr.pacing_rate() <= n.bbr.bw, "{} of {}", n.bbr.pacing_rate(), n.bbr.bw);
}

#[test]
fn persistent_congestion_cuts_the_window_until_something_arrives() {
    //= rfc9002#7.6.2-4 type=test
    let mut n = Net::new(20 * MBIT, 40, 1_000_000);
    n.settle();
    let before = n.bbr.window();
    n.bbr.on_persistent(n.now);
    assert_eq!(n.bbr.window(), 2 * MSS);
    let cut = n.now;
    n.until(2000, "an answer", |n| n.bbr.cut_at.is_none());
    assert!(n.now > cut + n.rtt && n.bbr.window() >= before / 2);
}

#[test]
fn cruising_finds_room_within_some_round_trips() {
    let mut n = Net::new(5 * MBIT, 40, 250_000);
    n.settle();
    n.run(500);
    n.rate = 50 * MBIT;
    let from = n.now;
    n.until(1000, "goes up", |n| n.bbr.search.found_room);
    assert!(n.now.since(from) < 8 * n.rtt, "{:?}", n.now.since(from));
    n.until(1000, "the larger rate", |n| near(n.bbr.bw, 50 * MBIT, 5));
    assert!(n.now.since(from) < 20 * n.rtt, "{:?}", n.now.since(from));
}

#[test]
fn a_rate_that_falls_to_a_tenth_is_followed_at_once() {
    let mut n = Net::new(50 * MBIT, 40, 1_000_000);
    n.settle();
    n.run(500);
    n.rate = 5 * MBIT;
    let from = n.now;
    n.until(3000, "follows", |n| near(n.bbr.bw, 5 * MBIT, 15));
    assert!(n.now.since(from) < Duration::from_millis(2000), "{:?}", n.now.since(from));
    assert_eq!(n.bbr.bw_shortterm, INFINITY, "nothing was lost");
}

#[test]
fn an_outage_is_no_slow_link() {
    let mut s = Sampler::new(us(0));
    s.on_round_trip(us(0), 40_000);
    let mut now = 0;
    // A packet each millisecond, told 40 ms later; for a second nothing passes.
    for i in 0..400u64 {
        now = 1000 * i + if i >= 200 { 1_000_000 } else { 0 };
        s.on_sent(us(now), MSS, 40 * MSS);
        if i >= 40 {
            let sent = 1000 * (i - 40) + if i >= 240 { 1_000_000 } else { 0 };
            let sample = s.on_acked(us(now), MSS, us(sent), 40_000);
            let is_about_outage = (200..=240).contains(&i);
            assert_eq!(sample.ack_rate == 0, is_about_outage, "{i}: {}", sample.ack_rate);
            assert!(is_about_outage || i < 90 || near(sample.ack_rate, MSS * 1000, 5), "{i}: {}", sample.ack_rate);
        }
    }
    // Packets that are far apart because the link is slow are no outage, however slow it is.
    let mut s = Sampler::new(us(0));
    for i in 1..30u64 {
        let at = us(now + 90_000 * i);
        s.on_sent(at, MSS, 2 * MSS);
        let sample = s.on_acked(at + Duration::from_millis(80), MSS, at, 40_000);
        assert!(i < 3 || sample.ack_rate > 0, "{i}");
    }
}

#[test]
fn random_losses_below_the_threshold_of_probing_cost_nothing() {
    let mut n = Net::new(100 * MBIT, 10, 125_000);
    n.lose_each = 100;
    n.run(3000);
    let used = n.used(6000);
    assert!(used >= 96, "{used} %");
}

#[test]
fn every_departure_can_be_missing() {
    for bit in 0..10 {
        let mut n = Net::new(20 * MBIT, 40, 100_000);
        n.bbr = Bbr::new(1200, n.now, 1 << bit);
        n.run(4000);
        let used = n.used(4000);
        assert!(used >= 90, "{used} % without {bit}");
    }
}

#[test]
fn noise_is_no_queue_and_a_queue_is_no_noise() {
    let mut q = Queue::new(us(0));
    // A round of eight samples each 5 ms: 40 ms and up to 10 ms more, then the same with 15 ms in the queue.
    let mut round = |at: u64, more: u64| {
        let mut told = Round::default();
        for i in 0..8u64 {
            let told_now = q.on_sample(us(at + 5000 * i), Some(40_000 + more + i * 7 % 8 * 1400), i == 0, 40_000);
            told = if i == 0 { told_now } else { told };
        }
        (told, q.is_long(40_000), q.is_seen(40_000, 600))
    };
    let _ = round(0, 0);
    assert_eq!(round(40_000, 0), (Round { stood: false, is_quiet: true }, false, false));
    let (_, is_long, is_seen) = round(80_000, 15_000);
    assert!(is_long && is_seen);
    assert_eq!(round(120_000, 15_000).0, Round { stood: true, is_quiet: false });
}

#[test]
fn the_budget_of_losses_fills_with_what_is_delivered() {
    let mut b = LossBudget::default();
    b.on_lost(MSS);
    assert!(b.take_exhausted() && !b.take_exhausted());
    for _ in 0..1000 {
        b.on_acked(MSS, 0, 10 * MSS, MSS);
    }
    b.on_lost(10 * MSS);
    assert!(!b.take_exhausted(), "ten datagrams fit");
    for _ in 0..100 {
        b.on_acked(MSS, 0, 10 * MSS, MSS);
    }
    b.on_lost(2 * MSS);
    assert!(!b.take_exhausted(), "two of a hundred");
    b.on_lost(1);
    assert!(b.take_exhausted());
    for _ in 0..1000 {
        b.on_cruise(99 * MSS / 100, MSS / 100);
    }
    assert!((2..6).contains(&(b.expects(100 * MSS, MSS) / MSS)), "one of a hundred, and two deviations");
}

#[test]
fn marks_keep_the_queue_short() {
    let mut n = Net::new(20 * MBIT, 40, 400_000);
    n.mark_above = Some(Duration::from_millis(5));
    n.until(5000, "leaves Startup", |n| n.bbr.state != State::Startup);
    n.run(1000);
    assert!(n.used(5000) >= 92);
    assert!(n.bbr.inflight_longterm <= n.bdp() * 3 / 2, "{}", n.bbr.inflight_longterm);
    assert_eq!(n.dropped, 0);
}

#[test]
fn a_marked_round_of_cruising_is_a_round_with_losses() {
    let mut n = Net::new(20 * MBIT, 40, 400_000);
    n.settle();
    n.run(200);
    n.bbr.on_ce(n.now, n.now - n.rtt);
    n.run(100);
    assert!(n.bbr.bw_shortterm != INFINITY);
}

#[test]
fn the_smallest_window_is_four_datagrams() {
    let mut n = Net::new(MBIT / 10, 20, 20_000);
    n.run(5000);
    assert!(n.bbr.window() >= 4 * MSS && n.used(5000) >= 95);
}

#[test]
fn shared_marks_give_the_same_rates() {
    let mut s = Sampler::new(us(0));
    s.on_round_trip(us(0), 40_000);
    // 1,200 bytes each 100 us: 12 MB/s, told one round trip later.
    for i in 0..2000u64 {
        s.on_sent(us(1000 + 100 * i), MSS, (i + 1).min(400) * MSS);
        if i >= 400 {
            let at = us(1000 + 100 * i);
            let sample = s.on_acked(at, MSS, us(1000 + 100 * (i - 400)), 40_000);
            s.on_round_trip(at, 40_000);
            assert!(i < 900 || near(sample.delivery_rate, 12_000_000, 2), "{i}: {}", sample.delivery_rate);
        }
    }
    assert!((100..=400).contains(&s.marks()), "{} marks for 400 packets in flight", s.marks());
}

#[test]
fn marks_are_few_however_many_packets_wait() {
    let mut s = Sampler::new(us(0));
    for i in 0..100_000u64 {
        s.on_sent(us(i), MSS, (i + 1) * MSS);
    }
    assert_eq!(s.marks(), 1024);
    let mut idle = s.clone();
    idle.forget_marks();
    assert_eq!((idle.marks(), idle.on_acked(us(1), MSS, us(0), 1).delivery_rate), (0, 0), "a stray one is no sample");
    let sample = s.on_acked(us(200_000), MSS, us(99_999), 1);
    assert_eq!((sample.newly_acked, sample.delivered), (MSS, MSS));
}

#[test]
fn a_sample_over_less_than_a_round_trip_is_none() {
    let mut s = Sampler::new(us(0));
    s.on_sent(us(1000), MSS, MSS);
    s.on_sent(us(1001), MSS, 2 * MSS);
    assert_eq!(s.on_acked(us(1900), MSS, us(1000), 1000).delivery_rate, 0);
    assert_eq!(s.on_acked(us(2100), MSS, us(1001), 1000).delivery_rate, rate(2 * MSS, 1100));
}

#[test]
fn rates_and_products_saturate() {
    assert_eq!((rate(u64::MAX, 0), brings(u64::MAX, u64::MAX)), (u64::MAX, u64::MAX));
    assert_eq!((rate(1200, 1_000_000), brings(1200, 1_000_000)), (1200, 1200));
}

proptest! {
    /// The filter against one that remembers everything: never below the largest of the window's last quarter, never above
    /// the largest of the window.
    #[test]
    fn the_filter_forgets_what_is_older_than_its_window(values in prop::collection::vec(0u64..1000, 1..200)) {
        let mut f = MaxFilter::default();
        for (i, &v) in values.iter().enumerate() {
            let got = f.update(i as u64, v, 10);
            let largest = |from: usize| values[i.saturating_sub(from)..=i].iter().max().copied().unwrap_or(0);
            prop_assert!(got <= largest(10) && got >= largest(2), "{got} at {i} of {values:?}");
        }
    }

    /// Whatever a peer and a path do, the window has a floor, something may be sent, and nothing panics.
    #[test]
    fn any_course_of_events_leaves_a_window(events in prop::collection::vec((0u8..8, 0u64..200_000, 1u64..40), 1..300)) {
        let mut bbr = Bbr::new(1200, us(0), 0);
        let (mut now, mut flight) = (us(1), VecDeque::new());
        for (what, wait, many) in events {
            now += Duration::from_micros(wait);
            match what {
                0..=2 => for _ in 0..many {
                    if flight.is_empty() { bbr.on_idle_end(now); }
                    flight.push_back(now);
                    bbr.on_sent(now, MSS, flight.len() as u64 * MSS);
                },
                3..=5 => {
                    let n = flight.len().min(many as usize);
                    let taken: Vec<Instant> = flight.drain(..n).collect();
                    let Some(&sent) = taken.last() else { continue };
                    let (bytes, left) = (n as u64 * MSS, flight.len() as u64 * MSS);
                    if what == 5 {
                        bbr.on_lost(now, bytes, sent, many as u32, left);
                        if many == 7 { bbr.on_persistent(now); }
                    } else {
                        bbr.on_acked(&growth(now, bytes, sent, left, now.since(sent), Duration::from_micros(1)));
                        if what == 4 && many > 30 { bbr.on_ce(now, sent); }
                    }
                }
                6 => bbr.on_app_limited(flight.len() as u64 * MSS),
                _ => if many > 20 { bbr.undo() } else { bbr.set_mtu(1200 + many as u16, false) },
            }
            prop_assert!(bbr.window() >= 2 * MSS && bbr.pacing_rate() < u64::MAX);
        }
    }
}

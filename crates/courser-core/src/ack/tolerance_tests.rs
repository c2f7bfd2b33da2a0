//! The controller against a model of a peer that acknowledges as it was asked.

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn negotiated() -> Tolerance {
    Tolerance::new(Some(MS), 25 * MS)
}

/// A path with so many packets per round trip.
struct Plant {
    tolerance: Tolerance,
    view: View,
    now: Instant,
    /// Packets since the last ACK, in thousandths.
    waiting: u64,
    /// When the first of them came.
    oldest: Instant,
    requests: Vec<Instant>,
}

impl Plant {
    fn new(rtt: Duration) -> Self {
        let view = View { rtt, window_packets: 10_000, slow_start: false, reordering: 3 };
        Self {
            tolerance: negotiated(),
            view,
            now: Instant::from_micros(1),
            waiting: 0,
            oldest: Instant::from_micros(1),
            requests: Vec::new(),
        }
    }

    /// A round trip at that rate; each request arrives half a round trip later, its acknowledgement after another half.
    fn round_trip(&mut self, packets: u64) {
        const STEPS: u64 = 100;
        let sent = self.tolerance.due();
        if sent.is_some() {
            self.tolerance.mark_sent();
            self.requests.push(self.now);
        }
        for _ in 0..STEPS {
            self.now += self.view.rtt / STEPS as u32;
            if self.waiting < 1000 {
                self.oldest = self.now;
            }
            self.waiting += packets * 1000 / STEPS;
            let terms = self.tolerance.in_force();
            let each = u64::from(terms.packets) * 1000;
            while self.waiting >= each || self.waiting >= 1000 && self.now.since(self.oldest) >= terms.max_delay {
                self.waiting -= each.min(self.waiting / 1000 * 1000);
                self.oldest = self.now;
                self.tolerance.on_ack();
            }
            self.tolerance.on_tick(self.now, &self.view);
        }
        if let Some((sequence, _)) = sent {
            self.tolerance.settle(Fate::Acked, sequence);
        }
    }

    fn packets(&self) -> u64 {
        self.tolerance.in_force().packets.into()
    }
}

/// Whether the tolerance is within a quarter of what gives the target.
fn is_near(plant: &Plant, rate: u64) -> bool {
    let ideal = (rate * 100 / target(plant.view.rtt)).clamp(2, TOLERANCE_MAX.into());
    plant.packets().abs_diff(ideal) <= ideal.div_ceil(4).max(1)
}

#[test]
fn steps_in_the_rate_are_followed_within_a_dozen_round_trips_and_kept() {
    // LS-PTOL-01, LS-PTOL-02, LS-PTOL-03
    for rtt in [2, 12, 25] {
        let mut plant = Plant::new(rtt * MS);
        for rate in [30, 150, 40, 80, 20, 90, 300] {
            (0..12).for_each(|_| plant.round_trip(rate));
            for _ in 0..30 {
                assert!(is_near(&plant, rate), "{rtt} ms, {rate} packets: {:?}", plant.tolerance);
                plant.round_trip(rate);
            }
        }
    }
}

#[test]
fn the_target_falls_with_the_round_trip() {
    // LS-PTOL-04
    let at = |ms: u64| target(Duration::from_millis(ms));
    assert_eq!([0, 5, 6, 20, 30, 50, 100, 101, 5000].map(at), [250, 250, 235, 205, 175, 135, 70, 50, 50]);
    assert!(TARGETS.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 > w[1].1));
}

#[test]
fn at_most_one_request_leaves_per_round_trip() {
    // LS-PTOL-05
    let mut plant = Plant::new(20 * MS);
    let mut state = 1u32;
    for _ in 0..500 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        plant.round_trip(u64::from(state >> 23));
    }
    assert!(plant.requests.len() > 50, "{}", plant.requests.len());
    assert!(plant.requests.windows(2).all(|w| w[1].since(w[0]) >= plant.view.rtt));
}

#[test]
fn nothing_is_asked_of_a_peer_that_did_not_offer_it() {
    let mut plant = Plant::new(20 * MS);
    plant.tolerance = Tolerance::default();
    (0..50).for_each(|_| plant.round_trip(100));
    assert!(plant.requests.is_empty() && !plant.tolerance.is_negotiated() && plant.packets() == 2);
}

#[test]
fn slow_start_is_acknowledged_often() {
    let mut plant = Plant::new(20 * MS);
    plant.view.window_packets = 100;
    plant.view.slow_start = true;
    (0..50).for_each(|_| plant.round_trip(100));
    assert_eq!(plant.packets(), 5, "twenty samples of the round trip in each");
    plant.view.slow_start = false;
    (0..20).for_each(|_| plant.round_trip(100));
    assert_eq!(plant.packets(), 7);
}

#[test]
fn a_window_is_acknowledged_in_parts() {
    let mut plant = Plant::new(80 * MS);
    plant.view.window_packets = 140;
    (0..30).for_each(|_| plant.round_trip(140));
    assert_eq!(plant.packets(), 10);
    plant.view.window_packets = 31;
    (0..30).for_each(|_| plant.round_trip(31));
    assert_eq!((plant.packets(), plant.tolerance.in_force().reordering), (2, 1), "as without the extension");
}

#[test]
fn the_requested_delay_is_at_most_a_round_trip_and_what_the_peer_announced() {
    for (rtt, expected) in [(Duration::from_micros(100), MS), (4 * MS, 4 * MS), (90 * MS, 25 * MS)] {
        let mut plant = Plant::new(rtt);
        (0..10).for_each(|_| plant.round_trip(100));
        assert_eq!(plant.tolerance.in_force().max_delay, expected);
        assert_eq!(plant.tolerance.in_force().reordering, 3);
    }
}

#[test]
fn the_longer_delay_counts_until_the_request_is_acknowledged() {
    //= ack-frequency#7-1 type=test
    //= ack-frequency#7-2 type=test
    let mut t = asked();
    assert_eq!(t.max_delay(), 25 * MS);
    t.mark_sent();
    assert_eq!(t.max_delay(), 25 * MS);
    t.settle(Fate::Acked, 0);
    assert_eq!(t.max_delay(), 4 * MS);
}

#[test]
fn sequence_numbers_grow_and_a_lost_request_is_repeated() {
    //= ack-frequency#4-1 type=test
    let mut t = asked();
    let first = t.due().unwrap();
    t.mark_sent();
    assert_eq!(t.due(), None);
    t.settle(Fate::Lost, 0);
    assert_eq!(t.due(), Some(first), "the same frame again");
    t.mark_sent();
    // The first copy was late, not lost: the second one is none of the next request's.
    t.settle(Fate::Acked, 0);
    let view = View { rtt: 4 * MS, window_packets: 31, slow_start: true, reordering: 3 };
    t.on_tick(Instant::from_micros(10_000), &view);
    t.on_tick(Instant::from_micros(60_000), &view);
    let (sequence, terms) = t.due().unwrap();
    assert_eq!((sequence, terms.packets), (1, 2));
    t.mark_sent();
    t.settle(Fate::Acked, 0);
    assert_ne!(t.in_force(), terms);
    t.settle(Fate::Acked, 1);
    assert_eq!((t.in_force(), t.agreed()), (terms, 2));
}

proptest! {
    #[test]
    fn terms_stay_within_their_limits(
        steps in prop::collection::vec((0u32..500, 0u64..400_000, 0u64..500, any::<bool>(), 0u8..4), 1..80),
        min in 0u64..25_000,
    ) {
        let least = Duration::from_micros(min);
        let mut t = Tolerance::new(Some(least), 25 * MS);
        let mut now = Instant::from_micros(1);
        let mut last = None;
        for (acks, rtt, window_packets, slow_start, fate) in steps {
            let rtt = Duration::from_micros(rtt);
            (0..acks).for_each(|_| t.on_ack());
            now += rtt.saturating_mul(2) + Duration::from_micros(1);
            t.on_tick(now, &View { rtt, window_packets, slow_start, reordering: window_packets });
            if let Some((sequence, terms)) = t.due() {
                prop_assert!((2..=TOLERANCE_MAX).contains(&terms.packets));
                prop_assert!((least..=25 * MS).contains(&terms.max_delay), "the peer takes it");
                //= ack-frequency#7-3 type=test
                prop_assert!(terms.reordering >= 1, "losses are reported at once");
                prop_assert!(last.is_none_or(|l| l == sequence || l + 1 == sequence));
                last = Some(sequence);
                t.mark_sent();
                let fates = [Some(Fate::Acked), Some(Fate::Lost), Some(Fate::Discarded), None];
                if let Some(fate) = fates[usize::from(fate)] {
                    t.settle(fate, sequence);
                }
            }
            prop_assert!(t.max_delay() >= t.in_force().max_delay);
        }
    }
}

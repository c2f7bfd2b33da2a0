//! Recovery against the RFC's pseudo-code, written down naively, on random traces.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{CONFIRMED, ms, packet};
use super::timer::TimeoutOutcome;
use super::*;
use crate::ack::merge::AckInfo;

/// Appendix A of RFC 9002 for a server with a confirmed handshake: the Data space alone, constants fixed.
#[derive(Default)]
struct Model {
    sent: BTreeMap<u64, Instant>,
    settled: BTreeMap<u64, bool>,
    next: u64,
    largest_acked: Option<u64>,
    loss_time: Option<Instant>,
    last_eliciting: Instant,
    pto_count: u32,
    /// Send time and fate of everything sent: acknowledged in time or late, or lost since the last persistent congestion.
    story: BTreeMap<u64, (Instant, Option<bool>)>,
}

impl Model {
    /// Section 7.6.2: two lost packets far apart, the later one just found, and nothing acknowledged between them.
    fn persistent(&self, found: &[u64], rtt: &Rtt) -> bool {
        let duration = (rtt.pto_base() + CONFIRMED.max_ack_delay) * 3;
        let lost = |pn: &u64| self.story[pn].1 == Some(false) && self.story[pn].0 > rtt.first_sample();
        found.iter().filter(|b| lost(b)).any(|b| {
            let unacked = (0..*b).rev().take_while(|pn| self.story[pn].1 != Some(true));
            unacked.filter(lost).any(|a| self.story[b].0 - self.story[&a].0 > duration)
        })
    }

    fn remember(&mut self, acked: &[u64], lost: &[u64]) {
        for (pns, fate) in [(acked, true), (lost, false)] {
            pns.iter().for_each(|pn| self.story.get_mut(pn).unwrap().1 = Some(fate));
        }
    }

    fn forget_lost(&mut self) {
        self.story.values_mut().filter(|s| s.1 == Some(false)).for_each(|s| s.1 = None);
    }

    fn ack(&mut self, now: Instant, acked: &[u64], rtt: &mut Rtt) -> (Vec<u64>, Vec<u64>) {
        let largest = *acked.iter().max().unwrap();
        self.largest_acked = self.largest_acked.max(Some(largest));
        let newly: Vec<u64> = acked.iter().copied().filter(|pn| self.sent.contains_key(pn)).collect();
        if newly.is_empty() {
            return (newly, Vec::new());
        }
        if newly.contains(&largest) {
            rtt.sample(now, now - self.sent[&largest], Duration::ZERO, Some(CONFIRMED.max_ack_delay));
        }
        for pn in &newly {
            self.sent.remove(pn);
            self.settled.insert(*pn, true);
        }
        let lost = self.detect(now, rtt);
        self.pto_count = 0;
        (newly, lost)
    }

    fn detect(&mut self, now: Instant, rtt: &Rtt) -> Vec<u64> {
        self.loss_time = None;
        let delay = (rtt.latest().max(rtt.smoothed()) * 9 / 8).max(ms(1));
        let delay = Duration::from_micros(delay.as_micros() as u64);
        let largest = self.largest_acked.unwrap();
        let mut lost = Vec::new();
        for (&pn, &time) in &self.sent {
            if pn > largest {
                continue;
            }
            if time <= now - delay || largest >= pn + 3 {
                lost.push(pn);
            } else {
                let at = time + delay;
                self.loss_time = Some(self.loss_time.map_or(at, |t| t.min(at)));
            }
        }
        for pn in &lost {
            self.sent.remove(pn);
            self.settled.insert(*pn, false);
        }
        lost
    }

    fn timer(&self, rtt: &Rtt) -> Option<Instant> {
        if self.loss_time.is_some() {
            return self.loss_time;
        }
        let pto = (rtt.pto_base() + CONFIRMED.max_ack_delay) * 2u32.pow(self.pto_count);
        (!self.sent.is_empty()).then(|| self.last_eliciting + pto)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Send(u8),
    Wait(u64),
    /// Acknowledges these distances below the newest packet.
    Ack(Vec<(u64, u64)>),
    Fire,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1u8..12).prop_map(Op::Send),
        3 => (0u64..40_000).prop_map(Op::Wait),
        4 => prop::collection::vec((0u64..30, 0u64..12), 1..5).prop_map(Op::Ack),
        1 => Just(Op::Fire),
    ]
}

/// Numbers of the ranges at these distances below `next`, and the ranges as a frame lists them.
fn ranges(next: u64, distances: &[(u64, u64)]) -> (Vec<u64>, Vec<(u64, u64)>) {
    let mut all: Vec<u64> = Vec::new();
    for &(below, len) in distances {
        let Some(high) = next.checked_sub(1 + below) else { continue };
        all.extend(high.saturating_sub(len)..=high);
    }
    all.sort_unstable();
    all.dedup();
    let mut frame: Vec<(u64, u64)> = Vec::new();
    for &pn in all.iter().rev() {
        match frame.last_mut() {
            Some(r) if r.0 == pn + 1 => r.0 = pn,
            _ => frame.push((pn, pn)),
        }
    }
    (all, frame)
}

/// What the callback told: acknowledged, lost, acknowledged late.
type Told = (Vec<u64>, Vec<u64>, Vec<u64>);

/// Both implementations side by side.
struct Pair {
    r: Recovery,
    rtt: Rtt,
    model: Model,
    model_rtt: Rtt,
    now: Instant,
    flight: u64,
    spurious: usize,
}

impl Pair {
    fn send(&mut self) {
        let pn = self.model.next;
        self.r.on_packet_sent(Space::Data, pn, &packet(self.now), &[]);
        self.model.sent.insert(pn, self.now);
        self.model.story.insert(pn, (self.now, None));
        self.model.last_eliciting = self.now;
        self.model.next += 1;
        self.flight += 1200;
    }

    fn ack(&mut self, distances: &[(u64, u64)]) {
        let (all, frame) = ranges(self.model.next, distances);
        if all.is_empty() {
            return;
        }
        let info = AckInfo { space: Space::Data, delay: Duration::ZERO, ecn: None, received: self.now };
        let ack = AckRanges::from_frame(info, frame.iter().copied());
        let mut told = Told::default();
        let out = self.r.on_ack(self.now, &ack, &mut self.rtt, &CONFIRMED, &mut |f, s| tell(&mut told, f, &s)).unwrap();
        let mut expected = self.model.ack(self.now, &all, &mut self.model_rtt);
        // A late acknowledgement alone also runs loss detection here; the RFC forgets lost packets at once.
        if expected.0.is_empty() && out.spurious > 0 {
            expected.1 = self.model.detect(self.now, &self.model_rtt);
        }
        assert_eq!(out.newly_acked as usize, expected.0.len());
        self.compare(told, &expected, &out);
    }

    fn fire(&mut self) {
        let due = self.model.timer(&self.model_rtt);
        assert_eq!(self.r.deadline(&self.rtt, &CONFIRMED), due);
        let Some(due) = due else { return };
        self.now = self.now.max(due);
        let mut told = Told::default();
        match self.r.on_timeout(self.now, &mut self.rtt, &CONFIRMED, &mut |f, s| tell(&mut told, f, &s)) {
            TimeoutOutcome::Lost(out) => {
                assert!(self.model.loss_time.is_some());
                let expected = (Vec::new(), self.model.detect(self.now, &self.model_rtt));
                self.compare(told, &expected, &out);
            }
            probe => {
                assert!(self.model.loss_time.is_none());
                assert_eq!(probe, TimeoutOutcome::Probe { space: Space::Data, count: 2 });
                self.model.pto_count += 1;
            }
        }
    }

    fn compare(&mut self, mut told: Told, expected: &(Vec<u64>, Vec<u64>), out: &AckOutcome) {
        told.0.reverse();
        assert_eq!((&told.0, &told.1), (&expected.0, &expected.1));
        assert_eq!(out.paths[0].acked_bytes, 1200 * told.0.len() as u64);
        assert_eq!(out.paths[0].lost_bytes, 1200 * told.1.len() as u64);
        self.flight -= out.paths[0].acked_bytes + out.paths[0].lost_bytes;
        self.spurious += told.2.len();
        self.model.remember(&told.0, &told.1);
        self.model.remember(&told.2, &[]);
        // A late acknowledgement may end a period that the model still sees, never the other way round.
        let seen = self.model.persistent(&told.1, &self.model_rtt);
        assert!(seen || !out.persistent_congestion);
        assert!(out.persistent_congestion || !seen || self.spurious > 0);
        if out.persistent_congestion {
            self.model_rtt.on_persistent_congestion();
            self.model.forget_lost();
        }
        for pn in &told.2 {
            assert_eq!(self.model.settled.insert(*pn, true), Some(false), "only a lost packet can be spurious");
        }
    }

    fn check(&self) {
        assert_eq!(self.rtt, self.model_rtt);
        assert_eq!(self.r.deadline(&self.rtt, &CONFIRMED), self.model.timer(&self.model_rtt));
        assert_eq!(self.r.eliciting_in_flight(Space::Data), self.model.sent.len());
        assert_eq!(self.flight, 1200 * self.model.sent.len() as u64);
    }
}

fn tell(told: &mut Told, fate: Fate, s: &Settled<'_>) {
    match (fate, s.spurious) {
        (Fate::Acked, false) => told.0.push(s.pn),
        (Fate::Acked, true) => told.2.push(s.pn),
        (Fate::Lost, _) => told.1.push(s.pn),
        (Fate::Discarded, _) => unreachable!("nothing is discarded"),
    }
}

proptest! {
    #[test]
    fn agrees_with_the_pseudo_code(ops in prop::collection::vec(op(), 1..80)) {
        let mut p = Pair {
            r: Recovery::with_reordering(Reordering::fixed()),
            rtt: Rtt::default(),
            model: Model::default(),
            model_rtt: Rtt::default(),
            now: Instant::from_micros(1_000_000),
            flight: 0,
            spurious: 0,
        };
        for op in ops {
            match op {
                Op::Send(n) => (0..n).for_each(|_| p.send()),
                Op::Wait(us) => p.now += Duration::from_micros(us),
                Op::Ack(distances) => p.ack(&distances),
                Op::Fire => p.fire(),
            }
            p.check();
        }
    }
}

//! The history of sent packets against a plain map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::sent::{LossRule, SPAN_SLACK, SentHistory};
use super::tests::packet;
use super::*;

/// When every packet is sent; later than the loss rule's time, so that only the packet threshold decides.
const SENT: Instant = Instant::from_micros(1000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Live,
    Lost,
}

#[derive(Clone, Debug)]
enum Op {
    /// Sends that many packets with 0 to 3 records each.
    Push(u64),
    /// Sends many, of which all but these distances from the end are acknowledged at once.
    Burst(Vec<u64>),
    Skip,
    /// Acknowledges ranges (distance below the next number, length).
    Ack(Vec<(u64, u64)>),
    /// Loss detection with this packet threshold and the largest number acknowledged so far.
    Detect(u64),
    Expire,
    TakeAll,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1u64..30).prop_map(Op::Push),
        1 => prop::collection::vec(0u64..1400, 1..5).prop_map(Op::Burst),
        1 => Just(Op::Skip),
        6 => prop::collection::vec((0u64..60, 0u64..9), 1..6).prop_map(Op::Ack),
        1 => prop::collection::vec((0u64..3000, 0u64..400), 1..6).prop_map(Op::Ack),
        3 => (1u64..40).prop_map(Op::Detect),
        1 => Just(Op::Expire),
        1 => Just(Op::TakeAll),
    ]
}

struct Pair {
    history: SentHistory,
    model: BTreeMap<u64, Is>,
    largest_acked: Option<u64>,
}

fn records(pn: u64) -> Vec<Record> {
    (0..pn % 4).map(|i| Record::Datagram(10 * pn + i)).collect()
}

impl Pair {
    fn push(&mut self) {
        let pn = self.history.next_pn();
        self.history.push(pn, &packet(SENT), &records(pn));
        self.model.insert(pn, Is::Live);
    }

    /// Acknowledges these numbers and checks what is shown for them.
    fn ack(&mut self, pns: &[u64]) {
        self.history.begin_ack();
        let mut shown = Vec::new();
        let mut high = None;
        let mut sorted = pns.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        self.largest_acked = self.largest_acked.max(sorted.last().copied());
        for (i, &pn) in sorted.iter().enumerate().rev() {
            let top = *high.get_or_insert(pn);
            if i == 0 || sorted[i - 1] + 1 != pn {
                self.history.ack_range(pn, top, |f| {
                    assert_eq!(f.records, records(f.pn));
                    shown.push((f.pn, if f.was_lost { Is::Lost } else { Is::Live }));
                });
                high = None;
            }
        }
        self.history.finish_ack();
        let expected: Vec<_> = sorted.iter().filter_map(|pn| Some((*pn, self.model.remove(pn)?))).collect();
        shown.sort_unstable_by_key(|s| s.0);
        assert_eq!(shown, expected);
    }

    fn detect(&mut self, threshold: u64) {
        let Some(largest_acked) = self.largest_acked else { return };
        let rule = LossRule { largest_acked, packet_threshold: threshold, sent_before: Instant::ZERO };
        let mut shown = Vec::new();
        self.history.detect_lost(Instant::from_micros(1), &rule, |f, _| {
            assert_eq!(f.records, records(f.pn));
            shown.push(f.pn);
        });
        let is_lost = |(pn, is): &(&u64, &Is)| **is == Is::Live && **pn + threshold <= largest_acked;
        let lost: Vec<u64> = self.model.iter().filter(is_lost).map(|(pn, _)| *pn).collect();
        assert_eq!(shown, lost);
        lost.iter().for_each(|pn| _ = self.model.insert(*pn, Is::Lost));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn behaves_like_a_map(ops in prop::collection::vec(op(), 1..60)) {
        let mut p = Pair { history: SentHistory::new(), model: BTreeMap::new(), largest_acked: None };
        for op in ops {
            match op {
                Op::Push(n) => (0..n).for_each(|_| p.push()),
                Op::Burst(stragglers) => {
                    let first = p.history.next_pn();
                    (0..1400).for_each(|_| p.push());
                    let all: Vec<u64> = (first..first + 1400).filter(|pn| !stragglers.contains(&(pn - first))).collect();
                    p.ack(&all);
                }
                Op::Skip => p.history.skip(),
                Op::Ack(ranges) => {
                    let next = p.history.next_pn();
                    let ends = ranges.iter().filter_map(|(below, len)| Some((next.checked_sub(below + 1)?, *len)));
                    let all: Vec<u64> = ends.flat_map(|(high, len)| high.saturating_sub(len)..=high).collect();
                    if !all.is_empty() {
                        p.ack(&all);
                    }
                }
                Op::Detect(threshold) => p.detect(threshold),
                Op::Expire => {
                    let lost = p.model.values().filter(|is| **is == Is::Lost).count();
                    prop_assert_eq!(p.history.expire(Instant::from_micros(1)), lost);
                    p.model.retain(|_, is| *is == Is::Live);
                }
                Op::TakeAll => {
                    let mut shown = Vec::new();
                    p.history.take(|packet| packet.size == 1200, |f| shown.push(f.pn));
                    let live: Vec<u64> = p.model.iter().filter(|m| *m.1 == Is::Live).map(|m| *m.0).collect();
                    prop_assert_eq!(shown, live);
                    p.model.clear();
                }
            }
            let live = p.model.values().filter(|is| **is == Is::Live).count();
            prop_assert_eq!((p.history.live(), p.history.eliciting()), (live, live));
            let kept: usize = p.model.keys().map(|pn| (pn % 4) as usize).filter(|n| *n > 1).sum();
            prop_assert_eq!(p.history.records_in_use(), kept);
            let lost = p.model.len() - live;
            prop_assert!(p.history.entries() <= 4 * live + SPAN_SLACK + lost);
        }
    }
}

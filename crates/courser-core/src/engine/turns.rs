//! Turns at sending: who sends next, and how much (seed: the outgoing queue).
//!
//! Deficit round robin over connections, with one full train as the quantum. A turn is worth [`QUANTUM`] bytes; each train
//! takes its bytes off, and a connection whose trains are short goes on with the next one until its turn is used up or
//! [`TRAINS_PER_TURN`] have left. What is left over, or was taken too much, counts in its next turn; who has nothing more to
//! send loses it. So connections share the socket by bytes, and nearly every train is as long as segmentation offload
//! takes, because nobody is interrupted in the middle of one.
//!
//! Order: who had no turn for longest goes first. Connections that go on wait in `back`, which is in that order by itself.
//! One that becomes ready goes in front of them all, into `fresh`, when its last turn was before that of the first one in
//! `back`; a short answer does not wait behind a thousand transfers. It can do so only once before that first one has its
//! turn, so nobody starves: while a connection waits, no other one has more than two turns.

use core::time::Duration;
use std::collections::VecDeque;

use crate::conn::Crowd;
use crate::packetiser::TRAIN_BYTES_MAX;
use crate::time::Instant;

/// Bytes of a turn: a full train.
const QUANTUM: i32 = TRAIN_BYTES_MAX as i32;
/// With less than this left a turn ends, and the rest counts in the next one.
const ENOUGH: i32 = QUANTUM / 4;
/// Trains of a turn, at most: each is a system call, and others wait for it.
const TRAINS_PER_TURN: u8 = 4;
/// Senders are counted for so long, about a round trip of the Internet.
const PERIOD: Duration = Duration::from_millis(100);
/// More connections than that which send data in a period are a crowd.
const CROWD: u32 = 64;
/// With more trains of data than that in a period it is a busy one: about a twentieth of a processor's time goes into them.
const BUSY: u32 = 500;

/// What is known of a connection's turns.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// Number of its last turn; zero: it had none.
    last: u64,
    /// Bytes left of its turn.
    credit: i32,
    /// Trains of this turn.
    trains: u8,
    /// It is in one of the queues, or in the middle of its turn.
    waits: bool,
    /// The last period in which it sent data.
    period: u16,
}

/// Who sent data in a period.
#[derive(Clone, Copy, Default)]
struct Senders {
    connections: u32,
    trains: u32,
}

/// The connections that have something to send, by index of the table; each is there at most once.
#[derive(Default)]
pub(super) struct Turns {
    /// Those that have waited longer than anybody in `back`.
    fresh: VecDeque<u32>,
    /// Those that had a turn and go on, in the order of their turns.
    back: VecDeque<u32>,
    /// Who goes on with its turn.
    current: Option<u32>,
    slots: Vec<Slot>,
    /// Turns so far.
    count: u64,
    /// Number of the present period, which began at `since`; zero: none has begun.
    period: u16,
    since: Instant,
    /// Who sent data in it until now, and in the one before.
    present: Senders,
    before: Senders,
}

impl Turns {
    /// A connection has something to send; it waits unless it does already.
    pub(super) fn push(&mut self, index: u32) {
        let at = index as usize;
        if at >= self.slots.len() {
            self.slots.resize(at + 1, Slot::default());
        }
        if core::mem::replace(&mut self.slots[at].waits, true) {
            return;
        }
        let last = self.slots[at].last;
        match self.back.front() {
            Some(first) if self.slots[*first as usize].last < last => self.back.push_back(index),
            _ => self.fresh.push_back(index),
        }
    }

    /// Whose train is to be built next. [`used`](Self::used) or [`unused`](Self::unused) follows.
    pub(super) fn next(&mut self) -> Option<u32> {
        if let Some(index) = self.current.take() {
            return Some(index);
        }
        let index = self.fresh.pop_front().or_else(|| self.back.pop_front())?;
        self.count += 1;
        let slot = &mut self.slots[index as usize];
        *slot = Slot {
            last: self.count,
            credit: slot.credit.saturating_add(QUANTUM),
            trains: 0,
            waits: true,
            period: slot.period,
        };
        Some(index)
    }

    /// It sent a train of so many bytes, and may have more.
    pub(super) fn used(&mut self, index: u32, bytes: usize, more: bool) {
        let slot = &mut self.slots[index as usize];
        if !more {
            return self.unused(index);
        }
        slot.credit = slot.credit.saturating_sub(i32::try_from(bytes).unwrap_or(QUANTUM));
        slot.trains += 1;
        if slot.credit >= ENOUGH && slot.trains < TRAINS_PER_TURN {
            self.current = Some(index);
        } else {
            slot.credit = slot.credit.min(ENOUGH);
            self.back.push_back(index);
        }
    }

    /// It has nothing to send, now or any more.
    pub(super) fn unused(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        (slot.credit, slot.waits) = (0, false);
    }

    /// It sent a train of data.
    pub(super) fn count_data(&mut self, now: Instant, index: u32) {
        let lasted = now.since(self.since);
        if lasted >= PERIOD || self.period == 0 {
            self.before = if lasted < 2 * PERIOD { self.present } else { Senders::default() };
            (self.present, self.since) = (Senders::default(), now);
            // Who was silent for 65,535 periods may not be counted once.
            self.period = self.period.wrapping_add(1).max(1);
        }
        let slot = &mut self.slots[index as usize];
        self.present.trains += 1;
        if core::mem::replace(&mut slot.period, self.period) != self.period {
            self.present.connections += 1;
        }
    }

    /// Whether many connections send: of the present period and the one before, what shows more of them.
    pub(super) fn crowd(&self) -> Crowd {
        if self.present.connections.max(self.before.connections) <= CROWD {
            Crowd::None
        } else if self.present.trains.max(self.before.trains) <= BUSY {
            Crowd::Present
        } else {
            Crowd::Busy
        }
    }

    /// The index will be another connection's, which begins like any new one.
    pub(super) fn forget(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            (slot.credit, slot.last, slot.period) = (0, 0, 0);
        }
    }

    /// Whether a connection waits for its turn.
    pub(super) fn waits(&self, index: u32) -> bool {
        self.slots.get(index as usize).is_some_and(|slot| slot.waits)
    }

    /// Turns so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Whose turns come next, as it looks now.
    pub(super) fn front(&self) -> impl Iterator<Item = u32> + '_ {
        self.fresh.iter().chain(&self.back).copied()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.back.len() + usize::from(self.current.is_some())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: usize = 64_768;

    #[test]
    fn full_trains_alternate() {
        let mut turns = Turns::default();
        (0..3).for_each(|i| turns.push(i));
        let order: Vec<u32> = (0..30)
            .map(|_| {
                let index = turns.next().unwrap();
                turns.used(index, FULL, true);
                index
            })
            .collect();
        assert!(order.chunks(3).all(|round| round == [0, 1, 2]), "{order:?}");
    }

    #[test]
    fn short_trains_fill_a_turn_and_long_ones_end_it() {
        // Sender 0 has trains of 20,000 bytes, sender 1 full ones: by bytes they are equal after each pair of turns.
        let mut turns = Turns::default();
        (0..2).for_each(|i| turns.push(i));
        let mut bytes = [0usize; 2];
        let mut worst = 0;
        for _ in 0..4_000 {
            let index = turns.next().unwrap();
            let len = [20_000, FULL][index as usize];
            turns.used(index, len, true);
            bytes[index as usize] += len;
            worst = worst.max(bytes[0].abs_diff(bytes[1]));
        }
        assert!(worst <= (QUANTUM + ENOUGH) as usize, "{worst} bytes apart");
        assert!(bytes[0] > 60 * FULL);
    }

    #[test]
    fn tiny_trains_hold_the_others_up_for_four_calls_at_most() {
        let mut turns = Turns::default();
        (0..2).for_each(|i| turns.push(i));
        let mut run = 0;
        for _ in 0..1_000 {
            let index = turns.next().unwrap();
            turns.used(index, [100, FULL][index as usize], true);
            run = if index == 0 { run + 1 } else { 0 };
            assert!(run <= usize::from(TRAINS_PER_TURN));
        }
        assert!(turns.slots[0].credit <= ENOUGH, "what a sender does not use does not pile up");
    }

    #[test]
    fn who_becomes_ready_goes_before_a_thousand_that_go_on() {
        let mut turns = Turns::default();
        (0..1_000).for_each(|i| turns.push(i));
        for _ in 0..1_500 {
            let index = turns.next().unwrap();
            turns.used(index, FULL, true);
        }
        turns.push(5_000);
        assert_eq!(turns.next(), Some(5_000));
        turns.used(5_000, 100, false);
        // Again at once: now the others have waited longer.
        turns.push(5_000);
        let before = (0..).take_while(|_| {
            let index = turns.next().unwrap();
            turns.used(index, FULL, index != 5_000);
            index != 5_000
        });
        assert_eq!(before.count(), 1_000);
    }

    #[test]
    fn another_connection_at_the_same_index_owes_nothing() {
        let mut turns = Turns::default();
        turns.push(7);
        assert_eq!(turns.next(), Some(7));
        turns.used(7, FULL, true);
        turns.forget(7);
        assert_eq!((turns.slots[7].credit, turns.len()), (0, 1));
        assert_eq!(turns.next(), Some(7));
        turns.unused(7);
        assert_eq!((turns.next(), turns.len()), (None, 0));
    }

    #[test]
    fn a_crowd_is_many_senders_in_a_period_and_a_busy_one_has_many_trains() {
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let send = |turns: &mut Turns, ms: u64, index: u32| {
            turns.push(index);
            assert_eq!(turns.next(), Some(index));
            turns.used(index, 1_000, false);
            turns.count_data(at(ms), index);
        };
        let mut turns = Turns::default();
        // Few that send much are none.
        (0..10_000).for_each(|n| send(&mut turns, 1_000, n % CROWD));
        assert_eq!(turns.crowd(), Crowd::None);
        // One more, and they are a busy one; without much it is none any more, a period later.
        send(&mut turns, 1_001, CROWD);
        assert_eq!(turns.crowd(), Crowd::Busy);
        (0..=CROWD).for_each(|n| send(&mut turns, 1_100, n));
        assert_eq!(turns.crowd(), Crowd::Busy, "what the last period showed counts");
        (0..=CROWD).for_each(|n| send(&mut turns, 1_200, n));
        assert_eq!(turns.crowd(), Crowd::Present);
        // After silence, nothing that was counts.
        send(&mut turns, 9_000, 0);
        assert_eq!(turns.crowd(), Crowd::None);
        // Another connection at the same index counts anew.
        (1..CROWD).for_each(|n| send(&mut turns, 9_001, n));
        turns.forget(0);
        send(&mut turns, 9_002, 0);
        assert_eq!(turns.crowd(), Crowd::Present);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn nobody_has_three_turns_while_another_one_waits(ops in prop::collection::vec((0u32..12, 0usize..4), 1..400)) {
            let mut turns = Turns::default();
            // By index: how many turns each other one had since it began to wait.
            let mut waiting = std::collections::BTreeMap::<u32, std::collections::BTreeMap<u32, u32>>::new();
            let mut previous = None;
            for (index, op) in ops {
                if op == 0 {
                    turns.push(index);
                    waiting.entry(index).or_default();
                    continue;
                }
                let expected = !waiting.is_empty();
                let Some(next) = turns.next() else {
                    prop_assert!(!expected);
                    continue;
                };
                prop_assert!(waiting.remove(&next).is_some(), "{} did not wait", next);
                let goes_on = previous == Some(next);
                for others in waiting.values_mut() {
                    let had = others.entry(next).or_default();
                    *had += u32::from(!goes_on);
                    prop_assert!(*had <= 2);
                }
                let (bytes, more) = [(FULL, true), (1_000, true), (30_000, index % 2 == 0)][op - 1];
                turns.used(next, bytes, more);
                previous = (turns.current == Some(next)).then_some(next);
                if more {
                    waiting.insert(next, std::collections::BTreeMap::new());
                }
                prop_assert_eq!(turns.len(), waiting.len());
            }
        }
    }
}

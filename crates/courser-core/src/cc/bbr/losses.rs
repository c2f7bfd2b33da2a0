//! Losses that say nothing about how much the path carries.
//!
//! - [`LossFloor`]: the share of packets that gets lost although the sender is slower than the path delivers. Such losses do
//!   not depend on what is in flight, so less in flight cures nothing.
//! - [`LossBudget`]: as many losses as probing puts up with are put up with at other times, too; more than that shorten the
//!   bounds as the draft has it.

use super::model::{LOSS_THRESH, percent};

/// Datagrams of a measurement of the share that is lost.
const FLOOR_DATAGRAMS: u64 = 200;
/// A floor falls when so many times that many were lost less often.
const FALL_WINDOWS: u64 = 3;
/// The floor is at most this many thousandths: beyond it a path is rather policed than bad.
const FLOOR_MAX: u64 = 50;
/// Losses are tested while sending at most so many percent of the largest rate.
const FLOOR_TEST: u64 = 93;
/// Probing cycles for which a floor holds without another test.
const FLOOR_CYCLES: u8 = 8;
/// Datagrams that the budget holds at least, and the share of the window that it holds at least, in percent: losses come in
/// bursts.
const BUDGET_DATAGRAMS: u64 = 10;
const BUDGET_WINDOW: u64 = 4;

/// Bytes that were delivered and lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    acked: u64,
    lost: u64,
}

impl Share {
    fn is_enough(&self, mss: u64) -> bool {
        self.acked + self.lost >= FLOOR_DATAGRAMS * mss
    }

    const fn thousandths(&self) -> u64 {
        self.lost * 1000 / if self.acked + self.lost == 0 { 1 } else { self.acked + self.lost }
    }
}

/// Losses that come however slowly one sends.
///
/// BBR follows losses while it cruises: it slows down to what was delivered. If at least half as many are lost when it sends
/// a fourteenth less than was delivered before, and no queue stands, then slowing down does not cure them: the share becomes
/// the floor, and the rate of before comes back. A floor has to be shown anew after some cycles. Where there is none, which
/// is what the draft assumes, every threshold is the draft's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LossFloor {
    /// At the full rate, and slower.
    full: Share,
    slower: Share,
    /// In thousandths.
    floor: u64,
    cycles: u8,
    /// What rounds at the full rate delivered, in bytes per second, added up, and how many they were.
    delivered: (u64, u64),
}

impl LossFloor {
    /// In thousandths.
    pub(super) const fn get(&self) -> u64 {
        self.floor
    }

    /// A probing cycle begins.
    pub(super) fn on_cycle(&mut self) {
        (self.full, self.slower, self.delivered) = (Share::default(), Share::default(), (0, 0));
        self.cycles = self.cycles.saturating_sub(1);
        if self.cycles == 0 {
            self.floor = 0;
        }
    }

    pub(super) fn on_lost(&mut self, bytes: u64, slower: bool) {
        let share = if slower { &mut self.slower } else { &mut self.full };
        share.lost += bytes;
    }

    /// Counts what was delivered while cruising; returns whether losses were just shown not to depend on the rate.
    pub(super) fn on_acked(&mut self, bytes: u64, slower: bool, mss: u64) -> bool {
        let share = if slower { &mut self.slower } else { &mut self.full };
        share.acked += bytes;
        if !slower && self.full.is_enough(FALL_WINDOWS * mss) {
            self.floor = self.floor.min(2 * self.full.thousandths());
            self.full = Share::default();
        }
        if !self.slower.is_enough(mss) {
            return false;
        }
        let (before, after) = (self.full.thousandths(), self.slower.thousandths());
        self.slower = Share::default();
        if after == 0 || after * 2 < before || after > FLOOR_MAX {
            return false;
        }
        (self.floor, self.cycles) = (self.floor.max(after), FLOOR_CYCLES);
        self.full = Share::default();
        true
    }

    /// A round at the full rate ended.
    pub(super) fn on_round(&mut self, delivery_rate: u64) {
        self.delivered = (self.delivered.0.saturating_add(delivery_rate), self.delivered.1 + 1);
    }

    /// Whether this rate is so much below what was delivered that losses by the rate would have gone.
    pub(super) fn is_slower(&self, rate: u64) -> bool {
        rate <= percent(self.delivered.0.checked_div(self.delivered.1).unwrap_or(0), FLOOR_TEST)
    }

    /// Bytes that may be lost of `bytes` by the floor alone: its mean and two standard deviations.
    pub(super) fn expects(&self, bytes: u64, mss: u64) -> u64 {
        expected(bytes, self.floor, mss)
    }
}

/// A bucket that fills with a share of what is delivered and is emptied by losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LossBudget {
    /// Bytes that may be lost, and thousandths of a byte.
    left: u64,
    fraction: u64,
    /// More was lost since somebody asked.
    exhausted: bool,
    /// What cruising delivered and lost in this cycle and in the one before.
    cruise: [Share; 2],
}

impl LossBudget {
    /// Adds what an acknowledgement brings.
    pub(super) fn on_acked(&mut self, bytes: u64, floor: u64, window: u64, mss: u64) {
        let most = (BUDGET_DATAGRAMS * mss).max(percent(window, BUDGET_WINDOW));
        self.fraction += bytes.saturating_mul(LOSS_THRESH + floor);
        self.left = self.left.saturating_add(self.fraction / 1000).min(most);
        self.fraction %= 1000;
    }

    pub(super) fn on_lost(&mut self, bytes: u64) {
        self.exhausted |= bytes > self.left;
        self.left = self.left.saturating_sub(bytes);
    }

    /// Whether more was lost than there was, since the last call.
    pub(super) fn take_exhausted(&mut self) -> bool {
        core::mem::take(&mut self.exhausted)
    }

    /// What happened while cruising: the share of random losses is taken from it.
    pub(super) fn on_cruise(&mut self, acked: u64, lost: u64) {
        self.cruise[0].acked = self.cruise[0].acked.saturating_add(acked);
        self.cruise[0].lost = self.cruise[0].lost.saturating_add(lost);
    }

    /// A probing cycle begins.
    pub(super) fn on_cycle(&mut self, mss: u64) {
        if self.cruise[0].is_enough(mss) {
            self.cruise = [Share::default(), self.cruise[0]];
        }
    }

    /// Bytes that random losses as seen while cruising may take of `bytes`: the mean and two standard deviations.
    pub(super) fn expects(&self, bytes: u64, mss: u64) -> u64 {
        let share = if self.cruise[0].is_enough(mss) { &self.cruise[0] } else { &self.cruise[1] };
        expected(bytes, share.thousandths().min(LOSS_THRESH), mss)
    }
}

fn expected(bytes: u64, thousandths: u64, mss: u64) -> u64 {
    let mean = bytes.saturating_mul(thousandths) / 1000;
    mean + 2 * mean.saturating_mul(mss).isqrt()
}

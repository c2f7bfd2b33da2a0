//! What round trips say about the queue at the bottleneck.
//!
//! Two figures stand for an empty queue: the smallest sample, which the model knows, and the smallest mean of a round, which
//! also has what jitter, bunched release and late acknowledgements always add. Where a path adds nothing, they are one. The
//! second one only tells whether the path was seen empty.

use core::time::Duration;

use super::INFINITY;
use crate::time::{Instant, micros};

/// A long queue is one that adds a part of the round trip, but at most this, and some time, in microseconds.
const LONG_PART: u64 = 4;
const LONG_PART_MAX_US: u64 = 40_000;
const LONG_US: u64 = 4000;
/// Samples of a round that say something about it.
const ROUND_SAMPLES: u32 = 4;
/// Samples of which the smallest counts: a bunch of late acknowledgements does not move it. When they are seldom, fewer will
/// do after a round trip.
const BLOCK: u32 = 8;
const BLOCK_MIN: u32 = 3;
/// The smallest mean is that of one to two times so long.
const MEAN_FILTER: Duration = Duration::from_secs(5);
/// A queue is seen when it adds one part of so many, and the time that a packet takes.
const SEEN_PART: u64 = 16;
/// A round is quiet when its mean exceeds the smallest by less than one part of so many, noise aside.
const QUIET_PART: u64 = 64;

/// What a round showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// The queue never was short.
    pub stood: bool,
    /// Hardly longer, on average, than the shortest one.
    pub is_quiet: bool,
}

/// The queue, by samples of the round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    /// Of this round: the smallest sample, their sum, how many there were.
    round_us: u64,
    sum_us: u64,
    round_samples: u32,
    /// Smallest of the samples since the last block, how many they are, when the first came.
    block_us: u64,
    block_samples: u32,
    block_since: Instant,
    /// Smallest of the last block.
    recent_us: u64,
    /// Smallest mean of a round, of this time and of the one before.
    means_us: [u64; 2],
    means_since: Instant,
}

impl Queue {
    pub const fn new(now: Instant) -> Self {
        Self {
            round_us: INFINITY,
            sum_us: 0,
            round_samples: 0,
            block_us: INFINITY,
            block_samples: 0,
            block_since: now,
            recent_us: 0,
            means_us: [INFINITY; 2],
            means_since: now,
        }
    }

    /// The round trip without a queue, noise included: at most twice the smallest sample.
    fn base_us(&self, min_rtt_us: u64) -> u64 {
        match self.means_us[0].min(self.means_us[1]) {
            INFINITY => min_rtt_us,
            mean => mean.clamp(min_rtt_us, min_rtt_us.saturating_mul(2)),
        }
    }

    /// Whether all recent samples show a long queue.
    pub fn is_long(&self, min_rtt_us: u64) -> bool {
        is_long(self.recent_us, min_rtt_us)
    }

    /// Whether all recent samples show some queue; a packet takes `packet_us` at the bottleneck.
    pub const fn is_seen(&self, min_rtt_us: u64, packet_us: u64) -> bool {
        self.recent_us > min_rtt_us.saturating_add(min_rtt_us / SEEN_PART).saturating_add(packet_us)
    }

    /// Takes a sample; tells about a round that ended.
    pub fn on_sample(&mut self, now: Instant, rtt_us: Option<u64>, round_start: bool, min_rtt_us: u64) -> Round {
        let mut round = Round::default();
        if round_start {
            if self.round_samples >= ROUND_SAMPLES {
                round = self.end_round(now, min_rtt_us);
            }
            (self.round_us, self.sum_us, self.round_samples) = (INFINITY, 0, 0);
        }
        let Some(us) = rtt_us else { return round };
        self.round_us = self.round_us.min(us);
        self.sum_us = self.sum_us.saturating_add(us);
        self.round_samples += 1;
        if self.block_samples == 0 {
            self.block_since = now;
        }
        self.block_us = self.block_us.min(us);
        self.block_samples += 1;
        let late = self.block_samples >= BLOCK_MIN && micros(now.since(self.block_since)) >= min_rtt_us;
        if late || self.block_samples >= BLOCK {
            self.recent_us = self.block_us;
            (self.block_us, self.block_samples) = (INFINITY, 0);
        }
        round
    }

    fn end_round(&mut self, now: Instant, min_rtt_us: u64) -> Round {
        let mean = self.sum_us / u64::from(self.round_samples.max(1));
        if now > self.means_since + MEAN_FILTER {
            self.means_us = [INFINITY, self.means_us[0]];
            self.means_since = now;
        }
        self.means_us[0] = self.means_us[0].min(mean);
        let base = self.base_us(min_rtt_us);
        let noise = (base - min_rtt_us) / 2;
        let is_quiet = mean <= base.saturating_add(noise).saturating_add(base / QUIET_PART);
        Round { stood: is_long(self.round_us, min_rtt_us), is_quiet }
    }
}

fn is_long(us: u64, min_rtt_us: u64) -> bool {
    us != INFINITY && us.saturating_sub(min_rtt_us) >= (min_rtt_us / LONG_PART).min(LONG_PART_MAX_US) + LONG_US
}

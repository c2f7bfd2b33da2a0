//! Delivery rate samples (BBR draft section 4.1): how fast the path delivered what was sent within about a round trip.
//!
//! The draft keeps six values with each packet. Here they are kept once for all packets that left within a small part of a
//! round trip, in a ring beside the sent packets, and found again by the time of sending: the draft recommends to track
//! aggregates, and a sent packet does not grow. Because a mark holds a count together with the time at which it was true,
//! sharing one makes the interval of a sample a little longer and its rate no different.

use std::collections::VecDeque;

use crate::time::{Instant, micros};

/// Marks that a round trip is divided into, at least.
const MARKS_PER_RTT: u64 = 64;
/// Marks of packets that left so many round trips ago are dropped.
const KEEP_RTTS: u64 = 4;
/// Most marks; when there are as many, packets share the newest one.
const MARKS_MAX: usize = 1024;

/// A silence that takes so many of the shortest round trips, and so many microseconds, is an outage and no slow link.
const SILENCE_RTTS: u64 = 2;
const SILENCE_US: u64 = 100_000;

/// What was true when packets left; named as in the draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// When the first of the packets left.
    pub sent: Instant,
    pub delivered: u64,
    pub delivered_time: Instant,
    pub first_send_time: Instant,
    pub lost: u64,
    /// Bytes in flight, the last of the packets included.
    pub tx_in_flight: u64,
    pub is_app_limited: bool,
}

/// What an acknowledgement tells (the draft's RS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RateSample {
    /// Bytes that this acknowledgement delivered.
    pub newly_acked: u64,
    /// Bytes that were delivered within the sampled interval.
    pub delivered: u64,
    /// Bytes per second; 0: there is no reliable sample.
    pub delivery_rate: u64,
    /// The same by the times of acknowledgements alone: what the path carries while a queue stands, however slowly it was
    /// sent. 0 also when the link was silent meanwhile.
    pub ack_rate: u64,
    /// What had been delivered when the newest of the packets left.
    pub prior_delivered: u64,
    /// Bytes in flight when it had left.
    pub tx_in_flight: u64,
    /// Bytes declared lost since it left.
    pub lost: u64,
    /// The sender had nothing to send at some time within the interval.
    pub is_app_limited: bool,
}

/// Counters of a connection (the draft's C) and the marks of what is in flight.
#[derive(Clone, Debug)]
pub(super) struct Sampler {
    /// Bytes delivered so far.
    pub delivered: u64,
    /// Bytes declared lost so far.
    pub lost: u64,
    delivered_time: Instant,
    first_send_time: Instant,
    /// Samples are limited by the application until this much is delivered; 0: they are not.
    app_limited: u64,
    /// When the last silence ended. What was delivered since then tells how fast the link is, an outage does not.
    silent_until: Instant,
    marks: VecDeque<Mark>,
    /// Packets share a mark for so many microseconds.
    resolution_us: u64,
}

impl Sampler {
    pub fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            lost: 0,
            delivered_time: now,
            first_send_time: now,
            app_limited: 0,
            silent_until: now,
            marks: VecDeque::new(),
            resolution_us: 0,
        }
    }

    /// A packet left; `in_flight` counts it.
    pub fn on_sent(&mut self, now: Instant, bytes: u64, in_flight: u64) {
        let restarts = in_flight <= bytes;
        if restarts {
            (self.first_send_time, self.delivered_time) = (now, now);
        }
        let full = self.marks.len() >= MARKS_MAX;
        let limited = self.is_app_limited();
        if let Some(mark) = self.marks.back_mut()
            && (full || !restarts && (now == mark.sent || micros(now.since(mark.sent)) < self.resolution_us))
        {
            mark.tx_in_flight = in_flight;
            mark.is_app_limited |= limited;
            return;
        }
        self.marks.push_back(Mark {
            sent: now,
            delivered: self.delivered,
            delivered_time: self.delivered_time,
            first_send_time: self.first_send_time,
            lost: self.lost,
            tx_in_flight: in_flight,
            is_app_limited: limited,
        });
    }

    /// The mark of packets that left at that time; the oldest one for those that are older still.
    pub fn mark_of(&self, sent: Instant) -> Option<&Mark> {
        let after = self.marks.partition_point(|m| m.sent <= sent);
        self.marks.get(after.saturating_sub(1))
    }

    /// Packets were delivered, the newest of which left at `sent`. A sample over less than the smallest round trip is none.
    pub fn on_acked(&mut self, now: Instant, bytes: u64, sent: Instant, min_rtt_us: u64) -> RateSample {
        self.delivered += bytes;
        if micros(now.since(self.delivered_time)) > min_rtt_us.saturating_mul(SILENCE_RTTS).max(SILENCE_US) {
            self.silent_until = now;
        }
        self.delivered_time = now;
        if self.delivered > self.app_limited {
            self.app_limited = 0;
        }
        let mut sample = RateSample { newly_acked: bytes, ..RateSample::default() };
        if let Some(mark) = self.mark_of(sent) {
            let interval = micros(sent.since(mark.first_send_time).max(now.since(mark.delivered_time)));
            sample.delivered = self.delivered - mark.delivered;
            sample.prior_delivered = mark.delivered;
            sample.tx_in_flight = mark.tx_in_flight;
            sample.lost = self.lost - mark.lost;
            sample.is_app_limited = mark.is_app_limited;
            if interval > 0 && interval >= min_rtt_us {
                sample.delivery_rate = rate(sample.delivered, interval);
                if mark.delivered_time >= self.silent_until {
                    sample.ack_rate = rate(sample.delivered, micros(now.since(mark.delivered_time)));
                }
            }
        }
        self.first_send_time = self.first_send_time.max(sent);
        sample
    }

    /// Adapts to the round trip and forgets what is too old to matter.
    pub fn on_round_trip(&mut self, now: Instant, smoothed_us: u64) {
        self.resolution_us = smoothed_us / MARKS_PER_RTT;
        let old = now - core::time::Duration::from_micros(smoothed_us.saturating_mul(KEEP_RTTS));
        while self.marks.get(1).is_some_and(|next| next.sent < old) {
            self.marks.pop_front();
        }
    }

    /// Gives the memory of all marks back: nothing is in flight.
    pub fn forget_marks(&mut self) {
        self.marks = VecDeque::new();
    }

    /// There is room in flight and nothing to send: what is sampled until all of this is delivered says little.
    pub fn mark_app_limited(&mut self, in_flight: u64) {
        self.app_limited = (self.delivered + in_flight).max(1);
    }

    pub const fn is_app_limited(&self) -> bool {
        self.app_limited != 0
    }

    #[cfg(test)]
    pub fn marks(&self) -> usize {
        self.marks.len()
    }
}

/// Bytes per second.
pub(super) fn rate(bytes: u64, us: u64) -> u64 {
    let per_second = u128::from(bytes) * 1_000_000 / u128::from(us.max(1));
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

/// Bytes that a rate brings in a time.
pub(super) fn brings(rate: u64, us: u64) -> u64 {
    u64::try_from(u128::from(rate) * u128::from(us) / 1_000_000).unwrap_or(u64::MAX)
}

/// The largest value of the last rounds: three candidates, each the largest since the one before it was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MaxFilter {
    /// Round and value, largest value first, rounds ascending.
    best: [(u64, u64); 3],
}

impl MaxFilter {
    pub const fn get(&self) -> u64 {
        self.best[0].1
    }

    pub fn update(&mut self, round: u64, value: u64, window: u64) -> u64 {
        let [first, second, third] = &mut self.best;
        if value >= first.1 || round.saturating_sub(third.0) > window {
            self.best = [(round, value); 3];
            return value;
        }
        if value >= second.1 {
            (*second, *third) = ((round, value), (round, value));
        } else if value >= third.1 {
            *third = (round, value);
        }
        let age = round.saturating_sub(first.0);
        if age > window {
            (*first, *second, *third) = (*second, *third, (round, value));
            if round.saturating_sub(first.0) > window {
                (*first, *second) = (*second, *third);
            }
        } else if second.0 == first.0 && age > window / 4 {
            (*second, *third) = ((round, value), (round, value));
        } else if third.0 == second.0 && age > window / 2 {
            *third = (round, value);
        }
        self.get()
    }
}

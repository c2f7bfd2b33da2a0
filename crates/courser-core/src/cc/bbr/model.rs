//! What acknowledgements and losses teach about the path (BBR draft sections 5.5.1 to 5.5.11).
//!
//! Besides the draft's model there is the [`LossFloor`]: the share of packets that gets lost while the sender does not send
//! faster than the path delivers. Such losses do not depend on what is in flight, so less in flight cures nothing. Where
//! there are none, which is what the draft assumes, every threshold is the draft's.

use super::sampler::{RateSample, brings};
use super::{AckPhase, Bbr, INFINITY, State, Undo};
use crate::cc::Growth;
use crate::time::{Instant, micros};

/// Lossy rounds in a row of which the largest sample counts.
const LOSSY_ROUNDS: u32 = 2;
/// What such a round leaves of the bounds, in percent.
const STEP: u64 = 95;
/// Losses of a round trip that are put up with while probing, in thousandths.
const LOSS_THRESH: u64 = 20;
/// What is left of a bound after congestion, in percent.
const BETA: u64 = 70;
/// Ranges lost in a round trip of Startup that prove more than a burst.
const STARTUP_FULL_LOSS_COUNT: u32 = 6;
/// Rounds in a row with marks that end Startup.
const STARTUP_FULL_CE_ROUNDS: u32 = 2;
/// Rounds that aggregation is remembered for.
const EXTRA_ACKED_ROUNDS: u64 = 10;
/// Rounds without growth that mean a full pipe, and the growth that counts, in percent.
const FULL_BW_COUNT: u32 = 3;
const FULL_BW_GROWTH: u64 = 125;

/// A queue is one that adds a part of the round trip and some time, in microseconds, in that many samples.
const QUEUE_PART: u64 = 4;
const QUEUE_MIN_US: u64 = 4000;
const QUEUE_SAMPLES: u32 = 4;
const QUEUE_BLOCK: u32 = 8;

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

/// Bytes that were delivered and lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
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
    #[cfg(test)]
    pub const fn get(&self) -> u64 {
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

    fn on_lost(&mut self, bytes: u64, slower: bool) {
        let share = if slower { &mut self.slower } else { &mut self.full };
        share.lost += bytes;
    }

    /// Counts what was delivered while cruising; returns whether losses were just shown not to depend on the rate.
    fn on_acked(&mut self, bytes: u64, slower: bool, mss: u64) -> bool {
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
    fn on_round(&mut self, delivery_rate: u64) {
        self.delivered = (self.delivered.0.saturating_add(delivery_rate), self.delivered.1 + 1);
    }

    /// Whether this rate is so much below what was delivered that losses by the rate would have gone.
    fn is_slower(&self, rate: u64) -> bool {
        rate <= percent(self.delivered.0.checked_div(self.delivered.1).unwrap_or(0), FLOOR_TEST)
    }

    /// Bytes that may be lost of `bytes` by the floor alone: its mean and two standard deviations.
    fn expects(&self, bytes: u64, mss: u64) -> u64 {
        let mean = bytes.saturating_mul(self.floor) / 1000;
        mean + 2 * mean.saturating_mul(mss).isqrt()
    }
}

/// What round trips say about the queue at the bottleneck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    /// Smallest sample of this round, and how many there were.
    round_us: u64,
    round_samples: u32,
    /// Smallest of the samples since the last eight, and how many they are.
    block_us: u64,
    block_samples: u32,
    /// Smallest of the last eight: what a bunch of late acknowledgements does not move.
    pub recent_us: u64,
}

impl Queue {
    pub const fn new() -> Self {
        Self { round_us: INFINITY, round_samples: 0, block_us: INFINITY, block_samples: 0, recent_us: 0 }
    }

    /// Whether so many recent samples show a queue.
    pub const fn is_long(&self, min_rtt_us: u64) -> bool {
        self.recent_us.saturating_sub(min_rtt_us) >= min_rtt_us / QUEUE_PART + QUEUE_MIN_US
    }

    /// Takes a sample; returns whether a round ended in which the queue never was short.
    fn on_sample(&mut self, rtt_us: Option<u64>, round_start: bool, min_rtt_us: u64) -> bool {
        let mut stood = false;
        if round_start {
            stood = self.round_samples >= QUEUE_SAMPLES
                && self.round_us.saturating_sub(min_rtt_us) >= min_rtt_us / QUEUE_PART + QUEUE_MIN_US;
            (self.round_us, self.round_samples) = (INFINITY, 0);
        }
        if let Some(us) = rtt_us {
            self.round_us = self.round_us.min(us);
            self.round_samples += 1;
            self.block_us = self.block_us.min(us);
            self.block_samples += 1;
            if self.block_samples >= QUEUE_BLOCK {
                self.recent_us = self.block_us;
                (self.block_us, self.block_samples) = (INFINITY, 0);
            }
        }
        stood
    }
}

impl Bbr {
    /// Packets were declared lost, the newest of which left at `sent`: the draft's HandleLostPacket, once for all of them.
    pub fn on_lost(&mut self, now: Instant, bytes: u64, sent: Instant, ranges: u32, in_flight: u64) {
        self.in_flight = in_flight;
        self.sampler.lost += bytes;
        self.loss_ranges = self.loss_ranges.saturating_add(ranges);
        if self.state == State::Cruise {
            self.floor.on_lost(bytes, self.is_slower());
        }
        self.note_loss();
        let Some(mark) = self.sampler.mark_of(sent).copied().filter(|_| self.is_bw_probe_sample) else { return };
        let lost = self.sampler.lost - mark.lost;
        if self.is_inflight_too_high(lost, mark.tx_in_flight) {
            let tx_in_flight = self.inflight_at_loss(mark.tx_in_flight, lost, bytes);
            self.handle_inflight_too_high(now, tx_in_flight, mark.is_app_limited);
        }
    }

    /// Packets were marked for congestion. The draft asks for a response and leaves it open: a mark while probing means that
    /// too much is in flight, at other times it counts like a loss.
    pub fn on_ce(&mut self, now: Instant, sent: Instant) {
        self.note_loss();
        self.is_ce_in_round = true;
        let Some(mark) = self.sampler.mark_of(sent).copied().filter(|_| self.is_bw_probe_sample) else { return };
        self.handle_inflight_too_high(now, mark.tx_in_flight, mark.is_app_limited);
    }

    fn note_loss(&mut self) {
        if !self.is_loss_in_round {
            self.loss_round_delivered = self.sampler.delivered;
        }
        self.is_loss_in_round = true;
    }

    /// A loss episode begins. The draft saves its state at the first loss of each round trip, and so forgets which state the
    /// losses ended when a second part of them is noticed; here it is saved once for all that an undo would be for.
    pub fn on_congestion(&mut self, _now: Instant) {
        self.save_state_upon_loss();
    }

    pub(super) fn save_state_upon_loss(&mut self) {
        self.save_cwnd();
        self.undo = Undo {
            state: None,
            bw_shortterm: self.bw_shortterm,
            inflight_shortterm: self.inflight_shortterm,
            inflight_longterm: self.inflight_longterm,
        };
    }

    /// The losses of the last episode were none: the draft's HandleSpuriousLossDetection.
    pub fn undo(&mut self) {
        self.cut_at = None;
        self.cwnd = self.cwnd.max(self.prior_cwnd);
        self.is_loss_in_round = false;
        self.reset_full_bw(0);
        self.bw_shortterm = self.bw_shortterm.max(self.undo.bw_shortterm);
        self.inflight_shortterm = self.inflight_shortterm.max(self.undo.inflight_shortterm);
        self.inflight_longterm = self.inflight_longterm.max(self.undo.inflight_longterm);
        match self.undo.state.take() {
            Some(State::Startup) if self.state != State::Startup => {
                self.full_bw_reached = false;
                if self.state != State::ProbeRtt {
                    self.state = State::Startup;
                }
            }
            Some(State::Up) if self.state != State::Up && self.state != State::ProbeRtt => self.start_refill(),
            _ => {}
        }
    }

    /// Whether more was lost of what was in flight than probing may cost.
    fn is_inflight_too_high(&self, lost: u64, tx_in_flight: u64) -> bool {
        lost > tx_in_flight * LOSS_THRESH / 1000 + self.floor.expects(tx_in_flight, self.mss)
    }

    /// How much was in flight when losses became too many, within the `bytes` that were declared lost together.
    fn inflight_at_loss(&self, tx_in_flight: u64, lost: u64, bytes: u64) -> u64 {
        let inflight_prev = tx_in_flight.saturating_sub(bytes);
        let lost_prev = lost.saturating_sub(bytes);
        let allowed = inflight_prev * LOSS_THRESH / 1000 + self.floor.expects(inflight_prev, self.mss);
        inflight_prev + allowed.saturating_sub(lost_prev) * 1000 / (1000 - LOSS_THRESH)
    }

    fn handle_inflight_too_high(&mut self, now: Instant, tx_in_flight: u64, is_app_limited: bool) {
        self.prev_probe_too_high = true;
        self.is_bw_probe_sample = false;
        if !is_app_limited {
            self.inflight_longterm = tx_in_flight.max(self.target_inflight() * BETA / 100);
        }
        if self.state == State::Up {
            self.undo.state = Some(State::Up);
            self.start_down(now);
        }
    }

    pub(super) fn update_latest_delivery_signals(&mut self, rs: &RateSample) {
        self.loss_round_start = false;
        self.bw_latest = self.bw_latest.max(rs.delivery_rate);
        self.inflight_latest = self.inflight_latest.max(rs.delivered);
        if rs.prior_delivered >= self.loss_round_delivered {
            self.loss_round_delivered = self.sampler.delivered;
            self.loss_round_start = true;
        }
    }

    pub(super) fn advance_latest_delivery_signals(&mut self, rs: &RateSample) {
        if self.loss_round_start {
            self.bw_latest = rs.delivery_rate;
            self.inflight_latest = rs.delivered;
        }
    }

    pub(super) fn reset_congestion_signals(&mut self) {
        self.is_loss_in_round = false;
        self.bw_latest = 0;
        self.inflight_latest = 0;
    }

    pub(super) fn reset_short_term_model(&mut self) {
        (self.bw_shortterm, self.inflight_shortterm) = (INFINITY, INFINITY);
    }

    pub(super) fn update_congestion_signals(&mut self, rs: &RateSample) {
        self.update_max_bw(rs);
        if self.state == State::Cruise {
            self.test_floor(rs);
        }
        if self.round_start {
            self.ce_rounds = if self.is_ce_in_round { self.ce_rounds + 1 } else { 0 };
        }
        if self.loss_round_start {
            self.adapt_lower_bounds(rs);
            self.is_loss_in_round = false;
        }
        if self.round_start {
            self.is_ce_in_round = false;
        }
    }

    /// Whether losses have made the sender slower than what it saw delivered.
    fn is_slower(&self) -> bool {
        self.floor.is_slower(self.bw)
    }

    fn test_floor(&mut self, rs: &RateSample) {
        if self.round_start && self.bw_shortterm >= self.max_bw() && rs.delivery_rate > 0 {
            self.floor.on_round(rs.delivery_rate);
        }
        if self.queue.is_long(self.min_rtt_us) {
            self.floor = LossFloor::default();
        } else if self.floor.on_acked(rs.newly_acked, self.is_slower(), self.mss) {
            self.reset_short_term_model();
        }
    }

    fn update_max_bw(&mut self, rs: &RateSample) {
        self.update_round(rs);
        if rs.delivery_rate > 0 && (rs.delivery_rate >= self.max_bw() || !rs.is_app_limited) {
            self.max_bw_filter[0] = self.max_bw_filter[0].max(rs.delivery_rate);
        }
    }

    /// A probing cycle is over: its largest rate is kept for one more.
    pub(super) fn advance_max_bw_filter(&mut self) {
        let [current, before] = self.max_bw_filter;
        // A cycle in which nothing was sampled says nothing.
        self.max_bw_filter = if current == 0 { [0, before] } else { [0, current] };
    }

    fn update_round(&mut self, rs: &RateSample) {
        self.round_start = rs.prior_delivered >= self.next_round_delivered;
        if self.round_start {
            self.start_round();
            self.round_count += 1;
            self.rounds_since_probe_up += 1;
            self.limited_before = core::mem::take(&mut self.limited);
        }
    }

    pub(super) fn start_round(&mut self) {
        self.next_round_delivered = self.sampler.delivered;
    }

    pub(super) fn is_cwnd_limited(&self) -> bool {
        self.limited || self.limited_before
    }

    /// Once per round trip with losses while not probing: towards what is delivered.
    fn adapt_lower_bounds(&mut self, rs: &RateSample) {
        if self.state.is_probing() || !self.is_loss_in_round {
            self.lossy_rounds = 0;
            return;
        }
        if !self.is_ce_in_round && rs.lost <= self.floor.expects(rs.tx_in_flight, self.mss) && self.floor.floor > 0 {
            return;
        }
        if self.bw_shortterm == INFINITY {
            self.bw_shortterm = self.max_bw();
        }
        if self.inflight_shortterm == INFINITY {
            self.inflight_shortterm = self.cwnd;
        }
        self.lossy_rounds += 1;
        // The largest of a round's samples is a little more than what the path carries. When following it did not help, the
        // bounds go on towards what the whole round delivered, in small steps.
        if self.lossy_rounds > LOSSY_ROUNDS && rs.delivery_rate > 0 && !self.is_ce_in_round {
            let bw = rs.delivery_rate.max(percent(self.bw_shortterm, STEP)).min(self.bw_latest);
            let inflight = rs.delivered.max(percent(self.inflight_shortterm, STEP)).min(self.inflight_latest);
            self.bw_shortterm = self.bw_shortterm.min(bw);
            self.inflight_shortterm = self.inflight_shortterm.min(inflight);
            return;
        }
        self.bw_shortterm = self.bw_latest.max(percent(self.bw_shortterm, BETA));
        self.inflight_shortterm = self.inflight_latest.max(percent(self.inflight_shortterm, BETA));
    }

    pub(super) fn bound_bw_for_model(&mut self) {
        self.bw = self.max_bw().min(self.bw_shortterm);
    }

    pub(super) fn update_ack_aggregation(&mut self, now: Instant, rs: &RateSample) {
        let mut expected = brings(self.bw, micros(now.since(self.extra_acked_interval_start)));
        if self.extra_acked_delivered <= expected {
            self.extra_acked_delivered = 0;
            self.extra_acked_interval_start = now;
            expected = 0;
        }
        self.extra_acked_delivered += rs.newly_acked;
        let extra = self.extra_acked_delivered.saturating_sub(expected).min(self.cwnd);
        let window = if self.full_bw_reached { EXTRA_ACKED_ROUNDS } else { 1 };
        self.extra_acked_filter.update(self.round_count, extra, window);
    }

    pub(super) fn reset_full_bw(&mut self, baseline: u64) {
        self.full_bw = baseline;
        self.full_bw_count = 0;
        self.full_bw_now = false;
    }

    pub(super) fn check_full_bw_reached(&mut self, rs: &RateSample) {
        if self.full_bw_now || !self.round_start || rs.is_app_limited {
            return;
        }
        if rs.delivery_rate >= percent(self.full_bw, FULL_BW_GROWTH) {
            self.reset_full_bw(rs.delivery_rate);
            return;
        }
        self.full_bw_count += 1;
        self.full_bw_now = self.full_bw_count >= FULL_BW_COUNT;
        self.full_bw_reached |= self.full_bw_now;
    }

    /// A queue that stood for a whole round of Startup shows that the pipe is full as well as three rounds without growth do,
    /// and sooner.
    pub(super) fn check_full_queue(&mut self, g: &Growth) {
        let stood =
            self.queue.on_sample(g.rtt.fresh.then_some(micros(g.rtt.latest)), self.round_start, self.min_rtt_us);
        if stood && self.state == State::Startup {
            self.full_bw_reached = true;
        }
    }

    /// Whether the pipe has much more room than was known: a round of Up brought a fifth more without a queue.
    pub(super) fn check_up_is_free(&mut self, rs: &RateSample) {
        if self.state != State::Up || self.queue.is_long(self.min_rtt_us) || self.is_loss_in_round {
            self.up_is_free = false;
        } else if self.round_start && self.ack_phase == AckPhase::ProbeFeedback {
            self.up_is_free = rs.delivery_rate >= percent(self.up_from, 120);
            self.up_from = rs.delivery_rate;
        }
    }

    /// Ends Startup when a round trip lost too much, or marks came in two rounds.
    pub(super) fn check_startup_congestion(&mut self, rs: &RateSample) {
        if self.state != State::Startup || self.full_bw_reached {
            return;
        }
        let lossy = self.loss_round_start
            && self.loss_ranges >= STARTUP_FULL_LOSS_COUNT
            && self.is_inflight_too_high(rs.lost, rs.tx_in_flight);
        if self.loss_round_start {
            self.loss_ranges = 0;
        }
        if lossy || self.ce_rounds >= STARTUP_FULL_CE_ROUNDS {
            self.undo.state = Some(State::Startup);
            self.full_bw_reached = true;
            self.inflight_longterm = self.bdp_multiple(self.bw, 100).max(self.inflight_latest);
        }
    }

    /// Follows the meaning of acknowledgements and moves the long-term bound. Returns whether the state changed.
    pub(super) fn adapt_long_term_model(&mut self, rs: &RateSample) -> bool {
        if self.ack_phase == AckPhase::ProbeStarting && self.round_start {
            self.ack_phase = AckPhase::ProbeFeedback;
        }
        if self.ack_phase == AckPhase::ProbeStopping && self.round_start {
            self.is_bw_probe_sample = false;
            self.ack_phase = AckPhase::Init;
            let probes = self.state.is_probe_bw();
            if probes && !rs.is_app_limited {
                self.advance_max_bw_filter();
            }
            if probes && self.prev_probe_precautionary && !self.prev_probe_too_high {
                self.start_refill();
                return true;
            }
        }
        if !self.is_inflight_too_high(rs.lost, rs.tx_in_flight) {
            if self.inflight_longterm == INFINITY {
                return false;
            }
            self.inflight_longterm = self.inflight_longterm.max(rs.tx_in_flight);
            if self.state == State::Up {
                self.probe_inflight_longterm_upward(rs);
            }
        }
        false
    }

    fn probe_inflight_longterm_upward(&mut self, rs: &RateSample) {
        if !self.is_cwnd_limited() || self.cwnd < self.inflight_longterm {
            return;
        }
        self.bw_probe_up_acked += rs.newly_acked;
        if self.bw_probe_up_acked >= self.probe_up_acked_per_inc {
            let delta = self.bw_probe_up_acked / self.probe_up_acked_per_inc;
            self.bw_probe_up_acked -= delta * self.probe_up_acked_per_inc;
            self.inflight_longterm += delta * self.mss;
        }
        if self.round_start {
            self.raise_inflight_longterm_slope();
        }
    }

    pub(super) fn raise_inflight_longterm_slope(&mut self) {
        let growth = 1u64 << self.bw_probe_up_rounds;
        self.bw_probe_up_rounds = (self.bw_probe_up_rounds + 1).min(30);
        self.probe_up_acked_per_inc = (self.cwnd / growth).max(self.mss);
    }
}

fn percent(of: u64, gain: u64) -> u64 {
    u64::try_from(u128::from(of) * u128::from(gain) / 100).unwrap_or(u64::MAX)
}

//! What acknowledgements and losses teach about the path (BBR draft sections 5.5.1 to 5.5.11).
//!
//! Besides the draft's model there are losses that teach nothing ([`super::losses`]), a queue that tells that the pipe is full,
//! and a queue that tells that the rate fell. Where there are neither, every threshold is the draft's.

use super::losses::LossFloor;
use super::sampler::{RateSample, brings};
use super::{AckPhase, Bbr, Departure, INFINITY, State, Undo};
use crate::cc::Growth;
use crate::time::{Instant, micros};

/// Losses of a round trip that are put up with while probing, in thousandths.
pub(super) const LOSS_THRESH: u64 = 20;
/// What is left of what is in flight after congestion, in percent.
const BETA: u64 = 70;
/// The same of the rate: what is delivered is known well enough that a smaller step gets there (decision D83).
const RATE_BETA: u64 = 85;
/// Ranges lost in a round trip of Startup that prove more than a burst.
const STARTUP_FULL_LOSS_COUNT: u32 = 6;
/// Rounds in a row with marks that end Startup.
const STARTUP_FULL_CE_ROUNDS: u32 = 2;
/// Rounds that aggregation is remembered for.
const EXTRA_ACKED_ROUNDS: u64 = 10;
/// Rounds without growth that mean a full pipe, and the growth that counts, in percent.
const FULL_BW_COUNT: u32 = 3;
const FULL_BW_GROWTH: u64 = 125;
/// Growth within a round trip that lets Up go on with Startup's gain, in percent, and the rounds without it that end that.
const FREE_GROWTH: u64 = 115;
const FREE_POOR_ROUNDS: u32 = 2;
/// A rate that falls to less than so many percent while the queue is long fell for good. Somebody else's share of a fair
/// link would leave half.
const DROP: u64 = 45;

impl Bbr {
    /// Packets were declared lost, the newest of which left at `sent`: the draft's HandleLostPacket, once for all of them.
    pub fn on_lost(&mut self, now: Instant, bytes: u64, sent: Instant, ranges: u32, in_flight: u64) {
        self.in_flight = in_flight;
        self.sampler.lost += bytes;
        self.loss_ranges = self.loss_ranges.saturating_add(ranges);
        if self.state == State::Cruise {
            self.floor.on_lost(bytes, self.is_slower());
            self.budget.on_cruise(0, bytes);
        }
        self.budget.on_lost(bytes);
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
        (self.is_ce_in_round, self.is_ce_in_loss_round) = (true, true);
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
        lost > self.allowed_losses(tx_in_flight)
    }

    fn allowed_losses(&self, tx_in_flight: u64) -> u64 {
        let random = if self.floor.get() > 0 || !self.departs(Departure::Budget) {
            self.floor.expects(tx_in_flight, self.mss)
        } else {
            self.budget.expects(tx_in_flight, self.mss)
        };
        tx_in_flight * LOSS_THRESH / 1000 + random
    }

    /// How much was in flight when losses became too many, within the `bytes` that were declared lost together.
    fn inflight_at_loss(&self, tx_in_flight: u64, lost: u64, bytes: u64) -> u64 {
        let inflight_prev = tx_in_flight.saturating_sub(bytes);
        let lost_prev = lost.saturating_sub(bytes);
        let allowed = self.allowed_losses(inflight_prev);
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
        self.budget.on_acked(rs.newly_acked, self.floor.get(), self.cwnd, self.mss);
        if self.state == State::Cruise {
            self.budget.on_cruise(rs.newly_acked, 0);
            if self.departs(Departure::Floor) {
                self.test_floor(rs);
            }
        }
        if self.round_start {
            self.ce_rounds = if self.is_ce_in_round { self.ce_rounds + 1 } else { 0 };
        }
        if self.loss_round_start {
            self.adapt_lower_bounds(rs);
            (self.is_loss_in_round, self.is_ce_in_loss_round) = (false, false);
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
        self.budget.on_cycle(self.mss);
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
            return;
        }
        let marked = self.is_ce_in_loss_round;
        if !marked && rs.lost <= self.floor.expects(rs.tx_in_flight, self.mss) && self.floor.get() > 0 {
            return;
        }
        let exhausted = self.budget.take_exhausted();
        if !marked && !exhausted && self.departs(Departure::Budget) {
            return;
        }
        if self.bw_shortterm == INFINITY {
            self.bw_shortterm = self.max_bw();
        }
        if self.inflight_shortterm == INFINITY {
            self.inflight_shortterm = self.cwnd;
        }
        self.bw_shortterm = self.bw_latest.max(percent(self.bw_shortterm, RATE_BETA));
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

    /// Hears what the round trip says about the queue.
    pub(super) fn observe_queue(&mut self, g: &Growth, rs: &RateSample) {
        let (base, rtt) = (self.min_rtt_us, g.rtt.fresh.then_some(micros(g.rtt.latest)));
        self.round = self.queue.on_sample(g.now, rtt, self.round_start, base);
        if !self.queue.is_long(base) {
            (self.long_since, self.is_dropping) = (None, false);
        }
        let long_us = match self.long_since {
            Some(since) => micros(g.now.since(since)),
            None if self.queue.is_long(base) => {
                self.long_since = Some(g.now);
                0
            }
            None => 0,
        };
        if self.state == State::Startup {
            self.end_startup_by_queue(long_us);
        } else if long_us >= base {
            self.follow_drop(rs);
        }
    }

    /// A queue that stands shows that the pipe is full as well as three rounds without growth do, and sooner.
    fn end_startup_by_queue(&mut self, long_us: u64) {
        let stands = self.round.stood || long_us > 0 && long_us >= self.min_rtt_us / 2;
        self.full_bw_reached |= stands && self.departs(Departure::StartupQueue);
    }

    /// A long queue while much less is delivered than was: the link has become slower, and the largest rate of two probing
    /// cycles is history. What is delivered while the queue is there is what the link carries.
    fn follow_drop(&mut self, rs: &RateSample) {
        if rs.is_app_limited || rs.ack_rate == 0 || !self.departs(Departure::Drop) {
            return;
        }
        self.is_dropping |= rs.ack_rate <= percent(self.bw, DROP);
        if self.is_dropping && rs.ack_rate < self.max_bw() {
            self.max_bw_filter = [rs.ack_rate; 2];
        }
    }

    /// Whether the pipe has much more room than was known: Up brings more within a round trip, without a queue.
    pub(super) fn check_up_is_free(&mut self, rs: &RateSample) {
        if self.state != State::Up || self.ack_phase != AckPhase::ProbeFeedback {
            return;
        }
        let grew = !rs.is_app_limited && rs.delivery_rate >= percent(self.search.from, FREE_GROWTH);
        self.search.is_free |= grew;
        if self.round_start {
            self.search.poor_rounds = if grew { 0 } else { self.search.poor_rounds + 1 };
            self.search.is_free &= self.search.poor_rounds < FREE_POOR_ROUNDS;
            (self.search.from, self.search.was_judged) = (rs.delivery_rate, true);
        }
        let spoiled = self.queue.is_long(self.min_rtt_us) || self.is_loss_in_round;
        self.search.is_free &= !spoiled && self.departs(Departure::FreeUp);
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

/// So many percent of a value.
pub(super) fn percent(of: u64, gain: u64) -> u64 {
    u64::try_from(u128::from(of) * u128::from(gain) / 100).unwrap_or(u64::MAX)
}

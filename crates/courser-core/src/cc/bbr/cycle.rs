//! The states and when they change (BBR draft sections 5.3 and 5.4).

use core::time::Duration;

use super::model::percent;
use super::sampler::RateSample;
use super::{AckPhase, Bbr, Departure, INFINITY, Search, State};
use crate::cc::Growth;
use crate::time::{Instant, micros};

/// What stays free of the long-term bound for others, in percent.
const HEADROOM: u64 = 15;
/// Most rounds between probes: Reno and CUBIC get so long to grow.
const RENO_ROUNDS_MAX: u64 = 63;
/// Rounds of Drain, at most.
const DRAIN_ROUNDS: u64 = 3;
/// The round trip is measured anew with little in flight when it was not seen as small for so long.
const PROBE_RTT_INTERVAL: Duration = Duration::from_secs(5);
/// Growth of the rate, in percent, that a round of leaning shows when there is room.
const ROOM_GROWTH: u64 = 104;
/// How long little is in flight then.
const PROBE_RTT_DURATION: Duration = Duration::from_millis(200);
/// The smallest round trip is that of so long.
const MIN_RTT_FILTER: Duration = Duration::from_secs(10);
/// A sample that exceeds the smallest one by less than one part of so many shows as well that no queue hides it.
const SIMILAR: u64 = 64;

impl Bbr {
    pub(super) fn check_startup_done(&mut self, rs: &RateSample) {
        self.check_startup_congestion(rs);
        if self.state == State::Startup && self.full_bw_reached {
            self.state = State::Drain;
            self.drain_start_round = self.round_count;
        }
    }

    pub(super) fn check_drain_done(&mut self, now: Instant) {
        let late = self.round_count > self.drain_start_round + DRAIN_ROUNDS;
        if self.state == State::Drain && (late || self.in_flight <= self.inflight(self.bw, 100)) {
            self.start_down(now);
        }
    }

    pub(super) fn start_down(&mut self, now: Instant) {
        self.reset_congestion_signals();
        self.floor.on_cycle();
        self.probe_up_acked_per_inc = INFINITY;
        self.pick_probe_wait();
        self.cycle_stamp = now;
        self.ack_phase = AckPhase::ProbeStopping;
        self.start_round();
        self.state = State::Down;
    }

    /// Draws how long to wait for the next probe: two to three seconds, or a round less than Reno would need.
    fn pick_probe_wait(&mut self) {
        let drawn = self.draw();
        self.rounds_since_probe_up = drawn & 1;
        self.bw_probe_wait = Duration::from_millis(2000 + (drawn >> 1) % 1000);
    }

    /// A bound that held while cruising is what the path carries: the probe begins there, and finds more within some rounds
    /// if there is more. The draft goes back to the largest rate at once, which a policer's full bucket or a flow that has
    /// company since then should not do.
    pub(super) fn start_refill(&mut self) {
        if self.bw_shortterm < self.max_bw() && self.departs(Departure::Refill) {
            self.max_bw_filter = [self.bw_shortterm; 2];
        }
        self.prepare_probe();
        self.ack_phase = AckPhase::Refilling;
        self.start_round();
        self.state = State::Refill;
    }

    fn prepare_probe(&mut self) {
        self.reset_short_term_model();
        self.bw_probe_up_rounds = 0;
        self.bw_probe_up_acked = 0;
        self.prev_probe_precautionary = false;
    }

    fn start_up(&mut self, rs: &RateSample) {
        self.ack_phase = AckPhase::ProbeStarting;
        self.start_round();
        self.reset_full_bw(rs.delivery_rate);
        self.search = Search { from: self.max_bw(), ..Search::default() };
        self.state = State::Up;
        self.raise_inflight_longterm_slope();
    }

    pub(super) fn update_probe_bw_cycle_phase(&mut self, now: Instant, rs: &RateSample) {
        if !self.full_bw_reached || self.adapt_long_term_model(rs) {
            return;
        }
        let state = self.state;
        match state {
            State::Cruise if self.has_found_room(rs) => {
                // The pipe is full, or else the rate would not have grown.
                self.prepare_probe();
                self.is_bw_probe_sample = true;
                self.start_up(rs);
                self.search.found_room = true;
            }
            State::Down | State::Cruise if self.is_time_to_probe(now) => self.start_refill(),
            State::Down if self.is_time_to_cruise() => self.state = State::Cruise,
            State::Refill if self.round_start => {
                self.is_bw_probe_sample = true;
                self.start_up(rs);
            }
            State::Up if self.is_time_to_go_down(rs) => {
                self.prev_probe_too_high = false;
                self.start_down(now);
            }
            _ => {}
        }
    }

    /// Whether a whole round of sending a little more than the estimate was delivered as sent, and no queue was seen.
    fn has_found_room(&mut self, rs: &RateSample) -> bool {
        let leans = !self.is_queued() && self.may_lean();
        if !self.round_start {
            self.search.is_leaning &= leans;
            return false;
        }
        let found = self.search.is_leaning
            && leans
            && self.search.lean_from > 0
            && !rs.is_app_limited
            && rs.delivery_rate >= percent(self.search.lean_from, ROOM_GROWTH);
        (self.search.lean_from, self.search.is_leaning) = (self.bw, leans);
        found
    }

    fn is_time_to_probe(&self, now: Instant) -> bool {
        let reno_rounds = (self.target_inflight() / self.mss).min(RENO_ROUNDS_MAX);
        now > self.cycle_stamp + self.bw_probe_wait || self.rounds_since_probe_up >= reno_rounds
    }

    fn is_time_to_cruise(&self) -> bool {
        self.in_flight <= self.inflight_with_headroom() && self.in_flight <= self.inflight(self.max_bw(), 100)
    }

    fn is_time_to_go_down(&mut self, rs: &RateSample) -> bool {
        if self.search.found_room && self.search.was_judged && !self.search.is_free {
            return true;
        }
        if self.prev_probe_too_high && self.in_flight >= self.inflight_longterm {
            self.prev_probe_precautionary = true;
            return true;
        }
        if self.is_cwnd_limited() && self.cwnd >= self.inflight_longterm {
            self.reset_full_bw(rs.delivery_rate);
            return false;
        }
        self.full_bw_now
    }

    /// The long-term bound without the room that is left to others.
    pub(super) fn inflight_with_headroom(&self) -> u64 {
        if self.inflight_longterm == INFINITY {
            return INFINITY;
        }
        let headroom = self.mss.max(self.inflight_longterm / 100 * HEADROOM);
        self.inflight_longterm.saturating_sub(headroom).max(self.min_pipe())
    }

    pub(super) fn update_min_rtt(&mut self, g: &Growth) {
        let now = g.now;
        self.probe_rtt_expired = now > self.probe_rtt_min_stamp + PROBE_RTT_INTERVAL;
        if g.rtt.fresh {
            let rtt = micros(g.rtt.latest);
            if rtt < self.probe_rtt_min_delay_us || self.probe_rtt_expired {
                self.probe_rtt_min_delay_us = rtt;
                self.probe_rtt_min_stamp = now;
            } else if self.is_seen(rtt) {
                self.probe_rtt_min_stamp = now;
            }
        }
        let min_rtt_expired = now > self.min_rtt_stamp + MIN_RTT_FILTER;
        if self.probe_rtt_min_delay_us < self.min_rtt_us || min_rtt_expired {
            self.min_rtt_us = self.probe_rtt_min_delay_us;
            self.min_rtt_stamp = self.probe_rtt_min_stamp;
        }
    }

    /// Whether a sample, or the round that just ended, is as short as those without a queue.
    fn is_seen(&self, rtt_us: u64) -> bool {
        let is_similar = rtt_us - self.probe_rtt_min_delay_us <= self.probe_rtt_min_delay_us / SIMILAR;
        (is_similar || self.round.is_quiet) && self.departs(Departure::Seen)
    }

    pub(super) fn check_probe_rtt(&mut self, now: Instant, rs: &RateSample) {
        if self.state != State::ProbeRtt && self.probe_rtt_expired && !self.idle_restart {
            self.save_cwnd();
            self.state = State::ProbeRtt;
            self.probe_rtt_done = None;
            self.ack_phase = AckPhase::ProbeStopping;
            self.start_round();
        }
        if self.state == State::ProbeRtt {
            self.handle_probe_rtt(now);
        }
        if rs.delivered > 0 {
            self.idle_restart = false;
        }
    }

    fn handle_probe_rtt(&mut self, now: Instant) {
        self.sampler.mark_app_limited(self.in_flight);
        match self.probe_rtt_done {
            None if self.in_flight <= self.probe_rtt_cwnd() => {
                self.probe_rtt_done = Some(now + PROBE_RTT_DURATION);
                self.probe_rtt_round_done = false;
                self.start_round();
            }
            None => {}
            Some(_) => {
                self.probe_rtt_round_done |= self.round_start;
                if self.probe_rtt_round_done {
                    self.check_probe_rtt_done(now);
                }
            }
        }
    }

    pub(super) fn check_probe_rtt_done(&mut self, now: Instant) {
        if self.probe_rtt_done.is_none_or(|at| now <= at) {
            return;
        }
        self.probe_rtt_min_stamp = now;
        self.cwnd = self.cwnd.max(self.prior_cwnd);
        self.reset_short_term_model();
        if self.full_bw_reached {
            self.start_down(now);
            self.state = State::Cruise;
        } else {
            self.state = State::Startup;
        }
    }

    pub(super) fn probe_rtt_cwnd(&self) -> u64 {
        self.bdp_multiple(self.bw, 50).max(self.min_pipe())
    }
}

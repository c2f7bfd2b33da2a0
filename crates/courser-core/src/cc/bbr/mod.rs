//! BBR, version 3, by the draft of the congestion control working group (draft-ietf-ccwg-bbr); its names are kept.
//!
//! A model of the path instead of a window that grows until something breaks: the largest delivery rate of the last two
//! probing cycles (`max_bw`), the smallest round trip of ten seconds (`min_rtt`), and bounds that losses taught:
//! `inflight_longterm` from probing, `bw_shortterm` and `inflight_shortterm` between probes. What is sent is paced by
//! `bw` times a gain of the state; what is in flight is limited to a multiple of `bw` times `min_rtt`.
//!
//! - [`sampler`]: delivery rates.
//! - [`model`]: what acknowledgements and losses teach.
//! - [`losses`]: which losses teach nothing.
//! - [`queue`]: what round trips teach about the queue.
//! - [`cycle`]: the states: Startup, Drain, ProbeBW (down, cruise, refill, up), ProbeRTT.
//!
//! Integers only: bytes, bytes per second, microseconds, gains in percent. Rates and products are computed in 128 bits and
//! saturate, so nothing drifts and nothing overflows. The waits between probes are drawn from a generator that is stirred
//! with what the connection measured; nobody gains by guessing them.
//!
//! Where this departs from the draft, because it says nothing or because a path asks for it: see decisions D76 and D83; each
//! of the larger ones is a [`Departure`] that a simulator can switch off.

mod cycle;
mod losses;
mod model;
mod queue;
mod sampler;
mod switches;

#[cfg(test)]
mod tests;

use core::time::Duration;

use self::losses::{LossBudget, LossFloor};
use self::queue::{Queue, Round};
use self::sampler::{MaxFilter, RateSample, Sampler, brings};
use self::switches::Departure;
use super::{Growth, initial_window, min_window};
use crate::time::{Instant, micros};

/// No bound.
const INFINITY: u64 = u64::MAX;
/// Pacing gain of Startup: doubles the rate per round trip.
const STARTUP_PACING_GAIN: u64 = 277;
/// Initial windows that are delivered when the first two flights of a sender that doubles are.
const FIRST_FLIGHTS: u64 = 3;
/// Sent that much below the estimate, in percent, so that queues shrink.
const PACING_MARGIN_PERCENT: u64 = 1;
/// Pacing gain of cruising while no queue is seen: enough to find within a round trip that there is room, too little to
/// build more queue than noise.
const LEAN_PACING_GAIN: u64 = 108;
/// Pacing gain of Up, in its first two rounds, when cruising has just found room.
const FOUND_ROOM_PACING_GAIN: u64 = 150;
/// Datagrams that may leave at once whatever the rate is, once the path is known.
const BURST_DATAGRAMS: u64 = 3;
/// The same before.
const BURST_DATAGRAMS_AT_FIRST: u64 = 10;
/// Datagrams of the smallest window.
const MIN_PIPE_DATAGRAMS: u64 = 4;
/// Largest quantum.
const QUANTUM_MAX: u64 = 64 << 10;

/// State of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Startup,
    Drain,
    Down,
    Cruise,
    Refill,
    Up,
    ProbeRtt,
}

impl State {
    /// Pacing gain in percent.
    const fn pacing_gain(self) -> u64 {
        match self {
            Self::Startup => STARTUP_PACING_GAIN,
            Self::Drain => 50,
            Self::Down => 90,
            Self::Cruise | Self::Refill | Self::ProbeRtt => 100,
            Self::Up => 125,
        }
    }

    /// Gain of the window over the bandwidth-delay product, in percent.
    const fn cwnd_gain(self) -> u64 {
        match self {
            Self::Up => 225,
            Self::ProbeRtt => 50,
            _ => 200,
        }
    }

    const fn is_probe_bw(self) -> bool {
        matches!(self, Self::Down | Self::Cruise | Self::Refill | Self::Up)
    }

    /// Whether the state sends more than the path is known to carry, or fills it for that.
    const fn is_probing(self) -> bool {
        matches!(self, Self::Startup | Self::Refill | Self::Up)
    }
}

/// What acknowledgements mean with respect to probing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AckPhase {
    Init,
    Refilling,
    ProbeStarting,
    ProbeFeedback,
    ProbeStopping,
}

/// What a loss may have taken away and an undo gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Undo {
    /// The state that the losses ended.
    state: Option<State>,
    bw_shortterm: u64,
    inflight_shortterm: u64,
    inflight_longterm: u64,
}

impl Undo {
    const NOTHING: Self =
        Self { state: None, bw_shortterm: INFINITY, inflight_shortterm: INFINITY, inflight_longterm: INFINITY };
}

/// Search for room while cruising and in Up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Search {
    /// Cruising: the estimate at the start of this round, and whether it was exceeded for the whole round.
    lean_from: u64,
    is_leaning: bool,
    /// Up: cruising has found room; it ends when a round finds no more.
    found_room: bool,
    /// Up: the rate really grows, so the search goes on as in Startup.
    is_free: bool,
    /// Up: rate of the round before, rounds in a row that did not exceed it, whether a round was judged.
    from: u64,
    poor_rounds: u32,
    was_judged: bool,
}

/// The controller's state.
#[derive(Clone, Debug)]
pub(crate) struct Bbr {
    sampler: Sampler,
    state: State,
    mss: u64,
    cwnd: u64,
    /// The window before a loss episode or ProbeRTT cut it.
    prior_cwnd: u64,
    pacing_rate: u64,
    /// In flight at the last event.
    in_flight: u64,
    /// A sample of the round trip set the pacing rate.
    rate_is_known: bool,
    queue: Queue,
    /// What the round that ended with this acknowledgement showed.
    round: Round,
    /// Since when the queue is long.
    long_since: Option<Instant>,
    /// The rate fell suddenly, and the queue that this left is still there.
    is_dropping: bool,
    search: Search,
    /// Departures that are switched off.
    without: u16,

    round_count: u64,
    round_start: bool,
    next_round_delivered: u64,
    /// The window was full in this round, and in the one before.
    limited: bool,
    limited_before: bool,
    idle_restart: bool,
    drain_start_round: u64,

    /// Largest delivery rates of this probing cycle and of the one before.
    max_bw_filter: [u64; 2],
    bw: u64,
    bw_shortterm: u64,
    inflight_shortterm: u64,
    inflight_longterm: u64,
    bw_latest: u64,
    inflight_latest: u64,
    loss_round_delivered: u64,
    loss_round_start: bool,
    is_loss_in_round: bool,
    /// Marks for congestion came in this round.
    is_ce_in_round: bool,
    /// The same since losses or marks were last answered.
    is_ce_in_loss_round: bool,
    /// Ranges of packets declared lost in this round.
    loss_ranges: u32,
    /// Rounds with marks in a row.
    ce_rounds: u32,
    floor: LossFloor,
    budget: LossBudget,
    undo: Undo,
    /// Persistent congestion cut the window; packets that left later restore it.
    cut_at: Option<Instant>,

    min_rtt_us: u64,
    min_rtt_stamp: Instant,
    probe_rtt_min_delay_us: u64,
    probe_rtt_min_stamp: Instant,
    probe_rtt_expired: bool,
    probe_rtt_done: Option<Instant>,
    probe_rtt_round_done: bool,

    extra_acked_filter: MaxFilter,
    extra_acked_interval_start: Instant,
    extra_acked_delivered: u64,

    full_bw: u64,
    full_bw_count: u32,
    full_bw_now: bool,
    full_bw_reached: bool,

    ack_phase: AckPhase,
    is_bw_probe_sample: bool,
    bw_probe_up_acked: u64,
    probe_up_acked_per_inc: u64,
    bw_probe_up_rounds: u32,
    rounds_since_probe_up: u64,
    bw_probe_wait: Duration,
    cycle_stamp: Instant,
    prev_probe_too_high: bool,
    prev_probe_precautionary: bool,
    random: u64,
}

impl Bbr {
    /// A path of which nothing is known. `without` has the bits of [`Departure`]s that are switched off.
    pub fn new(mtu: u16, now: Instant, without: u16) -> Self {
        let mut bbr = Self {
            sampler: Sampler::new(now),
            state: State::Startup,
            mss: mtu.into(),
            cwnd: initial_window(mtu),
            prior_cwnd: 0,
            pacing_rate: 0,
            in_flight: 0,
            rate_is_known: false,
            queue: Queue::new(now),
            round: Round::default(),
            long_since: None,
            is_dropping: false,
            search: Search::default(),
            without,
            round_count: 0,
            round_start: false,
            next_round_delivered: 0,
            limited: false,
            limited_before: false,
            idle_restart: false,
            drain_start_round: 0,
            max_bw_filter: [0; 2],
            bw: 0,
            bw_shortterm: INFINITY,
            inflight_shortterm: INFINITY,
            inflight_longterm: INFINITY,
            bw_latest: 0,
            inflight_latest: 0,
            loss_round_delivered: 0,
            loss_round_start: false,
            is_loss_in_round: false,
            is_ce_in_round: false,
            is_ce_in_loss_round: false,
            loss_ranges: 0,
            ce_rounds: 0,
            floor: LossFloor::default(),
            budget: LossBudget::default(),
            undo: Undo::NOTHING,
            cut_at: None,
            min_rtt_us: INFINITY,
            min_rtt_stamp: now,
            probe_rtt_min_delay_us: INFINITY,
            probe_rtt_min_stamp: now,
            probe_rtt_expired: false,
            probe_rtt_done: None,
            probe_rtt_round_done: false,
            extra_acked_filter: MaxFilter::default(),
            extra_acked_interval_start: now,
            extra_acked_delivered: 0,
            full_bw: 0,
            full_bw_count: 0,
            full_bw_now: false,
            full_bw_reached: false,
            ack_phase: AckPhase::Init,
            is_bw_probe_sample: false,
            bw_probe_up_acked: 0,
            probe_up_acked_per_inc: INFINITY,
            bw_probe_up_rounds: 0,
            rounds_since_probe_up: 0,
            bw_probe_wait: Duration::ZERO,
            cycle_stamp: now,
            prev_probe_too_high: false,
            prev_probe_precautionary: false,
            random: now.as_micros(),
        };
        bbr.init_pacing_rate(1000);
        bbr
    }

    const fn departs(&self, departure: Departure) -> bool {
        self.without & departure as u16 == 0
    }

    fn init_pacing_rate(&mut self, rtt_us: u64) {
        self.pacing_rate = sampler::rate(self.initial(), rtt_us).saturating_mul(STARTUP_PACING_GAIN) / 100;
    }

    fn initial(&self) -> u64 {
        initial_window(u16::try_from(self.mss).unwrap_or(u16::MAX))
    }

    /// A packet left; `in_flight` counts it.
    pub fn on_sent(&mut self, now: Instant, bytes: u64, in_flight: u64) {
        self.sampler.on_sent(now, bytes, in_flight);
        self.in_flight = in_flight;
        self.limited |= in_flight + self.mss > self.cwnd;
    }

    /// Nothing is in flight and something is about to be.
    pub fn on_idle_end(&mut self, now: Instant) {
        if !self.sampler.is_app_limited() {
            return;
        }
        self.idle_restart = true;
        self.extra_acked_interval_start = now;
        if self.state.is_probe_bw() {
            self.set_pacing_rate_with_gain(100 - PACING_MARGIN_PERCENT);
        } else if self.state == State::ProbeRtt {
            self.check_probe_rtt_done(now);
        }
    }

    /// Packets were delivered: the draft's UpdateOnACK.
    pub fn on_acked(&mut self, g: &Growth) {
        self.in_flight = g.in_flight;
        let rs = self.sampler.on_acked(g.now, g.bytes, g.sent, micros(g.rtt.min));
        if g.rtt.fresh {
            if !core::mem::replace(&mut self.rate_is_known, true) {
                self.init_pacing_rate(micros(g.rtt.smoothed));
            }
            self.sampler.on_round_trip(g.now, micros(g.rtt.smoothed));
        }
        self.restore_after_cut(g.sent);
        self.update_latest_delivery_signals(&rs);
        self.update_congestion_signals(&rs);
        self.update_ack_aggregation(g.now, &rs);
        self.check_full_bw_reached(&rs);
        self.observe_queue(g, &rs);
        self.check_up_is_free(&rs);
        self.check_startup_done(&rs);
        self.check_drain_done(g.now);
        self.update_probe_bw_cycle_phase(g.now, &rs);
        self.update_min_rtt(g);
        self.check_probe_rtt(g.now, &rs);
        self.advance_latest_delivery_signals(&rs);
        self.bound_bw_for_model();
        self.set_pacing_rate_with_gain(self.pacing_gain());
        self.pace_first_flights(g);
        self.set_cwnd(&rs);
    }

    /// The window of before a cut for persistent congestion comes back when something that left later arrives; the model
    /// bounds it.
    fn restore_after_cut(&mut self, sent: Instant) {
        if self.cut_at.is_some_and(|at| sent > at) {
            self.cut_at = None;
            self.cwnd = self.cwnd.max(self.prior_cwnd);
        }
    }

    /// Persistent congestion: what the draft does after a retransmission timeout.
    pub fn on_persistent(&mut self, now: Instant) {
        self.save_cwnd();
        self.save_state_upon_loss();
        self.cut_at = Some(now);
        self.cwnd = min_window(u16::try_from(self.mss).unwrap_or(u16::MAX));
    }

    /// Nothing is in flight and nothing is expected.
    pub fn shrink(&mut self) {
        self.sampler.forget_marks();
    }

    /// There was room in flight, time to send and nothing to be sent.
    pub fn on_app_limited(&mut self, in_flight: u64) {
        self.sampler.mark_app_limited(in_flight);
    }

    pub fn set_mtu(&mut self, mtu: u16, untouched: bool) {
        self.mss = mtu.into();
        if untouched {
            self.cwnd = self.cwnd.min(initial_window(mtu));
        }
    }

    /// A long silence: what the model knows is old, but paced, and shown wrong within a round trip.
    pub const fn on_long_idle(&mut self, _periods: u32) {}

    /// There is no threshold.
    pub const fn ssthresh(&self) -> u64 {
        u64::MAX
    }

    pub const fn window(&self) -> u64 {
        self.cwnd
    }

    pub const fn in_slow_start(&self) -> bool {
        matches!(self.state, State::Startup)
    }

    /// Bytes per second.
    pub const fn pacing_rate(&self) -> u64 {
        self.pacing_rate
    }

    fn min_pipe(&self) -> u64 {
        MIN_PIPE_DATAGRAMS * self.mss
    }

    fn max_bw(&self) -> u64 {
        self.max_bw_filter[0].max(self.max_bw_filter[1])
    }

    fn save_cwnd(&mut self) {
        self.prior_cwnd = if self.cut_at.is_none() && self.state != State::ProbeRtt {
            self.cwnd
        } else {
            self.prior_cwnd.max(self.cwnd)
        };
    }

    /// The gain of the state, less the margin while there is a queue that it should drain.
    fn pacing_gain(&self) -> u64 {
        let is_queued = self.is_queued();
        match self.state {
            State::Startup if self.slows_startup() => 100,
            State::Up if self.search.is_free => STARTUP_PACING_GAIN,
            State::Up if self.search.found_room && !self.search.was_judged && !is_queued => FOUND_ROOM_PACING_GAIN,
            State::Cruise if !is_queued && self.may_lean() => LEAN_PACING_GAIN,
            State::Cruise | State::Refill if !is_queued && self.departs(Departure::Margin) => 100,
            state => state.pacing_gain() * (100 - PACING_MARGIN_PERCENT) / 100,
        }
    }

    fn set_pacing_rate_with_gain(&mut self, gain: u64) {
        let rate = u128::from(self.bw) * u128::from(gain) / 100;
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        if self.full_bw_reached || rate > self.pacing_rate || self.slows_startup() {
            self.pacing_rate = rate;
        }
    }

    /// Samples of the first flights are too small: a few packets, over a round trip that was silent but for them. Startup's
    /// window is twice what a round trip delivers, so its gain over half of the window is the rate that the draft means; its
    /// InitPacingRate is twice that for the initial window alone (decision D168).
    fn pace_first_flights(&mut self, g: &Growth) {
        let is_first = self.sampler.delivered < FIRST_FLIGHTS * self.initial();
        let is_open = self.state == State::Startup && self.rate_is_known && !self.slows_startup();
        if is_first && is_open && self.departs(Departure::FirstFlights) {
            let delivered = sampler::rate(self.cwnd / 2, micros(g.rtt.smoothed));
            self.pacing_rate = self.pacing_rate.max(model::percent(delivered, STARTUP_PACING_GAIN));
        }
    }

    fn slows_startup(&self) -> bool {
        self.queue.is_long(self.min_rtt_us) && self.departs(Departure::StartupQueue)
    }

    fn is_queued(&self) -> bool {
        let packet_us = self.mss.saturating_mul(1_000_000) / self.bw.max(1);
        self.queue.is_seen(self.min_rtt_us, packet_us)
    }

    /// Whether nothing speaks against sending a little more than the estimate while cruising.
    fn may_lean(&self) -> bool {
        self.departs(Departure::Lean) && self.bw_shortterm >= self.max_bw() && !self.is_loss_in_round
    }

    /// Datagrams that may leave at once.
    pub const fn burst(&self) -> u64 {
        if self.in_slow_start() { BURST_DATAGRAMS_AT_FIRST } else { BURST_DATAGRAMS }
    }

    fn send_quantum(&self) -> u64 {
        brings(self.pacing_rate, 1000).min(QUANTUM_MAX).max(2 * self.mss)
    }

    fn bdp_multiple(&self, bw: u64, gain: u64) -> u64 {
        if self.min_rtt_us == INFINITY {
            return self.initial();
        }
        let bdp = brings(bw, self.min_rtt_us);
        u64::try_from(u128::from(bdp) * u128::from(gain) / 100).unwrap_or(u64::MAX)
    }

    fn quantized(&self, inflight: u64) -> u64 {
        let cap = inflight.max(self.send_quantum()).max(self.min_pipe());
        if self.state == State::Up { cap.saturating_add(2 * self.mss) } else { cap }
    }

    /// The draft's Inflight().
    fn inflight(&self, bw: u64, gain: u64) -> u64 {
        self.quantized(self.bdp_multiple(bw, gain))
    }

    fn target_inflight(&self) -> u64 {
        self.bdp_multiple(self.bw, 100).min(self.cwnd)
    }

    fn set_cwnd(&mut self, rs: &RateSample) {
        let inflight = self.bdp_multiple(self.bw, self.state.cwnd_gain()).saturating_add(self.extra_acked_filter.get());
        let max_inflight = self.quantized(inflight);
        if self.full_bw_reached {
            self.cwnd = (self.cwnd + rs.newly_acked).min(max_inflight);
        } else if self.cwnd < max_inflight || self.sampler.delivered < self.initial() {
            self.cwnd += rs.newly_acked;
        }
        self.cwnd = self.cwnd.max(self.min_pipe());
        if self.state == State::ProbeRtt {
            self.cwnd = self.cwnd.min(self.probe_rtt_cwnd());
        }
        let cap = match self.state {
            State::Down | State::Refill | State::Up => self.inflight_longterm,
            State::Cruise if self.departs(Departure::Headroom) => self.cruise_bound(),
            State::ProbeRtt | State::Cruise => self.inflight_with_headroom(),
            State::Startup | State::Drain => INFINITY,
        };
        self.cwnd = self.cwnd.min(cap.min(self.inflight_shortterm).max(self.min_pipe()));
    }

    /// The room that is left to others is that in the queue: what the pipe holds is not given up, for then it would be idle.
    fn cruise_bound(&self) -> u64 {
        let full = self.bdp_multiple(self.bw, 100).saturating_add(self.extra_acked_filter.get());
        self.inflight_with_headroom().max(full.min(self.inflight_longterm))
    }

    /// The next number of the generator (splitmix64), stirred with what was delivered so far.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15) ^ self.sampler.delivered;
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}

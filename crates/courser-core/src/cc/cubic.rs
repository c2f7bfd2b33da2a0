//! CUBIC (RFC 9438).
//!
//! After a reduction the window follows a cubic curve of time that is flat where the last loss happened, or the window that
//! Reno would have, whichever is larger. Sizes are bytes in floating point: the curve is given in real numbers, and the
//! error of 53 bits is far below a byte.

use core::time::Duration;

use super::hystart::{HyStart, Step};
use super::{Growth, initial_window, min_window};
use crate::time::Instant;

/// Datagrams per cubic second (RFC 9438 section 5.1).
//= rfc9438#5.1-2
const C: f64 = 0.4;
/// What is left of the window after congestion.
//= rfc9438#4.6-2
const BETA: f64 = 0.7;
/// What is left of it after a CE mark: a queue that marks is shorter than one that overflows, so less has to be given up
/// (the idea of RFC 8511, with its value for CUBIC).
const BETA_ECN: f64 = 0.85;
/// Growth per round of the Reno estimate that is as fair as Reno with a factor of one half.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// Before the first loss the window does not grow while the round trip is that many times the shortest one, and longer than
/// it by [`BLOAT_MIN`]: the queue is deep, the link is full, and all that growth brings is to wait for the overflow (decision
/// D87). After a loss somebody else may fill the queue, and the curve is followed whatever the round trip.
const BLOAT_RTTS: u32 = 7;
const BLOAT_MIN: Duration = Duration::from_millis(100);

/// The stretch of congestion avoidance since the last reduction.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Epoch {
    /// When it began; moved forward by the time in which the window was not used.
    start: Instant,
    /// Seconds until the curve is back at `w_max`.
    k: f64,
    /// The window where the curve is flat.
    w_max: f64,
    /// Reno's window.
    w_est: f64,
}

/// The part of the state that a false reduction has to bring back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Curve {
    window: f64,
    ssthresh: f64,
    /// The window at the last reduction, or when slow start was left without one.
    prior: f64,
    /// The window at the last reduction, less when it had to be reduced again before it was reached. 0: none yet.
    w_max: f64,
    /// `None` until congestion avoidance goes on after a reduction.
    epoch: Option<Epoch>,
}

/// The controller's state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cubic {
    curve: Curve,
    hystart: HyStart,
    /// When the window was last updated; the epoch is moved by what lies between when the window was not used.
    updated: Instant,
    mtu: u16,
    /// The only congestion so far was that of the opening.
    opening: bool,
}

impl Cubic {
    pub fn new(mtu: u16) -> Self {
        let curve =
            Curve { window: initial_window(mtu) as f64, ssthresh: f64::INFINITY, prior: 0.0, w_max: 0.0, epoch: None };
        Self { curve, hystart: HyStart::default(), updated: Instant::ZERO, mtu, opening: false }
    }

    fn mss(&self) -> f64 {
        f64::from(self.mtu)
    }

    fn min(&self) -> f64 {
        min_window(self.mtu) as f64
    }

    //= rfc9438#4.6-3, rfc9438#4.6-4
    pub fn on_acked(&mut self, g: &Growth) {
        if !g.may_grow {
            //= rfc9438#4.2-1
            self.skip_time(g.now);
        } else if self.in_slow_start() {
            self.slow_start(g);
        } else if self.is_queue_deep(g) {
            self.skip_time(g.now);
        } else {
            self.avoid_congestion(g);
            // No loss yet: `w_max` is that of slow start's end.
            let is_left = self.curve.w_max == 0.0 && self.curve.prior > 0.0;
            if (is_left || self.opening) && self.hystart.on_acked_later(g) {
                self.curve.ssthresh = f64::INFINITY;
                (self.curve.prior, self.curve.w_max, self.curve.epoch) = (0.0, 0.0, None);
            }
        }
        self.updated = g.now;
    }

    /// Whether no loss has come although the queue is long.
    fn is_queue_deep(&self, g: &Growth) -> bool {
        let limit = (g.rtt.min * BLOAT_RTTS).max(g.rtt.min + BLOAT_MIN);
        self.curve.w_max == 0.0 && self.curve.prior > 0.0 && g.rtt.smoothed >= limit
    }

    /// The time since the last update does not count for the curve.
    fn skip_time(&mut self, now: Instant) {
        let idle = now.since(self.updated);
        if let Some(epoch) = &mut self.curve.epoch {
            epoch.start += idle;
        }
    }

    //= rfc9438#4.10-1, rfc9438#4.10-2
    fn slow_start(&mut self, g: &Growth) {
        let c = &mut self.curve;
        //= rfc9406#4.3-5
        let step = if c.ssthresh.is_infinite() { self.hystart.on_acked(g) } else { Step::Grow(g.bytes) };
        match step {
            Step::Grow(n) => c.window = (c.window + n as f64).min(c.ssthresh),
            Step::Leave(n) => {
                c.window += n as f64;
                c.ssthresh = c.window;
                c.prior = c.window;
                c.w_max = 0.0;
            }
        }
    }

    fn avoid_congestion(&mut self, g: &Growth) {
        let mss = self.mss();
        let c = &mut self.curve;
        let epoch = c.epoch.get_or_insert_with(|| {
            // A window at or beyond the old maximum, or none known: the curve starts flat here (K = 0).
            let w_max = c.w_max.max(c.window);
            let k = ((w_max - c.window) / (C * mss)).cbrt();
            Epoch { start: g.now, k, w_max, w_est: c.window }
        });
        let t = g.now.since(epoch.start).as_secs_f64();
        let cubic = |t: f64| C * mss * (t - epoch.k).powi(3) + epoch.w_max;
        let acked = g.bytes as f64;
        //= rfc9438#4.3-2
        let alpha = if epoch.w_est >= c.prior { 1.0 } else { ALPHA };
        epoch.w_est += alpha * mss * acked / c.window;
        if cubic(t) < epoch.w_est {
            //= rfc9438#4.3-1
            c.window = c.window.max(epoch.w_est);
        } else {
            //= rfc9438#4.4-1, rfc9438#4.5-1
            let target = cubic(t + g.rtt.smoothed.as_secs_f64()).clamp(c.window, 1.5 * c.window);
            c.window += (target - c.window) * (acked / c.window).min(1.0);
        }
    }

    //= rfc9438#4.6-1, rfc9438#4.7-1
    //= rfc9438#4.6-5 type=exception reason="RFC 9002 section 7.2 sets the smallest window of QUIC to two datagrams"
    //= rfc9438#4.6-6 type=exception reason="the window of QUIC does not fall to one datagram; probe timeouts back off"
    pub fn on_congestion(&mut self, now: Instant) {
        self.reduce(now, BETA);
    }

    /// The path marked packets instead of dropping them.
    pub fn on_mark(&mut self, now: Instant) {
        self.reduce(now, BETA_ECN);
    }

    fn reduce(&mut self, now: Instant, beta: f64) {
        let min = self.min();
        let c = &mut self.curve;
        c.prior = c.window;
        c.w_max = if c.window < c.w_max { c.window * (1.0 + BETA) / 2.0 } else { c.window };
        c.ssthresh = (c.window * beta).max(min);
        c.window = c.ssthresh;
        c.epoch = None;
        (self.updated, self.opening) = (now, false);
    }

    /// The reduction just now was for packets that left before an initial window was acknowledged: they met a queue that is
    /// shorter than the first burst, or others' packets, or a bad link, and say little about the rate. Slow start is over as
    /// it has to be; it goes on, gently, when rounds without a queue and without losses show that there is room (decision
    /// D97).
    pub fn on_opening_congestion(&mut self) {
        self.hystart = HyStart::gentle();
        self.opening = true;
    }

    //= rfc9438#4.8-1
    pub fn on_persistent(&mut self, now: Instant) {
        self.curve.window = self.min();
        self.curve.w_max = 0.0;
        self.curve.epoch = None;
        (self.updated, self.opening) = (now, false);
    }

    pub fn on_idle_end(&mut self, now: Instant) {
        self.skip_time(now);
        self.updated = now;
    }

    /// Halves the window for each period, down to the initial one, and remembers where it was.
    pub fn on_long_idle(&mut self, periods: u32) {
        let floor = (initial_window(self.mtu) as f64).min(self.curve.window);
        let c = &mut self.curve;
        c.ssthresh = c.ssthresh.max(c.window * 0.75);
        c.window = (c.window / 2f64.powi(i32::try_from(periods.min(64)).unwrap_or(64))).max(floor);
        c.epoch = None;
    }

    pub const fn curve(&self) -> Curve {
        self.curve
    }

    /// Brings the state before the last reduction back, unless the window has outgrown it.
    //= rfc9438#4.9.2-1
    pub fn undo(&mut self, saved: &Curve) {
        if self.curve.window < saved.window {
            self.curve = *saved;
        }
    }

    pub fn set_mtu(&mut self, mtu: u16, untouched: bool) {
        self.mtu = mtu;
        if untouched {
            self.curve.window = self.curve.window.min(initial_window(mtu) as f64);
        }
    }

    pub fn window(&self) -> u64 {
        self.curve.window as u64
    }

    pub fn ssthresh(&self) -> u64 {
        if self.curve.ssthresh.is_infinite() { u64::MAX } else { self.curve.ssthresh as u64 }
    }

    /// Whether the window grows by all that is acknowledged.
    pub fn doubles(&self) -> bool {
        self.in_slow_start() && !(self.curve.ssthresh.is_infinite() && self.hystart.in_css())
    }

    pub fn in_slow_start(&self) -> bool {
        self.curve.window < self.curve.ssthresh
    }
}

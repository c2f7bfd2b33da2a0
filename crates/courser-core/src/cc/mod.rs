//! Congestion control of one path: how much may be in flight, and how fast it leaves.
//!
//! Values only: bytes, times and round trips come in, a window and a rate go out. [`Congestion`] keeps what all
//! controllers share (bytes in flight, the recovery period, whether the window is really used, undo of a false
//! reduction) and asks a `Controller` for the window.
//!
//! - [`reno`]: NewReno (RFC 9002 section 7).
//! - [`cubic`]: CUBIC (RFC 9438), with [`hystart`] (RFC 9406) for its first slow start.
//! - `bbr`: BBR version 3, which models the path and says how fast to send.
//! - `adaptive`: CUBIC or BBR, by the round trip.
//! - [`pacer`]: spreads packets over time.

pub(crate) mod adaptive;
pub(crate) mod bbr;
pub mod cubic;
pub mod hystart;
pub mod pacer;
pub mod reno;

#[cfg(test)]
mod tests;

use core::time::Duration;

use self::adaptive::Adaptive;
use self::bbr::Bbr;
use self::cubic::Cubic;
use self::reno::NewReno;
use crate::config::Congestion as Choice;
use crate::observe::Phase;
use crate::time::Instant;

/// The initial window: ten datagrams of 1,472 bytes (RFC 9002 section 7.2), or two when those are larger.
const INITIAL_WINDOW: u64 = 14_720;
/// Datagrams of the smallest window (RFC 9002 section 7.2).
const MIN_DATAGRAMS: u64 = 2;
/// After idling that long the window starts to shrink towards the initial one: it says little about the path by then.
const IDLE_RESTART: Duration = Duration::from_secs(1);

/// The window of a path of which nothing is known: the RFC's limit in bytes also while datagrams have 1,200, because those are
/// what every path carries, not what most paths do (decision D86).
//= rfc9002#7.2-1 type=exception reason="the limit of 14,720 bytes counts for small datagrams as well, see D86"
#[must_use]
pub fn initial_window(mtu: u16) -> u64 {
    INITIAL_WINDOW.max(2 * u64::from(mtu))
}

/// The smallest window.
//= rfc9002#7.2-4
#[must_use]
pub fn min_window(mtu: u16) -> u64 {
    MIN_DATAGRAMS * u64::from(mtu)
}

/// Round-trip times at the time of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RttSnapshot {
    /// The newest sample.
    pub latest: Duration,
    /// Whether `latest` was taken from this acknowledgement.
    pub fresh: bool,
    /// The smoothed time.
    pub smoothed: Duration,
    /// The smallest sample.
    pub min: Duration,
}

/// What an acknowledgement newly acknowledged on this path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckSample {
    /// Bytes.
    pub bytes: u64,
    /// When the newest of the packets was sent.
    pub sent: Instant,
    /// Round-trip times.
    pub rtt: RttSnapshot,
}

/// What a controller gets to see of an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    pub now: Instant,
    /// Bytes newly acknowledged.
    pub bytes: u64,
    /// When the newest of the packets was sent.
    pub sent: Instant,
    /// Bytes still in flight.
    pub in_flight: u64,
    /// The acknowledgement ends a round: everything in flight at the start of the round has been acknowledged.
    pub round_ended: bool,
    /// The window was used, so it may grow.
    pub may_grow: bool,
    pub rtt: RttSnapshot,
}

/// The algorithms to choose from; each has a window and hears of growth, congestion, persistent congestion and idling.
/// Those with a model of the path are large, and made once.
#[derive(Clone, Debug)]
enum Controller {
    Reno(NewReno),
    Cubic(Cubic),
    Bbr(Box<Bbr>),
    Adaptive(Box<Adaptive>),
}

macro_rules! each {
    ($on:expr, $c:ident => $do:expr) => {
        match $on {
            Controller::Reno($c) => $do,
            Controller::Cubic($c) => $do,
            Controller::Bbr($c) => $do,
            Controller::Adaptive($c) => $do,
        }
    };
}

/// State to go back to when a reduction turns out to be false.
#[derive(Clone, Copy, Debug)]
enum Saved {
    Reno(NewReno),
    Cubic(cubic::Curve),
    /// The model keeps it itself.
    Bbr,
}

/// Packets that were declared lost together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossSample {
    /// Bytes.
    pub bytes: u64,
    /// When the newest of the packets was sent.
    pub sent: Instant,
    /// Into how many runs of consecutive numbers they fall.
    pub ranges: u32,
    /// The losses mean persistent congestion.
    pub persistent: bool,
}

/// One recovery period: from a congestion event until a packet that was sent after it is acknowledged.
#[derive(Clone, Copy, Debug)]
struct Episode {
    /// When the period began; packets sent until then belong to it.
    start: Instant,
    /// When the one before began; packets sent until then belong to that one.
    previous: Option<Instant>,
    /// The state before the reduction; `None` when it was for a CE mark, which is never false.
    saved: Option<Saved>,
    /// Bytes declared lost in the period.
    lost: u64,
    /// Those of them that were acknowledged later.
    spurious: u64,
}

/// Congestion control of one path.
#[derive(Clone, Debug)]
pub struct Congestion {
    controller: Controller,
    in_flight: u64,
    mtu: u16,
    /// The current or last recovery period. A path that never lost anything has no memory for one.
    episode: Option<Box<Episode>>,
    /// Packets sent from here on belong to the next round.
    round_start: Instant,
    /// Most bytes in flight in this round, and in the one before.
    peak: u64,
    peak_before: u64,
    /// When something was last sent or acknowledged; decides about idling.
    last_activity: Instant,
    /// When the newest packet that was acknowledged left.
    newest_acked: Instant,
    /// Bytes that have yet to be acknowledged until the opening is over, an initial window in all.
    opening_left: u32,
    /// When it was over: packets sent until then are those that left before anything was known about the path's queue.
    opening_end: Option<Instant>,
}

impl Congestion {
    /// A path of which nothing is known.
    #[must_use]
    pub fn new(choice: Choice, mtu: u16, now: Instant) -> Self {
        let controller = match choice {
            Choice::Cubic => Controller::Cubic(Cubic::new(mtu)),
            Choice::NewReno => Controller::Reno(NewReno::new(mtu)),
            Choice::Bbr => Controller::Bbr(Box::new(Bbr::new(mtu, now, 0))),
            Choice::BbrWithout(departures) => Controller::Bbr(Box::new(Bbr::new(mtu, now, departures))),
            Choice::Adaptive { bbr_from } => Controller::Adaptive(Box::new(Adaptive::new(bbr_from, mtu, now))),
        };
        Self {
            controller,
            in_flight: 0,
            mtu,
            episode: None,
            round_start: now,
            peak: 0,
            peak_before: 0,
            last_activity: now,
            newest_acked: Instant::ZERO,
            opening_left: u32::try_from(initial_window(mtu)).unwrap_or(u32::MAX),
            opening_end: None,
        }
    }

    /// A packet that counts as in flight was sent; probes are counted even beyond the window. Returns whether a silence
    /// ended, so that the pacer has to ask for the rate again.
    //= rfc9002#7.5-2
    pub fn on_sent(&mut self, now: Instant, bytes: u64) -> bool {
        let restarts = self.in_flight == 0;
        if restarts {
            let idle = now.since(self.last_activity);
            each!(&mut self.controller, c => c.on_idle_end(now));
            if idle >= IDLE_RESTART {
                let periods = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX);
                each!(&mut self.controller, c => c.on_long_idle(periods));
            }
        }
        self.last_activity = now;
        self.in_flight += bytes;
        self.peak = self.peak.max(self.in_flight);
        match &mut self.controller {
            Controller::Bbr(c) => c.on_sent(now, bytes, self.in_flight),
            Controller::Adaptive(c) => c.bbr.on_sent(now, bytes, self.in_flight),
            Controller::Reno(_) | Controller::Cubic(_) => return false,
        }
        restarts
    }

    /// Whether the controller wants to hear of times when the application is what limits.
    #[must_use]
    pub const fn wants_app_limits(&self) -> bool {
        matches!(self.controller, Controller::Bbr(_) | Controller::Adaptive(_))
    }

    /// There is room in flight and nothing to fill it with.
    pub fn on_app_limited(&mut self) {
        match &mut self.controller {
            Controller::Bbr(c) => c.on_app_limited(self.in_flight),
            Controller::Adaptive(c) => c.bbr.on_app_limited(self.in_flight),
            Controller::Reno(_) | Controller::Cubic(_) => {}
        }
    }

    /// Packets were acknowledged for the first time.
    pub fn on_acked(&mut self, now: Instant, sample: &AckSample) {
        self.on_acked_of(now, sample, self.is_window_used());
    }

    /// The same of Initial and Handshake packets. What a flight of those contains is limited by the handshake and by the
    /// address that is not validated, not by an application that has nothing to say.
    pub fn on_handshake_acked(&mut self, now: Instant, sample: &AckSample) {
        self.on_acked_of(now, sample, self.in_slow_start());
    }

    fn on_acked_of(&mut self, now: Instant, sample: &AckSample, window_used: bool) {
        self.newest_acked = self.newest_acked.max(sample.sent);
        if self.opening_end.is_none() {
            self.opening_left = self.opening_left.saturating_sub(u32::try_from(sample.bytes).unwrap_or(u32::MAX));
            self.opening_end = (self.opening_left == 0).then_some(now);
        }
        let may_grow = window_used && !self.is_in_recovery(sample.sent);
        self.release(sample.bytes);
        self.last_activity = now;
        let round_ended = sample.sent >= self.round_start;
        if round_ended {
            self.round_start = now;
            self.peak_before = self.peak;
            self.peak = self.in_flight;
        }
        let growth = Growth {
            now,
            bytes: sample.bytes,
            sent: sample.sent,
            in_flight: self.in_flight,
            round_ended,
            may_grow,
            rtt: sample.rtt,
        };
        each!(&mut self.controller, c => c.on_acked(&growth));
        if let Controller::Adaptive(c) = &self.controller
            && sample.rtt.fresh
        {
            self.controller = c.choose(sample.rtt.min);
        }
    }

    /// Whether the window, not the application or the peer's credit, held the sender back in this or the last round. In
    /// slow start half of it counts as used, for it doubles per round. Looking at a whole round makes pacing, which
    /// fills the window late, not look like an idle application.
    //= rfc9002#7.8-1, rfc9002#7.8-2
    fn is_window_used(&self) -> bool {
        let used = self.peak.max(self.peak_before);
        let window = self.window();
        if self.in_slow_start() { 2 * used >= window } else { used + window / 8 + 2 * u64::from(self.mtu) >= window }
    }

    fn is_in_recovery(&self, sent: Instant) -> bool {
        self.episode.as_ref().is_some_and(|e| sent <= e.start)
    }

    /// Packets were declared lost.
    pub fn on_lost(&mut self, now: Instant, loss: &LossSample) {
        let &LossSample { bytes, sent, ranges, persistent } = loss;
        self.release(bytes);
        if self.is_in_recovery(sent) {
            if let Some(e) = &mut self.episode
                && e.previous.is_none_or(|p| sent > p)
            {
                e.lost += bytes;
            }
        } else {
            self.reduce(now, true, bytes);
            self.note_opening(sent);
        }
        match &mut self.controller {
            Controller::Bbr(c) => c.on_lost(now, bytes, sent, ranges, self.in_flight),
            Controller::Adaptive(c) => c.bbr.on_lost(now, bytes, sent, ranges, self.in_flight),
            Controller::Reno(_) | Controller::Cubic(_) => {}
        }
        if persistent {
            //= rfc9002#7.6.2-4
            each!(&mut self.controller, c => c.on_persistent(now));
            self.episode = None;
        }
    }

    /// The count of CE marks grew. `sent` is when the newest packet of the acknowledgement was sent, `oldest` the same of the
    /// oldest. Nobody tells which of the packets had the marks; in a queue that a reduction drains it is the old ones, so
    /// that an acknowledgement of packets from both sides of a reduction is no reason for a second one.
    pub fn on_ecn_ce(&mut self, now: Instant, sent: Instant, oldest: Instant) {
        match &mut self.controller {
            Controller::Bbr(c) => c.on_ce(now, sent),
            Controller::Adaptive(c) => c.bbr.on_ce(now, sent),
            Controller::Reno(_) | Controller::Cubic(_) => {}
        }
        if !self.is_in_recovery(oldest) {
            self.reduce(now, false, 0);
            self.note_opening(oldest);
        } else if let Some(e) = &mut self.episode {
            // The marks alone would have been reason enough.
            e.saved = None;
        }
    }

    /// Tells CUBIC that the congestion just now was that of the opening, if it was.
    fn note_opening(&mut self, sent: Instant) {
        if self.opening_end.is_some_and(|end| sent > end) {
            return;
        }
        match &mut self.controller {
            Controller::Cubic(c) => c.on_opening_congestion(),
            Controller::Adaptive(c) => c.cubic.on_opening_congestion(),
            Controller::Reno(_) | Controller::Bbr(_) => {}
        }
    }

    /// A congestion event outside a recovery period: at most one reduction per round trip.
    //= rfc9002#7.3.1-1
    fn reduce(&mut self, now: Instant, undoable: bool, lost: u64) {
        let saved = match (&self.controller, undoable) {
            (_, false) => None,
            (Controller::Reno(c), true) => Some(Saved::Reno(*c)),
            (Controller::Cubic(c), true) => Some(Saved::Cubic(c.curve())),
            (Controller::Adaptive(c), true) => Some(Saved::Cubic(c.cubic.curve())),
            (Controller::Bbr(_), true) => Some(Saved::Bbr),
        };
        let previous = self.episode.as_ref().map(|e| e.start);
        let episode = Episode { start: now, previous, saved, lost, spurious: 0 };
        match &mut self.episode {
            Some(last) => **last = episode,
            none => *none = Some(Box::new(episode)),
        }
        match &mut self.controller {
            Controller::Cubic(c) if !undoable => c.on_mark(now),
            Controller::Adaptive(c) if !undoable => c.cubic.on_mark(now),
            controller => each!(controller, c => c.on_congestion(now)),
        }
    }

    /// Packets were acknowledged after they had been declared lost. When that is true of all that the last reduction was
    /// for, it is undone.
    pub fn on_spurious(&mut self, bytes: u64, sent: Instant) {
        let Some(e) = &mut self.episode else { return };
        if sent > e.start || e.previous.is_some_and(|p| sent <= p) {
            return;
        }
        e.spurious += bytes;
        if e.spurious < e.lost {
            return;
        }
        match (e.saved.take(), &mut self.controller) {
            (Some(Saved::Reno(saved)), Controller::Reno(c)) => c.undo(&saved),
            (Some(Saved::Cubic(saved)), Controller::Cubic(c)) => c.undo(&saved),
            (Some(Saved::Cubic(saved)), Controller::Adaptive(c)) => c.cubic.undo(&saved),
            // Also when the reduction was before the choice: the model heard of it as well.
            (Some(_), Controller::Bbr(c)) => c.undo(),
            _ => return,
        }
        // The period never was one: packets that were sent in it may open the window.
        match e.previous {
            Some(start) => **e = Episode { start, previous: None, saved: None, lost: 0, spurious: 0 },
            None => self.episode = None,
        }
    }

    /// Packets left the flight without saying anything about congestion: discarded keys, a lost MTU probe.
    pub fn on_discarded(&mut self, bytes: u64) {
        self.release(bytes);
    }

    fn release(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.in_flight, "only what was sent leaves the flight");
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// The largest datagram changed. A larger one opens no window: its size says nothing about the path's capacity.
    pub fn set_mtu(&mut self, mtu: u16) {
        let old = self.mtu;
        self.mtu = mtu;
        //= rfc8899#3-14
        //= rfc9002#7.2-2, rfc9002#7.2-3
        let untouched = self.window() == initial_window(old) && self.in_slow_start();
        each!(&mut self.controller, c => c.set_mtu(mtu, untouched));
    }

    /// Gives memory back that an idle connection does not need.
    pub fn shrink(&mut self) {
        if self.in_flight > 0 {
            return;
        }
        match &mut self.controller {
            Controller::Bbr(c) => c.shrink(),
            Controller::Adaptive(c) => c.bbr.shrink(),
            Controller::Reno(_) | Controller::Cubic(_) => {}
        }
    }

    /// Bytes that may be in flight.
    #[must_use]
    pub fn window(&self) -> u64 {
        each!(&self.controller, c => c.window())
    }

    /// Bytes in flight.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Most bytes in flight in this round or the one before.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.peak.max(self.peak_before)
    }

    /// Bytes that may be sent now.
    //= rfc9002#7-2
    #[must_use]
    pub fn room(&self) -> u64 {
        self.window().saturating_sub(self.in_flight)
    }

    /// Whether the controller is in slow start, or in what its model has for it.
    #[must_use]
    pub fn in_slow_start(&self) -> bool {
        each!(&self.controller, c => c.in_slow_start())
    }

    /// Whether the window doubles per round trip: the pacer leaves room for that.
    #[must_use]
    pub fn doubles(&self) -> bool {
        match &self.controller {
            Controller::Cubic(c) => c.doubles(),
            Controller::Adaptive(c) => c.cubic.doubles(),
            _ => self.in_slow_start(),
        }
    }

    /// Bytes per second to send at, and datagrams that may leave at once; `None` when the pacer takes them from the window.
    #[must_use]
    pub fn pacing_rate(&self) -> Option<(u64, u64)> {
        match &self.controller {
            Controller::Bbr(c) => Some((c.pacing_rate(), c.burst())),
            _ => None,
        }
    }

    /// Where the controller is, for those who watch.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.is_in_recovery(self.newest_acked) {
            Phase::Recovery
        } else if self.in_slow_start() {
            Phase::SlowStart
        } else {
            Phase::Avoidance
        }
    }

    /// The slow start threshold; `None` before the first congestion.
    #[must_use]
    pub fn ssthresh(&self) -> Option<u64> {
        let threshold = each!(&self.controller, c => c.ssthresh());
        (threshold != u64::MAX).then_some(threshold)
    }
}

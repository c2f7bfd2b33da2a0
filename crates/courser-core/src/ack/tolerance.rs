//! How many packets the peer should take per ACK, and telling it so (seed: packet tolerance; ACK frequency draft).
//!
//! A sender that merges acknowledgements and paces its packets needs a few ACKs per round trip, not one per two packets.
//! [`Tolerance`] counts the ACK frames of a period of some round trips and compares their number per round trip with a
//! target, which depends on the round-trip time. It multiplies the tolerance by their ratio: the number of ACKs is inverse
//! to the tolerance, so that one step makes up for any error that the limits of a step let through. An error of an eighth
//! is left alone. The tolerance never exceeds a share of the congestion window, or the window would wait for
//! acknowledgements that are not due; in slow start, which lives on samples of the round trip, a smaller one.
//!
//! One request is on its way at a time; it is repeated until the peer has it, and the next period begins after that.
//! Until then the longer of the two delays, the one in force and the one asked for, counts for probe timeouts.

use core::time::Duration;

use crate::ack::schedule::{REORDERING, TOLERANCE};
use crate::spans::Fate;
use crate::time::{Instant, micros};

/// Most packets per ACK.
pub const TOLERANCE_MAX: u32 = 150;
/// At least that many ACKs per congestion window.
const ACKS_PER_WINDOW: u64 = 14;
/// And that many where the window leaves within milliseconds.
const ACKS_AT_LEAST: u64 = 4;
/// In slow start that many, which lives on samples of the round trip.
const ACKS_IN_SLOW_START: u64 = 20;
/// A smaller window, in packets, recovers from losses sooner with an ACK for every second packet.
const WINDOW_MIN: u64 = 32;
/// Round trips of a period, at least; one more passes with the request.
const PERIOD_RTTS: u32 = 2;
/// Fewer ACK frames than that in a period are too few to count, and it goes on.
const PERIOD_ACKS: u32 = 3;
/// Round trips of a period, at most.
const PERIOD_RTTS_MAX: u32 = 4;
/// A step multiplies or divides by this, at most.
const STEP_MAX: u64 = 4;
/// Errors below one part of this many are left alone.
const DEAD_BAND: u64 = 8;

/// The target: up to a round trip of so many milliseconds, so many hundredths of an ACK per round trip.
pub const TARGETS: [(u64, u64); 12] = [
    (5, 250),
    (10, 235),
    (15, 220),
    (20, 205),
    (25, 190),
    (30, 175),
    (40, 155),
    (50, 135),
    (60, 115),
    (80, 90),
    (100, 70),
    (u64::MAX, 50),
];

/// ACKs per round trip that are wanted, in hundredths.
#[must_use]
pub fn target(rtt: Duration) -> u64 {
    let rtt_us = micros(rtt);
    let row = TARGETS.iter().find(|(ms, _)| rtt_us <= ms.saturating_mul(1000));
    row.map_or(50, |(_, acks)| *acks)
}

/// When the peer is to acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Ack-eliciting packets per ACK; one more than the frame's threshold.
    pub packets: u32,
    /// The longest delay.
    pub max_delay: Duration,
    /// How far a packet may be overtaken before that is reported at once.
    pub reordering: u64,
}

/// What the sender knows when it looks at its terms.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Full datagrams in a congestion window.
    pub window_packets: u64,
    /// Whether the window still grows by all that is acknowledged.
    pub slow_start: bool,
    /// The packet threshold of loss detection.
    pub reordering: u64,
}

/// What became of the newest request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// The peer has it, or there was none.
    Settled,
    /// It waits for a packet.
    Due(Terms),
    /// It is in a packet whose fate is open.
    InFlight(Terms),
}

/// The sender's side of the extension.
#[derive(Clone, Debug)]
pub struct Tolerance {
    /// The delay of the transport parameters in microseconds, less than 2^24 by the rules; nothing longer is asked for.
    announced_us: u32,
    /// What is agreed with a peer that knows such frames. Few do, so that the others take no memory for it.
    talks: Option<Box<Talks>>,
}

#[derive(Clone, Debug)]
struct Talks {
    /// The smallest delay that the peer takes.
    least: Duration,
    /// The same as outside.
    announced: Duration,
    /// What the peer acknowledged, or announced in its transport parameters.
    in_force: Terms,
    request: Request,
    /// Sequence number of the newest request; the first one is 0.
    sequence: u64,
    /// ACK frames of the present period.
    acks: u32,
    /// When the present period began; `None` while a request is on its way, or before the first look.
    since: Option<Instant>,
    /// Requests that the peer has.
    agreed: u64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self::new(None, Duration::from_millis(25))
    }
}

impl Tolerance {
    /// `peer_min` is the peer's `min_ack_delay`, `announced` its `max_ack_delay`.
    #[must_use]
    pub fn new(peer_min: Option<Duration>, announced: Duration) -> Self {
        let talks = |least| {
            Box::new(Talks {
                least,
                announced,
                in_force: begins_with(announced),
                request: Request::Settled,
                sequence: 0,
                acks: 0,
                since: None,
                agreed: 0,
            })
        };
        Self { announced_us: u32::try_from(micros(announced)).unwrap_or(u32::MAX), talks: peer_min.map(talks) }
    }

    fn announced(&self) -> Duration {
        Duration::from_micros(self.announced_us.into())
    }

    /// Whether the peer takes ACK_FREQUENCY and IMMEDIATE_ACK frames.
    #[must_use]
    pub const fn is_negotiated(&self) -> bool {
        self.talks.is_some()
    }

    /// What the peer keeps to, as far as we know.
    #[must_use]
    pub fn in_force(&self) -> Terms {
        self.talks.as_ref().map_or_else(|| begins_with(self.announced()), |talks| talks.in_force)
    }

    /// Requests that the peer has.
    #[must_use]
    pub fn agreed(&self) -> u64 {
        self.talks.as_ref().map_or(0, |talks| talks.agreed)
    }

    /// The longest delay of an ACK that has to be reckoned with.
    //= ack-frequency#7-1
    //= ack-frequency#7-2
    #[must_use]
    pub fn max_delay(&self) -> Duration {
        let Some(talks) = &self.talks else { return self.announced() };
        match talks.request {
            Request::InFlight(terms) | Request::Due(terms) => talks.in_force.max_delay.max(terms.max_delay),
            Request::Settled => talks.in_force.max_delay,
        }
    }

    /// An ACK frame came.
    pub fn on_ack(&mut self) {
        if let Some(talks) = &mut self.talks {
            talks.acks = talks.acks.saturating_add(1);
        }
    }

    /// The connection uses another path: what was learnt of the old one says nothing about it.
    pub fn on_path_change(&mut self) {
        if let Some(talks) = &mut self.talks {
            (talks.since, talks.acks) = (None, 0);
        }
    }

    /// Ends a period that is over, and asks for other terms if it showed that they are wrong.
    pub fn on_tick(&mut self, now: Instant, view: &View) {
        if let Some(talks) = &mut self.talks {
            talks.on_tick(now, view);
        }
    }

    /// The frame that the next 1-RTT packet should carry: its sequence number and the terms.
    #[must_use]
    pub fn due(&self) -> Option<(u64, Terms)> {
        let talks = self.talks.as_ref()?;
        match talks.request {
            Request::Due(terms) => Some((talks.sequence, terms)),
            _ => None,
        }
    }

    /// The frame was put in a packet.
    pub fn mark_sent(&mut self) {
        if let Some(talks) = &mut self.talks
            && let Request::Due(terms) = talks.request
        {
            talks.request = Request::InFlight(terms);
        }
    }

    /// What became of a packet with the request of that number.
    pub fn settle(&mut self, fate: Fate, sequence: u64) {
        if let Some(talks) = &mut self.talks {
            talks.settle(fate, sequence);
        }
    }
}

impl Talks {
    fn on_tick(&mut self, now: Instant, view: &View) {
        if self.request != Request::Settled {
            return;
        }
        let Some(since) = self.since else {
            (self.since, self.acks) = (Some(now), 0);
            return;
        };
        let round_trips = if self.acks < PERIOD_ACKS { PERIOD_RTTS_MAX } else { PERIOD_RTTS };
        if now.since(since) < view.rtt.saturating_mul(round_trips) {
            return;
        }
        let mut wanted = Terms {
            packets: self.adapted(now.since(since), view),
            max_delay: view.rtt.min(self.announced).max(self.least),
            // Never 0, so that a probe timeout need not be longer than the delay.
            //= ack-frequency#7-3
            reordering: view.reordering.max(REORDERING),
        };
        if wanted.packets == TOLERANCE {
            wanted.reordering = REORDERING;
        }
        (self.since, self.acks) = (Some(now), 0);
        let sparse = wanted.packets > TOLERANCE || self.in_force.packets > TOLERANCE;
        if sparse && differs(&self.in_force, &wanted) {
            self.since = None;
            self.request = Request::Due(wanted);
        }
    }

    /// The tolerance that would have given the target in the period that ends.
    fn adapted(&self, took: Duration, view: &View) -> u32 {
        if view.window_packets < WINDOW_MIN {
            return TOLERANCE;
        }
        let now = u64::from(self.in_force.packets);
        let acks = if view.slow_start { ACKS_IN_SLOW_START } else { ACKS_PER_WINDOW };
        // What leaves within a millisecond leaves together anyway.
        let together = view.window_packets.saturating_mul(1000) / micros(view.rtt).max(1);
        let most = (view.window_packets / acks).max(together.min(view.window_packets / ACKS_AT_LEAST));
        let most = most.clamp(TOLERANCE.into(), TOLERANCE_MAX.into());
        let limit = |packets: u64| u32::try_from(packets.clamp(TOLERANCE.into(), most)).unwrap_or(TOLERANCE);
        // A period without any ACK was one without data.
        if self.acks == 0 {
            return limit(now);
        }
        // Hundredths of an ACK per round trip, against the same of the target.
        let seen = u64::from(self.acks).saturating_mul(micros(view.rtt)).saturating_mul(100) / micros(took).max(1);
        let target = target(view.rtt);
        if seen.abs_diff(target) < target.div_ceil(DEAD_BAND) {
            return limit(now);
        }
        let next = now.saturating_mul(seen).div_ceil(target);
        limit(next.clamp(now / STEP_MAX, now * STEP_MAX))
    }

    fn settle(&mut self, fate: Fate, sequence: u64) {
        let (Request::Due(terms) | Request::InFlight(terms)) = self.request else { return };
        if sequence != self.sequence {
            return;
        }
        match fate {
            Fate::Acked => {
                self.in_force = terms;
                self.request = Request::Settled;
                //= ack-frequency#4-1
                self.sequence += 1;
                self.agreed += 1;
            }
            Fate::Lost => self.request = Request::Due(terms),
            Fate::Discarded => {}
        }
    }
}

/// What a peer keeps to that was not asked for anything.
fn begins_with(announced: Duration) -> Terms {
    Terms { packets: TOLERANCE, max_delay: announced, reordering: REORDERING }
}

/// Whether the terms are so different that telling the peer is worth a frame.
fn differs(now: &Terms, wanted: &Terms) -> bool {
    let (before, after) = (micros(now.max_delay), micros(wanted.max_delay));
    now.packets != wanted.packets || now.reordering != wanted.reordering || before.abs_diff(after) > before / 4
}

const _: () = assert!(size_of::<Tolerance>() <= 16, "every connection carries one");

/// One that has something to ask for.
#[cfg(test)]
pub(crate) fn asked() -> Tolerance {
    let ms = Duration::from_millis(1);
    let mut t = Tolerance::new(Some(ms), 25 * ms);
    let view = View { rtt: 4 * ms, window_packets: 100, slow_start: false, reordering: 3 };
    t.on_tick(Instant::from_micros(1), &view);
    (0..40).for_each(|_| t.on_ack());
    t.on_tick(Instant::from_micros(8_001), &view);
    t
}

#[cfg(test)]
#[path = "tolerance_tests.rs"]
mod tests;

//! Probes that leave before the probe timeout, because there is evidence that it is too long.
//!
//! The timeout assumes a round trip of 333 ms before one is known, and doubles with each silence. Both are right for a path of
//! which nothing is known, and long for one that lost a datagram: the first flight of a client is repeated once after 125 ms,
//! a flight whose answer shows that a part is missing is repeated at once (RFC 9002 section 6.2.3), and who hears the peer
//! again after a silence does not wait for what is left of a backed-off timeout. There is at most one such probe until
//! something is acknowledged, so that two ends that cannot understand each other do not go on for ever. The timeout, its
//! backoff and what follows from it stay as they are. Decision D86 has the figures.

use core::time::Duration;

use super::Recovery;
use super::rtt::Rtt;
use crate::time::Instant;

/// A client that has heard nothing repeats its first flight after that.
pub const FIRST_FLIGHT: Duration = Duration::from_millis(125);
/// What comes sooner after a flight than this is no answer to it, but a part of what the flight answers.
const ANSWER_MIN: Duration = Duration::from_millis(20);

impl Recovery {
    /// A probe leaves at that time at the latest, if anything is in flight then.
    pub fn hurry(&mut self, at: Instant) {
        if !self.hurried {
            self.hurry = self.hurry.min(at);
        }
    }

    /// Something was acknowledged, or cannot be any more: nothing is overdue.
    pub(super) const fn relax(&mut self, now: Instant) {
        (self.rearmed, self.hurry, self.hurried) = (now, Instant::FAR_FUTURE, false);
    }

    /// The peer sends its flight again: it has not seen all of ours.
    pub fn on_repeated(&mut self, now: Instant) {
        if now.since(self.rearmed) >= ANSWER_MIN {
            self.hurry(now);
        }
    }

    /// The peer answers, with what cannot be read before something else comes. That may have been overtaken only, so an
    /// eighth of the time since the flight is waited for it.
    pub fn on_unreadable(&mut self, now: Instant) {
        let since = now.since(self.rearmed).max(ANSWER_MIN);
        self.hurry(self.rearmed + since + since / 8);
    }

    /// The peer is heard again after a silence in which probes were not answered. The answer to the last one may be on its
    /// way for a round trip.
    pub fn on_heard_again(&mut self, now: Instant, rtt: &Rtt) {
        if self.pto_count > 0 {
            self.hurry(now.max(self.rearmed + rtt.loss_delay(self.reordering.eighths())));
        }
    }
}

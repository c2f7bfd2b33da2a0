//! The loss detection timer (RFC 9002 section 6.2 and appendix A.8, A.9).
//!
//! There is one timer in two modes. While packets wait to be lost by time it is set to that; else it is the probe timeout
//! of the earliest space, doubled with each one that passes without an acknowledgement. A client that cannot know whether
//! the server may answer keeps a timer even with nothing in flight, or both sides could wait for ever.

use core::time::Duration;

use super::rtt::Rtt;
use super::{AckOutcome, Context, Recovery, Report, Settled};
use crate::ids::Space;
use crate::spans::{Fate, FrameSet, Record};
use crate::time::Instant;

/// Backoff stops doubling here: a million times the probe timeout is as good as never.
const BACKOFF_MAX: u32 = 20;

/// What the timer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::large_enum_variant, reason = "lives for one call on the stack")]
pub enum TimeoutOutcome {
    /// The timer is not due.
    NotDue,
    /// Packets were lost by time.
    Lost(AckOutcome),
    /// Ack-eliciting packets have to leave, whatever the congestion window says.
    Probe {
        /// In this space.
        space: Space,
        /// This many.
        count: u8,
    },
}

impl Recovery {
    /// Reads a word of each line of memory that the next packet needs, so that they are in the cache by then.
    #[must_use]
    pub fn touch(&self) -> u64 {
        self.data.sent.touch() ^ u64::from(self.pto_count)
    }

    fn backoff(&self, pto: Duration) -> Duration {
        pto.saturating_mul(1 << self.pto_count.min(BACKOFF_MAX))
    }

    fn loss_time(&self) -> Option<(Instant, Space)> {
        Space::ALL.into_iter().filter_map(|space| Some((self.space(space)?.loss_time?, space))).min()
    }

    /// The probe timeout and its space; the count of probes is one when it only prevents a deadlock.
    fn probe_time(&self, rtt: &Rtt, cx: &Context) -> Option<(Instant, Space, u8)> {
        //= rfc9002#6.2.2.1-1
        if cx.amplification_blocked {
            return None;
        }
        let mut earliest: Option<(Instant, Space, u8)> = None;
        for space in Space::ALL {
            let Some(s) = self.space(space) else { continue };
            //= rfc9002#6.2.1-3
            if s.sent.eliciting() == 0 || space == Space::Data && !cx.handshake_confirmed {
                continue;
            }
            let delay = if space == Space::Data { cx.max_ack_delay } else { Duration::ZERO };
            let at = s.last_eliciting + self.backoff(rtt.pto_base() + delay);
            //= rfc9002#6.2.1-2
            if earliest.is_none_or(|(other, ..)| at < other) {
                earliest = Some((at, space, 2));
            }
        }
        if earliest.is_none() && !cx.peer_validated_address {
            //= rfc9002#6.2.2.1-2, rfc9002#6.2.2.1-3
            //= rfc9000#8.1-4
            //= rfc9000#8.1-5
            let space = if cx.has_handshake_keys { Space::Handshake } else { Space::Initial };
            earliest = Some((self.rearmed + self.backoff(rtt.pto_base()), space, 1));
        }
        earliest
    }

    /// When [`on_timeout`](Self::on_timeout) has to be called.
    //= rfc9002#6.2.1-6
    #[must_use]
    pub fn deadline(&self, rtt: &Rtt, cx: &Context) -> Option<Instant> {
        match self.loss_time() {
            Some((at, _)) => Some(at),
            None => self.probe_time(rtt, cx).map(|(at, ..)| at.min(self.hurry)),
        }
    }

    /// The timer fired.
    pub fn on_timeout(
        &mut self,
        now: Instant,
        rtt: &mut Rtt,
        cx: &Context,
        settle: &mut dyn FnMut(Fate, Settled<'_>),
    ) -> TimeoutOutcome {
        if let Some((at, space)) = self.loss_time() {
            if at > now {
                return TimeoutOutcome::NotDue;
            }
            let mut out = AckOutcome::default();
            self.detect_lost(now, space, rtt, cx, Report { out: &mut out, settle });
            return TimeoutOutcome::Lost(out);
        }
        match self.probe_time(rtt, cx) {
            Some((at, space, count)) if at <= now => {
                //= rfc9002#6.2.1-5, rfc9002#6.2-1
                self.pto_count += 1;
                self.rearmed = now;
                self.hurry = Instant::FAR_FUTURE;
                TimeoutOutcome::Probe { space, count }
            }
            Some((_, space, _)) if self.hurry <= now => {
                (self.hurry, self.hurried) = (Instant::FAR_FUTURE, true);
                TimeoutOutcome::Probe { space, count: 1 }
            }
            _ => TimeoutOutcome::NotDue,
        }
    }

    /// Shows what the oldest unsettled packet of a space carried, so that a probe can carry it again. The packet stays
    /// unsettled: nobody knows yet that it is lost.
    pub fn repeat_oldest(&mut self, space: Space, repeat: &mut dyn FnMut(FrameSet, &[Record])) {
        if let Some(s) = self.space_mut(space) {
            s.sent.oldest_eliciting(|found| repeat(found.packet.frames, found.records));
        }
    }

    /// Whether nothing is known any more of what packets of the data space carried, but of acknowledgements.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.data.sent.is_settled()
    }

    /// Gives memory back that an idle connection does not need.
    pub fn shrink(&mut self) {
        self.data.sent.shrink();
    }
}

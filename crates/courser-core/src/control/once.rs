//! A frame without content that the peer has to get once: HANDSHAKE_DONE.

use crate::spans::Fate;

/// Delivery of something that is said once (RFC 9000 section 13.3: repeated until acknowledged).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Once {
    /// Nobody asked for it.
    #[default]
    Idle,
    /// Waits for the next packet.
    Requested,
    /// In a packet whose fate is open.
    InFlight,
    /// The peer has it.
    Delivered,
}

impl Once {
    /// Asks for the frame; does nothing when it was asked for before.
    pub fn request(&mut self) {
        if *self == Self::Idle {
            *self = Self::Requested;
        }
    }

    /// Whether the next packet should carry it.
    #[must_use]
    pub fn is_due(self) -> bool {
        self == Self::Requested
    }

    /// It was put in a packet.
    pub fn mark_sent(&mut self) {
        debug_assert_eq!(*self, Self::Requested);
        *self = Self::InFlight;
    }

    /// What became of a packet that carried it.
    pub fn settle(&mut self, fate: Fate) {
        *self = match (*self, fate) {
            (_, Fate::Acked) | (Self::Delivered, _) => Self::Delivered,
            (Self::Idle, _) => Self::Idle,
            (_, Fate::Lost) => Self::Requested,
            (now, Fate::Discarded) => now,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_frame_is_asked_again_until_acknowledged() {
        //= rfc9000#13.3-3 type=test
        let mut o = Once::default();
        assert!(!o.is_due());
        o.request();
        for _ in 0..3 {
            assert!(o.is_due());
            o.mark_sent();
            assert!(!o.is_due());
            o.settle(Fate::Lost);
        }
        o.mark_sent();
        o.settle(Fate::Acked);
        o.settle(Fate::Lost);
        o.request();
        assert_eq!(o, Once::Delivered);
    }

    #[test]
    fn a_late_acknowledgement_cancels_the_repetition() {
        let mut o = Once::Requested;
        o.mark_sent();
        o.settle(Fate::Lost);
        o.settle(Fate::Acked);
        assert!(!o.is_due());
    }
}

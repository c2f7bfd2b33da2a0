//! When a side that sends nothing but acknowledgements asks for one itself.
//!
//! ACK frames are not acknowledged unless something else is sent along, and without that the receiver of a long download
//! would report old ranges for ever. After some packets in a row that are not ack-eliciting, the next one carries a PING.
//! The count starts at 20 and is then drawn from 12 to 27, so that two such endpoints fall into no common rhythm.

/// Packets before the first PING.
const FIRST: u8 = 20;
/// The smallest distance that is drawn; 16 values follow from here.
const LOWEST: u8 = 12;

/// Counts packets that are not ack-eliciting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckPing {
    /// Packets in a row so far.
    run: u8,
    /// The run after which a PING is wanted.
    limit: u8,
}

impl Default for AckPing {
    fn default() -> Self {
        Self { run: 0, limit: FIRST }
    }
}

impl AckPing {
    /// Whether the next packet should carry a PING if it is not ack-eliciting anyway.
    //= rfc9000#13.2.1-6
    #[must_use]
    pub const fn is_wanted(&self) -> bool {
        self.run >= self.limit
    }

    /// A packet was sent. `random` draws the next distance; it is looked at only after an ack-eliciting packet.
    pub const fn on_sent(&mut self, ack_eliciting: bool, random: u8) {
        if !ack_eliciting {
            self.run = self.run.saturating_add(1);
        } else if self.is_wanted() {
            *self = Self { run: 0, limit: LOWEST + random % 16 };
        } else {
            self.run = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_between_pings_are_spread_from_12_to_27() {
        //= rfc9000#13.2.1-6 type=test
        let mut ping = AckPing::default();
        let (mut gaps, mut gap, mut state) = (Vec::new(), 0, 1u32);
        while gaps.len() < 1000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let wanted = ping.is_wanted();
            ping.on_sent(wanted, (state >> 24) as u8);
            if wanted {
                gaps.push(gap);
                gap = 0;
            } else {
                gap += 1;
            }
        }
        assert_eq!(gaps[0], 20);
        for distance in 12..=27 {
            assert!(gaps[1..].iter().filter(|&&g| g == distance).count() > 20, "{distance}");
        }
        assert!(gaps[1..].iter().all(|g| (12..=27).contains(g)));
    }

    #[test]
    fn other_ack_eliciting_packets_start_the_count_again() {
        let mut ping = AckPing::default();
        for _ in 0..100 {
            (0..19).for_each(|_| ping.on_sent(false, 0));
            assert!(!ping.is_wanted());
            ping.on_sent(true, 0);
        }
    }
}

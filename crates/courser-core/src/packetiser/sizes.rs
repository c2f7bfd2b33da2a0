//! The seed's vocabulary of sizes, as one small calculation.
//!
//! | name | meaning |
//! |---|---|
//! | MDPL | largest UDP payload for this datagram |
//! | MPL, CMPL | largest packet: MDPL less the packets before it in the datagram |
//! | MPPL, CMPPL | its payload: MPL less header and tag |
//! | RCMPPL | CMPPL less what is written already; the writer's room |
//! | MinDPL, MinPL, MinPPL | what padding has to reach: datagram, last packet, its payload |

use crate::crypto::TAG_LEN;

/// Sizes of one datagram under construction, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// MDPL.
    pub datagram_max: usize,
    /// Bytes of the packets that are in the datagram already.
    pub used: usize,
    /// MinDPL; zero when no packet demands a minimum.
    pub datagram_min: usize,
}

impl Budget {
    /// A datagram without packets.
    #[must_use]
    pub const fn new(datagram_max: usize) -> Self {
        Self { datagram_max, used: 0, datagram_min: 0 }
    }

    /// CMPL: the largest packet that still fits.
    #[must_use]
    pub const fn packet_max(&self) -> usize {
        self.datagram_max.saturating_sub(self.used)
    }

    /// CMPPL: its payload behind a header of that length; `None` when not even one byte fits.
    #[must_use]
    pub fn payload_max(&self, header: usize) -> Option<usize> {
        self.packet_max().checked_sub(header + TAG_LEN).filter(|room| *room > 0)
    }

    /// MinPPL of the last packet: the payload that brings the datagram to its minimum.
    #[must_use]
    pub const fn payload_min(&self, header: usize) -> usize {
        self.datagram_min.saturating_sub(self.used).saturating_sub(header + TAG_LEN)
    }

    /// A packet of that length was added.
    pub fn add(&mut self, packet: usize) {
        debug_assert!(packet <= self.packet_max());
        self.used += packet;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_initial_alone_is_padded_to_the_byte() {
        let mut b = Budget::new(1472);
        b.datagram_min = 1200;
        let header = 40;
        assert_eq!(b.payload_max(header), Some(1472 - 40 - 16));
        assert_eq!(b.payload_min(header), 1200 - 40 - 16);
        b.add(header + 100 + TAG_LEN);
        // A second packet takes over what is missing.
        assert_eq!(b.payload_min(30), 1200 - (40 + 100 + 16) - 30 - 16);
        assert_eq!(b.packet_max(), 1472 - 156);
    }

    #[test]
    fn no_room_is_no_negative_room() {
        let mut b = Budget::new(1200);
        b.add(1190);
        assert_eq!((b.packet_max(), b.payload_max(20), b.payload_min(20)), (10, None, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn packets_that_fit_never_exceed_the_datagram(max in 1200usize..9000, sizes in prop::collection::vec(1usize..3000, 1..6)) {
            let mut b = Budget::new(max);
            for size in sizes {
                if let Some(room) = b.payload_max(20) {
                    b.add(20 + TAG_LEN + room.min(size));
                }
                prop_assert!(b.used <= b.datagram_max);
            }
        }
    }
}

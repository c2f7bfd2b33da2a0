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
    use crate::ids::{Cid, Level, Version};
    use crate::wire::Writer;
    use crate::wire::header::{LongSpec, ShortSpec, long_size, short_size, write_long};
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
    fn every_form_of_header_leaves_exactly_its_room() {
        // OSSL-TXP-20: header, payload and tag are the packet, to the byte. All suites have tags of 16 bytes.
        let cid = |len| Cid::new(&[7; 20][..len]).unwrap();
        for (to, from) in [(0, 0), (8, 8), (20, 4)] {
            for pn_len in 1..=4 {
                let (dcid, scid) = (cid(to), cid(from));
                let short = ShortSpec { dcid: &dcid, spin: false, key_phase: false, pn: 9, pn_len };
                let mut headers = vec![short_size(&short)];
                for (level, token) in
                    [(Level::Initial, 0), (Level::Initial, 64), (Level::Handshake, 0), (Level::ZeroRtt, 0)]
                {
                    let (token, version) = (&[1; 64][..token], Version::V1);
                    let spec = LongSpec { level, version, dcid: &dcid, scid: &scid, token, pn: 9, pn_len };
                    let mut buffer = [0; 256];
                    let mut w = Writer::new(&mut buffer);
                    headers.push(write_long(&mut w, &spec).unwrap().head().payload_at);
                    assert_eq!((w.len(), headers.last()), (long_size(&spec), Some(&long_size(&spec))));
                }
                for header in headers {
                    let mut b = Budget::new(1472);
                    b.add(300);
                    let room = b.payload_max(header).unwrap();
                    assert_eq!(header + room + TAG_LEN, b.packet_max());
                    b.add(header + room + TAG_LEN);
                    assert_eq!((b.used, b.packet_max(), b.payload_max(0)), (1472, 0, None));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn packets_that_fit_never_exceed_the_datagram(
            max in 1200usize..9000,
            packets in prop::collection::vec((1usize..80, 1usize..3000), 1..6),
        ) {
            // OSSL-TXP-19, 21, 22: each packet takes what it wants of its room; the last one takes all of it.
            let mut b = Budget::new(max);
            let mut sum = 0;
            for (header, want) in packets {
                let Some(room) = b.payload_max(header) else {
                    prop_assert!(b.packet_max() <= header + TAG_LEN);
                    continue;
                };
                let packet = header + TAG_LEN + room.min(want);
                prop_assert!(packet <= b.packet_max() && b.packet_max() <= b.datagram_max);
                b.add(packet);
                sum += packet;
                prop_assert_eq!((b.used, b.used + b.packet_max()), (sum, max));
            }
            if let Some(room) = b.payload_max(20) {
                b.add(20 + room + TAG_LEN);
                prop_assert_eq!(b.used, max);
            }
        }

        #[test]
        fn no_room_is_no_negative_room(max in 0usize..3000, used in 0usize..3000, min in 0usize..1300, header in 0usize..300) {
            // OSSL-TXP-23, 25, 26
            let b = Budget { datagram_max: max, used, datagram_min: min };
            let left = max as i64 - used as i64;
            prop_assert_eq!(b.packet_max() as i64, left.max(0));
            let room = left - (header + TAG_LEN) as i64;
            prop_assert_eq!(b.payload_max(header).map(|r| r as i64), (room > 0).then_some(room));
            let missing = min as i64 - used as i64 - (header + TAG_LEN) as i64;
            prop_assert_eq!(b.payload_min(header) as i64, missing.max(0));
        }
    }
}

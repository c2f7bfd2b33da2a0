//! The spin bit of a path (RFC 9000 section 17.4), from which an observer can tell the round-trip time.
//!
//! A server repeats what it last received, a client says the opposite: so the bit turns over once per round trip. Paths
//! are left out at random, one in sixteen, and altogether when the settings say so; their packets carry random bits.

use crate::ids::{PacketNumber, Side};

/// One path in that many takes no part.
const ABSTAINING: u64 = 16;

/// The spin bit of one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spin {
    /// Whether the bit says anything.
    enabled: bool,
    /// What the next packet says.
    value: bool,
    /// One more than the largest number that was received here; 0: none was.
    above: PacketNumber,
    /// Sequence number of the connection ID that packets carry; the bit begins anew with another one.
    destination: u64,
}

impl Spin {
    /// The bit of a new path. `random` draws whether it takes part, if that is `allowed`.
    #[must_use]
    pub const fn new(allowed: bool, random: u64, destination: u64) -> Self {
        //= rfc9000#17.4-2
        //= rfc9000#17.4-3
        let enabled = allowed && !random.is_multiple_of(ABSTAINING);
        Self { enabled, value: false, above: 0, destination }
    }

    /// Whether the bit follows the peer's.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// An authentic 1-RTT packet came on the path, with that bit.
    pub const fn on_packet(&mut self, side: Side, pn: PacketNumber, bit: bool) {
        //= rfc9000#17.4-4
        if self.enabled && pn >= self.above {
            self.above = pn + 1;
            self.value = bit != side.is_client();
        }
    }

    /// The bit of the next packet, which goes to that connection ID.
    pub const fn next(&mut self, destination: u64, random: bool) -> bool {
        if !self.enabled {
            //= rfc9000#17.4-5
            return random;
        }
        if destination != self.destination {
            (self.destination, self.value) = (destination, false);
        }
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bit_turns_over_once_per_round_trip() {
        let (mut client, mut server) = (Spin::new(true, 1, 0), Spin::new(true, 1, 0));
        let mut seen = Vec::new();
        for pn in 0..12 {
            let up = client.next(0, true);
            seen.push(up);
            server.on_packet(Side::Server, pn, up);
            client.on_packet(Side::Client, pn, server.next(0, true));
        }
        assert!(seen.iter().enumerate().all(|(i, bit)| *bit == (i % 2 == 1)), "{seen:?}");
    }

    #[test]
    fn a_late_packet_changes_nothing_and_another_connection_id_begins_anew() {
        let mut server = Spin::new(true, 1, 3);
        server.on_packet(Side::Server, 7, true);
        server.on_packet(Side::Server, 6, false);
        assert!(server.next(3, false));
        assert!(!server.next(4, true), "another connection ID");
        server.on_packet(Side::Server, 8, true);
        assert!(server.next(4, false));
    }

    #[test]
    fn one_path_in_sixteen_and_every_path_that_must_not_has_random_bits() {
        //= rfc9000#17.4-2 type=test
        //= rfc9000#17.4-3 type=test
        assert_eq!((0..1600).filter(|random| !Spin::new(true, *random, 0).is_enabled()).count(), 100);
        assert!((0..1600).all(|random| !Spin::new(false, random, 0).is_enabled()));
        //= rfc9000#17.4-4 type=test
        //= rfc9000#17.4-5 type=test
        for mut spin in [Spin::new(true, 16, 0), Spin::new(false, 1, 0), Spin::default()] {
            for (pn, bit) in [(1, true), (2, false), (3, true)] {
                spin.on_packet(Side::Client, pn, bit);
                assert_eq!([spin.next(0, true), spin.next(0, false)], [true, false], "what came is ignored");
            }
        }
    }
}

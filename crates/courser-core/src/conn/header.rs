//! Headers of our packets, and the two bits of them that anybody on the path sees and that carry no data: the spin bit and
//! the QUIC bit.

use super::{Connection, Env};
use crate::crypto::Head;
use crate::ids::{Level, PacketNumber};
use crate::wire::header::{self, LongLayout, LongSpec, ShortSpec};
use crate::wire::{Writer, pn};

/// A packet number of one byte is at most so far ahead of what the peer acknowledged. The peer tells it apart from its
/// neighbours until 128 later ones have come before it, so a packet has to be late by about a round trip to be lost for that.
const ONE_BYTE_AHEAD: u64 = 127;

/// Random bits, drawn by the word.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bits {
    word: u64,
    left: u8,
}

impl Bits {
    fn next(&mut self, env: &mut Env) -> bool {
        if self.left == 0 {
            *self = Self { word: env.random_u64(), left: 64 };
        }
        let bit = self.word & 1 == 1;
        *self = Self { word: self.word >> 1, left: self.left - 1 };
        bit
    }
}

impl Connection {
    /// Writes the header of a packet on the path in use.
    pub(super) fn write_header(
        &mut self,
        env: &mut Env,
        level: Level,
        pn: PacketNumber,
        packet: &mut [u8],
    ) -> Option<(Head, Option<LongLayout>)> {
        let clear = self.may_clear_quic_bit(env) && self.bits.next(env);
        let written = self.write_plain_header(env, level, pn, packet);
        if clear {
            header::clear_fixed_bit(packet);
        }
        written
    }

    /// Whether the QUIC bit of our packets may be 0.
    fn may_clear_quic_bit(&self, env: &Env) -> bool {
        //= rfc9287#3.1-1
        //= rfc9287#3.1-2
        //= rfc9287#3.1-3
        //= rfc9287#3.1-4
        //= rfc9287#3.1-5
        self.peer_known && self.manner.takes_grease && self.settings(env).grease
    }

    /// Whether a packet with this first byte can be one of this version.
    pub(super) fn takes_quic_bit(&self, env: &Env, packet: &[u8]) -> bool {
        //= rfc9000#17.2-1
        //= rfc9000#17.3.1-1
        //= rfc9287#3-2
        header::fixed_bit(packet) || self.settings(env).grease
    }

    /// Bytes of a packet number. Those of the handshake have two at least: it is short, and nobody knows the path yet.
    #[inline]
    fn pn_len(&self, level: Level, pn: PacketNumber) -> usize {
        let acked = self.recovery.largest_acked(level.space());
        //= rfc9000#17.1-1
        //= rfc9000#17.1-2
        let few = acked.is_some_and(|acked| pn.saturating_sub(acked) <= ONE_BYTE_AHEAD);
        let least = if few && level == Level::OneRtt { 1 } else { 2 };
        pn::length(pn, acked).max(least)
    }

    #[inline]
    fn write_plain_header(
        &mut self,
        env: &mut Env,
        level: Level,
        pn: PacketNumber,
        packet: &mut [u8],
    ) -> Option<(Head, Option<LongLayout>)> {
        let pn_len = self.pn_len(level, pn);
        //= rfc9000#7.2-2
        //= rfc9000#12.2-3
        let dcid = self.path.to.cid;
        let mut w = Writer::new(packet);
        if level == Level::OneRtt {
            let spin = self.path.spin.next(self.path.to.sequence, self.bits.next(env));
            let spec = ShortSpec { dcid: &dcid, spin, key_phase: self.keys.key_phase(), pn, pn_len };
            return header::write_short(&mut w, &spec).map(|head| (head, None));
        }
        let scid = self.local_cids.first().cid;
        //= rfc9000#8.1.2-1
        let token: &[u8] = match (&self.handshake, level) {
            //= rfc9000#8.1.3-1
            (Some(h), Level::Initial) => &h.token,
            _ => &[],
        };
        //= rfc9369#4.1-7
        //= rfc9369#4.1-9
        let version = match &self.handshake {
            Some(handshake) if level == Level::ZeroRtt => handshake.first_version,
            _ => self.version,
        };
        let spec = LongSpec { level, version, dcid: &dcid, scid: &scid, token, pn, pn_len };
        header::write_long(&mut w, &spec).map(|layout| (layout.head(), Some(layout)))
    }
}

//! Initial packets of a server where no connection exists: their keys, and how they are built.
//!
//! Keys are made from the connection ID that the client chose. Making them costs more than opening a packet, and they are
//! larger than what is remembered of a client that has not sent its whole ClientHello; so the last few are kept here, and
//! the connection takes them over.

use crate::crypto::{KeyFactory, Keys, TAG_LEN};
use crate::ids::{Cid, ConnKey, Level, Side, Version};
use crate::observe::{Event as Observed, Kind};
use crate::spans::FrameSet;
use crate::time::Instant;
use crate::wire::legality::{self, DatagramRules, Illegal, PacketView};
use crate::wire::{Writer, header};

use super::Env;

/// Keys that are kept, at most.
const KEYS_MAX: usize = 64;

/// Initial keys by version and the connection ID that they are made from; those that were made first go first.
#[derive(Default)]
pub(super) struct InitialKeys {
    made: Vec<(Version, Cid, Keys)>,
    /// Which goes next.
    next: usize,
}

impl InitialKeys {
    /// The keys of a client's choice; they are made when they are not here.
    pub(super) fn get(&mut self, factory: &dyn KeyFactory, version: Version, dcid: &Cid) -> &Keys {
        let at = match self.find(version, dcid) {
            Some(at) => at,
            None => self.add((version, *dcid, factory.initial(version, dcid, Side::Server))),
        };
        &self.made[at].2
    }

    /// Gives the keys away.
    pub(super) fn take(&mut self, factory: &dyn KeyFactory, version: Version, dcid: &Cid) -> Keys {
        match self.find(version, dcid) {
            Some(at) => self.made.swap_remove(at).2,
            None => factory.initial(version, dcid, Side::Server),
        }
    }

    /// Forgets them.
    pub(super) fn forget(&mut self, version: Version, dcid: &Cid) {
        if let Some(at) = self.find(version, dcid) {
            self.made.swap_remove(at);
        }
    }

    fn find(&self, version: Version, dcid: &Cid) -> Option<usize> {
        self.made.iter().rposition(|(v, c, _)| *v == version && c == dcid)
    }

    fn add(&mut self, keys: (Version, Cid, Keys)) -> usize {
        if self.made.len() < KEYS_MAX {
            self.made.push(keys);
            return self.made.len() - 1;
        }
        let at = self.next % KEYS_MAX;
        self.next = at + 1;
        self.made[at] = keys;
        at
    }
}

/// Who speaks to whom, in which version, and as which packet.
pub(super) struct Address<'a> {
    pub(super) version: Version,
    /// The client's connection ID.
    pub(super) to: &'a Cid,
    /// Ours.
    pub(super) from: &'a Cid,
    pub(super) pn: u8,
    /// Whom observers are told about; `None` for replies that belong to nobody.
    pub(super) key: Option<ConnKey>,
    /// The limit before the address is validated leaves no room for a datagram of 1,200 bytes.
    pub(super) limited: bool,
}

/// Builds a datagram with one Initial packet; says how long it is. It carries nothing that is to be acknowledged, so that it
/// need not be padded.
pub(super) fn build(
    env: &mut Env,
    now: Instant,
    address: &Address<'_>,
    keys: &Keys,
    slot: &mut [u8],
    say: impl FnOnce(&mut Writer<'_>) -> Option<FrameSet>,
) -> Option<usize> {
    let Address { version, to, from, pn, .. } = *address;
    let pn = u64::from(pn);
    let mut w = Writer::new(slot);
    let spec = header::LongSpec { level: Level::Initial, version, dcid: to, scid: from, token: &[], pn, pn_len: 2 };
    let layout = header::write_long(&mut w, &spec)?;
    let frames = say(&mut w)?;
    debug_assert!(!frames.is_ack_eliciting());
    let (written, len) = (w.len(), w.len() + TAG_LEN);
    let packet = slot.get_mut(..len)?;
    header::patch_length(packet, layout, len)?;
    let payload_at = layout.head().payload_at;
    debug_assert_eq!(judge(packet, payload_at, address.limited, frames), Ok(()), "an Initial packet is legal");
    if let Some(key) = address.key {
        let event = Observed::DatagramBuilt {
            level: Level::Initial,
            pn,
            header: &packet[..payload_at],
            packet_len: len,
            mtu_probe: false,
            recorded: frames,
            payload: &packet[payload_at..written],
        };
        env.tell(now, key, Kind::DatagramBuilt, &event);
        let limited = address.limited;
        let sealed = Observed::DatagramSealed { from: Side::Server, len, len_max: slot.len(), limited };
        env.tell(now, key, Kind::DatagramBuilt, &sealed);
    }
    keys.seal.seal(pn, slot.get_mut(..len)?, layout.head(), &[]).ok()?;
    if let Some(key) = address.key {
        let event = Observed::PacketSent { level: Level::Initial, pn, size: len, frames };
        env.tell(now, key, Kind::PacketSent, &event);
    }
    Some(len)
}

/// What every datagram of a connection is asked as well.
fn judge(datagram: &[u8], payload_at: usize, limited: bool, frames: FrameSet) -> Result<(), Illegal> {
    let (header, rest) = datagram.split_at_checked(payload_at).ok_or(Illegal::PacketLength)?;
    let payload = rest.len().checked_sub(TAG_LEN).and_then(|n| rest.get(..n)).ok_or(Illegal::PacketLength)?;
    let len = datagram.len();
    let view = PacketView::read(Level::Initial, header, 0, payload, len, frames);
    let rules = DatagramRules { sender: Side::Server, len, len_max: len, amplification_limited: limited };
    legality::check_datagram(&[view.ok_or(Illegal::PacketLength)?], &rules).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protect::null::NullKeys;

    fn cid(n: u64) -> Cid {
        Cid::new(&n.to_be_bytes()).unwrap()
    }

    #[test]
    fn the_last_sixty_four_are_kept_and_those_made_first_go_first() {
        let mut keys = InitialKeys::default();
        for n in 0..100 {
            keys.get(&NullKeys, Version::V1, &cid(n));
            keys.get(&NullKeys, Version::V1, &cid(n));
        }
        let kept: Vec<u64> = (0..100).filter(|n| keys.find(Version::V1, &cid(*n)).is_some()).collect();
        assert_eq!(kept, (36..100).collect::<Vec<_>>());
        keys.take(&NullKeys, Version::V1, &cid(50));
        keys.forget(Version::V1, &cid(51));
        keys.forget(Version::V2, &cid(52));
        assert_eq!(keys.made.len(), 62);
        assert!(keys.find(Version::V1, &cid(50)).is_none() && keys.find(Version::V1, &cid(52)).is_some());
    }
}

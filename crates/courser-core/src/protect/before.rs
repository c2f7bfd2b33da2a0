//! Keys of the levels before 1-RTT, which are gone once the handshake is confirmed.
//!
//! A peer that says nothing for a while leaves a handshake half done; then the key objects of the Initial and Handshake
//! levels doze: what they are made from stays.

use super::{OpenError, Opened, SAMPLE_LEN, check_reserved_bits, open_with};
use crate::crypto::{KeyFactory, Keys, Material, Opener, Sealer, Suite};
use crate::ids::{Cid, Level, PacketNumber, Side, Version};

/// 0-RTT goes one way only.
pub(super) enum EarlyData {
    Seal(Box<dyn Sealer>),
    Open(Box<dyn Opener>),
}

/// What the keys of a level are made from.
pub(super) enum Origin {
    /// Initial keys: anybody can make them who has seen this connection ID.
    Cid(Version, Cid, Side),
    /// What secrets gave, for our direction and for the peer's.
    Secrets(Suite, Box<[Material; 2]>),
}

/// Both directions of a level.
pub(super) struct Pair {
    origin: Origin,
    /// `None` while dozing.
    made: Option<Keys>,
}

impl Pair {
    pub(super) fn new(keys: &dyn KeyFactory, origin: Origin) -> Self {
        let mut pair = Self { origin, made: None };
        pair.wake(keys);
        pair
    }

    pub(super) const fn adopt(made: Keys, origin: Origin) -> Self {
        Self { origin, made: Some(made) }
    }

    fn wake(&mut self, keys: &dyn KeyFactory) -> &Keys {
        self.made.get_or_insert_with(|| match &self.origin {
            Origin::Cid(version, dcid, side) => keys.initial(*version, dcid, *side),
            Origin::Secrets(suite, material) => {
                let [ours, theirs] = &**material;
                Keys { seal: keys.sealer(*suite, ours), open: keys.opener(*suite, theirs) }
            }
        })
    }

    /// The opener alone.
    pub(super) fn into_opener(mut self, keys: &dyn KeyFactory) -> Option<Box<dyn Opener>> {
        self.wake(keys);
        self.made.map(|made| made.open)
    }
}

/// Boxed where it is used, so that an established connection does not carry it.
#[derive(Default)]
pub(super) struct HandshakeKeys {
    pub(super) initial: Option<Pair>,
    /// Opens Initial packets of the version that the client started with, after the other compatible version was
    /// chosen: both ends still have such packets in flight.
    pub(super) initial_before: Option<(Version, Box<dyn Opener>)>,
    pub(super) early: Option<EarlyData>,
    pub(super) handshake: Option<Pair>,
}

impl HandshakeKeys {
    pub(super) const fn is_empty(&self) -> bool {
        self.initial.is_none() && self.initial_before.is_none() && self.early.is_none() && self.handshake.is_none()
    }

    /// Drops the key objects that can be made again.
    pub(super) fn doze(&mut self) {
        for pair in [&mut self.initial, &mut self.handshake].into_iter().flatten() {
            pair.made = None;
        }
    }

    /// Whether nothing is left to be dropped by [`doze`](Self::doze).
    pub(super) fn is_dozing(&self) -> bool {
        [&self.initial, &self.handshake].into_iter().flatten().all(|pair| pair.made.is_none())
    }

    /// Makes the key objects again.
    pub(super) fn wake(&mut self, keys: &dyn KeyFactory) {
        for pair in [&mut self.initial, &mut self.handshake].into_iter().flatten() {
            pair.wake(keys);
        }
    }

    /// Whether packets of a level can be sealed, once the keys are awake.
    pub(super) const fn has_sealer(&self, level: Level) -> bool {
        match level {
            Level::Initial => self.initial.is_some(),
            Level::ZeroRtt => matches!(self.early, Some(EarlyData::Seal(_))),
            Level::Handshake => self.handshake.is_some(),
            Level::OneRtt => false,
        }
    }

    /// The key for packets of a level that we send; `None` while dozing.
    pub(super) fn sealer(&self, level: Level) -> Option<&dyn Sealer> {
        fn made(pair: Option<&Pair>) -> Option<&Keys> {
            pair?.made.as_ref()
        }
        match (level, &self.early) {
            (Level::Initial, _) => made(self.initial.as_ref()).map(|k| &*k.seal),
            (Level::ZeroRtt, Some(EarlyData::Seal(seal))) => Some(&**seal),
            (Level::Handshake, _) => made(self.handshake.as_ref()).map(|k| &*k.seal),
            _ => None,
        }
    }

    /// Whether packets of a level can be opened.
    pub(super) const fn has_opener(&self, level: Level) -> bool {
        match level {
            Level::Initial => self.initial.is_some(),
            Level::ZeroRtt => matches!(self.early, Some(EarlyData::Open(_))),
            Level::Handshake => self.handshake.is_some(),
            Level::OneRtt => false,
        }
    }

    /// The key for a packet that was received.
    pub(super) fn opener(&mut self, keys: &dyn KeyFactory, level: Level, packet: &[u8]) -> Option<&dyn Opener> {
        match (level, &self.early) {
            (Level::Initial, _) => {
                // Long headers of every version have the version in these bytes (RFC 8999 section 5.1).
                let version = packet.get(1..).and_then(<[u8]>::first_chunk).map(|b| Version(u32::from_be_bytes(*b)));
                match &self.initial_before {
                    Some((old, opener)) if version == Some(*old) => Some(&**opener),
                    _ => self.initial.as_mut().map(|pair| &*pair.wake(keys).open),
                }
            }
            (Level::ZeroRtt, Some(EarlyData::Open(open))) => Some(&**open),
            (Level::Handshake, _) => self.handshake.as_mut().map(|pair| &*pair.wake(keys).open),
            _ => None,
        }
    }
}

/// Opens an Initial packet in place where there is no connection; see [`KeySlots::open`](super::KeySlots::open).
///
/// # Errors
/// [`OpenError`].
pub fn open_initial(
    keys: &Keys,
    packet: &mut [u8],
    pn_at: usize,
    expected_pn: PacketNumber,
) -> Result<Opened, OpenError> {
    //= rfc9001#5.4.2-1
    if pn_at == 0 || packet.len().saturating_sub(pn_at) < 4 + SAMPLE_LEN {
        return Err(OpenError::TooShort);
    }
    let opened = open_with(&*keys.open, packet, pn_at, expected_pn)?;
    check_reserved_bits(opened.first)?;
    Ok(opened)
}

//! Keys of the levels before 1-RTT, which are gone once the handshake is confirmed.

use super::{OpenError, Opened, SAMPLE_LEN, check_reserved_bits, open_with};
use crate::crypto::{Keys, Opener, Sealer};
use crate::ids::{Level, PacketNumber, Version};

/// 0-RTT goes one way only.
pub(super) enum EarlyData {
    Seal(Box<dyn Sealer>),
    Open(Box<dyn Opener>),
}

/// Boxed where it is used, so that an established connection does not carry it.
#[derive(Default)]
pub(super) struct HandshakeKeys {
    pub(super) initial: Option<Keys>,
    /// Opens Initial packets of the version that the client started with, after the other compatible version was
    /// chosen: both ends still have such packets in flight.
    pub(super) initial_before: Option<(Version, Box<dyn Opener>)>,
    pub(super) early: Option<EarlyData>,
    pub(super) handshake: Option<Keys>,
}

impl HandshakeKeys {
    pub(super) const fn is_empty(&self) -> bool {
        self.initial.is_none() && self.initial_before.is_none() && self.early.is_none() && self.handshake.is_none()
    }

    /// The key for packets of a level that we send.
    pub(super) fn sealer(&self, level: Level) -> Option<&dyn Sealer> {
        match (level, &self.early) {
            (Level::Initial, _) => self.initial.as_ref().map(|k| &*k.seal),
            (Level::ZeroRtt, Some(EarlyData::Seal(seal))) => Some(&**seal),
            (Level::Handshake, _) => self.handshake.as_ref().map(|k| &*k.seal),
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
    pub(super) fn opener(&self, level: Level, packet: &[u8]) -> Option<&dyn Opener> {
        match (level, &self.early) {
            (Level::Initial, _) => {
                // Long headers of every version have the version in these bytes (RFC 8999 section 5.1).
                let version = packet.get(1..5).map(|b| Version(u32::from_be_bytes([b[0], b[1], b[2], b[3]])));
                match &self.initial_before {
                    Some((old, opener)) if version == Some(*old) => Some(&**opener),
                    _ => self.initial.as_ref().map(|k| &*k.open),
                }
            }
            (Level::ZeroRtt, Some(EarlyData::Open(open))) => Some(&**open),
            (Level::Handshake, _) => self.handshake.as_ref().map(|k| &*k.open),
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

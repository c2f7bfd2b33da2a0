//! Keys that only notice changes.

use core::ops::Range;

use super::Checksum;
use crate::crypto::{
    CryptoFailed, Exporter, Head, KeyFactory, Keys, Material, Opener, Random, SAMPLE_LEN, Sealer, Secret, Suite,
    TAG_LEN,
};
use crate::ids::{Cid, PacketNumber, Side, Version};

/// Makes keys that protect nothing; see the [module](super).
#[derive(Clone, Copy, Debug, Default)]
pub struct NullKeys;

/// One direction of one level: the state of the checksum after the secret.
struct NullKey(Checksum);

impl NullKey {
    fn new(version: Version, secret: &[u8]) -> Self {
        Self(Checksum::new(u64::from(version.0)).bytes(secret))
    }

    fn tag(&self, pn: PacketNumber, header: &[u8], payload: &[u8]) -> [u8; TAG_LEN] {
        let mut sum = self.0;
        sum.word(pn);
        sum.bytes(header).bytes(payload).finish()
    }
}

impl Sealer for NullKey {
    fn seal(&self, pn: PacketNumber, packet: &mut [u8], head: Head, tail: &[u8]) -> Result<(), CryptoFailed> {
        let pn_len = head.payload_at.checked_sub(head.pn_at).ok_or(CryptoFailed)?;
        let room = packet.len().checked_sub(head.pn_at).ok_or(CryptoFailed)?;
        if !(1..=4).contains(&pn_len) || room < 4 + SAMPLE_LEN {
            return Err(CryptoFailed);
        }
        let (header, rest) = packet.split_at_mut_checked(head.payload_at).ok_or(CryptoFailed)?;
        let payload_len = rest.len().checked_sub(TAG_LEN).ok_or(CryptoFailed)?;
        let (payload, tag) = rest.split_at_mut(payload_len);
        let prefix = payload_len.checked_sub(tail.len()).ok_or(CryptoFailed)?;
        payload[prefix..].copy_from_slice(tail);
        tag.copy_from_slice(&self.tag(pn, header, payload));
        Ok(())
    }
}

impl Opener for NullKey {
    fn unmask(&self, packet: &mut [u8], pn_at: usize) -> Option<(u32, usize)> {
        packet.get(pn_at.checked_add(4)?..)?.get(..SAMPLE_LEN)?;
        let len = usize::from(packet.first()? & 3) + 1;
        let pn = packet.get(pn_at..pn_at + len)?.iter().fold(0, |n, b| n << 8 | u32::from(*b));
        Some((pn, len))
    }

    fn open(&self, pn: PacketNumber, packet: &mut [u8], header: usize) -> Option<Range<usize>> {
        let end = packet.len().checked_sub(TAG_LEN)?;
        let (head, rest) = packet.split_at_checked(header)?;
        let (payload, tag) = rest.split_at_checked(end.checked_sub(header)?)?;
        (self.tag(pn, head, payload) == tag).then_some(header..end)
    }
}

fn digest(label: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Checksum::new(0).bytes(label), |sum, part| sum.bytes(part)).finish_32()
}

fn first_16(bytes: [u8; 32]) -> [u8; TAG_LEN] {
    let mut out = [0; TAG_LEN];
    out.copy_from_slice(&bytes[..TAG_LEN]);
    out
}

impl KeyFactory for NullKeys {
    fn initial(&self, version: Version, dcid: &Cid, side: Side) -> Keys {
        let key = |from: Side| {
            let label: &[u8] = if from.is_client() { b"client in" } else { b"server in" };
            Box::new(NullKey::new(version, &digest(label, &[dcid.as_slice()])))
        };
        Keys { seal: key(side), open: key(side.peer()) }
    }

    fn material(&self, version: Version, _: Suite, secret: &Secret) -> Material {
        // Header protection is none, so that all of the key may change with an update.
        let mut material = Material::empty();
        material.key = digest(b"key", &[&version.0.to_be_bytes(), secret.as_slice()]);
        material
    }

    fn sealer(&self, _: Suite, material: &Material) -> Box<dyn Sealer> {
        Box::new(NullKey(Checksum::new(0).bytes(&material.key)))
    }

    fn opener(&self, _: Suite, material: &Material) -> Box<dyn Opener> {
        Box::new(NullKey(Checksum::new(0).bytes(&material.key)))
    }

    fn next_secret(&self, version: Version, _: Suite, secret: &Secret) -> Secret {
        let next = digest(b"ku", &[&version.0.to_be_bytes(), secret.as_slice()]);
        Secret::new(&next).expect("32 bytes fit")
    }

    fn retry_tag(&self, version: Version, original_dcid: &Cid, retry: &[u8]) -> [u8; TAG_LEN] {
        first_16(digest(b"retry", &[&version.0.to_be_bytes(), original_dcid.as_slice(), retry]))
    }

    fn aes128_block(&self, key: &[u8; 16], block: &mut [u8; 16]) {
        *block = first_16(digest(b"block", &[key, block]));
    }

    fn mac(&self, key: &[u8; 32], data: &[&[u8]]) -> [u8; 32] {
        // Like a real digest over the concatenation, this one does not see where a part ends.
        let all: Vec<u8> = data.concat();
        digest(b"mac", &[key, &all])
    }

    fn equal(&self, a: &[u8], b: &[u8]) -> bool {
        a == b
    }
}

impl Exporter for NullKeys {
    fn export(
        &self,
        _: Suite,
        secret: &Secret,
        label: &[u8],
        context: &[u8],
        out: &mut [u8],
    ) -> Result<(), CryptoFailed> {
        let mut sum = Checksum::new(0).bytes(secret.as_slice()).bytes(label).bytes(context);
        for chunk in out.chunks_mut(16) {
            sum = sum.bytes(b"more");
            chunk.copy_from_slice(&sum.finish()[..chunk.len()]);
        }
        Ok(())
    }
}

/// A predictable sequence of bytes from a seed, for tests and simulation. Sequences of different seeds share nothing, or
/// two engines would draw the same connection IDs.
#[derive(Clone, Debug)]
pub struct NullRandom {
    seed: u64,
    drawn: u64,
}

impl NullRandom {
    /// The sequence of that seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }
}

impl Random for NullRandom {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(16) {
            self.drawn = self.drawn.wrapping_add(1);
            let mut sum = Checksum::new(0);
            sum.word(self.seed);
            sum.word(self.drawn);
            chunk.copy_from_slice(&sum.finish()[..chunk.len()]);
        }
    }
}

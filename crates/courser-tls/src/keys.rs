//! Packet protection on aws-lc-rs (RFC 9001 section 5, RFC 9369 section 3).
//!
//! One object protects one direction of one level: the AEAD key, the header protection key and the IV. Sealing encrypts
//! the packet's prefix in place and the tail from where it lies, so that the largest part of a packet is never copied
//! in the clear, and masks the header in the same call. Batches are sealed packet by packet and then masked together:
//! the samples lie in one piece, so that the block cipher has independent blocks to work on.

use core::cell::OnceCell;
use core::ops::Range;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey, quic};
use aws_lc_rs::cipher::{self, EncryptingKey, UnboundCipherKey};
use aws_lc_rs::constant_time;
use courser_core::crypto::{
    CryptoFailed, Exporter, Head, KEY_LEN_MAX, KeyFactory, Keys, Material, Opener, SAMPLE_LEN, Sealer, Sealing, Secret,
    Suite, TAG_LEN, Unmasking,
};
use courser_core::ids::{Cid, PacketNumber, Side, Version};
use hmac::Hmac;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::hash;
use crate::hkdf::{Expander, expand_label, export};

/// Length of the IV, in bytes.
const IV_LEN: usize = 12;

/// What differs between versions.
struct Labels {
    salt: [u8; 20],
    key: &'static [u8],
    iv: &'static [u8],
    hp: &'static [u8],
    update: &'static [u8],
    retry_key: [u8; 16],
    retry_nonce: [u8; IV_LEN],
}

/// RFC 9001 sections 5.1, 5.2, 5.8 and 6.1.
const V1: Labels = Labels {
    salt: [
        0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb,
        0x7f, 0x0a,
    ],
    key: b"quic key",
    iv: b"quic iv",
    hp: b"quic hp",
    update: b"quic ku",
    retry_key: [0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e],
    retry_nonce: [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb],
};

/// RFC 9369 section 3.3.
const V2: Labels = Labels {
    salt: [
        0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd,
        0x2e, 0xd9,
    ],
    key: b"quicv2 key",
    iv: b"quicv2 iv",
    hp: b"quicv2 hp",
    update: b"quicv2 ku",
    retry_key: [0x8f, 0xb4, 0xb0, 0x1b, 0x56, 0xac, 0x48, 0xe2, 0x60, 0xfb, 0xcb, 0xce, 0xad, 0x7c, 0xcc, 0x92],
    retry_nonce: [0xd8, 0x69, 0x69, 0xbc, 0x2d, 0x7c, 0x6d, 0x99, 0x90, 0xef, 0xb0, 0x4a],
};

/// Versions that nobody asks keys for are treated as version 1.
const fn labels(version: Version) -> &'static Labels {
    match version {
        Version::V2 => &V2,
        _ => &V1,
    }
}

const fn aead_of(suite: Suite) -> &'static aead::Algorithm {
    match suite {
        Suite::Aes128Gcm => &aead::AES_128_GCM,
        Suite::Aes256Gcm => &aead::AES_256_GCM,
        Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
    }
}

/// Makes packet protection keys, and does the other cryptography of QUIC, with aws-lc-rs.
#[derive(Clone, Copy, Debug, Default)]
pub struct AwsLc;

/// Packets whose masks are made in one call.
const BATCH: usize = 16;

/// Makes header protection masks.
enum HeaderKey {
    /// A mask is the sample encrypted as one block.
    Aes(EncryptingKey),
    /// A mask is the beginning of the key stream whose counter and nonce are the sample.
    ChaCha(quic::HeaderProtectionKey),
}

impl HeaderKey {
    fn new(suite: Suite, key: &[u8]) -> Self {
        let algorithm = match suite {
            Suite::Aes128Gcm => &cipher::AES_128,
            Suite::Aes256Gcm => &cipher::AES_256,
            Suite::ChaCha20Poly1305 => {
                let key = quic::HeaderProtectionKey::new(&quic::CHACHA20, key);
                return Self::ChaCha(key.expect("the key has the algorithm's length"));
            }
        };
        let key = UnboundCipherKey::new(algorithm, key).and_then(EncryptingKey::ecb);
        Self::Aes(key.expect("the key has the algorithm's length"))
    }

    /// Replaces each sample by its mask, of which the first five bytes count.
    fn mask(&self, samples: &mut [[u8; SAMPLE_LEN]]) -> Option<()> {
        match self {
            Self::Aes(key) => key.encrypt(samples.as_flattened_mut()).ok().map(drop),
            Self::ChaCha(key) => samples.iter_mut().try_for_each(|sample| {
                let mask = key.new_mask(sample).ok()?;
                sample[..mask.len()].copy_from_slice(&mask);
                Some(())
            }),
        }
    }
}

/// Protects one direction of one level.
struct PacketKey {
    aead: LessSafeKey,
    /// Made when a header is first masked with it: the key of the next key phase waits without.
    header: OnceCell<Box<HeaderKey>>,
    /// What it is made from.
    header_key: Zeroizing<[u8; KEY_LEN_MAX]>,
    suite: Suite,
    iv: Zeroizing<[u8; IV_LEN]>,
    /// Encrypting the tail from its source pays with AES only: the library encrypts it block by block with ChaCha20.
    scatter: bool,
}

const _: () = assert!(size_of::<PacketKey>() <= 96, "three of these live in every active connection");

/// What a secret gives.
fn derive(version: Version, suite: Suite, secret: &[u8]) -> Material {
    let (labels, len) = (labels(version), aead_of(suite).key_len());
    let (expander, mut made) = (Expander::new(suite, secret), Material::empty());
    // Header protection takes a key as long as that of the AEAD.
    let derived = expander
        .fill(labels.key, b"", &mut made.key[..len])
        .and_then(|()| expander.fill(labels.iv, b"", &mut made.iv))
        .and_then(|()| expander.fill(labels.hp, b"", &mut made.header[..len]));
    derived.expect("a secret has at most 48 bytes, labels and outputs are short");
    made
}

impl PacketKey {
    fn new(suite: Suite, material: &Material) -> Self {
        let aead = aead_of(suite);
        let key = &material.key[..aead.key_len()];
        Self {
            aead: LessSafeKey::new(UnboundKey::new(aead, key).expect("the key has the algorithm's length")),
            header: OnceCell::new(),
            header_key: Zeroizing::new(material.header),
            suite,
            iv: Zeroizing::new(material.iv),
            scatter: suite != Suite::ChaCha20Poly1305,
        }
    }

    fn header(&self) -> &HeaderKey {
        self.header.get_or_init(|| {
            let len = aead_of(self.suite).key_len();
            Box::new(HeaderKey::new(self.suite, &self.header_key[..len]))
        })
    }

    /// The IV with the packet number added to its end (RFC 9001 section 5.3).
    fn nonce(&self, pn: PacketNumber) -> Nonce {
        let mut nonce = *self.iv;
        for (byte, pn) in nonce[IV_LEN - 8..].iter_mut().zip(pn.to_be_bytes()) {
            *byte ^= pn;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts one packet; its header is still to be masked. Returns the sample for that.
    fn encrypt(&self, packet: &mut Sealing<'_>) -> Result<[u8; SAMPLE_LEN], CryptoFailed> {
        let Sealing { pn, packet, head: Head { pn_at, payload_at }, tail } = packet;
        let pn_len = payload_at.checked_sub(*pn_at).ok_or(CryptoFailed)?;
        if *pn_at == 0 || !(1..=4).contains(&pn_len) {
            return Err(CryptoFailed);
        }
        let (header, rest) = packet.split_at_mut_checked(*payload_at).ok_or(CryptoFailed)?;
        let prefix = rest.len().checked_sub(TAG_LEN + tail.len()).ok_or(CryptoFailed)?;
        // The sample has to fit, so that the packet can be masked and the peer can unmask it.
        if pn_len + rest.len() < 4 + SAMPLE_LEN {
            return Err(CryptoFailed);
        }
        let (nonce, aad) = (self.nonce(*pn), Aad::from(&*header));
        let sealed = if self.scatter {
            let (payload, tail_and_tag) = rest.split_at_mut(prefix);
            self.aead.seal_in_place_scatter(nonce, aad, payload, tail, tail_and_tag)
        } else {
            let (payload, tag) = rest.split_at_mut(prefix + tail.len());
            payload[prefix..].copy_from_slice(tail);
            self.aead.seal_in_place_scatter(nonce, aad, payload, &[], tag)
        };
        sealed.map_err(|_| CryptoFailed)?;
        sample(packet, *pn_at).ok_or(CryptoFailed)
    }
}

/// The sample starts four bytes behind the start of the packet number.
fn sample(packet: &[u8], pn_at: usize) -> Option<[u8; SAMPLE_LEN]> {
    packet.get(pn_at.checked_add(4)?..)?.first_chunk().copied()
}

/// The bits of the first byte that header protection covers.
const fn protected_bits(first: u8) -> u8 {
    if first & 0x80 != 0 { 0x0f } else { 0x1f }
}

/// Masks the header of a packet.
fn apply_mask(packet: &mut [u8], head: Head, mask: &[u8; SAMPLE_LEN]) {
    packet[0] ^= mask[0] & protected_bits(packet[0]);
    for (byte, mask) in packet[head.pn_at..head.payload_at].iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
    }
}

/// Removes the mask of a header; `None` when the packet is too short for its number.
fn remove_mask(packet: &mut [u8], pn_at: usize, mask: &[u8; SAMPLE_LEN]) -> Option<(u32, usize)> {
    let first = packet.first_mut()?;
    *first ^= mask[0] & protected_bits(*first);
    let len = usize::from(*first & 3) + 1;
    let mut pn = 0;
    for (byte, mask) in packet.get_mut(pn_at..pn_at + len)?.iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
        pn = pn << 8 | u32::from(*byte);
    }
    Some((pn, len))
}

impl Sealer for PacketKey {
    fn seal(&self, pn: PacketNumber, packet: &mut [u8], head: Head, tail: &[u8]) -> Result<(), CryptoFailed> {
        self.seal_batch(&mut [Sealing { pn, packet, head, tail }])
    }

    fn seal_batch(&self, packets: &mut [Sealing<'_>]) -> Result<(), CryptoFailed> {
        let mut samples = [[0; SAMPLE_LEN]; BATCH];
        for batch in packets.chunks_mut(BATCH) {
            let samples = &mut samples[..batch.len()];
            for (packet, sample) in batch.iter_mut().zip(&mut *samples) {
                *sample = self.encrypt(packet)?;
            }
            self.header().mask(samples).ok_or(CryptoFailed)?;
            for (packet, mask) in batch.iter_mut().zip(&*samples) {
                apply_mask(packet.packet, packet.head, mask);
            }
        }
        Ok(())
    }
}

impl Opener for PacketKey {
    fn unmask(&self, packet: &mut [u8], pn_at: usize) -> Option<(u32, usize)> {
        let mut mask = [sample(packet, pn_at)?];
        self.header().mask(&mut mask)?;
        remove_mask(packet, pn_at, &mask[0])
    }

    fn unmask_batch(&self, packets: &mut [Unmasking<'_>]) {
        let mut samples = [[0; SAMPLE_LEN]; BATCH];
        for batch in packets.chunks_mut(BATCH) {
            let samples = &mut samples[..batch.len()];
            for (packet, place) in batch.iter().zip(&mut *samples) {
                // The block of a packet without sample is encrypted with the others and not used.
                *place = sample(packet.packet, packet.pn_at).unwrap_or_default();
            }
            let made = self.header().mask(samples).is_some();
            for (packet, mask) in batch.iter_mut().zip(&*samples) {
                let whole = made && sample(packet.packet, packet.pn_at).is_some();
                packet.number = if whole { remove_mask(packet.packet, packet.pn_at, mask) } else { None };
            }
        }
    }

    fn open(&self, pn: PacketNumber, packet: &mut [u8], header: usize) -> Option<Range<usize>> {
        let end = packet.len().checked_sub(TAG_LEN)?;
        let (head, rest) = packet.split_at_mut_checked(header)?;
        let (payload, tag) = rest.split_at_mut_checked(end.checked_sub(header)?)?;
        self.aead.open_in_place_separate_tag(self.nonce(pn), Aad::from(&*head), tag, payload).ok()?;
        Some(header..end)
    }
}

impl KeyFactory for AwsLc {
    fn initial(&self, version: Version, dcid: &Cid, side: Side) -> Keys {
        let salt: Hmac<Sha256> = hash::keyed(&labels(version).salt);
        let initial = hash::mac(&salt, [dcid.as_slice()], |secret| Expander::new(Suite::Aes128Gcm, secret));
        let key = |from: Side| {
            let mut secret = Zeroizing::new([0; 32]);
            let label: &[u8] = if from.is_client() { b"client in" } else { b"server in" };
            initial.fill(label, b"", &mut *secret).expect("a short label and a short output");
            Box::new(PacketKey::new(Suite::Aes128Gcm, &derive(version, Suite::Aes128Gcm, &*secret)))
        };
        Keys { seal: key(side), open: key(side.peer()) }
    }

    fn material(&self, version: Version, suite: Suite, secret: &Secret) -> Material {
        derive(version, suite, secret.as_slice())
    }

    fn sealer(&self, suite: Suite, material: &Material) -> Box<dyn Sealer> {
        Box::new(PacketKey::new(suite, material))
    }

    fn opener(&self, suite: Suite, material: &Material) -> Box<dyn Opener> {
        Box::new(PacketKey::new(suite, material))
    }

    fn next_secret(&self, version: Version, suite: Suite, secret: &Secret) -> Secret {
        let mut next = Zeroizing::new([0; 48]);
        let next = &mut next[..secret.as_slice().len()];
        expand_label(suite, secret.as_slice(), labels(version).update, b"", next)
            .expect("a secret has at most 48 bytes, the label is short");
        Secret::new(next).expect("as long as the secret before")
    }

    fn retry_tag(&self, version: Version, original_dcid: &Cid, retry: &[u8]) -> [u8; TAG_LEN] {
        let labels = labels(version);
        let key = UnboundKey::new(&aead::AES_128_GCM, &labels.retry_key).expect("16 bytes are an AES-128 key");
        // A Retry is shorter than a datagram of the smallest allowed size in practice; longer ones only cost a copy.
        let mut pseudo = Vec::with_capacity(1 + original_dcid.len() + retry.len());
        pseudo.push(u8::try_from(original_dcid.len()).expect("a connection ID has at most 20 bytes"));
        pseudo.extend_from_slice(original_dcid.as_slice());
        pseudo.extend_from_slice(retry);
        let nonce = Nonce::assume_unique_for_key(labels.retry_nonce);
        let mut out = [0; TAG_LEN];
        LessSafeKey::new(key)
            .seal_in_place_scatter(nonce, Aad::from(&pseudo), &mut [], &[], &mut out)
            .expect("nothing is encrypted, and the tag has its length");
        out
    }

    fn aes128_block(&self, key: &[u8; 16], block: &mut [u8; 16]) {
        let cipher = UnboundCipherKey::new(&cipher::AES_128, key).and_then(EncryptingKey::ecb);
        let cipher = cipher.expect("the key has the algorithm's length");
        cipher.encrypt(block).expect("a whole block needs no padding");
    }

    fn mac(&self, key: &[u8; 32], data: &[&[u8]]) -> [u8; 32] {
        let mut out = [0; 32];
        hash::mac(&hash::keyed::<Hmac<Sha256>>(key), data.iter().copied(), |made| out.copy_from_slice(made));
        out
    }

    fn equal(&self, a: &[u8], b: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(a, b).is_ok()
    }
}

impl Exporter for AwsLc {
    fn export(
        &self,
        suite: Suite,
        secret: &Secret,
        label: &[u8],
        context: &[u8],
        out: &mut [u8],
    ) -> Result<(), CryptoFailed> {
        export(suite, secret, label, context, out)
    }
}

#[cfg(test)]
mod tests;

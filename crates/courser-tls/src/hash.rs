//! Hashes, HMAC and HKDF for what is short: the key schedule of TLS, the keys of QUIC, tokens.
//!
//! A handshake makes some two hundred MACs at each end over a block or two. An object of aws-lc for each of them costs more
//! than the compression function: it is allocated, copied and erased with room for the largest hash. Here the state of a key
//! is two chaining values, which are made once and copied for each message ([D141](../../../docs/decisions/D141-short-hashes.md)).
//!
//! Invariant: nothing here branches on a secret or looks one up in a table; what is derived on the way is erased.

use core::marker::PhantomData;
use std::sync::OnceLock;

use hmac::{Hmac, KeyInit, Mac};
use rustls::Error;
use rustls::crypto::hash::{Context, Hash, HashAlgorithm, Output};
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use rustls::crypto::{ActiveKeyExchange, hmac::Tag};
use sha2::{Digest, Sha256, Sha384};
use zeroize::Zeroize;

/// A hash of TLS 1.3 with its HMAC.
pub(crate) trait Hashing: Digest + Clone + Send + Sync + 'static {
    /// What TLS calls it.
    const ALGORITHM: HashAlgorithm;
    /// A key for MACs, set up.
    type Keyed: Mac + KeyInit + Clone + Send + Sync;
}

impl Hashing for Sha256 {
    const ALGORITHM: HashAlgorithm = HashAlgorithm::SHA256;
    type Keyed = Hmac<Self>;
}

impl Hashing for Sha384 {
    const ALGORITHM: HashAlgorithm = HashAlgorithm::SHA384;
    type Keyed = Hmac<Self>;
}

/// Sets a key up; it may have any length.
pub(crate) fn keyed<K: KeyInit>(key: &[u8]) -> K {
    K::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// The MAC of the parts, one behind the other, is lent to `then` and erased.
pub(crate) fn mac<'a, K: Mac + Clone, R>(
    key: &K,
    parts: impl IntoIterator<Item = &'a [u8]>,
    then: impl FnOnce(&[u8]) -> R,
) -> R {
    let mut mac = key.clone();
    for part in parts {
        mac.update(part);
    }
    let mut made = mac.finalize().into_bytes();
    let result = then(&made);
    made.as_mut_slice().zeroize();
    result
}

/// HKDF-Expand (RFC 5869 section 2.3). `None` when so much cannot be made.
pub(crate) fn expand<K: Mac + Clone>(key: &K, info: &[&[u8]], out: &mut [u8]) -> Option<()> {
    let len = K::output_size();
    for n in 0..out.len().div_ceil(len) {
        let (before, rest) = out.split_at_mut(n * len);
        let chunk_len = rest.len().min(len);
        let last = &before[before.len() - len.min(before.len())..];
        let number = [u8::try_from(n + 1).ok()?];
        let parts = [last].into_iter().chain(info.iter().copied()).chain([number.as_slice()]);
        mac(key, parts, |block| rest[..chunk_len].copy_from_slice(&block[..chunk_len]));
    }
    Some(())
}

/// The hash itself, for transcripts.
pub(crate) struct Transcripts<H>(PhantomData<H>);

impl<H> Transcripts<H> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<H: Hashing> Hash for Transcripts<H> {
    fn start(&self) -> Box<dyn Context> {
        Box::new(Running(H::new()))
    }

    fn hash(&self, data: &[u8]) -> Output {
        Output::new(&H::digest(data))
    }

    fn output_len(&self) -> usize {
        <H as Digest>::output_size()
    }

    fn algorithm(&self) -> HashAlgorithm {
        H::ALGORITHM
    }
}

/// A transcript so far.
struct Running<H>(H);

impl<H: Hashing> Context for Running<H> {
    fn fork_finish(&self) -> Output {
        Output::new(&self.0.clone().finalize())
    }

    fn fork(&self) -> Box<dyn Context> {
        Box::new(Self(self.0.clone()))
    }

    fn finish(self: Box<Self>) -> Output {
        Output::new(&self.0.finalize())
    }

    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
}

/// Which labels of a key schedule nobody asks for; what they would give is all zeros.
type Unused = fn(&[&[u8]]) -> bool;

/// HKDF of a hash for the key schedule of rustls, but for labels that nobody asks for.
pub(crate) struct Derivation<H: Hashing> {
    unused: Unused,
    /// The early secret of whoever has no key from before is always the same.
    without_psk: OnceLock<H::Keyed>,
}

impl<H: Hashing> Derivation<H> {
    pub(crate) const fn new(unused: Unused) -> Self {
        Self { unused, without_psk: OnceLock::new() }
    }

    fn extract(salt: &[u8], secret: &[u8]) -> H::Keyed {
        mac(&keyed::<H::Keyed>(salt), [secret], keyed)
    }

    fn expander(&self, key: H::Keyed) -> Box<dyn HkdfExpander> {
        Box::new(Expander::<H> { unused: self.unused, key })
    }
}

impl<H: Hashing> Hkdf for Derivation<H> {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        let zeros = &[0; OkmBlock::MAX_LEN][..<H as Digest>::output_size()];
        // No salt is one of zeros, and so is an empty key of a MAC.
        self.expander(match salt {
            Some(salt) => Self::extract(salt, zeros),
            None => self.without_psk.get_or_init(|| Self::extract(&[], zeros)).clone(),
        })
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        self.expander(Self::extract(salt.unwrap_or_default(), secret))
    }

    fn extract_from_kx_shared_secret(
        &self,
        salt: Option<&[u8]>,
        kx: Box<dyn ActiveKeyExchange>,
        peer_pub_key: &[u8],
    ) -> Result<Box<dyn HkdfExpander>, Error> {
        let shared = kx.complete_for_tls_version(peer_pub_key, &rustls::version::TLS13)?;
        Ok(self.extract_from_secret(salt, shared.secret_bytes()))
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        Box::new(Later::<H> { okm: okm.clone(), expander: OnceLock::new(), unused: self.unused })
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        mac(&keyed::<H::Keyed>(key.as_ref()), [message], Tag::new)
    }
}

/// Expands a secret.
struct Expander<H: Hashing> {
    unused: Unused,
    key: H::Keyed,
}

impl<H: Hashing> HkdfExpander for Expander<H> {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        if (self.unused)(info) {
            output.fill(0);
            return Ok(());
        }
        expand(&self.key, info, output).ok_or(OutputLengthError)
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        if (self.unused)(info) {
            return OkmBlock::new(&[0; OkmBlock::MAX_LEN][..self.hash_len()]);
        }
        mac(&self.key, info.iter().copied().chain([[1].as_slice()]), OkmBlock::new)
    }

    fn hash_len(&self) -> usize {
        <H as Digest>::output_size()
    }
}

/// Expands a secret that may have no other labels than unused ones; what it takes is set up when first needed.
struct Later<H: Hashing> {
    okm: OkmBlock,
    expander: OnceLock<Expander<H>>,
    unused: Unused,
}

impl<H: Hashing> Later<H> {
    fn expander(&self) -> &Expander<H> {
        self.expander.get_or_init(|| Expander { unused: self.unused, key: keyed(self.okm.as_ref()) })
    }
}

impl<H: Hashing> HkdfExpander for Later<H> {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        if (self.unused)(info) {
            output.fill(0);
            return Ok(());
        }
        self.expander().expand_slice(info, output)
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        if (self.unused)(info) {
            return OkmBlock::new(&[0; OkmBlock::MAX_LEN][..self.hash_len()]);
        }
        self.expander().expand_block(info)
    }

    fn hash_len(&self) -> usize {
        <H as Digest>::output_size()
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::cipher_suite as suites;
    use rustls::{SupportedCipherSuite, Tls13CipherSuite};

    use super::*;

    fn full(suite: SupportedCipherSuite) -> &'static Tls13CipherSuite {
        suite.tls13().unwrap()
    }

    fn none(_: &[&[u8]]) -> bool {
        false
    }

    fn same(ours: &dyn HkdfExpander, theirs: &dyn HkdfExpander) {
        assert_eq!(ours.hash_len(), theirs.hash_len());
        for info in [&[b"".as_slice()] as &[&[u8]], &[b"a", b"bc"], &[&[7; 200], b"", &[8; 64]]] {
            assert_eq!(ours.expand_block(info).as_ref(), theirs.expand_block(info).as_ref());
            for len in [0, 1, 12, 31, 32, 33, 47, 48, 49, 96, 97, 255 * ours.hash_len()] {
                let (mut a, mut b) = (vec![1; len], vec![2; len]);
                ours.expand_slice(info, &mut a).unwrap();
                theirs.expand_slice(info, &mut b).unwrap();
                assert_eq!(a, b, "{len} bytes");
            }
        }
        assert!(ours.expand_slice(&[], &mut vec![0; 255 * ours.hash_len() + 1]).is_err());
    }

    fn derives_as<H: Hashing>(theirs: &'static Tls13CipherSuite) {
        let (ours, theirs) = (Derivation::<H>::new(none), theirs.hkdf_provider);
        let secrets: [&[u8]; 5] = [&[], &[1; 32], &[2; 48], &[3; 64], &[4; 200]];
        for salt in [None, Some([].as_slice()), Some(&[5; 32]), Some(&[6; 48]), Some(&[9; 130])] {
            for _ in 0..2 {
                same(&*ours.extract_from_zero_ikm(salt), &*theirs.extract_from_zero_ikm(salt));
            }
            for secret in secrets {
                same(&*ours.extract_from_secret(salt, secret), &*theirs.extract_from_secret(salt, secret));
            }
        }
        let okm = OkmBlock::new(&[7; 64][..<H as Digest>::output_size()]);
        same(&*ours.expander_for_okm(&okm), &*theirs.expander_for_okm(&okm));
        for message in secrets {
            assert_eq!(ours.hmac_sign(&okm, message).as_ref(), theirs.hmac_sign(&okm, message).as_ref());
        }
    }

    #[test]
    fn the_key_schedule_derives_what_another_implementation_derives() {
        derives_as::<Sha256>(full(suites::TLS13_AES_128_GCM_SHA256));
        derives_as::<Sha384>(full(suites::TLS13_AES_256_GCM_SHA384));
    }

    fn hashes_as<H: Hashing>(theirs: &'static Tls13CipherSuite) {
        let (ours, theirs) = (Transcripts::<H>::new(), theirs.common.hash_provider);
        assert_eq!((ours.algorithm(), ours.output_len()), (theirs.algorithm(), theirs.output_len()));
        let (mut a, mut b) = (ours.start(), theirs.start());
        for len in [0, 1, 55, 56, 63, 64, 65, 111, 112, 127, 128, 129, 1000] {
            let data: Vec<u8> = (0..len).map(|n| n as u8).collect();
            assert_eq!(ours.hash(&data).as_ref(), theirs.hash(&data).as_ref());
            a.update(&data);
            b.update(&data);
            assert_eq!(a.fork_finish().as_ref(), b.fork_finish().as_ref());
            assert_eq!(a.fork().finish().as_ref(), b.fork().finish().as_ref());
        }
        assert_eq!(a.finish().as_ref(), b.finish().as_ref());
    }

    #[test]
    fn transcripts_are_hashed_as_another_implementation_hashes_them() {
        hashes_as::<Sha256>(full(suites::TLS13_AES_128_GCM_SHA256));
        hashes_as::<Sha384>(full(suites::TLS13_AES_256_GCM_SHA384));
    }
}

//! The cipher suites of rustls without the keys that nobody asks for.
//!
//! rustls derives keys of QUIC whenever secrets change, and has no way to decline them; ours are made from the secrets,
//! because header protection, key updates and other versions need more than rustls gives (see [`crate::keys`]). It also
//! derives the keys of TLS records, which QUIC does not have, and keeps them as long as the session. Deriving
//! them costs a tenth of a handshake, and they take 1.4 kB. So the suites given to rustls have a cipher
//! and a QUIC part whose keys are empty, and a key derivation ([`crate::hash`]) that leaves out the labels of both. An expansion with any other
//! label, or in a form that is not known here, is done as RFC 5869 says: nothing but those unused keys can come out empty,
//! and the empty ones refuse to protect anything.

use std::sync::{LazyLock, OnceLock};

use courser_core::crypto::Suite;
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundOpaqueMessage,
    OutboundPlainMessage, Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::{CipherSuiteCommon, aws_lc_rs::cipher_suite as suites};
use rustls::quic::{Algorithm, HeaderProtectionKey, PacketKey, Tag};
use rustls::{Error, SupportedCipherSuite, Tls13CipherSuite};
use sha2::{Sha256, Sha384};

use crate::hash::{Derivation, Hashing, Transcripts};

/// The suite that rustls is to negotiate.
pub(crate) fn lean(suite: Suite) -> SupportedCipherSuite {
    static AES_128: LazyLock<Lean<Sha256>> = LazyLock::new(|| Lean::of(suites::TLS13_AES_128_GCM_SHA256));
    static AES_256: LazyLock<Lean<Sha384>> = LazyLock::new(|| Lean::of(suites::TLS13_AES_256_GCM_SHA384));
    static CHACHA: LazyLock<Lean<Sha256>> = LazyLock::new(|| Lean::of(suites::TLS13_CHACHA20_POLY1305_SHA256));
    match suite {
        Suite::Aes128Gcm => AES_128.suite(),
        Suite::Aes256Gcm => AES_256.suite(),
        Suite::ChaCha20Poly1305 => CHACHA.suite(),
    }
}

/// A suite of rustls and, made from it once, the lean one.
struct Lean<H: Hashing> {
    full: &'static Tls13CipherSuite,
    transcripts: Transcripts<H>,
    derivation: Derivation<H>,
    keys: NoKeys,
    records: NoRecords,
    lean: OnceLock<Tls13CipherSuite>,
}

impl<H: Hashing> Lean<H> {
    fn of(suite: SupportedCipherSuite) -> Self {
        let full = suite.tls13().expect("the suites named here are of TLS 1.3");
        let key_len = full.quic.map_or(0, Algorithm::aead_key_len);
        Self {
            full,
            transcripts: Transcripts::new(),
            derivation: Derivation::new(is_unused),
            keys: NoKeys { key_len },
            records: NoRecords { key_len: full.aead_alg.key_len() },
            lean: OnceLock::new(),
        }
    }

    fn suite(&'static self) -> SupportedCipherSuite {
        SupportedCipherSuite::Tls13(self.lean.get_or_init(|| Tls13CipherSuite {
            common: CipherSuiteCommon {
                suite: self.full.common.suite,
                hash_provider: &self.transcripts,
                confidentiality_limit: self.full.common.confidentiality_limit,
            },
            hkdf_provider: &self.derivation,
            aead_alg: &self.records,
            quic: Some(&self.keys),
        }))
    }
}

/// Whether the label of an HKDF-Expand-Label (length of the output, length of the label, prefix, label, …) is one of
/// "quic key", "quic iv", "quic hp" and "quic ku", or of their like in version 2, or "key" or "iv" of records.
fn is_unused(info: &[&[u8]]) -> bool {
    matches!(info, [_, _, b"tls13 ", label, ..] if label.starts_with(b"quic") || matches!(*label, b"key" | b"iv"))
}

/// Makes keys that protect nothing.
struct NoKeys {
    key_len: usize,
}

impl Algorithm for NoKeys {
    fn packet_key(&self, _: AeadKey, _: Iv) -> Box<dyn PacketKey> {
        Box::new(NoKey)
    }

    fn header_protection_key(&self, _: AeadKey) -> Box<dyn HeaderProtectionKey> {
        Box::new(NoKey)
    }

    fn aead_key_len(&self) -> usize {
        self.key_len
    }
}

/// Makes keys for records, which QUIC does not have.
struct NoRecords {
    key_len: usize,
}

impl Tls13AeadAlgorithm for NoRecords {
    fn encrypter(&self, _: AeadKey, _: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(NoKey)
    }

    fn decrypter(&self, _: AeadKey, _: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(NoKey)
    }

    fn key_len(&self) -> usize {
        self.key_len
    }

    fn extract_keys(&self, _: AeadKey, _: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

/// Refuses everything.
struct NoKey;

impl MessageEncrypter for NoKey {
    fn encrypt(&mut self, _: OutboundPlainMessage<'_>, _: u64) -> Result<OutboundOpaqueMessage, Error> {
        Err(Error::EncryptError)
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len
    }
}

impl MessageDecrypter for NoKey {
    fn decrypt<'a>(&mut self, _: InboundOpaqueMessage<'a>, _: u64) -> Result<InboundPlainMessage<'a>, Error> {
        Err(Error::DecryptError)
    }
}

impl PacketKey for NoKey {
    fn encrypt_in_place(&self, _: u64, _: &[u8], _: &mut [u8]) -> Result<Tag, Error> {
        Err(Error::EncryptError)
    }

    fn decrypt_in_place<'a>(&self, _: u64, _: &[u8], _: &'a mut [u8]) -> Result<&'a [u8], Error> {
        Err(Error::DecryptError)
    }

    fn tag_len(&self) -> usize {
        courser_core::crypto::TAG_LEN
    }

    fn confidentiality_limit(&self) -> u64 {
        0
    }

    fn integrity_limit(&self) -> u64 {
        0
    }
}

impl HeaderProtectionKey for NoKey {
    fn encrypt_in_place(&self, _: &[u8], _: &mut u8, _: &mut [u8]) -> Result<(), Error> {
        Err(Error::EncryptError)
    }

    fn decrypt_in_place(&self, _: &[u8], _: &mut u8, _: &mut [u8]) -> Result<(), Error> {
        Err(Error::DecryptError)
    }

    fn sample_len(&self) -> usize {
        courser_core::crypto::SAMPLE_LEN
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::tls13::{Hkdf, OkmBlock};

    use super::*;

    const ALL: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

    fn expand(hkdf: &dyn Hkdf, secret: &[u8], label: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let okm = OkmBlock::new(secret);
        let expander = hkdf.expander_for_okm(&okm);
        assert_eq!(expander.hash_len(), secret.len());
        let len = u8::try_from(6 + label.len()).unwrap();
        let info: [&[u8]; 6] = [&[0, 16], &[len], b"tls13 ", label, &[0], b""];
        let mut out = [0xff; 16];
        expander.expand_slice(&info, &mut out).unwrap();
        (out.to_vec(), expander.expand_block(&info).as_ref().to_vec())
    }

    #[test]
    fn all_that_tls_needs_is_derived_as_before_and_nothing_else_is() {
        for suite in ALL {
            let lean = lean(suite).tls13().unwrap();
            assert_eq!(crate::settings::suite_of(SupportedCipherSuite::Tls13(lean)), Some(suite));
            let full = match suite {
                Suite::Aes128Gcm => suites::TLS13_AES_128_GCM_SHA256,
                Suite::Aes256Gcm => suites::TLS13_AES_256_GCM_SHA384,
                Suite::ChaCha20Poly1305 => suites::TLS13_CHACHA20_POLY1305_SHA256,
            };
            let full = full.tls13().unwrap();
            assert_eq!(lean.quic.unwrap().aead_key_len(), full.quic.unwrap().aead_key_len());
            let secret = vec![7; full.common.hash_provider.output_len()];
            assert_eq!(lean.aead_alg.key_len(), full.aead_alg.key_len());
            for label in ["c hs traffic", "finished", "res master", "exp master", "res binder", "traffic upd", "keys"] {
                let label = label.as_bytes();
                assert_eq!(expand(lean.hkdf_provider, &secret, label), expand(full.hkdf_provider, &secret, label));
            }
            for label in ["quic key", "quic iv", "quic hp", "quic ku", "quicv2 key", "quicv2 ku", "key", "iv"] {
                let (short, block) = expand(lean.hkdf_provider, &secret, label.as_bytes());
                assert!(short.iter().chain(&block).all(|b| *b == 0), "{label}");
                assert_eq!(block.len(), secret.len());
            }
        }
    }

    #[test]
    fn the_empty_keys_protect_nothing() {
        let quic = lean(Suite::Aes128Gcm).tls13().unwrap().quic.unwrap();
        let key = quic.packet_key(AeadKey::from([0; 32]), Iv::from([0; 12]));
        assert!(key.encrypt_in_place(0, b"head", &mut [0; 8]).is_err());
        assert!(key.decrypt_in_place(0, b"head", &mut [0; 24]).is_err());
        assert_eq!((key.confidentiality_limit(), key.integrity_limit()), (0, 0));
        let records = lean(Suite::Aes128Gcm).tls13().unwrap().aead_alg;
        let plain = OutboundPlainMessage {
            typ: rustls::ContentType::ApplicationData,
            version: rustls::ProtocolVersion::TLSv1_3,
            payload: rustls::crypto::cipher::OutboundChunks::Single(b"data"),
        };
        assert!(records.encrypter(AeadKey::from([0; 32]), Iv::from([0; 12])).encrypt(plain, 0).is_err());
        let header = quic.header_protection_key(AeadKey::from([0; 32]));
        assert!(header.encrypt_in_place(&[0; 16], &mut 0, &mut [0; 4]).is_err());
        assert!(header.decrypt_in_place(&[0; 16], &mut 0, &mut [0; 4]).is_err());
    }
}

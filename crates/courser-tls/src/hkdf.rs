//! HKDF-Expand-Label of TLS 1.3 (RFC 8446 section 7.1) and the exporter (section 7.5).

use aws_lc_rs::{digest, hkdf, hmac};
use courser_core::crypto::{CryptoFailed, Secret, Suite};
use zeroize::Zeroizing;

/// What goes before every label.
const PREFIX: &[u8] = b"tls13 ";

/// The longest label that fits behind the prefix.
const LABEL_MAX: usize = 255 - PREFIX.len();

/// Length of the output, which the library wants as a type.
struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// The hash of a suite.
pub(crate) const fn algorithm(suite: Suite) -> hkdf::Algorithm {
    match suite {
        Suite::Aes256Gcm => hkdf::HKDF_SHA384,
        Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => hkdf::HKDF_SHA256,
    }
}

/// Fills `out` from `secret`. Fails when a length does not fit the structure that is hashed.
pub(crate) fn expand_label(
    algorithm: hkdf::Algorithm,
    secret: &[u8],
    label: &[u8],
    context: &[u8],
    out: &mut [u8],
) -> Result<(), CryptoFailed> {
    if secret.len() > 64 || label.len() > LABEL_MAX {
        return Err(CryptoFailed);
    }
    let out_len = u16::try_from(out.len()).map_err(|_| CryptoFailed)?.to_be_bytes();
    let label_len = u8::try_from(PREFIX.len() + label.len()).map_err(|_| CryptoFailed)?;
    let context_len = u8::try_from(context.len()).map_err(|_| CryptoFailed)?;
    let info: [&[u8]; 6] = [&out_len, &[label_len], PREFIX, label, &[context_len], context];
    let prk = hkdf::Prk::new_less_safe(algorithm, secret);
    let okm = prk.expand(&info, Len(out.len())).map_err(|_| CryptoFailed)?;
    okm.fill(out).map_err(|_| CryptoFailed)
}

/// Expands one secret with several labels, for outputs that are no longer than the hash: its key is set up once.
pub(crate) struct Expander(hmac::Key);

impl Expander {
    pub(crate) fn new(algorithm: hkdf::Algorithm, secret: &[u8]) -> Self {
        Self(hmac::Key::new(algorithm.hmac_algorithm(), secret))
    }

    /// Fills `out` with an empty context. Fails when a length does not fit the structure that is hashed, or `out` is longer
    /// than the hash.
    pub(crate) fn fill(&self, label: &[u8], out: &mut [u8]) -> Result<(), CryptoFailed> {
        if label.len() > LABEL_MAX {
            return Err(CryptoFailed);
        }
        let out_len = u16::try_from(out.len()).map_err(|_| CryptoFailed)?.to_be_bytes();
        let label_len = u8::try_from(PREFIX.len() + label.len()).map_err(|_| CryptoFailed)?;
        let mut context = hmac::Context::with_key(&self.0);
        // RFC 5869 section 2.3: the first block is the MAC over the structure and the number of the block.
        for part in [&out_len, [label_len].as_slice(), PREFIX, label, &[0], &[1]] {
            context.update(part);
        }
        let block = context.sign();
        out.copy_from_slice(block.as_ref().get(..out.len()).ok_or(CryptoFailed)?);
        Ok(())
    }
}

/// The exporter over an exporter secret.
pub(crate) fn export(
    suite: Suite,
    secret: &Secret,
    label: &[u8],
    context: &[u8],
    out: &mut [u8],
) -> Result<(), CryptoFailed> {
    let hash = match suite {
        Suite::Aes256Gcm => &digest::SHA384,
        Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => &digest::SHA256,
    };
    let algorithm = algorithm(suite);
    let mut derived = Zeroizing::new([0; 48]);
    let derived = &mut derived[..hash.output_len()];
    expand_label(algorithm, secret.as_slice(), label, digest::digest(hash, b"").as_ref(), derived)?;
    expand_label(algorithm, derived, b"exporter", digest::digest(hash, context).as_ref(), out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_outputs_of_one_secret_are_those_of_one_each() {
        for (algorithm, len) in [(hkdf::HKDF_SHA256, 32), (hkdf::HKDF_SHA384, 48)] {
            let secret = vec![9; len];
            let expander = Expander::new(algorithm, &secret);
            for (label, len) in [(b"quic key".as_slice(), 16), (b"quic iv", 12), (b"", 1), (b"quicv2 hp", len)] {
                let (mut ours, mut other) = (vec![0; len], vec![0; len]);
                expander.fill(label, &mut ours).unwrap();
                expand_label(algorithm, &secret, label, b"", &mut other).unwrap();
                assert_eq!(ours, other);
            }
            assert!(expander.fill(b"a", &mut vec![0; len + 1]).is_err());
            assert!(expander.fill(&[b'a'; LABEL_MAX + 1], &mut [0]).is_err());
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let mut out = [0; 16];
        let expand = |label: usize, context: usize, out: &mut [u8]| {
            expand_label(hkdf::HKDF_SHA256, &[1; 32], &vec![b'a'; label], &vec![0; context], out)
        };
        assert!(expand(LABEL_MAX, 255, &mut out).is_ok());
        assert!(expand(LABEL_MAX + 1, 0, &mut out).is_err());
        assert!(expand(1, 256, &mut out).is_err());
        assert!(expand(1, 0, &mut vec![0; 255 * 32]).is_ok());
        assert!(expand(1, 0, &mut vec![0; 255 * 32 + 1]).is_err());
        assert!(expand_label(hkdf::HKDF_SHA256, &[1; 65], b"a", b"", &mut out).is_err());
    }
}

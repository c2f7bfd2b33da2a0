//! HKDF-Expand-Label of TLS 1.3 (RFC 8446 section 7.1) and the exporter (section 7.5).

use courser_core::crypto::{CryptoFailed, Secret, Suite};
use hmac::Hmac;
use sha2::{Digest, Sha256, Sha384};
use zeroize::Zeroizing;

use crate::hash;

/// What goes before every label.
const PREFIX: &[u8] = b"tls13 ";

/// The longest label that fits behind the prefix.
const LABEL_MAX: usize = 255 - PREFIX.len();

/// Fills `out` from `secret`. Fails when a length does not fit the structure that is hashed.
pub(crate) fn expand_label(
    suite: Suite,
    secret: &[u8],
    label: &[u8],
    context: &[u8],
    out: &mut [u8],
) -> Result<(), CryptoFailed> {
    if secret.len() > 64 {
        return Err(CryptoFailed);
    }
    Expander::new(suite, secret).fill(label, context, out)
}

/// Expands one secret with several labels: its key is set up once.
pub(crate) enum Expander {
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
}

impl Expander {
    /// With the hash of the suite.
    pub(crate) fn new(suite: Suite, secret: &[u8]) -> Self {
        match suite {
            Suite::Aes256Gcm => Self::Sha384(hash::keyed(secret)),
            Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => Self::Sha256(hash::keyed(secret)),
        }
    }

    /// Fills `out`. Fails when a length does not fit the structure that is hashed.
    pub(crate) fn fill(&self, label: &[u8], context: &[u8], out: &mut [u8]) -> Result<(), CryptoFailed> {
        if label.len() > LABEL_MAX {
            return Err(CryptoFailed);
        }
        let out_len = u16::try_from(out.len()).map_err(|_| CryptoFailed)?.to_be_bytes();
        let label_len = u8::try_from(PREFIX.len() + label.len()).map_err(|_| CryptoFailed)?;
        let context_len = u8::try_from(context.len()).map_err(|_| CryptoFailed)?;
        let info: [&[u8]; 6] = [&out_len, &[label_len], PREFIX, label, &[context_len], context];
        match self {
            Self::Sha256(key) => hash::expand(key, &info, out),
            Self::Sha384(key) => hash::expand(key, &info, out),
        }
        .ok_or(CryptoFailed)
    }
}

/// The hash of a suite over `data`.
fn digest<'a>(suite: Suite, data: &[u8], room: &'a mut [u8; 48]) -> &'a [u8] {
    let len = match suite {
        Suite::Aes256Gcm => {
            room.copy_from_slice(&Sha384::digest(data));
            48
        }
        Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => {
            room[..32].copy_from_slice(&Sha256::digest(data));
            32
        }
    };
    &room[..len]
}

/// The exporter over an exporter secret.
pub(crate) fn export(
    suite: Suite,
    secret: &Secret,
    label: &[u8],
    context: &[u8],
    out: &mut [u8],
) -> Result<(), CryptoFailed> {
    let (mut empty, mut of_context) = ([0; 48], [0; 48]);
    let (empty, of_context) = (digest(suite, b"", &mut empty), digest(suite, context, &mut of_context));
    let mut derived = Zeroizing::new([0; 48]);
    let derived = &mut derived[..empty.len()];
    expand_label(suite, secret.as_slice(), label, empty, derived)?;
    expand_label(suite, derived, b"exporter", of_context, out)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hkdf;

    use super::*;

    struct Len(usize);

    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }

    #[test]
    fn labels_give_what_another_implementation_gives() {
        for (suite, algorithm, len) in [
            (Suite::Aes128Gcm, hkdf::HKDF_SHA256, 32),
            (Suite::ChaCha20Poly1305, hkdf::HKDF_SHA256, 32),
            (Suite::Aes256Gcm, hkdf::HKDF_SHA384, 48),
        ] {
            let secret = vec![9; len];
            let expander = Expander::new(suite, &secret);
            for (label, context, len) in [
                (b"quic key".as_slice(), b"".as_slice(), 16),
                (b"quic iv", b"", 12),
                (b"", b"c", 1),
                (b"quicv2 hp", &[3; 48], len),
                (b"exporter", &[4; 32], 200),
            ] {
                let (mut ours, mut other) = (vec![0; len], vec![0; len]);
                expander.fill(label, context, &mut ours).unwrap();
                let (out_len, label_len) = ((len as u16).to_be_bytes(), [PREFIX.len() as u8 + label.len() as u8]);
                let info: [&[u8]; 6] = [&out_len, &label_len, PREFIX, label, &[context.len() as u8], context];
                let prk = hkdf::Prk::new_less_safe(algorithm, &secret);
                prk.expand(&info, Len(len)).unwrap().fill(&mut other).unwrap();
                assert_eq!(ours, other);
                let mut once = vec![0; len];
                expand_label(suite, &secret, label, context, &mut once).unwrap();
                assert_eq!(ours, once);
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let mut out = [0; 16];
        let expand = |label: usize, context: usize, out: &mut [u8]| {
            expand_label(Suite::Aes128Gcm, &[1; 32], &vec![b'a'; label], &vec![0; context], out)
        };
        assert!(expand(LABEL_MAX, 255, &mut out).is_ok());
        assert!(expand(LABEL_MAX + 1, 0, &mut out).is_err());
        assert!(expand(1, 256, &mut out).is_err());
        assert!(expand(1, 0, &mut vec![0; 255 * 32]).is_ok());
        assert!(expand(1, 0, &mut vec![0; 255 * 32 + 1]).is_err());
        assert!(expand_label(Suite::Aes128Gcm, &[1; 65], b"a", b"", &mut out).is_err());
    }
}

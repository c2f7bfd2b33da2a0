//! HKDF-Expand-Label of TLS 1.3 (RFC 8446 section 7.1) and the exporter (section 7.5).

use aws_lc_rs::{digest, hkdf};
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

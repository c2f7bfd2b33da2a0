//! What TLS needs on TCP, and what its errors mean.

use std::sync::Arc;

use rustls::{CertificateError, ClientConfig};

use crate::error::{Error, Outcome, chain, harmless};
use crate::options::Trust;

/// A client's settings: TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1.
///
/// # Errors
/// There are no issuers to trust.
pub fn client(trust: &Trust) -> Outcome<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Tls { peer: "any server".into(), why: e.to_string() })?;
    let mut config = builder.with_root_certificates(trust.roots()?).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// A handshake that failed, by what it says about the certificate.
#[must_use]
pub fn failure(peer: &str, e: &std::io::Error) -> Error {
    let peer = peer.to_owned();
    match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => Error::Untrusted { peer, why: verdict(why) },
        Some(tls) => Error::Tls { peer, why: chain(tls) },
        None => Error::NoAnswer { peer, why: format!("the TLS handshake broke off: {}", chain(e)) },
    }
}

fn verdict(why: &CertificateError) -> String {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet".into(),
        CertificateError::UnknownIssuer => "nobody who is trusted here signed it".into(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".into()
        }
        CertificateError::Revoked => "it was revoked".into(),
        other => harmless(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_told() {
        for (why, words) in [
            (CertificateError::UnknownIssuer, "nobody who is trusted"),
            (CertificateError::NotValidForName, "another name"),
            (CertificateError::Expired, "expired"),
            (CertificateError::BadSignature, "signature"),
        ] {
            let e = std::io::Error::other(rustls::Error::InvalidCertificate(why));
            let told = failure("h:1", &e);
            assert!(told.code() == 5 && told.to_string().to_lowercase().contains(words), "{told}");
        }
        let eof = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        assert_eq!(failure("h:1", &eof).code(), 4);
    }
}

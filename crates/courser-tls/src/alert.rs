//! What went wrong in TLS, as an alert code for the peer and a sentence for people.

use courser_core::crypto::Alert;
use rustls::{AlertDescription, CertificateError, Error};

/// Alerts that are raised here and not by rustls.
pub(crate) const UNEXPECTED_MESSAGE: u8 = 10;
pub(crate) const INTERNAL_ERROR: u8 = 80;
pub(crate) const UNRECOGNIZED_NAME: u8 = 112;

/// The alert for an error of rustls. `sent` is the alert that rustls wanted to send, when it did.
pub(crate) fn from_error(error: &Error, sent: Option<AlertDescription>) -> Alert {
    Alert { code: u8::from(sent.unwrap_or_else(|| description(error))), reason: sentence(error) }
}

/// The alert of an error for which rustls sent none.
fn description(error: &Error) -> AlertDescription {
    match error {
        Error::InvalidCertificate(e) => AlertDescription::from(e.clone()),
        Error::InvalidMessage(e) => AlertDescription::from(*e),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            AlertDescription::UnexpectedMessage
        }
        Error::NoCertificatesPresented => AlertDescription::CertificateRequired,
        Error::NoApplicationProtocol => AlertDescription::NoApplicationProtocol,
        Error::DecryptError => AlertDescription::DecryptError,
        Error::PeerIncompatible(_) => AlertDescription::HandshakeFailure,
        Error::PeerMisbehaved(_) => AlertDescription::IllegalParameter,
        _ => AlertDescription::InternalError,
    }
}

fn sentence(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(e) => certificate_sentence(e),
        Error::NoApplicationProtocol => "the two ends have no application protocol (ALPN) in common".to_owned(),
        Error::NoCertificatesPresented => "the peer sent no certificate, and one is required".to_owned(),
        Error::PeerIncompatible(e) => format!("the peer does not support what is needed here: {e:?}"),
        Error::PeerMisbehaved(e) => format!("the peer broke a rule of TLS: {e:?}"),
        Error::InvalidMessage(e) => format!("the peer sent a malformed TLS message: {e:?}"),
        Error::DecryptError => "a TLS signature or Finished message does not fit the handshake".to_owned(),
        other => other.to_string(),
    }
}

fn certificate_sentence(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired => "the peer's certificate has expired".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the peer's certificate expired {} ago (or the clock here is wrong)",
            span(time.as_secs().saturating_sub(not_after.as_secs()))
        ),
        CertificateError::NotValidYet => "the peer's certificate is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the peer's certificate becomes valid in {} (or the clock here is wrong)",
            span(not_before.as_secs().saturating_sub(time.as_secs()))
        ),
        CertificateError::UnknownIssuer => "the peer's certificate was issued by somebody who is not trusted here; \
             add the issuer to the roots if it should be"
            .to_owned(),
        CertificateError::NotValidForName => "the peer's certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = if presented.is_empty() { "no name at all".to_owned() } else { presented.join(", ") };
            format!("the peer's certificate is not for {}: it is for {names}", expected.to_str())
        }
        CertificateError::Revoked => "the peer's certificate was revoked".to_owned(),
        CertificateError::BadSignature => "a signature in the peer's certificate chain is wrong".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the peer's certificate is for another purpose".to_owned()
        }
        // Of a type of the verifier's own, which has no other way to be told apart here.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the peer's certificate is that of an authority (CA:TRUE), which no server may have; `openssl req -x509` makes one \
             for a server with -addext basicConstraints=critical,CA:FALSE"
                .to_owned()
        }
        other => format!("the peer's certificate is not acceptable: {other}"),
    }
}

/// A span of time in the largest unit that fits.
fn span(secs: u64) -> String {
    match secs {
        0..=119 => format!("{secs} seconds"),
        120..=7199 => format!("{} minutes", secs / 60),
        7200..=172_799 => format!("{} hours", secs / 3600),
        _ => format!("{} days", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_without_an_alert_of_their_own_get_a_fitting_one() {
        let table = [
            (Error::InvalidCertificate(CertificateError::Expired), 45),
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), 48),
            (Error::InvalidMessage(rustls::InvalidMessage::MissingData("x")), 50),
            (Error::NoApplicationProtocol, 120),
            (Error::NoCertificatesPresented, 116),
            (Error::PeerMisbehaved(rustls::PeerMisbehaved::KeyEpochWithPendingFragment), 47),
            (Error::PeerIncompatible(rustls::PeerIncompatible::NoCipherSuitesInCommon), 40),
            (Error::General("x".to_owned()), INTERNAL_ERROR),
        ];
        for (error, code) in table {
            let alert = from_error(&error, None);
            assert_eq!(alert.code, code, "{error:?}");
            assert!(alert.reason.len() > 10 || matches!(error, Error::General(_)), "{}", alert.reason);
        }
        assert_eq!(from_error(&Error::DecryptError, Some(AlertDescription::BadCertificate)).code, 42);
    }

    #[test]
    fn spans_use_a_readable_unit() {
        assert_eq!([span(5), span(300), span(7200), span(864_000)], ["5 seconds", "5 minutes", "2 hours", "10 days"]);
    }
}

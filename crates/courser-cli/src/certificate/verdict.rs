//! Whether a certificate chain is believed, and why not: the judgement that a handshake makes, on its own, so that what
//! is not believed can be shown all the same.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore};

use super::Described;
use crate::args::common::TrustArgs;
use crate::failure::{Failure, Outcome};
use crate::{identity, text};

/// Whom a client believes.
#[derive(Debug)]
pub struct Judge {
    roots: Arc<RootCertStore>,
    /// Where they are from, for people.
    pub of: String,
}

impl Judge {
    /// The file of the flags, or the platform's roots.
    ///
    /// # Errors
    /// A file that cannot be read or used, or a platform without roots.
    pub fn from_args(args: &TrustArgs) -> Outcome<Self> {
        let mut roots = RootCertStore::empty();
        let of = match &args.ca {
            Some(path) => {
                for c in identity::certificates(path)? {
                    roots.add(c).map_err(|e| Failure::Unusable { path: path.clone(), why: e.to_string() })?;
                }
                path.display().to_string()
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
                "the platform's roots".to_owned()
            }
        };
        if roots.is_empty() {
            let why = "there are none; name a file with --ca, or use --insecure".to_owned();
            return Err(Failure::Local { what: "looking for the platform's roots".into(), why });
        }
        Ok(Self { roots: Arc::new(roots), of })
    }

    /// Judges a chain, leaf first, that a server showed under `name`.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn judge(&self, chain: &[Vec<u8>], name: &str, now: SystemTime) -> Result<(), Error> {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), Arc::new(default_provider()))
            .build()
            .map_err(|e| Error::General(e.to_string()))?;
        let (leaf, others) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        let others: Vec<_> = others.iter().map(|c| CertificateDer::from(c.as_slice())).collect();
        // Addresses of URLs have brackets around IPv6 addresses.
        let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
        let name = ServerName::try_from(bare).map_err(|e| Error::General(e.to_string()))?;
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO));
        verifier.verify_server_cert(&CertificateDer::from(leaf.as_slice()), &others, &name, &[], now).map(drop)
    }
}

/// Why not, in a few words about the certificate.
#[must_use]
pub fn worded(e: &Error, certificate: Option<&Described>) -> String {
    use CertificateError as C;
    let own = certificate.is_some_and(|c| c.self_issued);
    match e {
        Error::InvalidCertificate(e) => match e {
            C::Expired | C::ExpiredContext { .. } => "it has expired".into(),
            C::NotValidYet | C::NotValidYetContext { .. } => "it is not valid yet".into(),
            C::NotValidForName | C::NotValidForNameContext { .. } => "it is for other names".into(),
            C::UnknownIssuer if own => "it is signed by itself, and not among those roots".into(),
            C::UnknownIssuer => "its issuer is not among those roots, and the chain does not lead to one".into(),
            C::BadSignature => "a signature in the chain is wrong".into(),
            C::InvalidPurpose | C::InvalidPurposeContext { .. } => "it is not for servers".into(),
            other => text::harmless(other.to_string().as_bytes()),
        },
        other => text::harmless(other.to_string().as_bytes()),
    }
}

/// Why not, as the end of the command.
#[must_use]
pub fn failure(e: &Error, peer: &str) -> Failure {
    use CertificateError as C;
    let peer = peer.to_owned();
    match e {
        Error::InvalidCertificate(
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
        ) => Failure::CertificateExpired { peer },
        Error::InvalidCertificate(C::UnknownIssuer) => Failure::CertificateUntrusted { peer },
        Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            Failure::CertificateName { peer }
        }
        other => Failure::Tls { peer, why: text::harmless(other.to_string().as_bytes()) },
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    /// An authority's certificate in a file, and a chain that it signed for `demo.example` until the end of a year.
    fn signed(until: i32) -> (tempfile::NamedTempFile, Vec<Vec<u8>>) {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.distinguished_name.push(DnType::CommonName, format!("authority {until}"));
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let root = ca.self_signed(&ca_key).unwrap();
        let mut leaf = CertificateParams::new(vec!["demo.example".to_owned()]).unwrap();
        leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(until, 12, 31);
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &Issuer::new(ca, ca_key)).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), root.pem()).unwrap();
        (file, vec![leaf.der().to_vec(), root.der().to_vec()])
    }

    #[track_caller]
    fn assert_told(judged: Result<(), Error>, own: Option<&Described>, words: &str, code_and_piece: (u8, &str)) {
        let e = judged.unwrap_err();
        let f = failure(&e, "demo.example:443");
        assert!(worded(&e, own).contains(words), "{}", worded(&e, own));
        assert_eq!(f.code(), code_and_piece.0);
        assert!(f.to_string().contains(code_and_piece.1), "{f}");
    }

    #[test]
    fn the_judgement_names_what_is_wrong() {
        let now = SystemTime::now();
        let judge = |file: &tempfile::NamedTempFile| {
            Judge::from_args(&TrustArgs { ca: Some(file.path().to_owned()), ..TrustArgs::default() }).unwrap()
        };
        let (ca, chain) = signed(2090);
        assert_eq!(judge(&ca).judge(&chain, "demo.example", now), Ok(()));
        assert_told(judge(&ca).judge(&chain, "[::1]", now), None, "for other names", (5, "--server-name"));
        let (other, old) = signed(2021);
        assert_told(judge(&other).judge(&old, "demo.example", now), None, "has expired", (5, "renew"));
        assert_told(judge(&other).judge(&chain, "demo.example", now), None, "does not lead to one", (5, "--ca"));
        assert_told(judge(&ca).judge(&[], "demo.example", now), None, "no certificates", (5, "TLS"));
        let own = courser::certs::Throwaway::for_names(&["demo.example"]).unwrap();
        let own = [own.certificate_der().to_vec()];
        let described = Described::of(&own, now);
        let judged = judge(&ca).judge(&own, "demo.example", now);
        assert_told(judged, described.as_ref(), "signed by itself", (5, "--insecure"));
    }

    #[test]
    fn a_file_without_certificates_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let args = TrustArgs { ca: Some(file.path().to_owned()), ..TrustArgs::default() };
        assert_eq!(Judge::from_args(&args).unwrap_err().code(), 5);
    }
}

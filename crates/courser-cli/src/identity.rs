//! Certificates and keys from PEM files, or made on the spot.

use std::path::{Path, PathBuf};

use courser::certs::{Fingerprint, Throwaway};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::args::common::IdentityArgs;
use crate::failure::{Failure, Outcome};

/// A server's certificate chain and private key.
#[derive(Debug)]
pub struct Identity {
    /// The chain, leaf first; never empty.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// The files of both; `None` when they were made on the spot and nobody can know them.
    pub files: Option<(PathBuf, PathBuf)>,
}

impl Identity {
    /// From the files that the flags name, or made on the spot.
    ///
    /// # Errors
    /// A file that cannot be read or used.
    pub fn from_args(args: &IdentityArgs) -> Outcome<Self> {
        match (&args.cert, &args.key) {
            (Some(cert), Some(key)) => Self::from_files(cert, key),
            _ => Self::throwaway(),
        }
    }

    /// From two PEM files.
    ///
    /// # Errors
    /// A file that cannot be read or used.
    pub fn from_files(cert: &Path, key: &Path) -> Outcome<Self> {
        let chain = certificates(cert)?;
        let text = std::fs::read(key).map_err(|e| Failure::reading(key, &e))?;
        let files = Some((cert.to_owned(), key.to_owned()));
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|e| unusable(key, &e, "private key"))?;
        Ok(Self { chain, key, files })
    }

    /// Made on the spot, for `localhost` and the loopback addresses.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn throwaway() -> Outcome<Self> {
        let made = Throwaway::local()
            .map_err(|e| Failure::Local { what: "making a certificate".into(), why: e.to_string() })?;
        Ok(Self {
            chain: vec![CertificateDer::from(made.certificate_der().to_vec())],
            key: PrivatePkcs8KeyDer::from(made.key_der().to_vec()).into(),
            files: None,
        })
    }

    /// Whether it was made on the spot.
    #[must_use]
    pub fn is_throwaway(&self) -> bool {
        self.files.is_none()
    }

    /// The leaf's fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.chain.first().map(|leaf| Fingerprint::of(leaf))
    }
}

/// The certificates in a PEM file; at least one.
///
/// # Errors
/// A file that cannot be read, or has none.
pub fn certificates(path: &Path) -> Outcome<Vec<CertificateDer<'static>>> {
    let text = std::fs::read(path).map_err(|e| Failure::reading(path, &e))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = found.map_err(|e| unusable(path, &e, "certificate"))?;
    if chain.is_empty() { Err(unusable(path, &pem::Error::NoItemsFound, "certificate")) } else { Ok(chain) }
}

fn unusable(path: &Path, e: &pem::Error, what: &str) -> Failure {
    let why = match e {
        pem::Error::NoItemsFound => format!("there is no {what} in it"),
        other => other.to_string(),
    };
    Failure::Unusable { path: path.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_faults_named() {
        let made = Throwaway::local().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert, made.certificate_pem()).unwrap();
        std::fs::write(&key, made.key_pem()).unwrap();
        let id = Identity::from_files(&cert, &key).unwrap();
        assert_eq!(id.fingerprint(), Some(made.fingerprint()));
        assert!(!id.is_throwaway());

        let gone = dir.path().join("gone.pem");
        let e = Identity::from_files(&cert, &gone).unwrap_err();
        assert_eq!(e.code(), 7);
        assert!(e.to_string().contains("gone.pem") && e.to_string().contains("may read it"), "{e}");
        for (c, k, what) in [(&key, &key, "no certificate"), (&cert, &cert, "no private key")] {
            let e = Identity::from_files(c, k).unwrap_err();
            assert_eq!(e.code(), 5);
            assert!(e.to_string().contains(what), "{e}");
        }
        std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----\n").unwrap();
        assert_eq!(Identity::from_files(&cert, &key).unwrap_err().code(), 5);
    }

    #[test]
    fn without_files_one_is_made() {
        let id = Identity::from_args(&IdentityArgs::default()).unwrap();
        assert!(id.is_throwaway() && id.fingerprint().is_some());
    }
}

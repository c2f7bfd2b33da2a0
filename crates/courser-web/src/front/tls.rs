//! Which certificate is shown for which name, over TCP and QUIC alike.

use std::path::Path;
use std::sync::Arc;

use courser::certs::{Fingerprint, Throwaway};
use courser::tls::{CertificateStore, Certificates, Credentials};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;

use crate::config::Config;
use crate::error::WebError;

/// The certificates of a server, which can be read again.
#[derive(Debug)]
pub struct Identity {
    store: CertificateStore,
    /// Made when the configuration names no certificate; the same one as long as the process runs.
    throwaway: Option<Throwaway>,
}

impl Identity {
    /// Reads the certificates of a configuration; makes one when it has none.
    ///
    /// # Errors
    /// One that cannot be read or used.
    pub fn load(config: &Config) -> Result<Self, WebError> {
        let throwaway = if config.server.certificate.is_none() { Some(make(config)?) } else { None };
        let certificates = read(config, throwaway.as_ref())?;
        Ok(Self { store: store(&certificates)?, throwaway })
    }

    /// Reads them for another configuration. Nothing changes until what comes back is used with
    /// [`replace`](Self::replace).
    ///
    /// # Errors
    /// One that cannot be read or used.
    pub fn prepare(&mut self, config: &Config) -> Result<Certificates, WebError> {
        if config.server.certificate.is_none() && self.throwaway.is_none() {
            self.throwaway = Some(make(config)?);
        }
        let certificates = read(config, self.throwaway.as_ref())?;
        store(&certificates)?;
        Ok(certificates)
    }

    /// Shows these from the next handshake on.
    ///
    /// # Errors
    /// One that cannot be used; then nothing changes.
    pub fn replace(&self, certificates: &Certificates) -> Result<(), WebError> {
        self.store.replace(certificates).map_err(|e| unusable("certificates", &e))
    }

    /// What handshakes look certificates up in.
    #[must_use]
    pub fn store(&self) -> &CertificateStore {
        &self.store
    }

    /// The fingerprint of the certificate that was made on the spot, if one is shown.
    #[must_use]
    pub fn throwaway(&self) -> Option<Fingerprint> {
        self.throwaway.as_ref().map(Throwaway::fingerprint)
    }

    /// TLS for TCP, with HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// The cryptography offers nothing usable.
    pub fn tcp(&self) -> Result<Arc<ServerConfig>, WebError> {
        let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| WebError::System { what: "TLS", why: e.to_string() })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.store.clone()));
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(tls))
    }
}

fn unusable(what: &str, why: &dyn std::fmt::Display) -> WebError {
    WebError::Certificate { what: what.to_owned(), why: why.to_string() }
}

fn make(config: &Config) -> Result<Throwaway, WebError> {
    let hosts = config.sites.iter().flat_map(|site| &site.hosts).map(String::as_str);
    let names: Vec<&str> = hosts.filter(|host| !host.is_empty()).collect();
    Throwaway::for_names(&names).map_err(|e| unusable("a certificate made on the spot", &e))
}

fn read(config: &Config, throwaway: Option<&Throwaway>) -> Result<Certificates, WebError> {
    let from_files = |certificate: &Path, key: &Path| {
        Credentials::from_pem_files(certificate, key).map_err(|e| unusable(&certificate.display().to_string(), &e))
    };
    let default = match (&config.server.certificate, &config.server.key, throwaway) {
        (Some(certificate), Some(key), _) => from_files(certificate, key)?,
        (_, _, Some(made)) => Credentials::from_pem(made.certificate_pem().as_bytes(), made.key_pem().as_bytes())
            .map_err(|e| unusable("a certificate made on the spot", &e))?,
        _ => return Err(unusable("the server", &"it has no certificate")),
    };
    let mut certificates = Certificates::new(default);
    for site in &config.sites {
        if let (Some(certificate), Some(key)) = (&site.certificate, &site.key) {
            let own = from_files(certificate, key)?;
            for host in &site.hosts {
                certificates = certificates.named(host, own.clone());
            }
        }
    }
    Ok(certificates)
}

fn store(certificates: &Certificates) -> Result<CertificateStore, WebError> {
    CertificateStore::new(certificates).map_err(|e| unusable("certificates", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_checked_before_they_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let made = Throwaway::for_names(&["one.example"]).unwrap();
        std::fs::write(dir.path().join("c"), made.certificate_pem()).unwrap();
        std::fs::write(dir.path().join("k"), made.key_pem()).unwrap();
        let folder = dir.path().display();
        let text = |host: &str, key: &str| {
            format!(
                "[[site]]\nhosts=[\"{host}\"]\ncertificate=\"{folder}/c\"\nkey=\"{folder}/{key}\"\n[site.files]\nroot=\"/\""
            )
        };
        let mut identity = Identity::load(&Config::parse(&text("one.example", "k")).unwrap()).unwrap();
        assert!(identity.throwaway().is_some());
        assert!(format!("{:?}", identity.store()).contains("one.example"));
        identity.tcp().unwrap();
        let other = identity.prepare(&Config::parse(&text("two.example", "k")).unwrap()).unwrap_err();
        assert!(other.to_string().contains("two.example"), "{other}");
        let gone = identity.prepare(&Config::parse(&text("one.example", "gone")).unwrap()).unwrap_err();
        assert!(gone.to_string().contains("gone"), "{gone}");
        let certificates = identity.prepare(&Config::parse("[[site]]\n[site.files]").unwrap()).unwrap();
        identity.replace(&certificates).unwrap();
        assert!(!format!("{:?}", identity.store()).contains("one.example"));
    }
}

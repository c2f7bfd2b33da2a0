//! Certificates by name, which can be changed while they are in use.
//!
//! A store holds one table behind a pointer. A handshake looks its certificate up in the table of that moment and keeps what it
//! found, so a change is seen by every later handshake, of all workers at once, and by none that has begun. A table is
//! checked as a whole before it takes the place of the old one; one with a mistake changes nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::{DnsName, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, SignatureScheme};

use crate::settings::{ConfigError, Credentials};

/// Which certificate is shown to whom.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    default: Option<Credentials>,
    named: Vec<(String, Credentials)>,
}

impl Certificates {
    /// This certificate is shown to clients that name nobody, or somebody who has no certificate of its own.
    #[must_use]
    pub fn new(default: Credentials) -> Self {
        Self { default: Some(default), named: Vec::new() }
    }

    /// Clients that name nobody, or somebody who has no certificate here, are turned away.
    #[must_use]
    pub fn without_default() -> Self {
        Self::default()
    }

    /// Clients that ask for this name are shown this certificate. `*.example.org` stands for all names with exactly one label
    /// before `.example.org`; a name in full goes before it. Of two certificates for a name the later one counts.
    #[must_use]
    pub fn named(mut self, name: &str, credentials: Credentials) -> Self {
        self.named.push((name.to_owned(), credentials));
        self
    }
}

/// Certificates that can be replaced while connections are made with them. Clones are the same store: a server's workers, and
/// whoever replaces the certificates, each have one.
#[derive(Clone)]
pub struct CertificateStore {
    current: Arc<RwLock<Arc<Table>>>,
}

impl CertificateStore {
    /// A store with these certificates.
    ///
    /// # Errors
    /// [`ConfigError::Certificate`] or [`ConfigError::PrivateKey`] when a certificate cannot be read, is not for its name, or
    /// its key is another one's; [`ConfigError::NoCredentials`] when there is none.
    pub fn new(certificates: &Certificates) -> Result<Self, ConfigError> {
        Ok(Self { current: Arc::new(RwLock::new(Arc::new(Table::of(certificates)?))) })
    }

    /// Shows these certificates from the next handshake on. Connections that are there live on, and handshakes under way go
    /// on with the certificate that they began with.
    ///
    /// # Errors
    /// As in [`new`](Self::new); then the earlier certificates stay in use, all of them.
    pub fn replace(&self, certificates: &Certificates) -> Result<(), ConfigError> {
        let table = Arc::new(Table::of(certificates)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(())
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for CertificateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table();
        let names: Vec<_> = table.exact.keys().chain(table.wildcard.keys()).collect();
        f.debug_struct("CertificateStore").field("default", &table.default.is_some()).field("names", &names).finish()
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.table().find(hello.server_name())
    }
}

impl ResolvesClientCert for CertificateStore {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.table().default.clone()
    }

    fn has_certs(&self) -> bool {
        self.table().default.is_some()
    }
}

/// The certificates of a moment.
#[derive(Debug)]
struct Table {
    default: Option<Arc<CertifiedKey>>,
    /// By name in lower case.
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows the asterisk and the dot.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
}

impl Table {
    fn of(certificates: &Certificates) -> Result<Self, ConfigError> {
        let Certificates { default, named } = certificates;
        if default.is_none() && named.is_empty() {
            return Err(ConfigError::NoCredentials);
        }
        let default = default.as_ref().map(|c| usable(c, None)).transpose()?;
        let mut table = Self { default, exact: HashMap::new(), wildcard: HashMap::new() };
        for (name, credentials) in named {
            let name = name.to_ascii_lowercase();
            let suffix = name.strip_prefix("*.");
            let key = usable(credentials, Some(&name))?;
            match suffix {
                Some(suffix) => table.wildcard.insert(suffix.to_owned(), key),
                None => table.exact.insert(name, key),
            };
        }
        Ok(table)
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let own = name.as_deref().and_then(|name| {
            let wildcard = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(wildcard)
        });
        own.or(self.default.as_ref()).cloned()
    }
}

/// A certificate with its key, checked: both can be read, they belong together, and the certificate is for that name.
fn usable(credentials: &Credentials, name: Option<&str>) -> Result<Arc<CertifiedKey>, ConfigError> {
    let of = |what: String| name.map_or_else(|| what.clone(), |name| format!("{name}: {what}"));
    let Credentials { chain, key } = credentials.clone();
    let certified = CertifiedKey::from_der(chain, key, &provider::default_provider()).map_err(|e| match e {
        Error::InvalidCertificate(_) => ConfigError::Certificate(of(e.to_string())),
        _ => ConfigError::PrivateKey(of(e.to_string())),
    })?;
    let Some(name) = name else { return Ok(Arc::new(certified)) };
    // Any label may stand for the asterisk.
    let sample = name.strip_prefix("*.").map_or_else(|| name.to_owned(), |suffix| format!("any.{suffix}"));
    let wanted = DnsName::try_from(sample)
        .map_err(|_| ConfigError::Certificate(format!("{name:?} is not the name of a host")))?;
    let leaf = certified.end_entity_cert().and_then(ParsedCertificate::try_from);
    leaf.and_then(|leaf| rustls::client::verify_server_name(&leaf, &ServerName::DnsName(wanted)))
        .map_err(|e| ConfigError::Certificate(of(e.to_string())))?;
    Ok(Arc::new(certified))
}

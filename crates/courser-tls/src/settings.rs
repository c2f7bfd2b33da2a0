//! What client and server configurations share: suites, groups, application protocols, roots, credentials, errors.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::suites::lean;
use courser_core::crypto::Suite;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, SupportedCipherSuite};

/// A key exchange group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// X25519MLKEM768: safe against quantum computers; makes the ClientHello longer than a datagram.
    X25519MlKem768,
    /// X25519.
    X25519,
    /// secp256r1.
    P256,
}

/// All suites in the order of preference that configurations start with.
pub const ALL_SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];

/// All groups in the order of preference that configurations start with.
pub const ALL_GROUPS: [Group; 3] = [Group::X25519MlKem768, Group::X25519, Group::P256];

/// A configuration cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// No application protocol was given; QUIC always negotiates one (RFC 9001 section 8.1).
    NoProtocol,
    /// The name of an application protocol has no bytes or more than 255.
    ProtocolLength(usize),
    /// No cipher suite was given.
    NoSuite,
    /// No key exchange group was given.
    NoGroup,
    /// There are no root certificates to verify the peer with. The text tells why the platform has none.
    NoRoots(String),
    /// A certificate cannot be read.
    Certificate(String),
    /// A private key cannot be read or used.
    PrivateKey(String),
    /// A file cannot be read.
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// A server needs a certificate.
    NoCredentials,
    /// The rustls configuration lacks something that QUIC needs.
    Unsuitable(&'static str),
    /// rustls refuses the configuration.
    Refused(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProtocol => f.write_str("at least one application protocol (ALPN) is needed"),
            Self::ProtocolLength(n) => write!(f, "the name of an application protocol has 1 to 255 bytes, not {n}"),
            Self::NoSuite => f.write_str("at least one cipher suite is needed"),
            Self::NoGroup => f.write_str("at least one key exchange group is needed"),
            Self::NoRoots(why) if why.is_empty() => f.write_str("root certificates are needed to verify the peer"),
            Self::NoRoots(why) => write!(f, "there are no root certificates to verify the peer: {why}"),
            Self::Certificate(why) => write!(f, "a certificate cannot be read: {why}"),
            Self::PrivateKey(why) => write!(f, "the private key cannot be used: {why}"),
            Self::File { path, why } => write!(f, "{} cannot be read: {why}", path.display()),
            Self::NoCredentials => f.write_str("a server needs a certificate and its private key"),
            Self::Unsuitable(what) => write!(f, "the rustls configuration cannot be used for QUIC: {what}"),
            Self::Refused(why) => write!(f, "TLS refuses the configuration: {why}"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<rustls::Error> for ConfigError {
    fn from(error: rustls::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

/// A certificate chain and its private key.
#[derive(Debug)]
pub struct Credentials {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Credentials {
    /// From PEM text: the chain with the leaf first, and the key as PKCS #8, PKCS #1 or SEC 1. Both may be the same
    /// text.
    ///
    /// # Errors
    /// When there is no certificate or no key in the text, or when one of them cannot be read.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, ConfigError> {
        let chain = certificates_from_pem(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| ConfigError::PrivateKey(e.to_string()))?;
        Ok(Self { chain, key })
    }

    /// From files in PEM, as in [`from_pem`](Self::from_pem).
    ///
    /// # Errors
    /// [`ConfigError::File`] when one of them cannot be read; otherwise as in [`from_pem`](Self::from_pem).
    pub fn from_pem_files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|e| ConfigError::File { path: path.to_owned(), why: e.to_string() })
        };
        Self::from_pem(&read(chain.as_ref())?, &read(key.as_ref())?)
    }

    /// The end entity's certificate, in DER.
    #[must_use]
    pub fn leaf(&self) -> &[u8] {
        // Every way to make credentials refuses an empty chain.
        self.chain.first().map_or(&[], |leaf| leaf)
    }

    /// From DER: the chain with the leaf first, and the key as PKCS #8, PKCS #1 or SEC 1.
    ///
    /// # Errors
    /// When the chain is empty or the key is in another form.
    pub fn from_der(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<Self, ConfigError> {
        if chain.is_empty() {
            return Err(ConfigError::Certificate("the chain is empty".to_owned()));
        }
        let key = PrivateKeyDer::try_from(key).map_err(|e| ConfigError::PrivateKey(e.to_owned()))?;
        Ok(Self { chain: chain.into_iter().map(CertificateDer::from).collect(), key })
    }
}

/// Root certificates that peers are verified with.
#[derive(Clone, Debug)]
pub struct Roots {
    pub(crate) store: RootCertStore,
}

impl Roots {
    /// No roots yet.
    #[must_use]
    pub fn empty() -> Self {
        Self { store: RootCertStore::empty() }
    }

    /// The roots that the platform trusts. Roots that cannot be read are left out.
    ///
    /// # Errors
    /// [`ConfigError::NoRoots`] when none is left.
    pub fn platform() -> Result<Self, ConfigError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = Self::empty();
        roots.store.add_parsable_certificates(found.certs);
        if roots.store.is_empty() {
            let why: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
            let why = if why.is_empty() { "the platform has none".to_owned() } else { why.join("; ") };
            return Err(ConfigError::NoRoots(why));
        }
        Ok(roots)
    }

    /// Adds every certificate of a PEM text.
    ///
    /// # Errors
    /// When there is none, or when one of them cannot be read.
    pub fn add_pem(mut self, pem: &[u8]) -> Result<Self, ConfigError> {
        for certificate in certificates_from_pem(pem)? {
            self.add(certificate)?;
        }
        Ok(self)
    }

    /// Adds a certificate.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn add_der(mut self, der: &[u8]) -> Result<Self, ConfigError> {
        self.add(CertificateDer::from(der.to_vec()))?;
        Ok(self)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), ConfigError> {
        self.store.add(certificate).map_err(|e| ConfigError::Certificate(e.to_string()))
    }

    pub(crate) fn into_store(self) -> Result<RootCertStore, ConfigError> {
        if self.is_empty() { Err(ConfigError::NoRoots(String::new())) } else { Ok(self.store) }
    }
}

fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(|e| ConfigError::Certificate(e.to_string()))?;
    if certificates.is_empty() {
        return Err(ConfigError::Certificate("the text holds no certificate".to_owned()));
    }
    Ok(certificates)
}

/// The settings that both sides have.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) suites: Vec<Suite>,
    pub(crate) groups: Vec<Group>,
    pub(crate) key_log: Option<Arc<dyn rustls::KeyLog>>,
    pub(crate) early_data: bool,
}

impl Common {
    pub(crate) fn new() -> Self {
        Self {
            alpn: Vec::new(),
            suites: ALL_SUITES.to_vec(),
            groups: ALL_GROUPS.to_vec(),
            key_log: None,
            early_data: false,
        }
    }

    /// The rustls provider with only what was chosen.
    pub(crate) fn provider(&self) -> Result<Arc<CryptoProvider>, ConfigError> {
        if self.suites.is_empty() {
            return Err(ConfigError::NoSuite);
        }
        if self.groups.is_empty() {
            return Err(ConfigError::NoGroup);
        }
        Ok(Arc::new(CryptoProvider {
            cipher_suites: self.suites.iter().map(|s| lean(*s)).collect(),
            kx_groups: self.groups.iter().map(|g| rustls_group(*g)).collect(),
            ..provider::default_provider()
        }))
    }

    /// The application protocols, checked.
    pub(crate) fn protocols(&self) -> Result<Vec<Vec<u8>>, ConfigError> {
        //= rfc9000#7-2
        if self.alpn.is_empty() {
            return Err(ConfigError::NoProtocol);
        }
        match self.alpn.iter().find(|p| p.is_empty() || p.len() > 255) {
            Some(bad) => Err(ConfigError::ProtocolLength(bad.len())),
            None => Ok(self.alpn.clone()),
        }
    }

    pub(crate) fn user_key_log(&self) -> Arc<dyn rustls::KeyLog> {
        self.key_log.clone().unwrap_or_else(|| Arc::new(rustls::NoKeyLog))
    }
}

fn rustls_group(group: Group) -> &'static dyn SupportedKxGroup {
    use rustls::crypto::aws_lc_rs::kx_group as groups;
    match group {
        Group::X25519MlKem768 => groups::X25519MLKEM768,
        Group::X25519 => groups::X25519,
        Group::P256 => groups::SECP256R1,
    }
}

/// Our name of a suite; `None` for one that QUIC does not have.
pub(crate) fn suite_of(suite: SupportedCipherSuite) -> Option<Suite> {
    match suite.suite() {
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256 => Some(Suite::Aes128Gcm),
        rustls::CipherSuite::TLS13_AES_256_GCM_SHA384 => Some(Suite::Aes256Gcm),
        rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some(Suite::ChaCha20Poly1305),
        _ => None,
    }
}

/// Whether a provider can do what our packet protection can.
pub(crate) fn check_provider(provider: &CryptoProvider) -> Result<(), ConfigError> {
    let quic = |s: &&SupportedCipherSuite| s.tls13().is_some_and(|s| s.quic.is_some());
    if provider.cipher_suites.iter().filter(quic).count() == 0 {
        return Err(ConfigError::Unsuitable("it has no cipher suite for QUIC"));
    }
    if provider.cipher_suites.iter().filter(quic).any(|s| suite_of(*s).is_none()) {
        return Err(ConfigError::Unsuitable("it has a cipher suite that packet protection does not know"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_and_broken_inputs_are_refused() {
        let mut common = Common::new();
        assert_eq!(common.protocols().unwrap_err(), ConfigError::NoProtocol);
        common.alpn = vec![b"ok".to_vec(), vec![b'x'; 256]];
        assert_eq!(common.protocols().unwrap_err(), ConfigError::ProtocolLength(256));
        common.suites.clear();
        assert_eq!(common.provider().unwrap_err(), ConfigError::NoSuite);
        common.suites = ALL_SUITES.to_vec();
        common.groups.clear();
        assert_eq!(common.provider().unwrap_err(), ConfigError::NoGroup);
        assert!(matches!(Roots::empty().add_pem(b"nothing"), Err(ConfigError::Certificate(_))));
        assert!(matches!(Roots::empty().add_der(b"nothing"), Err(ConfigError::Certificate(_))));
        assert!(matches!(Roots::empty().into_store(), Err(ConfigError::NoRoots(_))));
        assert!(matches!(Credentials::from_pem(b"", b""), Err(ConfigError::Certificate(_))));
        assert!(matches!(Credentials::from_der(vec![], vec![]), Err(ConfigError::Certificate(_))));
        assert!(matches!(Credentials::from_der(vec![vec![1]], vec![2]), Err(ConfigError::PrivateKey(_))));
    }

    #[test]
    fn only_what_was_chosen_is_offered() {
        let mut common = Common::new();
        common.suites = vec![Suite::ChaCha20Poly1305];
        common.groups = vec![Group::X25519];
        let provider = common.provider().unwrap();
        let suites: Vec<_> = provider.cipher_suites.iter().map(|s| suite_of(*s)).collect();
        assert_eq!(suites, [Some(Suite::ChaCha20Poly1305)]);
        assert_eq!(provider.kx_groups.len(), 1);
        assert!(check_provider(&provider).is_ok());
        let none = CryptoProvider { cipher_suites: vec![], ..(*provider).clone() };
        assert!(check_provider(&none).is_err());
    }
}

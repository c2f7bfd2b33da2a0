//! Client configurations.

use std::sync::Arc;

use courser_core::crypto::{Alert, Suite, TlsClientConfig, TlsSession};
use courser_core::ids::Version;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use crate::alert::{self, UNRECOGNIZED_NAME};
use crate::session::{self, Session};
use crate::settings::{Common, ConfigError, Credentials, Group, Roots, check_provider};
use crate::store::{CertificateStore, Certificates};
use crate::tap::{SecretTap, catching};
use crate::tickets::{ClientTickets, Versions, speaking};

/// How many servers tickets are remembered for by default.
const REMEMBERED_SERVERS: usize = 256;

/// Starts client sessions. Clones share their tickets.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    inner: Arc<rustls::ClientConfig>,
}

impl ClientConfig {
    /// A builder. Roots (or [`danger_accept_any_certificate`](ClientBuilder::danger_accept_any_certificate)) and
    /// application protocols have to be given.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            common: Common::new(),
            trust: Trust::Nobody,
            certificates: None,
            unusable: None,
            remembered: REMEMBERED_SERVERS,
        }
    }

    /// Uses a configuration that was made with rustls. Its key log still gets every secret. Its tickets are used as they are:
    /// a client of both versions that resumes takes [`builder`](Self::builder), which keeps tickets of the versions apart.
    ///
    /// # Errors
    /// [`ConfigError::Unsuitable`] without TLS 1.3 or without a cipher suite for QUIC, [`ConfigError::NoProtocol`]
    /// without application protocols.
    pub fn from_rustls(config: &Arc<rustls::ClientConfig>) -> Result<Self, ConfigError> {
        check_provider(config.crypto_provider())?;
        if config.alpn_protocols.is_empty() {
            return Err(ConfigError::NoProtocol);
        }
        let mut inner = rustls::ClientConfig::clone(config);
        inner.key_log = SecretTap::around(inner.key_log);
        let made = Self { inner: Arc::new(inner) };
        // rustls tells only when it starts a session whether TLS 1.3 is enabled.
        let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        rustls::quic::ClientConnection::new(made.inner.clone(), rustls::quic::Version::V1, name, Vec::new())
            .map_err(|_| ConfigError::Unsuitable("it cannot start a QUIC session: TLS 1.3 is needed"))?;
        Ok(made)
    }
}

impl TlsClientConfig for ClientConfig {
    fn start(&self, version: Version, server_name: &str, params: &[u8]) -> Result<Box<dyn TlsSession>, Alert> {
        // Addresses of URLs have brackets around IPv6 addresses.
        let bare = server_name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(server_name);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| Alert {
            code: UNRECOGNIZED_NAME,
            reason: format!("{server_name:?} is neither a host name nor an IP address"),
        })?;
        let (rustls, versions) = (session::rustls_version(version), Versions::of(version));
        let make = || rustls::quic::ClientConnection::new(self.inner.clone(), rustls, name, params.to_vec());
        let (made, caught) = speaking(versions, || catching(make));
        let connection = made.map_err(|e| alert::from_error(&e, None))?;
        Ok(Box::new(Session::client(connection, caught, versions, bare)))
    }
}

/// Whom the client trusts.
#[derive(Clone, Debug)]
enum Trust {
    Nobody,
    Roots(Roots),
    Anybody,
}

/// Builds a [`ClientConfig`].
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    common: Common,
    trust: Trust,
    certificates: Option<CertificateStore>,
    /// A certificate that could not be used.
    unusable: Option<ConfigError>,
    remembered: usize,
}

impl ClientBuilder {
    /// Trusts these roots.
    #[must_use]
    pub fn roots(mut self, roots: Roots) -> Self {
        self.trust = Trust::Roots(roots);
        self
    }

    /// Trusts the roots of the platform.
    ///
    /// # Errors
    /// [`ConfigError::NoRoots`] when the platform has none.
    pub fn platform_roots(self) -> Result<Self, ConfigError> {
        Ok(self.roots(Roots::platform()?))
    }

    /// Accepts every certificate, of anybody, for any name. The connection is encrypted, but it is not known to whom;
    /// only that the peer holds the key of the certificate that it showed is still checked. For tests on one's own
    /// machines.
    #[must_use]
    pub fn danger_accept_any_certificate(mut self) -> Self {
        self.trust = Trust::Anybody;
        self
    }

    /// The application protocols (ALPN) to offer, most wanted first.
    #[must_use]
    pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.common.alpn = protocols.into_iter().map(|p| p.as_ref().to_vec()).collect();
        self
    }

    /// The cipher suites to offer, most wanted first; all of them by default.
    #[must_use]
    pub fn suites(mut self, suites: &[Suite]) -> Self {
        self.common.suites = suites.to_vec();
        self
    }

    /// The key exchange groups to offer; a share is sent for the first one. By default all, X25519MLKEM768 first.
    #[must_use]
    pub fn groups(mut self, groups: &[Group]) -> Self {
        self.common.groups = groups.to_vec();
        self
    }

    /// Shows this certificate to servers that ask for one.
    #[must_use]
    pub fn certificate(mut self, credentials: Credentials) -> Self {
        match CertificateStore::new(&Certificates::new(credentials)) {
            Ok(store) => (self.certificates, self.unusable) = (Some(store), None),
            Err(why) => self.unusable = Some(why),
        }
        self
    }

    /// Shows the default certificate of this store to servers that ask for one; it can be replaced meanwhile.
    #[must_use]
    pub fn certificates(mut self, store: &CertificateStore) -> Self {
        (self.certificates, self.unusable) = (Some(store.clone()), None);
        self
    }

    /// Tells every secret to this log, for decrypting captures.
    #[must_use]
    pub fn key_log(mut self, log: Arc<dyn rustls::KeyLog>) -> Self {
        self.common.key_log = Some(log);
        self
    }

    /// For how many servers tickets are remembered; 256 by default, 0 switches resumption off.
    #[must_use]
    pub fn remembered_servers(mut self, n: usize) -> Self {
        self.remembered = n;
        self
    }

    /// Sends 0-RTT data to servers whose ticket allows it. Off by default: such data can be replayed by an attacker, so
    /// the application has to know which of its data may be (RFC 9001 section 9.2).
    #[must_use]
    pub fn early_data(mut self, on: bool) -> Self {
        //= rfc9001#5.6-1
        self.common.early_data = on;
        self
    }

    /// The configuration.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn build(self) -> Result<ClientConfig, ConfigError> {
        let protocols = self.common.protocols()?;
        let provider = self.common.provider()?;
        let algorithms = provider.signature_verification_algorithms;
        //= rfc9001#4.2-1
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
        let builder = match self.trust {
            Trust::Nobody => return Err(ConfigError::NoRoots(String::new())),
            Trust::Roots(roots) => builder.with_root_certificates(roots.into_store()?),
            Trust::Anybody => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(algorithms)))
            }
        };
        let mut inner = match (self.certificates, self.unusable) {
            (_, Some(why)) => return Err(why),
            (None, None) => builder.with_no_client_auth(),
            (Some(store), None) => builder.with_client_cert_resolver(Arc::new(store)),
        };
        inner.alpn_protocols = protocols;
        inner.key_log = SecretTap::around(self.common.user_key_log());
        inner.enable_early_data = self.common.early_data;
        inner.resumption = match self.remembered {
            0 => Resumption::disabled(),
            n => Resumption::store(Arc::new(ClientTickets::new(n))),
        };
        Ok(ClientConfig { inner: Arc::new(inner) })
    }
}

/// Accepts every certificate whose key signed the handshake.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        //= rfc9001#4.2-2
        Err(rustls::PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

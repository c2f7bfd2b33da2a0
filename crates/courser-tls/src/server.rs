//! Server configurations.

use std::sync::Arc;

use courser_core::crypto::{Alert, Suite, TlsServerConfig, TlsSession};
use courser_core::ids::{Side, Version};
use courser_core::wire::params;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use crate::alert;
use crate::early::EarlyStore;
use crate::session::{self, Session};
use crate::settings::{Common, ConfigError, Credentials, Group, Roots, check_provider};
use crate::store::{CertificateStore, Certificates};
use crate::tap::{SecretTap, catching};
use crate::tickets::{Sessions, Ticketer, Versions};

/// How many tickets a client gets after a handshake.
const TICKETS: usize = 2;

/// How many sessions that allow 0-RTT are remembered by default.
const EARLY_SESSIONS: usize = 8192;

/// Starts server sessions. Clones share their ticket keys.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    inner: Arc<rustls::ServerConfig>,
}

impl ServerConfig {
    /// A builder. Credentials and application protocols have to be given.
    #[must_use]
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            common: Common::new(),
            certificates: None,
            clients: Clients::Anonymous,
            tickets: TICKETS,
            early_sessions: EARLY_SESSIONS,
        }
    }

    /// Uses a configuration that was made with rustls. Its key log still gets every secret.
    ///
    /// # Errors
    /// [`ConfigError::Unsuitable`] without TLS 1.3, without a cipher suite for QUIC, or with a limit of 0-RTT data,
    /// [`ConfigError::NoProtocol`] without application protocols.
    pub fn from_rustls(config: &Arc<rustls::ServerConfig>) -> Result<Self, ConfigError> {
        check_provider(config.crypto_provider())?;
        if config.alpn_protocols.is_empty() {
            return Err(ConfigError::NoProtocol);
        }
        //= rfc9001#4.6.1-1
        if !matches!(config.max_early_data_size, 0 | u32::MAX) {
            return Err(ConfigError::Unsuitable("max_early_data_size has to be 0 or u32::MAX"));
        }
        let mut inner = rustls::ServerConfig::clone(config);
        inner.key_log = SecretTap::around(inner.key_log);
        inner.ticketer = Arc::new(Ticketer(inner.ticketer));
        inner.session_storage = Arc::new(Sessions(inner.session_storage));
        let made = Self { inner: Arc::new(inner) };
        // rustls tells only when it starts a session whether TLS 1.3 is enabled.
        rustls::quic::ServerConnection::new(made.inner.clone(), rustls::quic::Version::V1, Vec::new())
            .map_err(|_| ConfigError::Unsuitable("it cannot start a QUIC session: TLS 1.3 is needed"))?;
        Ok(made)
    }
}

impl TlsServerConfig for ServerConfig {
    fn start(&self, version: Version, params: &[u8]) -> Result<Box<dyn TlsSession>, Alert> {
        let versions = Versions::of(version);
        let version = session::rustls_version(version);
        let (made, caught) =
            catching(|| rustls::quic::ServerConnection::new(self.inner.clone(), version, params.to_vec()));
        let connection = made.map_err(|e| alert::from_error(&e, None))?;
        let early = self.inner.max_early_data_size > 0;
        let allowed = early.then(|| Box::new(params::decode(params, Side::Server).unwrap_or_default()));
        Ok(Box::new(Session::server(connection, caught, versions, allowed)))
    }
}

/// What clients have to show.
#[derive(Clone, Debug)]
enum Clients {
    Anonymous,
    MayShow(Roots),
    MustShow(Roots),
}

/// What clients are shown.
#[derive(Clone, Debug)]
enum Shown {
    One(Credentials),
    Store(CertificateStore),
}

/// Builds a [`ServerConfig`].
#[derive(Clone, Debug)]
pub struct ServerBuilder {
    common: Common,
    certificates: Option<Shown>,
    clients: Clients,
    tickets: usize,
    early_sessions: usize,
}

impl ServerBuilder {
    /// The certificate that is shown to every client.
    #[must_use]
    pub fn certificate(mut self, credentials: Credentials) -> Self {
        self.certificates = Some(Shown::One(credentials));
        self
    }

    /// The certificates of this store, by the name that the client asks for; they can be replaced while the server runs.
    #[must_use]
    pub fn certificates(mut self, store: &CertificateStore) -> Self {
        self.certificates = Some(Shown::Store(store.clone()));
        self
    }

    /// The application protocols (ALPN) to accept, most wanted first.
    #[must_use]
    pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.common.alpn = protocols.into_iter().map(|p| p.as_ref().to_vec()).collect();
        self
    }

    /// The cipher suites to accept; all of them by default. The client's order decides.
    #[must_use]
    pub fn suites(mut self, suites: &[Suite]) -> Self {
        self.common.suites = suites.to_vec();
        self
    }

    /// The key exchange groups to accept; all of them by default.
    #[must_use]
    pub fn groups(mut self, groups: &[Group]) -> Self {
        self.common.groups = groups.to_vec();
        self
    }

    /// Clients must show a certificate that was issued by one of these roots.
    #[must_use]
    pub fn require_client_certificates(mut self, roots: Roots) -> Self {
        self.clients = Clients::MustShow(roots);
        self
    }

    /// Clients are asked for a certificate; one that they show must have been issued by one of these roots.
    #[must_use]
    pub fn request_client_certificates(mut self, roots: Roots) -> Self {
        self.clients = Clients::MayShow(roots);
        self
    }

    /// Tells every secret to this log, for decrypting captures.
    #[must_use]
    pub fn key_log(mut self, log: Arc<dyn rustls::KeyLog>) -> Self {
        self.common.key_log = Some(log);
        self
    }

    /// How many tickets a client gets; 2 by default, 0 switches resumption off.
    #[must_use]
    pub fn tickets(mut self, n: usize) -> Self {
        self.tickets = n;
        self
    }

    /// Accepts 0-RTT data. Off by default: such data can be replayed by an attacker. Sessions are then remembered here,
    /// and each may be resumed once, so that its 0-RTT data is taken at most once by this configuration.
    #[must_use]
    pub fn early_data(mut self, on: bool) -> Self {
        self.common.early_data = on;
        self
    }

    /// How many sessions are remembered when 0-RTT is on; 8192 by default. The oldest ones are forgotten.
    #[must_use]
    pub fn early_sessions(mut self, n: usize) -> Self {
        self.early_sessions = n;
        self
    }

    /// The configuration.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn build(self) -> Result<ServerConfig, ConfigError> {
        let protocols = self.common.protocols()?;
        let provider = self.common.provider()?;
        let store = match self.certificates.ok_or(ConfigError::NoCredentials)? {
            Shown::One(credentials) => CertificateStore::new(&Certificates::new(credentials))?,
            Shown::Store(store) => store,
        };
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let verifier = |roots: Roots| -> Result<_, ConfigError> {
            Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots.into_store()?), provider))
        };
        let refused = |e: rustls::server::VerifierBuilderError| ConfigError::Refused(e.to_string());
        let builder = match self.clients {
            Clients::Anonymous => builder.with_no_client_auth(),
            Clients::MustShow(roots) => builder.with_client_cert_verifier(verifier(roots)?.build().map_err(refused)?),
            Clients::MayShow(roots) => {
                let verifier = verifier(roots)?.allow_unauthenticated().build().map_err(refused)?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut inner = builder.with_cert_resolver(Arc::new(store));
        inner.alpn_protocols = protocols;
        inner.key_log = SecretTap::around(self.common.user_key_log());
        inner.send_tls13_tickets = self.tickets;
        inner.session_storage = Arc::new(NoServerSessionStorage {});
        if self.common.early_data {
            //= rfc9001#4.6.1-1
            inner.max_early_data_size = u32::MAX;
            inner.session_storage = Arc::new(Sessions(Arc::new(EarlyStore::new(self.early_sessions))));
        } else if self.tickets > 0 {
            inner.ticketer = Arc::new(Ticketer(rustls::crypto::aws_lc_rs::Ticketer::new()?));
        }
        Ok(ServerConfig { inner: Arc::new(inner) })
    }
}

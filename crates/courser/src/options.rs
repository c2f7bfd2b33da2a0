//! What endpoints are made with; both faces share these.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use courser_core::config::Settings;
use courser_core::engine::RetryPolicy;
use courser_tls as tls;

/// For endpoints that make connections, and for single connections that differ from the endpoint's others.
///
/// Trust is part of the TLS configuration: [`tls::ClientBuilder::platform_roots`], [`tls::ClientBuilder::roots`], or the
/// explicitly named [`tls::ClientBuilder::danger_accept_any_certificate`]; [`tls::ClientConfig::from_rustls`] takes one's
/// own rustls configuration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Trust, application protocols, certificates.
    pub tls: tls::ClientConfig,
    /// Transport settings.
    pub settings: Settings,
    /// Where to bind the socket; `None`: any port, both address families where the system can.
    pub local: Option<SocketAddr>,
    /// How long a name may take to resolve.
    pub resolve_timeout: Duration,
    /// After this time without an answer the next address is tried too (RFC 8305 section 5).
    pub attempt_delay: Duration,
    /// How long a connection whose handles are all dropped goes on for the sake of finished streams that the peer does not
    /// have yet.
    pub linger: Duration,
}

impl ClientOptions {
    /// Defaults with this TLS configuration.
    #[must_use]
    pub fn new(tls: tls::ClientConfig) -> Self {
        Self {
            tls,
            settings: Settings::default(),
            local: None,
            resolve_timeout: Duration::from_secs(10),
            attempt_delay: crate::net::resolve::ATTEMPT_DELAY,
            linger: LINGER,
        }
    }

    /// The same with these settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The same, bound to this address.
    #[must_use]
    pub const fn bind(mut self, local: SocketAddr) -> Self {
        self.local = Some(local);
        self
    }

    /// Where to try to bind, best first.
    pub(crate) fn bind_candidates(&self) -> Vec<SocketAddr> {
        match self.local {
            Some(local) => vec![local],
            None => vec![(Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::UNSPECIFIED, 0).into()],
        }
    }
}

/// How long connections without handles go on by default.
const LINGER: Duration = Duration::from_secs(10);

/// For endpoints that take connections.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Certificates and application protocols.
    pub tls: tls::ServerConfig,
    /// Transport settings, unless a connection is accepted with others.
    pub settings: Settings,
    /// When clients have to prove their address before the application hears of them.
    pub retry: RetryPolicy,
    /// Handshakes under way at once, waiting for a decision included; further ones are dropped.
    pub handshakes_max: usize,
    /// As in [`ClientOptions::linger`].
    pub linger: Duration,
    /// For connections that this endpoint makes itself; `None`: it makes none.
    pub client: Option<ClientOptions>,
}

impl ServerOptions {
    /// Defaults with this TLS configuration.
    #[must_use]
    pub fn new(tls: tls::ServerConfig) -> Self {
        Self {
            tls,
            settings: Settings::default(),
            retry: RetryPolicy::Never,
            handshakes_max: 10_000,
            linger: LINGER,
            client: None,
        }
    }

    /// The same with these settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The same with this policy of asking for a proof of address.
    #[must_use]
    pub const fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }
}

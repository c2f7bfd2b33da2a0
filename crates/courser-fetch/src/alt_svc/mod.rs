//! Alternative services (RFC 7838): what servers say about where else they answer, and how long that is to be believed.
//!
//! Only `h3` counts here: what else a server offers, TLS finds out by itself.

pub mod cache;
pub mod parse;

use serde::{Deserialize, Serialize};

/// A scheme-less origin: everything here is `https`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The host, in lower case; IPv6 addresses with their brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Origin {
    /// Of a URL that has both.
    #[must_use]
    pub fn of(url: &url::Url) -> Option<Self> {
        Some(Self { host: url.host_str()?.to_ascii_lowercase(), port: url.port_or_known_default()? })
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// This machine's address towards the world: tells one network from another. Nothing is sent.
#[must_use]
pub fn network() -> Option<std::net::IpAddr> {
    // Addresses for documentation: nobody has them, but routes lead there.
    let towards = |local: &str, remote: &str| {
        let socket = std::net::UdpSocket::bind(local).ok()?;
        socket.connect(remote).ok()?;
        socket.local_addr().ok().map(|a| a.ip())
    };
    towards("0.0.0.0:0", "192.0.2.1:443").or_else(|| towards("[::]:0", "[2001:db8::1]:443"))
}

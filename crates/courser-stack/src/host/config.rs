//! What a host permits.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use courser_session::control::Protocol;
use courser_session::port::{PortSetup, SharedSetup};

/// What a host permits to whom. The defaults suit a machine whose users trust the service, not each other.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Whether sessions are served from the start; otherwise `session enable` has to be said first.
    pub enabled: bool,
    /// Applications at once.
    pub applications_max: usize,
    /// Applications of one user at once.
    pub per_user_max: usize,
    /// What each application gets at most.
    pub quota: Quota,
    /// Rings and credits of applications inside the process.
    pub port: PortSetup,
    /// The same of those outside.
    pub shared: SharedSetup,
    /// Where users may listen. A user whom no rule names may listen anywhere.
    pub rules: Vec<Rule>,
    /// Where connections are traced from the start (`trace on` and `trace off` change it).
    pub trace: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            applications_max: 1024,
            per_user_max: 256,
            quota: Quota::default(),
            port: PortSetup::default(),
            shared: SharedSetup::default(),
            rules: Vec::new(),
            trace: None,
        }
    }
}

/// What one application gets at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// Endpoints: each has a socket and a thread for each of its workers.
    pub endpoints: u32,
    /// Workers of all its endpoints together.
    pub workers: u32,
    /// Sessions at each worker.
    pub sessions: u32,
    /// Bytes of shared memory.
    pub memory: u64,
    /// Certificates with their keys.
    pub certificates: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self { endpoints: 64, workers: 64, sessions: 65_536, memory: 256 << 20, certificates: 64 }
    }
}

/// Where one user may listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The user's number.
    pub user: u32,
    /// At any of these.
    pub places: Vec<Place>,
}

/// An address, or several, of a protocol: `quic://0.0.0.0:4433`, `tcp://[::1]:*`, `udp://*:53`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    protocol: Protocol,
    ip: Option<IpAddr>,
    port: Option<u16>,
}

impl Place {
    /// Whether that address is one of them.
    #[must_use]
    pub fn has(&self, protocol: Protocol, address: SocketAddr) -> bool {
        self.protocol == protocol
            && self.ip.is_none_or(|ip| ip == address.ip())
            && self.port.is_none_or(|port| port == address.port())
    }
}

/// The text is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPlace;

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a place; write it like quic://0.0.0.0:4433, tcp://[::1]:* or udp://*:53")
    }
}

impl std::error::Error for NoPlace {}

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let (scheme, rest) = text.split_once("://").ok_or(NoPlace)?;
        let protocol = match scheme {
            "quic" => Protocol::Quic,
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(NoPlace),
        };
        let (ip, port) = rest.rsplit_once(':').ok_or(NoPlace)?;
        let ip = match ip {
            "*" => None,
            ip => {
                let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
                Some(bare.unwrap_or(ip).parse().map_err(|_| NoPlace)?)
            }
        };
        let port = if port == "*" { None } else { Some(port.parse().map_err(|_| NoPlace)?) };
        Ok(Self { protocol, ip, port })
    }
}

/// Whether that user may listen there.
#[must_use]
pub fn may_listen(rules: &[Rule], user: Option<u32>, protocol: Protocol, address: SocketAddr) -> bool {
    // The process itself needs no permission.
    let Some(user) = user else { return true };
    let mut own = rules.iter().filter(|rule| rule.user == user).peekable();
    own.peek().is_none() || own.any(|rule| rule.places.iter().any(|place| place.has(protocol, address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_match() {
        let place = |text: &str| text.parse::<Place>();
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(place("quic://0.0.0.0:4433").unwrap().has(Protocol::Quic, at("0.0.0.0:4433")));
        assert!(!place("quic://0.0.0.0:4433").unwrap().has(Protocol::Tcp, at("0.0.0.0:4433")));
        assert!(place("tcp://[::1]:*").unwrap().has(Protocol::Tcp, at("[::1]:9")));
        assert!(place("udp://*:53").unwrap().has(Protocol::Udp, at("10.0.0.1:53")));
        assert!(!place("udp://*:53").unwrap().has(Protocol::Udp, at("10.0.0.1:54")));
        for bad in ["", "quic", "http://*:1", "quic://*", "quic://*:x", "quic://host:1", "tcp://:1"] {
            assert_eq!(place(bad), Err(NoPlace), "{bad}");
        }
    }

    #[test]
    fn a_user_with_rules_listens_there_and_nowhere_else() {
        let rules = [Rule { user: 7, places: vec!["quic://*:4433".parse().unwrap()] }];
        let at = "127.0.0.1:4433".parse().unwrap();
        let elsewhere = "127.0.0.1:4434".parse().unwrap();
        assert!(may_listen(&rules, Some(7), Protocol::Quic, at));
        assert!(!may_listen(&rules, Some(7), Protocol::Quic, elsewhere));
        assert!(!may_listen(&rules, Some(7), Protocol::Tcp, at));
        assert!(may_listen(&rules, Some(8), Protocol::Tcp, elsewhere), "nothing is said of user 8");
        assert!(may_listen(&rules, None, Protocol::Tcp, elsewhere), "the process itself");
    }
}

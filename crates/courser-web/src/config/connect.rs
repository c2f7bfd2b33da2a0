//! Where CONNECT may lead: `[connect]`.

use std::net::IpAddr;
use std::time::Duration;

use http::uri::Authority;
use serde::Deserialize;

use crate::error::Mistake;
use crate::units;

/// Tunnels to other servers. Without a place CONNECT is refused.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Connect {
    /// Where tunnels may lead: `HOST:PORT`, `*.DOMAIN:PORT`.
    pub allow: Vec<String>,
    /// Tunnels at once.
    pub tunnels: usize,
    /// How long a connection may take to be made.
    #[serde(deserialize_with = "units::read_duration")]
    pub connect_timeout: Duration,
    /// How long nothing may go either way.
    #[serde(deserialize_with = "units::read_duration")]
    pub idle_timeout: Duration,
}

impl Default for Connect {
    fn default() -> Self {
        let (connect_timeout, idle_timeout) = (Duration::from_secs(5), Duration::from_secs(600));
        Self { allow: Vec::new(), tunnels: 256, connect_timeout, idle_timeout }
    }
}

/// A host, or all hosts of a domain, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
    /// What follows the asterisk, with its dot.
    Below(String),
}

impl Connect {
    /// The places, read.
    ///
    /// # Errors
    /// One that is none.
    pub fn places(&self) -> Result<Vec<Place>, Mistake> {
        let read = |text: &String| {
            let wrong = || Mistake::new(format!("`{text}` is no place for CONNECT; write it like db.example:5432"));
            let (below, rest) = text.strip_prefix('*').map_or((false, text.as_str()), |rest| (true, rest));
            // A name that begins with a dot is none by itself.
            let rest = if below { rest.strip_prefix('.').ok_or_else(wrong)? } else { rest };
            let (host, port) = target(&rest.parse().map_err(|_| wrong())?).ok_or_else(wrong)?;
            let plain = |name: &str| !name.contains(['*', '@', '/', ' ']);
            let host = match (below, host) {
                (false, Host::Name(name)) if plain(&name) => Host::Name(name),
                (true, Host::Name(name)) if plain(&name) => Host::Below(format!(".{name}")),
                (false, Host::Address(address)) => Host::Address(address),
                _ => return Err(wrong()),
            };
            Ok(Place { host, port })
        };
        self.allow.iter().map(read).collect()
    }
}

/// Host and port of an authority that has both, and no user.
fn target(authority: &Authority) -> Option<(Host, u16)> {
    let port = authority.port_u16().filter(|port| *port != 0)?;
    if authority.as_str().contains('@') {
        return None;
    }
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some((Host::Address(address.to_canonical()), port));
    }
    let name = bare.trim_end_matches('.').to_ascii_lowercase();
    (!name.is_empty() && bare == host).then_some((Host::Name(name), port))
}

impl Place {
    /// The place that a request names.
    #[must_use]
    pub fn of(authority: &Authority) -> Option<Self> {
        target(authority).map(|(host, port)| Self { host, port })
    }

    /// Whether a tunnel that is permitted to lead here may lead there.
    #[must_use]
    pub fn covers(&self, asked: &Self) -> bool {
        let host = match (&self.host, &asked.host) {
            (Host::Below(domain), Host::Name(name)) => {
                name.strip_suffix(domain.as_str()).is_some_and(|n| !n.is_empty())
            }
            (own, asked) => own == asked,
        };
        host && self.port == asked.port
    }

    /// Host and port as the system takes them.
    #[must_use]
    pub fn host_and_port(&self) -> (String, u16) {
        let host = match &self.host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) | Host::Below(name) => name.clone(),
        };
        (host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::of(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_list_covers_what_it_names_and_nothing_else() {
        let allow = ["Db.example:5432", "*.example.org:443", "[::1]:22", "192.0.2.1:80"].map(str::to_owned).to_vec();
        let places = Connect { allow, ..Connect::default() }.places().unwrap();
        let covered = |text: &str| places.iter().any(|p| p.covers(&place(text)));
        for yes in ["db.example:5432", "DB.example.:5432", "a.example.org:443", "a.b.example.org:443", "[::1]:22"] {
            assert!(covered(yes), "{yes}");
        }
        assert!(covered("[0:0::1]:22") && covered("[::ffff:192.0.2.1]:80"), "an address in another form");
        for no in
            ["db.example:5433", "x.db.example:5432", "example.org:443", "aexample.org:443", "[::2]:22", "[::1]:23"]
        {
            assert!(!covered(no), "{no}");
        }
    }

    #[test]
    fn what_is_no_place_is_told() {
        for bad in
            ["", "h", "h:", "h:0", "h:x", "h:70000", "u@h:1", "*:1", "*.:1", "*.*.h:1", "*.1.2.3.4:1", "h:1/p", "*h:1"]
        {
            let connect = Connect { allow: vec![bad.into()], ..Connect::default() };
            assert!(connect.places().unwrap_err().what.contains("no place for CONNECT"), "{bad}");
        }
        for bad in ["h", "u@h:1", "h:0", "[x]:1"] {
            assert_eq!(bad.parse().ok().as_ref().and_then(Place::of), None, "{bad}");
        }
    }
}

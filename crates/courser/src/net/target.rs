//! Addresses as people write them.
//!
//! [`Target`] is a host and a port, and optionally a path. It is read from `HOST:PORT`, `quic://HOST:PORT` and
//! `quic://HOST/PORT` (the form of session layers, where the port is a path element). IPv6 addresses stand in brackets.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

/// Longest host name of the domain name system in text form, in bytes.
const NAME_LEN_MAX: usize = 253;

/// Longest label of a host name, in bytes.
const LABEL_LEN_MAX: usize = 63;

/// Whom to talk to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name that has to be resolved; in lower case, without a final dot.
    Name(String),
    /// An address.
    V4(Ipv4Addr),
    /// An address with its zone (an interface's number; 0 for none).
    V6(Ipv6Addr, u32),
}

impl Host {
    /// The name to check a certificate against: without brackets and zone.
    #[must_use]
    pub fn server_name(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::V4(ip) => ip.to_string(),
            Self::V6(ip, _) => ip.to_string(),
        }
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port; never 0.
    pub port: u16,
}

impl Target {
    /// The address, when the host is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.host {
            Host::Name(_) => None,
            Host::V4(ip) => Some(SocketAddr::new((*ip).into(), self.port)),
            Host::V6(ip, zone) => Some(SocketAddrV6::new(*ip, self.port, 0, *zone).into()),
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        let host = match addr {
            SocketAddr::V4(v4) => Host::V4(*v4.ip()),
            SocketAddr::V6(v6) => Host::V6(*v6.ip(), v6.scope_id()),
        };
        Self { host, port: addr.port() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::V4(ip) => write!(f, "{ip}:{}", self.port),
            Host::V6(ip, 0) => write!(f, "[{ip}]:{}", self.port),
            Host::V6(ip, zone) => write!(f, "[{ip}%{zone}]:{}", self.port),
        }
    }
}

/// What is wrong with an address in text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadTarget {
    /// A scheme other than `quic`.
    Scheme,
    /// No host.
    NoHost,
    /// The host is neither a name nor an address.
    Host,
    /// An IPv6 address without brackets.
    Brackets,
    /// No port.
    NoPort,
    /// The port is not a number from 1 to 65535.
    Port,
    /// Something after the port, or a part that such an address does not have.
    Extra,
}

impl fmt::Display for BadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "the scheme must be quic://",
            Self::NoHost => "the host is missing; write HOST:PORT",
            Self::Host => "the host must be a name of letters, digits, hyphens and dots, or an IP address",
            Self::Brackets => "an IPv6 address stands in brackets, as in [::1]:4433",
            Self::NoPort => "the port is missing; write HOST:PORT",
            Self::Port => "the port must be a number from 1 to 65535",
            Self::Extra => "only HOST:PORT, quic://HOST:PORT and quic://HOST/PORT are understood",
        })
    }
}

impl std::error::Error for BadTarget {}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let (is_uri, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("quic") => (true, rest),
            Some(_) => return Err(BadTarget::Scheme),
            None => (false, text),
        };
        let (host, tail) = split_host(rest)?;
        let port = match tail.as_bytes().first() {
            None => return Err(BadTarget::NoPort),
            Some(b':') => {
                let port = &tail[1..];
                // The root path says nothing more than no path.
                if is_uri { port.strip_suffix('/').unwrap_or(port) } else { port }
            }
            Some(b'/') if is_uri => &tail[1..],
            Some(_) => return Err(BadTarget::Extra),
        };
        Ok(Self { host, port: parse_port(port)? })
    }
}

/// Cuts the host off; what is left begins with its separator.
fn split_host(text: &str) -> Result<(Host, &str), BadTarget> {
    if let Some(inner) = text.strip_prefix('[') {
        let (literal, tail) = inner.split_once(']').ok_or(BadTarget::Brackets)?;
        return Ok((parse_v6(literal)?, tail));
    }
    let end = text.find([':', '/']).unwrap_or(text.len());
    let (host, tail) = text.split_at(end);
    if host.is_empty() {
        let is_v6 = text.parse::<Ipv6Addr>().is_ok();
        return Err(if is_v6 { BadTarget::Brackets } else { BadTarget::NoHost });
    }
    if tail.matches(':').count() > 1 {
        return Err(BadTarget::Brackets);
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok((Host::V4(ip), tail));
    }
    Ok((parse_name(host)?, tail))
}

/// An IPv6 address with an optional numeric zone after `%` (or `%25`, as URIs spell it).
fn parse_v6(literal: &str) -> Result<Host, BadTarget> {
    let (ip, zone) = match literal.split_once('%') {
        Some((ip, zone)) => {
            let zone = zone.strip_prefix("25").filter(|z| !z.is_empty()).unwrap_or(zone);
            (ip, zone.parse().map_err(|_| BadTarget::Host)?)
        }
        None => (literal, 0),
    };
    Ok(Host::V6(ip.parse().map_err(|_| BadTarget::Host)?, zone))
}

/// A host name. Names outside ASCII have to be given in their ASCII form (`xn--…`).
fn parse_name(name: &str) -> Result<Host, BadTarget> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label_is_good = |label: &str| {
        (1..=LABEL_LEN_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A last label of digits alone would be read as an odd form of an IPv4 address by some resolvers.
    let last_is_number =
        name.rsplit('.').next().is_some_and(|last| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()));
    if name.len() > NAME_LEN_MAX || !name.split('.').all(label_is_good) || last_is_number {
        return Err(BadTarget::Host);
    }
    Ok(Host::Name(name.to_ascii_lowercase()))
}

/// A port from 1 to 65535 in decimal.
fn parse_port(text: &str) -> Result<u16, BadTarget> {
    if text.is_empty() {
        return Err(BadTarget::NoPort);
    }
    if let Some(end) = text.find(['/', '?', '#']) {
        return Err(if parse_port(&text[..end]).is_ok() { BadTarget::Extra } else { BadTarget::Port });
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadTarget::Port);
    }
    text.parse().ok().filter(|p| *p != 0).ok_or(BadTarget::Port)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<String, BadTarget> {
        text.parse::<Target>().map(|t| t.to_string())
    }

    #[test]
    fn every_form_of_an_address_is_understood() {
        for (text, expected) in [
            ("localhost:4433", "localhost:4433"),
            ("Example.COM.:443", "example.com:443"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:65535", "[::1]:65535"),
            ("[fe80::1%3]:443", "[fe80::1%3]:443"),
            ("quic://[fe80::1%253]:443", "[fe80::1%3]:443"),
            ("quic://example.org:4433", "example.org:4433"),
            ("QUIC://example.org:4433/", "example.org:4433"),
            ("quic://10.0.0.1/1234", "10.0.0.1:1234"),
            ("quic://[2001:db8::7]/9", "[2001:db8::7]:9"),
            ("my_host-1:80", "my_host-1:80"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn every_fault_is_named() {
        for (text, expected) in [
            ("", BadTarget::NoHost),
            (":4433", BadTarget::NoHost),
            ("http://a:1", BadTarget::Scheme),
            ("a", BadTarget::NoPort),
            ("a:", BadTarget::NoPort),
            ("a:0", BadTarget::Port),
            ("a:65536", BadTarget::Port),
            ("a:+1", BadTarget::Port),
            ("a:x", BadTarget::Port),
            ("a/4433", BadTarget::Extra),
            ("quic://a/4433/x", BadTarget::Extra),
            ("quic://a:4433?x", BadTarget::Extra),
            ("::1:4433", BadTarget::Brackets),
            ("2001:db8::1", BadTarget::Brackets),
            ("[::1:4433", BadTarget::Brackets),
            ("[::1]4433", BadTarget::Extra),
            ("[nonsense]:1", BadTarget::Host),
            ("[fe80::1%eth0]:1", BadTarget::Host),
            ("user@host:1", BadTarget::Host),
            ("a b:1", BadTarget::Host),
            ("bücher.example:1", BadTarget::Host),
            ("-a:1", BadTarget::Host),
            ("a..b:1", BadTarget::Host),
            ("1.2.3:1", BadTarget::Host),
            ("1.2.3.256:1", BadTarget::Host),
        ] {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
        assert_eq!(parse(&format!("{}:1", "a".repeat(64))), Err(BadTarget::Host));
        assert_eq!(parse(&format!("{}a:1", "a.".repeat(127))), Err(BadTarget::Host));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_text_is_refused_or_reads_back_the_same(text in "\\PC{0,40}") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
            }
        }

        #[test]
        fn addresses_read_back_the_same(ip in any::<IpAddr>(), port in 1u16..) {
            let target = Target::from(SocketAddr::new(ip, port));
            prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target.clone()));
            prop_assert_eq!(target.address(), Some(SocketAddr::new(ip, port)));
        }
    }
}

//! Addresses as programs write them: `quic://host:port`, and `quic://host/port` as the seed has it.

use std::net::{IpAddr, SocketAddr};

use super::{Error, Resolve};
use crate::control::Protocol;

/// Characters of the longest address: a name of 253, and the rest.
const URI_MAX: usize = 300;

/// Where to connect to or to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) protocol: Protocol,
    /// A name or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

fn wrong(uri: &str, what: &str) -> Error {
    let shown: String = uri.chars().take(URI_MAX).flat_map(char::escape_default).collect();
    Error::Address(format!("\"{shown}\" is no address: {what}; write quic://HOST:PORT, for example quic://[::1]:4433"))
}

impl Target {
    /// Reads an address.
    pub(super) fn parse(uri: &str) -> Result<Self, Error> {
        if uri.len() > URI_MAX {
            return Err(wrong(uri, "it is too long"));
        }
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| wrong(uri, "there is no :// in it"))?;
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.name().eq_ignore_ascii_case(scheme));
        let protocol = protocol.ok_or_else(|| wrong(uri, "it begins with neither quic, tcp nor udp"))?;
        let (host, port) = Self::split(rest).ok_or_else(|| wrong(uri, "the port is missing"))?;
        let plain = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port =
            port.parse().ok().filter(|_| plain).ok_or_else(|| wrong(uri, "the port is no number up to 65535"))?;
        let bare = match host.strip_prefix('[') {
            Some(inner) => match inner.strip_suffix(']') {
                Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
                _ => return Err(wrong(uri, "what is in brackets is no IPv6 address")),
            },
            None => host,
        };
        let is_name = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if bare.is_empty() || !(bare.parse::<IpAddr>().is_ok() || is_name(bare)) {
            return Err(wrong(uri, "the host is neither a name nor an address"));
        }
        Ok(Self { protocol, host: bare.to_owned(), port })
    }

    /// Host and port, which stand behind a colon or a slash.
    fn split(rest: &str) -> Option<(&str, &str)> {
        if rest.starts_with('[') {
            let (host, port) = rest.split_at(rest.find(']')? + 1);
            return Some((host, port.strip_prefix([':', '/'])?));
        }
        if let Some((host, port)) = rest.split_once('/') {
            // `quic://host:port/` is the first form with an empty path.
            return if port.is_empty() { host.rsplit_once(':') } else { Some((host, port)) };
        }
        rest.rsplit_once(':')
    }

    /// The address, if it is one and no name.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.parse().ok()?, self.port))
    }

    /// The address to listen at. Of a name with several the first IPv4 address is taken: whoever connects by a name tries all.
    pub(super) fn resolve(&self, resolver: &dyn Resolve) -> Result<SocketAddr, Error> {
        if let Some(address) = self.address() {
            return Ok(address);
        }
        let all = resolver.resolve(&self.host).map_err(|error| Error::Address(format!("{}: {error}", self.host)))?;
        let first = all.iter().find(|ip| ip.is_ipv4()).or(all.first());
        let first = first.ok_or_else(|| Error::Address(format!("{}: the name has no address", self.host)))?;
        Ok(SocketAddr::new(*first, self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_address_are_understood_for_names_and_for_addresses() {
        for (uri, protocol, host, port) in [
            ("quic://example.org:4433", Protocol::Quic, "example.org", 4433),
            ("quic://1.1.1.1/1234", Protocol::Quic, "1.1.1.1", 1234),
            ("QUIC://localhost/1", Protocol::Quic, "localhost", 1),
            ("tcp://[::1]:80", Protocol::Tcp, "::1", 80),
            ("udp://[::1]/80", Protocol::Udp, "::1", 80),
            ("quic://::1/80", Protocol::Quic, "::1", 80),
            ("tcp://127.0.0.1:0", Protocol::Tcp, "127.0.0.1", 0),
            ("quic://a-b.c_d:65535/", Protocol::Quic, "a-b.c_d", 65535),
        ] {
            assert_eq!(Target::parse(uri), Ok(Target { protocol, host: host.into(), port }), "{uri}");
        }
        assert_eq!(Target::parse("quic://[::1]:7").unwrap().address(), "[::1]:7".parse().ok());
    }

    #[test]
    fn what_is_no_address_is_told_with_the_remedy() {
        for (uri, why) in [
            ("", "no :// in it"),
            ("1.1.1.1:80", "no :// in it"),
            ("http://a:80", "neither quic, tcp nor udp"),
            ("quic://a", "port is missing"),
            ("quic://a:", "no number up to 65535"),
            ("quic://a:65536", "no number up to 65535"),
            ("quic://a:+1", "no number up to 65535"),
            ("quic://:80", "neither a name nor an address"),
            ("quic://a b:80", "neither a name nor an address"),
            ("quic://[::g]:80", "no IPv6 address"),
            ("quic://[::1:80", "port is missing"),
            ("quic://a\u{7}:80", "\\u{7}"),
        ] {
            let text = Target::parse(uri).unwrap_err().to_string();
            assert!(text.contains(why) && text.contains("quic://HOST:PORT"), "{uri}: {text}");
        }
        let text = Target::parse(&format!("quic://{}:80", "a".repeat(URI_MAX))).unwrap_err().to_string();
        assert!(text.contains("too long") && text.len() < 2 * URI_MAX);
    }
}

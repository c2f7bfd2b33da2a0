//! Addresses on the command line. They are read after the flags, so that a wrong one is told as a wrong address (exit
//! code 3) and not as wrong usage.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use courser::net::resolve;
use courser::net::target::{BadTarget, Host, Target};

use crate::failure::{Failure, Outcome};

/// How long a name server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads `HOST:PORT`, `quic://HOST:PORT` or `quic://HOST/PORT`.
///
/// # Errors
/// [`Failure::BadAddress`].
pub fn target(text: &str) -> Outcome<Target> {
    text.parse().map_err(|e: BadTarget| Failure::BadAddress { text: text.to_owned(), why: e.to_string() })
}

/// The same, where the port may be left out.
///
/// # Errors
/// [`Failure::BadAddress`].
pub fn target_or_port(text: &str, port: u16) -> Outcome<Target> {
    match text.parse::<Target>() {
        Err(BadTarget::NoPort) => target(&format!("{}:{port}", text.trim_end_matches([':', '/']))),
        Err(BadTarget::Brackets) if text.parse::<IpAddr>().is_ok() => target(&format!("[{text}]:{port}")),
        _ => target(text),
    }
}

/// All addresses of a target, in the order in which to try them.
///
/// # Errors
/// [`Failure::NameNotFound`].
pub fn resolve_all(target: &Target) -> Outcome<Vec<SocketAddr>> {
    resolve::resolve(target, PATIENCE).map_err(|e| {
        let host = match &target.host {
            Host::Name(name) => name.clone(),
            other => other.server_name(),
        };
        Failure::NameNotFound { host, why: e.to_string() }
    })
}

/// Where a server listens. Unlike a client's target, the port may be 0: the system chooses one.
///
/// # Errors
/// Text that is no address, or a name without one.
pub fn listen(text: &str) -> Outcome<SocketAddr> {
    let literal = text.strip_prefix("quic://").unwrap_or(text).trim_end_matches('/');
    if let Ok(addr) = literal.parse() {
        return Ok(addr);
    }
    let found = resolve_all(&target(text)?)?;
    found.first().copied().ok_or_else(|| Failure::NameNotFound { host: text.to_owned(), why: "no address".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_uri_mean_the_same() {
        assert_eq!(target("quic://10.1.2.3:1234"), target("quic://10.1.2.3/1234"));
        assert_eq!(target("10.1.2.3:1234").unwrap().port, 1234);
        let e = target("quic://").unwrap_err();
        assert_eq!(e.code(), 3);
        assert!(e.to_string().contains("the host is missing"), "{e}");
    }

    #[test]
    fn the_port_may_be_left_out_where_there_is_a_default() {
        for text in ["example.org", "example.org:443", "quic://example.org", "quic://example.org/443", "example.org:"] {
            assert_eq!(target_or_port(text, 443).unwrap().to_string(), "example.org:443", "{text}");
        }
        for text in ["::1", "[::1]", "[::1]:443"] {
            assert_eq!(target_or_port(text, 443).unwrap().to_string(), "[::1]:443", "{text}");
        }
        assert_eq!(target_or_port("", 443).unwrap_err().code(), 3);
        assert_eq!(target_or_port("http://x", 443).unwrap_err().code(), 3);
    }

    #[test]
    fn names_that_have_no_address_are_told() {
        assert_eq!(listen("127.0.0.1:4433").unwrap().port(), 4433);
        assert_eq!(listen("quic://[::1]/4433").unwrap().port(), 4433);
        assert_eq!(listen("quic://[::1]:0").unwrap().port(), 0);
        // RFC 6761: `.invalid` never resolves.
        let e = listen("nobody.invalid:1").unwrap_err();
        assert_eq!(e.code(), 3);
        assert!(e.to_string().contains("nobody.invalid"), "{e}");
    }
}

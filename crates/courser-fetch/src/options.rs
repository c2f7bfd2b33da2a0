//! What holds for every job of a client.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::error::{Error, Outcome};

/// Which versions of HTTP may be spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http {
    /// HTTP/3 where the server is known to have it, in a race with the others.
    #[default]
    Auto,
    /// HTTP/3 in a race with the others, also where nothing is known.
    Prefer3,
    /// Nothing but HTTP/3.
    Only3,
    /// HTTP/2 and HTTP/1.1.
    Never3,
}

/// Whom servers have to be certified by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// The issuers that the platform trusts.
    #[default]
    Platform,
    /// The issuers in this PEM text, and no others.
    Pem(Vec<u8>),
}

impl Trust {
    /// The certificates as rustls takes them.
    ///
    /// # Errors
    /// There is none, or one that cannot be read.
    pub fn roots(&self) -> Outcome<RootCertStore> {
        let mut store = RootCertStore::empty();
        let failed = |why: String| Error::Tls { peer: "any server".into(), why };
        match self {
            Self::Platform => {
                let found = rustls_native_certs::load_native_certs();
                store.add_parsable_certificates(found.certs);
                if store.is_empty() {
                    return Err(failed("this machine trusts nobody; name an issuer with --cacert".into()));
                }
            }
            Self::Pem(text) => {
                for certificate in CertificateDer::pem_slice_iter(text) {
                    let certificate = certificate.map_err(|e| failed(format!("the PEM file: {e}")))?;
                    store.add(certificate).map_err(|e| failed(format!("a certificate of the PEM file: {e}")))?;
                }
                if store.is_empty() {
                    return Err(failed("the PEM file has no certificate".into()));
                }
            }
        }
        Ok(store)
    }
}

/// Choices of a client.
#[derive(Clone, Debug)]
pub struct Options {
    /// Versions of HTTP.
    pub http: Http,
    /// Issuers.
    pub trust: Trust,
    /// Addresses for names and ports, before any name server is asked.
    pub resolve: HashMap<(String, u16), Vec<IpAddr>>,
    /// Name servers that are asked instead of those of the system's settings.
    pub name_servers: Vec<SocketAddr>,
    /// Whether HTTPS records may say that a server has HTTP/3 (RFC 9460).
    pub records: bool,
    /// How long name, connection and handshake may take together.
    pub connect_timeout: Duration,
    /// How long nothing may move during an exchange.
    pub stall_timeout: Duration,
    /// How long a job may take in all, with its redirects and further tries.
    pub max_time: Option<Duration>,
    /// Redirects that are followed; none without a number.
    pub redirects: Option<u32>,
    /// Tries after the first.
    pub retries: u32,
    /// The rest before the second try; it doubles with each.
    pub retry_delay: Duration,
    /// Whether servers may compress.
    pub compressed: bool,
    /// Whether what an earlier run left is used.
    pub resume: bool,
    /// Most bytes of an answer.
    pub max_size: Option<u64>,
    /// How long HTTP/3 has before TCP is tried beside it.
    pub head_start: Duration,
    /// Whether requests that change nothing may go as 0-RTT to servers that were reached before. Others can repeat them.
    pub early_data: bool,
    /// Where alternatives are remembered; nowhere without a file.
    pub alt_svc: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            http: Http::Auto,
            trust: Trust::Platform,
            resolve: HashMap::new(),
            name_servers: Vec::new(),
            records: false,
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            max_time: None,
            redirects: None,
            retries: 0,
            retry_delay: Duration::from_secs(1),
            compressed: false,
            resume: true,
            max_size: None,
            head_start: Duration::from_millis(150),
            early_data: true,
            alt_svc: None,
        }
    }
}

/// Reads `HOST:PORT:ADDR[,ADDR…]`, with or without brackets around an IPv6 address.
///
/// # Errors
/// What the text should look like.
pub fn resolve_entry(text: &str) -> Result<((String, u16), Vec<IpAddr>), String> {
    let wrong = || "write HOST:PORT:ADDRESS, for example example.org:443:192.0.2.7".to_owned();
    let (host, rest) = text.split_once(':').ok_or_else(wrong)?;
    let (port, addresses) = rest.split_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let bare = |a: &str| a.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map_err(|_| wrong());
    let addresses = addresses.split(',').map(bare).collect::<Result<Vec<_>, _>>()?;
    if host.is_empty() { Err(wrong()) } else { Ok(((host.to_ascii_lowercase(), port), addresses)) }
}

/// Reads `ADDRESS` or `ADDRESS:PORT` of a name server; an IPv6 address with a port has brackets.
///
/// # Errors
/// What the text should look like.
pub fn name_server(text: &str) -> Result<SocketAddr, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map(|a| SocketAddr::new(a, 53));
    let server =
        text.parse().or(bare).map_err(|_| "write ADDRESS or ADDRESS:PORT, for example 192.0.2.53".to_owned())?;
    if SocketAddr::port(&server) == 0 { Err("port 0 is nobody's".into()) } else { Ok(server) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_for_names_are_read() {
        let ((host, port), addresses) = resolve_entry("Example.org:443:192.0.2.7,[2001:db8::1]").unwrap();
        assert_eq!((host.as_str(), port, addresses.len()), ("example.org", 443, 2));
        assert_eq!(resolve_entry("h:1:::1").unwrap().1, ["::1".parse::<IpAddr>().unwrap()]);
        for bad in ["", "h", "h:1", "h:x:1.2.3.4", ":1:1.2.3.4", "h:1:", "h:70000:1.2.3.4", "h:1:name"] {
            assert!(resolve_entry(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn name_servers_are_read() {
        for (text, server) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
        ] {
            assert_eq!(name_server(text), Ok(server.parse().unwrap()), "{text}");
        }
        for bad in ["", "dns.example", "1.2.3", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:70000"] {
            assert!(name_server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pem_text_without_certificates_is_told() {
        let e = Trust::Pem(b"nothing".to_vec()).roots().unwrap_err();
        assert!(e.code() == 5 && e.to_string().contains("no certificate"), "{e}");
    }
}

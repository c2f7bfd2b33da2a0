//! Certificates of hostile servers, and TLS of both ends.

use std::io;

use courser_core::crypto::{TlsClientConfig, TlsServerConfig};
use courser_tls::{ClientConfig, Credentials, ServerConfig};

/// A self-signed certificate for `localhost` and `127.0.0.1`, and its key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate in PEM, for victims that shall trust it.
    pub certificate: String,
    key: String,
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new() -> io::Result<Self> {
        let key = rcgen::KeyPair::generate().map_err(io::Error::other)?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = rcgen::CertificateParams::new(names).map_err(io::Error::other)?;
        let made = params.self_signed(&key).map_err(io::Error::other)?;
        Ok(Self { certificate: made.pem(), key: key.serialize_pem() })
    }

    /// TLS of a server that has it and speaks that protocol.
    ///
    /// # Errors
    /// TLS refuses it.
    pub fn server(&self, alpn: &str) -> io::Result<Box<dyn TlsServerConfig>> {
        let credentials = Credentials::from_pem(self.certificate.as_bytes(), self.key.as_bytes());
        let tls = ServerConfig::builder().certificate(credentials.map_err(io::Error::other)?).alpn([alpn]).build();
        Ok(Box::new(tls.map_err(io::Error::other)?))
    }
}

/// TLS of a client that believes every server and speaks that protocol.
///
/// # Errors
/// TLS refuses the name of the protocol.
pub fn client(alpn: &str) -> io::Result<Box<dyn TlsClientConfig>> {
    let tls = ClientConfig::builder().danger_accept_any_certificate().alpn([alpn]).build();
    Ok(Box::new(tls.map_err(io::Error::other)?))
}

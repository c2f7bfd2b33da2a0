//! A certificate, a server and a client on the loopback interface.
#![allow(dead_code, clippy::unwrap_used, reason = "a test may fail, and need not use everything")]

pub mod port;
#[cfg(feature = "h3")]
pub mod sessions;

use std::net::SocketAddr;
use std::time::Duration;

use courser::certs::Throwaway;
use courser::tls::{ClientConfig, Credentials, Roots, ServerConfig};
use courser::{ClientOptions, Endpoint, ServerOptions, Settings};

pub const ALPN: &str = "test";
/// No test waits longer; a hang fails instead.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub struct Identity(pub Throwaway);

impl Identity {
    pub fn new() -> Self {
        Self(Throwaway::local().unwrap())
    }

    pub fn client(&self) -> ClientOptions {
        let roots = Roots::empty().add_der(self.0.certificate_der()).unwrap();
        ClientOptions::new(ClientConfig::builder().roots(roots).alpn([ALPN]).build().unwrap())
    }

    pub fn server(&self) -> ServerOptions {
        let credentials = Credentials::from_pem(self.0.certificate_pem().as_bytes(), self.0.key_pem().as_bytes());
        ServerOptions::new(ServerConfig::builder().certificate(credentials.unwrap()).alpn([ALPN]).build().unwrap())
    }
}

/// A server and a client endpoint, both with a time limit.
pub fn endpoints(settings: Settings) -> (Endpoint, Endpoint) {
    let identity = Identity::new();
    let mut server = Endpoint::server(loopback(), identity.server().settings(settings.clone())).unwrap();
    let mut client = Endpoint::client(identity.client().settings(settings)).unwrap();
    server.set_timeout(Some(PATIENCE));
    client.set_timeout(Some(PATIENCE));
    (server, client)
}

/// A connection, seen from both ends, with the endpoints that carry it.
pub struct Pair {
    pub client: courser::Connection,
    pub server: courser::Connection,
    pub client_end: Endpoint,
    pub server_end: Endpoint,
}

pub fn pair(settings: Settings) -> Pair {
    let (server_end, client_end) = endpoints(settings);
    let addr = server_end.local_addr();
    let connecting = std::thread::spawn({
        let client_end = client_end.clone();
        move || client_end.connect_to(addr, "localhost")
    });
    let mut server = server_end.accept().unwrap().accept().unwrap();
    let mut client = connecting.join().unwrap().unwrap();
    server.set_timeout(Some(PATIENCE));
    client.set_timeout(Some(PATIENCE));
    Pair { client, server, client_end, server_end }
}

/// Bytes that depend on their offset and a seed.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

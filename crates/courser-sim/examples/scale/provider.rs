//! Packet protection and TLS: the null provider or the real one.

use courser_core::config::Settings;
use courser_core::crypto::TlsClientConfig;
use courser_core::engine::{EngineConfig, ServerConfig};
use courser_core::protect::null::{NullKeys, NullRandom, NullTlsClient, NullTlsServer};
use courser_tls::AwsLc;

/// Makes the parts of both engines.
pub struct Provider {
    real: Option<(courser_tls::ClientConfig, courser_tls::ServerConfig)>,
}

impl Provider {
    pub fn new(real: bool) -> Self {
        Self { real: real.then(certified) }
    }

    /// Tells the engine's configuration on either side.
    pub fn engine(&self, server: bool, settings: &Settings) -> EngineConfig {
        let random = Box::new(NullRandom::new(1 + u64::from(server)));
        let mut config = match &self.real {
            Some(_) => EngineConfig::new(Box::new(AwsLc), random),
            None => EngineConfig::new(Box::new(NullKeys), random),
        };
        config.memory_max = 8 << 30;
        if server {
            config.server = Some(match &self.real {
                Some((_, tls)) => ServerConfig::new(Box::new(tls.clone()), settings.clone()),
                None => ServerConfig::new(Box::new(NullTlsServer::default()), settings.clone()),
            });
        }
        config
    }

    pub fn client(&self) -> Box<dyn TlsClientConfig> {
        match &self.real {
            Some((tls, _)) => Box::new(tls.clone()),
            None => Box::new(NullTlsClient::default()),
        }
    }
}

fn certified() -> (courser_tls::ClientConfig, courser_tls::ServerConfig) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let credentials =
        courser_tls::Credentials::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes()).expect("credentials");
    let roots = courser_tls::Roots::empty().add_pem(pem.as_bytes()).expect("a root");
    let client = courser_tls::ClientConfig::builder().roots(roots).remembered_servers(0).alpn(["scale"]).build();
    let server = courser_tls::ServerConfig::builder().certificate(credentials).alpn(["scale"]).build();
    (client.expect("a client"), server.expect("a server"))
}

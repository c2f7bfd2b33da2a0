//! A certificate authority, and two sessions that talk to each other in memory.
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]
#![allow(dead_code, reason = "each test program uses its part")]

use courser_core::crypto::{
    Alert, Exporter, Head, Identity, Secret, Suite, TAG_LEN, TlsClientConfig, TlsOut, TlsServerConfig, TlsSession,
};
use courser_core::error::PeerViolation;
use courser_core::ids::{Cid, Level, Side, Version};
use courser_core::protect::{AeadLimits, KeySlots};
use courser_tls::{AwsLc, ClientBuilder, ClientConfig, Credentials, Group, Roots, ServerBuilder, ServerConfig};

/// A certificate authority and what it issued.
pub struct Authority {
    pub certificate: rcgen::Certificate,
    pub issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        Self::named("Test authority")
    }

    pub fn named(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    pub fn roots(&self) -> Roots {
        Roots::empty().add_pem(self.certificate.pem().as_bytes()).unwrap()
    }

    pub fn issue(&self, name: &str, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Credentials {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Credentials::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    pub fn client(&self) -> ClientBuilder {
        ClientConfig::builder().roots(self.roots()).alpn(["h3", "hq"]).groups(&[Group::X25519])
    }

    pub fn server(&self) -> ServerBuilder {
        let credentials = self.issue("example.org", |_| ());
        ServerConfig::builder().certificate(credentials).alpn(["hq"])
    }
}

/// One end: its session, what it said, and keys made from its secrets.
pub struct End {
    pub session: Box<dyn TlsSession>,
    pub slots: KeySlots,
    pub said: Vec<(Level, Vec<u8>)>,
    /// Names of the outputs in order.
    pub events: Vec<String>,
    pub params: Vec<Vec<u8>>,
    pub early: Vec<bool>,
    pub secrets: Vec<(Level, Suite, Vec<u8>, Vec<u8>)>,
    pub exporter: Option<Secret>,
    pub identity: Option<Identity>,
    /// The rule of QUIC that the other end broke.
    pub violation: Option<PeerViolation>,
}

impl End {
    pub fn new(side: Side, version: Version, session: Box<dyn TlsSession>) -> Self {
        let mut slots = KeySlots::new(side, AeadLimits::OF_THE_SUITE);
        slots.install_initial(&AwsLc, version, &Cid::new(b"12345678").unwrap());
        Self {
            session,
            slots,
            said: Vec::new(),
            events: Vec::new(),
            params: Vec::new(),
            early: Vec::new(),
            secrets: Vec::new(),
            exporter: None,
            identity: None,
            violation: None,
        }
    }

    pub fn read(&mut self, level: Level, bytes: &[u8]) -> Result<(), Alert> {
        let Self { session, slots, said, events, params, early, secrets, exporter, identity, violation } = self;
        session.read(level, bytes, &mut |out| match out {
            TlsOut::Bytes(level, b) => {
                assert!(slots.has_send(level), "bytes of {level:?} came before its keys");
                events.push(format!("bytes {level:?}"));
                said.push((level, b.to_vec()));
            }
            TlsOut::Secrets { level, suite, client, server } => {
                events.push(format!("secrets {level:?}"));
                slots.install(&AwsLc, level, suite, client, server).unwrap();
                secrets.push((level, suite, client.to_vec(), server.to_vec()));
            }
            TlsOut::PeerParams(p) => {
                events.push("params".to_owned());
                params.push(p.to_vec());
            }
            TlsOut::RememberedParams(p) => {
                events.push("remembered".to_owned());
                params.push(p.to_vec());
            }
            TlsOut::EarlyData(yes) => {
                events.push("early".to_owned());
                early.push(yes);
            }
            TlsOut::Complete(who) => {
                events.push("complete".to_owned());
                slots.set_complete();
                *identity = Some(who);
            }
            TlsOut::Exporter(secret) => {
                events.push("exporter".to_owned());
                *exporter = Secret::new(secret);
            }
            TlsOut::Violation(v) => *violation = Some(v),
        })
    }
}

pub struct Pair {
    pub client: End,
    pub server: End,
    /// How much of what the other one said the client and the server heard.
    pub heard: (usize, usize),
}

impl Pair {
    /// Each hears what the other one says, in pieces of that length, until neither says anything.
    pub fn talk(&mut self, piece: usize) -> Result<(), Failed> {
        let Self { client, server, heard: (at_client, at_server) } = self;
        let failed = |side| move |alert| Failed(side, alert);
        while *at_server < client.said.len() || *at_client < server.said.len() {
            while let Some((level, bytes)) = client.said.get(*at_server).cloned() {
                bytes.chunks(piece).try_for_each(|b| server.read(level, b)).map_err(failed(Side::Server))?;
                *at_server += 1;
            }
            while let Some((level, bytes)) = server.said.get(*at_client).cloned() {
                bytes.chunks(piece).try_for_each(|b| client.read(level, b)).map_err(failed(Side::Client))?;
                *at_client += 1;
            }
        }
        Ok(())
    }
}

/// Which end failed, and how.
#[derive(Debug)]
pub struct Failed(pub Side, pub Alert);

pub struct Run<'a> {
    pub client: &'a ClientConfig,
    pub server: &'a ServerConfig,
    pub name: &'a str,
    pub versions: (Version, Version),
    pub piece: usize,
}

impl<'a> Run<'a> {
    pub fn new(client: &'a ClientConfig, server: &'a ServerConfig) -> Self {
        Self { client, server, name: "example.org", versions: (Version::V1, Version::V1), piece: 1200 }
    }

    pub fn go(&self) -> Result<Pair, Failed> {
        let mut pair = self.try_begin()?;
        pair.talk(self.piece)?;
        Ok(pair)
    }

    /// Both ends, and the client has said its first words.
    pub fn begin(&self) -> Pair {
        self.try_begin().unwrap_or_else(|failed| panic!("{failed:?}"))
    }

    fn try_begin(&self) -> Result<Pair, Failed> {
        let failed = |side| move |alert| Failed(side, alert);
        let session = self.client.start(self.versions.0, self.name, b"client params").map_err(failed(Side::Client))?;
        let mut client = End::new(Side::Client, self.versions.1, session);
        let session = self.server.start(self.versions.1, b"server params").map_err(failed(Side::Server))?;
        let server = End::new(Side::Server, self.versions.1, session);
        client.read(Level::Initial, &[]).map_err(failed(Side::Client))?;
        Ok(Pair { client, server, heard: (0, 0) })
    }

    pub fn fail(&self) -> Failed {
        match self.go() {
            Err(failed) => failed,
            Ok(_) => panic!("the handshake should have failed"),
        }
    }
}

/// Checks that both ends agree on everything, and that keys from the secrets open each other's packets.
pub fn check_agreement(pair: &mut Pair) {
    let Pair { client, server, .. } = pair;
    assert_eq!(client.secrets, server.secrets);
    assert_eq!(client.params.last().unwrap(), b"server params");
    assert_eq!(server.params, [b"client params"]);
    let (c, s) = (client.exporter.as_ref().unwrap(), server.exporter.as_ref().unwrap());
    let suite = client.identity.as_ref().unwrap().suite.unwrap();
    assert_eq!(server.identity.as_ref().unwrap().suite, Some(suite));
    let (mut a, mut b, mut other) = ([0; 40], [0; 40], [0; 40]);
    AwsLc.export(suite, c, b"label", b"context", &mut a).unwrap();
    AwsLc.export(suite, s, b"label", b"context", &mut b).unwrap();
    AwsLc.export(suite, s, b"label", b"contexu", &mut other).unwrap();
    assert_eq!(a, b);
    assert_ne!(a, other);
    for level in [Level::Initial, Level::Handshake, Level::OneRtt] {
        exchange(client, server, level);
        exchange(server, client, level);
    }
}

pub fn exchange(from: &mut End, to: &mut End, level: Level) {
    let first = if level == Level::OneRtt { 0x40 } else { 0xc0 };
    let mut packet = vec![first, 0, 0, 0, 1, 0];
    packet.resize(6 + 100 + TAG_LEN, 0);
    from.slots.seal(level, 0, &mut packet, Head { pn_at: 5, payload_at: 6 }, &[5; 100]).unwrap();
    let opened = to.slots.open(&AwsLc, level, &mut packet, 5, 0).unwrap();
    assert_eq!(packet[opened.payload], [5; 100]);
}

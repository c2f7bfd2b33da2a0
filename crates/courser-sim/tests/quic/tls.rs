//! A few scenarios with real TLS and real packet protection.

use courser_core::ids::Version;
use courser_core::protect::null::NullRandom;
use courser_sim::quic::{Job, Net, NetConfig, Provider, QuicHost};
use courser_sim::script::Script;
use courser_sim::{Duplex, LinkConfig};
use courser_tls::{AwsLc, CertificateStore, Certificates, ClientConfig, Credentials, Roots, ServerConfig};

use crate::support::{MS, S, plain};

/// A net with real TLS and keys. The certificate takes about so many bytes, for as many names as that needs.
pub fn with_tls(seed: u64, link: Duplex, certificate_len: usize) -> NetConfig {
    with_early_data(seed, link, certificate_len, false)
}

/// A net with real TLS and keys whose ends speak these application protocols.
pub fn with_tls_for(seed: u64, link: Duplex, client: &[&str], server: &[&str]) -> NetConfig {
    with(seed, link, 0, false, [client, server])
}

fn with_early_data(seed: u64, link: Duplex, certificate_len: usize, early: bool) -> NetConfig {
    with(seed, link, certificate_len, early, [&["sim"], &["sim"]])
}

fn with(seed: u64, link: Duplex, certificate_len: usize, early: bool, alpn: [&[&str]; 2]) -> NetConfig {
    let key = rcgen::KeyPair::generate().unwrap();
    let more = (0..certificate_len.saturating_sub(300).div_ceil(58)).map(|n| format!("{n:040}.courser.example"));
    let names: Vec<_> = core::iter::once("localhost".to_owned()).chain(more).collect();
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    assert!(certificate.der().len() >= certificate_len, "{} bytes", certificate.der().len());
    let credentials = Credentials::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let roots = Roots::empty().add_pem(certificate.pem().as_bytes()).unwrap();
    let client = ClientConfig::builder().roots(roots).alpn(alpn[0]).early_data(early).build().unwrap();
    let server = ServerConfig::builder().certificate(credentials).alpn(alpn[1]).early_data(early).build().unwrap();
    let provider = |seed, server| Provider {
        keys: Box::new(AwsLc),
        random: Box::new(NullRandom::new(seed)),
        client: Box::new(client.clone()),
        server,
        name: "localhost",
    };
    let mut config = NetConfig::new(seed, link);
    config.client_provider = Some(provider(1 << 40, None));
    config.server_provider = Some(provider(2 << 40, Some(Box::new(server))));
    config
}

/// Ends with real TLS that both show certificates; the server has one for each of two names.
pub struct Named {
    pub config: NetConfig,
    /// The certificate for the name that the client asks for.
    pub asked_for: Vec<u8>,
    pub store: CertificateStore,
    /// Another one for that name, which the client trusts as well.
    pub next: (Certificates, Vec<u8>),
}

pub fn with_names(seed: u64, link: Duplex) -> Named {
    let make = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let credentials = Credentials::from_pem(made.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        (credentials, made.der().to_vec())
    };
    let [first, second, third] = ["a.example", "b.example", "b.example"].map(make);
    let (own, own_der) = make("client.example");
    let table = |b: Credentials| Certificates::new(first.0.clone()).named("b.example", b);
    let store = CertificateStore::new(&table(second.0.clone())).unwrap();
    let roots = Roots::empty().add_der(&second.1).unwrap().add_der(&third.1).unwrap();
    let client =
        ClientConfig::builder().roots(roots).certificate(own).remembered_servers(0).alpn(["sim"]).build().unwrap();
    let known = Roots::empty().add_der(&own_der).unwrap();
    let server = ServerConfig::builder().certificates(&store).require_client_certificates(known);
    let server: Box<ServerConfig> = Box::new(server.alpn(["sim"]).build().unwrap());
    let provider = |seed, server| Provider {
        keys: Box::new(AwsLc),
        random: Box::new(NullRandom::new(seed)),
        client: Box::new(client.clone()),
        server,
        name: "b.example",
    };
    let mut config = NetConfig::new(seed, link);
    config.client_provider = Some(provider(1 << 40, None));
    config.server_provider = Some(provider(2 << 40, Some(server)));
    Named { config, asked_for: second.1, store, next: (table(third.0), third.1) }
}

#[test]
fn real_tls_over_a_clean_path() {
    let mut net = Net::new(with_tls(1, plain(), 0).job(Job::exchange(100_000, 100_000)));
    net.run_until_done(5 * S);
    assert_eq!(net.client().app(0).unwrap().report.connected_us, Some(20 * MS));
    let identity = net.client().engine.identity(net.client_key()).unwrap().unwrap();
    assert_eq!((identity.alpn.as_deref(), identity.certificates.len()), (Some(&b"sim"[..]), 1));
    net.finish();
}

#[test]
fn real_tls_resumes_with_early_data() {
    let mut net = Net::new(with_early_data(1, plain(), 0, true).job(Job::exchange(10_000, 10_000)));
    net.run_until_done(5 * S);
    let to = courser_sim::topology::addr::server(0);
    for n in 1..4 {
        let at = net.world.now_us() + 50 * MS;
        let mut app = courser_sim::quic::AppConfig::default();
        app.jobs.push(Job::exchange(3_000, 20_000));
        net.world.host_mut(net.client).dial(at, to, app);
        net.run_until_done(at + 5 * S);
        let report = &net.client().app(n).unwrap().report;
        assert_eq!((report.early, report.first_byte_us), (Some(true), Some(at + 20 * MS)), "connection {n}");
        let identity = net.client().engine.identity(net.client().keys()[n]).unwrap().unwrap();
        assert!(identity.resumed);
    }
    net.finish();
}

#[test]
fn real_tls_under_loss_and_key_updates() {
    for seed in 0..4 {
        let link = Duplex::symmetric(
            LinkConfig::new().rate(20_000_000).queue_bytes(50_000).delay_us(10 * MS).loss(0.1).reorder(0.05, 5 * MS),
        );
        let config = with_tls(seed, link, 0)
            .settings(|s| s.handshake_timeout = std::time::Duration::from_secs(60))
            .job(Job::exchange(300_000, 300_000));
        let mut net = Net::new(config);
        net.establish(60 * S);
        for _ in 0..4 {
            let until = net.world.now_us() + 300 * MS;
            net.run_until(until);
            let key = net.client_key();
            let _ = net.world.host_mut(net.client).engine.update_keys(QuicHost::instant(until), key);
        }
        net.run_until_done(120 * S);
        net.finish();
    }
}

#[test]
fn real_tls_with_version_2() {
    let config = with_tls(1, plain(), 0).settings(|s| s.versions = vec![Version::V2]).job(Job::fetch(10_000));
    let mut net = Net::new(config);
    net.run_until_done(5 * S);
    net.finish();
}

#[test]
fn a_post_quantum_client_hello_of_two_initials_gets_through_each_loss_and_a_bad_link() {
    let group = |net: &Net| net.client().engine.identity(net.client_key()).unwrap().unwrap().group.clone();
    for lost in 0..4 {
        for up in [true, false] {
            let script = if up { Script::new().drop_up([lost]) } else { Script::new().drop_down([lost]) };
            let mut net = Net::new(with_tls(1, script.apply(plain()), 0).job(Job::exchange(500, 500)));
            net.run_until_done(20 * S);
            assert_eq!(group(&net).as_deref(), Some("X25519MLKEM768"));
            net.finish();
        }
    }
    for seed in 0..6 {
        let link =
            Duplex::symmetric(LinkConfig::new().delay_us(10 * MS).loss(0.2).reorder(0.3, 15 * MS).duplicate(0.1));
        let config = with_tls(seed, link, 0).settings(|s| s.handshake_timeout = std::time::Duration::from_secs(60));
        let mut net = Net::new(config.job(Job::exchange(500, 500)));
        net.run_until_done(120 * S);
        net.finish();
    }
}

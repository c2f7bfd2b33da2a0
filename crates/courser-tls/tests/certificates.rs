//! Which certificates are shown, how they are replaced, and what the ends know of each other.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::sync::Arc;

use courser_core::crypto::{TlsClientConfig, TlsServerConfig};
use courser_core::ids::{Level, Side, Version};
use courser_tls::{CertificateStore, Certificates, ClientConfig, ConfigError, Credentials, KeyLogFile, ServerConfig};
use support::{Authority, End, Failed, Pair, Run};

fn issue(authority: &Authority, name: &str) -> Credentials {
    authority.issue(name, |_| ())
}

/// The certificate that a client sees that asks for this name; who it is for is not checked.
fn shown(server: &ServerConfig, name: &str) -> Result<Vec<u8>, Failed> {
    let client = ClientConfig::builder().danger_accept_any_certificate().alpn(["hq"]).build().unwrap();
    let pair = Run { name, ..Run::new(&client, server) }.go()?;
    Ok(pair.client.identity.unwrap().certificates.concat())
}

fn server_with(store: &CertificateStore) -> ServerConfig {
    ServerConfig::builder().certificates(store).alpn(["hq"]).build().unwrap()
}

#[test]
fn the_certificate_is_the_one_of_the_name_that_the_client_asks_for() {
    let authority = Authority::new();
    let [own, any, other] = ["a.example.org", "*.example.org", "other.test"].map(|n| issue(&authority, n));
    let single = |c: &Credentials| {
        let server = ServerConfig::builder().certificate(c.clone()).alpn(["hq"]).build().unwrap();
        shown(&server, "whoever.test").unwrap()
    };
    let certificates =
        Certificates::new(other.clone()).named("*.Example.org", any.clone()).named("A.example.org", own.clone());
    let server = server_with(&CertificateStore::new(&certificates).unwrap());
    for (name, credentials) in [
        ("a.example.org", &own),
        ("A.EXAMPLE.ORG", &own),
        ("b.example.org", &any),
        ("c.b.example.org", &other),
        ("example.org", &other),
        ("elsewhere.test", &other),
        // Clients name no address.
        ("192.0.2.1", &other),
    ] {
        assert_eq!(shown(&server, name).unwrap(), single(credentials), "{name}");
    }
    let strict = Certificates::without_default().named("a.example.org", own.clone());
    let strict = server_with(&CertificateStore::new(&strict).unwrap());
    assert_eq!(shown(&strict, "a.example.org").unwrap(), single(&own));
    for name in ["b.example.org", "192.0.2.1"] {
        let Err(Failed(side, alert)) = shown(&strict, name) else { panic!("{name} got a certificate") };
        assert_eq!(side, Side::Server, "{}", alert.reason);
    }
}

#[test]
fn certificates_are_replaced_under_running_servers_and_connections_live_on() {
    let authority = Authority::new();
    let old = issue(&authority, "example.org");
    let new = issue(&authority, "example.org");
    let store = CertificateStore::new(&Certificates::new(old)).unwrap();
    // Two workers with configurations of their own.
    let servers = [server_with(&store), server_with(&store)];
    let client = authority.client().build().unwrap();
    let before = shown(&servers[0], "example.org").unwrap();
    let mut established = Run::new(&client, &servers[0]).go().unwrap();
    // One handshake has begun: its ServerHello is made when the certificate changes.
    let mut slow = Run::new(&client, &servers[1]).begin();
    let hello = slow.client.said[0].1.clone();
    slow.server.read(Level::Initial, &hello).unwrap();
    slow.heard.1 = 1;

    store.replace(&Certificates::new(new)).unwrap();

    for server in &servers {
        assert_ne!(shown(server, "example.org").unwrap(), before);
    }
    slow.talk(1200).unwrap();
    assert_eq!(slow.client.identity.as_ref().unwrap().certificates.concat(), before);
    support::check_agreement(&mut slow);
    support::check_agreement(&mut established);
}

#[test]
fn what_cannot_be_used_changes_nothing_and_says_why() {
    let authority = Authority::new();
    let good = issue(&authority, "example.org");
    let store = CertificateStore::new(&Certificates::new(good.clone())).unwrap();
    let server = server_with(&store);
    let before = shown(&server, "example.org").unwrap();
    let refused = |certificates: &Certificates| store.replace(certificates).unwrap_err();

    let (a, b) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let leaf = rcgen::CertificateParams::new(vec!["example.org".to_owned()]).unwrap().self_signed(&a).unwrap();
    let mismatched = Credentials::from_pem(leaf.pem().as_bytes(), b.serialize_pem().as_bytes()).unwrap();
    let why = refused(&Certificates::new(good.clone()).named("example.org", mismatched));
    assert!(matches!(&why, ConfigError::PrivateKey(s) if s.contains("example.org")), "{why}");
    for name in ["www.example.org", "*.example.org", "*", "", "a b"] {
        let why = refused(&Certificates::new(good.clone()).named(name, good.clone()));
        assert!(matches!(&why, ConfigError::Certificate(s) if s.contains(name)), "{name}: {why}");
    }
    let broken = Credentials::from_der(vec![vec![0x30, 0]], a.serialize_der()).unwrap();
    let why = refused(&Certificates::without_default().named("example.org", broken));
    assert!(matches!(why, ConfigError::Certificate(_)), "{why}");
    assert_eq!(refused(&Certificates::without_default()), ConfigError::NoCredentials);

    let dir = tempfile::tempdir().unwrap();
    let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
    let missing = Credentials::from_pem_files(&chain, &key).unwrap_err();
    assert!(missing.to_string().contains("chain.pem"), "{missing}");
    std::fs::write(&chain, leaf.pem()).unwrap();
    std::fs::write(&key, &a.serialize_pem()[..60]).unwrap();
    assert!(matches!(Credentials::from_pem_files(&chain, &key), Err(ConfigError::PrivateKey(_))));
    assert_eq!(shown(&server, "example.org").unwrap(), before, "still the old one");
    std::fs::write(&key, a.serialize_pem()).unwrap();
    store.replace(&Certificates::new(Credentials::from_pem_files(&chain, &key).unwrap())).unwrap();
    assert_eq!(shown(&server, "example.org").unwrap(), leaf.der().to_vec());
    assert!(format!("{store:?}").contains("default: true"));
}

#[test]
fn both_ends_see_whom_they_talk_to() {
    let authority = Authority::new();
    let store = CertificateStore::new(&Certificates::new(issue(&authority, "client-1"))).unwrap();
    let client = authority.client().certificates(&store).build().unwrap();
    let server = authority.server().require_client_certificates(authority.roots()).build().unwrap();
    let Pair { client: at_client, server: at_server, .. } = Run::new(&client, &server).go().unwrap();
    let (seen, before) = (at_client.identity.unwrap(), at_server.identity.unwrap().certificates.concat());
    let contains = |der: &[u8], name: &str| der.windows(name.len()).any(|w| w == name.as_bytes());
    assert!(contains(&seen.certificates.concat(), "example.org"));
    assert!(contains(&before, "client-1"));
    store.replace(&Certificates::new(issue(&authority, "client-2"))).unwrap();
    let other = ClientConfig::clone(&client);
    let mut session = Run { versions: (Version::V2, Version::V2), ..Run::new(&other, &server) }.go().unwrap();
    assert!(contains(&session.server.identity.take().unwrap().certificates.concat(), "client-2"));
}

#[test]
fn clients_with_expired_or_foreign_certificates_are_turned_away() {
    let authority = Authority::new();
    let expired = authority.issue("client", |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let foreign = issue(&Authority::named("Stranger"), "client");
    for (credentials, code) in [(expired, 45), (foreign, 48)] {
        let client = authority.client().certificate(credentials).build().unwrap();
        for server in [
            authority.server().require_client_certificates(authority.roots()),
            authority.server().request_client_certificates(authority.roots()),
        ] {
            let Failed(side, alert) = Run::new(&client, &server.build().unwrap()).fail();
            assert_eq!((side, alert.code), (Side::Server, code), "{}", alert.reason);
        }
        let indifferent = authority.server().build().unwrap();
        assert!(Run::new(&client, &indifferent).go().is_ok(), "who is not asked shows nothing");
    }
    let broken =
        Credentials::from_der(vec![vec![0x30, 0]], rcgen::KeyPair::generate().unwrap().serialize_der()).unwrap();
    assert!(authority.client().certificate(broken).build().is_err());
}

#[test]
fn a_key_log_has_the_secrets_that_the_packets_are_protected_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let authority = Authority::new();
    let client = authority.client().key_log(Arc::new(KeyLogFile::open(&path).unwrap())).build().unwrap();
    let pair = Run::new(&client, &authority.server().build().unwrap()).go().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let random = hex(&pair.client.said[0].1[6..38]);
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split(' ').collect()).collect();
    assert!(lines.iter().all(|l| l.len() == 3 && l[1] == random), "each line begins with the ClientHello's random");
    let secret = |label: &str| lines.iter().find(|l| l[0] == label).unwrap_or_else(|| panic!("no {label}"))[2];
    for (level, client, server) in [
        (Level::Handshake, "CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET"),
        (Level::OneRtt, "CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"),
    ] {
        let (.., ours, theirs) = pair.server.secrets.iter().find(|s| s.0 == level).unwrap();
        assert_eq!((secret(client), secret(server)), (&*hex(ours), &*hex(theirs)), "{level:?}");
    }
}

#[test]
fn a_post_quantum_exchange_is_offered_and_taken_unless_told_otherwise() {
    let authority = Authority::new();
    let client = ClientConfig::builder().roots(authority.roots()).alpn(["hq"]).build().unwrap();
    let server = authority.server().build().unwrap();
    let mut pair = Run::new(&client, &server).go().unwrap();
    support::check_agreement(&mut pair);
    // key_share of the ServerHello: X25519MLKEM768 with the ciphertext of 1,088 bytes and a point of 32.
    let wanted = [0x00, 0x33, 0x04, 0x64, 0x11, 0xec, 0x04, 0x60];
    assert!(pair.server.said[0].1.windows(8).any(|w| w == wanted));
    assert_eq!(pair.client.said.iter().filter(|s| s.0 == Level::Initial).count(), 1, "no HelloRetryRequest");
}

#[test]
fn sessions_of_a_store_are_started_from_many_threads() {
    let authority = Authority::new();
    let [a, b] = [(); 2].map(|()| Certificates::new(issue(&authority, "example.org")));
    let store = CertificateStore::new(&a).unwrap();
    let (server, client) = (server_with(&store), authority.client().build().unwrap());
    std::thread::scope(|scope| {
        let turning = scope.spawn(|| (0..50).for_each(|n| store.replace(if n % 2 == 0 { &b } else { &a }).unwrap()));
        for _ in 0..2 {
            scope.spawn(|| (0..10).for_each(|_| assert!(Run::new(&client, &server).go().is_ok())));
        }
        turning.join().unwrap();
    });
    let fresh: End = End::new(Side::Server, Version::V1, server.start(Version::V1, b"").unwrap());
    assert!(fresh.said.is_empty() && client.start(Version::V1, "example.org", b"").is_ok());
}

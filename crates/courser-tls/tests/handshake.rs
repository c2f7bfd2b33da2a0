//! Whole handshakes in memory, through the public interface.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod support;

use std::sync::{Arc, Mutex};

use courser_core::crypto::{Alert, KeyFactory, Suite, TlsClientConfig, TlsServerConfig};
use courser_core::error::TransportCode;
use courser_core::ids::{Level, Side, Version};
use courser_core::protect::client_hello::parse_client_hello;
use courser_tls::{AwsLc, ClientConfig, Group, KeyLog, ServerConfig};
use support::{Authority, End, Failed, Run, check_agreement, exchange};

#[test]
fn every_suite_and_group_completes_and_both_ends_agree() {
    let authority = Authority::new();
    for (suite, group, name) in [
        (Suite::Aes128Gcm, Group::X25519, "x25519"),
        (Suite::Aes256Gcm, Group::P256, "secp256r1"),
        (Suite::ChaCha20Poly1305, Group::X25519MlKem768, "X25519MLKEM768"),
    ] {
        let client = authority.client().suites(&[suite]).groups(&[group]).build().unwrap();
        let server = authority.server().build().unwrap();
        for version in [Version::V1, Version::V2] {
            let run = Run { versions: (version, version), ..Run::new(&client, &server) };
            let mut pair = run.go().unwrap();
            check_agreement(&mut pair);
            let (c, s) = (pair.client.identity.unwrap(), pair.server.identity.unwrap());
            assert_eq!((c.suite, c.group.as_deref()), (Some(suite), Some(name)));
            assert_eq!((c.alpn.as_deref(), s.alpn.as_deref()), (Some(&b"hq"[..]), Some(&b"hq"[..])));
            assert_eq!(
                (c.server_name.as_deref(), s.server_name.as_deref()),
                (Some("example.org"), Some("example.org"))
            );
            assert_eq!((c.certificates.len(), s.certificates.len()), (1, 0));
        }
    }
}

#[test]
fn secrets_of_a_session_for_version_1_make_keys_for_version_2() {
    let authority = Authority::new();
    let (client, server) = (authority.client().build().unwrap(), authority.server().build().unwrap());
    let run = Run { versions: (Version::V1, Version::V2), ..Run::new(&client, &server) };
    let mut pair = run.go().unwrap();
    check_agreement(&mut pair);
}

#[test]
fn outputs_come_in_an_order_in_which_they_can_be_acted_on() {
    //= rfc9001#4.9-2 type=test
    let authority = Authority::new();
    let (client, server) = (authority.client().build().unwrap(), authority.server().build().unwrap());
    let pair = Run { piece: usize::MAX, ..Run::new(&client, &server) }.go().unwrap();
    let expected =
        ["bytes Initial", "secrets Handshake", "params", "bytes Handshake", "secrets OneRtt", "exporter", "complete"];
    // The second read of the server's Initial and Handshake bytes gives the rest.
    assert_eq!(pair.client.events, expected);
    let expected = [
        "params",
        "early",
        "bytes Initial",
        "secrets Handshake",
        "bytes Handshake",
        "secrets OneRtt",
        "exporter",
        "bytes OneRtt",
        "complete",
    ];
    assert_eq!(pair.server.events, expected);
}

#[test]
fn handshake_bytes_may_come_in_any_pieces() {
    let authority = Authority::new();
    let (client, server) = (authority.client().build().unwrap(), authority.server().build().unwrap());
    for piece in [1, 7, 100] {
        let mut pair = Run { piece, ..Run::new(&client, &server) }.go().unwrap();
        check_agreement(&mut pair);
    }
}

#[test]
fn a_hello_with_a_post_quantum_share_is_parsed() {
    let authority = Authority::new();
    let client = authority.client().groups(&courser_tls::ALL_GROUPS).build().unwrap();
    let mut end = End::new(Side::Client, Version::V1, client.start(Version::V1, "example.org", b"p").unwrap());
    end.read(Level::Initial, &[]).unwrap();
    let hello = &end.said[0].1;
    assert!(hello.len() > 1200, "{} bytes", hello.len());
    let info = parse_client_hello(hello).unwrap().unwrap();
    assert_eq!((info.server_name, info.transport_params), (Some("example.org"), Some(&b"p"[..])));
    assert_eq!(info.alpn.iter().collect::<Vec<_>>(), [&b"h3"[..], b"hq"]);
    //= rfc9001#8.4-1 type=test
    assert!(info.session_id.is_empty());
    assert!(!info.early_data);
}

#[test]
fn a_server_without_the_share_asks_again() {
    let authority = Authority::new();
    let client = authority.client().groups(&[Group::X25519, Group::P256]).build().unwrap();
    let server = authority.server().groups(&[Group::P256]).build().unwrap();
    let mut pair = Run::new(&client, &server).go().unwrap();
    check_agreement(&mut pair);
    let hellos = pair.client.said.iter().filter(|(level, _)| *level == Level::Initial).count();
    assert_eq!(hellos, 2);
}

#[test]
fn no_common_protocol_is_alert_120() {
    //= rfc9001#8.1-2, rfc9001#8.1-5 type=test
    //= rfc9000#7-2 type=test
    let authority = Authority::new();
    let client = authority.client().alpn(["other"]).build().unwrap();
    let server = authority.server().build().unwrap();
    let Failed(side, alert) = Run::new(&client, &server).fail();
    assert_eq!((side, alert.code), (Side::Server, 120));
    assert!(alert.reason.contains("ALPN"), "{}", alert.reason);

    //= rfc9001#8.1-3, rfc9001#8.1-6 type=test
    let mut silent = rustls_server(&authority, &[b"other"]);
    silent.alpn_protocols.clear();
    let plain = rustls_client(&authority);
    let silent = rustls::quic::ServerConnection::new(Arc::new(silent), rustls::quic::Version::V1, vec![1]).unwrap();
    let client = ClientConfig::from_rustls(&Arc::new(plain)).unwrap();
    let alert = against_rustls(&client, silent);
    assert_eq!(alert.code, 120, "{}", alert.reason);
}

/// A client against a bare server of rustls, for behaviour that our own server does not show.
fn against_rustls(client: &ClientConfig, mut server: rustls::quic::ServerConnection) -> Alert {
    let mut end = End::new(Side::Client, Version::V1, client.start(Version::V1, "example.org", b"").unwrap());
    end.read(Level::Initial, &[]).unwrap();
    if let Err(e) = server.read_hs(&end.said[0].1) {
        let code = server.alert().map_or(0, u8::from);
        return Alert { code, reason: e.to_string() };
    }
    for level in [Level::Initial, Level::Handshake] {
        let mut bytes = Vec::new();
        server.write_hs(&mut bytes);
        if let Err(alert) = end.read(level, &bytes) {
            return alert;
        }
    }
    panic!("the client accepted what it should not")
}

fn rustls_server(authority: &Authority, alpn: &[&[u8]]) -> rustls::ServerConfig {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["example.org".to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &authority.issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    config
}

fn rustls_client(authority: &Authority) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"hq".to_vec()];
    config
}

/// Remembers the labels of what it was told.
#[derive(Debug, Default)]
struct Labels(Mutex<Vec<String>>);

impl KeyLog for Labels {
    fn log(&self, label: &str, _: &[u8], _: &[u8]) {
        self.0.lock().unwrap().push(label.to_owned());
    }
}

#[test]
fn configurations_of_rustls_work_and_keep_their_key_log() {
    let authority = Authority::new();
    let (client_log, server_log) = (Arc::new(Labels::default()), Arc::new(Labels::default()));
    let mut client = rustls_client(&authority);
    client.key_log = client_log.clone();
    let client = ClientConfig::from_rustls(&Arc::new(client)).unwrap();
    let mut server = rustls_server(&authority, &[b"hq"]);
    server.key_log = server_log.clone();
    let server = ServerConfig::from_rustls(&Arc::new(server)).unwrap();
    check_agreement(&mut Run::new(&client, &server).go().unwrap());
    for log in [client_log, server_log] {
        let labels = log.0.lock().unwrap();
        for label in ["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0", "EXPORTER_SECRET"] {
            assert!(labels.iter().any(|l| l == label), "{label} in {labels:?}");
        }
    }
    let mut bare = rustls_client(&authority);
    bare.alpn_protocols.clear();
    assert!(ClientConfig::from_rustls(&Arc::new(bare)).is_err());
    let mut limited = rustls_server(&authority, &[b"hq"]);
    //= rfc9001#4.6.1-1 type=test
    limited.max_early_data_size = 1000;
    assert!(ServerConfig::from_rustls(&Arc::new(limited)).is_err());
}

#[test]
fn certificates_for_another_name_are_refused() {
    //= rfc9001#4.4-1 type=test
    let authority = Authority::new();
    let (client, server) = (authority.client().build().unwrap(), authority.server().build().unwrap());
    for name in ["example.com", "www.example.org", "192.0.2.1", "[2001:db8::1]"] {
        let Failed(side, alert) = Run { name, ..Run::new(&client, &server) }.fail();
        assert_eq!((side, alert.code), (Side::Client, 42), "{name}");
        assert!(alert.reason.contains("example.org"), "{}", alert.reason);
    }
    let Failed(_, alert) = Run { name: "not a name", ..Run::new(&client, &server) }.fail();
    assert_eq!(alert.code, 112);
}

#[test]
fn certificates_may_be_for_addresses_and_wildcards() {
    let authority = Authority::new();
    let client = authority.client().build().unwrap();
    for (subject, name, good) in [
        ("192.0.2.1", "192.0.2.1", true),
        ("2001:db8::1", "[2001:db8::1]", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("*.example.net", "www.example.net", true),
        ("*.example.net", "a.b.example.net", false),
    ] {
        let server = authority.server().certificate(authority.issue(subject, |_| ())).build().unwrap();
        let result = Run { name, ..Run::new(&client, &server) }.go();
        assert_eq!(result.is_ok(), good, "{name} with a certificate for {subject}");
    }
}

#[test]
fn a_server_with_the_certificate_of_an_authority_is_refused_with_the_remedy() {
    let authority = Authority::new();
    let client = authority.client().build().unwrap();
    let credentials =
        authority.issue("example.org", |params| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    let server = authority.server().certificate(credentials).build().unwrap();
    let Failed(side, alert) = Run::new(&client, &server).fail();
    assert_eq!((side, alert.code), (Side::Client, 46));
    assert!(alert.reason.contains("CA:FALSE"), "{}", alert.reason);
}

#[test]
fn expired_and_future_certificates_are_refused() {
    let authority = Authority::new();
    let client = authority.client().build().unwrap();
    for (from, to, word) in [(2001, 2002, "expired"), (2900, 2901, "becomes valid")] {
        let credentials = authority.issue("example.org", |params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        });
        let server = authority.server().certificate(credentials).build().unwrap();
        let Failed(side, alert) = Run::new(&client, &server).fail();
        assert_eq!((side, alert.code), (Side::Client, 45));
        assert!(alert.reason.contains(word), "{}", alert.reason);
    }
}

#[test]
fn strangers_are_refused_unless_anybody_is_accepted() {
    let (authority, stranger) = (Authority::new(), Authority::named("Stranger"));
    let server = stranger.server().build().unwrap();
    let client = authority.client().build().unwrap();
    let Failed(side, alert) = Run::new(&client, &server).fail();
    assert_eq!((side, alert.code), (Side::Client, 48));
    assert!(alert.reason.contains("trusted"), "{}", alert.reason);

    let anybody = ClientConfig::builder().danger_accept_any_certificate().alpn(["hq"]).build().unwrap();
    let mut pair = Run { name: "whoever.test", ..Run::new(&anybody, &server) }.go().unwrap();
    check_agreement(&mut pair);
}

#[test]
fn accepting_anybody_still_needs_the_key_of_the_certificate() {
    let authority = Authority::new();
    let server = authority.server().build().unwrap();
    let anybody = ClientConfig::builder().danger_accept_any_certificate().alpn(["hq"]).build().unwrap();
    let mut client = End::new(Side::Client, Version::V1, anybody.start(Version::V1, "a.test", b"").unwrap());
    let mut other = End::new(Side::Server, Version::V1, server.start(Version::V1, b"").unwrap());
    client.read(Level::Initial, &[]).unwrap();
    other.read(Level::Initial, &client.said[0].1).unwrap();
    client.read(Level::Initial, &other.said[0].1).unwrap();
    // The CertificateVerify message is the last but one; a bit of its signature changes.
    let mut flight = other.said[1].1.clone();
    let mut at = 0;
    while flight[at] != 15 {
        at += 4 + usize::from(flight[at + 2]) * 256 + usize::from(flight[at + 3]);
    }
    flight[at + 4 + 4 + 10] ^= 1;
    let alert = client.read(Level::Handshake, &flight).unwrap_err();
    assert_eq!(alert.code, 51, "{}", alert.reason);
    assert_eq!(client.read(Level::Handshake, &[]).unwrap_err(), alert, "failed is failed");
}

#[test]
fn clients_show_certificates_when_they_have_to() {
    let authority = Authority::new();
    let (with, without) = (
        authority.client().certificate(authority.issue("client", |_| ())).build().unwrap(),
        authority.client().build().unwrap(),
    );
    let must = authority.server().require_client_certificates(authority.roots()).build().unwrap();
    let may = authority.server().request_client_certificates(authority.roots()).build().unwrap();
    for (client, server, shown) in [(&with, &must, 1), (&with, &may, 1), (&without, &may, 0)] {
        let mut pair = Run::new(client, server).go().unwrap();
        check_agreement(&mut pair);
        assert_eq!(pair.server.identity.unwrap().certificates.len(), shown);
    }
    let Failed(side, alert) = Run::new(&without, &must).fail();
    assert_eq!((side, alert.code), (Side::Server, 116), "{}", alert.reason);
    let stranger = Authority::named("Stranger");
    let wrong = authority.client().certificate(stranger.issue("client", |_| ())).build().unwrap();
    let Failed(side, alert) = Run::new(&wrong, &may).fail();
    assert_eq!((side, alert.code), (Side::Server, 48), "{}", alert.reason);
}

#[test]
fn tickets_resume_sessions_once_each() {
    //= rfc9001#4.5-1 type=test
    let authority = Authority::new();
    let client = authority.client().build().unwrap();
    let server = authority.server().tickets(2).build().unwrap();
    let resumed = |run: &Run<'_>| {
        let mut pair = run.go().unwrap();
        check_agreement(&mut pair);
        let (c, s) = (pair.client.identity.unwrap(), pair.server.identity.unwrap());
        assert_eq!(c.resumed, s.resumed);
        assert_eq!(c.certificates.len(), 1, "the certificate of the first handshake is remembered");
        c.resumed
    };
    assert!(!resumed(&Run::new(&client, &server)));
    assert!(resumed(&Run::new(&client, &server)));
    assert!(resumed(&Run::new(&client, &server)));
    let forgetful = authority.client().remembered_servers(0).build().unwrap();
    assert!(!resumed(&Run::new(&forgetful, &server)) && !resumed(&Run::new(&forgetful, &server)));
    let silent = authority.server().tickets(0).build().unwrap();
    let client = authority.client().build().unwrap();
    assert!(!resumed(&Run::new(&client, &silent)) && !resumed(&Run::new(&client, &silent)));
}

#[test]
fn tickets_are_good_only_for_the_version_that_they_came_from() {
    //= rfc9369#5-1 type=test
    //= rfc9369#5-2 type=test
    let authority = Authority::new();
    for early in [false, true] {
        let client = authority.client().early_data(early).build().unwrap();
        let server = authority.server().early_data(early).build().unwrap();
        // One that ignores versions, as a client that breaks the rule does.
        let careless = ClientConfig::from_rustls(&Arc::new(rustls_client(&authority))).unwrap();
        let resumed = |client, version| {
            let run = Run { versions: (version, version), ..Run::new(client, &server) };
            run.go().unwrap().client.identity.unwrap().resumed
        };
        for client in [&client, &careless] {
            assert!(!resumed(client, Version::V1) && !resumed(client, Version::V2), "early {early}");
        }
        assert!(resumed(&client, Version::V2) && resumed(&client, Version::V1), "early {early}");
    }
}

#[test]
fn early_data_is_off_unless_both_ends_want_it() {
    //= rfc9001#5.6-1 type=test
    let authority = Authority::new();
    for (ask, take) in [(false, false), (false, true), (true, false), (true, true)] {
        let client = authority.client().early_data(ask).build().unwrap();
        let server = authority.server().early_data(take).build().unwrap();
        let first = Run::new(&client, &server).go().unwrap();
        assert_eq!((first.client.early.len(), first.server.early), (0, vec![false]));
        let mut second = Run::new(&client, &server).go().unwrap();
        assert_eq!(second.server.early, [ask && take]);
        assert!(second.client.identity.as_ref().unwrap().resumed);
        if !(ask && take) {
            // The client offers 0-RTT only with a ticket that allows it.
            assert!(second.client.early.is_empty());
            continue;
        }
        assert_eq!(second.client.early, [true]);
        assert_eq!(second.client.params, [b"server params", b"server params"]);
        let events = &second.client.events[..3];
        assert_eq!(events, ["bytes Initial", "remembered", "secrets ZeroRtt"]);
        assert_eq!(second.server.events[..4], ["params", "early", "secrets ZeroRtt", "bytes Initial"]);
        exchange(&mut second.client, &mut second.server, Level::ZeroRtt);
        check_agreement(&mut second);
    }
}

#[test]
fn a_replayed_first_flight_gets_no_early_data() {
    //= rfc9001#9.2-1 type=test
    let authority = Authority::new();
    let client = authority.client().early_data(true).build().unwrap();
    let server = authority.server().early_data(true).build().unwrap();
    Run::new(&client, &server).go().unwrap();
    let second = Run::new(&client, &server).go().unwrap();
    assert_eq!(second.server.early, [true]);
    let session = server.start(Version::V1, b"server params").unwrap();
    let mut replayed = End::new(Side::Server, Version::V1, session);
    replayed.read(Level::Initial, &second.client.said[0].1).unwrap();
    assert_eq!(replayed.early, [false]);
}

#[test]
fn bytes_at_the_wrong_level_end_the_handshake() {
    let authority = Authority::new();
    let (client, server) = (authority.client().build().unwrap(), authority.server().build().unwrap());
    let mut pair = Run::new(&client, &server).go().unwrap();
    assert_eq!(pair.client.read(Level::Handshake, &[8]).unwrap_err().code, 10);
    let violation = Some(TransportCode::PROTOCOL_VIOLATION);
    assert_eq!(pair.client.violation.map(|v| v.code), violation);
    let session = server.start(Version::V1, b"").unwrap();
    let mut fresh = End::new(Side::Server, Version::V1, session);
    assert_eq!(fresh.read(Level::Handshake, &[1]).unwrap_err().code, 10);
    assert_eq!(fresh.violation.map(|v| v.code), violation);
}

#[test]
fn bytes_behind_the_last_message_of_a_level_are_a_violation() {
    //= rfc9001#4.1.3-3 type=test
    let authority = Authority::new();
    let (client, server) = (authority.client().build().unwrap(), authority.server().build().unwrap());
    let fresh_server = || End::new(Side::Server, Version::V1, server.start(Version::V1, b"q").unwrap());
    for level in [Level::Initial, Level::Handshake] {
        let mut end = End::new(Side::Client, Version::V1, client.start(Version::V1, "example.org", b"p").unwrap());
        end.read(Level::Initial, &[]).unwrap();
        let mut answer = fresh_server();
        answer.read(Level::Initial, &end.said[0].1).unwrap();
        check_late(&mut end, &answer.said, level);
        check_late(&mut fresh_server(), &end.said, Level::Initial);
    }
}

/// Reads what is said up to that level, with a byte too much there.
#[track_caller]
fn check_late(end: &mut End, said: &[(Level, Vec<u8>)], level: Level) {
    for before in said.iter().filter(|s| s.0 < level) {
        end.read(before.0, &before.1).unwrap();
    }
    let mut last: Vec<u8> = said.iter().filter(|s| s.0 == level).flat_map(|s| s.1.clone()).collect();
    last.push(8);
    assert!(end.read(level, &last).is_err());
    assert_eq!(end.violation.map(|v| v.code), Some(TransportCode::PROTOCOL_VIOLATION), "{level:?}");
}

#[test]
fn a_key_update_message_of_tls_ends_the_connection() {
    //= rfc9001#6-2 type=test
    let authority = Authority::new();
    let (client, server) = (authority.client().build().unwrap(), authority.server().build().unwrap());
    let mut pair = Run::new(&client, &server).go().unwrap();
    for end in [&mut pair.client, &mut pair.server] {
        let alert = end.read(Level::OneRtt, &[24, 0, 0, 1, 0]).unwrap_err();
        assert_eq!(alert.code, 10, "{}", alert.reason);
    }
}

#[test]
fn missing_transport_parameters_are_alert_109() {
    //= rfc9001#8.2-1 type=test
    let authority = Authority::new();
    let (client, server) = (authority.client().build().unwrap(), authority.server().build().unwrap());
    let mut end = End::new(Side::Client, Version::V1, client.start(Version::V1, "example.org", b"params").unwrap());
    end.read(Level::Initial, &[]).unwrap();
    let mut hello = end.said[0].1.clone();
    // The extension's type becomes one that nobody knows.
    let at = hello.windows(10).position(|w| w == b"\x00\x39\x00\x06params").unwrap();
    hello[at] = 0x7a;
    let session = server.start(Version::V1, b"").unwrap();
    let alert = End::new(Side::Server, Version::V1, session).read(Level::Initial, &hello).unwrap_err();
    assert_eq!(alert.code, 109, "{}", alert.reason);
}

#[test]
fn garbage_from_a_peer_is_an_alert_and_never_a_panic() {
    let authority = Authority::new();
    let (client, server) = (authority.client().build().unwrap(), authority.server().build().unwrap());
    let mut good = End::new(Side::Client, Version::V1, client.start(Version::V1, "example.org", b"p").unwrap());
    good.read(Level::Initial, &[]).unwrap();
    let hello = good.said[0].1.clone();
    let mut refused = 0;
    for at in 0..hello.len() {
        let mut changed = hello.clone();
        changed[at] ^= 0x55;
        let session = server.start(Version::V1, b"q").unwrap();
        refused += usize::from(End::new(Side::Server, Version::V1, session).read(Level::Initial, &changed).is_err());
    }
    assert!(refused > 20, "{refused} of {}", hello.len());
}

#[test]
fn provider_and_sessions_can_be_shared_and_moved() {
    fn shared<T: Send + Sync>() {}
    shared::<ClientConfig>();
    shared::<ServerConfig>();
    shared::<AwsLc>();
    fn factory(_: &dyn KeyFactory) {}
    factory(&AwsLc);
}

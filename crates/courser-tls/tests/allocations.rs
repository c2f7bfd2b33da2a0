//! No allocation per datagram with real keys: the twin of the core's test.
#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use courser_core::config::Settings;
use courser_core::crypto::Suite;
use courser_core::engine::{EngineConfig, ServerConfig as ServerPart};
use courser_core::ids::Dir;
use courser_core::stream::Read;
use courser_testing::alloc::{Counting, count};
use courser_testing::duo::Duo;
use courser_tls::{AwsLc, ClientConfig, Credentials, ServerConfig, SystemRandom};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn duo(suite: Suite, settings: &Settings) -> (Duo, ClientConfig) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let credentials = Credentials::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let tls = ServerConfig::builder().certificate(credentials).alpn(["test"]).suites(&[suite]).build().unwrap();
    let engine = || EngineConfig::new(Box::new(AwsLc), Box::new(SystemRandom::new()));
    let mut server = engine();
    server.server = Some(ServerPart::new(Box::new(tls), settings.clone()));
    let client = ClientConfig::builder().danger_accept_any_certificate().alpn(["test"]).build().unwrap();
    (Duo::of(engine(), server), client)
}

fn bulk_takes_no_memory(suite: Suite) {
    let settings = Settings::default();
    let (mut duo, tls) = duo(suite, &settings);
    let (client, server) = duo.connect_with(&tls, &settings);
    let id = duo.client.open_stream(client, Dir::Uni).unwrap().unwrap();
    let (out, mut into, mut moved) = (vec![1; 64 << 10], vec![0; 64 << 10], 0);
    let mut round = |duo: &mut Duo| {
        duo.client.write(client, id, &out).unwrap();
        duo.round();
        while let Ok(Read::Bytes(n)) = duo.server.read(server, id, &mut into) {
            moved += n;
        }
        while duo.client.poll_event().is_some() || duo.server.poll_event().is_some() {}
    };
    (0..500).for_each(|_| round(&mut duo));
    let before = duo.datagrams;
    let ((), counts) = count(|| (0..300).for_each(|_| round(&mut duo)));
    let datagrams = duo.datagrams - before;
    assert!(datagrams > 2000 && moved > 4 << 20, "{datagrams} datagrams, {moved} bytes");
    assert_eq!(counts.calls, 0, "{datagrams} datagrams");
}

#[test]
fn bulk_data_under_aes_128_takes_no_memory_once_it_flows() {
    bulk_takes_no_memory(Suite::Aes128Gcm);
}

#[test]
fn bulk_data_under_chacha20_takes_no_memory_once_it_flows() {
    bulk_takes_no_memory(Suite::ChaCha20Poly1305);
}

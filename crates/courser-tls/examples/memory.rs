//! What a connection costs in memory, place by place, with real TLS and real keys: two engines in one process.
//!
//! ```text
//! cargo run -p courser-tls --example memory -- [idle|used|awake|half-open]
//! ```
//!
//! Only what Rust asks for is listed; keys of aws-lc are in C (about 600 bytes for each direction). The resident memory of
//! ten thousand connections, C included, is asserted by `tests/memory.rs`.
#![allow(clippy::unwrap_used, reason = "a program for developers; what fails shall be seen")]

use core::time::Duration;

use courser_core::config::Settings;
use courser_core::engine::{Engine, EngineConfig, Meta, SendOutcome, ServerConfig as ServerPart, Train};
use courser_core::ids::{Dir, Ecn};
use courser_core::stream::Read;
use courser_testing::duo::{CLIENT, Duo, SERVER};
use courser_testing::sites::{Sites, places, record};
use courser_tls::{AwsLc, ClientConfig, Credentials, Group, ServerConfig, SystemRandom};

#[global_allocator]
static ALLOCATOR: Sites = Sites;

/// Connections that are looked at.
const COUNT: usize = 40;

fn engine() -> EngineConfig {
    EngineConfig::new(Box::new(AwsLc), Box::new(SystemRandom::new()))
}

fn duo(settings: &Settings) -> (Duo, ClientConfig) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let credentials = Credentials::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let tls = ServerConfig::builder().certificate(credentials).alpn(["test"]).build().unwrap();
    let mut server = engine();
    server.server = Some(ServerPart::new(Box::new(tls), settings.clone()));
    let client = ClientConfig::builder()
        .danger_accept_any_certificate()
        .groups(&[Group::X25519])
        .alpn(["test"])
        .build()
        .unwrap();
    (Duo::of(engine(), server), client)
}

/// Connections that are established and idle at both ends.
fn established(duo: &mut Duo, tls: &ClientConfig, settings: &Settings, count: usize, rounds: usize) {
    for _ in 0..count {
        duo.connect_with(tls, settings);
    }
    for _ in 0..rounds {
        duo.round();
        while duo.client.poll_event().is_some() || duo.server.poll_event().is_some() {}
    }
}

/// Connections that are idle behind one request each.
fn used(duo: &mut Duo, tls: &ClientConfig, settings: &Settings, count: usize, rounds: usize) {
    let mut into = [0; 2048];
    for _ in 0..count {
        let (client, server) = duo.connect_with(tls, settings);
        let id = duo.client.open_stream(client, Dir::Bi).unwrap().unwrap();
        duo.client.write(client, id, &[1; 64]).unwrap();
        duo.client.finish(client, id).unwrap();
        duo.round();
        assert_eq!(duo.server.accept_stream(server, Dir::Bi).unwrap(), Some(id));
        while let Ok(Read::Bytes(_)) = duo.server.read(server, id, &mut into) {}
        duo.server.write(server, id, &[2; 1024]).unwrap();
        duo.server.finish(server, id).unwrap();
        duo.round();
        while let Ok(Read::Bytes(_)) = duo.client.read(client, id, &mut into) {}
    }
    established(duo, tls, settings, 0, rounds);
}

/// Connections whose clients say nothing more once the server has answered.
fn half_open(duo: &mut Duo, tls: &ClientConfig, settings: &Settings, count: usize) {
    let mut train = Train::new();
    for n in 0..count {
        record(false);
        let mut client = Engine::new(engine());
        client.connect(duo.now, SERVER, "localhost", tls, settings).unwrap();
        client.process(duo.now);
        record(true);
        let mut from = CLIENT;
        from.set_port(u16::try_from(1024 + n).unwrap());
        while let Some(sent) = client.fill(duo.now, &mut train) {
            let mut bytes = train.bytes().to_vec();
            client.sent(duo.now, &sent, SendOutcome::Sent);
            let meta = Meta { local: None, remote: from, ecn: Ecn::NotEct, stride: sent.segment };
            duo.server.receive(duo.now, &meta, &mut bytes);
        }
        duo.now += Duration::from_millis(300);
        duo.server.process(duo.now);
        while let Some(sent) = duo.server.fill(duo.now, &mut train) {
            duo.server.sent(duo.now, &sent, SendOutcome::Sent);
        }
        while duo.server.poll_event().is_some() {}
    }
}

fn main() {
    let case = std::env::args().nth(1).unwrap_or_else(|| "idle".to_owned());
    let mut settings = Settings::default();
    (settings.idle_timeout, settings.handshake_timeout) = (Duration::from_secs(3600), Duration::from_secs(3600));
    if case == "awake" {
        settings.dormant_after = None;
    }
    let (mut duo, tls) = duo(&settings);
    established(&mut duo, &tls, &settings, 200, 0);
    record(true);
    match case.as_str() {
        "half-open" => half_open(&mut duo, &tls, &settings, COUNT),
        "used" => used(&mut duo, &tls, &settings, COUNT, 3000),
        _ => established(&mut duo, &tls, &settings, COUNT, 3000),
    }
    record(false);
    let all = places("courser_", 4);
    println!("{} bytes of Rust for each of {COUNT} connections", all.iter().map(|p| p.bytes).sum::<usize>() / COUNT);
    for p in all.iter().filter(|p| p.bytes >= COUNT) {
        println!("{:6} {:6} x {:5}  {}", p.bytes / COUNT, p.count, p.bytes / p.count, p.path);
    }
}

//! 0-RTT, versions and address tokens through the blocking face, over loopback; the Tokio face stands on the same hub.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::sync::mpsc::channel;

use common::{ALPN, Identity, PATIENCE, loopback, pattern};
use courser::core::ids::Version;
use courser::tls::{ClientConfig, Credentials, Roots, ServerConfig};
use courser::{
    ClientOptions, Connection, EarlyData, Endpoint, Request, RetryPolicy, ServerOptions, Settings, TokenStore,
};

/// Endpoints with 0-RTT; the server knows nothing of tickets that another made.
fn endpoints(identity: &Identity) -> (Endpoint, Endpoint) {
    let credentials = Credentials::from_pem(identity.0.certificate_pem().as_bytes(), identity.0.key_pem().as_bytes());
    let tls = ServerConfig::builder().certificate(credentials.unwrap()).alpn([ALPN]).early_data(true).build().unwrap();
    let mut server = Endpoint::server(loopback(), ServerOptions::new(tls)).unwrap();
    let roots = Roots::empty().add_der(identity.0.certificate_der()).unwrap();
    let tls = ClientConfig::builder().roots(roots).alpn([ALPN]).early_data(true).build().unwrap();
    let mut client = Endpoint::client(ClientOptions::new(tls)).unwrap();
    server.set_timeout(Some(PATIENCE));
    client.set_timeout(Some(PATIENCE));
    (server, client)
}

/// Echoes one stream of each connection; tells whether it was early when it came.
fn echo(server: &Endpoint, connections: usize) -> std::sync::mpsc::Receiver<bool> {
    let (tell, told) = channel();
    let server = server.clone();
    std::thread::spawn(move || {
        for _ in 0..connections {
            let connection = server.accept().unwrap().accept_early().unwrap();
            let (mut send, mut receive) = connection.accept_bi().unwrap();
            tell.send(connection.early_data() == EarlyData::Accepted).unwrap();
            std::io::copy(&mut receive, &mut send).unwrap();
            send.finish().unwrap();
            connection.established().unwrap();
            assert!(!receive.is_early(), "after the handshake nothing is a replay");
            let _ = connection.closed();
        }
    });
    told
}

fn exchange(connection: &Connection) {
    let sent = pattern(7, 40_000);
    let (mut send, mut receive) = connection.open_bi().unwrap();
    std::io::Write::write_all(&mut send, &sent).unwrap();
    send.finish().unwrap();
    let mut got = Vec::new();
    std::io::Read::read_to_end(&mut receive, &mut got).unwrap();
    assert!(got == sent);
}

#[test]
fn a_second_connection_sends_before_it_has_heard_anything() {
    let (server, client) = endpoints(&Identity::new());
    let told = echo(&server, 3);
    let to = || Request::from(server.local_addr()).server_name("localhost").early_data();
    for n in 0..3 {
        let connection = client.connect_with(to()).unwrap();
        assert_eq!(connection.early_data() != EarlyData::None, n > 0, "connection {n}");
        exchange(&connection);
        assert_eq!(told.recv().unwrap(), n > 0, "connection {n}");
        connection.established().unwrap();
        assert_eq!(connection.early_data(), if n > 0 { EarlyData::Accepted } else { EarlyData::None });
        connection.close(0, b"");
    }
}

#[test]
fn any_worker_takes_what_another_one_gave_a_ticket_for() {
    let identity = Identity::new();
    let credentials = Credentials::from_pem(identity.0.certificate_pem().as_bytes(), identity.0.key_pem().as_bytes());
    let tls = ServerConfig::builder().certificate(credentials.unwrap()).alpn([ALPN]).early_data(true).build().unwrap();
    let mut server = Endpoint::server(loopback(), ServerOptions::new(tls).workers(4)).unwrap();
    server.set_timeout(Some(PATIENCE));
    let client = endpoints(&identity).1;
    const CONNECTIONS: usize = 12;
    let told = echo(&server, CONNECTIONS);
    for n in 0..CONNECTIONS {
        let to = Request::from(server.local_addr()).server_name("localhost").early_data();
        let connection = client.connect_with(to).unwrap();
        exchange(&connection);
        assert_eq!(told.recv().unwrap(), n > 0, "connection {n}");
        connection.close(0, b"");
    }
    let accepted: Vec<u64> = server.workers().iter().map(|w| w.engine.accepted).collect();
    // Twelve draws of one worker in four.
    assert!(accepted.iter().filter(|n| **n > 0).count() > 1 || accepted.len() == 1, "{accepted:?}");
}

#[test]
fn a_server_that_has_forgotten_rejects_and_nothing_is_lost() {
    let identity = Identity::new();
    let (server, client) = endpoints(&identity);
    let told = echo(&server, 1);
    let name = |at| Request::from(at).server_name("localhost").early_data();
    let first = client.connect_with(name(server.local_addr())).unwrap();
    exchange(&first);
    first.close(0, b"");
    assert!(!told.recv().unwrap());
    let (restarted, _) = endpoints(&identity);
    let told = echo(&restarted, 1);
    let second = client.connect_with(name(restarted.local_addr())).unwrap();
    // The answer may be there already.
    assert!(matches!(second.early_data(), EarlyData::Offered | EarlyData::Rejected));
    exchange(&second);
    assert_eq!((told.recv().unwrap(), second.early_data()), (false, EarlyData::Rejected));
    second.close(0, b"");
}

#[test]
fn a_client_begins_again_in_the_version_that_the_server_speaks() {
    let identity = Identity::new();
    let speaking = |versions: &[Version]| {
        let mut settings = Settings::default();
        settings.versions = versions.to_vec();
        settings
    };
    let server = Endpoint::server(loopback(), identity.server().settings(speaking(&[Version::V1]))).unwrap();
    let mut client = Endpoint::client(identity.client().settings(speaking(&[Version::V2, Version::V1]))).unwrap();
    client.set_timeout(Some(PATIENCE));
    let at = server.local_addr();
    let accepting = std::thread::spawn(move || server.accept_connection().map(|c| (c.version(), server)));
    let connection = client.connect_to(at, "localhost").unwrap();
    assert_eq!(connection.version(), Version::V1);
    assert_eq!(accepting.join().unwrap().unwrap().0, Version::V1);
}

#[test]
fn a_client_that_proved_its_address_once_is_not_asked_again_even_after_a_restart() {
    let identity = Identity::new();
    let server = Endpoint::server(loopback(), identity.server().retry(RetryPolicy::Always)).unwrap();
    let at = server.local_addr();
    let answering = server.clone();
    std::thread::spawn(move || {
        while let Ok(incoming) = answering.accept() {
            assert!(incoming.is_validated());
            let _ = incoming.accept().map(|connection| connection.closed());
        }
    });
    let connect = |client: &Endpoint, tokens: &TokenStore| {
        let connection = client.connect_to(at, "localhost").unwrap();
        let begin = std::time::Instant::now();
        while tokens.is_empty() && begin.elapsed() < PATIENCE {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        connection.close(0, b"");
        server.stats().retries
    };
    let tokens = TokenStore::new();
    let mut client = Endpoint::client(identity.client().tokens(tokens.clone())).unwrap();
    client.set_timeout(Some(PATIENCE));
    // A ClientHello in two datagrams may be asked for twice, when they arrive apart.
    let once = connect(&client, &tokens);
    assert!((1..=2).contains(&once), "{once}");
    assert_eq!(connect(&client, &tokens), once, "the second shows its token");
    let file = std::env::temp_dir().join(format!("courser-address-tokens-{}", std::process::id()));
    tokens.save(&file).unwrap();
    let tokens = TokenStore::open(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let mut restarted = Endpoint::client(identity.client().tokens(tokens.clone())).unwrap();
    restarted.set_timeout(Some(PATIENCE));
    assert_eq!(connect(&restarted, &tokens), once, "the third shows what came from the file");
    tokens.clear();
    assert!(connect(&restarted, &tokens) > once, "without a token the server asks again");
}

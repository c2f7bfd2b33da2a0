//! What a subscriber of `tracing` sees of a connection. A test of its own program: there is one subscriber per process.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "common/lines.rs"]
mod lines;

mod common;

use common::{Identity, PATIENCE, loopback};
use courser::Endpoint;
use lines::Lines;

#[test]
fn a_connection_is_followed_from_the_call_to_its_end() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .with_ansi(false)
        .with_env_filter("courser=debug,caller=debug");
    subscriber.init();
    let identity = Identity::new();
    let server = Endpoint::server(loopback(), identity.server()).unwrap();
    let mut client = Endpoint::client(identity.client()).unwrap();
    client.set_timeout(Some(PATIENCE));
    let at = server.local_addr();
    let (tell, told) = std::sync::mpsc::channel();
    let accepting = std::thread::spawn(move || {
        let connection = server.accept_connection().unwrap();
        tell.send(()).unwrap();
        let _ = connection.closed();
    });
    let asking = tracing::debug_span!(target: "caller", "fetch", page = 7);
    let connection = asking.in_scope(|| client.connect_to(at, "localhost")).unwrap();
    // A client that closes at once may be gone before its server has heard that the handshake is complete.
    told.recv_timeout(PATIENCE).unwrap();
    connection.close(9, b"enough");
    let _ = connection.closed();
    accepting.join().unwrap();
    drop(client);

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let line = |needles: &[&str]| {
        let found = text.lines().any(|line| needles.iter().all(|needle| line.contains(needle)));
        assert!(found, "no line with {needles:?} in\n{text}");
    };
    line(&["fetch{page=7}", "connecting", "server_name=\"localhost\"", &format!("addr={at}")]);
    for side in ["Client", "Server"] {
        line(&["endpoint{local=", ":connection{", &format!("side={side}"), "remote=", "handshake complete"]);
        line(&[&format!("side={side}"), "version=", "closed", "reason="]);
    }
    line(&["side=Client", "server_name=\"localhost\"", "closed"]);
    assert!(text.lines().count() < 20, "a connection is a few lines:\n{text}");
}

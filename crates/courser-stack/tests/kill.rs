//! Applications that are killed: the service has afterwards what it had before, as the operating system counts.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(target_os = "linux")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::ChildStdout;
use std::time::Duration;

use common::{Place, Possessions, plays, program, until, variable};
use courser::certs::Throwaway;
use courser_session::control::{Protocol, Trust};
use courser_session::stack::{Dir, Stack};
use courser_stack::host::Config;

/// How often an application is killed; `COURSER_KILLS` says otherwise.
const KILLS: u64 = 24;

/// An application that echoes until it is killed. It prints where it listens.
#[test]
fn role_server() {
    if !plays("role_server") {
        return;
    }
    let stack = Stack::attach(variable("SOCKET").as_ref()).unwrap();
    let identity = Throwaway::local().unwrap();
    let listener = stack.create(Protocol::Quic).unwrap();
    stack.add_certificate(listener, identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes()).unwrap();
    stack.bind(listener, "quic://127.0.0.1:0").unwrap();
    stack.listen(listener, 64).unwrap();
    println!("\nLISTENS {}", stack.local_addr(listener).unwrap());
    loop {
        let Ok(connection) = stack.accept(listener) else { return };
        let stack = stack.clone();
        std::thread::spawn(move || {
            while let Ok(stream) = stack.accept(connection) {
                let mut block = vec![0; 64 << 10];
                while let Ok(n) = stack.read(stream, &mut block) {
                    if n == 0 || stack.write_all(stream, &block[..n]).is_err() {
                        break;
                    }
                }
                let _ = stack.finish(stream);
                let _ = stack.close(stream);
            }
            let _ = stack.close(connection);
        });
    }
}

/// An application that sends until it is killed, or until its peer is.
#[test]
fn role_client() {
    if !plays("role_client") {
        return;
    }
    let stack = Stack::attach(variable("SOCKET").as_ref()).unwrap();
    let connection = stack.create(Protocol::Quic).unwrap();
    stack.set_trust(connection, Trust::Anybody).unwrap();
    stack.connect(connection, &format!("quic://{}", variable("SERVER"))).unwrap();
    println!("\nCONNECTED");
    let block = vec![7; 100_000];
    loop {
        let stream = stack.create(Protocol::Quic).unwrap();
        if stack.connect_stream(stream, connection, Dir::Bi).is_err() || stack.write_all(stream, &block).is_err() {
            return;
        }
        let _ = stack.finish(stream);
        let mut back = vec![0; 64 << 10];
        while matches!(stack.read(stream, &mut back), Ok(n) if n > 0) {}
        let _ = stack.close(stream);
    }
}

/// The rest of the line that begins with the word, and what is to be kept so that the program can go on to print.
fn line(child: &mut std::process::Child, word: &str) -> (String, BufReader<ChildStdout>) {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    loop {
        text.clear();
        assert!(out.read_line(&mut text).unwrap() > 0, "the program ended before it said {word}");
        if let Some(rest) = text.strip_prefix(word) {
            return (rest.trim().to_owned(), out);
        }
    }
}

#[test]
fn who_is_killed_leaves_nothing_behind() {
    let place = Place::new(Config::default());
    let socket = place.socket();
    let kills: u64 = std::env::var("COURSER_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    // One round first, so that what is made once is there.
    round(&place, socket.to_str().unwrap(), 0);
    let before = Possessions::now();
    for n in 1..=kills {
        round(&place, socket.to_str().unwrap(), n);
        until("what the killed had is gone", || Possessions::now() == before);
    }
    assert_eq!(place.ask("show sessions")["objects"].as_array().unwrap().len(), 0);
}

/// A server and a client, of which one is killed in the middle of its work and the other one notices.
fn round(place: &Place, socket: &str, n: u64) {
    let mut server = program("role_server", &[("SOCKET", socket)]);
    let (address, _listening) = line(&mut server, "LISTENS");
    let mut client = program("role_client", &[("SOCKET", socket), ("SERVER", &address)]);
    let _connected = line(&mut client, "CONNECTED");
    // A time that differs from round to round, so that the kill finds them at many places.
    std::thread::sleep(Duration::from_micros(n.wrapping_mul(7_919) % 30_000));
    let (first, second) = if n.is_multiple_of(2) { (&mut client, &mut server) } else { (&mut server, &mut client) };
    first.kill().unwrap();
    first.wait().unwrap();
    until("the killed one is gone", || place.host().applications() <= 1);
    second.kill().unwrap();
    second.wait().unwrap();
    until("both are gone", || place.host().applications() == 0);
}

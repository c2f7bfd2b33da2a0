//! The program of the host stack over three protocols, through a service in another process and through hosts of its own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{COURSER, Server, assert_fails, command, courser, identity, object, text};

/// A service that programs can attach to; its folder is where its socket is.
struct Stack {
    service: Server,
    folder: tempfile::TempDir,
}

impl Stack {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let mut child = command(COURSER, &["stack", "--drain", "1ms", "--socket", text(&socket)])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut rest = BufReader::new(child.stderr.take().unwrap());
        rest.read_line(&mut line).unwrap();
        assert!(line.contains("applications attach at"), "{line}");
        Self { service: Server { child, addr: text(&socket).to_owned(), rest: Some(rest) }, folder }
    }
}

/// A server over that, with what follows the command.
fn server(protocol: &str, over: &[&str]) -> Server {
    Server::courser(&[&["vcl-test", "server", "-p", protocol, "127.0.0.1:0"], over].concat())
}

fn client(uri: &str, over: &[&str]) -> std::process::Output {
    let job = ["vcl-test", "client", uri, "--connections", "2", "--streams", "3", "--json", "--timeout", "60s"];
    courser(&[&job[..], over].concat())
}

#[track_caller]
fn assert_echoes(protocol: &str, bytes: &str, (at_server, at_client): (&[&str], &[&str])) {
    let server = server(protocol, at_server);
    assert!(server.addr.starts_with(&format!("{protocol}://127.0.0.1:")), "{}", server.addr);
    let mut over = vec!["--bytes", bytes];
    if protocol == "quic" {
        over.push("--insecure");
    }
    over.extend(at_client);
    let report = object(&client(&server.addr, &over));
    assert_eq!(report["protocol"], protocol);
    assert_eq!(report["verified"], true);
    assert_eq!(
        (report["streams"].as_u64(), report["bytes"].as_u64()),
        (Some(6), bytes.parse().ok().map(|n: u64| 6 * n))
    );
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn the_same_program_echoes_over_three_protocols_through_a_service() {
    let stack = Stack::start();
    let over = ["--socket", &stack.service.addr];
    for (protocol, bytes) in [("quic", "3000001"), ("tcp", "3000001"), ("udp", "50001")] {
        assert_echoes(protocol, bytes, (&over, &over));
    }
    assert!(stack.folder.path().exists());
}

#[test]
fn hosts_inside_the_programs_and_a_service_understand_each_other() {
    let stack = Stack::start();
    let over = ["--socket", &stack.service.addr];
    for (protocol, bytes) in [("quic", "300001"), ("tcp", "300001"), ("udp", "20001")] {
        assert_echoes(protocol, bytes, (&["--inside"], &over));
        assert_echoes(protocol, bytes, (&["--inside"], &["--inside"]));
    }
}

#[test]
fn failures_have_the_exit_codes_of_other_commands() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    assert_fails(&client("tcp://127.0.0.1:1", &["--socket", text(&nowhere)]), 7, &["courser stack --socket"]);
    assert_fails(&client("tcp://127.0.0.1:1", &["--inside"]), 4, &[]);
    assert_fails(&client("http://127.0.0.1:1", &["--inside"]), 3, &["quic://HOST:PORT"]);
    assert_fails(&client("tcp://127.0.0.1:1", &["--inside", "-p", "udp"]), 2, &["udp", "tcp"]);
    // A certificate that nobody vouches for is refused without --insecure, and taken from its file.
    let (cert, key) = identity(folder.path(), (2020, 1, 1), (2060, 1, 1));
    let server = server("quic", &["--inside", "--cert", text(&cert), "--key", text(&key)]);
    assert_fails(&client(&server.addr, &["--inside"]), 5, &[]);
    let report = object(&client(&server.addr, &["--inside", "--ca", text(&cert), "--bytes", "1000"]));
    assert_eq!(report["bytes"], 6000);
}

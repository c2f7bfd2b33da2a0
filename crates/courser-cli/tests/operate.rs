//! Signals to servers of every face: connections end in their time, certificates are read again, a new process takes over.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

mod common;

use std::io::BufRead;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use courser::tls::ClientConfig;
use courser::{ClientOptions, Connection, Endpoint};
use courser_cli::perf_proto;

use common::{Server, assert_fails, courser, identity, signal, text};

const APIS: [&str; 4] = ["direct", "session", "blocking", "tokio"];
/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections that do nothing until they are closed.
struct Held {
    connections: Vec<Connection>,
    /// When it goes, they go.
    _end: Endpoint,
}

impl Held {
    fn open(addr: &str) -> Self {
        let tls = ClientConfig::builder().danger_accept_any_certificate().alpn([perf_proto::ALPN]).build().unwrap();
        let mut end = Endpoint::client(ClientOptions::new(tls)).unwrap();
        end.set_timeout(Some(PATIENCE));
        let addr = addr.parse().unwrap();
        let connections = (0..3).map(|_| end.connect_to(addr, "localhost").unwrap()).collect();
        Self { connections, _end: end }
    }

    #[track_caller]
    fn assert_open(&self) {
        assert!(self.connections.iter().all(|connection| connection.close_reason().is_none()));
    }

    /// Waits until the server has closed them.
    #[track_caller]
    fn assert_closed(&mut self) {
        for connection in &mut self.connections {
            connection.set_timeout(Some(PATIENCE));
            assert!(connection.closed().application().is_some(), "{:?}", connection.close_reason());
        }
    }
}

/// Small requests of a client of its own.
fn ask(addr: &str, trust: &[&str]) -> Output {
    ask_for("5s", addr, trust)
}

/// The same with another limit.
fn ask_for(timeout: &str, addr: &str, trust: &[&str]) -> Output {
    let args = ["perf", "client", addr, "--mode", "requests", "--count", "3", "--timeout", timeout];
    courser(&[&args[..], trust].concat())
}

/// The same with each of them, at once.
fn each<const N: usize>(apis: [&str; N], test: impl Fn(&str) + Sync) {
    std::thread::scope(|scope| {
        apis.map(|api| {
            scope.spawn({
                let test = &test;
                move || test(api)
            })
        })
        .map(|t| t.join().unwrap())
    });
}

impl Server {
    /// Reads what it says until a line has this in it.
    fn until(&mut self, piece: &str) -> String {
        let rest = self.rest.as_mut().unwrap();
        loop {
            let mut line = String::new();
            assert!(rest.read_line(&mut line).unwrap() > 0, "it ended without {piece:?}");
            if line.contains(piece) {
                return line;
            }
        }
    }

    /// Waits until it ends by itself.
    fn ends(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn connections_end_in_their_time_after_sigterm() {
    each(APIS, |api| {
        let mut server = Server::perf(&["--api", api, "--drain", "30m", "--workers", "2"]);
        let held = Held::open(&server.addr);
        server.ask_to_end();
        server.until("may go on for 1800s");
        assert_fails(&ask_for("300ms", &server.addr, &["--insecure"]), 4, &["nobody answered"]);
        held.assert_open();
        drop(held);
        assert_eq!(server.ends(), Some(0));
    });
}

#[test]
fn what_has_not_ended_in_time_or_is_not_to_be_waited_for_is_closed() {
    each(APIS, |api| {
        for twice in [false, true] {
            let mut server = Server::perf(&["--api", api, "--drain", if twice { "60m" } else { "100ms" }]);
            let mut held = Held::open(&server.addr);
            server.ask_to_end();
            server.until("may go on");
            if twice {
                signal(&server.child, "-INT");
            } else {
                server.until("the time is over");
            }
            held.assert_closed();
            assert_eq!(server.ends(), Some(0));
        }
    });
}

#[test]
fn a_ping_closes_its_connection_also_when_it_does_not_believe_the_certificate() {
    let mut server = Server::perf(&["--drain", "30m"]);
    assert_fails(&courser(&["ping", &server.addr]), 5, &["--insecure"]);
    server.ask_to_end();
    assert_eq!(server.ends(), Some(0));
}

#[test]
fn certificates_are_read_again_on_sighup() {
    each(APIS, |api| {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (cert, key) = identity(old.path(), (2024, 1, 1), (2090, 1, 1));
        let (next_cert, next_key) = identity(new.path(), (2024, 1, 1), (2090, 1, 1));
        let trust_old = old.path().join("old.pem");
        std::fs::copy(&cert, &trust_old).unwrap();
        let mut server = Server::perf(&["--api", api, "--cert", text(&cert), "--key", text(&key), "--drain", "0s"]);
        let port = server.addr.rsplit_once(':').unwrap().1;
        let at = format!("localhost:{port}");
        let mut held = Held::open(&server.addr);
        assert_eq!(ask(&at, &["--ca", text(&trust_old)]).status.code(), Some(0), "{api}");
        // What cannot be used changes nothing.
        std::fs::write(&cert, "no certificate").unwrap();
        signal(&server.child, "-HUP");
        let said = server.until("warning");
        assert!(said.contains("cert.pem"), "{said}");
        assert_eq!(ask(&at, &["--ca", text(&trust_old)]).status.code(), Some(0), "{api}");
        std::fs::copy(&next_cert, &cert).unwrap();
        std::fs::copy(&next_key, &key).unwrap();
        signal(&server.child, "-HUP");
        server.until("that was just read");
        assert_eq!(ask(&at, &["--ca", text(&next_cert)]).status.code(), Some(0), "{api}");
        assert_fails(&ask(&at, &["--ca", text(&trust_old)]), 5, &["--ca"]);
        held.assert_open();
        server.ask_to_end();
        held.assert_closed();
        assert_eq!(server.ends(), Some(0));
    });
}

/// Ends a process that we did not start, in any case.
struct Other(String);

impl Other {
    fn signal(&self, which: &str) {
        let _ = Command::new("kill").args([which, &self.0]).stderr(Stdio::null()).status();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.signal("-KILL");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_new_process_takes_the_port_and_the_old_one_ends_with_its_connections() {
    each(["session", "blocking", "tokio"], |api| {
        let mut server = Server::perf(&["--api", api, "--workers", "2"]);
        let held = Held::open(&server.addr);
        signal(&server.child, "-USR2");
        let said = server.until("listening on");
        assert_eq!(said.trim().strip_prefix("listening on "), Some(&*server.addr), "the same port");
        let said = server.until("has the port");
        let new = Other(said.split_whitespace().nth(1).unwrap().to_owned());
        assert_eq!(ask(&server.addr, &["--insecure"]).status.code(), Some(0), "{api}");
        assert!(server.child.try_wait().unwrap().is_none(), "the old one has connections");
        held.assert_open();
        drop(held);
        assert_eq!(server.ends(), Some(0));
        assert_eq!(ask(&server.addr, &["--insecure"]).status.code(), Some(0), "{api}");
        new.signal("-TERM");
        let began = Instant::now();
        while ask(&server.addr, &["--insecure"]).status.code() != Some(4) {
            assert!(began.elapsed() < PATIENCE);
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_new_process_that_does_not_come_up_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = identity(dir.path(), (2024, 1, 1), (2090, 1, 1));
    let mut server = Server::perf(&["--api", "tokio", "--cert", text(&cert), "--key", text(&key)]);
    std::fs::remove_file(&key).unwrap();
    signal(&server.child, "-USR2");
    server.until("did not come up");
    assert_eq!(ask(&server.addr, &["--insecure"]).status.code(), Some(0));
    assert_eq!(server.end().0, Some(0));
    let mut server = Server::perf(&[]);
    signal(&server.child, "-USR2");
    server.until("--api tokio");
    assert_eq!(ask(&server.addr, &["--insecure"]).status.code(), Some(0));
    assert_eq!(server.end().0, Some(0));
}

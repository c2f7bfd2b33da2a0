//! A port goes from one endpoint to another: no connection breaks, new ones go to the new endpoint, old ones end at the old
//! one. In one process, over two, and when the new one does not come up.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(all(target_os = "linux", not(feature = "portable")))]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{Identity, PATIENCE, loopback, pattern};
use courser::tls::{Credentials, ServerConfig};
use courser::{
    ClientOptions, Connection, ConnectionError, Endpoint, EndpointError, Handover, HandoverError, RetryPolicy,
    ServerOptions, Steering,
};

/// Answers every stream with `name` and what it said, until nobody is left to be let in.
fn answer(server: &Endpoint, name: &'static [u8]) -> thread::JoinHandle<ConnectionError> {
    let server = server.clone();
    thread::spawn(move || {
        loop {
            let incoming = match server.accept() {
                Ok(incoming) => incoming,
                Err(e) => return e,
            };
            thread::spawn(move || {
                let Ok(connection) = incoming.accept() else { return };
                while let Ok((mut send, mut receive)) = connection.accept_bi() {
                    thread::spawn(move || {
                        send.write_all(name).unwrap();
                        while let Ok(Some(chunk)) = receive.read_chunk() {
                            if send.write_chunk(chunk).is_err() {
                                return;
                            }
                        }
                        let _ = send.finish();
                    });
                }
            });
        }
    })
}

fn dial(client: ClientOptions, to: SocketAddr) -> (Endpoint, Connection) {
    let mut end = Endpoint::client(client.bind(loopback())).unwrap();
    end.set_timeout(Some(PATIENCE));
    let mut connection = end.connect_to(to, "localhost").unwrap();
    connection.set_timeout(Some(PATIENCE));
    (end, connection)
}

/// Sends so much, calls `between` in the middle; who answered.
fn ask(connection: &Connection, seed: u64, len: usize, between: impl FnOnce()) -> String {
    let sent = pattern(seed, len);
    let (mut send, mut receive) = connection.open_bi().unwrap();
    send.set_timeout(Some(PATIENCE));
    receive.set_timeout(Some(PATIENCE));
    let mut name = [0; 3];
    send.write_all(&sent[..len / 2]).unwrap();
    receive.read_exact(&mut name).unwrap();
    between();
    let mut rest = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            send.write_all(&sent[len / 2..]).unwrap();
            send.finish().unwrap();
        });
        receive.read_to_end(&mut rest).unwrap();
    });
    assert!(rest == sent);
    String::from_utf8(name.to_vec()).unwrap()
}

fn upgrade(workers: usize, steering: Steering) {
    let identity = Identity::new();
    let options = || identity.server().workers(workers).steering(steering);
    let old = Endpoint::server(loopback(), options()).unwrap();
    let to = old.local_addr();
    let old_answers = answer(&old, b"old");
    let mut before: Vec<_> = (0..6).map(|_| dial(identity.client(), to)).collect();
    let (big_end, big) = before.pop().unwrap();
    let (moved, go_on) = (mpsc::channel(), mpsc::channel());
    let transfer = thread::spawn(move || {
        // In the middle of a transfer.
        let who = ask(&big, 9, 2 << 20, || {
            moved.0.send(()).unwrap();
            go_on.1.recv().unwrap();
        });
        (who, big, big_end)
    });
    moved.1.recv().unwrap();
    let handover = old.hand_over().unwrap();
    assert_eq!((handover.workers(), handover.local_addr().unwrap()), (workers, to));
    let new = Endpoint::take_over(handover, options()).unwrap();
    assert_eq!(new.local_addr(), to);
    let _new_answers = answer(&new, b"new");
    go_on.0.send(()).unwrap();
    let (_after_end, after) = dial(identity.client(), to);
    assert_eq!(ask(&after, 1, 50_000, || ()), "new");
    for (end, connection) in &before {
        // Old connections move as before, also to addresses that the system gives to other sockets.
        assert_eq!(ask(connection, 2, 50_000, || end.rebind(loopback()).unwrap()), "old");
    }
    let (who, big, _big_end) = transfer.join().unwrap();
    assert_eq!(who, "old");
    for connection in before.iter().map(|(_, connection)| connection).chain([&big]) {
        connection.close(0, b"");
    }
    assert_eq!(old.drain(PATIENCE), Ok(()), "all have ended at the old one");
    assert_eq!(old_answers.join().unwrap(), ConnectionError::EndpointGone);
    let relayed: u64 = new.workers().iter().map(|w| w.worker.relayed).sum();
    let dropped: u64 = new.workers().iter().map(|w| w.worker.relay_dropped).sum();
    println!("{workers} workers, {steering:?}: {relayed} datagrams went on to the old one, {dropped} found no room");
    assert!(relayed > 0);
    drop(old);
    assert_eq!(ask(&after, 3, 50_000, || ()), "new");
    assert_eq!(ask(&dial(identity.client(), to).1, 4, 2_000, || ()), "new");
    assert_eq!(new.stats().accepted, 2);
}

#[test]
fn no_connection_breaks_when_a_port_changes_hands() {
    upgrade(1, Steering::Filter);
    for steering in [Steering::Filter, Steering::Hash, Steering::One] {
        upgrade(3, steering);
    }
}

#[test]
fn ports_change_hands_again_before_the_first_hands_are_empty() {
    let identity = Identity::new();
    let options = || identity.server().workers(2);
    let names: [&'static [u8]; 4] = [b"one", b"two", b"thr", b"fou"];
    let (mut ends, mut connections) = (Vec::new(), Vec::new());
    let mut end = Endpoint::server(loopback(), options()).unwrap();
    let to = end.local_addr();
    for name in names {
        if !connections.is_empty() {
            let next = Endpoint::take_over(end.hand_over().unwrap(), options()).unwrap();
            ends.push(std::mem::replace(&mut end, next));
        }
        let _ = answer(&end, name);
        connections.push(dial(identity.client(), to));
    }
    for round in 0..3 {
        for (n, ((_, connection), name)) in connections.iter().zip(names).enumerate() {
            assert_eq!(ask(connection, round + n as u64, 20_000, || ()).as_bytes(), name);
        }
    }
    assert!(matches!(end.hand_over(), Err(HandoverError::TooManyElders)));
    // The second goes, with its connection. The first depends on the last alone.
    let second = ends.remove(1);
    assert_eq!(second.drain(Duration::from_millis(1)), Err(ConnectionError::TimedOut));
    assert!(connections.remove(1).1.closed().application().is_some());
    drop(second);
    for ((_, connection), name) in connections.iter().zip(["one", "thr", "fou"]) {
        assert_eq!(ask(connection, 7, 20_000, || ()), name);
    }
    // There is room for another one, whose name is that of the second.
    let mut next = end.hand_over();
    while matches!(next, Err(HandoverError::TooManyElders)) {
        thread::sleep(Duration::from_millis(5));
        next = end.hand_over();
    }
    let fifth = Endpoint::take_over(next.unwrap(), options()).unwrap();
    let _ = answer(&fifth, b"fif");
    connections.push(dial(identity.client(), to));
    for ((end, connection), name) in connections.iter().zip(["one", "thr", "fou", "fif"]) {
        assert_eq!(ask(connection, 8, 20_000, || end.rebind(loopback()).unwrap()), name);
    }
}

#[test]
fn handshakes_under_way_are_completed_where_they_began() {
    let identity = Identity::new();
    // Each client has to come twice, and the application takes its time in between.
    let options = || identity.server().workers(2).retry(RetryPolicy::Always);
    let old = Endpoint::server(loopback(), options()).unwrap();
    let to = old.local_addr();
    let connecting: Vec<_> = (0..4)
        .map(|_| {
            let client = identity.client();
            thread::spawn(move || {
                let (_end, connection) = dial(client, to);
                let (mut send, mut receive) = connection.open_bi().unwrap();
                send.write_all(b"who").unwrap();
                send.finish().unwrap();
                let mut name = Vec::new();
                receive.read_to_end(&mut name).unwrap();
                name
            })
        })
        .collect();
    let mut waiting: Vec<_> = (0..4).map(|_| old.accept().unwrap()).collect();
    let new = Endpoint::take_over(old.hand_over().unwrap(), options()).unwrap();
    let _answers = answer(&new, b"new");
    for incoming in waiting.drain(..) {
        let connection = incoming.accept().unwrap();
        thread::spawn(move || {
            let (mut send, mut receive) = connection.accept_bi().unwrap();
            receive.read_to_end(&mut Vec::new()).unwrap();
            send.write_all(b"old").unwrap();
            send.finish().unwrap();
            connection.closed()
        });
    }
    for client in connecting {
        assert_eq!(client.join().unwrap(), b"old");
    }
    old.drain(PATIENCE).unwrap();
    assert_eq!((old.stats().accepted, new.stats().accepted), (4, 0));
}

#[test]
fn who_gives_a_port_away_in_vain_has_it_again() {
    let identity = Identity::new();
    let options = || identity.server().workers(2);
    let old = Endpoint::server(loopback(), options()).unwrap();
    let to = old.local_addr();
    let _answers = answer(&old, b"old");
    let (_end, connection) = dial(identity.client(), to);
    // The new process does not come up, once before and once after it has the sockets.
    drop(old.hand_over().unwrap());
    assert_eq!(ask(&connection, 1, 20_000, || ()), "old");
    assert_eq!(ask(&dial(identity.client(), to).1, 1, 20_000, || ()), "old");
    let mut wrong = options();
    wrong.settings.max_udp_payload = 5;
    let refused = Endpoint::take_over(old.hand_over().unwrap(), wrong);
    assert!(matches!(refused, Err(EndpointError::Settings(_))), "{refused:?}");
    assert_eq!(ask(&connection, 2, 20_000, || ()), "old");
    let new = Endpoint::take_over(old.hand_over().unwrap(), options()).unwrap();
    drop(new);
    assert_eq!(ask(&connection, 3, 20_000, || ()), "old");
    assert_eq!(ask(&dial(identity.client(), to).1, 3, 20_000, || ()), "old");
    let client = Endpoint::client(identity.client()).unwrap();
    assert!(matches!(client.hand_over(), Err(HandoverError::NoServer)));
}

#[test]
fn a_port_that_was_handed_over_is_not_handed_over_again_while_someone_has_it() {
    let identity = Identity::new();
    let options = || identity.server().workers(2);
    let old = Endpoint::server(loopback(), options()).unwrap();
    let to = old.local_addr();
    let _answers = answer(&old, b"old");
    let under_way = old.hand_over().unwrap();
    let again = old.hand_over();
    assert!(matches!(again, Err(HandoverError::Given)), "{again:?}");
    let new = Endpoint::take_over(under_way, options()).unwrap();
    let new_answers = answer(&new, b"new");
    assert!(matches!(old.hand_over(), Err(HandoverError::Given)));
    // The one that has it is not disturbed by that, and may give it on.
    assert_eq!(ask(&dial(identity.client(), to).1, 1, 20_000, || ()), "new");
    let third = Endpoint::take_over(new.hand_over().unwrap(), options()).unwrap();
    let third_answers = answer(&third, b"thr");
    for (gone, answers) in [(new, new_answers), (third, third_answers)] {
        assert!(matches!(old.hand_over(), Err(HandoverError::Given)));
        gone.drain(PATIENCE).unwrap();
        drop(gone);
        // Whoever answers has the endpoint, too.
        answers.join().unwrap();
    }
    // Nobody has it but the first one.
    let last = Endpoint::take_over(old.hand_over().unwrap(), options()).unwrap();
    let _last_answers = answer(&last, b"las");
    assert_eq!(ask(&dial(identity.client(), to).1, 1, 20_000, || ()), "las");
}

#[test]
fn something_else_than_a_handover_is_not_taken_for_one() {
    for bytes in [&b""[..], b"courser1", b"courser1\0\0\0\x01", b"courser0\x01\0\0\x01", b"GET / HTTP/1.1\r\n\r\n"] {
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(bytes).unwrap();
        drop(one);
        assert!(Handover::receive(&other).is_err(), "{bytes:?}");
    }
}

/// What the new process of the test below is told.
const HERE: &str = "COURSER_TEST_HANDOVER";

/// The new process, when this test is started as one; else nothing.
#[test]
fn the_new_process() {
    let Some(dir) = std::env::var_os(HERE).map(std::path::PathBuf::from) else { return };
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let credentials = Credentials::from_pem(&read("cert.pem"), &read("key.pem")).unwrap();
    let tls = ServerConfig::builder().certificate(credentials).alpn([common::ALPN]).build().unwrap();
    let stream = UnixStream::connect(dir.join("socket")).unwrap();
    let handover = Handover::receive(&stream).unwrap();
    let new = Endpoint::take_over(handover, ServerOptions::new(tls)).unwrap();
    let _answers = answer(&new, b"new");
    println!("\nthe port is taken");
    // Until the other end has done what it wanted.
    let _ = (&stream).read(&mut [0]);
    println!("\nrelayed {}", new.workers().iter().map(|w| w.worker.relayed).sum::<u64>());
}

#[test]
fn a_new_process_takes_the_port_over() {
    let identity = Identity::new();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("cert.pem"), identity.0.certificate_pem()).unwrap();
    std::fs::write(dir.path().join("key.pem"), identity.0.key_pem()).unwrap();
    let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
    let old = Endpoint::server(loopback(), identity.server().workers(2)).unwrap();
    let to = old.local_addr();
    let _answers = answer(&old, b"old");
    let before: Vec<_> = (0..4).map(|_| dial(identity.client(), to)).collect();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_new_process", "--nocapture"])
        .env(HERE, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stream = listener.accept().unwrap().0;
    old.hand_over().unwrap().send(&stream).unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line == "the port is taken"));
    let (_end, after) = dial(identity.client(), to);
    assert_eq!(ask(&after, 1, 200_000, || ()), "new");
    for (end, connection) in &before {
        assert_eq!(ask(connection, 2, 200_000, || end.rebind(loopback()).unwrap()), "old");
    }
    drop(before);
    old.drain(PATIENCE).unwrap();
    drop(old);
    assert_eq!(ask(&after, 3, 200_000, || ()), "new");
    drop(stream);
    let relayed = said.find_map(|line| line.strip_prefix("relayed ").map(|n| n.parse::<u64>().unwrap()));
    assert!(relayed.is_some_and(|n| n > 0), "{relayed:?}");
    assert!(child.wait().unwrap().success());
}

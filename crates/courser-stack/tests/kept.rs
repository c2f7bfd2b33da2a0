//! What a program has used is given back when its last user is gone, counted at the host and by the operating system.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::{PATIENCE, Place, Possessions, until};
use courser::certs::Throwaway;
use courser_session::control::{Protocol, Trust};
use courser_session::stack::{Dir, Session, Stack};
use courser_stack::host::Config;

/// What the process has is counted: one test at a time, and what the one before had is gone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    until("the test before has ended", || Possessions::now().threads == 0);
    guard
}

fn count(place: &Place, kind: &str) -> usize {
    let all = place.ask("show sessions");
    all["objects"].as_array().unwrap().iter().filter(|object| object["kind"] == kind).count()
}

fn certificates(place: &Place) -> u64 {
    place.ask("show applications").as_array().unwrap().iter().map(|one| one["certificates"].as_u64().unwrap()).sum()
}

fn listen(stack: &Stack, protocol: Protocol) -> (Session, String) {
    let listener = stack.create(protocol).unwrap();
    if protocol == Protocol::Quic {
        let identity = Throwaway::local().unwrap();
        stack.add_certificate(listener, identity.certificate_pem().as_bytes(), identity.key_pem().as_bytes()).unwrap();
    }
    stack.bind(listener, &format!("{protocol}://127.0.0.1:0")).unwrap();
    // A thread that takes in what came may be kept from running for many connections.
    stack.listen(listener, 4096).unwrap();
    let port = stack.local_addr(listener).unwrap().port();
    (listener, format!("{protocol}://127.0.0.1:{port}"))
}

/// A connection that says something and is closed.
fn call(stack: &Stack, uri: &str, protocol: Protocol, alive: Duration) {
    let connection = stack.create(protocol).unwrap();
    stack.set_timeout(connection, Some(PATIENCE)).unwrap();
    if protocol == Protocol::Quic {
        stack.set_trust(connection, Trust::Anybody).unwrap();
        // Settings of its own, and so an endpoint of its own.
        stack.set_option(connection, courser_session::stack::Setting::IdleTimeout(alive)).unwrap();
    }
    stack.connect(connection, uri).unwrap();
    if protocol == Protocol::Quic {
        let stream = stack.create(protocol).unwrap();
        stack.connect_stream(stream, connection, Dir::Uni).unwrap();
        stack.close(stream).unwrap();
    }
    stack.close(connection).unwrap();
}

#[test]
fn a_thousand_connections_with_settings_of_their_own_leave_nothing() {
    let _alone = alone();
    const CALLS: u64 = 1000;
    let mut config = Config::default();
    (config.quota.endpoints, config.quota.workers) = (8, 8);
    let place = Place::new(config);
    let server = Stack::attach(&place.socket()).unwrap();
    let (listener, uri) = listen(&server, Protocol::Quic);
    assert_eq!(certificates(&place), 0, "its endpoint has it");
    let accepting = std::thread::spawn({
        let server = server.clone();
        // They end when their peers close them.
        move || std::iter::from_fn(|| server.accept(listener).ok()).collect::<Vec<_>>()
    });
    let before = Possessions::now();
    let client = Stack::attach(&place.socket()).unwrap();
    for number in 0..CALLS {
        // Half of them are let go at once, the others when there is no room for the next.
        client.set_keep(if number % 2 == 0 { Duration::ZERO } else { PATIENCE }).unwrap();
        call(&client, &uri, Protocol::Quic, Duration::from_secs(30) + Duration::from_millis(number));
        assert!(client.endpoints() <= 8, "as many as the quota allows");
    }
    client.set_keep(Duration::ZERO).unwrap();
    until("no endpoint of the client is left", || {
        // The last words of connections are heard by calls.
        let _ = client.poll(&mut Vec::new(), Some(Duration::ZERO));
        client.endpoints() == 0 && count(&place, "dialler") == 0
    });
    drop(client);
    until("everything is as it was before", || Possessions::now() == before);
    server.close(listener).unwrap();
    let accepted = accepting.join().unwrap();
    assert!(!accepted.is_empty());
    accepted.into_iter().for_each(|session| server.close(session).unwrap());
    until("nor one of the server", || {
        let _ = server.poll(&mut Vec::new(), Some(Duration::ZERO));
        server.endpoints() == 0 && count(&place, "listener") == 0
    });
}

#[test]
fn an_endpoint_is_kept_for_the_next_connection_and_let_go_by_the_clock() {
    let _alone = alone();
    let place = Place::new(Config::default());
    let stack = Stack::attach(&place.socket()).unwrap();
    let (listener, uri) = listen(&stack, Protocol::Quic);
    for _ in 0..3 {
        call(&stack, &uri, Protocol::Quic, Duration::from_secs(30));
        assert_eq!((stack.endpoints(), count(&place, "dialler")), (2, 1), "it is used again");
    }
    stack.set_keep(Duration::from_millis(1)).unwrap();
    // Somebody waits for something else, and the timer wakes them.
    let mut events = Vec::new();
    let began = std::time::Instant::now();
    while stack.endpoints() > 1 {
        let _ = stack.poll(&mut events, Some(Duration::from_secs(1)));
        assert!(began.elapsed() < PATIENCE);
    }
    assert_eq!(count(&place, "dialler"), 0);
    // A connection that lives holds its endpoint, and so do one that is being made and one whose close is on the way.
    let connection = stack.create(Protocol::Quic).unwrap();
    stack.set_trust(connection, Trust::Anybody).unwrap();
    stack.set_keep(Duration::ZERO).unwrap();
    stack.connect(connection, &uri).unwrap();
    assert_eq!(stack.endpoints(), 2);
    let stream = stack.create(Protocol::Quic).unwrap();
    stack.connect_stream(stream, connection, Dir::Bi).unwrap();
    stack.write_all(stream, b"alive").unwrap();
    stack.close(listener).unwrap();
}

#[test]
fn the_endpoint_of_tcp_and_udp_goes_with_the_last_of_their_sessions() {
    let _alone = alone();
    let place = Place::new(Config::default());
    let stack = Stack::attach(&place.socket()).unwrap();
    stack.set_keep(Duration::ZERO).unwrap();
    let before = Possessions::now();
    for round in 0..20 {
        let protocol = if round % 2 == 0 { Protocol::Tcp } else { Protocol::Udp };
        let (listener, uri) = listen(&stack, protocol);
        for _ in 0..10 {
            call(&stack, &uri, protocol, Duration::ZERO);
        }
        assert_eq!(stack.endpoints(), 1);
        if protocol == Protocol::Tcp {
            for _ in 0..10 {
                let accepted = stack.accept(listener).unwrap();
                stack.close(accepted).unwrap();
            }
        }
        stack.close(listener).unwrap();
        until("nothing is left", || {
            let _ = stack.poll(&mut Vec::new(), Some(Duration::ZERO));
            stack.endpoints() == 0
        });
    }
    until("everything is as it was before", || Possessions::now() == before);
}

#[test]
fn certificates_go_with_the_session_that_they_were_added_for() {
    let _alone = alone();
    let place = Place::new(Config::default());
    let stack = Stack::attach(&place.socket()).unwrap();
    let identity = Throwaway::local().unwrap();
    let (chain, key) = (identity.certificate_pem(), identity.key_pem());
    // Far more than the quota, one after the other: unused, refused at the socket, and bound.
    for round in 0..300 {
        let session = stack.create(Protocol::Quic).unwrap();
        stack.add_certificate(session, chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(certificates(&place), 1);
        match round % 3 {
            0 => {}
            1 => assert!(stack.bind(session, "quic://192.0.2.1:1").is_err()),
            _ => stack.bind(session, "quic://127.0.0.1:0").unwrap(),
        }
        stack.close(session).unwrap();
        assert_eq!((certificates(&place), stack.endpoints()), (0, 0));
    }
}

//! Ports at all workers of an endpoint: one listener, and handles that name the worker.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(all(unix, not(feature = "portable")))]

mod common;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use common::{Identity, PATIENCE, loopback};
use courser::Steering;
use courser::session::{
    Bytes, Completion, Endpoint, Generations, Handle, Interest, Kind, Options, Port, PortSetup, Ports, Remote,
    Submission, Waited, WriteCredit,
};

fn remote(address: std::net::SocketAddr, server_name: &str) -> Box<Remote> {
    Box::new(Remote { address, server_name: server_name.into(), profile: 0 })
}

fn server(identity: &Identity, workers: usize, steering: Steering) -> Endpoint {
    let options = identity.server().workers(workers).steering(steering);
    Endpoint::start(Options::server(loopback(), options)).unwrap()
}

/// Polls until `done` says so of a message.
fn until(ports: &mut Ports, what: &str, mut done: impl FnMut(&mut Ports, Completion) -> bool) {
    let began = Instant::now();
    loop {
        while let Some(message) = ports.poll() {
            if done(ports, message) {
                return;
            }
        }
        assert!(began.elapsed() < PATIENCE, "{what}");
        assert_ne!(ports.wait(Some(Duration::from_millis(50))), Waited::Closed, "{what}");
    }
}

fn listen(ports: &mut Ports, end: &Endpoint) -> Handle {
    ports.submit(Submission::Listen { token: 7, at: remote(end.local_addr(), "") }).unwrap();
    let mut name = None;
    until(ports, "a listener", |_, message| {
        let Completion::Opened { token: 7, handle, .. } = message else { panic!("{message:?}") };
        name = Some(handle);
        true
    });
    name.unwrap()
}

#[test]
fn one_listener_gets_the_connections_of_all_workers() {
    const CONNECTIONS: usize = 24;
    let identity = Identity::new();
    for steering in [Steering::Filter, Steering::One] {
        let end = server(&identity, 4, steering);
        let mut ports = end.attach_all(PortSetup::default());
        let listener = listen(&mut ports, &end);
        assert_eq!(listener.kind(), Kind::Listener);
        let to = end.local_addr();
        let client = Endpoint::start(Options::client(identity.client().bind(loopback()))).unwrap();
        let mut calling = client.attach(PortSetup::default());
        for token in 0..CONNECTIONS as u64 {
            calling.submit(Submission::Connect { token, to: remote(to, "localhost") }).unwrap();
        }
        let (mut accepted, mut echoed) = (HashMap::new(), 0);
        let mut answers = 0;
        let began = Instant::now();
        while answers < CONNECTIONS {
            while let Some(message) = ports.poll() {
                match message {
                    Completion::Accepted { handle, parent, .. } if handle.kind() == Kind::Connection => {
                        assert_eq!(parent, listener, "whichever worker has it");
                        accepted.insert(handle, handle.worker());
                        ports.submit(Submission::Accept { handle }).unwrap();
                    }
                    Completion::Accepted { handle, parent, .. } => {
                        assert_eq!(
                            accepted.get(&parent),
                            Some(&handle.worker()),
                            "a stream is where its connection is"
                        );
                    }
                    Completion::Data { stream, data, fin, .. } => {
                        let mut data = data;
                        assert!(fin);
                        ports.write(stream, &mut WriteCredit::new(), &mut data, true);
                        echoed += 1;
                    }
                    _ => {}
                }
            }
            while let Some(message) = calling.poll() {
                match message {
                    Completion::Established { connection } => {
                        calling.submit(Submission::OpenBi { connection, token: 1_000 }).unwrap();
                    }
                    Completion::Opened { token: 1_000, handle, .. } => {
                        let mut data = Bytes::from_static(b"hello");
                        assert_eq!(calling.write(handle, &mut WriteCredit::new(), &mut data, true), 5);
                    }
                    Completion::Data { data, .. } => {
                        assert_eq!(data, b"hello"[..]);
                        answers += 1;
                    }
                    _ => {}
                }
            }
            assert!(began.elapsed() < PATIENCE, "{answers} of {CONNECTIONS}");
            ports.look_then_wait(Duration::from_micros(50), Some(Duration::from_millis(1)));
        }
        assert_eq!((accepted.len(), echoed), (CONNECTIONS, CONNECTIONS));
        let workers: BTreeSet<u8> = accepted.values().copied().collect();
        assert!(workers.len() > 1, "several workers took part: {workers:?}");
        // Closing the listener is one message, and it is told once that it is over.
        ports.submit(Submission::Close { handle: listener, code: 0, reason: Bytes::new() }).unwrap();
        until(&mut ports, "the end of the listener", |_, message| match message {
            Completion::Closed { handle, .. } if handle.kind() == Kind::Listener => {
                assert_eq!(handle, listener);
                true
            }
            _ => false,
        });
        calling.submit(Submission::Connect { token: 99, to: remote(to, "localhost") }).unwrap();
        let began = Instant::now();
        let refused = loop {
            match calling.poll() {
                Some(Completion::Closed { handle, .. }) if handle.kind() == Kind::Connection => break true,
                Some(_) => {}
                None => drop(calling.wait(Some(Duration::from_millis(20)))),
            }
            if began.elapsed() > PATIENCE {
                break false;
            }
        };
        assert!(refused, "nobody listens any more");
        assert!(ports.poll().is_none_or(|m| !matches!(m, Completion::Accepted { .. })));
        drop(end);
        while ports.poll().is_some() {}
        assert_eq!(ports.wait(Some(PATIENCE)), Waited::Closed, "all workers are gone");
        assert!(ports.is_closed());
    }
}

#[test]
fn connections_are_begun_by_the_workers_in_turn_and_answers_find_them() {
    let identity = Identity::new();
    let there = server(&identity, 1, Steering::Filter);
    let mut serving = there.attach_all(PortSetup::default());
    listen(&mut serving, &there);
    for steering in [Steering::Filter, Steering::Hash, Steering::One] {
        let mut options = identity.server().workers(3).steering(steering);
        options.client = Some(identity.client());
        let here = Endpoint::start(Options::server(loopback(), options)).unwrap();
        let mut ports = here.attach_all(PortSetup::default());
        for token in 0..6 {
            ports.submit(Submission::Connect { token, to: remote(there.local_addr(), "localhost") }).unwrap();
        }
        let (mut established, began) = (BTreeSet::new(), Instant::now());
        let mut workers = BTreeSet::new();
        while established.len() < 6 {
            while let Some(message) = serving.poll() {
                if let Completion::Accepted { handle, .. } = message {
                    serving.submit(Submission::Accept { handle }).unwrap();
                }
            }
            while let Some(message) = ports.poll() {
                if let Completion::Established { connection } = message {
                    established.insert(connection);
                    workers.insert(connection.worker());
                }
            }
            assert!(began.elapsed() < PATIENCE, "{steering:?}: {established:?}");
            serving.wait(Some(Duration::from_millis(1)));
        }
        assert_eq!(workers, BTreeSet::from([0, 1, 2]));
        drop(ports);
    }
}

#[test]
fn each_worker_can_have_a_thread_of_the_application() {
    let identity = Identity::new();
    let end = server(&identity, 2, Steering::Filter);
    assert!(end.attach_at(2, PortSetup::default()).is_none());
    for worker in 0..2 {
        let mut port = end.attach_at(worker, PortSetup::default()).unwrap();
        port.submit(Submission::Listen { token: 1, at: remote(end.local_addr(), "") }).unwrap();
        assert_eq!(port.wait(Some(PATIENCE)), Waited::Ready);
        let Some(Completion::Opened { handle, .. }) = port.poll() else { panic!("no listener") };
        assert_eq!(usize::from(handle.worker()), worker);
    }
    assert_eq!(end.workers().len(), 2);
    // A wait for room ends at once when there is some.
    let mut ports = end.attach_all(PortSetup::default());
    assert_eq!(ports.wait_for_room(Some(PATIENCE)), Waited::Ready);
    assert_eq!(ports.wait(Some(Duration::ZERO)), Waited::TimedOut);
    assert!(ports.submit(Submission::Wake).is_ok());
    let task = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(ports.poll_wait(Interest::ANY, &task).is_some());
    assert_eq!(ports.into_inner().len(), 2);
}

#[test]
fn operators_see_every_session_and_a_number_that_is_used_again_repeats_no_handle() {
    let identity = Identity::new();
    let generations = vec![Generations::default(), Generations::default()];
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let options = Options::server(loopback(), identity.server().workers(2));
        let end = Endpoint::start(options.worker_numbers(7, generations.clone())).unwrap();
        let mut ports = end.attach_all(PortSetup::default());
        let listener = listen(&mut ports, &end);
        let client = Endpoint::start(Options::client(identity.client().bind(loopback()))).unwrap();
        let mut calling = client.attach(PortSetup::default());
        calling.submit(Submission::Connect { token: 0, to: remote(end.local_addr(), "localhost") }).unwrap();
        let mut connection = None;
        until(&mut ports, "a connection", |ports, message| match message {
            Completion::Accepted { handle, .. } => {
                connection = Some(handle);
                ports.submit(Submission::Accept { handle }).unwrap();
                false
            }
            Completion::Established { .. } => true,
            _ => false,
        });
        let connection = connection.unwrap();
        ports.submit(Submission::OpenUni { connection, token: 1 }).unwrap();
        let mut stream = None;
        until(&mut ports, "a stream", |_, message| match message {
            Completion::Opened { handle, .. } => {
                stream = Some(handle);
                true
            }
            _ => false,
        });
        let rows = end.sessions(100);
        let row = |handle| rows.iter().find(|row| row.handle == handle).unwrap();
        let (conn, stream) = (row(connection), row(stream.unwrap()));
        assert_eq!((conn.state, conn.children), ("open", 1));
        // A connection's parent is the part of the listener at its worker.
        assert_eq!(
            conn.parent.map(|parent| (parent.kind(), parent.worker())),
            Some((Kind::Listener, connection.worker()))
        );
        assert_eq!(conn.remote.unwrap().port(), client.local_addr().port());
        assert_eq!(conn.local, Some(end.local_addr()));
        assert_eq!((stream.parent, stream.state, stream.remote), (Some(connection), "sending", None));
        assert_eq!(rows.iter().filter(|row| row.state == "listening").count(), 2, "{rows:?}");
        assert!(rows.iter().all(|row| (7..9).contains(&row.handle.worker())));
        assert!(rows.iter().all(|row| seen.insert(row.handle)), "a handle was given out twice: {rows:?}");
        assert!(seen.contains(&listener));
        assert_eq!(end.sessions(1).len(), 2, "one of each worker");
    }
}

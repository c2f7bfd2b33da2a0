//! The calls of programs as futures: inside the process and outside it, over each protocol.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod aio_suite;
mod common;

use std::time::Duration;

use aio_suite::Ground;
use common::Place;
use courser_session::control::Protocol;
use courser_session::stack::aio::{Session, Stack};
use courser_session::stack::{Dir, Error, Setting};
use courser_stack::host::Config;
use tokio::io::AsyncReadExt as _;
use tokio::runtime::{Builder, Runtime};

/// A runtime as programs have them: with several threads, or with one.
fn runtime(threads: usize) -> Runtime {
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.worker_threads(threads.max(2)).enable_all().build().unwrap()
}

/// Two programs, in the service's process or attached to it.
async fn ground(place: &Place, outside: bool, protocol: Protocol) -> Ground {
    let stack = |name: &'static str| async move {
        if outside {
            Stack::attach(place.socket()).await.unwrap()
        } else {
            Stack::over(place.host().attach(name).unwrap()).unwrap()
        }
    };
    Ground::new(stack("server").await, stack("client").await, protocol)
}

fn run(threads: usize, outside: bool, protocol: Protocol) {
    let place = Place::new(Config::default());
    let runtime = runtime(threads);
    runtime.block_on(async {
        let ground = ground(&place, outside, protocol).await;
        let all = aio_suite::all(&ground);
        tokio::time::timeout(common::PATIENCE, all).await.expect("it takes far less time");
    });
    drop(runtime);
    common::until("both programs are gone", || place.host().applications() == 0);
}

#[test]
fn quic_inside() {
    run(2, false, Protocol::Quic);
}

#[test]
fn quic_outside() {
    run(2, true, Protocol::Quic);
}

#[test]
fn quic_outside_with_a_runtime_of_one_thread() {
    run(1, true, Protocol::Quic);
}

#[test]
fn tcp_inside_and_outside() {
    run(2, false, Protocol::Tcp);
    run(1, true, Protocol::Tcp);
}

#[test]
fn udp_inside_and_outside() {
    run(2, false, Protocol::Udp);
    run(2, true, Protocol::Udp);
}

#[test]
fn whoever_waits_learns_that_the_service_is_gone() {
    let place = Place::new(Config::default());
    runtime(2).block_on(async {
        let ground = ground(&place, true, Protocol::Quic).await;
        let (listener, uri) = ground.listen("127.0.0.1").await;
        let (there, here) = ground.connect(&listener, &uri).await;
        let stream = here.open(Dir::Bi).await.unwrap();
        let waits: Vec<_> = [
            tokio::spawn({
                let listener = listener.clone();
                async move { listener.accept().await.map(drop) }
            }),
            tokio::spawn({
                let there = there.clone();
                async move { there.accept().await.map(drop) }
            }),
            tokio::spawn({
                let here = here.clone();
                async move { here.recv_datagram().await.map(drop) }
            }),
            tokio::spawn({
                let stream = stream.clone();
                async move { stream.read(&mut [0]).await.map(drop) }
            }),
        ]
        .into_iter()
        .collect();
        // They wait: each has been polled at least once.
        tokio::task::yield_now().await;
        tokio::task::spawn_blocking(move || drop(place)).await.unwrap();
        for wait in waits {
            let end = tokio::time::timeout(common::PATIENCE, wait).await.unwrap().unwrap();
            // The service closes endpoints before its socket: either word may come first.
            assert!(matches!(end, Err(Error::ServiceGone | Error::Ended(_))), "{end:?}");
        }
        assert_eq!(tokio::time::timeout(common::PATIENCE, gone(&ground.client)).await, Ok(Error::ServiceGone));
        let mut stream = stream;
        assert!(stream.read_u8().await.is_err(), "every later call fails as well");
    });
}

/// The error that new sessions fail with, once the service is gone.
async fn gone(stack: &Stack) -> Error {
    loop {
        match stack.create(Protocol::Tcp) {
            Ok(session) => drop(session),
            Err(error) => return error,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_stack_has_one_face_and_its_calls_that_block_go_on_beside_it() {
    let place = Place::new(Config::default());
    runtime(2).block_on(async {
        let ground = ground(&place, true, Protocol::Tcp).await;
        let again = Stack::new(ground.client.blocking().clone());
        assert!(matches!(again, Err(Error::Unfit(_))));
        let (listener, uri) = ground.listen("127.0.0.1").await;
        let stack = ground.client.blocking().clone();
        let talking = tokio::task::spawn_blocking(move || {
            let session = stack.create(Protocol::Tcp).unwrap();
            stack.connect(session, &uri).unwrap();
            stack.write_all(session, b"from a thread").unwrap();
            stack.close(session).unwrap();
        });
        let mut heard = String::new();
        let mut there: Session = listener.accept().await.unwrap();
        there.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "from a thread");
        talking.await.unwrap();
    });
}

#[test]
fn thousands_of_sessions_wait_at_once_and_each_hears_its_own() {
    /// A port's memory is enough for the windows of 1,024 streams.
    const PORTS: usize = 3;
    const CONNECTIONS: usize = 10;
    const STREAMS: usize = 90;
    let place = Place::new(Config::default());
    runtime(2).block_on(async {
        let mut clients = tokio::task::JoinSet::new();
        let mut serving = tokio::task::JoinSet::new();
        let ground = ground(&place, true, Protocol::Quic).await;
        // A connection whose last stream was dropped would close before the server hears of its last acknowledgement.
        let mut held = Vec::new();
        for port in 0..PORTS {
            let (listener, uri) = ground.listen("127.0.0.1").await;
            serving.spawn(hold_and_answer(listener, CONNECTIONS, STREAMS));
            for connection in 0..CONNECTIONS {
                let here = ground.caller();
                // Settings of their own, and so a port of their own.
                here.set_option(Setting::IdleTimeout(Duration::from_secs(50 + port as u64))).unwrap();
                here.connect(&uri).await.unwrap();
                for stream in 0..STREAMS {
                    let number = ((port * CONNECTIONS + connection) * STREAMS + stream).to_le_bytes();
                    let mut stream = here.open(Dir::Bi).await.unwrap();
                    stream.write_all(&number).await.unwrap();
                    clients.spawn(async move {
                        let mut heard = Vec::new();
                        stream.read_to_end(&mut heard).await.unwrap();
                        assert_eq!(heard, number);
                    });
                }
                held.push(here);
            }
        }
        assert_eq!(clients.join_all().await.len(), PORTS * CONNECTIONS * STREAMS);
        serving.join_all().await;
        drop(held);
    });
}

/// Takes all streams in before it answers the first of them, the last one first.
async fn hold_and_answer(listener: Session, connections: usize, streams: usize) {
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let connection = listener.accept().await.unwrap();
        for _ in 0..streams {
            let stream = connection.accept().await.unwrap();
            waiting.spawn(async move {
                let mut number = [0; 8];
                (&stream).read_exact(&mut number).await.unwrap();
                (stream, number)
            });
        }
    }
    let mut held = waiting.join_all().await;
    while let Some((stream, number)) = held.pop() {
        stream.write_all(&number).await.unwrap();
        stream.finish().unwrap();
        stream.wait_acked().await.unwrap();
    }
}

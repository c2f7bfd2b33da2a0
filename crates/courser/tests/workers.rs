//! Workers that share a port: clients move, address translators forget, and every datagram finds its worker; with the
//! filter of the system, with its hash of addresses, and through one socket. Real sockets on the loopback interface.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(all(unix, not(feature = "portable")))]

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{Identity, PATIENCE, loopback, pattern};
use courser::worker::WorkerStats;
use courser::{
    Connection, ConnectionError, Endpoint, Handle, Incoming, RetryPolicy, ServerOptions, Settings, Steering,
    WorkerFigures,
};

const STEERINGS: [Steering; 3] = [Steering::Filter, Steering::Hash, Steering::One];

/// Echoes every stream of every connection until the endpoint is gone; the workers that had connections.
fn echo(server: &Endpoint, take: fn(Incoming) -> Option<Connection>) -> thread::JoinHandle<BTreeSet<u8>> {
    let (server, seen) = (server.clone(), Arc::new(Mutex::new(BTreeSet::new())));
    thread::spawn(move || {
        while let Ok(incoming) = server.accept() {
            let seen = Arc::clone(&seen);
            thread::spawn(move || {
                let Some(connection) = take(incoming) else { return };
                seen.lock().unwrap().insert(connection.handle().map(Handle::worker).unwrap());
                while let Ok((mut send, mut receive)) = connection.accept_bi() {
                    thread::spawn(move || {
                        while let Ok(Some(chunk)) = receive.read_chunk() {
                            send.write_chunk(chunk).unwrap();
                        }
                        send.finish().unwrap();
                    });
                }
            });
        }
        seen.lock().unwrap().clone()
    })
}

fn anybody(incoming: Incoming) -> Option<Connection> {
    incoming.accept().ok()
}

fn server(identity: &Identity, workers: usize, steering: Steering) -> ServerOptions {
    identity.server().workers(workers).steering(steering)
}

fn dial(identity: &Identity, to: SocketAddr) -> (Endpoint, Connection) {
    let mut end = Endpoint::client(identity.client().bind(loopback())).unwrap();
    end.set_timeout(Some(PATIENCE));
    let mut connection = end.connect_to(to, "localhost").unwrap();
    connection.set_timeout(Some(PATIENCE));
    (end, connection)
}

/// Sends so much, calls `between` in the middle, and compares what comes back.
fn exchange(connection: &Connection, seed: u64, len: usize, between: impl FnOnce()) {
    let sent = pattern(seed, len);
    let (mut send, mut receive) = connection.open_bi().unwrap();
    send.set_timeout(Some(PATIENCE));
    receive.set_timeout(Some(PATIENCE));
    let mut all = vec![0; len / 2];
    send.write_all(&sent[..len / 2]).unwrap();
    receive.read_exact(&mut all).unwrap();
    between();
    send.write_all(&sent[len / 2..]).unwrap();
    send.finish().unwrap();
    receive.read_to_end(&mut all).unwrap();
    assert!(all == sent, "what came back is what was sent");
}

/// Counters that hold for workers of every kind. They are those of each worker's last turn, so that what was handed over may
/// be counted before it was taken.
fn check(figures: impl Fn() -> Vec<WorkerFigures>, what: &str) {
    let mut sum = WorkerStats::default();
    for _ in 0..1_000 {
        sum = WorkerStats::default();
        figures().iter().for_each(|f| sum += f.worker);
        if sum.received_from_mates == sum.forwarded {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    println!(
        "{what}: misrouted {}, forwarded {}, dropped {}, received {} of {} trains",
        sum.misrouted, sum.forwarded, sum.forward_dropped, sum.received_from_mates, sum.trains_received
    );
    assert_eq!(sum.misrouted, sum.forwarded + sum.forward_dropped);
    assert_eq!(sum.received_from_mates, sum.forwarded, "what was handed over was taken");
    assert_eq!((sum.relayed, sum.relay_dropped), (0, 0));
}

/// An address translator in front of a client, which can forget where it was seen.
struct Translator {
    inside: SocketAddr,
    forget: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Translator {
    fn new(to: SocketAddr) -> Self {
        let inside = UdpSocket::bind(loopback()).unwrap();
        let (forget, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let at = inside.local_addr().unwrap();
        let thread = thread::spawn({
            let (forget, stop) = (Arc::clone(&forget), Arc::clone(&stop));
            move || {
                let fresh = || {
                    let outside = UdpSocket::bind(loopback()).unwrap();
                    outside.set_nonblocking(true).unwrap();
                    outside
                };
                inside.set_read_timeout(Some(Duration::from_micros(200))).unwrap();
                let (mut outside, mut client, mut bytes) = (fresh(), None, vec![0; 65_536]);
                while !stop.load(Ordering::Acquire) {
                    if forget.swap(false, Ordering::AcqRel) {
                        outside = fresh();
                    }
                    if let Ok((len, from)) = inside.recv_from(&mut bytes) {
                        client = Some(from);
                        let _ = outside.send_to(&bytes[..len], to);
                    }
                    while let Ok((len, _)) = outside.recv_from(&mut bytes) {
                        let _ = inside.send_to(&bytes[..len], client.unwrap());
                    }
                }
            }
        });
        Self { inside: at, forget, stop, thread: Some(thread) }
    }

    fn forget(&self) {
        self.forget.store(true, Ordering::Release);
    }
}

impl Drop for Translator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The migration suite: what holds for one worker holds for many.
fn migrate(workers: usize, steering: Steering) {
    let identity = Identity::new();
    let server_end = Endpoint::server(loopback(), server(&identity, workers, steering)).unwrap();
    let to = server_end.local_addr();
    let serving = echo(&server_end, anybody);
    let clients: Vec<_> = (0..6)
        .map(|_| dial(&identity, to))
        .enumerate()
        .map(|(n, (end, connection))| {
            thread::spawn(move || {
                // The client moves on purpose, twice, with connection IDs that it had in store.
                exchange(&connection, n as u64, 60_000, || end.rebind(loopback()).unwrap());
                exchange(&connection, n as u64 + 100, 3_000, || end.rebind(loopback()).unwrap());
                assert_eq!(connection.stats().migrations, 2);
            })
        })
        .collect();
    // The address changes and the client does not know.
    let translator = Translator::new(to);
    let (_end, behind) = dial(&identity, translator.inside);
    exchange(&behind, 7, 30_000, || translator.forget());
    exchange(&behind, 8, 3_000, || translator.forget());
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(server_end.stats().accepted, 7);
    behind.close(0, b"");
    drop(behind);
    assert_eq!(server_end.drain(PATIENCE), Ok(()));
    let figures = server_end.workers();
    assert_eq!(figures.len(), workers);
    assert_eq!(figures.iter().map(|f| f.engine.accepted).sum::<u64>(), 7);
    check(|| server_end.workers(), &format!("{workers} workers, {steering:?}"));
    let busy: BTreeSet<u8> = (0..).zip(&figures).filter(|(_, f)| f.engine.accepted > 0).map(|(n, _)| n).collect();
    assert_eq!(serving.join().unwrap(), busy, "handles name the worker");
}

#[test]
fn connections_migrate_with_one_worker() {
    migrate(1, Steering::Filter);
}

#[test]
fn connections_migrate_among_two_workers() {
    STEERINGS.into_iter().for_each(|steering| migrate(2, steering));
}

#[test]
fn connections_migrate_among_four_workers() {
    STEERINGS.into_iter().for_each(|steering| migrate(4, steering));
}

#[test]
fn connections_migrate_among_sixteen_workers() {
    STEERINGS.into_iter().for_each(|steering| migrate(16, steering));
}

#[test]
fn all_workers_get_connections_and_their_figures_add_up() {
    let identity = Identity::new();
    let server_end = Endpoint::server(loopback(), server(&identity, 4, Steering::Filter)).unwrap();
    let serving = echo(&server_end, anybody);
    // All from one address: what a client chose spreads its connections.
    let client_end = Endpoint::client(identity.client().bind(loopback())).unwrap();
    let connections: Vec<Connection> =
        (0..32).map(|_| client_end.connect_to(server_end.local_addr(), "localhost").unwrap()).collect();
    connections.iter().for_each(|connection| exchange(connection, 1, 200, || ()));
    let figures = server_end.workers();
    assert!(figures.iter().all(|f| f.worker.turns > 0));
    drop(connections);
    server_end.drain(PATIENCE).unwrap();
    let figures = server_end.workers();
    assert_eq!(figures.iter().map(|f| f.engine.accepted).sum::<u64>(), 32);
    assert_eq!(server_end.stats().accepted, 32);
    check(|| server_end.workers(), "one address");
    // With 32 draws of four it is all but certain that more than two have some.
    assert!(serving.join().unwrap().len() > 2);
}

#[test]
fn two_engines_on_two_threads_serve_a_thousand_connections_each() {
    // LS-GEN-03
    const EACH: usize = 550;
    let identity = Identity::new();
    let server_end = Endpoint::server(loopback(), server(&identity, 2, Steering::Filter)).unwrap();
    let to = server_end.local_addr();
    let accepting = server_end.clone();
    let held = thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok(connection) = accepting.accept_connection() {
            held.push(connection);
        }
        held.len()
    });
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut end = Endpoint::client(identity.client().bind(loopback())).unwrap();
                end.set_timeout(Some(PATIENCE));
                let connections: Vec<Connection> = (0..EACH)
                    .map(|_| {
                        let connection = end.connect_to(to, "localhost").unwrap();
                        let mut send = connection.open_uni().unwrap();
                        send.write_all(b"here").unwrap();
                        send.finish().unwrap();
                        send.set_timeout(Some(PATIENCE));
                        send.wait_acked().unwrap();
                        connection
                    })
                    .collect();
                assert!(connections.iter().all(|connection| connection.close_reason().is_none()));
            });
        }
    });
    server_end.drain(PATIENCE).unwrap();
    assert_eq!(held.join().unwrap(), 4 * EACH);
    // Connection IDs that clients choose share the 2,200 out evenly: fewer than 1,000 is more than four sigma off.
    let accepted: Vec<u64> = server_end.workers().iter().map(|f| f.engine.accepted).collect();
    assert!(accepted.iter().all(|n| *n >= 1_000) && accepted.iter().sum::<u64>() == 2_200, "{accepted:?}");
    check(|| server_end.workers(), "2,200 connections");
}

#[test]
fn an_address_is_proven_to_any_worker() {
    // Each client first gets a Retry; its token comes to the worker that the Retry's connection ID names.
    fn prove(incoming: Incoming) -> Option<Connection> {
        assert!(incoming.is_validated());
        incoming.accept().ok()
    }
    let identity = Identity::new();
    for steering in STEERINGS {
        let options = server(&identity, 4, steering).retry(RetryPolicy::Always);
        let server_end = Endpoint::server(loopback(), options).unwrap();
        let serving = echo(&server_end, prove);
        let mut client_end = Endpoint::client(identity.client().bind(loopback())).unwrap();
        client_end.set_timeout(Some(PATIENCE));
        for n in 0..8 {
            let connection = client_end.connect_to(server_end.local_addr(), "localhost").unwrap();
            exchange(&connection, n, 200, || ());
            client_end.rebind(loopback()).unwrap();
            exchange(&connection, n, 200, || ());
        }
        let stats = server_end.stats();
        // Later ones show tokens of NEW_TOKEN frames, which any worker takes, once.
        assert!(stats.retries >= 1 && stats.bad_tokens == 0, "{stats:?}");
        assert_eq!(stats.accepted, 8);
        drop(client_end);
        server_end.drain(PATIENCE).unwrap();
        serving.join().unwrap();
    }
}

#[test]
fn what_belongs_to_no_connection_is_answered_by_one_worker_alike() {
    let identity = Identity::new();
    for steering in STEERINGS {
        let server_end = Endpoint::server(loopback(), server(&identity, 4, steering)).unwrap();
        let to = server_end.local_addr();
        for last in 0..8 {
            let probe = UdpSocket::bind(loopback()).unwrap();
            probe.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut answer = [0; 1500];
            // A version that nobody speaks: the answer names those that are spoken.
            let mut strange = [0; 1200];
            strange[..6].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8]);
            strange[6..14].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, last]);
            probe.send_to(&strange, to).unwrap();
            let len = probe.recv(&mut answer).unwrap();
            assert!(len > 7 && answer[0] & 0x80 != 0 && answer[1..5] == [0; 4]);
            // A connection that nobody has: it is reset, from whatever address the question comes.
            let mut lost = [0x5a; 60];
            lost[0] = 0x41;
            lost[8] = last;
            let mut tokens = BTreeSet::new();
            for _ in 0..2 {
                let other = UdpSocket::bind(loopback()).unwrap();
                other.set_read_timeout(Some(PATIENCE)).unwrap();
                other.send_to(&lost, to).unwrap();
                let len = other.recv(&mut answer).unwrap();
                assert!(len < lost.len() && answer[0] & 0xc0 == 0x40);
                tokens.insert(answer[len - 16..len].to_vec());
            }
            assert_eq!(tokens.len(), 1, "the token belongs to the connection ID");
        }
    }
}

#[test]
fn clients_go_to_the_preferred_address_whichever_worker_they_have() {
    let identity = Identity::new();
    for steering in STEERINGS {
        // The port has to be known before the settings are.
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut settings = Settings::default();
        settings.preferred_v4 = Some(format!("127.0.0.2:{port}").parse().unwrap());
        let options = server(&identity, 4, steering).settings(settings);
        let Ok(server_end) = Endpoint::server(format!("0.0.0.0:{port}").parse().unwrap(), options) else {
            // Somebody took it in between.
            continue;
        };
        let serving = echo(&server_end, anybody);
        for n in 0..6 {
            let mut end = Endpoint::client(identity.client().bind("0.0.0.0:0".parse().unwrap())).unwrap();
            end.set_timeout(Some(PATIENCE));
            let connection = end.connect_to(format!("127.0.0.1:{port}").parse().unwrap(), "localhost").unwrap();
            exchange(&connection, n, 20_000, || thread::sleep(Duration::from_millis(20)));
            exchange(&connection, n, 20_000, || ());
            assert_eq!(connection.remote_address().ip(), std::net::Ipv4Addr::new(127, 0, 0, 2), "{steering:?}");
        }
        server_end.drain(PATIENCE).unwrap();
        check(|| server_end.workers(), &format!("preferred address, {steering:?}"));
        serving.join().unwrap();
    }
}

#[test]
fn draining_lets_connections_end_and_closes_those_that_do_not() {
    let identity = Identity::new();
    let server_end = Endpoint::server(loopback(), server(&identity, 2, Steering::Filter)).unwrap();
    let serving = echo(&server_end, anybody);
    let (_end, connection) = dial(&identity, server_end.local_addr());
    exchange(&connection, 1, 2_000, || ());
    let draining = thread::spawn({
        let server_end = server_end.clone();
        move || server_end.drain(PATIENCE)
    });
    // Who accepts is told; the connection goes on.
    assert_eq!(server_end.accept().unwrap_err(), ConnectionError::EndpointGone);
    serving.join().unwrap();
    exchange(&connection, 2, 2_000, || ());
    let mut late = Endpoint::client(identity.client().bind(loopback())).unwrap();
    late.set_timeout(Some(Duration::from_millis(20)));
    for _ in 0..8 {
        // Also where a worker has not noticed yet that it is to take none.
        assert!(late.connect_to(server_end.local_addr(), "localhost").is_err(), "nobody is let in any more");
    }
    connection.close(0, b"");
    assert_eq!(draining.join().unwrap(), Ok(()));
    // With a limit that is over at once.
    let server_end = Endpoint::server(loopback(), server(&identity, 2, Steering::Filter)).unwrap();
    let _serving = echo(&server_end, anybody);
    let (_end, connection) = dial(&identity, server_end.local_addr());
    exchange(&connection, 1, 2_000, || ());
    assert_eq!(server_end.drain(Duration::from_millis(1)), Err(ConnectionError::TimedOut));
    assert_eq!(connection.closed().application(), Some((0, &b""[..])));
}

#[test]
fn a_reload_keeps_every_connection_and_new_ones_see_the_new() {
    let (old, new) = (Identity::new(), Identity::new());
    let server_end = Endpoint::server(loopback(), server(&old, 4, Steering::Filter)).unwrap();
    let to = server_end.local_addr();
    let _serving = echo(&server_end, anybody);
    let before: Vec<_> = (0..8).map(|_| dial(&old, to)).collect();
    before.iter().for_each(|(_, connection)| exchange(connection, 1, 2_000, || ()));
    let mut settings = Settings::default();
    settings.idle_timeout = Duration::from_secs(7);
    server_end.reload(&server(&new, 1, Steering::One).settings(settings)).unwrap();
    for n in 0..8 {
        let (_end, connection) = dial(&new, to);
        assert_eq!(connection.peer_certificates(), [new.0.certificate_der().to_vec()]);
        exchange(&connection, n, 2_000, || ());
    }
    let mut stranger = Endpoint::client(old.client().bind(loopback())).unwrap();
    stranger.set_timeout(Some(PATIENCE));
    assert!(stranger.connect_to(to, "localhost").is_err(), "the old certificate is not shown any more");
    for (end, connection) in &before {
        exchange(connection, 2, 2_000, || end.rebind(loopback()).unwrap());
        assert_eq!(connection.peer_certificates(), [old.0.certificate_der().to_vec()]);
        assert!(connection.close_reason().is_none());
    }
    assert_eq!(server_end.workers().len(), 4, "workers stay");
}

#[cfg(feature = "tokio")]
#[test]
fn tasks_accept_from_all_workers() {
    use courser::aio::Endpoint;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let identity = Identity::new();
        for steering in STEERINGS {
            let server_end = Endpoint::server(loopback(), server(&identity, 4, steering)).unwrap();
            let to = server_end.local_addr();
            let accepting = server_end.clone();
            let serving = tokio::spawn(async move {
                let mut seen = BTreeSet::new();
                while let Ok(connection) = accepting.accept_connection().await {
                    seen.insert(connection.handle().map(Handle::worker));
                    tokio::spawn(async move {
                        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                            tokio::io::copy(&mut receive, &mut send).await.unwrap();
                            send.finish().unwrap();
                        }
                    });
                }
                seen
            });
            let client_end = Endpoint::client(identity.client().bind(loopback())).unwrap();
            for n in 0..20 {
                let connection = client_end.connect_to(to, "localhost").unwrap().await.unwrap();
                for seed in [n, n + 50] {
                    let sent = pattern(seed, 20_000);
                    let (mut send, mut receive) = connection.open_bi().await.unwrap();
                    send.write_all(&sent).await.unwrap();
                    send.finish().unwrap();
                    let mut all = Vec::new();
                    AsyncReadExt::read_to_end(&mut receive, &mut all).await.unwrap();
                    assert!(all == sent);
                    client_end.rebind(loopback()).unwrap();
                }
            }
            drop(client_end);
            tokio::time::timeout(PATIENCE, server_end.drain(PATIENCE)).await.unwrap().unwrap();
            assert!(serving.await.unwrap().len() > 1, "{steering:?}");
            check(|| server_end.workers(), &format!("tasks, {steering:?}"));
        }
    });
}

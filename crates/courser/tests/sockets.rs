//! Address families, races between addresses, and options of sockets, through both faces.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use common::{Identity, PATIENCE};
use courser::{ClientOptions, Endpoint, Request, SocketOptions};

const V4: &str = "127.0.0.1:0";
const V6: &str = "[::1]:0";
const BOTH: &str = "[::]:0";

fn at(addr: &str) -> SocketAddr {
    addr.parse().unwrap()
}

/// Whether this machine has IPv6.
fn has_v6() -> bool {
    let bound = UdpSocket::bind(V6);
    if let Err(e) = &bound {
        eprintln!("IPv6 is left out: this machine has no ::1 ({e})");
    }
    bound.is_ok()
}

/// Where the server listens, where the client binds, which address of the server it uses; those that this machine has.
fn meetings() -> Vec<(&'static str, Option<&'static str>, &'static str)> {
    let all = [
        (V4, None, "127.0.0.1"),
        (V4, Some(V4), "127.0.0.1"),
        (V6, None, "::1"),
        (V6, Some(V6), "::1"),
        (BOTH, None, "127.0.0.1"),
        (BOTH, None, "::1"),
        (BOTH, Some(V4), "127.0.0.1"),
        (BOTH, Some(V6), "::1"),
        (BOTH, Some(BOTH), "127.0.0.1"),
    ];
    let v6 = has_v6();
    let meetings: Vec<_> =
        all.into_iter().filter(|(listen, bind, _)| v6 || (*listen == V4 && *bind != Some(V6))).collect();
    assert!(meetings.len() >= 2);
    meetings
}

fn client_options(identity: &Identity, bind: Option<&str>) -> ClientOptions {
    let options = identity.client();
    match bind {
        Some(addr) => options.bind(at(addr)),
        None => options,
    }
}

#[test]
fn blocking_ends_meet_over_either_family_and_over_both() {
    for (listen, bind, via) in meetings() {
        let identity = Identity::new();
        let mut server = Endpoint::server(at(listen), identity.server()).unwrap();
        server.set_timeout(Some(PATIENCE));
        let mut client = Endpoint::client(client_options(&identity, bind)).unwrap();
        client.set_timeout(Some(PATIENCE));
        let to = SocketAddr::new(via.parse().unwrap(), server.local_addr().port());
        let served = thread::spawn(move || {
            let connection = server.accept().unwrap().accept().unwrap();
            let mut receive = connection.accept_uni().unwrap();
            let chunk = receive.read_chunk().unwrap().unwrap();
            (chunk, connection.remote_address(), server)
        });
        let connection = client.connect_to(to, "localhost").unwrap();
        assert_eq!(connection.remote_address(), to);
        let mut send = connection.open_uni().unwrap();
        send.write_all(b"hello").unwrap();
        send.flush().unwrap();
        let (chunk, from, _server) = served.join().unwrap();
        assert_eq!(chunk, "hello", "{listen} {bind:?} {via}");
        assert_eq!(from.ip(), to.ip(), "addresses are in their own family: {listen} {bind:?} {via}");
    }
}

#[test]
fn a_dead_first_address_of_another_family_costs_a_moment() {
    let dead = UdpSocket::bind(if has_v6() { V6 } else { V4 }).unwrap();
    let identity = Identity::new();
    let mut server = Endpoint::server(at(V4), identity.server()).unwrap();
    let mut client = Endpoint::client(identity.client()).unwrap();
    client.set_timeout(Some(PATIENCE));
    let target = server.local_addr();
    server.set_timeout(Some(PATIENCE));
    let acceptor = thread::spawn(move || (server.accept_connection().unwrap(), server));
    let request = Request::parse("localhost:1").unwrap().addresses(&[dead.local_addr().unwrap(), target]);
    let began = Instant::now();
    let connection = client.connect_with(request).unwrap();
    assert_eq!(connection.remote_address(), target);
    assert!(began.elapsed() >= Duration::from_millis(240), "the first address has its time alone");
    acceptor.join().unwrap();
}

/// Options that differ from the usual in everything.
fn odd() -> SocketOptions {
    SocketOptions::default().receive_buffer(100 << 10).send_buffer(90 << 10).offload(false)
}

#[test]
fn sockets_get_the_buffers_and_the_offload_that_were_asked_for() {
    let identity = Identity::new();
    for usual in [true, false] {
        let options = if usual { SocketOptions::default() } else { odd() };
        let ends = [
            Endpoint::server(at(V4), identity.server().socket(options)).unwrap(),
            Endpoint::client(identity.client().bind(at(V4)).socket(options)).unwrap(),
        ];
        for end in ends {
            let socket = end.socket();
            assert_eq!(socket.receive_buffer.wanted, options.receive_buffer);
            assert_eq!(socket.send_buffer.wanted, options.send_buffer);
            // Buffers are only ever enlarged.
            if !usual {
                assert!(socket.receive_buffer.achieved >= options.receive_buffer);
                assert!(socket.send_buffer.achieved >= options.send_buffer);
                assert_eq!(socket.offload.send_segments, 1);
            }
        }
    }
}

#[test]
fn data_moves_without_offload_through_small_buffers() {
    let identity = Identity::new();
    let mut server = Endpoint::server(at(V4), identity.server().socket(odd())).unwrap();
    let mut client = Endpoint::client(identity.client().bind(at(V4)).socket(odd())).unwrap();
    server.set_timeout(Some(PATIENCE));
    client.set_timeout(Some(PATIENCE));
    let to = server.local_addr();
    let sent = common::pattern(5, 2 << 20);
    let served = thread::spawn(move || {
        let mut receive = server.accept().unwrap().accept().unwrap().accept_uni().unwrap();
        receive.set_timeout(Some(PATIENCE));
        let mut all = Vec::new();
        while let Some(chunk) = receive.read_chunk().unwrap() {
            all.extend_from_slice(&chunk);
        }
        // The stream's handle goes along: with the last one of its connection the connection closes, perhaps before the last
        // acknowledgement.
        (all, receive, server)
    });
    let connection = client.connect_to(to, "localhost").unwrap();
    let mut send = connection.open_uni().unwrap();
    send.write_chunk(sent.clone()).unwrap();
    send.finish().unwrap();
    send.wait_acked().unwrap();
    assert!(served.join().unwrap().0 == sent);
}

#[cfg(not(feature = "portable"))]
#[test]
fn datagrams_grow_to_jumbo_size_where_the_interface_carries_them() {
    //= rfc8899#3-2 type=test
    let mut settings = courser::Settings::default();
    settings.max_udp_payload = 8_952;
    let pair = common::pair(settings);
    assert_eq!(pair.client.stats().mtu, 1_200);
    let data = common::pattern(3, 4 << 20);
    let mut send = pair.client.open_uni().unwrap();
    let writing = thread::spawn({
        let data = data.clone();
        move || {
            send.write_all(&data).unwrap();
            send.finish().unwrap();
            send.wait_acked().unwrap();
        }
    });
    let mut got = Vec::new();
    std::io::Read::read_to_end(&mut pair.server.accept_uni().unwrap(), &mut got).unwrap();
    writing.join().unwrap();
    assert!(got == data);
    let give_up = Instant::now() + PATIENCE;
    while pair.client.stats().mtu < 8_952 && Instant::now() < give_up {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(pair.client.stats().mtu, 8_952);
}

#[cfg(feature = "tokio")]
mod tasks {
    use courser::aio::Endpoint;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.unwrap() });
    }

    #[test]
    fn tokio_ends_meet_over_either_family_and_over_both() {
        run(async {
            for (listen, bind, via) in meetings() {
                let identity = Identity::new();
                let server = Endpoint::server(at(listen), identity.server()).unwrap();
                let client = Endpoint::client(client_options(&identity, bind)).unwrap();
                let to = SocketAddr::new(via.parse().unwrap(), server.local_addr().port());
                let connecting = client.connect_to(to, "localhost").unwrap();
                let (connection, served) = tokio::join!(connecting, server.accept_connection());
                let (connection, served) = (connection.unwrap(), served.unwrap());
                assert_eq!(connection.remote_address(), to);
                assert_eq!(served.remote_address().ip(), to.ip(), "{listen} {bind:?} {via}");
                let mut send = connection.open_uni().await.unwrap();
                send.write_all(b"hello").await.unwrap();
                let mut receive = served.accept_uni().await.unwrap();
                assert_eq!(receive.read_chunk().await.unwrap().unwrap(), "hello", "{listen} {bind:?} {via}");
            }
        });
    }

    #[test]
    fn a_dead_first_address_costs_a_moment_in_tasks_too() {
        run(async {
            let dead = UdpSocket::bind(if has_v6() { V6 } else { V4 }).unwrap();
            let identity = Identity::new();
            let server = Endpoint::server(at(V4), identity.server()).unwrap();
            let client = Endpoint::client(identity.client()).unwrap();
            let target = server.local_addr();
            let request = Request::parse("localhost:1").unwrap().addresses(&[dead.local_addr().unwrap(), target]);
            let began = Instant::now();
            let connecting = client.connect_with(request).unwrap();
            let (connection, _served) = tokio::join!(connecting, server.accept_connection());
            assert_eq!(connection.unwrap().remote_address(), target);
            assert!(began.elapsed() >= Duration::from_millis(240), "the first address has its time alone");
        });
    }

    #[test]
    fn tokio_sockets_get_what_was_asked_for() {
        run(async {
            let identity = Identity::new();
            let server = Endpoint::server(at(V4), identity.server().socket(odd())).unwrap();
            let client = Endpoint::client(identity.client().bind(at(V4)).socket(odd())).unwrap();
            for socket in [server.socket(), client.socket()] {
                assert_eq!(socket.receive_buffer.wanted, 100 << 10);
                assert_eq!(socket.send_buffer.wanted, 90 << 10);
                assert_eq!(socket.offload.send_segments, 1);
            }
        });
    }
}

/// Whether a client reaches that server by the blocking face.
fn meet(server: &Endpoint, identity: &Identity, to: SocketAddr) {
    let client = Endpoint::client(identity.client()).unwrap();
    let connecting = thread::spawn(move || client.connect_to(to, "localhost").map(|c| (client, c)));
    let mut server = server.clone();
    server.set_timeout(Some(PATIENCE));
    let accepted = server.accept_connection().unwrap();
    let (_end, connection) = connecting.join().unwrap().unwrap();
    assert_eq!(accepted.remote_address().ip(), to.ip());
    drop(connection);
}

#[test]
fn a_client_without_connection_ids_has_one_connection_to_each_address() {
    let identity = Identity::new();
    let servers: Vec<Endpoint> = (0..2).map(|_| Endpoint::server(at(V4), identity.server()).unwrap()).collect();
    let mut client = Endpoint::client(identity.client().without_connection_ids()).unwrap();
    client.set_timeout(Some(PATIENCE));
    let meet = |server: &Endpoint| {
        let (to, client, mut server) = (server.local_addr(), client.clone(), server.clone());
        let connecting = thread::spawn(move || client.connect_to(to, "localhost").unwrap());
        server.set_timeout(Some(PATIENCE));
        let mut accepted = server.accept_connection().unwrap();
        let mut connection = connecting.join().unwrap();
        accepted.set_timeout(Some(PATIENCE));
        connection.set_timeout(Some(PATIENCE));
        (connection, accepted)
    };
    // Two servers are two addresses.
    let pairs: Vec<_> = servers.iter().map(meet).collect();
    let refused = client.connect_to(servers[0].local_addr(), "localhost").map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("one connection to an address"), "{refused}");
    let sent = common::pattern(5, 2 << 20);
    thread::scope(|scope| {
        for (connection, accepted) in &pairs {
            scope.spawn(|| {
                let (mut send, mut receive) = accepted.accept_bi().unwrap();
                receive.set_timeout(Some(PATIENCE));
                receive.read_to_end(&mut Vec::new()).unwrap();
                send.write_all(&sent).unwrap();
                send.finish().unwrap();
                send.wait_acked().unwrap();
            });
            scope.spawn(|| {
                let (mut send, mut receive) = connection.open_bi().unwrap();
                send.finish().unwrap();
                receive.set_timeout(Some(PATIENCE));
                let mut all = vec![0; 1 << 20];
                receive.read_exact(&mut all).unwrap();
                receive.read_to_end(&mut all).unwrap();
                assert!(all == sent);
            });
        }
    });
    // Another socket needs no other ID.
    client.rebind(at(V4)).unwrap();
    for (connection, accepted) in &pairs {
        let mut send = connection.open_uni().unwrap();
        send.write_all(b"from elsewhere").unwrap();
        send.finish().unwrap();
        let mut receive = accepted.accept_uni().unwrap();
        receive.set_timeout(Some(PATIENCE));
        let mut all = Vec::new();
        receive.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"from elsewhere");
        send.wait_acked().unwrap();
        assert_eq!(accepted.remote_address().port(), client.local_addr().port());
    }
}

#[test]
fn a_socket_that_was_given_is_served_by_one_worker_and_by_several() {
    let identity = Identity::new();
    for workers in [1, 3] {
        let given = UdpSocket::bind(V4).unwrap();
        let to = given.local_addr().unwrap();
        let server = Endpoint::server_on(given, identity.server().workers(workers)).unwrap();
        // The standard library alone cannot have several threads wait at one port.
        let served = if cfg!(feature = "portable") { 1 } else { workers };
        assert_eq!((server.local_addr(), server.workers().len()), (to, served));
        for _ in 0..2 * workers {
            meet(&server, &identity, to);
        }
    }
}

#[cfg(feature = "tokio")]
#[test]
fn a_socket_that_was_given_is_served_by_tasks_too() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        use courser::aio::Endpoint;
        let identity = Identity::new();
        let given = UdpSocket::bind(V4).unwrap();
        let to = given.local_addr().unwrap();
        let server = Endpoint::server_on(given, identity.server()).unwrap();
        let client = Endpoint::client(identity.client()).unwrap();
        let (accepted, connected) =
            tokio::join!(server.accept_connection(), client.connect_to(to, "localhost").unwrap());
        assert_eq!((accepted.unwrap().remote_address().ip(), connected.unwrap().remote_address()), (to.ip(), to));
    });
}

#[test]
fn a_socket_that_cannot_be_served_is_refused_with_the_reason() {
    let identity = Identity::new();
    let refused = |socket: UdpSocket, why: &str| {
        let e = Endpoint::server_on(socket, identity.server()).unwrap_err().to_string();
        assert!(e.contains(why), "{e}");
    };
    let connected = UdpSocket::bind(V4).unwrap();
    connected.connect("127.0.0.1:9").unwrap();
    refused(connected, "is connected to somebody");
    #[cfg(unix)]
    {
        use std::os::fd::OwnedFd;
        let tcp = std::net::TcpListener::bind(V4).unwrap();
        refused(UdpSocket::from(OwnedFd::from(tcp)), "not one of UDP");
        let fresh = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        refused(UdpSocket::from(OwnedFd::from(fresh)), "is not bound");
    }
}

#[test]
fn one_port_of_each_family_can_be_had_beside_the_other() {
    if !has_v6() {
        return;
    }
    let identity = Identity::new();
    let v4 = Endpoint::server(at("0.0.0.0:0"), identity.server()).unwrap();
    let port = v4.local_addr().port();
    let v6 = SocketAddr::new(at(BOTH).ip(), port);
    assert!(Endpoint::server(v6, identity.server()).is_err(), "both families at once would take the other's port");
    let alone = identity.server().socket(SocketOptions::default().dual_stack(false)).workers(2);
    let v6 = Endpoint::server(v6, alone).unwrap();
    meet(&v4, &identity, SocketAddr::new(at(V4).ip(), port));
    meet(&v6, &identity, SocketAddr::new(at(V6).ip(), port));
}

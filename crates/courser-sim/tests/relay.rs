//! The relay between real sockets on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use courser_sim::LinkConfig;
use courser_sim::node::ecn::Ecn;
use courser_sim::relay::Relay;
use courser_sim::script::Verdict;
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};

fn socket() -> UdpSocket {
    let s = UdpSocket::bind("127.0.0.1:0").unwrap();
    s.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    s
}

fn relay_to(server: &UdpSocket, up: LinkConfig, down: LinkConfig) -> Relay {
    Relay::start("127.0.0.1:0".parse().unwrap(), server.local_addr().unwrap(), up, down, 1).unwrap()
}

fn take(s: &UdpSocket) -> (u8, SocketAddr) {
    let mut b = [0u8; 2_000];
    let (len, from) = s.recv_from(&mut b).unwrap();
    assert!(len > 0);
    (b[0], from)
}

#[test]
fn datagrams_go_there_and_back_with_the_delay_of_both_links() {
    let (client, server) = (socket(), socket());
    let link = LinkConfig::new().delay_us(30_000);
    let relay = relay_to(&server, link.clone(), link);
    let start = Instant::now();
    client.send_to(&[7], relay.addr()).unwrap();
    let (byte, from) = take(&server);
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_ne!(from, client.local_addr().unwrap());
    server.send_to(&[byte + 1], from).unwrap();
    assert_eq!(take(&client), (8, relay.addr()));
    assert!(start.elapsed() >= Duration::from_millis(60));
    let stats = relay.stats();
    assert_eq!((stats.clients, stats.up.delivered, stats.down.delivered, stats.unsent), (1, 1, 1, 0));
}

#[test]
fn chosen_datagrams_are_lost_and_the_others_keep_their_order() {
    let (client, server) = (socket(), socket());
    let relay = relay_to(&server, LinkConfig::new().lose([1, 3]).delay_us(1_000), LinkConfig::new());
    (0..6).for_each(|i| assert_eq!(client.send_to(&[i], relay.addr()).unwrap(), 1));
    let got: Vec<u8> = (0..4).map(|_| take(&server).0).collect();
    assert_eq!(got, [0, 2, 4, 5]);
    assert_eq!(relay.stats().up.dropped(), 2);
}

#[test]
fn each_client_has_its_own_source_and_gets_its_own_answers() {
    let (one, two, server) = (socket(), socket(), socket());
    let relay = relay_to(&server, LinkConfig::new(), LinkConfig::new());
    one.send_to(&[1], relay.addr()).unwrap();
    let (_, from_one) = take(&server);
    two.send_to(&[2], relay.addr()).unwrap();
    let (_, from_two) = take(&server);
    assert_ne!(from_one, from_two);
    server.send_to(&[20], from_two).unwrap();
    server.send_to(&[10], from_one).unwrap();
    assert_eq!((take(&one).0, take(&two).0), (10, 20));
    assert_eq!(relay.stats().clients, 2);
}

#[test]
fn rebinding_gives_a_new_source_and_closes_the_old_one() {
    let (client, server) = (socket(), socket());
    let relay = relay_to(&server, LinkConfig::new(), LinkConfig::new());
    client.send_to(&[1], relay.addr()).unwrap();
    let (_, before) = take(&server);
    relay.rebind().unwrap();
    client.send_to(&[2], relay.addr()).unwrap();
    let (_, after) = take(&server);
    assert_ne!(before, after);
    server.send_to(&[3], before).unwrap();
    server.send_to(&[4], after).unwrap();
    assert_eq!(take(&client).0, 4);
}

#[test]
fn a_tap_and_a_dead_link_work_on_a_running_relay() {
    let (client, server) = (socket(), socket());
    let relay = relay_to(&server, LinkConfig::new(), LinkConfig::new());
    relay.with_links(|up, _, _| {
        up.set_tap(Some(Box::new(|_, d| {
            d.bytes[0] += 100;
            Verdict::Pass
        })));
    });
    client.send_to(&[1], relay.addr()).unwrap();
    assert_eq!(take(&server).0, 101);
    relay.with_links(|up, _, _| up.set_dead(true));
    client.send_to(&[2], relay.addr()).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(server.recv_from(&mut [0; 9]).is_err());
}

#[test]
fn the_rate_holds_in_real_time() {
    let (client, server) = (socket(), socket());
    // 50 datagrams of 1,000 bytes on the wire at 4 Mbit/s take 100 ms.
    let relay = relay_to(&server, LinkConfig::new().rate(4_000_000), LinkConfig::new());
    let start = Instant::now();
    (0..50).for_each(|i| assert_eq!(client.send_to(&[i; 972], relay.addr()).unwrap(), 972));
    (0..50).for_each(|i| assert_eq!(take(&server).0, i));
    assert!(start.elapsed() >= Duration::from_millis(99), "{:?}", start.elapsed());
}

/// A socket that sees and sets ECN fields; `None` where the system does not.
struct Marked {
    udp: UdpSocket,
    state: UdpSocketState,
}

impl Marked {
    fn new() -> Self {
        let udp = socket();
        let state = UdpSocketState::new(UdpSockRef::from(&udp)).unwrap();
        udp.set_nonblocking(false).unwrap();
        Self { udp, state }
    }

    fn send(&self, to: SocketAddr, ecn: Option<EcnCodepoint>, contents: &[u8]) {
        let t = Transmit { destination: to, ecn, contents, segment_size: None, src_ip: None };
        self.state.try_send(UdpSockRef::from(&self.udp), &t).unwrap();
    }

    fn take(&self) -> (Option<EcnCodepoint>, SocketAddr) {
        let mut metas = [RecvMeta::default()];
        let mut bytes = [0; 2_000];
        self.state.recv(UdpSockRef::from(&self.udp), &mut [IoSliceMut::new(&mut bytes)], &mut metas).unwrap();
        (metas[0].ecn, metas[0].addr)
    }

    /// Whether fields pass between two sockets of this machine without a relay.
    fn work() -> bool {
        let (a, b) = (Self::new(), Self::new());
        a.send(b.udp.local_addr().unwrap(), Some(EcnCodepoint::Ect0), &[1]);
        b.take().0 == Some(EcnCodepoint::Ect0)
    }
}

#[test]
fn ecn_fields_pass_in_both_directions() {
    let fields = [None, Some(EcnCodepoint::Ect0), Some(EcnCodepoint::Ect1), Some(EcnCodepoint::Ce)];
    if !Marked::work() {
        eprintln!("this system does not carry ECN fields");
        return;
    }
    let (client, server) = (Marked::new(), Marked::new());
    let relay = relay_to(&server.udp, LinkConfig::new(), LinkConfig::new());
    for field in fields {
        client.send(relay.addr(), field, &[7]);
        let (there, from) = server.take();
        assert_eq!(there, field);
        server.send(from, field, &[8]);
        assert_eq!(client.take(), (field, relay.addr()));
    }
}

#[test]
fn a_queue_marks_what_waited_long_and_a_bleaching_path_clears() {
    if !Marked::work() {
        eprintln!("this system does not carry ECN fields");
        return;
    }
    let (client, server) = (Marked::new(), Marked::new());
    // Ten datagrams of 1,000 bytes on the wire at 4 Mbit/s: the last ones wait for some 18 ms.
    let up = LinkConfig::new().rate(4_000_000).ce_above_us(8_000);
    let relay = relay_to(&server.udp, up, LinkConfig::new().ecn(Ecn::Bleach));
    (0..10).for_each(|n| client.send(relay.addr(), Some(EcnCodepoint::Ect0), &[n; 972]));
    let (seen, from): (Vec<_>, Vec<_>) = (0..10).map(|_| server.take()).unzip();
    assert_eq!((seen[0], seen[9]), (Some(EcnCodepoint::Ect0), Some(EcnCodepoint::Ce)), "{seen:?}");
    assert!(seen.is_sorted_by_key(|e| *e == Some(EcnCodepoint::Ce)), "once it is long it stays long: {seen:?}");
    assert_eq!(relay.stats().up.marked, seen.iter().filter(|e| **e == Some(EcnCodepoint::Ce)).count() as u64);
    server.send(from[0], Some(EcnCodepoint::Ect0), &[1]);
    assert_eq!(client.take().0, None);
}

#[test]
fn what_comes_from_elsewhere_does_not_pass_for_upstream() {
    let (client, server, stranger) = (socket(), socket(), socket());
    let relay = relay_to(&server, LinkConfig::new(), LinkConfig::new());
    client.send_to(&[1], relay.addr()).unwrap();
    let (_, from) = take(&server);
    stranger.send_to(&[66], from).unwrap();
    server.send_to(&[2], from).unwrap();
    assert_eq!(take(&client).0, 2);
}

#[test]
fn dropping_a_relay_stops_it_and_frees_its_port() {
    let server = socket();
    let relay = relay_to(&server, LinkConfig::new(), LinkConfig::new());
    let addr = relay.addr();
    drop(relay);
    assert!(UdpSocket::bind(addr).is_ok());
}

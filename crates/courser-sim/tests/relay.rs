//! The relay between real sockets on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use courser_sim::LinkConfig;
use courser_sim::relay::Relay;
use courser_sim::script::Verdict;

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

#[test]
fn dropping_a_relay_stops_it_and_frees_its_port() {
    let server = socket();
    let relay = relay_to(&server, LinkConfig::new(), LinkConfig::new());
    let addr = relay.addr();
    drop(relay);
    assert!(UdpSocket::bind(addr).is_ok());
}

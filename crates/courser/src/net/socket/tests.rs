//! Real loopback sockets below, an adapter that fails on demand in between.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use courser_core::ids::Ecn;

use super::os::errno;
use super::*;

const V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);
const ANY_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// What the faulty adapter saw and what it shall do.
#[derive(Default)]
struct Script {
    /// Errors of the calls to come; `None` lets a call pass.
    faults: VecDeque<Option<i32>>,
    /// Refuses every call with more than one datagram.
    no_offload: bool,
    /// (bytes, segment) of every call.
    calls: Vec<(usize, Option<usize>)>,
    forgiven: usize,
    /// The system below would split large datagrams.
    splits: bool,
}

struct Faulty {
    inner: Box<dyn Adapter>,
    script: Arc<Mutex<Script>>,
    /// Offload that is claimed, whatever the system has.
    segments: usize,
}

impl Adapter for Faulty {
    fn send(&mut self, udp: &UdpSocket, out: &Outgoing<'_>) -> io::Result<()> {
        let mut script = self.script.lock().unwrap();
        script.calls.push((out.bytes.len(), out.segment));
        if let Some(Some(number)) = script.faults.pop_front() {
            return Err(match number {
                0 => io::ErrorKind::WouldBlock.into(),
                n => io::Error::from_raw_os_error(n),
            });
        }
        if script.no_offload && out.segment.is_some() {
            return Err(io::Error::from_raw_os_error(errno::INPUT_OUTPUT));
        }
        // One datagram at a time below, so that the tests mean the same with and without the system's offload.
        let size = out.segment.unwrap_or(out.bytes.len());
        for datagram in out.bytes.chunks(size) {
            self.inner.send(udp, &Outgoing { bytes: datagram, segment: None, ..*out })?;
        }
        Ok(())
    }

    fn receive(&mut self, udp: &UdpSocket, slots: &mut [u8], arrivals: &mut [Arrival]) -> io::Result<usize> {
        self.inner.receive(udp, slots, arrivals)
    }

    fn offload(&self) -> Offload {
        Offload { send_segments: self.segments, receive_segments: 1 }
    }

    fn may_fragment(&self) -> bool {
        self.script.lock().unwrap().splits
    }

    fn forgive(&mut self, _: &UdpSocket) {
        self.script.lock().unwrap().forgiven += 1;
    }
}

fn faulty(script: Script) -> (Socket, Arc<Mutex<Script>>) {
    let script = Arc::new(Mutex::new(script));
    let shared = Arc::clone(&script);
    let socket = Socket::with_adapter(&SocketConfig::new(V4), |udp| {
        Ok(Box::new(Faulty { inner: system_adapter(udp)?, script: shared, segments: 64 }))
    })
    .unwrap();
    (socket, script)
}

/// Everything that arrives within a moment, as single datagrams.
fn collect(socket: &mut Socket, count: usize) -> Vec<Vec<u8>> {
    let mut slots = Slots::new(SLOTS_MAX);
    let mut all = Vec::new();
    let give_up = Instant::now() + Duration::from_secs(5);
    while all.len() < count && Instant::now() < give_up {
        if socket.receive(&mut slots).unwrap() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        for (arrival, bytes) in slots.trains() {
            all.extend(bytes.chunks(arrival.stride).map(<[u8]>::to_vec));
        }
    }
    all
}

/// `full` datagrams of `size` bytes and a last one of `last` bytes; the first byte of each is its number.
fn train(full: usize, size: usize, last: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..full).flat_map(|i| vec![u8::try_from(i).unwrap(); size]).collect();
    bytes.extend(vec![u8::try_from(full).unwrap(); last]);
    bytes
}

fn outgoing<'a>(to: &Socket, bytes: &'a [u8], segment: usize) -> Outgoing<'a> {
    Outgoing { to: to.local_addr(), from: None, ecn: Ecn::Ect0, segment: Some(segment), bytes }
}

/// The datagrams came whole, each once, in order.
fn assert_is_train(datagrams: &[Vec<u8>], bytes: &[u8], segment: usize) {
    let expected: Vec<Vec<u8>> = bytes.chunks(segment).map(<[u8]>::to_vec).collect();
    assert_eq!(datagrams, expected);
}

#[test]
fn a_train_arrives_as_its_datagrams_in_order() {
    for local in [V4, V6] {
        let Ok(mut receiver) = Socket::bind(&SocketConfig::new(local)) else {
            assert!(local.is_ipv6(), "a machine without IPv4 loopback");
            continue;
        };
        let mut sender = Socket::bind(&SocketConfig::new(local)).unwrap();
        assert_ne!(sender.local_addr().port(), 0);
        let size = if cfg!(feature = "portable") { 1200 } else { 1472 };
        let bytes = train(40, size, 700);
        let mut cursor = 0;
        assert_eq!(sender.send(&outgoing(&receiver, &bytes, size), &mut cursor), Outcome::Sent);
        assert_eq!(cursor, bytes.len());
        assert_is_train(&collect(&mut receiver, 41), &bytes, size);
    }
}

#[test]
fn a_train_beyond_one_call_goes_out_in_several() {
    let (mut sender, script) = faulty(Script::default());
    let mut receiver = Socket::bind(&SocketConfig::new(V4)).unwrap();
    let bytes = train(70, 100, 0);
    assert_eq!(sender.send(&outgoing(&receiver, &bytes, 100), &mut 0), Outcome::Sent);
    assert_is_train(&collect(&mut receiver, 70), &bytes, 100);
    assert_eq!(script.lock().unwrap().calls, [(6400, Some(100)), (600, Some(100))]);

    let bytes = train(2, 40_000, 0);
    assert_eq!(sender.send(&outgoing(&receiver, &bytes, 40_000), &mut 0), Outcome::Sent);
    assert_is_train(&collect(&mut receiver, 2), &bytes, 40_000);
    assert_eq!(script.lock().unwrap().calls[2..], [(40_000, None), (40_000, None)]);
}

#[test]
fn an_adapter_without_offload_is_found_out_and_nothing_is_lost() {
    let (mut sender, script) = faulty(Script { no_offload: true, ..Script::default() });
    let mut receiver = Socket::bind(&SocketConfig::new(V4)).unwrap();
    let bytes = train(5, 1200, 30);
    let mut cursor = 0;
    assert_eq!(sender.send(&outgoing(&receiver, &bytes, 1200), &mut cursor), Outcome::SentSplit);
    assert_eq!(cursor, bytes.len());
    assert_is_train(&collect(&mut receiver, 6), &bytes, 1200);
    assert_eq!(sender.offload().send_segments, 1);
    assert_eq!(script.lock().unwrap().forgiven, 1);

    assert_eq!(sender.send(&outgoing(&receiver, &bytes, 1200), &mut 0), Outcome::Sent);
    assert_is_train(&collect(&mut receiver, 6), &bytes, 1200);
    assert!(script.lock().unwrap().calls[1..].iter().all(|c| c.1.is_none()));
}

#[test]
fn offload_stays_on_when_the_destination_is_to_blame() {
    for number in [errno::INVALID, errno::INPUT_OUTPUT] {
        let (mut sender, _) = faulty(Script { faults: [Some(number), Some(number)].into(), ..Script::default() });
        let mut receiver = Socket::bind(&SocketConfig::new(V4)).unwrap();
        let bytes = train(3, 1200, 0);
        let mut cursor = 0;
        assert_eq!(sender.send(&outgoing(&receiver, &bytes, 1200), &mut cursor), Outcome::Refused);
        assert_eq!((cursor, sender.offload().send_segments), (0, 64));
        assert_eq!(sender.send(&outgoing(&receiver, &bytes, 1200), &mut cursor), Outcome::Sent);
        assert_is_train(&collect(&mut receiver, 3), &bytes, 1200);
    }
}

#[test]
fn a_full_socket_keeps_the_place_in_the_train() {
    // The offload attempt is refused, the first datagram passes, then the buffer is full three times.
    let faults = [Some(errno::INVALID), None, Some(0), None, Some(0), Some(errno::NO_BUFFERS)];
    let (mut sender, _) = faulty(Script { faults: faults.into(), no_offload: true, ..Script::default() });
    let mut receiver = Socket::bind(&SocketConfig::new(V4)).unwrap();
    let bytes = train(4, 1200, 7);
    let out = outgoing(&receiver, &bytes, 1200);
    let mut cursor = 0;
    assert_eq!((sender.send(&out, &mut cursor), cursor), (Outcome::Full, 1200));
    assert_eq!((sender.send(&out, &mut cursor), cursor), (Outcome::Full, 2400));
    assert_eq!((sender.send(&out, &mut cursor), cursor), (Outcome::Pause, 2400));
    assert_eq!((sender.send(&out, &mut cursor), cursor), (Outcome::Sent, bytes.len()));
    assert_is_train(&collect(&mut receiver, 5), &bytes, 1200);
}

#[test]
fn a_datagram_beyond_the_link_is_too_big_and_the_next_one_passes() {
    let (mut sender, _) = faulty(Script { faults: [Some(errno::TOO_BIG)].into(), ..Script::default() });
    let mut receiver = Socket::bind(&SocketConfig::new(V4)).unwrap();
    let bytes = train(1, 1400, 0);
    assert_eq!(sender.send(&outgoing(&receiver, &bytes, 1400), &mut 0), Outcome::TooBig);
    assert_eq!(sender.send(&outgoing(&receiver, &bytes, 1400), &mut 0), Outcome::Sent);
    assert_eq!(collect(&mut receiver, 1).len(), 1);
}

#[test]
fn a_source_address_that_is_gone_is_told() {
    let mut receiver = Socket::bind(&SocketConfig::new(V4)).unwrap();
    let mut sender = Socket::bind(&SocketConfig::new("0.0.0.0:0".parse().unwrap())).unwrap();
    let bytes = train(1, 1200, 0);
    let from = |ip: &str| Outgoing { from: Some(ip.parse().unwrap()), ..outgoing(&receiver, &bytes, 1200) };
    // The first block of addresses for documents: no machine has them.
    let (gone, here) = (from("192.0.2.77"), from("127.0.0.1"));
    let told = sender.send(&gone, &mut 0);
    if cfg!(any(target_os = "linux", target_os = "android")) && !cfg!(feature = "portable") {
        assert_eq!(told, Outcome::NoAddress);
    }
    assert_eq!(sender.send(&here, &mut 0), Outcome::Sent);
    collect(&mut receiver, 1);
}

#[test]
fn where_the_system_may_split_datagrams_none_is_large() {
    //= rfc9000#14-2 type=test
    let (mut sender, script) = faulty(Script { splits: true, ..Script::default() });
    let mut receiver = Socket::bind(&SocketConfig::new(V4)).unwrap();
    for (full, size, last) in [(1, 1201, 0), (3, 1472, 10), (0, 0, 1201)] {
        let bytes = train(full, size, last);
        let out = outgoing(&receiver, &bytes, size.max(last));
        assert_eq!(sender.send(&out, &mut 0), Outcome::TooBig, "{full} of {size} and {last}");
    }
    assert!(script.lock().unwrap().calls.is_empty(), "the system was not asked");
    let bytes = train(2, 1200, 60);
    assert_eq!(sender.send(&outgoing(&receiver, &bytes, 1200), &mut 0), Outcome::Sent);
    assert_is_train(&collect(&mut receiver, 3), &bytes, 1200);
}

#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[test]
fn sockets_forbid_fragmentation_and_leave_the_systems_idea_of_the_path_aside() {
    use rustix::net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, ip_mtu_discover, ipv6_mtu_discover};
    for local in [V4, V6, ANY_V6] {
        let Ok(socket) = Socket::bind(&SocketConfig::new(local)) else { continue };
        // The strictest mode: DF is set, datagrams are never split here, and what the system learnt of the path (from ICMP)
        // does not limit them.
        //= rfc9000#14-3 type=test
        //= rfc8899#3-3 type=test
        //= rfc8899#4.5-1 type=test
        assert_eq!(ip_mtu_discover(socket.udp()), Ok(Ipv4PathMtuDiscovery::PROBE), "{local}");
        if local.is_ipv6() {
            assert_eq!(ipv6_mtu_discover(socket.udp()), Ok(Ipv6PathMtuDiscovery::PROBE), "{local}");
        }
    }
    // The loopback interface carries 65,536 bytes with headers, and UDP could have more over IPv6.
    let (Ok(mut sender), Ok(mut receiver)) =
        (Socket::bind(&SocketConfig::new(V6)), Socket::bind(&SocketConfig::new(V6)))
    else {
        return;
    };
    let bytes = train(1, 65_500, 0);
    //= rfc9000#14-2 type=test
    assert_eq!(sender.send(&outgoing(&receiver, &bytes, 65_500), &mut 0), Outcome::TooBig, "and not in pieces");
    assert_eq!(sender.send(&outgoing(&receiver, &bytes[..60_000], 60_000), &mut 0), Outcome::Sent);
    assert_eq!(collect(&mut receiver, 1).concat().len(), 60_000);
}

#[test]
fn port_zero_never_reaches_the_system() {
    let (mut sender, script) = faulty(Script::default());
    let out = Outgoing { to: V4, from: None, ecn: Ecn::NotEct, segment: None, bytes: &[1] };
    assert_eq!(sender.send(&out, &mut 0), Outcome::Refused);
    assert!(script.lock().unwrap().calls.is_empty());
    assert!(!Arrival { len: 5, stride: 5, ..Arrival::NONE }.is_usable());
}

#[test]
fn a_dual_stack_socket_shows_and_takes_plain_addresses() {
    let Ok(mut server) = Socket::bind(&SocketConfig::new(ANY_V6)) else { return };
    let port = server.local_addr().port();
    for local in [V4, V6] {
        let mut client = Socket::bind(&SocketConfig::new(local)).unwrap();
        let to = SocketAddr::new(local.ip(), port);
        // A train, because the system describes one with more control messages than a single datagram.
        let out = Outgoing { to, from: None, ecn: Ecn::Ect0, segment: Some(8), bytes: b"questionquestion" };
        assert_eq!(client.send(&out, &mut 0), Outcome::Sent);
        let mut slots = Slots::new(1);
        let give_up = Instant::now() + Duration::from_secs(5);
        while server.receive(&mut slots).unwrap() == 0 && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (arrival, bytes) = slots.trains().next().expect("the question arrives");
        assert_eq!((arrival.remote, &bytes[..8]), (client.local_addr(), &b"question"[..]));
        if cfg!(all(target_os = "linux", not(feature = "portable"))) {
            assert_eq!((arrival.local, arrival.ecn), (Some(local.ip()), Ecn::Ect0));
        }
        let arrival = *arrival;
        // What the system did not join is still waiting.
        let mut left = 2 - bytes.len() / 8;
        while left > 0 {
            left -= collect(&mut server, 1).len();
        }
        let back =
            Outgoing { to: arrival.remote, from: arrival.local, ecn: Ecn::Ect0, segment: None, bytes: b"answer" };
        assert_eq!(server.send(&back, &mut 0), Outcome::Sent);
        assert_eq!(collect(&mut client, 1), [b"answer"]);
    }
}

#[test]
fn an_ipv6_only_socket_leaves_the_ipv4_port_free() {
    let config = SocketConfig { dual_stack: false, ..SocketConfig::new(ANY_V6) };
    let Ok(socket) = Socket::bind(&config) else { return };
    let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), socket.local_addr().port());
    // Another process may have taken the port in the meantime; a second try has another port.
    let free = Socket::bind(&SocketConfig::new(v4)).is_ok() || {
        let again = Socket::bind(&config).unwrap();
        Socket::bind(&SocketConfig::new(SocketAddr::new(v4.ip(), again.local_addr().port()))).is_ok()
    };
    assert!(free);
}

#[test]
fn buffer_sizes_are_reported_as_achieved() {
    let wanted = 300 << 10;
    let config = SocketConfig { receive_buffer: wanted, send_buffer: 1, ..SocketConfig::new(V4) };
    let socket = Socket::bind(&config).unwrap();
    assert_eq!(socket.receive_buffer().wanted, wanted);
    assert!(socket.receive_buffer().achieved > 0);
    assert!(socket.send_buffer().achieved >= 1, "a buffer is never made smaller than the system's default");
}

#[test]
fn an_empty_socket_gives_nothing_and_empty_datagrams_are_passed_over() {
    let mut socket = Socket::bind(&SocketConfig::new(V4)).unwrap();
    let mut slots = Slots::new(0);
    assert_eq!(slots.capacity(), 1);
    assert_eq!(socket.receive(&mut slots).unwrap(), 0);
    let plain = UdpSocket::bind(V4).unwrap();
    plain.send_to(&[], socket.local_addr()).unwrap();
    plain.send_to(b"x", socket.local_addr()).unwrap();
    assert_eq!(collect(&mut socket, 1), [b"x"]);
}

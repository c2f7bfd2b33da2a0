//! Datagrams of engines behind real sockets are judged like those of engines in memory, and replies outside of connections
//! leave like the trains of connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};

use courser_core::config::Settings;
use courser_core::engine::{Engine, EngineConfig, Event, ServerConfig};
use courser_core::protect::null::{NullKeys, NullRandom, NullTlsClient, NullTlsServer};

use super::*;
use crate::net::adapter::{Adapter, Arrival, Offload};
use crate::net::socket::{SocketConfig, system_adapter};

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn worker(seed: u64, server: Option<ServerConfig>) -> Worker<Engine> {
    let mut config = EngineConfig::new(Box::new(NullKeys), Box::new(NullRandom::new(seed)));
    config.server = server;
    let socket = Socket::bind(&SocketConfig::new(LOCAL)).expect("loopback has ports");
    Worker::new(Engine::new(config), socket, Clock::start(), TurnLimits::default())
        .expect("the socket can be waited for")
}

#[test]
fn an_illegal_datagram_of_a_loopback_endpoint_is_caught() {
    let settings = Settings::default();
    for spoiled in ["nothing", "the client", "the server"] {
        let mut server = worker(1, Some(ServerConfig::new(Box::new(NullTlsServer::default()), settings.clone())));
        let mut client = worker(2, None);
        let (to, now) = (server.socket().local_addr(), client.clock().now());
        client.machine().connect(now, to, "localhost", &NullTlsClient::default(), &settings).unwrap();
        match spoiled {
            "the client" => client.machine().spoil_next_packet(),
            "the server" => server.machine().spoil_next_packet(),
            _ => {}
        }
        let give_up = std::time::Instant::now() + Duration::from_secs(10);
        let mut connected = false;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            while !connected && std::time::Instant::now() < give_up {
                client.turn().unwrap();
                server.turn().unwrap();
                connected |= core::iter::from_fn(|| client.machine().poll_event()).any(|(_, e)| e == Event::Connected);
            }
        }));
        let said = outcome.err().map(|panic| panic.downcast::<String>().map(|text| *text).unwrap_or_default());
        assert_eq!(connected, spoiled == "nothing", "{spoiled}: {said:?}");
        match said {
            None => assert_eq!(spoiled, "nothing", "the illegal datagram went out"),
            Some(text) => assert!(text.contains("an illegal datagram was built: PaddingNotLast"), "{text}"),
        }
    }
}

/// Takes nothing for so many calls.
struct Full(Box<dyn Adapter>, usize);

impl Adapter for Full {
    fn send(&mut self, udp: &std::net::UdpSocket, out: &Outgoing<'_>) -> io::Result<()> {
        if self.1 > 0 {
            self.1 -= 1;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.send(udp, out)
    }
    fn receive(&mut self, udp: &std::net::UdpSocket, slots: &mut [u8], arrivals: &mut [Arrival]) -> io::Result<usize> {
        self.0.receive(udp, slots, arrivals)
    }
    fn offload(&self) -> Offload {
        self.0.offload()
    }
    fn forgive(&mut self, _: &std::net::UdpSocket) {}
}

#[test]
fn a_reply_that_a_full_socket_did_not_take_leaves_once_when_there_is_room() {
    // LS-EVAN-09
    let mut config = EngineConfig::new(Box::new(NullKeys), Box::new(NullRandom::new(1)));
    config.server = Some(ServerConfig::new(Box::new(NullTlsServer::default()), Settings::default()));
    let socket = Socket::with_adapter(&SocketConfig::new(LOCAL), |udp| Ok(Box::new(Full(system_adapter(udp)?, 3))));
    let mut server = Worker::new(Engine::new(config), socket.unwrap(), Clock::start(), TurnLimits::default()).unwrap();
    let client = std::net::UdpSocket::bind(LOCAL).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut unknown = vec![0; 1200];
    unknown[..14].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    client.send_to(&unknown, server.socket().local_addr()).unwrap();
    let mut blocked = 0;
    let give_up = std::time::Instant::now() + Duration::from_secs(10);
    while server.machine().stats().version_negotiations == 0 || blocked < 3 {
        assert!(std::time::Instant::now() < give_up, "{:?}", server.stats());
        let turn = server.turn().unwrap();
        blocked += usize::from(turn.blocked);
        assert!(client.peek_from(&mut [0; 1]).is_err() || blocked >= 3, "nothing leaves a full socket");
    }
    for _ in 0..10 {
        server.turn().unwrap();
    }
    let mut answer = [0; 1500];
    let len = client.recv(&mut answer).unwrap();
    assert_eq!((answer[0] & 0x80, &answer[1..5]), (0x80, &[0; 4][..]), "Version Negotiation: {:02x?}", &answer[..len]);
    assert!(client.recv(&mut answer).is_err(), "once");
    assert_eq!((server.stats().full, server.machine().stats().version_negotiations), (3, 1));
}

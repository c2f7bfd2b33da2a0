//! Datagrams of engines behind real sockets are judged like those of engines in memory.

use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};

use courser_core::config::Settings;
use courser_core::engine::{Engine, EngineConfig, Event, ServerConfig};
use courser_core::protect::null::{NullKeys, NullRandom, NullTlsClient, NullTlsServer};

use super::*;
use crate::net::socket::SocketConfig;

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

//! Two engines back to back, in virtual time. What one sends the other receives at once, train by train, from one buffer,
//! so that the loop itself does not allocate.

use core::net::SocketAddr;
use core::time::Duration;

use courser_core::config::Settings;
use courser_core::crypto::{TlsClientConfig, TlsServerConfig};
use courser_core::engine::{Engine, EngineConfig, Event, Meta, SendOutcome, ServerConfig, Train};
use courser_core::ids::{ConnKey, Ecn};
use courser_core::protect::null::{NullKeys, NullRandom, NullTlsClient, NullTlsServer};
use courser_core::time::Instant;

/// Address of clients.
pub const CLIENT: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 1)), 1000);
/// Address of servers.
pub const SERVER: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 2)), 443);

/// An engine with the null provider that takes no connections.
#[must_use]
pub fn null_client(seed: u64) -> EngineConfig {
    EngineConfig::new(Box::new(NullKeys), Box::new(NullRandom::new(seed)))
}

/// An engine with the null provider that takes connections.
#[must_use]
pub fn null_server(seed: u64, tls: NullTlsServer, settings: &Settings) -> EngineConfig {
    let mut config = null_client(seed);
    config.server = Some(server_part(Box::new(tls), settings));
    config
}

fn server_part(tls: Box<dyn TlsServerConfig>, settings: &Settings) -> ServerConfig {
    ServerConfig::new(tls, settings.clone())
}

/// A client's and a server's engine.
pub struct Duo {
    /// The engine that connects.
    pub client: Engine,
    /// The engine that accepts.
    pub server: Engine,
    /// The time.
    pub now: Instant,
    /// How far time moves with every round.
    pub step: Duration,
    /// Datagrams that were moved, either way.
    pub datagrams: u64,
    /// The first datagram of the client's next train is lost.
    pub drop_next: bool,
    train: Train,
    buffer: Vec<u8>,
}

/// What all moves of trains use.
struct Carrier<'a> {
    now: Instant,
    train: &'a mut Train,
    buffer: &'a mut [u8],
}

impl Carrier<'_> {
    /// Moves every train that `engine` has to `to`; returns the number of datagrams.
    fn carry(&mut self, engine: &mut Engine, remote: SocketAddr, to: &mut Engine, mut lose: bool) -> u64 {
        let mut moved = 0;
        engine.process(self.now);
        while let Some(meta) = engine.fill(self.now, self.train) {
            let bytes = &mut self.buffer[..self.train.len()];
            bytes.copy_from_slice(self.train.bytes());
            engine.sent(self.now, &meta, SendOutcome::Sent);
            moved += meta.len.div_ceil(meta.segment) as u64;
            let first = if core::mem::take(&mut lose) { meta.segment.min(bytes.len()) } else { 0 };
            let meta = Meta { local: None, remote, ecn: Ecn::NotEct, stride: meta.segment };
            to.receive(self.now, &meta, &mut bytes[first..]);
        }
        moved
    }
}

impl Duo {
    /// Two engines of any provider.
    #[must_use]
    pub fn of(client: EngineConfig, server: EngineConfig) -> Self {
        Self {
            client: Engine::new(client),
            server: Engine::new(server),
            now: Instant::from_micros(1_000_000),
            step: Duration::from_micros(200),
            datagrams: 0,
            drop_next: false,
            train: Train::new(),
            buffer: vec![0; courser_core::engine::TRAIN_BYTES_MAX],
        }
    }

    /// Two engines of the null provider.
    #[must_use]
    pub fn null(settings: &Settings) -> Self {
        Self::of(null_client(1), null_server(2, NullTlsServer::default(), settings))
    }

    /// One round: time moves, both ends send what they have.
    pub fn round(&mut self) {
        self.now += self.step;
        let lose = core::mem::take(&mut self.drop_next);
        let Self { client, server, now, train, buffer, .. } = self;
        let mut carrier = Carrier { now: *now, train, buffer };
        let moved = carrier.carry(client, CLIENT, server, lose) + carrier.carry(server, SERVER, client, false);
        self.datagrams += moved;
    }

    /// Connects with the null provider; returns the connection's keys at the client and at the server.
    ///
    /// # Panics
    /// When the handshake does not end.
    pub fn connect(&mut self, settings: &Settings) -> (ConnKey, ConnKey) {
        self.connect_with(&NullTlsClient::default(), settings)
    }

    /// Connects; returns the connection's keys at the client and at the server.
    ///
    /// # Panics
    /// When the handshake does not end.
    pub fn connect_with(&mut self, tls: &dyn TlsClientConfig, settings: &Settings) -> (ConnKey, ConnKey) {
        let client = self.client.connect(self.now, SERVER, "localhost", tls, settings).expect("TLS starts");
        let mut server = None;
        let mut confirmed = [false; 2];
        for _ in 0..2000 {
            self.round();
            while let Some((key, event)) = self.client.poll_event() {
                confirmed[0] |= key == client && event == Event::Confirmed;
            }
            while let Some((key, event)) = self.server.poll_event() {
                if event == Event::Accepted {
                    server = Some(key);
                }
                confirmed[1] |= server == Some(key) && event == Event::Confirmed;
            }
            if let (Some(server), [true, true]) = (server, confirmed) {
                return (client, server);
            }
        }
        panic!("the handshake did not end");
    }
}

//! The fixture: a client engine, a server engine, and a link with a fixed delay.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::config::Settings;
use crate::engine::{Engine, EngineConfig, Event, Meta, SendOutcome, ServerConfig, Train};
use crate::ids::{ConnKey, Dir, Ecn, Level, PacketNumber, StreamId};
use crate::observe::{self, Interest, Kind, Observer};
use crate::protect::null::{NullKeys, NullRandom, NullTlsClient, NullTlsServer};
use crate::stream::{Read, StreamEvent};
use crate::time::Instant;
use crate::wire::legality;

pub(super) const CLIENT: &str = "10.0.0.1:1000";
pub(super) const SERVER: &str = "10.0.0.2:443";

/// Direction of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// Checks every packet that is built, and counts kinds of frames.
#[derive(Clone, Default)]
pub(super) struct Watcher {
    pub(super) illegal: Arc<Mutex<Vec<String>>>,
}

impl Observer for Watcher {
    fn interest(&self) -> Interest {
        Interest::NONE.with(Kind::DatagramBuilt)
    }

    fn on(&mut self, _now: Instant, _key: ConnKey, event: &observe::Event<'_>) {
        if let observe::Event::DatagramBuilt { level, pn, payload, .. } = event {
            self.check(*level, *pn, payload);
        }
    }
}

impl Watcher {
    fn check(&self, level: Level, pn: PacketNumber, payload: &[u8]) {
        if let Err(illegal) = legality::check_packet(level, payload) {
            self.illegal.lock().unwrap().push(format!("{level:?} {pn}: {illegal:?}"));
        }
    }
}

/// Decides over a datagram: whether it passes, possibly changed.
pub(super) type Filter = Box<dyn FnMut(Way, usize, &mut Vec<u8>) -> bool>;

pub(super) struct Pair {
    pub(super) client: Engine,
    pub(super) server: Engine,
    pub(super) now: Instant,
    pub(super) delay: Duration,
    /// Larger datagrams are refused by the sender's own interface.
    pub(super) link_mtu: usize,
    wire: VecDeque<(Instant, Way, Vec<u8>)>,
    pub(super) sent: [usize; 2],
    pub(super) bytes: [usize; 2],
    pub(super) filter: Filter,
    pub(super) events: [Vec<(ConnKey, Event)>; 2],
    watcher: Watcher,
    train: Train,
}

pub(super) fn config(seed: u64, watcher: &Watcher) -> EngineConfig {
    let mut config = EngineConfig::new(Box::new(NullKeys), Box::new(NullRandom::new(seed)));
    config.observer = Some(Box::new(watcher.clone()));
    config
}

impl Pair {
    pub(super) fn new(server_settings: &Settings) -> Self {
        Self::with(NullTlsServer::default(), server_settings, |_| {})
    }

    pub(super) fn with(tls: NullTlsServer, settings: &Settings, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let watcher = Watcher::default();
        let mut server = config(2, &watcher);
        let mut part = ServerConfig::new(Box::new(tls), settings.clone());
        change(&mut part);
        server.server = Some(part);
        Self {
            client: Engine::new(config(1, &watcher)),
            server: Engine::new(server),
            now: Instant::from_micros(1_000_000),
            delay: Duration::from_millis(10),
            link_mtu: usize::MAX,
            wire: VecDeque::new(),
            sent: [0; 2],
            bytes: [0; 2],
            filter: Box::new(|_, _, _| true),
            events: [Vec::new(), Vec::new()],
            watcher,
            train: Train::new(),
        }
    }

    pub(super) fn connect(&mut self, settings: &Settings) -> ConnKey {
        self.connect_with(&NullTlsClient::default(), settings)
    }

    pub(super) fn connect_with(&mut self, tls: &NullTlsClient, settings: &Settings) -> ConnKey {
        self.client.connect(self.now, SERVER.parse().unwrap(), "localhost", tls, settings).unwrap()
    }

    /// Ticks one end and puts what it sends on the wire.
    pub(super) fn flush(&mut self, way: Way) {
        let engine = match way {
            Way::Up => &mut self.client,
            Way::Down => &mut self.server,
        };
        engine.process(self.now);
        while let Some(meta) = engine.fill(self.now, &mut self.train) {
            assert_eq!(meta.len, self.train.len());
            if meta.segment > self.link_mtu {
                engine.sent(self.now, &meta, SendOutcome::TooBig);
                continue;
            }
            let count = self.train.bytes().chunks(meta.segment).count();
            for (at, datagram) in self.train.bytes().chunks(meta.segment).enumerate() {
                assert!(at + 1 == count || datagram.len() == meta.segment);
                let index = self.sent[way as usize];
                self.sent[way as usize] += 1;
                self.bytes[way as usize] += datagram.len();
                let mut datagram = datagram.to_vec();
                if (self.filter)(way, index, &mut datagram) {
                    self.wire.push_back((self.now + self.delay, way, datagram));
                }
            }
            engine.sent(self.now, &meta, SendOutcome::Sent);
        }
        while let Some(event) = engine.poll_event() {
            self.events[way as usize].push(event);
        }
    }

    /// Lets both ends say what they have to say; when something happens next.
    fn next(&mut self) -> Option<Instant> {
        self.flush(Way::Up);
        self.flush(Way::Down);
        let arrival = self.wire.iter().map(|(at, ..)| *at).min();
        [arrival, self.client.deadline(), self.server.deadline()].into_iter().flatten().min()
    }

    /// Moves to the next thing that happens; false when nothing will.
    pub(super) fn step(&mut self) -> bool {
        let Some(next) = self.next() else { return false };
        self.now = self.now.max(next);
        let mut rest = VecDeque::new();
        for (at, way, mut datagram) in core::mem::take(&mut self.wire) {
            if at > self.now {
                rest.push_back((at, way, datagram));
                continue;
            }
            let (engine, remote) = match way {
                Way::Up => (&mut self.server, CLIENT),
                Way::Down => (&mut self.client, SERVER),
            };
            let remote: SocketAddr = remote.parse().unwrap();
            let meta = Meta { local: None, remote, ecn: Ecn::NotEct, stride: datagram.len() };
            engine.receive(self.now, &meta, &mut datagram);
        }
        self.wire = rest;
        true
    }

    /// Steps until `done`, at most for that long in virtual time.
    pub(super) fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        for _ in 0..2_000_000 {
            if done(self) {
                return true;
            }
            if self.now > end {
                return false;
            }
            if !self.step() {
                // What was told last came without anything to follow.
                return done(self);
            }
        }
        panic!("no progress in virtual time");
    }

    /// Steps until exactly so much later.
    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(time, |p| p.next().is_none_or(|at| at > end));
        self.now = self.now.max(end);
    }

    /// Takes the collected events of one end.
    pub(super) fn take(&mut self, way: Way) -> Vec<(ConnKey, Event)> {
        core::mem::take(&mut self.events[way as usize])
    }

    pub(super) fn assert_legal(&self) {
        let illegal = self.watcher.illegal.lock().unwrap();
        assert!(illegal.is_empty(), "illegal packets were built: {illegal:?}");
    }

    /// Runs the handshake and returns the server's key of the connection.
    pub(super) fn establish(&mut self) -> ConnKey {
        let confirmed = |events: &[(ConnKey, Event)]| events.iter().any(|(_, e)| *e == Event::Confirmed);
        let ok = self.run_until(Duration::from_secs(10), |p| confirmed(&p.events[0]) && confirmed(&p.events[1]));
        assert!(ok, "handshake: client {:?}, server {:?}", self.events[0], self.events[1]);
        self.events[1][0].0
    }

    /// Sends `data` on a new stream from the client and reads it at the server; returns what arrived.
    pub(super) fn transfer(&mut self, client: ConnKey, server: ConnKey, data: &[u8]) -> Vec<u8> {
        let id = self.client.open_stream(client, Dir::Uni).unwrap().unwrap();
        let mut written = 0;
        let mut got = Vec::new();
        let mut finished = false;
        let mut acked = false;
        self.events = [Vec::new(), Vec::new()];
        let ok = self.run_until(Duration::from_secs(120), |p| {
            if written < data.len() {
                written += p.client.write(client, id, &data[written..]).unwrap();
                if written == data.len() {
                    p.client.finish(client, id).unwrap();
                }
            }
            finished |= p.read_all(server, id, &mut got);
            acked |= p.take(Way::Up).iter().any(|(_, e)| *e == Event::Stream(StreamEvent::AllAcked(id)));
            finished && acked
        });
        assert!(ok, "{} of {} bytes, finished {finished}, acked {acked} at {:?}", got.len(), data.len(), self.now);
        got
    }

    pub(super) fn read_all(&mut self, key: ConnKey, id: StreamId, got: &mut Vec<u8>) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.server.read(key, id, &mut buffer) {
                Ok(Read::Bytes(n)) => got.extend_from_slice(&buffer[..n]),
                Ok(Read::Finished) => return true,
                _ => return false,
            }
        }
    }
}

impl Engine {
    /// A live connection, for a look inside.
    pub(super) fn look_at(&self, key: ConnKey) -> &crate::conn::Connection {
        self.conn(key).expect("a live connection")
    }
}

//! A caller that knows no manners: calls in random order, on random handles, with random arguments, judged by a model.
//!
//! Two engines of the null provider, one of which takes connections, and a link between them that loses, repeats and swaps. Every
//! step of a run is one call of one engine: an application's (on a connection that lives, that is over, that never was; on a
//! stream of it, of another one or of none), a driver's (receive, process, fill, what became of a train), one event, or a step
//! of time, which may go back. So calls stand between any two events. The model knows which handles live, and of each
//! stream what was written, read, ended. It holds that
//!
//! - no handle comes back after its connection is gone, and a connection that was announced ends with exactly one `Closed`;
//! - streams come in the order of their numbers, `open_room` and `open_stream` agree, a write takes what `send_room` says;
//! - each byte that is read is the one that was written there, on that connection; never more, and the end where it was set;
//! - nothing is taken after an end, codes above 2^62 - 1 are refused;
//! - in the end, when everybody has closed, there is no connection, no route, no handshake and no chunk of memory left.

mod calls;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use courser_core::config::Settings;
use courser_core::engine::{Engine, Event, Meta, SendOutcome, Train};
use courser_core::error::ApiMisuse;
use courser_core::ids::{ConnKey, Dir, Ecn, Side};
use courser_core::protect::null::{NullTlsClient, NullTlsServer};
use courser_core::stream::{ReadError, WriteError};
use courser_core::time::Instant;

use crate::Chance;
use crate::duo::{null_client, null_server};

/// Trains under way at once; further ones are lost.
const LINK_MAX: usize = 256;
/// Connections that a client tries to have at once.
const CONNS_MAX: usize = 12;

/// What the model knows of a stream, as its end sees it.
#[derive(Default)]
struct Stream {
    written: u64,
    /// Nothing may be written any more.
    ended: bool,
    finished: bool,
    read: u64,
    /// Nothing may be read any more.
    over: bool,
}

/// What the model knows of a connection, as its end sees it.
#[derive(Default)]
struct Conn {
    port: u16,
    /// `connect` returned it, or `Accepted` told of it.
    told: bool,
    closed: bool,
    /// It was unknown once; it has to stay so.
    gone: bool,
    streams: BTreeMap<u64, Stream>,
    opened: [u64; 2],
    accepted: [u64; 2],
    datagrams: u64,
    received: HashSet<u64>,
}

struct End {
    side: Side,
    engine: Engine,
    conns: HashMap<ConnKey, Conn>,
    /// All keys that were ever seen, in their order.
    keys: Vec<ConnKey>,
    /// Connections by the port that their datagrams have.
    ports: HashMap<u16, Vec<ConnKey>>,
}

impl End {
    fn new(side: Side, engine: Engine) -> Self {
        Self { side, engine, conns: HashMap::new(), keys: Vec::new(), ports: HashMap::new() }
    }

    /// The model's connection of a key that the engine knows.
    fn learn(&mut self, key: ConnKey) -> &mut Conn {
        let Self { engine, conns, keys, ports, .. } = self;
        conns.entry(key).or_insert_with(|| {
            let port = engine.remote(key).map_or(0, |a| a.port());
            keys.push(key);
            ports.entry(port).or_default().push(key);
            Conn { port, ..Conn::default() }
        })
    }
}

/// Where a result says that a call was a mistake.
trait Mistake {
    fn misuse(&self) -> Option<ApiMisuse>;
}

impl Mistake for ApiMisuse {
    fn misuse(&self) -> Option<ApiMisuse> {
        Some(*self)
    }
}

impl Mistake for WriteError {
    fn misuse(&self) -> Option<ApiMisuse> {
        if let Self::Misuse(m) = self { Some(*m) } else { None }
    }
}

impl Mistake for ReadError {
    fn misuse(&self) -> Option<ApiMisuse> {
        if let Self::Misuse(m) = self { Some(*m) } else { None }
    }
}

/// What a run came to, so that one sees that it reached something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Calls of engines.
    pub calls: u64,
    /// Connections that a server announced.
    pub accepted: u64,
    /// Calls that were refused as mistakes.
    pub mistakes: u64,
    /// Bytes that were read and compared.
    pub bytes: u64,
    /// Streams that were read to their end.
    pub finished: u64,
    /// DATAGRAM frames that arrived.
    pub datagrams: u64,
    /// Memory that the pool refused.
    pub starved: u64,
}

/// A run of random calls.
pub struct Caller {
    chance: Chance,
    now: Instant,
    ends: [End; 2],
    link: VecDeque<(usize, Meta, Vec<u8>)>,
    train: Train,
    settings: Settings,
    serial: u16,
    reached: Reached,
}

impl Caller {
    /// The run of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let few = chance.below(3) == 0;
        let mut settings = Settings::default();
        settings.max_streams_bidi = if few { 2 } else { 32 };
        settings.max_streams_uni = if few { 1 } else { 32 };
        settings.stream_window = if few { 300 } else { 64 << 10 };
        settings.conn_window = if few { 1000 } else { 128 << 10 };
        settings.max_datagram_frame = if few { 0 } else { 1200 };
        settings.reset_stream_at = chance.below(2) == 0;
        let mut server = null_server(seed, NullTlsServer::default(), &settings);
        let mut client = null_client(seed + 1);
        if chance.below(2) == 0 {
            (client.memory_max, server.memory_max) = (256 << 10, 256 << 10);
        }
        if let Some(part) = &mut server.server {
            part.ask = chance.below(2) == 0;
        }
        Self {
            chance,
            now: Instant::from_micros(1_000_000),
            ends: [End::new(Side::Client, Engine::new(client)), End::new(Side::Server, Engine::new(server))],
            link: VecDeque::new(),
            train: Train::new(),
            settings,
            serial: 1024,
            reached: Reached::default(),
        }
    }

    /// Makes that many calls, then has everybody leave.
    ///
    /// # Panics
    /// When something is not as the model says.
    pub fn run(mut self, calls: u64) -> Reached {
        while self.reached.calls < calls {
            self.step();
        }
        self.leave();
        self.reached
    }

    fn step(&mut self) {
        let e = self.chance.below(2) as usize;
        self.reached.calls += 1;
        match self.chance.below(100) {
            0..8 => self.turn(e),
            8..14 => self.deliver(),
            14..20 => self.event(e),
            20..22 => self.pass_time(),
            22 => self.connect(),
            23 => self.decide(),
            24 => self.drive_oddly(e),
            25..64 => self.call_stream(e),
            64..84 => self.read_something(e),
            _ => self.call_connection(e),
        }
    }

    fn pass_time(&mut self) {
        self.now = match self.chance.below(100) {
            0 => self.now + Duration::from_secs(self.chance.below(40)),
            1 => Instant::from_micros(self.now.as_micros().saturating_sub(self.chance.below(3_000_000))),
            2..30 => self.now,
            _ => self.now + Duration::from_micros(self.chance.below(20_000)),
        };
    }

    fn connect(&mut self) {
        let live = self.ends[0].conns.values().filter(|c| !c.closed).count();
        if live >= CONNS_MAX {
            return;
        }
        self.serial = self.serial.checked_add(1).unwrap_or(1024);
        let remote = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), self.serial);
        let end = &mut self.ends[0];
        let key = end.engine.connect(self.now, remote, "localhost", &NullTlsClient::default(), &self.settings);
        let key = key.expect("the null provider starts");
        assert!(!end.conns.contains_key(&key), "the key of a new connection was given before");
        end.learn(key).told = true;
    }

    /// Decides over a client that waits, or over something that does not wait.
    fn decide(&mut self) {
        let end = &mut self.ends[1];
        let waiting = end.engine.poll_incoming().map(|(key, _)| key);
        let Some(key) = waiting.or_else(|| end.keys.last().copied()) else { return };
        let result = match self.chance.below(8) {
            0 => end.engine.refuse(key),
            1 => end.engine.retry(key),
            2 => end.engine.ignore(key),
            3 => end.engine.accept(self.now, key, Some(&self.settings)),
            _ => end.engine.accept(self.now, key, None),
        };
        if waiting.is_none() {
            assert_eq!(result, Err(ApiMisuse::UnknownConnection), "only who waits can be decided over");
        }
    }

    /// What a driver may do at any moment.
    fn drive_oddly(&mut self, e: usize) {
        let engine = &mut self.ends[e].engine;
        match self.chance.below(8) {
            0 => engine.rebind(self.now, None),
            1 => engine.set_cooldown(self.chance.below(4) == 0),
            2 => drop(engine.keys().count()),
            3 => drop(engine.unsettled_cids()),
            4 => engine.process(self.now),
            5 => {
                let mut noise: Vec<u8> = (0..self.chance.below(200)).map(|_| self.chance.below(256) as u8).collect();
                let remote = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9)), 9);
                let stride = [0, 1, 50, usize::MAX][self.chance.below(4) as usize];
                engine.receive(self.now, &Meta { local: None, remote, ecn: Ecn::NotEct, stride }, &mut noise);
            }
            6 => assert!(engine.deadline().is_none_or(|at| at < Instant::FAR_FUTURE)),
            _ => {
                let (stats, pool) = (engine.stats(), engine.pool_stats());
                assert!(stats.ended <= stats.connected + stats.accepted, "{stats:?}");
                assert!(pool.in_use > 0 || pool.in_use_bytes == 0, "{pool:?}");
            }
        }
    }

    /// One train leaves, if there is one.
    fn turn(&mut self, e: usize) {
        let engine = &mut self.ends[e].engine;
        if self.chance.below(2) == 0 {
            engine.process(self.now);
        }
        let Some(meta) = engine.fill(self.now, &mut self.train) else { return };
        assert_eq!(meta.len, self.train.len());
        let outcome = match self.chance.below(200) {
            0 => SendOutcome::Refused,
            1 => SendOutcome::TooBig,
            2 => SendOutcome::NoAddress,
            3..30 => SendOutcome::NoOffload,
            _ => SendOutcome::Sent,
        };
        engine.sent(self.now, &meta, outcome);
        let arrives = matches!(outcome, SendOutcome::Sent | SendOutcome::NoOffload);
        if arrives && self.link.len() < LINK_MAX {
            // The port is the same at both ends, so that it names the connection.
            let from = Ipv4Addr::new(10, 0, 0, if e == 0 { 1 } else { 2 });
            let remote = SocketAddr::new(IpAddr::V4(from), meta.to.port());
            let meta = Meta { local: None, remote, ecn: meta.ecn, stride: meta.segment };
            self.link.push_back((1 - e, meta, self.train.bytes().to_vec()));
        }
    }

    /// The oldest train arrives, or another one, or twice, or not.
    fn deliver(&mut self) {
        let fate = self.chance.below(50);
        if fate == 0 && self.link.len() > 1 {
            self.link.swap(0, 1);
        }
        let Some((e, meta, mut bytes)) = self.link.pop_front() else { return };
        if fate == 1 {
            self.link.push_back((e, meta, bytes.clone()));
        }
        if fate != 2 {
            self.ends[e].engine.receive(self.now, &meta, &mut bytes);
        }
    }

    fn event(&mut self, e: usize) {
        let end = &mut self.ends[e];
        let Some((key, event)) = end.engine.poll_event() else { return };
        let conn = end.learn(key);
        assert!(!conn.closed, "{event:?} after Closed");
        match event {
            Event::Accepted => {
                // It may be over already: events wait, and a key may be tried before it was told.
                assert!(!conn.told, "accepted twice");
                conn.told = true;
                self.reached.accepted += 1;
            }
            Event::Closed(_) => conn.closed = true,
            _ => {}
        }
    }

    /// Holds that a key lives, or does not, as was known.
    fn note<T, E: Mistake>(&mut self, e: usize, key: ConnKey, result: &Result<T, E>) {
        let misuse = result.as_ref().err().and_then(Mistake::misuse);
        self.reached.mistakes += u64::from(misuse.is_some());
        if misuse == Some(ApiMisuse::UnknownConnection) {
            if let Some(conn) = self.ends[e].conns.get_mut(&key) {
                conn.gone = true;
            }
        } else {
            assert!(!self.ends[e].learn(key).gone, "a connection that was gone is back");
        }
    }

    /// A key that lives, or that lived, or of the other end, or of nobody.
    fn draw_key(&mut self, e: usize) -> ConnKey {
        let keys = &self.ends[e].keys;
        let any =
            |chance: &mut Chance, from: &[ConnKey]| from.get(chance.below(from.len().max(1) as u64) as usize).copied();
        let recent = keys.len().saturating_sub(CONNS_MAX);
        let drawn = match self.chance.below(20) {
            0 => any(&mut self.chance, keys).map(|k| ConnKey { generation: k.generation ^ 0x4000_0000, ..k }),
            1 => any(&mut self.chance, &self.ends[1 - e].keys),
            2 => Some(ConnKey { index: u32::MAX, generation: self.chance.below(3) as u32 }),
            3 => any(&mut self.chance, keys),
            _ => any(&mut self.chance, &keys[recent..]),
        };
        drawn.unwrap_or(ConnKey { index: 0, generation: 0 })
    }

    /// Everybody closes; nothing may be left.
    fn leave(&mut self) {
        for end in &mut self.ends {
            let keys: Vec<ConnKey> = end.engine.keys().collect();
            for key in keys {
                let _ = end.engine.close(self.now, key, 0, b"");
            }
            end.engine.set_cooldown(true);
        }
        for _ in 0..400 {
            for e in 0..2 {
                self.ends[e].engine.process(self.now);
                while self.ends[e].engine.fill(self.now, &mut self.train).is_some() {}
                while self.drain(e) {}
            }
            // Round trips of a minute were measured where time stepped, and ends last three probe timeouts.
            self.now += Duration::from_secs(30);
        }
        for end in &self.ends {
            let engine = &end.engine;
            let left = (engine.connections(), engine.route_count(), engine.handshakes(), engine.pool_stats().in_use);
            assert_eq!(
                left,
                (0, 0, 0, 0),
                "connections, routes, handshakes and chunks that are left at the {:?}",
                end.side
            );
            for (key, conn) in &end.conns {
                assert!(conn.closed || !conn.told, "{key:?} at the {:?} never ended", end.side);
            }
            self.reached.starved += engine.pool_stats().refused + engine.pool_stats().over_share;
        }
    }

    /// Takes one event; whether there was one.
    fn drain(&mut self, e: usize) -> bool {
        let end = &mut self.ends[e];
        let Some((key, event)) = end.engine.poll_event() else { return false };
        if matches!(event, Event::Closed(_)) {
            let conn = end.learn(key);
            assert!(!conn.closed, "closed twice");
            conn.closed = true;
        }
        true
    }
}

/// Streams of one end in the order of their opening.
fn stream_dir(chance: &mut Chance) -> Dir {
    if chance.below(2) == 0 { Dir::Bi } else { Dir::Uni }
}

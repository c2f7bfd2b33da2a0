//! A host around an engine.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use courser_core::config::Settings;
use courser_core::crypto::{KeyFactory, Random, TlsClientConfig, TlsServerConfig};
use courser_core::engine::{
    Connect, EarlyData, Engine, EngineConfig, Event, Meta, SendOutcome, ServerConfig, Train, TrainMeta,
};
use courser_core::ids::{ConnKey, Ecn, Version};
use courser_core::protect::null::{NullKeys, NullRandom, NullTlsClient, NullTlsServer};
use courser_core::time::Instant;

use super::Watch;
use super::app::{App, AppConfig, Cx};
use crate::datagram::Datagram;
use crate::host::{Host, Outbox};

/// The engine's clock at the beginning of the world: its origin means "never" in some places of the core.
pub const EPOCH_US: u64 = 1_000_000;

/// Rounds of one poll; an engine that wants more of them at one time never comes to rest.
const ROUNDS_MAX: usize = 1_000;

/// Packet protection and TLS.
pub struct Provider {
    /// Packet protection.
    pub keys: Box<dyn KeyFactory>,
    /// Random bytes; the run is the same again only if they are.
    pub random: Box<dyn Random>,
    /// Starts sessions of connections that are begun here.
    pub client: Box<dyn TlsClientConfig>,
    /// Starts sessions of connections that come.
    pub server: Option<Box<dyn TlsServerConfig>>,
    /// Name that clients ask for.
    pub name: &'static str,
}

impl Provider {
    /// The null provider of a client.
    #[must_use]
    pub fn null_client(seed: u64, client: NullTlsClient) -> Self {
        let random = Box::new(NullRandom::new(crate::rng::mix(seed.wrapping_mul(2))));
        Self { keys: Box::new(NullKeys), random, client: Box::new(client), server: None, name: "localhost" }
    }

    /// The null provider of a server.
    #[must_use]
    pub fn null_server(seed: u64, server: NullTlsServer) -> Self {
        let random = Box::new(NullRandom::new(crate::rng::mix(seed.wrapping_mul(2) | 1)));
        let client = Box::new(NullTlsClient::default());
        Self { keys: Box::new(NullKeys), random, client, server: Some(Box::new(server)), name: "localhost" }
    }
}

/// What a host is made of.
pub struct HostConfig {
    /// Its address.
    pub me: SocketAddr,
    /// Packet protection and TLS.
    pub provider: Provider,
    /// Settings of connections of either kind.
    pub settings: Settings,
    /// What connections that come are to do.
    pub accept: AppConfig,
    /// Watches what is built.
    pub watch: Watch,
}

/// A connection to begin.
struct Dial {
    at_us: u64,
    to: SocketAddr,
    app: AppConfig,
    token: Vec<u8>,
    restart: Option<Version>,
}

/// An engine with its applications, as a [`Host`].
pub struct QuicHost {
    /// The engine; whoever changes it through [`World::host_mut`](crate::World::host_mut) wakes the host.
    pub engine: Engine,
    me: SocketAddr,
    provider: Provider,
    settings: Settings,
    accept: AppConfig,
    apps: BTreeMap<u64, App>,
    /// Keys of connections in the order in which they began or came.
    keys: Vec<ConnKey>,
    dials: Vec<Dial>,
    train: Train,
    scratch: Vec<u8>,
    /// Trains of each length that left, up to 64.
    pub trains: Vec<u64>,
    /// How far sending (without probes) ever took the bytes in flight above the window.
    pub overshoot: u64,
    in_flight: BTreeMap<u64, (u64, u64)>,
    /// How long the socket takes nothing after each train, in microseconds; zero: it is never full.
    pub socket_pause_us: u64,
    /// Until when it takes nothing.
    socket_full_until: u64,
    /// What should not have been.
    pub wrong: Vec<String>,
    /// Length of the connection IDs that it issues.
    pub cid_len: usize,
}

const fn instant(now_us: u64) -> Instant {
    Instant::from_micros(now_us + EPOCH_US)
}

fn id_of(key: ConnKey) -> u64 {
    u64::from(key.generation) << 32 | u64::from(key.index)
}

impl QuicHost {
    /// A host; `change` sees the server's part of the engine.
    #[must_use]
    pub fn new(mut config: HostConfig, change: impl FnOnce(&mut EngineConfig)) -> Self {
        let keys = std::mem::replace(&mut config.provider.keys, Box::new(NullKeys));
        let random = std::mem::replace(&mut config.provider.random, Box::new(NullRandom::new(0)));
        let mut engine = EngineConfig::new(keys, random);
        engine.observer = Some(Box::new(config.watch));
        engine.server = config.provider.server.take().map(|tls| ServerConfig::new(tls, config.settings.clone()));
        change(&mut engine);
        let cid_len = engine.cids.cid_len();
        Self {
            cid_len,
            engine: Engine::new(engine),
            me: config.me,
            provider: config.provider,
            settings: config.settings,
            accept: config.accept,
            apps: BTreeMap::new(),
            keys: Vec::new(),
            dials: Vec::new(),
            train: Train::new(),
            scratch: vec![0; 1 << 16],
            trains: vec![0; 65],
            overshoot: 0,
            in_flight: BTreeMap::new(),
            socket_pause_us: 0,
            socket_full_until: 0,
            wrong: Vec::new(),
        }
    }

    /// Begins a connection at a time.
    pub fn dial(&mut self, at_us: u64, to: SocketAddr, app: AppConfig) {
        self.dial_with_token(at_us, to, app, Vec::new());
    }

    /// Begins a connection at a time, with a token of an earlier one.
    pub fn dial_with_token(&mut self, at_us: u64, to: SocketAddr, app: AppConfig, token: Vec<u8>) {
        self.dials.push(Dial { at_us, to, app, token, restart: None });
    }

    /// Begins a connection at a time in a version that a server listed.
    pub fn dial_again(&mut self, at_us: u64, to: SocketAddr, app: AppConfig, version: Version) {
        self.dials.push(Dial { at_us, to, app, token: Vec::new(), restart: Some(version) });
    }

    /// Keys of all connections so far, the first one first.
    #[must_use]
    pub fn keys(&self) -> &[ConnKey] {
        &self.keys
    }

    /// The application of connection number `i`; it outlives the connection.
    #[must_use]
    pub fn app(&self, i: usize) -> Option<&App> {
        self.apps.get(&id_of(*self.keys.get(i)?))
    }

    /// The application of connection number `i`, to be changed.
    pub fn app_mut(&mut self, i: usize) -> Option<&mut App> {
        self.apps.get_mut(&id_of(*self.keys.get(i)?))
    }

    /// All applications, in no order that means anything.
    pub fn apps(&self) -> impl Iterator<Item = &App> {
        self.apps.values()
    }

    /// Whether all connections that are begun here have done their jobs.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.dials.is_empty() && !self.apps.is_empty() && self.apps.values().all(App::is_done)
    }

    /// Whether all connections that are begun here have done their jobs or are over.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.dials.is_empty() && self.apps.values().all(|a| a.is_done() || a.report.closed.is_some())
    }

    /// The time as the engine has it, for calls from outside.
    #[must_use]
    pub const fn instant(now_us: u64) -> Instant {
        instant(now_us)
    }

    /// The host leaves its address: from now on it sends from that one, and its engine knows.
    pub fn rebind(&mut self, now_us: u64, me: SocketAddr) {
        self.me = me;
        self.engine.rebind(instant(now_us), Some(me.ip()));
    }

    fn run_dials(&mut self, now_us: u64) {
        let due: Vec<_> = self.dials.extract_if(.., |d| d.at_us <= now_us).collect();
        for dial in due {
            let start = Connect {
                remote: dial.to,
                server_name: self.provider.name,
                tls: self.provider.client.as_ref(),
                settings: &self.settings,
                token: &dial.token,
                restart: dial.restart,
            };
            match self.engine.connect_with(instant(now_us), &start) {
                Ok(key) => {
                    self.keys.push(key);
                    let mut app = App::new(dial.app);
                    if self.engine.early_data(key) == Ok(EarlyData::Offered) {
                        let (now, scratch) = (instant(now_us), self.scratch.as_mut_slice());
                        app.on_early(&mut Cx { engine: &mut self.engine, key, now_us, now, scratch });
                    }
                    self.apps.insert(id_of(key), app);
                }
                Err(alert) => self.wrong.push(format!("connect: {alert:?}")),
            }
        }
    }

    fn run_apps(&mut self, now_us: u64) {
        for &key in &self.keys {
            let Some(app) = self.apps.get_mut(&id_of(key)) else { continue };
            if app.deadline().is_some_and(|at| at <= now_us) {
                let (now, scratch) = (instant(now_us), self.scratch.as_mut_slice());
                app.on_time(&mut Cx { engine: &mut self.engine, key, now_us, now, scratch });
            }
        }
    }

    fn run_events(&mut self, now_us: u64) -> bool {
        let mut any = false;
        while let Some((key, event)) = self.engine.poll_event() {
            any = true;
            if event == Event::Accepted {
                self.keys.push(key);
                self.apps.insert(id_of(key), App::new(self.accept.clone()));
                continue;
            }
            let Some(app) = self.apps.get_mut(&id_of(key)) else {
                self.wrong.push(format!("{key:?} is unknown: {event:?}"));
                continue;
            };
            let (now, scratch) = (instant(now_us), self.scratch.as_mut_slice());
            app.on_event(&mut Cx { engine: &mut self.engine, key, now_us, now, scratch }, event);
        }
        any
    }

    fn send(&mut self, now_us: u64, out: &mut Outbox) -> bool {
        let mut any = false;
        while out.room() > 64 && self.socket_full_until <= now_us {
            let Some(meta) = self.engine.fill(instant(now_us), &mut self.train) else { break };
            any = true;
            self.check_train(&meta);
            put(&mut self.engine, now_us, self.me, &self.train, &meta, out);
            self.socket_full_until = now_us + self.socket_pause_us;
        }
        any
    }

    fn check_train(&mut self, meta: &TrainMeta) {
        if meta.len != self.train.len() || meta.segment == 0 || meta.segment > meta.len {
            self.wrong.push(format!("the train has {} bytes: {meta:?}", self.train.len()));
        }
        let count = meta.len.div_ceil(meta.segment.max(1));
        match self.trains.get_mut(count) {
            Some(n) => *n += 1,
            None => self.wrong.push(format!("a train of {count} datagrams")),
        }
        let Some(key) = meta.key else { return };
        let Ok(stats) = self.engine.conn_stats(key) else { return };
        let (before, ptos) = self.in_flight.insert(id_of(key), (stats.bytes_in_flight, stats.ptos)).unwrap_or_default();
        if stats.bytes_in_flight > before && stats.ptos == ptos {
            self.overshoot = self.overshoot.max(stats.bytes_in_flight.saturating_sub(stats.congestion_window));
        }
    }
}

/// Gives a datagram to an engine.
pub(super) fn deliver(engine: &mut Engine, now_us: u64, d: &mut Datagram) {
    let (local, remote, stride) = (Some(d.dst.ip()), d.src, d.bytes.len());
    let meta = Meta { local, remote, ecn: Ecn::from_bits(d.ecn), stride };
    engine.receive(instant(now_us), &meta, &mut d.bytes);
}

/// Puts the datagrams of a train of an engine at that address on the network.
pub(super) fn put(engine: &mut Engine, now_us: u64, me: SocketAddr, train: &Train, meta: &TrainMeta, out: &mut Outbox) {
    let from = SocketAddr::new(meta.from.unwrap_or(me.ip()), me.port());
    for datagram in train.bytes().chunks(meta.segment.max(1)) {
        out.send_with(from, meta.to, meta.ecn.bits(), |b| b.extend_from_slice(datagram));
    }
    engine.sent(instant(now_us), meta, SendOutcome::Sent);
}

/// When an engine wants its turn, in microseconds of the world.
pub(super) fn engine_deadline(engine: &Engine) -> Option<u64> {
    engine.deadline().map(|at| at.as_micros().saturating_sub(EPOCH_US))
}

impl Host for QuicHost {
    fn receive(&mut self, now_us: u64, d: &mut Datagram) {
        deliver(&mut self.engine, now_us, d);
    }

    fn poll(&mut self, now_us: u64, out: &mut Outbox) {
        self.run_dials(now_us);
        for _ in 0..ROUNDS_MAX {
            self.run_apps(now_us);
            self.engine.process(instant(now_us));
            let heard = self.run_events(now_us);
            if heard {
                self.engine.process(instant(now_us));
            }
            let sent = self.send(now_us, out);
            let blocked = self.socket_full_until > now_us;
            if !heard && !sent && (blocked || self.engine.deadline().is_none_or(|at| at > instant(now_us))) {
                return;
            }
        }
        self.wrong.push(format!("the engine does not come to rest at {now_us} us: {:?}", self.engine.deadline()));
    }

    fn deadline(&self) -> Option<u64> {
        let engine = engine_deadline(&self.engine);
        // With a full socket the engine wants a turn at once, and there is none.
        let engine = engine.map(|at| if at == 0 { self.socket_full_until } else { at });
        let dial = self.dials.iter().map(|d| d.at_us).min();
        let app = self.apps.values().filter_map(App::deadline).min();
        [engine, dial, app].into_iter().flatten().min()
    }
}

//! Two hosts and a link, and what has to hold at the end of every run.

use std::net::IpAddr;

use courser_core::config::Settings;
use courser_core::engine::{ConnStats, EngineConfig};
use courser_core::error::CloseReason;
use courser_core::ids::ConnKey;
use courser_core::protect::null::{NullTlsClient, NullTlsServer};

use super::{AppConfig, HostConfig, Job, Pace, Provider, QuicHost, Watch};
use crate::config::Duplex;
use crate::nat::NatConfig;
use crate::outcome::Stop;
use crate::script::Tap;
use crate::topology::{addr, home, point_to_point};
use crate::world::{HostId, LinkId, NodeId, World};

/// What a [`Net`] is made of.
pub struct NetConfig {
    /// Seed of everything.
    pub seed: u64,
    /// The link; "up" goes from the client to the server.
    pub link: Duplex,
    /// The client's settings.
    pub client: Settings,
    /// The server's settings.
    pub server: Settings,
    /// The client's provider; the null one when absent.
    pub client_provider: Option<Provider>,
    /// The server's provider; the null one when absent.
    pub server_provider: Option<Provider>,
    /// Padded length of the null provider's ClientHello.
    pub hello_len: usize,
    /// The null provider's server.
    pub tls: NullTlsServer,
    /// What the client does.
    pub app: AppConfig,
    /// What the server does.
    pub accept: AppConfig,
    /// A translator before the client; its own link is perfect then.
    pub nat: Option<NatConfig>,
    /// Further addresses of the client.
    pub client_also: Vec<IpAddr>,
    /// Further addresses of the server.
    pub server_also: Vec<IpAddr>,
    /// Whether every packet is noted.
    pub keep: bool,
    change: Box<dyn FnOnce(&mut EngineConfig)>,
    change_client: Box<dyn FnOnce(&mut EngineConfig)>,
}

impl NetConfig {
    /// A link and defaults.
    #[must_use]
    pub fn new(seed: u64, link: Duplex) -> Self {
        Self {
            seed,
            link,
            client: Settings::default(),
            server: Settings::default(),
            client_provider: None,
            server_provider: None,
            hello_len: 0,
            tls: NullTlsServer::default(),
            app: AppConfig::default(),
            accept: AppConfig::default(),
            nat: None,
            client_also: Vec::new(),
            server_also: Vec::new(),
            keep: false,
            change: Box::new(|_| ()),
            change_client: Box::new(|_| ()),
        }
    }

    /// Adds a job of the client.
    #[must_use]
    pub fn job(mut self, job: Job) -> Self {
        self.app.jobs.push(job);
        self
    }

    /// Adds jobs of the client.
    #[must_use]
    pub fn jobs(mut self, jobs: impl IntoIterator<Item = Job>) -> Self {
        self.app.jobs.extend(jobs);
        self
    }

    /// Puts a translator before the client.
    #[must_use]
    pub fn nat(mut self, nat: NatConfig) -> Self {
        self.nat = Some(nat);
        self
    }

    /// Notes every packet.
    #[must_use]
    pub fn keep(mut self) -> Self {
        self.keep = true;
        self
    }

    /// Changes the settings of both ends.
    #[must_use]
    pub fn settings(mut self, change: impl Fn(&mut Settings)) -> Self {
        change(&mut self.client);
        change(&mut self.server);
        self
    }

    /// How the client reads.
    #[must_use]
    pub fn client_pace(mut self, pace: Pace) -> Self {
        self.app.pace = pace;
        self
    }

    /// How the server reads.
    #[must_use]
    pub fn server_pace(mut self, pace: Pace) -> Self {
        self.accept.pace = pace;
        self
    }

    /// Changes the server's engine before it is made.
    #[must_use]
    pub fn engine(mut self, change: impl FnOnce(&mut EngineConfig) + 'static) -> Self {
        self.change = Box::new(change);
        self
    }

    /// Changes the client's engine before it is made.
    #[must_use]
    pub fn client_engine(mut self, change: impl FnOnce(&mut EngineConfig) + 'static) -> Self {
        self.change_client = Box::new(change);
        self
    }
}

/// A client and a server.
pub struct Net {
    /// The world.
    pub world: World,
    /// The client.
    pub client: HostId<QuicHost>,
    /// The server.
    pub server: HostId<QuicHost>,
    /// The translator, if there is one.
    pub nat: Option<NodeId>,
    /// From client (or its translator) to server.
    pub up: LinkId,
    /// From server to client.
    pub down: LinkId,
    /// What the client built.
    pub client_watch: Watch,
    /// What the server built.
    pub server_watch: Watch,
    /// Clients that were added, and what they built.
    others: Vec<(HostId<QuicHost>, Watch)>,
    seed: u64,
    hello_len: usize,
}

impl Net {
    /// Both hosts; the client begins a connection at once when it has jobs.
    #[must_use]
    pub fn new(config: NetConfig) -> Self {
        let (client_watch, server_watch) = (Watch::new(config.keep), Watch::new(config.keep));
        let (seed, hello_len) = (config.seed, config.hello_len);
        let null = || {
            let hello = NullTlsClient { hello_len: config.hello_len, ..NullTlsClient::default() };
            Provider::null_client(config.seed, hello)
        };
        let client = HostConfig {
            me: if config.nat.is_some() { addr::private(0) } else { addr::client(0) },
            provider: config.client_provider.unwrap_or_else(null),
            settings: config.client,
            accept: AppConfig::default(),
            watch: client_watch.clone(),
        };
        let tls = config.tls;
        let server = HostConfig {
            me: addr::server(0),
            provider: config.server_provider.unwrap_or_else(|| Provider::null_server(config.seed, tls)),
            settings: config.server,
            accept: config.accept,
            watch: server_watch.clone(),
        };
        let mut client = QuicHost::new(client, config.change_client);
        if !config.app.jobs.is_empty() {
            client.dial(0, addr::server(0), config.app);
        }
        let server = QuicHost::new(server, config.change);
        client_watch.set_cid_len(server.cid_len);
        server_watch.set_cid_len(client.cid_len);
        let (mut world, client, server, up, down, nat) = match config.nat {
            Some(nat) => {
                let h = home(config.seed, client, server, nat, &config.link);
                (h.world, h.client, h.server, h.up, h.down, Some(h.nat))
            }
            None => {
                let p = point_to_point(config.seed, client, server, &config.link);
                (p.world, p.a, p.b, p.up, p.down, None)
            }
        };
        config.client_also.into_iter().for_each(|ip| world.add_address(client, ip));
        config.server_also.into_iter().for_each(|ip| world.add_address(server, ip));
        Self { world, client, server, nat, up, down, client_watch, server_watch, others: Vec::new(), seed, hello_len }
    }

    /// Adds a client with a host at [`addr::client`] of 20 and upwards, and a link to the server. Its connection IDs have to be as
    /// long as the first client's. It begins nothing by itself: see [`QuicHost::dial`].
    pub fn add_client(
        &mut self,
        settings: Settings,
        link: &Duplex,
        change: impl FnOnce(&mut EngineConfig),
    ) -> HostId<QuicHost> {
        let (number, watch) = (self.others.len() as u16, Watch::new(false));
        let me = addr::client(20 + number);
        let hello = NullTlsClient { hello_len: self.hello_len, ..NullTlsClient::default() };
        let provider = Provider::null_client(self.seed ^ (u64::from(number) + 1) << 40, hello);
        let config = HostConfig { me, provider, settings, accept: AppConfig::default(), watch: watch.clone() };
        let host = QuicHost::new(config, change);
        watch.set_cid_len(self.server().cid_len);
        let id = self.world.add_host([me.ip()], host);
        self.world.connect(id, self.server, link);
        self.others.push((id, watch));
        id
    }

    /// All clients, the first one first.
    #[must_use]
    pub fn clients(&self) -> Vec<HostId<QuicHost>> {
        core::iter::once(self.client).chain(self.others.iter().map(|o| o.0)).collect()
    }

    /// All hosts with their names and what they built.
    pub(super) fn hosts(&self) -> Vec<(String, &QuicHost, &Watch)> {
        let others = self.others.iter().enumerate().map(|(i, (id, watch))| (format!("client {}", i + 2), *id, watch));
        let first = [("client".to_owned(), self.client, &self.client_watch)];
        let server = [("server".to_owned(), self.server, &self.server_watch)];
        let all = first.into_iter().chain(others).chain(server);
        all.map(|(name, id, watch)| (name, self.world.host(id), watch)).collect()
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &QuicHost {
        self.world.host(self.client)
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &QuicHost {
        self.world.host(self.server)
    }

    /// Puts an adversary on the way up.
    pub fn tap_up(&mut self, tap: Tap) {
        self.world.with_link(self.up, |l, _| l.set_tap(Some(tap)));
    }

    /// Puts an adversary on the way down.
    pub fn tap_down(&mut self, tap: Tap) {
        self.world.with_link(self.down, |l, _| l.set_tap(Some(tap)));
    }

    /// Key of the client's first connection.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn client_key(&self) -> ConnKey {
        *self.client().keys().first().expect("the client has begun a connection")
    }

    /// Key of the server's first connection.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn server_key(&self) -> ConnKey {
        *self.server().keys().first().expect("the server has accepted a connection")
    }

    /// Counters of the client's first connection, as long as it lives.
    #[must_use]
    pub fn client_stats(&self) -> Option<ConnStats> {
        self.client().engine.conn_stats(*self.client().keys().first()?).ok()
    }

    /// Counters of the server's first connection, as long as it lives.
    #[must_use]
    pub fn server_stats(&self) -> Option<ConnStats> {
        self.server().engine.conn_stats(*self.server().keys().first()?).ok()
    }

    /// Runs until that time.
    ///
    /// # Panics
    /// When a host never comes to rest.
    pub fn run_until(&mut self, until_us: u64) {
        self.world.run_until(until_us).expect("time goes on");
        self.assert_sound();
    }

    /// Runs until a predicate is true.
    ///
    /// # Panics
    /// When it is not true at that time.
    pub fn run_until_true(&mut self, until_us: u64, mut done: impl FnMut(&QuicHost, &QuicHost) -> bool) {
        let (client, server) = (self.client, self.server);
        let stop = self.world.run_until_true(until_us, |w| done(w.host(client), w.host(server)));
        self.assert_sound();
        assert_eq!(stop, Ok(Stop::Reached), "at {} us: {}", self.world.now_us(), self.state());
    }

    /// Runs until the client's jobs are done.
    ///
    /// # Panics
    /// When they are not done at that time.
    pub fn run_until_done(&mut self, until_us: u64) {
        self.run_until_true(until_us, |client, _| client.is_done());
    }

    /// Runs until the handshake is confirmed at both ends.
    ///
    /// # Panics
    /// When it is not at that time.
    pub fn establish(&mut self, until_us: u64) {
        let confirmed = |h: &QuicHost| h.app(0).is_some_and(|a| a.report.confirmed_us.is_some());
        self.run_until_true(until_us, |c, s| confirmed(c) && confirmed(s));
    }

    pub(super) fn state(&self) -> String {
        let of = |h: &QuicHost| {
            let apps: Vec<_> = h.apps().map(|a| &a.report).take(3).collect();
            let stats = h.keys().first().and_then(|k| h.engine.conn_stats(*k).ok());
            format!("{apps:?}\n  {stats:?}\n  {:?}", h.engine.stats())
        };
        self.hosts().iter().map(|(name, host, _)| format!("\n {name} {}", of(host))).collect()
    }

    /// Nothing that was built is illegal, and no application saw anything wrong.
    ///
    /// # Panics
    /// When that does not hold.
    pub fn assert_sound(&self) {
        for (name, host, watch) in self.hosts() {
            let illegal = watch.complaints();
            assert!(illegal.is_empty(), "{name} built: {illegal:#?}");
            assert!(host.wrong.is_empty(), "{name}: {:#?}", host.wrong);
            for app in host.apps() {
                assert!(app.report.wrong.is_empty(), "{name}: {:#?}", app.report.wrong);
            }
        }
    }

    /// Closes all connections of the clients, waits until both ends have forgotten them, and checks that nothing is left.
    ///
    /// # Panics
    /// When something is left.
    pub fn finish(&mut self) {
        let now = QuicHost::instant(self.world.now_us());
        for id in self.clients() {
            let client = self.world.host_mut(id);
            let keys: Vec<ConnKey> = client.engine.keys().collect();
            for key in keys {
                client.engine.close(now, key, 0, b"").expect("its key was just listed");
            }
        }
        // A lost close is made up for by the idle timeout.
        let longest = 120_000_000;
        let end = self.world.now_us() + longest;
        let empty = |h: &QuicHost| h.engine.connections() == 0;
        let hosts: Vec<_> = self.clients().into_iter().chain([self.server]).collect();
        let stop = self.world.run_until_true(end, |w| hosts.iter().all(|id| empty(w.host(*id))));
        assert!(stop.is_ok(), "{stop:?}");
        self.assert_empty();
    }

    /// No connection, route or buffer is left at either end.
    ///
    /// # Panics
    /// When something is left.
    pub fn assert_empty(&self) {
        self.assert_sound();
        for (name, host, _) in self.hosts() {
            let e = &host.engine;
            assert_eq!(e.connections(), 0, "{name} has connections left: {}", self.state());
            assert_eq!(e.route_count(), 0, "{name} has routes left");
            assert_eq!(e.pool_stats().in_use, 0, "{name} has buffers left: {:?}", e.pool_stats());
            assert!(e.deadline().is_none(), "{name} waits for something");
            let s = e.stats();
            assert_eq!(s.ended, s.connected + s.accepted, "{name}: {s:?}");
            let open = host.apps().filter(|a| a.report.closed.is_none()).count();
            assert_eq!(open, 0, "{name}: connections that ended without saying so");
        }
    }

    /// Why the server's first connection ended.
    #[must_use]
    pub fn server_reason(&self) -> Option<CloseReason> {
        self.server().app(0)?.report.closed.as_ref().map(|c| c.1.clone())
    }

    /// Why the client's first connection ended.
    #[must_use]
    pub fn client_reason(&self) -> Option<CloseReason> {
        self.client().app(0)?.report.closed.as_ref().map(|c| c.1.clone())
    }
}

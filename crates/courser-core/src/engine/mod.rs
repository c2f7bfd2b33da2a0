//! Many connections behind one socket (seed: the engine).
//!
//! Whoever owns a socket drives an engine in rounds, reading the clock once per batch:
//!
//! 1. [`Engine::receive`] for each train of datagrams that the socket gave;
//! 2. [`Engine::poll_event`] and the calls of the application;
//! 3. [`Engine::process`]: every connection for which something happened, or whose time has come, is ticked once;
//! 4. [`Engine::fill`] and a send, with [`Engine::sent`] after it, until nothing is left or the socket is full;
//! 5. sleep until [`Engine::deadline`] or until the socket is readable.
//!
//! All connections of a batch tick before any sends, so that each turn at sending is as full as it can be. What is sent is
//! a [`Train`]: datagrams of one connection that one system call sends. Turns of a full train's bytes go round, so that
//! connections share the socket by bytes (`turns`).
//!
//! The engine owns its connections; applications name them by [`ConnKey`], which is never valid for another connection.

mod admit;
mod ahead;
mod app;
mod cids;
mod clock;
mod config;
mod decided;
mod handover;
mod hello;
mod initial;
mod mini;
mod minis;
mod purgatory;
mod queues;
mod remains;
mod replies;
mod routes;
mod sent;
mod sources;
mod stats;
mod table;
mod turns;

#[cfg(test)]
mod tests;

use core::net::SocketAddr;
use core::time::Duration;

use zeroize::{Zeroize, Zeroizing};

use crate::ack::merge::AckRanges;
use crate::buf::pool::{ChunkPool, PoolStats};
use crate::config::Settings;
use crate::conn::{Common, Connection, Crowd, Env, GROUP, Number, Unsealed};
use crate::crypto::{Alert, TlsClientConfig};
use crate::error::ApiMisuse;
use crate::ids::{Cid, ConnKey};
use crate::observe::Interest;
use crate::time::Instant;

use self::cids::Reporter;
use self::clock::Clock;
use self::decided::Decided;
use self::mini::MiniConn;
use self::minis::{Minis, PerSecond};
use self::purgatory::Purgatory;
use self::queues::{DeadlineHeap, Fifo};
use self::remains::Remains;
use self::replies::{Allowance, ReplyQueue};
use self::routes::{CidHasher, Routes};
use self::sources::Sources;
use self::table::Table;
use self::turns::Turns;

use crate::path::Tokens;

pub use self::admit::Incoming;
pub use self::cids::{CidReports, CidState, CidWatcher};
pub use self::config::{
    EngineConfig, RetryPolicy, ServerConfig, Ticket, TokenKeys, TokenLedger, UNPROVEN_MAX, UsedTokens,
};
pub use self::sources::SourceLimits;
pub use self::stats::EngineStats;
pub use crate::conn::{ConnStats, Connect, EarlyData, Event, Limits, Logged, PacketLog};
pub use crate::packetiser::{Meta, SendOutcome, TRAIN_BYTES_MAX, TRAIN_DATAGRAMS_MAX, Train, TrainMeta};
pub use crate::path::PathInfo;

/// A connection that waits for its turn at sending, which sets its deadline anew, is looked at after so long nevertheless:
/// a socket that stays full must not keep it alive.
const TURN_PATIENCE: Duration = Duration::from_secs(1);

enum Kind {
    /// A client whose ClientHello is not complete, or that waits for the application's decision.
    Mini(Box<MiniConn>),
    Live(Box<Connection>),
    /// It is over, and late packets may come.
    Remains(Box<Remains>),
}

/// An entry of the connection table.
struct Entry {
    kind: Kind,
    /// When the connection wants to be ticked; the heap may hold an earlier time.
    deadline: Option<Instant>,
    /// Whether it counts among the handshakes under way.
    handshaking: bool,
    /// A client began without a token, and has not completed its handshake.
    unproven: bool,
}

/// An engine.
pub struct Engine {
    env: Env,
    clock: Clock,
    table: Table<Entry>,
    routes: Routes,
    tickable: Fifo,
    deadlines: DeadlineHeap,
    turns: Turns,
    eventful: Fifo,
    /// Events of connections that are gone, and of new ones.
    events: std::collections::VecDeque<(ConnKey, Event)>,
    incoming: std::collections::VecDeque<ConnKey>,
    replies: ReplyQueue,
    purgatory: Purgatory,
    decided: Decided,
    /// Tokens of NEW_TOKEN frames prove an address once.
    used_tokens: Box<dyn TokenLedger>,
    /// When something was last received.
    received_at: Instant,
    /// Stateless resets that may be sent.
    resets: Allowance,
    cid_reports: Option<Reporter>,
    server: Option<ServerConfig>,
    cooldown: bool,
    /// Connections whose handshake is not complete, and minis.
    handshakes: usize,
    /// Those of them whose client has not proven its address.
    unproven: usize,
    minis: Minis,
    /// What sources left unfinished; on servers that limit it.
    sources: Option<Sources>,
    completed: PerSecond,
    trains_since_reply: u32,
    /// What the pool had refused when it was last looked at.
    refused_seen: u64,
    /// Somebody was refused memory and has not been told that there is some again.
    short_of_memory: bool,
    stats: EngineStats,
}

impl Engine {
    /// An engine without connections.
    #[must_use]
    pub fn new(mut config: EngineConfig) -> Self {
        config.settle_cids();
        let mut draw = || {
            let mut key = Zeroizing::new([0; 32]);
            config.random.fill(&mut *key);
            key
        };
        let token_keys = config.token_keys.unwrap_or_else(|| TokenKeys::new(*draw()));
        let reset_key = config.reset_key.map_or_else(draw, Zeroizing::new);
        config.reset_key.zeroize();
        let tokens = Tokens::new(config.keys.as_ref(), &token_keys, config.unix_time_at_zero);
        let hasher = CidHasher::drawn(config.random.as_mut());
        let sources = config.server.as_ref().and_then(|s| s.sources).map(|limits| Sources::new(limits, hasher));
        let routes = Routes::new(hasher, config.cids.cid_len());
        let interest = config.observer.as_ref().map_or(Interest::NONE, |o| o.interest());
        Self {
            env: Env {
                keys: config.keys,
                random: config.random,
                cid_len: config.cids.cid_len(),
                cids: config.cids,
                pool: ChunkPool::new(config.memory_max),
                merge: AckRanges::with_room(),
                merging: None,
                early_acks: AckRanges::new(),
                records: Vec::with_capacity(64),
                unsealed: Unsealed::with_room(),
                reset_key,
                common: Common::default(),
                aead_limits: config.aead_limits,
                tokens,
                observer: config.observer,
                interest,
                crowd: Crowd::None,
                throng: false,
                now: Instant::ZERO,
                payload: Vec::new(),
                pressing: false,
                spoil: false,
            },
            clock: Clock::default(),
            table: Table::default(),
            routes,
            tickable: Fifo::default(),
            deadlines: DeadlineHeap::default(),
            turns: Turns::default(),
            eventful: Fifo::default(),
            events: std::collections::VecDeque::new(),
            incoming: std::collections::VecDeque::new(),
            replies: ReplyQueue::new(config.server.is_some()),
            purgatory: Purgatory::new(hasher),
            decided: Decided::new(hasher),
            used_tokens: config.token_ledger.unwrap_or_else(|| Box::new(UsedTokens::new())),
            received_at: Instant::ZERO,
            resets: Allowance::default(),
            cid_reports: config.cid_reports.map(Reporter::new),
            server: config.server,
            cooldown: false,
            handshakes: 0,
            unproven: 0,
            minis: Minis::default(),
            sources,
            completed: PerSecond::default(),
            trains_since_reply: 0,
            refused_seen: 0,
            short_of_memory: false,
            stats: EngineStats::default(),
        }
    }

    /// Takes a received train: datagrams of `meta.stride` bytes, the last may be shorter. They are decrypted in place.
    pub fn receive(&mut self, now: Instant, meta: &Meta, train: &mut [u8]) {
        let now = self.clock.read(now);
        (self.received_at, self.env.now) = (now, now);
        let stride = meta.stride.max(1);
        for group in train.chunks_mut(stride.saturating_mul(GROUP)) {
            self.stats.datagrams += group.len().div_ceil(stride) as u64;
            match self.common_route(group, stride) {
                Some(key) => self.receive_group(now, meta, key, group),
                None => group.chunks_mut(stride).for_each(|datagram| self.receive_datagram(now, meta, datagram)),
            }
        }
    }

    /// The connection that several datagrams go to, when each of them is a packet with a short header.
    fn common_route(&mut self, group: &[u8], stride: usize) -> Option<ConnKey> {
        if group.len() <= stride {
            return None;
        }
        let mut common = None;
        for datagram in group.chunks(stride) {
            let cid = crate::wire::header::short_destination(datagram, self.env.cid_len)?;
            let key = self.routes.find(cid)?;
            if *common.get_or_insert(key) != key {
                return None;
            }
        }
        common
    }

    /// Datagrams of one connection: unmasked together, then handled one by one.
    fn receive_group(&mut self, now: Instant, meta: &Meta, key: ConnKey, group: &mut [u8]) {
        let numbers = match self.table.get_mut(key).map(|e| &mut e.kind) {
            Some(Kind::Live(conn)) => conn.unmask_group(&self.env, meta, group),
            _ => [None; GROUP],
        };
        for (datagram, number) in group.chunks_mut(meta.stride.max(1)).zip(numbers) {
            self.receive_routed(now, meta, key, datagram, number);
        }
    }

    fn receive_datagram(&mut self, now: Instant, meta: &Meta, datagram: &mut [u8]) {
        let key = match crate::wire::header::destination(datagram, self.env.cid_len) {
            Some([]) => self.routes.find_address(meta.remote),
            Some(cid) => self.routes.find(cid),
            None => None,
        };
        match key {
            Some(key) => self.receive_routed(now, meta, key, datagram, None),
            None => self.on_unrouted(now, meta, datagram),
        }
    }

    fn receive_routed(&mut self, now: Instant, meta: &Meta, key: ConnKey, datagram: &mut [u8], number: Number) {
        if self.env.merging.is_some_and(|other| other != key) {
            self.flush_merged(now);
        }
        let Some(entry) = self.table.get_mut(key) else { return };
        let conn = match &mut entry.kind {
            Kind::Live(conn) => conn,
            Kind::Mini(_) => return self.receive_mini(now, meta, key, datagram),
            Kind::Remains(_) => return self.receive_remains(now, key, meta, datagram),
        };
        // What TLS answers is never cut short.
        self.env.pool.charge(key.index, u64::MAX);
        let opaque = conn.receive(&mut self.env, now, meta, datagram, number) == crate::conn::Received::Opaque;
        if opaque {
            //= rfc9000#10.3.1-1
            self.is_reset(now, datagram);
        }
        self.apply_routes(now, key);
        self.tickable.push(key.index);
    }

    /// A datagram that no connection claims, or that its connection could not open, may be a stateless reset; its
    /// connection hears of it then.
    fn is_reset(&mut self, now: Instant, datagram: &[u8]) -> bool {
        let Some(reset) = self.routes.find_reset(datagram) else { return false };
        match self.table.get_mut(reset).map(|e| &mut e.kind) {
            Some(Kind::Live(conn)) => conn.on_stateless_reset(now),
            //= rfc9000#10.3.1-4
            Some(Kind::Remains(remains)) => remains.words = None,
            _ => return true,
        }
        self.tickable.push(reset.index);
        true
    }

    /// Handles the merged acknowledgements of a connection before another one uses the scratch.
    fn flush_merged(&mut self, now: Instant) {
        let Some(key) = self.env.merging else { return };
        match self.table.get_mut(key).map(|e| &mut e.kind) {
            Some(Kind::Live(conn)) => conn.flush_or_fail(&mut self.env, now),
            _ => {
                self.env.merging = None;
                self.env.merge.clear();
            }
        }
    }

    /// Whether a handshake went on, with something to send, since [`process`](Self::process) was last called. That took as long
    /// as hundreds of packets, and the peer waits for the answer: who still has datagrams to hand over lets it leave first. Both
    /// ends of many handshakes then work at the same time instead of in turns.
    #[must_use]
    pub const fn is_pressing(&self) -> bool {
        self.env.pressing
    }

    /// Ticks each connection for which something happened or whose time has come, once.
    pub fn process(&mut self, now: Instant) {
        let now = self.clock.read(now);
        self.env.now = now;
        self.env.pressing = false;
        self.flush_merged(now);
        while let Some(index) = self.deadlines.pop_due(now) {
            let Some((_, entry)) = self.table.at(index) else { continue };
            match entry.deadline {
                Some(at) if at > now => self.deadlines.set(index, at),
                // What is due leaves with its turn, and a visit before that would be in vain.
                Some(at) if now < at + TURN_PATIENCE && self.turns.waits(index) => {
                    self.deadlines.set(index, at + TURN_PATIENCE);
                }
                _ => self.tickable.push(index),
            }
        }
        self.note_memory();
        for done in 0..self.tickable.len() {
            self.touch_tickable(done);
            let Some(index) = self.tickable.pop() else { break };
            self.tick(now, index);
        }
        self.report_cids(now);
        self.env.pool.age(now, self.table.len() == 0);
    }

    /// When the pool was short of memory and has some again, every connection looks whether it waits for it.
    fn note_memory(&mut self) {
        /// Room that is worth telling about.
        const ROOM: usize = 64 << 10;
        let refused = self.env.pool.stats().refused;
        self.short_of_memory |= core::mem::replace(&mut self.refused_seen, refused) != refused;
        if self.short_of_memory && self.env.pool.room_bytes() >= ROOM {
            self.short_of_memory = false;
            for (key, _) in self.table.iter() {
                self.tickable.push(key.index);
            }
        }
    }

    fn tick(&mut self, now: Instant, index: u32) {
        let Some((key, entry)) = self.table.at(index) else { return };
        let conn = match &mut entry.kind {
            Kind::Live(conn) if conn.is_done() => return self.reduce(now, key),
            Kind::Live(conn) => conn,
            Kind::Mini(_) => return self.tick_mini(now, index),
            Kind::Remains(_) => return self.tick_remains(now, index),
        };
        self.env.pool.charge(index, conn.worth());
        let tick = conn.tick(&mut self.env, now);
        self.stats.ticks += 1;
        entry.deadline = tick.deadline;
        let has_events = conn.has_events();
        if entry.handshaking && !conn.is_handshaking() {
            self.on_handshaken(now, key);
        }
        self.apply_routes(now, key);
        if tick.ended {
            self.free(now, key);
            return;
        }
        if tick.wants_send {
            self.turns.push(index);
        }
        match tick.deadline {
            // What is still due after its timers ran waits for a turn at sending, and another tick would change nothing:
            // with many connections waiting, ticking all of them in each round is what a round would cost.
            Some(at) if at <= now && tick.wants_send => self.deadlines.put_off(index, now + TURN_PATIENCE),
            // Its turn, which sets the deadline anew, most likely comes before it.
            Some(at) if tick.wants_send => self.deadlines.set(index, at + TURN_PATIENCE),
            Some(at) => self.deadlines.set(index, at),
            None => self.deadlines.remove(index),
        }
        if has_events {
            self.eventful.push(index);
        }
    }

    /// When [`process`](Self::process) has to be called although nothing arrives: the origin of time when there is work
    /// to do at once.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.tickable.len() > 0 || self.turns.len() > 0 || !self.replies.is_empty() {
            return Some(Instant::ZERO);
        }
        let first =
            [self.deadlines.first(), self.report_deadline(), self.env.pool.deadline().filter(|_| self.table.len() > 0)]
                .into_iter()
                .flatten()
                .min();
        first.map(|at| self.clock.for_caller(at))
    }

    /// The next event of any connection.
    pub fn poll_event(&mut self) -> Option<(ConnKey, Event)> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        while let Some(index) = self.eventful.pop() {
            let Some((key, entry)) = self.table.at(index) else { continue };
            let Kind::Live(conn) = &mut entry.kind else { continue };
            if let Some(event) = conn.poll_event() {
                if conn.has_events() {
                    self.eventful.push_front(index);
                } else if conn.is_done() {
                    self.tickable.push(index);
                }
                return Some((key, event));
            }
        }
        None
    }

    /// Starts a connection to a server. `server_name` is a DNS name or an address, as the certificate has it.
    ///
    /// # Errors
    /// When TLS cannot start, for example with an impossible server name.
    pub fn connect(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        server_name: &str,
        tls: &dyn TlsClientConfig,
        settings: &Settings,
    ) -> Result<ConnKey, Alert> {
        self.connect_with(now, &Connect { remote, server_name, tls, settings, token: &[], restart: None })
    }

    /// Like [`connect`](Self::connect), with everything that can be said.
    ///
    /// # Errors
    /// When TLS cannot start, for example with an impossible server name.
    pub fn connect_with(&mut self, now: Instant, start: &Connect<'_>) -> Result<ConnKey, Alert> {
        //= rfc9000#5.1-3
        if self.env.cid_len == 0 && self.routes.find_address(start.remote).is_some() {
            let reason = "without connection IDs there is one connection to an address".into();
            return Err(Alert { code: 80, reason });
        }
        let now = self.clock.read(now);
        self.env.pool.charge_nobody();
        let local = self.free_cid();
        let conn = Connection::client(&mut self.env, now, ConnKey { index: 0, generation: 0 }, local, start)?;
        let full = Alert { code: 80, reason: "this engine holds as many connections as it can".into() };
        let key =
            self.table.insert(Entry { kind: Kind::Live(conn), deadline: None, handshaking: true, unproven: false });
        let key = key.ok_or(full)?;
        if let Some(conn) = self.conn_mut(key) {
            conn.key = key;
        }
        self.observe_start(now, key, None);
        self.stats.connected += 1;
        self.count_handshake(key);
        self.apply_routes(now, key);
        self.tickable.push(key.index);
        Ok(key)
    }

    /// Frees a connection that is over, or what is left of it.
    fn free(&mut self, now: Instant, key: ConnKey) {
        self.deadlines.remove(key.index);
        self.turns.forget(key.index);
        self.uncount_handshake(key);
        let Some(entry) = self.table.remove(key) else { return };
        let mut conn = match entry.kind {
            Kind::Live(conn) => conn,
            Kind::Remains(remains) => return self.free_remains(now, key, &remains),
            Kind::Mini(_) => return,
        };
        while let Some(event) = conn.poll_event() {
            self.events.push_back((key, event));
        }
        self.forget(now, key, &conn.names(), conn.is_worn_out());
        conn.observe_end(&mut self.env, now);
        conn.release(&mut self.env);
        debug_assert_eq!(self.env.pool.held(key.index), 0, "a connection that is gone holds memory");
        self.stats.ended += 1;
    }

    /// Tells observers of a new connection. `original` is the client's first choice of a connection ID, where a Retry came
    /// in between.
    fn observe_start(&mut self, now: Instant, key: ConnKey, original: Option<Cid>) {
        if let Some(Kind::Live(conn)) = self.table.get(key).map(|e| &e.kind) {
            conn.observe_start(&mut self.env, now, original);
        }
    }

    fn conn_mut(&mut self, key: ConnKey) -> Option<&mut Connection> {
        match &mut self.table.get_mut(key)?.kind {
            Kind::Live(conn) => Some(conn),
            Kind::Mini(_) | Kind::Remains(_) => None,
        }
    }

    fn conn(&self, key: ConnKey) -> Option<&Connection> {
        match &self.table.get(key)?.kind {
            Kind::Live(conn) => Some(conn),
            Kind::Mini(_) | Kind::Remains(_) => None,
        }
    }

    /// Makes the next packet of any connection illegal: a frame will stand behind PADDING. For tests that what is built is
    /// judged wherever an engine runs; such a method exists in debug builds only.
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub fn spoil_next_packet(&mut self) {
        self.env.spoil = true;
    }

    /// Lets the `n`-th take of a buffer from now fail, for tests of what becomes of connections then; zero switches it off.
    /// Such a method exists in debug builds only.
    #[cfg(debug_assertions)]
    #[doc(hidden)]
    pub fn fail_nth_take(&mut self, n: u64) {
        self.env.pool.fail_nth(n);
    }

    /// From now on no new connection is taken; present ones go on.
    pub fn set_cooldown(&mut self, cooldown: bool) {
        self.cooldown = cooldown;
    }

    /// Connections of all states, also of those that are over as long as late packets may come, and clients that begin.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.table.len()
    }

    /// Routes of all kinds; zero when all connections are gone.
    #[must_use]
    pub fn route_count(&self) -> usize {
        self.routes.len()
    }

    /// Handshakes under way, clients that begin included.
    #[must_use]
    pub fn handshakes(&self) -> usize {
        self.handshakes
    }

    /// The settings of a connection, as they were when it began.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownConnection`].
    pub fn settings(&self, key: ConnKey) -> Result<&Settings, ApiMisuse> {
        let conn = self.conn(key).ok_or(ApiMisuse::UnknownConnection)?;
        Ok(conn.settings(&self.env))
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        self.stats
    }

    /// Buffers of all connections.
    #[must_use]
    pub fn pool_stats(&self) -> PoolStats {
        self.env.pool.stats()
    }
}

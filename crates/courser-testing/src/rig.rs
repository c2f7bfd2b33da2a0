//! An engine under test, and a forger who holds the keys of a connection to it.
//!
//! The forger begins as an honest engine of the null provider whose key factory is tapped: every traffic secret that it
//! installs is copied. Whatever the honest engine and the engine under test exchange is watched for connection IDs and
//! packet numbers. From then on the test makes packets of its own at every level, and the engine under test cannot tell
//! them from those of a peer that breaks rules.

mod seen;
mod tap;

use core::net::SocketAddr;
use core::time::Duration;

use courser_core::config::Settings;
use courser_core::crypto::{Head, KeyFactory, Sealer, Suite, TAG_LEN, TlsClientConfig};
use courser_core::engine::{Engine, EngineConfig, Event, Meta, SendOutcome, ServerConfig, Train};
use courser_core::ids::{Cid, ConnKey, Dir, Ecn, Level, Side, StreamId, Version};
use courser_core::protect::null::{NullKeys, NullTlsClient, NullTlsServer, told_by};
use courser_core::stream::Read;
use courser_core::time::Instant;
use courser_core::wire::Writer;
use courser_core::wire::frame::{self, Frame};
use courser_core::wire::header::{self, Header, LongSpec, ShortSpec};

use crate::duo::{null_client, null_server};

use self::seen::close_in;
use self::tap::{Tap, Twisted};
use crate::keys::Watched;

pub use self::seen::{Seen, SeenClose, encode, numbered, packets};
pub use self::tap::Twist;

/// Length of the connection IDs that engines issue.
const CID_LEN: usize = 8;

/// Ranges of sent packets that are remembered.
const SENT_MAX: usize = 32;

/// Address of the engine under test.
pub const VICTIM: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 2)), 443);
/// Address of the forger.
pub const FORGER: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::new(10, 9, 9, 9)), 999);
/// Address of an honest peer.
pub const FRIEND: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 1)), 1000);

/// How far the handshake has come when the forger takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The engine under test has Initial keys; as a server also Handshake keys.
    Initial,
    /// It has Handshake keys and waits for the rest of the handshake.
    Handshake,
    /// The handshake is confirmed at both ends.
    Confirmed,
}

/// An honest connection to the engine under test.
struct Friend {
    engine: Engine,
    key: ConnKey,
    /// The connection's key at the engine under test.
    there: ConnKey,
}

/// What a rig is built from.
pub struct Plan {
    /// The end that is under test.
    pub victim: Side,
    /// When the forger takes over.
    pub stage: Stage,
    /// Settings of the engine under test.
    pub settings: Settings,
    /// Settings of the honest engine that the forger begins with.
    pub forger: Settings,
    /// The server's TLS, whichever end is the server.
    pub tls: NullTlsServer,
    /// Padded length of the ClientHello.
    pub hello_len: usize,
    /// Changes to the server part of an engine under test that is a server.
    pub server: fn(&mut ServerConfig),
    /// Changes to the engine under test.
    pub engine: fn(&mut EngineConfig),
    /// Whether the forger, a client, offers 0-RTT and the server takes it.
    pub early: bool,
    /// Whether an honest peer is connected as well; only when the engine under test is a server.
    pub friend: bool,
    /// Changes to the transport parameters that the forger sends. The handshake goes as far as it goes then, whatever the
    /// stage says, and [`Rig::first`] has what the engine under test said.
    pub twist: Option<Twist>,
}

impl Plan {
    /// A plan with ordinary settings and no friend.
    #[must_use]
    pub fn new(victim: Side, stage: Stage) -> Self {
        let tls = NullTlsServer { certificate_len: 3000, ..NullTlsServer::default() };
        Self {
            victim,
            stage,
            settings: Settings::default(),
            forger: Settings::default(),
            tls,
            hello_len: 0,
            server: |_| {},
            engine: |_| {},
            early: false,
            friend: false,
            twist: None,
        }
    }
}

/// The engine under test with its forger.
pub struct Rig {
    /// The engine under test.
    pub victim: Engine,
    /// Its key of the attacked connection.
    pub key: ConnKey,
    /// The time.
    pub now: Instant,
    /// The engine under test is this end.
    pub side: Side,
    stage: Stage,
    /// Events of the attacked connection.
    pub events: Vec<Event>,
    /// What the engine under test said before the forger took over.
    pub first: Seen,
    /// The client's first datagram.
    pub hello: Vec<u8>,
    forger: Engine,
    tap: Tap,
    /// The forger has keys of 0-RTT.
    early: bool,
    /// Destination connection ID of the client's first Initial.
    pub original: Cid,
    /// Where packets to the engine under test go.
    pub to: Cid,
    /// The forger's own connection ID.
    pub from: Cid,
    /// Next packet number by space.
    pub next_pn: [u64; 3],
    /// Numbers of the 1-RTT packets that the engine under test sent, as inclusive ranges; the newest few.
    pub sent: Vec<(u64, u64)>,
    friend: Option<Friend>,
    train: Train,
}

impl Rig {
    /// Builds both ends and brings them to the planned stage.
    ///
    /// # Panics
    /// When the honest part of the handshake fails.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let (tap, tls) = (Tap::default(), NullTlsServer { accept_early_data: plan.early, ..plan.tls });
        let (mut victim, mut forger) = match plan.victim {
            Side::Server => (null_server(7, tls.clone(), &plan.settings), null_client(8)),
            Side::Client => (null_client(7), null_server(8, tls.clone(), &plan.forger)),
        };
        if let Some(part) = &mut victim.server {
            (plan.server)(part);
        }
        (plan.engine)(&mut victim);
        if let (Some(part), Some(twist)) = (&mut forger.server, plan.twist) {
            part.tls = Box::new(Twisted(tls.clone(), twist));
        }
        forger.keys = Box::new(Watched(tap.clone()));
        let mut rig = Self {
            victim: Engine::new(victim),
            key: ConnKey { index: u32::MAX, generation: 0 },
            now: Instant::from_micros(1_000_000),
            side: plan.victim,
            stage: plan.stage,
            events: Vec::new(),
            first: Seen::default(),
            hello: Vec::new(),
            forger: Engine::new(forger),
            tap,
            early: plan.early,
            original: Cid::EMPTY,
            to: Cid::EMPTY,
            from: Cid::EMPTY,
            next_pn: [0; 3],
            sent: Vec::with_capacity(SENT_MAX + 1),
            friend: None,
            train: Train::new(),
        };
        if plan.friend {
            rig.befriend();
        }
        let client = if plan.victim.is_client() { &plan.settings } else { &plan.forger };
        let hello = NullTlsClient {
            hello_len: plan.hello_len,
            remembered: plan.early.then(|| told_by(&plan.settings)),
            ..NullTlsClient::default()
        };
        rig.shake_hands(plan.stage, client, plan.twist, hello);
        rig
    }

    /// A rig with ordinary settings.
    #[must_use]
    pub fn at(victim: Side, stage: Stage) -> Self {
        Self::new(Plan::new(victim, stage))
    }

    /// How far the handshake was when the forger took over.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// Acknowledges what the engine under test sent, if it has sent 1-RTT packets.
    pub fn acknowledge_if_confirmed(&mut self) {
        if self.stage == Stage::Confirmed {
            self.acknowledge();
        }
    }

    fn shake_hands(&mut self, stage: Stage, settings: &Settings, twist: Option<Twist>, hello: NullTlsClient) {
        let tls: Box<dyn TlsClientConfig> = match twist {
            Some(twist) if self.side.is_server() => Box::new(Twisted(hello, twist)),
            _ => Box::new(hello),
        };
        let server = if self.side.is_client() { FORGER } else { VICTIM };
        let client = match self.side {
            Side::Server => &mut self.forger,
            Side::Client => &mut self.victim,
        };
        let key = client.connect(self.now, server, "localhost", &*tls, settings).expect("TLS starts");
        if self.side.is_client() {
            self.key = key;
        }
        match stage {
            _ if twist.is_some() => self.talk(),
            Stage::Initial => self.open_only(),
            Stage::Handshake => self.half(),
            Stage::Confirmed => {
                self.talk();
                assert!(
                    self.events.contains(&Event::Confirmed),
                    "confirmed: {:?} {:?}",
                    self.events,
                    self.victim.stats()
                );
            }
        }
        assert!(self.key.index != u32::MAX, "the connection exists: {:?}", self.victim.stats());
    }

    /// Both ends talk until they have nothing more to say.
    fn talk(&mut self) {
        for _ in 0..40 {
            let flight = self.collect_forger();
            self.deliver_all(flight);
            self.answer_forger();
            self.now += Duration::from_millis(1);
        }
    }

    /// Only the ClientHello arrives.
    fn open_only(&mut self) {
        if self.side.is_server() {
            let hello = self.collect_forger();
            self.deliver_all(hello);
            let seen = self.collect_victim(true);
            self.remember(seen);
        } else {
            self.answer_forger();
            let _ = self.collect_forger();
        }
    }

    /// Handshake keys are there and the handshake is not complete at the engine under test.
    fn half(&mut self) {
        if self.side.is_server() {
            let hello = self.collect_forger();
            self.deliver_all(hello);
            // The forger has everything; its Finished never leaves.
            self.answer_forger();
            let _ = self.collect_forger();
        } else {
            self.answer_forger();
            let mut flight = self.collect_forger();
            assert!(flight.len() > 1, "the server's flight takes several datagrams");
            flight.truncate(1);
            self.deliver_all(flight);
            let seen = self.collect_victim(true);
            self.remember(seen);
        }
    }

    fn deliver_all(&mut self, datagrams: Vec<Vec<u8>>) {
        for mut datagram in datagrams {
            self.deliver(&mut datagram);
        }
        self.poll();
    }

    /// Gives the engine under test a datagram from the forger's address.
    pub fn deliver(&mut self, datagram: &mut [u8]) {
        self.deliver_from(FORGER, datagram);
    }

    /// Gives the engine under test a datagram from any address.
    pub fn deliver_from(&mut self, remote: SocketAddr, datagram: &mut [u8]) {
        let meta = Meta { local: None, remote, ecn: Ecn::NotEct, stride: datagram.len() };
        self.victim.receive(self.now, &meta, datagram);
    }

    /// What the honest part of the forger has to say.
    fn collect_forger(&mut self) -> Vec<Vec<u8>> {
        self.forger.process(self.now);
        let mut datagrams = Vec::new();
        while let Some(meta) = self.forger.fill(self.now, &mut self.train) {
            datagrams.extend(self.train.bytes().chunks(meta.segment).map(<[u8]>::to_vec));
            self.forger.sent(self.now, &meta, SendOutcome::Sent);
        }
        for datagram in &datagrams {
            self.watch(datagram, true);
        }
        datagrams
    }

    fn answer_forger(&mut self) {
        let seen = self.collect_victim(true);
        for mut datagram in seen.datagrams.clone() {
            let meta = Meta { local: None, remote: VICTIM, ecn: Ecn::NotEct, stride: datagram.len() };
            self.forger.receive(self.now, &meta, &mut datagram);
        }
        self.remember(seen);
    }

    fn remember(&mut self, seen: Seen) {
        self.first.close = self.first.close.take().or(seen.close);
        self.first.datagrams.extend(seen.datagrams);
    }

    /// Ticks the engine under test and takes what it sends to the forger.
    pub fn collect(&mut self) -> Seen {
        self.collect_victim(false)
    }

    fn collect_victim(&mut self, watch: bool) -> Seen {
        let mut seen = Seen::default();
        self.victim.process(self.now);
        while let Some(meta) = self.victim.fill(self.now, &mut self.train) {
            self.victim.sent(self.now, &meta, SendOutcome::Sent);
            if meta.to == FRIEND {
                self.answer_friend(meta.segment);
                continue;
            }
            seen.datagrams.extend(self.train.bytes().chunks(meta.segment).map(<[u8]>::to_vec));
        }
        self.poll();
        for datagram in &seen.datagrams {
            if watch {
                self.watch(datagram, false);
            }
            self.note_sent(datagram);
            for (level, payload) in packets(datagram) {
                seen.close = seen.close.take().or_else(|| close_in(level, &payload));
            }
        }
        seen
    }

    fn poll(&mut self) {
        while let Some((key, event)) = self.victim.poll_event() {
            let friends = self.friend.as_ref().is_some_and(|f| f.there == key);
            if friends {
                continue;
            }
            if event == Event::Accepted && self.key.index == u32::MAX {
                self.key = key;
            }
            if key == self.key {
                self.events.push(event);
            }
        }
    }

    /// Learns connection IDs and packet numbers.
    fn watch(&mut self, datagram: &[u8], ours: bool) {
        let mut rest = datagram;
        while !rest.is_empty() {
            let Ok(header) = header::decode(rest, CID_LEN) else { return };
            let (level, dcid, scid, pn_at, end) = match header {
                Header::Short { dcid, pn_at } => (Level::OneRtt, dcid, None, pn_at, rest.len()),
                other => match other.long() {
                    Some(l) => (l.level, l.dcid, Some(l.scid), l.pn_at, l.end),
                    None => return,
                },
            };
            let first_of_client = level == Level::Initial && self.original.is_empty();
            if first_of_client {
                self.original = dcid;
                self.hello = datagram.to_vec();
            }
            if ours {
                if self.to.is_empty() || self.to == self.original {
                    self.to = dcid;
                }
                self.from = scid.unwrap_or(self.from);
                let len = header::pn_len(rest[0]);
                let pn = rest[pn_at..pn_at + len].iter().fold(0, |n, b| n << 8 | u64::from(*b));
                let next = &mut self.next_pn[level.space().index()];
                *next = (*next).max(pn + 1);
            } else if let Some(scid) = scid {
                self.to = scid;
            }
            rest = &rest[end..];
        }
    }

    fn note_sent(&mut self, datagram: &[u8]) {
        let Some((first, rest)) = datagram.split_first() else { return };
        if header::is_long(*first) || rest.len() < CID_LEN + 4 {
            return;
        }
        let pn = rest[CID_LEN..CID_LEN + header::pn_len(*first)].iter().fold(0, |n, b| n << 8 | u64::from(*b));
        // Numbers are cut to what their receiver needs; a close is repeated as it was.
        let bits = 8 * header::pn_len(*first);
        let last = self.sent.last().map_or(0, |r| r.1);
        let mut full = last >> bits << bits | pn;
        if full + (1 << (bits - 1)) < last {
            full += 1 << bits;
        }
        if !self.sent.is_empty() && full <= last {
            return;
        }
        match self.sent.last_mut() {
            Some(range) if range.1 + 1 == full => range.1 = full,
            _ => self.sent.push((full, full)),
        }
        if self.sent.len() > SENT_MAX {
            self.sent.remove(0);
        }
    }

    /// Acknowledges what the engine under test sent, like an honest peer.
    ///
    /// # Panics
    /// When the frame does not fit a packet.
    pub fn acknowledge(&mut self) {
        let mut bytes = [0; 1100];
        let mut w = Writer::new(&mut bytes);
        if frame::write_ack(&mut w, self.sent.iter().rev().copied(), 0, None, 1100).is_some() {
            let len = w.len();
            self.give(Level::OneRtt, &bytes[..len]);
        }
    }

    fn sealer(&self, level: Level) -> Option<Box<dyn Sealer>> {
        let version = Version::V1;
        let by = |at| Some(NullKeys.sealer(Suite::Aes128Gcm, &self.tap.material(at)?));
        match level {
            Level::Initial => Some(NullKeys.initial(version, &self.original, self.side.peer()).seal),
            Level::ZeroRtt => self.early.then(|| by(0)).flatten(),
            Level::Handshake => by(usize::from(self.early)),
            Level::OneRtt => by(1 + usize::from(self.early)),
        }
    }

    /// Makes a packet of a level with that payload and the next packet number.
    ///
    /// # Panics
    /// When the level has no keys yet.
    #[must_use]
    pub fn forge(&mut self, level: Level, payload: &[u8]) -> Vec<u8> {
        self.forge_with(level, payload, |_| {})
    }

    /// Like [`forge`](Self::forge), with a change to the packet before it is sealed.
    ///
    /// # Panics
    /// When the level has no keys yet.
    #[must_use]
    pub fn forge_with(&mut self, level: Level, payload: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let pn = self.next_pn[level.space().index()];
        self.next_pn[level.space().index()] += 1;
        self.forge_numbered(level, pn, payload, change)
    }

    /// Like [`forge_with`](Self::forge_with), with any packet number.
    ///
    /// # Panics
    /// When the level has no keys yet.
    #[must_use]
    pub fn forge_numbered(&self, level: Level, pn: u64, payload: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        self.make(level, pn, &[], payload, change)
    }

    /// Makes an Initial with a token.
    ///
    /// # Panics
    /// When the level has no keys yet.
    #[must_use]
    pub fn forge_token(&mut self, token: &[u8], payload: &[u8]) -> Vec<u8> {
        let pn = self.next_pn[0];
        self.next_pn[0] += 1;
        self.make(Level::Initial, pn, token, payload, |_| {})
    }

    /// Whether the forger has keys to send at a level.
    #[must_use]
    pub fn has_keys(&self, level: Level) -> bool {
        self.sealer(level).is_some()
    }

    /// Makes a packet of a level for which the forger has no keys: what seals it are keys of another level.
    #[must_use]
    pub fn forge_without_keys(&mut self, level: Level, payload: &[u8]) -> Vec<u8> {
        let keys = NullKeys.initial(Version::V1, &Cid::EMPTY, self.side).seal;
        self.make_with(&*keys, (level, self.next_pn[level.space().index()]), &[], payload, |_| {})
    }

    fn make(&self, level: Level, pn: u64, token: &[u8], payload: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let sealer = self.sealer(level).expect("the level has keys");
        self.make_with(&*sealer, (level, pn), token, payload, change)
    }

    fn make_with(
        &self,
        sealer: &dyn Sealer,
        (level, pn): (Level, u64),
        token: &[u8],
        payload: &[u8],
        change: impl FnOnce(&mut [u8]),
    ) -> Vec<u8> {
        let mut packet = vec![0; 128 + token.len() + payload.len()];
        let mut w = Writer::new(&mut packet);
        let (head, layout) = if level == Level::OneRtt {
            let spec = ShortSpec { dcid: &self.to, spin: false, key_phase: false, pn, pn_len: 4 };
            (header::write_short(&mut w, &spec).expect("there is room"), None)
        } else {
            let spec = LongSpec { level, version: Version::V1, dcid: &self.to, scid: &self.from, token, pn, pn_len: 4 };
            let layout = header::write_long(&mut w, &spec).expect("there is room");
            (layout.head(), Some(layout))
        };
        let head: Head = head;
        w.bytes(payload).expect("there is room");
        let len = w.len() + TAG_LEN;
        packet.truncate(len);
        if let Some(layout) = layout {
            header::patch_length(&mut packet, layout, len).expect("the length fits");
        }
        change(&mut packet);
        sealer.seal(pn, &mut packet, head, &[]).expect("the layout is right");
        packet
    }

    /// Forges a packet, delivers it in a datagram of at least 1,200 bytes, and collects the answer.
    pub fn inject(&mut self, level: Level, payload: &[u8]) -> Seen {
        self.give(level, payload);
        self.collect()
    }

    /// Forges a packet and delivers it, without a tick.
    pub fn give(&mut self, level: Level, payload: &[u8]) {
        let packet = self.forge(level, payload);
        self.give_packet(level, packet);
    }

    /// Delivers a packet in a datagram that is large enough for its level.
    pub fn give_packet(&mut self, level: Level, mut packet: Vec<u8>) {
        if level != Level::OneRtt && packet.len() < 1200 {
            packet.resize(1200, 0);
        }
        self.deliver(&mut packet);
    }

    /// Like [`inject`](Self::inject), with frames.
    pub fn inject_frames(&mut self, level: Level, frames: &[Frame<'_>]) -> Seen {
        let payload = encode(frames);
        self.inject(level, &payload)
    }

    /// Lets time pass: everything that is due happens; what is sent is lost.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..10_000 {
            let _ = self.collect();
            match self.victim.deadline().filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => break,
            }
        }
        self.now = end;
        let _ = self.collect();
    }

    fn befriend(&mut self) {
        let mut engine = Engine::new(null_client(99));
        let key = engine.connect(self.now, VICTIM, "localhost", &NullTlsClient::default(), &Settings::default());
        let key = key.expect("TLS starts");
        self.friend = Some(Friend { engine, key, there: self.key });
        for _ in 0..40 {
            self.hear_friend();
            self.victim.process(self.now);
            while let Some((key, event)) = self.victim.poll_event() {
                if let (Event::Accepted, Some(friend)) = (event, &mut self.friend) {
                    friend.there = key;
                }
            }
            let _ = self.collect();
            self.now += Duration::from_millis(1);
        }
    }

    fn hear_friend(&mut self) {
        let Some(friend) = &mut self.friend else { return };
        friend.engine.process(self.now);
        let mut datagrams = Vec::new();
        while let Some(meta) = friend.engine.fill(self.now, &mut self.train) {
            datagrams.extend(self.train.bytes().chunks(meta.segment).map(<[u8]>::to_vec));
            friend.engine.sent(self.now, &meta, SendOutcome::Sent);
        }
        for mut datagram in datagrams {
            self.deliver_from(FRIEND, &mut datagram);
        }
    }

    fn answer_friend(&mut self, segment: usize) {
        let Some(friend) = &mut self.friend else { return };
        let mut bytes = self.train.bytes().to_vec();
        let meta = Meta { local: None, remote: VICTIM, ecn: Ecn::NotEct, stride: segment };
        friend.engine.receive(self.now, &meta, &mut bytes);
    }

    /// Moves `len` bytes over the honest connection and says whether all arrived within a few seconds.
    ///
    /// # Panics
    /// When there is no honest connection.
    pub fn friend_gets_through(&mut self, len: usize) -> bool {
        let friend = self.friend.as_mut().expect("the plan has a friend");
        let (here, there) = (friend.key, friend.there);
        let Ok(Some(id)) = friend.engine.open_stream(here, Dir::Uni) else { return false };
        let data = vec![0x5a; len];
        let (mut written, mut read) = (0, 0);
        for _ in 0..5000 {
            let friend = self.friend.as_mut().expect("the plan has a friend");
            if written < len {
                written += friend.engine.write(here, id, &data[written..]).unwrap_or(0);
                if written == len && friend.engine.finish(here, id).is_err() {
                    return false;
                }
            }
            self.hear_friend();
            let _ = self.collect();
            if self.drain_friend(there, id, &mut read) {
                return read == len;
            }
            self.now += Duration::from_millis(1);
        }
        false
    }

    fn drain_friend(&mut self, there: ConnKey, id: StreamId, read: &mut usize) -> bool {
        let mut buffer = [0; 2048];
        loop {
            match self.victim.read(there, id, &mut buffer) {
                Ok(Read::Bytes(n)) => *read += n,
                Ok(Read::Finished) => return true,
                _ => return false,
            }
        }
    }
}

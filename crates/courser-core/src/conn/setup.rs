//! Making a connection.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::VecDeque;

use super::limit::Limits;
use super::receive::Origin;
use super::stats::{Counts, Traffic};
use super::{Connection, Env, Handshake, Life, Manner, PacketLog, RouteChange, Stashed};
use crate::ack::EcnCounts;
use crate::ack::ping::AckPing;
use crate::ack::spaces::Acks;
use crate::ack::tolerance::Tolerance;
use crate::cid::generator::random_cid;
use crate::cid::{LocalCids, OWN_CID_LEN, RemoteCids};
use crate::config::{PreferredAddress, Settings, TransportParams};
use crate::control::{ControlQueue, Once};
use crate::crypto::{Alert, Keys, TlsClientConfig, TlsServerConfig};
use crate::datagram::DatagramQueue;
use crate::ids::{Cid, ConnKey, Ecn, Level, PacketNumber, Side, Space, Version};
use crate::path::{Amplification, Path, Spin, Standby};
use crate::protect::{AeadLimits, KeySlots};
use crate::recovery::Recovery;
use crate::recovery::hurry::FIRST_FLIGHT;
use crate::stream::Streams;
use crate::time::{Instant, micros};
use crate::wire::{params, version_neg};

/// What a client needs to begin.
#[derive(Clone, Copy)]
pub struct Connect<'a> {
    /// The server's address.
    pub remote: SocketAddr,
    /// A DNS name or an address, as the server's certificate has it.
    pub server_name: &'a str,
    /// Starts the TLS session.
    pub tls: &'a dyn TlsClientConfig,
    /// Settings of the connection.
    pub settings: &'a Settings,
    /// From an earlier connection to that server ([`Engine::take_token`](crate::engine::Engine::take_token)); may be
    /// empty. One of a connection in another version is not used.
    pub token: &'a [u8],
    /// The version to begin with instead of the best of the settings, because a server refused that one: the best of ours
    /// among those that [`CloseReason::VersionNegotiation`](crate::error::CloseReason::VersionNegotiation) listed. The
    /// handshake then fails if the list was forged.
    pub restart: Option<Version>,
}

/// Where the connection of a server comes from, and how it is to be.
pub(crate) struct ServerStart<'a> {
    pub(crate) remote: SocketAddr,
    pub(crate) local: Option<IpAddr>,
    pub(crate) settings: &'a Settings,
    pub(crate) version: Version,
    /// Destination connection ID of the first Initial that was let in: the client's choice, or ours when a Retry came before.
    pub(crate) dcid: Cid,
    /// The client's connection ID.
    pub(crate) scid: Cid,
    /// The client's first choice, when a Retry came before.
    pub(crate) retried_from: Option<Cid>,
    /// A token proved the address.
    pub(crate) validated: bool,
}

/// A 0-RTT packet that came before there was a connection.
pub(crate) struct EarlyPacket {
    pub(crate) bytes: Box<[u8]>,
    pub(crate) arrived: Instant,
    pub(crate) ecn: Ecn,
    /// Bytes of its datagram.
    pub(crate) len: usize,
}

/// What went between client and server until the ClientHello was complete.
pub(crate) struct Begun {
    /// Our connection ID.
    pub(crate) local: Cid,
    /// The keys of its Initials.
    pub(crate) keys: Keys,
    /// CRYPTO data in order; a whole ClientHello.
    pub(crate) hello: Vec<u8>,
    /// CRYPTO data behind a gap after that, by offset.
    pub(crate) beyond: Vec<(u64, Box<[u8]>)>,
    /// Packet numbers that came, newest first.
    pub(crate) received: Vec<(PacketNumber, PacketNumber)>,
    /// Marks that came.
    pub(crate) ecn: EcnCounts,
    /// When the packet with the largest number came.
    pub(crate) largest_at: Instant,
    /// Its size.
    pub(crate) last_size: usize,
    /// An acknowledgement is to be sent.
    pub(crate) ack_due: bool,
    /// The number of the next packet.
    pub(crate) next_pn: PacketNumber,
    /// What was received and sent.
    pub(crate) amplification: Amplification,
    /// The same in datagrams and packets.
    pub(crate) came: Traffic,
    pub(crate) left: Traffic,
    /// When the first datagram came.
    pub(crate) started: Instant,
    /// 0-RTT packets.
    pub(crate) early: Vec<EarlyPacket>,
}

struct Parts {
    key: ConnKey,
    side: Side,
    version: Version,
    path: Path,
    local: Cid,
    remote: Cid,
    limits: AeadLimits,
    handshake: Handshake,
}

impl Connection {
    /// A client's connection with that first connection ID; its first flight is ready to be sent.
    ///
    /// # Errors
    /// When TLS cannot start, for example with an impossible server name.
    pub(crate) fn client(
        env: &mut Env,
        now: Instant,
        key: ConnKey,
        local: Cid,
        start: &Connect<'_>,
    ) -> Result<Box<Self>, Alert> {
        let best = start.settings.versions.first().copied().unwrap_or(Version::V1);
        let version = start.restart.or(start.settings.initial_version).unwrap_or(best);
        //= rfc9000#7.2-1
        let original = random_cid(env.random.as_mut(), OWN_CID_LEN);
        let params = TransportParams { initial_scid: Some(local), ..local_params(start.settings, version) };
        let mut encoded = Vec::with_capacity(256);
        params::encode(&params, Side::Client, env.random_u64(), &mut encoded);
        //= rfc9368#6-2
        let tls = start.tls.start(version, start.server_name, &encoded)?;
        let mut handshake = new_handshake(now, start.settings, version, original);
        handshake.restarted = start.restart.is_some();
        //= rfc9000#8.1.3-7
        handshake.token = super::versions::token_for(version, start.token).into();
        let mut path = Path::new(start.remote, None, original, true, start.settings, now);
        path.spin = Spin::new(start.settings.spin, env.random_u64(), 0);
        let limits = env.aead_limits;
        let parts = Parts { key, side: Side::Client, version, path, local, remote: original, limits, handshake };
        let mut conn = Self::assemble(env, now, parts, start.settings);
        conn.tls = Some(tls);
        conn.keys.install_initial(env.keys.as_ref(), version, &original);
        conn.feed_tls(env, now, Level::Initial);
        if !env.throng {
            conn.recovery.hurry(now + FIRST_FLIGHT);
        }
        Ok(conn)
    }

    /// A server's connection for a client whose ClientHello is complete. Where that says so, the engine adds the route of
    /// its first connection ID.
    pub(crate) fn server(
        env: &mut Env,
        now: Instant,
        key: ConnKey,
        start: &ServerStart<'_>,
        begun: Begun,
        tls: &dyn TlsServerConfig,
    ) -> Box<Self> {
        let local = begun.local;
        let preferred = preferred_address(env, start.settings);
        let params = TransportParams {
            preferred_address: preferred,
            initial_scid: Some(local),
            original_dcid: Some(start.retried_from.unwrap_or(start.dcid)),
            //= rfc9369#4.1-3
            retry_scid: start.retried_from.map(|_| start.dcid),
            reset_token: Some(env.reset_token(&local)),
            ..local_params(start.settings, start.version)
        };
        let mut handshake = new_handshake(begun.started, start.settings, start.version, start.dcid);
        handshake.peer_cid_known = true;
        //= rfc9000#7.2-5
        //= rfc9000#7.2-6
        handshake.peer_first_cid = start.scid;
        let mut path = Path::new(start.remote, start.local, start.scid, start.validated, start.settings, now);
        path.spin = Spin::new(start.settings.spin, env.random_u64(), 0);
        path.amplification = begun.amplification;
        let (side, version, limits) = (Side::Server, start.version, env.aead_limits);
        let parts = Parts { key, side, version, path, local, remote: start.scid, limits, handshake };
        let mut conn = Self::assemble(env, now, parts, start.settings);
        if let Some(preferred) = preferred {
            conn.local_cids.issue_preferred(preferred.cid);
            conn.routes.push(RouteChange::Add(preferred.cid));
        }
        conn.go_on(env, now, begun, &params, tls);
        conn
    }

    /// Goes on where the mini connection stopped: takes over what it knows, and begins TLS.
    fn go_on(
        &mut self,
        env: &mut Env,
        now: Instant,
        begun: Begun,
        params: &TransportParams,
        tls: &dyn TlsServerConfig,
    ) {
        let dcid = self.handshake.as_ref().map_or(Cid::EMPTY, |h| h.original_dcid);
        self.keys.adopt_initial(begun.keys, self.version, &dcid);
        self.recovery.start_at(Space::Initial, begun.next_pn);
        if let Some((_, largest)) = begun.received.first() {
            self.log.received(begun.largest_at, Level::Initial, *largest, begun.last_size);
        }
        (self.stats.received, self.stats.sent) = (begun.came, begun.left);
        let due = begun.ack_due.then_some(begun.largest_at);
        self.acks[Space::Initial.index()].take_over(&begun.received, begun.ecn, begun.largest_at, due);
        let (path, remote, local) = (Some(self.path.id), self.path.remote(), self.path.local());
        if let Some(handshake) = &mut self.handshake {
            handshake.crypto[0].begin_at(begun.hello.len() as u64);
            handshake.stash.extend(begun.early.into_iter().map(|EarlyPacket { bytes, arrived, ecn, len }| {
                let origin = Origin { arrived, ecn, path, remote, local, len };
                Stashed { level: Level::ZeroRtt, origin, bytes }
            }));
        }
        for (offset, bytes) in &begun.beyond {
            if let Err(violation) = self.on_crypto(env, now, Level::Initial, *offset, bytes) {
                return self.fail(now, violation);
            }
        }
        self.begin_tls(env, now, tls, params, &begun.hello);
    }

    fn assemble(env: &mut Env, now: Instant, parts: Parts, settings: &Settings) -> Box<Self> {
        let first_route = match parts.local {
            cid if cid.is_empty() => RouteChange::AddAddress(parts.path.remote()),
            cid => RouteChange::Add(cid),
        };
        Box::new(Self {
            key: parts.key,
            side: parts.side,
            version: parts.version,
            life: Life::Handshaking,
            reason: None,
            handshake: Some(Box::new(parts.handshake)),
            tls: None,
            late_crypto: None,
            confirmed: false,
            early: super::EarlyData::None,
            early_keys_until: None,
            keys: KeySlots::new(parts.side, parts.limits),
            recovery: Recovery::starting(now),
            acks: Acks::new(settings.max_ack_delay),
            path: parts.path,
            standby: Standby::default(),
            local_cids: LocalCids::new(parts.local, now),
            remote_cids: RemoteCids::new(parts.remote, settings.active_cid_limit),
            streams: Streams::new(parts.side, settings),
            control: ControlQueue::default(),
            datagrams: DatagramQueue::default(),
            handshake_done: Once::default(),
            chosen_route: None,
            settings: env.common.take(settings),
            peer: None,
            manner: Manner::of(&TransportParams::default()),
            peer_known: false,
            identity: None,
            exporter: None,
            idle_timeout: settings.idle_timeout,
            last_activity: now,
            eliciting_since_receive: false,
            last_sent: now,
            stir_until: Instant::ZERO,
            rest_at: now + super::rest::FIRST,
            rested_at: now,
            rests: 0,
            probes: [0; 3],
            ping: false,
            ack_ping: AckPing::default(),
            tolerance: Tolerance::default(),
            bits: Default::default(),
            token_issued: false,
            end_told: false,
            new_token: None,
            paced_until: None,
            events: VecDeque::new(),
            routes: vec![first_route],
            stats: Counts { limits: Limits::starting(now), ..Counts::default() },
            log: PacketLog::default(),
        })
    }
}

fn new_handshake(now: Instant, settings: &Settings, first_version: Version, original_dcid: Cid) -> Handshake {
    Handshake {
        crypto: Default::default(),
        reading: Level::Initial,
        original_dcid,
        retry_scid: None,
        first_version,
        restarted: false,
        token: Box::default(),
        peer_cid_known: false,
        peer_first_cid: Cid::EMPTY,
        remembered: None,
        rejected_below: 0,
        stash: Vec::new(),
        deadline: now + settings.handshake_timeout,
        started: now,
    }
}

/// Where a server would rather be reached, with the connection ID for it.
fn preferred_address(env: &mut Env, settings: &Settings) -> Option<PreferredAddress> {
    if settings.preferred_v4.is_none() && settings.preferred_v6.is_none() {
        return None;
    }
    let cid = fresh_cid(env);
    let token = env.reset_token(&cid);
    Some(PreferredAddress { v4: settings.preferred_v4, v6: settings.preferred_v6, cid, token })
}

/// A connection ID of ours.
pub(crate) fn fresh_cid(env: &mut Env) -> Cid {
    env.cids.generate(env.keys.as_ref(), env.random.as_mut())
}

/// The shortest delay of an ACK that can be asked of us: what timers of an operating system keep.
const MIN_ACK_DELAY: Duration = Duration::from_millis(1);

/// What the transport parameter of that name says.
pub(super) fn min_ack_delay_us(settings: &Settings) -> Option<u64> {
    //= ack-frequency#3-1
    let least = MIN_ACK_DELAY.min(Duration::from_millis(max_ack_delay_ms(settings)));
    settings.ack_frequency.then(|| micros(least))
}

fn max_ack_delay_ms(settings: &Settings) -> u64 {
    u64::try_from(settings.max_ack_delay.as_millis()).unwrap_or(25)
}

pub(super) fn local_params(settings: &Settings, version: Version) -> TransportParams {
    TransportParams {
        max_idle_timeout_ms: u64::try_from(settings.idle_timeout.as_millis()).unwrap_or(0),
        max_ack_delay_ms: max_ack_delay_ms(settings),
        disable_active_migration: !settings.migration,
        grease_quic_bit: settings.grease,
        min_ack_delay_us: min_ack_delay_us(settings),
        version_information: Some(version_neg::information(version, &settings.versions)),
        ..TransportParams::limits_of(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_delay_of_an_ack_is_at_most_the_largest() {
        //= ack-frequency#3-1 type=test
        for (us, expected) in [(0, 0), (400, 0), (1_000, 1_000), (1_900, 1_000), (25_000, 1_000)] {
            let max_ack_delay = Duration::from_micros(us);
            let settings = Settings { ack_frequency: true, max_ack_delay, ..Settings::default() };
            let params = local_params(&settings, Version::V1);
            assert_eq!(params.min_ack_delay_us, Some(expected));
            assert!(expected <= params.max_ack_delay_ms * 1000);
        }
        assert_eq!(local_params(&Settings::default(), Version::V1).min_ack_delay_us, None, "nobody asked for it");
    }
}

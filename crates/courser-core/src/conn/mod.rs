//! One connection: wiring of the subsystems, and what happened to each packet.
//!
//! A connection is driven by its engine: `Connection::receive` for each datagram, `Connection::tick` once per batch,
//! `Connection::fill` for each turn at sending. It opens no socket and reads no clock. The subsystems (streams, control
//! frames, acknowledgements, recovery, keys, path) own their state and know nothing of each other; this module passes
//! values between them:
//!
//! - `receive` and `frames`: a datagram in, packet by packet, frame by frame;
//! - `paths`: which path it came on, and moving to another one;
//! - `handshake`: TLS, transport parameters, keys;
//! - `early`: 0-RTT at both ends;
//! - `transmit`: a train of datagrams out; `probe`: those that ask how large they may be; `last_words`: the last ones;
//! - `header`: headers of packets, the spin bit and the QUIC bit;
//! - `seal`: packets are committed to and sealed; `legal`: debug builds judge them before;
//! - `dispatch`: the fate of sent packets goes to the owners of their frames;
//! - `versions`: which version is spoken, and the beginning of a server's TLS session;
//! - `tick`: acknowledgements that were merged, timers, the next deadline;
//! - `close`: closing and draining;
//! - `rest`: what it gives back while nothing happens;
//! - `limit`: what keeps it from sending more;
//! - `common`: the settings, kept once for all connections that have the same;
//! - `watch`: what observers are told;
//! - `ahead`: fetching it into the cache before it is needed;
//! - `app`: what applications call.

mod ahead;
mod app;
mod close;
mod common;
mod dispatch;
mod early;
mod frames;
mod handshake;
mod header;
mod history;
mod last_words;
mod legal;
mod limit;
mod paths;
mod probe;
mod receive;
mod rest;
mod seal;
mod setup;
mod stats;
mod tick;
mod transmit;
mod versions;
mod watch;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::VecDeque;

use zeroize::Zeroizing;

use crate::ack::merge::AckRanges;
use crate::ack::ping::AckPing;
use crate::ack::spaces::Acks;
use crate::ack::tolerance::Tolerance;
use crate::buf::pool::ChunkPool;
use crate::cid::{CidGenerator, Issued, LocalCids, RemoteCids};
use crate::config::TransportParams;
use crate::control::{ControlQueue, Once};
use crate::crypto::{Identity, KeyFactory, Random, Secret, Suite, TlsSession};
use crate::datagram::{DatagramEvent, DatagramQueue};
use crate::error::CloseReason;
use crate::ids::{Cid, ConnKey, Level, PacketNumber, ResetToken, Side, Version};
use crate::observe::{Event as Observed, Kind, Observer};
use crate::path::{Amplification, Path, Standby, Tokens};
use crate::protect::{AeadLimits, KeySlots};
use crate::recovery::Recovery;
use crate::spans::Record;
use crate::stream::crypto::CryptoStream;
use crate::stream::{StreamEvent, Streams};
use crate::time::Instant;

pub(crate) use close::LastWords;
pub(crate) use common::{Common, SettingsKey};
pub use early::EarlyData;
pub use history::{Logged, PacketLog};
pub use limit::Limits;
pub(crate) use receive::{GROUP, Number, Received};
pub(crate) use seal::Unsealed;
pub use setup::Connect;
pub(crate) use setup::{Begun, EarlyPacket, ServerStart, fresh_cid};
pub use stats::ConnStats;
pub(crate) use stats::Traffic;
pub(crate) use watch::observe_server;

/// Whether many connections send at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Crowd {
    /// Few do.
    #[default]
    None,
    /// Many do.
    Present,
    /// Many do, with so many trains that their number is what costs.
    Busy,
}

/// What all connections of an engine share; lent for the length of one call.
pub(crate) struct Env {
    pub(crate) keys: Box<dyn KeyFactory>,
    pub(crate) random: Box<dyn Random>,
    /// Makes our connection IDs.
    pub(crate) cids: Box<dyn CidGenerator>,
    /// Their length.
    pub(crate) cid_len: usize,
    pub(crate) pool: ChunkPool,
    /// ACK frames of the connection `merging`, merged until its next tick.
    pub(crate) merge: AckRanges,
    pub(crate) merging: Option<ConnKey>,
    /// Where an ACK frame of an early space is read; lists of their own, because the merged ones wait for a tick.
    pub(crate) early_acks: AckRanges,
    /// Records of the packets under construction.
    pub(crate) records: Vec<Record>,
    /// Packets of the train under construction.
    pub(crate) unsealed: Unsealed,
    /// Stateless reset tokens are derived from this and the connection ID.
    pub(crate) reset_key: Zeroizing<[u8; 32]>,
    /// The settings of the connections.
    pub(crate) common: Common,
    /// How often the keys of each connection may be used.
    pub(crate) aead_limits: AeadLimits,
    /// Address tokens.
    pub(crate) tokens: Tokens,
    pub(crate) observer: Option<Box<dyn Observer>>,
    pub(crate) interest: crate::observe::Interest,
    /// Whether many connections send.
    pub(crate) crowd: Crowd,
    /// Very many handshakes are under way: what is late waits for a processor, and repeating it makes it later.
    pub(crate) throng: bool,
    /// The newest time that anybody told; for events of calls that come without one.
    pub(crate) now: Instant,
    /// TLS had something to say since the engine last ticked: that should leave before more is received.
    pub(crate) pressing: bool,
    /// Payloads in one piece, for observers that want them and for the judge of debug builds.
    pub(crate) payload: Vec<u8>,
    /// The next packet breaks a rule; only ever set in debug builds, by tests of what notices that.
    pub(crate) spoil: bool,
}

impl Env {
    pub(crate) fn reset_token(&self, cid: &Cid) -> ResetToken {
        //= rfc9000#10.3.2-1
        //= rfc9000#10.3.2-5
        let mac = self.keys.mac(&self.reset_key, &[b"stateless reset", cid.as_slice()]);
        let mut token = [0; 16];
        token.copy_from_slice(&mac[..16]);
        ResetToken(token)
    }

    pub(crate) fn random_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// Tells observers of an event whose parts are at hand.
    pub(crate) fn tell(&mut self, now: Instant, key: ConnKey, kind: Kind, event: &Observed<'_>) {
        if self.interest.wants(kind)
            && let Some(observer) = &mut self.observer
        {
            observer.on(now, key, event);
        }
    }

    pub(crate) fn observe(
        &mut self,
        now: Instant,
        key: ConnKey,
        kind: Kind,
        event: impl FnOnce() -> Observed<'static>,
    ) {
        if self.interest.wants(kind)
            && let Some(observer) = &mut self.observer
        {
            observer.on(now, key, &event());
        }
    }
}

/// Where a connection is in its life.
#[derive(Debug)]
enum Life {
    /// Until TLS is complete at this end.
    Handshaking,
    /// TLS is complete.
    Established,
    /// CONNECTION_CLOSE has to be sent, or was sent.
    Closing(Box<Closing>),
    /// The peer closed: nothing is sent any more.
    Draining { until: Instant },
    /// To be freed.
    Ended,
}

/// What a connection that closes has to know.
#[derive(Debug)]
struct Closing {
    /// When it is over.
    until: Option<Instant>,
    /// What is said, and when again.
    words: LastWords,
}

/// State that exists only until the handshake is confirmed.
struct Handshake {
    /// CRYPTO streams of the Initial and Handshake levels.
    crypto: [CryptoStream; 2],
    /// The level of the messages that TLS reads next; there is nothing more to be said at those below.
    reading: Level,
    /// Destination connection ID of the client's very first Initial.
    original_dcid: Cid,
    /// Source connection ID of the Retry, when there was one.
    retry_scid: Option<Cid>,
    /// The version of the client's first flight; 0-RTT stays in it.
    first_version: Version,
    /// The client was told of versions by a Version Negotiation packet, which is not authentic.
    restarted: bool,
    /// What the client repeats in every Initial.
    token: Box<[u8]>,
    /// The peer's source connection ID is known.
    peer_cid_known: bool,
    /// The peer's first source connection ID, to be compared with its transport parameters.
    peer_first_cid: Cid,
    /// What the server allowed on the connection that the ticket came from, when 0-RTT is offered.
    remembered: Option<Box<TransportParams>>,
    /// The server rejected 0-RTT: the packets below this number of the data space do not exist for it.
    rejected_below: PacketNumber,
    /// Packets whose keys are not there yet.
    stash: Vec<Stashed>,
    /// The handshake must be complete by then.
    deadline: Instant,
    /// When the connection began.
    started: Instant,
}

/// A packet that waits for its keys.
struct Stashed {
    level: Level,
    /// The wait is part of the delay that our ACK tells, and the peer compares ECN counts with what it sent.
    origin: receive::Origin,
    bytes: Box<[u8]>,
}

/// Something that happened to a connection, for its application.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A client's connection was let in; its handshake is under way.
    Accepted,
    /// The server answered an offer of 0-RTT; told before [`Connected`](Self::Connected). After a rejection everything is
    /// sent again, within the limits of the new connection. At a server: what comes now may be 0-RTT data; a rejection is not
    /// told there.
    EarlyData {
        /// Whether it takes what was sent.
        accepted: bool,
    },
    /// The handshake is complete: streams can be opened.
    Connected,
    /// The handshake is confirmed.
    Confirmed,
    /// A stream changed.
    Stream(StreamEvent),
    /// Datagrams can be read.
    DatagramReceived,
    /// A datagram can be sent, after [`send_datagram`](crate::engine::Engine::send_datagram) had said no.
    DatagramRoom,
    /// Fates of datagrams can be read with [`poll_datagram_fate`](crate::engine::Engine::poll_datagram_fate): until it says
    /// that there are no more, this is not told again.
    DatagramFates,
    /// The server gave a token for later connections
    /// ([`Engine::take_token`](crate::engine::Engine::take_token)); not told again before it is taken.
    NewToken,
    /// The connection uses another path: an address changed.
    PathChanged {
        /// The peer's address.
        remote: SocketAddr,
        /// Our address, when known.
        local: Option<IpAddr>,
    },
    /// A path that was to be used did not prove itself; the connection stays where it is.
    PathFailed {
        /// The peer's address.
        remote: SocketAddr,
        /// Our address, when known.
        local: Option<IpAddr>,
    },
    /// The connection is over; nothing follows.
    Closed(CloseReason),
}

/// A change in the engine's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteChange {
    /// A connection ID of ours leads here.
    Add(Cid),
    /// It does no longer.
    Remove(Cid),
    /// The same for one that the client chose.
    RemoveChosen(Cid),
    /// Packets without a connection ID from that address lead here.
    AddAddress(SocketAddr),
    /// They do no longer.
    RemoveAddress(SocketAddr),
    /// A stateless reset token of the peer.
    AddToken(ResetToken),
    /// The token is void.
    RemoveToken(ResetToken),
}

/// How the peer speaks, of its transport parameters.
#[derive(Clone, Copy)]
struct Manner {
    /// ACK Delay fields are in units of 2^this microseconds.
    ack_delay_exponent: u8,
    /// It takes packets without QUIC bit.
    takes_grease: bool,
    /// It stays where it is, and wants us to do the same.
    disable_migration: bool,
}

impl Manner {
    fn of(params: &TransportParams) -> Self {
        Self {
            ack_delay_exponent: params.ack_delay_exponent,
            takes_grease: params.grease_quic_bit,
            disable_migration: params.disable_active_migration,
        }
    }
}

/// Everything by which packets find a connection.
pub(crate) struct Names {
    /// Connection IDs of ours; those that were issued come first.
    pub(crate) cids: Box<[Cid]>,
    /// How many were issued.
    pub(crate) issued: usize,
    /// Addresses of the peer, where our connection IDs have no bytes.
    pub(crate) remotes: Box<[SocketAddr]>,
    /// Reset tokens of the peer.
    pub(crate) tokens: Box<[ResetToken]>,
}

/// What an exporter needs after the TLS session is gone.
struct ExporterSecret {
    suite: Suite,
    secret: Secret,
}

/// A QUIC connection.
pub(crate) struct Connection {
    pub(crate) key: ConnKey,
    side: Side,
    version: Version,
    life: Life,
    /// The first reason why the connection ends; never replaced.
    reason: Option<Box<CloseReason>>,
    handshake: Option<Box<Handshake>>,
    /// Dropped after its last use.
    tls: Option<Box<dyn TlsSession>>,
    /// CRYPTO data after the handshake (tickets); made when first needed.
    late_crypto: Option<Box<CryptoStream>>,
    confirmed: bool,
    early: EarlyData,
    /// When a server forgets the keys of 0-RTT.
    early_keys_until: Option<Instant>,
    keys: KeySlots,
    recovery: Recovery,
    acks: Acks,
    /// The path in use.
    path: Path,
    /// The other ones.
    standby: Standby,
    local_cids: LocalCids,
    remote_cids: RemoteCids,
    streams: Streams,
    control: ControlQueue,
    datagrams: DatagramQueue,
    handshake_done: Once,
    /// The route of the client's own choice of connection ID goes at that time.
    chosen_route: Option<Box<(Cid, Instant)>>,
    settings: SettingsKey,
    /// The peer's transport parameters, while something of them may be needed; see [`Manner`] for the rest.
    peer: Option<Box<TransportParams>>,
    /// What every packet asks of the peer's transport parameters.
    manner: Manner,
    peer_known: bool,
    identity: Option<Box<Identity>>,
    exporter: Option<Box<ExporterSecret>>,
    /// Of both ends' wishes; zero: never.
    idle_timeout: Duration,
    last_activity: Instant,
    /// An ack-eliciting packet was sent since the last one was received: the idle timer was restarted for it.
    eliciting_since_receive: bool,
    /// When something was last sent, for keep-alive.
    last_sent: Instant,
    /// Until then a client that has lost its address keeps speaking, so that the server finds it at the new one.
    stir_until: Instant,
    /// When it looks whether it may rest; `FAR_FUTURE` while it does.
    rest_at: Instant,
    /// When it went to rest.
    rested_at: Instant,
    /// How often it did.
    rests: u8,
    /// Ack-eliciting packets that must be sent although the window is full, by space.
    probes: [u8; 3],
    /// Somebody (keep-alive, ping) wants an acknowledgement.
    ping: bool,
    /// What the peer is asked for about its ACK frames.
    tolerance: Tolerance,
    /// After a run of packets that ask for no acknowledgement, one carries a PING (RFC 9000 section 13.2.4).
    ack_ping: AckPing,
    /// Random bits for headers.
    bits: header::Bits,
    /// Sending was held back by the pacer until then.
    paced_until: Option<Instant>,
    events: VecDeque<Event>,
    pub(crate) routes: Vec<RouteChange>,
    /// A server has issued a token for a later connection.
    token_issued: bool,
    /// Observers were told why it ends.
    end_told: bool,
    /// A token for a later connection, from the server.
    new_token: Option<Box<[u8]>>,
    stats: stats::Counts,
    log: PacketLog,
}

impl Connection {
    /// Whether nothing more will happen and it can be freed.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.life, Life::Ended)
    }

    fn is_open(&self) -> bool {
        matches!(self.life, Life::Handshaking | Life::Established)
    }

    /// All connection IDs of ours that lead here.
    pub(crate) fn own_cids(&self) -> impl Iterator<Item = Cid> + '_ {
        let chosen = self.chosen_route.as_ref().map(|route| route.0);
        let first = self.handshake.as_ref().filter(|_| self.side.is_server()).map(|h| h.original_dcid);
        self.local_cids.iter().map(|i| i.cid).chain(chosen).chain(first)
    }

    /// Connection IDs that were issued to the peer and lead here, with their numbers.
    pub(crate) fn issued(&self) -> impl Iterator<Item = Issued> + '_ {
        self.local_cids.iter().filter(|i| !i.cid.is_empty())
    }

    /// Their bytes.
    pub(crate) fn issued_cids(&self) -> impl Iterator<Item = Cid> + '_ {
        self.issued().map(|i| i.cid)
    }

    /// Everything by which packets find it.
    pub(crate) fn names(&self) -> Names {
        let some: Vec<Cid> = self.own_cids().filter(|cid| !cid.is_empty()).collect();
        let by_address = self.local_cids.first().cid.is_empty();
        Names {
            issued: self.issued_cids().count(),
            cids: some.into(),
            remotes: self.remotes().filter(|_| by_address).collect(),
            tokens: self.reset_tokens().collect(),
        }
    }

    /// The addresses of the path in use, and what may be sent there.
    pub(crate) fn whereabouts(&self) -> (SocketAddr, Option<IpAddr>, Amplification) {
        (self.path.remote(), self.path.local(), self.path.amplification)
    }

    /// As if packets had been sent to that address of ours.
    #[cfg(test)]
    pub(crate) fn set_home(&mut self, local: Option<core::net::IpAddr>) {
        self.path.set_local(local);
    }

    /// Whom packets are addressed to.
    #[cfg(test)]
    pub(crate) fn towards(&self) -> Cid {
        self.path.to.cid
    }

    /// Addresses of the peer on all paths.
    pub(crate) fn remotes(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        core::iter::once(&self.path).chain(self.standby.iter()).map(|p| p.remote())
    }

    /// Reset tokens that lead here.
    pub(crate) fn reset_tokens(&self) -> impl Iterator<Item = ResetToken> + '_ {
        self.remote_cids.tokens()
    }

    /// Gives back what it holds of what all share; called once, when it is gone.
    pub(crate) fn release(&mut self, env: &mut Env) {
        env.common.give_back(&self.settings);
        self.streams.clear(&mut env.pool);
        for crypto in self.handshake.iter_mut().flat_map(|h| h.crypto.iter_mut()) {
            crypto.clear(&mut env.pool);
        }
        if let Some(crypto) = &mut self.late_crypto {
            crypto.clear(&mut env.pool);
        }
    }

    /// The next event for the application.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        if self.is_end_told() {
            return None;
        }
        // The end of the connection is told last: what happened to streams before is not lost.
        if matches!(self.events.front(), None | Some(Event::Closed(_))) {
            if let Some(event) = self.streams.poll_event() {
                return Some(Event::Stream(event));
            }
            if let Some(event) = self.datagrams.poll_event() {
                return Some(match event {
                    DatagramEvent::Room => Event::DatagramRoom,
                    DatagramEvent::Fates => Event::DatagramFates,
                });
            }
        }
        self.events.pop_front()
    }

    /// Whether [`poll_event`](Self::poll_event) has something.
    pub(crate) fn has_events(&self) -> bool {
        let any = !self.events.is_empty() || self.streams.has_events() || self.datagrams.has_events();
        any && !self.is_end_told()
    }

    /// Whether `Closed` was taken, which nothing follows, whatever is called on the connection then.
    fn is_end_told(&self) -> bool {
        self.reason.is_some() && !self.events.iter().any(|e| matches!(e, Event::Closed(_)))
    }
}

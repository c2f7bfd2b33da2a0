//! Replies that belong to no connection (seed: packet requests): Version Negotiation, Retry, stateless reset.
//!
//! A request is remembered in a small record and the packet is built when it is about to be sent, so that a flood costs
//! little and established connections keep the socket. The queue is bounded; requests that repeat one that waits, or that
//! find no room, are dropped.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::VecDeque;

use super::initial::{self, Address};
use super::{Engine, Meta, Train, TrainMeta};
use crate::error::TransportCode;
use crate::ids::{Cid, Ecn, Version};
use crate::path::Showing;
use crate::spans::{FrameKind, FrameSet};
use crate::time::Instant;
use crate::wire::frame::Frame;
use crate::wire::{Writer, header};

/// Requests that wait, at most.
const WAITING_MAX: usize = 256;

/// Stateless resets at once, at most.
const RESETS_MAX: u32 = 100;
/// After that, one per this time.
const RESET_EVERY: Duration = Duration::from_millis(1);

/// How many stateless resets may be sent: whoever makes up connection IDs learns no more than so many per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    left: u32,
    at: Instant,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: RESETS_MAX, at: Instant::ZERO }
    }
}

impl Allowance {
    /// Takes one; false when there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let steps = now.since(self.at).as_micros() / RESET_EVERY.as_micros();
        if steps > 0 {
            self.left = self.left.saturating_add(u32::try_from(steps).unwrap_or(u32::MAX)).min(RESETS_MAX);
            self.at = now;
        }
        let some = self.left > 0;
        self.left -= u32::from(some);
        some
    }
}

/// What to reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Our versions.
    VersionNegotiation,
    /// Prove your address.
    Retry { version: Version },
    /// There is no such connection here; answer to a datagram of that length.
    Reset { received: u16 },
    /// Go away, for this reason.
    Refuse { version: Version, why: Refusal },
}

/// Why a client is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The application does not want it.
    NotWanted,
    /// It does not have the address that its token is for.
    InvalidToken,
}

impl Refusal {
    const fn code(self) -> TransportCode {
        match self {
            Self::NotWanted => TransportCode::CONNECTION_REFUSED,
            Self::InvalidToken => TransportCode::INVALID_TOKEN,
        }
    }
}

/// A Version Negotiation packet that was asked for in a version that allows longer connection IDs than ours do. Rare, and
/// kept apart so that the others are small.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LongRequest {
    to: SocketAddr,
    from: Option<IpAddr>,
    dcid: Box<[u8]>,
    scid: Box<[u8]>,
}

/// A reply that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) reply: Reply,
    pub(super) to: SocketAddr,
    pub(super) from: Option<IpAddr>,
    /// Destination connection ID of the packet that asked.
    pub(super) dcid: Cid,
    /// Its source connection ID.
    pub(super) scid: Cid,
}

/// Replies that wait for their turn.
pub(super) struct ReplyQueue {
    waiting: VecDeque<Request>,
    /// Behind them.
    long: VecDeque<LongRequest>,
}

impl ReplyQueue {
    /// An empty queue. A server's has its room from the start, so that no packet of a stranger makes us allocate; an engine
    /// that takes no connections never replies.
    pub(super) fn new(replies: bool) -> Self {
        Self { waiting: VecDeque::with_capacity(if replies { WAITING_MAX } else { 0 }), long: VecDeque::new() }
    }

    /// Queues a reply; false when there is no room. One that repeats a waiting one is merged with it.
    pub(super) fn push(&mut self, request: Request) -> bool {
        if self.waiting.contains(&request) {
            return true;
        }
        if self.len() >= WAITING_MAX {
            return false;
        }
        self.waiting.push_back(request);
        true
    }

    /// The same for one with long connection IDs.
    fn push_long(&mut self, request: LongRequest) -> bool {
        if self.long.contains(&request) {
            return true;
        }
        if self.len() >= WAITING_MAX {
            return false;
        }
        self.long.push_back(request);
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.long.len()
    }

    /// Requests that fit without an allocation.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.waiting.capacity()
    }
}

impl Engine {
    pub(super) fn request(&mut self, meta: &Meta, reply: Reply, dcid: Cid, scid: Cid) {
        self.request_to(meta.remote, meta.local, reply, (dcid, scid));
    }

    /// Asks for a reply to a packet with these connection IDs, destination and source.
    pub(super) fn request_to(&mut self, to: SocketAddr, from: Option<IpAddr>, reply: Reply, (dcid, scid): (Cid, Cid)) {
        let taken = self.replies.push(Request { reply, to, from, dcid, scid });
        self.stats.replies_dropped += u64::from(!taken);
    }

    /// Asks for a Version Negotiation packet. The connection IDs have any length up to 255 bytes; only long ones take memory
    /// until the packet is built.
    pub(super) fn request_negotiation(&mut self, meta: &Meta, dcid: &[u8], scid: &[u8]) {
        //= rfc9000#17.2.1-6
        if let (Some(dcid), Some(scid)) = (Cid::new(dcid), Cid::new(scid)) {
            return self.request(meta, Reply::VersionNegotiation, dcid, scid);
        }
        let (to, from) = (meta.remote, meta.local);
        let taken = self.replies.push_long(LongRequest { to, from, dcid: dcid.into(), scid: scid.into() });
        self.stats.replies_dropped += u64::from(!taken);
    }

    /// Builds the reply that waited longest.
    pub(super) fn fill_reply(&mut self, now: Instant, train: &mut Train) -> Option<TrainMeta> {
        train.clear();
        let (len, to, from) = if let Some(request) = self.replies.waiting.pop_front() {
            (self.build_reply(now, &request, train.slot(1200)?)?, request.to, request.from)
        } else {
            let LongRequest { to, from, dcid, scid } = self.replies.long.pop_front()?;
            (self.build_version_negotiation(&scid, &dcid, train.slot(1200)?)?, to, from)
        };
        train.commit(len);
        self.stats.trains += 1;
        self.stats.sent_datagrams += 1;
        Some(TrainMeta { key: None, to, from, ecn: Ecn::NotEct, segment: len, len })
    }

    fn build_reply(&mut self, now: Instant, request: &Request, slot: &mut [u8]) -> Option<usize> {
        match request.reply {
            Reply::VersionNegotiation => {
                self.build_version_negotiation(request.scid.as_slice(), request.dcid.as_slice(), slot)
            }
            Reply::Retry { version } => self.build_retry(now, request, version, slot),
            Reply::Reset { received } => self.build_reset(request, received.into(), slot),
            Reply::Refuse { version, why } => self.build_refusal(now, request, version, why.code(), slot),
        }
    }

    fn build_version_negotiation(&mut self, to: &[u8], from: &[u8], slot: &mut [u8]) -> Option<usize> {
        let versions = self.server.as_ref().map_or(&[][..], |s| &s.settings.versions[..]);
        let random = self.env.random_u64().to_be_bytes();
        // A version that nobody will ever speak keeps clients from relying on the list (RFC 9000 section 6.3).
        let grease =
            Version(u32::from_be_bytes([random[1], random[2], random[3], random[4]]) & 0xf0f0_f0f0 | 0x0a0a_0a0a);
        let mut all = [grease; 4];
        let known = versions.len().min(3);
        //= rfc9368#2.1-1
        all[1..=known].copy_from_slice(&versions[..known]);
        let mut w = Writer::new(slot);
        //= rfc9000#17.2.1-3
        //= rfc9000#17.2.1-4
        //= rfc9000#17.2.1-5
        //= rfc8999#6-3
        //= rfc8999#6-4
        header::write_version_negotiation(&mut w, to, from, &all[..=known], random[0])?;
        self.stats.version_negotiations += 1;
        Some(w.len())
    }

    fn build_retry(&mut self, now: Instant, request: &Request, version: Version, slot: &mut [u8]) -> Option<usize> {
        let scid = crate::conn::fresh_cid(&mut self.env);
        let at = Showing { version, now, peer: request.to, dcid: scid };
        let token = self.env.tokens.retry(self.env.keys.as_ref(), &at, &request.dcid);
        let random = self.env.random_u64().to_be_bytes()[0];
        let mut w = Writer::new(slot);
        //= rfc9369#4.1-1
        header::write_retry(&mut w, version, &request.scid, &scid, &token, random)?;
        let tag = self.env.keys.retry_tag(version, &request.dcid, w.written());
        w.bytes(&tag)?;
        self.stats.retries += 1;
        Some(w.len())
    }

    fn build_reset(&mut self, request: &Request, received: usize, slot: &mut [u8]) -> Option<usize> {
        //= rfc9000#10.3-4
        //= rfc9000#10.3.3-1
        let len = received.checked_sub(1)?.min(42);
        /// Shorter ones cannot be told from noise (RFC 9000 section 10.3).
        const LEN_MIN: usize = 5 + 16;
        if len < LEN_MIN {
            return None;
        }
        let out = slot.get_mut(..len)?;
        //= rfc9000#10.3-2
        self.env.random.fill(out);
        //= rfc9000#10.3-7
        out[0] = out[0] & 0x3f | 0x40;
        let token = self.env.reset_token(&request.dcid);
        out[len - 16..].copy_from_slice(&token.0);
        self.stats.resets += 1;
        Some(len)
    }

    /// An Initial with CONNECTION_CLOSE, without any state.
    fn build_refusal(
        &mut self,
        now: Instant,
        request: &Request,
        version: Version,
        code: TransportCode,
        slot: &mut [u8],
    ) -> Option<usize> {
        let keys = self.env.keys.initial(version, &request.dcid, crate::ids::Side::Server);
        let scid = crate::conn::fresh_cid(&mut self.env);
        let address = Address { version, to: &request.scid, from: &scid, pn: 0, key: None, limited: true };
        initial::build(&mut self.env, now, &address, &keys, slot, |w| {
            Frame::ConnectionClose { code, frame_type: 0, reason: b"" }.encode(w)?;
            Some(FrameSet::of(&[FrameKind::ConnectionClose]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::engine::{EngineConfig, ServerConfig};
    use crate::protect::null::{NullKeys, NullRandom, NullTlsServer};

    fn engine(server: bool) -> Engine {
        let mut config = EngineConfig::new(Box::new(NullKeys), Box::new(NullRandom::new(1)));
        config.server = server.then(|| ServerConfig::new(Box::new(NullTlsServer::default()), Settings::default()));
        Engine::new(config)
    }

    #[test]
    fn resets_have_a_burst_and_a_rate() {
        let (mut a, mut now) = (Allowance::default(), Instant::from_micros(5_000_000));
        assert_eq!((0..1_000).filter(|_| a.take(now)).count(), 100);
        now += Duration::from_millis(10);
        assert_eq!((0..1_000).filter(|_| a.take(now)).count(), 10);
        now += Duration::from_secs(60);
        assert_eq!((0..1_000).filter(|_| a.take(now)).count(), 100);
    }

    #[test]
    fn a_clients_engine_has_no_queue_of_replies_and_answers_no_stranger() {
        // LS-ENG-16
        let now = Instant::from_micros(1_000_000);
        let mut unknown = vec![0; 1200];
        unknown[..14].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
        let stray = [&[0x40][..], &[9; 60]].concat();
        for server in [false, true] {
            let mut engine = engine(server);
            let remote = "10.0.0.1:1000".parse().unwrap();
            for mut datagram in [unknown.clone(), stray.clone()] {
                let meta = Meta { local: None, remote, ecn: Ecn::NotEct, stride: datagram.len() };
                engine.receive(now, &meta, &mut datagram);
            }
            assert_eq!(engine.replies.is_empty(), !server, "a server has something to say");
            assert_eq!(engine.replies.waiting.capacity() > 0, server, "a client's engine allocates no queue");
            assert_eq!(engine.fill(now, &mut Train::new()).is_some(), server);
        }
    }
}

//! The addresses that a UDP listener tells apart.
//!
//! Anybody can send from any number of addresses, so the table is bounded, and a flood must not drive out those whom the
//! application talks to: an address that was never answered goes before one that was, whoever was heard least recently
//! first; one that was answered goes only after [`ANSWERED_IDLE`] of silence; when nobody can go the newcomer's datagram is
//! dropped. What waits for the application is bounded by address and together; the newest is dropped, as the system does
//! with a full socket.
//!
//! Invariants: `by_address` and `order` name exactly the peers that there are; `queued_bytes` is the cost of all queues.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use courser_session::handle::Handle;

/// Datagrams of one address that wait for the application.
pub const QUEUE_MAX: usize = 64;
/// Bytes of them.
pub const QUEUE_BYTES_MAX: usize = 256 << 10;
/// Bytes that wait, of all addresses of a listener.
pub const LISTENER_BYTES_MAX: usize = 4 << 20;
/// What a datagram costs beside its bytes.
const OVERHEAD: usize = 64;
/// An address that was answered makes room for a new one after so much silence.
pub const ANSWERED_IDLE: Duration = Duration::from_secs(10);

/// One address.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) handle: Handle,
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) dropped: u64,
    /// Its place in `order`: whether it was answered, and when it was heard or answered last.
    rank: (bool, u64),
    last: Instant,
    /// Its application waits for room to send.
    pub(super) blocked: bool,
}

/// The addresses of one listener.
pub(super) struct Peers {
    by_address: HashMap<SocketAddr, u32>,
    places: Vec<Option<Peer>>,
    free: Vec<u32>,
    /// Those never answered first, each kind by when it was heard or answered last.
    order: BTreeMap<(bool, u64), u32>,
    next_rank: u64,
    queued_bytes: usize,
    most: usize,
    /// Datagrams that there was no room for.
    pub(super) dropped: u64,
    /// Addresses that made room for others.
    pub(super) evicted: u64,
}

impl Peers {
    /// Nobody yet, and at most so many.
    pub(super) fn new(most: u32) -> Self {
        Self {
            by_address: HashMap::new(),
            places: Vec::new(),
            free: Vec::new(),
            order: BTreeMap::new(),
            next_rank: 0,
            queued_bytes: 0,
            most: (most as usize).max(1),
            dropped: 0,
            evicted: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_address.len()
    }

    pub(super) fn find(&self, address: SocketAddr) -> Option<u32> {
        self.by_address.get(&address).copied()
    }

    pub(super) fn get(&self, at: u32) -> Option<&Peer> {
        self.places.get(at as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut Peer> {
        self.places.get_mut(at as usize)?.as_mut()
    }

    /// Where the next peer will be.
    pub(super) fn vacant(&self) -> u32 {
        // There are at most as many places as `most`, which has 32 bits.
        self.free.last().copied().unwrap_or_else(|| u32::try_from(self.places.len()).unwrap_or(u32::MAX))
    }

    /// Makes room for one more: `Ok` with the peer that has to go, if one has to; `Err` when nobody can go.
    pub(super) fn make_room(&mut self, now: Instant) -> Result<Option<Peer>, NoRoom> {
        if self.len() < self.most {
            return Ok(None);
        }
        let (&(answered, _), &at) = self.order.first_key_value().ok_or(NoRoom)?;
        let idle = self.get(at).is_some_and(|peer| now.saturating_duration_since(peer.last) >= ANSWERED_IDLE);
        if answered && !idle {
            return Err(NoRoom);
        }
        self.evicted += 1;
        Ok(self.remove(at))
    }

    /// Takes a new address in; [`Self::make_room`] came before.
    pub(super) fn insert(&mut self, address: SocketAddr, handle: Handle, now: Instant) -> u32 {
        debug_assert!(self.len() < self.most && self.find(address).is_none(), "there is room for a new address");
        let at = self.vacant();
        let rank = (false, self.next_rank);
        self.next_rank += 1;
        let peer = Peer {
            address,
            handle,
            queue: VecDeque::new(),
            queued_bytes: 0,
            sent: 0,
            received: 0,
            dropped: 0,
            rank,
            last: now,
            blocked: false,
        };
        self.by_address.insert(address, at);
        self.order.insert(rank, at);
        if self.free.pop().is_some() {
            self.places[at as usize] = Some(peer);
        } else {
            self.places.push(Some(peer));
        }
        at
    }

    /// It was heard or, when it was, answered just now.
    fn touch(&mut self, at: u32, answered: bool, now: Instant) {
        let rank = self.next_rank;
        let Some(peer) = self.places.get_mut(at as usize).and_then(Option::as_mut) else { return };
        self.next_rank += 1;
        self.order.remove(&peer.rank);
        peer.rank = (peer.rank.0 | answered, rank);
        peer.last = now;
        self.order.insert(peer.rank, at);
    }

    /// Something was sent to it.
    pub(super) fn answered(&mut self, at: u32, now: Instant) {
        self.touch(at, true, now);
        if let Some(peer) = self.get_mut(at) {
            peer.sent += 1;
        }
    }

    /// It sent a datagram. Whether the datagram was taken.
    pub(super) fn receive(&mut self, at: u32, data: &[u8], now: Instant) -> bool {
        self.touch(at, false, now);
        let cost = data.len() + OVERHEAD;
        let fits = self.queued_bytes + cost <= LISTENER_BYTES_MAX;
        let Some(peer) = self.places.get_mut(at as usize).and_then(Option::as_mut) else { return false };
        if !fits || peer.queue.len() >= QUEUE_MAX || peer.queued_bytes + data.len() > QUEUE_BYTES_MAX {
            peer.dropped += 1;
            self.dropped += 1;
            return false;
        }
        peer.queue.push_back(Bytes::copy_from_slice(data));
        peer.queued_bytes += data.len();
        peer.received += 1;
        self.queued_bytes += cost;
        true
    }

    /// The next datagram of that peer.
    pub(super) fn take(&mut self, at: u32) -> Option<Bytes> {
        let peer = self.places.get_mut(at as usize)?.as_mut()?;
        let data = peer.queue.pop_front()?;
        peer.queued_bytes -= data.len();
        self.queued_bytes -= data.len() + OVERHEAD;
        Some(data)
    }

    pub(super) fn remove(&mut self, at: u32) -> Option<Peer> {
        let peer = self.places.get_mut(at as usize)?.take()?;
        self.by_address.remove(&peer.address);
        self.order.remove(&peer.rank);
        self.queued_bytes -= peer.queued_bytes + OVERHEAD * peer.queue.len();
        self.free.push(at);
        Some(peer)
    }

    /// Takes out somebody who was silent for so long.
    pub(super) fn take_idle(&mut self, now: Instant, limit: Duration) -> Option<Peer> {
        let longest = |kind| self.order.range((kind, 0)..=(kind, u64::MAX)).next().map(|(_, at)| *at);
        let is_idle = |at: &u32| self.get(*at).is_some_and(|peer| now.saturating_duration_since(peer.last) >= limit);
        let at = [longest(false), longest(true)].into_iter().flatten().find(is_idle)?;
        self.remove(at)
    }
}

/// Everybody in the table is one whom the application talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! The unit of sending: datagrams of equal length to one destination, back to back in one buffer.

use core::net::{IpAddr, SocketAddr};

use crate::ids::{ConnKey, Ecn};

/// Most bytes of a train; one UDP send with segmentation offload takes no more.
pub const TRAIN_BYTES_MAX: usize = 65_000;
/// Most datagrams of a train; what the common kernels take.
pub const TRAIN_DATAGRAMS_MAX: usize = 64;

/// A buffer that [`Engine::fill`](crate::engine::Engine::fill) writes datagrams into. All have [`TrainMeta::segment`] bytes but
/// the last, which may be shorter.
pub struct Train {
    buffer: Box<[u8]>,
    len: usize,
}

impl Default for Train {
    fn default() -> Self {
        Self::new()
    }
}

impl Train {
    /// An empty train with room for the largest send.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: vec![0; TRAIN_BYTES_MAX].into_boxed_slice(), len: 0 }
    }

    /// The datagrams.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// The datagrams from that byte on, to be sealed where they lie.
    pub(crate) fn bytes_from(&mut self, from: usize) -> &mut [u8] {
        self.buffer.get_mut(from..self.len).unwrap_or_default()
    }

    /// Bytes of all datagrams.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no datagram.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets the datagrams.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Room for one more datagram of at most `size` bytes; `None` when the train is full.
    pub fn slot(&mut self, size: usize) -> Option<&mut [u8]> {
        self.buffer.get_mut(self.len..self.len + size)
    }

    /// The slot's first `len` bytes are a datagram now.
    pub fn commit(&mut self, len: usize) {
        self.len += len;
        debug_assert!(self.len <= self.buffer.len());
    }
}

/// Where a train goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainMeta {
    /// The connection that built it; `None` for a reply that belongs to none.
    pub key: Option<ConnKey>,
    /// Destination.
    pub to: SocketAddr,
    /// Source address, when it matters which of ours is used.
    pub from: Option<IpAddr>,
    /// The mark of every datagram.
    pub ecn: Ecn,
    /// Bytes of every datagram but the last.
    pub segment: usize,
    /// Bytes of all datagrams.
    pub len: usize,
}

/// What became of a train; told once per train, however long the caller had to keep it for a full socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// It went out.
    Sent,
    /// It went out in several calls, because the system refuses segmentation offload.
    NoOffload,
    /// This destination is not reachable now; other destinations are not affected.
    Refused,
    /// A datagram is larger than the local interface takes.
    TooBig,
    /// The address that it was to leave from ([`TrainMeta::from`]) is not this machine's any more. A client's connection goes on
    /// from whatever address it has now, if it may migrate.
    NoAddress,
}

/// What came with a received train: datagrams of equal length from one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The address of ours that it was sent to, when known.
    pub local: Option<IpAddr>,
    /// Source.
    pub remote: SocketAddr,
    /// The mark of every datagram.
    pub ecn: Ecn,
    /// Bytes of every datagram but the last.
    pub stride: usize,
}

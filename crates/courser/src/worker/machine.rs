//! What a worker drives.
//!
//! [`Machine`] is the engine as the worker sees it: datagrams in, time, trains out. The engine of the core is one; tests
//! use small ones, and so can whoever wants to measure the socket path alone.

use std::net::{IpAddr, SocketAddr};

use courser_core::ids::{ConnKey, Ecn};
use courser_core::time::Instant;

/// Bytes of a train's buffer.
pub const TRAIN_BYTES: usize = 64 << 10;

/// What is known of a train that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Which of our addresses it was sent to, when the system tells.
    pub local: Option<IpAddr>,
    /// Who sent it.
    pub remote: SocketAddr,
    /// The mark of its datagrams.
    pub ecn: Ecn,
    /// Size of every datagram but the last, which may be shorter.
    pub stride: usize,
}

/// Room for one train that goes out: equal datagrams back to back, the last may be shorter.
#[derive(Debug)]
pub struct Train {
    /// The room, [`TRAIN_BYTES`].
    pub buf: Vec<u8>,
    /// How much of it is filled.
    pub len: usize,
}

impl Default for Train {
    fn default() -> Self {
        Self { buf: vec![0; TRAIN_BYTES], len: 0 }
    }
}

/// What is known of a train that goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainMeta {
    /// The connection; `None` for replies that belong to none.
    pub key: Option<ConnKey>,
    /// Destination.
    pub to: SocketAddr,
    /// Source address, when the system shall not choose it.
    pub from: Option<IpAddr>,
    /// Mark of every datagram.
    pub ecn: Ecn,
    /// Size of every datagram but the last, which may be shorter.
    pub segment: usize,
    /// Bytes of all datagrams.
    pub len: usize,
}

/// What became of a train; told once per train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// It went out.
    Sent,
    /// The destination cannot be reached now; this concerns the one path.
    Refused,
    /// Larger than the first link takes.
    TooBig,
    /// It went out, in several calls, because the system refuses offload; shorter trains are as good from now on.
    NoOffload,
}

/// An engine as its worker sees it.
pub trait Machine {
    /// A train came in. The machine may change the bytes: packets are opened in place.
    fn receive(&mut self, now: Instant, meta: &Meta, train: &mut [u8]);

    /// Does what became due: called after every batch of received trains, and after the application had its turn.
    fn process(&mut self, now: Instant);

    /// Fills the next train that is to go out now; `None` when there is none.
    fn fill(&mut self, now: Instant, out: &mut Train) -> Option<TrainMeta>;

    /// What became of the train that `fill` returned before.
    fn sent(&mut self, now: Instant, train: &TrainMeta, outcome: SendOutcome);

    /// When `process` has to be called even though nothing came in.
    fn deadline(&self) -> Option<Instant>;
}

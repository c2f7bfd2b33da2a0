//! Connection IDs: those that we issue ([`LocalCids`]) and those that the peer issues ([`RemoteCids`]).
//!
//! This module keeps the rules of sequence numbers, limits and retirement. It does not route: the engine holds the map
//! from connection ID to connection, and is told what to add and to remove.

/// Length of the connection IDs that we issue unless a generator says otherwise, in bytes.
pub const OWN_CID_LEN: usize = 8;
/// Length of [`ShortCids`], in bytes.
pub const SHORT_CID_LEN: usize = 3;

pub(crate) mod generator;
mod local;
mod quic_lb;
mod remote;
mod short;
mod worker;

pub use generator::{CidGenerator, RandomCids};
pub use local::{Issued, LocalCids};
pub use quic_lb::{InvalidQuicLb, QuicLb};
pub use remote::{RemoteCids, STORED_MAX};
pub use short::ShortCids;
pub use worker::{INSTANCES, Seat, SeatCids, WORKERS_MAX};

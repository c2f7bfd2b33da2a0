//! Connection IDs: those that we issue ([`LocalCids`]) and those that the peer issues ([`RemoteCids`]).
//!
//! This module keeps the rules of sequence numbers, limits and retirement. It does not route: the engine holds the map
//! from connection ID to connection, and is told what to add and to remove.

/// Length of the connection IDs that we issue, in bytes. All have the same, so that short headers can be read.
pub const OWN_CID_LEN: usize = 8;

mod local;
mod remote;

pub use local::{Issued, LocalCids};
pub use remote::{RemoteCids, STORED_MAX};

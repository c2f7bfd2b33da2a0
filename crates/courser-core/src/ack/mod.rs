//! Acknowledgements: what was received, when to say so, and reading the peer's ACK frames in bulk.
//!
//! - [`history`]: which packet numbers were received, as few ranges in one array.
//! - [`schedule`]: when an ACK frame has to leave (RFC 9000 section 13.2 and the ACK frequency draft).
//! - [`ping`]: when a side that only acknowledges should ask for an acknowledgement itself.
//! - [`tolerance`]: asking the peer for fewer ACK frames (ACK frequency draft).
//! - [`merge`]: several ACK frames of one receive batch as one set of ranges.
//!
//! Nothing here knows frames, packets or connections; numbers and times come in, decisions go out.

pub mod history;
pub mod merge;
pub mod ping;
pub mod schedule;
pub mod spaces;
pub mod tolerance;

pub use crate::wire::frame::EcnCounts;

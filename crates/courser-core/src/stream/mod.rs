//! Streams: state, credit, scheduling.
//!
//! [`Streams`] is the whole of it for one connection: the application opens, writes and reads; the peer's frames come in;
//! the packetiser asks for frames; the fates of packets come back. Bytes live in [`crate::buf`], arithmetic on offsets in
//! [`send_state`] and [`recv_state`], the RFC's states in [`phase`], credit in [`flow`].
//!
//! What costs what: a stream that has nothing to send is in no list and costs nothing per packet; a stream that nobody
//! touched since a higher-numbered one opened it implicitly has no state at all; a closed one leaves a bit in a range set.

pub mod crypto;
pub mod flow;
mod lean;
pub mod phase;
pub mod recv_state;
pub mod send_state;

mod active;
mod app;
mod conn_frames;
mod entry;
mod events;
mod extent;
mod fates;
mod fill;
mod lists;
mod map;
mod partial;
mod peer;
mod room;
mod table;
#[cfg(test)]
mod tests;

pub use app::{Read, ReadError, WriteError};
pub use entry::{PartialReset, Priority};
pub use events::StreamEvent;
pub use extent::Extent;
pub use map::{StreamStats, Streams};

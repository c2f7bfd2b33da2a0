//! Bytes and their meaning: every codec of QUIC versions 1 and 2.
//!
//! All readers borrow, are total and never panic; all writers know the size before they write, and write nothing at all
//! when there is no room. What can be judged from the bytes alone is judged here, with the error code that the RFC asks
//! for; what needs a connection's state is judged by its owner.
//!
//! - [`codec`]: [`Reader`] and [`Writer`]; [`varint`]: variable-length integers; [`pn`]: packet numbers.
//! - [`header`]: packet headers before and after header protection; [`frame`]: frames and where they are permitted.
//! - [`params`]: transport parameters; [`version_neg`]: which version to speak.
//! - [`legality`]: what every packet and datagram that we build has to fulfil; looks at what a test observes.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod codec;
pub mod frame;
pub mod header;
pub mod legality;
pub mod params;
pub mod pn;
pub mod varint;
pub mod version_neg;

pub use codec::{Reader, Writer};

#[cfg(test)]
mod edge_tests;
#[cfg(test)]
mod header_tests;
#[cfg(test)]
pub(crate) mod testing;

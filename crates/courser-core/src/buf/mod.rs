//! Memory for stream and CRYPTO bytes.
//!
//! [`pool`] hands out fixed-size chunks and counts them; [`send`] keeps bytes by offset until they are acknowledged;
//! [`reassembly`] puts received bytes in order; [`ranges`] is the set of offsets that all bookkeeping rests on. Nothing
//! here knows streams, frames or packets.

pub mod lazy;
pub mod pool;
pub mod ranges;
pub mod reassembly;
pub mod send;

pub use pool::{Chunk, ChunkPool, Class};
pub use ranges::{RangeSet, TooManyRanges};
pub use reassembly::{InsertError, Reassembly};
pub use send::SendBuffer;

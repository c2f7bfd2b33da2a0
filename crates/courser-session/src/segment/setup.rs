//! Sizes of a segment.

use core::fmt;

use crate::{num::wide, port::PortSetup};

/// Bytes that one message carries at most. A datagram is never longer.
pub const PAYLOAD_MAX: u32 = 1 << 16;
/// Bytes of a whole segment at most.
pub const SEGMENT_MAX: u64 = 64 << 20;
/// Slots of a ring at most.
const SLOTS_MAX: u32 = 1 << 16;
/// Chunks that the pool books together: one word of its bitmap.
pub(super) const GROUP: u32 = 64;
/// The arena is given out in lines of this many bytes.
pub(super) const LINE: u32 = 64;

/// Sizes of a port between processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedSetup {
    /// What every port has.
    pub port: PortSetup,
    /// Room for bytes that the application sends and its worker has not taken yet; a multiple of 64, at least
    /// [`PAYLOAD_MAX`].
    pub outbound_bytes: u32,
    /// Received bytes are given to the application in runs of chunks of this size: a power of two, 1 KiB to 64 KiB.
    pub chunk_bytes: u32,
    /// How many chunks there are: a multiple of 64, at least 128.
    pub inbound_chunks: u32,
}

impl Default for SharedSetup {
    fn default() -> Self {
        Self { port: PortSetup::default(), outbound_bytes: 256 << 10, chunk_bytes: 1024, inbound_chunks: 2048 }
    }
}

/// Why sizes make no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSetup {
    /// A ring has no slot, or more than 65,536.
    Slots,
    /// The room for outbound bytes is too small, or no multiple of 64.
    Outbound,
    /// The chunks' size is no power of two between 1 KiB and 64 KiB.
    Chunk,
    /// The number of chunks is no multiple of 64, or smaller than 128.
    Chunks,
    /// More than [`SEGMENT_MAX`] bytes together.
    Total,
}

impl fmt::Display for BadSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slots => "a ring of a port has between 1 and 65536 slots",
            Self::Outbound => "the outbound bytes of a shared port are a multiple of 64, at least 65536",
            Self::Chunk => "the chunks of a shared port are a power of two of bytes, 1024 to 65536",
            Self::Chunks => "the chunks of a shared port are a multiple of 64, at least 128",
            Self::Total => "a shared port takes more than 64 MiB",
        })
    }
}

impl core::error::Error for BadSetup {}

impl SharedSetup {
    /// Checks the sizes, which may come from another process.
    ///
    /// # Errors
    /// See [`BadSetup`].
    pub fn validate(&self) -> Result<(), BadSetup> {
        let is_ring = |slots: u32| (1..=SLOTS_MAX).contains(&slots);
        let good = [
            (is_ring(self.port.submissions) && is_ring(self.port.completions), BadSetup::Slots),
            (self.outbound_bytes >= PAYLOAD_MAX && self.outbound_bytes.is_multiple_of(LINE), BadSetup::Outbound),
            (self.chunk_bytes.is_power_of_two() && (1024..=PAYLOAD_MAX).contains(&self.chunk_bytes), BadSetup::Chunk),
            (self.inbound_chunks >= 2 * GROUP && self.inbound_chunks.is_multiple_of(GROUP), BadSetup::Chunks),
            (self.bytes() <= SEGMENT_MAX, BadSetup::Total),
        ];
        good.into_iter().find(|(is_good, _)| !is_good).map_or(Ok(()), |(_, why)| Err(why))
    }

    /// Bytes of the segment, for quotas.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let rings =
            [self.port.submissions, self.port.completions].map(|n| u64::from(n.max(1)).next_power_of_two() * 32);
        let pool = u64::from(self.chunk_bytes) * u64::from(self.inbound_chunks);
        // The board has a bit for each chunk, and begins on a line of its own.
        let words = wide(BOARD) * 8 + u64::from(self.inbound_chunks.div_ceil(GROUP)).next_multiple_of(wide(APART)) * 8;
        (words + rings[0] + rings[1] + u64::from(self.outbound_bytes) + pool).next_multiple_of(4096)
    }
}

/// Words are kept so far apart that no two lie on neighbouring cache lines, which processors fetch in pairs.
pub(super) const APART: usize = 16;

/// Bits of the chunks that the application gave back; before them are the words of the rings and doorbells.
pub(super) const BOARD: usize = 9 * APART;

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_make_no_segment_are_told_apart() {
        let good = SharedSetup::default();
        let port = |submissions, completions| PortSetup { submissions, completions, ..PortSetup::default() };
        for (setup, expected) in [
            (good, Ok(())),
            (SharedSetup { port: port(0, 1), ..good }, Err(BadSetup::Slots)),
            (SharedSetup { port: port(1, u32::MAX), ..good }, Err(BadSetup::Slots)),
            (SharedSetup { port: port(1, 1 << 16), ..good }, Ok(())),
            (SharedSetup { outbound_bytes: 65_535, ..good }, Err(BadSetup::Outbound)),
            (SharedSetup { outbound_bytes: 65_537, ..good }, Err(BadSetup::Outbound)),
            (SharedSetup { outbound_bytes: 65_536, ..good }, Ok(())),
            (SharedSetup { chunk_bytes: 0, ..good }, Err(BadSetup::Chunk)),
            (SharedSetup { chunk_bytes: 1025, ..good }, Err(BadSetup::Chunk)),
            (SharedSetup { chunk_bytes: 1 << 17, ..good }, Err(BadSetup::Chunk)),
            (SharedSetup { inbound_chunks: 64, ..good }, Err(BadSetup::Chunks)),
            (SharedSetup { inbound_chunks: 129, ..good }, Err(BadSetup::Chunks)),
            (SharedSetup { inbound_chunks: u32::MAX - 63, ..good }, Err(BadSetup::Total)),
            (SharedSetup { outbound_bytes: 64 << 20, ..good }, Err(BadSetup::Total)),
        ] {
            assert_eq!(setup.validate(), expected, "{setup:?}");
        }
    }
}

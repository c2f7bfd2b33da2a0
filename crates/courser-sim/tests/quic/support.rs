//! Links and small helpers.

use courser_sim::{Duplex, LinkConfig};

pub const MS: u64 = 1_000;
pub const S: u64 = 1_000_000;

/// A link with a round trip of 20 ms and nothing else.
pub fn plain() -> Duplex {
    Duplex::delay_us(10 * MS)
}

/// A rate in Mbit/s with a queue of one bandwidth-delay product of 20 ms.
pub fn rated(mbit: u64) -> Duplex {
    let rate = mbit * 1_000_000;
    Duplex::symmetric(LinkConfig::new().rate(rate).queue_bytes(rate / 8 / 50).delay_us(10 * MS))
}

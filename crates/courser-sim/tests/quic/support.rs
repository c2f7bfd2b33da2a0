//! Links and small helpers.

use std::sync::{Arc, Mutex};

use courser_sim::script::{Tap, Verdict};
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

/// Datagrams of one direction.
#[derive(Clone, Default)]
pub struct Capture(Arc<Mutex<Vec<Vec<u8>>>>);

impl Capture {
    pub fn tap(&self) -> Tap {
        let all = self.clone();
        Box::new(move |_, d| {
            all.0.lock().unwrap().push(d.bytes.clone());
            Verdict::Pass
        })
    }

    pub fn datagrams(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }
}

//! The event trace: a running hash over everything that happens, and a hook for whoever wants to watch.
//!
//! Two runs with equal hashes had, with overwhelming likelihood, the same events at the same times with the same bytes. The
//! hash is quick and not cryptographic.

use std::net::IpAddr;

use crate::datagram::Datagram;
use crate::rng::mix;
use crate::stats::Cause;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A host was polled.
    Polled {
        /// Number of its node.
        node: u32,
    },
    /// A host sent a datagram.
    Sent {
        /// Number of its node.
        node: u32,
        /// The datagram.
        d: &'a Datagram,
    },
    /// A host received a datagram.
    Received {
        /// Number of its node.
        node: u32,
        /// The datagram.
        d: &'a Datagram,
    },
    /// A link dropped a datagram. `at_us` may lie a little before the time of the event, which is when it was noticed.
    Dropped {
        /// Number of the link.
        link: u32,
        /// When it happened.
        at_us: u64,
        /// Why.
        cause: Cause,
        /// Length of the payload.
        bytes: usize,
    },
    /// A node had no way to the destination, or a translator no mapping.
    NoRoute {
        /// Number of the node.
        node: u32,
        /// The datagram.
        d: &'a Datagram,
    },
}

/// Told of each event with its time in microseconds.
pub type Watcher = Box<dyn FnMut(u64, &Event<'_>)>;

/// The hash so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceHash {
    hash: u64,
    events: u64,
}

impl Default for TraceHash {
    fn default() -> Self {
        Self::new()
    }
}

impl TraceHash {
    /// The hash of an empty trace.
    #[must_use]
    pub const fn new() -> Self {
        Self { hash: 0x6a09_e667_f3bc_c908, events: 0 }
    }

    /// The hash.
    #[must_use]
    pub const fn value(&self) -> u64 {
        mix(self.hash ^ self.events)
    }

    /// Events so far.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// Adds an event.
    pub fn add(&mut self, now_us: u64, event: &Event<'_>) {
        self.events += 1;
        self.word(now_us);
        match *event {
            Event::Polled { node } => self.word(1 << 32 | u64::from(node)),
            Event::Sent { node, d } => self.datagram(2 << 32 | u64::from(node), d),
            Event::Received { node, d } => self.datagram(3 << 32 | u64::from(node), d),
            Event::NoRoute { node, d } => self.datagram(4 << 32 | u64::from(node), d),
            Event::Dropped { link, at_us, cause, bytes } => {
                self.word(5 << 32 | u64::from(link));
                self.word(at_us);
                self.word((bytes as u64) << 8 | cause as u64);
            }
        }
    }

    fn word(&mut self, x: u64) {
        self.hash = step(self.hash, x);
    }

    fn datagram(&mut self, head: u64, d: &Datagram) {
        self.word(head);
        self.word(u64::from(d.src.port()) << 16 | u64::from(d.dst.port()) | u64::from(d.ecn) << 32);
        for ip in [d.src.ip(), d.dst.ip()] {
            let bits = match ip {
                IpAddr::V4(ip) => u128::from(ip.to_bits()),
                IpAddr::V6(ip) => ip.to_bits(),
            };
            self.word((bits >> 64) as u64 ^ bits as u64);
        }
        self.word(d.bytes.len() as u64);
        // Four lanes, because one multiplication has to wait for the one before it; payloads are most of the work.
        let mut lanes = [1u64, 2, 3, 4];
        let mut blocks = d.bytes.chunks_exact(32);
        for block in &mut blocks {
            for (lane, w) in lanes.iter_mut().zip(block.chunks_exact(8)) {
                *lane = step(*lane, u64::from_le_bytes([w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]]));
            }
        }
        lanes.into_iter().for_each(|lane| self.word(lane));
        for part in blocks.remainder().chunks(8) {
            self.word(part.iter().fold(0u64, |x, &b| x << 8 | u64::from(b)));
        }
    }
}

/// Takes one word into a hash; for a fixed hash, different words give different results.
const fn step(hash: u64, x: u64) -> u64 {
    let h = (hash.rotate_left(5) ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ h >> 29
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_event_changes_the_hash() {
        let a = "192.0.2.1:1".parse().unwrap();
        let d = Datagram::new(a, a, (0..77).collect());
        let hash = |now, e: Event<'_>| {
            let mut h = TraceHash::new();
            h.add(now, &e);
            assert_eq!(h.events(), 1);
            h.value()
        };
        let mut all = vec![
            TraceHash::new().value(),
            hash(1, Event::Polled { node: 1 }),
            hash(2, Event::Polled { node: 1 }),
            hash(1, Event::Polled { node: 2 }),
            hash(1, Event::Sent { node: 1, d: &d }),
            hash(1, Event::Received { node: 1, d: &d }),
            hash(1, Event::NoRoute { node: 1, d: &d }),
            hash(1, Event::Sent { node: 1, d: &Datagram { ecn: 3, ..d.clone() } }),
            hash(1, Event::Dropped { link: 1, at_us: 0, cause: Cause::Loss, bytes: 3 }),
            hash(1, Event::Dropped { link: 1, at_us: 0, cause: Cause::Mtu, bytes: 3 }),
        ];
        for i in 0..77 {
            let mut other = d.clone();
            other.bytes[i] ^= 1;
            all.push(hash(1, Event::Sent { node: 1, d: &other }));
        }
        let n = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), n);
    }
}

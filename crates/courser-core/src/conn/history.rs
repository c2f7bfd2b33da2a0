//! The last packets each way, for a look back after an error.

use crate::buf::lazy::{Lazy, Part};
use crate::ids::{Level, PacketNumber};
use crate::time::Instant;

/// Packets that are remembered each way.
const LOGGED: usize = 16;

/// A packet in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// When it was sent or received.
    pub time: Instant,
    /// Its level.
    pub level: Level,
    /// Its number.
    pub pn: PacketNumber,
    /// Bytes with header and tag.
    pub size: u16,
}

#[derive(Clone, Debug)]
struct Ring {
    entries: [Logged; LOGGED],
    /// Where the next one goes.
    next: usize,
    /// Whether every entry was written.
    full: bool,
}

impl Ring {
    const NEW: Self = {
        let none = Logged { time: Instant::ZERO, level: Level::Initial, pn: 0, size: 0 };
        Self { entries: [none; LOGGED], next: 0, full: false }
    };

    fn push(&mut self, entry: Logged) {
        self.entries[self.next] = entry;
        self.next = (self.next + 1) % LOGGED;
        self.full |= self.next == 0;
    }

    fn iter(&self) -> impl Iterator<Item = Logged> + '_ {
        let (new, old) = self.entries.split_at(self.next);
        let old = if self.full { old } else { &[] };
        old.iter().chain(new).copied()
    }
}

#[derive(Clone, Debug)]
struct Rings {
    sent: Ring,
    received: Ring,
}

impl Part for Rings {
    const UNUSED: &'static Self = &Self { sent: Ring::NEW, received: Ring::NEW };

    fn begin() -> Self {
        Self::UNUSED.clone()
    }

    fn is_unused(&self) -> bool {
        let touched = |ring: &Ring| ring.full || ring.next > 0;
        !touched(&self.sent) && !touched(&self.received)
    }
}

/// The last sixteen packets in each direction, oldest first. An idle connection forgets them
/// ([`dormant_after`](crate::config::Settings::dormant_after)).
#[derive(Clone, Debug, Default)]
pub struct PacketLog(Lazy<Rings>);

impl PacketLog {
    pub(super) fn sent(&mut self, time: Instant, level: Level, pn: PacketNumber, size: usize) {
        self.0.sent.push(Logged { time, level, pn, size: u16::try_from(size).unwrap_or(u16::MAX) });
    }

    pub(super) fn received(&mut self, time: Instant, level: Level, pn: PacketNumber, size: usize) {
        self.0.received.push(Logged { time, level, pn, size: u16::try_from(size).unwrap_or(u16::MAX) });
    }

    /// Reads a word of where the next entries go.
    pub(super) fn touch(&self) -> u64 {
        self.0.sent.entries[self.0.sent.next].pn ^ self.0.received.entries[self.0.received.next].pn
    }

    /// Forgets all of them, with their memory.
    pub(super) fn forget(&mut self) {
        self.0 = Lazy::new();
    }

    /// The last packets that were sent.
    pub fn last_sent(&self) -> impl Iterator<Item = Logged> + '_ {
        self.0.sent.iter()
    }

    /// The last packets that were received.
    pub fn last_received(&self) -> impl Iterator<Item = Logged> + '_ {
        self.0.received.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sixteen_stay_in_order() {
        // LS-GQ-16
        let mut log = PacketLog::default();
        for pn in 0..40 {
            log.sent(Instant::from_micros(pn * 7), Level::OneRtt, pn, 1200);
            log.received(Instant::from_micros(pn * 7 + 3), Level::OneRtt, pn + 100, 30);
        }
        let expected = |first, after, size| {
            (24..40u64).map(move |n| Logged {
                time: Instant::from_micros(n * 7 + after),
                level: Level::OneRtt,
                pn: n + first,
                size,
            })
        };
        assert!(log.last_sent().eq(expected(0, 0, 1200)));
        assert!(log.last_received().eq(expected(100, 3, 30)));
        log.received(Instant::ZERO, Level::Initial, 7, 100_000);
        assert_eq!(log.last_received().last().map(|l| (l.pn, l.size)), Some((7, u16::MAX)));
        assert_eq!(log.last_received().count(), 16);
    }
}

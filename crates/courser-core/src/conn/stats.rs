//! What a connection counted.

use core::ops::Sub;
use core::time::Duration;

use super::limit::Limits;
use crate::buf::lazy::{Lazy, Part};
use crate::observe::Limit;

/// Datagrams, packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// UDP datagrams.
    pub datagrams: u64,
    /// QUIC packets that were sent, or opened.
    pub packets: u64,
    /// Bytes of UDP payload.
    pub bytes: u64,
}

/// Counters and gauges of a connection. Counters only grow; the difference of two snapshots is what happened between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnStats {
    /// Sent.
    pub sent: Traffic,
    /// Received.
    pub received: Traffic,
    /// Packets that were declared lost, apart from probes of the path's datagram size.
    pub lost_packets: u64,
    /// Bytes of packets that were declared lost.
    pub lost_bytes: u64,
    /// Packets that were declared lost and acknowledged later.
    pub spurious_losses: u64,
    /// Bytes of stream data that had to be sent again.
    pub retransmitted_bytes: u64,
    /// Probe timeouts.
    pub ptos: u64,
    /// Times that the congestion window was reduced.
    pub congestion_events: u64,
    /// Packets that were received twice.
    pub duplicates: u64,
    /// Packets that could not be opened.
    pub undecryptable: u64,
    /// Packets that were dropped before they were opened.
    pub dropped_packets: u64,
    /// Datagrams from an address that is not the peer's.
    pub dropped_address: u64,
    /// Paths that were opened besides the first one.
    pub paths_opened: u64,
    /// Paths that the peer opened without a fresh connection ID, as behind a translator that moved it: whoever watches can
    /// link them.
    pub paths_with_known_cid: u64,
    /// Paths on which nobody answered.
    pub paths_failed: u64,
    /// Moves of the peer that were refused: by the settings, or for want of a connection ID.
    pub paths_refused: u64,
    /// Times that the connection began to use another path.
    pub migrations: u64,
    /// ACK frames received.
    pub ack_frames: u64,
    /// Times that (merged) ACK frames were processed.
    pub ack_runs: u64,
    /// Retry packets that a client followed.
    pub retries: u64,
    /// Times that the connection was ticked.
    pub ticks: u64,
    /// Updates of the sending keys.
    pub key_updates: u64,
    /// What limits the connection, and how long each limit held it back until its last tick.
    pub limits: Limits,
    /// From the first packet to the end of the TLS handshake.
    pub handshake: Duration,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Smallest round-trip time.
    pub min_rtt: Duration,
    /// Newest round-trip time.
    pub latest_rtt: Duration,
    /// Mean deviation of the round-trip time.
    pub rtt_var: Duration,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Bytes in flight.
    pub bytes_in_flight: u64,
    /// Slow start threshold in bytes; `None` before the first congestion.
    pub ssthresh: Option<u64>,
    /// What the pacer lets go, in bytes per second.
    pub pacing_rate: u64,
    /// Largest datagram that is sent now, in bytes of UDP payload.
    pub mtu: u16,
    /// Whether the path carries ECN marks.
    pub ecn: bool,
}

/// What a connection counts by itself; see [`ConnStats`] for what each is.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: Traffic,
    pub(super) received: Traffic,
    pub(super) ack_frames: u64,
    pub(super) ack_runs: u64,
    pub(super) ticks: u64,
    pub(super) limits: Limits,
    pub(super) handshake_us: u64,
    /// What most connections never meet.
    pub(super) rare: Lazy<Rare>,
}

/// Counters of what goes wrong, or seldom happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rare {
    pub(super) lost_packets: u64,
    pub(super) lost_bytes: u64,
    pub(super) spurious_losses: u64,
    pub(super) retransmitted_bytes: u64,
    pub(super) ptos: u64,
    pub(super) congestion_events: u64,
    pub(super) duplicates: u64,
    pub(super) undecryptable: u64,
    pub(super) dropped_packets: u64,
    pub(super) dropped_address: u64,
    pub(super) paths_opened: u64,
    pub(super) paths_with_known_cid: u64,
    pub(super) paths_failed: u64,
    pub(super) paths_refused: u64,
    pub(super) migrations: u64,
    pub(super) retries: u64,
    pub(super) key_updates: u64,
}

impl Part for Rare {
    const UNUSED: &'static Self = &Self {
        lost_packets: 0,
        lost_bytes: 0,
        spurious_losses: 0,
        retransmitted_bytes: 0,
        ptos: 0,
        congestion_events: 0,
        duplicates: 0,
        undecryptable: 0,
        dropped_packets: 0,
        dropped_address: 0,
        paths_opened: 0,
        paths_with_known_cid: 0,
        paths_failed: 0,
        paths_refused: 0,
        migrations: 0,
        retries: 0,
        key_updates: 0,
    };

    fn begin() -> Self {
        *Self::UNUSED
    }

    fn is_unused(&self) -> bool {
        self == Self::UNUSED
    }
}

impl Counts {
    /// The counters of a snapshot; its gauges are still to be filled in.
    pub(super) fn snapshot(&self) -> ConnStats {
        let (c, rare) = (self, &*self.rare);
        ConnStats {
            sent: c.sent,
            received: c.received,
            lost_packets: rare.lost_packets,
            lost_bytes: rare.lost_bytes,
            spurious_losses: rare.spurious_losses,
            retransmitted_bytes: rare.retransmitted_bytes,
            ptos: rare.ptos,
            congestion_events: rare.congestion_events,
            duplicates: rare.duplicates,
            undecryptable: rare.undecryptable,
            dropped_packets: rare.dropped_packets,
            dropped_address: rare.dropped_address,
            paths_opened: rare.paths_opened,
            paths_with_known_cid: rare.paths_with_known_cid,
            paths_failed: rare.paths_failed,
            paths_refused: rare.paths_refused,
            migrations: rare.migrations,
            ack_frames: c.ack_frames,
            ack_runs: c.ack_runs,
            retries: rare.retries,
            ticks: c.ticks,
            key_updates: rare.key_updates,
            limits: c.limits,
            handshake: Duration::from_micros(c.handshake_us),
            ..ConnStats::default()
        }
    }
}

impl Sub for Traffic {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            datagrams: self.datagrams.saturating_sub(earlier.datagrams),
            packets: self.packets.saturating_sub(earlier.packets),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

impl ConnStats {
    /// How long the connection has lived, until its last tick.
    #[must_use]
    pub fn age(&self) -> Duration {
        Limit::ALL.into_iter().map(|limit| self.limits.time(limit)).sum()
    }

    /// What happened since an earlier snapshot: counters are differences, gauges stay.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            received: self.received - earlier.received,
            lost_packets: self.lost_packets.saturating_sub(earlier.lost_packets),
            lost_bytes: self.lost_bytes.saturating_sub(earlier.lost_bytes),
            spurious_losses: self.spurious_losses.saturating_sub(earlier.spurious_losses),
            retransmitted_bytes: self.retransmitted_bytes.saturating_sub(earlier.retransmitted_bytes),
            ptos: self.ptos.saturating_sub(earlier.ptos),
            congestion_events: self.congestion_events.saturating_sub(earlier.congestion_events),
            duplicates: self.duplicates.saturating_sub(earlier.duplicates),
            undecryptable: self.undecryptable.saturating_sub(earlier.undecryptable),
            dropped_packets: self.dropped_packets.saturating_sub(earlier.dropped_packets),
            dropped_address: self.dropped_address.saturating_sub(earlier.dropped_address),
            paths_opened: self.paths_opened.saturating_sub(earlier.paths_opened),
            paths_with_known_cid: self.paths_with_known_cid.saturating_sub(earlier.paths_with_known_cid),
            paths_failed: self.paths_failed.saturating_sub(earlier.paths_failed),
            paths_refused: self.paths_refused.saturating_sub(earlier.paths_refused),
            migrations: self.migrations.saturating_sub(earlier.migrations),
            ack_frames: self.ack_frames.saturating_sub(earlier.ack_frames),
            ack_runs: self.ack_runs.saturating_sub(earlier.ack_runs),
            retries: self.retries.saturating_sub(earlier.retries),
            ticks: self.ticks.saturating_sub(earlier.ticks),
            key_updates: self.key_updates.saturating_sub(earlier.key_updates),
            limits: self.limits.since(&earlier.limits),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_of_two_snapshots_is_what_happened_between() {
        let earlier = ConnStats {
            sent: Traffic { datagrams: 1, packets: 2, bytes: 1200 },
            ticks: 5,
            mtu: 1200,
            ..ConnStats::default()
        };
        let mut later = earlier;
        later.sent = Traffic { datagrams: 4, packets: 7, bytes: 5000 };
        later.ticks = 9;
        later.mtu = 1472;
        let d = later.since(&earlier);
        assert_eq!((d.sent, d.ticks, d.mtu), (Traffic { datagrams: 3, packets: 5, bytes: 3800 }, 4, 1472));
    }
}

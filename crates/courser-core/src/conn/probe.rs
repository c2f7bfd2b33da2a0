//! Probes of the path's datagram size, and what their fate means.

use super::transmit::{Built, Turn};
use super::{Connection, Env};
use crate::crypto::TAG_LEN;
use crate::ids::{Level, Space};
use crate::packetiser::{Draft, Train};
use crate::spans::FrameKind;
use crate::time::Instant;

/// Datagrams after which the search for a larger size goes on beside stream data.
const MTU_SEARCH_AFTER: u64 = 24;

impl Connection {
    pub(super) fn wants_mtu_probe(&self, now: Instant) -> bool {
        self.may_probe_mtu() && self.path.pmtud.clone().poll(now).is_some()
    }

    /// A short answer fits the initial window only as long as no probe takes room in it: the search waits for a pause, or
    /// until the connection turns out to have more to say.
    fn may_probe_mtu(&self) -> bool {
        self.confirmed && (self.stats.sent.datagrams >= MTU_SEARCH_AFTER || !self.streams.has_data())
    }

    /// A datagram of exactly the size that is searched for: PING and PADDING.
    pub(super) fn fill_mtu_probe(&mut self, env: &mut Env, turn: &Turn, train: &mut Train) -> Option<usize> {
        if !self.may_probe_mtu() || self.probes[2] > 0 {
            return None;
        }
        let size = usize::from(self.path.pmtud.poll(turn.now)?.size);
        if self.path.congestion.room() < size as u64 || turn.paced < size {
            return None;
        }
        env.records.clear();
        let slot = train.slot(size)?;
        let pn = self.recovery.next_pn(Space::Data);
        let (head, _) = self.write_header(Level::OneRtt, pn, slot)?;
        let written = size - TAG_LEN;
        slot[head.payload_at] = 0x01;
        slot[head.payload_at + 1..written].fill(0);
        let mut draft = Draft::default();
        draft.frames.insert(FrameKind::Ping);
        draft.frames.insert(FrameKind::Padding);
        let built = Built {
            level: Level::OneRtt,
            pn,
            start: 0,
            head,
            layout: None,
            written,
            draft,
            records: 0..0,
            mtu_probe: true,
        };
        let len = self.finish_datagram(env, turn, &[Some(built), None, None, None], slot)?.len;
        self.path.pmtud.on_probe_sent(u16::try_from(size).unwrap_or(u16::MAX));
        train.commit(len);
        Some(len)
    }

    /// Largest room for a DATAGRAM frame in a packet of its own.
    pub(super) fn datagram_room(&self) -> usize {
        let header = 1 + self.remote_cids.active().len() + 4;
        usize::from(self.path.pmtud.current()).saturating_sub(header + TAG_LEN)
    }

    /// The local network refused a datagram of that size.
    pub(crate) fn on_too_big(&mut self, now: Instant, size: usize) {
        let size = u16::try_from(size).unwrap_or(u16::MAX);
        if size > self.path.pmtud.current() {
            self.path.pmtud.on_probe_lost(now, size, true);
        } else if self.path.pmtud.on_lost(now, size, true) {
            self.apply_mtu(now);
        }
    }
}

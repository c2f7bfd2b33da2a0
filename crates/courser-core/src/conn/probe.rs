//! Packets that only test: how large the datagrams of the path in use may be, and whether other paths work.

use super::transmit::{Built, INITIAL_DATAGRAM_MIN, Turn};
use super::{Connection, Env};
use crate::config::MIN_DATAGRAM;
use crate::crypto::TAG_LEN;
use crate::ids::{Level, Space};
use crate::packetiser::{Draft, Train, TrainMeta};
use crate::spans::FrameKind;
use crate::time::Instant;
use crate::wire::Writer;
use crate::wire::frame::Frame;

/// A probe that has to wait for room takes no more than this part of the window.
const PROBE_SHARE: u64 = 4;
/// Datagrams after which the search for a larger size goes on beside stream data.
const MTU_SEARCH_AFTER: u64 = 24;

impl Connection {
    /// The size that is to be tried next, and whether the window has room for it now.
    fn due_mtu_probe(&self, now: Instant) -> Option<(u16, bool)> {
        if !self.may_probe_mtu() || self.probes[2] > 0 {
            return None;
        }
        let (congestion, mut search) = (&self.path.congestion, self.path.pmtud);
        let room = congestion.room();
        let asked = search.poll(now)?.size;
        if u64::from(asked) <= room {
            return Some((asked, true));
        }
        let share = u16::try_from(congestion.window() / PROBE_SHARE).unwrap_or(u16::MAX);
        let size = search.poll_within(now, share)?.size;
        Some((size, u64::from(size) <= room))
    }

    pub(super) fn wants_mtu_probe(&self, now: Instant) -> bool {
        self.due_mtu_probe(now).is_some_and(|(_, fits)| fits)
    }

    /// Whether a probe waits for room in the window: data that always took what becomes free would keep it waiting.
    pub(super) fn mtu_probe_waits(&self, now: Instant) -> bool {
        self.due_mtu_probe(now).is_some_and(|(_, fits)| !fits)
    }

    /// A short answer fits the initial window only as long as no probe takes room in it: the search waits for a pause, or
    /// until the connection turns out to have more to say. A pause begins when the peer acknowledged something: one that
    /// closes as soon as it has its answer never needed larger datagrams.
    fn may_probe_mtu(&self) -> bool {
        self.confirmed
            && self.path.is_validated()
            && (self.stats.sent.datagrams >= MTU_SEARCH_AFTER
                || !self.streams.has_data() && self.recovery.largest_acked(Space::Data).is_some())
    }

    /// A datagram of exactly the size that is searched for: PING and PADDING.
    pub(super) fn fill_mtu_probe(&mut self, env: &mut Env, turn: &Turn, train: &mut Train) -> Option<usize> {
        let (size, fits) = self.due_mtu_probe(turn.now)?;
        // What exceeds the pacer's budget is taken from what it brings next.
        if !fits || turn.paced == 0 {
            return None;
        }
        let size = usize::from(self.path.pmtud.poll_within(turn.now, size)?.size);
        env.records.clear();
        let slot = train.slot(size)?;
        let pn = self.recovery.next_pn(Space::Data);
        let (head, _) = self.write_header(env, Level::OneRtt, pn, slot)?;
        let written = size - TAG_LEN;
        //= rfc8899#3-6
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

    /// A datagram that tests a path which is not in use: PATH_CHALLENGE, PATH_RESPONSE, PADDING.
    pub(super) fn fill_path_probe(&mut self, env: &mut Env, now: Instant, train: &mut Train) -> Option<TrainMeta> {
        let id = self.standby.iter().find(|p| p.wants_probe())?.id;
        let in_use = self.path.id;
        // What the path in use asked for is not answered by a packet elsewhere.
        let asked = (self.probes, self.ping);
        self.standby.swap(&mut self.path, id);
        let meta = self.build_path_probe(env, now, train);
        self.standby.swap(&mut self.path, in_use);
        (self.probes, self.ping) = asked;
        meta
    }

    fn build_path_probe(&mut self, env: &mut Env, now: Instant, train: &mut Train) -> Option<TrainMeta> {
        //= rfc9000#8.2.1-4
        //= rfc9000#8.2.2-5
        //= rfc9000#8.2.2-6
        let size = INITIAL_DATAGRAM_MIN.min(self.path.amplification.room());
        env.records.clear();
        let slot = train.slot(size)?;
        let pn = self.recovery.next_pn(Space::Data);
        let (head, _) = self.write_header(env, Level::OneRtt, pn, slot)?;
        let written = size.checked_sub(TAG_LEN)?;
        let mut w = Writer::new(slot.get_mut(head.payload_at..written)?);
        let mut draft = Draft::default();
        if let Some(data) = self.path.challenges.due() {
            Frame::PathChallenge(data).encode(&mut w)?;
            self.path.challenges.mark_sent(now);
            if size < INITIAL_DATAGRAM_MIN {
                self.path.challenges.mark_small();
            }
            draft.frames.insert(FrameKind::PathChallenge);
        }
        if let Some(data) = self.path.responses.front()
            && Frame::PathResponse(data).encode(&mut w).is_some()
        {
            //= rfc9000#8.2.2-7
            self.path.responses.pop();
            draft.frames.insert(FrameKind::PathResponse);
        }
        let room = w.room();
        if w.zeros(room).is_some() && room > 0 {
            draft.frames.insert(FrameKind::Padding);
        }
        let (level, layout, mtu_probe) = (Level::OneRtt, None, false);
        let built = Built { level, pn, start: 0, head, layout, written, draft, records: 0..0, mtu_probe };
        let turn = Turn { now, ect: false, paced: usize::MAX };
        let len = self.finish_datagram(env, &turn, &[Some(built), None, None, None], slot)?.len;
        train.commit(len);
        self.finish_train(env, &turn, train, len)
    }

    /// Largest room for a DATAGRAM frame in a packet of its own.
    pub(super) fn datagram_room(&self) -> usize {
        //= rfc8899#5-2
        let header = 1 + self.path.to.cid.len() + 4;
        usize::from(self.path.pmtud.current()).saturating_sub(header + TAG_LEN)
    }

    /// The local network refused a train because of the size of its datagrams.
    pub(crate) fn on_too_big(&mut self, env: &mut Env, now: Instant, train: &TrainMeta) {
        let other_address_of_ours = train.from.zip(self.path.local()).is_some_and(|(from, ours)| from != ours);
        if train.to != self.path.remote() || other_address_of_ours {
            // A path that is not in use was tested; nobody will answer there.
            return;
        }
        let size = u16::try_from(train.segment).unwrap_or(u16::MAX);
        if size <= MIN_DATAGRAM {
            self.on_path_too_small(env, now);
        } else if size > self.path.pmtud.current() {
            self.path.pmtud.on_probe_lost(now, size, true);
        } else if self.path.pmtud.on_lost(now, size, true) {
            self.apply_mtu(now);
        }
    }
}

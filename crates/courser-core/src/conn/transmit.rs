//! A train of datagrams out: how much may leave, and what goes into each datagram.
//!
//! A packet is written in plaintext, committed to, and sealed together with the others of its train; see `seal`.

use core::ops::Range;

use super::seal::Datagram;
use super::{Connection, Crowd, Env, Life};
use crate::crypto::{Head, TAG_LEN};
use crate::error::{PeerViolation, TransportCode};
use crate::ids::{Ecn, Level, PacketNumber, Space};
use crate::packetiser::sizes::Budget;
use crate::packetiser::{
    self, AppVoices, Archetype, Draft, Plan, TRAIN_BYTES_MAX, TRAIN_DATAGRAMS_MAX, Train, TrainMeta, Voices,
};
use crate::spans::{FrameKind, Record};
use crate::time::Instant;
use crate::wire::Writer;
use crate::wire::header::LongLayout;

/// Levels in the order in which their packets are coalesced.
pub(super) const LEVELS: [Level; 4] = [Level::Initial, Level::ZeroRtt, Level::Handshake, Level::OneRtt];
/// The smallest datagram that may carry an Initial.
pub(super) const INITIAL_DATAGRAM_MIN: usize = 1200;

/// What holds for all datagrams of one turn.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    pub(super) now: Instant,
    pub(super) ect: bool,
    /// Bytes that pacing lets go.
    pub(super) paced: usize,
}

/// A packet that is built and not sealed.
pub(super) struct Built {
    pub(super) level: Level,
    pub(super) pn: PacketNumber,
    /// Offset of the packet in the datagram.
    pub(super) start: usize,
    /// From `start`.
    pub(super) head: Head,
    /// Set for long headers.
    pub(super) layout: Option<LongLayout>,
    /// Length of header and what was written, without tail and tag.
    pub(super) written: usize,
    pub(super) draft: Draft,
    pub(super) records: Range<usize>,
    pub(super) mtu_probe: bool,
}

impl Built {
    pub(super) fn len(&self) -> usize {
        self.written + self.draft.tail.map_or(0, |t| t.len as usize) + TAG_LEN
    }
}

impl Connection {
    /// Builds the next train; `None` when there is nothing that may leave now.
    pub(crate) fn fill(&mut self, env: &mut Env, now: Instant, train: &mut Train) -> Option<TrainMeta> {
        train.clear();
        env.unsealed.clear();
        match self.life {
            Life::Handshaking | Life::Established => {}
            Life::Closing(_) => return self.fill_close(env, now, train),
            Life::Draining { .. } | Life::Ended => return None,
        }
        if self.numbers_are_used_up() {
            return None;
        }
        self.prepare_turn(env, now);
        if !self.is_open() {
            return self.fill_close(env, now, train);
        }
        if let Some(meta) = self.fill_path_probe(env, now, train) {
            return Some(meta);
        }
        let ect = self.path.ecn.wants_mark();
        self.paced_until = None;
        self.path.pacer.set_bunch(now, self.bunch(env.crowd));
        self.path.pacer.on_turn(now, self.path.congestion.in_flight(), self.path.pmtud.current());
        let mut turn = Turn { now, ect, paced: self.path.pacer.budget(now) };
        //= rfc8899#3-1
        let mut segment = usize::from(self.path.pmtud.current());
        let mut count = 0;
        if let Some(len) = self.fill_mtu_probe(env, &turn, train) {
            return self.finish_train(env, &turn, train, len);
        }
        if self.mtu_probe_waits(now) {
            turn.paced = 0;
        }
        let mut streams_only = false;
        while count < TRAIN_DATAGRAMS_MAX {
            let room = segment.min(self.path.room());
            let Some(slot) = train.slot(room) else { break };
            let built =
                if streams_only { self.build_more(env, &turn, slot) } else { self.build_datagram(env, &turn, slot) };
            let Some(Datagram { len, ends_initial }) = built else { break };
            train.commit(len);
            if ends_initial && let Err(error) = self.leave_initial(env, now, train) {
                return self.fail_train(env, now, train, error);
            }
            turn.paced = turn.paced.saturating_sub(len);
            count += 1;
            let mut short = len < segment;
            if count == 1 {
                // Messages that cannot be cut leave a rest in every datagram: those behind the first one are as long.
                short &= self.handshake.is_some() || 2 * len < segment;
                segment = len;
                streams_only = self.only_streams_speak();
            }
            if short || !self.is_open() {
                break;
            }
        }
        self.note_pacing(&turn);
        if count == 0 {
            return None;
        }
        self.finish_train(env, &turn, train, segment)
    }

    pub(super) fn train_meta(&self, train: &Train, segment: usize, ect: bool) -> TrainMeta {
        let ecn = if ect { Ecn::Ect0 } else { Ecn::NotEct };
        TrainMeta {
            key: Some(self.key),
            to: self.path.remote(),
            from: self.path.local(),
            ecn,
            segment: segment.min(train.len()),
            len: train.len(),
        }
    }

    fn prepare_turn(&mut self, env: &mut Env, now: Instant) {
        self.keys.prepare_send(env.keys.as_ref(), now);
        if self.keys.is_exhausted() {
            let reason = "the packet protection key is used up";
            self.fail(now, PeerViolation::new(TransportCode::AEAD_LIMIT_REACHED, reason, "rfc9001#6.6"));
        }
        self.rotate_after_silence(env, now);
        if self.confirmed && self.recovery.skip_due(Space::Data) {
            let random = env.random_u64();
            self.recovery.reserve_skip(Space::Data, random);
        }
    }

    /// What is worth a turn among many connections that send. Single packets of each would take a system call each: in a
    /// crowd it is what may always leave at once, and where a crowd keeps the engine busy a whole window in one train.
    //= rfc9002#7.7-2
    fn bunch(&self, crowd: Crowd) -> u64 {
        const DATAGRAMS: u64 = 10;
        let mtu = u64::from(self.path.pmtud.current());
        let datagrams = match crowd {
            Crowd::None => return 0,
            Crowd::Present => DATAGRAMS,
            Crowd::Busy => {
                TRAIN_DATAGRAMS_MAX.min(TRAIN_BYTES_MAX / usize::from(self.path.pmtud.current()).max(1)) as u64
            }
        };
        self.path.congestion.window().min(datagrams * mtu)
    }

    /// Remembers when the pacer opens, if it is what holds data back.
    fn note_pacing(&mut self, turn: &Turn) {
        let mtu = usize::from(self.path.pmtud.current());
        if turn.paced < mtu && self.window_allows() && self.wants_send(turn.now) {
            self.paced_until = Some(self.path.pacer.wait(turn.now)).filter(|at| *at > turn.now);
        }
        self.note_app_limit();
    }

    /// Tells a controller that wants to know when there is room in flight and nothing to send.
    pub(super) fn note_app_limit(&mut self) {
        if self.path.congestion.wants_app_limits() && self.window_allows() && !self.has_app_data() {
            self.path.congestion.on_app_limited();
        }
    }

    /// Bytes that are worth buffering for sending: two windows keep a sender busy.
    pub(crate) fn worth(&self) -> u64 {
        2 * self.path.congestion.window()
    }

    /// Whether the engine should give this connection a turn.
    pub(crate) fn wants_send(&self, now: Instant) -> bool {
        match &self.life {
            Life::Closing(closing) => return closing.words.answer,
            Life::Draining { .. } | Life::Ended => return false,
            Life::Handshaking | Life::Established => {}
        }
        if self.numbers_are_used_up() {
            return false;
        }
        if self.standby.iter().any(|p| p.wants_probe()) {
            return true;
        }
        if self.path.room() == 0 {
            return false;
        }
        let open = self.window_allows() && !self.mtu_probe_waits(now);
        let allowed = open && self.paced_until.is_none_or(|at| at <= now);
        if allowed && self.wants_mtu_probe(now) {
            return true;
        }
        LEVELS.into_iter().any(|level| self.has_pending(level, now, self.archetype(level, allowed)))
    }

    /// Whether the congestion window takes another full datagram.
    pub(super) fn window_allows(&self) -> bool {
        self.path.congestion.room() >= u64::from(self.path.pmtud.current())
    }

    fn archetype(&self, level: Level, allowed: bool) -> Archetype {
        if self.probes[level.space().index()] > 0 {
            Archetype::Probe
        } else if allowed {
            Archetype::Normal
        } else {
            Archetype::AckOnly
        }
    }

    /// Whether somebody has something to say at a level (seed: the pending predicate).
    fn has_pending(&self, level: Level, now: Instant, archetype: Archetype) -> bool {
        let space = level.space();
        if !self.keys.has_send(level) {
            return false;
        }
        if level == Level::ZeroRtt {
            return archetype.allows_eliciting() && self.has_eliciting(level);
        }
        if self.acks[space.index()].due(now) {
            return true;
        }
        if !archetype.allows_eliciting() {
            return false;
        }
        archetype == Archetype::Probe || self.has_eliciting(level)
    }

    /// Whether somebody has something to say that is to be acknowledged.
    pub(super) fn has_eliciting(&self, level: Level) -> bool {
        match level {
            Level::Initial => self.handshake.as_ref().is_some_and(|h| h.crypto[0].has_data()),
            Level::Handshake => self.handshake.as_ref().is_some_and(|h| h.crypto[1].has_data()),
            Level::ZeroRtt => self.has_app_data(),
            Level::OneRtt => self.has_app_pending() || self.late_crypto.as_ref().is_some_and(|c| c.has_data()),
        }
    }

    fn has_app_pending(&self) -> bool {
        self.peer_known && (self.has_app_data() || self.has_rare_frames())
    }

    /// Frames of 1-RTT packets other than those of streams, flow control and datagrams.
    fn has_rare_frames(&self) -> bool {
        self.handshake_done.is_due()
            || self.control.has_waiting(Space::Data)
            || self.tolerance.due().is_some()
            || self.path.challenges.due().is_some()
            || self.path.responses.front().is_some()
    }

    /// What 0-RTT packets carry as well.
    fn has_app_data(&self) -> bool {
        self.streams.has_data() || self.streams.any_due() || self.ping || self.datagrams.waiting() > 0
    }

    /// Builds one datagram into `slot`.
    fn build_datagram(&mut self, env: &mut Env, turn: &Turn, slot: &mut [u8]) -> Option<Datagram> {
        env.records.clear();
        let allowed = self.window_allows() && turn.paced >= slot.len().min(usize::from(self.path.pmtud.current()));
        if self.handshake.is_none() {
            let archetype = self.archetype(Level::OneRtt, allowed);
            if !self.has_pending(Level::OneRtt, turn.now, archetype) {
                return None;
            }
            let mut budget = Budget::new(slot.len());
            let built = self.build_packet(env, turn, Level::OneRtt, archetype, &mut budget, slot)?;
            let mut packets = [Some(built)];
            pad_datagram(&mut packets, &budget, slot);
            return self.finish_datagram(env, turn, &packets, slot);
        }
        let mut packets = [const { None }; 4];
        let mut budget = Budget::new(slot.len());
        for (place, level) in packets.iter_mut().zip(LEVELS) {
            let archetype = self.archetype(level, allowed);
            if self.has_pending(level, turn.now, archetype) {
                *place = self.build_packet(env, turn, level, archetype, &mut budget, slot);
            }
        }
        pad_datagram(&mut packets, &budget, slot);
        self.finish_datagram(env, turn, &packets, slot)
    }

    /// Writes header and frames of one packet behind those that are in the datagram already.
    fn build_packet(
        &mut self,
        env: &mut Env,
        turn: &Turn,
        level: Level,
        archetype: Archetype,
        budget: &mut Budget,
        slot: &mut [u8],
    ) -> Option<Built> {
        let space = level.space();
        //= rfc9000#14.1-1
        //= rfc9000#14.1-2
        //= rfc9000#8.1-3
        let padded = level == Level::Initial && (self.side.is_client() || archetype.allows_eliciting());
        if padded && budget.datagram_max < INITIAL_DATAGRAM_MIN {
            return None;
        }
        let path_frames = self.path.challenges.due().is_some() || self.path.responses.front().is_some();
        let probing = self.probes[space.index()] > 0;
        if probing
            && let Some(handshake) = self.handshake.as_mut()
            && let Some(crypto) = handshake.crypto.get_mut(space.index())
            && !crypto.has_data()
        {
            // The second of two probes repeats what the first one said: either may be lost.
            crypto.repeat_unacked();
        }
        let must_elicit = probing
            || (space == Space::Data && self.ping)
            || (archetype.allows_eliciting() && self.ack_ping.is_wanted());
        let plan = Plan {
            level,
            archetype,
            now: turn.now,
            ack_delay_exponent: 3,
            must_elicit,
            immediate: probing && level == Level::OneRtt && self.tolerance.is_negotiated(),
            last: level == Level::OneRtt && budget.datagram_min == 0 && !path_frames,
            close: None,
        };
        let built = self.write_packet(env, &plan, budget, slot)?;
        let initial_elicits = built.draft.frames.is_ack_eliciting() || self.side.is_client();
        if level == Level::Initial && initial_elicits {
            budget.datagram_min = INITIAL_DATAGRAM_MIN;
        }
        //= rfc9000#8.2.1-4
        //= rfc9000#8.2.2-5
        if built.draft.frames.contains(FrameKind::PathChallenge) || built.draft.frames.contains(FrameKind::PathResponse)
        {
            budget.datagram_min = INITIAL_DATAGRAM_MIN.min(budget.datagram_max);
            if budget.datagram_max < INITIAL_DATAGRAM_MIN && built.draft.frames.contains(FrameKind::PathChallenge) {
                self.path.challenges.mark_small();
            }
        }
        budget.add(built.len());
        Some(built)
    }

    pub(super) fn write_packet(
        &mut self,
        env: &mut Env,
        plan: &Plan<'_>,
        budget: &Budget,
        slot: &mut [u8],
    ) -> Option<Built> {
        self.packet_of(env, plan.level, budget, slot, |conn, w, records| {
            packetiser::build(&mut conn.voices(plan.level), plan, w, records)
        })
    }

    /// Writes the header of a packet and has `say` write its frames.
    #[inline]
    fn packet_of(
        &mut self,
        env: &mut Env,
        level: Level,
        budget: &Budget,
        slot: &mut [u8],
        say: impl FnOnce(&mut Self, &mut Writer<'_>, &mut Vec<Record>) -> Draft,
    ) -> Option<Built> {
        let start = budget.used;
        let pn = self.recovery.next_pn(level.space());
        let packet = &mut slot[start..];
        let (head, layout) = self.write_header(env, level, pn, packet)?;
        let room = budget.payload_max(head.payload_at)?;
        let first_record = env.records.len();
        let mut w = Writer::new(&mut packet[head.payload_at..head.payload_at + room]);
        if cfg!(debug_assertions) && core::mem::take(&mut env.spoil) {
            w.zeros(1)?;
        }
        let mut draft = say(self, &mut w, &mut env.records);
        if w.is_empty() && draft.tail.is_none() {
            return None;
        }
        // Header protection samples four bytes behind the start of the packet number.
        let least = (head.pn_at + 4).saturating_sub(head.payload_at);
        if draft.tail.is_none() && w.len() < least {
            w.zeros(least - w.len())?;
            draft.frames.insert(FrameKind::Padding);
        }
        let written = head.payload_at + w.len();
        let records = first_record..env.records.len();
        Some(Built { level, pn, start, head, layout, written, draft, records, mtu_probe: false })
    }

    /// Whether nobody but streams has anything to say in 1-RTT packets. While a train is filled nothing arrives, and
    /// filling it gives nobody else something to say that could not wait for the next train.
    fn only_streams_speak(&self) -> bool {
        let data = Space::Data.index();
        self.handshake.is_none()
            && self.peer_known
            && self.streams.has_data()
            && !(self.ping || self.probes[data] > 0 || self.ack_ping.is_wanted())
            && !self.acks[data].wanted_if_sending()
            && !self.late_crypto.as_ref().is_some_and(|c| c.has_data())
            && self.datagrams.waiting() == 0
            && !self.has_rare_frames()
            && !self.streams.any_due()
    }

    /// One more datagram of a train in which only streams speak: the other owners of frames are not asked again.
    fn build_more(&mut self, env: &mut Env, turn: &Turn, slot: &mut [u8]) -> Option<Datagram> {
        env.records.clear();
        if !self.window_allows() || turn.paced < slot.len().min(usize::from(self.path.pmtud.current())) {
            return None;
        }
        let budget = Budget::new(slot.len());
        let built = self.packet_of(env, Level::OneRtt, &budget, slot, |conn, w, records| {
            let mut draft = Draft::default();
            draft.tail = conn.streams.fill(w, records, &mut draft.frames, true);
            draft
        })?;
        self.finish_datagram(env, turn, &[Some(built)], slot)
    }

    fn voices(&mut self, level: Level) -> Voices<'_> {
        let acks = &mut self.acks[level.space().index()];
        let crypto = match level {
            Level::Initial => self.handshake.as_mut().map(|h| &mut h.crypto[0]),
            Level::Handshake => self.handshake.as_mut().map(|h| &mut h.crypto[1]),
            _ => self.late_crypto.as_deref_mut(),
        };
        let app = (level == Level::ZeroRtt || (level == Level::OneRtt && self.peer_known)).then_some(AppVoices {
            done: &mut self.handshake_done,
            streams: &mut self.streams,
            control: &mut self.control,
            challenges: &mut self.path.challenges,
            responses: &mut self.path.responses,
            datagrams: &mut self.datagrams,
            tolerance: &mut self.tolerance,
        });
        Voices { acks, crypto, app }
    }
}

/// Pads the last packet so that the datagram reaches its minimum.
pub(super) fn pad_datagram(packets: &mut [Option<Built>], budget: &Budget, slot: &mut [u8]) {
    let missing = budget.datagram_min.saturating_sub(budget.used);
    if missing == 0 {
        return;
    }
    let Some(last) = packets.iter_mut().rev().flatten().next() else { return };
    debug_assert!(last.draft.tail.is_none(), "nothing may follow a frame without Length");
    let from = last.start + last.written;
    slot[from..from + missing].fill(0);
    last.written += missing;
    last.draft.frames.insert(FrameKind::Padding);
}

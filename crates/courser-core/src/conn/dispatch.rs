//! The fate of sent packets goes to the owners of what they carried (seed: frame-in-flight dispatcher).

use super::{Connection, Env, Handshake};
use crate::ack::merge::AckRanges;
use crate::ack::spaces::Acks;
use crate::ack::tolerance::Tolerance;
use crate::buf::pool::ChunkPool;
use crate::cc::{AckSample, LossSample, RttSnapshot};
use crate::control::{ControlQueue, Once};
use crate::datagram::DatagramQueue;
use crate::error::PeerViolation;
use crate::ids::{Level, Space};
use crate::observe::{Event as Observed, Interest, Kind, Observer};
use crate::path::Path;
use crate::recovery::{AckOutcome, Context, Freed, Settled, timer::TimeoutOutcome};
use crate::spans::{Fate, FrameKind, FrameSet, Record, StreamSpan};
use crate::stream::Streams;
use crate::stream::crypto::CryptoStream;
use crate::time::Instant;

use super::stats::Counts;

/// Frames of the connection that streams ask for again with fresh values.
const CONN_FRAMES: [FrameKind; 6] = [
    FrameKind::MaxData,
    FrameKind::MaxStreamsBidi,
    FrameKind::MaxStreamsUni,
    FrameKind::DataBlocked,
    FrameKind::StreamsBlockedBidi,
    FrameKind::StreamsBlockedUni,
];

/// Probe timeouts in a row after which datagrams shrink to what every path carries: full-sized ones may be what vanishes.
const BLACK_HOLE_PTOS: u32 = 3;
/// After so many probe timeouts in a row packets are no longer marked to find out whether marks pass.
const MARKS_PTOS: u32 = 2;
/// After each so many probe timeouts at an address where the peer has not answered yet it gets other connection IDs.
const UNANSWERED_PTOS: u32 = 2;

/// Owners of frames, as disjoint fields of the connection, while recovery tells fates.
struct Owners<'a> {
    acks: &'a mut Acks,
    streams: &'a mut Streams,
    control: &'a mut ControlQueue,
    datagrams: &'a mut DatagramQueue,
    done: &'a mut Once,
    tolerance: &'a mut Tolerance,
    handshake: Option<&'a mut Handshake>,
    late_crypto: Option<&'a mut CryptoStream>,
    stats: &'a mut Counts,
    pool: &'a mut ChunkPool,
    /// Stream data that arrived and that its stream was not told of yet.
    arrived: Option<StreamSpan>,
}

impl Owners<'_> {
    /// Stream data arrived. Packets are told of from the newest to the oldest: an acknowledged train comes together here
    /// from its end, and its stream is told once.
    fn on_arrived(&mut self, span: &StreamSpan) {
        if let Some(run) = &mut self.arrived
            && run.id == span.id
            && span.end() == run.offset
            && !span.fin
            && let Some(len) = run.len.checked_add(span.len)
        {
            (run.offset, run.len) = (span.offset, len);
            return;
        }
        self.tell_arrived();
        self.arrived = Some(*span);
    }

    /// Tells what waits to be told, before anything else happens to a stream.
    fn tell_arrived(&mut self) {
        if let Some(run) = self.arrived.take() {
            self.streams.on_span(Fate::Acked, &run, self.pool);
        }
    }

    /// One packet's fate, to each owner.
    fn settle(&mut self, fate: Fate, settled: &Settled<'_>) {
        for record in settled.records {
            self.settle_record(fate, settled.space, record);
        }
        self.settle_frames(fate, settled.packet.frames);
        // A lost probe of the path's datagram size is an answer, not a loss.
        if settled.packet.mtu_probe {
            return;
        }
        match (fate, settled.spurious) {
            (Fate::Lost, _) => {
                self.stats.rare.lost_packets += 1;
                self.stats.rare.lost_bytes += u64::from(settled.packet.size);
            }
            (Fate::Acked, true) => self.stats.rare.spurious_losses += 1,
            _ => {}
        }
    }

    /// Frames that need no record, because their owners make them anew.
    fn settle_frames(&mut self, fate: Fate, frames: FrameSet) {
        if frames.contains(FrameKind::HandshakeDone) {
            self.done.settle(fate);
        }
        for kind in CONN_FRAMES {
            if frames.contains(kind) {
                self.streams.on_frame_fate(kind, fate);
            }
        }
    }

    /// Has what a packet said said again, although nobody knows yet that it is lost.
    fn repeat(&mut self, space: Space, frames: FrameSet, records: &[Record]) {
        self.settle_frames(Fate::Lost, frames);
        for record in records {
            // A datagram is never repeated, and an ACK is made anew.
            if !matches!(record, Record::Datagram(_) | Record::Ack(_)) {
                self.settle_record(Fate::Lost, space, record);
            }
        }
    }

    fn settle_record(&mut self, fate: Fate, space: Space, record: &Record) {
        match *record {
            Record::Stream(span) if fate == Fate::Acked => self.on_arrived(&span),
            Record::Ack(largest) if fate == Fate::Acked => self.acks[space.index()].on_ack_of_ack(largest),
            Record::Ack(_) => {}
            _ => {
                self.tell_arrived();
                self.settle_other(fate, record);
            }
        }
    }

    fn settle_other(&mut self, fate: Fate, record: &Record) {
        match *record {
            Record::Stream(span) => {
                if fate == Fate::Lost {
                    self.stats.rare.retransmitted_bytes += u64::from(span.len);
                }
                self.streams.on_span(fate, &span, self.pool);
            }
            Record::Ack(_) => {}
            Record::Crypto { level, offset, len } => {
                let crypto = match level {
                    Level::Initial => self.handshake.as_deref_mut().map(|h| &mut h.crypto[0]),
                    Level::Handshake => self.handshake.as_deref_mut().map(|h| &mut h.crypto[1]),
                    _ => self.late_crypto.as_deref_mut(),
                };
                if let Some(crypto) = crypto {
                    crypto.settle(fate, offset, len, self.pool);
                }
            }
            Record::ResetStream(id) => self.streams.on_reset_fate(id, fate, self.pool),
            Record::ResetStreamAt { id, reliable_size } => {
                self.streams.on_reset_at_fate(id, reliable_size, fate, self.pool);
            }
            Record::StopSending(id) => self.streams.on_stop_fate(id, fate, self.pool),
            Record::MaxStreamData(id) => self.streams.on_max_stream_data_fate(id, fate),
            Record::StreamDataBlocked(id) => self.streams.on_blocked_fate(id, fate),
            Record::Item(id) => match fate {
                Fate::Lost => self.control.mark_lost(id, None),
                Fate::Acked | Fate::Discarded => self.control.release(id),
            },
            Record::AckFrequency(sequence) => self.tolerance.settle(fate, sequence),
            Record::Datagram(number) => self.datagrams.settle(fate, number),
        }
    }
}

/// Tells an observer about fates; costs one test of a bit when nobody wants them.
struct Watch<'a> {
    interest: Interest,
    observer: Option<&'a mut Box<dyn Observer>>,
    key: crate::ids::ConnKey,
    now: Instant,
}

impl Watch<'_> {
    fn fate(&mut self, fate: Fate, settled: &Settled<'_>) {
        if self.interest.wants(Kind::PacketFate)
            && let Some(observer) = self.observer.as_mut()
        {
            let p = settled.packet;
            let event = Observed::PacketFate {
                level: p.level,
                pn: settled.pn,
                size: p.size,
                fate,
                spurious: settled.spurious,
                overtaken: settled.overtaken,
                mtu_probe: p.mtu_probe,
            };
            observer.on(self.now, self.key, &event);
        }
    }
}

/// Splits a connection into recovery with its path, and the owners; and an environment into pool and observer.
macro_rules! split {
    ($conn:expr, $env:expr, $now:expr => $owners:ident, $watch:ident) => {
        #[allow(unused_mut)]
        let mut $owners = Owners {
            acks: &mut $conn.acks,
            streams: &mut $conn.streams,
            control: &mut $conn.control,
            datagrams: &mut $conn.datagrams,
            done: &mut $conn.handshake_done,
            tolerance: &mut $conn.tolerance,
            handshake: $conn.handshake.as_deref_mut(),
            late_crypto: $conn.late_crypto.as_deref_mut(),
            stats: &mut $conn.stats,
            pool: &mut $env.pool,
            arrived: None,
        };
        #[allow(unused_mut)]
        let mut $watch = Watch { interest: $env.interest, observer: $env.observer.as_mut(), key: $conn.key, now: $now };
    };
}

impl Connection {
    /// What recovery has to know of the connection.
    pub(super) fn recovery_context(&self) -> Context {
        Context {
            path: self.path.id,
            first: self.standby.first_numbers(&self.path),
            max_ack_delay: self.tolerance.max_delay(),
            handshake_confirmed: self.confirmed,
            has_handshake_keys: self.keys.has_send(Level::Handshake),
            peer_validated_address: self.side.is_server()
                || self.confirmed
                || self.recovery.largest_acked(Space::Handshake).is_some(),
            // A probe of the handshake is a full datagram; less room than that is none.
            amplification_blocked: self.side.is_server() && self.path.room() < 1200,
        }
    }

    /// Handles an ACK frame, or several that were merged.
    pub(super) fn process_acks(
        &mut self,
        env: &mut Env,
        now: Instant,
        ranges: &AckRanges,
    ) -> Result<(), PeerViolation> {
        self.check_not_rejected(ranges)?;
        let cx = self.recovery_context();
        let outcome = {
            split!(self, env, now => owners, watch);
            let outcome = self.recovery.on_ack(now, ranges, &mut self.path.rtt, &cx, &mut |fate, settled| {
                watch.fate(fate, &settled);
                owners.settle(fate, &settled);
            });
            owners.tell_arrived();
            outcome
        };
        let outcome = outcome?;
        self.on_outcome(env, now, &outcome, Some(ranges));
        Ok(())
    }

    /// The loss detection timer fired.
    pub(super) fn on_loss_timer(&mut self, env: &mut Env, now: Instant) {
        let cx = self.recovery_context();
        let outcome = {
            split!(self, env, now => owners, watch);
            self.recovery.on_timeout(now, &mut self.path.rtt, &cx, &mut |fate, settled| {
                watch.fate(fate, &settled);
                owners.settle(fate, &settled);
            })
        };
        match outcome {
            TimeoutOutcome::NotDue => {}
            TimeoutOutcome::Lost(outcome) => self.on_outcome(env, now, &outcome, None),
            TimeoutOutcome::Probe { space, count } => {
                self.stats.rare.ptos += 1;
                self.probes[space.index()] = self.probes[space.index()].max(count);
                self.prepare_probe(env, space);
                self.probe_beside(env, space);
                self.probe_for_lost_crypto();
                if self.recovery.pto_count() >= BLACK_HOLE_PTOS && self.path.pmtud.on_timeouts() {
                    self.apply_mtu(now);
                }
                if self.confirmed && self.side.is_client() && !self.path.is_validated() {
                    // Perhaps the peer has no connection ID of ours left for where we are.
                    if self.recovery.pto_count().is_multiple_of(UNANSWERED_PTOS) {
                        let _ = self.local_cids.replace();
                    }
                    self.repeat_connection_ids();
                }
                if self.recovery.pto_count() >= MARKS_PTOS {
                    // Perhaps the path loses what is marked.
                    self.path.ecn.end_testing();
                }
                let count = self.recovery.pto_count();
                env.observe(now, self.key, Kind::Congestion, || Observed::ProbeTimeout { space, count });
                self.observe_metrics(env, now);
            }
        }
    }

    /// What was sent as 0-RTT was for nothing: a Retry came, or a rejection. It is pending again; datagrams are lost.
    pub(super) fn abandon_early(&mut self, env: &mut Env, now: Instant) {
        let freed = {
            split!(self, env, now => owners, watch);
            self.recovery.abandon(now, Level::ZeroRtt, &mut |fate, settled| {
                watch.fate(fate, &settled);
                for record in settled.records {
                    owners.settle_record(fate, settled.space, record);
                }
            })
        };
        self.on_freed(&freed);
    }

    /// The peer may have keys for one of two spaces only: what is in flight in the others goes along, in the same datagram
    /// where that has room.
    fn probe_beside(&mut self, env: &mut Env, space: Space) {
        if self.confirmed {
            return;
        }
        //= rfc9002#6.2.4-3
        for (other, level) in [(Space::Handshake, Level::Handshake), (Space::Data, Level::OneRtt)] {
            let waits = self.recovery.eliciting_in_flight(other) > 0 && self.keys.has_send(level);
            if other != space && waits {
                self.probes[other.index()] = self.probes[other.index()].max(1);
                self.prepare_probe(env, other);
            }
        }
    }

    /// Handshake data that was declared lost may wait in a space with nothing in flight, so without a timer, while packets
    /// that the peer cannot read fill the window: it leaves together with the probe of another space.
    fn probe_for_lost_crypto(&mut self) {
        let Some(handshake) = &self.handshake else { return };
        for (i, level) in [Level::Initial, Level::Handshake].into_iter().enumerate() {
            if handshake.crypto[i].has_data() && self.keys.has_send(level) {
                self.probes[i] = self.probes[i].max(1);
            }
        }
    }

    /// Makes sure that a probe has something useful to say: new data goes first, else what was in the oldest packet.
    fn prepare_probe(&mut self, env: &mut Env, space: Space) {
        match space {
            Space::Initial | Space::Handshake => {
                if let Some(handshake) = &mut self.handshake {
                    handshake.crypto[space.index()].repeat_unacked();
                }
            }
            Space::Data => {
                if self.streams.has_data() {
                    return;
                }
                split!(self, env, Instant::ZERO => owners, watch);
                let _ = &watch;
                self.recovery.repeat_oldest(space, &mut |frames, records| {
                    owners.repeat(space, frames, records);
                });
            }
        }
    }

    /// Sums of acknowledged and lost bytes go to congestion control, in the order that keeps its episodes right.
    fn on_outcome(&mut self, env: &mut Env, now: Instant, outcome: &AckOutcome, ranges: Option<&AckRanges>) {
        self.note_app_limit();
        let path = &mut self.path;
        let tally = &outcome.paths[path.id.slot()];
        let handshake = ranges.is_some_and(|r| r.space() != Space::Data);
        if apply_tally(path, now, outcome, true, handshake) {
            self.stats.rare.congestion_events += 1;
        }
        //= rfc9000#9.4-1
        for other in self.standby.iter_mut() {
            apply_tally(other, now, outcome, false, handshake);
        }
        if let Some(ranges) = ranges {
            let ce = path.ecn.on_ack(ranges.space(), tally.acked_ect, ranges.ecn(), outcome.largest_increased);
            // Marks may be those of packets that left on another path.
            let all_ours = outcome.paths.iter().all(|t| t.acked_ect == 0 || core::ptr::eq(t, tally));
            if let Some(sent) = tally.acked_sent.filter(|_| ce > 0 && all_ours) {
                self.stats.rare.congestion_events += 1;
                path.congestion.on_ecn_ce(now, sent, tally.acked_oldest.unwrap_or(sent));
            }
        }
        if tally.lost_ect > 0 {
            path.ecn.on_lost(tally.lost_ect);
        }
        if outcome.paths[0].lost_sent.is_some() && !self.window_allows() {
            // Packets that the peer cannot read before this arrived may fill the window for good, and no timer runs for them.
            self.probe_for_lost_crypto();
        }
        self.path.update_pacer(now);
        self.on_mtu_outcome(now, outcome);
        // Streams buffer what some round trips take of what was really in flight, for a window that nobody fills says nothing:
        // the flight itself, what waits behind a hole until the repair is acknowledged, and in slow start the double flight.
        let flights = if self.path.congestion.in_slow_start() { 4 } else { 3 };
        self.streams.set_send_target(flights * self.path.congestion.peak());
        self.observe_metrics(env, now);
    }

    fn on_mtu_outcome(&mut self, now: Instant, outcome: &AckOutcome) {
        let mut changed = false;
        //= rfc8899#4.1-2
        if let Some((_, size)) = outcome.mtu_acked {
            changed = self.path.pmtud.on_probe_acked(now, size);
        }
        if let Some((_, size)) = outcome.mtu_lost {
            self.path.pmtud.on_probe_lost(now, size, false);
        }
        if outcome.acked_size_max > crate::config::MIN_DATAGRAM {
            self.path.pmtud.on_acked(outcome.acked_size_max);
        } else {
            for _ in 0..outcome.lost_large.min(16) {
                changed |= self.path.pmtud.on_lost(now, self.path.pmtud.current(), false);
            }
        }
        if changed {
            self.apply_mtu(now);
        }
    }

    pub(super) fn apply_mtu(&mut self, now: Instant) {
        let mtu = self.path.pmtud.current();
        self.path.congestion.set_mtu(mtu);
        self.path.update_pacer(now);
        self.streams.set_full_frame(self.datagram_room() as u64);
        self.datagrams.drop_oversized(self.datagram_room());
    }

    /// Packets left the flight without saying anything about the path.
    pub(super) fn on_freed(&mut self, freed: &Freed) {
        self.path.congestion.on_discarded(freed.bytes[self.path.id.slot()]);
    }
}

/// Tells a path's congestion control what became of its packets, those of the handshake or others. Returns whether the
/// window shrank.
fn apply_tally(path: &mut Path, now: Instant, outcome: &AckOutcome, in_use: bool, handshake: bool) -> bool {
    let tally = &outcome.paths[path.id.slot()];
    let before = path.congestion.window();
    if let Some(sent) = tally.lost_sent {
        //= rfc9000#13.3-7
        let persistent = in_use && outcome.persistent_congestion;
        let loss = LossSample { bytes: tally.lost_bytes, sent, ranges: tally.lost_runs.0, persistent };
        path.congestion.on_lost(now, &loss);
    }
    let shrank = path.congestion.window() < before;
    if tally.released_bytes > 0 {
        path.congestion.on_discarded(tally.released_bytes);
    }
    if let Some(sent) = tally.acked_sent {
        let sample = AckSample {
            bytes: tally.acked_bytes,
            sent,
            rtt: RttSnapshot {
                latest: path.rtt.latest(),
                fresh: in_use && outcome.rtt_sampled,
                smoothed: path.rtt.smoothed(),
                min: path.rtt.min(),
            },
        };
        if handshake {
            path.congestion.on_handshake_acked(now, &sample);
        } else {
            path.congestion.on_acked(now, &sample);
        }
    }
    if let Some(sent) = tally.spurious_sent {
        path.congestion.on_spurious(tally.spurious_bytes, sent);
    }
    shrank
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;

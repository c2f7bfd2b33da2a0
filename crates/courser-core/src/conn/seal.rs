//! From packets in plaintext to a sealed train (the record layer).
//!
//! [`Connection::finish_datagram`] takes the packets of one datagram: it completes their headers, counts them against the
//! limits of their keys and commits to them, that is, recovery, congestion control and pacing know them from now on. The
//! bytes stay in plaintext at their place in the train until [`Connection::seal_train`] seals all that wait, in runs of
//! one key.
//!
//! Invariants: packets lie in the train back to back, in the order in which they wait; whoever drops keys, or hands the
//! train out, seals first; between the first packet of a train and its end no key changes; stream data that was not
//! copied stays in the send buffer, because nothing is received and nothing acknowledged meanwhile. A train that cannot
//! be sealed never leaves, and its connection closes.

use super::transmit::{Built, INITIAL_DATAGRAM_MIN, Turn};
use super::{Connection, Env};
use crate::crypto::{Head, Sealing};
use crate::error::{CloseReason, PeerViolation, TransportCode};
use crate::ids::{Level, PacketNumber, Space};
use crate::observe::{Event as Observed, Kind};
use crate::packetiser::{TRAIN_DATAGRAMS_MAX, Train, TrainMeta};
use crate::protect::SealError;
use crate::spans::{SentPacket, StreamSpan};
use crate::time::Instant;
use crate::wire::header;
use crate::wire::legality::DatagramRules;

/// Packets that are sealed by one call. As many as the first cache holds beside their sources; a larger batch gains
/// nothing.
const BATCH: usize = 16;

/// A packet in plaintext at its place in the train.
struct Plain {
    level: Level,
    pn: PacketNumber,
    head: Head,
    /// Bytes of the whole packet, with room for tail and tag.
    len: usize,
    tail: Option<StreamSpan>,
}

/// Packets of the train under construction that wait to be sealed.
pub(crate) struct Unsealed {
    packets: Vec<Plain>,
    /// Where in the train the first of them begins.
    from: usize,
}

impl Unsealed {
    /// Nothing, and room for a train of full datagrams.
    pub(crate) fn with_room() -> Self {
        Self { packets: Vec::with_capacity(TRAIN_DATAGRAMS_MAX), from: 0 }
    }

    /// Begins a new train.
    pub(super) fn clear(&mut self) {
        self.packets.clear();
        self.from = 0;
    }
}

/// What [`Connection::finish_datagram`] made.
pub(super) struct Datagram {
    /// Its bytes.
    pub(super) len: usize,
    /// After it the Initial keys are of no use any more.
    pub(super) ends_initial: bool,
}

impl Connection {
    /// Completes the packets of a datagram and commits to them; they are sealed with their train.
    pub(super) fn finish_datagram(
        &mut self,
        env: &mut Env,
        turn: &Turn,
        packets: &[Option<Built>],
        slot: &mut [u8],
    ) -> Option<Datagram> {
        let mut len = 0;
        for built in packets.iter().flatten() {
            let end = built.start + built.len();
            if let Err(error) = self.finish_packet(env, turn.now, built, &mut slot[built.start..end]) {
                self.on_seal_error(turn.now, error);
                return None;
            }
            len = end;
        }
        if len == 0 {
            return None;
        }
        if cfg!(debug_assertions) || env.interest.wants(Kind::DatagramBuilt) {
            let rules = self.rules_of(len, packets.iter().flatten().any(|b| b.mtu_probe));
            if cfg!(debug_assertions) {
                self.assert_legal(env, packets, &slot[..len], &rules);
            }
            self.observe_datagram(env, turn.now, &rules);
        }
        self.path.amplification.on_sent(len);
        for built in packets.iter().flatten() {
            let Built { level, pn, head, .. } = *built;
            env.unsealed.packets.push(Plain { level, pn, head, len: built.len(), tail: built.draft.tail });
            self.commit(env, turn, built);
        }
        self.stats.sent.datagrams += 1;
        self.stats.sent.bytes += len as u64;
        self.last_sent = turn.now;
        let handshake_sent = packets.iter().flatten().any(|b| b.level == Level::Handshake);
        Some(Datagram { len, ends_initial: handshake_sent && self.side.is_client() })
    }

    /// What a datagram of that length has to keep to. The larger size that a probe asks for is its own limit.
    fn rules_of(&self, len: usize, mtu_probe: bool) -> DatagramRules {
        DatagramRules {
            sender: self.side,
            len,
            len_max: if mtu_probe { len } else { self.path.pmtud.current().into() },
            amplification_limited: self.path.amplification.room() < INITIAL_DATAGRAM_MIN,
        }
    }

    fn observe_datagram(&self, env: &mut Env, now: Instant, rules: &DatagramRules) {
        let DatagramRules { sender: from, len, len_max, amplification_limited: limited } = *rules;
        env.observe(now, self.key, Kind::DatagramBuilt, || Observed::DatagramSealed { from, len, len_max, limited });
    }

    fn finish_packet(
        &mut self,
        env: &mut Env,
        now: Instant,
        built: &Built,
        packet: &mut [u8],
    ) -> Result<(), SealError> {
        if let Some(layout) = built.layout {
            let len = packet.len();
            header::patch_length(packet, layout, len).ok_or(SealError::Failed)?;
        }
        if env.interest.wants(Kind::DatagramBuilt)
            && let Some(observer) = &mut env.observer
        {
            env.payload.clear();
            env.payload.extend_from_slice(&packet[built.head.payload_at..built.written]);
            if let Some(span) = &built.draft.tail {
                env.payload.extend_from_slice(self.streams.slice(span));
            }
            let event = Observed::DatagramBuilt {
                level: built.level,
                pn: built.pn,
                header: &packet[..built.head.payload_at],
                packet_len: packet.len(),
                mtu_probe: built.mtu_probe,
                recorded: built.draft.frames,
                payload: &env.payload,
            };
            observer.on(now, self.key, &event);
        }
        self.keys.count_sealed(built.level, built.pn)
    }

    /// A packet is on its way: recovery and congestion control learn of it.
    fn commit(&mut self, env: &mut Env, turn: &Turn, built: &Built) {
        let space = built.level.space();
        let frames = built.draft.frames;
        let eliciting = frames.is_ack_eliciting();
        let size = built.len();
        let packet = SentPacket {
            time: turn.now,
            frames,
            size: u16::try_from(size).unwrap_or(u16::MAX),
            level: built.level,
            path: self.path.id,
            ack_eliciting: eliciting,
            in_flight: frames.is_in_flight(),
            mtu_probe: built.mtu_probe,
            ect: turn.ect,
        };
        self.recovery.on_packet_sent(space, built.pn, &packet, &env.records[built.records.clone()]);
        if packet.in_flight {
            if self.path.congestion.on_sent(turn.now, size as u64) {
                self.path.update_pacer(turn.now);
            }
            self.path.pacer.on_sent(turn.now, size as u64);
        }
        if turn.ect {
            self.path.ecn.on_sent();
        }
        if eliciting {
            self.probes[space.index()] = self.probes[space.index()].saturating_sub(1);
            self.ping &= space != Space::Data;
            //= rfc9000#10.1-1
            if !core::mem::replace(&mut self.eliciting_since_receive, true) {
                self.last_activity = turn.now;
            }
        }
        self.ack_ping.on_sent(eliciting, built.pn as u8);
        self.stats.sent.packets += 1;
        self.log.sent(turn.now, built.level, built.pn, size);
        let (level, pn) = (built.level, built.pn);
        env.observe(turn.now, self.key, Kind::PacketSent, || Observed::PacketSent { level, pn, size, frames });
    }

    /// Seals what waits in the train.
    pub(super) fn seal_train(&mut self, env: &mut Env, train: &mut Train) -> Result<(), SealError> {
        let mut bytes = train.bytes_from(env.unsealed.from);
        let mut waiting = &env.unsealed.packets[..];
        while let Some(first) = waiting.first() {
            let run = waiting.iter().take(BATCH).take_while(|p| p.level == first.level).count();
            let (batch, later) = waiting.split_at(run);
            bytes = self.seal_run(first.level, batch, bytes)?;
            waiting = later;
        }
        debug_assert!(bytes.is_empty(), "every byte of the train belongs to a packet that waited");
        env.unsealed.packets.clear();
        env.unsealed.from = train.len();
        Ok(())
    }

    /// Seals packets of one key; returns the bytes behind them.
    fn seal_run<'t>(&self, level: Level, batch: &[Plain], mut bytes: &'t mut [u8]) -> Result<&'t mut [u8], SealError> {
        let mut sealing: [Sealing<'_>; BATCH] = Default::default();
        for (place, plain) in sealing.iter_mut().zip(batch) {
            let (packet, rest) = bytes.split_at_mut_checked(plain.len).ok_or(SealError::Failed)?;
            let tail: &[u8] = plain.tail.as_ref().map_or(&[], |span| self.streams.slice(span));
            *place = Sealing { pn: plain.pn, packet, head: plain.head, tail };
            bytes = rest;
        }
        self.keys.seal_batch(level, &mut sealing[..batch.len()])?;
        Ok(bytes)
    }

    /// A client that has sent a Handshake packet needs no Initial keys any more.
    pub(super) fn leave_initial(&mut self, env: &mut Env, now: Instant, train: &mut Train) -> Result<(), SealError> {
        self.seal_train(env, train)?;
        //= rfc9001#4.9.1-1
        self.discard(env, now, Level::Initial);
        Ok(())
    }

    /// Seals a train and says where it goes.
    pub(super) fn finish_train(
        &mut self,
        env: &mut Env,
        turn: &Turn,
        train: &mut Train,
        segment: usize,
    ) -> Option<TrainMeta> {
        match self.seal_train(env, train) {
            Ok(()) => Some(self.train_meta(train, segment, turn.ect)),
            Err(error) => self.fail_train(env, turn.now, train, error),
        }
    }

    /// The train stays here, and the connection closes; the peer hears of it if that can be sealed.
    pub(super) fn fail_train(
        &mut self,
        env: &mut Env,
        now: Instant,
        train: &mut Train,
        error: SealError,
    ) -> Option<TrainMeta> {
        train.clear();
        env.unsealed.clear();
        self.on_seal_error(now, error);
        self.fill_close(env, now, train)
    }

    fn on_seal_error(&mut self, now: Instant, error: SealError) {
        match error {
            SealError::Exhausted => {
                let reason = "the packet protection key is used up";
                self.fail(now, PeerViolation::new(TransportCode::AEAD_LIMIT_REACHED, reason, "rfc9001#6.6"));
            }
            SealError::NoKeys | SealError::Failed => {
                self.begin_close(now, CloseReason::Internal("a packet could not be sealed"));
            }
        }
    }
}

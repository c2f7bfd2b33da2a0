//! Frames of an opened packet go to their owners.

use core::time::Duration;

use super::{Connection, Env, Event, RouteChange};
use crate::ack::merge::{AckInfo, Merge};
use crate::cid::STORED_MAX;
use crate::error::{CloseReason, PeerViolation, TransportCode};
use crate::ids::{Cid, Level, PathId, ResetToken, Space};
use crate::stream::PartialReset;
use crate::time::Instant;
use crate::wire::frame::{Ack, Frame};

/// The packet that a frame came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carrier {
    pub(super) level: Level,
    pub(super) dcid: Cid,
    /// Key generation, for the rules of key updates.
    pub(super) generation: u64,
    /// When its datagram arrived.
    pub(super) received: Instant,
    /// The path that it came on.
    pub(super) path: PathId,
}

impl Connection {
    pub(super) fn on_frame(
        &mut self,
        env: &mut Env,
        now: Instant,
        carrier: &Carrier,
        frame: Frame<'_>,
    ) -> Result<(), PeerViolation> {
        let pool = &mut env.pool;
        match frame {
            Frame::Stream { id, offset, data, fin, .. } => {
                self.streams.on_stream(id, offset, data, fin, pool)?;
                if carrier.level == Level::ZeroRtt {
                    self.streams.mark_early(id);
                }
                Ok(())
            }
            Frame::Ack(ack) => self.on_ack_frame(env, carrier, &ack),
            Frame::Padding(_) | Frame::Ping => Ok(()),
            Frame::Crypto { offset, data } => self.on_crypto(env, now, carrier.level, offset, data),
            Frame::ResetStream { id, code, final_size } => self.streams.on_reset_stream(id, code, final_size, pool),
            Frame::StopSending { id, code } => self.streams.on_stop_sending(id, code, pool),
            Frame::MaxData { max } => {
                self.streams.on_max_data(max);
                Ok(())
            }
            Frame::MaxStreamData { id, max } => self.streams.on_max_stream_data(id, max),
            Frame::MaxStreams { dir, max } => self.streams.on_max_streams(dir, max),
            Frame::DataBlocked { limit } => {
                self.streams.on_data_blocked(limit);
                Ok(())
            }
            Frame::StreamDataBlocked { id, limit } => self.streams.on_stream_data_blocked(id, limit),
            Frame::StreamsBlocked { dir, limit } => self.streams.on_streams_blocked(dir, limit),
            Frame::NewConnectionId { sequence, retire_prior_to, cid, token } => {
                self.on_new_connection_id(sequence, retire_prior_to, cid, token)
            }
            Frame::RetireConnectionId { sequence } => {
                if let Some(gone) = self.local_cids.retire(sequence, &carrier.dcid)? {
                    self.routes.push(RouteChange::Remove(gone));
                }
                Ok(())
            }
            Frame::ResetStreamAt { id, code, final_size, reliable_size } => {
                let reset = PartialReset { code, reliable_size };
                self.streams.on_reset_stream_at(id, reset, final_size, pool)
            }
            other => self.on_rare_frame(env, now, carrier, other),
        }
    }

    fn on_rare_frame(
        &mut self,
        env: &mut Env,
        now: Instant,
        carrier: &Carrier,
        frame: Frame<'_>,
    ) -> Result<(), PeerViolation> {
        match frame {
            //= rfc9000#8.2.2-3
            Frame::PathChallenge(data) => {
                if let Some(path) = self.path_mut(carrier.path) {
                    //= rfc9000#8.2.1-6
                    path.responses.push(data);
                }
            }
            Frame::PathResponse(data) => self.on_path_response(env, now, data),
            Frame::HandshakeDone => {
                //= rfc9000#19.20-2
                if self.side.is_server() {
                    return Err(violation("a client sent HANDSHAKE_DONE", "rfc9000#19.20"));
                }
                self.confirm(env, now);
            }
            Frame::NewToken { token } => {
                //= rfc9000#19.7-3
                if self.side.is_server() {
                    return Err(violation("a client sent NEW_TOKEN", "rfc9000#19.7"));
                }
                if self.new_token.replace(token.into()).is_none() {
                    self.events.push_back(Event::NewToken);
                }
            }
            Frame::Datagram { data, .. } => {
                if self.datagrams.on_datagram(data) {
                    self.events.push_back(Event::DatagramReceived);
                }
            }
            Frame::ConnectionClose { code, frame_type, reason } => {
                self.flush_acks(env, now)?;
                let reason = CloseReason::PeerTransport { code, frame_type, reason: reason.to_vec() };
                self.on_peer_close(now, reason);
            }
            Frame::ApplicationClose { code, reason } => {
                // What the peer acknowledged beside its close still counts.
                self.flush_acks(env, now)?;
                self.on_peer_close(now, CloseReason::PeerApplication { code, reason: reason.to_vec() });
            }
            Frame::AckFrequency { sequence, eliciting_threshold, max_ack_delay_us, reordering_threshold } => {
                let max_delay = Duration::from_micros(max_ack_delay_us);
                let acks = &mut self.acks[Space::Data.index()];
                acks.on_wishes(sequence, eliciting_threshold, max_delay, reordering_threshold);
            }
            Frame::ImmediateAck => self.acks[carrier.level.space().index()].demand(now),
            _ => debug_assert!(false, "{frame:?} has an owner"),
        }
        Ok(())
    }

    pub(super) fn on_new_connection_id(
        &mut self,
        sequence: u64,
        retire_prior_to: u64,
        cid: Cid,
        token: ResetToken,
    ) -> Result<(), PeerViolation> {
        let before = self.used_tokens();
        self.remote_cids.on_new(sequence, retire_prior_to, cid, token)?;
        self.note_tokens(before);
        Ok(())
    }

    /// Reset tokens that count now.
    pub(super) fn used_tokens(&self) -> [Option<ResetToken>; STORED_MAX] {
        let mut used = [None; STORED_MAX];
        for (place, token) in used.iter_mut().zip(self.remote_cids.tokens()) {
            *place = Some(token);
        }
        used
    }

    /// Brings the routes of reset tokens up to date when others count than before.
    pub(super) fn note_tokens(&mut self, before: [Option<ResetToken>; STORED_MAX]) {
        if !before.into_iter().flatten().eq(self.remote_cids.tokens()) {
            self.routes.extend(before.into_iter().flatten().map(RouteChange::RemoveToken));
            self.routes.extend(self.remote_cids.tokens().map(RouteChange::AddToken));
        }
    }

    /// ACK frames of 1-RTT packets are merged until the tick; earlier spaces are handled at once.
    fn on_ack_frame(&mut self, env: &mut Env, carrier: &Carrier, ack: &Ack<'_>) -> Result<(), PeerViolation> {
        let space = carrier.level.space();
        let exponent = u32::from(self.manner.ack_delay_exponent);
        let delay = if space == Space::Data { ack.delay.checked_shl(exponent).unwrap_or(u64::MAX) } else { 0 };
        let info = AckInfo { space, delay: Duration::from_micros(delay), ecn: ack.ecn, received: carrier.received };
        if space != Space::Data {
            let mut ranges = core::mem::take(&mut env.early_acks);
            ranges.restart(info, ack.ranges);
            let result = self.process_acks(env, carrier.received, &ranges);
            env.early_acks = ranges;
            return result;
        }
        self.stats.ack_frames += 1;
        self.tolerance.on_ack();
        let keep = self.pto() * crate::protect::KEEP_OLD_KEYS_PTOS;
        self.keys.on_ack(carrier.received, ack.largest, carrier.generation, keep)?;
        if env.merging != Some(self.key) {
            debug_assert!(env.merge.is_empty(), "the engine flushes before another connection receives");
            env.merging = Some(self.key);
        }
        let ranges = ack.ranges;
        if env.merge.merge(info, ranges) == Merge::MustFlush {
            self.flush_acks(env, carrier.received)?;
            env.merging = Some(self.key);
            let merged = env.merge.merge(info, ranges);
            debug_assert!(merged != Merge::MustFlush, "an empty set takes any frame");
        }
        Ok(())
    }

    /// Handles the merged ACK frames; a violation in them closes the connection.
    pub(crate) fn flush_or_fail(&mut self, env: &mut Env, now: Instant) {
        if let Err(violation) = self.flush_acks(env, now) {
            self.fail(now, violation);
        }
    }

    /// Handles the merged ACK frames.
    pub(super) fn flush_acks(&mut self, env: &mut Env, now: Instant) -> Result<(), PeerViolation> {
        if env.merging != Some(self.key) {
            return Ok(());
        }
        env.merging = None;
        let mut merged = core::mem::take(&mut env.merge);
        let result = if merged.is_empty() { Ok(()) } else { self.process_acks(env, now, &merged) };
        merged.clear();
        env.merge = merged;
        self.stats.ack_runs += 1;
        result
    }
}

fn violation(reason: &'static str, section: &'static str) -> PeerViolation {
    PeerViolation::new(TransportCode::PROTOCOL_VIOLATION, reason, section)
}

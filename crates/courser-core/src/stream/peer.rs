//! What the peer's frames do to the streams. Everything here is judged before it is believed.

use super::entry::Repeat;
use super::events::StreamEvent;
use super::map::Streams;
use super::partial::check_partial;
use super::phase::{RecvPhase, SendPhase};
use crate::buf::{ChunkPool, InsertError, reassembly};
use crate::error::{PeerViolation, TransportCode};
use crate::ids::{Dir, StreamId, VARINT_MAX};

/// Streams with at least this window get large chunks.
const BULK_WINDOW: u64 = 1 << 20;

pub(super) const fn state_error(reason: &'static str, section: &'static str) -> PeerViolation {
    PeerViolation::new(TransportCode::STREAM_STATE_ERROR, reason, section)
}

pub(super) const fn flow_error(reason: &'static str) -> PeerViolation {
    PeerViolation::new(TransportCode::FLOW_CONTROL_ERROR, reason, "rfc9000#4.1")
}

impl Streams {
    /// A STREAM frame.
    ///
    /// # Errors
    /// STREAM_STATE_ERROR, STREAM_LIMIT_ERROR, FLOW_CONTROL_ERROR, FINAL_SIZE_ERROR; PROTOCOL_VIOLATION for more gaps than
    /// honest networks make; INTERNAL_ERROR when memory is at its limit.
    pub fn on_stream(
        &mut self,
        id: StreamId,
        offset: u64,
        data: &[u8],
        fin: bool,
        pool: &mut ChunkPool,
    ) -> Result<(), PeerViolation> {
        if !id.receives(self.side) {
            //= rfc9000#19.8-1
            return Err(state_error("STREAM for a send-only stream", "rfc9000#19.8"));
        }
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= VARINT_MAX).ok_or(PeerViolation::new(
            TransportCode::FLOW_CONTROL_ERROR,
            "a stream is at most 2^62 - 1 bytes long",
            "rfc9000#19.8",
        ))?;
        let Some(slot) = self.peer_slot(id)? else { return Ok(()) };
        let more = {
            let recv = &mut self.table[slot].recv;
            if end > recv.credit.limit() {
                //= rfc9000#4.1-2, rfc9000#19.10-4
                return Err(flow_error("more data than the stream's credit"));
            }
            recv.state.on_frame(end, fin)?
        };
        self.count_received(more)?;
        match self.table[slot].recv.state.phase() {
            _ if self.table[slot].recv.stop != Repeat::Idle => {
                self.on_consumed(slot, more);
                self.tell_metered(slot);
                self.update_control(slot);
                self.free_if_done(slot, pool);
                Ok(())
            }
            RecvPhase::Recv | RecvPhase::SizeKnown { .. } => self.keep(slot, offset, data, pool),
            _ => Ok(()),
        }
    }

    /// A RESET_STREAM frame.
    ///
    /// # Errors
    /// STREAM_STATE_ERROR, STREAM_LIMIT_ERROR, FLOW_CONTROL_ERROR, FINAL_SIZE_ERROR.
    pub fn on_reset_stream(
        &mut self,
        id: StreamId,
        code: u64,
        final_size: u64,
        pool: &mut ChunkPool,
    ) -> Result<(), PeerViolation> {
        if !id.receives(self.side) {
            //= rfc9000#19.4-1
            return Err(state_error("RESET_STREAM for a send-only stream", "rfc9000#19.4"));
        }
        let Some(slot) = self.peer_slot(id)? else { return Ok(()) };
        let recv = &mut self.table[slot].recv;
        if final_size > recv.credit.limit() {
            return Err(flow_error("a final size beyond the stream's credit"));
        }
        check_partial(recv.partial.as_deref(), code)?;
        let open = matches!(recv.state.phase(), RecvPhase::Recv | RecvPhase::SizeKnown { .. });
        //= rfc9000#4.5-1
        let more = recv.state.on_reset(code, final_size)?;
        self.count_received(more)?;
        if open {
            self.discard_received(slot, pool);
            self.table[slot].recv.stop.on_fate(true);
            self.tell_readable(slot);
            self.update_control(slot);
            self.free_if_done(slot, pool);
        }
        Ok(())
    }

    /// A STOP_SENDING frame: the stream is reset with the same code.
    ///
    /// # Errors
    /// STREAM_STATE_ERROR, STREAM_LIMIT_ERROR.
    pub fn on_stop_sending(&mut self, id: StreamId, code: u64, pool: &mut ChunkPool) -> Result<(), PeerViolation> {
        if !id.sends(self.side) {
            //= rfc9000#19.5-2
            return Err(state_error("STOP_SENDING for a receive-only stream", "rfc9000#19.5"));
        }
        //= rfc9000#19.5-1
        let Some(slot) = self.peer_slot(id)? else { return Ok(()) };
        let send = &mut self.table[slot].send;
        if send.stopped != 0 || !send.phase.may_send() {
            return Ok(());
        }
        send.stopped = code.saturating_add(1);
        self.events.push(StreamEvent::Stopped { id, code });
        let send = &self.table[slot].send;
        // When all of it is in flight it may well arrive; RESET_STREAM follows only if some is lost.
        // A partial reset is replaced at once: nobody wants what it promises.
        if send.phase != SendPhase::DataSent || send.state.has_lost() || send.partial.is_some() {
            //= rfc9000#3.5-2, rfc9000#3.5-4
            //= reset-stream-at#5.4-1
            self.reset_slot(slot, code, pool);
        }
        Ok(())
    }

    /// A MAX_DATA frame.
    pub fn on_max_data(&mut self, max: u64) {
        if self.send_credit.raise(max) {
            // Once around: who lacks credit of its own leaves the list, so this ends.
            for _ in 0..self.active.blocked() {
                if let Some(slot) = self.active.pop_blocked() {
                    self.update_send(slot);
                }
            }
            self.tell_short();
        }
    }

    /// A MAX_STREAM_DATA frame.
    ///
    /// # Errors
    /// STREAM_STATE_ERROR, STREAM_LIMIT_ERROR.
    pub fn on_max_stream_data(&mut self, id: StreamId, max: u64) -> Result<(), PeerViolation> {
        if !id.sends(self.side) {
            //= rfc9000#19.10-2
            return Err(state_error("MAX_STREAM_DATA for a receive-only stream", "rfc9000#19.10"));
        }
        //= rfc9000#19.10-1
        let Some(slot) = self.peer_slot(id)? else { return Ok(()) };
        if self.table[slot].send.credit.raise(max) {
            self.update_control(slot);
            self.update_send(slot);
            self.tell_writable(slot);
        }
        Ok(())
    }

    /// A MAX_STREAMS frame.
    ///
    /// # Errors
    /// FRAME_ENCODING_ERROR for a limit beyond 2^60.
    pub fn on_max_streams(&mut self, dir: Dir, max: u64) -> Result<(), PeerViolation> {
        check_streams(max)?;
        //= rfc9000#4.6-4, rfc9000#19.11-2
        self.raise_streams(dir, max);
        Ok(())
    }

    /// A DATA_BLOCKED frame: the peer is told what it can have, if that is more than it knows.
    pub fn on_data_blocked(&mut self, limit: u64) {
        let credit = &mut self.recv_credit;
        if limit >= credit.limit() && credit.consumed().saturating_add(credit.window()) > limit {
            credit.again();
        }
    }

    /// A STREAM_DATA_BLOCKED frame: the peer is told what it can have, if that is more than it knows.
    ///
    /// # Errors
    /// STREAM_STATE_ERROR, STREAM_LIMIT_ERROR.
    pub fn on_stream_data_blocked(&mut self, id: StreamId, limit: u64) -> Result<(), PeerViolation> {
        if !id.receives(self.side) {
            //= rfc9000#19.13-2
            return Err(state_error("STREAM_DATA_BLOCKED for a send-only stream", "rfc9000#19.13"));
        }
        let Some(slot) = self.peer_slot(id)? else { return Ok(()) };
        let credit = &mut self.table[slot].recv.credit;
        if limit >= credit.limit() && credit.consumed().saturating_add(credit.window()) > limit {
            credit.again();
            self.update_control(slot);
        }
        Ok(())
    }

    /// A STREAMS_BLOCKED frame: the peer is told how many it can have, if that is more than it knows.
    ///
    /// # Errors
    /// FRAME_ENCODING_ERROR for a limit beyond 2^60.
    pub fn on_streams_blocked(&mut self, dir: Dir, limit: u64) -> Result<(), PeerViolation> {
        check_streams(limit)?;
        let remote = &mut self.remote[dir as usize];
        if limit >= remote.limit && remote.closed_count + remote.concurrent > remote.limit {
            remote.lost = true;
        }
        Ok(())
    }

    /// More bytes count against the connection's credit.
    pub(super) fn count_received(&mut self, more: u64) -> Result<(), PeerViolation> {
        self.received = self.received.saturating_add(more);
        if self.received > self.recv_credit.limit() {
            //= rfc9000#4.1-2, rfc9000#19.9-2
            return Err(flow_error("more data than the connection's credit"));
        }
        Ok(())
    }

    /// Keeps received bytes.
    fn keep(&mut self, slot: u32, offset: u64, data: &[u8], pool: &mut ChunkPool) -> Result<(), PeerViolation> {
        if self.table[slot].recv.bytes.is_none() && !data.is_empty() {
            let bytes = self.take_in();
            self.table[slot].recv.bytes = Some(bytes);
        }
        // What one stream may have, and no more than is left of what all of them may have together.
        let cap_of_all = reassembly::range_cap_of_all(self.recv_credit.window());
        let recv = &mut self.table[slot].recv;
        let mut advanced = false;
        // Nothing is kept of what lies behind a partial reset's promise.
        let room = recv.read_limit().map_or(u64::MAX, |limit| limit.saturating_sub(offset));
        let wanted = &data[..usize::try_from(room).unwrap_or(usize::MAX).min(data.len())];
        if let Some(bytes) = recv.bytes.as_mut() {
            let window = recv.credit.window();
            bytes.set_bulk(window >= BULK_WINDOW);
            let (before, gaps) = (bytes.ready(), bytes.gaps());
            let left = cap_of_all.saturating_sub(self.gaps_in - gaps);
            let kept = bytes.insert(offset, wanted, reassembly::range_cap(window).min(left), pool);
            self.gaps_in = self.gaps_in - gaps + bytes.gaps();
            let new = kept.map_err(refused)?;
            self.buffered_in += new;
            advanced = bytes.ready() > before;
        }
        recv.note_ready();
        if advanced || matches!(recv.state.phase(), RecvPhase::DataRecvd { .. }) {
            self.tell_readable(slot);
        }
        self.update_control(slot);
        Ok(())
    }
}

/// What a peer is told whose data could not be kept.
fn refused(error: InsertError) -> PeerViolation {
    match error {
        InsertError::TooFragmented => PeerViolation::new(
            TransportCode::PROTOCOL_VIOLATION,
            "more gaps in streams than a network makes",
            "rfc9000#2.2",
        ),
        InsertError::NoMemory => {
            PeerViolation::new(TransportCode::INTERNAL_ERROR, "memory for received data is at its limit", "rfc9000#4.1")
        }
    }
}

fn check_streams(max: u64) -> Result<(), PeerViolation> {
    if max > 1 << 60 {
        //= rfc9000#19.11-1, rfc9000#19.14-2
        return Err(PeerViolation::new(
            TransportCode::FRAME_ENCODING_ERROR,
            "there are at most 2^60 streams of a kind",
            "rfc9000#4.6",
        ));
    }
    Ok(())
}

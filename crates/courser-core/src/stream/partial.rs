//! Resets, and those that still deliver the beginning of their stream (RESET_STREAM_AT, draft-ietf-quic-reliable-stream-reset).
//!
//! In the states of a stream such a reset is like FIN: it tells the final size, and data goes on until all that it promised
//! has arrived. It differs in three things. The promise may end before the final size; it can be lowered by another frame,
//! down to nothing by RESET_STREAM; and the reader is told of a reset where the promise ends.
//!
//! Sending: the frame waits until the data that it promises has left once. By then the final size is the highest offset
//! that left, so that it never needs credit of its own. Only the acknowledgement of the frame with the smallest promise
//! counts; a lost one is written anew from what holds then.
//!
//! Receiving: what lies behind the promise and was not read is forgotten and counts as consumed at once, so a partial reset
//! frees memory and gives credit back, and holds no more than the bytes that were promised.

use super::app::check_code;
use super::entry::{PartialReset, Repeat};
use super::map::Streams;
use super::peer::{flow_error, state_error};
use super::phase::{RecvPhase, SendEvent};
use crate::buf::ChunkPool;
use crate::error::{ApiMisuse, PeerViolation};
use crate::ids::StreamId;
use crate::spans::Fate;

/// A frame about a stream that the peer resets partially has the code of the first one.
pub(super) fn check_partial(known: Option<&PartialReset>, code: u64) -> Result<(), PeerViolation> {
    match known {
        //= reset-stream-at#5.2-6
        Some(known) if known.code != code => Err(state_error("a reset changes its code", "reset-stream-at#5.2")),
        _ => Ok(()),
    }
}

impl Streams {
    /// Ends sending early, but the first bytes of the stream still arrive. A second call can only lower their number; the
    /// first code stays.
    ///
    /// # Errors
    /// [`ApiMisuse::NotNegotiated`] when the peer does not know RESET_STREAM_AT, [`ApiMisuse::NotWritten`] when fewer bytes
    /// were written, and what [`Self::reset`] refuses.
    pub fn reset_at(&mut self, id: StreamId, reset: PartialReset, pool: &mut ChunkPool) -> Result<(), ApiMisuse> {
        check_code(reset.code)?;
        if reset.reliable_size == 0 {
            return self.reset(id, reset.code, pool);
        }
        if !id.sends(self.side) {
            return Err(ApiMisuse::WrongDirection);
        }
        if !self.peer_takes_partial {
            return Err(ApiMisuse::NotNegotiated);
        }
        let slot = self.app_slot(id)?;
        let send = &mut self.table[slot].send;
        match send.partial.as_deref_mut() {
            //= reset-stream-at#5.2-2
            Some(before) if before.reliable_size <= reset.reliable_size => return Ok(()),
            _ if !send.phase.may_send() => return Ok(()),
            //= reset-stream-at#5.2-5
            Some(before) => before.reliable_size = reset.reliable_size,
            None if reset.reliable_size > send.state.end() => return Err(ApiMisuse::NotWritten),
            None => send.partial = Some(Box::new(reset)),
        }
        if send.stopped != 0 {
            // Nobody would read what is promised.
            self.reset_slot(slot, reset.code, pool);
            return Ok(());
        }
        self.begin_partial(slot, pool);
        Ok(())
    }

    /// Ends the sending part early.
    pub(super) fn reset_slot(&mut self, slot: u32, code: u64, pool: &mut ChunkPool) {
        let stream = &mut self.table[slot];
        //= reset-stream-at#5.2-5
        let code = stream.send.partial.as_ref().map_or(code, |p| p.code);
        let final_size = stream.send.state.next();
        if stream.step_send(SendEvent::Reset { code, final_size }) {
            stream.send.reset = Repeat::Due;
            stream.send.credit.blocked_mut().clear();
            stream.send.wants_room = false;
            self.drop_out(slot, pool);
            self.update_send(slot);
            self.update_control(slot);
            self.tell_short();
        }
    }

    /// Whether the peer takes partial resets.
    #[must_use]
    pub const fn can_reset_at(&self) -> bool {
        self.peer_takes_partial
    }

    /// The stream got a promise, or a smaller one: drops what lies behind it and has the frame sent.
    fn begin_partial(&mut self, slot: u32, pool: &mut ChunkPool) {
        let send = &mut self.table[slot].send;
        let Some(reliable) = send.partial.as_ref().map(|p| p.reliable_size) else { return };
        let before = send.state.end();
        send.state.cut(reliable);
        // A stream without a buffer has nothing that could be cut.
        self.unsent -= before - send.state.end();
        //= reset-stream-at#5.2-1
        (send.reset, send.wants_room) = (Repeat::Due, false);
        if send.state.next() == send.state.end() {
            send.credit.blocked_mut().clear();
        }
        let mut empty = false;
        if let Some(buffer) = send.buffer.as_mut() {
            let before = buffer.len();
            buffer.truncate(reliable, pool);
            self.buffered_out -= before - buffer.len();
            empty = buffer.is_empty();
        }
        if empty {
            self.drop_out(slot, pool);
        }
        self.update_send(slot);
        self.update_control(slot);
        self.tell_short();
    }

    /// What became of a RESET_STREAM_AT frame that promised so many bytes.
    pub fn on_reset_at_fate(&mut self, id: StreamId, reliable_size: u64, fate: Fate, pool: &mut ChunkPool) {
        let Some(slot) = self.table.find(id) else { return };
        let send = &mut self.table[slot].send;
        // A frame with another promise says nothing of the present one.
        if !send.phase.may_send() || send.partial.as_ref().is_none_or(|p| p.reliable_size != reliable_size) {
            return;
        }
        //= reset-stream-at#4-5, reset-stream-at#5.2-1
        send.reset.on_fate(fate == Fate::Acked);
        if fate == Fate::Acked {
            self.on_arrived(slot, pool);
        }
        if self.table.find(id).is_some() {
            self.update_control(slot);
        }
    }

    /// Streams whose partial reset the server does not understand any more, after it rejected 0-RTT, are given up: their
    /// promise cannot be said.
    pub fn drop_partial(&mut self, pool: &mut ChunkPool) {
        if self.peer_takes_partial {
            return;
        }
        for slot in self.table.slots() {
            if let Some(code) = self.table[slot].send.partial.as_ref().map(|p| p.code) {
                self.reset_slot(slot, code, pool);
            }
        }
    }

    /// A RESET_STREAM_AT frame.
    ///
    /// # Errors
    /// STREAM_STATE_ERROR, STREAM_LIMIT_ERROR, FLOW_CONTROL_ERROR, FINAL_SIZE_ERROR.
    pub fn on_reset_stream_at(
        &mut self,
        id: StreamId,
        reset: PartialReset,
        final_size: u64,
        pool: &mut ChunkPool,
    ) -> Result<(), PeerViolation> {
        if !id.receives(self.side) {
            return Err(state_error("RESET_STREAM_AT for a send-only stream", "rfc9000#19.4"));
        }
        let Some(slot) = self.peer_slot(id)? else { return Ok(()) };
        let recv = &mut self.table[slot].recv;
        if final_size > recv.credit.limit() {
            //= reset-stream-at#4-3
            return Err(flow_error("a final size beyond the stream's credit"));
        }
        check_partial(recv.partial.as_deref(), reset.code)?;
        if let RecvPhase::ResetRecvd { code } = recv.state.phase() {
            check_partial(Some(&PartialReset { code, ..reset }), reset.code)?;
        }
        //= reset-stream-at#5.2-6
        let more = recv.state.on_frame(final_size, true)?;
        self.count_received(more)?;
        let recv = &mut self.table[slot].recv;
        let open = match (recv.state.phase(), &recv.partial) {
            //= reset-stream-at#5.2-4
            (RecvPhase::SizeKnown { .. } | RecvPhase::DataRecvd { .. }, Some(before)) => {
                reset.reliable_size < before.reliable_size
            }
            // A reset behind all data is nothing new, and one behind RESET_STREAM promises nothing.
            (phase, None) => matches!(phase, RecvPhase::SizeKnown { .. }),
            _ => false,
        };
        if open {
            recv.partial = Some(Box::new(reset));
            self.cut_received(slot, final_size, pool);
            self.update_control(slot);
            self.free_if_done(slot, pool);
        }
        Ok(())
    }

    /// Forgets what was received behind a partial reset's promise, and counts it as consumed, with what never came of it.
    fn cut_received(&mut self, slot: u32, final_size: u64, pool: &mut ChunkPool) {
        let recv = &mut self.table[slot].recv;
        if recv.stop != Repeat::Idle {
            // Nothing is wanted of the stream anyway.
            self.tell_metered(slot);
            return self.discard_received(slot, pool);
        }
        let Some(limit) = recv.read_limit() else { return };
        let (mut gone, mut closed) = (0, 0);
        if let Some(bytes) = recv.bytes.as_mut() {
            let before = bytes.gaps();
            gone = bytes.truncate(limit, pool);
            closed = before - bytes.gaps();
        }
        //= reset-stream-at#5.2-3
        recv.note_ready();
        let never_read = recv.base() + (final_size - limit) - recv.credit.consumed();
        self.buffered_in -= gone;
        self.gaps_in -= closed;
        self.on_consumed(slot, never_read);
        self.tell_readable(slot);
    }
}

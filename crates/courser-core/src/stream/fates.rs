//! What became of frames of streams. Streams that are gone meanwhile are tolerated: their frames do not matter any more.

use super::events::StreamEvent;
use super::map::Streams;
use super::phase::{SendEvent, SendPhase};
use crate::buf::ChunkPool;
use crate::ids::StreamId;
use crate::spans::{Fate, StreamSpan};

impl Streams {
    /// What became of a STREAM frame.
    pub fn on_span(&mut self, fate: Fate, span: &StreamSpan, pool: &mut ChunkPool) {
        let Some(slot) = self.table.find(span.id) else { return };
        let send = &mut self.table[slot].send;
        if !send.phase.may_send() {
            return;
        }
        // A frame of rejected 0-RTT may tell of bytes that count as unsent.
        let range = span.offset.min(send.state.next())..span.end().min(send.state.next());
        if fate == Fate::Acked {
            send.state.on_acked(range, span.fin);
            self.on_arrived(slot, pool);
            return;
        }
        // What lies behind a partial reset's promise is not sent again.
        //= reset-stream-at#5-2, reset-stream-at#5-3
        let kept = send.partial.as_ref().map_or(u64::MAX, |p| p.reliable_size);
        send.state.on_lost(range.start.min(kept)..range.end.min(kept), span.fin);
        if let (SendPhase::DataSent, Some(code)) = (send.phase, send.stopped.checked_sub(1)) {
            //= rfc9000#3.5-3
            self.reset_slot(slot, code, pool);
        }
        self.update_send(slot);
    }

    /// What became of a RESET_STREAM frame.
    pub fn on_reset_fate(&mut self, id: StreamId, fate: Fate, pool: &mut ChunkPool) {
        let Some(slot) = self.table.find(id) else { return };
        let stream = &mut self.table[slot];
        stream.send.reset.on_fate(fate == Fate::Acked);
        if fate == Fate::Acked {
            stream.step_send(SendEvent::ResetAcked);
        }
        self.update_control(slot);
        self.free_if_done(slot, pool);
    }

    /// What became of a STOP_SENDING frame.
    pub fn on_stop_fate(&mut self, id: StreamId, fate: Fate, pool: &mut ChunkPool) {
        let Some(slot) = self.table.find(id) else { return };
        self.table[slot].recv.stop.on_fate(fate == Fate::Acked);
        self.update_control(slot);
        self.free_if_done(slot, pool);
    }

    /// What became of a MAX_STREAM_DATA frame.
    pub fn on_max_stream_data_fate(&mut self, id: StreamId, fate: Fate) {
        let Some(slot) = self.table.find(id).filter(|_| fate != Fate::Acked) else { return };
        self.table[slot].recv.credit.again();
        self.update_control(slot);
    }

    /// What became of a STREAM_DATA_BLOCKED frame.
    pub fn on_blocked_fate(&mut self, id: StreamId, fate: Fate) {
        let Some(slot) = self.table.find(id).filter(|_| fate != Fate::Acked) else { return };
        self.table[slot].send.credit.blocked_mut().again();
        self.update_control(slot);
    }

    /// More of a stream arrived: its bytes are freed, the application may write again.
    pub(super) fn on_arrived(&mut self, slot: u32, pool: &mut ChunkPool) {
        let stream = &mut self.table[slot];
        let (acked_to, id) = (stream.send.state.acked_to(), stream.id);
        let everything = stream.send.state.is_all_acked();
        let done = stream.send.is_done() && stream.step_send(SendEvent::AllAcked);
        let mut empty = false;
        if let Some(buffer) = stream.send.buffer.as_mut() {
            let before = buffer.len();
            buffer.release_to(acked_to.min(buffer.end()), pool);
            self.buffered_out -= before - buffer.len();
            empty = buffer.is_empty();
        }
        if empty {
            self.drop_out(slot, pool);
        }
        // A late acknowledgement may have cancelled the only thing that was to be sent.
        self.update_send(slot);
        if done {
            self.events.push(if everything { StreamEvent::AllAcked(id) } else { StreamEvent::ResetDelivered(id) });
            self.update_control(slot);
            self.free_if_done(slot, pool);
        } else {
            self.tell_writable(slot);
        }
        if !self.starved.is_empty() {
            self.on_pool_room();
        }
    }
}

//! Frames of streams for the packet that is being built.
//!
//! First come the frames other than STREAM of all streams that have one due: they are few, small, and must not wait behind
//! somebody else's bulk. Then the streams send in the order of their turns until the packet is full.
//!
//! The last STREAM frame of a packet may reach to its end without a Length field. Its bytes are then not copied: the
//! caller seals them from the send buffer. Where they cross the end of a piece, the bytes up to the last crossing are copied
//! and the rest is left. The record always has the whole range.

use super::entry::Repeat;
use super::map::Streams;
use super::phase::SendEvent;
use super::send_state::Fin;
use crate::spans::{FrameKind, FrameSet, Record, StreamSpan};
use crate::wire::frame::{Frame, stream_header_size, write_stream_header};
use crate::wire::{Writer, varint};

/// What to write of a stream.
enum Plan {
    /// Nothing now.
    Nothing,
    /// Nothing until the application writes more or flushes: the frame would not be full.
    Held,
    /// The packet has no room.
    NoRoom,
    /// These bytes; `open` means without Length, as the last frame.
    Frame { span: StreamSpan, open: bool },
}

/// How a stream's turn ended.
enum Turn {
    /// It has nothing more to send.
    Drained,
    /// The packet is full. The bytes that were not copied, if any.
    Full(Option<StreamSpan>),
}

impl Streams {
    /// Whether [`Self::fill`] has something to write, given room.
    #[must_use]
    pub fn has_data(&self) -> bool {
        self.control.len() > 0 || self.active.len() > 0
    }

    /// Writes frames of streams into the rest of the packet.
    ///
    /// With `last`, nothing may follow, not even padding: the final STREAM frame may reach to the end of the packet. Then
    /// the span of its bytes that were not copied is returned; [`Self::slice`] gives them, and they belong directly behind
    /// what was written. They always fit into the room that `w` has left.
    pub fn fill(
        &mut self,
        w: &mut Writer<'_>,
        records: &mut Vec<Record>,
        frames: &mut FrameSet,
        last: bool,
    ) -> Option<StreamSpan> {
        let mut tail = None;
        if self.fill_control(w, records, frames) {
            while let Some(slot) = self.active.pick() {
                if let Turn::Full(rest) = self.fill_stream(slot, w, records, frames, last) {
                    self.active.end_packet();
                    tail = rest;
                    break;
                }
            }
        }
        if self.send_credit.room() == 0 && self.active.len() > 0 {
            // Who has only new data waits for credit from now on, so that `has_data` tells the truth.
            self.resort(|_| {});
        }
        tail
    }

    /// The bytes of a span that [`Self::fill`] did not copy; exactly `span.len`.
    #[must_use]
    pub fn slice(&self, span: &StreamSpan) -> &[u8] {
        let bytes =
            self.table.lookup(span.id).and_then(|s| s.send.buffer.as_ref()).map_or(&[][..], |b| b.slice(span.offset));
        let slice = bytes.get(..span.len as usize).unwrap_or(&[]);
        debug_assert_eq!(slice.len(), span.len as usize, "the bytes of an uncopied span lie together");
        slice
    }

    /// Writes due frames other than STREAM; says whether all fitted.
    fn fill_control(&mut self, w: &mut Writer<'_>, records: &mut Vec<Record>, frames: &mut FrameSet) -> bool {
        while let Some(slot) = self.control.front(0) {
            if self.write_control(slot, w, records, frames).is_none() {
                return false;
            }
            self.control.remove(slot);
        }
        true
    }

    /// Writes the due frames of one stream; `None` when one did not fit.
    fn write_control(
        &mut self,
        slot: u32,
        w: &mut Writer<'_>,
        records: &mut Vec<Record>,
        frames: &mut FrameSet,
    ) -> Option<()> {
        let (demand, window_max) = (self.demand.bytes(self.received), self.window_max);
        let stream = &mut self.table[slot];
        let id = stream.id;
        if let Some(frame) = stream.send.reset_frame(id) {
            frame.encode(w)?;
            stream.send.reset = Repeat::Sent;
            let record = match frame {
                Frame::ResetStreamAt { reliable_size, .. } => {
                    let stepped = stream.step_send(SendEvent::FinSent);
                    debug_assert!(stepped, "RESET_STREAM_AT left in {:?}", stream.send.phase);
                    Record::ResetStreamAt { id, reliable_size }
                }
                _ => Record::ResetStream(id),
            };
            note(records, frames, frame.kind(), record);
        }
        if stream.recv.stop == Repeat::Due {
            Frame::StopSending { id, code: stream.recv.stop_code }.encode(w)?;
            stream.recv.stop = Repeat::Sent;
            note(records, frames, FrameKind::StopSending, Record::StopSending(id));
        }
        if stream.credit_due() {
            let max = stream.recv.credit.next_limit(demand, window_max);
            Frame::MaxStreamData { id, max }.encode(w)?;
            stream.recv.credit.advance(demand, window_max);
            note(records, frames, FrameKind::MaxStreamData, Record::MaxStreamData(id));
        }
        if let Some(limit) = stream.send.credit.blocked().due() {
            Frame::StreamDataBlocked { id, limit }.encode(w)?;
            stream.send.credit.blocked_mut().on_sent();
            stream.step_send(SendEvent::Sent);
            note(records, frames, FrameKind::StreamDataBlocked, Record::StreamDataBlocked(id));
        }
        Some(())
    }

    /// Writes STREAM frames of one stream until it has nothing more or the packet is full.
    fn fill_stream(
        &mut self,
        slot: u32,
        w: &mut Writer<'_>,
        records: &mut Vec<Record>,
        frames: &mut FrameSet,
        last: bool,
    ) -> Turn {
        loop {
            match self.plan(slot, w.room(), last) {
                Plan::Nothing => {
                    self.update_send(slot);
                    // A stream that stays although there is nothing to write would be asked forever.
                    debug_assert!(self.active.pick() != Some(slot), "an idle stream kept its turn");
                    return Turn::Drained;
                }
                Plan::Held => {
                    let stream = &self.table[slot];
                    self.active.remove(slot, stream.id, stream.priority);
                    return Turn::Drained;
                }
                Plan::NoRoom => return Turn::Full(None),
                Plan::Frame { span, open } => {
                    let Some(tail) = self.write_frame(slot, w, span, open) else { return Turn::Full(None) };
                    note(records, frames, FrameKind::Stream, Record::Stream(span));
                    self.on_sent(slot, &span);
                    self.update_send(slot);
                    if open {
                        return Turn::Full(tail);
                    }
                    if self.active.pick() != Some(slot) {
                        return Turn::Drained;
                    }
                }
            }
        }
    }

    /// What to write of a stream into `room` bytes.
    fn plan(&self, slot: u32, room: usize, last: bool) -> Plan {
        let stream = &self.table[slot];
        let send = &stream.send;
        let credit_end = send.state.next().saturating_add(send.credit.room().min(self.send_credit.room()));
        let Some(pending) = send.state.pending(credit_end) else { return Plan::Nothing };
        let offset = pending.range.start;
        let mut have = pending.range.end - offset;
        let Some(body) = room.checked_sub(stream_header_size(stream.id, offset, None)) else { return Plan::NoRoom };
        let body = body as u64;
        let mut fin = pending.fin;
        if send.corked && !pending.again && send.state.fin() == Fin::Open && have < body {
            have = have.min(send.flushed.saturating_sub(offset));
            if have == 0 {
                return Plan::Held;
            }
        }
        let frame = |len: u64, fin: bool, open: bool| {
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            Plan::Frame { span: StreamSpan { id: stream.id, offset, len, fin }, open }
        };
        let with_length = varint::size(have.min(body)) as u64 + have;
        if with_length <= body && !(have == body && last) {
            return frame(have, fin, false);
        }
        if last && body > 0 {
            fin &= have <= body;
            return frame(have.min(body), fin, true);
        }
        match varint::fit_behind_length(usize::try_from(body).unwrap_or(usize::MAX)) {
            Some(fits) if fits > 0 => frame(have.min(fits as u64), fin && have <= fits as u64, false),
            _ => Plan::NoRoom,
        }
    }

    /// Writes a frame. `None` when it did not fit after all; otherwise what was not copied, if anything.
    fn write_frame(
        &mut self,
        slot: u32,
        w: &mut Writer<'_>,
        span: StreamSpan,
        open: bool,
    ) -> Option<Option<StreamSpan>> {
        let len = (!open).then_some(u64::from(span.len));
        let start = w.len();
        write_stream_header(w, span.id, span.offset, span.fin, len)?;
        let Some(buffer) = self.table[slot].send.buffer.as_mut() else {
            debug_assert_eq!(span.len, 0, "bytes to send without a buffer");
            return Some(None);
        };
        let (mut at, end) = (span.offset, span.end());
        while at < end {
            let piece = buffer.seek(at);
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            if piece.len() >= left && open {
                let rest = StreamSpan { offset: at, len: u32::try_from(left).unwrap_or(u32::MAX), ..span };
                return Some(Some(rest));
            }
            let n = piece.len().min(left);
            if n == 0 || w.bytes(&piece[..n]).is_none() {
                debug_assert!(false, "planned bytes are there and fit");
                w.truncate(start);
                return None;
            }
            at += n as u64;
        }
        Some(None)
    }

    /// A STREAM frame left.
    fn on_sent(&mut self, slot: u32, span: &StreamSpan) {
        let stream = &mut self.table[slot];
        let new = stream.send.state.on_sent(span.offset..span.end(), span.fin);
        stream.send.credit.spend(new);
        let whole = span.fin && stream.send.state.next() == stream.send.state.end();
        let stepped = stream.step_send(if whole { SendEvent::FinSent } else { SendEvent::Sent });
        debug_assert!(stepped, "a STREAM frame left in {:?}", stream.send.phase);
        let resets = stream.send.partial.is_some();
        self.send_credit.spend(new);
        self.unsent -= new;
        if resets {
            // With the last byte that had to leave, RESET_STREAM_AT is due.
            self.update_control(slot);
        }
    }
}

fn note(records: &mut Vec<Record>, frames: &mut FrameSet, kind: FrameKind, record: Record) {
    records.push(record);
    frames.insert(kind);
}

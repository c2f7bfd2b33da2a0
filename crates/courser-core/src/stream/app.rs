//! What the application does with a stream.

use core::fmt;

use bytes::Bytes;

use super::entry::{Priority, Repeat, Stream};
use super::map::Streams;
use super::phase::{RecvPhase, SendPhase};
use super::send_state::Fin;
use crate::buf::ChunkPool;
use crate::error::ApiMisuse;
use crate::ids::{StreamId, VARINT_MAX};

/// Why nothing can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The peer does not want more; its error code.
    Stopped(u64),
    /// The caller's mistake.
    Misuse(ApiMisuse),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(code) => write!(f, "the peer stopped the stream with code {code}"),
            Self::Misuse(misuse) => misuse.fmt(f),
        }
    }
}

impl core::error::Error for WriteError {}

impl From<ApiMisuse> for WriteError {
    fn from(misuse: ApiMisuse) -> Self {
        Self::Misuse(misuse)
    }
}

/// Why nothing can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The peer ended the stream early; its error code. Told once.
    Reset(u64),
    /// The application itself said that it does not want more.
    Stopped,
    /// The caller's mistake.
    Misuse(ApiMisuse),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(code) => write!(f, "the peer reset the stream with code {code}"),
            Self::Stopped => f.write_str("reading was stopped here"),
            Self::Misuse(misuse) => misuse.fmt(f),
        }
    }
}

impl core::error::Error for ReadError {}

impl From<ApiMisuse> for ReadError {
    fn from(misuse: ApiMisuse) -> Self {
        Self::Misuse(misuse)
    }
}

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes.
    Bytes(usize),
    /// None now; [`super::StreamEvent::Readable`] follows.
    Blocked,
    /// The end was reached. Told once: a stream that has nothing else to do is gone then.
    Finished,
}

impl Streams {
    /// Takes bytes for sending; says how many. Zero is normal: [`super::StreamEvent::Writable`] follows.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write(&mut self, id: StreamId, data: &[u8], pool: &mut ChunkPool) -> Result<usize, WriteError> {
        self.write_vectored(id, &[data], pool)
    }

    /// Takes bytes out of several slices as if they were one.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write_vectored(&mut self, id: StreamId, data: &[&[u8]], pool: &mut ChunkPool) -> Result<usize, WriteError> {
        let slot = self.writable_slot(id)?;
        let mut room = usize::try_from(self.room_of(&self.table[slot])).unwrap_or(usize::MAX);
        let (mut taken, mut starved, mut cut) = (0, false, false);
        self.with_buffer(slot);
        for piece in data {
            let part = &piece[..piece.len().min(room)];
            let n = self.table[slot].send.buffer.as_mut().map_or(0, |b| b.push(part, pool));
            (taken, room) = (taken + n, room - n);
            if n < piece.len() {
                (starved, cut) = (n < part.len(), true);
                break;
            }
        }
        self.on_written(slot, taken as u64, starved, pool);
        if cut {
            self.wait_for_room(slot);
        }
        Ok(taken)
    }

    /// Takes a prefix of the bytes without copying it, unless it is short; `data` keeps the rest. Says how many.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write_owned(&mut self, id: StreamId, data: &mut Bytes, pool: &mut ChunkPool) -> Result<usize, WriteError> {
        let slot = self.writable_slot(id)?;
        let room = usize::try_from(self.room_of(&self.table[slot])).unwrap_or(usize::MAX);
        let part = data.split_to(data.len().min(room));
        let n = part.len();
        if n > 0 {
            self.with_buffer(slot);
            if let Some(buffer) = self.table[slot].send.buffer.as_mut() {
                buffer.push_owned(part, pool);
            }
        }
        self.on_written(slot, n as u64, false, pool);
        if !data.is_empty() {
            self.wait_for_room(slot);
        }
        Ok(n)
    }

    /// Holds partly filled frames back until [`Self::flush`], [`Self::finish`] or uncorking.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn cork(&mut self, id: StreamId, corked: bool) -> Result<(), WriteError> {
        let slot = self.writable_slot(id)?;
        self.table[slot].send.corked = corked;
        self.update_send(slot);
        Ok(())
    }

    /// Lets everything written so far leave, in a partly filled frame if need be.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn flush(&mut self, id: StreamId) -> Result<(), WriteError> {
        let slot = self.writable_slot(id)?;
        let send = &mut self.table[slot].send;
        send.flushed = send.state.end();
        self.update_send(slot);
        Ok(())
    }

    /// Sets the end of the stream behind the last byte written.
    ///
    /// # Errors
    /// [`WriteError`]; setting it twice is a mistake.
    pub fn finish(&mut self, id: StreamId) -> Result<(), WriteError> {
        let slot = self.writable_slot(id)?;
        let send = &mut self.table[slot].send;
        send.state.finish();
        send.wants_room = false;
        self.update_send(slot);
        Ok(())
    }

    /// Ends sending early: what has not left never leaves. Nothing happens when everything arrived or it was reset before.
    ///
    /// # Errors
    /// [`ApiMisuse`].
    pub fn reset(&mut self, id: StreamId, code: u64, pool: &mut ChunkPool) -> Result<(), ApiMisuse> {
        check_code(code)?;
        if !id.sends(self.side) {
            return Err(ApiMisuse::WrongDirection);
        }
        let slot = self.app_slot(id)?;
        self.reset_slot(slot, code, pool);
        Ok(())
    }

    /// Asks the peer to stop sending; what came and comes is thrown away. Nothing happens when the peer reset the stream.
    ///
    /// # Errors
    /// [`ApiMisuse`].
    pub fn stop_sending(&mut self, id: StreamId, code: u64, pool: &mut ChunkPool) -> Result<(), ApiMisuse> {
        check_code(code)?;
        if !id.receives(self.side) {
            return Err(ApiMisuse::WrongDirection);
        }
        let slot = self.app_slot(id)?;
        let recv = &mut self.table[slot].recv;
        if recv.stop != Repeat::Idle {
            return Ok(());
        }
        recv.stop_code = code;
        //= rfc9000#3.5-1, rfc9000#3.5-5
        recv.stop = match recv.state.phase() {
            RecvPhase::Recv | RecvPhase::SizeKnown { .. } => Repeat::Due,
            _ => Repeat::Acked,
        };
        self.discard_received(slot, pool);
        self.update_control(slot);
        self.free_if_done(slot, pool);
        Ok(())
    }

    /// Copies received bytes out.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&mut self, id: StreamId, out: &mut [u8], pool: &mut ChunkPool) -> Result<Read, ReadError> {
        let mut at = 0;
        self.read_with(id, pool, |piece| {
            let n = piece.len().min(out.len() - at);
            out[at..at + n].copy_from_slice(&piece[..n]);
            at += n;
            n
        })
    }

    /// The received bytes that lie together, without taking them away; empty when there are none now. At the end of the
    /// stream it is empty too, and [`Self::consume`] of nothing says `Finished`.
    ///
    /// # Errors
    /// [`ReadError`]; a reset is reported, but only the other ways of reading take note that it was.
    pub fn peek(&mut self, id: StreamId) -> Result<&[u8], ReadError> {
        let slot = self.readable_slot(id)?;
        let recv = &self.table[slot].recv;
        if let RecvPhase::ResetRecvd { code } = recv.state.phase() {
            return Err(ReadError::Reset(code));
        }
        let bytes = recv.bytes.as_ref().map_or(&[][..], |b| b.peek());
        match recv.reset_behind() {
            Some(code) if bytes.is_empty() => Err(ReadError::Reset(code)),
            _ => Ok(bytes),
        }
    }

    /// Takes up to `n` received bytes away, unread.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn consume(&mut self, id: StreamId, n: usize, pool: &mut ChunkPool) -> Result<Read, ReadError> {
        let mut left = n;
        self.read_with(id, pool, |piece| {
            let n = piece.len().min(left);
            left -= n;
            n
        })
    }

    /// Shows `f` received bytes, piece by piece, until it takes fewer than it was shown. The other ways of reading rest on
    /// this one.
    ///
    /// # Errors
    /// [`ReadError`].
    //= rfc9000#2.2-1
    pub fn read_with(
        &mut self,
        id: StreamId,
        pool: &mut ChunkPool,
        mut f: impl FnMut(&[u8]) -> usize,
    ) -> Result<Read, ReadError> {
        let slot = self.readable_slot(id)?;
        let recv = &mut self.table[slot].recv;
        match recv.state.phase() {
            RecvPhase::ResetRecvd { code } => {
                recv.state.on_reset_read();
                self.free_if_done(slot, pool);
                return Err(ReadError::Reset(code));
            }
            RecvPhase::ResetRead => return Err(ApiMisuse::UnknownStream.into()),
            _ => {}
        }
        let (mut total, mut any) = (0usize, false);
        if let Some(bytes) = recv.bytes.as_mut() {
            loop {
                let piece = bytes.peek();
                let shown = piece.len();
                if shown == 0 {
                    break;
                }
                any = true;
                let took = f(piece).min(shown);
                bytes.consume(took as u64, pool);
                total += took;
                if took < shown {
                    break;
                }
            }
        }
        if total > 0 {
            self.buffered_in -= total as u64;
            self.on_consumed(slot, total as u64);
        }
        if any {
            return Ok(Read::Bytes(total));
        }
        let recv = &mut self.table[slot].recv;
        if let Some(code) = recv.reset_behind() {
            recv.state.on_reset_read();
            self.free_if_done(slot, pool);
            return Err(ReadError::Reset(code));
        }
        match recv.state.phase() {
            RecvPhase::DataRecvd { .. } => recv.state.on_all_read(),
            RecvPhase::DataRead => {}
            _ => return Ok(Read::Blocked),
        }
        self.free_if_done(slot, pool);
        Ok(Read::Finished)
    }

    /// Bytes that can be read now.
    #[must_use]
    pub fn readable(&self, id: StreamId) -> u64 {
        self.table.lookup(id).map_or(0, |s| s.readable())
    }

    /// Whether all data came and was read, so that the next read says `Finished`.
    #[must_use]
    pub fn is_at_end(&self, id: StreamId) -> bool {
        self.table
            .lookup(id)
            .filter(|s| s.readable() == 0 && s.recv.partial.is_none())
            .is_some_and(|s| matches!(s.recv.state.phase(), RecvPhase::DataRecvd { .. }))
    }

    /// Bytes of the stream came in a 0-RTT packet.
    pub fn mark_early(&mut self, id: StreamId) {
        if let Some(slot) = self.table.find(id) {
            self.table[slot].early = true;
        }
    }

    /// Whether bytes of the stream came in 0-RTT packets.
    #[must_use]
    pub fn is_early(&self, id: StreamId) -> bool {
        self.table.lookup(id).is_some_and(|s| s.early)
    }

    /// Sets how urgent the stream is.
    ///
    /// # Errors
    /// [`ApiMisuse`].
    pub fn set_priority(&mut self, id: StreamId, priority: Priority) -> Result<(), ApiMisuse> {
        let slot = self.app_slot(id)?;
        let old = self.table[slot].priority;
        if old != priority {
            self.active.remove(slot, id, old);
            self.table[slot].priority = Priority { urgency: priority.urgency.min(7), ..priority };
            self.update_send(slot);
        }
        Ok(())
    }

    /// How urgent the stream is; the default for streams without state.
    #[must_use]
    pub fn priority(&self, id: StreamId) -> Priority {
        self.table.lookup(id).map_or_else(Priority::default, |s| s.priority)
    }

    /// Bytes that a write would take now, as far as the pool has them.
    #[must_use]
    pub fn send_room(&self, id: StreamId) -> u64 {
        let open = |s: &Stream| s.send.phase.may_send() && s.send.state.fin() == Fin::Open && s.send.stopped == 0;
        match self.table.lookup(id) {
            Some(stream) if open(stream) => self.room_of(stream),
            None if id.sends(self.side) && self.is_untouched(id) => self.room_of_new(id),
            _ => 0,
        }
    }

    /// Whether the peer opened a stream, and nothing happened on it that needs state.
    pub(super) fn is_untouched(&self, id: StreamId) -> bool {
        let remote = &self.remote[id.dir() as usize];
        id.initiator() != self.side && id.index() < remote.next && !remote.closed.contains(id.index())
    }

    /// Whether everything written arrived, the end included. A closed stream counts as arrived, however it ended.
    #[must_use]
    pub fn is_finished_acked(&self, id: StreamId) -> bool {
        let remote = &self.remote[id.dir() as usize];
        match self.table.lookup(id) {
            Some(stream) => stream.send.phase == SendPhase::DataRecvd && stream.send.state.is_all_acked(),
            None if id.initiator() == self.side => id.index() < self.local[id.dir() as usize].credit.used(),
            None => remote.closed.contains(id.index()),
        }
    }

    /// Credit moves on because the application took bytes away, or because they were thrown away.
    pub(super) fn on_consumed(&mut self, slot: u32, n: u64) {
        let demand = self.demand.bytes(self.received);
        self.recv_credit.consume(n);
        self.recv_credit.follow(demand, self.conn_window_max);
        let credit = &mut self.table[slot].recv.credit;
        credit.consume(n);
        credit.follow(demand, self.window_max);
        if self.table[slot].credit_due() {
            self.update_control(slot);
        }
    }

    /// Throws away what was received and was not read, and counts it as consumed.
    pub(super) fn discard_received(&mut self, slot: u32, pool: &mut ChunkPool) {
        self.drop_in(slot, pool);
        let recv = &self.table[slot].recv;
        let unread = recv.state.highest() - recv.credit.consumed();
        self.on_consumed(slot, unread);
    }

    fn with_buffer(&mut self, slot: u32) {
        if self.table[slot].send.buffer.is_none() {
            let buffer = self.take_out(self.table[slot].send.state.end());
            self.table[slot].send.buffer = Some(buffer);
        }
    }

    fn on_written(&mut self, slot: u32, n: u64, starved: bool, pool: &mut ChunkPool) {
        let stream = &mut self.table[slot];
        stream.send.state.extend(n);
        if starved && !core::mem::replace(&mut stream.starved, true) {
            self.starved.push(stream.id);
        }
        self.buffered_out += n;
        self.unsent += n;
        if self.table[slot].buffered() == 0 {
            self.drop_out(slot, pool);
        }
        self.update_send(slot);
    }

    fn writable_slot(&mut self, id: StreamId) -> Result<u32, WriteError> {
        if !id.sends(self.side) {
            return Err(ApiMisuse::WrongDirection.into());
        }
        let slot = self.app_slot(id)?;
        let send = &self.table[slot].send;
        match send.stopped.checked_sub(1) {
            Some(code) => Err(WriteError::Stopped(code)),
            //= rfc9000#4.5-2
            None if !send.phase.may_send() || send.state.fin() != Fin::Open => Err(ApiMisuse::WriteAfterFinish.into()),
            None => Ok(slot),
        }
    }

    fn readable_slot(&mut self, id: StreamId) -> Result<u32, ReadError> {
        if !id.receives(self.side) {
            return Err(ApiMisuse::WrongDirection.into());
        }
        let slot = self.app_slot(id)?;
        if self.table[slot].recv.stop != Repeat::Idle {
            return Err(ReadError::Stopped);
        }
        Ok(slot)
    }
}

pub(super) const fn check_code(code: u64) -> Result<(), ApiMisuse> {
    if code > VARINT_MAX { Err(ApiMisuse::CodeTooLarge) } else { Ok(()) }
}

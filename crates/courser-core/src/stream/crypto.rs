//! CRYPTO data of one encryption level: the same send state, send buffer and reassembly as a stream, without flow
//! control; a fixed limit bounds what a peer can make us hold.

use crate::buf::pool::{ChunkPool, Class};
use crate::buf::reassembly::{Reassembly, range_cap};
use crate::buf::send::SendBuffer;
use crate::error::{PeerViolation, TransportCode};
use crate::ids::Level;
use crate::spans::{Fate, FrameKind, FrameSet, Record};
use crate::wire::{Writer, frame};

use super::send_state::{Pending, SendState};

/// Bytes that may be received ahead of what TLS has read. The RFC asks for 4,096 at least; certificate chains of
/// post-quantum signatures and reordering want more.
//= rfc9000#7.5-1
pub const CRYPTO_WINDOW: u64 = 64 << 10;

/// CRYPTO data of one level, both directions.
#[derive(Default)]
pub struct CryptoStream {
    state: SendState,
    buffer: SendBuffer,
    received: Reassembly,
}

impl CryptoStream {
    /// Queues handshake bytes. Returns how many found room in the pool.
    pub fn write(&mut self, bytes: &[u8], pool: &mut ChunkPool) -> usize {
        // In small chunks: a flight is held until a client answers, which may be never.
        let mut taken = 0;
        self.buffer.expect_pieces(bytes.len().div_ceil(Class::Small.bytes()));
        for piece in bytes.chunks(Class::Small.bytes()) {
            let n = self.buffer.push(piece, pool);
            taken += n;
            if n < piece.len() {
                break;
            }
        }
        self.state.extend(taken as u64);
        taken
    }

    /// Whether a packet should carry some.
    #[must_use]
    pub fn has_data(&self) -> bool {
        self.state.pending(u64::MAX).is_some()
    }

    /// Whether everything that was written arrived, and everything that came was read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state.acked_to() == self.state.end() && self.received.is_empty()
    }

    /// Writes CRYPTO frames into the rest of the packet.
    pub fn fill(&mut self, level: Level, w: &mut Writer<'_>, records: &mut Vec<Record>, frames: &mut FrameSet) {
        while let Some(Pending { range, .. }) = self.state.pending(u64::MAX) {
            let header = frame::crypto_header_size(range.start, w.room() as u64);
            let Some(room) = w.room().checked_sub(header).filter(|r| *r > 0) else { return };
            let len = (range.end - range.start).min(room as u64);
            if frame::write_crypto_header(w, range.start, len).is_none() {
                return;
            }
            self.copy(range.start, len, w);
            self.state.on_sent(range.start..range.start + len, false);
            records.push(Record::Crypto { level, offset: range.start, len: u32::try_from(len).unwrap_or(u32::MAX) });
            frames.insert(FrameKind::Crypto);
        }
    }

    /// What became of a range.
    pub fn settle(&mut self, fate: Fate, offset: u64, len: u32, pool: &mut ChunkPool) {
        let range = offset..offset + u64::from(len);
        match fate {
            Fate::Acked => {
                self.state.on_acked(range, false);
                self.buffer.release_to(self.state.acked_to(), pool);
            }
            Fate::Lost => self.state.on_lost(range, false),
            Fate::Discarded => {}
        }
    }

    /// Everything that was sent and is not acknowledged is to be sent again: a probe repeats the flight.
    pub fn repeat_unacked(&mut self) {
        self.state.on_lost(self.state.acked_to()..self.state.next(), false);
    }

    /// TLS has what is before that offset from elsewhere. Only before anything was received.
    pub fn begin_at(&mut self, offset: u64) {
        self.received.begin_at(offset);
    }

    /// CRYPTO data came.
    ///
    /// # Errors
    /// CRYPTO_BUFFER_EXCEEDED when it is too far ahead of what was read.
    pub fn on_data(&mut self, offset: u64, data: &[u8], pool: &mut ChunkPool) -> Result<(), PeerViolation> {
        //= rfc9000#7.5-2
        let exceeded =
            PeerViolation::new(TransportCode::CRYPTO_BUFFER_EXCEEDED, "handshake data too far ahead", "rfc9000#7.5");
        let end = offset.saturating_add(data.len() as u64);
        if end > self.received.base() + CRYPTO_WINDOW {
            return Err(exceeded);
        }
        self.received.insert(offset, data, range_cap(CRYPTO_WINDOW), pool).map(|_| ()).map_err(|_| exceeded)
    }

    /// CRYPTO data came at a level that TLS reads no more: it may only repeat what came before.
    ///
    /// # Errors
    /// PROTOCOL_VIOLATION when it goes on behind that.
    pub fn on_late_data(&self, offset: u64, data: &[u8]) -> Result<(), PeerViolation> {
        //= rfc9001#4.1.3-1, rfc9001#4.1.3-2
        if offset.saturating_add(data.len() as u64) > self.received.ready() {
            return Err(level_is_over());
        }
        Ok(())
    }

    /// TLS reads no more at this level.
    ///
    /// # Errors
    /// PROTOCOL_VIOLATION when it has not read everything that came.
    pub fn end_reading(&self) -> Result<(), PeerViolation> {
        //= rfc9001#4.1.3-3
        if self.received.is_empty() { Ok(()) } else { Err(level_is_over()) }
    }

    /// Bytes in order that TLS has not read.
    #[must_use]
    pub fn peek(&self) -> &[u8] {
        self.received.peek()
    }

    /// TLS has read them.
    pub fn consume(&mut self, n: usize, pool: &mut ChunkPool) {
        self.received.consume(n as u64, pool);
    }

    /// Gives all memory back.
    pub fn clear(&mut self, pool: &mut ChunkPool) {
        self.buffer.clear(pool);
        self.received.clear(pool);
    }

    fn copy(&self, mut offset: u64, len: u64, w: &mut Writer<'_>) {
        let end = offset + len;
        while offset < end {
            let piece = self.buffer.slice(offset);
            let take = piece.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            debug_assert!(take > 0, "pending bytes are in the buffer");
            if take == 0 || w.bytes(&piece[..take]).is_none() {
                return;
            }
            offset += take as u64;
        }
    }
}

const fn level_is_over() -> PeerViolation {
    let reason = "handshake data behind the last message of its level";
    PeerViolation::new(TransportCode::PROTOCOL_VIOLATION, reason, "rfc9001#4.1.3")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_holds_to_the_byte_and_moves_with_what_was_read() {
        //= rfc9000#7.5-2 type=test
        let (mut stream, mut pool) = (CryptoStream::default(), ChunkPool::new(1 << 20));
        stream.on_data(CRYPTO_WINDOW - 1, &[1], &mut pool).unwrap();
        let code = |r: Result<(), PeerViolation>| r.unwrap_err().code;
        assert_eq!(code(stream.on_data(CRYPTO_WINDOW, &[1], &mut pool)), TransportCode::CRYPTO_BUFFER_EXCEEDED);
        assert_eq!(code(stream.on_data(CRYPTO_WINDOW - 1, &[1, 1], &mut pool)), TransportCode::CRYPTO_BUFFER_EXCEEDED);
        assert_eq!(code(stream.on_data(u64::MAX - 1, &[1, 1], &mut pool)), TransportCode::CRYPTO_BUFFER_EXCEEDED);
        stream.on_data(0, &[7; 10], &mut pool).unwrap();
        stream.consume(10, &mut pool);
        stream.on_data(CRYPTO_WINDOW + 9, &[1], &mut pool).unwrap();
        stream.on_data(CRYPTO_WINDOW + 10, &[1], &mut pool).unwrap_err();
    }

    #[test]
    fn four_kibibytes_and_more_wait_for_what_comes_before_them() {
        //= rfc9000#7.5-1 type=test
        let message: Vec<u8> = (0..=40_000_u32).map(|i| (i * 31 + i / 256) as u8).collect();
        for piece in [1, 7, 100, 1_200] {
            let (mut stream, mut pool) = (CryptoStream::default(), ChunkPool::new(1 << 20));
            // All but the first byte, from the end to the beginning, and every other piece first. Single bytes come without
            // further gaps: the number of gaps has a limit, which no honest peer meets.
            let len = if piece < 100 { 4_097 } else { message.len() };
            let offsets: Vec<usize> = (1..len).step_by(piece).collect();
            let (even, odd): (Vec<usize>, Vec<usize>) = offsets.iter().partition(|at| **at / piece % 2 == 0);
            let order = if piece == 1 { offsets } else { [odd, even].concat() };
            for at in order.into_iter().rev() {
                let end = (at + piece).min(len);
                stream.on_data(at as u64, &message[at..end], &mut pool).unwrap();
                assert!(stream.peek().is_empty());
            }
            stream.on_data(0, &message[..1], &mut pool).unwrap();
            let mut got = Vec::new();
            while !stream.peek().is_empty() {
                got.extend_from_slice(stream.peek());
                stream.consume(stream.peek().len(), &mut pool);
            }
            assert!(got == message[..len], "pieces of {piece}");
        }
    }
}

//! Streams.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use courser_core::ids::{StreamId, VARINT_MAX};
use courser_core::stream::Priority;
use courser_session::handle::Handle;

use crate::error::{ConnectionError, ReadError, WriteError};
use crate::face::ConnRef;
use crate::hub::stream::{StreamSlot, Taken};
use crate::wait::block;

/// The sending half of a stream. Dropped without [`finish`](Self::finish), it is reset with code 0.
pub struct SendStream {
    slot: Arc<StreamSlot>,
    /// Keeps the connection open.
    _conn: ConnRef,
    timeout: Option<Duration>,
}

impl SendStream {
    pub(super) const fn new(slot: Arc<StreamSlot>, conn: ConnRef) -> Self {
        Self { slot, _conn: conn, timeout: None }
    }

    /// How long each call waits at most.
    pub const fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    fn block<T>(&self, poll: impl FnMut(&mut Context<'_>) -> Poll<Result<T, WriteError>>) -> Result<T, WriteError> {
        block(self.timeout, poll).unwrap_or(Err(WriteError::Closed(ConnectionError::TimedOut)))
    }

    /// Hands bytes over without copying them; waits until all are taken.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write_chunk(&mut self, data: impl Into<Bytes>) -> Result<(), WriteError> {
        let mut data = data.into();
        while !data.is_empty() {
            self.block(|cx| self.slot.poll_write_owned(cx, &mut data))?;
        }
        Ok(())
    }

    /// Nothing follows. What was written still arrives, also when the handle is dropped.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.slot.finish()
    }

    /// Waits until the peer has acknowledged everything, the end included, or all that
    /// [`reset_at`](Self::reset_at) promised. Closing afterwards loses nothing.
    ///
    /// # Errors
    /// [`WriteError::NotFinished`] before [`finish`](Self::finish), and what kept the data from arriving.
    pub fn wait_acked(&mut self) -> Result<(), WriteError> {
        self.block(|cx| self.slot.poll_acked(cx))
    }

    /// Waits until the peer stops the stream and tells its code; `None` when the stream ended otherwise.
    ///
    /// # Errors
    /// When the connection ended.
    pub fn stopped(&mut self) -> Result<Option<u64>, WriteError> {
        self.block(|cx| self.slot.poll_stopped(cx))
    }

    /// Gives the stream up: what the peer has not read may never come. Codes end at 2^62 - 1.
    pub fn reset(&mut self, code: u64) {
        self.slot.reset(code.min(VARINT_MAX));
    }

    /// Gives the stream up, but its first `reliable_size` bytes still arrive: the peer reads them and is told of the reset
    /// then ([`ReadError::Reset`](crate::ReadError::Reset)). What was written behind them is dropped as far as it has not
    /// left. Does not wait; [`wait_acked`](Self::wait_acked) waits until all that was promised arrived.
    ///
    /// Given again it can only lower the number, and the first code stays; [`reset`](Self::reset) gives up the rest. It may
    /// follow [`finish`](Self::finish). Codes end at 2^62 - 1.
    ///
    /// # Errors
    /// [`WriteError::NotWritten`] when fewer bytes were written, [`WriteError::Unsupported`] when the peer does not take such
    /// resets, [`WriteError::Stopped`] when it wants nothing of the stream, and when the connection ended.
    ///
    /// # Examples
    ///
    /// A relay whose source failed hands on all that it got, and says that more should have come:
    ///
    /// ```no_run
    /// use std::io::Write;
    ///
    /// # fn relay(send: &mut courser::SendStream, got: &[u8]) -> std::io::Result<()> {
    /// send.write_all(got)?;
    /// send.reset_at(7, got.len() as u64)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn reset_at(&mut self, code: u64, reliable_size: u64) -> Result<(), WriteError> {
        self.slot.reset_at(code.min(VARINT_MAX), reliable_size)
    }

    /// How urgent this stream is among those of its connection.
    pub fn set_priority(&mut self, priority: Priority) {
        self.slot.set_priority(priority);
    }

    /// Whether small writes gather until `flush`, `finish`, or more than a packet is there.
    pub fn set_corked(&mut self, corked: bool) {
        self.slot.set_corked(corked);
    }

    /// The stream's number.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.slot.id
    }

    /// The stream's 64-bit session handle; `None` until the worker has heard of the stream, which is when something happens
    /// on it.
    #[must_use]
    pub fn handle(&self) -> Option<Handle> {
        self.slot.handle()
    }
}

impl io::Write for SendStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        Ok(self.block(|cx| self.slot.poll_write(cx, buf))?)
    }

    /// Sends what a corked stream gathered; does not wait for the peer.
    fn flush(&mut self) -> io::Result<()> {
        Ok(self.slot.flush()?)
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        self.slot.drop_send();
    }
}

impl std::fmt::Debug for SendStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendStream").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// The receiving half of a stream. Dropped before the end, it asks the peer to stop with code 0.
pub struct RecvStream {
    slot: Arc<StreamSlot>,
    /// Keeps the connection open.
    _conn: ConnRef,
    /// Chunks that were taken and not read.
    chunks: VecDeque<Bytes>,
    timeout: Option<Duration>,
}

impl RecvStream {
    pub(super) const fn new(slot: Arc<StreamSlot>, conn: ConnRef) -> Self {
        Self { slot, _conn: conn, chunks: VecDeque::new(), timeout: None }
    }

    /// How long each call waits at most.
    pub const fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Waits until there are chunks; `false` at the end.
    fn fill(&mut self) -> Result<bool, ReadError> {
        if !self.chunks.is_empty() {
            return Ok(true);
        }
        let (slot, chunks) = (&self.slot, &mut self.chunks);
        let taken = block(self.timeout, |cx| slot.poll_take(cx, chunks))
            .unwrap_or(Err(ReadError::Closed(ConnectionError::TimedOut)))?;
        Ok(matches!(taken, Taken::Chunks))
    }

    /// The next bytes, in the piece in which they lie, without a copy; `None` at the end.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        if self.fill()? { Ok(self.chunks.pop_front()) } else { Ok(None) }
    }

    /// Asks the peer to send no more; what came is dropped. Codes end at 2^62 - 1.
    pub fn stop(&mut self, code: u64) {
        self.chunks.clear();
        self.slot.stop(code.min(VARINT_MAX));
    }

    /// Whether what is read may be a replay: it came as 0-RTT, and the handshake is not complete.
    #[must_use]
    pub fn is_early(&self) -> bool {
        self.slot.is_early()
    }

    /// The stream's number.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.slot.id
    }

    /// The stream's 64-bit session handle; `None` until the worker has heard of the stream, which is when something happens
    /// on it.
    #[must_use]
    pub fn handle(&self) -> Option<Handle> {
        self.slot.handle()
    }
}

impl io::Read for RecvStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() || !self.fill()? {
            return Ok(0);
        }
        Ok(copy_out(&mut self.chunks, buf))
    }
}

/// Copies from the front of `chunks`; how many bytes.
pub(crate) fn copy_out(chunks: &mut VecDeque<Bytes>, out: &mut [u8]) -> usize {
    let mut done = 0;
    while let Some(chunk) = chunks.front_mut() {
        let n = chunk.len().min(out.len() - done);
        out[done..done + n].copy_from_slice(&chunk[..n]);
        done += n;
        if n < chunk.len() {
            let _ = chunk.split_to(n);
            break;
        }
        chunks.pop_front();
    }
    done
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.slot.stop(0);
    }
}

impl std::fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvStream").field("id", &self.id()).finish_non_exhaustive()
    }
}

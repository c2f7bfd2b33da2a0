//! Streams.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use courser_core::ids::{StreamId, VARINT_MAX};
use courser_core::stream::Priority;
use courser_session::handle::Handle;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{ReadError, WriteError};
use crate::face::ConnRef;
use crate::hub::stream::{StreamSlot, Taken};

/// The sending half of a stream. Dropped without [`finish`](Self::finish), it is reset with code 0.
pub struct SendStream {
    slot: Arc<StreamSlot>,
    /// Keeps the connection open.
    _conn: ConnRef,
}

impl SendStream {
    pub(crate) const fn new(slot: Arc<StreamSlot>, conn: ConnRef) -> Self {
        Self { slot, _conn: conn }
    }

    /// What stands between this handle and the worker.
    #[cfg(feature = "h3")]
    pub(crate) const fn slot(&self) -> &Arc<StreamSlot> {
        &self.slot
    }

    /// Hands bytes over without copying them; waits until all are taken. Not cancel-safe.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write_chunk(&mut self, data: impl Into<Bytes>) -> Result<(), WriteError> {
        let mut data = data.into();
        while !data.is_empty() {
            self.write_chunk_part(&mut data).await?;
        }
        Ok(())
    }

    /// Takes bytes off the front of `data` without copying them, as many as there is room for; waits while there is none.
    /// Cancel-safe.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write_chunk_part(&mut self, data: &mut Bytes) -> Result<usize, WriteError> {
        poll_fn(|cx| self.slot.poll_write_owned(cx, data)).await
    }

    /// Nothing follows. What was written still arrives, also when the handle is dropped.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.slot.finish()
    }

    /// Waits until the peer has acknowledged everything, the end included, or all that
    /// [`reset_at`](Self::reset_at) promised. Closing afterwards loses nothing. Cancel-safe.
    ///
    /// # Errors
    /// [`WriteError::NotFinished`] before [`finish`](Self::finish), and what kept the data from arriving.
    pub async fn wait_acked(&mut self) -> Result<(), WriteError> {
        poll_fn(|cx| self.slot.poll_acked(cx)).await
    }

    /// Waits until the peer stops the stream and tells its code; `None` when the stream ended otherwise. Cancel-safe.
    ///
    /// # Errors
    /// When the connection ended.
    pub async fn stopped(&mut self) -> Result<Option<u64>, WriteError> {
        poll_fn(|cx| self.slot.poll_stopped(cx)).await
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
    /// use tokio::io::AsyncWriteExt;
    ///
    /// # async fn relay(send: &mut courser::aio::SendStream, got: &[u8]) -> std::io::Result<()> {
    /// send.write_all(got).await?;
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

impl AsyncWrite for SendStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.slot.poll_write(cx, buf).map_err(io::Error::from)
    }

    /// Sends what a corked stream gathered; does not wait for the peer.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.slot.flush().map_err(io::Error::from))
    }

    /// Finishes the stream; does not wait for the peer. Finishing twice is no error here.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.slot.finish() {
            Ok(()) | Err(WriteError::Finished) => Ok(()),
            Err(e) => Err(e.into()),
        })
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
}

impl RecvStream {
    pub(crate) const fn new(slot: Arc<StreamSlot>, conn: ConnRef) -> Self {
        Self { slot, _conn: conn, chunks: VecDeque::new() }
    }

    /// What stands between this handle and the worker.
    #[cfg(feature = "h3")]
    pub(crate) const fn slot(&self) -> &Arc<StreamSlot> {
        &self.slot
    }

    /// Ready when there are chunks; `false` at the end.
    fn poll_fill(&mut self, cx: &Context<'_>) -> Poll<Result<bool, ReadError>> {
        if !self.chunks.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let taken = ready!(self.slot.poll_take(cx, &mut self.chunks))?;
        Poll::Ready(Ok(matches!(taken, Taken::Chunks)))
    }

    /// The next bytes, in the piece in which they lie, without a copy; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        let any = poll_fn(|cx| self.poll_fill(cx)).await?;
        Ok(if any { self.chunks.pop_front() } else { None })
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

impl AsyncRead for RecvStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 || !ready!(self.poll_fill(cx))? {
            return Poll::Ready(Ok(()));
        }
        while buf.remaining() > 0
            && let Some(chunk) = self.chunks.front_mut()
        {
            let n = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk.split_to(n));
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.slot.drop_recv();
    }
}

impl std::fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvStream").field("id", &self.id()).finish_non_exhaustive()
    }
}

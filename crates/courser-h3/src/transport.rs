//! The byte contract between HTTP/3 and whatever carries its streams.

use bytes::Bytes;
use courser_core::ids::{Dir, StreamId};
use courser_core::stream::Priority;

/// What reading a stream gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes in order; at least one.
    Data(Bytes),
    /// Nothing now; the transport says when there is more.
    Blocked,
    /// Everything was read, and the peer finished the stream.
    End,
    /// The peer reset the stream with this code; what was not read is lost.
    Reset(u64),
    /// The connection ended.
    Closed,
}

/// Why a write was refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The peer wants no more of the stream, with this code.
    Stopped(u64),
    /// This end finished or reset the stream before, or never had it.
    Finished,
    /// The connection ended.
    Closed,
}

/// What HTTP/3 asks of a transport (RFC 9114 section 6). Calls never wait. A transport remembers which caller is to be woken
/// when what it refused becomes possible: it has what it needs for that in itself.
pub trait Transport {
    /// Opens a stream; `None` while the peer permits no more.
    fn open(&mut self, dir: Dir) -> Option<StreamId>;

    /// Takes the next bytes of a stream, in the piece in which they lie.
    fn read(&mut self, stream: StreamId) -> Read;

    /// Takes bytes off the front of `data` without copying them, as many as there is room for; says how many.
    ///
    /// # Errors
    /// See [`WriteError`].
    fn write(&mut self, stream: StreamId, data: &mut Bytes) -> Result<usize, WriteError>;

    /// Copies bytes of `data` as far as there is room; says how many.
    ///
    /// # Errors
    /// See [`WriteError`].
    fn write_copy(&mut self, stream: StreamId, data: &[u8]) -> Result<usize, WriteError>;

    /// Nothing follows on this stream; what was written still arrives.
    fn finish(&mut self, stream: StreamId);

    /// Gives up sending on this stream.
    fn reset(&mut self, stream: StreamId, code: u64);

    /// Asks the peer to send no more on this stream; what came is dropped.
    fn stop(&mut self, stream: StreamId, code: u64);

    /// How urgent the stream is among those of its connection (RFC 9218).
    fn set_priority(&mut self, stream: StreamId, priority: Priority);

    /// Sends an unreliable datagram; `false` when it cannot: the peer takes none, it is too large, or the queue is full.
    fn send_datagram(&mut self, data: Bytes) -> bool;

    /// Ends the connection with a code and a reason.
    fn close(&mut self, code: u64, reason: &str);
}

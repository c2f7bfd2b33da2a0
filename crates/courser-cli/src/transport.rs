//! What the programs of this crate need of a connection: nothing more than bytes on streams.
//!
//! [`Streams`] is the byte contract (open, write, peek, consume); an [`App`] is a program that runs on it, told of
//! events one at a time. Neither knows sockets, threads or time, so that the same program runs on the engine directly,
//! through a session port, and in tests on a pair of queues. "Would block" is a value; the end of a stream is an
//! event, not an error.

use bytes::Bytes;
use courser_core::ids::{Dir, StreamId};

use crate::failure::{Failure, Outcome};

/// Application error code with which an end of `--verify` says that bytes differ.
pub const CODE_DIFFERS: u64 = 0x6469_6666;
/// Application error code for a request that is refused: no such file, not a request, too long.
pub const CODE_REFUSED: u64 = 1;
/// Application error code of a client that was interrupted.
pub const CODE_INTERRUPTED: u64 = 3;

/// What there is to read on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek<'a> {
    /// Bytes, in order; never empty.
    Data(&'a [u8]),
    /// Nothing yet; a [`Event::Readable`] will come.
    Blocked,
    /// Everything was read and the peer ended the stream.
    End,
    /// The peer gave the stream up with this code.
    Reset(u64),
    /// There is no such stream, or not any more.
    Gone,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// So many bytes were taken; fewer than offered: a [`Event::Writable`] will come.
    Took(usize),
    /// The peer wants no more of this stream, with this code.
    Stopped(u64),
    /// There is no such stream, or not any more.
    Gone,
}

/// One connection, as its program sees it.
pub trait Streams {
    /// A new stream; `None` while the peer lets no more be open ([`Event::Credit`] will come) or the connection ends.
    fn open(&mut self, dir: Dir) -> Option<StreamId>;

    /// Copies bytes into the stream, as many as it takes now.
    fn write(&mut self, id: StreamId, data: &[u8]) -> Wrote;

    /// Hands bytes over without a copy; what was taken is cut off the front of `data`.
    fn write_owned(&mut self, id: StreamId, data: &mut Bytes) -> Wrote;

    /// Ends our direction after what was written; without effect on a stream that is gone.
    fn finish(&mut self, id: StreamId);

    /// What lies at the front, without taking it.
    fn peek(&mut self, id: StreamId) -> Peek<'_>;

    /// What [`Streams::peek`] shows, to be kept or handed on without a copy, where the transport gave it away as a piece of
    /// its own.
    fn piece(&self, _id: StreamId) -> Option<Bytes> {
        None
    }

    /// Takes `n` bytes of what [`Streams::peek`] showed.
    fn consume(&mut self, id: StreamId, n: usize);

    /// Gives our direction up.
    fn reset(&mut self, id: StreamId, code: u64);

    /// Asks the peer to send no more.
    fn stop(&mut self, id: StreamId, code: u64);

    /// Closes the connection.
    fn close(&mut self, code: u64, reason: &str);
}

/// Something that happened to a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The handshake is done.
    Connected,
    /// The peer opened a stream.
    Opened(StreamId),
    /// A stream has bytes, its end, or its reset.
    Readable(StreamId),
    /// A stream takes bytes again.
    Writable(StreamId),
    /// The peer lets more streams be open.
    Credit,
    /// Everything written to the stream, with its end, was acknowledged.
    Acked(StreamId),
    /// The peer wants no more of a stream.
    Stopped {
        /// Which.
        id: StreamId,
        /// Why.
        code: u64,
    },
    /// The connection ended.
    Closed(Failure),
}

/// A program on one connection.
pub trait App {
    /// Reacts to an event.
    ///
    /// # Errors
    /// The job failed; the connection is of no more use to this program.
    fn on<S: Streams>(&mut self, link: &mut S, event: Event) -> Outcome;

    /// Whether the job is done. A server's never is.
    fn done(&self) -> bool;
}

//! The sending half of a request stream.
//!
//! Content is not copied and not gathered: a DATA header is written, and as many of the caller's bytes as there is room for.
//! The rest of the frame is what the caller brings next. When the head declared a length, the content is one DATA frame.
//! Only what the connection makes itself (heads, trailers, DATA headers) waits here when the transport has no room.

use bytes::{Buf, Bytes, BytesMut};
use courser_core::ids::StreamId;

use super::config::Error;
use crate::frame::{Header, kind};
use crate::transport::{Transport, WriteError};
use crate::watch::Watcher;
use crate::wide;

/// Which part of a message is sent next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// A head.
    #[default]
    Head,
    /// Content, trailers, or the end.
    Body,
    /// The message is complete; perhaps a part of it still waits here.
    Ended,
    /// The transport was told of the end.
    Finished,
    /// Given up, or the peer wants no more.
    Dead,
}

/// The sending half.
#[derive(Debug, Default)]
pub(super) struct SendHalf {
    pub(super) stage: Stage,
    /// What the transport had no room for.
    pending: Bytes,
    /// Bytes that the open DATA frame still needs.
    frame_left: u64,
    /// Bytes of content that the head promised and that were not sent.
    pub(super) content_left: Option<u64>,
}

impl SendHalf {
    fn refused(&mut self, error: WriteError) -> Error {
        self.stage = Stage::Dead;
        self.pending = Bytes::new();
        match error {
            WriteError::Stopped(code) => Error::Stopped(code),
            WriteError::Finished => Error::Misuse("the stream was finished elsewhere"),
            WriteError::Closed => Error::Closed,
        }
    }

    /// Whether bytes wait for the transport.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Sends bytes of the connection's own; what there is no room for waits here.
    pub(super) fn push(&mut self, t: &mut dyn Transport, id: StreamId, bytes: &[u8]) -> Result<(), Error> {
        if self.pending.is_empty() {
            let taken = t.write_copy(id, bytes).map_err(|e| self.refused(e))?;
            let rest = bytes.get(taken..).unwrap_or_default();
            if !rest.is_empty() {
                self.pending = Bytes::copy_from_slice(rest);
            }
        } else {
            let mut joined = BytesMut::with_capacity(self.pending.len() + bytes.len());
            joined.extend_from_slice(&self.pending);
            joined.extend_from_slice(bytes);
            self.pending = joined.freeze();
        }
        Ok(())
    }

    /// Sends what waits, and the end behind it. Whether nothing waits any more.
    pub(super) fn flush(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<bool, Error> {
        if !self.pending.is_empty() {
            t.write(id, &mut self.pending).map_err(|e| self.refused(e))?;
        }
        if self.pending.is_empty() && self.stage == Stage::Ended {
            t.finish(id);
            self.stage = Stage::Finished;
        }
        Ok(self.pending.is_empty())
    }

    /// The header of the DATA frame that begins with `len` bytes at hand; the frame is open then.
    pub(super) fn open_frame(&mut self, len: usize) -> Result<Header, Error> {
        debug_assert_eq!(self.frame_left, 0, "a frame is open");
        let len = match self.content_left {
            Some(left) if wide(len) > left => return Err(Error::Misuse("more content than was declared")),
            Some(left) => left,
            None => wide(len),
        };
        self.frame_left = len;
        Ok(Header { kind: kind::DATA, len })
    }

    /// `n` bytes of content were written.
    pub(super) fn wrote(&mut self, n: usize) {
        debug_assert!(wide(n) <= self.frame_left, "content without a frame");
        self.frame_left = self.frame_left.saturating_sub(wide(n));
        if let Some(left) = &mut self.content_left {
            *left = left.saturating_sub(wide(n));
        }
    }

    /// Sends content off the front of `data`.
    pub(super) fn content(
        &mut self,
        t: &mut dyn Transport,
        id: StreamId,
        data: &mut Bytes,
        watch: &mut Watcher,
    ) -> Result<usize, Error> {
        let whole = data.len();
        while !data.is_empty() && self.flush(t, id)? {
            if self.frame_left == 0 {
                let header = self.open_frame(data.len())?;
                watch.frame(true, id, header.kind, header.len);
                let (head, n) = header.encode();
                self.push(t, id, &head[..n])?;
                continue;
            }
            let room = usize::try_from(self.frame_left).unwrap_or(usize::MAX);
            let taken = if data.len() <= room {
                t.write(id, data)
            } else if self.content_left.is_some() {
                return Err(Error::Misuse("more content than was declared"));
            } else {
                let mut part = data.slice(..room);
                let taken = t.write(id, &mut part);
                data.advance(*taken.as_ref().unwrap_or(&0));
                taken
            };
            let taken = taken.map_err(|e| self.refused(e))?;
            self.wrote(taken);
            if taken == 0 || (self.frame_left > 0 && !data.is_empty()) {
                break;
            }
        }
        Ok(whole - data.len())
    }

    /// The message is complete. An error when it is not what was declared.
    pub(super) fn end(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<(), Error> {
        self.check_complete()?;
        self.stage = Stage::Ended;
        self.flush(t, id).map(|_| ())
    }

    /// Whether all content was sent that was announced.
    pub(super) fn check_complete(&self) -> Result<(), Error> {
        if self.frame_left > 0 || self.content_left.is_some_and(|left| left > 0) {
            return Err(Error::Misuse("less content than was declared"));
        }
        Ok(())
    }

    /// Gives up sending, unless everything is with the transport.
    pub(super) fn abandon(&mut self, t: &mut dyn Transport, id: StreamId, code: u64) -> bool {
        let open = !matches!(self.stage, Stage::Finished | Stage::Dead);
        if open {
            t.reset(id, code);
            self.stage = Stage::Dead;
            self.pending = Bytes::new();
        }
        open
    }
}

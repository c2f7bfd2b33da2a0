//! The streams of a connection as HTTP/3 asks for them: the byte contract over slots of the hub.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use courser_core::ids::{Dir, StreamId, VARINT_MAX};
use courser_core::stream::Priority;
use courser_h3::transport::{Read, Transport, WriteError};
use rustc_hash::FxHashMap;

use crate::error;
use crate::face::ConnRef;
use crate::hub::stream::{StreamSlot, Taken};

/// A stream, and the chunks that were taken from it and not read.
pub(super) struct Channel {
    pub(super) slot: Arc<StreamSlot>,
    pub(super) chunks: VecDeque<Bytes>,
    /// How many handles of the application can still ask something of it.
    pub(super) users: u8,
}

impl Channel {
    pub(super) fn new(slot: Arc<StreamSlot>) -> Self {
        Self { slot, chunks: VecDeque::new(), users: 1 }
    }

    fn read(&mut self, cx: &Context<'_>) -> Read {
        if let Some(chunk) = self.chunks.pop_front() {
            return Read::Data(chunk);
        }
        match self.slot.poll_take(cx, &mut self.chunks) {
            Poll::Pending => Read::Blocked,
            Poll::Ready(Ok(Taken::Chunks)) => match self.chunks.pop_front() {
                Some(chunk) => Read::Data(chunk),
                None => Read::Blocked,
            },
            Poll::Ready(Ok(Taken::Fin) | Err(error::ReadError::Stopped)) => Read::End,
            Poll::Ready(Err(error::ReadError::Reset(code))) => Read::Reset(code),
            Poll::Ready(Err(error::ReadError::Closed(_))) => Read::Closed,
        }
    }
}

/// All streams that HTTP/3 knows, by number.
pub(super) type Channels = FxHashMap<StreamId, Channel>;

/// The transport for one call. What blocks wakes `waker` when it is of the stream in hand, and the connection's driver
/// otherwise: a slot has one waiter for each half, and the streams that all requests share are the driver's.
pub(super) struct Carrier<'a> {
    pub(super) channels: &'a mut Channels,
    pub(super) conn: &'a ConnRef,
    /// The stream that the caller works on.
    pub(super) own: Option<StreamId>,
    pub(super) waker: &'a Waker,
    pub(super) driver: &'a Waker,
    /// A stream that was opened beforehand, for the request that is about to be sent.
    pub(super) spare: Option<Arc<StreamSlot>>,
}

impl Carrier<'_> {
    /// The stream with the context in which to wait for it.
    fn with<T>(&mut self, stream: StreamId, f: impl FnOnce(&mut Channel, &Context<'_>) -> T) -> Option<T> {
        let channel = self.channels.get_mut(&stream)?;
        let waker = if self.own == Some(stream) { self.waker } else { self.driver };
        Some(f(channel, &Context::from_waker(waker)))
    }

    /// Writes until everything is taken, or until the slot remembers whom to wake.
    fn write_until(
        &mut self,
        stream: StreamId,
        mut write: impl FnMut(&mut Channel, &Context<'_>) -> Option<Poll<Result<usize, error::WriteError>>>,
    ) -> Result<usize, WriteError> {
        let written = self.with(stream, |channel, cx| {
            let mut all = 0;
            loop {
                match write(channel, cx) {
                    Some(Poll::Ready(Ok(n))) => all += n,
                    Some(Poll::Pending) | None => return Ok(all),
                    Some(Poll::Ready(Err(e))) => return Err(e),
                }
            }
        });
        match written {
            Some(Ok(n)) => Ok(n),
            Some(Err(error::WriteError::Stopped(code))) => Err(WriteError::Stopped(code)),
            Some(Err(error::WriteError::Closed(_))) => Err(WriteError::Closed),
            Some(Err(_)) | None => Err(WriteError::Finished),
        }
    }
}

impl Transport for Carrier<'_> {
    fn open(&mut self, dir: Dir) -> Option<StreamId> {
        let slot = match (self.spare.take(), dir) {
            (Some(slot), Dir::Bi) => slot,
            _ => match self.conn.0.opener(dir).poll(&Context::from_waker(self.driver)) {
                Poll::Ready(Ok(slot)) => slot,
                _ => return None,
            },
        };
        let id = slot.id;
        self.channels.insert(id, Channel::new(slot));
        Some(id)
    }

    fn read(&mut self, stream: StreamId) -> Read {
        self.with(stream, |channel, cx| channel.read(cx)).unwrap_or(Read::End)
    }

    fn write(&mut self, stream: StreamId, data: &mut Bytes) -> Result<usize, WriteError> {
        self.write_until(stream, |channel, cx| (!data.is_empty()).then(|| channel.slot.poll_write_owned(cx, data)))
    }

    fn write_copy(&mut self, stream: StreamId, data: &[u8]) -> Result<usize, WriteError> {
        let mut at = 0;
        self.write_until(stream, |channel, cx| {
            let rest = data.get(at..).filter(|rest| !rest.is_empty())?;
            let polled = channel.slot.poll_write(cx, rest);
            if let Poll::Ready(Ok(n)) = polled {
                at += n;
            }
            Some(polled)
        })
    }

    fn finish(&mut self, stream: StreamId) {
        if let Some(channel) = self.channels.get(&stream) {
            // Finishing twice changes nothing, and whoever writes hears of the other reasons.
            let _ = channel.slot.finish();
        }
    }

    fn reset(&mut self, stream: StreamId, code: u64) {
        if let Some(channel) = self.channels.get(&stream) {
            channel.slot.reset(code.min(VARINT_MAX));
        }
    }

    fn stop(&mut self, stream: StreamId, code: u64) {
        if let Some(channel) = self.channels.get_mut(&stream) {
            channel.chunks.clear();
            channel.slot.stop(code.min(VARINT_MAX));
        }
    }

    fn set_priority(&mut self, stream: StreamId, priority: Priority) {
        if let Some(channel) = self.channels.get(&stream) {
            channel.slot.set_priority(priority);
        }
    }

    fn send_datagram(&mut self, data: Bytes) -> bool {
        self.conn.0.try_send_datagram(&data, None).unwrap_or(false)
    }

    fn close(&mut self, code: u64, reason: &str) {
        self.conn.close(code, reason.as_bytes());
    }
}

//! What the application is told.
//!
//! Each event waits at most once per stream and kind, so the queue is bounded by the number of streams. An event of a
//! stream that is gone by the time it is asked for is left out, except for those that tell of an end.

use std::collections::VecDeque;

use super::extent::Extent;
use crate::ids::{Dir, StreamId};

/// Something that happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamEvent {
    /// The peer opened streams; `accept` gives them.
    Opened {
        /// Of which direction.
        dir: Dir,
    },
    /// There is something to read: data, the end, or a reset.
    Readable(StreamId),
    /// A write that took less than it was given can go on.
    Writable(StreamId),
    /// The peer does not want more of this stream; it was reset here.
    Stopped {
        /// The stream.
        id: StreamId,
        /// The peer's error code.
        code: u64,
    },
    /// Everything written arrived, the end included. Comes exactly once.
    AllAcked(StreamId),
    /// What a partial reset promised arrived, and the peer knows of the reset. Comes at most once, and not when `AllAcked`
    /// does.
    ResetDelivered(StreamId),
    /// A stream that was metered is over. Comes exactly once for each.
    Settled {
        /// The stream.
        id: StreamId,
        /// How far it went.
        extent: Extent,
    },
    /// A stream can be opened, after `open` had said no.
    Available {
        /// Of which direction.
        dir: Dir,
    },
}

/// The events that wait.
#[derive(Debug, Default)]
pub(super) struct Events {
    queue: VecDeque<StreamEvent>,
    /// Whether `Opened` waits, per direction.
    opened: [bool; 2],
}

impl Events {
    pub(super) fn push(&mut self, event: StreamEvent) {
        self.queue.push_back(event);
    }

    /// Queues `Opened` unless it waits already.
    pub(super) fn push_opened(&mut self, dir: Dir) {
        if !core::mem::replace(&mut self.opened[dir as usize], true) {
            self.push(StreamEvent::Opened { dir });
        }
    }

    pub(super) fn pop(&mut self) -> Option<StreamEvent> {
        let event = self.queue.pop_front()?;
        if let StreamEvent::Opened { dir } = event {
            self.opened[dir as usize] = false;
        }
        Some(event)
    }

    pub(super) fn shrink(&mut self) {
        self.queue.shrink_to_fit();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

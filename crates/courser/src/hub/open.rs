//! Opening streams without asking the worker.
//!
//! Streams are numbered in the order in which they are opened, and the peer tells how many there may be. So a handle
//! that wants one takes the next number below the limit that the worker published, and the stream waits in `begun` until
//! something happens on it. Then the worker opens everything that was begun, in order: the numbers agree, because nobody
//! else opens streams of this connection. A stream on which nothing ever happens costs nothing.
//!
//! Whoever finds no number left waits in line and calls the worker. The worker first opens what was begun; what it then
//! asks the engine for in vain is what the peer hears of (STREAMS_BLOCKED).

use std::sync::Arc;
use std::task::{Context, Poll};

use courser_core::ids::{Dir, StreamId};

use super::conn::{ConnSlot, Topic};
use super::stream::StreamSlot;
use crate::error::ConnectionError;
use crate::wait::lock;

/// The streams of one direction that this end opens.
#[derive(Default)]
pub(super) struct Openings {
    /// Number of the next one.
    next: u64,
    /// As many there may be, as far as the worker has told.
    limit: u64,
    /// How many wait for one.
    openers: u64,
    /// Those that the worker has not opened, in order.
    pub(super) begun: Vec<Arc<StreamSlot>>,
}

impl Openings {
    const fn room(&self) -> u64 {
        self.limit.saturating_sub(self.next)
    }

    /// Takes note of how many more streams the engine would open now; whether anybody waits for that.
    pub(super) fn set_room(&mut self, room: u64) -> bool {
        let opened = self.next - self.begun.len() as u64;
        self.limit = self.limit.max(opened + room);
        self.openers > 0 && self.room() > 0
    }

    /// Whether somebody waits in vain.
    pub(super) const fn is_short(&self) -> bool {
        self.openers > 0 && self.room() == 0
    }
}

/// A place in the line of those who want a stream of their own.
pub(crate) struct Opener {
    slot: Arc<ConnSlot>,
    dir: Dir,
    waiting: bool,
}

impl Opener {
    pub(super) const fn new(slot: Arc<ConnSlot>, dir: Dir) -> Self {
        Self { slot, dir, waiting: false }
    }

    /// A new stream. An opener that is dropped while it waits leaves its turn to the others.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Arc<StreamSlot>, ConnectionError>> {
        let mut state = lock(&self.slot.state);
        if let Some(e) = self.slot.close_reason() {
            return Poll::Ready(Err(e.clone()));
        }
        let Some(side) = self.slot.side() else { return Poll::Pending };
        let openings = &mut state.openings[self.dir as usize];
        // Who has not waited takes only what no waiter counts on.
        let counted_on = if self.waiting { 0 } else { openings.openers };
        if openings.room() > counted_on {
            let id = StreamId::new(side, self.dir, openings.next);
            let stream = StreamSlot::new(Arc::clone(&self.slot), id, side);
            openings.next += 1;
            openings.openers -= u64::from(std::mem::take(&mut self.waiting));
            openings.begun.push(Arc::clone(&stream));
            if openings.is_short() {
                // The others' wish has to reach the engine.
                drop(state);
                self.slot.kick();
            }
            return Poll::Ready(Ok(stream));
        }
        let fresh = !std::mem::replace(&mut self.waiting, true);
        openings.openers += u64::from(fresh);
        state.waiters[Topic::open(self.dir) as usize].add(cx);
        if fresh {
            drop(state);
            self.slot.kick();
        }
        Poll::Pending
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        if self.waiting {
            lock(&self.slot.state).openings[self.dir as usize].openers -= 1;
        }
    }
}

//! How far a stream went: what is counted by limits that lie above those of QUIC.
//!
//! A protocol that gives groups of its streams limits of their own, as WebTransport does, has to count what both ends count.
//! For streams that were reset or stopped that is their final size, of which a reader never hears. [`Streams::extent`] tells it
//! while the stream has state; a stream that was [metered](Streams::meter) tells it once more with its last event.

use super::events::StreamEvent;
use super::map::Streams;
use super::phase::SendPhase;
use crate::error::ApiMisuse;
use crate::ids::StreamId;

/// Bytes of a stream in each direction, as its final sizes will count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extent {
    /// What was written here; of a stream that was reset, what had left by then.
    pub sent: u64,
    /// The highest offset that came, or the final size when it is known.
    pub received: u64,
}

impl Streams {
    /// Has the stream tell its extent with [`StreamEvent::Settled`] when it is over, and with
    /// [`StreamEvent::Readable`] when more comes although reading was stopped.
    ///
    /// # Errors
    /// [`ApiMisuse::UnknownStream`] when it is over already.
    pub fn meter(&mut self, id: StreamId) -> Result<(), ApiMisuse> {
        let slot = self.app_slot(id)?;
        self.table[slot].metered = true;
        Ok(())
    }

    /// How far the stream went; `None` when it is over, or has no state yet.
    #[must_use]
    pub fn extent(&self, id: StreamId) -> Option<Extent> {
        self.table.lookup(id).map(|stream| {
            let sent = match stream.send.phase {
                SendPhase::ResetSent { .. } | SendPhase::ResetRecvd => stream.send.state.next(),
                _ => stream.send.state.end(),
            };
            Extent { sent, received: stream.recv.state.highest() }
        })
    }

    /// More came of a stream that nobody reads any more.
    pub(super) fn tell_metered(&mut self, slot: u32) {
        let stream = &mut self.table[slot];
        if stream.metered && !core::mem::replace(&mut stream.told_readable, true) {
            let id = stream.id;
            self.events.push(StreamEvent::Readable(id));
        }
    }

    /// The stream is over.
    pub(super) fn settle_metered(&mut self, slot: u32) {
        let stream = &self.table[slot];
        if !stream.metered {
            return;
        }
        let id = stream.id;
        let extent = self.extent(id).unwrap_or_default();
        self.events.push(StreamEvent::Settled { id, extent });
    }
}

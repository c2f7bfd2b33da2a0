//! Frames that tell the peer about the connection's streams as a whole.
//!
//! Nothing is queued: each is asked for while a packet is built, and carries the newest value.

use super::StreamEvent;
use super::map::{Remote, Streams};
use crate::ids::{Dir, StreamId};
use crate::spans::{Fate, FrameKind};

impl Streams {
    /// The peer's limit on streams grew.
    pub(super) fn raise_streams(&mut self, dir: Dir, max: u64) {
        let local = &mut self.local[dir as usize];
        let held = local.credit.used().saturating_sub(local.credit.limit());
        if !local.credit.raise(max) {
            return;
        }
        if core::mem::take(&mut local.wanted) {
            self.events.push(StreamEvent::Available { dir });
        }
        if held > 0 {
            // Streams that a rejected 0-RTT left beyond the limit may go now.
            for slot in self.table.slots() {
                self.update_send(slot);
                self.update_control(slot);
            }
        }
    }

    /// Whether a rejected 0-RTT left that stream beyond the peer's limit: no frame may name it before the limit grows.
    pub(super) fn is_beyond(&self, id: StreamId) -> bool {
        id.initiator() == self.side && id.index() >= self.local[id.dir() as usize].credit.limit()
    }

    /// Whether a frame of this kind is due, and its value. Only for the kinds that belong to the connection:
    /// MAX_DATA, DATA_BLOCKED, MAX_STREAMS and STREAMS_BLOCKED.
    #[must_use]
    pub fn due(&self, kind: FrameKind) -> Option<u64> {
        let streams = |dir: Dir| {
            let remote = &self.remote[dir as usize];
            remote.is_due().then(|| remote.next_limit())
        };
        match kind {
            FrameKind::MaxData => self
                .recv_credit
                .is_due()
                .then(|| self.recv_credit.next_limit(self.demand.bytes(self.received), self.conn_window_max)),
            FrameKind::DataBlocked => self.send_credit.blocked().due(),
            FrameKind::MaxStreamsBidi => streams(Dir::Bi),
            FrameKind::MaxStreamsUni => streams(Dir::Uni),
            FrameKind::StreamsBlockedBidi => self.local[Dir::Bi as usize].credit.blocked().due(),
            FrameKind::StreamsBlockedUni => self.local[Dir::Uni as usize].credit.blocked().due(),
            _ => None,
        }
    }

    /// Whether any frame of the connection is due; cheaper than asking for each.
    #[must_use]
    pub fn any_due(&self) -> bool {
        self.recv_credit.is_due()
            || self.send_credit.blocked().due().is_some()
            || self.remote.iter().any(Remote::is_due)
            || self.local.iter().any(|l| l.credit.blocked().due().is_some())
    }

    /// A frame with the value of [`Self::due`] left.
    pub fn mark_sent(&mut self, kind: FrameKind) {
        let mut streams = |dir: Dir| {
            let remote = &mut self.remote[dir as usize];
            (remote.limit, remote.lost) = (remote.next_limit(), false);
        };
        match kind {
            FrameKind::MaxData => {
                self.recv_credit.advance(self.demand.bytes(self.received), self.conn_window_max);
            }
            FrameKind::DataBlocked => self.send_credit.blocked_mut().on_sent(),
            FrameKind::MaxStreamsBidi => streams(Dir::Bi),
            FrameKind::MaxStreamsUni => streams(Dir::Uni),
            FrameKind::StreamsBlockedBidi => self.local[Dir::Bi as usize].credit.blocked_mut().on_sent(),
            FrameKind::StreamsBlockedUni => self.local[Dir::Uni as usize].credit.blocked_mut().on_sent(),
            _ => debug_assert!(false, "{kind:?} does not belong to the connection's streams"),
        }
    }

    /// What became of a packet with such a frame. A lost one is due again, with the newest value, while it is needed.
    pub fn on_frame_fate(&mut self, kind: FrameKind, fate: Fate) {
        if fate == Fate::Acked {
            return;
        }
        match kind {
            FrameKind::MaxData => self.recv_credit.again(),
            FrameKind::DataBlocked => self.send_credit.blocked_mut().again(),
            FrameKind::MaxStreamsBidi => self.remote[Dir::Bi as usize].lost = true,
            FrameKind::MaxStreamsUni => self.remote[Dir::Uni as usize].lost = true,
            FrameKind::StreamsBlockedBidi => self.local[Dir::Bi as usize].credit.blocked_mut().again(),
            FrameKind::StreamsBlockedUni => self.local[Dir::Uni as usize].credit.blocked_mut().again(),
            _ => {}
        }
    }

    /// Makes the DATA_BLOCKED and STREAM_DATA_BLOCKED frames due again that are still true; for a connection that is
    /// blocked while nothing is in flight, so that it is not taken for idle.
    pub fn repeat_blocked(&mut self) {
        //= rfc9000#4.1-5
        self.send_credit.blocked_mut().again();
        for slot in self.table.slots() {
            self.table[slot].send.credit.blocked_mut().again();
            self.update_control(slot);
        }
    }
}

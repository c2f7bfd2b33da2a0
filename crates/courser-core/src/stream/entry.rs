//! One stream: two parts, of which a one-way stream uses one.

use super::flow::{RecvCredit, SendCredit};
use super::phase::{RecvPhase, SendEvent, SendPhase};
use super::recv_state::RecvState;
use super::send_state::{Fin, SendState};
use crate::buf::{Reassembly, SendBuffer};
use crate::ids::{Side, StreamId};
use crate::wire::frame::Frame;

/// How urgent a stream is (in the spirit of RFC 9218).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Priority {
    /// 0 to 7; lower ones go first. Larger numbers count as 7.
    pub urgency: u8,
    /// Whether the stream shares the connection with others of its urgency; otherwise they go one after the other.
    pub incremental: bool,
}

impl Default for Priority {
    fn default() -> Self {
        Self { urgency: 3, incremental: true }
    }
}

/// A reset that still delivers the beginning of its stream (RESET_STREAM_AT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialReset {
    /// The application's error code; that of the first frame counts.
    pub code: u64,
    /// Bytes that are delivered; can only shrink.
    pub reliable_size: u64,
}

/// A frame that is repeated until it arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Repeat {
    #[default]
    Idle,
    Due,
    Sent,
    Acked,
}

impl Repeat {
    /// A frame was lost, or arrived.
    pub(super) fn on_fate(&mut self, arrived: bool) {
        match (*self, arrived) {
            (Self::Idle, _) => {}
            (_, true) => *self = Self::Acked,
            (Self::Sent, false) => *self = Self::Due,
            (_, false) => {}
        }
    }
}

/// What a stream could send now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Nothing,
    /// Data, but the stream's credit is used up.
    StreamCredit,
    /// Data, but the connection's credit is used up.
    ConnCredit,
    Send,
}

#[derive(Debug, Default)]
pub(super) struct SendPart {
    pub(super) state: SendState,
    pub(super) phase: SendPhase,
    pub(super) credit: SendCredit,
    /// The bytes; absent while everything arrived.
    pub(super) buffer: Option<Box<SendBuffer>>,
    /// Corked: bytes before this offset may leave in frames that are not full.
    pub(super) flushed: u64,
    /// The code of the peer's STOP_SENDING plus one; zero: none came.
    pub(super) stopped: u64,
    /// RESET_STREAM, or RESET_STREAM_AT as long as STREAM frames may leave.
    pub(super) reset: Repeat,
    /// The application's partial reset; most streams have none.
    pub(super) partial: Option<Box<PartialReset>>,
    pub(super) corked: bool,
    /// A write took less than it was given: the application waits.
    pub(super) wants_room: bool,
}

#[derive(Debug)]
pub(super) struct RecvPart {
    pub(super) state: RecvState,
    pub(super) credit: RecvCredit,
    /// The bytes; absent until the first came.
    pub(super) bytes: Option<Box<Reassembly>>,
    /// The code of our STOP_SENDING.
    pub(super) stop_code: u64,
    pub(super) stop: Repeat,
    /// The peer's partial reset; most streams have none.
    pub(super) partial: Option<Box<PartialReset>>,
}

impl SendPart {
    /// The frame that resets the stream, when one is due.
    pub(super) fn reset_frame(&self, id: StreamId) -> Option<Frame<'static>> {
        if self.reset != Repeat::Due {
            return None;
        }
        match (self.phase, &self.partial) {
            (SendPhase::ResetSent { code, final_size }, _) => Some(Frame::ResetStream { id, code, final_size }),
            // The final size counts as sent, so it must be within the peer's limits: the frame waits until the data got so
            // far, as FIN does.
            //= reset-stream-at#4-2
            (phase, Some(partial)) if phase.may_send() && self.state.next() == self.state.end() => {
                let PartialReset { code, reliable_size } = **partial;
                Some(Frame::ResetStreamAt { id, code, final_size: self.state.end(), reliable_size })
            }
            _ => None,
        }
    }

    /// Whether everything arrived that has to.
    pub(super) fn is_done(&self) -> bool {
        let kept = |p: &PartialReset| self.reset == Repeat::Acked && self.state.acked_to() >= p.reliable_size;
        self.state.is_all_acked() || self.partial.as_deref().is_some_and(kept)
    }
}

impl RecvPart {
    /// Offset of the next byte to read.
    pub(super) fn base(&self) -> u64 {
        self.bytes.as_ref().map_or(0, |b| b.base())
    }

    /// Where reading ends although the stream may be longer: behind what a partial reset promised, or where the application
    /// already is.
    pub(super) fn read_limit(&self) -> Option<u64> {
        self.partial.as_ref().map(|p| p.reliable_size.max(self.base()))
    }

    /// The state follows what came.
    pub(super) fn note_ready(&mut self) {
        let ready = self.bytes.as_ref().map_or(0, |b| b.ready());
        match &self.partial {
            Some(partial) if ready >= partial.reliable_size => self.state.on_enough(),
            Some(_) => {}
            None => self.state.on_ready(ready),
        }
    }

    /// The code of the partial reset that stands behind the bytes, when they are all there.
    pub(super) fn reset_behind(&self) -> Option<u64> {
        let arrived = matches!(self.state.phase(), RecvPhase::DataRecvd { .. });
        self.partial.as_ref().filter(|_| arrived).map(|p| p.code)
    }
}

/// Everything about one stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) send: SendPart,
    pub(super) recv: RecvPart,
    pub(super) priority: Priority,
    /// Waits in the event queue to be reported readable.
    pub(super) told_readable: bool,
    /// Waits in the event queue to be reported writable.
    pub(super) told_writable: bool,
    /// Waits for the pool to have room.
    pub(super) starved: bool,
    /// On the list of those that wait for room of the connection.
    pub(super) short: bool,
    /// Has data that only lacks credit of the stream.
    pub(super) lacks_credit: bool,
    /// It may be among those that wait for a turn to send.
    pub(super) takes_turns: bool,
    /// Bytes came in 0-RTT packets.
    pub(super) early: bool,
    /// Its extent is told at its end.
    pub(super) metered: bool,
}

impl Stream {
    pub(super) fn new(id: StreamId, send_limit: u64, recv: RecvCredit) -> Self {
        Self {
            id,
            send: SendPart { credit: SendCredit::new(send_limit), ..SendPart::default() },
            recv: RecvPart {
                state: RecvState::default(),
                credit: recv,
                bytes: None,
                stop_code: 0,
                stop: Repeat::Idle,
                partial: None,
            },
            priority: Priority::default(),
            told_readable: false,
            told_writable: false,
            starved: false,
            short: false,
            lacks_credit: false,
            takes_turns: false,
            early: false,
            metered: false,
        }
    }

    /// Whether nothing will ever be sent again, for this side.
    pub(super) fn send_done(&self, side: Side) -> bool {
        !self.id.sends(side) || self.send.phase.is_terminal()
    }

    /// Whether nothing more is to be received, or nobody cares.
    pub(super) fn recv_done(&self, side: Side) -> bool {
        let phase = self.recv.state.phase();
        let abandoned = self.recv.stop != Repeat::Idle
            && match phase {
                RecvPhase::ResetRecvd { .. } | RecvPhase::DataRecvd { .. } => true,
                RecvPhase::SizeKnown { .. } => self.recv.stop == Repeat::Acked,
                _ => false,
            };
        !self.id.receives(side) || phase.is_terminal() || abandoned
    }

    /// Whether MAX_STREAM_DATA still means something to the peer.
    pub(super) fn credit_due(&self) -> bool {
        self.recv.state.phase() == RecvPhase::Recv && self.recv.stop == Repeat::Idle && self.recv.credit.is_due()
    }

    /// Whether a frame other than STREAM is due.
    pub(super) fn control_due(&self) -> bool {
        self.send.reset_frame(self.id).is_some()
            || self.recv.stop == Repeat::Due
            || self.send.credit.blocked().due().is_some()
            || self.credit_due()
    }

    /// What the stream could send; `full_frame` is how many bytes make a corked stream move.
    pub(super) fn want(&self, conn_room: u64, full_frame: u64) -> Want {
        let s = &self.send;
        if !s.phase.may_send() {
            return Want::Nothing;
        }
        if s.state.has_lost() {
            return Want::Send;
        }
        let unsent = s.state.end() - s.state.next();
        if unsent == 0 {
            return if s.state.fin() == Fin::Pending { Want::Send } else { Want::Nothing };
        }
        let held = s.corked && s.state.fin() == Fin::Open && s.state.next() >= s.flushed && unsent < full_frame;
        if held {
            Want::Nothing
        } else if s.credit.room() == 0 {
            Want::StreamCredit
        } else if conn_room == 0 {
            Want::ConnCredit
        } else {
            Want::Send
        }
    }

    /// Moves the sending part on; the state machine knows every event that this module makes.
    pub(super) fn step_send(&mut self, event: SendEvent) -> bool {
        match self.send.phase.on(event) {
            Ok(next) => {
                self.send.phase = next;
                true
            }
            Err(_) => false,
        }
    }

    /// The peer threw away everything that was sent and grants this much (rejected 0-RTT).
    pub(super) fn restart(&mut self, limit: u64) {
        let send = &mut self.send;
        send.state.rewind();
        send.credit.restart(limit, 0);
        send.phase = match send.phase {
            SendPhase::DataSent => SendPhase::Send,
            // The peer never saw the frame, and no byte counts any more.
            SendPhase::ResetSent { code, .. } => SendPhase::ResetSent { code, final_size: 0 },
            other => other,
        };
        if let Some(partial) = &send.partial {
            send.state.cut(partial.reliable_size);
        }
        for frame in [&mut send.reset, &mut self.recv.stop] {
            frame.on_fate(false);
        }
    }

    /// Bytes buffered that never left.
    pub(super) fn unsent(&self) -> u64 {
        self.send.buffer.as_ref().map_or(0, |_| self.send.state.end() - self.send.state.next())
    }

    /// Bytes buffered for sending.
    pub(super) fn buffered(&self) -> u64 {
        self.send.buffer.as_ref().map_or(0, |b| b.len())
    }

    /// Bytes that can be read.
    pub(super) fn readable(&self) -> u64 {
        self.recv.bytes.as_ref().map_or(0, |b| b.readable())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_stream_is_small() {
        assert!(size_of::<Stream>() <= 256, "{}", size_of::<Stream>());
    }

    #[test]
    fn a_repeated_frame_is_due_until_it_arrived() {
        let mut r = Repeat::Sent;
        r.on_fate(false);
        assert_eq!(r, Repeat::Due);
        r.on_fate(true);
        assert_eq!(r, Repeat::Acked, "a late acknowledgement cancels the repetition");
        r.on_fate(false);
        assert_eq!(r, Repeat::Acked);
    }
}

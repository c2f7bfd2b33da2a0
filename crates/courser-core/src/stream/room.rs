//! How much streams buffer for sending.
//!
//! What cannot leave is worth little in a buffer, and a peer that asks for much and reads nothing would have it kept for ever.
//! So there are four limits, and the narrowest holds:
//!
//! - the window of the stream, which follows the path;
//! - the peer's credit for the stream and a little beyond it, of which all streams share a little more;
//! - the same for the credit of the connection;
//! - what all streams hold together, sent or not. Where that is used up each stream still has a share of its own, so that
//!   those which nobody reads do not stop the others.

use super::Streams;
use super::entry::Stream;
use super::events::StreamEvent;
use crate::ids::{StreamId, VARINT_MAX};

/// A stream always may hold this much, whatever the settings say.
pub(super) const WINDOW_MIN: u64 = 64 << 10;
/// A stream never holds more than this, however fast the path is.
pub(super) const WINDOW_MAX: u64 = 64 << 20;
/// What a stream holds beyond its credit: it leaves at once when more is granted.
const AHEAD: u64 = 64 << 10;
/// What all streams hold beyond the credit of the connection, and what may be unsent for a stream to hold anything beyond its own.
const ALL_AHEAD: u64 = 256 << 10;
/// What a stream may hold when all together hold too much.
const SHARE: u64 = 32 << 10;
/// All streams together hold so many windows of one.
const WINDOWS: u64 = 2;

impl Streams {
    /// How many bytes a stream should buffer for sending: some round trips' worth.
    pub fn set_send_target(&mut self, bytes: u64) {
        self.send_target = bytes;
    }

    fn window_now(&self) -> u64 {
        self.send_target.clamp(self.send_window, WINDOW_MAX)
    }

    /// Bytes that the stream's buffer takes now.
    pub(super) fn room_of(&self, stream: &Stream) -> u64 {
        self.room(stream.buffered(), stream.send.state.end(), stream.send.credit.limit())
    }

    /// What a stream takes that nothing was written to.
    pub(super) fn room_of_new(&self, id: StreamId) -> u64 {
        self.room(0, 0, self.initial_limit(id))
    }

    fn room(&self, held: u64, end: u64, limit: u64) -> u64 {
        let window = self.window_now();
        let together = (WINDOWS * window).saturating_sub(self.buffered_out).max(SHARE.saturating_sub(held));
        let ahead = ALL_AHEAD.saturating_sub(self.unsent).min(AHEAD);
        let credit = limit.saturating_add(ahead).saturating_sub(end);
        window.saturating_sub(held).min(together).min(credit).min(self.room_of_all()).min(VARINT_MAX - end)
    }

    /// Bytes that all streams together take for the credit of the connection.
    fn room_of_all(&self) -> u64 {
        self.send_credit.room().saturating_add(ALL_AHEAD).saturating_sub(self.unsent)
    }

    /// A write took less than it was given.
    pub(super) fn wait_for_room(&mut self, slot: u32) {
        self.table[slot].send.wants_room = true;
        if self.room_of_all() < SHARE {
            self.wait_for_all(slot);
        }
    }

    fn wait_for_all(&mut self, slot: u32) {
        let stream = &mut self.table[slot];
        if !core::mem::replace(&mut stream.short, true) {
            self.short.push(stream.id);
        }
    }

    /// The connection has more room: streams that wait for it are told.
    pub(super) fn tell_short(&mut self) {
        if self.short.is_empty() {
            return;
        }
        let mut waiting = core::mem::take(&mut self.short);
        waiting.retain(|id| {
            let Some(slot) = self.table.find(*id) else { return false };
            // It counts as one of these until here, so that it is not put on the list a second time.
            self.tell_writable(slot);
            let stream = &mut self.table[slot];
            stream.short = stream.send.wants_room;
            stream.short
        });
        self.short = waiting;
    }

    /// Tells the application that it can write, when it waits and there is room that is worth a call: any where the stream has
    /// nothing to send, half of its share where credit or the others hold it down, or else a quarter of the window.
    pub(super) fn tell_writable(&mut self, slot: u32) {
        let stream = &self.table[slot];
        if !stream.send.wants_room || stream.starved || stream.told_writable {
            return;
        }
        let (room, own) = (self.room_of(stream), self.window_now().saturating_sub(stream.buffered()));
        let enough = match stream.unsent() {
            0 => 1,
            _ if room < own => SHARE / 2,
            _ => self.send_window / 4,
        };
        if room >= enough {
            let stream = &mut self.table[slot];
            (stream.send.wants_room, stream.told_writable) = (false, true);
            self.events.push(StreamEvent::Writable(stream.id));
        } else if self.room_of_all() < enough {
            self.wait_for_all(slot);
        }
    }
}

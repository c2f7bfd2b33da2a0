//! A stream that is given up, with or without a promise for its beginning.
//!
//! A promise is told to the engine behind the bytes that it needs; what was written beyond them is dropped at once. The slot
//! stays in the books until the peer has what was promised, so that a connection without handles lingers for it.

use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use courser_core::engine::Engine;
use courser_core::error::ApiMisuse;
use courser_core::ids::ConnKey;
use courser_core::stream as core_stream;

use super::{SENT, SendEnd, SendHalf, StreamSlot};
use crate::error::WriteError;
use crate::wait::{Woken, lock};

/// How the application gave up sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivingUp {
    /// The first code that it said.
    pub(super) code: u64,
    /// Bytes that arrive all the same; zero: none.
    pub(super) reliable_size: u64,
    /// The engine knows.
    told: bool,
}

impl GivingUp {
    /// Whether something has to arrive.
    pub(super) const fn delivers(self) -> bool {
        self.reliable_size > 0
    }
}

impl SendHalf {
    /// Drops what is queued here behind the first `reliable` bytes of the stream; how many bytes went.
    fn shorten(&mut self, reliable: u64) -> usize {
        if !self.tail.is_empty() {
            let gathered = self.tail.split().freeze();
            self.out.push_back(gathered);
        }
        // Bytes that the worker has in its hands right now count as held, and lie before those that are queued.
        let queued: usize = self.out.iter().map(Bytes::len).sum();
        let start = self.written - queued as u64;
        let mut room = usize::try_from(reliable.saturating_sub(start)).unwrap_or(usize::MAX);
        for piece in &mut self.out {
            piece.truncate(room);
            room -= piece.len();
        }
        self.out.retain(|piece| !piece.is_empty());
        let gone = queued - self.out.iter().map(Bytes::len).sum::<usize>();
        self.held -= gone;
        self.written -= gone as u64;
        gone
    }
}

/// The code with which a handle that is dropped gives a stream up: 0 as applications say it.
const fn dropped_code(of_session: bool) -> u64 {
    #[cfg(feature = "h3")]
    if of_session {
        return courser_h3::webtransport::to_wire(0);
    }
    let _ = of_session;
    0
}

impl StreamSlot {
    /// Gives up sending; without effect after the end.
    pub(crate) fn reset(self: &Arc<Self>, code: u64) {
        let mut send = lock(&self.send);
        let head = send.account.as_ref().map_or(0, |account| account.head);
        if head > 0 && send.written >= head && self.conn.can_reset_at() {
            drop(send);
            // What says to whom the stream belongs has to arrive, and with it what the stream counts for.
            if self.reset_at(code, head).is_ok() {
                return;
            }
            send = lock(&self.send);
        }
        if send.end.is_none() && send.given_up.is_none_or(GivingUp::delivers) {
            let code = send.given_up.map_or(code, |before| before.code);
            send.given_up = Some(GivingUp { code, reliable_size: 0, told: false });
            drop(send);
            self.kick();
        }
    }

    /// Gives up sending, but has the first bytes arrive. A later call can only lower their number.
    pub(crate) fn reset_at(self: &Arc<Self>, code: u64, reliable_size: u64) -> Result<(), WriteError> {
        if reliable_size == 0 {
            self.reset(code);
            return Ok(());
        }
        let mut send = lock(&self.send);
        match (send.end, send.given_up) {
            (Some(SendEnd::Stopped(code)), _) => return Err(WriteError::Stopped(code)),
            (Some(SendEnd::Lost), _) => return Err(WriteError::Closed(self.conn.reason())),
            (Some(SendEnd::Acked | SendEnd::Reset), _) => return Ok(()),
            (None, Some(before)) if before.reliable_size <= reliable_size => return Ok(()),
            (None, _) if !self.conn.can_reset_at() => return Err(WriteError::Unsupported),
            (None, None) if reliable_size > send.written => return Err(WriteError::NotWritten(send.written)),
            (None, _) => {}
        }
        let code = send.given_up.map_or(code, |before| before.code);
        send.given_up = Some(GivingUp { code, reliable_size, told: false });
        send.flushed = true;
        let gone = send.shorten(reliable_size);
        drop(send);
        self.conn.unsent.fetch_sub(gone, std::sync::atomic::Ordering::Relaxed);
        self.kick();
        Ok(())
    }

    /// The sending handle is gone: what was neither finished nor promised is given up.
    pub(crate) fn drop_send(self: &Arc<Self>) {
        let (kept, code) = {
            let send = lock(&self.send);
            (send.finish || send.given_up.is_some(), dropped_code(send.account.is_some()))
        };
        if !kept {
            self.reset(code);
        }
    }

    /// The receiving handle is gone: nothing more is wanted.
    #[cfg(feature = "tokio")]
    pub(crate) fn drop_recv(self: &Arc<Self>) {
        let code = dropped_code(lock(&self.recv).account.is_some());
        self.stop(code);
    }

    /// Tells the engine of a promise, when it has the bytes that it needs.
    pub(super) fn tell_given_up(
        &self,
        mut send: MutexGuard<'_, SendHalf>,
        engine: &mut Engine,
        key: ConnKey,
        woken: &mut Woken,
    ) {
        let Some(given_up) = send.given_up.filter(|g| g.delivers() && !g.told) else { return };
        let handed_over = send.written - send.held as u64;
        if handed_over < given_up.reliable_size || send.end.is_some() {
            return;
        }
        send.given_up = Some(GivingUp { told: true, ..given_up });
        drop(send);
        let end = match engine.reset_at(key, self.id, given_up.code, given_up.reliable_size) {
            Ok(()) => return self.count(engine, key),
            // It arrived meanwhile; the event that says so is on its way.
            Err(core_stream::WriteError::Misuse(ApiMisuse::UnknownStream)) => SendEnd::Acked,
            // A server that rejected 0-RTT does not know such resets any more.
            Err(_) => {
                let _ = engine.reset(key, self.id, given_up.code);
                SendEnd::Reset
            }
        };
        let mut send = lock(&self.send);
        send.end = Some(end);
        self.end_half(SENT);
        woken.add(&mut send.waker);
    }
}

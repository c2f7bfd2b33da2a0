//! Closing and draining (RFC 9000 section 10).
//!
//! The first reason is kept. A connection that closes builds one datagram with CONNECTION_CLOSE at every level whose keys
//! it has, and repeats it in answer to the first, second, fourth, eighth … packet. A connection that the peer closed is
//! silent. Both end after three probe timeouts; once the application has heard and read everything, nothing but that
//! datagram and the connection IDs is kept for that long (`engine::remains`).
//!
//! A connection whose keys must not be used any more says so once and is forgotten at once: from then on late packets get
//! stateless resets from the engine.
//!
//! What came in order before the peer closed, or before the idle timeout, can be read until then. A connection that
//! times out with nothing left to read ends at once.

use super::{Closing, Connection, Event, Life};
use crate::error::{CloseReason, TransportCode};
use crate::ids::Level;
use crate::packetiser::Close;
use crate::time::Instant;

/// How many probe timeouts closing and draining last.
const CLOSE_PTOS: u32 = 3;

/// The datagram with CONNECTION_CLOSE and when it is said again: all that a closing connection needs.
#[derive(Debug)]
pub(crate) struct LastWords {
    /// What left; empty as long as nothing did.
    pub(crate) packet: Box<[u8]>,
    /// Datagrams that have to come before it is repeated; doubled with each answer.
    answer_at: u32,
    /// Datagrams that came since.
    received: u32,
    /// Three times the bytes received, less what was sent for them.
    credit: usize,
    /// It is to be sent.
    pub(crate) answer: bool,
}

impl LastWords {
    /// Nothing was said yet; `packet` is empty when it has to be built.
    pub(crate) fn new(packet: Box<[u8]>) -> Self {
        Self { packet, answer_at: 1, received: 0, credit: 0, answer: true }
    }

    /// A datagram came: answered at a falling rate.
    pub(crate) fn on_datagram(&mut self, len: usize) {
        if self.packet.is_empty() {
            // The limits of an unvalidated path held it back; now there may be room.
            self.answer = true;
            return;
        }
        self.received = self.received.saturating_add(1);
        //= rfc9000#10.2.1-2
        self.credit = self.credit.saturating_add(3 * len);
        //= rfc9000#10.2.1-1
        if self.received >= self.answer_at && self.credit >= self.packet.len() {
            self.credit -= self.packet.len();
            self.answer = true;
            self.answer_at = self.answer_at.saturating_mul(2);
            self.received = 0;
        }
    }
}

impl Connection {
    /// Begins to close; does nothing when it does so already.
    pub(crate) fn begin_close(&mut self, now: Instant, reason: CloseReason) {
        if !self.is_open() {
            return;
        }
        //= rfc9000#10.2-1
        let mut until = now + self.pto() * CLOSE_PTOS;
        self.set_reason(reason);
        if self.is_worn_out() {
            until = now;
        }
        self.life = Life::Closing(Box::new(Closing { until: Some(until), words: LastWords::new(Box::default()) }));
        self.tls = None;
    }

    /// The peer closed: nothing is sent any more.
    pub(super) fn on_peer_close(&mut self, now: Instant, reason: CloseReason) {
        if !self.is_open() {
            return;
        }
        self.set_reason(reason);
        //= rfc9000#10.2.2-1
        self.life = Life::Draining { until: now + self.pto() * CLOSE_PTOS };
        self.tls = None;
    }

    /// A stateless reset came. Who was closing has nobody left to tell.
    pub(crate) fn on_stateless_reset(&mut self, now: Instant) {
        //= rfc9000#10.3.1-4
        if let Life::Closing(closing) = &self.life
            && let Some(until) = closing.until
        {
            self.life = Life::Draining { until };
        }
        self.on_peer_close(now, CloseReason::StatelessReset);
    }

    /// The idle timeout passed. Nothing is sent any more; what can still be read is kept for a while.
    pub(super) fn on_idle_timeout(&mut self, now: Instant) {
        let streams = self.streams.stats();
        if streams.buffered_in == 0 && self.datagrams.is_read() {
            self.end_silently(CloseReason::IdleTimeout);
        } else {
            self.on_peer_close(now, CloseReason::IdleTimeout);
        }
    }

    /// Ends without a word and without delay.
    pub(super) fn end_silently(&mut self, reason: CloseReason) {
        if self.is_open() {
            self.set_reason(reason);
        }
        self.life = Life::Ended;
        self.tls = None;
    }

    fn set_reason(&mut self, reason: CloseReason) {
        if self.reason.is_none() {
            self.events.push_back(Event::Closed(reason.clone()));
            self.reason = Some(Box::new(reason));
        }
    }

    /// Whether its handshake is complete and it is not over.
    pub(crate) fn is_established(&self) -> bool {
        matches!(self.life, Life::Established)
    }

    /// Whether nobody has anything more to do with the connection: everything was told and read, and the last words were
    /// said, if there are any.
    pub(crate) fn is_done(&self) -> bool {
        let said = match &self.life {
            Life::Closing(closing) => closing.until.is_some() && !closing.words.packet.is_empty(),
            Life::Draining { .. } => true,
            _ => return false,
        };
        // Who has used up its keys goes at once: stateless resets speak for it.
        said && !self.is_worn_out()
            && !self.has_events()
            && self.datagrams.is_read()
            && self.streams.stats().buffered_in == 0
    }

    /// Until when it is remembered, and what may have to be repeated until then; `None` as long as it is not done.
    pub(crate) fn take_last_words(&mut self) -> Option<(Instant, Option<LastWords>)> {
        if !self.is_done() {
            return None;
        }
        match &mut self.life {
            Life::Closing(closing) => {
                Some((closing.until?, Some(core::mem::replace(&mut closing.words, LastWords::new(Box::default())))))
            }
            Life::Draining { until } => Some((*until, None)),
            _ => None,
        }
    }

    /// The CONNECTION_CLOSE frame for a level.
    pub(super) fn close_frame(reason: &CloseReason, level: Level) -> Close<'_> {
        let transport =
            |code: TransportCode, frame_type, reason| Close { code: code.0, frame_type: Some(frame_type), reason };
        match reason {
            CloseReason::LocalApplication { code, reason } if level == Level::OneRtt => {
                Close { code: *code, frame_type: None, reason }
            }
            //= rfc9000#10.2.3-5
            //= rfc9000#10.2.3-6
            CloseReason::LocalApplication { .. } => transport(TransportCode::APPLICATION_ERROR, 0, &[]),
            CloseReason::Violation(v) => transport(v.code, v.frame_type, v.reason.as_bytes()),
            CloseReason::Tls { alert, reason } => {
                // Our reason may quote local names; the peer gets the alert and a short text.
                let _ = reason;
                transport(TransportCode::tls_alert(*alert), 0x06, b"TLS")
            }
            CloseReason::Refused => transport(TransportCode::CONNECTION_REFUSED, 0, &[]),
            CloseReason::NoPath => transport(TransportCode::NO_VIABLE_PATH, 0, &[]),
            CloseReason::Internal(_) => transport(TransportCode::INTERNAL_ERROR, 0, &[]),
            _ => transport(TransportCode::NO_ERROR, 0, &[]),
        }
    }

    /// Whether the keys reached a limit, so that nothing but stateless resets may answer packets (RFC 9001 section 6.6).
    pub(crate) fn is_worn_out(&self) -> bool {
        //= rfc9001#6.6-4
        matches!(self.close_reason(), Some(CloseReason::Violation(v)) if v.code == TransportCode::AEAD_LIMIT_REACHED)
    }

    /// Why it ended or ends.
    pub(crate) fn close_reason(&self) -> Option<&CloseReason> {
        self.reason.as_deref()
    }
}

//! How messages begin and end besides being read and sent; the graceful end of a connection; priorities; datagrams.

use bytes::Bytes;
use courser_core::ids::{Dir, Side, StreamId, VARINT_MAX};
use courser_core::stream::Priority;

use super::config::Error;
use super::local::CONTROL_MAX;
use super::recv::Phase;
use super::send::Stage;
use super::{Connection, Exchange};
use crate::error::{Code, ConnectionError};
use crate::frame::{kind, push_frame, push_varint};
use crate::transport::Transport;
use crate::watch::{Content, Told};
use crate::{datagram, priority, wide};

/// Requests may become known in another order than that of their numbers, within such a span.
const REORDERED: u64 = 64;
/// The largest ID of a stream that a client can open: what a GOAWAY names that refuses nothing yet.
const NOTHING_REFUSED: u64 = VARINT_MAX - 3;

impl Connection {
    /// A two-way stream of the peer is seen for the first time. Whether it is taken.
    pub(super) fn admit(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<bool, Error> {
        if id.dir() != Dir::Bi {
            return Err(Error::Misuse("messages are on two-way streams"));
        }
        if self.side == Side::Client {
            //= rfc9114#6.1-3
            if self.config.webtransport_sessions == 0 {
                let reason = "a two-way stream from a server";
                return Err(self.fail(t, ConnectionError::new(Code::STREAM_CREATION_ERROR, reason)).into());
            }
        } else {
            //= rfc9114#5.2-1, rfc9114#5.2-2, rfc9114#4.1.1-3
            let late = self.goaway_sent.is_some_and(|refused| id.0 >= refused);
            // Sessions go on behind a GOAWAY, and open streams.
            let session = late && self.config.webtransport_sessions > 0 && self.exchanges.values().any(|x| x.extended);
            if (late && !session) || self.exchanges.len() >= self.config.max_requests {
                reject(t, id);
                return Ok(false);
            }
            if late {
                self.exchanges.insert(id, Exchange { late, ..Exchange::default() });
                return Ok(true);
            }
            self.next_index = self.next_index.max(id.index() + 1);
        }
        self.exchanges.insert(id, Exchange::default());
        Ok(true)
    }

    /// Rejects what came behind a GOAWAY and is a request all the same. Whether it was.
    pub(super) fn reject_late(&mut self, t: &mut dyn Transport, id: StreamId) -> bool {
        let late = self.exchanges.get(&id).is_some_and(|x| x.late);
        if late {
            reject(t, id);
            self.exchanges.remove(&id);
        }
        late
    }

    /// At a client: whether the server's GOAWAY refuses the request.
    pub(super) fn check_rejected(&mut self, t: &mut dyn Transport, id: StreamId) -> Result<(), Error> {
        if self.side.is_server() || id.initiator().is_server() || self.goaway_received.is_none_or(|first| id.0 < first)
        {
            return Ok(());
        }
        self.abandon(t, id, Code::REQUEST_CANCELLED.0);
        Err(Error::Rejected)
    }

    /// What an error of a message means beyond it.
    pub(super) fn settle(&mut self, t: &mut dyn Transport, id: StreamId, error: Error) -> Error {
        match error {
            Error::Connection(e) => Error::Connection(self.fail(t, e)),
            Error::Stream { code, .. } => {
                // Making this end reset a stream costs it as much as resetting it.
                let failed = self.count_cancel(t, id);
                self.abandon(t, id, code.0);
                failed.unwrap_or(error)
            }
            Error::Reset(code) => {
                if let Some(x) = self.exchanges.get_mut(&id) {
                    x.recv.stop();
                }
                self.decoder.cancel(id);
                let rejected = self.side.is_client() && code == Code::REQUEST_REJECTED.0;
                self.count_cancel(t, id).unwrap_or(if rejected { Error::Rejected } else { error })
            }
            Error::Stopped(_) => self.count_cancel(t, id).unwrap_or(error),
            other => other,
        }
    }

    /// The peer gave a request up before it was answered, or made this end give it up. An error when it does so too often.
    //= rfc9114#10.5-2
    fn count_cancel(&mut self, t: &mut dyn Transport, id: StreamId) -> Option<Error> {
        let x = self.exchanges.get_mut(&id)?;
        let counts =
            self.side.is_server() && x.send.stage != Stage::Finished && !std::mem::replace(&mut x.counted, true);
        if !counts || self.cancels.spend() {
            return None;
        }
        let error = ConnectionError::new(Code::EXCESSIVE_LOAD, "too many requests that are given up");
        Some(Error::Connection(self.fail(t, error)))
    }

    /// Gives up both directions of a message, as far as they are open.
    pub(super) fn abandon(&mut self, t: &mut dyn Transport, id: StreamId, code: u64) {
        let Some(x) = self.exchanges.get_mut(&id) else { return };
        // What a reset head referred to stays in the QPACK table until the peer says that it gave the stream up.
        x.send.abandon(t, id, code);
        if x.recv.phase != Phase::Over {
            x.recv.stop();
            t.stop(id, code);
            self.decoder.cancel(id);
        }
    }

    /// Gives a message up, and forgets it: nobody wants it any more.
    //= rfc9114#4.1.1-2
    pub fn cancel(&mut self, t: &mut dyn Transport, id: StreamId, code: Code) {
        self.abandon(t, id, code.0);
        self.exchanges.remove(&id);
        self.rests.remove(&id);
        self.held.remove(&id);
    }

    /// Reads no more of a message, and tells the peer so. A server that has answered says H3_NO_ERROR.
    pub fn stop_body(&mut self, t: &mut dyn Transport, id: StreamId, code: Code) {
        let Some(x) = self.exchanges.get_mut(&id) else { return };
        if x.recv.phase != Phase::Over {
            x.recv.stop();
            t.stop(id, code.0);
            self.decoder.cancel(id);
        }
    }

    /// Nobody holds the message any more. What is complete is still sent, what is not complete is reset, and what was not read
    /// is refused.
    pub fn forget(&mut self, t: &mut dyn Transport, id: StreamId) {
        self.rests.remove(&id);
        self.held.remove(&id);
        let Some(x) = self.exchanges.get_mut(&id).filter(|x| !x.orphan) else { return };
        if x.recv.phase != Phase::Over && (!x.recv.piece.is_empty() || x.recv.look(t, id).is_err() || !x.recv.is_over())
        {
            let answered = matches!(x.send.stage, Stage::Ended | Stage::Finished);
            //= rfc9114#4.1-11
            let code = if self.side.is_server() && answered { Code::NO_ERROR } else { Code::REQUEST_CANCELLED };
            self.stop_body(t, id, code);
        }
        let Some(x) = self.exchanges.get_mut(&id) else { return };
        if x.send.stage == Stage::Ended && x.send.has_pending() {
            x.orphan = true;
            self.orphans.push(id);
            return;
        }
        //= rfc9114#4.1.1-5
        let given_up = x.send.abandon(t, id, Code::REQUEST_CANCELLED.0);
        if !given_up && !x.counted {
            self.cancels.earn();
            self.noise.earn();
        }
        self.exchanges.remove(&id);
        // What waits for company has none to expect: see where acknowledgments are told in bunches.
        if self.exchanges.is_empty() && self.failed.is_none() {
            // A failure is remembered, and told by the next call.
            let _ = self.pump(t);
        }
    }

    /// Sends what waits of messages that nobody holds.
    pub(super) fn pump_orphans(&mut self, t: &mut dyn Transport) {
        if self.orphans.is_empty() {
            return;
        }
        let exchanges = &mut self.exchanges;
        self.orphans.retain(|id| {
            // It may have been given up since.
            let Some(x) = exchanges.get_mut(id).filter(|x| x.orphan) else { return false };
            let waits = matches!(x.send.flush(t, *id), Ok(false));
            if !waits {
                exchanges.remove(id);
            }
            waits
        });
    }

    /// Announces the end of the connection. A server first says that an end is near (`last` false), which refuses nothing, and
    /// some round trips later which requests it will still answer (`last`); those that come later are rejected. A client makes
    /// no more requests. When [`Self::active_requests`] is 0 the connection can be closed with H3_NO_ERROR.
    //= rfc9114#5.2-4, rfc9114#3.3-6
    pub fn goaway(&mut self, t: &mut dyn Transport, last: bool) {
        let id = match (self.side, last) {
            (Side::Client, _) => 0,
            (Side::Server, false) => NOTHING_REFUSED,
            (Side::Server, true) => StreamId::new(Side::Client, Dir::Bi, self.next_index).0.min(NOTHING_REFUSED),
        };
        //= rfc9114#5.2-5
        if self.failed.is_some() || self.goaway_sent.is_some_and(|before| id >= before) {
            return;
        }
        self.goaway_sent = Some(id);
        let mut payload = Vec::with_capacity(8);
        push_varint(&mut payload, id);
        push_frame(&mut self.control.unsent, kind::GOAWAY, &payload);
        self.tell_made(kind::GOAWAY, &payload, Content::Number(id));
        // A failure is remembered, and told by the next call.
        let _ = self.pump(t);
    }

    /// Whether one of the ends announced the end of the connection: no new requests are made.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.goaway_sent.is_some() || self.goaway_received.is_some()
    }

    /// Changes a priority: a client tells the server (RFC 9218 section 7), and its own transport; a server overrides what the
    /// client said.
    pub fn update_priority(&mut self, t: &mut dyn Transport, id: StreamId, priority: Priority) {
        if self.failed.is_some() {
            return;
        }
        if let Some(x) = self.exchanges.get_mut(&id) {
            x.prioritised = true;
            t.set_priority(id, priority);
            self.watch.tell(|| Told::Priority { stream: id, priority, local: true });
        }
        //= rfc9218#7.2-9, rfc9218#7.2-1, rfc9218#7.2-3
        let tells = self.side.is_client() && id.initiator() == Side::Client && id.dir() == Dir::Bi;
        if !tells || self.control.unsent.len() > CONTROL_MAX {
            return;
        }
        let mut payload = Vec::with_capacity(16);
        push_varint(&mut payload, id.0);
        let (value, n) = priority::format(priority);
        payload.extend_from_slice(&value[..n]);
        push_frame(&mut self.control.unsent, kind::PRIORITY_UPDATE, &payload);
        self.tell_made(kind::PRIORITY_UPDATE, &payload, Content::Priority(id, priority));
        let _ = self.pump(t);
    }

    /// A PRIORITY_UPDATE came. For a request that has not come, it is remembered.
    //= rfc9218#7-1
    pub(super) fn reprioritise(&mut self, t: &mut dyn Transport, id: StreamId, priority: Priority) {
        self.watch.tell(|| Told::Priority { stream: id, priority, local: false });
        if let Some(x) = self.exchanges.get_mut(&id) {
            x.prioritised = true;
            t.set_priority(id, priority);
        } else if id.index().saturating_add(REORDERED) >= self.next_index {
            self.early.retain(|(of, _)| *of != id);
            if self.early.len() >= self.config.early_priorities && !self.early.is_empty() {
                self.early.remove(0);
            }
            if self.config.early_priorities > 0 {
                self.early.push((id, priority));
            }
        }
    }

    /// Sends an HTTP datagram for a request; `false` when it cannot: the peer takes none, the request has none, its sending
    /// half is closed, or the transport refuses.
    //= rfc9297#2-1, rfc9297#2.1-3, rfc9297#2.1.1-3
    pub fn send_datagram(&mut self, t: &mut dyn Transport, id: StreamId, payload: &[u8]) -> bool {
        let agreed = self.config.datagrams && self.peer_settings().is_some_and(|s| s.datagrams);
        let open = |x: &Exchange| x.extended && matches!(x.send.stage, Stage::Head | Stage::Body);
        let sent = agreed
            && self.failed.is_none()
            && self.exchanges.get(&id).is_some_and(open)
            && t.send_datagram(datagram::encode(id, payload));
        if sent {
            self.watch.tell(|| Told::Datagram { created: true, stream: id, len: payload.len() });
        }
        sent
    }

    /// Tells of a frame that was made for our control stream.
    fn tell_made(&mut self, kind: u64, payload: &[u8], content: Content<'_>) {
        let Some(stream) = self.control.id() else { return };
        self.watch.tell(|| Told::Frame { created: true, stream, kind, len: wide(payload.len()), content });
    }

    /// A datagram came: for which request it is, and its payload. `None` when nobody waits for it.
    ///
    /// # Errors
    /// The connection broke, and was closed.
    pub fn on_datagram(
        &mut self,
        t: &mut dyn Transport,
        data: Bytes,
    ) -> Result<Option<(StreamId, Bytes)>, ConnectionError> {
        self.alive()?;
        if !self.config.datagrams {
            return Ok(None);
        }
        let (id, payload) = datagram::decode(data).map_err(|e| self.fail(t, e))?;
        self.watch.tell(|| Told::Datagram { created: false, stream: id, len: payload.len() });
        //= rfc9297#2.1-4, rfc9297#2.1-5
        let Some(x) = self.exchanges.get(&id).filter(|x| x.recv.phase != Phase::Over) else { return Ok(None) };
        if self.side.is_server() && x.recv.phase == Phase::Head {
            return Ok(None);
        }
        //= rfc9297#2-2, rfc9297#2-3
        if !x.extended {
            self.abandon(t, id, Code::DATAGRAM_ERROR.0);
            return Ok(None);
        }
        Ok(Some((id, payload)))
    }
}

/// Tells the peer that a request was not looked at, and may be made again.
fn reject(t: &mut dyn Transport, id: StreamId) {
    t.reset(id, Code::REQUEST_REJECTED.0);
    t.stop(id, Code::REQUEST_REJECTED.0);
}

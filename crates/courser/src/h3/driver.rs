//! Drives a connection: takes streams, reads control and QPACK streams, hands datagrams and events on.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use courser_core::ids::{Dir, StreamId};
use courser_h3::Code;
use courser_h3::conn::Uni;

use super::carrier::Channel;
use super::error::Error;
use super::link::Link;
use super::sessions::Raw;
use crate::aio::{RecvStream, SendStream};
use crate::error::ConnectionError;
use crate::face::ConnRef;

/// Streams and datagrams that are taken before others of the runtime have their turn.
const AT_ONCE: usize = 64;
/// One-way streams whose type is not known yet. A client has three of its own and perhaps one of grease.
const UNTYPED_MAX: usize = 32;

/// What the connection's one driver remembers.
pub(super) struct Driver {
    pub(super) link: Arc<Link>,
    started: bool,
    /// One-way streams of the peer that HTTP/3 reads.
    unis: Vec<StreamId>,
}

impl Driver {
    pub(super) const fn new(link: Arc<Link>) -> Self {
        Self { link, started: false, unis: Vec::new() }
    }

    /// One turn. `on_stream` gets each two-way stream that the peer opened. Ready when the connection ended.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut on_stream: impl FnMut(&mut Context<'_>, &Arc<Link>, StreamId),
    ) -> Poll<Error> {
        let link = Arc::clone(&self.link);
        link.state(|state| state.set_driver(cx));
        if let Err(e) = self.turn(cx) {
            link.state(|state| state.wake_all());
            return Poll::Ready(e);
        }
        link.tick();
        let mut taken = 0;
        while let Poll::Ready(accepted) = link.conn().0.poll_accept(cx, Dir::Bi) {
            match accepted {
                Ok(slot) => {
                    let id = link.state(|state| state.adopt(slot));
                    on_stream(cx, &link, id);
                }
                Err(_) => return Poll::Ready(self.ended()),
            }
            taken += 1;
            if taken >= AT_ONCE {
                cx.waker().wake_by_ref();
                break;
            }
        }
        if link.conn().0.poll_closed(cx).is_ready() {
            return Poll::Ready(self.ended());
        }
        Poll::Pending
    }

    /// Everybody who waits hears of the end.
    fn ended(&self) -> Error {
        self.link.state(|state| state.wake_all());
        Error::closed(&self.link.quic)
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let link = Arc::clone(&self.link);
        let protocol = |e: courser_h3::ConnectionError| Error::Protocol { code: e.code, reason: e.reason };
        if !self.started {
            link.at_once(|h3, carrier| h3.start(carrier)).map_err(protocol)?;
            self.started = true;
        }
        while let Poll::Ready(Ok(slot)) = link.conn().0.poll_accept(cx, Dir::Uni) {
            let id = link.state(|state| state.adopt(slot));
            self.unis.push(id);
            if self.unis.len() > UNTYPED_MAX {
                link.at_once(|_, carrier| {
                    use courser_h3::Transport as _;
                    carrier.stop(id, Code::STREAM_CREATION_ERROR.0);
                });
                self.unis.pop();
                link.state(|state| state.disown(id));
            }
        }
        let mut sessions = Vec::new();
        let mut gone = Vec::new();
        let read = link.at_once(|h3, carrier| {
            for &id in &self.unis {
                match h3.on_uni(carrier, id)? {
                    Uni::Kept => {}
                    Uni::Done => gone.push(id),
                    Uni::WebTransport { session } => sessions.push((id, session, h3.take_rest(id))),
                }
            }
            h3.pump(carrier)
        });
        read.map_err(protocol)?;
        for id in gone {
            self.unis.retain(|known| *known != id);
            link.state(|state| state.disown(id));
        }
        for (id, session, rest) in sessions {
            self.unis.retain(|known| *known != id);
            hand_over(&link, id, session, rest);
        }
        self.early(cx).map_err(protocol)?;
        self.datagrams(cx).map_err(protocol)?;
        link.state(|state| state.tell_events());
        Ok(())
    }

    /// Tells HTTP/3 how 0-RTT was answered.
    fn early(&self, cx: &Context<'_>) -> Result<(), courser_h3::ConnectionError> {
        let link = &self.link;
        if !link.state(|state| state.early_pending) {
            return Ok(());
        }
        // Whoever waits for the end of the handshake is woken by the answer too.
        let established = link.conn().0.poll_established(cx).is_ready();
        let answer = super::early::answer(link);
        link.state(|state| state.early_pending = answer.is_none() && !established);
        answer.map_or(Ok(()), |accepted| link.at_once(|h3, carrier| h3.on_early_data(carrier, accepted)))
    }

    fn datagrams(&self, cx: &mut Context<'_>) -> Result<(), courser_h3::ConnectionError> {
        for _ in 0..AT_ONCE {
            let datagram: Result<Bytes, ConnectionError> = match self.link.conn().0.poll_datagram(cx) {
                Poll::Ready(datagram) => datagram,
                Poll::Pending => return Ok(()),
            };
            let Ok(data) = datagram else { return Ok(()) };
            if let Some((stream, payload)) = self.link.at_once(|h3, carrier| h3.on_datagram(carrier, data))? {
                self.link.state(|state| state.sessions.push_datagram(stream, payload));
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }
}

/// Gives a stream of a WebTransport session to the session.
pub(super) fn hand_over(link: &Arc<Link>, id: StreamId, session: StreamId, rest: Bytes) {
    let conn = link.conn().clone();
    link.state(|state| {
        let Some(channel) = state.disown(id) else { return };
        let raw = raw(channel, conn, rest);
        state.sessions.push_stream(session, raw);
    });
}

fn raw(channel: Channel, conn: ConnRef, rest: Bytes) -> Raw {
    let Channel { slot, mut chunks, .. } = channel;
    if !rest.is_empty() {
        chunks.push_front(rest);
    }
    slot.set_peer_head(chunks);
    let id = slot.id;
    if id.dir() == Dir::Bi {
        let send = SendStream::new(Arc::clone(&slot), conn.clone());
        return Raw::Bi(send, RecvStream::new(slot, conn));
    }
    Raw::Uni(RecvStream::new(slot, conn))
}

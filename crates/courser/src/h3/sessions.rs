//! What belongs to requests beside their messages: datagrams (RFC 9297), and the streams of WebTransport sessions.
//!
//! Everything here is filled by the peer and bounded: datagrams go oldest first when nobody takes them, streams that find no
//! room are refused with the code that the WebTransport draft has for that.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use courser_core::ids::StreamId;
use courser_h3::webtransport::{WT_BUFFERED_STREAM_REJECTED, WT_SESSION_GONE};
use rustc_hash::FxHashMap;

use super::meter::Meter;
use crate::aio::{RecvStream, SendStream};
use crate::hub::stream::StreamSlot;
use crate::wait::wait_alone;

/// Datagrams that wait for a reader, of one session.
const DATAGRAMS_MAX: usize = 256;
/// Streams that wait to be accepted, of one session and kind.
const STREAMS_MAX: usize = 128;
/// Sessions that something came for before their request was accepted.
const EARLY_SESSIONS_MAX: usize = 16;

/// A stream that a session's peer opened.
pub(super) enum Raw {
    Bi(SendStream, RecvStream),
    Uni(RecvStream),
}

impl Raw {
    const fn slot(&self) -> &Arc<StreamSlot> {
        match self {
            Self::Bi(send, _) => send.slot(),
            Self::Uni(recv) => recv.slot(),
        }
    }

    fn refuse(self) {
        match self {
            Self::Bi(mut send, mut recv) => {
                send.reset(WT_BUFFERED_STREAM_REJECTED);
                recv.stop(WT_BUFFERED_STREAM_REJECTED);
            }
            Self::Uni(mut recv) => recv.stop(WT_BUFFERED_STREAM_REJECTED),
        }
    }
}

/// What came for one request or session.
#[derive(Default)]
struct Session {
    /// The application knows of it.
    claimed: bool,
    datagrams: VecDeque<Bytes>,
    bi: VecDeque<(SendStream, RecvStream)>,
    uni: VecDeque<RecvStream>,
    /// All streams of the session that may be open: they end with it.
    streams: Vec<Weak<StreamSlot>>,
    /// What limits it, once it has begun.
    meter: Option<Arc<Meter>>,
    /// Who waits for each of them.
    wakers: [Option<Waker>; 3],
    /// Nothing comes any more.
    over: bool,
}

impl Session {
    /// Remembers a stream; those that are gone make room for it.
    fn track(&mut self, slot: &Arc<StreamSlot>) {
        if self.streams.len() == self.streams.capacity() {
            self.streams.retain(|known| known.strong_count() > 0);
        }
        self.streams.push(Arc::downgrade(slot));
    }

    fn wake(&mut self, kind: usize) {
        if let Some(waker) = self.wakers[kind].take() {
            waker.wake();
        }
    }
}

const DATAGRAM: usize = 0;
const BI: usize = 1;
const UNI: usize = 2;

/// All sessions of a connection.
#[derive(Default)]
pub(super) struct Sessions {
    map: FxHashMap<StreamId, Session>,
    /// How many of them the application does not know of yet.
    early: usize,
    /// The connection ended.
    over: bool,
}

impl Sessions {
    /// The application takes what comes for that request from now on, and what came before.
    pub(super) fn claim(&mut self, id: StreamId) {
        let known = self.map.contains_key(&id);
        let session = self.map.entry(id).or_default();
        session.over |= self.over;
        if !std::mem::replace(&mut session.claimed, true) && known {
            self.early -= 1;
        }
    }

    /// A session begins under those limits; streams that came before count.
    pub(super) fn begin(&mut self, id: StreamId, meter: Arc<Meter>) {
        self.claim(id);
        let Some(session) = self.map.get_mut(&id) else { return };
        session.bi.iter().for_each(|(send, _)| meter.admit(send.slot(), true));
        session.uni.iter().for_each(|recv| meter.admit(recv.slot(), true));
        session.meter = Some(meter);
    }

    /// The request is over: what waits is refused.
    pub(super) fn close(&mut self, id: StreamId) {
        let Some(mut session) = self.map.remove(&id) else { return };
        self.early -= usize::from(!session.claimed);
        session.bi.drain(..).for_each(|(send, recv)| Raw::Bi(send, recv).refuse());
        session.uni.drain(..).for_each(|recv| Raw::Uni(recv).refuse());
        if let Some(meter) = session.meter.take() {
            meter.close();
        }
        for slot in session.streams.iter().filter_map(Weak::upgrade) {
            slot.reset(WT_SESSION_GONE);
            slot.stop(WT_SESSION_GONE);
        }
        for kind in [DATAGRAM, BI, UNI] {
            session.wake(kind);
        }
    }

    /// A stream that this end opened belongs to the session; `false` when that is over.
    pub(super) fn track(&mut self, id: StreamId, slot: &Arc<StreamSlot>) -> bool {
        let Some(session) = self.map.get_mut(&id).filter(|session| !session.over) else { return false };
        session.track(slot);
        if let Some(meter) = &session.meter {
            meter.admit(slot, false);
        }
        true
    }

    /// The connection ended.
    pub(super) fn end(&mut self) {
        self.over = true;
        for session in self.map.values_mut() {
            session.over = true;
            for kind in [DATAGRAM, BI, UNI] {
                session.wake(kind);
            }
        }
    }

    /// The session for what came, if there is one or may be one.
    fn place(&mut self, id: StreamId) -> Option<&mut Session> {
        if !self.map.contains_key(&id) {
            if self.early >= EARLY_SESSIONS_MAX {
                return None;
            }
            self.early += 1;
        }
        Some(self.map.entry(id).or_default())
    }

    pub(super) fn push_datagram(&mut self, id: StreamId, data: Bytes) {
        let Some(session) = self.place(id) else { return };
        if session.datagrams.len() >= DATAGRAMS_MAX {
            session.datagrams.pop_front();
        }
        session.datagrams.push_back(data);
        session.wake(DATAGRAM);
    }

    pub(super) fn push_stream(&mut self, id: StreamId, raw: Raw) {
        let Some(session) = self.place(id) else { return raw.refuse() };
        if let Some(meter) = &session.meter {
            // Also when it is refused: the peer counts it.
            meter.admit(raw.slot(), true);
        }
        match raw {
            Raw::Bi(..) if session.bi.len() >= STREAMS_MAX => raw.refuse(),
            Raw::Uni(_) if session.uni.len() >= STREAMS_MAX => raw.refuse(),
            Raw::Bi(send, recv) => {
                session.track(send.slot());
                session.bi.push_back((send, recv));
                session.wake(BI);
            }
            Raw::Uni(recv) => {
                session.track(recv.slot());
                session.uni.push_back(recv);
                session.wake(UNI);
            }
        }
    }

    /// The next of what `take` takes; `None` when nothing comes any more.
    fn poll<T>(
        &mut self,
        cx: &Context<'_>,
        id: StreamId,
        kind: usize,
        take: impl FnOnce(&mut Session) -> Option<T>,
    ) -> Poll<Option<T>> {
        let Some(session) = self.map.get_mut(&id) else { return Poll::Ready(None) };
        if let Some(value) = take(session) {
            return Poll::Ready(Some(value));
        }
        if session.over {
            return Poll::Ready(None);
        }
        wait_alone(&mut session.wakers[kind], cx);
        Poll::Pending
    }

    pub(super) fn poll_datagram(&mut self, cx: &Context<'_>, id: StreamId) -> Poll<Option<Bytes>> {
        self.poll(cx, id, DATAGRAM, |session| session.datagrams.pop_front())
    }

    pub(super) fn poll_bi(&mut self, cx: &Context<'_>, id: StreamId) -> Poll<Option<(SendStream, RecvStream)>> {
        self.poll(cx, id, BI, |session| session.bi.pop_front())
    }

    pub(super) fn poll_uni(&mut self, cx: &Context<'_>, id: StreamId) -> Poll<Option<RecvStream>> {
        self.poll(cx, id, UNI, |session| session.uni.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64) -> StreamId {
        StreamId(index * 4)
    }

    #[test]
    fn datagrams_that_nobody_takes_are_bounded_and_the_newest_stay() {
        let mut sessions = Sessions::default();
        sessions.claim(id(0));
        for i in 0..DATAGRAMS_MAX + 10 {
            sessions.push_datagram(id(0), Bytes::from(i.to_be_bytes().to_vec()));
        }
        let cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Some(first)) = sessions.poll_datagram(&cx, id(0)) else { panic!("nothing there") };
        assert_eq!(first, 10usize.to_be_bytes().to_vec());
        assert_eq!(sessions.map[&id(0)].datagrams.len(), DATAGRAMS_MAX - 1);
    }

    #[test]
    fn what_comes_before_its_session_is_kept_for_few_sessions_only() {
        let mut sessions = Sessions::default();
        for i in 0..EARLY_SESSIONS_MAX as u64 + 5 {
            sessions.push_datagram(id(i), Bytes::from_static(b"early"));
        }
        assert_eq!((sessions.map.len(), sessions.early), (EARLY_SESSIONS_MAX, EARLY_SESSIONS_MAX));
        sessions.claim(id(3));
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(sessions.poll_datagram(&cx, id(3)), Poll::Ready(Some(Bytes::from_static(b"early"))));
        assert_eq!(sessions.poll_datagram(&cx, id(3)), Poll::Pending);
        for i in 0..EARLY_SESSIONS_MAX as u64 + 5 {
            sessions.close(id(i));
        }
        assert_eq!((sessions.map.len(), sessions.early), (0, 0));
    }

    #[test]
    fn the_end_of_the_connection_ends_all_waiting() {
        let mut sessions = Sessions::default();
        sessions.claim(id(1));
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(sessions.poll_datagram(&cx, id(1)), Poll::Pending);
        sessions.end();
        assert_eq!(sessions.poll_datagram(&cx, id(1)), Poll::Ready(None));
        sessions.claim(id(2));
        assert_eq!(sessions.poll_datagram(&cx, id(2)), Poll::Ready(None));
    }
}

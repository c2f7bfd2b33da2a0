//! What the worker has to tell one application.
//!
//! Invariants: a session is queued exactly while it has an event that can be told now; it stands in the queue at most
//! once. Bits are told lowest first, `CLOSED` last, and telling it ends the session. While bytes wait for the application
//! to consume earlier ones the end waits behind them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::PortSetup;
use crate::{
    credit::{DeliveryCredit, Grantor, INITIAL_WINDOW_BYTES, Share},
    handle::{Handle, HandleError, HandleTable, Kind, TableFull},
    msg::{Addresses, Completion, Op, Rejection, Submission},
    num::{clamp, widen},
};

const OPENED: u16 = 1;
const ACCEPTED: u16 = 1 << 1;
const ADDRESSES: u16 = 1 << 2;
const ESTABLISHED: u16 = 1 << 3;
const CREDIT: u16 = 1 << 4;
const READABLE: u16 = 1 << 5;
const RESET: u16 = 1 << 6;
const STOPPED: u16 = 1 << 7;
const ALL_ACKED: u16 = 1 << 8;
const DATAGRAM: u16 = 1 << 9;
const FATE: u16 = 1 << 10;
const ROOM: u16 = 1 << 11;
const CLOSED: u16 = 1 << 12;

/// Something that happened to a session. Until it is told, a later one of the same kind replaces it; a close, like a
/// reset, keeps the first values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The [`Source`] knows where the session's ends are.
    Addresses,
    /// The handshake is done.
    Established,
    /// The [`Source`] has bytes, or the end, of the stream.
    Readable,
    /// The peer gave up sending, with this code.
    Reset(u64),
    /// The peer does not want more, with this code.
    Stopped(u64),
    /// The peer has everything.
    AllAcked,
    /// The [`Source`] has a datagram.
    Datagram,
    /// The [`Source`] has the fate of a datagram.
    DatagramFate,
    /// There is room for datagrams again.
    DatagramRoom,
    /// The session is over.
    Closed {
        /// The error code; 0 when none was given.
        code: u64,
        /// Index in the worker's list of reasons; 0 when it did all that it was there for.
        reason: u8,
        /// What the index alone does not say.
        text: Bytes,
    },
}

/// Where a session comes from, which decides how the application hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The application asked for it, with this token.
    Token(u64),
    /// It came in on this listener or connection.
    Parent(Handle),
}

/// Values of events that happen at most once, made when the first does.
#[derive(Default)]
struct Ends {
    reset: u64,
    stopped: u64,
    closed: (u64, u8, Bytes),
}

/// A session in the worker's table: the worker's key and what waits to be told.
pub struct Session<K> {
    /// What the worker finds its own state with.
    pub key: K,
    /// Token or parent, for the first message.
    origin: u64,
    ends: Option<Box<Ends>>,
    /// Outbound credit; only streams have it.
    grantor: Option<Grantor>,
    delivery: DeliveryCredit,
    /// The port that the session belongs to.
    port: u32,
    dirty: u16,
    queued: bool,
}

// With the table's 8 bytes a session costs at most 64 bytes beside the key.
const _: () = assert!(size_of::<Session<u64>>() <= 56 + size_of::<u64>());

impl<K> Session<K> {
    /// The bits that can be told now: reading waits while the application holds a window of bytes, and the end behind it.
    fn tellable(&self) -> u16 {
        if self.delivery.room() == 0 && self.dirty & READABLE != 0 {
            self.dirty & !(READABLE | CLOSED)
        } else {
            self.dirty
        }
    }

    /// Bytes of the application that the worker holds.
    #[must_use]
    pub fn held_bytes(&self) -> u32 {
        self.grantor.map_or(0, |grantor| grantor.held())
    }
}

/// An answer to "is there more of this stream".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes in order, at most as many as asked for. Empty only with `fin`.
    Data {
        /// Position of the first byte in the stream.
        offset: u64,
        /// The bytes.
        data: Bytes,
        /// Whether the stream ends behind them.
        fin: bool,
    },
    /// The peer gave up sending, with this code.
    Reset(u64),
    /// Nothing now; another [`Event::Readable`] follows when there is.
    Nothing,
}

/// Where the worker's bytes come from.
pub trait Source<K> {
    /// The next bytes of a stream, at most `max`.
    fn read(&mut self, stream: &mut K, max: u32) -> Read;

    /// The next datagram of a connection.
    fn datagram(&mut self, connection: &K) -> Option<Bytes>;

    /// The tag of the next datagram whose fate is known, and whether it arrived.
    fn datagram_fate(&mut self, _connection: &K) -> Option<(u64, bool)> {
        None
    }

    /// What both ends call a stream in the transport.
    fn number(&self, _session: &K) -> u64 {
        0
    }

    /// Where the ends of a session are; of what is over nobody knows.
    fn addresses(&self, _session: &K) -> Option<Addresses> {
        None
    }

    /// The reason with which a stream is closed whose end or reset was just read, when it has nothing else to do. With
    /// reason 0 it is told as closed instead of as acknowledged.
    fn over(&self, _stream: &K) -> Option<u8> {
        None
    }
}

/// What waits to be told to one application.
pub struct Outbox {
    /// Sessions with something to tell, each once.
    ready: VecDeque<Handle>,
    /// Answers that belong to no session.
    replies: VecDeque<Completion>,
    replies_max: usize,
    share: Share,
    delivery_window: u32,
    /// Bytes that one message to the application can carry.
    read_max: u32,
    port: u32,
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new(setup: PortSetup) -> Self {
        Self {
            ready: VecDeque::new(),
            replies: VecDeque::new(),
            replies_max: widen(setup.completions.max(1)),
            share: Share::new(setup.share_bytes),
            delivery_window: setup.delivery_window_bytes.max(1),
            read_max: u32::MAX,
            port: 0,
        }
    }

    /// From now on one message brings at most so many bytes of a stream.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only ports between processes have such a limit"))]
    pub(crate) fn set_read_max(&mut self, bytes: u32) {
        self.read_max = bytes;
    }

    /// The number that marks this port's sessions; ports of one worker must have different ones.
    pub fn set_port(&mut self, port: u32) {
        self.port = port;
    }

    /// The number that marks this port's sessions.
    #[must_use]
    pub const fn port(&self) -> u32 {
        self.port
    }

    /// Whether the application's share has room for the window of one more stream.
    #[must_use]
    pub fn has_share(&self) -> bool {
        self.share.free() >= u64::from(INITIAL_WINDOW_BYTES)
    }

    /// Enters a session, to be told as opened or accepted. The key comes back when the table is full or, for a stream,
    /// the application's share is used up.
    pub fn open<K>(
        &mut self,
        sessions: &mut HandleTable<Session<K>>,
        kind: Kind,
        key: K,
        origin: Origin,
    ) -> Result<Handle, TableFull<K>> {
        let grantor = match kind {
            Kind::Stream => match Grantor::new(&mut self.share) {
                Some(grantor) => Some(grantor),
                None => return Err(TableFull(key)),
            },
            Kind::Listener | Kind::Connection => None,
        };
        self.enter(sessions, kind, key, origin, grantor)
    }

    /// Enters a stream that only brings bytes, which needs no share.
    pub fn open_inward<K>(
        &mut self,
        sessions: &mut HandleTable<Session<K>>,
        key: K,
        origin: Origin,
    ) -> Result<Handle, TableFull<K>> {
        self.enter(sessions, Kind::Stream, key, origin, None)
    }

    fn enter<K>(
        &mut self,
        sessions: &mut HandleTable<Session<K>>,
        kind: Kind,
        key: K,
        origin: Origin,
        grantor: Option<Grantor>,
    ) -> Result<Handle, TableFull<K>> {
        let (origin, dirty) = match origin {
            Origin::Token(token) => (token, OPENED),
            Origin::Parent(parent) => (parent.raw(), ACCEPTED),
        };
        let delivery = DeliveryCredit::new(self.delivery_window);
        let session = Session { key, origin, ends: None, grantor, delivery, port: self.port, dirty, queued: true };
        match sessions.insert(kind, session) {
            Ok(handle) => {
                self.ready.push_back(handle);
                Ok(handle)
            }
            Err(TableFull(session)) => {
                if let Some(grantor) = session.grantor {
                    grantor.end(&mut self.share);
                }
                Err(TableFull(session.key))
            }
        }
    }

    /// The session, if it is this port's.
    fn own<'s, K>(
        &self,
        sessions: &'s mut HandleTable<Session<K>>,
        handle: Handle,
    ) -> Result<&'s mut Session<K>, HandleError> {
        let session = sessions.get_mut(handle)?;
        if session.port == self.port { Ok(session) } else { Err(HandleError::Foreign) }
    }

    /// Notes that something happened to a session.
    pub fn event<K>(
        &mut self,
        sessions: &mut HandleTable<Session<K>>,
        handle: Handle,
        event: Event,
    ) -> Result<(), HandleError> {
        let session = self.own(sessions, handle)?;
        let bit = match event {
            Event::Addresses => ADDRESSES,
            Event::Established => ESTABLISHED,
            Event::Readable => READABLE,
            Event::AllAcked => ALL_ACKED,
            Event::Datagram => DATAGRAM,
            Event::DatagramFate => FATE,
            Event::DatagramRoom => ROOM,
            Event::Reset(_) => RESET,
            Event::Stopped(_) => STOPPED,
            Event::Closed { .. } => CLOSED,
        };
        if session.dirty & bit == 0 {
            session.dirty |= bit;
            let ends = &mut session.ends;
            match event {
                Event::Reset(code) => ends.get_or_insert_default().reset = code,
                Event::Stopped(code) => ends.get_or_insert_default().stopped = code,
                // The usual end has no values, and costs no memory.
                Event::Closed { code, reason, text } if (code, reason, text.len()) != (0, 0, 0) => {
                    ends.get_or_insert_default().closed = (code, reason, text);
                }
                _ => {}
            }
        }
        Self::queue(&mut self.ready, session, handle);
        Ok(())
    }

    /// Nobody will want what the [`Source`] still has for this session.
    pub fn discard<K>(&mut self, sessions: &mut HandleTable<Session<K>>, handle: Handle) -> Result<(), HandleError> {
        let session = self.own(sessions, handle)?;
        session.dirty &= !(READABLE | DATAGRAM | FATE | ROOM);
        Self::queue(&mut self.ready, session, handle);
        Ok(())
    }

    /// All sessions of this port.
    #[must_use]
    pub fn own_handles<K>(&self, sessions: &HandleTable<Session<K>>) -> Vec<Handle> {
        sessions.iter().filter(|(_, session)| session.port == self.port).map(|(handle, _)| handle).collect()
    }

    /// `bytes` of a stream reached the peer; the window may grow towards `target`. Grants credit when it is worth it.
    pub fn released<K>(
        &mut self,
        sessions: &mut HandleTable<Session<K>>,
        stream: Handle,
        bytes: u64,
        target: u32,
    ) -> Result<(), HandleError> {
        let session = self.own(sessions, stream)?;
        let grantor = session.grantor.as_mut().ok_or(HandleError::WrongKind)?;
        grantor.released(bytes);
        grantor.grow(target, &mut self.share);
        if grantor.is_grant_due() {
            session.dirty |= CREDIT;
            Self::queue(&mut self.ready, session, stream);
        }
        Ok(())
    }

    /// Whether a submission may be taken: there is room for its answer.
    #[must_use]
    pub fn has_room_for_reply(&self) -> bool {
        self.replies.len() < self.replies_max
    }

    /// Answers a submission that was just taken with [`Completion::Failed`] or [`Completion::Stats`]: at most one answer
    /// each, and before the next is taken.
    pub fn reply(&mut self, answer: Completion) {
        self.replies.push_back(answer);
    }

    /// Checks handle, owner, kind and credit of a submission and books its bytes. What makes no sense is answered with
    /// [`Completion::Rejected`] and dropped.
    pub fn admit<K>(&mut self, sessions: &mut HandleTable<Session<K>>, submission: Submission) -> Option<Submission> {
        let Some(handle) = submission.handle() else { return Some(submission) };
        match self.book(sessions, handle, &submission) {
            Ok(()) => Some(submission),
            Err(why) => {
                self.replies.push_back(Completion::Rejected { handle, op: submission.op(), why });
                None
            }
        }
    }

    /// Answers a submission whose op does not fit the kind of its session.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "only messages of other processes can be so wrong")
    )]
    pub(crate) fn refuse<K>(&mut self, sessions: &mut HandleTable<Session<K>>, handle: Handle, op: Op) {
        let error = self.own(sessions, handle).err().unwrap_or(HandleError::WrongKind);
        self.replies.push_back(Completion::Rejected { handle, op, why: Rejection::Handle(error) });
    }

    fn book<K>(
        &mut self,
        sessions: &mut HandleTable<Session<K>>,
        handle: Handle,
        submission: &Submission,
    ) -> Result<(), Rejection> {
        let session = self.own(sessions, handle).map_err(Rejection::Handle)?;
        let fits = match submission {
            Submission::Write { .. }
            | Submission::Finish { .. }
            | Submission::Consumed { .. }
            | Submission::Reset { .. }
            | Submission::ResetAt { .. }
            | Submission::Stop { .. } => handle.kind() == Kind::Stream,
            Submission::OpenBi { .. } | Submission::OpenUni { .. } | Submission::Datagram { .. } => {
                handle.kind() == Kind::Connection
            }
            _ => true,
        };
        if !fits {
            return Err(Rejection::Handle(HandleError::WrongKind));
        }
        match submission {
            Submission::Write { data, .. } => {
                let grantor = session.grantor.as_mut().ok_or(Rejection::Handle(HandleError::WrongKind))?;
                grantor.written(data.len()).map_err(|_| Rejection::Overrun)
            }
            Submission::Consumed { bytes, .. } => {
                session.delivery.consumed(*bytes).map_err(|_| Rejection::Overrun)?;
                Self::queue(&mut self.ready, session, handle);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Queues the session when it has something to tell and is not queued yet.
    fn queue<K>(ready: &mut VecDeque<Handle>, session: &mut Session<K>, handle: Handle) {
        if !session.queued && session.tellable() != 0 {
            session.queued = true;
            ready.push_back(handle);
        }
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.replies.is_empty()
    }

    /// How many sessions and answers wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ready.len() + self.replies.len()
    }

    /// The next message for the application. Sessions take turns, one message each.
    pub fn next<K>(
        &mut self,
        sessions: &mut HandleTable<Session<K>>,
        source: &mut dyn Source<K>,
    ) -> Option<Completion> {
        if let Some(answer) = self.replies.pop_front() {
            return Some(answer);
        }
        // Ends: each round tells something or takes a session from the queue or clears one of its bits.
        while let Some(handle) = self.ready.pop_front() {
            let Ok(session) = sessions.get_mut(handle) else { continue };
            session.queued = false;
            let message = Self::tell(session, handle, (&mut *source, self.read_max));
            Self::queue(&mut self.ready, session, handle);
            if matches!(message, Some(Completion::Closed { .. })) {
                self.forget(sessions, handle);
            }
            if message.is_some() {
                return message;
            }
        }
        None
    }

    /// Tells the session's first event; `None` when it came to nothing.
    fn tell<K>(
        session: &mut Session<K>,
        handle: Handle,
        (source, max): (&mut dyn Source<K>, u32),
    ) -> Option<Completion> {
        let tellable = session.tellable();
        let bit = tellable & tellable.wrapping_neg();
        if ![READABLE, DATAGRAM, FATE].contains(&bit) {
            session.dirty &= !bit;
        }
        let ends = session.ends.as_deref_mut();
        match bit {
            OPENED => {
                let number = source.number(&session.key);
                Some(Completion::Opened { token: session.origin, handle, number })
            }
            ACCEPTED => {
                let number = source.number(&session.key);
                Handle::from_raw(session.origin).map(|parent| Completion::Accepted { handle, parent, number })
            }
            ADDRESSES => {
                source.addresses(&session.key).map(|ends| Completion::Addresses { handle, ends: Box::new(ends) })
            }
            ESTABLISHED => Some(Completion::Established { connection: handle }),
            CREDIT => {
                let limit = session.grantor.as_mut()?.grant()?;
                Some(Completion::CreditGranted { stream: handle, limit })
            }
            READABLE => Self::deliver(session, handle, (source, max)),
            RESET => ends.map(|ends| Completion::Reset { stream: handle, code: ends.reset }),
            STOPPED => ends.map(|ends| Completion::Stopped { stream: handle, code: ends.stopped }),
            ALL_ACKED => Some(Completion::AllAcked { stream: handle }),
            DATAGRAM => match source.datagram(&session.key) {
                Some(data) => Some(Completion::Datagram { connection: handle, data }),
                None => {
                    session.dirty &= !DATAGRAM;
                    None
                }
            },
            FATE => match source.datagram_fate(&session.key) {
                Some((tag, arrived)) => Some(Completion::DatagramFate { connection: handle, tag, arrived }),
                None => {
                    session.dirty &= !FATE;
                    None
                }
            },
            ROOM => Some(Completion::DatagramRoom { connection: handle }),
            CLOSED => {
                session.dirty = 0;
                let (code, reason, text) = ends.map(|ends| core::mem::take(&mut ends.closed)).unwrap_or_default();
                Some(Completion::Closed { handle, code, reason, text })
            }
            _ => None,
        }
    }

    fn deliver<K>(
        session: &mut Session<K>,
        stream: Handle,
        (source, max): (&mut dyn Source<K>, u32),
    ) -> Option<Completion> {
        match source.read(&mut session.key, session.delivery.room().min(max)) {
            Read::Data { offset, data, fin } => {
                debug_assert!(clamp(data.len()) <= session.delivery.room(), "the source keeps to what was asked for");
                session.delivery.delivered(data.len());
                if fin {
                    Self::on_end(session, source);
                }
                Some(Completion::Data { stream, offset, data, fin })
            }
            Read::Reset(code) => {
                Self::on_end(session, source);
                session.dirty |= RESET;
                session.ends.get_or_insert_default().reset = code;
                None
            }
            Read::Nothing => {
                session.dirty &= !READABLE;
                None
            }
        }
    }

    /// The last of a stream was read.
    fn on_end<K>(session: &mut Session<K>, source: &dyn Source<K>) {
        session.dirty &= !READABLE;
        match source.over(&session.key) {
            Some(0) => session.dirty = session.dirty & !ALL_ACKED | CLOSED,
            Some(reason) => {
                session.dirty |= CLOSED;
                session.ends.get_or_insert_default().closed.1 = reason;
            }
            None => {}
        }
    }

    /// Ends a session without a word, for a port that is gone; its key comes back.
    pub fn forget<K>(&mut self, sessions: &mut HandleTable<Session<K>>, handle: Handle) -> Option<K> {
        self.own(sessions, handle).ok()?;
        let session = sessions.remove(handle).ok()?;
        if let Some(grantor) = session.grantor {
            grantor.end(&mut self.share);
        }
        Some(session.key)
    }
}

//! What workers say, and what becomes of sessions by it.

use bytes::Bytes;
use rustc_hash::FxHashSet;

use super::{
    entry::{Connection, Entry, Over, Part, STREAMS_MAX, Stream, What},
    state::{LENT_MAX, Name, State},
};
use crate::{
    control::Protocol,
    handle::{Handle, Kind},
    msg::{Addresses, Completion, Op, Rejection, Submission},
    reason::{Ended, Reason},
};

/// A run of chunks is at least this large: what a short message costs its port.
const LENT_LEAST: usize = 4096;
/// The bit of a stream's number that says that it brings bytes only.
const INWARD: u64 = 2;

impl State {
    /// A worker said something.
    pub(super) fn hear(&mut self, place: usize, message: Completion) {
        match message {
            Completion::Opened { token, handle, number } => self.on_opened(place, (token, handle, number)),
            Completion::Failed { token, .. } => self.on_failed(place, token, Ended::of(&message)),
            Completion::Addresses { handle, ends } => self.on_addresses((place, handle), &ends),
            Completion::Established { connection } => self.on_established((place, connection)),
            Completion::Accepted { handle, parent, number } => self.on_accepted(place, (handle, parent, number)),
            Completion::Closed { handle, .. } => self.on_closed(place, handle, Ended::of(&message)),
            Completion::Data { stream, data, fin, .. } => self.on_data(place, stream, (data, fin)),
            Completion::Datagram { connection, data } => self.on_connection((place, connection), |c| c.keep(data)),
            Completion::DatagramRoom { connection } => self.on_connection((place, connection), |c| c.blocked = false),
            Completion::CreditGranted { stream, limit } => {
                self.on_stream((place, stream), |s| _ = s.credit.grant(limit))
            }
            Completion::Reset { stream, code } => self.on_stream((place, stream), |s| {
                s.reading.get_or_insert(Over::Code(code));
            }),
            Completion::Stopped { stream, code } => self.on_stream((place, stream), |s| {
                s.writing = s.writing.filter(|over| *over != Over::Fin).or(Some(Over::Code(code)));
            }),
            Completion::AllAcked { stream } => {
                self.laid_to_rest((place, stream));
                self.on_stream((place, stream), |s| s.acked = true);
            }
            Completion::Stats { handle, stats, .. } => {
                if let Some(session) = self.by_handle.get(&(place, handle)).copied() {
                    if let Some(entry) = self.sessions.get_mut(&session) {
                        entry.stats = Some(stats);
                    }
                    self.touch(session);
                }
            }
            Completion::Rejected { handle, op: Op::Datagram, why } => self.on_connection((place, handle), |c| {
                c.dropped += 1;
                match why {
                    Rejection::Overrun => c.blocked = true,
                    Rejection::Argument => c.unfit = true,
                    Rejection::Handle(_) => {}
                }
            }),
            // A submission that met the end of its session on the way; the end is told by itself.
            Completion::Rejected { .. }
            | Completion::DatagramFate { .. }
            | Completion::Readable { .. }
            | Completion::Wake => {}
        }
    }

    fn on_connection(&mut self, name: Name, change: impl FnOnce(&mut Connection)) {
        let Some(session) = self.by_handle.get(&name).copied() else { return };
        if let Some(connection) = self.sessions.get_mut(&session).and_then(Entry::connection) {
            change(connection);
            self.touch(session);
        }
    }

    fn on_stream(&mut self, name: Name, change: impl FnOnce(&mut Stream)) {
        let Some(session) = self.by_handle.get(&name).copied() else { return };
        if let Some(stream) = self.sessions.get_mut(&session).and_then(Entry::stream) {
            change(stream);
            self.touch(session);
        }
    }

    fn on_opened(&mut self, place: usize, (session, handle, number): (u64, Handle, u64)) {
        self.lives(place);
        let Some(entry) = self.sessions.get_mut(&session) else {
            // Closed while it was being opened.
            self.orphans.insert((place, handle), None);
            self.post(place, Submission::Close { handle, code: 0, reason: Bytes::new() });
            return;
        };
        entry.handle.get_or_insert(handle);
        let parent = entry.stream().and_then(|stream| stream.parent);
        if entry.protocol == Protocol::Quic {
            entry.number = number;
        } else if let (Some(local), Ok(port)) = (&mut entry.local, u16::try_from(number)) {
            local.set_port(port);
        }
        if let Some(listener) = entry.listener() {
            let part = listener.parts.iter_mut().find(|(at, part)| *at == place && *part == Part::Asked);
            if let Some((_, part)) = part {
                *part = Part::Open(handle);
            }
        }
        self.by_handle.insert((place, handle), session);
        self.is_answered(parent, session);
        self.touch(session);
    }

    /// A stream of that connection is not being opened any more.
    pub(super) fn is_answered(&mut self, parent: Option<u64>, session: u64) {
        let parent = parent.and_then(|parent| self.sessions.get_mut(&parent));
        if let Some(connection) = parent.and_then(Entry::connection) {
            connection.opening.remove(&session);
        }
    }

    /// The connection in which these were being opened is over.
    pub(super) fn end_opening(&mut self, opening: FxHashSet<u64>, ended: &Ended) {
        for session in opening {
            if let Some(entry) = self.sessions.get_mut(&session).filter(|entry| entry.handle.is_none()) {
                entry.end.get_or_insert(ended.clone());
                self.touch(session);
            }
        }
    }

    fn on_failed(&mut self, place: usize, session: u64, ended: Option<Ended>) {
        self.fail(place, session, ended);
        // It may have been the last thing that was about to live there.
        if let Some(number) = self.endpoint_of(place) {
            self.close_if_idle(number);
        }
    }

    fn fail(&mut self, place: usize, session: u64, ended: Option<Ended>) {
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        let over = match entry.listener() {
            Some(listener) => {
                let part = listener.parts.iter_mut().find(|(at, part)| *at == place && *part == Part::Asked);
                if let Some((_, part)) = part {
                    *part = Part::Over;
                }
                listener.is_over()
            }
            None => true,
        };
        if over && entry.end.is_none() {
            entry.end = ended;
        }
        let parent = entry.stream().and_then(|stream| stream.parent);
        self.is_answered(parent, session);
        self.touch(session);
        self.is_over(session);
    }

    fn on_addresses(&mut self, name: Name, ends: &Addresses) {
        let Some(session) = self.by_handle.get(&name).copied() else { return };
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        (entry.local, entry.peer, entry.is_placed) = (Some(ends.local), Some(ends.peer), true);
        let listener = entry.stream().and_then(|stream| stream.listener.take());
        self.touch(session);
        self.is_up(session);
        if let Some(listener) = listener {
            self.arrive(listener, session);
        }
    }

    fn on_established(&mut self, name: Name) {
        let Some(session) = self.by_handle.get(&name).copied() else { return };
        let Some(connection) = self.sessions.get_mut(&session).and_then(Entry::connection) else { return };
        connection.established = true;
        let listener = connection.listener.take();
        self.touch(session);
        self.is_up(session);
        if let Some(listener) = listener {
            self.arrive(listener, session);
        }
    }

    /// A session may have become open that is one address of a name.
    fn is_up(&mut self, session: u64) {
        if self.sessions.get(&session).is_some_and(|entry| entry.racer_of.is_some() && entry.is_open()) {
            self.racer_has_won(session);
        }
    }

    /// A connection that came in can be accepted.
    fn arrive(&mut self, at: u64, session: u64) {
        match self.sessions.get_mut(&at).and_then(Entry::listener) {
            Some(listener) => {
                listener.under_way = listener.under_way.saturating_sub(1);
                listener.ready.push_back(session);
                self.touch(at);
            }
            // The listener was closed meanwhile.
            None => self.release(session, 0, Bytes::new()),
        }
    }

    fn on_accepted(&mut self, place: usize, (handle, parent, number): (Handle, Handle, u64)) {
        self.lives(place);
        let above = self.by_handle.get(&(place, parent)).copied();
        let full = self.sessions.len() >= self.sessions_max;
        let Some((above, entry)) =
            above.filter(|_| !full).and_then(|above| Some((above, self.sessions.get_mut(&above)?)))
        else {
            return self.turn_away(place, handle);
        };
        // A stream is where its connection is.
        let (protocol, local, peer) = (entry.protocol, entry.local, entry.peer);
        let (nonblocking, timeout) = (entry.nonblocking, entry.timeout);
        let has_room = match &entry.what {
            What::Listener(listener) => listener.has_room(),
            What::Connection(connection) => connection.ready.len() < STREAMS_MAX,
            _ => false,
        };
        if !has_room {
            return self.turn_away(place, handle);
        }
        let what = match (&mut entry.what, handle.kind()) {
            (What::Listener(listener), Kind::Connection) => {
                listener.under_way += 1;
                What::Connection(Box::new(Connection { listener: Some(above), ..Connection::default() }))
            }
            (What::Listener(listener), Kind::Stream) => {
                listener.under_way += 1;
                What::Stream(Box::new(Stream { listener: Some(above), ..Stream::default() }))
            }
            (What::Connection(_), _) => {
                let writing = (number & INWARD != 0).then_some(Over::Never);
                What::Stream(Box::new(Stream { parent: Some(above), writing, ..Stream::default() }))
            }
            _ => return self.turn_away(place, handle),
        };
        let mut new = Entry::new(protocol, what);
        (new.handle, new.place, new.endpoint) = (Some(handle), place, self.endpoint_of(place));
        (new.local, new.peer) = (local, peer);
        (new.nonblocking, new.timeout, new.number) = (nonblocking, timeout, number);
        if let Some(endpoint) = new.endpoint {
            self.joins(endpoint);
        }
        let session = self.enter(new);
        self.by_handle.insert((place, handle), session);
        self.touch(session);
        self.welcome(place, (above, session, handle));
    }

    /// What came in is kept. A connection over UDP or QUIC still has to be told so.
    fn welcome(&mut self, place: usize, (above, session, handle): (u64, u64, Handle)) {
        if handle.kind() == Kind::Connection {
            return self.post(place, Submission::Accept { handle });
        }
        // What came in on a listener arrives when it is known where from.
        if let Some(connection) = self.sessions.get_mut(&above).and_then(Entry::connection) {
            connection.ready.push_back(session);
            self.touch(above);
        }
    }

    fn turn_away(&mut self, place: usize, handle: Handle) {
        self.orphans.insert((place, handle), None);
        self.post(place, Submission::Refuse { handle, code: 0 });
    }

    fn on_data(&mut self, place: usize, handle: Handle, (data, fin): (Bytes, bool)) {
        let Some(session) = self.by_handle.get(&(place, handle)).copied() else { return };
        let Some(Some(at)) = self.places.get_mut(place) else { return };
        let Some(stream) = self.sessions.get_mut(&session).and_then(Entry::stream) else { return };
        if stream.reading == Some(Over::Here) {
            return;
        }
        if !data.is_empty() {
            let cost = data.len().max(LENT_LEAST);
            if at.lent + cost > LENT_MAX {
                stream.inbox.push_back((Bytes::copy_from_slice(&data), 0));
            } else {
                at.lent += cost;
                stream.inbox.push_back((data, cost));
            }
        }
        if fin {
            stream.reading.get_or_insert(Over::Fin);
        }
        self.touch(session);
    }

    /// The peer has all of a stream that the application closed.
    fn laid_to_rest(&mut self, name: Name) {
        let Some(parent) = self.orphans.get_mut(&name).and_then(Option::take) else { return };
        if let Some(connection) = self.sessions.get_mut(&parent).and_then(Entry::connection) {
            connection.lingering = connection.lingering.saturating_sub(1);
            self.touch(parent);
        }
    }

    /// A session may have ended that is one address of a name.
    fn is_over(&mut self, session: u64) {
        let Some(entry) = self.sessions.get(&session).filter(|entry| entry.racer_of.is_some()) else { return };
        if let Some(ended) = entry.end.clone() {
            self.racer_is_over(session, ended);
        }
    }

    fn on_closed(&mut self, place: usize, handle: Handle, ended: Option<Ended>) {
        self.laid_to_rest((place, handle));
        self.orphans.remove(&(place, handle));
        let session = self.by_handle.remove(&(place, handle));
        self.died(place);
        let Some(session) = session else { return };
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        let ended = ended.unwrap_or(Ended::plain(Reason::Internal));
        let (mut forgotten, mut opening) = (None, FxHashSet::default());
        match &mut entry.what {
            What::Listener(listener) => {
                let mine = listener.parts.iter_mut().find(|mine| **mine == (place, Part::Open(handle)));
                if let Some((_, part)) = mine {
                    *part = Part::Over;
                }
                if !listener.is_over() {
                    return;
                }
            }
            What::Stream(stream) if ended.reason == Reason::Done => {
                stream.acked = true;
                stream.reading.get_or_insert(Over::Fin);
                forgotten = stream.listener.take();
            }
            What::Stream(stream) => forgotten = stream.listener.take(),
            What::Connection(connection) => {
                forgotten = connection.listener.take();
                opening = std::mem::take(&mut connection.opening);
            }
            _ => {}
        }
        entry.end.get_or_insert(ended.clone());
        self.end_opening(opening, &ended);
        self.touch(session);
        self.is_over(session);
        if let Some(above) = forgotten {
            // Its handshake failed, or it was gone at once; nobody ever heard of it.
            if let Some(listener) = self.sessions.get_mut(&above).and_then(Entry::listener) {
                listener.under_way = listener.under_way.saturating_sub(1);
            }
            self.release(session, 0, Bytes::new());
        }
    }
}

//! Bytes, datagrams, ends and figures.

use std::net::SocketAddr;

use bytes::Bytes;

use super::{
    Error, Session, Stack,
    entry::{Connection, Entry, Over, Stream, What},
    state::State,
    wait::{Patience, Step},
};
use crate::{
    control::Protocol,
    msg::{SessionStats, Submission},
    reason::{Ended, Reason},
    ring::PushError,
};

/// Bytes read of a stream after which the worker is told, so that more comes.
const REPORT_BYTES: u64 = 32 << 10;
/// The same when nothing is left to be read. Ports deliver at least twice as much ahead.
const REPORT_LEAST: u64 = 8 << 10;

const NO_STREAM: &str = "only streams carry bytes; open or accept one in the connection";
const NO_DATAGRAMS: &str = "only connections over QUIC and UDP carry datagrams";
const NOT_YET: &str = "the session is not connected yet";

/// What a session is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Created.
    Created,
    /// It has an address, but does not listen.
    Bound,
    /// Takes connections.
    Listening,
    /// Being opened.
    Connecting,
    /// In use.
    Open,
    /// Over; [`Stack::end`] says why. What arrived before can still be read.
    Ended,
}

/// How a stream was given up, as an error.
fn given_up(over: Over) -> Error {
    match over {
        Over::Code(code) => Error::Stopped(code),
        Over::Fin => Error::Unfit("the stream was finished; nothing can be written behind its end"),
        Over::Here => Error::Ended(Ended::plain(Reason::ClosedHere)),
        Over::Never => Error::Unfit("the peer opened the stream for its own bytes only"),
    }
}

impl Stack {
    /// Reads bytes of a stream, or one datagram of a UDP session; how many. 0 is the end of a stream. What does not fit of a
    /// datagram is lost.
    ///
    /// # Errors
    /// [`Error::Reset`] when the peer gave up, [`Error::Ended`] when the connection is over.
    pub fn read(&self, session: Session, into: &mut [u8]) -> Result<usize, Error> {
        let patience = self.patience(session)?;
        self.0.wait(Some(session.0), patience, |state| read(state, session.0, into))
    }

    /// Writes bytes to a stream, or one datagram to a UDP session; how many were taken, at least one.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the peer does not want them, [`Error::Ended`] when the connection is over.
    pub fn write(&self, session: Session, data: &[u8]) -> Result<usize, Error> {
        let patience = self.patience(session)?;
        self.0.wait(Some(session.0), patience, |state| write(state, session.0, data))
    }

    /// Writes all of it. For a session that does not block, [`write`](Self::write) says how far it came.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_all(&self, session: Session, mut data: &[u8]) -> Result<(), Error> {
        while !data.is_empty() {
            let count = self.write(session, data)?;
            data = data.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// The stream ends after what was written; what the peer sends can still be read.
    ///
    /// # Errors
    /// [`Error::Unfit`] for what is no stream.
    pub fn finish(&self, session: Session) -> Result<(), Error> {
        self.end_writing(session, Over::Fin, |stream| Submission::Finish { stream })
    }

    /// Gives up sending, with a code for the peer; what it does not have yet may be lost.
    ///
    /// # Errors
    /// [`Error::Unfit`] for what is no stream.
    pub fn reset(&self, session: Session, code: u64) -> Result<(), Error> {
        self.end_writing(session, Over::Here, |stream| Submission::Reset { stream, code })
    }

    fn end_writing(
        &self,
        session: Session,
        over: Over,
        submission: impl FnOnce(crate::handle::Handle) -> Submission,
    ) -> Result<(), Error> {
        let mut state = self.0.lock();
        let entry = state.entry(session.0)?;
        let (place, ended, handle) = (entry.place, entry.end.is_some(), entry.handle);
        let Some(stream) = entry.stream() else { return Err(Error::Unfit(NO_STREAM)) };
        let Some(handle) = handle else { return Err(Error::Unfit(NOT_YET)) };
        let news = match stream.writing {
            None => true,
            // What was finished can still be given up, and it may be finished twice.
            Some(Over::Fin) => over == Over::Here,
            Some(Over::Never) => return Err(given_up(Over::Never)),
            Some(_) => false,
        };
        if news {
            stream.writing = Some(over);
            if !ended {
                state.post(place, submission(handle));
            }
            state.touch(session.0);
        }
        self.0.leave(state);
        Ok(())
    }

    /// Asks the peer to give up sending, with a code. What was received and not read is dropped.
    ///
    /// # Errors
    /// [`Error::Unfit`] for what is no stream.
    pub fn stop(&self, session: Session, code: u64) -> Result<(), Error> {
        let mut state = self.0.lock();
        let entry = state.entry(session.0)?;
        let (place, ended, handle) = (entry.place, entry.end.is_some(), entry.handle);
        let Some(stream) = entry.stream() else { return Err(Error::Unfit(NO_STREAM)) };
        let Some(handle) = handle else { return Err(Error::Unfit(NOT_YET)) };
        let was = stream.reading.replace(Over::Here);
        let lent: usize = stream.inbox.drain(..).map(|(_, cost)| cost).sum();
        state.give_back_chunks(place, lent);
        if was.is_none() && !ended {
            state.post(place, Submission::Stop { stream: handle, code });
        }
        state.touch(session.0);
        self.0.leave(state);
        Ok(())
    }

    /// Waits until the peer has everything that was written to a finished stream.
    ///
    /// # Errors
    /// [`Error::Stopped`] and [`Error::Ended`] when it never will; [`Error::Unfit`] when the stream is not finished.
    pub fn wait_acked(&self, session: Session) -> Result<(), Error> {
        let patience = self.patience(session)?;
        self.0.wait(Some(session.0), patience, |state| {
            let Some(entry) = state.sessions.get_mut(&session.0) else { return Step::Done(Err(Error::NoSession)) };
            let end = entry.end.clone();
            let Some(stream) = entry.stream() else { return Step::Done(Err(Error::Unfit(NO_STREAM))) };
            match (stream.acked, stream.writing, end) {
                (true, ..) => Step::Done(Ok(())),
                (_, Some(over), _) if over != Over::Fin => Step::Done(Err(given_up(over))),
                (.., Some(end)) => Step::Done(Err(Error::Ended(end))),
                (_, None, _) => Step::Done(Err(Error::Unfit("the stream is not finished"))),
                _ => Step::Wait,
            }
        })
    }

    /// Sends one unreliable datagram over a QUIC connection or a UDP session. It waits while too many wait to be sent.
    ///
    /// # Errors
    /// [`Error::Datagram`] when an earlier one was too long for the path, or the peer takes none.
    pub fn send_datagram(&self, session: Session, data: &[u8]) -> Result<(), Error> {
        let patience = self.patience(session)?;
        self.0.wait(Some(session.0), patience, |state| send_datagram(state, session.0, data))
    }

    /// Takes the next datagram that came in. Of those that nobody takes the oldest are dropped.
    ///
    /// # Errors
    /// [`Error::Ended`] when the connection is over.
    pub fn recv_datagram(&self, session: Session) -> Result<Bytes, Error> {
        let patience = self.patience(session)?;
        self.0.wait(Some(session.0), patience, |state| {
            let Some(entry) = state.sessions.get_mut(&session.0) else { return Step::Done(Err(Error::NoSession)) };
            let Some(connection) = entry.connection() else { return Step::Done(Err(Error::Unfit(NO_DATAGRAMS))) };
            match (connection.take(), &entry.end) {
                (Some(data), _) => Step::Done(Ok(data)),
                (None, Some(end)) => Step::Done(Err(Error::Ended(end.clone()))),
                (None, None) => Step::Wait,
            }
        })
    }

    /// Datagrams of a connection that were dropped at this end: nobody read them in time, or they could not be sent.
    ///
    /// # Errors
    /// [`Error::Unfit`] for what carries no datagrams.
    pub fn dropped_datagrams(&self, session: Session) -> Result<u64, Error> {
        let mut state = self.0.lock();
        let entry = state.entry(session.0)?;
        entry.connection().map(|connection| connection.dropped).ok_or(Error::Unfit(NO_DATAGRAMS))
    }

    /// Where the session is bound: of an established connection this end's address of its path, as far as the
    /// system tells it: QUIC connections that are made share a socket that is bound to no single address.
    ///
    /// # Errors
    /// [`Error::Unfit`] when it is bound nowhere.
    pub fn local_addr(&self, session: Session) -> Result<SocketAddr, Error> {
        self.0.lock().entry(session.0)?.local.ok_or(Error::Unfit("the session is bound nowhere yet"))
    }

    /// Where the peer is: of a connection that came in, where it came from; of a stream, where its connection's peer is. Of a
    /// QUIC connection whose peer has moved since it was established, the first address.
    ///
    /// # Errors
    /// [`Error::Unfit`] when it has none.
    pub fn peer_addr(&self, session: Session) -> Result<SocketAddr, Error> {
        self.0.lock().entry(session.0)?.peer.ok_or(Error::Unfit("the session has no peer"))
    }

    /// What the service calls the session, as operators see it; `None` before it is open.
    #[must_use]
    pub fn handle(&self, session: Session) -> Option<u64> {
        self.0.lock().sessions.get(&session.0)?.handle.map(crate::handle::Handle::raw)
    }

    /// What both ends call a QUIC stream; 0 for other sessions.
    ///
    /// # Errors
    /// [`Error::NoSession`].
    pub fn number(&self, session: Session) -> Result<u64, Error> {
        self.0.lock().entry(session.0).map(|entry| entry.number)
    }

    /// Whether sessions can be accepted from it: a listener, or a QUIC connection.
    #[must_use]
    pub fn is_connectable_listener(&self, session: Session) -> bool {
        let mut state = self.0.lock();
        state.sessions.get_mut(&session.0).is_some_and(|entry| match entry.what {
            What::Listener(_) => true,
            What::Connection(_) => entry.protocol == Protocol::Quic,
            What::Fresh | What::Bound(_) | What::Stream(_) => false,
        })
    }

    /// What the session was created for.
    ///
    /// # Errors
    /// [`Error::NoSession`].
    pub fn protocol(&self, session: Session) -> Result<Protocol, Error> {
        self.0.lock().entry(session.0).map(|entry| entry.protocol)
    }

    /// What the session is at present.
    ///
    /// # Errors
    /// [`Error::NoSession`].
    pub fn state(&self, session: Session) -> Result<SessionState, Error> {
        let mut state = self.0.lock();
        state.drain();
        let now = state.entry(session.0).map(|entry| match &entry.what {
            _ if entry.end.is_some() => SessionState::Ended,
            What::Fresh => SessionState::Created,
            What::Bound(_) => SessionState::Bound,
            What::Listener(_) => SessionState::Listening,
            What::Connection(_) | What::Stream(_) if entry.is_open() => SessionState::Open,
            What::Connection(_) | What::Stream(_) => SessionState::Connecting,
        });
        self.0.leave(state);
        now
    }

    /// Why the session is over; `None` while it is not.
    ///
    /// # Errors
    /// [`Error::NoSession`].
    pub fn end(&self, session: Session) -> Result<Option<Ended>, Error> {
        let mut state = self.0.lock();
        state.drain();
        let end = state.entry(session.0).map(|entry| entry.end.clone());
        self.0.leave(state);
        end
    }

    /// Figures of an open session.
    ///
    /// # Errors
    /// [`Error::Ended`] when it is over.
    pub fn stats(&self, session: Session) -> Result<SessionStats, Error> {
        let patience = self.patience(session)?;
        self.ask_stats(session)?;
        self.0.wait(Some(session.0), Patience { nonblocking: false, ..patience }, |state| stats(state, session.0))
    }

    /// Asks the worker for figures.
    pub(super) fn ask_stats(&self, session: Session) -> Result<(), Error> {
        let mut state = self.0.lock();
        let entry = state.entry(session.0)?;
        entry.stats = None;
        let (place, handle) = (entry.place, entry.handle);
        let Some(handle) = handle else { return Err(Error::Unfit(NOT_YET)) };
        state.post(place, Submission::Stats { handle, token: session.0 });
        self.0.leave(state);
        Ok(())
    }

    /// The figures, when they have come.
    #[cfg(feature = "tokio")]
    pub(super) fn asked_stats(&self, session: Session) -> Result<SessionStats, Error> {
        let patience = self.patience(session)?;
        self.0.wait(Some(session.0), Patience { nonblocking: true, ..patience }, |state| stats(state, session.0))
    }
}

/// The figures that the worker gave. They stay: several may wait for them.
fn stats(state: &mut State, session: u64) -> Step<SessionStats> {
    let Some(entry) = state.sessions.get_mut(&session) else { return Step::Done(Err(Error::NoSession)) };
    match (&entry.stats, &entry.end) {
        (Some(stats), _) => Step::Done(Ok(**stats)),
        (None, Some(end)) => Step::Done(Err(Error::Ended(end.clone()))),
        (None, None) => Step::Wait,
    }
}

impl State {
    /// So much of a port's memory is free again.
    fn give_back_chunks(&mut self, place: usize, lent: usize) {
        if let Some(Some(at)) = self.places.get_mut(place) {
            at.lent = at.lent.saturating_sub(lent);
        }
    }
}

/// Takes bytes from the front of what was received; how many, and how much of the port's memory that frees.
fn take(stream: &mut Stream, into: &mut [u8]) -> (usize, usize) {
    let (mut count, mut freed) = (0, 0);
    while let Some((data, cost)) = stream.inbox.front_mut() {
        let room = into.get_mut(count..).unwrap_or_default();
        let some = data.len().min(room.len());
        room[..some].copy_from_slice(&data[..some]);
        count += some;
        if some < data.len() {
            // Dropping the front half of a chunk would not free it.
            let _ = data.split_to(some);
            break;
        }
        freed += *cost;
        stream.inbox.pop_front();
    }
    (count, freed)
}

fn read(state: &mut State, session: u64, into: &mut [u8]) -> Step<usize> {
    let Some(entry) = state.sessions.get_mut(&session) else { return Step::Done(Err(Error::NoSession)) };
    let (place, handle) = (entry.place, entry.handle);
    let end = entry.end.is_some();
    match &mut entry.what {
        What::Stream(stream) => {
            if into.is_empty() {
                return Step::Done(Ok(0));
            }
            let (count, freed) = take(stream, into);
            if count == 0 {
                return match stream.reading {
                    Some(Over::Fin) => Step::Done(Ok(0)),
                    Some(Over::Code(code)) => Step::Done(Err(Error::Reset(code))),
                    Some(Over::Here) => Step::Done(Err(Error::Ended(Ended::plain(Reason::ClosedHere)))),
                    Some(Over::Never) => Step::Done(Err(Error::Unfit("this end opened the stream to write only"))),
                    None => or_ended(entry),
                };
            }
            stream.unreported += crate::num::wide(count);
            let least = if stream.inbox.is_empty() { REPORT_LEAST } else { REPORT_BYTES };
            let report = (stream.reading.is_none() && !end && stream.unreported >= least)
                .then(|| std::mem::take(&mut stream.unreported));
            state.give_back_chunks(place, freed);
            if let (Some(bytes), Some(stream)) = (report, handle) {
                state.post(place, Submission::Consumed { stream, bytes });
            }
            Step::Done(Ok(count))
        }
        What::Connection(connection) if entry.protocol == Protocol::Udp => match connection.take() {
            Some(data) => {
                let count = data.len().min(into.len());
                into[..count].copy_from_slice(&data[..count]);
                Step::Done(Ok(count))
            }
            None => or_ended(entry),
        },
        _ => Step::Done(Err(Error::Unfit(NO_STREAM))),
    }
}

/// Nothing can be had of a session now: it waits, unless that is of no use.
fn or_ended<T>(entry: &Entry) -> Step<T> {
    match &entry.end {
        Some(end) => Step::Done(Err(Error::Ended(end.clone()))),
        None => Step::Wait,
    }
}

fn write(state: &mut State, session: u64, data: &[u8]) -> Step<usize> {
    let gone = state.gone;
    let State { sessions, places, .. } = state;
    let Some(entry) = sessions.get_mut(&session) else { return Step::Done(Err(Error::NoSession)) };
    if gone {
        return Step::Done(Err(Error::ServiceGone));
    }
    if entry.protocol == Protocol::Udp && matches!(entry.what, What::Connection(_)) {
        return match send_datagram(state, session, data) {
            Step::Done(done) => Step::Done(done.map(|()| data.len())),
            Step::Wait => Step::Wait,
            Step::WaitForRoom => Step::WaitForRoom,
        };
    }
    let (end, place) = (entry.end.clone(), entry.place);
    let (Some(handle), Some(stream)) = (entry.handle, entry.stream()) else {
        let connecting = matches!(entry.what, What::Stream(_));
        return match (connecting, end) {
            (false, _) => Step::Done(Err(Error::Unfit(NO_STREAM))),
            (true, Some(end)) => Step::Done(Err(Error::Ended(end))),
            (true, None) => Step::Wait,
        };
    };
    match (stream.writing, end) {
        (Some(over), _) => return Step::Done(Err(given_up(over))),
        (None, Some(end)) => return Step::Done(Err(Error::Ended(end))),
        (None, None) if data.is_empty() => return Step::Done(Ok(0)),
        (None, None) => {}
    }
    let Some(at) = places.get_mut(place).and_then(Option::as_mut) else {
        return Step::Done(Err(Error::ServiceGone));
    };
    if !at.is_flushed() {
        state.starve(place);
        return Step::WaitForRoom;
    }
    match at.port.write_slice(handle, &mut stream.credit, data, false) {
        0 if stream.credit.room() == 0 => Step::Wait,
        0 => {
            state.starve(place);
            Step::WaitForRoom
        }
        count => Step::Done(Ok(count)),
    }
}

fn send_datagram(state: &mut State, session: u64, data: &[u8]) -> Step<()> {
    if state.gone {
        return Step::Done(Err(Error::ServiceGone));
    }
    let Some(entry) = state.sessions.get_mut(&session) else { return Step::Done(Err(Error::NoSession)) };
    let (place, handle, end) = (entry.place, entry.handle, entry.end.clone());
    let Some(connection) = entry.connection() else { return Step::Done(Err(Error::Unfit(NO_DATAGRAMS))) };
    let Connection { established, blocked, unfit, .. } = connection;
    if let Some(end) = end {
        return Step::Done(Err(Error::Ended(end)));
    }
    if std::mem::take(unfit) {
        return Step::Done(Err(Error::Datagram));
    }
    let Some(handle) = handle.filter(|_| *established && !*blocked) else { return Step::Wait };
    let datagram = Submission::Datagram { connection: handle, data: Bytes::copy_from_slice(data), tag: None };
    match state.submit(place, datagram) {
        Ok(()) => Step::Done(Ok(())),
        Err(PushError::Full(_)) => Step::WaitForRoom,
        Err(PushError::Closed(_)) => Step::Done(Err(Error::ServiceGone)),
    }
}

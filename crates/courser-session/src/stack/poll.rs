//! Readiness: which sessions something can be done with, for programs that wait for many at once.

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use super::{
    Error, Session, Stack,
    entry::{Entry, Over, What},
    state::State,
    wait::{Patience, Step},
};

/// What can be done with a session without waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness(u8);

impl Readiness {
    /// There is something to read: bytes, the end of a stream, a datagram.
    pub const READ: Self = Self(1);
    /// Something can be written, or opened in a connection.
    pub const WRITE: Self = Self(2);
    /// There is something to accept.
    pub const ACCEPT: Self = Self(4);
    /// The session is over.
    pub const HANGUP: Self = Self(8);
    /// It did not end well.
    pub const ERROR: Self = Self(16);

    /// Whether all of that holds.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits: 1 read, 2 write, 4 accept, 8 hang-up, 16 error.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    fn set(&mut self, other: Self, holds: bool) {
        if holds {
            self.0 |= other.0;
        }
    }
}

/// A session to which something happened, and what can be done with it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Which.
    pub session: Session,
    /// What can be done.
    pub readiness: Readiness,
}

impl Entry {
    fn readiness(&self) -> Readiness {
        let mut ready = Readiness::default();
        let open = self.is_open();
        match &self.what {
            What::Fresh | What::Bound(_) => {}
            What::Listener(listener) => ready.set(Readiness::ACCEPT, !listener.ready.is_empty()),
            What::Connection(connection) => {
                ready.set(Readiness::READ, !connection.datagrams.is_empty());
                ready.set(Readiness::ACCEPT, !connection.ready.is_empty());
                ready.set(Readiness::WRITE, open && !connection.blocked);
            }
            What::Stream(stream) => {
                let over = matches!(stream.reading, Some(Over::Fin | Over::Code(_)));
                ready.set(Readiness::READ, !stream.inbox.is_empty() || over);
                ready.set(Readiness::WRITE, open && stream.writing.is_none() && stream.credit.room() > 0);
                let given_up = |over: Option<Over>| matches!(over, Some(Over::Code(_)));
                ready.set(Readiness::ERROR, given_up(stream.reading) || given_up(stream.writing));
            }
        }
        ready.set(Readiness::HANGUP, self.end.is_some());
        ready.set(Readiness::ERROR, self.end.as_ref().is_some_and(|end| !end.is_good()));
        ready
    }
}

/// Tells of sessions to which something happened; how many.
fn collect(state: &mut State, into: &mut Vec<Ready>) -> usize {
    let before = into.len();
    while let Some(session) = state.news.pop_front() {
        let Some(entry) = state.sessions.get_mut(&session) else { continue };
        entry.in_news = false;
        let readiness = entry.readiness();
        // What was not accepted yet is told of by its listener.
        if entry.given && readiness != Readiness::default() {
            into.push(Ready { session: Session(session), readiness });
        }
    }
    into.len() - before
}

impl Stack {
    /// Waits for so long (`None`: for ever) until something happens to sessions, and appends these with all that can be done
    /// with them now; how many. Each event is told once: use the session until it answers [`Error::WouldBlock`].
    ///
    /// # Errors
    /// [`Error::ServiceGone`], after everything that happened before was told.
    pub fn poll(&self, events: &mut Vec<Ready>, timeout: Option<Duration>) -> Result<usize, Error> {
        self.0.lock().watched = false;
        let nonblocking = timeout.is_some_and(|timeout| timeout.is_zero());
        loop {
            let patience = Patience { nonblocking, timeout };
            let found = self.0.wait(None, patience, |state| match collect(state, events) {
                0 => Step::Wait,
                count => Step::Done(Ok(count)),
            });
            match found {
                Err(Error::WouldBlock | Error::TimedOut) => {
                    self.0.glance_at_host();
                    // From here on the descriptor tells of news, unless there was some in this very moment.
                    if self.0.watch() {
                        return Ok(0);
                    }
                }
                found => return found,
            }
        }
    }

    /// The sessions to which anything happened, ready or not; how many. 0: from here on the descriptor tells of news.
    #[cfg(feature = "tokio")]
    pub(super) fn touched(&self, into: &mut Vec<u64>) -> Result<usize, Error> {
        self.0.lock().watched = false;
        let patience = Patience { nonblocking: true, timeout: None };
        loop {
            let found = self.0.wait(None, patience, |state| {
                let before = into.len();
                while let Some(session) = state.news.pop_front() {
                    if let Some(entry) = state.sessions.get_mut(&session) {
                        entry.in_news = false;
                    }
                    into.push(session);
                }
                if into.len() == before { Step::Wait } else { Step::Done(Ok(into.len() - before)) }
            });
            match found {
                Err(Error::WouldBlock) => {
                    self.0.glance_at_host();
                    // Whoever waits for edges must not miss what is left of an earlier one.
                    if self.0.watch() && !self.0.is_watch_ready() {
                        return Ok(0);
                    }
                }
                found => return found,
            }
        }
    }

    /// A descriptor for `poll`, `epoll` and the like. After [`poll`](Self::poll) returned 0 it becomes readable when there is
    /// news; then poll again. Nothing is to be read from it.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.watch.as_fd()
    }
}

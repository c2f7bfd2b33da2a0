//! What the asynchronous face has to know of a stack, and calls that only it makes.

use std::time::{Duration, Instant};

use crate::{
    control::Protocol,
    stack::{
        Session, Stack,
        clock::Due,
        entry::{Entry, What},
        open::LINGER,
    },
};

impl Stack {
    /// Whether connecting the session would not have to ask the host for anything.
    pub(super) fn has_dialler(&self, session: Session) -> bool {
        let mut state = self.0.lock();
        let Ok(entry) = state.entry(session.0) else { return true };
        let (fresh, protocol, profile) = (matches!(entry.what, What::Fresh), entry.protocol, entry.profile.clone());
        let known = if protocol == Protocol::Quic {
            state.diallers.iter().any(|(with, _)| *with == profile)
        } else {
            state.plain.is_some()
        };
        known || !fresh
    }

    /// How long closing a connection waits for the last bytes of its streams.
    pub(super) const LINGER: Duration = LINGER;

    /// Whether the peer lacks bytes of closed streams of a connection.
    pub(super) fn lingers(&self, session: Session) -> bool {
        let mut state = self.0.lock();
        state.drain();
        let entry = state.sessions.get_mut(&session.0).filter(|entry| entry.end.is_none());
        let lingers = entry.and_then(Entry::connection).is_some_and(|connection| connection.lingering > 0);
        self.0.leave(state);
        lingers
    }

    /// Something happens to the session at that time.
    pub(super) fn touch_at(&self, session: Session, at: Instant) {
        let mut state = self.0.lock();
        state.clock.put(at, Due::Session(session.0));
        self.0.leave(state);
    }

    /// Ends a session of which nobody holds anything any more: a stream that was not finished is reset.
    pub(super) fn drop_session(&self, session: Session) {
        let unfinished = {
            let mut state = self.0.lock();
            let stream = state.sessions.get_mut(&session.0).and_then(Entry::stream);
            stream.is_some_and(|stream| stream.writing.is_none())
        };
        if unfinished {
            let _ = self.reset(session, 0);
        }
        let _ = self.close_with(session, 0, b"");
    }
}

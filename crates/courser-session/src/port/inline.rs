//! The port of a worker that the calling thread drives.
//!
//! The same messages as between threads, without rings and doorbells: a submission is checked and handed to the worker
//! at once, a completion is made when the application asks for it. Nothing waits for anybody, so that there is nobody
//! to wake. The rules are the [`Outbox`]'s, hence the same as between threads: bytes stay within the application's
//! delivery credit, and no submission is taken while there is no room for its answer.

use core::fmt;

use super::{Outbox, Port, PortSetup, Serve, Session, Source, SubmitError};
use crate::{
    handle::HandleTable,
    msg::{Completion, Submission},
    ring::PushError,
};

/// What joins an application and a worker on one thread.
pub struct InlinePort {
    outbox: Outbox,
}

impl InlinePort {
    /// A port without sessions. Of the sizes `submissions` means nothing here, and `completions` bounds the answers
    /// that wait to be polled.
    #[must_use]
    pub fn new(setup: PortSetup) -> Self {
        Self { outbox: Outbox::new(setup) }
    }

    /// What waits to be told to the application.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Whether a submission may be made: there is room for its answer.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.outbox.has_room_for_reply()
    }

    /// Checks one submission, which the caller then carries out. `None` when it made no sense: the application finds
    /// the answer among its completions. `Full` asks the application to poll first.
    pub fn submit<K>(
        &mut self,
        sessions: &mut HandleTable<Session<K>>,
        submission: Submission,
    ) -> Result<Option<Submission>, SubmitError> {
        if self.has_room() { Ok(self.outbox.admit(sessions, submission)) } else { Err(PushError::Full(submission)) }
    }

    /// The next completion.
    pub fn poll<K>(
        &mut self,
        sessions: &mut HandleTable<Session<K>>,
        source: &mut dyn Source<K>,
    ) -> Option<Completion> {
        self.outbox.next(sessions, source)
    }

    /// Moves at most `max` completions to the end of `into`.
    pub fn poll_into<K>(
        &mut self,
        sessions: &mut HandleTable<Session<K>>,
        source: &mut dyn Source<K>,
        into: &mut Vec<Completion>,
        max: usize,
    ) -> usize {
        let before = into.len();
        into.extend(core::iter::from_fn(|| self.outbox.next(sessions, source)).take(max));
        into.len() - before
    }

    /// The port together with its worker, for applications that do not care where the worker runs.
    pub fn with<'a, W: Serve>(
        &'a mut self,
        sessions: &'a mut HandleTable<Session<W::Key>>,
        worker: &'a mut W,
    ) -> Inline<'a, W> {
        Inline { port: self, sessions, worker }
    }
}

impl fmt::Debug for InlinePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InlinePort").field("waiting", &self.outbox.len()).finish()
    }
}

/// An [`InlinePort`] and its worker for a few calls: submissions are carried out before the call returns.
pub struct Inline<'a, W: Serve> {
    port: &'a mut InlinePort,
    sessions: &'a mut HandleTable<Session<W::Key>>,
    worker: &'a mut W,
}

impl<W: Serve> Port for Inline<'_, W> {
    fn submit(&mut self, submission: Submission) -> Result<(), SubmitError> {
        if let Some(submission) = self.port.submit(self.sessions, submission)? {
            self.worker.serve(&mut self.port.outbox, self.sessions, submission);
        }
        Ok(())
    }

    fn submit_batch(&mut self, batch: &mut dyn Iterator<Item = Submission>) -> usize {
        let mut count = 0;
        while self.port.has_room() {
            let Some(submission) = batch.next() else { break };
            if self.submit(submission).is_err() {
                debug_assert!(false, "there was room");
                break;
            }
            count += 1;
        }
        count
    }

    fn has_room(&mut self) -> bool {
        self.port.has_room()
    }

    fn poll(&mut self) -> Option<Completion> {
        self.port.poll(self.sessions, self.worker)
    }

    fn poll_into(&mut self, into: &mut Vec<Completion>, max: usize) -> usize {
        self.port.poll_into(self.sessions, self.worker, into, max)
    }
}

impl<W: Serve> fmt::Debug for Inline<'_, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inline").field("port", &self.port).finish_non_exhaustive()
    }
}

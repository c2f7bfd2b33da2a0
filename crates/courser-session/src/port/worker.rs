//! The worker's side of a port between threads.

use core::fmt;

use super::{Outbox, Serve, Session, Source};
use crate::{
    doorbell::{Interest, RingCounts, Ringer},
    handle::HandleTable,
    msg::{Completion, Submission},
    ring::{Consumer, Producer},
};

/// The worker's side of a port: what the application asked, and an outbox that empties into the completion ring.
pub struct WorkerPort {
    submissions: Consumer<Submission>,
    completions: Producer<Completion>,
    application: Ringer,
    outbox: Outbox,
    /// Submissions taken since the application heard of room last.
    taken: usize,
}

impl WorkerPort {
    pub(super) fn new(
        submissions: Consumer<Submission>,
        completions: Producer<Completion>,
        application: Ringer,
        outbox: Outbox,
    ) -> Self {
        Self { submissions, completions, application, outbox, taken: 0 }
    }

    /// What waits to be told to the application.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// The next submission that makes sense. None is taken while there is no room for an answer.
    pub fn take<K>(&mut self, sessions: &mut HandleTable<Session<K>>) -> Option<Submission> {
        while self.outbox.has_room_for_reply() {
            let Some(submission) = self.submissions.pop() else { break };
            self.taken += 1;
            if self.taken >= self.submissions.capacity().div_ceil(2) {
                self.tell_of_room();
            }
            if let Some(submission) = self.outbox.admit(sessions, submission) {
                return Some(submission);
            }
        }
        self.tell_of_room();
        None
    }

    /// Takes at most `max` submissions and has the worker carry them out; how many it were. The answers wait for
    /// [`Self::flush`].
    pub fn serve<W: Serve>(
        &mut self,
        sessions: &mut HandleTable<Session<W::Key>>,
        worker: &mut W,
        max: usize,
    ) -> usize {
        for count in 0..max {
            let Some(submission) = self.take(sessions) else { return count };
            worker.serve(&mut self.outbox, sessions, submission);
        }
        max
    }

    fn tell_of_room(&mut self) {
        if self.taken > 0 {
            self.taken = 0;
            self.application.notify(Interest::ROOM);
        }
    }

    /// Moves what waits into the completion ring while there is room, and wakes the application once. How many messages
    /// it were.
    pub fn flush<K>(&mut self, sessions: &mut HandleTable<Session<K>>, source: &mut dyn Source<K>) -> usize {
        let outbox = &mut self.outbox;
        let count = self.completions.push_batch(&mut core::iter::from_fn(|| outbox.next(sessions, source)));
        if count > 0 {
            self.application.notify(Interest::MESSAGES);
        }
        count
    }

    /// Whether a turn could do something: a submission to take, or a message to move. To be asked after the worker's
    /// bell is armed with [`Interest::ANY`] and before it sleeps.
    pub fn has_work(&mut self) -> bool {
        let takes = self.outbox.has_room_for_reply() && !self.submissions.is_empty();
        takes || self.is_gone() || (!self.outbox.is_empty() && self.completions.has_room())
    }

    /// Whether the application is gone and all it asked was taken, so that its sessions can be ended.
    pub fn is_gone(&mut self) -> bool {
        self.submissions.is_finished()
    }

    /// How often the application had to be woken.
    #[must_use]
    pub const fn ring_counts(&self) -> RingCounts {
        self.application.counts()
    }
}

impl fmt::Debug for WorkerPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPort").field("waiting", &self.outbox.len()).finish_non_exhaustive()
    }
}

/// An application that sleeps learns of it at once.
impl Drop for WorkerPort {
    fn drop(&mut self) {
        self.completions.close();
        self.application.notify(Interest::ANY);
    }
}

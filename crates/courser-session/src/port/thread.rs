//! The application's side of a port between threads.

use std::{sync::Arc, task::Context, time::Duration};

use bytes::Bytes;

use super::{AppPort, Port};
use crate::{
    blocks::Blocks,
    credit::WriteCredit,
    doorbell::{Alarm, Interest, RingCounts, Ringer, Sleeper, look_around},
    handle::Handle,
    msg::{Completion, Submission},
    ring::{Consumer, Producer, PushError},
};

/// Why a submission was not taken; it comes back.
pub type SubmitError = PushError<Submission>;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// There is a completion, or room for a submission when that was asked for.
    Ready,
    /// Neither came in time.
    TimedOut,
    /// The worker is gone and everything it said was read.
    Closed,
}

/// The application's side of a port. One thread at a time.
#[derive(Debug)]
pub struct ThreadPort {
    submissions: Producer<Submission>,
    completions: Consumer<Completion>,
    worker: Ringer,
    sleeper: Sleeper,
    alarm: Arc<Alarm>,
    /// Completions read since the worker heard of room last.
    read: usize,
    /// Memory of what is written.
    blocks: Blocks,
}

impl ThreadPort {
    pub(super) fn new(
        submissions: Producer<Submission>,
        completions: Consumer<Completion>,
        worker: Ringer,
        sleeper: Sleeper,
        alarm: Arc<Alarm>,
    ) -> Self {
        Self { submissions, completions, worker, sleeper, alarm, read: 0, blocks: Blocks::default() }
    }

    /// Hands one submission over. Never blocks; `Full` asks to poll and try again.
    pub fn submit(&mut self, submission: Submission) -> Result<(), SubmitError> {
        self.submissions.push(submission)?;
        self.worker.notify(Interest::MESSAGES);
        Ok(())
    }

    /// Hands over as many submissions as fit with one look at the doorbell; takes no more from the iterator.
    pub fn submit_batch(&mut self, batch: &mut impl Iterator<Item = Submission>) -> usize {
        let count = self.submissions.push_batch(batch);
        if count > 0 {
            self.worker.notify(Interest::MESSAGES);
        }
        count
    }

    /// Writes as much of `data` as credit allows, taking it off the front; how many bytes it were. `fin` is sent with
    /// the last of them; an end without bytes is [`Submission::Finish`]. Zero is normal: poll for credit or room.
    pub fn write(&mut self, stream: Handle, credit: &mut WriteCredit, data: &mut Bytes, fin: bool) -> usize {
        Port::write(self, stream, credit, data, fin)
    }

    /// The next completion.
    pub fn poll(&mut self) -> Option<Completion> {
        let message = self.completions.pop();
        self.freed(usize::from(message.is_some()));
        message
    }

    /// Moves at most `max` completions to the end of `into`.
    pub fn poll_into(&mut self, into: &mut Vec<Completion>, max: usize) -> usize {
        let count = self.completions.pop_into(into, max);
        self.freed(count);
        count
    }

    /// Tells a worker that waits for room: when everything was read, and every half ring. Not each time, since looking
    /// at the doorbell costs a fence.
    fn freed(&mut self, count: usize) {
        self.read += count;
        if self.read > 0 && (count == 0 || self.read >= self.completions.capacity().div_ceil(2)) {
            self.read = 0;
            self.worker.notify(Interest::ROOM);
        }
    }

    /// Blocks until there is a completion, or for that long.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Waited {
        self.wait_for(Interest::MESSAGES, timeout)
    }

    /// Like [`Self::wait`], but keeps looking for so long before it sleeps; the look counts towards the timeout. Worth it
    /// for an application that expects an answer within that time: a worker that need not ring saves several times the
    /// cost of a message, and the application need not be woken.
    pub fn look_then_wait(&mut self, look: Duration, timeout: Option<Duration>) -> Waited {
        let look = timeout.map_or(look, |timeout| look.min(timeout));
        if self.completions.is_empty() {
            // A worker that waits for room must know of it: otherwise this side looks for what cannot come.
            self.freed(0);
            let completions = &mut self.completions;
            look_around(look, || !completions.is_empty() || completions.is_finished());
        }
        if self.completions.is_empty() {
            self.wait(timeout.map(|rest| rest.saturating_sub(look)))
        } else {
            Waited::Ready
        }
    }

    /// Blocks until there is a completion or a submission fits, or for that long.
    pub fn wait_for_room(&mut self, timeout: Option<Duration>) -> Waited {
        self.wait_for(Interest::ANY, timeout)
    }

    fn wait_for(&mut self, interest: Interest, timeout: Option<Duration>) -> Waited {
        // A ring that is left over from an earlier sleep ends one block too early, hence the loop.
        loop {
            self.sleeper.arm(interest);
            let now = self.look(interest);
            let rung = now.is_none() && self.alarm.block(timeout);
            self.sleeper.disarm();
            match now.or_else(|| self.look(interest)) {
                Some(waited) => return waited,
                None if !rung => return Waited::TimedOut,
                None => {}
            }
        }
    }

    /// The same for a task: `None` means that the task will be woken.
    pub fn poll_wait(&mut self, interest: Interest, task: &Context<'_>) -> Option<Waited> {
        // Still armed when the task goes to sleep; the ring or the next call disarms.
        while self.alarm.poll_rung(task) {}
        self.sleeper.arm(interest);
        let now = self.look(interest);
        if now.is_some() {
            self.sleeper.disarm();
        }
        now
    }

    fn look(&mut self, interest: Interest) -> Option<Waited> {
        if !self.completions.is_empty() || (interest == Interest::ANY && self.submissions.has_room()) {
            return Some(Waited::Ready);
        }
        // Before a sleep the worker must know that the ring is empty.
        self.freed(0);
        self.completions.is_finished().then_some(Waited::Closed)
    }

    /// Whether there is a completion, or nothing will come any more.
    pub fn has_news(&mut self) -> bool {
        !self.completions.is_empty() || self.completions.is_finished()
    }

    /// Whether the worker is gone. What it said before can still be polled.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.submissions.is_closed()
    }

    /// How often the worker had to be woken.
    #[must_use]
    pub const fn ring_counts(&self) -> RingCounts {
        self.worker.counts()
    }
}

impl Port for ThreadPort {
    fn submit(&mut self, submission: Submission) -> Result<(), SubmitError> {
        Self::submit(self, submission)
    }

    fn submit_batch(&mut self, mut batch: &mut dyn Iterator<Item = Submission>) -> usize {
        Self::submit_batch(self, &mut batch)
    }

    fn has_room(&mut self) -> bool {
        self.submissions.has_room()
    }

    fn poll(&mut self) -> Option<Completion> {
        Self::poll(self)
    }

    fn poll_into(&mut self, into: &mut Vec<Completion>, max: usize) -> usize {
        Self::poll_into(self, into, max)
    }
}

impl AppPort for ThreadPort {
    fn write_slice(&mut self, stream: Handle, credit: &mut WriteCredit, data: &[u8], fin: bool) -> usize {
        let count = credit.room().min(data.len());
        if count == 0 || !Port::has_room(self) {
            return 0;
        }
        let mut part = self.blocks.copy(&data[..count]);
        Port::write(self, stream, credit, &mut part, fin && count == data.len())
    }

    fn arm(&mut self, interest: Interest) {
        self.sleeper.arm(interest);
        // Before a sleep the worker must know that there is room.
        self.freed(0);
    }

    fn disarm(&mut self) {
        self.sleeper.disarm();
    }

    fn has_news(&mut self) -> bool {
        Self::has_news(self)
    }

    fn is_closed(&self) -> bool {
        Self::is_closed(self)
    }
}

/// The worker learns of it at once and ends the port's sessions.
impl Drop for ThreadPort {
    fn drop(&mut self) {
        self.submissions.close();
        self.worker.notify(Interest::ANY);
    }
}

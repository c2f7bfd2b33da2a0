//! The worker's side of a port, to another thread or to another process.

use core::fmt;

use super::{Outbox, Serve, Session, Source};
#[cfg(target_os = "linux")]
use crate::segment::WorkerLink;
use crate::{
    doorbell::{Interest, RingCounts, Ringer},
    handle::{Handle, HandleTable},
    msg::{Completion, Op, Submission},
    ring::{Consumer, Producer},
    segment::Fault,
};

/// The way to the application and back.
enum Link {
    Thread {
        submissions: Consumer<Submission>,
        completions: Producer<Completion>,
        application: Ringer,
    },
    /// To another process.
    #[cfg(target_os = "linux")]
    Shared(Box<WorkerLink>),
}

/// The worker's side of a port: what the application asked, and an outbox that empties into the completion ring.
pub struct WorkerPort {
    link: Link,
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
        Self { link: Link::Thread { submissions, completions, application }, outbox, taken: 0 }
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn shared(link: WorkerLink, outbox: Outbox) -> Self {
        Self { link: Link::Shared(Box::new(link)), outbox, taken: 0 }
    }

    /// Whether the application is in another process. Such a port has a bell of its own, which the worker waits for.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        !matches!(self.link, Link::Thread { .. })
    }

    /// What the application did that no honest one does. From then on the port [is gone](Self::is_gone).
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        match &self.link {
            Link::Thread { .. } => None,
            #[cfg(target_os = "linux")]
            Link::Shared(link) => link.fault(),
        }
    }

    /// What is readable when the application has rung. The worker polls it while the port is [armed](Self::arm).
    #[cfg(unix)]
    #[must_use]
    pub fn bell(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        match &self.link {
            Link::Thread { .. } => None,
            #[cfg(target_os = "linux")]
            Link::Shared(link) => link.bell().map(std::os::fd::AsFd::as_fd),
        }
    }

    /// The worker is about to sleep: from now on the application rings the port's [bell](Self::bell). The worker must ask
    /// [`Self::has_work`] once more before it sleeps. Nothing for a port between threads, whose worker has a
    /// [`Sleeper`](crate::doorbell::Sleeper).
    pub fn arm(&mut self) {
        #[cfg(target_os = "linux")]
        if let Link::Shared(link) = &mut self.link {
            // Room, and chunks that come back, matter to somebody who has something to tell.
            let waits = !self.outbox.is_empty() || link.is_stalled();
            link.arm(if waits { Interest::ANY } else { Interest::MESSAGES });
        }
    }

    /// Whether the application of an armed port rang, or is about to. `false` for a port between threads.
    #[must_use]
    pub fn is_rung(&self) -> bool {
        match &self.link {
            Link::Thread { .. } => false,
            #[cfg(target_os = "linux")]
            Link::Shared(link) => link.is_rung(),
        }
    }

    /// The worker is awake.
    pub fn disarm(&mut self) {
        #[cfg(target_os = "linux")]
        if let Link::Shared(link) = &mut self.link {
            link.disarm();
        }
    }

    /// What waits to be told to the application.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// The next submission that makes sense. None is taken while there is no room for an answer.
    pub fn take<K>(&mut self, sessions: &mut HandleTable<Session<K>>) -> Option<Submission> {
        while self.outbox.has_room_for_reply() {
            let Some(submission) = self.pop() else { break };
            self.taken += 1;
            if self.has_made_room() {
                self.tell_of_room();
            }
            let admitted = match submission {
                Ok(submission) => self.outbox.admit(sessions, submission),
                Err((handle, op)) => {
                    self.outbox.refuse(sessions, handle, op);
                    None
                }
            };
            if admitted.is_some() {
                return admitted;
            }
        }
        self.tell_of_room();
        None
    }

    /// The next submission, or session and op of one that cannot be about such a session.
    fn pop(&mut self) -> Option<Result<Submission, (Handle, Op)>> {
        match &mut self.link {
            Link::Thread { submissions, .. } => submissions.pop().map(Ok),
            #[cfg(target_os = "linux")]
            Link::Shared(link) => link.pop(),
        }
    }

    /// Whether an application that waits for room should hear of what was taken.
    fn has_made_room(&self) -> bool {
        match &self.link {
            Link::Thread { submissions, .. } => self.taken >= submissions.capacity().div_ceil(2),
            #[cfg(target_os = "linux")]
            Link::Shared(link) => self.taken >= link.capacity().div_ceil(2) || link.has_made_room(),
        }
    }

    fn notify(&mut self, news: Interest) {
        match &mut self.link {
            Link::Thread { application, .. } => _ = application.notify(news),
            #[cfg(target_os = "linux")]
            Link::Shared(link) => link.notify(news),
        }
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
            self.notify(Interest::ROOM);
        }
    }

    /// Moves what waits into the completion ring while there is room, and wakes the application once. How many messages
    /// it were.
    pub fn flush<K>(&mut self, sessions: &mut HandleTable<Session<K>>, source: &mut dyn Source<K>) -> usize {
        let outbox = &mut self.outbox;
        let count = match &mut self.link {
            Link::Thread { completions, .. } => {
                completions.push_batch(&mut core::iter::from_fn(|| outbox.next(sessions, source)))
            }
            #[cfg(target_os = "linux")]
            Link::Shared(link) => tell_all(link, outbox, sessions, source),
        };
        if count > 0 {
            self.notify(Interest::MESSAGES);
        }
        count
    }

    /// Whether a turn could do something: a submission to take, or a message to move. To be asked after the worker's
    /// bell is armed with [`Interest::ANY`] and before it sleeps.
    pub fn has_work(&mut self) -> bool {
        let (takes, tells) = (self.outbox.has_room_for_reply(), !self.outbox.is_empty());
        let could = match &mut self.link {
            Link::Thread { submissions, completions, .. } => {
                takes && !submissions.is_empty() || tells && completions.has_room()
            }
            #[cfg(target_os = "linux")]
            Link::Shared(link) => takes && link.has_submissions() || (tells || link.is_stalled()) && link.has_room(),
        };
        could || self.is_gone()
    }

    /// Whether the application is gone and all it asked was taken, so that its sessions can be ended.
    pub fn is_gone(&mut self) -> bool {
        match &mut self.link {
            Link::Thread { submissions, .. } => submissions.is_finished(),
            #[cfg(target_os = "linux")]
            Link::Shared(link) => link.is_finished(),
        }
    }

    /// How often the application had to be woken.
    #[must_use]
    pub const fn ring_counts(&self) -> RingCounts {
        match &self.link {
            Link::Thread { application, .. } => application.counts(),
            #[cfg(target_os = "linux")]
            Link::Shared(link) => link.counts(),
        }
    }
}

/// Moves what waits into the ring while there is room; how many messages it were.
#[cfg(target_os = "linux")]
fn tell_all<K>(
    link: &mut WorkerLink,
    outbox: &mut Outbox,
    sessions: &mut HandleTable<Session<K>>,
    source: &mut dyn Source<K>,
) -> usize {
    let mut count = usize::from(link.is_stalled());
    while let Some(max) = link.room() {
        outbox.set_read_max(max);
        let Some(message) = outbox.next(sessions, source) else { break };
        link.put(message);
        count += 1;
    }
    count -= usize::from(link.is_stalled());
    link.publish();
    count
}

impl fmt::Debug for WorkerPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPort").field("waiting", &self.outbox.len()).finish_non_exhaustive()
    }
}

/// An application that sleeps learns of it at once.
impl Drop for WorkerPort {
    fn drop(&mut self) {
        match &mut self.link {
            Link::Thread { completions, .. } => completions.close(),
            #[cfg(target_os = "linux")]
            Link::Shared(link) => link.close(),
        }
        self.notify(Interest::ANY);
    }
}

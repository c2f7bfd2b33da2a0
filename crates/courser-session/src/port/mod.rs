//! Ports: where an application and a worker meet.
//!
//! A port between threads is a submission ring, a completion ring and a doorbell each way: [`ThreadPort`] is the
//! application's side, [`WorkerPort`] the worker's. **Each application thread has a port of its own**; a port is `Send`
//! and all its calls take `&mut self`, so that threads that must share one put it into a mutex. A session belongs to
//! the port that opened or accepted it.
//!
//! A worker that the calling thread drives is joined by an [`InlinePort`], without rings and doorbells. [`Port`] is what
//! the two kinds have in common on the application's side, [`Serve`] on the worker's.
//!
//! **Events cannot overflow.** A session has one dirty bit per kind of event and stands in its port's queue at most
//! once; the message is made when there is room for it, from the session's newest values. Bytes and datagrams are
//! fetched from their [`Source`] at that moment, bytes within the application's delivery credit. Answers that belong to
//! no dirty bit are bounded by taking no submission while there is no room for its answer. So a port never holds more
//! than its sessions, its rings and as many answers as its completion ring has slots.

#[cfg(unix)]
mod bell;
mod inline;
#[cfg(test)]
#[cfg(not(loom))]
mod inline_tests;
#[cfg(test)]
#[cfg(not(loom))]
pub(crate) mod mirror;
mod outbox;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
mod thread;
mod worker;

use std::sync::Arc;

use bytes::Bytes;

pub use crate::segment::{BadSetup, Fault, SharedSetup};
#[cfg(all(target_os = "linux", not(all(loom, test))))]
pub use crate::segment::{Offer, SharedPort, shared};
#[cfg(unix)]
pub use bell::EventBell;
pub use inline::{Inline, InlinePort};
pub use outbox::{Event, Origin, Outbox, Read, Session, Source};
pub use thread::{SubmitError, ThreadPort, Waited};
pub use worker::WorkerPort;

use crate::{
    credit::WriteCredit,
    doorbell::{Alarm, Bell, Interest, Ringer, doorbell},
    handle::{Handle, HandleTable},
    msg::{Completion, Submission},
    ring::channel,
};

/// Sizes of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSetup {
    /// Slots of the submission ring; rounded up to a power of two.
    pub submissions: u32,
    /// Slots of the completion ring, rounded up to a power of two, and bound of the answers that wait for one.
    pub completions: u32,
    /// Bytes that wait to be sent, over all streams of the port.
    pub share_bytes: u64,
    /// Bytes of a stream that are delivered ahead of what the application consumed.
    pub delivery_window_bytes: u32,
}

impl Default for PortSetup {
    fn default() -> Self {
        Self { submissions: 256, completions: 1024, share_bytes: 64 << 20, delivery_window_bytes: 256 << 10 }
    }
}

/// What an application does with a port, wherever the worker runs.
pub trait Port {
    /// Hands one submission over. Never blocks; `Full` asks to poll and try again.
    fn submit(&mut self, submission: Submission) -> Result<(), SubmitError>;

    /// Hands over as many submissions as there is room for and takes no more from the iterator; how many.
    fn submit_batch(&mut self, batch: &mut dyn Iterator<Item = Submission>) -> usize;

    /// Whether a submission could be handed over now.
    fn has_room(&mut self) -> bool;

    /// The next completion.
    fn poll(&mut self) -> Option<Completion>;

    /// Moves at most `max` completions to the end of `into`; how many.
    fn poll_into(&mut self, into: &mut Vec<Completion>, max: usize) -> usize;

    /// Writes as much of `data` as credit allows, taking it off the front; how many bytes it were. `fin` is sent with
    /// the last of them; an end without bytes is [`Submission::Finish`]. Zero is normal: poll for credit or room.
    fn write(&mut self, stream: Handle, credit: &mut WriteCredit, data: &mut Bytes, fin: bool) -> usize {
        let count = credit.spend(data.len());
        if count == 0 || !self.has_room() {
            credit.restore(count);
            return 0;
        }
        let fin = fin && count == data.len();
        match self.submit(Submission::Write { stream, data: data.slice(..count), fin }) {
            Ok(()) => {
                *data = data.slice(count..);
                count
            }
            Err(_) => {
                credit.restore(count);
                0
            }
        }
    }
}

/// What an application can do with a port beside [`Port`] wherever its worker is: in another thread, or in another process.
///
/// An application with several ports sleeps on one bell that all their workers ring: it arms each port, looks once more at
/// all of them, waits, and disarms them.
pub trait AppPort: Port + Send {
    /// Writes as much of `data` as credit and room allow, with one copy, to where the worker takes it from; how many bytes
    /// it were. Otherwise as [`Port::write`].
    fn write_slice(&mut self, stream: Handle, credit: &mut WriteCredit, data: &[u8], fin: bool) -> usize;

    /// From now on the worker rings the application's bell for news of this kind. The application must look again after this
    /// call and before it sleeps.
    fn arm(&mut self, interest: Interest);

    /// The application is awake: no ring is needed.
    fn disarm(&mut self);

    /// Whether there is a completion, or nothing will come any more.
    fn has_news(&mut self) -> bool;

    /// Whether the worker is gone. What it said before can still be polled.
    fn is_closed(&self) -> bool;
}

/// What a worker does for its applications, wherever it runs.
pub trait Serve: Source<Self::Key> {
    /// What the worker finds its own state of a session with.
    type Key;

    /// Carries out one submission whose handle, owner, kind and credit were checked.
    fn serve(&mut self, outbox: &mut Outbox, sessions: &mut HandleTable<Session<Self::Key>>, submission: Submission);
}

/// The two sides of a port. `worker` rings the worker; a worker with several ports gives each a clone of its ringer.
/// `also` is rung with the application's alarm, for applications that wait for several things at once.
#[must_use]
pub fn pair(setup: PortSetup, worker: Ringer, also: Option<Arc<dyn Bell>>) -> (ThreadPort, WorkerPort) {
    let alarm = Arc::new(also.map_or_else(Alarm::new, Alarm::with));
    let (application, sleeper) = doorbell(Arc::clone(&alarm) as Arc<dyn Bell>);
    let (submit, submissions) = channel(setup.submissions);
    let (complete, completions) = channel(setup.completions);
    let thread = ThreadPort::new(submit, completions, worker, sleeper, alarm);
    (thread, WorkerPort::new(submissions, complete, application, Outbox::new(setup)))
}

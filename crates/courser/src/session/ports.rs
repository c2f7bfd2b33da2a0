//! One application thread at all workers of an endpoint.
//!
//! [`Ports`] has a [`ThreadPort`] at each worker and looks like one port: a submission goes to the worker that its handle
//! names, a listener listens at all of them and has one name, connections are begun by the workers in turn. Applications
//! with a thread for each worker need none of this: they attach to each, and share nothing.
//!
//! Listeners: each worker has a part with a handle of its own. The first one that opens gives the listener its name, and in
//! what the application hears the others' names are replaced by it. It is closed when the last part is.

use std::collections::VecDeque;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use courser_session::credit::WriteCredit;
use courser_session::doorbell::{Interest, look_around};
use courser_session::handle::{Handle, Kind};
use courser_session::msg::{Completion, Submission};
use courser_session::port::{Port, SubmitError, ThreadPort, Waited};
use courser_session::ring::PushError;

use crate::wait::block;

/// One worker's part of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The worker has not answered.
    Asked,
    Open(Handle),
    Over,
}

#[derive(Debug)]
struct Listener {
    token: u64,
    parts: Vec<Part>,
    /// What the application calls it.
    name: Option<Handle>,
    /// It was closed with this code while parts were not open yet.
    closing: Option<(u64, Bytes)>,
}

impl Listener {
    fn is_over(&self) -> bool {
        self.parts.iter().all(|part| *part == Part::Over)
    }
}

/// A port at every worker.
#[derive(Debug)]
pub struct Ports {
    ports: Vec<ThreadPort>,
    /// The number of the first one's worker.
    first: u8,
    listeners: Vec<Listener>,
    /// The worker that is asked first for what happened.
    turn: usize,
    /// Connections begun; workers take turns.
    dialled: usize,
    /// Submissions of our own for which there was no room: closing parts of listeners.
    later: VecDeque<(usize, Submission)>,
}

impl Ports {
    pub(super) const fn new(ports: Vec<ThreadPort>, first: u8) -> Self {
        Self { ports, first, listeners: Vec::new(), turn: 0, dialled: 0, later: VecDeque::new() }
    }

    /// The ports of the workers, for applications that go their own way.
    #[must_use]
    pub fn into_inner(self) -> Vec<ThreadPort> {
        self.ports
    }

    /// Blocks until there is a completion, or for that long. [`Waited::Closed`] when all workers are gone.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Waited {
        self.wait_for(Interest::MESSAGES, timeout)
    }

    /// Blocks until there is a completion or a worker has room for a submission, or for that long.
    pub fn wait_for_room(&mut self, timeout: Option<Duration>) -> Waited {
        self.wait_for(Interest::ANY, timeout)
    }

    /// Like [`wait`](Self::wait), but keeps looking for so long before it sleeps; the look counts towards the timeout.
    pub fn look_then_wait(&mut self, look: Duration, timeout: Option<Duration>) -> Waited {
        let look = timeout.map_or(look, |timeout| look.min(timeout));
        let ports = &mut self.ports;
        if look_around(look, || ports.iter_mut().any(|port| port.has_news())) {
            return Waited::Ready;
        }
        self.wait(timeout.map(|rest| rest.saturating_sub(look)))
    }

    fn wait_for(&mut self, interest: Interest, timeout: Option<Duration>) -> Waited {
        self.flush();
        let waited = block(timeout, |cx| match self.poll_wait(interest, cx) {
            Some(waited) => std::task::Poll::Ready(waited),
            None => std::task::Poll::Pending,
        });
        waited.unwrap_or(Waited::TimedOut)
    }

    /// The same for a task: `None` means that the task will be woken.
    pub fn poll_wait(&mut self, interest: Interest, task: &Context<'_>) -> Option<Waited> {
        let mut gone = 0;
        let mut ready = false;
        // All are asked, so that all of them wake the task.
        for port in &mut self.ports {
            match port.poll_wait(interest, task) {
                Some(Waited::Closed) => gone += 1,
                Some(_) => ready = true,
                None => {}
            }
        }
        if ready { Some(Waited::Ready) } else { (gone == self.ports.len()).then_some(Waited::Closed) }
    }

    /// Whether all workers are gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.ports.iter().all(ThreadPort::is_closed)
    }

    /// Which port the handle's worker is at.
    fn place(&self, handle: Handle) -> usize {
        usize::from(handle.worker().wrapping_sub(self.first))
    }

    fn flush(&mut self) {
        while let Some((worker, submission)) = self.later.pop_front() {
            let sent = self.ports.get_mut(worker).map(|port| port.submit(submission));
            if let Some(Err(PushError::Full(submission))) = sent {
                self.later.push_front((worker, submission));
                return;
            }
        }
    }

    /// The worker that a submission goes to; `None`: to all.
    fn destination(&self, submission: &Submission) -> Option<usize> {
        let handle = match submission {
            Submission::Listen { .. } | Submission::Wake => return None,
            Submission::Connect { .. } => return Some(self.dialled % self.ports.len().max(1)),
            Submission::Close { handle, .. } if self.listener(*handle).is_some() => return None,
            Submission::Accept { handle }
            | Submission::Refuse { handle, .. }
            | Submission::Close { handle, .. }
            | Submission::Stats { handle, .. } => handle,
            Submission::OpenBi { connection, .. }
            | Submission::OpenUni { connection, .. }
            | Submission::Datagram { connection, .. } => connection,
            Submission::Write { stream, .. }
            | Submission::Finish { stream }
            | Submission::Consumed { stream, .. }
            | Submission::Reset { stream, .. }
            | Submission::ResetAt { stream, .. }
            | Submission::Stop { stream, .. } => stream,
        };
        // A handle of a worker that there is not is rejected by any.
        Some(self.place(*handle).min(self.ports.len().saturating_sub(1)))
    }

    fn listener(&self, name: Handle) -> Option<usize> {
        self.listeners.iter().position(|listener| listener.name == Some(name))
    }

    /// Gives a submission to every worker, or to none.
    fn submit_to_all(&mut self, submission: Submission) -> Result<(), SubmitError> {
        if self.is_closed() {
            return Err(PushError::Closed(submission));
        }
        if !self.has_room() {
            return Err(PushError::Full(submission));
        }
        match submission {
            Submission::Close { handle, code, reason } => {
                let Some(at) = self.listener(handle) else { return Ok(()) };
                let listener = &mut self.listeners[at];
                listener.closing = Some((code, reason.clone()));
                for (worker, part) in listener.parts.iter().enumerate() {
                    if let Part::Open(handle) = *part {
                        self.later.push_back((worker, Submission::Close { handle, code, reason: reason.clone() }));
                    }
                }
                self.flush();
            }
            Submission::Listen { token, at } => {
                let mut parts = Vec::with_capacity(self.ports.len());
                for port in &mut self.ports {
                    let asked = port.submit(Submission::Listen { token, at: at.clone() });
                    parts.push(if asked.is_ok() { Part::Asked } else { Part::Over });
                }
                self.listeners.push(Listener { token, parts, name: None, closing: None });
            }
            other => {
                for port in &mut self.ports {
                    // Who is gone needs nothing.
                    let _ = port.submit(other.clone());
                }
            }
        }
        Ok(())
    }

    /// What the application hears of what a worker said; `None` when that is nothing.
    fn hear(&mut self, worker: usize, message: Completion) -> Option<Completion> {
        match message {
            Completion::Opened { handle, token, .. } if handle.kind() == Kind::Listener => {
                let at =
                    self.listeners.iter().position(|l| l.token == token && l.parts.get(worker) == Some(&Part::Asked));
                let Some(listener) = at.and_then(|at| self.listeners.get_mut(at)) else { return Some(message) };
                listener.parts[worker] = Part::Open(handle);
                if let Some((code, reason)) = listener.closing.clone() {
                    self.later.push_back((worker, Submission::Close { handle, code, reason }));
                }
                let first = listener.name.is_none();
                listener.name.get_or_insert(handle);
                first.then_some(message)
            }
            Completion::Failed { token, .. } => {
                let at =
                    self.listeners.iter().position(|l| l.token == token && l.parts.get(worker) == Some(&Part::Asked));
                let Some(at) = at else { return Some(message) };
                self.listeners[at].parts[worker] = Part::Over;
                let over = self.listeners[at].is_over();
                let listener = if over { Some(self.listeners.swap_remove(at)) } else { None };
                // Somebody listens, or may do so yet.
                listener.filter(|l| l.name.is_none()).map(|_| message)
            }
            Completion::Accepted { handle, parent, number } => {
                let name = self.part(worker, parent).and_then(|at| self.listeners[at].name);
                Some(Completion::Accepted { handle, parent: name.unwrap_or(parent), number })
            }
            Completion::Closed { handle, code, reason, text } if handle.kind() == Kind::Listener => {
                let Some(at) = self.part(worker, handle) else {
                    return Some(Completion::Closed { handle, code, reason, text });
                };
                self.listeners[at].parts[worker] = Part::Over;
                if !self.listeners[at].is_over() {
                    return None;
                }
                let name = self.listeners.swap_remove(at).name.unwrap_or(handle);
                Some(Completion::Closed { handle: name, code, reason, text })
            }
            message => Some(message),
        }
    }

    /// The listener of which that is a worker's part.
    fn part(&self, worker: usize, handle: Handle) -> Option<usize> {
        self.listeners.iter().position(|l| l.parts.get(worker) == Some(&Part::Open(handle)))
    }
}

impl Port for Ports {
    fn submit(&mut self, submission: Submission) -> Result<(), SubmitError> {
        self.flush();
        let Some(worker) = self.destination(&submission) else { return self.submit_to_all(submission) };
        let dials = matches!(submission, Submission::Connect { .. });
        let Some(port) = self.ports.get_mut(worker) else { return Err(PushError::Closed(submission)) };
        port.submit(submission)?;
        self.dialled += usize::from(dials);
        Ok(())
    }

    fn submit_batch(&mut self, batch: &mut dyn Iterator<Item = Submission>) -> usize {
        let mut taken = 0;
        // Where a submission goes is known when it was taken from the iterator, and then there has to be room for it.
        while self.has_room()
            && let Some(submission) = batch.next()
        {
            // Only what is for a worker that is gone comes back now; nobody can do anything about that.
            let _ = self.submit(submission);
            taken += 1;
        }
        taken
    }

    fn has_room(&mut self) -> bool {
        // Who is gone takes nothing, and says so when it is asked.
        self.ports.iter_mut().all(|port| port.is_closed() || port.has_room())
    }

    fn poll(&mut self) -> Option<Completion> {
        for _ in 0..self.ports.len() {
            let worker = self.turn;
            while let Some(message) = self.ports.get_mut(worker)?.poll() {
                if let Some(heard) = self.hear(worker, message) {
                    self.flush();
                    return Some(heard);
                }
            }
            self.turn = (self.turn + 1) % self.ports.len();
        }
        self.flush();
        None
    }

    fn poll_into(&mut self, into: &mut Vec<Completion>, max: usize) -> usize {
        let before = into.len();
        while into.len() - before < max
            && let Some(message) = self.poll()
        {
            into.push(message);
        }
        into.len() - before
    }

    fn write(&mut self, stream: Handle, credit: &mut WriteCredit, data: &mut Bytes, fin: bool) -> usize {
        let place = self.place(stream);
        match self.ports.get_mut(place) {
            Some(port) => port.write(stream, credit, data, fin),
            None => 0,
        }
    }
}

//! Sessions that the application has no use for any more, and what goes with them.

use bytes::Bytes;

use super::{
    entry::{Entry, Listener, Over, Part, Stream, What},
    state::State,
};
use crate::{
    msg::Submission,
    reason::{Ended, Reason},
};

impl State {
    /// The application has no use for a session any more.
    pub(super) fn release(&mut self, session: u64, code: u64, reason: Bytes) {
        // Those that hang on it without the application's knowledge go with it.
        let mut all = vec![session];
        while let Some(session) = all.pop() {
            if let Some(entry) = self.sessions.remove(&session) {
                self.part_with(session, entry, (code, reason.clone()), &mut all);
            }
        }
    }

    fn part_with(&mut self, session: u64, mut entry: Entry, (code, reason): (u64, Bytes), all: &mut Vec<u64>) {
        let (place, over) = (entry.place, entry.end.is_some());
        if let Some(handle) = entry.handle {
            self.by_handle.remove(&(place, handle));
        }
        self.waste.certificates.append(&mut entry.profile.certificates);
        self.end_attempt(session, entry.attempt.take());
        match &mut entry.what {
            What::Fresh => {}
            What::Bound(_) => {
                if let Some(endpoint) = entry.endpoint.filter(|number| Some(*number) != self.plain) {
                    self.waste.endpoints.push(endpoint);
                }
            }
            What::Listener(listener) => {
                all.extend(listener.ready.drain(..));
                self.close_listener(listener, entry.endpoint, (code, &reason));
            }
            What::Connection(connection) => {
                all.extend(connection.ready.drain(..));
                let opening = std::mem::take(&mut connection.opening);
                self.end_opening(opening, &Ended::plain(Reason::ClosedHere));
                if let Some(handle) = entry.handle.filter(|_| !over) {
                    self.orphans.insert((place, handle), None);
                    self.post(place, Submission::Close { handle, code, reason });
                }
            }
            What::Stream(stream) => {
                if entry.handle.is_none() {
                    self.is_answered(stream.parent, session);
                }
                if let Some(Some(at)) = self.places.get_mut(place) {
                    let lent: usize = stream.inbox.drain(..).map(|(_, cost)| cost).sum();
                    at.lent = at.lent.saturating_sub(lent);
                }
                if let Some(handle) = entry.handle.filter(|_| !over) {
                    self.close_stream((place, handle), stream, code);
                }
            }
        }
        if let Some(endpoint) = entry.endpoint {
            self.parts(endpoint);
        }
        // Whoever waits for it learns that it is no more.
        if self.has_tasks {
            self.news.push_back(session);
            self.tell_watcher |= self.watched;
        }
        let waits = |of: Option<u64>| of == Some(session);
        self.waiters.iter().filter(|waiter| waits(waiter.session)).for_each(|waiter| waiter.woken.notify_one());
        if self.leader.as_ref().is_some_and(|leader| waits(leader.session)) {
            self.call_leader = true;
        }
    }

    fn close_stream(&mut self, (place, handle): (usize, crate::handle::Handle), stream: &Stream, code: u64) {
        if stream.reading.is_none() && stream.parent.is_some() {
            self.post(place, Submission::Stop { stream: handle, code });
        }
        if code != 0 {
            self.post(place, Submission::Close { handle, code, reason: Bytes::new() });
        } else if stream.writing.is_none() {
            self.post(place, Submission::Finish { stream: handle });
        }
        let unsent = stream.writing.is_none_or(|over| over == Over::Fin) && !stream.acked && code == 0;
        let parent = stream.parent.filter(|_| unsent);
        if let Some(connection) = parent.and_then(|parent| self.sessions.get_mut(&parent)).and_then(Entry::connection) {
            connection.lingering += 1;
        }
        self.orphans.insert((place, handle), parent);
        if stream.parent.is_none() {
            // TCP: the system sends the rest by itself.
            self.post(place, Submission::Close { handle, code, reason: Bytes::new() });
        }
    }

    fn close_listener(&mut self, listener: &Listener, endpoint: Option<u32>, (code, reason): (u64, &Bytes)) {
        let mut endpoints: Vec<u32> = listener.parts.iter().filter_map(|(place, _)| self.endpoint_of(*place)).collect();
        endpoints.extend(endpoint);
        for (place, part) in &listener.parts {
            if let Part::Open(handle) = *part {
                self.by_handle.remove(&(*place, handle));
                self.orphans.insert((*place, handle), None);
                self.post(*place, Submission::Close { handle, code, reason: reason.clone() });
            }
        }
        // Connections that were accepted live on in the endpoint; it ends with the last of them.
        endpoints.sort_unstable();
        endpoints.dedup();
        endpoints.into_iter().for_each(|number| self.end_when_idle(number));
    }
}

//! Everything that a stack's threads share, behind one lock: sessions, ports, endpoints, and who waits.
//!
//! Messages are taken from the ports by whoever holds the lock and finds nothing better to do. What happened to a session
//! *touches* it: it is noted once, whoever waits for it is woken when the lock is about to be given back, and it enters
//! the queue of news for [`Stack::poll`](super::Stack::poll) once.
//!
//! Bounds: entries by the application's own limit and, for those that come in, by backlogs; `touched` and `news` hold each
//! session once; `later` holds answers that a full ring did not take, at most a few for each session.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use super::{
    Error,
    clock::{Clock, Due},
    entry::{Entry, Part, What},
    keep::{KEEP, Waste},
};
use crate::{
    control::Profile,
    doorbell::Interest,
    handle::Handle,
    msg::{Completion, Submission},
    port::AppPort,
    reason::{Ended, Reason},
    ring::PushError,
};

/// Why an endpoint is gone that nobody here needed any more.
pub(super) const LEFT: &str = "its endpoint was closed";
/// Messages that are taken from a port before the next one has its turn.
const BATCH: usize = 256;
/// Bytes lent by a port above which what waits to be read is copied, so that one session that nobody reads does not keep
/// the others from receiving.
pub(super) const LENT_MAX: usize = 512 << 10;

/// What a worker calls a session: the worker's place, and its handle.
pub(super) type Name = (usize, Handle);

/// A port and whose it is.
pub(super) struct Place {
    pub(super) port: Box<dyn AppPort>,
    pub(super) endpoint: u32,
    /// Messages that must not be lost, for which there was no room.
    later: VecDeque<Submission>,
    /// What waits to be read and belongs to the port.
    pub(super) lent: usize,
    /// A message found no room.
    starved: bool,
    /// The worker is gone and all it said was heard.
    dead: bool,
}

pub(super) struct Endpoint {
    /// The attachment that it belongs to, and its number there.
    pub(super) home: Home,
    pub(super) local: std::net::SocketAddr,
    pub(super) places: Vec<usize>,
    /// Handles that live in it.
    pub(super) live: usize,
    /// Connections begun; workers take turns.
    pub(super) dialled: usize,
    /// It is closed when nothing lives in it any more: its listener was closed, or another host has its place.
    pub(super) ends: bool,
    /// Sockets over TCP may still be bringing their last bytes to the peer when nothing lives in it.
    pub(super) lingers: bool,
    /// It makes connections, for whichever session wants it.
    pub(super) dials: bool,
    /// Sessions of the application that name it.
    pub(super) users: usize,
    /// Nobody uses it; until then it is kept.
    pub(super) kept: Option<Instant>,
}

impl Endpoint {
    /// Whether it is there for connections of which there are none.
    pub(super) const fn is_spare(&self) -> bool {
        self.dials && self.users == 0 && self.live == 0
    }
}

/// An endpoint as its host knows it: the stack's attachment to the host, and the host's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) generation: u32,
    pub(super) endpoint: u32,
}

/// A thread that waits for a session, or for any (`None`).
pub(super) struct Waiter {
    pub(super) session: Option<u64>,
    /// It also waits for room in a ring.
    pub(super) room: bool,
    pub(super) woken: Arc<Condvar>,
    pub(super) ticket: u64,
}

/// The thread that listens for all others.
pub(super) struct Leader {
    pub(super) session: Option<u64>,
    /// What it waits for may have come without it.
    pub(super) called: bool,
    pub(super) asleep: bool,
}

pub(super) struct State {
    pub(super) sessions: FxHashMap<u64, Entry>,
    pub(super) sessions_max: usize,
    last: u64,
    /// Workers of different hosts use the same handles: one is known together with its place.
    pub(super) by_handle: FxHashMap<Name, u64>,
    /// Closed by the application, not yet by the worker; with the connection that waits for them.
    pub(super) orphans: FxHashMap<Name, Option<u64>>,
    pub(super) places: Vec<Option<Place>>,
    pub(super) endpoints: FxHashMap<u32, Endpoint>,
    /// Numbers given to endpoints.
    pub(super) endpoints_given: u32,
    /// Endpoints for connecting, by their settings.
    pub(super) diallers: Vec<(Profile, u32)>,
    /// The endpoint of TCP and UDP.
    pub(super) plain: Option<u32>,
    /// The endpoint that went last, and why: a thread may be about to use it.
    farewell: Option<(u32, Ended)>,
    /// What nobody needs any more.
    pub(super) waste: Waste,
    /// How long an endpoint is kept that makes connections and has none.
    pub(super) keep: Duration,
    pub(super) clock: Clock,
    /// Listeners that have moved, with when their old parts are closed.
    pub(super) retiring: Vec<(u64, Instant)>,
    touched: Vec<u64>,
    pub(super) news: VecDeque<u64>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) tickets: u64,
    pub(super) leader: Option<Leader>,
    /// The leader is to be called though no session was touched.
    pub(super) call_leader: bool,
    /// Somebody waits outside for the stack's descriptor.
    pub(super) watched: bool,
    /// Whether that somebody is to be told.
    pub(super) tell_watcher: bool,
    /// Tasks wait for sessions by their numbers, and want to hear of those that were closed as well.
    pub(super) has_tasks: bool,
    pub(super) gone: bool,
    pub(super) draining: bool,
    /// When a call that does not block last looked whether the host is there.
    pub(super) glanced: Option<Instant>,
    scratch: Vec<Completion>,
    /// Sessions that do not block and found no room in a ring: they are told of when there is some.
    hungry: Vec<u64>,
}

impl State {
    pub(super) fn new(sessions_max: usize, clock: Clock) -> Self {
        Self {
            sessions: FxHashMap::default(),
            sessions_max,
            last: 0,
            by_handle: FxHashMap::default(),
            orphans: FxHashMap::default(),
            places: Vec::new(),
            endpoints: FxHashMap::default(),
            endpoints_given: 0,
            diallers: Vec::new(),
            plain: None,
            farewell: None,
            waste: Waste::default(),
            keep: KEEP,
            clock,
            retiring: Vec::new(),
            touched: Vec::new(),
            news: VecDeque::new(),
            waiters: Vec::new(),
            tickets: 0,
            leader: None,
            call_leader: false,
            watched: false,
            tell_watcher: false,
            has_tasks: false,
            gone: false,
            draining: false,
            glanced: None,
            scratch: Vec::new(),
            hungry: Vec::new(),
        }
    }

    /// Names a new session.
    pub(super) fn enter(&mut self, entry: Entry) -> u64 {
        self.last += 1;
        self.sessions.insert(self.last, entry);
        self.last
    }

    pub(super) fn entry(&mut self, session: u64) -> Result<&mut Entry, Error> {
        self.sessions.get_mut(&session).ok_or(Error::NoSession)
    }

    /// Something happened to a session.
    pub(super) fn touch(&mut self, session: u64) {
        if let Some(entry) = self.sessions.get_mut(&session) {
            if !entry.touched {
                entry.touched = true;
                self.touched.push(session);
            }
            if !entry.in_news {
                entry.in_news = true;
                self.news.push_back(session);
            }
        }
    }

    /// Wakes those whose session was touched. Whether the leader has to be called out of its sleep.
    pub(super) fn settle(&mut self) -> bool {
        let mut call = std::mem::take(&mut self.call_leader);
        if let Some(leader) = self.leader.as_mut().filter(|_| call) {
            leader.called = true;
        }
        if self.touched.is_empty() {
            return call;
        }
        self.tell_watcher |= self.watched;
        for waiter in &self.waiters {
            let touched = |session| self.sessions.get(&session).is_none_or(|entry| entry.touched);
            if waiter.session.is_none_or(touched) {
                waiter.woken.notify_one();
            }
        }
        if let Some(leader) = &mut self.leader {
            let touched = |session| self.sessions.get(&session).is_none_or(|entry| entry.touched);
            if !leader.called && leader.session.is_none_or(touched) {
                leader.called = true;
                call |= leader.asleep;
            }
        }
        for session in self.touched.drain(..) {
            if let Some(entry) = self.sessions.get_mut(&session) {
                entry.touched = false;
            }
        }
        call
    }

    /// Wakes everybody: something happened that concerns all.
    pub(super) fn wake_all(&mut self) {
        self.waiters.iter().for_each(|waiter| waiter.woken.notify_one());
        if let Some(leader) = &mut self.leader {
            leader.called = true;
        }
        self.tell_watcher |= self.watched;
    }

    /// Wakes those that wait for room.
    pub(super) fn wake_for_room(&mut self) {
        self.waiters.iter().filter(|waiter| waiter.room).for_each(|waiter| waiter.woken.notify_one());
    }

    /// A call that does not block found no room; the session is told of when there is some.
    pub(super) fn hungers(&mut self, session: u64) {
        if !self.hungry.contains(&session) {
            self.hungry.push(session);
        }
    }

    /// There is room again in the ring of that place, for those who wait and for those who do not.
    fn feed(&mut self, place: usize) {
        self.wake_for_room();
        let here = |session: &u64| self.sessions.get(session).is_none_or(|entry| entry.place == place);
        let (fed, rest) = self.hungry.iter().partition(|session| here(session));
        self.hungry = rest;
        let fed: Vec<u64> = fed;
        fed.into_iter().for_each(|session| self.touch(session));
    }

    /// Hands a message over, behind those that wait. `Full` when there is no room.
    pub(super) fn submit(&mut self, place: usize, submission: Submission) -> Result<(), PushError<Submission>> {
        let Some(at) = self.places.get_mut(place).and_then(Option::as_mut) else {
            return Err(PushError::Closed(submission));
        };
        at.flush();
        let done = if at.later.is_empty() { at.port.submit(submission) } else { Err(PushError::Full(submission)) };
        at.starved |= matches!(done, Err(PushError::Full(_)));
        done
    }

    /// Hands a message over that must not be lost, now or when there is room. For one whose worker is gone there is no need.
    pub(super) fn post(&mut self, place: usize, submission: Submission) {
        if let Err(PushError::Full(submission)) = self.submit(place, submission)
            && let Some(Some(at)) = self.places.get_mut(place)
        {
            at.later.push_back(submission);
        }
    }

    /// A stream's bytes found no room in the ring.
    pub(super) fn starve(&mut self, place: usize) {
        if let Some(Some(at)) = self.places.get_mut(place) {
            at.starved = true;
        }
    }

    /// From now on workers ring.
    pub(super) fn arm(&mut self) {
        for place in self.places.iter_mut().flatten().filter(|place| !place.dead) {
            place.port.arm(if place.starved { Interest::ANY } else { Interest::MESSAGES });
        }
    }

    pub(super) fn disarm(&mut self) {
        self.places.iter_mut().flatten().for_each(|place| place.port.disarm());
    }

    /// Whether a port has something to say, or room that somebody waits for.
    pub(super) fn has_news(&mut self) -> bool {
        let ports = self.places.iter_mut().flatten();
        let speaks =
            ports.filter(|place| !place.dead).any(|at| at.port.has_news() || (at.starved && at.port.has_room()));
        speaks || self.clock.has_due()
    }

    /// Takes what the workers said. Whether there was anything.
    pub(super) fn drain(&mut self) -> bool {
        let mut any = false;
        for at in 0..self.places.len() {
            any |= self.drain_place(at);
        }
        while let Some(due) = self.clock.take() {
            any = true;
            match due {
                Due::Session(session) => self.on_due(session),
                Due::Endpoint(number) => self.let_go(number),
                Due::Listeners => self.retire(),
            }
        }
        any
    }

    fn drain_place(&mut self, at: usize) -> bool {
        let Some(place) = self.places.get_mut(at).and_then(Option::as_mut).filter(|place| !place.dead) else {
            return false;
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        place.flush();
        let room = place.starved && place.later.is_empty() && place.port.has_room();
        place.starved &= !room;
        place.port.poll_into(&mut scratch, BATCH);
        let over = scratch.is_empty() && place.port.has_news() && place.port.is_closed();
        // A word that came between the two looks is heard next time.
        let over = over && place.port.poll_into(&mut scratch, BATCH) == 0;
        place.dead = over;
        let any = !scratch.is_empty();
        for message in scratch.drain(..) {
            self.hear(at, message);
        }
        self.scratch = scratch;
        if room {
            self.feed(at);
        }
        if over {
            self.bury(at, "its worker is gone; the service closed the endpoint, or failed");
        }
        any || over || room
    }

    /// All sessions of a port end.
    pub(super) fn bury(&mut self, at: usize, why: &str) {
        let ended = gone_for(why);
        let mut theirs = Vec::new();
        for (session, entry) in &mut self.sessions {
            let listens = entry.listener().is_some_and(|listener| {
                listener.parts.iter_mut().filter(|(place, _)| *place == at).for_each(|(_, part)| *part = Part::Over);
                listener.is_over()
            });
            let lives = matches!(entry.what, What::Connection(_) | What::Stream(_)) && entry.place == at;
            if (lives || listens) && entry.end.is_none() {
                entry.end = Some(ended.clone());
                theirs.push(*session);
            }
        }
        theirs.into_iter().for_each(|session| self.touch(session));
    }

    /// The endpoint is gone, with its ports.
    pub(super) fn forget_endpoint(&mut self, endpoint: u32, why: &str) {
        let Some(gone) = self.endpoints.remove(&endpoint) else { return };
        self.farewell = Some((endpoint, gone_for(why)));
        if let Some(at) = gone.kept {
            self.clock.remove(at, Due::Endpoint(endpoint));
        }
        // Nobody will say their last word.
        self.orphans.retain(|(place, _), _| !gone.places.contains(place));
        self.by_handle.retain(|(place, _), _| !gone.places.contains(place));
        for at in gone.places {
            self.bury(at, why);
            if let Some(place) = self.places.get_mut(at) {
                *place = None;
            }
        }
        self.diallers.retain(|(_, number)| *number != endpoint);
        if self.plain == Some(endpoint) {
            self.plain = None;
        }
    }

    /// A port, in the first place that is free.
    pub(super) fn place(&mut self, port: Box<dyn AppPort>, endpoint: u32) -> usize {
        let place = Place { port, endpoint, later: VecDeque::new(), lent: 0, starved: false, dead: false };
        let free = self.places.iter().position(Option::is_none);
        match free {
            Some(at) => {
                self.places[at] = Some(place);
                at
            }
            None => {
                self.places.push(Some(place));
                self.places.len() - 1
            }
        }
    }

    /// The next place of an endpoint for a connection.
    pub(super) fn next_place(&mut self, endpoint: u32) -> Option<usize> {
        let places = &self.places;
        let at = self.endpoints.get_mut(&endpoint)?;
        at.dialled = at.dialled.wrapping_add(1);
        let alive = |at: &&usize| places.get(**at).is_some_and(|place| place.as_ref().is_some_and(|p| !p.dead));
        let count = at.places.iter().filter(alive).count();
        at.places.iter().filter(alive).nth(at.dialled.checked_rem(count)?).copied()
    }

    /// Why nothing can be begun in an endpoint (any more).
    pub(super) fn why_not(&self, endpoint: u32) -> Error {
        let farewell = self.farewell.as_ref().filter(|(number, _)| *number == endpoint && !self.gone);
        match farewell {
            Some((_, ended)) => Error::Ended(ended.clone()),
            None if self.gone => Error::ServiceGone,
            None => Error::Ended(gone_for("its worker is gone; the service closed the endpoint, or failed")),
        }
    }

    /// Whether an endpoint was given up here, because another host has its place.
    pub(super) fn was_left(&self, endpoint: u32) -> bool {
        match self.endpoints.get(&endpoint) {
            Some(endpoint) => endpoint.ends,
            None => {
                let went = self.farewell.as_ref().filter(|(number, _)| *number == endpoint);
                !self.gone && went.is_none_or(|(_, ended)| ended.text == LEFT)
            }
        }
    }

    pub(super) fn endpoint_of(&self, place: usize) -> Option<u32> {
        self.places.get(place)?.as_ref().map(|place| place.endpoint)
    }

    /// A handle lives in the endpoint of that place.
    pub(super) fn lives(&mut self, place: usize) {
        let endpoint = self.endpoint_of(place);
        if let Some(endpoint) = endpoint.and_then(|number| self.endpoints.get_mut(&number)) {
            endpoint.live += 1;
        }
    }

    /// It does so no more.
    pub(super) fn died(&mut self, place: usize) {
        let Some(number) = self.endpoint_of(place) else { return };
        if let Some(endpoint) = self.endpoints.get_mut(&number) {
            endpoint.live = endpoint.live.saturating_sub(1);
        }
        self.look_whether_used(number);
    }

    /// Whether an endpoint is to end and nothing lives in it, nor is about to.
    pub(super) fn is_left(&self, number: u32) -> bool {
        if !self.endpoints.get(&number).is_some_and(|endpoint| endpoint.ends && endpoint.live == 0) {
            return false;
        }
        let connects = |entry: &Entry| {
            let dials = matches!(entry.what, What::Connection(_) | What::Stream(_));
            dials && entry.endpoint == Some(number) && entry.handle.is_none() && entry.end.is_none()
        };
        !self.sessions.values().any(connects)
    }
}

fn gone_for(why: &str) -> Ended {
    Ended { text: why.to_owned().into(), ..Ended::plain(Reason::Internal) }
}

impl Place {
    /// Whether nothing waits for room, so that more may be sent.
    pub(super) fn is_flushed(&mut self) -> bool {
        self.flush();
        self.later.is_empty()
    }

    fn flush(&mut self) {
        while let Some(submission) = self.later.pop_front() {
            if let Err(PushError::Full(submission)) = self.port.submit(submission) {
                self.later.push_front(submission);
                return;
            }
        }
    }
}

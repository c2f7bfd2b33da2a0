//! Attaching anew: to the successor of a service, or to one that began after the last one failed.
//!
//! A service that makes way says so, and whichever thread hears it attaches to the successor in passing. From then on new
//! endpoints are made there. **Listeners move**: the successor is asked to listen at the same address, gets the socket from its
//! predecessor, and the session listens at both for a moment ([`GRACE`]), so that handshakes under way are not lost. Connections
//! and streams **stay** where they are; the old attachment ends with the last of them.
//!
//! After a failure nothing stays: [`Stack::reattach`] brings back listeners, sessions that are bound, settings and
//! certificates; connections and streams are over.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::epoll;

use super::{
    Attachment, Error, Stack,
    clock::Due,
    entry::{Entry, Part, What},
    lines::{Line, Lines},
    state::State,
    wait::{BELL, CONTROL, Inner},
};
use crate::{
    control::{Fault, Open, Profile, Protocol, Role},
    msg::Submission,
    reason::{Ended, Reason},
};

/// So long an old part of a listener that moved still takes what had begun there.
const GRACE: Duration = Duration::from_secs(1);
/// How often a service may turn out to make way while one asks it for an endpoint.
pub(super) const SUCCESSORS_MAX: usize = 8;

/// A session that is to be had at the newest host.
struct Mover {
    session: u64,
    protocol: Protocol,
    profile: Profile,
    local: std::net::SocketAddr,
    listens: bool,
}

impl Stack {
    /// Attaches anew when the service is gone, or makes way: to whoever listens at the socket now. Sessions that listen do so
    /// again, at the same addresses and with the same certificates; sessions that are bound or new keep their settings. When
    /// the service is gone, connections and streams are over; when it makes way for a successor, they go on. Does nothing
    /// while the service takes what is new, so that several threads may call it.
    ///
    /// The workers of listeners are asked and not waited for: a client may be refused for a moment. A listener that cannot be had
    /// again ends, and [`accept`](Self::accept) says why.
    ///
    /// # Errors
    /// [`Error::Attach`] while nobody listens at the socket; [`Error::Refused`]; [`Error::Unfit`] for a stack that was not
    /// made by [`attach`](Self::attach), [`from_config`](Self::from_config) or [`from_environment`](Self::from_environment).
    pub fn reattach(&self) -> Result<(), Error> {
        self.0.ask(|lines| {
            self.0.hear_host(lines);
            let draining = self.0.lock().draining;
            if lines.newest().is_past || draining || lines.newest().control.is_gone() {
                self.0.move_on(lines)?;
            }
            Ok(())
        })
    }
}

impl Inner {
    /// Opens an endpoint at the newest host, or at its successor when it makes way.
    pub(super) fn open_at(&self, lines: &mut Lines, what: &Open) -> Result<(u32, super::Opened), Error> {
        let mut asked = 0;
        loop {
            let refused = match self.open(lines, what) {
                Ok(opened) => return Ok(opened),
                Err(refused) => refused,
            };
            asked += 1;
            if refused.fault != Fault::Draining || asked > SUCCESSORS_MAX || self.move_on(lines).is_err() {
                let gone = lines.newest().control.is_gone();
                return Err(if gone { Error::ServiceGone } else { Error::Refused(refused) });
            }
        }
    }

    /// Attaches to whoever listens at the socket now, and has what can move move there. The state must not be locked.
    pub(super) fn move_on(&self, lines: &mut Lines) -> Result<(), Error> {
        let own = "this stack was made over an attachment of the program's own; make another one";
        let home = self.home.as_ref().ok_or(Error::Unfit(own))?;
        let Attachment { control, bell, .. } = Attachment::reach(&home.socket, &home.name)?;
        for (set, data) in [(&self.ears, BELL), (&self.watch, BELL)] {
            let added = epoll::add(set, &bell, epoll::EventData::new_u64(data), epoll::EventFlags::IN);
            added.map_err(|error| Error::system("a stack needs descriptors", &error))?;
            if let Some(control) = control.descriptor() {
                let added = epoll::add(set, control, epoll::EventData::new_u64(CONTROL), epoll::EventFlags::IN);
                added.map_err(|error| Error::system("a stack needs descriptors", &error))?;
            }
        }
        self.bells().push(bell.clone());
        lines.newest().is_past = true;
        lines.push(control, bell);
        let gone: Vec<u32> =
            lines.older.iter().filter(|line| line.control.is_gone()).map(|line| line.generation).collect();
        let movers = self.lock().begin_anew(&gone);
        for mover in movers {
            self.bring(lines, &mover);
        }
        let mut state = self.lock();
        state.wake_all();
        let waste = self.give_back(state);
        self.sweep(lines, waste);
        Ok(())
    }

    /// Has a session at the newest host, too.
    fn bring(&self, lines: &mut Lines, mover: &Mover) {
        let Mover { session, protocol, profile, local, listens } = mover;
        let role = if *protocol == Protocol::Quic { Role::Listen(*local) } else { Role::Dial(None) };
        let known = self.lock().plain.filter(|_| *protocol != Protocol::Quic);
        let number = match known {
            Some(known) => Ok(known),
            None => self.open(lines, &Open { protocol: *protocol, role, profile: profile.clone() }).map(|opened| {
                let mut state = self.lock();
                let plain = *protocol != Protocol::Quic;
                let number = state.add_endpoint(opened, plain);
                if plain {
                    state.plain = Some(number);
                }
                number
            }),
        };
        let mut state = self.lock();
        match number {
            Ok(number) => state.settle_at(*session, number, (*protocol, *local), *listens),
            Err(refused) => state.stays(*session, &refused.to_string()),
        }
        let waste = self.give_back(state);
        lines.give_back(waste);
    }

    /// Lets go of older hosts at which nothing lives any more.
    pub(super) fn hang_up(&self, lines: &mut Lines) {
        if lines.older.is_empty() {
            return;
        }
        let state = self.lock();
        let lives = |line: &Line| state.endpoints.values().any(|endpoint| endpoint.home.generation == line.generation);
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut lines.older).into_iter().partition(lives);
        drop(state);
        lines.older = stay;
        for line in go {
            for set in [&self.ears, &self.watch] {
                let _ = epoll::delete(set, &line.bell);
            }
        }
        let mut bells = self.bells();
        bells.clear();
        bells.extend(lines.all().map(|line| line.bell.clone()));
    }
}

impl State {
    /// What begins from now on begins at another host. What was at those that are gone is over, but for what can be had again;
    /// that is told.
    fn begin_anew(&mut self, gone: &[u32]) -> Vec<Mover> {
        (self.gone, self.draining) = (false, false);
        let plain = self.plain.take();
        if let Some(plain) = plain.and_then(|plain| self.endpoints.get_mut(&plain)) {
            plain.lingers = true;
        }
        let diallers: Vec<u32> = self.diallers.drain(..).map(|(_, number)| number).chain(plain).collect();
        let over: Vec<u32> = self
            .endpoints
            .iter()
            .filter(|(_, endpoint)| gone.contains(&endpoint.home.generation))
            .map(|(number, _)| *number)
            .collect();
        let movers = self.movers(&over);
        for number in over {
            self.forget_endpoint(number, "the service that had it is gone");
        }
        diallers.into_iter().for_each(|number| self.end_when_idle(number));
        movers
    }

    /// Sessions that can be had elsewhere. Those whose endpoint is over have no part of it any more.
    fn movers(&mut self, over: &[u32]) -> Vec<Mover> {
        let mut movers = Vec::new();
        for (session, entry) in &mut self.sessions {
            let listens = matches!(entry.what, What::Listener(_));
            let lost = entry.endpoint.is_some_and(|number| over.contains(&number));
            let (What::Listener(_) | What::Bound(_), Some(local)) = (&entry.what, entry.local) else { continue };
            // Its peers know a UDP listener by its socket, and there is nothing by which their datagrams could be told apart.
            let can = lost || !(listens && entry.protocol == Protocol::Udp);
            let drains = entry.end.as_ref().is_some_and(|end| end.reason == Reason::Draining);
            if !can || (entry.end.is_some() && !lost && !drains) {
                continue;
            }
            if lost {
                if let Some(listener) = entry.listener() {
                    listener.parts.clear();
                }
                (entry.end, entry.endpoint) = (None, None);
            }
            let (protocol, profile) = (entry.protocol, entry.profile.clone());
            movers.push(Mover { session: *session, protocol, profile, local, listens });
        }
        // In the order in which the program made them.
        movers.sort_unstable_by_key(|mover| mover.session);
        movers
    }

    /// A session is at another endpoint from now on; its worker is asked to listen if it listened.
    fn settle_at(&mut self, session: u64, number: u32, at: (Protocol, std::net::SocketAddr), listens: bool) {
        let places = self.endpoints.get(&number).map(|endpoint| endpoint.places.clone()).unwrap_or_default();
        let Some(entry) = self.sessions.get_mut(&session) else { return self.end_when_idle(number) };
        let before = entry.endpoint.replace(number);
        entry.end = None;
        self.joins(number);
        before.into_iter().for_each(|before| self.parts(before));
        if !listens {
            before.into_iter().for_each(|before| self.end_when_idle(before));
            return;
        }
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        entry.handle = None;
        if let (Some(first), Some(listener)) = (places.first(), entry.listener()) {
            listener.parts.retain(|(_, part)| *part != Part::Over);
            listener.parts.extend(places.iter().map(|place| (*place, Part::Asked)));
            entry.place = *first;
        }
        self.ask_to_listen(session, at, places);
        self.retire_at(session, Instant::now() + GRACE);
        self.touch(session);
    }

    /// A session could not be had elsewhere: it stays where it is, or is over.
    fn stays(&mut self, session: u64, why: &str) {
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        if entry.endpoint.is_none() {
            let text = Bytes::copy_from_slice(format!("it could not be had again: {why}").as_bytes());
            entry.end = Some(Ended { text, ..Ended::plain(Reason::System) });
            self.touch(session);
        }
    }

    /// The old parts of a listener that moved are closed at that time, and not before.
    fn retire_at(&mut self, session: u64, at: Instant) {
        self.retiring.retain(|(known, _)| *known != session);
        self.retiring.push((session, at));
        self.clock.put(at, Due::Listeners);
    }

    /// Closes the old parts of listeners that moved, when their time is over and the new ones are there.
    pub(super) fn retire(&mut self) {
        let now = Instant::now();
        let (due, rest) = std::mem::take(&mut self.retiring).into_iter().partition(|(_, at)| *at <= now);
        self.retiring = rest;
        let due: Vec<(u64, Instant)> = due;
        for (session, _) in due {
            self.retire_parts(session, now);
        }
    }

    fn retire_parts(&mut self, session: u64, now: Instant) {
        let Self { sessions, places, .. } = self;
        let Some(entry) = sessions.get_mut(&session) else { return };
        let number = entry.endpoint;
        let here = |place: usize| places.get(place).and_then(Option::as_ref).map(|place| place.endpoint) == number;
        let Some(listener) = entry.listener() else { return };
        let of =
            |part: fn(Part) -> bool, parts: &[(usize, Part)]| parts.iter().any(|(place, is)| here(*place) && part(*is));
        if of(|part| part == Part::Asked, &listener.parts) {
            return self.retire_at(session, now + GRACE);
        }
        if !of(|part| matches!(part, Part::Open(_)), &listener.parts) {
            // Nobody took it: it stays where it was, until another host comes.
            return;
        }
        // What such a worker took in before it hears of this still comes to the session: its part is over when it says so.
        let old: Vec<_> = listener.parts.iter().filter(|(place, _)| !here(*place)).copied().collect();
        let mut endpoints: Vec<u32> = old.iter().filter_map(|(place, _)| self.endpoint_of(*place)).collect();
        endpoints.dedup();
        for (place, part) in old {
            if let Part::Open(handle) = part {
                self.post(place, Submission::Close { handle, code: 0, reason: Bytes::new() });
            }
        }
        endpoints.into_iter().for_each(|number| self.end_when_idle(number));
    }

    /// Nothing new is taken any more at that host.
    pub(super) fn drain_listeners(&mut self, generation: u32, is_newest: bool) {
        self.draining |= is_newest;
        let there = |entry: &Entry| {
            let endpoint = entry.endpoint.and_then(|number| self.endpoints.get(&number));
            endpoint.is_some_and(|endpoint| endpoint.home.generation == generation)
        };
        let listeners: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, entry)| matches!(entry.what, What::Listener(_)) && there(entry))
            .map(|(session, _)| *session)
            .collect();
        for session in listeners {
            if let Some(entry) = self.sessions.get_mut(&session) {
                entry.end.get_or_insert(Ended::plain(Reason::Draining));
            }
            self.touch(session);
        }
    }
}

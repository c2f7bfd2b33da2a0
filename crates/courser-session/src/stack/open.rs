//! Sessions come and go: create, settings, connect, bind, listen, accept, close.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;

use super::{
    Dir, Error, Opened, Session, Stack,
    again::SUCCESSORS_MAX,
    entry::{Connection, Entry, Listener, Over, Part, Stream, What},
    state::{Endpoint, Home, State},
    uri::Target,
    wait::{Patience, Step},
};
use crate::{
    control::{Open, Profile, Protocol, Role, Trust},
    msg::{Endpoint as Remote, Submission},
    reason::{Ended, Reason},
};

/// Connections that wait to be accepted, when a program says no number, and at most.
const BACKLOG: (u32, u32) = (128, 4096);
/// How long opening a listener may take.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long closing a connection waits for the last bytes of its streams.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// A setting of a session, before it is connected or bound.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Setting {
    /// After so long without a packet a connection is over.
    IdleTimeout(Duration),
    /// After so long without a packet one is sent to keep the connection.
    KeepAlive(Duration),
    /// Whether unreliable datagrams are taken.
    Datagrams(bool),
    /// How many workers a listener has.
    Workers(u16),
    /// The name of the congestion controller.
    Congestion(String),
    /// How many streams the peer may have open at a time, of each direction.
    Streams(u64),
}

fn millis(time: Duration) -> Option<u64> {
    Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

impl Profile {
    fn set(&mut self, setting: Setting) {
        match setting {
            Setting::IdleTimeout(time) => self.idle_timeout_ms = millis(time),
            Setting::KeepAlive(time) => self.keep_alive_ms = millis(time),
            Setting::Datagrams(yes) => self.datagrams = yes,
            Setting::Workers(count) => self.workers = Some(count),
            Setting::Congestion(name) => self.congestion = Some(name),
            Setting::Streams(count) => self.streams = Some(count),
        }
    }
}

impl Stack {
    /// A session of that protocol. It blocks, without a limit of time, until it is told otherwise.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::ServiceGone`].
    pub fn create(&self, protocol: Protocol) -> Result<Session, Error> {
        // Nothing of it is the host's business, and yet whoever creates one is to hear that the host is gone.
        self.0.glance_when_due();
        let mut state = self.0.lock();
        if state.gone {
            return Err(Error::ServiceGone);
        }
        if state.sessions.len() >= state.sessions_max {
            return Err(Error::Full);
        }
        let entry = Entry { given: true, ..Entry::new(protocol, What::Fresh) };
        Ok(Session(state.enter(entry)))
    }

    /// What a listener proves itself with: its certificate with those that lead to a root, and its key, in PEM. Several may be
    /// added; the client's choice of a name decides.
    ///
    /// # Errors
    /// What the host says of it; [`Error::Unfit`] for a session that is in use already.
    pub fn add_certificate(&self, session: Session, chain: &[u8], key: &[u8]) -> Result<(), Error> {
        self.settle_profile(session, |_| {})?;
        let id = self.0.ask(|lines| lines.add_certificate(chain, key))?;
        let settled = self.settle_profile(session, |profile| profile.certificates.push(id));
        if settled.is_err() {
            // It was closed or used meanwhile by another thread.
            let mut state = self.0.lock();
            state.waste.certificates.push(id);
            self.0.leave(state);
        }
        settled
    }

    /// The application's protocols (ALPN), the most wanted first.
    ///
    /// # Errors
    /// [`Error::Unfit`] for a session that is in use already.
    pub fn set_alpn(&self, session: Session, names: &[&[u8]]) -> Result<(), Error> {
        self.settle_profile(session, |profile| profile.alpn = names.iter().map(|name| name.to_vec()).collect())
    }

    /// Whose certificates are believed when it connects.
    ///
    /// # Errors
    /// [`Error::Unfit`] for a session that is in use already.
    pub fn set_trust(&self, session: Session, trust: Trust) -> Result<(), Error> {
        self.settle_profile(session, |profile| profile.trust = trust)
    }

    /// A setting.
    ///
    /// # Errors
    /// [`Error::Unfit`] for a session that is in use already.
    pub fn set_option(&self, session: Session, setting: Setting) -> Result<(), Error> {
        self.settle_profile(session, |profile| profile.set(setting))
    }

    fn settle_profile(&self, session: Session, change: impl FnOnce(&mut Profile)) -> Result<(), Error> {
        let mut state = self.0.lock();
        let entry = state.entry(session.0)?;
        if !matches!(entry.what, What::Fresh) {
            return Err(Error::Unfit("settings are for sessions that are neither connected nor bound yet"));
        }
        change(&mut entry.profile);
        Ok(())
    }

    /// Whether calls fail with [`Error::WouldBlock`] instead of waiting. Sessions that are accepted begin as their listener is.
    ///
    /// # Errors
    /// [`Error::NoSession`].
    pub fn set_nonblocking(&self, session: Session, nonblocking: bool) -> Result<(), Error> {
        self.0.lock().entry(session.0).map(|entry| entry.nonblocking = nonblocking)
    }

    /// How long each call may take before it fails with [`Error::TimedOut`]; `None`: for ever.
    ///
    /// # Errors
    /// [`Error::NoSession`].
    pub fn set_timeout(&self, session: Session, timeout: Option<Duration>) -> Result<(), Error> {
        self.0.lock().entry(session.0).map(|entry| entry.timeout = timeout)
    }

    pub(super) fn patience(&self, session: Session) -> Result<Patience, Error> {
        let mut state = self.0.lock();
        let entry = state.entry(session.0)?;
        Ok(Patience { nonblocking: entry.nonblocking, timeout: entry.timeout })
    }

    /// Connects to `quic://host:port`, `tcp://…` or `udp://…` and waits until that is done. One that does not block is begun,
    /// and fails with [`Error::WouldBlock`]; called again, it says how far it is.
    ///
    /// # Errors
    /// [`Error::Ended`] says why there is no connection; [`Error::Address`], [`Error::Refused`].
    pub fn connect(&self, session: Session, uri: &str) -> Result<(), Error> {
        let (begun, protocol, profile) = {
            let mut state = self.0.lock();
            let entry = state.entry(session.0)?;
            (!matches!(entry.what, What::Fresh), entry.protocol, entry.profile.clone())
        };
        if !begun {
            let target = fitting(uri, protocol)?;
            self.begin_connecting(session.0, protocol, (&target, &profile))?;
        }
        let patience = self.patience(session)?;
        self.0.wait(Some(session.0), patience, |state| is_up(state, session.0))
    }

    /// Begins a connection at the host that takes what is new.
    fn begin_connecting(
        &self,
        session: u64,
        protocol: Protocol,
        (target, profile): (&Target, &Profile),
    ) -> Result<(), Error> {
        for _ in 0..SUCCESSORS_MAX {
            let endpoint = self.dialler(protocol, profile.clone())?;
            let mut state = self.0.lock();
            if state.was_left(endpoint) {
                // The host made way for another one in this very moment.
                state.parts(endpoint);
                self.0.leave(state);
                continue;
            }
            let begun = match target.address() {
                Some(address) => begin(&mut state, session, endpoint, (address, target.host.clone())),
                None => state.await_name(session, endpoint, (&target.host, target.port)).map(|()| {
                    if let Err(error) = self.0.look_up(session, &target.host) {
                        state.named(session, Err(error.to_string()));
                    }
                }),
            };
            if begun.is_err() {
                state.parts(endpoint);
            }
            self.0.leave(state);
            return begun;
        }
        Err(Error::Ended(Ended::plain(Reason::Draining)))
    }

    /// Opens a stream in an established connection, as connecting on the connection's handle does in other host stacks. It
    /// waits while the peer allows no more streams.
    ///
    /// # Errors
    /// [`Error::Ended`] says why there is no stream; [`Error::Unfit`] when the second session is no QUIC connection.
    pub fn connect_stream(&self, session: Session, connection: Session, dir: Dir) -> Result<(), Error> {
        let mut state = self.0.lock();
        if matches!(state.entry(session.0)?.what, What::Fresh) {
            let begun = begin_stream(&mut state, session.0, connection.0, dir);
            self.0.leave(state);
            begun?;
        } else {
            drop(state);
        }
        let patience = self.patience(session)?;
        self.0.wait(Some(session.0), patience, |state| is_up(state, session.0))
    }

    /// The endpoint that makes connections with those settings, with one more user.
    fn dialler(&self, protocol: Protocol, profile: Profile) -> Result<u32, Error> {
        let plain = protocol != Protocol::Quic;
        let known = || {
            let mut state = self.0.lock();
            if state.gone {
                return Err(Error::ServiceGone);
            }
            let dialler = state.diallers.iter().find(|(with, _)| *with == profile).map(|(_, number)| *number);
            let known = if plain { state.plain } else { dialler };
            known.into_iter().for_each(|number| state.joins(number));
            Ok(known)
        };
        if let Some(known) = known()? {
            return Ok(known);
        }
        // Two threads with the same new settings must not open two endpoints: the request is made with the control locked.
        self.0.ask(|lines| {
            if let Some(known) = known()? {
                return Ok(known);
            }
            let open = Open { protocol, role: Role::Dial(None), profile: profile.clone() };
            let opened = self.0.open_at(lines, &open)?;
            let mut state = self.0.lock();
            let number = state.add_endpoint(opened, true);
            state.joins(number);
            if plain {
                state.plain = Some(number);
            } else {
                state.diallers.push((open.profile, number));
            }
            Ok(number)
        })
    }

    /// Gives a session the address at which it is to listen. Port 0 lets the system choose; see [`Self::local_addr`].
    ///
    /// # Errors
    /// [`Error::Refused`] says why the address cannot be had.
    pub fn bind(&self, session: Session, uri: &str) -> Result<(), Error> {
        let (protocol, profile) = {
            let mut state = self.0.lock();
            let entry = state.entry(session.0)?;
            if !matches!(entry.what, What::Fresh) {
                return Err(Error::Unfit("only a session that is neither connected nor bound can be bound"));
            }
            (entry.protocol, entry.profile.clone())
        };
        let target = fitting(uri, protocol)?;
        let address = target.resolve(&*self.0.resolver())?;
        if protocol != Protocol::Quic {
            let endpoint = self.dialler(protocol, Profile::default())?;
            let mut state = self.0.lock();
            let bound = state.bound(session.0, endpoint, address);
            self.0.leave(state);
            return bound;
        }
        let open = Open { protocol, role: Role::Listen(address), profile };
        let bound = self.0.ask(|lines| {
            let opened = self.0.open_at(lines, &open)?;
            let mut state = self.0.lock();
            let local = opened.1.local;
            let endpoint = state.add_endpoint(opened, false);
            state.joins(endpoint);
            state.bound(session.0, endpoint, local)
        });
        self.0.leave(self.0.lock());
        bound
    }

    /// Takes connections from now on. So many wait to be accepted at most (0: 128; 4,096 at most); further ones are refused.
    ///
    /// # Errors
    /// [`Error::Ended`] says why nobody listens; [`Error::Unfit`] when it is not bound.
    pub fn listen(&self, session: Session, backlog: u32) -> Result<(), Error> {
        let mut state = self.0.lock();
        let begun = begin_listening(&mut state, session.0, backlog);
        self.0.leave(state);
        begun?;
        let patience = Patience { nonblocking: false, timeout: Some(LISTEN_TIMEOUT) };
        self.0.wait(Some(session.0), patience, |state| {
            let Some(entry) = state.sessions.get_mut(&session.0) else { return Step::Done(Err(Error::NoSession)) };
            if let Some(end) = entry.end.clone() {
                return Step::Done(Err(Error::Ended(end)));
            }
            // All workers must have answered: whoever connects now finds somebody.
            match entry.listener() {
                Some(listener) if listener.parts.iter().all(|(_, part)| *part != Part::Asked) => Step::Done(Ok(())),
                _ => Step::Wait,
            }
        })
    }

    /// What came in: on a listener the next connection, on a QUIC connection the next stream of the peer.
    ///
    /// # Errors
    /// [`Error::Ended`] when the listener or the connection is over; [`Error::Unfit`] on other sessions.
    pub fn accept(&self, session: Session) -> Result<Session, Error> {
        let patience = self.patience(session)?;
        self.0.wait(Some(session.0), patience, |state| {
            let Some(entry) = state.sessions.get_mut(&session.0) else { return Step::Done(Err(Error::NoSession)) };
            let ready = match &mut entry.what {
                What::Listener(listener) => listener.ready.pop_front(),
                What::Connection(connection) if entry.protocol == Protocol::Quic => connection.ready.pop_front(),
                _ => {
                    let what = "connections are accepted from a session that listens, streams from a QUIC connection";
                    return Step::Done(Err(Error::Unfit(what)));
                }
            };
            // As the listener is now, not as it was when the other end came: another thread may have taken that in.
            let (nonblocking, timeout) = (entry.nonblocking, entry.timeout);
            match (ready, &entry.end) {
                (Some(ready), _) => {
                    if let Some(entry) = state.sessions.get_mut(&ready) {
                        entry.given = true;
                        (entry.nonblocking, entry.timeout) = (nonblocking, timeout);
                    }
                    // Poll tells what it can do already.
                    state.touch(ready);
                    Step::Done(Ok(Session(ready)))
                }
                (None, Some(end)) => Step::Done(Err(Error::Ended(end.clone()))),
                (None, None) => Step::Wait,
            }
        })
    }

    /// The same as [`accept`](Self::accept), with where the peer is.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_from(&self, session: Session) -> Result<(Session, SocketAddr), Error> {
        loop {
            let accepted = self.accept(session)?;
            // One that was over before its worker could say where it was, or that another thread closed meanwhile.
            if let Ok(peer) = self.peer_addr(accepted) {
                return Ok((accepted, peer));
            }
            let _ = self.close(accepted);
        }
    }

    /// Ends a session; its number is never used again. What was written to a stream still arrives: closing it says so to the
    /// peer as [`finish`](Self::finish) does, and closing a QUIC connection waits up to five seconds, or the session's timeout,
    /// until the peer has the last bytes of its closed streams, unless the session does not block.
    ///
    /// # Errors
    /// [`Error::NoSession`].
    pub fn close(&self, session: Session) -> Result<(), Error> {
        let patience = self.patience(session)?;
        let linger = Patience { timeout: patience.timeout.or(Some(LINGER)), ..patience };
        // How the wait ends makes no difference.
        let _ = self.0.wait(Some(session.0), linger, |state| {
            let lingers = |c: &mut Connection| c.lingering > 0;
            let entry = state.sessions.get_mut(&session.0).filter(|entry| entry.end.is_none());
            if entry.and_then(Entry::connection).is_some_and(lingers) { Step::Wait } else { Step::Done(Ok(())) }
        });
        self.close_with(session, 0, b"")
    }

    /// Ends a session at once. A connection is closed with this code and reason, a stream that is not finished is given up with
    /// the code.
    ///
    /// # Errors
    /// [`Error::NoSession`].
    pub fn close_with(&self, session: Session, code: u64, reason: &[u8]) -> Result<(), Error> {
        let mut state = self.0.lock();
        let closed = state.entry(session.0).map(|_| ());
        state.release(session.0, code, Bytes::copy_from_slice(reason));
        self.0.leave(state);
        closed
    }
}

fn fitting(uri: &str, protocol: Protocol) -> Result<Target, Error> {
    let target = Target::parse(uri)?;
    if target.protocol == protocol {
        Ok(target)
    } else {
        Err(Error::Address(format!("the session was created for {protocol}, the address is for {}", target.protocol)))
    }
}

fn begin(state: &mut State, session: u64, endpoint: u32, (address, host): (SocketAddr, String)) -> Result<(), Error> {
    let place = state.next_place(endpoint).ok_or_else(|| state.why_not(endpoint))?;
    let local = state.endpoints.get(&endpoint).map(|endpoint| endpoint.local);
    let entry = state.entry(session)?;
    if !matches!(entry.what, What::Fresh) {
        return Err(Error::Unfit("another thread connects or binds the session"));
    }
    let protocol = entry.protocol;
    entry.what = What::begun(protocol);
    (entry.place, entry.endpoint, entry.peer, entry.local) = (place, Some(endpoint), Some(address), local);
    let server_name = if protocol == Protocol::Quic { host } else { protocol.name().to_owned() };
    let to = Box::new(Remote { address, server_name, profile: 0 });
    state.post(place, Submission::Connect { token: session, to });
    Ok(())
}

fn begin_stream(state: &mut State, session: u64, connection: u64, dir: Dir) -> Result<(), Error> {
    let of = "streams are opened in a QUIC connection that is established";
    let parent = state.entry(connection)?;
    if let Some(end) = &parent.end {
        return Err(Error::Ended(end.clone()));
    }
    let Some(handle) = parent.handle.filter(|_| parent.protocol == Protocol::Quic) else {
        return Err(Error::Unfit(of));
    };
    if parent.connection().is_none_or(|connection| !connection.established) {
        return Err(Error::Unfit(of));
    }
    let (place, endpoint, local, peer) = (parent.place, parent.endpoint, parent.local, parent.peer);
    let entry = state.entry(session)?;
    if entry.protocol != Protocol::Quic {
        return Err(Error::Unfit(of));
    }
    let reading = (dir == Dir::Uni).then_some(Over::Never);
    entry.what = What::Stream(Box::new(Stream { parent: Some(connection), reading, ..Stream::default() }));
    (entry.place, entry.endpoint, entry.local, entry.peer) = (place, endpoint, local, peer);
    let submission = match dir {
        Dir::Bi => Submission::OpenBi { connection: handle, token: session },
        Dir::Uni => Submission::OpenUni { connection: handle, token: session },
    };
    if let Some(endpoint) = endpoint {
        state.joins(endpoint);
    }
    if let Some(connection) = state.entry(connection)?.connection() {
        connection.opening.insert(session);
    }
    state.post(place, submission);
    Ok(())
}

/// Whether a session that was begun is open.
fn is_up(state: &mut State, session: u64) -> Step<()> {
    let gone = state.gone;
    let Some(entry) = state.sessions.get_mut(&session) else { return Step::Done(Err(Error::NoSession)) };
    if entry.is_open() {
        return Step::Done(Ok(()));
    }
    if let Some(wrong) = &entry.wrong {
        return Step::Done(Err(Error::Address(wrong.clone())));
    }
    if let Some(end) = &entry.end {
        return Step::Done(Err(Error::Ended(end.clone())));
    }
    let connects = matches!(entry.what, What::Connection(_) | What::Stream(_));
    match (connects, gone) {
        (false, _) => Step::Done(Err(Error::Unfit("a session that listens does not connect"))),
        (true, true) => Step::Done(Err(Error::ServiceGone)),
        (true, false) => Step::Wait,
    }
}

fn begin_listening(state: &mut State, session: u64, backlog: u32) -> Result<(), Error> {
    if state.gone {
        return Err(Error::ServiceGone);
    }
    if state.draining {
        return Err(Error::Ended(Ended::plain(Reason::Draining)));
    }
    let entry = state.entry(session)?;
    let (What::Bound(address), Some(endpoint)) = (&entry.what, entry.endpoint) else {
        return Err(Error::Unfit("only a session that is bound can listen"));
    };
    let (address, protocol) = (*address, entry.protocol);
    let places = state.endpoints.get(&endpoint).map(|endpoint| endpoint.places.clone()).unwrap_or_default();
    if places.is_empty() {
        return Err(state.why_not(endpoint));
    }
    let backlog = if backlog == 0 { BACKLOG.0 } else { backlog.min(BACKLOG.1) };
    let listener = Listener {
        parts: places.iter().map(|place| (*place, Part::Asked)).collect(),
        backlog: crate::num::widen(backlog),
        ready: std::collections::VecDeque::new(),
        under_way: 0,
    };
    let entry = state.entry(session)?;
    entry.what = What::Listener(Box::new(listener));
    entry.place = places[0];
    state.ask_to_listen(session, (protocol, address), places);
    Ok(())
}

impl State {
    /// A session has an endpoint to listen in.
    fn bound(&mut self, session: u64, endpoint: u32, local: SocketAddr) -> Result<(), Error> {
        let plain = self.plain;
        let Some(entry) = self.sessions.get_mut(&session) else {
            // Closed meanwhile by another thread.
            self.parts(endpoint);
            if plain != Some(endpoint) {
                self.waste.endpoints.push(endpoint);
            }
            return Err(Error::NoSession);
        };
        // The host may have made way for another one, to which the endpoint of TCP and UDP moved at once.
        let moved = if entry.protocol == Protocol::Quic { None } else { plain.filter(|plain| *plain != endpoint) };
        let mut endpoint = endpoint;
        if let Some(moved) = moved {
            self.joins(moved);
            self.parts(std::mem::replace(&mut endpoint, moved));
        }
        let entry = self.entry(session)?;
        entry.what = What::Bound(local);
        (entry.endpoint, entry.local) = (Some(endpoint), Some(local));
        Ok(())
    }

    /// Has the workers of those places take connections for a session.
    pub(super) fn ask_to_listen(&mut self, session: u64, (protocol, address): (Protocol, SocketAddr), at: Vec<usize>) {
        let server_name = if protocol == Protocol::Quic { String::new() } else { protocol.name().to_owned() };
        for place in at {
            let at = Box::new(Remote { address, server_name: server_name.clone(), profile: 0 });
            self.post(place, Submission::Listen { token: session, at });
        }
    }

    /// Takes an endpoint in; its number.
    pub(super) fn add_endpoint(&mut self, (generation, opened): (u32, Opened), dials: bool) -> u32 {
        let Opened { endpoint, local, ports, .. } = opened;
        self.endpoints_given = self.endpoints_given.wrapping_add(1);
        let number = self.endpoints_given;
        let places = ports.into_iter().map(|port| self.place(port, number)).collect();
        let home = Home { generation, endpoint };
        let new = Endpoint {
            home,
            local,
            places,
            live: 0,
            dialled: 0,
            ends: false,
            lingers: false,
            dials,
            users: 0,
            kept: None,
        };
        self.endpoints.insert(number, new);
        number
    }
}

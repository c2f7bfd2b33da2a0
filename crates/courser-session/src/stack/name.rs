//! Connecting by name: the name is looked up in a thread, and its addresses race.
//!
//! The system's resolver blocks, for as long as it likes. It is called in a thread that ends with the last name; at most
//! [`THREADS_MAX`] are there at a time, further names wait, each no longer than its session's [`CONNECT_TIMEOUT`]. So a session
//! that does not block does not do so for a name either, and nobody waits for another one's name without limit.
//!
//! Addresses are tried in the order of RFC 8305: as the system sorted them, the families taking turns. The next one is begun
//! when the one before failed or has not answered for [`STAGGER`]; the first connection that is made wins, the others are
//! closed. A session over UDP is made without a word of the peer, so that nothing could win: it takes the first IPv4
//! address, where servers nearly always listen, or the first of all.
//!
//! Each address under way is a *racer*: a session of its own that the application does not know. What the winner has become the
//! application's session becomes.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Error, Stack,
    clock::Due,
    entry::{Entry, What},
    state::State,
    wait::Inner,
};
use crate::{
    control::Protocol,
    msg::{Endpoint as Remote, Submission},
    reason::{Ended, Reason},
};

/// How long connecting by a name may take, the name included.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an address may be silent before the next one is tried as well.
const STAGGER: Duration = Duration::from_millis(250);
/// The same of this machine's own address, which answers or is not served.
const STAGGER_HERE: Duration = Duration::from_millis(20);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// Names that are looked up at a time.
const THREADS_MAX: usize = 8;

/// Looks names up. It may block: it is called in a thread of its own.
pub trait Resolve: Send + Sync {
    /// The addresses of a name, the best first.
    ///
    /// # Errors
    /// What the resolver says.
    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

impl<F: Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync> Resolve for F {
    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self(name)
    }
}

/// The system's own resolver.
fn system(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

/// Names that wait to be looked up, and who does it.
pub(super) struct Names {
    resolver: Arc<dyn Resolve>,
    /// With the session, which has not more than one.
    waiting: VecDeque<(u64, String)>,
    threads: usize,
}

impl Default for Names {
    fn default() -> Self {
        Self { resolver: Arc::new(system), waiting: VecDeque::new(), threads: 0 }
    }
}

/// A session that is being connected by a name.
#[derive(Debug)]
pub(super) struct Attempt {
    name: String,
    port: u16,
    /// Addresses that were not tried yet.
    left: VecDeque<SocketAddr>,
    /// Sessions under way, one for each address that was begun.
    racers: Vec<u64>,
    /// When the next address is begun.
    next: Option<Instant>,
    /// When everything is given up.
    until: Instant,
    /// What the last address that failed said.
    last: Option<Ended>,
}

/// Addresses in the order in which they are tried.
fn in_order(found: Vec<IpAddr>, port: u16, protocol: Protocol) -> VecDeque<SocketAddr> {
    let at = |ip| SocketAddr::new(ip, port);
    if protocol == Protocol::Udp {
        return found.iter().find(|ip| ip.is_ipv4()).or(found.first()).map(|ip| at(*ip)).into_iter().collect();
    }
    let first = found.first().is_some_and(IpAddr::is_ipv6);
    let (mut these, mut those) = (VecDeque::new(), VecDeque::new());
    for ip in found {
        let family = if ip.is_ipv6() == first { &mut these } else { &mut those };
        if !family.contains(&ip) {
            family.push_back(ip);
        }
    }
    let mut all = VecDeque::new();
    while all.len() < ADDRESSES_MAX && !(these.is_empty() && those.is_empty()) {
        all.extend(these.pop_front().map(at));
        all.extend(those.pop_front().map(at));
    }
    all
}

impl State {
    /// A session is to be connected by a name, over an endpoint that it uses already.
    pub(super) fn await_name(&mut self, session: u64, endpoint: u32, (name, port): (&str, u16)) -> Result<(), Error> {
        let place = self.next_place(endpoint).ok_or_else(|| self.why_not(endpoint))?;
        let entry = self.entry(session)?;
        if !matches!(entry.what, What::Fresh) {
            return Err(Error::Unfit("another thread connects or binds the session"));
        }
        let until = Instant::now() + CONNECT_TIMEOUT;
        entry.what = What::begun(entry.protocol);
        (entry.place, entry.endpoint) = (place, Some(endpoint));
        let (name, left, racers) = (name.to_owned(), VecDeque::new(), Vec::new());
        let attempt = Attempt { name, port, left, racers, next: None, until, last: None };
        entry.attempt = Some(Box::new(attempt));
        self.clock.put(until, Due::Session(session));
        Ok(())
    }

    /// What the resolver said.
    pub(super) fn named(&mut self, session: u64, found: Result<Vec<IpAddr>, String>) {
        let Some(entry) = self.sessions.get_mut(&session).filter(|entry| entry.end.is_none()) else { return };
        let protocol = entry.protocol;
        let Some(attempt) = &mut entry.attempt else { return };
        match found {
            Ok(found) if !found.is_empty() => {
                attempt.left = in_order(found, attempt.port, protocol);
                self.begin_next(session);
            }
            Ok(_) => self.has_no_name(session, "the name has no address"),
            Err(error) => self.has_no_name(session, &error),
        }
    }

    fn has_no_name(&mut self, session: u64, why: &str) {
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        let text = format!("{}: {why}", entry.attempt.as_ref().map_or("", |attempt| attempt.name.as_str()));
        entry.wrong = Some(text.clone());
        self.give_up(session, Ended { text: text.into(), ..Ended::plain(Reason::Unreachable) });
    }

    /// Begins the next address, if there is one left.
    fn begin_next(&mut self, session: u64) {
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        let (protocol, endpoint) = (entry.protocol, entry.endpoint);
        let Some(attempt) = &mut entry.attempt else { return };
        if let Some(at) = attempt.next.take() {
            self.clock.remove(at, Due::Session(session));
        }
        let Some(address) = attempt.left.pop_front() else { return };
        let server_name = if protocol == Protocol::Quic { attempt.name.clone() } else { protocol.name().to_owned() };
        if !attempt.left.is_empty() {
            let stagger = if address.ip().is_loopback() { STAGGER_HERE } else { STAGGER };
            let at = Instant::now() + stagger;
            attempt.next = Some(at);
            self.clock.put(at, Due::Session(session));
        }
        let Some((endpoint, place)) = endpoint.and_then(|number| Some((number, self.next_place(number)?))) else {
            let ended = Ended::plain(Reason::Internal);
            return self.give_up(session, ended);
        };
        let mut racer = Entry::new(protocol, What::begun(protocol));
        (racer.place, racer.endpoint, racer.racer_of, racer.peer) =
            (place, Some(endpoint), Some(session), Some(address));
        let racer = self.enter(racer);
        self.joins(endpoint);
        if let Some(attempt) = self.sessions.get_mut(&session).and_then(|entry| entry.attempt.as_mut()) {
            attempt.racers.push(racer);
        }
        let to = Box::new(Remote { address, server_name, profile: 0 });
        self.post(place, Submission::Connect { token: racer, to });
    }

    /// An address did not answer, or said no.
    pub(super) fn racer_is_over(&mut self, racer: u64, ended: Ended) {
        let Some(session) = self.sessions.get(&racer).and_then(|entry| entry.racer_of) else { return };
        self.release(racer, 0, Bytes::new());
        let Some(attempt) = self.sessions.get_mut(&session).and_then(|entry| entry.attempt.as_mut()) else { return };
        attempt.racers.retain(|one| *one != racer);
        if !attempt.left.is_empty() {
            attempt.last = Some(ended);
            self.begin_next(session);
        } else if attempt.racers.is_empty() {
            self.give_up(session, ended);
        } else {
            attempt.last = Some(ended);
        }
    }

    /// A connection is made: it is the application's.
    pub(super) fn racer_has_won(&mut self, racer: u64) {
        let Some(won) = self.sessions.remove(&racer) else { return };
        if let Some(endpoint) = won.endpoint {
            self.parts(endpoint);
        }
        let Some((session, entry)) = won.racer_of.and_then(|of| Some((of, self.sessions.get_mut(&of)?))) else {
            return;
        };
        if let Some(handle) = won.handle {
            self.by_handle.insert((won.place, handle), session);
        }
        (entry.what, entry.handle, entry.place) = (won.what, won.handle, won.place);
        (entry.local, entry.peer, entry.is_placed) = (won.local, won.peer, won.is_placed);
        entry.number = won.number;
        let attempt = entry.attempt.take();
        self.end_attempt(session, attempt);
        self.touch(session);
    }

    /// The next address is to be begun, or everything is to be given up.
    pub(super) fn on_due(&mut self, session: u64) {
        let Some(entry) = self.sessions.get_mut(&session).filter(|entry| entry.end.is_none()) else { return };
        let Some(attempt) = &mut entry.attempt else { return self.touch(session) };
        let now = Instant::now();
        if attempt.until <= now {
            let text = format!("{}: no address answered within {CONNECT_TIMEOUT:?}", attempt.name);
            let ended = attempt.last.take();
            return self
                .give_up(session, ended.unwrap_or(Ended { text: text.into(), ..Ended::plain(Reason::Unreachable) }));
        }
        if attempt.next.is_some_and(|next| next <= now) {
            self.begin_next(session);
        }
    }

    /// There is no connection.
    fn give_up(&mut self, session: u64, ended: Ended) {
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        entry.end.get_or_insert(ended);
        let (attempt, endpoint) = (entry.attempt.take(), entry.endpoint);
        self.end_attempt(session, attempt);
        // It may have been the last thing that was about to live there.
        endpoint.into_iter().for_each(|number| self.close_if_idle(number));
        self.touch(session);
    }

    /// Nothing of an attempt stays.
    pub(super) fn end_attempt(&mut self, session: u64, attempt: Option<Box<Attempt>>) {
        let Some(attempt) = attempt else { return };
        for at in attempt.next.into_iter().chain([attempt.until]) {
            self.clock.remove(at, Due::Session(session));
        }
        attempt.racers.into_iter().for_each(|racer| self.release(racer, 0, Bytes::new()));
    }
}

impl Inner {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn resolver(&self) -> Arc<dyn Resolve> {
        Arc::clone(&self.names().resolver)
    }

    /// Has a name looked up for a session.
    pub(super) fn look_up(&self, session: u64, name: &str) -> Result<(), Error> {
        let mut names = self.names();
        names.waiting.push_back((session, name.to_owned()));
        if names.threads >= THREADS_MAX {
            return Ok(());
        }
        let me = Weak::clone(&self.me);
        match thread::Builder::new().name("courser-names".into()).spawn(move || answer(&me)) {
            Ok(_) => names.threads += 1,
            // Somebody else gets to it.
            Err(_) if names.threads > 0 => {}
            Err(error) => {
                names.waiting.retain(|(of, _)| *of != session);
                return Err(Error::system("no thread to look a name up", &error));
            }
        }
        Ok(())
    }

    /// The next name whose session still waits for it; `None` ends the thread.
    fn next_name(&self) -> Option<(u64, String, Arc<dyn Resolve>)> {
        loop {
            let mut names = self.names();
            let Some((session, name)) = names.waiting.pop_front() else {
                names.threads -= 1;
                return None;
            };
            let resolver = Arc::clone(&names.resolver);
            drop(names);
            if self.lock().sessions.get(&session).is_some_and(|entry| entry.end.is_none()) {
                return Some((session, name, resolver));
            }
        }
    }
}

/// Looks names up until none is left. A stack that is dropped meanwhile does not wait for the resolver.
fn answer(stack: &Weak<Inner>) {
    loop {
        let Some((session, name, resolver)) = stack.upgrade().and_then(|stack| stack.next_name()) else { return };
        let found = catch_unwind(AssertUnwindSafe(|| resolver.resolve(&name)));
        let found = found.unwrap_or_else(|_| Err(io::Error::other("the resolver failed")));
        let Some(stack) = stack.upgrade() else { return };
        let mut state = stack.lock();
        state.named(session, found.map_err(|error| error.to_string()));
        stack.leave(state);
    }
}

impl Stack {
    /// Looks names up by other means than the system's resolver, from now on.
    pub fn set_resolver(&self, resolver: Arc<dyn Resolve>) {
        self.0.names().resolver = resolver;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_nothing_is_tried_twice() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let order = |found: &[&str], protocol| {
            let order = in_order(ips(found), 7, protocol);
            assert!(order.iter().all(|address| address.port() == 7));
            order.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>()
        };
        let found = ["::1", "::2", "::3", "1.1.1.1", "::1", "2.2.2.2"];
        assert_eq!(order(&found, Protocol::Quic), ["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"]);
        assert_eq!(order(&["1.1.1.1", "::1"], Protocol::Tcp), ["1.1.1.1", "::1"]);
        assert_eq!(order(&found, Protocol::Udp), ["1.1.1.1"]);
        assert_eq!(order(&["::5"], Protocol::Udp), ["::5"]);
        assert!(order(&[], Protocol::Quic).is_empty());
        let many: Vec<String> = (0..100).map(|n| format!("10.0.0.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(order(&many, Protocol::Tcp).len(), ADDRESSES_MAX);
    }
}

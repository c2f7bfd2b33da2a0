//! Programs over session ports: one thread that submits and polls, one that owns the engine and its socket; as many pairs
//! as a server has workers.
//!
//! ```text
//! away      echo programs whose worker is in another process
//! session   the server, and what both clients have in common
//! desk      the application's table of connections and streams; programs see it as [`Streams`]
//! gate      where the worker is
//! perf      a perf client
//! echo      an echo client
//! ```
//!
//! The programs are those that also run on the engine directly.
//!
//! [`Streams`]: crate::transport::Streams

#[cfg(unix)]
pub mod away;
mod desk;
pub mod echo;
mod gate;
mod perf;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use courser::Handover;
use courser::clock::Clock;
use courser::net::resolve::ATTEMPT_DELAY;
use courser::session::{
    Completion, Ended, Endpoint, Handle, Kind, Options, PortSetup, Reason, Remote, Submission, Waited, look_time,
};
use courser_core::error::{CloseReason, TransportCode};
use courser_tls::ServerConfig as TlsServer;

use self::desk::{Desk, What};
use self::gate::Gate;
pub use self::perf::call;
use super::LOOK;
use crate::apps::body::Counter;
use crate::apps::perf_server::PerfServer;
use crate::failure::{Failure, Outcome};
use crate::link::Peer;
use crate::link::drive::Dial;
use crate::link::scout::Scouts;
use crate::link::serve::Stop;
use crate::link::setup::{self, Service};
use crate::operate::{Operated, Wish};
use crate::transport::App;

/// Application error code of a connection whose program failed.
const CODE_FAILED: u64 = 2;

/// Bytes of the streams of one port that wait to be sent: as many as thousands of streams at once may need.
fn port_setup() -> PortSetup {
    PortSetup { submissions: 1024, completions: 4096, share_bytes: 1 << 40, delivery_window_bytes: 1 << 20 }
}

/// Serves perf clients until the process is asked to end.
///
/// # Errors
/// The port cannot be had, or something else of the machine is missing.
pub fn serve(host: &super::Host<'_>) -> Outcome {
    let content = host.content.clone();
    serve_with(host, move || PerfServer::new(content.clone(), Counter::unread()))
}

/// The same with another program.
///
/// # Errors
/// As [`serve`].
pub fn serve_with<A: App>(host: &super::Host<'_>, make: impl FnMut() -> A + Clone + Send) -> Outcome {
    let (endpoint, serves) = super::open(
        host,
        |options| Endpoint::start(Options::server(host.service.listen, options)),
        |port, options| Endpoint::take_over(port, Options::server(host.service.listen, options)),
    )?;
    let (stop, wishes) = (Stop::default(), host.operator.listen()?);
    let count = endpoint.workers().len();
    let (tell, failures) = super::failures();
    let served = Served { endpoint: &endpoint, service: &host.service };
    std::thread::scope(|scope| {
        let (stop, served, operator) = (&stop, &served, host.operator);
        let at = endpoint.local_addr();
        let mut others = Vec::new();
        let attach = |worker| endpoint.attach_at(worker, port_setup()).map(Gate::from);
        let mut ports: Vec<_> = (0..count).filter_map(attach).collect();
        // Who comes before a port listens is refused.
        ports.iter_mut().try_for_each(|port| listen(port, at))?;
        let Some(own) = ports.pop() else { return Ok(()) };
        // A thread for each worker but the last, which has this one: they share nothing.
        for port in ports {
            let (make, tell) = (make.clone(), tell.clone());
            others.push(scope.spawn(move || {
                let mut desk = Desk::new(port, peer_of_server());
                attend(&mut desk, stop, make, &mut |failure| drop(tell.try_send(failure)))
            }));
        }
        scope.spawn(move || operator.attend(wishes.told, served, &|| stop.ask(&[])));
        super::announce(host, at, serves);
        let mut desk = Desk::new(own, peer_of_server());
        let warn = &mut |failure| {
            (host.warn)(&failure);
            failures.try_iter().for_each(|failure| (host.warn)(&failure));
        };
        let mut outcome = attend(&mut desk, stop, make, warn);
        failures.try_iter().for_each(|failure| (host.warn)(&failure));
        if outcome.is_err() {
            stop.ask(&[]);
        }
        for other in others {
            let gone = Failure::Local { what: "a serving thread".into(), why: "it panicked".into() };
            outcome = outcome.and(other.join().unwrap_or(Err(gone)));
        }
        let _ = wishes.tell.send(Wish::Over);
        outcome
    })
}

/// The endpoint as its operator sees it.
struct Served<'a> {
    endpoint: &'a Endpoint,
    service: &'a Service<'a>,
}

impl Operated for Served<'_> {
    fn drain(&self, limit: Duration) -> bool {
        self.endpoint.drain(limit).is_ok()
    }

    fn reload(&self, tls: TlsServer) -> Outcome {
        super::reload(self.service, tls, |options| self.endpoint.reload(options))
    }

    fn hand_over(&self) -> Outcome<Handover> {
        super::handed(self.endpoint.hand_over())
    }
}

/// Has a port listen, and waits until it does.
fn listen(port: &mut Gate, at: SocketAddr) -> Outcome {
    let at = Box::new(Remote { address: at, server_name: String::new(), profile: 0 });
    let gone = || Failure::Local { what: "the worker's thread".into(), why: "it ended".into() };
    if port.submit_batch(&mut std::iter::once(Submission::Listen { token: 0, at })) == 0 {
        return Err(gone());
    }
    let mut told = Vec::new();
    loop {
        port.poll_into(&mut told, 1);
        match told.pop() {
            Some(Completion::Opened { .. }) => return Ok(()),
            Some(message) => {
                return Err(Ended::of(&message).map_or_else(gone, |ended| failure(&peer_of_server(), &ended)));
            }
            None if port.look_then_wait(Duration::ZERO, LOOK) == Waited::Closed => return Err(gone()),
            None => {}
        }
    }
}

/// Serves with one worker's port, which listens, until `stop` is asked.
fn attend<A: App>(
    desk: &mut Desk<A>,
    stop: &Stop,
    mut make: impl FnMut() -> A,
    warn: &mut dyn FnMut(Failure),
) -> Outcome {
    while !stop.is_asked() {
        while let Some(message) = desk.hear() {
            let told = desk.on(message);
            let Some(handle) = told.session else { continue };
            match (told.what, told.outcome) {
                (What::Accepted, _) => {
                    desk.insert(handle, make());
                    desk.say(Submission::Accept { handle });
                }
                (What::Closed(_), _) => drop(desk.remove(handle)),
                (_, Err(failure)) => {
                    warn(failure);
                    desk.close(handle, CODE_FAILED);
                }
                _ => {}
            }
        }
        if !desk.wait(LOOK) {
            return Err(Failure::Local { what: "the worker's thread".into(), why: "it ended".into() });
        }
    }
    Ok(())
}

fn peer_of_server() -> Peer {
    Peer { name: "the client".into(), patience: Duration::ZERO }
}

/// Why a session ended, as the core would have put it.
fn close_reason(ended: &Ended) -> CloseReason {
    let (code, text) = (ended.code, String::from_utf8_lossy(&ended.text).into_owned());
    match ended.reason {
        Reason::ClosedByPeer => CloseReason::PeerApplication { code, reason: ended.text.to_vec() },
        Reason::PeerTransport => {
            CloseReason::PeerTransport { code: TransportCode(code), frame_type: 0, reason: ended.text.to_vec() }
        }
        Reason::Tls => CloseReason::Tls { alert: u8::try_from(code).unwrap_or(u8::MAX), reason: text },
        Reason::Idle => CloseReason::IdleTimeout,
        Reason::HandshakeTimeout => CloseReason::HandshakeTimeout,
        Reason::PeerReset => CloseReason::StatelessReset,
        Reason::Refused => CloseReason::Refused,
        _ => CloseReason::LocalApplication { code, reason: ended.to_string().into_bytes() },
    }
}

/// A failure of the job.
pub(crate) fn failure(peer: &Peer, ended: &Ended) -> Failure {
    match ended.reason {
        Reason::PeerBroke => Failure::PeerBroke { rule: String::from_utf8_lossy(&ended.text).into_owned() },
        Reason::Version => Failure::NoVersion { offered: String::from_utf8_lossy(&ended.text).into_owned() },
        _ => peer.failure(&close_reason(ended)),
    }
}

/// A client's worker and its port.
fn client<A: App>(dial: &Dial<'_>, tuning: &crate::tuning::Tuning) -> Outcome<(Endpoint, Desk<A>)> {
    let worker = setup::port_client(dial, tuning)?;
    let endpoint = Endpoint::run(worker, look_time()).map_err(|e| Failure::local("starting a thread", &e))?;
    let desk = Desk::new(endpoint.attach(port_setup()), dial.peer.clone());
    Ok((endpoint, desk))
}

/// Begins a connection, to be told as opened with that token.
fn begin<A: App>(desk: &mut Desk<A>, dial: &Dial<'_>, to: SocketAddr, token: u64) {
    let to = Remote { address: to, server_name: dial.name.to_owned(), profile: 0 };
    desk.say(Submission::Connect { token, to: Box::new(to) });
}

/// Connects to the first of the addresses that answers: another one is tried every so often, and when one failed.
fn reach<A: App>(desk: &mut Desk<A>, dial: &Dial<'_>, until: Instant) -> Outcome<(Handle, SocketAddr)> {
    let mut left: VecDeque<SocketAddr> = dial.addrs.iter().copied().collect();
    let (mut running, mut asked, mut last): (Vec<(Handle, SocketAddr)>, u64, Option<Failure>) = (Vec::new(), 0, None);
    let (mut under_way, mut next) = (0, Instant::now());
    let (clock, mut scouts) = (Clock::start(), Scouts::default());
    loop {
        dial.stop.check()?;
        while let Some(message) = desk.hear() {
            match message {
                Completion::Opened { token, handle, .. } => {
                    let at = usize::try_from(token).ok().and_then(|n| dial.addrs.get(n));
                    running.extend(at.map(|at| (handle, *at)));
                }
                Completion::Established { connection } => {
                    let winner = running.iter().find(|(handle, _)| *handle == connection).copied();
                    for (loser, _) in running.drain(..).filter(|(handle, _)| *handle != connection) {
                        desk.close(loser, 0);
                    }
                    return winner.ok_or_else(|| nobody(dial));
                }
                message => {
                    let Some(ended) = Ended::of(&message) else { continue };
                    running.retain(|(handle, _)| message.handle() != Some(*handle));
                    under_way -= 1;
                    let failure = failure(dial.peer, &ended);
                    // An address that answered tells more than one that was silent, and than our own words.
                    if last.is_none() || !matches!(failure, Failure::NoAnswer { .. } | Failure::Local { .. }) {
                        last = Some(failure);
                    }
                    next = Instant::now();
                }
            }
        }
        while let Some(nobody) = scouts.refused(clock.now()) {
            running.iter().filter(|(_, to)| *to == nobody).for_each(|(handle, _)| desk.close(*handle, 0));
            last = Some(Failure::NothingListens { peer: dial.peer.name.clone() });
            next = Instant::now();
        }
        if (next <= Instant::now() || under_way == 0)
            && let Some(to) = left.pop_front()
        {
            begin(desk, dial, to, asked);
            scouts.follow(to, clock.now());
            (asked, under_way, next) = (asked + 1, under_way + 1, Instant::now() + ATTEMPT_DELAY);
        }
        if under_way == 0 && left.is_empty() {
            return Err(last.unwrap_or_else(|| nobody(dial)));
        }
        if Instant::now() >= until || !desk.wait(ATTEMPT_DELAY.min(LOOK)) {
            return Err(nobody(dial));
        }
    }
}

fn nobody(dial: &Dial<'_>) -> Failure {
    Failure::NoAnswer { peer: dial.peer.name.clone(), waited: dial.peer.patience }
}

/// Closes connections of a client whose job is over, and waits until the worker says so.
fn farewell<A: App>(desk: &mut Desk<A>, connections: Vec<Handle>) {
    let until = Instant::now() + LOOK;
    let mut left = connections.len();
    connections.into_iter().for_each(|handle| desk.close(handle, 0));
    while left > 0 && Instant::now() < until && desk.wait(LOOK) {
        while let Some(message) = desk.hear() {
            let over = matches!(&message, Completion::Closed { handle, .. } if handle.kind() == Kind::Connection);
            left = left.saturating_sub(usize::from(over));
        }
    }
}

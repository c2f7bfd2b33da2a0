//! Turns of a worker until a job is done, and the race for a client's first connection.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use courser::net::resolve::ATTEMPT_DELAY;
use courser::worker::Worker;
use courser_core::config::Settings;
use courser_core::engine::{Engine, Event as EngineEvent};
use courser_core::ids::ConnKey;
use courser_core::time::Instant;
use courser_tls::ClientConfig as TlsClient;

use super::Peer;
use super::scout::Scouts;
use super::serve::Stop;
use crate::failure::{Failure, Outcome};
use crate::transport::CODE_INTERRUPTED;

/// Turns that a closing client takes at most to get its last words out.
const LAST_TURNS: usize = 16;
/// How long one of them may wait for room in the socket.
const LAST_WAIT: Duration = Duration::from_millis(10);

/// So many events a step takes before what they led to is sent: ends that answer in smaller batches work at the same time
/// rather than in turns.
const EVENTS_BEFORE_SENDING: usize = 16;

/// The events that a step takes now, and whether others may wait.
#[derive(Debug)]
pub struct Events(usize);

impl Events {
    /// For one step.
    #[must_use]
    pub const fn of_step() -> Self {
        Self(EVENTS_BEFORE_SENDING)
    }

    /// The next event, if this step is to take another one.
    pub fn next(&mut self, engine: &mut Engine) -> Option<(ConnKey, EngineEvent)> {
        self.0 = self.0.checked_sub(1)?;
        let event = engine.poll_event();
        if event.is_none() {
            self.0 = EVENTS_BEFORE_SENDING;
        }
        event
    }

    /// When the step wants to be called again: at once if others may wait.
    pub fn then(&self, now: Instant, otherwise: ControlFlow<(), Option<Instant>>) -> ControlFlow<(), Option<Instant>> {
        if self.0 == 0 && otherwise.is_continue() { ControlFlow::Continue(Some(now)) } else { otherwise }
    }
}

/// What a step says: done, or when it wants to be called although nothing happens.
pub type Said = Outcome<ControlFlow<(), Option<Instant>>>;

/// The step has nothing to wait for but events.
pub const WAIT: ControlFlow<(), Option<Instant>> = ControlFlow::Continue(None);
/// The step has done its job.
pub const DONE: ControlFlow<(), Option<Instant>> = ControlFlow::Break(());

/// Takes turns until `step` is done or fails. It is called once a turn, and has to take all events that wait or, with
/// [`Events`], to say that it wants to be called again.
///
/// # Errors
/// What the step says, or the socket failed.
pub fn drive(worker: &mut Worker<Engine>, step: &mut dyn FnMut(&mut Engine, Instant) -> Said) -> Outcome {
    loop {
        let mut said = Ok(DONE);
        let mut turn = worker.turn_with(&mut |engine, now| said = step(engine, now)).map_err(|e| broken(&e))?;
        let ControlFlow::Continue(wake) = said? else { return Ok(()) };
        if !turn.progressed {
            turn.deadline = match (turn.deadline, wake) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            worker.wait(&turn).map_err(|e| broken(&e))?;
        }
    }
}

fn broken(e: &io::Error) -> Failure {
    Failure::local("using the UDP socket", e)
}

/// Gets out what connections that were just closed still have to say. The peer may never hear it; nobody waits for that.
pub fn flush(worker: &mut Worker<Engine>) {
    for _ in 0..LAST_TURNS {
        let Ok(mut turn) = worker.turn() else { return };
        if turn.blocked {
            turn.deadline = Some(worker.clock().now() + LAST_WAIT);
            if worker.wait(&turn).is_err() {
                return;
            }
        } else if !turn.progressed {
            return;
        }
    }
}

/// Closes all connections of a client whose job is over, and gets that out. One that closes already, with a better
/// reason, goes on doing so.
pub fn close_all<T>(worker: &mut Worker<Engine>, outcome: &Outcome<T>) {
    let (code, reason): (_, &[u8]) = match outcome {
        Err(Failure::Interrupted(_)) => (CODE_INTERRUPTED, b"interrupted"),
        _ => (0, b""),
    };
    let now = worker.clock().now();
    let engine = worker.machine();
    let keys: Vec<_> = engine.keys().collect();
    for key in keys {
        let _ = engine.close(now, key, code, reason);
    }
    flush(worker);
}

/// Whom a client calls, and how.
#[derive(Clone, Debug)]
pub struct Dial<'a> {
    /// The addresses, in the order in which to try them; at least one.
    pub addrs: &'a [SocketAddr],
    /// The name that the certificate must have.
    pub name: &'a str,
    /// TLS.
    pub tls: &'a TlsClient,
    /// Transport.
    pub settings: &'a Settings,
    /// For sentences about failures.
    pub peer: &'a Peer,
    /// Ends the job early.
    pub stop: &'a Stop,
}

impl Dial<'_> {
    /// Begins a connection to one of the addresses.
    ///
    /// # Errors
    /// TLS cannot begin, for example with that name.
    pub fn connect(&self, engine: &mut Engine, now: Instant, to: SocketAddr) -> Outcome<ConnKey> {
        engine
            .connect(now, to, self.name, self.tls, self.settings)
            .map_err(|alert| Failure::Tls { peer: self.peer.name.clone(), why: alert.reason })
    }
}

/// The race of RFC 8305: every so often another address is tried, and the first that answers wins.
struct Race<'a> {
    dial: &'a Dial<'a>,
    /// Addresses that were tried.
    tried: usize,
    running: Vec<(ConnKey, SocketAddr)>,
    /// When the next address is tried.
    next: Instant,
    /// The failure that tells most until now.
    failure: Option<Failure>,
    /// Look whether anybody has the port of what was tried.
    scouts: Scouts,
}

impl Race<'_> {
    fn step(&mut self, engine: &mut Engine, now: Instant) -> Outcome<ControlFlow<(ConnKey, SocketAddr), Instant>> {
        self.dial.stop.check()?;
        while let Some((key, event)) = engine.poll_event() {
            let Some(at) = self.running.iter().position(|(k, _)| *k == key) else { continue };
            match event {
                EngineEvent::Connected => {
                    let winner = self.running.swap_remove(at);
                    for (loser, _) in self.running.drain(..) {
                        let _ = engine.close(now, loser, 0, b"another address answered first");
                    }
                    return Ok(ControlFlow::Break(winner));
                }
                EngineEvent::Closed(reason) => {
                    self.running.swap_remove(at);
                    self.blame(self.dial.peer.failure(&reason));
                    self.next = now;
                }
                _ => {}
            }
        }
        while let Some(nobody) = self.scouts.refused(now) {
            for (key, _) in self.running.extract_if(.., |(_, to)| *to == nobody) {
                let _ = engine.close(now, key, 0, b"");
            }
            self.blame(Failure::NothingListens { peer: self.dial.peer.name.clone() });
            self.next = now;
        }
        while let Some(to) = self.dial.addrs.get(self.tried).filter(|_| now >= self.next || self.running.is_empty()) {
            self.tried += 1;
            self.next = now + ATTEMPT_DELAY;
            match self.dial.connect(engine, now, *to) {
                Ok(key) => {
                    self.running.push((key, *to));
                    self.scouts.follow(*to, now);
                }
                Err(e) => self.blame(e),
            }
        }
        if self.running.is_empty() {
            let nobody = || Failure::NoAnswer { peer: self.dial.peer.name.clone(), waited: self.dial.peer.patience };
            return Err(self.failure.take().unwrap_or_else(nobody));
        }
        let last = self.tried == self.dial.addrs.len();
        let next = if last { now + self.dial.peer.patience } else { self.next };
        Ok(ControlFlow::Continue(self.scouts.next().map_or(next, |look| next.min(look))))
    }

    /// An address that answered tells more than one that was silent.
    fn blame(&mut self, failure: Failure) {
        if !matches!((&self.failure, &failure), (Some(_), Failure::NoAnswer { .. })) {
            self.failure = Some(failure);
        }
    }
}

/// Connects to the first of the addresses that answers. Its `Connected` event has been taken; all that follow wait.
///
/// # Errors
/// Nobody answered, or everybody who did refused.
pub fn reach(worker: &mut Worker<Engine>, dial: &Dial<'_>) -> Outcome<(ConnKey, SocketAddr)> {
    let next = worker.clock().now();
    let mut race = Race { dial, tried: 0, running: Vec::new(), next, failure: None, scouts: Scouts::default() };
    let mut winner = None;
    drive(worker, &mut |engine, now| {
        Ok(match race.step(engine, now)? {
            ControlFlow::Break(found) => {
                winner = Some(found);
                DONE
            }
            ControlFlow::Continue(wake) => ControlFlow::Continue(Some(wake)),
        })
    })?;
    winner.ok_or_else(|| Failure::NoAnswer { peer: dial.peer.name.clone(), waited: dial.peer.patience })
}

//! What belongs to a server's port, and what operators ask of the workers there, whichever face is above them.
//!
//! An [`Order`] goes to every worker, which carries it out in its next turn. Giving the port away is such an order too: each
//! worker stops reading in the turn in which it answers, and when all have answered there is a [`Handover`].

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use courser_core::cid::INSTANCES;
use courser_core::engine::{Engine, ServerConfig, TokenKeys};
use courser_core::ids::{Cid, ConnKey};
use courser_core::time::Instant;
use zeroize::Zeroizing;

use crate::error::{EndpointError, HandoverError};
use crate::face;
use crate::handover::{Handed, Handover};
use crate::net::os::{self, RelayOut};
use crate::options::ServerOptions;
use crate::wait::{Waiters, Woken, lock};
use crate::worker::crossing::Elder;
use crate::worker::group::Steering;
use crate::worker::machine::Relay;

/// What an operator asks of a worker.
pub(crate) enum Order {
    /// New connections are taken by this configuration, and tokens under these keys.
    Reload { server: Box<ServerConfig>, token_keys: Option<TokenKeys> },
    /// Another process has the port from now on. What it receives for this one comes out of the relay; which connection IDs
    /// do not tell by themselves is the reply.
    HandOver { relay: Relay, reply: Reply },
    /// Every connection is closed with code 0.
    CloseAll,
}

impl Order {
    /// Does it. Another place where trains come from is left in `relay`.
    pub(crate) fn carry_out(self, now: Instant, engine: &mut Engine, relay: &mut Option<Relay>) {
        match self {
            Self::Reload { server, token_keys } => {
                engine.replace_server(*server);
                if let Some(keys) = token_keys {
                    engine.replace_token_keys(&keys);
                }
            }
            Self::HandOver { relay: from, reply } => {
                engine.set_cooldown(true);
                *relay = Some(from);
                reply.give(engine.unsettled_cids());
            }
            Self::CloseAll => close_all(now, engine),
        }
    }

    /// The order by which each of `workers` workers takes new connections with these options.
    pub(crate) fn reload(options: &ServerOptions, workers: usize) -> Self {
        Self::Reload { server: Box::new(face::server_config(options, workers)), token_keys: options.token_keys.clone() }
    }
}

/// Closes every connection.
pub(crate) fn close_all(now: Instant, engine: &mut Engine) {
    let keys: Vec<ConnKey> = engine.keys().collect();
    for key in keys {
        let _ = engine.close(now, key, 0, b"");
    }
}

/// Gives every one of `workers` workers the order to take new connections with these options.
pub(crate) fn reload(
    estate: Option<&Estate>,
    options: &ServerOptions,
    workers: usize,
    tell: impl FnMut(usize, Order),
) -> Result<(), EndpointError> {
    options.settings.validate().map_err(EndpointError::Settings)?;
    if let (Some(estate), Some(keys)) = (estate, &options.token_keys) {
        *lock(&estate.token_keys) = keys.clone();
    }
    let mut tell = tell;
    (0..workers).for_each(|worker| tell(worker, Order::reload(options, workers)));
    Ok(())
}

/// What a worker answers when it has given its socket away.
#[derive(Default)]
struct Answer {
    cids: Option<Vec<Cid>>,
    /// The worker will answer no more.
    over: bool,
    waiters: Waiters,
}

/// The worker's side of an answer: dropped without one, it tells that there will be none.
pub(crate) struct Reply(Arc<Mutex<Answer>>);

impl Reply {
    fn give(self, cids: Vec<Cid>) {
        lock(&self.0).cids = Some(cids);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let mut woken = Woken::default();
        let mut answer = lock(&self.0);
        answer.over = true;
        answer.waiters.call(&mut woken);
        drop(answer);
    }
}

/// What a process that takes the port over needs.
pub(crate) struct Estate {
    /// Each worker's socket, and the processes before this one that it knows.
    pub(crate) sockets: Vec<(UdpSocket, Vec<Elder>)>,
    pub(crate) steering: Steering,
    pub(crate) instance: u8,
    pub(crate) reset_key: Zeroizing<[u8; 32]>,
    pub(crate) token_keys: Mutex<TokenKeys>,
    /// The ends from which workers read since the port was given away.
    pub(crate) relays: Mutex<Vec<Weak<RelayOut>>>,
}

/// Sockets on their way to another process.
pub(crate) struct Handing<'a> {
    estate: &'a Estate,
    /// What each worker gives, and its answer to come.
    given: VecDeque<(Handed, os::RelayIn, Arc<Mutex<Answer>>)>,
    handed: Vec<Handed>,
    /// Of the process that takes over.
    instance: u8,
}

impl Estate {
    /// Asks every worker to read no more from its socket.
    pub(crate) fn begin(&self, mut tell: impl FnMut(usize, Order)) -> Result<Handing<'_>, HandoverError> {
        let mut before = lock(&self.relays);
        if before.iter().filter_map(Weak::upgrade).any(|relay| !relay.is_gone()) {
            return Err(HandoverError::Given);
        }
        let (mut given, mut relays, mut taken) = (VecDeque::new(), Vec::new(), vec![self.instance]);
        for (socket, elders) in &self.sockets {
            let (into, out) = os::relay().map_err(HandoverError::System)?;
            let living = elders.iter().filter(|elder| !elder.relay.is_gone());
            let elders: Vec<Elder> =
                living.map(Elder::try_clone).collect::<Result<_, _>>().map_err(HandoverError::System)?;
            taken.extend(elders.iter().map(|elder| elder.instance));
            let socket = socket.try_clone().map_err(HandoverError::System)?;
            given.push_back((Handed { socket, elders }, into, Arc::default()));
            relays.push(Arc::new(out));
        }
        let next = (1..INSTANCES).map(|n| (self.instance + n) % INSTANCES).find(|n| !taken.contains(n));
        let instance = next.ok_or(HandoverError::TooManyElders)?;
        *before = relays.iter().map(Arc::downgrade).collect();
        for (worker, (out, (_, _, answer))) in relays.into_iter().zip(&given).enumerate() {
            tell(worker, Order::HandOver { relay: Relay(out), reply: Reply(Arc::clone(answer)) });
        }
        Ok(Handing { estate: self, given, handed: Vec::new(), instance })
    }
}

impl Handing<'_> {
    /// Ready when every worker has done so, or one never will.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Handover, HandoverError>> {
        while let Some((_, _, answer)) = self.given.front() {
            let mut answer = lock(answer);
            let cids = match answer.cids.take() {
                Some(cids) => cids,
                None if answer.over => return Poll::Ready(Err(HandoverError::WorkerGone)),
                None => {
                    answer.waiters.add(cx);
                    return Poll::Pending;
                }
            };
            drop(answer);
            let Some((mut handed, relay, _)) = self.given.pop_front() else { break };
            let unsettled = cids.into_iter().collect();
            handed.elders.push(Elder { instance: self.estate.instance, relay, unsettled });
            self.handed.push(handed);
        }
        Poll::Ready(Ok(Handover {
            sockets: std::mem::take(&mut self.handed),
            steering: self.estate.steering,
            instance: self.instance,
            reset_key: self.estate.reset_key.clone(),
            token_keys: lock(&self.estate.token_keys).clone(),
        }))
    }
}

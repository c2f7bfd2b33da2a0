//! The workers of an endpoint, as its handles see them: one listener, one end, one sum of figures.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use courser_core::cid::INSTANCES;
use courser_core::engine::{EngineStats, TokenKeys};
use courser_core::ids::ConnKey;
use zeroize::Zeroizing;

use super::shared::{Answer, Command, IncomingInfo, Lobby, Shared};
use crate::error::{ConnectionError, HandoverError};
use crate::handover::{Handed, Handover};
use crate::net::os;
use crate::wait::lock;
use crate::worker::WorkerStats;
use crate::worker::crossing::Elder;
use crate::worker::group::Steering;
use crate::worker::machine::Relay;

/// Figures of one worker of an endpoint, as of its last turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerFigures {
    /// Its engine's counters.
    pub engine: EngineStats,
    /// Its own.
    pub worker: WorkerStats,
    /// Connections of all states.
    pub connections: usize,
    /// It has ended, for example because its socket failed: nobody serves its part of the port until the endpoint is made
    /// anew.
    pub is_gone: bool,
}

/// What a process that takes the port over needs.
pub(crate) struct Estate {
    /// Each worker's socket, and the processes before this one that it knows.
    pub(crate) sockets: Vec<(UdpSocket, Vec<Elder>)>,
    pub(crate) steering: Steering,
    pub(crate) instance: u8,
    pub(crate) reset_key: Zeroizing<[u8; 32]>,
    pub(crate) token_keys: Mutex<TokenKeys>,
}

/// The workers of an endpoint.
pub(crate) struct Crew {
    /// At least one.
    workers: Vec<Arc<Shared>>,
    lobby: Arc<Lobby>,
    /// Endpoint handles; the last one stops the workers.
    endpoints: AtomicUsize,
    /// Connections begun; workers take turns.
    dialled: AtomicUsize,
    /// Of endpoints that take connections.
    estate: Option<Estate>,
}

/// A connection that waits, and where.
pub(crate) type Arrived = (Arc<Shared>, ConnKey, IncomingInfo);

/// Sockets on their way to another process.
pub(crate) struct Handing {
    /// What each worker gives, and its answer to come.
    given: VecDeque<(Handed, os::RelayIn, Arc<Answer>)>,
    handed: Vec<Handed>,
    /// Of the process that takes over.
    instance: u8,
}

impl Crew {
    pub(crate) const fn new(workers: Vec<Arc<Shared>>, lobby: Arc<Lobby>, estate: Option<Estate>) -> Self {
        Self { workers, lobby, endpoints: AtomicUsize::new(1), dialled: AtomicUsize::new(0), estate }
    }

    /// The worker that makes the next connection.
    pub(crate) fn dialler(&self) -> &Arc<Shared> {
        &self.workers[self.dialled.fetch_add(1, Ordering::Relaxed) % self.workers.len()]
    }

    /// The first worker, which stands for all where all are the same.
    pub(crate) fn first(&self) -> &Arc<Shared> {
        &self.workers[0]
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.first().local()
    }

    pub(crate) fn add_endpoint(&self) {
        self.endpoints.fetch_add(1, Ordering::Relaxed);
    }

    /// An endpoint handle is gone; `true` when it was the last, so that the workers stop.
    pub(crate) fn drop_endpoint(&self) -> bool {
        let last = self.endpoints.fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            self.workers.iter().for_each(|worker| worker.stop());
        }
        last
    }

    pub(crate) fn poll_incoming(&self, cx: &Context<'_>) -> Poll<Result<Arrived, ConnectionError>> {
        self.lobby.poll(cx).map(|next| {
            let (worker, key, info) = next.ok_or(ConnectionError::EndpointGone)?;
            let shared = self.workers.get(usize::from(worker)).ok_or(ConnectionError::EndpointGone)?;
            Ok((Arc::clone(shared), key, info))
        })
    }

    /// Ready when no worker has a connection left.
    pub(crate) fn poll_idle(&self, cx: &Context<'_>) -> Poll<()> {
        for worker in &self.workers {
            std::task::ready!(worker.poll_idle(cx));
        }
        Poll::Ready(())
    }

    /// Each worker's figures.
    pub(crate) fn figures(&self) -> Vec<WorkerFigures> {
        let figures = |shared: &Arc<Shared>| {
            let (engine, worker, connections) = shared.stats();
            WorkerFigures { engine, worker, connections, is_gone: shared.is_gone() }
        };
        self.workers.iter().map(figures).collect()
    }

    /// The engines' counters together.
    pub(crate) fn stats(&self) -> EngineStats {
        let mut sum = EngineStats::default();
        self.workers.iter().for_each(|worker| sum += worker.stats().0);
        sum
    }

    /// No worker takes new connections any more.
    pub(crate) fn drain(&self) {
        // First nobody is let in; then workers stop answering, which they notice in their next turns.
        self.lobby.close();
        self.workers.iter().for_each(|worker| worker.drain());
    }

    /// Tells every worker.
    pub(crate) fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            worker.command(command());
        }
    }

    /// How many workers there are.
    pub(crate) const fn len(&self) -> usize {
        self.workers.len()
    }

    /// Tokens are made and taken under these keys from now on; a process that takes the port over learns them.
    pub(crate) fn set_token_keys(&self, keys: &TokenKeys) {
        if let Some(estate) = &self.estate {
            *lock(&estate.token_keys) = keys.clone();
        }
    }

    /// Asks every worker to read no more from its socket.
    pub(crate) fn begin_handing(&self) -> Result<Handing, HandoverError> {
        let estate = self.estate.as_ref().ok_or(HandoverError::NoServer)?;
        if self.workers.iter().any(|worker| worker.is_gone()) {
            return Err(HandoverError::WorkerGone);
        }
        let (mut given, mut relays, mut taken) = (VecDeque::new(), Vec::new(), vec![estate.instance]);
        for (socket, elders) in &estate.sockets {
            let (into, out) = os::relay().map_err(HandoverError::System)?;
            let living = elders.iter().filter(|elder| !elder.relay.is_gone());
            let elders: Vec<Elder> =
                living.map(Elder::try_clone).collect::<Result<_, _>>().map_err(HandoverError::System)?;
            taken.extend(elders.iter().map(|elder| elder.instance));
            let socket = socket.try_clone().map_err(HandoverError::System)?;
            given.push_back((Handed { socket, elders }, into, Arc::new(Answer::default())));
            relays.push(out);
        }
        let next = (1..INSTANCES).map(|n| (estate.instance + n) % INSTANCES).find(|n| !taken.contains(n));
        let instance = next.ok_or(HandoverError::TooManyElders)?;
        for ((worker, out), (_, _, answer)) in self.workers.iter().zip(relays).zip(&given) {
            worker.command(Command::HandOver { relay: Relay(out), answer: Arc::clone(answer) });
        }
        Ok(Handing { given, handed: Vec::new(), instance })
    }

    /// Ready when every worker has done so.
    pub(crate) fn poll_handed(&self, cx: &Context<'_>, handing: &mut Handing) -> Poll<Result<Handover, HandoverError>> {
        let Some(estate) = &self.estate else { return Poll::Ready(Err(HandoverError::NoServer)) };
        while let Some((_, _, answer)) = handing.given.front() {
            let unsettled = match answer.poll(cx) {
                Poll::Ready(cids) => cids,
                Poll::Pending if self.workers.iter().any(|worker| worker.is_gone()) => {
                    return Poll::Ready(Err(HandoverError::WorkerGone));
                }
                Poll::Pending => return Poll::Pending,
            };
            let Some((mut handed, relay, _)) = handing.given.pop_front() else { break };
            let unsettled = unsettled.into_iter().collect();
            handed.elders.push(Elder { instance: estate.instance, relay, unsettled });
            handing.handed.push(handed);
        }
        Poll::Ready(Ok(Handover {
            sockets: std::mem::take(&mut handing.handed),
            steering: estate.steering,
            instance: handing.instance,
            reset_key: estate.reset_key.clone(),
            token_keys: lock(&estate.token_keys).clone(),
        }))
    }
}

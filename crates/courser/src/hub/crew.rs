//! The workers of an endpoint, as its handles see them: one listener, one end, one sum of figures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use courser_core::engine::EngineStats;
use courser_core::ids::ConnKey;

use super::shared::{Command, IncomingInfo, Lobby, Shared};
use crate::error::{ConnectionError, EndpointError, HandoverError};
use crate::estate::{self, Estate, Handing, Order};
use crate::options::ServerOptions;
use crate::worker::WorkerStats;

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

    /// Closes every connection.
    pub(crate) fn close_all(&self) {
        (0..self.workers.len()).for_each(|worker| self.order(worker, Order::CloseAll));
    }

    fn order(&self, worker: usize, order: Order) {
        self.workers[worker].command(Command::Order(order));
    }

    /// New connections are taken by these options.
    pub(crate) fn reload(&self, options: &ServerOptions) -> Result<(), EndpointError> {
        estate::reload(self.estate.as_ref(), options, self.workers.len(), |worker, order| self.order(worker, order))
    }

    /// Asks every worker to read no more from its socket.
    pub(crate) fn begin_handing(&self) -> Result<Handing<'_>, HandoverError> {
        let estate = self.estate.as_ref().ok_or(HandoverError::NoServer)?;
        if self.workers.iter().any(|worker| worker.is_gone()) {
            return Err(HandoverError::WorkerGone);
        }
        estate.begin(|worker, order| self.order(worker, order))
    }
}

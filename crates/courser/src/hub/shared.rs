//! What handles and worker share: the inbox of the hub, and what the endpoint offers.
//!
//! The inbox is bounded: a slot stands in it at most once, a connection being made or decided over has one command.
//! Connections that wait for a decision stand in the lobby, which all workers of an endpoint have in common.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use courser_core::config::Settings;
use courser_core::engine::EngineStats;
use courser_core::ids::ConnKey;
use courser_tls as tls;
use tracing::Span;

use super::conn::ConnSlot;
use super::stream::StreamSlot;
use crate::address_tokens::ServerTokens;
use crate::estate::Order;
use crate::net::socket::Socket;
use crate::options::SocketFacts;
use crate::wait::{Waiters, Woken, lock};
use crate::worker::{Waker, WorkerStats};

/// What the engine tells of a connection that waits for a decision.
pub(crate) use courser_core::engine::Incoming as IncomingInfo;

/// Connections that wait for the application to look at them, at most; further ones are refused.
pub(super) const INCOMING_MAX: usize = 4096;
/// Commands that wait for the worker, at most, before no more connections are begun.
const COMMANDS_MAX: usize = 16_384;
/// Bytes of notes that wait for the worker, at most.
#[cfg(feature = "h3")]
const NOTE_BYTES_MAX: usize = 1 << 20;

/// A connection to be made.
pub(crate) struct Dial {
    pub(crate) slot: Arc<ConnSlot>,
    /// In the order in which to try them.
    pub(crate) addrs: VecDeque<SocketAddr>,
    pub(crate) server_name: String,
    pub(crate) tls: tls::ClientConfig,
    pub(crate) settings: Settings,
    pub(crate) attempt_delay: Duration,
    /// What the server gave earlier connections.
    pub(crate) tokens: ServerTokens,
    /// In which the application asked for it.
    pub(crate) span: Span,
}

/// What becomes of a connection that waits for a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Refuse,
    Retry,
    Ignore,
}

/// Something for the worker that belongs to no present connection.
pub(crate) enum Command {
    Dial(Box<Dial>),
    Accept {
        key: ConnKey,
        slot: Arc<ConnSlot>,
        settings: Option<Box<Settings>>,
    },
    Decide {
        key: ConnKey,
        decision: Decision,
    },
    /// Everything goes on from this socket.
    Rebind(Box<Socket>),
    /// What an operator wants.
    Order(Order),
}

/// What waits for the worker.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) streams: Vec<Arc<StreamSlot>>,
    pub(super) conns: Vec<Arc<ConnSlot>>,
    pub(super) commands: Vec<Command>,
    /// What protocols above have to say to the observer.
    pub(super) notes: Vec<(ConnKey, Vec<u8>)>,
    /// Bytes in `notes`.
    pub(super) note_bytes: usize,
    /// The worker is gone and looks no more.
    closed: bool,
}

/// What the endpoint's handles look at.
#[derive(Default)]
struct Front {
    idle: Waiters,
    /// Connections of all states, as of the last turn.
    connections: usize,
    stats: EngineStats,
    worker: WorkerStats,
    gone: bool,
}

/// Connections that wait for decisions, of all workers of an endpoint.
pub(crate) struct Lobby(Mutex<Arrivals>);

struct Arrivals {
    /// With the number of the worker that has it.
    incoming: VecDeque<(u8, ConnKey, IncomingInfo)>,
    waiters: Waiters,
    /// Workers that are not gone.
    workers: usize,
    /// No more will come.
    closed: bool,
}

impl Lobby {
    pub(crate) fn new(workers: usize) -> Self {
        Self(Mutex::new(Arrivals { incoming: VecDeque::new(), waiters: Waiters::default(), workers, closed: false }))
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Option<(u8, ConnKey, IncomingInfo)>> {
        let mut arrivals = lock(&self.0);
        if let Some(next) = arrivals.incoming.pop_front() {
            return Poll::Ready(Some(next));
        }
        if arrivals.workers == 0 || arrivals.closed {
            return Poll::Ready(None);
        }
        arrivals.waiters.add(cx);
        Poll::Pending
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).incoming.is_empty()
    }

    /// No more will come; those that are there can still be had.
    pub(super) fn close(&self) {
        let mut arrivals = lock(&self.0);
        arrivals.closed = true;
        let mut woken = Woken::default();
        arrivals.waiters.call(&mut woken);
        drop(arrivals);
    }

    fn offer(&self, worker: u8, key: ConnKey, incoming: IncomingInfo, woken: &mut Woken) -> bool {
        let mut arrivals = lock(&self.0);
        if arrivals.closed || arrivals.incoming.len() >= INCOMING_MAX {
            return false;
        }
        arrivals.incoming.push_back((worker, key, incoming));
        arrivals.waiters.call(woken);
        true
    }

    /// A worker is gone, and what waited there.
    fn leave(&self, worker: u8, woken: &mut Woken) {
        let mut arrivals = lock(&self.0);
        arrivals.incoming.retain(|(of, _, _)| *of != worker);
        arrivals.workers = arrivals.workers.saturating_sub(1);
        if arrivals.workers == 0 {
            arrivals.waiters.call(woken);
        }
    }
}

/// Shared by a hub and all handles of its endpoint.
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    /// Whether the inbox may hold something; spares the worker the lock.
    news: AtomicBool,
    front: Mutex<Front>,
    waker: OnceLock<Waker>,
    stop: AtomicBool,
    /// No new connections are taken any more.
    draining: AtomicBool,
    /// The engine has an observer that takes notes.
    traced: AtomicBool,
    lobby: Arc<Lobby>,
    /// The worker's number.
    worker: u8,
    local: Mutex<SocketAddr>,
    pub(crate) socket: SocketFacts,
    pub(crate) linger: Duration,
}

impl Shared {
    pub(crate) fn new(
        local: SocketAddr,
        socket: SocketFacts,
        linger: Duration,
        (worker, lobby): (u8, &Arc<Lobby>),
    ) -> Self {
        Self {
            inbox: Mutex::default(),
            news: AtomicBool::new(false),
            front: Mutex::default(),
            waker: OnceLock::new(),
            stop: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            traced: AtomicBool::new(false),
            lobby: Arc::clone(lobby),
            worker,
            local: Mutex::new(local),
            socket,
            linger,
        }
    }

    /// Sets what wakes the worker; once, before there are handles.
    pub(crate) fn set_waker(&self, waker: Waker) {
        let fresh = self.waker.set(waker).is_ok();
        debug_assert!(fresh, "a hub has one worker");
    }

    fn wake(&self) {
        self.news.store(true, Ordering::Release);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    pub(super) fn queue_stream(&self, slot: Arc<StreamSlot>) {
        lock(&self.inbox).streams.push(slot);
        self.wake();
    }

    pub(super) fn queue_conn(&self, slot: Arc<ConnSlot>) {
        lock(&self.inbox).conns.push(slot);
        self.wake();
    }

    /// Hands a command over; `false` when too many wait, or the worker is gone.
    pub(crate) fn command(&self, command: Command) -> bool {
        let mut inbox = lock(&self.inbox);
        if inbox.closed || matches!(command, Command::Dial(_)) && inbox.commands.len() >= COMMANDS_MAX {
            return false;
        }
        inbox.commands.push(command);
        drop(inbox);
        self.wake();
        true
    }

    /// Hands a note about a connection over to the observer; `false` when too many wait, or the worker is gone.
    #[cfg(feature = "h3")]
    pub(crate) fn note(&self, conn: &ConnSlot, note: Vec<u8>) -> bool {
        let Some(key) = conn.key() else { return false };
        let mut inbox = lock(&self.inbox);
        if inbox.closed || inbox.note_bytes + note.len() > NOTE_BYTES_MAX {
            return false;
        }
        inbox.note_bytes += note.len();
        inbox.notes.push((key, note));
        drop(inbox);
        self.wake();
        true
    }

    /// Whether an observer takes notes.
    #[cfg(feature = "h3")]
    pub(crate) fn is_traced(&self) -> bool {
        self.traced.load(Ordering::Relaxed)
    }

    pub(super) fn set_traced(&self, traced: bool) {
        self.traced.store(traced, Ordering::Relaxed);
    }

    /// Exchanges the inbox for an empty one; `false` when nothing is there.
    pub(super) fn take_inbox(&self, empty: &mut Inbox) -> bool {
        if !self.news.swap(false, Ordering::AcqRel) {
            return false;
        }
        std::mem::swap(&mut *lock(&self.inbox), empty);
        true
    }

    /// Asks the worker to close everything and to end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Asks the worker to take no new connections.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) const fn worker(&self) -> u8 {
        self.worker
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    // ---- what endpoint handles call ----

    /// The bound address.
    pub(crate) fn local(&self) -> SocketAddr {
        *lock(&self.local)
    }

    pub(crate) fn is_gone(&self) -> bool {
        lock(&self.front).gone
    }

    /// Ready when no connection is left, those included that still answer packets after their end.
    pub(crate) fn poll_idle(&self, cx: &Context<'_>) -> Poll<()> {
        let mut front = lock(&self.front);
        if front.gone || (front.connections == 0 && self.lobby.is_empty() && lock(&self.inbox).commands.is_empty()) {
            return Poll::Ready(());
        }
        front.idle.add(cx);
        Poll::Pending
    }

    pub(super) fn stats(&self) -> (EngineStats, WorkerStats, usize) {
        let front = lock(&self.front);
        (front.stats, front.worker, front.connections)
    }

    // ---- what the worker calls ----

    pub(super) fn set_local(&self, local: SocketAddr) {
        *lock(&self.local) = local;
    }

    /// Offers a connection to the application; `false` when too many wait, or nobody looks any more.
    pub(super) fn offer(&self, key: ConnKey, incoming: IncomingInfo, woken: &mut Woken) -> bool {
        self.lobby.offer(self.worker, key, incoming, woken)
    }

    /// Publishes figures at the end of a turn.
    pub(super) fn publish(&self, connections: usize, stats: (EngineStats, WorkerStats), woken: &mut Woken) {
        let mut front = lock(&self.front);
        front.connections = connections;
        (front.stats, front.worker) = stats;
        if connections == 0 {
            front.idle.call(woken);
        }
    }

    /// The worker is gone: everybody who waits is told. What waited for the worker comes back.
    pub(super) fn set_gone(&self, woken: &mut Woken) -> Inbox {
        let mut front = lock(&self.front);
        front.gone = true;
        front.idle.call(woken);
        drop(front);
        self.lobby.leave(self.worker, woken);
        std::mem::replace(&mut *lock(&self.inbox), Inbox { closed: true, ..Inbox::default() })
    }
}

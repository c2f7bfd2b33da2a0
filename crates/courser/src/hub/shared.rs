//! What handles and worker share: the inbox of the hub, and what the endpoint offers.
//!
//! The inbox is bounded: a slot stands in it at most once, a connection being made or decided over has one command.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
use crate::error::ConnectionError;
use crate::net::socket::Socket;
use crate::options::SocketFacts;
use crate::wait::{Waiters, Woken, lock};
use crate::worker::Waker;

/// What the engine tells of a connection that waits for a decision.
pub(crate) use courser_core::engine::Incoming as IncomingInfo;

/// Connections that wait for the application to look at them, at most; further ones are refused.
pub(super) const INCOMING_MAX: usize = 4096;
/// Commands that wait for the worker, at most, before no more connections are begun.
const COMMANDS_MAX: usize = 16_384;

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
}

/// What waits for the worker.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) streams: Vec<Arc<StreamSlot>>,
    pub(super) conns: Vec<Arc<ConnSlot>>,
    pub(super) commands: Vec<Command>,
}

/// What the endpoint's handles look at.
#[derive(Default)]
struct Front {
    incoming: VecDeque<(ConnKey, IncomingInfo)>,
    arrivals: Waiters,
    idle: Waiters,
    /// Connections of all states, as of the last turn.
    connections: usize,
    stats: EngineStats,
    gone: bool,
}

/// Shared by a hub and all handles of its endpoint.
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    /// Whether the inbox may hold something; spares the worker the lock.
    news: AtomicBool,
    front: Mutex<Front>,
    waker: OnceLock<Waker>,
    /// Endpoint handles; the last one stops the worker.
    endpoints: AtomicUsize,
    stop: AtomicBool,
    local: Mutex<SocketAddr>,
    pub(crate) socket: SocketFacts,
    pub(crate) linger: Duration,
}

impl Shared {
    pub(crate) fn new(local: SocketAddr, socket: SocketFacts, linger: Duration) -> Self {
        Self {
            inbox: Mutex::default(),
            news: AtomicBool::new(false),
            front: Mutex::default(),
            waker: OnceLock::new(),
            endpoints: AtomicUsize::new(1),
            stop: AtomicBool::new(false),
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

    /// Hands a command over; `false` when too many wait.
    pub(crate) fn command(&self, command: Command) -> bool {
        let mut inbox = lock(&self.inbox);
        if matches!(command, Command::Dial(_)) && inbox.commands.len() >= COMMANDS_MAX {
            return false;
        }
        inbox.commands.push(command);
        drop(inbox);
        self.wake();
        true
    }

    /// Exchanges the inbox for an empty one; `false` when nothing is there.
    pub(super) fn take_inbox(&self, empty: &mut Inbox) -> bool {
        if !self.news.swap(false, Ordering::AcqRel) {
            return false;
        }
        std::mem::swap(&mut *lock(&self.inbox), empty);
        true
    }

    pub(crate) fn add_endpoint(&self) {
        self.endpoints.fetch_add(1, Ordering::Relaxed);
    }

    /// An endpoint handle is gone; `true` when it was the last, so that the worker stops.
    pub(crate) fn drop_endpoint(&self) -> bool {
        let last = self.endpoints.fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            self.stop.store(true, Ordering::Release);
            self.wake();
        }
        last
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

    pub(crate) fn poll_incoming(&self, cx: &Context<'_>) -> Poll<Result<(ConnKey, IncomingInfo), ConnectionError>> {
        let mut front = lock(&self.front);
        if let Some(next) = front.incoming.pop_front() {
            return Poll::Ready(Ok(next));
        }
        if front.gone {
            return Poll::Ready(Err(ConnectionError::EndpointGone));
        }
        front.arrivals.add(cx);
        Poll::Pending
    }

    /// Ready when no connection is left, those included that still answer packets after their end.
    pub(crate) fn poll_idle(&self, cx: &Context<'_>) -> Poll<()> {
        let mut front = lock(&self.front);
        if front.gone || (front.connections == 0 && front.incoming.is_empty() && lock(&self.inbox).commands.is_empty())
        {
            return Poll::Ready(());
        }
        front.idle.add(cx);
        Poll::Pending
    }

    pub(crate) fn engine_stats(&self) -> EngineStats {
        lock(&self.front).stats
    }

    // ---- what the worker calls ----

    pub(super) fn set_local(&self, local: SocketAddr) {
        *lock(&self.local) = local;
    }

    /// Offers a connection to the application; `false` when too many wait.
    pub(super) fn offer(&self, key: ConnKey, incoming: IncomingInfo, woken: &mut Woken) -> bool {
        let mut front = lock(&self.front);
        if front.incoming.len() >= INCOMING_MAX {
            return false;
        }
        front.incoming.push_back((key, incoming));
        front.arrivals.call(woken);
        true
    }

    /// Publishes figures at the end of a turn.
    pub(super) fn publish(&self, connections: usize, stats: EngineStats, woken: &mut Woken) {
        let mut front = lock(&self.front);
        front.connections = connections;
        front.stats = stats;
        if connections == 0 {
            front.idle.call(woken);
        }
    }

    /// The worker is gone: everybody who waits is told. What waited for the worker comes back.
    pub(super) fn set_gone(&self, woken: &mut Woken) -> Inbox {
        let mut front = lock(&self.front);
        front.gone = true;
        front.incoming.clear();
        front.arrivals.call(woken);
        front.idle.call(woken);
        drop(front);
        std::mem::take(&mut *lock(&self.inbox))
    }
}

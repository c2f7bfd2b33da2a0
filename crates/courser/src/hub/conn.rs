//! The meeting place of a connection's handles and the worker.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use courser_core::crypto::{Exporter, Identity, Secret, Suite};
use courser_core::engine::{ConnStats, Engine};
use courser_core::ids::{ConnKey, Dir, Version};
use courser_session::handle::Handle;
use courser_tls::AwsLc;

use super::shared::Shared;
use super::stream::StreamSlot;
use crate::error::{ConnectError, ConnectionError, DatagramError};
use crate::wait::{Waiters, Woken, lock};

/// Bytes of datagrams that wait between handles and worker, each way.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// What a waiting datagram costs besides its bytes.
const DATAGRAM_OVERHEAD: usize = 64;

/// What somebody may wait for. Streams come in two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Established,
    Closed,
    AcceptBi,
    AcceptUni,
    OpenBi,
    OpenUni,
    DatagramIn,
    DatagramOut,
    Stats,
}

const TOPICS: usize = Topic::Stats as usize + 1;

impl Topic {
    const fn accept(dir: Dir) -> Self {
        match dir {
            Dir::Bi => Self::AcceptBi,
            Dir::Uni => Self::AcceptUni,
        }
    }

    const fn open(dir: Dir) -> Self {
        match dir {
            Dir::Bi => Self::OpenBi,
            Dir::Uni => Self::OpenUni,
        }
    }
}

/// What is known of a connection once its handshake is complete.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) remote: SocketAddr,
    pub(crate) version: Version,
    pub(crate) identity: Identity,
    exporter: Option<(Suite, Secret)>,
}

#[derive(Default)]
struct ConnState {
    /// There never will be a connection, for this reason.
    failed: Option<ConnectError>,
    /// The peer's streams that nobody has accepted, by direction. Bounded by the limits that the peer was told.
    accepts: [VecDeque<Arc<StreamSlot>>; 2],
    /// Streams opened for those who wait, by direction.
    opened: [VecDeque<Arc<StreamSlot>>; 2],
    /// How many wait for a stream of their own, by direction.
    openers: [usize; 2],
    datagrams_in: VecDeque<Bytes>,
    in_bytes: usize,
    /// The engine may have datagrams that found no room.
    more_in: bool,
    datagrams_out: VecDeque<Bytes>,
    out_bytes: usize,
    datagram_max: Option<usize>,
    /// The application closed, with this code and reason.
    close: Option<(u64, Vec<u8>)>,
    stats: ConnStats,
    /// Questions for figures, and how many of them were answered.
    asked: u64,
    answered: u64,
    waiters: [Waiters; TOPICS],
}

impl ConnState {
    fn woken(&mut self, topic: Topic) -> Woken {
        self.waiters[topic as usize].take()
    }
}

/// One connection, between its handles and the worker.
pub(crate) struct ConnSlot {
    pub(crate) shared: Arc<Shared>,
    key: OnceLock<(ConnKey, Handle)>,
    queued: AtomicBool,
    /// Connection and stream handles that the application has.
    handles: AtomicUsize,
    /// Received bytes that wait for readers.
    pub(super) unread: AtomicUsize,
    /// Written bytes that wait for the engine.
    pub(super) unsent: AtomicUsize,
    facts: OnceLock<Facts>,
    closed: OnceLock<ConnectionError>,
    state: Mutex<ConnState>,
}

/// A place in the line of those who wait for a stream of their own.
pub(crate) struct Opener {
    slot: Arc<ConnSlot>,
    dir: Dir,
    waiting: bool,
}

impl ConnSlot {
    /// A connection with one handle.
    pub(crate) fn new(shared: &Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(shared),
            key: OnceLock::new(),
            queued: AtomicBool::new(false),
            handles: AtomicUsize::new(1),
            unread: AtomicUsize::new(0),
            unsent: AtomicUsize::new(0),
            facts: OnceLock::new(),
            closed: OnceLock::new(),
            state: Mutex::default(),
        })
    }

    fn kick(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.shared.queue_conn(Arc::clone(self));
        }
    }

    pub(super) fn unqueue(&self) {
        self.queued.swap(false, Ordering::AcqRel);
    }

    // ---- what handles call ----

    pub(crate) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn drop_handle(self: &Arc<Self>) {
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.kick();
        }
    }

    /// Why the connection ended.
    pub(crate) fn reason(&self) -> ConnectionError {
        self.closed.get().cloned().unwrap_or(ConnectionError::EndpointGone)
    }

    pub(crate) fn close_reason(&self) -> Option<&ConnectionError> {
        self.closed.get()
    }

    pub(crate) fn facts(&self) -> Option<&Facts> {
        self.facts.get()
    }

    /// The session handle; known as soon as there is a connection.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.key.get().map(|(_, handle)| *handle)
    }

    pub(crate) fn poll_established(&self, cx: &Context<'_>) -> Poll<Result<(), ConnectError>> {
        let mut state = lock(&self.state);
        if let Some(e) = &state.failed {
            return Poll::Ready(Err(e.clone()));
        }
        if let Some(e) = self.closed.get() {
            return Poll::Ready(Err(ConnectError::Failed(e.clone())));
        }
        if self.facts.get().is_some() {
            return Poll::Ready(Ok(()));
        }
        state.waiters[Topic::Established as usize].add(cx);
        Poll::Pending
    }

    pub(crate) fn poll_closed(&self, cx: &Context<'_>) -> Poll<ConnectionError> {
        if let Some(e) = self.closed.get() {
            return Poll::Ready(e.clone());
        }
        let mut state = lock(&self.state);
        match self.closed.get() {
            Some(e) => Poll::Ready(e.clone()),
            None => {
                state.waiters[Topic::Closed as usize].add(cx);
                Poll::Pending
            }
        }
    }

    pub(crate) fn poll_accept(&self, cx: &Context<'_>, dir: Dir) -> Poll<Result<Arc<StreamSlot>, ConnectionError>> {
        let mut state = lock(&self.state);
        if let Some(slot) = state.accepts[dir as usize].pop_front() {
            return Poll::Ready(Ok(slot));
        }
        if let Some(e) = self.closed.get() {
            return Poll::Ready(Err(e.clone()));
        }
        state.waiters[Topic::accept(dir) as usize].add(cx);
        Poll::Pending
    }

    /// A place in the line for a new stream.
    pub(crate) fn opener(self: &Arc<Self>, dir: Dir) -> Opener {
        Opener { slot: Arc::clone(self), dir, waiting: false }
    }

    /// Closes; the first call counts.
    pub(crate) fn close(self: &Arc<Self>, code: u64, reason: &[u8]) {
        let mut state = lock(&self.state);
        if state.close.is_none() {
            state.close = Some((code, reason.to_vec()));
            drop(state);
            self.kick();
        }
    }

    /// Hands a datagram over; pending while the queue is full.
    pub(crate) fn poll_send_datagram(
        self: &Arc<Self>,
        cx: &Context<'_>,
        data: &Bytes,
    ) -> Poll<Result<(), DatagramError>> {
        let mut state = lock(&self.state);
        if let Some(e) = self.closed.get() {
            return Poll::Ready(Err(DatagramError::Closed(e.clone())));
        }
        let Some(max) = state.datagram_max else { return Poll::Ready(Err(DatagramError::Unsupported)) };
        if data.len() > max {
            return Poll::Ready(Err(DatagramError::TooLarge(max)));
        }
        let cost = data.len() + DATAGRAM_OVERHEAD;
        if state.out_bytes + cost > DATAGRAM_BYTES_MAX && !state.datagrams_out.is_empty() {
            state.waiters[Topic::DatagramOut as usize].add(cx);
            return Poll::Pending;
        }
        state.out_bytes += cost;
        state.datagrams_out.push_back(data.clone());
        drop(state);
        self.kick();
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_datagram(self: &Arc<Self>, cx: &Context<'_>) -> Poll<Result<Bytes, ConnectionError>> {
        let mut state = lock(&self.state);
        if let Some(data) = state.datagrams_in.pop_front() {
            state.in_bytes -= data.len() + DATAGRAM_OVERHEAD;
            let refill = state.more_in && state.in_bytes <= DATAGRAM_BYTES_MAX / 2;
            drop(state);
            if refill {
                self.kick();
            }
            return Poll::Ready(Ok(data));
        }
        if let Some(e) = self.closed.get() {
            return Poll::Ready(Err(e.clone()));
        }
        state.waiters[Topic::DatagramIn as usize].add(cx);
        Poll::Pending
    }

    pub(crate) fn datagram_max(&self) -> Option<usize> {
        lock(&self.state).datagram_max
    }

    /// Figures that are not older than the first call with this ticket. After the end: the last ones.
    pub(crate) fn poll_stats(self: &Arc<Self>, cx: &Context<'_>, ticket: &mut Option<u64>) -> Poll<ConnStats> {
        let mut state = lock(&self.state);
        let fresh = ticket.is_none();
        let mine = *ticket.get_or_insert_with(|| {
            state.asked += 1;
            state.asked
        });
        if self.closed.get().is_some() || state.answered >= mine {
            return Poll::Ready(state.stats);
        }
        state.waiters[Topic::Stats as usize].add(cx);
        drop(state);
        if fresh {
            self.kick();
        }
        Poll::Pending
    }

    /// Keying material from the TLS exporter; `false` when there is none or it cannot be so long.
    pub(crate) fn export(&self, label: &[u8], context: &[u8], out: &mut [u8]) -> bool {
        let Some((suite, secret)) = self.facts.get().and_then(|f| f.exporter.as_ref()) else { return false };
        AwsLc.export(*suite, secret, label, context, out).is_ok()
    }

    // ---- what the worker calls ----

    pub(super) fn key(&self) -> Option<ConnKey> {
        self.key.get().map(|(key, _)| *key)
    }

    /// The slot stands for this connection from now on.
    pub(super) fn bind(&self, key: ConnKey, handle: Handle) {
        let fresh = self.key.set((key, handle)).is_ok();
        debug_assert!(fresh, "a slot stands for one connection");
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.handles.load(Ordering::Acquire) == 0
    }

    /// The handshake is complete.
    pub(super) fn on_established(&self, engine: &Engine, key: ConnKey) {
        let Ok(remote) = engine.remote(key) else { return };
        let facts = Facts {
            remote,
            version: engine.version(key).unwrap_or(Version::V1),
            identity: engine.identity(key).ok().flatten().cloned().unwrap_or_default(),
            exporter: engine.exporter_secret(key).ok().map(|(suite, secret)| (suite, secret.clone())),
        };
        let mut state = lock(&self.state);
        state.datagram_max = engine.datagram_max(key).ok().flatten();
        let _ = self.facts.set(facts);
        let woken = state.woken(Topic::Established);
        drop(state);
        drop(woken);
    }

    /// There will be no connection.
    pub(super) fn on_failed(&self, e: ConnectError) {
        let mut state = lock(&self.state);
        if let ConnectError::Failed(reason) = &e {
            let _ = self.closed.set(reason.clone());
        }
        state.failed.get_or_insert(e);
        let woken: Vec<_> = state.waiters.iter_mut().map(Waiters::take).collect();
        drop(state);
        drop(woken);
    }

    /// The connection ended. `true` for the first time.
    pub(super) fn on_closed(&self, engine: Option<(&Engine, ConnKey)>, reason: ConnectionError) -> bool {
        let mut state = lock(&self.state);
        if let Some(stats) = engine.and_then(|(engine, key)| engine.conn_stats(key).ok()) {
            state.stats = stats;
        }
        let first = self.closed.set(reason).is_ok();
        state.datagrams_out.clear();
        state.out_bytes = 0;
        state.opened = Default::default();
        let woken: Vec<_> = state.waiters.iter_mut().map(Waiters::take).collect();
        drop(state);
        drop(woken);
        first
    }

    pub(super) fn push_accept(&self, dir: Dir, slot: Arc<StreamSlot>) {
        let mut state = lock(&self.state);
        state.accepts[dir as usize].push_back(slot);
        let woken = state.woken(Topic::accept(dir));
        drop(state);
        drop(woken);
    }

    /// How many streams of that direction somebody waits for.
    pub(super) fn wants_open(&self, dir: Dir) -> usize {
        let state = lock(&self.state);
        state.openers[dir as usize].saturating_sub(state.opened[dir as usize].len())
    }

    pub(super) fn push_opened(&self, dir: Dir, slots: impl Iterator<Item = Arc<StreamSlot>>) {
        let mut state = lock(&self.state);
        state.opened[dir as usize].extend(slots);
        let woken = state.woken(Topic::open(dir));
        drop(state);
        drop(woken);
    }

    pub(super) fn take_close(&self) -> Option<(u64, Vec<u8>)> {
        lock(&self.state).close.take()
    }

    /// Moves datagrams both ways and answers questions for figures. `true` when datagrams are left that the engine has no
    /// room for.
    pub(super) fn pump(&self, engine: &mut Engine, key: ConnKey) -> bool {
        let mut state = lock(&self.state);
        let mut woken = Vec::new();
        let waiting = state.datagrams_out.len();
        let mut full = false;
        while let Some(data) = state.datagrams_out.pop_front() {
            if let Ok(None) = engine.send_datagram(key, data.clone()) {
                state.datagrams_out.push_front(data);
                full = true;
                break;
            }
            // A datagram that became too large while it waited is lost, as any datagram may be.
            state.out_bytes -= data.len() + DATAGRAM_OVERHEAD;
        }
        if state.datagrams_out.len() < waiting {
            woken.push(state.woken(Topic::DatagramOut));
        }
        if let Ok(max) = engine.datagram_max(key)
            && self.facts.get().is_some()
        {
            state.datagram_max = max;
        }
        if fetch_datagrams(&mut state, engine, key) {
            woken.push(state.woken(Topic::DatagramIn));
        }
        if state.answered < state.asked {
            state.answered = state.asked;
            if let Ok(stats) = engine.conn_stats(key) {
                state.stats = stats;
            }
            woken.push(state.woken(Topic::Stats));
        }
        drop(state);
        drop(woken);
        full
    }
}

/// Takes datagrams out of the engine while there is room; whether any came.
fn fetch_datagrams(state: &mut ConnState, engine: &mut Engine, key: ConnKey) -> bool {
    let before = state.datagrams_in.len();
    loop {
        if state.in_bytes >= DATAGRAM_BYTES_MAX {
            state.more_in = true;
            break;
        }
        let Ok(Some(data)) = engine.read_datagram(key) else {
            state.more_in = false;
            break;
        };
        state.in_bytes += data.len() + DATAGRAM_OVERHEAD;
        state.datagrams_in.push_back(data);
    }
    state.datagrams_in.len() > before
}

impl Opener {
    /// The next stream that was opened here. An opener that is dropped while it waits leaves its stream to the next one.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Arc<StreamSlot>, ConnectionError>> {
        let mut state = lock(&self.slot.state);
        let dir = self.dir as usize;
        if let Some(e) = self.slot.closed.get() {
            return Poll::Ready(Err(e.clone()));
        }
        // Who has not waited takes only what no waiter counts on.
        if (self.waiting || state.opened[dir].len() > state.openers[dir])
            && let Some(slot) = state.opened[dir].pop_front()
        {
            state.openers[dir] -= usize::from(std::mem::take(&mut self.waiting));
            return Poll::Ready(Ok(slot));
        }
        state.waiters[Topic::open(self.dir) as usize].add(cx);
        if !std::mem::replace(&mut self.waiting, true) {
            state.openers[dir] += 1;
            drop(state);
            self.slot.kick();
        }
        Poll::Pending
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        if self.waiting {
            lock(&self.slot.state).openers[self.dir as usize] -= 1;
        }
    }
}

//! The meeting place of a connection's handles and the worker.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use courser_core::crypto::{Exporter, Identity, Secret, Suite};
use courser_core::engine::{ConnStats, EarlyData, Engine};
use courser_core::ids::{ConnKey, Dir, Side, Version};
use courser_core::spans::Fate;
use courser_session::handle::Handle;
use courser_tls::AwsLc;

use super::open::{Opener, Openings};
use super::shared::Shared;
use super::stream::StreamSlot;
use crate::error::{ConnectError, ConnectionError, DatagramError, DatagramFate};
use crate::wait::{Waiters, Woken, lock};

/// Bytes of datagrams that wait between handles and worker, each way.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Fates of datagrams that wait between worker and handles; further ones wait in the engine.
const FATES_MAX: usize = 256;
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
    DatagramFate,
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

    pub(super) const fn open(dir: Dir) -> Self {
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
pub(super) struct ConnState {
    /// There never will be a connection, for this reason.
    failed: Option<ConnectError>,
    /// The peer's streams that nobody has accepted, by direction. Bounded by the limits that the peer was told.
    accepts: [VecDeque<Arc<StreamSlot>>; 2],
    /// Streams that are opened here, by direction.
    pub(super) openings: [Openings; 2],
    datagrams_in: VecDeque<Bytes>,
    in_bytes: usize,
    /// The engine may have datagrams that found no room.
    more_in: bool,
    /// With the tags of those whose fate was asked for.
    datagrams_out: VecDeque<(Bytes, Option<u64>)>,
    out_bytes: usize,
    datagram_max: Option<usize>,
    fates: VecDeque<(u64, DatagramFate)>,
    /// The engine may have fates that found no room.
    more_fates: bool,
    /// Whether the peer takes resets that still deliver the beginning of a stream.
    can_reset_at: bool,
    /// Where 0-RTT stands.
    early: EarlyData,
    /// The connection was given to the application before the handshake was complete.
    given_early: bool,
    /// Where the peer is now, when it has moved.
    moved: Option<SocketAddr>,
    /// The application closed, with this code and reason.
    close: Option<(u64, Vec<u8>)>,
    /// With which code to close once the peer has all that was finished.
    part: Option<u64>,
    stats: ConnStats,
    /// Questions for figures, and how many of them were answered.
    asked: u64,
    answered: u64,
    pub(super) waiters: [Waiters; TOPICS],
}

impl ConnState {
    fn call(&mut self, topic: Topic, woken: &mut Woken) {
        self.waiters[topic as usize].call(woken);
    }

    fn call_all(&mut self, woken: &mut Woken) {
        self.waiters.iter_mut().for_each(|w| w.call(woken));
    }
}

/// One connection, between its handles and the worker.
pub(crate) struct ConnSlot {
    pub(crate) shared: Arc<Shared>,
    key: OnceLock<(ConnKey, Handle, Side)>,
    queued: AtomicBool,
    /// Connection and stream handles that the application has.
    handles: AtomicUsize,
    /// Received bytes that wait for readers.
    pub(super) unread: AtomicUsize,
    /// Written bytes that wait for the engine.
    pub(super) unsent: AtomicUsize,
    facts: OnceLock<Facts>,
    /// The application wants the connection as soon as 0-RTT can go either way: at a client the name of the server, which TLS
    /// keeps tickets by, otherwise an empty one.
    early_for: Option<Box<str>>,
    closed: OnceLock<ConnectionError>,
    pub(super) state: Mutex<ConnState>,
}

impl ConnSlot {
    /// A connection with one handle.
    pub(crate) fn new(shared: &Arc<Shared>, early_for: Option<Box<str>>) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(shared),
            key: OnceLock::new(),
            queued: AtomicBool::new(false),
            handles: AtomicUsize::new(1),
            unread: AtomicUsize::new(0),
            unsent: AtomicUsize::new(0),
            facts: OnceLock::new(),
            early_for,
            closed: OnceLock::new(),
            state: Mutex::default(),
        })
    }

    pub(super) fn kick(self: &Arc<Self>) {
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
        self.key.get().map(|(_, handle, _)| *handle)
    }

    /// Ready when the handshake is complete, or before where the application takes a connection early.
    pub(crate) fn poll_given(&self, cx: &Context<'_>) -> Poll<Result<(), ConnectError>> {
        if self.early_for.is_some() && lock(&self.state).given_early {
            return Poll::Ready(Ok(()));
        }
        self.poll_established(cx)
    }

    pub(crate) fn poll_established(&self, cx: &Context<'_>) -> Poll<Result<(), ConnectError>> {
        let mut state = lock(&self.state);
        if let Some(e) = &state.failed {
            return Poll::Ready(Err(e.clone()));
        }
        if self.facts.get().is_some() {
            // Also when it has ended since: what the peer sent before can be read.
            return Poll::Ready(Ok(()));
        }
        if let Some(e) = self.closed.get() {
            return Poll::Ready(Err(ConnectError::Failed(e.clone())));
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
        Opener::new(Arc::clone(self), dir)
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

    /// Closes once the peer has everything of the streams that were finished; the first call counts.
    #[cfg(feature = "h3")]
    pub(crate) fn part(self: &Arc<Self>, code: u64) {
        lock(&self.state).part.get_or_insert(code);
        self.kick();
    }

    /// Hands a datagram over; pending while the queue is full.
    pub(crate) fn poll_send_datagram(
        self: &Arc<Self>,
        cx: &Context<'_>,
        data: &Bytes,
        tag: Option<u64>,
    ) -> Poll<Result<(), DatagramError>> {
        let mut state = lock(&self.state);
        match self.queue_datagram(&mut state, data, tag) {
            Ok(false) => {
                state.waiters[Topic::DatagramOut as usize].add(cx);
                return Poll::Pending;
            }
            Ok(true) => {}
            Err(e) => return Poll::Ready(Err(e)),
        }
        drop(state);
        self.kick();
        Poll::Ready(Ok(()))
    }

    /// Hands a datagram over; `false` when the queue is full.
    pub(crate) fn try_send_datagram(self: &Arc<Self>, data: &Bytes, tag: Option<u64>) -> Result<bool, DatagramError> {
        let taken = self.queue_datagram(&mut lock(&self.state), data, tag)?;
        if taken {
            self.kick();
        }
        Ok(taken)
    }

    fn queue_datagram(&self, state: &mut ConnState, data: &Bytes, tag: Option<u64>) -> Result<bool, DatagramError> {
        if let Some(e) = self.closed.get() {
            return Err(DatagramError::Closed(e.clone()));
        }
        let max = state.datagram_max.ok_or(DatagramError::Unsupported)?;
        if data.len() > max {
            return Err(DatagramError::TooLarge(max));
        }
        let cost = data.len() + DATAGRAM_OVERHEAD;
        if state.out_bytes + cost > DATAGRAM_BYTES_MAX && !state.datagrams_out.is_empty() {
            return Ok(false);
        }
        state.out_bytes += cost;
        state.datagrams_out.push_back((data.clone(), tag));
        Ok(true)
    }

    /// The next fate of a datagram that was sent with a tag.
    pub(crate) fn poll_fate(self: &Arc<Self>, cx: &Context<'_>) -> Poll<Result<(u64, DatagramFate), ConnectionError>> {
        let mut state = lock(&self.state);
        if let Some(fate) = state.fates.pop_front() {
            let refill = state.more_fates && state.fates.len() <= FATES_MAX / 2;
            drop(state);
            if refill {
                self.kick();
            }
            return Poll::Ready(Ok(fate));
        }
        if let Some(e) = self.closed.get() {
            return Poll::Ready(Err(e.clone()));
        }
        state.waiters[Topic::DatagramFate as usize].add(cx);
        Poll::Pending
    }

    /// Whether the peer takes resets that still deliver the beginning of a stream.
    pub(crate) fn can_reset_at(&self) -> bool {
        lock(&self.state).can_reset_at
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
        self.key.get().map(|(key, ..)| *key)
    }

    /// The slot stands for this connection from now on.
    pub(super) fn bind(&self, key: ConnKey, handle: Handle, side: Side) {
        let fresh = self.key.set((key, handle, side)).is_ok();
        debug_assert!(fresh, "a slot stands for one connection");
    }

    /// Which end of the connection this is; known with the key.
    pub(super) fn side(&self) -> Option<Side> {
        self.key.get().map(|(.., side)| *side)
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.handles.load(Ordering::Acquire) == 0
    }

    /// The handshake is complete.
    pub(super) fn on_established(&self, engine: &Engine, key: ConnKey, woken: &mut Woken) {
        let Ok(remote) = engine.remote(key) else { return };
        let facts = Facts {
            remote,
            version: engine.version(key).unwrap_or(Version::V1),
            identity: engine.identity(key).ok().flatten().cloned().unwrap_or_default(),
            exporter: engine.exporter_secret(key).ok().map(|(suite, secret)| (suite, secret.clone())),
        };
        let mut state = lock(&self.state);
        state.datagram_max = engine.datagram_max(key).ok().flatten();
        state.can_reset_at = engine.can_reset_at(key) == Ok(true);
        let _ = self.facts.set(facts);
        for dir in [Dir::Bi, Dir::Uni] {
            state.openings[dir as usize].set_room(engine.open_room(key, dir).unwrap_or(0));
        }
        state.call(Topic::Established, woken);
    }

    pub(super) const fn takes_early(&self) -> bool {
        self.early_for.is_some()
    }

    /// The server that a connection of this end was asked for, when it is wanted early.
    #[cfg(feature = "h3")]
    pub(crate) fn early_for(&self) -> Option<&str> {
        self.early_for.as_deref()
    }

    pub(crate) fn is_established(&self) -> bool {
        self.facts.get().is_some()
    }

    /// Where 0-RTT stands.
    pub(crate) fn early_data(&self) -> EarlyData {
        lock(&self.state).early
    }

    /// 0-RTT can go, or came, or was answered.
    pub(super) fn on_early(&self, engine: &Engine, key: ConnKey, early: EarlyData, woken: &mut Woken) {
        let mut state = lock(&self.state);
        state.early = early;
        state.given_early = true;
        state.moved = state.moved.or(engine.remote(key).ok());
        state.datagram_max = engine.datagram_max(key).ok().flatten();
        state.can_reset_at = engine.can_reset_at(key) == Ok(true);
        for dir in [Dir::Bi, Dir::Uni] {
            state.openings[dir as usize].set_room(engine.open_room(key, dir).unwrap_or(0));
        }
        state.call(Topic::Established, woken);
    }

    /// The peer is at another address.
    pub(super) fn on_moved(&self, remote: SocketAddr) {
        lock(&self.state).moved = Some(remote);
    }

    /// Where the peer is.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        let moved = lock(&self.state).moved;
        moved.or_else(|| self.facts().map(|f| f.remote))
    }

    /// There will be no connection.
    pub(super) fn on_failed(&self, e: ConnectError, woken: &mut Woken) {
        let mut state = lock(&self.state);
        if let ConnectError::Failed(reason) = &e {
            let _ = self.closed.set(reason.clone());
        }
        state.failed.get_or_insert(e);
        state.call_all(woken);
    }

    /// The connection ended.
    pub(super) fn on_closed(&self, engine: &Engine, key: ConnKey, reason: ConnectionError, woken: &mut Woken) {
        let mut state = lock(&self.state);
        if let Ok(stats) = engine.conn_stats(key) {
            state.stats = stats;
        }
        // The first reason counts.
        let _ = self.closed.set(reason);
        state.datagrams_out.clear();
        state.out_bytes = 0;
        state.call_all(woken);
    }

    pub(super) fn push_accept(&self, dir: Dir, slot: Arc<StreamSlot>, woken: &mut Woken) {
        let mut state = lock(&self.state);
        state.accepts[dir as usize].push_back(slot);
        state.call(Topic::accept(dir), woken);
    }

    /// Takes the streams that handles began and the engine has not opened, in order.
    pub(super) fn take_begun(&self, dir: Dir, into: &mut Vec<Arc<StreamSlot>>) {
        into.append(&mut lock(&self.state).openings[dir as usize].begun);
    }

    /// Tells how many more streams the engine would open now. `true` when somebody waits in vain.
    pub(super) fn set_room(&self, dir: Dir, room: u64, woken: &mut Woken) -> bool {
        let mut state = lock(&self.state);
        if state.openings[dir as usize].set_room(room) {
            state.call(Topic::open(dir), woken);
        }
        state.openings[dir as usize].is_short()
    }

    pub(super) fn parts_with(&self) -> Option<u64> {
        lock(&self.state).part
    }

    /// How the connection is to end: now, or with which code once everything is delivered.
    pub(super) fn take_close(&self) -> (Option<(u64, Vec<u8>)>, Option<u64>) {
        let mut state = lock(&self.state);
        (state.close.take(), state.part)
    }

    /// Moves datagrams and their fates, and answers questions for figures. Where the engine has no room for a datagram it
    /// tells when it has.
    pub(super) fn pump(&self, engine: &mut Engine, key: ConnKey, woken: &mut Woken) {
        let mut state = lock(&self.state);
        let waiting = state.datagrams_out.len();
        let fates = state.fates.len();
        while let Some((data, tag)) = state.datagrams_out.pop_front() {
            let len = data.len();
            match engine.send_datagram(key, data.clone(), tag) {
                Ok(true) => {}
                Ok(false) => {
                    state.datagrams_out.push_front((data, tag));
                    break;
                }
                // A datagram that became too large while it waited is lost, as any datagram may be.
                Err(_) => state.fates.extend(tag.map(|tag| (tag, DatagramFate::Lost))),
            }
            state.out_bytes -= len + DATAGRAM_OVERHEAD;
        }
        if state.datagrams_out.len() < waiting {
            state.call(Topic::DatagramOut, woken);
        }
        if let Ok(max) = engine.datagram_max(key)
            && self.facts.get().is_some()
        {
            state.datagram_max = max;
        }
        fetch_fates(&mut state, engine, key);
        if state.fates.len() > fates {
            state.call(Topic::DatagramFate, woken);
        }
        if fetch_datagrams(&mut state, engine, key) {
            state.call(Topic::DatagramIn, woken);
        }
        if state.answered < state.asked {
            state.answered = state.asked;
            if let Ok(stats) = engine.conn_stats(key) {
                state.stats = stats;
            }
            state.call(Topic::Stats, woken);
        }
    }
}

/// Takes fates of datagrams out of the engine while there is room.
fn fetch_fates(state: &mut ConnState, engine: &mut Engine, key: ConnKey) {
    state.more_fates = true;
    while state.fates.len() < FATES_MAX {
        let Ok(Some((tag, fate))) = engine.poll_datagram_fate(key) else {
            state.more_fates = false;
            return;
        };
        let fate = if fate == Fate::Acked { DatagramFate::Acknowledged } else { DatagramFate::Lost };
        state.fates.push_back((tag, fate));
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

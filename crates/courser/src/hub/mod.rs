//! The hub: where the sessions of an application meet their engine.
//!
//! A hub owns an engine and runs in its worker's turns ([`Hub`] is the worker's machine). Handles of both faces never
//! touch the engine. They change a *slot* (one per connection and stream, with queues of owned bytes) and put it into the
//! hub's inbox, where it stands at most once; the hub moves bytes between slots and engine, turns the engine's events into
//! states of slots, and wakes who waits, at most once per slot and turn.
//!
//! | File | What it holds |
//! |---|---|
//! | `shared` | inbox, commands, what an endpoint offers |
//! | `conn`, `stream` | slots: what handles call above, what the worker calls below |
//! | `dial` | racing the addresses of a name |
//!
//! **Bounds.** A stream holds a window of bytes each way, a connection a budget for all of its streams; streams that nobody
//! accepted are bounded by what the peer was told, connections that wait for a decision by a constant. Events cannot
//! overflow: they are states.
//!
//! **Ends.** A connection without handles is closed with code 0 as soon as the peer has every finished stream, or after
//! the linger time. A hub whose endpoint is gone closes everything at once. Whoever waits is told in all cases.

pub(crate) mod conn;
mod dial;
pub(crate) mod shared;
pub(crate) mod stream;

use std::collections::HashMap;
use std::sync::Arc;

use courser_core::engine::{Engine, Event, Meta, SendOutcome, Train, TrainMeta};
use courser_core::error::CloseReason;
use courser_core::ids::{ConnKey, Dir, Side, StreamId};
use courser_core::stream::StreamEvent;
use courser_core::time::Instant;
use courser_session::handle::{Handle, HandleTable, Kind};

use self::conn::ConnSlot;
use self::dial::Race;
use self::shared::{Command, Decision, Inbox, Shared};
use self::stream::StreamSlot;
use crate::error::{ConnectError, ConnectionError};
use crate::worker::machine::Machine;

/// Sessions of one hub, at most.
const SESSIONS_MAX: u32 = 1 << 24;

/// What a session handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Connection(ConnKey),
    Stream(ConnKey, StreamId),
}

/// A connection that the hub knows.
struct Conn {
    slot: Arc<ConnSlot>,
    handle: Handle,
    side: Side,
    streams: HashMap<StreamId, Arc<StreamSlot>>,
    /// Without handles; closed at that time at the latest.
    linger: Option<Instant>,
}

/// An engine and the sessions of its application.
pub struct Hub {
    engine: Engine,
    shared: Arc<Shared>,
    sessions: HandleTable<Session>,
    conns: HashMap<ConnKey, Conn>,
    /// Connection attempts, and the races that they belong to.
    attempts: HashMap<ConnKey, u64>,
    races: HashMap<u64, Race>,
    next_race: u64,
    /// Connections without handles.
    lingering: Vec<ConnKey>,
    /// Connections whose datagrams found no room in the engine.
    backlog: Vec<ConnKey>,
    /// Emptied, kept for its memory.
    scratch: Inbox,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Everything was closed; what remains is to say so.
    Stopping,
    /// Nothing is left to be sent.
    Stopped,
}

impl Machine for Hub {
    fn receive(&mut self, now: Instant, meta: &Meta, train: &mut [u8]) {
        self.engine.receive(now, meta, train);
    }

    fn process(&mut self, now: Instant) {
        self.engine.process(now);
        self.serve(now);
    }

    fn fill(&mut self, now: Instant, out: &mut Train) -> Option<TrainMeta> {
        let train = self.engine.fill(now, out);
        if train.is_none() && self.phase == Phase::Stopping {
            self.phase = Phase::Stopped;
        }
        train
    }

    fn sent(&mut self, now: Instant, train: &TrainMeta, outcome: SendOutcome) {
        self.engine.sent(now, train, outcome);
    }

    fn deadline(&self) -> Option<Instant> {
        if self.phase != Phase::Running {
            return Some(Instant::ZERO);
        }
        let races = self.races.values().filter_map(Race::deadline);
        let lingers = self.lingering.iter().filter_map(|key| self.conns.get(key)?.linger);
        races.chain(lingers).chain(self.engine.deadline()).min()
    }
}

impl Hub {
    pub(crate) fn new(engine: Engine, shared: Arc<Shared>) -> Self {
        Self {
            engine,
            shared,
            sessions: HandleTable::new(0, SESSIONS_MAX),
            conns: HashMap::new(),
            attempts: HashMap::new(),
            races: HashMap::new(),
            next_race: 0,
            lingering: Vec::new(),
            backlog: Vec::new(),
            scratch: Inbox::default(),
            phase: Phase::Running,
        }
    }

    /// Whether the endpoint is gone and the peers were told, so that the worker can end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// The application's part of a turn.
    fn serve(&mut self, now: Instant) {
        self.serve_inbox(now);
        self.serve_events(now);
        self.serve_incoming();
        self.serve_timers(now);
        if self.phase == Phase::Running && self.shared.is_stopping() {
            self.stop(now);
        }
        self.shared.publish(self.engine.connections() + self.races.len(), self.engine.stats());
    }

    fn serve_inbox(&mut self, now: Instant) {
        let mut inbox = std::mem::take(&mut self.scratch);
        if self.shared.take_inbox(&mut inbox) {
            // Streams first: what was written before a close is handed over before it.
            for slot in inbox.streams.drain(..) {
                slot.unqueue();
                self.serve_stream(&slot);
            }
            for slot in inbox.conns.drain(..) {
                slot.unqueue();
                self.serve_conn(now, &slot);
            }
            for command in inbox.commands.drain(..) {
                self.obey(now, command);
            }
        }
        self.scratch = inbox;
        for key in std::mem::take(&mut self.backlog) {
            if let Some(conn) = self.conns.get(&key)
                && conn.slot.pump(&mut self.engine, key)
            {
                self.backlog.push(key);
            }
        }
    }

    /// A stream's handles did something.
    fn serve_stream(&mut self, slot: &Arc<StreamSlot>) {
        let Some(key) = slot.conn.key() else { return };
        let Some(conn) = self.conns.get(&key) else { return };
        if slot.id.sends(conn.side) {
            slot.pump_send(&mut self.engine, key);
        }
        if slot.id.receives(conn.side) {
            slot.pump_recv(&mut self.engine, key, false);
        }
        self.forget_if_over(key, slot.id);
    }

    /// A connection's handles did something.
    fn serve_conn(&mut self, now: Instant, slot: &Arc<ConnSlot>) {
        let Some(key) = slot.key() else {
            if slot.is_abandoned() {
                self.abandon_race(now, slot);
            }
            return;
        };
        if !self.conns.contains_key(&key) {
            return;
        }
        self.open_streams(key, Dir::Bi);
        self.open_streams(key, Dir::Uni);
        if slot.pump(&mut self.engine, key) && !self.backlog.contains(&key) {
            self.backlog.push(key);
        }
        if let Some((code, reason)) = slot.take_close() {
            // A code that cannot be is refused by the faces.
            let _ = self.engine.close(now, key, code, &reason);
        } else if slot.is_abandoned() {
            self.linger(now, key);
        }
    }

    /// A connection has no handles any more.
    fn linger(&mut self, now: Instant, key: ConnKey) {
        let until = now + self.shared.linger;
        let Some(conn) = self.conns.get_mut(&key) else { return };
        if conn.linger.is_none() {
            conn.linger = Some(until);
            self.lingering.push(key);
        }
        self.close_if_idle(now, key);
    }

    /// Closes a lingering connection that nobody needs any more.
    fn close_if_idle(&mut self, now: Instant, key: ConnKey) {
        let Some(conn) = self.conns.get(&key) else { return };
        let Some(until) = conn.linger else { return };
        if until <= now || !conn.streams.values().any(|s| s.is_unacked()) {
            let _ = self.engine.close(now, key, 0, b"");
        }
    }

    fn obey(&mut self, now: Instant, command: Command) {
        match command {
            Command::Dial(dial) => self.begin_race(now, *dial),
            Command::Accept { key, slot, settings } => match self.engine.accept(now, key, settings.as_deref()) {
                Ok(()) => self.adopt(now, key, slot, Side::Server),
                Err(_) => slot.on_failed(ConnectError::Failed(ConnectionError::Closed(CloseReason::Internal(
                    "the first packets were not authentic",
                )))),
            },
            Command::Decide { key, decision } => {
                // It may have gone meanwhile; then nothing is to be answered.
                let _ = match decision {
                    Decision::Refuse => self.engine.refuse(key),
                    // Faces offer a retry only to those whose address is not proven.
                    Decision::Retry => self.engine.retry(key).or_else(|_| self.engine.refuse(key)),
                    Decision::Ignore => self.engine.ignore(key),
                };
            }
        }
    }

    /// Takes a connection of the engine into the books.
    fn adopt(&mut self, now: Instant, key: ConnKey, slot: Arc<ConnSlot>, side: Side) {
        let Ok(handle) = self.sessions.insert(Kind::Connection, Session::Connection(key)) else {
            return slot.on_failed(ConnectError::TooMany);
        };
        slot.bind(key, handle);
        let abandoned = slot.is_abandoned();
        self.conns.insert(key, Conn { slot: Arc::clone(&slot), handle, side, streams: HashMap::new(), linger: None });
        if abandoned {
            // Its handle went before there was a key; nobody calls again.
            self.linger(now, key);
        }
    }

    fn serve_events(&mut self, now: Instant) {
        while let Some((key, event)) = self.engine.poll_event() {
            if self.attempts.contains_key(&key) {
                self.on_attempt_event(now, key, event);
                continue;
            }
            match event {
                Event::Connected => {
                    if let Some(conn) = self.conns.get(&key) {
                        conn.slot.on_established(&self.engine, key);
                    }
                }
                Event::Stream(event) => self.on_stream_event(now, key, event),
                Event::DatagramReceived => {
                    if let Some(conn) = self.conns.get(&key) {
                        conn.slot.pump(&mut self.engine, key);
                    }
                }
                Event::Closed(reason) => self.on_closed(key, reason),
                _ => {}
            }
        }
    }

    fn on_stream_event(&mut self, now: Instant, key: ConnKey, event: StreamEvent) {
        let id = match event {
            StreamEvent::Opened { dir } => return self.accept_streams(key, dir),
            StreamEvent::Available { dir } => return self.open_streams(key, dir),
            StreamEvent::Readable(id) | StreamEvent::Writable(id) | StreamEvent::AllAcked(id) => id,
            StreamEvent::Stopped { id, .. } => id,
        };
        let Some(conn) = self.conns.get(&key) else { return };
        let Some(slot) = conn.streams.get(&id) else { return };
        match event {
            StreamEvent::Readable(_) => slot.pump_recv(&mut self.engine, key, false),
            StreamEvent::Writable(_) => slot.pump_send(&mut self.engine, key),
            StreamEvent::AllAcked(_) => slot.on_acked(),
            StreamEvent::Stopped { code, .. } => slot.on_stopped(code),
            StreamEvent::Opened { .. } | StreamEvent::Available { .. } => {}
        }
        let lingers = conn.linger.is_some();
        self.forget_if_over(key, id);
        if lingers {
            self.close_if_idle(now, key);
        }
    }

    /// Enters a stream into the books; `None` when they are full.
    fn enter(&mut self, key: ConnKey, id: StreamId) -> Option<Arc<StreamSlot>> {
        let conn = self.conns.get_mut(&key)?;
        let handle = self.sessions.insert(Kind::Stream, Session::Stream(key, id)).ok()?;
        let slot = StreamSlot::new(Arc::clone(&conn.slot), id, handle);
        conn.streams.insert(id, Arc::clone(&slot));
        Some(slot)
    }

    /// Passes on the streams that the peer opened.
    fn accept_streams(&mut self, key: ConnKey, dir: Dir) {
        while let Ok(Some(id)) = self.engine.accept_stream(key, dir) {
            let Some(slot) = self.enter(key, id) else {
                let _ = self.engine.stop_sending(key, id, 0);
                let _ = self.engine.reset(key, id, 0);
                continue;
            };
            slot.pump_recv(&mut self.engine, key, false);
            slot.conn.push_accept(dir, Arc::clone(&slot));
            self.forget_if_over(key, id);
        }
    }

    /// Opens streams for those who wait, as far as the peer lets us.
    fn open_streams(&mut self, key: ConnKey, dir: Dir) {
        let Some(conn) = self.conns.get(&key) else { return };
        let slot = Arc::clone(&conn.slot);
        let mut opened = Vec::new();
        for _ in 0..slot.wants_open(dir) {
            let Ok(Some(id)) = self.engine.open_stream(key, dir) else { break };
            let Some(stream) = self.enter(key, id) else {
                let _ = self.engine.reset(key, id, 0);
                break;
            };
            opened.push(stream);
        }
        if !opened.is_empty() {
            slot.push_opened(dir, opened.into_iter());
        }
    }

    /// Drops a stream from the books when nothing more can happen to it.
    fn forget_if_over(&mut self, key: ConnKey, id: StreamId) {
        let Some(conn) = self.conns.get_mut(&key) else { return };
        if let Some(slot) = conn.streams.get(&id)
            && slot.is_over(conn.side)
        {
            let removed = self.sessions.remove(slot.handle);
            debug_assert!(removed.is_ok(), "a stream in the books has a session");
            conn.streams.remove(&id);
        }
    }

    /// A connection ended: what the peer sent before can still be read, everybody who waits is told.
    fn on_closed(&mut self, key: ConnKey, reason: CloseReason) {
        if !matches!(reason, CloseReason::LocalApplication { .. }) {
            self.accept_streams(key, Dir::Bi);
            self.accept_streams(key, Dir::Uni);
            if let Some(conn) = self.conns.get(&key) {
                for (id, slot) in &conn.streams {
                    if id.receives(conn.side) {
                        slot.pump_recv(&mut self.engine, key, true);
                    }
                }
                conn.slot.pump(&mut self.engine, key);
            }
        }
        self.end(key, ConnectionError::Closed(reason));
    }

    /// Takes a connection out of the books.
    fn end(&mut self, key: ConnKey, reason: ConnectionError) {
        let Some(conn) = self.conns.remove(&key) else { return };
        self.lingering.retain(|k| *k != key);
        // First the reason, then those who will ask for it.
        conn.slot.on_closed(Some((&self.engine, key)), reason);
        for slot in conn.streams.values() {
            slot.on_lost();
            let _ = self.sessions.remove(slot.handle);
        }
        let _ = self.sessions.remove(conn.handle);
    }

    fn serve_incoming(&mut self) {
        while let Some((key, incoming)) = self.engine.poll_incoming() {
            if self.phase != Phase::Running || !self.shared.offer(key, incoming) {
                let _ = self.engine.refuse(key);
            }
        }
    }

    fn serve_timers(&mut self, now: Instant) {
        self.serve_races(now);
        let due = |hub: &Self, key: &ConnKey| hub.conns.get(key).and_then(|c| c.linger).is_some_and(|at| at <= now);
        if self.lingering.iter().any(|key| due(self, key)) {
            for key in self.lingering.clone() {
                self.close_if_idle(now, key);
            }
        }
    }

    /// The endpoint is gone: everything is closed.
    fn stop(&mut self, now: Instant) {
        self.phase = Phase::Stopping;
        self.engine.set_cooldown(true);
        let keys: Vec<ConnKey> = self.engine.keys().collect();
        for key in keys {
            let _ = self.engine.close(now, key, 0, b"");
        }
        self.fail_races(&ConnectionError::EndpointGone);
        self.serve_events(now);
    }

    /// The worker ends, for whatever reason: whoever waits is told.
    fn shut_down(&mut self) {
        let left = self.shared.set_gone();
        for command in left.commands {
            match command {
                Command::Dial(dial) => dial.slot.on_failed(ConnectionError::EndpointGone.into()),
                Command::Accept { slot, .. } => slot.on_failed(ConnectionError::EndpointGone.into()),
                Command::Decide { .. } => {}
            }
        }
        self.fail_races(&ConnectionError::EndpointGone);
        let keys: Vec<ConnKey> = self.conns.keys().copied().collect();
        for key in keys {
            self.end(key, ConnectionError::EndpointGone);
        }
        debug_assert!(self.sessions.is_empty(), "every session ended");
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shut_down();
    }
}

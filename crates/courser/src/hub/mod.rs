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
//! | `crew` | the workers of an endpoint |
//! | `conn`, `stream` | slots: what handles call above, what the worker calls below |
//! | `open` | opening streams without asking the worker |
//! | `blocks` | memory for received bytes |
//! | `dial` | racing the addresses of a name |
//! | `ends` | what is told when a connection, or the hub, ends |
//!
//! **Bounds.** A stream holds a window of bytes each way, a connection a budget for all of its streams; streams that nobody
//! accepted are bounded by what the peer was told, connections that wait for a decision by a constant. Events cannot
//! overflow: they are states.
//!
//! **Ends.** A connection without handles is closed with code 0 as soon as the peer has every finished stream, or after
//! the linger time. A hub whose endpoint is gone closes everything at once. Whoever waits is told in all cases.

mod blocks;
pub(crate) mod conn;
pub(crate) mod crew;
mod dial;
mod ends;
mod keyed;
mod open;
pub(crate) mod shared;
pub(crate) mod stream;

use std::sync::Arc;
use std::time::Duration;

use courser_core::engine::{EarlyData, Engine, Event, Meta, SendOutcome, Train, TrainMeta};
use courser_core::error::CloseReason;
use courser_core::ids::{ConnKey, Dir, Side, StreamId};
use courser_core::stream::StreamEvent;
use courser_core::time::Instant;
use courser_session::handle::{Handle, HandleTable, Kind};
use tracing::Span;

use self::blocks::Blocks;
use self::conn::ConnSlot;
use self::dial::Race;
use self::keyed::Keyed;
use self::shared::{Command, Decision, Inbox, Shared};
use self::stream::StreamSlot;
use crate::address_tokens::ServerTokens;
use crate::error::{ConnectError, ConnectionError};
use crate::net::socket::Socket;
use crate::spans::{self, ConnSpan};
use crate::wait::Woken;
use crate::worker::WorkerStats;
use crate::worker::machine::{Machine, Relay};

/// So many streams the application is told of before what it has to say is sent: ends that answer in smaller batches work at
/// the same time rather than in turns.
const TOLD_BEFORE_SENDING: usize = 16;
/// A connection that ends when everything is delivered may take so long, if whoever asked for that has no limit.
const PARTING_MAX: Duration = Duration::from_secs(24 * 60 * 60);
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
    streams: Keyed<StreamId, Arc<StreamSlot>>,
    /// Without handles, or ending when everything is delivered; closed at that time at the latest.
    linger: Option<Instant>,
    /// Where a client keeps what its server gives for later connections.
    tokens: Option<ServerTokens>,
    span: ConnSpan,
}

/// An engine and the sessions of its application.
pub struct Hub {
    engine: Engine,
    shared: Arc<Shared>,
    span: Span,
    sessions: HandleTable<Session>,
    conns: Keyed<ConnKey, Conn>,
    /// Connection attempts, and the races that they belong to.
    attempts: Keyed<ConnKey, u64>,
    races: Keyed<u64, Race>,
    next_race: u64,
    /// Connections without handles.
    lingering: Vec<ConnKey>,
    /// Emptied, kept for its memory.
    scratch: Inbox,
    /// Emptied, kept for its memory.
    begun: Vec<Arc<StreamSlot>>,
    blocks: Blocks,
    /// Who is woken at the end of the application's part of a turn.
    woken: Woken,
    /// Somebody was woken since that was last asked.
    rang: bool,
    /// Streams that may still be told of before something is sent.
    budget: usize,
    /// The engine may have more to tell: another turn is due at once.
    untold: bool,
    /// The connection with streams that were not passed on for want of that.
    unaccepted: Option<(ConnKey, Dir)>,
    phase: Phase,
    /// The socket that the worker is to use from now on.
    socket: Option<Socket>,
    /// Where the worker's trains come from from now on.
    relay: Option<Relay>,
    /// What the worker had counted when the turn began.
    worker_stats: WorkerStats,
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
    fn expect(&self, trains: &mut dyn Iterator<Item = &[u8]>) {
        self.engine.expect(trains);
    }

    fn receive(&mut self, now: Instant, meta: &Meta, train: &mut [u8]) {
        self.engine.receive(now, meta, train);
    }

    fn is_pressing(&self) -> bool {
        self.engine.is_pressing()
    }

    fn process(&mut self, now: Instant) {
        self.engine.process(now);
        self.serve(now);
    }

    fn fill(&mut self, now: Instant, out: &mut Train) -> Option<TrainMeta> {
        let train = self.engine.fill(now, out);
        if train.is_none() {
            self.budget = TOLD_BEFORE_SENDING;
        }
        if train.is_none() && self.phase == Phase::Stopping {
            self.phase = Phase::Stopped;
        }
        train
    }

    fn sent(&mut self, now: Instant, train: &TrainMeta, outcome: SendOutcome) {
        self.engine.sent(now, train, outcome);
    }

    fn next_socket(&mut self) -> Option<Socket> {
        self.socket.take()
    }

    fn next_relay(&mut self) -> Option<Relay> {
        self.relay.take()
    }

    fn on_relay_end(&mut self) {
        self.engine.set_cooldown(self.phase != Phase::Running || self.shared.is_draining());
    }

    fn on_turn(&mut self, stats: &WorkerStats) {
        self.worker_stats = *stats;
    }

    fn deadline(&self) -> Option<Instant> {
        // A socket that takes nothing brings the next turn itself.
        if self.phase != Phase::Running || (self.untold && self.budget > 0) {
            return Some(Instant::ZERO);
        }
        let races = self.races.values().filter_map(Race::deadline);
        let lingers = self.lingering.iter().filter_map(|key| self.conns.get(key)?.linger);
        races.chain(lingers).chain(self.engine.deadline()).min()
    }
}

impl Hub {
    pub(crate) fn new(engine: Engine, shared: Arc<Shared>) -> Self {
        shared.set_traced(engine.takes_notes());
        Self {
            engine,
            span: spans::endpoint(shared.local()),
            sessions: HandleTable::new(shared.worker(), SESSIONS_MAX),
            shared,
            conns: Keyed::default(),
            attempts: Keyed::default(),
            races: Keyed::default(),
            next_race: 0,
            lingering: Vec::new(),
            scratch: Inbox::default(),
            begun: Vec::new(),
            blocks: Blocks::default(),
            woken: Woken::default(),
            rang: false,
            budget: TOLD_BEFORE_SENDING,
            untold: false,
            unaccepted: None,
            phase: Phase::Running,
            socket: None,
            relay: None,
            worker_stats: WorkerStats::default(),
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
        if self.phase == Phase::Running && self.shared.is_draining() {
            self.engine.set_cooldown(true);
        }
        if self.phase == Phase::Running && self.shared.is_stopping() {
            self.stop(now);
        }
        let connections = self.engine.connections() + self.races.len();
        self.shared.publish(connections, (self.engine.stats(), self.worker_stats), &mut self.woken);
        self.rang |= self.woken.wake();
    }

    /// Whether anybody was woken since the last call.
    pub(crate) const fn take_rang(&mut self) -> bool {
        std::mem::replace(&mut self.rang, false)
    }

    fn serve_inbox(&mut self, now: Instant) {
        let mut inbox = std::mem::take(&mut self.scratch);
        if self.shared.take_inbox(&mut inbox) {
            // Notes first: they tell what the bytes mean that are about to move.
            inbox.note_bytes = 0;
            for (key, note) in inbox.notes.drain(..) {
                self.engine.note(now, key, &note);
            }
            // Then streams: what was written before a close is handed over before it.
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
    }

    /// A stream's handles did something.
    fn serve_stream(&mut self, slot: &Arc<StreamSlot>) {
        let Some(key) = slot.conn.key() else { return };
        if slot.handle().is_none() {
            self.open_begun(key, slot.id.dir());
        }
        let Some(conn) = self.conns.get(&key) else { return };
        slot.begin_metering(&mut self.engine, key);
        if slot.id.sends(conn.side) {
            slot.pump_send(&mut self.engine, key, &mut self.woken);
        }
        if slot.id.receives(conn.side) {
            slot.pump_recv((&mut self.engine, &mut self.blocks), key, false, &mut self.woken);
        }
        self.forget_if_over(key, slot);
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
        self.open_begun(key, Dir::Bi);
        self.open_begun(key, Dir::Uni);
        slot.pump(&mut self.engine, key, &mut self.woken);
        let (close, parts) = slot.take_close();
        if let Some((code, reason)) = close {
            // A code that cannot be is refused by the faces.
            let _ = self.engine.close(now, key, code, &reason);
        } else if slot.is_abandoned() {
            self.linger(now, key, self.shared.linger);
        } else if parts.is_some() {
            self.linger(now, key, PARTING_MAX);
        }
    }

    /// A connection has no handles any more, or is to end when everything is delivered.
    fn linger(&mut self, now: Instant, key: ConnKey, limit: Duration) {
        let until = now + limit;
        let Some(conn) = self.conns.get_mut(&key) else { return };
        if conn.linger.is_none() {
            self.lingering.push(key);
        }
        conn.linger = Some(conn.linger.map_or(until, |before| before.min(until)));
        self.close_if_idle(now, key);
    }

    /// Closes a lingering connection that nobody needs any more.
    fn close_if_idle(&mut self, now: Instant, key: ConnKey) {
        let Some(conn) = self.conns.get(&key) else { return };
        let Some(until) = conn.linger else { return };
        if until <= now || !conn.streams.values().any(|s| s.is_unacked()) {
            let code = conn.slot.parts_with().unwrap_or(0);
            let _ = self.engine.close(now, key, code, b"");
        }
    }

    fn obey(&mut self, now: Instant, command: Command) {
        match command {
            Command::Dial(dial) => self.begin_race(now, *dial),
            Command::Accept { key, slot, settings } => match self.engine.accept(now, key, settings.as_deref()) {
                Ok(()) => {
                    self.adopt(now, key, Arc::clone(&slot), Side::Server);
                    self.take_early(key, &slot);
                }
                Err(_) => {
                    let reason = CloseReason::Internal("the first packets were not authentic");
                    slot.on_failed(ConnectError::Failed(ConnectionError::Closed(reason)), &mut self.woken);
                }
            },
            Command::Rebind(socket) => {
                self.shared.set_local(socket.local_addr());
                self.engine.rebind(now, None);
                self.socket = Some(*socket);
            }
            Command::Order(order) => order.carry_out(now, &mut self.engine, &mut self.relay),
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
            return slot.on_failed(ConnectError::TooMany, &mut self.woken);
        };
        slot.bind(key, handle, side);
        let abandoned = slot.is_abandoned();
        let (slot, streams) = (Arc::clone(&slot), Keyed::default());
        let span = ConnSpan::new(&self.span, &self.engine, (key, handle, side));
        self.conns.insert(key, Conn { slot, handle, side, streams, linger: None, tokens: None, span });
        if abandoned {
            // Its handle went before there was a key; nobody calls again.
            self.linger(now, key, self.shared.linger);
        }
    }

    /// A client's 0-RTT was accepted: the application may have the connection.
    fn take_early(&mut self, key: ConnKey, slot: &ConnSlot) {
        if self.engine.early_data(key) == Ok(EarlyData::Accepted) {
            slot.on_early(&self.engine, key, EarlyData::Accepted, &mut self.woken);
        }
    }

    fn serve_events(&mut self, now: Instant) {
        if self.budget > 0
            && let Some((key, dir)) = self.unaccepted.take()
        {
            self.accept_streams(key, dir, false);
        }
        while self.budget > 0
            && let Some((key, event)) = self.engine.poll_event()
        {
            if !self.attempts.is_empty() && self.attempts.contains_key(&key) {
                self.on_attempt_event(now, key, event);
                continue;
            }
            if !matches!(event, Event::Stream(_))
                && let Some(conn) = self.conns.get(&key)
            {
                conn.span.tell(&self.engine, key, &event);
            }
            match event {
                Event::Connected => {
                    if let Some(conn) = self.conns.get(&key) {
                        conn.slot.on_established(&self.engine, key, &mut self.woken);
                    }
                }
                Event::EarlyData { accepted } => {
                    if let Some(conn) = self.conns.get(&key) {
                        let early = if accepted { EarlyData::Accepted } else { EarlyData::Rejected };
                        conn.slot.on_early(&self.engine, key, early, &mut self.woken);
                    }
                }
                Event::PathChanged { remote, .. } => {
                    if let Some(conn) = self.conns.get(&key) {
                        conn.slot.on_moved(remote);
                    }
                }
                Event::Stream(event) => self.on_stream_event(now, key, event),
                Event::DatagramReceived | Event::DatagramRoom | Event::DatagramFates => {
                    if let Some(conn) = self.conns.get(&key) {
                        conn.slot.pump(&mut self.engine, key, &mut self.woken);
                    }
                }
                Event::NewToken => {
                    if let Some(tokens) = self.conns.get(&key).and_then(|conn| conn.tokens.as_ref())
                        && let Ok(Some(token)) = self.engine.take_token(key)
                    {
                        tokens.put(&token);
                    }
                }
                Event::Closed(reason) => self.on_closed(key, reason),
                _ => {}
            }
        }
        self.untold = self.budget == 0;
    }

    fn on_stream_event(&mut self, now: Instant, key: ConnKey, event: StreamEvent) {
        let id = match event {
            StreamEvent::Opened { dir } => return self.accept_streams(key, dir, false),
            StreamEvent::Available { dir } => return self.open_begun(key, dir),
            StreamEvent::Readable(id) | StreamEvent::Writable(id) => id,
            StreamEvent::AllAcked(id) | StreamEvent::ResetDelivered(id) => id,
            StreamEvent::Stopped { id, .. } | StreamEvent::Settled { id, .. } => id,
        };
        let Some(conn) = self.conns.get(&key) else { return };
        let Some(slot) = conn.streams.get(&id) else { return };
        match event {
            StreamEvent::Readable(_) => {
                self.budget = self.budget.saturating_sub(1);
                slot.pump_recv((&mut self.engine, &mut self.blocks), key, false, &mut self.woken)
            }
            StreamEvent::Writable(_) => slot.pump_send(&mut self.engine, key, &mut self.woken),
            StreamEvent::AllAcked(_) | StreamEvent::ResetDelivered(_) => slot.on_acked(&mut self.woken),
            StreamEvent::Stopped { code, .. } => slot.on_stopped(code, (&self.engine, key), &mut self.woken),
            StreamEvent::Settled { extent, .. } => slot.on_settled(Some(extent)),
            StreamEvent::Opened { .. } | StreamEvent::Available { .. } => {}
        }
        let lingers = conn.linger.is_some();
        if slot.is_over() {
            let slot = Arc::clone(slot);
            self.forget_if_over(key, &slot);
        }
        if lingers {
            self.close_if_idle(now, key);
        }
    }

    /// Enters a stream into the books; `false` when they are full.
    fn enter(&mut self, key: ConnKey, slot: &Arc<StreamSlot>) -> bool {
        let Some(conn) = self.conns.get_mut(&key) else { return false };
        let Ok(handle) = self.sessions.insert(Kind::Stream, Session::Stream(key, slot.id)) else { return false };
        slot.bind(handle);
        conn.streams.insert(slot.id, Arc::clone(slot));
        true
    }

    /// Passes on the streams that the peer opened; `all` of them although others wait for their turn.
    fn accept_streams(&mut self, key: ConnKey, dir: Dir, all: bool) {
        while let Ok(Some(id)) = self.engine.accept_stream(key, dir) {
            self.budget = self.budget.saturating_sub(1);
            let Some(conn) = self.conns.get(&key) else { return };
            let slot = StreamSlot::new(Arc::clone(&conn.slot), id, conn.side);
            if !conn.slot.is_established() {
                let conn = Arc::clone(&conn.slot);
                slot.set_early(self.engine.is_early(key, id) == Ok(true));
                self.take_early(key, &conn);
            }
            if !self.enter(key, &slot) {
                let _ = self.engine.stop_sending(key, id, 0);
                let _ = self.engine.reset(key, id, 0);
                continue;
            }
            slot.pump_recv((&mut self.engine, &mut self.blocks), key, false, &mut self.woken);
            self.forget_if_over(key, &slot);
            Arc::clone(&slot.conn).push_accept(dir, slot, &mut self.woken);
            if self.budget == 0 && !all {
                debug_assert!(self.unaccepted.is_none(), "events are taken only when nothing is left over");
                self.unaccepted = Some((key, dir));
                return;
            }
        }
    }

    /// Opens the streams that handles began, tells handles how many more there may be, and the peer when that is too few.
    fn open_begun(&mut self, key: ConnKey, dir: Dir) {
        let Some(conn) = self.conns.get(&key) else { return };
        let slot = Arc::clone(&conn.slot);
        let mut begun = std::mem::take(&mut self.begun);
        slot.take_begun(dir, &mut begun);
        for stream in begun.drain(..) {
            // A connection that has ended opens none; its end tells whoever has the stream.
            let opened = self.engine.open_stream(key, dir);
            debug_assert!(
                !matches!(opened, Ok(id) if id != Some(stream.id)),
                "streams are opened here alone, in order"
            );
            if !self.enter(key, &stream) {
                let _ = self.engine.reset(key, stream.id, 0);
                stream.on_lost(&mut self.woken);
            }
        }
        self.begun = begun;
        let room = self.engine.open_room(key, dir).unwrap_or(0);
        if slot.set_room(dir, room, &mut self.woken) && room == 0 {
            // Trying in vain is how the peer hears of the wish, and why `Available` follows.
            let opened = self.engine.open_stream(key, dir);
            debug_assert!(!matches!(opened, Ok(Some(_))), "there was no room");
        }
    }

    /// Drops a stream from the books when nothing more can happen to it.
    fn forget_if_over(&mut self, key: ConnKey, slot: &StreamSlot) {
        if !slot.is_over() {
            return;
        }
        let Some(conn) = self.conns.get_mut(&key) else { return };
        if conn.streams.remove(&slot.id).is_some() {
            self.end_session(slot);
        }
    }

    fn end_session(&mut self, slot: &StreamSlot) {
        let removed = slot.handle().map(|handle| self.sessions.remove(handle));
        debug_assert!(matches!(removed, Some(Ok(_))), "a stream in the books has a session");
    }

    fn serve_incoming(&mut self) {
        while let Some((key, incoming)) = self.engine.poll_incoming() {
            if self.phase != Phase::Running || !self.shared.offer(key, incoming, &mut self.woken) {
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
}

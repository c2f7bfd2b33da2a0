//! The machine of a worker that serves ports.
//!
//! A turn of its worker is: receive, process, [`Service::serve`], process, send. `serve` takes what applications ask, turns
//! the engine's events into sessions' dirty bits, and tells as much as the completion rings take.
//!
//! Bounds: each port is asked for a limited number of submissions per turn, so that none keeps the others, or the socket,
//! waiting; what applications are told is bounded by their own sessions (see [`courser_session::port`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use courser_core::engine::{Engine, Event as EngineEvent, Meta, SendOutcome, Train, TrainMeta};
use courser_core::error::CloseReason;
use courser_core::ids::{ConnKey, Dir};
use courser_core::stream::StreamEvent;
use courser_core::time::Instant;
use courser_session::handle::{GENERATION_MAX, Handle, HandleTable, Kind};
use courser_session::port::{Event, Inline, InlinePort, Origin, Outbox, PortSetup, WorkerPort};

use super::books::{Books, Key, Sessions};
use super::door::{Arrivals, Door};
use super::reason::{self, Ended, Reason};
use crate::estate;
use crate::options::ClientOptions;
#[cfg(all(unix, not(feature = "portable")))]
use crate::worker::machine::Ears;
use crate::worker::machine::{Machine, Relay};

/// Submissions of one port that a turn takes at most.
const SUBMISSIONS_MAX: usize = 256;
/// Connections that wait for decisions of their applications, at most; further ones are refused.
const INCOMING_MAX: usize = 4096;

/// Where a port's application is.
enum Place {
    Thread(WorkerPort),
    Inline(InlinePort),
}

impl Place {
    fn outbox(&mut self) -> &mut Outbox {
        match self {
            Self::Thread(port) => port.outbox(),
            Self::Inline(port) => port.outbox(),
        }
    }

    #[cfg(all(unix, not(feature = "portable")))]
    fn bell(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        match self {
            Self::Thread(port) => port.bell(),
            Self::Inline(_) => None,
        }
    }
}

fn outbox(ports: &mut [Option<Place>], port: u32) -> Option<&mut Outbox> {
    ports.get_mut(port as usize)?.as_mut().map(Place::outbox)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// No new connections are taken. Whether it was told that none is left.
    Draining {
        told: bool,
    },
    /// Everything was closed; what remains is to say so.
    Stopping,
    /// Nothing is left to be sent.
    Stopped,
}

/// An engine and the sessions that applications have with it, by ports.
pub struct Service {
    books: Books,
    sessions: Sessions,
    generations: Generations,
    /// By the number of the port.
    ports: Vec<Option<Place>>,
    door: Arc<Door>,
    phase: Phase,
    /// Where the worker's trains come from from now on.
    relay: Option<Relay>,
    /// Connections wait for the first listener: the port was another endpoint's, and clients are used to an answer there.
    pub(super) awaits_listener: bool,
}

/// What a service knows besides its engine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceSetup {
    /// What [`Endpoint::profile`] chooses among for connections to be made: TLS and settings of each.
    ///
    /// [`Endpoint::profile`]: courser_session::msg::Endpoint::profile
    pub profiles: Vec<ClientOptions>,
    /// Whether the engine takes connections.
    pub is_server: bool,
    /// Sessions of all ports at once; at most 2^24.
    pub sessions_max: u32,
    /// The number of the worker in its handles.
    pub worker: u8,
    /// What an earlier worker of that number left, if there was one.
    pub generations: Generations,
}

/// The highest generation in the handles of the workers that had one number after each other, so that a later one gives out
/// none of an earlier one's handles. Clones share it. A worker writes it when it ends.
#[derive(Clone, Debug, Default)]
pub struct Generations(Arc<AtomicU32>);

impl Generations {
    /// No earlier worker gave out a higher generation.
    #[must_use]
    pub fn highest(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// A worker of that number gave out this one.
    pub fn reached(&self, generation: u32) {
        self.0.fetch_max(generation, Ordering::AcqRel);
    }

    /// Whether no worker can have the number any more.
    #[must_use]
    pub fn are_used_up(&self) -> bool {
        self.highest() >= GENERATION_MAX
    }
}

impl ServiceSetup {
    /// For an engine that makes connections with these profiles.
    #[must_use]
    pub fn client(profiles: Vec<ClientOptions>) -> Self {
        Self {
            profiles,
            is_server: false,
            sessions_max: 1 << 24,
            worker: 0,
            generations: Generations(Arc::new(AtomicU32::new(0))),
        }
    }

    /// For an engine that takes connections.
    #[must_use]
    pub fn server() -> Self {
        Self {
            profiles: Vec::new(),
            is_server: true,
            sessions_max: 1 << 24,
            worker: 0,
            generations: Generations(Arc::new(AtomicU32::new(0))),
        }
    }
}

impl Service {
    /// A service for `engine`, whose socket is bound to `local`.
    #[must_use]
    pub fn new(engine: Engine, local: SocketAddr, setup: ServiceSetup) -> Self {
        Self {
            sessions: HandleTable::new(setup.worker, setup.sessions_max).continuing(setup.generations.highest()),
            generations: setup.generations.clone(),
            books: Books::new(engine, local, setup),
            ports: Vec::new(),
            door: Arc::default(),
            phase: Phase::Running,
            relay: None,
            awaits_listener: false,
        }
    }

    pub(super) fn door(&self) -> Arc<Door> {
        Arc::clone(&self.door)
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The engine, for its counters.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.books.engine
    }

    /// Whether it was asked to stop and the peers were told, so that the worker can end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// Takes a port in; its number.
    fn place(&mut self, mut place: Place) -> u32 {
        let free = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        // More ports than 32 bits count would need more memory than there is.
        let number = u32::try_from(free).unwrap_or(u32::MAX);
        place.outbox().set_port(number);
        if free == self.ports.len() {
            self.ports.push(Some(place));
        } else {
            self.ports[free] = Some(place);
        }
        number
    }

    /// A port for the thread that drives the worker; its number.
    pub(super) fn place_inline(&mut self, setup: PortSetup) -> u32 {
        self.place(Place::Inline(InlinePort::new(setup)))
    }

    /// The inline port of that number. Submissions are carried out before the call returns.
    pub(super) fn inline(&mut self, number: u32, now: Instant) -> Option<Inline<'_, Books>> {
        self.books.now = now;
        match self.ports.get_mut(number as usize)?.as_mut()? {
            Place::Inline(port) => Some(port.with(&mut self.sessions, &mut self.books)),
            Place::Thread(_) => None,
        }
    }

    /// The applications' part of a turn. Whether anything happened, so that another turn is worthwhile.
    pub fn serve(&mut self, now: Instant) -> bool {
        self.books.now = now;
        let mut busy = self.look_at_the_door(now);
        for number in 0..self.ports.len() {
            busy |= self.serve_port(number);
        }
        busy |= self.serve_events();
        self.serve_waiting();
        for place in self.ports.iter_mut().flatten() {
            if let Place::Thread(port) = place {
                busy |= port.flush(&mut self.sessions, &mut self.books) > 0;
            }
        }
        self.tell_drained();
        busy
    }

    fn look_at_the_door(&mut self, now: Instant) -> bool {
        let Some(Arrivals { ports, orders, questions, .. }) = self.door.look() else { return false };
        for question in questions {
            question.answer(self.books.rows(&self.sessions, question.most));
        }
        ports.into_iter().for_each(|port| {
            self.place(Place::Thread(port));
        });
        orders.into_iter().for_each(|order| order.carry_out(now, &mut self.books.engine, &mut self.relay));
        if self.phase == Phase::Running && self.door.is_draining() {
            self.drain();
        }
        let open = matches!(self.phase, Phase::Running | Phase::Draining { .. });
        if open && self.door.is_stopping() {
            self.stop(now);
        }
        true
    }

    /// No new connections are taken from now on; listeners hear that they are over.
    fn drain(&mut self) {
        self.phase = Phase::Draining { told: false };
        self.books.draining = true;
        self.books.engine.set_cooldown(true);
        for listener in std::mem::take(&mut self.books.listeners) {
            if let Some(outbox) = outbox(&mut self.ports, listener.port) {
                let _ = outbox.event(&mut self.sessions, listener.handle, Ended::plain(Reason::Draining).event());
            }
        }
    }

    /// Whether it is to be told that a draining worker has no connection left.
    fn is_newly_drained(&self) -> bool {
        self.phase == Phase::Draining { told: false } && self.books.engine.connections() == 0
    }

    fn tell_drained(&mut self) {
        if self.is_newly_drained() {
            self.phase = Phase::Draining { told: true };
            self.door.set_drained();
        }
    }

    fn serve_port(&mut self, number: usize) -> bool {
        let Some(Some(Place::Thread(port))) = self.ports.get_mut(number) else { return false };
        let served = port.serve(&mut self.sessions, &mut self.books, SUBMISSIONS_MAX);
        if served < SUBMISSIONS_MAX && port.is_gone() {
            self.end_port(number);
            return true;
        }
        served > 0
    }

    /// A port's application is gone: its sessions end.
    fn end_port(&mut self, number: usize) {
        let Some(mut place) = self.ports.get_mut(number).and_then(Option::take) else { return };
        if let Place::Thread(port) = &place
            && let Some(fault) = port.fault()
        {
            tracing::warn!(port = number, %fault, "an application's port is closed");
            self.door.blame(fault);
        }
        for handle in place.outbox().own_handles(&self.sessions) {
            match place.outbox().forget(&mut self.sessions, handle) {
                Some(Key::Connection(key)) => self.books.abandon(key),
                Some(Key::Listener) => self.books.listeners.retain(|listener| listener.handle != handle),
                // A stream goes with its connection, which is the same application's.
                Some(Key::Stream(_)) | None => {}
            }
        }
    }

    fn serve_events(&mut self) -> bool {
        self.awaits_listener &= self.phase == Phase::Running && self.books.listeners.is_empty();
        if self.awaits_listener {
            return false;
        }
        let mut any = false;
        while let Some((key, event)) = self.books.engine.poll_event() {
            any = true;
            if event == EngineEvent::Accepted {
                if self.books.conn(key).is_none() && !self.welcome(key, false) {
                    // Nobody listens, or there is no room for a session: what nobody knows of must not stay.
                    let _ = self.books.engine.close(self.books.now, key, 0, b"nobody takes connections");
                }
                continue;
            }
            let Some(port) = self.books.conn(key).map(|conn| conn.port) else { continue };
            let Some(outbox) = outbox(&mut self.ports, port) else { continue };
            on_event(&mut self.books, outbox, &mut self.sessions, (key, event));
        }
        while let Some((key, _)) = self.books.engine.poll_incoming() {
            any = true;
            if self.phase != Phase::Running || self.books.undecided >= INCOMING_MAX || !self.welcome(key, true) {
                let _ = self.books.engine.refuse(key);
            }
        }
        any
    }

    /// Gives a connection to the listener whose turn it is; `false` when nobody takes it.
    fn welcome(&mut self, key: ConnKey, held: bool) -> bool {
        let Some(listener) = self.books.listeners.pop_front() else { return false };
        let (port, parent) = (listener.port, Origin::Parent(listener.handle));
        self.books.listeners.push_back(listener);
        outbox(&mut self.ports, port)
            .is_some_and(|outbox| self.books.enter_conn(outbox, &mut self.sessions, key, (parent, held)))
    }

    /// What waited for an application's share may go on.
    fn serve_waiting(&mut self) {
        for key in std::mem::take(&mut self.books.starved) {
            let Some(port) = self.books.conn(key).map(|conn| conn.port) else { continue };
            let Some(outbox) = outbox(&mut self.ports, port) else { continue };
            if outbox.has_share() {
                open_and_accept(&mut self.books, outbox, &mut self.sessions, key);
            } else {
                self.books.starved.push(key);
            }
        }
    }

    /// Whether a turn could do something for an application. To be asked after the worker's bell is armed and before it
    /// sleeps.
    pub(super) fn has_work(&mut self) -> bool {
        self.door.has_news()
            || self.is_newly_drained()
            || self.ports.iter_mut().flatten().any(|place| match place {
                Place::Thread(port) => port.has_work(),
                // What waits to be polled.
                Place::Inline(port) => !port.outbox().is_empty(),
            })
            || self.share_came_back()
    }

    fn share_came_back(&mut self) -> bool {
        let Self { books, ports, .. } = self;
        let starved = std::mem::take(&mut books.starved);
        let found = starved.iter().any(|key| {
            let port = books.conn(*key).map(|conn| conn.port);
            port.and_then(|port| outbox(ports, port)).is_none_or(|outbox| outbox.has_share())
        });
        books.starved = starved;
        found
    }

    /// The worker goes to sleep: applications in other processes have to ring.
    pub(super) fn arm(&mut self) {
        self.threads().for_each(WorkerPort::arm);
    }

    /// The worker is awake.
    pub(super) fn disarm(&mut self) {
        self.threads().for_each(WorkerPort::disarm);
    }

    fn threads(&mut self) -> impl Iterator<Item = &mut WorkerPort> {
        self.ports.iter_mut().flatten().filter_map(|place| match place {
            Place::Thread(port) => Some(port),
            Place::Inline(_) => None,
        })
    }

    /// Everything is closed.
    fn stop(&mut self, now: Instant) {
        self.phase = Phase::Stopping;
        self.books.engine.set_cooldown(true);
        estate::close_all(now, &mut self.books.engine);
    }
}

/// Whoever attaches a port or gives an order from now on is told at once that nobody serves it.
impl Drop for Service {
    fn drop(&mut self) {
        self.generations.reached(self.sessions.highest_generation());
        self.door.shut();
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("books", &self.books)
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

impl Machine for Service {
    fn expect(&self, trains: &mut dyn Iterator<Item = &[u8]>) {
        self.books.engine.expect(trains);
    }

    fn receive(&mut self, now: Instant, meta: &Meta, train: &mut [u8]) {
        self.books.engine.receive(now, meta, train);
    }

    fn is_pressing(&self) -> bool {
        self.books.engine.is_pressing()
    }

    fn process(&mut self, now: Instant) {
        self.books.engine.process(now);
    }

    fn fill(&mut self, now: Instant, out: &mut Train) -> Option<TrainMeta> {
        let train = self.books.engine.fill(now, out);
        if train.is_none() && self.phase == Phase::Stopping {
            self.phase = Phase::Stopped;
        }
        train
    }

    fn sent(&mut self, now: Instant, train: &TrainMeta, outcome: SendOutcome) {
        self.books.engine.sent(now, train, outcome);
    }

    fn next_relay(&mut self) -> Option<Relay> {
        self.relay.take()
    }

    fn on_relay_end(&mut self) {
        self.books.engine.set_cooldown(self.phase != Phase::Running);
    }

    #[cfg(all(unix, not(feature = "portable")))]
    fn ears(&self) -> Ears<'_> {
        Ears(self.ports.iter().flatten().filter_map(Place::bell).collect())
    }

    fn is_rung(&self) -> bool {
        self.ports.iter().flatten().any(|place| matches!(place, Place::Thread(port) if port.is_rung()))
    }

    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running | Phase::Draining { .. } => self.books.engine.deadline(),
            Phase::Stopping | Phase::Stopped => Some(Instant::ZERO),
        }
    }
}

fn open_and_accept(books: &mut Books, outbox: &mut Outbox, sessions: &mut Sessions, key: ConnKey) {
    for dir in [Dir::Bi, Dir::Uni] {
        books.open_waiting(outbox, sessions, key, dir);
        books.accept_streams(outbox, sessions, key, dir);
    }
}

/// Something happened to a connection.
fn on_event(books: &mut Books, outbox: &mut Outbox, sessions: &mut Sessions, (key, event): (ConnKey, EngineEvent)) {
    let Some(conn) = books.conn(key) else { return };
    let handle = conn.handle;
    if !matches!(event, EngineEvent::Stream(_)) {
        let span = conn.span.clone();
        span.tell(&books.engine, key, &event);
    }
    match event {
        EngineEvent::Connected => {
            let _ = outbox.event(sessions, handle, Event::Addresses);
            let _ = outbox.event(sessions, handle, Event::Established);
            books.open_waiting(outbox, sessions, key, Dir::Bi);
            books.open_waiting(outbox, sessions, key, Dir::Uni);
        }
        EngineEvent::Stream(StreamEvent::Opened { dir }) => books.accept_streams(outbox, sessions, key, dir),
        EngineEvent::Stream(StreamEvent::Available { dir }) => books.open_waiting(outbox, sessions, key, dir),
        EngineEvent::Stream(event) => on_stream_event(books, outbox, sessions, (key, event)),
        EngineEvent::DatagramReceived => _ = outbox.event(sessions, handle, Event::Datagram),
        EngineEvent::DatagramFates => _ = outbox.event(sessions, handle, Event::DatagramFate),
        EngineEvent::DatagramRoom => _ = outbox.event(sessions, handle, Event::DatagramRoom),
        EngineEvent::NewToken => {
            let tokens = books.conn(key).and_then(|conn| conn.tokens.clone());
            if let (Some(tokens), Ok(Some(token))) = (tokens, books.engine.take_token(key)) {
                tokens.put(&token);
            }
        }
        EngineEvent::Closed(reason) => on_closed(books, outbox, sessions, (key, &reason)),
        _ => {}
    }
}

fn on_stream_event(
    books: &mut Books,
    outbox: &mut Outbox,
    sessions: &mut Sessions,
    (key, event): (ConnKey, StreamEvent),
) {
    let (StreamEvent::Readable(id)
    | StreamEvent::Writable(id)
    | StreamEvent::AllAcked(id)
    | StreamEvent::ResetDelivered(id)
    | StreamEvent::Stopped { id, .. }) = event
    else {
        return;
    };
    let Some(handle) = books.conn(key).and_then(|conn| conn.streams.get(&id).copied()) else { return };
    match event {
        StreamEvent::Readable(_) => {
            let _ = outbox.event(sessions, handle, Event::Readable);
        }
        StreamEvent::Writable(_) => books.pump(outbox, sessions, handle),
        StreamEvent::AllAcked(_) | StreamEvent::ResetDelivered(_) => {
            books.end_sending(outbox, sessions, handle, Some(Event::AllAcked))
        }
        StreamEvent::Stopped { code, .. } => books.end_sending(outbox, sessions, handle, Some(Event::Stopped(code))),
        StreamEvent::Opened { .. } | StreamEvent::Available { .. } | StreamEvent::Settled { .. } => {}
    }
}

/// A connection ended: what the peer sent before can still be read, every session of it is told.
fn on_closed(books: &mut Books, outbox: &mut Outbox, sessions: &mut Sessions, (key, reason): (ConnKey, &CloseReason)) {
    if !matches!(reason, CloseReason::LocalApplication { .. }) {
        books.accept_streams(outbox, sessions, key, Dir::Bi);
        books.accept_streams(outbox, sessions, key, Dir::Uni);
    }
    let Some(conn) = books.forget_conn(key) else { return };
    let ended = reason::ended(reason);
    let mut streams: Vec<Handle> = conn.streams.into_values().collect();
    streams.sort_unstable();
    for handle in streams {
        debug_assert_eq!(handle.kind(), Kind::Stream);
        books.cut_stream(outbox, sessions, handle, &ended);
    }
    let _ = outbox.event(sessions, conn.handle, ended.event());
}

#[cfg(test)]
mod tests {
    use courser_core::engine::EngineConfig;
    use courser_session::doorbell::{Alarm, Bell, doorbell};
    use courser_session::msg::{Completion, Endpoint, Submission};
    use courser_session::port::{ThreadPort, pair};
    use courser_tls::{AwsLc, SystemRandom};

    use super::*;

    /// A connection with settings that nobody registered: the answer comes in the same turn.
    fn ask(port: &mut ThreadPort, count: u64) {
        let address = "127.0.0.1:9".parse().unwrap();
        for token in 0..count {
            let to = Box::new(Endpoint { address, server_name: String::new(), profile: 7 });
            port.submit(Submission::Connect { token, to }).unwrap();
        }
    }

    fn answers(port: &mut ThreadPort) -> u64 {
        let mut messages: Vec<Completion> = Vec::new();
        port.poll_into(&mut messages, usize::MAX) as u64
    }

    #[test]
    fn a_port_that_asks_much_keeps_no_other_one_waiting() {
        let engine = Engine::new(EngineConfig::new(Box::new(AwsLc), Box::new(SystemRandom::new())));
        let mut service = Service::new(engine, "127.0.0.1:1".parse().unwrap(), ServiceSetup::client(Vec::new()));
        let setup = PortSetup { submissions: 2048, completions: 2048, ..PortSetup::default() };
        let bell = Arc::new(Alarm::new()) as Arc<dyn Bell>;
        let [mut greedy, mut modest] = [(); 2].map(|()| {
            let (application, worker) = pair(setup, doorbell(Arc::clone(&bell)).0, None);
            service.place(Place::Thread(worker));
            application
        });
        ask(&mut greedy, 1_000);
        ask(&mut modest, 3);
        let most = SUBMISSIONS_MAX as u64;
        let mut turns = Vec::new();
        while service.serve(Instant::from_micros(1)) {
            turns.push((answers(&mut greedy), answers(&mut modest)));
        }
        // What was asked in one breath takes four turns; who asked little has all answers after the first one.
        assert_eq!(turns, [(most, 3), (most, 0), (most, 0), (1_000 - 3 * most, 0)]);
    }
}

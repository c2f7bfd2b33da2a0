//! The thread of plain sessions.
//!
//! A turn: what came to the door, what applications ask, what the event loop told, what waited, what applications are told.
//! Each part is bounded per port and object. The worker sleeps in the event loop, and is rung by a waker.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use courser_session::doorbell::{Bell, Interest, Sleeper};
use courser_session::handle::HandleTable;
use courser_session::port::{Outbox, WorkerPort};
#[cfg(target_os = "linux")]
use mio::unix::SourceFd;
use mio::{Events, Poll, Registry, Token, Waker};

use super::PlainSetup;
use super::books::{Books, Sessions};
use super::door::Door;

/// Submissions of one port that a turn takes at most.
const SUBMISSIONS_MAX: usize = 256;
/// Events of one look at the event loop.
const EVENTS: usize = 1024;
const WAKER: Token = Token(usize::MAX);

/// The token of the bell of a port whose application is in another process. Slots of objects count from the other end.
#[cfg(target_os = "linux")]
const fn bell_of(port: usize) -> Token {
    Token(usize::MAX - 1 - port)
}

/// Rings by waking the event loop.
pub(super) struct Rouse(Waker);

impl Rouse {
    pub(super) fn new(registry: &Registry) -> io::Result<Self> {
        Waker::new(registry, WAKER).map(Self)
    }
}

impl Bell for Rouse {
    fn ring(&self) {
        // The waker counts: a full counter means that a wake-up is on its way already.
        let _ = self.0.wake();
    }
}

/// What the thread runs.
pub(super) struct Worker {
    poll: Poll,
    sleeper: Sleeper,
    door: Arc<Door>,
    books: Books,
    sessions: Sessions,
    /// By the number of the port.
    ports: Vec<Option<WorkerPort>>,
}

fn outbox(ports: &mut [Option<WorkerPort>], port: u32) -> Option<&mut Outbox> {
    ports.get_mut(port as usize)?.as_mut().map(WorkerPort::outbox)
}

impl Worker {
    pub(super) fn new(poll: Poll, sleeper: Sleeper, door: Arc<Door>, setup: PlainSetup) -> io::Result<Self> {
        let sessions = HandleTable::new(setup.worker, setup.sessions_max).continuing(setup.first_generation);
        let books = Books::new(poll.registry().try_clone()?, Arc::clone(&door), setup);
        Ok(Self { poll, sleeper, door, books, sessions, ports: Vec::new() })
    }

    pub(super) const fn highest_generation(&self) -> u32 {
        self.sessions.highest_generation()
    }

    /// Takes turns until it is asked to stop.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.books.now = Instant::now();
            let Some(mut busy) = self.look_at_the_door() else {
                // What applications said last is still carried out: they may have gone right behind it.
                self.turn(&events);
                return Ok(());
            };
            busy |= self.turn(&events);
            events.clear();
            if busy {
                self.look(&mut events, Some(Duration::ZERO))?;
                continue;
            }
            self.sleeper.arm(Interest::ANY);
            self.ports.iter_mut().flatten().for_each(WorkerPort::arm);
            let timeout = if self.has_work() {
                Some(Duration::ZERO)
            } else {
                self.books.objects.next_due().map(|due| due.saturating_duration_since(self.books.now))
            };
            let looked = self.look(&mut events, timeout);
            self.sleeper.disarm();
            self.ports.iter_mut().flatten().for_each(WorkerPort::disarm);
            looked?;
        }
    }

    fn look(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            looked => looked,
        }
    }

    /// Whether anything happened; `None` when the worker is to end.
    fn look_at_the_door(&mut self) -> Option<bool> {
        let Some(arrivals) = self.door.look() else { return Some(false) };
        for question in arrivals.questions {
            question.answer(self.books.rows(&self.sessions, question.most));
        }
        arrivals.ports.into_iter().for_each(|port| self.place(port));
        (!arrivals.stop).then_some(true)
    }

    fn place(&mut self, mut port: WorkerPort) {
        let free = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        // More ports than 32 bits count would need more memory than there is.
        port.outbox().set_port(u32::try_from(free).unwrap_or(u32::MAX));
        #[cfg(target_os = "linux")]
        if let Some(bell) = port.bell() {
            let registered =
                self.poll.registry().register(&mut SourceFd(&bell.as_raw_fd()), bell_of(free), mio::Interest::READABLE);
            if registered.is_err() {
                // A port whose application could not wake the worker: it goes, and the application learns of it.
                return;
            }
        }
        if free == self.ports.len() {
            self.ports.push(Some(port));
        } else {
            self.ports[free] = Some(port);
        }
    }

    /// One turn; whether anything happened, so that another one is worthwhile.
    fn turn(&mut self, events: &Events) -> bool {
        let mut busy = false;
        for event in events {
            // The waker's own number is no object's.
            let Ok(slot) = u32::try_from(event.token().0) else { continue };
            let Some(port) = self.books.objects.get(slot).map(|place| place.port) else { continue };
            match outbox(&mut self.ports, port) {
                Some(outbox) => self.books.on_event(outbox, &mut self.sessions, slot, event),
                // A socket that lingers has outlived its application.
                None => self.books.hunger(slot),
            }
            busy = true;
        }
        for number in 0..self.ports.len() {
            busy |= self.serve_port(number);
        }
        busy |= self.serve_waiting();
        self.serve_dirty();
        for port in self.ports.iter_mut().flatten() {
            busy |= port.flush(&mut self.sessions, &mut self.books) > 0;
        }
        for (port, handle) in std::mem::take(&mut self.books.refused) {
            if let Some(outbox) = outbox(&mut self.ports, port) {
                self.books.refuse_link(outbox, &mut self.sessions, handle);
            }
            busy = true;
        }
        busy
    }

    fn serve_port(&mut self, number: usize) -> bool {
        let Some(Some(port)) = self.ports.get_mut(number) else { return false };
        let served = port.serve(&mut self.sessions, &mut self.books, SUBMISSIONS_MAX);
        if served < SUBMISSIONS_MAX && port.is_gone() {
            self.end_port(number);
            return true;
        }
        served > 0
    }

    /// A port's application is gone: its sessions end.
    fn end_port(&mut self, number: usize) {
        let Some(mut port) = self.ports.get_mut(number).and_then(Option::take) else { return };
        if let Some(fault) = port.fault() {
            tracing::warn!(port = number, %fault, "a port of plain sessions was closed");
        }
        let outbox = port.outbox();
        for handle in outbox.own_handles(&self.sessions) {
            outbox.forget(&mut self.sessions, handle);
        }
        self.books.end_port(outbox.port());
    }

    /// Objects whose time has come, that have more than one turn took, or that there is room for again.
    fn serve_waiting(&mut self) -> bool {
        let mut busy = self.feed_starved();
        while let Some(slot) = self.books.objects.take_due(self.books.now) {
            busy = true;
            let Some(port) = self.books.objects.get(slot).map(|place| place.port) else { continue };
            match outbox(&mut self.ports, port) {
                Some(outbox) => self.books.on_due(outbox, &mut self.sessions, slot),
                None => self.books.end_lingering(slot),
            }
        }
        for slot in std::mem::take(&mut self.books.hungry) {
            busy = true;
            let Some(port) = self.books.objects.get(slot).map(|place| place.port) else { continue };
            match outbox(&mut self.ports, port) {
                Some(outbox) => self.books.feed(outbox, &mut self.sessions, slot),
                None => self.books.feed_orphan(slot),
            }
        }
        busy
    }

    fn can_feed(&mut self, slot: u32) -> bool {
        let Some(port) = self.books.objects.get(slot).map(|place| place.port) else { return true };
        let has_share = outbox(&mut self.ports, port).is_none_or(|outbox| outbox.has_share());
        has_share && self.books.has_room_inside(&self.sessions)
    }

    fn feed_starved(&mut self) -> bool {
        let starved = std::mem::take(&mut self.books.starved);
        let before = starved.len();
        for slot in starved {
            if self.can_feed(slot) {
                self.books.hungry.push(slot);
            } else {
                self.books.starved.push(slot);
            }
        }
        self.books.starved.len() < before
    }

    fn serve_dirty(&mut self) {
        for slot in std::mem::take(&mut self.books.dirty) {
            let Some(port) = self.books.objects.get(slot).map(|place| place.port) else { continue };
            if let Some(outbox) = outbox(&mut self.ports, port) {
                self.books.pump(outbox, &mut self.sessions, slot);
            }
        }
    }

    /// Whether a turn could do something. To be asked after the bell is armed and before the worker sleeps.
    fn has_work(&mut self) -> bool {
        let starved = std::mem::take(&mut self.books.starved);
        let can_feed = starved.iter().any(|slot| self.can_feed(*slot));
        self.books.starved = starved;
        can_feed
            || self.door.has_news()
            || !self.books.hungry.is_empty()
            || self.ports.iter_mut().flatten().any(WorkerPort::has_work)
    }
}

/// Whoever attaches a port from now on is told at once that nobody serves it.
impl Drop for Worker {
    fn drop(&mut self) {
        self.books.end_all();
        self.door.shut();
    }
}

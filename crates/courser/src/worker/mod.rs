//! A worker: one machine (the engine), one socket, one turn at a time.
//!
//! A turn is:
//!
//! ```text
//! receive a batch of trains ─▶ process ─▶ the application's turn ─▶ process ─▶ send trains until the socket is full
//! ```
//!
//! Everything is bounded: a turn reads at most [`TurnLimits::receive_bytes`] and sends at most [`TurnLimits::datagrams`]
//! datagrams, and when a bound was reached it says that it wants to go on at once. A train that the socket did not take is
//! kept, with a cursor to what already left, and goes first next time; nothing is filled before it is gone.
//!
//! Between turns a driver waits: [`Worker::wait`] for threads, `task` inside a Tokio runtime. An idle worker takes no
//! processor time: it waits for the socket, a [`Waker`], or the machine's deadline. One whose datagrams come microseconds
//! apart looks for the next one before it sleeps (`busy`).

mod busy;
pub(crate) mod crossing;
mod deaf;
mod drive;
pub mod group;
pub mod machine;
#[cfg(feature = "tokio")]
pub mod task;
#[cfg(feature = "tokio")]
mod timer;
mod wait;
mod wake;

use std::io;
use std::time::Duration;

use courser_core::time::Instant;

use crate::clock::Clock;
use crate::net::adapter::Outgoing;
use crate::net::socket::{Outcome, Slots, Socket};

use busy::BusyPoll;
pub use crossing::Crossing;
use deaf::Deaf;
pub use drive::Running;
use machine::{Machine, Meta, SendOutcome, Train, TrainMeta};
pub(crate) use wait::Look;
pub use wake::Waker;

/// How long a train waits when a queue below the socket is full and nobody tells when it has room.
const PAUSE: Duration = Duration::from_millis(1);
/// After so many of them the train is given up: the queue may be one path's, and all others wait behind it.
const PAUSES_MAX: u8 = 3;

/// Bounds of one turn.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TurnLimits {
    /// Slots of one receive call; 1 to 8. Four slots of 64 KiB stay in the second-level cache until they are processed.
    pub slots: usize,
    /// A turn stops reading after this many bytes.
    pub receive_bytes: usize,
    /// A turn stops reading after this many calls, however small the datagrams are.
    pub receive_calls: usize,
    /// Most datagrams of a turn, so that acknowledgements are read in between. A turn starts with [`BATCH_FIRST`]; each
    /// one that the socket took whole doubles the next, one that it took in part makes the next as large as what went.
    pub datagrams: usize,
    /// A turn stops sending after this time.
    pub budget: Duration,
}

impl Default for TurnLimits {
    fn default() -> Self {
        Self {
            slots: 4,
            receive_bytes: 256 << 10,
            receive_calls: 16,
            datagrams: BATCH_MAX,
            budget: Duration::from_millis(2),
        }
    }
}

/// Datagrams of the first turn.
pub const BATCH_FIRST: usize = 32;
/// Datagrams of the smallest turn.
pub const BATCH_MIN: usize = 4;
/// Datagrams of the largest turn.
pub const BATCH_MAX: usize = 1024;

/// What a turn did and when the next one is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// When the next turn is due, even though nothing happens; `None`: not before something happens.
    pub deadline: Option<Instant>,
    /// Whether anything was received or sent. After such a turn another one is worthwhile before waiting.
    pub progressed: bool,
    /// Whether a train waits for room in the socket.
    pub blocked: bool,
}

/// Counters of a worker. `handed = sent + refused + too_big`, and one more while a train is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Turns taken.
    pub turns: u64,
    /// Receive calls that gave something.
    pub batches: u64,
    /// Trains received.
    pub trains_received: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Trains that the machine handed over.
    pub handed: u64,
    /// Trains that went out.
    pub sent: u64,
    /// Trains that a path refused.
    pub refused: u64,
    /// Trains that were too big for the first link.
    pub too_big: u64,
    /// How often the socket had no room.
    pub full: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Waits that slept.
    pub waits: u64,
    /// Waits that ended before the worker slept, because something came while it looked.
    pub busy_hits: u64,
    /// Looks before a sleep that were in vain.
    pub busy_misses: u64,
    /// Datagrams received that belong to other workers of the port; each was forwarded or dropped.
    pub misrouted: u64,
    /// Those of them that were handed over.
    pub forwarded: u64,
    /// Those of them that found no room.
    pub forward_dropped: u64,
    /// Datagrams that other workers handed over to this one.
    pub received_from_mates: u64,
    /// Datagrams handed over to the process that had the port before.
    pub relayed: u64,
    /// Datagrams for that process that found no room.
    pub relay_dropped: u64,
}

/// Adds the counters of another worker, for those that share a port.
impl std::ops::AddAssign for WorkerStats {
    fn add_assign(&mut self, other: Self) {
        self.turns += other.turns;
        self.batches += other.batches;
        self.trains_received += other.trains_received;
        self.bytes_received += other.bytes_received;
        self.handed += other.handed;
        self.sent += other.sent;
        self.refused += other.refused;
        self.too_big += other.too_big;
        self.full += other.full;
        self.bytes_sent += other.bytes_sent;
        self.waits += other.waits;
        self.busy_hits += other.busy_hits;
        self.busy_misses += other.busy_misses;
        self.misrouted += other.misrouted;
        self.forwarded += other.forwarded;
        self.forward_dropped += other.forward_dropped;
        self.received_from_mates += other.received_from_mates;
        self.relayed += other.relayed;
        self.relay_dropped += other.relay_dropped;
    }
}

/// A train that the socket did not take yet.
struct Kept {
    meta: TrainMeta,
    /// Bytes of the train that already left.
    cursor: usize,
    /// Not to be tried before; for queues that do not tell when they have room.
    not_before: Option<Instant>,
    /// How often it was put off like that since a part of it went.
    pauses: u8,
}

/// One machine and one socket.
pub struct Worker<M> {
    machine: M,
    socket: Socket,
    clock: Clock,
    limits: TurnLimits,
    slots: Slots,
    /// Slots that the last call filled.
    filled: usize,
    /// The slots may hold trains that the machine did not get yet.
    unread: bool,
    /// The train that was filled last; holds the bytes of `kept`.
    train: Train,
    kept: Option<Kept>,
    waker: Waker,
    busy: BusyPoll,
    /// Whether receive calls fail one after the other.
    deaf: Deaf,
    /// When the present wait began.
    waiting_since: Instant,
    /// Datagrams of the next turn.
    batch: usize,
    /// Sockets so far; drivers that watch the socket see by it that it is another one.
    sockets: u64,
    /// Among workers that share a port.
    crossing: Option<Box<Crossing>>,
    stats: WorkerStats,
}

impl<M: Machine> Worker<M> {
    /// A worker for `machine` on `socket`.
    ///
    /// # Errors
    /// When the system gives no descriptor to wake the worker with.
    pub fn new(machine: M, socket: Socket, clock: Clock, limits: TurnLimits) -> io::Result<Self> {
        Ok(Self {
            machine,
            waker: Waker::new(socket.udp())?,
            busy: BusyPoll::new(socket.busy_poll()),
            deaf: Deaf::default(),
            waiting_since: Instant::FAR_FUTURE,
            socket,
            clock,
            slots: Slots::new(limits.slots),
            filled: 0,
            unread: false,
            limits,
            train: Train::default(),
            kept: None,
            sockets: 1,
            crossing: None,
            batch: BATCH_FIRST.min(limits.datagrams.max(BATCH_MIN)),
            stats: WorkerStats::default(),
        })
    }

    /// The machine. Who changes something in it outside a turn takes another turn before waiting.
    pub const fn machine(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The socket.
    #[must_use]
    pub const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The clock that turns are timed with.
    #[must_use]
    pub const fn clock(&self) -> Clock {
        self.clock
    }

    /// What makes this worker take a turn, from any thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Takes its place among workers that share its port: what comes for others is handed over to them, and theirs for this
    /// one to it. Its connection IDs have to name that place.
    #[must_use]
    pub fn at(mut self, place: Crossing) -> Self {
        place.set_waker(self.waker());
        self.crossing = Some(Box::new(place));
        self
    }

    /// Datagrams that the next turn sends at most.
    #[must_use]
    pub const fn batch(&self) -> usize {
        self.batch
    }

    /// Counters.
    #[must_use]
    pub const fn stats(&self) -> WorkerStats {
        self.stats
    }

    /// Ends the worker and gives the machine back.
    #[must_use]
    pub fn into_machine(self) -> M {
        self.machine
    }

    /// Takes one turn without an application.
    ///
    /// # Errors
    /// Only when the socket itself has failed.
    pub fn turn(&mut self) -> io::Result<Turn> {
        self.turn_with(&mut |_, _| {})
    }

    /// Takes one turn; `app` is called once between receiving and sending.
    ///
    /// # Errors
    /// Only when the socket itself has failed.
    pub fn turn_with(&mut self, app: &mut dyn FnMut(&mut M, Instant)) -> io::Result<Turn> {
        let read = self.read()?;
        Ok(self.turn_after(&read, app))
    }

    /// What follows reading in a turn.
    fn turn_after(&mut self, read: &Read, app: &mut dyn FnMut(&mut M, Instant)) -> Turn {
        self.stats.turns += 1;
        // Whoever called up to now is heard in this turn, and needs no other one.
        self.waker.woke();
        let now = self.clock.now();
        let handed = self.crossing.is_some() && self.read_mail(now);
        self.machine.process(now);
        self.machine.on_turn(&self.stats);
        app(&mut self.machine, now);
        self.machine.process(now);
        if let Some(socket) = self.machine.next_socket() {
            self.replace_socket(now, socket);
        }
        if let Some(relay) = self.machine.next_relay() {
            self.socket.hear(relay.0);
            self.sockets += 1;
        }
        let (sent, more_to_send) = self.write(now);
        let at_once = read.more || more_to_send || self.crossing.as_ref().is_some_and(|c| c.has_mail());
        Turn {
            deadline: if at_once { Some(now) } else { self.deadline() },
            progressed: read.any || handed || sent,
            blocked: self.kept.as_ref().is_some_and(|k| k.not_before.is_none()),
        }
    }

    /// The present socket goes, and what it did not take with it: that was meant to leave from its address.
    fn replace_socket(&mut self, now: Instant, socket: Socket) {
        self.socket = socket;
        self.sockets += 1;
        if let Some(kept) = self.kept.take() {
            self.stats.refused += 1;
            self.machine.sent(now, &kept.meta, SendOutcome::Refused);
        }
    }

    /// Asks the socket for a batch; how many trains came.
    fn receive(&mut self) -> io::Result<usize> {
        if !self.deaf.is_over(|| self.clock.now()) {
            self.filled = 0;
            return Ok(0);
        }
        let relayed = self.socket.is_relayed();
        self.filled = self.socket.receive(&mut self.slots)?;
        if self.socket.is_failing() {
            self.deaf.fails(self.clock.now())
        } else {
            self.deaf.hears()
        }
        if relayed && !self.socket.is_relayed() {
            // The process that had taken the port over is gone.
            self.sockets += 1;
            self.machine.on_relay_end();
        }
        self.stats.batches += u64::from(self.filled > 0);
        Ok(self.filled)
    }

    /// When the next turn is due though nothing happens.
    fn deadline(&self) -> Option<Instant> {
        let retry = self.kept.as_ref().and_then(|k| k.not_before);
        [self.machine.deadline(), retry, self.deaf.until()].into_iter().flatten().min()
    }

    /// Reads and hands over what is there, within the turn's bounds. Each batch is handed over before the next call, while
    /// it is in the cache, with one reading of the clock. What a machine does not get because it has something pressing to
    /// send stays in its slots until the next turn.
    fn read(&mut self) -> io::Result<Read> {
        let mut bytes_read = 0;
        let mut any = false;
        for _ in 0..self.limits.receive_calls.max(1) {
            if !std::mem::take(&mut self.unread) && self.receive()? == 0 {
                return Ok(Read { any, more: false, drained: true });
            }
            any = true;
            bytes_read += self.hand_over();
            let full = self.filled == self.slots.capacity();
            if self.machine.is_pressing() || !full || bytes_read >= self.limits.receive_bytes {
                // A batch that was not full was most likely all; the next turn looks again before it waits.
                let more = full || self.unread;
                return Ok(Read { any, more, drained: !more && self.socket.empties() });
            }
        }
        Ok(Read { any, more: true, drained: false })
    }

    /// Hands over the trains in the slots, all of them or until the machine has something pressing to send; how many
    /// bytes.
    fn hand_over(&mut self) -> usize {
        let now = self.clock.now();
        let mut bytes_read = 0;
        self.machine.expect(&mut self.slots.rest());
        while let Some((arrival, bytes)) = self.slots.next_train() {
            self.stats.trains_received += 1;
            self.stats.bytes_received += bytes.len() as u64;
            bytes_read += bytes.len();
            let meta = Meta { local: arrival.local, remote: arrival.remote, ecn: arrival.ecn, stride: arrival.stride };
            match &mut self.crossing {
                None => self.machine.receive(now, &meta, bytes),
                Some(crossing) => {
                    let machine = &mut self.machine;
                    crossing.sort(&mut self.stats, &meta, bytes, &mut |meta, run| machine.receive(now, meta, run));
                }
            }
            if self.machine.is_pressing() {
                self.unread = self.slots.has_more();
                break;
            }
        }
        if let Some(crossing) = &mut self.crossing {
            crossing.call();
        }
        bytes_read
    }

    /// Hands over what other workers left here; whether there was anything.
    fn read_mail(&mut self, now: Instant) -> bool {
        let Some(crossing) = self.crossing.as_mut().filter(|crossing| crossing.has_mail()) else { return false };
        let machine = &mut self.machine;
        let mine = &mut |meta: &Meta, run: &mut [u8]| {
            machine.receive(now, meta, run);
            !machine.is_pressing()
        };
        crossing.collect(&mut self.stats, self.limits.receive_bytes, mine);
        true
    }

    /// Sends the kept train and then new ones, within the turn's bounds; returns whether any went and whether more may be
    /// waiting.
    fn write(&mut self, began: Instant) -> (bool, bool) {
        let mut any = false;
        let mut now = began;
        let mut sent = 0;
        while sent < self.batch {
            let next = match self.kept.take() {
                Some(kept) => kept,
                None => match self.machine.fill(now, &mut self.train) {
                    Some(meta) => {
                        debug_assert!(meta.len > 0 && meta.len == self.train.len(), "a train of {} bytes", meta.len);
                        self.stats.handed += 1;
                        Kept { meta, cursor: 0, not_before: None, pauses: 0 }
                    }
                    None => return (any, false),
                },
            };
            if next.not_before.is_some_and(|at| at > now) {
                self.kept = Some(next);
                return (any, false);
            }
            let before = next.cursor;
            let meta = next.meta;
            let left = self.send(now, next);
            let went = left.unwrap_or(meta.len).saturating_sub(before);
            any |= left.is_none() || went > 0;
            sent += went.div_ceil(meta.segment.max(1));
            if left.is_some() {
                self.batch = sent.max(BATCH_MIN);
                return (any, false);
            }
            now = self.clock.now();
            if now.since(began) >= self.limits.budget {
                return (any, true);
            }
        }
        self.batch = (2 * self.batch).min(self.limits.datagrams.max(BATCH_MIN));
        (any, true)
    }

    /// Sends one train; when it has to be kept, returns its cursor.
    fn send(&mut self, now: Instant, mut train: Kept) -> Option<usize> {
        let meta = train.meta;
        let out = Outgoing {
            to: meta.to,
            from: meta.from,
            ecn: meta.ecn,
            segment: Some(meta.segment),
            bytes: self.train.bytes(),
        };
        let before = train.cursor;
        let outcome = self.socket.send(&out, &mut train.cursor);
        self.stats.bytes_sent += (train.cursor - before) as u64;
        if train.cursor > before {
            train.pauses = 0;
        }
        let outcome = match outcome {
            Outcome::Pause if train.pauses >= PAUSES_MAX => SendOutcome::Refused,
            Outcome::Full | Outcome::Pause => {
                self.stats.full += 1;
                let pause = outcome == Outcome::Pause;
                train.not_before = pause.then(|| now + PAUSE);
                train.pauses += u8::from(pause);
                let cursor = train.cursor;
                self.kept = Some(train);
                return Some(cursor);
            }
            Outcome::Sent => SendOutcome::Sent,
            Outcome::SentSplit => SendOutcome::NoOffload,
            Outcome::TooBig => SendOutcome::TooBig,
            Outcome::Refused => SendOutcome::Refused,
            Outcome::NoAddress => SendOutcome::NoAddress,
        };
        match outcome {
            SendOutcome::Sent | SendOutcome::NoOffload => self.stats.sent += 1,
            SendOutcome::TooBig => self.stats.too_big += 1,
            SendOutcome::Refused | SendOutcome::NoAddress => self.stats.refused += 1,
        }
        self.machine.sent(now, &meta, outcome);
        None
    }
}

/// What reading gave.
struct Read {
    /// Something came.
    any: bool,
    /// A bound was reached before the socket was empty.
    more: bool,
    /// The socket was empty at the end.
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "threads are told by the next wait"))]
    drained: bool,
}

#[cfg(all(test, debug_assertions))]
mod judged_tests;
#[cfg(test)]
mod tests;

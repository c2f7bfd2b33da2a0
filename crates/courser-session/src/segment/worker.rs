//! The worker's end of a segment: everything that comes out of shared memory is checked here.

use std::sync::Arc as StdArc;

use bytes::Bytes;

use super::{
    Fault,
    copy::{load, store},
    layout::{
        APPLICATION_ASLEEP, APPLICATION_GONE, COMPLETE_HEAD, COMPLETE_TAIL, Layout, SUBMIT_HEAD, SUBMIT_TAIL,
        WORKER_ASLEEP, WORKER_GONE,
    },
    payload,
    pool::{Pool, Run},
    raw::Memory,
    ring::{Lie, Place, Reader, Writer},
    setup::{BOARD, GROUP, LINE, PAYLOAD_MAX},
};
use crate::{
    doorbell::{Bell, Interest, RingCounts, doze, rouses, wakes},
    handle::Handle,
    msg::{BadMessage, Completion, Op, Payload, Raw, Submission},
    num::{clamp, widen},
    port::EventBell,
    sync::{Arc, AtomicU64, Ordering},
};

/// Sleeps that may end by a bell which was rung without need, before it is silenced anyway.
const IDLE_RINGS_MAX: u8 = 8;

/// The worker's end.
pub(crate) struct WorkerLink {
    memory: Arc<Memory>,
    layout: Layout,
    submissions: Reader,
    completions: Writer,
    pool: Pool,
    /// A message that waits until there are enough chunks in a row.
    stalled: Option<Completion>,
    /// The run found for the next message, which is still free.
    next: Option<Run>,
    application: StdArc<dyn Bell>,
    /// Rung by the application while this side sleeps; none where a test looks for itself.
    bell: Option<EventBell>,
    fault: Option<Fault>,
    counts: RingCounts,
    /// Bytes taken since the application heard of room.
    taken_bytes: u64,
    armed: bool,
    /// Sleeps since the bell was silenced.
    sleeps: u8,
}

pub(super) fn places(layout: &Layout) -> (Place, Place) {
    let submit = Place { tail: SUBMIT_TAIL, head: SUBMIT_HEAD, slots: layout.submissions, at: layout.submit_at };
    (submit, Place { tail: COMPLETE_TAIL, head: COMPLETE_HEAD, slots: layout.completions, at: layout.complete_at })
}

pub(super) fn board<'m>(memory: &'m Memory, layout: &Layout) -> &'m [AtomicU64] {
    &memory.words()[BOARD..layout.submit_at]
}

/// The bytes of a message that it needs chunks for.
fn payload_bytes(message: &Completion) -> usize {
    match message {
        Completion::Data { data, .. } | Completion::Datagram { data, .. } => data.len(),
        Completion::Failed { text, .. } | Completion::Closed { text, .. } => text.len().min(widen(PAYLOAD_MAX)),
        Completion::Stats { .. } => 64,
        Completion::Addresses { .. } => payload::ADDRESSES,
        _ => 0,
    }
}

impl WorkerLink {
    pub(super) fn new(
        memory: Arc<Memory>,
        layout: Layout,
        application: StdArc<dyn Bell>,
        bell: Option<EventBell>,
    ) -> Self {
        let (submit, complete) = places(&layout);
        Self {
            pool: Pool::new(layout.setup.inbound_chunks, layout.reserve),
            memory,
            layout,
            submissions: Reader::new(submit),
            completions: Writer::new(complete),
            stalled: None,
            next: None,
            application,
            bell,
            fault: None,
            counts: RingCounts::default(),
            taken_bytes: 0,
            armed: false,
            sleeps: 0,
        }
    }

    pub(crate) const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    fn blame<T>(&mut self, fault: Fault) -> Option<T> {
        self.fault.get_or_insert(fault);
        None
    }

    /// What is true, or nothing from now on.
    fn believe<T>(&mut self, claim: Result<T, Lie>, fault: Fault) -> Option<T> {
        claim.map_or_else(|Lie| self.blame(fault), Some)
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.memory.words()[at]
    }

    /// The next submission, or session and op of one that named a session of the wrong kind.
    pub(crate) fn pop(&mut self) -> Option<Result<Submission, (Handle, Op)>> {
        if self.fault.is_some() {
            return None;
        }
        let taken = self.submissions.take(&self.memory);
        let raw = self.believe(taken, Fault::Index)??;
        let message = self.open(raw);
        // Only now may the application write there again.
        self.submissions.release(&self.memory);
        match message {
            Ok(message) => Some(message),
            Err(fault) => self.blame(fault),
        }
    }

    fn open(&mut self, mut raw: Raw) -> Result<Result<Submission, (Handle, Op)>, Fault> {
        let op = Op::from_byte(raw.op).ok_or(Fault::Message(BadMessage::Op))?;
        let carried = match op {
            Op::Write | Op::Close | Op::Datagram => Some(Payload::Bytes(self.copy(&raw)?)),
            Op::Listen | Op::Connect => {
                let place = payload::to_endpoint(&self.copy(&raw)?).ok_or(Fault::Message(BadMessage::Payload))?;
                raw.len = 0;
                Some(Payload::Endpoint(Box::new(place)))
            }
            _ => None,
        };
        match (Submission::join(raw, carried), Handle::from_raw(raw.handle)) {
            (Ok(submission), _) => Ok(Ok(submission)),
            // A mistake of an honest application, answered as it is between threads.
            (Err(BadMessage::Handle), Some(handle)) => Ok(Err((handle, op))),
            (Err(why), _) => Err(Fault::Message(why)),
        }
    }

    /// Copies what a submission carries out of the arena, once.
    fn copy(&mut self, raw: &Raw) -> Result<Bytes, Fault> {
        if raw.len == 0 {
            return Ok(Bytes::new());
        }
        let arena = widen(self.layout.setup.outbound_bytes);
        let at = widen(raw.chunk).checked_mul(widen(LINE)).ok_or(Fault::Region)?;
        if raw.len > PAYLOAD_MAX || at >= arena || widen(raw.len) > arena - at {
            return Err(Fault::Region);
        }
        self.taken_bytes += u64::from(raw.len);
        Ok(load(&self.memory.words()[self.layout.arena_at + at / 8..], widen(raw.len)).into())
    }

    /// Slots of the submission ring.
    pub(crate) fn capacity(&self) -> usize {
        widen(self.submissions.capacity())
    }

    /// Whether so much was taken that an application which waits for room should hear of it.
    pub(crate) fn has_made_room(&self) -> bool {
        self.taken_bytes >= u64::from(self.layout.setup.outbound_bytes / 2)
    }

    pub(crate) fn has_submissions(&mut self) -> bool {
        if self.fault.is_some() {
            return false;
        }
        let len = self.submissions.len(&self.memory);
        self.believe(len, Fault::Index).is_some_and(|len| len > 0)
    }

    /// Whether the application is gone, or has to go, and all it asked was taken.
    pub(crate) fn is_finished(&mut self) -> bool {
        // In this order, as in `Consumer::is_finished`.
        let is_gone = self.word(APPLICATION_GONE).load(Ordering::Acquire) != 0;
        let has_more = self.has_submissions();
        self.fault.is_some() || is_gone && !has_more
    }

    /// A run for up to so many bytes; `exactly`: not a shorter one.
    fn find(&mut self, bytes: u32, exactly: bool) -> Option<Run> {
        let wanted = bytes.div_ceil(self.layout.setup.chunk_bytes).max(1);
        if exactly && wanted > GROUP {
            return None;
        }
        let count = wanted.min(GROUP);
        let run = self.pool.find(count, exactly).filter(|run| run.count == count && run.first < self.layout.reserve);
        if run.is_some() {
            return run;
        }
        let swept = self.pool.sweep(board(&self.memory, &self.layout));
        self.believe(swept, Fault::Chunk)?;
        self.pool.find(count, exactly)
    }

    /// Bytes that the next message may bring; `None` when there is no room for any message. What had to wait for room goes
    /// first.
    pub(crate) fn room(&mut self) -> Option<u32> {
        if self.fault.is_some() || !self.has_slot() {
            return None;
        }
        if let Some(message) = self.stalled.take() {
            self.put(message);
            if self.stalled.is_some() || !self.has_slot() {
                return None;
            }
        }
        self.next = self.find(PAYLOAD_MAX, false);
        self.next.map(|run| run.count * self.layout.setup.chunk_bytes)
    }

    fn has_slot(&mut self) -> bool {
        let room = self.completions.room(&self.memory);
        self.believe(room, Fault::Index).is_some_and(|room| room > 0)
    }

    /// Whether a turn could tell something more, given that there is something to be told.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.fault.is_some() || !self.has_slot() {
            return false;
        }
        match &self.stalled {
            Some(message) => {
                let bytes = clamp(payload_bytes(message));
                self.find(bytes, true).is_some()
            }
            None => self.find(1, false).is_some(),
        }
    }

    pub(crate) const fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// Puts a message into the ring, to be [published](Self::publish), or has it wait for chunks. There must be a slot.
    pub(crate) fn put(&mut self, message: Completion) {
        let bytes = payload_bytes(&message);
        if bytes > widen(PAYLOAD_MAX) {
            // No transport has such datagrams, and streams were asked for less.
            debug_assert!(false, "{bytes} bytes in one message");
            return;
        }
        let run = match (bytes, self.next.take()) {
            (0, _) => Run { first: 0, count: 0 },
            (bytes, Some(next)) if bytes <= widen(next.count * self.layout.setup.chunk_bytes) => {
                Run { count: clamp(bytes).div_ceil(self.layout.setup.chunk_bytes), ..next }
            }
            _ => match self.find(clamp(bytes), true) {
                Some(run) => run,
                None => {
                    self.stalled = Some(message);
                    return;
                }
            },
        };
        let (mut raw, carried) = message.split();
        if bytes > 0 {
            self.pool.take(run);
            raw.chunk = run.first;
            raw.len = clamp(bytes);
            let at = self.layout.pool_at + widen(run.first) * widen(self.layout.setup.chunk_bytes / 8);
            let words = &self.memory.words()[at..];
            match carried {
                Some(Payload::Bytes(data)) => store(words, &data[..bytes]),
                Some(Payload::Stats(stats)) => store(words, &payload::of_stats(&stats)),
                Some(Payload::Addresses(ends)) => store(words, &payload::of_addresses(&ends)),
                Some(Payload::Endpoint(_)) | None => {}
            }
        }
        self.completions.stage(&self.memory, raw);
    }

    /// Shows the application what was put in.
    pub(crate) fn publish(&mut self) {
        self.completions.publish(&self.memory);
    }

    /// Rings the application's bell if it sleeps and waits for this.
    pub(crate) fn notify(&mut self, news: Interest) {
        if news == Interest::ROOM {
            self.taken_bytes = 0;
        }
        if rouses(self.word(APPLICATION_ASLEEP), news) {
            self.counts.given += 1;
            self.application.ring();
        } else {
            self.counts.saved += 1;
        }
    }

    pub(crate) const fn counts(&self) -> RingCounts {
        self.counts
    }

    pub(crate) const fn bell(&self) -> Option<&EventBell> {
        self.bell.as_ref()
    }

    /// This side is about to sleep, and looks once more afterwards.
    pub(crate) fn arm(&mut self, interest: Interest) {
        self.armed = true;
        doze(self.word(WORKER_ASLEEP), interest);
    }

    /// Whether the application took note that this side sleeps, and rings.
    pub(crate) fn is_rung(&self) -> bool {
        self.armed && self.word(WORKER_ASLEEP).load(Ordering::Acquire) == 0
    }

    /// This side is awake. The bell is silenced when it was rung: a system call that is spared when something else ended the
    /// sleep, but not for ever, since a bell may also be rung late, or without need.
    pub(crate) fn disarm(&mut self) {
        if !core::mem::take(&mut self.armed) {
            return;
        }
        self.sleeps += 1;
        if !wakes(self.word(WORKER_ASLEEP)) || self.sleeps >= IDLE_RINGS_MAX {
            self.sleeps = 0;
            if let Some(bell) = &self.bell {
                bell.clear();
            }
        }
    }

    /// Nothing more will be told.
    pub(crate) fn close(&mut self) {
        self.word(WORKER_GONE).store(1, Ordering::Release);
    }
}

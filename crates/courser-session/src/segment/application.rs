//! The application's end of a segment. It trusts its service, but not the words of a segment: what cannot be true ends the port.

use core::fmt;
use std::collections::VecDeque;
use std::sync::Arc as StdArc;

use bytes::Bytes;

use super::{
    arena::Arena,
    copy::{load, store},
    layout::{APPLICATION_ASLEEP, APPLICATION_GONE, Layout, WORKER_ASLEEP, WORKER_GONE},
    payload, pool,
    raw::Memory,
    ring::{Reader, Writer},
    setup::PAYLOAD_MAX,
    worker::{board, places},
};
use crate::{
    credit::WriteCredit,
    doorbell::{Bell, Interest, RingCounts, doze, rouses, wakes},
    handle::Handle,
    msg::{Completion, Op, Payload, Raw, Rejection, Submission},
    num::{clamp, wide, widen},
    port::{AppPort, Port, SubmitError},
    ring::PushError,
    sync::{Arc, AtomicU64, Ordering},
};

/// Bytes up to which a copy costs less than keeping a chunk and giving it back.
const COPY_MAX: usize = 1024;
/// A write is not cut shorter than this for want of room in one place.
const SCRAP_MAX: usize = 4096;

/// What the port and the chunks that the application keeps have in common.
pub(super) struct Here {
    memory: Arc<Memory>,
    layout: Layout,
    /// Rings the worker.
    bell: StdArc<dyn Bell>,
}

impl Here {
    pub(super) fn new(memory: Arc<Memory>, layout: Layout, bell: StdArc<dyn Bell>) -> Self {
        Self { memory, layout, bell }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.memory.words()[at]
    }

    /// Tells the worker, if it sleeps and waits for this. Whether it had to be told.
    fn notify(&self, news: Interest) -> bool {
        let rings = rouses(self.word(WORKER_ASLEEP), news);
        if rings {
            self.bell.ring();
        }
        rings
    }

    fn give_back(&self, chunk: u32) {
        pool::give_back(board(&self.memory, &self.layout), chunk);
    }
}

/// The application's side of a port to a worker in another process. One thread at a time; the bytes that it delivers may go
/// anywhere, and outlive it.
pub struct SharedPort {
    here: StdArc<Here>,
    submissions: Writer,
    completions: Reader,
    arena: Arena,
    /// The rest of a write that is longer than a message: it goes before everything else.
    backlog: Option<(Handle, Bytes, bool)>,
    /// Answers to submissions that cannot cross the border, at most as many as completions.
    answers: VecDeque<Completion>,
    /// Completions read since the worker heard of room.
    read: u32,
    /// What the worker said cannot be true.
    broken: bool,
    counts: RingCounts,
}

/// Bytes of the arena that a submission needs.
fn payload_bytes(submission: &Submission) -> usize {
    match submission {
        Submission::Write { data, .. } | Submission::Datagram { data, .. } => data.len(),
        Submission::Close { reason, .. } => reason.len().min(widen(PAYLOAD_MAX)),
        // The longest place.
        Submission::Listen { .. } | Submission::Connect { .. } => 2048,
        _ => 0,
    }
}

impl SharedPort {
    /// Maps a segment that the service offered.
    ///
    /// # Errors
    /// When the segment is not what the offer says, or is not sealed, or the system has no memory left.
    #[cfg(not(all(loom, test)))]
    pub fn map(offer: super::Offer) -> std::io::Result<Self> {
        super::shared::accept(offer).map(Self::new)
    }

    pub(super) fn new(here: Here) -> Self {
        let (submit, complete) = places(&here.layout);
        Self {
            submissions: Writer::new(submit),
            completions: Reader::new(complete),
            arena: Arena::new(here.layout.setup.outbound_bytes, here.layout.submissions.count()),
            here: StdArc::new(here),
            backlog: None,
            answers: VecDeque::new(),
            read: 0,
            broken: false,
            counts: RingCounts::default(),
        }
    }

    /// How often the worker had to be woken.
    #[must_use]
    pub const fn ring_counts(&self) -> RingCounts {
        self.counts
    }

    fn notify(&mut self, news: Interest) {
        let count = if self.here.notify(news) { &mut self.counts.given } else { &mut self.counts.saved };
        *count += 1;
    }

    /// Whether the ring has a slot; what the worker took meanwhile is free again.
    fn has_slot(&mut self) -> bool {
        let room = self.submissions.room(&self.here.memory);
        self.arena.release(self.submissions.seen_head);
        self.broken |= room.is_err();
        !self.broken && room.is_ok_and(|room| room > 0)
    }

    /// A region of the arena, after a look at what the worker took if there is none. See [`Arena::find`].
    fn find(&mut self, wanted: usize, least: usize) -> Option<(u32, usize)> {
        if wanted == 0 {
            return Some((0, 0));
        }
        let found = self.arena.find(wanted, least).filter(|(_, granted)| *granted >= wanted);
        if found.is_some() {
            return found;
        }
        self.broken |= self.submissions.look(&self.here.memory).is_err();
        self.arena.release(self.submissions.seen_head);
        self.arena.find(wanted, least)
    }

    /// Puts a message into its slot, with bytes that lie at that line, to be published.
    fn stage(&mut self, mut raw: Raw, at: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            raw.len = clamp(bytes.len());
            raw.chunk = at;
            store(&self.here.memory.words()[self.here.layout.arena_at + widen(at) * 8..], bytes);
        }
        self.arena.commit(self.submissions.position(), at, bytes.len());
        self.submissions.stage(&self.here.memory, raw);
    }

    /// Publishes what was staged, and tells the worker.
    fn publish(&mut self) {
        self.submissions.publish(&self.here.memory);
        self.notify(Interest::MESSAGES);
    }

    /// Writes as many bytes as there is room for in one place; how many.
    fn write_some(&mut self, stream: Handle, data: &[u8], fin: bool) -> usize {
        let wanted = data.len().min(widen(PAYLOAD_MAX));
        if !self.has_slot() {
            return 0;
        }
        let Some((at, granted)) = self.find(wanted, wanted.min(SCRAP_MAX)) else { return 0 };
        let count = granted.min(wanted);
        let fin = fin && count == data.len();
        // The bytes go beside the message, not inside it.
        let (raw, _) = Submission::Write { stream, data: Bytes::new(), fin }.split();
        self.stage(raw, at, &data[..count]);
        self.publish();
        count
    }

    /// Sends what is left of a long write, as far as there is room. Whether nothing is left.
    fn pump(&mut self) -> bool {
        while let Some((stream, mut data, fin)) = self.backlog.take() {
            let count = self.write_some(stream, &data, fin);
            if count < data.len() {
                let _ = data.split_to(count);
                self.backlog = Some((stream, data, fin));
                if count == 0 {
                    return false;
                }
            }
        }
        true
    }

    /// Puts one submission into the ring, to be published, or where it waits.
    fn put(&mut self, submission: Submission) -> Result<(), SubmitError> {
        if self.answers.len() >= widen(self.completions.capacity()) || !self.has_slot() {
            return Err(PushError::Full(submission));
        }
        match submission {
            Submission::Write { stream, data, fin } if data.len() > widen(PAYLOAD_MAX) => {
                self.backlog = Some((stream, data, fin));
                self.pump();
                return Ok(());
            }
            Submission::Datagram { connection: handle, data, .. } if data.len() > widen(PAYLOAD_MAX) => {
                self.answers.push_back(Completion::Rejected { handle, op: Op::Datagram, why: Rejection::Argument });
                return Ok(());
            }
            _ => {}
        }
        let bytes = payload_bytes(&submission);
        let Some((at, _)) = self.find(bytes, bytes) else { return Err(PushError::Full(submission)) };
        let (raw, carried) = submission.split();
        match carried {
            Some(Payload::Bytes(data)) => self.stage(raw, at, &data[..bytes]),
            Some(Payload::Endpoint(place)) => self.stage(raw, at, &payload::of_endpoint(&place)),
            Some(Payload::Stats(_) | Payload::Addresses(_)) | None => self.stage(raw, at, &[]),
        }
        Ok(())
    }

    /// The next completion of the ring.
    fn take(&mut self) -> Option<Completion> {
        if self.broken {
            return None;
        }
        let opened = match self.completions.take(&self.here.memory) {
            Ok(None) => return None,
            Ok(Some(raw)) => self.open(raw),
            Err(_) => None,
        };
        self.broken |= opened.is_none();
        self.read += 1;
        opened
    }

    /// Puts a message together; `None` when it makes no sense.
    fn open(&self, mut raw: Raw) -> Option<Completion> {
        let carried = match Op::from_byte(raw.op)? {
            Op::Data | Op::DatagramIn | Op::Failed | Op::Closed => Some(Payload::Bytes(self.bytes(&raw)?)),
            Op::Addresses => {
                let ends = payload::to_addresses(&self.bytes(&raw)?)?;
                raw.len = 0;
                Some(Payload::Addresses(Box::new(ends)))
            }
            Op::StatsReply => {
                let stats = payload::to_stats(&self.bytes(&raw)?)?;
                raw.len = 0;
                Some(Payload::Stats(Box::new(stats)))
            }
            _ => None,
        };
        Completion::join(raw, carried).ok()
    }

    /// What a completion brought: copied when it is short or lies in the reserve, otherwise where it is.
    fn bytes(&self, raw: &Raw) -> Option<Bytes> {
        let (here, chunk, len) = (&self.here, raw.chunk, widen(raw.len));
        if len == 0 {
            return Some(Bytes::new());
        }
        let setup = here.layout.setup;
        let end = wide(widen(chunk)) * u64::from(setup.chunk_bytes) + u64::from(raw.len);
        if raw.len > PAYLOAD_MAX || end > u64::from(setup.chunk_bytes) * u64::from(setup.inbound_chunks) {
            return None;
        }
        let at = here.layout.pool_at + widen(chunk) * widen(setup.chunk_bytes / 8);
        #[cfg(not(all(loom, test)))]
        if len > COPY_MAX && chunk < here.layout.reserve {
            let owner = StdArc::clone(here);
            return super::raw::Lent::bytes(&here.memory, at, len, move || {
                owner.give_back(chunk);
                owner.notify(Interest::ROOM);
            });
        }
        let bytes = load(&here.memory.words()[at..], len);
        // The worker hears of it with the room in the ring.
        here.give_back(chunk);
        Some(bytes.into())
    }

    /// Gives slots back and tells a worker that waits for room: when everything was read, and every half ring.
    fn freed(&mut self, count: usize) {
        if count > 0 {
            self.completions.release(&self.here.memory);
        }
        if self.read > 0 && (count == 0 || self.read >= self.completions.capacity().div_ceil(2)) {
            self.read = 0;
            self.notify(Interest::ROOM);
        }
    }

    fn is_worker_gone(&self) -> bool {
        self.broken || self.here.word(WORKER_GONE).load(Ordering::Acquire) != 0
    }
}

impl Port for SharedPort {
    fn submit(&mut self, submission: Submission) -> Result<(), SubmitError> {
        if self.is_worker_gone() {
            return Err(PushError::Closed(submission));
        }
        if !self.pump() {
            return Err(PushError::Full(submission));
        }
        self.put(submission)?;
        self.publish();
        Ok(())
    }

    fn submit_batch(&mut self, batch: &mut dyn Iterator<Item = Submission>) -> usize {
        let mut count = 0;
        if self.is_worker_gone() {
            return 0;
        }
        while self.has_room() {
            let Some(submission) = batch.next() else { break };
            if self.put(submission).is_err() {
                debug_assert!(false, "there was room for any message");
                break;
            }
            count += 1;
        }
        if count > 0 {
            self.publish();
        }
        count
    }

    /// Whether any submission could be handed over now, with as many bytes as a message carries.
    fn has_room(&mut self) -> bool {
        let longest = widen(PAYLOAD_MAX.min(self.here.layout.setup.outbound_bytes));
        let has_answers = self.answers.len() < widen(self.completions.capacity());
        self.pump() && has_answers && self.has_slot() && self.find(longest, longest).is_some()
    }

    fn poll(&mut self) -> Option<Completion> {
        self.pump();
        let message = self.answers.pop_front().or_else(|| self.take());
        self.freed(usize::from(message.is_some()));
        message
    }

    fn poll_into(&mut self, into: &mut Vec<Completion>, max: usize) -> usize {
        self.pump();
        let before = into.len();
        while into.len() - before < max {
            let Some(message) = self.answers.pop_front().or_else(|| self.take()) else { break };
            into.push(message);
        }
        let count = into.len() - before;
        self.freed(count);
        count
    }

    fn write(&mut self, stream: Handle, credit: &mut WriteCredit, data: &mut Bytes, fin: bool) -> usize {
        let count = self.write_slice(stream, credit, data, fin);
        let _ = data.split_to(count);
        count
    }
}

impl AppPort for SharedPort {
    fn write_slice(&mut self, stream: Handle, credit: &mut WriteCredit, data: &[u8], fin: bool) -> usize {
        let spent = credit.spend(data.len());
        let count = if spent == 0 || self.is_worker_gone() || !self.pump() {
            0
        } else {
            self.write_some(stream, &data[..spent], fin && spent == data.len())
        };
        credit.restore(spent - count);
        count
    }

    fn arm(&mut self, interest: Interest) {
        // What waits for room here waits with everybody.
        let interest = if self.backlog.is_some() { Interest::ANY } else { interest };
        doze(self.here.word(APPLICATION_ASLEEP), interest);
        self.freed(0);
    }

    fn disarm(&mut self) {
        wakes(self.here.word(APPLICATION_ASLEEP));
    }

    fn has_news(&mut self) -> bool {
        // Room that was made before it was armed is told by nobody any more.
        self.pump();
        // In this order: what was said before the worker went is seen.
        let is_gone = self.is_worker_gone();
        is_gone || !self.answers.is_empty() || self.completions.len(&self.here.memory) != Ok(0)
    }

    fn is_closed(&self) -> bool {
        self.is_worker_gone()
    }
}

impl fmt::Debug for SharedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedPort").field("closed", &self.is_worker_gone()).finish_non_exhaustive()
    }
}

/// The worker learns of it at once and ends the port's sessions.
impl Drop for SharedPort {
    fn drop(&mut self) {
        self.here.word(APPLICATION_GONE).store(1, Ordering::Release);
        self.notify(Interest::ANY);
    }
}

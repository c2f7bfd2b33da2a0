//! The meeting place of a stream's handles and the worker.
//!
//! Each half has a queue of owned bytes under a lock of its own, held only to move queue entries, never while bytes are
//! copied into packets or out of them. A half whose worker has something to do is *queued*: the slot stands in the hub's
//! inbox at most once, whatever its handles did since.
//!
//! Back-pressure is byte credit: a stream always has [`WINDOW_MIN`] bytes each way between handle and worker, and
//! [`WINDOW_MAX`] while its connection holds less than [`CONN_BUDGET`]. What does not fit stays with the caller (sending)
//! or in the engine, where it holds back the peer by flow control (receiving).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use courser_core::engine::Engine;
use courser_core::ids::{ConnKey, Side, StreamId};
use courser_core::stream::Priority;
use courser_session::handle::Handle;

use self::transfer::{Fetched, fetch, hand_over};
use super::blocks::Blocks;
use super::conn::ConnSlot;
use crate::error::{ReadError, WriteError};
use crate::wait::{Woken, lock, wait_alone};

mod giving_up;
mod metering;
mod transfer;

use self::giving_up::GivingUp;
#[cfg(feature = "h3")]
pub(crate) use self::metering::Credit;
use self::metering::{RecvAccount, SETTLED, SendAccount};

/// Bytes that every stream may have waiting, each way.
const WINDOW_MIN: usize = 64 << 10;
/// Bytes that a stream may have waiting while its connection is within its budget, each way.
const WINDOW_MAX: usize = 512 << 10;
/// Bytes of all streams of a connection that may wait, each way, before streams are held to the minimum.
pub(super) const CONN_BUDGET: usize = 8 << 20;
/// Smallest allocation that small writes gather in.
const GATHER_MIN: usize = 4 << 10;
/// The same for the first write, which often is the only one: a small answer.
const GATHER_FIRST: usize = 512;
/// A corked stream is handed over when so much has gathered: more than any packet holds.
const CORK_BYTES: usize = 16 << 10;

/// Bit of [`StreamSlot::over`]: sending is over.
const SENT: u8 = 1;
/// Bit of [`StreamSlot::over`]: receiving is over.
const RECEIVED: u8 = 2;

/// One stream, between its handles and the worker.
pub(crate) struct StreamSlot {
    pub(crate) conn: Arc<ConnSlot>,
    pub(crate) id: StreamId,
    /// The session; there is none before the worker has heard of the stream.
    handle: OnceLock<Handle>,
    /// Whether it stands in the inbox.
    queued: AtomicBool,
    /// Which halves have nothing left to do between handles and engine.
    over: AtomicU8,
    send: Mutex<SendHalf>,
    recv: Mutex<RecvHalf>,
}

/// How sending ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SendEnd {
    /// The peer has everything.
    Acked,
    /// The peer wanted no more.
    Stopped(u64),
    /// It was reset here.
    Reset,
    /// The connection ended before.
    Lost,
}

#[derive(Default)]
struct SendHalf {
    /// Bytes that the worker has not taken, oldest first.
    out: VecDeque<Bytes>,
    /// Small writes gather here; younger than `out`.
    tail: BytesMut,
    /// Bytes in both.
    held: usize,
    /// Small writes stay here until there are more.
    corked: bool,
    /// What is here goes all the same.
    flushed: bool,
    /// The application said that nothing follows.
    finish: bool,
    /// The engine was told so.
    finish_told: bool,
    /// Bytes that were written, here or in the engine.
    written: u64,
    /// The application gave up.
    given_up: Option<GivingUp>,
    /// To be told to the engine.
    priority: Option<Priority>,
    end: Option<SendEnd>,
    waker: Option<Waker>,
    /// What a limit that streams share counts.
    account: Option<Box<SendAccount>>,
}

impl SendHalf {
    /// Whether what is here waits for more.
    const fn holds_back(&self) -> bool {
        self.corked && !self.flushed && !self.finish && self.given_up.is_none() && self.held < CORK_BYTES
    }
}

/// How receiving ended, behind the bytes that are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecvEnd {
    Fin,
    Reset(u64),
    /// The connection ended before.
    Lost,
}

#[derive(Default)]
struct RecvHalf {
    ready: VecDeque<Bytes>,
    /// Bytes in `ready`.
    held: usize,
    /// Bytes that were fetched from the engine, ever.
    moved: u64,
    /// How far the stream is known to go, when that may be further.
    reach: u64,
    /// The engine has bytes that found no room.
    more: bool,
    end: Option<RecvEnd>,
    /// The application wants no more, with this code.
    stop: Option<u64>,
    /// The engine was told so.
    stop_told: bool,
    /// The first bytes came as 0-RTT.
    early: bool,
    waker: Option<Waker>,
    /// What a limit that streams share counts.
    account: Option<Box<RecvAccount>>,
}

/// What a reader gets.
pub(crate) enum Taken {
    /// Everything that was ready.
    Chunks,
    /// The end of the stream.
    Fin,
}

impl StreamSlot {
    /// A stream at this side of its connection.
    pub(super) fn new(conn: Arc<ConnSlot>, id: StreamId, side: Side) -> Arc<Self> {
        let sent = if id.sends(side) { 0 } else { SENT };
        let received = if id.receives(side) { 0 } else { RECEIVED };
        Arc::new(Self {
            conn,
            id,
            handle: OnceLock::new(),
            queued: AtomicBool::new(false),
            over: AtomicU8::new(sent | received | SETTLED),
            send: Mutex::default(),
            recv: Mutex::default(),
        })
    }

    /// The session handle; known as soon as the worker has heard of the stream.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.handle.get().copied()
    }

    /// Asks the worker to look at this stream.
    pub(crate) fn kick(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.conn.shared.queue_stream(Arc::clone(self));
        }
    }

    /// The worker takes it from the inbox.
    pub(super) fn unqueue(&self) {
        self.queued.swap(false, Ordering::AcqRel);
    }

    pub(super) fn set_early(&self, early: bool) {
        lock(&self.recv).early = early;
    }

    /// Whether what is read may be a replay.
    pub(crate) fn is_early(&self) -> bool {
        !self.conn.is_established() && lock(&self.recv).early
    }

    // ---- what the sending handle calls ----

    /// Copies bytes in; pending while there is no room.
    pub(crate) fn poll_write(self: &Arc<Self>, cx: &Context<'_>, data: &[u8]) -> Poll<Result<usize, WriteError>> {
        let mut send = lock(&self.send);
        if let Err(e) = self.check_writable(&send) {
            return Poll::Ready(Err(e));
        }
        let n = data.len().min(self.send_window().saturating_sub(send.held));
        if n == 0 && !data.is_empty() {
            wait_alone(&mut send.waker, cx);
            return Poll::Pending;
        }
        if send.tail.capacity() - send.tail.len() < n {
            let least = if send.written == 0 { GATHER_FIRST } else { GATHER_MIN };
            let full = std::mem::replace(&mut send.tail, BytesMut::with_capacity(n.max(least)));
            if !full.is_empty() {
                send.out.push_back(full.freeze());
            }
        }
        send.tail.extend_from_slice(&data[..n]);
        self.wrote(send, n);
        Poll::Ready(Ok(n))
    }

    /// Takes bytes off the front of `data` without copying them; pending while there is no room.
    pub(crate) fn poll_write_owned(
        self: &Arc<Self>,
        cx: &Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, WriteError>> {
        let mut send = lock(&self.send);
        if let Err(e) = self.check_writable(&send) {
            return Poll::Ready(Err(e));
        }
        let n = data.len().min(self.send_window().saturating_sub(send.held));
        if n == 0 && !data.is_empty() {
            wait_alone(&mut send.waker, cx);
            return Poll::Pending;
        }
        if !send.tail.is_empty() {
            let gathered = send.tail.split().freeze();
            send.out.push_back(gathered);
        }
        if n > 0 {
            send.out.push_back(data.split_to(n));
        }
        self.wrote(send, n);
        Poll::Ready(Ok(n))
    }

    fn wrote(self: &Arc<Self>, mut send: std::sync::MutexGuard<'_, SendHalf>, n: usize) {
        send.held += n;
        send.written += n as u64;
        self.conn.unsent.fetch_add(n, Ordering::Relaxed);
        let hold_back = send.holds_back();
        drop(send);
        if n > 0 && !hold_back {
            self.kick();
        }
    }

    fn check_writable(&self, send: &SendHalf) -> Result<(), WriteError> {
        match send.end {
            Some(SendEnd::Stopped(code)) => Err(WriteError::Stopped(code)),
            Some(SendEnd::Lost) => Err(WriteError::Closed(self.conn.reason())),
            _ if send.finish || send.given_up.is_some() => Err(WriteError::Finished),
            _ => Ok(()),
        }
    }

    fn send_window(&self) -> usize {
        if self.conn.unsent.load(Ordering::Relaxed) < CONN_BUDGET { WINDOW_MAX } else { WINDOW_MIN }
    }

    /// Nothing follows.
    pub(crate) fn finish(self: &Arc<Self>) -> Result<(), WriteError> {
        let mut send = lock(&self.send);
        self.check_writable(&send)?;
        send.finish = true;
        drop(send);
        self.kick();
        Ok(())
    }

    /// Whether small writes wait for more.
    pub(crate) fn set_corked(self: &Arc<Self>, corked: bool) {
        let mut send = lock(&self.send);
        send.corked = corked;
        drop(send);
        if !corked {
            self.kick();
        }
    }

    /// Hands everything written over, corked or not.
    pub(crate) fn flush(self: &Arc<Self>) -> Result<(), WriteError> {
        let mut send = lock(&self.send);
        match send.end {
            Some(SendEnd::Stopped(code)) => return Err(WriteError::Stopped(code)),
            Some(SendEnd::Lost) => return Err(WriteError::Closed(self.conn.reason())),
            _ => {}
        }
        let any = send.held > 0;
        send.flushed |= any;
        drop(send);
        if any {
            self.kick();
        }
        Ok(())
    }

    pub(crate) fn set_priority(self: &Arc<Self>, priority: Priority) {
        lock(&self.send).priority = Some(priority);
        self.kick();
    }

    /// Ready when the peer has everything, the end included, or all that was promised, or never will.
    pub(crate) fn poll_acked(&self, cx: &Context<'_>) -> Poll<Result<(), WriteError>> {
        let mut send = lock(&self.send);
        Poll::Ready(match send.end {
            Some(SendEnd::Acked) => Ok(()),
            Some(SendEnd::Stopped(code)) => Err(WriteError::Stopped(code)),
            Some(SendEnd::Lost) => Err(WriteError::Closed(self.conn.reason())),
            Some(SendEnd::Reset) => Err(WriteError::Finished),
            _ if send.given_up.is_some_and(|g| !g.delivers()) => Err(WriteError::Finished),
            _ if !send.finish && send.given_up.is_none() => Err(WriteError::NotFinished),
            _ => {
                wait_alone(&mut send.waker, cx);
                return Poll::Pending;
            }
        })
    }

    /// Ready when the peer stopped the stream (its code), or it ended otherwise (none).
    pub(crate) fn poll_stopped(&self, cx: &Context<'_>) -> Poll<Result<Option<u64>, WriteError>> {
        let mut send = lock(&self.send);
        Poll::Ready(match send.end {
            Some(SendEnd::Stopped(code)) => Ok(Some(code)),
            Some(SendEnd::Acked | SendEnd::Reset) => Ok(None),
            Some(SendEnd::Lost) => Err(WriteError::Closed(self.conn.reason())),
            None => {
                wait_alone(&mut send.waker, cx);
                return Poll::Pending;
            }
        })
    }

    // ---- what the receiving handle calls ----

    /// Moves everything that is ready into `into`, which has to be empty.
    pub(crate) fn poll_take(
        self: &Arc<Self>,
        cx: &Context<'_>,
        into: &mut VecDeque<Bytes>,
    ) -> Poll<Result<Taken, ReadError>> {
        debug_assert!(into.is_empty(), "what was taken before is read first");
        let mut recv = lock(&self.recv);
        if recv.stop.is_some() {
            return Poll::Ready(Err(ReadError::Stopped));
        }
        if !recv.ready.is_empty() {
            std::mem::swap(&mut recv.ready, into);
            self.conn.unread.fetch_sub(recv.held, Ordering::Relaxed);
            recv.held = 0;
            recv.settle();
            let more = recv.more;
            drop(recv);
            if more {
                self.kick();
            }
            return Poll::Ready(Ok(Taken::Chunks));
        }
        match recv.end {
            Some(RecvEnd::Fin) => Poll::Ready(Ok(Taken::Fin)),
            Some(RecvEnd::Reset(code)) => Poll::Ready(Err(ReadError::Reset(code))),
            Some(RecvEnd::Lost) => Poll::Ready(Err(ReadError::Closed(self.conn.reason()))),
            None => {
                wait_alone(&mut recv.waker, cx);
                Poll::Pending
            }
        }
    }

    /// Asks the peer to send no more; what came is dropped.
    pub(crate) fn stop(self: &Arc<Self>, code: u64) {
        let mut recv = lock(&self.recv);
        if recv.stop.is_some() {
            return;
        }
        recv.stop = Some(code);
        let (ended, reader) = (recv.end.is_some(), recv.waker.take());
        self.drop_ready(&mut recv);
        drop(recv);
        // Another task may wait for what will not come.
        if let Some(reader) = reader {
            reader.wake();
        }
        if !ended {
            self.kick();
        }
    }

    fn drop_ready(&self, recv: &mut RecvHalf) {
        recv.ready = VecDeque::new();
        self.conn.unread.fetch_sub(std::mem::take(&mut recv.held), Ordering::Relaxed);
        recv.settle();
    }

    // ---- what the worker calls ----

    /// The worker entered it into its books.
    pub(super) fn bind(&self, handle: Handle) {
        let fresh = self.handle.set(handle).is_ok();
        debug_assert!(fresh, "a stream has one session");
    }

    /// Moves written bytes, the end, a reset or a priority into the engine.
    pub(super) fn pump_send(self: &Arc<Self>, engine: &mut Engine, key: ConnKey, woken: &mut Woken) {
        let mut send = lock(&self.send);
        if let Some(priority) = send.priority.take() {
            // The stream may be gone; then nobody is interested.
            let _ = engine.set_priority(key, self.id, priority);
        }
        if send.end.is_some() {
            return self.drop_unsent(&mut send);
        }
        if let Some(GivingUp { code, reliable_size: 0, .. }) = send.given_up {
            send.end = Some(SendEnd::Reset);
            self.end_half(SENT);
            self.drop_unsent(&mut send);
            woken.add(&mut send.waker);
            drop(send);
            let _ = engine.reset(key, self.id, code);
            return self.count(engine, key);
        }
        if send.holds_back() {
            return;
        }
        send.flushed = false;
        let mut out = std::mem::take(&mut send.out);
        if !send.tail.is_empty() {
            let gathered = send.tail.split().freeze();
            out.push_back(gathered);
        }
        let finish = send.finish && !send.finish_told && send.given_up.is_none();
        let granted = send.grant(&out, self);
        drop(send);
        let (taken, failed) = hand_over((engine, key, self.id), &mut out, granted);
        let all = out.is_empty() && !failed;
        let told = finish && all && engine.finish(key, self.id).is_ok();
        self.conn.unsent.fetch_sub(taken, Ordering::Relaxed);
        let mut send = lock(&self.send);
        send.held -= taken;
        send.settle_grant(granted);
        send.finish_told |= told;
        if failed {
            // The event that tells why is on its way.
            let lost: usize = out.iter().map(Bytes::len).sum();
            send.held -= lost;
            self.conn.unsent.fetch_sub(lost, Ordering::Relaxed);
        } else if !out.is_empty() {
            // What was written meanwhile comes behind what is left.
            let younger = std::mem::replace(&mut send.out, out);
            send.out.extend(younger);
        } else if send.out.capacity() == 0 {
            // Its memory serves the next writes.
            send.out = out;
        }
        if send.held <= self.send_window() / 2 && !send.finish {
            woken.add(&mut send.waker);
        }
        self.tell_given_up(send, engine, key, woken);
    }

    fn drop_unsent(&self, send: &mut SendHalf) {
        (send.out, send.tail) = (VecDeque::new(), BytesMut::new());
        self.conn.unsent.fetch_sub(std::mem::take(&mut send.held), Ordering::Relaxed);
    }

    /// Moves received bytes out of the engine, as many as there is room for; all of them with `all`.
    pub(super) fn pump_recv(
        &self,
        (engine, blocks): (&mut Engine, &mut Blocks),
        key: ConnKey,
        all: bool,
        woken: &mut Woken,
    ) {
        let (stop, held, metered) = {
            let recv = lock(&self.recv);
            if recv.end.is_some() || recv.stop_told {
                drop(recv);
                return self.count(engine, key);
            }
            (recv.stop, recv.held, recv.account.is_some())
        };
        if let Some(code) = stop {
            let _ = engine.stop_sending(key, self.id, code);
            lock(&self.recv).stop_told = true;
            self.end_half(RECEIVED);
            return self.count(engine, key);
        }
        let window = if self.conn.unread.load(Ordering::Relaxed) < CONN_BUDGET { WINDOW_MAX } else { WINDOW_MIN };
        let room = if all { usize::MAX } else { window.saturating_sub(held) };
        if metered {
            self.count(engine, key);
        }
        let mut got = VecDeque::new();
        let Fetched { bytes, end, more, reach } = fetch((engine, blocks), key, self.id, room, &mut got);
        let mut recv = lock(&self.recv);
        (recv.more, recv.end) = (more, end);
        recv.moved += bytes as u64;
        recv.reach = recv.reach.max(reach);
        if end.is_some() {
            self.end_half(RECEIVED);
        }
        if recv.stop.is_none() {
            recv.held += bytes;
            self.conn.unread.fetch_add(bytes, Ordering::Relaxed);
            if recv.ready.is_empty() {
                recv.ready = got;
            } else {
                recv.ready.append(&mut got);
            }
        }
        recv.settle();
        if bytes > 0 || end.is_some() {
            woken.add(&mut recv.waker);
        }
    }

    /// The peer has everything, or all that was promised.
    pub(super) fn on_acked(&self, woken: &mut Woken) {
        self.end_send(SendEnd::Acked, woken);
    }

    /// The peer wants no more.
    pub(super) fn on_stopped(&self, code: u64, (engine, key): (&Engine, ConnKey), woken: &mut Woken) {
        self.end_send(SendEnd::Stopped(code), woken);
        self.count(engine, key);
    }

    fn end_send(&self, end: SendEnd, woken: &mut Woken) {
        let mut send = lock(&self.send);
        send.end.get_or_insert(end);
        self.end_half(SENT);
        self.drop_unsent(&mut send);
        woken.add(&mut send.waker);
    }

    /// The connection ended; bytes that are ready can still be read.
    pub(super) fn on_lost(&self, woken: &mut Woken) {
        self.end_send(SendEnd::Lost, woken);
        let mut recv = lock(&self.recv);
        recv.end.get_or_insert(RecvEnd::Lost);
        recv.more = false;
        self.end_half(RECEIVED | SETTLED);
        woken.add(&mut recv.waker);
    }

    fn end_half(&self, half: u8) {
        self.over.fetch_or(half, Ordering::Relaxed);
    }

    /// Whether nothing more will happen between handles and engine. Only the worker sets that, and asks.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) == SENT | RECEIVED | SETTLED
    }

    /// Whether the application finished the stream, or promised some of it, and the peer may not have that yet.
    pub(super) fn is_unacked(&self) -> bool {
        let send = lock(&self.send);
        (send.finish || send.given_up.is_some_and(|g| g.delivers())) && send.end.is_none()
    }
}

//! Streams that count against a limit which many of them share: those of a WebTransport session.
//!
//! A half of a stream has an account when such a limit concerns it: how many bytes at its beginning are not counted, and how
//! many were. Sending: credit is taken when bytes go to the engine, and what the engine did not take, or a reset kept from
//! leaving, is given back. Receiving: bytes count as they come, whether they were fetched or not, up to the final size; and as
//! consumed when a reader has them, or nobody will. The engine tells the last figures when the stream is over, which is when the
//! slot leaves the books, and what makes the peer's next stream possible.
//!
//! Locks: a half's, then the limit's. What the limit wakes it wakes by itself.
#![cfg_attr(not(feature = "h3"), allow(dead_code, reason = "sessions of WebTransport alone have such limits"))]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use courser_core::engine::Engine;
use courser_core::ids::{ConnKey, Dir};
use courser_core::stream::Extent;

use super::{RecvHalf, SendHalf, StreamSlot};
use crate::wait::lock;

/// Bit of [`StreamSlot::over`]: no figures are to come. Set where nobody asks for them.
pub(super) const SETTLED: u8 = 4;

/// A limit that streams share.
pub(crate) trait Credit: Send + Sync {
    /// Takes credit for so many bytes, or for as many as there is; says for how many. When that is less, the stream is
    /// [kicked](StreamSlot::kick) when there is more.
    fn take(&self, wanted: u64, stream: &Arc<StreamSlot>) -> u64;
    /// Bytes for which credit was taken never leave.
    fn give_back(&self, n: u64);
    /// So many more bytes came, and so many were read or thrown away.
    fn on_data(&self, received: u64, consumed: u64);
    /// A stream that the peer opened is over.
    fn on_over(&self, dir: Dir);
}

/// What is counted of bytes that are sent.
#[derive(Default)]
pub(super) struct SendAccount {
    /// Bytes at the beginning that are not counted, and have to arrive.
    pub(super) head: u64,
    counted: u64,
    credit: Option<Arc<dyn Credit>>,
}

/// What is counted of bytes that come.
#[derive(Default)]
pub(super) struct RecvAccount {
    head: u64,
    received: u64,
    consumed: u64,
    /// Nothing more comes.
    ended: bool,
    credit: Option<Arc<dyn Credit>>,
    /// The engine is to be asked for the last figures.
    due: bool,
}

impl SendHalf {
    /// How many of the queued bytes may go to the engine now.
    pub(super) fn grant(&mut self, out: &VecDeque<Bytes>, slot: &Arc<StreamSlot>) -> usize {
        let handed = self.written - self.held as u64;
        let Some(account) = self.account.as_deref_mut() else { return usize::MAX };
        let Some(credit) = &account.credit else { return usize::MAX };
        let queued: u64 = out.iter().map(|piece| piece.len() as u64).sum();
        let free = account.head.saturating_sub(handed).min(queued);
        let n = if queued > free { credit.take(queued - free, slot) } else { 0 };
        account.counted += n;
        usize::try_from(free + n).unwrap_or(usize::MAX)
    }

    /// What the engine did not take of so many bytes that were granted goes back.
    pub(super) fn settle_grant(&mut self, granted: usize) {
        if granted != usize::MAX {
            self.settle_sent(self.written - self.held as u64);
        }
    }

    /// So many bytes of the stream are with the engine, or will ever leave.
    pub(super) fn settle_sent(&mut self, total: u64) {
        let Some(account) = self.account.as_deref_mut() else { return };
        let Some(credit) = &account.credit else { return };
        let body = total.saturating_sub(account.head);
        if body < account.counted {
            credit.give_back(account.counted - body);
            account.counted = body;
        }
    }
}

impl RecvHalf {
    /// Counts what changed.
    pub(super) fn settle(&mut self) {
        let Some(account) = self.account.as_deref_mut() else { return };
        let Some(credit) = &account.credit else { return };
        let reach = self.reach.max(self.moved);
        let gone = if account.ended || self.end.is_some() || self.stop.is_some() { reach - self.moved } else { 0 };
        let received = reach.saturating_sub(account.head);
        let consumed = (self.moved - self.held as u64 + gone).saturating_sub(account.head);
        if received > account.received || consumed > account.consumed {
            credit.on_data(received - account.received, consumed - account.consumed);
            (account.received, account.consumed) = (received, consumed);
        }
    }
}

impl StreamSlot {
    /// A stream that this end opened begins with so many bytes that do not count.
    pub(crate) fn set_head(&self, len: usize) {
        lock(&self.send).account = Some(Box::new(SendAccount { head: len as u64, ..SendAccount::default() }));
        lock(&self.recv).account = Some(Box::default());
    }

    /// A stream that the peer opened began with bytes that do not count: what was taken out of the slot but for the `rest`. That
    /// is put back: it is consumed when a reader has it.
    pub(crate) fn set_peer_head(&self, mut rest: VecDeque<Bytes>) {
        lock(&self.send).account = Some(Box::default());
        let mut recv = lock(&self.recv);
        let back: usize = rest.iter().map(Bytes::len).sum();
        let head = recv.moved.saturating_sub(recv.held as u64).saturating_sub(back as u64);
        if recv.stop.is_none() && back > 0 {
            rest.append(&mut recv.ready);
            recv.ready = rest;
            recv.held += back;
            self.conn.unread.fetch_add(back, Ordering::Relaxed);
        }
        recv.account = Some(Box::new(RecvAccount { head, ..RecvAccount::default() }));
    }

    /// Counts the stream from now on, and what came of it before.
    pub(crate) fn meter(self: &Arc<Self>, credit: &Arc<dyn Credit>) {
        self.over.fetch_and(!SETTLED, Ordering::AcqRel);
        if let Some(account) = lock(&self.send).account.as_deref_mut() {
            account.credit = Some(Arc::clone(credit));
        }
        let mut recv = lock(&self.recv);
        if let Some(account) = recv.account.as_deref_mut() {
            account.credit = Some(Arc::clone(credit));
            account.due = true;
        }
        recv.settle();
        drop(recv);
        self.kick();
    }

    /// Asks the engine for the last figures, when that is to be done.
    pub(in crate::hub) fn begin_metering(&self, engine: &mut Engine, key: ConnKey) {
        let due = lock(&self.recv).account.as_deref_mut().is_some_and(|account| std::mem::take(&mut account.due));
        if due && engine.meter_stream(key, self.id).is_err() {
            // It is over already, and the slot has all that came.
            self.on_settled(None);
        }
    }

    /// Takes note of how far the stream went, when somebody counts.
    pub(super) fn count(&self, engine: &Engine, key: ConnKey) {
        if lock(&self.recv).account.is_none() {
            return;
        }
        let Ok(Some(extent)) = engine.stream_extent(key, self.id) else { return };
        let mut recv = lock(&self.recv);
        recv.reach = recv.reach.max(extent.received);
        recv.settle();
        drop(recv);
        lock(&self.send).settle_sent(extent.sent);
    }

    /// The stream is over: the last figures, unless the slot has them.
    pub(in crate::hub) fn on_settled(&self, extent: Option<Extent>) {
        if self.over.fetch_or(SETTLED, Ordering::AcqRel) & SETTLED != 0 {
            return;
        }
        if let Some(extent) = extent {
            lock(&self.send).settle_sent(extent.sent);
        }
        let mut recv = lock(&self.recv);
        recv.reach = recv.reach.max(extent.map_or(0, |e| e.received));
        let theirs = self.conn.side().is_some_and(|side| self.id.initiator() != side);
        let over = recv.account.as_deref_mut().and_then(|account| {
            account.ended = true;
            account.credit.clone().filter(|_| theirs)
        });
        recv.settle();
        drop(recv);
        if let Some(credit) = over {
            credit.on_over(self.id.dir());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use courser_core::ids::{Side, StreamId};

    use super::super::super::conn::ConnSlot;
    use super::super::super::shared::{Lobby, Shared};
    use super::*;
    use crate::net::socket::{Socket, SocketConfig};
    use crate::options::SocketFacts;

    /// Counts what came and what was consumed.
    #[derive(Default)]
    struct Sum(Mutex<(u64, u64)>);

    impl Credit for Sum {
        fn take(&self, wanted: u64, _: &Arc<StreamSlot>) -> u64 {
            wanted
        }
        fn give_back(&self, _: u64) {}
        fn on_data(&self, received: u64, consumed: u64) {
            let mut sum = lock(&self.0);
            (sum.0, sum.1) = (sum.0 + received, sum.1 + consumed);
        }
        fn on_over(&self, _: Dir) {}
    }

    #[test]
    fn what_was_taken_together_with_the_head_is_consumed_when_somebody_reads_it() {
        let socket = Socket::bind(&SocketConfig::new("127.0.0.1:0".parse().unwrap())).unwrap();
        let facts = SocketFacts::of(&socket);
        let lobby = Arc::new(Lobby::new(1));
        let shared = Arc::new(Shared::new(socket.local_addr(), facts, Duration::ZERO, (0, &lobby)));
        let conn = ConnSlot::new(&shared, None);
        let slot = StreamSlot::new(Arc::clone(&conn), StreamId::new(Side::Client, Dir::Uni, 1), Side::Server);
        // Four bytes of a head and six more were taken; five came since.
        lock(&slot.recv).ready = VecDeque::from([Bytes::from_static(b"later")]);
        (lock(&slot.recv).moved, lock(&slot.recv).held) = (15, 5);
        conn.unread.store(5, Ordering::Relaxed);
        slot.set_peer_head(VecDeque::from([Bytes::from_static(b"behind")]));
        let sum = Arc::new(Sum::default());
        let credit: Arc<dyn Credit> = Arc::<Sum>::clone(&sum);
        slot.meter(&credit);
        assert_eq!(*lock(&sum.0), (11, 0), "nobody has read anything");
        assert_eq!(conn.unread.load(Ordering::Relaxed), 11);
        let mut got = VecDeque::new();
        assert!(slot.poll_take(&Context::from_waker(Waker::noop()), &mut got).is_ready());
        assert_eq!(got, [&b"behind"[..], b"later"]);
        assert_eq!((*lock(&sum.0), conn.unread.load(Ordering::Relaxed)), ((11, 11), 0));
    }
}

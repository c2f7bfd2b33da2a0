//! Looking ahead: what comes next is fetched into the cache together.
//!
//! With ten connections everything that a packet needs is in the cache. With a hundred thousand each visit of a connection
//! waits for memory some forty times, mostly once after the other, because what is read decides what is done next. Who is
//! visited next is known earlier, though: trains that were received together, connections that are to be ticked, those that
//! wait for a turn at sending. Their memory is read a few visits ahead, for several of them at once, so that the processor
//! waits for many lines at the same time. Nothing depends on it but time.

use core::hint::black_box;

use super::{Engine, Entry, Kind};

/// So many are fetched together; what they need together stays in the first-level caches or nearly.
pub(super) const TOGETHER: usize = 8;
/// Fewer connections than that stay in the cache by themselves.
const CROWD: usize = 128;

impl Entry {
    fn touch(&self) -> u64 {
        match &self.kind {
            Kind::Live(conn) => conn.touch(),
            Kind::Mini(_) | Kind::Remains(_) => 0,
        }
    }
}

impl Engine {
    /// Tells which trains will be handed to [`receive`](Self::receive) next, by their bytes. A hint that changes nothing but
    /// the time that they take.
    pub fn expect<'a>(&self, trains: impl IntoIterator<Item = &'a [u8]>) {
        if self.table.len() < CROWD {
            return;
        }
        let mut found = [None; TOGETHER];
        for (found, train) in found.iter_mut().zip(trains) {
            let cid = crate::wire::header::short_destination(train, self.env.cid_len);
            *found = cid.and_then(|cid| self.routes.peek(cid)).map(|key| key.index);
        }
        self.fetch(found.into_iter().flatten());
    }

    /// Every so many ticks: fetches those that are ticked next.
    pub(super) fn touch_tickable(&self, done: usize) {
        if done.is_multiple_of(TOGETHER) && self.table.len() >= CROWD {
            self.fetch(self.tickable.front());
        }
    }

    /// The same for turns at sending.
    pub(super) fn touch_turns(&self) {
        if self.turns.count().is_multiple_of(TOGETHER as u64) && self.table.len() >= CROWD {
            self.fetch(self.turns.front());
        }
    }

    fn fetch(&self, indices: impl Iterator<Item = u32>) {
        let touched = indices.take(TOGETHER).filter_map(|index| self.table.peek(index)).map(Entry::touch);
        black_box(touched.fold(0, |sum, words| sum ^ words));
    }
}

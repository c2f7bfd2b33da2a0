//! What is left of a connection that is over.
//!
//! For three probe timeouts late packets have to find something: the datagram with our CONNECTION_CLOSE, repeated ever more
//! seldom, or silence when the peer closed. Neither needs a connection. As soon as the application has heard and read
//! everything the connection goes, and this stays: names, addresses, one datagram. A client that broke a rule before there
//! was a connection leaves the same.

use core::net::{IpAddr, SocketAddr};

use super::{Engine, Kind, Meta, Train, TrainMeta};
use crate::conn::{LastWords, Names};
use crate::ids::{ConnKey, Ecn};
use crate::observe::{Event as Observed, Kind as Interesting, Step};
use crate::path::Amplification;
use crate::time::Instant;

/// What is left of a connection.
pub(super) struct Remains {
    pub(super) names: Names,
    /// The peer's address.
    pub(super) remote: SocketAddr,
    /// Ours, when known.
    pub(super) local: Option<IpAddr>,
    /// When it goes.
    pub(super) until: Instant,
    /// What was said last; `None` when there is nothing to be said.
    pub(super) words: Option<LastWords>,
    /// What may be sent to the peer.
    pub(super) amplification: Amplification,
    /// There never was a connection.
    pub(super) of_mini: bool,
}

impl Remains {
    fn receive(&mut self, meta: &Meta, len: usize) {
        if meta.remote == self.remote {
            self.amplification.on_received(len);
        }
        if let Some(words) = &mut self.words {
            words.on_datagram(len);
        }
    }

    fn wants_send(&self) -> bool {
        self.words.as_ref().is_some_and(|w| w.answer && self.amplification.room() >= w.packet.len())
    }

    fn fill(&mut self, key: ConnKey, train: &mut Train) -> Option<TrainMeta> {
        if !self.wants_send() {
            return None;
        }
        let words = self.words.as_mut()?;
        words.answer = false;
        let len = words.packet.len();
        train.clear();
        train.slot(len)?.copy_from_slice(&words.packet);
        train.commit(len);
        self.amplification.on_sent(len);
        Some(TrainMeta { key: Some(key), to: self.remote, from: self.local, ecn: Ecn::NotEct, segment: len, len })
    }
}

impl Engine {
    /// Keeps only what late packets need of a connection with which nobody has anything more to do.
    pub(super) fn reduce(&mut self, now: Instant, key: ConnKey) {
        self.apply_routes(now, key);
        let Some(entry) = self.table.get_mut(key) else { return };
        let Kind::Live(conn) = &mut entry.kind else { return };
        let Some((until, words)) = conn.take_last_words() else { return };
        conn.observe_tick(&mut self.env, now);
        let (remote, local, amplification) = conn.whereabouts();
        let remains = Remains { names: conn.names(), remote, local, until, words, amplification, of_mini: false };
        conn.release(&mut self.env);
        entry.kind = Kind::Remains(Box::new(remains));
        self.forget_merged(key);
        self.uncount_handshake(key);
        self.tick_remains(now, key.index);
    }

    /// A datagram came for what is left. It may be a stateless reset: who has lost everything is not told any more.
    pub(super) fn receive_remains(&mut self, now: Instant, key: ConnKey, meta: &Meta, datagram: &[u8]) {
        if self.is_reset(now, datagram) {
            return;
        }
        if let Some(Kind::Remains(remains)) = self.table.get_mut(key).map(|e| &mut e.kind) {
            remains.receive(meta, datagram.len());
            self.tickable.push(key.index);
        }
    }

    pub(super) fn tick_remains(&mut self, now: Instant, index: u32) {
        let Some((key, entry)) = self.table.at(index) else { return };
        let Kind::Remains(remains) = &entry.kind else { return };
        if remains.until <= now {
            return self.free(now, key);
        }
        entry.deadline = Some(remains.until);
        self.deadlines.set(index, remains.until);
        if remains.wants_send() {
            self.turns.push(index);
        }
    }

    /// Repeats the last words; `None` when there is no occasion.
    pub(super) fn fill_remains(&mut self, index: u32, train: &mut Train) -> Option<TrainMeta> {
        let (key, entry) = self.table.at(index)?;
        let Kind::Remains(remains) = &mut entry.kind else { return None };
        remains.fill(key, train)
    }

    /// Nothing leads to a connection any more. Its connection IDs are dead, apart from those that were issued where
    /// `resets` says that who uses them is to get stateless resets.
    pub(super) fn forget(&mut self, now: Instant, key: ConnKey, names: &Names, resets: bool) {
        for (at, cid) in names.cids.iter().enumerate() {
            self.routes.remove(cid, key);
            //= rfc9001#6.6-4
            if !resets || at >= names.issued {
                self.purgatory.insert(now, *cid);
            }
        }
        names.remotes.iter().for_each(|remote| self.routes.remove_address(*remote, key));
        names.tokens.iter().for_each(|token| self.routes.remove_token(token, key));
        if let Some(reporter) = &mut self.cid_reports {
            reporter.removed(names.cids.iter().take(names.issued).copied());
        }
        self.forget_merged(key);
    }

    /// Nothing merged belongs to a connection that is gone.
    fn forget_merged(&mut self, key: ConnKey) {
        if self.env.merging == Some(key) {
            self.env.merging = None;
            self.env.merge.clear();
        }
    }

    /// What was left goes too.
    pub(super) fn free_remains(&mut self, now: Instant, key: ConnKey, remains: &Remains) {
        self.forget(now, key, &remains.names, false);
        self.env.tell(now, key, Interesting::Life, &Observed::Life(Step::Ended));
        self.minis.closing -= usize::from(remains.of_mini);
        self.stats.ended += u64::from(!remains.of_mini);
    }
}

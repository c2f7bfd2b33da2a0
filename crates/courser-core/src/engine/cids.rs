//! Which connection IDs lead where: routes follow what connections ask for, and there are reports to somebody outside, such as a router that has to know which of them lead here (seed: CID
//! liveness callbacks).
//!
//! Each connection ID is reported as new when it is issued, as old when it is void, and from time to time as live in
//! between. Reports come in batches. The batch of new ones lives in the engine; those of live and old ones last for one
//! call.

use core::time::Duration;

use super::{Engine, Kind};
use crate::conn::{RouteChange, fresh_cid};
use crate::ids::{Cid, ConnKey};
use crate::time::Instant;

/// The largest batch.
const BATCH_MAX: usize = 32;

/// Connection IDs that are made for a new connection before one is taken that somebody has already.
const DRAWS: usize = 64;

/// What is reported of a connection ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CidState {
    /// Packets with it lead here from now on.
    New,
    /// They still do.
    Live,
    /// They do no longer.
    Old,
}

/// Somebody who wants to know which connection IDs lead to an engine.
pub trait CidWatcher: Send {
    /// Some connection IDs have that state.
    fn on_cids(&mut self, state: CidState, cids: &[Cid]);
}

/// How connection IDs are reported.
pub struct CidReports {
    /// Who gets the reports.
    pub watcher: Box<dyn CidWatcher>,
    /// Connection IDs of one report, at most; 1 to 32.
    pub batch: usize,
    /// How often all that lead here are reported as live.
    pub live_every: Duration,
}

impl CidReports {
    /// Batches of 20, and a report of all once a minute.
    #[must_use]
    pub fn new(watcher: Box<dyn CidWatcher>) -> Self {
        Self { watcher, batch: 20, live_every: Duration::from_secs(60) }
    }
}

/// Collects the connection IDs of one kind of report.
struct Batch {
    state: CidState,
    cids: [Cid; BATCH_MAX],
    len: usize,
}

impl Batch {
    const fn new(state: CidState) -> Self {
        Self { state, cids: [Cid::EMPTY; BATCH_MAX], len: 0 }
    }

    fn add(&mut self, cid: Cid, to: &mut CidReports) {
        self.cids[self.len] = cid;
        self.len += 1;
        if self.len >= to.batch.clamp(1, BATCH_MAX) {
            self.flush(to);
        }
    }

    fn flush(&mut self, to: &mut CidReports) {
        let len = core::mem::take(&mut self.len);
        if len > 0 {
            to.watcher.on_cids(self.state, &self.cids[..len]);
        }
    }
}

/// Reports of an engine.
pub(super) struct Reporter {
    reports: CidReports,
    new: Batch,
    live_at: Instant,
}

impl Reporter {
    pub(super) fn new(reports: CidReports) -> Self {
        Self { reports, new: Batch::new(CidState::New), live_at: Instant::ZERO }
    }

    /// A connection ID leads here.
    pub(super) fn added(&mut self, cid: Cid) {
        self.new.add(cid, &mut self.reports);
    }

    /// These connection IDs no longer do. Who was not reported as new yet is so first.
    pub(super) fn removed(&mut self, cids: impl Iterator<Item = Cid>) {
        self.flush();
        let mut old = Batch::new(CidState::Old);
        cids.for_each(|cid| old.add(cid, &mut self.reports));
        old.flush(&mut self.reports);
    }

    /// Reports what waits.
    pub(super) fn flush(&mut self) {
        self.new.flush(&mut self.reports);
    }
}

impl Engine {
    /// A connection ID for a new connection that leads nowhere yet. Short ones come again when all were used.
    pub(super) fn free_cid(&mut self) -> Cid {
        let mut cid = fresh_cid(&mut self.env);
        for _ in 1..DRAWS {
            if self.routes.peek(cid.as_slice()).is_none() {
                break;
            }
            cid = fresh_cid(&mut self.env);
        }
        cid
    }

    /// Carries out what a connection wants changed in the routes. A connection ID that leads to another connection has it
    /// replaced by others, which its peer hears of together with it.
    pub(super) fn apply_routes(&mut self, now: Instant, key: ConnKey) {
        let Some(Kind::Live(conn)) = self.table.get_mut(key).map(|e| &mut e.kind) else { return };
        if conn.routes.is_empty() {
            return;
        }
        let mut is_taken = false;
        for change in conn.routes.drain(..) {
            match change {
                RouteChange::Add(cid) => {
                    let added = self.routes.add_own(&cid, key);
                    is_taken |= !added;
                    self.stats.cid_collisions += u64::from(!added);
                    if let Some(reporter) = self.cid_reports.as_mut().filter(|_| added) {
                        reporter.added(cid);
                    }
                }
                RouteChange::Remove(cid) => {
                    self.routes.remove(&cid, key);
                    self.purgatory.insert(now, cid);
                    if let Some(reporter) = &mut self.cid_reports {
                        reporter.removed(core::iter::once(cid));
                    }
                }
                RouteChange::RemoveChosen(cid) => {
                    self.routes.remove(&cid, key);
                    self.purgatory.insert(now, cid);
                }
                RouteChange::AddAddress(remote) => {
                    self.routes.add_address(remote, key);
                }
                RouteChange::RemoveAddress(remote) => self.routes.remove_address(remote, key),
                RouteChange::AddToken(token) => self.routes.add_token(token, key),
                RouteChange::RemoveToken(token) => self.routes.remove_token(&token, key),
            }
        }
        if is_taken {
            conn.replace_cids();
            self.tickable.push(key.index);
        }
    }

    /// Reports new connection IDs, and all of them when the time has come.
    pub(super) fn report_cids(&mut self, now: Instant) {
        let Some(reporter) = &mut self.cid_reports else { return };
        reporter.flush();
        if reporter.live_at > now {
            return;
        }
        let first = reporter.live_at == Instant::ZERO;
        reporter.live_at = now + reporter.reports.live_every;
        if first {
            return;
        }
        let mut live = Batch::new(CidState::Live);
        for (_, entry) in self.table.iter() {
            if let Kind::Live(conn) = &entry.kind {
                conn.issued_cids().for_each(|cid| live.add(cid, &mut reporter.reports));
            }
        }
        live.flush(&mut reporter.reports);
    }

    /// When all connection IDs are to be reported again.
    pub(super) fn report_deadline(&self) -> Option<Instant> {
        let reporter = self.cid_reports.as_ref().filter(|_| self.table.len() > 0)?;
        Some(reporter.live_at).filter(|at| *at > Instant::ZERO)
    }
}

//! Clients whose ClientHello is not complete: how they come, become connections, and go.
//!
//! There is one way: every client begins as a [`MiniConn`], and becomes a connection with the last byte of its ClientHello,
//! which usually is in its first datagram. One that does not finish in time goes. When there are too many, or they hold too
//! much, the oldest goes for the newest: a client that means it finishes within a round trip, so that under a flood time
//! is the better judge than the order of arrival.

use core::time::Duration;
use std::collections::VecDeque;

use super::initial::InitialKeys;
use super::mini::{Around, Client, Decision, MiniConn, Outcome};
use super::remains::Remains;
use super::{Engine, Entry, Kind, Meta, Train, TrainMeta};
use crate::conn::{Connection, Event, LastWords, Names, RouteChange, ServerStart, fresh_cid, observe_server};
use crate::error::{CloseReason, PeerViolation};
use crate::ids::{Cid, ConnKey, Ecn};
use crate::observe::{Event as Observed, Kind as Interesting, Step};
use crate::recovery::rtt::{INITIAL_RTT, Rtt};
use crate::time::Instant;
use crate::wire::header;

/// How many probe timeouts closing lasts.
const CLOSE_PTOS: u32 = 3;
/// So many are told why they are sent away and hear it again; others hear nothing.
const CLOSING_MAX: usize = 1024;
/// With more handshakes than that under way nobody repeats anything sooner than it must: a processor is busy with them for
/// some thirty milliseconds.
const THRONG: usize = 128;

/// The minis of an engine.
#[derive(Default)]
pub(super) struct Minis {
    /// Initial keys; the connections take theirs along.
    pub(super) keys: InitialKeys,
    /// By age, oldest first; those that are gone are left out when they come up.
    order: VecDeque<ConnKey>,
    /// How many there are.
    pub(super) count: usize,
    /// Bytes that they hold.
    pub(super) held: usize,
    /// Those that broke a rule, of which something is left.
    pub(super) closing: usize,
}

/// How often something happened in the last second, and a part of the one before.
#[derive(Default)]
pub(super) struct PerSecond {
    /// When the present second began.
    since: Instant,
    now: usize,
    before: usize,
}

impl PerSecond {
    fn turn(&mut self, now: Instant) {
        const SECOND: Duration = Duration::from_secs(1);
        let passed = now.since(self.since);
        if passed >= SECOND {
            let before = if passed < 2 * SECOND { self.now } else { 0 };
            *self = Self { since: now, now: 0, before };
        }
    }

    fn count(&mut self, now: Instant) {
        self.turn(now);
        self.now += 1;
    }

    /// In the last second or two.
    pub(super) fn recently(&mut self, now: Instant) -> usize {
        self.turn(now);
        self.now.max(self.before)
    }
}

impl Engine {
    /// Lets a client begin with its first datagram; false when that is not authentic.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        client: Client,
        retried_from: Option<Cid>,
        meta: &Meta,
        datagram: &mut [u8],
    ) -> bool {
        let Some(server) = &self.server else { return false };
        let decision = if server.ask { Decision::Waiting } else { Decision::NotAsked };
        let (takes_cleared_bit, lifetime) = (server.settings.grease, server.settings.handshake_timeout);
        let cid = fresh_cid(&mut self.env);
        let mut mini = Box::new(MiniConn::new(client, cid, decision, takes_cleared_bit, now));
        if let Some(original) = retried_from {
            mini.set_retried_from(original);
        }
        let deadline = now + lifetime;
        let entry =
            Entry { kind: Kind::Mini(mini), deadline: Some(deadline), handshaking: true, unproven: !client.validated };
        let Some(key) = self.table.insert(entry) else { return false };
        self.observe_mini(now, key);
        self.count_handshake(key);
        self.minis.count += 1;
        let outcome = self.hear_mini(now, meta, key, datagram);
        if matches!(outcome, Outcome::Nothing | Outcome::Closed) {
            self.minis.keys.forget(client.version, &client.dcid);
            self.env.tell(now, key, Interesting::Life, &Observed::Life(Step::Dismissed));
            self.stats.gate_not_authentic += u64::from(matches!(outcome, Outcome::Nothing));
            self.remove_mini(key);
            return false;
        }
        self.routes.add_chosen(client.dcid, key);
        self.deadlines.set(key.index, deadline);
        if decision == Decision::Waiting {
            self.incoming.push_back(key);
        }
        self.minis.order.push_back(key);
        self.stats.minis += 1;
        if let Some(sources) = &mut self.sources {
            sources.begin(now, client.remote.ip());
        }
        self.act(now, meta, key, outcome, datagram);
        if self.mini_mut(key).is_some() && self.routes.add_own(&cid, key) {
            if let Some(reporter) = &mut self.cid_reports {
                reporter.added(cid);
            }
            self.make_room(now);
        }
        true
    }

    /// A datagram came for a client that is known.
    pub(super) fn receive_mini(&mut self, now: Instant, meta: &Meta, key: ConnKey, datagram: &mut [u8]) {
        let outcome = self.hear_mini(now, meta, key, datagram);
        self.act(now, meta, key, outcome, datagram);
        self.make_room(now);
    }

    fn hear_mini(&mut self, now: Instant, meta: &Meta, key: ConnKey, datagram: &mut [u8]) -> Outcome {
        let Some(Kind::Mini(mini)) = self.table.get_mut(key).map(|e| &mut e.kind) else { return Outcome::Nothing };
        let mut around = Around { env: &mut self.env, keys: &mut self.minis.keys, now, key };
        let before = mini.held();
        let outcome = mini.receive(&mut around, meta, datagram);
        self.minis.held = self.minis.held.saturating_add(mini.held()).saturating_sub(before);
        if mini.wants_send() {
            self.tickable.push(key.index);
        }
        outcome
    }

    fn act(&mut self, now: Instant, meta: &Meta, key: ConnKey, outcome: Outcome, datagram: &mut [u8]) {
        match outcome {
            Outcome::Nothing | Outcome::Taken => {}
            Outcome::Complete(at) => {
                let whole = datagram.len();
                let rest = datagram.get_mut(at..).unwrap_or_default();
                self.promote(now, key);
                self.receive_rest(now, meta, key, whole, rest);
            }
            Outcome::Closed => {
                self.end_mini(now, key);
            }
            Outcome::Violation(violation) => self.close_mini(now, key, &violation),
        }
    }

    /// The rest of a datagram whose first packets made the connection.
    fn receive_rest(&mut self, now: Instant, meta: &Meta, key: ConnKey, whole: usize, rest: &mut [u8]) {
        let to = header::destination(rest, self.env.cid_len).map(|cid| self.routes.find(cid));
        if rest.is_empty() || to != Some(Some(key)) {
            return;
        }
        if let Some(Kind::Live(conn)) = self.table.get_mut(key).map(|e| &mut e.kind) {
            conn.receive_rest(&mut self.env, now, meta, whole, rest);
            self.apply_routes(now, key);
        }
    }

    /// Makes a connection of a client whose ClientHello is complete, unless it waits for a decision.
    pub(super) fn promote(&mut self, now: Instant, key: ConnKey) {
        let (Some(server), Some(entry)) = (&self.server, self.table.get_mut(key)) else { return };
        let Kind::Mini(mini) = &mut entry.kind else { return };
        if !mini.may_become() {
            return;
        }
        let (client, own) = (mini.client, mini.take_settings());
        let start = ServerStart {
            remote: client.remote,
            local: client.local,
            settings: own.as_deref().unwrap_or(&server.settings),
            version: client.version,
            dcid: client.dcid,
            scid: client.scid,
            retried_from: mini.retried_from(),
            validated: client.validated,
        };
        self.minis.count -= 1;
        self.minis.held = self.minis.held.saturating_sub(mini.held());
        let mut around = Around { env: &mut self.env, keys: &mut self.minis.keys, now, key };
        let begun = mini.begun(&mut around);
        let cid = mini.cid;
        // What it takes counts for it, and not for whoever was served last.
        self.env.pool.charge(key.index, u64::MAX);
        let mut conn = Connection::server(&mut self.env, now, key, &start, begun, server.tls.as_ref());
        if self.routes.find(cid.as_slice()) == Some(key) {
            conn.routes.retain(|change| *change != RouteChange::Add(cid));
        }
        entry.kind = Kind::Live(conn);
        self.stats.accepted += 1;
        self.events.push_back((key, Event::Accepted));
        self.apply_routes(now, key);
        self.tickable.push(key.index);
    }

    /// Evicts the oldest as long as there are too many, or they hold too much.
    fn make_room(&mut self, now: Instant) {
        let Some(server) = &self.server else { return };
        let (count_max, held_max) = (server.minis_max.max(1), server.mini_bytes_max);
        while self.minis.count > count_max || self.minis.held > held_max && self.minis.count > 1 {
            let Some(key) = self.minis.order.pop_front() else { break };
            self.stats.minis_evicted += u64::from(self.end_mini(now, key));
        }
        if self.minis.order.len() > 2 * self.minis.count + 64 {
            let table = &self.table;
            self.minis.order.retain(|key| table.get(*key).is_some_and(|e| matches!(e.kind, Kind::Mini(_))));
        }
    }

    /// A client broke a rule before it had said what it wants: it is told why, and nothing else is kept.
    fn close_mini(&mut self, now: Instant, key: ConnKey, violation: &PeerViolation) {
        self.stats.mini_violations += 1;
        if self.minis.closing >= CLOSING_MAX {
            self.end_mini(now, key);
            return;
        }
        self.minis.closing += 1;
        let Some(Kind::Mini(mini)) = self.table.get_mut(key).map(|e| &mut e.kind) else { return };
        let reason = CloseReason::Violation(*violation);
        self.env.tell(now, key, Interesting::Life, &Observed::Life(Step::Closing(&reason)));
        let mut slot = [0; super::admit::FIRST_DATAGRAM_MIN];
        let mut around = Around { env: &mut self.env, keys: &mut self.minis.keys, now, key };
        let before = mini.amplification();
        let words = mini.fill_close(&mut around, violation, &mut slot);
        let words = words.and_then(|len| slot.get(..len)).map(|packet| LastWords::new(packet.into()));
        let (client, cid, held, decision) = (mini.client, mini.cid, mini.held(), mini.decision);
        self.minis.count -= 1;
        self.minis.held = self.minis.held.saturating_sub(held);
        self.minis.keys.forget(client.version, &client.dcid);
        let own = self.routes.find(cid.as_slice()) == Some(key);
        let cids = if own { vec![cid, client.dcid] } else { vec![client.dcid] };
        let names = Names { cids: cids.into(), issued: own.into(), remotes: Box::default(), tokens: Box::default() };
        let until = now + Rtt::new(INITIAL_RTT).pto_base() * CLOSE_PTOS;
        // What is repeated is counted when it leaves.
        let Client { remote, local, .. } = client;
        let remains = Remains { names, remote, local, until, words, amplification: before, of_mini: true };
        if let Some(entry) = self.table.get_mut(key) {
            entry.kind = Kind::Remains(Box::new(remains));
        }
        self.tell_acceptor(key, decision, reason);
        self.uncount_handshake(key);
        self.tick_remains(now, key.index);
    }

    /// A client goes without a connection; false when it was none. Who may know our connection ID hears nothing more.
    pub(super) fn end_mini(&mut self, now: Instant, key: ConnKey) -> bool {
        let Some(mini) = self.remove_mini(key) else { return false };
        self.minis.keys.forget(mini.client.version, &mini.client.dcid);
        if mini.has_spoken() {
            self.purgatory.insert(now, mini.cid);
        }
        self.env.tell(now, key, Interesting::Life, &Observed::Life(Step::Dismissed));
        self.tell_acceptor(key, mini.decision, CloseReason::HandshakeTimeout);
        true
    }

    /// An application that let a client in hears of its end also when there never was a connection.
    fn tell_acceptor(&mut self, key: ConnKey, decision: Decision, reason: CloseReason) {
        if decision == Decision::Accepted {
            self.events.push_back((key, Event::Closed(reason)));
        }
    }

    /// Takes one out of all lists.
    pub(super) fn remove_mini(&mut self, key: ConnKey) -> Option<Box<MiniConn>> {
        self.mini_mut(key)?;
        self.uncount_handshake(key);
        let Kind::Mini(mini) = self.table.remove(key)?.kind else { return None };
        self.deadlines.remove(key.index);
        self.turns.forget(key.index);
        self.routes.remove(&mini.client.dcid, key);
        if self.routes.find(mini.cid.as_slice()) == Some(key) {
            self.routes.remove(&mini.cid, key);
            if let Some(reporter) = &mut self.cid_reports {
                reporter.removed(core::iter::once(mini.cid));
            }
        }
        self.minis.count -= 1;
        self.minis.held = self.minis.held.saturating_sub(mini.held());
        Some(mini)
    }

    pub(super) fn mini_mut(&mut self, key: ConnKey) -> Option<&mut MiniConn> {
        match &mut self.table.get_mut(key)?.kind {
            Kind::Mini(mini) => Some(mini),
            _ => None,
        }
    }

    /// A mini connection's time has come: it acknowledges, or it is over.
    pub(super) fn tick_mini(&mut self, now: Instant, index: u32) {
        let Some((key, entry)) = self.table.at(index) else { return };
        let Kind::Mini(mini) = &entry.kind else { return };
        match entry.deadline {
            Some(at) if at <= now => {
                self.stats.minis_expired += 1;
                self.end_mini(now, key);
            }
            deadline => {
                if let Some(at) = deadline {
                    self.deadlines.set(index, at);
                }
                if mini.wants_send() {
                    self.turns.push(index);
                }
            }
        }
    }

    /// Builds an acknowledgement.
    pub(super) fn fill_mini(&mut self, now: Instant, index: u32, train: &mut Train) -> Option<TrainMeta> {
        let (key, entry) = self.table.at(index)?;
        let Kind::Mini(mini) = &mut entry.kind else { return None };
        train.clear();
        let mut around = Around { env: &mut self.env, keys: &mut self.minis.keys, now, key };
        let len = mini.fill(&mut around, train.slot(super::admit::FIRST_DATAGRAM_MIN)?)?;
        train.commit(len);
        let Client { remote, local, .. } = mini.client;
        Some(TrainMeta { key: Some(key), to: remote, from: local, ecn: Ecn::NotEct, segment: len, len })
    }

    fn observe_mini(&mut self, now: Instant, key: ConnKey) {
        let (Some(server), Some(Kind::Mini(mini))) = (&self.server, self.table.get(key).map(|e| &e.kind)) else {
            return;
        };
        let Client { remote, local, version, dcid, scid, validated } = mini.client;
        let settings = &server.settings;
        let retried_from = mini.retried_from();
        let start = ServerStart { remote, local, settings, version, dcid, scid, retried_from, validated };
        observe_server(&mut self.env, now, key, &start, mini.cid);
    }

    /// A handshake began.
    pub(super) fn count_handshake(&mut self, key: ConnKey) {
        let Some(entry) = self.table.get(key) else { return };
        self.handshakes += usize::from(entry.handshaking);
        self.env.throng = self.handshakes > THRONG;
        self.unproven += usize::from(entry.unproven);
    }

    /// It is over.
    pub(super) fn uncount_handshake(&mut self, key: ConnKey) {
        let Some(entry) = self.table.get_mut(key) else { return };
        self.handshakes -= usize::from(core::mem::take(&mut entry.handshaking));
        self.env.throng = self.handshakes > THRONG;
        self.unproven -= usize::from(core::mem::take(&mut entry.unproven));
    }

    /// It is over, and not in vain, unless the connection closed: its source owes nothing for it.
    pub(super) fn on_handshaken(&mut self, now: Instant, key: ConnKey) {
        self.uncount_handshake(key);
        let Some(conn) = self.conn(key).filter(|conn| conn.is_established()) else { return };
        let (remote, ..) = conn.whereabouts();
        self.completed.count(now);
        if let Some(sources) = &mut self.sources {
            sources.complete(now, remote.ip());
        }
    }
}

//! Racing the addresses of a name (RFC 8305).
//!
//! Addresses are tried in order. The next one is tried when the one before has failed, or has not answered for a while; the
//! first handshake to complete wins and the other attempts are closed. What the application has meanwhile is a slot
//! without a key. An address whose server refuses our version is tried once more in the best one that the server listed.

use std::net::SocketAddr;
use std::sync::Arc;

use courser_core::engine::{Connect, EarlyData, Event};
use courser_core::error::CloseReason;
use courser_core::ids::{ConnKey, Side, Version};
use courser_core::time::Instant;
use courser_core::wire::version_neg::best;

use tracing::debug;

use super::Hub;
use super::conn::ConnSlot;
use super::shared::Dial;
use crate::error::{ConnectError, ConnectionError};

/// Attempts for one connection.
pub(super) struct Race {
    dial: Dial,
    running: Vec<(ConnKey, SocketAddr)>,
    /// When the next address is tried though nothing failed.
    next_at: Instant,
    /// What became of the attempt that told most.
    failure: Option<ConnectError>,
}

impl Dial {
    /// An attempt at one of the addresses.
    fn to<'a>(&'a self, remote: SocketAddr, token: &'a [u8], restart: Option<Version>) -> Connect<'a> {
        let (server_name, tls, settings) = (self.server_name.as_str(), &self.tls, &self.settings);
        Connect { remote, server_name, tls, settings, token, restart }
    }
}

impl Race {
    /// When something has to happen; `None` when only the attempts can bring news.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.dial.addrs.is_empty()).then_some(self.next_at)
    }

    /// Keeps the failure that tells most: an answer beats silence.
    fn note(&mut self, failure: ConnectError) {
        let silent = |e: &ConnectError| {
            matches!(
                e,
                ConnectError::Failed(ConnectionError::Closed(CloseReason::HandshakeTimeout | CloseReason::IdleTimeout))
            )
        };
        if self.failure.as_ref().is_none_or(|old| silent(old) || !silent(&failure)) {
            self.failure = Some(failure);
        }
    }
}

impl Hub {
    pub(super) fn begin_race(&mut self, now: Instant, dial: Dial) {
        if dial.slot.is_abandoned() {
            return;
        }
        let id = self.next_race;
        self.next_race += 1;
        self.races.insert(id, Race { dial, running: Vec::new(), next_at: now, failure: None });
        self.advance(now, id);
    }

    pub(super) fn serve_races(&mut self, now: Instant) {
        if self.races.values().any(|race| race.deadline().is_some_and(|at| at <= now)) {
            let due: Vec<u64> = self
                .races
                .iter()
                .filter(|(_, race)| race.deadline().is_some_and(|at| at <= now))
                .map(|(id, _)| *id)
                .collect();
            due.into_iter().for_each(|id| self.advance(now, id));
        }
    }

    /// Tries the next address; ends the race when there is none and nothing is under way.
    fn advance(&mut self, now: Instant, id: u64) {
        let Some(race) = self.races.get_mut(&id) else { return };
        while let Some(addr) = race.dial.addrs.pop_front() {
            let dial = &race.dial;
            // Another attempt gets another token: each is for one connection.
            let token = dial.tokens.take();
            match self.engine.connect_with(now, &dial.to(addr, &token, None)) {
                Ok(key) => {
                    debug!(target: "courser", parent: &dial.span, server_name = dial.server_name, %addr, "connecting");
                    race.running.push((key, addr));
                    race.next_at = now + race.dial.attempt_delay;
                    self.attempts.insert(key, id);
                    return self.go_early(now, id, key);
                }
                Err(alert) => race.note(ConnectError::Tls(alert.reason)),
            }
        }
        if race.running.is_empty()
            && let Some(race) = self.races.remove(&id)
        {
            let nothing = ConnectError::Resolve(std::io::ErrorKind::NotFound, "there is no address to try".into());
            race.dial.slot.on_failed(race.failure.unwrap_or(nothing), &mut self.woken);
        }
    }

    /// A connection whose first attempt can send 0-RTT is there at once, when that was asked for; other addresses are not
    /// tried then.
    fn go_early(&mut self, now: Instant, id: u64, key: ConnKey) {
        let asked = self.races.get(&id).is_some_and(|race| race.dial.slot.takes_early());
        if !asked || self.engine.early_data(key) != Ok(EarlyData::Offered) {
            return;
        }
        let Some(race) = self.races.remove(&id) else { return };
        self.drop_attempts(now, &race, Some(key));
        let slot = self.adopt_winner(now, key, race.dial);
        slot.on_early(&self.engine, key, EarlyData::Offered, &mut self.woken);
    }

    /// The connection of an attempt that won.
    fn adopt_winner(&mut self, now: Instant, key: ConnKey, dial: Dial) -> Arc<ConnSlot> {
        self.adopt(now, key, Arc::clone(&dial.slot), Side::Client);
        if let Some(conn) = self.conns.get_mut(&key) {
            conn.span.asked(&dial.server_name, &dial.span);
            conn.tokens = Some(dial.tokens);
        }
        dial.slot
    }

    /// Something happened to an attempt.
    pub(super) fn on_attempt_event(&mut self, now: Instant, key: ConnKey, event: Event) {
        let Some(id) = self.attempts.get(&key).copied() else { return };
        match event {
            Event::Connected => {
                let Some(race) = self.races.remove(&id) else { return };
                self.drop_attempts(now, &race, Some(key));
                let slot = self.adopt_winner(now, key, race.dial);
                if let Some(conn) = self.conns.get(&key) {
                    conn.span.tell(&self.engine, key, &Event::Connected);
                }
                slot.on_established(&self.engine, key, &mut self.woken);
            }
            Event::Closed(reason) => {
                self.attempts.remove(&key);
                if let Some(race) = self.races.get_mut(&id) {
                    let at = race.running.iter().position(|(k, _)| *k == key);
                    let addr = at.map(|at| race.running.swap_remove(at).1);
                    if let (CloseReason::VersionNegotiation { offered }, Some(addr)) = (&reason, addr)
                        && let Some(version) = best(&race.dial.settings.versions, offered.iter().copied())
                        && let Ok(again) = self.engine.connect_with(now, &race.dial.to(addr, &[], Some(version)))
                    {
                        race.running.push((again, addr));
                        self.attempts.insert(again, id);
                        return;
                    }
                    debug!(target: "courser", parent: &race.dial.span, %reason, "an attempt failed");
                    race.note(ConnectError::Failed(ConnectionError::Closed(reason)));
                    self.advance(now, id);
                }
            }
            _ => {}
        }
    }

    /// Closes the attempts of a race that is over, except the winner.
    fn drop_attempts(&mut self, now: Instant, race: &Race, winner: Option<ConnKey>) {
        for (key, _) in &race.running {
            self.attempts.remove(key);
            if Some(*key) != winner {
                let _ = self.engine.close(now, *key, 0, b"");
            }
        }
    }

    /// Nobody waits for this connection any more.
    pub(super) fn abandon_race(&mut self, now: Instant, slot: &Arc<ConnSlot>) {
        let found = self.races.iter().find(|(_, race)| Arc::ptr_eq(&race.dial.slot, slot)).map(|(id, _)| *id);
        if let Some(race) = found.and_then(|id| self.races.remove(&id)) {
            self.drop_attempts(now, &race, None);
        }
    }

    /// Ends all races.
    pub(super) fn fail_races(&mut self, reason: &ConnectionError) {
        for (_, race) in self.races.drain() {
            race.dial.slot.on_failed(ConnectError::Failed(reason.clone()), &mut self.woken);
        }
        self.attempts.clear();
    }
}

//! How connections, and the hub itself, end: whoever waits is told in all cases.

use courser_core::error::CloseReason;
use courser_core::ids::{ConnKey, Dir};
use courser_core::time::Instant;
use tracing::warn;

use super::shared::Command;
use super::{Hub, Phase};
use crate::error::ConnectionError;
use crate::estate;

impl Hub {
    /// A connection ended: what the peer sent before can still be read, everybody who waits is told.
    pub(super) fn on_closed(&mut self, key: ConnKey, reason: CloseReason) {
        if !matches!(reason, CloseReason::LocalApplication { .. }) {
            self.accept_streams(key, Dir::Bi, true);
            self.accept_streams(key, Dir::Uni, true);
            if let Some(conn) = self.conns.get(&key) {
                for (id, slot) in &conn.streams {
                    if id.receives(conn.side) {
                        slot.pump_recv((&mut self.engine, &mut self.blocks), key, true, &mut self.woken);
                    }
                }
                conn.slot.pump(&mut self.engine, key, &mut self.woken);
            }
        }
        self.end(key, ConnectionError::Closed(reason));
    }

    /// Takes a connection out of the books.
    pub(super) fn end(&mut self, key: ConnKey, reason: ConnectionError) {
        let Some(conn) = self.conns.remove(&key) else { return };
        self.lingering.retain(|k| *k != key);
        // First the reason, then those who will ask for it.
        conn.slot.on_closed(&self.engine, key, reason, &mut self.woken);
        for slot in conn.streams.values() {
            slot.on_lost(&mut self.woken);
            self.end_session(slot);
        }
        for dir in [Dir::Bi, Dir::Uni] {
            conn.slot.take_begun(dir, &mut self.begun);
        }
        self.begun.drain(..).for_each(|slot| slot.on_lost(&mut self.woken));
        let _ = self.sessions.remove(conn.handle);
    }

    /// The endpoint is gone: everything is closed.
    pub(super) fn stop(&mut self, now: Instant) {
        self.phase = Phase::Stopping;
        self.budget = usize::MAX;
        self.engine.set_cooldown(true);
        estate::close_all(now, &mut self.engine);
        self.fail_races(&ConnectionError::EndpointGone);
        self.serve_events(now);
    }

    /// The worker ends, for whatever reason: whoever waits is told.
    fn shut_down(&mut self) {
        if self.phase == Phase::Running {
            warn!(target: "courser", parent: &self.span, "a worker ended unasked; nobody serves its part of the port");
        }
        let left = self.shared.set_gone(&mut self.woken);
        for command in left.commands {
            match command {
                Command::Dial(dial) => dial.slot.on_failed(ConnectionError::EndpointGone.into(), &mut self.woken),
                Command::Accept { slot, .. } => {
                    slot.on_failed(ConnectionError::EndpointGone.into(), &mut self.woken);
                }
                // An order that is dropped tells that nobody carried it out.
                Command::Decide { .. } | Command::Rebind(_) | Command::Order(_) => {}
            }
        }
        self.fail_races(&ConnectionError::EndpointGone);
        let keys: Vec<ConnKey> = self.conns.keys().copied().collect();
        for key in keys {
            self.end(key, ConnectionError::EndpointGone);
        }
        debug_assert!(self.sessions.is_empty(), "every session ended");
        self.woken.wake();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shut_down();
    }
}

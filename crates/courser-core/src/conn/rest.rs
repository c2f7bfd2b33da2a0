//! Rest: what a connection gives back while nothing happens on it.
//!
//! After [`Settings::dormant_after`](crate::config::Settings::dormant_after) without a packet either way the connection
//! drops its key objects, keeping what they are made from, and the room of lists and queues that are empty. The next packet
//! that arrives or leaves makes the keys again; nobody at the other end can tell.
//!
//! A stranger who knows a connection ID can wake a connection with a packet that no key opens, which costs about five times
//! what trying to open it costs. So what woke without an authentic packet stays awake as long as any other: waking
//! happens at most once in that time, however many packets come.

use core::time::Duration;

use super::{Connection, Env, Life};
use crate::ids::Level;
use crate::time::Instant;

/// When a connection whose keys stay gives back the rest.
const QUIET: Duration = Duration::from_millis(250);

impl Connection {
    /// When it goes to rest, if nothing happens before.
    pub(super) fn rest_deadline(&self) -> Option<Instant> {
        if self.resting || !matches!(self.life, Life::Established) {
            return None;
        }
        let after = self.settings.dormant_after.unwrap_or(QUIET);
        Some(self.last_activity.max(self.last_sent).max(self.rest_from) + after)
    }

    /// Takes note of what happened since it went to rest.
    pub(super) fn note_waking(&mut self, now: Instant) {
        if !self.resting {
            return;
        }
        let woken = self.settings.dormant_after.is_some() && !self.keys.are_dormant();
        if woken || self.last_activity.max(self.last_sent) > self.rest_from {
            (self.resting, self.rest_from) = (false, now);
        }
    }

    /// Goes to rest when the time has come.
    pub(super) fn rest_if_idle(&mut self, env: &mut Env, now: Instant) {
        if self.rest_deadline().is_none_or(|at| at > now) {
            return;
        }
        // Old keys or those of the handshake may still be needed: another look later.
        self.resting = self.settings.dormant_after.is_none() || self.keys.sleep();
        self.rest_from = now;
        self.give_back(env);
    }

    /// Gives the room back that empty lists and queues keep for the next time.
    fn give_back(&mut self, env: &mut Env) {
        self.recovery.shrink();
        self.acks.shrink();
        self.control.shrink();
        self.datagrams.shrink();
        self.streams.shrink();
        self.remote_cids.shrink();
        self.log.forget();
        self.events.shrink_to_fit();
        self.routes.shrink_to_fit();
        let done = self.late_crypto.as_ref().is_some_and(|crypto| crypto.is_done());
        if self.side.is_server() && done && self.recovery.is_settled() {
            // The tickets arrived: a server never says more at this level, and a client nothing.
            debug_assert!(self.keys.has_send(Level::OneRtt));
            if let Some(mut crypto) = self.late_crypto.take() {
                crypto.clear(&mut env.pool);
            }
        }
    }
}

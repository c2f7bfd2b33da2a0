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
const QUIET: Duration = Duration::from_millis(100);

/// The first rest comes sooner: many a connection has nothing to say after its beginning, and those that begin together should
/// not all be awake together.
pub(super) const FIRST: Duration = Duration::from_millis(20);

impl Connection {
    /// When it looks next whether it may rest; never while it does, nor while it has no right to.
    pub(super) fn rest_deadline(&self) -> Option<Instant> {
        (self.rest_at < Instant::FAR_FUTURE && self.may_rest()).then_some(self.rest_at)
    }

    /// Whether silence may be long: on an established connection, and on a server whose client has had an answer.
    fn may_rest(&self) -> bool {
        match self.life {
            Life::Established => true,
            Life::Handshaking => self.side.is_server() && self.tls.is_some(),
            _ => false,
        }
    }

    fn dormant_after(&self) -> Duration {
        let after = self.settings.dormant_after.unwrap_or(QUIET);
        if self.has_rested { after } else { after.min(FIRST) }
    }

    /// Takes note of what happened since it went to rest.
    pub(super) fn note_waking(&mut self, now: Instant) {
        if self.rest_at < Instant::FAR_FUTURE {
            return;
        }
        let woken = self.settings.dormant_after.is_some() && !self.keys.are_dormant();
        if woken || self.last_activity.max(self.last_sent) > self.rested_at {
            self.rest_at = now + self.dormant_after();
        }
    }

    /// Goes to rest if nothing happened for long enough. What happens moves no deadline; this looks when it was.
    pub(super) fn rest_if_idle(&mut self, env: &mut Env, now: Instant) {
        if self.rest_at > now {
            return;
        }
        let silent_until = self.last_activity.max(self.last_sent) + self.dormant_after();
        if silent_until > now || !self.may_rest() {
            self.rest_at = if silent_until > now { silent_until } else { now + QUIET };
            return;
        }
        // Old keys may still be needed: another look later.
        let asleep = self.settings.dormant_after.is_none() || self.keys.sleep();
        self.rest_at = if asleep { Instant::FAR_FUTURE } else { now + self.dormant_after() };
        (self.rested_at, self.has_rested) = (now, true);
        self.give_back(env);
    }

    /// Gives the room back that empty lists and queues keep for the next time.
    fn give_back(&mut self, env: &mut Env) {
        self.recovery.shrink();
        self.acks.shrink();
        self.control.shrink();
        self.datagrams.shrink();
        self.streams.shrink();
        self.path.congestion.shrink();
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

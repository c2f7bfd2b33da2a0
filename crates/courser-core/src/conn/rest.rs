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
use crate::crypto::TlsSession;
use crate::ids::Level;
use crate::time::Instant;

/// When a connection whose keys stay gives back the rest.
const QUIET: Duration = Duration::from_millis(100);

/// The first rests come sooner: many a connection has nothing to say after its beginning, and those that begin together should
/// not all be awake together.
pub(super) const FIRST: Duration = Duration::from_millis(5);
/// How many, those that busy connections leave out included: what a peer acknowledges late wakes a connection that has
/// nothing more to say.
const FIRST_RESTS: u8 = 8;

/// Who is woken soon rests in vain: it is awake for twice as long next time, up to this many times doubled.
const DOUBLINGS_MAX: u8 = 4;
/// Who rested for so many times as long as it has to be quiet before begins anew.
const WELL_RESTED: u32 = 16;

impl Connection {
    /// When it looks next whether it may rest; never while it does, nor while it has no right to. What leaves by itself, as
    /// an acknowledgement does that was held back, wakes it too.
    pub(super) fn rest_deadline(&self, env: &Env) -> Option<Instant> {
        let at = if self.rest_at < Instant::FAR_FUTURE { self.rest_at } else { self.stirred(env)? };
        self.may_rest().then_some(at)
    }

    /// When it may rest again, if something came or left since it went to rest.
    fn stirred(&self, env: &Env) -> Option<Instant> {
        let active = self.last_activity.max(self.last_sent);
        (active > self.rested_at).then(|| active + self.dormant_after(env))
    }

    /// Whether silence may be long: on an established connection, and on a server whose client has had an answer.
    fn may_rest(&self) -> bool {
        match self.life {
            Life::Established => true,
            Life::Handshaking => self.side.is_server() && self.tls.is_some(),
            _ => false,
        }
    }

    fn dormant_after(&self, env: &Env) -> Duration {
        let after = self.settings(env).dormant_after.unwrap_or(QUIET);
        match self.rests.checked_sub(FIRST_RESTS) {
            None => after.min(FIRST),
            Some(more) => after * (1 << more.min(DOUBLINGS_MAX)),
        }
    }

    /// Takes note of what happened since it went to rest.
    pub(super) fn note_waking(&mut self, env: &Env, now: Instant) {
        if self.rest_at < Instant::FAR_FUTURE {
            return;
        }
        if now.since(self.rested_at) >= self.settings(env).dormant_after.unwrap_or(QUIET) * WELL_RESTED {
            self.rests = self.rests.min(FIRST_RESTS);
        }
        if let Some(at) = self.stirred(env) {
            self.rest_at = at;
        } else if let Some(after) = self.settings(env).dormant_after
            && !self.keys.are_dormant()
        {
            self.rest_at = now + after;
        }
    }

    /// Goes to rest if nothing happened for long enough. What happens moves no deadline; this looks when it was.
    pub(super) fn rest_if_idle(&mut self, env: &mut Env, now: Instant) {
        if self.rest_at > now {
            return;
        }
        let silent_until = self.last_activity.max(self.last_sent) + self.dormant_after(env);
        if silent_until > now || !self.may_rest() {
            // Who is busy from its beginning is not looked at every few milliseconds.
            self.rests = self.rests.max(self.rests.saturating_add(1).min(FIRST_RESTS));
            self.rest_at = if silent_until > now { silent_until } else { now + QUIET };
            return;
        }
        // Old keys may still be needed: another look later.
        let asleep = self.settings(env).dormant_after.is_none() || self.keys.sleep();
        self.rest_at = if asleep { Instant::FAR_FUTURE } else { now + self.dormant_after(env) };
        (self.rested_at, self.rests) = (now, self.rests.saturating_add(1));
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
        if matches!(self.life, Life::Established) {
            self.tls = self.tls.take().map(TlsSession::rest);
        }
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
